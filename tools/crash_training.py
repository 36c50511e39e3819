"""A training that is killed: what tools/crash_test.py starts.

    python crash_training.py RUN PROGRESS PLAN

PLAN is JSON: form (one, fork, spawn, two; of a vector env: lanes, batch), flush_seconds, sleep (seconds a step), kill
("" or the seconds after which every process that records ends itself by os._exit), seed. Each env, or lane, leaves a
file in PROGRESS with one `RECORD` for each reset, step and flush that returned; what such a file holds when its process
is killed was done for certain.
"""

from __future__ import annotations

import json
import os
import struct
import sys
import threading
import time
import uuid
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

import reenact

RECORD = "=dqii"  # no Struct: spawn's workers get this module by value, and that can't be pickled
"""Time (s, monotonic), episode, step, what."""
RESET, STEP, FLUSHED = range(3)
DTYPE = np.dtype([("time", "f8"), ("episode", "i8"), ("step", "i4"), ("what", "i4")])
SEEDED = 3
"""Every so many episodes are seeded."""
LANES = 3
"""Of a vector env."""
FLUSHES = 1e-3
"""The share of the steps after which a flush is asked for."""


def action_of(episode: int, step: int) -> int:
    """Returns the action of a step."""
    return (episode * 31 + step * 7 + step // 3) % 2


def seed_of(base: int, episode: int) -> int | None:
    """Returns the seed of a reset."""
    return base + episode if episode % SEEDED == 0 else None


def _opened(progress: Path, base: int, lane: int) -> int:
    path = progress / f"{os.getpid()}_{base}_{lane}_{uuid.uuid4().hex}"
    return os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND)


def _note(file: int, episode: int, step: int, what: int) -> None:
    os.write(file, struct.pack(RECORD, time.monotonic(), episode, step, what))


class Noting(gym.Wrapper[Any, Any, Any, Any]):
    """Stands on top of a recorder, and notes what returned from it; its actions are planned."""

    def __init__(self, env: gym.Env[Any, Any], progress: Path, base: int, plan: dict[str, Any]) -> None:
        super().__init__(env)
        self._file = _opened(progress, base, -1)
        self._base, self._episode, self._step, self._sleep = base, -1, 0, plan["sleep"]
        self._rng = np.random.default_rng(base)
        if plan["kill"]:
            threading.Thread(target=_end, args=(plan["kill"],), daemon=True).start()

    def _note(self, what: int) -> None:
        _note(self._file, self._episode, self._step, what)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:  # noqa: ARG002  # planned
        """Begins the next episode."""
        self._episode, self._step = self._episode + 1, 0
        result = self.env.reset(seed=seed_of(self._base, self._episode))
        self._note(RESET)
        return result

    def step(self, action: Any) -> Any:  # noqa: ARG002  # planned
        """Goes on."""
        result = self.env.step(action_of(self._episode, self._step))
        self._step += 1
        self._note(STEP)
        if self._sleep:
            time.sleep(self._sleep)
        if self._rng.random() < FLUSHES:
            self.env.flush()  # type: ignore[attr-defined]  # a Recorder
            self._note(FLUSHED)
        return result


def _end(after: float) -> None:
    time.sleep(after)
    os._exit(1)


def make(run: Path, progress: Path, base: int, plan: dict[str, Any]) -> gym.Env[Any, Any]:
    """Makes a recorded env."""
    env = reenact.Recorder(gym.make("CartPole-v1"), run, flush_seconds=plan["flush_seconds"], role=str(base))
    return Noting(env, progress, base, plan)


def train(run: Path, progress: Path, base: int, plan: dict[str, Any]) -> None:
    """Steps one env until the process is killed."""
    env = make(run, progress, base, plan)
    while True:
        env.reset()
        ended = False
        while not ended:
            _, _, terminated, truncated, _ = env.step(0)
            ended = terminated or truncated


def train_lanes(run: Path, progress: Path, base: int, plan: dict[str, Any]) -> None:
    """Steps a vector env until the process is killed; only its first reset is the user's, and seeded."""
    kind = "sync" if plan["form"] == "lanes" else "vector_entry_point"
    envs = gym.make_vec("CartPole-v1", LANES, kind)
    recorder = reenact.VectorRecorder(envs, run, flush_seconds=plan["flush_seconds"], role=str(base))
    files = [_opened(progress, base, lane) for lane in range(LANES)]
    episodes, steps, over = [0] * LANES, [0] * LANES, np.zeros(LANES, bool)
    random = np.random.default_rng(base)
    if plan["kill"]:
        threading.Thread(target=_end, args=(plan["kill"],), daemon=True).start()
    recorder.reset(seed=base)
    for file in files:
        _note(file, 0, 0, RESET)
    while True:
        actions = [action_of(episode, step) for episode, step in zip(episodes, steps, strict=True)]
        _, _, terminations, truncations, _ = recorder.step(np.array(actions))
        for lane, file in enumerate(files):
            if over[lane]:  # it was reset instead
                episodes[lane], steps[lane] = episodes[lane] + 1, 0
            else:
                steps[lane] += 1
            _note(file, episodes[lane], steps[lane], RESET if over[lane] else STEP)
        over = terminations | truncations
        if plan["sleep"]:
            time.sleep(plan["sleep"])
        if random.random() < FLUSHES:
            recorder.flush()
            for lane, file in enumerate(files):
                _note(file, episodes[lane], steps[lane], FLUSHED)


def main() -> None:
    """Trains in the form that the plan wants, for ever."""
    run, progress, plan = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
    bases = [plan["seed"], plan["seed"] + 1_000_000]
    if plan["form"] == "two":
        other = get_context("spawn").Process(target=train, args=(run, progress, bases[1], plan), daemon=True)
        other.start()
    print("ready", flush=True)
    if plan["form"] in ("lanes", "batch"):
        train_lanes(run, progress, bases[0], plan)
    if plan["form"] in ("fork", "spawn"):
        makers = [partial(make, run, progress, base, plan) for base in bases]
        envs = gym.vector.AsyncVectorEnv(makers, context=plan["form"])
        envs.reset()
        while True:
            envs.step(np.zeros(2, np.int64))
    train(run, progress, bases[0], plan)


if __name__ == "__main__":
    main()
