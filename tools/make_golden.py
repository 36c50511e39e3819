"""Makes the runs in tests/data/format-1, which every later version must read.

It is kept as it was made: run this again only for a new format version, into a new folder. What the test
expects (tests/test_golden.py) are literals, printed here, so that a bug in reading can't cancel itself.

    python tools/make_golden.py tests/data/format-1
    python tools/make_golden.py tests/data/format-1 vector      of a vector env: closed, and as a kill would leave it
"""

from __future__ import annotations

import contextlib
import gzip
import itertools
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import gymnasium as gym
import h5py
import numpy as np
from gymnasium import spaces
from gymnasium.vector import VectorEnv
from gymnasium.vector.utils import batch_space

import reenact


class Counter(gym.Env[Any, Any]):
    """An env whose rewards and endings follow from its steps alone."""

    action_space = spaces.Dict(move=spaces.Discrete(5), force=spaces.Box(-1, 1, (2,), np.float32), word=spaces.Text(4))
    observation_space = spaces.Box(-1, 100, (1,), np.float32)

    def __init__(self) -> None:
        self.steps = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begins again."""
        super().reset(seed=seed, options=options)
        self.steps = 0
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Rewards a quarter of the number of the step; ends after four, or raises when told to."""
        self.steps += 1
        if action["word"] == "stop":
            raise RuntimeError("told to stop")
        done = self.steps == 4  # noqa: PLR2004  # the episode's length
        return np.full(1, self.steps, np.float32), 0.25 * self.steps, done, False, {"score": 10 * self.steps}


class Counters(VectorEnv):
    """Lanes that count; lane k's episodes have k + 2 steps, and are reset in the step after."""

    def __init__(self) -> None:
        # not at the head: Gymnasium 1.0 has no such name, and the fuzzing takes `Counter` from here
        self.num_envs, self.metadata = 3, {"autoreset_mode": gym.vector.AutoresetMode.NEXT_STEP}
        self.single_action_space: spaces.Space[Any] = spaces.Box(-1, 1, (2,), np.float32)
        self.single_observation_space = spaces.Box(-1, 100, (1,), np.float32)
        self.action_space = batch_space(self.single_action_space, 3)
        self.observation_space = batch_space(self.single_observation_space, 3)
        self.steps = np.zeros(3, int)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:  # noqa: ARG002 - counts
        """Begins again."""
        super().reset(seed=seed)
        self.steps[:] = 0
        return self.steps[:, None].astype(np.float32), {}

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:  # noqa: ARG002 - counts
        """Rewards a quarter of the number of the step."""
        rests = self.steps == np.arange(3) + 2
        self.steps = np.where(rests, 0, self.steps + 1)
        ends = self.steps == np.arange(3) + 2
        return (
            self.steps[:, None].astype(np.float32),
            self.steps / 4,
            ends,
            np.zeros(3, bool),
            {"score": 10 * self.steps},
        )


def vector(folder: Path) -> None:
    """Records a vector env, as it is when a kill comes and when it is closed, long ago: who wrote it is dead."""
    clock = itertools.count(1_735_689_600_000_000_000, 1_000_000)  # 2025, a millisecond a look
    with mock.patch("time.time_ns", clock.__next__):
        _vector(folder)


def _vector(folder: Path) -> None:
    envs = reenact.VectorRecorder(Counters(), run=folder, info_keywords=("score",))
    envs.reset(seed=7, options={"level": 2})
    path = folder / "segment-00000.h5"
    for step in range(6):
        envs.step(np.full((3, 2), [0.5, -0.0], np.float32) if step != 4 else [[1, 0]] * 3)  # noqa: PLR2004 - Python ints once
        if step == 3:  # noqa: PLR2004 - a commit in the middle of episodes
            envs.flush()
    envs.flush()
    (folder / "killed.h5").write_bytes(path.read_bytes())
    _compress(folder / "killed.h5", folder / "vector-killed.h5.gz")
    envs.close()
    with h5py.File(path, "r", locking=False) as file:
        print(dict(file.attrs))
        print(file["episodes"][:])
    _compress(path, folder / "vector.h5.gz")
    (folder / "run.json").unlink()


def main(folder: Path) -> None:
    """Records, and prints what was recorded."""
    env = reenact.Recorder(Counter(), run=folder, info_keywords=("score",), step_durations=True)
    kinds: list[Any] = [np.int64(1), 2, 3.0, True]
    env.reset(seed=7)
    for at in range(4):
        env.step({"force": np.array([0.5, -0.0], np.float32), "move": kinds[at], "word": "ab"[: at % 3]})
    env.reset(options={"level": (1, 2.5)})
    env.step({"force": [0.5, 1], "move": 4, "word": ""})
    env.reset(seed=2**70)
    env.step({"force": np.ones(2, np.float32), "move": np.int8(0), "word": "go"})
    with contextlib.suppress(RuntimeError):
        env.step({"force": np.ones(2, np.float32), "move": 0, "word": "stop"})
    env.close()
    path = folder / "segment-00000.h5"
    with h5py.File(path, "r", locking=False) as file:
        print(dict(file.attrs))
        print(file["episodes"][:])
    pack(folder, folder)
    _compress(path, path.with_name(path.name + ".gz"))  # chunks are whole from the first row on: mostly zeros
    (folder / "run.json").unlink()


def pack(run: Path, folder: Path) -> None:
    """Packs a run's three episodes, and the first of them alone."""
    for name, episodes in (("packed", None), ("picked", 0)):
        found = reenact.pack(run, folder / f"{name}.h5", episodes=episodes)
        _compress(found.path, folder / f"{name}.h5.gz")


def _compress(path: Path, packed: Path) -> None:
    packed.write_bytes(gzip.compress(path.read_bytes(), mtime=0))
    print(packed, packed.stat().st_size, "bytes")
    path.unlink()


if __name__ == "__main__":
    (vector if sys.argv[2:] == ["vector"] else main)(Path(sys.argv[1]))
