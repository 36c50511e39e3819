"""The three queues of `RecordEpisodeStatistics`, filled from logged episodes and from nothing else."""

from __future__ import annotations

import time
from collections import deque
from typing import Any, NamedTuple, SupportsFloat

import numpy as np

_ONE, _MILLION = np.array(1), np.array(1e6)
"""What is added to few lanes, or taken from them: a number of Python's costs NumPy twice as much as these."""


class EpisodeStatistics:
    """The last finished episodes, as `gymnasium.wrappers.RecordEpisodeStatistics` holds them.

    Only `terminated` and `truncated` episodes count, as upstream.

    Attributes:
        return_queue: their returns.
        length_queue: their lengths, in env steps.
        time_queue: how long each took, in seconds.
        episode_count: how many there have been in all.
    """

    def __init__(self, buffer_length: int = 100) -> None:
        self.return_queue: deque[SupportsFloat] = deque(maxlen=buffer_length)
        self.length_queue: deque[int] = deque(maxlen=buffer_length)
        self.time_queue: deque[float] = deque(maxlen=buffer_length)
        self.episode_count = 0

    def add(self, total: SupportsFloat, length: int, elapsed: float) -> None:
        """Takes in one finished episode (return, env steps, seconds)."""
        self.return_queue.append(total)
        self.length_queue.append(length)
        self.time_queue.append(elapsed)
        self.episode_count += 1


class Finished(NamedTuple):
    """What episodes of a vector env's lanes have come to, shape (n,) each: returns, env steps, seconds."""

    returns: np.ndarray
    lengths: np.ndarray
    times: np.ndarray


class BatchStatistics(EpisodeStatistics):
    """Those of a vector env, as `gymnasium.wrappers.vector.RecordEpisodeStatistics` holds them.

    Args:
        width: the number of lanes.
        buffer_length: how many finished episodes the queues hold.

    Attributes:
        returns: each lane's sum of rewards so far, float64, shape (width,).
        lengths: its env steps so far, int, shape (width,).
        start_times: when its episode began, in seconds of `time.perf_counter`, float64, shape (width,).
        dones: whether its episode ended with the last step, bool, shape (width,).
    """

    def __init__(self, width: int, buffer_length: int) -> None:
        super().__init__(buffer_length)
        self.returns, self.lengths = np.zeros(width), np.zeros(width, int)
        self.start_times, self.dones = np.zeros(width), np.zeros(width, bool)

    def begin(self, lanes: Any, now: float) -> None:
        """Episodes begin.

        Args:
            lanes: an index of these.
            now: in seconds of `time.perf_counter`.
        """
        self.rest(lanes)
        self.start_times[lanes] = now

    def rest(self, lanes: Any) -> None:
        """Lanes have done no step of an episode."""
        self.returns[lanes] = 0
        self.lengths[lanes] = 0

    def step(self, rewards: np.ndarray) -> None:
        """All lanes have done a step.

        Args:
            rewards: of each, float64.
        """
        self.returns += rewards
        self.lengths += _ONE

    def end(self, lanes: np.ndarray) -> Finished:
        """Episodes end: takes them in.

        Args:
            lanes: indices of these.
        """
        found = Finished(self.returns[lanes], self.lengths[lanes], self.elapsed(lanes))
        # from the array itself they come at five times the price
        self.return_queue.extend(found.returns.flat)
        self.length_queue.extend(found.lengths.flat)
        self.time_queue.extend(found.times.flat)
        self.episode_count += len(lanes)
        return found

    def elapsed(self, lanes: Any) -> np.ndarray:
        """Returns how many seconds ago lanes' episodes began, as `np.round` rounds them, to microseconds."""
        found: np.ndarray = np.array(time.perf_counter()) - self.start_times[lanes]
        found *= _MILLION
        np.rint(found, found)
        found /= _MILLION
        return found


class Told:
    """What recorders tell of the statistics, by `RecordEpisodeStatistics`'s names."""

    _statistics: EpisodeStatistics

    @property
    def return_queue(self) -> deque[Any]:
        """Returns of the last finished episodes."""
        return self._statistics.return_queue

    @property
    def length_queue(self) -> deque[Any]:
        """Lengths of the last finished episodes, in env steps."""
        return self._statistics.length_queue

    @property
    def time_queue(self) -> deque[Any]:
        """How long the last finished episodes took, in seconds."""
        return self._statistics.time_queue

    @property
    def episode_count(self) -> int:
        """How many episodes have finished; of a vector env, over all lanes."""
        return self._statistics.episode_count
