"""The slice of the env zoo that this interpreter can import, each env by its family's name (tools/zoo.py)."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = {
    "classic": "pygame",
    "toy": "pygame",
    "box2d": "Box2D",
    "mujoco": "mujoco",
    "ale": "ale_py",
    "minigrid": "minigrid",
    "highway": "highway_env",
    "panda": "panda_gym",
    "robotics": "gymnasium_robotics",
    "dm_control": "shimmy",
    "metaworld": "metaworld",
}
"""Families with a slice, and what they need. MuJoCo 4 broke the last three: .ci/run has an environment for them."""
OLD_MUJOCO = ("robotics", "dm_control", "metaworld")
HERE = OLD_MUJOCO if importlib.util.find_spec("metaworld") else [name for name in PACKAGES if name not in OLD_MUJOCO]


@pytest.mark.parametrize("family", HERE)
def test_every_episode_of_the_slice_is_exact(family: str, tmp_path: Path) -> None:
    """Recording changes nothing, every episode is exact in another process, and its frames are those drawn live."""
    assert importlib.util.find_spec(PACKAGES[family]), f"{PACKAGES[family]} is not installed: pip install '.[dev]'"
    command = [sys.executable, ROOT / "tools" / "zoo.py", "--slice", "--families", family, "--envs", tmp_path]
    done = subprocess.run(
        [*map(str, command)], capture_output=True, check=False, text=True, timeout=900, env={**os.environ}
    )
    lines = [line for line in done.stdout.splitlines() if "ladder" in line]
    assert done.returncode == 0, done.stdout + done.stderr
    assert lines
    assert all("unchanged yes" in line and "lies 0" in line for line in lines), done.stdout
