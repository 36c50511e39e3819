"""What a log that somebody else recorded may do here: import the packages of envs, and nothing that it names itself."""

from __future__ import annotations

import importlib.util
import re
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import gymnasium as gym
import numpy as np

from reenact import usercode
from reenact.errors import SelectionError, UntrustedError

if TYPE_CHECKING:
    from collections.abc import Iterable

TABLE = {
    "ALE/": "ale_py",
    r"\w+(-ram)?(NoFrameskip|Deterministic)-v\d+$": "ale_py",
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
"""How an id begins (a pattern) to the package that registers such: what a stranger's log may have imported."""

TRUSTED = frozenset({"gymnasium", "stable_baselines3", *(name.partition(".")[0] for name in TABLE.values())})
"""Packages that a stranger's log may have imported: those of envs, and those whose wrappers stand around them."""


@dataclass(frozen=True, slots=True)
class Permissions:
    """What a log that somebody else recorded may do, beyond what any may.

    Attributes:
        trust: it is treated like one's own.
        imports: packages that it may import for its env's id and its wrappers.
    """

    trust: bool = False
    imports: tuple[str, ...] = ()


NONE = Permissions()


def register(env_id: str, others: Iterable[str] = ()) -> list[str]:
    """Imports what may register an id, until it is registered: the package in `TABLE`, then the others.

    Returns:
        Why some could not be imported.
    """
    missing = []
    for module in (*(package for begins, package in TABLE.items() if re.match(begins, env_id)), *others):
        if env_id in gym.registry:
            break
        try:
            usercode.import_module(module)
        except (ImportError, SelectionError) as error:
            missing.append(f"{module!r} can't be imported ({error})")
    return missing


def untrusted(what: str) -> str:
    """Says that a log of somebody else's would import something, and what to do."""
    return (
        f"this log was not recorded by you, and would import {what}: nothing was imported; --trust lets it, "
        "--import PKG lets it import a package, --env module:factory takes your own code instead"
    )


def refuse_names(value: object) -> None:
    """Refuses text that names something importable, or a file by its path.

    Some envs import what their arguments name (highway-env, whatever stands behind the last dot), or read it.

    Raises:
        UntrustedError: there is such text in it.
    """
    waiting = [value]
    while waiting:
        part = waiting.pop()
        if isinstance(part, np.ndarray | np.generic) and part.dtype.kind in "SU":
            part = part.tolist()  # text in the form of arrays is text
        if isinstance(part, dict):
            waiting += [*part.keys(), *part.values()]
        elif isinstance(part, list | tuple):
            waiting += part
        elif isinstance(part, bytes):
            waiting.append(part.decode("utf-8", "replace"))
        elif isinstance(part, str) and (_is_path(part) or _is_importable(part)):
            raise UntrustedError(untrusted(repr(part)))


def _is_path(text: str) -> bool:
    return "/" in text or "\\" in text or text.lstrip().startswith(("~", ".."))


def _is_importable(text: str) -> bool:
    head, dot, _ = text.strip().replace(":", ".").partition(".")
    if not dot or not head or head in TRUSTED:
        return False
    try:
        return head in sys.modules or head in sys.stdlib_module_names or importlib.util.find_spec(head) is not None
    except (ImportError, ValueError):
        return True  # it is there, and odd
