"""What one recorder has seen of its env, on its way into segments.

The recorder appends to the plain lists here at every step; everything dear (encoding, checksums, rows)
is done a block at a time, when a commit is due. The log outlives its recorder by one call: `close` is
what a finalizer runs when the recorder was never closed.
"""

from __future__ import annotations

import json
import math
import multiprocessing.util
import os
import struct
import time
import warnings
import weakref
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np

from reenact import folder, jsontags, layout
from reenact.codec import ActionCodec, DoesNotFit, Leaf
from reenact.fingerprint import fingerprint
from reenact.layout import Ended, StateKind
from reenact.process import Process, this_launch, this_process
from reenact.writer import SegmentWriter

RETRY_S = 5.0
"""After an error of the disk, a new segment is tried at a reset, so many seconds later at the earliest."""
TICK_SHARE = 0.02
"""The share of `flush_seconds` that may pass between two looks at the clock."""
_IMMUTABLE_REWARDS = (float, int, bool, np.floating, np.integer, np.bool_)
_KINDS_KEPT = 1024


@dataclass(slots=True)
class _Entry:
    """An episode on its way into the table; `first_step` and the like are rows of the current segment."""

    first_step: int
    seed: int = layout.NO_SEED
    details: dict[str, Any] = field(default_factory=dict)
    states: list[tuple[int, StateKind, bytes]] = field(default_factory=list)
    fingerprints: array[int] = field(default_factory=lambda: array("I"))  # step, checksum, step, checksum, …
    ended: Ended = Ended.NOTHING
    length: int = 0
    n_actions: int = 0
    total: float = 0.0
    elapsed: float = 0.0
    end_time: int = 0
    info: tuple[float, ...] = ()
    label: str = ""
    # what commits have done with it so far
    crcs: list[int] = field(default_factory=list)
    steps_done: int = 0
    kind: int = -1
    first_fingerprint: int = -1
    fingerprints_done: int = 0
    first_state: int = -1
    states_done: int = 0
    details_ref: tuple[int, int, int] | None = None


class EpisodeLog:
    """The hot state of a recorder, and the segments it fills.

    Args:
        run: the run's folder.
        header: makes the segments' attributes, when the first one is made.
        codec: of the env's action space.
        info_keywords: names of the info values kept.
        fingerprint_every: env steps between fingerprints; 0: only the first and the last.
        durations: whether step durations are kept.
        flush_seconds: a commit is due after so many.
        resume: whether the run of an earlier launch may be continued.
        used_before: whether the env had been reset before it was recorded.
    """

    def __init__(
        self,
        run: Path,
        header: Callable[[], dict[str, str | int]],
        codec: ActionCodec,
        *,
        info_keywords: tuple[str, ...],
        fingerprint_every: int,
        durations: bool,
        flush_seconds: float,
        resume: bool,
        used_before: bool,
    ) -> None:
        self.run, self._make_header, self._codec = run, header, codec
        self._info_keywords, self._every, self._durations = info_keywords, fingerprint_every, durations
        self._flush_seconds, self._resume, self._used_before = flush_seconds, resume, used_before
        self._writer: SegmentWriter | None = None
        self._predecessor, self._gap = -1, False
        self._suspended_until = 0.0
        self._closed = False
        self._pid = os.getpid()
        self._last_end_time = 0
        self._attributes: dict[str, str | int] = {}
        # hot: read and written by Recorder.step
        self.fast_type: type | None = None
        self.fast_dtype: np.dtype[Any] | None = None
        self.fast_shape: tuple[int, ...] | None = None
        self.reward_type: type | None = None
        self.actions: list[Any] = []
        self.rewards: list[Any] = []
        self.running = False
        self.total: Any = 0.0
        self.length = 0
        self.next_tick = 0
        # cold
        self._leaves: list[list[Any]] = [self.actions, *([] for _ in codec.leaves[1:])]
        self._step_durations: list[float] = []
        self._kind: str | None = None
        self._runs: list[tuple[int, str, tuple[np.dtype[Any] | None, ...]]] = []
        self._runs_done = 0
        self._base = 0  # row of the current segment at which the lists begin
        self._pending: list[_Entry] = []
        self._open: _Entry | None = None
        self._kind_refs: dict[str, tuple[int, int, int]] = {}
        self._last_tick = (0, 0.0)
        self._interval = 1
        self._deadline = math.inf
        self._lossy_said = False

    # ---- what the recorder tells

    def begin(
        self,
        seed: int | None,
        details: dict[str, Any],
        state: tuple[StateKind, bytes] | None,
    ) -> None:
        """A reset is about to be called.

        Raises:
            RunError: the first segment can't be made.
        """
        if self._pid != os.getpid():
            self._leave_parent()
        self.interrupt()
        if self._writer is None and not self._closed and time.monotonic() >= self._suspended_until:
            self._start_segment()
        self._open = entry = _Entry(self._base + len(self.rewards), details=details)
        if seed is not None:
            if np.iinfo(np.int64).min < seed <= np.iinfo(np.int64).max:
                entry.seed = int(seed)
            else:
                entry.details["seed"] = int(seed)
        if state is not None:
            entry.states.append((0, *state))
        self.total, self.length, self.running = 0.0, 0, False

    def started(self, observation: object) -> None:
        """The reset returned."""
        assert self._open is not None
        self._open.fingerprints.extend((0, fingerprint(observation)))
        now = time.perf_counter()
        self.running = True
        self._last_tick = (0, now)
        self.next_tick = self._tick_after(0)
        if len(self.rewards) >= layout.BLOCK_STEPS or now >= self._deadline:
            self.commit()
            self._last_tick = (0, time.perf_counter())

    def take(self, action: object) -> None:
        """Logs an action the long way round: of another kind than the one before, or of a space that needs it."""
        taken = self._codec.take(action)
        for entries, entry in zip(self._leaves, taken.entries, strict=True):
            entries.append(entry)
        if taken.kind != self._kind or self._runs[-1][2] != taken.dtypes:
            self._runs.append((self._base + len(self.rewards), taken.kind, taken.dtypes))
            self._kind = taken.kind
        self.fast_type = self.fast_dtype = self.fast_shape = None
        if taken.lossy is not None:
            if not self._lossy_said:
                self._lossy_said = True
                warnings.warn(f"reenact: an action {taken.lossy}; a replay gets that instead", stacklevel=4)
            return
        if len(self._leaves) != 1 or "value" in taken.kind or not self.running:
            return
        if self._codec.leaves[0].is_number:
            if type(action) is int or isinstance(action, np.integer):
                self.fast_type = type(action)
        elif type(action) is np.ndarray and not self._codec.leaves[0].is_json:
            self.fast_type, self.fast_dtype, self.fast_shape = np.ndarray, action.dtype, action.shape

    def number(self, reward: Any) -> Any:
        """Returns what to keep of a reward whose type differs from the one before: a value nobody can change."""
        if isinstance(reward, _IMMUTABLE_REWARDS):
            self.reward_type = type(reward)
            return reward
        return float(np.asarray(reward, np.float64).reshape(()))

    def tick(self, observation: object) -> None:
        """A step at which something may be due: a fingerprint, a look at the clock, a commit."""
        step, now = self.length, time.perf_counter()
        if self._durations:
            self._step_durations.append(now - self._last_tick[1])
        if self._every and step % self._every == 0:
            assert self._open is not None
            self._open.fingerprints.extend((step, fingerprint(observation)))
        last_step, last_time = self._last_tick
        pace = (now - last_time) / max(1, step - last_step)
        self._interval = max(1, int(self._flush_seconds * TICK_SHARE / max(pace, 1e-9)))
        self._last_tick = (step, now)
        if len(self.rewards) >= layout.BLOCK_STEPS or now >= self._deadline:
            self.commit()
        self.next_tick = self._tick_after(step)

    def _tick_after(self, step: int) -> int:
        if self._durations:
            return step + 1
        to_fingerprint = self._every - step % self._every if self._every else layout.BLOCK_STEPS
        return step + min(to_fingerprint, self._interval)

    def trailing(self) -> None:
        """A step after an end and before the next reset was done; its action and reward are kept."""
        if self._durations:
            now = time.perf_counter()
            self._step_durations.append(now - self._last_tick[1])
            self._last_tick = (self.length, now)
        if len(self.rewards) >= layout.BLOCK_STEPS or time.perf_counter() >= self._deadline:
            self.commit()

    def end(self, ended: Ended, elapsed: float, info: tuple[float, ...], observation: object) -> None:
        """The env ended its episode."""
        assert self._open is not None
        if self._durations:
            self._step_durations.append(time.perf_counter() - self._last_tick[1])
        self._last_tick = (self.length, time.perf_counter())
        self._open.fingerprints.extend((self.length, fingerprint(observation)))
        self._open.info = info
        self._finish(ended, elapsed)

    def interrupt(self) -> None:
        """A reset or a close comes before the episode's end."""
        if self._open is not None:
            elapsed = 0.0 if self.length == 0 else round(time.perf_counter() - self._started_at, 6)
            self._finish(Ended.INTERRUPTED if self.length else Ended.NOTHING, elapsed)

    def raised(self, error: BaseException, where: str) -> None:
        """The env raised, in a step (whose action was taken) or in a reset."""
        if where == "step" and not isinstance(error, KeyboardInterrupt):
            self.rewards.append(math.nan)
            if self._durations:
                self._step_durations.append(math.nan)
        elif where == "step":  # nobody knows how much of the step was done
            for entries in self._leaves:
                entries.pop()
        entry = self._open
        if entry is None:  # a step after the end
            self.stop_fast()
            return
        if isinstance(error, KeyboardInterrupt):
            self._finish(Ended.INTERRUPTED if self.length else Ended.NOTHING, self._elapsed())
            return
        name = f"{type(error).__module__}.{type(error).__qualname__}"
        entry.details["error"] = {"type": name, "text": str(error)[:4096], "where": where}
        self._finish(Ended.ERRORED, self._elapsed())

    _started_at = 0.0

    def start_clock(self, started_at: float) -> None:
        """The reset returned at this time of `perf_counter`."""
        self._started_at = started_at

    def _elapsed(self) -> float:
        return round(time.perf_counter() - self._started_at, 6) if self.running else 0.0

    def stop_fast(self) -> None:
        """The next action goes the long way round."""
        self.fast_type = self.fast_dtype = self.fast_shape = None

    def _finish(self, ended: Ended, elapsed: float) -> None:
        entry = self._open
        assert entry is not None
        self._open = None
        self.running = False
        self.stop_fast()
        self._last_end_time = entry.end_time = max(self._last_end_time, time.time_ns())
        entry.ended, entry.length, entry.elapsed = ended, self.length, elapsed
        entry.n_actions = self._base + len(self.rewards) - entry.first_step
        entry.total = float(self.total)
        self._pending.append(entry)
        if self._writer is None:
            self._drop()
        elif len(self.rewards) >= layout.BLOCK_STEPS or time.perf_counter() >= self._deadline:
            self.commit()

    def label(self, text: str) -> None:
        """Names the episode that runs, or else the last one that has not been committed."""
        entry = self._open or (self._pending[-1] if self._pending else None)
        if entry is not None:
            entry.label = text

    # ---- segments

    def _start_segment(self) -> None:
        launch = this_launch()
        try:
            run_id = folder.join(self.run, launch, resume=self._resume)
            if not self._attributes:
                self._attributes = self._make_header()
            self._open_segment(run_id, launch, self._codec)
        except OSError as error:
            if self._predecessor < 0 and not self._gap:
                raise folder.RunError(f"can't record into {self.run}: {error}: give another run=") from error
            self._suspend(error)

    def _open_segment(self, run_id: str, launch: Process, codec: ActionCodec) -> None:
        columns = [leaf.path.replace("/", ".") for leaf in codec.leaves]
        header: dict[str, str | int] = {
            "format": layout.FORMAT,
            "version": layout.VERSION,
            "run": run_id,
            "launch": launch.id,
            "created": time.time_ns(),
            "predecessor": self._predecessor,
            "gap": int(self._gap),
            "used_before": int(self._used_before),
            "columns": json.dumps([*(f"action/{name}" for name in columns), "reward", *(["duration"] * self._durations)]),
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
            process=this_process(),
        )
        self._run_id, self._launch = run_id, launch
        self._predecessor, self._gap = self._writer.number, False
        self._pack_row = struct.Struct(_struct_format(self._writer.row_dtype)).pack
        self._kind_refs = {}
        self._deadline = time.perf_counter() + self._flush_seconds
        _close_at_exit(self)

    def flush(self) -> None:
        """Commits what there is, now."""
        if self._pid == os.getpid():
            self.commit()

    def close(self) -> None:
        """Ends the open episode as interrupted, commits, and closes the segment; more calls do nothing."""
        if self._closed or self._pid != os.getpid():
            return
        self.interrupt()
        self.commit(closing=True)
        self._closed = True
        _open_logs.discard(self)
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def commit(self, *, closing: bool = False) -> None:
        """Writes the block. An error of the disk ends the segment, is told once, and training goes on."""
        if self._writer is None:
            self._drop()
            return
        try:
            while True:
                try:
                    self._commit(self._writer, closing=closing)
                    break
                except DoesNotFit as misfit:
                    self._widen(self._writer, misfit)
        except Exception as error:  # h5py raises OSError, RuntimeError, ValueError and KeyError alike for a full disk
            self._suspend(error)

    def _suspend(self, error: Exception) -> None:
        if self._writer is not None:
            self._writer.abandon()
            self._writer = None
        self._gap = True
        self._suspended_until = time.monotonic() + RETRY_S
        self._drop()
        warnings.warn(
            f"reenact: logging into {self.run} stopped at {time.strftime('%H:%M:%S')}: {error}; training goes on "
            "without a log, what was committed stays readable, and a new segment is tried at the next resets",
            RuntimeWarning,
            stacklevel=2,
        )

    def _drop(self) -> None:
        """Lets go of what can't be written, so that a training without a disk doesn't fill the memory."""
        for entries in self._leaves:
            entries.clear()
        self.rewards.clear()
        self._step_durations.clear()
        self._pending.clear()
        self._base = 0
        self._runs, self._runs_done, self._kind = [], 0, None
        self.stop_fast()
        if self._open is not None:  # its beginning is lost: it must not look whole in the next segment
            self._open = _Entry(0)

    def _leave_parent(self) -> None:
        """In a forked child: what the parent recorded is the parent's; this process starts a segment of its own."""
        self._pid = os.getpid()
        self._writer = None
        self._used_before, self._predecessor, self._gap = True, -1, False
        self._open = None
        self.running = False
        self._drop()
        self._closed = False

    # ---- commits

    def _commit(self, writer: SegmentWriter, *, closing: bool) -> None:
        count = len(self.rewards)
        encoded = [self._encode(index, entries) for index, entries in enumerate(self._leaves)]  # may not fit
        heap = _Heap(writer.heap.rows)
        columns: list[np.ndarray] = [
            heap.column(entries) if isinstance(entries, list) else entries for entries in encoded
        ]
        columns.append(np.array(self.rewards, np.float64))
        stored = [*writer.actions, writer.reward]
        if writer.duration is not None:
            columns.append(np.array(self._step_durations, np.float32))
            stored.append(writer.duration)
        self._write_kinds(writer, heap)
        views = [memoryview(column.view(np.uint8).reshape(-1)) if count else memoryview(b"") for column in columns]
        widths = [column.dtype.itemsize * math.prod(column.shape[1:]) for column in columns]
        rows, prints, states = bytearray(), bytearray(), bytearray()
        committed_rows = writer.episodes.rows
        for number, entry in enumerate(self._pending):
            self._advance(writer, entry, committed_rows + number, (views, widths), (heap, prints, states))
            rows += self._pack(entry, heap)
        open_row = None
        if self._open is not None:
            entry = self._open
            entry.length, entry.total, entry.elapsed = self.length, float(self.total), self._elapsed()
            entry.n_actions = self._base + count - entry.first_step
            entry.ended, entry.end_time = Ended.INTERRUPTED, max(self._last_end_time, time.time_ns())
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
        for entries in self._leaves:
            entries.clear()
        self.rewards.clear()
        self._step_durations.clear()
        self._pending.clear()
        self._trim_runs()
        self._deadline = time.perf_counter() + self._flush_seconds

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
                assert dtype is not None
                pieces.append(self._codec.encode(index, entries[bounds[number] : end], dtype))
        if len(pieces) == 1:
            return np.ascontiguousarray(pieces[0])
        return np.concatenate(pieces) if pieces else np.zeros((0, *leaf.shape), leaf.dtype)

    def _write_kinds(self, writer: SegmentWriter, heap: _Heap) -> None:
        rows = np.zeros(len(self._runs) - self._runs_done, layout.KIND_ROW)
        for row, (first, kind, _) in zip(rows, self._runs[self._runs_done :], strict=True):
            ref = self._kind_refs.get(kind)
            if ref is None:
                ref = heap.add(kind.encode())
                if len(self._kind_refs) < _KINDS_KEPT:
                    self._kind_refs[kind] = ref
            row["step"], row["kind"] = first, ref
            row["crc"] = crc32(row.tobytes()[:-4])
        self._first_run_row = writer.kinds.rows - self._runs_done
        writer.kinds.append(rows)
        self._runs_done = len(self._runs)

    def _advance(
        self,
        writer: SegmentWriter,
        entry: _Entry,
        row: int,
        steps: tuple[list[memoryview], list[int]],
        side: tuple[_Heap, bytearray, bytearray],
    ) -> None:
        """Brings an episode's checksums and side tables up to what this commit writes."""
        views, widths = steps
        heap, prints, states = side
        if not entry.crcs:
            entry.crcs = [0] * (len(views) + 1)
            entry.first_fingerprint = writer.fingerprints.rows + len(prints) // layout.FINGERPRINT_ROW.itemsize
            entry.first_state = writer.states.rows + len(states) // layout.STATE_ROW.itemsize
        if entry.kind < 0:
            kind = 0
            while kind + 1 < len(self._runs) and self._runs[kind + 1][0] <= entry.first_step:
                kind += 1
            if entry.n_actions:
                entry.kind = self._first_run_row + kind
        first, end = entry.first_step + entry.steps_done - self._base, entry.first_step + entry.n_actions - self._base
        for index, (view, width) in enumerate(zip(views, widths, strict=True)):
            entry.crcs[index] = crc32(view[first * width : end * width], entry.crcs[index])
        entry.steps_done = entry.n_actions
        fresh = entry.fingerprints[entry.fingerprints_done :].tobytes()
        entry.crcs[-1] = crc32(fresh, entry.crcs[-1])
        prints += fresh
        entry.fingerprints_done = len(entry.fingerprints)
        for step, kind_of_state, data in entry.states[entry.states_done :]:
            state = np.zeros((), layout.STATE_ROW)[()]
            state["episode"], state["step"], state["kind"] = row, step, kind_of_state
            state["data"] = heap.add(data)
            state["crc"] = crc32(state.tobytes()[:-4])
            states += state.tobytes()
        entry.states_done = len(entry.states)
        if entry.details and (entry.details_ref is None or entry.ended is Ended.ERRORED):
            entry.details_ref = heap.add(jsontags.dumps(entry.details).encode())

    def _pack(self, entry: _Entry, heap: _Heap) -> bytes:
        label = heap.add(entry.label.encode()) if entry.label else (0, 0, 0)
        info = entry.info or (math.nan,) * len(self._info_keywords)
        packed = self._pack_row(
            entry.first_step, entry.length, entry.n_actions, entry.seed, entry.ended, entry.total, entry.elapsed,
            entry.end_time, -1, *label, *(entry.details_ref or (0, 0, 0)), entry.first_fingerprint,
            len(entry.fingerprints) // 2, max(0, entry.kind), entry.first_state, len(entry.states), *info,
            *entry.crcs, 0,
        )  # fmt: skip  # one line a group of fields, in the table's order
        return packed[:-4] + crc32(packed[:-4]).to_bytes(4, "little")

    def _trim_runs(self) -> None:
        """Forgets the kinds that nothing uncommitted is in."""
        first = self._open.first_step if self._open is not None else self._base
        keep = 0
        while keep + 1 < len(self._runs) and self._runs[keep + 1][0] <= first:
            keep += 1
        self._runs, self._runs_done = self._runs[keep:], self._runs_done - keep

    def _widen(self, writer: SegmentWriter, misfit: DoesNotFit) -> None:
        """Goes on in a new segment whose column holds the value, taking the uncommitted episodes along."""
        dtypes = [leaf.dtype for leaf in self._codec.leaves]
        dtypes[misfit.leaf] = misfit.dtype
        codec = ActionCodec(self._codec.space, dtypes)
        moved = [*self._pending, *([self._open] if self._open else [])]
        first = min((entry.first_step for entry in moved), default=self._base)
        old = [*writer.actions, writer.reward, *([writer.duration] if writer.duration else [])]
        carried = [column.read(first, self._base) for column in old]
        json_leaves = [leaf.is_json for leaf in codec.leaves]
        heap_bytes = writer.heap.read(0, writer.heap.rows) if any(json_leaves) and first < self._base else None
        writer.commit_rows(np.zeros(0, writer.row_dtype), None, closed=True)
        writer.close()
        self._open_segment(self._run_id, self._launch, codec)
        fresh = self._writer
        assert fresh is not None
        new = [*fresh.actions, fresh.reward, *([fresh.duration] if fresh.duration else [])]
        heap = _Heap(0)
        for index, (column, rows) in enumerate(zip(new, carried, strict=True)):
            if index < len(json_leaves) and json_leaves[index] and heap_bytes is not None:
                rows = heap.column([heap_bytes[r["offset"] : r["offset"] + r["length"]].tobytes() for r in rows])  # noqa: PLW2901  # moved
            column.append(rows.astype(column.dtype))
        fresh.heap.append(np.frombuffer(heap.data, np.uint8))
        self._codec = codec
        self._base -= first
        self._runs = [(max(0, start - first), kind, dtypes_) for start, kind, dtypes_ in self._runs]
        self._runs_done = 0
        for entry in moved:
            entry.first_step -= first
            entry.crcs, entry.kind, entry.steps_done, entry.fingerprints_done, entry.states_done = [], -1, 0, 0, 0
            entry.details_ref = None
            if entry.first_step < self._base:  # its rows are in the new segment already: their CRCs, now
                count = self._base - entry.first_step
                entry.crcs = [crc32(column.read(entry.first_step, self._base).tobytes()) for column in new] + [0]
                entry.first_fingerprint = entry.first_state = 0
                entry.steps_done = count


class _Heap:
    """The bytes that one commit adds to the heap."""

    def __init__(self, first: int) -> None:
        self._first, self.data = first, bytearray()

    def add(self, data: bytes) -> tuple[int, int, int]:
        """Returns the reference (offset, length, crc) to bytes that it appends."""
        offset = self._first + len(self.data)
        self.data += data
        return offset, len(data), crc32(data)

    def column(self, entries: Sequence[bytes]) -> np.ndarray:
        """Returns one reference an entry."""
        return np.array([self.add(entry) for entry in entries], layout.REF)


def _described(leaf: Leaf) -> tuple[str, np.dtype[Any], tuple[int, ...]]:
    return leaf.path, leaf.dtype, leaf.shape


_CHARS = {"u1": "B", "u4": "I", "i4": "i", "u8": "Q", "i8": "q", "f8": "d"}


def _struct_format(dtype: np.dtype[Any]) -> str:
    """Returns the struct format of a packed compound, since packing a row by field names costs ten times as much."""
    return "<" + "".join(_chars(dtype[name]) for name in dtype.names or ())


def _chars(dtype: np.dtype[Any]) -> str:
    if dtype.subdtype is not None:
        return _chars(dtype.subdtype[0]) * math.prod(dtype.subdtype[1])
    if dtype.names is not None:
        return "".join(_chars(dtype[name]) for name in dtype.names)
    return _CHARS[dtype.str[1:]]


# ---- the end of the process

_open_logs: weakref.WeakSet[EpisodeLog] = weakref.WeakSet()
_finalizer_pid = 0


def _close_at_exit(log: EpisodeLog) -> None:
    """Has the log closed when this process ends: `atexit` does not run in multiprocessing's workers."""
    global _finalizer_pid  # noqa: PLW0603  # one a process: a forked child has to register anew
    _open_logs.add(log)
    if _finalizer_pid != os.getpid():
        _finalizer_pid = os.getpid()
        multiprocessing.util.Finalize(None, _close_all, exitpriority=100)


def _close_all() -> None:
    for log in list(_open_logs):
        log.close()
