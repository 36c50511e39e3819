"""The three queues of `RecordEpisodeStatistics`, filled from logged episodes and from nothing else."""

from __future__ import annotations

from collections import deque
from typing import Any, SupportsFloat

import numpy as np


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
        self.returns[lanes] = 0
        self.lengths[lanes] = 0
        self.start_times[lanes] = now
