"""One film -> one video, compared with the log while it is made."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from reenact import recipe, video
from reenact.episode import Divergence, OriginName, ReplayResult, finite
from reenact.errors import ReenactError, ReplayError, VideoError
from reenact.reexecute import NEEDS_CHAIN, Reexecution, Stage, describe

if TYPE_CHECKING:
    from pathlib import Path

    from reenact.films import Film
    from reenact.logged import Episode

BANNER = "DIVERGED: not what happened"
Tell = Callable[[int], None]
"""Told how many more frames are done."""


@dataclass(frozen=True, slots=True)
class Options:
    """How films are made.

    Attributes:
        folder: where the videos go.
        fps: frames a second; None: the env's `render_fps`, else 30.
        factory: the user's own way to make the env, or None for the recipe.
        env_name: what the factory is called, or None.
        tolerance: how far a reward may be off.
        overwrite: whether files made from something else are replaced.
        diverged: whether a diverged replay leaves a marked video.
        lossless: whether the pixels are the frames' to the bit.
    """

    folder: Path
    fps: float | None
    factory: recipe.EnvFactory | None
    env_name: str | None
    tolerance: float
    overwrite: bool
    diverged: bool
    lossless: bool


@contextlib.contextmanager
def reexecution(
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


def make(film: Film, options: Options, tell: Tell) -> ReplayResult:
    """Makes a film's video, unless it is there already.

    Raises:
        ReenactError: it can't be made; no file is left.
    """
    # the plain name is for exact ones alone, and a tolerance never makes one
    path = options.folder / f"{film.name}{'-tolerated' if options.tolerance else ''}.mp4"
    source = _source(film, options)
    found = video.read_comment(path) if path.is_file() else None
    good = "tolerated" if options.tolerance else "exact"
    if found is not None and found.get("source") == source and found.get("verdict") == good:
        tell(sum(part.end - part.first for part in film.parts))
        frames = found.get("frames")
        made = result_of(film, options.tolerance, None, origin=str(found.get("origin")))
        return replace(made, path=str(path), frames=frames if isinstance(frames, int) else 0, reused=True)
    if path.exists() and not options.overwrite:
        return refused(film, f"{path} is there already and was made from something else: --overwrite replaces it")
    with _Take(film, options) as take:
        take.shoot(tell, marks=None)
        result = take.result()
        if result.divergence is None:
            return take.keep(result, path, source, replaces=options.overwrite)
    if not options.diverged:
        return result
    path = path.with_name(f"{film.name}-diverged.mp4")
    ours = path.is_file() and (video.read_comment(path) or {}).get("source") == source
    if path.exists() and not (ours or options.overwrite):
        return replace(result, error=f"{result.error}; {path} is there already: --overwrite replaces it")
    # Frames went out before it was known from where they can't be trusted: film it again, with the banner.
    marks = take.untrusted
    while True:
        with _Take(film, options) as again:
            again.shoot(lambda _: None, marks)
            # An env that wavers may have gone astray sooner this time; then all of that episode is marked.
            sooner = [address for address, at in again.untrusted.items() if at < marks.get(address, at + 1)]
            if not sooner:
                return again.keep(result, path, source, replaces=True)
            marks = {**marks, **dict.fromkeys(sooner, 0)}


class _Take:
    """Films once; whatever was not kept is thrown away at the end.

    Attributes:
        untrusted: by the address of an episode that diverged, the first frame that can't be trusted.
    """

    def __init__(self, film: Film, options: Options) -> None:
        self.untrusted: dict[str, int] = {}
        self._film, self._options = film, options
        self._writer: video.VideoWriter | None = None
        self._difference: Divergence | None = None
        self._origin: OriginName | None = None

    def __enter__(self) -> _Take:
        return self

    def __exit__(self, *error: object) -> None:
        if self._writer is not None:
            self._writer.abandon()

    def shoot(self, tell: Tell, marks: dict[str, int] | None) -> None:
        """Re-executes the episodes, and encodes the film's frames.

        Args:
            tell: told of each frame.
            marks: by address, from which frame on to burn in the banner; None: nowhere.
        """
        options = self._options
        for part in self._film.parts:
            address = part.episode.address
            with reexecution(part.episode, options.factory, options.tolerance, render=True) as run:
                for at, frame in enumerate(run):
                    if not part.first <= at < part.end:
                        continue  # a clip's verdict needs the whole episode, its video only a part
                    if self._writer is None:
                        fps = options.fps or run.env.metadata.get("render_fps") or 30
                        encoding = video.Encoding(fps=fps, lossless=options.lossless)
                        self._writer = video.VideoWriter(options.folder, encoding)
                    marked = marks is not None and (run.divergence is not None or at >= marks.get(address, at + 1))
                    self._writer.write(video.draw_banner(frame, BANNER) if marked else frame)
                    tell(1)
            self._origin = self._origin or run.origin
            if run.divergence is not None:
                self._difference = self._difference or run.divergence
                self.untrusted[address] = run.divergence.since + 1

    def result(self) -> ReplayResult:
        """Says how it went."""
        return result_of(self._film, self._options.tolerance, self._difference, self._origin)

    def keep(self, result: ReplayResult, path: Path, source: dict[str, object], *, replaces: bool) -> ReplayResult:
        """Gives the video its name; an episode whose reset raised has nothing to show."""
        if self._writer is None:
            return result
        kept = replace(result, path=str(path), frames=self._writer.frames)
        comment = {**_provenance(self._film, kept), "source": source}
        try:
            self._writer.finish(path, title=path.stem, comment=comment, overwrite=replaces)
        except VideoError as error:
            return replace(result, error=f"{result.error}; {error}" if result.error else str(error))
        return kept


# ---- what to say of it


def _source(film: Film, options: Options) -> dict[str, object]:
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


def result_of(film: Film, tolerance: float, difference: Divergence | None, origin: str | None) -> ReplayResult:
    """Says what came of a film that was re-executed."""
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
