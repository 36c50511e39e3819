"""Snapshots: the simulator's own state, where neither a seed nor a generator starts an episode again."""

from __future__ import annotations

import os
import pickle
import random
import subprocess
import sys
import zlib
from collections import namedtuple
from pathlib import Path
from typing import Any
from zlib import crc32

import gymnasium as gym
import numpy as np
import pytest

import odd_envs as odd
import reenact
from bare import only
from reenact import jsontags, signing, snapshot
from reenact.layout import StateKind
from reenact.origin import SNAPSHOT_STEPS

STEPS = 150


class NoOps(gym.Wrapper[Any, Any, Any, Any], gym.utils.RecordConstructorArgs):
    """Does some steps at each reset, as many as the env's generator says, as AtariPreprocessing does."""

    def __init__(self, env: gym.Env[Any, Any], most: int = 10) -> None:
        gym.utils.RecordConstructorArgs.__init__(self, most=most)
        gym.Wrapper.__init__(self, env)
        self.most = most

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """Waits."""
        result = self.env.reset(seed=seed, options=options)
        for _ in range(int(self.unwrapped.np_random.integers(1, self.most + 1))):
            result = self.env.step(0)[0], result[1]
        return result


def ale(**kwargs: Any) -> gym.Env[Any, Any]:
    """Makes Pong, with its sticky actions."""
    gym.register_envs(pytest.importorskip("ale_py"))
    return gym.make("ALE/Pong-v5", max_episode_steps=STEPS, **kwargs)


def play(env: gym.Env[Any, Any], run: Path, episodes: int, first: int | None = None) -> list[int]:
    """Records random episodes; returns a checksum of all that each of them showed."""
    recorder = reenact.Recorder(env, run=run)
    recorder.action_space.seed(3)
    shown = []
    for episode in range(episodes):
        observation, _ = recorder.reset(seed=first if episode == 0 else None)
        seen, over = [observation], False
        while not over:
            observation, _, terminated, truncated, _ = recorder.step(recorder.action_space.sample())
            seen.append(observation)
            over = terminated or truncated
        shown.append(crc32(np.array(seen).tobytes()))
    recorder.close()
    return shown


def sealed(name: bytes, packed: bytes) -> bytes:
    """A snapshot with this user's signature."""
    return name + b"\0" + signing.sign(packed).encode() + packed


@pytest.mark.parametrize("first", [None, 5])
def test_sticky_episodes_of_ale_are_exact(first: int | None, tmp_path: Path) -> None:
    """Unseeded, each starts from its snapshot or is chained from the last; there is one in SNAPSHOT_STEPS at most."""
    episodes = SNAPSHOT_STEPS // STEPS + 5
    play(ale(), tmp_path / "run", episodes, first)
    log = only(tmp_path / "run")
    taken = log.states[log.states["kind"] == StateKind.SNAPSHOT]["episode"].astype(int).tolist()
    starts = log.rows["first_step"][taken]
    assert len(taken) == 2
    assert (np.diff(starts) >= 2000).all()
    assert taken[0] == (0 if first is None else 1)
    wanted = [0, taken[0] + 2, taken[1], episodes - 1]
    results = reenact.verify(tmp_path / "run", wanted)
    assert [result.verdict for result in results] == ["exact"] * len(wanted)
    assert [result.origin for result in results] == [
        "seed" if first else "snapshot", "chain:snapshot", "snapshot", "chain:snapshot"
    ]  # fmt: skip


def test_a_generator_alone_starts_nothing_that_has_snapshots(tmp_path: Path) -> None:
    """Checksums of every 32nd frame do not tell all ways of a short episode apart: even one that is right is not tried."""
    play(ale(repeat_action_probability=0.0), tmp_path / "run", 4, 5)
    results = reenact.verify(tmp_path / "run")
    assert [result.origin for result in results] == ["seed", "snapshot", "chain:snapshot", "chain:snapshot"]
    assert {result.verdict for result in results} == {"exact"}
    alone = reenact.verify(tmp_path / "run", [1, 2], origin="rng")
    assert [result.verdict for result in alone] == ["impossible"] * 2
    assert "rng leaves out what the env's snapshots hold: give chain:snapshot" in str(alone[0].error)


def test_another_process_shows_the_same_of_ale(tmp_path: Path) -> None:
    """A second process draws, frame by frame, what the agent saw; no-ops that np_random chooses among it."""
    shown = play(NoOps(ale()), tmp_path / "run", 3)
    code = (
        "import numpy as np, reenact, zlib\n"
        "print([zlib.crc32(np.array(list(one.frames())).tobytes()) for one in reenact.open_run('run')])"
    )
    command = [sys.executable, "-c", code]
    env = {**os.environ, "PYTHONPATH": ":".join([str(Path(__file__).parent), *sys.path])}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True, env=env)
    assert done.stdout.splitlines()[-1] == str(shown)


@pytest.mark.parametrize("damage", ["short", "long", "garbage", "empty"])
def test_a_damaged_emulator_state_is_a_value_error(damage: str) -> None:
    """Bytes that are no state of the emulator are refused, and crash nothing."""
    env = ale()
    env.reset(seed=1)
    good = snapshot.Ale().capture(env)
    bad = {
        "short": good[:3000],
        "long": good + bytes(1 << 20),
        "garbage": random.Random(3).randbytes(len(good)),  # noqa: S311  # to be the same each time
        "empty": b"",
    }[damage]
    with pytest.raises(ValueError, match="emulator state"):
        snapshot.restore(env, sealed(b"ale", zlib.compress(bad)), trust=False)
    snapshot.restore(env, sealed(b"ale", zlib.compress(good)), trust=False)
    env.close()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        sealed(b"nothing", zlib.compress(b"x")),
        sealed(b"ale", zlib.compress(b"x")),
        sealed(b"metaworld", zlib.compress(b"[]")),
        b"globals",
        b"globals\0not zlib",
        sealed(b"globals", zlib.compress(b" " * (1 << 25))),
        sealed(b"globals", zlib.compress(b"[]")),
        sealed(b"globals", zlib.compress(b"{}")),
        sealed(b"globals", zlib.compress(jsontags.dumps({"random": 1, "numpy": {}}).encode())),
        sealed(b"globals", zlib.compress(jsontags.dumps({"random": (3, (), None), "numpy": {"state": {}}}).encode())),
    ],
    ids=lambda _: "data",  # signatures differ from run to run
)
def test_a_snapshot_of_another_env_is_a_value_error(data: bytes) -> None:
    """Bytes of no family, of another than the env's, or malformed, are refused; the global generators stay."""
    before = random.getstate(), pickle.dumps(np.random.get_state())  # noqa: NPY002  # they are what is tested
    with pytest.raises(ValueError, match=r"."):
        snapshot.restore(odd.Odd(), data, trust=False)
    assert (random.getstate(), pickle.dumps(np.random.get_state())) == before  # noqa: NPY002  # as above


def test_half_a_state_of_the_global_generators_changes_neither() -> None:
    """Where one of the two is sound and the other is not, both stay."""
    before = random.getstate()
    states = {**snapshot.global_states(), "random": random.Random(1).getstate()}  # noqa: S311  # as above
    states["numpy"] = {**states["numpy"], "bit_generator": "PCG64"}
    with pytest.raises(ValueError, match=r"."):
        snapshot.restore(odd.Odd(), snapshot.kept(snapshot.GLOBALS, snapshot.packed_globals(states)), trust=False)
    assert random.getstate() == before


Task = namedtuple("Task", "env_name data")  # as Meta-World has it


class Chooser(gym.Wrapper[Any, Any, Any, Any]):
    """Stands in for Meta-World's: goals drawn when it is made, from the global generator; seeds are ignored."""

    __module__ = "metaworld.stand_in"

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        goals = np.random.random((5, 3))  # noqa: NPY002  # as it does
        self.tasks = [Task("x", pickle.dumps({"rand_vec": goal, "partially_observable": True})) for goal in goals]


class Sawyer(odd.Deaf):
    """Of Meta-World's package."""

    __module__ = "metaworld.stand_in"


def test_the_goals_of_meta_world_go_with_its_episodes() -> None:
    """What a fresh env drew when it was made is replaced by what the recorded one had."""
    recorded, fresh = Chooser(Sawyer()), Chooser(Sawyer())
    family = snapshot.family_of(recorded)
    assert family is not None
    assert family.name == "metaworld"
    snapshot.restore(fresh, snapshot.capture(family, recorded), trust=False)
    assert [task.data for task in fresh.tasks] == [task.data for task in recorded.tasks]
    with pytest.raises(ValueError, match="number of tasks"):
        snapshot.restore(fresh, snapshot.kept(family, jsontags.dumps(np.zeros((4, 3))).encode()), trust=False)


def test_only_envs_that_need_snapshots_have_a_family() -> None:
    """An env of any other package has none."""
    assert snapshot.family_of(gym.make("CartPole-v1")) is None
    assert snapshot.family_of(Chooser(odd.Odd())) is None
