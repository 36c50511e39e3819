"""The job: a selection -> films -> re-execution -> videos and results. Alone in knowing paths and episodes both.

A film is what one video shows: frames of one episode, or of several in a row for a clip.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any, Protocol

import gymnasium as gym
from gymnasium.utils.save_video import capped_cubic_video_schedule

from reenact import recipe, usercode, video
from reenact.episode import Divergence, ReplayResult, finite
from reenact.errors import ReenactError, ReplayError, SelectionError, VideoError
from reenact.reexecute import NEEDS_CHAIN, Reexecution, Stage, describe
from reenact.run import Episode, Run, open_run
from reenact.selection import ClipTrigger, Episodes, Trigger, named_trigger, select

BANNER = "DIVERGED: not what happened"
RunLike = Run | str | PathLike[str]


class Observer(Protocol):
    """Told how a job goes, while it goes."""

    def planned(self, frames: int) -> None:
        """So many frames (or steps) will be made in all."""

    def advanced(self, frames: int) -> None:
        """So many more are done."""

    def finished(self, result: ReplayResult) -> None:
        """One episode or clip is done."""


@dataclass(frozen=True, slots=True)
class Part:
    """Frames [first, end) of an episode; frame 0 is the reset's."""

    episode: Episode
    first: int
    end: int


@dataclass(frozen=True, slots=True)
class Film:
    """What one video shows."""

    name: str
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class _Options:
    folder: Path
    prefix: str
    fps: float | None
    factory: recipe.EnvFactory | None
    env_name: str | None
    tolerance: float
    overwrite: bool
    diverged: bool
    lossless: bool


def replay(  # noqa: PLR0913  # one keyword an option of the command
    run: RunLike,
    episodes: Episodes = None,
    *,
    every: int | None = None,
    trigger: str | Trigger | None = None,
    episode_trigger: Trigger | None = None,
    step_trigger: str | Trigger | None = None,
    video_length: int = 0,
    video_folder: str | PathLike[str] | None = None,
    name_prefix: str | None = None,
    fps: float | None = None,
    env: str | recipe.EnvFactory | None = None,
    tolerance: float = 0.0,
    overwrite: bool = False,
    diverged: bool = True,
    lossless: bool = False,
    observer: Observer | None = None,
) -> list[ReplayResult]:
    """Turns chosen episodes of a run into videos, each compared with the log while it is made.

    Picks unite; with none at all, the episodes that `RecordVideo` films by default (capped cubic).

    Args:
        run: a run, its folder, or one segment of it.
        episodes: "0,250,-1", "100:200:10", "3.250", "all", or numbers and addresses.
        every: episodes whose number it divides.
        trigger: "capped-cubic", "module:function" or a callable: episodes for whose number it is true.
        episode_trigger: the same, under `RecordVideo`'s name.
        step_trigger: starts a clip after the n-th env step of an env instance, as in `RecordVideo`.
        video_length: frames a clip, which may span episodes; 0: to the next reset.
        video_folder: where the videos go; None: `videos` in the run's folder.
        name_prefix: of their names; None: the run's name.
        fps: frames a second; None: the env's `render_fps`, else 30.
        env: "module:factory", "path/to/file.py:factory" or a callable that takes `render_mode` by keyword
            and returns the env as it stood under the recorder, for a recipe that can't be followed.
        tolerance: how far a reward may be off; above 0 fingerprints are left out, and the best verdict is "tolerated".
        overwrite: whether files made from something else are replaced.
        diverged: whether a diverged replay leaves a marked video.
        lossless: whether the video's pixels are the frames' to the bit (not for browsers).
        observer: is told how the job goes.

    Returns:
        One result an episode or clip, in order. What went wrong with one of them stands in it.

    Raises:
        ReenactError: nothing could begin: no such run or episode, or a selection that can't be understood.
    """
    opened = _opened(run)
    picked = _callable_trigger(trigger) or episode_trigger
    clip = _callable_trigger(step_trigger)
    if video_length < 0:
        raise SelectionError(f"video_length must be 0 or more, got {video_length}")
    if trigger is not None and episode_trigger is not None:
        raise SelectionError("trigger and episode_trigger are the same thing: give one of them")
    if fps is not None:
        video.Encoding(fps=fps)  # refuses a rate that no video can have, before any work
    picks_given = episodes is not None or every is not None or picked is not None
    numbers = (
        []
        if clip is not None and not picks_given
        else select(opened, episodes, every=every, trigger=picked, default=capped_cubic_video_schedule)
    )
    factory = usercode.load(env) if isinstance(env, str) else env
    options = _Options(
        folder=Path(video_folder) if video_folder is not None else opened.folder / "videos",
        prefix=name_prefix if name_prefix is not None else opened.name,
        fps=fps,
        factory=factory,
        env_name=env if isinstance(env, str) else None if env is None else getattr(env, "__qualname__", repr(env)),
        tolerance=_checked_tolerance(tolerance),
        overwrite=overwrite,
        diverged=diverged,
        lossless=lossless,
    )
    if Path(options.prefix).name != options.prefix:
        raise SelectionError(f"name_prefix must be a plain name, got {options.prefix!r}")
    if clip is None and video_length == 0:
        films: Iterable[Film] = [_whole(opened[number], options.prefix) for number in numbers]
        total = sum(part.end for film in films for part in film.parts)
    else:
        films = list(_clips(opened, clip, set(numbers), video_length, options.prefix))
        total = sum(part.end - part.first for film in films for part in film.parts)
    return _each(films, total, observer, lambda film, tell: _film(film, options, tell))


def verify(
    run: RunLike,
    episodes: Episodes = None,
    *,
    every: int | None = None,
    trigger: str | Trigger | None = None,
    env: str | recipe.EnvFactory | None = None,
    tolerance: float = 0.0,
    observer: Observer | None = None,
) -> list[ReplayResult]:
    """Re-executes episodes without drawing, and compares; all of them unless told. Arguments as in `replay`."""
    opened = _opened(run)
    numbers = select(opened, episodes, every=every, trigger=_callable_trigger(trigger))
    factory = usercode.load(env) if isinstance(env, str) else env
    tolerance = _checked_tolerance(tolerance)
    total = int(opened.lengths[numbers].sum()) + len(numbers)
    films = (_whole(opened[number], "") for number in numbers)

    def one(film: Film, tell: Callable[[int], None]) -> ReplayResult:
        episode = film.parts[0].episode
        with _reexecution(episode, factory, tolerance, render=False) as run:
            for _ in run:
                tell(1)
        return _result(film, tolerance, run.divergence, origin=episode.origins[0].name)

    return _each(films, total, observer, one)


def _each(
    films: Iterable[Film],
    total: int,
    observer: Observer | None,
    make: Callable[[Film, Callable[[int], None]], ReplayResult],
) -> list[ReplayResult]:
    """Makes one film after another; what refuses one of them becomes its result."""
    results = []
    if observer is not None:
        observer.planned(total)
    for film in films:
        try:
            result = make(film, observer.advanced if observer is not None else lambda _: None)
        except gym.error.DependencyNotInstalled as error:
            result = _refused(film, f"the env needs a package that is not installed: {error}")
        except ReenactError as error:
            result = _refused(film, str(error))
        results.append(result)
        if observer is not None:
            observer.finished(result)
    return results


# ---- what to film


def _whole(episode: Episode, prefix: str) -> Film:
    name = f"{prefix}-episode-{episode.number}"
    return Film(name, (Part(episode, 0, episode.length + 1),))


def _clips(
    run: Run, step_trigger: Trigger | None, numbers: set[int], video_length: int, prefix: str
) -> Iterator[Film]:
    """Finds the clips that `RecordVideo` would have filmed, one env instance after another."""
    segments = run.segments
    follows = {segment.predecessor: segment.number for segment in segments if segment.predecessor >= 0 and not segment.gap}
    suffix = len(segments) > 1
    for segment in segments:
        if segment.predecessor >= 0 and not segment.gap:
            continue
        camera = ClipTrigger(step_trigger, numbers.__contains__ if numbers else None, video_length)
        name: str | None = None
        parts: list[Part] = []
        at: int | None = segment.number
        while at is not None:
            for episode, trailing in run.timeline(at):
                first = 0
                for frame in range(episode.length + 1):
                    # a trigger may start a new clip under the very frame that another one would have had
                    clip = camera.reset(episode.number) if frame == 0 else camera.step()
                    if clip != name:
                        if name is not None:
                            yield from _cut(prefix, name, parts, episode, (first, frame), suffix, segment.number)
                        name, parts, first = clip, [], frame
                if name is not None:
                    parts.append(Part(episode, first, episode.length + 1))
                camera.skip(trailing)
            at = follows.get(at)
        if name is not None:
            yield _clip_film(prefix, name, parts, suffix, segment.number)


def _cut(
    prefix: str, name: str, parts: list[Part], episode: Episode, frames: tuple[int, int], suffix: bool, segment: int
) -> Iterator[Film]:
    if frames[1] > frames[0]:
        parts = [*parts, Part(episode, *frames)]
    if parts:
        yield _clip_film(prefix, name, parts, suffix, segment)


def _clip_film(prefix: str, name: str, parts: list[Part], suffix: bool, segment: int) -> Film:
    tail = f"-{segment}" if suffix and name.startswith("step") else ""
    return Film(f"{prefix}-{name}{tail}", tuple(parts))


# ---- filming


@contextlib.contextmanager
def _reexecution(
    episode: Episode, factory: recipe.EnvFactory | None, tolerance: float, *, render: bool
) -> Iterator[Reexecution]:
    """Puts an episode on its stage.

    Raises:
        ReplayError: it has nothing to start from.
        RecipeError: its env can't be rebuilt.
        DamagedError: its log is damaged.
    """
    data = episode.data()
    if not data.origins:
        raise ReplayError(NEEDS_CHAIN)
    stage = Stage(episode.stage.recipe, episode.stage.signature, factory)
    first = episode.run.first_reset(episode.segment) if render else None
    with stage.open("rgb_array" if render else None) as env:
        yield Reexecution(env, data, data.origins[0], render=render, tolerance=tolerance, first=first)


def _film(film: Film, options: _Options, tell: Callable[[int], None]) -> ReplayResult:
    path = options.folder / f"{film.name}.mp4"
    source = _source(film, options)
    found = video.read_comment(path) if path.is_file() else None
    if found is not None and found.get("source") == source and found.get("verdict") == "exact":
        tell(sum(part.end - part.first for part in film.parts))
        frames = found.get("frames")
        made = _result(film, options.tolerance, None, origin=str(found.get("origin")))
        return replace(made, path=str(path), frames=frames if isinstance(frames, int) else 0, reused=True)
    if path.exists() and not options.overwrite:
        return _refused(film, f"{path} is there already and was made from something else: --overwrite replaces it")
    agreed: dict[str, int] = {}
    result = _attempt(film, options, path, source, tell, agreed, mark=False)
    if result.divergence is None or not options.diverged:
        return result
    # Frames went out before it was known from where they can't be trusted: film it again with the banner.
    return _attempt(film, options, path, source, lambda _: None, agreed, mark=True)


def _attempt(
    film: Film,
    options: _Options,
    path: Path,
    source: dict[str, object],
    tell: Callable[[int], None],
    agreed: dict[str, int],
    *,
    mark: bool,
) -> ReplayResult:
    """Films once.

    Unless told to mark it, a diverged film leaves no file but notes for each episode's address the last step
    that agreed. Told to, it burns in a banner from there on, and the file's name says so.
    """
    writer: video.VideoWriter | None = None
    difference: Divergence | None = None
    try:
        for part in film.parts:
            address = part.episode.address
            with _reexecution(part.episode, options.factory, options.tolerance, render=True) as run:
                for at, frame in enumerate(run):
                    if not part.first <= at < part.end:
                        continue  # a clip's verdict needs the whole episode, its video only a part
                    if writer is None:
                        fps = options.fps or run.env.metadata.get("render_fps") or 30
                        writer = video.VideoWriter(options.folder, video.Encoding(fps=fps, lossless=options.lossless))
                    marked = mark and (run.divergence is not None or at > agreed.get(address, at))
                    writer.write(video.draw_banner(frame, BANNER) if marked else frame)
                    tell(1)
            if run.divergence is not None:
                difference = difference or run.divergence
                agreed[address] = run.divergence.since
        result = _result(film, options.tolerance, difference, origin=film.parts[0].episode.origins[0].name)
        if writer is None:
            return result
        result = replace(result, frames=writer.frames)
        if difference is not None and not mark:
            return replace(result, frames=0)
        if result.verdict != "exact":
            path = path.with_name(f"{path.stem}-{result.verdict}.mp4")
        comment = {**_provenance(film, result), "source": source}
        ours = path.is_file() and (video.read_comment(path) or {}).get("source") == source
        try:
            writer.finish(path, title=path.stem, comment=comment, overwrite=options.overwrite or ours)
        except VideoError as error:
            return replace(result, frames=0, error=str(error))
        return replace(result, path=str(path))
    finally:
        if writer is not None:
            writer.abandon()


# ---- what to say of it


def _source(film: Film, options: _Options) -> dict[str, object]:
    """Returns what a video is made from, and how: equal for a video that need not be made again."""
    return {
        "run": film.parts[0].episode.run.uuid,
        "frames": [[part.episode.address, part.first, part.end] for part in film.parts],
        "fps": options.fps,
        "lossless": options.lossless,
        "env": options.env_name,
        "tolerance": options.tolerance,
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


def _result(film: Film, tolerance: float, difference: Divergence | None, origin: str) -> ReplayResult:
    episode = film.parts[0].episode
    many = {part.episode.address: part.episode for part in film.parts}
    return ReplayResult(
        episode=episode.number,
        address=episode.address,
        verdict="diverged" if difference is not None else "tolerated" if tolerance else "exact",
        origin=origin,
        length=sum(part.length for part in many.values()),
        return_=episode.return_ if len(many) == 1 else sum(part.return_ for part in many.values()),
        seed=episode.seed,
        divergence=difference,
        error=None if difference is None else f"the replay diverged: {describe(difference)}",
        tolerance=tolerance,
        episodes=tuple(many),
    )


def _refused(film: Film, why: str) -> ReplayResult:
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


def _opened(run: RunLike) -> Run:
    return run if isinstance(run, Run) else open_run(run)


def _callable_trigger(trigger: str | Trigger | None) -> Trigger | None:
    if trigger is None or callable(trigger):
        return trigger
    named = named_trigger(trigger)
    return named if named is not None else usercode.load(trigger)


def _checked_tolerance(tolerance: float) -> float:
    if not 0 <= tolerance < float("inf"):
        raise SelectionError(f"tolerance must be 0 or more, got {tolerance}")
    return float(tolerance)
