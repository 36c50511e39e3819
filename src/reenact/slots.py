"""What a segment says beside its tables: who writes it, and which episode runs; each in two alternating slots."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from reenact import layout
from reenact.checksums import is_sound
from reenact.process import Process

if TYPE_CHECKING:
    from reenact.hdf5 import Hdf5File
    from reenact.header import Header

Array = np.ndarray[Any, Any]
_WRITE_S = 0.25
"""No longer does a writer take for a slot, whatever else the machine does."""


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


@dataclass(frozen=True, slots=True)
class Running:
    """The episodes that ran at a commit.

    Attributes:
        rows: theirs: one, or one a lane.
        ended: how many episodes of the segment had ended.
        steps: how many rows of steps it had.
    """

    rows: list[np.void]
    ended: int
    steps: int


class Slots:
    """The slots of one segment, read anew at each call."""

    def __init__(self, file: Hdf5File, header: Header) -> None:
        self._file, self._header = file, header
        self._stays = b""  # the slots of `open` as they were found damaged

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

    def finished(self) -> bool:
        """Whether nothing can come any more: the writer said so, and HDF5 has brought all of it to the disk.

        What a commit writes becomes visible in any order, so `closed` alone may be seen before its last rows.
        """
        return not self._file.marked() and self.status().closed

    def closed_status(self) -> Array:
        """Returns the two slots of `status` as if the writer had closed the segment at its last commit."""
        slot = self._latest(layout.STATUS)
        slots = np.zeros(2, layout.STATUS_ROW)
        if slot is not None:
            slots[0] = slot
        slots[0]["sequence"], slots[0]["closed"] = 2, 1
        layout.seal(slots[0])
        return slots

    def closed_open(self) -> Array:
        """Returns the two slots of `open` as if no episode ran; zeros for a damaged one."""
        slots: Array = np.zeros(2, layout.open_row(self._header.row_dtype, self._header.width))
        for at, slot in enumerate(self._sound(layout.OPEN)):
            slots[at] = slot
            slots[at]["used"] = 0
            layout.seal(slots[at])
        return slots

    def running(self) -> Running:
        """Reads what the last commit said of the episodes that run, or ran when the writer was killed."""
        slot = self._latest(layout.OPEN)
        if slot is None:
            return Running([], 0, 0)
        rows, used = np.atleast_1d(slot["row"]), np.atleast_1d(slot["used"]) != 0
        sound = self._header.sound(rows)
        # the first lane's index is how many had ended; the first segments of version 1 say nothing of lanes that rest,
        # and count those that run
        said = rows[sound]["index"].tolist() if self._header.home is not None else []
        ends = rows[sound]["first_step"] // self._header.width + rows[sound]["n_actions"]
        return Running(list(rows[sound & used]), said[0] if said else 0, int(ends.max(initial=0)) * self._header.width)

    def following(self, lane: int, end: int) -> tuple[np.void, bool] | None:
        """Reads what is said of a lane's reset after its last row of the table, and whether it has come; None: nothing.

        It is the one that runs, or ran when the writer was killed or went on in a segment with wider columns; where
        none had come, one that might have. The first segments of version 1 said nothing of the latter.

        Args:
            lane: -1: a single env's.
            end: the row of steps at which that last one's end.
        """
        for row, has_come in self.all_following():
            if lane in (-1, int(row["lane"])) and int(row["first_step"]) >= end:
                return row, has_come
        return None

    def all_following(self) -> list[tuple[np.void, bool]]:
        """Reads what is said of all lanes' resets, as `following` does: what was written last comes first."""
        found = []
        for slot in sorted(self._sound(layout.OPEN), key=lambda slot: -int(slot["sequence"])):
            rows, used = np.atleast_1d(slot["row"]), np.atleast_1d(slot["used"])
            found += [(rows[at], bool(used[at])) for at in np.flatnonzero(self._header.sound(rows))]
        return found

    def lost_open(self, *, alive: bool) -> bool:
        """Whether what was said of the episodes that run, or ran, is damaged; each commit says something.

        Args:
            alive: whether it is still written: then a slot may be half written, but not for long.
        """
        if not alive:
            return self.torn(layout.OPEN) or (self._latest(layout.OPEN) is None and self.status().committed)
        until = time.monotonic() + _WRITE_S
        while self.torn(layout.OPEN) or self._is_behind():
            said = self._file.read_afresh(layout.OPEN).tobytes()
            if said == self._stays or time.monotonic() > until:
                self._stays = said
                return True
            time.sleep(_WRITE_S / 20)
        return False

    def _is_behind(self) -> bool:
        """Whether what `open` says is older than the commit that `status` tells of."""
        newest = [self._latest(name) for name in (layout.STATUS, layout.OPEN)]
        commit, said = (-1 if slot is None else int(slot["sequence"]) for slot in newest)
        return said < commit > 0

    def _latest(self, name: str) -> np.void | None:
        """Returns the slot that was written last; None if none is sound.

        The writer never touches the slot before: where a reader catches the later one half written, or a
        kill left it so, its CRC fails, and the earlier one stands.
        """
        return max(self._sound(name), key=lambda slot: int(slot["sequence"]), default=None)

    def _sound(self, name: str) -> list[np.void]:
        return [slot for slot in self._file.read_afresh(name)[:2] if is_sound(slot)]

    def torn(self, name: str) -> bool:
        """Whether a slot holds something, and is not sound."""
        return any(not is_sound(slot) and any(slot.tobytes()) for slot in self._file.read_afresh(name)[:2])
