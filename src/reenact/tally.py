"""What the running episode has come to: its length, sum of rewards and running checksum, added up when asked."""

from __future__ import annotations

import functools
import operator
import time
from array import array
from typing import TYPE_CHECKING, Any

import numpy as np

from reenact.fingerprint import fingerprint, fold
from reenact.pending import as_float

if TYPE_CHECKING:
    from reenact.pending import Entry
    from reenact.tape import Tape

_FEW = 64  # additions, below which NumPy's own start costs more than it saves
_IMMUTABLE_REWARDS = (float, int, bool, np.floating, np.integer, np.bool_)


class Tally:
    """Of the episode that runs, or ran last.

    Args:
        tape: where its steps go.
        checks: whether it has a running checksum over all observations.

    Attributes:
        running: whether it has begun and not ended.
        started_at: when its reset returned, in seconds of `time.perf_counter`.
    """

    def __init__(self, tape: Tape, *, checks: bool) -> None:
        self.running, self.started_at = False, 0.0
        self._tape, self._checks = tape, checks
        # as far as `settle` has got, and how far that is in the tape's rewards
        self._length, self._settled = 0, 0
        self._total: Any = 0.0
        self._plain = True  # whether all rewards that are not settled are floats
        self._checksum, self._folded = 0, 0  # over the observations of so many steps

    def begin(self) -> None:
        """A reset is about to be called."""
        self._length, self._total = 0, 0.0
        self.stop()

    def start(self, observation: object) -> int:
        """The reset returned; returns the observation's checksum."""
        self._checksum, self._folded = fingerprint(observation), 0
        self._tape.observed = [] if self._checks else None
        self.running = True
        return self._checksum

    def stop(self) -> None:
        """What follows on the tape is no part of it."""
        self.running = False
        self._settled = len(self._tape.rewards)
        self._tape.observed = None

    def rewind(self) -> None:
        """The tape, settled before, is empty again."""
        self._settled = 0

    @property
    def length(self) -> int:
        """Env steps since the last reset, up to the end."""
        return self._length + (len(self._tape.rewards) - self._settled if self.running else 0)

    @property
    def total(self) -> Any:
        """The sum of rewards since the last reset, up to the end: step by step, in the rewards' own type."""
        if self.running:
            self.settle()
        return self._total

    def elapsed(self) -> float:
        """Returns the seconds since the reset returned; 0 if no episode runs."""
        return round(time.perf_counter() - self.started_at, 6) if self.running else 0.0

    def number(self, reward: Any) -> Any:
        """Returns what to keep of a reward of another type than the last: a value nobody can change."""
        self._plain = self._plain and isinstance(reward, float)
        if isinstance(reward, _IMMUTABLE_REWARDS):
            self._tape.reward_type = type(reward)
            return reward
        array_ = np.asarray(reward)
        # its value now, in its own dtype, since the sum is taken in that
        return array_.reshape(())[()] if array_.size == 1 and array_.dtype.kind in "biuf" else as_float(reward)

    def settle(self, column: np.ndarray | None = None) -> None:
        """Brings length and sum up to the last reward.

        Args:
            column: all of the tape's rewards in float64, where that has been made already.
        """
        rewards = self._tape.rewards
        count = len(rewards) - self._settled
        if count == 0:
            return
        if self._plain and count > _FEW:
            fresh = np.array(array("d", rewards[self._settled :])) if column is None else column[self._settled :].copy()
            fresh[0] += self._total
            # one addition after another in float64, as `+=` does it, at a fifth of the price
            total = np.add.accumulate(fresh)[-1]
            self._total = float(total) if type(rewards[-1]) is type(self._total) is float else total
        else:
            self._total = functools.reduce(operator.add, rewards[self._settled :], self._total)
            self._plain = self._tape.reward_type is not None and issubclass(self._tape.reward_type, float)
            self._plain = self._plain and isinstance(self._total, float)
        self._length += count
        self._settled = len(rewards)

    def fold(self) -> bool:
        """Brings the running checksum up to the last step; returns whether it can be relied on."""
        observed = self._tape.observed
        if observed is None:
            return False
        steps = self.length - self._folded
        if len(observed) < steps:  # something raised between two appends
            self._tape.observed = None
            return False
        self._checksum = fold(self._checksum, observed[:steps])
        self._folded += steps
        observed.clear()
        return True

    def note_checksum(self, entry: Entry) -> None:
        """Keeps the running checksum as it stands now."""
        if self.fold() and entry.fingerprints and entry.fingerprints[-2] != self._folded:
            entry.fingerprints.extend((self._folded, self._checksum))

    def keep(self, entry: Entry, step: int, observation: object) -> None:
        """Keeps a checksum of the running kind, or else of this observation."""
        if self._checks:
            self.note_checksum(entry)
        else:
            entry.fingerprints.extend((step, fingerprint(observation)))
