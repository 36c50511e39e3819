"""Recorders inside vector envs: how they get there, what they log there, and which lane they are of."""

from __future__ import annotations

import copy
import json
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import time
import warnings
from pathlib import Path
from typing import Any

import cloudpickle
import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.wrappers import TimeLimit

import reenact
from bare import only, segments
from reenact import Recorder, lanes, recording

ROOT = Path(__file__).parents[1]
NO_SEED = -(2**63)
PRELUDE = """
import os, sys, time, warnings
import gymnasium as gym
import numpy as np
import reenact
from gymnasium.wrappers import RecordEpisodeStatistics
# which warning it was that a worker ended with is told by the error that Gymnasium raises after this
warnings.filterwarnings("default", ".*Received the following error from Worker")
"""


def start(text: str, folder: Path, *arguments: object) -> subprocess.Popen[str]:
    """Starts a training script of its own in a folder: a file, so that spawned workers can load it."""
    path = folder / "train.py"
    path.write_text(PRELUDE + textwrap.dedent(text))
    environ = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "PYTHONWARNINGS": "error"}
    environ.pop("_REENACT_LAUNCH", None)
    pipe = subprocess.PIPE
    command = [sys.executable, str(path), *map(str, arguments)]
    return subprocess.Popen(command, cwd=folder, env=environ, stdout=pipe, stderr=pipe, text=True)


def script(text: str, folder: Path, *arguments: object) -> str:
    """Runs a training script to its end; returns stdout."""
    process = start(text, folder, *arguments)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return out


TRAIN = """
    def late(seconds):
        '''Makes an env after a while, so that workers are ready in another order than they were started.'''
        time.sleep(seconds)
        return gym.make("CartPole-v1", max_episode_steps=20)

    def train(kind, context, mode, wrap, delays, shared):
        '''Returns all that a training sees: observations, rewards, endings, infos.'''
        fns = [lambda d=d: wrap(late(d)) for d in delays]
        more = {"autoreset_mode": gym.vector.AutoresetMode(mode)} if mode else {}
        if kind == "sync":
            envs = gym.vector.SyncVectorEnv(fns, **more)
        else:
            envs = gym.vector.AsyncVectorEnv(fns, context=context, shared_memory=shared, **more)
        actions = np.random.default_rng(0)
        seen = [envs.reset(seed=7)]
        for _ in range(80):
            obs, reward, terminated, truncated, info = envs.step(actions.integers(2, size=len(delays)))
            seen.append((obs, reward, terminated, truncated, info))
            over = terminated | truncated
            if mode == "Disabled" and over.any():
                seen.append(envs.reset(options={"reset_mask": over}))
        envs.close()
        return seen

    def same(a, b):
        '''Whether two trainings saw the same, to the bit and the type; times aside.'''
        if isinstance(a, dict):
            return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a if k not in ("t", "_t"))
        if isinstance(a, (tuple, list)):
            return len(a) == len(b) and all(map(same, a, b))
        if isinstance(a, np.ndarray):
            if a.dtype == object:
                return same(a.tolist(), b.tolist())
            return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
        return type(a) is type(b) and a == b

    if __name__ == "__main__":
        kind, context, mode, shared = sys.argv[1:]
        form = kind, context, mode
        theirs = train(*form, RecordEpisodeStatistics, (0, 0, 0), bool(shared))
        ours = train(*form, reenact.recording("run"), (0.3, 0.0, 0.15), bool(shared))
        assert same(theirs, ours)
        said = [info for *_, info in ours if "episode" in info.get("final_info", info)]
        assert said and all("_episode" in info.get("final_info", info) for info in said)
        seeded = context not in ("", "fork") or [
            train(*form, reenact.recording(run, reseed=True), delays, bool(shared))
            for run, delays in (("reseeded", (0.2, 0.0, 0.1)), ("again", (0.0, 0.1, 0.2)))
        ]
        assert seeded is True or (same(*seeded) and not same(seeded[0], ours))
"""
FORMS = [
    ("sync", "", "", ""),
    ("async", "fork", "", ""),
    ("async", "spawn", "", ""),
    ("async", "forkserver", "", "shared"),
]
if hasattr(gym.vector, "AutoresetMode"):  # from Gymnasium 1.1 on
    for _mode in ("SameStep", "Disabled"):
        FORMS += [("sync", "", _mode, ""), ("async", "fork", _mode, "shared")]


@pytest.mark.parametrize(("kind", "context", "mode", "shared"), FORMS)
def test_a_segment_an_env(kind: str, context: str, mode: str, shared: str, tmp_path: Path) -> None:
    """In whatever vector env, the training is the unrecorded one's, each env has a segment, each episode replays."""
    script(TRAIN, tmp_path, kind, context, mode, shared)
    for name, reseeded in (("run", False), ("reseeded", True), ("again", True)):
        if reseeded and context not in ("", "fork"):
            continue  # each worker takes a second to start
        logs = sorted(segments(tmp_path / name), key=lambda log: int(log.rows["lane"][0]))
        assert [set(log.rows["lane"].tolist()) for log in logs] == [{0}, {1}, {2}]
        for lane, log in enumerate(logs):
            assert log.closed
            seeds = log.rows["seed"].tolist()
            assert len(seeds) > 3
            assert seeds[0] == 7 + lane
            assert all((seed != NO_SEED) == reseeded for seed in seeds[1:])
            # of each unseeded reset, the generator's state before it
            assert log.states["episode"].tolist() == ([] if reseeded else list(range(1, len(seeds))))
            assert set(log.ended[:-1]) <= {"terminated", "truncated"}
    results = reenact.verify(tmp_path / "run")
    assert {result.verdict for result in results} == {"exact"}
    run = reenact.open_run(tmp_path / "run")
    assert sorted(set(run.lanes.tolist())) == [0, 1, 2]
    picked = reenact.verify(run, where="lane == 2", last=1)
    assert [run.lanes[result.episode] for result in picked] == [2]


def test_make_vec(tmp_path: Path) -> None:
    """`make_vec` takes a recording among its wrappers; the env that AsyncVectorEnv only looks at leaves no segment."""
    script(
        """
        if __name__ == "__main__":
            for mode in ("sync", "async"):
                envs = gym.make_vec("CartPole-v1", 3, mode, wrappers=[reenact.recording(f"runs/{mode}", role=mode)])
                envs.reset(seed=1)
                for _ in range(30):
                    envs.step(np.array([0, 1, 0]))
                envs.close()
            envs = gym.make_vec("CartPole-v1", 3, "async", wrappers=[reenact.recording("runs/none")])
            envs.close()
        """,
        tmp_path,
    )
    for mode in ("sync", "async"):
        logs = segments(tmp_path / "runs" / mode)
        assert sorted(int(log.rows["lane"][0]) for log in logs) == [0, 1, 2]
        assert {log.attrs["role"] for log in logs} == {mode}
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["async", "sync"]


def test_one_folder_for_all_workers(tmp_path: Path) -> None:
    """Without a name, all workers record into one folder, that of the place and time at which the recording was made."""
    script(
        """
        if __name__ == "__main__":
            recording = reenact.recording()
            os.mkdir("elsewhere")
            os.chdir("elsewhere")
            make = lambda: recording(gym.make("CartPole-v1"))
            envs = gym.vector.AsyncVectorEnv([make, make], context="spawn")
            envs.reset(seed=1)
            envs.step(np.array([0, 1]))
            envs.close()
        """,
        tmp_path,
    )
    assert not list((tmp_path / "elsewhere").iterdir())
    (run,) = (tmp_path / "runs").iterdir()
    assert run.name.startswith("CartPole-v1-20")
    assert len(segments(run)) == 2


def test_a_killed_worker(tmp_path: Path) -> None:
    """A worker that is killed loses what came after its last commit, and the others nothing; all of it replays."""
    training = start(
        """
        if __name__ == "__main__":
            wrap = reenact.recording("run", flush_seconds=0.1)
            envs = gym.make_vec("CartPole-v1", 3, "async", wrappers=[wrap])
            envs.reset(seed=1)
            print(envs.processes[1].pid, flush=True)
            try:
                while True:
                    envs.step(envs.action_space.sample())
                    time.sleep(0.001)
            except (EOFError, OSError):
                pass
            for worker in (envs.processes[0], envs.processes[2]):
                envs.parent_pipes[envs.processes.index(worker)].send(("close", None))
                worker.join()
            os._exit(0)
        """,
        tmp_path,
    )
    assert training.stdout is not None
    victim = int(training.stdout.readline())
    deadline = time.monotonic() + 60
    while len(list((tmp_path / "run").glob("segment-*.h5"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(1.5)
    os.kill(victim, signal.SIGKILL)
    killed_at = time.time_ns()
    assert training.wait(60) == 0
    training.communicate()
    logs = {int(log.rows["lane"][0]): log for log in segments(tmp_path / "run")}
    assert [logs[lane].closed for lane in range(3)] == [True, False, True]
    kept = logs[1].rows["end_time"][-1] if logs[1].open is None else logs[1].open["end_time"]
    assert killed_at - int(kept) < 1e9  # of 1.5 s and more
    assert len(logs[1].rows) > 3
    assert {result.verdict for result in reenact.verify(tmp_path / "run")} == {"exact"}


@pytest.mark.parametrize("context", ["fork", "spawn", "forkserver"])
def test_workers_belong_to_the_cell_that_starts_them(context: str, tmp_path: Path) -> None:
    """Workers of a notebook's cell that records in nothing else are refused the run of the cell's earlier start.

    Where they are sent what they need, that is told before they start.
    """
    out = script(
        """
        import multiprocessing, types

        def work(wrap, queue):
            try:
                env = wrap(gym.make("CartPole-v1"))
                env.reset(seed=1)
                env.step(0)
                env.close()
                queue.put("recorded")
            except reenact.RunExistsError as error:
                queue.put("again" if "an earlier start of a cell" in str(error) else str(error))

        class Shell:
            '''As much of IPython's as tells a cell's starts apart.'''
            def __init__(self):
                self.execution_count, self.cell, self.called, self.events = 0, "", [], self
            def register(self, event, function):
                assert event == "pre_run_cell"
                self.called.append(function)
            def get_parent(self):
                return {"metadata": {"cellId": self.cell}}
            def run(self, cell, code):
                self.execution_count, self.cell = self.execution_count + 1, cell
                for function in self.called:
                    function(None)
                return code()

        if __name__ == "__main__":
            shell = Shell()
            sys.modules["IPython"] = types.ModuleType("IPython")
            sys.modules["IPython"].get_ipython = lambda: shell
            context = multiprocessing.get_context(sys.argv[1])
            wraps = []
            def cell():
                if not wraps or sys.argv[1] != "fork":
                    wraps.append(reenact.recording("run"))
                queue = context.Queue()
                workers = [context.Process(target=work, args=(wraps[-1], queue)) for _ in range(2)]
                try:
                    for worker in workers:
                        worker.start()
                except reenact.RunExistsError as error:
                    return [str(error)[:19], context.get_start_method()]
                said = [queue.get(timeout=60) for _ in workers]
                for worker in workers:
                    worker.join()
                return said
            shell.run("b", lambda: __import__("reenact.recorder"))
            print(shell.run("a", cell), shell.run("a", cell), shell.run("c", cell))
        """,
        tmp_path,
        context,
    )
    again = ["again"] * 2 if context == "fork" else [f"{tmp_path / 'run'} already"[:19], context]
    assert out == f"{['recorded'] * 2} {again} {['recorded'] * 2}\n"
    logs = segments(tmp_path / "run")
    assert sorted(int(log.rows["lane"][0]) for log in logs) == [
        0,
        1,
        4,
        5,
    ]  # as multiprocessing counts those that were made
    assert len({log.attrs["launch"] for log in logs}) == 2


# ---- what recording() returns


def scaled(env: gym.Env[Any, Any], scale: float = 1.0) -> gym.Wrapper[Any, Any, Any, Any]:
    """Stands around a recorder."""
    return gym.wrappers.TransformReward(env, lambda reward: scale * float(reward))


def test_it_can_be_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pickled, copied and sent by cloudpickle it stays what it was, and its folder where it was."""
    monkeypatch.chdir(tmp_path)
    made = recording("run", then=scaled, role="eval", info_keywords=("x",))
    for again in (pickle.loads(pickle.dumps(made)), copy.deepcopy(made), cloudpickle.loads(cloudpickle.dumps(made))):  # noqa: S301  # its own
        assert again == made
        assert hash(again) == hash(made)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    env = made(gym.make("CartPole-v1"))
    env.reset(seed=1)
    env.step(0)
    env.close()
    assert only(tmp_path / "run").attrs["role"] == "eval"
    sent = cloudpickle.loads(cloudpickle.dumps(recording(tmp_path / "marked", mark=lambda _: "seen")))
    assert sent.options["mark"]({}) == "seen"


def test_what_stands_around(tmp_path: Path) -> None:
    """`then` goes around the recorder, with the arguments that come with the env; the log has the env's own rewards."""
    env = recording(tmp_path / "run", then=scaled)(gym.make("CartPole-v1"), scale=3.0)
    assert isinstance(env.env, Recorder)
    env.reset(seed=1)
    assert env.step(0)[1] == 3.0
    env.close()
    assert only(tmp_path / "run").columns["reward"].tolist() == [1.0]


def test_what_it_refuses(tmp_path: Path) -> None:
    """A wrong option is refused where it is written, and not in a worker; so are arguments that nothing takes."""
    with pytest.raises(TypeError, match=r"options of Recorder, got 'roles': expected some of .*role, lane"):
        recording(tmp_path, roles="eval")
    with pytest.raises(TypeError, match="got 'env'"):
        recording(tmp_path, env=None)
    with pytest.raises(TypeError, match="then must be a wrapper"):
        recording(tmp_path, then="AtariWrapper")
    with pytest.raises(TypeError, match="called with role beside the env: give the recorder's options to recording"):
        recording(tmp_path)(gym.make("CartPole-v1"), role="eval")
    with pytest.raises(ValueError, match="lane must be a number from 0, or -1 for none, got -2"):
        Recorder(gym.make("CartPole-v1"), tmp_path / "run", lane=-2)


# ---- lanes


def lane_of(env: Recorder) -> int:
    """The lane that the first episode has in the log."""
    env.reset(seed=1)
    env.step(0)
    env.close()
    written = {int(row["lane"]) for log in segments(env.run) for row in log.rows[-1:]}
    assert written == set(reenact.open_run(env.run).lanes[-1:].tolist())
    return int(reenact.open_run(env.run).lanes[-1])


def made(folder: Path, name: str, **options: Any) -> Recorder:
    """A recorder with a run of its own name."""
    return Recorder(gym.make("CartPole-v1"), folder / name, **options)


def test_lanes_are_told_by_the_order(tmp_path: Path) -> None:
    """Envs that are made before any of them is reset have their order for lane, however they are reset and closed."""
    envs = [made(tmp_path, "run") for _ in range(4)]
    found = {}
    for at in (2, 0, 3, 1):
        envs[at].reset(seed=at)
        envs[at].step(0)
        envs[at].close()
    for log in segments(tmp_path / "run"):
        found[int(log.rows["seed"][0])] = int(log.rows["lane"][0])
    assert found == {0: 0, 1: 1, 2: 2, 3: 3}


def test_who_has_no_lane(tmp_path: Path) -> None:
    """An env alone has none: nor beside one of another role or run, one that was closed or dropped, or reset before."""
    closed, dropped = made(tmp_path, "run"), made(tmp_path, "run")
    closed.close()
    del dropped
    others = made(tmp_path, "run", role="eval"), made(tmp_path, "other")
    first = made(tmp_path, "run")
    assert lane_of(first) == -1
    assert lane_of(made(tmp_path, "run")) == -1
    assert [lane_of(env) for env in others] == [-1, -1]


def test_a_given_lane(tmp_path: Path) -> None:
    """`lane=` is kept as it is given, and counts for none of those that are made beside it."""
    envs = [made(tmp_path, name, lane=lane) for name, lane in (("a", 7), ("b", None), ("b", -1), ("c", 0))]
    assert [lane_of(env) for env in envs] == [7, -1, -1, 0]


@pytest.mark.parametrize(
    ("name", "alone", "beside"),
    [
        ("Worker<AsyncVectorEnv>-3", 3, [3, 3]),
        ("Worker<MyVectorEnv>-12", 12, [12, 12]),
        ("ForkServerProcess-3", 2, [0, 1]),
        ("SpawnProcess-2:5", 4, [0, 1]),
        ("Process-1", 0, [0, 1]),
        ("MainProcess", -1, [0, 1]),
        ("actor-3", -1, [0, 1]),
    ],
)
def test_lanes_are_told_by_the_worker(
    name: str, alone: int, beside: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """AsyncVectorEnv's worker is named by its lane; of others, which SB3 starts, the process's number counts."""
    monkeypatch.setattr(multiprocessing.current_process(), "_name", name)
    assert lanes.Place(tmp_path / "a", "train").lane() == alone
    assert [place.lane() for place in [lanes.Place(tmp_path / "b", "train") for _ in range(2)]] == beside


# ---- where the recorder stands


class EpisodicLifeEnv(gym.Wrapper[Any, Any, Any, Any]):
    """Called as the usual wrapper that makes an episode of each life."""


class Bell(gym.Env[Any, Any]):
    """Pays 5 every second step; what it shows is what its generator draws."""

    observation_space, action_space = spaces.Box(-9, 9, (2,), np.float64), spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """Draws."""
        super().reset(seed=seed, options=options)
        self.at = 0
        return self.np_random.normal(size=2), {}

    def step(self, action: Any) -> Any:
        """Draws, and pays."""
        self.at += 1
        return self.np_random.normal(size=2), 5.0 * (self.at % 2) * action, self.at == 12, False, {}


@pytest.fixture(autouse=True)
def _bell() -> Any:
    gym.register("Bell-v0", entry_point=f"{__name__}:Bell")
    yield
    gym.registry.pop("Bell-v0")


W = gym.wrappers
STACKS = [
    pytest.param([], [lambda e: W.ClipReward(e, -1.0, 1.0), W.NormalizeReward, W.NormalizeObservation], 12, 30.0, id="raw below"),
    pytest.param([lambda e: W.MaxAndSkipObservation(e, 4)], [], 3, 30.0, id="over frame skip"),
    pytest.param([], [lambda e: W.MaxAndSkipObservation(e, 4)], 12, 30.0, id="under frame skip"),
    pytest.param([lambda e: TimeLimit(e, 6)], [], 6, 15.0, id="over TimeLimit"),
    pytest.param([lambda e: W.ClipReward(e, -1.0, 1.0)], [], 12, 6.0, id="over reward clipping"),
    pytest.param([lambda e: W.StickyAction(e, 0.4)], [], 12, None, id="over sticky actions"),
    pytest.param([lambda e: W.FrameStackObservation(e, 2)], [lambda e: W.RecordEpisodeStatistics(e, stats_key="above")], 12, 30.0, id="over frame stack"),
]  # fmt: skip


@pytest.mark.filterwarnings("ignore:reenact. below the recorder")
@pytest.mark.filterwarnings("ignore:reenact. info")
@pytest.mark.parametrize(("below", "above", "length", "total"), STACKS)
def test_where_the_recorder_stands(
    below: list[Any], above: list[Any], length: int, total: float | None, tmp_path: Path
) -> None:
    """Logged are the steps, rewards and ends where it stands; what stands above it changes none, and all replays."""

    def make() -> Any:
        env = gym.make("Bell-v0")
        for wrap in below:
            env = wrap(env)
        env = Recorder(env, tmp_path / "run")
        for wrap in above:
            env = wrap(env)
        return env

    envs = gym.vector.SyncVectorEnv([make, make])
    envs.reset(seed=3)
    actions = np.random.default_rng(1)
    for _ in range(40):
        envs.step(np.array([1, 1]) if total is not None else actions.integers(2, size=2))
    envs.close()
    run = reenact.open_run(tmp_path / "run")
    whole = run.ended != "interrupted"
    assert whole.sum() >= 4
    assert set(run.lengths[whole].tolist()) == {length}
    if total is not None:
        assert set(run.returns[whole].tolist()) == {total}
    assert {result.verdict for result in reenact.verify(run)} == {"exact"}


def test_a_time_limit_above_the_recorder(tmp_path: Path) -> None:
    """What a TimeLimit above it cuts is logged as interrupted, with the steps that were done, and replays."""

    def make() -> Any:
        return TimeLimit(Recorder(gym.make("Bell-v0"), tmp_path / "run"), 5)

    envs = gym.vector.SyncVectorEnv([make, make])
    envs.reset(seed=3)
    for _ in range(18):
        envs.step(np.array([1, 1]))
    envs.close()
    run = reenact.open_run(tmp_path / "run")
    assert set(run.ended.tolist()) == {"interrupted"}
    assert run.lengths.tolist() == [5] * 6
    assert {result.verdict for result in reenact.verify(run)} == {"exact"}


@pytest.mark.parametrize(("env_id", "expected"), [("CartPole-v1", {"exact"}), ("Bell-v0", {"exact", "diverged"})])
def test_chance_above_the_recorder(env_id: str, expected: set[str], tmp_path: Path) -> None:
    """Above it, a wrapper that draws from the env's generator spoils replays of an env that draws in its steps: told so."""
    env = W.StickyAction(Recorder(gym.make(env_id), tmp_path / "run"), 0.4)
    for episode in range(4):
        env.reset(seed=1 if episode == 0 else None)
        over = False
        while not over:
            _, _, terminated, truncated, _ = env.step(episode % 2)
            over = terminated or truncated
    env.close()
    results = reenact.verify(tmp_path / "run")
    assert {result.verdict for result in results} <= expected
    assert all(result.ok for result in results) == (expected == {"exact"})


def test_it_says_what_it_records_of_a_game(tmp_path: Path) -> None:
    """Above wrappers that end lives and clip rewards, one notice a run says what is recorded and how it is else."""

    def make(wrap: Any) -> Any:
        return lambda: wrap(gym.make("CartPole-v1"))

    def above(env: Any) -> Any:
        return Recorder(W.ClipReward(EpisodicLifeEnv(env), -1.0, 1.0), tmp_path / "above")

    below = recording(tmp_path / "below", then=lambda env: W.ClipReward(EpisodicLifeEnv(env), -1.0, 1.0))
    for wrap, expected in ((above, 1), (below, 0)):
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            envs = gym.vector.SyncVectorEnv([make(wrap) for _ in range(3)])
            envs.reset(seed=1)
            envs.step(np.zeros(3, np.int64))
            envs.close()
        texts = [str(one.message) for one in said if "reenact" in str(one.message)]
        assert len(texts) == expected
        for text in texts:
            assert "EpisodicLifeEnv ends an episode with each life and ClipReward clips the rewards" in text
            assert "no whole games" in text
            assert "then=AtariWrapper" in text


def test_a_worker_repeats_no_notice(tmp_path: Path) -> None:
    """What AsyncVectorEnv's first look at the env made the recorder say, its workers do not say again."""
    out = script(
        """
        class Odd(gym.Wrapper):
            def __init__(self, env, size):
                super().__init__(env)

        if __name__ == "__main__":
            warnings.simplefilter("always")
            make = lambda: reenact.Recorder(Odd(gym.make("CartPole-v1"), 3), "run")
            envs = gym.vector.AsyncVectorEnv([make, make], context="fork")
            envs.reset(seed=1)
            envs.close()
        """.replace("warnings.simplefilter", "sys.stderr = sys.stdout; warnings.simplefilter"),
        tmp_path,
    )
    assert out.count("Odd doesn't record its arguments") == 1


def test_lanes_are_columns(tmp_path: Path) -> None:
    """The lane is among the columns of `reenact show`'s rows."""
    envs = gym.make_vec("CartPole-v1", 2, "sync", wrappers=[recording(tmp_path / "run")])
    envs.reset(seed=1)
    envs.step(np.array([0, 1]))
    envs.close()
    environ = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-c", "from reenact.cli import main; main()", "show", str(tmp_path / "run"), "--json"]
    shown = subprocess.run(command, env=environ, capture_output=True, text=True, check=True).stdout
    assert [json.loads(line)["lane"] for line in shown.splitlines()] == [0, 1]
