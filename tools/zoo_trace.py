"""What a training or a replay of the zoo saw, as digests: bit for bit, and small enough to keep."""

from __future__ import annotations

import functools
import hashlib
import random
from typing import Any

import gymnasium as gym
import numpy as np


def feed(into: Any, value: Any) -> None:
    """Digests whatever an env returns: values, types and shapes; of strange objects the type alone."""
    if isinstance(value, dict):
        for key in sorted(value, key=str):
            into.update(f"{key}:".encode())
            feed(into, value[key])
    elif isinstance(value, list | tuple):
        into.update(f"{type(value).__name__}{len(value)}".encode())
        for item in value:
            feed(into, item)
    elif isinstance(value, np.ndarray | np.generic) and value.dtype != object:
        into.update(f"{value.dtype}{value.shape}".encode() + value.tobytes())
    else:
        known = isinstance(value, bool | int | float | str | bytes | None)
        into.update(f"{type(value).__name__}{value!r}".encode() if known else type(value).__name__.encode())


class Trace:
    """Digests what the bare envs of this process do, whoever drives them: one digest from a reset to the next.

    It is how a replay's word is checked: an exact one went, step by step, the way that the training went.
    """

    def __init__(self) -> None:
        self.parts: list[Any] = []
        make = gym.make

        @functools.wraps(make)
        def traced(*arguments: Any, **kwargs: Any) -> Any:
            env = make(*arguments, **kwargs)
            self._follow(env.unwrapped)
            return env

        gym.make = traced

    def since(self, mark: int) -> list[str]:
        """Returns the digests of all resets from the `mark`-th on."""
        return [part.hexdigest() for part in self.parts[mark:]]

    def _follow(self, env: Any) -> None:
        reset, step = env.reset, env.step
        inside: list[None] = []

        @functools.wraps(reset)
        def traced_reset(*arguments: Any, **kwargs: Any) -> Any:
            inside.append(None)  # some envs step themselves while they are reset
            try:
                result = reset(*arguments, **kwargs)
            finally:
                inside.pop()
            if not inside:
                self.parts.append(hashlib.sha256())
                feed(self.parts[-1], result[0])
            return result

        @functools.wraps(step)
        def traced_step(action: Any) -> Any:
            result = step(action)
            if not inside and self.parts:
                feed(self.parts[-1], list(result[:4]))
            return result

        env.reset, env.step = traced_reset, traced_step


class Diary:
    """What a training saw, an entry an episode."""

    def __init__(self, trace: Trace, env: Any, *, render: bool, only: int | None) -> None:
        self.episodes: list[dict[str, Any]] = []
        self._trace, self._env, self._render, self._only = trace, env, render, only
        self._all = hashlib.sha256()
        self._count = 0

    def began(self, mark: int, observation: Any, info: dict[str, Any]) -> None:
        """An episode began; the bare env's `mark`-th reset is its first."""
        wanted = self._only is None or self._count == self._only
        self._entry: dict[str, Any] = {"mark": mark, "length": 0, "return": 0.0, "frames": []}
        self._wanted = wanted
        self._see(observation, info)
        if self._render and (wanted or self._count == 0):  # the first render sets MuJoCo's camera
            self._frame()

    def stepped(self, result: tuple[Any, ...]) -> None:
        """The env was stepped."""
        observation, reward, terminated, truncated, info = result
        feed(self._all, [reward, terminated, truncated])
        self._see(observation, info)
        self._entry["length"] += 1
        self._entry["return"] += float(reward)
        if self._render and self._wanted:
            self._frame()

    def ended(self) -> None:
        """The episode ended."""
        feed(self._all, [repr(random.getstate()), repr(np.random.get_state())])  # noqa: NPY002  # the global one
        self._entry["digest"] = self._all.hexdigest()
        self._entry["parts"] = self._trace.since(self._entry.pop("mark"))
        if self._only is None or self._wanted:
            self.episodes.append(self._entry)
        self._count += 1

    def _see(self, observation: Any, info: dict[str, Any]) -> None:
        feed(self._all, observation)
        feed(self._all, {name: value for name, value in info.items() if name != "episode"})

    def _frame(self) -> None:
        frame = np.ascontiguousarray(self._env.render())
        self._entry["shape"] = frame.shape
        self._entry["frames"].append(hashlib.sha256(frame.tobytes()).hexdigest())
