"""An episode and an env -> frames and a verdict. Knows no path and no file.

Every reward, every ending and every kept fingerprint is compared bit for bit while the env is stepped.
The first difference is kept; the frames go on to the episode's end, for whoever wants to look at them.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import gymnasium as gym

from reenact import headless, jsontags, origin
from reenact.comparison import Comparison
from reenact.episode import ResetOptions, Unloggable
from reenact.errors import ReenactError, ReplayError, VideoError
from reenact.fingerprint import fingerprint
from reenact.guard import Guard
from reenact.signing import is_mine
from reenact.strangers import refuse_names

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from reenact.episode import Divergence, EpisodeData, Origin

Env = gym.Env[Any, Any]

_LOOK_BACK = 32
"""How many frames are drawn, and dropped, before those that are wanted: some envs draw from what the last render left
(Taxi the direction of the last move that it has drawn; LunarLander ages its sparks, for seven frames)."""


class Reexecution:
    """One episode, re-executed: iterate over it for the frames.

    Args:
        env: fresh from its stage, or left by the episode before.
        data: the episode.
        start: the origin to use; None: the reset as it was called, in an env that stands where it should.
        render: whether to draw; without it each frame is None.
        shown: the frames that are wanted; of those before and after them None is yielded. None: all.
        tolerance: how far a reward may be off, and the return by so much a step; above 0
            fingerprints are left out.
        trust: whether options and snapshots that somebody else may have put into the log are used all the same.
        trace: takes the fingerprint of every observation, and the reward before it; None: nobody asks.

    Attributes:
        env: the env.
        finished: whether it has gone to the episode's end, without a difference.
    """

    def __init__(
        self,
        env: Env,
        data: EpisodeData,
        start: Origin | None,
        *,
        render: bool,
        shown: range | None = None,
        tolerance: float = 0.0,
        trust: bool = False,
        trace: list[tuple[int, float]] | None = None,
    ) -> None:
        self.env, self.finished = env, False
        self._data, self._start, self._render, self._trace = data, start, render, trace
        self._trust = trust
        self._check = Comparison(data, tolerance)
        self._guard: Guard | None = None
        self._drawn = range(shown.start - _LOOK_BACK, shown.stop) if shown is not None else None

    @property
    def divergence(self) -> Divergence | None:
        """The first difference so far; after the last frame None means that the episode was exact."""
        return self._check.divergence

    def __iter__(self) -> Iterator[Any]:
        """Yields a frame after the reset and after each step, to the episode's end or the env's.

        Raises:
            ReplayError: it can't be started.
            VideoError: it can't be drawn.
        """
        yield from self._frames()
        self.finished = self.divergence is None

    def _frames(self) -> Iterator[Any]:
        data, check = self._data, self._check
        started = self._try(0, "reset", lambda: (reset(self.env, self._start, data.options, trust=self._trust),))
        if started is None:
            return
        check.observation(0, started[0])
        self._note(started[0], 0.0)
        if self._render:
            self._guard = Guard(self.env)
        yield self._frame(0)
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
            self._note(observation, reward)
            if step == data.length:
                check.total(step, float(total))
            yield self._frame(step)
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
            remedy = headless.explain(error) if self._render and self._data.error is None else None
            if remedy is not None:
                raise VideoError(remedy) from error  # as above
            self._check.raised(step, error, where)
            return None

    def _note(self, observation: object, reward: Any) -> None:
        if self._trace is not None:
            self._trace.append((fingerprint(observation), float(reward)))

    def _frame(self, step: int) -> Any:
        if self._guard is None or (step and self._drawn is not None and step not in self._drawn):
            return None
        return self._guard.render()  # the first always: MuJoCo's free camera looks at where things are then


def reset(env: Env, start: Origin | None, options: ResetOptions | Unloggable | None, *, trust: bool) -> object:
    """Resets an env as a logged reset was, from an origin of it; returns the observation.

    Args:
        env: fresh, or left by the episode before.
        start: the origin; None: the reset as it was called.
        options: what it was given.
        trust: whether what somebody else may have put into the log is used all the same.

    Raises:
        UntrustedError: options or a snapshot that this user did not record could do harm.
        ReplayError: the log does not hold what that takes, or it has no place in this env.
    """
    if isinstance(options, Unloggable):
        raise ReplayError(f"its reset options could not be logged: {options.why}")
    given = None
    if options is not None:
        given = options.value
        if not trust and not is_mine(jsontags.dumps(given), options.seal):
            refuse_names(given)
    if start is None:
        return env.reset(options=given)[0]
    try:
        origin.restore(env, start, trust=trust)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ReplayError(f"its state can't be restored here: {error}") from error
    return env.reset(seed=start.seed, options=given)[0]
