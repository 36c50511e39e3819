"""Frames to a video, as a stream at constant memory: every frame once, in order, or no video at all.

Frames go to the ffmpeg that MoviePy's ``FFMPEG_VideoWriter`` starts, into a hidden partial file or folder. A video gets
its title, its comment and its name only when ffmpeg's exit code and the number of stored frames are right. MoviePy's
writer itself checks nothing: neither shape nor type nor size of a frame, nor how ffmpeg ended.
"""

from __future__ import annotations

import errno
import functools
import os
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from reenact import container, ffmpeg, naming, partials
from reenact.errors import VideoError, VideoExistsError
from reenact.feed import Feed

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Mapping
    from types import TracebackType

    import numpy.typing as npt

    from reenact.encoding import Encoding

_KEPT_FRAMES, _MOST_KEPT_BYTES = 8, 31 << 20  # more than an env frees with a frame; within what malloc takes up
_ENDED = (errno.EPIPE,) if os.name == "posix" else (errno.EPIPE, errno.EINVAL)  # what a pipe without a reader says
_LATE_FRAMES = 50  # more than ffmpeg's start makes late
_CLOSE_TIMEOUT_S = 600.0  # what remains to encode at the end is a pipe's worth and x264's lookahead


class VideoWriter:
    """Encodes one video while its frames are made; a context manager that leaves a whole video or nothing.

    Args:
        folder: Where the partial file grows; made if missing.
        encoding: How to encode.
        title: The title that the video will have, as far as is known: under another one it is copied in the end.

    Attributes:
        encoding: As given.
        frames: Number of frames written.

    Raises:
        VideoError: ``folder`` can't be made or written, or there is no temporary file for what ffmpeg says.
    """

    def __init__(self, folder: Path, encoding: Encoding, title: str = "") -> None:
        self.encoding = encoding
        self.frames = 0
        self._pid = os.getpid()
        self._open = True
        self._shape: tuple[int, ...] | None = None
        self._only_colour: npt.NDArray[Any] | None = None  # while all pixels so far are of one colour
        self._feed: Feed | None = None
        self._proc: subprocess.Popen[bytes] | None = None
        self._bound = True  # to other cores than ours
        try:
            self._log = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115 - see abandon
        except OSError as error:
            message = f"no temporary file can be made ({error.strerror}): check TMPDIR, disk space and open files"
            raise VideoError(message) from error
        self._room = container.Room(title) if encoding.format == "mp4" else None
        self._partials: list[Path] = []
        try:
            self._encoded = self._new(folder, f".{encoding.carrier}")
        except VideoError:
            self._log.close()
            raise

    def write(self, frame: npt.NDArray[Any], *, over: npt.NDArray[Any] | None = None) -> None:
        """Appends a frame.

        Args:
            frame: as it was rendered: uint8 of shape (height, width, 3), RGB, the same size as the first one's.
            over: what is shown of it, to be encoded instead; of one size, which may be another than the frame's.

        Raises:
            VideoError: The frame is anything else, ffmpeg ended early, or the writer is closed.
        """
        self._require_open()
        shape = check_frame(frame)
        shown = frame if over is None else over
        if self._shape is None:
            self._start(check_frame(shown))
            _keep_memory(frame.nbytes)
            self._shape = shape
            self._only_colour = frame[0, 0].copy()
        elif shape != self._shape:
            raise VideoError(
                f"frame {self.frames} is {shape[1]}x{shape[0]}, expected {self._shape[1]}x{self._shape[0]} "
                "(width x height) like the first: make the env render at one size"
            )
        try:
            assert self._feed is not None  # noqa: S101  # for mypy: it was started
            self._feed.put(shown)
        except BaseException as error:  # part of a frame may be in the pipe: all later ones would be shifted
            message = self._why_not_taken(error)
            self.abandon()
            if message is not None:
                raise VideoError(message) from error
            raise
        self.frames += 1
        if self._bound and self._proc is not None and self._feed.late > _LATE_FRAMES:
            ffmpeg.unbind(self._proc)
            self._bound = False
        if self._only_colour is not None and _shows_another(frame, self._only_colour):
            self._only_colour = None  # and no later frame is looked at

    def finish(
        self,
        path: Path,
        *,
        title: str,
        comment: Mapping[str, object],
        overwrite: bool,
        entered: Callable[[Path], None] = lambda _: None,
    ) -> None:
        """Completes the video, checks it, puts it in its place in one step; closes the writer in any case.

        Args:
            path: The video's name; its folder is made if missing.
            title: The title in the video's metadata.
            comment: Stored as JSON in the metadata, see `container.complete`.
            overwrite: Whether to replace what is at ``path``.
            entered: Called with the complete video, just before it gets its name; what it raises leaves none.

        Raises:
            VideoExistsError: ``path`` exists and ``overwrite`` is false; it is untouched.
            VideoError: No frames, nothing drawn in any of them, ffmpeg failed, or frames are missing.
            TypeError: ``comment`` can't be expressed in JSON.
        """
        self._require_open()
        try:
            self._require_picture()
            self._end_stream()
            path = path.absolute()
            made = container.complete(
                self._encoded,
                self.encoding,
                title=title,
                comment=comment,
                frames=self.frames,
                room=self._room,
                new=functools.partial(self._new, path.parent),
            )
            entered(made)
            _place(made, path, overwrite=overwrite)
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Stops ffmpeg and removes what it wrote; does nothing after `finish` or a first call."""
        if self._pid != os.getpid():
            return
        self._open = False
        if self._proc is not None:
            self._proc.kill()  # before its pipe is closed: that flushes, which a full pipe would block
            self._proc.wait()
            if self._feed is None and self._proc.stdin is not None:  # something came between
                self._proc.stdin.close()
        if self._feed is not None:
            self._feed.close()
        self._log.close()
        for partial in self._partials:
            naming.remove(partial)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abandon()

    def _require_open(self) -> None:
        if not self._open or self._pid != os.getpid():
            raise VideoError("this video is finished or abandoned, or its parent process's: open another")

    def _new(self, folder: Path, ending: str) -> Path:
        """Makes a file, or a folder of frames, that goes with the writer."""
        try:
            partial = partials.make(folder, ending, as_folder=ending == ".frames")
        except OSError as error:
            message = f"cannot write videos into {folder} ({error.strerror}): choose another folder"
            raise VideoError(message) from error
        self._partials.append(partial)
        return partial

    def _start(self, shape: tuple[int, ...]) -> None:
        height, width, _ = shape
        moviepy_writer, binary = ffmpeg.moviepy()
        codec, preset, params = self.encoding.codec(height, width)
        # The later -loglevel wins: of MoviePy's "info" only the progress is wanted, which counts the frames.
        params += ["-hide_banner", "-loglevel", "error", "-nostats", "-progress", "pipe:2"]
        params += self._room.parameters if self._room is not None else []
        target = self._encoded
        if target.is_dir():
            target = Path(str(target).replace("%", "%%"), container.PICTURES)
        try:
            self._proc = moviepy_writer(
                str(target),
                (width, height),
                self.encoding.fps,
                codec=codec,
                preset=preset,
                threads=1,
                ffmpeg_params=params,
                logfile=self._log,  # a file: nobody reads along, so a pipe could fill and stop ffmpeg
            ).proc
        except (OSError, ValueError) as error:
            raise ffmpeg.cannot_start(binary, error) from error
        self._feed = Feed(ffmpeg.adopt(self._proc), height * width * 3, by_reference=ffmpeg.is_program(binary))

    def _require_picture(self) -> None:
        if self.frames == 0:
            raise VideoError("no frame was written, expected at least one: render before finishing the video")
        if self._only_colour is not None:
            raise VideoError(
                f"nothing was drawn: every pixel of all {self.frames} frames is "
                f"{tuple(self._only_colour.tolist())}; check the env's render(), and unset "
                "SDL_VIDEODRIVER=dummy if it is set"
            )

    def _end_stream(self) -> None:
        proc, feed = self._proc, self._feed
        assert proc is not None is not feed  # noqa: S101  # for mypy: frames were written
        feed.close()
        late = threading.Event()

        def end() -> None:
            late.set()
            proc.kill()

        # not `wait(timeout)`, which asks now and then: for as long as a short video takes to encode
        limit = threading.Timer(_CLOSE_TIMEOUT_S, end)
        limit.daemon = True
        limit.start()
        try:
            code = proc.wait()
        finally:
            limit.cancel()
        if late.is_set():
            raise VideoError(
                f"ffmpeg had not finished {_CLOSE_TIMEOUT_S:.0f} s after the last frame; no video was kept: "
                "try a faster preset"
            )
        if code:
            raise VideoError(self._how_ffmpeg_ended())
        self._log.seek(0)
        container.check_count(ffmpeg.stored_frames(self._log.read()), self.frames)

    def _why_not_taken(self, error: BaseException) -> str | None:
        """Says why ffmpeg was not given a frame; None: the error is not the system's, as one of a signal handler."""
        if not isinstance(error, OSError) or error.errno is None:
            return None
        if error.errno in _ENDED:
            return self._how_ffmpeg_ended()
        return f"ffmpeg can't be given frame {self.frames} ({error.strerror}); no video was kept: check memory"

    def _how_ffmpeg_ended(self) -> str:
        assert self._proc is not None  # noqa: S101  # for mypy: it was started
        code = self._proc.wait()
        self._log.seek(0)
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        return (
            f"ffmpeg {how} at about frame {self.frames}; no video was kept: check memory, disk space and the "
            f"encoding ({ffmpeg.first_words(self._log.read())})"
        )


def _keep_memory(frame_bytes: int) -> None:
    """Has the C library keep what each frame frees for the next one.

    glibc gives memory back to the system once more than a limit is free at its end, which two frames may be: then
    each frame is drawn into 260 fresh pages, for a fifth of the time that LunarLander's take. To free a larger piece
    raises the limit to twice that piece's size, for pieces up to 32 MiB (malloc's "dynamic mmap threshold").
    """
    np.empty(min(_KEPT_FRAMES * frame_bytes, _MOST_KEPT_BYTES), np.uint8)


def check_frame(frame: object) -> tuple[int, int, int]:
    """Returns the shape of a frame: height, width, 3.

    Raises:
        VideoError: it is no uint8 array of such a shape.
    """
    if not isinstance(frame, np.ndarray):
        found = f"a {type(frame).__name__}"
    elif frame.dtype != np.uint8 or frame.shape[2:] != (3,) or frame.size == 0:
        found = f"{frame.dtype} of shape {frame.shape}"
    else:
        height, width = frame.shape[:2]
        return height, width, 3
    raise VideoError(
        f"expected a frame as a uint8 array of shape (height, width, 3), found {found}: "
        'make the env with render_mode="rgb_array"'
    )


def _shows_another(frame: npt.NDArray[Any], colour: npt.NDArray[Any]) -> bool:
    """Whether a frame has any pixel of another colour; most show it at a glance."""
    return bool((frame[::16, ::16] != colour).any() or (frame != colour).any())


def _place(partial: Path, path: Path, *, overwrite: bool) -> None:
    if overwrite and partial.is_dir() and path.is_dir():
        other = next((one.name for one in path.iterdir() if not container.is_of_frames(one)), None)
        if other is not None:
            raise VideoError(f"{path} is a folder with more than frames in it ({other}) and was left as it is: move it")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        naming.give_name(partial, path, overwrite=overwrite)
    except FileExistsError as error:
        message = f"{path} exists and was left as it is: choose another name, or overwrite"
        raise VideoExistsError(message) from error
    except OSError as error:
        message = f"cannot name the video {path} ({error.strerror}): choose another name"
        raise VideoError(message) from error
