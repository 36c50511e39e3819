"""The fingerprint: what makes it differ, what doesn't, and that it is the same for ever."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import OrderedDict
from typing import Any
from zlib import crc32

import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

from reenact.fingerprint import fingerprint, fold, frozen, is_small

DIFFERENT: list[Any] = [
    None, True, False, 0, 1, 0.0, -0.0, 1.0, float("nan"), 1j, "", "1", b"", b"1", (), [], {}, (1,), [1], {"a": 1}, {1: "a"},
    ("a", "b"), ("ab",), [[1], []], [[], [1]], {"a": {"b": 1}}, {"a": 1, "b": 1}, frozenset(), frozenset([1]),
    np.float32(1), np.float64(1), np.int64(1), np.bool_(True), np.array(1), np.array([1]), np.array([[1]]), np.array([1.0]),
    np.array([1], ">i8"), np.array([0.0]), np.array([-0.0]), np.array([np.nan]), np.zeros((2, 3)), np.zeros((3, 2)), np.zeros(6),
    np.zeros((0, 2)), np.zeros((2, 0)), np.array(["a"]), np.array(["b"]), np.array([1], "M8[s]"), np.array([2], "M8[s]"),
    np.array([None]), np.array([1], object), np.zeros(1, [("a", "i4")]), np.zeros(1, [("b", "i4")]), object(),
]  # fmt: skip


def test_different_observations_differ() -> None:
    """Type, dtype, shape, byte order, sign of zero and nesting each make another fingerprint."""
    assert len({fingerprint(value) for value in DIFFERENT}) == len(DIFFERENT)


@settings(max_examples=200, deadline=None)
@given(st.binary(min_size=8, max_size=64), st.data())
def test_every_bit_counts(data: bytes, draw: st.DataObject) -> None:
    """Flipping any one bit of an array changes its fingerprint."""
    array = np.frombuffer(data, np.uint8).copy()
    before = fingerprint(array)
    array[draw.draw(st.integers(0, len(data) - 1))] ^= 1 << draw.draw(st.integers(0, 7))
    assert fingerprint(array) != before


def test_memory_layout_does_not_count() -> None:
    """Fortran order, strides, offsets and read-only memory leave it as it is."""
    array = np.arange(24, dtype=np.float32).reshape(4, 6)
    wide = np.zeros((8, 12), np.float32)
    wide[::2, 1::2] = array
    frozen = array.copy()
    frozen.setflags(write=False)
    expected = fingerprint(array)
    for other in (np.asfortranarray(array), wide[::2, 1::2], array[::-1][::-1], frozen, array.T.copy().T):
        assert fingerprint(other) == expected


def test_the_order_of_a_dict_does_not_count() -> None:
    """Dicts are compared by key, in whatever order they were filled, of whatever mapping type."""
    one, other = {"a": np.ones(2), "b": {"x": 1, "y": 2}}, {"b": {"y": 2, "x": 1}, "a": np.ones(2)}
    assert fingerprint(one) == fingerprint(other) == fingerprint(OrderedDict(other))
    assert fingerprint({"a": 1, "b": 2}) != fingerprint({"a": 2, "b": 1})


@pytest.mark.parametrize(
    "space",
    [
        spaces.Discrete(1000000), spaces.Box(-1, 1, (3,)), spaces.Box(0, 255, (4, 4, 3), np.uint8), spaces.MultiBinary(40),
        spaces.MultiDiscrete([99999] * 3), spaces.Text(20, min_length=15), spaces.Dict(a=spaces.Box(-1, 1), b=spaces.Discrete(9)),
        spaces.Tuple((spaces.Box(-1, 1), spaces.Text(4))), spaces.Sequence(spaces.Box(-1, 1, (2,)), stack=True),
        spaces.Sequence(spaces.Box(-1, 1)), spaces.Graph(spaces.Box(-1, 1, (2,)), spaces.Box(-1, 1)),
        spaces.OneOf((spaces.Box(-1, 1), spaces.Box(-1, 1, (2,)))),
    ],
)  # fmt: skip
def test_observations_of_every_space(space: spaces.Space[Any]) -> None:
    """Two samples of any space differ, and a sample drawn again from the same seed is the same."""
    space.seed(1)
    first, second = space.sample(), space.sample()
    space.seed(1)
    again = space.sample()
    assert fingerprint(first) == fingerprint(again) != fingerprint(second)


PINNED = {
    "np.arange(4, dtype='<f4')": 2342662417,
    "np.float64(0.1)": 2995568352,
    "{'b': (1, 2.5, None), 'a': ['x', True]}": 1404936960,
    "{'image': np.zeros((2, 2, 3), np.uint8), 'text': 'left'}": 3935813647,
    "frozenset({'a', 'b', 'c'})": 3943476142,
}


def test_values_are_pinned() -> None:
    """The fingerprints that a log holds mean the same to every later version."""
    assert {text: fingerprint(eval(text)) for text in PINNED} == PINNED  # noqa: S307  # the literals above


@pytest.mark.parametrize("seed", ["0", "1", "4711"])
def test_processes_agree(seed: str) -> None:
    """A process with another hash seed comes to the same fingerprints."""
    code = "import sys, numpy as np; from reenact.fingerprint import fingerprint\nfor t in sys.argv[1:]: print(fingerprint(eval(t)))"
    done = subprocess.run(
        [sys.executable, "-c", code, *PINNED], env={**os.environ, "PYTHONHASHSEED": seed},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert list(map(int, done.stdout.split())) == list(PINNED.values())


def test_ever_new_shapes_fill_no_memory() -> None:
    """Observations of ever new shapes leave a bounded cache behind."""
    module = sys.modules["reenact.fingerprint"]
    for size in range(1000):
        fingerprint(np.zeros(size, np.uint8))
    assert len(module._headers) <= 256  # noqa: SLF001


@given(st.lists(st.one_of(st.integers(-(2**63), 2**63 - 1), st.binary(max_size=20)), max_size=20), st.data())
def test_observations_are_folded_in_one_by_one_or_at_once(items: list[int | bytes], data: Any) -> None:
    """Where the log happened to fold does not change a running checksum; every item and their order do."""
    cut = data.draw(st.integers(0, len(items)))
    whole = fold(7, items)
    assert fold(fold(7, items[:cut]), items[cut:]) == whole
    flat = b"".join(item if isinstance(item, bytes) else item.to_bytes(8, "little", signed=True) for item in items)
    assert whole == crc32(flat, 7)


@pytest.mark.parametrize("value", [np.float32(2), 2, 2**70, (1, 2), {"a": np.ones(2)}, None, np.ones((2, 2))[:, 1]])
def test_what_is_frozen_does_not_change_any_more(value: object) -> None:
    """An observation is kept as bytes or as a number, whatever the env does to its arrays afterwards."""
    kept = frozen(value)
    assert isinstance(kept, bytes | int)
    if isinstance(value, np.ndarray):
        value[...] = 5
        assert frozen(value) != kept
    assert fold(0, [kept]) == fold(0, [kept])


@pytest.mark.parametrize(
    ("space", "small"),
    [
        (spaces.Box(-1, 1, (1024,), np.float32), True),
        (spaces.Box(-1, 1, (1025,), np.float32), False),
        (spaces.Box(0, 255, (84, 84, 4), np.uint8), False),
        (spaces.Discrete(500), True),
        (spaces.MultiDiscrete([3, 3]), True),
        (spaces.MultiBinary(8), True),
        (spaces.Dict(a=spaces.Discrete(2)), False),
        (spaces.Text(3), False),
    ],
)
def test_small_observations_have_running_checksums(space: spaces.Space[Any], small: bool) -> None:
    """Arrays of up to 4 kB and numbers are folded in at every step."""
    assert is_small(space) is small
