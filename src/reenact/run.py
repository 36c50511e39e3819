"""A run, read: its episodes by number, their columns as arrays, while it is being written too."""

from __future__ import annotations

import json
import operator
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsIndex, overload

import numpy as np

from reenact import layout
from reenact.errors import DamagedError, EpisodeNotFoundError, RunNotFoundError
from reenact.layout import Ended, Kept
from reenact.lineage import Lineage
from reenact.logged import ENDED_NAMES, Episode
from reenact.probe import try_all
from reenact.reader import Pack, SegmentReader, is_file, read_pack
from reenact.statistics import EpisodeStatistics
from reenact.table import FIELDS, Table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from os import PathLike

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Segment:
    """What one recorder, on one env instance, in one process, wrote.

    Attributes:
        number: in the run.
        path: the file.
        env_id: the env's id.
        role: what its episodes are for, in the user's words.
        state: "live", "closed", or "killed".
        episodes: how many it holds.
        steps: env steps in them.
        predecessor: the segment of the same env instance that it took over from; -1: none.
        gap: whether steps are missing between the two.
    """

    number: int
    path: Path
    env_id: str
    role: str
    state: str
    episodes: int
    steps: int
    predecessor: int
    gap: bool


class Run:
    """A run's folder, one segment of it, or a packed file.

    `run[250]`, `run[-1]`, `run["3.250"]` and slices give episodes; the arrays have one entry an episode,
    in the order of their numbers.
    """

    def __init__(self, path: str | PathLike[str], *, readable: bool = True) -> None:
        self.path = Path(path)
        if not _present(self.path):
            raise RunNotFoundError(f"no run at {self.path}: {_nearby(self.path)}")
        self._tables: dict[int, Table] = {}
        self._damaged = 0
        self._indexed = False
        self.unreadable: dict[Path, str] = {}
        self.foreign: dict[Path, str] = {}
        self._uuid = ""
        self._lineages: dict[int, Lineage] = {}
        self._grown: dict[int, Lineage] = {}
        self.pack: Pack | None = None
        try:
            self.pack = read_pack(self.path) if self.path.is_file() else None
        except DamagedError as error:
            self.unreadable[self.path] = str(error)
        self.refresh()
        if not self._tables:
            if self.unreadable and readable:
                raise DamagedError(next(iter(self.unreadable.values())))
            if self.unreadable:
                return
            if self.foreign and readable:
                raise DamagedError(next(iter(self.foreign.values())))
            raise RunNotFoundError(f"no segments in {self.path}: {_nearby(self.path)}")

    @property
    def name(self) -> str:
        """The run's name: its folder's; a packed file's is that of the run it was made from."""
        if self.pack is not None:
            return self.pack.name
        return (self.path.parent if self.path.is_file() else self.path).resolve().name

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return self.path.parent if self.path.is_file() else self.path

    @property
    def uuid(self) -> str:
        """The run's identity, which all its segments bear."""
        return self._uuid

    @property
    def tables(self) -> list[Table]:
        """The segments' tables, by number: for the rooms that copy them."""
        return self._order_of

    def refresh(self) -> None:
        """Sees what has been committed since."""
        # Rows before the listing, until nothing new is listed: a segment that is not there yet when the
        # others have been read can hold no episode that ended before theirs.
        changed = False
        while True:
            for table in list(self._tables.values()):
                try:
                    changed |= table.refresh()
                except DamagedError as error:
                    self._leave_out(table.reader, error)
                    changed = True
            known = self._known()
            fresh = [place for place in self._places() if place[0] / place[1] not in known]
            if not fresh:
                break
            self._add(fresh)
            changed = True
        changed |= self._give_way()
        if changed or not self._indexed:
            self._lineages.clear()
            self._index()

    def _give_way(self) -> bool:
        """Has segments whose recorder has gone on in another one hold nothing up; returns whether that is new.

        Its last episode and the time of its last commit count until the other one has committed: until then a
        kill leaves them to it.
        """
        changed = False
        successors: set[int] = set()
        gone: set[int] = set()
        for number in sorted(self._tables, reverse=True):  # a successor has the higher number
            table = self._tables[number]
            gap = bool(table.reader.attributes.get("gap", 0))
            predecessor = self._tables.get(int(table.reader.attributes.get("predecessor", -1)))
            if predecessor is not None and predecessor.number < number:
                taken_over = not gap and (table.committed or number in successors)
                if taken_over:
                    successors.add(predecessor.number)
                if gap or taken_over or number in gone:
                    gone.add(predecessor.number)
                    try:
                        changed |= predecessor.give_way(taken_over=taken_over)
                    except DamagedError as error:
                        self._leave_out(predecessor.reader, error)
                        changed = True
        return changed

    def _places(self) -> list[tuple[Path, str]]:
        """Lists the files that hold segments, and the groups in these."""
        if self.pack is not None:
            return [(self.path, self.pack.groups[number]) for number in sorted(self.pack.groups)]
        return [
            (path, "") for path in ([self.path] if self.path.is_file() else sorted(self.path.glob(layout.SEGMENT_GLOB)))
        ]

    def _known(self) -> set[Path]:
        read = {table.reader.path / table.reader.group for table in self._tables.values()}
        return read | set(self.unreadable) | set(self.foreign)

    def _add(self, places: list[tuple[Path, str]]) -> None:
        tables: list[Table] = []
        tried = try_all(list(dict.fromkeys(path for path, _ in places if is_file(path))))
        for path, group in places:
            try:
                if self.path.is_dir() and layout.segment_number(path.name) is None:
                    raise DamagedError(f"{path} has no segment's name, which is like {layout.SEGMENT_NAME.format(3)}")  # noqa: TRY301  # one way out for what is no segment
                reader = SegmentReader(path, group, why_left=self._why_left, tried=tried.get(path))
            except DamagedError as error:
                self._tell_unreadable(path / group, error)
                continue
            try:
                tables.append(Table(reader))
            except DamagedError as error:
                self._leave_out(reader, error)
        if not self._uuid and tables:
            self._uuid = self._identity([str(table.reader.attributes["run"]) for table in tables])
        for table in tables:
            its = str(table.reader.attributes["run"])
            if its == self._uuid:
                self._take(table)
                continue
            place = table.reader.path / table.reader.group
            self.foreign[place] = f"{place} is a segment of another run ({its}, not {self._uuid})"
            warnings.warn(f"reenact: {self.foreign[place]} and is left out", stacklevel=5)
            table.reader.close()

    def _take(self, table: Table) -> None:
        """Takes a segment in, if it lies where it was written, and only once; a file alone may have any name.

        Else addresses would name other episodes than they did.
        """
        reader, why = table.reader, ""
        if self.path.is_dir() and reader.number != layout.segment_number(reader.path.name):
            why = f"was renamed: it is segment {reader.number} of its run"
        for other in self._tables.values():
            if other.reader.attributes == reader.attributes and other.status.writer == table.status.writer:
                why = f"is a copy of {other.reader.path}"
        if why:
            reader.close()
            self._tell_unreadable(reader.path / reader.group, DamagedError(f"{reader.path} {why}"))
        else:
            self._tables[table.number] = table

    @property
    def _why_left(self) -> str:
        selection = self.pack.selection if self.pack is not None else ""
        return f"it was packed with {selection}" if selection else ""

    def _identity(self, uuids: list[str]) -> str:
        """Returns which run's folder this is: run.json says so, or else most of the segments."""
        try:
            named = json.loads((self.folder / layout.RUN_FILE).read_text())["run"]
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            named = None
        return named if isinstance(named, str) and self.path.is_dir() else Counter(uuids).most_common(1)[0][0]

    def _leave_out(self, reader: SegmentReader, error: DamagedError) -> None:
        """Goes on without a segment whose tables can't be read."""
        reader.close()
        self._tables.pop(reader.number, None)
        self._tell_unreadable(reader.path / reader.group, error)

    def _tell_unreadable(self, place: Path, error: DamagedError) -> None:
        self.unreadable[place] = str(error)
        if self.path.is_dir() or self.pack is not None:
            warnings.warn(f"reenact: {error}; the run is read without this segment", stacklevel=5)

    def _index(self) -> None:
        tables = [self._tables[number] for number in sorted(self._tables)]
        self._order_of = tables
        columns = [table.columns() for table in tables]
        self._columns = {
            name: np.concatenate([np.zeros(0, dtype), *(column[name] for column in columns)])
            for name, dtype in {**FIELDS, "row": "i8", "index": "i8", "kept": "u1", "label": "O"}.items()
        }
        counts = [len(column["row"]) for column in columns]
        self._segments = np.repeat(np.array([table.number for table in tables], np.int64), counts)
        # they lie by segment and index already, so a stable sort by time orders by all three
        ends = self._columns["end_time"]
        order = np.argsort(ends, kind="stable")
        alive = [table.status.heartbeat for table in tables if table.alive]
        if alive and len(tables) > 1:
            # What a live segment brings next ended at its heartbeat or later: nothing up to there moves any more.
            order = order[: int(np.searchsorted(ends[order], min(alive), "left"))]
        self._order = order
        names = dict.fromkeys(name for table in tables for name in table.reader.info_keywords)
        self._info = {name: _info_column(name, tables, columns)[order] for name in names}
        self._indexed = True
        damaged = sum(table.damaged for table in tables)
        before, self._damaged = self._damaged, damaged
        if damaged > before:  # fewer, once a writer has replaced a damaged slot
            warnings.warn(
                f"reenact: {damaged} damaged episodes of {self.path} are left out; those behind them have other "
                "numbers than before, but the same addresses",
                stacklevel=4,
            )

    # ---- columns

    def _ordered(self, name: str) -> Array:
        found: Array = self._columns[name][self._order]
        return found

    @property
    def returns(self) -> Array:
        """float64."""
        return self._ordered("return")

    @property
    def lengths(self) -> Array:
        """Env steps, int64."""
        return self._ordered("length").astype(np.int64)

    @property
    def elapsed(self) -> Array:
        """Seconds, float64."""
        return self._ordered("elapsed")

    @property
    def seeds(self) -> np.ma.MaskedArray[Any, Any]:
        """int64, masked where reset had none (or one beyond int64: see `Episode.seed`)."""
        seeds = self._ordered("seed")
        return np.ma.masked_array(seeds, mask=seeds == layout.NO_SEED)

    @property
    def ended(self) -> Array:
        """Text: terminated, truncated, interrupted or errored."""
        names = np.array([ENDED_NAMES[value] for value in sorted(ENDED_NAMES)])
        found: Array = names[np.clip(self._ordered("ended"), 0, len(names) - 1)]
        return found

    @property
    def started(self) -> Array:
        """When reset returned, datetime64[ns], UTC."""
        ns = self._ordered("end_time") - np.rint(self.elapsed * 1e9).astype(np.int64)
        return ns.astype("datetime64[ns]")

    @property
    def first_steps(self) -> Array:
        """Env steps in the run before each episode, int64."""
        lengths = self.lengths
        return np.cumsum(lengths) - lengths

    @property
    def segment_numbers(self) -> Array:
        """The segment that holds each, int64."""
        found: Array = self._segments[self._order]
        return found

    @property
    def segment_indices(self) -> Array:
        """Each one's index in its segment, int64."""
        return self._ordered("index")

    @property
    def lanes(self) -> Array:
        """The sub-env of a vector env that each is of, int64; -1: none."""
        return self._ordered("lane").astype(np.int64)

    @property
    def labels(self) -> Array:
        """What each was marked with, text; "" where it was not."""
        return self._ordered("label")

    @property
    def roles(self) -> Array:
        """What each is for, text: its segment's role."""
        named = {table.number: str(table.reader.attributes.get("role", "")) for table in self._order_of}
        found = np.full(len(self), "", object)
        for number in np.unique(self.segment_numbers).tolist():
            found[self.segment_numbers == number] = named[number]
        return found

    def table(self) -> dict[str, Array]:
        """Returns the columns that `where` conditions name, one entry an episode."""
        return {
            "episode": np.arange(len(self)),
            "return": self.returns,
            "length": self.lengths,
            "elapsed": self.elapsed,
            "seed": self.seeds,
            "ended": self.ended.astype(object),
            "segment": self.segment_numbers,
            "lane": self.lanes,
            "role": self.roles,
            "label": self.labels,
            "start": self.started,
            **self._info,
        }

    @property
    def segment_rows(self) -> Array:
        """Each one's row in its segment's table, int64; -1: it ran when the writer was killed, and has none."""
        return self._ordered("row")

    @property
    def kept(self) -> Array:
        """Whether each one's steps are there, bool: all are, but in a file packed with fewer, or repaired."""
        codes = self._ordered("kept")
        found: Array = (codes == Kept.PICKED) | (codes == Kept.NEEDED)
        return found

    def usual(self, trigger: Callable[[int], bool] | None) -> Callable[[int], bool] | None:
        """Returns which episodes are meant where none is named: those that a file was packed for, else as given."""
        codes = self._ordered("kept")
        if not np.isin(codes, (Kept.LEFT, Kept.NEEDED)).any():
            return trigger
        meant = set(np.flatnonzero(np.isin(codes, (Kept.PICKED, Kept.LOST))).tolist())
        return meant.__contains__

    @property
    def info_keywords(self) -> tuple[str, ...]:
        """The names that `info` knows; `run.is_success` is short for `run.info("is_success")`."""
        return tuple(self._info)

    def info(self, name: str) -> Array:
        """Returns the value of an info keyword for each episode, float64; NaN where there is none.

        Raises:
            KeyError: it was not recorded.
        """
        return self._info[name]

    def __getattr__(self, name: str) -> Array:
        info = self.__dict__.get("_info", {})
        if name in info:
            found: Array = info[name]
            return found
        raise AttributeError(f"a run has no {name!r}; its info keywords are {sorted(info) or 'none'}")

    # ---- episodes

    def __len__(self) -> int:
        return len(self._order)

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
        at = self._order[number]
        return self._episode(int(at), number)

    def _episode(self, at: int, number: int | None) -> Episode:
        table, row = self._tables[int(self._segments[at])], int(self._columns["row"][at])
        return Episode(self, table, table.row(row), at=row, number=number, index=int(self._columns["index"][at]))

    def _at_address(self, address: str) -> Episode:
        segment, _, index = address.partition(".")
        if not (segment.isdigit() and index.isdigit()):
            raise EpisodeNotFoundError(f"{address!r} is no address: expected segment.index, such as 3.250")
        at = np.flatnonzero((self._segments == int(segment)) & (self._columns["index"] == int(index)))
        if not len(at):
            held = {number: int((self._segments == number).sum()) for number in sorted(self._tables)}
            raise EpisodeNotFoundError(
                f"no episode {address} in {self.path}: "
                + (f"segment {segment} has {held[int(segment)]} episodes" if int(segment) in held else
                   f"its segments are {', '.join(map(str, held))}")
            )  # fmt: skip
        number = np.flatnonzero(self._order == at[0])
        return self._episode(int(at[0]), int(number[0]) if len(number) else None)

    def number_of(self, address: str) -> int:
        """Returns the number of the episode of that address.

        Raises:
            EpisodeNotFoundError: there is none, or it has no number yet.
        """
        number = self[address].number
        if number is None:
            raise EpisodeNotFoundError(f"episode {address} has no number yet: other segments are still behind it")
        return number

    @property
    def live(self) -> list[Episode]:
        """The episodes that still run, one for each live segment that has one; they have no number yet."""
        return [
            Episode(self, table, table.live, at=-1, number=None, index=None)
            for table in self._order_of
            if table.live is not None
        ]

    @property
    def is_live(self) -> bool:
        """Whether more may come: any segment is live."""
        return any(table.alive for table in self._tables.values())

    @property
    def segments(self) -> list[Segment]:
        """The run's segments, by number."""
        found = []
        for table in self._order_of:
            columns, attributes = table.columns(), table.reader.attributes
            state = "closed" if table.status.closed else "live" if table.alive else "killed"
            found.append(
                Segment(
                    number=table.number,
                    path=table.reader.path,
                    env_id=str(attributes.get("env_id", "?")),
                    role=str(attributes.get("role", "")),
                    state=state,
                    episodes=len(columns["row"]),
                    steps=int(columns["length"].astype(np.int64).sum()),
                    predecessor=int(attributes.get("predecessor", -1)),
                    gap=bool(attributes.get("gap", 0)),
                )
            )
        return found

    def timeline(self, segment: int) -> Iterator[tuple[Episode, int]]:
        """Yields all that a segment's env did, in order: each reset's episode, and the steps done after its end.

        Resets without a step are among them (ended "nothing", no number).
        """
        table = self._tables[segment]
        mine = np.flatnonzero(self._segments[self._order] == segment)
        numbers = dict(zip(self._columns["index"][self._order[mine]].tolist(), mine.tolist(), strict=True))
        index, end = 0, 0
        last: Episode | None = None
        for at, row in enumerate(_and_last(table.reader.rows(0, table.reader.rows_seen), table.interrupted)):
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

    def lineage(self, segment: int) -> Lineage:
        """Returns what the env instance of a segment did, over all segments that took over from one another."""
        if not self._lineages:
            for members in self._successions():
                readers = [self._tables[number].reader for number in members]
                # the same one again, grown: a chain that stands in it goes on
                found = self._grown.setdefault(members[0], Lineage())
                found.grow([(n, reader, reader.rows_seen) for n, reader in zip(members, readers, strict=True)])
                self._lineages |= dict.fromkeys(members, found)
        return self._lineages[segment]

    def _successions(self) -> list[list[int]]:
        """Lists the segments that took over from one another without a gap; most stand alone."""
        successions: dict[int, list[int]] = {}
        for table in self._order_of:  # by number: a predecessor has the lower one, in a log that is not forged
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
        segments = len(self._tables)
        return f"<Run {self.path}: {len(self)} episodes in {segments} segment{'s' * (segments != 1)}>"


def open_run(path: str | PathLike[str]) -> Run:
    """Opens a run's folder, one segment, or a packed file, for reading; works while it is being written.

    Raises:
        RunNotFoundError: there is none.
        DamagedError: nothing of it can be read.
    """
    return Run(path)


def find_runs(folder: Path) -> list[Path]:
    """Lists the folders at or below `folder` that hold segments, the one last written first."""
    latest: dict[Path, float] = {}
    if folder.is_dir():
        for path in folder.rglob(layout.SEGMENT_GLOB):
            written = path.lstat().st_mtime  # a link may lead nowhere
            latest[path.parent] = max(latest.get(path.parent, 0.0), written)
    return sorted(latest, key=lambda path: (-latest[path], path))


def _present(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:
        raise RunNotFoundError(f"{path} can't be looked into: {error.strerror}") from error


def _nearby(path: Path) -> str:
    """Says what is there instead."""
    parent = path if path.is_dir() else path.parent
    found = find_runs(parent)[:5] if parent.exists() else []
    return f"there is {', '.join(map(str, found))}" if found else f"no run lies under {parent} either"


def _info_column(name: str, tables: Sequence[Table], columns: Sequence[dict[str, Array]]) -> Array:
    parts = []
    for table, column in zip(tables, columns, strict=True):
        keywords = table.reader.info_keywords
        missing = np.full(len(column["row"]), np.nan)
        parts.append(column["info"][:, keywords.index(name)] if name in keywords else missing)
    return np.concatenate(parts)


def _and_last(rows: Iterator[np.void], last: np.void | None) -> Iterator[np.void]:
    yield from rows
    if last is not None:
        yield last
