"""Following a run: what is filmed when, what is waited for, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
import pytest

import odd_envs as odd
import reenact
from odd_envs import LENGTH, Odd, make
from reenact import folder, following
from reenact.errors import RunNotFoundError, SelectionError
from reenact.selection import Awaited, select
from test_render import decode

if TYPE_CHECKING:
    from collections.abc import Callable


SOURCE = Path(reenact.__file__).resolve().parents[1]
REPLAY = "from reenact.cli import replay_main; replay_main()"


@pytest.fixture(autouse=True)
def _own_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def play(env: gym.Env[Any, Any], episodes: int, seed: int | None = None) -> None:
    """Plays whole episodes."""
    for at in range(episodes):
        env.reset(seed=seed if at == 0 else None)
        for step in range(LENGTH):
            env.step((at + step) % 2)


def more(env: reenact.Recorder, episodes: int, seed: int | None = None) -> Callable[[], None]:
    """So many more, and a commit."""

    def goes_on() -> None:
        play(env, episodes, seed)
        env.flush()

    return goes_on


def last(env: reenact.Recorder, episodes: int, seed: int | None = None) -> Callable[[], None]:
    """So many more, and the end."""

    def ends() -> None:
        play(env, episodes, seed)
        env.close()

    return ends


def training(monkeypatch: pytest.MonkeyPatch, *parts: list[Callable[[], None]]) -> None:
    """Lets a training go on while a follower sleeps: a part each time, and nothing more behind the last."""
    left = list(parts)

    def sleep(_: float) -> None:
        for go_on in left.pop(0) if left else []:
            go_on()

    monkeypatch.setattr(following, "sleep", sleep)


class Heard:
    """An observer that keeps what it is told."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.total = self.done = 0

    def planned(self, frames: int, films: int) -> None:  # noqa: ARG002  # the observer's
        """Adds up."""
        self.total += frames

    def advanced(self, frames: int) -> None:
        """Adds up."""
        self.done += frames

    def waiting(self, what: str) -> None:
        """Keeps it."""
        self.said.append(f"waiting: {what}")

    def chained(self, done: int, total: int) -> None:
        """Is not asked about."""

    def finished(self, result: reenact.ReplayResult) -> None:
        """Keeps it."""
        self.said.append(f"{result.episode}: {result.verdict}")


def test_picks_are_filmed_as_they_get_their_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is there is filmed at once, what comes when it comes, and the rest when the training has ended."""
    env = reenact.Recorder(make(Odd), run=tmp_path / "run")
    play(env, 3, seed=1)
    env.flush()
    heard = Heard()
    steps = [[0, 2], [0, 2, 4], [0, 2, 4, 6]]
    videos: list[list[int]] = []

    def filmed() -> None:
        names = (tmp_path / "run" / "videos").glob("*.mp4")
        videos.append(sorted(int(path.stem.rpartition("-")[2]) for path in names))

    training(monkeypatch, [filmed, more(env, 3)], [filmed, last(env, 2)], [filmed])
    results = reenact.replay(tmp_path / "run", every=2, follow=True, observer=heard)
    assert videos == steps
    assert [(result.episode, result.verdict) for result in results] == [(at, "exact") for at in (0, 2, 4, 6)]
    assert [line for line in heard.said if "exact" in line] == ["0: exact", "2: exact", "4: exact", "6: exact"]
    assert len(heard.said) == 5
    assert "3 episodes" in heard.said[2]
    assert heard.total == heard.done == 4 * (LENGTH + 1)


def test_followed_videos_are_those_made_afterwards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Alone and chained episodes alike: the same verdicts, origins and frames; the chain goes on where it stood."""
    env = reenact.Recorder(make(odd.Carries, memory=None), run=tmp_path / "run")
    play(env, 4, seed=1)
    env.flush()
    training(monkeypatch, *[[more(env, 4)]] * 5, [env.close])
    Odd.count.clear()
    followed = reenact.replay(tmp_path / "run", every=3, follow=True, origin="chain:first")
    resets = Odd.count["reset"]
    afterwards = reenact.replay(tmp_path / "run", every=3, video_folder=tmp_path / "again", origin="chain:first")
    assert [r.episode for r in followed] == list(range(0, 24, 3))
    assert {r.verdict for r in followed} == {"exact"}
    assert [(r.episode, r.verdict, r.origin) for r in followed] == [
        (r.episode, r.verdict, r.origin) for r in afterwards
    ]
    for one, other in zip(followed, afterwards, strict=True):
        assert np.array_equal(decode(one.path), decode(other.path))
    assert resets - 20 <= 22 + 8  # those of the training itself left out: each was done about once
    monkeypatch.undo()


def test_without_picks_it_is_the_capped_cubic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As RecordVideo does by default: 0, 1, 8 and so on."""
    env = reenact.Recorder(make(Odd), run=tmp_path / "run")
    play(env, 1, seed=1)
    env.flush()
    training(monkeypatch, [last(env, 9)])
    assert [r.episode for r in reenact.replay(tmp_path / "run", follow=True)] == [0, 1, 8]


def test_several_envs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of several envs that take turns, one ending before the others, each pick is filmed once, when it has a number."""
    envs = [reenact.Recorder(make(odd.Carries, memory=None), run=tmp_path / "run") for _ in range(3)]
    for env in envs:
        play(env, 3, seed=1)
        env.flush()
    training(
        monkeypatch,
        [more(env, 2) for env in envs],
        [envs[0].close, *(more(env, 2) for env in envs[1:])],
        [env.close for env in envs[1:]],
    )
    results = reenact.replay(tmp_path / "run", every=2, follow=True)
    run = reenact.open_run(tmp_path / "run")
    assert len(run) == 19
    assert [(r.episode, r.address) for r in results] == [(n, run[n].address) for n in range(0, 19, 2)]
    assert {r.verdict for r in results} == {"exact"}


def test_a_vector_env_s_lanes_come_one_after_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What there is of a vector env is filmed lane by lane, so that the chain that stands in one goes on."""
    monkeypatch.setattr(following, "sleep", lambda _: None)
    envs = reenact.VectorRecorder(gym.vector.SyncVectorEnv([lambda: make(Odd)] * 2), run=tmp_path / "run")
    envs.reset(seed=1)
    for step in range(3 * LENGTH + 3):
        envs.step(np.array([step % 2, 1]))
    envs.close()
    run = reenact.open_run(tmp_path / "run")
    (numbers,) = following.picked(run, Awaited("all"), print)
    lanes = [run[number].lane for number in numbers]
    assert lanes == sorted(lanes)
    assert len(lanes) == len(run) >= 4


def test_what_never_came(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers and addresses are waited for; what did not come by the end has a result that says so."""
    env = reenact.Recorder(make(Odd), run=tmp_path / "run")
    play(env, 1, seed=1)
    env.flush()
    training(monkeypatch, [last(env, 2)])
    results = reenact.replay(
        tmp_path / "run", ["2", 1, "0.0", "0.7", 40, "5:9"], follow=True, observer=(heard := Heard())
    )
    assert [(r.episode, r.address, r.verdict) for r in results] == [
        (0, "0.0", "exact"), (1, "0.1", "exact"), (2, "0.2", "exact"), (40, "", "impossible"), (None, "0.7", "impossible"),
    ]  # fmt: skip
    assert results[-1].error == "it never came: the training ended with episodes 0 to 2"
    assert heard.said[-2:] == ["40: impossible", "None: impossible"]


def test_an_end_is_one_when_nothing_follows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between one env's close and the next one's first reset nothing is live, and the training has not ended."""
    env = reenact.Recorder(make(Odd), run=tmp_path / "run")
    play(env, 2, seed=1)
    env.close()
    other = reenact.Recorder(make(Odd), run=tmp_path / "run")
    training(monkeypatch, [more(other, 2, seed=2)], [last(other, 1)])
    assert [r.episode for r in reenact.replay(tmp_path / "run", "all", follow=True)] == [0, 1, 2, 3, 4]


def test_a_script_that_still_runs_may_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the training script lives, a pause between two of its envs is no end; but it is not waited for for ever."""
    env = reenact.Recorder(make(Odd), run=tmp_path / "run")
    play(env, 2, seed=1)
    env.close()
    looks: list[int] = []
    monkeypatch.setattr(following, "sleep", lambda _: looks.append(1))
    for at_work, expected in ((False, 2), (True, 30)):
        monkeypatch.setattr("reenact.folder.others_at_work", lambda _, at_work=at_work: at_work)
        looks.clear()
        assert [result.verdict for result in reenact.replay(tmp_path / "run", "0,1", follow=True)] == ["exact"] * 2
        assert len(looks) == expected - 1


def test_whose_script_is_at_work(tmp_path: Path) -> None:
    """A script of this machine counts while it runs; the caller's own does not."""
    env = reenact.Recorder(make(Odd), run=tmp_path / "mine")
    play(env, 1, seed=1)
    env.close()
    assert not folder.others_at_work(tmp_path / "mine")
    code = f"""
import sys, gymnasium as gym, reenact
env = reenact.Recorder(gym.make("CartPole-v1"), {str(tmp_path / "other")!r})
env.reset(seed=1)
env.step(0)
env.close()
print("done", flush=True)
sys.stdin.read()
"""
    environ = {**os.environ, "PYTHONPATH": str(SOURCE)}
    environ.pop("_REENACT_LAUNCH", None)
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environ
    ) as script:
        assert script.stdout is not None
        assert script.stdout.readline() == "done\n"
        assert folder.others_at_work(tmp_path / "other")
        script.communicate("")
    assert not folder.others_at_work(tmp_path / "other")


def test_a_run_that_is_not_there_yet_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says what it waits for and what there is instead; a folder of other runs is a mistake."""
    env = reenact.Recorder(make(Odd), run=tmp_path / "runs" / "new")
    old = reenact.Recorder(make(Odd), run=tmp_path / "runs" / "old")
    play(old, 1, seed=1)
    old.close()
    training(monkeypatch, [], [last(env, 2, seed=1)])
    results = reenact.replay(tmp_path / "runs" / "new", [1], follow=True, observer=(heard := Heard()))
    assert [r.verdict for r in results] == ["exact"]
    assert heard.said[0].startswith(f"waiting: no run at {tmp_path / 'runs' / 'new'}: there is")
    with pytest.raises(RunNotFoundError, match="old"):
        reenact.replay(tmp_path / "runs", [1], follow=True)


@pytest.mark.parametrize(
    "options",
    [
        {"episodes": -1}, {"episodes": "-1"}, {"episodes": "3,-2:"}, {"episodes": ":-2"}, {"episodes": "9:2:-1"},
        {"episodes": "x"}, {"every": 0}, {"best": 3}, {"median": True}, {"last": 1}, {"every": 2, "percentile": "10"}, {"step_trigger": lambda step: step == 3}, {"video_length": 9},
    ],
)  # fmt: skip
def test_what_needs_the_end_is_refused(tmp_path: Path, options: dict[str, Any]) -> None:
    """Picks that count from the end, and clips, are refused in one line before anything is waited for."""
    with pytest.raises(SelectionError) as caught:
        reenact.replay(tmp_path / "nothing", follow=True, **options)
    assert "\n" not in str(caught.value)


class Numbered:
    """A run of so many episodes in one segment, each longer than the one before."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def number_of(self, address: str) -> int:
        """As a run does it."""
        segment, index = map(int, address.split("."))
        if segment or index >= self.count:
            raise reenact.EpisodeNotFoundError(address)
        return index

    def table(self) -> dict[str, np.ndarray]:
        """As a run does it."""
        endings = ["terminated" if at % 3 else "truncated" for at in range(self.count)]
        return {"length": np.arange(self.count), "ended": np.array(endings, object)}


@pytest.mark.parametrize("picks", ["all", "3:", ":7", "2:9:3", "4,0.5,11", "0,0.0,1:3", ["3", 5, "6:8"], None])
@pytest.mark.parametrize(
    "more",
    [{}, {"every": 4}, {"trigger": lambda number: number in (1, 5)}, {"where": "length > 4"}, {"ended": "truncated"}],
)
def test_what_is_awaited_is_what_is_selected(picks: Any, more: dict[str, Any]) -> None:
    """In whatever portions numbers come, the same are picked as of the finished run."""
    for bounds in ([12], [0, 0, 5, 6, 12], list(range(13))):
        awaited, found, seen = Awaited(picks, **more), [], 0
        for bound in bounds:
            found += awaited.among(Numbered(bound), range(seen, bound))
            seen = bound
        assert sorted(found) == select(Numbered(12), picks, **more)
        assert len(found) == len(set(found))
        assert awaited.missing == []


TRAINING = """
import sys, gymnasium as gym, reenact
env = reenact.Recorder(gym.make("CartPole-v1", max_episode_steps=6), run=sys.argv[1])
seed = 1
for line in sys.stdin:
    for _ in range(int(line)):
        env.reset(seed=seed)
        seed, at = None, 0
        while not any(env.step(at % 2)[2:4]):
            at += 1
    env.flush()
"""


class Follower:
    """A training in one process, and `replay --follow` in another."""

    def __init__(self, run: Path, *arguments: str) -> None:
        environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
        pipe = subprocess.PIPE
        self.training = subprocess.Popen(
            [sys.executable, "-c", TRAINING, run], stdin=pipe, text=True, env=environment
        )  # fmt: skip
        self.follower = subprocess.Popen(
            [sys.executable, "-c", REPLAY, run, "--follow", "--json", *arguments],
            stdout=pipe, stderr=pipe, text=True, env=environment, start_new_session=True,
        )  # fmt: skip

    def train(self, episodes: int) -> None:
        """So many more."""
        assert self.training.stdin is not None
        self.training.stdin.write(f"{episodes}\n")
        self.training.stdin.flush()

    def result(self) -> dict[str, Any]:
        """The next one that is printed."""
        assert self.follower.stdout is not None
        found: dict[str, Any] = json.loads(self.follower.stdout.readline())
        return found

    def end(self) -> None:
        """Leaves neither behind."""
        for process in (self.training, self.follower):
            process.kill()
            process.communicate()


@pytest.mark.parametrize("ending", ["close", "kill", "Ctrl-C"])
def test_the_command_follows_and_ends_with_the_training(tmp_path: Path, ending: str) -> None:
    """A line as each video is done; a training that closes or is killed ends it with 0, Ctrl-C with 130; videos stay."""
    both = Follower(tmp_path / "run", "--every", "2")
    try:
        both.train(1)
        assert both.result()["episode"] == 0
        both.train(3)
        assert both.result()["verdict"] == "exact"
        both.train(2)
        assert both.result()["episode"] == 4
        if ending == "close":
            assert both.training.stdin is not None
            both.training.stdin.close()
        elif ending == "kill":
            both.training.kill()
            both.training.wait()
        else:
            time.sleep(0.1)
            os.killpg(both.follower.pid, signal.SIGINT)
        out, err = both.follower.communicate(timeout=60)
    finally:
        both.end()
    assert both.follower.returncode == (130 if ending == "Ctrl-C" else 0), err
    assert out == ""
    assert "Traceback" not in err
    assert sorted(line.partition(" ->")[0] for line in err.splitlines() if "exact" in line) == [
        f"episode {number}: exact" for number in (0, 2, 4)
    ]
    assert sorted(path.name for path in (tmp_path / "run" / "videos").iterdir()) == [
        "manifest.jsonl", *(f"run-episode-{number}.mp4" for number in (0, 2, 4))
    ]  # fmt: skip
    assert [len(decode(path)) for path in (tmp_path / "run" / "videos").glob("*.mp4")] == [7, 7, 7]
