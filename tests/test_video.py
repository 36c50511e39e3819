"""Videos, checked from outside: ffmpeg decodes what was written, and the atoms are read from the bytes."""

import contextlib
import dataclasses
import errno
import fcntl
import multiprocessing
import os
import pickle
import re
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from moviepy.video.io.ffmpeg_writer import FFMPEG_VideoWriter

from decoding import FFMPEG, LOSSLESS, comment_of, decode, ffmpeg, files, noise, number_of, numbered, stream_line, write
from reenact import feed as feed_room
from reenact import ffmpeg as ffmpeg_room
from reenact import partials, video
from reenact.encoding import Encoding
from reenact.errors import VideoError, VideoExistsError
from reenact.feed import Feed
from reenact.video import VideoWriter, check_frame

HARD_TEXT = "quotes \" ' unicode é 漢 🎥 lines\n\r\n = ; # \\ \\n [STREAM] \x00\x1f\u2028 " + "x=;#\\" * 4000


def encoder(writer: VideoWriter) -> subprocess.Popen[bytes]:
    """The ffmpeg behind a writer."""
    process = writer._proc  # noqa: SLF001 - only a test wants to kill it
    assert process
    return process


def atoms(path: Path) -> list[str]:
    """The names of an mp4's outermost parts, in their order."""
    data, names, at = path.read_bytes(), [], 0
    while at < len(data):
        names.append(data[at + 4 : at + 8].decode("ascii"))
        at += int.from_bytes(data[at : at + 4], "big")
    return names


# What is in the file


@pytest.mark.parametrize("fps", [30, 50, 29.97])
def test_a_thousand_frames_are_there_once_each_in_order(tmp_path: Path, fps: float) -> None:
    """Of 1000 numbered frames, the lossy mp4 shows each exactly once, in order."""
    path = write(tmp_path / "a.mp4", map(numbered, range(1000)), Encoding(fps=fps))
    assert [number_of(frame) for frame in decode(path)] == list(range(1000))


@pytest.mark.parametrize("size", [(32, 48), (33, 47), (1, 1), (2, 300)])
def test_lossless_is_equal_to_the_bit(tmp_path: Path, size: tuple[int, int]) -> None:
    """A lossless video decodes to the very pixels that were written, odd sizes included."""
    frames = noise(7, *size)
    assert np.array_equal(decode(write(tmp_path / "a.mp4", frames)), frames)


def test_a_view_is_written_as_it_looks(tmp_path: Path) -> None:
    """A flipped, non-contiguous frame is stored flipped."""
    frames = noise(3)
    path = write(tmp_path / "a.mp4", [frame[::-1, ::-1] for frame in frames])
    assert np.array_equal(decode(path), frames[:, ::-1, ::-1])


@pytest.mark.parametrize("encoding", [Encoding(quality=100), Encoding(format="webm", quality=100)])
def test_colours_are_those_of_the_frames(tmp_path: Path, encoding: Encoding) -> None:
    """Patches of any colour are shown within 3 of 255."""
    colours = np.random.default_rng(1).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    frame = colours.repeat(16, 0).repeat(16, 1)
    shown = decode(write(tmp_path / f"a{encoding.ending}", [frame] * 3, encoding))
    middles = shown[:, 8::16, 8::16].astype(int)
    assert abs(middles - colours).max() <= 3


@pytest.mark.parametrize("size", [(32, 48), (33, 47), (32, 47), (1, 1)])
def test_the_default_plays_in_browsers(tmp_path: Path, size: tuple[int, int]) -> None:
    """A lossy video is H.264 in yuv420p with even sides, padded at the right and the bottom."""
    height, width = size
    line, (found_width, found_height) = stream_line(write(tmp_path / "a.mp4", noise(3, *size), Encoding()))
    assert "h264" in line
    assert "yuv420p(tv, bt470bg" in line
    assert (found_width, found_height) == (max(4, width + width % 2), max(4, height + height % 2))


def test_padding_moves_no_pixel(tmp_path: Path) -> None:
    """The picture of an odd-sized video starts at the top left, and the padding is black."""
    frame = np.full((33, 47, 3), 255, np.uint8)
    frame[0, 0] = 0
    shown = decode(write(tmp_path / "a.mp4", [frame] * 3, Encoding()))[1]
    assert shown[8:32, 8:46].min() > 200
    assert shown[33, 8:46].max() < 55


def test_the_index_comes_first(tmp_path: Path) -> None:
    """The index (moov) stands before the frames (mdat), so that a browser plays the video while it loads."""
    found = atoms(write(tmp_path / "a.mp4", noise(3)))
    assert found.index("moov") < found.index("mdat")


@pytest.mark.parametrize("fps", [0.01, 0.5, 29.97, 30, 1000.0])
def test_the_frame_rate_is_the_one_asked_for(tmp_path: Path, fps: float) -> None:
    """Every accepted rate gives a video of that rate, with every frame."""
    path = write(tmp_path / "a.mp4", noise(5), dataclasses.replace(LOSSLESS, fps=fps))
    duration = re.search(r"Duration: (\d+):(\d+):([\d.]+)", ffmpeg("-i", path).stderr.decode())
    assert duration
    assert int(duration[1]) * 3600 + int(duration[2]) * 60 + float(duration[3]) == pytest.approx(5 / fps, abs=0.011)
    assert len(decode(path)) == 5


DRAWING = """
import resource, sys
from pathlib import Path
import numpy as np
from reenact.encoding import Encoding
from reenact.video import VideoWriter

with VideoWriter(Path(sys.argv[1]), Encoding()) as writer:
    for at in range(220):
        if at == 20:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        screen = np.full((400, 600, 4), at, np.uint8)
        copies = [screen[:, :, :3].copy() for _ in range(2)]
        writer.write(copies[1])
        del screen, copies
    print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / 200)
"""


@pytest.mark.parametrize("size", [(1, 64), (64, 1), (2, 64), (64, 2)])
def test_the_narrowest_frames_keep_their_colour(tmp_path: Path, size: tuple[int, int]) -> None:
    """A video of one or two rows or columns is no grey one."""
    frame = np.full((*size, 3), (255, 40, 34), np.uint8)
    frame[-1, -1] = 0  # of one colour, it would be refused
    shown = decode(write(tmp_path / "a.mp4", [frame] * 3, Encoding(quality=100)))[1][0, 0].astype(int)
    assert shown[0] > shown[1:].max() + 60


def test_frames_are_drawn_into_memory_that_is_there(tmp_path: Path) -> None:
    """What an env and the writer free with each frame is not given back to the system, to be asked for at the next."""
    done = subprocess.run([sys.executable, "-c", DRAWING, tmp_path], capture_output=True, check=True, text=True)
    assert float(done.stdout) < 20  # pages a frame; all that is freed has 550


# Title and comment


def test_the_comment_round_trips(tmp_path: Path) -> None:
    """Any JSON, 20 kB of separators, line breaks, quotes and unicode included, comes back as it was."""
    comment = {HARD_TEXT: [HARD_TEXT, 1, -0.5, None, True, {"nested": {}}], "": 2**80}
    path = write(tmp_path / "a.mp4", noise(1), comment=comment)
    assert comment_of(path) == comment


def test_title_and_comment_are_ordinary_metadata(tmp_path: Path) -> None:
    """The title and the JSON are what ffmpeg itself shows."""
    path = write(tmp_path / "a.mp4", noise(1), title="CartPole é = 1; #2", comment={"verdict": "exact"})
    shown = ffmpeg("-i", path, "-f", "ffmetadata", "-").stdout.decode()
    assert "title=CartPole é \\= 1\\; \\#2\n" in shown
    assert re.search(r'^comment=\{"verdict": "exact"\} *$', shown, re.MULTILINE)


def test_a_title_that_changes_at_the_end_is_the_last_one(tmp_path: Path) -> None:
    """A video that is finished under another title than it began with has that, and the comment beside it."""
    path = tmp_path / "a.mp4"
    with VideoWriter(tmp_path, LOSSLESS, "exact") as writer:
        writer.write(noise(1)[0])
        writer.finish(path, title="diverged", comment={"verdict": "diverged"}, overwrite=False)
    shown = ffmpeg("-i", path, "-f", "ffmetadata", "-").stdout.decode()
    assert "title=diverged\n" in shown
    assert comment_of(path) == {"verdict": "diverged"}
    assert b"exact" not in path.read_bytes()


@pytest.mark.parametrize("title", ['x\ncomment={"verdict": "exact"}', "[STREAM]\n[STREAM]", "\\"])
def test_a_title_cannot_pose_as_the_comment(tmp_path: Path, title: str) -> None:
    """Line breaks and brackets in the title don't change what is read as the comment."""
    path = write(tmp_path / "a.mp4", noise(1), title=title, comment={"verdict": "diverged"})
    assert comment_of(path) == {"verdict": "diverged"}


def test_a_comment_that_is_no_json_leaves_no_file(tmp_path: Path) -> None:
    """A comment that JSON can't express is a TypeError, and nothing stays."""
    with pytest.raises(TypeError):
        write(tmp_path / "a.mp4", noise(1), comment={"a": object()})
    assert files(tmp_path) == []


def test_a_title_that_no_command_line_can_hold_is_refused(tmp_path: Path) -> None:
    """A NUL in the title is a VideoError, not a traceback from subprocess."""
    with pytest.raises(VideoError, match="null byte"):
        write(tmp_path / "a.mp4", noise(1), title="\0")
    assert files(tmp_path) == []


@pytest.mark.parametrize("name", ["-y.mp4", "a:b.mp4", "http:x.mp4", "100%d é'.mp4", "no suffix"])
def test_any_name_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Names that ffmpeg could take for options, protocols or patterns are plain files."""
    path = write(tmp_path / "new" / "folder" / name, noise(2), comment={"a": 1})
    monkeypatch.chdir(path.parent)
    assert files(path.parent) == [name]
    assert (comment_of(path.parent / name), len(decode(path.parent / name))) == ({"a": 1}, 2)


def test_paths_may_be_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative folder is fixed when the writer opens: an env that changes the directory changes nothing."""
    monkeypatch.chdir(tmp_path)
    with VideoWriter(Path("videos"), LOSSLESS) as writer:
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        writer.write(noise(1)[0])
        writer.finish(Path("-a.mp4"), title="", comment={}, overwrite=False)
    assert files(tmp_path / "videos") == []
    assert len(decode(Path("./-a.mp4").absolute())) == 1


# Frames that are refused

GOOD = np.zeros((32, 48, 3), np.uint8)


@pytest.mark.parametrize(
    ("frame", "found"),
    [
        (None, "NoneType"),
        (GOOD.tolist(), "a list"),
        (GOOD.astype(np.float32), "float32"),
        (GOOD.astype(np.int8), "int8"),
        (GOOD[:, :, 0], r"shape \(32, 48\)"),
        (GOOD[:, :, :1], r"shape \(32, 48, 1\)"),
        (np.zeros((32, 48, 4), np.uint8), r"shape \(32, 48, 4\)"),
        (GOOD.transpose(2, 0, 1), r"shape \(3, 32, 48\)"),
        (GOOD[:0], r"shape \(0, 48, 3\)"),
        (GOOD[:, :0], r"shape \(32, 0, 3\)"),
        (GOOD[None], r"shape \(1, 32, 48, 3\)"),
    ],
)
def test_what_is_no_frame_is_refused(tmp_path: Path, frame: Any, found: str) -> None:
    """Anything but uint8 of shape (height, width, 3) is refused in one line that says what was found."""
    with VideoWriter(tmp_path, LOSSLESS) as writer, pytest.raises(VideoError, match=found) as refused:
        writer.write(frame)
    assert "\n" not in str(refused.value)
    with pytest.raises(VideoError, match=found):
        check_frame(frame)


@pytest.mark.parametrize("size", [(48, 32), (32, 50), (30, 48), (16, 96)])
def test_another_size_is_refused(tmp_path: Path, size: tuple[int, int]) -> None:
    """A frame of another size, even with as many pixels, is refused, and the writer goes on without it."""
    frames = noise(2)
    with VideoWriter(tmp_path, LOSSLESS) as writer:
        writer.write(frames[0])
        with pytest.raises(VideoError, match=f"frame 1 is {size[1]}x{size[0]}, expected 48x32"):
            writer.write(np.zeros((*size, 3), np.uint8))
        writer.write(frames[1])
        writer.finish(tmp_path / "a.mp4", title="", comment={}, overwrite=False)
    assert np.array_equal(decode(tmp_path / "a.mp4"), frames)


def test_no_frames_are_no_video(tmp_path: Path) -> None:
    """A video without a frame is refused and leaves no file."""
    with pytest.raises(VideoError, match="no frame"):
        write(tmp_path / "a.mp4", [])
    assert files(tmp_path) == []


def test_a_video_in_one_colour_is_refused(tmp_path: Path) -> None:
    """Frames that all have one and the same colour mean that nothing was drawn."""
    with pytest.raises(VideoError, match=r"nothing was drawn: .* all 5 frames is \(7, 8, 9\).*SDL_VIDEODRIVER"):
        write(tmp_path / "a.mp4", [np.full((32, 48, 3), (7, 8, 9), np.uint8)] * 5)
    assert files(tmp_path) == []


def test_colours_that_change_are_a_picture(tmp_path: Path) -> None:
    """Single-coloured frames of two colours, or a single differing pixel at the end, are a video."""
    dark, light, dot = GOOD, np.full_like(GOOD, 255), GOOD.copy()
    dot[-1, -1, -1] = 1
    assert len(decode(write(tmp_path / "a.mp4", [dark, light]))) == 2
    assert len(decode(write(tmp_path / "b.mp4", [dark, dark, dot]))) == 3


# ffmpeg going wrong


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("more", [0, 200])
def test_a_killed_ffmpeg_is_an_error(tmp_path: Path, number: signal.Signals, more: int) -> None:
    """A kill noticed while writing, or only at the end, is a VideoError; no file and no process stays."""
    with VideoWriter(tmp_path, Encoding()) as writer:
        for frame in noise(20, 240, 320):
            writer.write(frame)
        proc = encoder(writer)
        proc.send_signal(number)
        if more and number == signal.SIGKILL:  # at SIGTERM ffmpeg still waits for its pipe
            proc.wait()

        def go_on() -> None:
            for _ in range(more):
                writer.write(noise(1, 240, 320)[0])
            writer.finish(tmp_path / "a.mp4", title="", comment={}, overwrite=False)

        with pytest.raises(VideoError, match=r"ffmpeg (was killed by signal 9|ended with exit code 255)") as failed:
            go_on()
    assert "\n" not in str(failed.value)
    assert proc.returncode is not None
    assert files(tmp_path) == []


def test_an_ffmpeg_that_hangs_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An ffmpeg that never ends is killed after a limit, and is a VideoError."""
    monkeypatch.setattr(video, "_CLOSE_TIMEOUT_S", 0.05)
    with VideoWriter(tmp_path, LOSSLESS) as writer:
        writer.write(noise(1)[0])
        process = encoder(writer)
        process.send_signal(signal.SIGSTOP)
        with pytest.raises(VideoError, match="had not finished"):
            writer.finish(tmp_path / "a.mp4", title="", comment={}, overwrite=False)
    assert process.returncode == -signal.SIGKILL
    assert files(tmp_path) == []


def test_the_error_gives_ffmpegs_own_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What makes ffmpeg fail is a VideoError with what it said of it."""
    monkeypatch.setattr(Encoding, "codec", lambda *_, **__: ("h264", "nosuch", []))
    with pytest.raises(VideoError, match=r"exit code \d+.*\(it says: .*preset.*nosuch"):
        write(tmp_path / "a.mp4", noise(100, 240, 320), Encoding())
    assert files(tmp_path) == []


def test_a_full_disk_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An ffmpeg that finds no space left, at once or at the very end, gives a VideoError and no file."""

    def on_a_full_disk(folder: Path, ending: str, **_: Any) -> Path:
        partial = folder / f"partial{ending}"
        partial.symlink_to("/dev/full")
        return partial

    monkeypatch.setattr(partials, "make", on_a_full_disk)
    for frames in (noise(1), noise(200, 240, 320)):
        with pytest.raises(VideoError, match="No space left on device"):
            write(tmp_path / "a.mp4", frames)
        assert files(tmp_path) == []


def test_frames_that_got_lost_are_an_error(tmp_path: Path) -> None:
    """If the file doesn't hold as many frames as were written, it is not kept."""
    with VideoWriter(tmp_path, LOSSLESS) as writer:
        writer.write(noise(1)[0])
        writer.frames += 1
        with pytest.raises(VideoError, match="stored 1 frames, expected 2"):
            writer.finish(tmp_path / "a.mp4", title="", comment={}, overwrite=False)
    assert files(tmp_path) == []


def test_an_ffmpeg_that_cannot_be_started_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing ffmpeg is a VideoError naming the path, wherever it is needed."""
    with monkeypatch.context() as patched:
        patched.setattr("moviepy.video.io.ffmpeg_writer.FFMPEG_BINARY", "/nowhere/ffmpeg")
        with pytest.raises(VideoError, match="cannot start ffmpeg"):
            write(tmp_path / "a.mp4", noise(1))
    monkeypatch.setattr(ffmpeg_room, "moviepy", lambda: (FFMPEG_VideoWriter, "/nowhere/ffmpeg"))
    with pytest.raises(VideoError, match="/nowhere/ffmpeg"):
        write(tmp_path / "a.webm", noise(1), Encoding(format="webm"))
    assert files(tmp_path) == []


def test_an_error_elsewhere_leaves_nothing(tmp_path: Path) -> None:
    """An exception in the with block stops ffmpeg and removes the partial file; abandon may be repeated."""
    with contextlib.suppress(ZeroDivisionError), VideoWriter(tmp_path, Encoding()) as writer:
        for frame in noise(50):
            writer.write(frame)
        assert re.fullmatch(rf"\.\w+\.\w+-{os.getpid()}-\d+\.partial\.mp4", files(tmp_path)[0])
        proc = encoder(writer)
        raise ZeroDivisionError
    assert proc.returncode == -signal.SIGKILL
    assert files(tmp_path) == []
    writer.abandon()


def test_an_interrupted_write_ends_the_video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After Ctrl-C within a frame no further frame is taken: it would be shifted."""
    with VideoWriter(tmp_path, LOSSLESS) as writer:
        writer.write(noise(1)[0])

        def interrupt(*_: Any) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(Feed, "put", interrupt)
        with pytest.raises(KeyboardInterrupt):
            writer.write(noise(1)[0])
        with pytest.raises(VideoError, match="finished or abandoned"):
            writer.write(noise(1)[0])


def test_a_closed_writer_takes_nothing(tmp_path: Path) -> None:
    """After finish, write and finish are refused, and abandon leaves the video alone."""
    with VideoWriter(tmp_path, LOSSLESS) as writer:
        writer.write(noise(1)[0])
        writer.finish(tmp_path / "a.mp4", title="", comment={}, overwrite=False)
        with pytest.raises(VideoError, match="finished or abandoned"):
            writer.write(noise(1)[0])
        with pytest.raises(VideoError, match="finished or abandoned"):
            writer.finish(tmp_path / "b.mp4", title="", comment={}, overwrite=False)
    assert files(tmp_path) == ["a.mp4"]


def _touch_writer_and_wait(writer: VideoWriter, folder: Path, ready: Any, done: Any) -> None:
    before, refused = files(folder), False
    try:
        writer.write(noise(1)[0])
    except VideoError:
        refused = True
    writer.abandon()
    untouched = files(folder) == before
    ready.set()
    done.wait(30)
    assert refused
    assert untouched


@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
def test_a_forked_child_cannot_touch_the_video(tmp_path: Path) -> None:
    """A child forked mid-way neither writes to its parent's ffmpeg, nor stops it, nor holds its pipe open."""
    context = multiprocessing.get_context("fork")
    ready, done = context.Event(), context.Event()
    frames = noise(5)
    with VideoWriter(tmp_path, LOSSLESS) as writer:
        writer.write(frames[0])
        child = context.Process(target=_touch_writer_and_wait, args=(writer, tmp_path, ready, done))
        child.start()
        assert ready.wait(30)
        for frame in frames[1:]:
            writer.write(frame)
        writer.finish(tmp_path / "a.mp4", title="", comment={}, overwrite=False)
        assert child.is_alive(), "the pipe's end came only with the child's"
        done.set()
        child.join()
    assert child.exitcode == 0
    assert np.array_equal(decode(tmp_path / "a.mp4"), frames)


# Names and folders


def test_an_existing_target_is_untouched(tmp_path: Path) -> None:
    """Without overwrite an existing file stays as it is; the error is a FileExistsError too."""
    path = tmp_path / "a.mp4"
    path.write_bytes(b"precious")
    with pytest.raises(VideoExistsError, match=r"a\.mp4 exists") as refused:
        write(path, noise(1))
    assert isinstance(refused.value, FileExistsError)
    assert path.read_bytes() == b"precious"
    assert files(tmp_path) == ["a.mp4"]


def test_overwrite_replaces(tmp_path: Path) -> None:
    """With overwrite the new video takes the old one's place."""
    path = write(tmp_path / "a.mp4", noise(1))
    write(path, noise(2), overwrite=True)
    assert len(decode(path)) == 2
    assert files(tmp_path) == ["a.mp4"]


@pytest.mark.parametrize("exists", [False, True])
def test_without_hard_links_nothing_is_replaced_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exists: bool
) -> None:
    """On a file system without hard links a new name works and an existing one is still refused."""

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    path = tmp_path / "a.mp4"
    if exists:
        path.write_bytes(b"precious")
        with pytest.raises(VideoExistsError):
            write(path, noise(1))
        assert path.read_bytes() == b"precious"
    else:
        assert len(decode(write(path, noise(1)))) == 1
    assert files(tmp_path) == ["a.mp4"]


def test_a_folder_in_the_targets_place_is_an_error(tmp_path: Path) -> None:
    """A video can't replace a folder, which stays."""
    (tmp_path / "a.mp4").mkdir()
    with pytest.raises(VideoError, match="cannot name the video"):
        write(tmp_path / "a.mp4", noise(1), overwrite=True)
    assert files(tmp_path) == ["a.mp4"]


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    """A folder below a file is refused when the writer opens, in one line that names it."""
    (tmp_path / "file").touch()
    with pytest.raises(VideoError, match=r"cannot write videos into .*/file/videos \(Not a directory\)"):
        VideoWriter(tmp_path / "file" / "videos", LOSSLESS)


def test_the_folder_of_the_final_name_may_be_another(tmp_path: Path) -> None:
    """The video may get its name in a folder other than the one it grew in."""
    with VideoWriter(tmp_path / "a", LOSSLESS) as writer:
        writer.write(noise(1)[0])
        writer.finish(tmp_path / "b" / "x.mp4", title="", comment={}, overwrite=False)
    assert (files(tmp_path / "a"), files(tmp_path / "b")) == ([], ["x.mp4"])


# Encoding, import, platform


@pytest.mark.parametrize("fps", [0, 0.001, 0.0099, -30, float("nan"), float("inf"), None, "30", 1j])
def test_an_impossible_frame_rate_is_refused(fps: Any) -> None:
    """A rate that is no number from 0.01 to 1000 is a VideoError."""
    with pytest.raises(VideoError, match=r"number from 0\.01 to 1000"):
        Encoding(fps=fps)


def test_the_frame_rate_is_rounded_to_hundredths() -> None:
    """The encoding holds the rate that ffmpeg is given, as a Python float, and survives pickling."""
    encoding = Encoding(fps=np.float32(30000 / 1001))  # type: ignore[arg-type]
    assert encoding.fps == 29.97
    assert type(encoding.fps) is float
    assert pickle.loads(pickle.dumps(encoding)) == encoding  # noqa: S301 - our own bytes


def in_python(program: str, folder: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """Runs a program in a new interpreter, in a folder, with FFMPEG_BINARY only as given."""
    # "-c", for a main module without a file makes dotenv search the working directory.
    command = [sys.executable, "-c", textwrap.dedent(program)]
    source = str(Path(video.__file__).parents[1])
    environ = {name: value for name, value in os.environ.items() if name != "FFMPEG_BINARY"} | environ
    environ["PYTHONPATH"] = source
    return subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, check=True)


REPORT = """
    import os, sys
    from pathlib import Path
    before = dict(os.environ)
    import reenact.video
    assert not {"moviepy", "PIL", "dotenv"} & set(sys.modules)
    try:
        print(reenact.ffmpeg.output("-version")[:14], reenact.ffmpeg.moviepy()[1])
    except reenact.errors.VideoError as error:
        print(error)
    assert os.environ == before, set(os.environ) ^ set(before)
    import dotenv
    assert dotenv.load_dotenv
"""


def test_a_dotenv_file_chooses_no_ffmpeg(tmp_path: Path) -> None:
    """A .env that MoviePy alone would obey changes neither ffmpeg nor os.environ."""
    program = tmp_path / "evil"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    program.chmod(0o755)
    (tmp_path / ".env").write_text(f"FFMPEG_BINARY={program}\n")
    assert in_python(REPORT, tmp_path).stdout == f"ffmpeg version {FFMPEG}\n"
    assert not (tmp_path / "ran").exists()
    in_python("import moviepy", tmp_path)
    assert (tmp_path / "ran").exists(), "the trap must work, or this test proves nothing"


def test_ffmpeg_binary_is_the_users_choice(tmp_path: Path) -> None:
    """A variable that the user set is obeyed; one that names nothing is a VideoError."""
    (tmp_path / "mine").symlink_to(FFMPEG)
    assert (
        in_python(REPORT, tmp_path, FFMPEG_BINARY=str(tmp_path / "mine")).stdout == f"ffmpeg version {tmp_path}/mine\n"
    )
    assert "MoviePy found no ffmpeg" in in_python(REPORT, tmp_path, FFMPEG_BINARY="/nowhere/ffmpeg").stdout


KILLED = """
    import subprocess
    tried, call = [], subprocess.check_call
    def killed(command, **options):
        tried.append(command)
        if len(tried) == 1:
            raise subprocess.CalledProcessError(-9, command)
        return call(["false"] if command[0] == "ffmpeg" else command, **options)
    subprocess.check_call = killed
    import reenact.ffmpeg
    print(reenact.ffmpeg.moviepy()[1], len(tried))
"""


def test_an_ffmpeg_that_is_killed_when_it_is_tried_is_tried_again(tmp_path: Path) -> None:
    """Memory may be short for a moment: a process that then finds no ffmpeg would make no video any more."""
    assert in_python(KILLED, tmp_path).stdout == f"{FFMPEG} 3\n"  # the system's, then, is no valid one


def test_the_pipe_is_large(tmp_path: Path) -> None:
    """The pipe to ffmpeg holds 1 MiB, so that a frame doesn't block Python."""
    with VideoWriter(tmp_path, LOSSLESS) as writer:
        writer.write(noise(1)[0])
        pipe = encoder(writer).stdin
        assert pipe
        assert fcntl.fcntl(pipe, fcntl.F_GETPIPE_SZ) == 1 << 20


def _over_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_room, "_PIPE_BYTES", 1 << 30)


def _no_constant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(fcntl, "F_SETPIPE_SZ")


def _no_such_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "memfd_create")
    monkeypatch.setattr(feed_room, "_splices", feed_room._splices.__wrapped__)  # noqa: SLF001 - not as asked before


def _another_system(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")


@pytest.mark.parametrize("hide", [_over_the_limit, _no_constant, _no_such_call, _another_system])
def test_without_such_a_pipe_videos_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hide: Callable[[pytest.MonkeyPatch], None]
) -> None:
    """Over the user's limit, in a sandbox without the calls, or on another system, every frame is there to the bit."""
    hide(monkeypatch)
    frames = noise(30, 300, 200)
    assert np.array_equal(decode(write(tmp_path / "a.mp4", frames)), frames)


CORES = """
import os, signal, sys
from pathlib import Path
from decoding import noise
from reenact.video import VideoWriter
from reenact.encoding import Encoding

def cores(writer):
    tasks = Path(f"/proc/{writer._proc.pid}/task").iterdir()
    return {frozenset(os.sched_getaffinity(int(task.name))) for task in tasks}

ours = sorted(os.sched_getaffinity(0))
for allowed in [set(ours), {ours[0]}]:
    os.sched_setaffinity(0, allowed)
    with VideoWriter(Path(sys.argv[1]), Encoding()) as writer:
        for frame in noise(1):
            writer.write(frame)
        (found,) = cores(writer)
        writer._proc.send_signal(signal.SIGSTOP)  # it is behind
        for frame in noise(60):
            writer.write(frame)
        print(found <= allowed, len(allowed) - len(found), cores(writer) == {frozenset(allowed)})
"""


def test_ffmpeg_leaves_a_core_to_the_env_while_it_keeps_up(tmp_path: Path) -> None:
    """All its threads run on all cores that this process may use, but one; once it is behind, on that one, too."""
    command = [sys.executable, "-c", CORES, tmp_path]
    done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, check=True, text=True)
    several = len(os.sched_getaffinity(0)) > 1
    assert done.stdout == f"True {int(several)} True\nTrue 0 True\n"


def test_an_error_of_the_users_own_comes_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a signal handler raises in the middle of a frame is not told as ffmpeg's end."""
    with VideoWriter(tmp_path, LOSSLESS) as writer:
        writer.write(noise(1)[0])

        def late(*_: Any) -> None:
            raise TimeoutError("the user's limit")

        monkeypatch.setattr(Feed, "put", late)
        with pytest.raises(TimeoutError, match="the user's limit"):
            writer.write(noise(1)[0])
    assert files(tmp_path) == []


def test_a_system_that_gives_no_memory_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A frame that can't be handed over, while ffmpeg lives, is one line, and no video."""
    with VideoWriter(tmp_path, LOSSLESS) as writer:
        writer.write(noise(1)[0])

        def refuse(*_: Any, **__: Any) -> int:
            raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

        monkeypatch.setattr(os, "splice", refuse)
        with pytest.raises(VideoError, match=r"^ffmpeg can't be given frame 1 \(Cannot allocate memory\); no video"):
            writer.write(noise(1)[0])
        assert encoder(writer).returncode == -signal.SIGKILL
    assert files(tmp_path) == []


def test_a_start_that_is_interrupted_leaves_no_pipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C between ffmpeg's start and its first frame: ffmpeg ends, and its pipe is closed."""

    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(video, "Feed", interrupt)
    with VideoWriter(tmp_path, LOSSLESS) as writer, pytest.raises(KeyboardInterrupt):
        writer.write(noise(1)[0])
    pipe = encoder(writer).stdin
    assert pipe
    assert pipe.closed


PASSING_ON = """#!{python}
import os, subprocess, sys
ffmpeg = subprocess.Popen([{ffmpeg!r}, *sys.argv[1:]], stdin=subprocess.PIPE)
while os.splice(0, ffmpeg.stdin.fileno(), 1 << 20):
    pass
ffmpeg.stdin.close()
sys.exit(ffmpeg.wait())
"""


def test_an_ffmpeg_that_passes_frames_on_shows_them(tmp_path: Path) -> None:
    """A script in ffmpeg's place, which leaves the pipe's pages unread and gives them to ffmpeg, shows no later frame."""
    script = tmp_path / "slow"
    script.write_text(PASSING_ON.format(python=sys.executable, ffmpeg=FFMPEG), encoding="utf-8")
    script.chmod(0o755)
    code = """
import sys, numpy as np
from decoding import LOSSLESS, decode, noise, write
from pathlib import Path
frames = noise(40, 300, 200)
print(np.array_equal(decode(write(Path(sys.argv[1]), frames)), frames))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "a.mp4"],
        cwd=Path(__file__).parent,
        capture_output=True,
        check=True,
        text=True,
        env={**os.environ, "FFMPEG_BINARY": str(script)},
    )
    assert done.stdout == "True\n"
