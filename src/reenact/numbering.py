"""Which episode of which segment has which number."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from reenact.layout import Kept

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

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
        info_keywords: the names that `info` knows.
    """

    def __init__(self, tables: Sequence[Table]) -> None:
        self.tables = tables
        self._parts = [table.columns() for table in tables]
        counts = [len(part["row"]) for part in self._parts]
        self._starts = np.cumsum([0, *counts])
        self.damaged = sum(table.damaged for table in tables)
        self.info_keywords = tuple(dict.fromkeys(name for table in tables for name in table.reader.info_keywords))
        # they lie by segment and index already, so a stable sort by time orders by all three
        ends = self._joined("end_time")
        self._sorted = bool((ends[:-1] <= ends[1:]).all())
        order = np.arange(len(ends)) if self._sorted else np.argsort(ends, kind="stable")
        alive = [table.status.heartbeat for table in tables if table.alive]
        if alive and len(tables) > 1:
            # What a live segment brings next ended at its heartbeat or later: nothing up to there moves any more.
            order = order[: int(np.searchsorted(ends[order], min(alive), "left"))]
        self.order = order

    def _joined(self, name: str, missing: Callable[[Table, int], Array] | None = None) -> Array:
        """Returns a column over all tables; of one table, its very own."""
        parts = [
            part[name] if name in part or missing is None else missing(table, len(part["row"]))
            for table, part in zip(self.tables, self._parts, strict=True)
        ]
        return parts[0] if len(parts) == 1 else np.concatenate([np.zeros(0, parts[0].dtype if parts else "i8"), *parts])

    def _numbered(self, joined: Array) -> Array:
        """Returns a copy, one entry a number."""
        found: Array = joined[: len(self.order)].copy() if self._sorted else joined[self.order]
        return found

    def column(self, name: str) -> Array:
        """Returns a column of the tables, one entry a number: one of table.FIELDS, `row` or `index`."""
        return self._numbered(self._joined(name))

    @property
    def kept(self) -> Array:
        """What there is of each: Kept, uint8."""
        return self._numbered(self._joined("kept", lambda _table, count: np.full(count, Kept.PICKED, np.uint8)))

    @property
    def labels(self) -> Array:
        """The label of each, text; "": none."""
        joined = np.full(int(self._starts[-1]), "", object)
        for table, start in zip(self.tables, self._starts.tolist(), strict=False):
            labels = table.labels()
            joined[start + np.fromiter(labels, np.int64, len(labels))] = list(labels.values())
        return self._numbered(joined)

    @property
    def segments(self) -> Array:
        """The segment that holds each, int64."""
        return self.by_segment(np.array([table.number for table in self.tables], np.int64))

    def by_segment(self, values: Array) -> Array:
        """Returns for each number that of the values that is its segment's.

        Args:
            values: one a table.
        """
        return self._numbered(np.repeat(values, np.diff(self._starts)))

    def info(self, name: str) -> Array:
        """Returns the values of an info keyword, one a number, float64; NaN where there is none.

        Raises:
            KeyError: it was not recorded.
        """
        if name not in self.info_keywords:
            raise KeyError(name)
        joined = np.full(int(self._starts[-1]), np.nan)
        for table, part, start in zip(self.tables, self._parts, self._starts.tolist(), strict=False):
            keywords = table.reader.info_keywords
            if name in keywords:
                joined[start : start + len(part["row"])] = part["info"][:, keywords.index(name)]
        return self._numbered(joined)

    def place(self, at: int) -> tuple[Table, int, int]:
        """Returns the table of the episode that lies there among all, its row in it, and its index."""
        which = int(np.searchsorted(self._starts, at, "right")) - 1
        part, within = self._parts[which], at - int(self._starts[which])
        return self.tables[which], int(part["row"][within]), int(part["index"][within])

    def find(self, segment: int, index: int) -> tuple[int, int | None] | None:
        """Returns where an address's episode lies, and its number, if it has one yet; None: there is none."""
        for table, part, start in zip(self.tables, self._parts, self._starts.tolist(), strict=False):
            if table.number == segment and len(within := np.flatnonzero(part["index"] == index)):
                at = start + int(within[0])
                number = np.flatnonzero(self.order == at)
                return at, int(number[0]) if len(number) else None
        return None

    def last_index(self, segment: int) -> int | None:
        """Returns the greatest index of a segment's episodes; None: it has none."""
        which = [table.number for table in self.tables].index(segment)
        indices = self._parts[which]["index"]
        return int(indices.max()) if len(indices) else None

    def numbers_of(self, segment: int) -> dict[int, int]:
        """Returns the numbers of a segment's episodes, by their indices."""
        which = [table.number for table in self.tables].index(segment)
        start, end = self._starts[which : which + 2].tolist()
        mine = np.flatnonzero((self.order >= start) & (self.order < end))
        return dict(zip(self._parts[which]["index"][self.order[mine] - start].tolist(), mine.tolist(), strict=True))
