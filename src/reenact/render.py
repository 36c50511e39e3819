"""The job: a selection -> films -> re-execution -> videos and results.

Alone, with `filming`, in knowing paths and episodes both.
"""

from __future__ import annotations

import sys
import traceback
import warnings
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Unpack

import gymnasium as gym
from gymnasium.utils.save_video import capped_cubic_video_schedule

from reenact import diagnosis, filming, films, following, partials, recipe, trial, usercode
from reenact.errors import ReenactError, RenderError, SelectionError
from reenact.ladder import Ladders
from reenact.look import Look, Looks
from reenact.rebuild import Permissions
from reenact.run import Run, open_run
from reenact.selection import Awaited, Episodes, Picks, Trigger, callable_trigger, given_of, select
from reenact.shelf import Shelf

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from reenact.episode import ReplayResult
    from reenact.films import Film
    from reenact.logged import Episode

RunLike = Run | str | PathLike[str]


class Choices(Picks, Looks, total=False):
    """The keywords of `replay` that select, and those that say what the videos show."""


class Observer(Protocol):
    """Told how a job goes, while it goes."""

    def planned(self, frames: int) -> None:
        """So many frames (or steps) will be made in all; of a run that is followed, before the next wait."""

    def waiting(self, what: str) -> None:
        """A run is followed, and there is nothing to do for now."""

    def advanced(self, frames: int) -> None:
        """So many more are done."""

    def chained(self, done: int, total: int) -> None:
        """So many of the resets that have to come before the next episode are done; told now and then."""

    def finished(self, result: ReplayResult) -> None:
        """One episode or clip is done."""


class _Nobody:
    """Stands in for an observer where there is none."""

    def planned(self, frames: int) -> None: ...
    def waiting(self, what: str) -> None: ...
    def advanced(self, frames: int) -> None: ...
    def chained(self, done: int, total: int) -> None: ...
    def finished(self, result: ReplayResult) -> None: ...


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

    def __post_init__(self) -> None:
        if self.video_length < 0:
            raise SelectionError(f"video_length must be 0 or more, got {self.video_length}")

    def films(self, run: Run, prefix: str) -> list[Film]:
        """Returns the films of a run as it stands."""
        given = self.episodes is not None or self.trigger is not None or bool(given_of(self.picks))
        default = run.usual(capped_cubic_video_schedule)
        numbers = (
            []
            if self.clip is not None and not given
            else select(run, self.episodes, trigger=self.trigger, default=default, **self.picks)
        )
        if self.clip is None and self.video_length == 0:
            return [films.whole(run[number], prefix) for number in numbers]
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
        default = capped_cubic_video_schedule
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
        observer: is told how the job goes.
        choices: what else selects: `every`, `best`, `worst`, `median`, `percentile`, `last`; `where`, `ended` and
            `marked` narrow first (see `Picks`). And what the videos show (see `Look`).

    Returns:
        One result an episode or clip, in order. What went wrong with one of them stands in it.

    Raises:
        ReenactError: nothing could begin: no such run or episode, or a selection that can't be understood.
    """
    if trigger is not None and episode_trigger is not None:
        raise SelectionError("trigger and episode_trigger are the same thing: give one of them")
    picked, clip = callable_trigger(trigger) or episode_trigger, callable_trigger(step_trigger)
    picks, look = _parted(choices)
    wish = _Wish(episodes, picked, picks, clip, video_length)
    if name_prefix is not None and (not name_prefix or Path(name_prefix).name != name_prefix):
        raise SelectionError(f"name_prefix must be a plain name, got {name_prefix!r}")
    awaited = wish.awaited() if follow else None
    watcher = observer if observer is not None else _Nobody()
    ladders = _ladders(env, origin, tolerance, watcher, Permissions(trust=trust, imports=tuple(imports)))
    opened = following.opened(run, watcher.waiting) if follow else _opened(run)
    prefix = name_prefix if name_prefix is not None else opened.name
    options = filming.Options(
        folder=Path(video_folder) if video_folder is not None else opened.folder / "videos",
        look=look,
        env_name=env if isinstance(env, str) else None if env is None else getattr(env, "__qualname__", repr(env)),
        overwrite=overwrite,
        diverged=diverged,
    )
    batches: Iterable[list[Film]] = (
        [wish.films(opened, prefix)]
        if awaited is None
        else (
            [films.whole(opened[number], prefix) for number in numbers]
            for numbers in following.picked(opened, awaited, watcher.waiting)
        )
    )
    partials.sweep(options.folder)
    shelf = Shelf(options.folder)
    with ladders:
        made = _each(
            _announced(batches, watcher),
            watcher,
            lambda film: filming.make(film, options, ladders, shelf, watcher.advanced),
        )
    if awaited is None:
        return made
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
    observer: Observer | None = None,
    **picks: Unpack[Picks],
) -> list[ReplayResult]:
    """Re-executes episodes without making videos, and compares; all of them unless told.

    Arguments and errors are those of `replay`; `rendered` says whether every frame is drawn, and thrown away.
    """
    opened = _opened(run)
    numbers = select(opened, episodes, trigger=callable_trigger(trigger), default=opened.usual(None), **picks)
    watcher = observer if observer is not None else _Nobody()
    ladders = _ladders(env, origin, tolerance, watcher, Permissions(trust=trust, imports=tuple(imports)))

    def one(film: Film) -> ReplayResult:
        episode = film.parts[0].episode
        ladder = ladders.of(episode)
        found = trial.run(ladder, episode, render=rendered, tell=watcher.advanced)
        explained = None if found.climb is None else diagnosis.explain(ladder, found.climb, episode, rendered=rendered)
        return filming.result_of(film, ladders.tolerance, found, explained=explained)

    batches = [[films.whole(opened[number], "") for number in numbers]]
    with ladders:
        return _each(_announced(batches, watcher), watcher, one)


def _parted(choices: Choices) -> tuple[Picks, Look]:
    """Parts what selects from what the videos show.

    Raises:
        TypeError: a keyword is neither.
    """
    picks: Any = {name: value for name, value in choices.items() if name in Picks.__annotations__}
    looks: Any = {name: value for name, value in choices.items() if name not in picks}
    return picks, Look(**looks)


def _ladders(
    env: str | recipe.EnvFactory | None,
    origin: str | None,
    tolerance: float,
    observer: Observer,
    permissions: Permissions,
) -> Ladders:
    """Returns a job's ladders, which make their envs as its options say."""
    if not 0 <= tolerance < float("inf"):
        raise SelectionError(f"tolerance must be 0 or more, got {tolerance}")
    factory = usercode.load(env) if isinstance(env, str) else env
    return Ladders(
        lambda stage: replace(stage, factory=factory, permissions=permissions),
        forced=origin,
        tolerance=float(tolerance),
        tell=observer.chained,
    )


def _warn_of_versions(episodes: Iterable[Episode], warned: set[tuple[str, int]]) -> None:
    """Warns of packages that are not as they were when any of the episodes was recorded, a segment once."""
    differing: dict[str, tuple[str, str]] = {}
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
        warnings.warn(said, UserWarning, stacklevel=5)  # in whoever called replay or verify


def _announced(batches: Iterable[list[Film]], observer: Observer) -> Iterator[Film]:
    """Yields the films of each batch, once its size has been told, and what is not as it was when it was recorded."""
    warned: set[tuple[str, int]] = set()
    for wanted in batches:
        _warn_of_versions((part.episode for film in wanted for part in film.parts), warned)
        observer.planned(sum(part.end - part.first for film in wanted for part in film.parts))
        yield from wanted


def _each(wanted: Iterable[Film], observer: Observer, make: Callable[[Film], ReplayResult]) -> list[ReplayResult]:
    """Makes one film after another; what refuses one of them becomes its result.

    Where an env's `render()` raised, its traceback goes to stderr, once for all the episodes that it hit.
    """
    results = []
    shown: set[str] = set()
    for film in wanted:
        try:
            result = make(film)
        except gym.error.DependencyNotInstalled as error:
            result = filming.refused(film, f"the env needs a package that is not installed: {error}")
        except ReenactError as error:
            result = filming.refused(film, str(error))
            if isinstance(error, RenderError) and str(error) not in shown:
                shown.add(str(error))
                traceback.print_exception(error.__cause__, file=sys.stderr)  # it is the user's to mend
        results.append(result)
        observer.finished(result)
    return results


def _opened(run: RunLike) -> Run:
    return run if isinstance(run, Run) else open_run(run)
