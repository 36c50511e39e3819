"""Evaluates an agent for four episodes, then makes a video of each.

python examples/record_every_episode.py
"""

import argparse

import gymnasium as gym

import reenact

EPISODES = 4


def main() -> None:
    """Records the evaluation, prints its statistics, and replays all of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", default="runs/cartpole-eval")
    run = parser.parse_args().run

    env = reenact.Recorder(gym.make("CartPole-v1"), run=run, role="eval", buffer_length=EPISODES)
    for episode in range(EPISODES):
        env.reset(seed=100 + episode)
        over = False
        while not over:
            action = env.action_space.sample()  # your agent here
            _, _, terminated, truncated, _ = env.step(action)
            over = terminated or truncated
    env.close()

    print(f"Episode time taken: {list(env.time_queue)}")
    print(f"Episode total rewards: {list(env.return_queue)}")
    print(f"Episode lengths: {list(env.length_queue)}")

    for result in reenact.replay(run, episodes="all", name_prefix="eval"):
        print(f"episode {result.episode}: {result.verdict}, {result.frames} frames in {result.path}")
        assert result.ok


if __name__ == "__main__":
    main()
