"""An HDF5 file that is written once, compressed, and gets its name when it is whole.

Columns are written in whole chunks, each once: nothing is ever compressed twice, and what is never written takes
no space and reads as zeros.
"""

from __future__ import annotations

import contextlib
import io
import os
from typing import TYPE_CHECKING, Any, Self

import h5py
import numpy as np

from reenact.errors import RunError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

Array = np.ndarray[Any, Any]
_LEVEL = 4
"""Of gzip: 6 and 9 save 1 % more of real logs, and take two and nine times as long."""
_CHUNK_CACHE = 1 << 19


class _Output(io.FileIO):
    """A file that HDF5 writes through, which keeps the first error to itself and takes no more from then on.

    A write that fails leaves HDF5 with a handle that can't be closed, and that crashes the process when it ends.

    Attributes:
        failure: that error.
    """

    failure: BaseException | None = None

    def write(self, data: Any) -> int:
        """Writes all of it."""
        view = memoryview(data).cast("B")
        self._try(lambda: self._write_all(view))
        return len(view)

    def _write_all(self, view: memoryview) -> None:
        while len(view):
            view = view[super().write(view) :]

    def truncate(self, size: int | None = None) -> int:
        """Sets the file's size."""
        self._try(lambda: super(_Output, self).truncate(size))
        return size or 0

    def _try(self, call: Callable[[], object]) -> None:
        if self.failure is None:
            try:
                call()
            except BaseException as error:  # noqa: BLE001  # Ctrl-C too: it is raised once HDF5 has let go
                self.failure = error


class Archive:
    """A file being written, under a name of its own.

    Args:
        path: the file; its folder must be there.
        name: what errors call it; None: by its path.

    Raises:
        RunError: it can't be made. So does any other call that can't write.
    """

    def __init__(self, path: Path, name: Path | None = None) -> None:
        self.path, self._name = path, name or path
        try:
            self._output = _Output(path, "w+")
        except OSError as error:
            raise RunError(f"can't write {self._name}: {error.strerror}") from error
        self._file: h5py.File | None = None
        try:
            with self._guarded():
                self._file = h5py.File(self._output, "w", libver=("v110", "v110"), rdcc_nbytes=_CHUNK_CACHE)
        except BaseException:
            self.__exit__()
            raise

    @property
    def _place(self) -> h5py.File:
        assert self._file is not None  # noqa: S101  # for mypy: it is closed last
        return self._file

    def add_attributes(self, group: str, attributes: Mapping[str, str | int]) -> None:
        """Adds attributes to a group ("": the root), which is made if it is missing."""
        with self._guarded():
            place = self._place.require_group(group) if group else self._place
            for name, value in attributes.items():
                # of fixed length: variable-length text lies in a heap without checksum; damaged, it hangs any open
                text = value.encode() if isinstance(value, str) else None
                place.attrs.create(name, value if text is None else np.array(text, f"S{max(1, len(text))}"))

    def add_table(self, name: str, rows: Array) -> None:
        """Adds a small dataset, whole and as it is."""
        with self._guarded():
            self._place.create_dataset(name, data=rows)

    def add_column(self, name: str, dtype: np.dtype[Any], shape: tuple[int, ...], chunk: int) -> h5py.Dataset:
        """Adds a compressed dataset, all holes.

        Args:
            name: the dataset's.
            dtype: as it will be.
            shape: with the number of rows first.
            chunk: rows a chunk.
        """
        with self._guarded():
            return self._place.create_dataset(
                name,
                shape=shape,
                maxshape=(None, *shape[1:]),  # such a one's index has holes, too
                chunks=(chunk, *shape[1:]),
                dtype=dtype,
                compression="gzip",
                compression_opts=_LEVEL,
                shuffle=True,
            )

    def write(self, column: h5py.Dataset, first: int, rows: Array) -> None:
        """Writes rows of a column, from the beginning of a chunk to the end of one or of the column."""
        with self._guarded():
            column[first : first + len(rows)] = rows

    def close(self) -> None:
        """Brings all of it to the disk."""
        with self._guarded():
            self._let_go()
        with self._guarded():
            os.fsync(self._output.fileno())
            self._output.close()

    def _let_go(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # h5py raises OSError, RuntimeError, ValueError and KeyError alike
            if self._output.failure is None:
                raise RunError(f"can't write {self._name}: {' '.join(str(error).split())}") from error
        failure = self._output.failure
        if isinstance(failure, OSError):
            raise RunError(f"can't write {self._name}: {failure.strerror}") from failure
        if failure is not None:
            raise failure

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        """Removes a file that was not closed."""
        if self._output.closed:
            return
        if self._output.failure is None:
            self._output.failure = RunError("it was given up")
        with contextlib.suppress(Exception):
            self._let_go()
        self._output.close()
        self.path.unlink(missing_ok=True)
