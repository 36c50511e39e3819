"""Frames into ffmpeg's pipe: as pages of memory that it refers to, where the system can do that."""

from __future__ import annotations

import contextlib
import functools
import mmap
import os
import sys
from typing import IO, TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

if sys.platform == "linux":
    import fcntl
    import termios

_PIPE_BYTES = 1 << 20  # the default, 64 KiB, blocks Python on each frame, for a fifth of the time
_INT_BYTES = 4


class Feed:
    """Takes frames of one size, one after another, from one thread.

    On Linux a frame is copied into memory of the feed's own, to whose pages the pipe then refers (`splice`): two thirds
    of a write, for which the kernel finds new pages each time. What ffmpeg has not read yet is never touched: a frame
    goes to a place from which, as the pipe tells, everything was read. There are more places than the pipe can fill.

    Args:
        pipe: ffmpeg reads its other end; made larger, and closed with the feed.
        frame_bytes: the size of each frame.
        by_reference: whether whoever reads the pipe takes in what it reads; if not, frames are written.

    Attributes:
        late: how often a frame came before all that was put had been read, as far as is known.
    """

    def __init__(self, pipe: IO[bytes], frame_bytes: int, *, by_reference: bool) -> None:
        self.late = 0
        self._pipe, self._frame_bytes = pipe, frame_bytes
        self._put = 0
        self._places: list[npt.NDArray[np.uint8]] = []
        self._memory: IO[bytes] | None = None
        self._stride = -(-frame_bytes // mmap.PAGESIZE) * mmap.PAGESIZE  # no two frames share a page
        self._capacity = _enlarge(pipe)
        if self._capacity and by_reference and _splices():
            count = self._capacity // self._stride + 2  # of one it may hold the end, of another the beginning
            with contextlib.suppress(OSError):  # no memory or no descriptor is left: frames are written
                self._memory = os.fdopen(os.memfd_create("frames"), "r+b", buffering=0)
                os.posix_fallocate(self._memory.fileno(), 0, count * self._stride)
                mapped = np.frombuffer(mmap.mmap(self._memory.fileno(), count * self._stride), np.uint8)
                self._places = [mapped[at * self._stride :][:frame_bytes] for at in range(count)]
        self._ends = [0] * len(self._places)
        """By place, how much had been put into the pipe when its frame was in it."""

    def put(self, frame: npt.NDArray[np.uint8]) -> None:
        """Puts a frame into the pipe; it may change afterwards.

        Raises:
            OSError: ffmpeg has ended.
            ValueError: the frame is not of that size.
        """
        if frame.nbytes != self._frame_bytes:
            raise ValueError(
                f"a frame of {frame.nbytes} bytes, expected {self._frame_bytes}: all later ones would be shifted"
            )
        waiting = _waiting(self._pipe) if self._capacity else 0
        self.late += waiting > 0
        read = self._put - waiting
        at = next((at for at, end in enumerate(self._ends) if end <= read), None)
        self._put += frame.nbytes
        if at is None:
            self._pipe.write(np.ascontiguousarray(frame).data)
            self._pipe.flush()
        else:
            self._ends[at] = self._put
            self._refer(at, frame)

    def _refer(self, at: int, frame: npt.NDArray[np.uint8]) -> None:
        assert self._memory is not None  # noqa: S101  # for mypy: there are places
        np.copyto(self._places[at].reshape(frame.shape), frame)
        begin, end = at * self._stride, at * self._stride + frame.nbytes
        while begin < end:
            begin += os.splice(self._memory.fileno(), self._pipe.fileno(), end - begin, offset_src=begin)

    def close(self) -> None:
        """Ends what ffmpeg reads, and gives back the memory, each page once it is read; once or more."""
        with contextlib.suppress(OSError):  # of a dead ffmpeg, whose exit code says more
            self._pipe.close()
        self._places, self._ends = [], []
        if self._memory is not None:
            self._memory.close()


def _enlarge(pipe: IO[bytes]) -> int:
    """Returns how many bytes a pipe holds, made larger where that can be; 0: nobody knows."""
    if sys.platform != "linux":
        return 0
    with contextlib.suppress(OSError, AttributeError):  # over the user's limit, or built where nobody knew it
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    with contextlib.suppress(OSError, AttributeError):
        return fcntl.fcntl(pipe, fcntl.F_GETPIPE_SZ)
    return 0


def _waiting(pipe: IO[bytes]) -> int:
    """Returns how many bytes are in a pipe."""
    told = fcntl.ioctl(pipe.fileno(), termios.FIONREAD, bytes(_INT_BYTES))
    return int.from_bytes(told, sys.byteorder)


@functools.cache
def _splices() -> bool:
    """Whether a pipe can refer to pages of memory here, and tells what is in it: a sandbox may know no such calls."""
    try:
        with os.fdopen(os.memfd_create("probe"), "r+b", buffering=0) as memory:
            memory.write(b"?")
            read, written = os.pipe()
            with os.fdopen(read, "rb", buffering=0) as output, os.fdopen(written, "wb", buffering=0) as pipe:
                given = os.splice(memory.fileno(), pipe.fileno(), 1, offset_src=0)
                return given == _waiting(pipe) == 1 and output.read(1) == b"?" and _waiting(pipe) == 0
    except (OSError, AttributeError):
        return False
