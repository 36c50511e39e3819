"""The segments of a run: found, opened, and left out where they can't be read or are not of it."""

from __future__ import annotations

import json
import warnings
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from reenact import layout, tries
from reenact.errors import DamagedError
from reenact.packed import Pack, read_pack
from reenact.reader import SegmentReader, is_file
from reenact.table import Table

if TYPE_CHECKING:
    from pathlib import Path


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


def segment_of(table: Table) -> Segment:
    """Returns what there is to say of a segment, from its table."""
    columns, attributes = table.columns(), table.reader.attributes
    state = "closed" if table.status.closed else "live" if table.alive else "killed"
    return Segment(
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


class Members:
    """The segments of one run.

    Args:
        path: a run's folder, one segment, or a packed file.

    Attributes:
        path: as given.
        pack: what a packed file says of itself; None: it is none.
        tables: those of the segments that can be read, by number.
        unreadable: why others can't be.
        foreign: why others are not of the run.
        uuid: the run's identity.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.tables: dict[int, Table] = {}
        self.unreadable: dict[Path, str] = {}
        self.foreign: dict[Path, str] = {}
        self.uuid = ""
        self.pack: Pack | None = None
        self._tried: set[Path] = set()
        self._voucher: str | None = None
        try:
            self.pack = read_pack(path) if path.is_file() else None
        except DamagedError as error:
            self.unreadable[path] = str(error)

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return self.path.parent if self.path.is_file() else self.path

    def voucher(self) -> str | None:
        """Returns what says to other processes that all its files have been tried here; None: not all of them."""
        if self._voucher is None:
            self._voucher = tries.voucher(self._tried)
        return self._voucher

    def refresh(self) -> bool:
        """Sees what has been committed since; returns whether anything of it is new."""
        # Rows before the listing, until nothing new is listed: a segment that is not there yet when the
        # others have been read can hold no episode that ended before theirs.
        changed = False
        while True:
            for table in list(self.tables.values()):
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
        return changed | self._give_way()

    def _give_way(self) -> bool:
        """Has segments whose recorder has gone on in another one hold nothing up; returns whether that is new.

        Its last episode and the time of its last commit count until the other one has committed: until then a
        kill leaves them to it.
        """
        changed = False
        successors: set[int] = set()
        gone: set[int] = set()
        for number in sorted(self.tables, reverse=True):  # a successor has the higher number
            table = self.tables[number]
            gap = bool(table.reader.attributes.get("gap", 0))
            predecessor = self.tables.get(int(table.reader.attributes.get("predecessor", -1)))
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
        read = {table.reader.path / table.reader.group for table in self.tables.values()}
        return read | set(self.unreadable) | set(self.foreign)

    def _add(self, places: list[tuple[Path, str]]) -> None:
        tables: list[Table] = []
        tried = tries.try_all(list(dict.fromkeys(path for path, _ in places if is_file(path))))
        self._tried |= tried.keys()
        self._voucher = None
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
        if not self.uuid and tables:
            self.uuid = self._identity([str(table.reader.attributes["run"]) for table in tables])
        for table in tables:
            its = str(table.reader.attributes["run"])
            if its == self.uuid:
                self._take(table)
                continue
            place = table.reader.path / table.reader.group
            self.foreign[place] = f"{place} is a segment of another run ({its}, not {self.uuid})"
            warnings.warn(f"reenact: {self.foreign[place]} and is left out", stacklevel=5)
            table.reader.close()

    def _take(self, table: Table) -> None:
        """Takes a segment in, if it lies where it was written, and only once; a file alone may have any name.

        Else addresses would name other episodes than they did.
        """
        reader, why = table.reader, ""
        if self.path.is_dir() and reader.number != layout.segment_number(reader.path.name):
            why = f"was renamed: it is segment {reader.number} of its run"
        for other in self.tables.values():
            if other.reader.attributes == reader.attributes and other.status.writer == table.status.writer:
                why = f"is a copy of {other.reader.path}"
        if why:
            reader.close()
            self._tell_unreadable(reader.path / reader.group, DamagedError(f"{reader.path} {why}"))
        else:
            self.tables[table.number] = table

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
        self.tables.pop(reader.number, None)
        self._tell_unreadable(reader.path / reader.group, error)

    def _tell_unreadable(self, place: Path, error: DamagedError) -> None:
        self.unreadable[place] = str(error)
        if self.path.is_dir() or self.pack is not None:
            warnings.warn(f"reenact: {error}; the run is read without this segment", stacklevel=5)
