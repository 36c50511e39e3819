"""Which files a child process has opened already: what one process has had tried, those that work for it need not.

A file counts as tried only as it was then: by its path, device, inode, size, and the times of its last changes. And
only if these lay back long enough for the clock that files are stamped with to have moved on: a change right after
would not show.
"""

from __future__ import annotations

import hashlib
import time
from typing import TYPE_CHECKING

from reenact import probe

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

_SETTLED_NS = 2_000_000_000
"""Longer than any file system's clock stands still: FAT's do for two seconds."""
Stamp = tuple[int, int, int, int, int]

_sound: dict[Path, Stamp] = {}
"""What this process has had tried, and could be opened."""
_vouchers: set[str] = set()


def try_all(paths: Sequence[Path]) -> dict[Path, str]:
    """Has files tried, as `probe.try_all` does, unless a voucher for these very ones has been taken.

    Returns:
        For each file what is wrong with it; "" for those that can be opened.
    """
    stamps = {path.absolute(): stamp for path in paths if (stamp := _stamp(path)) is not None}
    if len(stamps) == len(paths) and _digest(stamps) in _vouchers:
        return dict.fromkeys(paths, "")
    settled = time.time_ns() - _SETTLED_NS
    found = probe.try_all(paths)
    for path, said in found.items():
        stamp = stamps.get(path.absolute())
        if not said and stamp is not None and max(stamp[3:]) < settled:
            _sound[path.absolute()] = stamp
        else:
            _sound.pop(path.absolute(), None)
    return found


def voucher(paths: Iterable[Path]) -> str | None:
    """Returns what says to other processes that files were tried here, as they were then; None: not all of them."""
    stamps = {path.absolute(): _sound.get(path.absolute()) for path in paths}
    known = {path: stamp for path, stamp in stamps.items() if stamp is not None}
    return _digest(known) if known and len(known) == len(stamps) else None


def take(given: str | None) -> None:
    """Takes another process's voucher."""
    if given is not None:
        _vouchers.add(given)


def _stamp(path: Path) -> Stamp | None:
    try:
        told = path.stat()
    except OSError:
        return None
    return told.st_dev, told.st_ino, told.st_size, told.st_mtime_ns, told.st_ctime_ns


def _digest(stamps: dict[Path, Stamp]) -> str:
    return hashlib.sha256(repr(sorted((str(path), *stamp) for path, stamp in stamps.items())).encode()).hexdigest()
