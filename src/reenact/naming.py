"""A file that is made under a name of its own gets its place when it is whole."""

from __future__ import annotations

import errno
import os
import uuid
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def new_partial(folder: Path, suffix: str) -> Path:
    """Makes an empty file under a hidden name of its own, where the whole one can be renamed from.

    Args:
        folder: where; made if missing.
        suffix: of the name, such as ".mp4".

    Raises:
        OSError: the folder can't be made or written.
    """
    folder = folder.absolute()  # an env may change the working directory
    partial = folder / f".{uuid.uuid4().hex[:12]}.{os.getpid()}.partial{suffix}"
    folder.mkdir(parents=True, exist_ok=True)
    partial.touch(exist_ok=False)
    return partial


def give_name(partial: Path, path: Path, *, overwrite: bool = False) -> None:
    """Gives a file its name, in one step; removing the partial one, where it is left, is the caller's.

    Args:
        partial: the file, whole.
        path: its name, on the same file system.
        overwrite: whether another's may be taken.

    Raises:
        FileExistsError: the name is taken.
        OSError: the file can't have it.
    """
    if overwrite:
        partial.replace(path)
        return
    try:
        os.link(partial, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        if path.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from None
        partial.rename(path)
