"""What is put into a pipe comes out of it, whoever reads how: by os.read alone."""

import contextlib
import fcntl
import mmap
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decoding import noise
from reenact import feed as feed_room
from reenact.feed import Feed


class Reader:
    """Reads all that comes, in pieces of some sizes, and waits between them; a thread."""

    def __init__(self, pieces: list[int], wait_s: float = 0.0) -> None:
        self._read, written = os.pipe()
        self.pipe = os.fdopen(written, "wb")
        self._pieces, self._wait_s = pieces, wait_s
        self._got: list[bytes] = []
        self._thread = threading.Thread(target=self._run)
        self.start = self._thread.start

    def _run(self) -> None:
        count = 0
        while piece := os.read(self._read, self._pieces[count % len(self._pieces)]):
            self._got.append(piece)
            count += 1
            time.sleep(self._wait_s)
        os.close(self._read)

    def all(self) -> bytes:
        """What came, once the pipe has ended."""
        self._thread.join()
        return b"".join(self._got)


def fed(reader: Reader, frames: Any, *, by_reference: bool = True, late: bool = False) -> bytes:
    """What a reader gets of frames that are blackened as soon as they were put; late, it begins when all were."""
    feed = Feed(reader.pipe, frames[0].nbytes, by_reference=by_reference)
    if not late:
        reader.start()
    for frame in frames:
        own = frame.copy()
        feed.put(own)
        own[:] = 0
    feed.close()
    if late:
        reader.start()
    return reader.all()


@pytest.mark.parametrize("by_reference", [True, False])
@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(1, 400),
    width=st.integers(1, 500),
    count=st.integers(1, 12),
    pieces=st.lists(st.integers(1 << 10, 1 << 20), min_size=1, max_size=5),
)
def test_all_comes_out_as_it_was_put(
    height: int, width: int, count: int, pieces: list[int], *, by_reference: bool
) -> None:
    """Frames of any size, which change right after, come out whole and in order, in pieces of any sizes."""
    frames = noise(count, height, width)
    assert fed(Reader(pieces), frames, by_reference=by_reference) == frames.tobytes()


def test_a_slow_reader_gets_no_later_frame() -> None:
    """While frames wait in the pipe, none of them is overwritten."""
    frames = noise(40, 250, 300)
    assert fed(Reader([50_000], 0.0002), frames) == frames.tobytes()


@pytest.mark.parametrize("size", [(1, 1), (20, 30), (48, 48), (100, 200)])
def test_what_a_full_pipe_holds_is_untouched(size: tuple[int, int]) -> None:
    """As many frames as a pipe holds can be put before anything is read."""
    reader = Reader([1 << 16])
    with contextlib.suppress(PermissionError):  # over the user's limit: it stays small
        fcntl.fcntl(reader.pipe, fcntl.F_SETPIPE_SZ, 1 << 20)
    page = mmap.PAGESIZE
    stride = -(-size[0] * size[1] * 3 // page) * page
    frames = noise(max(1, fcntl.fcntl(reader.pipe, fcntl.F_GETPIPE_SZ) // stride), *size)
    assert fed(reader, frames, late=True) == frames.tobytes()


def test_where_nothing_was_read_frames_are_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe that tells of more than it was given has no place used, and loses nothing."""
    frames = noise(30, 100, 100)
    assert feed_room._splices()  # noqa: SLF001 - by real pipes
    monkeypatch.setattr(feed_room, "_waiting", lambda _: 1 << 40)
    monkeypatch.delattr(os, "splice")
    assert fed(Reader([1 << 16]), frames) == frames.tobytes()


@pytest.mark.parametrize("view", [lambda a: a[::-1], lambda a: a[:, ::2], lambda a: a.transpose(1, 0, 2)])
@pytest.mark.parametrize("by_reference", [True, False])
def test_a_view_comes_out_as_it_looks(view: Callable[[np.ndarray], np.ndarray], *, by_reference: bool) -> None:
    """A frame need not lie in one piece."""
    frames = [view(frame) for frame in noise(5, 200, 300)]
    assert fed(Reader([1 << 16]), frames, by_reference=by_reference) == b"".join(frame.tobytes() for frame in frames)


@pytest.mark.parametrize("by_reference", [True, False])
def test_a_reader_that_ended_is_an_error(*, by_reference: bool) -> None:
    """Nobody at the other end: the frame is refused, and closing is none the less possible."""
    read, written = os.pipe()
    feed = Feed(os.fdopen(written, "wb"), 30_000, by_reference=by_reference)
    os.close(read)
    with pytest.raises(BrokenPipeError):
        feed.put(noise(1, 100, 100)[0])
    feed.close()
    feed.close()


def test_nothing_is_left_of_it() -> None:
    """Its memory and its descriptors are given back, and pages are what it is made of here."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    reader = Reader([1 << 16])
    feed = Feed(reader.pipe, 30_000, by_reference=True)
    assert "/memfd:frames" in Path("/proc/self/maps").read_text(encoding="utf-8")
    reader.start()
    feed.close()
    reader.all()
    assert "/memfd:frames" not in Path("/proc/self/maps").read_text(encoding="utf-8")
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.mark.parametrize("by_reference", [True, False])
@pytest.mark.parametrize("frame", [noise(1, 100, 101)[0], noise(1, 99, 100)[0], np.zeros((100, 100, 3), np.uint16)])
def test_a_frame_of_another_size_is_refused(frame: Any, *, by_reference: bool) -> None:
    """It would shift all that follow."""
    reader = Reader([1 << 16])
    feed = Feed(reader.pipe, 30_000, by_reference=by_reference)
    reader.start()
    with pytest.raises(ValueError, match="expected 30000"):
        feed.put(frame)
    feed.close()
    assert reader.all() == b""


@pytest.mark.parametrize("by_reference", [True, False])
def test_it_tells_how_often_the_reader_was_behind(*, by_reference: bool) -> None:
    """Each frame but the first comes before all was read, where nothing is."""
    reader = Reader([1 << 16])
    feed = Feed(reader.pipe, 3000, by_reference=by_reference)
    for frame in noise(5, 20, 50):
        feed.put(frame)
    assert feed.late == 4
    reader.start()
    feed.close()
    reader.all()
