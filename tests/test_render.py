"""Replaying: which videos are made, what they show, what is said of them; read with ffmpeg and bare h5py."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from zlib import crc32

import gymnasium as gym
import h5py
import imageio_ffmpeg
import numpy as np
import pytest
from gymnasium.wrappers import RecordVideo

import reenact
from reenact import usercode
from reenact.errors import EpisodeNotFoundError, RenderError, ReplayError, SelectionError, VideoError

FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()
LENGTH = 9
RAISE, NAN, INTERRUPT = 3, 2, 4


class Meter(gym.Env[np.ndarray, int]):
    """Draws its step and its state as blocks; one action raises, another makes the reward NaN."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 25}  # noqa: RUF012  # as Gymnasium has it  # as Gymnasium has it

    def __init__(self, render_mode: str | None = None, *, drift_from: int = 1000, length: int = LENGTH) -> None:
        self.render_mode, self.drift_from, self.length = render_mode, drift_from, length
        self.action_space: gym.spaces.Space[Any] = gym.spaces.Discrete(5)
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (2,))
        self.closed = False

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Starts."""
        super().reset(seed=seed)
        if options and options.get("fail"):
            raise LookupError("no such start")
        self.time, self.value = 0, float(self.np_random.random())
        return self.observation(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Goes on."""
        if action == RAISE:
            raise ValueError("out of order") if self.drift_from == 1000 else TypeError("out of order")
        if action == INTERRUPT:
            raise KeyboardInterrupt
        self.time += 1
        self.value = (self.value + 0.1 * action + (self.time >= self.drift_from) * 0.01 + self.np_random.random()) % 1
        reward = float("nan") if action == NAN else self.value
        return self.observation(), reward, self.time >= self.length, False, {}

    def observation(self) -> np.ndarray:
        """What the agent sees."""
        return np.array([self.time, self.value], np.float32)

    def render(self) -> np.ndarray:
        """Draws."""
        frame = np.full((64, 96, 3), 90, np.uint8)
        for at in range(12):
            number = self.time | int(self.value * 64) << 6
            frame[20 + 20 * (at // 6) :, 16 * (at % 6) :][:20, :16] = 250 if number >> at & 1 else 10
        return frame


class Blind(Meter):
    """Can't draw."""

    metadata = {"render_modes": ["human"]}  # noqa: RUF012  # as Gymnasium has it  # as Gymnasium has it


for name in ("Meter", "Blind"):
    gym.register(f"{name}-v0", f"{__name__}:{name}")


@pytest.fixture(autouse=True)
def _own_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def record(
    folder: Path,
    episodes: int = 3,
    *,
    env: gym.Env[Any, Any] | None = None,
    actions: Callable[[int, int], int] = lambda episode, step: (episode + step) % 2,
    **options: Any,
) -> Path:
    """Records episodes of `LENGTH` steps, the first seeded."""
    recorder = reenact.Recorder(env or gym.make("Meter-v0"), run=folder, **options)
    for episode in range(episodes):
        recorder.reset(seed=3 if episode == 0 else None)
        over, step = False, 0
        while not over:
            _, _, terminated, truncated, _ = recorder.step(actions(episode, step))
            over, step = terminated or truncated, step + 1
    recorder.close()
    return folder


def files(folder: Path) -> list[str]:
    """The names of what lies in a folder, but for the manifest's."""
    return sorted(path.name for path in folder.iterdir() if path.name != "manifest.jsonl") if folder.exists() else []


def decode(path: Path | str | None) -> np.ndarray:
    """Every frame that the file holds, once each: (frames, height, width, 3)."""
    assert path is not None
    told = subprocess.run([FFMPEG, "-i", path], capture_output=True, check=False).stderr.decode()
    size = re.search(r"Video:.* (\d+)x(\d+)", told)
    assert size, told
    command = [FFMPEG, "-i", path, "-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    raw = subprocess.run(command, capture_output=True, check=True).stdout
    return np.frombuffer(raw, np.uint8).reshape(-1, int(size[2]), int(size[1]), 3)


def fps_of(path: Path | str | None) -> float:
    """The rate that ffmpeg says the file has."""
    told = subprocess.run([FFMPEG, "-i", str(path)], capture_output=True, check=False).stderr.decode()
    found = re.search(r"([\d.]+) fps", told)
    assert found, told
    return float(found[1])


def comment_of(path: Path | str | None) -> dict[str, Any]:
    """The JSON comment in an mp4's metadata, as ffmpeg prints it."""
    command = [FFMPEG, "-v", "error", "-i", str(path), "-f", "ffmetadata", "-"]
    text = subprocess.run(command, capture_output=True, check=True).stdout.decode()
    found = re.search(r"^comment=(.*?)(?<!\\)$", text, re.MULTILINE | re.DOTALL)
    assert found, text
    comment: dict[str, Any] = json.loads(re.sub(r"\\(.)", r"\1", found[1]))
    return comment


def tamper(run: Path, episode: int, step: int, change: float, column: str = "reward") -> None:
    """Changes one value of a closed segment, and sets the CRCs right again."""
    with h5py.File(run / "segment-00000.h5", "r+", locking=False) as file:
        rows, columns = file["episodes"][:], json.loads(file.attrs["columns"])
        row, data = rows[episode], file[f"steps/{column}"]
        first, count = int(row["first_step"]), int(row["n_actions"])
        data[first + step - 1] += change
        row["column_crcs"][columns.index(column)] = crc32(data[first : first + count].tobytes())
        row["crc"] = crc32(row.tobytes()[:-4])
        file["episodes"][episode] = row


def has_banner(frame: np.ndarray) -> bool:
    """Whether the top left corner is red."""
    red, green, blue = (int(part) for part in frame[1, 1])
    return red > 120 and green < 60 > blue


# ---- selection


@pytest.mark.parametrize(
    ("options", "numbers"),
    [
        ({}, [0, 1, 8]),
        ({"episodes": "0,4,-1"}, [0, 4, 11]),
        ({"episodes": [4, -1, "0.2"]}, [2, 4, 11]),
        ({"episodes": 5}, [5]),
        ({"episodes": "1:8:3"}, [1, 4, 7]),
        ({"episodes": ":2,-2:"}, [0, 1, 10, 11]),
        ({"episodes": "0.3"}, [3]),
        ({"episodes": "all"}, list(range(12))),
        ({"every": 5}, [0, 5, 10]),
        ({"trigger": "capped-cubic"}, [0, 1, 8]),
        ({"trigger": lambda number: number in (2, 6)}, [2, 6]),
        ({"episode_trigger": lambda number: number == 7}, [7]),
        ({"episodes": "9,1", "every": 6, "trigger": lambda number: number == 7}, [0, 1, 6, 7, 9]),
    ],
)
def test_selections_unite_in_episode_order(tmp_path: Path, options: dict[str, Any], numbers: list[int]) -> None:
    """Each way to pick picks what it says, picks unite, and with none it is the capped cubic."""
    run = record(tmp_path / "run", 12, env=gym.make("Meter-v0", length=1))
    results = reenact.replay(run, **options)
    assert [result.episode for result in results] == numbers
    assert files(run / "videos") == sorted(f"run-episode-{number}.mp4" for number in numbers)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"episodes": "12"}, EpisodeNotFoundError),
        ({"episodes": "3.0"}, EpisodeNotFoundError),
        ({"episodes": "first"}, SelectionError),
        ({"episodes": "1:5:0"}, SelectionError),
        ({"every": 0}, SelectionError),
        ({"trigger": "json:nothing"}, SelectionError),
        ({"trigger": "no_such_module:f"}, SelectionError),
        ({"trigger": bool, "episode_trigger": bool}, SelectionError),
        ({"tolerance": -1.0}, SelectionError),
        ({"tolerance": float("nan")}, SelectionError),
        ({"video_length": -1}, SelectionError),
        ({"name_prefix": "../up"}, SelectionError),
        ({"fps": 0}, VideoError),
        ({"fps": float("nan")}, VideoError),
        ({"env": "no_such_file.py:make"}, SelectionError),
    ],
)
def test_what_can_not_be_understood_is_refused_before_any_work(
    tmp_path: Path, options: dict[str, Any], error: type[Exception]
) -> None:
    """A wrong option raises an error of one line, and leaves no folder behind."""
    run = record(tmp_path / "run", 2)
    with pytest.raises(error) as caught:
        reenact.replay(run, **options)
    assert "\n" not in str(caught.value)
    assert not (run / "videos").exists()


def test_a_name_that_no_file_can_have_is_refused_before_any_work(tmp_path: Path) -> None:
    """The limit is of bytes, and holds for the longest name that a video may get; one within it is given."""
    run = record(tmp_path / "run", 1)
    room = 255 - len("-episode-0-diverged.mp4")
    made: list[object] = []
    for dry_run in (True, False):
        for prefix in ("x" * (room + 1), "é" * (room // 2 + 1)):
            with pytest.raises(VideoError, match=r"may have 255 bytes, .* has 25[67]: give a shorter") as caught:
                reenact.replay(run, name_prefix=prefix, dry_run=dry_run, env=lambda **_: made.append(1))
            assert "\n" not in str(caught.value)
    assert made == []
    assert not (run / "videos").exists()
    (result,) = reenact.replay(run, name_prefix="x" * room)
    assert Path(str(result.path)).name == "x" * room + "-episode-0.mp4"


@pytest.mark.parametrize(
    ("name", "meant"),
    [("sped", "speed"), ("job", "jobs"), ("bests", "best"), ("video_dir", "video_folder"), ("zzz", None)],
)
def test_a_keyword_that_is_none_is_told_as_python_tells_it(tmp_path: Path, name: str, meant: str | None) -> None:
    """The TypeError names replay(), and the keyword that was maybe meant."""
    with pytest.raises(TypeError) as caught:
        reenact.replay(tmp_path, 1, **{name: 4})
    hint = f". Did you mean {meant!r}?" if meant else ""
    assert str(caught.value) == f"replay() got an unexpected keyword argument {name!r}{hint}"


# ---- clips


class Watched(RecordVideo):
    """Keeps what upstream put into each of its files."""

    clips: dict[str, list[np.ndarray]]

    def stop_recording(self) -> None:
        """Keeps the frames first."""
        self.clips[str(self._video_name)] = list(self.recorded_frames)
        super().stop_recording()


@pytest.mark.filterwarnings("ignore:.*Overwriting existing videos")
@pytest.mark.parametrize(
    ("triggers", "video_length"),
    [
        ({"step_trigger": lambda step: step in (4, 20)}, 0),
        ({"step_trigger": lambda step: step % 10 == 0}, 5),
        ({"step_trigger": lambda step: step % 7 == 3}, 25),  # a new trigger ends the old clip
        ({"step_trigger": lambda step: step == 5}, 15),  # spans three episodes
        ({"episode_trigger": lambda episode: episode == 1}, 14),
        ({"episode_trigger": lambda episode: episode in (0, 2), "step_trigger": lambda step: step == 12}, 0),
    ],
)
def test_clips_are_those_of_record_video(tmp_path: Path, triggers: dict[str, Any], video_length: int) -> None:
    """Clips have RecordVideo's names and first frames, and video_length of them, where it writes one more.

    But for those that begin with an episode and end before it does: its name is for all of it.
    """
    upstream = tmp_path / "upstream"
    recorder = reenact.Recorder(gym.make("Meter-v0", render_mode="rgb_array"), run=tmp_path / "run")
    env = Watched(recorder, str(upstream), video_length=video_length, name_prefix="clip", **triggers)
    env.clips = {}
    for episode in range(4):
        env.reset(seed=3 if episode == 0 else None)
        for step in range(LENGTH):
            env.step(step % 2)
    env.close()

    results = reenact.replay(tmp_path / "run", video_length=video_length, name_prefix="clip", lossless=True, **triggers)

    videos = tmp_path / "run" / "videos"
    assert files(upstream) == sorted(f"{name}.mp4" for name in env.clips)
    cut = f"-{video_length}frames" if "episode_trigger" in triggers and video_length else ""
    assert files(videos) == sorted(f"{name}{cut}-lossless.mp4" for name in env.clips)
    assert [result.verdict for result in results] == ["exact"] * len(env.clips)
    for name, frames in env.clips.items():
        expected = frames[:video_length] if video_length else frames
        assert np.array_equal(decode(videos / f"{name}{cut}-lossless.mp4"), expected)


def test_a_clip_that_another_one_cuts_short_leaves_the_whole_episode_its_name(tmp_path: Path) -> None:
    """A clip to the next clip, in the middle of its episode, says how many frames it has."""
    run = record(tmp_path / "run")
    whole = {name: (run / "videos" / name).read_bytes() for name in made_by(reenact.replay(run, "all"))}
    clips = made_by(reenact.replay(run, "all", step_trigger=lambda step: step in (3, LENGTH + 3)))
    assert clips == [
        "run-episode-0-4frames.mp4",
        "run-step-3.mp4",
        "run-episode-1-4frames.mp4",
        f"run-step-{LENGTH + 3}.mp4",
        "run-episode-2.mp4",
    ]
    assert all((run / "videos" / name).read_bytes() == content for name, content in whole.items())


def made_by(results: list[reenact.ReplayResult]) -> list[str]:
    """The names of the videos that a job has made."""
    return [Path(str(result.path)).name for result in results]


def test_a_clip_that_is_still_running_is_left_for_later(tmp_path: Path) -> None:
    """While the env runs on, a clip short of its frames is not made; once they are there, it is."""
    recorder = reenact.Recorder(gym.make("Meter-v0"), run=tmp_path / "run")
    options: dict[str, Any] = {"step_trigger": lambda step: step == 6, "video_length": 8}
    for seed in (1, None):
        recorder.reset(seed=seed)
        for _ in range(LENGTH):
            recorder.step(1)
        recorder.flush()
        results = reenact.replay(tmp_path / "run", **options)
        assert [(result.verdict, result.frames) for result in results] == [("exact", 8)] * (seed is None)
    recorder.close()
    assert reenact.replay(tmp_path / "run", **options)[0].reused


def test_clips_of_several_segments_bear_their_numbers(tmp_path: Path) -> None:
    """Steps are counted for each env instance; where there are several, the segment is in the name."""
    record(tmp_path / "run", 1)
    record(tmp_path / "run", 1)
    results = reenact.replay(tmp_path / "run", step_trigger=lambda step: step == 2, video_length=3)
    assert files(tmp_path / "run" / "videos") == ["run-step-2-0.mp4", "run-step-2-1.mp4"]
    assert [result.frames for result in results] == [3, 3]


def test_a_clip_is_exact_only_if_its_episodes_are_to_their_ends(tmp_path: Path) -> None:
    """A difference after a clip's last frame, within an episode that it touches, is its too."""
    run = record(tmp_path / "run", 2)
    tamper(run, 0, LENGTH, 0.5)
    (result,) = reenact.replay(run, step_trigger=lambda step: step == 0, video_length=2)
    assert (result.verdict, result.frames) == ("diverged", 2)
    assert files(run / "videos") == ["run-step-0-diverged.mp4"]


# ---- diverged replays


def test_a_diverged_replay_is_marked_from_where_it_can_not_be_trusted(tmp_path: Path) -> None:
    """Only a -diverged video is left: a banner from the last agreed fingerprint on, and none before."""
    run = record(tmp_path / "run", 3, fingerprint_every=4)
    tamper(run, 1, 7, 0.5)
    results = reenact.replay(run, "all", lossless=True)

    assert [result.verdict for result in results] == ["exact", "diverged", "exact"]
    found = results[1].divergence
    assert found is not None
    assert (found.step, found.since, found.field) == (7, 4, "reward")
    assert found.expected == pytest.approx(float(found.got) + 0.5)  # type: ignore[arg-type]  # a float
    names = ["run-episode-0-lossless.mp4", "run-episode-1-diverged-lossless.mp4", "run-episode-2-lossless.mp4"]
    assert files(run / "videos") == names
    assert [has_banner(frame) for frame in decode(results[1].path)] == [False] * 5 + [True] * 5
    assert not any(has_banner(frame) for frame in decode(results[0].path))
    assert comment_of(results[1].path)["verdict"] == "diverged"
    assert not results[1].ok


def test_other_physics_diverge(tmp_path: Path) -> None:
    """An env that behaves otherwise from a step on is found out, by the reward, at that step."""
    run = record(tmp_path / "run", 1)
    (result,) = reenact.replay(run, env=lambda render_mode: Meter(render_mode, drift_from=6))
    assert result.verdict == "diverged"
    assert result.divergence is not None
    assert (result.divergence.step, result.divergence.field) == (6, "reward")


@pytest.mark.parametrize("length", [LENGTH - 2, LENGTH + 2])
def test_an_env_that_ends_elsewhere_diverges(tmp_path: Path, length: int) -> None:
    """An episode that ends sooner or later than the log says is not exact, even if all rewards agree."""
    run = record(tmp_path / "run", 1)
    (result,) = reenact.verify(run, env=lambda render_mode: Meter(render_mode, length=length))
    assert result.divergence is not None
    assert (result.divergence.step, result.divergence.field) == (min(length, LENGTH), "terminated")


def test_a_changed_action_diverges(tmp_path: Path) -> None:
    """One other action in the log does not go unnoticed."""
    run = record(tmp_path / "run", 1)
    with h5py.File(run / "segment-00000.h5", locking=False) as file:
        column = next(name for name in json.loads(file.attrs["columns"]) if name.startswith("action"))
    tamper(run, 0, 3, 1, column)
    (result,) = reenact.verify(run)
    assert result.divergence is not None
    assert result.divergence.step == 3


def test_no_diverged_leaves_no_video(tmp_path: Path) -> None:
    """With diverged=False a diverged replay leaves no file at all, and the others are made."""
    run = record(tmp_path / "run", 2)
    tamper(run, 0, 5, 0.5)
    results = reenact.replay(run, "all", diverged=False)
    assert [result.verdict for result in results] == ["diverged", "exact"]
    assert results[0].path is None
    assert files(run / "videos") == ["run-episode-1.mp4"]


def test_an_env_that_wavers_never_gets_a_plain_name(tmp_path: Path) -> None:
    """An env that diverges once and agrees when it is filmed again leaves no video under the plain name."""
    run = record(tmp_path / "run", 1)
    made: list[Meter] = []

    def wavering(render_mode: str | None) -> Meter:
        made.append(Meter(render_mode, drift_from=1000 if made else 6))
        return made[-1]

    (result,) = reenact.replay(run, env=wavering)
    assert result.verdict == "diverged"
    assert files(run / "videos") == ["run-episode-0-diverged.mp4"]


def test_an_env_that_wavers_is_marked_wherever_it_went_astray(tmp_path: Path) -> None:
    """Where the second take goes astray sooner than the first, no frame of that lacks the banner."""
    run = record(tmp_path / "run", 1, fingerprint_every=1)
    made: list[Meter] = []

    def wavering(render_mode: str | None) -> Meter:
        made.append(Meter(render_mode, drift_from=2 if made else 6))
        return made[-1]

    (result,) = reenact.replay(run, env=wavering)
    marked = [has_banner(frame) for frame in decode(result.path)]
    assert all(marked[2:])
    assert len(marked) == LENGTH + 1


# ---- files


def test_a_video_that_is_there_is_not_made_again(tmp_path: Path) -> None:
    """The same episode with the same options is done: the file stays, and counts as exact."""
    run = record(tmp_path / "run", 1)
    (first,) = reenact.replay(run, "all")
    before = Path(str(first.path)).stat()
    (second,) = reenact.replay(run, "all")
    assert (second.reused, second.ok, second.frames) == (True, True, LENGTH + 1)
    after = Path(str(second.path)).stat()
    assert (after.st_ino, after.st_mtime_ns, after.st_size) == (before.st_ino, before.st_mtime_ns, before.st_size)


def test_a_tolerated_video_that_is_there_is_not_made_again(tmp_path: Path) -> None:
    """Reuse holds for a tolerated video too, and its verdict stays tolerated."""
    run = record(tmp_path / "run", 1)
    reenact.replay(run, "all", tolerance=0.1)
    (again,) = reenact.replay(run, "all", tolerance=0.1)
    assert (again.reused, again.verdict, again.ok) == (True, "tolerated", False)


@pytest.mark.parametrize("change", [{"quality": 90}, {"env": Meter}])
def test_changed_options_make_it_again(tmp_path: Path, change: dict[str, Any]) -> None:
    """One's own video of the run that was made with other options is replaced, and then it is there already."""
    run = record(tmp_path / "run", 1)
    (first,) = reenact.replay(run, "all")
    before = Path(str(first.path)).read_bytes()
    (replaced,) = reenact.replay(run, "all", **change)
    assert (replaced.ok, replaced.reused) == (True, False)
    assert Path(str(first.path)).read_bytes() != before
    assert reenact.replay(run, "all", **change)[0].reused


@pytest.mark.parametrize("name", ["run-episode-0.mp4", "run-episode-0-diverged.mp4"])
def test_a_foreign_file_is_never_replaced_unasked(tmp_path: Path, name: str) -> None:
    """A file of the video's name that reenact did not make stays as it is, unless overwrite=True."""
    run = record(tmp_path / "run", 1)
    if "diverged" in name:
        tamper(run, 0, 5, 0.5)
    (run / "videos").mkdir()
    (run / "videos" / name).write_bytes(b"holiday")
    (result,) = reenact.replay(run, "all")
    assert not result.ok
    assert result.path is None
    assert (run / "videos" / name).read_bytes() == b"holiday"
    assert files(run / "videos") == [name]
    reenact.replay(run, "all", overwrite=True)
    assert len(decode(run / "videos" / name)) == LENGTH + 1


def test_another_run_s_video_is_not_taken_for_this_one_s(tmp_path: Path) -> None:
    """Runs are told apart by their identity, not by their name."""
    one, other = record(tmp_path / "a" / "run", 1), record(tmp_path / "b" / "run", 1)
    folder = tmp_path / "videos"
    assert reenact.replay(one, "all", video_folder=folder)[0].ok
    assert "overwrite" in str(reenact.replay(other, "all", video_folder=folder)[0].error)


def test_the_source_stands_in_the_metadata(tmp_path: Path) -> None:
    """Run, address, seed, return, length, verdict, options and versions stand in the mp4."""
    run = record(tmp_path / "run", 2)
    _, result = reenact.replay(run, "all", fps=12.5)
    comment = comment_of(result.path)
    opened = reenact.open_run(run)
    assert comment["source"]["run"] == opened.uuid
    assert (comment["address"], comment["episode"], comment["seed"]) == ("0.1", 1, None)
    assert (comment["return"], comment["length"], comment["verdict"]) == (opened.returns[1], LENGTH, "exact")
    assert comment["source"]["look"]["fps"] == 12.5
    assert {"gymnasium", "numpy"} <= json.loads(comment["recorded_with"]).keys()
    assert "gymnasium" in comment["replayed_with"]


def test_fps_is_the_option_s_else_the_env_s_else_thirty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rate in the file follows the option, then render_fps, then 30."""
    run = record(tmp_path / "run", 1)
    assert fps_of(reenact.replay(run, "all")[0].path) == 25
    assert fps_of(reenact.replay(run, "all", fps=10, overwrite=True)[0].path) == 10
    monkeypatch.setattr(Meter, "metadata", {"render_modes": ["rgb_array"]})
    assert fps_of(reenact.replay(run, "all", overwrite=True, lossless=True)[0].path) == 30


# ---- what is not plain


def test_an_env_that_can_not_draw_is_refused_by_name(tmp_path: Path) -> None:
    """An env without rgb_array can be verified, but its replay names it and says what it can draw."""
    run = record(tmp_path / "run", 1, env=gym.make("Blind-v0"))
    (result,) = reenact.replay(run, "all")
    assert result.verdict == "impossible"
    assert "Blind-v0" in str(result.error)
    assert "human" in str(result.error)
    assert files(run / "videos") == []
    assert reenact.verify(run)[0].ok


def test_an_errored_episode_is_exact_if_the_same_error_comes_again(tmp_path: Path) -> None:
    """The same exception type at the same step is exact, and each frame before it is in the video."""
    recorder = reenact.Recorder(gym.make("Meter-v0"), run=tmp_path / "run")
    recorder.reset(seed=1)
    recorder.step(0)
    recorder.step(1)
    with pytest.raises(ValueError, match="out of order"):
        recorder.step(RAISE)
    recorder.close()
    (result,) = reenact.replay(tmp_path / "run", "all")
    assert (result.verdict, result.length, result.frames) == ("exact", 2, 3)
    (other,) = reenact.verify(tmp_path / "run", env=lambda render_mode: Meter(render_mode, drift_from=500))
    assert other.divergence is not None
    assert (other.divergence.step, other.divergence.field) == (3, "error")
    assert other.divergence.expected == "builtins.ValueError"


def test_an_error_that_does_not_come_again_is_a_divergence(tmp_path: Path) -> None:
    """An env that raised while recording and does not at replay has diverged."""

    class Patient(Meter):
        def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
            return super().step(0 if action == RAISE else action)

    recorder = reenact.Recorder(gym.make("Meter-v0"), run=tmp_path / "run")
    recorder.reset(seed=1)
    recorder.step(1)
    with pytest.raises(ValueError, match="out of order"):
        recorder.step(RAISE)
    recorder.close()
    (result,) = reenact.verify(tmp_path / "run", env=Patient)
    assert result.divergence is not None
    assert (result.divergence.step, result.divergence.field, result.divergence.got) == (2, "error", None)


def test_a_reset_that_raised_is_exact_if_it_raises_again(tmp_path: Path) -> None:
    """An episode whose reset raised is re-executed with its options; it has nothing to show."""
    recorder = reenact.Recorder(gym.make("Meter-v0"), run=tmp_path / "run")
    with pytest.raises(LookupError):
        recorder.reset(seed=1, options={"fail": True})
    recorder.close()
    (result,) = reenact.verify(tmp_path / "run")
    assert (result.verdict, result.length) == ("exact", 0)


@pytest.mark.parametrize("how", ["reset", "close", "interrupt"])
def test_episodes_cut_short_are_exact(tmp_path: Path, how: str) -> None:
    """An episode that a reset, a close or a Ctrl-C cut short is replayed up to there."""
    recorder = reenact.Recorder(gym.make("Meter-v0"), run=tmp_path / "run")
    recorder.reset(seed=1)
    recorder.step(0)
    recorder.step(1)
    if how == "reset":
        recorder.reset()
    elif how == "interrupt":
        with pytest.raises(KeyboardInterrupt):
            recorder.step(INTERRUPT)
    recorder.close()
    (result,) = reenact.replay(tmp_path / "run", "all")
    assert (result.verdict, result.length, result.frames) == ("exact", 2, 3)


def test_nan_rewards_are_compared_to_the_bit(tmp_path: Path) -> None:
    """A NaN that comes again is exact, its return is a string in JSON, and a number in its place diverges."""
    run = record(tmp_path / "run", 1, actions=lambda _, step: NAN if step == 4 else 0)
    (result,) = reenact.verify(run)
    assert result.verdict == "exact"
    assert result.to_json()["return"] == "nan"
    json.dumps(result.to_json(), allow_nan=False)
    run = record(tmp_path / "other", 1)
    with h5py.File(run / "segment-00000.h5", locking=False) as file:
        reward = float(file["steps/reward"][4])
    tamper(run, 0, 5, float("nan"))
    (result,) = reenact.verify(run)
    assert result.divergence is not None
    assert result.to_json()["divergence"] == {
        "step": 5, "since": 0, "field": "reward", "expected": "nan", "got": reward
    }  # fmt: skip


def test_an_unseeded_first_reset_is_exact(tmp_path: Path) -> None:
    """An env that was never seeded is started again from its RNG state."""
    recorder = reenact.Recorder(gym.make("Meter-v0"), run=tmp_path / "run")
    for _ in range(2):
        recorder.reset()
        recorder.step(1)
    recorder.close()
    assert [(result.verdict, result.origin) for result in reenact.verify(tmp_path / "run")] == [("exact", "rng")] * 2


def test_reset_options_and_actions_after_the_end_are_kept_apart(tmp_path: Path) -> None:
    """Options are given to the reset again, and steps after an end belong to no episode."""
    recorder = reenact.Recorder(gym.make("Meter-v0", length=2), run=tmp_path / "run")
    for seed in (1, None):
        recorder.reset(seed=seed, options={"fail": False, "at": (1, 2)})
        for _ in range(4):
            recorder.step(1)
    recorder.close()
    assert [(result.verdict, result.length) for result in reenact.verify(tmp_path / "run")] == [("exact", 2)] * 2


def test_a_tolerance_is_never_called_exact(tmp_path: Path) -> None:
    """Within a tolerance the verdict and the file's name say tolerated; beyond it, diverged."""
    run = record(tmp_path / "run", 1)
    tamper(run, 0, 3, 0.001)
    (result,) = reenact.replay(run, "all", tolerance=0.01)
    assert (result.verdict, result.ok, result.tolerance) == ("tolerated", False, 0.01)
    assert files(run / "videos") == ["run-episode-0-tolerated.mp4"]
    (result,) = reenact.verify(run, tolerance=0.0001)
    assert result.verdict == "diverged"
    (result,) = reenact.verify(record(tmp_path / "other", 1), tolerance=0.01)
    assert result.verdict == "tolerated"


def test_diverged_with_and_without_a_tolerance_stand_side_by_side(tmp_path: Path) -> None:
    """What diverged under a tolerance has a name of its own: it does not replace what diverged without one."""
    run = record(tmp_path / "run", 1)
    tamper(run, 0, 3, 0.5)
    (plain,) = reenact.replay(run, 0)
    before = Path(str(plain.path)).read_bytes()
    (loosened,) = reenact.replay(run, 0, tolerance=0.01)
    assert [plain.verdict, loosened.verdict] == ["diverged", "diverged"]
    assert files(run / "videos") == ["run-episode-0-diverged.mp4", "run-episode-0-tolerated-diverged.mp4"]
    assert Path(str(plain.path)).read_bytes() == before


def test_an_episode_without_origin_diverges_and_is_told_so(tmp_path: Path) -> None:
    """With neither seed nor RNG state an episode is reset as it was; what it draws differs, and the others are exact."""
    recorder = reenact.Recorder(gym.make("Meter-v0"), run=tmp_path / "run", reseed="never")
    for seed in (None, 5):
        recorder.reset(seed=seed)
        recorder.step(1)
    recorder.close()
    results = reenact.replay(tmp_path / "run", "all")
    assert [result.verdict for result in results] == ["diverged", "exact"]
    assert [result.origin for result in results] == ["chain:first", "seed"]
    assert "differs from itself" in str(results[0].cause)


# ---- the user's own code


@pytest.fixture
def factory_file(tmp_path: Path) -> Path:
    """A training script with factories of several kinds."""
    path = tmp_path / "my_training.py"
    path.write_text(
        "import gymnasium as gym, reenact, test_render\n"
        "def make(render_mode=None):\n"
        f"    return reenact.Recorder(test_render.Meter(render_mode), run={str(tmp_path / 'inner')!r})\n"
        "def deaf(render_mode=None):\n    return test_render.Meter()\n"
        "def bare():\n    return test_render.Meter()\n"
        "def needy(size, render_mode=None):\n    return test_render.Meter(render_mode)\n"
        "def confused(render_mode=None):\n    return test_render.Meter(render_mod=render_mode)\n"
        "def no_env(render_mode=None):\n    return 3\n"
        "class broken:\n    def __init__(self, render_mode=None):\n        raise ZeroDivisionError('mine')\n"
        "if __name__ == '__main__':\n    raise SystemExit('the training must not run')\n"
    )
    return path


@pytest.mark.parametrize("form", ["file", "module", "callable"])
def test_the_user_s_own_factory_stands_in(
    tmp_path: Path, factory_file: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    """A factory by file, by module or as a callable makes the env; a Recorder in it writes nothing."""
    with pytest.warns(UserWarning, match="made without gymnasium.make"):
        run = record(tmp_path / "run", 2, env=Meter())
    assert "--env" in str(reenact.replay(run, "all")[0].error)
    monkeypatch.chdir(tmp_path)
    factory: Any = {"file": f"{factory_file}:make", "module": "my_training:make"}.get(form)
    if factory is None:

        def factory(render_mode: str | None) -> gym.Env[Any, Any]:
            return reenact.Recorder(Meter(render_mode), run=tmp_path / "inner")

    before = {path for path in tmp_path.rglob("*") if "state" not in path.parts}
    results = reenact.replay(run, "all", env=factory)
    assert [result.verdict for result in results] == ["exact", "exact"]
    assert len(reenact.verify(run, env=factory)) == 2
    new = {path.name for path in tmp_path.rglob("*") if "state" not in path.parts and path not in before}
    assert {name for name in new if "pycache" not in name and not name.endswith(".pyc")} == {
        "videos", "manifest.jsonl", "run-episode-0.mp4", "run-episode-1.mp4"
    }  # fmt: skip


@pytest.mark.parametrize(("name", "said"), [("deaf", "render_mode"), ("no_env", "int")])
def test_a_factory_that_makes_something_else_is_told(tmp_path: Path, factory_file: Path, name: str, said: str) -> None:
    """A factory that returns no env, or drops render_mode, is refused in words."""
    (result,) = reenact.replay(record(tmp_path / "run", 1), "all", env=f"{factory_file}:{name}")
    assert result.verdict == "impossible"
    assert said in str(result.error)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("bare", "bare(): got an unexpected keyword argument 'render_mode'"),
        ("needy", "needy(size, render_mode=None): missing a required argument: 'size'"),
    ],
)
def test_a_factory_that_can_not_be_called_is_told_before_any_work(
    tmp_path: Path, factory_file: Path, name: str, found: str
) -> None:
    """One line says what is expected and what there is; so it is for a factory that stands in the recipe."""
    run = record(tmp_path / "run", 1)
    env = f"{factory_file}:{name}"
    calls: list[Any] = [
        reenact.replay,
        reenact.verify,
        partial(reenact.replay, jobs=2),
        partial(reenact.replay, dry_run=True),
    ]
    for call in calls:
        with pytest.raises(SelectionError) as caught:
            call(run, 0, env=env)
        assert (
            str(caught.value)
            == f"{env} can't make the env: expected a callable that takes render_mode=…, found {found}"
        )
    with pytest.raises(SelectionError, match=f"{name} can't make the env"):
        reenact.replay(run, 0, env=usercode.load(env))
    assert not (run / "videos").exists()
    other = record(tmp_path / "other", 1, factory=env)
    (result,) = reenact.replay(other, 0)
    assert result.verdict == "impossible"
    assert f"found {found}; replay with --env" in str(result.error)


def test_a_type_error_within_a_factory_keeps_its_traceback(tmp_path: Path, factory_file: Path) -> None:
    """A factory that takes what it is given, and then calls something wrongly, is the user's to mend."""
    run = record(tmp_path / "run", 1)
    with pytest.raises(TypeError, match="render_mod'") as caught:
        reenact.replay(run, 0, env=f"{factory_file}:confused")
    assert any(entry.name == "confused" for entry in caught.traceback)


def test_an_error_of_the_user_s_own_code_is_not_wrapped(tmp_path: Path, factory_file: Path) -> None:
    """What the user's factory raises comes through as it is, with its traceback."""
    run = record(tmp_path / "run", 1)
    with pytest.raises(ZeroDivisionError, match="mine"):
        reenact.replay(run, "all", env=f"{factory_file}:broken")
    assert files(run / "videos") == []


def test_a_package_that_is_missing_is_said_in_one_line(tmp_path: Path) -> None:
    """DependencyNotInstalled becomes the episode's error, be it at construction, reset or render."""
    run = record(tmp_path / "run", 1)

    def bare(**_: Any) -> gym.Env[Any, Any]:
        raise gym.error.DependencyNotInstalled("pygame is not installed")

    class NoReset(Meter):
        def reset(self, **_: Any) -> Any:
            raise gym.error.DependencyNotInstalled("pygame is not installed")

    class NoRender(Meter):
        def render(self) -> Any:
            raise gym.error.DependencyNotInstalled("pygame is not installed")

    for factory in (bare, NoReset, NoRender):
        (result,) = reenact.replay(run, "all", env=factory)
        assert result.verdict == "impossible"
        assert "pygame is not installed" in str(result.error)


class Smudged(Meter):
    """Can't draw the third frame of an episode that began unseeded."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """Begins."""
        self.smudged = seed is None
        return super().reset(seed=seed, options=options)

    def render(self) -> np.ndarray:
        """Draws, or raises."""
        if self.smudged and self.time == 2:
            raise LookupError("no such\nsprite")
        return super().render()


def test_an_episode_that_can_not_be_drawn_does_not_end_the_job(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What render() raises is those episodes' error; the others are done, no half video is left."""
    run = record(tmp_path / "run", 3)
    first, *others = reenact.replay(run, "all", env=Smudged)
    assert (first.verdict, first.error) == ("exact", None)
    assert [result.verdict for result in others] == ["impossible"] * 2
    assert {result.error for result in others} == {"render() raised LookupError: no such sprite"}
    assert files(run / "videos") == ["run-episode-0.mp4"]
    told = capsys.readouterr().err
    assert told.count("Traceback") == 1  # the same error, once
    assert 'raise LookupError("no such' in told
    drawn = reenact.verify(run, env=Smudged, rendered=True)
    assert [result.verdict for result in drawn] == ["exact", "impossible", "impossible"]
    assert [result.verdict for result in reenact.verify(run, env=Smudged)] == ["exact"] * 3


def test_frames_raise_what_render_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of `Episode.frames()` it is the cause, with its traceback."""
    run = record(tmp_path / "run", 1)

    def render(_: Meter) -> Any:
        raise LookupError("no such sprite")

    monkeypatch.setattr(Meter, "render", render)
    with pytest.raises(RenderError, match="LookupError: no such sprite") as caught:
        next(reenact.open_run(run)[0].frames())
    assert isinstance(caught.value.__cause__, LookupError)
    assert caught.value.__cause__.__traceback__ is not None


@pytest.mark.parametrize("where", ["__init__", "reset", "step", "render"])
def test_nothing_to_draw_with_is_said_in_one_line(
    where: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Wherever the env finds that there is no screen, the result says what to set, and no traceback is shown."""
    run = record(tmp_path / "run", 1)

    def fail(*_: Any, **__: Any) -> Any:
        raise ImportError("Cannot initialize a EGL device display.")

    (result,) = reenact.replay(run, "all", env=type("Dark", (Meter,), {where: fail}))
    assert result.verdict == "impossible"
    assert "MUJOCO_GL=egl" in str(result.error)
    assert files(run / "videos") == []
    assert capsys.readouterr().err == ""


def test_frames_are_those_of_the_video(tmp_path: Path) -> None:
    """Episode.frames() yields length + 1 arrays, one by one, equal to a lossless video's."""
    run = record(tmp_path / "run", 2)
    (result,) = reenact.replay(run, 1, lossless=True)
    frames = list(reenact.open_run(run)[1].frames())
    assert len(frames) == LENGTH + 1
    assert np.array_equal(decode(result.path), frames)


def test_frames_end_where_a_replay_diverges(tmp_path: Path) -> None:
    """Episode.frames() raises at the frame where the divergence showed, not after showing it."""
    run = record(tmp_path / "run", 1)
    tamper(run, 0, 4, 0.5)
    frames = reenact.open_run(run)[0].frames()
    assert [next(frames).shape for _ in range(4)] == [(64, 96, 3)] * 4
    with pytest.raises(ReplayError, match="reward at step 4"):
        next(frames)


def test_a_damaged_episode_is_told_and_the_others_go_on(tmp_path: Path) -> None:
    """An episode whose CRC fails is impossible, not exact and not diverged; its neighbours are made."""
    run = record(tmp_path / "run", 2)
    copy = shutil.copytree(run, tmp_path / "copy")
    with h5py.File(copy / "segment-00000.h5", "r+", locking=False) as file:
        file["steps/reward"][2] += 1.0
    assert [result.verdict for result in reenact.verify(copy)] == ["impossible", "exact"]


def test_a_job_tells_its_observer_each_frame(tmp_path: Path) -> None:
    """An observer hears how many frames are planned, of as many as are made, and of each result."""

    class Heard:
        total = done = 0
        results: list[Any] = []  # noqa: RUF012  # one instance  # one instance

        def planned(self, frames: int, films: int) -> None:  # noqa: ARG002  # the observer's
            self.total += frames

        def advanced(self, frames: int) -> None:
            self.done += frames

        def chained(self, done: int, total: int) -> None:  # noqa: ARG002  # the observer's
            raise AssertionError("these start alone")

        def finished(self, result: reenact.ReplayResult) -> None:
            self.results.append(result)

    heard = Heard()
    results = reenact.replay(record(tmp_path / "run", 3), "all", observer=heard)
    assert heard.total == heard.done == 3 * (LENGTH + 1)
    assert heard.results == results
