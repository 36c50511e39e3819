"""Packed files: the same run in one compressed file, to the bit; or a few episodes and all that these start from."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zlib import crc32

import gymnasium as gym
import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import bare
import odd_envs as odd
import reenact
from odd_envs import CUT, ERROR, NO_STEP, TRAIL, make, record, unseeded
from reenact import archive, copying, ladder

if TYPE_CHECKING:
    from collections.abc import Callable

SOURCE = Path(reenact.__file__).resolve().parents[1]
GOLDEN = Path(__file__).parent / "data" / "format-1"
MIXED: odd.Script = [
    (3, ""), (None, TRAIL), (None, NO_STEP), (None, CUT), (None, ERROR), (None, ""), (8, ""), (None, NO_STEP), (None, TRAIL), (None, ""), (None, CUT)
]  # fmt: skip
SCRIPTS = st.lists(
    st.tuples(st.sampled_from([None, 3, 2**70]), st.sampled_from(["", TRAIL, NO_STEP, CUT, ERROR])),
    min_size=2,
    max_size=9,
).filter(lambda script: any(what != NO_STEP for _, what in script))


@pytest.fixture(autouse=True)
def _own_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def digest(episode: reenact.Episode) -> str:
    """All that an episode gives out."""
    return f"{episode!r} {episode.data()!r} {episode.info} {episode.label} {episode.end_time} {episode.elapsed}"


def table(run: reenact.Run) -> list[Any]:
    """All that selections need of a run."""
    columns = (run.returns, run.lengths, run.seeds, run.ended, run.segment_numbers, run.segment_indices, run.started)
    return [column.tolist() for column in columns]


def datasets(place: h5py.Group) -> dict[str, np.ndarray]:
    """All datasets of a segment, by name."""
    found: dict[str, np.ndarray] = {}
    place.visititems(lambda name, item: found.update({name: item[:]} if isinstance(item, h5py.Dataset) else {}))
    return found


def assert_same_segment(path: Path, packed: Path) -> None:
    """By h5py alone: the group in the packed file holds what the segment's file does, and is compressed."""
    with h5py.File(path, "r", locking=False) as one, h5py.File(packed, "r", locking=False) as other:
        group = other[path.stem]
        assert {name: one.attrs[name] for name in one.attrs} == {name: group.attrs[name] for name in group.attrs}
        expected, found = datasets(one), datasets(group)
        assert set(expected) == set(found)
        for name in set(expected) - {"open", "status"}:
            assert (expected[name].dtype, expected[name].tobytes()) == (found[name].dtype, found[name].tobytes()), name
            assert (group[name].compression, group[name].shuffle) == ("gzip", True)
            assert group[name].chunks == one[name].chunks


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(SCRIPTS, st.data())
def test_any_run_comes_back(script: odd.Script, data: st.DataObject) -> None:
    """Whole, every dataset is the same to the bit; with some of its episodes, those are, the table is, and the rest says so."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run"
        record(make(odd.Carries, memory=2), path, script, options={"add": 0.5}, live=False)
        run = reenact.open_run(path)
        whole = reenact.pack(path)
        assert whole.path == Path(folder) / "run.h5"
        assert (whole.kept, whole.needed, whole.lost) == (len(run), 0, ())
        assert_same_segment(path / "segment-00000.h5", whole.path)
        bare.read(whole.path, "segment-00000")
        copy = reenact.open_run(whole.path)
        assert (copy.name, copy.uuid, table(copy)) == ("run", run.uuid, table(run))
        assert list(map(digest, copy)) == list(map(digest, run))
        assert [t for _, t in copy.timeline(0)] == [t for _, t in run.timeline(0)]

        picks = data.draw(st.lists(st.integers(0, len(run) - 1), min_size=1, unique=True))
        part = reenact.pack(path, Path(folder) / "part.h5", episodes=picks)
        some = reenact.open_run(part.path)
        assert table(some) == table(run)
        assert [t for _, t in some.timeline(0)] == [t for _, t in run.timeline(0)]
        assert int(some.kept.sum()) == part.kept >= len(picks)
        for at, (episode, kept) in enumerate(zip(some, some.kept.tolist(), strict=True)):
            one = run[at]
            assert (episode.seed, episode.options, episode.error) == (one.seed, one.options, one.error)
            if kept:
                assert digest(episode) == digest(run[at])
                continue
            for read in (episode.data, lambda its=episode: its.actions, lambda its=episode: its.origins):
                with pytest.raises(
                    reenact.ReplayError, match=rf"episode {episode.number} are not in .*--episodes {picks[0]}"
                ):
                    read()
        assert [(one.episode, one.verdict) for one in reenact.verify(part.path)] == [
            (n, "exact") for n in sorted(picks)
        ]


@pytest.mark.parametrize(("memory", "needed"), [(1, 2), (3, 5), (None, 11)])
def test_what_a_chain_starts_from_is_packed_with_it(memory: int | None, needed: int, tmp_path: Path) -> None:
    """An episode that goes on from earlier ones brings these, no more than it needs, and the first; its frames are the run's."""
    live = record(make(odd.Carries, memory=memory), tmp_path / "run", unseeded(16))
    found = reenact.pack(tmp_path / "run", tmp_path / "bug.h5", episodes=11)
    assert (found.kept, found.needed, found.episodes, found.notes) == (needed + 1, needed, 16, ())
    (result,) = reenact.verify(tmp_path / "bug.h5")
    (expected,) = reenact.verify(tmp_path / "run", 11)
    assert result == expected
    assert np.array_equal(list(reenact.open_run(tmp_path / "bug.h5")[11].frames()), live[11])


def test_a_chain_to_what_was_left_out_says_so(tmp_path: Path) -> None:
    """A rung that begins with a reset that is not in the file is told, and is not taken for exact."""
    record(make(odd.Carries, memory=3), tmp_path / "run", unseeded(16), live=False)
    reenact.pack(tmp_path / "run", tmp_path / "bug.h5", episodes=11)
    (result,) = reenact.verify(tmp_path / "bug.h5", 11, origin="chain:8")
    assert (result.verdict, result.ok) == ("impossible", False)
    assert result.error is not None
    assert "reset 3 of segment 0 are not in" in result.error
    assert "--episodes 11" in result.error


def test_all_ways_to_start_that_the_pictures_need_are_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where frames show what came before the reset, that is packed too, though the episode alone is exact undrawn."""
    monkeypatch.setattr(ladder, "_PICTURES", {"odd_envs": "chain:first"})
    live = record(make(odd.Scrolls), tmp_path / "run", unseeded(6))
    found = reenact.pack(tmp_path / "run", tmp_path / "bug.h5", episodes=4)
    assert found.kept == 5
    assert np.array_equal(list(reenact.open_run(tmp_path / "bug.h5")[4].frames()), live[4])


def test_steps_after_the_end_and_resets_without_a_step_are_there(tmp_path: Path) -> None:
    """All that a chain goes through survives, whichever episode is chosen."""
    record(make(odd.Carries, memory=None), tmp_path / "run", MIXED, live=False)
    for number in range(len(reenact.open_run(tmp_path / "run"))):
        path = reenact.pack(tmp_path / "run", tmp_path / f"{number}.h5", episodes=number).path
        assert [(one.episode, one.verdict) for one in reenact.verify(path)] == [(number, "exact")]


def test_a_run_that_went_on_in_another_segment(tmp_path: Path) -> None:
    """Where an action widened a column, the segments and their order are kept; a chain across them is."""
    recorder = reenact.Recorder(make(odd.Carries, memory=4), run=tmp_path / "run")
    for episode in range(10):
        recorder.reset(seed=3 if episode == 0 else None)
        for step in range(odd.LENGTH):
            recorder.step(np.int64(300 if (episode, step) == (5, 0) else 1))
    recorder.close()
    run = reenact.open_run(tmp_path / "run")
    assert [(segment.number, segment.predecessor) for segment in run.segments] == [(0, -1), (1, 0)]
    whole = reenact.open_run(reenact.pack(run).path)
    assert [digest(episode) for episode in whole] == [digest(episode) for episode in run]
    assert [one.predecessor for one in whole.segments] == [-1, 0]
    (expected,) = reenact.verify(run, "1.2")
    (result,) = reenact.verify(reenact.pack(run, tmp_path / "bug.h5", episodes="1.2").path)
    assert (result, result.verdict) == (expected, "exact")


def test_two_env_instances(tmp_path: Path) -> None:
    """Of two recorders' segments, the one that holds no chosen episode keeps its table alone, and all numbers hold."""
    record(make(odd.Carries, memory=2), tmp_path / "run", unseeded(6), live=False)
    record(make(odd.Carries, memory=2), tmp_path / "run", unseeded(6, 5), live=False)
    run = reenact.open_run(tmp_path / "run")
    number = run.number_of("1.4")
    some = reenact.open_run(reenact.pack(run, tmp_path / "bug.h5", episodes="1.4").path)
    assert table(some) == table(run)
    assert not some.kept[some.segment_numbers == 0].any()
    assert [one.episode for one in reenact.verify(some)] == [number]


def test_a_killed_segment(tmp_path: Path) -> None:
    """The episode that ran when the writer was killed keeps its address, number and steps."""
    code = f"""
import os, sys; sys.path.insert(0, {str(Path(__file__).parent)!r})
import odd_envs as odd, reenact
env = reenact.Recorder(odd.make(odd.Carries, memory=2), run={str(tmp_path / "run")!r})
for episode in range(5):
    env.reset(seed=3 if episode == 0 else None)
    for step in range(3 if episode == 4 else 5): env.step(step % 2)
env.flush()
os._exit(9)
"""
    subprocess.run([sys.executable, "-c", code], check=False, env={**os.environ, "PYTHONPATH": str(SOURCE)})
    run = reenact.open_run(tmp_path / "run")
    assert (run.segments[0].state, run[4].ended, run[4].length) == ("killed", "interrupted", 3)
    copy = reenact.open_run(reenact.pack(run).path)
    assert copy.segments[0].state == "closed"
    assert table(copy) == table(run)
    assert [digest(episode) for episode in copy] == [digest(episode) for episode in run]
    assert [one.verdict for one in reenact.verify(copy)] == ["exact"] * 5
    bare.read(tmp_path / "run.h5", "segment-00000")
    (result,) = reenact.verify(reenact.pack(run, tmp_path / "bug.h5", episodes=-1).path)
    assert (result.episode, result.verdict, result.origin) == (4, "exact", "chain:2")


def test_kinds_that_a_full_disk_left_unwritten(tmp_path: Path) -> None:
    """Zeros that no episode refers to are left behind: a closed segment must have none."""
    code = f"""
import os, sys, warnings; sys.path.insert(0, {str(Path(__file__).parent)!r})
import h5py, numpy as np, odd_envs as odd, reenact
warnings.simplefilter("ignore")
env = reenact.Recorder(odd.make(odd.Carries, memory=2), run={str(tmp_path / "run")!r})
for episode in range(3):
    env.reset(seed=3 if episode == 0 else None)
    for step in range(5): env.step(step % 2)
env.flush()
env.reset()
env.step(np.int64(1))
kinds = env._log._writer.kinds
def append(values):
    kinds._id.set_extent((kinds.rows + len(values),))
    h5py.h5f.flush(kinds._id)
    raise OSError(28, "No space left on device")
kinds.append = append
env.flush()
os._exit(9)
"""
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    subprocess.run([sys.executable, "-c", code], check=False, env=environment)
    run = reenact.open_run(tmp_path / "run")
    assert len(run) == 3
    copies = [reenact.pack(run).path, reenact.pack(run, tmp_path / "bug.h5", episodes="all").path]
    copies.append(reenact.repair(tmp_path / "run", out=tmp_path / "clean").out)
    for path in copies:
        assert [digest(episode) for episode in reenact.open_run(path)] == [digest(episode) for episode in run]


def test_a_choice_by_return(run: Path, tmp_path: Path) -> None:
    """Episodes are chosen for packing as for replaying; a replay of the file means the same ones."""
    returns = reenact.open_run(run).returns
    found = reenact.pack(run, tmp_path / "best.h5", best=1)
    assert found.path == tmp_path / "best.h5"
    best = reenact.open_run(found.path)
    assert [result.episode for result in reenact.verify(best)] == [int(returns.argmax())]
    assert best.pack is not None
    assert best.pack.selection == "--best 1"


def test_a_run_that_is_still_written(tmp_path: Path) -> None:
    """Whole, it is refused, since that would be taken for the run; its finished episodes can be chosen."""
    recorder = reenact.Recorder(make(odd.Carries, memory=1), run=tmp_path / "run")
    for episode in range(4):
        recorder.reset(seed=3 if episode == 0 else None)
        for step in range(odd.LENGTH):
            recorder.step(step % 2)
    recorder.flush()
    with pytest.raises(reenact.RunError, match="still being written"):
        reenact.pack(tmp_path / "run")
    found = reenact.pack(tmp_path / "run", tmp_path / "bug.h5", episodes=2)
    recorder.close()
    assert found.notes == ("segment 0 is still being written: packed as of now",)
    assert [(one.episode, one.verdict) for one in reenact.verify(tmp_path / "bug.h5")] == [(2, "exact")]
    assert digest(reenact.open_run(tmp_path / "bug.h5")[2]) == digest(reenact.open_run(tmp_path / "run")[2])


def _golden(tmp_path: Path) -> Path:
    path = tmp_path / "segment-00000.h5"
    path.write_bytes(gzip.decompress((GOLDEN / "running.h5.gz").read_bytes()))
    return path


@pytest.mark.parametrize("number", [0, 1, 2])
def test_kinds_and_texts_of_some_episodes(number: int, tmp_path: Path) -> None:
    """Actions that change their kind from step to step, and texts in the heap, are there for the chosen episode alone."""
    run = reenact.open_run(_golden(tmp_path))
    found = reenact.pack(
        run, tmp_path / "bug.h5", episodes=number
    )  # its env can't be made here: what came before comes, too
    assert found.kept == number + 1
    assert len(found.notes) == 1
    copy = reenact.open_run(found.path)
    assert digest(copy[number]) == digest(run[number])
    assert copy[2].seed == 2**70
    again = reenact.open_run(reenact.pack(copy, tmp_path / "again.h5", episodes=number).path)
    assert digest(again[number]) == digest(run[number])


def test_what_is_left_out_is_not_in_the_file(tmp_path: Path) -> None:
    """The steps, fingerprints and states of what was not chosen are holes, by h5py alone."""
    recorder = reenact.Recorder(make(odd.Odd), run=tmp_path / "run")
    for _ in range(200):
        recorder.reset()
        for step in range(odd.LENGTH):
            recorder.step(step % 2)
    recorder.close()
    found = reenact.pack(tmp_path / "run", tmp_path / "bug.h5", episodes=100)
    assert found.kept == 2
    with h5py.File(found.path, "r", locking=False) as file:
        segment = file["segment-00000"]
        row = segment["episodes"][100]
        rewards, kept = segment["steps/reward"][:], segment["kept"][:]
        assert np.flatnonzero(rewards).tolist() == [
            *range(5),
            *range(int(row["first_step"]), int(row["first_step"]) + 5),
        ]
        assert (np.flatnonzero(kept).tolist(), len(kept)) == ([0, 100], 200)
        assert np.count_nonzero(segment["states"]["crc"]) == 2
        assert file.attrs["selection"] == b"--episodes 100"


def test_a_strangers_packed_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With another user's key a packed file opens, lists, and replays what needs no code of the log's."""
    recorder = reenact.Recorder(gym.make("CartPole-v1", max_episode_steps=9), run=tmp_path / "run")
    for _ in range(3):
        recorder.reset()
        while not any(recorder.step(1)[2:4]):
            pass
    recorder.close()
    reenact.pack(tmp_path / "run", tmp_path / "bug.h5", episodes=1)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "another"))
    (result,) = reenact.replay(tmp_path / "bug.h5")
    assert (result.verdict, result.path) == ("exact", str(tmp_path / "videos" / "run-episode-1.mp4"))
    assert reenact.pack(tmp_path / "bug.h5", tmp_path / "again.h5", episodes=1).kept == 2


def test_bipedal_walker(tmp_path: Path) -> None:
    """An episode of an env that keeps its world across resets is exact from the small file."""
    pytest.importorskip("Box2D")
    recorder = reenact.Recorder(gym.make("BipedalWalker-v3", max_episode_steps=60), run=tmp_path / "run")
    recorder.action_space.seed(1)
    for episode in range(9):
        recorder.reset(seed=3 if episode == 0 else None)
        while not any(recorder.step(recorder.action_space.sample())[2:4]):
            pass
    recorder.close()
    numbers = [result.episode for result in reenact.verify(tmp_path / "run") if str(result.origin).startswith("chain")]
    assert numbers
    reenact.pack(tmp_path / "run", tmp_path / "bug.h5", episodes=numbers[-1])
    (result,) = reenact.verify(tmp_path / "bug.h5")
    assert (result.episode, result.verdict) == (numbers[-1], "exact")


# ---- the file


@pytest.fixture(name="run")
def _run(tmp_path: Path) -> Path:
    record(make(odd.Carries, memory=1), tmp_path / "run", unseeded(4), live=False)
    return tmp_path / "run"


def leftovers(folder: Path) -> list[str]:
    """What lies there beside the run and the key."""
    return sorted(path.name for path in folder.iterdir() if path.name not in ("run", "state"))


def test_a_file_that_is_there_is_not_replaced(run: Path, tmp_path: Path) -> None:
    """Neither a file of the default name nor one given is overwritten, unless told to; a folder never."""
    (tmp_path / "run.h5").write_text("mine")
    with pytest.raises(reenact.RunExistsError, match="there already: --overwrite"):
        reenact.pack(run)
    assert (tmp_path / "run.h5").read_text() == "mine"
    assert reenact.pack(run, overwrite=True).kept == 4
    assert reenact.pack(tmp_path / "run.h5", overwrite=True).kept == 4
    with pytest.raises(reenact.RunError, match="is a folder"):
        reenact.pack(run, tmp_path, overwrite=True)
    assert leftovers(tmp_path) == ["run.h5"]


def _interrupted(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


def _corrupting(write: Callable[..., None]) -> Callable[..., None]:
    def corrupt(self: archive.Archive, column: h5py.Dataset, first: int, rows: np.ndarray) -> None:
        changed = rows.copy()
        changed.view(np.uint8).reshape(-1)[-1] ^= 1
        write(self, column, first, changed if column.name.endswith("reward") else rows)

    return corrupt


def test_ctrl_c_leaves_nothing(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Interrupted while writing or while reading back, no file is left, and the next try goes through."""
    for place, name in ((copying, "copy"), (archive.Archive, "write"), (copying.Copy, "check")):
        with monkeypatch.context() as patch:
            patch.setattr(place, name, _interrupted)
            with pytest.raises(KeyboardInterrupt):
                reenact.pack(run)
        assert leftovers(tmp_path) == []
    assert reenact.pack(run).kept == 4


def test_what_reads_back_otherwise_gets_no_name(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One bit that the disk changes is found before the file gets its name."""
    monkeypatch.setattr(archive.Archive, "write", _corrupting(archive.Archive.write))
    with pytest.raises(reenact.RunError, match="steps/reward read back is not what was written"):
        reenact.pack(run)
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("size", [500, 5000, 12000])
def test_a_full_disk(run: Path, tmp_path: Path, size: int) -> None:
    """Where the file can't grow, one line says so, the exit code is 2, and nothing is left."""
    code = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size})); from reenact.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "pack", str(run)],
        env={**os.environ, "PYTHONPATH": str(SOURCE)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1] == f"Error: can't write {tmp_path / 'run.h5'}: File too large"
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("out", ["file/x.h5", "/proc/x.h5"])
def test_a_place_that_cant_be_written(run: Path, tmp_path: Path, out: str) -> None:
    """A folder that can't be made or written to is one line."""
    (tmp_path / "file").touch()
    with pytest.raises(reenact.RunError, match=r"can't (write|make)") as error:
        reenact.pack(run, tmp_path / out)
    assert "\n" not in str(error.value)


def test_a_segment_that_cannot_be_read_is_told(run: Path) -> None:
    """What is packed without it is not all of the run, and says so by its exit code, too."""
    (run / "segment-00001.h5").write_bytes(b"")
    code = "from reenact.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "pack", str(run), "--json"],
        env={**os.environ, "PYTHONPATH": str(SOURCE)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 3, done.stderr
    found = json.loads(done.stdout)
    assert (found["kept"], found["lost"]) == (4, [])
    assert "segment-00001.h5" in found["unreadable"][0]


def test_damaged_episodes_are_told_and_keep_their_places(run: Path) -> None:
    """A damaged row and damaged steps are not in the file; the addresses of the others hold."""
    with h5py.File(run / "segment-00000.h5", "r+", locking=False) as file:
        row = file["episodes"][1]
        row["return"] = 99.0
        file["episodes"][1] = row
        file["steps/reward"][2 * odd.LENGTH] += 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        opened = reenact.open_run(run)
    found = reenact.pack(opened)
    assert (found.episodes, found.kept, found.lost) == (3, 2, ("0.1", "0.2"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # the file knows of them
        copy = reenact.open_run(found.path)
    assert table(copy) == table(opened)
    assert digest(copy["0.3"]) == digest(opened["0.3"])
    with pytest.raises(reenact.DamagedError, match=r"episode 1 was damaged when .* is lost"):
        copy["0.2"].data()
    assert [one.ok for one in reenact.verify(found.path, tolerance=0.0)] == [True, False, False]


def test_the_command(run: Path, tmp_path: Path) -> None:
    """It prints episodes, steps, and bytes before and after; --json says the same for programs."""
    command = [sys.executable, "-c", "from reenact.cli import main; main()", "pack", str(run)]
    environment = {**os.environ, "PYTHONPATH": f"{SOURCE}{os.pathsep}{Path(__file__).parent}"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"{tmp_path / 'run.h5'}: 4 episodes, 20 steps, 0.0")
    command += ["--episodes", "3", "--overwrite", "--json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert (found["kept"], found["needed"], found["episodes"], found["lost"]) == (3, 2, 4, [])
    assert found["bytes_after"] == (tmp_path / "run.h5").stat().st_size
    assert found["bytes_before"] == (run / "segment-00000.h5").stat().st_size


# ---- a packed file that somebody made to do harm


def _link(file: h5py.File) -> None:
    file.move("segment-00000", "hidden")
    file["segment-00000"] = h5py.SoftLink("/hidden")


def _external(file: h5py.File) -> None:
    del file["segment-00000"]
    file["segment-00000"] = h5py.ExternalLink("other.h5", "/segment-00000")


def _dataset(file: h5py.File) -> None:
    del file["segment-00000"]
    file["segment-00000"] = np.zeros(3)


def _later(file: h5py.File) -> None:
    file.attrs["version"] = 2


def _long_table(file: h5py.File) -> None:
    file["segment-00000/episodes"].resize((2**40,))


def _no_segment(file: h5py.File) -> None:
    del file["segment-00000"]


@pytest.mark.parametrize("change", [_link, _external, _dataset, _later, _long_table, _no_segment])
def test_hostile_files_are_refused(run: Path, tmp_path: Path, change: Callable[[h5py.File], None]) -> None:
    """Links, other things than groups, tables of absurd length and later versions are one line."""
    path = reenact.pack(run, tmp_path / "bug.h5", episodes=1).path
    with h5py.File(path, "r+", libver=("v110", "v110"), locking=False) as file:
        change(file)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises((reenact.DamagedError, reenact.RunNotFoundError)) as error:
            reenact.open_run(path)
    assert "\n" not in str(error.value)


def test_a_hole_takes_no_memory(run: Path, tmp_path: Path) -> None:
    """A row that claims more steps than the file can hold is refused before anything is read, holes or not."""
    path = reenact.pack(run, tmp_path / "bug.h5", episodes=1).path
    with h5py.File(path, "r+", libver=("v110", "v110"), locking=False) as file:
        segment = file["segment-00000"]
        for name in ("steps/reward", "steps/action/value"):
            segment[name].resize((2**40,))
        row = segment["episodes"][1]
        row["n_actions"] = row["length"] = 2**32 - 1
        row["crc"] = crc32(row.tobytes()[:-4])
        segment["episodes"][1] = row
    with pytest.raises(reenact.DamagedError, match="can't hold"):
        reenact.open_run(path)[1].data()
    assert [one.state for one in reenact.repair(path).segments] == ["lossy"]
