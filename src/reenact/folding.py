"""The running checksums of a vector env's lanes, over all they observe: taken a block of vector steps at a time."""

from __future__ import annotations

from itertools import repeat
from typing import TYPE_CHECKING, Any
from zlib import crc32

import numpy as np

from reenact import layout
from reenact.block import lane_by_lane
from reenact.fingerprint import beginning

if TYPE_CHECKING:
    from reenact.batch import Batch

_OBSERVED, _FEWEST, _MOST = 1 << 18, 16, 1 << 22
"""Bytes of observations that wait for being folded into checksums, or as many as so many vector steps have; and the
most, unless one step has more. With 1 MiB, asking the system for memory took a tenth of all that recording cost."""
_ENDLESS = 1 << 40
Array = np.ndarray[Any, Any]


class Folding:
    """Folds the observations that wait on the tape into the checksums of the episodes that they are of.

    Args:
        block: what has them.
        every: steps between two checksums that are kept; 0: only the first and the last are.

    Attributes:
        steps: that may wait, vector steps.
        folded: so many of the tape's have been folded.
    """

    def __init__(self, block: Batch, every: int) -> None:
        self._block, self._every = block, every or _ENDLESS
        # bytes of one lane's observation, what its checksum begins with, and the form of all lanes'
        self._size = self._beginning = 0
        self._form: tuple[np.dtype[Any], tuple[int, ...]] | None = None
        self.steps, self.folded = layout.BLOCK_STEPS, 0

    def see(self, observations: Any) -> None:
        """Looks at what observations are like, and begins to keep them."""
        tape = self._block.tape
        width = self._block.width
        sound = isinstance(observations, np.ndarray) and observations.shape[:1] == (width,)
        if sound and observations.nbytes and tape.observed is None:
            its = observations.nbytes
            self._size = its // width
            self.steps = max(1, min(max(_OBSERVED // its, _FEWEST), _MOST // its))
            tape.observed, self.folded = [], len(tape.rewards)
            if not observations.dtype.hasobject:
                self._form, self._beginning = (observations.dtype, observations.shape), beginning(observations[0])

    def holds(self, observations: Any) -> bool:
        """Whether what has just been observed can be taken from the tape again, later."""
        return type(observations) is np.ndarray and (observations.dtype, observations.shape) == self._form

    def cut(self) -> None:
        """Lets go of what was observed in a step that failed."""
        observed = self._block.tape.observed
        if observed is not None:
            del observed[len(self._block.tape.rewards) - self.folded :]

    def replace(self, lanes: list[int], numbers: Array, finals: list[bytes]) -> None:
        """The last step's observations are of the next episodes, except these.

        Args:
            lanes: whose episodes have ended.
            numbers: of these episodes.
            finals: the last observation of each; of any other size, it is not known.
        """
        observed, size = self._block.tape.observed, self._size
        if not observed or len(observed[-1]) != size * self._block.width:  # type: ignore[arg-type]  # a batch's are bytes
            return
        data, blind = bytearray(observed[-1]), []
        for lane, number, final in zip(lanes, numbers.tolist(), finals, strict=True):
            if len(final) == size:
                data[lane * size : (lane + 1) * size] = final
            elif number >= 0:
                blind.append(number)
        observed[-1] = bytes(data)
        if blind:
            self._block.settle()
            self._block.roster.marks["blind"][blind] = True

    def fold(self) -> None:
        """Brings the checksums of all episodes up to the last step."""
        block, observed = self._block, self._block.tape.observed
        block.settle()
        count = len(block.tape.rewards) - self.folded
        if observed is not None:
            pieces: list[Any] = observed[:count]
            observed.clear()
            size = self._size * block.width
            sound = len(pieces) == count and set(map(len, pieces)) <= {size}
            if not sound:  # some are not what they should be
                pieces += [b""] * (count - len(pieces))
                pieces = [one if len(one) == size else bytes(size) for one in pieces]
            grid = lane_by_lane(np.frombuffer(b"".join(pieces), f"V{self._size}"), block.width)
            self._start(grid, count)
            self._fold(grid, count, sound=sound)
        self.folded += count

    def _start(self, grid: Array, count: int) -> None:
        """Begins the checksums of episodes that begin with what is on the tape."""
        block, roster = self._block, self._block.roster
        its = np.flatnonzero(roster.marks["unseen"])
        roster.marks["unseen"] = False
        step, lane = np.divmod(roster.rows["first_step"][its].astype(np.int64), block.width)
        before = step - block.base // block.width - self.folded - 1
        observed = grid[lane * count + before].tolist()
        roster.start(its, list(map(crc32, observed, repeat(self._beginning))), known=True)

    def _fold(self, grid: Array, count: int, *, sound: bool) -> None:
        """Goes on with the checksums of the others.

        Args:
            grid: the observations, each lane's together.
            count: of vector steps.
            sound: whether all are there.
        """
        block, roster = self._block, self._block.roster
        marks, rows = roster.marks, roster.rows
        runs = np.zeros(len(rows), np.bool_)
        runs[roster.there] = True
        its = np.flatnonzero(marks["known"])
        marks["known"] &= runs  # the others are done with
        lengths = rows["length"][its].astype(np.int64)
        step, lane = np.divmod(rows["first_step"][its].astype(np.int64), block.width)
        first = step - block.base // block.width - self.folded  # in what was observed; negative: before it
        done = np.maximum(-first, 0)
        if not sound:
            marks["known"][its] &= lengths == done
            return
        at, before = lane * count + first, marks["checksum"][its]
        whose, stops, checksums = self._pieces(grid, at, done, lengths, before)
        last = np.flatnonzero(np.diff(whose, append=len(its)))
        marks["checksum"][its[whose[last]]] = checksums[last]
        over = ~runs[its]
        kept = (stops % self._every == 0) | (over[whose] & (stops == lengths[whose]))
        kept &= ~(marks["blind"][its][whose] & (stops == lengths[whose]))
        self._keep(its[whose[kept]], stops[kept], checksums[kept])
        self.note(its[over & ~marks["blind"][its]])

    def _pieces(self, grid: Array, at: Array, done: Array, lengths: Array, before: Array) -> tuple[Array, Array, Array]:
        """Takes the checksums of episodes at each step where one is to be kept, and at the last.

        Args:
            grid: the observations, each lane's together.
            at: where in these those of each episode would begin, were they all there.
            done: the steps of each that its checksum has already.
            lengths: those that it is to have.
            before: the checksums.

        Returns:
            Which episode, step, checksum: episode by episode, step by step.
        """
        every, rows = self._every, memoryview(grid)  # type: ignore[arg-type]  # as in block
        blocks = done // every
        counts = np.where(lengths > done, -(-lengths // every) - blocks, 0)
        whose = np.repeat(np.arange(len(at)), counts)
        within = np.arange(len(whose)) - np.repeat(np.cumsum(counts) - counts, counts)
        number = within + blocks[whose]
        starts = at[whose] + np.maximum(number * every, done[whose])
        stops = np.minimum((number + 1) * every, lengths[whose])
        begins = np.where(within == 0, before[whose].astype(np.int64), -1)  # else it goes on from the one before
        places = zip(starts.tolist(), (at[whose] + stops).tolist(), begins.tolist(), strict=True)
        checksums, checksum = [], 0
        for start, stop, begin in places:
            checksum = crc32(rows[start:stop], checksum if begin < 0 else begin)
            checksums.append(checksum)
        return whose, stops, np.array(checksums, np.uint32)

    def _keep(self, numbers: Array, steps: Array, checksums: Array) -> None:
        self._block.roster.prints.append((numbers, steps, checksums))
        self._block.roster.marks["printed"][numbers] = steps  # ascending: the last one stands

    def note(self, numbers: Array) -> None:
        """Keeps the checksums of episodes at their last steps, as far as they have not been kept."""
        marks = self._block.roster.marks
        lengths = self._block.roster.rows["length"][numbers].astype(np.int64)
        fresh = marks["printed"][numbers] != lengths
        self._keep(numbers[fresh], lengths[fresh], marks["checksum"][numbers[fresh]])
