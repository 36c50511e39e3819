"""Origins: whatever an env draws from, its episodes start again where they began, and the training notices nothing."""

from __future__ import annotations

import pickle
import random
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any
from zlib import crc32

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils import seeding

import odd_envs as odd
import reenact
from bare import only
from odd_envs import CUT, ERROR, NO_STEP, TRAIL, make, record, unseeded
from reenact import hidden, origin, rng
from reenact.layout import StateKind

TESTS = Path(__file__).parent
ALL_KINDS: odd.Script = [
    (3, ""), (None, ""), (None, NO_STEP), (None, CUT), (None, ERROR), (4, ""), (None, TRAIL), (None, "")
]  # fmt: skip
ALONE = {
    odd.Odd: "rng",
    odd.Legacy: "rng",
    odd.InHelper: "rng",
    odd.InContainer: "rng",
    odd.InNested: "rng",
    odd.Late: "rng",
    odd.Shared: "rng",
    odd.Replaces: "entropy",
    odd.ReplacesNested: "entropy",
    odd.Deaf: "rng",
    odd.DeafFromBirth: "rng",
}
"""Envs whose every episode starts again alone, and the origin of those without a seed."""


@pytest.fixture(autouse=True)
def _own_globals() -> Any:
    """What a test does to the global generators is its own affair."""
    states = random.getstate(), np.random.get_state()  # noqa: NPY002  # they are what is tested
    yield
    random.setstate(states[0])
    np.random.set_state(states[1])  # noqa: NPY002  # as above


@pytest.mark.filterwarnings("ignore:reenact")
@pytest.mark.parametrize("first", [3, None], ids=["seeded", "unseeded"])
@pytest.mark.parametrize("env", ALONE, ids=lambda env: env.__name__)
def test_every_episode_starts_again_alone(env: type[odd.Odd], first: int | None, tmp_path: Path) -> None:
    """Each episode, alone in a fresh env, draws the frames that were drawn live; seeded ones and others."""
    script = [(first, ""), *ALL_KINDS[1:]]
    live = record(make(env), tmp_path / "run", script)
    run = reenact.open_run(tmp_path / "run")
    results = reenact.verify(run)
    assert [result.verdict for result in results] == ["exact"] * 7
    for number, (episode, frames) in enumerate(zip(run, live, strict=True)):
        assert np.array_equal(list(episode.frames()), frames), number
    origins = {result.origin for result in results if result.seed is None}
    late = {"entropy"} if env is odd.Late and first is None else set()  # made in the first reset, found afterwards
    assert origins == {ALONE[env]} | late


@pytest.mark.filterwarnings("ignore:reenact")
def test_another_process_starts_them_again(tmp_path: Path) -> None:
    """What the log holds is enough: a second process draws what was drawn live in the first."""
    live = {env.__name__: record(make(env), tmp_path / env.__name__, ALL_KINDS) for env in ALONE}
    live["Noisy"] = record(odd.Noisy(make(odd.Odd)), tmp_path / "Noisy", ALL_KINDS)
    code = (
        "import pathlib, sys, numpy as np, reenact, zlib\n"
        "for name in sys.argv[1:]:\n"
        "    print(name, [zlib.crc32(np.array(list(one.frames())).tobytes()) for one in reenact.open_run(name)])"
    )
    done = subprocess.run([sys.executable, "-c", code, *live], cwd=tmp_path, capture_output=True, text=True, check=True)
    expected = [f"{name} {[crc32(np.array(frames).tobytes()) for frames in each]}" for name, each in live.items()]
    assert done.stdout.splitlines() == expected


def test_a_wrapper_s_generators_start_again_too(tmp_path: Path) -> None:
    """Two wrappers of one class below the recorder, each with a generator of its own, are told apart."""
    env = odd.Noisy(odd.Noisy(make(odd.Odd), 0.5), 0.25)
    record(env, tmp_path / "run", unseeded(3))
    assert [result.verdict for result in reenact.verify(tmp_path / "run")] == ["exact"] * 3
    places = {place for place, _ in reenact.open_run(tmp_path / "run")[0].origins[0].nested}
    assert places == {"odd_envs:Noisy|_rng", "odd_envs:Noisy#2|_rng"}


def test_a_shared_generator_is_logged_once(tmp_path: Path) -> None:
    """A helper that draws from the env's own generator adds nothing to the log."""
    record(make(odd.Shared), tmp_path / "run", unseeded(3))
    assert set(only(tmp_path / "run").states["kind"]) == {StateKind.PCG64}


def test_the_entropy_that_an_env_drew_for_itself_is_found(tmp_path: Path) -> None:
    """A seed found after an unseeded reset is what the operating system gave, and makes the same generator."""
    env = make(odd.Replaces)
    recorder = reenact.Recorder(env, run=tmp_path / "run")
    drawn = []
    for _ in range(3):
        recorder.reset()
        drawn.append(env.unwrapped.np_random.random(4).tolist())
    recorder.close()
    log = only(tmp_path / "run")
    found = [log.blob(row["data"]) for row in log.states if row["kind"] == StateKind.ENTROPY]
    for data, numbers in zip(found, drawn, strict=True):
        generator, _ = seeding.np_random(int.from_bytes(data, "little"))
        generator.random(1)  # the reset's
        assert generator.random(4).tolist() == numbers


def test_options_come_with_the_origin(tmp_path: Path) -> None:
    """Reset options, a dict, are given again: alone and on the way of a chain."""
    live = record(
        make(odd.Carries, memory=None), tmp_path / "run", unseeded(4), options={"add": 2.5, "more": (1, None)}
    )
    run = reenact.open_run(tmp_path / "run")
    assert [result.verdict for result in reenact.verify(run)] == ["exact"] * 4
    assert np.array_equal(list(run[3].frames()), live[3])
    assert run[2].options == {"add": 2.5, "more": (1, None)}


def test_reseed_gives_each_reset_a_seed(tmp_path: Path) -> None:
    """With reseed=True what no state restores starts again by its own seed, and the same seed gives the same ones."""
    seeds = []
    for name in ("one", "other"):
        record(make(odd.ReplacesBySpawned), tmp_path / name, unseeded(4), reseed=True)
        results = reenact.verify(tmp_path / name)
        assert [(result.verdict, result.origin) for result in results] == [("exact", "seed")] * 4
        seeds.append([result.seed for result in results])
    assert seeds[0] == seeds[1]
    assert len(set(seeds[0])) == 4


@pytest.mark.parametrize("env", [odd.Odd, odd.InNested, odd.InHelper])
def test_with_never_no_generator_is_made(env: type[odd.Odd], tmp_path: Path) -> None:
    """reseed="never" makes no generator; an episode whose reset made one has no origin, and the others are exact."""
    made = make(env)
    taker = origin.OriginTaker(made, create=False, say=pytest.fail)
    taker.take(None, 0)
    assert vars(made.unwrapped).get("_np_random") is None
    if env is odd.InNested:
        assert vars(made.unwrapped.inner).get("_np_random") is None
    record(made, tmp_path / "run", unseeded(3, first=None), reseed="never")
    first = "exact" if env is odd.InHelper else "diverged"
    assert [result.verdict for result in reenact.verify(tmp_path / "run")] == [first, "exact", "exact"]


# ---- the global generators


@pytest.mark.filterwarnings("ignore:reenact")
@pytest.mark.parametrize("env", [odd.GlobalReset, odd.GlobalStep, odd.SeedsGlobals])
@pytest.mark.parametrize("first", [3, None])
def test_envs_that_draw_from_the_global_generators_start_again(
    env: type[odd.Odd], first: int | None, tmp_path: Path
) -> None:
    """Their state from before the first reset is kept, and later episodes are chained from it."""
    random.seed(5)
    np.random.seed(6)  # noqa: NPY002  # it is what is tested
    script: odd.Script = [(first, ""), (None, ""), (None, TRAIL), (None, ""), (4, CUT), (None, "")]
    live = record(make(env), tmp_path / "run", script)
    before = random.getstate(), pickle.dumps(np.random.get_state())  # noqa: NPY002  # as above
    run = reenact.open_run(tmp_path / "run")
    results = reenact.verify(run)
    assert [result.verdict for result in results] == ["exact"] * 6
    assert results[0].origin == "snapshot"
    # what is tried alone, for an episode in between, draws from the same generators as the pass that goes on
    results = reenact.verify(run, "2,4,5")
    assert [result.verdict for result in results] == ["exact"] * 3
    assert results[1].origin == ("seed" if env is odd.SeedsGlobals else "chain:snapshot")
    assert np.array_equal(list(run[5].frames()), live[5])
    assert (random.getstate(), pickle.dumps(np.random.get_state())) == before  # noqa: NPY002  # as above


def test_frames_and_their_taker_draw_apart(tmp_path: Path) -> None:
    """Whoever draws from the global generators between the frames of such an env changes neither sequence."""
    with pytest.warns(UserWarning, match="draws from the global"):
        live = record(make(odd.GlobalStep), tmp_path / "run", unseeded(3))
    random.seed(1)
    expected = [random.random() for _ in range(7)]  # noqa: S311  # as above
    random.seed(1)
    drawn = []
    for at, frame in enumerate(reenact.open_run(tmp_path / "run")[2].frames()):
        assert np.array_equal(frame, live[2][at])
        np.random.random()  # noqa: NPY002  # as above
        drawn.append(random.random())  # noqa: S311  # as above
    assert [*drawn, random.random()] == expected  # noqa: S311  # as above


def test_a_global_generator_of_another_kind_is_looked_at(tmp_path: Path) -> None:
    """A script that set NumPy's global bit generator to PCG64 records, and is noticed to draw from it."""
    code = (
        "import sys, warnings, numpy as np, odd_envs, reenact\n"
        "np.random.set_bit_generator(np.random.PCG64(3))\n"
        "with warnings.catch_warnings(record=True) as caught:\n"
        "    warnings.simplefilter('always')\n"
        "    odd_envs.record(odd_envs.make(odd_envs.GlobalStep), sys.argv[1], odd_envs.unseeded(2))\n"
        "print(sum('draws from the global' in str(one.message) for one in caught))\n"
        "print([one.verdict for one in reenact.verify(sys.argv[1])])"
    )
    command = [sys.executable, "-W", "ignore", "-c", code, str(tmp_path / "run")]
    done = subprocess.run(command, cwd=TESTS, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["1", "['exact', 'exact']"]


# ---- what is noticed


@pytest.mark.parametrize(
    ("env", "what", "way_out"),
    [
        (odd.ReplacesBySpawned, "replaces its random generator", "reseed=True"),
        (odd.Deaf, "ignores the seed", "super().reset(seed=seed)"),
        (odd.DeafFromBirth, "ignores the seed", "super().reset(seed=seed)"),
        (odd.GlobalReset, "draws from the global random generators", "self.np_random"),
        (odd.GlobalStep, "draws from the global random generators", "self.np_random"),
        (odd.SeedsGlobals, "draws from the global random generators", "self.np_random"),
    ],
)
def test_what_keeps_episodes_from_starting_again_is_said_once(
    env: type[odd.Odd], what: str, way_out: str, tmp_path: Path
) -> None:
    """One warning, of one line, says what the env does and what to do about it."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        record(make(env), tmp_path / "run", [(3, ""), (None, ""), (4, ""), (None, "")])
    (message,) = [str(one.message) for one in caught if what in str(one.message)]
    assert env.__name__ in message
    assert way_out in message
    assert "\n" not in message


class Derived(odd.Odd):
    """Seeds its helpers by numbers made from the seed, one of them in place."""

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__(render_mode)
        self.helpers = [odd.Helper(), odd.Helper(np.random.Generator(np.random.MT19937()))]

    def seed(self, seed: int | None) -> None:
        """Seeds them, and not `np_random`."""
        if seed is not None:
            self.helpers[0].rng = np.random.default_rng(seed + 1)
            self.helpers[1].rng.bit_generator.state = np.random.MT19937(seed).state

    def draw(self) -> float:
        """Draws."""
        return float(sum(helper.rng.random() for helper in self.helpers))


class Other(odd.Odd):
    """Makes its generator in each reset, by a number made from the seed."""

    def seed(self, seed: int | None) -> None:
        """Seeds."""
        if seed is not None or vars(self).get("_np_random") is None:
            self._np_random = np.random.default_rng(None if seed is None else seed + 1)


QUIET = [
    odd.Odd, odd.Legacy, odd.Late, odd.Shared, odd.Replaces, odd.ReplacesNested, odd.Carries, odd.Restless, Derived, Other
]  # fmt: skip


@pytest.mark.parametrize("env", QUIET)
@pytest.mark.parametrize("first", [3, None])
def test_nothing_is_said_of_envs_that_need_no_remark(env: type[odd.Odd], first: int | None) -> None:
    """Envs that are seeded in some way, have nothing to seed, or whose entropy is found, raise no alarm."""
    made = env()
    taker = origin.OriginTaker(made, create=True, say=pytest.fail)
    for seed in (first, None, 5, None):
        taker.take(seed, 0)
        made.reset(seed=seed)
        taker.returned(seed)
        with taker.watch():
            made.step(0)


def test_nothing_is_said_of_gymnasium_s_own_envs() -> None:
    """None of the envs that are installed with Gymnasium raises an alarm."""
    newest = {(spec.namespace, spec.name): spec for spec in gym.registry.values()}.values()
    ids = [spec.id for spec in newest if str(spec.entry_point).startswith("gymnasium.envs.")]
    tried = []
    for env_id in ids:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                env = gym.make(env_id)
        except Exception:  # noqa: BLE001, S112  # deprecated, or its package is not installed
            continue
        tried.append(env_id)
        quiet(env)
    assert {"CartPole-v1", "FrozenLake8x8-v1"} <= set(tried)


def test_nothing_is_said_of_ale() -> None:
    """Nor does one whose generator is in C++."""
    gym.register_envs(pytest.importorskip("ale_py"))
    quiet(gym.make("ALE/Pong-v5"))


def quiet(env: gym.Env[Any, Any]) -> None:
    """Fails if anything is said of an env in two episodes, the first of them seeded."""
    said: list[str] = []
    taker = origin.OriginTaker(env, create=True, say=said.append)
    env.action_space.seed(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for seed in (2, None):
            taker.take(seed, 0)
            env.reset(seed=seed)
            taker.returned(seed)
            for _ in range(10):
                with taker.watch():
                    _, _, terminated, truncated, _ = env.step(env.action_space.sample())
                if terminated or truncated:
                    break
    env.close()
    assert said == [], env


# ---- nothing changes


def train(env: gym.Env[Any, Any], steps: int = 150, seeds: tuple[int | None, ...] = (7, None, None)) -> list[bytes]:
    """All that a training sees, and the states that it leaves."""
    random.seed(1)
    np.random.seed(2)  # noqa: NPY002  # they are what is looked at
    env.action_space.seed(3)
    seen: list[Any] = []
    for seed in seeds:
        seen.append(env.reset(seed=seed))
        for _ in range(steps):
            *result, info = env.step(env.action_space.sample())
            seen.append((*result, {name: value for name, value in info.items() if name != "episode"}))
            random.random(), np.random.random()  # noqa: S311, NPY002  # as above
            if result[2] or result[3]:
                break
    seen += [random.getstate(), np.random.get_state(), env.unwrapped.np_random.bit_generator.state]  # noqa: NPY002  # as above
    env.close()
    return [pickle.dumps(item) for item in seen]


def same_training(make_env: Any, tmp_path: Path, **kwargs: Any) -> None:
    """Fails unless a training is the same with and without a recorder, to the bit."""
    bare = train(make_env(), **kwargs)
    recorded = train(reenact.Recorder(make_env(), run=tmp_path / "run"), **kwargs)
    assert [at for at, pair in enumerate(zip(bare, recorded, strict=True)) if pair[0] != pair[1]] == []


@pytest.mark.parametrize("env_id", ["CartPole-v1", "FrozenLake-v1", "Pendulum-v1"])
def test_trainings_are_the_same(env_id: str, tmp_path: Path) -> None:
    """Recorded or not: the same observations, rewards, endings, infos and random states; then unseeded resets."""
    same_training(lambda: gym.make(env_id), tmp_path)


@pytest.mark.parametrize("env_id", ["LunarLander-v3", "BipedalWalker-v3"])
def test_box2d_trainings_are_the_same(env_id: str, tmp_path: Path) -> None:
    """The same of Box2D's."""
    pytest.importorskip("Box2D")
    same_training(lambda: gym.make(env_id), tmp_path)


def test_an_ale_training_is_the_same(tmp_path: Path) -> None:
    """The same of ALE's, whose snapshots are taken in between: without sticky actions, which nobody can seed twice."""
    gym.register_envs(pytest.importorskip("ale_py"))
    same_training(lambda: gym.make("ALE/Pong-v5", repeat_action_probability=0.25), tmp_path, steps=200)


@pytest.mark.filterwarnings("ignore:reenact")
@pytest.mark.parametrize(
    "env", [odd.InHelper, odd.InNested, odd.GlobalReset, odd.GlobalStep, odd.SeedsGlobals, odd.Late]
)
def test_trainings_of_odd_envs_are_the_same(env: type[odd.Odd], tmp_path: Path) -> None:
    """The same where generators are nested, made late, or the process's own; entropy is fixed by hand."""

    def made() -> gym.Env[Any, Any]:
        found = make(env)
        if env is odd.InHelper:
            found.unwrapped.helper.rng = np.random.default_rng(8)
        if env is odd.InNested:
            found.unwrapped.inner.np_random = np.random.default_rng(8)
        return found

    same_training(made, tmp_path)


# ---- a log is data


@pytest.mark.parametrize(
    "place", ["|helper", "|helper.rng.bit_generator", "|nothing.rng", "|step", "nowhere:Wrapper|rng", "|__class__", ""]
)
def test_a_place_that_holds_no_generator_is_refused(place: str) -> None:
    """A log's state for a place where the env has something else, or nothing, is a ValueError, and changes nothing."""
    env = odd.InHelper()
    before = dict(vars(env))
    state = rng.state_of(np.random.default_rng(1))
    assert state is not None
    with pytest.raises(ValueError, match="no generator"):
        origin.restore(env, origin.Origin("rng", nested=((place, state),)), trust=False)
    assert vars(env) == before
    assert isinstance(hidden.get(env, "|helper.rng"), np.random.Generator)


@pytest.mark.parametrize(
    "states",
    [
        [(0, StateKind.PCG64, b"x")],
        [(0, StateKind.RNG_JSON, b"x")],
        [(0, StateKind.NESTED, rng.pack([["|a", {"state": {"pos": 10**9}}]]))],
        [(0, StateKind.NESTED, rng.pack([["|a", 3]]))],
        [(0, StateKind.NESTED, rng.pack(3))],
        [(0, StateKind.NESTED, rng.pack([3]))],
        [(0, StateKind.NESTED, rng.pack([["|a"]]))],
    ],
)
def test_malformed_states_are_value_errors(states: list[tuple[int, StateKind, bytes]]) -> None:
    """Bytes that are no states of their kind raise ValueError."""
    with pytest.raises(ValueError, match=r"."):
        origin.read(None, states)


def test_a_huge_entropy_is_cut() -> None:
    """What a log says was drawn from the operating system is a seed of 64 bytes at most, never below 0."""
    (found,) = origin.read(None, [(0, StateKind.ENTROPY, b"\xff" * 10_000)])
    assert found.seed is not None
    assert 0 <= found.seed < 1 << 512


def test_nested_states_of_a_kind_json_can_not_carry_do_not_stop_a_training() -> None:
    """A bit generator of somebody's own, whose state is no JSON, is left out."""

    class Bits(np.random.PCG64):
        @property
        def state(self) -> Any:
            return {"bit_generator": "Bits", "state": {"words": object()}}

        @state.setter
        def state(self, value: Any) -> None:
            raise AssertionError(value)

    env = odd.InHelper()
    env.helper.rng = np.random.Generator(Bits(3))
    taker = origin.OriginTaker(env, create=True, say=pytest.fail)
    assert [kind for kind, _ in taker.take(None, 0)] == [StateKind.PCG64]


def test_a_property_that_is_not_ready_does_not_stop_a_training() -> None:
    """An env whose own np_random raises has no origin, and no error."""

    class Unready(odd.Odd):
        @property
        def np_random(self) -> Any:
            raise RuntimeError("reset me first")

    assert origin.OriginTaker(Unready(), create=True, say=pytest.fail).take(None, 0) == []
