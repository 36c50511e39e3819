"""Vector envs, and envs for them, whose episodes go as their actions say."""

from __future__ import annotations

import enum
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector import SyncVectorEnv, VectorEnv
from gymnasium.vector.utils import batch_space

try:
    from gymnasium.vector import AutoresetMode
except ImportError:  # Gymnasium 1.0, whose own vector envs know the first alone

    class AutoresetMode(enum.Enum):  # type: ignore[no-redef]
        """As later versions have it."""

        NEXT_STEP = "NextStep"
        SAME_STEP = "SameStep"
        DISABLED = "Disabled"


ALL_MODES = [*AutoresetMode]
MODES = ALL_MODES if hasattr(gym.vector, "AutoresetMode") else ALL_MODES[:1]
"""What this Gymnasium's own vector envs can do."""
NEXT_STEP, SAME_STEP, DISABLED = ALL_MODES
GO_ON, TERMINATE, TRUNCATE = 0, 1, 2
WIDTH = 3


class Obedient(gym.Env[np.ndarray, int]):
    """Ends as its action says; what it rewards and shows is drawn by its own generator."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 30}  # noqa: RUF012  # Gymnasium's own form

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode
        self.action_space: spaces.Space[Any] = spaces.Discrete(3)
        self.observation_space = spaces.Box(-10, 10, (2,), np.float32)
        self.steps, self.at = 0, 0.0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """Begins somewhere."""
        super().reset(seed=seed, options=options)
        self.steps, self.at = 0, float(self.np_random.uniform()) + (options or {}).get("more", 0)
        return self._observation(), {"steps": 0}

    def step(self, action: int) -> Any:
        """Goes somewhere."""
        self.steps += 1
        self.at += float(self.np_random.normal())
        reward = self.at / 3
        return self._observation(), reward, action == TERMINATE, action == TRUNCATE, {"steps": self.steps}

    def _observation(self) -> np.ndarray:
        return np.array([self.at, self.steps], np.float32)

    def render(self) -> Any:
        """Shows where it is."""
        return picture(self.at, self.steps)


def picture(at: float, steps: int) -> np.ndarray:
    """Draws a place and a time."""
    frame = np.full((16, 16, 3), 40, np.uint8)
    frame[:, :, 0] = np.float64(at).view(np.uint64) % 251
    frame[:, :, 1] = 20 + steps % 200
    return frame


class Together(VectorEnv):
    """Lanes that draw from one generator, so that none can go its way without the others."""

    def __init__(
        self, num_envs: int = WIDTH, render_mode: str | None = None, autoreset_mode: str | None = "NextStep"
    ) -> None:
        self.num_envs, self.render_mode = num_envs, render_mode
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": 30}
        self.mode = AutoresetMode(autoreset_mode or "NextStep")
        if autoreset_mode is not None:
            self.metadata["autoreset_mode"] = self.mode
        self.single_action_space = spaces.Discrete(3)
        self.single_observation_space = spaces.Box(-10, 10, (2,), np.float32)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.at, self.steps, self.done = np.zeros(num_envs), np.zeros(num_envs, int), np.zeros(num_envs, bool)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """Begins somewhere, in all lanes or in some."""
        super().reset(seed=seed)
        mask = (options or {}).get("reset_mask", np.ones(self.num_envs, bool))
        self._begin(mask)
        self.at[mask] += (options or {}).get("more", 0)
        return self._observations(), {}

    def _begin(self, mask: np.ndarray) -> None:
        self.at[mask] = self.np_random.uniform(size=int(mask.sum()))
        self.steps[mask], self.done[mask] = 0, False

    def step(self, actions: np.ndarray) -> Any:
        """Goes somewhere; what one lane draws depends on all."""
        self.at += self.np_random.normal(size=self.num_envs)
        self.steps += 1
        rewards = (self.at / 3).astype(np.float32)
        terminations, truncations = actions == TERMINATE, actions == TRUNCATE
        infos: dict[str, Any] = {}
        if self.mode is AutoresetMode.NEXT_STEP and self.done.any():
            rested = self.done.copy()
            self._begin(rested)
            rewards[rested], terminations, truncations = 7, terminations & ~rested, truncations & ~rested
        self.done = terminations | truncations
        if self.mode is AutoresetMode.SAME_STEP and self.done.any():
            infos["final_obs"] = np.full(self.num_envs, None, object)
            for lane in np.flatnonzero(self.done):
                infos["final_obs"][lane] = self._observations()[lane]
            self._begin(self.done.copy())
        return self._observations(), rewards, terminations, truncations, infos

    def _observations(self) -> np.ndarray:
        return np.stack([self.at, self.steps], axis=1).astype(np.float32)

    def render(self) -> Any:
        """Draws every lane."""
        return tuple(picture(at, steps) for at, steps in zip(self.at, self.steps.tolist(), strict=True))


class Unseen(Together):
    """One that can't be drawn."""

    def __init__(self, num_envs: int = WIDTH) -> None:
        super().__init__(num_envs)


class Arithmetic(Together):
    """One without any generator of NumPy's, like those written in C++: what it draws is computed from its seed."""

    state: int = 1

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:  # noqa: ARG002  # has none
        """Begins where its seed says, or goes on."""
        self.state = seed if seed is not None else self.state
        self._begin(np.ones(self.num_envs, bool))
        return self._observations(), {}

    def _begin(self, mask: np.ndarray) -> None:
        self.state = self.state * 48271 % 0x7FFFFFFF
        self.at[mask], self.steps[mask], self.done[mask] = self.state / 0x7FFFFFFF, 0, False

    def step(self, actions: np.ndarray) -> Any:
        """Stays, but ends as it is told."""
        self.steps += 1
        rested, self.done = self.done, actions == TERMINATE
        if rested.any():
            self._begin(rested)
            self.done &= ~rested
        return self._observations(), self.at.copy(), self.done.copy(), np.zeros(self.num_envs, bool), {}


def register() -> None:
    """Registers them, once."""
    if "test/Obedient-v0" not in gym.registry:
        gym.register("test/Obedient-v0", entry_point="vector_envs:Obedient", disable_env_checker=True)
        gym.register("test/Together-v0", vector_entry_point="vector_envs:Together")
        gym.register("test/Unseen-v0", vector_entry_point="vector_envs:Unseen")
        gym.register("test/Arithmetic-v0", vector_entry_point="vector_envs:Arithmetic")


def make(kind: str, mode: AutoresetMode, width: int = WIDTH, render_mode: str | None = None) -> VectorEnv:
    """Makes a vector env of a kind: "sync", "async" or "batch"."""
    register()
    if kind == "batch":
        return gym.make_vec(
            "test/Together-v0",
            width,
            "vector_entry_point",
            render_mode=render_mode,
            autoreset_mode=mode.value,
        )
    kwargs = {"autoreset_mode": mode} if hasattr(gym.vector, "AutoresetMode") else {}
    return gym.make_vec("test/Obedient-v0", width, kind, vector_kwargs=kwargs, render_mode=render_mode)


__all__ = ["ALL_MODES", "MODES", "WIDTH", "AutoresetMode", "SyncVectorEnv", "make", "register"]
