"""Segments copied into another file, row for row, and compared with it; at constant memory.

Every row keeps its place and its bytes, so that references, checksums and signatures hold as they are. What is not
to be copied becomes holes.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from reenact import layout
from reenact.acts import steps_end
from reenact.errors import DamagedError, RunError
from reenact.inspection import length_of, rows_of
from reenact.layout import Kept
from reenact.reader import SegmentReader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from reenact.archive import Archive
    from reenact.table import Table

Array = np.ndarray[Any, Any]
_BLOCK = 1 << 22
"""Bytes read and written together."""
_ROWS = 4096


@dataclass(frozen=True, slots=True)
class Ranges:
    """Rows [starts[i], stops[i]) of a dataset, in order, none of them twice; int64."""

    starts: Array
    stops: Array

    @classmethod
    def of(cls, starts: Array, stops: Array, end: int) -> Ranges:
        """Returns the union of ranges, as far as they lie before `end`."""
        starts = np.minimum(starts.astype(np.uint64), end).astype(np.int64)
        stops = np.minimum(stops.astype(np.uint64), end).astype(np.int64)
        order = np.argsort(starts[starts < stops], kind="stable")
        starts, stops = starts[starts < stops][order], stops[starts < stops][order]
        if not len(starts):
            return cls(starts, stops)
        reached = np.maximum.accumulate(stops)
        first = np.concatenate([[True], starts[1:] > reached[:-1]])
        return cls(starts[first], np.append(reached[:-1][first[1:]], reached[-1]))

    def within(self, begin: int, end: int) -> Iterator[tuple[int, int]]:
        """Yields the parts of them in [begin, end)."""
        first = int(np.searchsorted(self.stops, begin, "right"))
        last = int(np.searchsorted(self.starts, end, "left"))
        for start, stop in zip(self.starts[first:last].tolist(), self.stops[first:last].tolist(), strict=True):
            yield max(start, begin), min(stop, end)

    def blocks(self, size: int, end: int) -> Iterator[tuple[int, int]]:
        """Yields the blocks, each of `size` rows from a multiple of it on, that hold any of them."""
        done = 0
        for start, stop in zip(self.starts.tolist(), self.stops.tolist(), strict=True):
            begin = max(done, start // size * size)
            while begin < stop:
                yield begin, min(begin + size, end)
                done = begin = begin + size


def _everything(count: int) -> Ranges:
    return Ranges.of(np.array([0]), np.array([count]), count)


@dataclass(slots=True)
class _Written:
    """What was written to a dataset: enough to read it back."""

    ranges: Ranges
    block: int
    end: int
    digest: str = ""


@dataclass(slots=True)
class Copy:
    """A segment, copied.

    Attributes:
        group: where it lies in the file; "": the root.
        attributes: as they were written.
        written: by dataset.
    """

    group: str
    attributes: dict[str, str | int]
    written: dict[str, _Written] = field(default_factory=dict)

    def check(self, path: Path) -> None:
        """Reads the copy back, and compares it with what was written.

        Raises:
            RunError: it is not the same.
        """
        try:
            reader = SegmentReader(path, self.group)
        except DamagedError as error:
            raise RunError(f"what was written can't be read back: {error}") from error
        try:
            if reader.attributes != self.attributes:
                raise RunError(f"{path}: the attributes read back are not those that were written")
            for name, written in self.written.items():
                digest = hashlib.blake2b()
                for begin, end in written.ranges.blocks(written.block, written.end):
                    _digest(digest, begin, reader.read(name, begin, end - begin))
                if digest.hexdigest() != written.digest or reader.count(name) != written.end:
                    raise RunError(f"{path}: {name} read back is not what was written")
        finally:
            reader.close()


def _digest(digest: hashlib.blake2b, first: int, rows: Array) -> None:
    digest.update(first.to_bytes(8, "little"))
    digest.update(np.ascontiguousarray(rows).view(np.uint8).reshape(-1).data)


def copy(table: Table, codes: Array, archive: Archive, group: str = "", *, rows: int | None = None) -> Copy:
    """Copies a segment.

    Args:
        table: the segment's.
        codes: a Kept for each of its rows: what is to be copied.
        archive: where to.
        group: where in it.
        rows: how many of its rows; None: all.

    Raises:
        DamagedError: it can't be read.
        RunError: it can't be written.
    """
    return _Copying(table, codes, archive, group, length_of(table) if rows is None else rows).run()


class _Copying:
    """One segment on its way."""

    def __init__(self, table: Table, codes: Array, archive: Archive, group: str, rows: int) -> None:
        self._table, self._reader, self._archive, self._group = table, table.reader, archive, group
        self._codes, self._rows = codes[:rows], rows
        self._whole = bool((self._codes == Kept.PICKED).all())
        self._copy = Copy(group, dict(table.reader.attributes))
        self._refs: list[Ranges] = []

    def run(self) -> Copy:
        """Copies it."""
        self._archive.add_attributes(self._group, self._copy.attributes)
        self._column(layout.EPISODES, _everything(self._rows), self._rows, self._read_rows)
        if not self._whole:
            self._column(layout.KEPT, _everything(self._rows), self._rows, lambda a, b: self._codes[a:b])
        self._slots()
        steps = self._steps()
        end = self._steps_end()
        for name in self._reader.columns:
            self._column(f"steps/{name}", steps, end)
        for name, ranges, count in self._sides(steps):
            self._column(name, ranges, count)
        heap = self._reader.count(layout.HEAP)
        self._column(layout.HEAP, _everything(heap) if self._whole else self._union(self._refs, heap), heap)
        return self._copy

    def _name(self, name: str) -> str:
        return f"{self._group}/{name}"

    def _slots(self) -> None:
        """The copy's writer has closed it, and no episode runs; what was done since the last end is still said."""
        slots = self._reader.slots.closed_open()
        if self._rows < length_of(self._table):
            slots = np.zeros_like(slots)
        self._archive.add_table(self._name(layout.OPEN), slots)
        self._archive.add_table(self._name(layout.STATUS), self._reader.slots.closed_status())

    # ---- what to copy

    def _read_rows(self, first: int, end: int) -> Array:
        return rows_of(self._table, first, end)

    def _steps_end(self) -> int:
        """Returns how many steps there are up to the last row that is copied, and after its end."""
        if self._reader.header.autoreset:  # what follows one episode is a part of others'
            return self._reader.count(layout.REWARD)
        if self._rows < length_of(self._table):
            following = self._read_rows(self._rows, self._rows + 1)
            if self._reader.sound(following)[0]:
                return int(following["first_step"][0])
        last = self._read_rows(self._rows - 1, self._rows) if self._rows else None
        if last is None or not self._reader.sound(last)[0]:
            return self._reader.count(layout.REWARD)
        if self._rows < length_of(self._table):
            return int(last[0]["first_step"]) + int(last[0]["n_actions"])
        try:
            return steps_end(self._reader, last[0]).step
        except DamagedError:  # then nobody knows which of them are the env's
            return self._reader.count(layout.REWARD)

    def _kept_rows(self) -> Iterator[tuple[Array, Array, Array]]:
        """Yields the rows in slices, which of them are sound, and which are copied with all that they refer to."""
        for first in range(0, self._rows, _ROWS):
            end = min(first + _ROWS, self._rows)
            rows = self._read_rows(first, end)
            sound = self._reader.sound(rows)
            yield rows, sound, sound & np.isin(self._codes[first:end], (Kept.PICKED, Kept.NEEDED))

    def _steps(self) -> Ranges:
        """Returns the steps of kept episodes, those after their ends up to the next reset, those before the first."""
        end = self._steps_end()
        if self._whole:
            return _everything(end)
        if self._reader.header.autoreset:
            return self._vector_steps(end)
        starts, stops = [np.zeros(0, np.uint64)], [np.zeros(0, np.uint64)]
        last_kept = False  # of the slice before
        for rows, sound, kept in self._kept_rows():
            first = rows["first_step"]
            stop = first + rows["n_actions"]
            if last_kept and sound[0]:
                stops[-1][-1] = max(stops[-1][-1], first[0])
            follows = sound[1:] & (first[1:] > stop[:-1])
            stop[:-1][follows] = first[1:][follows]
            starts.append(first[kept])
            stops.append(stop[kept])
            last_kept = bool(kept[-1])
        if last_kept:
            stops[-1][-1] = max(stops[-1][-1], np.uint64(end))
        if self._codes[:1].tolist() in ([Kept.PICKED], [Kept.NEEDED]):  # those before it are of a segment before
            starts.append(np.zeros(1, np.uint64))
            stops.append(self._read_rows(0, 1)["first_step"])
        return Ranges.of(np.concatenate(starts), np.concatenate(stops), end)

    def _vector_steps(self, end: int) -> Ranges:
        """Returns the same of a vector env's segment: whole vector steps, whatever lane is kept."""
        width, rests = self._reader.header.width, self._reader.header.autoreset == "disabled"
        starts: list[int] = []
        stops: list[int] = []
        last: dict[int, int] = {}  # by lane, which of these its last episode is, if that is kept
        for rows, sound, kept in self._kept_rows():
            fields = (rows[name].tolist() for name in ("lane", "first_step", "n_actions"))
            for lane, first, count, is_sound, is_kept in zip(*fields, sound.tolist(), kept.tolist(), strict=True):
                if not is_sound:
                    continue
                begin = first - lane
                if lane in last:
                    at = last.pop(lane)
                    stops[at] = max(stops[at], begin)
                if is_kept:
                    last[lane] = len(starts)
                    starts.append(begin)
                    stops.append(begin + count * width)
        for at in last.values():
            stops[at] = end if rests else stops[at] + width
        return Ranges.of(np.array(starts, np.uint64), np.array(stops, np.uint64), end)

    def _kinds_end(self) -> int:
        """Returns how many kinds there are before those that a full disk left unwritten, which are zeros."""
        end = self._reader.count(layout.KINDS)
        while end and not self._reader.slots.finished():
            first = max(0, end - _ROWS)
            written = np.flatnonzero(self._reader.read_or_zeros(layout.KINDS, first, end - first)["kind"]["length"])
            if len(written):
                return first + int(written[-1]) + 1
            end = first
        return end

    def _sides(self, steps: Ranges) -> Iterator[tuple[str, Ranges, int]]:
        """Yields which rows of fingerprints, kinds and states are copied, and how many there are in all.

        Notes what rows refer to in the heap.
        """
        counts = {name: self._reader.count(name) for name in (layout.FINGERPRINTS, layout.STATES)}
        counts[layout.KINDS] = self._kinds_end()
        if self._whole:
            yield from ((name, _everything(count), count) for name, count in counts.items())
            return
        parts: dict[str, list[Ranges]] = {layout.FINGERPRINTS: [], layout.STATES: []}
        for rows, sound, kept in self._kept_rows():
            self._note_refs(rows[sound], "details")
            self._note_refs(rows[sound], "label")
            for name, fields in (
                (layout.FINGERPRINTS, ("first_fingerprint", "n_fingerprints")),
                (layout.STATES, ("first_state", "n_states")),
            ):
                first, count = (rows[kept][field] for field in fields)
                parts[name].append(Ranges.of(first, first + count, counts[name]))
        for name, found in parts.items():
            yield name, self._union(found, counts[name]), counts[name]
        end = counts[layout.KINDS]
        yield layout.KINDS, self._kinds(steps, end), end

    def _kinds(self, steps: Ranges, count: int) -> Ranges:
        """Returns the rows of kinds that are in force at any of the steps, and the one that ends them."""
        starts, stops = np.zeros(len(steps.starts), np.int64), np.full(len(steps.starts), count)
        for first in range(0, count, _ROWS):
            rows = self._reader.read_or_zeros(layout.KINDS, first, min(first + _ROWS, count) - first)
            there = np.flatnonzero(rows["kind"]["length"])  # the others are holes in a packed file
            at = rows["step"][there].astype(np.int64)
            if not len(at):
                continue
            before = np.searchsorted(at, steps.starts, "right")
            starts = np.where(before > 0, first + there[before - 1], starts)
            until = np.searchsorted(at, steps.stops, "left")
            ends = first + there[np.minimum(until, len(at) - 1)] + 1
            stops = np.where((until < len(at)) & (stops == count), ends, stops)
        return Ranges.of(starts, stops, count)

    def _note_refs(self, rows: Array, name: str | None = None) -> None:
        refs = rows if name is None else rows[name]
        refs = refs[refs["length"] > 0].reshape(-1)
        self._refs.append(Ranges.of(refs["offset"], refs["offset"] + refs["length"], np.iinfo(np.int64).max))

    @staticmethod
    def _union(parts: list[Ranges], end: int) -> Ranges:
        none = np.zeros(0, np.int64)
        starts = np.concatenate([none, *(part.starts for part in parts)])
        return Ranges.of(starts, np.concatenate([none, *(part.stops for part in parts)]), end)

    # ---- copying it

    def _column(self, name: str, ranges: Ranges, end: int, read: Callable[[int, int], Array] | None = None) -> None:
        """Copies ranges of a dataset of `end` rows, a block of whole chunks at a time."""
        like = read(0, 0) if read is not None else self._reader.read(name, 0, 0)
        chunk = _CHUNKS.get(name, layout.STEP_CHUNK)
        width = like.dtype.itemsize * int(np.prod(like.shape[1:], dtype=np.int64))
        block = chunk * max(1, _BLOCK // (chunk * max(1, width)))
        column = self._archive.add_column(self._name(name), like.dtype, (end, *like.shape[1:]), chunk)
        digest = hashlib.blake2b()
        for begin, stop in ranges.blocks(block, end):
            rows = read(begin, stop) if read is not None else self._reader.read_or_zeros(name, begin, stop - begin)
            holes = np.ones(len(rows), np.bool_)
            for first, last in ranges.within(begin, stop):
                holes[first - begin : last - begin] = False
            if holes.any():
                rows[holes] = np.zeros((), rows.dtype)
            self._note_column(rows)
            self._archive.write(column, begin, rows)
            _digest(digest, begin, rows)
        self._copy.written[name] = _Written(ranges, block, end, digest.hexdigest())

    def _note_column(self, rows: Array) -> None:
        """Notes what a column of references, or one with such a field, refers to."""
        if self._whole:
            return
        if rows.dtype == layout.REF:
            self._note_refs(rows)
        for name in ("kind", "data"):
            if rows.dtype.names and name in rows.dtype.names and rows.dtype[name] == layout.REF:
                self._note_refs(rows, name)


_CHUNKS = {
    layout.EPISODES: layout.EPISODE_CHUNK,
    layout.KEPT: layout.STEP_CHUNK,
    layout.FINGERPRINTS: layout.SIDE_CHUNK,
    layout.KINDS: layout.SIDE_CHUNK,
    layout.STATES: layout.SIDE_CHUNK,
    layout.HEAP: layout.HEAP_CHUNK,
}
