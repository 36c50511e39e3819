"""Kills lose nothing that was committed of a vector env: the run is opened as it was after its writes."""

from __future__ import annotations

import gc
import sys
import warnings
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import reenact
from crash_journal import Folder, Kind, compiled, read, record
from vector_envs import ALL_MODES, DISABLED, TERMINATE, TRUNCATE, WIDTH, AutoresetMode, make

if TYPE_CHECKING:
    from pathlib import Path

STEPS = 56
WRITER = """
import ctypes, sys
import numpy as np
import reenact
from reenact import batchlog, folding
import test_vector_crash as plan

batchlog._ROWS, batchlog._FEWEST = 60, 3
folding._OBSERVED, folding._FEWEST = 100, 2
mode = plan.AutoresetMode(sys.argv[2])
envs = reenact.VectorRecorder(plan.make("batch", mode), sys.argv[1], flush_seconds=1e6)
mark = ctypes.CDLL(None).write_shim_mark
for step in plan.play(envs, mode):
    mark(f"stepped {step}".encode())
    if step % 7 == 0:
        envs.flush()
        mark(f"committed {step}".encode())
envs.close()
mark(f"committed {plan.STEPS}".encode())
"""


def play(envs: Any, mode: AutoresetMode, note: Any = None) -> Any:
    """Trains by a plan; yields how many vector steps are done, and tells `note` of lanes' resets and steps."""
    rng = np.random.default_rng(3)
    envs.reset(seed=11)
    for step in range(1, STEPS + 1):
        actions = rng.choice([0, 0, 0, 0, 0, TERMINATE, TRUNCATE], size=WIDTH)
        _, rewards, ends, cuts, _ = envs.step(actions)
        if note is not None:
            note(rewards, ends | cuts)
        yield step
        if mode is DISABLED and (ends | cuts).any():
            envs.reset(options={"reset_mask": ends | cuts})


def model(mode: AutoresetMode) -> tuple[list[list[list[float]]], list[list[int]]]:
    """The rewards of each lane's episodes, and after each vector step how many steps of episodes it has done."""
    episodes: list[list[list[float]]] = [[[]] for _ in range(WIDTH)]
    done: list[list[int]] = [[0] for _ in range(WIDTH)]
    resting = np.zeros(WIDTH, bool)

    def note(rewards: np.ndarray, over: np.ndarray) -> None:
        for lane in range(WIDTH):
            if not resting[lane]:
                episodes[lane][-1].append(float(rewards[lane]))
                if over[lane]:
                    episodes[lane].append([])
            done[lane].append(done[lane][-1] + (not resting[lane]))
        resting[:] = over & (mode.value == "NextStep")

    for _ in play(make("batch", mode), mode, note):
        pass
    return episodes, done


@pytest.fixture(name="shim", scope="module")
def _shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(tmp_path_factory.mktemp("shim"))


@pytest.mark.parametrize("mode", ALL_MODES)
def test_every_moment_of_a_vector_recording(mode: AutoresetMode, shim: Path, tmp_path: Path) -> None:
    """After any write, each lane has all its committed steps, in its episodes, none that was not done, and nothing else."""
    folder, journal = tmp_path.resolve() / "watched", tmp_path / "journal"
    folder.mkdir()
    script = tmp_path / "writer.py"
    script.write_text(WRITER)
    done = record([sys.executable, str(script), str(folder / "run"), mode.value], folder, library=shim, journal=journal)
    assert done.returncode == 0, done.stderr
    episodes, steps = model(mode)
    operations, again = read(journal, folder), Folder()
    committed = stepped = looked = changes = 0
    try:
        for operation in operations:
            if operation.kind is Kind.MARK:
                what, _, number = operation.data.decode().partition(" ")
                committed = int(number) if what == "committed" else committed
                stepped = int(number) if what == "stepped" else stepped
                continue
            again.apply(operation)
            changes += 1
            if changes % 4 or not committed:
                continue
            looked += 1
            check(again.path / "run", episodes, [(lane[committed], lane[min(stepped + 1, STEPS)]) for lane in steps])
    finally:
        again.close()
    assert looked > 15
    check(folder / "run", episodes, [(lane[STEPS], lane[STEPS]) for lane in steps])
    assert {result.verdict for result in reenact.verify(folder / "run")} == {"exact"}


def check(run: Path, episodes: list[list[list[float]]], bounds: list[tuple[int, int]]) -> None:
    """Opens a run, and compares its lanes with the model: at least so many steps, and at most so many."""
    gc.collect()  # HDF5 gives a process one file however often it is opened
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        opened = reenact.open_run(run)
    for lane, (least, most) in enumerate(bounds):
        found = [episode for episode in [*opened, *opened.live] if episode.lane == lane]
        rewards = [episode.rewards.tolist() for episode in found if episode.length]
        total = sum(map(len, rewards))
        assert least <= total <= most, (lane, least, total, most)
        expected = [one for one in episodes[lane] if one]
        assert rewards[:-1] == expected[: len(rewards) - 1]
        if rewards:
            assert rewards[-1] == expected[len(rewards) - 1][: len(rewards[-1])]
        ends = [episode.ended in ("terminated", "truncated") for episode in found if episode.length]
        assert all(one or not other for one, other in pairwise(ends))
    whole = len(opened) - len(opened.tables[0].interrupted)
    after = [whole + episode.lane for episode in list(opened)[whole:]]
    assert [episode.index for episode in opened] == [*range(whole), *after]
    for reader in opened.tables:
        reader.reader.close()
