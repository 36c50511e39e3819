"""The segments that one recorder fills: the block of steps that waits, and the commits that write it.

Everything dear (encoding, checksums, rows) is done here, a block at a time, when a commit is due.
"""

from __future__ import annotations

import bisect
import functools
import json
import math
import operator
import os
import re
import threading
import time
import warnings
import weakref
from array import array
from typing import TYPE_CHECKING, Any
from zlib import crc32

import numpy as np

from reenact import folder, layout
from reenact.codec import ActionCodec, DoesNotFit, Leaf
from reenact.errors import RunError
from reenact.fingerprint import fold
from reenact.layout import Ended
from reenact.pending import Entry, Heap, as_float, row_packer, sealed
from reenact.process import close_at_exit, this_process
from reenact.tape import Tape
from reenact.writer import SegmentWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from reenact.process import Launch

RETRY_S = 5.0
"""After an error of the disk, a new segment is tried at a reset, so many seconds later at the earliest."""
_KINDS_KEPT = 1024
_PACK_STATE = row_packer(layout.STATE_ROW)
_FEW = 64  # additions, below which NumPy's own start costs more than it saves
_MAX_WIDENINGS = 8
"""In one commit: values that no one dtype holds (2**60 beside 0.5) would widen a column without end."""


class SegmentLog:
    """What a recorder has not committed yet, and the segments that it commits to.

    Args:
        run: the run's folder.
        launch: that records; in a notebook of the cell that made the recorder, whichever resets it.
        header: makes the segments' attributes, when the first one is made.
        codec: of the env's action space.
        info_keywords: names of the info values kept.
        fingerprint_every: env steps between fingerprints; 0: only the first and the last.
        running_fingerprints: whether they are running checksums over all observations.
        durations: whether step durations are kept.
        flush_seconds: a commit is due after so many.
        durable: whether a commit waits for the disk.
        resume: whether the run of an earlier launch may be continued.
        used_before: whether the env had been reset before it was recorded.
    """

    def __init__(
        self,
        run: Path,
        launch: Launch,
        header: Callable[[], dict[str, str | int]],
        codec: ActionCodec,
        *,
        info_keywords: tuple[str, ...],
        fingerprint_every: int,
        running_fingerprints: bool,
        durations: bool,
        flush_seconds: float,
        durable: bool,
        resume: bool,
        used_before: bool,
    ) -> None:
        self.run, self._launch, self._make_header, self._codec = run, launch, header, codec
        self._info_keywords, self._every, self._durations = info_keywords, fingerprint_every, durations
        self._running = running_fingerprints
        self._checksum, self._folded = 0, 0  # of the episode, over the observations of so many steps
        self._flush_seconds, self._durable = flush_seconds, durable
        self._resume, self._used_before = resume, used_before
        self._writer: SegmentWriter | None = None
        self._outgrown: list[SegmentWriter] = []  # whose episodes the next commit takes over
        self._predecessor, self._gap = -1, False
        self._suspended_until = 0.0
        self._closed = False
        self._pid = os.getpid()
        self._last_end_time = 0
        self._attributes: dict[str, str | int] = {}
        self.tape = Tape()
        self.running = False
        # of the episode, as far as `_settle` has got
        self._length = 0
        self._total: Any = 0.0
        self._settled = 0  # in tape.rewards
        self._steps_before = 0  # of the tape's rewards
        self._plain = True  # whether all rewards that are not settled are floats
        self._leaves: list[list[Any]] = [self.tape.actions, *([] for _ in codec.leaves[1:])]
        self._step_durations: list[float] = []
        self._kind: str | None = None
        self._runs: list[tuple[int, str, tuple[np.dtype[Any] | None, ...]]] = []
        self._runs_done = 0
        self._base = 0  # row of the current segment at which the lists begin
        self._pending: list[Entry] = []
        self._open: Entry | None = None
        self._number_kinds: dict[type, tuple[str, tuple[np.dtype[Any] | None, ...]]] = {}
        self._kind_refs: dict[str, tuple[int, int, int]] = {}
        self._run_starts: list[int] = []
        self._first_run_row = 0
        self._deadline = math.inf
        self._suspension_said = False
        self._lost_from = 0  # the first step that no segment has, since the last one was given up
        self._thread = 0  # that steps the env, as last seen
        self._started_at = 0.0

    # ---- segments

    def _start_segment(self) -> None:
        """Makes the first segment, or the next one after an error.

        Raises:
            RunError: the first one can't be made; later ones are tried again.
        """
        first = self._predecessor < 0 and not self._gap
        try:
            run_id = folder.join(self.run, self._launch, resume=self._resume)
            if not self._attributes:
                self._attributes = self._make_header()
            self._open_segment(run_id, self._codec)
        except Exception as error:  # h5py raises OSError, RuntimeError, ValueError and KeyError alike for a full disk
            if not first:
                self._suspend(error)
            elif isinstance(error, RunError):
                raise
            else:
                raise RunError(f"can't record into {self.run}: {_reason(error)}: give another run=") from error
        else:
            if self._suspension_said:
                self._suspension_said = False
                assert self._writer is not None  # noqa: S101  # for mypy: it was just made
                warnings.warn(
                    f"reenact: logging into {self.run} goes on at {time.strftime('%H:%M:%S')} in segment "
                    f"{self._writer.number}; {self.steps - self._lost_from} steps before are in no log",
                    RuntimeWarning,
                    stacklevel=4,
                )

    def _open_segment(self, run_id: str, codec: ActionCodec) -> None:
        columns = [leaf.path.replace("/", ".") for leaf in codec.leaves]
        header: dict[str, str | int] = {
            "format": layout.FORMAT,
            "version": layout.VERSION,
            "run": run_id,
            "launch": self._launch.id,
            "created": time.time_ns(),
            "predecessor": self._predecessor,
            "gap": int(self._gap),
            "used_before": int(self._used_before),
            "columns": json.dumps(
                [*(f"action/{name}" for name in columns), "reward", *(["duration"] * self._durations)]
            ),
            "info_keywords": json.dumps(self._info_keywords),
            "fingerprint_every": self._every,
            **self._attributes,
        }
        self._writer = SegmentWriter(
            self.run,
            header,
            [_described(leaf) for leaf in codec.leaves],
            info_keywords=self._info_keywords,
            durations=self._durations,
            durable=self._durable,
            process=this_process(),
        )
        self._run_id = run_id
        self._predecessor, self._gap = self._writer.number, False
        self._pack_row = row_packer(self._writer.row_dtype)
        self._kind_refs = {}
        self._deadline = time.perf_counter() + self._flush_seconds
        _writing.add(self)
        close_at_exit(self)

    def flush(self) -> None:
        """Commits what there is, now."""
        if self._pid == os.getpid():
            self.commit()

    def close(self) -> None:
        """Commits, and closes the segment; more calls do nothing."""
        if self._closed or self._pid != os.getpid():
            return
        self._commit_alone(closing=True)
        self._closed = True
        if self._writer is not None:
            try:
                self._writer.close()
            except Exception as error:  # noqa: BLE001  # HDF5 wants to write once more, and the disk is full
                self._suspend(error)
            self._writer = None

    def commit(self) -> None:
        """Writes the block, and those of recorders that are idle."""
        self._commit_alone()
        for log in list(_writing):
            if log is not self:
                log.commit_if_idle()

    def _commit_alone(self, *, closing: bool = False) -> None:
        """Writes the block. An error of the disk ends the segment, is told once, and training goes on."""
        if self._pid != os.getpid():
            self._leave_parent()
        if self._writer is None:
            self._drop()
            return
        self._align(len(self.tape.rewards))
        try:
            for _ in range(_MAX_WIDENINGS):
                try:
                    self._commit(self._writer, closing=closing)
                except DoesNotFit as misfit:
                    self._widen(self._writer, misfit)
                else:
                    self._retire()
                    break
            else:
                self._suspend(ValueError("no type of column holds all the actions exactly"))
        except Exception as error:  # noqa: BLE001  # as in _start_segment
            self._suspend(error)
        except BaseException as error:  # Ctrl-C with half a block written: it must not be written twice
            self._suspend(error)
            raise

    def commit_if_idle(self) -> None:
        """Commits what is due where nobody steps the env, such as an idle evaluation's: readers wait for its word.

        Only in the thread that stepped it last: another one may be in the middle of a step. So may this one, of an
        env that holds the caller's: then an action is there without its reward, or a reset has not returned.
        """
        between = len(self.tape.actions) == len(self.tape.rewards) and (self.running or self._open is None)
        if between and self._thread == threading.get_ident() and time.perf_counter() >= self._deadline:
            self._commit_alone()

    def _retire(self) -> None:
        """Closes the segments whose episodes the one that was just committed to has taken over."""
        while self._outgrown:
            writer = self._outgrown.pop()
            writer.commit_rows(np.zeros(0, writer.row_dtype), None, closed=True)
            writer.close()

    def _suspend(self, error: BaseException) -> None:
        """Gives the segment up. What was committed stays; a new segment is tried at a later reset."""
        for writer in (self._writer, *self._outgrown):
            if writer is not None:
                writer.abandon()
        self._writer, self._outgrown, self._deadline = None, [], math.inf
        if not self._gap:
            self._lost_from = self._steps_before
        self._gap = True
        self._drop()
        if not isinstance(error, Exception):
            return
        self._suspended_until = time.monotonic() + RETRY_S
        if not self._suspension_said:
            self._suspension_said = True
            warnings.warn(
                f"reenact: logging into {self.run} stopped at {time.strftime('%H:%M:%S')}: {_reason(error)}; "
                "training goes on without a log, what was committed stays readable, "
                "and a new segment is tried at the next resets",
                RuntimeWarning,
                stacklevel=2,
            )

    def _align(self, count: int) -> None:
        """Cuts what a failure between two appends left in one list and not in the others."""
        for entries in (*self._leaves, self.tape.rewards):
            del entries[count:]
        if self._durations:
            del self._step_durations[count:]
            self._step_durations += [math.nan] * (count - len(self._step_durations))

    def _now_ns(self) -> int:
        """Returns ns since 1970, held above all that has been told before: readers' numbers rest on it."""
        committed = self._writer.committed_ns if self._writer is not None else 0
        return max(self._last_end_time, committed, time.time_ns())

    @property
    def steps(self) -> int:
        """Steps logged so far, over all segments, dropped ones too."""
        return self._steps_before + len(self.tape.rewards)

    @property
    def length(self) -> int:
        """Env steps since the last reset, up to the end."""
        return self._length + (len(self.tape.rewards) - self._settled if self.running else 0)

    @property
    def total(self) -> Any:
        """The sum of rewards since the last reset, up to the end: step by step, in the rewards' own type."""
        if self.running:
            self._settle()
        return self._total

    def _settle(self, column: np.ndarray | None = None) -> None:
        """Brings length and sum of the running episode up to the last reward.

        Args:
            column: all of the tape's rewards in float64, where that has been made already.
        """
        rewards = self.tape.rewards
        count = len(rewards) - self._settled
        if count == 0:
            return
        if self._plain and count > _FEW:
            fresh = np.array(array("d", rewards[self._settled :])) if column is None else column[self._settled :].copy()
            fresh[0] += self._total
            # one addition after another in float64, as `+=` does it, at a fifth of the price
            total = np.add.accumulate(fresh)[-1]
            self._total = float(total) if type(rewards[-1]) is type(self._total) is float else total
        else:
            self._total = functools.reduce(operator.add, rewards[self._settled :], self._total)
            self._plain = self.tape.reward_type is not None and issubclass(self.tape.reward_type, float)
            self._plain = self._plain and isinstance(self._total, float)
        self._length += count
        self._settled = len(rewards)

    def _fold(self) -> bool:
        """Brings the running checksum up to the last step; returns whether it can be relied on."""
        observed = self.tape.observed
        if observed is None:
            return False
        steps = self.length - self._folded
        if len(observed) < steps:  # something raised between two appends
            self.tape.observed = None
            return False
        self._checksum = fold(self._checksum, observed[:steps])
        self._folded += steps
        observed.clear()
        return True

    def _note_checksum(self, entry: Entry) -> None:
        """Keeps the running checksum as it stands now."""
        if self._fold() and entry.fingerprints and entry.fingerprints[-2] != self._folded:
            entry.fingerprints.extend((self._folded, self._checksum))

    def _drop(self) -> None:
        """Lets go of what can't be written, so that a training without a disk doesn't fill the memory."""
        if self.running:
            self._settle()
        self._clear()
        self._base = 0
        self._runs, self._runs_done, self._kind = [], 0, None
        self.tape.stop_fast()
        if self._open is not None:  # its beginning is lost: it must not look whole in the next segment
            self._open = Entry(0)

    def _clear(self) -> None:
        """Empties the block: it has been written, or never will be."""
        for entries in self._leaves:
            entries.clear()
        self._steps_before += len(self.tape.rewards)
        self.tape.rewards.clear()
        self._settled = 0
        self._step_durations.clear()
        self._pending.clear()

    def _leave_parent(self) -> None:
        """In a forked child: what was recorded is the parent's; this process starts a segment of its own."""
        self._pid = os.getpid()
        self._writer, self._outgrown = None, []
        self._used_before, self._predecessor, self._gap = True, -1, False
        self._open = None
        self.running = False
        self._drop()
        self._closed = False

    def _elapsed(self) -> float:
        return round(time.perf_counter() - self._started_at, 6) if self.running else 0.0

    # ---- commits

    def _commit(self, writer: SegmentWriter, *, closing: bool) -> None:
        count = len(self.tape.rewards)
        encoded = self._encode_all()  # may not fit
        heap = Heap(writer.heap.rows)
        columns: list[np.ndarray] = [
            heap.column(entries) if isinstance(entries, list) else entries for entries in encoded
        ]
        rewards = np.array(array("d", self.tape.rewards))  # array is faster than NumPy at lists
        if self.running:
            self._settle(rewards)
        columns.append(rewards)
        stored = [*writer.actions, writer.reward]
        if writer.duration is not None:
            columns.append(np.array(self._step_durations, np.float32))
            stored.append(writer.duration)
        self._write_kinds(writer, heap)
        views = [memoryview(column.view(np.uint8).reshape(-1).data) if count else memoryview(b"") for column in columns]
        widths = [column.dtype.itemsize * math.prod(column.shape[1:]) for column in columns]
        rows, prints, states = bytearray(), bytearray(), bytearray()
        committed_rows = writer.episodes.rows
        for number, entry in enumerate(self._pending):
            self._advance(writer, entry, committed_rows + number, (views, widths), (heap, prints, states))
            rows += self._pack(entry, heap)
        open_row = None
        if self._open is not None:
            entry = self._open
            entry.length, entry.total, entry.elapsed = self.length, as_float(self.total), self._elapsed()
            entry.n_actions = self._base + count - entry.first_step
            self._note_checksum(entry)  # a killed episode ends here
            entry.ended, entry.end_time = Ended.INTERRUPTED, self._now_ns()
            self._advance(writer, entry, committed_rows + len(self._pending), (views, widths), (heap, prints, states))
            open_row = np.frombuffer(self._pack(entry, heap), writer.row_dtype)[0]
        for column, data in zip(stored, columns, strict=True):
            column.append(data)
        writer.heap.append(np.frombuffer(heap.data, np.uint8))
        writer.fingerprints.append(np.frombuffer(prints, layout.FINGERPRINT_ROW))
        writer.states.append(np.frombuffer(states, layout.STATE_ROW))
        writer.flush()
        writer.commit_rows(np.frombuffer(rows, writer.row_dtype), open_row, closed=closing)
        views.clear()
        self._base += count
        self._clear()
        self._trim_runs()
        self._deadline = time.perf_counter() + self._flush_seconds

    def _encode_all(self) -> list[np.ndarray | list[bytes]]:
        try:
            return [self._encode(index, entries) for index, entries in enumerate(self._leaves)]
        except OverflowError:  # an int beyond 64 bits
            self._split_runs()
            return [self._encode(index, entries) for index, entries in enumerate(self._leaves)]

    def _encode(self, index: int, entries: Sequence[Any]) -> np.ndarray | list[bytes]:
        """Makes a column's rows of a leaf's entries; a JSON leaf's go to the heap."""
        leaf = self._codec.leaves[index]
        if leaf.is_json:
            return list(entries)
        pieces = []
        bounds = [max(0, first - self._base) for first, _, _ in self._runs]
        for number, (_, _, dtypes) in enumerate(self._runs):
            end = bounds[number + 1] if number + 1 < len(bounds) else len(entries)
            if end > bounds[number]:
                dtype = dtypes[index]
                assert dtype is not None  # noqa: S101  # for mypy: only JSON leaves have none
                pieces.append(self._codec.encode(index, entries[bounds[number] : end], dtype))
        if len(pieces) == 1:
            return np.ascontiguousarray(pieces[0])
        return np.concatenate(pieces) if pieces else np.zeros((0, *leaf.shape), leaf.dtype)

    def _split_runs(self) -> None:
        """Gives Python ints beyond 64 bits, which came the short way, the kind that the long way gives."""
        if not self._codec.leaves[0].is_number or len(self._leaves) != 1:
            return
        runs = []
        for number, (first, kind, dtypes) in enumerate(self._runs):
            runs.append((first, kind, dtypes))
            if kind != '"int"':
                continue
            end = self._runs[number + 1][0] if number + 1 < len(self._runs) else self._base + len(self.tape.actions)
            for at in range(max(first, self._base), end):
                if not -(2**63) <= self.tape.actions[at - self._base] < 2**63:
                    taken = self._codec.take(self.tape.actions[at - self._base])
                    self.tape.actions[at - self._base] = taken.entries[0]
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
            row["crc"] = crc32(row.tobytes()[:-4])
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
        views, widths = steps
        heap, prints, states = side
        if not entry.crcs:
            entry.crcs = [0] * (len(views) + 1)
            entry.first_fingerprint = writer.fingerprints.rows + len(prints) // layout.FINGERPRINT_ROW.itemsize
            entry.first_state = writer.states.rows + len(states) // layout.STATE_ROW.itemsize
        if entry.kind < 0 and entry.n_actions:
            kind = bisect.bisect_right(self._run_starts, entry.first_step) - 1
            entry.kind = self._first_run_row + max(0, kind)
        first, end = (
            entry.first_step + entry.steps_done - self._base,
            entry.first_step + entry.n_actions - self._base,
        )
        for index, (view, width) in enumerate(zip(views, widths, strict=True)):
            entry.crcs[index] = crc32(view[first * width : end * width], entry.crcs[index])
        entry.steps_done = entry.n_actions
        fresh = entry.fingerprints[entry.fingerprints_done :].tobytes()
        entry.crcs[-1] = crc32(fresh, entry.crcs[-1])
        prints += fresh
        entry.fingerprints_done = len(entry.fingerprints)
        for step, kind_of_state, data in entry.states[entry.states_done :]:
            states += sealed(_PACK_STATE(row, step, kind_of_state, *heap.add(data), 0))
        entry.states_done = len(entry.states)
        if entry.details and (entry.details_ref is None or entry.ended is Ended.ERRORED):
            entry.details_ref = heap.add(json.dumps(entry.details, separators=(",", ":")).encode())

    def _pack(self, entry: Entry, heap: Heap) -> bytes:
        label = heap.add(entry.label.encode()) if entry.label else (0, 0, 0)
        info = entry.info or (math.nan,) * len(self._info_keywords)
        packed = self._pack_row(
            entry.first_step, entry.length, entry.n_actions, entry.seed, entry.ended, entry.total,
            entry.elapsed, entry.end_time, -1, *label, *(entry.details_ref or (0, 0, 0)),
            entry.first_fingerprint, len(entry.fingerprints) // 2, max(0, entry.kind),
            entry.first_state, len(entry.states), *info, *entry.crcs, 0,
        )  # fmt: skip  # one line a group of fields, in the table's order
        return sealed(packed)

    def _trim_runs(self) -> None:
        """Forgets the kinds that nothing uncommitted is in."""
        first = self._open.first_step if self._open is not None else self._base
        keep = 0
        while keep + 1 < len(self._runs) and self._runs[keep + 1][0] <= first:
            keep += 1
        self._runs, self._runs_done = self._runs[keep:], self._runs_done - keep

    def _widen(self, writer: SegmentWriter, misfit: DoesNotFit) -> None:
        """Goes on in a new segment whose column holds the value, taking the uncommitted episodes along.

        The old one is closed when the new one has committed them: at every moment one of the two has what
        was committed of the running episode.
        """
        dtypes = [leaf.dtype for leaf in self._codec.leaves]
        dtypes[misfit.leaf] = misfit.dtype
        codec = ActionCodec(self._codec.space, dtypes)
        moved = [*self._pending, *([self._open] if self._open else [])]
        first = min((entry.first_step for entry in moved), default=self._base)
        old = [*writer.actions, writer.reward, *([writer.duration] if writer.duration else [])]
        carried = [column.read(first, self._base) for column in old]
        json_leaves = [leaf.is_json for leaf in codec.leaves]
        heap_bytes = writer.heap.read(0, writer.heap.rows) if any(json_leaves) and first < self._base else None
        self._open_segment(self._run_id, codec)
        self._outgrown.append(writer)
        fresh = self._writer
        assert fresh is not None  # noqa: S101  # for mypy: it was just made
        new = [*fresh.actions, fresh.reward, *([fresh.duration] if fresh.duration else [])]
        heap = Heap(0)
        for index, (column, rows) in enumerate(zip(new, carried, strict=True)):
            if index < len(json_leaves) and json_leaves[index] and heap_bytes is not None:
                blobs = [heap_bytes[r["offset"] : r["offset"] + r["length"]].tobytes() for r in rows]
                column.append(heap.column(blobs))
            else:
                column.append(rows.astype(column.dtype))
        fresh.heap.append(np.frombuffer(heap.data, np.uint8))
        self._codec = codec
        self._base -= first
        self._runs = [(max(0, start - first), kind, dtypes_) for start, kind, dtypes_ in self._runs]
        self._runs_done = 0
        for entry in moved:
            entry.move_back(first)
            if entry.first_step < self._base:  # its rows are in the new segment already: their CRCs, now
                count = self._base - entry.first_step
                entry.crcs = [crc32(column.read(entry.first_step, self._base).tobytes()) for column in new] + [0]
                entry.first_fingerprint = entry.first_state = 0
                entry.steps_done = count


_writing: weakref.WeakSet[SegmentLog] = weakref.WeakSet()
"""The logs of this process that have had a segment."""


def _reason(error: BaseException) -> str:
    """Returns what an error of the disk comes down to; HDF5 says it in the middle of a paragraph."""
    text = str(error)
    found = re.search(r"error message = '([^']+)'", text)
    return found[1] if found else text.strip().partition("\n")[0]


def _described(leaf: Leaf) -> tuple[str, np.dtype[Any], tuple[int, ...]]:
    return leaf.path, leaf.dtype, leaf.shape
