"""How long a job will take, and what that rests on: videos of the run that were made before, or a short attempt."""

from __future__ import annotations

import itertools
import tempfile
import time
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from reenact import takes
from reenact.composing import Grid
from reenact.cutting import Cutter
from reenact.errors import VideoError
from reenact.shots import Shot, Spool
from reenact.work import REFUSALS, reason

if TYPE_CHECKING:
    from collections.abc import Sequence

    from reenact.filming import Options
    from reenact.films import Film, Part
    from reenact.reexecute import Reexecution
    from reenact.shelf import Shelf
    from reenact.shots import Sink
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
    """Films what two seconds suffice for into a folder that is thrown away, a like share of each of its parts."""
    look = replace(options.look, hold=0.0)  # which comes once a film, however long that is
    attempt = _Attempt(_ATTEMPT_S / len(film.parts))
    try:
        with ExitStack() as stack:
            folder = Path(stack.enter_context(_scratch()))
            ladders = stack.enter_context(job.ladders(lambda _done, _total: None))
            cutter = Cutter(folder, look, film.name)
            video = cutter if look.grid is None else Grid(folder, look, film.name)
            stack.callback(video.close)
            for part in film.parts:
                ladder = ladders.of(part.episode)
                climb = ladder.climb(part.episode, render=True)
                if climb.rung.start is not None:
                    return (
                        None,
                        "its episodes start from earlier ones, and how many of these it takes is yet to be seen",
                    )
                sink = stack.enter_context(closing(Spool(folder))) if look.composed else cutter
                with ladder.on(climb, render=True, shown=range(part.first, part.end)) as run:
                    sink.begin(takes.scene(part, climb, run))
                    attempt.film(part, run, sink)
                if isinstance(sink, Spool):
                    video.add(sink)
                else:
                    sink.end()
            video.develop()
            return attempt.rate()
    except REFUSALS as error:
        return None, reason(error)


def _scratch() -> tempfile.TemporaryDirectory[str]:
    try:
        return tempfile.TemporaryDirectory()
    except OSError as error:
        raise VideoError(f"no temporary folder can be made ({error.strerror}): check TMPDIR and disk space") from error


class _Attempt:
    """Films for a while, by the clock.

    Args:
        seconds: how long, of each part.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds, self._frames, self._began = seconds, -1, 0.0

    def film(self, part: Part, run: Reexecution, sink: Sink) -> None:
        """Hands over frames of a part as long as there is time."""
        ends = 0.0
        for at, frame in itertools.islice(enumerate(run), part.first, part.end):
            sink.take(Shot(frame, at, marked=False))
            self._frames += 1
            self._began = self._began or time.monotonic()  # the first loads what is needed for all
            ends = ends or time.monotonic() + self._seconds
            if time.monotonic() > ends:
                return

    def rate(self) -> tuple[float | None, str]:
        """Returns frames a second, up to now, and what this rests on."""
        if self._frames < 1:
            return None, "its first episode is too short to tell"
        seconds = max(time.monotonic() - self._began, 1e-3)
        return self._frames / seconds, f"an attempt at {self._frames} frames took"
