"""The state of one random generator: read, kept as bytes, put back.

A generator is a NumPy `Generator` over any bit generator, or a `RandomState` (dm_control). Its state is kept
as bytes, never pickled: PCG64, Gymnasium's, as 37 bytes; any other as zlib over tagged JSON.
"""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

from reenact import hidden, jsontags
from reenact.layout import StateKind

if TYPE_CHECKING:
    import gymnasium as gym

State = dict[str, Any]
"""A bit generator's state, as NumPy's `state` setter takes it; with `has_gauss` it is a RandomState's."""
Rng = np.random.Generator | np.random.RandomState

_MT19937_WORDS, _PHILOX_WORDS = 624, 4
_PCG64 = struct.Struct("<16s16sBI")
_LARGEST = 1 << 20
"""Bytes that a state may have when inflated: a hostile log could ask for any number."""


def capture(env: gym.Env[Any, Any], *, create: bool) -> tuple[StateKind, bytes] | None:
    """Returns the state of the generator behind `env.unwrapped.np_random`, or None where none can be kept.

    Args:
        env: the env, wrapped or not.
        create: whether an env that has no generator yet gets one, as Gymnasium's own property gives it at
            first use: from the operating system's entropy.
    """
    return encode(hidden.own(env.unwrapped, create=create))


def encode(rng: object) -> tuple[StateKind, bytes] | None:
    """Returns a generator's state as it is kept; None where it is none of NumPy's, or can't be kept."""
    state = state_of(rng)
    if state is None:
        return None
    if state.get("bit_generator") == "PCG64" and "has_gauss" not in state:  # a RandomState has more to keep
        words = state["state"]
        packed = _PCG64.pack(
            words["state"].to_bytes(16, "little"),
            words["inc"].to_bytes(16, "little"),
            state["has_uint32"],
            state["uinteger"],
        )
        return StateKind.PCG64, packed
    try:
        return StateKind.RNG_JSON, pack(state)
    except TypeError:
        return None


def decode(kind: StateKind, data: bytes) -> State:
    """Returns the state that `capture` wrote.

    Raises:
        ValueError: the bytes are no such state.
    """
    if kind is StateKind.PCG64:
        try:
            state, inc, has_uint32, uinteger = _PCG64.unpack(data)
        except struct.error as error:
            raise ValueError(f"an RNG state of {len(data)} bytes, expected {_PCG64.size}") from error
        words = {"state": int.from_bytes(state, "little"), "inc": int.from_bytes(inc, "little")}
        return {"bit_generator": "PCG64", "state": words, "has_uint32": has_uint32, "uinteger": uinteger}
    return checked(unpack(data))


def pack(value: object) -> bytes:
    """Writes states as bytes: zlib over tagged JSON.

    Raises:
        TypeError: a part of them is of a type that JSON can't carry.
    """
    return zlib.compress(jsontags.dumps(value).encode(), 1)


def unpack(data: bytes, largest: int = _LARGEST) -> Any:
    """Reads what `pack` wrote.

    Raises:
        ValueError: the bytes are nothing of the kind.
    """
    return jsontags.loads(inflate(data, largest))


def inflate(data: bytes, largest: int) -> bytes:
    """Undoes zlib, up to so many bytes.

    Raises:
        ValueError: the bytes can't be decompressed, or are more.
    """
    inflater = zlib.decompressobj()
    try:
        found = inflater.decompress(data, largest)
    except zlib.error as error:
        raise ValueError(f"a state that can't be decompressed: {error}") from error
    if not inflater.eof:
        raise ValueError(f"a state of more than {largest} bytes, or cut short")
    return found


def checked(state: object) -> State:
    """Returns a state whose positions lie within it: NumPy takes these over unchecked, and would read beyond.

    Raises:
        ValueError: it is no dict, or a position lies outside.
    """
    if not isinstance(state, dict):
        raise ValueError("an RNG state that is no dict")  # noqa: TRY004  # of the bytes' value, not of an argument
    words = state.get("state")
    position = words.get("pos", 0) if isinstance(words, dict) else 0
    try:
        inside = 0 <= int(position) <= _MT19937_WORDS and 0 <= int(state.get("buffer_pos", 0)) <= _PHILOX_WORDS
    except (TypeError, ValueError) as error:
        raise ValueError("an RNG state whose position is no number") from error
    if not inside:
        raise ValueError("an RNG state whose position lies outside of it")
    return state


def restore(env: gym.Env[Any, Any], state: State) -> None:
    """Puts a state into the env's generator, making one of the same kind where it differs.

    Raises:
        ValueError: this NumPy has no such bit generator, or the state is not one of it.
    """
    base = env.unwrapped
    current = hidden.own(base, create=True)
    changed = put(current, state)
    if changed is not current:
        base.np_random = changed  # type: ignore[assignment]  # dm_control's envs have a RandomState


def put(rng: object, state: State) -> Rng:
    """Puts a state into a generator, if it is of the state's kind, else into a new one; returns which.

    Raises:
        ValueError: this NumPy has no such bit generator, or the state is not one of it.
    """
    name, legacy = str(state.get("bit_generator")), "has_gauss" in state
    if type(rng) is np.random.Generator and not legacy and type(rng.bit_generator).__name__ == name:
        held: Rng = rng  # nearly always; chains do this at each reset
    else:
        held = _same_kind(rng, name, legacy=legacy) or _fresh(name, legacy=legacy)
    try:
        if isinstance(held, np.random.RandomState):
            held.set_state(state)
        else:
            held.bit_generator.state = state
    except (KeyError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"an RNG state that {name} does not take: {error}") from error
    return held


def state_of(rng: object) -> State | None:
    """Returns a generator's state; None where it is no generator of NumPy's."""
    if isinstance(rng, np.random.Generator):
        return dict(rng.bit_generator.state)
    if isinstance(rng, np.random.RandomState):
        return dict(rng.get_state(legacy=False))
    return None


def entropy_of(rng: object) -> int | None:
    """Returns the seed that gives a generator again; None where it has none that `reset` could take.

    Gymnasium's `seeding.np_random(None)` draws one from the operating system, and NumPy remembers it.
    """
    sequence = getattr(getattr(rng, "bit_generator", None), "seed_seq", None)
    found = getattr(sequence, "entropy", None)
    spawned = getattr(sequence, "spawn_key", ())  # then its entropy is its parent's
    return int(found) if isinstance(found, int | np.integer) and found >= 0 and not spawned else None


def when_made(rng: object) -> tuple[StateKind, bytes] | None:
    """Returns the state, as it is kept, that a generator had before anything was drawn from it; None where unknown."""
    entropy = entropy_of(rng)
    if entropy is None or not isinstance(rng, np.random.Generator):
        return None
    return encode(np.random.Generator(type(rng.bit_generator)(entropy)))


def _same_kind(rng: object, name: str, *, legacy: bool) -> Rng | None:
    if legacy:
        same = isinstance(rng, np.random.RandomState) and rng.get_state(legacy=False)["bit_generator"] == name
    else:
        same = isinstance(rng, np.random.Generator) and type(rng.bit_generator).__name__ == name
    return rng if same else None  # type: ignore[return-value]  # it is one of the two


def _fresh(name: str, *, legacy: bool) -> Rng:
    bits = getattr(np.random, name, None)
    if not (isinstance(bits, type) and issubclass(bits, np.random.BitGenerator)):
        raise ValueError(f"NumPy has no bit generator {name!r}")  # noqa: TRY004  # of the bytes' value, not of an argument
    return np.random.RandomState(bits()) if legacy else np.random.Generator(bits())  # the env's
