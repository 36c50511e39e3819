"""Opening a run, as the first thing that a process does, too.

The child that tries files first gets ready while the rooms that read them are imported: each takes as long as the
other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from reenact import probe

if TYPE_CHECKING:
    from os import PathLike

    from reenact.run import Run


def open_run(path: str | PathLike[str]) -> Run:
    """Opens a run's folder, one segment, or a packed file, for reading; works while it is being written.

    Raises:
        RunNotFoundError: there is none.
        DamagedError: nothing of it can be read.
    """
    probe.begin()
    from reenact.run import Run  # noqa: PLC0415  # while the child gets ready

    return Run(path)
