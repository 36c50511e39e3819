"""The codec: actions to columns and back, to the bit and to the type."""

from __future__ import annotations

import enum
import json
from collections import OrderedDict
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reenact.codec import ActionCodec, DoesNotFit, leaves_of

QUICK = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


def same(a: Any, b: Any) -> bool:
    """Whether two values agree in type, dtype, shape and every bit (written anew: not the codec's own)."""
    if type(a) is not type(b):
        return False
    if isinstance(a, (np.ndarray, np.generic)):
        a, b = np.asarray(a), np.asarray(b)
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, float):
        return np.float64(a).tobytes() == np.float64(b).tobytes()
    return bool(a == b)


def through(space: spaces.Space[Any], actions: list[Any]) -> tuple[list[Any], list[str | None], ActionCodec]:
    """Takes actions, makes columns of them (widening where they don't fit), and restores them."""
    codec = ActionCodec(space)
    taken = [codec.take(action) for action in actions]
    for _ in range(8):
        try:
            rows = []
            for index, leaf in enumerate(codec.leaves):
                if leaf.is_json:
                    rows.append([one.entries[index] for one in taken])
                else:
                    rows.append([codec.encode(index, [one.entries[index]], one.dtypes[index])[0] for one in taken])
            break
        except DoesNotFit as misfit:
            dtypes = [leaf.dtype for leaf in codec.leaves]
            dtypes[misfit.leaf] = misfit.dtype
            codec = ActionCodec(space, dtypes)
            taken = [codec.take(action) for action in actions]
    else:
        pytest.fail("widening went round in circles")
    return (
        [codec.restore(one.kind, [column[at] for column in rows]) for at, one in enumerate(taken)],
        [one.lossy for one in taken],
        codec,
    )


SHAPES = st.sampled_from([(), (1,), (3,), (2, 2)])
FIXED = st.one_of(
    st.builds(lambda n, start: spaces.Discrete(n, start=start), st.integers(1, 1000), st.integers(-(2**40), 2**40)),
    st.lists(st.integers(1, 300), min_size=1, max_size=4).map(spaces.MultiDiscrete),
    st.integers(1, 4).map(spaces.MultiBinary),
    st.builds(
        lambda shape, dtype: spaces.Box(0 if np.dtype(dtype).kind == "u" else -1, 1, shape, dtype),
        SHAPES,
        st.sampled_from([np.float16, np.float32, np.float64, np.int8, np.int64, np.uint8, np.uint64]),
    ),
)
JSON_SPACES = st.one_of(
    st.just(spaces.Text(6)),
    st.just(spaces.Sequence(spaces.Discrete(5))),
    st.just(spaces.Sequence(spaces.Box(-1, 1, (2,)), stack=True)),
    st.just(spaces.Graph(spaces.Box(-1, 1, (2,)), spaces.Discrete(3))),
    st.just(spaces.OneOf((spaces.Discrete(3), spaces.Box(-1, 1, (2,))))),
)
SPACES = st.recursive(
    st.one_of(FIXED, FIXED, JSON_SPACES),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(spaces.Tuple),
        st.dictionaries(st.sampled_from(["b", "a", "x/y", "x.y", ""]), inner, min_size=1, max_size=3).map(
            lambda parts: spaces.Dict(OrderedDict(parts))
        ),
    ),
    max_leaves=4,
)
NUMBERS = st.one_of(
    st.integers(-(2**70), 2**70),
    st.integers(-3, 3),
    st.booleans(),
    st.floats(width=64),
    st.sampled_from([-0.0, 0.1, float("nan"), float("inf"), 2**53 + 1, -(2**63), 2**64 - 1]),
)
DTYPES = st.sampled_from(["?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", ">f4", ">i2"])


@st.composite
def arrays(draw: st.DrawFn, shape: tuple[int, ...]) -> np.ndarray:
    """Arrays of any of the dtypes and of any bits."""
    dtype = np.dtype(draw(DTYPES))
    size = int(np.prod(shape, dtype=int))
    data = draw(st.binary(min_size=size * dtype.itemsize, max_size=size * dtype.itemsize))
    if dtype.kind == "b":
        return (np.frombuffer(data, "u1") % 2).astype("?").reshape(shape)
    return np.frombuffer(data, dtype).reshape(shape)


@st.composite
def actions_for(draw: st.DrawFn, space: spaces.Space[Any]) -> Any:  # noqa: C901, PLR0911  # one case after another
    """An action for a space, in one of all the kinds that an agent might give it in."""
    if draw(st.integers(0, 12)) == 0:
        return draw(st.one_of(st.none(), st.text(max_size=3), st.just([]), st.just({"a": 1}), NUMBERS))
    if isinstance(space, spaces.Dict):
        keys = draw(st.permutations(list(space.keys())))
        return {key: draw(actions_for(space[key])) for key in keys}
    if isinstance(space, spaces.Tuple):
        items = [draw(actions_for(sub)) for sub in space]
        return tuple(items) if draw(st.booleans()) else items
    if not isinstance(space, (spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary, spaces.Box)):
        return space.sample()
    shape = tuple(space.shape)
    how = draw(st.sampled_from(["own", "number", "array", "scalar", "list", "flat", "zero-d"]))
    if how == "number":
        return draw(NUMBERS)
    if how == "array":
        return draw(arrays(shape))
    if how == "scalar":
        return draw(arrays(()))[()]
    if how == "zero-d":
        return draw(arrays(()))
    if how == "flat":
        return draw(arrays((int(np.prod(shape, dtype=int)),))).reshape(-1, 1)
    if how == "list":
        count = int(np.prod(shape, dtype=int))
        items = draw(st.lists(NUMBERS, min_size=count, max_size=count))
        return tuple(items) if draw(st.booleans()) else items
    return space.sample()


@QUICK
@given(st.data())
def test_any_action_of_any_space_comes_back_to_the_bit_and_the_type(data: st.DataObject) -> None:
    """Whatever is taken comes back in the same type, dtype, shape and bits, or is flagged as lossy."""
    space = data.draw(SPACES)
    space.seed(0)
    actions = data.draw(st.lists(actions_for(space), min_size=1, max_size=5))
    back, lossy, _ = through(space, actions)
    for action, found, note in zip(actions, back, lossy, strict=True):
        assert note is not None or same(found, action), (space, action, found)


@pytest.mark.parametrize(("dtype", "value"), [(np.uint64, -1), (np.int64, 2**63 + 1)])
def test_a_python_int_keeps_its_sign(dtype: Any, value: int) -> None:
    """A Python int that a column could hold only as another number of the same bits comes back as it was."""
    space = spaces.Box(0, 1, (), dtype)
    for outer, action in ((space, value), (space, [value]), (spaces.Tuple((space,)), [value])):
        back, (lossy,), _ = through(outer, [action])
        assert lossy is None
        assert same(back[0], action)


@QUICK
@given(st.data())
def test_only_what_json_cant_carry_is_lossy(data: st.DataObject) -> None:
    """Numbers, arrays, lists, tuples and None are never flagged, whatever fixed space they are given to."""
    space = data.draw(FIXED)
    space.seed(0)
    _, lossy, _ = through(space, data.draw(st.lists(actions_for(space), min_size=1, max_size=4)))
    assert lossy == [None] * len(lossy)


@QUICK
@given(FIXED, st.data())
def test_encode_raises_rather_than_change_a_value(space: spaces.Space[Any], data: st.DataObject) -> None:
    """A column that is made of entries, cast back to the dtype they were given in, has the same bits."""
    codec = ActionCodec(space)
    action = data.draw(arrays(tuple(space.shape)))
    taken = codec.take(action if action.shape else action[()])
    if taken.kind.startswith('{"value"'):
        return
    try:
        column = codec.encode(0, list(taken.entries), taken.dtypes[0])
    except DoesNotFit as misfit:
        assert ActionCodec(space, [misfit.dtype]).encode(0, list(taken.entries), taken.dtypes[0]).dtype == misfit.dtype  # noqa: PT017  # the exception's content is the subject
    else:
        with np.errstate(all="ignore"):
            assert column.astype(taken.dtypes[0]).tobytes() == action.astype(taken.dtypes[0]).tobytes()


def test_widening_ends_where_no_dtype_holds_both() -> None:
    """A negative zero and an integer beyond 2**53 in one column don't widen it to and fro for ever."""
    back, lossy, _ = through(spaces.Discrete(4), [1, 2**53 + 1, -0.0, 2**63 + 1, -1, 0.5, np.uint64(2**64 - 1)])
    assert lossy == [None] * 7
    assert [repr(value) for value in back] == [
        repr(value) for value in [1, 2**53 + 1, -0.0, 2**63 + 1, -1, 0.5, np.uint64(2**64 - 1)]
    ]


def test_signalling_nans_keep_their_bits() -> None:
    """A float32 NaN whose bits no cast keeps comes back as it was."""
    nan = np.frombuffer(b"\x01\x00\x80\x7f" * 2, "<f4")
    back, _, _ = through(spaces.Box(-1, 1, (2,)), [np.array([0.1, 0.2]), nan])
    assert same(back[1], nan)


def test_the_narrowest_column_is_chosen() -> None:
    """Columns take the narrowest integers that hold the space, starts included, and a Box keeps its own dtype."""
    chosen = {
        str(space): leaves_of(space)[0].dtype.str
        for space in (
            spaces.Discrete(128), spaces.Discrete(129), spaces.Discrete(2, start=-129), spaces.Discrete(2, start=2**40),
            spaces.MultiDiscrete([3, 40000]), spaces.MultiBinary(3), spaces.Box(0, 255, (2,), np.uint8),
        )
    }  # fmt: skip
    assert list(chosen.values()) == ["|i1", "<i2", "<i2", "<i8", "<i4", "|i1", "|u1"]


def test_leaves_are_named_by_their_path() -> None:
    """Nested leaves are named by the keys on the way to them, and no key can be taken for a separator."""
    space = spaces.Dict([("b", spaces.Tuple([spaces.Discrete(2), spaces.Text(3)])), ("a/x.y", spaces.Discrete(2))])
    assert [leaf.path for leaf in leaves_of(space)] == ["b/0", "b/1", "a%2Fx%2Ey"]
    assert [leaf.path for leaf in leaves_of(spaces.Discrete(2))] == ["value"]


class Move(enum.IntEnum):
    """An agent's own names for its actions."""

    LEFT = 0
    RIGHT = 1


@pytest.mark.parametrize(
    ("space", "action", "base"),
    [
        (spaces.Discrete(2), Move.RIGHT, 1),
        (spaces.Dict(a=spaces.Discrete(2)), OrderedDict(a=1), {"a": 1}),
        (spaces.Box(-1, 1, (1, 1)), np.array([[0.5]]).view(np.recarray), np.array([[0.5]])),
    ],
)
def test_subclasses_come_back_as_their_base_and_say_so(space: spaces.Space[Any], action: Any, base: Any) -> None:
    """An IntEnum, an OrderedDict and a recarray come back as int, dict and array, flagged."""
    back, lossy, _ = through(space, [action])
    assert same(back[0], base)
    assert type(action).__qualname__ in str(lossy[0])


class Hostile:
    """Raises whatever is asked of it."""

    def __array__(self, *_: object, **__: object) -> None:
        raise ZeroDivisionError

    def __repr__(self) -> str:
        raise ZeroDivisionError


def test_take_never_raises() -> None:
    """An object that can't be looked at, and a list that holds itself, are taken as text and flagged."""
    endless: list[Any] = []
    endless.append(endless)
    for action in (Hostile(), endless, object(), {1: object()}, {(1, 2): 3}):
        for space in (
            spaces.Discrete(2),
            spaces.Box(-1, 1, (2,)),
            spaces.Text(3),
            spaces.Dict(a=spaces.Discrete(2)),
        ):
            assert ActionCodec(space).take(action).kind


def test_entries_are_the_codecs_own() -> None:
    """A caller that reuses its array after `take` changes nothing that was taken."""
    codec, action = ActionCodec(spaces.Box(-1, 1, (2,))), np.array([0.1, 0.2], np.float32)
    taken = codec.take(action)
    action[:] = 9
    column = codec.encode(0, taken.entries, taken.dtypes[0])
    assert column[0].tolist() == np.array([0.1, 0.2], np.float32).tolist()


@pytest.mark.parametrize(
    "kind",
    [
        "", "7", "[]", '"text"', '"complex"', '{"array":"O","shape":[2]}', '{"array":"<f4","shape":[-1,2]}',
        '{"array":"<f4","shape":[99]}', '{"list":"int","n":1000000000000}', '{"list":{"list":[]},"n":99999999}',
        '{"list":["int"]}', '{"dict":{}}', "[" * 100000, '{"value":{"$callable":"os:system"}}',
    ],
)  # fmt: skip
def test_a_forged_kind_is_a_value_error(kind: str) -> None:
    """A kind that doesn't go with the row raises ValueError, and takes neither memory nor time."""
    with pytest.raises(ValueError, match=r"."):
        ActionCodec(spaces.Box(-1, 1, (2,))).restore(kind, [np.zeros(2, np.float32)])


def test_kinds_are_equal_for_equal_types() -> None:
    """The kind tells types apart and nothing else, so that a run of like actions is one row."""
    codec = ActionCodec(spaces.Box(-1, 1, (2,)))
    assert codec.take([0.5, 0.25]).kind == codec.take([0.0, -0.0]).kind
    assert (
        len({codec.take(a).kind for a in ([0.5, 1], [1, 1], (1, 1), np.ones(2), np.ones(2, "f4"), np.ones((2, 1)))})
        == 6
    )
    assert json.loads(codec.take((1, 1)).kind) == {"tuple": "int", "n": 2}
