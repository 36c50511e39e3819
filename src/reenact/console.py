"""A command's streams, signals and exit code: whatever ends it is told in one line, or not at all.

Exit codes: 0 all exact, 1 anything not, 2 wrong use, 3 something is lost (pack, repair), 130 Ctrl-C, 141 whoever read
its output has gone, 129 SIGHUP, 143 SIGTERM. An env that calls `sys.exit` ends it with 1.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import io
import os
import signal
import sys
import threading
import time
import warnings
from typing import TYPE_CHECKING, Any, TextIO

import click

from reenact import headless
from reenact.errors import ReenactError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from _typeshed import ReadableBuffer

EXACT, NOT_EXACT, WRONG_USE, LOSSY, _SIGNALLED, _UNREAD = 0, 1, 2, 3, 128, 141
_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
_NAMES = {1: "standard output", 2: "standard error"}
_PYTHONS = {1: "<stdout>", 2: "<stderr>"}


# ---- streams


class OutputError(BaseException):
    """A standard stream can't be written; no env that prints may catch it by accident.

    Args:
        fd: the stream's number.
        error: why.
    """

    def __init__(self, fd: int, error: OSError) -> None:
        super().__init__(f"{_NAMES[fd]} can't be written: {error.strerror}")
        self.fd, self.error = fd, error


class _Descriptor(io.RawIOBase):
    def __init__(self, fd: int, stands_for: int, *, closed: bool) -> None:
        self._fd, self._stands_for, self._closed = fd, stands_for, closed
        self.name = _PYTHONS[stands_for]

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._fd

    def isatty(self) -> bool:
        return os.isatty(self._fd)

    def write(self, data: ReadableBuffer) -> int:
        if self._closed:
            self._closed = False  # said once; what it leads to takes anything
            raise OutputError(self._stands_for, OSError(errno.EBADF, os.strerror(errno.EBADF)))
        try:
            return os.write(self._fd, data)
        except OSError as error:
            raise OutputError(self._stands_for, error) from error


class Stream(io.TextIOWrapper):
    """A standard stream that raises an `OutputError` of its own: other pipes and files may fail, too.

    Args:
        fd: where it goes, which stays open.
        stands_for: 1 or 2.
        like: Python's own, as it was; None: the descriptor was closed when Python started. What is for people is
            dropped then, and what is for programs can't be.
    """

    def __init__(self, fd: int, stands_for: int, like: TextIO | None) -> None:
        self._is = stands_for, like
        encoding, errors = (like.encoding, like.errors) if like is not None else ("utf-8", "backslashreplace")
        super().__init__(
            io.BufferedWriter(_Descriptor(fd, stands_for, closed=like is None and stands_for == 1)),
            encoding=encoding,
            errors=errors,
            line_buffering=bool(getattr(like, "line_buffering", True)),
            write_through=bool(getattr(like, "write_through", False)),
        )

    def settle(self) -> None:
        """Writes what is in its buffer.

        Raises:
            OutputError: it can't be written; then it is dropped, as it would fail once more when it is freed.
        """
        try:
            self.flush()
        except OutputError:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self.fileno())
            os.close(null)
            self.flush()
            raise

    @contextlib.contextmanager
    def alone(self) -> Iterator[Stream]:
        """Gives what goes on to its place; what is written to itself, or from C to its descriptor, goes to stderr."""
        self.settle()
        fd, kept = self.fileno(), os.dup(self.fileno())
        os.dup2(2, fd)
        other = Stream(kept, *self._is)
        try:
            yield other
        finally:
            try:
                self.settle()
                other.settle()
            finally:
                os.dup2(kept, fd)
                os.close(kept)


@contextlib.contextmanager
def _streams() -> Iterator[None]:
    """Has Python's standard streams be our own, as far as nobody has put others there."""
    before = sys.stdout, sys.stderr
    if None in before or sys.stdin is None:
        fd = os.open(os.devnull, os.O_RDWR)
        while fd <= max(_NAMES):  # a file that is opened later must not be taken for a standard stream
            fd = os.open(os.devnull, os.O_RDWR)
        os.close(fd)
    own = [Stream(fd, fd, one) for fd, one in ((1, sys.__stdout__), (2, sys.__stderr__)) if one is before[fd - 1]]
    for stream in own:
        setattr(sys, "stdout" if stream.fileno() == 1 else "stderr", stream)
    try:
        yield
        for stream in own:
            stream.settle()
    except BaseException:
        for stream in own:
            with contextlib.suppress(OutputError):  # what has been raised says more
                stream.settle()
        raise
    finally:
        sys.stdout, sys.stderr = before


# ---- how it ends


_CLEANING_S = 2.0
"""How long after a signal another one is taken for the same: nothing but an env that won't close takes longer."""


class _EndedError(KeyboardInterrupt):
    """A signal asks the command to end: a Ctrl-C, or a job scheduler's."""


class _End:
    """What ends the command at a signal; an impatient second one does not come between while it is cleaned up."""

    def __init__(self) -> None:
        self._asked = float("-inf")

    def __call__(self, number: int, _frame: object) -> None:
        if time.monotonic() - self._asked > _CLEANING_S:
            self._asked = time.monotonic()
            raise _EndedError(number)


def _at_the_next_signal(handler: Callable[[int, Any], None] | signal.Handlers) -> None:
    """Says what becomes of a signal once all is cleaned up."""
    with contextlib.suppress(ValueError):  # not in the main thread
        for number in _SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup has hang-ups, and a shell's "&" Ctrl-C
                signal.signal(number, handler)


class _PastClick(BaseException):
    """Carries an error through click, which would take an env's broken pipe, or end of file, for the command's own."""

    def __init__(self, error: OSError | EOFError) -> None:
        self.error = error


class Command(click.Command):
    """A command whose own errors come out of it as they are."""

    def invoke(self, ctx: click.Context) -> Any:
        """Runs it."""
        try:
            return super().invoke(ctx)
        except (OSError, EOFError) as error:
            raise _PastClick(error) from None


class Commands(click.Group):
    """Commands whose mistakes are told in one line."""

    command_class = Command

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Runs one, and ends the program."""
        return guarded(lambda: super(Commands, self).main(*args, **{**kwargs, "standalone_mode": False}))


def guarded(call: Callable[[], Any]) -> Any:
    """Calls a command, and ends the program with its exit code."""
    warnings.showwarning = _show_warning
    # called last: the rest of Python's end is short, and would tell of being interrupted
    atexit.register(_at_the_next_signal, signal.SIG_IGN)
    end = _End()
    for number in _SIGNALS if threading.current_thread() is threading.main_thread() else ():
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, end)
    try:
        with headless.quiet(), _streams():
            code = _code(call)
    except OutputError as failed:
        unread = failed.error.errno == errno.EPIPE  # nothing is wrong: whoever read it has seen enough
        code = _UNREAD if unread else NOT_EXACT
        if not unread and failed.fd != 2:  # noqa: PLR2004  # then it can't be said
            with contextlib.suppress(OSError):
                click.echo(f"Error: {failed}", err=True)
    except _EndedError as stop:  # while the last of the output was written
        code = _SIGNALLED + int(stop.args[0])
    _at_the_next_signal(lambda *_: os._exit(code))  # what an env has left may hold up Python's own end
    sys.exit(code)


def _code(call: Callable[[], Any]) -> int:
    """Calls a command; returns its exit code, and says what that is for."""
    try:
        return int(_through_click(call) or EXACT)
    except click.exceptions.Exit as end:
        return end.exit_code
    except (click.Abort, KeyboardInterrupt) as stop:
        asked = stop.__cause__ if isinstance(stop, click.Abort) else stop
        code = _SIGNALLED + int(asked.args[0] if isinstance(asked, _EndedError) else signal.SIGINT)
        _at_the_next_signal(lambda *_: os._exit(code))  # whoever reads what is left to say may never do so
        click.echo("stopped", err=True)
        return code
    except click.ClickException as mistake:
        if isinstance(mistake, click.exceptions.NoArgsIsHelpError):
            mistake.show()  # no mistake, but a question
        else:
            click.echo(f"Error: {mistake.format_message()}", err=True)
    except ReenactError as error:
        click.echo(f"Error: {error}", err=True)
    except SystemExit as end:  # of an env's: its code says nothing of the episodes
        click.echo(f"Error: the env ended the program (sys.exit({end.code!r})): not all was done", err=True)
        return NOT_EXACT
    return WRONG_USE


def _through_click(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except _PastClick as carried:
        error = carried.error
    raise error


def _show_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: Any, **__: Any
) -> None:
    """Shows what reenact warns of in one line, and anybody else's warnings as Python does."""
    text = str(message)
    if text.startswith("reenact: "):
        click.echo(f"Warning: {text.removeprefix('reenact: ')}", err=True)
    else:
        click.echo(warnings.formatwarning(message, category, filename, lineno), nl=False, err=True)
