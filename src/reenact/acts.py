"""All that a segment's env was made to do, reset after reset: enough to do it again."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple
from zlib import crc32

import numpy as np

from reenact import layout
from reenact.episode import ResetOptions, Unloggable
from reenact.errors import DamagedError
from reenact.layout import StateKind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from reenact.reader import SegmentReader
    from reenact.states import State

_ACTS, _STEPS = 512, 16384
"""Of the blocks read: resets, and steps, unless one episode has more."""
_SLICE = 16384
_SEED, _STATES = 1, 2
Array = np.ndarray[Any, Any]


class Act(NamedTuple):
    """One reset, and all that was done until the next one: enough to do it again.

    Attributes:
        seed: what the reset was given.
        states: taken before it: step, kind, bytes; damaged ones are left out.
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


class Acts:
    """The resets of one env in a segment, and what was done after each.

    Args:
        reader: of the segment.
        lane: of a vector env, which of its lanes; -1: it is a single env's.
    """

    def __init__(self, reader: SegmentReader, lane: int = -1) -> None:
        self.reader, self.lane, self.apart = reader, lane, reader.header.width
        # of a lane: its rows, as far as they have been looked for; which have a seed and which have states; which of
        # the latter, as far as these have been read, have snapshots among them
        self._looked = self._states_read = 0
        self._rows = np.zeros(0, np.int64)
        self._marks = np.zeros(0, np.uint8)
        self._snapshots: list[int] = []

    @property
    def count(self) -> int:
        """How many resets there are, as far as the table has been read."""
        return self.reader.rows_seen if self.lane < 0 else len(self._lane_rows())

    def rows(self, first: int, end: int) -> Array:
        """Returns in which rows of the table resets [first, end) are, int64."""
        return np.arange(first, end) if self.lane < 0 else self._lane_rows()[first:end]

    def position(self, row: int) -> int:
        """Returns which reset a row of the table is; one that has no row yet comes after all that have."""
        return row if self.lane < 0 else int(np.searchsorted(self._lane_rows(), row))

    def _lane_rows(self) -> Array:
        """Finds the lane's rows; a damaged one may be of any lane, and is taken for one of this."""
        while self._looked < self.reader.rows_seen:
            count = min(_SLICE, self.reader.rows_seen - self._looked)
            rows = self.reader.table_rows(self._looked, count)
            sound = self.reader.sound(rows)
            mine = np.flatnonzero((rows["lane"] == self.lane) | ~sound)
            marks = _SEED * (rows["seed"] != layout.NO_SEED) + _STATES * (rows["n_states"] > 0)
            self._marks = np.concatenate([self._marks, (marks * sound)[mine].astype(np.uint8)])
            self._rows = np.concatenate([self._rows, self._looked + mine])
            self._looked += count
        return self._rows

    def acts(self, first: int, end: int, space: Any = None) -> Iterator[Act]:
        """Reads resets [first, end) and what was done after each, in order, a block of steps at a time.

        Args:
            first: counted from the first reset of the env in the segment.
            end: as above.
            space: the env's action space, for a log that couldn't keep it.

        Raises:
            DamagedError: a CRC fails.
        """
        reader = self.reader
        rows_in_all = reader.count(layout.EPISODES) if self.lane < 0 else self.count
        end = min(end, rows_in_all)
        while first < end:
            count = min(end - first, _ACTS)
            # one row more says where the steps after the last one's end stop
            rows = self.table_rows(first, min(first + count + 1, rows_in_all), count)
            starts = rows["first_step"].astype(np.int64).tolist()
            rests = rows["rest_crcs"].tolist() if reader.header.rests else [None] * len(rows)
            if len(rows) == count:
                following = steps_end(reader, rows[-1], self.lane)
                starts.append(following.step)
                rests.append(following.rest_crcs)
            while count > 1 and starts[count] - starts[0] > _STEPS * self.apart:
                count //= 2
            yield from self._block(rows[:count], starts[: count + 1], rests[1 : count + 1], space)
            first += count

    def head(self, space: Any = None) -> list[Any]:
        """Reads the actions before the first reset: of steps after the end of the last episode of the segment before.

        Of a vector env's lane there are none: its segments begin with what others' episodes took along.

        Raises:
            DamagedError: a CRC fails.
        """
        if self.lane >= 0:
            return []
        if self.count:
            row = self.table_rows(0, 1, 0)[0]
        elif (said := self.reader.slots.following(-1, 0)) is not None:
            row, _ = said
        else:
            return []
        end = int(row["first_step"])
        rests = row["rest_crcs"].tolist() if self.reader.header.rests else None
        return _Steps(self.reader, (0, end), 0, space).taken(0, end, rests)

    def table_rows(self, first: int, end: int, count: int) -> Array:
        """Reads the rows of resets [first, end), and makes sure that the file holds the steps of so many of them.

        Raises:
            DamagedError: a CRC fails, or one was damaged when the file was made.
            ReplayError: one was left out.
        """
        reader, numbers = self.reader, self.rows(first, end)
        begin, last = int(numbers[0]), int(numbers[-1])
        rows: Array = reader.read(layout.EPISODES, begin, last + 1 - begin)[numbers - begin]
        if reader.partial and count:
            needed = numbers[:count]
            codes = reader.kept(begin, int(needed[-1]) + 1 - begin)[needed - begin]
            for at, code in zip(needed.tolist(), codes.tolist(), strict=True):
                reader.check_kept(code, f"reset {at} of segment {reader.number}")
        if not reader.sound(rows).all():
            raise DamagedError(f"{reader.path}: rows {begin} to {last + 1} of the episodes are damaged")
        return rows

    def last_with(self, name: str, end: int) -> int | None:
        """Returns the last reset before `end` that has a seed, a snapshot, or any origin; or None.

        Args:
            name: "seed", "snapshot" or "any".
            end: counted from the first reset of the env in the segment.
        """
        if self.lane >= 0:
            found = self._lane_with(name, end)
            return int(found[-1]) if len(found) else None
        table = layout.STATES if name == "snapshot" else layout.EPISODES
        stop = self.reader.count(table) if name == "snapshot" else end
        while stop > 0:
            first = max(0, stop - _SLICE)
            rows = self.reader.read(table, first, stop - first)
            if name == "snapshot":
                found = rows["episode"][rows["kind"] == StateKind.SNAPSHOT].astype(np.int64)
                found = found[found < end]
            else:
                has = rows["seed"] != layout.NO_SEED
                found = first + np.flatnonzero(has if name == "seed" else has | (rows["n_states"] > 0))
            if len(found):
                return int(found[-1])
            stop = first
        return None

    def _lane_with(self, name: str, end: int) -> Array:
        """Returns which of a lane's resets before `end` have an origin of that name."""
        rows = self._lane_rows()
        if name != "snapshot":
            return np.flatnonzero(self._marks[:end] & (_SEED if name == "seed" else _SEED | _STATES))
        for at in (self._states_read + np.flatnonzero(self._marks[self._states_read :] & _STATES)).tolist():
            held = self.reader.states.of(self.reader.row(int(rows[at])))
            if any(state is not None and state[1] is StateKind.SNAPSHOT for state in held):
                self._snapshots.append(at)
        self._states_read = len(rows)
        found = np.array(self._snapshots, np.int64)
        return found[found < end]

    def _block(self, rows: Array, starts: list[int], rests: list[list[int] | None], space: Any) -> Iterator[Act]:
        reader, apart = self.reader, self.apart
        resets_lane = reader.header.autoreset not in ("", "disabled")
        steps = _Steps(reader, (starts[0], starts[-1]), int(rows[0]["kind"]), space, apart)
        crcs = rows["column_crcs"].tolist()
        with_details = (rows["details"]["length"] > 0).tolist()
        states = self._states(rows)
        fields = [rows[name].tolist() for name in ("n_actions", "seed", "ended")]
        for at, (n_actions, seed, ended) in enumerate(zip(*fields, strict=True)):
            stop, following = starts[at] + n_actions * apart, starts[at + 1]
            actions = steps.taken(starts[at], stop, crcs[at])
            details = reader.details(rows[at]) if with_details[at] else {}
            yield Act(
                details.get("seed") if seed == layout.NO_SEED else seed,
                states[at],
                options_of(details),
                actions,
                [] if stop == following or resets_lane else steps.taken(stop, following, rests[at]),
                ended == layout.Ended.ERRORED,
            )

    def _states(self, rows: Array) -> list[list[State]]:
        """Reads the states of each row, as far as they are not damaged."""
        if self.lane >= 0:  # they lie among those of other lanes
            held = [self.reader.states.of(row) if row["n_states"] else [] for row in rows]
        else:
            first, states = self.reader.states.of_all(rows)
            places = zip(rows["first_state"].tolist(), rows["n_states"].tolist(), strict=True)
            held = [states[at - first : at - first + count] if count else [] for at, count in places]
        return [[state for state in its if state is not None] for its in held]


class _Steps:
    """Rows of steps that are read together.

    Args:
        reader: of the segment.
        span: the first row, and the one behind the last.
        kind: row of `kinds` to look from.
        space: the env's action space, for a log that couldn't keep it.
        apart: how far apart the rows lie.
    """

    def __init__(self, reader: SegmentReader, span: tuple[int, int], kind: int, space: Any, apart: int = 1) -> None:
        self._path, self._first, self._apart = reader.path, span[0], apart
        names = [f"steps/{name}" for name in reader.action_columns.names]
        count = max(0, span[1] - span[0] - apart + 1)
        columns = [np.ascontiguousarray(reader.read(name, span[0], count)[::apart]) for name in names]
        self._data = [
            memoryview(column.view(np.uint8).reshape(-1).data) if len(column) else memoryview(b"") for column in columns
        ]
        self._widths = [column.dtype.itemsize * math.prod(column.shape[1:]) for column in columns]
        self._actions = reader.action_columns.restore(kind, span[0], columns, space, apart) if count else []

    def taken(self, begin: int, end: int, crcs: list[int] | None) -> list[Any]:
        """Returns the actions of rows [begin, end).

        Args:
            begin: counted as the span is.
            end: as above.
            crcs: one a column; None: those rows have none.

        Raises:
            DamagedError: a CRC fails.
        """
        first, stop = (begin - self._first) // self._apart, (end - self._first) // self._apart
        for view, width, crc in zip(self._data, self._widths, crcs or (), strict=False):
            if crc32(view[first * width : stop * width]) != crc:
                raise DamagedError(f"{self._path}: the steps {begin} to {end} are damaged")
        return self._actions[first:stop]


class StepsEnd(NamedTuple):
    """Where the steps after an env's last episode's end stop.

    Attributes:
        step: the row of steps.
        rest_crcs: of what was done since that end, one a column; None: nothing says them.
    """

    step: int
    rest_crcs: list[int] | None


def steps_end(reader: SegmentReader, row: np.void, lane: int = -1) -> StepsEnd:
    """Returns where the steps after an env's last episode's end stop.

    Args:
        reader: of the segment.
        row: the last of the env's.
        lane: of a vector env, which of its lanes.

    Raises:
        DamagedError: what says so is damaged.
    """
    end = int(row["first_step"]) + int(row["n_actions"]) * reader.header.width
    following, has_come = reader.slots.following(lane, end) or (None, False)
    steps = reader.count(layout.REWARD) + max(lane, 0)
    if steps > end and not has_come and reader.slots.torn(layout.OPEN):
        raise DamagedError(f"{reader.path}: what says where its last episode's steps end is damaged")
    if following is not None:
        rest_crcs = following["rest_crcs"].tolist() if reader.header.rests else None
        return StepsEnd(int(following["first_step"]), rest_crcs)
    return StepsEnd(end if reader.header.rests or not reader.slots.finished() else max(end, steps), None)


def options_of(details: dict[str, Any]) -> ResetOptions | Unloggable | None:
    """Returns the reset options among an episode's details."""
    if "unloggable" in details:
        return Unloggable(str(details["unloggable"]))
    found = details.get("options")
    return ResetOptions(found, str(details.get("seal", ""))) if isinstance(found, dict) else None
