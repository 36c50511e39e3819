"""Crafter as a Gymnasium env: the package itself speaks the API that came before."""

from __future__ import annotations

import importlib
from typing import Any

import gymnasium as gym
import numpy as np

ENV_ID = "zoo/Crafter-v1"


class Crafter(gym.Env[Any, Any]):
    """Takes the seed of each world from `np_random`, as a new env would.

    Args:
        render_mode: "rgb_array" or None.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012  # Gymnasium declares it so

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode
        self._env: Any = importlib.import_module("crafter").Env(seed=0)
        self.action_space = gym.spaces.Discrete(int(self._env.action_space.n))
        self.observation_space = gym.spaces.Box(0, 255, (64, 64, 3), np.uint8)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Makes a new world."""
        super().reset(seed=seed, options=options)
        self._env._seed = int(self.np_random.integers(2**31 - 1))  # noqa: SLF001  # there is no other way to seed it
        self._env._episode = 0  # noqa: SLF001  # the world's seed is made of both
        return self._env.reset(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Steps the world."""
        observation, reward, over, info = self._env.step(int(action))
        return observation, float(reward), bool(over), False, info

    def render(self) -> Any:
        """Draws the world; at night this draws from the world's own generator."""
        return self._env.render((256, 256))


gym.register(ENV_ID, entry_point="zoo_crafter:Crafter", max_episode_steps=10_000)
