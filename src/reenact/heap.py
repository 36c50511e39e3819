"""The bytes that heap references point to."""

from __future__ import annotations

from typing import TYPE_CHECKING
from zlib import crc32

from reenact import layout
from reenact.errors import DamagedError

if TYPE_CHECKING:
    import numpy as np

    from reenact.hdf5 import Hdf5File

_MAX_BLOB = 1 << 28


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
