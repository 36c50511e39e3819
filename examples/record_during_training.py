"""Trains for 10,000 episodes with a log line for each, then makes a video of every 250th.

The training renders nothing. Which episodes to film is decided afterwards.

    python examples/record_during_training.py
"""

import argparse
import logging

import gymnasium as gym

import reenact


def train(run: str, episodes: int) -> None:
    """Runs the training loop; the agent is a random one."""
    env = reenact.Recorder(gym.make("CartPole-v1"), run=run)
    for episode in range(episodes):
        env.reset(seed=123 if episode == 0 else None)
        over = False
        while not over:
            action = env.action_space.sample()  # your agent here
            _, _, terminated, truncated, info = env.step(action)
            over = terminated or truncated
        logging.info("episode-%d %s", episode, info["episode"])  # noqa: LOG015  # an example configures the root logger
    env.close()


def main() -> None:
    """Trains, and replays every 250th episode."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", default="runs/cartpole-training")
    parser.add_argument("--episodes", type=int, default=10_000)
    parser.add_argument("--every", type=int, default=250)
    arguments = parser.parse_args()

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    train(arguments.run, arguments.episodes)
    results = reenact.replay(arguments.run, every=arguments.every)
    exact = sum(result.ok for result in results)
    print(f"{exact} of {len(results)} videos exact, the last one in {results[-1].path}")
    assert exact == len(results)


if __name__ == "__main__":
    main()
