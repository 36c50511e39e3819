"""What an env holds out of sight: random generators besides `np_random`, nested envs, MuJoCo's model and data.

A place says where: "module:Class|robot_env._np_random" is that attribute of the nested env of the first wrapper
of that class, from the inside ("module:Class#2|" of the second); without a class it is of the env itself. A part
that is a number is an index of a list or tuple, and of a dict a part is a key. Places, not objects, are kept in a
log: they lead to the same thing in an env that was rebuilt. A log may be a stranger's: a place leads through what
`find` would look into, so into no module, class or function, and what is put there is a generator in a
generator's stead.
"""

from __future__ import annotations

import gc
import sys
from collections import Counter
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
_OPAQUE = frozenset({"numpy", "gymnasium", "torch", "jax", "pygame", "PIL", "cv2", "matplotlib", "mujoco", "reenact"})
"""Packages whose objects hold no generator of an env's, but much else; nested gymnasium envs are looked into."""
_RNGS = (np.random.Generator, np.random.RandomState)


def layers(env: Env) -> Iterator[tuple[str, Env]]:
    """Yields the env itself, under the name "", then its wrappers from the inside out."""
    wrappers: list[Env] = []
    while isinstance(env, gym.Wrapper):
        wrappers.append(env)
        env = env.env
    yield "", env
    met: Counter[str] = Counter()
    for wrapper in reversed(wrappers):
        # a training script's classes are called otherwise in the workers that it spawned
        name = f"{type(wrapper).__module__}:{type(wrapper).__qualname__}".replace("__mp_main__:", "__main__:")
        met[name] += 1
        yield name if met[name] == 1 else f"{name}#{met[name]}", wrapper


def find(env: Env, *, create: bool = False) -> dict[str, object]:
    """Looks through an env for generators and MuJoCo data, by place; each object once, nearest first.

    Args:
        env: the env, wrapped or not.
        create: whether nested envs that have no generator yet get one, as at their first use.
    """
    found: dict[str, object] = {}
    level: list[tuple[str, object]] = [(f"{name}|", layer) for name, layer in layers(env)]
    seen = {id(layer) for _, layer in level}
    for _ in range(_DEPTH):
        deeper: list[tuple[str, object]] = []
        for place, holder in level:
            for part, value in _parts(holder):
                if id(value) in seen or len(seen) > _MOST:
                    continue
                if issubclass(type(value), _RNGS) or is_mujoco_data(value):
                    seen.add(id(value))
                    found[f"{place}{part}"] = value
                elif _worth_a_look(value):
                    seen.add(id(value))
                    if create and issubclass(type(value), gym.Env):
                        own(value, create=True)  # type: ignore[arg-type]  # an env
                    deeper.append((f"{place}{part}.", value))
        level = deeper
    return found


def generators(env: Env, *, create: bool) -> list[str]:
    """Returns the places of the generators that an env holds besides `np_random`, the env's own."""
    first = own(env.unwrapped)
    if not _holds_another(env, first):
        return []
    return [
        place
        for place, value in find(env, create=create).items()
        if value is not first and issubclass(type(value), _RNGS)
    ]


def _holds_another(env: Env, first: object) -> bool:
    """Whether there is a generator to be found besides the env's own, or a nested env that may get one.

    Follows references. To ask an object for its `__dict__`, as `find` does, costs it the quick way to its
    attributes for ever (CPython 3.11): CartPole's steps took 10 % longer.
    """
    level: list[object] = [layer for _, layer in layers(env)]
    seen = {id(layer) for layer in level}
    for _ in range(_DEPTH):
        deeper: list[object] = []
        for holder in level:
            for value in _referents(holder):
                if issubclass(type(value), _RNGS) and value is not first:
                    return True
                if id(value) in seen or len(seen) > _MOST or not _worth_a_look(value):
                    continue
                if issubclass(type(value), gym.Env):
                    return True
                seen.add(id(value))
                deeper.append(value)
        level = deeper
    return False


def _referents(holder: object) -> list[object]:
    """Returns what an object or a container refers to; an attribute dictionary that somebody asked for is opened."""
    found = gc.get_referents(holder)
    if isinstance(holder, dict | list | tuple):
        return found
    opened = [value for one in found if type(one) is dict for value in one.values()]
    return found + opened


def own(base: Env, *, create: bool = False) -> Any:
    """Returns the env's own generator, `np_random`, or None where it has none.

    Args:
        base: the env, unwrapped.
        create: whether one that has none yet gets one, as Gymnasium's property gives it at first use.
    """
    if not create and getattr(base, "_np_random", None) is None and not has_own_property(base):
        return None
    try:
        return base.np_random
    except Exception:  # noqa: BLE001  # a property of the user's, before it is ready perhaps
        return None


def has_own_property(base: Env) -> bool:
    """Whether the env's class says itself what its `np_random` is, as dm_control's do."""
    found = getattr(type(base), "np_random", None)
    return found is not gym.Env.np_random and found is not gym.vector.VectorEnv.np_random


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


def put(env: Env, place: str, generator: np.random.Generator | np.random.RandomState) -> bool:
    """Puts a generator at a place; returns whether it is one for a generator: another is there, or none yet."""
    layer, _, path = place.partition("|")
    above, _, last = path.rpartition(".")
    holder: Any = get(env, f"{layer}|{above}") if above else dict(layers(env)).get(layer)
    held = _part(holder, last)
    if isinstance(holder, dict | list):
        if not isinstance(held, _RNGS):
            return False
        at: Any = last if isinstance(holder, dict) else int(last)
        holder[at] = generator
        return True
    attributes = _attributes(holder) if _worth_a_look(holder) else None
    # one that is made at its first use has no place yet; what a class defines under that name is no such place
    absent = held is None and last.isidentifier() and getattr(type(holder), last, None) is None
    if attributes is None or not (absent or isinstance(held, _RNGS)):
        return False
    attributes[last] = generator
    return True


def _parts(holder: object) -> list[tuple[str, object]]:
    if isinstance(holder, dict):
        return [(key, value) for key, value in list(holder.items()) if isinstance(key, str) and "." not in key]
    if isinstance(holder, list | tuple):
        return [(str(at), value) for at, value in enumerate(holder)]
    inner = "env" if isinstance(holder, gym.Wrapper) else None  # a layer of its own
    return [(part, value) for part, value in list((_attributes(holder) or {}).items()) if part != inner]


def _part(holder: object, part: str) -> object:
    if not _worth_a_look(holder):
        return None
    if isinstance(holder, dict):
        return holder.get(part)
    if isinstance(holder, list | tuple):
        return holder[int(part)] if part.isdecimal() and int(part) < len(holder) else None
    return (_attributes(holder) or {}).get(part)


def _attributes(holder: object) -> dict[str, object] | None:
    """Returns an object's `__dict__`, whatever its class makes of attributes that are asked for."""
    try:
        found = object.__getattribute__(holder, "__dict__")
    except AttributeError:
        return None
    return found if isinstance(found, dict) else None


def _worth_a_look(value: object) -> bool:
    kind = type(value)  # never `isinstance`: a proxy would look at what it stands for
    if issubclass(kind, dict | list | tuple):
        return len(value) <= _LONGEST  # type: ignore[arg-type]  # they have a length
    if issubclass(kind, gym.Env):
        return True
    # classes are callable, too, and functions
    if kind.__dictoffset__ == 0 or any("__call__" in base.__dict__ for base in kind.__mro__):
        return False
    package = kind.__module__.partition(".")[0]
    return package not in _OPAQUE and package not in sys.stdlib_module_names  # a module's class is a builtin
