"""The hot state of a recorder: what its `step` reads and writes, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np


class Tape:
    """Plain lists that a step appends to. Slots, since a log has more attributes than CPython keeps inline.

    Attributes:
        actions: of the first leaf, since the last commit: numbers, or the bytes of arrays; of a batch an entry a
            vector step: the bytes of all lanes, or a tuple of one entry a lane.
        rewards: since the last commit, as given; of a batch the bytes of all lanes', float64.
        observed: each step's observation, frozen, since the running checksum last took them in; None: there is none.
        fast_type: what an action's type must be to be kept without a closer look, or None.
        fast_dtype: for arrays, and those of a batch, their dtype …
        fast_shape: … and shape.
        reward_type: the last reward's type, if nobody can change its value afterwards.
        due: how many rewards there are when something is due: a fingerprint, a look at the clock, a commit.
    """

    __slots__ = ("actions", "due", "fast_dtype", "fast_shape", "fast_type", "observed", "reward_type", "rewards")

    def __init__(self) -> None:
        self.actions: list[Any] = []
        self.rewards: list[Any] = []
        self.observed: list[bytes | int] | None = None
        self.fast_type: type | None = None
        self.fast_dtype: np.dtype[Any] | None = None
        self.fast_shape: tuple[int, ...] | None = None
        self.reward_type: type | None = None
        self.due = -1

    def stop_fast(self) -> None:
        """The next action gets a closer look."""
        self.fast_type = self.fast_dtype = self.fast_shape = None
