"""Recorded in one process, replayed in another: exact, with the frames of live rendering."""

import itertools
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import imageio_ffmpeg
import numpy as np
import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src"
FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()
RESETS = [11, None, None, 7, None]
"""The seeds given to the resets of each training."""
ENVS: dict[str, tuple[str, dict[str, Any], int]] = {
    "CartPole": ("CartPole-v1", {}, 40),
    "Acrobot": ("Acrobot-v1", {}, 12),
    "MountainCarContinuous": ("MountainCarContinuous-v0", {}, 12),
    "Pendulum": ("Pendulum-v1", {}, 12),
    "FrozenLake": ("FrozenLake-v1", {"map_name": "8x8", "is_slippery": True}, 20),
    "Taxi": ("Taxi-v4" if "Taxi-v4" in gym.registry else "Taxi-v3", {}, 15),
    "LunarLander": ("LunarLander-v3", {}, 40),
    "LunarLander, continuous": ("LunarLander-v3", {"continuous": True, "enable_wind": True}, 40),
    "CarRacing": ("CarRacing-v3", {}, 8),
    "HalfCheetah": ("HalfCheetah-v5", {}, 6),
}

RECORD = """
import json, sys
import gymnasium as gym
import numpy as np
import reenact

folder, env_id, kwargs, steps, resets = json.loads(sys.argv[1])
training = reenact.Recorder(gym.make(env_id, max_episode_steps=steps, **kwargs), run=f"{folder}/run")
live = gym.make(env_id, max_episode_steps=steps, render_mode="rgb_array", **kwargs)
training.action_space.seed(5)
frames, lengths, returns = [], [], []
for seed in resets:
    training.reset(seed=seed)
    live.reset(seed=seed)
    frames.append(live.render())
    total, length, over = 0.0, 0, False
    while not over:
        action = training.action_space.sample()
        _, reward, terminated, truncated, _ = training.step(action)
        _, live_reward, *live_ends, _ = live.step(action)
        assert (reward, terminated, truncated) == (live_reward, *live_ends), "the live env took another way"
        frames.append(live.render())
        total, length, over = total + reward, length + 1, terminated or truncated
    lengths.append(length)
    returns.append(float(total))
training.close()
np.savez(f"{folder}/live.npz", frames=np.array(frames), lengths=lengths, returns=returns)
"""


def run_python(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs a fresh interpreter on this source, drawing without a screen."""
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), "SDL_AUDIODRIVER": "dummy"}
    environment.setdefault("MUJOCO_GL", "egl")
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,  # MuJoCo leaves its log there
        capture_output=True,
        check=False,
        text=True,
        env=environment,
        timeout=300,
    )


def decode(path: Path) -> np.ndarray:
    """Every frame that the file holds, once each: (frames, height, width, 3)."""
    told = subprocess.run([FFMPEG, "-i", path], capture_output=True, check=False).stderr.decode()
    size = re.search(r"Video:.* (\d+)x(\d+)", told)
    assert size, told
    command = [FFMPEG, "-i", path, "-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    raw = subprocess.run(command, capture_output=True, check=True).stdout
    return np.frombuffer(raw, np.uint8).reshape(-1, int(size[2]), int(size[1]), 3)


@pytest.mark.parametrize("name", ENVS)
def test_replays_in_another_process_show_what_live_rendering_showed(name: str, tmp_path: Path) -> None:
    """Seeded and unseeded episodes are exact, with length + 1 frames, each pixel as drawn live, in order."""
    env_id, kwargs, steps = ENVS[name]
    recorded = run_python(tmp_path, "-c", RECORD, json.dumps([str(tmp_path), env_id, kwargs, steps, RESETS]))
    assert recorded.returncode == 0, recorded.stderr

    replayed = run_python(
        tmp_path,
        *("-c", "from reenact.cli import replay_main; replay_main()", str(tmp_path / "run")),
        *("--episodes", "all", "--lossless", "--json"),
    )

    assert replayed.returncode == 0, replayed.stderr
    results = sorted((json.loads(line) for line in replayed.stdout.splitlines()), key=lambda one: one["episode"])
    with np.load(tmp_path / "live.npz") as live:
        frames, lengths, returns = live["frames"], live["lengths"], live["returns"]
    assert [result["verdict"] for result in results] == ["exact"] * len(RESETS)
    assert [result["origin"] for result in results] == ["rng" if seed is None else "seed" for seed in RESETS]
    assert [result["seed"] for result in results] == RESETS
    assert [result["length"] for result in results] == lengths.tolist()
    assert [result["return"] for result in results] == returns.tolist()
    first = 0
    for result, length in zip(results, lengths, strict=True):
        decoded = decode(Path(result["path"]))
        assert len(decoded) == length + 1 == result["frames"]
        expected = frames[first : first + length + 1]
        different = [at for at in range(length + 1) if not np.array_equal(decoded[at], expected[at])]
        assert not different, f"episode {result['episode']}: frames {different} of {length + 1} differ"
        first += length + 1


def test_the_frames_compared_are_not_all_alike(tmp_path: Path) -> None:
    """Most frames of an episode differ from the one before, so that one dropped or repeated would show."""
    recorded = run_python(tmp_path, "-c", RECORD, json.dumps([str(tmp_path), "CartPole-v1", {}, 40, [11]]))
    assert recorded.returncode == 0, recorded.stderr
    with np.load(tmp_path / "live.npz") as live:
        frames = live["frames"]
    changes = [not np.array_equal(one, other) for one, other in itertools.pairwise(frames)]
    assert sum(changes) > 0.8 * len(changes)
