"""ffmpeg: MoviePy's writer that feeds it, its binary, its pipe, and what it says."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import subprocess
import sys
import threading
import weakref
from typing import IO, TYPE_CHECKING, Any

from reenact.errors import VideoError

if TYPE_CHECKING:
    from pathlib import Path

_PIPE_BYTES = 1 << 20  # the default, 64 KiB, blocks Python on each frame, for a fifth of the time

_PROGRESS = re.compile(r"\w+=")

_import_lock = threading.Lock()
_pipes: weakref.WeakSet[IO[bytes]] = weakref.WeakSet()


def _leave_pipes_to_parent() -> None:
    """Keeps a forked child from writing to its parent's ffmpeg, and from holding its pipe open at the end."""
    for pipe in _pipes:
        if not pipe.closed:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, pipe.fileno(), inheritable=False)
            os.close(null)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_pipes_to_parent)


@functools.cache
def moviepy() -> tuple[Any, str]:
    """Returns MoviePy's writer class and the path of its ffmpeg.

    Raises:
        VideoError: there is no ffmpeg.
    """
    # MoviePy's import loads any .env above it, or above the working directory, into os.environ: a file that
    # happens to lie there would choose by FFMPEG_BINARY what runs. Without dotenv, MoviePy loads none.
    with _import_lock:
        dotenv = sys.modules.get("dotenv")
        sys.modules["dotenv"] = None  # type: ignore[assignment]
        try:
            from moviepy.config import FFMPEG_BINARY  # noqa: PLC0415 - 230 ms that training doesn't need
            from moviepy.video.io.ffmpeg_writer import FFMPEG_VideoWriter  # noqa: PLC0415
        except (ImportError, OSError, RuntimeError) as error:
            message = f"MoviePy found no ffmpeg ({error}): install imageio-ffmpeg, or set FFMPEG_BINARY"
            raise VideoError(message) from error
        finally:
            del sys.modules["dotenv"]
            if dotenv is not None:
                sys.modules["dotenv"] = dotenv
    return FFMPEG_VideoWriter, FFMPEG_BINARY


def adopt_pipe(pipe: Any) -> None:
    """Makes a pipe to ffmpeg large, and this process's alone."""
    _pipes.add(pipe)
    with contextlib.suppress(ImportError, AttributeError, OSError):  # not on Linux, or over the user's limit
        import fcntl  # noqa: PLC0415 - Windows has none

        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)


def source(path: Path, kind: str) -> tuple[str, ...]:
    """Returns the arguments that read a video: an "mp4" or a "webm", and nothing else that it may look like."""
    # "file:": a colon in the name is no protocol.
    return ("-f", {"mp4": "mov", "webm": "matroska"}[kind], "-i", f"file:{path}")


def output(*arguments: str) -> str:
    """Runs ffmpeg to its end, and returns what it wrote to stdout.

    Raises:
        VideoError: it can't be started, or fails.
    """
    binary = moviepy()[1]
    command = [binary, "-nostdin", "-hide_banner", "-loglevel", "error", "-nostats", *arguments]
    try:
        done = subprocess.run(  # noqa: S603 - no shell, and every path comes as file:
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            encoding="utf-8",
            errors="replace",
        )
    except (OSError, ValueError) as error:
        raise cannot_start(binary, error) from error
    if done.returncode:
        raise VideoError(f"ffmpeg ended with exit code {done.returncode}: {first_words(done.stderr)}")
    return done.stdout


def cannot_start(binary: str, error: Exception) -> VideoError:
    """Returns the error that says so."""
    return VideoError(f"cannot start ffmpeg ({error}): check that {binary} runs")


def stored_frames(progress: str) -> int:
    """Returns how many frames ffmpeg has stored, as it says at its end."""
    return int(re.findall(r"^frame=\s*(\d+)", progress, re.MULTILINE)[-1])


def first_words(log: str) -> str:
    """Returns what ffmpeg says went wrong."""
    # At "-loglevel error" the first line is the cause; those after it tell what else then didn't happen.
    lines = [line for line in log.splitlines() if line.strip() and not _PROGRESS.match(line)]
    if not lines:
        return "it says nothing"
    return "it says: " + re.sub(r"^(\[.*?\] )+", "", lines[0]).strip()
