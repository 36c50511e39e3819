"""ffmpeg: MoviePy's writer that starts it, its binary, its pipe, and what it says."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import shutil
import subprocess
import sys
import threading
import weakref
from pathlib import Path
from typing import IO, Any

from reenact.errors import VideoError

_PROGRAM = b"\x7fELF"
_CORE = 36  # of the fields after the name, the one that tells on which a thread runs: proc(5), /proc/pid/stat
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
            try:
                return _imported()
            except RuntimeError:
                _look_anew()
                return _imported()
        except (ImportError, OSError, RuntimeError) as error:
            message = f"MoviePy found no ffmpeg ({error}): install imageio-ffmpeg, or set FFMPEG_BINARY"
            raise VideoError(message) from error
        finally:
            del sys.modules["dotenv"]
            if dotenv is not None:
                sys.modules["dotenv"] = dotenv


def _imported() -> tuple[Any, str]:
    from moviepy.config import FFMPEG_BINARY  # noqa: PLC0415 - training doesn't need it
    from moviepy.video.io.ffmpeg_writer import FFMPEG_VideoWriter  # noqa: PLC0415

    return FFMPEG_VideoWriter, FFMPEG_BINARY


def _look_anew() -> None:
    """Has imageio-ffmpeg forget that it found none: it tries the binary, and that may have been killed for memory."""
    with contextlib.suppress(ImportError, AttributeError):
        from imageio_ffmpeg import _utils  # noqa: PLC0415 - as above

        _utils._get_ffmpeg_exe.cache_clear()  # noqa: SLF001 - it can't be told otherwise


def adopt(process: Any) -> IO[bytes]:
    """Has the pipe to a new ffmpeg, which it returns, be this process's alone, and ffmpeg keep off this thread's core.

    What is put into a pipe wakes its reader up on the writer's core where no other is idle: with two cores, ffmpeg's
    five threads would interrupt the env in three of four frames, for 3 to 7 % of its time. A thread that is moved
    finds its old core idle, and ffmpeg can't follow it there.
    """
    pipe: IO[bytes] = process.stdin
    _pipes.add(pipe)
    if sys.platform == "linux":
        with contextlib.suppress(OSError, ValueError, IndexError):  # it has ended, or a sandbox tells no such thing
            stat = Path("/proc/thread-self/stat").read_text(encoding="utf-8", errors="replace")
            others = os.sched_getaffinity(0) - {int(stat.rpartition(")")[2].split()[_CORE])}
            if others:
                os.sched_setaffinity(process.pid, others)
    return pipe


def unbind(process: subprocess.Popen[bytes]) -> None:
    """Lets ffmpeg run on any core that this thread may use: where it is what all wait for, it needs more than one."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):  # as above
            for thread in Path(f"/proc/{process.pid}/task").iterdir():
                os.sched_setaffinity(int(thread.name), os.sched_getaffinity(0))


def is_program(binary: str) -> bool:
    """Whether that is no script: one in ffmpeg's place may pass on by reference what it has not read (`splice`)."""
    try:
        with Path(shutil.which(binary) or binary).open("rb") as file:
            return file.read(len(_PROGRAM)) == _PROGRAM
    except OSError:
        return False


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
