"""An HDF5 file that may be damaged, hostile, or still being written; opened and read with care.

Damaged metadata can make HDF5 hang for ever, in SWMR mode, and forged metadata can crash it in any. So a child
process with a time limit tries each file first (`probe`); what it could not do is not done here. A file
without the mark of a writer is opened plainly, any other in SWMR mode. Links, external storage, virtual
datasets, foreign filters and sizes that the file can't hold are refused.
"""

from __future__ import annotations

import contextlib
import re
import threading
import weakref
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from reenact.errors import DamagedError
from reenact.tries import try_all

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Array = np.ndarray[Any, Any]

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_SUPERBLOCK_WITH_FLAGS = 3
_CUT_SHORT = re.compile(r"truncated file: eof = (\d+),.* stored_eof = (\d+)")
_WRITER_FLAGS = 0b101  # open for writing; open for SWMR writing
_FILTERS = frozenset((h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32))
_DENSEST = 1100
"""Deflate packs zeros 1032 to 1: a dataset that claims more than this for its file is no dataset."""

_UNREADABLE = (OSError, RuntimeError, ValueError, KeyError, TypeError, OverflowError, MemoryError)
"""What h5py raises for damaged files."""


class Hdf5File:
    """An open file.

    Args:
        path: the file.
        group: the group in it that all names are relative to; "": its root.
        tried: what `probe.try_all` has just said of it: "" if it can be opened; None: it has not been tried.

    Raises:
        DamagedError: it can't be opened.
    """

    def __init__(self, path: Path, group: str = "", *, tried: str | None = None) -> None:
        self.path, self._group = path, group
        self._names: list[str] = []
        self._sparse: set[str] = set()
        self._shared = False
        self._depth = 0
        self._handle: _Handle | None = _Handle.of(path, self, tried)

    def share(self) -> None:
        """From now on holds the file only while reading: this very process writes it.

        HDF5 gives a process one file, however often it is opened: a reader that held it would keep the
        writer's close from reaching the disk.
        """
        self._shared = True
        self.close()

    def marked(self) -> bool:
        """Whether the file bears a writer's mark, which goes when it is closed cleanly.

        Raises:
            DamagedError: it can't be read any more.
        """
        try:
            return is_marked(self.path)
        except OSError as error:
            raise DamagedError(f"{self.path} can't be read: {error.strerror or error}") from error

    def attributes(self) -> dict[str, Any]:
        """Reads the attributes; text comes as str."""
        with self.guarded() as file:
            attrs = self._place(file).attrs
            return {name: value.decode() if isinstance(value, bytes) else value for name, value in attrs.items()}

    def names(self) -> list[str]:
        """Lists what lies here, by name."""
        with self.guarded() as file:
            return sorted(self._place(file))

    def add(self, name: str, dtype: np.dtype[Any] | None = None, *, sparse: bool = False) -> None:
        """Checks that a dataset is there, plainly, with that dtype (None: any of numbers).

        Args:
            name: the dataset's.
            dtype: as above.
            sparse: whether it may have holes, and so more rows than the file could hold.

        Raises:
            DamagedError: it isn't.
        """
        with self.guarded() as file:
            dataset = self._find(file, name)
            if not isinstance(dataset, h5py.Dataset) or dataset.is_virtual or dataset.external:
                raise DamagedError(f"{self.path}: {name} is no plain dataset")
            found: np.dtype[Any] = dataset.dtype
            if found.hasobject or (dtype is not None and found != dtype) or not dataset.shape:
                raise DamagedError(f"{self.path}: {name} has dtype {found}, expected {dtype or 'numbers'}")
            created = dataset.id.get_create_plist()
            if not {created.get_filter(at)[0] for at in range(created.get_nfilters())} <= _FILTERS:
                raise DamagedError(f"{self.path}: {name} is packed with a filter that reenact does not use")
            if sparse:
                self._sparse.add(name)
            self._names.append(self._full(name))
            self._handle_now.datasets.setdefault(self._full(name), dataset)
            self._extent(name, fresh=False)

    def _full(self, name: str) -> str:
        return f"{self._group}/{name}" if self._group else name

    def _dataset(self, name: str) -> h5py.Dataset:
        return self._handle_now.datasets[self._full(name)]

    @property
    def _handle_now(self) -> _Handle:
        assert self._handle is not None  # noqa: S101  # for mypy: `guarded` has opened it
        return self._handle

    def _place(self, file: h5py.File) -> h5py.Group:
        found = self._find(file, "")
        if not isinstance(found, h5py.Group):
            raise DamagedError(f"{self.path}: {self._group} is no group")
        return found

    def _find(self, file: h5py.File, name: str) -> object:
        found: Any = file
        for part in filter(None, f"{self._group}/{name}".split("/")):
            if not isinstance(found, h5py.Group) or not isinstance(found.get(part, getlink=True), h5py.HardLink):
                raise DamagedError(f"{self.path}: {name} is missing, or is a link to somewhere else")
            found = found[part]
        return found

    def dtype(self, name: str) -> np.dtype[Any]:
        """Returns a dataset's dtype."""
        with self.guarded():
            found: np.dtype[Any] = self._dataset(name).dtype
            return found

    def row_shape(self, name: str) -> tuple[int, ...]:
        """Returns the shape of one row of a dataset."""
        with self.guarded():
            return tuple(self._dataset(name).shape[1:])

    def chunk(self, name: str) -> int:
        """Returns how many rows lie in one chunk of a dataset."""
        with self.guarded():
            chunks = self._dataset(name).chunks
            return int(chunks[0]) if chunks else max(1, int(self._dataset(name).shape[0]))

    def count(self, name: str) -> int:
        """Reads how many rows a dataset has by now."""
        with self.guarded():
            return self._extent(name, fresh=True)

    def read(self, name: str, first: int, count: int) -> Array:
        """Reads rows [first, first + count).

        Raises:
            DamagedError: they lie beyond the dataset's end, or can't be read.
        """
        end = first + count
        with self.guarded():
            # of no rows any place will do: an episode without a step begins where another lane's rows end
            if count and end > self._dataset(name).shape[0] and end > (rows := self._extent(name, fresh=True)):
                raise DamagedError(f"{self.path}: {name} [{first}, {end}) lies beyond its end, {rows}")
            if name in self._sparse:
                self._check_size(name, count)
            return self._handle_now.read(self._full(name), first, count)

    def read_afresh(self, name: str) -> Array:
        """Reads all of a small dataset, past what HDF5 remembers of it."""
        with self.guarded():
            self._dataset(name).refresh()
            found: Array = self._dataset(name)[:]
            return found

    def _extent(self, name: str, *, fresh: bool) -> int:
        dataset = self._dataset(name)
        if fresh:
            dataset.refresh()  # not `id.refresh`: h5py remembers the shape
        rows = int(dataset.shape[0])
        if name not in self._sparse:
            self._check_size(name, rows)
        return rows

    def check_size(self, name: str, rows: int) -> None:
        """Makes sure that the file could hold so many rows of a dataset.

        Raises:
            DamagedError: it couldn't.
        """
        with self.guarded():
            self._check_size(name, rows)

    def _check_size(self, name: str, rows: int) -> None:
        dataset = self._dataset(name)
        claimed = rows * int(np.prod(dataset.shape[1:], dtype=object)) * dataset.dtype.itemsize
        if claimed > self.path.stat().st_size * _DENSEST:
            raise DamagedError(f"{self.path}: {name} claims {claimed} bytes, which the file can't hold")

    @contextlib.contextmanager
    def guarded(self) -> Iterator[h5py.File]:
        """Gives the open file, and turns what HDF5 raises into one clear line."""
        self._depth += 1
        try:
            if self._handle is None:
                self._handle = _Handle.of(self.path, self, "")
                self._shared &= not self._handle.marked  # this process writes it no more, and did not close it
                self._handle.find(self._names)
            yield self._handle.file
        except DamagedError:
            raise
        except _UNREADABLE as error:
            raise DamagedError(f"{self.path} is damaged: {first_line(error)}") from error
        finally:
            self._depth -= 1
            if self._shared and not self._depth:
                self.close()

    def close(self) -> None:
        """Closes the file, unless another reader of this process has it open."""
        handle, self._handle = self._handle, None
        if handle is not None:
            handle.leave(self)


class _Handle:
    """A file as this process has it open: once, however many read it.

    HDF5 (1.12 to 2.0) forgets where a dataset's chunks lie when it is refreshed while it is open twice: from
    then on all of them read as the first.

    Attributes:
        file: the file.
        marked: whether it bore a writer's mark when it was opened.
        datasets: by name, each open once.
    """

    def __init__(self, path: Path, tried: str | None) -> None:
        said = try_all([path])[path] if tried is None else tried
        if said:
            what = "can't be read as HDF5"
            with contextlib.suppress(OSError):
                if is_marked(path):
                    what = "was not closed and is damaged"
            raise DamagedError(f"{path} {what}: {_meant(said)}")
        self.file, self.marked = _open(path)
        self.datasets: dict[str, h5py.Dataset] = {}
        self._types: dict[str, tuple[np.dtype[Any], h5py.h5t.TypeID]] = {}
        self._users: weakref.WeakSet[Hdf5File] = weakref.WeakSet()

    @classmethod
    def of(cls, path: Path, user: Hdf5File, tried: str | None) -> _Handle:
        """Returns the handle of a file, which is opened if nobody has it open."""
        with _lock:
            try:
                found = path.stat()
            except OSError as error:
                raise DamagedError(f"{path} can't be read: {error.strerror}") from error
            key = (found.st_dev, found.st_ino)  # a path may come to name another file
            handle = _handles.get(key)
            if handle is None:
                handle = _handles[key] = cls(path, tried)
            handle._users.add(user)
            return handle

    def find(self, names: list[str]) -> None:
        """Opens datasets, as far as they are not open."""
        for name in names:
            if name not in self.datasets:
                self.datasets[name] = self.file[name]

    def read(self, name: str, first: int, count: int) -> Array:
        """Reads rows [first, first + count).

        A slice of `h5py.Dataset` would make the types of a compound anew for each read: 0.13 ms for one row.
        """
        dataset = self.datasets[name]
        if name not in self._types:
            self._types[name] = dataset.dtype, h5py.h5t.py_create(dataset.dtype)
        dtype, type_id = self._types[name]
        found = np.empty((count, *dataset.shape[1:]), dtype)
        if found.size:
            space = dataset.id.get_space()
            space.select_hyperslab((first, *(0 for _ in found.shape[1:])), found.shape)
            dataset.id.read(h5py.h5s.create_simple(found.shape), space, found, type_id)
        return found

    def leave(self, user: Hdf5File) -> None:
        """A reader needs it no more; the last one closes it."""
        with _lock:
            self._users.discard(user)
            if not self._users:
                for key in [key for key, handle in _handles.items() if handle is self]:
                    del _handles[key]
                with contextlib.suppress(Exception):  # HDF5 on a damaged file: there is nothing left to lose
                    self.file.close()


_handles: weakref.WeakValueDictionary[tuple[int, int], _Handle] = weakref.WeakValueDictionary()
_lock = threading.Lock()


def first_line(error: BaseException) -> str:
    """Returns the first line of what an error says."""
    return _meant(str(error).strip().partition("\n")[0])


def _meant(said: str) -> str:
    """Returns what HDF5 means by the two errors that a half copied file and one that is no HDF5 file lead to."""
    cut = _CUT_SHORT.search(said)
    if cut is not None:
        there = f"{int(cut[1]):,} of {int(cut[2]):,} bytes are there"
        return f"it is cut short, {there}: copy it again from where it is whole"
    if "file signature not found" in said:
        return "it does not begin as an HDF5 file does"
    return said


def is_marked(path: Path) -> bool:
    """Whether a file bears a writer's mark."""
    with path.open("rb") as file:
        head = file.read(12)
    known = head.startswith(_SIGNATURE) and len(head) > 11 and head[8] == _SUPERBLOCK_WITH_FLAGS  # noqa: PLR2004  # the flags' place
    return known and bool(head[11] & _WRITER_FLAGS)


def _open(path: Path) -> tuple[h5py.File, bool]:
    """Opens a file that has been tried; tells whether it bears a writer's mark."""
    try:
        return h5py.File(path, "r", locking=False), False
    except _UNREADABLE as error:
        # of one that is being written, HDF5 may also say that it is cut short: its header is ahead of it
        if "already open" not in str(error) and not is_marked(path):
            raise DamagedError(f"{path} can't be read as HDF5: {first_line(error)}") from error
    try:
        return h5py.File(path, "r", swmr=True, locking=False), True
    except _UNREADABLE:
        try:  # its writer closed it in between
            return h5py.File(path, "r", locking=False), False
        except _UNREADABLE as error:
            raise DamagedError(f"{path} can't be read as HDF5: {first_line(error)}") from error
