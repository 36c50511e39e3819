"""What a reset can be started again from, as a segment holds it: RNG states, entropy, snapshots."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from reenact import layout
from reenact.checksums import sound_rows
from reenact.errors import DamagedError
from reenact.heap import blobs
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

    def of(self, row: np.void) -> list[State | None]:
        """Reads the states of a reset; None for one that is damaged.

        Raises:
            DamagedError: there are none where the row says so.
        """
        return self._read(int(row["first_state"]), int(row["n_states"]))

    def of_all(self, rows: Array) -> tuple[int, list[State | None]]:
        """Reads the states of resets that lie side by side, their bytes in one go where these do too.

        Returns:
            The first one's row in `states`, and one entry a row: None where it is damaged.

        Raises:
            DamagedError: there are none where the rows say so.
        """
        with_states = rows[rows["n_states"] > 0]
        if not len(with_states):
            return 0, []
        first, last = int(with_states[0]["first_state"]), with_states[-1]
        end = int(last["first_state"]) + int(last["n_states"])
        if end <= first:
            raise DamagedError(f"{self._file.path}: states that episodes start from are damaged")
        return first, self._read(first, end - first)

    def _read(self, first: int, count: int) -> list[State | None]:
        states = self._file.read(layout.STATES, first, count)
        sound = sound_rows(states)
        found: list[State | None] = [None] * count
        whole = states[sound]
        fields = (np.flatnonzero(sound), whole["step"], whole["kind"])
        data = blobs(self._file, whole["data"])
        for at, step, kind, its in zip(*(field.tolist() for field in fields), data, strict=True):
            if its is not None:
                found[at] = step, _KINDS.get(kind, StateKind.UNKNOWN), its
        return found
