"""What a reset can be started again from, as a segment holds it: RNG states, entropy, snapshots."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from reenact import layout
from reenact.checksums import is_sound, sound_rows
from reenact.errors import DamagedError
from reenact.heap import blob, blobs
from reenact.layout import StateKind

if TYPE_CHECKING:
    from reenact.hdf5 import Hdf5File

_KINDS = {kind.value: kind for kind in StateKind}
Array = np.ndarray[Any, Any]
State = tuple[int, StateKind, bytes]
"""The env steps done in the episode when it was taken, its kind, its bytes."""


class States:
    """The states of one segment."""

    def __init__(self, file: Hdf5File) -> None:
        self._file = file

    def of(self, row: np.void) -> list[State]:
        """Reads an episode's RNG states and snapshots: step, kind, bytes."""
        rows = self._file.read(layout.STATES, int(row["first_state"]), int(row["n_states"]))
        found = []
        for state in rows:
            if not is_sound(state):
                raise DamagedError(f"{self._file.path}: a state that an episode starts from is damaged")
            kind = _KINDS.get(int(state["kind"]), StateKind.UNKNOWN)
            found.append((int(state["step"]), kind, blob(self._file, state["data"])))
        return found

    def of_all(self, rows: Array) -> tuple[int, list[State]]:
        """Reads the states of resets that lie side by side, their bytes in one go where these do too.

        Returns:
            The first one's row in `states`, and one entry a row.
        """
        with_states = rows[rows["n_states"] > 0]
        if not len(with_states):
            return 0, []
        first = int(with_states[0]["first_state"])
        last = with_states[-1]
        states = self._file.read(layout.STATES, first, int(last["first_state"]) + int(last["n_states"]) - first)
        if not len(states) or not sound_rows(states).all():
            raise DamagedError(f"{self._file.path}: states that episodes start from are damaged")
        found = []
        steps_and_kinds = zip(states["step"].tolist(), states["kind"].tolist(), strict=True)
        for (step, kind), data in zip(steps_and_kinds, blobs(self._file, states["data"]), strict=True):
            if data is None:
                raise DamagedError(f"{self._file.path}: a state that an episode starts from is damaged")
            found.append((step, _KINDS.get(kind, StateKind.UNKNOWN), data))
        return first, found
