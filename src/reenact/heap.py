"""The bytes that heap references point to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from zlib import crc32

import numpy as np

from reenact import layout
from reenact.errors import DamagedError

if TYPE_CHECKING:
    from reenact.hdf5 import Hdf5File

_MAX_BLOB = 1 << 28
_SPAN = 1 << 24
"""Bytes read together, at most."""
Array = np.ndarray[Any, Any]


def blob(file: Hdf5File, ref: np.void) -> bytes:
    """Reads what a heap reference points to.

    Raises:
        DamagedError: it lies outside the heap, or its CRC fails.
    """
    offset, length = int(ref["offset"]), int(ref["length"])
    if length == 0:
        return b""
    if length > _MAX_BLOB:
        raise DamagedError(f"{file.path}: a heap reference of {length} bytes")
    data = file.read(layout.HEAP, offset, length).tobytes()
    if crc32(data) != int(ref["crc"]):
        raise DamagedError(f"{file.path}: bytes {offset} to {offset + length} of the heap are damaged")
    return data


def blobs(file: Hdf5File, refs: Array) -> list[bytes | None]:
    """Reads what references point to, those that lie close to each other in one go; None for what is damaged."""
    if len(refs) > 1:
        offsets, lengths = refs["offset"].astype(np.int64), refs["length"].astype(np.int64)
        begin, end = int(offsets.min()), int((offsets + lengths).max())
        if end - begin > _SPAN:
            half = len(refs) // 2
            return blobs(file, refs[:half]) + blobs(file, refs[half:])
        try:
            data = file.read(layout.HEAP, begin, end - begin).tobytes() if begin >= 0 else b""
        except DamagedError:
            data = b""
        if data:
            places = zip((offsets - begin).tolist(), lengths.tolist(), refs["crc"].tolist(), strict=True)
            parts = ((data[at : at + length], crc) for at, length, crc in places)
            return [part if crc32(part) == crc else None for part, crc in parts]
    found: list[bytes | None] = []
    for ref in refs:
        try:
            found.append(blob(file, ref))
        except DamagedError:
            found.append(None)
    return found
