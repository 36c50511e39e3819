"""The block of a vector env: what its lanes did side by side waits to be written, a vector step at a time."""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING, Any
from zlib import crc32

import numpy as np

from reenact import layout
from reenact.batching import lanes_of
from reenact.block import Block
from reenact.pending import Waiting
from reenact.roster import Roster, columns_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gymnasium import spaces

    from reenact.codec import ActionCodec

_PRINTS = 64
"""Fingerprints of a running episode that a commit writes: all are written once more, together, when it ends."""


class Batch(Block):
    """Vector steps and episodes on their way into the current segment.

    Args:
        codec: of one lane's actions.
        space: of the batch's actions.
        n_info: how many info values are kept.
        width: the number of lanes.

    Attributes:
        rests: where lanes were reset instead of stepped, three entries each time: the first of that vector step's rows
            on the tape, how many lanes, and their indices, the bytes of int64.
        roster: the episodes.
    """

    def __init__(self, codec: ActionCodec, space: spaces.Space[Any], *, n_info: int, width: int) -> None:
        super().__init__(codec, n_info=n_info, durations=False, width=width)
        self._space = space
        self.rests: list[Any] = []
        self.roster = Roster(width, self._row)
        self._places = np.zeros(0, np.int64)  # of the episodes among those that are being written

    # ---- what comes in

    def take(self, action: object) -> None:
        """Takes the lanes' actions the long way round: of a new kind, or of a space that needs it.

        An entry of a leaf is the bytes of all lanes where these were given in one kind; else a tuple of theirs.
        """
        tape, leaf = self.tape, self.codec.leaves[0]
        tape.stop_fast()
        if type(action) is np.ndarray and len(action) == self.width and len(self._leaves) == 1 and not leaf.is_json:
            taken = self.codec.take(action[0])
            if taken.dtypes[0] == action.dtype and not taken.kind.startswith('{"value"') and taken.lossy is None:
                tape.actions.append(action.tobytes())
                self._kinds.go_on(self.end, taken.kind, taken.dtypes)
                tape.fast_dtype, tape.fast_shape = action.dtype, action.shape
                return
        try:
            given = list(lanes_of(self._space, action))
        except Exception:  # noqa: BLE001  # of no structure that a vector env knows: it will say so itself
            given = []
        self._take_each(given if len(given) == self.width else [action] * self.width)

    def _take_each(self, actions: Sequence[object]) -> None:
        taken = [self.codec.take(action) for action in actions]
        first = taken[0]
        alike = all(one.kind == first.kind and one.dtypes == first.dtypes for one in taken)
        for index, (entries, leaf) in enumerate(zip(self._leaves, self.codec.leaves, strict=True)):
            ones = tuple(one.entries[index] for one in taken)
            if not alike or leaf.is_json:
                entries.append(ones)
            else:
                entries.append(np.array(ones, first.dtypes[index]).tobytes() if leaf.is_number else b"".join(ones))
        if alike:
            self._kinds.go_on(self.end, first.kind, first.dtypes)
        else:
            self._kinds.go_on_apart(self.end, taken)
        lossy = next((one.lossy for one in taken if one.lossy is not None), None)
        if lossy is not None and not self._lossy_said:
            self._lossy_said = True
            warnings.warn(f"reenact: an action {lossy}; a replay gets that instead", stacklevel=5)

    def clear(self) -> None:
        """Empties it."""
        super().clear()
        self.rests.clear()

    def start_anew(self) -> None:
        """Lets go of all of it, and of the running episodes: lanes begin again at their next resets."""
        super().start_anew()
        self.roster = Roster(self.width, self._row)

    # ---- what goes out

    def rewards(self) -> np.ndarray:
        """Returns the tape's rewards, float64, NaN where a lane was reset."""
        found = np.frombuffer(bytearray().join(self.tape.rewards), np.float64).astype("<f8", copy=False)
        if self.rests:
            firsts, counts, lanes = columns_of(self.rests, 3)
            found[np.repeat(firsts, counts) + np.frombuffer(b"".join(lanes), np.int64)] = math.nan
        return found

    def _encode(self, index: int, entries: Sequence[Any]) -> np.ndarray | list[bytes]:
        leaf, width = self.codec.leaves[index], self.width
        if leaf.is_json:
            return [one for step in entries for one in step]
        pieces = []
        for begin, end, dtypes in self._kinds.spans(self.base, len(entries) * width):
            dtype, step = dtypes[index], entries[begin // width]
            assert dtype is not None  # noqa: S101  # for mypy: only JSON leaves have none
            if type(step) is bytes:
                given = np.frombuffer(b"".join(entries[begin // width : end // width]), dtype)
                pieces.append(self.codec.fit(index, given.reshape(end - begin, *leaf.shape)))
            else:
                first = begin % width
                pieces.append(self.codec.encode(index, step[first : first + end - begin], dtype))
        if len(pieces) == 1:
            return np.ascontiguousarray(pieces[0])
        return np.concatenate(pieces) if pieces else np.zeros((0, *leaf.shape), leaf.dtype)

    # ---- the episodes

    def settle(self) -> None:
        """Brings all that has happened in the lanes into the roster's table."""
        self.roster.settle(self.end, known=self.tape.observed is not None)

    def _waiting(self) -> Waiting:
        roster, lanes = self.roster, np.arange(self.width)
        ended, there = roster.order, roster.running >= 0
        running = self._rows(self.end + lanes)
        running["lane"] = lanes
        running[there] = roster.rows[roster.there]
        rows = np.empty(len(ended) + self.width, self._row)
        layout.opaque(rows)[: len(ended)], rows[len(ended) :] = layout.opaque(roster.rows)[ended], running
        self._places = roster.places(np.concatenate([ended, roster.running]))
        its = ((int(self._places[number]), extras) for number, extras in roster.extras.items())
        extras = sorted(its, key=lambda one: one[0])
        return Waiting(rows, len(ended), there, extras)

    def _print(self, waiting: Waiting, first: int) -> np.ndarray:
        """Returns all of each episode, anew each time: other lanes' would come between."""
        rows, size = waiting.rows, layout.FINGERPRINT_ROW.itemsize
        pieces = self.roster.take_prints(self._places, len(rows), _PRINTS)
        counts = np.array([len(piece) for piece in pieces], np.int64) // size
        rows["first_fingerprint"], rows["n_fingerprints"] = first + np.cumsum(counts) - counts, counts
        rows["column_crcs"][:, -1] = [crc32(piece) for piece in pieces]
        return np.frombuffer(b"".join(pieces), layout.FINGERPRINT_ROW)

    def _written(self) -> None:
        self.roster.keep()

    def _first_steps(self) -> np.ndarray:
        self.settle()
        rows = self.roster.rows[::-1]
        found = self.base + np.arange(self.width)
        found[rows["lane"]] = rows["first_step"]  # the last one stands: the first to begin
        return found

    def _move_back(self, rows: int) -> None:
        self.roster.rows["first_step"] -= rows
        for extras in self.roster.extras.values():
            extras.start_anew()
