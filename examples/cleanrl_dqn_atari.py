"""DQN on Atari in one file, as CleanRL writes it; then a video of the best game.

The recorder stands below the preprocessing, where CleanRL has RecordEpisodeStatistics: whole games with their scores,
though the agent sees small grey frames, every fourth, and clipped rewards.

    pip install '.[libraries]'
    python examples/cleanrl_dqn_atari.py
"""

import argparse
import random
from collections import deque
from typing import Any

import ale_py
import gymnasium as gym
import numpy as np
import torch
from torch import nn

import reenact

GAMMA, BATCH, BUFFER = 0.99, 32, 50_000

gym.register_envs(ale_py)


def make_env(env_id: str, run: str) -> gym.Env[Any, Any]:
    """Makes the game as the agent sees it."""
    env: Any = gym.make(env_id, frameskip=1)
    env = reenact.Recorder(env, run)  # was: gym.wrappers.RecordEpisodeStatistics(env)
    env = gym.wrappers.AtariPreprocessing(env)
    env = gym.wrappers.ClipReward(env, -1.0, 1.0)
    made: gym.Env[Any, Any] = gym.wrappers.FrameStackObservation(env, 4)
    return made


def q_network(actions: int) -> Any:
    """Returns a network from stacked frames to a value an action."""
    return nn.Sequential(
        nn.Conv2d(4, 32, 8, stride=4), nn.ReLU(),
        nn.Conv2d(32, 64, 4, stride=2), nn.ReLU(),
        nn.Conv2d(64, 64, 3, stride=1), nn.ReLU(), nn.Flatten(),
        nn.Linear(3136, 512), nn.ReLU(), nn.Linear(512, actions),
    )  # fmt: skip  # a line a layer


def as_input(seen: Any) -> Any:
    """Returns frames as floats from 0 to 1."""
    return torch.as_tensor(np.asarray(seen), dtype=torch.float32) / 255.0


def train(env_id: str, run: str, total_steps: int, learning_starts: int, seed: int) -> None:
    """Runs DQN for so many steps of the agent."""
    chance = random.Random(seed)  # noqa: S311  # an agent's
    torch.manual_seed(seed)
    env = make_env(env_id, run)
    actions = int(env.action_space.n)  # type: ignore[attr-defined]  # of a Discrete space
    network, target = q_network(actions), q_network(actions)
    target.load_state_dict(network.state_dict())
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4)
    buffer: deque[Any] = deque(maxlen=BUFFER)
    seen, _ = env.reset(seed=seed)
    for step in range(total_steps):
        epsilon = min(1.0, max(0.05, 1.0 - (step - learning_starts) / (0.1 * total_steps)))
        explores = chance.random() < epsilon
        action = chance.randrange(actions) if explores else int(network(as_input(seen)[None]).argmax())
        following, reward, terminated, truncated, info = env.step(action)
        buffer.append((seen, action, float(reward), following, float(terminated)))
        seen = following
        if "episode" in info:
            print(f"step {step}: score {info['episode']['r']}, {info['episode']['l']} frames")
        if terminated or truncated:
            seen, _ = env.reset()
        if step >= learning_starts and step % 4 == 0:
            columns = zip(*chance.sample(buffer, min(BATCH, len(buffer))), strict=True)
            b_seen, b_action, b_reward, b_following, b_over = columns
            with torch.no_grad():
                ahead = target(as_input(b_following)).max(1).values
                wanted = torch.tensor(b_reward) + GAMMA * ahead * (1 - torch.tensor(b_over))
            value = network(as_input(b_seen)).gather(1, torch.tensor(b_action)[:, None]).flatten()
            loss = nn.functional.mse_loss(wanted, value)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if step % 1000 == 0:
                target.load_state_dict(network.state_dict())
    env.close()


def main() -> None:
    """Trains, and films the best game."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", default="runs/cleanrl-dqn")
    parser.add_argument("--env-id", default="ALE/Breakout-v5")
    parser.add_argument("--total-steps", type=int, default=200_000)
    parser.add_argument("--learning-starts", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()

    train(arguments.env_id, arguments.run, arguments.total_steps, arguments.learning_starts, arguments.seed)
    (best,) = reenact.replay(arguments.run, best=1)
    print(f"the best, episode {best.episode}: {best.verdict}, {best.path}")
    assert best.ok


if __name__ == "__main__":
    main()
