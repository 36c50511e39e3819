"""What one recorder tells of its env, step by step and episode by episode.

The recorder appends to plain lists at every step; they are written a block at a time (`segments`). The log
outlives its recorder by one call: `close` is what a finalizer runs when the recorder was never closed.
"""

from __future__ import annotations

import math
import os
import threading
import time
from typing import TYPE_CHECKING, Any, Unpack

from reenact import layout
from reenact.layout import Ended, StateKind
from reenact.pending import Entry, as_float, seed_column
from reenact.segments import Options, SegmentLog
from reenact.single import Single
from reenact.tally import Tally

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy as np

    from reenact.codec import ActionCodec
    from reenact.process import Launch


class EpisodeLog(SegmentLog):
    """A recorder's episodes, as they go by.

    Args:
        run: as `SegmentLog` takes it.
        launch: as above.
        header: as above.
        codec: of the env's action space.
        running_fingerprints: whether fingerprints are running checksums over all observations.
        info_keywords: as `SegmentLog` takes it.
        durations: as above.
        options: what else that takes.
    """

    block: Single

    def __init__(
        self,
        run: Path,
        launch: Launch,
        header: Callable[[], dict[str, str | int]],
        codec: ActionCodec,
        *,
        running_fingerprints: bool,
        info_keywords: tuple[str, ...],
        durations: bool,
        **options: Unpack[Options],
    ) -> None:
        block = Single(codec, n_info=len(info_keywords), durations=durations)
        super().__init__(run, launch, header, block, info_keywords=info_keywords, durations=durations, **options)
        self.tally = Tally(self.tape, checks=running_fingerprints)

    def _bring_up(self, rewards: np.ndarray | None = None) -> None:
        if self.tally.running:
            self.tally.settle(rewards)

    def _note_running(self, now: int) -> None:
        entry, tally = self.block.current, self.tally
        if entry is not None:
            tally.note_checksum(entry)
            entry.length, entry.total, entry.elapsed = tally.length, as_float(tally.total), tally.elapsed()
            entry.n_actions = self.block.end - entry.first_step
            entry.ended, entry.end_time = Ended.INTERRUPTED, now

    def _emptied(self) -> None:
        self.tally.rewind()

    def _forget(self) -> None:
        self.block.current = None
        self.tally.stop()

    @property
    def _between(self) -> bool:
        done = len(self.tape.actions) == len(self.tape.rewards)
        return done and (self.tally.running or self.block.current is None)

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
        self.interrupt()
        self.prepare()
        self.block.current = entry = Entry(details=details, first_step=self.block.end, seed=seed_column(seed, details))
        entry.states += [(0, *state) for state in states]
        self.tally.begin()
        self.tape.due = -1

    @property
    def segment(self) -> int:
        """The number of the segment that it fills; -1: there is none."""
        return self._writer.number if self._writer is not None else -1

    def add_states(self, states: list[tuple[StateKind, bytes]]) -> None:
        """Adds states that the running episode, or the one that has just ended, was started from, noticed later."""
        entry = self._latest()
        if entry is not None:
            entry.states += [(0, *state) for state in states]

    def _latest(self) -> Entry | None:
        return self.block.current or (self.block.pending[-1] if self.block.pending else None)

    def mark(self, label: str) -> bool:
        """Labels the running episode, or the one that has just ended; returns whether there is one."""
        entry = self._latest()
        if entry is None:
            return False
        entry.mark(label)
        return True

    def started(self, observation: object) -> None:
        """The reset returned."""
        assert self.block.current is not None  # noqa: S101  # for mypy: begin() made it
        self.block.current.fingerprints.extend((0, self.tally.start(observation)))
        now = time.perf_counter()
        if len(self.tape.rewards) >= layout.BLOCK_STEPS or now >= self._deadline:
            self.commit()
            now = time.perf_counter()
        self._last_tick = (0, now)
        self._next_tick(0)

    def tick(self, observation: object) -> None:
        """Something may be due: a fingerprint, a look at the clock, a commit."""
        if not self.tally.running:
            self._trailing()
            return
        step, last_time = self.tally.length, self._last_tick[1]
        self._thread = threading.get_ident()
        now = self._look(step)
        if self._durations:
            self.block.durations.append(now - last_time)
        assert self.block.current is not None  # noqa: S101  # for mypy: begin() made it
        if self._every and step % self._every == 0:
            self.tally.keep(self.block.current, step, observation)
        else:
            self.tally.fold()  # what waits must not fill the memory
        if len(self.tape.rewards) >= layout.BLOCK_STEPS or now >= self._deadline:
            self.commit()
        self._next_tick(step)

    def _next_tick(self, step: int) -> None:
        steps = self._every - step % self._every if self._every else layout.BLOCK_STEPS
        steps = 1 if self._durations else min(steps, self._interval)
        self.tape.due = len(self.tape.rewards) + steps

    def _trailing(self) -> None:
        """A step after an end and before the next reset was done; its action and reward are kept."""
        if self._durations:
            now = time.perf_counter()
            self.block.durations.append(now - self._last_tick[1])
            self._last_tick = (0, now)
        if len(self.tape.rewards) >= layout.BLOCK_STEPS or time.perf_counter() >= self._deadline:
            self.commit()
        self.tally.stop()
        self.tape.due = len(self.tape.rewards) + 1

    def end(self, ended: Ended, elapsed: float, info: tuple[float, ...], observation: object) -> None:
        """The env ended its episode."""
        assert self.block.current is not None  # noqa: S101  # for mypy: begin() made it
        if self._durations:
            now = time.perf_counter()
            self.block.durations.append(now - self._last_tick[1])
            self._last_tick = (0, now)
        self.tally.settle()
        self.tally.keep(self.block.current, self.tally.length, observation)
        self.block.current.info = info
        self._finish(ended, elapsed)

    def interrupt(self) -> None:
        """A reset or a close comes before the episode's end."""
        entry, length = self.block.current, self.tally.length
        if entry is not None:
            if self.tally.running:
                self.tally.settle()
            self.block.align(entry.first_step + length - self.block.base)
            self._finish(Ended.INTERRUPTED if length else Ended.NOTHING, self.tally.elapsed() if length else 0.0)
        else:
            self.block.align(len(self.tape.rewards))

    def raised(self, error: BaseException, where: str) -> None:
        """The env raised, in a step (whose action was taken) or in a reset."""
        entry = self.block.current
        if self.tally.running:
            self.tally.settle()
            if entry is not None:
                self.tally.note_checksum(entry)  # before a step is added that gave no observation
        length = self.tally.length
        if where == "step" and not isinstance(error, KeyboardInterrupt):
            self.tape.rewards.append(math.nan)
            if self._durations:
                self.block.durations.append(math.nan)
        elif where == "step":  # nobody knows how much of the step was done
            self.block.align(len(self.tape.rewards))
        if entry is None:  # a step after the end
            self.tape.stop_fast()
            return
        if isinstance(error, KeyboardInterrupt):
            self._finish(Ended.INTERRUPTED if length else Ended.NOTHING, self.tally.elapsed())
            return
        name = f"{type(error).__module__}.{type(error).__qualname__}"
        entry.details["error"] = {"type": name, "text": str(error)[:4096], "where": where}
        self._finish(Ended.ERRORED, self.tally.elapsed())

    def _finish(self, ended: Ended, elapsed: float) -> None:
        entry = self.block.current
        assert entry is not None  # noqa: S101  # for mypy: the callers looked
        if ended is not Ended.NOTHING:
            self.tally.note_checksum(entry)
        self.block.current = None
        self.tally.stop()
        self.tape.due = len(self.tape.rewards) + 1
        self._last_end_time = entry.end_time = self._now_ns()
        entry.ended, entry.length, entry.elapsed = ended, self.tally.length, elapsed
        entry.n_actions = self.block.end - entry.first_step
        entry.total = as_float(self.tally.total)
        self.block.pending.append(entry)
        # What is due is committed at the next reset: until then the episode can be marked.
        if self._writer is None:
            self._drop()

    def close(self) -> None:
        """Ends the open episode as interrupted, commits, and closes the segment; more calls do nothing."""
        if not self._closed and self._pid == os.getpid():
            self.interrupt()
            super().close()
