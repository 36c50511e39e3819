"""One film -> one video, compared with the log while it is made."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from reenact import diagnosis, overlay, recipe, trial, video
from reenact.comparison import describe
from reenact.episode import ReplayResult, finite
from reenact.errors import DamagedError, ReenactError, ReplayError, VideoError, VideoExistsError
from reenact.trial import Trial

if TYPE_CHECKING:
    from pathlib import Path

    from reenact.diagnosis import Explanation
    from reenact.episode import Divergence
    from reenact.films import Film, Part
    from reenact.ladder import Climb, Ladders
    from reenact.logged import Episode
    from reenact.look import Look
    from reenact.reexecute import Reexecution
    from reenact.shelf import Shelf

BANNER = "DIVERGED: not what happened"
Tell = Callable[[int], None]
"""Told how many more frames are done."""


@dataclass(frozen=True, slots=True)
class Options:
    """How films are made.

    Attributes:
        folder: where the videos go, as it was said.
        place: the same for any process, wherever it works.
        look: what they show.
        env_name: what the user's own way to make the env is called; None: the recipe was followed.
        origin: the only one that films are started from, or None.
        tolerance: how far a reward may be off.
        overwrite: whether files made from something else are replaced.
        diverged: whether a diverged replay leaves a marked video.
        job: tells this job from any other.
    """

    folder: Path
    place: Path
    look: Look
    env_name: str | None
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
    path, source = path_of(film, options), _source(film, options)
    done = there_already(film, options, shelf)
    if done is not None:
        return done
    if not (options.overwrite or shelf.may_take(path, source)):
        return refused(
            film, f"{path} is there already, and no video of this run that you made: --overwrite replaces it"
        )
    climbs: dict[str, Climb] = {}
    marks: dict[str, int] = {}
    progress = _Progress(tell)
    while True:
        with _Take(film, options, ladders, climbs, marks) as take:
            if not take.shoot(progress):
                continue  # an episode goes to its next rung, or is marked from an earlier frame on
            result = take.result()
            if result.divergence is None:
                return take.keep(result, path, source, shelf)
            if not options.diverged:
                return result
            path = path.with_name(f"{film.name}-diverged{options.look.ending}")
            return take.keep(result, path, source, shelf)


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
    path = path_of(film, options)
    if not (options.overwrite or shelf.may_take(path, _source(film, options))):
        return refused(film, _taken(options.folder / path.name))
    made = refused(film, "")
    return replace(made, verdict="planned", error=None, path=str(options.folder / path.name), frames=film.frames)


def path_of(film: Film, options: Options) -> Path:
    """Returns where a film's video goes: the plain name is for exact ones alone, and a tolerance never makes one."""
    return options.place / f"{film.name}{'-tolerated' if options.tolerance else ''}{options.look.ending}"


def _taken(path: Path) -> str:
    return f"{path} is there already, and no video of this run that you made: --overwrite replaces it"


class _Progress:
    """Tells of each frame of a film the first time that it is made."""

    def __init__(self, tell: Tell) -> None:
        self._tell, self._told = tell, 0

    def reached(self, frames: int) -> None:
        if frames > self._told:
            self._tell(frames - self._told)
            self._told = frames


class _Take:
    """Films once; whatever was not kept is thrown away at the end.

    Args:
        film: what is filmed.
        options: how.
        ladders: of the job.
        climbs: by the address of an episode, how far up its ladder it is; grows.
        marks: by the address of an episode that no rung is exact for, its first frame that can't be trusted; grows.
    """

    def __init__(
        self, film: Film, options: Options, ladders: Ladders, climbs: dict[str, Climb], marks: dict[str, int]
    ) -> None:
        self._film, self._options, self._ladders, self._climbs, self._marks = film, options, ladders, climbs, marks
        self._writer: video.VideoWriter | None = None
        self._began = time.monotonic()

    def __enter__(self) -> _Take:
        return self

    def __exit__(self, *error: object) -> None:
        if self._writer is not None:
            self._writer.abandon()

    def shoot(self, progress: _Progress) -> bool:
        """Re-executes the episodes, and encodes the film's frames.

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
                with ladder.on(climb, render=True) as run:
                    if not self._film_part(part, run, before, progress, to_the_end=settled):
                        return False
                divergence = run.divergence
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
            before += part.end - part.first
        return True

    def _fail(self, address: str, climb: Climb, divergence: Divergence | None, error: ReenactError | None) -> None:
        if not climb.failed(divergence, str(error) if error is not None else None):
            best = trial.settled(climb).divergence
            assert best is not None  # noqa: S101  # for mypy: `settled` raises where there is none
            self._marks[address] = best.since + 1

    def _film_part(self, part: Part, run: Reexecution, before: int, progress: _Progress, *, to_the_end: bool) -> bool:
        """Encodes a part's frames, to the first difference or to the end; returns false where marks began too late."""
        address = part.episode.address
        for at, frame in enumerate(run):
            if run.divergence is not None and not to_the_end:
                break
            if to_the_end and run.divergence is not None and run.divergence.since + 1 < self._marks[address]:
                # An env that wavers went astray sooner than before: all of that episode is marked.
                self._marks[address] = 0
                return False
            if not part.first <= at < part.end:
                continue  # a clip's verdict needs the whole episode, its video only a part
            if self._writer is None:
                encoding = self._options.look.encoding(run.env.metadata.get("render_fps") or 30)
                title = path_of(self._film, self._options).stem
                self._writer = video.VideoWriter(self._options.place, encoding, title)
            marked = to_the_end and at >= self._marks[address]
            self._writer.write(frame, over=overlay.banner(frame, BANNER) if marked else None)
            progress.reached(before + at - part.first + 1)
        return True

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

    def keep(self, result: ReplayResult, path: Path, source: dict[str, object], shelf: Shelf) -> ReplayResult:
        """Gives the video its name; an episode whose reset raised has nothing to show."""
        if self._writer is None:
            return result
        kept = replace(result, path=str(self._options.folder / path.name), frames=self._writer.frames)
        provenance = {**_provenance(self._film, kept), "source": source}
        entry = {
            **{name: provenance[name] for name in ("source", "verdict", "origin", "frames", "episode", "address")},
            "job": self._options.job,
            "seconds": round(time.monotonic() - self._began, 3),
        }
        try:
            self._writer.finish(
                path,
                title=path.stem,
                comment=provenance,
                overwrite=self._options.overwrite or shelf.may_replace(path, source),
                entered=lambda video: shelf.enter(video, path, entry),
            )
        except VideoExistsError:
            if shelf.find(path, source, result.verdict) is not None:
                return replace(kept, reused=True)  # another job has made it meanwhile
            return replace(
                result, error="; ".join(filter(None, (result.error, _taken(self._options.folder / path.name))))
            )
        except VideoError as error:
            return replace(result, error=f"{result.error}; {error}" if result.error else str(error))
        return kept


# ---- what to say of it


def _source(film: Film, options: Options) -> dict[str, object]:
    """Returns what a video is made from, and how: equal for a video that need not be made again."""
    episode = film.parts[0].episode
    return {
        "run": episode.run.uuid,
        "recipe": episode.attributes.get("signature"),
        "frames": [[part.episode.address, part.first, part.end] for part in film.parts],
        "look": options.look.to_json(),
        "env": options.env_name,
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
