"""How a recipe is followed when a replay begins, and what a log may make it import.

One's own log (its signature holds) imports what its recipe names. A stranger's imports nothing: its env comes
from the local registry or from a package in `TABLE`, its wrappers from Gymnasium or these.
"""

from __future__ import annotations

import importlib
import json
import sys
from typing import Any

import gymnasium as gym
from gymnasium.envs.registration import EnvSpec

from reenact import jsontags
from reenact.errors import RecipeError, UntrustedError
from reenact.recipe import STAND_IN, WITHOUT_EFFECT, Env, class_name, wrappers_of

TABLE = {
    "ALE/": "ale_py",
    "MiniGrid-": "minigrid",
    "BabyAI-": "minigrid",
    "highway": "highway_env",
    "merge-": "highway_env",
    "roundabout-": "highway_env",
    "parking-": "highway_env",
    "intersection-": "highway_env",
    "racetrack": "highway_env",
    "Vizdoom": "vizdoom.gymnasium_wrapper",
    "Fetch": "gymnasium_robotics",
    "Hand": "gymnasium_robotics",
    "Franka": "gymnasium_robotics",
    "PointMaze": "gymnasium_robotics",
    "AntMaze": "gymnasium_robotics",
    "Adroit": "gymnasium_robotics",
    "dm_control/": "shimmy",
    "Meta-World/": "metaworld",
    "Panda": "panda_gym",
    "MiniWorld-": "miniworld",
    "FlappyBird-": "flappy_bird_gymnasium",
}
"""Id prefix to the package that registers such ids: what a stranger's log may have imported."""

_TRUSTED = frozenset({"gymnasium", *(name.partition(".")[0] for name in TABLE.values())})

_RESERVED = frozenset({"id", "render_mode", "max_episode_steps", "disable_env_checker"})
"""What `gymnasium.make` takes for itself: no recipe has these among the env's kwargs."""


def rebuild(text: str, *, mine: bool, render_mode: str | None) -> Env:
    """Makes the env that a recipe describes, as it stood under the recorder.

    Args:
        text: the recipe, as JSON.
        mine: whether its signature holds; if not, only Gymnasium and the packages in `TABLE` are imported.
        render_mode: "rgb_array", or None not to render.

    Raises:
        UntrustedError: it would import what a stranger's log may not.
        RecipeError: it can't be followed, or the env has no such render mode.
    """
    raw = _checked(text)
    if mine:  # from where they were, after all that is importable anyway
        sys.path += [path for path in raw.get("paths", []) if path not in sys.path]

    def load(name: str) -> object:
        return _load(name, mine=mine)

    spec = _spec(raw, mine=mine)
    bare = EnvSpec(spec.id, entry_point=spec.entry_point, order_enforce=False, disable_env_checker=True)
    kwargs = _read(raw["kwargs"], load)
    modes = _render_modes(spec)
    if render_mode is not None and modes is not None and render_mode not in modes:
        raise RecipeError(f"{spec.id} has no render_mode {render_mode!r}, only {', '.join(map(str, modes)) or 'none'}")
    env = gym.make(bare, render_mode=render_mode, **kwargs) if render_mode else gym.make(bare, **kwargs)
    return _wrapped(env, raw["wrappers"], load)


def _wrapped(env: Env, wrappers: list[dict[str, Any]], load: jsontags.Load) -> Env:
    inner = [class_name(type(wrapper)) for wrapper in reversed(list(wrappers_of(env)))]
    if inner == [wrapper["entry_point"] for wrapper in wrappers[: len(inner)]]:
        wrappers = wrappers[len(inner) :]  # the entry point puts these around the env itself
    for wrapper in wrappers:
        if wrapper["entry_point"] in WITHOUT_EFFECT:
            continue  # no recipe of ours has them, and a stranger's RecordVideo would write files
        made: Any = load(wrapper["entry_point"])
        if not (isinstance(made, type) and issubclass(made, gym.Wrapper)):
            raise RecipeError(f"{wrapper['entry_point']} is no gymnasium.Wrapper: {STAND_IN}")
        env = made(env, **_read(wrapper["kwargs"], load))
    return env


def _checked(text: str) -> dict[str, Any]:
    """Reads a recipe, and makes sure of its form."""
    try:
        raw = json.loads(text)
        sound = (
            (raw["id"] is None or isinstance(raw["id"], str))
            and isinstance(raw["kwargs"], dict | None)
            and all(isinstance(wrapper["entry_point"], str) for wrapper in raw["wrappers"])
            and all(isinstance(wrapper["kwargs"], dict | None) for wrapper in raw["wrappers"])
            and all(isinstance(name, str) for name in [*raw["modules"], *raw.get("paths", [])])
            and not _RESERVED.intersection(raw["kwargs"] or {})
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise RecipeError(f"the log's recipe is damaged ({error}): {STAND_IN}") from error
    if not sound:
        raise RecipeError(f"the log's recipe is damaged (a part is of another kind): {STAND_IN}")
    if raw["id"] is None:
        raise RecipeError(f"the env was made without gymnasium.make: {STAND_IN}")
    if raw["kwargs"] is None:
        raise RecipeError(f"{raw['id']}'s arguments could not be kept: {STAND_IN}")
    for wrapper in raw["wrappers"]:
        if wrapper["kwargs"] is None:
            raise RecipeError(f"{wrapper['entry_point']} did not record its arguments: {STAND_IN}")
    found: dict[str, Any] = raw
    return found


def _spec(raw: dict[str, Any], *, mine: bool) -> EnvSpec:
    env_id = str(raw["id"])
    if env_id not in gym.registry:
        allowed = [package for prefix, package in TABLE.items() if env_id.startswith(prefix)]
        if mine:
            allowed += [str(module) for module in raw["modules"] if module != "__main__"]
        for module in allowed:
            try:
                importlib.import_module(module)
            except ImportError:
                continue
            if env_id in gym.registry:
                break
    if env_id in gym.registry:
        return gym.registry[env_id]
    if mine and isinstance(raw["entry_point"], str) and not raw["entry_point"].startswith("__main__:"):
        return EnvSpec(env_id, entry_point=raw["entry_point"])
    if mine:
        raise RecipeError(
            f"no env {env_id!r} is registered here; it was defined in the training script itself: "
            "replay with --env path/to/script.py:factory"
        )
    raise UntrustedError(
        f"no env {env_id!r} is registered here, and this log was not recorded by you: nothing it names is "
        "imported; replay with --env module:factory"
    )


def _load(name: str, *, mine: bool) -> object:
    module, _, qualified = name.partition(":")
    if not module or not qualified:
        raise RecipeError(f"the log's recipe names {name!r}, expected module:name: replay with --env module:factory")
    # a package's __main__ is a program: importing it runs it
    if not mine and (module.partition(".")[0] not in _TRUSTED or "__main__" in module):
        raise UntrustedError(
            f"this log was not recorded by you, and would import {name!r}: replay with --env module:factory"
        )
    if module == "__main__":
        raise RecipeError(f"{name} is defined in the training script: replay with --env path/to/script.py:factory")
    try:
        found: Any = importlib.import_module(module)
        for part in qualified.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise RecipeError(f"{name} can't be imported here ({error}): replay with --env module:factory") from error
    if not mine and getattr(found, "__module__", None) != module:
        raise UntrustedError(f"this log was not recorded by you, and {name!r} is not what it says")
    if not mine and not (isinstance(found, type) and issubclass(found, gym.Wrapper)):
        raise UntrustedError(f"this log was not recorded by you, and {name!r} is no wrapper")
    return found


def _read(value: object, load: jsontags.Load) -> dict[str, Any]:
    try:
        found = jsontags.loads(json.dumps(value), load)
    except ValueError as error:
        raise RecipeError(f"the log's recipe has arguments that can't be read: {error}") from error
    if not isinstance(found, dict):
        raise RecipeError("the log's recipe has arguments that are no dict")
    return found


def _render_modes(spec: EnvSpec) -> list[str] | None:
    try:
        creator = spec.entry_point if callable(spec.entry_point) else gym.envs.registration.load_env_creator(
            str(spec.entry_point)
        )  # fmt: skip
    except (ImportError, AttributeError) as error:
        raise RecipeError(f"{spec.id} can't be imported here: {error}") from error
    found = getattr(creator, "metadata", None)
    return list(found.get("render_modes", [])) if isinstance(found, dict) else None
