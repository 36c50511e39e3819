"""Jobs of several processes: what they make is what one makes, whatever ends in the middle of it."""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
import traceback
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
import pytest

import job_envs
import odd_envs as odd
import reenact
from job_envs import record
from reenact import workers
from reenact.errors import ReenactError, SelectionError
from test_render import LENGTH, Meter, Smudged, decode, files, has_banner, tamper

if TYPE_CHECKING:
    from collections.abc import Iterator

SOURCE = Path(reenact.__file__).resolve().parents[1]
REPLAY = "from reenact.cli import replay_main; replay_main()"


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("JOB_FOLDER", str(tmp_path))
    monkeypatch.setattr(job_envs, "HERE", tmp_path)


def environment(**more: str) -> dict[str, str]:
    """This process's, with reenact and the tests importable."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join((str(SOURCE), str(Path(__file__).parent))), **more}


def group_of(leader: int) -> list[int]:
    """The processes that work for a command: its session's, its workers', and what these have started."""
    found, mine = [], {leader}
    for path in sorted(Path("/proc").glob("[0-9]*"), key=lambda one: int(one.name)):
        with contextlib.suppress(OSError):
            fields = (path / "stat").read_text().rpartition(")")[2].split()
            if fields[0] not in "ZX" and mine & {int(path.name), int(fields[1]), int(fields[2]), int(fields[3])}:
                mine.add(int(path.name))
                found.append(int(path.name))
    return found


def wait_for(what: Any, why: str) -> Any:
    """Waits until something is true."""
    deadline = time.monotonic() + 60
    while not (found := what()):
        assert time.monotonic() < deadline, why
        time.sleep(0.05)
    return found


def gone(pids: list[int]) -> bool:
    """Whether none of the processes lives."""
    for pid in pids:
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX":
                return False
    return True


@contextlib.contextmanager
def replaying(run: Path, *arguments: str, **more: str) -> Iterator[subprocess.Popen[str]]:
    """The command, in a session of its own as from a terminal."""
    process = subprocess.Popen(
        [sys.executable, "-c", REPLAY, run, "--episodes", "all", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(**more), start_new_session=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


# ---- what is made


def mixed(folder: Path) -> Path:
    """A run with an exact, a diverged, a damaged and an errored episode, and one that can't be drawn."""
    recorder = reenact.Recorder(gym.make("Meter-v0"), run=folder)
    for episode in range(7):
        recorder.reset(seed=5 + episode if episode != 3 else None)
        for step in range(LENGTH):
            recorder.step((episode + step) % 2)
    recorder.reset(seed=20)
    with contextlib.suppress(ValueError):
        recorder.step(3)
    recorder.close()
    tamper(folder, 1, 4, 0.5)
    tamper(folder, 5, 2, 0.5, "action/value")
    return folder


@pytest.mark.parametrize("options", [{}, {"env": Smudged, "diverged": False}, {"tolerance": 0.1, "video_length": 13}])
def test_the_results_are_those_of_one_process(
    tmp_path: Path, options: dict[str, Any], capfd: pytest.CaptureFixture[str]
) -> None:
    """Two processes give the same results, in the same order, and the same frames, as this one alone."""
    run = mixed(tmp_path / "run")
    alone = reenact.replay(run, "all", video_folder=tmp_path / "alone", lossless=True, **options)
    shown = capfd.readouterr().err
    both = reenact.replay(run, "all", video_folder=tmp_path / "both", lossless=True, jobs=2, **options)
    assert capfd.readouterr().err.count("LookupError") == shown.count("LookupError")
    assert files(tmp_path / "both") == files(tmp_path / "alone")
    for one, other in zip(alone, both, strict=True):
        assert {**one.to_json(), "path": None} == {**other.to_json(), "path": None}
        if one.path is not None:
            assert (decode(one.path) == decode(other.path)).all()


def test_verify_takes_jobs(tmp_path: Path) -> None:
    """Verified by two processes, each episode's verdict is that of one."""
    run = mixed(tmp_path / "run")
    assert reenact.verify(run, jobs=2) == reenact.verify(run, jobs=np.int64(2)) == reenact.verify(run)
    assert reenact.verify(run, jobs=2, rendered=True) == reenact.verify(run, rendered=True)


def test_the_work_is_spread(tmp_path: Path) -> None:
    """With jobs=2 two other processes draw, and with jobs=1 this one alone."""
    run = record("JobSlow-v0", tmp_path / "run", 4)
    reenact.replay(run, "all", jobs=2)
    drawn = {int(path.name.partition("-")[2]) for path in tmp_path.glob("drawn-*")}
    assert len(drawn) == 2
    assert os.getpid() not in drawn
    reenact.replay(run, 0, overwrite=True, fps=3)
    assert (tmp_path / f"drawn-{os.getpid()}").exists()
    assert gone(list(drawn))


@pytest.mark.parametrize("how", ["file", "-c", "stdin"])
def test_a_script_needs_no_guard(tmp_path: Path, how: str) -> None:
    """A script that records and replays with jobs=2 at its top level does that once, however it is started."""
    code = (
        "import sys, gymnasium as gym, reenact, test_render\n"
        "print('started')\n"
        f"run = {str(tmp_path / 'run')!r}\n"
        "test_render.record(__import__('pathlib').Path(run), 4)\n"
        "print([result.verdict for result in reenact.replay(run, 'all', jobs=2)])\n"
    )
    (tmp_path / "script.py").write_text(code)
    arguments = {"file": [str(tmp_path / "script.py")], "-c": ["-c", code], "stdin": []}[how]
    ended = subprocess.run(
        [sys.executable, *arguments], input=code if how == "stdin" else "", env=environment(), cwd=tmp_path,
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert ended.stdout.splitlines() == ["started", str(["exact"] * 4)], ended.stderr


def test_an_env_that_only_this_script_has(tmp_path: Path) -> None:
    """What an unguarded script defines is replayed in its own process, with a warning, and never loaded elsewhere."""
    code = (
        "import gymnasium as gym, reenact, test_render, pathlib\n"
        "print('started')\n"
        "class Mine(test_render.Meter): pass\n"
        "gym.register('Mine-v0', Mine)\n"
        "test_render.record(pathlib.Path('run'), 3, env=gym.make('Mine-v0'))\n"
        "print([result.verdict for result in reenact.replay('run', 'all', jobs=2)])\n"
    )
    for arguments in ([tmp_path / "script.py"], ["-c", code]):
        (tmp_path / "script.py").write_text(code)
        ended = subprocess.run(
            [sys.executable, *arguments], env=environment(), cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert ended.stdout.splitlines() == ["started", str(["exact"] * 3)], ended.stderr
        assert ended.stderr.count("no other process can load") == 1
        shutil.rmtree(tmp_path / "run")


def test_what_is_importable_here_is_importable_there(tmp_path: Path) -> None:
    """Modules beside a script, and on paths that it has added itself, are found by its workers."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "my_envs.py").write_text("from test_render import Meter\nclass Mine(Meter): pass\n")
    (tmp_path / "script.py").write_text(
        "import sys, gymnasium as gym, reenact\n"
        "sys.path.append('elsewhere')\n"
        "import my_envs\n"
        "with reenact.Recorder(my_envs.Mine(), run='run', factory=my_envs.Mine) as recorder:\n"
        "    recorder.reset(seed=1)\n"
        "    recorder.step(1)\n"
        "(result,) = reenact.replay('run', 'all', jobs=2, env=my_envs.Mine)\n"
        "print(result.verdict, result.path)\n"
    )
    ended = subprocess.run(
        [sys.executable, "script.py"], env=environment(), cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert ended.stdout == "exact run/videos/run-episode-0.mp4\n", ended.stderr


# ---- what ends in the middle


@pytest.mark.parametrize("waitid", [True, False])
def test_a_worker_that_dies_takes_nothing_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, waitid: bool
) -> None:
    """Where an env kills its process once, that episode is tried once more, and all are exact, on any system."""
    if not waitid:
        monkeypatch.delattr(os, "waitid", raising=False)
    run = record("JobDeadly-v0", tmp_path / "run", 6)
    expected = reenact.verify(run)
    monkeypatch.setenv("DEATHS", "1")
    results = reenact.replay(run, "all", jobs=2)
    assert [(one.verdict, one.address) for one in results] == [("exact", one.address) for one in expected]
    assert len(list(tmp_path.glob("death-*"))) == 1
    whole = [name for name in files(run / "videos") if waitid or not name.startswith(".")]
    assert whole == [f"run-episode-{number}.mp4" for number in range(6)]


def test_an_episode_that_kills_each_process_is_impossible(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it does so again, that episode is impossible, in one line that says so, and the others are exact."""
    run = record("JobDeadly-v0", tmp_path / "run", 6)
    monkeypatch.setenv("DEATHS", "99")
    results = reenact.replay(run, "all", jobs=2)
    assert [result.verdict for result in results] == ["exact"] * 2 + ["impossible"] + ["exact"] * 3
    assert "signal 9" in str(results[2].error)
    assert "\n" not in str(results[2].error)
    assert len(list(tmp_path.glob("death-*"))) == 2
    assert files(run / "videos") == [f"run-episode-{number}.mp4" for number in (0, 1, 3, 4, 5)]


@pytest.mark.parametrize("what", ["Ctrl-C", "Ctrl-C twice", "kill -9", "kill"])
def test_a_job_that_is_stopped_leaves_what_is_done(tmp_path: Path, what: str) -> None:
    """Stopped in any way, it leaves whole videos alone, no process and, once begun anew, no partial file."""
    run = record("JobSlow-v0", tmp_path / "run", 8)
    with replaying(run, "--jobs", "2") as process:
        assert process.stderr is not None
        first = process.stderr.readline()
        assert "exact" in first, first + process.stderr.read()
        pids = group_of(process.pid)
        assert len(pids) >= 5, pids  # the command, two workers and their ffmpegs
        if what.startswith("Ctrl-C"):
            os.killpg(process.pid, signal.SIGINT)
            while what == "Ctrl-C twice" and process.poll() is None:
                time.sleep(0.02)
                process.send_signal(signal.SIGINT)
        else:
            process.send_signal(signal.SIGKILL if what == "kill -9" else signal.SIGTERM)
        process.wait(60)
        told = process.stderr.read()
        wait_for(lambda: gone(pids), "a process was left behind")
    assert "Traceback" not in told
    if what != "kill -9":
        assert process.returncode == (143 if what == "kill" else 130)
        assert not [name for name in files(run / "videos") if name.startswith(".")]
    done = [name for name in files(run / "videos") if not name.startswith(".")]
    assert 1 <= len(done) < 8
    assert all(len(decode(run / "videos" / name)) == LENGTH + 1 for name in done)
    results = reenact.replay(run, "all", jobs=2)
    assert all(result.ok for result in results)
    assert sum(result.reused for result in results) == len(done)
    assert files(run / "videos") == [f"run-episode-{number}.mp4" for number in range(8)]


def test_workers_end_though_a_fork_holds_their_pipes(tmp_path: Path) -> None:
    """Killed after it has forked, a script leaves no worker behind, while what it forked lives on."""
    record("JobSlow-v0", tmp_path / "run", 8)
    code = (
        "import os, signal, time, reenact\n"
        "class Observer:\n"
        "    def planned(self, frames, films): pass\n"
        "    def chained(self, done, total): pass\n"
        "    def finished(self, result): pass\n"
        "    def advanced(self, frames):\n"
        "        pid = os.fork()\n"
        "        if not pid:\n"
        "            time.sleep(300)\n"
        "            os._exit(0)\n"
        "        print(pid, flush=True)\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "reenact.replay('run', 'all', jobs=2, observer=Observer())\n"
    )
    ended = subprocess.Popen(
        [sys.executable, "-c", code], env=environment(), cwd=tmp_path, stdout=subprocess.PIPE, text=True
    )
    assert ended.stdout is not None
    forked = int(ended.stdout.readline())
    try:
        assert ended.wait(60) == -signal.SIGKILL
        theirs = [int(path.name.partition("-")[2]) for path in tmp_path.glob("drawn-*")]
        assert theirs
        wait_for(lambda: gone(theirs), "a worker was left behind")
        assert not gone([forked])
    finally:
        os.kill(forked, signal.SIGKILL)
        ended.stdout.close()


def test_workers_that_can_not_be_started_are_done_without(tmp_path: Path) -> None:
    """Where the descriptors suffice for a few workers, these do it all; where for none, one line says so."""
    run = record("JobTold-v0", tmp_path / "run", 8)

    def ended(descriptors: int) -> subprocess.CompletedProcess[str]:
        limit = f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, ({descriptors}, {descriptors})); {REPLAY}"
        return subprocess.run(
            [sys.executable, "-c", limit, str(run), "--episodes", "all", "--jobs", "8"],
            env=environment(), capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip

    few = ended(20)
    assert (few.returncode, few.stdout.count(": exact") + few.stderr.count(": exact")) == (0, 8), few.stderr
    shutil.rmtree(run / "videos")
    none = ended(10)
    assert none.returncode == 2
    assert none.stderr.startswith("Error: no worker can be started ([Errno 24] Too many open files)"), none.stderr
    assert len(none.stderr.splitlines()) == 1


def command_of(pid: int) -> bytes:
    """A process's command line; b"" of one that has just ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def test_an_ffmpeg_that_is_killed_is_told(tmp_path: Path) -> None:
    """That episode is impossible, and says so; the others are made, by the same processes."""
    run = record("JobSlow-v0", tmp_path / "run", 4)
    with replaying(run, "--jobs", "2", "--json") as process:

        def ffmpeg() -> list[int]:
            return [pid for pid in group_of(process.pid) if b".partial" in command_of(pid)]

        os.kill(wait_for(ffmpeg, "no ffmpeg came")[0], signal.SIGKILL)
        out, err = process.communicate(timeout=120)
    results = [json.loads(line) for line in out.splitlines()]
    assert sorted(result["verdict"] for result in results) == ["exact"] * 3 + ["impossible"], err
    (error,) = (result["error"] for result in results if result["verdict"] == "impossible")
    assert "killed by signal 9" in error
    assert len(files(run / "videos")) == 3


def test_two_jobs_into_one_folder(tmp_path: Path) -> None:
    """Two commands at once that make the same videos both end well, and each video is whole and known."""
    run = record("JobTold-v0", tmp_path / "run", 6)
    with replaying(run, "--jobs", "1") as one, replaying(run, "--jobs", "2") as other:
        ended = [process.communicate(timeout=120) for process in (one, other)]
        assert [one.returncode, other.returncode] == [0, 0], ended
    assert files(run / "videos") == [f"run-episode-{number}.mp4" for number in range(6)]
    assert all(result.reused for result in reenact.replay(run, "all"))


# ---- what is said


def test_an_error_of_the_user_s_own_code_comes_through(tmp_path: Path) -> None:
    """What it raises in a worker is raised here, as it is, with the traceback from there; then all is over."""
    run = record("Meter-v0", tmp_path / "run", 3)
    with pytest.raises(ZeroDivisionError, match="mine") as caught:
        reenact.replay(run, "all", env="job_envs:spoilt", jobs=2)
    assert any("in spoilt" in note for note in caught.value.__notes__)
    run = record("JobBroken-v0", tmp_path / "other", 3)
    with pytest.raises(RuntimeError, match="BrokenError: 1 and 2") as caught_too:
        reenact.replay(run, "all", jobs=2)
    assert any("in __init__" in note for note in caught_too.value.__notes__)
    assert files(run / "videos") == []


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_observer_is_given_tracebacks(tmp_path: Path, capfd: pytest.CaptureFixture[str], jobs: int) -> None:
    """What render() raises in several episodes is told an observer once, and nothing is written past it."""
    run = mixed(tmp_path / "run")
    given: list[str] = []

    class Keeps:
        """An observer that keeps tracebacks."""

        def raised(self, trace: str) -> None:
            given.append(trace)

        def __getattr__(self, name: str) -> Any:
            return lambda *_: None

    watcher: Any = Keeps()
    results = reenact.verify(run, env=Smudged, rendered=True, jobs=jobs, observer=watcher)
    assert "Traceback" not in capfd.readouterr().err
    assert [text.count('raise LookupError("no such') for text in given] == [1]
    assert any("LookupError" in str(result.error) for result in results)


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_env_that_exits_ends_the_job(tmp_path: Path, jobs: int) -> None:
    """What calls sys.exit is asked once, and its SystemExit is raised here, with the traceback from there."""
    run = record("Meter-v0", tmp_path / "run", 1)
    with pytest.raises(SystemExit, match="7") as caught:
        reenact.verify(run, env="job_envs:leaves", jobs=jobs)
    assert (tmp_path / "asked").read_bytes() == b"."
    told = [*getattr(caught.value, "__notes__", []), *traceback.format_exception(caught.value)]
    assert any("in leaves" in text for text in told)


def test_an_error_whose_class_is_the_training_script_s(tmp_path: Path) -> None:
    """Where only the worker has its class, what the env raises is told by name, with its traceback."""
    (tmp_path / "train.py").write_text(
        "import os, reenact\n"
        "from test_render import Meter\n"
        "class Boom(Exception): pass\n"
        "class Mine(Meter):\n"
        "    def __init__(self, render_mode=None):\n"
        "        if render_mode is not None: raise Boom('hello from the env')\n"
        "        super().__init__(render_mode)\n"
        "if __name__ == '__main__':\n"
        "    with reenact.Recorder(Mine(), run='run', factory=Mine) as recorder:\n"
        "        recorder.reset(seed=1)\n"
        "        recorder.step(1)\n"
    )
    subprocess.run([sys.executable, "train.py"], env=environment(), cwd=tmp_path, check=True)
    with pytest.raises(RuntimeError, match="Boom: hello from the env") as caught:
        reenact.replay(tmp_path / "run", "all", jobs=2)
    assert any("in __init__" in note and str(tmp_path / "train.py") in note for note in caught.value.__notes__)


def test_a_warning_reaches_the_caller_once(tmp_path: Path) -> None:
    """One that two workers give is given here once; what is ignored here is ignored there."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run = record("JobTalkative-v0", tmp_path / "run", 4)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        reenact.replay(run, "all", jobs=2)
    assert [str(one.message) for one in caught] == ["an env warns"]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        warnings.filterwarnings("ignore", message="an env")
        reenact.replay(run, "all", jobs=2, fps=5)
    assert caught == []


def test_what_an_env_prints_is_not_among_the_lines(tmp_path: Path) -> None:
    """With --json each line on stdout is a result, whatever envs in the workers print."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run = record("JobTalkative-v0", tmp_path / "run", 4)
    with replaying(run, "--jobs", "2", "--json") as process:
        out, err = process.communicate(timeout=120)
    assert sorted(json.loads(line)["episode"] for line in out.splitlines()) == [0, 1, 2, 3]
    assert "hello from C" in err
    assert err.count("UserWarning: an env warns") == 1


def test_an_observer_hears_each_frame_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames planned are frames told, though some are made a second time by another worker."""

    class Heard:
        total = done = films = 0
        results: list[Any] = []  # noqa: RUF012  # one instance

        def planned(self, frames: int, films: int) -> None:
            self.total, self.films = self.total + frames, self.films + films

        def advanced(self, frames: int) -> None:
            self.done += frames

        def chained(self, done: int, total: int) -> None: ...

        def finished(self, result: reenact.ReplayResult) -> None:
            self.results.append(result)

    run = record("JobDeadly-v0", tmp_path / "run", 6)
    monkeypatch.setenv("DEATHS", "99")
    heard = Heard()
    results = reenact.replay(run, "all", jobs=2, observer=heard)  # type: ignore[arg-type]  # it is not followed
    assert (heard.total, heard.done, heard.films) == (6 * (LENGTH + 1), 6 * (LENGTH + 1), 6)
    assert sorted(heard.results, key=lambda result: result.episode) == results


def test_the_cores_are_those_that_may_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """The default of --jobs counts the cores of this process, or where that can't be asked, all of them."""
    monkeypatch.delattr(os, "process_cpu_count", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {1, 4, 5}, raising=False)
    assert workers.cores() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    assert workers.cores() == 7


# ---- what is refused


@pytest.mark.parametrize("jobs", [0, -1, True, 1.5, "2"])
def test_a_number_of_jobs_that_is_none(tmp_path: Path, jobs: Any) -> None:
    """Anything but a whole number of 1 or more is refused before any work."""
    with pytest.raises(SelectionError, match="jobs"):
        reenact.verify(record("Meter-v0", tmp_path / "run", 1), jobs=jobs)


def test_a_callable_that_no_other_process_finds(tmp_path: Path) -> None:
    """A lambda, and a function in a function, are refused in a line that says what to give instead."""
    run = record("Meter-v0", tmp_path / "run", 1)

    def mine(render_mode: str | None) -> gym.Env[Any, Any]:
        return Meter(render_mode)

    for env in (mine, lambda render_mode: Meter(render_mode, length=LENGTH)):
        with pytest.raises(SelectionError, match="module:factory") as caught:
            reenact.replay(run, "all", env=env, jobs=2)
        assert "\n" not in str(caught.value)
        assert reenact.replay(run, "all", env=env)[0].ok


@pytest.mark.parametrize("guarded", [True, False])
def test_a_factory_of_the_script_itself(tmp_path: Path, guarded: bool) -> None:
    """A function of a guarded script is found by the workers; of one that would train again, it is refused."""
    (tmp_path / "script.py").write_text(
        "import reenact, test_render, pathlib\n"
        "def make(render_mode=None):\n    return test_render.Meter(render_mode)\n"
        + ("if __name__ == '__main__':\n" if guarded else "if True:\n")
        + "    with reenact.Recorder(make(), run='run', factory=make) as recorder:\n"
        "        recorder.reset(seed=1)\n        recorder.step(1)\n"
        "    print(reenact.replay('run', 'all', jobs=2, env=make)[0].verdict)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "script.py"],
        env=environment(), cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if guarded:
        assert ended.stdout == "exact\n", ended.stderr
    else:
        assert "SelectionError" in ended.stderr
        assert "__main__" in ended.stderr.splitlines()[-1]


# ---- any executor


def test_an_executor_of_processes(tmp_path: Path) -> None:
    """The standard library's own gives the results of one process, and stays open."""
    run = mixed(tmp_path / "run")
    expected = reenact.verify(run)
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as executor:
        assert reenact.verify(run, executor=executor) == expected
        results = reenact.replay(run, "all", executor=executor, jobs=2)
        assert [result.verdict for result in results] == [result.verdict for result in expected]
        assert executor.submit(len, "abc").result() == 3


def test_an_executor_that_breaks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a dead process breaks the whole executor, what was done stays, and the rest is impossible, in one line."""
    run = record("JobDeadly-v0", tmp_path / "run", 6)
    monkeypatch.setenv("DEATHS", "99")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as executor:
        results = reenact.replay(run, "all", executor=executor)
    errors = {str(result.error) for result in results if result.verdict == "impossible"}
    assert errors
    assert all("executor" in error and "\n" not in error for error in errors)
    whole = [name for name in files(run / "videos") if not name.startswith(".")]  # its ffmpeg may live a little longer
    assert whole == [f"run-episode-{one.episode}.mp4" for one in results if one.ok]


class Inline(concurrent.futures.Executor):
    """Does everything at once, where it is asked."""

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> concurrent.futures.Future[Any]:
        """Does it."""
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()
        future.set_result(fn(*args, **kwargs))
        return future


@pytest.mark.parametrize("kind", ["threads", "inline", "none", "shut down"])
def test_what_is_no_executor_of_processes(tmp_path: Path, kind: str) -> None:
    """Threads, this process itself, and what is no executor are refused in one line; one that is shut down, too."""
    run = record("Meter-v0", tmp_path / "run", 2)
    executor: Any = {"inline": Inline(), "none": map}.get(kind) or concurrent.futures.ThreadPoolExecutor(1)
    if kind == "shut down":
        executor = concurrent.futures.ProcessPoolExecutor(1)
        executor.shutdown()
        results = reenact.replay(run, "all", executor=executor)
        assert [result.verdict for result in results] == ["impossible"] * 2
        assert "executor" in str(results[0].error)
        return
    with pytest.raises(ReenactError, match="executor") as caught:
        reenact.replay(run, "all", executor=executor)
    assert "\n" not in str(caught.value)
    assert files(run / "videos") == []


# ---- chains


def test_chained_episodes_are_what_they_were(tmp_path: Path) -> None:
    """Where each episode needs all before it, two processes draw what was drawn live."""
    live = odd.record(odd.make(odd.Carries, memory=None), tmp_path / "run", odd.unseeded(16))
    results = reenact.replay(tmp_path / "run", "all", lossless=True, jobs=2)
    assert [result.verdict for result in results] == ["exact"] * 16
    for result, frames in zip(results, live, strict=True):
        assert (decode(result.path) == frames).all()


def test_chained_episodes_stay_together(tmp_path: Path) -> None:
    """Two processes do a pass of 60 episodes in few more resets than one does, and not in the 1,770 of singly ones."""
    odd.record(gym.make("JobCounted-v0"), tmp_path / "run", odd.unseeded(60), live=False)

    def resets(jobs: int) -> int:
        (tmp_path / "resets").write_bytes(b"")
        assert all(result.ok for result in reenact.verify(tmp_path / "run", jobs=jobs))
        return (tmp_path / "resets").stat().st_size

    alone = resets(1)
    assert 60 < alone < 300
    assert resets(2) < alone + 4 * (60 + 64)  # a rung after another, for what was begun before it was known


def test_a_run_is_followed_by_several(tmp_path: Path) -> None:
    """--follow with jobs films each pick once."""
    run = record("JobTold-v0", tmp_path / "run", 5)
    results = reenact.replay(run, every=2, follow=True, jobs=2)
    assert [(result.episode, result.verdict) for result in results] == [(0, "exact"), (2, "exact"), (4, "exact")]
    assert not (tmp_path / f"drawn-{os.getpid()}").exists()
    assert not any(has_banner(frame) for frame in decode(results[1].path))
