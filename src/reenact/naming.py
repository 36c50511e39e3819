"""What a file may be called; and one that is made under a name of its own gets its place when it is whole."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

ASIDE = ".old"
"""How the name of a folder ends in which another one makes way."""

MOST_BYTES = 255
"""How long a file's name may be, on nearly all file systems."""


def why_not_plain(name: str) -> str | None:
    """Says why something is no name, or beginning of one, for a file that is seen and lies where it is put; or None."""
    if not name:
        return "it is empty"
    if name.startswith("."):
        return "it begins with a dot, so that the files would be hidden"
    if any(one in "/\\" for one in name):
        return "it has a slash, so that the files would lie elsewhere"
    if any(unicodedata.category(one) in ("Cc", "Cs", "Zl", "Zp") for one in name):
        return "it has a line break, or another character that can't be shown"
    return None


def give_name(partial: Path, path: Path, *, overwrite: bool = False) -> None:
    """Gives a file or a folder its name; removing the partial one, where it is left, is the caller's.

    A file takes it in one step. So does a folder; where another one has to make way for it, there is a moment in which
    neither has the name. The other one gets it back if that fails, or when what a killed process has left is swept.

    Args:
        partial: what is whole.
        path: its name, on the same file system.
        overwrite: whether another's may be taken.

    Raises:
        FileExistsError: the name is taken.
        OSError: it can't have it.
    """
    if overwrite and partial.is_dir() and path.exists():
        _replace_folder(partial, path)
    elif overwrite:
        partial.replace(path)
    else:
        _give_free_name(partial, path)


def _replace_folder(partial: Path, path: Path) -> None:
    aside = partial.with_name(f"{partial.name}{ASIDE}")
    aside.mkdir()
    try:
        path.rename(aside / path.name)
        partial.rename(path)
    finally:
        put_back(aside)


def put_back(aside: Path) -> None:
    """Gives what has made way its name again, unless something has it now; then it is removed.

    Args:
        aside: the folder that it waits in, under its name.

    Raises:
        OSError: it can't have it: it stays where it is.
    """
    for old in aside.iterdir():
        path = aside.parent / old.name
        if not os.path.lexists(path):
            old.rename(path)
    remove(aside)


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
