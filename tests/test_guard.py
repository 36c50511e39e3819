"""Drawing changes nothing in an env, and replays show what live rendering showed."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import wrappers

import odd_envs as odd
import reenact
from odd_envs import Odd, make, record, unseeded
from reenact import chain, hidden, rebuild, reexecute, rng, stage
from reenact.guard import Guard
from test_render import decode

if TYPE_CHECKING:
    from pathlib import Path

TAXI = "Taxi-v4" if "Taxi-v4" in gym.registry else "Taxi-v3"
SMALL = {"width": 64, "height": 64}
NOISE: list[Any] = [lambda env: env]
"""Gymnasium's wrappers that draw random numbers to draw; those of its versions that have them."""
if hasattr(wrappers, "AddWhiteNoise"):
    NOISE += [lambda env: wrappers.AddWhiteNoise(env, 0.3), lambda env: wrappers.ObstructView(env, 0.3, 8)]


class Unguarded:
    """Draws as it comes."""

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        self.render = env.render


@pytest.fixture
def unguarded(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Takes the guard away, when called."""

    def take_away() -> None:
        monkeypatch.setattr(reexecute, "Guard", Unguarded)
        monkeypatch.setattr(chain, "Guard", Unguarded)

    return take_away


def verdicts(run: Path) -> list[str]:
    """What becomes of each episode when all its frames are drawn."""
    return [result.verdict for result in reenact.verify(run, rendered=True)]


def drawn_live(env: gym.Env[Any, Any], run: Path, episodes: int, steps: int) -> list[np.ndarray]:
    """Records random episodes, all frames drawn on the way; returns these by episode."""
    recorder = reenact.Recorder(env, run=run)
    recorder.action_space.seed(1)
    frames = []
    for episode in range(episodes):
        recorder.reset(seed=3 if episode == 0 else None)
        shown = [recorder.render()]
        for _ in range(steps):
            _, _, terminated, truncated, _ = recorder.step(recorder.action_space.sample())
            shown.append(recorder.render())
            if terminated or truncated:
                break
        frames.append(np.array(shown))
    recorder.close()
    return frames


# ---- random generators


@pytest.mark.parametrize("wrap", [*NOISE, odd.Noisy])
def test_drawing_leaves_every_generator_as_it_was(wrap: Any) -> None:
    """Wrappers that draw random numbers to draw, and envs that do, leave no generator moved."""
    env = wrap(odd.DrawsToDraw("rgb_array"))
    env.reset(seed=1)
    before = [rng.state_of(held) for held in hidden.find(env).values()]
    assert before
    guard = Guard(env)
    frame = guard.render()
    assert [rng.state_of(held) for held in hidden.find(env).values()] == before
    assert np.array_equal(guard.render(), frame)
    env.render()
    assert [rng.state_of(held) for held in hidden.find(env).values()] != before


@pytest.mark.parametrize("wrap", NOISE)
def test_replays_of_envs_that_draw_to_draw_are_exact(wrap: Any, tmp_path: Path, unguarded: Any) -> None:
    """Recorded undrawn, drawn they are exact; without the guard they are not."""
    env = make(odd.DrawsToDraw, render_mode="rgb_array")
    record(wrap(env), tmp_path / "run", unseeded(3), live=False)
    assert verdicts(tmp_path / "run") == ["exact"] * 3
    unguarded()
    assert verdicts(tmp_path / "run") == ["diverged"] * 3


def test_a_generator_that_only_a_property_shows_is_put_back_too() -> None:
    """One that lies where nobody looks, but is the env's np_random, is as it was after drawing."""
    held = np.random.RandomState(3)

    class Env(Odd):
        @property
        def np_random(self) -> Any:
            return held

        def render(self) -> Any:
            held.normal()
            return super().render()

    before = repr(held.get_state())
    Guard(Env("rgb_array")).render()
    assert repr(held.get_state()) == before


# ---- MuJoCo


def reaching() -> Any:
    """An env whose render() moves its target's site and steps the simulation's positions on, as Fetch's does."""
    mujoco = pytest.importorskip("mujoco")
    plain = gym.make("Reacher-v5").unwrapped
    plain.close()

    class Reaching(type(plain)):  # type: ignore[misc]  # whatever version there is
        def render(self) -> Any:
            self.data.qpos[:2] += 0.01
            self.data.qvel[0] += 0.5
            self.data.ctrl[:] = 0.2
            if self.model.nsite:
                self.model.site_pos[0] += 0.1
            mujoco.mj_step(self.model, self.data)
            return super().render()

    return Reaching


def test_drawing_leaves_mujoco_s_state_as_it_was() -> None:
    """Positions, velocities, controls, time, warm start and sites are to the bit what they were."""
    mujoco = pytest.importorskip("mujoco")
    env = reaching()(render_mode="rgb_array", **SMALL)
    env.reset(seed=1)
    env.step(np.array([0.1, -0.2], np.float32))
    spec = mujoco.mjtState.mjSTATE_INTEGRATION

    def state() -> list[list[float]]:
        found = np.zeros(mujoco.mj_stateSize(env.model, spec))
        mujoco.mj_getState(env.model, env.data, found, spec)
        return [found.tolist(), env.model.site_pos.tolist()]

    before = state()
    Guard(env).render()
    assert state() == before
    env.render()
    assert state() != before
    env.close()


SITE = """<mujoco><worldbody><body><joint type="slide"/><geom size="0.1"/><site name="target"/></body></worldbody></mujoco>"""


def test_drawing_leaves_sites_where_they_were() -> None:
    """Sites that are moved to be drawn, as Fetch's target is, stand where they stood."""
    mujoco = pytest.importorskip("mujoco")

    class Env(Odd):
        def __init__(self) -> None:
            super().__init__("rgb_array")
            self.model = mujoco.MjModel.from_xml_string(SITE)
            self.data = mujoco.MjData(self.model)

        def render(self) -> Any:
            self.model.site_pos[0] = 7.0
            mujoco.mj_forward(self.model, self.data)
            return super().render()

    env = Env()
    Guard(env).render()
    assert env.model.site_pos.tolist() == [[0.0, 0.0, 0.0]]


def test_replays_of_envs_that_move_to_draw_are_exact(tmp_path: Path, unguarded: Any) -> None:
    """Drawn they are exact; without the guard they are not."""
    cls = reaching()

    def factory(render_mode: str | None) -> gym.Env[Any, Any]:
        return gym.wrappers.TimeLimit(cls(render_mode=render_mode, **SMALL), 6)

    with pytest.warns(UserWarning, match="made without"):
        recorder = reenact.Recorder(factory(None), run=tmp_path / "run")
    recorder.reset(seed=3)
    for _ in range(6):
        recorder.step(np.array([0.1, -0.2], np.float32))
    recorder.close()
    for verdict in ("exact", "diverged"):
        (result,) = reenact.verify(tmp_path / "run", env=factory, rendered=True)
        assert result.verdict == verdict
        unguarded()


@pytest.mark.parametrize("env_id", ["HalfCheetah-v5", "Reacher-v5"])
@pytest.mark.parametrize("origin", [None, "chain:1", "chain:first"])
def test_mujoco_s_camera_looks_where_it_looked_live(env_id: str, origin: str | None, tmp_path: Path) -> None:
    """Its free camera points at where things were at the first render ever: later episodes show the same pixels."""
    pytest.importorskip("mujoco")
    live = drawn_live(gym.make(env_id, render_mode="rgb_array", **SMALL), tmp_path / "run", 3, 4)
    (result,) = reenact.replay(tmp_path / "run", 2, origin=origin, lossless=True)
    assert result.ok
    if origin is None:
        assert np.array_equal(list(reenact.open_run(tmp_path / "run")[2].frames()), live[2])
    assert np.array_equal(decode(result.path), live[2])


def test_without_the_first_render_the_camera_looks_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the camera's first render is for: HalfCheetah's later episodes show other pixels without it."""
    pytest.importorskip("mujoco")
    live = drawn_live(gym.make("HalfCheetah-v5", render_mode="rgb_array", **SMALL), tmp_path / "run", 2, 4)
    monkeypatch.setattr(chain, "sets_camera", lambda _: False)
    assert not np.array_equal(list(reenact.open_run(tmp_path / "run")[1].frames()), live[1])


# ---- MuJoCo's contexts


@pytest.fixture
def cheetah(tmp_path: Path) -> tuple[Path, list[np.ndarray]]:
    """A run of two episodes, and their frames as drawn live."""
    pytest.importorskip("mujoco")
    env = gym.make("HalfCheetah-v5", render_mode="rgb_array", **SMALL)
    return tmp_path / "run", drawn_live(env, tmp_path / "run", 2, 4)


def in_a_cycle(env: gym.Env[Any, Any]) -> None:
    """Lets an env live until it is collected: any wrapped method makes such a cycle."""
    env.unwrapped.step = env.unwrapped.step  # type: ignore[method-assign]  # what the test is about


def test_a_closed_env_takes_no_frame_of_the_next(
    cheetah: tuple[Path, list[np.ndarray]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An env that is closed, and collected while the next one draws, leaves that one's frames as they were."""
    run, live = cheetah
    kept = []

    def make_and_keep(*arguments: Any, **kwargs: Any) -> gym.Env[Any, Any]:
        kept.append(rebuild.rebuild(*arguments, **kwargs))
        return kept[-1]

    monkeypatch.setattr(stage, "rebuild", make_and_keep)
    opened = reenact.open_run(run)
    assert np.array_equal(list(opened[0].frames()), live[0])
    closed = [kept.pop() for _ in range(len(kept))]
    second = opened[1].frames()
    frames = [next(second)]
    closed.clear()
    gc.collect()
    frames += second
    assert np.array_equal(frames, live[1])


def test_an_env_that_was_dropped_before_takes_no_frame(cheetah: tuple[Path, list[np.ndarray]]) -> None:
    """The user's own env, closed and dropped but not yet collected, is collected before a replay draws."""
    run, live = cheetah
    gc.disable()
    try:
        own = gym.make("HalfCheetah-v5", render_mode="rgb_array", **SMALL)
        own.reset()
        own.render()
        own.close()
        in_a_cycle(own)
        del own
        replayed = reenact.open_run(run)[1].frames()
        frames = [next(replayed)]
        gc.collect()
        frames += replayed
    finally:
        gc.enable()
    assert np.array_equal(frames, live[1])


def test_frames_that_another_env_took_all_the_same_are_no_video(cheetah: tuple[Path, list[np.ndarray]]) -> None:
    """Collected between two frames of a replay, the user's own env still takes them: that is said, and not shown."""
    run, _ = cheetah
    own = gym.make("HalfCheetah-v5", render_mode="rgb_array", **SMALL)
    own.reset()
    own.render()
    own.close()
    replayed = reenact.open_run(run)[1].frames()
    frames = [next(replayed)]
    del own
    gc.collect()
    with pytest.raises(reenact.RenderError, match="another env that was dropped"):
        frames += replayed
    assert frames[0].any()


def test_episodes_drawn_by_turns_are_each_as_live(cheetah: tuple[Path, list[np.ndarray]]) -> None:
    """Of two envs that draw by turns, each draws in its own context, and the first one's end is not the other's."""
    run, live = cheetah
    episodes = list(reenact.open_run(run))
    assert [len(frames) for frames in live] == [5, 5]
    pairs = zip(*(episode.frames() for episode in episodes), strict=True)
    first, second = zip(*pairs, strict=True)
    assert np.array_equal(first, live[0])
    assert np.array_equal(second, live[1])
    longer = episodes[1].frames()
    frames = [next(longer)]
    list(episodes[0].frames())
    frames += longer
    assert np.array_equal(frames, live[1])


# ---- frames


def test_taxi_s_frames_are_those_drawn_live(tmp_path: Path) -> None:
    """Its taxi turns only while it is drawn; every frame of an episode is."""
    live = drawn_live(gym.make(TAXI, render_mode="rgb_array"), tmp_path / "run", 3, 8)
    for episode, frames in zip(reenact.open_run(tmp_path / "run"), live, strict=True):
        assert np.array_equal(list(episode.frames()), frames)


def test_a_wrapper_that_steps_when_drawn_is_found_out(tmp_path: Path) -> None:
    """What the guard can't put back shows as a divergence, never as an exact video."""
    record(make(odd.MovesToDraw), tmp_path / "run", unseeded(2), live=False)
    assert verdicts(tmp_path / "run") == ["diverged"] * 2
