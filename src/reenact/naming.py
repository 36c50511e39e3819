"""A file that is made under a name of its own gets its place when it is whole."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def give_name(partial: Path, path: Path, *, overwrite: bool = False) -> None:
    """Gives a file or a folder its name; removing the partial one, where it is left, is the caller's.

    A file takes it in one step. So does a folder; where another one has to make way for it, there is a moment in which
    neither has the name.

    Args:
        partial: what is whole.
        path: its name, on the same file system.
        overwrite: whether another's may be taken.

    Raises:
        FileExistsError: the name is taken.
        OSError: it can't have it.
    """
    if overwrite and partial.is_dir() and path.exists():
        old = partial.with_name(f"{partial.name}.old")
        path.rename(old)
        partial.rename(path)
        remove(old)
    elif overwrite:
        partial.replace(path)
    else:
        _give_free_name(partial, path)


def _give_free_name(partial: Path, path: Path) -> None:
    try:
        os.link(partial, path)
    except FileExistsError:
        raise
    except OSError:  # a folder, or a file system without hard links
        if path.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from None
        partial.rename(path)


def remove(partial: Path) -> None:
    """Removes a file or a folder, if it is there; what can't be removed stays."""
    if partial.is_dir() and not partial.is_symlink():
        shutil.rmtree(partial, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
