"""Chains: episodes that begin with what earlier ones left, re-executed after these."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zlib import crc32

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import odd_envs as odd
import reenact
from bare import segments
from odd_envs import CUT, ERROR, LENGTH, NO_STEP, TRAIL, make, record, unseeded

if TYPE_CHECKING:
    import gymnasium as gym

MIXED: odd.Script = [
    (3, ""), (None, TRAIL), (None, NO_STEP), (None, CUT), (None, ERROR), (None, ""), (8, ""), (None, NO_STEP), (None, TRAIL), (None, "")
]  # fmt: skip


def exact(run: Path, live: list[list[np.ndarray]]) -> list[reenact.ReplayResult]:
    """Fails unless each episode is exact, and its frames are those drawn live; returns the results."""
    results = reenact.verify(run)
    assert [result.verdict for result in results] == ["exact"] * len(live)
    for episode, frames in zip(reenact.open_run(run), live, strict=True):
        assert np.array_equal(list(episode.frames()), frames), episode
    return results


def tamper(path: Path, row: int, step: int, value: int) -> None:
    """Changes an action of a closed segment, and sets the CRCs right again."""
    with h5py.File(path, "r+", locking=False) as file:
        rows, columns = file["episodes"][:], json.loads(file.attrs["columns"])
        changed, actions = rows[row], file["steps/action/value"]
        first, count = int(changed["first_step"]), int(changed["n_actions"])
        assert actions[first + step] != value
        actions[first + step] = value
        changed["column_crcs"][columns.index("action/value")] = crc32(actions[first : first + count].tobytes())
        changed["crc"] = crc32(changed.tobytes()[:-4])
        file["episodes"][row] = changed


@pytest.mark.parametrize(
    ("memory", "rung"), [(1, "chain:1"), (2, "chain:2"), (3, "chain:4"), (8, "chain:8"), (None, "chain:first")]
)
def test_a_chain_is_as_long_as_it_has_to_be(memory: int | None, rung: str, tmp_path: Path) -> None:
    """The eleventh episode begins with what the last few left: so many and no fewer come before it."""
    live = record(make(odd.Carries, memory=memory), tmp_path / "run", unseeded(12))
    (result,) = reenact.verify(tmp_path / "run", 11)
    assert (result.verdict, result.origin) == ("exact", rung)
    rungs = ["rng", "chain:1", "chain:2", "chain:4", "chain:8", "chain:first"]
    assert [attempt.origin for attempt in result.tried] == rungs[: rungs.index(rung)]
    exact(tmp_path / "run", live)


@pytest.mark.parametrize("memory", [1, 3, None])
def test_whatever_came_before_is_done_again(memory: int | None, tmp_path: Path) -> None:
    """Resets without a step, interrupted and errored episodes, steps after the end: all leave their mark."""
    live = record(make(odd.Carries, memory=memory), tmp_path / "run", MIXED)
    exact(tmp_path / "run", live)


@pytest.mark.parametrize("where", ["heap", "row"])
def test_an_episode_whose_rng_state_is_damaged_is_reached_by_a_chain(where: str, tmp_path: Path) -> None:
    """It is left out of its origins, named once, and no harm to those behind it; the chain's frames are those of live."""
    live = record(make(odd.Odd), tmp_path / "run", unseeded(4))
    with h5py.File(tmp_path / "run" / "segment-00000.h5", "r+", libver=("v110", "v110"), locking=False) as file:
        at = int(file["episodes"][2]["first_state"])
        state = file["states"][at]
        if where == "heap":
            file["heap"][int(state["data"]["offset"])] ^= 1
        else:
            state["crc"] ^= 1
            file["states"][at] = state
    assert [len(episode.origins) for episode in reenact.open_run(tmp_path / "run")[:2]] == [1, 1]
    with pytest.warns(UserWarning, match="episode 2 of .*: 1 of 1 states that it starts from is damaged"):
        results = reenact.verify(tmp_path / "run")
    assert [(result.verdict, result.origin) for result in results] == [
        ("exact", "seed"), ("exact", "rng"), ("exact", "chain:1"), ("exact", "rng")
    ]  # fmt: skip
    with pytest.warns(UserWarning, match="episode 2"):
        assert np.array_equal(list(reenact.open_run(tmp_path / "run")[2].frames()), live[2])


def test_a_chain_begins_at_the_last_seed_that_clears_all(tmp_path: Path) -> None:
    """Where a seeded reset forgets the past, the chain begins with that one."""
    script: odd.Script = [(3, "")] + [(9 if episode == 5 else None, "") for episode in range(1, 12)]
    live = record(make(odd.Carries, memory=None, cleared=True), tmp_path / "run", script)
    (result,) = reenact.verify(tmp_path / "run", 11)
    assert (result.verdict, result.origin) == ("exact", "chain:seed")
    exact(tmp_path / "run", live)


def test_another_process_chains_alike(tmp_path: Path) -> None:
    """A second process draws, of a chained env, what was drawn live."""
    live = record(make(odd.Carries, memory=None), tmp_path / "run", MIXED)
    code = (
        "import numpy as np, reenact, zlib\n"
        "print([zlib.crc32(np.array(list(one.frames())).tobytes()) for one in reenact.open_run('run')])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [crc32(np.array(frames).tobytes()) for frames in live]


def test_chains_run_across_segments_that_took_over(tmp_path: Path) -> None:
    """An action that widens its column starts a segment; chains go through from the one before."""

    class Wide(odd.Carries):
        """Takes larger actions for what their last bit says."""

        def step(self, action: int) -> Any:
            return super().step(action % 2)

    def factory(render_mode: str | None) -> gym.Env[Any, Any]:
        return Wide(render_mode, memory=None)

    recorder = reenact.Recorder(factory("rgb_array"), run=tmp_path / "run", factory=f"{__name__}:nothing_but_a_name")
    live = []
    for episode in range(4):
        recorder.flush()
        recorder.reset(seed=3 if episode == 0 else None)
        live.append([recorder.unwrapped.render()])
        for step in range(LENGTH):
            recorder.step(1001 if (episode, step) == (2, 3) else step % 2)
            live[-1].append(recorder.unwrapped.render())
    recorder.close()
    before, after = segments(tmp_path / "run")
    assert (len(before.rows), after.attrs["predecessor"], after.attrs["gap"]) == (2, 0, 0)
    results = reenact.verify(tmp_path / "run", env=factory)
    assert [(one.verdict, one.origin) for one in results] == [("exact", "seed")] + [("exact", "chain:first")] * 3
    (last,) = reenact.verify(tmp_path / "run", 3, env=factory)
    assert [attempt.origin for attempt in last.tried] == ["rng", "chain:1", "chain:2"]


def nothing_but_a_name(render_mode: str | None = None) -> gym.Env[Any, Any]:
    """Stands in a recipe."""
    raise AssertionError(render_mode)


def test_no_chain_crosses_a_gap(tmp_path: Path) -> None:
    """After a segment whose steps are not all there, what came before the gap is not done again."""
    record(make(odd.Carries, memory=None), tmp_path / "run", unseeded(4))
    recorder = reenact.Recorder(make(odd.Carries, memory=None), run=tmp_path / "run")
    for episode in range(4):
        recorder.flush()
        recorder.reset(seed=3 if episode == 0 else None)
        for step in range(LENGTH):
            recorder.step(1000 if (episode, step) == (2, 3) else step % 2)
    recorder.close()
    with h5py.File(tmp_path / "run" / "segment-00002.h5", "r+", locking=False) as file:
        file.attrs["gap"] = 1
    run = reenact.open_run(tmp_path / "run")
    assert [run.lineage(number).segments for number in range(3)] == [[0], [1], [2]]
    lines = [(one.verdict, one.origin) for one in reenact.verify(run, "2.0,2.1")]
    assert [verdict for verdict, _ in lines] == ["diverged", "diverged"]


@pytest.mark.parametrize("episode", [0, 3])
def test_a_changed_action_on_the_way_is_found_out(episode: int, tmp_path: Path) -> None:
    """An action of an earlier episode that is not what was done makes all that build on it diverge."""
    record(make(odd.Carries, memory=None), tmp_path / "run", unseeded(6))
    tamper(tmp_path / "run" / "segment-00000.h5", episode, 2, 1 - (episode + 2) % 2)
    verdicts = [result.verdict for result in reenact.verify(tmp_path / "run")]
    assert verdicts == ["exact"] * episode + ["diverged"] * (6 - episode)
    assert [one.verdict for one in reenact.verify(tmp_path / "run", origin="chain:first")] == verdicts


def test_what_raises_on_the_way_but_did_not_is_told(tmp_path: Path) -> None:
    """A chain that can't be gone through is not exact, and its result says which reset raised what."""
    record(make(odd.Carries, memory=None), tmp_path / "run", unseeded(4))
    tamper(tmp_path / "run" / "segment-00000.h5", 1, 2, odd.RAISE)
    (result,) = reenact.verify(tmp_path / "run", 3, origin="chain:first")
    assert result.verdict == "impossible"
    assert "reset 1, on the way, raised LookupError" in str(result.error)


def test_damage_on_the_way_is_told(tmp_path: Path) -> None:
    """A chain through actions whose CRC fails is not exact; what comes before them is."""
    record(make(odd.Carries, memory=None), tmp_path / "run", unseeded(4))
    with h5py.File(tmp_path / "run" / "segment-00000.h5", "r+", locking=False) as file:
        (column,) = file["steps/action"].values()
        column[LENGTH + 1] = 1 - column[LENGTH + 1]
    verdicts = [result.verdict for result in reenact.verify(tmp_path / "run")]
    assert verdicts == ["exact", "impossible", "diverged", "diverged"]


def test_an_unloggable_option_on_the_way_is_told(tmp_path: Path) -> None:
    """A reset whose options could not be logged stops a chain that it is in."""
    recorder = reenact.Recorder(make(odd.Carries, memory=None), run=tmp_path / "run")
    recorder.reset(seed=1)
    with pytest.warns(UserWarning, match="options"):
        recorder.reset(options={"add": 0.5, "how": object()})
    recorder.step(1)
    recorder.reset()
    recorder.step(1)
    recorder.close()
    (result,) = reenact.verify(tmp_path / "run", 1, origin="chain:first")
    assert result.verdict == "impossible"
    assert "its reset options could not be logged" in str(result.error)


def rests_in_the_middle(run: Path) -> list[list[Any]]:
    """Records episodes with steps after their ends, across commits and into a segment of wider columns; returns frames."""
    env = make(odd.Carries, memory=1, render_mode="rgb_array")
    recorder = reenact.Recorder(env, run=run)
    live = []
    for episode in range(6):
        frames: list[Any] = []
        recorder.reset(seed=3 if episode == 0 else None)
        frames.append(env.render())
        for step in range(LENGTH):
            # the fourth's first action needs wider columns, and what came before it is in two segments
            recorder.step(np.int64(300 if (episode, step) == (3, 0) else 1))
            frames.append(env.render())
        live.append(frames)
        recorder.step(1)
        recorder.flush()
        recorder.step(0)
    recorder.close()
    return live


def test_steps_after_an_end_are_done_again_wherever_they_lie(tmp_path: Path) -> None:
    """A commit or a segment of wider columns may begin in the middle of them; a packed file has them, too."""
    live = rests_in_the_middle(tmp_path / "run")
    assert all(segment.closed for segment in segments(tmp_path / "run"))
    run = reenact.open_run(tmp_path / "run")
    assert run.segment_numbers.tolist() == [0, 0, 0, 1, 1, 1]
    assert [len(act.trailing) for act in run.lineage(0).acts(0, 6)] == [2] * 6
    exact(tmp_path / "run", live)
    packed = reenact.pack(run, tmp_path / "some.h5", episodes=3)
    assert (packed.kept, packed.needed) == (3, 2)  # the first one's first frame is of use to a camera
    assert [result.verdict for result in reenact.verify(packed.path, 3)] == ["exact"]


@pytest.mark.parametrize(("number", "where"), [(0, 0), (1, 1), (2, 0), (2, 1)])
def test_damaged_steps_after_an_end_are_never_done(number: int, where: int, tmp_path: Path) -> None:
    """No chain goes through them; all else of the run is what it was."""
    live = rests_in_the_middle(tmp_path / "run")
    path = tmp_path / "run" / f"segment-0000{int((number, where) == (2, 1))}.h5"
    with h5py.File(path, "r+", locking=False) as file:
        at = number * (LENGTH + 2) + LENGTH if (number, where) != (2, 1) else -1
        file["steps/action/value"][at + where] += 1
    results = reenact.verify(tmp_path / "run", origin="chain:1")
    lost = number + 1
    assert [result.verdict for result in results if result.episode != lost] == ["exact"] * 5
    assert results[lost].verdict == "impossible"
    assert "are damaged" in str(results[lost].error)
    for episode, frames in zip(reenact.open_run(tmp_path / "run"), live, strict=True):
        assert len(episode.actions) == len(frames) - 1


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.sampled_from(["reset", "step", "step", "step", "end", "wide", "wider", "flush", "flush"]),
        min_size=1,
        max_size=40,
    )
)
def test_all_that_was_done_is_read_again(did: list[str]) -> None:
    """Each action is where it was given, after its reset or after the end, wherever commits and wider columns fall."""
    values = {"step": 1, "wide": 300, "wider": 70_000}
    truth: list[tuple[list[int], list[int]]] = []
    with tempfile.TemporaryDirectory() as folder:
        recorder = reenact.Recorder(odd.Odd(), run=folder, factory=odd.Odd)
        for what in ["reset", *did, "reset"]:  # what comes after the last one is of no use
            if what == "reset":
                recorder.reset(seed=len(truth))
                truth.append(([], []))
            elif what == "flush":
                recorder.flush()
            for _ in range({"reset": 0, "flush": 0, "end": LENGTH}.get(what, 1)):
                ended = len(truth[-1][0]) == LENGTH
                recorder.step(value := np.int64(values.get(what, 1)))
                truth[-1][ended].append(int(value))
        recorder.close()
        segments(Path(folder))
        run = reenact.open_run(folder)
        lineage = run.lineage(0)
        found = [(list(map(int, act.actions)), list(map(int, act.trailing))) for act in lineage.acts(0, lineage.resets)]
        assert found == truth
        assert [list(map(int, episode.actions)) for episode in run] == [actions for actions, _ in truth if actions]


def test_a_chain_crosses_into_a_segment_with_wider_columns(tmp_path: Path) -> None:
    """What the old segment has of the episode that was running is done once: in the new one, which has all of it."""
    recorder = reenact.Recorder(make(odd.Carries, memory=None), run=tmp_path / "run")
    for episode in range(5):
        recorder.reset(seed=3 if episode == 0 else None)
        for step in range(LENGTH):
            if (episode, step) == (2, 2):
                recorder.flush()
            recorder.step(np.int64(300 if (episode, step) == (2, 3) else 1))
    recorder.close()
    run = reenact.open_run(tmp_path / "run")
    assert run.segment_numbers.tolist() == [0, 0, 1, 1, 1]
    assert [len(act.trailing) for act in run.lineage(0).acts(0, 5)] == [0] * 5
    assert [result.verdict for result in reenact.verify(run)] == ["exact"] * 5
    assert [result.verdict for result in reenact.verify(reenact.pack(run).path)] == ["exact"] * 5
