"""The folder as a loss of power may leave it, at any moment of a recording with `durable=True`.

What was synced is there. Of what was written to a file since its last sync, each page is there as of any moment since
then, the size as of some moment; of names given and taken since the folder's last sync, the first few are there,
since file systems keep their order. An `fsync` that has not returned has promised nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from crash_journal import PAGE, Kind, Operation
from crash_opening import Outcome, examine

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np


@dataclass
class _File:
    """A file on the disk: what is synced, and what was done since."""

    synced: bytearray = field(default_factory=bytearray)
    since: list[Operation] = field(default_factory=list)

    def sync(self) -> None:
        for done in self.since:
            _do(self.synced, done)
        self.since.clear()

    def lost(self, rng: np.random.Generator, share: float) -> bytes:
        """Returns what the disk has: each page as of a moment of its own."""
        size, now = len(self.synced), bytearray(self.synced)
        versions: dict[int, list[bytes]] = {}
        sizes = [size]
        for done in self.since:
            _do(now, done)
            sizes.append(len(now))
            end = done.offset + len(done.data)
            pages = range(done.offset // PAGE, -(-end // PAGE)) if done.kind is Kind.WRITTEN else ()
            for page in pages:
                versions.setdefault(page, []).append(bytes(now[page * PAGE : (page + 1) * PAGE]))
        found, longest = bytearray(self.synced), size
        for page, content in versions.items():
            if rng.random() < share:
                first, version = page * PAGE, content[int(rng.integers(len(content)))]
                found[len(found) : first] = bytes(max(0, first - len(found)))
                found[first : first + len(version)] = version
                longest = max(longest, first + len(version))
        # the size is written with the pages or after them, never before; a hole reads as zeros
        wanted = int(rng.choice(sizes)) if rng.random() < share else longest
        return bytes(found[:wanted]) + bytes(max(0, wanted - len(found)))


def _do(content: bytearray, done: Operation) -> None:
    if done.kind is Kind.CUT:
        del content[done.offset :]
        content.extend(bytes(done.offset - len(content)))
    else:
        content.extend(bytes(max(0, done.offset - len(content))))
        content[done.offset : done.offset + len(done.data)] = done.data


def state(operations: Sequence[Operation], place: int, rng: np.random.Generator, folder: Path) -> None:
    """Makes the folder as a loss of power after that operation may leave it."""
    files: dict[int, _File] = {}
    entries: list[Operation] = []  # names given and taken
    kept = 0  # of these, synced for certain
    for done in operations[: place + 1]:
        if done.kind in (Kind.WRITTEN, Kind.CUT):
            files[done.inode].since.append(done)
        elif done.kind is Kind.SYNCED and done.inode in files:
            files[done.inode].sync()
        elif done.kind is Kind.SYNCED:
            inside = [
                at for at, entry in enumerate(entries) if str(Path(entry.second or entry.path).parent) == done.path
            ]
            kept = max([kept, *(at + 1 for at in inside)])
        elif done.changes:
            entries.append(done)
            if done.kind is Kind.OPENED:
                files[done.inode] = _File()
    share = float(rng.choice([0.2, 0.5, 0.8, 0.95]))
    contents = {inode: file.lost(rng, share) for inode, file in files.items()}
    for path, inode in _names(entries[: int(rng.integers(kept, len(entries) + 1))], folder).items():
        (folder / path).write_bytes(contents[inode])


def _names(entries: Sequence[Operation], folder: Path) -> dict[str, int]:
    """Makes the folders that there are, and returns the files' names with their inodes."""
    inodes: dict[str, int] = {}
    for entry in entries:
        match entry.kind:
            case Kind.OPENED:
                inodes[entry.path] = entry.inode
            case Kind.LINKED:
                inodes[entry.second] = inodes[entry.path]
            case Kind.RENAMED:
                inodes[entry.second] = inodes.pop(entry.path)
            case Kind.UNLINKED:
                inodes.pop(entry.path, None)
            case Kind.MADE:
                (folder / entry.path).mkdir()
            case _:
                (folder / entry.path).rmdir()
    return inodes


def examine_power(journal: Path, folder: Path, run: str, *, count: int, seed: int, workers: int = 2) -> Outcome:
    """Opens a run after so many losses of power at random moments, in other processes; see `crash_opening.examine`."""
    return examine(journal, folder, run, only=range(count), workers=workers, seed=seed, power=True)
