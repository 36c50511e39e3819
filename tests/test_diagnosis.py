"""Why a replay diverged: each cause is told of an env that has it, and of no other."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any
from zlib import crc32

import h5py
import numpy as np
import pytest

import odd_envs as odd
import reenact
from odd_envs import Odd, make, record, unseeded
from reenact import recipe, signing

if TYPE_CHECKING:
    from pathlib import Path

    import gymnasium as gym

GLOBALS = pytest.mark.filterwarnings("ignore:reenact. GlobalStep draws:UserWarning")


def diverged(run: Path, episodes: Any, **options: Any) -> reenact.ReplayResult:
    """Verifies one episode, which has to diverge, and returns its result as JSON has it, too."""
    (result,) = reenact.verify(run, episodes, **options)
    assert result.verdict == "diverged"
    found = result.to_json()
    assert json.loads(json.dumps(found)) == found
    assert found.get("cause") == result.cause
    assert found["tried"] == [attempt.to_json() for attempt in result.tried]
    if result.cause is not None:
        assert "\n" not in result.cause
    return result


def edit(run: Path, **attributes: Any) -> None:
    """Changes attributes of a segment."""
    with h5py.File(run / "segment-00000.h5", "r+", locking=False) as file:
        file.attrs.update(attributes)


def spoil(run: Path, reward: int, by: float = 1.0) -> None:
    """Changes a reward, and the CRCs with it, so that the episode diverges and nothing is wrong with the env."""
    with h5py.File(run / "segment-00000.h5", "r+", locking=False) as file:
        columns, data = json.loads(file.attrs["columns"]), file["steps/reward"]
        data[reward] += by
        for at, row in enumerate(file["episodes"][:]):
            first, count = int(row["first_step"]), int(row["n_actions"])
            row["column_crcs"][columns.index("reward")] = crc32(data[first : first + count].tobytes())
            row["crc"] = crc32(row.tobytes()[:-4])
            file["episodes"][at] = row


@pytest.mark.parametrize("rendered", [False, True])
def test_an_env_that_nothing_determines(rendered: bool, tmp_path: Path) -> None:
    """It differs from itself when it is re-executed twice; that is said, with the step."""
    record(make(odd.Restless), tmp_path / "run", unseeded(3))
    result = diverged(tmp_path / "run", 1, rendered=rendered)
    assert "differs from itself at step 1" in str(result.cause)
    assert ("rendered" in result.differs) == rendered


def test_an_env_that_wavers(tmp_path: Path) -> None:
    """One that is exact when it is tried once more is not called exact, but not deterministic."""
    record(make(Odd), tmp_path / "run", [(3, "")])
    shifts = iter([0.5, 0.0, 0.0])

    class Wavering(Odd):
        shift = 0.0

        def begin(self) -> float:
            return super().begin() + self.shift

    def factory(render_mode: str | None) -> gym.Env[Any, Any]:
        env = Wavering(render_mode)
        env.shift = next(shifts)
        return env

    result = diverged(tmp_path / "run", 0, env=factory)
    assert "not deterministic" in str(result.cause)


def test_an_env_that_drawing_changes(tmp_path: Path) -> None:
    """Exact undrawn and diverging drawn: render() is named; undrawn there is no cause."""
    record(make(odd.MovesToDraw), tmp_path / "run", unseeded(2), live=False)
    result = diverged(tmp_path / "run", 1, rendered=True)
    assert "render() changes this env" in str(result.cause)
    assert result.differs["rendered"] == ("no", "yes")
    (made,) = reenact.replay(tmp_path / "run", 1)
    assert (made.verdict, made.cause) == ("diverged", result.cause)
    (made,) = reenact.replay(tmp_path / "run", 1, render_kwargs={"render_mode": "rgb_array"})
    assert (made.verdict, made.cause) == ("diverged", result.cause)  # what was found out outdoes what may be
    assert [(one.verdict, one.cause) for one in reenact.verify(tmp_path / "run")] == [("exact", None)] * 2


def test_versions_that_are_not_those_of_then(tmp_path: Path) -> None:
    """Package, version then and version now are named."""
    record(make(Odd), tmp_path / "run", unseeded(1))
    versions = recipe.versions({"modules": []})
    edit(tmp_path / "run", versions=json.dumps({**versions, "numpy": "1.0.0"}))
    with pytest.warns(UserWarning, match=r"recorded with numpy 1\.0\.0"):
        assert reenact.verify(tmp_path / "run")[0].to_json().keys().isdisjoint({"cause", "tried", "differs"})
    spoil(tmp_path / "run", 2)
    with pytest.warns(UserWarning, match=r"recorded with numpy 1\.0\.0"):
        result = diverged(tmp_path / "run", 0)
    assert result.cause == f"the versions differ: recorded with numpy 1.0.0, now {versions['numpy']}"
    assert result.differs == {"numpy": ("1.0.0", versions["numpy"])}


@GLOBALS
def test_somebody_else_drew_from_the_global_generators(tmp_path: Path) -> None:
    """An agent that draws from the generators that its env draws from makes replays diverge; the env is told of."""
    state = np.random.get_state()  # noqa: NPY002  # they are what is tested
    recorder = reenact.Recorder(make(odd.GlobalStep), run=tmp_path / "run")
    recorder.reset(seed=1)
    for _ in range(5):
        np.random.random()  # noqa: NPY002  # as above
        recorder.step(0)
    recorder.close()
    np.random.set_state(state)  # noqa: NPY002  # as above
    result = diverged(tmp_path / "run", 0)
    assert "draws from the global random generators, and so did somebody else" in str(result.cause)


def test_a_recipe_with_doubts(tmp_path: Path) -> None:
    """What was doubtful of the recipe when it was taken is said."""
    record(make(Odd), tmp_path / "run", unseeded(1))
    with h5py.File(tmp_path / "run" / "segment-00000.h5", locking=False) as file:
        taken = json.loads(file.attrs["recipe"])
    changed = json.dumps({**taken, "doubts": ["Noisy has no arguments on record"]})
    edit(tmp_path / "run", recipe=changed, signature=signing.sign(changed))
    assert reenact.verify(tmp_path / "run")[0].cause is None
    spoil(tmp_path / "run", 2)
    assert diverged(tmp_path / "run", 0).cause == "the recipe may not be right: Noisy has no arguments on record"


def test_an_env_that_had_been_used_before(tmp_path: Path) -> None:
    """State from before the recording is named where the env had been reset before."""
    env = make(odd.Carries, memory=None)
    env.reset(seed=1)
    env.step(1)
    record(env, tmp_path / "run", unseeded(2))
    assert "had been used before it was recorded" in str(diverged(tmp_path / "run", 1).cause)


def test_a_forced_origin(tmp_path: Path) -> None:
    """Where only one was tried, a chain is recommended; not for the first episode, which has none before it."""
    record(make(odd.Carries, memory=None), tmp_path / "run", unseeded(3))
    assert diverged(tmp_path / "run", 2, origin="rng").cause == (
        "only 'rng' was tried; state that survives resets needs a chain"
    )
    spoil(tmp_path / "run", 2)
    assert diverged(tmp_path / "run", 0).cause is None


@pytest.mark.parametrize(("env", "what"), [(odd.Odd, "the seed"), (odd.DeafFromBirth, "its RNG state")])
def test_a_generator_out_of_sight(env: type[Odd], what: str, tmp_path: Path) -> None:
    """Where the episode begins otherwise each time the same way, a generator of the env's own is suspected."""
    with pytest.warns(UserWarning, match="ignores the seed") if env is odd.DeafFromBirth else contextlib.nullcontext():
        record(make(env), tmp_path / "run", [(3, "")])

    class Other(env):  # type: ignore[misc, valid-type]  # one of two
        def begin(self) -> float:
            return float(super().begin() + 1)

    assert f"{what} does not determine how this env begins" in str(diverged(tmp_path / "run", 0, env=Other).cause)


@pytest.mark.filterwarnings("ignore:reenact")
@pytest.mark.parametrize(
    "env", [env for env in odd.ENVS if env not in (odd.Restless, odd.RestlessStart, odd.ReplacesBySpawned)]
)
def test_exact_episodes_have_no_cause(env: type[Odd], tmp_path: Path) -> None:
    """What is exact needs no explanation, by whatever rung it was."""
    record(make(env), tmp_path / "run", unseeded(3), live=False)
    for result in reenact.verify(tmp_path / "run"):
        assert result.verdict == "exact"
        assert (result.cause, result.differs) == (None, {})
        assert result.to_json().keys().isdisjoint({"cause", "differs"})
