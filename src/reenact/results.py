"""What is said of a film: how its replay went, or why there was none."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from reenact.comparison import describe
from reenact.episode import ReplayResult
from reenact.errors import ReenactError

if TYPE_CHECKING:
    from reenact.diagnosis import Explanation
    from reenact.films import Film
    from reenact.logged import Episode
    from reenact.trial import Trial


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


def united(film: Film, results: list[ReplayResult]) -> ReplayResult:
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


def without_video(result: ReplayResult, why: str) -> ReplayResult:
    """Returns a result whose video could not be kept: it says "exact" of none that is not there."""
    verdict = result.verdict if result.verdict == "diverged" else "impossible"
    return replace(result, verdict=verdict, error="; ".join(filter(None, (result.error, why))))


def _seed_or_none(episode: Episode) -> int | None:
    try:
        return episode.seed
    except ReenactError:  # the details are damaged: that is what the result says already
        return None
