"""An episode and an env -> frames and a verdict. Knows no path and no file.

Every reward, every ending and every kept fingerprint is compared bit for bit while the env is stepped.
The first difference is kept; the frames go on to the episode's end, for whoever wants to look at them.
"""

from __future__ import annotations

import contextlib
import functools
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np

from reenact import origin
from reenact.episode import Divergence, EpisodeData, Origin, OriginName
from reenact.errors import ReenactError, ReplayError
from reenact.fingerprint import fingerprint
from reenact.rebuild import rebuild
from reenact.recipe import inert, is_mine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from reenact.recipe import EnvFactory

Array = np.ndarray[Any, Any]
Env = gym.Env[Any, Any]
_BITS = struct.Struct("<d").pack


@dataclass(frozen=True, slots=True)
class FirstReset:
    """How the env instance of a segment was first reset: MuJoCo's free camera stays where it was set then."""

    origins: tuple[Origin, ...]
    options: dict[str, Any] | None


@dataclass(frozen=True)
class Stage:
    """What an episode is re-executed on: a fresh env each time.

    Attributes:
        recipe: its recipe, as JSON.
        signature: the recipe's.
        factory: the user's own way to make it, instead of the recipe.
    """

    recipe: str
    signature: str
    factory: EnvFactory | None = None

    @contextlib.contextmanager
    def open(self, render_mode: str | None) -> Iterator[Env]:
        """Makes the env, and closes it afterwards. A `Recorder` that the factory puts into it stays inert.

        Raises:
            RecipeError: it can't be rebuilt.
        """
        token = inert.set(True)
        try:
            if self.factory is not None:
                env = self.factory(render_mode=render_mode)
            else:
                mine = is_mine(self.recipe, self.signature)
                env = rebuild(self.recipe, mine=mine, render_mode=render_mode)
        finally:
            inert.reset(token)
        if not isinstance(env, gym.Env):
            raise ReplayError(f"the factory returned {type(env).__name__}, expected a gymnasium.Env")
        try:
            if render_mode is not None and env.render_mode != render_mode:
                raise ReplayError(
                    f"the env was made with render_mode {env.render_mode!r}, expected {render_mode!r}: "
                    "the factory must pass render_mode on"
                )
            yield env
        finally:
            env.close()


class Reexecution:
    """One episode, re-executed in a fresh env: iterate over it for the frames.

    Args:
        env: fresh from its stage.
        data: the episode.
        start: the origin to use.
        render: whether to draw; without it each frame is None.
        tolerance: how far a reward may be off, and the return by so much a step; above 0
            fingerprints are left out.
        first: the env instance's first reset, where its camera was set.
    """

    def __init__(
        self,
        env: Env,
        data: EpisodeData,
        start: Origin,
        *,
        render: bool,
        tolerance: float = 0.0,
        first: FirstReset | None = None,
    ) -> None:
        self.env = env
        self._data, self._start, self._render, self._first = data, start, render, first
        self._check = _Check(data, tolerance)

    @property
    def origin(self) -> OriginName:
        """What it is started from."""
        return self._start.name

    @property
    def divergence(self) -> Divergence | None:
        """The first difference so far; after the last frame None means that the episode was exact."""
        return self._check.divergence

    def __iter__(self) -> Iterator[Any]:
        """Yields a frame after the reset and after each step, to the episode's end or the env's.

        Raises:
            ReplayError: it can't be started.
        """
        data, check = self._data, self._check
        if self._render and self._first is not None:
            _set_camera(self.env, self._first)
        started = self._try(0, "reset", lambda: (_reset(self.env, self._start, data.options),))
        if started is None:
            return
        check.observation(0, started[0])
        yield self._frame()
        total: Any = 0.0
        for step, action in enumerate(data.actions, 1):
            stepped = self._try(step, "step", functools.partial(self.env.step, action))
            if stepped is None:
                return
            observation, reward, terminated, truncated, _ = stepped
            if step > data.length:
                check.missing_error(step)
                return
            total += reward
            check.reward(step, reward, data.rewards[step - 1])
            check.ending(step, bool(terminated), bool(truncated))
            check.observation(step, observation)
            if step == data.length:
                check.total(step, float(total))
            yield self._frame()
            if (terminated or truncated) and step < data.length:
                return  # `ending` has seen it; stepping on is undefined
        if data.error is not None and len(data.actions) == data.length:
            check.missing_error(data.length)

    def _try(self, step: int, where: str, call: Callable[[], Any]) -> Any:
        """Returns what the env returned, or None where it raised: the verdict says whether it should have."""
        try:
            return call()
        except ReenactError:
            raise
        except Exception as error:  # the env may raise anything
            if isinstance(error, gym.error.DependencyNotInstalled) and self._data.error is None:
                raise  # it says what to install, and nothing about the episode
            self._check.raised(step, error, where)
            return None

    def _frame(self) -> Any:
        return self.env.render() if self._render else None


class _Check:
    """Keeps the first difference."""

    def __init__(self, data: EpisodeData, tolerance: float) -> None:
        self._data, self._tolerance = data, tolerance
        self._agreed = -1
        self.divergence: Divergence | None = None

    def differs(self, step: int, name: str, expected: object, got: object) -> None:
        if self.divergence is None:
            self.divergence = Divergence(step, self._agreed, name, expected, got)

    def observation(self, step: int, observation: object) -> None:
        expected = self._data.fingerprints.get(step)
        if expected is None or self._tolerance or self.divergence is not None:
            return
        got = fingerprint(observation)
        if got != expected:
            self.differs(step, "observation", f"{expected:08x}", f"{got:08x}")
        else:
            self._agreed = step

    def reward(self, step: int, got: Any, expected: float) -> None:
        value = float(np.asarray(got, np.float64).reshape(()))
        if not self._close(value, float(expected)):
            self.differs(step, "reward", float(expected), value)

    def total(self, step: int, got: float) -> None:
        if not self._close(got, self._data.return_, steps=max(1, self._data.length)):
            self.differs(step, "return", self._data.return_, got)

    def _close(self, got: float, expected: float, steps: int = 1) -> bool:
        return _BITS(got) == _BITS(expected) or abs(got - expected) <= self._tolerance * steps > 0

    def ending(self, step: int, terminated: bool, truncated: bool) -> None:
        last = step == self._data.length
        expected_terminated = last and self._data.ended == "terminated"
        if terminated != expected_terminated:
            self.differs(step, "terminated", expected_terminated, terminated)
        expected_truncated = last and self._data.ended == "truncated"
        if not terminated and truncated != expected_truncated:
            self.differs(step, "truncated", expected_truncated, truncated)

    def missing_error(self, step: int) -> None:
        self.differs(step, "error", self._data.error.type if self._data.error else None, None)

    def raised(self, step: int, error: Exception, where: str) -> None:
        name = f"{type(error).__module__}.{type(error).__qualname__}"
        expected = self._data.error
        at_its_step = expected is not None and (where == "reset" or step == self._data.length + 1)
        if expected is None or expected.type != name or expected.where != where or not at_its_step:
            self.differs(step, "error", expected.type if expected and at_its_step else None, f"{name}: {error}")


def _reset(env: Env, start: Origin, options: dict[str, Any] | None) -> object:
    if isinstance(options, dict) and "$unloggable" in options:
        raise ReplayError(f"its reset options could not be logged: {options['$unloggable']}")
    if start.name == "seed":
        return env.reset(seed=start.seed, options=options)[0]
    if start.rng is None:
        raise ReplayError("its RNG state is missing")
    try:
        origin.restore_rng(env, start.rng)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ReplayError(f"its RNG state can't be restored here: {error}") from error
    return env.reset(options=options)[0]


def _set_camera(env: Env, first: FirstReset) -> None:
    """Draws once after the first reset that the env instance had, as live rendering would have.

    Gymnasium's MuJoCo renderer points its free camera at where things are at the first render.
    """
    if not hasattr(env.unwrapped, "mujoco_renderer") or not first.origins:
        return
    _reset(env, first.origins[0], first.options)
    env.render()


def frames(data: EpisodeData, stage: Stage, first: FirstReset | None) -> Iterator[Array]:
    """Yields an episode's frames: uint8, height x width x 3, length + 1 of them.

    Raises:
        ReplayError: it can't be re-executed, or diverged: raised at the frame where that showed.
    """
    if not data.origins:
        raise ReplayError(NEEDS_CHAIN)
    with stage.open("rgb_array") as env:
        run = Reexecution(env, data, data.origins[0], render=True, first=first)
        for frame in run:
            if run.divergence is None:
                yield frame
            else:
                break
    if run.divergence is not None:
        raise ReplayError(f"the replay diverged: {describe(run.divergence)}")


NEEDS_CHAIN = (
    "it has neither a seed nor an RNG state to start from: it needs a chain of the episodes before it, "
    "which this version does not make yet"
)


def describe(divergence: Divergence) -> str:
    """Says a divergence in one line."""
    after = f"began after step {divergence.since}" if divergence.since >= 0 else "began at the reset"
    found = f"expected {divergence.expected}, got {divergence.got}"
    return f"{divergence.field} at step {divergence.step}: {found} ({after})"
