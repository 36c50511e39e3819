"""Reading while others write: what has a number keeps it, and what is read is what was recorded."""

from __future__ import annotations

import gc
import importlib.util
import json
import os
import subprocess
import sys
import tracemalloc
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zlib import crc32

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import bare
import reenact
from reenact import layout
from reenact.checksums import sound_rows
from reenact.slots import Status

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
_spec = importlib.util.spec_from_file_location("bench_live", ROOT / "tools" / "bench_live.py")
assert _spec is not None
assert _spec.loader is not None
bench: Any = importlib.util.module_from_spec(_spec)
sys.modules["bench_live"] = bench
_spec.loader.exec_module(bench)

STEPWISE = (
    bench.WRITER.partition("env, idle")[0]
    + """
env, k = make(), 0
for line in sys.stdin:
    what, count = line.split()
    for _ in range(int(count)):
        if what == "play":
            k += 1
            play(env, k)
        elif what == "step":
            env.step(np.zeros(1, np.float32))
        elif what == "reset":
            env.reset(seed=28)
    if what == "flush":
        env.flush()
    print(what, flush=True)
env.close()
"""
)
SUMS = [sum((k * 17 + at) % 1000 / 8 for at in range(1 + k % 29)) for k in range(10_000)]
pytestmark = pytest.mark.filterwarnings("ignore:reenact. episodes of this env can't be replayed")


class Writer:
    """A training in another process, that does what it is told, and stands still in between."""

    def __init__(self, run: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", STEPWISE, str(run), "0", "steady"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT,
        )  # fmt: skip

    def do(self, *what: str) -> None:
        """Has it done: "play 3", "step 2", "reset 1", "flush 1"."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        for line in what:
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()
            assert self.process.stdout.readline().split() == line.split()[:1]

    def kill(self) -> None:
        """Kills it, if it is still there."""
        self.process.kill()
        self.process.communicate()


@contextmanager
def writer(run: Path) -> Iterator[Writer]:
    """Starts one, and leaves none behind."""
    started = Writer(run)
    try:
        yield started
    finally:
        started.kill()


@pytest.mark.parametrize("scenario", bench.SCENARIOS, ids=lambda scenario: scenario.name)
def test_what_has_a_number_keeps_it_and_is_whole(tmp_path: Path, scenario: Any) -> None:
    """Poll after poll beside writers at full speed: no number moves, no column changes, each episode is as recorded."""
    seen = bench.watch(tmp_path, scenario, polls=25)
    assert seen.wrong == []
    assert seen.polls >= 25
    assert seen.grown >= 2
    assert seen.read >= seen.polls
    assert not seen.run.is_live
    path = seen.run.path
    del seen
    gc.collect()  # HDF5 gives a process one file: the bare reader would share it
    for log in bare.segments(path):  # and the writers' own files are unharmed
        whole = [row for row in log.rows if row["ended"] in (1, 2)]
        assert whole
        if "widen" not in scenario.name:
            ks = [int(row["seed"]) if row["seed"] >= 0 else log.details(row)["options"]["k"] for row in whole]
            assert [row["return"] for row in whole] == [
                sum((k * 17 + at) % 1000 / 8 for at in range(1 + k % 29)) for k in ks
            ]


def test_the_poll_can_fail(tmp_path: Path) -> None:
    """A number that moves, a column that changes, and an episode that is not as recorded are noticed."""
    with writer(tmp_path / "run") as training:
        training.do("play 9", "flush 1")
    seen = bench.Seen(reenact.open_run(tmp_path / "run"))
    seen.poll()
    assert seen.wrong == []
    seen.columns["index"][3] += 1
    seen.poll()
    seen.columns["return"] = np.append(seen.columns["return"], 1.0)
    seen.poll()
    with writer(tmp_path / "run-2") as training:
        training.do("reset 1", "step 29", "flush 1")  # not what its seed says
    fresh = bench.Seen(reenact.open_run(tmp_path / "run-2"))
    fresh.poll()
    assert "does not hold what was recorded" in fresh.wrong[0]
    assert ["the index of episode 3" in seen.wrong[0], "10 episodes became 9" in seen.wrong[1]] == [True, True]


def test_readers_of_one_process_see_the_same(tmp_path: Path) -> None:
    """A run opened twice, at different times, gives both of its readers the rows as they are: HDF5 would mix them up."""
    with writer(tmp_path / "run") as training:
        training.do("play 100", "flush 1")
        first = reenact.open_run(tmp_path / "run")
        training.do("play 900", "flush 1")
        second = reenact.open_run(tmp_path / "run")
        first.refresh()
        second.refresh()
        assert first.returns.tolist() == second.returns.tolist() == SUMS[1:1001]
        assert first[900].rewards.sum() == second[900].rewards.sum() == SUMS[901]
        del second
        training.do("play 1000", "flush 1")
        first.refresh()
        assert first.returns.tolist() == SUMS[1:2001]
        assert reenact.open_run(tmp_path / "run")[1999].rewards.sum() == first[1999].return_ == SUMS[2000]


def test_a_reader_from_before_the_first_commit(tmp_path: Path) -> None:
    """Who opens a run that holds nothing yet sees all that comes."""
    with writer(tmp_path / "run") as training:
        training.do("reset 1")
        run = reenact.open_run(tmp_path / "run")
        assert (len(run), run.is_live) == (0, True)
        training.do("play 700", "reset 1", "step 1", "flush 1")
        run.refresh()
        assert run.returns.tolist() == SUMS[1:701]
        assert [episode.length for episode in run.live] == [1]


def test_a_commit_just_before_a_kill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer that commits and is killed between two glances of a reader leaves all readers with the same times."""
    with writer(tmp_path / "run") as training:
        training.do("play 3", "reset 1", "step 1", "flush 1")
        run = reenact.open_run(tmp_path / "run")
        alive = Status.live

        def dies_meanwhile(status: Status) -> bool:
            if training.process.poll() is None:
                training.do("step 1", "flush 1")
                training.kill()
            return alive.__get__(status)

        monkeypatch.setattr(Status, "live", property(dies_meanwhile))
        run.refresh()
        monkeypatch.undo()
        fresh = reenact.open_run(tmp_path / "run")
        assert run[-1].ended == fresh[-1].ended == "interrupted"
        assert run[-1].end_time == fresh[-1].end_time
        assert run[-1].length == 2


def test_polls_leave_nothing_behind(tmp_path: Path) -> None:
    """Hundreds of polls of a live run add neither memory nor open files."""
    with writer(tmp_path / "run") as training:
        training.do("play 50", "flush 1")
        run = reenact.open_run(tmp_path / "run")
        run.refresh()
        gc.collect()  # what other tests have left open
        files = len(list(Path("/proc/self/fd").iterdir()))
        tracemalloc.start()
        for _ in range(300):
            run.refresh()
        gc.collect()
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(300):
            run.refresh()
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert after - before < 20_000
        assert len(list(Path("/proc/self/fd").iterdir())) == files


@given(
    count=st.integers(0, 40), damage=st.lists(st.tuples(st.integers(0, 39), st.integers(0, 129), st.integers(0, 255)))
)
def test_rows_are_checked_each_however_many_at_once(count: int, damage: list[tuple[int, int, int]]) -> None:
    """Rows whose CRC fails are told, those and no others, whatever is damaged among them."""
    dtype = layout.episode_row(2, ())
    rows = np.zeros(count, dtype)
    rows["end_time"], rows["return"] = np.arange(count) * 7, np.arange(count) / 3
    for row in rows:
        row["crc"] = crc32(row.tobytes()[:-4])
    data = bytearray(rows.tobytes())
    for row, byte, value in damage:
        if row < count:
            data[row * dtype.itemsize + byte] = value
    rows = np.frombuffer(bytes(data), dtype)
    assert sound_rows(rows).tolist() == [bare.sound(row) for row in rows]


TRAINING = """
import sys
import gymnasium as gym, reenact
env = reenact.Recorder(gym.make("CartPole-v1", max_episode_steps=12), run=sys.argv[1], flush_seconds=0.02)
env.action_space.seed(0)
number = 0
while not sys.stdin.closed and number < 10**6:
    env.reset(seed=0 if number == 0 else None)
    while not any(env.step(env.action_space.sample())[2:4]):
        pass
    number += 1
    if number == 300:
        print("ready", flush=True)
"""


def test_commands_beside_a_training(tmp_path: Path) -> None:
    """`verify`, `replay` and `show` beside a training at full speed are exact, again and again; its log is unharmed."""
    run = tmp_path / "run"
    training = subprocess.Popen(
        [sys.executable, "-c", TRAINING, str(run)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=ENVIRONMENT,
    )  # fmt: skip
    try:
        assert training.stdout is not None
        assert training.stdout.readline() == "ready\n"
        for command in (
            ["verify", "--episodes", "0:300:60,299"],
            ["replay", "--episodes", "0,200"],
            ["show", "--tail", "5"],
            ["verify", "--episodes", "100,200"],
        ):
            done = subprocess.run(
                [sys.executable, "-c", "from reenact.cli import main; main()", command[0], run, "--json", *command[1:]],
                capture_output=True, text=True, env=ENVIRONMENT, check=False,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
            found = [json.loads(line) for line in done.stdout.splitlines()]
            assert {row.get("verdict", "exact") for row in found} == {"exact"}
        for _ in range(5):
            results = reenact.verify(run, [0, 100, 299])
            assert [result.verdict for result in results] == ["exact"] * 3
        assert training.poll() is None
    finally:
        training.kill()
        training.communicate()
    log = bare.only(run)
    assert len(log.rows) >= 300
    assert {result.verdict for result in reenact.verify(run, "200:300:10,-1")} == {"exact"}
