"""Each format that a video can have, decoded by ffmpeg or Pillow: its frames, rate and metadata, and how it fails."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

import reenact
from decoding import comment_of, decode, ffmpeg, files, noise, number_of, numbered, stream_line, title_of, write
from reenact import naming, partials
from reenact.encoding import FORMATS, PRESETS, Encoding
from reenact.errors import VideoError, VideoExistsError
from reenact.video import VideoWriter

if TYPE_CHECKING:
    from collections.abc import Callable

HARD_TEXT = "quotes \" ' unicode é 漢 🎥 lines\n\r\n = ; # \\ \\n \x00\x1f\u2028 " + "x=;#\\" * 4000
BY_FORMAT = pytest.mark.parametrize("form", FORMATS)
EXACT = pytest.mark.parametrize(
    "encoding",
    [Encoding(format="webm", lossless=True), Encoding(format="frames"), Encoding(lossless=True, preset="slow")],
    ids=lambda encoding: encoding.ending,
)


def durations_cs(path: Path) -> list[int]:
    """How long each frame of a GIF lasts, in hundredths of a second, as Pillow reads it."""
    with Image.open(path) as picture:
        found = []
        for at in range(picture.n_frames):
            picture.seek(at)
            found.append(round(picture.info["duration"] / 10))
    return found


# ---- frames


@BY_FORMAT
def test_each_frame_is_there_once_in_order(tmp_path: Path, form: str) -> None:
    """Of 300 numbered frames, some of them equal to the one before, each format shows each once, in order."""
    shown = [number // 3 if number > 200 else number for number in range(300)]
    path = write(tmp_path / "a", map(numbered, shown), Encoding(format=form))
    assert [number_of(frame) for frame in decode(path)] == shown


@BY_FORMAT
@pytest.mark.parametrize("count", [1, 2])
def test_a_short_video_is_whole(tmp_path: Path, form: str, count: int) -> None:
    """One or two frames are a video in each format."""
    assert len(decode(write(tmp_path / "a", noise(count), Encoding(format=form)))) == count


@EXACT
@pytest.mark.parametrize("size", [(32, 48), (33, 47), (1, 1), (2, 300)])
def test_what_is_lossless_is_equal_to_the_bit(tmp_path: Path, encoding: Encoding, size: tuple[int, int]) -> None:
    """A lossless mp4 or WebM, and PNGs, decode to the very pixels that were written, odd sizes included."""
    frames = noise(7, *size)
    assert np.array_equal(decode(write(tmp_path / "a", frames, encoding)), frames)


@pytest.mark.parametrize("size", [(32, 48), (33, 47), (1, 1)])
def test_a_gif_of_few_colours_is_exact(tmp_path: Path, size: tuple[int, int]) -> None:
    """As long as all frames together have 255 colours at most, a GIF shows them to the bit."""
    frames = (noise(9, *size) // 52 * 40)[..., :1].repeat(3, axis=3)
    frames[3] = frames[2]
    assert np.array_equal(decode(write(tmp_path / "a", frames, Encoding(format="gif"))), frames)


@pytest.mark.parametrize("size", [(32, 48), (33, 47), (1, 1)])
def test_a_webm_plays_in_browsers(tmp_path: Path, size: tuple[int, int]) -> None:
    """A lossy WebM is VP9 in yuv420p, of the very size of its frames."""
    line, (width, height) = stream_line(write(tmp_path / "a", noise(3, *size), Encoding(format="webm")))
    assert "vp9" in line
    assert "yuv420p" in line
    assert (height, width) == size


@pytest.mark.parametrize("form", ["mp4", "webm"])
def test_more_quality_is_less_error_and_more_bytes(tmp_path: Path, form: str) -> None:
    """From quality 0 to 100 the error falls, to almost none, and the file grows."""
    x = np.linspace(0, 6, 96)
    frames = [
        (128 + 100 * np.sin(x[:, None, None] + x[None, :, None] * [2, 2, 2] + t)).astype(np.uint8) for t in range(9)
    ]
    errors, sizes = [], []
    for quality in (0, 30, 55, 80, 100):
        path = write(tmp_path / f"{quality}", frames, Encoding(format=form, quality=quality))
        errors.append(float(np.abs(decode(path).astype(float) - frames).mean()))
        sizes.append(path.stat().st_size)
    assert errors == sorted(errors, reverse=True)
    assert sizes == sorted(sizes)
    assert errors[-1] < 2 < errors[0]


def test_without_a_quality_it_is_55(tmp_path: Path) -> None:
    """A video of no quality given is the same as one of 55, which is x264's crf 23."""
    plain, chosen = (write(tmp_path / f"{q}", noise(5), Encoding(quality=q)).read_bytes() for q in (None, 55))
    assert plain == chosen
    assert b"crf=23.0" in plain


@pytest.mark.parametrize("form", ["mp4", "webm"])
def test_every_preset_is_known(tmp_path: Path, form: str) -> None:
    """Each of the presets makes a whole video, in both formats that take one."""
    for preset in PRESETS:
        assert len(decode(write(tmp_path / preset, noise(2), Encoding(format=form, preset=preset)))) == 2


# ---- rates


@pytest.mark.parametrize(
    ("asked", "delay_cs"), [(50, 2), (33.33, 3), (30, 3), (25, 4), (60, 2), (1000, 2), (29.97, 3), (8, 12), (0.5, 200)]
)
def test_a_gif_runs_at_the_nearest_rate_that_it_can_have(tmp_path: Path, asked: float, delay_cs: int) -> None:
    """Each frame of a GIF lasts equally long: the nearest number of hundredths of a second, and two at least."""
    encoding = Encoding(fps=asked, format="gif")
    path = write(tmp_path / "a", map(numbered, range(60)), encoding)
    assert durations_cs(path) == [delay_cs] * 60
    assert encoding.fps == pytest.approx(100 / delay_cs, abs=0.005)


@pytest.mark.parametrize("fps", [0.5, 29.97, 50, 1000])
def test_a_webm_has_the_rate_that_was_asked_for(tmp_path: Path, fps: float) -> None:
    """Ffmpeg reads the rate that was given."""
    line, _ = stream_line(write(tmp_path / "a", noise(5), Encoding(fps=fps, format="webm")))
    shown = f"{fps / 1000:g}k" if fps >= 1000 else f"{fps:g}" if fps >= 1 else f"{fps:.2f}"
    assert f" {shown} fps" in line


def test_a_folder_of_frames_says_its_rate(tmp_path: Path) -> None:
    """The rate stands in the file beside the PNGs, which are numbered from 0."""
    path = write(tmp_path / "a.frames", noise(3), Encoding(fps=29.97, format="frames"))
    assert files(path) == ["000000.png", "000001.png", "000002.png", "provenance.json"]
    assert json.loads((path / "provenance.json").read_text())["fps"] == 29.97


# ---- metadata


@BY_FORMAT
def test_any_comment_is_there_for_other_programs(tmp_path: Path, form: str) -> None:
    """Any JSON, 20 kB of separators, line breaks and unicode included, is what other programs read of the video."""
    comment = {HARD_TEXT: [HARD_TEXT, 1, -0.5, None, True], "": 2**80}
    path = write(tmp_path / f"a.{form}", noise(2), Encoding(format=form), title="é", comment=comment)
    assert comment_of(path) == comment


@BY_FORMAT
def test_title_and_comment_are_ordinary_metadata(tmp_path: Path, form: str) -> None:
    """Title and comment are where other programs look for them."""
    comment = {"verdict": "exact", "frames": 2}
    path = write(tmp_path / f"a.{form}", noise(2), Encoding(format=form), title="CartPole é", comment=comment)
    assert comment_of(path) == comment
    if form == "frames":
        assert json.loads((path / "provenance.json").read_text())["title"] == "CartPole é"
    elif form == "gif":
        with Image.open(path) as picture:
            assert json.loads(picture.info["comment"])["title"] == "CartPole é"
    else:
        assert "title=CartPole é\n" in ffmpeg("-i", path, "-f", "ffmetadata", "-").stdout.decode()


TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)


@BY_FORMAT
@settings(max_examples=8, deadline=None)
@given(title=TEXT.filter(bool), words=st.lists(st.text(max_size=40), max_size=5), rooms=st.integers(0, 2))
@example(title="a=b;c#d\\e\nf", words=["=;#\\\n", "\\=", "\n;#", "'\"\0"], rooms=2)
def test_title_and_comment_round_trip(form: str, title: str, words: list[str], rooms: int) -> None:
    """Whatever is in them, ffmpeg's own special characters too, and however long the comment is."""
    comment = {"words": words, "long": "=;#\\\n" * 400 * rooms}
    with TemporaryDirectory() as folder:
        path = write(Path(folder) / f"a.{form}", noise(1), Encoding(format=form), title=title, comment=comment)
        assert comment_of(path) == comment
        assert title_of(path) == title


@BY_FORMAT
def test_a_comment_of_any_length_is_kept(tmp_path: Path, form: str) -> None:
    """That of a reel of ten thousand episodes is longer than any argument of a command may be."""
    comment = {"frames": [[f"0.{number}", 0, 201] for number in range(10_000)]}
    path = write(tmp_path / f"a.{form}", noise(2), Encoding(format=form), title="reel", comment=comment)
    assert comment_of(path) == comment
    assert title_of(path) == "reel"
    assert len(decode(path)) == 2
    assert files(tmp_path) == [path.name]


# ---- whole or not at all


@BY_FORMAT
def test_a_killed_ffmpeg_leaves_nothing(tmp_path: Path, form: str) -> None:
    """A kill in the middle is a VideoError; no file, no folder and no process stays."""
    with VideoWriter(tmp_path, Encoding(format=form)) as writer:
        for frame in noise(20, 240, 320):
            writer.write(frame)
        process = writer._proc  # noqa: SLF001 - only a test wants to kill it
        assert process
        process.send_signal(signal.SIGKILL)
        process.wait()
        with pytest.raises(VideoError, match="was killed by signal 9"):
            writer.finish(tmp_path / "a", title="", comment={}, overwrite=False)
    assert files(tmp_path) == []


@BY_FORMAT
def test_frames_that_got_lost_are_an_error(tmp_path: Path, form: str) -> None:
    """A video that doesn't hold as many frames as were written is not kept."""
    with VideoWriter(tmp_path, Encoding(format=form)) as writer:
        writer.write(noise(1)[0])
        writer.frames += 1
        with pytest.raises(VideoError, match="stored 1 frames, expected 2"):
            writer.finish(tmp_path / "a", title="", comment={}, overwrite=False)
    assert files(tmp_path) == []


FULL = """
    import resource, sys
    from pathlib import Path
    import numpy as np
    from reenact.encoding import Encoding
    from reenact.errors import VideoError
    from reenact.video import VideoWriter
    folder, form, limit = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    frames = np.random.default_rng(0).integers(0, 256, (20, 120, 160, 3), dtype=np.uint8)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        with VideoWriter(folder, Encoding(format=form)) as writer:
            for frame in frames:
                writer.write(frame)
            writer.finish(folder / "a", title="", comment={}, overwrite=False)
    except VideoError as error:
        print("refused", "\\n" in str(error))
    else:
        print("made")
"""


def on_a_disk_of(limit: int, folder: Path, form: str) -> str:
    """What becomes of 20 frames of noise in a process that may write files of so many bytes."""
    command = [sys.executable, "-c", textwrap.dedent(FULL), str(folder), form, str(limit)]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.strip()


@BY_FORMAT
def test_a_full_disk_leaves_nothing(tmp_path: Path, form: str) -> None:
    """Where a file can't grow on, early or shortly before its end, there is one line and no video."""
    whole = write(tmp_path / "whole" / "a", noise(20, 120, 160), Encoding(format=form))
    largest = max(path.stat().st_size for path in (whole.iterdir() if whole.is_dir() else [whole]))
    (tmp_path / "b").mkdir()
    for limit in (4096, largest - 100):
        assert on_a_disk_of(limit, tmp_path / "b", form) == "refused False"
        assert files(tmp_path / "b") == []
    assert on_a_disk_of(1 << 30, tmp_path / "b", form) == "made", "the limit must be what refuses"


@BY_FORMAT
def test_a_dead_process_names_no_video(tmp_path: Path, form: str) -> None:
    """A process that dies in the middle leaves hidden names alone."""
    child = os.fork()
    if child == 0:
        writer = VideoWriter(tmp_path, Encoding(format=form))
        for frame in noise(20):
            writer.write(frame)
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert all(name.startswith(".") for name in files(tmp_path))


def test_a_folder_of_frames_replaces_another(tmp_path: Path) -> None:
    """With overwrite the new folder takes the old one's place, and nothing of the old one stays."""
    path = write(tmp_path / "a.frames", noise(5), Encoding(format="frames"))
    write(path, noise(2), Encoding(format="frames"), overwrite=True)
    assert len(decode(path)) == 2
    assert files(tmp_path) == ["a.frames"]


def failing_for(ending: str, how: Callable[[], None]) -> Callable[[Path, Path], Path]:
    """A rename that does something else where what is renamed has such an ending and is hidden."""
    rename = Path.rename

    def renamed(path: Path, target: Path) -> Path:
        if path.name.startswith(".") and path.name.endswith(ending):
            how()
        return rename(path, target)

    return renamed


def test_a_folder_that_cannot_be_replaced_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the new folder can't take the name, after the old one has made way, the old one has it again."""
    path = write(tmp_path / "a.frames", noise(5), Encoding(format="frames"))

    def refuse() -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Path, "rename", failing_for(".partial.frames", refuse))
    with pytest.raises(VideoError, match="Input/output error"):
        write(path, noise(2), Encoding(format="frames"), overwrite=True)
    assert len(decode(path)) == 5
    assert files(tmp_path) == ["a.frames"]


def test_a_folder_that_a_killed_process_was_replacing_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill between the two renames costs the new folder; the next sweep gives the old one its name again."""
    path = write(tmp_path / "a.frames", noise(5), Encoding(format="frames"))
    child = os.fork()
    if child == 0:
        kill = functools.partial(os.kill, os.getpid(), signal.SIGKILL)
        monkeypatch.setattr(Path, "rename", failing_for(".partial.frames", kill))
        write(path, noise(2), Encoding(format="frames"), overwrite=True)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert not path.exists()
    partials.sweep(tmp_path)
    assert len(decode(path)) == 5
    assert files(tmp_path) == ["a.frames"]


def test_what_a_link_leads_to_is_never_moved(tmp_path: Path) -> None:
    """A stranger's run may bring a link that bears the name of a folder which waits: the link goes, and nothing else."""
    name = f".{'a' * 12}.{'0' * 8}-1-1.partial.png{naming.ASIDE}"
    assert partials._NAME.fullmatch(name)  # noqa: SLF001  # else nothing is tried
    videos, victim = tmp_path / "videos", tmp_path / "victim"
    for folder in (videos, victim):
        folder.mkdir()
    (victim / "precious").write_text("mine")
    (videos / name).symlink_to(victim)
    os.utime(videos / name, (1, 1), follow_symlinks=False)
    partials.sweep(videos)
    assert (files(videos), files(victim)) == ([], ["precious"])


def test_a_folder_of_frames_is_untouched_without_overwrite(tmp_path: Path) -> None:
    """Without overwrite an existing folder stays as it is."""
    path = write(tmp_path / "a.frames", noise(5), Encoding(format="frames"))
    with pytest.raises(VideoExistsError):
        write(path, noise(2), Encoding(format="frames"))
    assert len(decode(path)) == 5
    assert files(tmp_path) == ["a.frames"]


def test_a_folder_that_holds_something_else_is_never_replaced(tmp_path: Path) -> None:
    """Whatever else lies in a folder, overwrite does not remove it."""
    path = write(tmp_path / "a.frames", noise(5), Encoding(format="frames"))
    (path / "thesis.tex").write_text("precious")
    with pytest.raises(VideoError, match=r"more than frames in it \(thesis.tex\)"):
        write(path, noise(2), Encoding(format="frames"), overwrite=True)
    assert (path / "thesis.tex").read_text() == "precious"
    assert len(decode(path)) == 5


def test_a_percent_sign_in_a_folders_name_is_no_pattern(tmp_path: Path) -> None:
    """PNGs go into the folder that was named, whatever is in its name."""
    path = write(tmp_path / "100%d" / "a.frames", noise(2), Encoding(format="frames"))
    assert len(decode(path)) == 2


# ---- what goes together


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"format": "avi"}, "format must be one of mp4, webm, gif, frames, got 'avi'"),
        ({"preset": "warp"}, "preset must be one of ultrafast, .* got 'warp'"),
        ({"quality": 101}, "quality must be a whole number from 0, the worst, to 100, got 101"),
        ({"quality": -1}, "got -1"),
        ({"quality": 2.5}, "got 2.5"),
        ({"quality": True}, "got True"),
        ({"quality": "best"}, "got 'best'"),
        ({"quality": 50, "lossless": True}, "leave one of quality and lossless out"),
        ({"format": "gif", "lossless": True}, "a GIF has 256 colours"),
        ({"format": "frames", "lossless": True}, "leave lossless out"),
        ({"format": "gif", "quality": 50}, "quality is for mp4 and webm"),
        ({"format": "frames", "quality": 50}, "quality is for mp4 and webm"),
        ({"format": "gif", "preset": "fast"}, "preset is for mp4 and webm"),
        ({"format": "frames", "preset": "fast"}, "preset is for mp4 and webm"),
    ],
)
def test_what_no_video_can_have_is_refused_before_any_work(tmp_path: Path, given: dict[str, Any], said: str) -> None:
    """Impossible values and combinations are told in one line, before the run is so much as opened."""
    with pytest.raises(VideoError, match=said) as refused:
        reenact.replay(tmp_path / "no run", **given)
    assert "\n" not in str(refused.value)


# ---- from a run


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    """A run with an episode of CartPole, and its frames as they were drawn live."""
    folder = tmp_path_factory.mktemp("formats") / "pole"
    env = reenact.Recorder(gym.make("CartPole-v1", render_mode="rgb_array", max_episode_steps=12), run=folder)
    env.reset(seed=3)
    frames, over = [env.render()], False
    while not over:
        _, _, terminated, truncated, _ = env.step(1)
        frames.append(env.render())
        over = terminated or truncated
    env.close()
    return folder, np.stack(frames)


@pytest.mark.parametrize(
    ("given", "name", "exact"),
    [
        ({}, "pole-episode-0.mp4", False),
        ({"lossless": True}, "pole-episode-0-lossless.mp4", True),
        ({"format": "webm", "quality": 80, "preset": "fast"}, "pole-episode-0.webm", False),
        ({"format": "webm", "lossless": True}, "pole-episode-0-lossless.webm", True),
        ({"format": "gif"}, "pole-episode-0.gif", False),
        ({"format": "frames"}, "pole-episode-0.frames", True),
    ],
)
def test_a_replay_in_each_format(
    recorded: tuple[Path, np.ndarray], tmp_path: Path, given: dict[str, Any], name: str, *, exact: bool
) -> None:
    """Each has a name of its own, all frames as live, to the bit where it is lossless, and what it was made from."""
    run, live = recorded
    (result,) = reenact.replay(run, [0], video_folder=tmp_path, **given)
    assert (result.verdict, result.path, result.frames) == ("exact", str(tmp_path / name), len(live))
    shown = decode(tmp_path / name).astype(int)
    assert shown.shape == live.shape
    assert np.abs(shown - live).mean() < (1e-9 if exact else 4)
    said = comment_of(tmp_path / name)
    assert isinstance(said, dict)
    assert (said["verdict"], said["frames"], said["seed"]) == ("exact", len(live), 3)


def test_formats_stand_side_by_side(recorded: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    """No format takes another's name: all of them can be made of one episode."""
    for options in ({}, {"lossless": True}, {"format": "webm"}, {"format": "gif"}, {"format": "frames"}):
        (result,) = reenact.replay(recorded[0], [0], video_folder=tmp_path, **options)
        assert result.ok, result.error
        assert not result.reused


def test_a_rate_that_a_gif_cannot_have_is_told(recorded: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    """One line says which rate the GIF has instead; a rate that it can have is not talked of."""
    with pytest.warns(UserWarning, match=r"a GIF can't have 30 frames a second: it has 33\.33$"):
        reenact.replay(recorded[0], [0], video_folder=tmp_path, format="gif", fps=30)
    assert set(durations_cs(tmp_path / "pole-episode-0-fps30.gif")) == {3}
    reenact.replay(recorded[0], [0], video_folder=tmp_path / "b", format="gif", fps=25)


def test_the_command_takes_the_same_options(recorded: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    """--format, --quality, --preset and --lossless reach the encoder; what doesn't go together is one line."""

    def command(*arguments: str) -> subprocess.CompletedProcess[str]:
        call = "from reenact.cli import replay_main; replay_main()"
        full = [sys.executable, "-c", call, str(recorded[0]), "--episodes", "0", "--video-folder", str(tmp_path)]
        return subprocess.run([*full, *arguments], capture_output=True, text=True, check=False)

    assert command("--format", "webm", "--quality", "90", "--preset", "ultrafast").returncode == 0
    assert command("--lossless").returncode == 0
    assert {"pole-episode-0.webm", "pole-episode-0-lossless.mp4"} <= set(files(tmp_path))
    refused = command("--format", "gif", "--quality", "5")
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert "Error: quality is for mp4 and webm: leave it out with format gif" in refused.stderr
