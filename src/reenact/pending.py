"""What waits for its commit: an episode on its way into the table, the bytes on their way into the heap."""

from __future__ import annotations

import math
import struct
from array import array
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any
from zlib import crc32

import numpy as np

from reenact import layout
from reenact.layout import Ended, StateKind

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


@dataclass(slots=True)
class Entry:
    """An episode on its way into the table; `first_step` and the like are rows of the current segment."""

    first_step: int
    lane: int = -1
    seed: int = layout.NO_SEED
    details: dict[str, Any] = field(default_factory=dict)
    states: list[tuple[int, StateKind, bytes]] = field(default_factory=list)
    fingerprints: array[int] = field(default_factory=lambda: array("I"))  # step, checksum, step, checksum, …
    ended: Ended = Ended.NOTHING
    length: int = 0
    n_actions: int = 0
    total: float = 0.0
    elapsed: float = 0.0
    end_time: int = 0
    info: tuple[float, ...] = ()
    label: str = ""
    # of a batch: the running checksum (None: it can't be relied on), over the observations of so many steps, and the
    # last observation where the vector env gave that aside
    checksum: int | None = None
    folded: int = 0
    final: bytes | None = None
    # what commits have done with it so far
    crcs: list[int] = field(default_factory=list)
    rest_crcs: list[int] = field(default_factory=list)
    steps_done: int = 0
    kind: int = -1
    first_fingerprint: int = -1
    fingerprints_done: int = 0
    fingerprints_kept: int = 0
    first_state: int = -1
    states_done: int = 0
    details_ref: tuple[int, int, int] | None = None

    def move_back(self, steps: int) -> None:
        """Goes to a new segment, so many rows nearer to its beginning; nothing of it has been committed there."""
        self.first_step -= steps
        self.crcs, self.rest_crcs, self.kind, self.details_ref = [], [], -1, None
        self.steps_done = self.fingerprints_done = self.states_done = 0


@dataclass(slots=True)
class Rest:
    """What an env, or a lane, did since its last episode's end.

    Attributes:
        first: its first row of steps in the current segment.
        done: up to which row the checksums reach.
        crcs: one a column.
    """

    first: int
    done: int
    crcs: list[int]

    @classmethod
    def since(cls, row: int, n_columns: int) -> Rest:
        """Returns one without a step."""
        return cls(row, row, [0] * n_columns)


class Heap:
    """The bytes that one commit adds to the heap."""

    def __init__(self, first: int) -> None:
        self._first, self.data = first, bytearray()

    def add(self, data: bytes) -> tuple[int, int, int]:
        """Returns the reference (offset, length, crc) to bytes that it appends."""
        offset = self._first + len(self.data)
        self.data += data
        return offset, len(data), crc32(data)

    def column(self, entries: Sequence[bytes]) -> np.ndarray:
        """Returns one reference an entry."""
        return np.array([self.add(entry) for entry in entries], layout.REF)


_CHARS = {"u1": "B", "u4": "I", "i4": "i", "u8": "Q", "i8": "q", "f8": "d"}


def sealed(packed: bytes) -> bytes:
    """Returns a packed row with its last field, `crc`, set to the CRC-32 of all the bytes before it."""
    body = packed[:-4]
    return body + crc32(body).to_bytes(4, "little")


@cache
def row_packer(dtype: np.dtype[Any]) -> Callable[..., bytes]:
    """Returns what packs a compound's fields, into a row; by field names it costs ten times as much."""
    return struct.Struct("<" + "".join(_chars(dtype[name]) for name in dtype.names or ())).pack


def _chars(dtype: np.dtype[Any]) -> str:
    if dtype.subdtype is not None:
        return _chars(dtype.subdtype[0]) * math.prod(dtype.subdtype[1])
    if dtype.names is not None:
        return "".join(_chars(dtype[name]) for name in dtype.names)
    return _CHARS[dtype.str[1:]]


def as_float(value: object) -> float:
    """Returns a reward or a sum of them as float64, NaN where it is no single number."""
    if type(value) is float:
        return value
    try:
        return float(np.asarray(value, np.float64).reshape(()))
    except (TypeError, ValueError, OverflowError):
        return math.nan
