"""`reenact check`: what it says of envs that replay, that need chains, that need seeds, and that never do."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import reenact
from reenact.errors import RecipeError, SelectionError

SOURCE = Path(__file__).resolve().parents[1] / "src"
ENVS = """
import os, random
import gymnasium as gym, numpy as np

class Base(gym.Env):
    metadata = {"render_modes": ["rgb_array"], "render_fps": 30}
    observation_space = gym.spaces.Box(-1e9, 1e9, (1,), np.float64)
    action_space = gym.spaces.Discrete(2)
    moved = 0.0
    def __init__(self, render_mode=None):
        self.render_mode, self.value = render_mode, 0.0
    def start(self): return self.np_random.random()
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.at, self.value = 0, self.start()
        return np.array([self.value]), {}
    def step(self, action):
        self.at += 1
        self.value += int(action) + 0.25
        return np.array([self.value]), self.value, self.at == 6, False, {}
    def render(self):
        return np.eye(32, dtype=np.uint8)[..., None].repeat(3, 2) * int(200 + self.at)

class Stays(Base):  # what was drawn stays for the next episode
    def start(self):
        self.moved += self.np_random.random()
        return self.moved

class Fresh(Base):  # its generator comes from elsewhere unless it is seeded
    def reset(self, *, seed=None, options=None):
        if seed is None:
            drawn = np.random.SeedSequence(int.from_bytes(os.urandom(8), "little"), spawn_key=(1,))
            self._np_random = np.random.Generator(np.random.PCG64(drawn))
        return super().reset(seed=seed)

class Wild(Base):  # nothing determines it
    def start(self): return int.from_bytes(os.urandom(4), "little")

class Touchy(Base):  # drawing changes it
    def render(self):
        self.value += 1
        return super().render()

class Blind(Base):
    def render(self): return None

class Broken(Base):
    def step(self, action): raise ZeroDivisionError("mine")
"""


@pytest.fixture(autouse=True)
def _envs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_envs.py").write_text(ENVS)
    monkeypatch.chdir(tmp_path)


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs the command as a user does."""
    code = f"import sys; sys.path.insert(0, {str(SOURCE)!r}); from reenact.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, "check", *arguments], capture_output=True, check=False, text=True, timeout=120
    )


def together(tallies: tuple[Any, ...]) -> list[tuple[bool, int, int]]:
    """What became of all rungs together: drawn, exact, tried."""
    return [(one.rendered, one.exact, one.tried) for one in tallies if one.rung == "together"]


def test_an_env_that_replays_needs_nothing() -> None:
    """CartPole: each rung that applies is exact, drawn and not, and one line is to be written."""
    found = reenact.check("CartPole-v1", episodes=4)
    assert found.replays
    assert found.advice == ('env = reenact.Recorder(env, run="runs/…")',)
    assert found.notices == found.reseeded == ()
    assert {one.rung for one in found.tallies} == {
        "seed",
        "rng",
        "chain:1",
        "chain:2",
        "chain:4",
        "chain:first",
        "together",
    }
    assert all(one.exact == one.tried > 0 for one in found.tallies)
    assert together(found.tallies) == [(False, 4, 4), (True, 4, 4)]
    assert set(found.cost_s) == {"reset", "seeded reset", "step", "render"}
    assert all(0 < cost < 10 for cost in found.cost_s.values())


def test_an_env_whose_state_survives_resets_is_chained() -> None:
    """Alone its episodes diverge, and the table says where; chained they are exact, and the advice says so."""
    found = reenact.check(env="my_envs.py:Stays", episodes=4)
    tallies = {(one.rung, one.rendered): one for one in found.tallies}
    assert tallies["rng", False].exact == 0
    assert str(tallies["rng", False].told).startswith("observation at step 0")
    assert tallies["chain:first", True].exact == 4
    assert found.replays
    assert "chained" in found.advice[1]


def test_an_env_that_needs_seeds_is_told_so() -> None:
    """Where unseeded resets can't be restored, `reseed=True` is tried, and advised."""
    found = reenact.check(env="my_envs.py:Fresh", episodes=4)
    assert together(found.tallies)[0][1] < 4
    assert together(found.reseeded) == [(False, 4, 4), (True, 4, 4)]
    assert found.advice == ('env = reenact.Recorder(env, run="runs/…", reseed=True)',)
    assert any("replaces its random generator" in notice for notice in found.notices)


def test_an_env_that_nothing_determines_ends_with_one() -> None:
    """It says that no way was found, and why; the exit code is 1."""
    ended = command("--env", "my_envs.py:Wild", "--episodes", "2")
    assert ended.returncode == 1, ended.stderr
    assert "no way was found" in ended.stdout
    assert "differs from itself at step 0" in ended.stdout


def test_drawing_that_changes_an_env_is_found() -> None:
    """Undrawn it is exact, drawn it is not, and the cause is named."""
    found = reenact.check(env="my_envs.py:Touchy", episodes=2)
    assert together(found.tallies) == [(False, 2, 2), (True, 0, 2)]
    assert found.replays
    assert "render() changes this env" in found.advice[1]


def test_an_env_that_can_not_draw_is_told() -> None:
    """It replays, and there will be no videos."""
    found = reenact.check(env="my_envs.py:Blind", episodes=2)
    assert found.replays
    assert "can't be drawn: VideoError: expected a frame as a uint8 array" in found.advice[1]
    assert not any(one.rendered for one in found.tallies)
    assert "render" not in found.cost_s


def test_the_command_prints_a_table() -> None:
    """People get a table and what to write, programs one object."""
    ended = command("CartPole-v1", "--episodes", "2", "--kwargs", '{"sutton_barto_reward": true}')
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines()[0].split() == ["origin", "undrawn", "drawn", "where", "it", "differs"]
    assert 'reenact.Recorder(env, run="runs/…")' in ended.stdout
    ended = command("CartPole-v1", "--episodes", "2", "--json")
    assert json.loads(ended.stdout)["replays"] is True


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["NoSuchEnv-v0"], "NoSuchEnv"),
        ([], "give an env's id"),
        (["CartPole-v1", "--env", "my_envs.py:Base"], "one of the two"),
        (["CartPole-v1", "--kwargs", "[1]"], "expected a JSON object"),
        (["CartPole-v1", "--kwargs", "{"], "expected a JSON object"),
        (["CartPole-v1", "--kwargs", '{"nothing": 1}'], "nothing"),
        (["--env", "my_envs.py:Nobody"], "has no 'Nobody'"),
        (["--env", "my_envs.py:Broken"], "ZeroDivisionError: mine"),
        (["CartPole-v1", "--episodes", "1"], "1 is not in the range"),
    ],
)
def test_what_can_not_be_checked_is_told_in_one_line(arguments: list[str], said: str) -> None:
    """A mistake, or an env that fails by itself, ends with 2 and one line."""
    ended = command(*arguments)
    assert ended.returncode == 2
    lines = [line for line in ended.stderr.splitlines() if line.startswith("Error")]
    assert len(lines) == 1
    assert said in lines[0]
    assert "Traceback" not in ended.stderr


def test_the_python_call_refuses_what_the_command_does() -> None:
    """The same mistakes are errors of the package."""
    with pytest.raises(SelectionError, match="2 or more"):
        reenact.check("CartPole-v1", episodes=1)
    with pytest.raises(RecipeError, match="NoSuchEnv"):
        reenact.check("NoSuchEnv-v0")
