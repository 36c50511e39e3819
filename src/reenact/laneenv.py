"""A lane of a vector env as an env of its own, for being re-executed: observations and rewards as the lane had them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np

from reenact import jsontags
from reenact.batching import NEXT_STEP, SAME_STEP, LaneForm, autoreset_mode, lanes_of
from reenact.episode import Unloggable
from reenact.errors import RenderError, ReplayError
from reenact.signing import is_mine
from reenact.strangers import refuse_names

if TYPE_CHECKING:
    from reenact.episode import BatchReset, Move


class LaneEnv(gym.Wrapper[Any, Any, Any, Any]):
    """A single env whose observations and rewards are what a vector env around it gives."""

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        self._form = LaneForm(env.observation_space)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Resets it."""
        observation, info = self.env.reset(seed=seed, options=options)
        return self._form.of(observation), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Steps it."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        return self._form.of(observation), np.float64(reward), bool(terminated), bool(truncated), info


class BatchLane(gym.Wrapper[Any, Any, Any, Any]):
    """One lane of a vector env, which is stepped as a whole: an action is a `Move` of the batch.

    A reset after the vector env has reset the lane by itself, or as one of several, does nothing: it gives what that
    gave. Any other is a reset of all lanes.

    Args:
        env: the vector env.
        lane: which.
        trust: whether reset options that somebody else may have put into the log are used all the same.
    """

    def __init__(self, env: gym.vector.VectorEnv, lane: int, *, trust: bool) -> None:
        # not gym.Wrapper's, which takes single envs only; what it would set
        self.env: Any = env
        self._action_space = env.single_action_space
        self._observation_space = env.single_observation_space
        self._metadata = self._cached_spec = None
        self._lane, self._trust, self._mode = lane, trust, autoreset_mode(env.metadata)
        self._form = LaneForm(env.single_observation_space)
        self._observations: Any = None
        self._done = self._begun = False
        if lane >= env.num_envs:
            raise ReplayError(f"the vector env has {env.num_envs} lanes here, expected more than {lane}")

    @property
    def spec(self) -> None:  # type: ignore[override]  # a vector env's makes no single env
        """None."""
        return

    @property
    def _seen(self) -> Any:
        return lanes_of(self.env.observation_space, self._observations)[self._lane]

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Resets all lanes, unless this one has just been reset."""
        if not self._begun:
            self._observations, _ = self.env.reset(seed=seed, options=options)
        self._begun = self._done = False
        return self._seen, {}

    def step(self, move: Move) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Does what the batch did."""
        for reset in move.resets:
            self._reset_some(reset)
        if move.action is None:
            return self._seen, np.float64(0), False, False, {}
        self._observations, rewards, terminations, truncations, infos = self.env.step(move.action)
        if self._done and self._mode == NEXT_STEP:
            self._done, self._begun = False, True
            return self._seen, np.float64(0), False, False, {}
        terminated, truncated = bool(terminations[self._lane]), bool(truncations[self._lane])
        self._done = terminated or truncated
        observation = self._seen
        if self._done and self._mode == SAME_STEP:
            self._begun = True
            found = infos.get("final_obs", infos.get("final_observation"))
            observation = observation if found is None else self._form.of(found[self._lane])
        return observation, np.float64(rewards[self._lane]), terminated, truncated, {}

    def _reset_some(self, reset: BatchReset) -> None:
        if isinstance(reset.options, Unloggable):
            raise ReplayError(f"a partial reset's options could not be logged: {reset.options.why}")
        given = {} if reset.options is None else dict(reset.options.value)
        if reset.options is not None and not (self._trust or is_mine(jsontags.dumps(given), reset.options.seal)):
            refuse_names(given)
        mask = np.zeros(self.env.num_envs, np.bool_)
        mask[list(reset.lanes)] = True
        self._observations, _ = self.env.reset(seed=reset.seed, options={**given, "reset_mask": mask})
        if self._lane in reset.lanes:
            self._begun, self._done = True, False

    def render(self) -> Any:
        """Draws all lanes, and returns this one's frame.

        Raises:
            RenderError: the vector env gives no frame a lane.
        """
        frames = self.env.render()
        if not isinstance(frames, tuple | list | np.ndarray) or len(frames) != self.env.num_envs:
            what = type(self.env.unwrapped).__name__
            raise RenderError(f"{what} draws no frame of each of its lanes: its episodes can be verified, not filmed")
        return frames[self._lane]
