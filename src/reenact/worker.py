"""A worker's own side: does one call after another, and ends when nobody is left to ask for any."""

from __future__ import annotations

import builtins
import contextlib
import os
import pickle
import signal
import sys
import threading
import time
import warnings
from collections import deque
from queue import SimpleQueue
from typing import IO, TYPE_CHECKING, Any

from reenact import work
from reenact.orders import Answer, Call, Setup

if TYPE_CHECKING:
    from collections.abc import Callable

_TELL_EVERY_S = 0.1
_LOOK_EVERY_S = 1.0
_CLOSE_S = 15.0
"""How long envs may take to close: somewhat longer than a process that still lives waits for it."""


def main(orders: IO[bytes], answers: IO[bytes]) -> None:
    """Does what it is asked to.

    Args:
        orders: the worker's end of what it is told: a `Setup`, then calls, pickled twice, so that one that can't be
            read here spoils no other.
        answers: the same for what it says.
    """
    voice = _Voice(answers)
    setup = pickle.load(orders)  # noqa: S301  # of the process that started this one
    sys.argv = list(setup.argv)
    _take_over(setup, voice)
    calls: SimpleQueue[bytes | None] = SimpleQueue()
    threading.Thread(target=_listen, args=(orders, calls), daemon=True).start()
    threading.Thread(target=_watch, args=(setup.parent,), daemon=True).start()
    work.listening.set(voice.tell)
    desks: dict[str, work.Desk] = {}
    work.desks.set(desks)
    while (packed := calls.get()) is not None:
        _busy.set()
        answer = _answer(packed)
        _busy.clear()  # first: who hears the answer may have no more to ask, and the end is then no death
        voice.say(answer)
    for desk in desks.values():
        desk.__exit__()


def _answer(packed: bytes) -> Answer:
    try:
        call: Call = pickle.loads(packed)  # noqa: S301  # as above
        return Answer(call.function(*call.args, **call.kwargs), None)
    except BaseException as error:  # noqa: BLE001  # whoever asked must hear of it
        return Answer(None, error)


def _listen(orders: IO[bytes], calls: SimpleQueue[bytes | None]) -> None:
    """Takes in calls, and the end: in the middle of a call it is that of the process that asked."""
    while True:
        try:
            calls.put(pickle.load(orders))  # noqa: S301  # as above
        except Exception:  # noqa: BLE001  # the pipe's end, or half a word at that
            break
    calls.put(None)
    if not _busy.is_set():
        time.sleep(_CLOSE_S)
    _end()


def _watch(parent: int) -> None:
    """Ends this process when its parent has died: what that had forked may hold the pipe open."""
    while os.name != "posix" or os.getppid() == parent:
        time.sleep(_LOOK_EVERY_S)
    _end()


_busy = threading.Event()
"""Set while a call is done."""


def _end() -> None:
    """Ends this process, and all that it has started."""
    if hasattr(os, "killpg"):
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


class _Voice:
    """What says things to the process that asks; of progress no more than it can use."""

    def __init__(self, answers: IO[bytes]) -> None:
        self._answers, self._lock = answers, threading.RLock()
        self._words: deque[bytes] = deque()
        self._writing = False
        self._frames, self._told = 0, 0.0

    def say(self, word: Any) -> None:
        """Says one thing; what a thread says in the middle of a word, as a warning can come at any moment, after it."""
        try:
            packed = pickle.dumps(word)
        except Exception as error:  # noqa: BLE001  # what the user's code returned or raised can be anything
            packed = pickle.dumps(Answer(None, RuntimeError(f"{type(error).__name__}: {error} ({word!r:.200})")))
        self._words.append(packed)
        with self._lock:
            if self._writing:
                return
            self._writing = True
            try:
                while self._words:
                    pickle.dump(self._words.popleft(), self._answers)
                    self._answers.flush()
            except OSError:  # nobody is left to hear it
                _end()
            finally:
                self._writing = False

    def tell(self, word: work.Word) -> None:
        """Says how a task goes, in steps."""
        now = time.monotonic()
        if isinstance(word, work.Advanced):
            self._frames += word.frames
            if now - self._told < _TELL_EVERY_S:
                return
        if self._frames:
            self.say(work.Advanced(self._frames))
            self._frames, self._told = 0, now
        if not isinstance(word, work.Advanced):
            self.say(word)


def _take_over(setup: Setup, voice: _Voice) -> None:
    """Has warnings be filtered as in the process that asks, and shown there."""
    warnings.resetwarnings()
    for one in setup.filters:
        with contextlib.suppress(Exception):  # its category may be a class that is not found here
            warnings.filterwarnings(**pickle.loads(one))  # noqa: S301  # as above

    def show(message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: Any, **__: Any) -> None:
        # by a name that the other process has: that of the warning's own class may be the env's
        known = next(base for base in category.__mro__ if base.__module__ == builtins.__name__)
        voice.say(work.Warned(str(message), known, filename, lineno))

    shown: Callable[..., None] = show
    warnings.showwarning = shown
