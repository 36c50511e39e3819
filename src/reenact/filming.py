"""One film -> one video, compared with the log while it is made."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol, TypeVar

from reenact import diagnosis, recipe, trial
from reenact.comparison import describe
from reenact.composing import Grid
from reenact.cutting import Cutter
from reenact.episode import ReplayResult, finite
from reenact.errors import DamagedError, ReenactError, ReplayError, VideoError, VideoExistsError
from reenact.films import Film
from reenact.shots import Scene, Shot, Sink, Spool
from reenact.trial import Trial

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from reenact.diagnosis import Explanation
    from reenact.episode import Divergence
    from reenact.films import Part
    from reenact.ladder import Climb, Ladders
    from reenact.logged import Episode
    from reenact.look import Look
    from reenact.reexecute import Reexecution
    from reenact.shelf import Shelf
    from reenact.video import VideoWriter

Tell = Callable[[int], None]
"""Told how many more frames are done."""


@dataclass(frozen=True, slots=True)
class Options:
    """How films are made.

    Attributes:
        folder: where the videos go, as it was said.
        place: the same for any process, wherever it works.
        look: what they show.
        env: what the user's own way to make the env is known by; None: the recipe is followed (see `Film.code`).
        origin: the only one that films are started from, or None.
        tolerance: how far a reward may be off.
        overwrite: whether files made from something else are replaced.
        diverged: whether a diverged replay leaves a marked video.
        job: tells this job from any other.
    """

    folder: Path
    place: Path
    look: Look
    env: str | None
    origin: str | None
    tolerance: float
    overwrite: bool
    diverged: bool
    job: str


def make(film: Film, options: Options, ladders: Ladders, shelf: Shelf, tell: Tell) -> ReplayResult:
    """Makes a film's video, unless it is there already.

    Args:
        film: what is filmed.
        options: how.
        ladders: of the job.
        shelf: where the video goes.
        tell: told of each frame, the first time that it is made.

    Raises:
        ReenactError: it can't be made; no file is left.
    """
    why = _none_in_slice(film, options.look)
    if why is not None:
        return refused(film, why)
    path, source = path_of(film, options), _source(film, options)
    done = there_already(film, options, shelf)
    if done is not None:
        return done
    if not (options.overwrite or shelf.may_take(path, source)):
        return refused(film, _taken(path, options, shelf))
    began = time.monotonic()
    making = _compose if options.look.composed else _shoot
    video, result = making(film, options, ladders, tell)
    with contextlib.closing(video):
        if result.divergence is not None:
            path = path_of(film, options, diverged=True)
            if options.look.render_kwargs and result.cause is None:
                result = replace(result, cause="maybe render_kwargs change more than the frames: replay without them")
            if not options.diverged:
                return result
        writer = video.develop()
        if writer is None:
            return result  # an episode whose reset raised has nothing to show
        return _keep(_Made(film, result, source, time.monotonic() - began), writer, path, options, shelf)


def there_already(film: Film, options: Options, shelf: Shelf) -> ReplayResult | None:
    """Returns the result of a video that is there already, made from the same with the same options; else None."""
    path, source = path_of(film, options), _source(film, options)
    entry = shelf.find(path, source, "tolerated" if options.tolerance else "exact")
    if entry is None:
        return None
    made = result_of(film, options.tolerance, Trial(str(entry.get("origin")), None, ()))
    frames = entry.get("frames")
    again = entry.get("job") != options.job  # else this very job made it, in a worker that died before it could say so
    return replace(
        made, path=str(options.folder / path.name), frames=frames if isinstance(frames, int) else 0, reused=again
    )


def planned(film: Film, options: Options, shelf: Shelf) -> ReplayResult:
    """Returns what a dry run says of a film that is not there already."""
    why = _none_in_slice(film, options.look)
    if why is not None:
        return refused(film, why)
    path = path_of(film, options)
    if not (options.overwrite or shelf.may_take(path, _source(film, options))):
        return refused(film, _taken(path, options, shelf))
    made = refused(film, "")
    return replace(made, verdict="planned", error=None, path=str(options.folder / path.name), frames=film.frames)


def path_of(film: Film, options: Options, *, diverged: bool = False) -> Path:
    """Returns where a film's video goes: the plain name is for exact ones alone, and a tolerance never makes one."""
    how = options.look.suffix + "-tolerated" * bool(options.tolerance) + "-diverged" * diverged
    return options.place / f"{film.name}{how}{options.look.ending}"


def _taken(path: Path, options: Options, shelf: Shelf) -> str:
    what = "no longer the video that you made there" if shelf.was_made(path) else "no video of this run that you made"
    return f"{options.folder / path.name} is there already, and {what}: --overwrite replaces it"


def _none_in_slice(film: Film, look: Look) -> str | None:
    """Says of which episode no frame is in the slice that is shown; None: each has some."""
    for part in film.parts:
        if not part.frames:
            first, end = ("" if one is None else one for one in look.steps or (None, None))
            length = part.episode.length
            return (
                f"episode {_name(part.episode)} has {length} steps, and so frames 0 to {length}: "
                f"none of them is in {first}:{end}"
            )
    return None


# ---- one take after another


class _Taking(Sink, Protocol):
    def close(self) -> None:
        """Throws away what it has taken, unless that has a name."""


class _Video(Protocol):
    """What is about to be a video."""

    def develop(self) -> VideoWriter | None:
        """Draws what has waited until all was there; returns what holds the whole video now."""

    def close(self) -> None:
        """Throws it away, unless it has its name."""


def _shoot(film: Film, options: Options, ladders: Ladders, tell: Tell) -> tuple[_Video, ReplayResult]:
    """Films a film straight into its video."""
    title = path_of(film, options).stem
    return _settled(film, ladders, lambda: Cutter(options.place, options.look, title), tell)


def _compose(film: Film, options: Options, ladders: Ladders, tell: Tell) -> tuple[_Video, ReplayResult]:
    """Films each episode by itself, and puts them together: one that goes to its next rung holds up no other."""
    kind = Grid if options.look.grid is not None else Cutter
    video = kind(options.place, options.look, path_of(film, options).stem)
    results: list[ReplayResult] = []
    try:
        for part in film.parts:
            alone = Film(film.name, (part,))
            try:
                spool, result = _settled(alone, ladders, lambda: Spool(options.place), tell)
            except ReenactError as error:
                error.args = (f"episode {_name(part.episode)}: {error}",)
                raise
            results.append(result)
            video.add(spool)
    except BaseException:
        video.close()
        raise
    return video, _united(film, results)


_S = TypeVar("_S", bound=_Taking)


def _settled(film: Film, ladders: Ladders, sink: Callable[[], _S], tell: Tell) -> tuple[_S, ReplayResult]:
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

    def __init__(self, tell: Tell) -> None:
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
            settled = climb.exhausted
            error = divergence = None
            try:
                with ladder.on(climb, render=True, shown=range(part.first, part.end)) as run:
                    self._sink.begin(scene(part, climb, run))
                    for shot in self._shots(part, run, to_the_end=settled):
                        self._sink.take(shot)
                        progress.reached(before + shot.at - part.first + 1)
                divergence = run.divergence
            except _MarkedTooLateError:
                return False
            except (ReplayError, DamagedError) as refusal:
                error = refusal
            if settled:
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
    return Scene(_name(part.episode), part.first, part.end, climb.data.rewards, fps)


def _name(episode: Episode) -> str:
    return episode.address if episode.number is None else str(episode.number)


# ---- the video and its name


@dataclass(frozen=True, slots=True)
class _Made:
    """What is to get its name: of what film, how it went, from what, in how many seconds."""

    film: Film
    result: ReplayResult
    source: dict[str, object]
    seconds: float


def _keep(made: _Made, video: VideoWriter, path: Path, options: Options, shelf: Shelf) -> ReplayResult:
    """Gives a video its name."""
    result, source = made.result, made.source
    kept = replace(result, path=str(options.folder / path.name), frames=video.frames)
    provenance = {**_provenance(made.film, kept), "source": source}
    entry = {
        **{name: provenance[name] for name in ("source", "verdict", "origin", "frames", "episode", "address")},
        "job": options.job,
        "seconds": round(made.seconds, 3),
    }
    try:
        video.finish(
            path,
            title=path.stem,
            comment=provenance,
            overwrite=options.overwrite or shelf.may_replace(path, source),
            entered=lambda complete: shelf.enter(complete, path, entry),
        )
    except VideoExistsError:
        if shelf.find(path, source, result.verdict) is not None:
            return replace(kept, reused=True)  # another job has made it meanwhile
        return _without_video(result, _taken(path, options, shelf))
    except VideoError as error:
        return _without_video(result, str(error))
    return kept


def _without_video(result: ReplayResult, why: str) -> ReplayResult:
    """Returns a result whose video could not be kept: it says "exact" of none that is not there."""
    verdict = result.verdict if result.verdict == "diverged" else "impossible"
    return replace(result, verdict=verdict, error="; ".join(filter(None, (result.error, why))))


# ---- what to say of it


def _source(film: Film, options: Options) -> dict[str, object]:
    """Returns what a video is made from, and how: equal for a video that need not be made again."""
    episode = film.parts[0].episode
    return {
        "run": episode.run.uuid,
        "recipe": episode.attributes.get("signature"),
        "frames": [[part.episode.address, part.first, part.end] for part in film.parts],
        "episodes": {part.episode.address: part.episode.digest for part in film.parts},
        "look": options.look.to_json(),
        "env": options.env if options.env is not None else film.code,
        "tolerance": options.tolerance,
        **({"origin": options.origin} if options.origin else {}),
    }


def _provenance(film: Film, result: ReplayResult) -> dict[str, object]:
    episode = film.parts[0].episode
    return {
        "made_by": "reenact",
        "run_name": episode.run.name,
        "episode": result.episode,
        "address": result.address,
        "seed": result.seed,
        "return": finite(result.return_),
        "length": result.length,
        "ended": episode.ended,
        "origin": result.origin,
        "verdict": result.verdict,
        "frames": result.frames,
        "recorded_with": episode.attributes.get("versions"),
        "replayed_with": recipe.versions({"modules": []}),
    }


def result_of(film: Film, tolerance: float, found: Trial, *, explained: Explanation | None = None) -> ReplayResult:
    """Says what came of a film that was re-executed."""
    episode = film.parts[0].episode
    many = {part.episode.address: part.episode for part in film.parts}
    difference = found.divergence
    return ReplayResult(
        episode=episode.number,
        address=episode.address,
        verdict="diverged" if difference is not None else "tolerated" if tolerance else "exact",
        origin=found.origin,
        length=sum(part.length for part in many.values()),
        return_=episode.return_ if len(many) == 1 else sum(part.return_ for part in many.values()),
        seed=_seed_or_none(episode),
        divergence=difference,
        error=None if difference is None else f"the replay diverged: {describe(difference)}",
        tolerance=tolerance,
        episodes=tuple(many),
        cause=explained.cause if explained is not None else None,
        tried=found.tried,
        differs=explained.differs if explained is not None else {},
    )


def _united(film: Film, results: list[ReplayResult]) -> ReplayResult:
    """Says what came of several episodes in one video: what came of the worst of them."""
    first = results[0]
    worst = next((one for one in results if one.verdict == "diverged"), first)
    return replace(
        worst,
        episode=first.episode,
        address=first.address,
        seed=first.seed,
        length=sum(one.length for one in results),
        return_=sum(one.return_ for one in results),
        episodes=tuple(dict.fromkeys(part.episode.address for part in film.parts)),
        error=worst.error and f"episode {worst.address if worst.episode is None else worst.episode}: {worst.error}",
    )


def refused(film: Film, why: str) -> ReplayResult:
    """Says why a film could not be re-executed."""
    episode = film.parts[0].episode
    return ReplayResult(
        episode=episode.number,
        address=episode.address,
        verdict="impossible",
        length=episode.length,
        return_=episode.return_,
        seed=_seed_or_none(episode),
        error=why,
        episodes=tuple(dict.fromkeys(part.episode.address for part in film.parts)),
    )


def _seed_or_none(episode: Episode) -> int | None:
    try:
        return episode.seed
    except ReenactError:  # the details are damaged: that is what the result says already
        return None
