"""How an env is made for a replay: fresh each time, from its recipe or by the user's own factory."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import gymnasium as gym

from reenact import drawing, headless
from reenact.drawing import Camera
from reenact.errors import ReenactError, ReplayError, VideoError
from reenact.laneenv import BatchLane, LaneEnv
from reenact.rebuild import rebuild, refusal, text_alone
from reenact.recipe import inert, read
from reenact.signing import is_mine
from reenact.strangers import NONE, Permissions
from reenact.usercode import unfit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from reenact.recipe import EnvFactory

Env = gym.Env[Any, Any]


@dataclass(frozen=True)
class Stage:
    """What an episode is re-executed on.

    Attributes:
        recipe: its recipe, as JSON.
        signature: the recipe's.
        factory: the user's own way to make it, instead of the recipe.
        permissions: what a stranger's recipe may have imported.
        camera: how it is made to draw.
        lane: of a vector env, which of its lanes the episode is of; else -1.
    """

    recipe: str
    signature: str
    factory: EnvFactory | None = None
    permissions: Permissions = NONE
    camera: Camera = field(default_factory=Camera)
    lane: int = -1

    @property
    def package(self) -> str:
        """The package that the env's class is defined in."""
        modules = read(self.recipe).get("modules")
        return str(modules[0]) if isinstance(modules, list) and modules else ""

    @property
    def trust(self) -> bool:
        """Whether what somebody else may have put into the log is used all the same."""
        return self.permissions.trust

    def _as_recorded(self, env: object) -> Env:
        """Returns what was made as what is stepped: itself, or a lane.

        Raises:
            ReplayError: it is no such env.
        """
        vector = read(self.recipe).get("vector")
        if isinstance(vector, int) and isinstance(env, gym.vector.VectorEnv):
            return BatchLane(env, self.lane, trust=self.trust)
        if isinstance(vector, int) or not isinstance(env, gym.Env):
            expected = "gymnasium.vector.VectorEnv" if isinstance(vector, int) else "gymnasium.Env"
            raise ReplayError(f"the factory returned {type(env).__name__}, expected a {expected}")
        return LaneEnv(env) if vector == "lanes" else env

    @contextlib.contextmanager
    def open(self, *, render: bool) -> Iterator[Env]:
        """Makes the env, and closes it afterwards. A `Recorder` that the factory puts into it stays inert.

        Args:
            render: whether it is to draw: pictures, or text where it has no pictures.

        Raises:
            RecipeError: it can't be rebuilt.
            VideoError: it can't be, because there is nothing to draw with here, or because of the camera's arguments.
        """
        kwargs = dict(self.camera.kwargs)
        mode = kwargs.pop("render_mode", "rgb_array")
        if render:
            drawing.prepare()
        token = inert.set(True)
        try:
            self.require_arguments()
            env = self._make(mode if render else None, kwargs)
            if render and mode == "rgb_array" and _has_text_alone(env):
                env.close()
                env = self._make("ansi", kwargs)
        except (ReenactError, gym.error.DependencyNotInstalled):
            raise
        except Exception as error:
            remedy = headless.explain(error) if render else None
            if remedy is None and kwargs:
                what = " ".join(f"{type(error).__name__}: {error}".split())
                remedy = f"the env can't be made with render_kwargs {json.dumps(kwargs)}: {what}"
            if remedy is None:
                raise  # the user's own code
            raise VideoError(remedy) from error
        finally:
            inert.reset(token)
        made = env
        try:
            env = self._as_recorded(made)
            if render and env.render_mode not in (mode, "ansi"):
                raise ReplayError(
                    f"the env was made with render_mode {env.render_mode!r}, expected {mode!r}: "
                    "the factory must pass render_mode on"
                )
            if render:
                self.camera.set_up(env)
            yield env
        finally:
            _close(made)

    def require_arguments(self) -> None:
        """Refuses arguments of the camera that the env does not take, as far as that can be told without making it.

        Raises:
            VideoError: there are such.
            RecipeError: it can't be rebuilt.
        """
        kwargs = {name: value for name, value in self.camera.kwargs.items() if name != "render_mode"}
        if not kwargs:
            return
        if self.factory is not None:
            why = unfit(self.factory, ["render_mode", *kwargs])
        else:
            mine = is_mine(self.recipe, self.signature)
            why = refusal(self.recipe, kwargs, mine=mine, permissions=self.permissions)
        if why is not None:
            raise VideoError(f"the env can't be made with render_kwargs {json.dumps(kwargs)}: it is made by {why}")

    def _make(self, render_mode: str | None, kwargs: dict[str, Any]) -> Env:
        if self.factory is not None:
            return self.factory(render_mode=render_mode, **kwargs)
        return rebuild(
            self.recipe,
            mine=is_mine(self.recipe, self.signature),
            render_mode=render_mode,
            permissions=self.permissions,
            kwargs=kwargs,
        )


def _close(made: object) -> None:
    """Closes what was made, an env or a vector env; a factory may have returned anything."""
    if isinstance(made, gym.Env | gym.vector.VectorEnv):
        drawing.release(made)  # type: ignore[arg-type]  # of either it asks the same
        made.close()


def _has_text_alone(env: object) -> bool:
    """Whether a factory's env, which can be asked only once it is made, draws text and no pictures, and made none."""
    known = isinstance(env, gym.Env) and env.render_mode == "rgb_array"
    return known and text_alone(env.metadata.get("render_modes"))  # type: ignore[attr-defined]  # as was just seen
