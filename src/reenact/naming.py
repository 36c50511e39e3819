"""A file that is made under a name of its own gets its place when it is whole."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def give_name(partial: Path, path: Path) -> None:
    """Gives a file its name, and never takes another's; removing the partial one, where it is left, is the caller's.

    Raises:
        FileExistsError: the name is taken.
        OSError: the file can't have it.
    """
    try:
        os.link(partial, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        if path.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from None
        partial.rename(path)
