"""The steps of a vector env as one, all lanes together: given out once all checksums over them have been compared.

What a lane did lies under checksums in stretches: an episode under those of its row, what came between two episodes
under those of the later one's row. A stretch is compared whole, and once, for whichever lane's episode it is read.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from typing import TYPE_CHECKING, Any, NamedTuple
from zlib import crc32

import numpy as np

from reenact import layout
from reenact.errors import DamagedError
from reenact.layout import Kept

if TYPE_CHECKING:
    from collections.abc import Iterator

    from reenact.reader import SegmentReader

Array = np.ndarray[Any, Any]
_SLICE = 16384
_STEPS = 256
"""Vector steps read together."""


class _Stretch(NamedTuple):
    """Vector steps [begin, end) of a lane, and the checksums over them, one a column."""

    lane: int
    begin: int
    end: int
    crcs: list[int]


class _Lane:
    """The episodes of a lane that have sound rows, in order: rows, vector steps, whether they have been compared."""

    def __init__(self) -> None:
        self.rows, self.begins, self.ends, self.compared = array("q"), array("Q"), array("Q"), bytearray()

    def end_before(self, at: int) -> int:
        """Returns where the episode before ends; the segment's beginning, where there is none."""
        return self.ends[at - 1] if at else 0

    @property
    def end(self) -> int:
        """Where the last one ends."""
        return self.end_before(len(self.ends))


class BatchSteps:
    """The steps of a vector env's segment.

    Args:
        reader: of the segment.
    """

    def __init__(self, reader: SegmentReader) -> None:
        self._reader, self._width = reader, reader.header.width
        self._names = [f"steps/{name}" for name in reader.action_columns.names]
        self._lanes = [_Lane() for _ in range(self._width)]
        self._looked = 0

    def actions(self, first: int, end: int, kind: int, space: Any) -> list[Any]:
        """Reads the actions of vector steps [first, end), each of the whole batch.

        Args:
            first: counted from the segment's first.
            end: as above.
            kind: row of `kinds` to look from.
            space: one lane's action space, for a log that couldn't keep it.

        Raises:
            DamagedError: a CRC fails, of whichever lane, or one is missing.
        """
        if first >= end:
            return []
        self._check(first, end)
        found: list[Any] = []
        for start, columns in self._blocks(first, end):
            lanes = self._reader.action_columns.restore(kind, start * self._width, columns, space)
            found += [_batched(lanes[at : at + self._width]) for at in range(0, len(lanes), self._width)]
        return found

    def _blocks(self, first: int, end: int) -> Iterator[tuple[int, list[Array]]]:
        """Yields vector steps [first, end) in blocks: the first step of each, and its rows of the actions' columns."""
        for start in range(first, end, _STEPS):
            begin, count = start * self._width, (min(start + _STEPS, end) - start) * self._width
            yield start, [np.ascontiguousarray(self._reader.read(name, begin, count)) for name in self._names]

    # ---- checksums

    def _check(self, first: int, end: int) -> None:
        """Compares all checksums over vector steps [first, end) that have not been compared."""
        reader = self._reader
        self._look(reader.rows_seen)
        following: list[tuple[np.void, bool]] = []
        if any(lane.end < end for lane in self._lanes):
            following = reader.slots.all_following()
            self._look(reader.count(layout.EPISODES))  # which are as new as those, since they are read later
        among = [(lane, at) for lane in self._lanes for at in _overlapping(lane, first, end) if not lane.compared[at]]
        stretches = [stretch for lane, at in among for stretch in self._of(lane, at)]
        for number, lane in enumerate(self._lanes):
            stretches += self._tail(number, lane.end, end, following)
        self._compare(stretches)
        for lane, at in among:
            lane.compared[at] = True

    def _look(self, count: int) -> None:
        """Takes in the rows of the table, up to so many."""
        while self._looked < count:
            first = self._looked
            rows = self._reader.table_rows(first, min(_SLICE, count - first))
            lanes = rows["lane"].tolist()
            begins, steps = (rows["first_step"] // self._width).tolist(), rows["n_actions"].tolist()
            for at in np.flatnonzero(self._reader.sound(rows)).tolist():
                if 0 <= lanes[at] < self._width:
                    lane = self._lanes[lanes[at]]
                    lane.rows.append(first + at)
                    lane.begins.append(begins[at])
                    lane.ends.append(begins[at] + steps[at])
                    lane.compared.append(False)
            self._looked += len(rows)

    def _of(self, lane: _Lane, at: int) -> list[_Stretch]:
        """Returns the stretches that a row says something of: before its episode, and the episode.

        Of a copy, those which it holds whole; what it holds of others was packed, and packed data has sums of its own.
        """
        row = self._reader.row(lane.rows[at])
        before, episode = _stretches(row, lane.end_before(at), self._width)
        if not self._reader.partial:
            return [before, episode]
        found = []
        for number, stretch in ((lane.rows[at - 1] if at else -1, before), (lane.rows[at], episode)):
            code = int(self._reader.kept(number, 1)[0]) if number >= 0 else Kept.LEFT
            if code == Kept.LOST:
                self._reader.check_kept(code, f"reset {number} of segment {self._reader.number}")
            if code != Kept.LEFT:
                found.append(stretch)
        return found

    def _tail(self, lane: int, last: int, end: int, following: list[tuple[np.void, bool]]) -> list[_Stretch]:
        """Returns the stretches after a lane's last row, which the slots say, if vector step `end` lies there."""
        if last >= end or self._reader.partial or not self._reader.header.rests:
            return []
        for row, _ in following:
            if int(row["lane"]) == lane and int(row["first_step"]) // self._width >= last:
                before, episode = _stretches(row, last, self._width)
                if episode.end >= end:
                    return [before, episode]
        raise DamagedError(
            f"{self._reader.path}: the vector steps {last} to {end} of lane {lane} have no checksum that is sound"
        )

    def _compare(self, stretches: list[_Stretch]) -> None:
        """Makes sure that the checksums over some stretches hold.

        Raises:
            DamagedError: one does not.
        """
        stretches = [one for one in stretches if one.end > one.begin]
        if not stretches:
            return
        begins, ends = (np.array([one[at] for one in stretches]) for at in (1, 2))
        found = [[0] * len(self._names) for _ in stretches]
        for start, columns in self._blocks(int(begins.min()), int(ends.max())):
            count = len(columns[0]) // self._width
            views = [_lane_by_lane(column, self._width) for column in columns]
            for at in np.flatnonzero((begins < start + count) & (ends > start)).tolist():
                one, crcs = stretches[at], found[at]
                first, stop = max(one.begin - start, 0), min(one.end - start, count)
                for index, view in enumerate(views):
                    crcs[index] = crc32(view[one.lane, first:stop].data, crcs[index])
        for one, crcs in zip(stretches, found, strict=True):
            if crcs != one.crcs[: len(crcs)]:
                raise DamagedError(
                    f"{self._reader.path}: the vector steps {one.begin} to {one.end} of lane {one.lane} are damaged"
                )


def _overlapping(lane: _Lane, first: int, end: int) -> Iterator[int]:
    """Yields which of a lane's rows say something of vector steps [first, end)."""
    at = bisect_right(lane.ends, first)
    while at < len(lane.ends) and lane.end_before(at) < end:
        yield at
        at += 1


def _stretches(row: np.void, before: int, width: int) -> tuple[_Stretch, _Stretch]:
    """Returns the stretches that a row says something of.

    Args:
        row: of the table, or of a slot.
        before: where the lane's episode before it ends, in vector steps.
        width: the number of lanes.
    """
    lane, begin = int(row["lane"]), int(row["first_step"]) // width
    crcs = row["rest_crcs"].tolist() if "rest_crcs" in (row.dtype.names or ()) else []
    rest = _Stretch(lane, before, begin if crcs else before, crcs)
    return rest, _Stretch(lane, begin, begin + int(row["n_actions"]), row["column_crcs"].tolist())


def _lane_by_lane(column: Array, width: int) -> Array:
    """Returns a column's bytes, each lane's together: shape (width, vector steps, bytes of a row)."""
    lanes = np.ascontiguousarray(column.reshape(-1, width, *column.shape[1:]).swapaxes(0, 1))
    return lanes.view(np.uint8).reshape(width, len(column) // width, -1)


def _batched(actions: list[Any]) -> Any:
    """Puts the lanes' actions together again, as an agent gives them."""
    first = actions[0]
    if isinstance(first, dict):
        return {key: _batched([action[key] for action in actions]) for key in first}
    if isinstance(first, tuple):
        return tuple(_batched(list(part)) for part in zip(*actions, strict=True))
    if not isinstance(first, np.ndarray | np.generic):
        return actions
    try:
        return np.stack(actions)
    except (ValueError, TypeError) as error:
        raise DamagedError(f"the lanes' actions are of no one shape: {error}") from error
