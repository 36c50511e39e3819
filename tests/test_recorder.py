"""The recorder as a training sees it, and what it logs of each step."""

from __future__ import annotations

import gc
import json
import random
import warnings
from typing import Any
from zlib import crc32

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.wrappers import RecordEpisodeStatistics, RecordVideo, TimeLimit

import reenact
from bare import Bare, only, segments
from reenact import Recorder
from reenact.fingerprint import fingerprint

TAXI = "Taxi-v4" if "Taxi-v4" in gym.registry else "Taxi-v3"

pytestmark = pytest.mark.filterwarnings("ignore:reenact. episodes of this env can't be replayed:UserWarning")


class Scripted(gym.Env[Any, Any]):
    """Pays what it is told, ends when it is told, remembers what it was given."""

    observation_space = spaces.Box(-1, 1, (2,), np.float32)
    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012  # Gymnasium's own way

    def __init__(self, rewards: list[Any] | None = None, length: int = 5, action_space: Any = None) -> None:
        self.rewards, self.length = rewards or [1.0], length
        self.action_space = action_space or spaces.Discrete(3)
        self.fail: BaseException | None = None
        self.fail_reset: BaseException | None = None
        self.info: dict[str, Any] = {}
        self.steps = self.at = 0
        self.given: list[Any] = []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:  # noqa: ARG002  # its API
        """Starts over."""
        super().reset(seed=seed)
        if self.fail_reset is not None:
            raise self.fail_reset
        self.at = 0
        return self._observation(), {}

    def step(self, action: Any) -> Any:
        """Pays."""
        self.given.append(action)
        if self.fail is not None:
            raise self.fail
        reward = self.rewards[self.steps % len(self.rewards)]
        self.steps += 1
        self.at += 1
        return self._observation(), reward, self.at >= self.length, False, dict(self.info)

    def _observation(self) -> Any:
        return self.np_random.random(2).astype(np.float32)


class Mutating(Scripted):
    """Hands out one 0-d array as every reward, and writes the next into it."""

    def __init__(self) -> None:
        super().__init__()
        self.reward = np.zeros((), np.float32)

    def step(self, action: Any) -> Any:
        """Pays into the same array."""
        observation, _, *rest = super().step(action)
        self.reward += np.float32(0.1)
        return observation, self.reward, *rest


REWARDS = {
    "float": [0.1, 0.7, -1e-9, 1e16],
    "int": [1, 2, 3],
    "mixed": [1, 0.1, np.float32(0.1), np.float64(0.3), True, np.int16(7)],
    "float32": [np.float32(0.1), np.float32(1e7)],
    "float16": [np.float16(0.1)],
    "array": [np.array(0.1, np.float32), np.array(0.7)],
    "nan": [float("nan"), 1.0],
    "bool": [True, np.True_],
}


def same(a: object, b: object) -> bool:
    """Whether two numbers agree in type and bits."""
    return type(a) is type(b) and np.asarray(a).tobytes() == np.asarray(b).tobytes()


def state(env: Any) -> tuple[Any, ...]:
    """The statistics of the running episode."""
    return env.episode_returns, env.episode_lengths, env.episode_count


@pytest.mark.parametrize(
    "make", [*[lambda r=r: Scripted(r) for r in REWARDS.values()], Mutating], ids=[*REWARDS, "mutated"]
)
def test_statistics_are_upstreams(make: Any, tmp_path: Any) -> None:
    """Whatever RecordEpisodeStatistics has at any moment, the recorder has too, equal in bits and type."""
    ours = Recorder(make(), tmp_path / "run", buffer_length=3, stats_key="stats")
    theirs = RecordEpisodeStatistics(make(), buffer_length=3, stats_key="stats")
    assert all(map(same, state(ours), state(theirs)))
    assert ours.episode_start_time == theirs.episode_start_time == -1
    rng = np.random.default_rng(0)
    for episode in range(8):
        for env in (ours, theirs):
            env.reset(seed=episode)
        for step in range(5 if episode % 3 else 4):  # every third is cut short
            action = int(rng.integers(3))
            (*a, info_a), (*b, info_b) = ours.step(action), theirs.step(action)
            assert all(map(same, a, b))
            assert all(map(same, state(ours), state(theirs))), step
            assert info_a.keys() == info_b.keys()
            if "stats" in info_b:
                assert same(info_a["stats"]["r"], info_b["stats"]["r"])
                assert same(info_a["stats"]["l"], info_b["stats"]["l"])
                assert list(info_a["stats"]) == ["r", "l", "t"]
                assert type(info_a["stats"]["t"]) is float
    assert ours.return_queue.maxlen == 3
    assert all(map(same, ours.return_queue, theirs.return_queue))
    assert list(ours.length_queue) == list(theirs.length_queue) == [5, 5, 5]
    assert len(ours.time_queue) == 3
    ours.close()
    log = only(tmp_path / "run")
    assert log.rows["return"][-1].tobytes() == np.float64(ours.return_queue[-1]).tobytes()


@pytest.mark.parametrize("name", REWARDS)
def test_long_sums_are_upstreams(name: str, tmp_path: Any) -> None:
    """The sum over a long episode is upstream's in bits and type, looked at on the way or only at its end."""
    rng = np.random.default_rng(1)
    kind = {"float32": np.float32, "float16": np.float16, "int": int}.get(name, float)
    rewards = [*REWARDS[name], *map(kind, rng.normal(size=500) * 10.0 ** rng.integers(-3, 4, 500))]
    for looks in (False, True):
        ours = Recorder(Scripted(rewards, 700), tmp_path / str(looks))
        theirs = RecordEpisodeStatistics(Scripted(rewards, 700))
        for _ in range(2):
            ours.reset(seed=1)
            theirs.reset(seed=1)
            for step in range(700):
                (*_, info_a), (*_, info_b) = ours.step(0), theirs.step(0)
                if looks and step % 97 == 5:
                    assert all(map(same, state(ours), state(theirs))), step
            assert same(info_a["episode"]["r"], info_b["episode"]["r"])
            assert all(map(same, state(ours), state(theirs)))
        ours.close()
        assert only(tmp_path / str(looks)).rows["return"].tobytes() == np.array(theirs.return_queue, float).tobytes()


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1", "FrozenLake-v1", TAXI, "MountainCarContinuous-v0"])
@pytest.mark.parametrize("seeded", [True, False])
def test_training_is_bit_identical(env_id: str, seeded: bool, tmp_path: Any) -> None:
    """Recorded or not, a training sees the same observations, rewards, infos and random states."""

    def train(record: bool) -> list[bytes]:
        random.seed(1)
        np.random.seed(2)  # noqa: NPY002  # the global state is what is looked at
        env = gym.make(env_id, max_episode_steps=40)
        env = Recorder(env, tmp_path / f"{env_id}-{seeded}") if record else RecordEpisodeStatistics(env)
        env.action_space.seed(3)
        seen: list[Any] = []
        for episode in range(6):
            seen.append(env.reset(seed=7 if episode == 0 or (seeded and episode % 2) else None))
            ended = False
            while not ended:
                observation, reward, terminated, truncated, info = env.step(env.action_space.sample())
                if ended := terminated or truncated:
                    info["episode"].pop("t")
                seen.append((observation, reward, terminated, truncated, info))
                random.random()  # noqa: S311  # the global state is what is looked at
                np.random.random()  # noqa: NPY002  # as above
        seen += [random.getstate(), np.random.get_state()]  # noqa: NPY002  # as above
        seen.append(env.unwrapped.np_random.bit_generator.state)
        env.close()
        return [repr(item).encode() for item in seen]

    with np.printoptions(threshold=10**6, floatmode="unique"):
        assert train(record=True) == train(record=False)


def test_entry_below_is_left(tmp_path: Any) -> None:
    """An entry that a wrapper below has written is left as it is, and said once."""
    env = Recorder(RecordEpisodeStatistics(Scripted()), tmp_path / "run")
    with pytest.warns(UserWarning, match="already written") as caught:  # noqa: PT031  # once in all
        for _ in range(3):
            env.reset()
            infos = [env.step(0)[4] for _ in range(5)]
    assert len([w for w in caught if "already written" in str(w.message)]) == 1
    assert infos[-1]["episode"] is not None
    assert infos[-1]["episode"]["r"] == env.return_queue[-1] == 5.0
    assert env.episode_count == 3
    env.close()


BOX = spaces.Box(-1, 1, (2,), np.float32)
GRAPH = spaces.Graph(spaces.Box(-1, 1, (2,), np.float32), spaces.Discrete(3))
SPACES = {
    "discrete": spaces.Discrete(3),
    "discrete-start": spaces.Discrete(3, start=-300),
    "multidiscrete": spaces.MultiDiscrete([3, 4]),
    "multibinary": spaces.MultiBinary(4),
    "box": BOX,
    "box-f64": spaces.Box(-1, 1, (2, 3), np.float64),
    "box-u8": spaces.Box(0, 255, (3,), np.uint8),
    "text": spaces.Text(8),
    "sequence": spaces.Sequence(spaces.Discrete(5)),
    "graph": GRAPH,
    "oneof": spaces.OneOf([spaces.Discrete(3), BOX]),
    "dict": spaces.Dict(a=spaces.Discrete(3), b=BOX),
    "tuple": spaces.Tuple([spaces.Discrete(3), BOX]),
    "nested": spaces.Dict(
        {
            "a/b": spaces.Tuple([spaces.Discrete(3), spaces.Dict(x=BOX, y=spaces.Text(4))]),
            "c.d": spaces.MultiBinary(2),
        }
    ),
}


def jsonable(space: Any, action: Any) -> Any:
    """What JSON makes of an action."""
    return json.loads(json.dumps(space.to_jsonable([action])))


@pytest.mark.parametrize("name", SPACES)
def test_action_spaces(name: str, tmp_path: Any) -> None:
    """Actions of every space stand in the file, leaf by leaf, as they were given."""
    space = SPACES[name]
    env = Recorder(Scripted(length=10, action_space=space), tmp_path / "run")
    space.seed(5)
    env.reset(seed=1)
    given = [space.sample() for _ in range(10)]
    for action in given:
        env.step(action)
    env.close()
    log = only(tmp_path / "run")
    assert log.ended == ["terminated"]
    for position, action in enumerate(given):
        check_leaves(log, space, [""], action, position)
    for column in log.columns.values():
        assert len(column) == 10


def check_leaves(log: Bare, space: Any, path: list[str], action: Any, position: int) -> None:
    """Fails unless each leaf of an action stands in its column."""
    if isinstance(space, spaces.Dict):
        for key, sub in space.items():
            check_leaves(log, sub, [*path, key.replace("/", "%2F").replace(".", "%2E")], action[key], position)
    elif isinstance(space, spaces.Tuple):
        for index, sub in enumerate(space):
            check_leaves(log, sub, [*path, str(index)], action[index], position)
    else:
        stored = log.columns["action/" + (".".join(path[1:]) or "value")][position]
        if isinstance(space, spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary | spaces.Box):
            assert np.array_equal(stored, action)
        else:
            assert [json.loads(log.blob(stored))] == jsonable(space, action)


def test_kinds_alternate(tmp_path: Any) -> None:
    """Python ints and NumPy integers, mixed as epsilon-greedy agents mix them, are each logged as given."""
    env = Recorder(Scripted(length=9), tmp_path / "run")
    env.reset(seed=1)
    given = [0, np.int64(1), 2, 2, np.int32(1), np.array(0), np.array([1]), True, 1.0]
    for action in given:
        env.step(action)
    env.close()
    log = only(tmp_path / "run")
    assert log.columns["action/value"].tolist() == [0, 1, 2, 2, 1, 0, 1, 1, 1]
    assert log.action_kinds(log.rows[0]) == [
        "int", {"scalar": "<i8"}, "int", "int", {"scalar": "<i4"}, {"array": "<i8", "shape": []},
        {"array": "<i8", "shape": [1]}, "bool", "float",
    ]  # fmt: skip


def test_float_kinds(tmp_path: Any) -> None:
    """A Box action given as float64, list or float32 keeps its type, and its bits in a wide enough column."""
    env = Recorder(Scripted(length=4, action_space=BOX), tmp_path / "run")
    env.reset(seed=1)
    for action in (np.array([0.1, 0.2], np.float32), np.array([0.1, 0.2]), [0.1, 0.2], (0, 1)):
        env.step(action)
    env.close()
    first, log = segments(tmp_path / "run")
    assert len(first.rows) == 0
    assert first.closed
    assert log.columns["action/value"].dtype == np.float64
    assert log.columns["action/value"][1].tobytes() == np.array([0.1, 0.2]).tobytes()
    assert log.columns["action/value"][0].astype(np.float32).tobytes() == np.array([0.1, 0.2], np.float32).tobytes()


def test_reused_arrays(tmp_path: Any) -> None:
    """An action array that the caller reuses, or the env writes into, is logged as it was when given."""

    class Clobbering(Scripted):
        def step(self, action: Any) -> Any:
            action *= 0
            return super().step(action)

    for env_class, name in ((Scripted, "caller"), (Clobbering, "env")):
        env = Recorder(env_class(length=6, action_space=BOX), tmp_path / name)
        env.reset(seed=1)
        action = np.zeros(2, np.float32)
        for step in range(6):
            action[:] = step / 10
            env.step(action)
        env.close()
        expected = (np.arange(6) / 10).astype(np.float32)
        assert np.array_equal(only(tmp_path / name).columns["action/value"][:, 0], expected)


@pytest.mark.parametrize("committed", [True, False])
@pytest.mark.parametrize("text", [True, False])
def test_widening(committed: bool, text: bool, tmp_path: Any) -> None:
    """A value beyond its column starts a new segment that names the one before; the episode stays whole."""
    space = spaces.Dict(n=spaces.Discrete(3), t=spaces.Text(8)) if text else spaces.Discrete(3)

    def action(n: int) -> Any:
        return {"n": n, "t": f"t{n}"} if text else n

    env = Recorder(Scripted(length=6, action_space=space), tmp_path / "run")
    for episode in range(3):
        env.reset(seed=episode)
        for step in range(6):
            env.step(action(1000 if (episode, step) == (1, 4) else step % 3))
            if committed and step == 2:
                env.flush()
    env.close()
    before, after = segments(tmp_path / "run")
    column = "action/n" if text else "action/value"
    assert before.closed
    assert after.closed
    assert (before.attrs["predecessor"], after.attrs["predecessor"], after.attrs["gap"]) == (-1, 0, 0)
    assert before.attrs["run"] == after.attrs["run"]
    assert before.ended + after.ended == ["terminated"] * 3
    assert [*before.rows["seed"], *after.rows["seed"]] == [0, 1, 2]
    expected = [[0, 1, 2, 0, 1, 2], [0, 1, 2, 0, 1000, 2], [0, 1, 2, 0, 1, 2]]
    found = [log.column(column, row).tolist() for log in (before, after) for row in log.rows]
    assert found == expected
    if text:
        texts = [[json.loads(after.blob(ref)) for ref in after.column("action/t", row)] for row in after.rows]
        assert texts[-2] == ["t0", "t1", "t2", "t0", "t1000", "t2"]


def test_no_place_in_columns(tmp_path: Any) -> None:
    """An action that fits no column (None, a string, an int beyond 64 bits) is kept as JSON in its kind."""
    env = Recorder(Scripted(length=6), tmp_path / "run")
    env.reset(seed=1)
    for action in (None, "left", 0, 2**70, [1, 2], 0):
        env.step(action)
    env.close()
    log = only(tmp_path / "run")
    assert log.action_kinds(log.rows[0]) == [
        {"value": None}, {"value": "left"}, "int", {"value": 2**70}, {"value": [1, 2]}, "int",
    ]  # fmt: skip


def test_cut_short(tmp_path: Any) -> None:
    """Episodes cut short by a reset or close are interrupted; a reset without a step is kept, as nothing."""
    env = Recorder(Scripted(), tmp_path / "run")
    for steps in (2, 0, 5, 3):
        env.reset(seed=steps)
        for _ in range(steps):
            env.step(1)
    env.close()
    env.close()
    log = only(tmp_path / "run")
    assert log.ended == ["interrupted", "nothing", "terminated", "interrupted"]
    assert log.rows["length"].tolist() == [2, 0, 5, 3]
    assert log.rows["return"].tolist() == [2.0, 0.0, 5.0, 3.0]
    assert log.closed
    assert env.episode_count == 1


class OddError(RuntimeError):
    """An error of the env's own."""


def test_errored(tmp_path: Any) -> None:
    """What the env raises goes on to the caller, and is logged with type, text and the action that did it."""
    base = Scripted()
    env = Recorder(base, tmp_path / "run")
    env.reset(seed=1)
    env.step(1)
    base.fail = OddError("it broke")
    with pytest.raises(OddError) as caught:
        env.step(2)
    assert caught.value is base.fail
    base.fail, base.fail_reset = None, OddError("no start")
    with pytest.raises(OddError, match="no start"):
        env.reset(seed=2)
    base.fail_reset = None
    env.reset(seed=3)
    env.step(0)
    env.close()
    log = only(tmp_path / "run")
    assert log.ended == ["errored", "errored", "interrupted"]
    assert [(int(r["length"]), int(r["n_actions"])) for r in log.rows] == [(1, 2), (0, 0), (1, 1)]
    assert log.columns["action/value"].tolist() == [1, 2, 0]
    assert np.isnan(log.columns["reward"][1])
    errors = [log.details(row).get("error") for row in log.rows]
    assert errors[0] == {"type": "test_recorder.OddError", "text": "it broke", "where": "step"}
    assert errors[1] == {"type": "test_recorder.OddError", "text": "no start", "where": "reset"}
    assert errors[2] is None


@pytest.mark.parametrize("space", [spaces.Discrete(3), SPACES["nested"]], ids=["discrete", "nested"])
def test_keyboard_interrupt(space: Any, tmp_path: Any) -> None:
    """Ctrl-C in a step ends the episode as interrupted, without the action that nobody knows was done."""
    base = Scripted(action_space=space)
    env = Recorder(base, tmp_path / "run")
    for _ in range(2):
        env.reset(seed=1)
        env.step(space.sample())
        env.step(space.sample())
        base.fail = KeyboardInterrupt()
        with pytest.raises(KeyboardInterrupt):
            env.step(space.sample())
        base.fail = None
    env.close()
    log = only(tmp_path / "run")
    assert log.ended == ["interrupted"] * 2
    assert log.rows["length"].tolist() == log.rows["n_actions"].tolist() == [2, 2]
    assert all(len(column) == 4 for column in log.columns.values())


def test_malformed_result(tmp_path: Any) -> None:
    """A step whose result can't be unpacked raises as upstream does, and leaves no column out of step."""
    base = Scripted(length=3)
    env = Recorder(base, tmp_path / "run")
    env.reset(seed=1)
    env.step(1)
    base.step = lambda _: (0, 0)  # type: ignore[method-assign,assignment,return-value]
    with pytest.raises(ValueError, match="not enough values"):
        env.step(2)
    del base.step
    env.reset(seed=2)
    for _ in range(3):
        env.step(0)
    env.close()
    log = only(tmp_path / "run")
    assert [log.column("action/value", row).tolist() for row in log.rows][-1] == [0, 0, 0]
    assert [log.column("reward", row).tolist() for row in log.rows][-1] == [1.0, 1.0, 1.0]


def test_ctrl_c_beside_the_env(tmp_path: Any) -> None:
    """Ctrl-C after the action was noted and before the env was asked leaves later episodes in step."""
    env = Recorder(Scripted(length=3), tmp_path / "run")
    env.reset(seed=1)
    env.step(1)
    tape = env._tape  # noqa: SLF001  # what an interrupt between two bytecodes leaves
    tape.actions.append(2)
    env.flush()
    tape.actions.append(2)
    env.reset(seed=2)
    for _ in range(3):
        env.step(0)
    env.close()
    log = only(tmp_path / "run")
    assert log.ended == ["interrupted", "terminated"]
    assert [log.column("action/value", row).tolist() for row in log.rows] == [[1], [0, 0, 0]]


def test_steps_after_the_end(tmp_path: Any) -> None:
    """Steps after an end and before the next reset are kept, and count in no statistics."""
    env = Recorder(Scripted(length=2), tmp_path / "run")
    env.reset(seed=1)
    for _ in range(5):
        *_, info = env.step(1)
    assert "episode" not in info
    assert (env.episode_returns, env.episode_lengths, env.episode_count) == (2.0, 2, 1)
    env.reset(seed=2)
    env.step(2)
    env.close()
    log = only(tmp_path / "run")
    assert log.rows["first_step"].tolist() == [0, 5]
    assert log.rows["length"].tolist() == [2, 1]
    assert log.columns["action/value"].tolist() == [1, 1, 1, 1, 1, 2]


def test_options(tmp_path: Any) -> None:
    """Reset options are logged as they were at the reset; what JSON can't carry is warned of then."""
    env = Recorder(Scripted(), tmp_path / "run")
    options: dict[str, Any] = {"low": -0.1, "size": (2, 3), "at": np.array([1.5])}
    env.reset(seed=1, options=options)
    options["low"] = 7
    env.step(0)
    loop: dict[str, Any] = {}
    loop["self"] = loop
    for bad in ({"f": object()}, loop, {"s": {1, 2}}):
        with pytest.warns(UserWarning, match="options"):
            env.reset(seed=2, options=bad)
        env.step(0)
    env.close()
    log = only(tmp_path / "run")
    first = log.details(log.rows[0])["options"]
    assert first["low"] == -0.1
    assert first["size"] == {"$tuple": [2, 3]}
    assert first["at"]["dtype"] == "<f8"
    assert "options" not in log.details(log.rows[1])
    assert log.details(log.rows[1])["unloggable"]


def test_info_keywords(tmp_path: Any) -> None:
    """Numbers named in info_keywords are kept of the episode's last info; NaN where missing or no number."""
    base = Scripted(length=1)
    env = Recorder(base, tmp_path / "run", info_keywords=("score", "won"))
    for info in (
        {"score": 3, "won": True},
        {"score": np.float32(0.5)},
        {"score": "?", "won": np.array([2.5])},
    ):
        base.info = info
        env.reset(seed=1)
        env.step(0)
    env.close()
    log = only(tmp_path / "run")
    assert json.loads(log.attrs["info_keywords"]) == ["score", "won"]
    assert np.array_equal(log.rows["info"], [[3, 1], [0.5, np.nan], [np.nan, 2.5]], equal_nan=True)


def test_step_durations(tmp_path: Any) -> None:
    """One duration a step is kept if asked for, also of steps that raised and of steps after the end."""
    base = Scripted(length=2)
    env = Recorder(base, tmp_path / "run", step_durations=True)
    env.reset(seed=1)
    for _ in range(3):
        env.step(0)
    env.reset(seed=2)
    base.fail = OddError("it broke")
    with pytest.raises(OddError):
        env.step(0)
    env.close()
    durations = only(tmp_path / "run").columns["duration"]
    assert durations.dtype == np.float32
    assert len(durations) == 4
    assert (durations[:3] >= 0).all()
    assert np.isnan(durations[3])


def test_seeds_and_states(tmp_path: Any) -> None:
    """A seed is logged, beyond int64 too; without one the state of the env's RNG before the reset is."""
    env = Recorder(Scripted(length=1), tmp_path / "run")
    env.reset(seed=5)
    env.step(0)
    before = env.unwrapped.np_random.bit_generator.state["state"]["state"]
    env.reset()
    env.step(0)
    env.reset(seed=2**70)
    env.step(0)
    env.reset(seed=4)
    env.close()
    log = only(tmp_path / "run")
    none = np.iinfo(np.int64).min
    assert log.rows["seed"].tolist() == [5, none, none, 4]
    assert log.rows["n_states"].tolist() == [0, 1, 0, 0]
    assert int.from_bytes(log.blob(log.states[0]["data"])[:16], "little") == before
    assert log.details(log.rows[2]) == {"seed": 2**70}


def test_reseed(tmp_path: Any) -> None:
    """reseed=True gives unseeded resets 31-bit seeds, the same ones after the same seed, and logs them."""
    env = Recorder(Scripted(), tmp_path / "run", reseed=True)
    seeds = [3, None, None, 3, None, None, 4, None]
    for seed in seeds:
        env.reset(seed=seed)
    env.close()
    found = only(tmp_path / "run").rows["seed"].tolist()
    assert found[0] == found[3] == 3
    assert found[1:3] == found[4:6]
    assert len({found[1], found[2], found[7]}) == 3
    assert all(0 <= seed < 2**31 for seed in found)
    entropy = [np.random.SeedSequence(3).spawn(2)[k].generate_state(1)[0] >> 1 for k in range(2)]
    assert found[1:3] == entropy


def test_reseed_never(tmp_path: Any) -> None:
    """An env without an RNG gets one before its first unseeded reset, unless reseed is "never"."""
    for reseed, count in ((False, 1), ("never", 0)):
        env = Recorder(Scripted(), tmp_path / str(reseed), reseed=reseed)
        env.reset()
        env.reset()
        env.close()
        assert only(tmp_path / str(reseed)).rows["n_states"].tolist() == [count, 1]


def test_replaced_rng_is_named(tmp_path: Any) -> None:
    """An env that replaces its RNG when reset without a seed is named, once."""

    class Fresh(Scripted):
        def reset(self, *, seed: int | None = None, options: Any = None) -> Any:  # noqa: ARG002  # its API
            self._np_random = np.random.Generator(np.random.PCG64(9).spawn(1)[0])
            return super().reset(seed=seed)

    env = Recorder(Fresh(), tmp_path / "run")
    with pytest.warns(UserWarning, match="replaces its random") as caught:  # noqa: PT031  # once in all
        for seed in (1, None, None):
            env.reset(seed=seed)
    assert len([w for w in caught if "replaces" in str(w.message)]) == 1
    env.close()


def test_garbage_collection(tmp_path: Any) -> None:
    """A recorder that is dropped without close is collected, and its log closed and whole."""
    env = Recorder(Scripted(), tmp_path / "run")
    env.reset(seed=1)
    env.step(1)
    del env
    gc.collect()
    log = only(tmp_path / "run")
    assert log.closed
    assert log.ended == ["interrupted"]


def test_throwaway_env(tmp_path: Any) -> None:
    """A recorder whose env is never reset leaves no folder."""
    Recorder(Scripted(), tmp_path / "run").close()
    assert not (tmp_path / "run").exists()


def test_warned_at_construction(tmp_path: Any) -> None:
    """A recorder says when it is made that its env can't be rebuilt, and says nothing if it can."""
    with pytest.warns(UserWarning, match=r"can't be replayed.*Scripted"):
        Recorder(Scripted(), tmp_path / "run")
    with pytest.warns(UserWarning, match="NormalizeReward"):
        Recorder(gym.wrappers.NormalizeReward(gym.make("CartPole-v1")), tmp_path / "run")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Recorder(gym.make("CartPole-v1", render_mode="rgb_array"), tmp_path / "run")


def test_bad_arguments(tmp_path: Any) -> None:
    """Arguments out of range are refused, and say what was given."""
    for wrong in ({"fingerprint_every": -1}, {"flush_seconds": 0}, {"reseed": "always"}):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))}.*{next(iter(wrong.values()))}"):
            Recorder(Scripted(), tmp_path / "run", **wrong)


def test_wrappers_above(tmp_path: Any) -> None:
    """An episode that a TimeLimit above ends is logged; the render mode is no part of the recipe."""
    env: Any = Recorder(gym.make("CartPole-v1", render_mode="rgb_array"), tmp_path / "run")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        env = RecordVideo(TimeLimit(env, 4), str(tmp_path / "videos"), episode_trigger=lambda _: False)
    for episode in range(2):
        env.reset(seed=episode)
        for _ in range(4):
            *_, truncated, _ = env.step(0)
    assert truncated
    env.close()
    log = only(tmp_path / "run")
    assert log.ended == ["interrupted", "interrupted"]
    assert log.rows["length"].tolist() == [4, 4]
    assert "render_mode" not in log.attrs["recipe"]


@pytest.mark.parametrize("every", [0, 1, 4])
def test_fingerprints(every: int, tmp_path: Any) -> None:
    """Checksums stand after the reset, at every n-th step and at the end, and cover all observations up to there."""
    env = Recorder(Scripted(length=10), tmp_path / "run", fingerprint_every=every)
    seen, expected = [], []
    for steps in (10, 6):  # the second one is interrupted
        seen = [env.reset(seed=1)[0], *(env.step(0)[0] for _ in range(steps))]
        kept = {0, *(range(0, steps + 1, every) if every else ()), steps}
        for step in sorted(kept):
            header = fingerprint(seen[0])
            expected.append((step, crc32(b"".join(map(bytes, seen[1 : step + 1])), header)))
    env.close()
    log = only(tmp_path / "run")
    assert log.attrs["fingerprints"] == "running"
    assert log.fingerprints.tolist() == expected


def test_large_observations_have_fingerprints_of_their_own(tmp_path: Any) -> None:
    """Where folding every observation in would cost too much, each checksum is one observation's."""

    class Large(Scripted):
        observation_space = spaces.Box(-1, 1, (2000,), np.float32)

        def _observation(self) -> Any:
            return np.full(2000, self.steps, np.float32)

    env = Recorder(Large(length=10), tmp_path / "run", fingerprint_every=4)
    seen = [env.reset(seed=1)[0], *(env.step(0)[0] for _ in range(10))]
    env.close()
    log = only(tmp_path / "run")
    assert log.attrs["fingerprints"] == "single"
    assert log.fingerprints.tolist() == [(step, fingerprint(seen[step])) for step in (0, 4, 8, 10)]


def test_a_running_checksum_is_committed_with_the_steps(tmp_path: Any) -> None:
    """What a kill would leave of a running episode ends with a checksum of all its observations."""
    env = Recorder(Scripted(length=100), tmp_path / "run")
    seen = [env.reset(seed=1)[0], *(env.step(0)[0] for _ in range(5))]
    env.flush()
    found = only(tmp_path / "run").fingerprints.tolist()
    assert found == [(0, fingerprint(seen[0])), (5, crc32(b"".join(map(bytes, seen[1:])), fingerprint(seen[0])))]
    env.step(0)
    env.close()
    (result,) = reenact.verify(tmp_path / "run", env=lambda render_mode: Scripted(length=100))  # noqa: ARG005  # its API
    assert result.verdict == "exact"


def test_many_recorders(tmp_path: Any) -> None:
    """Many recorders of one process write into one run, each its own segment."""
    envs = [Recorder(Scripted(), tmp_path / "run", role=f"r{i}") for i in range(5)]
    for _ in range(3):
        for env in envs:
            env.reset(seed=1)
            env.step(0)
    for env in envs:
        env.close()
    logs = segments(tmp_path / "run")
    assert [log.attrs["role"] for log in logs] == [f"r{i}" for i in range(5)]
    assert len({log.attrs["run"] for log in logs}) == 1
    assert all(len(log.rows) == 3 for log in logs)


def test_long_episode_in_blocks(tmp_path: Any) -> None:
    """An episode longer than several blocks is one row, whole, with every action in its place."""
    env = Recorder(Scripted(length=10_000), tmp_path / "run")
    env.reset(seed=1)
    for step in range(10_000):
        env.step(step * 7 % 3)
    env.close()
    log = only(tmp_path / "run")
    assert log.rows["length"].tolist() == [10_000]
    assert np.array_equal(log.columns["action/value"], np.arange(10_000) * 7 % 3)
