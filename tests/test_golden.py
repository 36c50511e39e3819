"""Runs of format version 1 that were recorded once: every later version must read them, to the bit.

All hold the same training (tools/make_golden.py); the checksums of all but the oldest are of all observations up to theirs.
`packed` is a packed file of `running`, and `picked` one of its first episode alone. In `indexed`, and in the packed file of
that, rows of episodes hold their index and the segment that they are of; in `rests`, its packed file and `rests-vector`,
also the checksums of the steps before their resets. In `lanes-vector-killed` the index of what runs counts lanes.
"""

from __future__ import annotations

import gzip
import warnings
from pathlib import Path

import h5py
import numpy as np
import pytest

import reenact

PACKED = Path(__file__).parent / "data" / "format-1"


NAMES = ["segment-00000", "running", "packed", "indexed", "indexed-packed", "rests", "rests-packed"]


@pytest.fixture(name="segment", params=NAMES)
def _segment(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / "segment-00000.h5"
    path.write_bytes(gzip.decompress((PACKED / f"{request.param}.h5.gz").read_bytes()))
    return path


def test_checksums_are_of_the_kind_that_was_recorded(segment: Path) -> None:
    """Single ones stay single, running ones running: the verdict on an old log must not change."""
    data = [episode.data() for episode in reenact.open_run(segment)]
    with h5py.File(segment, "r", locking=False) as file:
        place = file.get("segment-00000", file)
        running = bytes(place.attrs.get("fingerprints", b"single")) == b"running"
    assert {one.running for one in data} == {running}
    assert [sorted(one.fingerprints) for one in data] == ([[0, 4], [0, 1], [0, 1]] if running else [[0, 4], [0], [0]])


def test_columns(segment: Path) -> None:
    """The columns are those that were recorded, and nothing warns."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run = reenact.open_run(segment)
    assert run.returns.tolist() == [2.5, 0.25, 0.25]
    assert run.lengths.tolist() == [4, 1, 1]
    assert run.first_steps.tolist() == [0, 4, 5]
    assert run.ended.tolist() == ["terminated", "interrupted", "errored"]
    assert run.seeds.tolist() == [7, None, None]
    assert run.info_keywords == ("score",)
    assert run.info("score").tolist()[0] == 40.0
    assert np.isnan(run.info("score")[1:]).all()
    assert [part.state for part in run.segments] == ["closed"]


def test_actions(segment: Path) -> None:
    """Every action has the value, the type and the sign of zero that it was given with."""
    run = reenact.open_run(segment)
    moves = [action["move"] for episode in run for action in episode.actions]
    assert [(type(move), move) for move in moves] == [
        (np.int64, 1), (int, 2), (float, 3.0), (bool, True), (int, 4), (np.int8, 0), (int, 0),
    ]  # fmt: skip
    forces = [action["force"] for episode in run for action in episode.actions]
    assert [force.tobytes().hex() for force in forces[:4]] == ["0000003f00000080"] * 4
    assert repr(forces[4]) == "[0.5, 1]"
    assert [action["word"] for episode in run for action in episode.actions] == [
        "",
        "a",
        "ab",
        "",
        "",
        "go",
        "stop",
    ]


def test_what_an_episode_can_be_started_from(segment: Path) -> None:
    """Seeds, one of them beyond int64, the RNG's state before an unseeded reset, and the reset's options are there."""
    run = reenact.open_run(segment)
    assert [episode.seed for episode in run] == [7, None, 2**70]
    assert [[origin.name for origin in episode.origins] for episode in run] == [["seed"], ["rng"], ["seed"]]
    assert run[1].options == {"level": (1, 2.5)}
    state = run[1].origins[0].rng
    assert state is not None
    assert state["bit_generator"] == "PCG64"
    rng = np.random.Generator(np.random.PCG64(7))  # the first episode's, from which nothing was drawn
    assert state == rng.bit_generator.state


def test_rewards_and_errors(segment: Path) -> None:
    """Rewards, the error that ended an episode, and checksums of observations are there."""
    run = reenact.open_run(segment)
    assert [episode.rewards.tolist() for episode in run] == [[0.25, 0.5, 0.75, 1.0], [0.25], [0.25]]
    assert run[2].error == reenact.RaisedError("builtins.RuntimeError", "told to stop", "step")
    assert run[0].error is None
    assert sorted(run[0].data().fingerprints) == [0, 4]
    durations = run[0].durations
    assert durations is not None
    assert (durations.dtype, len(durations)) == (np.dtype("f4"), 4)


def test_a_packed_file_of_one_episode(tmp_path: Path) -> None:
    """Its table is whole; the one episode is there, the others say that they are not."""
    path = tmp_path / "bug.h5"
    path.write_bytes(gzip.decompress((PACKED / "picked.h5.gz").read_bytes()))
    run = reenact.open_run(path)
    assert (run.name, run.returns.tolist(), run.seeds.tolist()) == ("counter", [2.5, 0.25, 0.25], [7, None, None])
    assert run.kept.tolist() == [True, False, False]
    assert run[0].rewards.tolist() == [0.25, 0.5, 0.75, 1.0]
    assert [type(action["move"]) for action in run[0].actions] == [np.int64, int, float, bool]
    assert (run[1].options, run[2].seed) == ({"level": (1, 2.5)}, 2**70)
    with pytest.raises(reenact.ReplayError, match=r"episode 1 are not in .*: it was packed with --episodes 0"):
        run[1].data()


@pytest.mark.parametrize(
    "name", ["vector", "vector-killed", "rests-vector", "rests-vector-killed", "lanes-vector-killed"]
)
def test_a_vector_env(name: str, tmp_path: Path) -> None:
    """Each lane's episodes are there, with their actions in their types, of a closed segment and of a killed one."""
    path = tmp_path / "segment-00000.h5"
    path.write_bytes(gzip.decompress((PACKED / f"{name}.h5.gz").read_bytes()))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run = reenact.open_run(path)
    assert [part.state for part in run.segments] == ["killed" if "killed" in name else "closed"]
    assert run.lanes.tolist() == [0, 1, 2, 0, 1, 2]
    addresses = ["0.5", "0.6"] if name.startswith("lanes") else ["0.4", "0.5"]  # lane 0 rested at the kill
    assert [episode.address for episode in run] == ["0.0", "0.1", "0.2", "0.3", *addresses]
    assert run.lengths.tolist() == [2, 3, 4, 2, 2, 1]
    assert run.returns.tolist() == [0.75, 1.5, 2.5, 0.75, 0.75, 0.25]
    assert run.ended.tolist() == ["terminated"] * 4 + ["interrupted"] * 2
    assert run.seeds.tolist() == [7, 7, 7, None, None, None]
    assert run.info("score").tolist()[:4] == [20.0, 30.0, 40.0, 20.0]
    assert run[0].options == {"level": 2}
    assert [episode.rewards.tolist() for episode in run][3:] == [[0.25, 0.5], [0.25, 0.5], [0.25]]
    given = [[repr(action) for action in episode.actions] for episode in run]
    plain, once = "array([ 0.5, -0. ], dtype=float32)", "[1, 0]"
    assert given == [[plain] * 2, [plain] * 3, [plain] * 4, [plain, once], [once, plain], [plain]]
    data = [episode.data() for episode in run]
    assert [one.origins[0].name if one.origins else None for one in data] == ["seed"] * 3 + [None] * 3
    assert [[None if move.action is None else np.shape(move.action) for move in one.actions] for one in data][3:] == [
        [(3, 2), (3, 2)],
        [(3, 2), (3, 2)],
        [(3, 2)],
    ]
    assert [max(one.fingerprints) for one in data] == run.lengths.tolist()


def test_a_later_version_is_refused_by_name(segment: Path) -> None:
    """A segment of a format version that isn't known yet says that reenact must be updated."""
    with h5py.File(segment, "r+", locking=False) as file:
        file.attrs["version"] = 2
    with pytest.raises(reenact.DamagedError, match=r"format version 2.*update reenact"):
        reenact.open_run(segment)
