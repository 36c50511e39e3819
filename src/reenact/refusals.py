"""What of a job is refused before any work."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from reenact import filming, naming, results
from reenact.errors import VideoError
from reenact.work import REFUSALS, reason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from reenact.episode import ReplayResult
    from reenact.films import Film
    from reenact.run import Run
    from reenact.stage import Stage


def require_writable(folder: Path) -> None:
    """Refuses a folder that no video can be put into, before any work, and makes nothing.

    Raises:
        VideoError: it is no folder, or may not be written.
    """
    there = folder.absolute()
    while not os.path.lexists(there):
        there = there.parent
    if not there.is_dir():
        raise VideoError(f"cannot write videos into {folder}: {there} is no folder; choose another folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise VideoError(f"cannot write videos into {folder}: {there} may not be written; choose another folder")


def name_of(run: Run) -> str:
    """Returns the run's name, as the beginning of its videos'; a packed file may say anything of itself.

    Raises:
        VideoError: it is no plain name.
    """
    why = naming.why_not_plain(run.name)
    if why is not None:
        raise VideoError(f"videos can't be called after the run {run.name!r}: {why}; give a name_prefix")
    return run.name


def require_short(wanted: Iterable[Film], options: filming.Options) -> None:
    """Refuses names of videos that no file can have, before any work.

    Raises:
        VideoError: one is too long, if not plain then as that of a diverged replay.
    """
    for film in wanted:
        name = filming.path_of(film, options, diverged=True).name
        if (length := len(os.fsencode(name))) > naming.MOST_BYTES:
            raise VideoError(
                f"a video's name may have {naming.MOST_BYTES} bytes, {name[:20]}…{name[-40:]} has {length}: "
                "give a shorter name_prefix"
            )


def unmade(film: Film, prepare: Callable[[Stage], Stage], told: dict[str, str]) -> ReplayResult | None:
    """Returns the result of a film whose envs can't be made with the arguments that they are given to draw.

    Args:
        film: the film.
        prepare: puts these into a stage.
        told: what was said of recipes before, "" of those that take them; grows.
    """
    for part in film.parts:
        stage = prepare(part.episode.stage)
        if stage.recipe not in told:
            try:
                stage.require_arguments()
            except REFUSALS as error:
                told[stage.recipe] = reason(error)
        if why := told.setdefault(stage.recipe, ""):
            return results.refused(film, why)
    return None
