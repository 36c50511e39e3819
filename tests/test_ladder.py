"""The ladder: in what order an episode's starts are tried, and what the env has to do for it."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
import pytest

import odd_envs as odd
import reenact
from odd_envs import LENGTH, Odd, make, record, unseeded
from reenact import ladder
from reenact.errors import SelectionError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

EPISODES = 10


class DrawsBehind(odd.Carries):
    """Drawing leaves something in it that nobody can put back, and that the next episode begins with."""

    def render(self) -> Any:
        """Draws."""
        if self.render_mode is not None:
            self.done[-1] += 0.5
        return super().render()


gym.register("odd/DrawsBehind-v0", f"{__name__}:DrawsBehind")


@pytest.fixture
def carried(tmp_path: Path) -> Path:
    """A run of an env whose episodes begin with all that came before."""
    record(make(odd.Carries, memory=None), tmp_path / "run", unseeded(EPISODES))
    Odd.count.clear()
    return tmp_path / "run"


@pytest.fixture(autouse=True)
def _all_closed() -> Iterator[None]:
    """Whatever a test does, each env that was made has been closed."""
    Odd.count.clear()
    yield
    assert Odd.count.get("made") == Odd.count.get("closed")


def origins(results: list[reenact.ReplayResult]) -> list[str | None]:
    """What each was started from."""
    return [result.origin for result in results]


# ---- in what order


def test_what_worked_is_tried_before_what_failed(tmp_path: Path) -> None:
    """The first chained episode goes up rung by rung; the next go on from there, and say from how far back."""
    record(make(odd.Carries, memory=3), tmp_path / "run", unseeded(20))
    results = reenact.verify(tmp_path / "run", "9,14,19")
    assert origins(results) == ["chain:4", "chain:9", "chain:14"]
    tried = [[attempt.origin for attempt in result.tried] for result in results]
    assert tried == [["rng", "chain:1", "chain:2"], [], []]
    assert all(attempt.divergence is not None for attempt in results[0].tried)


def test_origins_that_never_failed_are_tried_first(tmp_path: Path) -> None:
    """After an episode that needed a chain, one whose seed suffices is still started alone."""
    script: odd.Script = [(3, ""), (None, ""), (None, ""), (7, ""), (None, "")]
    record(make(odd.Carries, memory=None, cleared=True), tmp_path / "run", script)
    assert origins(reenact.verify(tmp_path / "run")) == ["seed", "chain:first", "chain:first", "seed", "chain:first"]


def test_after_a_hopeless_episode_no_chain_is_tried_but_named_ones(tmp_path: Path) -> None:
    """What nothing determines is tried by every rung once, then only by its own, a snapshot's and from the first."""
    record(make(odd.Restless), tmp_path / "run", unseeded(6))
    first, second = reenact.verify(tmp_path / "run", "4,5")
    assert [one.origin for one in first.tried] == ["rng", "chain:1", "chain:2", "chain:first"]
    assert [one.origin for one in second.tried] == ["rng", "chain:first"]


# ---- forced


FORCED = ["seed", "rng", "chain", "chain:first", "chain:seed", "chain:1", "chain:2", "chain:300"]


@pytest.mark.parametrize("name", FORCED)
def test_a_forced_origin_is_the_only_one(name: str, carried: Path) -> None:
    """An origin that is asked for is the only one tried, and stands in the result."""
    (result,) = reenact.verify(carried, 0 if name == "seed" else 5, origin=name)
    whole = name in ("seed", "chain", "chain:first", "chain:seed", "chain:300")
    assert result.verdict == ("exact" if whole else "diverged")
    tried = [one.origin for one in result.tried] or [name]
    if name == "chain":
        assert tried == ["chain:1", "chain:2", "chain:4"]
        assert result.origin == "chain:first"
    else:
        assert tried == [name]
        assert result.origin == name


def test_entropy_and_snapshots_can_be_forced(tmp_path: Path) -> None:
    """So can the two that only some envs have."""
    record(make(odd.Replaces), tmp_path / "one", unseeded(3))
    assert origins(reenact.verify(tmp_path / "one", 2, origin="entropy")) == ["entropy"]
    with pytest.warns(UserWarning, match="global"):
        record(make(odd.GlobalStep), tmp_path / "other", unseeded(3))
    assert origins(reenact.verify(tmp_path / "other", 0, origin="snapshot")) == ["snapshot"]
    results = reenact.verify(tmp_path / "other", 2, origin="chain:snapshot")
    assert [(one.verdict, one.origin) for one in results] == [("exact", "chain:snapshot")]


@pytest.mark.parametrize("name", ["seed", "entropy", "snapshot", "chain:snapshot"])
def test_an_origin_that_an_episode_has_not_is_impossible(name: str, carried: Path) -> None:
    """Its result says, in one line, what there is instead."""
    (result,) = reenact.verify(carried, 5, origin=name)
    assert result.verdict == "impossible"
    assert result.error is not None
    assert "it has rng" in result.error
    assert "\n" not in result.error


@pytest.mark.parametrize(
    "name", ["", "Seed", "chain:", "chain:0", "chain:-1", "chain:last", "chain:1:2", "seed ", "rng\n"]
)
def test_an_unknown_origin_is_refused_before_any_work(name: str, carried: Path) -> None:
    """A name that is none raises, and lists all that are."""
    with pytest.raises(SelectionError) as caught:
        reenact.verify(carried, origin=name)
    assert "\n" not in str(caught.value)
    assert ladder.EXPECTED in str(caught.value)


def test_each_name_that_is_told_is_taken(carried: Path) -> None:
    """The names that the message lists are all understood."""
    for name in ladder.EXPECTED.replace(" or ", ", ").replace(":N", ":3").split(", "):
        reenact.verify(carried, 5, origin=name)


# ---- what it costs


@pytest.mark.parametrize("wanted", ["all", "1:", "2,5,9"])
def test_all_episodes_of_a_segment_share_one_pass(wanted: str, carried: Path) -> None:
    """Chained to in order, the resets before each are done once for all of them."""
    results = reenact.verify(carried, wanted, origin="chain:first")
    assert all(result.ok for result in results)
    assert (Odd.count["made"], Odd.count["reset"]) == (1, EPISODES)
    assert Odd.count["step"] == EPISODES * LENGTH
    assert "render" not in Odd.count


def test_chained_episodes_are_not_drawn(carried: Path) -> None:
    """Only the frames of the requested episodes are drawn, once each."""
    results = reenact.replay(carried, "3,7", origin="chain:first")
    assert [result.verdict for result in results] == ["exact"] * 2
    assert (Odd.count["made"], Odd.count["reset"], Odd.count["render"]) == (1, 8, 2 * (LENGTH + 1))


def test_a_pass_is_not_used_for_what_lies_behind_it(tmp_path: Path) -> None:
    """Episodes asked for in any order are exact; two runs in one job do not mix."""
    for name in ("run", "other"):
        record(make(odd.Carries, memory=None), tmp_path / name, unseeded(4, first=len(name)))
    opened = [reenact.open_run(tmp_path / name) for name in ("run", "other")]
    for number in (3, 1, 2, 0, 3):
        for run in opened:
            assert reenact.verify(run, number)[0].ok
    results = [reenact.verify(tmp_path / "run", number, origin="chain:2")[0].verdict for number in (2, 3)]
    assert results == ["exact", "diverged"]


def test_a_pass_that_stands_far_behind_is_left(tmp_path: Path) -> None:
    """A chain that is asked for by its length has that length, wherever the last one stands."""
    record(make(odd.Carries), tmp_path / "run", unseeded(EPISODES))
    for wanted, resets in (("2,9", 4), ("2,3", 4), ("2,4", 4)):
        made = Odd.count["reset"]
        results = reenact.verify(tmp_path / "run", wanted, origin="chain:1")
        assert [result.verdict for result in results] == ["exact", "exact"]
        assert Odd.count["reset"] - made == resets


def test_an_env_that_draws_is_made_for_what_is_drawn(tmp_path: Path) -> None:
    """After a look for a divergence's cause, undrawn, the next episode's frames are drawn all the same."""
    record(make(odd.MovesToDraw), tmp_path / "run", unseeded(3), live=False)
    results = reenact.replay(tmp_path / "run", "1,2", origin="chain:first")
    assert [(result.verdict, result.frames) for result in results] == [("diverged", LENGTH + 1)] * 2
    assert ["render() changes this env" in str(result.cause) for result in results] == [True, True]


def test_frames_that_show_the_past_are_chained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where pictures show what came before the reset, as FlappyBird's do, frames come from a chain; else they differ."""
    live = record(make(odd.Scrolls), tmp_path / "run", unseeded(3))
    episode = reenact.open_run(tmp_path / "run")[2]
    assert not np.array_equal(list(episode.frames()), live[2])
    monkeypatch.setattr(ladder, "_PICTURES", {"odd_envs": "chain:first"})
    assert np.array_equal(list(episode.frames()), live[2])
    assert origins(reenact.replay(tmp_path / "run", 2)) == ["chain:first"]
    assert origins(reenact.verify(tmp_path / "run", 2)) == ["rng"]


def test_bipedal_walker_s_world_is_brought_back(tmp_path: Path) -> None:
    """It keeps its Box2D world across resets: alone not all its episodes are exact, chained from the first all are."""
    pytest.importorskip("Box2D")
    recorder = reenact.Recorder(gym.make("BipedalWalker-v3", max_episode_steps=120), run=tmp_path / "run")
    recorder.action_space.seed(1)
    for episode in range(8):
        recorder.reset(seed=3 if episode == 0 else None)
        over = False
        while not over:
            _, _, terminated, truncated, _ = recorder.step(recorder.action_space.sample())
            over = terminated or truncated
    recorder.close()
    assert all(result.ok for result in reenact.verify(tmp_path / "run"))
    assert not all(result.ok for result in reenact.verify(tmp_path / "run", "1:", origin="rng"))


def test_a_pass_that_drew_is_done_again_undrawn(tmp_path: Path) -> None:
    """Where drawing one episode spoils the next, the next is chained to in an env that has drawn nothing."""
    run = tmp_path / "run"
    record(gym.make("odd/DrawsBehind-v0", memory=None), run, unseeded(5), live=False)
    results = reenact.replay(run, "2,4")
    assert [result.verdict for result in results] == ["exact", "exact"]
    assert origins(results) == ["chain:first"] * 2


# ---- the caller notices nothing


@pytest.mark.parametrize("job", [reenact.verify, reenact.replay])
@pytest.mark.parametrize("env", [odd.Odd, odd.GlobalReset, odd.SeedsGlobals, odd.Carries])
@pytest.mark.filterwarnings("ignore:reenact")
def test_the_caller_s_generators_are_left_as_they_were(env: type[Odd], job: Any, tmp_path: Path) -> None:
    """Whatever envs draw from the process's generators, a job gives these back as it found them."""
    states = random.getstate(), np.random.get_state()  # noqa: NPY002  # they are what is tested
    record(make(env), tmp_path / "run", unseeded(4))
    random.seed(4)
    np.random.seed(5)  # noqa: NPY002  # as above
    expected = [random.random(), np.random.normal()]  # noqa: S311, NPY002  # as above
    random.seed(4)
    np.random.seed(5)  # noqa: NPY002  # as above
    assert all(result.ok for result in job(tmp_path / "run", "1,3"))
    assert [random.random(), np.random.normal()] == expected  # noqa: S311, NPY002  # as above
    random.setstate(states[0])
    np.random.set_state(states[1])  # noqa: NPY002  # as above


@pytest.fixture(name="most_open")
def _most_open(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many envs have been open at once, as the last of it says."""
    most = [0]
    tally = Odd.tally

    def tallied(env: Odd, what: str) -> None:
        tally(env, what)
        most.append(max(most[-1], Odd.count.get("made", 0) - Odd.count.get("closed", 0)))

    monkeypatch.setattr(Odd, "tally", tallied)
    return most


def test_of_recorders_that_take_turns_one_env_is_open(tmp_path: Path, most_open: list[int]) -> None:
    """One recorder's episodes come after another's, whatever their numbers: one pass, in one env, goes through each."""
    envs = [reenact.Recorder(make(odd.Carries, memory=None), run=tmp_path / "run") for _ in range(5)]
    for _ in range(3):
        for env in envs:
            env.reset()
            [env.step(1) for _ in range(LENGTH)]
    for env in envs:
        env.close()
    Odd.count.clear()
    most_open[:] = [0]
    assert origins(reenact.verify(tmp_path / "run", origin="chain:first")) == ["chain:first"] * 15
    assert most_open[-1] == 1
    assert Odd.count["made"] == 5


def test_of_lanes_that_take_turns_the_last_few_are_open(
    tmp_path: Path, most_open: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many chains as are allowed go on beside one another, at their second turn, too; then the oldest is left."""
    monkeypatch.setattr(ladder, "_MOST_LANES", 2)
    envs = reenact.VectorRecorder(gym.vector.SyncVectorEnv([odd.Carries] * 4), tmp_path / "run", factory=odd.Carries)
    envs.reset(seed=1)
    [envs.step(np.ones(4, int)) for _ in range(4 * (LENGTH + 1))]
    envs.close()
    Odd.count.clear()
    most_open[:] = [0]
    assert set(origins(reenact.verify(tmp_path / "run", origin="chain:first"))) == {"chain:first"}
    assert most_open[-1] == 2


def test_envs_are_closed_whatever_happens(carried: Path) -> None:
    """An observer that raises, and frames that nobody takes to the end, leave no env open."""

    class Impatient:
        def planned(self, frames: int, films: int) -> None:  # the observer's
            pass

        def advanced(self, frames: int) -> None:
            pass

        def chained(self, done: int, total: int) -> None:
            pass

        def finished(self, result: reenact.ReplayResult) -> None:
            raise KeyboardInterrupt(result.address)

    with pytest.raises(KeyboardInterrupt):
        reenact.verify(carried, "5,6", observer=Impatient())
    frames = reenact.open_run(carried)[6].frames()
    next(frames)
    frames.close()
