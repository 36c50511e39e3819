"""All that a vector env was made to do as one: its lanes are not single envs, and none can be started alone.

Seen from one lane, an episode's actions are moves of the whole batch. What resets a lane in the middle of others'
episodes, an autoreset or a partial reset, is one of the moves before it.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from reenact import layout
from reenact.acts import Act, Acts, options_of, steps_end
from reenact.episode import BatchReset, Move

if TYPE_CHECKING:
    from collections.abc import Iterator

    from reenact.batchsteps import BatchSteps
    from reenact.reader import SegmentReader

Array = np.ndarray[Any, Any]
_SLICE = 16384


class _Begin(NamedTuple):
    """Where in the order of things an episode begins: after the vector steps before `step`, and after reset `reset`."""

    step: int
    reset: int


class BatchActs(Acts):
    """The resets of one lane, each with the moves of the whole batch until the next.

    Args:
        reader: of the segment.
        lane: which.
        steps: of the segment, for all lanes.
    """

    def __init__(self, reader: SegmentReader, lane: int, steps: BatchSteps) -> None:
        super().__init__(reader, lane)
        self._steps = steps
        self._resets: list[tuple[int, int, BatchReset]] = []  # vector step, number, partial reset
        self._resets_seen = 0
        self._all: list[int] = []  # rows of the lane that a reset of all lanes began

    def _look(self) -> None:
        """Takes in the partial resets that the user has called since."""
        while self._resets_seen < self.reader.rows_seen:
            first = self._resets_seen
            rows = self.reader.table_rows(first, min(_SLICE, self.reader.rows_seen - first))
            known = {number for _, number, _ in self._resets}
            sound = self.reader.sound(rows)
            for at in np.flatnonzero(sound & (rows["details"]["length"] > 0)).tolist():
                details = self.reader.details(rows[at])
                number, lanes, seed = (details.get(name) for name in ("reset", "lanes", "given"))
                if lanes is None and number is not None and rows[at]["lane"] == self.lane:
                    self._all.append(first + at)
                if not isinstance(lanes, list) or not all(lane in range(self.apart) for lane in lanes):
                    continue
                if isinstance(number, int) and number not in known:
                    known.add(number)
                    step = int(rows[at]["first_step"]) // self.apart
                    given = seed if isinstance(seed, int) else None
                    self._resets.append((step, number, BatchReset(tuple(lanes), given, options_of(details))))
            self._resets_seen = first + len(rows)
            self._resets.sort(key=lambda one: one[:2])

    def starts_all(self, row: np.void) -> bool:
        """Whether the episode of a row began with a reset of all lanes."""
        details = self.reader.details(row)
        return "reset" in details and "lanes" not in details

    def last_with(self, name: str, end: int) -> int | None:
        """Returns the last reset of all lanes before `end`, with an origin of that name ("any": or none); or None."""
        self._look()
        found = np.searchsorted(self.rows(0, self.count), np.array(self._all, np.int64))
        found = found[found < end]
        if name != "any":
            found = np.intersect1d(found, self._lane_with(name, end))
        return int(found[-1]) if len(found) else None

    def acts(self, first: int, end: int, space: Any = None) -> Iterator[Act]:
        """Reads resets [first, end) of the lane, and the moves of the batch after each.

        Raises:
            DamagedError: a CRC fails.
        """
        self._look()
        end = min(end, self.count)
        for at in range(first, end):
            rows = self.table_rows(at, min(at + 2, self.count), 1)
            row, own = rows[0], self.starts_all(rows[0])
            begin = self._begin(row)
            over = self._over(row)
            following = self._begin(rows[1]) if len(rows) > 1 else self._after(row)
            if len(rows) > 1 and self.starts_all(rows[1]):
                following = _Begin(following.step, over.reset if following.step == over.step else -1)
            details = self.reader.details(row)
            yield Act(
                (int(row["seed"]) if row["seed"] != layout.NO_SEED else details.get("seed")) if own else None,
                [state for state in self.reader.states.of(row) if state is not None] if own else [],
                options_of(details) if own else None,
                self.moves(begin, over, row, space),
                self.moves(over, following, row, space),
                errored=False,
            )

    def moves_of(self, row: np.void, space: Any) -> list[Move]:
        """Reads the moves of an episode's own steps.

        Args:
            row: its row.
            space: one lane's action space, for a log that couldn't keep it.
        """
        self._look()
        return self.moves(self._begin(row), self._over(row), row, space)

    def _begin(self, row: np.void) -> _Begin:
        number = self.reader.details(row).get("reset")
        return _Begin(int(row["first_step"]) // self.apart, number if isinstance(number, int) else -1)

    def _over(self, row: np.void) -> _Begin:
        """Returns where the steps of an episode are over."""
        begin, count = self._begin(row), int(row["n_actions"])
        return _Begin(begin.step + count, -1) if count else begin

    def _after(self, row: np.void) -> _Begin:
        """Returns where the episode begins that has no row yet.

        Raises:
            DamagedError: what says so is damaged.
        """
        step = steps_end(self.reader, row, self.lane).step // self.apart
        # a partial reset began it, where there was one
        own = [number for at, number, reset in self._resets if at == step and self.lane in reset.lanes]
        return _Begin(step, max(own, default=-1))

    def moves(self, begin: _Begin, end: _Begin, row: np.void, space: Any) -> list[Move]:
        """Reads what the batch did from one point to another, during and after the episode of a row."""
        first = bisect_left(self._resets, begin.step, key=lambda one: one[0])
        resets = self._resets[first : bisect_right(self._resets, end.step, key=lambda one: one[0])]
        found: list[Move] = []
        # no lane before it has begun more than one kind of actions in the same step
        kind = max(0, int(row["kind"]) - self.apart)
        actions = self._steps.actions(begin.step, end.step, kind, space)
        for step, action in enumerate(actions, begin.step):
            since = begin.reset if step == begin.step else -1
            before = tuple(reset for at, number, reset in resets if at == step and number > since)
            found.append(Move(action, before))
        since = begin.reset if begin.step == end.step else -1
        last = tuple(reset for at, number, reset in resets if at == end.step and since < number <= end.reset)
        if last:
            found.append(Move(None, last))
        return found
