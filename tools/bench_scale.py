"""What a very long run costs: to record, to open, to look through, and to film a late episode of.

    python tools/bench_scale.py                        1 million episodes of 100 steps: 2 GB and some minutes
    python tools/bench_scale.py --episodes 20000       fewer
    python tools/bench_scale.py --run /scratch/long    keeps the run there, and measures the one that is there already

The env does nothing, so that what is recorded is all there is to it. Each figure is taken as often as `--repeats` says,
in processes of its own; the fastest and the median are given, and the fastest is compared: what else a machine does can
only add to it. Opening is timed with and without the start of the process that tries files first, which each process
pays once. What is read lies in the page cache. The report is Markdown on stdout.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

import reenact
from reenact import listing  # what `show` needs, so that no import is timed
from reenact.probe import try_all

if TYPE_CHECKING:
    from collections.abc import Callable

EPISODE_STEPS = 100
PARTS = 10
_SAMPLE = 100


class Nothing(gym.Env[np.ndarray, int]):
    """Returns the same observation and reward at each step, and ends after a hundred."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 30}  # noqa: RUF012  # as Gymnasium has it
    action_space: spaces.Space[Any] = spaces.Discrete(2)
    observation_space: spaces.Space[Any] = spaces.Box(-1, 1, (4,), np.float32)

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode
        self._observation = np.zeros(4, np.float32)
        self._at = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begins again."""
        super().reset(seed=seed, options=options)
        self._at = 0
        return self._observation, {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:  # noqa: ARG002  # Gymnasium's signature
        """Counts."""
        self._at += 1
        return self._observation, 1.0, self._at == EPISODE_STEPS, False, {}

    def render(self) -> np.ndarray:
        """Draws how far the episode is."""
        frame = np.zeros((64, 64, 3), np.uint8)
        frame[:, : 4 + self._at // 2] = 255
        return frame


def record(folder: Path, episodes: int) -> list[float]:
    """Records; returns the CPU seconds a step in each tenth of the run, the writing included."""
    env = reenact.Recorder(Nothing(), run=folder, factory=f"{Path(__file__).resolve()}:Nothing")
    bounds = [episodes * part // PARTS for part in range(PARTS + 1)]
    costs = []
    for number, (first, end) in enumerate(itertools.pairwise(bounds)):
        began = time.process_time()
        for episode in range(first, end):
            env.reset(seed=0 if episode == 0 else None)
            for _ in range(EPISODE_STEPS):
                env.step(1)
        env.flush()
        costs.append((time.process_time() - began) / max(1, (end - first) * EPISODE_STEPS))
        print(f"{number + 1} of {PARTS} parts, {costs[-1] * 1e6:.3f} µs a step", file=sys.stderr, end="\r")
    env.close()
    return costs


# ---- each in a process of its own


def opening(folder: Path) -> dict[str, float]:
    """Opens the run in a process that has opened none, and again."""
    began = time.perf_counter()
    run = reenact.open_run(folder)
    cold = time.perf_counter() - began
    del run
    began = time.perf_counter()
    run = reenact.open_run(folder)
    warm = time.perf_counter() - began
    assert len(run)  # noqa: S101  # the numbers are there
    return {"open, first in its process (s)": cold, "open again (s)": warm}


def first_number(folder: Path) -> dict[str, float]:
    """Opens the run, and reads one episode of it by number."""
    _tried(folder)
    began = time.perf_counter()
    run = reenact.open_run(folder)
    _read(run, len(run) * 9 // 10)
    return {"open and read a late episode (s)": time.perf_counter() - began}


def single(folder: Path) -> dict[str, float]:
    """Reads episodes all over the run."""
    run = reenact.open_run(folder)
    numbers = random.Random(0).sample(range(len(run)), min(_SAMPLE, len(run)))  # noqa: S311  # no secret
    took = []
    for number in numbers:
        began = time.perf_counter()
        _read(run, number)
        took.append((time.perf_counter() - began) * 1e3)
    middle, *_, slow = statistics.quantiles(took, n=20)[9:]
    return {"any episode, the median of 100 (ms)": middle, "any episode, 95 of 100 within (ms)": slow}


def overall(folder: Path) -> dict[str, float]:
    """Opens the run, and takes statistics over all of it."""
    _tried(folder)
    began = time.perf_counter()
    run = reenact.open_run(folder)
    mean, lengths = float(run.returns.mean()), run.lengths
    best = listing.episodes(run, best=10)
    assert mean == EPISODE_STEPS == lengths.max()  # noqa: S101  # what was recorded
    assert len(best) == min(10, len(run))  # noqa: S101  # as asked for
    took = time.perf_counter() - began
    return {"open, mean, lengths, best 10 (s)": took, "… peak memory of the process (MB)": _peak_mb()}


def filming(folder: Path) -> dict[str, float]:
    """Draws the first frame of a late episode."""
    run = reenact.open_run(folder)
    began = time.perf_counter()
    next(run[len(run) * 99 // 100].frames())
    return {"a late episode's first frame (s)": time.perf_counter() - began}


def show(folder: Path) -> dict[str, float]:
    """Runs `reenact show --tail 20`."""
    command = [sys.executable, "-c", "from reenact.cli import main; main()", "show", str(folder), "--tail", "20"]
    began = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return {"show --tail 20, whole command (s)": time.perf_counter() - began}


MEASURES: dict[str, Callable[[Path], dict[str, float]]] = {
    each.__name__: each for each in (opening, first_number, single, show, overall, filming)
}
GOALS = {
    "open again (s)": 0.2,
    "open, first in its process (s)": 0.2,
    "open and read a late episode (s)": 0.2,
    "any episode, the median of 100 (ms)": 2.0,
    "any episode, 95 of 100 within (ms)": 2.0,
    "show --tail 20, whole command (s)": 1.0,
    "open, mean, lengths, best 10 (s)": 2.0,
    "… peak memory of the process (MB)": 300.0,
    "a late episode's first frame (s)": 1.0,
}


def _tried(folder: Path) -> None:
    """Has the process that tries files first run already."""
    try_all([min(folder.glob("segment-*.h5"))])


def _read(run: reenact.Run, number: int) -> None:
    episode = run[number]
    assert len(episode.actions) == len(episode.rewards) == EPISODE_STEPS  # noqa: S101  # what was recorded


def _peak_mb() -> float:
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kilobytes / (1e6 if sys.platform == "darwin" else 1e3)


def measure(folder: Path, repeats: int) -> dict[str, list[float]]:
    """Returns each figure as often as it was taken."""
    found: dict[str, list[float]] = {}
    for name in MEASURES:
        for _ in range(repeats):
            command = [sys.executable, __file__, "--measure", name, "--run", str(folder)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            for figure, value in json.loads(done.stdout).items():
                found.setdefault(figure, []).append(value)
    return found


def main() -> None:
    """Records, measures, and prints the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--episodes", type=int, default=1_000_000)
    parser.add_argument("--run", type=Path, help="a folder to record into, or with a run that is to be measured")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--measure", choices=MEASURES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(MEASURES[options.measure](options.run)))
        return
    with contextlib.ExitStack() as stack:
        folder = options.run or Path(stack.enter_context(tempfile.TemporaryDirectory())) / "run"
        if not folder.exists():
            costs = record(folder, options.episodes)
            print("| tenth of the run | CPU a step (µs) | against the first |\n|--:|--:|--:|")
            for part, cost in enumerate(costs, 1):
                print(f"| {part} | {cost * 1e6:.3f} | {cost / costs[0]:.2f} |")
            print()
        run = reenact.open_run(folder)
        size = sum(path.stat().st_size for path in folder.glob("segment-*.h5")) / 1e9
        print(f"{len(run):,} episodes, {int(run.lengths.sum()):,} steps, {size:.2f} GB; {os.cpu_count()} cores\n")
        del run
        print("| figure | fastest | median | below | |\n|---|--:|--:|--:|---|")
        for figure, values in measure(folder, options.repeats).items():
            best, goal = min(values), GOALS[figure]
            missed = "" if best < goal else "missed"
            print(f"| {figure} | {best:.3g} | {statistics.median(values):.3g} | {goal:g} | {missed} |")


if __name__ == "__main__":
    main()
