"""Trainings that are recorded write by write, and what each of their episodes is.

    python crash_writers.py SCENARIO RUN

All that happens in an episode follows from its key, which is its seed, or stands in its reset's options. So what a
log must hold is known without any log; the marks that `Witness` leaves in the journal say how far the training was.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

import reenact
from reenact import segments, writer

SPACES: dict[str, gym.Space[Any]] = {
    "number": spaces.Discrete(1000),
    "vector": spaces.Box(-1, 1, (3,), np.float32),
    "dict": spaces.Dict(
        {"arm": spaces.Box(-1, 1, (2,), np.float32), "leg": spaces.Discrete(3), "word": spaces.Text(8)}
    ),
}
WIDE = 7
"""In every so many episodes, from its middle on, a vector has values that float32 does not hold."""
BIG = 3
"""Every so many episodes have reset options of 20 kB, as much as an emulator's state."""


def length_of(key: int) -> int:
    """Returns how many steps an episode has if it is let to end."""
    return 3 + key * 7 % 11


def ended_of(key: int) -> str:
    """Returns how it ends then."""
    return "terminated" if key % 2 else "truncated"


def action_of(kind: str, key: int, step: int) -> Any:
    """Returns the action of a step."""
    if kind == "number":
        return int(key * 31 + step * 7) % 1000
    value = np.float32(((key * 13 + step * 5) % 64) / 64)
    if kind == "vector":
        wide = key % WIDE == WIDE - 1 and step > length_of(key) // 2
        return np.full(3, 0.1 + key + step) if wide else np.array([value, -value, step / 64], np.float32)
    return {"arm": np.array([value, -value], np.float32), "leg": (key + step) % 3, "word": "ab"[: 1 + step % 2]}


def reward_of(key: int, step: int) -> float:
    """Returns the reward of a step."""
    return key + step / 7


def seed_of(key: int) -> int | None:
    """Returns the seed that its reset is given."""
    return key if key % 4 else None


def options_of(key: int) -> dict[str, Any] | None:
    """Returns the options that its reset is given."""
    text = {"text": np.random.default_rng(key).bytes(10000).hex()} if key % BIG == 0 else {}
    return {"key": key, **text} if seed_of(key) is None or text else None


class Planned(gym.Env[Any, Any]):
    """Does what the functions above say."""

    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float64)

    def __init__(self, kind: str) -> None:
        self.action_space, self._key, self._step = SPACES[kind], 0, 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begins the episode of that key."""
        super().reset(seed=seed)
        self._key = seed if seed is not None else (options or {})["key"]
        self._step = 0
        return np.array([self._key, 0.0]), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:  # noqa: ARG002  # planned
        """Goes on."""
        reward = reward_of(self._key, self._step)
        self._step += 1
        over = self._step == length_of(self._key)
        ended = ended_of(self._key)
        return (
            np.array([self._key, self._step]),
            reward,
            over and ended == "terminated",
            over and ended == "truncated",
            {},
        )


class Witness:
    """A recorded env, and the marks of what it did: "role: what".

    `reset KEY` and `step` come before the calls, `committed` after a flush or a close returned, `disk full` where
    what was done since the last commit may be lost.
    """

    def __init__(self, run: Path, kind: str, who: str, **options: Any) -> None:
        self.kind, self.role = kind, f"{kind}-{who}"
        self.env = reenact.Recorder(Planned(kind), run, role=self.role, **{"flush_seconds": 1e6, **options})
        self._shim = ctypes.CDLL(None)
        self._key, self._step = 0, 0

    def mark(self, what: str) -> None:
        """Writes a mark."""
        if hasattr(self._shim, "write_shim_mark"):
            self._shim.write_shim_mark(f"{self.role}: {what}".encode())

    def reset(self, key: int) -> None:
        """Resets the env to an episode."""
        self._key, self._step = key, 0
        self.mark(f"reset {key}")
        self.env.reset(seed=seed_of(key), options=options_of(key))

    def step(self, count: int = 1) -> None:
        """Goes on with the episode."""
        for _ in range(count):
            self.mark("step")
            self.env.step(action_of(self.kind, self._key, self._step))
            self._step += 1

    def whole(self, *keys: int) -> None:
        """Lets episodes go from reset to end."""
        for key in keys:
            self.reset(key)
            self.step(length_of(key))

    def flush(self) -> None:
        """Commits."""
        self.env.flush()
        self.mark("committed")

    def close(self) -> None:
        """Closes the recorder."""
        self.env.close()
        self.mark("committed")

    def fill_disk(self, writes: int, last: int = 0) -> None:
        """Has the disk full after so many writes; of the next one, `last` bytes still go out."""
        self._shim.write_shim_fail(ctypes.c_long(writes), ctypes.c_long(last))

    def empty_disk(self) -> None:
        """Has room again."""
        self._shim.write_shim_fail(ctypes.c_long(-1), ctypes.c_long(0))


def plain(run: Path, kind: str = "number", **options: Any) -> None:
    """Makes a segment, commits some episodes at a time, in and between episodes, and closes it."""
    env = Witness(run, kind, "plain", **options)
    env.reset(1)
    env.step(2)
    env.flush()
    env.step(length_of(1) - 2)
    env.whole(2, 3, 4)
    env.flush()
    env.reset(5)
    env.flush()
    env.step(2)
    env.flush()
    env.reset(6)  # 5 is interrupted
    env.reset(7)  # 6 had no step
    for _ in range(3):
        env.step()
        env.flush()
    env.whole(8, 9, 10, 11, 12)
    env.flush()
    env.reset(13)
    env.step(2)
    env.close()


def composite(run: Path) -> None:
    """Dict actions, one leaf of them text, which lies in the heap."""
    plain(run, "dict")


def durable(run: Path) -> None:
    """Text and numbers, with commits that the disk has."""
    plain(run, "dict", durable=True)


def durable_widening(run: Path) -> None:
    """A new segment, with commits that the disk has."""
    widening(run, durable=True)


def durable_long(run: Path) -> None:
    """Long tables, with commits that the disk has."""
    long(run, last=1001, durable=True)


def widening(run: Path, **options: Any) -> None:
    """A column gets too narrow in the middle of an episode, of which some is committed: it goes on in a new segment."""
    env = Witness(run, "vector", "widening", **options)
    env.whole(4, 5)
    env.flush()
    env.whole(1)
    env.reset(6)
    env.step(length_of(6) // 2)
    env.flush()
    env.step(length_of(6) - length_of(6) // 2)
    env.flush()
    env.whole(7, 8)
    env.close()


def busy(run: Path) -> None:
    """Commits at every look at the clock, as a training with slow steps does, and is never closed."""
    env = Witness(run, "number", "busy", flush_seconds=1e-6, fingerprint_every=1, step_durations=True)
    env.whole(*range(1, 16))
    env.flush()
    os._exit(0)


def long(run: Path, last: int = 3001, **options: Any) -> None:
    """So many steps, episodes and bytes of options that every table gets further chunks, and their index a tree."""
    env = Witness(run, "number", "long", **options)
    for first in range(1, last, 100):
        env.whole(*range(first, first + 100))
        env.flush()
    os._exit(0)


def fork(run: Path) -> None:
    """The process forks in mid-episode: one child ends by exit, one at once, one goes on recording."""
    env = Witness(run, "number", "parent")
    env.whole(1, 2)
    env.flush()
    env.reset(3)
    env.step(2)
    for ending in ("exit", "_exit", "record", "close"):
        child = os.fork()
        if child == 0:
            _child(env, ending)
        env.step()
        env.flush()
        os.waitpid(child, 0)
        env.step()
        env.flush()
    env.whole(4)
    env.close()


def _child(env: Witness, ending: str) -> None:
    if ending == "exit":
        ctypes.CDLL(None).exit(0)
    if ending == "record":
        env.whole(101, 102)
        env.flush()
        env.reset(103)
        env.step()
    if ending == "close":
        env.env.close()
    os._exit(0)


def full(run: Path, writes: int = 20, last: int = 0) -> None:
    """The disk gets full, with or without a piece of a write still done; later there is room again."""
    segments.RETRY_S = 0.0
    warnings.simplefilter("ignore", RuntimeWarning)
    env = Witness(run, "number", "full")
    env.whole(1, 2, 3)
    env.flush()
    env.fill_disk(writes, last)
    for first in range(4, 16, 2):
        env.whole(first, first + 1)
        env.env.flush()
        env.mark("disk full")
    env.reset(16)
    env.mark("disk full")
    env.empty_disk()
    env.whole(20, 21)
    env.flush()
    env.whole(22)
    env.close()


def careless(run: Path) -> None:
    """A writer without the barrier between steps and rows: what the check must not let pass."""
    writer.SegmentWriter.flush = lambda self: None  # type: ignore[assignment,method-assign]  # noqa: ARG005
    plain(run)


def _worker(run: Path, who: str) -> None:
    env = Witness(run, "number", who)
    for first in range(1, 12, 3):
        env.whole(first, first + 1)
        env.flush()
        env.whole(first + 2)
    env.close()


def workers(run: Path) -> None:
    """Two processes and two threads' envs of one of them make their segments in one run at once."""
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_worker, args=(run, f"worker{number}")) for number in range(2)]
    for process in processes:
        process.start()
    threads: list[Any] = [threading.Thread(target=_worker, args=(run, f"thread{number}")) for number in range(2)]
    for thread in threads:
        thread.start()
    for waiting in [*threads, *processes]:
        waiting.join()


SCENARIOS = {
    "plain": plain,
    "composite": composite,
    "widening": widening,
    "busy": busy,
    "long": long,
    "fork": fork,
    "full": full,
    "workers": workers,
    "careless": careless,
    "durable": durable,
    "durable_widening": durable_widening,
    "durable_long": durable_long,
}


if __name__ == "__main__":
    SCENARIOS[sys.argv[1]](Path(sys.argv[2]), *map(int, sys.argv[3:]))  # type: ignore[operator]
