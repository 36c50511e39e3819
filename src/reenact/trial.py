"""Re-executing an episode up its ladder, until a rung is exact or none is left."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from reenact.comparison import describe
from reenact.errors import DamagedError, ReplayError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from reenact.episode import Attempt, Divergence
    from reenact.ladder import Climb, Ladder, Player


@dataclass(frozen=True, slots=True)
class Trial:
    """How it went.

    Attributes:
        origin: the rung that was exact, or the one that went furthest.
        divergence: the first difference there, or None.
        tried: the rungs that were not exact, in order.
        climb: the episode's, where none was.
    """

    origin: str
    divergence: Divergence | None
    tried: tuple[Attempt, ...]
    climb: Climb | None = None


def run(ladder: Ladder, player: Player, *, render: bool, tell: Callable[[int], None]) -> Trial:
    """Re-executes an episode and compares it, by one rung after another.

    Args:
        ladder: of its lineage.
        player: the episode.
        render: whether to draw every frame; they are thrown away.
        tell: told of each frame, the first time that it is reached.

    Raises:
        ReplayError: it could be started by none of the rungs.
        RecipeError: its env can't be rebuilt.
        DamagedError: its log is damaged.
        VideoError: it can't be drawn.
    """
    return _up(ladder, ladder.climb(player, render=render), render=render, tell=tell)


def _up(ladder: Ladder, climb: Climb, *, render: bool, tell: Callable[[int], None]) -> Trial:
    """Tries the rungs of a climb, one after another."""
    reached = 0
    while True:
        error = divergence = None
        try:
            with ladder.on(climb, render=render) as reexecution:
                for at, _ in enumerate(reexecution, 1):
                    if at > reached:
                        reached = at
                        tell(1)
                    if reexecution.divergence is not None:
                        break
            divergence = reexecution.divergence
        except (ReplayError, DamagedError) as refusal:  # of the episode itself, or of those that a chain needs
            error = refusal
        if divergence is None and error is None:
            climb.succeeded()
            return Trial(climb.stood, None, climb.tried)
        if not climb.failed(divergence, str(error) if error is not None else None):
            return settled(climb)


def settled(climb: Climb) -> Trial:
    """Returns what is to be said of an episode that no rung was exact for.

    Raises:
        ReplayError: none of them even started.
    """
    best = climb.best
    if best.divergence is None:
        raise ReplayError(best.error or "it can't be re-executed")
    return Trial(best.origin, best.divergence, climb.tried, climb)


def frames(ladder: Ladder, player: Player) -> Iterator[Any]:
    """Yields an episode's frames: uint8, height x width x 3, length + 1 of them; text of an env that has no pictures.

    What is yielded can't be taken back, so a rung that is exact undrawn is looked for first. Whoever takes the
    frames may draw from the global generators in between: those are lent, and are not what the env draws from.

    Raises:
        ReplayError: it can't be re-executed, or diverged: raised at the frame where that showed.
        VideoError: it can't be drawn.
    """
    climb = ladder.climb(player, render=True)
    _up(ladder, climb, render=False, tell=lambda _: None)
    with ladder.on(climb, render=True) as reexecution:
        for frame in reexecution:
            if reexecution.divergence is not None:
                raise ReplayError(f"the replay diverged: {describe(reexecution.divergence)}")
            with ladder.aside.lent():
                yield frame
    if reexecution.divergence is not None:
        raise ReplayError(f"the replay diverged: {describe(reexecution.divergence)}")
