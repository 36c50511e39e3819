"""Envs that each keep or draw something in a way of their own, and draw what they hold: frames are their state.

`record` plays one as a training would, and keeps each frame that it drew meanwhile, live: the reference that replays
are held against.
"""

from __future__ import annotations

import os
import random
from collections import deque
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
from gymnasium.utils import seeding

import reenact

if TYPE_CHECKING:
    from pathlib import Path

RAISE, LENGTH = 2, 5
NO_STEP, CUT, ERROR, TRAIL = "no step", "cut", "error", "trail"
Script = list[tuple[int | None, str]]
"""What `record` does: the seed of each reset, and what follows it."""


class Odd(gym.Env[np.ndarray, int]):
    """Pays what it draws, for five steps. Counts, over all its instances, what is done to it."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012  # Gymnasium's own way
    count: dict[str, int] = {}  # noqa: RUF012  # one for all of them

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float64)
        self.action_space: gym.spaces.Space[Any] = gym.spaces.Discrete(2)
        self.at, self.value = 0, 0.0
        self.tally("made")

    def tally(self, what: str) -> None:
        """One more."""
        Odd.count[what] = Odd.count.get(what, 0) + 1

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """Starts: `begin` says with what."""
        self.tally("reset")
        self.seed(seed)
        self.at, self.value = 0, self.begin() + (options or {}).get("add", 0.0)
        return self._observation(), {}

    def seed(self, seed: int | None) -> None:
        """Seeds, as Gymnasium's own envs do."""
        super().reset(seed=seed)

    def begin(self) -> float:
        """Draws what an episode begins with."""
        return float(self.draw())

    def draw(self) -> float:
        """Draws a number, at reset and in each step."""
        return float(self.np_random.random())

    def step(self, action: int) -> Any:
        """Goes on."""
        self.tally("step")
        if action == RAISE:
            raise LookupError("no such action")
        self.at += 1
        self.value = 0.5 * self.value + 0.1 * action + self.draw()
        return self._observation(), self.value, self.at >= LENGTH, False, {}

    def _observation(self) -> np.ndarray:
        return np.array([self.at, self.value])

    def picture(self) -> np.ndarray:
        """Returns the observation's bytes, as blocks that video codecs like."""
        blocks = np.kron(self._observation().view(np.uint8).reshape(4, 4), np.ones((16, 16), np.uint8))
        return blocks[..., None].repeat(3, axis=2)

    def render(self) -> Any:
        """Draws, if it was made to."""
        self.tally("render")
        return self.picture() if self.render_mode is not None else None

    def close(self) -> None:
        """Is closed."""
        self.tally("closed")


class Helper:
    """An object of an env's that holds a generator."""

    def __init__(self, rng: Any = None) -> None:
        self.rng = rng if rng is not None else np.random.default_rng()


class Legacy(Odd):
    """Its generator is a RandomState under a property of its own, as dm_control's."""

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__(render_mode)
        self._task = Helper(np.random.RandomState())

    @property
    def np_random(self) -> Any:
        """The task's."""
        return self._task.rng

    def seed(self, seed: int | None) -> None:
        """Seeds it in place."""
        if seed is not None:
            self._task.rng.seed(seed)

    def draw(self) -> float:
        """Draws, normal numbers too: of these a RandomState keeps every second for later."""
        return float(self.np_random.normal())


class InHelper(Odd):
    """Draws from the generator of an object that it holds, which no reset seeds."""

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__(render_mode)
        self.helper = Helper()

    def draw(self) -> float:
        """Draws."""
        return float(self.helper.rng.random())


class InContainer(Odd):
    """Draws from generators in a dict and in a list."""

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__(render_mode)
        self.streams = {"wind": [np.random.default_rng()], "rain": np.random.Generator(np.random.MT19937())}

    def draw(self) -> float:
        """Draws."""
        return float(self.streams["wind"][0].random() + self.streams["rain"].random())  # type: ignore[index]


class InNested(Odd):
    """Draws from the `np_random` of an env that it holds: made at first use, seeded by no reset."""

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__(render_mode)
        self.inner = Odd()

    def draw(self) -> float:
        """Draws."""
        return float(self.inner.np_random.random())


class Late(Odd):
    """Makes its generator in the first reset, under a name that it did not have before."""

    rng: np.random.Generator

    def seed(self, seed: int | None) -> None:
        """Seeds once."""
        super().seed(seed)
        if "rng" not in vars(self):
            self.rng = np.random.default_rng(seed)

    def draw(self) -> float:
        """Draws."""
        return float(self.rng.random())


class Shared(Odd):
    """Its helper draws from the env's own generator."""

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__(render_mode)
        self.helper = Helper(self.np_random)

    def seed(self, seed: int | None) -> None:
        """Seeds both."""
        super().seed(seed)
        self.helper.rng = self.np_random

    def draw(self) -> float:
        """Draws."""
        return float(self.helper.rng.random())


class Noisy(gym.Wrapper[Any, Any, Any, Any], gym.utils.RecordConstructorArgs):
    """A wrapper with a generator of its own, which no reset seeds."""

    def __init__(self, env: gym.Env[Any, Any], scale: float = 1.0) -> None:
        gym.utils.RecordConstructorArgs.__init__(self, scale=scale)
        gym.Wrapper.__init__(self, env)
        self.scale, self._rng = scale, np.random.default_rng()

    def step(self, action: Any) -> Any:
        """Adds noise to the reward."""
        observation, reward, *rest = self.env.step(action)
        return observation, float(reward) + self.scale * self._rng.random(), *rest


class Replaces(Odd):
    """Makes its generator anew at each reset, without a seed from the operating system's entropy."""

    def seed(self, seed: int | None) -> None:
        """Replaces it."""
        self._np_random, self._np_random_seed = seeding.np_random(seed)


class ReplacesNested(InHelper):
    """Makes its helper's generator anew at each reset, as panda-gym does."""

    def seed(self, seed: int | None) -> None:
        """Replaces it."""
        super().seed(seed)
        self.helper.rng = seeding.np_random(seed)[0]


class ReplacesBySpawned(Odd):
    """Makes its generator anew from a child of a sequence that nobody can seed by a number."""

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__(render_mode)
        self.np_random = np.random.default_rng()

    def seed(self, seed: int | None) -> None:
        """Replaces it."""
        super().seed(seed)
        if seed is None:
            self.np_random = np.random.default_rng(np.random.SeedSequence().spawn(1)[0])


class GlobalReset(Odd):
    """Draws from `random` when it is reset."""

    def begin(self) -> float:
        """Draws."""
        return random.random()  # noqa: S311  # that it does is what is tested


class GlobalStep(Odd):
    """Draws from `numpy.random` in each step."""

    def begin(self) -> float:
        """Draws nothing."""
        return 0.0

    def draw(self) -> float:
        """Draws."""
        return float(np.random.random())  # noqa: NPY002  # as above


class SeedsGlobals(Odd):
    """A seed that it is given goes to the global generators; it draws from these at resets."""

    def seed(self, seed: int | None) -> None:
        """Seeds them."""
        super().seed(seed)
        if seed is not None:
            np.random.seed(seed)  # noqa: NPY002  # as above

    def begin(self) -> float:
        """Draws."""
        return float(np.random.random())  # noqa: NPY002  # as above

    def draw(self) -> float:
        """Draws nothing."""
        return 0.25


class Deaf(Odd):
    """Ignores the seed that reset is given; has no generator before its first use."""

    def seed(self, seed: int | None) -> None:
        """Does nothing."""


class DeafFromBirth(Deaf):
    """Ignores the seed that reset is given; has drawn from its generator since it was made."""

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__(render_mode)
        self.np_random.random()


class Carries(Odd):
    """Begins with what was done in the last so many resets' episodes, or since it was made."""

    def __init__(self, render_mode: str | None = None, *, memory: int | None = 1, cleared: bool = False) -> None:
        super().__init__(render_mode)
        self.done: deque[float] = deque(maxlen=memory)
        self.cleared = cleared

    def seed(self, seed: int | None) -> None:
        """One more episode; a seed clears the memory, if it should."""
        super().seed(seed)
        if self.cleared and seed is not None:
            self.done.clear()
        self.before, self.now = sum(self.done), 0.001
        self.done.append(self.now)

    def begin(self) -> float:
        """Draws."""
        return self.before + self.draw()

    def step(self, action: int) -> Any:
        """Keeps what was done, whatever comes of it."""
        self.done[-1] += 0.01 + 0.1 * action
        return super().step(action)


class Scrolls(Odd):
    """Its pictures show how many steps it has done in all, as a ground that goes on scrolling."""

    ground = 0

    def step(self, action: int) -> Any:
        """Goes on."""
        self.ground += 1
        return super().step(action)

    def picture(self) -> np.ndarray:
        """Returns the ground in a corner."""
        found = super().picture()
        found[:8, :8] = self.ground
        return found


class Restless(Odd):
    """Draws from the operating system: nothing determines it."""

    def begin(self) -> float:
        """Draws nothing."""
        return 0.0

    def draw(self) -> float:
        """Draws."""
        return float(os.urandom(1)[0])


class RestlessStart(Restless):
    """Draws from the operating system when it is reset, from a few numbers."""

    def begin(self) -> float:
        """Draws."""
        return float(int.from_bytes(os.urandom(4), "little"))

    def draw(self) -> float:
        """Draws nothing."""
        return 0.0


class DrawsToDraw(Odd):
    """Its render() draws random numbers."""

    def render(self) -> Any:
        """Draws, and draws."""
        self.np_random.random()
        return super().render()


class MovesToDraw(Odd):
    """Its render() moves something that nobody can put back."""

    def render(self) -> Any:
        """Draws, and moves."""
        frame = super().render()
        self.value += 0.125
        return frame


ENVS = [
    Odd, Legacy, InHelper, InContainer, InNested, Late, Shared, Replaces, ReplacesNested, ReplacesBySpawned, GlobalReset,
    GlobalStep, SeedsGlobals, Deaf, DeafFromBirth, Carries, Scrolls, Restless, RestlessStart, DrawsToDraw, MovesToDraw,
]  # fmt: skip
for _env in ENVS:
    gym.register(f"odd/{_env.__name__}-v0", f"{__name__}:{_env.__name__}")


def make(env: type[Odd], **kwargs: Any) -> gym.Env[Any, Any]:
    """Makes one, as its users would."""
    return gym.make(f"odd/{env.__name__}-v0", **kwargs)


def record(
    env: gym.Env[Any, Any],
    run: Path,
    script: Script,
    *,
    options: dict[str, Any] | None = None,
    live: bool = True,
    **kwargs: Any,
) -> list[list[np.ndarray]]:
    """Records a script; returns the frames of each of its episodes, drawn live, or without drawing none."""
    recorder = reenact.Recorder(env, run=run, **kwargs)
    drawn: list[list[np.ndarray]] = []
    draw: Any = env.unwrapped.picture if live else int
    for at, (seed, what) in enumerate(script):
        recorder.reset(seed=seed, options=options)
        frames = [draw()]
        for step in range(0 if what == NO_STEP else 2 if what in (CUT, ERROR) else LENGTH):
            recorder.step((at + step) % 2)
            frames.append(draw())
        if what == ERROR:
            with_error(recorder)
        if what == TRAIL:
            recorder.step(1)
            with_error(recorder)
            recorder.step(1)
        if what != NO_STEP:
            drawn.append(frames)
    recorder.close()
    return drawn


def with_error(env: gym.Env[Any, Any]) -> None:
    """Does a step that raises."""
    try:
        env.step(RAISE)
    except LookupError:
        return
    raise AssertionError("it was to raise")


def unseeded(episodes: int, first: int | None = 3) -> Script:
    """The usual training: the first reset is seeded, and no other."""
    return [(first if episode == 0 else None, "") for episode in range(episodes)]
