"""The examples run as they stand, and the README's Python does too."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import click
import numpy as np
import pytest

import reenact
from reenact import cli

ROOT = Path(__file__).resolve().parent.parent


def run(*arguments: str | Path, folder: Path) -> str:
    """Runs Python in a folder; returns stdout."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_every_episode(tmp_path: Path) -> None:
    """The evaluation example films all of its four episodes, each exact."""
    out = run(ROOT / "examples/record_every_episode.py", folder=tmp_path)
    assert out.count(": exact, ") == 4
    names = {path.name for path in (tmp_path / "runs/cartpole-eval/videos").glob("*.mp4")}
    assert names == {f"eval-episode-{number}.mp4" for number in range(4)}


def test_during_training(tmp_path: Path) -> None:
    """The training example films every 250th episode afterwards, and h5py alone reads its log."""
    run(ROOT / "examples/record_during_training.py", "--episodes", "501", folder=tmp_path)
    names = {path.name for path in (tmp_path / "runs/cartpole-training/videos").glob("*.mp4")}
    assert names == {f"cartpole-training-episode-{number}.mp4" for number in (0, 250, 500)}
    segment = tmp_path / "runs/cartpole-training/segment-00000.h5"
    out = run(ROOT / "examples/inspect_with_h5py.py", segment, folder=tmp_path)
    assert "env CartPole-v1" in out
    assert out.count("terminated after") == 5


def test_readme_python(tmp_path: Path) -> None:
    """The README's Python blocks, one after the other, record a run and replay it."""
    found = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    blocks = [block for block in found if "stable_baselines3" not in block]  # those, test_libraries.py runs
    assert len(blocks) == 4
    script = tmp_path / "readme.py"
    script.write_text("\n".join(blocks) + "\nassert all(result.ok for result in results)\n")
    run(script, folder=tmp_path)
    assert {path.name for path in (tmp_path / "videos").glob("*.mp4")} == {
        f"cartpole-episode-{n}.mp4" for n in (0, 250)
    }
    assert np.all(reenact.open_run(tmp_path / "runs/cartpole").lengths > 0)
    vector = reenact.open_run(tmp_path / "runs/cartpole-vector")
    assert set(vector.lanes.tolist()) == set(range(8))
    assert reenact.verify(vector, -1)[0].ok
    segment = tmp_path / "runs/cartpole-vector/segment-00000.h5"
    assert "terminated after" in run(ROOT / "examples/inspect_with_h5py.py", segment, folder=tmp_path)


@pytest.mark.parametrize("name", sorted(cli.reenact.commands))
def test_readme_names_commands(name: str) -> None:
    """The README shows every command."""
    assert re.search(rf"(reenact |\$ ){name}\b", (ROOT / "README.md").read_text())
    assert isinstance(cli.reenact.commands[name], click.Command)
