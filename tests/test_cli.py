"""The commands, run as a user runs them: what they print where, and their exit codes."""

import contextlib
import csv
import io
import json
import os
import pty
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import click
import gymnasium as gym
import h5py
import pytest

import reenact
from reenact import cli, demo
from test_jobs import wait_for

SOURCE = Path(reenact.__file__).resolve().parents[1]
KEYS = [
    "episode",
    "address",
    "verdict",
    "origin",
    "path",
    "frames",
    "length",
    "return",
    "seed",
    "divergence",
    "error",
]
REENACT = "from reenact.cli import main; main()"
# as from a terminal, whatever the tests run under: nohup ignores hang-ups, a shell's "&" Ctrl-C
STOPPABLE = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    f"[signal.signal(n, signal.SIG_DFL) for n in (signal.SIGTERM, signal.SIGHUP)]; {REENACT}"
)
COMMANDS = ["check", "demo", "ls", "pack", "repair", "replay", "show", "verify"]


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Three episodes in runs/cart."""
    return record(tmp_path / "runs" / "cart")


def record(folder: Path, episodes: int = 3, steps: int = 6) -> Path:
    """Records episodes of CartPole, the first seeded."""
    recorder = reenact.Recorder(gym.make("CartPole-v1", max_episode_steps=steps), run=folder)
    recorder.action_space.seed(0)
    for episode in range(episodes):
        recorder.reset(seed=4 if episode == 0 else None)
        while not any(recorder.step(recorder.action_space.sample())[2:4]):
            pass
    recorder.close()
    return folder


class Said:
    """What a command said, and how it ended."""

    def __init__(self, code: object, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Calls a command with arguments in this process."""

    def command(*arguments: object, entry: Any = cli.main) -> Said:
        monkeypatch.setattr(sys, "argv", ["reenact", *map(str, arguments)])
        capsys.readouterr()
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
        with pytest.raises(SystemExit) as end:
            entry()
        for number, handler in before.items():  # it goes on
            signal.signal(number, handler)
        out, err = capsys.readouterr()
        return Said(end.value.code, out, err)

    return command


def environment() -> dict[str, str]:
    """Returns this process's, with reenact importable."""
    return {**os.environ, "PYTHONPATH": str(SOURCE)}


def loaded_by(code: str) -> set[str]:
    """The modules that a fresh interpreter has after some code."""
    program = f"{code}\nimport sys\nprint(' '.join(sys.modules), file=sys.stderr)"
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=True, text=True, env=environment()
    )
    return set(ended.stderr.split())


def flip(run: Path) -> None:
    """Makes the first episode's rewards damaged."""
    with h5py.File(run / "segment-00000.h5", "r+", locking=False) as file:
        file["steps/reward"][1] += 1.0


# ---- help, and what is imported


def test_every_command_and_option_has_help() -> None:
    """No command and no option is without a line that says what it does."""
    assert sorted(cli.reenact.commands) == COMMANDS
    for name, command in cli.reenact.commands.items():
        assert command.help, name
        for option in command.params:
            if isinstance(option, click.Option) and option.name != "video_folder":
                assert option.help, f"{name} {option.name}"


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_help_goes_to_stdout(say: Any, name: str) -> None:
    """--help prints to stdout and ends with 0, and so does -h."""
    for flag in ("--help", "-h"):
        said = say(*([name] if name else []), flag)
        assert (said.code, said.err) == (0, "")
        assert "Usage:" in said.out


def test_help_loads_nothing_heavy() -> None:
    """`reenact --help` and `replay --help` answer without loading what only a replay needs."""
    for call in ("main", "replay_main"):
        loaded = loaded_by(
            f"import sys\nsys.argv = ['x', '--help']\nfrom reenact.cli import {call}\n"
            f"try:\n    {call}()\nexcept SystemExit:\n    pass"
        )
        assert not {"gymnasium", "numpy", "h5py", "moviepy", "PIL"} & loaded
        assert "click" in loaded


def test_recording_loads_no_video_and_no_command_room() -> None:
    """Importing reenact for training loads neither moviepy nor click nor Pillow."""
    loaded = loaded_by("import reenact\nreenact.Recorder")
    assert "gymnasium" in loaded
    assert not {"moviepy", "click", "PIL", "reenact.video", "reenact.render"} & loaded


# ---- what goes where


def test_replay_prints_json_alone_on_stdout(say: Any, run: Path) -> None:
    """With --json stdout holds one object an episode, as it is done, with exactly the keys that the docs name."""
    said = say("replay", run, "--episodes", "0,2", "--json")
    assert said.code == 0
    rows = sorted((json.loads(line) for line in said.out.splitlines()), key=lambda row: row["episode"])
    assert [list(row) for row in rows] == [KEYS, KEYS]
    assert [(row["episode"], row["verdict"], row["error"]) for row in rows] == [
        (0, "exact", None),
        (2, "exact", None),
    ]
    assert [(row["origin"], row["seed"]) for row in rows] == [("seed", 4), ("rng", None)]
    assert all(Path(row["path"]).is_file() and row["frames"] == row["length"] + 1 for row in rows)


def test_replay_talks_to_people_on_stderr(say: Any, run: Path) -> None:
    """Without --json stdout stays empty, and stderr names each video."""
    said = say(run, "--episodes", "1", entry=cli.replay_main)
    assert (said.code, said.out) == (0, "")
    assert "exact" in said.err
    assert "cart-episode-1.mp4" in said.err


def test_a_divergence_in_json_has_its_five_keys(say: Any, run: Path, tmp_path: Path) -> None:
    """A diverged episode's object says where, since where, which field, and what was expected and got."""
    (tmp_path / "other.py").write_text(
        "import gymnasium as gym\n"
        "def make(render_mode=None):\n"
        "    env = gym.make('CartPole-v1', render_mode=render_mode, max_episode_steps=6)\n"
        "    env.unwrapped.gravity = 20.0\n    return env\n"
    )
    said = say("verify", run, "--env", "other.py:make", "--json")
    assert said.code == 1
    rows = [json.loads(line) for line in said.out.splitlines()]
    assert all(list(row)[: len(KEYS)] == KEYS for row in rows)
    assert [row["verdict"] for row in rows] == ["diverged"] * 3
    assert all(row["tried"][0]["origin"] == row["origin"] for row in rows if row["episode"] == 0)
    assert list(rows[0]["divergence"]) == ["step", "since", "field", "expected", "got"]
    assert rows[0]["path"] is None


def test_verify_is_exact_only_if_all_are(say: Any, run: Path) -> None:
    """Verify ends with 0 where all are exact, else with 1, and names those that are not."""
    said = say("verify", run)
    assert (said.code, said.out) == (0, "")
    assert "3 of 3 episodes exact" in said.err
    flip(run)
    said = say("verify", run)
    assert said.code == 1
    assert "2 of 3 episodes exact" in said.err
    assert "episode 0: impossible" in said.err
    assert say("verify", run, "--episodes", "1,2").code == 0


def test_a_tolerance_ends_with_one(say: Any, run: Path) -> None:
    """Under a tolerance nothing is exact, and the exit code says so."""
    said = say("verify", run, "--tolerance", "0.1", "--json")
    assert said.code == 1
    assert {json.loads(line)["verdict"] for line in said.out.splitlines()} == {"tolerated"}


def test_a_selection_of_nothing_ends_with_one(say: Any, run: Path) -> None:
    """Where no episode is selected nothing was proved."""
    said = say("replay", run, "--episodes", "2:1")
    assert said.code == 1
    assert "no episode" in said.err
    shown = say("show", run, "--where", "length < 0")
    assert (shown.code, shown.out) == (0, "")
    assert "no episode is selected" in shown.err


def test_a_replay_without_a_desktop_says_nothing_of_one(run: Path) -> None:
    """Outside of a session (a container, `sudo`, cron) libwayland's error on XDG_RUNTIME_DIR is not among the lines."""
    bare = {name: value for name, value in environment().items() if name not in ("XDG_RUNTIME_DIR", "WAYLAND_DISPLAY")}
    done = subprocess.run(
        [sys.executable, "-c", REENACT, "replay", str(run), "--episodes", "0"],
        capture_output=True, check=True, text=True, env=bare,
    )  # fmt: skip
    assert "XDG" not in done.stderr
    assert "episode 0: exact" in done.stderr


def test_calls_without_a_desktop_say_nothing_of_one(run: Path) -> None:
    """So it is for a replay in the caller's own process, in workers, and for frames; the environment stays as it was."""
    bare = {name: value for name, value in environment().items() if name not in ("XDG_RUNTIME_DIR", "WAYLAND_DISPLAY")}
    bare.pop("SDL_VIDEODRIVER", None)
    code = (
        "import os, sys, reenact\nbefore = dict(os.environ)\n"
        "if sys.argv[2] == 'frames': print(len(list(reenact.open_run(sys.argv[1])[0].frames())) > 1)\n"
        "else: print(all(one.ok for one in reenact.replay(sys.argv[1], 'all', jobs=int(sys.argv[2]), overwrite=True)))\n"
        "assert dict(os.environ) == before\n"
    )
    for how in ("1", "2", "frames"):
        command = [sys.executable, "-c", code, str(run), how]
        done = subprocess.run(command, capture_output=True, check=True, text=True, env=bare)
        assert (done.stdout, done.stderr) == ("True\n", "")


def test_verify_tells_a_reason_once(say: Any, run: Path, tmp_path: Path) -> None:
    """What is wrong with many episodes is said of the first; then which others; --json has it with each of them."""
    (tmp_path / "twice.py").write_text(
        "import gymnasium as gym\n"
        "def make(render_mode=None):\n"
        "    return gym.wrappers.TransformReward(gym.make('CartPole-v1', render_mode=render_mode), lambda r: r * 2)\n"
    )
    record(run, 4)
    said = say("verify", run, "--env", "twice.py:make", "--json", "--jobs", "1")
    first, others, total = said.err.strip().splitlines()
    assert first.startswith("episode 0: diverged (the replay diverged: reward at step 1: expected 1.0, got 2.0")
    assert others == "episodes 1-6: diverged, for the same reason as episode 0"
    assert total == "0 of 7 episodes exact"
    assert len({json.loads(line)["error"] for line in said.out.splitlines()}) == 1
    assert len(said.out.splitlines()) == 7


def test_show_is_a_table_on_stdout(say: Any, run: Path) -> None:
    """Show prints one line an episode below its head, and the sums to stderr."""
    said = say("show", run)
    lines = said.out.splitlines()
    assert said.code == 0
    assert lines[0].split()[:4] == ["episode", "address", "ended", "length"]
    assert [line.split()[:2] for line in lines[1:]] == [["0", "0.0"], ["1", "0.1"], ["2", "0.2"]]
    assert "3 episodes" in said.err


def test_show_as_json_and_csv_hold_the_log_s_values(say: Any, run: Path) -> None:
    """Show --json and --csv print the values that stand in the segment."""
    with h5py.File(run / "segment-00000.h5", locking=False) as file:
        rows = file["episodes"][:]
    found = [json.loads(line) for line in say("show", run, "--json").out.splitlines()]
    assert [row["return"] for row in found] == rows["return"].tolist()
    assert [row["seed"] for row in found] == [4, None, None]
    table = list(csv.DictReader(io.StringIO(say("show", run, "--csv").out)))
    assert [int(row["length"]) for row in table] == rows["length"].tolist()
    assert [row["seed"] for row in table] == ["4", "", ""]
    assert [row["episode"] for row in csv.DictReader(io.StringIO(say("show", run, "--csv", "--tail", 1).out))] == ["2"]
    assert say("show", run, "--csv", "--json").code == 2


def test_ls_lists_the_runs_the_newest_last(say: Any, run: Path, tmp_path: Path) -> None:
    """Ls has a line a run: env, episodes, steps, mean return, size, and whether it is closed."""
    newer = record(tmp_path / "runs" / "deep" / "er" / "two", 1)
    os.utime(run / "segment-00000.h5", (1e9, 1e9))
    rows = [json.loads(line) for line in say("ls", "--json").out.splitlines()]
    assert [row["run"] for row in rows] == [str(path.relative_to(tmp_path)) for path in (run, newer)]
    assert [(row["env"], row["episodes"], row["state"]) for row in rows] == [
        ("CartPole-v1", 3, "closed"), ("CartPole-v1", 1, "closed")
    ]  # fmt: skip
    assert rows[0]["steps"] == 18
    assert rows[0]["mean return"] == 6.0
    said = say("ls", "runs")
    assert said.code == 0
    assert said.out.splitlines()[0].split()[:2] == ["run", "env"]
    assert len(said.out.splitlines()) == 3


def test_ls_lists_packed_files(say: Any, run: Path, tmp_path: Path) -> None:
    """A packed file is a run like any other, with its own size; an HDF5 file of somebody else's is none."""
    packed = tmp_path / "runs" / "sent" / "bug.h5"
    packed.parent.mkdir()
    assert say("pack", run, "-o", packed).code == 0
    with h5py.File(tmp_path / "runs" / "weights.h5", "w") as file:
        file["weights"] = [1.0]
    (tmp_path / "runs" / "torn.h5").write_bytes(b"nothing")
    os.utime(run / "segment-00000.h5", (1e9, 1e9))
    rows = [json.loads(line) for line in say("ls", "--json").out.splitlines()]
    assert [row["run"] for row in rows] == [str(path.relative_to(tmp_path)) for path in (run, packed)]
    assert rows[1] == rows[0] | {"run": rows[1]["run"], "MB": round(packed.stat().st_size / 1e6, 3)}


def test_the_newest_run_is_taken_where_none_is_named(say: Any, run: Path, tmp_path: Path) -> None:
    """Without RUN it is the run last written under runs/, however deep it lies, and stderr names it."""
    os.utime(run / "segment-00000.h5", (1e9, 1e9))
    newer = record(tmp_path / "runs" / "deep" / "er" / "two", 1)
    said = say("verify")
    assert (said.code, said.out) == (0, "")
    assert str(newer.relative_to(tmp_path)) in said.err
    assert "1 of 1" in said.err


def test_the_demo_ends_in_three_videos(say: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Demo records, replays its first, middle and last episode, and prints where the videos are."""
    monkeypatch.setattr(demo, "EPISODES", 3)
    monkeypatch.setattr(demo, "SHOWN", (0, 1, 2))
    said = say("demo")
    assert said.code == 0
    videos = sorted(tmp_path.rglob("*.mp4"))
    assert len(videos) == 3
    assert all(video.name in said.out + said.err for video in videos)


# ---- mistakes


def test_no_command_at_all_shows_the_help(say: Any) -> None:
    """`reenact` alone is a question: it lists the commands, on stderr, and ends with 2."""
    said = say()
    assert (said.code, said.out) == (2, "")
    assert all(name in said.err for name in COMMANDS)


@pytest.mark.parametrize(
    "arguments",
    [
        ["replay", "runs/none"],
        ["verify", "runs/none"],
        ["show", "runs/none"],
        ["ls", "nowhere"],
        ["show", "notes.txt"],
        ["replay", "RUN", "--episodes", "99"],
        ["replay", "RUN", "--episodes", "7.1"],
        ["replay", "RUN", "--episodes", "first"],
        ["replay", "RUN", "--every", "0"],
        ["replay", "RUN", "--every", "x"],
        ["replay", "RUN", "--fps", "0"],
        ["replay", "RUN", "--fps", "nan"],
        ["replay", "RUN", "--trigger", "nope"],
        ["replay", "RUN", "--trigger", "json:nope"],
        ["replay", "RUN", "--env", "nope.py:make"],
        ["replay", "RUN", "--env", "json:__name__"],
        ["replay", "RUN", "--tolerance", "-1"],
        ["verify", "RUN", "--tolerance", "nan"],
        ["replay", "RUN", "--video-length", "-1"],
        ["replay", "RUN", "--name-prefix", "a/b"],
        ["replay", "RUN", "--no-such-option"],
        ["show", "RUN", "--tail", "0"],
        ["shwo"],
    ],
)
def test_a_mistake_is_told_in_one_line(say: Any, run: Path, tmp_path: Path, arguments: list[str]) -> None:
    """A wrong path, number or option ends with 2 and one line on stderr, without a traceback."""
    (tmp_path / "notes.txt").write_text("no segment")
    said = say(*(str(run) if argument == "RUN" else argument for argument in arguments))
    assert said.code == 2
    assert said.out == ""
    assert len([line for line in said.err.splitlines() if line.startswith("Error: ")]) == 1
    assert len(said.err.strip().splitlines()) == 1, said.err


def test_a_wrong_path_is_told_what_is_there(say: Any, run: Path) -> None:
    """The line on a wrong path names the runs nearby; the one on a wrong number, which there are."""
    assert "runs/cart" in say("show", "runs/none").err
    assert "0 to 2" in say("replay", run, "--episodes", "99").err


def test_a_file_in_the_way_ends_with_one(say: Any, run: Path) -> None:
    """A foreign file of the video's name is left, in one line, with exit code 1; --overwrite replaces it."""
    (run / "videos").mkdir()
    there = run / "videos" / "cart-episode-0.mp4"
    there.write_bytes(b"holiday")
    said = say("replay", run, "--episodes", "0")
    assert said.code == 1
    assert len(said.err.strip().splitlines()) == 1
    assert "--overwrite" in said.err
    assert there.read_bytes() == b"holiday"
    assert say("replay", run, "--episodes", "0", "--overwrite").code == 0


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_command_that_is_stopped_leaves_nothing_behind(number: signal.Signals, code: int, tmp_path: Path) -> None:
    """Ctrl-C, or what schedulers send, in mid-replay: its exit code, one word and no file, not even a hidden one."""
    run = record(tmp_path / "runs" / "long", 1)
    (tmp_path / "slow.py").write_text(
        textwrap.dedent(
            """
            import pathlib, time
            import gymnasium as gym

            class Slow(gym.Wrapper):
                def render(self):
                    pathlib.Path("drawing").touch()
                    time.sleep(1)
                    return self.env.render()

            def make(render_mode=None):
                return Slow(gym.make("CartPole-v1", render_mode=render_mode, max_episode_steps=6))
            """
        )
    )
    process = subprocess.Popen(
        [sys.executable, "-c", STOPPABLE, "replay", run, "--env", "slow.py:make"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(), start_new_session=True,
    )  # fmt: skip
    try:
        wait_for(lambda: list((run / "videos").glob(".*")), "no video was begun")
        os.killpg(process.pid, number)  # as a terminal does: ffmpeg gets it too
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, out) == (code, "")
    assert err.splitlines()[-1] == "stopped"
    assert "Traceback" not in err
    assert list((run / "videos").iterdir()) == []


@pytest.mark.parametrize(("closing_s", "thread_s"), [(0.5, 0), (600, 0), (0.5, 600)])
def test_a_second_ctrl_c_does_not_cut_the_cleaning_up(closing_s: float, thread_s: float, tmp_path: Path) -> None:
    """What an env does to close is done, and no file is left; one that never closes, or leaves a thread, holds up none."""
    run = record(tmp_path / "runs" / "long", 1)
    (tmp_path / "slow.py").write_text(
        textwrap.dedent(
            f"""
            import pathlib, threading, time
            import gymnasium as gym

            class Slow(gym.Wrapper):
                def render(self):
                    if pathlib.Path("drawn").exists():
                        time.sleep(600)
                    pathlib.Path("drawn").touch()
                    return self.env.render()

                def close(self):
                    pathlib.Path("closing").touch()
                    time.sleep({closing_s})
                    pathlib.Path("closed").touch()
                    super().close()

            def make(render_mode=None):
                threading.Thread(target=time.sleep, args=({thread_s},)).start()
                return Slow(gym.make("CartPole-v1", render_mode=render_mode, max_episode_steps=6))
            """
        )
    )
    process = subprocess.Popen(
        [sys.executable, "-c", STOPPABLE, "replay", run, "--env", "slow.py:make", "--jobs", "1"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(), start_new_session=True,
    )  # fmt: skip

    def pressed() -> bool:
        process.send_signal(signal.SIGINT)
        return process.poll() is not None

    try:
        wait_for(lambda: list((run / "videos").glob(".*")), "no video was begun")
        process.send_signal(signal.SIGINT)
        wait_for((tmp_path / "closing").exists, "the env was not closed")
        process.send_signal(signal.SIGINT)
        if closing_s + thread_s > 1:  # after a while, or once all is cleaned up, another one ends it
            time.sleep(0.1)
            assert process.poll() is None
            wait_for(pressed, "it can't be left")
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, err.splitlines()[-1]) == (130, "stopped")
    assert "Traceback" not in err
    assert (tmp_path / "closed").exists() == (closing_s < 1)
    assert list((run / "videos").iterdir()) == []


def test_a_terminal_is_told_how_far_it_is(run: Path, tmp_path: Path) -> None:
    """On a terminal a bar says how many frames and videos are done, how fast, and how long it will take; a pipe gets none."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-c", REENACT, "replay", str(run), "--episodes", "all", "--jobs", "1"]
    process = subprocess.Popen(
        command, stdout=theirs, stderr=theirs, stdin=subprocess.DEVNULL, env=environment(), cwd=tmp_path
    )
    os.close(theirs)
    told = b""
    with contextlib.suppress(OSError):  # so a terminal's end is told
        while part := os.read(ours, 4096):
            told += part
    os.close(ours)
    assert process.wait(60) == 0
    assert b"21/21" in told
    assert b"of 3 done" in told
    assert b"frames/s" in told
    assert b" left" in told
    assert told.count(b": exact -> ") == 3
    piped = subprocess.run([*command, "--overwrite", "--fps", "9"], capture_output=True, check=True, env=environment())
    assert b"frames" not in piped.stdout + piped.stderr
