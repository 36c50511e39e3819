"""Actions to columns and back, to the bit and to the type.

Contract. An action space has one leaf for each part that is no Dict or Tuple, each a column:

| leaf | column |
|---|---|
| Discrete | one integer a row, of the narrowest dtype that holds the space |
| Box, MultiDiscrete, MultiBinary | the space's shape; Box in its own dtype, the others in the narrowest |
| Text, Sequence, Graph, OneOf, any other space | a heap reference to `space.to_jsonable([action])` |

The *kind* of an action says in what types it was given: Python int, float, bool; NumPy scalar or array
with dtype and shape; lists and tuples of these; dicts and tuples for the composite spaces. `restore`
gives back the same types with the same bits. What a column can't hold exactly raises `DoesNotFit`, with
a dtype that holds it and all that the column holds already: widening never narrows, so it ends. What has
no place in the columns at all (None, a string for a Discrete, a wrong structure, a number that no such
dtype holds) becomes a kind that holds the value itself, as tagged JSON.

Does *not* round-trip: strides and memory order of arrays; and, flagged in `Taken.lossy`: subclasses of
int, list, tuple, dict and ndarray come back as their base, a torch or jax tensor as a NumPy array, and
whatever tagged JSON can't carry either as its `repr`.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from gymnasium import spaces

from reenact import jsontags, layout, nesting
from reenact.nesting import Dtype, NoPlace

Entry = Any
"""One leaf of one action as it waits for its commit: a number (Discrete), array bytes, or JSON bytes."""


class DoesNotFit(Exception):  # noqa: N818  # a signal between two rooms, not an error that anyone sees
    """A column can't hold a value exactly.

    Attributes:
        leaf: the column's index.
        dtype: one that holds it.
    """

    def __init__(self, leaf: int, dtype: Dtype) -> None:
        super().__init__(leaf, dtype)
        self.leaf, self.dtype = leaf, dtype


@dataclass(frozen=True, slots=True)
class Leaf:
    """One column of actions.

    Attributes:
        path: keys from the root of the space, joined by "/"; "value" for a space that is one leaf itself.
        dtype: the column's; `layout.REF` for JSON.
        shape: of one row.
        space: the leaf's space.
    """

    path: str
    dtype: Dtype
    shape: tuple[int, ...]
    space: spaces.Space[Any]

    @property
    def is_json(self) -> bool:
        """Whether rows are heap references."""
        return self.dtype == layout.REF

    @property
    def is_number(self) -> bool:
        """Whether entries are plain numbers, not bytes."""
        return isinstance(self.space, spaces.Discrete)


@dataclass(frozen=True, slots=True)
class Taken:
    """An action, taken apart.

    Attributes:
        kind: JSON, equal for actions given in the same types.
        dtypes: the dtype of each leaf's entry (None for JSON leaves).
        entries: one a leaf; immutable, so the caller may reuse its arrays.
        lossy: why `restore` won't give the same types, or None.
    """

    kind: str
    dtypes: tuple[Dtype | None, ...]
    entries: tuple[Entry, ...]
    lossy: str | None = None


_TYPECODES = {array(code).itemsize: code for code in "bhiq"}


def leaves_of(space: spaces.Space[Any], path: str = "") -> tuple[Leaf, ...]:
    """Lists the leaves of an action space, depth first, in the space's own order."""
    if isinstance(space, spaces.Dict):
        return tuple(leaf for key, sub in space.items() for leaf in leaves_of(sub, _join(path, str(key))))
    if isinstance(space, spaces.Tuple):
        return tuple(leaf for i, sub in enumerate(space) for leaf in leaves_of(sub, _join(path, str(i))))
    dtype: Dtype = layout.REF
    shape: tuple[int, ...] = ()
    if isinstance(space, spaces.Discrete):
        dtype = _narrowest(int(space.start), int(space.start) + int(space.n) - 1)
    elif isinstance(space, spaces.MultiDiscrete):
        start = getattr(space, "start", np.zeros_like(space.nvec))
        dtype, shape = _narrowest(int(start.min()), int((start + space.nvec).max()) - 1), space.nvec.shape
    elif isinstance(space, spaces.MultiBinary):
        dtype, shape = np.dtype("i1"), tuple(space.shape)
    elif isinstance(space, spaces.Box):
        dtype, shape = space.dtype, tuple(space.shape)
    return (Leaf(path or "value", dtype, shape, space),)


def _join(path: str, key: str) -> str:
    key = key.replace("%", "%25").replace("/", "%2F").replace(".", "%2E") or "%"
    return f"{path}/{key}" if path else key


def _narrowest(low: int, high: int) -> Dtype:
    for name in ("i1", "i2", "i4"):
        if np.iinfo(name).min <= low and high <= np.iinfo(name).max:
            return np.dtype(f"<{name}")
    return np.dtype("<i8")


class ActionCodec:
    """Takes the actions of one space apart and puts them together again.

    Args:
        space: the action space.
        dtypes: of the columns, where they were widened; else as `leaves_of` chooses.
    """

    def __init__(self, space: spaces.Space[Any], dtypes: Sequence[Dtype] | None = None) -> None:
        self.space = space
        leaves = leaves_of(space)
        if dtypes is not None:
            leaves = tuple(
                Leaf(leaf.path, dtype, leaf.shape, leaf.space) for leaf, dtype in zip(leaves, dtypes, strict=True)
            )
        self.leaves = leaves

    def take(self, action: object) -> Taken:
        """Takes an action apart; never raises, whatever the action is."""
        entries: list[Entry] = []
        dtypes: list[Dtype | None] = []
        notes: list[str] = []
        try:
            kind = json.dumps(self._take(self.space, action, entries, dtypes, notes), separators=(",", ":"))
        except Exception:  # noqa: BLE001  # whatever an object of the user's own raises when it is looked at
            return self._constant(action)
        return Taken(kind, tuple(dtypes), tuple(entries), "; ".join(dict.fromkeys(notes)) or None)

    def _constant(self, action: object) -> Taken:
        lossy = None
        try:
            value = json.loads(jsontags.dumps(action))
        except Exception:  # noqa: BLE001  # as above
            value = _text_of(action)
            lossy = f"{type(action).__module__}.{type(action).__qualname__} is kept as text only"
        entries = tuple(b"" if leaf.is_json else 0 if leaf.is_number else bytes(_size(leaf)) for leaf in self.leaves)
        dtypes = tuple(None if leaf.is_json else leaf.dtype for leaf in self.leaves)
        return Taken(json.dumps({"value": value}, separators=(",", ":")), dtypes, entries, lossy)

    def _take(
        self,
        space: spaces.Space[Any],
        action: object,
        entries: list[Entry],
        dtypes: list[Dtype | None],
        notes: list[str],
    ) -> object:
        if isinstance(space, spaces.Dict):
            if not isinstance(action, Mapping) or set(action) != set(space.keys()):
                raise NoPlace
            kinds = {key: self._take(sub, action[key], entries, dtypes, notes) for key, sub in space.items()}
            nesting.note_base(action, dict, notes)
            order = list(action)
            return {"dict": kinds} if order == list(kinds) else {"dict": kinds, "order": order}
        if isinstance(space, spaces.Tuple):
            if not isinstance(action, tuple | list) or len(action) != len(space.spaces):
                raise NoPlace
            nesting.note_base(action, tuple if isinstance(action, tuple) else list, notes)
            items = [self._take(sub, a, entries, dtypes, notes) for sub, a in zip(space, action, strict=True)]
            return {"items": items, "in": "tuple" if isinstance(action, tuple) else "list"}
        leaf = self.leaves[len(entries)]
        if leaf.is_json:
            entries.append(_to_jsonable(space, action))
            dtypes.append(None)
            return "jsonable"
        kind, array = nesting.take(action, notes)
        if array.size != int(np.prod(leaf.shape, dtype=int)) or array.dtype.kind not in "biuf":
            raise NoPlace
        if not _fits(leaf.dtype, array) and _wider(leaf.dtype, array) is None:
            raise NoPlace
        if leaf.is_number:
            entries.append(array.reshape(())[()])
        else:
            entries.append(array.tobytes())
        dtypes.append(array.dtype)
        return kind

    def encode(self, index: int, entries: Sequence[Entry], dtype: Dtype) -> np.ndarray:
        """Makes a column's rows of entries that were all given in one dtype.

        Returns:
            An array of shape (len(entries), *leaf.shape) in the column's dtype.

        Raises:
            DoesNotFit: the column can't hold one of them exactly, and a wider one can.
            OverflowError: no column can hold them; `take` gives no such entries.
        """
        leaf = self.leaves[index]
        if leaf.is_number:
            if dtype.kind in "iu" and leaf.dtype.kind == "i":
                try:  # array refuses what doesn't fit, in half the time that NumPy takes to look
                    return np.frombuffer(array(_TYPECODES[leaf.dtype.itemsize], entries), leaf.dtype)
                except OverflowError:
                    pass
            given = np.array(entries, dtype)
        else:
            given = np.frombuffer(b"".join(entries), dtype).reshape(len(entries), *leaf.shape)
        return self.fit(index, given)

    def fit(self, index: int, given: np.ndarray) -> np.ndarray:
        """Returns rows in their column's dtype.

        Args:
            index: the column's.
            given: shape (rows, *leaf.shape).

        Raises:
            DoesNotFit: as `encode`.
            OverflowError: as `encode`.
        """
        leaf = self.leaves[index]
        if given.dtype == leaf.dtype:
            return given
        if _fits(leaf.dtype, given):
            with np.errstate(all="ignore"):
                return given.astype(leaf.dtype)
        wider = _wider(leaf.dtype, given)
        if wider is None:
            raise OverflowError(f"no column of {leaf.path} holds {given.dtype} values beside {leaf.dtype} ones")
        raise DoesNotFit(index, wider)

    def restore(self, kind: str, rows: Sequence[Any]) -> Any:
        """Puts an action together.

        Args:
            kind: as `take` gave it.
            rows: one value a leaf: an array of the leaf's shape, a number, or JSON bytes.

        Raises:
            ValueError: the kind and the rows don't go together.
        """
        try:
            parsed = _parse_kind(kind)
            if isinstance(parsed, dict) and "value" in parsed:
                return jsontags.loads(json.dumps(parsed["value"]))
            return self._restore(self.space, parsed, iter(rows))
        except Exception as error:  # the kind may be anybody's: nothing it does goes further than here
            raise ValueError(f"the log names an unknown kind of action: {kind[:80]}") from error

    def restore_all(self, kind: str, leaves: Sequence[Any], count: int) -> list[Any]:
        """Puts so many actions of one kind together: like `restore` for each, much faster for what agents mostly give.

        Args:
            kind: as `take` gave it.
            leaves: one sequence a leaf, one entry an action.
            count: how many actions.

        Raises:
            ValueError: the kind and the entries don't go together.
        """
        column = leaves[0] if len(leaves) == 1 else None
        if isinstance(column, np.ndarray) and column.dtype.kind in "biuf":
            try:
                found = nesting.restore_column(_parse_kind(kind), column)
            except (TypeError, KeyError, OverflowError, RecursionError) as error:  # the kind may be anybody's
                raise ValueError(f"the log names an unknown kind of action: {kind[:80]}") from error
            if found is not None:
                return found
        return [self.restore(kind, [leaf[at] for leaf in leaves]) for at in range(count)]

    def _restore(self, space: spaces.Space[Any], kind: Any, rows: Any) -> Any:
        if isinstance(space, spaces.Dict):
            parts = {key: self._restore(sub, kind["dict"][str(key)], rows) for key, sub in space.items()}
            return {key: parts[key] for key in kind["order"]} if "order" in kind else parts
        if isinstance(space, spaces.Tuple):
            items = [self._restore(sub, k, rows) for sub, k in zip(space, kind["items"], strict=True)]
            return tuple(items) if kind["in"] == "tuple" else items
        row = next(rows)
        if kind == "jsonable":
            return space.from_jsonable([json.loads(row)])[0]
        flat, at = np.asarray(row).reshape(-1), [0]
        found = nesting.restore(kind, flat, at)
        if at[0] != flat.size:
            raise ValueError("a kind for fewer numbers than there are")
        return found


@lru_cache(maxsize=1024)
def _parse_kind(kind: str) -> Any:
    return json.loads(kind)


def _size(leaf: Leaf) -> int:
    return int(np.prod(leaf.shape, dtype=int)) * leaf.dtype.itemsize


def _fits(column: Dtype, given: np.ndarray) -> bool:
    """Whether a column gives back every value to the bit."""
    if given.dtype == column:
        return True
    with np.errstate(all="ignore"):
        held = given.astype(column)
        if not nesting.same_bits(held.astype(given.dtype), given):
            return False
    # between signed and unsigned, -1 comes back to the bit; but a Python int's kind says nothing of its sign
    kinds = (given.dtype.kind, column.kind)
    return not ((kinds == ("i", "u") and (given < 0).any()) or (kinds == ("u", "i") and (held < 0).any()))


def _wider(column: Dtype, given: np.ndarray) -> Dtype | None:
    """Returns a dtype for the given values and for whatever the column may hold already; None: there is none."""
    for name in ("<i8", "<u8", "<f8"):
        wider = np.dtype(name)
        if wider != column and _holds_all(wider, column) and _fits(wider, given):
            return wider
    return None


def _holds_all(wider: Dtype, column: Dtype) -> bool:
    # NumPy calls int64 to float64 safe; beyond 2**53 it isn't
    big = column.kind in "iu" and column.itemsize == 8  # noqa: PLR2004  # 64 bits
    return np.can_cast(column, wider, "safe") and not (big and wider.kind == "f")


def _text_of(value: object) -> str:
    try:
        return repr(value)
    except Exception:  # noqa: BLE001  # the user's own __repr__
        return f"<{type(value).__qualname__}>"


def _to_jsonable(space: spaces.Space[Any], action: object) -> bytes:
    """Writes an action of a space without fixed shape, if it comes back in the same types; else NoPlace."""
    try:
        text = json.dumps(space.to_jsonable([action])[0], separators=(",", ":"))
        again = space.from_jsonable([json.loads(text)])[0]
    except Exception as error:  # whatever a space of the user's own raises on an action that is not in it
        raise NoPlace from error
    if not _same(again, action):
        raise NoPlace
    return text.encode()


def _same(a: object, b: object) -> bool:
    if type(a) is not type(b):
        return False
    if isinstance(a, np.ndarray | np.generic):
        assert isinstance(b, np.ndarray | np.generic)  # noqa: S101  # for mypy: the line above has checked it
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, Mapping):
        assert isinstance(b, Mapping)  # noqa: S101  # for mypy: the line above has checked it
        return list(a) == list(b) and all(_same(a[key], b[key]) for key in a)
    if isinstance(a, tuple | list):
        assert isinstance(b, tuple | list)  # noqa: S101  # for mypy: the line above has checked it
        return len(a) == len(b) and all(map(_same, a, b))
    return a == b and repr(a) == repr(b)
