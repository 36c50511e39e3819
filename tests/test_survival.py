"""What a run outlives: disks that fail, many processes and threads, restarts, idle recorders, notebooks."""

from __future__ import annotations

import copy
import json
import multiprocessing
import os
import pickle
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
import types
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import h5py
import numpy as np
import pytest

import reenact
from bare import segments
from reenact import Recorder, RunExistsError, folder
from reenact.process import this_launch
from reenact.writer import Column, SegmentWriter
from test_segments import ROOT, record, script

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FULL_DISK = """
import resource, time, warnings
from reenact import segments
segments.RETRY_S = 0.0
warnings.simplefilter("always")
env = Recorder(gym.make("CartPole-v1"), sys.argv[1], flush_seconds=1e-6)
def play(episodes):
    for _ in range(episodes):
        env.reset()
        while not any(env.step(0)[2:4]):
            pass
play(20)
env.flush()
print(env.episode_count)
"""


def play(env: gym.Env[Any, Any], episodes: int, action: int = 0) -> None:
    """Plays whole episodes."""
    for _ in range(episodes):
        env.reset()
        while not any(env.step(action)[2:4]):
            pass


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path | None]:
    """A file system of 2 MB, where this machine lets us mount one; else None."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = shutil.which("mount")
    command = [mount or "mount", "-t", "tmpfs", "-o", "size=2m", "reenact-test", str(place)]
    if mount is None or subprocess.run(command, capture_output=True, check=False).returncode:
        yield None
        return
    yield place
    subprocess.run([shutil.which("umount") or "umount", "-l", str(place)], check=True)


# ---- disks


def test_full_disk(tmp_path: Path, small_disk: Path | None) -> None:
    """On a full disk training goes on, one line says so and one when it is over; the process ends as it should."""
    if small_disk is None:
        place = tmp_path
        fill = "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, -1))"
        free = "resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1))"
    else:
        place = small_disk
        fill = """
filler = open(sys.argv[1] + "/../filler", "wb", 0)
try:
    while True:
        filler.write(bytes(4096))
except OSError:
    pass
"""
        free = "filler.close(); os.remove(filler.name)"
    run = place / "run"
    done = script(f"{FULL_DISK}\n{fill}\nplay(400)\n{free}\nplay(30)\nprint(env.episode_count)\nenv.close()", run)
    assert done.returncode == 0, done.stderr
    assert [int(line) for line in done.stdout.split()] == [20, 450]
    stopped, resumed = [line for line in done.stderr.splitlines() if "reenact: " in line]
    assert "training goes on without a log" in stopped
    assert ("No space left on device" if small_disk else "File too large") in stopped
    assert "goes on at" in resumed
    assert "Traceback" not in done.stderr
    logs = segments(run)
    assert len(logs) == 2
    assert logs[0].ended[:20] == ["terminated"] * 20
    assert logs[1].ended == ["terminated"] * len(logs[1].rows)
    assert (logs[1].attrs["predecessor"], logs[1].attrs["gap"], logs[1].closed) == (0, 1, True)
    opened = reenact.open_run(run)
    assert len(opened.returns) == len(opened) >= 50
    assert {result.verdict for result in reenact.verify(run, [0, 19, -1])} == {"exact"}


def test_kinds_that_found_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that a failed commit made room for, and never wrote, are no damage to the episodes before them."""
    env = Recorder(gym.make("CartPole-v1"), tmp_path / "run", flush_seconds=1e6)
    play(env, 2)
    env.flush()
    env.reset()
    env.step(np.int64(1))  # of another kind than before

    def fail(column: Column, values: Any) -> None:
        column._id.set_extent((column.rows + len(values),))  # noqa: SLF001  # what HDF5 may have done by then
        h5py.h5f.flush(column._id)  # noqa: SLF001
        raise OSError(28, "No space left on device")

    kinds = env._log._writer.kinds  # type: ignore[union-attr]  # noqa: SLF001  # it has one
    monkeypatch.setattr(kinds, "append", lambda values: fail(kinds, values))
    with pytest.warns(RuntimeWarning, match="No space left"):
        env.flush()
    monkeypatch.undo()
    path = tmp_path / "run" / "segment-00000.h5"
    with h5py.File(path, "r", swmr=True, locking=False) as file:
        assert file["kinds"][1].tobytes() == bytes(file["kinds"].dtype.itemsize)
    episodes = list(reenact.open_run(tmp_path / "run"))
    assert [set(map(type, episode.actions)) for episode in episodes] == [{int}] * 2


@pytest.mark.parametrize("ending", ["env.close()", "sys.exit(0)", "raise LookupError"])
def test_disk_that_is_full_at_the_end(ending: str, tmp_path: Path) -> None:
    """A process whose last commit finds no room ends with its own exit code, not with HDF5's crash."""
    fill = "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, -1))"
    done = script(f"{FULL_DISK}\n{fill}\nplay(400)\n{ending}", tmp_path / "run")
    assert done.returncode == (1 if "raise" in ending else 0), done.stderr
    assert done.stderr.count("reenact: ") == 1
    assert len(reenact.open_run(tmp_path / "run")) >= 20


@pytest.mark.parametrize("victim", ["run", "run/segment-00000.h5"])
def test_what_is_deleted_under_a_training(victim: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run or a segment that somebody deletes is noticed at the next commit, and logging goes on in a new segment."""
    monkeypatch.setattr("reenact.segments.RETRY_S", 0.0)
    env = record(tmp_path / "run")
    env.flush()
    gone = tmp_path / victim
    shutil.rmtree(gone) if gone.is_dir() else gone.unlink()
    play(env, 1)
    with pytest.warns(RuntimeWarning, match=r"stopped at .* the file was deleted") as told:
        env.flush()
    assert "stays readable" not in str(told[0].message)  # it does not
    with pytest.warns(RuntimeWarning, match=r"goes on at .* in segment 0; \d+ steps before are in no log"):
        play(env, 2)
    env.close()
    (log,) = segments(tmp_path / "run")
    assert log.ended == ["terminated"] * 2
    assert (log.attrs["gap"], log.closed) == (1, True)


def test_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With durable=True a commit returns when the disk has the file, and a new file's name has been put in its folder."""
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_ino))
    env = record(tmp_path / "run", durable=True)
    segment = (tmp_path / "run" / "segment-00000.h5").stat().st_ino
    assert synced[0] == segment
    assert set(synced) == {segment, tmp_path.stat().st_ino, (tmp_path / "run").stat().st_ino}
    synced.clear()
    env.flush()
    assert set(synced) == {segment}
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(5, "Input/output error")))
    with pytest.warns(RuntimeWarning, match="Input/output error"):
        env.flush()
    monkeypatch.undo()
    env.close()
    other = record(tmp_path / "other")
    monkeypatch.setattr(os, "fsync", lambda _: pytest.fail("not asked for"))
    other.close()


def test_every_moment_of_a_widening(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While an action that fits no column moves its episode to a new segment, one of the two always holds it, once."""
    env = Recorder(gym.make("Pendulum-v1"), tmp_path / "run", flush_seconds=1e6)
    env.reset(seed=1)
    for _ in range(10):
        env.step(np.array([0.5], np.float32))
    env.flush()
    env.step([0.1])  # a Python float, which float32 can't hold
    moments: list[Path] = []

    def watched(name: str) -> Callable[..., Any]:
        call = getattr(SegmentWriter, name)

        def spy(self: SegmentWriter, *given: Any, **named: Any) -> Any:
            for when in ("before", "after"):
                if when == "after":
                    result = call(self, *given, **named)
                moments.append(tmp_path / f"{len(moments):03d}")
                shutil.copytree(tmp_path / "run", moments[-1])
            return result

        return spy

    with monkeypatch.context() as patch:
        for name in ("flush", "commit_rows", "close", "_make"):
            patch.setattr(SegmentWriter, name, watched(name))
        env.flush()
    assert len(moments) > 8
    for path in moments:
        (running,) = reenact.open_run(path).live
        assert running.length in (10, 11)
        assert len(running.actions) == running.length
    env.close()
    last = reenact.open_run(tmp_path / "run")
    assert [(segment.state, segment.episodes) for segment in last.segments] == [("closed", 0), ("closed", 1)]
    assert [result.verdict for result in reenact.verify(last)] == ["exact"]


def test_a_disk_that_fails_in_the_middle_of_a_widening(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The old segment, whose place nothing has taken, keeps its episode and holds up no number."""
    monkeypatch.setattr("reenact.segments.RETRY_S", 0.0)
    env = Recorder(gym.make("Pendulum-v1"), tmp_path / "run", flush_seconds=1e6)
    env.reset(seed=1)
    for _ in range(10):
        env.step(np.array([0.5], np.float32))
    env.flush()
    env.step([0.1])

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(SegmentWriter, "commit_rows", fail)
        with pytest.warns(RuntimeWarning, match="No space left"):
            env.flush()
    with pytest.warns(RuntimeWarning, match="goes on"):
        env.reset(seed=2)
    env.step([0.1])
    env.reset(seed=3)
    env.step([0.1])
    env.flush()
    run = reenact.open_run(tmp_path / "run")
    assert [(episode.length, episode.ended) for episode in run] == [(10, "interrupted"), (1, "interrupted")]
    assert [episode.length for episode in run.live] == [1]
    env.close()


# ---- processes and threads


def _worker(run: Path, action: int) -> None:
    warnings.simplefilter("error")
    env = Recorder(gym.make("CartPole-v1"), run, flush_seconds=0.01)
    play(env, 60, action % 2)
    env.reset(seed=action)
    env.step(action % 2)


def test_eight_processes_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight processes record into one run: nothing lost, nothing mixed, nothing left over."""
    monkeypatch.setenv("PYTHONPATH", f"{ROOT / 'src'}{os.pathsep}{ROOT / 'tests'}")
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_worker, args=(tmp_path / "run", n)) for n in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
        assert worker.exitcode == 0
    logs = segments(tmp_path / "run")
    assert {path.name for path in (tmp_path / "run").iterdir()} == {log.path.name for log in logs} | {"run.json"}
    assert sorted(int(log.rows["seed"][-1]) for log in logs) == list(range(8))
    for log in logs:
        assert log.closed
        assert log.ended == ["terminated"] * 60 + ["interrupted"]
        assert set(log.columns["action/value"].tolist()) == {int(log.rows["seed"][-1]) % 2}
    run = reenact.open_run(tmp_path / "run")
    assert len(run) == 8 * 61
    assert (np.diff([episode.end_time.astype(int) for episode in run]) >= 0).all()


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("what", ["folder", "run", "segment"])
def test_a_sibling_may_begin_at_any_moment(what: str, when: str, tmp_path: Path) -> None:
    """Whichever look at the folder another process of the launch comes just before or after, both record into one run."""
    launch, looks = this_launch(), ["exists", "is_dir", "glob", "mkdir"]

    def begin(run: Path) -> None:
        run.mkdir(exist_ok=True)
        if what != "folder":
            folder.join(run, launch, resume=False)
        if what == "segment":
            (run / "segment-00000.h5").touch()

    seen = 1
    for number in range(50):
        run, left = tmp_path / f"{number}", [number]
        with pytest.MonkeyPatch.context() as patch:
            for name in looks:
                plain = getattr(Path, name)

                def look(
                    self: Path, *given: Any, plain: Any = plain, run: Path = run, left: Any = left, **more: Any
                ) -> Any:
                    left[0] -= 1
                    comes = left[0] == -1
                    if comes and when == "before":
                        begin(run)
                    found = plain(self, *given, **more)
                    if comes and when == "after":
                        begin(run)
                    return found

                patch.setattr(Path, name, look)
            joined = folder.join(run, launch, resume=False)
        assert json.loads((run / "run.json").read_text())["run"] == joined
        if left[0] >= 0:
            break  # there were no more looks
        seen += 1
    assert 5 < seen < 50


def test_threads_with_an_env_each(tmp_path: Path) -> None:
    """Threads that step an env each, made and reset elsewhere, log it whole, while idle ones commit for others."""
    envs = [Recorder(gym.make("CartPole-v1"), tmp_path / "run", flush_seconds=1e-3) for _ in range(4)]
    for env in envs:
        env.reset(seed=1)
    threads = [threading.Thread(target=play, args=(env, 40, n % 2)) for n, env in enumerate(envs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for env in envs:
        env.close()
    logs = segments(tmp_path / "run")
    assert len(logs) == 4
    for log in logs:
        assert log.ended == ["nothing"] + ["terminated"] * 40
        assert len(set(log.columns["action/value"].tolist())) == 1


def test_an_idle_recorder_holds_nobody_up(tmp_path: Path) -> None:
    """What an idle evaluation has finished is committed by the training beside it, whose numbers don't wait for it."""
    train = Recorder(gym.make("CartPole-v1"), tmp_path / "run", flush_seconds=0.05)
    idle = Recorder(gym.make("CartPole-v1"), tmp_path / "run", flush_seconds=0.05, role="eval")
    play(train, 1)
    play(idle, 1)
    until = time.monotonic() + 30
    while time.monotonic() < until:
        play(train, 10)
        run = reenact.open_run(tmp_path / "run")
        if set(run.segment_numbers.tolist()) == {0, 1} and len(run) > 50:
            break
    else:
        pytest.fail("the evaluation's episode, or those after it, never got a number")
    train.close()
    idle.close()


def test_a_recorder_inside_a_recorder(tmp_path: Path) -> None:
    """A recorder whose commit comes in the midst of another's step leaves that one's log whole."""
    inner = Recorder(gym.make("CartPole-v1"), tmp_path / "inner", flush_seconds=1e-6)
    outer = Recorder(inner, tmp_path / "outer", flush_seconds=2e-6, stats_key="outer")
    for episode in range(20):
        outer.reset(seed=episode)
        while not any(outer.step(episode % 2)[2:4]):
            pass
    outer.close()
    for name in ("inner", "outer"):
        (log,) = segments(tmp_path / name)
        assert log.ended == ["terminated"] * 20
        for episode, row in enumerate(log.rows):
            assert set(log.column("action/value", row).tolist()) == {episode % 2}


def _ignored(_: object) -> None:
    """What a worker would do with an env that was sent to it."""


def test_a_recorder_is_not_copied(tmp_path: Path) -> None:
    """Pickled, copied or sent to another process, a recorder says what to do instead; its env can be copied."""
    env = record(tmp_path / "run", episodes=0)
    for copied in (copy.deepcopy, copy.copy, pickle.dumps):
        with pytest.raises(TypeError, match=r"reenact\.recording\(run\), which wraps .* copy recorder\.env"):
            copied(env)
    with pytest.raises(TypeError, match="sent to another process"):
        multiprocessing.get_context("spawn").Process(target=_ignored, args=(env,)).start()
    bare = copy.deepcopy(env.env)
    assert not isinstance(bare, Recorder)
    expected = env.step(1)
    found = bare.step(1)
    assert found[0].tolist() == expected[0].tolist()
    env.close()
    (log,) = segments(tmp_path / "run")
    assert log.rows["length"].tolist() == [3]


# ---- starts


def test_resume_after_kills(tmp_path: Path) -> None:
    """Killed and started again, as a job scheduler does it, a run's numbers go on: none moves, none is used twice."""
    run = tmp_path / "run"
    seen: list[tuple[str, float]] = []
    for start in range(4):
        done = script(
            """
            env = Recorder(gym.make("CartPole-v1"), sys.argv[1], resume=True, flush_seconds=1e6)
            for _ in range(5):
                env.reset()
                while not any(env.step(0)[2:4]):
                    pass
            env.reset()
            env.step(1)
            env.flush()
            """
            + ("env.close()" if start == 1 else f"os.kill(os.getpid(), {int(signal.SIGKILL)})"),
            run,
        )
        assert done.returncode in (0, -signal.SIGKILL), done.stderr
        opened = reenact.open_run(run)
        now = [(episode.address, episode.return_) for episode in opened]
        assert now[: len(seen)] == seen
        assert len(now) == 6 * (start + 1)
        assert opened.ended[-1] == "interrupted"
        assert opened.live == []
        seen = now
    assert len({reenact.open_run(segment.path).uuid for segment in opened.segments}) == 1
    assert {result.verdict for result in reenact.verify(run)} == {"exact"}


def test_a_start_that_was_killed_before_it_recorded(tmp_path: Path) -> None:
    """A launch that died with nothing recorded does not have to be resumed; one that lives keeps its folder."""
    run = tmp_path / "run"
    dies = """
    from reenact import writer
    writer.SegmentWriter._make = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
    record(sys.argv[1])
    """
    assert script(dies, run).returncode == -signal.SIGKILL
    assert (run / "run.json").exists()
    left = next(run.glob(".*.part"))
    record(run).close()
    assert left.exists()  # it could be another process's, being made just now
    os.utime(left, (1, 1))
    record(run).close()
    assert not left.exists()
    assert len(segments(run)) == 2


class _Shell:
    """As much of IPython's shell as tells a cell's starts apart."""

    def __init__(self) -> None:
        self.execution_count, self.cell = 0, ""

    def get_parent(self) -> dict[str, Any]:
        return {"metadata": {"cellId": self.cell} if self.cell else {}}

    def run(self, cell: str, code: Callable[[], Any]) -> Any:
        self.execution_count += 1
        self.cell = cell
        return code()


def test_a_notebook_cell_that_is_started_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second start of a cell is refused its run as a second start of a script is; other cells may join."""
    shell = _Shell()
    ipython = types.ModuleType("IPython")
    ipython.get_ipython = lambda: shell  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setattr("reenact.process._launch", None)
    monkeypatch.chdir(tmp_path)
    made = shell.run("a", lambda: Recorder(gym.make("CartPole-v1"), "run"))
    shell.run("b", lambda: play(made, 1))  # made in one cell, trained in the next
    with pytest.raises(RunExistsError, match=r"an earlier start of a cell in this session .* resume=True"):
        shell.run("a", lambda: record(Path("run")))
    shell.run("c", lambda: record(Path("run"), role="eval")).close()
    with pytest.raises(RunExistsError, match="resume=True"):
        shell.run("c", lambda: record(Path("run"), role="eval"))
    shell.run("a", lambda: record(Path("run"), resume=True)).close()
    with pytest.raises(RunExistsError, match="resume=True"):
        shell.run("", lambda: record(Path("run")))  # a front end that does not name its cells
    unnamed = [shell.run("a", lambda: record(None)) for _ in range(2)]  # type: ignore[arg-type]
    assert len({env.run for env in unnamed}) == 2
    for env in (made, *unnamed):
        env.close()
    assert len(segments(tmp_path / "run")) == 3


# ---- file systems


def test_network_file_systems_are_known(tmp_path: Path) -> None:
    """A run on NFS, SMB or FUSE is known by its mount point, the longest that leads to it; a disk of this machine is not."""
    (tmp_path / "a b").mkdir()
    mounts = f"""\
22 1 0:20 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:44 / {tmp_path} rw,relatime shared:2 - nfs4 server:/export rw
31 30 0:45 / {tmp_path}/a\\040b rw - xfs /dev/sdb1 rw
"""
    assert folder.network(tmp_path, mounts) == "nfs4"
    assert folder.network(tmp_path / "a b", mounts) is None
    assert folder.network(Path("/"), mounts) is None
    for kind, expected in (("cifs", "cifs"), ("fuse.sshfs", "fuse.sshfs"), ("fuse.fuse-overlayfs", None), ("9p", "9p")):
        assert folder.network(tmp_path, mounts.replace("nfs4", kind)) == expected
    assert folder.network(tmp_path, "") is None


def test_a_run_on_a_network_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its maker is told once what can't be promised there, and the way round; what is recorded is whole."""
    mounts = tmp_path / "mountinfo"
    mounts.write_text(f"30 22 0:44 / {tmp_path} rw,relatime shared:2 - fuse.sshfs me@there: rw\n")
    monkeypatch.setattr(folder, "_MOUNTS", mounts)
    with pytest.warns(UserWarning, match=r"network file system \(fuse\.sshfs\).* move the run when it is closed"):
        record(tmp_path / "run").close()
    record(tmp_path / "run").close()
    assert len(segments(tmp_path / "run")) == 2


def test_the_file_limit_can_be_reached() -> None:
    """The other way to fill a disk works here: Python ignores SIGXFSZ, so that a write fails instead."""
    assert signal.getsignal(signal.SIGXFSZ) is signal.SIG_IGN
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[1] == resource.RLIM_INFINITY
