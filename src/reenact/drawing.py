"""MuJoCo's contexts for drawing, as Gymnasium's renderer leaves them: one of them can blacken another's frames.

OpenGL knows one current context, and Gymnasium makes its own current only once, so a second env, made or closed,
leaves the first without. And MuJoCo frees what a context holds when its object is destroyed, by number and in
whatever context is current then: a closed env that is collected in the middle of another's episode takes that
one's framebuffer with it. Nothing raises: all frames from there on are black.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

Env = gym.Env[Any, Any]


@dataclass(frozen=True)
class Camera:
    """How an env is made to draw, where that is not as it was made when it was recorded.

    Attributes:
        kwargs: arguments for it, over those that it was recorded with.
        size: the (width, height) of its frames, where Gymnasium's MuJoCo renderer draws them; None: its own.
        draft: whether that draws without multisampling.
    """

    kwargs: Mapping[str, Any] = field(default_factory=dict)
    size: tuple[int, int] | None = None
    draft: bool = False

    def set_up(self, env: Env) -> None:
        """Sets what can be set until the env's first render."""
        for renderer in renderers(env):
            if getattr(renderer, "_viewers", None):
                continue  # it has drawn already, for its observations
            visual = renderer.model.vis
            if self.draft:
                visual.quality.offsamples = 0
            if self.size is not None:
                renderer.width, renderer.height = self.size
                visual.global_.offwidth, visual.global_.offheight = self.size


def renderers(env: Env) -> list[Any]:
    """Returns Gymnasium's MuJoCo renderers: the env's own, and those of the envs that it holds."""
    if "mujoco" not in sys.modules:  # asked twice a frame
        return []
    base = env.unwrapped
    held = [base, *(value for value in vars(base).values() if isinstance(value, gym.Env))]
    found = [getattr(one, "mujoco_renderer", None) for one in held]
    return [renderer for renderer in found if renderer is not None]


def viewers(env: Env) -> list[Any]:
    """Returns what its renderers have drawn with so far, a context each."""
    return [viewer for renderer in renderers(env) for viewer in (getattr(renderer, "_viewers", None) or {}).values()]


def sets_camera(env: Env) -> bool:
    """Whether the env's camera is set by its first render: MuJoCo's free one looks at where things are then."""
    return bool(renderers(env))


def prepare() -> None:
    """Collects envs that were dropped, before one is made to draw: collected later, they would take its frames."""
    if "mujoco" in sys.modules:
        gc.collect()


def resume(env: Env) -> None:
    """Makes an env's context the current one: another env may have been at work since its last frame."""
    for viewer in viewers(env):
        with contextlib.suppress(Exception):  # `render()` says it better
            viewer.make_context_current()


def release(env: Env) -> None:
    """Frees what an env's contexts hold, while these can be current: to be called before the env is closed."""
    for viewer in viewers(env):
        with contextlib.suppress(Exception):  # the user's env may have closed it already
            viewer.make_context_current()
            viewer.con.free()


def is_lost(env: Env, frame: object) -> bool:
    """Whether a frame is black because another env has taken what this one draws into."""
    if not viewers(env) or not isinstance(frame, np.ndarray) or frame.any():
        return False
    try:
        gl = importlib.import_module("OpenGL.GL")  # MuJoCo's own way to a context without a screen needs it
        return bool(gl.glGetError() != gl.GL_NO_ERROR)  # a black frame of a dark scene leaves none
    except Exception:  # noqa: BLE001  # there is no OpenGL to ask
        return False
