"""One take of a film after another, each compared with the log, until every episode was exact or has no rung left."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

from reenact import diagnosis, trial
from reenact.errors import DamagedError, ReenactError, ReplayError
from reenact.logged import name_of
from reenact.results import result_of
from reenact.shots import Scene, Shot, Sink

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from reenact.episode import Divergence, ReplayResult
    from reenact.films import Film, Part
    from reenact.ladder import Climb, Ladders
    from reenact.reexecute import Reexecution


class _Taking(Sink, Protocol):
    def close(self) -> None:
        """Throws away what it has taken, unless that has a name."""


_S = TypeVar("_S", bound=_Taking)


def settled(
    film: Film, ladders: Ladders, sink: Callable[[], _S], tell: Callable[[int], None]
) -> tuple[_S, ReplayResult]:
    """Films until each episode was exact by one of its rungs, or none is left; returns what took the last take."""
    climbs: dict[str, Climb] = {}
    marks: dict[str, int] = {}
    progress = _Progress(tell)
    while True:
        taking = sink()
        try:
            take = _Take(film, ladders, taking, climbs, marks)
            if take.shoot(progress):
                return taking, take.result()
        except BaseException:
            taking.close()
            raise
        taking.close()  # an episode goes to its next rung, or is marked from an earlier frame on


class _Progress:
    """Tells of each frame of a film the first time that it is made."""

    def __init__(self, tell: Callable[[int], None]) -> None:
        self._tell, self._told = tell, 0

    def reached(self, frames: int) -> None:
        if frames > self._told:
            self._tell(frames - self._told)
            self._told = frames


class _Take:
    """Films once.

    Args:
        film: what is filmed.
        ladders: of the job.
        sink: takes the shots.
        climbs: by the address of an episode, how far up its ladder it is; grows.
        marks: by the address of an episode that no rung is exact for, its first frame that can't be trusted; grows.
    """

    def __init__(
        self, film: Film, ladders: Ladders, sink: Sink, climbs: dict[str, Climb], marks: dict[str, int]
    ) -> None:
        self._film, self._ladders, self._sink, self._climbs, self._marks = film, ladders, sink, climbs, marks

    def shoot(self, progress: _Progress) -> bool:
        """Re-executes the episodes, and hands over the film's frames.

        Returns:
            Whether it is done: false where it has to be filmed once more, by other rungs or with other marks.

        Raises:
            ReplayError: an episode can be started by no rung.
        """
        before = 0
        for part in self._film.parts:
            ladder = self._ladders.of(part.episode)
            climb = self._climbs.get(part.episode.address) or ladder.climb(part.episode, render=True)
            self._climbs[part.episode.address] = climb
            exhausted = climb.exhausted
            error = divergence = None
            try:
                with ladder.on(climb, render=True, shown=range(part.first, part.end)) as run:
                    self._sink.begin(scene(part, climb, run))
                    for shot in self._shots(part, run, to_the_end=exhausted):
                        self._sink.take(shot)
                        progress.reached(before + shot.at - part.first + 1)
                divergence = run.divergence
            except _MarkedTooLateError:
                return False
            except (ReplayError, DamagedError) as refusal:
                error = refusal
            if exhausted:
                if error is not None:
                    raise error
            elif divergence is None and error is None:
                climb.succeeded()
            else:
                self._fail(part.episode.address, climb, divergence, error)
                return False
            self._sink.end()
            before += part.frames
        return True

    def _fail(self, address: str, climb: Climb, divergence: Divergence | None, error: ReenactError | None) -> None:
        if not climb.failed(divergence, str(error) if error is not None else None):
            best = trial.settled(climb).divergence
            assert best is not None  # noqa: S101  # for mypy: `settled` raises where there is none
            self._marks[address] = best.since + 1

    def _shots(self, part: Part, run: Reexecution, *, to_the_end: bool) -> Iterator[Shot]:
        """Yields what is shown of a part, to the first difference or to the end.

        Raises:
            _MarkedTooLateError: an env that wavers went astray sooner than before: all of that episode is marked now.
        """
        address = part.episode.address
        for at, frame in enumerate(run):
            if run.divergence is not None and not to_the_end:
                return
            if to_the_end and run.divergence is not None and run.divergence.since + 1 < self._marks[address]:
                self._marks[address] = 0
                raise _MarkedTooLateError
            if part.first <= at < part.end:  # its verdict needs the whole episode, its video only a part
                yield Shot(frame, at, marked=to_the_end and at >= self._marks[address])

    def result(self) -> ReplayResult:
        """Says how it went."""
        first = self._climbs[self._film.parts[0].episode.address]
        for part in self._film.parts:
            climb = self._climbs[part.episode.address]
            if climb.exhausted:
                found = trial.settled(climb)
                explained = diagnosis.explain(self._ladders.of(part.episode), climb, part.episode, rendered=True)
                return result_of(self._film, self._ladders.tolerance, found, explained=explained)
        found = trial.Trial(first.stood, None, first.tried)
        return result_of(self._film, self._ladders.tolerance, found)


class _MarkedTooLateError(Exception):
    """Frames that can't be trusted were handed over without their mark."""


def scene(part: Part, climb: Climb, run: Reexecution) -> Scene:
    """Returns a part as what takes its shots is told of it."""
    fps = run.env.metadata.get("render_fps") or 30
    return Scene(name_of(part.episode), part.first, part.end, climb.data.rewards, fps)
