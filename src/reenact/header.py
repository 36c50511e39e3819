"""What a segment says of itself: its attributes, and which datasets it has; checked before any of it is used."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from reenact import jsontags, layout
from reenact.checksums import sound_rows
from reenact.codec import ActionCodec, leaves_of
from reenact.errors import DamagedError
from reenact.hdf5 import Hdf5File, first_line

if TYPE_CHECKING:
    from pathlib import Path

Array = np.ndarray[Any, Any]
_MOST_LANES = 1 << 16


@dataclass(frozen=True, slots=True)
class Header:
    """A segment's header.

    Attributes:
        path: the file.
        number: the segment's, in the run.
        attributes: of the file: format, run, recipe, versions …
        columns: the names of the columns of `steps`, actions first.
        info_keywords: the names of the values in `info`.
        action_space: the env's; None where the log couldn't keep it.
        row_dtype: of a row of `episodes`.
        home: what rows of `episodes` bear; None: the first segments' bear nothing.
        rests: whether rows of `episodes` hold `rest_crcs`: the first segments' don't.
        partial: whether it is a copy that does not hold all episodes' steps.
        width: how far apart the rows of an episode's steps lie: the number of lanes.
        autoreset: how a vector env's lanes were reset after an end; "": it is no vector env's.
    """

    path: Path
    number: int
    attributes: dict[str, str | int]
    columns: tuple[str, ...]
    info_keywords: tuple[str, ...]
    action_space: Any
    row_dtype: np.dtype[Any]
    home: int | None
    rests: bool
    partial: bool
    width: int
    autoreset: str

    @property
    def n_actions(self) -> int:
        """How many columns hold actions."""
        return self.columns.index("reward")

    def sound(self, rows: Array) -> Array:
        """Returns which rows of `episodes` are as they were written, and of this segment: bool, shape (len(rows),)."""
        sound = sound_rows(rows)
        return sound if self.home is None else sound & (rows["home"] == self.home)


def read_header(file: Hdf5File, group: str) -> Header:
    """Reads a segment's header.

    Raises:
        DamagedError: the file is no segment, or can't be read.
    """
    path = file.path
    try:
        found = file.attributes()
        if found["format"] != layout.FORMAT:
            raise KeyError("format")  # noqa: TRY301  # one way out for all that is wrong with a header
        version = int(found["version"])
    except (KeyError, ValueError, TypeError) as error:
        raise DamagedError(f"{path} is an HDF5 file, but not a segment that reenact wrote") from error
    if version > layout.VERSION:
        raise DamagedError(
            f"{path} has format version {version}, this reenact reads up to {layout.VERSION}: update reenact"
        )
    try:
        return _checked(
            file, group, {name: value if isinstance(value, str) else int(value) for name, value in found.items()}
        )
    except (KeyError, ValueError, TypeError, OverflowError, MemoryError) as error:
        if isinstance(error, DamagedError):
            raise
        raise DamagedError(f"{path} is damaged: {first_line(error)}") from error


def _checked(file: Hdf5File, group: str, attributes: dict[str, str | int]) -> Header:
    path = file.path
    for name in ("recipe", "signature"):
        _text(path, attributes, name)
    int(attributes.get("predecessor", -1))
    run, columns = _text(path, attributes, "run"), _names(path, attributes, "columns")
    info_keywords = _names(path, attributes, "info_keywords")
    action_space = jsontags.loads(_text(path, attributes, "action_space"))
    file.add(layout.EPISODES)
    fields = file.dtype(layout.EPISODES).names or ()
    indexed, rests = "index" in fields, "rest_crcs" in fields
    home = layout.home(run, int(attributes.get("segment", -1)))
    row_dtype = layout.episode_row(len(columns), info_keywords, indexed=indexed, rests=rests)
    autoreset, width = str(attributes.get("autoreset", "")), int(attributes.get("batch_width", 1))
    if not 1 <= width <= (_MOST_LANES if autoreset else 1):
        raise DamagedError(f"{path}: {width} lanes")
    partial = _add_datasets(file, columns, row_dtype, width)
    n_actions = sum(name.startswith("action/") for name in columns)
    if columns[n_actions : n_actions + 1] != ("reward",):
        raise DamagedError(f"{path}: the columns {list(columns)} are not actions, then the reward")
    named = layout.segment_number(f"{group}.h5" if group else path.name)  # the first segments said it no other way
    return Header(
        path=path,
        number=int(attributes.get("segment", named or 0)),
        attributes=attributes,
        columns=columns,
        info_keywords=info_keywords,
        action_space=action_space,
        row_dtype=row_dtype,
        home=home if indexed else None,
        rests=rests,
        partial=partial,
        width=width,
        autoreset=autoreset,
    )


def _add_datasets(file: Hdf5File, columns: tuple[str, ...], row_dtype: np.dtype[Any], width: int) -> bool:
    """Checks that all datasets are there; returns whether it is a copy without all steps."""
    for name, dtype in (
        (layout.EPISODES, row_dtype),
        (layout.OPEN, layout.open_row(row_dtype, width)),
        (layout.STATUS, layout.STATUS_ROW),
    ):
        file.add(name, dtype)
    partial = layout.KEPT in file.names()
    if partial:
        file.add(layout.KEPT, np.dtype("u1"))
    for name, dtype in (
        (layout.FINGERPRINTS, layout.FINGERPRINT_ROW),
        (layout.KINDS, layout.KIND_ROW),
        (layout.STATES, layout.STATE_ROW),
        (layout.HEAP, np.dtype("u1")),
        (layout.REWARD, np.dtype("<f8")),
    ):
        file.add(name, dtype, sparse=partial)
    for name in columns:
        file.add(f"steps/{name}", sparse=partial)
    return partial


def make_codec(file: Hdf5File, columns: tuple[str, ...], space: Any) -> ActionCodec:
    """Returns the codec of a segment's actions.

    Args:
        file: the segment's.
        columns: of `steps` that hold actions.
        space: the env's action space.

    Raises:
        DamagedError: the columns do not fit the space.
    """
    leaves = leaves_of(space)
    expected = ["action/" + leaf.path.replace("/", ".") for leaf in leaves]
    if list(columns) != expected:
        raise DamagedError(f"{file.path}: columns {list(columns)} for the action space's {expected}")
    dtypes = [file.dtype(f"steps/{name}") for name in columns]
    for leaf, name, dtype in zip(leaves, columns, dtypes, strict=True):
        plain = dtype.kind in "biuf"
        if file.row_shape(f"steps/{name}") != leaf.shape or (dtype != layout.REF if leaf.is_json else not plain):
            raise DamagedError(f"{file.path}: the column {name} does not fit the action space")
    return ActionCodec(space, dtypes)


def _text(path: Path, attributes: dict[str, str | int], name: str) -> str:
    value = attributes[name]
    if not isinstance(value, str):
        raise DamagedError(f"{path}: attribute {name} is no text")
    return value


def _names(path: Path, attributes: dict[str, str | int], name: str) -> tuple[str, ...]:
    found = json.loads(_text(path, attributes, name))
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        raise DamagedError(f"{path}: attribute {name} is no list of names")
    return tuple(found)
