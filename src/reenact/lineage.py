"""What one env instance did from its first logged reset on, across the segments that took over from one another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from reenact.acts import acts, last_with

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from reenact.acts import Act
    from reenact.reader import SegmentReader


class Lineage:
    """The resets of one env instance, numbered from 0, ones without a step among them.

    Attributes:
        resets: how many there are in all.
    """

    def __init__(self) -> None:
        self._segments: Sequence[tuple[int, SegmentReader, int]] = ()
        self._before: dict[int, int] = {}
        self.resets = 0

    def grow(self, segments: Sequence[tuple[int, SegmentReader, int]]) -> None:
        """Takes in what has come since: number and reader of each segment, in order; the numbers of their rows."""
        self._segments = segments
        total = 0
        for number, _, rows in segments:
            self._before[number] = total
            total += rows
        self.resets = total

    @property
    def first(self) -> int:
        """The first segment's number."""
        return self._segments[0][0]

    @property
    def segments(self) -> list[int]:
        """The segments' numbers, in order."""
        return [number for number, _, _ in self._segments]

    def position(self, segment: int, row: int) -> int:
        """Returns which reset a row of a segment's table is."""
        return self._before[segment] + row

    def acts(self, first: int, end: int, space: Any = None) -> Iterator[Act]:
        """Reads resets [first, end) and what was done after each.

        Raises:
            DamagedError: a CRC fails.
        """
        for number, reader, rows in self._segments:
            before = self._before[number]
            start, stop = max(first - before, 0), min(end - before, rows)
            if start < stop:
                yield from acts(reader, start, stop, space)

    def nearest(self, name: str, before: int) -> int | None:
        """Returns the last reset before one that has an origin of that name ("seed" or "snapshot"), or None."""
        for number, reader, rows in reversed(self._segments):
            end = min(before - self._before[number], rows)
            if end > 0:
                found = last_with(reader, name, end)
                if found is not None:
                    return self._before[number] + found
        return None
