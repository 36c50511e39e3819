"""Where runs lie."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reenact import layout
from reenact.errors import RunNotFoundError

if TYPE_CHECKING:
    from pathlib import Path


def find_runs(folder: Path) -> list[Path]:
    """Lists the folders at or below `folder` that hold segments, the one last written first."""
    latest = last_written(folder)
    return sorted(latest, key=lambda path: (-latest[path], path))


def last_written(folder: Path) -> dict[Path, float]:
    """Returns when each folder at or below `folder` that holds segments was last written, in seconds since 1970."""
    latest: dict[Path, float] = {}
    if folder.is_dir():
        for path in folder.rglob(layout.SEGMENT_GLOB):
            written = path.lstat().st_mtime  # a link may lead nowhere
            latest[path.parent] = max(latest.get(path.parent, 0.0), written)
    return latest


def is_there(path: Path) -> bool:
    """Whether there is anything at a path.

    Raises:
        RunNotFoundError: that can't be told.
    """
    try:
        return path.exists()
    except OSError as error:
        raise RunNotFoundError(f"{path} can't be looked into: {error.strerror}") from error


def nearby(path: Path) -> str:
    """Says what is there instead."""
    parent = path if path.is_dir() else path.parent
    found = find_runs(parent)[:5] if parent.exists() else []
    return f"there is {', '.join(map(str, found))}" if found else f"no run lies under {parent} either"
