"""A run as one compressed file, for keeping or sending: whole, or a few episodes and what these start from."""

from __future__ import annotations

import contextlib
import os
import time
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import gymnasium as gym
import numpy as np

from reenact import copying, layout, recipe, render, trial, usercode
from reenact.archive import Archive
from reenact.errors import ReenactError, ReplayError, RunError, RunExistsError, SelectionError
from reenact.inspection import Findings, inspect, length_of
from reenact.ladder import Ladders
from reenact.layout import Kept
from reenact.naming import give_name
from reenact.run import Run
from reenact.selection import Episodes, Picks, Trigger, callable_trigger, given_of, select
from reenact.strangers import Permissions

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from reenact.logged import Episode
    from reenact.stage import Stage
    from reenact.table import Table

Array = np.ndarray[Any, Any]
_ABOUT = (
    "A run of a Gymnasium training, logged and packed by reenact: `replay FILE` makes videos of its episodes. "
    "Each group is a segment: what one recorder wrote."
)


@dataclass(frozen=True, slots=True)
class PackResult:
    """What was packed.

    Attributes:
        path: the file.
        episodes: how many the run has.
        kept: how many of them have their steps in the file.
        needed: how many of these are there because others can't be started again without them.
        steps: env steps in these.
        bytes_before: of the run's segments (or of the packed file that it was packed from).
        bytes_after: of the file.
        lost: addresses of episodes that are damaged; they are not in the file.
        unreadable: segments of which nothing can be read, and why, a line each; they are not in the file either.
        notes: what else there is to say, a line each.
    """

    path: Path
    episodes: int
    kept: int
    needed: int
    steps: int
    bytes_before: int
    bytes_after: int
    lost: tuple[str, ...]
    unreadable: tuple[str, ...]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, object]:
        """Returns it as `--json` prints it."""
        return {
            "path": str(self.path),
            "episodes": self.episodes,
            "kept": self.kept,
            "needed": self.needed,
            "steps": self.steps,
            "bytes_before": self.bytes_before,
            "bytes_after": self.bytes_after,
            "lost": list(self.lost),
            "unreadable": list(self.unreadable),
            "notes": list(self.notes),
        }


def pack(
    run: Run | str | PathLike[str],
    out: str | PathLike[str] | None = None,
    *,
    episodes: Episodes = None,
    trigger: str | Trigger | None = None,
    env: str | recipe.EnvFactory | None = None,
    trust: bool = False,
    imports: Sequence[str] = (),
    overwrite: bool = False,
    tell: Callable[[str], None] = lambda _: None,
    **picks: Unpack[Picks],
) -> PackResult:
    """Packs a run into one compressed file, which opens, replays and verifies like the run.

    With a selection, the table of all episodes stays, so that numbers and addresses hold, but only the steps of the
    chosen ones are kept, and of those that they can't be started again without. Which these are is found by
    re-executing the chosen ones.

    Args:
        run: a run, its folder, one segment of it, or a packed file.
        out: the file; None: beside the run's folder, by its name.
        episodes: as in `replay`; None: everything.
        trigger: as in `replay`.
        env: as in `replay`, for finding out what the chosen episodes need.
        trust: as in `replay`.
        imports: as in `replay`.
        overwrite: whether a file that is there already is replaced.
        tell: is told, in a line each, what is being done that may take a while.
        picks: what else selects, as in `replay`.

    Raises:
        RunExistsError: the file is there already.
        RunError: the run is still being written and nothing was chosen, or the file can't be written.
        ReenactError: there is no such run or episode.
    """
    opened = run if isinstance(run, Run) else Run(run)
    path = Path(out) if out is not None else _beside(opened)
    if path.is_dir():
        raise RunError(f"{path} is a folder; -o takes the file to write")
    if path.exists() and not overwrite:
        raise RunExistsError(f"{path} is there already: --overwrite replaces it, -o takes another name")
    picked = _selected(opened, episodes, trigger, picks)
    job = _Job(opened, picked, _spoken(episodes, trigger, picks), tell)
    if picked is not None:
        job.need(_Needs(env, Permissions(trust=trust, imports=tuple(imports))))
    return job.write(path, overwrite=overwrite)


def _beside(run: Run) -> Path:
    folder = run.folder if run.folder.name == run.name else run.folder.resolve()
    return (run.folder if run.pack is not None else folder.parent) / f"{run.name}.h5"


def _selected(run: Run, episodes: Episodes, trigger: str | Trigger | None, picks: Picks) -> list[int] | None:
    if episodes is None and trigger is None and not given_of(picks):
        live = [str(segment.number) for segment in run.segments if segment.state == "live"]
        if live:
            raise RunError(
                f"{run.path} is still being written (segment {', '.join(live)}): pack it when its training has ended, "
                "or choose finished episodes with --episodes"
            )
        return None
    numbers = select(run, episodes, trigger=callable_trigger(trigger), **picks)
    if not numbers:
        raise SelectionError("no episode is selected")
    return numbers


def _spoken(episodes: Episodes, trigger: str | Trigger | None, picks: Picks) -> str:
    """Returns the selection as it would be typed."""
    given: dict[str, object] = {"episodes": episodes, "trigger": trigger, **picks}
    parts = []
    for name, value in given.items():
        if value is None or value is False:
            continue
        if isinstance(value, Iterable) and not isinstance(value, str):
            value = ",".join(map(str, value))  # noqa: PLW2901  # as it would be typed
        parts.append(f"--{name}" if value is True else f"--{name} {getattr(value, '__qualname__', value)}")
    return " ".join(parts)[:1000]


class _Needs:
    """Finds what episodes can't be started again without.

    Args:
        env: how the env is made; None: by its recipe.
        permissions: what a stranger's recipe may have imported.
    """

    def __init__(self, env: str | recipe.EnvFactory | None, permissions: Permissions) -> None:
        self._factory = None if env is None else usercode.factory(env)
        self._permissions = permissions

    def of(self, episode: Episode) -> int:
        """Returns the first reset of its lineage that a replay of an episode goes through.

        Raises:
            ReenactError: it can't be re-executed, or not exactly.
        """
        # ladders of its own: what one replays who replays this one alone
        with Ladders(self._prepare, forced=None, tolerance=0.0, tell=lambda _done, _total: None) as ladders:
            ladder = ladders.of(episode)
            found = trial.run(ladder, episode, render=False, tell=lambda _: None)
            if found.divergence is not None:
                raise ReplayError("no way to start it is exact here")
            return ladder.reaches_back_to(found.origin, episode)

    def _prepare(self, stage: Stage) -> Stage:
        return replace(stage, factory=self._factory, permissions=self._permissions)

    def are_met(self, path: Path, numbers: list[int]) -> bool:
        """Returns whether episodes are exact, replayed from a packed file."""
        allowed: dict[str, Any] = {"trust": self._permissions.trust, "imports": self._permissions.imports}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return all(result.ok for result in render.verify(path, numbers, env=self._factory, **allowed))


class _Job:
    """A run on its way into a file."""

    def __init__(self, run: Run, picked: list[int] | None, selection: str, tell: Callable[[str], None]) -> None:
        self._run, self._picked, self._selection, self._tell = run, picked, selection, tell
        self._findings: dict[int, Findings] = {table.number: inspect(table) for table in run.tables}
        self._rows = {table.number: self._numbered_rows(table) for table in run.tables}
        self._codes = {number: found.codes.copy() for number, found in self._findings.items()}
        self._notes: list[str] = []
        self._chained: list[int] = []

    def _numbered_rows(self, table: Table) -> int:
        """Returns how many rows of a segment are packed: while others are written too, those whose numbers hold."""
        if not any(one.alive for one in self._run.tables):
            return length_of(table)
        mine = np.flatnonzero(self._run.segment_numbers == table.number)
        return 0 if not len(mine) else self._run[int(mine[-1])].row + 1

    def need(self, needs: _Needs) -> None:
        """Leaves out all but the picked episodes and what these need."""
        assert self._picked is not None  # noqa: S101  # for mypy: only called with a selection
        for codes in self._codes.values():
            codes[codes != Kept.LOST] = Kept.LEFT
        self._needs = needs
        picks = [self._run[number] for number in self._picked]
        self._tell(f"re-executing {len(picks)} episode{'s' * (len(picks) != 1)}, to find what replaying needs")
        refused: dict[str, list[str]] = {}
        for episode in picks:
            row, found = episode.row, self._findings[episode.segment].codes
            if found[row] == Kept.LOST:
                self._notes.append(f"episode {episode.number} is damaged: its steps can't be packed")
                continue
            if found[row] == Kept.LEFT:
                episode.data()  # raises: it says why
            self._codes[episode.segment][row] = Kept.PICKED
            try:
                start = needs.of(episode)
            except (ReenactError, gym.error.DependencyNotInstalled) as error:
                refused.setdefault(str(error), []).append(str(episode.number))
                start = 0
            else:
                if start < episode.position and episode.number is not None:
                    self._chained.append(episode.number)
            self._keep(episode, start)
            self._keep(episode, 0, 1)  # the first frame of all points MuJoCo's camera
        self._notes += [
            f"episode {', '.join(numbers)} and all before in the same env are packed: {why}"
            for why, numbers in refused.items()
        ]

    def _keep(self, episode: Episode, start: int, end: int | None = None) -> None:
        """Keeps resets of an episode's lineage, from one to another, or to the episode."""
        end = episode.position if end is None else end
        for segment, rows in episode.lineage.rows(start, end):
            codes, found = self._codes[segment], self._findings[segment].codes
            there = np.isin(found[rows], (Kept.PICKED, Kept.NEEDED))
            codes[rows[(codes[rows] == Kept.LEFT) & there]] = Kept.NEEDED

    def write(self, path: Path, *, overwrite: bool) -> PackResult:
        """Writes the file, reads it back, and gives it its name."""
        partial = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(
                f"can't make the folder {path.parent}: {error.strerror}: give another file with -o"
            ) from error
        try:
            self._write(partial, path)
            if self._chained and not self._needs.are_met(partial, self._chained):
                self._notes.append("with less than all that came before them, not all chained episodes are exact")
                for number in self._chained:
                    self._keep(self._run[number], 0)
                self._write(partial, path)
            size = partial.stat().st_size
            _place(partial, path, overwrite=overwrite)
        finally:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
        return self._result(path, size)

    def _write(self, partial: Path, path: Path) -> None:
        self._tell(f"packing {self._run.path}")
        tables = [table for table in self._run.tables if self._rows[table.number] or not table.alive]
        with Archive(partial, path) as archive:
            archive.add_attributes("", self._attributes())
            copies = [
                copying.copy(
                    table,
                    self._codes[table.number],
                    archive,
                    layout.SEGMENT_GROUP.format(table.number),
                    rows=self._rows[table.number],
                )
                for table in tables
            ]
            archive.close()
        self._tell("reading it back")
        for copy in copies:
            copy.check(partial)
        self._check_numbers(partial)

    def _attributes(self) -> dict[str, str | int]:
        return {
            "format": layout.PACK_FORMAT,
            "version": layout.VERSION,
            "run": self._run.uuid,
            "name": self._run.name,
            "packed": time.time_ns(),
            "reenact": recipe.versions({"modules": []}).get("reenact", "?"),
            "selection": self._selection or (self._run.pack.selection if self._run.pack is not None else ""),
            "about": _ABOUT,
        }

    def _check_numbers(self, partial: Path) -> None:
        """Makes sure that each number stands for the same episode as before."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they were told when the run was opened
            copy = Run(partial)
        if not copy.same_episodes(self._run):
            raise RunError(f"{partial}: the episodes read back are not those of {self._run.path}")

    def _result(self, path: Path, size: int) -> PackResult:
        run = self._run
        rows = zip(run.segment_numbers.tolist(), run.segment_rows.tolist(), strict=True)
        codes = np.array([self._codes[segment][row] for segment, row in rows], np.uint8)
        kept = np.isin(codes, (Kept.PICKED, Kept.NEEDED))
        alive = [str(table.number) for table in run.tables if table.alive]
        if alive:
            self._notes.append(f"segment {', '.join(alive)} is still being written: packed as of now")
        lost = tuple(
            f"{number}.{fault.index}"
            for number, found in self._findings.items()
            for fault in found.faults
            if fault.index is not None and fault.row < self._rows[number]
        )
        before = {table.reader.path: table.reader.path.stat().st_size for table in run.tables}
        return PackResult(
            path=path,
            episodes=len(run),
            kept=int(kept.sum()),
            needed=int((codes == Kept.NEEDED).sum()),
            steps=int(run.lengths[kept].sum()),
            bytes_before=sum(before.values()),
            bytes_after=size,
            lost=lost,
            unreadable=tuple(run.unreadable.values()),
            notes=tuple(self._notes),
        )


def _place(partial: Path, path: Path, *, overwrite: bool) -> None:
    """Gives the file its name, and takes nobody else's away unless told to.

    Raises:
        RunExistsError: another file has got it meanwhile.
        RunError: it can't be renamed.
    """
    try:
        if overwrite:
            partial.replace(path)
        else:
            give_name(partial, path)
    except FileExistsError as error:
        raise RunExistsError(f"{path} is there already: --overwrite replaces it, -o takes another name") from error
    except OSError as error:
        raise RunError(f"can't write {path}: {error.strerror}") from error
