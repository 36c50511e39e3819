"""The demo: stands on the public API alone."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import gymnasium as gym

import reenact

if TYPE_CHECKING:
    from collections.abc import Callable

EPISODES = 501
SHOWN = (0, 250, 500)


def demo(say: Callable[[str], None], folder: Path = Path("runs")) -> list[reenact.ReplayResult]:
    """Records 501 episodes of CartPole with a random policy, then makes videos of 0, 250 and 500.

    Args:
        say: prints a line.
        folder: where the run goes.

    Returns:
        The three results.
    """
    run = folder / f"demo-{time.strftime('%Y%m%d-%H%M%S')}-{time.time_ns() % 1000:03d}"
    say(f"Recording {EPISODES} episodes of CartPole-v1 into {run}, rendering nothing …")
    env = reenact.Recorder(gym.make("CartPole-v1"), run=run)
    env.action_space.seed(0)
    began = time.perf_counter()
    for episode in range(EPISODES):
        env.reset(seed=0 if episode == 0 else None)
        over = False
        while not over:
            _, _, terminated, truncated, _ = env.step(env.action_space.sample())
            over = terminated or truncated
    env.close()
    say(f"… in {time.perf_counter() - began:.1f} s. Re-executing episodes {', '.join(map(str, SHOWN))} …")
    return reenact.replay(run, episodes=SHOWN)
