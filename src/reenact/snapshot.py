"""The simulator's own state, for env families that neither a seed nor their RNGs restart; as bytes, never pickle.

A family is a small adapter behind one interface. On disk a snapshot is the family's name, a zero byte, a signature
(64 hexadecimal digits), and zlib over what the adapter gives; the generators' states go with it.
"""

from __future__ import annotations

import contextlib
import pickle
import random
import zlib
from typing import TYPE_CHECKING, Any, Protocol

import gymnasium as gym
import numpy as np

from reenact import hidden, jsontags, rng, signing
from reenact.errors import UntrustedError

if TYPE_CHECKING:
    from collections.abc import Iterator

Env = gym.Env[Any, Any]
_SEAL = 64
_LARGEST = 1 << 24
"""Bytes that a snapshot may have when inflated."""


class Family(Protocol):
    """How the state of one family of envs is taken and put back."""

    name: str
    seed_suffices: bool
    """Whether a seeded reset starts an episode again, without a snapshot."""
    native: bool
    """Whether the bytes go to a parser in C++, which forged ones make write out of bounds."""

    def capture(self, env: Env) -> bytes:
        """Takes it, without changing anything."""

    def restore(self, env: Env, data: bytes) -> None:
        """Puts it into a fresh env.

        Raises:
            ValueError: the bytes are no state of this env.
        """


class Ale:
    """The Arcade Learning Environment.

    Its sticky actions draw from a generator in C++, a seeded reset reloads the ROM, and some games depend on when
    that was last done.
    """

    name = "ale"
    seed_suffices = True
    native = True
    _slack = 4096  # the length of a state differs by some bytes from step to step

    def capture(self, env: Env) -> bytes:
        """Takes the emulator's state and generator."""
        return bytes(env.unwrapped.ale.cloneState(include_rng=True).__getstate__())  # type: ignore[attr-defined]

    def restore(self, env: Env, data: bytes) -> None:
        """Puts them back; the emulator's own parser sees only what has the length of a state."""
        ale: Any = env.unwrapped.ale  # type: ignore[attr-defined]  # ours: see `family_of`
        present = ale.cloneState(include_rng=True)
        if abs(len(data) - len(present.__getstate__())) > self._slack:
            raise ValueError(f"an emulator state of {len(data)} bytes")
        try:
            ale.restoreState(type(present)(data))
        except (RuntimeError, SystemError, ValueError) as error:  # nanobind's, for bytes that make no state
            raise ValueError(f"an emulator state that can't be read: {error}") from error


class Globals:
    """Envs that draw from the global generators `random` and `numpy.random`."""

    name = "globals"
    seed_suffices = False
    native = False

    def capture(self, env: Env) -> bytes:  # noqa: ARG002  # they belong to the process
        """Takes both states."""
        return packed_globals(global_states())

    def restore(self, env: Env, data: bytes) -> None:  # noqa: ARG002  # as above
        """Puts both back."""
        found = jsontags.loads(data)
        if not isinstance(found, dict) or set(found) != {"random", "numpy"}:
            raise ValueError("no states of the global generators")
        put_global_states({**found, "numpy": rng.checked(found["numpy"])})


class MetaWorld:
    """Meta-World: the goals that its resets choose from are drawn when it is made, and seeds are ignored.

    Each of its tasks holds a goal, `rand_vec`, in a pickle; only pickles that this process has made are read.
    """

    name = "metaworld"
    seed_suffices = False
    native = False

    def capture(self, env: Env) -> bytes:
        """Takes the goals of all tasks, float64, shape (tasks, 3 or 6)."""
        goals = [pickle.loads(task.data)["rand_vec"] for task in _tasks(env)]  # noqa: S301  # the env's own
        return jsontags.dumps(np.array(goals, np.float64)).encode()

    def restore(self, env: Env, data: bytes) -> None:
        """Gives the tasks of a fresh env these goals."""
        goals, tasks = jsontags.loads(data), _tasks(env)
        if not isinstance(goals, np.ndarray) or goals.ndim != 2 or len(goals) != len(tasks):  # noqa: PLR2004  # as above
            raise ValueError(f"goals for another number of tasks than {len(tasks)}")
        for at, (task, goal) in enumerate(zip(tasks, goals, strict=True)):
            held = pickle.loads(task.data)  # noqa: S301  # as above
            tasks[at] = task._replace(data=pickle.dumps({**held, "rand_vec": goal.copy()}))


def _tasks(env: Env) -> list[Any]:
    """Returns the list of tasks that Meta-World's wrapper chooses from; [] where there is none."""
    for _, layer in hidden.layers(env):
        tasks = getattr(layer, "tasks", None)
        if isinstance(tasks, list) and type(layer).__module__.partition(".")[0] == "metaworld":
            return tasks
    return []


def global_states() -> dict[str, Any]:
    """Returns the states of the global generators `random` and `numpy.random`."""
    return {"random": random.getstate(), "numpy": np.random.get_state(legacy=False)}  # noqa: NPY002  # it is what is kept


def packed_globals(states: dict[str, Any]) -> bytes:
    """Returns both states as bytes."""
    return jsontags.dumps(states).encode()


def put_global_states(states: dict[str, Any]) -> None:
    """Puts both states back, or neither.

    Raises:
        ValueError: they are no such states.
    """
    before = random.getstate()
    try:
        random.setstate(states["random"])
        np.random.set_state(states["numpy"])  # noqa: NPY002  # as above
    except (TypeError, KeyError, ValueError, OverflowError) as error:
        random.setstate(before)
        raise ValueError(f"no states of the global generators: {error}") from error


class Aside:
    """The caller's global generators, set aside while envs may draw from them."""

    def __init__(self) -> None:
        self._states = global_states()

    def put_back(self) -> None:
        """Leaves them as they were found."""
        put_global_states(self._states)

    @contextlib.contextmanager
    def lent(self) -> Iterator[None]:
        """Gives them back for a while, to somebody who may draw from them."""
        inside = global_states()
        self.put_back()
        try:
            yield
        finally:
            self._states = global_states()
            put_global_states(inside)


_FAMILIES: dict[str, Family] = {family.name: family for family in (Ale(), Globals(), MetaWorld())}
GLOBALS = _FAMILIES[Globals.name]


def family_of(env: Env) -> Family | None:
    """Returns the family whose state an env's episodes need, or None. Nothing is imported for it."""
    base = env.unwrapped
    packages = {cls.__module__.partition(".")[0] for cls in type(base).__mro__}
    if "ale_py" in packages and hasattr(getattr(base, "ale", None), "cloneState"):
        return _FAMILIES["ale"]
    return _FAMILIES["metaworld"] if "metaworld" in packages and _tasks(env) else None


def capture(family: Family, env: Env) -> bytes:
    """Takes a snapshot, as it is kept."""
    return kept(family, family.capture(env))


def kept(family: Family, data: bytes) -> bytes:
    """Returns what a family's adapter gave, as it is kept."""
    packed = zlib.compress(data, 1)
    return family.name.encode() + b"\0" + signing.sign(packed).encode() + packed


def restore(env: Env, data: bytes, *, trust: bool) -> None:
    """Puts a snapshot into a fresh env.

    Args:
        env: the env.
        data: as `kept` gave it.
        trust: whether one that somebody else may have made goes to a simulator's own parser.

    Raises:
        UntrustedError: it would, and is not trusted.
        ValueError: it is none of this env's.
    """
    name, _, sealed = data.partition(b"\0")
    seal, packed = sealed[:_SEAL].decode("ascii", "replace"), sealed[_SEAL:]
    family = _FAMILIES.get(name.decode("ascii", "replace"))
    if family is None:
        raise ValueError(f"a snapshot of the unknown family {name[:20]!r}: update reenact")
    if family is not GLOBALS and family_of(env) is not family:
        raise ValueError(f"a snapshot of the family {family.name!r}, which the env is not of")
    if family.native and not trust and not signing.is_mine(packed, seal):
        raise UntrustedError(
            f"its snapshot of {family.name!r} was not taken by you, and would go to the simulator's own parser, which "
            "forged bytes can make do anything: --trust lets it"
        )
    family.restore(env, rng.inflate(packed, _LARGEST))


def draws_from_globals(data: bytes) -> bool:
    """Whether a snapshot was kept because the env draws from the global generators."""
    return data.startswith(b"globals\0")
