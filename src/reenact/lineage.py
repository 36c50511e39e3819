"""What one env instance did from its first logged reset on, across the segments that took over from one another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np

    from reenact.acts import Act, Acts


class Lineage:
    """The resets of one env instance, numbered from 0, ones without a step among them.

    Args:
        key: of the run's lineages it alone has this: a segment, and a lane or -1.

    Attributes:
        key: as given.
        resets: how many there are in all.
    """

    def __init__(self, key: tuple[int, int] = (0, -1)) -> None:
        self.key = key
        self._segments: Sequence[tuple[int, Acts]] = ()
        self._before: dict[int, int] = {}
        self.resets = 0

    def grow(self, segments: Sequence[tuple[int, Acts]]) -> None:
        """Takes in what has come since: the number and the resets of each segment, in order."""
        self._segments = segments
        total = 0
        for number, acts in segments:
            self._before[number] = total
            total += acts.count
        self.resets = total

    @property
    def first(self) -> int:
        """The first segment's number."""
        return self._segments[0][0]

    @property
    def segments(self) -> list[int]:
        """The segments' numbers, in order."""
        return [number for number, _ in self._segments]

    def position(self, segment: int, row: int) -> int:
        """Returns which reset a row of a segment's table is."""
        return self._before[segment] + self.of(segment).position(row)

    def of(self, segment: int) -> Acts:
        """Returns its resets in one of the segments."""
        return dict(self._segments)[segment]

    def rows(self, first: int, end: int) -> Iterator[tuple[int, np.ndarray]]:
        """Yields where resets [first, end) are: a segment's number, and rows of its table."""
        for number, acts, start, stop in self._within(first, end):
            yield number, acts.rows(start, stop)

    def acts(self, first: int, end: int, space: Any = None) -> Iterator[Act]:
        """Reads resets [first, end) and what was done after each.

        Raises:
            DamagedError: a CRC fails.
        """
        for number, acts, start, stop in self._within(first, end):
            for at, act in enumerate(acts.acts(start, stop, space), start):
                if at + 1 == acts.count and number != self._segments[-1][0]:
                    yield act._replace(trailing=[*act.trailing, *self._heads(number, space)])
                else:
                    yield act

    def _heads(self, number: int, space: Any) -> Iterator[Any]:
        """Yields the actions after a segment's last end that are in later segments."""
        for _, acts in self._segments[self.segments.index(number) + 1 :]:
            yield from acts.head(space)
            if acts.count:
                return

    def _within(self, first: int, end: int) -> Iterator[tuple[int, Acts, int, int]]:
        for number, acts in self._segments:
            before = self._before[number]
            start, stop = max(first - before, 0), min(end - before, acts.count)
            if start < stop:
                yield number, acts, start, stop

    def nearest(self, name: str, before: int) -> int | None:
        """Returns the last reset before one that has an origin of that name ("seed", "snapshot", "any"), or None."""
        for number, acts in reversed(self._segments):
            end = min(before - self._before[number], acts.count)
            if end > 0:
                found = acts.last_with(name, end)
                if found is not None:
                    return self._before[number] + found
        return None

    def start_at(self, position: int) -> int | None:
        """Returns the reset at a position, or the last one before from which a chain can start; None: there is none.

        Any reset of a single env can be called as it was; most of a vector env's have come from inside.
        """
        return position if self.key[1] < 0 else self.nearest("any", position + 1)
