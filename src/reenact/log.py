"""What one recorder tells of its env, step by step and episode by episode.

The recorder appends to plain lists at every step; they are written a block at a time (`segments`). The log
outlives its recorder by one call: `close` is what a finalizer runs when the recorder was never closed.
"""

from __future__ import annotations

import math
import os
import threading
import time
import warnings
from typing import Any

import numpy as np

from reenact import layout
from reenact.fingerprint import fingerprint
from reenact.layout import Ended, StateKind
from reenact.pending import Entry, as_float
from reenact.segments import SegmentLog

TICK_SHARE = 0.02
"""The share of `flush_seconds` that may pass between two looks at the clock."""
_IMMUTABLE_REWARDS = (float, int, bool, np.floating, np.integer, np.bool_)


class EpisodeLog(SegmentLog):
    """A recorder's episodes, as they go by."""

    _last_tick = (0, 0.0)  # step, time
    _interval = 1
    _lossy_said = False

    def begin(
        self,
        seed: int | None,
        details: dict[str, Any],
        states: list[tuple[StateKind, bytes]],
    ) -> None:
        """A reset is about to be called, from these states.

        Raises:
            RunError: the first segment can't be made.
        """
        if self._pid != os.getpid():
            self._leave_parent()
        self._thread = threading.get_ident()
        self.interrupt()
        if self._writer is None and not self._closed and time.monotonic() >= self._suspended_until:
            self._start_segment()
        self._open = entry = Entry(self._base + len(self.tape.rewards), details=details)
        if seed is not None:
            if layout.NO_SEED < seed < 2**63:
                entry.seed = int(seed)
            else:
                entry.details["seed"] = int(seed)
        entry.states += [(0, *state) for state in states]
        self._length, self._total, self._settled = 0, 0.0, len(self.tape.rewards)
        self.running = False
        self.tape.due = -1

    def add_states(self, states: list[tuple[StateKind, bytes]]) -> None:
        """Adds states that the running episode, or the one that has just ended, was started from, noticed later."""
        entry = self._open or (self._pending[-1] if self._pending else None)
        if entry is not None:
            entry.states += [(0, *state) for state in states]

    def started(self, observation: object) -> None:
        """The reset returned."""
        assert self._open is not None  # noqa: S101  # for mypy: begin() made it
        self._checksum, self._folded = fingerprint(observation), 0
        self._open.fingerprints.extend((0, self._checksum))
        self.tape.observed = [] if self._running else None
        now = time.perf_counter()
        self.running = True
        if len(self.tape.rewards) >= layout.BLOCK_STEPS or now >= self._deadline:
            self.commit()
            now = time.perf_counter()
        self._last_tick = (0, now)
        self._next_tick(0)

    def take(self, action: object) -> None:
        """Logs an action the long way round: of a new kind, or of a space that needs it."""
        tape, known = self.tape, self._number_kinds.get(type(action))
        if known is not None:  # of a type seen before, such as an epsilon-greedy agent's now and then
            tape.actions.append(action)
            self._goes_on_as(*known)
            tape.fast_type, tape.fast_dtype, tape.fast_shape = type(action), None, None
            return
        taken = self._codec.take(action)
        for entries, entry in zip(self._leaves, taken.entries, strict=True):
            entries.append(entry)
        self._goes_on_as(taken.kind, taken.dtypes)
        tape.stop_fast()
        if taken.lossy is not None:
            if not self._lossy_said:
                self._lossy_said = True
                warnings.warn(f"reenact: an action {taken.lossy}; a replay gets that instead", stacklevel=4)
            return
        leaf = self._codec.leaves[0]
        if len(self._leaves) != 1 or leaf.is_json or taken.kind.startswith('{"value"'):
            return
        if leaf.is_number:
            if type(action) is int or isinstance(action, np.integer):
                self._number_kinds[type(action)] = taken.kind, taken.dtypes
                tape.fast_type = type(action)
        elif type(action) is np.ndarray:
            tape.fast_type, tape.fast_dtype, tape.fast_shape = np.ndarray, action.dtype, action.shape

    def _goes_on_as(self, kind: str, dtypes: tuple[np.dtype[Any] | None, ...]) -> None:
        if kind != self._kind or self._runs[-1][2] != dtypes:
            self._runs.append((self._base + len(self.tape.rewards), kind, dtypes))
            self._kind = kind

    def number(self, reward: Any) -> Any:
        """Returns what to keep of a reward of another type than the last: a value nobody can change."""
        self._plain = self._plain and isinstance(reward, float)
        if isinstance(reward, _IMMUTABLE_REWARDS):
            self.tape.reward_type = type(reward)
            return reward
        array = np.asarray(reward)
        # its value now, in its own dtype, since the sum is taken in that
        return array.reshape(())[()] if array.size == 1 and array.dtype.kind in "biuf" else as_float(reward)

    def tick(self, observation: object) -> None:
        """Something may be due: a fingerprint, a look at the clock, a commit."""
        if not self.running:
            self._trailing()
            return
        step, now = self._length + len(self.tape.rewards) - self._settled, time.perf_counter()
        self._thread = threading.get_ident()
        last_step, last_time = self._last_tick
        if self._durations:
            self._step_durations.append(now - last_time)
        assert self._open is not None  # noqa: S101  # for mypy: begin() made it
        if self._every and step % self._every == 0:
            self._keep(self._open, step, observation)
        else:
            self._fold()  # what waits must not fill the memory
        # an env that turns slow is looked at more often, or `flush_seconds` could pass many times over
        look_every = self._flush_seconds * TICK_SHARE
        self._interval = int(look_every * (step - last_step) / (now - last_time + 1e-9)) or 1
        self._last_tick = step, now
        if len(self.tape.rewards) >= layout.BLOCK_STEPS or now >= self._deadline:
            self.commit()
        self._next_tick(step)

    def _keep(self, entry: Entry, step: int, observation: object) -> None:
        if self._running:
            self._note_checksum(entry)
        else:
            entry.fingerprints.extend((step, fingerprint(observation)))

    def _next_tick(self, step: int) -> None:
        steps = self._every - step % self._every if self._every else layout.BLOCK_STEPS
        steps = 1 if self._durations else min(steps, self._interval)
        self.tape.due = len(self.tape.rewards) + steps

    def _trailing(self) -> None:
        """A step after an end and before the next reset was done; its action and reward are kept."""
        if self._durations:
            now = time.perf_counter()
            self._step_durations.append(now - self._last_tick[1])
            self._last_tick = (0, now)
        if len(self.tape.rewards) >= layout.BLOCK_STEPS or time.perf_counter() >= self._deadline:
            self.commit()
        self._settled = len(self.tape.rewards)
        self.tape.due = self._settled + 1

    def end(self, ended: Ended, elapsed: float, info: tuple[float, ...], observation: object) -> None:
        """The env ended its episode."""
        assert self._open is not None  # noqa: S101  # for mypy: begin() made it
        if self._durations:
            now = time.perf_counter()
            self._step_durations.append(now - self._last_tick[1])
            self._last_tick = (0, now)
        self._settle()
        self._keep(self._open, self._length, observation)
        self._open.info = info
        self._finish(ended, elapsed)

    def interrupt(self) -> None:
        """A reset or a close comes before the episode's end."""
        if self._open is not None:
            if self.running:
                self._settle()
            self._align(self._open.first_step + self._length - self._base)
            ended = Ended.INTERRUPTED if self._length else Ended.NOTHING
            self._finish(ended, self._elapsed() if self._length else 0.0)
        else:
            self._align(len(self.tape.rewards))

    def raised(self, error: BaseException, where: str) -> None:
        """The env raised, in a step (whose action was taken) or in a reset."""
        if self.running:
            self._settle()
            if self._open is not None:
                self._note_checksum(self._open)  # before a step is added that gave no observation
        if where == "step" and not isinstance(error, KeyboardInterrupt):
            self.tape.rewards.append(math.nan)
            if self._durations:
                self._step_durations.append(math.nan)
        elif where == "step":  # nobody knows how much of the step was done
            self._align(len(self.tape.rewards))
        entry = self._open
        if entry is None:  # a step after the end
            self.tape.stop_fast()
            return
        if isinstance(error, KeyboardInterrupt):
            self._finish(Ended.INTERRUPTED if self._length else Ended.NOTHING, self._elapsed())
            return
        name = f"{type(error).__module__}.{type(error).__qualname__}"
        entry.details["error"] = {"type": name, "text": str(error)[:4096], "where": where}
        self._finish(Ended.ERRORED, self._elapsed())

    def start_clock(self, started_at: float) -> None:
        """The reset returned at this time of `perf_counter`."""
        self._started_at = started_at

    def _finish(self, ended: Ended, elapsed: float) -> None:
        entry = self._open
        assert entry is not None  # noqa: S101  # for mypy: the callers looked
        if ended is not Ended.NOTHING:
            self._note_checksum(entry)
        self._open = None
        self.tape.observed = None
        self.running = False
        self._settled = len(self.tape.rewards)
        self.tape.due = self._settled + 1
        self._last_end_time = entry.end_time = self._now_ns()
        entry.ended, entry.length, entry.elapsed = ended, self._length, elapsed
        entry.n_actions = self._base + len(self.tape.rewards) - entry.first_step
        entry.total = as_float(self._total)
        self._pending.append(entry)
        if self._writer is None:
            self._drop()
        elif len(self.tape.rewards) >= layout.BLOCK_STEPS or time.perf_counter() >= self._deadline:
            self.commit()

    def close(self) -> None:
        """Ends the open episode as interrupted, commits, and closes the segment; more calls do nothing."""
        if not self._closed and self._pid == os.getpid():
            self.interrupt()
            super().close()
