"""Every episode of a segment, checked against all of its checksums: what is whole, and what is lost and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from zlib import crc32

import numpy as np

from reenact import layout
from reenact.errors import DamagedError
from reenact.layout import Ended, Kept
from reenact.table import indices

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from reenact.reader import SegmentReader
    from reenact.table import Table

Array = np.ndarray[Any, Any]
_ROWS = 1024
"""Rows looked at together."""
_SPAN = 1 << 16
"""Steps looked at together."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A reset that is lost, and mostly its episode.

    Attributes:
        row: in the table `episodes`.
        index: the episode's, in its segment; None for a reset without a step.
        listed: whether its row is whole, so that it still has a number, a length and a return.
        why: what is damaged, in one line.
    """

    row: int
    index: int | None
    listed: bool
    why: str


@dataclass(frozen=True, slots=True)
class Findings:
    """What there is of one segment.

    Attributes:
        codes: a Kept for each reset, uint8, the one that ran when the writer was killed among them.
        faults: the resets that are lost now, in order; those that the file says were lost before are not among them.
        kept: how many episodes are whole.
        left: how many are not there because the file was packed without them.
        rests: how many times what was done after an end and before the next reset is damaged: no chain goes through it.
    """

    codes: Array
    faults: tuple[Fault, ...]
    kept: int
    left: int
    rests: int = 0


def rows_of(table: Table, first: int, end: int) -> Array:
    """Reads rows [first, end) of a table, those that ran when the writer was killed as its last ones."""
    reader = table.reader
    stored = min(max(first, reader.rows_seen), end)
    rows = reader.table_rows(first, stored - first)
    if end > stored:
        last = np.array(table.interrupted[stored - reader.rows_seen : end - reader.rows_seen], rows.dtype)
        for row in last:
            layout.seal(row)  # it has got another end time
        rows = np.concatenate([rows, last])
    return rows


def length_of(table: Table) -> int:
    """Returns how many rows `rows_of` gives."""
    return table.reader.rows_seen + len(table.interrupted)


def inspect(table: Table) -> Findings:
    """Checks each row of a segment's table, and all that it refers to."""
    reader, end = table.reader, length_of(table)
    parts = [np.zeros(0, np.uint8)]
    faults: list[Fault] = []
    index = kept = left = damaged_rests = 0
    rests = _Rests(reader)
    for first in range(0, end, _ROWS):
        rows = rows_of(table, first, min(first + _ROWS, end))
        codes = np.full(len(rows), Kept.PICKED, np.uint8)
        stored = max(0, min(len(rows), reader.rows_seen - first))
        codes[:stored] = reader.kept(first, stored)
        sound = reader.sound(rows)
        numbered, index_of, index = indices(rows, sound, index)
        held = np.isin(codes, (Kept.PICKED, Kept.NEEDED))
        found = {int(at): "its row is damaged" for at in np.flatnonzero(~sound & (codes != Kept.LOST))}
        for run in _runs(held & sound):
            found |= dict(_damaged(reader, rows[run], run))
        between = rests.before(rows, held & sound)
        damaged_rests += sum(1 for _ in _damaged(reader, between, np.arange(len(between)), _check_steps))
        for at, why in sorted(found.items()):
            codes[at] = Kept.LOST
            faults.append(Fault(first + at, int(index_of[at]) if numbered[at] else None, bool(sound[at]), why))
        episodes = sound & (rows["ended"] != Ended.NOTHING)
        kept += int((episodes & np.isin(codes, (Kept.PICKED, Kept.NEEDED))).sum())
        left += int((episodes & (codes == Kept.LEFT)).sum())
        parts.append(codes)
    return Findings(np.concatenate(parts), tuple(faults), kept, left, damaged_rests)


class _Rests:
    """What was done between episodes, as rows that say where it lies and which checksums it has.

    Args:
        reader: of the segment.
    """

    def __init__(self, reader: SegmentReader) -> None:
        self._header = reader.header
        columns = ("column_crcs", "<u4", (len(reader.columns) + 1,))
        self._dtype = np.dtype([("first_step", "<u8"), ("n_actions", "<u4"), columns])
        # by lane, where the episode before ends; what a copy without all steps has of those before the first is holes
        whole = not reader.header.partial or reader.header.width == 1
        self._ends = {lane: lane for lane in range(reader.header.width)} if whole else {}

    def before(self, rows: Array, there: Array) -> Array:
        """Returns those before the next rows of the table.

        Args:
            rows: of the table, in order.
            there: which of them are whole, bool.
        """
        found: list[tuple[int, int, list[int]]] = []
        width = self._header.width
        if not self._header.rests:
            return np.zeros(0, self._dtype)
        fields = (rows[name].tolist() for name in ("lane", "first_step", "n_actions", "rest_crcs"))
        for lane, first, count, crcs, whole in zip(*fields, there.tolist(), strict=True):
            if not whole:  # it may be of any lane, or what came after it is not there
                self._ends.clear()
                continue
            end = self._ends.get(lane if width > 1 else 0, first)
            if end < first:
                found.append((end, (first - end) // width, [*crcs, 0]))
            self._ends[lane if width > 1 else 0] = first + count * width
        return np.array(found, self._dtype)


def _runs(mask: Array) -> list[Array]:
    """Returns the indices where a mask holds, in runs without a gap."""
    at = np.flatnonzero(mask)
    return [part for part in np.split(at, np.flatnonzero(np.diff(at) > 1) + 1) if len(part)]


def _damaged(
    reader: SegmentReader, rows: Array, at: Array, check: Callable[[SegmentReader, Array], None] | None = None
) -> Iterator[tuple[int, str]]:
    """Yields which of the rows refer to something damaged, and to what; halves them until it is clear which."""
    if not len(rows):
        return
    check = check or _check
    span = int(rows["first_step"].max()) - int(rows["first_step"].min())
    lies_close = span + int(rows["n_actions"].max()) * reader.header.width <= _SPAN
    if len(rows) == 1 or lies_close:
        try:
            check(reader, rows)
        except DamagedError as error:
            if len(rows) == 1:
                yield int(at[0]), str(error).removeprefix(f"{reader.path}: ")
                return
        else:
            return
    half = len(rows) // 2
    yield from _damaged(reader, rows[:half], at[:half], check)
    yield from _damaged(reader, rows[half:], at[half:], check)


def _check(reader: SegmentReader, rows: Array) -> None:
    """Checks rows that lie side by side.

    Raises:
        DamagedError: something that one of them refers to is damaged.
    """
    _check_steps(reader, rows)
    _check_crcs(reader, layout.FINGERPRINTS, rows, ("first_fingerprint", "n_fingerprints"), -1)
    stepped = rows[rows["n_actions"] > 0]
    if len(stepped):
        last = stepped[-1]
        end = int(last["first_step"]) + int(last["n_actions"]) * reader.header.width
        for _, _, kind in reader.action_columns.kind_runs(int(stepped[0]["kind"]), int(stepped[0]["first_step"]), end):
            if not kind:
                raise DamagedError(f"{reader.path}: the kinds of its actions are missing")
    if None in reader.states.of_all(rows)[1]:
        raise DamagedError(f"{reader.path}: a state that an episode starts from is damaged")
    for row in rows[(rows["details"]["length"] > 0) | (rows["label"]["length"] > 0)]:
        reader.details(row)
        reader.label(row)


def _check_steps(reader: SegmentReader, rows: Array) -> None:
    for index, name in enumerate(reader.columns):
        _check_crcs(reader, f"steps/{name}", rows, ("first_step", "n_actions"), index, apart=reader.header.width)


def _check_crcs(
    reader: SegmentReader, name: str, rows: Array, fields: tuple[str, str], index: int, *, apart: int = 1
) -> None:
    firsts, counts = (rows[field].astype(object) for field in fields)  # forged ones overflow
    # up to behind each one's last row, of those that lie so far apart
    ends = firsts + np.maximum(counts * apart - apart + 1, 0)
    begin, end = min(firsts), max(ends)
    reader.check_size(name, end - begin)
    crcs = [0] * len(rows)
    for start in range(begin, end, _SPAN):
        block = np.ascontiguousarray(reader.read(name, start, min(_SPAN, end - start)))
        for at, (first, stop) in enumerate(zip(firsts, ends, strict=True)):
            since = max(0, first - start) if first >= start else (first - start) % apart
            part = block[since : max(0, stop - start) : apart]
            crcs[at] = crc32(np.ascontiguousarray(part).view(np.uint8).reshape(-1).data, crcs[at])
        if block.dtype == layout.REF:
            for ref in block.reshape(-1):
                reader.blob(ref)
    if crcs != rows["column_crcs"][:, index].tolist():
        raise DamagedError(f"{reader.path}: {name} is damaged")
