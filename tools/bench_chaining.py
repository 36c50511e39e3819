"""What chaining costs: re-executing a log's episodes one after another, beside a bare loop of the same actions.

    python tools/bench_chaining.py                  100,000 episodes of CartPole
    python tools/bench_chaining.py --episodes 5000  fewer

A chain must run at the env's own speed: the bare loop steps the same env, made by the same recipe, with the
logged actions, which it holds in memory. Both take turns within one process, over the same stretches of the
log; the figure is the median of the stretches' ratios. The report is Markdown on stdout.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import gymnasium as gym

import reenact
from reenact.chain import Pass

STRETCHES = 20


def record(folder: Path, episodes: int) -> None:
    """Records random episodes of CartPole, the first one seeded."""
    env = reenact.Recorder(gym.make("CartPole-v1"), run=folder)
    env.action_space.seed(0)
    for number in range(episodes):
        env.reset(seed=0 if number == 0 else None)
        while not any(env.step(env.action_space.sample())[2:4]):
            pass
    env.close()


def bare(env: gym.Env[Any, Any], acts: list[tuple[int | None, list[Any]]]) -> float:
    """Returns the seconds that a plain loop takes over some episodes: their resets' seeds, and their actions."""
    step, began = env.step, time.process_time()
    for seed, actions in acts:
        env.reset(seed=seed)
        for action in actions:
            step(action)
    return time.process_time() - began


def compare(folder: Path, episodes: int) -> tuple[list[float], float]:
    """Returns, for each stretch, the bare loop's time over the chain's; and the chain's env steps a second."""
    run = reenact.open_run(folder)
    lineage, stage = run.lineage(0), run[0].stage
    chain, ratios, steps, took = Pass(stage, lineage, 0, render=False), [], 0, 0.0
    bounds = [episodes * at // STRETCHES for at in range(STRETCHES + 1)]
    with stage.open(render=False) as env:
        for number, (first, end) in enumerate(itertools.pairwise(bounds)):
            acts = [(act.seed, act.actions) for act in lineage.acts(first, end)]
            plain = bare(env, acts) if number % 2 else 0.0
            began = time.process_time()
            chain.advance(end, lambda _done, _total: None)
            chained = time.process_time() - began
            plain = plain or bare(env, acts)
            ratios.append(plain / chained)
            steps, took = steps + sum(len(actions) for _, actions in acts), took + chained
            print(f"{end} of {episodes} episodes", file=sys.stderr, end="\r")
    chain.close()
    return ratios, steps / took


def main() -> None:
    """Records, compares, and prints the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--episodes", type=int, default=100_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        record(Path(scratch) / "run", options.episodes)
        ratios, rate = compare(Path(scratch) / "run", options.episodes)
        began = time.process_time()
        (result,) = reenact.verify(Path(scratch) / "run", [-1], origin="chain:first")
        took = time.process_time() - began
    print("| chain of CartPole episodes | env steps a second | bare loop's time / the chain's | last episode |")
    print("|--:|--:|--:|---|")
    print(f"| {options.episodes:,} | {rate:,.0f} | {statistics.median(ratios):.2f} | {result.verdict}, {took:.1f} s |")


if __name__ == "__main__":
    main()
