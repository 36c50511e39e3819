"""The episodes of a vector env's lanes that a commit has still to write, in arrays: none has an object of its own.

They are numbered as they begin; those that ran at the last commit come first. What a vector step says of the lanes
where episodes begin or end is only noted; `settle` brings it into the table, a block of steps at a time.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from reenact import layout
from reenact.pending import Extras

if TYPE_CHECKING:
    from collections.abc import Sequence

Array = np.ndarray[Any, Any]
_MARKS = np.dtype(
    [
        ("unseen", "?"),  # whether what it begins with lies on the tape
        ("checksum", "<u4"),  # over all that was observed so far
        ("known", "?"),  # whether it is one
        ("printed", "<i8"),  # the last step whose checksum was kept
        ("blind", "?"),  # whether the last observation is not known
    ]
)


class Roster:
    """What is known of the episodes.

    Args:
        width: the number of lanes.
        row: the dtype of a row in the segment's table of episodes.

    Attributes:
        running: which episode runs in each lane, by number, int64; -1: none.
        count: how many have begun.
        extras: what few of them have beside that, by number.
        prints: fingerprints since the last commit: numbers, steps (-1: the episode's last), checksums; of each
            episode in the order of its steps.
    """

    def __init__(self, width: int, row: np.dtype[Any]) -> None:
        self._width = width
        self.running = np.full(width, -1)
        self._rows, self._marks = np.zeros(width, row), np.zeros(width, _MARKS)
        self.count = self._settled = 0
        # What has not been settled. Bytes of arrays cost the least to keep and to put together; tuples of them would be
        # looked at by the garbage collector.
        self._begun: list[Any] = []  # as `begin` and `end` add to them
        self._seen: list[tuple[int, list[int]]] = []
        self._ended: list[Any] = []
        self._infos: list[tuple[float, ...]] = []
        self._order: list[Array] = []  # the numbers of those that have ended
        self.extras: dict[int, Extras] = {}
        self.prints: list[tuple[Array, Array, Sequence[int] | Array]] = []
        self._held: list[bytearray] = []  # those of the first episodes, as far as the last commit had them

    @property
    def rows(self) -> Array:
        """Their rows in the segment's table, as far as `settle` knows them."""
        return self._rows[: self._settled]

    @property
    def marks(self) -> Array:
        """What is known of their running checksums, as far as `settle` knows them."""
        return self._marks[: self._settled]

    @property
    def there(self) -> Array:
        """The numbers of those that run, lane by lane."""
        return self.running[self.running >= 0]

    @property
    def order(self) -> Array:
        """The numbers of those that have ended, as far as they are settled, in the order of their ends."""
        return np.concatenate([np.zeros(0, np.int64), *self._order])

    # ---- what happens

    def begin(self, lanes: Array, end: int, *, observed: bool) -> int:
        """Episodes begin; returns the number of the first of them.

        Args:
            lanes: where, indices.
            end: the row of the steps at which the tape ends.
            observed: whether what they begin with is what was observed there in the step before.
        """
        first, count = self.count, len(lanes)
        self.count = first + count
        self.running[lanes] = np.arange(first, first + count)
        self._begun += end, count, lanes.tobytes(), observed
        return first

    def see(self, first: int, checksums: list[int]) -> None:
        """Takes in the checksums of the observations that episodes begin with, from number `first` on."""
        self._seen.append((first, checksums))

    def end(
        self,
        lanes: Array,
        end: int,
        now: int,
        finished: tuple[bytes, Array, Array],
        infos: Sequence[tuple[float, ...]] = (),
    ) -> Array:
        """Episodes end; returns their numbers, -1 where none ran.

        Args:
            lanes: where, indices.
            end: the row of the steps at which the tape ends.
            now: ns since 1970.
            finished: of each how it ended, an `Ended`, its return, and the seconds that it took, float64.
            infos: the info values of each, where any are kept.
        """
        ended, returns, times = finished
        numbers = self.running[lanes]
        self.running[lanes] = -1
        self._ended += end, now, len(lanes), numbers.tobytes(), ended, returns.tobytes(), times.tobytes()
        self._infos += infos
        return numbers

    def settle(self, end: int, *, known: bool) -> None:
        """Brings all that has happened into the table, and the running episodes' lengths up to the last step.

        Args:
            end: the row of the steps at which the tape ends.
            known: whether running checksums begin with what was seen of episodes that have begun.
        """
        if self._begun:
            self._settle_begun()
        if self._seen:
            seen, self._seen = self._seen, []
            numbers = [first + at for first, checksums in seen for at in range(len(checksums))]
            self.start(np.array(numbers), [one for _, checksums in seen for one in checksums], known=known)
        if self._ended:
            self._settle_ended()
        self._measure(self.there, end)

    def _settle_begun(self) -> None:
        ends, counts, lanes_of, observed = columns_of(self._begun, 4)
        self._begun = []
        first, count, lanes = self._settled, self.count, np.frombuffer(b"".join(lanes_of), np.int64)
        if count > len(self._rows):
            self._make_room(2 * count, np.arange(first))
        rows = self._rows[first:count]
        rows["first_step"] = lanes + np.repeat(ends, counts)
        rows["lane"], rows["seed"] = lanes, layout.NO_SEED
        if "info" in (rows.dtype.names or ()):
            rows["info"] = math.nan
        self._marks["unseen"][first:count] = np.repeat(observed, counts)
        self._settled = count

    def _make_room(self, count: int, kept: Array) -> None:
        """Makes room for so many episodes, of which the first are these."""
        for name in ("_rows", "_marks"):
            old: Array = getattr(self, name)
            new = np.zeros(count, old.dtype)
            layout.opaque(new)[: len(kept)] = layout.opaque(old)[kept]
            setattr(self, name, new)

    def start(self, numbers: Array, checksums: list[int], *, known: bool) -> None:
        """Begins the checksums of episodes; `known` as `settle` explains it."""
        self.prints.insert(0, (numbers, np.zeros(len(numbers), np.int64), checksums))  # before those of later steps
        self.marks["checksum"][numbers], self.marks["known"][numbers] = checksums, known

    def _settle_ended(self) -> None:
        ends, nows, counts, *columns = columns_of(self._ended, 7)
        self._ended = []
        dtypes = (np.int64, np.uint8, np.float64, np.float64)
        given = [np.frombuffer(b"".join(its), dtype) for its, dtype in zip(columns, dtypes, strict=True)]
        there = given[0] >= 0
        its, *finished = (values[there] for values in given)
        rows = self.rows
        for name, values in zip(("ended", "return", "elapsed"), finished, strict=True):
            rows[name][its] = values
        rows["end_time"][its] = np.repeat(nows, counts)[there]
        if self._infos:
            rows["info"][its] = np.array(self._infos)[there]
            self._infos = []
        self._measure(its, np.repeat(ends, counts)[there])
        self._order.append(its)

    def _measure(self, numbers: Array, ends: Array | int) -> None:
        """Counts the steps of episodes up to where the tape ended."""
        rows = self.rows
        steps = ends // self._width - rows["first_step"][numbers].astype(np.int64) // self._width
        rows["length"][numbers] = rows["n_actions"][numbers] = steps

    # ---- what is to be said of them

    def lengths(self, numbers: Array) -> Array:
        """Returns the steps of episodes, as far as they are settled; 0 of those that are none, -1."""
        rows = self.rows
        return np.where(numbers >= 0, rows["length"][numbers], 0) if len(rows) else np.zeros(len(numbers))

    def extras_of(self, number: int) -> Extras:
        """Returns what an episode has beside its row, to be added to."""
        return self.extras.setdefault(number, Extras())

    def latest(self, lane: int) -> int:
        """Returns the episode that runs in a lane, or else the last one that has ended there; -1: there is none."""
        if self.running[lane] >= 0:
            return int(self.running[lane])
        order = self.order
        found = order[self.rows["lane"][order] == lane]
        return int(found[-1]) if len(found) else -1

    # ---- commits

    def places(self, numbers: Array) -> Array:
        """Returns where each episode is among these; of one that is not there: after them."""
        found = np.full(self._settled, len(numbers))
        at = np.flatnonzero(numbers >= 0)
        found[numbers[at]] = at
        return found

    def take_prints(self, places: Array, count: int, most: int) -> list[bytes | bytearray]:
        """Returns the fingerprints of episodes, as the segment holds them, a piece each.

        Args:
            places: which piece is each one's.
            count: of the pieces.
            most: fingerprints of an episode that runs: its first, and its last ones.
        """
        whose_of, steps_of, checksums_of = ([one[at] for one in self.prints] for at in range(3))
        self.prints = []
        whose = np.concatenate([np.zeros(0, np.int64), *whose_of])
        found = np.empty(len(whose), layout.FINGERPRINT_ROW)
        if len(whose):
            steps = np.concatenate(steps_of)
            found["step"] = np.where(steps < 0, self.rows["length"][whose], steps)
            found["checksum"] = np.concatenate(checksums_of)
        found = found[np.argsort(places[whose], kind="stable")]
        size = found.itemsize
        ends = (np.cumsum(np.bincount(places[whose], minlength=count)) * size).tolist()[:count]
        data = found.tobytes()  # no view of it: the garbage collector would look at each of these pieces
        pieces: list[Any] = [data[start:end] for start, end in zip([0, *ends], ends, strict=False)]
        for place, held in zip(places.tolist(), self._held, strict=False):
            held.extend(pieces[place])
            pieces[place] = held
        running = places[self.there].tolist()
        its = (pieces[place] for place in running)
        self._held = [one if type(one) is bytearray else bytearray(one) for one in its]
        for place, held in zip(running, self._held, strict=True):
            short = len(held) <= most * size
            pieces[place] = bytes(held) if short else bytes(held[:size] + held[size - most * size :])
        return pieces

    def keep(self) -> None:
        """Forgets all that have ended."""
        kept = np.flatnonzero(self.running >= 0)
        numbers = self.running[kept]
        self._make_room(len(self._rows), numbers)
        place = {number: at for at, number in enumerate(numbers.tolist())}
        self.extras = {place[number]: its for number, its in self.extras.items() if number in place}
        self._order = []
        self.count = self._settled = len(numbers)
        self.running[kept] = np.arange(len(numbers))


def columns_of(noted: list[Any], width: int) -> list[list[Any]]:
    """Returns the columns of rows of that width, which lie one after another."""
    return [noted[at::width] for at in range(width)]
