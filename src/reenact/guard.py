"""Drawing without consequences: what `render()` changes in an env is put back afterwards.

Fetch and HandReach move sites and call `mj_forward` in it, some wrappers draw random numbers, Crafter draws from
the generator of its world (evidence: determinism). MuJoCo's data, site positions and all random generators are as
before once a frame is drawn.
"""

from __future__ import annotations

import sys
from typing import Any

import gymnasium as gym
import numpy as np

from reenact import drawing, headless, hidden, rng
from reenact.errors import RenderError, VideoError

Env = gym.Env[Any, Any]


class Guard:
    """Draws an env's frames; made anew after each reset, which may have replaced what it holds.

    Args:
        env: the env, wrapped as it is re-executed.
    """

    def __init__(self, env: Env) -> None:
        self._env = env
        held = hidden.find(env)
        rngs = {id(value): value for value in (*held.values(), hidden.own(env.unwrapped))}
        self._rngs = [
            value for value in rngs.values() if isinstance(value, np.random.Generator | np.random.RandomState)
        ]
        self._simulations = [
            _Simulation(model, data)
            for place, data in held.items()
            if hidden.is_mujoco_data(data) and (model := _model_beside(env, place)) is not None
        ]

    def render(self) -> Any:
        """Returns what `render()` does.

        Raises:
            RenderError: it raised, or another env has taken what this one draws into.
            VideoError: … because there is nothing to draw with here.
        """
        if self._simulations:
            headless.require_mujoco()
        states = [rng.state_of(held) for held in self._rngs]
        for simulation in self._simulations:
            simulation.save()
        drawing.resume(self._env)
        try:
            frame = self._env.render()
        except gym.error.DependencyNotInstalled:
            raise  # it says what to install
        except Exception as error:  # the env may raise anything
            raise self._refusal(error) from error
        else:
            if drawing.is_lost(self._env, frame):
                raise RenderError(
                    "render() gave a black frame: another env that was dropped in this process took MuJoCo's "
                    "framebuffer with it: replay in a process of its own"
                )
            return frame
        finally:
            for held, state in zip(self._rngs, states, strict=True):
                if state is not None:
                    rng.put(held, state)
            for simulation in self._simulations:
                simulation.put_back()

    def _refusal(self, error: Exception) -> VideoError:
        """Says why a frame could not be drawn."""
        remedy = headless.explain(error)
        if remedy is None:
            return RenderError(f"render() raised {' '.join(f'{type(error).__name__}: {error}'.split())}")
        if self._simulations:
            headless.mujoco_failed(remedy)
        return VideoError(remedy)


class _Simulation:
    """All of one MuJoCo simulation: its state, and what is computed of it.

    FetchPickAndPlace's actions start from positions that `mj_forward`, called in its `render()`, computes anew. Python
    has no `mj_copyData` before MuJoCo 4, but the integration state and every array of the data.
    """

    def __init__(self, model: Any, data: Any) -> None:
        self._mujoco: Any = sys.modules["mujoco"]  # whoever made the data imported it
        self._model, self._data = model, data
        self._spec = self._mujoco.mjtState.mjSTATE_INTEGRATION
        self._state = np.zeros(self._mujoco.mj_stateSize(model, self._spec))
        self._names = [name for name in dir(data) if isinstance(getattr(data, name, None), np.ndarray)]
        self._arrays: dict[str, np.ndarray] = {}
        self._sites = model.site_pos.copy()

    def save(self) -> None:
        self._mujoco.mj_getState(self._model, self._data, self._state, self._spec)
        self._arrays = {name: getattr(self._data, name).copy() for name in self._names}
        self._sites[:] = self._model.site_pos

    def put_back(self) -> None:
        self._mujoco.mj_setState(self._model, self._data, self._state, self._spec)
        for name, saved in self._arrays.items():
            now = getattr(self._data, name)
            if now.shape == saved.shape:  # of contacts there may be others now: the next step makes them anew
                now[...] = saved
        self._model.site_pos[:] = self._sites


def _model_beside(env: Env, place: str) -> object | None:
    """Returns the `MjModel` that lies beside some data."""
    above, dot, _ = place.rpartition(".")
    where = f"{above}." if dot else f"{place.partition('|')[0]}|"
    for name in ("model", "_model"):
        found: object = hidden.get(env, f"{where}{name}")
        found = getattr(found, "ptr", found)  # dm_control's own class has it there
        if type(found).__name__ == "MjModel":
            return found
    return None
