"""Origins: an RNG taken in one process and put back in another draws the same."""

from __future__ import annotations

import subprocess
import sys
import zlib

import gymnasium as gym
import numpy as np
import pytest

from reenact import jsontags, rng
from reenact.layout import StateKind

BITS = ["PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64"]
_CHILD = """
import sys, gymnasium as gym, numpy as np
from reenact import rng
from reenact.layout import StateKind
class Env(gym.Env): pass
env = Env()
rng.restore(env, rng.decode(StateKind(int(sys.argv[1])), bytes.fromhex(sys.argv[2])))
rng = env.np_random
print([rng.random().hex() for _ in range(3)], rng.normal().hex(), rng.permutation(5).tolist(), type(rng).__name__)
"""


class Env(gym.Env):  # type: ignore[type-arg]  # it has no spaces
    """An env that is nothing but its RNG."""


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("legacy", [False, True])
def test_another_process_draws_the_same(bits: str, legacy: bool) -> None:
    """A Generator or RandomState of any bit generator, in mid-stream, goes on alike in another process."""
    source = getattr(np.random, bits)(7)
    drawn = np.random.RandomState(source) if legacy else np.random.Generator(source)
    drawn.random(), drawn.normal(), drawn.integers(9) if not legacy else drawn.randint(9)
    if not legacy:
        drawn.integers(2, dtype=np.int32)  # PCG64 keeps the other half of 64 bits
    env = Env()
    env.np_random = drawn  # type: ignore[assignment]  # dm_control's envs have a RandomState
    found = rng.capture(env, create=False)
    assert found is not None
    kind, data = found
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, str(int(kind)), data.hex()], capture_output=True, text=True, check=True
    )
    expected = (
        [drawn.random().hex() for _ in range(3)],
        drawn.normal().hex(),
        drawn.permutation(5).tolist(),
        type(drawn).__name__,
    )
    assert done.stdout.strip() == " ".join(map(str, expected))


def test_capturing_draws_nothing() -> None:
    """Taking the state leaves the RNG where it was."""
    env = Env()
    env.np_random = np.random.Generator(np.random.PCG64(3))
    expected = np.random.Generator(np.random.PCG64(3)).random(4)
    rng.capture(env, create=True)
    assert env.np_random.random(4).tolist() == expected.tolist()


def test_an_rng_is_made_only_where_asked() -> None:
    """An env without an RNG keeps having none unless `create` is given."""
    env = Env()
    assert rng.capture(env, create=False) is None
    assert getattr(env, "_np_random", None) is None
    assert rng.capture(env, create=True) is not None


def test_gymnasiums_own_rng_takes_37_bytes() -> None:
    """PCG64, which every env has by default, is kept in 37 bytes."""
    env = Env()
    found = rng.capture(env, create=True)
    assert found is not None
    assert (found[0], len(found[1])) == (StateKind.PCG64, 37)


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        (StateKind.PCG64, b"short"),
        (StateKind.RNG_JSON, b"no zlib"),
        (StateKind.RNG_JSON, zlib.compress(b"[1]")),
        (StateKind.RNG_JSON, zlib.compress(b" " * (1 << 24))),
        (
            StateKind.RNG_JSON,
            zlib.compress(
                jsontags.dumps(
                    {"bit_generator": "MT19937", "state": {"key": np.zeros(624, np.uint32), "pos": 10**6}}
                ).encode()
            ),
        ),
    ],
)
def test_forged_states_are_value_errors(kind: StateKind, data: bytes) -> None:
    """Bytes that are no RNG state, or one that points outside of itself, raise ValueError."""
    with pytest.raises(ValueError, match=r"."):
        rng.decode(kind, data)


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"bit_generator": "Nope"},
        {"bit_generator": "Generator"},
        {"bit_generator": "PCG64"},
        {"bit_generator": "SFC64", "state": 7},
    ],
)
def test_a_state_that_numpy_does_not_take_is_a_value_error(state: dict[str, object]) -> None:
    """A state of no bit generator that there is, or without its words, raises ValueError."""
    with pytest.raises(ValueError, match=r"."):
        rng.restore(Env(), state)
