"""What a packed file says of itself."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from reenact import layout
from reenact.errors import DamagedError
from reenact.hdf5 import Hdf5File, first_line, is_marked

if TYPE_CHECKING:
    from pathlib import Path

_GROUP = re.compile(r"segment-(\d{5,9})")


@dataclass(frozen=True, slots=True)
class Pack:
    """A packed file's own attributes.

    Attributes:
        name: of the run that it was made from.
        groups: its segments' numbers, and where they lie in it.
        selection: what was asked for, as it was typed; "": everything.
    """

    name: str
    groups: dict[int, str]
    selection: str


def read_pack(path: Path) -> Pack | None:
    """Reads what a packed file says of itself; None if the file is none.

    Raises:
        DamagedError: it can't be read.
    """
    try:
        if is_marked(path):
            return None  # still being written, or its writer was killed: a segment
    except OSError as error:
        raise DamagedError(f"{path} can't be read: {error.strerror or error}") from error
    file = Hdf5File(path)
    try:
        attributes = file.attributes()
        if attributes.get("format") != layout.PACK_FORMAT:
            return None
        version = int(attributes["version"])
        if version > layout.VERSION:
            raise DamagedError(
                f"{path} has format version {version}, this reenact reads up to {layout.VERSION}: update reenact"
            )
        found = ((_GROUP.fullmatch(name), name) for name in file.names())
        groups = {int(match[1]): name for match, name in found if match}
        return Pack(str(attributes["name"]), groups, str(attributes.get("selection", "")))
    except (KeyError, ValueError, TypeError) as error:
        if isinstance(error, DamagedError):
            raise
        raise DamagedError(f"{path} is damaged: {first_line(error)}") from error
    finally:
        file.close()
