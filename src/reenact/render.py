"""The job: a selection -> films -> re-execution -> videos and results.

Alone, with `filming`, in knowing paths and episodes both.
"""

from __future__ import annotations

import difflib
import inspect
import sys
import uuid
import warnings
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from reenact import (
    content,
    diagnosis,
    filming,
    films,
    following,
    forecast,
    handover,
    naming,
    partials,
    recipe,
    refusals,
    signing,
)
from reenact.dispatch import Crews
from reenact.errors import SelectionError
from reenact.look import Look, Looks
from reenact.look import of as look_of
from reenact.run import Run
from reenact.selection import Awaited, Episodes, Picks, Trigger, callable_trigger, capped_cubic, given_of, select
from reenact.shelf import Shelf
from reenact.strangers import Permissions
from reenact.work import Job

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from concurrent.futures import Executor

    from reenact.dispatch import Do, Observer
    from reenact.episode import ReplayResult
    from reenact.films import Film
    from reenact.forecast import Forecast

RunLike = Run | str | PathLike[str]


class Choices(Picks, Looks, total=False):
    """The keywords of `replay` that select, and those that say what the videos show."""


class _Nobody:
    """Stands in for an observer where there is none."""

    def planned(self, frames: int, films: int) -> None: ...
    def waiting(self, what: str) -> None: ...
    def advanced(self, frames: int) -> None: ...
    def chained(self, done: int, total: int) -> None: ...
    def finished(self, result: ReplayResult) -> None: ...
    def foreseen(self, forecast: Forecast) -> None: ...

    def raised(self, trace: str) -> None:
        sys.stderr.write(trace)  # else nobody hears of it


@dataclass(frozen=True, slots=True)
class _Wish:
    """What is to be filmed, as it was asked for.

    Raises:
        SelectionError: a clip's length is below 0.
    """

    episodes: Episodes
    trigger: Trigger | None
    picks: Picks
    clip: Trigger | None
    video_length: int
    look: Look

    def __post_init__(self) -> None:
        if self.video_length < 0:
            raise SelectionError(f"video_length must be 0 or more, got {self.video_length}")
        if (self.clip is not None or self.video_length) and (self.look.composed or self.look.steps is not None):
            raise SelectionError("steps, grid and reel show episodes, step_trigger and video_length clips: give either")

    def films(self, run: Run, prefix: str) -> list[Film]:
        """Returns the films of a run as it stands."""
        given = self.episodes is not None or self.trigger is not None or bool(given_of(self.picks))
        default = run.usual(capped_cubic)
        numbers = (
            []
            if self.clip is not None and not given
            else select(run, self.episodes, trigger=self.trigger, default=default, **self.picks)
        )
        if self.clip is None and self.video_length == 0:
            episodes = [run[number] for number in numbers]
            if self.look.composed:
                return list(films.together(episodes, prefix, self.look))
            return [films.whole(episode, prefix, self.look.steps) for episode in episodes]
        return list(films.clips(run, self.clip, set(numbers), self.video_length, prefix))

    def awaited(self) -> Awaited:
        """Returns the same for a run that is followed.

        Raises:
            SelectionError: there is something that only a finished run can tell.
        """
        if self.clip is not None or self.video_length:
            raise SelectionError(
                "a clip may reach into steps that are yet to come: follow films whole episodes; "
                "leave step_trigger and video_length out, or replay when the training has ended"
            )
        if self.look.composed:
            raise SelectionError("grid and reel show what is there: follow films one by one; leave them out, or follow")
        default = capped_cubic
        return Awaited(self.episodes, trigger=self.trigger, default=default, **self.picks)


def replay(  # one keyword an option of the command
    run: RunLike,
    episodes: Episodes = None,
    *,
    trigger: str | Trigger | None = None,
    episode_trigger: Trigger | None = None,
    step_trigger: str | Trigger | None = None,
    video_length: int = 0,
    video_folder: str | PathLike[str] | None = None,
    name_prefix: str | None = None,
    follow: bool = False,
    env: str | recipe.EnvFactory | None = None,
    origin: str | None = None,
    trust: bool = False,
    imports: Sequence[str] = (),
    tolerance: float = 0.0,
    overwrite: bool = False,
    diverged: bool = True,
    jobs: int = 1,
    executor: Executor | None = None,
    dry_run: bool = False,
    observer: Observer | None = None,
    **choices: Unpack[Choices],
) -> list[ReplayResult]:
    """Turns chosen episodes of a run into videos, each compared with the log while it is made.

    Picks unite; with none at all, the episodes that `RecordVideo` films by default (capped cubic).

    Args:
        run: a run, its folder, or one segment of it.
        episodes: "0,250,-1", "100:200:10", "3.250", "all", or numbers and addresses.
        trigger: "capped-cubic", "module:function" or a callable: episodes for whose number it is true.
        episode_trigger: the same, under `RecordVideo`'s name.
        step_trigger: starts a clip after the n-th env step of an env instance, as in `RecordVideo`.
        video_length: frames a clip, which may span episodes; 0: to the next reset.
        video_folder: where the videos go; None: `videos` in the run's folder.
        name_prefix: of their names; None: the run's name.
        follow: whether to wait for what is yet to come: episodes are filmed as they get their numbers, until no
            segment of the run is live any more. The run need not be there yet. No ranks, no picks that count from
            the end, and no clips.
        env: "module:factory", "path/to/file.py:factory" or a callable that takes `render_mode` by keyword
            and returns the env as it stood under the recorder, for a recipe that can't be followed.
        origin: the only one to start from: "seed", "rng", "snapshot" (the episode alone, in a fresh env), "chain",
            "chain:N" (N resets earlier), "chain:first", "chain:seed", "chain:snapshot" (from the last reset that
            has one); None: each that there is, until one is exact.
        trust: whether a log that somebody else recorded may import and run whatever its recipe names.
        imports: packages that such a log may import.
        tolerance: how far a reward may be off; above 0 fingerprints are left out, and the best
            verdict is "tolerated".
        overwrite: whether files made from something else are replaced.
        diverged: whether a diverged replay leaves a marked video.
        jobs: how many processes do it at a time. 1: this one alone. More: fresh ones, which never import the caller's
            script, and end with the call, however that ends.
        executor: runs it instead, in processes of its own that can read the run and write the folder: any
            `concurrent.futures.Executor` of processes. It is given so many tasks at a time as `jobs` says; 1: 256.
        dry_run: whether nothing is made: results say "planned" of what would be, and where; the observer is told what
            there is to do, and how long it will take.
        observer: is told how the job goes, and given the traceback of what an env's `render()` raises, once of each
            error; without one, this goes to stderr.
        choices: what else selects: `every`, `best`, `worst`, `median`, `percentile`, `last`; `where`, `ended` and
            `marked` narrow first (see `Picks`). And what the videos show and are: `fps`, `speed`, `steps`, `size`,
            `render_kwargs`, `label`, `rewards`, `hold`, `grid`, `reel`, `draft`; `format`, `lossless`, `quality`,
            `preset` (see `Look`).

    Returns:
        One result an episode or clip, in order. What went wrong with one of them stands in it.

    Raises:
        ReenactError: nothing could begin: no such run or episode, or a selection that can't be understood.
    """
    if trigger is not None and episode_trigger is not None:
        raise SelectionError("trigger and episode_trigger are the same thing: give one of them")
    picked, clip = callable_trigger(trigger) or episode_trigger, callable_trigger(step_trigger)
    picks, look = _parted(choices)
    wish = _Wish(episodes, picked, picks, clip, video_length, look)
    if name_prefix is not None and (why := naming.why_not_plain(name_prefix)) is not None:
        raise SelectionError(f"name_prefix must be a plain name, not {name_prefix!r}: {why}")
    if follow and dry_run:
        raise SelectionError("what is yet to come can't be told beforehand: give follow or dry_run")
    awaited = wish.awaited() if follow else None
    watcher = observer if observer is not None else _Nobody()
    crews = Crews(jobs, executor)
    job = _job(env, crews, origin, tolerance, Permissions(trust=trust, imports=tuple(imports)))
    opened = following.opened(run, watcher.waiting) if follow else _opened(run)
    prefix = name_prefix if name_prefix is not None else refusals.name_of(opened)
    folder = Path(video_folder) if video_folder is not None else opened.folder / "videos"
    options = filming.Options(
        folder=folder,
        place=folder.absolute(),
        look=look,
        env=content.of_factory(env, job.id, here=crews.in_process),
        origin=origin,
        tolerance=job.tolerance,
        overwrite=overwrite,
        diverged=diverged,
        job=job.id,
    )
    job = replace(job, options=options)
    refusals.require_writable(folder)
    known = content.Known(job.id, here=crews.in_process)
    wanted = known.films(wish.films(opened, prefix)) if awaited is None else []
    refusals.require_short(wanted, options)
    if dry_run:
        return _foreseen(wanted, job, options, crews.jobs, watcher)
    _warn_of_key()
    partials.sweep(options.place)
    try:
        if awaited is None:
            return _done(wanted, job, crews, watcher)
        made: list[ReplayResult] = []
        warned: set[tuple[str, int]] = set()
        with crews.of(job, watcher) as do:
            for numbers in following.picked(opened, awaited, watcher.waiting):
                wanted = known.films([films.whole(opened[number], prefix, look.steps) for number in numbers])
                refusals.require_short(wanted, options)
                _warn_of_versions(wanted, warned)
                made += _made(wanted, job, watcher, do)
    finally:
        partials.sweep(options.place)  # what workers were making when they were ended
    missing = following.missing(opened, awaited)
    for result in missing:
        watcher.finished(result)
    return sorted(made, key=lambda result: result.episode or 0) + missing


def verify(
    run: RunLike,
    episodes: Episodes = None,
    *,
    trigger: str | Trigger | None = None,
    env: str | recipe.EnvFactory | None = None,
    origin: str | None = None,
    trust: bool = False,
    imports: Sequence[str] = (),
    tolerance: float = 0.0,
    rendered: bool = False,
    jobs: int = 1,
    executor: Executor | None = None,
    observer: Observer | None = None,
    **picks: Unpack[Picks],
) -> list[ReplayResult]:
    """Re-executes episodes without making videos, and compares; all of them unless told.

    Arguments and errors are those of `replay`; `rendered` says whether every frame is drawn, and thrown away.
    """
    watcher = observer if observer is not None else _Nobody()
    crews = Crews(jobs, executor)
    job = replace(
        _job(env, crews, origin, tolerance, Permissions(trust=trust, imports=tuple(imports))), rendered=rendered
    )
    opened = _opened(run)
    numbers = select(opened, episodes, trigger=callable_trigger(trigger), default=opened.usual(None), **picks)
    return _done([films.whole(opened[number], "") for number in numbers], job, crews, watcher)


def _parted(choices: Choices) -> tuple[Picks, Look]:
    """Parts what selects from what the videos show.

    Raises:
        TypeError: a keyword is neither; told as Python tells it of a call whose parameters it knows.
    """
    known = [*Picks.__annotations__, *Looks.__annotations__]
    for name in choices.keys() - set(known):
        near = difflib.get_close_matches(name, [*inspect.signature(replay).parameters, *known], n=1)
        said = f"replay() got an unexpected keyword argument {name!r}"
        raise TypeError(said + (f". Did you mean {near[0]!r}?" if near else ""))
    picks: Any = {name: value for name, value in choices.items() if name in Picks.__annotations__}
    looks: Any = {name: value for name, value in choices.items() if name not in picks}
    return picks, look_of(**looks)


def _job(
    env: str | recipe.EnvFactory | None,
    crews: Crews,
    origin: str | None,
    tolerance: float,
    permissions: Permissions,
) -> Job:
    """Returns a job as its options say, once it is known that these can be understood."""
    found = Job(
        id=uuid.uuid4().hex,
        options=None,
        rendered=False,
        env=env if crews.in_process or env is None or isinstance(env, str) else handover.name_of(env),
        permissions=permissions,
        origin=origin,
        tolerance=float(tolerance),
    )
    found.ladders(lambda _done, _total: None)
    return found


def _done(wanted: list[Film], job: Job, crews: Crews, observer: Observer) -> list[ReplayResult]:
    """Does films; those that are done already need no process."""
    _warn_of_versions(wanted, set())
    with crews.of(job, observer, films=len(wanted)) as do:
        return _made(wanted, job, observer, do)


def _foreseen(
    wanted: list[Film], job: Job, options: filming.Options, jobs: int, observer: Observer
) -> list[ReplayResult]:
    """Says what would be made, and makes nothing."""
    _warn_of_versions(wanted, set())
    shelf = Shelf(options.place)
    prepare, told = job.prepare(), dict[str, str]()
    results = [
        filming.there_already(film, options, shelf)
        or refusals.unmade(film, prepare, told)
        or filming.planned(film, options, shelf)
        for film in wanted
    ]
    for result in results:
        observer.finished(result)
    left = [film for film, result in zip(wanted, results, strict=True) if result.verdict == "planned"]
    there = sum(result.reused for result in results)
    observer.foreseen(forecast.foresee(left, job, options, shelf, there=there, at_once=jobs))
    return results


def _made(wanted: list[Film], job: Job, observer: Observer, do: Do) -> list[ReplayResult]:
    """Makes what is not there already, and returns all results in order."""
    shelf = Shelf(job.options.place) if job.options is not None else None
    results: dict[int, ReplayResult] = {}
    for index, film in enumerate(wanted):
        found = (
            filming.there_already(film, job.options, shelf) if job.options is not None and shelf is not None else None
        )
        if found is not None:
            results[index] = found
    left = [index for index in range(len(wanted)) if index not in results]
    observer.planned(sum(wanted[index].frames for index in left), len(left))
    for result in results.values():
        observer.finished(result)
    results |= zip(left, do([wanted[index] for index in left]), strict=True)
    return [results[index] for index in range(len(wanted))]


def _warn_of_versions(wanted: Iterable[Film], warned: set[tuple[str, int]]) -> None:
    """Warns of packages that are not as they were when any of the episodes was recorded, a segment once."""
    differing: dict[str, tuple[str, str]] = {}
    episodes = [part.episode for film in wanted for part in film.parts]
    segments = {(episode.run.uuid, episode.segment): episode for episode in episodes}
    for segment in segments.keys() - warned:
        differing |= recipe.changed(diagnosis.versions_of(segments[segment]))
    warned |= segments.keys()
    told = [
        f"{name} {then}, now {now}"
        for name, (then, now) in differing.items()
        if name not in ("python", "platform", "reenact")
    ]
    if told:
        said = f"reenact: recorded with {', '.join(told)}: replays may differ"
        warnings.warn(said, UserWarning, stacklevel=4)  # in whoever called replay or verify, but for one that follows


def _warn_of_key() -> None:
    """Warns where no later call will know the videos as its user's own."""
    why = signing.unkept()
    if why is not None:
        said = (
            f"reenact: {why}: the next replay will take these videos for a stranger's, and replace them only with "
            "--overwrite; let XDG_STATE_HOME name a folder that can be written"
        )
        warnings.warn(said, UserWarning, stacklevel=3)  # in whoever called replay


def _opened(run: RunLike) -> Run:
    return run if isinstance(run, Run) else Run(run)
