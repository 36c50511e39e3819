"""The first difference between an episode as logged and as re-executed: everything is compared bit for bit."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

from reenact.episode import Divergence, EpisodeData
from reenact.fingerprint import fingerprint, fold, frozen

_BITS = struct.Struct("<d").pack


class Comparison:
    """Compares one re-execution with the log, and keeps the first difference.

    Args:
        data: the episode.
        tolerance: how far a reward may be off, and the return by so much a step; above 0 fingerprints are left out.

    Attributes:
        divergence: the first difference so far, or None.
    """

    def __init__(self, data: EpisodeData, tolerance: float) -> None:
        self._data, self._tolerance = data, tolerance
        self._agreed, self._running = -1, 0
        self.divergence: Divergence | None = None

    def differs(self, step: int, name: str, expected: object, got: object) -> None:
        """Takes in a difference; the first one stays."""
        if self.divergence is None:
            self.divergence = Divergence(step, self._agreed, name, expected, got)

    def observation(self, step: int, observation: object) -> None:
        """Takes in an observation (0: the reset's)."""
        if self._tolerance or self.divergence is not None:
            return
        if self._data.running:
            self._running = fold(self._running, [frozen(observation)]) if step else fingerprint(observation)
        expected = self._data.fingerprints.get(step)
        if expected is None:
            return
        got = self._running if self._data.running else fingerprint(observation)
        if got != expected:
            self.differs(step, "observation", f"{expected:08x}", f"{got:08x}")
        else:
            self._agreed = step

    def reward(self, step: int, got: Any, expected: float) -> None:
        """Takes in a reward."""
        value = float(np.asarray(got, np.float64).reshape(()))
        if not self._close(value, float(expected)):
            self.differs(step, "reward", float(expected), value)

    def total(self, step: int, got: float) -> None:
        """Takes in the return."""
        if not self._close(got, self._data.return_, steps=max(1, self._data.length)):
            self.differs(step, "return", self._data.return_, got)

    def _close(self, got: float, expected: float, steps: int = 1) -> bool:
        return _BITS(got) == _BITS(expected) or abs(got - expected) <= self._tolerance * steps > 0

    def ending(self, step: int, terminated: bool, truncated: bool) -> None:
        """Takes in what a step said of the end."""
        last = step == self._data.length
        expected_terminated = last and self._data.ended == "terminated"
        if terminated != expected_terminated:
            self.differs(step, "terminated", expected_terminated, terminated)
        expected_truncated = last and self._data.ended == "truncated"
        if not terminated and truncated != expected_truncated:
            self.differs(step, "truncated", expected_truncated, truncated)

    def missing_error(self, step: int) -> None:
        """The env should have raised, and did not."""
        self.differs(step, "error", self._data.error.type if self._data.error else None, None)

    def raised(self, step: int, error: Exception, where: str) -> None:
        """Takes in what the env raised."""
        name = f"{type(error).__module__}.{type(error).__qualname__}"
        expected = self._data.error
        at_its_step = expected is not None and (where == "reset" or step == self._data.length + 1)
        if expected is None or expected.type != name or expected.where != where or not at_its_step:
            self.differs(step, "error", expected.type if expected and at_its_step else None, f"{name}: {error}")


def describe(divergence: Divergence) -> str:
    """Says a divergence in one line."""
    after = f"began after step {divergence.since}" if divergence.since >= 0 else "began at the reset"
    found = f"expected {divergence.expected}, got {divergence.got}"
    return f"{divergence.field} at step {divergence.step}: {found} ({after})"
