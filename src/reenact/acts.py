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

_ACTS, _STEPS = 512, 16384
"""Of the blocks read: resets, and steps, unless one episode has more."""
_SLICE = 16384
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


def acts(reader: SegmentReader, first: int, end: int, space: Any = None) -> Iterator[Act]:
    """Reads resets [first, end) and what was done after each, in order, a block of steps at a time.

    Args:
        reader: of the segment.
        first: row of the episodes table.
        end: as above.
        space: the env's action space, for a log that couldn't keep it.

    Raises:
        DamagedError: a CRC fails.
    """
    rows_in_all = reader.count(layout.EPISODES)
    end = min(end, rows_in_all)
    while first < end:
        count = min(end - first, _ACTS)
        # one row more says where the steps after the last one's end stop
        rows = reader.read(layout.EPISODES, first, min(count + 1, rows_in_all - first))
        for at, code in enumerate(reader.kept(first, count) if reader.partial else (), first):
            reader.check_kept(int(code), f"reset {at} of segment {reader.number}")
        if not reader.sound(rows).all():
            raise DamagedError(f"{reader.path}: rows {first} to {first + len(rows)} of the episodes are damaged")
        starts = rows["first_step"].astype(np.int64).tolist()
        if len(rows) == count:
            starts.append(steps_end(reader, rows[-1]))
        while count > 1 and starts[count] - starts[0] > _STEPS:
            count //= 2
        yield from _block(reader, rows[:count], starts[: count + 1], space)
        first += count


def steps_end(reader: SegmentReader, row: np.void) -> int:
    """Returns where the steps after the last episode's end stop."""
    end = int(row["first_step"]) + int(row["n_actions"])
    begun = [first for first in reader.slots.begun() if first >= end]
    if begun:
        return min(begun)
    steps = reader.count(layout.REWARD) if reader.slots.finished() else end
    if steps > end and reader.slots.torn(layout.OPEN):
        raise DamagedError(f"{reader.path}: what says where its last episode's steps end is damaged")
    return max(end, steps)


def last_with(reader: SegmentReader, name: str, end: int) -> int | None:
    """Returns the last row before `end` of the episodes table whose reset has a seed, or a snapshot; or None."""
    table = layout.EPISODES if name == "seed" else layout.STATES
    stop = end if name == "seed" else reader.count(table)
    while stop > 0:
        first = max(0, stop - _SLICE)
        rows = reader.read(table, first, stop - first)
        if name == "seed":
            found = first + np.flatnonzero(rows["seed"] != layout.NO_SEED)
        else:
            found = rows["episode"][rows["kind"] == StateKind.SNAPSHOT].astype(np.int64)
            found = found[found < end]
        if len(found):
            return int(found[-1])
        stop = first
    return None


def _block(reader: SegmentReader, rows: Array, starts: list[int], space: Any) -> Iterator[Act]:
    first = starts[0]
    names = [f"steps/{name}" for name in reader.action_columns.names]
    columns = [np.ascontiguousarray(reader.read(name, first, starts[-1] - first)) for name in names]
    data = [
        memoryview(column.view(np.uint8).reshape(-1).data) if len(column) else memoryview(b"") for column in columns
    ]
    widths = [column.dtype.itemsize * math.prod(column.shape[1:]) for column in columns]
    actions = reader.action_columns.restore(int(rows[0]["kind"]), first, columns, space) if starts[-1] > first else []
    crcs = rows["column_crcs"].tolist()
    with_details = (rows["details"]["length"] > 0).tolist()
    first_state, states = reader.states.of_all(rows)
    fields = [rows[name].tolist() for name in ("n_actions", "seed", "first_state", "n_states", "ended")]
    for at, (n_actions, seed, its_state, n_states, ended) in enumerate(zip(*fields, strict=True)):
        start = starts[at] - first
        stop = start + n_actions
        for view, width, crc in zip(data, widths, crcs[at], strict=False):
            if crc32(view[start * width : stop * width]) != crc:
                raise DamagedError(f"{reader.path}: the steps {starts[at]} to {starts[at] + n_actions} are damaged")
        details = reader.details(rows[at]) if with_details[at] else {}
        held = states[its_state - first_state : its_state - first_state + n_states] if n_states else []
        yield Act(
            details.get("seed") if seed == layout.NO_SEED else seed,
            [state for state in held if state is not None],
            options_of(details),
            actions[start:stop],
            actions[stop : starts[at + 1] - first],
            ended == layout.Ended.ERRORED,
        )


def options_of(details: dict[str, Any]) -> ResetOptions | Unloggable | None:
    """Returns the reset options among an episode's details."""
    if "unloggable" in details:
        return Unloggable(str(details["unloggable"]))
    found = details.get("options")
    return ResetOptions(found, str(details.get("seal", ""))) if isinstance(found, dict) else None
