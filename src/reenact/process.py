"""Who this process is, which launch it belongs to, and whether another one still lives.

A launch is one start of a training script with all its worker processes: the top of the tree that
`multiprocessing` made, told by host, pid and start time. In a notebook each start of a cell is one of its own.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import multiprocessing.util
import os
import socket
import sys
import time
import weakref
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Protocol

_LAUNCH_VARIABLE = "_REENACT_LAUNCH"
STALE_S = 600.0
"""A writer on another host that has not committed for so many seconds counts as dead."""


@dataclass(frozen=True, slots=True)
class Process:
    """A process, told apart from any other that has had its pid.

    Attributes:
        host: the machine's name.
        pid: its number there.
        boot: the machine's boot id ("" where the system has none).
        started: its start in clock ticks since boot (0 where the system doesn't tell).
    """

    host: str
    pid: int
    boot: str
    started: int

    @property
    def id(self) -> str:
        """Twelve hex digits that stand for it in a file's name."""
        return hashlib.sha256(repr(sorted(asdict(self).items())).encode()).hexdigest()[:12]

    def started_at(self) -> float:
        """When it started, in seconds since 1970; if the system doesn't tell, when it was first asked."""
        if self.started and self.boot == _boot_id() and self.host == socket.gethostname():
            return _booted_at() + self.started / os.sysconf("SC_CLK_TCK")
        return _first_asked()

    def is_alive(self, heartbeat_ns: int) -> bool:
        """Whether it still runs; of another host's process only its heartbeat (ns since 1970) can tell."""
        if self.host != socket.gethostname():
            return time.time_ns() - heartbeat_ns < STALE_S * 1e9
        if self.boot != _boot_id():
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except OSError:
            pass  # it is there, and another user's
        return self.started == 0 or _started(self.pid) in (0, self.started)


@dataclass(frozen=True, slots=True)
class Launch(Process):
    """The top process of a launch, and in a notebook the cell that runs.

    Attributes:
        cell: its id, where the notebook's front end gives it one, else "".
        execution: its execution count; 0: no notebook.
    """

    cell: str = ""
    execution: int = 0

    def in_process_of(self, other: Launch) -> bool:
        """Whether both are of one process: in a notebook, of different starts of cells, maybe."""
        return replace(self, cell="", execution=0) == replace(other, cell="", execution=0)

    def is_other_cell_than(self, other: Launch) -> bool:
        """Whether both are known to be different cells of one notebook, and not the same one, started twice."""
        return self.in_process_of(other) and "" not in (self.cell, other.cell) and self.cell != other.cell


def this_process() -> Process:
    """Returns the identity of the calling process."""
    return Process(*_identity(os.getpid()))


def this_launch() -> Launch:
    """Returns the identity of the launch that the calling process belongs to.

    A variable in `os.environ` carries it to processes that multiprocessing starts from here. It counts
    only in those: a script that a training script or a notebook starts is a launch of its own. A forked
    child knows it without.
    """
    global _launch  # noqa: PLW0603  # one a process, and the same in all that are forked from it
    is_worker = multiprocessing.parent_process() is not None
    if _launch is None or is_worker:
        _launch = _find_launch()
    if not is_worker:
        _launch = replace(_launch, **_cell())
    os.environ[_LAUNCH_VARIABLE] = json.dumps(asdict(_launch))
    return _launch


_launch: Launch | None = None


def belong_to(launch: Launch) -> None:
    """Tells a worker its launch, as the process that started it knew it then; elsewhere it does nothing.

    What it has inherited may be older: a forkserver's children get the variables of the cell that first needed one.
    """
    if multiprocessing.parent_process() is not None or _is_worker_in_the_making():
        os.environ[_LAUNCH_VARIABLE] = json.dumps(asdict(launch))


def _cell() -> dict[str, Any]:
    """Returns what tells one start of a notebook's cell from another's."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    if shell is None:
        return {}
    _follow(shell)
    message = shell.get_parent() if hasattr(shell, "get_parent") else {}
    return {"cell": str(message.get("metadata", {}).get("cellId", "")), "execution": int(shell.execution_count)}


_followed: weakref.WeakSet[Any] = weakref.WeakSet()


def _follow(shell: Any) -> None:
    """Has the start of each later cell noticed as it comes: one that records in workers alone says nothing itself."""
    if shell not in _followed and hasattr(shell, "events"):
        _followed.add(shell)
        shell.events.register("pre_run_cell", _notice_cell)


def _notice_cell(_info: object) -> None:
    this_launch()


def _find_launch() -> Launch:
    parent = multiprocessing.parent_process()
    if parent is None and not _is_worker_in_the_making():
        return Launch(*_identity(os.getpid()))
    inherited = os.environ.get(_LAUNCH_VARIABLE)
    if inherited is not None:
        return Launch(**json.loads(inherited))
    return Launch(*_identity(os.getppid() if parent is None or parent.pid is None else parent.pid))


def _is_worker_in_the_making() -> bool:
    """Whether multiprocessing started this interpreter: while it imports, it knows no parent yet."""
    starts = ("from multiprocessing.spawn import spawn_main", "from multiprocessing.forkserver import main")
    return any(argument.startswith(starts) for argument in sys.orig_argv)


def _identity(pid: int) -> tuple[str, int, str, int]:
    return socket.gethostname(), pid, _boot_id(), _started(pid)


@cache
def _first_asked() -> float:
    return time.time()


@cache
def _booted_at() -> float:
    for line in Path("/proc/stat").read_text().splitlines():
        if line.startswith("btime "):
            return float(line.split()[1])
    return time.time() - time.monotonic()


@cache
def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _started(pid: int) -> int:
    try:
        # the command's name, in parentheses, may hold blanks and parentheses of its own
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        # one that has ended, and waits for its parent to hear of it, in a container perhaps for ever
        return -1 if fields[0] in "ZX" else int(fields[19])
    except (OSError, ValueError, IndexError):
        return 0


class Closable(Protocol):
    """What can be closed more than once, and in the wrong process, without harm."""

    def close(self) -> None:
        """Closes it."""


_closables: weakref.WeakSet[Closable] = weakref.WeakSet()
_finalizer_pid = 0


def close_at_exit(what: Closable) -> None:
    """Has it closed when this process ends: `atexit` does not run in multiprocessing's workers."""
    global _finalizer_pid  # noqa: PLW0603  # one a process: a forked child has to register anew
    _closables.add(what)
    if _finalizer_pid != os.getpid():
        _finalizer_pid = os.getpid()
        multiprocessing.util.Finalize(None, _close_all, exitpriority=100)


def _close_all() -> None:
    for what in list(_closables):
        what.close()
