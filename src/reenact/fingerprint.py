"""A 32-bit checksum of an observation of any space.

Contract: two observations have the same fingerprint if they agree in type, dtype, shape and every bit
(-0.0 differs from 0.0, and a NaN equals itself); otherwise they differ but for one chance in 2**32.
The memory layout of an array does not count. Dicts count by key, in whatever order they were filled.
Objects that are neither numbers, strings, arrays nor containers count by their type alone, since their
`repr` may hold an address.

Small observations have a running checksum besides: it begins as the fingerprint of the reset's observation, and
each step's bytes are folded in, so that where two agree, all observations up to there did. Of 1,607 changes to
real logs, single checksums every 32 steps missed 60, and running ones none (tools/mutate_log.py).
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Mapping, Sequence
from typing import Any
from zlib import crc32

import numpy as np
from gymnasium import spaces

SMALL = 4096
"""Bytes of an observation up to which every one is folded in: that takes 0.1 µs for 16 bytes, 0.6 for 4 kB."""
_HEADERS_KEPT = 256
_headers: dict[tuple[np.dtype[np.generic], tuple[int, ...]], int] = {}


def fingerprint(observation: object) -> int:
    """Returns the checksum (0 <= checksum < 2**32) of an observation."""
    if type(observation) is np.ndarray:  # nearly always, and of a dtype and shape seen before
        header = _headers.get((observation.dtype, observation.shape))
        if header is not None and observation.flags.c_contiguous:
            return crc32(observation, header)  # type: ignore[arg-type]  # arrays are buffers, not to NumPy's stubs
    return _checksum(observation, 0)


def beginning(observation: np.ndarray | np.generic) -> int:
    """Returns the checksum that an array's bytes go on with: that of what it is."""
    return _header(np.asarray(observation), crc32(b"scalar") if isinstance(observation, np.generic) else 0)


def is_small(space: spaces.Space[Any]) -> bool:
    """Whether all observations of a space are cheap enough for a running checksum."""
    if isinstance(space, spaces.Discrete):
        return True
    if not isinstance(space, spaces.Box | spaces.MultiDiscrete | spaces.MultiBinary):
        return False
    return bool(np.prod(space.shape, dtype=np.int64) * np.dtype(space.dtype).itemsize <= SMALL)


def frozen(observation: object) -> bytes | int:
    """Returns what a running checksum keeps of an observation: nothing that the env could change afterwards."""
    if isinstance(observation, np.ndarray | np.generic) and not observation.dtype.hasobject:
        return observation.tobytes()
    if type(observation) is int and -(2**63) <= observation < 2**63:
        return observation
    return fingerprint(observation)


def fold(running: int, observed: Sequence[bytes | int]) -> int:
    """Folds observations, as `frozen` gave them, into a running checksum; one by one or all at once is the same."""
    try:
        if observed and type(observed[0]) is bytes:
            return crc32(b"".join(observed), running)  # type: ignore[arg-type]  # raises where one is no bytes
        ints = array("q", observed)  # type: ignore[type-var]  # raises where one is no int
        if sys.byteorder == "big":
            ints.byteswap()
        return crc32(ints, running)
    except TypeError:  # bytes and ints together
        for item in observed:
            running = crc32(item if isinstance(item, bytes) else item.to_bytes(8, "little", signed=True), running)
        return running


def _checksum(value: object, start: int) -> int:  # noqa: C901, PLR0911  # one case after another
    if type(value) is np.ndarray and value.dtype.hasobject is False:
        return _array(value, start)
    if isinstance(value, np.ndarray):
        if value.dtype.hasobject:
            return _sequence("objects", value.tolist(), start)
        return _array(np.asarray(value), start)
    if isinstance(value, np.generic):
        return _array(np.asarray(value), crc32(b"scalar", start))
    if value is None or isinstance(value, bool | int | float | complex | str):
        return crc32(f"{type(value).__name__}:{value!r}".encode("utf-8", "surrogatepass"), start)
    if isinstance(value, bytes | bytearray | memoryview):
        return crc32(value, crc32(b"bytes", start))
    if isinstance(value, Mapping):
        parts = sorted((_checksum(key, 0), _checksum(item, 0)) for key, item in value.items())
        return crc32(repr(parts).encode(), crc32(b"dict", start))
    if isinstance(value, set | frozenset):
        return crc32(repr(sorted(_checksum(item, 0) for item in value)).encode(), crc32(b"set", start))
    if isinstance(value, tuple | list):
        return _sequence(type(value).__name__, value, start)
    if hasattr(value, "__array__"):  # LazyFrames, torch and jax tensors
        return _array(np.asarray(value), crc32(type(value).__name__.encode(), start))
    return crc32(f"object:{type(value).__qualname__}".encode(), start)


def _sequence(name: str, items: list[object] | tuple[object, ...], start: int) -> int:
    crc = crc32(f"{name}:{len(items)}".encode(), start)
    for item in items:
        crc = _checksum(item, crc)
    return crc


def _array(array: np.ndarray, start: int) -> int:
    header = _header(array, start)
    if not array.flags.c_contiguous:
        array = np.ascontiguousarray(array)
    # datetimes and strings offer no buffer to crc32; their bytes do
    data: Any = array if array.dtype.kind in "biufc" else array.tobytes()
    return crc32(data, header)


def _header(array: np.ndarray, start: int) -> int:
    key = (array.dtype, array.shape)
    header = _headers.get(key)
    if header is None:
        header = crc32(f"array:{array.dtype.str}{array.dtype.descr if array.dtype.names else ''}{array.shape}".encode())
        # observations of ever new shapes must not fill the memory
        if array.dtype.kind in "biufc" and len(_headers) < _HEADERS_KEPT:
            _headers[key] = header
    if start:
        header = crc32(header.to_bytes(4, "little"), start)
    return header
