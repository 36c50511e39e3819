"""What a re-execution hands to whoever makes a video of it, and a place on disk for it to wait in."""

from __future__ import annotations

import contextlib
import itertools
import json
import tempfile
import zlib
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, Protocol

import numpy as np

from reenact.errors import VideoError
from reenact.terminal import extent
from reenact.video import check_frame

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@dataclass(frozen=True, eq=False)
class Scene:
    """Frames [first, end) of an episode, which a video shows in one go.

    Attributes:
        name: what the episode is called: its number, else its address.
        first: the first frame; 0 is the reset's.
        end: the one after the last.
        rewards: the episode's, as logged; one a step.
        render_fps: the rate that its env says its frames have.
    """

    name: str
    first: int
    end: int
    rewards: np.ndarray[Any, Any]
    render_fps: float


@dataclass(frozen=True, slots=True)
class Shot:
    """One frame of a scene.

    Attributes:
        frame: as it was rendered: an array, or text.
        at: which one of its episode.
        marked: whether it can't be trusted.
    """

    frame: np.ndarray[Any, Any] | str
    at: int
    marked: bool


class Sink(Protocol):
    """Takes the shots of one scene after another."""

    def begin(self, scene: Scene) -> None:
        """Its shots follow."""

    def take(self, shot: Shot) -> None:
        """One more, in order."""

    def end(self) -> None:
        """They were all."""


class Spool:
    """The shots of one scene or of several, on disk until they are read, in order; a sink.

    Frames are kept as what changed since the one before, deflated: to the bit, and at constant memory.

    Args:
        folder: where the file lies; it has no name there, and is gone with the spool.

    Attributes:
        scene: what was begun last.
        size: (height, width) of its first picture; None: it has none.
        extent: the most (lines, columns) that its texts have; None: it has none.

    Raises:
        VideoError: the folder can't be written.
    """

    scene: Scene

    def __init__(self, folder: Path) -> None:
        self.size: tuple[int, int] | None = None
        self.extent: tuple[int, int] | None = None
        self._count = 0
        self._begun: list[tuple[Scene, int]] = []  # and how many shots were there before
        self._before: np.ndarray[Any, Any] | None = None
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file: IO[bytes] = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  # closed by `close`
        except OSError as error:
            raise VideoError(f"cannot write videos into {folder} ({error.strerror}): choose another folder") from error

    def __len__(self) -> int:
        return self._count

    def begin(self, scene: Scene) -> None:
        """Its shots follow."""
        self.scene = scene
        self._begun.append((scene, self._count))

    def take(self, shot: Shot) -> None:
        """Keeps one.

        Raises:
            VideoError: it is no frame, or the disk is full.
        """
        if isinstance(shot.frame, str):
            lines, columns = extent(shot.frame)
            most = self.extent or (0, 0)
            self.extent = max(most[0], lines), max(most[1], columns)
            shape, follows, kept = None, False, shot.frame.encode("utf-8", "surrogatepass")
        else:
            height, width, _ = check_frame(shot.frame)
            self.size = self.size or (height, width)
            shape, (follows, kept) = shot.frame.shape, self._changed(shot.frame)
        head = json.dumps([shot.at, shot.marked, shape, follows, len(kept)]).encode()
        with _told():
            self._file.write(head + b"\n" + kept)
        self._count += 1

    def _changed(self, frame: np.ndarray[Any, Any]) -> tuple[bool, bytes]:
        """Returns whether it is kept as what changed since the one before, and what is kept."""
        change = frame
        follows = self._before is not None and self._before.shape == frame.shape
        if follows:
            change = frame ^ self._before
        self._before = frame.copy()
        return follows, zlib.compress(change.tobytes(), 1)

    def end(self) -> None:
        """They were all.

        Raises:
            VideoError: the disk is full.
        """
        self._before = None
        with _told():
            self._file.flush()

    def __iter__(self) -> Iterator[Shot]:
        """Yields them as they were; one reader at a time."""
        self._file.seek(0)
        before: np.ndarray[Any, Any] | None = None
        for _ in range(self._count):
            at, marked, shape, follows, length = json.loads(self._file.readline())
            kept = self._file.read(length)
            if shape is None:
                yield Shot(kept.decode("utf-8", "surrogatepass"), at, marked)
                continue
            frame = np.frombuffer(bytearray(zlib.decompress(kept)), np.uint8).reshape(shape)
            if follows:
                frame ^= before
            before = frame
            yield Shot(frame, at, marked)

    def scenes(self) -> Iterator[tuple[Scene, Iterator[Shot]]]:
        """Yields each scene with its shots, which are to be read before the next one's; one reader at a time."""
        shots = iter(self)
        ends = [first for _, first in self._begun[1:]] + [self._count]
        for (scene, first), end in zip(self._begun, ends, strict=False):  # where nothing was begun there is an end more
            yield scene, itertools.islice(shots, end - first)

    def close(self) -> None:
        """Drops them."""
        with contextlib.suppress(OSError):  # a full disk, which has been told
            self._file.close()


@contextlib.contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise VideoError(f"cannot keep frames on disk until all are there ({error.strerror}): make room") from error
