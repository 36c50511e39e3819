"""Reading a run while it is written: whether anything is ever wrong, and what it costs the training.

    python tools/bench_live.py                  10,000 polls beside writers at full speed; what a reader costs
    python tools/bench_live.py --polls 1000     fewer
    python tools/bench_live.py --quick          the same, small: to see that it runs, not to quote

Each scenario's writers run in other processes as fast as they can and commit every few milliseconds. A poll refreshes
the run, compares every column with what the poll before saw (a number never moves, and what it names never changes),
and reads some episodes whole, whose every action and reward is known from their seed. The cost is the CPU time of a
CartPole training's process a step, alone and with readers beside it, in turns. The report is Markdown on stdout.
"""

from __future__ import annotations

import argparse
import itertools
import random
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

import reenact

if TYPE_CHECKING:
    from collections.abc import Sequence

WRITER = """
import os, sys, time, warnings
warnings.simplefilter("ignore")
import gymnasium as gym, numpy as np, reenact
class Counted(gym.Env):
    observation_space = gym.spaces.Discrete(2)
    action_space = gym.spaces.Box(-9, 9, (1,), np.float32)
    def reset(self, *, seed=None, options=None):
        if seed is None:
            super().reset()
        self.k = seed if options is None else options["k"]
        self.at = 0
        return 0, {}
    def step(self, action):
        at, self.at = self.at, self.at + 1
        return 0, (self.k * 17 + at) % 1000 / 8, self.at == 1 + self.k % 29, False, {}
run, worker, how, stop = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[1] + ".stop"
def play(env, k, action=lambda k, at: np.full(1, (k * 5 + at) % 7 - 3, np.float32)):
    env.reset(seed=k) if k % 3 else env.reset(options={"k": k})
    for at in range(1 + k % 29):
        env.step(action(k, at))
def make(role="train"):
    return reenact.Recorder(Counted(), run=run, role=role, resume=True, flush_seconds=0.01)
def wide(k, at):
    return np.full(1, (k * 5 + at) % 7 - 3, np.float32 if at % 2 else np.float64) + (k % 97 == 0 and at == 3) * 1e-12
env, idle, k = make(), make("eval") if how == "idle" else None, worker * 10**7
while k % 50 or not os.path.exists(stop):
    k += 1
    if how == "widen" and k % 2000 == 0:
        env.close()
        env = make()
    play(env, k, *([wide] if how == "widen" else []))
    if idle is not None and k % 5000 == 1:
        play(idle, k + 5 * 10**6)
        idle.flush()
env.close()
if idle is not None:
    idle.close()
"""


@dataclass(frozen=True, slots=True)
class Scenario:
    """Who writes.

    Attributes:
        name: what the table calls it.
        writers: processes at a time.
        how: "steady", "idle" (a second recorder of the process that is seldom used) or "widen" (values that need
            another segment).
        life: a writer is killed after so many polls, and another one resumes the run; 0: none is.
    """

    name: str
    writers: int = 1
    how: str = "steady"
    life: int = 0


SCENARIOS = (
    Scenario("one writer"),
    Scenario("three writers", writers=3),
    Scenario("a writer with an idle eval env", how="idle"),
    Scenario("two writers, widened columns", writers=2, how="widen"),
    Scenario("two writers, killed and resumed", writers=2, life=10),
)
TURN = 150
"""Polls of a run before it is left for a fresh one."""


class Writers:
    """The processes that write into a run.

    Args:
        run: the run.
        scenario: what they do.
    """

    def __init__(self, run: Path, scenario: Scenario) -> None:
        self._run, self._how = run, scenario.how
        self._stop = run.with_name(f"{run.name}.stop")
        self._numbers = itertools.count()
        self._processes = [self._start() for _ in range(scenario.writers)]

    def _start(self) -> subprocess.Popen[bytes]:
        number = next(self._numbers)
        return subprocess.Popen([sys.executable, "-c", WRITER, str(self._run), str(number), self._how])

    def replace(self) -> None:
        """Kills the oldest, and starts another one."""
        oldest = self._processes.pop(0)
        oldest.kill()
        oldest.wait()
        self._processes.append(self._start())

    def are_at_it(self) -> bool:
        """Whether any of them still writes."""
        return any(process.poll() is None for process in self._processes)

    def __enter__(self) -> Self:
        return self

    def stop(self) -> None:
        """Asks them to come to an end."""
        self._stop.touch()

    def __exit__(self, *error: object) -> None:
        """None is left behind."""
        for process in self._processes:
            process.kill()
            process.wait()


@dataclass(slots=True)
class Seen:
    """What a reader has seen of a run, and whether it holds.

    Attributes:
        run: the reader.
        polls: how many there were.
        grown: how many of these found episodes that had no number before.
        alive: how many found an episode that runs.
        read: how many episodes were read whole.
        wrong: what was wrong, a line each.
        columns: as they were at the last poll, by name.
    """

    run: reenact.Run
    polls: int = 0
    grown: int = 0
    alive: int = 0
    read: int = 0
    wrong: list[str] = field(default_factory=list)
    columns: dict[str, np.ndarray[Any, Any]] = field(default_factory=dict)
    _dice: random.Random = field(default_factory=lambda: random.Random(1))  # noqa: S311  # nobody has to guess it

    def poll(self) -> None:
        """Refreshes, and looks."""
        self.polls += 1
        self.run.refresh()
        before = len(self.columns.get("return", ()))
        self.compare(self.run)
        self.grown += len(self.run) > before
        picks = {self._dice.randrange(len(self.run)) for _ in range(3)} if len(self.run) else set()
        for number in picks | set(range(max(before, len(self.run) - 2), len(self.run))):
            self.check(self.run[number])
        for episode in self.run.live:
            self.alive += 1
            self.check(episode, whole=False)

    def compare(self, run: reenact.Run) -> None:
        """Holds all columns of a run against what was seen before; takes them in where it is the reader's own."""
        fresh = {
            "segment": run.segment_numbers,
            "index": run.segment_indices,
            "return": run.returns,
            "length": run.lengths,
            "seed": run.seeds.filled(-1),
        }
        for name, column in self.columns.items():
            if len(fresh[name]) < len(column):
                self.wrong.append(f"poll {self.polls}: {len(column)} episodes became {len(fresh[name])}")
                break
            moved = np.flatnonzero(fresh[name][: len(column)] != column)
            if len(moved):
                at = int(moved[0])
                said = f"the {name} of episode {at} was {column[at]}, is {fresh[name][at]} ({len(column)} had numbers)"
                self.wrong.append(f"poll {self.polls}: {said}")
                break
        if run is self.run:
            self.columns = fresh

    def check(self, episode: reenact.Episode, *, whole: bool = True) -> None:
        """Reads an episode: every action and reward must be what its seed says, and its return their sum."""
        self.read += 1
        options, count = episode.options, episode.length
        k = int((episode.seed if options is None else options["k"]) or 0)
        rewards = [(k * 17 + at) % 1000 / 8 for at in range(count)]
        actions = [np.full(1, (k * 5 + at) % 7 - 3, np.float32) for at in range(count)]
        found = episode.actions
        # 1e-12 is what a widening scenario adds, and float32 leaves out
        equal = len(found) == count and all(abs(a - b) < 1e-9 for a, b in zip(found, actions, strict=True))  # noqa: PLR2004
        complete = count == 1 + k % 29 or not whole or episode.ended == "interrupted"
        if not equal or episode.rewards.tolist() != rewards or episode.return_ != sum(rewards) or not complete:
            self.wrong.append(f"poll {self.polls}: {episode!r} does not hold what was recorded")
        if (options is None) != bool(k % 3) or bool(episode.origins) is False:
            self.wrong.append(f"poll {self.polls}: {episode!r} has origins {episode.origins}")


def watch(folder: Path, scenario: Scenario, *, polls: int) -> Seen:
    """Polls runs of a scenario until there were so many polls, and each run's writers have come to an end."""
    total = {"polls": 0, "grown": 0, "alive": 0, "read": 0}
    wrong: list[str] = []
    for turn in itertools.count():
        run = folder / f"run-{turn}"
        with Writers(run, scenario) as writers:
            while not list(run.glob("segment-*.h5")):
                time.sleep(0.01)
            seen = Seen(reenact.open_run(run))
            while writers.are_at_it():
                seen.poll()
                if seen.polls == min(polls - total["polls"], TURN):
                    writers.stop()
                if scenario.life and seen.polls % scenario.life == 0 and seen.polls < TURN:
                    writers.replace()
                if seen.polls % (TURN // 2) == 0:
                    seen.compare(reenact.open_run(run))  # whoever opens it now sees the same numbers
            seen.poll()
            seen.compare(reenact.open_run(run))
        total = {name: count + getattr(seen, name) for name, count in total.items()}
        wrong += seen.wrong
        if total["polls"] >= polls:
            break
    return Seen(seen.run, wrong=wrong, **total)  # type: ignore[arg-type]  # mypy matches them with all fields


def report_polls(polls: int) -> bool:
    """Polls each scenario, and prints what came of it; returns whether nothing was wrong."""
    print(f"\n### Polls beside writers at full speed, {polls:,} a scenario\n")
    print("| writers | polls | found new episodes | episodes that ran | episodes read whole | anomalies |")
    print("|---|--:|--:|--:|--:|--:|")
    good = True
    for scenario in SCENARIOS:
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            seen = watch(Path(folder), scenario, polls=polls)
        counts = " | ".join(f"{n:,}" for n in (seen.polls, seen.grown, seen.alive, seen.read, len(seen.wrong)))
        print(f"| {scenario.name} | {counts} |", flush=True)
        for line in seen.wrong[:5]:
            print(line, file=sys.stderr)
        good &= not seen.wrong
    return good


TRAINING = """
import sys, time, warnings
warnings.simplefilter("ignore")
import gymnasium as gym, numpy as np, reenact
run, steps = sys.argv[1], int(sys.argv[2])
env = reenact.Recorder(gym.make("CartPole-v1"), run=run)
actions = np.random.default_rng(0).integers(2, size=4096).tolist()
env.reset(seed=0)
done = 0
print("ready", flush=True)
sys.stdin.readline()
wall, cpu = time.perf_counter(), time.process_time()
while done < steps:
    env.reset(seed=0 if done == 0 else None)
    over = False
    while not over:
        _, _, terminated, truncated, _ = env.step(actions[done % 4096])
        over = terminated or truncated
        done += 1
print(time.process_time() - cpu, time.perf_counter() - wall, done, flush=True)
env.close()
"""
POLLING = """
import sys, time, reenact
run = reenact.open_run(sys.argv[1])
while run.is_live:
    run.refresh()
    run.returns.sum()
    time.sleep(float(sys.argv[2]))
"""
COMMAND = "from reenact.cli import replay_main; replay_main()"
READERS: dict[str, Sequence[str]] = {
    "alone": (),
    "a reader that polls every second": (POLLING, "1"),
    "a reader that polls without a pause": (POLLING, "0"),
    "`replay --follow --every 250`": (COMMAND, "--follow", "--every", "250"),
}


def train(folder: Path, reader: Sequence[str], steps: int) -> tuple[float, float]:
    """Trains with a reader beside it; returns the training's CPU time and wall time a step, in µs."""
    command = [sys.executable, "-c", TRAINING, str(folder / "run"), str(steps)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as training:
        assert training.stdin is not None  # noqa: S101  # for mypy: pipes were asked for
        assert training.stdout is not None  # noqa: S101  # as above
        training.stdout.readline()
        beside = None
        if reader:
            command = [sys.executable, "-c", reader[0], str(folder / "run"), *reader[1:]]
            beside = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            time.sleep(3)  # it has loaded what it needs
        training.stdin.write("\n")
        training.stdin.flush()
        cpu, wall, done = map(float, training.stdout.readline().split())
    if beside is not None:
        beside.wait()
    return cpu / done * 1e6, wall / done * 1e6


def report_cost(steps: int, repeats: int) -> None:
    """Trains with each reader, in turns, and prints what that adds."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in READERS}
    for repeat in range(repeats):
        for name, reader in [*READERS.items()][:: 1 if repeat % 2 else -1]:
            with tempfile.TemporaryDirectory(prefix="bench-") as folder:
                times[name].append(train(Path(folder), reader, steps))
            print(f"  {repeat + 1}/{repeats} {name}: {times[name][-1][0]:.2f} µs", file=sys.stderr)
    print(f"\n### A CartPole training of {steps:,} steps, with readers beside it; {repeats} repeats\n")
    print("| beside it | CPU, µs a step | against alone | wall, µs a step | against alone |")
    print("|---|--:|--:|--:|--:|")
    for name, values in times.items():
        cells = []
        for which in range(2):
            ratio = statistics.median(a[which] / b[which] for a, b in zip(values, times["alone"], strict=True))
            cells.append(f"{statistics.median(value[which] for value in values):.2f} | {ratio:.3f} ×")
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def main() -> int:
    """Runs what the options ask for; 1 if any poll found something wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a small run of everything")
    parser.add_argument("--polls", type=int, default=10_000, help="in all (10,000); 0: none")
    parser.add_argument("--steps", type=int, default=1_000_000, help="of a training (1,000,000)")
    parser.add_argument("--repeats", type=int, default=5, help="trainings with each reader (5); 0: none")
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # of what the writers' env can't be rebuilt from
    polls, steps, repeats = (100, 100_000, 1) if options.quick else (options.polls, options.steps, options.repeats)
    good = report_polls(-(-polls // len(SCENARIOS))) if polls else True
    if repeats:
        report_cost(steps, repeats)
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
