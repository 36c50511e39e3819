"""Segments: who may write them, and what is left of them however a process ends."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
import textwrap
import time
import warnings
from pathlib import Path
from typing import Any

import gymnasium as gym
import h5py
import numpy as np
import pytest

from bare import Bare, only, read, segments
from reenact import Recorder, RunError, RunExistsError
from reenact.segments import SegmentLog
from reenact.writer import Column, SegmentWriter

ROOT = Path(__file__).parents[1]
PRELUDE = """
import os, signal, sys, warnings
import gymnasium as gym
from reenact import Recorder
def record(run, episodes=3, **options):
    env = Recorder(gym.make("CartPole-v1"), run, **options)
    for episode in range(episodes):
        env.reset(seed=episode)
        ended = False
        while not ended:
            _, _, terminated, truncated, _ = env.step(episode % 2)
            ended = terminated or truncated
    env.reset(seed=99)
    env.step(0)
    env.step(1)
    return env
"""


def script(text: str, *arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Runs a training script of its own, a new launch."""
    environ = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "PYTHONWARNINGS": "error"}
    environ.pop("_REENACT_LAUNCH", None)
    return subprocess.run(
        [sys.executable, "-c", PRELUDE + textwrap.dedent(text), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=environ,
        cwd=cwd,
    )


def record(run: Path, episodes: int = 3, **options: Any) -> Recorder:
    """Records whole episodes and two steps of one more."""
    env = Recorder(gym.make("CartPole-v1"), run, **options)
    for episode in range(episodes):
        env.reset(seed=episode)
        ended = False
        while not ended:
            _, _, terminated, truncated, _ = env.step(episode % 2)
            ended = terminated or truncated
    env.reset(seed=99)
    env.step(0)
    env.step(1)
    return env


def is_whole(log: Bare) -> bool:
    """Whether three episodes and the two steps are there."""
    lengths = log.rows["length"].tolist()
    return log.ended == ["terminated"] * 3 + ["interrupted"] and lengths[-1] == 2 and min(lengths) > 0


@pytest.mark.parametrize(
    ("ending", "code"),
    [("pass", 0), ("sys.exit(3)", 3), ("raise LookupError", 1), ("del env", 0), ("env.close()", 0)],
)
def test_exits_without_close(ending: str, code: int, tmp_path: Path) -> None:
    """However the interpreter ends in good order, the log is whole and closed, close() called or not."""
    done = script(f"env = record(sys.argv[1])\n{ending}", tmp_path / "run")
    assert done.returncode == code, done.stderr
    log = only(tmp_path / "run")
    assert log.closed
    assert is_whole(log)
    with h5py.File(log.path, "r") as file:  # opens without SWMR only if it was closed
        assert len(file["episodes"]) == 4


@pytest.mark.parametrize("ending", ["os._exit(0)", "os.kill(os.getpid(), signal.SIGKILL)", "os.abort()"])
def test_kills_after_flush(ending: str, tmp_path: Path) -> None:
    """A process that is killed loses nothing of what flush() committed: the episode that ran included."""
    done = script(f"env = record(sys.argv[1], flush_seconds=1e6)\nenv.flush()\nenv.step(0)\n{ending}", tmp_path / "run")
    assert "Traceback" not in done.stderr
    log = only(tmp_path / "run")
    assert not log.closed
    assert log.ended == ["terminated"] * 3
    assert log.open is not None
    assert (int(log.open["length"]), int(log.open["seed"]), int(log.open["ended"])) == (2, 99, 3)
    assert log.column("action/value", log.open).tolist() == [0, 1]


def test_random_kills(tmp_path: Path) -> None:
    """Killed at whatever moment while it commits at every look, a segment holds only whole episodes."""
    code = """
env = Recorder(gym.make("CartPole-v1"), sys.argv[1], flush_seconds=1e-6)
for episode in range(1000000):
    env.reset(seed=episode)
    while not any(env.step(episode % 2)[2:4]):
        print(episode, flush=True)
"""
    environ = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    for number in range(4):
        run = tmp_path / str(number)
        command = [sys.executable, "-c", PRELUDE + code, str(run)]
        with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for _ in range(300 + 37 * number):
                process.stdout.readline()
            process.kill()
        log = read(run / "segment-00000.h5")
        assert not log.closed
        assert len(log.rows) > 10
        assert log.rows["seed"].tolist() == list(range(len(log.rows)))


def work(run: Path, first: int) -> None:
    """What a worker does: records, and doesn't close."""
    warnings.simplefilter("error")
    env = record(run)
    assert first >= 0
    globals()["kept"] = env  # so that it is the process's end that closes it


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_workers(method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers of every start method record into their parent's run, each a segment, whole without close()."""
    monkeypatch.setenv("PYTHONPATH", f"{ROOT / 'src'}{os.pathsep}{ROOT / 'tests'}")
    env = record(tmp_path / "run")
    context = multiprocessing.get_context(method)
    workers = [context.Process(target=work, args=(tmp_path / "run", n)) for n in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
        assert worker.exitcode == 0
    env.close()
    logs = segments(tmp_path / "run")
    assert len(logs) == 4
    assert all(log.closed and is_whole(log) for log in logs)
    assert len({log.attrs["run"] for log in logs}) == len({log.attrs["launch"] for log in logs}) == 1
    assert sorted(path.name for path in (tmp_path / "run").iterdir() if path.suffix != ".h5") == ["run.json"]


def test_async_vector_env(tmp_path: Path) -> None:
    """Recorders inside AsyncVectorEnv's workers log into one run, and their segments are closed."""
    done = script(
        """
        import numpy as np
        run = sys.argv[1]
        if __name__ == "__main__":
            make = lambda: Recorder(gym.make("CartPole-v1"), run)
            envs = gym.vector.AsyncVectorEnv([make, make])
            envs.reset(seed=1)
            for _ in range(100):
                envs.step(np.array([0, 1]))
            envs.close()
        """,
        tmp_path / "run",
    )
    assert done.returncode == 0, done.stderr
    logs = segments(tmp_path / "run")
    assert len(logs) == 2
    assert all(log.closed and len(log.rows) > 5 for log in logs)


@pytest.mark.parametrize("ending", ["os._exit(0)", "sys.exit(0)"])
def test_raw_fork(ending: str, tmp_path: Path) -> None:
    """A child forked in mid-episode leaves the parent's segment alone and gets one of its own."""
    done = script(
        f"""
        env = record(sys.argv[1])
        env.flush()
        from pathlib import Path
        path = Path(sys.argv[1], "segment-00000.h5")
        before = path.read_bytes()
        child = os.fork()
        if child == 0:
            env.step(0)
            env.flush()
            for _ in range(4):
                env.step(0)
            env.reset(seed=5)
            env.step(0)
            env.flush()
            {ending}
        assert os.waitpid(child, 0)[1] == 0
        assert path.read_bytes() == before
        env.step(1)
        env.close()
        """,
        tmp_path / "run",
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    parent, child = segments(tmp_path / "run")
    assert parent.closed
    assert parent.rows["length"][-1] == 3
    assert child.attrs["predecessor"] == -1
    assert child.attrs["used_before"] == 1
    if child.closed:
        assert child.rows["seed"].tolist() == [5]
    else:
        assert child.open is not None
        assert child.open["seed"] == 5


def test_a_forked_child_reads_what_its_parent_writes(tmp_path: Path) -> None:
    """HDF5 gives a process one file: the child must not be given its parent's, whose descriptor it has swapped."""
    done = script(
        """
        env = record(sys.argv[1], episodes=6000)  # more than HDF5 keeps in memory
        env.flush()
        child = os.fork()
        if child == 0:
            import reenact
            run = reenact.open_run(sys.argv[1])
            good = len(run) == 6000 and all(len(episode.actions) == episode.length for episode in run[::100])
            os._exit(0 if good and len(run.live) == 1 else 1)
        assert os.waitpid(child, 0)[1] == 0
        env.close()
        """,
        tmp_path / "run",
    )
    assert done.returncode == 0, done.stderr


def test_second_launch(tmp_path: Path) -> None:
    """A run of an earlier launch is refused before anything is written; resume=True goes on with it."""
    run = tmp_path / "run"
    assert script("record(sys.argv[1]).close()", run).returncode == 0
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    refused = script("record(sys.argv[1])", run)
    assert refused.returncode == 1
    assert "RunExistsError" in refused.stderr
    assert "1 segment, " in refused.stderr
    assert "resume=True" in refused.stderr
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before
    with pytest.raises(RunExistsError, match="resume=True"):
        Recorder(gym.make("CartPole-v1"), run)
    resumed = script("record(sys.argv[1], resume=True).close(); record(sys.argv[1]).close()", run)
    assert resumed.returncode == 0, resumed.stderr
    logs = segments(run)
    assert [log.path.name for log in logs] == [f"segment-{n:05d}.h5" for n in range(3)]
    assert logs[0].path.read_bytes() == before["segment-00000.h5"]
    assert len({log.attrs["run"] for log in logs}) == 1
    assert len({log.attrs["launch"] for log in logs}) == 2
    assert [log.attrs["predecessor"] for log in logs] == [-1, -1, -1]


def test_a_script_started_by_a_script_is_another_launch(tmp_path: Path) -> None:
    """A script that a recording script starts is a launch of its own: it may not join that run unasked."""
    done = script(
        """
        import subprocess
        env = record(sys.argv[1])
        code = "import sys, gymnasium as gym; from reenact import Recorder; "
        code += "Recorder(gym.make('CartPole-v1'), sys.argv[1])"
        inner = subprocess.run([sys.executable, "-c", code, sys.argv[1]], capture_output=True, text=True)
        assert "RunExistsError" in inner.stderr, inner
        env.close()
        """,
        tmp_path / "run",
    )
    assert done.returncode == 0, done.stderr


def test_workers_of_a_script_started_by_a_script(tmp_path: Path) -> None:
    """Nor may that script's workers, even where it leaves all the recording to them."""
    (tmp_path / "inner.py").write_text(
        PRELUDE
        + """
import multiprocessing
if __name__ == "__main__":
    for method in ("fork", "spawn", "forkserver"):
        worker = multiprocessing.get_context(method).Process(target=record, args=(sys.argv[1],))
        worker.start()
        worker.join()
        print(worker.exitcode)
"""
    )
    done = script(
        """
        import subprocess
        env = record(sys.argv[1])
        inner = subprocess.run([sys.executable, sys.argv[2], sys.argv[1]], capture_output=True, text=True)
        assert inner.stdout.split() == ["1", "1", "1"], inner
        assert inner.stderr.count("RunExistsError:") == 3, inner
        env.close()
        """,
        tmp_path / "run",
        tmp_path / "inner.py",
    )
    assert done.returncode == 0, done.stderr


def test_default_run(tmp_path: Path) -> None:
    """Without a name, a launch's recorders on one env share runs/<env id>-<date>-<time>; "/" becomes "-"."""
    done = script(
        """
        gym.register("ns/Pole-v0", "gymnasium.envs.classic_control:CartPoleEnv")
        for name in ("CartPole-v1", "CartPole-v1", "ns/Pole-v0"):
            env = Recorder(gym.make(name))
            env.reset(seed=1)
            env.step(0)
        """,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    plain, spaced = sorted((tmp_path / "runs").iterdir())
    assert plain.name.startswith("CartPole-v1-2")
    assert spaced.name.startswith("ns-Pole-v0-2")
    assert plain.name[-15:] == spaced.name[-15:]
    assert time.strptime(plain.name[-15:], "%Y%m%d-%H%M%S")
    assert len(segments(plain)) == 2


def test_run_that_is_a_file(tmp_path: Path) -> None:
    """A run that is a file is refused at construction; a folder that can't be made, at the first reset."""
    (tmp_path / "file").write_text("mine")
    with pytest.raises(RunError, match="a run is a folder"):
        Recorder(gym.make("CartPole-v1"), tmp_path / "file")
    with pytest.raises(RunError, match=r"can't record into .*/run: Not a directory: give another run=$"):
        Recorder(gym.make("CartPole-v1"), tmp_path / "file" / "run").reset()
    assert (tmp_path / "file").read_text() == "mine"


def test_file_format(tmp_path: Path) -> None:
    """A segment is an HDF5 1.10 file of flat, uncompressed, chunked tables without variable-length types."""
    record(tmp_path / "run", step_durations=True, info_keywords=("x",)).close()
    path = tmp_path / "run" / "segment-00000.h5"
    chunks: dict[str, Any] = {}

    def look(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset):
            assert not item.dtype.hasobject
            assert item.compression is None
            assert not item.is_virtual
            assert not item.external
            chunks[name] = item.chunks

    with h5py.File(path, "r") as file:
        file.visititems(look)
        assert file.attrs["format"] == b"reenact-segment"
        assert file.attrs["version"] == 1
        assert {
            "run",
            "recipe",
            "signature",
            "versions",
            "role",
            "predecessor",
            "gap",
            "used_before",
            "batch_width",
        } <= set(file.attrs)
        assert json.loads(file.attrs["columns"]) == ["action/value", "reward", "duration"]
        assert file["steps/action/value"].dtype == np.int8
        assert file["steps/reward"].dtype == np.float64
    assert chunks == {
        "steps/action/value": (4096,), "steps/reward": (4096,), "steps/duration": (4096,), "episodes": (256,),
        "fingerprints": (1024,), "kinds": (1024,), "states": (1024,), "heap": (65536,),
        "open": None, "status": None,
    }  # fmt: skip
    assert path.read_bytes()[8] == 3  # the superblock's version: v110, that SWMR needs and older libraries read


def test_every_moment_of_a_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At every flush, a second process finds rows that refer to nothing beyond the end."""
    run, seen = tmp_path / "run", []
    look = "import sys; sys.path.insert(0, sys.argv[1]); import bare; print(len(bare.only(sys.argv[2]).rows))"

    def spy(method: Any) -> Any:
        def spied(self: SegmentWriter, *args: Any, **kwargs: Any) -> None:
            method(self, *args, **kwargs)
            done = subprocess.run(
                [sys.executable, "-c", look, str(ROOT / "tests"), str(run)],
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stderr
            seen.append(int(done.stdout))

        return spied

    env = Recorder(gym.make("CartPole-v1"), run)
    env.reset(seed=0)
    monkeypatch.setattr(SegmentWriter, "flush", spy(SegmentWriter.flush))
    monkeypatch.setattr(SegmentWriter, "commit_rows", spy(SegmentWriter.commit_rows))
    for episode in range(3):
        env.reset(seed=episode)
        for step in range(5):
            env.step(step % 2)
        env.flush()
    monkeypatch.undo()
    env.close()
    assert seen == [0, 1, 1, 1, 2, 2, 2, 3, 3]  # a commit flushes before its rows, after them, and at its end


@pytest.mark.parametrize("interrupt", [OSError("No space left on device"), KeyboardInterrupt()])
def test_failure_in_a_commit(interrupt: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a failure in mid-commit what was committed stays, and a new segment says that there is a gap."""
    env = record(tmp_path / "run")
    env.flush()
    before = (tmp_path / "run" / "segment-00000.h5").read_bytes()

    def fail(*_: object) -> None:
        raise interrupt

    with monkeypatch.context() as patch:
        append = Column.append
        calls = iter(range(100))
        patch.setattr(Column, "append", lambda *args: append(*args) if next(calls) < 1 else fail())
        env.step(0)
        if isinstance(interrupt, OSError):
            with pytest.warns(RuntimeWarning, match=r"stopped at .*No space left.*training goes on") as said:
                env.flush()
            assert len(said) == 1
        else:
            with pytest.raises(KeyboardInterrupt):
                env.flush()
        for _ in range(4):
            env.step(0)
        assert env.episode_lengths >= 3
    first = only(tmp_path / "run")
    assert first.ended == ["terminated"] * 3
    assert not first.closed
    assert first.open is not None
    assert len(before) <= first.path.stat().st_size
    env._log._suspended_until = 0.0  # noqa: SLF001  # no waiting in tests
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        env.reset(seed=7)
    env.step(1)
    env.close()
    _, second = segments(tmp_path / "run")
    assert (second.attrs["predecessor"], second.attrs["gap"]) == (0, 1)
    assert second.rows["seed"].tolist() == [7]
    assert second.column("action/value", second.rows[0]).tolist() == [1]


def test_disk_that_stays_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While no new segment can be made, training goes on, and it is said once."""
    env = record(tmp_path / "run")

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("No space left on device")

    monkeypatch.setattr(SegmentLog, "_commit", fail)
    monkeypatch.setattr(SegmentLog, "_open_segment", fail)
    with pytest.warns(RuntimeWarning, match="stopped at") as said:  # noqa: PT031  # once in all
        env.flush()
        for seed in range(5):
            env._log._suspended_until = 0.0  # noqa: SLF001
            env.reset(seed=seed)
            while not any((result := env.step(0))[2:4]):
                pass
        env.close()
    assert len(said) == 1
    assert result[4]["episode"]["l"] == env.length_queue[-1] == env.episode_lengths
    assert env.episode_count == 8


@pytest.mark.parametrize("links", [True, False])
def test_claims(links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A claim that a kill left is passed over, also where a file system has no hard links; no segment is replaced."""

    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    if not links:
        monkeypatch.setattr(os, "link", refuse)
    record(tmp_path / "run").close()
    (tmp_path / "run" / "segment-00001.claim").touch()
    record(tmp_path / "run").close()
    (tmp_path / "run" / "segment-00000.h5").unlink()
    record(tmp_path / "run").close()
    assert [log.path.name for log in segments(tmp_path / "run")] == ["segment-00002.h5", "segment-00003.h5"]


def test_the_test_reader_can_fail(tmp_path: Path) -> None:
    """The checks that these tests rest on fail on one flipped bit, of a step or of a row."""
    record(tmp_path / "run").close()
    path = tmp_path / "run" / "segment-00000.h5"
    whole = path.read_bytes()
    with h5py.File(path, "r") as file:
        places = [
            file["steps/reward"].id.get_chunk_info(0).byte_offset,
            file["episodes"].id.get_chunk_info(0).byte_offset,
        ]
    for place in places:
        damaged = bytearray(whole)
        damaged[place + 3] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(AssertionError):
            read(path)
    path.write_bytes(whole)
    assert is_whole(read(path))
