"""What is done with films, in whatever process: tasks and reports are small and picklable, and know no engine.

A task is a call of `run` with bytes: nothing of it is unpickled but where it is done, so that what fails there is told
and takes no worker with it. Done twice, it does no harm: a video that is there, made by the same job, is its result.
"""

from __future__ import annotations

import contextlib
import pickle
import threading
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

import gymnasium as gym

from reenact import diagnosis, filming, headless, results, trial, usercode
from reenact.drawing import Camera
from reenact.errors import ReenactError, RenderError, SelectionError
from reenact.ladder import Ladders
from reenact.process import this_process
from reenact.shelf import Shelf

if TYPE_CHECKING:
    from reenact.episode import ReplayResult
    from reenact.films import Film
    from reenact.process import Process
    from reenact.recipe import EnvFactory
    from reenact.stage import Stage
    from reenact.strangers import Permissions


REFUSALS = (ReenactError, gym.error.DependencyNotInstalled)
"""What makes one film impossible, and no other."""


def reason(refusal: Exception) -> str:
    """Says in one line why a film is impossible."""
    missing = isinstance(refusal, gym.error.DependencyNotInstalled)
    return f"the env needs a package that is not installed: {refusal}" if missing else str(refusal)


@dataclass(frozen=True, slots=True)
class Job:
    """What is done with each film, and how.

    Attributes:
        id: tells it from any other.
        options: how videos are made; None: the films' episodes are verified.
        rendered: whether each frame of what is verified is drawn, and thrown away.
        env: the user's own way to make the env, instead of the recipe.
        permissions: what a stranger's recipe may have imported.
        origin: the only one to start from, or None.
        tolerance: how far a reward may be off.

    Raises:
        SelectionError: a tolerance that is none.
    """

    id: str
    options: filming.Options | None
    rendered: bool
    env: str | EnvFactory | None
    permissions: Permissions
    origin: str | None
    tolerance: float

    def __post_init__(self) -> None:
        if not 0 <= self.tolerance < float("inf"):
            raise SelectionError(f"tolerance must be 0 or more, got {self.tolerance}")

    def prepare(self) -> Callable[[Stage], Stage]:
        """Returns what puts into a stage how its options say that envs are made.

        Raises:
            SelectionError: there is no such env, or it can't be made so.
        """
        factory = None if self.env is None else usercode.factory(self.env)
        camera = self.options.look.camera if self.options is not None else Camera()
        return lambda stage: replace(stage, factory=factory, permissions=self.permissions, camera=camera)

    def ladders(self, tell: Callable[[int, int], None]) -> Ladders:
        """Returns its ladders, which make their envs as its options say.

        Raises:
            SelectionError: there is no such env or origin.
        """
        return Ladders(
            self.prepare(),
            forced=self.origin,
            tolerance=float(self.tolerance),
            tell=tell,
        )


@dataclass(frozen=True, slots=True)
class Advanced:
    """Said meanwhile: so many more frames (or steps) are done."""

    frames: int


@dataclass(frozen=True, slots=True)
class Chained:
    """Said meanwhile: so many of the resets that have to come before the next episode are done."""

    done: int
    total: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one film.

    Attributes:
        result: the result.
        trace: the traceback of what the env raised when it was drawn, or "".
    """

    result: ReplayResult
    trace: str = ""


@dataclass(frozen=True, slots=True)
class Warned:
    """Said meanwhile: a warning was given in the process that does it."""

    text: str
    category: type[Warning]
    file: str
    line: int


Word = Advanced | Chained | Outcome | Warned
Tell = Callable[[Word], None]


def _nobody(word: Word) -> None:
    """Listens to nothing."""


class _Listener:
    """Whom a desk tells."""

    def __init__(self) -> None:
        self.tell: Tell = _nobody


class Desk:
    """Where one process does a job's films, one after another: what worked for one is tried first for the next.

    Args:
        job: what is done with them.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._listener = listener = _Listener()  # not this desk: in a circle, the run's files would stay open
        self._ladders = job.ladders(lambda done, total: listener.tell(Chained(done, total)))
        self._shelf = Shelf(job.options.place) if job.options is not None else None

    def __enter__(self) -> Self:
        self._stack = ExitStack()
        self._stack.enter_context(self._ladders)
        return self

    def __exit__(self, *error: object) -> None:
        """Closes all envs, and puts the process's global generators back."""
        self._stack.close()

    def do(self, film: Film, tell: Tell) -> Outcome:
        """Does a film; what refuses it becomes its result.

        Args:
            film: the film.
            tell: told how it goes.
        """
        self._listener.tell = tell
        try:
            return self._outcome(film)
        finally:
            self._listener.tell = _nobody

    def _outcome(self, film: Film) -> Outcome:
        try:
            return Outcome(self._one(film))
        except REFUSALS as error:
            cause = error.__cause__ if isinstance(error, RenderError) else None
            shown = "" if cause is None else "".join(traceback.format_exception(cause))
            return Outcome(results.refused(film, reason(error)), shown)

    def _one(self, film: Film) -> ReplayResult:
        if self._job.options is not None and self._shelf is not None:
            return filming.make(film, self._job.options, self._ladders, self._shelf, self._advanced)
        episode = film.parts[0].episode
        ladder, rendered = self._ladders.of(episode), self._job.rendered
        found = trial.run(ladder, episode, render=rendered, tell=self._advanced)
        explained = None if found.climb is None else diagnosis.explain(ladder, found.climb, episode, rendered=rendered)
        return results.result_of(film, self._job.tolerance, found, explained=explained)

    def _advanced(self, frames: int) -> None:
        self._listener.tell(Advanced(frames))


# ---- in another process


@dataclass(frozen=True, slots=True)
class Task:
    """Films that are done in one process, in this order.

    Attributes:
        job: what is done with them.
        films: the films.
        number: tells it from the job's other tasks, and from the same one tried again.
    """

    job: Job
    films: tuple[Film, ...]
    number: int

    def packed(self) -> bytes:
        """Returns it as `run` takes it."""
        return pickle.dumps(self, protocol=pickle.HIGHEST_PROTOCOL)


@dataclass(frozen=True, slots=True)
class Raised:
    """What the user's own code raised in another process.

    Attributes:
        error: it, pickled; None: it can't be.
        told: the same in words, as the last line of its traceback.
        trace: its traceback.
    """

    error: bytes | None
    told: str
    trace: str

    @classmethod
    def of(cls, error: BaseException) -> Self:
        """Takes an error as it was caught there."""
        packed = None
        with contextlib.suppress(Exception):  # it may hold anything
            packed = pickle.dumps(error)
        told = "".join(traceback.format_exception_only(error)).strip()
        return cls(packed, told, "".join(traceback.format_exception(error)))

    def unpacked(self) -> BaseException:
        """Returns it with its traceback as a note; a RuntimeError in its place where its class can't be had here."""
        error: object = None
        if self.error is not None:
            with contextlib.suppress(
                Exception
            ):  # its class may be the training script's, or have an __init__ of its own
                error = pickle.loads(self.error)  # noqa: S301  # of a process that does what we ask
        found = error if isinstance(error, BaseException) else RuntimeError(self.told)
        found.add_note(f"\nin a worker:\n{self.trace}")
        return found


@dataclass(frozen=True, slots=True)
class Report:
    """What became of a task.

    Attributes:
        outcomes: one a film, in order; fewer where something was raised.
        refused: why nothing could be done there, in one line, or "".
        raised: what the user's own code raised, or None.
    """

    outcomes: tuple[Outcome, ...]
    refused: str = ""
    raised: Raised | None = None


listening: ContextVar[Tell] = ContextVar("reenact_listening", default=_nobody)
"""Who is told how a task goes while it goes: set by an engine that can pass it on."""
desks: ContextVar[dict[str, Desk] | None] = ContextVar("reenact_desks", default=None)
"""The desks, by job, of a process that does nothing else: they stay between tasks. None: they are closed after each."""
_busy = threading.Lock()


def run(submitter: Process, packed: bytes) -> Report:
    """Does a task in this process: what an executor is given to call. Raises nothing.

    Args:
        submitter: the process that wants it, which must be another one.
        packed: as `Task.packed` gave it.
    """
    if submitter == this_process():
        return Report((), "the executor runs its tasks in the process that asked: give one of other processes")
    if not _busy.acquire(blocking=False):
        return Report((), "two tasks came to one process at once: give an executor of processes, one thread each")
    outcomes: list[Outcome] = []
    try:
        headless.choose()  # before anything of the user's is imported
        task: Task = pickle.loads(packed)  # noqa: S301  # whoever can submit a task can run any code as it is
        standing = desks.get()
        with ExitStack() as stack:
            if standing is None:
                desk = stack.enter_context(Desk(task.job))
            elif task.job.id not in standing:
                desk = standing[task.job.id] = Desk(task.job).__enter__()
            else:
                desk = standing[task.job.id]
            tell = listening.get()
            for film in task.films:
                outcomes.append(desk.do(film, tell))
                tell(outcomes[-1])
    except ReenactError as error:
        return Report(tuple(outcomes), str(error))
    except BaseException as error:  # noqa: BLE001  # the user's env may raise anything: it goes to whoever asked
        return Report(tuple(outcomes), raised=Raised.of(error))
    finally:
        _busy.release()
    return Report(tuple(outcomes))
