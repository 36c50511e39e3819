"""Hidden files and folders that are being made: their names say by which process, so that a dead one's are swept.

What had to make way for a folder waits under such a name, too: it is not swept while it is the only one.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import re
import time
import uuid
from dataclasses import replace
from typing import TYPE_CHECKING

from reenact import naming
from reenact.process import this_process

if TYPE_CHECKING:
    from pathlib import Path

_NAME = re.compile(r"\.[0-9a-f]{12}\.([0-9a-f]{8})-(\d+)-(-?\d+)\.partial(\..*)?")
_ABANDONED_S = 24 * 3600.0
"""One of another machine, or from before this one was started, is a dead process's once nobody has written to it for
so long: whether that process lives can't be asked."""


def new_name(ending: str) -> str:
    """Returns a name that no other file has, for what this process is making."""
    mine = this_process()
    return f".{uuid.uuid4().hex[:12]}.{_place()}-{mine.pid}-{mine.started}.partial{ending}"


def make(folder: Path, ending: str, *, as_folder: bool = False) -> Path:
    """Makes an empty file or folder under such a name, from which the whole one can be renamed.

    Args:
        folder: where; made if missing.
        ending: of the name, such as ".mp4".
        as_folder: whether it is a folder.

    Raises:
        OSError: the folder can't be made or written.
    """
    partial = folder.absolute() / new_name(ending)  # an env may change the working directory
    partial.parent.mkdir(parents=True, exist_ok=True)
    if as_folder:
        partial.mkdir()
    else:
        partial.touch(exist_ok=False)
    return partial


def sweep(folder: Path) -> None:
    """Removes what dead processes were making in a folder, and what nobody has written to for a day.

    What had made way for it gets its name back.
    """
    with contextlib.suppress(OSError):  # there is no such folder, or it can't be read: then there is nothing to do
        for path in list(folder.iterdir()):
            found = _NAME.fullmatch(path.name)
            if found is None or not _is_dead(path, found[1], int(found[2]), int(found[3])):
                continue
            if path.suffix == naming.ASIDE and not path.is_symlink():  # behind one lie somebody else's files
                with contextlib.suppress(OSError):  # it can't have its name back, or another one sweeps: it stays
                    naming.put_back(path)
            else:
                naming.remove(path)


def _is_dead(path: Path, place: str, pid: int, started: int) -> bool:
    if place == _place():
        return not replace(this_process(), pid=pid, started=started).is_alive(0)
    try:
        return time.time() - path.lstat().st_mtime > _ABANDONED_S
    except OSError:
        return False  # its maker has just given it its name


@functools.cache
def _place() -> str:
    """Stands for where pids mean what they mean here: machine, boot, and container."""
    here = this_process()
    try:
        namespace = os.readlink("/proc/self/ns/pid")  # noqa: PTH115  # no path, but "pid:[4026531836]"
    except OSError:
        namespace = ""
    return hashlib.sha256(f"{here.host} {here.boot} {namespace}".encode()).hexdigest()[:8]
