"""A vector env's values, taken apart into those of its lanes, in the form in which the vector env gives them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium.vector.utils import batch_space, concatenate, create_empty_array, iterate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gymnasium import spaces

NEXT_STEP, SAME_STEP, DISABLED = "next_step", "same_step", "disabled"
_MODES = {"NextStep": NEXT_STEP, "SameStep": SAME_STEP, "Disabled": DISABLED}


def autoreset_mode(metadata: dict[str, Any]) -> str:
    """Returns how a vector env resets lanes whose episode has ended; one that doesn't say does so in the next step.

    Gymnasium 1.0 knew nothing else, and its vector envs said nothing.
    """
    mode = metadata.get("autoreset_mode")
    return _MODES.get(str(getattr(mode, "value", mode)), NEXT_STEP)


def lanes_of(space: spaces.Space[Any], values: Any) -> Any:
    """Takes a batch of actions or observations apart, as vector envs do.

    Args:
        space: the batch's.
        values: one of it.

    Returns:
        What can be indexed by lane.
    """
    return values if isinstance(values, np.ndarray) else list(iterate(space, values))


class LaneForm:
    """What becomes of one env's observation in a vector env: its space's dtypes, its own copy.

    Args:
        space: of one env's observations.
    """

    def __init__(self, space: spaces.Space[Any]) -> None:
        self._space, self._batched = space, batch_space(space, 1)

    def of(self, observation: Any) -> Any:
        """Returns an observation as a vector env's lane has it."""
        batch = concatenate(self._space, (observation,), create_empty_array(self._space, n=1))  # type: ignore[arg-type]  # for some spaces None
        found: Iterator[Any] = iter(iterate(self._batched, batch))
        return next(found)
