"""What an env holds out of sight: random generators besides `np_random`, nested envs, MuJoCo's model and data.

A place says where: "module:Class|robot_env._np_random" is that attribute of the nested env of the first wrapper
of that class, from the inside; without a class it is of the env itself. A part that is a number is an index of
a list or tuple, and of a dict a part is a key. Places, not objects, are kept in a log: they lead to the same
thing in an env that was rebuilt.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

Env = gym.Env[Any, Any]
_MOST = 1500
"""Objects looked at: 1 ms or so, at the first resets of an env."""
_DEPTH = 5
_LONGEST = 64
"""Entries of a container that is looked into."""
_OWN = "_np_random"
_OPAQUE = frozenset({"numpy", "gymnasium", "torch", "jax", "pygame", "PIL", "cv2", "matplotlib", "mujoco", "reenact"})
"""Packages whose objects hold no generator of an env's, but much else; nested gymnasium envs are looked into."""


def layers(env: Env) -> Iterator[tuple[str, Env]]:
    """Yields the env itself, under the name "", then its wrappers from the inside out, each class once."""
    wrappers: dict[str, Env] = {}
    while isinstance(env, gym.Wrapper):
        wrappers[f"{type(env).__module__}:{type(env).__qualname__}"] = env  # the innermost of a class stays
        env = env.env
    yield "", env
    yield from reversed(wrappers.items())


def find(env: Env, *, create: bool = False) -> dict[str, object]:
    """Looks through an env for generators and MuJoCo data, by place; each object once, nearest first.

    Args:
        env: the env, wrapped or not.
        create: whether nested envs that have no generator yet get one, as at their first use.
    """
    found: dict[str, object] = {}
    seen: set[int] = set()
    level: list[tuple[str, object]] = [(f"{name}|", layer) for name, layer in layers(env)]
    for depth in range(_DEPTH):
        deeper: list[tuple[str, object]] = []
        for place, holder in level:
            for part, value in _parts(holder):
                if id(value) in seen or len(seen) > _MOST:
                    continue
                if isinstance(value, np.random.Generator | np.random.RandomState) or is_mujoco_data(value):
                    seen.add(id(value))
                    found[f"{place}{part}"] = value
                elif _worth_a_look(value, depth):
                    seen.add(id(value))
                    if create and isinstance(value, gym.Env):
                        getattr(value, "np_random", None)
                    deeper.append((f"{place}{part}.", value))
        level = deeper
    return found


def generators(env: Env, *, create: bool) -> list[str]:
    """Returns the places of the generators that an env holds besides `np_random`, the env's own."""
    base = env.unwrapped
    # a property of the env's own, as dm_control's: Gymnasium's would make a generator
    own = base.np_random if has_own_property(base) else vars(base).get("_np_random")
    return [
        place
        for place, value in find(env, create=create).items()
        if value is not own and isinstance(value, np.random.Generator | np.random.RandomState)
    ]


def has_own_property(base: Env) -> bool:
    """Whether the env's class says itself what its `np_random` is."""
    return getattr(type(base), "np_random", None) is not gym.Env.np_random


def is_mujoco_data(value: object) -> bool:
    """Whether it is MuJoCo's `MjData`, without importing MuJoCo."""
    return type(value).__name__ == "MjData" and type(value).__module__.partition(".")[0] == "mujoco"


def get(env: Env, place: str) -> object:
    """Returns what is at a place; None where that does not lead anywhere."""
    layer, _, path = place.partition("|")
    holder: object = dict(layers(env)).get(layer)
    for part in path.split("."):
        holder = _part(holder, part)
    return holder


def put(env: Env, place: str, value: object) -> bool:
    """Puts something at a place; returns whether there was one."""
    layer, _, path = place.partition("|")
    above, _, last = path.rpartition(".")
    holder: Any = get(env, f"{layer}|{above}") if above else dict(layers(env)).get(layer)
    if isinstance(holder, dict) and last in holder:
        holder[last] = value
    elif isinstance(holder, list) and last.isdigit() and int(last) < len(holder):
        holder[int(last)] = value
    elif hasattr(holder, "__dict__") and (last in vars(holder) or (isinstance(holder, gym.Env) and last == _OWN)):
        vars(holder)[last] = value
    else:
        return False
    return True


def _parts(holder: object) -> Iterator[tuple[str, object]]:
    if isinstance(holder, dict):
        yield from ((str(key), value) for key, value in holder.items() if isinstance(key, str) and "." not in key)
    elif isinstance(holder, list | tuple):
        yield from ((str(at), value) for at, value in enumerate(holder))
    else:
        inner = "env" if isinstance(holder, gym.Wrapper) else None  # a layer of its own
        yield from ((part, value) for part, value in list(vars(holder).items()) if part != inner)


def _part(holder: object, part: str) -> object:
    if isinstance(holder, dict):
        return holder.get(part)
    if isinstance(holder, list | tuple):
        return holder[int(part)] if part.isdigit() and int(part) < len(holder) else None
    return vars(holder).get(part) if hasattr(holder, "__dict__") else None


def _worth_a_look(value: object, depth: int) -> bool:
    if isinstance(value, dict | list | tuple):
        return len(value) <= _LONGEST and depth < _DEPTH - 1
    if isinstance(value, type) or callable(value) or not hasattr(value, "__dict__"):
        return False
    if isinstance(value, gym.Env):
        return True
    package = type(value).__module__.partition(".")[0]
    return package not in _OPAQUE and package not in sys.stdlib_module_names
