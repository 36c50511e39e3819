"""JSON that keeps what JSON alone loses: tuples, arrays, NumPy scalars, dtypes, non-finite floats, bytes, spaces.

Contract, type by type:

| value | written as |
|---|---|
| None, bool, int, finite float, str, list, dict with str keys | itself |
| nan, inf, -inf | `{"$float": "nan"}`; a NaN of other bits: these, as 16 hexadecimal digits |
| tuple | `{"$tuple": [...]}` |
| dict with other keys, or a key that starts with "$" | `{"$dict": [[key, value], ...]}` |
| NumPy array | `{"$array": base64 of its C-order bytes, "dtype": "<f4", "shape": [2, 3]}` |
| NumPy scalar | `{"$scalar": base64, "dtype": "<f4"}` |
| NumPy dtype | `{"$dtype": "<f4"}` |
| bytes | `{"$bytes": base64}` |
| a Gymnasium space of the package's own kinds | `{"$space": "Box", "kwargs": {...}}` |
| an importable class or function | `{"$callable": "module:qualified.name"}` |

Subclasses (OrderedDict, named tuples, enums) and everything else do *not* round-trip and raise
`TypeError`, naming the type. Floats round-trip to the bit, and so does -0.0. Nothing is imported when
reading: a `$callable` is handed to the caller's `load`, and without one it is refused.
"""

from __future__ import annotations

import base64
import inspect
import json
import math
import struct
import sys
from collections.abc import Callable
from typing import Any, cast

import numpy as np
from gymnasium import spaces

Load = Callable[[str], object]
"""Turns "module:qualified.name" into the object, or raises."""

_SPACE_ARGUMENTS: dict[str, tuple[str, ...]] = {
    "Box": ("low", "high", "shape", "dtype"),
    "Discrete": ("n", "start", "dtype"),
    "MultiDiscrete": ("nvec", "dtype", "start"),
    "MultiBinary": ("n",),
    "Text": ("max_length", "min_length", "charset"),
    "Dict": ("spaces",),
    "Tuple": ("spaces",),
    "Sequence": ("space", "stack"),
    "Graph": ("node_space", "edge_space"),
    "OneOf": ("spaces",),
}


def dumps(value: object) -> str:
    """Writes a value as compact JSON.

    Raises:
        TypeError: a part of it is of a type that does not round-trip, or it holds itself.
    """
    try:
        return json.dumps(_tag(value), separators=(",", ":"), allow_nan=False)
    except RecursionError as error:
        raise TypeError("what holds itself can't be written as JSON") from error


def loads(text: str | bytes, load: Load | None = None) -> Any:
    """Reads what `dumps` wrote.

    Args:
        text: the JSON.
        load: resolves callables; without it they are refused.

    Raises:
        ValueError: it is no JSON, or a tag is malformed.
    """
    try:
        return _untag(json.loads(text), load)
    except (KeyError, IndexError, TypeError, AttributeError, RecursionError, OverflowError, struct.error) as error:
        raise ValueError(f"malformed tagged JSON: {error}") from error


def callable_name(value: object) -> str | None:
    """Returns "module:qualified.name" where that names the object to anybody who imports it, else None."""
    if isinstance(value, np.ufunc):
        ufunc = value.__name__
        return f"numpy:{ufunc}" if getattr(np, ufunc, None) is value else None
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    if not callable(value) or not isinstance(module, str) or not isinstance(name, str) or "<" in name:
        return None
    found: object = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return f"{module}:{name}" if found == value else None  # a method of an instance is not what its name says


def _tag(value: object) -> object:  # noqa: C901  # one case after another
    kind = type(value)
    if value is None or kind in (bool, int, str):
        return value
    if kind is float:
        assert isinstance(value, float)  # noqa: S101  # for mypy: the line above has checked it
        return value if math.isfinite(value) else {"$float": _float_text(value)}
    if kind is list:
        return [_tag(item) for item in value]  # type: ignore[attr-defined]  # kind is list
    if kind is tuple:
        return {"$tuple": [_tag(item) for item in value]}  # type: ignore[attr-defined]  # kind is tuple
    if kind is dict:
        assert isinstance(value, dict)  # noqa: S101  # for mypy: the line above has checked it
        if all(type(key) is str and not key.startswith("$") for key in value):
            return {key: _tag(item) for key, item in value.items()}
        return {"$dict": [[_tag(key), _tag(item)] for key, item in value.items()]}
    if kind is bytes:
        return {"$bytes": base64.b64encode(value).decode()}  # type: ignore[arg-type]  # kind is bytes
    tagged = _tag_numpy(value)
    if tagged is None and isinstance(value, spaces.Space):
        tagged = _tag_space(value)
    if tagged is None and (name := callable_name(value)) is not None and not isinstance(value, np.generic):
        tagged = {"$callable": name}
    if tagged is None:
        raise TypeError(f"{kind.__module__}.{kind.__qualname__} can't be written as JSON")
    return tagged


def _float_text(value: float) -> str:
    packed = struct.pack(">d", value)
    return packed.hex() if math.isnan(value) and packed != struct.pack(">d", math.nan) else repr(value)


def _tag_numpy(value: object) -> object | None:
    if isinstance(value, np.dtype) and value.subdtype is None and not value.hasobject and value.names is None:
        return {"$dtype": value.str}
    if isinstance(value, type) and issubclass(value, np.generic):  # np.float32 itself, given as a dtype
        return {"$callable": f"numpy:{value.__name__}"}
    if type(value) is np.ndarray and not value.dtype.hasobject and value.dtype.names is None:
        data = base64.b64encode(value.tobytes()).decode()
        return {"$array": data, "dtype": value.dtype.str, "shape": list(value.shape)}
    if isinstance(value, np.generic) and not value.dtype.hasobject and value.dtype.names is None:
        return {"$scalar": base64.b64encode(value.tobytes()).decode(), "dtype": value.dtype.str}
    return None


def _tag_space(space: spaces.Space[Any]) -> object | None:
    name = type(space).__name__
    if getattr(spaces, name, None) is not type(space):
        return None
    kwargs: dict[str, object] = {}
    for argument in _SPACE_ARGUMENTS.get(name, ()):
        attribute = {"charset": "characters", "space": "feature_space"}.get(argument, argument)
        if not hasattr(space, attribute):  # an older Gymnasium without it (Discrete's dtype)
            continue
        found = getattr(space, attribute)
        if name == "Text" and argument == "charset":
            found = "".join(sorted(found))
        elif name == "Dict":
            found = dict(found.items())
        elif name == "MultiBinary" and not isinstance(found, int):
            found = [int(n) for n in found]
        elif name in ("Tuple", "OneOf"):
            found = tuple(found)
        kwargs[argument] = _tag(found)
    return {"$space": name, "kwargs": kwargs}


def _untag(value: Any, load: Load | None) -> Any:  # noqa: C901, PLR0911, PLR0912  # one case after another
    if isinstance(value, list):
        return [_untag(item, load) for item in value]
    if not isinstance(value, dict):
        return value
    tag = next((key for key in value if key.startswith("$")), None)
    if tag is None:
        return {key: _untag(item, load) for key, item in value.items()}
    content = value[tag]
    match tag:
        case "$float":
            known = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}
            return known[content] if content in known else struct.unpack(">d", bytes.fromhex(content))[0]
        case "$tuple":
            return tuple(_untag(item, load) for item in content)
        case "$dict":
            return {_untag(key, load): _untag(item, load) for key, item in content}
        case "$bytes":
            return base64.b64decode(content, validate=True)
        case "$dtype":
            return _plain_dtype(content)
        case "$array":
            flat = np.frombuffer(base64.b64decode(content, validate=True), _plain_dtype(value["dtype"]))
            return flat.reshape(value["shape"]).copy()
        case "$scalar":
            dtype = _plain_dtype(value["dtype"])
            if not dtype.itemsize:  # an empty text
                return dtype.type()
            return np.frombuffer(base64.b64decode(content, validate=True), dtype)[0]
        case "$space":
            if content not in _SPACE_ARGUMENTS:
                raise ValueError(f"unknown space {content!r}")
            return _make_space(content, _untag(value["kwargs"], load))
        case "$callable":
            if content.startswith("numpy:") and (found := _of_numpy(content[6:])) is not None:
                return found
            if load is None:
                raise ValueError(f"the callable {content!r} is not loaded here")
            return load(content)
        case _:
            raise ValueError(f"unknown tag {tag!r}")


def _of_numpy(name: str) -> object | None:
    """Returns a scalar type or a ufunc of NumPy's: nothing that a stranger's log could do harm with."""
    found = np.sctypeDict.get(name) or getattr(np, name, None)
    return found if isinstance(found, np.ufunc) or name in np.sctypeDict else None


def _make_space(name: str, kwargs: dict[str, Any]) -> object:
    if name == "Dict":  # in the order it was written in: a plain dict would be sorted
        kwargs["spaces"] = list(kwargs["spaces"].items())
    elif name == "Box":  # its bounds give the shape; a shape alone could claim any amount of memory
        if not all(isinstance(kwargs[side], np.ndarray) for side in ("low", "high")):
            raise ValueError("a Box without arrays for bounds")
        kwargs["shape"] = kwargs["low"].shape
    made = getattr(spaces, name)
    if "dtype" not in inspect.signature(made).parameters:  # before 1.2, Discrete's was always int64
        kwargs.pop("dtype", None)
    try:
        return cast("object", made(**kwargs))
    except Exception as error:  # Gymnasium asserts what it is given
        raise ValueError(f"no {name} space can be made: {error}") from error


def _plain_dtype(text: str) -> np.dtype[Any]:
    dtype = np.dtype(text)
    if dtype.hasobject or dtype.names is not None:
        raise ValueError(f"dtype {text!r} is not one of numbers or text")
    return dtype
