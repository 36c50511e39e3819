"""What one recorder tells of a vector env, vector step by vector step and episode by episode.

What a step leaves is folded and written a block at a time; only where an episode begins or ends is anything done
for a lane of its own. The log outlives its recorder by one call, as `log` does.
"""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from reenact import layout
from reenact.fingerprint import fingerprint
from reenact.folding import Folding
from reenact.layout import Ended, StateKind
from reenact.pending import seed_column
from reenact.segments import Options, SegmentLog

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from reenact.batch import Batch
    from reenact.process import Launch
    from reenact.statistics import BatchStatistics, Finished

_ROWS, _FEWEST = 1 << 17, 16
"""A commit is due after so many rows of steps, or as many vector steps as a single env's steps; never after fewer."""


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
        self._folding = Folding(block, self._every)

    # ---- resets

    def begin(
        self,
        lanes: Sequence[int],
        of: Callable[[int], tuple[int | None, dict[str, Any], list[tuple[StateKind, bytes]]]],
    ) -> None:
        """Lanes are about to be reset by the user.

        Args:
            lanes: which.
            of: gives a lane's seed, its details, and the states from before.
        """
        self._busy = True
        block, roster = self.block, self.block.roster
        self.interrupt(lanes)
        roster.begin(np.array(lanes, np.int64), block.end, observed=False)
        block.settle()
        for lane in lanes:
            number = int(roster.running[lane])
            seed, details, states = of(lane)
            roster.rows["seed"][number] = seed_column(seed, details)
            if details or states:
                extras = roster.extras_of(number)
                extras.details = details
                extras.states += [(0, *state) for state in states]

    def started(self, lanes: Sequence[int], observations: Any) -> None:
        """The reset returned.

        Args:
            lanes: which were reset.
            observations: one a lane, of all of them.
        """
        self._busy = False
        if self._checks:
            self._folding.see(observations)
        first = int(self.block.roster.running[lanes[0]])
        self.block.roster.see(first, [fingerprint(observations[lane]) for lane in lanes])
        now = time.perf_counter()
        if len(self.tape.rewards) >= self._block_steps or now >= self._deadline:
            self.commit()
            now = time.perf_counter()
        if self._writer is None:
            self._drop()
        self._last_tick = (self._vector_steps, now)
        self._next_tick()

    def began(self, lanes: np.ndarray, observations: Any, *, rested: bool) -> None:
        """The vector env has reset lanes by itself: their next episodes begin with the next step.

        Args:
            lanes: which, indices.
            observations: one a lane, of all of them.
            rested: whether they were reset instead of stepped.
        """
        block = self.block
        if rested:
            block.rests += block.count - block.width, len(lanes), lanes.tobytes()
        if self._writer is not None:
            observed = rested and self._folding.holds(observations)
            first = block.roster.begin(lanes, block.end, observed=observed)
            if not observed:
                block.roster.see(first, [fingerprint(observations[lane]) for lane in lanes.tolist()])

    def add_states(self, lane: int, states: list[tuple[StateKind, bytes]]) -> None:
        """Adds states that a lane's running episode was started from, noticed after its reset."""
        number = int(self.block.roster.running[lane])
        if number >= 0 and states:
            self.block.roster.extras_of(number).states += [(0, *state) for state in states]

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
            self._see_running(observations())
        if len(self.tape.rewards) >= self._block_steps or now >= self._deadline:
            self.commit()
        elif len(self.tape.rewards) - self._folding.folded >= self._folding.steps:
            self._folding.fold()
        if self._writer is None:
            self._drop()
            self.prepare()
        self._next_tick()

    def _see_running(self, observations: Any) -> None:
        """Keeps the fingerprints of the running episodes' observations."""
        self.block.settle()
        rows, roster = self.block.roster.rows, self.block.roster
        numbers = roster.there[rows["length"][roster.there] > 0]
        checksums = [fingerprint(observations[lane]) for lane in rows["lane"][numbers].tolist()]
        roster.prints.append((numbers, rows["length"][numbers].astype(np.int64), checksums))

    def _next_tick(self) -> None:
        steps = min(self._interval, self._folding.steps)
        if self._every and not self._checks:
            steps = min(steps, self._every - self._vector_steps % self._every)
        done = len(self.tape.rewards)
        self.tape.due = min(done + steps, max(done + 1, self._block_steps))

    # ---- ends

    def end(
        self,
        lanes: np.ndarray,
        ended: bytes,
        finished: Finished,
        infos: Sequence[tuple[float, ...]],
        last: Callable[[int], Any],
        *,
        aside: bool,
    ) -> None:
        """Episodes of lanes have ended with the last step.

        Args:
            lanes: which, indices.
            ended: how, an `Ended` a lane.
            finished: what each came to.
            infos: the values of the info keywords, of each; none where there are none.
            last: gives the last observation of a lane's episode, or None where it is not known.
            aside: whether the vector env gave that beside the observations, which are of the next episode.
        """
        numbers = self._take_out(lanes, ended, finished.returns, finished.times, infos)
        if not self._checks:
            its = [(number, last(lane)) for lane, number in zip(lanes.tolist(), numbers, strict=True) if number >= 0]
            seen = [(number, fingerprint(one)) for number, one in its if one is not None]
            whose, checksums = ([one[at] for one in seen] for at in (0, 1))
            self.block.roster.prints.append((np.array(whose, np.int64), np.full(len(seen), -1), checksums))
        elif aside:
            found = [last(lane) for lane in lanes.tolist()]
            finals = [b"" if one is None else np.asarray(one).tobytes() for one in found]
            self._folding.replace(lanes.tolist(), numbers, finals)

    def _take_out(
        self,
        lanes: np.ndarray,
        ended: bytes,
        returns: np.ndarray,
        times: np.ndarray,
        infos: Sequence[tuple[float, ...]] = (),
    ) -> np.ndarray:
        """Takes lanes' episodes out of those that run; returns their numbers, -1 where there were none."""
        self._last_end_time = now = self._now_ns()
        return self.block.roster.end(lanes, self.block.end, now, (ended, returns, times), infos)

    def interrupt(self, lanes: Sequence[int]) -> None:
        """A reset or a close comes before the ends of the lanes' episodes."""
        block, its = self.block, np.array(lanes, np.int64)
        block.align(len(self.tape.rewards))
        self._folding.cut()
        block.settle()
        going = block.roster.running[its]
        stepped = (going >= 0) & (block.roster.lengths(going) > 0)
        ended = np.where(stepped, Ended.INTERRUPTED, Ended.NOTHING).astype(np.uint8).tobytes()
        returns, times = self._statistics.returns[its], self._statistics.elapsed(its)
        self._take_out(its, ended, np.where(stepped, returns, 0.0), np.where(stepped, times, 0.0))
        block.settle()  # before others end, of which more is known

    def raised(self) -> None:
        """The vector env raised: nobody knows which lanes have done the step, so no episode goes on."""
        self._busy = False
        self.interrupt(range(self.block.width))

    def mark(self, label: str, lane: int) -> bool:
        """Labels a lane's running episode, or its last one, not committed yet; returns whether there is one."""
        self.block.settle()
        number = self.block.roster.latest(lane)
        if number >= 0:
            self.block.roster.extras_of(number).mark(label)
        return number >= 0

    def close(self) -> None:
        """Ends the running episodes as interrupted, commits, and closes the segment; more calls do nothing."""
        if not self._closed and self._pid == os.getpid():
            self.interrupt(range(self.block.width))
            super().close()

    # ---- for the segments

    def _bring_up(self, rewards: np.ndarray | None = None) -> None:  # noqa: ARG002  # the statistics are up already
        self._folding.fold()

    def _note_running(self, now: int) -> None:
        roster, statistics = self.block.roster, self._statistics
        its, rows = roster.there, roster.rows
        lanes, stepped = rows["lane"][its], rows["length"][its] > 0
        rows["return"][its] = np.where(stepped, statistics.returns[lanes], 0.0)
        rows["elapsed"][its] = np.where(stepped, statistics.elapsed(lanes), 0.0)
        rows["ended"][its], rows["end_time"][its] = Ended.INTERRUPTED, now
        self._folding.note(its[roster.marks["known"][its]])

    def _emptied(self) -> None:
        self._folding.folded = 0

    def _forget(self) -> None:
        self.block.roster.running[:] = -1
        self._busy = False

    @property
    def _between(self) -> bool:
        return len(self.tape.actions) == len(self.tape.rewards) and not self._busy
