"""Which episode of which segment has which number."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from reenact.table import FIELDS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from reenact.table import Table

Array = np.ndarray[Any, Any]


class Numbering:
    """The numbers of a run's episodes, as of the tables' last refresh.

    Args:
        tables: the segments', by number.

    Attributes:
        tables: as given.
        order: where each number's episode lies among all, which lie by segment and index.
        damaged: how many episodes have no number because their CRC failed.
        info: the values of the info keywords, one entry a number.
    """

    def __init__(self, tables: Sequence[Table]) -> None:
        self.tables = tables
        columns = [table.columns() for table in tables]
        self._columns = {
            name: np.concatenate([np.zeros(0, dtype), *(column[name] for column in columns)])
            for name, dtype in {**FIELDS, "row": "i8", "index": "i8", "kept": "u1", "label": "O"}.items()
        }
        counts = [len(column["row"]) for column in columns]
        self._segments = np.repeat(np.array([table.number for table in tables], np.int64), counts)
        # they lie by segment and index already, so a stable sort by time orders by all three
        ends = self._columns["end_time"]
        order = np.argsort(ends, kind="stable")
        alive = [table.status.heartbeat for table in tables if table.alive]
        if alive and len(tables) > 1:
            # What a live segment brings next ended at its heartbeat or later: nothing up to there moves any more.
            order = order[: int(np.searchsorted(ends[order], min(alive), "left"))]
        self.order = order
        names = dict.fromkeys(name for table in tables for name in table.reader.info_keywords)
        self.info = {name: _info_column(name, tables, columns)[order] for name in names}
        self.damaged = sum(table.damaged for table in tables)

    def column(self, name: str) -> Array:
        """Returns a column of the tables, one entry a number."""
        found: Array = self._columns[name][self.order]
        return found

    @property
    def segments(self) -> Array:
        """The segment that holds each, int64."""
        found: Array = self._segments[self.order]
        return found

    def place(self, at: int) -> tuple[int, int, int]:
        """Returns the segment of the episode that lies there among all, its row in the table, and its index."""
        return int(self._segments[at]), int(self._columns["row"][at]), int(self._columns["index"][at])

    def find(self, segment: int, index: int) -> tuple[int, int | None] | None:
        """Returns where an address's episode lies, and its number, if it has one yet; None: there is none."""
        at = np.flatnonzero((self._segments == segment) & (self._columns["index"] == index))
        if not len(at):
            return None
        number = np.flatnonzero(self.order == at[0])
        return int(at[0]), int(number[0]) if len(number) else None

    def numbers_of(self, segment: int) -> dict[int, int]:
        """Returns the numbers of a segment's episodes, by their indices."""
        mine = np.flatnonzero(self._segments[self.order] == segment)
        return dict(zip(self._columns["index"][self.order[mine]].tolist(), mine.tolist(), strict=True))


def _info_column(name: str, tables: Sequence[Table], columns: Sequence[dict[str, Array]]) -> Array:
    parts = []
    for table, column in zip(tables, columns, strict=True):
        keywords = table.reader.info_keywords
        missing = np.full(len(column["row"]), np.nan)
        parts.append(column["info"][:, keywords.index(name)] if name in keywords else missing)
    return np.concatenate(parts)
