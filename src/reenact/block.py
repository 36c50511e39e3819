"""The block of steps that waits to be written, and how a commit writes it.

Everything dear (encoding, checksums, rows) is done here, a block at a time, when a commit is due.
"""

from __future__ import annotations

import bisect
import json
import math
import warnings
from array import array
from typing import TYPE_CHECKING, Any
from zlib import crc32

import numpy as np

from reenact import layout
from reenact.codec import ActionCodec
from reenact.layout import Ended
from reenact.pending import Entry, Heap, Rest, row_packer, sealed
from reenact.tape import Tape

if TYPE_CHECKING:
    from collections.abc import Sequence

    from reenact.codec import DoesNotFit
    from reenact.writer import Column, SegmentWriter

_KINDS_KEPT = 1024
_PACK_STATE = row_packer(layout.STATE_ROW)
Dtypes = tuple[np.dtype[Any] | None, ...]


class Block:
    """Steps and episodes on their way into the current segment.

    Args:
        codec: of the env's action space.
        n_info: how many info values are kept.
        durations: whether step durations are kept.
        width: how many episodes run at a time: the steps' rows lie that far apart.

    Attributes:
        tape: what a step appends to.
        durations: seconds, one a step on the tape.
        pending: the episodes that have ended.
        lanes: those that run, or None, one a lane.
        base: the segment's row at which the tape begins.
        codec: of the current segment's columns.
        lane: of a single env among those of a vector env; -1: it is none of these.
    """

    def __init__(self, codec: ActionCodec, *, n_info: int, durations: bool, width: int = 1) -> None:
        self.tape, self.width = Tape(), width
        self.durations: list[float] = []
        self.pending: list[Entry] = []
        self.lanes: list[Entry | None] = [None] * width
        self.base = 0
        self.lane = -1
        self._rests: list[Rest] = []  # one a lane, since its last row in the segment
        self.codec = codec
        self._n_info, self._with_durations = n_info, durations
        self._leaves: list[list[Any]] = [self.tape.actions, *([] for _ in codec.leaves[1:])]
        # in what types the actions were given, from which row on, and how many of these the segment has
        self._runs: list[tuple[int, str, Dtypes]] = []
        self._runs_done = 0
        self._kind: str | None = None
        self._run_starts: list[int] = []
        self._first_run_row = 0
        self._kind_refs: dict[str, tuple[int, int, int]] = {}
        self._number_kinds: dict[type, tuple[str, Dtypes]] = {}
        self._lossy_said = False

    @property
    def count(self) -> int:
        """How many rows the tape holds."""
        return len(self.tape.rewards) * self.width

    @property
    def end(self) -> int:
        """The segment's row at which the tape ends."""
        return self.base + self.count

    @property
    def current(self) -> Entry | None:
        """The one that runs, of a single env."""
        return self.lanes[0]

    @current.setter
    def current(self, entry: Entry | None) -> None:
        self.lanes[0] = entry

    # ---- what comes in

    def take(self, action: object) -> None:
        """Takes an action the long way round: of a new kind, or of a space that needs it."""
        tape, known = self.tape, self._number_kinds.get(type(action))
        if known is not None:  # of a type seen before, such as an epsilon-greedy agent's now and then
            tape.actions.append(action)
            self._goes_on_as(*known)
            tape.fast_type, tape.fast_dtype, tape.fast_shape = type(action), None, None
            return
        taken = self.codec.take(action)
        for entries, entry in zip(self._leaves, taken.entries, strict=True):
            entries.append(entry)
        self._goes_on_as(taken.kind, taken.dtypes)
        tape.stop_fast()
        if taken.lossy is not None:
            if not self._lossy_said:
                self._lossy_said = True
                warnings.warn(f"reenact: an action {taken.lossy}; a replay gets that instead", stacklevel=4)
            return
        leaf = self.codec.leaves[0]
        if len(self._leaves) != 1 or leaf.is_json or taken.kind.startswith('{"value"'):
            return
        if leaf.is_number:
            if type(action) is int or isinstance(action, np.integer):
                self._number_kinds[type(action)] = taken.kind, taken.dtypes
                tape.fast_type = type(action)
        elif type(action) is np.ndarray:
            tape.fast_type, tape.fast_dtype, tape.fast_shape = np.ndarray, action.dtype, action.shape

    def _goes_on_as(self, kind: str, dtypes: Dtypes) -> None:
        if kind != self._kind or self._runs[-1][2] != dtypes:
            self._runs.append((self.end, kind, dtypes))
            self._kind = kind

    def align(self, count: int) -> None:
        """Cuts what a failure between two appends left in one list and not in the others."""
        for entries in (*self._leaves, self.tape.rewards):
            del entries[count:]
        if self._with_durations:
            del self.durations[count:]
            self.durations += [math.nan] * (count - len(self.durations))

    def clear(self) -> None:
        """Empties it: it has been written, or never will be."""
        for entries in self._leaves:
            entries.clear()
        self.tape.rewards.clear()
        self.durations.clear()
        self.pending.clear()

    def start_anew(self) -> None:
        """Lets go of all of it: what comes next is the beginning of another segment."""
        self.clear()
        self.base = 0
        self._runs, self._runs_done, self._kind = [], 0, None
        self.tape.stop_fast()
        # what runs has lost its beginning: it must not look whole in the next segment
        self.lanes = [None if entry is None else Entry(0, entry.lane) for entry in self.lanes]

    def begin_segment(self) -> None:
        """A new segment has nothing in its heap yet, and no row."""
        self._kind_refs = {}
        n_columns = len(self.codec.leaves) + 1 + self._with_durations
        self._rests = [Rest.since(lane, n_columns) for lane in range(self.width)]

    # ---- what goes out

    def rewards(self) -> np.ndarray:
        """Returns the tape's rewards, float64."""
        return np.array(array("d", self.tape.rewards))  # array is faster than NumPy at lists

    def encode(self) -> list[np.ndarray | list[bytes]]:
        """Makes the columns' rows of the actions; a JSON leaf's are bytes for the heap.

        Raises:
            DoesNotFit: a column can't hold a value.
        """
        try:
            return [self._encode(index, entries) for index, entries in enumerate(self._leaves)]
        except OverflowError:  # an int beyond 64 bits
            self._split_runs()
            return [self._encode(index, entries) for index, entries in enumerate(self._leaves)]

    def write(
        self,
        writer: SegmentWriter,
        actions: list[np.ndarray | list[bytes]],
        rewards: np.ndarray,
        *,
        closing: bool,
    ) -> None:
        """Commits, and is empty then.

        Args:
            writer: of the current segment.
            actions: what `encode` gave.
            rewards: what `rewards` gave.
            closing: whether the segment ends here.
        """
        heap = Heap(writer.heap.rows)
        columns: list[np.ndarray] = [
            heap.column(entries) if isinstance(entries, list) else entries for entries in actions
        ]
        columns.append(rewards)
        if writer.duration is not None:
            columns.append(np.array(self.durations, np.float32))
        self._write_kinds(writer, heap)
        views = [self._lane_by_lane(column) for column in columns]
        widths = [column.dtype.itemsize * math.prod(column.shape[1:]) for column in columns]
        rows, prints, states = bytearray(), bytearray(), bytearray()
        pack = row_packer(writer.row_dtype)
        first_row, index = writer.episodes.rows, writer.indexed
        for number, entry in enumerate(self.pending):
            self._advance(writer, entry, first_row + number, (views, widths), (heap, prints, states))
            rows += self._pack(pack, entry, heap, (writer.home, index))
            index += entry.ended is not Ended.NOTHING
            end = entry.first_step + entry.n_actions * self.width
            self._rests[max(entry.lane, 0)] = Rest.since(end, len(views))
        open_rows: list[bytes] = []
        following = index  # of those that run, as if all ended here
        for lane, running in enumerate(self.lanes):
            entry = running or Entry(self.end + lane, lane if self.width > 1 else -1)
            row = first_row + len(self.pending) + lane
            self._advance(writer, entry, row, (views, widths), (heap, prints, states))
            open_rows.append(self._pack(pack, entry, heap, (writer.home, following)))
            following += entry.length > 0
        for column, data in zip(_columns_of(writer), columns, strict=True):
            column.append(data)
        writer.heap.append(np.frombuffer(heap.data, np.uint8))
        writer.fingerprints.append(np.frombuffer(prints, layout.FINGERPRINT_ROW))
        writer.states.append(np.frombuffer(states, layout.STATE_ROW))
        writer.flush()
        used = [running is not None for running in self.lanes]
        writer.commit_rows(np.frombuffer(rows, writer.row_dtype), open_rows, used, closed=closing)
        writer.indexed = index
        views.clear()
        self.base = self.end
        self.clear()
        self._trim_runs()

    def _lane_by_lane(self, column: np.ndarray) -> memoryview:
        """Returns the bytes of a column's rows, each lane's together: what checksums are taken of."""
        if not len(column):
            return memoryview(b"")
        if self.width > 1:
            column = column.reshape(-1, self.width, *column.shape[1:]).swapaxes(0, 1)
        return memoryview(np.ascontiguousarray(column).view(np.uint8).reshape(-1).data)

    def _encode(self, index: int, entries: Sequence[Any]) -> np.ndarray | list[bytes]:
        leaf = self.codec.leaves[index]
        if leaf.is_json:
            return list(entries)
        pieces = []
        bounds = [max(0, first - self.base) for first, _, _ in self._runs]
        for number, (_, _, dtypes) in enumerate(self._runs):
            end = bounds[number + 1] if number + 1 < len(bounds) else len(entries)
            if end > bounds[number]:
                dtype = dtypes[index]
                assert dtype is not None  # noqa: S101  # for mypy: only JSON leaves have none
                pieces.append(self.codec.encode(index, entries[bounds[number] : end], dtype))
        if len(pieces) == 1:
            return np.ascontiguousarray(pieces[0])
        return np.concatenate(pieces) if pieces else np.zeros((0, *leaf.shape), leaf.dtype)

    def _split_runs(self) -> None:
        """Gives Python ints beyond 64 bits, which came the short way, the kind that the long way gives."""
        if not self.codec.leaves[0].is_number or len(self._leaves) != 1:
            return
        runs = []
        for number, (first, kind, dtypes) in enumerate(self._runs):
            runs.append((first, kind, dtypes))
            if kind != '"int"':
                continue
            end = self._runs[number + 1][0] if number + 1 < len(self._runs) else self.base + len(self.tape.actions)
            for at in range(max(first, self.base), end):
                if not -(2**63) <= self.tape.actions[at - self.base] < 2**63:
                    taken = self.codec.take(self.tape.actions[at - self.base])
                    self.tape.actions[at - self.base] = taken.entries[0]
                    runs += [(at, taken.kind, taken.dtypes), (at + 1, kind, dtypes)]
        self._runs = runs

    def _write_kinds(self, writer: SegmentWriter, heap: Heap) -> None:
        rows = np.zeros(len(self._runs) - self._runs_done, layout.KIND_ROW)
        for row, (first, kind, _) in zip(rows, self._runs[self._runs_done :], strict=True):
            ref = self._kind_refs.get(kind)
            if ref is None:
                ref = heap.add(kind.encode())
                if len(self._kind_refs) < _KINDS_KEPT:
                    self._kind_refs[kind] = ref
            row["step"], row["kind"] = first, ref
            layout.seal(row)
        self._run_starts = [first for first, _, _ in self._runs]
        self._first_run_row = writer.kinds.rows - self._runs_done
        writer.kinds.append(rows)
        self._runs_done = len(self._runs)

    def _advance(
        self,
        writer: SegmentWriter,
        entry: Entry,
        row: int,
        steps: tuple[list[memoryview], list[int]],
        side: tuple[Heap, bytearray, bytearray],
    ) -> None:
        """Brings an episode's checksums and side tables up to what this commit writes."""
        heap, prints, states = side
        if not entry.crcs:
            entry.crcs = [0] * (len(steps[0]) + 1)
        if entry.kind < 0 and entry.n_actions:
            kind = bisect.bisect_right(self._run_starts, entry.first_step) - 1
            entry.kind = self._first_run_row + max(0, kind)
        if not entry.rest_crcs:
            rest = self._rests[max(entry.lane, 0)]
            self._take_in(rest.crcs, steps, rest.done, entry.first_step)
            rest.done, entry.rest_crcs = entry.first_step, list(rest.crcs)
        at = entry.first_step + entry.steps_done * self.width
        self._take_in(entry.crcs, steps, at, entry.first_step + entry.n_actions * self.width)
        entry.steps_done = entry.n_actions
        self._write_fingerprints(writer, entry, prints)
        if not entry.states_done:
            entry.first_state = writer.states.rows + len(states) // layout.STATE_ROW.itemsize
        if len(entry.states) > entry.states_done:
            for step, kind_of_state, data in entry.states[entry.states_done :]:
                states += sealed(_PACK_STATE(row, step, kind_of_state, *heap.add(data), 0))
            entry.states_done = len(entry.states)
        if entry.details and (entry.details_ref is None or entry.ended is Ended.ERRORED):
            entry.details_ref = heap.add(json.dumps(entry.details, separators=(",", ":")).encode())

    def _take_in(self, crcs: list[int], steps: tuple[list[memoryview], list[int]], begin: int, end: int) -> None:
        """Brings checksums, one a column, up to a lane's row `end`, from its row `begin` on, one of the tape's."""
        if begin == end:
            return
        lane, row = divmod(begin - self.base, self.width)[::-1]
        first = row + lane * len(self.tape.rewards)
        stop = first + (end - begin) // self.width
        for index, (view, width) in enumerate(zip(*steps, strict=True)):
            crcs[index] = crc32(view[first * width : stop * width], crcs[index])

    def _write_fingerprints(self, writer: SegmentWriter, entry: Entry, prints: bytearray) -> None:
        """Adds an episode's new checksums to those that it has in the segment: they lie together."""
        fresh = entry.fingerprints[entry.fingerprints_done :]
        if not entry.fingerprints_done:
            entry.first_fingerprint = writer.fingerprints.rows + len(prints) // layout.FINGERPRINT_ROW.itemsize
        entry.crcs[-1] = crc32(fresh, entry.crcs[-1])
        prints += fresh.tobytes()
        entry.fingerprints_done = len(entry.fingerprints)
        entry.fingerprints_kept = len(entry.fingerprints) // 2

    def _pack(self, pack: Any, entry: Entry, heap: Heap, place: tuple[int, int]) -> bytes:
        label = heap.add(entry.label.encode()) if entry.label else (0, 0, 0)
        info = entry.info or (math.nan,) * self._n_info
        packed: bytes = pack(
            entry.first_step, entry.length, entry.n_actions, entry.seed, entry.ended, entry.total,
            entry.elapsed, entry.end_time, max(self.lane, entry.lane), *label, *(entry.details_ref or (0, 0, 0)),
            entry.first_fingerprint, entry.fingerprints_kept, max(0, entry.kind),
            entry.first_state, len(entry.states), *place, *info, *entry.crcs, *entry.rest_crcs, 0,
        )  # fmt: skip  # one line a group of fields, in the table's order
        return sealed(packed)

    def _trim_runs(self) -> None:
        """Forgets the kinds that nothing uncommitted is in."""
        first = min((entry.first_step for entry in self.lanes if entry is not None), default=self.base)
        keep = 0
        while keep + 1 < len(self._runs) and self._runs[keep + 1][0] <= first:
            keep += 1
        self._runs, self._runs_done = self._runs[keep:], self._runs_done - keep

    # ---- a wider column

    def wider(self, misfit: DoesNotFit) -> ActionCodec:
        """Returns the codec of columns that hold a value which these can't."""
        dtypes = [leaf.dtype for leaf in self.codec.leaves]
        dtypes[misfit.leaf] = misfit.dtype
        return ActionCodec(self.codec.space, dtypes)

    def move(self, old: SegmentWriter, new: SegmentWriter, codec: ActionCodec) -> None:
        """Goes on in a segment of wider columns, taking along what the old one has of uncommitted episodes."""
        moved = [*self.pending, *(entry for entry in self.lanes if entry is not None)]
        first = min([self.base, *(entry.first_step for entry in moved)]) // self.width * self.width
        heap = Heap(0)
        for index, (source, target) in enumerate(zip(_columns_of(old), _columns_of(new), strict=True)):
            rows = source.read(first, self.base)
            if index < len(codec.leaves) and codec.leaves[index].is_json and len(rows):
                rows = heap.column(_blobs(old, rows))
            target.append(rows.astype(target.dtype))
        new.heap.append(np.frombuffer(heap.data, np.uint8))
        self.codec = codec
        self.base -= first
        self._runs = [(max(0, start - first), kind, dtypes) for start, kind, dtypes in self._runs]
        self._runs_done = 0
        for entry in moved:
            entry.move_back(first)
        # what is in the new segment already: the CRCs of that, now
        for lane, rest in enumerate(self._rests):
            its = next((entry for entry in moved if max(entry.lane, 0) == lane), None)
            rest.done = self.base + lane if its is None else min(its.first_step, self.base + lane)
            rest.crcs = self._crcs_of(new, lane, rest.done)
            if its is not None and its.first_step < self.base:
                its.crcs = [*self._crcs_of(new, its.first_step, self.base + lane), 0]
                its.steps_done = (self.base + lane - its.first_step) // self.width

    def _crcs_of(self, writer: SegmentWriter, begin: int, end: int) -> list[int]:
        return [crc32(column.read(begin, end)[:: self.width].tobytes()) for column in _columns_of(writer)]


def _columns_of(writer: SegmentWriter) -> list[Column]:
    return [*writer.actions, writer.reward, *([writer.duration] if writer.duration is not None else [])]


def _blobs(writer: SegmentWriter, refs: np.ndarray) -> list[bytes]:
    """Reads back what lies in the heap, in one go."""
    offsets, lengths = refs["offset"].astype(np.int64), refs["length"].astype(np.int64)
    begin = int(offsets.min())
    heap = writer.heap.read(begin, int((offsets + lengths).max())).tobytes()
    starts = (offsets - begin).tolist()
    return [heap[start : start + length] for start, length in zip(starts, lengths.tolist(), strict=True)]
