"""What one recorder tells of a vector env, vector step by vector step and episode by episode.

What a step leaves is folded and written a block at a time; only where an episode begins or ends is anything done
for a lane of its own. The log outlives its recorder by one call, as `log` does.
"""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING, Any, Unpack
from zlib import crc32

import numpy as np

from reenact import layout
from reenact.fingerprint import fingerprint
from reenact.layout import Ended, StateKind
from reenact.pending import Entry, as_float
from reenact.segments import Options, SegmentLog

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from reenact.batch import Batch
    from reenact.process import Launch
    from reenact.statistics import BatchStatistics

_ROWS, _FEWEST = 1 << 16, 16
"""A commit is due after so many rows of steps, or as many vector steps as a single env's steps; never after fewer."""
_OBSERVED = 1 << 20
"""Bytes of observations that wait for being folded into checksums."""


class BatchLog(SegmentLog):
    """A vector recorder's episodes, as they go by.

    Args:
        run: as `SegmentLog` takes it.
        launch: as above.
        header: as above.
        block: takes what is recorded.
        statistics: of the lanes.
        running_fingerprints: whether fingerprints are running checksums over all observations.
        info_keywords: as `SegmentLog` takes it.
        options: what else that takes.
    """

    block: Batch

    def __init__(
        self,
        run: Path,
        launch: Launch,
        header: Callable[[], dict[str, str | int]],
        block: Batch,
        statistics: BatchStatistics,
        *,
        running_fingerprints: bool,
        info_keywords: tuple[str, ...],
        **options: Unpack[Options],
    ) -> None:
        super().__init__(run, launch, header, block, info_keywords=info_keywords, durations=False, **options)
        self._statistics, self._checks = statistics, running_fingerprints
        self._block_steps = max(_FEWEST, min(layout.BLOCK_STEPS, _ROWS // block.width))
        self._busy = False
        self._folded_to = 0  # of the tape's vector steps
        self._to_fold: list[Entry] = []  # those that have ended since
        self._observation_bytes = 0  # of one lane
        self._fold_steps = layout.BLOCK_STEPS

    # ---- resets

    def prepare(self) -> None:
        """A reset is about to be called.

        Raises:
            RunError: the first segment can't be made.
        """
        if self._pid != os.getpid():
            self._leave_parent()
        self._thread = threading.get_ident()
        if self._writer is None and not self._closed and time.monotonic() >= self._suspended_until:
            self._start_segment()

    def begin(
        self,
        lanes: Iterable[int],
        of: Callable[[int], tuple[int | None, dict[str, Any], list[tuple[StateKind, bytes]]]],
    ) -> None:
        """Lanes are about to be reset by the user.

        Args:
            lanes: which.
            of: gives a lane's seed, its details, and the states from before.
        """
        self._busy = True
        lanes = list(lanes)
        self.interrupt(lanes)
        for lane in lanes:
            seed, details, states = of(lane)
            entry = Entry(self.block.end + lane, lane, details=details)
            if seed is not None and layout.NO_SEED < seed < 2**63:
                entry.seed = int(seed)
            elif seed is not None:
                details["seed"] = int(seed)
            entry.states += [(0, *state) for state in states]
            self.block.lanes[lane] = entry

    def started(self, lanes: Iterable[int], observations: Any) -> None:
        """The reset returned.

        Args:
            lanes: which were reset.
            observations: one a lane, of all of them.
        """
        self._busy = False
        self._see(observations)
        for lane in lanes:
            self._first_seen(self.block.lanes[lane], observations[lane])
        now = time.perf_counter()
        if len(self.tape.rewards) >= self._block_steps or now >= self._deadline:
            self.commit()
            now = time.perf_counter()
        if self._writer is None:
            self._drop()
        self._last_tick = (self._vector_steps, now)
        self._next_tick()

    def began(self, lanes: Iterable[int], observations: Any) -> None:
        """The vector env has reset lanes by itself: their next episodes begin with the next step.

        Args:
            lanes: which.
            observations: one a lane, of all of them.
        """
        if self._writer is None:
            return
        first, running = self.block.end, self.block.lanes
        for lane in lanes:
            running[lane] = entry = Entry(first + lane, lane)
            self._first_seen(entry, observations[lane])

    def add_states(self, lane: int, states: list[tuple[StateKind, bytes]]) -> None:
        """Adds states that a lane's running episode was started from, noticed after its reset."""
        entry = self.block.lanes[lane]
        if entry is not None:
            entry.states += [(0, *state) for state in states]

    def rested(self, lanes: Iterable[int]) -> None:
        """In the step that has just been done, lanes were reset instead."""
        first = self.block.count - self.block.width
        self.block.rests.extend(first + lane for lane in lanes)

    def _see(self, observations: Any) -> None:
        """Looks at what observations are like, and begins to keep them for the running checksums."""
        if not self._checks or self.tape.observed is not None:
            return
        if isinstance(observations, np.ndarray) and observations.nbytes:
            self._observation_bytes = observations.nbytes // self.block.width
            self._fold_steps = max(1, _OBSERVED // observations.nbytes)
            self.tape.observed = []
            self._folded_to = len(self.tape.rewards)

    def _first_seen(self, entry: Entry | None, observation: Any) -> None:
        if entry is not None:
            checksum = fingerprint(observation)
            entry.fingerprints.extend((0, checksum))
            entry.checksum = checksum if self.tape.observed is not None else None

    # ---- steps

    @property
    def _vector_steps(self) -> int:
        return self.steps // self.block.width

    def tick(self, observations: Callable[[], Any]) -> None:
        """Something may be due: a fingerprint, a look at the clock, a commit, a new segment after an error.

        Args:
            observations: gives those of the last step, one a lane.
        """
        step = self._vector_steps
        self._thread = threading.get_ident()
        now = self._look(step)
        if not self._checks and self._every and step % self._every == 0:
            seen = observations()
            for entry in self.block.lanes:
                if entry is not None:
                    self.block.measure(entry)
                    if entry.length:
                        entry.fingerprints.extend((entry.length, fingerprint(seen[entry.lane])))
        if len(self.tape.rewards) >= self._block_steps or now >= self._deadline:
            self.commit()
        elif len(self.tape.rewards) - self._folded_to >= self._fold_steps:
            self._fold()
        if self._writer is None:
            self._drop()
            self.prepare()
        self._next_tick()

    def _next_tick(self) -> None:
        steps = min(self._interval, self._fold_steps)
        if self._every and not self._checks:
            steps = min(steps, self._every - self._vector_steps % self._every)
        done = len(self.tape.rewards)
        self.tape.due = min(done + steps, max(done + 1, self._block_steps))

    # ---- ends

    def end(
        self,
        lanes: Sequence[int],
        ended: Sequence[Ended],
        elapsed: Sequence[float],
        info: Callable[[int], tuple[float, ...]] | None,
        last: Callable[[int], Any],
        *,
        aside: bool,
    ) -> None:
        """Episodes of lanes have ended with the last step.

        Args:
            lanes: which.
            ended: how, one a lane.
            elapsed: seconds, one a lane.
            info: gives the values of the info keywords of a lane; None: there are none.
            last: gives the last observation of a lane's episode, or None where it is not known.
            aside: whether the vector env gave that beside the observations, which are of the next episode.
        """
        for entry in self._take_out(lanes, ended, elapsed):
            if info is not None:
                entry.info = info(entry.lane)
            if not self._checks:
                seen = last(entry.lane)
                if seen is not None:
                    entry.fingerprints.extend((entry.length, fingerprint(seen)))
            elif aside:
                seen = last(entry.lane)
                entry.final = b"" if seen is None else np.asarray(seen).tobytes()

    def _take_out(self, lanes: Iterable[int], ended: Iterable[Ended], elapsed: Iterable[float]) -> list[Entry]:
        """Takes lanes' episodes out of those that run; returns those that there were."""
        block, end, width = self.block, self.block.end, self.block.width
        returns, running = self._statistics.returns.tolist(), block.lanes
        self._last_end_time = now = self._now_ns()
        found = []
        for lane, how, took in zip(lanes, ended, elapsed, strict=True):
            entry = running[lane]
            if entry is not None:
                running[lane] = None
                entry.length = entry.n_actions = (end + lane - entry.first_step) // width
                entry.ended, entry.end_time, entry.total, entry.elapsed = how, now, returns[lane], took
                found.append(entry)
        block.pending += found
        self._to_fold += found
        return found

    def interrupt(self, lanes: Iterable[int]) -> None:
        """A reset or a close comes before the ends of the lanes' episodes."""
        self.block.align(len(self.tape.rewards))
        if self.tape.observed is not None:
            del self.tape.observed[len(self.tape.rewards) - self._folded_to :]
        lanes = list(lanes)
        elapsed = np.round(time.perf_counter() - self._statistics.start_times[lanes], 6).tolist()
        for entry in self._take_out(lanes, [Ended.INTERRUPTED] * len(lanes), elapsed):
            if not entry.length:
                entry.ended, entry.total, entry.elapsed = Ended.NOTHING, 0.0, 0.0

    def raised(self) -> None:
        """The vector env raised: nobody knows which lanes have done the step, so no episode goes on."""
        self._busy = False
        self.interrupt(range(self.block.width))

    def mark(self, label: str, lane: int) -> bool:
        """Labels a lane's running episode, or its last one, not committed yet; returns whether there is one."""
        entry = self.block.lanes[lane] or next((one for one in reversed(self.block.pending) if one.lane == lane), None)
        if entry is None:
            return False
        entry.label = f"{entry.label}, {label}" if entry.label else label
        return True

    def close(self) -> None:
        """Ends the running episodes as interrupted, commits, and closes the segment; more calls do nothing."""
        if not self._closed and self._pid == os.getpid():
            self.interrupt(range(self.block.width))
            super().close()

    # ---- for the segments

    def _bring_up(self, rewards: np.ndarray | None = None) -> None:  # noqa: ARG002  # the statistics are up already
        self._fold()

    def _note_running(self) -> None:
        now = time.perf_counter()
        for entry in self.block.lanes:
            if entry is not None:
                self.block.measure(entry)
                entry.total = as_float(self._statistics.returns[entry.lane]) if entry.length else 0.0
                entry.elapsed = round(now - self._statistics.start_times[entry.lane], 6) if entry.length else 0.0
                self._note_checksum(entry)

    def _emptied(self) -> None:
        self._folded_to = 0

    def _forget(self) -> None:
        self.block.lanes = [None] * self.block.width
        self._busy = False

    @property
    def _between(self) -> bool:
        return len(self.tape.actions) == len(self.tape.rewards) and not self._busy

    # ---- checksums

    def _fold(self) -> None:
        """Folds the observations that wait into the running checksums of their episodes."""
        count = len(self.tape.rewards) - self._folded_to
        ended, self._to_fold = self._to_fold, []
        observed = self.tape.observed
        if observed is None:
            self._folded_to += count
            return
        width, size = self.block.width, self._observation_bytes
        data = b"".join(observed[:count])  # type: ignore[arg-type]  # a batch's are bytes
        observed.clear()
        whole = len(data) == count * width * size
        if whole and count:
            data = np.frombuffer(data, np.uint8).reshape(count, width, size).swapaxes(0, 1).tobytes()
        view = memoryview(data)
        for entry in (*ended, *self.block.lanes):
            if entry is not None and entry.checksum is not None:
                lane = view[entry.lane * count * size : (entry.lane + 1) * count * size]
                self._fold_one(entry, lane if whole else None)
        self._folded_to += count

    def _fold_one(self, entry: Entry, lane: memoryview | None) -> None:
        """Folds what was observed in a lane since the last time into the checksum of one of its episodes.

        Args:
            entry: the episode.
            lane: the observations, a vector step each; None: they are not what they should be.
        """
        size, every, block = self._observation_bytes, self._every, self.block
        if runs := entry is block.lanes[entry.lane]:
            block.measure(entry)
        done, checksum, end = entry.folded, entry.checksum, entry.length
        upto = end if entry.final is None else end - 1
        if lane is None or checksum is None:
            entry.checksum = checksum if done == end else None
            return
        at = (entry.first_step - entry.lane - block.base) // block.width - self._folded_to
        while done < upto:
            stop = min(upto, done - done % every + every) if every else upto
            checksum = crc32(lane[(at + done) * size : (at + stop) * size], checksum)
            done = stop
            if every and done % every == 0:
                entry.fingerprints.extend((done, checksum))
        if entry.final is not None and len(entry.final) == size:
            checksum, done = crc32(entry.final, checksum), end
        entry.checksum, entry.folded = checksum, done
        if not runs:
            self._note_checksum(entry)

    @staticmethod
    def _note_checksum(entry: Entry) -> None:
        """Keeps the running checksum of an episode's last step."""
        known = entry.checksum is not None and entry.folded == entry.length
        if known and entry.fingerprints and entry.fingerprints[-2] != entry.length:
            entry.fingerprints.extend((entry.length, entry.checksum or 0))
