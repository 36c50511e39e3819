"""How long a job will take, and what that rests on: videos of the run that were made before, or a short attempt."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from reenact import video
from reenact.errors import ReenactError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from reenact.filming import Options
    from reenact.films import Film
    from reenact.reexecute import Reexecution
    from reenact.shelf import Shelf
    from reenact.work import Job

_LATEST = 50
_ATTEMPT_S = 2.0


@dataclass(frozen=True, slots=True)
class Forecast:
    """What is to be made.

    Attributes:
        films: how many.
        frames: theirs, in all.
        there: how many need not be made again.
        seconds: how long it will take, about; None: that can't be told.
        basis: what this rests on, or why it can't be told, in words.
    """

    films: int
    frames: int
    there: int
    seconds: float | None
    basis: str


def foresee(films: Sequence[Film], job: Job, options: Options, shelf: Shelf, *, there: int, at_once: int) -> Forecast:
    """Returns what is known of a job beforehand.

    Args:
        films: what is to be made.
        job: the job.
        options: its options.
        shelf: where the videos go.
        there: how many more are there already.
        at_once: how many processes do it.
    """
    frames = sum(film.frames for film in films)
    if not films:
        return Forecast(0, 0, there, 0.0, "nothing is to be made")
    rate, basis = _rate_of_others(films[0], options, shelf) or _rate_of_attempt(films[0], job, options)
    if rate is None:
        return Forecast(len(films), frames, there, None, basis)
    longest = max(film.frames for film in films)
    seconds = max(frames / min(at_once, len(films)), longest) / rate
    return Forecast(len(films), frames, there, seconds, f"{rate:,.0f} frames/s a process, as {basis}")


def _rate_of_others(film: Film, options: Options, shelf: Shelf) -> tuple[float, str] | None:
    """Returns frames a second of the run's latest videos of that look, and how many these are."""
    alike = [
        entry
        for entry in shelf.timed()
        if entry["source"]["run"] == film.parts[0].episode.run.uuid
        and entry["source"]["look"] == options.look.to_json()
    ][-_LATEST:]
    if not alike:
        return None
    rate = sum(entry["frames"] for entry in alike) / sum(entry["seconds"] for entry in alike)
    return rate, f"the last {len(alike)} of its videos took" if len(alike) > 1 else "its last video took"


def _rate_of_attempt(film: Film, job: Job, options: Options) -> tuple[float | None, str]:
    """Films the first two seconds' worth of a film into a folder that is thrown away."""
    episode = film.parts[0].episode
    try:
        with job.ladders(lambda _done, _total: None) as ladders, tempfile.TemporaryDirectory() as folder:
            ladder = ladders.of(episode)
            climb = ladder.climb(episode, render=True)
            if climb.rung.start is not None:
                return None, "its episodes start from earlier ones, and how many of these it takes is yet to be seen"
            with ladder.on(climb, render=True) as going:
                return _timed(going, options, Path(folder))
    except ReenactError as error:
        return None, str(error)


def _timed(going: Reexecution, options: Options, folder: Path) -> tuple[float | None, str]:
    frames, began = -1, 0.0
    encoding = options.look.encoding(going.env.metadata.get("render_fps") or 30)
    with video.VideoWriter(folder, encoding) as writer:
        for frame in going:
            writer.write(frame)
            frames += 1
            began = began or time.monotonic()  # the first loads what is needed for all
            if time.monotonic() - began > _ATTEMPT_S:
                break
    if frames < 1:
        return None, "its first episode is too short to tell"
    return frames / max(time.monotonic() - began, 1e-3), f"an attempt at {frames} frames took"
