"""What an episode can be started again from: taken before a reset, put back before a replay.

The RNG is the one behind `env.unwrapped.np_random`: a Generator of any bit generator, or a RandomState
(dm_control). Its state is kept as bytes, never pickled: PCG64, Gymnasium's, as 37 bytes; any other as
zlib over tagged JSON.
"""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

from reenact import jsontags
from reenact.layout import StateKind

if TYPE_CHECKING:
    import gymnasium as gym

_MT19937_WORDS, _PHILOX_WORDS = 624, 4
_PCG64 = struct.Struct("<16s16sBI")


def capture_rng(env: gym.Env[Any, Any], *, create: bool) -> tuple[StateKind, bytes] | None:
    """Returns the state of the env's RNG, or None where it has none that can be kept.

    Args:
        env: the env, wrapped or not.
        create: whether an env that has no RNG yet gets one, as Gymnasium's own property gives it at
            first use: from the operating system's entropy.
    """
    base = env.unwrapped
    if not create and getattr(base, "_np_random", None) is None:
        return None
    state = _state(getattr(base, "np_random", None))
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
        return StateKind.RNG_JSON, zlib.compress(jsontags.dumps(state).encode(), 1)
    except TypeError:
        return None


def decode_rng(kind: StateKind, data: bytes) -> dict[str, Any]:
    """Returns the bit generator's state, as NumPy's `state` setter takes it.

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
    try:
        found = jsontags.loads(zlib.decompressobj().decompress(data, 1 << 20))
    except zlib.error as error:
        raise ValueError(f"an RNG state that can't be decompressed: {error}") from error
    if not isinstance(found, dict):
        raise ValueError("an RNG state that is no dict")  # noqa: TRY004  # of the bytes' value, not of an argument
    _check_position(found)
    return found


def _check_position(state: dict[str, Any]) -> None:
    """NumPy takes these two over unchecked, and would read beyond its buffers."""
    words = state.get("state")
    position = words.get("pos", 0) if isinstance(words, dict) else 0
    if not 0 <= int(position) <= _MT19937_WORDS or not 0 <= int(state.get("buffer_pos", 0)) <= _PHILOX_WORDS:
        raise ValueError("an RNG state whose position lies outside of it")


def restore_rng(env: gym.Env[Any, Any], state: dict[str, Any]) -> None:
    """Puts a state into the env's RNG, making one of the same kind where it differs.

    Raises:
        ValueError: this NumPy has no such bit generator, or the state is not one of it.
    """
    base = env.unwrapped
    name = str(state.get("bit_generator"))
    bits = getattr(np.random, name, None)
    if not (isinstance(bits, type) and issubclass(bits, np.random.BitGenerator)):
        raise ValueError(f"NumPy has no bit generator {name!r}")  # noqa: TRY004  # of the bytes' value, not of an argument
    legacy = "has_gauss" in state
    current: Any = getattr(base, "np_random", None)
    if legacy != isinstance(current, np.random.RandomState) or _name(current) != name:
        fresh = bits()
        current = np.random.RandomState(fresh) if legacy else np.random.Generator(fresh)  # the env's
        base.np_random = current
    try:
        if legacy:
            current.set_state(state)
        else:
            current.bit_generator.state = state
    except (KeyError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"an RNG state that {name} does not take: {error}") from error


def _name(rng: object) -> str | None:
    found = _state(rng)
    return None if found is None else str(found.get("bit_generator"))


def _state(rng: object) -> dict[str, Any] | None:
    if isinstance(rng, np.random.Generator):
        return dict(rng.bit_generator.state)
    if isinstance(rng, np.random.RandomState):
        state = rng.get_state(legacy=False)
        return dict(state)
    return None
