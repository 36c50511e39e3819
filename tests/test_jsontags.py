"""Tagged JSON: what it keeps, what it refuses, and that reading it runs nothing."""

from __future__ import annotations

import enum
import json
import math
import subprocess
import sys
from collections import OrderedDict, namedtuple
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

from reenact import jsontags

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(),
    st.binary(max_size=8),
    st.sampled_from(
        [
            np.float32(0.1),
            np.int8(-3),
            np.bool_(True),
            np.str_("é"),
            np.str_(""),
            np.bytes_(b""),
            np.datetime64(5, "ns"),
            np.dtype(">i4"),
        ]
    ),
    st.builds(lambda data: np.frombuffer(data, ">u2"), st.binary(min_size=4, max_size=4)),
    st.just(np.zeros((0, 3), np.float16)),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(st.one_of(st.text(max_size=3), st.sampled_from(["$tuple", "$", "a"])), inner, max_size=3),
        st.dictionaries(st.one_of(st.integers(), st.tuples(st.integers(), st.text(max_size=2))), inner, max_size=2),
    ),
    max_leaves=8,
)


def same(a: Any, b: Any) -> bool:
    """Whether two values agree in type and bits."""
    if type(a) is not type(b):
        return False
    if isinstance(a, (np.ndarray, np.generic)):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, dict):
        return len(a) == len(b) and all(
            same(k, l) and same(v, w)
            for (k, v), (l, w) in zip(a.items(), b.items(), strict=True)  # noqa: E741  # a name as any other
        )
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, float):
        return (math.isnan(a) and math.isnan(b)) or (a == b and math.copysign(1, a) == math.copysign(1, b))
    return bool(a == b)


@settings(max_examples=300, deadline=None)
@given(VALUES)
def test_what_it_writes_comes_back(value: Any) -> None:
    """Every value it writes is plain JSON and comes back equal in type and bits."""
    text = jsontags.dumps(value)
    json.loads(text, parse_constant=pytest.fail)
    assert same(jsontags.loads(text), value)


@pytest.mark.parametrize(
    "space",
    [
        spaces.Discrete(3, start=-2),
        spaces.Box(np.array([-1.5, 0], np.float32), np.array([1, np.inf], np.float32)),
        spaces.Box(0, 255, (2, 2, 3), np.uint8),
        spaces.MultiDiscrete([2, 300], start=[1, -1]),
        spaces.MultiBinary(4),
        spaces.MultiBinary([2, 3]),
        spaces.Text(5, min_length=2, charset="xyz"),
        spaces.Tuple((spaces.Discrete(2), spaces.Dict(a=spaces.MultiBinary(1)))),
        spaces.Sequence(spaces.Box(-1, 1, (2,)), stack=True),
        spaces.Graph(spaces.Box(-1, 1, (2,)), None),
        spaces.OneOf((spaces.Discrete(3), spaces.Text(2))),
    ],
)
def test_spaces_come_back_equal(space: spaces.Space[Any]) -> None:
    """Every kind of space that Gymnasium has comes back equal, and of the same kind."""
    back = jsontags.loads(jsontags.dumps(space))
    assert type(back) is type(space)
    assert back == space


def test_a_dict_space_keeps_the_order_of_its_keys() -> None:
    """Keys out of alphabetical order stay where they were: columns of actions are named by them."""
    space = spaces.Dict([("b", spaces.Discrete(2)), ("a", spaces.Discrete(3))])
    assert list(jsontags.loads(jsontags.dumps(space)).spaces) == ["b", "a"]


class Colour(enum.IntEnum):
    """A subclass of int."""

    RED = 1


Point = namedtuple("Point", "x y")  # the untyped kind is what users have


HOLDS_ITSELF: list[object] = []
HOLDS_ITSELF.append(HOLDS_ITSELF)


class OwnBox(spaces.Box):
    """A subclass of a space."""


@pytest.mark.parametrize(
    "value",
    [
        Colour.RED, Point(1, 2), OrderedDict(a=1), {1, 2}, 1j, object(), lambda: 0, OwnBox(0, 1), {"a": [object()]},
        np.dtype(("f4", (2,))), HOLDS_ITSELF, np.add.reduce, np.array([object()]), np.zeros(2, [("a", "i4")]), bytearray(b"x"), range(3),
    ],
)  # fmt: skip
def test_what_would_not_come_back_is_refused(value: object) -> None:
    """Subclasses and foreign types raise TypeError, which names the type."""
    with pytest.raises(TypeError, match=r"can't be written as JSON"):
        jsontags.dumps(value)


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "nope", "[" * 100000, '{"$float":"7"}', '{"$tuple":5}', '{"$array":"AAAA","dtype":"O","shape":[1]}',
        '{"$array":"AAAA","dtype":"<f4","shape":[1]}', '{"$array":"****","dtype":"<i1","shape":[1]}',
        '{"$array":"AAAA","dtype":"<i1","shape":[100000000000]}', '{"$scalar":"","dtype":"<f4"}', '{"$dtype":"O"}',
        '{"$dtype":"f4,f4"}', '{"$bytes":7}', '{"$dict":[[[],1]]}', '{"$unknown":1}', '{"$space":"Space","kwargs":{}}',
        '{"$space":"__class__","kwargs":{}}', '{"$space":"Discrete","kwargs":{"n":-1}}',
        '{"$space":"Discrete","kwargs":{"n":2,"seed":1,"x":2}}',
        '{"$space":"Box","kwargs":{"low":0.0,"high":1.0,"shape":[1000000,1000000]}}', '{"$space":"Tuple","kwargs":{"spaces":[3]}}',
        '{"$callable":"os:system"}', '{"$callable":"numpy:load"}', '{"$callable":7}',
    ],
)  # fmt: skip
def test_malformed_text_is_a_value_error(text: str) -> None:
    """Text that `dumps` can't have written raises ValueError, and takes neither memory nor time."""
    with pytest.raises(ValueError, match=r".?"):
        jsontags.loads(text)


def test_reading_imports_nothing() -> None:
    """A callable's module is not imported by reading; only the caller's `load` hears of the name."""
    code = (
        "import sys; from reenact import jsontags\n"
        "seen = []\n"
        'text = \'[{"$callable":"antigravity:fly"}]\'\n'
        "assert jsontags.loads(text, lambda name: seen.append(name) or 7) == [7]\n"
        "try: jsontags.loads(text)\n"
        "except ValueError: pass\n"
        "assert seen == ['antigravity:fly'] and 'antigravity' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_error_of_the_loader_is_its_own() -> None:
    """What the caller's `load` raises reaches the caller as it is."""

    def load(_: str) -> object:
        raise PermissionError("not this one")

    with pytest.raises(PermissionError, match="not this one"):
        jsontags.loads('{"$callable":"a:b"}', load)


def test_callables_are_written_by_name() -> None:
    """An importable class or function is written as module and qualified name, and NumPy's types need no loader."""
    assert jsontags.dumps(json.dumps) == '{"$callable":"json:dumps"}'
    for of_numpy in (np.float32, np.add, np.logical_not):
        assert jsontags.loads(jsontags.dumps(of_numpy)) is of_numpy
