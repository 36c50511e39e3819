"""The block of a single env: one episode after another waits to be written."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING
from zlib import crc32

import numpy as np

from reenact import layout
from reenact.block import Block
from reenact.pending import Entry, Waiting

if TYPE_CHECKING:
    from reenact.codec import ActionCodec


class Single(Block):
    """Steps and episodes on their way into the current segment.

    Args:
        codec: of the env's action space.
        n_info: how many info values are kept.
        durations: whether step durations are kept.

    Attributes:
        pending: the episodes that have ended.
        current: the one that runs, or None.
        lane: of the env among those of a vector env; -1: it is none of these.
    """

    def __init__(self, codec: ActionCodec, *, n_info: int, durations: bool) -> None:
        super().__init__(codec, n_info=n_info, durations=durations)
        self.pending: list[Entry] = []
        self.current: Entry | None = None
        self.lane = -1
        self._no_info = (math.nan,) * n_info

    @property
    def _entries(self) -> list[Entry]:
        return [*self.pending, self.current] if self.current is not None else self.pending

    def clear(self) -> None:
        """Empties it."""
        super().clear()
        self.pending.clear()

    def start_anew(self) -> None:
        """Lets go of all of it."""
        super().start_anew()
        # what runs has lost its beginning: it must not look whole in the next segment
        self.current = None if self.current is None else Entry()

    def _waiting(self) -> Waiting:
        running = self.current or Entry(first_step=self.end)
        entries = [*self.pending, running]
        rows = self._rows([entry.first_step for entry in entries])
        rows["length"] = [entry.length for entry in entries]
        rows["n_actions"] = [entry.n_actions for entry in entries]
        rows["seed"] = [entry.seed for entry in entries]
        rows["ended"] = [entry.ended for entry in entries]
        rows["return"] = [entry.total for entry in entries]
        rows["elapsed"] = [entry.elapsed for entry in entries]
        rows["end_time"] = [entry.end_time for entry in entries]
        rows["lane"] = self.lane
        if self._no_info:
            rows["info"] = [entry.info or self._no_info for entry in entries]
        there = np.array([self.current is not None])
        return Waiting(rows, len(self.pending), there, list(enumerate(entries)))

    def _print(self, waiting: Waiting, first: int) -> np.ndarray:
        """Returns what is new: an episode's lie together, whatever the commits."""
        rows, entries = waiting.rows, [*self.pending, self.current or Entry()]
        fresh = [entry.fingerprints[entry.fingerprints_done :] for entry in entries]
        counts = np.array([len(one) // 2 for one in fresh], np.int64)
        begun = np.array([entry.fingerprints_done > 0 for entry in entries], np.bool_)
        rows["first_fingerprint"] = np.where(begun, rows["first_fingerprint"], first + np.cumsum(counts) - counts)
        rows["n_fingerprints"] = [len(entry.fingerprints) // 2 for entry in entries]
        crcs = rows["column_crcs"][:, -1]
        crcs[:] = [crc32(one, before) for one, before in zip(fresh, crcs.tolist(), strict=True)]
        return np.frombuffer(b"".join(fresh), layout.FINGERPRINT_ROW)

    def _written(self) -> None:
        if self.current is not None:
            self.current.fingerprints_done = len(self.current.fingerprints)

    def _first_steps(self) -> np.ndarray:
        entries = self._entries
        return np.array([entries[0].first_step if entries else self.base])

    def _move_back(self, rows: int) -> None:
        for entry in self._entries:
            entry.first_step -= rows
            entry.fingerprints_done = 0
            entry.start_anew()
