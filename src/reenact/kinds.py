"""In what Python and NumPy types the actions were given, run-length encoded: on their way into a segment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from reenact import layout

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from reenact.codec import Taken
    from reenact.pending import Heap, Ref
    from reenact.writer import SegmentWriter

_REFS_KEPT = 1024
Dtypes = tuple[np.dtype[Any] | None, ...]
Run = tuple[int, str, Dtypes]
"""From this row of the segment on: the kind, as it is kept, and of each leaf the dtype; None: it is JSON."""


class Kinds:
    """The runs that a segment has not yet, and those in which something uncommitted lies.

    Attributes:
        runs: in the order of their rows.
    """

    def __init__(self) -> None:
        self.runs: list[Run] = []
        self._written = 0  # how many of them the segment has
        self._latest: str | None = None
        self._refs: dict[str, Ref] = {}
        # as of the last write
        self._starts: list[int] = []
        self._first_row = 0

    def go_on(self, row: int, kind: str, dtypes: Dtypes) -> None:
        """From this row on the actions are of a kind; most often it is the one that they were of."""
        if kind != self._latest or self.runs[-1][2] != dtypes:
            self.runs.append((row, kind, dtypes))
            self._latest = kind

    def go_on_apart(self, row: int, lanes: Sequence[Taken]) -> None:
        """The rows from this one on, one a lane, are each of a kind of their own."""
        self.runs += [(row + lane, one.kind, one.dtypes) for lane, one in enumerate(lanes)]
        self._latest = None  # the last one never reaches into what follows

    def spans(self, first: int, count: int) -> Iterator[tuple[int, int, Dtypes]]:
        """Yields from where to where, counted from row `first`, so many rows are of which dtypes."""
        bounds = [*(max(0, row - first) for row, _, _ in self.runs), count]
        for (_, _, dtypes), begin, end in zip(self.runs, bounds, bounds[1:], strict=False):
            if end > begin:
                yield begin, end, dtypes

    def write(self, writer: SegmentWriter, heap: Heap) -> None:
        """Appends those that the segment has not yet."""
        rows = np.zeros(len(self.runs) - self._written, layout.KIND_ROW)
        for row, (first, kind, _) in zip(rows, self.runs[self._written :], strict=True):
            ref = self._refs.get(kind)
            if ref is None:
                ref = heap.add(kind.encode())
                if len(self._refs) < _REFS_KEPT:
                    self._refs[kind] = ref
            row["step"], row["kind"] = first, ref
        layout.seal_rows(rows)
        self._starts = [first for first, _, _ in self.runs]
        self._first_row = writer.kinds.rows - self._written
        writer.kinds.append(rows)
        self._written = len(self.runs)

    def places(self, steps: np.ndarray) -> np.ndarray:
        """Returns the rows of `kinds` in force at rows of steps, as of the last write."""
        found: np.ndarray = self._first_row + np.maximum(np.searchsorted(self._starts, steps, "right") - 1, 0)
        return found

    def forget_before(self, row: int) -> None:
        """Lets go of those that end before a row."""
        keep = 0
        while keep + 1 < len(self.runs) and self.runs[keep + 1][0] <= row:
            keep += 1
        self.runs, self._written = self.runs[keep:], self._written - keep

    def begin_segment(self) -> None:
        """A new segment has nothing in its heap yet."""
        self._refs = {}

    def move_back(self, rows: int) -> None:
        """All rows come so many earlier, in a new segment."""
        self.runs = [(max(0, first - rows), kind, dtypes) for first, kind, dtypes in self.runs]
        self._written = 0

    def start_anew(self) -> None:
        """Lets go of all of them."""
        self.runs, self._written, self._latest = [], 0, None
