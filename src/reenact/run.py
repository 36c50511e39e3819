"""A run, read: its episodes by number, their columns as arrays, while it is being written too."""

from __future__ import annotations

import itertools
import operator
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, SupportsIndex, overload

import numpy as np

from reenact import tries
from reenact.acts import Acts
from reenact.batchacts import BatchActs
from reenact.batchsteps import BatchSteps
from reenact.columns import Columns
from reenact.errors import DamagedError, EpisodeNotFoundError, RunNotFoundError, SelectionError
from reenact.finding import is_there, nearby
from reenact.layout import Ended
from reenact.lineage import Lineage
from reenact.logged import Episode
from reenact.members import Members, Segment, segment_of
from reenact.numbering import Numbering
from reenact.recipe import read
from reenact.statistics import EpisodeStatistics

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from os import PathLike

    from reenact.table import Table


class Run(Columns):
    """A run's folder, one segment of it, or a packed file.

    `run[250]`, `run[-1]`, `run["3.250"]` and slices give episodes; the arrays have one entry an episode,
    in the order of their numbers.
    """

    def __init__(self, path: str | PathLike[str], *, readable: bool = True) -> None:
        self.path = Path(path)
        if not is_there(self.path):
            raise RunNotFoundError(f"no run at {self.path}: {nearby(self.path)}")
        self._members = Members(self.path)
        self.pack, self.unreadable, self.foreign = (
            self._members.pack,
            self._members.unreadable,
            self._members.foreign,
        )
        self._lineages: dict[tuple[int, int], Lineage] = {}
        self._grown: dict[tuple[int, int], Lineage] = {}
        self._acts: dict[tuple[int, int], Acts] = {}
        self._batches: dict[int, BatchSteps] = {}
        self._numbering = Numbering(())
        self.refresh()
        if not self._members.tables:
            if self.unreadable and readable:
                raise DamagedError(next(iter(self.unreadable.values())))
            if self.unreadable:
                return
            if self.foreign and readable:
                raise DamagedError(next(iter(self.foreign.values())))
            raise RunNotFoundError(f"no segments in {self.path}: {nearby(self.path)}")

    @property
    def name(self) -> str:
        """The run's name: its folder's; a packed file's is that of the run it was made from."""
        if self.pack is not None:
            return self.pack.name
        return (self.path.parent if self.path.is_file() else self.path).resolve().name

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return self._members.folder

    @property
    def uuid(self) -> str:
        """The run's identity, which all its segments bear."""
        return self._members.uuid

    @property
    def tables(self) -> list[Table]:
        """The segments' tables, by number: for the rooms that copy them."""
        return [self._members.tables[number] for number in sorted(self._members.tables)]

    def refresh(self) -> None:
        """Sees what has been committed since."""
        if not self._members.refresh():
            return
        self._lineages.clear()
        before, self._numbering = self._numbering.damaged, Numbering(self.tables)
        damaged = self._numbering.damaged
        if damaged > before:  # fewer, once a writer has replaced a damaged slot
            what = "1 damaged episode" if damaged == 1 else f"{damaged} damaged episodes"
            warnings.warn(
                f"reenact: {what} of {self.path} left out; later ones have other numbers than before, but the same "
                "addresses",
                stacklevel=3,
            )

    # ---- episodes

    @overload
    def __getitem__(self, key: slice) -> list[Episode]: ...
    @overload
    def __getitem__(self, key: SupportsIndex | str) -> Episode: ...
    def __getitem__(self, key: SupportsIndex | str | slice) -> Episode | list[Episode]:
        """Returns an episode by number, negative from the end, or by address; a slice gives a list of lazy ones.

        Raises:
            EpisodeNotFoundError: there is none.
        """
        if isinstance(key, slice):
            return [self._at(number) for number in range(*key.indices(len(self)))]
        if isinstance(key, str):
            return self._at_address(key)
        number = operator.index(key)
        if not -len(self) <= number < len(self):
            raise EpisodeNotFoundError(f"no episode {number} in {self.path}: {self._extent()}")
        return self._at(number % len(self))

    def _extent(self) -> str:
        return f"it has episodes 0 to {len(self) - 1}" if len(self) else "it has no finished episode yet"

    def __iter__(self) -> Iterator[Episode]:
        for number in range(len(self)):
            yield self._at(number)

    def _at(self, number: int) -> Episode:
        return self._episode(int(self._numbering.order[number]), number)

    def _episode(self, at: int, number: int | None) -> Episode:
        table, row, index = self._numbering.place(at)
        return Episode(self, table, table.row(row), at=row, number=number, index=index)

    def _at_address(self, address: str) -> Episode:
        segment, _, index = address.partition(".")
        if not (segment.isdigit() and index.isdigit()):
            raise EpisodeNotFoundError(f"{address!r} is no address: expected segment.index, such as 3.250")
        found = self._numbering.find(int(segment), int(index))
        if found is None:
            held = {each.number: each.episodes for each in self.segments}
            what = f"its segments are {', '.join(map(str, held))}"
            if int(segment) in held:
                last = self._numbering.last_index(int(segment))
                what = f"segment {segment} has {held[int(segment)]} episodes"
                what += f", the last one {segment}.{last}" if last is not None else ""
            raise EpisodeNotFoundError(f"no episode {address} in {self.path}: {what}")
        return self._episode(*found)

    def number_of(self, address: str) -> int:
        """Returns the number of the episode of that address.

        Raises:
            EpisodeNotFoundError: there is none, or it has no number yet.
        """
        number = self[address].number
        if number is None:
            raise EpisodeNotFoundError(f"episode {address} has no number yet: other segments are still behind it")
        return number

    def again(self, segment: int, at: int, number: int | None, index: int | None) -> Episode:
        """Returns an episode that another process has found in this run, which may have been opened before it was.

        Args:
            segment: its segment's number.
            at: its row there; below 0, or beyond the last, it is one that ran at the end.
            number: its number.
            index: its index in the segment; None: it has none.

        Raises:
            EpisodeNotFoundError: it is not here.
        """
        for look in range(2):
            if look:
                self.refresh()
            table = self._members.tables.get(segment)
            if table is None:
                continue
            rows = table.reader.rows_seen
            if 0 <= at < rows:
                return Episode(self, table, table.row(at), at=at, number=number, index=index)
            running = table.live if index is None else table.interrupted
            which = at if at < 0 else at - rows - len(running)
            if -len(running) <= which < 0:
                return Episode(self, table, running[which], at=at, number=number, index=index)
        raise EpisodeNotFoundError(f"no episode {segment}.{index} in {self.path} as it is here: is that the same run?")

    def __reduce__(self) -> tuple[Callable[..., Run], tuple[str, str, str | None]]:
        """Is pickled by its path: another process opens it for itself."""
        return _reopened, (str(self.path.absolute()), self.uuid, self._members.voucher())

    @property
    def live(self) -> list[Episode]:
        """The episodes that still run, one, or one a lane, for each live segment; they have no number yet."""
        return [
            Episode(self, table, row, at=at, number=None, index=None)
            for table in self.tables
            for at, row in enumerate(table.live, -len(table.live))
        ]

    @property
    def is_live(self) -> bool:
        """Whether more may come: any segment is live."""
        return any(table.alive for table in self._members.tables.values())

    @property
    def segments(self) -> list[Segment]:
        """The run's segments, by number."""
        return [segment_of(table) for table in self.tables]

    def timeline(self, segment: int) -> Iterator[tuple[Episode, int]]:
        """Yields all that a segment's env did, in order: each reset's episode, and the steps done after its end.

        Resets without a step are among them (ended "nothing", no number).

        Raises:
            SelectionError: it is of a vector env.
        """
        table = self._members.tables[segment]
        if table.reader.header.autoreset:
            raise SelectionError(
                f"segment {segment} is of a vector env: there are no clips of it (step_trigger, video_length)"
            )
        numbers = self._numbering.numbers_of(segment)
        index, end = 0, 0
        last: Episode | None = None
        for at, row in enumerate(itertools.chain(table.reader.rows(0, table.reader.rows_seen), table.interrupted)):
            if last is not None:
                yield last, int(row["first_step"]) - end
            end = int(row["first_step"]) + int(row["n_actions"])
            if row["ended"] == Ended.NOTHING:
                last = Episode(self, table, row, at=at, number=None, index=None)
            else:
                last = Episode(self, table, row, at=at, number=numbers.get(index), index=index)
                index += 1
        if last is not None:
            yield last, 0

    def lineage(self, segment: int, lane: int = -1) -> Lineage:
        """Returns what the env instance of a segment did, over all segments that took over from one another.

        Args:
            segment: its number.
            lane: of a vector env, which of its lanes is meant.
        """
        if (segment, lane) not in self._lineages:
            members = next(members for members in self._successions() if segment in members)
            # the same one again, grown: a chain that stands in it goes on
            key = members[0], lane
            found = self._grown.setdefault(key, Lineage(key))
            found.grow([(number, self._acts_of(number, lane)) for number in members])
            self._lineages |= {(number, lane): found for number in members}
        return self._lineages[segment, lane]

    def _acts_of(self, segment: int, lane: int) -> Acts:
        if (segment, lane) not in self._acts:
            reader = self._members.tables[segment].reader
            as_one = lane >= 0 and isinstance(read(str(reader.attributes["recipe"])).get("vector"), int)
            if as_one:
                steps = self._batches.setdefault(segment, BatchSteps(reader))
                self._acts[segment, lane] = BatchActs(reader, lane, steps)
            else:
                self._acts[segment, lane] = Acts(reader, lane)
        return self._acts[segment, lane]

    def _successions(self) -> list[list[int]]:
        """Lists the segments that took over from one another without a gap; most stand alone."""
        successions: dict[int, list[int]] = {}
        for table in self.tables:  # by number: a predecessor has the lower one, in a log that is not forged
            predecessor = int(table.reader.attributes.get("predecessor", -1))
            follows = not table.reader.attributes.get("gap", 0) and predecessor in successions
            succession = successions[predecessor] if follows else []
            succession.append(table.number)
            successions[table.number] = succession
        return list({id(members): members for members in successions.values()}.values())

    def same_episodes(self, other: Run) -> bool:
        """Returns whether each number stands for the same episode as in another copy of the run."""
        columns = ("end_time", "index", "length", "seed", "return")
        ours, theirs = ([run.segment_numbers, *map(run._ordered, columns)] for run in (self, other))  # noqa: SLF001  # its own class
        same = all(one.tobytes() == two.tobytes() for one, two in zip(ours, theirs, strict=True))
        return same and self.uuid == other.uuid

    def statistics(self, buffer_length: int = 100) -> EpisodeStatistics:
        """Returns the queues that `RecordEpisodeStatistics` would hold now."""
        found = EpisodeStatistics(buffer_length)
        ended = self._ordered("ended")
        finished = np.flatnonzero((ended == Ended.TERMINATED) | (ended == Ended.TRUNCATED))
        returns, lengths, elapsed = self.returns, self.lengths, self.elapsed
        found.episode_count = max(0, len(finished) - buffer_length)
        for at in finished[-buffer_length:] if buffer_length else []:
            found.add(float(returns[at]), int(lengths[at]), float(elapsed[at]))
        return found

    def __repr__(self) -> str:
        segments = len(self._members.tables)
        return f"<Run {self.path}: {len(self)} episodes in {segments} segment{'s' * (segments != 1)}>"


_opened: dict[tuple[str, str], Run] = {}
"""Runs that this process has been handed, by path and identity."""
_OPEN_AT_ONCE = 8


def _reopened(path: str, uuid: str, voucher: str | None) -> Run:
    """Opens a run that another process has handed over, once; what that has had tried is not tried again.

    Raises:
        RunNotFoundError: there is none here, or another one by now.
        DamagedError: nothing of it can be read.
    """
    run = _opened.get((path, uuid))
    if run is None:
        tries.take(voucher)
        run = Run(path)
        if run.uuid != uuid:
            raise RunNotFoundError(f"{path} holds another run by now ({run.uuid}, not {uuid})")
        while len(_opened) >= _OPEN_AT_ONCE:
            del _opened[next(iter(_opened))]
        _opened[path, uuid] = run
    return run
