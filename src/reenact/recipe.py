"""How an env is rebuilt: taken when recording begins, and signed.

A recipe is JSON (`jsontags`): the env's id and kwargs without `render_mode`, the wrappers below the
recorder from the inside out, the modules to import and the folders of those that aren't installed. It is
signed with a key that each user has, so that one's own logs are told from a stranger's. `rebuild` follows it.
"""

from __future__ import annotations

import copy
import functools
import hashlib
import hmac
import json
import os
import platform
import secrets
import sys
import sysconfig
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from importlib import metadata
from pathlib import Path
from typing import Any

import gymnasium as gym

from reenact import jsontags

Env = gym.Env[Any, Any]
EnvFactory = Callable[..., Env]
"""Takes `render_mode` by keyword and returns the env as it stood under the recorder."""

WITHOUT_EFFECT = frozenset(
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

_OUTLIVES_RESETS = frozenset(
    {
        "gymnasium.wrappers.stateful_observation:NormalizeObservation",
        "gymnasium.wrappers.stateful_reward:NormalizeReward",
    }
)
STAND_IN = "replay with --env module:factory"
_WAY_OUT = "record below it, or replay with --env module:factory"


inert: ContextVar[bool] = ContextVar("reenact_inert", default=False)
"""Set while a replay builds an env: a recorder in the user's factory must not record it."""


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
        problems.append(f"{class_name(type(base))} was made without gymnasium.make: replay with --env module:factory")
    else:
        recipe["id"] = spec.id
        recipe["entry_point"] = _entry_point(spec.entry_point, problems)
        recipe["kwargs"] = _arguments(f"{spec.id}", spec.kwargs, problems, leave_out=("render_mode",))
    recipe["modules"] = [type(base).__module__.partition(".")[0]]
    for wrapper in reversed(list(wrappers_of(env))):
        name = class_name(type(wrapper))
        if name in WITHOUT_EFFECT:
            continue
        if name.endswith(":Autoreset"):
            problems.append(f"Autoreset hides its resets from a recorder above it: {_WAY_OUT}")
        if name in _OUTLIVES_RESETS:
            problems.append(f"{type(wrapper).__name__} keeps state across resets that no replay has: {_WAY_OUT}")
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
    for name in sorted(packages):
        for distribution in (name, *_OTHER_NAMES.get(name, ())):
            version = _version(distribution)
            if version is not None:
                found[distribution] = version
                break
    return found


_OTHER_NAMES = {"pygame": ("pygame-ce",), "Box2D": ("box2d-py",), "retro": ("stable-retro",)}
"""Distributions not called after their package. To ask all that are installed takes 70 ms, at a run's first reset."""


@functools.cache
def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def sign(text: str) -> str:
    """Returns the signature of a recipe's text under this user's key."""
    return hmac.new(_key(), text.encode(), hashlib.sha256).hexdigest()


def is_mine(text: str, signature: str) -> bool:
    """Whether this user signed the recipe's text."""
    return hmac.compare_digest(sign(text).encode(), signature.encode("utf-8", "surrogatepass"))


def wrappers_of(env: Env) -> Iterator[gym.Wrapper[Any, Any, Any, Any]]:
    """Yields an env's wrappers, the outermost first."""
    while isinstance(env, gym.Wrapper):
        yield env
        env = env.env


def class_name(found: type) -> str:
    """Returns "module:qualified.name" of a class."""
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
        problems.append(f"its entry point {entry_point!r} can't be imported: replay with --env module:factory")
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
