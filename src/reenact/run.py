"""A run, read: its episodes by number, their columns as arrays, while it is being written too."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, overload

import numpy as np

from reenact import layout, origin
from reenact.episode import EndedName, EpisodeData, Origin, RaisedError
from reenact.errors import DamagedError, EpisodeNotFoundError, RunNotFoundError
from reenact.layout import Ended, StateKind
from reenact.reader import SegmentReader, sound_rows
from reenact.reexecute import FirstReset, Stage, frames
from reenact.statistics import EpisodeStatistics

Array = np.ndarray[Any, Any]
_ENDED = {kind.value: kind.name.lower() for kind in Ended}


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


class _Table:
    """One segment's episodes, the columns of it that all selections need, and nothing else."""

    FIELDS = ("length", "seed", "ended", "return", "elapsed", "end_time", "lane", "first_step", "n_actions")

    def __init__(self, number: int, reader: SegmentReader) -> None:
        self.number, self.reader, self.damaged = number, reader, 0
        self._parts: list[dict[str, Array]] = []
        self._rows = 0
        self.status = reader.status()
        self.interrupted: np.void | None = None  # the open episode of a killed writer
        self.live: np.void | None = None

    def refresh(self) -> None:
        """Takes in what has been committed since."""
        if self.status.closed and self._rows:
            return
        status = self.reader.status()  # before the rows: what is read after it is at least as new
        live = status.live
        for first, rows in self.reader.new_rows():
            sound = sound_rows(rows)
            self.damaged += int((~sound).sum())
            keep = sound & (rows["ended"] != Ended.NOTHING)
            part = {name: np.ascontiguousarray(rows[name][keep]) for name in self.FIELDS}
            part["row"] = first + np.flatnonzero(keep)
            part["info"] = rows["info"][keep] if self.reader.info_keywords else np.zeros((int(keep.sum()), 0))
            self._parts.append(part)
            self._rows += len(rows)
        self.status = status
        self.live = self.interrupted = None
        if not status.closed:
            found = self.reader.open_episode()
            if found is not None and live:
                self.live = found
            elif found is not None and found["length"]:
                self.interrupted = found

    def columns(self) -> dict[str, Array]:
        """Returns the columns, one entry an episode, in the segment's order; killed episodes last, row -1."""
        parts = list(self._parts)
        row = self.interrupted
        if row is not None:
            part = {name: np.array([row[name]]) for name in self.FIELDS}
            part["row"] = np.array([-1])
            part["info"] = np.full((1, len(self.reader.info_keywords)), np.nan)
            parts.append(part)
        if not parts:
            empty = np.zeros(0, layout.episode_row(0, ()))
            none = {name: empty[name] for name in self.FIELDS}
            return {**none, "row": np.zeros(0, np.int64), "info": np.zeros((0, len(self.reader.info_keywords)))}
        if len(parts) > 1:
            whole = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
            if row is None:
                self._parts = [whole]
            return whole
        return parts[0]


class Episode:
    """One episode, read when asked.

    Attributes:
        run: the run it is of.
        number: 0, 1, 2 … over the whole run; None for one that still runs, or only touched by a clip.
        segment: its segment's number.
        index: its index in the segment; None for one that still runs.
    """

    def __init__(self, run: Run, table: _Table, row: np.void, number: int | None, index: int | None) -> None:
        self.run, self.number, self.segment, self.index = run, number, table.number, index
        self._table, self._row = table, row

    @property
    def address(self) -> str:
        """Its name at once and for ever: "segment.index"."""
        return f"{self.segment}.{'live' if self.index is None else self.index}"

    @property
    def length(self) -> int:
        """Env steps that returned."""
        return int(self._row["length"])

    @property
    def return_(self) -> float:
        """The sum of its rewards, summed step by step in the rewards' own type."""
        return float(self._row["return"])

    @property
    def elapsed(self) -> float:
        """Seconds from reset's return to the end."""
        return float(self._row["elapsed"])

    @property
    def end_time(self) -> np.datetime64:
        """When it ended (UTC)."""
        return np.datetime64(int(self._row["end_time"]), "ns")

    @property
    def ended(self) -> EndedName | str:
        """How: "terminated", "truncated", "interrupted" or "errored" ("nothing": a reset without a step)."""
        return _ENDED.get(int(self._row["ended"]), "unknown")

    @property
    def seed(self) -> int | None:
        """What reset was seeded with, or None."""
        seed = int(self._row["seed"])
        if seed != layout.NO_SEED:
            return seed
        found = self._details.get("seed")
        return int(found) if found is not None else None

    @property
    def _details(self) -> dict[str, Any]:
        return self._table.reader.details(self._row)

    @property
    def options(self) -> dict[str, Any] | None:
        """What `reset(options=...)` was given."""
        return self._details.get("options")

    @property
    def error(self) -> RaisedError | None:
        """What the env raised, or None."""
        found = self._details.get("error")
        return RaisedError(**found) if isinstance(found, dict) else None

    @property
    def label(self) -> str:
        """The label it was marked with, or ""."""
        return self._table.reader.label(self._row)

    @property
    def info(self) -> dict[str, float]:
        """The values of `info_keywords`, from its last info."""
        keywords = self._table.reader.info_keywords
        return dict(zip(keywords, self._row["info"].tolist(), strict=True)) if keywords else {}

    @property
    def actions(self) -> list[Any]:
        """One a step, in the types they were given; the one that raised is the last.

        Raises:
            DamagedError: their CRC fails.
        """
        reader = self._table.reader
        if reader.action_space is None:
            with self.stage.open(None) as env:
                return reader.actions(self._row, env.action_space)
        return reader.actions(self._row)

    @property
    def rewards(self) -> Array:
        """float64, shape (length,).

        Raises:
            DamagedError: their CRC fails.
        """
        return self._table.reader.rewards(self._row)

    @property
    def durations(self) -> Array | None:
        """Seconds a step, float32, shape (length,), or None unless recorded with `step_durations=True`."""
        return self._table.reader.durations(self._row)

    @property
    def origins(self) -> tuple[Origin, ...]:
        """What it can be started again from, the best first; () if it needs a chain."""
        found: list[Origin] = []
        if self.seed is not None:
            found.append(Origin("seed", seed=self.seed))
        for step, kind, data in self._table.reader.states(self._row):
            if step == 0 and kind in (StateKind.PCG64, StateKind.RNG_JSON):
                try:
                    found.append(Origin("rng", rng=origin.decode_rng(kind, data)))
                except ValueError as error:
                    raise DamagedError(f"{self._table.reader.path}: {error}") from error
        return tuple(found)

    @property
    def attributes(self) -> dict[str, str | int]:
        """Its segment's attributes: recipe, signature, versions, role …"""
        return self._table.reader.attributes

    @property
    def stage(self) -> Stage:
        """How its env is rebuilt."""
        attributes = self.attributes
        return Stage(str(attributes["recipe"]), str(attributes["signature"]))

    def data(self) -> EpisodeData:
        """Reads all that a re-execution needs, checked.

        Raises:
            DamagedError: a CRC fails.
        """
        return EpisodeData(
            origins=self.origins,
            options=self.options,
            actions=self.actions,
            rewards=self.rewards,
            length=self.length,
            ended=self.ended,  # type: ignore[arg-type]  # a name of Ended, or the row's CRC had failed
            return_=self.return_,
            fingerprints=self._table.reader.fingerprints(self._row),
            error=self.error,
        )

    def frames(self) -> Iterator[Array]:
        """Re-executes it and yields what the env draws: uint8, height x width x 3; length + 1 of them.

        Raises:
            ReplayError: it can't be re-executed, or diverged (at the frame where that showed).
        """
        return frames(self.data(), self.stage, self.run.first_reset(self.segment))

    def __repr__(self) -> str:
        return (
            f"<Episode {self.number if self.number is not None else '-'} ({self.address}): {self.ended} after "
            f"{self.length} steps, return {self.return_:g}, seed {self.seed}>"
        )


class Run:
    """A run's folder, or one segment of it.

    `run[250]`, `run[-1]`, `run["3.250"]` and slices give episodes; the arrays have one entry an episode,
    in the order of their numbers.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        self.path = Path(path)
        if not self.path.exists():
            raise RunNotFoundError(f"no run at {self.path}: {_nearby(self.path)}")
        self._tables: dict[int, _Table] = {}
        self._unreadable: dict[Path, str] = {}
        self.refresh()
        if not self._tables:
            if self._unreadable:
                raise DamagedError(next(iter(self._unreadable.values())))
            raise RunNotFoundError(f"no segments in {self.path}: {_nearby(self.path)}")

    @property
    def name(self) -> str:
        """The run's name: its folder's."""
        return (self.path.parent if self.path.is_file() else self.path).resolve().name

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return self.path.parent if self.path.is_file() else self.path

    @property
    def uuid(self) -> str:
        """The run's identity, which all its segments bear."""
        return str(next(iter(self._tables.values())).reader.attributes["run"])

    def refresh(self) -> None:
        """Sees what has been committed since."""
        # Rows before the listing, until nothing new is listed: a segment that is not there yet when the
        # others have been read can hold no episode that ended before theirs.
        while True:
            for table in self._tables.values():
                table.refresh()
            fresh = [path for path in self._paths() if path not in self._known()]
            if not fresh:
                break
            for path in fresh:
                self._add(path)
        self._index()

    def _paths(self) -> list[Path]:
        return [self.path] if self.path.is_file() else sorted(self.path.glob(layout.SEGMENT_GLOB))

    def _known(self) -> set[Path]:
        return {table.reader.path for table in self._tables.values()} | set(self._unreadable)

    def _add(self, path: Path) -> None:
        try:
            reader = SegmentReader(path)
        except DamagedError as error:
            self._unreadable[path] = str(error)
            if not self.path.is_file():
                warnings.warn(f"reenact: {error}; the run is read without this segment", stacklevel=4)
            return
        digits = path.stem.rpartition("-")[2]
        number = int(digits) if digits.isdigit() else 0
        self._tables[number] = _Table(number, reader)

    def _index(self) -> None:
        tables = [self._tables[number] for number in sorted(self._tables)]
        self._order_of = tables
        columns = [table.columns() for table in tables]
        self._columns = {
            name: np.concatenate([column[name] for column in columns]) if columns else np.zeros(0)
            for name in (*_Table.FIELDS, "row")
        }
        counts = [len(column["row"]) for column in columns]
        segments = np.repeat(np.array([table.number for table in tables], np.int64), counts)
        indices = np.concatenate([np.arange(count) for count in counts]) if counts else np.zeros(0, np.int64)
        order = np.lexsort((indices, segments, self._columns["end_time"]))
        live = [table.status.heartbeat for table in tables if not table.status.closed and table.status.live]
        if len(live) > 1 or (live and len(tables) > 1):
            order = order[self._columns["end_time"][order] <= min(live)]
        self._order = order
        self._segments, self._indices = segments, indices
        names = dict.fromkeys(name for table in tables for name in table.reader.info_keywords)
        self._info = {name: _info_column(name, tables, columns)[order] for name in names}
        damaged = sum(table.damaged for table in tables)
        if damaged and damaged != getattr(self, "_damaged_said", 0):
            self._damaged_said = damaged
            warnings.warn(f"reenact: {damaged} damaged episodes of {self.path} are left out", stacklevel=3)

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
        names = np.array([_ENDED[value] for value in sorted(_ENDED)])
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
        found: Array = self._indices[self._order]
        return found

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
    def __getitem__(self, key: int | str) -> Episode: ...
    def __getitem__(self, key: int | str | slice) -> Episode | list[Episode]:
        """Returns an episode by number, negative from the end, or by address; a slice gives a list of lazy ones.

        Raises:
            EpisodeNotFoundError: there is none.
        """
        if isinstance(key, slice):
            return [self._at(number) for number in range(*key.indices(len(self)))]
        if isinstance(key, str):
            return self._at_address(key)
        number = int(key)
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
        table = self._tables[int(self._segments[at])]
        row = int(self._columns["row"][at])
        found = table.reader.row(row) if row >= 0 else table.interrupted
        assert found is not None
        return Episode(self, table, found, number, int(self._indices[at]))

    def _at_address(self, address: str) -> Episode:
        segment, _, index = address.partition(".")
        if not (segment.isdigit() and index.isdigit()):
            raise EpisodeNotFoundError(f"{address!r} is no address: expected segment.index, such as 3.250")
        at = np.flatnonzero((self._segments == int(segment)) & (self._indices == int(index)))
        if not len(at):
            held = {number: int((self._segments == number).sum()) for number in sorted(self._tables)}
            raise EpisodeNotFoundError(
                f"no episode {address} in {self.path}: "
                + (f"segment {segment} has {held[int(segment)]} episodes" if int(segment) in held else
                   f"its segments are {', '.join(map(str, held))}")
            )  # fmt: skip
        table, row = self._tables[int(segment)], int(self._columns["row"][at[0]])
        found = table.reader.row(row) if row >= 0 else table.interrupted
        assert found is not None
        number = np.flatnonzero(self._order == at[0])
        return Episode(self, table, found, int(number[0]) if len(number) else None, int(index))

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
        return [Episode(self, table, table.live, None, None) for table in self._order_of if table.live is not None]

    @property
    def segments(self) -> list[Segment]:
        """The run's segments, by number."""
        found = []
        for table in self._order_of:
            columns, attributes = table.columns(), table.reader.attributes
            state = "closed" if table.status.closed else "live" if table.status.live else "killed"
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
        numbers = {int(self._indices[at]): number for number, at in enumerate(self._order) if self._segments[at] == segment}
        rows = [table.reader.row(number) for number in range(table.reader.rows_seen)]
        if table.interrupted is not None:
            rows.append(table.interrupted)
        index = 0
        for at, row in enumerate(rows):
            end = int(row["first_step"]) + int(row["n_actions"])
            trailing = int(rows[at + 1]["first_step"]) - end if at + 1 < len(rows) else 0
            is_episode = row["ended"] != Ended.NOTHING
            yield Episode(self, table, row, numbers.get(index), index) if is_episode else Episode(
                self, table, row, None, None
            ), trailing
            index += bool(is_episode)

    def first_reset(self, segment: int) -> FirstReset | None:
        """Returns what a segment's first reset was started from and with; None if there was none yet."""
        table = self._tables[segment]
        if not table.reader.rows_seen:
            return None
        first = Episode(self, table, table.reader.row(0), None, None)
        return FirstReset(first.origins, first.options)

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
        return f"<Run {self.path}: {len(self)} episodes in {len(self._tables)} segments>"


def open_run(path: str | PathLike[str]) -> Run:
    """Opens a run's folder, or one segment, for reading; works while it is being written.

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
            latest[path.parent] = max(latest.get(path.parent, 0.0), path.stat().st_mtime)
    return sorted(latest, key=lambda path: (-latest[path], path))


def _nearby(path: Path) -> str:
    """Says what is there instead."""
    parent = path if path.is_dir() else path.parent
    found = find_runs(parent)[:5] if parent.exists() else []
    return f"there is {', '.join(map(str, found))}" if found else f"no run lies under {parent} either"


def _info_column(name: str, tables: Sequence[_Table], columns: Sequence[dict[str, Array]]) -> Array:
    parts = []
    for table, column in zip(tables, columns, strict=True):
        keywords = table.reader.info_keywords
        missing = np.full(len(column["row"]), np.nan)
        parts.append(column["info"][:, keywords.index(name)] if name in keywords else missing)
    return np.concatenate(parts)


