"""One env that goes through a lineage, reset after reset, undrawn: how chained episodes reach where they begin."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any

import gymnasium as gym

from reenact import headless, origin, snapshot
from reenact.drawing import sets_camera
from reenact.errors import ReenactError, ReplayError, VideoError
from reenact.guard import Guard
from reenact.reexecute import reset

if TYPE_CHECKING:
    from collections.abc import Callable

    from reenact.acts import Act
    from reenact.episode import Origin
    from reenact.lineage import Lineage
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
        render: as given.
        position: the reset before which it stands.
        drawn: whether any frame but the camera's first has been drawn.
    """

    def __init__(self, stage: Stage, lineage: Lineage, start: int, *, render: bool) -> None:
        self._lineage, self.start, self.position, self.render = lineage, start, start, render
        self.drawn = False
        self._owed = 0
        self._globals: dict[str, Any] | None = None
        self._trust = stage.trust
        with contextlib.ExitStack() as stack:
            self.env = stack.enter_context(stage.open(render=render))
            if start and render:
                set_camera(self.env, lineage, trust=stage.trust)
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
        if self._globals is not None:  # another env may have been at work since
            snapshot.put_global_states(self._globals)
        said = time.monotonic()
        for act in self._lineage.acts(self.position - self._owed, position, self.env.action_space):
            if self._owed:
                self._owed = 0
                _do(self.env, act.trailing)
                continue
            self._redo(act)
            self.position += 1
            now = time.monotonic()
            if now - said > _TELL_EVERY_S:
                said = now
                tell(self.position - self.start, position - self.start)

    def origin_of(self, origins: tuple[Origin, ...]) -> Origin | None:
        """Returns which of its origins the reset at its position is to be started from."""
        if self.position == self.start:
            return origins[0] if origins else None
        # a snapshot would undo what chaining is for: all that it does not hold
        return next((one for one in origins if one.name != "snapshot"), None)

    def went_on(self, *, drawn: bool) -> None:
        """The episode at its position has been re-executed by somebody else, to its end: what came after it is owed."""
        self.drawn |= drawn
        self.position += 1
        self._owed = 1
        self._globals = snapshot.global_states()

    def _redo(self, act: Act) -> None:
        try:
            origins = origin.read(act.seed, act.states)
        except ValueError as error:
            raise ReplayError(f"reset {self.position}, on the way, can't be read: {error}") from error
        try:
            reset(self.env, self.origin_of(origins), act.options, trust=self._trust)
            if self.position == 0 and self.render and sets_camera(self.env):
                Guard(self.env).render()
            step = self.env.step
            for action in act.actions:
                _, _, terminated, truncated, _ = step(action)
                if terminated or truncated:
                    break
        except (ReenactError, gym.error.DependencyNotInstalled):
            raise
        except Exception as error:  # noqa: BLE001  # the env may raise anything
            self._check_raised(act, error)
        if act.trailing:
            _do(self.env, act.trailing)

    def _check_raised(self, act: Act, error: Exception) -> None:
        if not act.errored:
            what = f"{type(error).__name__}: {error}"
            raise ReplayError(f"reset {self.position}, on the way, raised {what}; when recorded it did not") from error


def set_camera(env: Env, lineage: Lineage, *, trust: bool) -> None:
    """Draws once after the first reset that the env instance had, as live rendering would have.

    Gymnasium's MuJoCo renderer points its free camera at where things are at the first render.

    Raises:
        VideoError: there is nothing to draw with here.
    """
    if not sets_camera(env):
        return
    headless.require_mujoco()
    try:
        for act in lineage.acts(0, 1, env.action_space):
            found = origin.read(act.seed, act.states)
            if found:
                reset(env, found[0], act.options, trust=trust)
                env.render()
    except Exception as error:
        remedy = headless.explain(error)
        if remedy is not None:
            headless.mujoco_failed(remedy)
            raise VideoError(remedy) from error
        # a reset that can't be done leaves the camera where the episode's own puts it


def _do(env: Env, actions: list[Any]) -> None:
    """Does what came after an episode's end.

    Raises:
        ReplayError: it can't be done: of a vector env's lane, these are other lanes' resets too.
    """
    for action in actions:
        try:
            env.step(action)
        except ReenactError:
            raise
        except Exception:  # noqa: BLE001, S110  # what steps after the end do is the env's own business
            pass
