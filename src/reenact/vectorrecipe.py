"""How a vector env is rebuilt: one sub-env, where lanes are single envs; else the whole of it, by `make_vec`."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
from gymnasium.vector import SyncVectorEnv

from reenact import jsontags, recipe, snapshot
from reenact.batchorigin import of_lanes
from reenact.recipe import STAND_IN, class_name

_WITHOUT_EFFECT = frozenset(
    {
        "gymnasium.wrappers.vector.common:RecordEpisodeStatistics",
        "gymnasium.wrappers.vector.dict_info_to_list:DictInfoToList",
        "gymnasium.wrappers.vector.rendering:HumanRendering",
        "gymnasium.wrappers.vector.rendering:RecordVideo",
        "reenact.vector:VectorRecorder",
    }
)
"""Vector wrappers that change no transition."""
_OWN = ("num_envs", "vectorization_mode", "vector_kwargs", "wrappers", "render_mode")
"""Arguments of `make_vec` itself, which it puts among an env's."""
_WAY_OUT = 'pass factory="my_envs:make", or record inside each sub-env by reenact.recording'


def name_of(base: Any) -> str:
    """Returns what a run is called after where the vector env was not made by `make_vec`."""
    envs = getattr(base, "envs", None)
    spec = envs[0].spec if envs else None
    return spec.id if spec is not None else type(base).__name__


def take(env: Any, factory: str | recipe.EnvFactory | None = None) -> tuple[dict[str, Any], list[str]]:
    """Writes down how a vector env's lanes are rebuilt.

    Args:
        env: the vector env, as it stands under the recorder.
        factory: the user's own way: to one sub-env, where lanes are single envs; else to the whole.

    Returns:
        The recipe, whose "vector" says "lanes" or how many there are in a batch; and a line for each thing in it that
        a replay won't be able to follow.

    Raises:
        RecipeError: the factory can't be found under its name.
    """
    base = env.unwrapped
    if of_lanes(base):
        found, problems = _of_sync(base, factory) if isinstance(base, SyncVectorEnv) else _of_async(base, factory)
        found["vector"] = "lanes"
    else:
        found, problems = _of_batch(base, factory)
        found["vector"] = int(base.num_envs)
    layer = env
    while factory is None and isinstance(layer, gym.vector.VectorWrapper):
        if class_name(type(layer)) not in _WITHOUT_EFFECT:
            problems.append(f"{type(layer).__name__} stands below the recorder: put the recorder below it")
        layer = layer.env
    return found, problems


def _of_sync(base: Any, factory: str | recipe.EnvFactory | None) -> tuple[dict[str, Any], list[str]]:
    found, problems = recipe.take(base.envs[0], factory)
    if factory is None:
        text = jsontags.dumps(found)
        others = [lane for lane, env in enumerate(base.envs) if jsontags.dumps(recipe.take(env)[0]) != text]
        if others:
            lanes = ", ".join(map(str, others[:5])) + ", …" * (len(others) > 5)  # noqa: PLR2004  # enough to see which
            problems.append(f"the sub-envs of lanes {lanes} are made in another way than the first: {_WAY_OUT}")
    return found, problems


def _of_async(base: Any, factory: str | recipe.EnvFactory | None) -> tuple[dict[str, Any], list[str]]:
    """Takes it from an env like those in the workers, made and dropped, as the vector env itself did for its spaces."""
    before = snapshot.global_states()
    token = recipe.inert.set(True)
    # Gymnasium 1.0 leaves `make_vec`'s own arguments among those that its env functions pass on
    kwargs: dict[str, Any] = {} if base.spec is None else base.spec.kwargs
    own = {name: kwargs.pop(name) for name in _OWN if name in kwargs and name != "render_mode"}
    try:
        env = base.env_fns[0]()
    except Exception as error:  # noqa: BLE001  # the user's own code
        problem = f"a sub-env can't be made here to see what it is like ({type(error).__name__}: {error}): {_WAY_OUT}"
        empty: dict[str, Any] = {"id": None, "entry_point": None, "kwargs": {}, "modules": [], "wrappers": []}
        return {**empty, "factory": None, "doubts": [], "paths": []}, [problem]
    finally:
        kwargs.update(own)
        recipe.inert.reset(token)
        snapshot.put_global_states(before)
    try:
        return recipe.take(env, factory)
    finally:
        env.close()
        snapshot.put_global_states(before)


def _of_batch(base: Any, factory: str | recipe.EnvFactory | None) -> tuple[dict[str, Any], list[str]]:
    found, problems = recipe.take(base, factory)
    found["modules"] = [module for module in found["modules"] if module]  # there may be no entry point of single envs
    spec = base.spec
    if spec is None:
        made = f"{type(base).__name__} was made without gymnasium.make_vec: {STAND_IN}"
        return found, problems if factory is not None else [made]
    entry_point = spec.vector_entry_point
    name = entry_point if isinstance(entry_point, str) else jsontags.callable_name(entry_point)
    found["entry_point"] = None if name is None else name.replace("__mp_main__:", "__main__:")
    kwargs = found["kwargs"] or {}
    found["max_episode_steps"] = kwargs.pop("max_episode_steps", None)
    for own in _OWN:
        kwargs.pop(own, None)
    return found, problems
