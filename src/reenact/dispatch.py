"""Films to a job's processes, and their results back; which engine runs these is not known here."""

from __future__ import annotations

import contextlib
import itertools
import warnings
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING, Protocol, Self

from reenact import handover, results
from reenact.errors import ReenactError, SelectionError
from reenact.plan import Piece, Plan, by_instance
from reenact.process import this_process
from reenact.selection import at_least_one
from reenact.work import Advanced, Chained, Desk, Outcome, Report, Task, Warned, Word, run
from reenact.workers import NoWorkerError, Workers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from reenact.episode import ReplayResult
    from reenact.films import Film
    from reenact.forecast import Forecast
    from reenact.work import Job

_MOST_FRAMES = {True: 600, False: 20_000}
"""In a task of several short films, by whether frames are drawn: about a second."""
_AT_ONCE = 256
"""Tasks that an executor is given at a time where nothing else is said: nobody tells how many processes it has."""
Do = Callable[[Sequence["Film"]], list["ReplayResult"]]
Events = SimpleQueue[Future[Report] | tuple[Future[Report], Word]]


class Observer(Protocol):
    """Told how a job goes, while it goes."""

    def planned(self, frames: int, films: int) -> None:
        """So many frames (or steps) of so many films will be made; of a run that is followed, before the next wait."""

    def waiting(self, what: str) -> None:
        """A run is followed, and there is nothing to do for now."""

    def advanced(self, frames: int) -> None:
        """So many more are done."""

    def chained(self, done: int, total: int) -> None:
        """So many of the resets that have to come before the next episode are done; told now and then."""

    def raised(self, trace: str) -> None:
        """An env's `render()` raised, which is the user's to mend: the traceback, once of each error of a job."""

    def finished(self, result: ReplayResult) -> None:
        """One episode or clip is done; in a dry run: would be made, or is there already."""

    def foreseen(self, forecast: Forecast) -> None:
        """What a dry run has found, at its end."""


_warned: dict[str | tuple[str, type[Warning], int], int] = {}
"""Warnings that came from other processes, as `warnings` itself keeps them: one that several give is shown once."""


class Ledger:
    """What has become of films so far; tells an observer, once of each frame and each film.

    Args:
        films: the films.
        observer: who is told.
        shown: the errors of the job whose tracebacks the observer was given; grows.

    Attributes:
        results: by a film's index.
    """

    def __init__(self, films: Sequence[Film], observer: Observer, shown: set[str]) -> None:
        self._observer, self._shown = observer, shown
        self._left = [film.frames for film in films]
        self.results: dict[int, ReplayResult] = {}

    def heard(self, index: int, word: Word) -> None:
        """Takes in what is said of a film by whoever does it."""
        if isinstance(word, Advanced):
            frames = min(word.frames, self._left[index])  # one that is done a second time tells nothing new
            if frames:
                self._left[index] -= frames
                self._observer.advanced(frames)
        elif isinstance(word, Chained):
            self._observer.chained(word.done, word.total)
        elif isinstance(word, Warned):
            warnings.warn_explicit(word.text, word.category, word.file, word.line, registry=_warned)
        elif index not in self.results:
            if word.trace and word.result.error not in self._shown:
                self._shown.add(str(word.result.error))
                self._observer.raised(word.trace)
            self.results[index] = word.result
            self.heard(index, Advanced(self._left[index]))
            self._observer.finished(word.result)

    def first_left(self, films: Sequence[int]) -> int | None:
        """Returns the first of some films that nothing has become of yet."""
        return next((index for index in films if index not in self.results), None)

    def in_order(self) -> list[ReplayResult]:
        """Returns all results, in the films' order."""
        return [self.results[index] for index in sorted(self.results)]


class Here:
    """Films in this process, one after another.

    Args:
        job: what is done with them.
        observer: is told how it goes.
        shown: as a ledger has it.
    """

    def __init__(self, job: Job, observer: Observer, shown: set[str]) -> None:
        self._observer, self._shown = observer, shown
        self._desk = Desk(job)

    def do(self, films: Sequence[Film]) -> list[ReplayResult]:
        """Does films; what the user's own code raises comes through as it is."""
        ledger = Ledger(films, self._observer, self._shown)
        for index in by_instance(films):
            tell = partial(ledger.heard, index)
            tell(self._desk.do(films[index], tell))
        return ledger.in_order()

    def __enter__(self) -> Self:
        self._desk.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._desk.__exit__(*error)


class Spread:
    """Films over the processes of an executor.

    Args:
        job: what is done with them.
        executor: runs the tasks; stays open.
        at_once: how many tasks it is given at a time.
        events: where an engine that can puts what it hears of a task while that goes on.
        observer: is told how it goes.
        shown: as a ledger has it.
    """

    def __init__(
        self, job: Job, executor: Executor, at_once: int, events: Events, observer: Observer, *, shown: set[str]
    ) -> None:
        self._job, self._executor, self._at_once, self._events = job, executor, at_once, events
        self._observer, self._shown = observer, shown
        self._numbers = itertools.count()

    def do(self, films: Sequence[Film]) -> list[ReplayResult]:
        """Does films.

        Raises:
            ReenactError: the executor's processes can't do any.
            Exception: what the user's own code raised, other than when it was drawn.
        """
        drawn = self._job.options is not None or self._job.rendered
        going = _Going(films, Plan(films, self._at_once, _MOST_FRAMES[drawn]), self._observer, self._shown)
        try:
            while self._hand_out(going):
                event = self._events.get()
                if isinstance(event, tuple):
                    going.meanwhile(*event)
                elif event in going.flying:
                    going.done(event)
        finally:
            for future in going.flying:
                future.cancel()
        return going.ledger.in_order()

    def _hand_out(self, going: _Going) -> bool:
        """Hands out tasks, as many as may go on at once; returns whether any goes on."""
        while len(going.flying) < self._at_once and (piece := going.plan.take()) is not None:
            self._submit(going, piece)
        while going.alone and not going.flying:
            # whose process died is tried again when nothing else goes on: memory may have been the reason
            self._submit(going, going.alone.popleft())
        return bool(going.flying)

    def _submit(self, going: _Going, piece: Piece) -> None:
        films = tuple(going.films[index] for index in piece.films)
        task = Task(self._job, films, next(self._numbers))
        try:
            future: Future[Report] = self._executor.submit(run, this_process(), task.packed())
        except RuntimeError as error:  # so concurrent.futures says that it is broken or shut down
            going.give_up(piece.films, f"the executor takes no more: {_told(error)}")
            return
        going.flying[future] = piece
        future.add_done_callback(self._events.put)


class _Going:
    """A list of films, while it is done.

    Attributes:
        films: all of them.
        plan: what has not been handed out.
        flying: what is handed out.
        alone: what is tried a last time.
        ledger: what is done.
    """

    def __init__(self, films: Sequence[Film], plan: Plan, observer: Observer, shown: set[str]) -> None:
        self.films, self.plan, self.ledger = films, plan, Ledger(films, observer, shown)
        self.flying: dict[Future[Report], Piece] = {}
        self.alone: deque[Piece] = deque()

    def meanwhile(self, future: Future[Report], word: Word) -> None:
        """Takes in what is heard of a task that goes on."""
        piece = self.flying.get(future)
        index = self.ledger.first_left(piece.films) if piece is not None else None  # they are done in order
        if index is not None or isinstance(word, Warned):
            self.ledger.heard(index or 0, word)

    def done(self, future: Future[Report]) -> None:
        """Takes in what became of a task."""
        piece = self.flying.pop(future)
        broken = CancelledError() if future.cancelled() else future.exception()
        if isinstance(broken, NoWorkerError):
            report = Report((), f"no worker can be started ({_told(broken)}): give fewer jobs, or 1 for none")
        else:
            report = Report((), "") if broken is not None else future.result()
        for index, outcome in zip(piece.films, report.outcomes, strict=False):
            self.ledger.heard(index, outcome)
        if report.raised is not None:
            raise report.raised.unpacked()
        if report.refused and not self.ledger.results:
            raise ReenactError(report.refused)
        left = [index for index in piece.films if index not in self.ledger.results]
        if report.refused:
            self.give_up(left, report.refused)
        elif broken is not None and piece.again:
            # `run` raises nothing: what is no death by its class is an engine's own word for one, or its failure
            died = isinstance(broken, BrokenExecutor | CancelledError)
            how = "the process that did it died" if died else "the executor failed at it"
            self.give_up(left, f"{how}, and once more when it was alone: {_told(broken)}")
        elif broken is not None and left:
            self.alone.append(replace(piece, films=(left[0],), again=True))
            self.plan.give_back(left[1:])
        self._learn(piece)

    def _learn(self, piece: Piece) -> None:
        for index in piece.films:
            if index in self.ledger.results and self.plan.learn(piece, index, self.ledger.results[index]):
                for future, other in list(self.flying.items()):
                    if other.instance == piece.instance and future.cancel():  # it has not begun
                        del self.flying[future]
                        self.plan.give_back(other.films)

    def give_up(self, films: Sequence[int], why: str) -> None:
        """Has what was not done be impossible."""
        for index in films:
            self.ledger.heard(index, Outcome(results.refused(self.films[index], why)))


def _told(error: BaseException) -> str:
    return " ".join(f"{error}".split()) or type(error).__name__


class Crews:
    """Who does a job: this process, workers of our own, or an executor's.

    Args:
        jobs: how many processes at a time.
        executor: the executor, or None.

    Attributes:
        jobs: as given.
        in_process: whether nobody but this process will.

    Raises:
        SelectionError: no such number, or no executor of processes.
    """

    def __init__(self, jobs: int, executor: Executor | None) -> None:
        self.jobs, self._executor = at_least_one("jobs", jobs), executor
        if executor is not None:
            _require_processes(executor)
        self.in_process = jobs == 1 and executor is None

    @contextlib.contextmanager
    def of(self, job: Job, observer: Observer, *, films: int | None = None) -> Iterator[Do]:
        """Gets them ready, and ends what is ours of them.

        Args:
            job: what they are to do.
            observer: is told how it goes.
            films: how many there will be, at most; None: nobody knows.
        """
        events: Events = SimpleQueue()
        shown: set[str] = set()
        if self._executor is not None:
            at_once = self.jobs if self.jobs > 1 else _AT_ONCE
            yield _Parted(
                job, observer, shown, Spread(job, self._executor, at_once, events, observer, shown=shown).do
            ).do
        elif self.in_process:
            with Here(job, observer, shown) as here:
                yield here.do
        else:
            count = self.jobs if films is None else max(1, min(self.jobs, films))
            with Workers(count, lambda future, word: events.put((future, word))) as own:
                yield _Parted(job, observer, shown, Spread(job, own, count, events, observer, shown=shown).do).do


class _Parted:
    """Films over other processes, but for those that this process alone can do.

    Args:
        job: what is done with them.
        observer: is told how it goes.
        shown: as a ledger has it.
        do: does films in other processes.
    """

    def __init__(self, job: Job, observer: Observer, shown: set[str], do: Do) -> None:
        self._job, self._observer, self._shown, self._do = job, observer, shown, do

    def do(self, films: Sequence[Film]) -> list[ReplayResult]:
        """Does films."""
        own = self._job.env is not None  # the user's own way to make the env, which was looked at before
        here = [not own and any(handover.is_only_here(part.episode) for part in film.parts) for film in films]
        if not any(here):
            return self._do(films)
        warnings.warn(
            f"reenact: the env of {sum(here)} episodes is defined in this script or session, which no other process "
            'can load: they are done in this one; put what trains under if __name__ == "__main__":',
            UserWarning,
            stacklevel=5,  # in whoever called replay or verify
        )
        others = iter(self._do([film for film, mine in zip(films, here, strict=True) if not mine]))
        with Here(self._job, self._observer, self._shown) as desk:
            mine = iter(desk.do([film for film, mine in zip(films, here, strict=True) if mine]))
        return [next(mine if is_mine else others) for is_mine in here]


def _require_processes(executor: object) -> None:
    """Refuses what is no executor of processes, as far as that can be seen.

    Raises:
        SelectionError: it is none.
    """
    if not isinstance(executor, Executor):
        raise SelectionError(
            f"executor must be a concurrent.futures.Executor, got {type(executor).__name__}; of a Dask client it is "
            "client.get_executor()"
        )
    if isinstance(executor, ThreadPoolExecutor):
        raise SelectionError(
            "executor runs threads, and what envs draw with belongs to a process: give one of processes, or jobs=N"
        )
