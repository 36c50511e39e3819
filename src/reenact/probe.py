"""A child process that tries files before this process opens them: where HDF5 hangs or crashes, it does so there.

The child stays for the next files, since starting one takes a tenth of a second and a file milliseconds; it ends
when it is idle, or this process ends.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from queue import Empty, Queue
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

START_S, PROBE_S = 60.0, 20.0
"""How long a child may take to start, and then to open each file."""
_IDLE_S = 15.0
"""How long one that is idle is taken for more files: it ends itself after twice that; no file must be blamed."""
_ENVIRON = {"OPENBLAS_NUM_THREADS": "1"}
"""Nothing is computed there: NumPy's threads, one a core, would cost a quarter of the start."""
_LANES = 4
"""How many children try files at once, after one has hung: each such file costs its child all of `PROBE_S`."""

_PROBE = """
import gc, json, sys
sys.path[:0] = json.loads(sys.stdin.readline())
gc.disable()  # an import leaves next to no garbage
import h5py, signal
gc.enable()
try:  # where damaged sizes claim any amount of memory, no more than this
    import resource
    with open("/proc/self/statm") as usage:
        limit = int(usage.read().split()[0]) * resource.getpagesize() + (3 << 28)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
except (ImportError, OSError, ValueError):
    pass
def opened(path):
    try:
        return h5py.File(path, "r", locking=False)
    except OSError as error:
        with open(path, "rb") as file:
            head = file.read(12)
        if "already open" not in str(error) and not (head[8:9] == b"\x03" and head[11] & 5):
            raise
    return h5py.File(path, "r", swmr=True, locking=False)
def visit(name, item):
    if isinstance(item, h5py.Dataset) and item.shape and item.shape[0] and not item.is_virtual and not item.external:
        if item.chunks:
            item.id.get_num_chunks()
        if item.size // item.shape[0] * item.dtype.itemsize < 1 << 27:
            item[item.shape[0] - 1]
print(json.dumps("ready"), flush=True)
while True:
    if hasattr(signal, "alarm"):
        signal.alarm(30)  # nobody asks
    line = sys.stdin.readline()
    if not line:
        break
    if hasattr(signal, "alarm"):
        signal.alarm(30)  # it hangs, and nobody is left to end it
    said = ""
    try:
        with opened(json.loads(line)) as file:
            file.visititems(visit)
            list(file.attrs.items())
    except Exception as error:
        said = str(error).strip().partition("\\n")[0] or type(error).__name__
    print(json.dumps(said), flush=True)
"""


class _Child:
    """One that is starting, is running, or has ended."""

    def __init__(self) -> None:
        self.pid, self._answers, self._last = os.getpid(), Queue[str](), time.monotonic()
        if not sys.executable or getattr(sys, "frozen", False):  # it would start the program anew, which would do so…
            raise OSError("this program does not come with a Python interpreter of its own")
        self._process = subprocess.Popen(  # noqa: S603  # our own interpreter, on our own code
            [sys.executable, "-I", "-c", _PROBE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=os.environ | _ENVIRON,
        )
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()
        self._tell([entry for entry in sys.path if isinstance(entry, str) and entry])
        self._starting, self._trouble = True, ""

    def _listen(self) -> None:
        assert self._process.stdout is not None  # noqa: S101  # for mypy: it is a pipe
        for line in self._process.stdout:
            self._answers.put(line)
        self._answers.put("")

    def _tell(self, message: object) -> None:
        assert self._process.stdin is not None  # noqa: S101  # for mypy: it is a pipe
        with contextlib.suppress(OSError):  # it has ended
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()

    def _hear(self, limit_s: float) -> tuple[str, str]:
        """Returns what it says, or what became of it."""
        try:
            line = self._answers.get(timeout=limit_s)
        except Empty:
            self.end()
            return "", f"HDF5 did not open it in {limit_s:.0f} s"
        if not line:
            self.end()
            return "", f"HDF5 ended with {self._process.returncode}"
        return str(json.loads(line)), ""

    @property
    def usable(self) -> bool:
        """Whether it runs, and is this process's own."""
        return self.pid == os.getpid() and self._process.poll() is None

    @property
    def fresh(self) -> bool:
        """Whether it will not end itself soon."""
        return time.monotonic() - self._last < _IDLE_S

    def ask(self, path: Path) -> str:
        """Lets it try a file; returns what is wrong with that."""
        if self._starting:
            self._starting, self._trouble = False, self._hear(START_S)[1]
        if self._trouble:
            return self._trouble
        self._tell(str(path.absolute()))  # where it was started is not where this process is now
        said, self._trouble = self._hear(PROBE_S)
        self._last = time.monotonic()
        return said or self._trouble

    def end(self) -> None:
        """Ends it, if it is this process's own."""
        if self.pid == os.getpid():
            self._process.kill()
            self._process.wait()
            self._listener.join()
            for pipe in (self._process.stdin, self._process.stdout):
                with contextlib.suppress(OSError):
                    pipe.close()  # type: ignore[union-attr]  # they are pipes


_idle: list[_Child] = []


def begin() -> None:
    """Has a child ready for files that will be opened soon: it starts while this process imports what it needs."""
    with contextlib.suppress(OSError):  # told of when the first file is tried
        _idle.append(_take())


def try_all(paths: Sequence[Path]) -> dict[Path, str]:
    """Lets a child open files, look through all their metadata, and read the end of each dataset.

    Returns:
        For each file what is wrong with it; "" for those that can be opened.
    """
    found = _try(paths) if paths else {}
    rest = paths[len(found) :]
    while rest:  # a child ended at one of them
        stripes = [rest[lane::_LANES] for lane in range(_LANES) if rest[lane::_LANES]]
        with ThreadPoolExecutor(len(stripes)) as lanes:
            for part in lanes.map(_try, stripes):
                found |= part
        rest = [path for path in rest if path not in found]
    return found


def _try(paths: Sequence[Path]) -> dict[Path, str]:
    """Does so until one makes the child hang or crash: that is the last one told of."""
    try:
        child = _take()
    except OSError as error:
        return dict.fromkeys(paths, f"no child process can be started to try it: {error.strerror or error}")
    found: dict[Path, str] = {}
    for path in paths:
        found[path] = child.ask(path)
        if not child.usable:
            return found
    if _idle:
        child.end()
    else:
        _idle.append(child)
    return found


def _take() -> _Child:
    while True:
        try:
            child = _idle.pop()
        except IndexError:  # not asked before: another thread may take the last one
            return _Child()
        if child.usable and child.fresh:
            return child
        child.end()


@atexit.register
def _end() -> None:
    while _idle:
        _idle.pop().end()
