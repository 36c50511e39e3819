"""What a writer did to a folder, write by write, and the folder as it was after each of them.

`record` runs a program under tests/write_shim.c; `read` gives its operations in order; `Folder` does them again.
"""

from __future__ import annotations

import enum
import os
import shutil
import struct
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

SHIM = Path(__file__).with_name("write_shim.c")
ROOT = SHIM.parents[1]
PAGE = 4096
_HEAD = struct.Struct("=IIQQIIII")


class Kind(enum.IntEnum):
    """What was done; as in the shim."""

    MARK = 1
    OPENED = 2
    WRITTEN = 3
    CUT = 4
    LINKED = 5
    RENAMED = 6
    UNLINKED = 7
    MADE = 8
    REMOVED = 9
    SYNCED = 10
    FAILED = 11


@dataclass(frozen=True, slots=True)
class Operation:
    """One call.

    Attributes:
        kind: which.
        pid: the process that called.
        inode: the file.
        offset: of a write; the new size where a file was cut.
        path: relative to the watched folder.
        second: the new name, where one was given.
        data: the bytes written; a mark's text.
    """

    kind: Kind
    pid: int
    inode: int
    offset: int
    path: str
    second: str
    data: bytes

    @property
    def changes(self) -> bool:
        """Whether the folder is another one afterwards."""
        return self.kind not in (Kind.MARK, Kind.SYNCED, Kind.FAILED)

    def pages(self) -> list[int]:
        """Lists how much of a write can be done when a kill stops the kernel between two pages, in bytes."""
        if self.kind is not Kind.WRITTEN:
            return []
        first = PAGE - self.offset % PAGE
        return list(range(first, len(self.data), PAGE))


def compiled(folder: Path) -> Path:
    """Compiles the shim with the machine's cc, and returns where it is."""
    library = folder / "write_shim.so"
    options = ("-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror")
    command = ["cc", *options, "-o", library, SHIM, "-ldl", "-lpthread"]  # which compiler that is, the machine says
    subprocess.run(command, check=True)
    return library


def record(command: Sequence[str], folder: Path, *, library: Path, journal: Path) -> subprocess.CompletedProcess[str]:
    """Runs a program that writes into a folder, with everything that it does there written down.

    Args:
        command: the program.
        folder: absolute, without links.
        library: the compiled shim.
        journal: where to; outside the folder.
    """
    environ = {**os.environ, "LD_PRELOAD": str(library), "WRITE_SHIM_FOLDER": str(folder)}
    environ |= {
        "WRITE_SHIM_JOURNAL": str(journal),
        "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(SHIM.parent)]),
    }
    environ.pop("_REENACT_LAUNCH", None)
    return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=300, check=False)


def read(journal: Path, folder: Path) -> list[Operation]:
    """Reads a journal of what was done in a folder."""
    data, at, found = journal.read_bytes(), 0, []
    while at < len(data):
        kind, pid, inode, offset, path, second, count, _ = _HEAD.unpack_from(data, at)
        at += _HEAD.size
        parts = []
        for length in (path, second, count):
            parts.append(data[at : at + length])
            at += length
        names = [os.path.relpath(os.fsdecode(name), folder) if name else "" for name in parts[:2]]
        found.append(Operation(Kind(kind), pid, inode, offset, names[0], names[1], parts[2]))
    return found


class Folder:
    """A folder in which operations are done again, on files of its own; in memory where the machine has room there."""

    def __init__(self) -> None:
        memory = Path("/dev/shm")  # noqa: S108  # what is made there is made by tempfile
        self.path = Path(tempfile.mkdtemp(prefix="reenact-crash-", dir=memory if memory.is_dir() else None))
        self._files: dict[int, int] = {}

    def apply(self, operation: Operation, count: int | None = None) -> None:
        """Does an operation; of a write the first `count` bytes."""
        path = self.path / operation.path
        match operation.kind:
            case Kind.OPENED:
                if (old := self._files.pop(operation.inode, None)) is not None:  # an inode's number comes again
                    os.close(old)
                self._files[operation.inode] = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
            case Kind.WRITTEN:
                data = operation.data[:count]
                done = os.pwrite(self._files[operation.inode], data, operation.offset)
                assert done == len(data), "no room for the states"
            case Kind.CUT:
                os.ftruncate(self._files[operation.inode], operation.offset)
            case Kind.LINKED:
                os.link(path, self.path / operation.second)
            case Kind.RENAMED:
                path.replace(self.path / operation.second)
            case Kind.UNLINKED:
                path.unlink()
            case Kind.MADE:
                path.mkdir()
            case Kind.REMOVED:
                path.rmdir()
            case _:
                pass

    def close(self) -> None:
        """Deletes it."""
        for descriptor in self._files.values():
            os.close(descriptor)
        self._files.clear()
        shutil.rmtree(self.path)


def contents(folder: Path) -> dict[str, bytes | None]:
    """Returns all that lies below a folder; None for folders."""
    paths = sorted(folder.rglob("*"))
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in paths}
