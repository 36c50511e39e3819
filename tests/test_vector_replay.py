"""Episodes of vector envs, recorded in one process and replayed in another: exact, with the frames of live rendering."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path
from typing import Any

import gymnasium as gym
import h5py
import numpy as np
import pytest

import reenact
from bare import only, segments
from reenact import VectorRecorder, listing
from reenact.layout import Kept
from vector_envs import ALL_MODES, MODES, TERMINATE, TRUNCATE, WIDTH, Together, make, register

HERE = Path(__file__).resolve().parent
NEXT_STEP, SAME_STEP, DISABLED = ALL_MODES
CASES = {
    **{f"{kind} {mode.value}": (kind, mode.value) for kind in ("sync", "async") for mode in MODES},
    **{f"batch {mode.value}": ("batch", mode.value) for mode in ALL_MODES},
    "CartPole sync": ("CartPole-v1", "sync"),
    "CartPole batch": ("CartPole-v1", "vector_entry_point"),
}
"""How a vector env is made: by vector_envs.make, or by make_vec."""

TRAIN = """
import json, os, signal, sys
import gymnasium as gym
import numpy as np
import reenact
import vector_envs

folder, one, other, steps, seed, killed = json.loads(sys.argv[1])
own = one in ("sync", "async", "batch")
mode = vector_envs.AutoresetMode(other) if own else vector_envs.AutoresetMode.NEXT_STEP

def make(kind, render_mode=None):
    if own:
        return vector_envs.make(kind, mode, render_mode=render_mode)
    return gym.make_vec(one, 3, other, render_mode=render_mode)

if __name__ == "__main__":
    training = reenact.VectorRecorder(make(one), folder + "/run")
    live = make("sync" if one == "async" else one, "rgb_array")
    rng = np.random.default_rng(9)
    running = [[] for _ in range(3)]
    done = [[] for _ in range(3)]

    def begin(mask):
        frames = live.render()
        for lane in np.flatnonzero(mask):
            running[lane] = [frames[lane]]

    def reset(seed, mask=None):
        options = [{} if mask is None else {"reset_mask": mask.copy()} for _ in range(2)]
        training.reset(seed=seed, options=options[0] or None)
        live.reset(seed=seed, options=options[1] or None)
        begin(np.ones(3, bool) if mask is None else mask)

    reset(seed)
    resting = np.zeros(3, bool)
    for step in range(steps):
        actions = rng.choice([0, 0, 0, 0, 0, 0, 1, 2] if own else [0, 1], size=3)
        _, rewards, ends, cuts, infos = training.step(actions)
        results = live.step(actions)
        if seed is not None:
            assert (rewards == results[1]).all() and (ends == results[2]).all()
        frames, over = live.render(), ends | cuts
        for lane in range(3):
            if mode is vector_envs.AutoresetMode.NEXT_STEP and resting[lane]:
                running[lane] = [frames[lane]]
            elif not over[lane] or mode is not vector_envs.AutoresetMode.SAME_STEP:
                running[lane].append(frames[lane])
            if over[lane]:
                done[lane].append(np.array(running[lane]))
                running[lane] = [frames[lane]]
        resting = over
        if mode is vector_envs.AutoresetMode.DISABLED and over.any():
            reset(None, over)
        if step == steps // 2 and seed is not None and one != "async":
            if one != "sync":
                reset(17)
                resting = np.zeros(3, bool)
    np.savez(folder + "/live.npz", **{f"{lane}.{at}": one for lane in range(3) for at, one in enumerate(done[lane])})
    print(json.dumps([len(one) for one in done]))
    if killed:
        training.flush()
        training.step(actions)
        os.kill(os.getpid(), signal.SIGKILL)
    training.close()
    live.close()
"""


def train(folder: Path, one: str, other: str, *, steps: int = 60, seed: int | None = 5, killed: bool = False) -> Any:
    """Trains in a process of its own."""
    script = folder / "train.py"
    script.write_text(TRAIN)
    given = json.dumps([str(folder), one, other, steps, seed, killed])
    path = os.pathsep.join([str(HERE), str(HERE.parent / "src")])
    command = [sys.executable, "-W", "error", str(script), given]
    return subprocess.run(
        command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.fixture(name="trained", params=sorted(CASES))
def _trained(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path]:
    done = train(tmp_path, *CASES[request.param])
    assert done.returncode == 0, done.stderr
    return request.param, tmp_path


def test_frames_are_those_of_live_rendering(trained: tuple[str, Path]) -> None:
    """Every finished episode of every lane is exact, and each of its frames is that of live rendering."""
    name, folder = trained
    register()
    run, live = reenact.open_run(folder / "run"), np.load(folder / "live.npz")
    assert {result.verdict for result in reenact.verify(run)} == {"exact"}
    finished = [episode for episode in run if episode.ended in ("terminated", "truncated")]
    assert len(finished) == len(live.files) > 3
    counts = dict.fromkeys(range(WIDTH), 0)
    for episode in finished:
        expected = live[f"{episode.lane}.{counts[episode.lane]}"]
        counts[episode.lane] += 1
        if "SameStep" in name:  # live rendering has no frame of the end: the lane has been reset by then
            assert len(expected) == episode.length
        if counts[episode.lane] > 2:
            continue  # the others are as exact, and take their time
        frames = np.array(list(episode.frames()))
        assert frames[: len(expected)].tobytes() == expected.tobytes()
        assert len(frames) == episode.length + 1


@pytest.mark.parametrize("kind", ["sync", "async", "batch"])
def test_a_kill_keeps_what_was_committed_of_every_lane(kind: str, tmp_path: Path) -> None:
    """Each lane's running episode is interrupted at the last commit, has an address, and replays."""
    done = train(tmp_path, kind, NEXT_STEP.value, steps=25, killed=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    register()
    bare = only(tmp_path / "run")
    assert not bare.closed
    open_rows = {int(row["lane"]): int(row["length"]) for row in bare.running}
    expected = {lane: length for lane, length in open_rows.items() if length}
    run = reenact.open_run(tmp_path / "run")
    cut = [
        episode
        for episode in run
        if episode.ended == "interrupted" and episode.index >= (bare.rows["ended"] != 0).sum()
    ]
    assert {episode.lane: episode.length for episode in cut} == expected
    assert [episode.address for episode in cut] == [
        f"0.{index}" for index in sorted(int(episode.index or 0) for episode in cut)
    ]
    for episode in cut:
        of_lane = bare.columns["reward"][episode.lane :: WIDTH]
        assert episode.rewards.tolist() == of_lane[len(of_lane) - episode.length :].tolist()
    assert {result.verdict for result in reenact.verify(run)} == {"exact"}
    assert run.lanes.tolist() == [episode.lane for episode in run]


def record(
    folder: Path, kind: str, mode: Any = NEXT_STEP, *, steps: int = 40, seed: int | None = 1, **kwargs: Any
) -> None:
    """Trains here."""
    envs = VectorRecorder(make(kind, mode), folder, **kwargs)
    rng = np.random.default_rng(4)
    envs.reset(seed=seed)
    for _ in range(steps):
        _, _, ends, cuts, _ = envs.step(rng.choice([0, 0, 0, 0, TERMINATE, TRUNCATE], size=WIDTH))
        if mode is DISABLED and (ends | cuts).any():
            envs.reset(options={"reset_mask": ends | cuts})
    envs.close()


# ---- origins


def test_what_a_lane_starts_from(tmp_path: Path) -> None:
    """Sub-envs in reach are started alone, those of other processes by a chain, a batch from its last full reset."""
    for kind in ("sync", "async", "batch"):
        record(tmp_path / kind, kind)
    origins = {
        kind: [result.origin for result in reenact.verify(tmp_path / kind)] for kind in ("sync", "async", "batch")
    }
    assert set(origins["sync"]) == {"seed", "rng"}
    assert origins["async"].count("seed") == origins["batch"].count("seed") == WIDTH
    assert set(origins["async"]) == set(origins["batch"]) == {"seed", "chain:first"}
    assert [result.seed for result in reenact.verify(tmp_path / "sync") if result.seed is not None] != []


@pytest.mark.parametrize("kind", ["sync", "async", "batch"])
def test_unseeded_first_resets(kind: str, tmp_path: Path) -> None:
    """Without any seed, the generators' states are found where they are, and every episode is exact."""
    record(tmp_path / "run", kind, seed=None)
    results = reenact.verify(tmp_path / "run")
    assert {result.verdict for result in results} == {"exact"}
    assert {result.origin for result in results} <= {"rng", "chain:first"}


def test_seeds_of_lanes(tmp_path: Path) -> None:
    """An int counts up over the lanes, a list is taken as it is; a batch's seed is that of all."""
    for kind, seed, expected in (("sync", 7, [7, 8, 9]), ("sync", [5, None, 2], [5, None, 2]), ("batch", 7, [7] * 3)):
        folder = tmp_path / f"{kind}{seed}"
        envs = VectorRecorder(make(kind, NEXT_STEP), folder)
        envs.reset(seed=seed)
        envs.step(np.ones(WIDTH, int))
        envs.close()
        assert [episode.seed for episode in reenact.open_run(folder)] == expected
        assert {result.verdict for result in reenact.verify(folder)} == {"exact"}


def test_a_vector_env_without_any_generator(tmp_path: Path) -> None:
    """One that is seeded in its own way, as ALE's is in C++, gets no generator, no warning, and replays by its seed."""
    register()
    envs = VectorRecorder(gym.make_vec("test/Arithmetic-v0", WIDTH, "vector_entry_point"), tmp_path / "run")
    envs.reset(seed=5)
    [envs.step(np.array([0, int(step % 4 == 3), 0])) for step in range(12)]
    assert envs.unwrapped._np_random is None  # noqa: SLF001  # Gymnasium's own place for it
    envs.close()
    assert {result.verdict for result in reenact.verify(tmp_path / "run")} == {"exact"}


def test_a_chain_starts_where_it_can(tmp_path: Path) -> None:
    """Of resets from inside an AsyncVectorEnv none is tried as a start: the next one back with an origin is."""
    record(tmp_path / "run", "async", steps=60)
    run = reenact.open_run(tmp_path / "run")
    last = [episode for episode in run if episode.lane == 0][-1]
    (result,) = reenact.verify(run, last.address)
    assert (result.origin, result.tried) == ("chain:first", ())
    (forced,) = reenact.verify(run, last.address, origin="chain:1")
    assert (forced.verdict, forced.origin) == ("exact", "chain:first")


@pytest.mark.parametrize("kind", ["sync", "batch"] if DISABLED in MODES else ["batch"])
def test_options_of_partial_resets(kind: str, tmp_path: Path) -> None:
    """They are logged without the mask, and given again, with the seed, to those lanes."""
    envs = VectorRecorder(make(kind, DISABLED), tmp_path / "run")
    envs.reset(seed=1, options={"more": 2.0})
    for step in range(12):
        mask = np.array([step % 2, step % 3 == 0, False], bool)
        envs.step(np.zeros(WIDTH, int))
        if mask.any():
            envs.reset(seed=step if step % 4 else None, options={"more": float(step), "reset_mask": mask})
    envs.close()
    run = reenact.open_run(tmp_path / "run")
    assert {result.verdict for result in reenact.verify(run)} == {"exact"}
    assert run[-1].options == {"more": 2.0}  # lane 2's, which was never reset again
    assert {episode.ended for episode in run} == {"interrupted"}


@pytest.mark.parametrize("forged", [False, True])
def test_another_lane_s_reset_that_can_not_be_done_again_is_told(
    forged: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it stands between two episodes of a lane, the second is impossible, with the reason: none has diverged."""
    envs = VectorRecorder(make("batch", DISABLED), tmp_path / "run")
    envs.reset(seed=1)
    envs.step(np.array([TERMINATE, TERMINATE, 0]))
    given = {"at": "vector_envs:register"} if forged else {"at": object()}
    with contextlib.nullcontext() if forged else pytest.warns(UserWarning, match="options"):
        envs.reset(options={**given, "reset_mask": np.array([False, True, False])})
    envs.step(np.array([0, 0, 0]))
    envs.reset(options={"reset_mask": np.array([True, False, False])})
    [envs.step(np.array([0, 0, 0])) for _ in range(3)]
    envs.close()
    if forged:
        monkeypatch.setattr("reenact.laneenv.is_mine", lambda *_: False)
    second = [episode for episode in reenact.open_run(tmp_path / "run") if episode.lane == 0][1]
    (result,) = reenact.verify(tmp_path / "run", second.address, origin="chain:first")
    assert result.verdict == "impossible"
    assert ("register" if forged else "options could not be logged") in str(result.error)


# ---- verification


def change_action(path: Path, row: np.void, at: int) -> None:
    """Changes one action of a lane, and makes all checksums of the file fit again."""
    from zlib import crc32  # noqa: PLC0415  # here alone

    with h5py.File(path, "r+", locking=False) as file:
        width = int(file.attrs["batch_width"])
        actions = file["steps/action/value"][:]
        first, count = int(row["first_step"]), int(row["n_actions"])
        actions[first + at * width] ^= 1
        file["steps/action/value"][:] = actions
        rows = file["episodes"][:]
        (number,) = np.flatnonzero(rows["first_step"] == first)
        mine = actions[first : first + count * width : width][:count]
        rows[number]["column_crcs"][0] = crc32(np.ascontiguousarray(mine).tobytes())
        rows[number]["crc"] = crc32(rows[number].tobytes()[:-4])
        file["episodes"][:] = rows


@pytest.mark.parametrize("kind", ["sync", "vector_entry_point"])
def test_a_changed_action_is_caught(kind: str, tmp_path: Path) -> None:
    """A lane whose action is not what it was diverges, and other single envs beside it do not."""
    envs = VectorRecorder(gym.make_vec("CartPole-v1", 3, kind), tmp_path / "run")
    envs.action_space.seed(2)
    envs.reset(seed=8)
    for _ in range(60):
        envs.step(envs.action_space.sample())
    envs.close()
    path = tmp_path / "run" / "segment-00000.h5"
    row = only(tmp_path / "run").rows[0]
    change_action(path, row, 3)
    results = reenact.verify(tmp_path / "run")
    assert results[0].verdict == "diverged"
    assert results[0].divergence is not None
    assert results[0].divergence.since <= 3
    if kind == "sync":  # of a batch, what one lane does is felt by the others
        run = reenact.open_run(path)
        others = {result.verdict for result in results[1:] if run[result.episode or 0].lane != row["lane"]}
        assert others == {"exact"}


# ---- the rest of the house


def test_videos_selections_and_the_table(tmp_path: Path) -> None:
    """`replay` films lanes as it films envs; `lane` narrows, and stands in the table."""
    record(tmp_path / "run", "batch")
    run = reenact.open_run(tmp_path / "run")
    results = reenact.replay(run, best=1, where="lane == 1", video_folder=tmp_path)
    assert [result.verdict for result in results] == ["exact"]
    assert results[0].frames == run[results[0].episode or 0].length + 1
    assert run[results[0].episode or 0].lane == 1
    assert results[0].path is not None
    assert Path(results[0].path).stat().st_size
    assert sorted(set(run.lanes.tolist())) == [0, 1, 2]


def test_packed_whole_and_in_part(tmp_path: Path) -> None:
    """A packed run verifies as it did; a picked episode brings what its lane starts from, and not all else."""
    for kind in ("async", "batch"):
        folder = tmp_path / kind
        record(folder, kind, steps=80)
        lanes = only(folder).rows["lane"]
        run = reenact.open_run(folder)
        whole = reenact.pack(run, tmp_path / f"{kind}.h5").path
        assert {result.verdict for result in reenact.verify(whole)} == {"exact"}
        assert reenact.open_run(whole).lanes.tolist() == run.lanes.tolist()
        picked = [episode for episode in run if episode.lane == 1 and episode.length > 1][2]
        part = reenact.pack(run, tmp_path / f"{kind}-part.h5", episodes=picked.number)
        assert not part.notes
        (result,) = reenact.verify(part.path, picked.number)
        assert result.verdict == "exact"
        with h5py.File(part.path) as file:
            kept = file["segment-00000/kept"][:]
        assert set(lanes[np.isin(kept, (Kept.PICKED, Kept.NEEDED))].tolist()) <= {0, 1}  # 0: the first frame of all
        with pytest.raises(reenact.ReplayError, match="are not in"):
            reenact.open_run(part.path)[len(run) - 1].data()


@pytest.mark.parametrize("killed", [False, True])
def test_damage_costs_the_episode_it_hits(killed: bool, tmp_path: Path) -> None:
    """A flipped reward loses its lane's episode alone; `repair` says so and keeps the others, also of a killed segment."""
    done = train(tmp_path, "sync", NEXT_STEP.value, steps=40, killed=killed)
    assert done.returncode == (-signal.SIGKILL if killed else 0), done.stderr
    register()
    folder = tmp_path / "run"
    path = folder / "segment-00000.h5"
    bare = only(folder)
    expected = len(reenact.open_run(shutil.copytree(folder, tmp_path / "copy")))
    row = bare.rows[2]
    pattern = bare.columns["reward"][int(row["first_step"])].tobytes()
    data = bytearray(path.read_bytes())
    at = data.index(pattern)
    data[at] ^= 1
    path.write_bytes(data)
    report = reenact.repair(folder, out=tmp_path / "clean")
    assert [address for address, _, _ in report.segments[0].lost] == ["0.2"]
    assert report.segments[0].kept == expected - 1
    clean = reenact.open_run(tmp_path / "clean")
    assert len(clean) == expected
    verdicts = [result.verdict for result in reenact.verify(clean, [n for n in range(expected) if n != 2])]
    assert set(verdicts) == {"exact"}


def test_a_run_of_both_kinds(tmp_path: Path) -> None:
    """Single envs and vector envs record into one run; each episode knows its segment and lane, and replays."""
    register()
    run = tmp_path / "run"
    env = reenact.Recorder(gym.make("test/Obedient-v0"), run)
    envs = [VectorRecorder(make(kind, NEXT_STEP), run) for kind in ("sync", "batch")]
    env.reset(seed=1)
    for one in envs:
        one.reset(seed=2)
    for action in [0, 0, 0, 1]:
        env.step(action)
        for one in envs:
            one.step(np.full(WIDTH, action))
    env.close()
    for one in envs:
        one.close()
    opened = reenact.open_run(run)
    assert [episode.lane for episode in opened] == [-1, 0, 1, 2, 0, 1, 2]
    assert {result.verdict for result in reenact.verify(opened)} == {"exact"}
    with pytest.raises(reenact.SelectionError, match="segment 1 is of a vector env: there are no clips"):
        reenact.replay(opened, step_trigger=lambda step: step == 2, video_folder=tmp_path)


def test_one_lane(tmp_path: Path) -> None:
    """A vector env of a single lane is one, too."""
    envs = VectorRecorder(make("sync", NEXT_STEP, width=1), tmp_path / "run")
    envs.reset(seed=1)
    for action in [0, 1, 0, 0, 1, 0, 0]:
        envs.step(np.array([action]))
    envs.flush()
    live = reenact.open_run(tmp_path / "run")
    assert [(episode.lane, episode.length) for episode in live.live] == [(0, 1)]
    envs.close()
    run = reenact.open_run(tmp_path / "run")
    assert (run.lengths.tolist(), run.lanes.tolist()) == ([2, 2, 1], [0, 0, 0])
    assert {result.verdict for result in reenact.verify(run)} == {"exact"}


def test_a_live_run_is_read_as_it_stands(tmp_path: Path) -> None:
    """What runs in each lane is there, without a number; what has ended has one."""
    envs = VectorRecorder(make("batch", NEXT_STEP), tmp_path / "run")
    envs.reset(seed=1)
    for actions in ([0, 0, 0], [0, 1, 0], [0, 0, 0], [0, 0, 0]):
        envs.step(np.array(actions))
    envs.flush()
    run = reenact.open_run(tmp_path / "run")
    assert [(one.lane, one.length, one.number) for one in run.live] == [(0, 4, None), (1, 1, None), (2, 4, None)]
    assert [(one.lane, one.length, one.number) for one in run] == [(1, 2, 0)]
    envs.step(np.full(WIDTH, TRUNCATE))
    envs.flush()
    run.refresh()
    assert [one.number for one in run] == [0, 1, 2, 3]
    assert {result.verdict for result in reenact.verify(run)} == {"exact"}
    envs.close()


@pytest.mark.parametrize("width", [0, 4, 10**9])
def test_a_forged_width_is_refused(width: int, tmp_path: Path) -> None:
    """A segment whose lanes are more than any vector env has, or not those of its slots, is damaged, in one line."""
    record(tmp_path / "run", "batch", steps=3)
    path = tmp_path / "run" / "segment-00000.h5"
    with h5py.File(path, "r+", locking=False) as file:
        file.attrs["batch_width"] = width
    with pytest.raises(reenact.DamagedError, match=r"^[^\n]+$"):
        reenact.open_run(path)


def test_what_runs_is_told_lane_by_lane(tmp_path: Path) -> None:
    """`show` says of a live vector env which lane is how far, and of very many only how many there are."""
    envs = VectorRecorder(make("batch", NEXT_STEP, width=11), tmp_path / "run")
    envs.reset(seed=1)
    envs.step(np.zeros(11, int))
    envs.flush()
    told = [line for line in listing.notes(reenact.open_run(tmp_path / "run")) if line.startswith("live")]
    assert told[3].startswith("live: segment 0 lane 3 is 1 steps into an episode, return ")
    assert told[8:] == ["live: 3 more episodes"]
    envs.close()


def test_episodes_are_handed_to_other_processes(tmp_path: Path) -> None:
    """Pickled and opened again, each is the same episode, those that a kill cut among them."""
    done = train(tmp_path, "batch", NEXT_STEP.value, steps=15, killed=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    register()
    for episode in reenact.open_run(tmp_path / "run"):
        again = pickle.loads(pickle.dumps(episode))  # noqa: S301  # one's own
        assert (again.address, again.lane, again.length) == (episode.address, episode.lane, episode.length)
        assert again.rewards.tolist() == episode.rewards.tolist()


# ---- recipes


def test_what_a_replay_can_not_follow_is_said_when_the_recorder_is_made(tmp_path: Path) -> None:
    """A vector wrapper below that changes what lanes see, sub-envs of different kinds, one made without make_vec."""
    register()
    wrapped = gym.wrappers.vector.ClipReward(make("sync", NEXT_STEP), 0, 1)
    with pytest.warns(UserWarning, match="ClipReward stands below the recorder: put the recorder below it"):
        VectorRecorder(wrapped, tmp_path / "1")
    kinds = [lambda: gym.make("CartPole-v1"), lambda: gym.make("CartPole-v1", sutton_barto_reward=True)]
    with pytest.warns(UserWarning, match="the sub-envs of lanes 1 are made in another way than the first"):
        VectorRecorder(gym.vector.SyncVectorEnv(kinds), tmp_path / "2")
    with pytest.warns(UserWarning, match="Together was made without gymnasium.make_vec: replay with --env"):
        VectorRecorder(Together(), tmp_path / "3")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        statistics = gym.wrappers.vector.RecordEpisodeStatistics(make("sync", NEXT_STEP))
        VectorRecorder(statistics, tmp_path / "4")
        VectorRecorder(Together(), tmp_path / "5", factory="vector_envs:Together")


def factory(render_mode: str | None = None) -> Together:
    """Makes the whole vector env."""
    return Together(render_mode=render_mode)


def single(render_mode: str | None = None) -> gym.Env[Any, Any]:
    """Makes a single env."""
    register()
    return gym.make("test/Obedient-v0", render_mode=render_mode)


def test_factories(tmp_path: Path) -> None:
    """A factory stands in for a recipe: of a sub-env where lanes are single envs, else of the whole vector env."""
    envs = VectorRecorder(Together(), tmp_path / "batch", factory=factory)
    envs.reset(seed=1)
    [envs.step(np.array([0, 1, 0])) for _ in range(9)]
    envs.close()
    assert {result.verdict for result in reenact.verify(tmp_path / "batch", rendered=True)} == {"exact"}
    record(tmp_path / "sync", "sync", factory=single)
    assert {result.verdict for result in reenact.verify(tmp_path / "sync")} == {"exact"}
    refused = reenact.verify(tmp_path / "sync", 0, env=factory)
    assert [(one.verdict, one.error) for one in refused] == [
        ("impossible", "the factory returned Together, expected a gymnasium.Env")
    ]
    refused = reenact.verify(tmp_path / "batch", 0, env=single)
    assert refused[0].error is not None
    assert refused[0].error.endswith("expected a gymnasium.vector.VectorEnv")


class Closed(Together):
    """Says which of it are open."""

    open: set[int] = set()  # noqa: RUF012  # one for all of them
    made: int = 0

    def __init__(self, num_envs: int = WIDTH, render_mode: str | None = None) -> None:
        super().__init__(num_envs, render_mode)
        Closed.made += 1
        self.open.add(id(self))

    def close_extras(self, **_: Any) -> None:
        """Is closed."""
        self.open.discard(id(self))


def test_what_a_factory_should_not_have_returned_is_closed(tmp_path: Path) -> None:
    """A vector env in a single one's place, or one of too few lanes, is refused and closed: it may hold processes."""
    record(tmp_path / "sync", "sync", factory=single)
    record(tmp_path / "batch", "batch")
    Closed.made = 0
    for run, width, why in (("sync", WIDTH, "expected a gymnasium.Env"), ("batch", 1, "expected more than")):
        wrong: Any = functools.partial(Closed, width)
        results = reenact.verify(tmp_path / run, env=wrong)
        assert any(why in str(result.error) for result in results)
    assert Closed.made > 2
    assert Closed.open == set()
    wrong = dict
    (nothing, *_) = reenact.verify(tmp_path / "sync", env=wrong)
    assert nothing.error == "the factory returned dict, expected a gymnasium.Env"


def test_a_vector_env_that_can_not_be_drawn(tmp_path: Path) -> None:
    """It is verified all the same; that it can't be filmed is said in one line."""
    register()
    envs = VectorRecorder(gym.make_vec("test/Unseen-v0", WIDTH, "vector_entry_point"), tmp_path / "run")
    envs.reset(seed=1)
    [envs.step(np.array([0, 1, 0])) for _ in range(5)]
    envs.close()
    assert {result.verdict for result in reenact.verify(tmp_path / "run")} == {"exact"}
    (result,) = reenact.replay(tmp_path / "run", 0, video_folder=tmp_path)
    assert result.verdict == "impossible"
    assert (
        result.error == "the vector env 'test/Unseen-v0' takes no render_mode: its episodes can be verified, not filmed"
    )


def test_a_training_script_of_its_own(tmp_path: Path) -> None:
    """A vector env that is defined in the script, and registered there, is found again from another process."""
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent("""
        import sys
        import gymnasium as gym
        import numpy as np
        import reenact
        from vector_envs import Together

        class Mine(Together):
            pass

        gym.register("Mine-v0", vector_entry_point="__main__:Mine")

        if __name__ == "__main__":
            envs = reenact.VectorRecorder(gym.make_vec("Mine-v0", 3, "vector_entry_point"), sys.argv[1])
            envs.reset(seed=1)
            for _ in range(9):
                envs.step(np.array([0, 1, 0]))
            envs.close()
        """)
    )
    path = os.pathsep.join([str(HERE), str(HERE.parent / "src")])
    environment = {**os.environ, "PYTHONPATH": path}
    run = str(tmp_path / "run")
    subprocess.run([sys.executable, "-W", "error", str(script), run], env=environment, timeout=60, check=True)
    code = f"import reenact; print({{one.verdict for one in reenact.verify({run!r}, rendered=True)}})"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, timeout=60, check=True, capture_output=True, text=True
    )
    assert done.stdout.strip() == "{'exact'}"


def test_segments_are_one_a_vector_env(tmp_path: Path) -> None:
    """However many lanes: one file."""
    record(tmp_path / "run", "async")
    assert [int(bare.attrs["batch_width"]) for bare in segments(tmp_path / "run")] == [WIDTH]
