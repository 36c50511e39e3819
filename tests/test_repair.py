"""Damaged runs: what is told of them, and a clean copy without what is lost; the original is never touched."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import gymnasium as gym
import h5py
import pytest

import reenact

SOURCE = Path(reenact.__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def _own_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def record(folder: Path, episodes: int = 6, *, steps: int = 20, seed: int = 4) -> Path:
    """Adds a segment of CartPole to a run; the first reset of it is seeded."""
    recorder = reenact.Recorder(gym.make("CartPole-v1", max_episode_steps=steps), run=folder)
    recorder.action_space.seed(0)
    for episode in range(episodes):
        recorder.reset(seed=seed if episode == 0 else None)
        while not any(recorder.step(recorder.action_space.sample())[2:4]):
            pass
    recorder.close()
    return folder


def test_a_segment_of_another_run_is_left_out(tmp_path: Path) -> None:
    """A segment that bears another run's UUID than run.json is named in a warning, and is no part of the run."""
    run, other = record(tmp_path / "run"), record(tmp_path / "other", seed=9)
    shutil.copy(other / "segment-00000.h5", run / "segment-00001.h5")
    with pytest.warns(UserWarning, match=r"segment-00001\.h5 is a segment of another run .* left out"):
        opened = reenact.open_run(run)
    assert opened.uuid == json.loads((run / "run.json").read_text())["run"]
    assert (len(opened), [segment.number for segment in opened.segments]) == (6, [0])


def test_without_run_json_most_segments_say_which_run_it_is(tmp_path: Path) -> None:
    """Where run.json is lost, the UUID that most segments bear is the run's."""
    run, other = record(record(record(tmp_path / "run"))), record(tmp_path / "other", seed=9)
    uuid = json.loads((run / "run.json").read_text())["run"]
    (run / "run.json").unlink()
    shutil.copy(other / "segment-00000.h5", run / "segment-00000.h5")
    with pytest.warns(UserWarning, match=r"segment-00000\.h5 is a segment of another run"):
        opened = reenact.open_run(run)
    assert (opened.uuid, len(opened)) == (uuid, 12)


def test_a_segment_whose_tables_cant_be_read_does_not_take_the_others_along(tmp_path: Path) -> None:
    """Where HDF5 can't read a segment's status, the run is read without that segment, and it is named."""
    run = record(record(tmp_path / "run"))
    with h5py.File(run / "segment-00001.h5", "r+", libver=("v110", "v110"), locking=False) as file:
        rows = file["status"][:]
        del file["status"]
        file.create_dataset("status", data=rows, chunks=(2,), compression="gzip")
        at = file["status"].id.get_chunk_info(0).byte_offset
    data = bytearray((run / "segment-00001.h5").read_bytes())
    data[at : at + 8] = bytes(8)
    (run / "segment-00001.h5").write_bytes(data)
    with pytest.warns(UserWarning, match=r"segment-00001\.h5.* the run is read without this segment"):
        opened = reenact.open_run(run)
    assert len(opened) == 6
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        opened.refresh()  # says it once, and goes on


# ---- what is told


def run_python(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Runs a fresh interpreter on this source, and gives HDF5 a minute for what it may do with a damaged file."""
    path = os.pathsep.join((str(SOURCE), str(Path(__file__).parent)))
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Runs `reenact` with the arguments."""
    return run_python("from reenact.cli import main; main()", *arguments)


def edit(path: Path, change: Any) -> None:
    """Changes a segment by bare h5py."""
    with h5py.File(path, "r+", libver=("v110", "v110"), locking=False) as file:
        change(file)


def state(folder: Path) -> dict[str, tuple[bytes, int]]:
    """The bytes of all files there, and when they were written to."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def damage_row(file: h5py.File) -> None:
    """Changes the row of the second episode."""
    row = file["episodes"][1]
    row["return"] += 1
    file["episodes"][1] = row


def damage_steps(file: h5py.File) -> None:
    """Changes a reward of the third episode."""
    file["steps/reward"][int(file["episodes"][2]["first_step"])] += 1


def damage_fingerprint(file: h5py.File) -> None:
    """Changes a checksum of the fourth episode."""
    at = int(file["episodes"][3]["first_fingerprint"])
    row = file["fingerprints"][at]
    row["checksum"] ^= 1
    file["fingerprints"][at] = row


def damage_state(file: h5py.File) -> None:
    """Changes a byte of the RNG state that the fifth episode begins from."""
    at = int(file["states"][int(file["episodes"][4]["first_state"])]["data"]["offset"])
    file["heap"][at] ^= 1


def damage_kind(file: h5py.File) -> None:
    """Changes what type the actions were given in, of all episodes."""
    row = file["kinds"][0]
    row["step"] += 1
    file["kinds"][0] = row


def test_a_whole_run(tmp_path: Path) -> None:
    """Two whole segments are complete; the exit code is 0, and there is a line for each."""
    run = record(record(tmp_path / "run", 6), 3)
    done = command("repair", run)
    assert done.returncode == 0
    assert [line.split() for line in done.stdout.splitlines()] == [
        ["segment", "state", "kept", "lost", "why"], ["0", "complete", "6", "0"], ["1", "complete", "3", "0"]
    ]  # fmt: skip
    found = reenact.repair(run)
    assert (found.complete, found.readable, found.out) == (True, True, None)


@pytest.mark.parametrize(
    ("damage", "address", "number", "why"),
    [
        (damage_row, "0.1", None, "its row is damaged"),
        (damage_steps, "0.2", 2, "steps/reward is damaged"),
        (damage_fingerprint, "0.3", 3, "fingerprints is damaged"),
        (damage_state, "0.4", 4, "a state that an episode starts from is damaged"),
    ],
)
def test_one_damaged_episode(damage: Any, address: str, number: int | None, why: str, tmp_path: Path) -> None:
    """Whatever of an episode is damaged, it is named and why, alone; the clean copy has all others, in their places."""
    run = record(tmp_path / "run")
    before = [digest(episode) for episode in reenact.open_run(run)]
    edit(run / "segment-00000.h5", damage)
    untouched = state(run)
    done = command("repair", run, "--json", "--out", tmp_path / "clean")
    assert done.returncode == 3, done.stderr
    (told,) = map(json.loads, done.stdout.splitlines())
    assert (told["segment"], told["state"], told["kept"], told["why"]) == (0, "lossy", 5, why)
    assert told["lost"] == [{"address": address, "episode": number, "why": why}]
    assert state(run) == untouched

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        clean = reenact.open_run(tmp_path / "clean")
    for at, text in enumerate(before):
        if f"0.{at}" != address:
            episode = clean[f"0.{at}"]
            assert digest(episode).partition(":")[2] == text.partition(":")[2]
            assert episode.number == at - (number is None and at > 1)
    with pytest.raises((reenact.DamagedError, reenact.EpisodeNotFoundError)):
        clean[address].data()
    assert clean.uuid == json.loads((tmp_path / "clean" / "run.json").read_text())["run"]
    again = reenact.repair(tmp_path / "clean")
    assert (again.complete, again.segments[0].kept) == (True, 5)
    assert [one.ok for one in reenact.verify(tmp_path / "clean", [0, -1])] == [True, address != "0.5"]


@pytest.mark.filterwarnings("ignore:.*step.*after")
def test_damaged_steps_after_an_end(tmp_path: Path) -> None:
    """No episode is lost with them, but they are told."""
    recorder = reenact.Recorder(
        gym.make("CartPole-v1", max_episode_steps=5, disable_env_checker=True), run=tmp_path / "run"
    )
    for seed in range(3):
        recorder.reset(seed=seed)
        for step in range(8):
            recorder.step(step % 2)
    recorder.close()
    path = tmp_path / "run" / "segment-00000.h5"
    assert reenact.repair(tmp_path / "run").complete

    def damage(file: h5py.File) -> None:
        first = int(file["episodes"][1]["first_step"])
        file["steps/action/value"][first - 1] ^= 1

    edit(path, damage)
    (segment,) = reenact.repair(tmp_path / "run").segments
    assert (segment.state, segment.kept, segment.lost) == ("lossy", 3, ())
    assert segment.why == "steps after 1 end damaged, which no chain goes through"


def test_several_reasons_are_counted(tmp_path: Path) -> None:
    """Where episodes are lost for different reasons, the row says how many for which."""
    run = record(tmp_path / "run")
    for damage in (damage_row, damage_steps, damage_state):
        edit(run / "segment-00000.h5", damage)
    segment = reenact.repair(run).segments[0]
    assert len(segment.lost) == 3
    assert set(segment.why.split("; ")) == {f"1 × {why}" for _, _, why in segment.lost}


@pytest.mark.parametrize("at", [8, 20, 28, 40, 60, 100])
def test_a_partly_damaged_row_moves_no_address(at: int, tmp_path: Path) -> None:
    """Zeroed up to a byte or from it on, an episode keeps its index; with one bit changed, a reset without a step gets none."""
    recorder = reenact.Recorder(gym.make("CartPole-v1", max_episode_steps=5), run=tmp_path / "run")
    for seed in range(5):
        recorder.reset(seed=seed)
        while seed != 2 and not any(recorder.step(0)[2:4]):
            pass
    recorder.close()
    path = tmp_path / "run" / "segment-00000.h5"
    with h5py.File(path, "r", locking=False) as file:
        width, start = file["episodes"].dtype.itemsize, file["episodes"].id.get_chunk_info(0).byte_offset
    whole = path.read_bytes()
    for row, first, end in ((1, 0, at), (1, at, width), (2, at, at + 1)):
        data = bytearray(whole)
        place = slice(start + row * width + first, start + row * width + end)
        data[place] = bytes(end - first) if row == 1 else bytes([data[place][0] ^ 4])
        path.unlink()
        path.write_bytes(data)
        with pytest.warns(UserWarning, match="1 damaged episode"):
            run = reenact.open_run(path)
        assert [(one.address, one.seed) for one in run][-2:] == [("0.2", 3), ("0.3", 4)]


def test_what_all_episodes_need(tmp_path: Path) -> None:
    """Where the types of all actions are damaged, all episodes are lost, and the exit code is still 3: their table is there."""
    run = record(tmp_path / "run")
    edit(run / "segment-00000.h5", damage_kind)
    found = reenact.repair(run, out=tmp_path / "clean")
    assert [one.state for one in found.segments] == ["lossy"]
    assert (found.segments[0].kept, len(found.segments[0].lost)) == (0, 6)
    assert len(reenact.open_run(tmp_path / "clean")) == 6


def test_an_unreadable_and_a_foreign_segment(tmp_path: Path) -> None:
    """Each is told with its reason, neither is in the copy, and the exit code is 3."""
    run, other = record(record(tmp_path / "run")), record(tmp_path / "other", seed=9)
    shutil.copy(other / "segment-00000.h5", run / "segment-00002.h5")
    data = (run / "segment-00001.h5").read_bytes()
    (run / "segment-00001.h5").write_bytes(data[: len(data) // 2])
    untouched = state(run)
    done = command("repair", run, "--out", tmp_path / "clean")
    assert done.returncode == 3, done.stderr
    rows = [line.split(maxsplit=4) for line in done.stdout.splitlines()[1:]]
    assert [row[:4] for row in rows] == [
        ["0", "complete", "6", "0"],
        ["1", "unreadable", "0", "0"],
        ["2", "foreign", "0", "0"],
    ]
    assert rows[1][4] == (
        f"can't be read as HDF5: it is cut short, {len(data) // 2:,} of {len(data):,} bytes are there: "
        "copy it again from where it is whole"
    )
    assert rows[2][4].startswith("a segment of another run")
    assert sorted(path.name for path in (tmp_path / "clean").iterdir()) == ["run.json", "segment-00000.h5"]
    assert state(run) == untouched


@pytest.mark.parametrize("content", [b"", b"text", b"\x89HDF\r\n\x1a\n", "foreign", "cut"])
def test_nothing_that_can_be_read(tmp_path: Path, content: bytes | str) -> None:
    """A run of which nothing can be read: a line that says why, exit code 1, and no copy."""
    run = record(tmp_path / "run")
    path = run / "segment-00000.h5"
    if content == "foreign":
        path.unlink()
        with h5py.File(path, "w") as file:
            file["episodes"] = [1, 2]
    else:
        path.write_bytes(path.read_bytes()[:3000] if isinstance(content, str) else content)
    done = command("repair", run, "--out", tmp_path / "clean")
    assert done.returncode == 1
    assert done.stdout.splitlines()[1].split()[:4] == ["0", "unreadable", "0", "0"]
    assert len(done.stdout.splitlines()) == 2
    assert not (tmp_path / "clean").exists()


def test_wrong_use(tmp_path: Path) -> None:
    """No run, a folder without segments, and a folder for the copy that is not empty: one line each, exit code 2."""
    run = record(tmp_path / "run")
    (tmp_path / "empty").mkdir()
    for arguments, said in (
        ((tmp_path / "nope",), "no run at"),
        ((tmp_path / "empty",), "no segments in"),
        ((run, "--out", run), "is there already and not empty"),
        ((run, "--out", run / "segment-00000.h5"), "is there already and not empty"),
        ((run, "--out", run / "segment-00000.h5" / "x"), "can't write"),
    ):
        done = command("repair", *arguments)
        assert (done.returncode, done.stdout) == (2, ""), done.stderr
        assert said in done.stderr.splitlines()[-1]
        assert done.stderr.splitlines()[-1].startswith("Error: ")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "run", "state"]


def test_a_killed_run(tmp_path: Path) -> None:
    """A killed but intact segment is complete, its last episode kept; the copy is closed, and replays."""
    code = """
import os, sys, gymnasium as gym, reenact
env = reenact.Recorder(gym.make("CartPole-v1"), run=sys.argv[1])
env.reset(seed=1)
while not any(env.step(0)[2:4]): pass
env.reset()
for step in range(4): env.step(step % 2)
env.flush()
os._exit(9)
"""
    run_python(code, tmp_path / "run")
    assert command("repair", tmp_path / "run", "--out", tmp_path / "clean").returncode == 0
    killed, clean = reenact.open_run(tmp_path / "run"), reenact.open_run(tmp_path / "clean")
    assert ([one.state for one in killed.segments], [one.state for one in clean.segments]) == (["killed"], ["closed"])
    assert list(map(digest, clean)) == list(map(digest, killed))
    assert [one.verdict for one in reenact.verify(clean)] == ["exact", "exact"]
    with pytest.raises(reenact.RunExistsError, match="resume=True"):
        reenact.Recorder(gym.make("CartPole-v1"), run=tmp_path / "clean").reset()
    recorder = reenact.Recorder(gym.make("CartPole-v1"), run=tmp_path / "clean", resume=True)
    recorder.reset()
    recorder.step(0)
    recorder.close()
    assert len(reenact.open_run(tmp_path / "clean")) == 3


def test_a_live_run_is_not_copied(tmp_path: Path) -> None:
    """While a run is written it can be checked, and is not copied."""
    recorder = reenact.Recorder(gym.make("CartPole-v1"), run=tmp_path / "run")
    recorder.reset()
    recorder.step(0)
    recorder.reset()
    recorder.flush()
    assert [one.state for one in reenact.repair(tmp_path / "run").segments] == ["complete"]
    with pytest.raises(reenact.RunError, match="still being written"):
        reenact.repair(tmp_path / "run", out=tmp_path / "clean")
    recorder.close()
    assert not (tmp_path / "clean").exists()


def test_a_full_disk(tmp_path: Path) -> None:
    """Where the copy can't be written, one line says so, and nothing of it is left."""
    run = record(tmp_path / "run")
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000)); from reenact.cli import main; main()"
    )
    done = run_python(code, "repair", run, "--out", tmp_path / "clean")
    assert (done.returncode, done.stderr.splitlines()[-1]) == (
        2, f"Error: can't write {tmp_path / 'clean' / 'segment-00000.h5'}: File too large"
    )  # fmt: skip
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "state"]


def test_a_packed_file(tmp_path: Path) -> None:
    """A packed file is checked like a run; its copy is a run's folder again, to the bit."""
    run = record(record(tmp_path / "run"))
    path = reenact.pack(run).path
    found = reenact.repair(path, out=tmp_path / "clean")
    assert [(one.segment, one.state, one.kept) for one in found.segments] == [(0, "complete", 6), (1, "complete", 6)]
    assert list(map(digest, reenact.open_run(tmp_path / "clean"))) == list(map(digest, reenact.open_run(run)))
    some = reenact.repair(reenact.pack(run, tmp_path / "bug.h5", episodes=1).path)
    assert (some.complete, sum(one.kept for one in some.segments), sum(one.left for one in some.segments)) == (
        True,
        2,
        10,
    )


# ---- random damage


def digest(episode: reenact.Episode) -> str:
    """All that an episode gives out, behind its number."""
    told = repr(episode).partition("(")[2]
    return f"{episode.number}: {told} {episode.data()!r} {episode.info} {episode.label} {episode.end_time} {episode.elapsed}"


SWEEP = """
import json, pathlib, random, sys, warnings
warnings.simplefilter("ignore")
from reenact import probe
import reenact, test_repair as t
source, folder, how, seed, tries = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), *sys.argv[3:4], *map(int, sys.argv[4:])
random.seed(seed)
probe.PROBE_S = 3.0
data, good = source.read_bytes(), {one.address: t.digest(one).partition(":")[2] for one in reenact.open_run(source)}
used = [at for at, byte in enumerate(data) if byte]
counts = {"complete": 0, "lossy": 0, "unreadable": 0}
for number in range(tries):
    changed, at = bytearray(data), random.choice(used)
    if how == "flip":
        changed[at] ^= 1 << random.randrange(8)
    elif how == "cut":
        del changed[at:]
    else:
        at -= at % 512
        changed[at : at + 512] = bytes(len(changed[at : at + 512]))
    path = folder / str(number) / source.name  # HDF5 remembers what lay at a path
    path.parent.mkdir()
    path.write_bytes(changed)
    clean = folder / f"{number}.clean"
    found = reenact.repair(path, out=clean)
    assert path.read_bytes() == changed
    if not found.readable:
        counts["unreadable"] += 1
        assert not clean.exists()
        continue
    counts["complete" if found.complete else "lossy"] += 1
    lost = {address for segment in found.segments for address, _, _ in segment.lost}
    kept = sum(segment.kept for segment in found.segments)
    run, there = reenact.open_run(clean), 0
    for episode in run:
        if episode.address in lost:
            try:
                episode.data()
            except reenact.DamagedError:
                continue
            raise AssertionError(f"{how} {at}: {episode.address} was lost")
        there += 1
        assert t.digest(episode).partition(":")[2] == good[episode.address], (how, at)
    assert there == kept, (how, at, there, kept)
    assert reenact.repair(clean).complete
print(json.dumps(counts))
"""


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(("how", "tries"), [("flip", 25), ("cut", 6), ("zero", 20)])
def test_random_damage(how: str, tries: int, packed: bool, tmp_path: Path) -> None:
    """Whatever is flipped, cut or zeroed, what repair keeps is what was recorded, and what it names lost is not given out."""
    run = record(tmp_path / "run", 12)
    source = reenact.pack(run).path if packed else run / "segment-00000.h5"
    (tmp_path / "damaged").mkdir()
    done = run_python(SWEEP, source, tmp_path / "damaged", how, 1, tries)
    assert done.returncode == 0, (done.returncode, done.stderr[-2000:])
    counts = json.loads(done.stdout)
    assert sum(counts.values()) == tries
    assert counts["lossy"] + counts["unreadable"] > 0
