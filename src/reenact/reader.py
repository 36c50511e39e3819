"""One segment, read as data that may be damaged, hostile, or still being written.

A cleanly closed segment is opened plainly. Any other is opened in SWMR mode, where damaged metadata can
make HDF5 hang for ever, so a child process with a time limit tries it first. Nothing is used before it
is checked: links, external storage and virtual datasets are refused, rows and columns have CRCs, and a
heap reference must lie in the heap.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zlib import crc32

import h5py
import numpy as np

from reenact import jsontags, layout
from reenact.codec import ActionCodec, leaves_of
from reenact.errors import DamagedError, RunNotFoundError
from reenact.layout import StateKind
from reenact.process import Process

PROBE_S = 20.0
"""How long the child may take to open a segment that was not closed."""
_SLICE = 16384
_RETRIES = 5
_MAX_BLOB = 1 << 28
Array = np.ndarray[Any, Any]

_PROBE = """
import sys, h5py
file = h5py.File(sys.argv[1], "r", swmr=True, locking=False)
file.visititems(lambda name, item: item[-1:] if isinstance(item, h5py.Dataset) and item.shape[0] else None)
list(file.attrs.items())
"""


@dataclass(frozen=True, slots=True)
class Status:
    """Who writes the segment, and until when.

    Attributes:
        writer: the process.
        heartbeat: ns since 1970 of the last commit.
        closed: whether it was closed cleanly.
    """

    writer: Process
    heartbeat: int
    closed: bool

    @property
    def live(self) -> bool:
        """Whether more may come."""
        return not self.closed and self.writer.is_alive(self.heartbeat)


class SegmentReader:
    """An open segment.

    Args:
        path: the file.

    Raises:
        RunNotFoundError: it isn't there.
        DamagedError: it is no segment, or can't be read.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise RunNotFoundError(f"no segment at {path}")
        self.path = path
        self._file = _open(path)
        try:
            self._read_header()
        except BaseException:
            self.close()
            raise

    def _read_header(self) -> None:
        attributes = self._file.attrs
        try:
            if attributes["format"] != layout.FORMAT:
                raise KeyError("format")
            version = int(attributes["version"])
        except (KeyError, OSError, ValueError, TypeError) as error:
            raise DamagedError(f"{self.path} is an HDF5 file, but not a segment that reenact wrote") from error
        if version > layout.VERSION:
            raise DamagedError(
                f"{self.path} has format version {version}, this reenact reads up to {layout.VERSION}: update reenact"
            )
        try:
            self.attributes = {
                name: value if isinstance(value, str) else int(value) for name, value in attributes.items()
            }
            self.columns: list[str] = json.loads(self._text("columns"))
            self.info_keywords: tuple[str, ...] = tuple(json.loads(self._text("info_keywords")))
            space_text = self._text("action_space")
            self.action_space = jsontags.loads(space_text)
            n_actions = len([name for name in self.columns if name.startswith("action/")])
            row = layout.episode_row(len(self.columns), self.info_keywords)
            self._episodes = self._dataset(layout.EPISODES, row)
            self._open_slots = self._dataset(layout.OPEN, layout.open_row(row))
            self._status = self._dataset(layout.STATUS, layout.STATUS_ROW)
            self._fingerprints = self._dataset(layout.FINGERPRINTS, layout.FINGERPRINT_ROW)
            self._kinds = self._dataset(layout.KINDS, layout.KIND_ROW)
            self._states = self._dataset(layout.STATES, layout.STATE_ROW)
            self._heap = self._dataset(layout.HEAP, np.dtype("u1"))
            self._columns = [self._dataset(f"steps/{name}") for name in self.columns]
            self._action_columns = self._columns[:n_actions]
            self._reward = self._columns[n_actions]
            if self._reward.dtype != np.dtype("<f8"):
                raise DamagedError(f"{self.path}: rewards of dtype {self._reward.dtype}, expected float64")
            self._check_actions()
        except (KeyError, OSError, RuntimeError, ValueError, TypeError) as error:
            if isinstance(error, DamagedError):
                raise
            raise DamagedError(f"{self.path} is damaged: {_first_line(error)}") from error
        self.rows_seen = 0

    def _check_actions(self) -> None:
        if self.action_space is None:
            self._codec = None
            return
        leaves = leaves_of(self.action_space)
        if len(leaves) != len(self._action_columns):
            raise DamagedError(f"{self.path}: {len(self._action_columns)} action columns for {len(leaves)} leaves")
        for leaf, column in zip(leaves, self._action_columns, strict=True):
            if column.shape[1:] != leaf.shape or leaf.is_json != (column.dtype == layout.REF):
                raise DamagedError(f"{self.path}: the column of action {leaf.path} does not fit the action space")
        self._codec = ActionCodec(self.action_space, [column.dtype for column in self._action_columns])

    def _text(self, name: str) -> str:
        value = self.attributes[name]
        if not isinstance(value, str):
            raise DamagedError(f"{self.path}: attribute {name} is no text")
        return value

    def _dataset(self, name: str, dtype: np.dtype[Any] | None = None) -> h5py.Dataset:
        group = self._file
        for part in name.split("/"):
            link = group.get(part, getlink=True)
            if not isinstance(link, h5py.HardLink):
                raise DamagedError(f"{self.path}: {name} is missing, or is a link to somewhere else")
            group = group[part]
        if not isinstance(group, h5py.Dataset) or group.is_virtual or group.external:
            raise DamagedError(f"{self.path}: {name} is no plain dataset")
        if group.dtype.hasobject or (dtype is not None and group.dtype != dtype) or len(group.shape) < 1:
            raise DamagedError(f"{self.path}: {name} has dtype {group.dtype}, expected {dtype or 'numbers'}")
        return group

    def close(self) -> None:
        """Closes the file."""
        with contextlib.suppress(Exception):  # HDF5 on a damaged file: there is nothing left to lose
            self._file.close()

    # ---- what is there

    def status(self) -> Status:
        """Reads who writes it and until when; a writer that can't be read counts as dead."""
        slot = self._latest(self._status)
        if slot is None:
            return Status(Process("", 0, "", 0), 0, closed=False)
        host, boot = bytes(slot["host"]).decode("utf-8", "replace"), bytes(slot["boot"]).decode("utf-8", "replace")
        writer = Process(host, int(slot["pid"]), boot, int(slot["started"]))
        return Status(writer, int(slot["heartbeat"]), bool(slot["closed"]))

    def open_episode(self) -> np.void | None:
        """Reads the row of the episode that runs, or ran when the writer was killed."""
        slot = self._latest(self._open_slots)
        if slot is None or not slot["used"]:
            return None
        row: np.void = slot["row"]
        return row if _sound(row) else None

    def _latest(self, dataset: h5py.Dataset) -> np.void | None:
        """Returns the sound slot with the highest number; a reader may catch a slot half written."""
        for attempt in range(_RETRIES):
            with self._guarded():
                dataset.id.refresh()
                slots = dataset[:2]
            sound = [slot for slot in slots if _sound(slot)]
            if len(sound) == len(slots) or (sound and attempt == _RETRIES - 1):
                return max(sound, key=lambda slot: int(slot["sequence"]))
            sound = [slot for slot in sound if slot["sequence"]]
            if sound and not all(slot["sequence"] for slot in slots):
                return sound[0]  # its first commit: the other slot was never written
            time.sleep(0.001)
        return None

    def new_rows(self) -> Iterator[tuple[int, Array]]:
        """Yields what has been committed since the last call, in slices: the first row's number, and the rows.

        Rows whose CRC fails are left out, and counted in `damaged`.
        """
        with self._guarded():
            self._episodes.id.refresh()
            end = self._episodes.shape[0]
        while self.rows_seen < end:
            first = self.rows_seen
            with self._guarded():
                rows = self._episodes[first : min(end, first + _SLICE)]
            self.rows_seen += len(rows)
            yield first, rows

    def row(self, number: int) -> np.void:
        """Reads one row of the episodes table.

        Raises:
            DamagedError: its CRC fails.
        """
        with self._guarded():
            row: np.void = self._episodes[number]
        if not _sound(row):
            raise DamagedError(f"{self.path}: row {number} of the episodes is damaged")
        return row

    # ---- what an episode holds

    def rewards(self, row: np.void) -> Array:
        """Reads an episode's rewards, float64, shape (length,)."""
        index = len(self._action_columns)
        return self._column(index, row)[: int(row["length"])]

    def durations(self, row: np.void) -> Array | None:
        """Reads how long each step took, in seconds, float32, shape (length,); None if that was not logged."""
        if "duration" not in self.columns:
            return None
        return self._column(self.columns.index("duration"), row)[: int(row["length"])]

    def actions(self, row: np.void, space: Any = None) -> list[Any]:
        """Reads an episode's actions in the types they were given; the one that raised is the last.

        Args:
            row: of the episodes table.
            space: the env's action space, for a log that couldn't keep it.
        """
        codec = self._codec or ActionCodec(space, [column.dtype for column in self._action_columns])
        columns = [self._column(index, row) for index in range(len(self._action_columns))]
        leaves: list[Any] = [
            [self.blob(ref) for ref in column] if leaf.is_json else column
            for leaf, column in zip(codec.leaves, columns, strict=True)
        ]
        first, end = int(row["first_step"]), int(row["first_step"]) + int(row["n_actions"])
        found: list[Any] = []
        try:
            for start, stop, kind in self._kind_runs(int(row["kind"]), first, end):
                found += [
                    codec.restore(kind, [leaf[step - first] for leaf in leaves]) for step in range(start, stop)
                ]
        except ValueError as error:
            raise DamagedError(f"{self.path}: {error}") from error
        return found

    def _kind_runs(self, at: int, first: int, end: int) -> Iterator[tuple[int, int, str]]:
        with self._guarded():
            self._kinds.id.refresh()
            count = self._kinds.shape[0]
        if first >= end:
            return
        start, kind = first, ""
        while at < count:
            with self._guarded():
                rows = self._kinds[at : at + layout.SIDE_CHUNK]
            for row in rows:
                if not _sound(row):
                    raise DamagedError(f"{self.path}: the kinds of its actions are damaged")
                step = int(row["step"])
                if step >= end:
                    break
                if step > start:
                    yield start, step, kind
                    start = step
                kind = self.blob(row["kind"]).decode("utf-8", "replace")
            else:
                at += len(rows)
                continue
            break
        if not kind:
            raise DamagedError(f"{self.path}: the kinds of its actions are missing")
        yield start, end, kind

    def fingerprints(self, row: np.void) -> dict[int, int]:
        """Reads an episode's observation checksums by step."""
        first, count = int(row["first_fingerprint"]), int(row["n_fingerprints"])
        found = self._range(self._fingerprints, first, count, "fingerprints")
        if crc32(found.tobytes()) != int(row["column_crcs"][-1]):
            raise DamagedError(f"{self.path}: the fingerprints of an episode are damaged")
        return dict(zip(found["step"].tolist(), found["checksum"].tolist(), strict=True))

    def states(self, row: np.void) -> list[tuple[int, StateKind, bytes]]:
        """Reads an episode's RNG states and snapshots: step, kind, bytes."""
        rows = self._range(self._states, int(row["first_state"]), int(row["n_states"]), "states")
        found = []
        for state in rows:
            if not _sound(state):
                raise DamagedError(f"{self.path}: a state that an episode starts from is damaged")
            with contextlib.suppress(ValueError):  # a kind that a later version added
                found.append((int(state["step"]), StateKind(state["kind"]), self.blob(state["data"])))
        return found

    def details(self, row: np.void) -> dict[str, Any]:
        """Reads an episode's reset options, error, and seed beyond int64."""
        if not row["details"]["length"]:
            return {}
        try:
            found = jsontags.loads(self.blob(row["details"]))
        except ValueError as error:
            raise DamagedError(f"{self.path}: the details of an episode are damaged: {error}") from error
        return found if isinstance(found, dict) else {}

    def label(self, row: np.void) -> str:
        """Reads an episode's label."""
        return self.blob(row["label"]).decode("utf-8", "replace")

    def blob(self, ref: np.void) -> bytes:
        """Reads what a heap reference points to.

        Raises:
            DamagedError: it lies outside the heap, or its CRC fails.
        """
        offset, length = int(ref["offset"]), int(ref["length"])
        if length == 0:
            return b""
        if length > _MAX_BLOB:
            raise DamagedError(f"{self.path}: a heap reference of {length} bytes")
        data = self._range(self._heap, offset, length, "heap").tobytes()
        if crc32(data) != int(ref["crc"]):
            raise DamagedError(f"{self.path}: bytes {offset} to {offset + length} of the heap are damaged")
        return data

    def _column(self, index: int, row: np.void) -> Array:
        first, count = int(row["first_step"]), int(row["n_actions"])
        found = self._range(self._columns[index], first, count, self.columns[index])
        if crc32(np.ascontiguousarray(found).tobytes()) != int(row["column_crcs"][index]):
            raise DamagedError(
                f"{self.path}: the steps {first} to {first + count} of {self.columns[index]} are damaged"
            )
        return found

    def _range(self, dataset: h5py.Dataset, first: int, count: int, what: str) -> Array:
        with self._guarded():
            end = first + count
            if end > dataset.shape[0]:
                dataset.id.refresh()
            if end > dataset.shape[0]:
                raise DamagedError(f"{self.path}: {what} [{first}, {end}) lie beyond its end, {dataset.shape[0]}")
            found: Array = dataset[first:end]
            return found

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        """Turns what HDF5 raises into one clear line."""
        try:
            yield
        except DamagedError:
            raise
        except (OSError, RuntimeError, ValueError, KeyError) as error:
            raise DamagedError(f"{self.path} is damaged: {_first_line(error)}") from error


def sound_rows(rows: Array) -> Array:
    """Returns which rows' CRCs hold, bool, shape (len(rows),)."""
    data, width = memoryview(rows.tobytes()), rows.dtype.itemsize
    expected = rows["crc"].tolist()
    return np.fromiter(
        (crc32(data[at : at + width - 4]) == crc for at, crc in zip(range(0, len(data), width), expected, strict=True)),
        np.bool_,
        len(rows),
    )


def _sound(row: np.void) -> bool:
    return crc32(row.tobytes()[:-4]) == int(row["crc"])


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]


def _open(path: Path) -> h5py.File:
    try:
        return h5py.File(path, "r", locking=False)
    except OSError as error:
        if "already open for" not in str(error):
            raise DamagedError(f"{path} can't be read as HDF5: {_first_line(error)}") from error
    try:
        probe = subprocess.run(  # noqa: S603  # our own interpreter, on our own code
            [sys.executable, "-I", "-c", _PROBE, str(path)],
            capture_output=True,
            timeout=PROBE_S,
            check=False,
            text=True,
        )
    except subprocess.TimeoutExpired as error:
        raise DamagedError(f"{path} was not closed and is damaged: HDF5 did not open it in {PROBE_S:.0f} s") from error
    if probe.returncode:
        said = (probe.stderr.strip().splitlines() or [f"HDF5 ended with {probe.returncode}"])[-1]
        raise DamagedError(f"{path} was not closed and is damaged: {said}")
    try:
        return h5py.File(path, "r", swmr=True, locking=False)
    except OSError:
        try:  # its writer closed it in between
            return h5py.File(path, "r", locking=False)
        except OSError as error:
            raise DamagedError(f"{path} can't be read as HDF5: {_first_line(error)}") from error
