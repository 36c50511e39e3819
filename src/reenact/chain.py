"""One env that goes through a lineage, reset after reset, undrawn: how chained episodes reach where they begin."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any

import gymnasium as gym

from reenact import origin, rng, snapshot
from reenact.errors import ReenactError, ReplayError
from reenact.guard import Guard, sets_camera
from reenact.layout import StateKind
from reenact.reexecute import reset

if TYPE_CHECKING:
    from collections.abc import Callable

    from reenact.episode import Origin
    from reenact.lineage import Lineage
    from reenact.reader import Act
    from reenact.stage import Stage

Env = gym.Env[Any, Any]
_TELL_EVERY_S = 0.1


class Pass:
    """An env that stands in a lineage, before one of its resets.

    Args:
        stage: where the env comes from.
        lineage: what it goes through.
        start: the reset that it begins with, from that one's own origin.
        render: whether frames will be wanted of it.

    Attributes:
        env: the env.
        start: as given.
        position: the reset before which it stands.
        drawn: whether any frame but the camera's first has been drawn.
    """

    def __init__(self, stage: Stage, lineage: Lineage, start: int, *, render: bool) -> None:
        self._lineage, self.start, self.position, self.render = lineage, start, start, render
        self.drawn = False
        self._globals: dict[str, Any] | None = None
        with contextlib.ExitStack() as stack:
            self.env = stack.enter_context(stage.open("rgb_array" if render else None))
            if start and render:
                set_camera(self.env, lineage)
            self._stack = stack.pop_all()

    def close(self) -> None:
        """Closes the env."""
        self._stack.close()

    def advance(self, position: int, tell: Callable[[int, int], None]) -> None:
        """Goes on to the reset before which `position` stands.

        Raises:
            ReplayError: what it begins with has no origin, or can't be restored.
            DamagedError: the log is damaged on the way.
        """
        self.resume()
        said = time.monotonic()
        for act in self._lineage.acts(self.position, position, self.env.action_space):
            self._redo(act)
            self.position += 1
            if time.monotonic() - said > _TELL_EVERY_S:
                said = time.monotonic()
                tell(self.position - self.start, position - self.start)

    def resume(self) -> None:
        """Another env may have been at work since: puts the global generators back where this one left them."""
        if self._globals is not None:
            snapshot.put_global_states(self._globals)

    def leave(self) -> None:
        """Lets other envs go to work."""
        self._globals = snapshot.global_states()

    def origin_here(self, seed: int | None, states: list[tuple[int, StateKind, bytes]]) -> Origin | None:
        """Returns what the reset at its position is to be started from."""
        found = origin.read(seed, states)
        if self.position == self.start:
            return found[0] if found else None
        # a snapshot would undo what chaining is for: all that it does not hold
        return next((one for one in found if one.name != "snapshot"), None)

    def pass_by(self) -> None:
        """The episode at its position has been re-executed by somebody else: does the steps after its end."""
        for act in self._lineage.acts(self.position, self.position + 1, self.env.action_space):
            _do(self.env, act.trailing)
        self.position += 1

    def _redo(self, act: Act) -> None:
        try:
            if not self._restart(act):
                reset(self.env, self.origin_here(act.seed, act.states), act.options)
        except ReenactError:
            raise
        except Exception as error:  # noqa: BLE001  # the env may raise anything
            self._check_raised(act, error)
            return
        if self.position == 0 and self.render and sets_camera(self.env):
            Guard(self.env).render()
        step = self.env.step
        try:
            for action in act.actions:
                _, _, terminated, truncated, _ = step(action)
                if terminated or truncated:
                    break
        except Exception as error:  # noqa: BLE001  # the env may raise anything
            self._check_raised(act, error)
        if act.trailing:
            _do(self.env, act.trailing)

    def _check_raised(self, act: Act, error: Exception) -> None:
        if not act.errored:
            what = f"{type(error).__name__}: {error}"
            raise ReplayError(f"reset {self.position}, on the way, raised {what}; when recorded it did not") from error

    def _restart(self, act: Act) -> bool:
        """Does the commonest reset by far at a third of the price: its RNG alone, Gymnasium's own."""
        if self.position == self.start or act.seed is not None or act.options is not None or len(act.states) != 1:
            return False
        _, kind, data = act.states[0]
        own = vars(self.env.unwrapped).get("_np_random")
        if kind is not StateKind.PCG64 or own is None or type(own.bit_generator).__name__ != "PCG64":
            return False
        own.bit_generator.state = rng.decode(kind, data)
        self.env.reset()
        return True


def set_camera(env: Env, lineage: Lineage) -> None:
    """Draws once after the first reset that the env instance had, as live rendering would have.

    Gymnasium's MuJoCo renderer points its free camera at where things are at the first render.
    """
    if not sets_camera(env):
        return
    for act in lineage.acts(0, 1, env.action_space):
        found = origin.read(act.seed, act.states)
        if found:
            reset(env, found[0], act.options)
            env.render()


def _do(env: Env, actions: list[Any]) -> None:
    with contextlib.suppress(Exception):  # what steps after the end do is the env's own business
        for action in actions:
            env.step(action)
