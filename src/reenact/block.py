"""The block of steps that waits to be written, and how a commit writes it.

Everything dear (encoding, checksums, rows) is done here, a block at a time, when a commit is due.
"""

from __future__ import annotations

import json
import math
import warnings
from array import array
from typing import TYPE_CHECKING, Any
from zlib import crc32

import numpy as np

from reenact import layout
from reenact.codec import ActionCodec
from reenact.kinds import Kinds
from reenact.layout import Ended
from reenact.pending import Heap
from reenact.tape import Tape

if TYPE_CHECKING:
    from collections.abc import Sequence

    from reenact.codec import DoesNotFit
    from reenact.kinds import Dtypes
    from reenact.pending import Ref, Waiting
    from reenact.writer import Column, SegmentWriter


class Block:
    """Steps on their way into the current segment; the episodes that they make up are kept by those that know them.

    Args:
        codec: of the env's action space.
        n_info: how many info values are kept.
        durations: whether step durations are kept.
        width: how many episodes run at a time: the steps' rows lie that far apart.

    Attributes:
        tape: what a step appends to.
        durations: seconds, one a step on the tape.
        base: the segment's row at which the tape begins.
        codec: of the current segment's columns.
    """

    def __init__(self, codec: ActionCodec, *, n_info: int, durations: bool, width: int = 1) -> None:
        self.tape, self.width = Tape(), width
        self.durations: list[float] = []
        self.base = 0
        self._row = layout.episode_row(len(codec.leaves) + 1 + durations, ("",) * n_info)
        # what the last commit said of each lane, and whether an episode ran there
        self._open, self._used = np.zeros(width, self._row), np.zeros(width, np.bool_)
        self.codec = codec
        self._with_durations = durations
        self._leaves: list[list[Any]] = [self.tape.actions, *([] for _ in codec.leaves[1:])]
        self._kinds = Kinds()
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

    # ---- the episodes: said by those who keep them

    def _waiting(self) -> Waiting:
        """Returns those that a commit writes."""
        raise NotImplementedError

    def _rows(self, first_steps: Any) -> np.ndarray:
        """Returns rows of episodes that nothing else is known of yet."""
        rows = np.zeros(len(first_steps), self._row)
        rows["first_step"], rows["seed"] = first_steps, layout.NO_SEED
        if "info" in (self._row.names or ()):
            rows["info"] = math.nan
        return rows

    def _print(self, waiting: Waiting, first: int) -> np.ndarray:
        """Returns the fingerprints that a commit writes, from row `first` on, and says in the rows where they are."""
        raise NotImplementedError

    def _written(self) -> None:
        """They have been committed: those that have ended are done with."""
        raise NotImplementedError

    def _first_steps(self) -> np.ndarray:
        """Returns the first row of the first episode that waits in each lane; where there is none, the tape's first."""
        raise NotImplementedError

    def _move_back(self, rows: int) -> None:
        """Has the episodes that wait begin so many rows earlier: in a new segment, which knows nothing of them."""
        raise NotImplementedError

    # ---- what comes in

    def take(self, action: object) -> None:
        """Takes an action the long way round: of a new kind, or of a space that needs it."""
        tape, known = self.tape, self._number_kinds.get(type(action))
        if known is not None:  # of a type seen before, such as an epsilon-greedy agent's now and then
            tape.actions.append(action)
            self._kinds.go_on(self.end, *known)
            tape.fast_type, tape.fast_dtype, tape.fast_shape = type(action), None, None
            return
        taken = self.codec.take(action)
        for entries, entry in zip(self._leaves, taken.entries, strict=True):
            entries.append(entry)
        self._kinds.go_on(self.end, taken.kind, taken.dtypes)
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

    def start_anew(self) -> None:
        """Lets go of all of it: what comes next is the beginning of another segment."""
        self.clear()
        self.base = 0
        self._kinds.start_anew()
        self.tape.stop_fast()

    def begin_segment(self) -> None:
        """A new segment has nothing in its heap yet, and no row."""
        self._kinds.begin_segment()
        self._open, self._used = np.zeros(self.width, self._row), np.zeros(self.width, np.bool_)
        self._open["first_step"] = np.arange(self.width)

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
        self._kinds.write(writer, heap)
        waiting = self._waiting()
        rows, ended = waiting.rows, waiting.ended
        self._sum_up(rows, columns)
        prints = self._print(waiting, writer.fingerprints.rows)
        states = self._add_extras(waiting, heap, writer)
        counts = rows["ended"][:ended] != Ended.NOTHING
        rows["home"], rows["index"][:ended] = writer.home, writer.indexed + np.cumsum(counts) - counts
        indexed = writer.indexed + int(np.count_nonzero(counts))
        # what a kill leaves of a lane has an index that doesn't depend on which others run
        rows["index"][ended:] = indexed + np.arange(len(rows) - ended)
        layout.seal_rows(rows)
        for column, data in zip(_columns_of(writer), columns, strict=True):
            column.append(data)
        writer.heap.append(np.frombuffer(heap.data, np.uint8))
        writer.fingerprints.append(prints)
        writer.states.append(states)
        writer.flush()
        writer.commit_rows(rows[:ended], rows[ended:], waiting.running, closed=closing)
        writer.indexed = indexed
        self._open, self._used = rows[ended:].copy(), waiting.running
        self._written()
        self.base = self.end
        self.clear()
        self._kinds.forget_before(int(self._first_steps().min()))  # nothing uncommitted is in those

    def _sum_up(self, rows: np.ndarray, columns: list[np.ndarray]) -> None:
        """Brings kinds and CRCs, those of what lies between episodes, too, up to what this commit writes."""
        firsts = rows["first_step"].astype(np.int64)
        rows["kind"] = np.where(rows["n_actions"] > 0, self._kinds.places(firsts), 0)
        step, lane = np.divmod(firsts, self.width)
        over = step + rows["n_actions"]
        rested = self._take_up(rows, lane, over)
        # rows of one lane lie together here, and those before the tape have been committed, and summed up
        steps, before = len(self.tape.rewards), self.base // self.width
        rest, start, stop = (lane * steps + np.maximum(its - before, 0) for its in (rested, step, over))
        once, more = (np.flatnonzero(its) for its in (start - rest == 1, start - rest > 1))
        for index, column in enumerate(columns):
            grid = lane_by_lane(column, self.width)
            crcs, rest_crcs = rows["column_crcs"][:, index], rows["rest_crcs"][:, index]
            crcs[:] = _crcs(grid, start, stop, crcs)
            rest_crcs[more] = _crcs(grid, rest[more], start[more], rest_crcs[more])
            if len(once) and len(grid):  # the rows of autoresets
                rest_crcs[once] = list(map(crc32, grid[rest[once]].tolist(), rest_crcs[once].tolist()))

    def _take_up(self, rows: np.ndarray, lane: np.ndarray, over: np.ndarray) -> np.ndarray:
        """Goes on where the last commit stopped; returns up to which step of its lane each row's `rest_crcs` reach."""
        order = np.argsort(lane, kind="stable")
        first = np.flatnonzero(np.diff(lane[order], prepend=-1))  # of each lane
        rested = np.empty(len(rows), np.int64)
        rested[order[1:]] = over[order[:-1]]
        its = order[first]
        rested[its] = self._open["first_step"] // self.width
        rows["rest_crcs"][its] = self._open["rest_crcs"]
        for name in ("column_crcs", "first_fingerprint", "first_state"):
            rows[name][its[self._used]] = self._open[name][self._used]
        return rested

    def _add_extras(self, waiting: Waiting, heap: Heap, writer: SegmentWriter) -> np.ndarray:
        """Adds what episodes have beside their rows to the heap, says so in the rows, and returns the states' rows."""
        rows = waiting.rows
        states: list[tuple[int, int, int, Ref, int]] = []
        added = np.zeros(len(rows), np.int64)
        known = np.zeros(len(rows), np.bool_)
        for at, extras in waiting.extras:
            added[at], known[at] = len(extras.states) - extras.states_done, extras.states_done > 0
            for step, kind, data in extras.states[extras.states_done :]:
                states.append((writer.episodes.rows + at, step, kind, heap.add(data), 0))
            extras.states_done = len(extras.states)
            if extras.details and (extras.details_ref is None or rows["ended"][at] == Ended.ERRORED):
                extras.details_ref = heap.add(json.dumps(extras.details, separators=(",", ":")).encode())
            if extras.label:
                rows["label"][at] = heap.add(extras.label.encode())
            rows["details"][at] = extras.details_ref or (0, 0, 0)
            rows["n_states"][at] = len(extras.states)
        rows["first_state"] = np.where(known, rows["first_state"], writer.states.rows + np.cumsum(added) - added)
        found = np.array(states, layout.STATE_ROW)
        layout.seal_rows(found)
        return found

    def _encode(self, index: int, entries: Sequence[Any]) -> np.ndarray | list[bytes]:
        leaf = self.codec.leaves[index]
        if leaf.is_json:
            return list(entries)
        pieces = []
        for begin, end, dtypes in self._kinds.spans(self.base, len(entries)):
            dtype = dtypes[index]
            assert dtype is not None  # noqa: S101  # for mypy: only JSON leaves have none
            pieces.append(self.codec.encode(index, entries[begin:end], dtype))
        if len(pieces) == 1:
            return np.ascontiguousarray(pieces[0])
        return np.concatenate(pieces) if pieces else np.zeros((0, *leaf.shape), leaf.dtype)

    def _split_runs(self) -> None:
        """Gives Python ints beyond 64 bits, which came the short way, the kind that the long way gives."""
        if not self.codec.leaves[0].is_number or len(self._leaves) != 1:
            return
        runs = []
        ends = [*(first for first, _, _ in self._kinds.runs[1:]), self.base + len(self.tape.actions)]
        for (first, kind, dtypes), end in zip(self._kinds.runs, ends, strict=False):  # there may be none
            runs.append((first, kind, dtypes))
            if kind != '"int"':
                continue
            for at in range(max(first, self.base), end):
                if not -(2**63) <= self.tape.actions[at - self.base] < 2**63:
                    taken = self.codec.take(self.tape.actions[at - self.base])
                    self.tape.actions[at - self.base] = taken.entries[0]
                    runs += [(at, taken.kind, taken.dtypes), (at + 1, kind, dtypes)]
        self._kinds.runs = runs

    # ---- a wider column

    def wider(self, misfit: DoesNotFit) -> ActionCodec:
        """Returns the codec of columns that hold a value which these can't."""
        dtypes = [leaf.dtype for leaf in self.codec.leaves]
        dtypes[misfit.leaf] = misfit.dtype
        return ActionCodec(self.codec.space, dtypes)

    def move(self, old: SegmentWriter, new: SegmentWriter, codec: ActionCodec) -> None:
        """Goes on in a segment of wider columns, taking along what the old one has of uncommitted episodes."""
        first = min(self.base, int(self._first_steps().min())) // self.width * self.width
        heap = Heap(0)
        for index, (source, target) in enumerate(zip(_columns_of(old), _columns_of(new), strict=True)):
            rows = source.read(first, self.base)
            if index < len(codec.leaves) and codec.leaves[index].is_json and len(rows):
                rows = heap.column(_blobs(old, rows))
            target.append(rows.astype(target.dtype))
        new.heap.append(np.frombuffer(heap.data, np.uint8))
        self.codec = codec
        self.base -= first
        self._kinds.move_back(first)
        self._move_back(first)
        # what is in the new segment already: the CRCs of that, now
        lanes = np.arange(self.width)
        starts = np.minimum(self._first_steps(), self.base + lanes)
        self._open["first_step"], self._used = starts, starts < self.base
        for row, lane, start in zip(self._open, lanes.tolist(), starts.tolist(), strict=True):
            row["rest_crcs"] = self._crcs_of(new, lane, start)
            row["column_crcs"] = [*self._crcs_of(new, start, self.base + lane), 0]

    def _crcs_of(self, writer: SegmentWriter, begin: int, end: int) -> list[int]:
        return [crc32(column.read(begin, end)[:: self.width].tobytes()) for column in _columns_of(writer)]


def lane_by_lane(column: np.ndarray, width: int) -> np.ndarray:
    """Returns a column's rows, opaque, those of each lane together: what checksums are taken of.

    Args:
        column: `width` rows a vector step.
        width: the number of lanes.
    """
    size = column.dtype.itemsize * math.prod(column.shape[1:])
    rows = np.frombuffer(np.ascontiguousarray(column), f"V{size}") if column.nbytes else np.zeros(0, "V1")
    found: np.ndarray = np.ascontiguousarray(rows.reshape(-1, width).T).reshape(-1)
    return found


def _crcs(grid: np.ndarray, starts: np.ndarray, stops: np.ndarray, before: np.ndarray) -> list[int]:
    """Returns the CRCs of rows [start, stop) of a grid, each one gone on with from the one before."""
    rows = memoryview(grid)  # type: ignore[arg-type]  # arrays are buffers, not to NumPy's stubs
    places = zip(starts.tolist(), stops.tolist(), before.tolist(), strict=True)
    return [crc32(rows[start:stop], crc) for start, stop, crc in places]


def _columns_of(writer: SegmentWriter) -> list[Column]:
    return [*writer.actions, writer.reward, *([writer.duration] if writer.duration is not None else [])]


def _blobs(writer: SegmentWriter, refs: np.ndarray) -> list[bytes]:
    """Reads back what lies in the heap, in one go."""
    offsets, lengths = refs["offset"].astype(np.int64), refs["length"].astype(np.int64)
    begin = int(offsets.min())
    heap = writer.heap.read(begin, int((offsets + lengths).max())).tobytes()
    starts = (offsets - begin).tolist()
    return [heap[start : start + length] for start, length in zip(starts, lengths.tolist(), strict=True)]
