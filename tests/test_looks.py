"""What videos show: their rate, their slice, their size, what stands around the frames, and several in one."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

import reenact
from reenact import cli
from reenact.errors import SelectionError, VideoError
from reenact.look import of as look_of
from test_render import comment_of, decode, files, fps_of, tamper

LENGTHS = (12, 7, 9, 5, 10)
SMALL = {"width": 64, "height": 48}
GUTTER = 4  # pixels between the tiles of a grid


class Dial(gym.Env[np.ndarray, int]):
    """Draws its step, in bits of 16 x 24 pixels; episode after episode as long as `LENGTHS` says."""

    metadata = {"render_modes": ["rgb_array", "ansi"], "render_fps": 10}  # noqa: RUF012  # as Gymnasium has it
    renders = 0  # of all its instances

    def __init__(
        self,
        render_mode: str | None = None,
        *,
        tint: int = 0,
        gain: float = 1.0,
        length: int | None = None,
        style: dict[str, int] | None = None,
        scale: int = 1,
    ) -> None:
        self.render_mode, self.gain, self.length, self.scale = render_mode, gain, length, scale
        self.style = {"tint": tint, **(style or {})}
        self.action_space: gym.spaces.Space[Any] = gym.spaces.Discrete(2)
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float64)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """Starts."""
        super().reset(seed=seed)
        if (options or {}).get("raise"):
            raise LookupError("no such beginning")
        self.at = 0
        self.end = (options or {}).get("length", self.length or LENGTHS[0])
        self.noise = float(self.np_random.random())
        return np.array([0.0, self.noise]), {}

    def step(self, action: int) -> Any:
        """Goes on."""
        self.at += 1
        self.noise = float(self.np_random.random()) + action
        return np.array([self.at, self.noise]), self.gain * self.at, self.at >= self.end, False, {}

    def render(self) -> Any:
        """Draws: pixels, or a line that gets longer."""
        Dial.renders += 1
        if self.render_mode == "ansi":
            return f"step {self.at}\n" + "#" * self.at
        frame = np.full((48, 64, 3), 40, np.uint8)
        frame[..., 1] += self.style["tint"]
        for bit in range(8):
            if self.at >> bit & 1:
                frame[24 * (bit // 4) :, 16 * (bit % 4) :][:24, :16] = 250
        frame[-1, -1] = 200  # never of one colour
        return frame.repeat(self.scale, axis=0).repeat(self.scale, axis=1)


class Teletype(Dial):
    """Has text alone."""

    metadata = {"render_modes": ["ansi"], "render_fps": 10}  # noqa: RUF012  # as Gymnasium has it


class Blank(Dial):
    """Draws nothing."""

    def render(self) -> Any:
        """Draws nothing."""
        return np.zeros((48, 64, 3), np.uint8)


for _env in (Dial, Teletype, Blank):
    gym.register(f"looks/{_env.__name__}-v0", f"{__name__}:{_env.__name__}")


@pytest.fixture(autouse=True)
def _own_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def record(folder: Path, lengths: tuple[int, ...] = LENGTHS, env: str = "looks/Dial-v0", **kwargs: Any) -> Path:
    """Records an episode of each length."""
    recorder = reenact.Recorder(gym.make(env, **kwargs), run=folder)
    for episode, length in enumerate(lengths):
        recorder.reset(seed=3 if episode == 0 else None, options={"length": length})
        for step in range(length):
            recorder.step((episode + step) % 2)
    recorder.close()
    return folder


def play(env: gym.Env[Any, Any], run: Path, episodes: int, steps: int) -> list[list[Any]]:
    """Records episodes of random actions, and returns what was drawn live."""
    recorder = reenact.Recorder(env, run=run)
    recorder.action_space.seed(2)
    drawn: list[list[Any]] = []
    for episode in range(episodes):
        recorder.reset(seed=5 if episode == 0 else None)
        drawn.append([env.render()])
        for _ in range(steps):
            _, _, terminated, truncated, _ = recorder.step(recorder.action_space.sample())
            drawn[-1].append(env.render())
            if terminated or truncated:
                break
    recorder.close()
    return drawn


def steps_of(video: Path | str | np.ndarray | None, top: int = 0, left: int = 0) -> list[int]:
    """Reads the step that stands in each frame of a video, in its tile at (top, left)."""
    frames = video if isinstance(video, np.ndarray) else decode(video)
    bits = [frames[:, top + 12 + 24 * (bit // 4), left + 8 + 16 * (bit % 4), 0] > 145 for bit in range(8)]
    return (np.array(bits).T @ (1 << np.arange(8))).tolist()  # type: ignore[no-any-return]


def one(run: Path, episode: int = 0, **look: Any) -> reenact.ReplayResult:
    """Films one episode."""
    (result,) = reenact.replay(run, episode, **look)
    return result


# ---- the rate


@pytest.mark.parametrize(
    ("look", "fps", "steps"),
    [
        ({"speed": 4}, 40, range(13)),
        ({"speed": 0.5}, 5, range(13)),
        ({"speed": 10}, 50, [0, 2, 4, 6, 8, 10, 12]),
        ({"speed": 15}, 50, [0, 3, 6, 9, 12]),
        ({"speed": 30}, 60, [0, 5, 10, 12]),
        ({"fps": 30, "speed": 4}, 60, [0, 2, 4, 6, 8, 10, 12]),
        ({"fps": 120}, 120, range(13)),
        ({"fps": 120, "speed": 0.9}, 108, range(13)),
    ],
)
def test_speed_is_the_rate_and_above_sixty_frames_are_left_out(
    tmp_path: Path, look: dict[str, Any], fps: float, steps: Any
) -> None:
    """Up to 60 a second all frames are shown faster; above, every k-th, and the last; an exact video it is."""
    result = one(record(tmp_path / "run"), **look)
    assert result.ok
    assert fps_of(result.path) == fps
    assert steps_of(result.path) == list(steps)
    assert result.frames == len(steps)


def test_hold_shows_the_last_frame_longer(tmp_path: Path) -> None:
    """The last frame is shown for so many seconds more, at the video's own rate."""
    run = record(tmp_path / "run")
    assert steps_of(one(run, hold=1.5).path) == [*range(13), *[12] * 15]
    assert steps_of(one(run, hold=0.5, speed=15).path) == [0, 3, 6, 9, 12, *[12] * 25]


# ---- the slice


@pytest.mark.parametrize("steps", ["2:5", ":3", "-2:", "3:", "0:1", "10:600", (1, 4), slice(2, -3), (None, 2)])
def test_a_slice_is_python_s(tmp_path: Path, steps: Any) -> None:
    """The frames are those of the slice of all; the verdict is the whole episode's."""
    result = one(record(tmp_path / "run"), steps=steps)
    if isinstance(steps, str):
        first, end = steps.split(":")
        steps = slice(int(first) if first else None, int(end) if end else None)
    expected = list(range(13))[steps if isinstance(steps, slice) else slice(*steps)]
    assert result.ok
    assert steps_of(result.path) == expected


@pytest.mark.parametrize(("changed", "marked"), [(9, False), (2, True)])
def test_a_slice_s_verdict_is_the_whole_episode_s(tmp_path: Path, changed: int, marked: bool) -> None:
    """A difference before or after the slice makes it diverged; from the difference on its frames are marked."""
    run = tmp_path / "run"
    recorder = reenact.Recorder(gym.make("looks/Dial-v0"), run=run, fingerprint_every=1)
    recorder.reset(seed=1)
    for _ in range(12):
        recorder.step(0)
    recorder.close()
    tamper(run, 0, changed, 0.5)
    result = one(run, steps="4:7", lossless=True)
    assert result.verdict == "diverged"
    (name,) = files(run / "videos")
    assert name.startswith("run-episode-0-steps4to7-diverged")
    red = decode(result.path)[:, 1, 1].astype(int)
    assert [pixel[0] > pixel[1] + 100 for pixel in red] == [marked] * 3


def test_outside_of_its_slice_an_episode_is_not_drawn(tmp_path: Path) -> None:
    """Of 200 frames, ten are wanted: these, some before them, and the first are drawn, once each."""
    run = record(tmp_path / "run", (200,))
    Dial.renders = 0
    result = one(run, steps="150:160")
    assert steps_of(result.path) == list(range(150, 160))
    assert Dial.renders == 1 + 32 + 10
    Dial.renders = 0
    one(run)
    assert Dial.renders == 201


def test_a_clip_costs_what_it_shows(tmp_path: Path) -> None:
    """Of the episode that a clip is cut from, no more is drawn than of one that is sliced."""
    run = record(tmp_path / "run", (200,))
    Dial.renders = 0
    (result,) = reenact.replay(run, step_trigger=lambda step: step == 100, video_length=5)
    assert result.frames == 5
    assert Dial.renders == 1 + 32 + 5


def test_an_episode_that_ends_before_its_slice_is_told(tmp_path: Path) -> None:
    """One line says how many frames there are; the other episodes go on."""
    run = record(tmp_path / "run")
    long, short = reenact.replay(run, "0,3", steps="8:10")
    assert long.ok
    assert short.verdict == "impossible"
    assert short.error == "episode 3 has 5 steps, and so frames 0 to 5: none of them is in 8:10"


@pytest.mark.parametrize(
    ("env", "needs", "kwargs"),
    [
        ("Taxi", "pygame", {}),
        ("LunarLander", "Box2D", {}),
        ("HalfCheetah", "mujoco", SMALL),
        ("CartPole", "pygame", {}),
    ],
)
def test_a_slice_shows_what_the_whole_shows(env: str, needs: str, kwargs: dict[str, Any], tmp_path: Path) -> None:
    """Where pictures show what earlier renders left, as Taxi's and LunarLander's, a slice's are those of live drawing."""
    pytest.importorskip(needs)
    live = play(gym.make(newest(env), render_mode="rgb_array", **kwargs), tmp_path / "run", 2, 60)[1]
    result = one(tmp_path / "run", 1, steps="-9:", lossless=True)
    assert result.ok
    assert np.array_equal(decode(result.path), live[-9:])


# ---- the size


@pytest.mark.parametrize("size", [(128, 96), (100, 96), (64, 90), (32, 24), (200, 48)])
def test_a_video_has_the_size_that_was_asked_for(tmp_path: Path, size: tuple[int, int]) -> None:
    """Frames are scaled, and in the middle of black where the shape is another one."""
    result = one(record(tmp_path / "run"), size=f"{size[0]}x{size[1]}", lossless=True)
    frames = decode(result.path)
    width, height = size
    assert result.ok
    assert frames.shape[1:3] == (height, width)
    scale = min(width / 64, height / 48)
    left, top = round((width - 64 * scale) / 2), round((height - 48 * scale) / 2)
    assert not frames[:, :, : max(0, left - 1)].any()
    assert not frames[:, : max(0, top - 1)].any()
    middle = frames[0, height // 2, left + 2 : width - left - 2]
    assert (middle == 40).all()


def test_strips_are_part_of_the_size(tmp_path: Path) -> None:
    """With a label and a curve the video has the size asked for, and the picture is as much smaller."""
    result = one(record(tmp_path / "run"), size=(200, 200), label=True, rewards=True, lossless=True)
    assert decode(result.path).shape[1:3] == (200, 200)


def test_mujoco_draws_in_the_size_that_is_asked_for(tmp_path: Path) -> None:
    """HalfCheetah's frames are those of an env made with that width and height, not scaled ones."""
    pytest.importorskip("mujoco")
    live = play(gym.make("HalfCheetah-v5", render_mode="rgb_array", width=96, height=64), tmp_path / "run", 1, 4)[0]
    plain = tmp_path / "plain"
    play(gym.make("HalfCheetah-v5", render_mode="rgb_array", **SMALL), plain, 1, 4)
    result = one(plain, size="96x64", lossless=True)
    assert result.ok
    assert np.array_equal(decode(result.path), live)


def test_draft_draws_without_multisampling(tmp_path: Path) -> None:
    """A draft's pixels are those of a live env without multisampling, and not those of one with it."""
    pytest.importorskip("mujoco")
    env = gym.make("HalfCheetah-v5", render_mode="rgb_array", **SMALL)
    env.unwrapped.model.vis.quality.offsamples = 0  # type: ignore[attr-defined]  # MuJoCo's
    live = play(env, tmp_path / "run", 1, 3)[0]
    draft = one(tmp_path / "run", draft=True, lossless=True)
    plain = one(tmp_path / "run", lossless=True)
    assert np.array_equal(decode(draft.path), live)
    assert not np.array_equal(decode(plain.path), live)
    assert draft.path != plain.path
    assert comment_of(draft.path)["source"]["look"]["draft"] is True


# ---- the env's arguments


def test_another_camera_shows_the_same_episode(tmp_path: Path) -> None:
    """HalfCheetah from further away is what a live env with that camera draws, and exact."""
    pytest.importorskip("mujoco")
    far: dict[str, Any] = {"default_camera_config": {"distance": 9.0}}
    live = play(gym.make("HalfCheetah-v5", render_mode="rgb_array", **SMALL, **far), tmp_path / "far", 1, 4)[0]
    play(gym.make("HalfCheetah-v5", render_mode="rgb_array", **SMALL), tmp_path / "run", 1, 4)
    result = one(tmp_path / "run", render_kwargs=far, lossless=True)
    assert result.ok
    assert np.array_equal(decode(result.path), live)


def test_arguments_are_put_over_the_recorded_ones(tmp_path: Path) -> None:
    """What is given is changed, in a dict too, and what is not given stays."""
    run = record(tmp_path / "run", (5,), style={"tint": 10, "other": 1}, gain=2.0)
    result = one(run, render_kwargs={"style": {"tint": 90}}, lossless=True)
    assert result.ok
    assert (decode(result.path)[0, 0, 0] == (40, 130, 40)).all()
    assert (decode(one(run, lossless=True).path)[0, 0, 0] == (40, 50, 40)).all()


def test_an_argument_that_changes_the_episode_is_found_out(tmp_path: Path) -> None:
    """The verdict says that it is another episode, and the video is marked; the line names the likeliest cause."""
    result = one(record(tmp_path / "run"), render_kwargs={"gain": 3.0})
    assert result.verdict == "diverged"
    assert "render_kwargs" in str(result.cause)
    assert Path(str(result.path)).name.endswith("-diverged.mp4")


@pytest.mark.parametrize("factory", [None, Dial])
def test_an_argument_that_the_env_does_not_take_is_one_line(
    tmp_path: Path, factory: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The line names it and what there is, in a dry run, too, and no env is made; a factory's arguments are these, too."""
    run = record(tmp_path / "run")
    made: list[object] = []
    with monkeypatch.context() as patched:
        patched.setattr(Dial, "reset", lambda self, **_: made.append(self))
        results = [one(run, render_kwargs={"camra": 2}, env=factory, dry_run=dry) for dry in (True, False)]
    for result in results:
        assert result.verdict == "impossible"
        assert str(result.error) == (
            'the env can\'t be made with render_kwargs {"camra": 2}: it is made by Dial(render_mode=None, tint=0, '
            "gain=1.0, length=None, style=None, scale=1): got an unexpected keyword argument 'camra'"
        )
    assert made == []
    assert one(run, render_kwargs={"tint": 50}, env=factory, dry_run=True).verdict == "planned"
    assert one(run, render_kwargs={"tint": 50}, env=factory).ok


class Strict(Dial):
    """Can't be made without a render mode."""

    def __init__(self, render_mode: str, tint: int = 0) -> None:
        super().__init__(render_mode, tint=tint)


gym.register("looks/Strict-v0", f"{__name__}:Strict")


def test_an_env_that_needs_a_render_mode_takes_arguments(tmp_path: Path) -> None:
    """That it gets one is not the caller's business."""
    run = tmp_path / "run"
    recorder = reenact.Recorder(gym.make("looks/Strict-v0", render_mode="rgb_array"), run=run)
    recorder.reset(seed=1)
    recorder.step(recorder.action_space.sample())
    recorder.close()
    assert one(run, render_kwargs={"tint": 50}, dry_run=True).verdict == "planned"
    assert one(run, render_kwargs={"tint": 50}).ok


class Open(Dial):
    """Takes any argument, and hands it on."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)


gym.register("looks/Open-v0", f"{__name__}:Open")


def test_an_argument_that_only_the_env_can_refuse_is_told_in_its_words(tmp_path: Path) -> None:
    """A dry run says what came of its attempt to make the env, and the job says so of each episode."""
    run = record(tmp_path / "run", env="looks/Open-v0")
    told = CliRunner().invoke(
        cli.reenact, ["replay", str(run), "--episodes", "0", "--dry-run", "--render-kwargs", '{"camra": 2}']
    )
    said = (
        'the env can\'t be made with render_kwargs {"camra": 2}: TypeError: Dial.__init__() got an unexpected keyword'
    )
    assert said in told.stderr
    assert said in str(one(run, render_kwargs={"camra": 2}).error)


def test_for_a_stranger_s_log_the_caller_s_arguments_are_the_caller_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a log may not name, its reader may; what the log itself names is refused as ever."""
    named = {"style": {"json.tool": 1}}
    harmless, harmful = record(tmp_path / "run"), record(tmp_path / "bad", **named)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "another-user"))
    assert one(harmless, render_kwargs=named).ok
    refused = one(harmful, render_kwargs={"tint": 1})
    assert refused.verdict == "impossible"
    assert "json.tool" in str(refused.error)


# ---- strips


def test_a_label_stands_below_the_frame(tmp_path: Path) -> None:
    """The frame's pixels are as they were; below them stands something else for each step."""
    run = record(tmp_path / "run")
    plain, labelled = decode(one(run, lossless=True).path), decode(one(run, label=True, lossless=True).path)
    assert labelled.shape[1] > plain.shape[1]
    assert np.array_equal(labelled[:, : plain.shape[1]], plain)
    strips = {frame[plain.shape[1] :].tobytes() for frame in labelled}
    assert len(strips) == len(plain)


def test_the_curve_has_a_cursor_that_goes_from_left_to_right(tmp_path: Path) -> None:
    """It begins at the left edge, ends at the right one, and moves in every frame; the frame is as it was."""
    run = record(tmp_path / "run")
    plain, drawn = decode(one(run, lossless=True).path), decode(one(run, rewards=True, lossless=True).path)
    assert np.array_equal(drawn[:, : plain.shape[1]], plain)
    strip = drawn[:, plain.shape[1] :].astype(int)
    yellow = (strip[..., 0] > 200) & (strip[..., 2] < 60)
    cursors = [np.flatnonzero(frame.all(axis=0)).tolist() for frame in yellow]
    places = [place for (place,) in cursors]
    assert (places[0], places[-1]) == (0, 63)
    assert places == sorted(set(places))


def test_a_slice_s_curve_begins_with_the_reward_of_its_first_frame(tmp_path: Path) -> None:
    """Rewards are 1 to 12: the curve of frames 5 to 8 has four steps, at whose first end the cursor stands first."""
    run = record(tmp_path / "run", (12,), scale=3)
    frames = decode(one(run, steps="5:9", rewards=True, lossless=True).path)
    strip = frames[:, 144:].astype(int)
    yellow = (strip[..., 0] > 200) & (strip[..., 2] < 60)
    places = [int(np.flatnonzero(frame.all(axis=0))[0]) for frame in yellow]
    assert places == [round(191 * step / 4) for step in (1, 2, 3, 4)]
    blue = (strip[-1, :, :, 2] > 200) & (strip[-1, :, :, 0] < 120)
    heights = [int(np.flatnonzero(blue[:, round(191 * (step + 0.5) / 4)])[0]) for step in range(4)]
    assert heights == sorted(set(heights), reverse=True)


@pytest.mark.parametrize("look", [{"size": "16x16"}, {"size": "32x32", "grid": "16x16"}])
def test_a_size_that_leaves_no_picture_is_told_without_odd_numbers(look: dict[str, Any]) -> None:
    """The line has the size that was asked for and what a picture needs, and nothing negative."""
    with pytest.raises(VideoError, match=f"size {look['size']} leaves less than 16x16 pixels") as caught:
        look_of(rewards=True, **look)
    assert "-" not in str(caught.value)


def test_a_label_does_not_pass_for_a_picture(tmp_path: Path) -> None:
    """An env that draws nothing is refused with a label as it is without."""
    run = record(tmp_path / "run", env="looks/Blank-v0")
    for look in ({}, {"label": True, "rewards": True}, {"reel": True}, {"grid": "1x2"}):
        result = reenact.replay(run, "0,1", **look)[0]  # type: ignore[arg-type]
        assert "nothing was drawn" in str(result.error)
        assert [name for name in files(run / "videos") if name.endswith(".mp4")] == []


# ---- several in one


def test_a_grid_shows_episodes_side_by_side(tmp_path: Path) -> None:
    """Pages of four: all tiles begin together, and one that has ended stays at its last frame."""
    run = record(tmp_path / "run")
    full, rest = reenact.replay(run, "all", grid="2x2", lossless=True)
    assert (full.verdict, rest.verdict) == ("exact", "exact")
    assert full.episodes == ("0.0", "0.1", "0.2", "0.3")
    assert (full.length, rest.length) == (sum(LENGTHS[:4]), LENGTHS[4])
    assert full.return_ == sum(sum(range(1, length + 1)) for length in LENGTHS[:4])
    names = [name for name in files(run / "videos") if name.endswith(".mp4")]
    assert [Path(str(result.path)).name for result in (full, rest)] == names
    frames = decode(full.path)
    assert len(frames) == full.frames == max(LENGTHS[:4]) + 1
    height, width = (frames.shape[1] - GUTTER) // 2, (frames.shape[2] - GUTTER) // 2
    for at, length in enumerate(LENGTHS[:4]):
        shown = steps_of(frames, (height + GUTTER) * (at // 2), (width + GUTTER) * (at % 2))
        assert shown == [min(step, length) for step in range(13)]
    last = decode(rest.path)
    assert last.shape[1:] == frames.shape[1:]
    assert not last[:, :height, width + GUTTER :].any()
    assert not last[:, height + GUTTER :, :width].any()
    assert not last[:, height + GUTTER :, width + GUTTER :].any()


def test_tiles_of_a_grid_have_a_gutter_between_them(tmp_path: Path) -> None:
    """It is four pixels wide, dark, and not black: what is drawn bright or black to its edges does not run into more."""
    run = record(tmp_path / "run")
    (result,) = reenact.replay(run, "0:4", grid="2x2", lossless=True, size="132x230")
    frames = decode(result.path)
    columns = np.flatnonzero((frames == 56).all(axis=(0, 1, 3)))
    rows = np.flatnonzero((frames == 56).all(axis=(0, 2, 3)))
    assert (columns.tolist(), rows.tolist()) == ([64, 65, 66, 67], [113, 114, 115, 116])
    assert frames.shape[1:3] == (230, 132)


def test_a_reel_shows_episodes_one_after_another(tmp_path: Path) -> None:
    """All frames of each, in order, in one video; each episode's last one is held."""
    run = record(tmp_path / "run")
    (result,) = reenact.replay(run, "1,3,4", reel=True, hold=0.2)
    assert result.ok
    assert result.episodes == ("0.1", "0.3", "0.4")
    expected = [step for number in (1, 3, 4) for step in [*range(LENGTHS[number] + 1), *[LENGTHS[number]] * 2]]
    assert steps_of(result.path) == expected
    assert reenact.replay(run, "1,3,4", reel=True, hold=0.2)[0].reused


def test_episodes_of_unequal_size_stand_in_one_video(tmp_path: Path) -> None:
    """Two envs of one run draw in two sizes: in a grid all tiles have the larger one, in a reel the first one's."""
    run = record(tmp_path / "run", (4,))
    record(run, (6,), scale=2)
    (grid,) = reenact.replay(run, "all", grid="1x2", lossless=True)
    frames = decode(grid.path)
    assert (grid.verdict, len(frames), frames.shape[2]) == ("exact", 7, 2 * 128 + GUTTER)
    assert steps_of(frames[:, ::2, ::2]) == [0, 1, 2, 3, 4, 4, 4]
    assert steps_of(frames[:, ::2, 128 + GUTTER :: 2]) == list(range(7))
    (reel,) = reenact.replay(run, "all", reel=True)
    assert steps_of(reel.path) == [*range(5), *range(7)]


@pytest.mark.parametrize("look", [{"grid": "1x3"}, {"reel": True}])
@pytest.mark.parametrize("broken", [0, 1])
def test_an_episode_without_a_frame_takes_no_place(broken: int, look: dict[str, Any], tmp_path: Path) -> None:
    """One whose reset raised has nothing to show: a reel or a grid is that of the others, wherever it stands."""
    recorder = reenact.Recorder(gym.make("looks/Dial-v0", disable_env_checker=True), run=tmp_path / "run")
    for episode in range(3):
        try:
            recorder.reset(seed=episode, options={"raise": episode == broken, "length": 4})
        except LookupError:
            continue
        [recorder.step(0) for _ in range(4)]
    recorder.close()
    (result,) = reenact.replay(tmp_path / "run", "all", lossless=True, **look)
    assert result.ok, result.error
    frames = decode(result.path)
    assert steps_of(frames) == [*range(5)] * (2 if "reel" in look else 1)
    assert frames.shape[2] == (64 if "reel" in look else 3 * 64 + 2 * GUTTER)


def test_slice_and_speed_hold_for_reels_and_grids(tmp_path: Path) -> None:
    """Each episode's slice is shown, and of that every k-th frame and the last."""
    run = record(tmp_path / "run")
    (reel,) = reenact.replay(run, "0,2", reel=True, steps="-6:", speed=12)
    assert steps_of(reel.path) == [7, 9, 11, 12, 4, 6, 8, 9]
    (grid,) = reenact.replay(run, "0,2", grid="1x2", steps="-6:", size="200x96")
    frames = decode(grid.path)
    assert frames.shape[1:3] == (96, 200)
    assert len(frames) == 6


@pytest.mark.parametrize("look", [{"grid": "1x3"}, {"reel": True}])
def test_one_that_diverged_is_marked_within(tmp_path: Path, look: dict[str, Any]) -> None:
    """The whole is diverged, and the line names the episode; no other one has a banner."""
    run = record(tmp_path / "run")
    tamper(run, 1, 3, 0.5)
    (result,) = reenact.replay(run, "0:3", lossless=True, **look)
    assert result.verdict == "diverged"
    assert str(result.error).startswith("episode 1: the replay diverged")
    assert "-diverged" in Path(str(result.path)).name
    frames = decode(result.path).astype(int)
    if "grid" in look:
        tiles = [frames[:, 1, 1 + (64 + GUTTER) * tile] for tile in range(3)]
    else:
        starts = np.cumsum([0, *(length + 1 for length in LENGTHS[:3])])
        tiles = [frames[starts[at] : starts[at + 1], 1, 1] for at in range(3)]
    red = [bool((tile[:, 0] > tile[:, 1] + 100).any()) for tile in tiles]
    assert red == [False, True, False]
    assert reenact.replay(run, "0:3", diverged=False, overwrite=True, **look)[0].path is None


@pytest.mark.parametrize("look", [{"grid": "1x2"}, {"reel": True}])
def test_one_that_is_too_short_for_a_slice_is_left_out(tmp_path: Path, look: dict[str, Any]) -> None:
    """The others are shown without it, and a line says how short it is; where all are too short, each has its line."""
    run = record(tmp_path / "run")
    for dry in (True, False):
        shown, short, shorter = reenact.replay(run, "0,1,2,3", steps="8:", lossless=True, dry_run=dry, **look)
        assert (shown.verdict, shown.episodes) == ("planned" if dry else "exact", ("0.0", "0.2"))
        assert Path(str(shown.path)).name.startswith(f"run-{'reel' if 'reel' in look else 'grid-1x2'}-0-2-steps8to")
        assert (short.verdict, shorter.verdict) == ("impossible", "impossible")
        assert short.error == "episode 1 has 7 steps, and so frames 0 to 7: none of them is in 8:"
        assert shorter.error == "episode 3 has 5 steps, and so frames 0 to 5: none of them is in 8:"
    frames = decode(shown.path)
    expected = [8, 9, 10, 11, 12] if "grid" in look else [8, 9, 10, 11, 12, 8, 9]
    assert steps_of(frames) == expected
    if "grid" in look:
        assert steps_of(frames, 0, 64 + GUTTER) == [8, 9, 9, 9, 9]
    none = reenact.replay(run, "1,3", steps="8:", **look)
    assert [result.error for result in none] == [short.error, shorter.error]
    assert [name for name in files(run / "videos") if name.endswith(".mp4")] == [Path(str(shown.path)).name]


@pytest.mark.parametrize("look", [{"grid": "1x2"}, {"reel": True}])
def test_one_that_is_impossible_leaves_no_video(tmp_path: Path, look: dict[str, Any]) -> None:
    """The line names the episode, and nothing is left of the others, not even for a while."""
    run = record(tmp_path / "run")
    (result,) = reenact.replay(run, "0,1", render_kwargs={"nothing": 1}, **look)
    assert str(result.error).startswith("episode 0: the env can't be made")
    assert files(run / "videos") == []


def test_episodes_that_need_one_another_are_composed(tmp_path: Path) -> None:
    """BipedalWalker's chained episodes stand in one grid, exact, as they were drawn live."""
    pytest.importorskip("Box2D")
    live = play(gym.make("BipedalWalker-v3", render_mode="rgb_array"), tmp_path / "run", 5, 25)
    (result,) = reenact.replay(tmp_path / "run", "3,4", grid=(1, 2), lossless=True)
    assert result.ok
    frames = decode(result.path)
    assert np.array_equal(frames[:, :400, :600], live[3])
    assert np.array_equal(frames[:, :400, 600 + GUTTER :], live[4])


# ---- names


def test_no_look_takes_another_one_s_place(tmp_path: Path) -> None:
    """Each look has a name of its own; the plain video stays as it was, and each is there when asked for again."""
    run = record(tmp_path / "run")
    looks: list[dict[str, Any]] = [
        {"fps": 20}, {"speed": 2}, {"steps": "1:"}, {"steps": ":1"}, {"size": "96x64"}, {"label": True}, {"hold": 1},
        {"rewards": True}, {"label": True, "rewards": True}, {"draft": True}, {"render_kwargs": {"tint": 9}},
        {"render_kwargs": {"tint": 8}}, {"reel": True}, {"grid": "1x1"}, {"grid": "1x2"},
    ]  # fmt: skip
    plain = one(run)
    before = Path(str(plain.path)).read_bytes()
    made = [one(run, **look) for look in looks]
    assert all(result.ok for result in made)
    assert len({result.path for result in [plain, *made]}) == len(looks) + 1
    assert Path(str(plain.path)).read_bytes() == before
    assert all(one(run, **look).reused for look in [{}, *looks])
    assert Path(str(one(run, speed=4, label=True).path)).name == "run-episode-0-speed4-label.mp4"
    assert Path(str(made[12].path)).name == "run-reel-0.mp4"
    assert Path(str(made[14].path)).name == "run-grid-1x2-0.mp4"


LOOKS = st.fixed_dictionaries(
    {},
    optional={
        "fps": st.sampled_from([1, 2, 12.5, 125]),
        "speed": st.sampled_from([1, 2, 0.25, 1 / 3, 25]),
        "steps": st.tuples(st.none() | st.integers(-30, 30), st.none() | st.integers(-30, 30)).filter(
            lambda ends: None in ends or (ends[0] < 0) != (ends[1] < 0) or ends[0] < ends[1]
        ),
        "size": st.sampled_from([(640, 480), (480, 640)]),
        "render_kwargs": st.dictionaries(st.sampled_from("ab"), st.integers(0, 2), max_size=2),
        "label": st.booleans(),
        "rewards": st.booleans(),
        "hold": st.sampled_from([0, 1, 0.1, 25]),
        "draft": st.booleans(),
    },
)


@settings(max_examples=300, deadline=None)
@given(LOOKS, LOOKS)
def test_two_looks_have_one_name_only_if_they_are_one(one_of_them: dict[str, Any], other: dict[str, Any]) -> None:
    """Names are equal where all that is shown is, and nowhere else; they are plain names of files."""
    first, second = look_of(**one_of_them), look_of(**other)
    assert (first.suffix == second.suffix) == (first == second)
    assert Path(f"run{first.suffix}.mp4").name == f"run{first.suffix}.mp4"
    assert (first.suffix == "") == (first == look_of())


def test_numpy_s_values_are_as_good_as_python_s(tmp_path: Path) -> None:
    """What comes out of an array is the same look, and finds the same video."""
    run = record(tmp_path / "run")
    given: dict[str, Any] = {
        "quality": np.int64(50), "label": np.True_, "rewards": np.False_, "size": (np.int64(96), np.uint16(128)),
        "fps": np.float32(12.5), "speed": np.int8(2), "hold": np.float64(0.5), "steps": (np.int32(0), np.int64(2)),
        "draft": np.bool_(False), "format": np.str_("mp4"), "preset": np.str_("fast"),
    }  # fmt: skip
    assert one(run, **given).ok
    plain = {name: list(one) if isinstance(one, tuple) else one.item() for name, one in given.items()}
    plain |= {"size": (96, 128), "steps": "0:2"}
    assert one(run, **plain).reused


@pytest.mark.parametrize(
    "look",
    [
        {"label": "no"}, {"draft": 1}, {"lossless": None}, {"quality": np.True_}, {"quality": np.float64(50)},
        {"speed": 0}, {"speed": float("nan")}, {"speed": "fast"}, {"steps": "400"}, {"steps": "1:2:3"}, {"steps": (1,)},
        {"steps": slice(0, 9, 2)}, {"steps": "a:b"}, {"steps": "5:5"}, {"steps": (-2, -9)}, {"size": "640"}, {"size": "641x480"}, {"size": (0, 0)},
        {"size": "2x2"}, {"size": (1.5, 2)}, {"size": "99998x16"}, {"size": "64x32", "label": True, "rewards": True},
        {"render_kwargs": [1]}, {"render_kwargs": {"camera": object()}}, {"render_kwargs": {"x": float("nan")}},
        {"render_kwargs": {"max_episode_steps": 5}}, {"render_kwargs": {"render_mode": "human"}}, {"hold": -1},
        {"hold": float("inf")}, {"grid": "2"}, {"grid": "0x2"}, {"grid": "99x99"}, {"grid": "2x2", "reel": True},
        {"reel": True, "follow": True}, {"grid": "1x2", "follow": True}, {"steps": "1:", "video_length": 5},
        {"reel": True, "step_trigger": bool},
    ],
)  # fmt: skip
def test_a_value_that_no_video_can_have_is_refused_before_any_work(tmp_path: Path, look: dict[str, Any]) -> None:
    """One line names the option, and no folder is left."""
    run = record(tmp_path / "run", (3,))
    with pytest.raises((VideoError, SelectionError)) as caught:
        reenact.replay(run, **look)
    assert "\n" not in str(caught.value)
    assert next(iter(look)).replace("_", " ").split()[0] in str(caught.value)
    assert not (run / "videos").exists()


def test_the_command_takes_them_by_the_same_names(tmp_path: Path) -> None:
    """All options of the command reach the video; a bad one ends with 2 and one line."""
    run = record(tmp_path / "run")
    options = [
        "--episodes",
        "0",
        "--speed",
        "2",
        "--steps",
        "1:4",
        "--size",
        "96x96",
        "--label",
        "--rewards",
        "--hold",
        "1",
    ]
    kwargs = json.dumps({"tint": 3})
    told = CliRunner().invoke(
        cli.reenact, ["replay", str(run), *options, "--draft", "--render-kwargs", kwargs, "--json"]
    )
    assert told.exit_code == 0, told.output
    result = json.loads(told.stdout)
    assert result["frames"] == 3 + 20
    assert Path(result["path"]).name.startswith(
        "run-episode-0-speed2-steps1to4-96x96-label-rewards-hold1-draft-kwargs-"
    )
    for several in (["--reel"], ["--grid", "2x2"]):
        told = CliRunner().invoke(cli.reenact, ["replay", str(run), "--episodes", "0,1", *several])
        assert told.exit_code == 0, told.output
        assert "episode 0 and 1 more: exact" in told.stderr
    for wrong in (
        ["--size", "1"],
        ["--render-kwargs", "{"],
        ["--render-kwargs", "[]"],
        ["--speed", "x"],
        ["--grid", "3"],
    ):
        told = CliRunner().invoke(cli.reenact, ["replay", str(run), *wrong])
        assert told.exit_code == 2
        assert told.stderr.count("\n") == 1


# ---- text


def test_an_env_that_has_text_alone_is_filmed(tmp_path: Path) -> None:
    """Its video has a frame a step, all of one size, which the longest text fits into; and it is exact."""
    run = record(tmp_path / "run", (20,), env="looks/Teletype-v0")
    result = one(run, lossless=True)
    assert (result.verdict, result.frames) == ("exact", 21)
    frames = decode(result.path)
    ink = (frames.max(axis=3) > 150).sum(axis=(1, 2))
    assert len({frame.tobytes() for frame in frames}) == 21
    assert (np.diff(ink) > 0).mean() > 0.9  # each step has one more #
    assert not (frames[..., -4:, :].max(axis=(0, 3)) > 60).any()
    assert [text.split("\n")[0] for text in reenact.open_run(run)[0].frames()] == [f"step {at}" for at in range(21)]


def test_a_factory_s_text_is_filmed_too(tmp_path: Path) -> None:
    """An env that a factory makes, and that has text alone, is made once more, to draw it."""
    run = record(tmp_path / "run", env="looks/Teletype-v0")
    made: list[str | None] = []

    def factory(render_mode: str | None) -> gym.Env[Any, Any]:
        made.append(render_mode)
        return Teletype(render_mode)

    result = one(run, env=factory)
    assert (result.verdict, result.frames) == ("exact", 13)
    assert made == ["rgb_array", "ansi"]


def test_text_takes_the_other_looks(tmp_path: Path) -> None:
    """Slice, rate, label, size, grid and reel hold for text as for frames; a divergence is marked in it."""
    run = record(tmp_path / "run", env="looks/Teletype-v0")
    assert one(run, steps="2:6", label=True, size="200x160").frames == 4
    assert one(run, speed=15).frames == 5
    grid, _ = reenact.replay(run, "all", grid=(2, 2))
    assert (grid.verdict, grid.frames) == ("exact", 13)
    (reel,) = reenact.replay(run, "0,1", reel=True)
    assert (reel.verdict, reel.frames) == ("exact", 13 + 8)
    tamper(run, 0, 9, 0.5)
    marked = decode(one(run, lossless=True).path).astype(int)
    assert (marked[:, 1, 1, 0] > marked[:, 1, 1, 1] + 100).any()


def test_texts_and_pictures_keep_their_order(tmp_path: Path) -> None:
    """A reel of envs of both kinds shows its episodes in the order that was asked for, at one size."""
    run = record(tmp_path / "run", (3,), env="looks/Teletype-v0")
    record(run, (4,))
    record(run, (2,), env="looks/Teletype-v0")
    for picked, kinds in (("all", "tttt" + "ppppp" + "ttt"), ("1,2", "ppppp" + "ttt"), ("0,1", "tttt" + "ppppp")):
        (result,) = reenact.replay(run, picked, reel=True, size="64x104", lossless=True)  # 56 of it are the label's
        assert result.ok, result.error
        frames = decode(result.path)
        grey = (frames[:, 10, 56] == 40).all(axis=1)  # as pictures are where no bit of a small number is
        assert "".join("p" if one else "t" for one in grey) == kinds
        assert steps_of(frames[grey]) == [*range(5)]
        (unsized,) = reenact.replay(run, picked, reel=True)
        assert (unsized.ok, unsized.frames) == (True, len(kinds))


def test_texts_that_wait_are_in_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reel of texts opens no more files the more episodes it has: a process may have only so many."""
    run = record(tmp_path / "run", (2, 3) * 8, env="looks/Teletype-v0")
    open_now: list[Any] = []
    most: list[int] = []
    really = tempfile.TemporaryFile

    def counted(*args: Any, **kwargs: Any) -> Any:
        file = really(*args, **kwargs)
        open_now.append(file)
        most.append(sum(not one.closed for one in open_now))
        return file

    monkeypatch.setattr("reenact.shots.tempfile.TemporaryFile", counted)
    (result,) = reenact.replay(run, "all", reel=True, lossless=True)
    assert (result.verdict, result.frames) == ("exact", 8 * (3 + 4))
    above = decode(result.path)[:, :90]  # the label says more
    assert len({frame.tobytes() for frame in above}) == 4
    assert max(most) <= 4
    assert all(one.closed for one in open_now)


@pytest.mark.parametrize("env_id", ["FrozenLake-v1", "Taxi"])
def test_gymnasium_s_text_is_drawn_in_its_colours(env_id: str, tmp_path: Path) -> None:
    """Where the agent stands is highlighted: in red on the lake, in yellow or green in the taxi."""
    env = gym.make(env_id if "-" in env_id else newest("Taxi"))
    frames = play_text(env, tmp_path / "run", 12)
    result = one(tmp_path / "run", render_kwargs={"render_mode": "ansi"}, lossless=True)
    assert (result.verdict, result.frames) == ("exact", frames)
    colours = {(224, 72, 72)} if env_id == "FrozenLake-v1" else {(224, 192, 64), (92, 196, 92)}
    for frame in decode(result.path):
        assert colours & {tuple(pixel) for pixel in frame.reshape(-1, 3).tolist()}


def newest(name: str) -> str:
    """The env's id of the highest version that is registered here."""
    return max(one for one in gym.registry if one.rpartition("-v")[0] == name)


def play_text(env: gym.Env[Any, Any], run: Path, steps: int) -> int:
    """Records some random steps; returns how many frames they have."""
    recorder = reenact.Recorder(env, run=run)
    recorder.action_space.seed(1)
    recorder.reset(seed=4)
    frames = 1
    for _ in range(steps):
        _, _, terminated, truncated, _ = recorder.step(recorder.action_space.sample())
        frames += 1
        if terminated or truncated:
            break
    recorder.close()
    return frames


# ---- in several processes, and in other formats


def test_workers_draw_the_same(tmp_path: Path) -> None:
    """Two processes give the same grids, and the same frames with another argument, as one does."""
    run = record(tmp_path / "run")
    look: dict[str, Any] = {"grid": "1x2", "render_kwargs": {"tint": 60}, "lossless": True, "size": "200x120"}
    here = reenact.replay(run, "all", video_folder=tmp_path / "here", **look)
    there = reenact.replay(run, "all", video_folder=tmp_path / "there", jobs=2, **look)
    assert [result.verdict for result in there] == ["exact"] * 3
    for one_of_them, other in zip(here, there, strict=True):
        assert np.array_equal(decode(one_of_them.path), decode(other.path))


def test_a_fast_gif_has_a_rate_that_a_gif_can_have(tmp_path: Path) -> None:
    """A GIF shows 50 frames a second at most, so of a faster one it has fewer than an mp4 would have, and the last."""
    run = record(tmp_path / "run")
    assert one(run, format="gif", speed=10).frames == 7  # 50 a second
    with pytest.warns(UserWarning, match="can't have 30 frames a second"):
        assert one(run, format="gif", speed=6).frames == 7
    assert one(run, speed=6).frames == 13


def test_a_dry_run_names_what_would_be_made(tmp_path: Path) -> None:
    """Names and refusals are those of the job itself."""
    run = record(tmp_path / "run")
    look: dict[str, Any] = {"steps": "8:", "label": True}
    foreseen = reenact.replay(run, "0,3", dry_run=True, **look)
    made = reenact.replay(run, "0,3", **look)
    assert [result.verdict for result in foreseen] == ["planned", "impossible"]
    assert [(result.path, result.error) for result in foreseen] == [(result.path, result.error) for result in made]
