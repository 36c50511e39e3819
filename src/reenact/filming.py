"""One film -> one video, compared with the log while it is made."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from reenact import recipe
from reenact.composing import Grid
from reenact.cutting import Cutter
from reenact.episode import ReplayResult, finite
from reenact.errors import ReenactError, VideoError, VideoExistsError
from reenact.films import Film
from reenact.logged import name_of
from reenact.results import refused, result_of, united, without_video
from reenact.shots import Spool
from reenact.takes import settled
from reenact.trial import Trial

if TYPE_CHECKING:
    from pathlib import Path

    from reenact.ladder import Ladders
    from reenact.look import Look
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
                f"episode {name_of(part.episode)} has {length} steps, and so frames 0 to {length}: "
                f"none of them is in {first}:{end}"
            )
    return None


# ---- the takes


class _Video(Protocol):
    """What is about to be a video."""

    def develop(self) -> VideoWriter | None:
        """Draws what has waited until all was there; returns what holds the whole video now."""

    def close(self) -> None:
        """Throws it away, unless it has its name."""


def _shoot(film: Film, options: Options, ladders: Ladders, tell: Tell) -> tuple[_Video, ReplayResult]:
    """Films a film straight into its video."""
    title = path_of(film, options).stem
    return settled(film, ladders, lambda: Cutter(options.place, options.look, title), tell)


def _compose(film: Film, options: Options, ladders: Ladders, tell: Tell) -> tuple[_Video, ReplayResult]:
    """Films each episode by itself, and puts them together: one that goes to its next rung holds up no other."""
    kind = Grid if options.look.grid is not None else Cutter
    video = kind(options.place, options.look, path_of(film, options).stem)
    results: list[ReplayResult] = []
    try:
        for part in film.parts:
            alone = Film(film.name, (part,))
            try:
                spool, result = settled(alone, ladders, lambda: Spool(options.place), tell)
            except ReenactError as error:
                error.args = (f"episode {name_of(part.episode)}: {error}",)
                raise
            results.append(result)
            video.add(spool)
    except BaseException:
        video.close()
        raise
    return video, united(film, results)


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
        return without_video(result, _taken(path, options, shelf))
    except VideoError as error:
        return without_video(result, str(error))
    return kept


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
