"""An executor of this machine's own processes, each of which dies alone.

A worker is a fresh interpreter: it knows nothing of the caller's `__main__`, so that scripts need no guard and
notebooks work. It leads a session of its own: a terminal's Ctrl-C does not reach it, and ending its group ends its
ffmpeg and whatever else its env has started. When nobody is left to ask it for anything, it ends itself.
"""

from __future__ import annotations

import contextlib
import multiprocessing.util
import os
import pickle
import signal
import subprocess
import sys
import threading
import warnings
from concurrent.futures import BrokenExecutor, Executor, Future
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from reenact.errors import ReenactError
from reenact.orders import Answer, Call, Setup

if TYPE_CHECKING:
    from collections.abc import Callable

_END_S = 10.0
"""How long a worker may take to close its envs at the end."""
_BOOT = (
    "import os, pickle; orders, answers = os.fdopen(os.dup(0), 'rb'), os.fdopen(os.dup(1), 'wb'); "
    "os.dup2(os.open(os.devnull, os.O_RDONLY), 0); os.dup2(2, 1); "  # what an env prints is no answer
    "import sys; sys.path[:] = pickle.load(orders); "
    "from reenact import worker; worker.main(orders, answers)"
)
_MALLOC = "glibc.malloc.mmap_threshold=33554432:glibc.malloc.trim_threshold=67108864"
"""Has the C library keep what a frame frees for the next one, in ffmpeg too, which a worker starts.

By itself it gives memory back to the system as soon as two frames are free, and ffmpeg gets it anew for 20 to 50 pages
a frame, the more the busier the cores: 3 % of a film that two jobs make.
"""


class WorkerDiedError(BrokenExecutor):
    """A worker ended in the middle of a call; the others go on."""


class NoWorkerError(BrokenExecutor):
    """A worker can't be started; what a call fails with where no other is there."""


class Workers(Executor):
    """Processes that each do one call at a time.

    Args:
        count: how many, at most.
        heard: told what a call says while it goes on, by its future, in a thread.
    """

    def __init__(self, count: int, heard: Callable[[Future[Any], Any], None]) -> None:
        if not sys.executable or getattr(sys, "frozen", False):  # it would start the program anew
            raise ReenactError("this program does not come with a Python interpreter of its own: use jobs=1")
        self._heard = heard
        self._calls: SimpleQueue[tuple[Future[Any], Call] | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._running: set[_Worker] = set()
        self._killed = False
        self._threads = [threading.Thread(target=self._serve, daemon=True) for _ in range(count)]
        self._started = 0

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Has a worker call a function that can be imported there.

        Raises:
            RuntimeError: there is no thread for a first worker.
        """
        if self._started < len(self._threads):
            try:
                self._threads[self._started].start()
                self._started += 1
            except RuntimeError:  # the system has no more: fewer do it
                if not self._started:
                    raise
                del self._threads[self._started :]
        future: Future[Any] = Future()
        self._calls.put((future, Call(function, args, kwargs)))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # as Executor has it
        """Lets the workers end what they do, and close their envs."""
        if cancel_futures:
            while not self._calls.empty():
                with contextlib.suppress(Exception):
                    call = self._calls.get_nowait()
                    if call is not None:
                        call[0].cancel()
        for _ in self._threads:
            self._calls.put(None)
        if wait:
            for thread in self._threads[: self._started]:
                thread.join()

    def kill(self) -> None:
        """Ends the workers in the middle of what they do, and all that they have started."""
        with self._lock:
            self._killed = True
            for worker in list(self._running):
                worker.kill()
        self.shutdown(cancel_futures=True)

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        """Ends the workers; at once where something was raised."""
        if kind is None:
            self.shutdown()
        else:
            self.kill()

    def _serve(self) -> None:
        """Hands calls to one worker, and to another when that has died; in a thread of its own."""
        worker: _Worker | None = None
        while (item := self._calls.get()) is not None:
            future, call = item
            try:
                worker = worker or self._start()
            except BaseException as error:  # noqa: BLE001  # whoever waits for it must hear of it
                if isinstance(error, NoWorkerError) and self._running and not self._killed:
                    self._calls.put(item)  # for those that are there: this one would fail at call after call
                    return
                if future.set_running_or_notify_cancel():
                    future.set_exception(error)
                continue
            if future.set_running_or_notify_cancel() and not self._do(worker, future, call):
                worker = None
        if worker is not None:
            worker.close()

    def _do(self, worker: _Worker, future: Future[Any], call: Call) -> bool:
        """Has a worker do a call; returns whether it can do another."""
        try:
            answer = worker.do(call, partial(self._heard, future))
        except BaseException as error:  # noqa: BLE001  # whoever waits for it must hear of it
            how = ""
            with contextlib.suppress(Exception):
                how = worker.end()  # it may be in that call still: its answer would be taken for the next one's
            self._running.discard(worker)
            future.set_exception(WorkerDiedError(how) if isinstance(error, _PipeEndedError) else error)
            return False
        if answer.error is None:
            future.set_result(answer.value)
        else:
            future.set_exception(answer.error)
        return True

    def _start(self) -> _Worker:
        """Starts a worker.

        Raises:
            NoWorkerError: the system has no process, no descriptor or no thread for it, or all are to end.
        """
        with self._lock:
            if self._killed:
                raise NoWorkerError("it was stopped")
            try:
                worker = _Worker()
            except OSError as error:
                raise NoWorkerError(str(error)) from error
            self._running.add(worker)
        return worker


class _PipeEndedError(Exception):
    """Nobody is at the other end."""


class _Worker:
    """One process."""

    def __init__(self) -> None:
        # first: what can't be passed on leaves no process behind
        path = pickle.dumps([entry for entry in sys.path if isinstance(entry, str)])
        setup = pickle.dumps(Setup(os.getpid(), tuple(sys.argv), tuple(_filters())))
        flags = multiprocessing.util._args_from_interpreter_flags()  # type: ignore[attr-defined]  # noqa: SLF001  # as multiprocessing's own
        self._process = subprocess.Popen(  # noqa: S603  # our own interpreter, on our own code
            [sys.executable, *flags, "-P", "-c", _BOOT],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=_environment(),
            start_new_session=True,
        )
        assert self._process.stdin is not None  # noqa: S101  # for mypy: they are pipes
        assert self._process.stdout is not None  # noqa: S101  # for mypy: they are pipes
        self._orders, self._answers = self._process.stdin, self._process.stdout
        self._lock = threading.Lock()
        self._told = True
        self._reaper = threading.Thread(target=self._reap, daemon=True)
        try:
            self._reaper.start()
        except RuntimeError as error:  # there is no thread for it
            self._kill()
            self._process.wait()
            raise OSError(str(error)) from error
        with contextlib.suppress(OSError):  # it has died already: the first call finds out
            self._orders.write(path + setup)
            self._orders.flush()

    def do(self, call: Call, tell: Callable[[Any], None]) -> Answer:
        """Has it do a call.

        Raises:
            _PipeEndedError: it has died.
            Exception: the call, or something that was said of it, can't be passed on.
        """
        packed = pickle.dumps(call)
        try:
            pickle.dump(packed, self._orders)
            self._orders.flush()
        except OSError as error:
            raise _PipeEndedError from error
        while True:
            said = pickle.loads(self._hear())  # noqa: S301  # our own process
            if isinstance(said, Answer):
                return said
            tell(said)

    def _hear(self) -> bytes:
        try:
            return bytes(pickle.load(self._answers))  # noqa: S301  # our own process
        except (EOFError, OSError, pickle.UnpicklingError) as error:  # the last: in the middle of a word
            raise _PipeEndedError from error

    def kill(self) -> None:
        """Ends it and all that it has started."""
        with self._lock:
            if self._process.returncode is None:  # else its number may be another's
                self._kill()

    def _kill(self) -> None:
        if hasattr(os, "killpg"):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
        else:
            self._process.kill()

    def end(self) -> str:
        """Ends what is left of it, and says how it ended."""
        self.kill()
        self._reaper.join()
        for pipe in (self._orders, self._answers):
            with contextlib.suppress(OSError):
                pipe.close()
        code = self._process.returncode if self._told else None
        if code is None:
            return "it ended, and how was told to something else that waits for this process's children"
        return f"it was killed by signal {-code}" if code < 0 else f"it ended with exit code {code}"

    def close(self) -> None:
        """Lets it close its envs, and ends it."""
        with contextlib.suppress(OSError):
            self._orders.close()
        self._reaper.join(_END_S)
        self.end()

    def _reap(self) -> None:
        """Ends what it has started as soon as it has died: its pipes may be open in that."""
        if not hasattr(os, "waitid"):
            self._process.wait()  # and its ffmpeg ends by itself, when nothing more comes
            return
        try:
            os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)  # its number stays its own till `wait`
        except ChildProcessError:  # SIGCHLD is ignored, or a library waits for any child: it has ended all the same
            self._told = False
        with self._lock:
            self._kill()
            self._process.wait()


def _environment() -> dict[str, str]:
    """Returns a worker's; of what the user says to the C library, nothing is lost: the last word holds."""
    name = "GLIBC_TUNABLES"
    return {**os.environ, name: ":".join(one for one in (_MALLOC, os.environ.get(name)) if one)}


def _filters() -> list[bytes]:
    """Lists this process's filters of warnings, as `Setup` has them."""
    found = []
    for action, message, category, module, line in reversed(warnings.filters):
        # compiled, or, for Python's own and those of -W, plain text
        texts = [str(getattr(one, "pattern", one or "")) for one in (message, module)]
        one = {"action": action, "message": texts[0], "category": category, "module": texts[1], "lineno": line}
        with contextlib.suppress(Exception):  # a class that can't be found by its name
            found.append(pickle.dumps(one))
    return found


def cores() -> int:
    """Returns how many cores this process may use."""
    if hasattr(os, "process_cpu_count"):  # from Python 3.13 on
        return int(os.process_cpu_count() or 1)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
