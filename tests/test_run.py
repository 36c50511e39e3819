"""Runs, read: columns against bare h5py, numbering over segments, and what a killed writer leaves (live: test_live)."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import subprocess
import sys
import tracemalloc
import zlib
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import h5py
import numpy as np
import pytest
from gymnasium import spaces

import reenact
from bare import only
from reenact import heap, reader
from reenact.process import Process

if TYPE_CHECKING:
    from pathlib import Path

_WRITER = """
import os, random, sys, time
import gymnasium as gym, numpy as np, reenact
from gymnasium import spaces
class Toy(gym.Env):
    action_space, observation_space = spaces.Discrete(2), spaces.Discrete(2)
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.left = int(self.np_random.integers(1, 30))
        return 0, {}
    def step(self, action):
        self.left -= 1
        return 0, float(self.np_random.random()), self.left == 0, False, {}
run, seconds, endless = sys.argv[1], float(sys.argv[2]), sys.argv[3] == "endless"
env = reenact.Recorder(Toy(), run=run, resume=True, flush_seconds=0.03)
until = time.monotonic() + seconds
while time.monotonic() < until:
    env.reset(); done = False
    while not done:
        time.sleep(0.0003)
        done = env.step(1)[2]
if endless:  # one long episode, committed, and then nothing
    env.reset()
    env.unwrapped.left = 10 ** 9
    for _ in range(100):
        env.step(1)
    env.flush()
    env.step(0)
    print("ready", flush=True)
    time.sleep(60)
env.close()
"""


class Toy(gym.Env[Any, Any]):
    """Rewards the number of the step; ends after as many steps as its options say, in two ways."""

    action_space: spaces.Space[Any] = spaces.Discrete(3)
    observation_space: spaces.Space[Any] = spaces.Box(0, 1000, (1,))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begins again."""
        super().reset(seed=seed, options=options)
        self.length, self.at = (options or {}).get("length", 3), 0
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:  # noqa: ARG002  # Gymnasium's signature
        """One more."""
        self.at += 1
        done, even = self.at == self.length, self.length % 2 == 0
        return (
            np.full(1, self.at, np.float32),
            float(self.at),
            done and even,
            done and not even,
            {"score": self.at / 8},
        )


def play(env: gym.Env[Any, Any], length: int, seed: int | None = None) -> None:
    """Plays an episode of so many steps."""
    env.reset(seed=seed, options={"length": length})
    for at in range(length):
        env.step(at % 3)


def recorder(run: Path, **options: Any) -> reenact.Recorder:
    """A recorder on a new toy."""
    return reenact.Recorder(Toy(), run=run, **options)


def start(run: Path, seconds: float, how: str = "close") -> subprocess.Popen[str]:
    """Starts another process that writes into the run."""
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", _WRITER, str(run), str(seconds), how],
        stdout=subprocess.PIPE,
        text=True,
    )


pytestmark = pytest.mark.filterwarnings("ignore:reenact. episodes of this env can't be replayed")


@pytest.fixture(name="path", scope="module")
def _path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two segments, written in turns."""
    run = tmp_path_factory.mktemp("runs") / "toy"
    one, two = recorder(run, info_keywords=("score", "gone")), recorder(run, role="eval")
    for length, seed in [(3, 5), (4, None), (1, 2**63), (2, 0)]:
        play(one, length, seed)
        play(two, length + 1)
    one.reset()
    one.step(0)
    one.reset()  # cuts the one before short, and is no episode itself
    one.close()
    two.close()
    return run


@pytest.fixture(name="bare", scope="module")
def _bare(path: Path) -> list[tuple[int, int, Any]]:
    """The episodes' rows as bare h5py finds them: (segment, index, row), in the order of their numbers."""
    found = []
    for number in range(2):
        with h5py.File(path / f"segment-{number:05d}.h5", "r", locking=False) as file:
            rows = [row for row in file["episodes"][:] if row["ended"] != 0]
        found += [(int(row["end_time"]), number, index, row) for index, row in enumerate(rows)]
    return [(segment, index, row) for _, segment, index, row in sorted(found, key=lambda entry: entry[:3])]


@pytest.mark.parametrize("killed", [False, True])
def test_what_is_read_in_pieces_is_what_the_file_holds(
    killed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Columns that grow with each poll are those of the file, without resets that no step followed."""
    monkeypatch.setattr(reader, "_SLICE", 3)
    env = recorder(tmp_path / "toy", info_keywords=("score",))
    env.reset()
    env.flush()
    run = reenact.open_run(tmp_path / "toy")
    assert (len(run), run.labels.tolist()) == (0, [])
    for at in range(40):
        if at % 7 == 0:
            env.reset()  # no step follows
        env.reset(options={"length": at % 5 + 2})
        for _ in range(at % 5 + 2 - (at % 11 == 0)):
            env.step(0)
        if at % 6 == 0:
            env.mark(f"number {at}")
        if at % 3 == 0:
            env.flush()
            before = run.returns
            run.refresh()
            assert run.returns[: len(before)].tolist() == before.tolist()
    env.reset()
    env.step(1)
    env.flush()
    rows = only(tmp_path / "toy").rows
    rows = rows[rows["ended"] != 0]
    expected = {
        "returns": rows["return"].tolist(),
        "lengths": rows["length"].tolist(),
        "segment_indices": rows["index"].tolist(),
        "score": rows["info"][:, 0].tolist(),
        "labels": [f"number {at}" if at % 6 == 0 else "" for at in range(40)],
    }
    if killed:
        monkeypatch.setattr(Process, "is_alive", lambda *_: False)
        last = {"returns": 1.0, "lengths": 1, "segment_indices": 40, "score": math.nan, "labels": ""}
        expected = {name: [*column, last[name]] for name, column in expected.items()}
    for opened in (run, reenact.open_run(tmp_path / "toy")):
        opened.refresh()
        for name, column in expected.items():
            np.testing.assert_array_equal(getattr(opened, name), column)
        opened.returns[:] = 0  # what is given out is the caller's own
        assert opened.returns.tolist() == expected["returns"]
        assert opened[-1].length == opened.lengths[-1]
    env.close()


@pytest.mark.parametrize("span", [1 << 24, 40, 1])
def test_a_damaged_label_is_missed_alone(span: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Labels read together, as close as they may lie, are each checked; the episode's own says what is wrong."""
    monkeypatch.setattr(heap, "_SPAN", span)
    with contextlib.closing(recorder(tmp_path / "toy", mark=lambda found: f"label {found['l']}")) as env:
        for length in range(1, 9):
            play(env, length)
    with h5py.File(tmp_path / "toy" / "segment-00000.h5", "r+", libver=("v110", "v110"), locking=False) as file:
        ref = file["episodes"][4]["label"]
        file["heap"][int(ref["offset"])] ^= 1
    run = reenact.open_run(tmp_path / "toy")
    assert run.labels.tolist() == [f"label {length}" if length != 5 else "" for length in range(1, 9)]
    with pytest.raises(reenact.DamagedError, match="heap are damaged"):
        _ = run[4].label


def test_columns_are_what_the_file_holds(path: Path, bare: list[tuple[int, int, Any]]) -> None:
    """Every column, in the order of numbers, is what bare h5py reads, sorted by end time, segment and index."""
    run = reenact.open_run(path)
    assert len(run) == len(bare) == 9
    assert list(zip(run.segment_numbers.tolist(), run.segment_indices.tolist(), strict=True)) == [b[:2] for b in bare]
    rows = [row for _, _, row in bare]
    assert run.returns.tolist() == [row["return"] for row in rows]
    assert run.lengths.tolist() == [row["length"] for row in rows] == [3, 4, 4, 5, 1, 2, 2, 3, 1]
    assert run.elapsed.tolist() == [row["elapsed"] for row in rows]
    assert run.ended.tolist() == [
        *("terminated" if length % 2 == 0 else "truncated" for length in run.lengths[:-1]),
        "interrupted",
    ]
    assert run.first_steps.tolist() == [0, 3, 7, 11, 16, 17, 19, 21, 24]
    started = [int(row["end_time"]) - round(float(row["elapsed"]) * 1e9) for row in rows]
    assert run.started.dtype == np.dtype("M8[ns]")
    assert run.started.astype(int).tolist() == started
    assert run.returns.dtype == run.elapsed.dtype == np.float64
    assert run.lengths.dtype == run.first_steps.dtype == np.int64


def test_seeds_are_masked_where_there_is_none(path: Path) -> None:
    """Seeds are int64, masked where reset had none; one beyond int64 is masked and stands in the episode."""
    run = reenact.open_run(path)
    assert run.seeds.dtype == np.int64
    assert run.seeds.tolist() == [5, None, None, None, None, None, 0, None, None]
    assert [episode.seed for episode in run] == [5, None, None, None, 2**63, None, 0, None, None]


def test_info_keywords(path: Path) -> None:
    """Each keyword is a column by name; NaN where a segment, or an info, didn't have it."""
    run = reenact.open_run(path)
    assert run.info_keywords == ("score", "gone")
    np.testing.assert_array_equal(
        run.info("score"), [3 / 8, np.nan, 4 / 8, np.nan, 1 / 8, np.nan, 2 / 8, np.nan, np.nan]
    )
    np.testing.assert_array_equal(run.score, run.info("score"))
    assert np.isnan(run.gone).all()
    assert run[0].info["score"] == 3 / 8
    with pytest.raises(AttributeError, match="score"):
        run.nope  # noqa: B018  # reading it is the test
    with pytest.raises(KeyError):
        run.info("nope")


def test_episodes_by_number_address_and_slice(path: Path) -> None:
    """Numbers, negatives, addresses, slices and iteration name the same episodes as a list would."""
    run = reenact.open_run(path)
    addresses = [episode.address for episode in run]
    assert addresses == ["0.0", "1.0", "0.1", "1.1", "0.2", "1.2", "0.3", "1.3", "0.4"]
    assert [run[address].number for address in addresses] == list(range(9))
    assert [run[at - 9].address for at in range(9)] == addresses
    for key in (slice(None), slice(2, 7, 2), slice(None, None, -1), slice(-3, 100)):
        assert [episode.address for episode in run[key]] == addresses[key]
    assert run[np.int64(2)].address == "0.1"
    assert run.number_of("1.3") == 7


@pytest.mark.parametrize("key", [9, -10, "0.5", "2.0", "x", "1", "1.-1", "0.0.0"])
def test_what_is_not_there_says_what_is(path: Path, key: int | str) -> None:
    """A number or an address of no episode raises an IndexError of ours, in one line."""
    with pytest.raises(reenact.EpisodeNotFoundError) as caught:
        reenact.open_run(path)[key]
    assert isinstance(caught.value, IndexError)
    assert "\n" not in str(caught.value)


def test_what_an_episode_holds(path: Path, bare: list[tuple[int, int, Any]]) -> None:
    """Rewards and actions are the file's rows [first_step, first_step + length)."""
    run = reenact.open_run(path)
    for episode, (segment, _, row) in zip(run, bare, strict=True):
        with h5py.File(path / f"segment-{segment:05d}.h5", "r", locking=False) as file:
            steps = slice(int(row["first_step"]), int(row["first_step"] + row["n_actions"]))
            assert episode.rewards.tolist() == file["steps/reward"][steps].tolist()
            assert episode.actions == file["steps/action/value"][steps].tolist()
        assert episode.return_ == sum(episode.rewards)


def test_one_segment_is_a_run_too(path: Path) -> None:
    """A path to one segment gives its episodes alone, numbered from 0, with their addresses in the run."""
    run = reenact.open_run(path / "segment-00001.h5")
    assert [episode.address for episode in run] == ["1.0", "1.1", "1.2", "1.3"]
    assert run.name == "toy"


def test_segments(path: Path) -> None:
    """Each segment tells its role, its state, and how much it holds."""
    assert [(s.number, s.role, s.state, s.episodes, s.steps) for s in reenact.open_run(path).segments] == [
        (0, "train", "closed", 5, 11),
        (1, "eval", "closed", 4, 14),
    ]


def test_no_run_says_what_is_there(path: Path, tmp_path: Path) -> None:
    """A wrong path names the runs that lie beside it."""
    with pytest.raises(reenact.RunNotFoundError, match="toy"):
        reenact.open_run(path.parent / "tpyo")
    with pytest.raises(reenact.RunNotFoundError, match="no run lies"):
        reenact.open_run(tmp_path)


@pytest.mark.parametrize("buffer_length", [1, 3, 100])
def test_statistics_are_upstreams(tmp_path: Path, buffer_length: int) -> None:
    """The queues equal those of `RecordEpisodeStatistics` above the same env; cut-off episodes count in neither."""
    below = recorder(tmp_path / "run")
    env = gym.wrappers.RecordEpisodeStatistics(below, buffer_length=buffer_length, stats_key="upstream")
    for length in (3, 4, 1, 2, 7):
        play(env, length)
        env.reset()
        env.step(0)
    env.close()
    found = reenact.open_run(tmp_path / "run").statistics(buffer_length)
    assert list(found.return_queue) == list(env.return_queue)
    assert list(found.length_queue) == list(env.length_queue)
    assert found.episode_count == 5
    assert list(found.time_queue) == list(below.time_queue)[-buffer_length:]


def test_timeline_is_all_that_the_env_did(tmp_path: Path) -> None:
    """The timeline has every reset in order, those without a step too, and the steps after an end."""
    env = recorder(tmp_path / "run")
    play(env, 2)
    env.step(0)
    env.step(0)
    env.reset()
    play(env, 3)
    env.close()
    found = [(e.address, e.number, e.ended, after) for e, after in reenact.open_run(tmp_path / "run").timeline(0)]
    assert found == [("0.0", 0, "terminated", 2), ("0.live", None, "nothing", 0), ("0.1", 1, "truncated", 0)]


def test_a_reader_in_the_writers_process(tmp_path: Path) -> None:
    """A run that this very process writes is read at each flush, and the writer's close still reaches the disk."""
    env = recorder(tmp_path / "run")
    play(env, 3)
    env.flush()
    run = reenact.open_run(tmp_path / "run")
    assert (len(run), run.segments[0].state) == (1, "live")
    for count in range(2, 6):
        play(env, count)
        env.reset()
        env.step(1)
        env.flush()
        run.refresh()
        assert len(run) == 2 * count - 2
        assert [episode.length for episode in run.live] == [1]
        assert run.live[0].actions == [1]
    env.close()
    path = tmp_path / "run" / "segment-00000.h5"
    code = "import h5py, sys; print(len(h5py.File(sys.argv[1], 'r')['episodes']))"  # no SWMR: it is closed
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    run.refresh()
    assert len(run) == int(done.stdout) == 9
    assert (run.live, run.segments[0].state) == ([], "closed")


def test_a_killed_writer(tmp_path: Path) -> None:
    """After kill -9 in mid-episode the committed steps of the open episode are there, interrupted, behind all others."""
    writer = start(tmp_path / "run", 0.3, "endless")
    assert writer.stdout is not None
    assert writer.stdout.readline() == "ready\n"
    running = reenact.open_run(tmp_path / "run")
    assert [episode.length for episode in running.live] == [100]
    before = len(running)
    os.kill(writer.pid, signal.SIGKILL)
    writer.communicate()
    running.refresh()
    for run in (running, reenact.open_run(tmp_path / "run")):
        assert (len(run), run.live, run.segments[0].state) == (before + 1, [], "killed")
        last = run[-1]
        assert (last.ended, last.length, last.address) == ("interrupted", 100, f"0.{before}")
        assert last.actions == [1] * 100
        assert last.return_ == pytest.approx(last.rewards.sum())
        assert run[last.address].number == before
        assert [episode.address for episode, _ in run.timeline(0)][-1] == last.address
        for episode in run:
            assert len(episode.data().actions) == episode.length


def test_while_several_are_live_only_what_is_settled_has_numbers(tmp_path: Path) -> None:
    """Episodes later than the oldest live commit have an address and no number, until that segment is done."""
    one, two = recorder(tmp_path / "run"), recorder(tmp_path / "run")
    play(one, 2)
    one.flush()
    play(two, 3)
    two.flush()
    play(two, 4)
    two.flush()
    run = reenact.open_run(tmp_path / "run")
    assert [episode.address for episode in run] == ["0.0"]
    assert run["1.1"].number is None
    assert run["1.1"].length == 4
    with pytest.raises(reenact.EpisodeNotFoundError, match="no number yet"):
        run.number_of("1.1")
    one.close()
    run.refresh()
    assert [episode.address for episode in run] == ["0.0", "1.0"] or len(run) == 3
    two.close()
    run.refresh()
    assert [episode.address for episode in run] == ["0.0", "1.0", "1.1"]


def _big(path: Path, like: Path, count: int) -> None:
    """Makes a segment of very many episodes of one step each, out of a small one, by bare h5py."""
    with (
        h5py.File(like, "r", locking=False) as source,
        h5py.File(path, "w", libver=("v110", "v110")) as target,
    ):
        for name in source:
            source.copy(name, target)
        target.attrs.update(source.attrs)
        row = source["episodes"][0]
        rows = np.full(count, row)
        rows["end_time"] += np.arange(count)
        target["episodes"].resize((count,))
        data, width = bytearray(rows.tobytes()), rows.dtype.itemsize
        for at in range(0, len(data), width):
            data[at + width - 4 : at + width] = zlib.crc32(data[at : at + width - 4]).to_bytes(4, "little")
        target["episodes"][:] = np.frombuffer(data, rows.dtype)


def test_no_table_of_raw_rows_is_kept(path: Path, tmp_path: Path) -> None:
    """What stays in memory of 50,000 episodes is the columns, under 200 bytes an episode, and reading episodes adds none."""
    big = tmp_path / "segment-00000.h5"
    _big(big, path / "segment-00001.h5", 50_000)
    reenact.open_run(big)
    tracemalloc.start()
    run = reenact.open_run(big)
    held, _ = tracemalloc.get_traced_memory()
    for episode in run[::500]:
        assert episode.rewards.shape == (4,)
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert after - held < 100_000
    assert len(run) == 50_000
    assert held < 50_000 * 200
    assert run[-1].actions == run[0].actions
