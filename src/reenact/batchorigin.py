"""What a vector env's lanes can be started from again: what its resets were given, and states from before them.

Of `SyncVectorEnv` the sub-envs are in reach, lane by lane; of `AsyncVectorEnv` their `np_random` can be asked for. Any
other vector env is started again as one: its resets are numbered, so that a replay can call them in their order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv

from reenact import rng
from reenact.origin import OriginTaker

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from reenact.layout import StateKind

    States = list[tuple[StateKind, bytes]]
    Seeds = Sequence[int | None]


class Origins(Protocol):
    """Takes what lanes can be started from again.

    Attributes:
        in_reach: whether a lane's state can be taken at any time, at the price of a look.
    """

    in_reach: bool

    def seeds_of(self, seed: Any) -> Seeds:
        """Returns the seed that each lane's reset will be given, or None."""

    def logged(self, seed: int | None, mask: np.ndarray | None) -> int | None:
        """Returns what is logged as the seed of a lane's episode."""

    def details(self, seed: Any, lanes: list[int] | None) -> dict[str, Any]:
        """Returns what else is logged of a reset of these lanes, or of all."""

    def before(self, lanes: list[int], seeds: Seeds, steps: int) -> dict[int, States]:
        """Takes the states of lanes that are about to be reset; `steps` have been logged so far."""

    def after(self, lanes: list[int], seeds: Seeds) -> dict[int, States]:
        """The reset returned: returns what else its lanes can be started from."""


def of_lanes(base: Any) -> bool:
    """Whether a vector env is Gymnasium's own around single envs: then each lane is one of these, started alone."""
    kind = next((kind for kind in (SyncVectorEnv, AsyncVectorEnv) if isinstance(base, kind)), None)
    own = ("reset", "step") if kind is SyncVectorEnv else ("reset_async", "reset_wait", "step_async", "step_wait")
    return kind is not None and all(getattr(type(base), name) is getattr(kind, name) for name in own)


def origins_of(env: Any, say: Callable[[str], None]) -> Origins:
    """Returns what takes the origins of a vector env.

    Args:
        env: the vector env, wrapped or not.
        say: is told, once, of what keeps episodes from being started again.
    """
    base = env.unwrapped
    if not of_lanes(base):
        return _OfBatch(base, say)
    return _OfSync(base, say) if isinstance(base, SyncVectorEnv) else _OfAsync(base, say)


class _OfLanes:
    """Of vector envs around single envs."""

    in_reach = False

    def __init__(self, base: Any, say: Callable[[str], None]) -> None:
        self._base, self._say, self._width = base, say, int(base.num_envs)

    def seeds_of(self, seed: Any) -> Seeds:
        if seed is None:
            return [None] * self._width
        if isinstance(seed, int):
            return [seed + lane for lane in range(self._width)]
        try:
            found = [None if one is None else int(one) for one in seed]
        except (TypeError, ValueError):  # the vector env will refuse it
            found = []
        return found if len(found) == self._width else [None] * self._width

    def logged(self, seed: int | None, mask: np.ndarray | None) -> int | None:  # noqa: ARG002  # a lane's is its own
        return seed

    def details(self, seed: Any, lanes: list[int] | None) -> dict[str, Any]:  # noqa: ARG002  # as above
        return {}


class _OfSync(_OfLanes):
    in_reach = True

    def __init__(self, base: Any, say: Callable[[str], None]) -> None:
        super().__init__(base, say)
        self._takers = [OriginTaker(env, create=True, say=say) for env in base.envs]

    def before(self, lanes: list[int], seeds: Seeds, steps: int) -> dict[int, States]:
        return self._each(lanes, lambda lane: self._takers[lane].take(seeds[lane], steps // self._width))

    def after(self, lanes: list[int], seeds: Seeds) -> dict[int, States]:
        return self._each(lanes, lambda lane: self._takers[lane].returned(seeds[lane]))

    def _each(self, lanes: list[int], take: Callable[[int], States]) -> dict[int, States]:
        found: dict[int, States] = {}
        for lane in lanes:
            try:
                found[lane] = take(lane)
            except Exception as error:  # noqa: BLE001  # a proxy may raise anything when it is looked at
                what = f"{type(error).__name__}: {error}"
                self._say(
                    f"the state of {type(self._base.envs[lane]).__name__} can't be taken ({what}): seed the reset"
                )
        return found


class _OfAsync(_OfLanes):
    def before(self, lanes: list[int], seeds: Seeds, steps: int) -> dict[int, States]:  # noqa: ARG002  # taken rarely
        if len(lanes) < self._width or any(seed is not None for seed in seeds):
            return {}
        try:
            found = [rng.encode(one) for one in self._base.get_attr("np_random")]
        except Exception as error:  # noqa: BLE001  # whatever a worker raises
            what = f"{type(error).__name__}: {error}"
            self._say(f"the state of the sub-envs can't be taken ({what}): seed the first reset")
            return {}
        return {lane: [state] for lane, state in enumerate(found) if state is not None}

    def after(self, lanes: list[int], seeds: Seeds) -> dict[int, States]:  # noqa: ARG002  # nothing can be seen
        return {}


class _OfBatch:
    in_reach = False

    def __init__(self, base: Any, say: Callable[[str], None]) -> None:
        self._base, self._say, self._width, self._resets = base, say, int(base.num_envs), 0
        self._taker = OriginTaker(base, create=True, say=say)

    def seeds_of(self, seed: Any) -> Seeds:
        return [int(seed) if isinstance(seed, int | np.integer) else None] * self._width

    def logged(self, seed: int | None, mask: np.ndarray | None) -> int | None:
        return seed if mask is None else None

    def details(self, seed: Any, lanes: list[int] | None) -> dict[str, Any]:
        self._resets += 1
        found: dict[str, Any] = {"reset": self._resets - 1}
        if lanes is not None:
            found |= {"lanes": lanes, "given": int(seed) if isinstance(seed, int | np.integer) else None}
        if seed is not None and not isinstance(seed, int | np.integer):
            found["unloggable"] = f"the seed {seed!r:.80} is no int"
        return found

    def before(self, lanes: list[int], seeds: Seeds, steps: int) -> dict[int, States]:
        if len(lanes) < self._width:
            return {}
        return dict.fromkeys(lanes, self._safely(self._taker.take, seeds[0], steps // self._width))

    def after(self, lanes: list[int], seeds: Seeds) -> dict[int, States]:
        return dict.fromkeys(lanes, self._safely(self._taker.returned, seeds[0])) if len(lanes) == self._width else {}

    def _safely(self, take: Callable[..., States], *given: Any) -> States:
        try:
            return take(*given)
        except Exception as error:  # noqa: BLE001  # as above
            what = f"{type(error).__name__}: {error}"
            self._say(f"the state of {type(self._base).__name__} can't be taken ({what}): seed the resets")
            return []
