"""Damages segments in every way that disks, kills, copies and strangers do, and lets a user's process read them.

    python tools/fuzz_segments.py                       2,000 mutants, seed 0, two at a time
    python tools/fuzz_segments.py --count 150 --seed 7 --jobs 1
    python tools/fuzz_segments.py --only truncated,page --keep /tmp/kept

Runs are recorded first: closed, killed by SIGKILL in the middle of an episode, alive, widened, of two segments, of
vector envs whose lanes are single envs or a batch. Each mutant is a copy of one with one kind of damage. A child,
forked from a process that has reenact loaded, then does what users do with it: opens it, reads all arrays, episodes,
timelines and lineages, lists it, shows it and verifies it. What the undamaged run gives out, by the episodes'
addresses, is the truth. Verdicts:

    fine        all of it is as it was
    partial     some is left out, with a warning, or raises DamagedError; the rest is as it was
    refused     nothing could be opened, and one line says so
    differs     only for `forged` damage, where HDF5's checksums were put right again, as a forger would: other content
    WRONG       other content was given out as if it were good
    TRACEBACK   anything but a ReenactError of one line, or a word of HDF5's or Python's own on stderr
    CRASH       a signal ended the process
    HANG        it was not done in time
    MEMORY      it took more than 1 GB

Prints a table by kind of damage, each mutant with one of the last five verdicts, and exits 1 if there is any.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from fuzz_damage import WEIGHTS, Seed, mapped, mutate
from fuzz_reader import BAD, GOOD, end_of
from fuzz_seeds import CASES, recorded

if TYPE_CHECKING:
    from collections.abc import Callable

LIMIT_S, PROBE_S = 60.0, 5.0
"""Of a child, and of the package's own probe, which has 20 s for users: here it mostly waits for lost cases."""
MAX_RSS_KB = 1 << 20
READER = Path(__file__).with_name("fuzz_reader.py")
Json = dict[str, Any]


class Worker:
    """A process that forks a child a mutant."""

    def __init__(self, scratch: Path, *, limit: float, probe: float) -> None:
        scratch.mkdir(parents=True)
        self._scratch, self._limit, self._probe = scratch, limit, probe
        self._process = subprocess.Popen(
            [sys.executable, str(READER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._ask(None)

    def _ask(self, task: Json | None) -> Json:
        assert self._process.stdin is not None  # noqa: S101  # for mypy: both are pipes
        assert self._process.stdout is not None  # noqa: S101
        if task is not None:
            self._process.stdin.write(json.dumps(task) + "\n")
            self._process.stdin.flush()
        found: Json = json.loads(self._process.stdout.readline())
        return found

    def use(self, run: Path, truth: Path | None, *, commands: bool, kind: str = "") -> Json:
        """Lets a child read a run; returns the verdict, and what was wrong."""
        for name in ("out", "err", "result"):
            (self._scratch / name).unlink(missing_ok=True)
        ended = self._ask({
            "run": str(run), "truth": str(truth or ""), "commands": commands, "nobody": kind == "unreadable",
            "gone": kind == "gone", "scratch": str(self._scratch), "limit": self._limit, "probe": self._probe,
        })  # fmt: skip
        path = self._scratch / "result"
        result = json.loads(path.read_text()) if path.exists() else {"verdict": "TRACEBACK", "what": "", "opened": 0.0}
        said = "".join((self._scratch / name).read_text(errors="replace") for name in ("out", "err"))
        if ended["late"]:
            result |= {"verdict": "HANG", "what": f"after {ended['seconds']} s: {end_of(said)}"}
        elif ended["signal"]:
            result |= {"verdict": "CRASH", "what": f"signal {ended['signal']}: {end_of(said)}"}
        elif ended["code"] or said:
            result |= {"verdict": "TRACEBACK", "what": f"exit code {ended['code']}: {end_of(said)}"}
        elif ended["rss"] > MAX_RSS_KB and result["verdict"] in GOOD:
            result |= {"verdict": "MEMORY", "what": f"{ended['rss'] >> 10} MB"}
        return result | {"seconds": ended["seconds"], "rss": ended["rss"], "cpu": ended["cpu"]}

    def close(self) -> None:
        """Ends it."""
        self._process.communicate()


@dataclass
class Outcome:
    """What became of a mutant."""

    number: int
    kind: str
    case: str
    said: str
    verdict: str
    what: str
    seconds: float
    opened: float


class Fuzz:
    """A fuzzing session.

    Args:
        folder: where it may write.
        cases: what to record.
        seed: of all that is random.
        limit: seconds a child has.
        probe: seconds the package's own probe has in it.
        commands: the share of the mutants that are given to the commands too.
    """

    def __init__(
        self, folder: Path, cases: tuple[str, ...], *, seed: int, limit: float, probe: float, commands: float
    ) -> None:
        self._folder, self._cases, self._seed = folder, cases, seed
        self._limit, self._probe, self._commands = limit, probe, commands
        self._seeds: dict[str, Seed] = {}
        self._lock = threading.Lock()

    def run(
        self,
        count: int,
        *,
        jobs: int,
        kinds: tuple[str, ...] = (),
        numbers: set[int] | None = None,
        keep: Path | None = None,
        tell: Callable[[Outcome], None] = lambda _: None,
    ) -> list[Outcome]:
        """Records, and reads so many mutants."""
        with recorded(self._folder / "seeds", self._cases) as runs:
            worker = self._worker(99)
            for case, folder in runs.items():
                self._seeds[case] = self._prepare(worker, case, folder)
            worker.close()
            todo = [number for number in range(count) if numbers is None or number in numbers]
            queue, outcomes = iter(todo), []

            def drain(job: int) -> None:
                mine = self._worker(job)
                while True:
                    with self._lock:
                        number = next(queue, None)
                    if number is None:
                        break
                    outcome = self._mutant(mine, number, kinds, keep)
                    with self._lock:
                        outcomes.append(outcome)
                        tell(outcome)
                mine.close()

            threads = [threading.Thread(target=drain, args=(job,)) for job in range(jobs)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        return sorted(outcomes, key=lambda outcome: outcome.number)

    def _worker(self, number: int) -> Worker:
        return Worker(self._folder / f"worker-{number}", limit=self._limit, probe=self._probe)

    def _prepare(self, worker: Worker, case: str, folder: Path) -> Seed:
        copy = self._folder / "sound" / case
        shutil.copytree(folder, copy / "run")
        found = worker.use(copy / "run", None, commands=False)
        if found["verdict"] != "fine" or found["content"]["said"]:
            raise RuntimeError(f"{case}, undamaged: {found}")
        truth = copy / "truth.json"
        truth.write_text(json.dumps(found["content"]))
        again = worker.use(copy / "run", truth, commands=True)
        if again["verdict"] != "fine":
            raise RuntimeError(f"{case}, undamaged: {again}")
        return Seed(
            case, copy / "run", truth, {path.name: mapped(path) for path in (copy / "run").glob("segment-*.h5")}
        )

    def _mutant(self, worker: Worker, number: int, kinds: tuple[str, ...], keep: Path | None) -> Outcome:
        random = Random(f"{self._seed} {number}")  # noqa: S311  # not for secrets
        weights = {kind: weight for kind, weight in WEIGHTS.items() if not kinds or kind in kinds}
        parent = self._folder / f"mutant-{number}"
        while True:
            kind = random.choices(list(weights), list(weights.values()))[0]
            seed = self._seeds[random.choice(list(self._seeds))]
            others = [
                path
                for other in self._seeds.values()
                if other is not seed
                for path in other.folder.glob("segment-*.h5")
            ]
            said = mutate(kind, seed, parent / "run", others, random)
            if said is not None:
                break
            shutil.rmtree(parent)
        found = worker.use(parent / "run", seed.truth, commands=random.random() < self._commands, kind=kind)
        if kind.startswith("forged") and found["verdict"] == "WRONG":
            found["verdict"] = "differs"
        (parent / "run").chmod(0o755)
        if keep is not None and found["verdict"] in BAD:
            shutil.copytree(
                parent,
                keep / f"{number}-{found['verdict']}",
                symlinks=True,
                dirs_exist_ok=True,
                ignore=shutil.ignore_patterns("*-00007.h5"),
            )
        shutil.rmtree(parent)
        return Outcome(
            number, kind, seed.case, said, found["verdict"], found["what"], found["seconds"], found["opened"]
        )


def table(outcomes: list[Outcome]) -> str:
    """Lays the verdicts out by kind of damage."""
    names = [verdict for verdict in (*GOOD, *BAD) if any(one.verdict == verdict for one in outcomes)]
    rows = [["damage", "mutants", *names]]
    for kind in [*(kind for kind in WEIGHTS if any(one.kind == kind for one in outcomes)), "all"]:
        counts = Counter(one.verdict for one in outcomes if kind in (one.kind, "all"))
        rows.append([kind, str(counts.total()), *(str(counts[name] or "") for name in names)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def main() -> int:
    """Parses, fuzzes, prints; 1 if anything is as it must not be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=2000, help="mutants")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2, help="at a time")
    parser.add_argument("--only", default="", help="kinds of damage, with commas")
    parser.add_argument("--cases", default=",".join(CASES), help="what is recorded, with commas")
    parser.add_argument("--number", type=int, action="append", help="of all the mutants only this one; repeatable")
    parser.add_argument("--limit", type=float, default=LIMIT_S, help="seconds a child has")
    parser.add_argument("--probe", type=float, default=PROBE_S, help="seconds that reenact's own probe has in it")
    parser.add_argument("--commands", type=float, default=0.25, help="the share that is given to the commands too")
    parser.add_argument("--keep", type=Path, help="where mutants that failed are kept")
    options = parser.parse_args()
    started = time.perf_counter()

    def tell(one: Outcome) -> None:
        if one.verdict in BAD:
            print(f"{one.number} {one.verdict}: {one.kind} of {one.case}, {one.said}: {one.what}", flush=True)
        elif one.opened > options.probe + 5:
            print(f"{one.number} took {one.opened:.1f} s to open: {one.kind} of {one.case}, {one.said}", flush=True)

    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        Path(folder).chmod(0o755)  # nobody's, too
        os.environ["XDG_STATE_HOME"] = f"{folder}/state"
        fuzz = Fuzz(
            Path(folder),
            tuple(options.cases.split(",")),
            seed=options.seed,
            limit=options.limit,
            probe=options.probe,
            commands=options.commands,
        )
        kinds = tuple(filter(None, options.only.split(",")))
        numbers = set(options.number) if options.number else None
        outcomes = fuzz.run(
            options.count, jobs=options.jobs, kinds=kinds, numbers=numbers, keep=options.keep, tell=tell
        )
    print(table(outcomes))
    slowest = max(outcomes, key=lambda one: one.seconds)
    print(f"slowest: {slowest.number}, {slowest.seconds:.1f} s; in all {time.perf_counter() - started:.0f} s")
    return int(any(one.verdict in BAD for one in outcomes))


if __name__ == "__main__":
    raise SystemExit(main())
