"""The manifest of a folder of videos: read as plain JSON, and what it makes of the files beside it."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import reenact
import vector_envs
from reenact import partials, shelf
from reenact.errors import VideoError
from reenact.process import this_process
from test_render import LENGTH, Meter, decode, files, record

SOURCE = Path(reenact.__file__).resolve().parents[1]


def entries(folder: Path) -> list[dict[str, Any]]:
    """The manifest's lines."""
    return [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Two episodes."""
    return record(tmp_path / "run", 2)


def test_each_video_has_a_line(run: Path) -> None:
    """A line names the video, its size, its SHA-256, its verdict, and what it was made from."""
    results = reenact.replay(run, "all")
    for result, entry in zip(results, entries(run / "videos"), strict=True):
        data = Path(str(result.path)).read_bytes()
        assert (entry["name"], entry["size"]) == (Path(str(result.path)).name, len(data))
        assert entry["sha256"] == hashlib.sha256(data).hexdigest()
        assert (entry["verdict"], entry["origin"], entry["frames"]) == ("exact", result.origin, LENGTH + 1)
        assert entry["source"]["run"] == reenact.open_run(run).uuid
        assert entry["source"]["frames"] == [[result.address, 0, LENGTH + 1]]


def test_copies_of_a_run_that_went_on_are_not_taken_for_one_another(tmp_path: Path) -> None:
    """Two copies of a run, both resumed, share UUID and addresses: each video still shows its own copy's episode."""
    record(tmp_path / "one", 1)
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    shown = []
    for name, action in (("one", 0), ("two", 1)):
        run = record(tmp_path / name, 1, actions=lambda _episode, _step, action=action: action)  # type: ignore[misc]
        videos = {"video_folder": tmp_path / "videos", "name_prefix": "x", "lossless": True}
        before, last = reenact.replay(run, "all", **videos)
        assert (before.ok, before.reused, last.ok, last.reused) == (True, name == "two", True, False)
        assert before.address != last.address
        shown.append(decode(last.path))
    assert not np.array_equal(*shown)


@pytest.mark.parametrize("lanes", [False, True])
def test_a_copy_in_another_form_has_the_same_videos(tmp_path: Path, lanes: bool) -> None:
    """A packed and a repaired run, of one env or of lanes, find what was made from the run: nothing is made again."""
    run = tmp_path / "run"
    if lanes:
        recorder = reenact.VectorRecorder(vector_envs.make("sync", vector_envs.NEXT_STEP), run)
        recorder.reset(seed=3)
        for step in range(9):
            recorder.step(np.full(vector_envs.WIDTH, vector_envs.TERMINATE * (step % 4 == 3)))
        recorder.close()
    else:
        record(run, 2)
    films = {"video_folder": tmp_path / "videos", "name_prefix": "x"}
    assert {(one.ok, one.reused) for one in reenact.replay(run, "all", **films)} == {(True, False)}
    for copy in (reenact.pack(run).path, reenact.repair(run, out=tmp_path / "clean").out):
        assert {(one.ok, one.reused) for one in reenact.replay(copy, "all", **films)} == {(True, True)}


def of_blue(blue: int) -> Any:
    """A factory in a function: all that this makes have one name."""

    def make(render_mode: str | None) -> Meter:
        return Painted(blue, render_mode)

    return make


class Painted(Meter):
    """The same episodes in other colours."""

    def __init__(self, blue: int, render_mode: str | None) -> None:
        super().__init__(render_mode)
        self.blue = blue

    def render(self) -> np.ndarray:
        """Draws them so."""
        frame = super().render().copy()
        frame[..., 2] = self.blue
        return frame

    def made(self, render_mode: str | None) -> Meter:
        """Makes another of the same colour."""
        return Painted(self.blue, render_mode)


@pytest.mark.parametrize("how", ["lambda", "in a function", "method", "partial"])
def test_what_no_name_leads_to_is_not_taken_for_its_namesake(run: Path, how: str) -> None:
    """Factories of one name, or of none, are never taken for one another: each video shows what its own env draws."""
    ways = {
        "lambda": lambda blue: lambda render_mode: Painted(blue, render_mode),
        "in a function": of_blue,
        "method": lambda blue: Painted(blue, None).made,
        "partial": lambda blue: functools.partial(Painted, blue),
    }
    for blue in (60, 250):
        (result,) = reenact.replay(run, 0, env=ways[how](blue), lossless=True)
        assert (result.ok, result.reused) == (True, False)
        assert (decode(result.path)[..., 2] == blue).all()


@pytest.mark.parametrize("how", ["file", "module", "function of a module"])
def test_code_that_was_edited_is_other_code(run: Path, tmp_path: Path, how: str) -> None:
    """A factory in one's own file is known by that file's content: as long as it stays so, nothing is made again."""
    factory = tmp_path / f"factory_{how.replace(' ', '_')}.py"
    name = f"{factory}:make" if how == "file" else f"{factory.stem}:make"
    code = (
        "import sys, reenact\n"
        f"env = {name!r} if {how != 'function of a module'} else __import__({factory.stem!r}).make\n"
        "(result,) = reenact.replay(sys.argv[1], 0, env=env, lossless=True)\n"
        "print(result.verdict, result.reused)"
    )
    folders = (str(SOURCE), str(Path(__file__).parent), str(tmp_path))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(folders), "PYTHONDONTWRITEBYTECODE": "1"}
    said = []
    for blue in (60, 60, 250):
        factory.write_text(
            f"import test_shelf\ndef make(render_mode):\n    return test_shelf.Painted({blue}, render_mode)\n"
        )
        command = [sys.executable, "-c", code, run]
        said.append(subprocess.run(command, env=environment, capture_output=True, check=True, text=True).stdout.split())
        assert (decode(run / "videos" / "run-episode-0-lossless.mp4")[..., 2] == blue).all()
    assert said == [["exact", "False"], ["exact", "True"], ["exact", "False"]]


MINE = """
import gymnasium as gym, sys, test_shelf
class Mine(test_shelf.Painted):
    def __init__(self, render_mode=None):
        super().__init__({blue}, render_mode)
gym.register("mine/Mine-v0", {entry_point})
if __name__ == "__main__":
    test_shelf.record(test_shelf.Path(sys.argv[1]), 1, env=gym.make("mine/Mine-v0"))
"""
REPLAY = """
import sys, reenact
(result,) = reenact.replay(sys.argv[1], 0, lossless=True, jobs=int(sys.argv[2]))
print(result.verdict, result.reused)
"""


def in_python(folder: Path, *arguments: object) -> list[str]:
    """Runs Python with what lies in a folder importable, and returns the words that it prints."""
    folders = (str(SOURCE), str(Path(__file__).parent), str(folder))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(folders), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, check=True, text=True).stdout.split()


@pytest.mark.parametrize(("how", "jobs"), [("script", 1), ("module", 2), ("package", 1), ("function", 1)])
def test_an_env_that_was_edited_is_another_env(tmp_path: Path, how: str, jobs: int) -> None:
    """Without any `env=`, an env of one's own is known by its code: edited, the episode is filmed anew, in any process."""
    source = tmp_path / "code" / {"script": "train.py", "package": "my_envs/deep/env.py"}.get(how, "my_env.py")
    source.parent.mkdir(parents=True)
    entry_point = {
        "script": "Mine", "module": "'my_env:Mine'", "package": "'my_envs:Mine'", "function": "lambda **kwargs: Mine(**kwargs)"
    }[how]  # fmt: skip
    source.write_text(MINE.format(blue=60, entry_point=entry_point))
    code, run = tmp_path / "code", tmp_path / "run"
    if how == "script":
        in_python(code, source, run)
    else:
        if how == "package":
            (code / "my_envs" / "__init__.py").write_text("from my_envs.deep.env import Mine\n")
        module = "my_envs" if how == "package" else "my_env"
        record_it = f"import sys, {module}, gymnasium, test_shelf as t; t.record(t.Path(sys.argv[1]), 1, env=gymnasium.make('mine/Mine-v0'))"
        in_python(code, "-c", record_it, run)
    said = []
    for blue in (60, 60, 250):
        source.write_text(MINE.format(blue=blue, entry_point=entry_point))
        said += in_python(tmp_path if how == "script" else code, "-c", REPLAY, run, jobs)
        assert (decode(run / "videos" / "run-episode-0-lossless.mp4")[..., 2] == blue).all()
    assert said == ["exact", "False", "exact", "True", "exact", "False"]


def test_a_process_that_has_loaded_an_env_does_not_pass_it_for_the_edited_one(tmp_path: Path) -> None:
    """A session goes on with the class that it has imported: what it films then is not taken for the new class's."""
    source, run = tmp_path / "my_env.py", tmp_path / "run"
    source.write_text(MINE.format(blue=60, entry_point="'my_env:Mine'"))
    session = (
        "import my_env, sys, gymnasium, reenact, test_shelf as t\n"
        "run, source = t.Path(sys.argv[1]), t.Path(sys.argv[2])\n"
        "t.record(run, 1, env=gymnasium.make('mine/Mine-v0'))\n"
        "print(reenact.replay(run, 0, lossless=True)[0].reused)\n"
        "source.write_text(source.read_text().replace('60', '250'))\n"
        "print(reenact.replay(run, 0, lossless=True)[0].reused)\n"
    )
    video = run / "videos" / "run-episode-0-lossless.mp4"
    assert in_python(tmp_path, "-c", session, run, source) == ["False", "False"]
    assert (decode(video)[..., 2] == 60).all()
    assert in_python(tmp_path, "-c", REPLAY, run, 1) == ["exact", "False"]
    assert (decode(video)[..., 2] == 250).all()


def test_what_is_installed_is_known_by_its_name(tmp_path: Path) -> None:
    """An env of Gymnasium's has nothing of the user's own, and its videos' lines say so."""
    recorder = reenact.Recorder(gym.make("CartPole-v1", max_episode_steps=3), run=tmp_path / "run")
    recorder.reset(seed=1)
    recorder.step(0)
    recorder.close()
    (result,) = reenact.replay(tmp_path / "run")
    assert result.ok
    assert entries(tmp_path / "run" / "videos")[0]["source"]["env"] is None


@pytest.mark.parametrize("how", ["another file", "no file", "no line", "cut line", "forged line", "no key"])
def test_what_the_manifest_does_not_prove_is_not_there(run: Path, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A changed file, one without a line of one's own, or a line without its file is never taken for the video."""
    (first,) = reenact.replay(run, 0)
    video, manifest = Path(str(first.path)), run / "videos" / "manifest.jsonl"
    line = manifest.read_text()
    if how == "another file":
        video.write_bytes(b"x" * len(video.read_bytes()))
    elif how == "no file":
        video.unlink()
    elif how == "no key":
        monkeypatch.setenv("XDG_STATE_HOME", str(run / "another user's"))
    else:
        video.write_bytes(b"holiday")
        forged = json.loads(line) | {"sha256": hashlib.sha256(b"holiday").hexdigest(), "size": 7}
        manifest.write_text({"no line": "", "cut line": line[:-9], "forged line": json.dumps(forged) + "\n"}[how])
    (again,) = reenact.replay(run, 0)
    assert not again.reused
    assert again.ok == (how == "no file")
    if how != "no file":
        assert "--overwrite" in str(again.error)
        assert ("no longer the video that you made" in str(again.error)) == (how == "another file")


def test_a_kill_before_the_name_leaves_a_line_that_proves_nothing(run: Path) -> None:
    """Killed between its line and its name, a video is not there, and is made the next time; its partial file goes."""
    code = (
        "import os, signal, sys, test_render, reenact, reenact.video\n"
        "reenact.video._place = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)\n"
        "reenact.replay(sys.argv[1], 'all')\n"
    )
    path = os.pathsep.join((str(SOURCE), str(Path(__file__).parent)))
    ended = subprocess.run([sys.executable, "-c", code, run], env={**os.environ, "PYTHONPATH": path}, check=False)
    assert ended.returncode == -9
    assert [entry["name"] for entry in entries(run / "videos")] == ["run-episode-0.mp4"]
    assert [name for name in files(run / "videos") if not name.startswith(".")] == []
    assert files(run / "videos"), "nothing was begun"
    assert [(result.ok, result.reused) for result in reenact.replay(run, "all")] == [(True, False)] * 2
    assert files(run / "videos") == ["run-episode-0.mp4", "run-episode-1.mp4"]


def test_a_line_that_was_cut_short_spoils_no_other(run: Path) -> None:
    """After half a line, as a full disk leaves it, the next one stands in a line of its own."""
    reenact.replay(run, 0)
    with (run / "videos" / "manifest.jsonl").open("a") as manifest:
        manifest.write('{"name": "run-epi')
    reenact.replay(run, 1)
    assert all(result.reused for result in reenact.replay(run, "all"))


def test_a_manifest_that_can_not_be_written_leaves_no_video(run: Path) -> None:
    """Where the line can't be written, the video does not get its name, and the result says why."""
    (run / "videos" / "manifest.jsonl").mkdir(parents=True)
    (result,) = reenact.replay(run, 0)
    assert (result.path, result.ok) == (None, False)
    assert "manifest" in str(result.error)
    assert files(run / "videos") == []


def test_a_folder_of_pictures_is_one_video(tmp_path: Path) -> None:
    """A video that is a folder is known by all its pictures: one byte or one name makes another."""
    (tmp_path / "clip").mkdir()
    for number in range(3):
        (tmp_path / "clip" / f"{number}.png").write_bytes(bytes([number]) * 5)
    source: dict[str, object] = {"run": "a"}
    found = shelf.Shelf(tmp_path)
    found.enter(tmp_path / "clip", tmp_path / "clip", {"source": source, "verdict": "exact"})
    assert found.find(tmp_path / "clip", source, "exact") is not None
    assert found.find(tmp_path / "clip", {"run": "b"}, "exact") is None
    assert found.may_take(tmp_path / "clip", source)
    assert not found.may_take(tmp_path / "clip", {"run": "b"})
    (tmp_path / "clip" / "2.png").rename(tmp_path / "clip" / "3.png")
    assert found.find(tmp_path / "clip", source, "exact") is None


def test_a_video_is_read_once_as_long_as_it_stays_as_it_is(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is asked of a video that is there, a process reads it once; one that was written to, once more."""
    (first,) = reenact.replay(run, 0)
    video, read = Path(str(first.path)), []
    digest = hashlib.file_digest

    def noted(file: Any, kind: str) -> Any:
        read.append(Path(file.name).name)
        return digest(file, kind)

    monkeypatch.setattr(hashlib, "file_digest", noted)
    assert reenact.replay(run, 0)[0].reused
    reenact.replay(run, 0, dry_run=True)
    assert reenact.replay(run, 0, quality=90)[0].ok
    assert [name for name in read if name == video.name] == [video.name]
    content = video.read_bytes()
    video.write_bytes(content[:-1] + b"x")
    assert not reenact.replay(run, 0, quality=90)[0].ok
    assert [name for name in read if name == video.name] == [video.name] * 2


def test_a_pipe_in_a_video_s_place_is_not_read(run: Path) -> None:
    """A FIFO of a video's name is no video of one's own, and nothing waits for what it may have to say."""
    (first,) = reenact.replay(run, 0)
    Path(str(first.path)).unlink()
    os.mkfifo(str(first.path))
    code = "import sys, reenact\n(result,) = reenact.replay(sys.argv[1], 0)\nprint(result.path, result.error)"
    path = os.pathsep.join((str(SOURCE), str(Path(__file__).parent)))
    said = subprocess.run(
        [sys.executable, "-c", f"import test_render\n{code}", run],
        env={**os.environ, "PYTHONPATH": path}, capture_output=True, check=True, text=True, timeout=60,
    ).stdout  # fmt: skip
    assert said.startswith("None ")
    assert "--overwrite" in said


def test_a_key_that_can_not_be_kept_is_said_when_videos_are_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line says that the videos will be a stranger's for the next process, and it is so; verifying says nothing."""
    (tmp_path / "a file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "a file"))
    run = record(tmp_path / "run", 2)
    assert reenact.verify(run, 0)[0].ok
    with pytest.warns(UserWarning, match="XDG_STATE_HOME") as told:
        assert [one.ok for one in reenact.replay(run, "all")] == [True, True]
    assert len(told) == 1
    assert "\n" not in str(told[0].message)
    assert str(tmp_path / "a file") in str(told[0].message)
    path = os.pathsep.join((str(SOURCE), str(Path(__file__).parent)))
    code = (
        "import sys, test_render, reenact\nprint([one.error for one in reenact.replay(sys.argv[1], 'all', trust=True)])"
    )
    command = [sys.executable, "-W", "ignore", "-c", code, run]
    environment = {**os.environ, "PYTHONPATH": path}
    said = subprocess.run(command, env=environment, capture_output=True, check=True, text=True).stdout
    assert said.count("--overwrite") == 2


def test_a_full_disk_is_a_video_error(tmp_path: Path) -> None:
    """What the disk does not take is told as an error of the video."""
    (tmp_path / "manifest.jsonl").symlink_to("/dev/full")
    (tmp_path / "video").write_bytes(b"1")
    with pytest.raises(VideoError, match="disk"):
        shelf.Shelf(tmp_path).enter(tmp_path / "video", tmp_path / "video", {"source": {"run": ""}, "verdict": "exact"})


# ---- what dead processes were making


def test_only_what_the_dead_were_making_is_swept(tmp_path: Path) -> None:
    """Partial files of dead processes of this machine go; those of living ones, and files of other names, stay."""
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    mine = partials.new_name(".mp4")
    pid, started = f"-{os.getpid()}-", f"-{this_process().started}."
    theirs = partials.new_name(".mp4").replace(pid, f"-{int(dead.stdout)}-")
    before = partials.new_name("").replace(started, "-1.")  # another process that had the same pid
    (tmp_path / before).mkdir()
    (tmp_path / before / "0.png").touch()
    for name in (mine, theirs, "run-episode-0.mp4", ".hidden.partial.mp4"):
        (tmp_path / name).touch()
    partials.sweep(tmp_path)
    assert files(tmp_path) == sorted([mine, "run-episode-0.mp4", ".hidden.partial.mp4"])


def test_another_machine_s_are_swept_after_a_day(tmp_path: Path) -> None:
    """Of a process elsewhere only the time of its last write can tell: a day without one, and it goes."""
    name = partials.new_name(".mp4")
    place = name.split(".")[2].partition("-")[0]
    recent, old = (tmp_path / name.replace(place, tag) for tag in ("0" * 8, "1" * 8))
    for path in (recent, old):
        path.touch()
    os.utime(old, (time.time() - 25 * 3600,) * 2)
    partials.sweep(tmp_path)
    assert files(tmp_path) == [recent.name]
