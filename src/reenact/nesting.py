"""Numbers as they are given: alone, in arrays, or in lists and tuples of these; their kind, and one flat array.

A kind is JSON: "int", "float", "bool"; {"scalar": dtype}; {"array": dtype, "shape": [...]}; {"list": [kinds]} or
{"tuple": [kinds]}, of which either has one kind and "n", how many, where all are alike.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

Dtype = np.dtype[Any]


class NoPlace(Exception):  # noqa: N818  # a signal to the codec, not an error that anyone sees
    """The action's structure is not the space's."""


def take(value: object, notes: list[str]) -> tuple[object, np.ndarray]:  # noqa: C901  # one case after another
    """Returns the kind of a number, an array or a nesting of lists and tuples, and its numbers as one array."""
    if isinstance(value, bool):
        return "bool", np.array(value)
    if isinstance(value, int):
        note_base(value, int, notes)
        return "int", np.array(value, np.int64)
    if isinstance(value, float) and type(value) is float:
        return "float", np.array(value)
    if isinstance(value, np.generic):
        return {"scalar": value.dtype.str}, np.asarray(value)
    if isinstance(value, np.ndarray):
        note_base(value, np.ndarray, notes)
        return {"array": value.dtype.str, "shape": list(value.shape)}, np.asarray(value)
    if isinstance(value, list | tuple):
        note_base(value, tuple if isinstance(value, tuple) else list, notes)
        parts = [take(item, notes) for item in value]
        kinds = [kind for kind, _ in parts]
        flat = np.concatenate([array.reshape(-1) for _, array in parts]) if parts else np.zeros(0)
        for array, (_, part) in zip(np.split(flat, np.cumsum([p.size for _, p in parts])[:-1]), parts, strict=False):
            if not same_bits(array.astype(part.dtype), part.reshape(-1)):
                raise NoPlace  # an int beyond 2**53 beside a float
        name = "tuple" if isinstance(value, tuple) else "list"
        if len(kinds) > 1 and all(kind == kinds[0] for kind in kinds):
            return {name: kinds[0], "n": len(kinds)}, flat
        return {name: kinds}, flat
    if hasattr(value, "__array__") or hasattr(value, "__dlpack__"):
        array = np.asarray(value)
        notes.append(f"{type(value).__module__}.{type(value).__qualname__} is kept as a NumPy array")
        return {"array": array.dtype.str, "shape": list(array.shape)}, array
    raise NoPlace


_MOST_EMPTY = 4096
"""Lists without a number in them that an action may have; a hostile log could ask for any number of them."""
_PYTHON = {"int": int, "float": float, "bool": bool}


def _number_dtype(text: str) -> Dtype:
    dtype = np.dtype(text)
    if dtype.kind not in "biuf":
        raise ValueError(f"a kind of dtype {text!r}, expected one of numbers")
    return dtype


def restore(kind: Any, flat: np.ndarray, at: list[int]) -> Any:
    """Consumes numbers from `flat[at[0]:]` as the kind wants them."""
    if isinstance(kind, str):
        at[0] += 1
        return _PYTHON[kind](flat[at[0] - 1])
    if "scalar" in kind:
        at[0] += 1
        return flat[at[0] - 1].astype(_number_dtype(kind["scalar"]))
    if "array" in kind:
        size = int(np.prod(kind["shape"], dtype=int))
        at[0] += size
        return flat[at[0] - size : at[0]].astype(_number_dtype(kind["array"])).reshape(kind["shape"])
    name = "tuple" if "tuple" in kind else "list"
    if kind.get("n", 0) > _MOST_EMPTY + flat.size:
        raise ValueError("a kind of more items than there are")
    kinds = [kind[name]] * kind["n"] if "n" in kind else kind[name]
    items = [restore(k, flat, at) for k in kinds]
    return tuple(items) if name == "tuple" else items


def restore_column(kind: Any, column: np.ndarray) -> list[Any] | None:
    """Makes the actions of a whole column, where all are ints, NumPy scalars or arrays; None for other kinds."""
    if kind == "int" and column.ndim == 1 and column.dtype.kind in "iu":
        return list(column.tolist())
    if isinstance(kind, dict) and kind.keys() == {"scalar"} and column.ndim == 1:
        return list(column.astype(_number_dtype(kind["scalar"])))
    if isinstance(kind, dict) and kind.keys() == {"array", "shape"}:
        shape = tuple(kind["shape"])
        if math.prod(shape) == math.prod(column.shape[1:]):
            return list(column.astype(_number_dtype(kind["array"])).reshape(len(column), *shape))
    return None


_MANY = 1 << 17
"""Bytes from which NumPy compares faster than Python, which needs memory that the system has to be asked for."""


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two arrays of one dtype hold the same bits."""
    if a.nbytes < _MANY:
        return a.tobytes() == b.tobytes()
    one, other = (np.ascontiguousarray(its).reshape(-1).view(np.uint8) for its in (a, b))
    return np.array_equal(one, other)


def note_base(value: object, base: type, notes: list[str]) -> None:
    """Notes that a value of a subclass comes back as one of its base."""
    if type(value) is not base:
        notes.append(f"{type(value).__module__}.{type(value).__qualname__} is kept as {base.__name__}")
