"""The actions of a segment, in the types in which they were given."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from reenact import layout
from reenact.checksums import is_sound
from reenact.errors import DamagedError
from reenact.header import make_codec
from reenact.heap import blob

if TYPE_CHECKING:
    from collections.abc import Iterator

    from reenact.hdf5 import Hdf5File
    from reenact.header import Header
    from reenact.slots import Slots

Array = np.ndarray[Any, Any]


class ActionColumns:
    """Turns the columns of a segment's actions into these.

    Attributes:
        names: of the columns.

    Raises:
        DamagedError: the columns do not fit the action space.
    """

    def __init__(self, file: Hdf5File, header: Header, slots: Slots) -> None:
        self._file, self._slots, self._partial = file, slots, header.partial
        self.names = header.columns[: header.n_actions]
        space = header.action_space
        self._codec = make_codec(file, self.names, space) if space is not None else None

    def restore(self, kind_row: int, first: int, columns: list[Array], space: Any, apart: int = 1) -> list[Any]:
        """Puts the actions of the steps from `first` on together.

        Args:
            kind_row: row of `kinds` to look from.
            first: row of the steps.
            columns: theirs.
            space: the env's action space, for a log that couldn't keep it.
            apart: how far apart the rows of the steps lie.

        Raises:
            DamagedError: a kind, or what the heap holds of them, is damaged.
        """
        codec = self._codec or make_codec(self._file, self.names, space)
        leaves: list[Any] = [
            [blob(self._file, ref) for ref in column] if leaf.is_json else column
            for leaf, column in zip(codec.leaves, columns, strict=True)
        ]
        found: list[Any] = []
        try:
            end = first + len(columns[0]) * apart
            for start, stop, kind in self.kind_runs(kind_row, first, end):
                since, until = -((first - start) // apart), -((first - stop) // apart)
                if until > since:
                    part = [leaf[since:until] for leaf in leaves]
                    found += codec.restore_all(kind, part, until - since)
        except DamagedError:
            raise
        except ValueError as error:
            raise DamagedError(f"{self._file.path}: {error}") from error
        return found

    def kind_runs(self, at: int, first: int, end: int) -> Iterator[tuple[int, int, str]]:
        """Yields in what kind the actions of steps [first, end) were given: first step, end, kind.

        Args:
            at: row of `kinds` to look from.
            first: row of the steps.
            end: as above.

        Raises:
            DamagedError: that is damaged.
        """
        if first >= end:
            return
        count = self._file.count(layout.KINDS)
        start, kind = first, ""
        while at < count:
            read = self._file.read(layout.KINDS, at, min(layout.SIDE_CHUNK, count - at))
            rows = read[read["kind"]["length"] > 0] if self._partial else read  # the others are holes
            for number, row in enumerate(rows, at):
                if not is_sound(row):
                    if self._is_unwritten(number, count):
                        break
                    raise DamagedError(f"{self._file.path}: the kinds of its actions are damaged")
                step = int(row["step"])
                if step >= end:
                    break
                if step > start:
                    yield start, step, kind
                    start = step
                kind = blob(self._file, row["kind"]).decode("utf-8", "replace")
            else:
                at += len(read)
                continue
            break
        if not kind:
            raise DamagedError(f"{self._file.path}: the kinds of its actions are missing")
        yield start, end, kind

    def _is_unwritten(self, first: int, end: int) -> bool:
        """Whether kinds [first, end) are of a commit for whose steps there was no room: no row refers to them."""
        if self._slots.finished():
            return False
        slices = range(first, end, layout.SIDE_CHUNK)
        return not any(
            any(self._file.read(layout.KINDS, at, min(layout.SIDE_CHUNK, end - at)).tobytes()) for at in slices
        )
