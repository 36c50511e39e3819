"""The three queues of `RecordEpisodeStatistics`, filled from logged episodes and from nothing else."""

from __future__ import annotations

from collections import deque
from typing import SupportsFloat


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
