"""What a vector env's log holds, read with h5py alone, against a plain model of what each lane's episodes are."""

from __future__ import annotations

import copy
import inspect
import pickle
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.wrappers.vector import RecordEpisodeStatistics
from hypothesis import given, settings
from hypothesis import strategies as st

import reenact
from bare import Bare, only, segments
from reenact import VectorRecorder, batchlog, folding
from reenact.fingerprint import fingerprint
from reenact.statistics import BatchStatistics
from vector_envs import ALL_MODES, GO_ON, MODES, TERMINATE, TRUNCATE, WIDTH, AutoresetMode, Together, make

NEXT_STEP, SAME_STEP, DISABLED = ALL_MODES
FORMS = [*(("sync", mode) for mode in MODES), *(("batch", mode) for mode in ALL_MODES)]


@dataclass
class Lane:
    """What one lane has done: a plain model, a step at a time."""

    mode: AutoresetMode
    episodes: list[tuple[str, list[int], list[float]]] = field(default_factory=list)
    actions: list[int] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    resting: bool = False

    def end(self, how: str) -> None:
        """An episode is over."""
        if self.actions:
            self.episodes.append((how, self.actions, self.rewards))
        self.actions, self.rewards = [], []

    def reset(self) -> None:
        """The user resets it."""
        self.end("interrupted")
        self.resting = False

    def step(self, action: int, reward: float) -> None:
        """The vector env is stepped."""
        if self.resting and self.mode is not SAME_STEP:
            self.resting = self.mode is DISABLED
            return
        self.actions.append(action)
        self.rewards.append(reward)
        if action != GO_ON:
            self.end("terminated" if action == TERMINATE else "truncated")
            self.resting = self.mode is not SAME_STEP


ACTIONS = st.lists(st.sampled_from([GO_ON, GO_ON, GO_ON, TERMINATE, TRUNCATE]), min_size=WIDTH, max_size=WIDTH)
MASKS = st.lists(st.booleans(), min_size=WIDTH, max_size=WIDTH).filter(any)
EVENTS = st.lists(
    st.one_of(ACTIONS, ACTIONS, ACTIONS, st.just("reset"), st.just("flush"), MASKS.map(tuple)), max_size=40
)


def reset(lanes: list[Lane]) -> None:
    """The user resets lanes."""
    for lane in lanes:
        lane.reset()


def run(envs: Any, events: list[Any], lanes: list[Lane], masks: bool) -> list[np.ndarray]:
    """Does what was drawn; returns the lengths that `info` told of episodes that ended."""
    told = []
    envs.reset(seed=5)
    for event in events:
        if event == "reset":
            envs.reset()
            reset(lanes)
        elif event == "flush":
            getattr(envs, "flush", lambda: None)()
        elif isinstance(event, tuple):
            if masks:
                envs.reset(options={"reset_mask": np.array(event)})
                reset([lane for lane, its in zip(lanes, event, strict=False) if its])
        else:
            _, rewards, *_, infos = envs.step(np.array(event))
            if "_episode" in infos:
                told.append(np.where(infos["_episode"], infos["episode"]["l"], 0))
            for lane, action, reward in zip(lanes, event, rewards, strict=False):
                lane.step(action, float(reward))
            over = np.array([lane.resting for lane in lanes])
            if lanes and lanes[0].mode is DISABLED and over.any():  # Gymnasium's own may not be stepped then
                envs.reset(options={"reset_mask": over})
                reset([lane for lane in lanes if lane.resting])
    return told


def episodes_of(bare: Bare, lane: int) -> list[tuple[str, list[int], list[float]]]:
    """The episodes of a lane, as the file has them."""
    names = {1: "terminated", 2: "truncated", 3: "interrupted", 4: "errored"}
    return [
        (names[int(row["ended"])], bare.column("action/value", row).tolist(), bare.column("reward", row).tolist())
        for row in bare.rows
        if row["lane"] == lane and row["ended"]
    ]


@pytest.mark.parametrize(("kind", "mode"), FORMS)
@settings(max_examples=25, deadline=None)
@given(events=EVENTS)
def test_a_lanes_episodes_are_those_of_a_plain_model(kind: str, mode: AutoresetMode, events: list[Any]) -> None:
    """Lengths, endings, actions and rewards of every lane, whatever ends when and is reset by whom."""
    masks = kind == "batch" or mode in MODES[1:] or len(MODES) > 1
    lanes = [Lane(mode) for _ in range(WIDTH)]
    with tempfile.TemporaryDirectory() as folder:
        envs = VectorRecorder(make(kind, mode), folder)
        told = run(envs, events, lanes, masks)
        queues = [list(envs.length_queue), list(envs.return_queue), envs.episode_count]
        envs.close()
        bare = only(Path(folder))
        exact = {result.verdict for result in reenact.verify(folder)} if len(reenact.open_run(folder)) else {"exact"}
    for lane in lanes:
        lane.end("interrupted")
    assert [episodes_of(bare, at) for at in range(WIDTH)] == [lane.episodes for lane in lanes]
    finished = [len(one[1]) for lane in lanes for one in lane.episodes if one[0] != "interrupted"]
    assert sorted(queues[0]) == sorted(finished)[-100:]
    assert queues[2] == len(finished) == sum(np.count_nonzero(one) for one in told)
    for row in bare.rows:
        total = 0.0
        for reward in bare.column("reward", row).tolist():
            total += reward
        assert row["return"] == total
    assert exact == {"exact"}
    if mode is NEXT_STEP:  # the rows of autoresets are known as such
        of_episodes = {step for row in bare.rows for step in range(len(bare.columns["reward"]))[bare.steps(row)]}
        rests = set(np.flatnonzero(np.isnan(bare.columns["reward"])).tolist())
        assert not rests & of_episodes
        assert rests | of_episodes == set(range(len(bare.columns["reward"])))


def upstream(kind: str, mode: AutoresetMode) -> Any:
    """Gymnasium's own statistics around the same vector env."""
    return RecordEpisodeStatistics(make(kind, mode), buffer_length=7)


# up to Gymnasium 1.2 it knew no modes, and took the first step after a SAME_STEP autoreset for the autoreset
TOLD = [mode for mode in MODES if mode is not SAME_STEP or "SAME_STEP" in inspect.getsource(RecordEpisodeStatistics)]


@pytest.mark.parametrize(("kind", "mode"), [one for one in FORMS if one[1] in TOLD])
@settings(max_examples=15, deadline=None)
@given(events=EVENTS)
def test_statistics_are_those_of_gymnasiums_own_wrapper(kind: str, mode: AutoresetMode, events: list[Any]) -> None:
    """To the bit and the type: queues, counts, arrays, and the entry in `info`; times aside. Without partial resets."""
    events = [event for event in events if not isinstance(event, tuple)]
    if mode is DISABLED:  # whose lanes that have ended must be reset, a partial reset
        events = [[GO_ON] * WIDTH if isinstance(event, list) else event for event in events]
    theirs = upstream(kind, mode)
    expected = run(theirs, events, [], masks=False)
    with tempfile.TemporaryDirectory() as folder:
        ours = VectorRecorder(make(kind, mode), folder, buffer_length=7)
        found = run(ours, events, [], masks=False)
        for name in ("episode_returns", "episode_lengths", "prev_dones"):
            one, other = getattr(ours, name), getattr(theirs, name)
            assert (one.dtype, one.tolist()) == (other.dtype, other.tolist()), name
        for name in ("return_queue", "length_queue"):
            one, other = getattr(ours, name), getattr(theirs, name)
            assert [(type(value), value) for value in one] == [(type(value), value) for value in other], name
        assert ours.episode_count == theirs.episode_count == len(ours.time_queue) + max(0, ours.episode_count - 7)
        ours.close()
    assert [one.tolist() for one in found] == [one.tolist() for one in expected]


def test_info_holds_what_gymnasium_puts_there(tmp_path: Path) -> None:
    """Under the same keys, in the same types and shapes, and under another key if asked."""
    entries = []
    for envs in (
        RecordEpisodeStatistics(make("sync", NEXT_STEP), stats_key="mine"),
        VectorRecorder(make("sync", NEXT_STEP), tmp_path, stats_key="mine"),
    ):
        envs.reset(seed=1)
        *_, infos = envs.step(np.array([TERMINATE, GO_ON, TRUNCATE]))
        told = infos["mine"]
        assert (told["t"] >= 0).all()
        entries.append(
            [
                infos["_mine"].tolist(),
                *((name, told[name].dtype, told[name].shape) for name in told),
                told["r"].tolist(),
                told["l"].tolist(),
            ]
        )
        envs.close()
    assert entries[0] == entries[1]


@pytest.mark.parametrize("kind", ["sync", "batch"] if DISABLED in MODES else ["batch"])
def test_a_partial_reset_clears_its_own_lanes_alone(kind: str, tmp_path: Path) -> None:
    """Gymnasium's wrapper clears all lanes, since the vector env takes the mask out of the options before it looks."""
    envs = VectorRecorder(make(kind, DISABLED), tmp_path)
    envs.reset(seed=1)
    envs.step(np.zeros(WIDTH, int))
    envs.step(np.array([TERMINATE, GO_ON, GO_ON]))
    before = envs.episode_returns.tolist(), envs.episode_start_times.tolist()
    envs.reset(options={"reset_mask": np.array([True, False, False])})
    assert envs.episode_lengths.tolist() == [0, 2, 2]
    assert envs.episode_returns.tolist() == [0.0, *before[0][1:]]
    assert envs.episode_start_times.tolist()[1:] == before[1][1:]
    assert envs.prev_dones.tolist() == [False] * 3
    envs.step(np.zeros(WIDTH, int))
    assert envs.episode_lengths.tolist() == [1, 3, 3]
    envs.close()
    assert [int(row["length"]) for row in only(tmp_path).rows] == [2, 1, 3, 3]


# ---- what a segment holds


def test_the_header_tells_the_width_and_the_mode(tmp_path: Path) -> None:
    """So that who reads the file alone can tell the lanes' steps apart."""
    with VectorRecorderOf("batch", SAME_STEP, tmp_path) as envs:
        envs.step(np.array([GO_ON, TERMINATE, GO_ON]))
        envs.step(np.array([GO_ON, GO_ON, TRUNCATE]))
    bare = only(tmp_path)
    assert (bare.attrs["batch_width"], bare.attrs["autoreset"], bare.closed) == (3, "same_step", True)
    assert bare.columns["action/value"].tolist() == [0, 1, 0, 0, 0, 2]
    assert bare.rows["lane"].tolist() == [1, 2, 0, 1, 2]
    assert bare.rows["first_step"].tolist() == [1, 2, 0, 4, 8]
    assert bare.ended == ["terminated", "truncated", "interrupted", "interrupted", "nothing"]


class VectorRecorderOf:
    """A recorder, reset and ready, that is closed at the end."""

    def __init__(self, kind: str, mode: AutoresetMode, folder: Path, **kwargs: Any) -> None:
        self.envs = VectorRecorder(make(kind, mode), folder, **kwargs)

    def __enter__(self) -> VectorRecorder:
        self.envs.reset(seed=3)
        return self.envs

    def __exit__(self, *error: object) -> None:
        self.envs.close()


def test_checksums_are_those_of_a_single_env(tmp_path: Path) -> None:
    """A lane that was seeded like a single env has its checksums, all of them, over several commits."""
    rng = np.random.default_rng(0)
    actions = [[GO_ON] * WIDTH for _ in range(100)] + [[TERMINATE] * WIDTH]
    with VectorRecorderOf("sync", NEXT_STEP, tmp_path / "vector") as envs:
        for action in actions:
            envs.step(np.array(action))
            if rng.random() < 0.1:
                envs.flush()
    for lane in range(WIDTH):
        env = reenact.Recorder(gym.make("test/Obedient-v0"), tmp_path / str(lane))
        env.reset(seed=3 + lane)
        for action in actions:
            env.step(action[lane])
        env.close()
        single, vector = only(tmp_path / str(lane)), only(tmp_path / "vector")
        (row,) = (row for row in vector.rows if row["lane"] == lane and row["length"])
        first, count = int(row["first_fingerprint"]), int(row["n_fingerprints"])
        found = vector.fingerprints[first : first + count].tolist()
        assert set(single.fingerprints.tolist()) <= set(found)  # and those that commits left of the running episode
        assert found == sorted(found)
        assert [step for step, _ in single.fingerprints.tolist()] == [0, 32, 64, 96, 101]


class Changing(Together):
    """One whose observations are now and then of another dtype than its space's."""

    def _observations(self) -> np.ndarray:
        found = super()._observations()
        return found.astype(np.float64) if self.at.sum() % 1 < 0.2 else found


@pytest.mark.parametrize("mode", ALL_MODES)
def test_an_episode_begins_with_the_checksum_of_what_was_seen(mode: AutoresetMode, tmp_path: Path) -> None:
    """Of each episode, whoever reset its lane, in whatever dtype the observation came."""
    with pytest.warns(UserWarning, match="can't be replayed"):
        envs = VectorRecorder(Changing(autoreset_mode=mode.value), tmp_path)
    rng, resting = np.random.default_rng(3), np.zeros(WIDTH, bool)
    observations, _ = envs.reset(seed=3)
    seen = [[fingerprint(observations[lane])] for lane in range(WIDTH)]
    for _ in range(300):
        observations, _, terminations, _, _ = envs.step(rng.choice([GO_ON, TERMINATE], size=WIDTH, p=[0.7, 0.3]))
        if mode is DISABLED and terminations.any():
            observations, _ = envs.reset(options={"reset_mask": terminations})
        for lane in np.flatnonzero(resting if mode is NEXT_STEP else terminations).tolist():
            seen[lane].append(fingerprint(observations[lane]))
        resting = terminations
    envs.close()
    bare = only(tmp_path)
    for lane in range(WIDTH):
        places = [int(row["first_fingerprint"]) for row in bare.rows if row["lane"] == lane]
        assert [tuple(bare.fingerprints[place].tolist()) for place in places] == [(0, one) for one in seen[lane]]


@given(starts=st.lists(st.floats(0, 1e6), min_size=1, max_size=9), now=st.floats(0, 1e7))
def test_times_are_rounded_as_numpy_rounds_them(starts: list[float], now: float) -> None:
    """To the bit, as Gymnasium's wrapper gives them."""
    statistics = BatchStatistics(len(starts), 1)
    statistics.begin(np.arange(len(starts)), np.array(starts))
    with mock.patch("time.perf_counter", return_value=now):
        found = statistics.elapsed(np.arange(len(starts)))
    assert found.tobytes() == np.round(now - np.array(starts), 6).tobytes()


def test_every_row_is_committed_whatever_the_commits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Episodes that many commits cut are whole: steps, checksums and rows."""
    monkeypatch.setattr(batchlog, "_ROWS", 30)
    monkeypatch.setattr(batchlog, "_FEWEST", 2)
    monkeypatch.setattr(folding, "_OBSERVED", 100)
    monkeypatch.setattr(folding, "_FEWEST", 2)
    rng = np.random.default_rng(1)
    with VectorRecorderOf("batch", NEXT_STEP, tmp_path) as envs:
        for _ in range(700):
            envs.step(rng.choice([GO_ON, TERMINATE, TRUNCATE], size=WIDTH, p=[0.98, 0.01, 0.01]))
    bare = only(tmp_path)
    assert len(bare.columns["reward"]) == 2100
    assert {result.verdict for result in reenact.verify(tmp_path)} == {"exact"}
    for row in bare.rows:
        first, count = int(row["first_fingerprint"]), int(row["n_fingerprints"])
        steps = bare.fingerprints["step"][first : first + count].tolist()
        expected = {*range(0, int(row["length"]), 32), int(row["length"])}
        assert expected <= set(steps)


def test_info_keywords_and_marks(tmp_path: Path) -> None:
    """Numbers of each episode's last info are kept, in whichever form the autoreset mode tells them; marks find lanes."""
    for mode in MODES:
        folder = tmp_path / mode.value
        with VectorRecorderOf(
            "sync",
            mode,
            folder,
            info_keywords=("steps", "none"),
            mark=lambda one: one["l"] == 2 and f"lane {one['lane']}",
        ) as envs:
            envs.step(np.zeros(WIDTH, int))
            envs.step(np.array([GO_ON, TERMINATE, GO_ON]))
            envs.mark("seen", lane=0)
        run = reenact.open_run(folder)
        first = run[0]
        assert (first.lane, first.label, first.info["steps"]) == (1, "lane 1", 2.0)
        assert np.isnan(first.info["none"])
        assert [one.label for one in run if one.lane == 0] == ["seen"]


ACTIONS_AS_GIVEN: dict[str, tuple[gym.Space[Any], list[Any]]] = {
    "lists": (gym.spaces.Discrete(9), [[1, 2], np.array([3, 4]), [np.int8(5), 6], (7, 8), np.array([1, 2], np.uint8)]),
    "floats": (
        gym.spaces.Box(-9, 9, (2,), np.float32),
        [np.ones((2, 2), np.float32), np.full((2, 2), 1 / 3), [[0.5, 1], [2, 3]], np.full((2, 2), -0.0, np.float32)],
    ),
    "dicts": (
        gym.spaces.Dict(a=gym.spaces.Discrete(5), b=gym.spaces.Box(-1, 1, (1,), np.float32)),
        [{"a": np.array([1, 4]), "b": np.array([[0.5], [-0.5]], np.float32)}] * 2,
    ),
    "texts": (gym.spaces.Text(5), [("ab", "c"), ("", "x")]),
}


class Takes(gym.Env[np.ndarray, Any]):
    """Takes any action, and remembers it."""

    observation_space = gym.spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self, name: str) -> None:
        self.action_space = ACTIONS_AS_GIVEN[name][0]
        self.taken: list[Any] = []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """Begins."""
        super().reset(seed=seed, options=options)
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> Any:
        """Remembers."""
        self.taken.append(copy.deepcopy(action))
        return np.zeros(1, np.float32), 0.5, False, False, {}


@pytest.mark.parametrize("name", sorted(ACTIONS_AS_GIVEN))
def test_a_lanes_actions_come_back_as_its_env_got_them(name: str, tmp_path: Path) -> None:
    """In value and type, whatever the agent gave the vector env, over commits and where the column had to widen."""
    inner = gym.vector.SyncVectorEnv([lambda: Takes(name)] * 2)
    with pytest.warns(UserWarning, match="can't be replayed"):
        envs = VectorRecorder(inner, tmp_path)
    envs.reset()
    for at, action in enumerate(ACTIONS_AS_GIVEN[name][1] * 3):
        envs.step(action)
        if at % 2:
            envs.flush()
    envs.close()
    assert len(segments(tmp_path)) == (2 if name == "floats" else 1)
    run = reenact.open_run(tmp_path)
    for episode in run:
        expected = inner.envs[episode.lane].unwrapped.taken
        assert repr(episode.actions) == repr(expected)
        assert [type(action) for action in episode.actions] == [type(action) for action in expected]
    assert len(run) == 2


# ---- what can go wrong


def test_a_vector_env_that_raises(tmp_path: Path) -> None:
    """Its episodes end as interrupted at the last whole step, one line says so, and a reset begins new ones."""
    envs = VectorRecorder(make("batch", NEXT_STEP), tmp_path)
    envs.reset(seed=1)
    envs.step(np.zeros(WIDTH, int))
    inner = envs.unwrapped
    normal, inner.at = inner.at, None
    with pytest.warns(UserWarning, match="raised in step"), pytest.raises(TypeError):
        envs.step(np.zeros(WIDTH, int))
    inner.at = normal
    envs.step(np.zeros(WIDTH, int))
    envs.reset(seed=2)
    envs.step(np.ones(WIDTH, int))
    envs.close()
    bare = only(tmp_path)
    assert bare.ended == ["interrupted"] * 3 + ["terminated"] * 3
    assert bare.rows["length"].tolist() == [1] * 6
    assert {result.verdict for result in reenact.verify(tmp_path)} == {"exact"}


def test_a_disk_that_fails_and_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Training and its statistics go on; logging does so in a new segment, where each lane begins an episode."""
    from reenact import segments as room  # noqa: PLC0415  # beside tests' own name for bare segments
    from reenact.writer import SegmentWriter  # noqa: PLC0415  # as above

    monkeypatch.setattr(room, "RETRY_S", 0.0)
    monkeypatch.setattr(batchlog, "_ROWS", 30)
    monkeypatch.setattr(batchlog, "_FEWEST", 2)
    envs = VectorRecorder(make("sync", NEXT_STEP), tmp_path)
    envs.reset(seed=1)
    rng = np.random.default_rng(2)

    def play(steps: int) -> None:
        for _ in range(steps):
            envs.step(rng.choice([GO_ON, TERMINATE], size=WIDTH, p=[0.8, 0.2]))

    play(25)

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "no space")

    with monkeypatch.context() as patch:
        patch.setattr(SegmentWriter, "flush", fail)
        patch.setattr(room, "SegmentWriter", fail)
        with pytest.warns(RuntimeWarning, match="stopped"):
            play(25)
    with pytest.warns(RuntimeWarning, match="goes on"):
        play(60)
    count = envs.episode_count
    envs.close()
    first, second = segments(tmp_path)[0], segments(tmp_path)[-1]
    assert (first.closed, second.attrs["gap"], second.closed) == (False, 1, True)
    assert (second.rows["n_states"] == 1).all()
    run = reenact.open_run(tmp_path)
    assert 10 < len(run) < count
    assert {result.verdict for result in reenact.verify(run)} == {"exact"}


def test_a_recorder_is_not_copied(tmp_path: Path) -> None:
    """Neither pickled nor copied: one line says what to do."""
    with VectorRecorderOf("batch", NEXT_STEP, tmp_path) as envs:
        for copied in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(TypeError, match="VectorRecorder can't be pickled"):
                copied(envs)


def test_what_is_no_vector_env_is_refused(tmp_path: Path) -> None:
    """So are numbers out of range, and runs of earlier launches."""
    with pytest.raises(TypeError, match=r"expected a gymnasium\.vector\.VectorEnv, got \w+: a single env"):
        VectorRecorder(gym.make("CartPole-v1"), tmp_path)
    with pytest.raises(ValueError, match="flush_seconds"):
        VectorRecorder(make("batch", NEXT_STEP), tmp_path, flush_seconds=0)
    with VectorRecorderOf("batch", NEXT_STEP, tmp_path) as envs, pytest.raises(ValueError, match="no lane 3"):
        envs.mark("x", 3)


def test_nothing_that_the_training_sees_changes(tmp_path: Path) -> None:
    """The same seed gives the same observations, rewards, endings and infos, statistics aside, recorded or not."""
    for at, (kind, mode) in enumerate(FORMS):
        traces = []
        for envs in (make(kind, mode), VectorRecorder(make(kind, mode), tmp_path / str(at))):
            rng, trace = np.random.default_rng(1), []
            trace.append(envs.reset(seed=4)[0].tobytes())
            for _ in range(60):
                observations, rewards, ends, cuts, infos = envs.step(rng.choice([0, 0, 0, 0, 1, 2], size=WIDTH))
                infos.pop("episode", None), infos.pop("_episode", None)
                trace.append((observations.tobytes(), rewards.tobytes(), ends.tolist(), cuts.tolist(), repr(infos)))
                if mode is DISABLED and (ends | cuts).any():
                    trace.append(envs.reset(options={"reset_mask": ends | cuts})[0].tobytes())
            trace.append(envs.reset()[0].tobytes() if kind == "sync" else b"")
            traces.append(trace)
            envs.close()
        assert traces[0][:-1] == traces[1][:-1]
