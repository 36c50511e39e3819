"""One logged episode, read when asked, and checked before it is given out."""

from __future__ import annotations

import hashlib
import json
import warnings
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from reenact import layout, origin
from reenact.acts import options_of
from reenact.batchacts import BatchActs
from reenact.episode import EndedName, EpisodeData, Origin, RaisedError
from reenact.errors import DamagedError
from reenact.ladder import Ladders
from reenact.layout import Ended
from reenact.stage import Stage
from reenact.trial import frames

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from reenact.lineage import Lineage
    from reenact.reader import SegmentReader
    from reenact.table import Table

Array = np.ndarray[Any, Any]
_TELLING = ("length", "n_actions", "seed", "ended", "return", "end_time", "lane", "column_crcs")
ENDED_NAMES = {kind.value: kind.name.lower() for kind in Ended}


class Home(Protocol):
    """What an episode asks of its run."""

    path: Path

    @property
    def name(self) -> str:
        """The run's name."""

    @property
    def uuid(self) -> str:
        """The run's identity."""

    def lineage(self, segment: int, lane: int = -1) -> Lineage:
        """What the env instance of a segment, or of one of its lanes, did."""

    def again(self, segment: int, at: int, number: int | None, index: int | None) -> Episode:
        """One of its episodes, in another process."""


class Episode:
    """One episode, read when asked.

    Attributes:
        run: the run it is of.
        number: 0, 1, 2 … over the whole run; None for one that still runs, or only touched by a clip.
        segment: its segment's number.
        index: its index in the segment; None for one that still runs.
    """

    def __init__(  # the run's and the table's own rooms alone call it
        self, run: Home, table: Table, row: np.void, *, at: int, number: int | None, index: int | None
    ) -> None:
        self.run, self.number, self.segment, self.index = run, number, table.number, index
        self._table, self._row, self._at = table, row, at

    @property
    def address(self) -> str:
        """Its name at once and for ever: "segment.index"."""
        return f"{self.segment}.{'live' if self.index is None else self.index}"

    @property
    def digest(self) -> str:
        """What tells it from any other of its address: two copies of a run, both resumed, are one run by their UUID.

        SHA-256 over what its row says of it, wherever that lies: a packed run's are the same.
        """
        said = [self._row[name].tolist() for name in _TELLING]  # floats as Python writes them: NaN too
        return hashlib.sha256(json.dumps(said).encode()).hexdigest()

    @property
    def lineage(self) -> Lineage:
        """What its env instance did before and after it."""
        of_vector_env = bool(self._table.reader.header.autoreset)
        return self.run.lineage(self.segment, self.lane if of_vector_env else -1)

    @property
    def lane(self) -> int:
        """The sub-env of a vector env that it is of; -1: it is of a single env."""
        return int(self._row["lane"])

    @property
    def row(self) -> int:
        """Which row of its segment's table it is; those that have none yet come after all that have."""
        running = len(self._table.interrupted or self._table.live)
        return self._at if self._at >= 0 else self._table.reader.rows_seen + running + self._at

    @property
    def position(self) -> int:
        """Which reset of its lineage it is."""
        return self.lineage.position(self.segment, self.row)

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
        return ENDED_NAMES.get(int(self._row["ended"]), "unknown")

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
        """What `reset(options=...)` was given; None too where the log could not keep it."""
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
    def _reader(self) -> SegmentReader:
        """Reads its steps, which a packed file may not have."""
        reader = self._table.reader
        if reader.partial and self._at >= 0:
            name = f"episode {name_of(self)}"
            reader.check_kept(int(reader.kept(self._at, 1)[0]), name)
        return reader

    @property
    def actions(self) -> list[Any]:
        """One a step, in the types they were given; the one that raised is the last.

        Raises:
            DamagedError: their CRC fails.
            ReplayError: the file was packed without them.
        """
        reader = self._reader
        if reader.action_space is None:
            with self.stage.open(render=False) as env:
                return reader.actions(self._row, env.action_space)
        return reader.actions(self._row)

    @property
    def rewards(self) -> Array:
        """float64, shape (length,).

        Raises:
            DamagedError: their CRC fails.
        """
        return self._reader.rewards(self._row)

    @property
    def durations(self) -> Array | None:
        """Seconds a step, float32, shape (length,), or None unless recorded with `step_durations=True`."""
        return self._reader.durations(self._row)

    @property
    def origins(self) -> tuple[Origin, ...]:
        """What it can be started again from, the best first; () if it needs a chain.

        What is damaged is left out with a warning: a chain may do without it.
        """
        if self._batch is not None and not self._batch.starts_all(self._row):
            return ()
        states = self._reader.states.of(self._row)
        whole = [state for state in states if state is not None]
        if len(whole) < len(states):
            warnings.warn(
                f"reenact: episode {name_of(self)} of {self.run.path}: "
                f"{len(states) - len(whole)} of {len(states)} states that it starts from is damaged: it needs another "
                "origin, or a chain",
                stacklevel=2,
            )
        try:
            return origin.read(self.seed, whole)
        except ValueError as error:
            if isinstance(error, DamagedError):
                raise
            raise DamagedError(f"{self._table.reader.path}: {error}") from error

    @property
    def attributes(self) -> dict[str, str | int]:
        """Its segment's attributes: recipe, signature, versions, role and more."""
        return self._table.reader.attributes

    @property
    def stage(self) -> Stage:
        """How its env is rebuilt."""
        attributes = self.attributes
        return Stage(str(attributes["recipe"]), str(attributes["signature"]), lane=self.lane)

    @property
    def _batch(self) -> BatchActs | None:
        """What the whole vector env did, where its lanes are no single envs."""
        found = self.lineage.of(self.segment)
        return found if isinstance(found, BatchActs) else None

    def _moves(self) -> list[Any]:
        """Reads its actions, or those of the whole batch, by which it is re-executed."""
        actions, batch = self.actions, self._batch
        if batch is None:
            return actions
        if self._reader.action_space is not None:
            return list(batch.moves_of(self._row, None))
        with self.stage.open(render=False) as env:
            return list(batch.moves_of(self._row, env.action_space))

    def data(self) -> EpisodeData:
        """Reads all that a re-execution needs, checked.

        Raises:
            DamagedError: a CRC fails.
            ReplayError: the file was packed without its steps.
        """
        return EpisodeData(
            origins=self.origins,
            options=options_of(self._details),
            actions=self._moves(),
            rewards=self.rewards,
            length=self.length,
            ended=self.ended,  # type: ignore[arg-type]  # a name of Ended, or the row's CRC had failed
            return_=self.return_,
            fingerprints=self._reader.fingerprints(self._row),
            running=self.attributes.get("fingerprints") == "running",
            error=self.error,
        )

    def frames(self) -> Iterator[Any]:
        """Re-executes it and yields what the env draws: uint8, height x width x 3; length + 1 of them.

        Of an env that has no pictures ("rgb_array"), but text ("ansi"), it is its text.

        Raises:
            ReplayError: it can't be re-executed, or diverged (at the frame where that showed).
            VideoError: it can't be drawn.
        """
        with Ladders(lambda stage: stage, forced=None, tolerance=0.0, tell=lambda _done, _total: None) as ladders:
            yield from frames(ladders.of(self), self)

    def __reduce__(self) -> tuple[Callable[..., Episode], tuple[object, ...]]:
        """Is pickled by its run and its place there: what it holds is read where it is needed."""
        return _again, (self.run, self.segment, self._at, self.number, self.index)

    def __repr__(self) -> str:
        return (
            f"<Episode {self.number if self.number is not None else '-'} ({self.address}): {self.ended} after "
            f"{self.length} steps, return {self.return_:g}, seed {self.seed}>"
        )


def name_of(episode: Episode) -> str:
    """Returns what an episode is called: its number, else its address."""
    return episode.address if episode.number is None else str(episode.number)


def _again(run: Home, segment: int, at: int, number: int | None, index: int | None) -> Episode:
    return run.again(segment, at, number, index)
