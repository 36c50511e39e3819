"""One segment, read as data that may be damaged, hostile, or still being written.

Nothing is used before it is checked: rows and columns have CRCs, a heap reference must lie in the heap,
and what HDF5 itself can be made to do is fenced off by the room below, `hdf5`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from zlib import crc32

import numpy as np

from reenact import jsontags, layout
from reenact.actions import ActionColumns
from reenact.errors import DamagedError, ReplayError
from reenact.hdf5 import Hdf5File
from reenact.header import read_header
from reenact.heap import blob, blobs
from reenact.layout import Kept
from reenact.process import this_process
from reenact.slots import Slots
from reenact.states import States

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_SLICE = 4096
"""Rows read together: few enough that they stay in the caches of a processor while they are checked and copied."""
Array = np.ndarray[Any, Any]


class SegmentReader:
    """An open segment.

    Args:
        path: the file.
        group: of a packed file, where in it the segment lies.
        why_left: of a packed file, why episodes are not in it.
        tried: what `probe.try_all` has just said of the file, if it has been tried.

    Attributes:
        header: what it says of itself; its fields can be had of the reader, too.
        slots: who writes it, and which episode runs.
        states: what resets can be started again from.
        action_columns: puts actions together.
        rows_seen: how many rows of `episodes` `new_rows` has given.
        rows_ahead: how many more it is about to give.

    Raises:
        DamagedError: it isn't there, is no segment, or can't be read.
    """

    def __init__(self, path: Path, group: str = "", *, why_left: str = "", tried: str | None = None) -> None:
        if not is_file(path):
            raise DamagedError(f"{path} is no file that can be read")
        self.path, self.group, self._why_left = path, group, why_left
        self._file = Hdf5File(path, group, tried=tried)
        self.rows_seen = self.rows_ahead = 0
        try:
            self.header = header = read_header(self._file, group)
            self.number, self.attributes, self.partial = header.number, header.attributes, header.partial
            self.columns, self.info_keywords = header.columns, header.info_keywords
            self.action_space, self.row_dtype, self.sound = header.action_space, header.row_dtype, header.sound
            self.slots, self.states = Slots(self._file, header), States(self._file)
            self.action_columns = ActionColumns(self._file, header, self.slots)
            if not self.slots.finished() and self.slots.status().writer == this_process():
                self._file.share()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    # ---- what is there

    def kept(self, first: int, count: int) -> Array:
        """Reads what there is of the episodes of rows [first, first + count): Kept, uint8.

        Raises:
            DamagedError: it can't be read.
        """
        if not self.partial:
            return np.full(count, Kept.PICKED, np.uint8)
        return self._file.read(layout.KEPT, first, count)

    def check_kept(self, code: int, what: str) -> None:
        """Makes sure that a copy holds the steps of an episode.

        Args:
            code: a Kept.
            what: how the message calls it.

        Raises:
            ReplayError: it was left out.
            DamagedError: it was damaged when the copy was made.
        """
        if code == Kept.LOST:
            raise DamagedError(f"{what} was damaged when {self.path} was made from the run, and is lost")
        if code not in (Kept.PICKED, Kept.NEEDED):
            raise ReplayError(f"the steps of {what} are not in {self.path}: {self._why_left or 'they were left out'}")

    def new_rows(self) -> Iterator[tuple[int, Array]]:
        """Yields what has been committed since the last call, in slices: the first row's number, and the rows.

        They are not checked: see `sound`.
        """
        end = self._file.count(layout.EPISODES)
        while self.rows_seen < end:
            first = self.rows_seen
            rows = self.table_rows(first, min(end - first, _SLICE))
            self.rows_seen += len(rows)
            self.rows_ahead = end - self.rows_seen
            yield first, rows

    def table_rows(self, first: int, count: int) -> Array:
        """Reads rows of the episodes table; zeros, whose CRCs fail, where a chunk is damaged beyond reading."""
        return self.read_or_zeros(layout.EPISODES, first, count)

    def row(self, number: int) -> np.void:
        """Reads one row of the episodes table.

        Raises:
            DamagedError: its CRC fails.
        """
        return next(self.rows(number, number + 1))

    def rows(self, first: int, end: int) -> Iterator[np.void]:
        """Reads rows [first, end) of the episodes table, a slice at a time.

        Raises:
            DamagedError: a CRC fails.
        """
        for start in range(first, end, _SLICE):
            rows = self._file.read(layout.EPISODES, start, min(end - start, _SLICE))
            for number, (row, sound) in enumerate(zip(rows, self.sound(rows), strict=True), start):
                if not sound:
                    raise DamagedError(f"{self.path}: row {number} of the episodes is damaged")
                yield row

    def count(self, name: str) -> int:
        """Reads how many rows a dataset has by now."""
        return self._file.count(name)

    def read(self, name: str, first: int, count: int) -> Array:
        """Reads rows of a dataset as they are.

        Raises:
            DamagedError: they lie beyond its end, or can't be read.
        """
        return self._file.read(name, first, count)

    def read_or_zeros(self, name: str, first: int, count: int) -> Array:
        """Reads rows of a dataset; zeros where a chunk is damaged beyond reading, or missing."""
        try:
            return self._file.read(name, first, count)
        except DamagedError:
            pass
        chunk, end, parts = self._file.chunk(name), first + count, []
        while first < end:
            stop = min(end, (first // chunk + 1) * chunk)
            try:
                parts.append(self._file.read(name, first, stop - first))
            except DamagedError:
                parts.append(np.zeros((stop - first, *self._file.row_shape(name)), self._file.dtype(name)))
            first = stop
        return np.concatenate(parts)

    def check_size(self, name: str, rows: int) -> None:
        """Makes sure that the file could hold so many rows of a dataset.

        Raises:
            DamagedError: it couldn't.
        """
        self._file.check_size(name, rows)

    # ---- what an episode holds

    def rewards(self, row: np.void) -> Array:
        """Reads an episode's rewards, float64, shape (length,)."""
        return self._column(self.header.n_actions, row)[: int(row["length"])]

    def durations(self, row: np.void) -> Array | None:
        """Reads how long each step took, in seconds, float32, shape (length,); None if that was not logged."""
        if "duration" not in self.columns:
            return None
        return self._column(self.columns.index("duration"), row)[: int(row["length"])]

    def actions(self, row: np.void, space: Any = None) -> list[Any]:
        """Reads an episode's actions in the types they were given; the one that raised is the last.

        Args:
            row: of the episodes table.
            space: the env's action space, for a log that couldn't keep it.
        """
        columns = [self._column(index, row) for index in range(self.header.n_actions)]
        return self.action_columns.restore(int(row["kind"]), int(row["first_step"]), columns, space, self.header.width)

    def fingerprints(self, row: np.void) -> dict[int, int]:
        """Reads an episode's observation checksums by step."""
        first, count = int(row["first_fingerprint"]), int(row["n_fingerprints"])
        found = self._file.read(layout.FINGERPRINTS, first, count)
        if crc32(found.tobytes()) != int(row["column_crcs"][-1]):
            raise DamagedError(f"{self.path}: the fingerprints of an episode are damaged")
        return dict(zip(found["step"].tolist(), found["checksum"].tolist(), strict=True))

    def details(self, row: np.void) -> dict[str, Any]:
        """Reads an episode's reset options, error, and seed beyond int64."""
        if not row["details"]["length"]:
            return {}
        try:
            found = jsontags.loads(self.blob(row["details"]))
        except ValueError as error:
            raise DamagedError(f"{self.path}: the details of an episode are damaged: {error}") from error
        return found if isinstance(found, dict) else {}

    def label(self, row: np.void) -> str:
        """Reads an episode's label."""
        return self.blob(row["label"]).decode("utf-8", "replace")

    def labels(self, refs: Array) -> list[str | None]:
        """Reads labels by their references; None for what is damaged."""
        texts: dict[bytes, str] = {}  # most are the same few
        return [
            None if data is None else texts.setdefault(data, data.decode("utf-8", "replace"))
            for data in blobs(self._file, refs)
        ]

    def blob(self, ref: np.void) -> bytes:
        """Reads what a heap reference points to.

        Raises:
            DamagedError: it lies outside the heap, or its CRC fails.
        """
        return blob(self._file, ref)

    def _column(self, index: int, row: np.void) -> Array:
        first, width = int(row["first_step"]), self.header.width
        count = max(0, int(row["n_actions"]) * width - width + 1)
        found = self._file.read(f"steps/{self.columns[index]}", first, count)[::width]
        if crc32(np.ascontiguousarray(found).tobytes()) != int(row["column_crcs"][index]):
            raise DamagedError(
                f"{self.path}: the steps {first} to {first + count} of {self.columns[index]} are damaged"
            )
        return found


def is_file(path: Path) -> bool:
    """Whether there is a file, and no FIFO, where opening would wait for ever."""
    try:
        return path.is_file()
    except OSError:  # a link to itself, a folder that may not be looked into
        return False
