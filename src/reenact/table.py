"""One segment's episodes as columns: what all selections need, and no row of the file itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from reenact import layout
from reenact.layout import Ended, Kept

if TYPE_CHECKING:
    from reenact.reader import SegmentReader
    from reenact.slots import Running, Status

Array = np.ndarray[Any, Any]

_MOST = (1 << 32) - 1
"""The greatest index that a row can hold."""

FIELDS: dict[str, str] = {
    "length": "u4",
    "seed": "i8",
    "ended": "u1",
    "return": "f8",
    "elapsed": "f8",
    "end_time": "i8",
    "lane": "i4",
}
"""The columns kept, as in `episodes`."""


def indices(rows: Array, sound: Array, before: int) -> tuple[Array, Array, int]:
    """Returns which rows of `episodes` are episodes', not of resets without a step; their indices; and the next index.

    Sound rows hold theirs: damaged ones move no address. (The first segments' don't, and count on what damaged rows
    most likely were.)

    Args:
        rows: as they lie in the table.
        sound: which of them are sound.
        before: the index that the first one has, if it is an episode's.
    """
    if "index" in rows.dtype.names and len(rows) and sound.all():
        numbered = rows["ended"] != Ended.NOTHING
        return numbered, rows["index"].astype(np.int64), int(rows["index"][-1]) + int(numbered[-1])
    numbered = _numbered(rows, sound)
    count = np.cumsum(numbered)
    start = np.full(len(rows), before, np.int64)
    if "index" in rows.dtype.names and sound.any():
        last = np.maximum.accumulate(np.where(sound, np.arange(len(rows)), -1))
        known = rows["index"].astype(np.int64) + numbered - count
        start = np.where(last >= 0, known[last], before)
    return numbered, start + count - 1, int(start[-1] + count[-1]) if len(rows) else before


def _numbered(rows: Array, sound: Array) -> Array:
    """Returns which rows are episodes'.

    Of a damaged one, two of the fields that are 0 for resets without a step alone must say so: one may be what is
    damaged, or all those at one end of the row. A zeroed row was most likely an episode: few resets are without a step.
    """
    signs = (rows["ended"] != Ended.NOTHING).astype(np.int64) + (rows["length"] > 0) + (rows["n_actions"] > 0)
    signs += np.count_nonzero(rows["column_crcs"][:, :-1], axis=1)
    found: Array = np.where(sound, rows["ended"] != Ended.NOTHING, (signs > 1) | (rows["end_time"] == 0))
    return found


class Table:
    """The episodes of one segment.

    Attributes:
        number: the segment's.
        reader: reads what they hold.
        status: who writes it, and until when, as of the last refresh.
        alive: whether more may come, as of the last refresh.
        live: the rows of the episodes that run: one, or one a lane.
        interrupted: the rows of those that ran when the writer was killed.
    """

    def __init__(self, reader: SegmentReader) -> None:
        self.number, self.reader = reader.number, reader
        self._damaged_rows, self._ends_damaged, self._lost_last = 0, False, False
        self._unsure, self._damaged_below = False, 0  # above all damaged rows that others follow, an index
        self._columns = {name: np.zeros(0, dtype) for name, dtype in FIELDS.items()}
        self._columns |= {"row": np.zeros(0, np.int64), "index": np.zeros(0, np.int64)}
        if reader.partial:
            self._columns["kept"] = np.zeros(0, np.uint8)
        if reader.info_keywords:
            self._columns["info"] = np.zeros((0, len(reader.info_keywords)))
        self._labels: dict[int, str] = {}
        self._unread: list[tuple[Array, Array]] = []  # places of labels, and their references
        self._count = 0
        self._next_index = self._least_index = self._end_of_rows = self._last_end_time = 0
        self._lane_ends = np.zeros(reader.header.width, np.uint64)
        self._finished = False
        self._succeeded = self._taken_over = False
        self.status = reader.slots.status()
        self.alive = self.status.live
        self.interrupted: list[np.void] = []
        self.live: list[np.void] = []

    @property
    def damaged(self) -> int:
        """How many episodes were left out because their CRC failed, the one that runs or ran at a kill among them."""
        return self._damaged_rows + self._lost_last

    def refresh(self) -> bool:
        """Takes in what has been committed since; returns whether anything of it is new."""
        if self._finished:
            return False
        # Both before the rows: what is read later is at least as new, so a segment that is finished (or whose
        # writer is dead) now gives all its rows below.
        finished, status = self.reader.slots.finished(), self.reader.slots.status()
        alive = status.live and not self._succeeded
        if not alive:  # it may have committed once more before it died: what it says now is its last word
            status = self.reader.slots.status()
        before = (self.status, self.alive, [row.tobytes() for row in self.interrupted])
        fresh = self._take_rows()
        self.live, self.interrupted = [], []
        running = self.reader.slots.running()
        found = [] if status.closed or self._taken_over else self._still_open(running)
        if alive:
            self.live = found
        elif status.writer.pid:  # else nobody knows whether they run
            self.interrupted = [row.copy() for row in found if row["length"]]
            self._settle(status.heartbeat, running.ended)
        self._lost_last = not (status.closed or self._taken_over) and self._has_lost_last(status, alive=alive)
        self.status, self.alive, self._finished = status, alive, finished
        return fresh or before != (status, alive, [row.tobytes() for row in self.interrupted])

    def _has_lost_last(self, status: Status, *, alive: bool) -> bool:
        """Whether something that was said of the episodes that run, or ran, is lost."""
        slots = self.reader.slots
        if self._unsure:
            return True
        if not status.writer.pid:
            return not self.interrupted
        if alive:
            return slots.lost_open(alive=True)
        if self.reader.header.autoreset and self.interrupted:  # of the other slot, which did not know all lanes' last
            return slots.torn(layout.OPEN)
        return not self.interrupted and slots.lost_open(alive=False)

    def _still_open(self, running: Running) -> list[np.void]:
        """Returns those of a slot's episodes that are not among the rows: the slot may be older than these.

        Where rows that are newer than a vector env's slot are damaged, nobody knows which of its episodes they were.
        """
        self._unsure = False
        if self.reader.header.autoreset:
            newer_damaged = self._ends_damaged or self._damaged_below > running.ended
            self._unsure = newer_damaged and running.steps < self.reader.count(layout.REWARD)
            if self._unsure:
                return []
            lanes = range(len(self._lane_ends))
            return [
                row
                for row in running.rows
                if row["lane"] in lanes and int(row["first_step"]) >= self._lane_ends[row["lane"]]
            ]
        # a damaged last row can't tell whether it is
        return [row for row in running.rows if int(row["first_step"]) >= self._end_of_rows and not self._ends_damaged]

    def _settle(self, heartbeat: int, ended_then: int) -> None:
        """The episodes that ran when the writer was killed ended at its last commit, which had seen so many end."""
        # damaged rows at the end may have been of resets without a step: what the slot says is no guess
        ended = self._least_index if self._ends_damaged else self._next_index
        later = max(0, ended - ended_then) if self.reader.header.autoreset else 0  # the slot may be older than rows
        if any(int(row["index"]) + later > _MOST for row in self.interrupted if later):
            self.interrupted, self._unsure = [], True  # no writer gives such ones
        for row in self.interrupted:
            row["end_time"] = max(int(row["end_time"]), heartbeat)  # a damaged slot may have that of the one before
            if self.reader.header.autoreset:
                row["end_time"] = max(int(row["end_time"]), self._last_end_time)
                row["index"] += later

    @property
    def committed(self) -> bool:
        """Whether anything has been committed since it was made; rows are seen before the commit's time."""
        seen = self.reader.rows_seen > 0 or bool(self.live or self.interrupted)
        return seen or self.status.committed

    def give_way(self, *, taken_over: bool) -> bool:
        """The recorder has gone on in another segment; returns whether anything is new because of it.

        Args:
            taken_over: whether that one has the episode that was running.
        """
        if self._succeeded:
            return False
        self._succeeded, self._taken_over = True, taken_over
        return self.refresh()

    def _take_rows(self) -> bool:
        """Takes in the rows that are new; returns whether there are any."""
        before = self.reader.rows_seen
        for first, rows in self.reader.new_rows():
            sound, kept = self.reader.sound(rows), self.reader.kept(first, len(rows))
            self._damaged_rows += int((~sound & (kept != Kept.LOST)).sum())
            numbered, index, self._next_index = indices(rows, sound, self._next_index)
            keep = np.flatnonzero(sound & numbered)
            # nearly always all of them, which are copied at a fraction of the price
            those: Array | slice = keep if len(keep) < len(rows) else slice(None)
            at, end = self._count, self._count + len(keep)
            self._make_room(end + self.reader.rows_ahead)
            for name, column in self._columns.items():
                if name in rows.dtype.names:
                    column[at:end] = rows[name][those]
            self._columns["row"][at:end] = first + keep
            self._columns["index"][at:end] = index[those]
            if "kept" in self._columns:
                self._columns["kept"][at:end] = kept[those]
            refs = rows["label"][those]
            marked = np.flatnonzero(refs["length"])
            if len(marked):
                self._unread.append((at + marked, refs[marked]))
            self._count = end
            damaged = np.flatnonzero(~sound)
            after = int(damaged[-1]) + 1 if len(damaged) else 0
            if (len(damaged) or self._ends_damaged) and after < len(rows) and "index" in rows.dtype.names:
                self._damaged_below = int(rows["index"][after])
            self._ends_damaged = not sound[-1]
            if self.reader.header.autoreset:
                mine = rows[sound & (rows["lane"] >= 0) & (rows["lane"] < len(self._lane_ends))]
                # of each lane the last one's stands
                self._lane_ends[mine["lane"]] = mine["first_step"] + mine["n_actions"] * np.uint64(
                    self.reader.header.width
                )
            last = np.flatnonzero(sound)[-1:]
            if len(last):
                row = rows[last[0]]
                self._last_end_time = int(row["end_time"])
                self._least_index = int(index[last[0]]) + int(numbered[last[0]])
                self._end_of_rows = int(row["first_step"]) + int(row["n_actions"])
        return self.reader.rows_seen > before

    def _make_room(self, count: int) -> None:
        """Lets the columns grow, one more row than needed: the episode that ran when the writer was killed."""
        for name, column in self._columns.items():
            if len(column) <= count:
                self._columns[name] = np.empty((max(count + 1, len(column) * 5 // 4), *column.shape[1:]), column.dtype)
                self._columns[name][: self._count] = column[: self._count]

    def columns(self) -> dict[str, Array]:
        """Returns the columns, one entry an episode, in the segment's order; killed ones are the last, up to row -1.

        Beside FIELDS they are `row` and `index`; `kept`, where not all are; and `info`, where there are any keywords.
        """
        count = self._count
        if self.interrupted:
            self._make_room(count + len(self.interrupted))
        for at, row in enumerate(self.interrupted, -len(self.interrupted)):
            last = {name: row[name] for name in FIELDS}
            last |= {"row": at, "index": self._index_of(row), "kept": Kept.PICKED, "info": np.nan}
            for name, column in self._columns.items():
                column[count] = last[name]
            count += 1
        return {name: column[:count] for name, column in self._columns.items()}

    def labels(self) -> dict[int, str]:
        """Reads the labels, by place in the columns; most episodes have none.

        One that is damaged stays away: reading the episode's own says so.
        """
        for places, refs in self._unread:
            read = zip(places.tolist(), self.reader.labels(refs), strict=True)
            self._labels |= {place: label for place, label in read if label is not None}
        self._unread.clear()
        labels = dict(self._labels) if self.interrupted else self._labels
        for place, row in enumerate(self.interrupted, self._count):
            (label,) = self.reader.labels(row["label"].reshape(1)) if row["label"]["length"] else (None,)
            if label is not None:
                labels[place] = label
        return labels

    def _index_of(self, row: np.void) -> int:
        return int(row["index"]) if "index" in (row.dtype.names or ()) else self._next_index

    def row(self, row: int) -> np.void:
        """Reads a row of `episodes`; those below 0 are of the episodes that ran when the writer was killed.

        Raises:
            DamagedError: its CRC fails.
        """
        return self.reader.row(row) if row >= 0 else self.interrupted[row]
