"""Clocks that jump: what is logged keeps its order, its numbers and its commits, whatever the machine says the time is."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import h5py
import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

import reenact
from bare import only, segments, sound
from reenact.process import STALE_S, Process, this_process
from reenact.segments import TICK_SHARE

if TYPE_CHECKING:
    from collections.abc import Callable

HOUR = 3600 * 10**9
pytestmark = pytest.mark.filterwarnings("ignore:reenact. episodes of this env can't be replayed")


class Clocks:
    """A wall clock (ns since 1970) and a clock for durations (s) that tests set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.wall, self.steady = 1_800_000_000 * 10**9, 1000.0
        monkeypatch.setattr(time, "time_ns", lambda: self.wall)
        monkeypatch.setattr(time, "perf_counter", lambda: self.steady)

    def go(self, seconds: float) -> None:
        """Lets time pass."""
        self.wall += int(seconds * 1e9)
        self.steady += seconds


class Ticking(gym.Env[int, int]):
    """Calls something at each step; its episodes end after three, or when it is asked to."""

    action_space: spaces.Space[Any] = spaces.Discrete(2)
    observation_space: spaces.Space[Any] = spaces.Discrete(2)

    def __init__(self, call: Callable[[], None] = lambda: None, length: int = 3) -> None:
        self.call, self.length = call, length

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
        """Begins again."""
        super().reset(seed=seed, options=options)
        self.at = 0
        return 0, {}

    def step(self, action: int) -> tuple[int, float, bool, bool, dict[str, Any]]:  # noqa: ARG002  # Gymnasium's signature
        """Calls."""
        self.call()
        self.at += 1
        return 0, 1.0, self.at == self.length, False, {}


def heartbeat(path: Path) -> int:
    """The last commit that a segment's status tells of, by bare h5py."""
    with h5py.File(path, "r", swmr=True, locking=False) as file:
        slots = [slot for slot in file["status"][:] if sound(slot)]
    return int(max(slots, key=lambda slot: slot["sequence"])["heartbeat"])


JUMPS = st.lists(
    st.tuples(st.sampled_from(("end", "step", "flush")), st.integers(0, 1), st.integers(-3 * HOUR, 3 * HOUR)),
    min_size=1,
    max_size=15,
)


class Watch:
    """What a reader has been told of a run, and must not be told otherwise later."""

    def __init__(self, run: Path) -> None:
        self.run, self.numbered = run, list[tuple[int, int]]()
        self.rows: dict[Path, int] = {}
        self.beats: dict[Path, int] = {}

    def numbers(self, opened: reenact.Run) -> None:
        """Fails if a number has moved, or a segment's episodes have another order than their indices."""
        now = list(zip(opened.segment_numbers.tolist(), opened.segment_indices.tolist(), strict=True))
        assert now[: len(self.numbered)] == self.numbered
        self.numbered = now
        for segment in {at for at, _ in now}:
            of_segment = [index for at, index in now if at == segment]
            assert of_segment == list(range(len(of_segment)))

    def files(self) -> None:
        """Fails if a heartbeat has fallen, or a new episode ended before the last one."""
        for log in segments(self.run):  # whose end times never fall: it checks
            before, beat = self.beats.get(log.path, 0), heartbeat(log.path)
            assert (log.rows["end_time"][self.rows.get(log.path, 0) :] >= before).all()
            assert beat >= before
            self.rows[log.path], self.beats[log.path] = len(log.rows), beat


@settings(max_examples=12, deadline=None)
@given(moves=JUMPS, killed=st.booleans())
def test_a_wall_clock_that_jumps_moves_no_episode(moves: list[tuple[str, int, int]], killed: bool) -> None:
    """Each segment's episodes stay in their order, end times never fall, and a number that was given stays."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        monkeypatch = stack.enter_context(pytest.MonkeyPatch.context())
        clocks, run = Clocks(monkeypatch), Path(folder) / "run"
        envs = [stack.enter_context(contextlib.closing(reenact.Recorder(Ticking(), run=run))) for _ in range(2)]
        for env in envs:
            env.reset()
            env.flush()
        opened, watch = reenact.open_run(run), Watch(run)
        for what, which, jump in moves:
            clocks.wall += jump
            envs[which].step(0)
            if what == "end":
                envs[which].reset()
            elif what == "flush":
                envs[which].flush()
            watch.files()
            opened.refresh()
            watch.numbers(opened)
        for env in envs:
            env.flush() if killed else env.close()
        if killed:  # as far as readers can tell
            monkeypatch.setattr(Process, "is_alive", lambda *_: False)
        watch.files()
        opened.refresh()
        watch.numbers(opened)
        watch.numbers(reenact.open_run(run))
        assert len(opened) == sum(segment.episodes for segment in opened.segments)


@pytest.mark.parametrize("jump", [-HOUR, 0, HOUR])
def test_a_commit_is_due_whatever_the_wall_clock_says(
    jump: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No more than `flush_seconds` of training is uncommitted, and a look at the clock, where the wall clock jumps."""
    clocks, count = Clocks(monkeypatch), 0

    def call() -> None:
        nonlocal count
        clocks.go(0.01)
        clocks.wall += jump if count % 50 == 0 else 0
        count += 1

    env = reenact.Recorder(Ticking(call, 10**9), run=tmp_path / "run", flush_seconds=1.0)
    env.reset()
    for step in range(1, 1001):
        env.step(0)
        if step % 37 == 0:
            running = only(tmp_path / "run").open
            committed = 0 if running is None else int(running["n_actions"])
            assert step - committed <= (1.0 + TICK_SHARE) / 0.01 + 1
    env.close()
    assert reenact.open_run(tmp_path / "run").elapsed.tolist() == [pytest.approx(10.0)]


def test_a_commit_is_due_after_a_suspend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the machine slept for eight hours, the next look at the clock commits, and the step took as long."""
    clocks = Clocks(monkeypatch)
    env = reenact.Recorder(
        Ticking(lambda: clocks.go(0.01), 100), run=tmp_path / "run", flush_seconds=60.0, step_durations=True
    )
    env.reset()
    for step in range(100):
        if step == 50:
            clocks.go(8 * 3600)
        env.step(0)
        running = only(tmp_path / "run").open
        assert (running is not None) == (step >= 50)
    env.close()
    (episode,) = reenact.open_run(tmp_path / "run")
    assert episode.elapsed == pytest.approx(8 * 3600 + 1)
    assert episode.durations is not None
    assert episode.durations[50] == pytest.approx(8 * 3600, rel=1e-5)
    assert (episode.durations >= 0).all()


def test_a_steady_clock_that_sleeps_with_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a suspend is seen by the wall clock alone (Linux), elapsed leaves it out, and what ended keeps its order."""
    clocks = Clocks(monkeypatch)
    env = reenact.Recorder(Ticking(lambda: clocks.go(1.0)), run=tmp_path / "run")
    for jump in (0, 8 * HOUR, -16 * HOUR, 0):
        env.reset()
        env.step(0)
        clocks.wall += jump
        env.step(0)
        env.step(0)
    env.close()
    run = reenact.open_run(tmp_path / "run")
    assert run.elapsed.tolist() == [3.0, 3.0, 3.0, 3.0]
    assert run.segment_indices.tolist() == [0, 1, 2, 3]
    ends = run.started + np.rint(run.elapsed * 1e9).astype("timedelta64[ns]")
    assert (np.diff(ends).astype(int) >= 0).all()


def test_a_writer_here_lives_by_its_pid_whatever_the_clock_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """On one machine no clock is asked; a writer elsewhere is dead ten minutes after its last commit, not before it."""
    clocks = Clocks(monkeypatch)
    here = this_process()
    elsewhere = Process("elsewhere", 1, "boot", 1)
    for ago in (-10 * HOUR, 0, int(STALE_S * 1e9) - 1, int(STALE_S * 1e9), 10 * HOUR):
        assert here.is_alive(clocks.wall - ago)
        assert elsewhere.is_alive(clocks.wall - ago) == (ago < STALE_S * 1e9)


def test_a_run_that_goes_on_after_the_clock_was_set_back(tmp_path: Path) -> None:
    """Episodes of a later recorder come after those that are there, by numbers too, whatever the clock says by then."""
    with pytest.MonkeyPatch.context() as patch:
        real = time.time_ns
        patch.setattr(time, "time_ns", lambda: real() + HOUR)
        _two_episodes(tmp_path / "run")
    file = tmp_path / "run" / "segment-00000.h5"
    then = file.stat().st_mtime_ns + HOUR
    os.utime(file, ns=(then, then))  # the disk went by that clock, too
    _two_episodes(tmp_path / "run")
    run = reenact.open_run(tmp_path / "run")
    assert [run[number].address for number in range(4)] == ["0.0", "0.1", "1.0", "1.1"]


def _two_episodes(run: Path) -> None:
    with contextlib.closing(reenact.Recorder(Ticking(), run)) as env:
        for _ in range(2):
            env.reset()
            for _ in range(3):
                env.step(0)
