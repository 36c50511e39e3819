"""Why a replay diverged, as far as that can be told: what is not as it was, and the likeliest cause."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from reenact import recipe, snapshot
from reenact.errors import DamagedError, ReenactError
from reenact.layout import StateKind

if TYPE_CHECKING:
    from reenact.ladder import Climb, Ladder
    from reenact.lineage import Lineage
    from reenact.logged import Episode

_MOST_CHAINED = 200
"""Resets that are chained again only to find out more."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """What is known of a divergence.

    Attributes:
        cause: the likeliest, in one line, or None.
        differs: what is not as it was when it was recorded, by name: then, now.
    """

    cause: str | None
    differs: dict[str, tuple[str, str]]


def explain(ladder: Ladder, climb: Climb, episode: Episode, *, rendered: bool) -> Explanation:
    """Looks for the cause of a divergence that no rung was free of; re-executes the episode twice more.

    Args:
        ladder: of the episode's lineage.
        climb: the episode's, exhausted.
        episode: the episode.
        rendered: whether it was drawn.
    """
    recorded = versions_of(episode)
    differs = recipe.changed(recorded)
    if rendered:
        differs["rendered"] = ("no", "yes")
    shared = _draws_from_globals(episode.lineage, climb.position)
    if ladder.known_cause is None and not shared:  # else only those who share its generators differ from themselves
        # what re-execution itself can tell holds for all episodes; the rest is guessed from this one's log
        ladder.known_cause = _by_trying(ladder, climb, rendered=rendered)
    return Explanation(ladder.known_cause or _by_looking(climb, episode, recorded, shared=shared), differs)


def versions_of(episode: Episode) -> dict[str, str]:
    """Returns the versions that an episode was recorded with, by name."""
    try:
        found = json.loads(str(episode.attributes.get("versions", "{}")))
    except ValueError:
        return {}
    if not isinstance(found, dict):
        return {}
    # they are printed, and a stranger's log may hold what a terminal takes for an order
    return {name: version for name, version in found.items() if name.isprintable() and str(version).isprintable()}


def _by_trying(ladder: Ladder, climb: Climb, *, rendered: bool) -> str | None:
    start = climb.rung.start
    if start is not None and climb.position - start > _MOST_CHAINED:
        return None
    first, second = _trace(ladder, climb), _trace(ladder, climb)
    if first is None or second is None:
        return None
    for step, (one, other) in enumerate(zip(first[0], second[0], strict=False)):
        if one != other:
            return (
                "what the log holds does not determine this env: re-executed twice from the same start, it differs "
                f"from itself at step {step}; it draws from a generator of its own, or is not deterministic"
            )
    if first[1]:
        if rendered:
            return "render() changes this env: the same re-execution without drawing is exact"
        return "this env is not deterministic: re-executed once more from the same start, it is exact"
    return None


def _trace(ladder: Ladder, climb: Climb) -> tuple[list[tuple[int, float]], bool] | None:
    """Re-executes undrawn, to the first difference; returns all observations and rewards, and whether it was exact."""
    trace: list[tuple[int, float]] = []
    try:
        with ladder.on(climb, render=False, trace=trace) as run:
            for _ in run:
                if run.divergence is not None:
                    break
    except ReenactError:
        return None
    return trace, run.divergence is None


def _draws_from_globals(lineage: Lineage, position: int) -> bool:
    """Whether an env was noticed to draw from the global generators before or at a reset."""
    try:
        at = lineage.nearest("snapshot", position + 1)
        states = [state for act in lineage.acts(at, at + 1) for state in act.states] if at is not None else []
    except DamagedError:
        return False
    return any(kind is StateKind.SNAPSHOT and snapshot.draws_from_globals(data) for _, kind, data in states)


def _by_looking(climb: Climb, episode: Episode, recorded: dict[str, str], *, shared: bool) -> str | None:
    divergence = climb.best.divergence
    packages = {
        name: both for name, both in recipe.changed(recorded).items() if name not in ("python", "platform", "reenact")
    }
    if packages:
        told = ", ".join(f"{name} {then}, now {now}" for name, (then, now) in packages.items())
        return f"the versions differ: recorded with {told}"
    if shared:
        return (
            "this env draws from the global random generators, and so did somebody else while it was recorded: "
            "let it draw from self.np_random"
        )
    taken = recipe.read(str(episode.attributes.get("recipe", "{}")))
    if taken.get("doubts"):
        return f"the recipe may not be right: {taken['doubts'][0]}"
    if episode.attributes.get("used_before"):
        return "the env had been used before it was recorded, and keeps something from then"
    if climb.position and all(one.origin == climb.rung.name for one in climb.tried) and climb.rung.start is None:
        return f"only {climb.rung.name!r} was tried; state that survives resets needs a chain"
    if divergence is not None and divergence.step == 0:
        what = "the seed" if climb.rung.name == "seed" else "its RNG state"
        return f"{what} does not determine how this env begins: it draws from a generator of its own"
    return None
