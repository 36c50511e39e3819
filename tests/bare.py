"""Reads segments with h5py and zlib alone: a bug of the package's reader can't hide one of its writer."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zlib import crc32

import h5py
import numpy as np

ENDED = {0: "nothing", 1: "terminated", 2: "truncated", 3: "interrupted", 4: "errored"}


@dataclass
class Bare:
    """All that a segment holds, in memory."""

    path: Path
    attrs: dict[str, Any]
    columns: dict[str, np.ndarray] = field(default_factory=dict)
    rows: np.ndarray = field(default_factory=lambda: np.zeros(0))
    running: list[np.void] = field(default_factory=list)
    said: np.ndarray = field(default_factory=lambda: np.zeros(0))
    closed: bool = False
    heap: bytes = b""
    fingerprints: np.ndarray = field(default_factory=lambda: np.zeros(0))
    kinds: np.ndarray = field(default_factory=lambda: np.zeros(0))
    states: np.ndarray = field(default_factory=lambda: np.zeros(0))

    def blob(self, ref: np.void) -> bytes:
        """What a heap reference points to."""
        data = self.heap[int(ref["offset"]) : int(ref["offset"]) + int(ref["length"])]
        assert len(data) == ref["length"]
        assert not data or crc32(data) == ref["crc"]
        return data

    def details(self, row: np.void) -> dict[str, Any]:
        """Options, error and long seed of an episode."""
        return json.loads(self.blob(row["details"]) or "{}")

    def column(self, name: str, row: np.void) -> np.ndarray:
        """An episode's part of a column."""
        return self.columns[name][self.steps(row)]

    def steps(self, row: np.void) -> slice:
        """The rows of an episode's steps."""
        first, apart = int(row["first_step"]), int(self.attrs["batch_width"])
        return slice(first, first + int(row["n_actions"]) * apart, apart)

    @property
    def open(self) -> np.void | None:
        """The row of the one episode that runs, or None."""
        assert len(self.running) < 2
        return self.running[0] if self.running else None

    def action_kinds(self, row: np.void) -> list[Any]:
        """The kind of each action of an episode."""
        steps = range(int(self.attrs["batch_width"]) * len(self.columns["reward"]))[self.steps(row)]
        found = [json.loads(self.blob(kind["kind"])) for kind in self.kinds]
        return [found[int(np.searchsorted(self.kinds["step"], step, side="right")) - 1] for step in steps]

    @property
    def ended(self) -> list[str]:
        """How the episodes ended."""
        return [ENDED[int(row["ended"])] for row in self.rows]


def sound(row: np.void) -> bool:
    """Whether a row's CRC holds."""
    return crc32(row.tobytes()[:-4]) == row["crc"]


def read(path: Path, group: str = "/") -> Bare:
    """Reads a segment, or one in a packed file, and checks every checksum and every reference in it."""
    with h5py.File(path, "r", swmr=group == "/", locking=False) as whole:
        file = whole[group]
        bare = Bare(path, {k: v.decode() if isinstance(v, bytes) else v for k, v in file.attrs.items()})
        episodes = file["episodes"]
        episodes.id.refresh()
        bare.rows = episodes[:]
        for name in json.loads(bare.attrs["columns"]):
            bare.columns[name] = file[f"steps/{name}"][:]
        bare.heap = file["heap"][:].tobytes()
        bare.fingerprints, bare.kinds, bare.states = (
            file["fingerprints"][:],
            file["kinds"][:],
            file["states"][:],
        )
        slots = [slot for slot in file["open"][:] if slot["sequence"] and sound(slot)]
        latest = max(slots, key=lambda slot: slot["sequence"], default=None)
        if latest is not None:
            bare.said = np.atleast_1d(latest["row"])
            bare.running = list(bare.said[np.atleast_1d(latest["used"]) == 1])
        status = [slot for slot in file["status"][:] if sound(slot)]
        bare.closed = bool(max(status, key=lambda slot: slot["sequence"])["closed"])
    for row in [*bare.rows, *bare.running]:
        check(bare, row)
    if "rest_crcs" in (bare.rows.dtype.names or ()):  # not in the first segments
        check_rests(bare)
    for table in (bare.kinds, bare.states):
        unsound = [not sound(row) for row in table]
        # a commit that found no room may leave rows at the end that were never written, and nothing refers to them
        assert not any(unsound) or not (bare.closed or any(table[unsound.index(True) :].tobytes()))
    assert (np.diff(bare.rows["end_time"]) >= 0).all()
    if "index" in (bare.rows.dtype.names or ()):  # not in the first segments
        before = np.cumsum(bare.rows["ended"] != 0) - (bare.rows["ended"] != 0)
        assert bare.rows["index"].tolist() == before.tolist()
        if "autoreset" in bare.attrs:
            ended = int((bare.rows["ended"] != 0).sum())
            before_them = {int(row["index"]) - int(row["lane"]) for row in bare.running}
            assert len(before_them) < 2  # a lane's index depends on no other
            assert all(0 <= one <= ended for one in before_them)
        elif bare.open is not None:
            last, index = bare.rows[-1:], int(bare.open["index"])
            # in the middle of a commit, the slot is older than the rows, and its episode one of theirs
            runs = bare.open["first_step"] >= (last["first_step"] + last["n_actions"]).sum()
            ended = int((bare.rows["ended"] != 0).sum())
            assert index == ended if runs else index < ended
    return bare


def check(bare: Bare, row: np.void) -> None:
    """Fails unless an episode's row, its steps and all it refers to are whole."""
    assert sound(row)
    assert int(row["n_actions"]) - int(row["length"]) == (bare.details(row).get("error", {}).get("where") == "step")
    crcs = list(row["column_crcs"])
    for name, crc in zip(bare.columns, crcs[:-1], strict=True):
        assert len(bare.column(name, row)) == row["n_actions"], name
        assert crc32(bare.column(name, row).tobytes()) == crc, name
    first, count = int(row["first_fingerprint"]), int(row["n_fingerprints"])
    assert first + count <= len(bare.fingerprints)
    assert crc32(bare.fingerprints[first : first + count].tobytes()) == crcs[-1]
    assert int(row["first_state"]) + int(row["n_states"]) <= len(bare.states)
    for state in bare.states[int(row["first_state"]) : int(row["first_state"]) + int(row["n_states"])]:
        assert bare.blob(state["data"])
    bare.details(row)


def check_rests(bare: Bare) -> None:
    """Fails unless what an env, or a lane, did after an end and before the next reset has its checksums there."""
    width = int(bare.attrs["batch_width"])
    for lane in range(width):
        end = lane
        mine = [row for row in [*bare.rows, *bare.said] if width == 1 or row["lane"] == lane]
        for at, row in enumerate(mine):
            first = int(row["first_step"])
            if first < end and at == len(mine) - 1:  # in the middle of a commit, the slot is older than the rows
                break
            rests = [crc32(column[end:first:width].tobytes()) for column in bare.columns.values()]
            assert row["rest_crcs"].tolist() == rests
            end = first + int(row["n_actions"]) * width
        if bare.closed and sound(bare.said[0] if len(bare.said) else np.zeros(1, bare.rows.dtype)[0]):
            assert end == len(bare.columns["reward"]) + lane


def segments(run: Path) -> list[Bare]:
    """Reads all of a run's segments, by number."""
    return [read(path) for path in sorted(Path(run).glob("segment-*.h5"))]


def only(run: Path) -> Bare:
    """Reads the one segment that a run has."""
    (bare,) = segments(run)
    return bare
