"""One segment, written so that a kill at any moment leaves every committed episode readable.

The protocol (evidence: storage, Kills): the file is made under a temporary name, with every dataset and
attribute in it, switched to SWMR, and only then given its name. A commit writes steps, heap and side tables,
flushes, then writes episode rows, flushes, and then the slots of `open` and `status`: whoever sees a row sees
its steps, and whoever sees a slot sees the rows before it. After any error the handle is dead,
and its descriptor is swapped for the null device, so that HDF5 can neither write to the file again nor crash the
process at exit. A forked child swaps it too.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
import weakref
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
from h5py._objects import phil

from reenact import layout
from reenact.naming import give_name
from reenact.process import STALE_S

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from reenact.process import Process

Array = np.ndarray[Any, Any]


_PART = ".part"
_CHUNK_CACHE = 1 << 19
"""Bytes of HDF5's chunk cache, a dataset: rows are only appended. HDF5 2.0's own 8 MiB grow to 80 a segment."""

_ALIGNED_FROM, _ALIGNMENT = 64, 1024
"""Bytes: what HDF5 rewrites in place, such as a dataset's header, never lies across two pages of memory, between which
the kernel lets a kill stop a write: half of it new, half old, its checksum would fail for ever."""


class Column:
    """A one-dimensional, growing dataset, appended to through HDF5's low-level calls.

    `set_extent` and `write` with cached types cost a third of what h5py's resize and slice do
    (evidence: storage, Layout).
    """

    def __init__(self, group: h5py.Group, name: str, dtype: np.dtype[Any], shape: tuple[int, ...], chunk: int) -> None:
        dataset = group.create_dataset(
            name, shape=(0, *shape), maxshape=(None, *shape), chunks=(chunk, *shape), dtype=dtype
        )
        self._dataset, self._id = dataset, dataset.id
        self._type, self._shape, self.dtype = dataset.id.get_type(), shape, dtype
        self.rows = 0

    def make_index(self, file: h5py.File) -> None:
        """Has the index of chunks in the file before the first row, by a row that goes again.

        Where the first commit makes it, a loss of power can keep what points to it and not the index: every open hangs.
        """
        self.append(np.zeros((1, *self._shape), self.dtype))
        file.flush()
        self._id.set_extent((0, *self._shape))
        self.rows = 0

    def append(self, values: Array) -> None:
        """Appends rows of the column's own dtype and shape."""
        count = len(values)
        if count == 0:
            return
        self._id.set_extent((self.rows + count, *self._shape))
        zeros = (0,) * len(self._shape)
        memory = h5py.h5s.create_simple((count, *self._shape))
        file = self._id.get_space()
        file.select_hyperslab((self.rows, *zeros), (count, *self._shape))
        self._id.write(memory, file, np.ascontiguousarray(values), self._type)
        self.rows += count

    def read(self, first: int, end: int) -> Array:
        """Reads back rows [first, end)."""
        found: Array = self._dataset[first:end]
        return found


class Slots:
    """Two rows that are overwritten in turn, so that a kill in the middle of one leaves the other."""

    def __init__(self, group: h5py.Group, name: str, dtype: np.dtype[Any]) -> None:
        # With its bytes, which gives it a place in the file: whoever opens the file before it has one can never
        # refresh it (HDF5 2.0: "invalid dataset size"), and nobody can open it while the place that the first commit
        # would give it lies beyond the end that the file claims for itself.
        dataset = group.create_dataset(name, data=np.zeros(2, dtype))
        self._id, self._type, self.dtype = dataset.id, dataset.id.get_type(), dtype
        self._memory = h5py.h5s.create_simple((1,))
        self._files = [dataset.id.get_space() for _ in range(2)]
        for number, space in enumerate(self._files):
            space.select_hyperslab((number,), (1,))

    def write(self, row: Any, sequence: int) -> None:
        """Seals a row and puts it where the last but one stood."""
        row["sequence"] = sequence
        layout.seal(row)
        self._id.write(self._memory, self._files[sequence % 2], np.array([row], self.dtype), self._type)


class SegmentWriter:
    """An open segment.

    Args:
        run: the run's folder; made if it is missing.
        header: all that is known now; becomes the file's attributes.
        leaves: name, dtype and shape of each column of actions.
        info_keywords: names of the info values kept for each episode.
        durations: whether step durations are kept.
        durable: whether a commit waits until the disk has it (fsync), so that it survives a loss of power.
        process: the writer.
        width: how many episodes run at a time: of a vector env, its lanes.

    Raises:
        OSError: the folder or the file can't be made.
    """

    def __init__(
        self,
        run: Path,
        header: Mapping[str, str | int],
        leaves: Sequence[tuple[str, np.dtype[Any], tuple[int, ...]]],
        *,
        info_keywords: tuple[str, ...],
        durations: bool,
        durable: bool,
        process: Process,
        width: int = 1,
    ) -> None:
        run.mkdir(parents=True, exist_ok=True)
        _sweep(run)
        self._process, self._sequence, self._dead, self._durable = process, 0, False, durable
        self._width = width
        self.indexed = 0  # episodes committed, resets without a step aside
        written = _last_written_ns(run)
        self.number, claim = _claim(run)
        self.home = layout.home(str(header["run"]), self.number)
        self.path = run / layout.SEGMENT_NAME.format(self.number)
        partial = claim.with_name(f".{self.path.name}.{process.pid}{_PART}")
        try:
            self._file = h5py.File(
                partial,
                "x",
                libver=("v110", "v110"),
                locking=False,
                rdcc_nbytes=_CHUNK_CACHE,
                alignment_threshold=_ALIGNED_FROM,
                alignment_interval=_ALIGNMENT,
            )
            self._descriptor: int | None = int(self._file.id.get_vfd_handle())
            try:
                self._make({**header, "segment": self.number}, leaves, info_keywords, durations)
                self.committed_ns = max(time.time_ns(), written)
                self._write_status(closed=False)
                self._file.swmr_mode = True
                self._to_disk()
                _open_writers.add(self)
                give_name(partial, self.path)
                if durable:
                    _sync_folder(run)
            except BaseException:
                self.abandon()
                raise
        finally:
            partial.unlink(missing_ok=True)
            claim.unlink(missing_ok=True)

    def _make(
        self,
        header: Mapping[str, str | int],
        leaves: Sequence[tuple[str, np.dtype[Any], tuple[int, ...]]],
        info_keywords: tuple[str, ...],
        durations: bool,
    ) -> None:
        file = self._file
        for name, value in header.items():
            # of fixed length: variable-length text lies in a heap without checksum; damaged, it hangs any open
            text = value.encode() if isinstance(value, str) else None
            file.attrs.create(name, value if text is None else np.array(text, f"S{max(1, len(text))}"))
        actions = file.create_group(layout.ACTION_GROUP)
        # a nested leaf's path has "/" in it; dataset names have "." instead, so that no groups nest
        self.actions = [
            Column(actions, path.replace("/", "."), dtype, shape, layout.STEP_CHUNK) for path, dtype, shape in leaves
        ]
        self.reward = Column(file, layout.REWARD, np.dtype("<f8"), (), layout.STEP_CHUNK)
        self.duration = Column(file, layout.DURATION, np.dtype("<f4"), (), layout.STEP_CHUNK) if durations else None
        self.fingerprints = Column(file, layout.FINGERPRINTS, layout.FINGERPRINT_ROW, (), layout.SIDE_CHUNK)
        self.kinds = Column(file, layout.KINDS, layout.KIND_ROW, (), layout.SIDE_CHUNK)
        self.states = Column(file, layout.STATES, layout.STATE_ROW, (), layout.SIDE_CHUNK)
        self.heap = Column(file, layout.HEAP, np.dtype("u1"), (), layout.HEAP_CHUNK)
        self.row_dtype = layout.episode_row(len(leaves) + 1 + durations, info_keywords)
        self.episodes = Column(file, layout.EPISODES, self.row_dtype, (), layout.EPISODE_CHUNK)
        if self._durable:
            sides = (self.fingerprints, self.kinds, self.states, self.heap, self.episodes)
            for column in (*self.actions, self.reward, *sides, *([self.duration] if self.duration is not None else [])):
                column.make_index(file)
        self._open = Slots(file, layout.OPEN, layout.open_row(self.row_dtype, self._width))
        self._status = Slots(file, layout.STATUS, layout.STATUS_ROW)

    def flush(self) -> None:
        """The barrier between what rows refer to and the rows.

        Raises:
            FileNotFoundError: somebody has deleted the file: what goes on being written to it is lost.
        """
        self._file.flush()
        self._to_disk()
        if self._descriptor is not None and os.fstat(self._descriptor).st_nlink == 0:
            raise FileNotFoundError(errno.ENOENT, "the file was deleted", str(self.path))

    def _to_disk(self) -> None:
        if self._durable and self._descriptor is not None:
            os.fsync(self._descriptor)

    def commit_rows(self, rows: Array, open_rows: Array, used: Array, *, closed: bool = False) -> None:
        """Appends episode rows, replaces those of the open ones, marks the time, and flushes.

        What they refer to has been appended and flushed before.

        Args:
            rows: of the episodes that have ended.
            open_rows: one a lane; none: there is nothing to be said of any.
            used: whether an episode runs there.
            closed: whether the segment ends here.
        """
        self.episodes.append(rows)
        # A flush writes in any order: on one with the rows, the time that vouches for them could be seen before they
        # are, and the slot of an episode that has ended could be gone before its row is there.
        self.flush()
        self._sequence += 1
        self.committed_ns = max(self.committed_ns, time.time_ns())
        slot = np.zeros((), self._open.dtype)[()]
        if len(open_rows):
            slot["used"], slot["row"] = (used, open_rows) if self._width > 1 else (used[0], open_rows[0])
        self._open.write(slot, self._sequence)
        self._write_status(closed=closed)
        self._file.flush()
        self._to_disk()

    def _write_status(self, *, closed: bool) -> None:
        status = np.zeros((), layout.STATUS_ROW)[()]
        who = self._process
        status["pid"], status["started"] = who.pid, who.started
        status["host"], status["boot"] = who.host.encode()[:64], who.boot.encode()[:40]
        status["heartbeat"], status["closed"] = self.committed_ns, closed
        self._status.write(status, self._sequence)

    def close(self) -> None:
        """Closes the file; everything has been committed before."""
        if not self._dead:
            self._dead = True
            _open_writers.discard(self)
            try:
                self._file.close()  # HDF5 writes once more: the mark of a writer goes
            except BaseException:
                self._detach()
                raise
            self._descriptor = None

    def abandon(self) -> None:
        """Lets go of the file without writing to it again; never raises."""
        if self._dead:
            return
        self._dead = True
        _open_writers.discard(self)
        self._let_go()

    def _let_go(self) -> None:
        self._detach()
        with contextlib.suppress(Exception):  # whatever HDF5 says of the handle now, the file is out of its reach
            self._file.close()

    def _detach(self) -> None:
        """Points the descriptor at the null device: no later write can reach the file, and none can fail.

        HDF5 that can't write what it still holds crashes the process at its end. Nor does a file in memory do
        instead: a limit to the size of files holds for that, too.
        """
        if self._descriptor is None:
            return
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, self._descriptor)
        os.close(null)
        self._descriptor = None

    def forget_in_child(self) -> None:
        """After a fork, in the child: the file is the parent's alone, but may be read here like any other.

        HDF5 gives a process one file, however often it is opened: had it this one open still, a reader would get that.
        """
        self._dead = True
        self._let_go()


_open_writers: weakref.WeakSet[SegmentWriter] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    try:
        for writer in list(_open_writers):
            writer.forget_in_child()
        _open_writers.clear()
    finally:
        phil.release()


if hasattr(os, "register_at_fork"):
    # h5py's lock, which newer versions of it take themselves: held by another thread, it would stay so in the child
    os.register_at_fork(before=phil.acquire, after_in_parent=phil.release, after_in_child=_after_fork_in_child)


def _last_written_ns(run: Path) -> int:
    """Returns when a segment of the run was last written: what is recorded from now on comes later, or numbers move.

    The wall clock may have been set back since.
    """
    found = 0
    for path in run.glob(layout.SEGMENT_GLOB):
        with contextlib.suppress(OSError):  # it may be gone
            found = max(found, path.lstat().st_mtime_ns)
    return found


def _claim(run: Path) -> tuple[int, Path]:
    """Takes a number above all that are taken with a file that only one process can make.

    The claim goes once the segment has its name, so the name is looked for again after the claim is
    made: whoever claims a number second finds the first one's segment there.
    """
    number = -1
    while True:
        # above, not between, where one was deleted: a segment comes after the one that it takes over from
        taken = (
            path.stem.rpartition("-")[2] for glob in (layout.SEGMENT_GLOB, layout.CLAIM_GLOB) for path in run.glob(glob)
        )
        number = max((int(name) for name in taken if name.isdecimal()), default=number) + 1
        claim = run / layout.CLAIM_NAME.format(number)
        try:
            os.close(os.open(claim, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
        except FileExistsError:
            continue
        if not (run / layout.SEGMENT_NAME.format(number)).exists():
            return number, claim
        claim.unlink()


def _sweep(run: Path) -> None:
    """Removes what processes left that were killed while they made a file here, a matter of milliseconds."""
    for path in (*run.glob(f".*{_PART}"), *run.glob(layout.CLAIM_GLOB)):
        with contextlib.suppress(OSError):  # another process was first
            if time.time() - path.stat().st_mtime > STALE_S:
                path.unlink()


def _sync_folder(folder: Path) -> None:
    """Has the disk keep the folder's entries, and its own name in the folder above."""
    for path in (folder, folder.absolute().parent):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
