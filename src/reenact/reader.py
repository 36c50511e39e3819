"""One segment, read as data that may be damaged, hostile, or still being written.

Nothing is used before it is checked: rows and columns have CRCs, a heap reference must lie in the heap,
and what HDF5 itself can be made to do is fenced off by the room below, `hdf5`.
"""

from __future__ import annotations

import functools
import json
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple
from zlib import crc32

import numpy as np

from reenact import jsontags, layout
from reenact.codec import ActionCodec, leaves_of
from reenact.episode import ResetOptions, Unloggable
from reenact.errors import DamagedError, ReplayError
from reenact.hdf5 import Hdf5File, first_line, is_marked
from reenact.layout import Kept, StateKind
from reenact.process import Process, this_process

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_SLICE = 16384
_MAX_BLOB = 1 << 28
_ACTS, _STEPS, _HEAP_SPAN = 512, 16384, 1 << 24
"""Of the blocks that `acts` reads: resets, steps (unless one episode has more), bytes of the heap."""
_GROUP = re.compile(r"segment-(\d{5,9})")
_STATE_KINDS = {kind.value: kind for kind in StateKind}
Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Status:
    """Who writes the segment, and until when.

    Attributes:
        writer: the process.
        heartbeat: ns since 1970 of the last commit.
        closed: whether it was closed cleanly.
        committed: whether anything has been committed since it was made.
    """

    writer: Process
    heartbeat: int
    closed: bool
    committed: bool

    @property
    def live(self) -> bool:
        """Whether more may come."""
        return not self.closed and self.writer.is_alive(self.heartbeat)


class Act(NamedTuple):
    """One reset, and all that was done until the next one: enough to do it again.

    Attributes:
        seed: what the reset was given.
        states: taken before it: step, kind, bytes.
        options: what it was given.
        actions: of its episode; the one that raised is the last.
        trailing: steps after the episode's end.
        errored: whether the env raised.
    """

    seed: int | None
    states: list[tuple[int, StateKind, bytes]]
    options: ResetOptions | Unloggable | None
    actions: list[Any]
    trailing: list[Any]
    errored: bool


class SegmentReader:
    """An open segment.

    Args:
        path: the file.
        group: of a packed file, where in it the segment lies.
        why_left: of a packed file, why episodes are not in it.
        tried: what `probe.try_all` has just said of the file, if it has been tried.

    Attributes:
        number: the segment's, in the run.
        attributes: of the file: format, run, recipe, versions …
        columns: the names of the columns of `steps`, actions first.
        info_keywords: the names of the values in `info`.
        action_space: the env's; None where the log couldn't keep it.
        row_dtype: of a row of `episodes`.
        partial: whether it is a copy that does not hold all episodes' steps.
        rows_seen: how many rows of `episodes` `new_rows` has given.

    Raises:
        DamagedError: it isn't there, is no segment, or can't be read.
    """

    def __init__(self, path: Path, group: str = "", *, why_left: str = "", tried: str | None = None) -> None:
        if not is_file(path):
            raise DamagedError(f"{path} is no file that can be read")
        self.path, self.group, self._why_left = path, group, why_left
        self._file = Hdf5File(path, group, tried=tried)
        self.partial = False
        self.rows_seen = 0
        try:
            self._read_header()
            named = layout.segment_number(
                f"{group}.h5" if group else path.name
            )  # the first segments said it no other way
            self.number = int(self.attributes.get("segment", named or 0))
            if not self.finished() and self.status().writer == this_process():
                self._file.share()
        except BaseException:
            self.close()
            raise

    def _read_header(self) -> None:
        try:
            attributes = self._file.attributes()
            if attributes["format"] != layout.FORMAT:
                raise KeyError("format")  # noqa: TRY301  # one way out for all that is wrong with a header
            version = int(attributes["version"])
        except (KeyError, ValueError, TypeError) as error:
            raise DamagedError(f"{self.path} is an HDF5 file, but not a segment that reenact wrote") from error
        if version > layout.VERSION:
            raise DamagedError(
                f"{self.path} has format version {version}, this reenact reads up to {layout.VERSION}: update reenact"
            )
        try:
            self.attributes: dict[str, str | int] = {
                name: value if isinstance(value, str) else int(value) for name, value in attributes.items()
            }
            for name in ("run", "recipe", "signature"):
                self._text(name)
            int(self.attributes.get("predecessor", -1))
            self.columns = self._names("columns")
            self.info_keywords = tuple(self._names("info_keywords"))
            self.action_space = jsontags.loads(self._text("action_space"))
            self._add_datasets()
            self._n_actions = sum(name.startswith("action/") for name in self.columns)
            if self.columns[self._n_actions : self._n_actions + 1] != ["reward"]:
                raise DamagedError(f"{self.path}: the columns {self.columns} are not actions, then the reward")
            self._codec = self._make_codec(self.action_space) if self.action_space is not None else None
        except (KeyError, ValueError, TypeError, OverflowError, MemoryError) as error:
            if isinstance(error, DamagedError):
                raise
            raise DamagedError(f"{self.path} is damaged: {first_line(error)}") from error

    def _add_datasets(self) -> None:
        self._file.add(layout.EPISODES)
        self._indexed = "index" in (self._file.dtype(layout.EPISODES).names or ())
        self._home = layout.home(self._text("run"), int(self.attributes.get("segment", -1)))
        self.row_dtype = layout.episode_row(len(self.columns), self.info_keywords, indexed=self._indexed)
        for name, dtype in (
            (layout.EPISODES, self.row_dtype),
            (layout.OPEN, layout.open_row(self.row_dtype)),
            (layout.STATUS, layout.STATUS_ROW),
        ):
            self._file.add(name, dtype)
        self.partial = layout.KEPT in self._file.names()
        if self.partial:
            self._file.add(layout.KEPT, np.dtype("u1"))
        for name, dtype in (
            (layout.FINGERPRINTS, layout.FINGERPRINT_ROW),
            (layout.KINDS, layout.KIND_ROW),
            (layout.STATES, layout.STATE_ROW),
            (layout.HEAP, np.dtype("u1")),
            (layout.REWARD, np.dtype("<f8")),
        ):
            self._file.add(name, dtype, sparse=self.partial)
        for name in self.columns:
            self._file.add(f"steps/{name}", sparse=self.partial)

    def _make_codec(self, space: Any) -> ActionCodec:
        leaves, names = leaves_of(space), self.columns[: self._n_actions]
        expected = ["action/" + leaf.path.replace("/", ".") for leaf in leaves]
        if names != expected:
            raise DamagedError(f"{self.path}: columns {names} for the action space's {expected}")
        dtypes = [self._file.dtype(f"steps/{name}") for name in names]
        for leaf, name, dtype in zip(leaves, names, dtypes, strict=True):
            plain = dtype.kind in "biuf"
            if self._file.row_shape(f"steps/{name}") != leaf.shape or (
                dtype != layout.REF if leaf.is_json else not plain
            ):
                raise DamagedError(f"{self.path}: the column {name} does not fit the action space")
        return ActionCodec(space, dtypes)

    def _text(self, name: str) -> str:
        value = self.attributes[name]
        if not isinstance(value, str):
            raise DamagedError(f"{self.path}: attribute {name} is no text")
        return value

    def _names(self, attribute: str) -> list[str]:
        found = json.loads(self._text(attribute))
        if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
            raise DamagedError(f"{self.path}: attribute {attribute} is no list of names")
        return found

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    # ---- what is there

    def status(self) -> Status:
        """Reads who writes it and until when; a writer that can't be read counts as dead.

        A kill leaves the writer's mark: a damaged slot in a file without one was damaged after it was closed.
        """
        slot = self._latest(layout.STATUS)
        closed = (slot is None or self.torn(layout.STATUS)) and not self._file.marked()
        if slot is None:
            return Status(Process("", 0, "", 0), 0, closed=closed, committed=False)
        host, boot = (
            bytes(slot["host"]).decode("utf-8", "replace"),
            bytes(slot["boot"]).decode("utf-8", "replace"),
        )
        writer = Process(host, int(slot["pid"]), boot, int(slot["started"]))
        committed = int(slot["sequence"]) > 0
        return Status(writer, int(slot["heartbeat"]), closed or bool(slot["closed"]), committed)

    def closed_status(self) -> Array:
        """Returns the two slots of `status` as if the writer had closed the segment at its last commit."""
        slot = self._latest(layout.STATUS)
        slots = np.zeros(2, layout.STATUS_ROW)
        if slot is not None:
            slots[0] = slot
        slots[0]["sequence"], slots[0]["closed"] = 2, 1
        layout.seal(slots[0])
        return slots

    def finished(self) -> bool:
        """Whether nothing can come any more: the writer said so, and HDF5 has brought all of it to the disk.

        What a commit writes becomes visible in any order, so `closed` alone may be seen before its last rows.
        """
        return not self._file.marked() and self.status().closed

    def kept(self, first: int, count: int) -> Array:
        """Reads what there is of the episodes of rows [first, first + count): Kept, uint8.

        Raises:
            DamagedError: it can't be read.
        """
        if not self.partial:
            return np.full(count, Kept.PICKED, np.uint8)
        return self._file.read(layout.KEPT, first, count)

    def check_kept(self, code: int, what: str) -> None:
        """Makes sure that a copy holds the steps of an episode.

        Args:
            code: a Kept.
            what: how the message calls it.

        Raises:
            ReplayError: it was left out.
            DamagedError: it was damaged when the copy was made.
        """
        if code == Kept.LOST:
            raise DamagedError(f"{what} was damaged when {self.path} was made from the run, and is lost")
        if code not in (Kept.PICKED, Kept.NEEDED):
            raise ReplayError(f"the steps of {what} are not in {self.path}: {self._why_left or 'they were left out'}")

    def open_episode(self) -> np.void | None:
        """Reads the row of the episode that runs, or ran when the writer was killed."""
        slot = self._latest(layout.OPEN)
        if slot is None or not slot["used"]:
            return None
        row: np.void = slot["row"]
        return row if self.sound(np.array([row]))[0] else None

    def _latest(self, name: str) -> np.void | None:
        """Returns the slot that was written last; None if none is sound.

        The writer never touches the slot before: where a reader catches the later one half written, or a
        kill left it so, its CRC fails, and the earlier one stands.
        """
        sound = [slot for slot in self._file.read_afresh(name)[:2] if _sound(slot)]
        return max(sound, key=lambda slot: int(slot["sequence"]), default=None)

    def torn(self, name: str) -> bool:
        """Whether a slot holds something, and is not sound."""
        return any(not _sound(slot) and any(slot.tobytes()) for slot in self._file.read_afresh(name)[:2])

    def lost_open(self, *, alive: bool) -> bool:
        """Whether what was said of the episode that runs, or ran, is damaged; each commit says something.

        Args:
            alive: whether it is still written: then one slot may be caught half written, and never both.
        """
        none = self._latest(layout.OPEN) is None
        if alive:
            return none and all(
                slot.any() for slot in self._file.read_afresh(layout.OPEN)[:2].view(np.uint8).reshape(2, -1)
            )
        return self.torn(layout.OPEN) or (none and self.status().committed)

    def new_rows(self) -> Iterator[tuple[int, Array]]:
        """Yields what has been committed since the last call, in slices: the first row's number, and the rows.

        They are not checked: see `sound`.
        """
        end = self._file.count(layout.EPISODES)
        while self.rows_seen < end:
            first = self.rows_seen
            rows = self.table_rows(first, min(end - first, _SLICE))
            self.rows_seen += len(rows)
            yield first, rows

    def table_rows(self, first: int, count: int) -> Array:
        """Reads rows of the episodes table; zeros, whose CRCs fail, where a chunk is damaged beyond reading."""
        return self.read_or_zeros(layout.EPISODES, first, count)

    def sound(self, rows: Array) -> Array:
        """Returns which rows of `episodes` are as they were written, and of this segment: bool, shape (len(rows),)."""
        sound = sound_rows(rows)
        return sound & (rows["home"] == self._home) if self._indexed else sound

    def row(self, number: int) -> np.void:
        """Reads one row of the episodes table.

        Raises:
            DamagedError: its CRC fails.
        """
        return next(self.rows(number, number + 1))

    def rows(self, first: int, end: int) -> Iterator[np.void]:
        """Reads rows [first, end) of the episodes table, a slice at a time.

        Raises:
            DamagedError: a CRC fails.
        """
        for start in range(first, end, _SLICE):
            rows = self._file.read(layout.EPISODES, start, min(end - start, _SLICE))
            for number, (row, sound) in enumerate(zip(rows, self.sound(rows), strict=True), start):
                if not sound:
                    raise DamagedError(f"{self.path}: row {number} of the episodes is damaged")
                yield row

    def count(self, name: str) -> int:
        """Reads how many rows a dataset has by now."""
        return self._file.count(name)

    def read(self, name: str, first: int, count: int) -> Array:
        """Reads rows of a dataset as they are.

        Raises:
            DamagedError: they lie beyond its end, or can't be read.
        """
        return self._file.read(name, first, count)

    def read_or_zeros(self, name: str, first: int, count: int) -> Array:
        """Reads rows of a dataset; zeros where a chunk is damaged beyond reading, or missing."""
        try:
            return self._file.read(name, first, count)
        except DamagedError:
            pass
        chunk, end, parts = self._file.chunk(name), first + count, []
        while first < end:
            stop = min(end, (first // chunk + 1) * chunk)
            try:
                parts.append(self._file.read(name, first, stop - first))
            except DamagedError:
                parts.append(np.zeros((stop - first, *self._file.row_shape(name)), self._file.dtype(name)))
            first = stop
        return np.concatenate(parts)

    def check_size(self, name: str, rows: int) -> None:
        """Makes sure that the file could hold so many rows of a dataset.

        Raises:
            DamagedError: it couldn't.
        """
        self._file.check_size(name, rows)

    # ---- what an episode holds

    def rewards(self, row: np.void) -> Array:
        """Reads an episode's rewards, float64, shape (length,)."""
        return self._column(self._n_actions, row)[: int(row["length"])]

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
        columns = [self._column(index, row) for index in range(self._n_actions)]
        return self._actions(int(row["kind"]), int(row["first_step"]), columns, space)

    def _actions(self, kind_row: int, first: int, columns: list[Array], space: Any) -> list[Any]:
        """Puts the actions of the steps from `first` on together, of which the columns are given."""
        codec = self._codec or self._make_codec(space)
        leaves: list[Any] = [
            [self.blob(ref) for ref in column] if leaf.is_json else column
            for leaf, column in zip(codec.leaves, columns, strict=True)
        ]
        found: list[Any] = []
        try:
            for start, stop, kind in self.kind_runs(kind_row, first, first + len(columns[0])):
                part = [leaf[start - first : stop - first] for leaf in leaves]
                found += codec.restore_all(kind, part, stop - start)
        except DamagedError:
            raise
        except ValueError as error:
            raise DamagedError(f"{self.path}: {error}") from error
        return found

    def acts(self, first: int, end: int, space: Any = None) -> Iterator[Act]:
        """Reads resets [first, end) and what was done after each, in order, a block of steps at a time.

        Args:
            first: row of the episodes table.
            end: as above.
            space: the env's action space, for a log that couldn't keep it.

        Raises:
            DamagedError: a CRC fails.
        """
        rows_in_all = self._file.count(layout.EPISODES)
        end = min(end, rows_in_all)
        while first < end:
            count = min(end - first, _ACTS)
            # one row more says where the steps after the last one's end stop
            rows = self._file.read(layout.EPISODES, first, min(count + 1, rows_in_all - first))
            for at, code in enumerate(self.kept(first, count) if self.partial else (), first):
                self.check_kept(int(code), f"reset {at} of segment {self.number}")
            if not self.sound(rows).all():
                raise DamagedError(f"{self.path}: rows {first} to {first + len(rows)} of the episodes are damaged")
            starts = rows["first_step"].astype(np.int64).tolist()
            if len(rows) == count:
                starts.append(self.steps_end(rows[-1]))
            while count > 1 and starts[count] - starts[0] > _STEPS:
                count //= 2
            yield from self._block(rows[:count], starts[: count + 1], space)
            first += count

    def steps_end(self, row: np.void) -> int:
        """Returns where the steps after the last episode's end stop."""
        end = int(row["first_step"]) + int(row["n_actions"])
        slots = [slot["row"] for slot in self._file.read_afresh(layout.OPEN)[:2] if _sound(slot) and slot["used"]]
        # it runs, or ran when the writer was killed or went on in a segment with wider columns
        begun = [first for first in (int(slot["first_step"]) for slot in slots if _sound(slot)) if first >= end]
        if begun:
            return min(begun)
        steps = self._file.count(layout.REWARD) if self.finished() else end
        if steps > end and self.torn(layout.OPEN):
            raise DamagedError(f"{self.path}: what says where its last episode's steps end is damaged")
        return max(end, steps)

    def last_with(self, name: str, end: int) -> int | None:
        """Returns the last row before `end` of the episodes table whose reset has a seed, or a snapshot; or None."""
        table = layout.EPISODES if name == "seed" else layout.STATES
        stop = end if name == "seed" else self._file.count(table)
        while stop > 0:
            first = max(0, stop - _SLICE)
            rows = self._file.read(table, first, stop - first)
            if name == "seed":
                found = first + np.flatnonzero(rows["seed"] != layout.NO_SEED)
            else:
                found = rows["episode"][rows["kind"] == StateKind.SNAPSHOT].astype(np.int64)
                found = found[found < end]
            if len(found):
                return int(found[-1])
            stop = first
        return None

    def _block(self, rows: Array, starts: list[int], space: Any) -> Iterator[Act]:
        first = starts[0]
        names = [f"steps/{name}" for name in self.columns[: self._n_actions]]
        columns = [np.ascontiguousarray(self._file.read(name, first, starts[-1] - first)) for name in names]
        data = [
            memoryview(column.view(np.uint8).reshape(-1).data) if len(column) else memoryview(b"") for column in columns
        ]
        widths = [column.dtype.itemsize * math.prod(column.shape[1:]) for column in columns]
        actions = self._actions(int(rows[0]["kind"]), first, columns, space) if starts[-1] > first else []
        crcs = rows["column_crcs"].tolist()
        with_details = (rows["details"]["length"] > 0).tolist()
        first_state, states = self.states_of(rows)
        fields = [rows[name].tolist() for name in ("n_actions", "seed", "first_state", "n_states", "ended")]
        for at, (n_actions, seed, its_state, n_states, ended) in enumerate(zip(*fields, strict=True)):
            start = starts[at] - first
            stop = start + n_actions
            for view, width, crc in zip(data, widths, crcs[at], strict=False):
                if crc32(view[start * width : stop * width]) != crc:
                    raise DamagedError(f"{self.path}: the steps {starts[at]} to {starts[at] + n_actions} are damaged")
            details = self.details(rows[at]) if with_details[at] else {}
            mine = states[its_state - first_state : its_state - first_state + n_states] if n_states else []
            yield Act(
                details.get("seed") if seed == layout.NO_SEED else seed,
                mine,
                options_of(details),
                actions[start:stop],
                actions[stop : starts[at + 1] - first],
                ended == layout.Ended.ERRORED,
            )

    def states_of(self, rows: Array) -> tuple[int, list[tuple[int, StateKind, bytes]]]:
        """Reads the states of resets that lie side by side, their bytes in one go where these do too.

        Returns:
            The first one's row in `states`, and one entry a row.
        """
        with_states = rows[rows["n_states"] > 0]
        if not len(with_states):
            return 0, []
        first = int(with_states[0]["first_state"])
        last = with_states[-1]
        states = self._file.read(layout.STATES, first, int(last["first_state"]) + int(last["n_states"]) - first)
        if not len(states) or not sound_rows(states).all():
            raise DamagedError(f"{self.path}: states that episodes start from are damaged")
        refs = states["data"]
        offsets, lengths = refs["offset"].astype(np.int64), refs["length"].astype(np.int64)
        begin, span = int(offsets.min()), int((offsets + lengths).max() - offsets.min())
        heap = self._file.read(layout.HEAP, begin, span).tobytes() if 0 <= span <= _HEAP_SPAN else None
        found = []
        fields = (states["step"], states["kind"], offsets, lengths, refs["crc"])
        for at, (step, kind, offset, length, crc) in enumerate(zip(*(f.tolist() for f in fields), strict=True)):
            data = self.blob(refs[at]) if heap is None else heap[offset - begin : offset - begin + length]
            if crc32(data) != crc:
                raise DamagedError(f"{self.path}: a state that an episode starts from is damaged")
            found.append((step, _STATE_KINDS.get(kind, StateKind.UNKNOWN), data))
        return first, found

    def kind_runs(self, at: int, first: int, end: int) -> Iterator[tuple[int, int, str]]:
        """Yields in what kind the actions of steps [first, end) were given: first step, end, kind.

        Args:
            at: row of `kinds` to look from.
            first: row of the steps.
            end: as above.

        Raises:
            DamagedError: that is damaged.
        """
        if first >= end:
            return
        count = self._file.count(layout.KINDS)
        start, kind = first, ""
        while at < count:
            read = self._file.read(layout.KINDS, at, min(layout.SIDE_CHUNK, count - at))
            rows = read[read["kind"]["length"] > 0] if self.partial else read  # the others are holes
            for number, row in enumerate(rows, at):
                if not _sound(row):
                    if self._is_unwritten(number, count):
                        break
                    raise DamagedError(f"{self.path}: the kinds of its actions are damaged")
                step = int(row["step"])
                if step >= end:
                    break
                if step > start:
                    yield start, step, kind
                    start = step
                kind = self.blob(row["kind"]).decode("utf-8", "replace")
            else:
                at += len(read)
                continue
            break
        if not kind:
            raise DamagedError(f"{self.path}: the kinds of its actions are missing")
        yield start, end, kind

    def _is_unwritten(self, first: int, end: int) -> bool:
        """Whether kinds [first, end) are of a commit for whose steps there was no room: no row refers to them."""
        if self.finished():
            return False
        slices = range(first, end, layout.SIDE_CHUNK)
        return not any(
            any(self._file.read(layout.KINDS, at, min(layout.SIDE_CHUNK, end - at)).tobytes()) for at in slices
        )

    def fingerprints(self, row: np.void) -> dict[int, int]:
        """Reads an episode's observation checksums by step."""
        first, count = int(row["first_fingerprint"]), int(row["n_fingerprints"])
        found = self._file.read(layout.FINGERPRINTS, first, count)
        if crc32(found.tobytes()) != int(row["column_crcs"][-1]):
            raise DamagedError(f"{self.path}: the fingerprints of an episode are damaged")
        return dict(zip(found["step"].tolist(), found["checksum"].tolist(), strict=True))

    def states(self, row: np.void) -> list[tuple[int, StateKind, bytes]]:
        """Reads an episode's RNG states and snapshots: step, kind, bytes."""
        rows = self._file.read(layout.STATES, int(row["first_state"]), int(row["n_states"]))
        found = []
        for state in rows:
            if not _sound(state):
                raise DamagedError(f"{self.path}: a state that an episode starts from is damaged")
            kind = _STATE_KINDS.get(int(state["kind"]), StateKind.UNKNOWN)
            found.append((int(state["step"]), kind, self.blob(state["data"])))
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
        data = self._file.read(layout.HEAP, offset, length).tobytes()
        if crc32(data) != int(ref["crc"]):
            raise DamagedError(f"{self.path}: bytes {offset} to {offset + length} of the heap are damaged")
        return data

    def _column(self, index: int, row: np.void) -> Array:
        first, count = int(row["first_step"]), int(row["n_actions"])
        found = self._file.read(f"steps/{self.columns[index]}", first, count)
        if crc32(np.ascontiguousarray(found).tobytes()) != int(row["column_crcs"][index]):
            raise DamagedError(
                f"{self.path}: the steps {first} to {first + count} of {self.columns[index]} are damaged"
            )
        return found


@dataclass(frozen=True, slots=True)
class Pack:
    """A packed file's own attributes.

    Attributes:
        name: of the run that it was made from.
        groups: its segments' numbers, and where they lie in it.
        selection: what was asked for, as it was typed; "": everything.
    """

    name: str
    groups: dict[int, str]
    selection: str


def read_pack(path: Path) -> Pack | None:
    """Reads what a packed file says of itself; None if the file is none.

    Raises:
        DamagedError: it can't be read.
    """
    try:
        if is_marked(path):
            return None  # still being written, or its writer was killed: a segment
    except OSError as error:
        raise DamagedError(f"{path} can't be read: {error.strerror or error}") from error
    file = Hdf5File(path)
    try:
        attributes = file.attributes()
        if attributes.get("format") != layout.PACK_FORMAT:
            return None
        version = int(attributes["version"])
        if version > layout.VERSION:
            raise DamagedError(
                f"{path} has format version {version}, this reenact reads up to {layout.VERSION}: update reenact"
            )
        found = ((_GROUP.fullmatch(name), name) for name in file.names())
        groups = {int(match[1]): name for match, name in found if match}
        return Pack(str(attributes["name"]), groups, str(attributes.get("selection", "")))
    except (KeyError, ValueError, TypeError) as error:
        if isinstance(error, DamagedError):
            raise
        raise DamagedError(f"{path} is damaged: {first_line(error)}") from error
    finally:
        file.close()


def is_file(path: Path) -> bool:
    """Whether there is a file, and no FIFO, where opening would wait for ever."""
    try:
        return path.is_file()
    except OSError:  # a link to itself, a folder that may not be looked into
        return False


def options_of(details: dict[str, Any]) -> ResetOptions | Unloggable | None:
    """Returns the reset options among an episode's details."""
    if "unloggable" in details:
        return Unloggable(str(details["unloggable"]))
    found = details.get("options")
    return ResetOptions(found, str(details.get("seal", ""))) if isinstance(found, dict) else None


def sound_rows(rows: Array) -> Array:
    """Returns which rows' CRCs hold, bool, shape (len(rows),)."""
    data, width = memoryview(rows.tobytes()), rows.dtype.itemsize
    if crc32(data) == _crc_of_sound_rows(len(rows), width):  # at a fiftieth of the price of one after another
        return np.ones(len(rows), np.bool_)
    expected = rows["crc"].tolist()
    return np.fromiter(
        (crc32(data[at : at + width - 4]) == crc for at, crc in zip(range(0, len(data), width), expected, strict=True)),
        np.bool_,
        len(rows),
    )


@functools.lru_cache(maxsize=16)
def _crc_of_sound_rows(count: int, width: int) -> int:
    """Returns the CRC of so many sound rows, one after another: it is the same whatever they hold.

    What follows its own CRC leaves a CRC-32 in a state that depends on its length and on the state before alone.
    One damaged row changes the result always, several all but once in 2**32.
    """
    row = bytes(width - 4)
    return crc32((row + crc32(row).to_bytes(4, "little")) * count)


def _sound(row: np.void) -> bool:
    return crc32(row.tobytes()[:-4]) == int(row["crc"])
