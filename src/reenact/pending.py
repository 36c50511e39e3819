"""What waits for its commit: an episode on its way into the table, the bytes on their way into the heap."""

from __future__ import annotations

import math
from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from zlib import crc32

import numpy as np

from reenact import layout
from reenact.layout import Ended, StateKind

if TYPE_CHECKING:
    from collections.abc import Sequence

Ref = tuple[int, int, int]


@dataclass(slots=True)
class Extras:
    """What an episode may have beside the numbers in its row; of a vector env's, few have any."""

    details: dict[str, Any] = field(default_factory=dict)
    states: list[tuple[int, StateKind, bytes]] = field(default_factory=list)
    label: str = ""
    # what commits have done with it so far
    states_done: int = 0
    details_ref: Ref | None = None

    def mark(self, label: str) -> None:
        """Adds to its label."""
        self.label = f"{self.label}, {label}" if self.label else label

    def start_anew(self) -> None:
        """Goes to a new segment, which has none of it yet."""
        self.states_done, self.details_ref = 0, None


@dataclass(slots=True)
class Entry(Extras):
    """An episode of a single env on its way into the table; `first_step` is a row of the current segment."""

    first_step: int = 0
    seed: int = layout.NO_SEED
    fingerprints: array[int] = field(default_factory=lambda: array("I"))  # step, checksum, step, checksum, …
    ended: Ended = Ended.NOTHING
    length: int = 0
    n_actions: int = 0
    total: float = 0.0
    elapsed: float = 0.0
    end_time: int = 0
    info: tuple[float, ...] = ()
    # what commits have done with it so far
    fingerprints_done: int = 0


@dataclass(frozen=True, slots=True)
class Waiting:
    """The episodes that a commit writes.

    Attributes:
        rows: in the table: of those that have ended, in their order, then one a lane: of that which runs, or else of
            one that might begin now. What only a commit knows is not in them: places and checksums in the segment.
        ended: how many have ended.
        running: whether one runs, bool, one a lane.
        extras: what else there is of them, each with its place in `rows`, in their order.
    """

    rows: np.ndarray
    ended: int
    running: np.ndarray
    extras: list[tuple[int, Extras]]


class Heap:
    """The bytes that one commit adds to the heap."""

    def __init__(self, first: int) -> None:
        self._first, self.data = first, bytearray()

    def add(self, data: bytes) -> Ref:
        """Returns the reference (offset, length, crc) to bytes that it appends."""
        offset = self._first + len(self.data)
        self.data += data
        return offset, len(data), crc32(data)

    def column(self, entries: Sequence[bytes]) -> np.ndarray:
        """Returns one reference an entry."""
        return np.array([self.add(entry) for entry in entries], layout.REF)


def seed_column(seed: int | None, details: dict[str, Any]) -> int:
    """Returns what stands for a seed in its column; one that this can't hold goes into `details`."""
    if seed is None:
        return layout.NO_SEED
    if layout.NO_SEED < seed < 2**63:
        return int(seed)
    details["seed"] = int(seed)
    return layout.NO_SEED


def as_float(value: object) -> float:
    """Returns a reward or a sum of them as float64, NaN where it is no single number."""
    if type(value) is float:
        return value
    try:
        return float(np.asarray(value, np.float64).reshape(()))
    except (TypeError, ValueError, OverflowError):
        return math.nan
