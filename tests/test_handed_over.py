"""Runs, episodes and films in another process: pickled by path and place, read there."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import reenact
from reenact import films
from reenact import run as room
from reenact.errors import EpisodeNotFoundError, RunNotFoundError
from test_render import LENGTH, record

SOURCE = Path(reenact.__file__).resolve().parents[1]


def handed_over(what: Any) -> Any:
    """What another process would get, which has opened no run yet."""
    data = pickle.dumps(what)
    assert len(data) < 2000
    room._opened.clear()  # noqa: SLF001  # as in a process that has opened none
    return pickle.loads(data)  # noqa: S301  # our own


def test_an_episode_is_the_same_elsewhere(tmp_path: Path) -> None:
    """Number, address, actions and rewards are those of the one that was handed over, resets without a step too."""
    with_resets = reenact.Recorder(record_env(), run=tmp_path / "run")
    with_resets.reset(seed=1)
    with_resets.reset()
    with_resets.step(1)
    with_resets.close()
    for episode, _ in reenact.open_run(tmp_path / "run").timeline(0):
        there = handed_over(episode)
        assert (there.number, there.address, there.ended) == (episode.number, episode.address, episode.ended)
        assert there.actions == episode.actions
        assert np.array_equal(there.rewards, episode.rewards)
        assert there.run is not episode.run


def record_env() -> Any:
    """A Meter."""
    return gym.make("Meter-v0")


def test_a_killed_writer_s_last_episode_is_the_same_elsewhere(tmp_path: Path) -> None:
    """The one that ran when its writer was killed has no row, and is found all the same."""
    code = (
        "import os, signal, sys, gymnasium, test_render, reenact\n"
        "recorder = reenact.Recorder(gymnasium.make('Meter-v0'), run=sys.argv[1])\n"
        "recorder.reset(seed=1)\n"
        "for action in (0, 1, 1): recorder.step(action)\n"
        "recorder.flush()\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    path = os.pathsep.join((str(SOURCE), str(Path(__file__).parent)))
    subprocess.run(
        [sys.executable, "-c", code, tmp_path / "run"], env={**os.environ, "PYTHONPATH": path}, check=False, timeout=60
    )
    run = reenact.open_run(tmp_path / "run")
    ((listed, _),) = run.timeline(0)
    for episode in (run[0], listed):
        there = handed_over(episode)
        assert (there.number, there.ended, there.actions) == (0, "interrupted", [0, 1, 1])


def test_films_share_one_run(tmp_path: Path) -> None:
    """All that is handed over to a process of one run is read through one open run."""
    run = reenact.open_run(record(tmp_path / "run", 3))
    there = handed_over([films.whole(episode, "a") for episode in run])
    assert len({id(film.parts[0].episode.run) for film in there}) == 1
    assert [film.parts[0].episode.number for film in there] == [0, 1, 2]
    assert handed_over(there[1]).parts[0].end == LENGTH + 1


def test_a_run_that_was_opened_before_is_refreshed(tmp_path: Path) -> None:
    """An episode that came after another process had opened the run is found there."""
    recorder = reenact.Recorder(record_env(), run=tmp_path / "run")
    recorder.reset(seed=1)
    recorder.step(1)
    recorder.reset()
    recorder.flush()
    run = reenact.open_run(tmp_path / "run")
    there = handed_over(run)
    recorder.step(1)
    recorder.reset()
    recorder.flush()
    run.refresh()
    assert len(there) == 1
    assert pickle.loads(pickle.dumps(run[1])).actions == [1]  # noqa: S301  # our own
    assert pickle.loads(pickle.dumps(run[1])).run is there  # noqa: S301  # our own
    recorder.close()


def test_another_run_at_that_path_is_refused(tmp_path: Path) -> None:
    """Where the run has been replaced by another meanwhile, nothing is taken for its episodes."""
    episode = reenact.open_run(record(tmp_path / "run", 1))[0]
    data = pickle.dumps(episode)
    shutil.rmtree(tmp_path / "run")
    with pytest.raises(RunNotFoundError):
        pickle.loads(data)  # noqa: S301  # our own
    record(tmp_path / "run", 1)
    with pytest.raises(RunNotFoundError, match="another run"):
        pickle.loads(data)  # noqa: S301  # our own


def test_an_episode_that_is_not_there_is_told(tmp_path: Path) -> None:
    """A row or a segment that the other process can't see is an error of one line."""
    run = reenact.open_run(record(tmp_path / "run", 1))
    for segment, at in ((0, 7), (3, 0)):
        with pytest.raises(EpisodeNotFoundError):
            run.again(segment, at, 0, at)
