"""How an env is rebuilt: taken when recording begins, signed, and followed when a replay begins.

A recipe is JSON (`jsontags`): the env's id and kwargs without `render_mode`, the wrappers below the
recorder from the inside out, the modules to import, package versions. It is signed with a key that each
user has, so that one's own logs are told from a stranger's. A stranger's recipe imports nothing: its env
comes from the local registry or from a package in `TABLE`, its wrappers from Gymnasium or these.
"""

from __future__ import annotations

import copy
import functools
import hashlib
import hmac
import importlib
import json
import os
import platform
import secrets
import sys
import sysconfig
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import gymnasium as gym
from gymnasium.envs.registration import EnvSpec

from reenact import jsontags
from reenact.errors import RecipeError, UntrustedError

Env = gym.Env[Any, Any]
EnvFactory = Callable[..., Env]
"""Takes `render_mode` by keyword and returns the env as it stood under the recorder."""

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

_WITHOUT_EFFECT = frozenset(
    {
        "gymnasium.wrappers.common:PassiveEnvChecker",
        "gymnasium.wrappers.common:OrderEnforcing",
        "gymnasium.wrappers.common:RecordEpisodeStatistics",
        "gymnasium.wrappers.rendering:RecordVideo",
        "gymnasium.wrappers.rendering:RenderCollection",
        "gymnasium.wrappers.rendering:HumanRendering",
        "stable_baselines3.common.monitor:Monitor",
        "reenact.recorder:Recorder",
    }
)
"""Wrappers that change no transition; a replay leaves them out."""

_RESERVED = frozenset({"id", "render_mode", "max_episode_steps", "disable_env_checker"})
"""What `gymnasium.make` takes for itself: no recipe has these among the env's kwargs."""

_OUTLIVES_RESETS = frozenset(
    {
        "gymnasium.wrappers.stateful_observation:NormalizeObservation",
        "gymnasium.wrappers.stateful_reward:NormalizeReward",
    }
)
_STAND_IN = "replay with --env module:factory"
_WAY_OUT = "record below it, or replay with --env module:factory"


def take(env: Env) -> tuple[dict[str, Any], list[str]]:
    """Writes down how an env is rebuilt.

    Returns:
        The recipe, to be written with `jsontags.dumps`, and a line for each thing in it that a replay
        won't be able to follow. Recipes with such lines are logged all the same: `--env` can stand in.
    """
    problems: list[str] = []
    base = env.unwrapped
    spec = base.spec
    recipe: dict[str, Any] = {"id": None, "entry_point": None, "kwargs": {}, "modules": [], "wrappers": []}
    if spec is None:
        problems.append(
            f"{_name(type(base))} was made without gymnasium.make: replay with --env module:factory"
        )
    else:
        recipe["id"] = spec.id
        recipe["entry_point"] = _entry_point(spec.entry_point, problems)
        recipe["kwargs"] = _arguments(f"{spec.id}", spec.kwargs, problems, leave_out=("render_mode",))
    recipe["modules"] = [type(base).__module__.partition(".")[0]]
    for wrapper in reversed(list(_wrappers(env))):
        name = _name(type(wrapper))
        if name in _WITHOUT_EFFECT:
            continue
        if name.endswith(":Autoreset"):
            problems.append(f"Autoreset hides its resets from a recorder above it: {_WAY_OUT}")
        if name in _OUTLIVES_RESETS:
            problems.append(
                f"{type(wrapper).__name__} keeps state across resets that no replay has: {_WAY_OUT}"
            )
        saved = getattr(wrapper, "_saved_kwargs", None)
        entry: dict[str, Any] = {"entry_point": name, "kwargs": None}
        if isinstance(saved, dict):
            entry["kwargs"] = _arguments(type(wrapper).__name__, saved, problems, leave_out=("env",))
        else:
            problems.append(f"{type(wrapper).__name__} doesn't record its arguments: {_WAY_OUT}")
        if "<locals>" in name:
            problems.append(f"{type(wrapper).__name__} is defined inside a function: {_WAY_OUT}")
        recipe["wrappers"].append(entry)
    named = _modules(recipe)
    if "__main__" in named:
        problems.append(
            "a part of it is defined in the training script itself: move that to a module of its own, "
            "or replay with --env path/to/script.py:factory"
        )
    recipe["paths"] = sorted({folder for name in named if (folder := _own_folder(name)) is not None})
    return recipe, problems


def versions(recipe: dict[str, Any]) -> dict[str, str]:
    """Returns the versions that an episode may depend on: of Python, Gymnasium, the env's package."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    packages = {"reenact", "gymnasium", "numpy", *(module.partition(".")[0] for module in recipe["modules"])}
    packages |= {name for name in ("mujoco", "Box2D", "ale_py", "pygame") if name in sys.modules}
    distributions = metadata.packages_distributions() if packages - {"reenact", "gymnasium", "numpy"} else {}
    for name in sorted(packages):
        for distribution in distributions.get(name, [name])[:1]:
            try:
                found[distribution] = metadata.version(distribution)
            except metadata.PackageNotFoundError:
                continue
    return found


def sign(text: str) -> str:
    """Returns the signature of a recipe's text under this user's key."""
    return hmac.new(_key(), text.encode(), hashlib.sha256).hexdigest()


def is_mine(text: str, signature: str) -> bool:
    """Whether this user signed the recipe's text."""
    return hmac.compare_digest(sign(text).encode(), signature.encode("utf-8", "surrogatepass"))


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
        raise RecipeError(
            f"{spec.id} has no render_mode {render_mode!r}, only {', '.join(map(str, modes)) or 'none'}"
        )
    env = gym.make(bare, render_mode=render_mode, **kwargs) if render_mode else gym.make(bare, **kwargs)
    return _wrapped(env, raw["wrappers"], load)


def _wrapped(env: Env, wrappers: list[dict[str, Any]], load: jsontags.Load) -> Env:
    inner = [_name(type(wrapper)) for wrapper in reversed(list(_wrappers(env)))]
    if inner == [wrapper["entry_point"] for wrapper in wrappers[: len(inner)]]:
        wrappers = wrappers[len(inner) :]  # the entry point puts these around the env itself
    for wrapper in wrappers:
        if wrapper["entry_point"] in _WITHOUT_EFFECT:
            continue  # no recipe of ours has them, and a stranger's RecordVideo would write files
        made: Any = load(wrapper["entry_point"])
        if not (isinstance(made, type) and issubclass(made, gym.Wrapper)):
            raise RecipeError(f"{wrapper['entry_point']} is no gymnasium.Wrapper: {_STAND_IN}")
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
        raise RecipeError(f"the log's recipe is damaged ({error}): {_STAND_IN}") from error
    if not sound:
        raise RecipeError(f"the log's recipe is damaged (a part is of another kind): {_STAND_IN}")
    if raw["id"] is None:
        raise RecipeError(f"the env was made without gymnasium.make: {_STAND_IN}")
    if raw["kwargs"] is None:
        raise RecipeError(f"{raw['id']}'s arguments could not be kept: {_STAND_IN}")
    for wrapper in raw["wrappers"]:
        if wrapper["kwargs"] is None:
            raise RecipeError(f"{wrapper['entry_point']} did not record its arguments: {_STAND_IN}")
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
        raise RecipeError(
            f"the log's recipe names {name!r}, expected module:name: replay with --env module:factory"
        )
    # a package's __main__ is a program: importing it runs it
    if not mine and (module.partition(".")[0] not in _TRUSTED or "__main__" in module):
        raise UntrustedError(
            f"this log was not recorded by you, and would import {name!r}: replay with --env module:factory"
        )
    if module == "__main__":
        raise RecipeError(
            f"{name} is defined in the training script: replay with --env path/to/script.py:factory"
        )
    try:
        found: Any = importlib.import_module(module)
        for part in qualified.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise RecipeError(
            f"{name} can't be imported here ({error}): replay with --env module:factory"
        ) from error
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


def _wrappers(env: Env) -> Iterator[gym.Wrapper[Any, Any, Any, Any]]:
    while isinstance(env, gym.Wrapper):
        yield env
        env = env.env


def _name(found: type) -> str:
    return f"{found.__module__}:{found.__qualname__}"


def _modules(recipe: dict[str, Any]) -> set[str]:
    """Returns the modules that a recipe names, wherever in it."""
    names = [
        *recipe["modules"],
        *(wrapper["entry_point"].partition(":")[0] for wrapper in recipe["wrappers"]),
    ]
    if recipe["entry_point"]:
        names.append(recipe["entry_point"].partition(":")[0])
    arguments = [recipe["kwargs"], *(wrapper["kwargs"] for wrapper in recipe["wrappers"])]
    parts = [json.loads(jsontags.dumps(arguments))]
    while parts:
        part = parts.pop()
        if isinstance(part, dict):
            parts += part.values()
            if isinstance(part.get("$callable"), str):
                names.append(part["$callable"].partition(":")[0])
        elif isinstance(part, list):
            parts += part
    return {name.partition(".")[0] for name in names}


def _own_folder(package: str) -> str | None:
    """Returns the folder that the user's own module was imported from; None for an installed one."""
    file = getattr(sys.modules.get(package), "__file__", None)
    if file is None or package == "__main__":
        return None
    path = Path(file).resolve()
    folder = path.parent.parent if path.name == "__init__.py" else path.parent
    installed = {Path(found).resolve() for found in sysconfig.get_paths().values()}
    return None if installed & {folder, *folder.parents} else str(folder)


def _entry_point(entry_point: object, problems: list[str]) -> str | None:
    if isinstance(entry_point, str):
        return entry_point
    name = jsontags.callable_name(entry_point)
    if name is None:
        problems.append(
            f"its entry point {entry_point!r} can't be imported: replay with --env module:factory"
        )
    return name


def _arguments(
    owner: str, kwargs: dict[str, Any], problems: list[str], leave_out: tuple[str, ...]
) -> dict[str, Any] | None:
    kept: dict[str, Any] = {}
    for key, value in kwargs.items():
        if key in leave_out:
            continue
        try:
            jsontags.dumps(value)
        except TypeError as error:
            problems.append(f"{owner}'s argument {key}={value!r:.60} can't be kept ({error}): {_WAY_OUT}")
            return None
        kept[key] = copy.deepcopy(value)  # as it is now: the log's header is written later
    return kept


def _key() -> bytes:
    """The user's key, made at first use; where no folder can be written, one for this process alone."""
    return _key_in(os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state"))


@functools.cache  # verifying thousands of episodes asks for it each time
def _key_in(state: str) -> bytes:
    path = Path(state) / "reenact" / "key"
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        partial = path.with_name(f".key.{os.getpid()}")
        if not path.exists():
            partial.write_bytes(secrets.token_bytes(32))
            partial.chmod(0o600)
            try:
                os.link(partial, path)  # of two processes, both end up with the first one's
            except FileExistsError:
                pass
            except OSError:
                partial.replace(path)
            finally:
                partial.unlink(missing_ok=True)
        return path.read_bytes()
    except OSError:
        return _PROCESS_KEY


_PROCESS_KEY = secrets.token_bytes(32)
