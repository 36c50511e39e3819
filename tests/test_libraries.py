"""Trainings with Stable-Baselines3 and in CleanRL's way, as their users write them; in an environment that has torch."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import ale_py
import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.atari_wrappers import AtariWrapper
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecFrameStack, VecNormalize

from bare import Bare, segments
from reenact import Recorder, recording

ROOT = Path(__file__).parents[1]
ATARI = "BreakoutNoFrameskip-v4"
gym.register_envs(ale_py)
torch.set_num_threads(1)


def outcome(model: Any) -> tuple[bytes, list[tuple[float, int]]]:
    """All that a training comes to: the weights, and the episodes that SB3 has counted."""
    weights = b"".join(weight.detach().numpy().tobytes() for weight in model.policy.state_dict().values())
    return weights, [(float(episode["r"]), int(episode["l"])) for episode in model.ep_info_buffer]


def ppo(envs: Any, steps: int, **options: Any) -> tuple[bytes, list[tuple[float, int]]]:
    """Trains with PPO, closes the envs, and returns what it came to."""
    policy = "CnnPolicy" if len(envs.observation_space.shape) == 3 else "MlpPolicy"
    model = PPO(policy, envs, seed=0, device="cpu", **options)
    model.learn(steps)
    envs.close()
    return outcome(model)


def by_lane(run: Path) -> list[Bare]:
    """A run's segments, read without the package, in the order of their lanes."""
    logs = segments(run)
    assert all(log.closed and len(set(log.rows["lane"].tolist())) == 1 for log in logs)
    return sorted(logs, key=lambda log: int(log.rows["lane"][0]))


def verified(run: Path, *picks: str, **environ: str) -> None:
    """Replays all of a run, or what is picked, with the command, in another process, without any other option."""
    command = [sys.executable, "-W", "error", "-c", "from reenact.cli import main; main()", "verify", str(run), *picks]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), **environ}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def train_ppo(vec_env: Any, **wrapper: Any) -> Any:
    """Trains with two envs, a few thousand steps."""
    envs = make_vec_env("CartPole-v1", n_envs=2, seed=1, vec_env_cls=vec_env, **wrapper)
    return ppo(VecNormalize(envs), 2048, n_steps=512, batch_size=256, n_epochs=2)


@pytest.mark.parametrize(
    ("vec_env", "form"), [(DummyVecEnv, "class"), (SubprocVecEnv, "class"), (SubprocVecEnv, "recording")]
)
def test_ppo(vec_env: Any, form: str, tmp_path: Path) -> None:
    """A PPO training recorded in its vector env's workers is the unrecorded one to the bit, and replays."""
    forms: dict[str, dict[str, Any]] = {
        "class": {"wrapper_class": Recorder, "wrapper_kwargs": {"run": str(tmp_path / "run")}},
        "recording": {"wrapper_class": recording(tmp_path / "run")},
    }
    plain = train_ppo(DummyVecEnv)
    assert train_ppo(vec_env, **forms[form]) == plain
    assert len(plain[1]) > 20
    logs = by_lane(tmp_path / "run")
    assert [int(log.rows["seed"][0]) for log in logs] == [0, 1]  # PPO's own seed, and the next
    assert sum(int(log.rows["length"].sum()) for log in logs) == 2048
    whole = [(float(row["return"]), int(row["length"])) for log in logs for row in log.rows if row["ended"] in (1, 2)]
    assert sorted(whole) == sorted(plain[1])  # no more than the buffer holds
    verified(tmp_path / "run")


def test_sac(tmp_path: Path) -> None:
    """A SAC training is the unrecorded one with SB3's Monitor above the recorder, too, and replays."""

    def train(wrap: Any) -> Any:
        model = SAC("MlpPolicy", wrap(gym.make("Pendulum-v1")), seed=0, device="cpu", learning_starts=380)
        model.learn(420)
        model.get_env().close()
        return outcome(model)

    plain = train(lambda env: env)
    assert train(lambda env: Recorder(env, tmp_path / "above")) == plain
    assert train(lambda env: Monitor(Recorder(Monitor(env), tmp_path / "between"))) == plain
    assert len(plain[1]) == 2
    for run in ("above", "between"):
        (log,) = by_lane(tmp_path / run)
        assert log.ended == ["truncated"] * 2 + ["interrupted"]
        assert log.rows["lane"].tolist() == [-1] * 3
        verified(tmp_path / run)


def test_evaluation(tmp_path: Path) -> None:
    """SB3 finds its Monitor through the recorder, and evaluates as without one."""
    envs = make_vec_env("CartPole-v1", n_envs=2, seed=1, wrapper_class=recording(tmp_path / "run", role="eval"))
    plain = make_vec_env("CartPole-v1", n_envs=2, seed=1)
    assert envs.env_is_wrapped(Monitor) == [True, True]
    model = PPO("MlpPolicy", make_vec_env("CartPole-v1"), seed=0, device="cpu", n_steps=8, batch_size=8)
    found = []
    for venv in (envs, plain):
        torch.manual_seed(0)
        found.append(evaluate_policy(model, venv, 6, deterministic=False, return_episode_rewards=True))
    envs.close()
    assert found[0] == found[1]
    assert {log.attrs["role"] for log in by_lane(tmp_path / "run")} == {"eval"}


class Above:
    """Puts the recorder above the whole stack."""

    def __init__(self, run: Path) -> None:
        self.run = run

    def __call__(self, env: Any) -> Any:
        """Wraps an env."""
        return Recorder(AtariWrapper(env), self.run)


def test_atari(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    """Below SB3's Atari wrappers are whole games of the plain env, above them clipped lives; both replay, anybody's too."""

    def train(wrapper: Any) -> Any:
        envs = VecFrameStack(make_vec_env(ATARI, n_envs=2, seed=1, wrapper_class=wrapper), 4)
        return ppo(envs, 768, n_steps=128, batch_size=256, n_epochs=1)

    plain = train(AtariWrapper)
    assert not [one for one in recwarn if "reenact" in str(one.message)]
    assert train(recording(tmp_path / "below", then=AtariWrapper)) == plain
    assert not [one for one in recwarn if "reenact" in str(one.message)]
    assert train(Above(tmp_path / "above")) == plain
    (said,) = (str(one.message) for one in recwarn if "reenact" in str(one.message))
    assert "EpisodicLifeEnv ends an episode with each life and ClipRewardEnv clips the rewards" in said

    below, above = by_lane(tmp_path / "below"), by_lane(tmp_path / "above")
    assert [len(logs) for logs in (below, above)] == [2, 2]
    whole = [(float(row["return"]), int(row["length"])) for log in below for row in log.rows if row["ended"] == 1]
    assert sorted(whole) == sorted(plain[1])  # SB3's own count of whole games, in frames
    assert whole
    assert sum(len(log.rows) for log in above) > 3 * sum(len(log.rows) for log in below)
    recipes = [json.loads(str(logs[0].attrs["recipe"])) for logs in (below, above)]
    assert [recipe["id"] for recipe in recipes] == [ATARI, ATARI]
    names = [[wrapper["entry_point"].partition(":")[2] for wrapper in recipe["wrappers"]] for recipe in recipes]
    assert names == [
        [],
        ["NoopResetEnv", "MaxAndSkipEnv", "EpisodicLifeEnv", "FireResetEnv", "WarpFrame", "ClipRewardEnv"],
    ]
    verified(tmp_path / "below")
    verified(tmp_path / "above")
    # the snapshots are no stranger's to restore; the wrappers are
    verified(tmp_path / "above", "--where", "seed != None", XDG_STATE_HOME=str(tmp_path / "another's"))


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("cleanrl_ppo", ["--total-steps", "2048"]),
        ("cleanrl_dqn_atari", ["--total-steps", "700", "--learning-starts", "600"]),
    ],
)
def test_examples(name: str, arguments: list[str], tmp_path: Path) -> None:
    """The examples of CleanRL's way to train run as they stand, film their best episode, and all they log replays."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(ROOT / f"examples/{name}.py"), "--run", "run", *arguments]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (
        "the best, episode 0: exact, run/videos/run-episode-0.mp4" in done.stdout or "exact, run/videos" in done.stdout
    )
    assert len(list((tmp_path / "run/videos").glob("*.mp4"))) == 1
    verified(tmp_path / "run")
    lengths = np.concatenate([log.rows["length"] for log in segments(tmp_path / "run")])
    assert lengths.max() >= 200


def test_readme(tmp_path: Path) -> None:
    """The README's block for Stable-Baselines3 runs as it stands, and what it logs replays."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    (block,) = (block for block in blocks if "stable_baselines3" in block)
    (tmp_path / "train.py").write_text(block)
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "train.py"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    (run,) = (tmp_path / "runs").iterdir()
    assert [int(log.rows["lane"][0]) for log in by_lane(run)] == [0, 1, 2, 3]
    verified(run)
