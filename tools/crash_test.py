"""Kills trainings, and proves that nothing committed is lost.

    python tools/crash_test.py               200 real trainings, killed at random moments: kill -9, SIGTERM, os._exit
    python tools/crash_test.py --count 1000  so many
    python tools/crash_test.py --writes      every moment of every scenario of tests/crash_writers.py, and of a disk
                                             that is full from each write on; tests/test_crash.py opens a share of these
    python tools/crash_test.py --power 5000  the power fails while a run is recorded with durable=True: what was not
                                             synced is on the disk page by page, or not

Each prints a table and exits with 1 if a run can't be read, holds what never was, or lacks what it promised to keep.
`--reader PYTHON` has another Python, with another h5py, open what --writes recorded.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))  # what the tests record and compare with

import reenact  # noqa: E402
from crash_journal import Folder, Kind, compiled, contents, read, record  # noqa: E402
from crash_opening import Outcome, examine  # noqa: E402
from crash_power import examine_power  # noqa: E402
from crash_training import DTYPE, FLUSHED, STEP, action_of, seed_of  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

KILLS = ("kill -9", "SIGTERM", "os._exit")
FORMS = ("one", "one", "two", "fork", "spawn", "lanes", "batch")
IN_ONE = ("one", "lanes", "batch")
"""One process, whose start takes no longer than that."""
EARLY_S = 0.3
"""A fourth of the kills comes within so many seconds of the start."""
SLACK_S = 1.0
"""By so much a busy machine may hold up a commit that is due."""
MOST_STEPS = 4096 + 64
SCENARIOS = ("plain", "composite", "widening", "busy", "fork", "workers", "long")
FULL_AT = 40
"""The disk is full from each of the first so many writes on."""


@dataclass
class Tally:
    """What came of the kills of one kind."""

    kills: int = 0
    empty: int = 0
    """Killed before anything was due."""
    unreadable: int = 0
    wrong: int = 0
    committed: int = 0
    lost: int = 0
    late: int = 0
    """Losses beyond the limit."""
    most_s: float = 0.0
    of_limit: float = 0.0
    most_steps: int = 0
    interrupted: int = 0
    episodes: int = 0
    replayed: int = 0
    exact: int = 0
    texts: list[str] = field(default_factory=list)

    @property
    def flaws(self) -> int:
        """How many there are."""
        return self.unreadable + self.wrong + self.lost + self.late + self.replayed - self.exact


def kill_one(folder: Path, rng: np.random.Generator, tally: Tally, how: str, form: str) -> None:
    """Starts a training, kills it, and looks at what is left."""
    run, progress = folder / "run", folder / "progress"
    progress.mkdir(parents=True)
    after = float(rng.uniform(0, EARLY_S) if rng.random() < 1 / 4 else rng.uniform(EARLY_S, 2.5))
    plan = {
        "form": form,
        "flush_seconds": float(rng.choice([0.02, 0.1, 0.5])),
        "sleep": float(rng.choice([0.0, 0.0, 0.002])),
        "kill": after if how == "os._exit" else "",
        "seed": int(rng.integers(1, 1000)) * 1000,
    }
    command = [sys.executable, str(Path(__file__).with_name("crash_training.py")), run, progress, json.dumps(plan)]
    environ = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "PYTHONWARNINGS": "ignore"}
    environ.pop("_REENACT_LAUNCH", None)
    with subprocess.Popen(
        [*map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environ, start_new_session=True
    ) as training:
        assert training.stdout is not None  # noqa: S101  # for mypy: it is piped
        assert training.stderr is not None  # noqa: S101  # as above
        if training.stdout.readline().strip() != b"ready":
            raise RuntimeError(training.stderr.read().decode())
        if form not in IN_ONE:  # its processes take seconds to start
            until = time.monotonic() + 60
            while sum(path.stat().st_size > 0 for path in progress.iterdir()) < 2:  # noqa: PLR2004  # envs
                if time.monotonic() > until or training.poll() is not None:  # by its own clock, before they had begun
                    break
                time.sleep(0.01)
        time.sleep(after)
        if how != "os._exit" and training.poll() is not None:
            raise RuntimeError(training.stderr.read().decode())
        if how == "os._exit":
            time.sleep(0.5)  # its own clock started later
        with contextlib.suppress(ProcessLookupError):  # all of it has ended
            os.killpg(training.pid, signal.SIGTERM if how == "SIGTERM" else signal.SIGKILL)
        training.stdout.close()
        training.stderr.close()
    _wait_for_all(progress)
    tally.kills += 1
    _compare(run, progress, plan, rng, tally)


def _wait_for_all(progress: Path) -> None:
    """Waits until the processes that recorded are gone, the orphans among them too."""
    for pid in {int(path.name.partition("_")[0]) for path in progress.iterdir()}:
        until = time.monotonic() + 30
        while time.monotonic() < until:
            try:
                state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                break
            if state in "ZX":  # nobody waits for it: it is dead all the same
                break
            time.sleep(0.01)


def _env_of(path: Path) -> tuple[int, int]:
    """Returns whose progress a file tells of: an env's base, and the lane (-1: it is no vector env)."""
    _, base, lane, _ = path.name.split("_")
    return int(base), int(lane)


def _compare(run: Path, progress: Path, plan: dict[str, Any], rng: np.random.Generator, tally: Tally) -> None:
    # AsyncVectorEnv makes one env more, and never resets it
    files = [path for path in progress.iterdir() if path.stat().st_size]
    done = {_env_of(path): np.fromfile(path, DTYPE) for path in files}
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            found = reenact.open_run(run)
        except reenact.RunNotFoundError:
            found = None
        except reenact.ReenactError as error:
            tally.unreadable += 1
            tally.texts.append(f"{run}: {error}")
            return
    if said:
        tally.unreadable += 1
        tally.texts += [f"{run}: {warning.message}" for warning in said]
    numbers: dict[tuple[int, int], list[int]] = {env: [] for env in done}
    if found is None:
        tally.empty += 1
    else:
        roles = {segment.number: int(segment.role) for segment in found.segments}
        order = np.lexsort((found.segment_indices, found.segment_numbers))
        for number in order.tolist():
            env = roles[int(found.segment_numbers[number])], found[number].lane
            numbers.setdefault(env if env in numbers else (env[0], -1), []).append(number)
        if found.live:
            tally.texts.append(f"{run}: a dead process's episode is listed as running")
            tally.wrong += 1
    for env, records in done.items():
        flaws = list(_differences(found, numbers[env], records, env, plan["form"])) if found is not None else []
        tally.wrong += bool(flaws)
        tally.texts += [f"{run}: {flaw}" for flaw in flaws]
        _account(found, numbers[env], records, limit_s=plan["flush_seconds"], tally=tally, run=str(run))
    if found is not None and len(found):
        tally.episodes += len(found)
        tally.interrupted += int((found.ended == "interrupted").sum())
        picked = sorted({len(found) - 1, *rng.integers(0, len(found), 2).tolist()})
        results = reenact.verify(found, episodes=picked)
        tally.replayed += len(results)
        tally.exact += sum(result.verdict == "exact" for result in results)
        tally.texts += [f"{run}: {result}" for result in results if result.verdict != "exact"]


def _differences(
    found: reenact.Run | None, numbers: list[int], records: NDArray[Any], env: tuple[int, int], form: str
) -> Iterator[str]:
    """Compares an env's or a lane's episodes with what is known of them."""
    assert found is not None  # noqa: S101  # for mypy: the caller looked
    base, lane = env
    steps = Counter(records["episode"][records["what"] == STEP].tolist())
    last = int(records["episode"].max(initial=-1))
    for episode, number in enumerate(numbers):
        logged, length = found[number], int(found.lengths[number])
        # the step that the kill came in may be in the log, and not yet noted
        if length > steps[episode] + (episode >= last):
            yield f"episode {episode} of {env} has {length} steps, {steps[episode]} were done"
        if episode < min(last, len(numbers) - 1) and length != steps[episode]:
            yield f"episode {episode} of {env} has {length} steps of {steps[episode]}"
        if logged.seed != _seed(base, lane, episode, form) or logged.return_ != length:
            yield f"episode {episode} of {env} has another seed or return"
        if logged.ended == "interrupted" and episode != len(numbers) - 1:
            yield f"episode {episode} of {env} is interrupted, and not the last"
        if logged.actions != [action_of(episode, step) for step in range(length)]:
            yield f"episode {episode} of {env} has other actions"


def _seed(base: int, lane: int, episode: int, form: str) -> int | None:
    """Returns the seed of an episode's reset: in a vector env only the first has one, a batch's all the same."""
    if form not in ("lanes", "batch"):
        return seed_of(base, episode)
    return None if episode else base + lane if form == "lanes" else base


def _account(
    found: reenact.Run | None, numbers: list[int], records: NDArray[Any], *, limit_s: float, tally: Tally, run: str
) -> None:
    """Counts what is lost of an env's steps."""
    stepped = records[records["what"] == STEP]
    kept = int(found.lengths[numbers].sum()) if found is not None and numbers else 0
    flushed = np.flatnonzero(records["what"] == FLUSHED)
    committed = int((records["what"][: flushed[-1]] == STEP).sum()) if len(flushed) else 0
    tally.committed += committed
    if kept < committed:
        tally.lost += 1
        tally.texts.append(f"{run}: {committed - kept} committed steps are lost")
    if kept < len(stepped):
        seconds, steps = float(records["time"][-1] - stepped["time"][kept]), len(stepped) - kept
        tally.most_s, tally.most_steps = max(tally.most_s, seconds), max(tally.most_steps, steps)
        tally.of_limit = max(tally.of_limit, seconds / limit_s)
        if seconds > limit_s + SLACK_S or steps > MOST_STEPS:
            tally.late += 1
            tally.texts.append(f"{run}: {steps} steps, {seconds:.2f} s are lost, flush_seconds={limit_s}")


def kills(count: int, seed: int, folder: Path) -> int:
    """Kills so many trainings, prints the table, and returns the number of flaws."""
    rng = np.random.default_rng(seed)
    tallies: dict[tuple[str, str], Tally] = {}
    for number in range(count):
        how, form = KILLS[number % len(KILLS)], str(rng.choice(FORMS))
        tally = tallies.setdefault((how, form), Tally())
        before = tally.flaws
        kill_one(folder / str(number), rng, tally, how, form)
        if tally.flaws > before:
            print(f"{how}, {form}: {tally.texts[-1]}", flush=True)
    print(f"{count} kills, seed {seed}, h5py {h5py.__version__}, HDF5 {h5py.version.hdf5_version}\n")
    print(
        "| killed by | form | kills | no log yet | unreadable | wrong | committed steps | of these lost | most lost, s "
        "| of flush_seconds | most lost, steps | beyond the limit | episodes | interrupted | replayed, exact |"
    )
    print("| --- | --- |" + " --: |" * 13)
    for (how, form), tally in sorted(tallies.items()):
        print(
            f"| {how} | {form} | {tally.kills} | {tally.empty} | {tally.unreadable} | {tally.wrong} "
            f"| {tally.committed:,} | {tally.lost} | {tally.most_s:.2f} | {tally.of_limit:.2f} × "
            f"| {tally.most_steps:,} | {tally.late} | {tally.episodes:,} | {tally.interrupted} "
            f"| {tally.exact}/{tally.replayed} |"
        )
    return sum(tally.flaws for tally in tallies.values())


def writes(folder: Path, reader: str, public: int) -> int:
    """Opens every moment of every scenario, prints the table, and returns the number of flaws."""
    library = compiled(folder)
    full = [("full", at, last) for at in range(FULL_AT) for last in ((0, 100, 5000) if at % 4 == 0 else (0,))]
    print(f"recorded with h5py {h5py.__version__}, HDF5 {h5py.version.hdf5_version}; read by {reader}\n")
    print("| scenario | moments | opened | by the public call | unreadable | wrong | lost | hung | crashed | warned |")
    print("| --- |" + " --: |" * 9, flush=True)
    total, flaws = Outcome(0), 0
    for scenario, *arguments in [(name,) for name in SCENARIOS] + full:
        outcome = _one(folder, library, str(scenario), [*map(str, arguments)], reader=reader, public=public)
        flaws += len(outcome.flaws)
        if scenario == "full":
            _add(total, outcome)
        else:
            _line(str(scenario), outcome)
    _line(f"full disk, {len(full)} ×", total)
    return flaws


def _one(folder: Path, library: Path, scenario: str, arguments: list[str], *, reader: str, public: int) -> Outcome:
    name = "-".join([scenario, *arguments])
    watched, journal = folder / name, folder / f"{name}.journal"
    watched.mkdir()
    writer = [sys.executable, str(ROOT / "tests" / "crash_writers.py"), scenario, str(watched / "run"), *arguments]
    done = record(writer, watched, library=library, journal=journal)
    if done.returncode:
        raise RuntimeError(f"{name} ended with {done.returncode}: {done.stderr}")
    again = Folder()
    try:
        for operation in read(journal, watched):
            again.apply(operation)
        if contents(again.path) != contents(watched):
            raise RuntimeError(f"{name}: the journal does not hold all that was written")
    finally:
        again.close()
    every = 10 if scenario == "long" else 1
    outcome = examine(journal, watched, "run", every=every, public=public, python=reader)
    for moment, found in sorted(outcome.flaws.items()):
        print(f"{name}, moment {moment}: {found[0]}", file=sys.stderr, flush=True)
    return outcome


def _add(total: Outcome, outcome: Outcome) -> None:
    for moment, found in outcome.flaws.items():
        total.flaws[total.moments + moment] = found
    total.moments += outcome.moments
    total.opened += outcome.opened
    total.public += outcome.public
    total.warned.update(outcome.warned)


def _line(name: str, outcome: Outcome) -> None:
    counts = " | ".join(str(outcome.count(what)) for what in ("unreadable", "wrong", "lost", "hang", "crash"))
    warned = sum(outcome.warned.values())
    print(f"| {name} | {outcome.moments} | {outcome.opened} | {outcome.public} | {counts} | {warned} |", flush=True)


def power(folder: Path, count: int, seed: int) -> int:
    """Lets the power fail so often while durable runs are recorded, prints the table, and returns the flaws."""
    library = compiled(folder)
    print(f"recorded with h5py {h5py.__version__}, HDF5 {h5py.version.hdf5_version}; seed {seed}\n")
    print("| scenario | losses of power | unreadable | wrong | lost | hung | crashed |")
    print("| --- |" + " --: |" * 6, flush=True)
    flaws = 0
    for scenario in ("durable", "durable_widening", "durable_long"):
        watched, journal = folder / scenario, folder / f"{scenario}.journal"
        watched.mkdir()
        writer = [sys.executable, str(ROOT / "tests" / "crash_writers.py"), scenario, str(watched / "run")]
        done = record(writer, watched, library=library, journal=journal)
        if done.returncode:
            raise RuntimeError(f"{scenario} ended with {done.returncode}: {done.stderr}")
        if not any(operation.kind is Kind.SYNCED for operation in read(journal, watched)):
            raise RuntimeError(f"{scenario} synced nothing")
        outcome = examine_power(journal, watched, "run", count=count, seed=seed)
        flaws += len(outcome.flaws)
        counts = " | ".join(str(outcome.count(what)) for what in ("unreadable", "wrong", "lost", "hang", "crash"))
        print(f"| {scenario} | {outcome.opened} | {counts} |", flush=True)
        for trial, found in sorted(outcome.flaws.items())[:20]:
            print(f"{scenario}, loss {trial}: {found[0]}", file=sys.stderr, flush=True)
    return flaws


def main() -> int:
    """Does what is asked for, and returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--count", type=int, default=200, metavar="N", help="how many trainings are killed")
    parser.add_argument("--writes", action="store_true", help="open every moment of every scenario instead")
    parser.add_argument("--power", type=int, default=0, metavar="N", help="let the power fail N times instead")
    parser.add_argument("--public", type=int, default=50, metavar="N", help="one moment of N by the public call")
    parser.add_argument("--reader", default=sys.executable, metavar="PYTHON", help="opens what --writes recorded")
    parser.add_argument("--seed", type=int, default=0, help="of all that is random")
    options = parser.parse_args()
    os.environ["PYTHONWARNINGS"] = "ignore"
    os.environ["XDG_STATE_HOME"] = tempfile.mkdtemp(prefix="reenact-state-")  # the user's own key is left alone
    with tempfile.TemporaryDirectory(prefix="reenact-crash-") as name:
        folder = Path(name).resolve()
        if options.writes:
            flaws = writes(folder, options.reader, options.public)
        elif options.power:
            flaws = power(folder, options.power, options.seed)
        else:
            flaws = kills(options.count, options.seed, folder)
    print(f"\n{flaws or 'no'} flaw{'s' * (flaws != 1)}")
    return int(flaws > 0)


if __name__ == "__main__":
    raise SystemExit(main())
