"""PPO for continuous actions in one file, as CleanRL writes it; then a video of the best episode.

The recorder stands where CleanRL has RecordEpisodeStatistics (and RecordVideo below it); nothing else is changed. What
is normalised stands above it: the returns in the log are the env's own.

    pip install '.[libraries]'
    python examples/cleanrl_ppo.py
"""

import argparse
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import nn
from torch.distributions.normal import Normal

import reenact

ENV_ID, NUM_ENVS, NUM_STEPS = "Pendulum-v1", 4, 512
EPOCHS, MINIBATCHES, GAMMA, LAMBDA, CLIP = 10, 32, 0.99, 0.95, 0.2


def make_env(run: str, gamma: float) -> Callable[[], gym.Env[Any, Any]]:
    """Returns what makes one env of the vector env."""

    def thunk() -> gym.Env[Any, Any]:
        env: Any = gym.make(ENV_ID)
        env = gym.wrappers.FlattenObservation(env)
        env = reenact.Recorder(env, run)  # was: gym.wrappers.RecordEpisodeStatistics(env)
        env = gym.wrappers.ClipAction(env)
        env = gym.wrappers.NormalizeObservation(env)
        env = gym.wrappers.TransformObservation(env, lambda seen: np.clip(seen, -10, 10), env.observation_space)
        env = gym.wrappers.NormalizeReward(env, gamma=gamma)
        made: gym.Env[Any, Any] = gym.wrappers.TransformReward(env, lambda reward: np.clip(float(reward), -10, 10))
        return made

    return thunk


def layer(inputs: int, outputs: int, std: float = 2**0.5) -> Any:
    """Returns a linear layer with orthogonal weights."""
    made = nn.Linear(inputs, outputs)
    nn.init.orthogonal_(made.weight, std)
    nn.init.constant_(made.bias, 0.0)
    return made


def network(inputs: int, outputs: int, std: float) -> Any:
    """Returns two hidden layers and one that puts out."""
    return nn.Sequential(layer(inputs, 64), nn.Tanh(), layer(64, 64), nn.Tanh(), layer(64, outputs, std))


def train(run: str, total_steps: int, seed: int) -> None:
    """Runs PPO for so many steps of all envs together."""
    torch.manual_seed(seed)
    envs = gym.vector.SyncVectorEnv([make_env(run, GAMMA) for _ in range(NUM_ENVS)])
    inputs = int(np.prod(envs.single_observation_space.shape or ()))
    outputs = int(np.prod(envs.single_action_space.shape or ()))
    critic, actor = network(inputs, 1, 1.0), network(inputs, outputs, 0.01)
    log_std = nn.Parameter(torch.zeros(1, outputs))
    optimizer = torch.optim.Adam([*critic.parameters(), *actor.parameters(), log_std], lr=3e-4, eps=1e-5)

    def policy(seen: Any) -> Any:
        return Normal(actor(seen), log_std.exp().expand(len(seen), -1))

    obs = torch.zeros(NUM_STEPS, NUM_ENVS, inputs)
    actions = torch.zeros(NUM_STEPS, NUM_ENVS, outputs)
    logprobs, rewards, dones, values = torch.zeros(4, NUM_STEPS, NUM_ENVS)
    first, _ = envs.reset(seed=seed)
    next_obs, next_done = torch.as_tensor(first, dtype=torch.float32), torch.zeros(NUM_ENVS)
    for iteration in range(max(1, total_steps // (NUM_STEPS * NUM_ENVS))):
        for step in range(NUM_STEPS):
            obs[step], dones[step] = next_obs, next_done
            with torch.no_grad():
                distribution = policy(next_obs)
                actions[step] = distribution.sample()
                logprobs[step] = distribution.log_prob(actions[step]).sum(1)
                values[step] = critic(next_obs).flatten()
            seen, reward, terminations, truncations, infos = envs.step(actions[step].numpy())
            rewards[step] = torch.as_tensor(reward, dtype=torch.float32)
            next_obs = torch.as_tensor(seen, dtype=torch.float32)
            next_done = torch.as_tensor(np.logical_or(terminations, truncations), dtype=torch.float32)
            if "episode" in infos:
                ended = infos["_episode"]
                print(f"step {iteration * NUM_STEPS + step}: return {infos['episode']['r'][ended]}")
        advantages = gae(rewards, dones, values, critic(next_obs).detach().flatten(), next_done)
        batch = [
            part.flatten(0, 1).detach() for part in (obs, actions, logprobs, advantages, advantages + values, values)
        ]
        for _ in range(EPOCHS):
            for picked in torch.randperm(NUM_STEPS * NUM_ENVS).chunk(MINIBATCHES):
                b_obs, b_actions, b_logprobs, b_advantages, b_returns, _ = (part[picked] for part in batch)
                ratio = (policy(b_obs).log_prob(b_actions).sum(1) - b_logprobs).exp()
                b_advantages = (b_advantages - b_advantages.mean()) / (b_advantages.std() + 1e-8)
                policy_loss = -torch.min(b_advantages * ratio, b_advantages * ratio.clamp(1 - CLIP, 1 + CLIP)).mean()
                loss = policy_loss + 0.25 * ((critic(b_obs).flatten() - b_returns) ** 2).mean()
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_([*critic.parameters(), *actor.parameters(), log_std], 0.5)
                optimizer.step()
    envs.close()


def gae(rewards: Any, dones: Any, values: Any, next_value: Any, next_done: Any) -> Any:
    """Returns the generalised advantages of a rollout, steps by envs."""
    advantages, last = torch.zeros_like(rewards), torch.zeros(NUM_ENVS)
    for step in reversed(range(NUM_STEPS)):
        final = step == NUM_STEPS - 1
        going_on = 1 - (next_done if final else dones[step + 1])
        value = next_value if final else values[step + 1]
        delta = rewards[step] + GAMMA * value * going_on - values[step]
        advantages[step] = last = delta + GAMMA * LAMBDA * going_on * last
    return advantages


def main() -> None:
    """Trains, and films the best episode."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", default="runs/cleanrl-ppo")
    parser.add_argument("--total-steps", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()

    train(arguments.run, arguments.total_steps, arguments.seed)
    (best,) = reenact.replay(arguments.run, best=1)
    print(f"the best, episode {best.episode}: {best.verdict}, {best.path}")
    assert best.ok


if __name__ == "__main__":
    main()
