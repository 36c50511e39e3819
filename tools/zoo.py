"""The env zoo: every env of the families that people train on, recorded, replayed and compared with itself.

    python tools/zoo.py                            every env without a result; then tools/zoo/zoo.md and zoo.csv
    python tools/zoo.py --families ale,panda       of these families; --only Pong: whose name has this in it
    python tools/zoo.py --again --only Fetch       anew, though there is a result
    python tools/zoo.py --long                     episode 1,000 of a full training with Autoreset, of some envs
    python tools/zoo.py --slice                    a few envs in this interpreter, two minutes; exit 1 if not exact
    python tools/zoo.py --report                   only the report, from the results there are

Each env is trained without a recorder, with one, and drawing each frame live; then its episodes are re-executed
from one origin at a time, as the ladder chooses, and into videos: each step in a process of its own, ended
when its time is up. Results are kept, a file an env, so that a run that was stopped goes on.

The families' packages are installed from PyPI into virtual environments under `--envs`, about 3 GB. Needs these
Debian packages: python3-venv libegl1 libgl1 libgl1-mesa-dri libosmesa6 libglu1-mesa.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zoo_report
from zoo_envs import FAMILIES, LONG, LONG_EPISODE, RESETS, VENVS, Env, Family

ROOT = Path(__file__).resolve().parent.parent
WORKER = ROOT / "tools" / "zoo_worker.py"
DOCS = ROOT / "tools" / "zoo"
MODES = ("bare", "record", "live", "rungs", "film")
RERUNS = 12
"""How often an unrecorded training is repeated, to see whether the env varies by itself: PushT does."""

SLICE_STEPS = 40
LONG_SECONDS = 3600.0
SLICE_SECONDS = 240.0

_running: set[int] = set()
"""The workers that are running now."""

_stopping = threading.Event()
"""Set when nothing more is to be begun: what was cut short leaves no result."""


@dataclass(frozen=True, slots=True)
class Job:
    """One env to try.

    Attributes:
        key: its family's key.
        env: the env.
        steps: env steps an episode, at most; None: as the env has it.
        episode: the one episode to replay after a long training; None: all of a short one.
        seconds: how long each of its processes may take.
    """

    key: str
    env: Env
    steps: int | None
    episode: int | None
    seconds: float

    @property
    def family(self) -> Family:
        """Its family."""
        return FAMILIES[self.key]

    @property
    def file(self) -> str:
        """What its result is called."""
        return f"{'long-' if self.episode is not None else ''}{self.key}-{self.env.slug}.json"


@dataclass(frozen=True, slots=True)
class Place:
    """Where things are kept: virtual environments, results, and what is thrown away when an env is done."""

    root: Path
    results: Path
    keep: bool

    def python(self, venv: str) -> Path:
        """Returns a virtual environment's interpreter, made when it is not there or wanted other packages."""
        folder, wanted = self.root / venv, "\n".join(VENVS[venv])
        stamp, python = folder / "requirements.txt", folder / "bin" / "python"
        if not stamp.is_file() or stamp.read_text() != wanted:
            print(f"making {folder}", flush=True)
            shutil.rmtree(folder, ignore_errors=True)
            subprocess.run((sys.executable, "-m", "venv", folder), check=True)
            subprocess.run((python, "-m", "pip", "install", "--quiet", *VENVS[venv], "-e", ROOT), check=True)
            stamp.write_text(wanted)
        return python


def environment(folder: Path) -> dict[str, str]:
    """Returns a worker's environment: this source, no screen, no sound, and a signing key of its own."""
    found = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{WORKER.parent}"}
    found.pop("SDL_VIDEODRIVER", None)  # as "dummy", it makes highway-env draw nothing
    found.setdefault("MUJOCO_GL", "egl")
    return {**found, "PYGLET_HEADLESS": "1", "SDL_AUDIODRIVER": "dummy", "XDG_STATE_HOME": str(folder / "state")}


def run_worker(python: Path, mode: str, folder: Path, seconds: float) -> str | None:
    """Runs one mode of the worker.

    Returns:
        None if it came to its end, else why not, in one line.
    """
    log = folder / f"{mode}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            (python, WORKER, mode, folder / "plan.json"),
            cwd=folder,  # MuJoCo and ViZDoom write their files there
            env=environment(folder),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        _running.add(process.pid)
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            end(process.pid)
            process.wait()
            _running.discard(process.pid)
    if _stopping.is_set():
        raise InterruptedError(f"{mode} was cut short")
    if code is None:
        return f"still running after {seconds:.0f} s"
    lines = log.read_text(errors="replace").strip().splitlines()
    return None if code == 0 else f"exit {code}: {lines[-1] if lines else 'no word'}"


def end(pid: int) -> None:
    """Ends a worker and all that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def lines_of(folder: Path, mode: str) -> list[dict[str, Any]]:
    """Reads what a mode told, as far as it came."""
    path = folder / f"{mode}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def try_env(job: Job, python: Path, place: Place) -> dict[str, Any]:
    """Trains and replays one env, each step in a process of its own, and says what came of it."""
    folder = place.root / "work" / job.file.removesuffix(".json")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    plan = {
        "id": job.env.id,
        "kwargs": job.env.kwargs,
        "imports": job.family.imports,
        "wrappers": job.env.wrappers,
        "steps": job.steps,
        "resets": RESETS,
        "reseed": job.env.reseed,
        "episode": job.episode,
        "folder": str(folder),
    }
    (folder / "plan.json").write_text(json.dumps(plan))
    failed, seconds = {}, {}
    for mode in MODES:
        if mode in ("rungs", "film") and "record" in failed:
            break
        if mode in ("live", "film") and not job.env.renders:
            continue
        started = time.perf_counter()
        why = run_worker(python, mode, folder, job.seconds)
        seconds[mode] = round(time.perf_counter() - started, 1)
        if why is not None:
            failed[mode] = why
    result = {
        "family": job.key,
        "env": job.env.name,
        "gl": job.family.gl,
        "reseed": job.env.reseed,
        "steps": job.steps,
        "episode": job.episode,
        "commit": zoo_report.commit(),
        "failed": failed,
        "seconds": seconds,
        **compare(folder),
    }
    result["varies"] = bool(result["episodes"] and not result["unchanged"] and not job.env.reseed) and varies(
        folder, python, job.seconds
    )
    if not place.keep:
        shutil.rmtree(folder)
    return result


def varies(folder: Path, python: Path, seconds: float) -> bool:
    """Says whether the env, unrecorded, goes different ways from the same seed in different processes."""
    first = trained(lines_of(folder, "bare"))
    for _ in range(RERUNS):
        if run_worker(python, "bare", folder, seconds) is None and trained(lines_of(folder, "bare")) != first:
            return True
    return False


def trained(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns the lines that tell of an episode."""
    return [line for line in lines if "digest" in line]


def compare(folder: Path) -> dict[str, Any]:
    """Sets the trainings of one env against each other, and gathers what the replays told."""
    told = {mode: lines_of(folder, mode) for mode in MODES}
    bare, record, live = (trained(told[mode]) for mode in ("bare", "record", "live"))
    pairs = list(zip(bare, record, strict=False))
    return {
        "episodes": len(record),
        "unchanged": bool(pairs) and len(bare) == len(record) and all(a["digest"] == b["digest"] for a, b in pairs),
        "live_same": sum(a["parts"] == b["parts"] for a, b in zip(record, live, strict=False)),
        "storage": next((line["storage"] for line in told["record"] if "storage" in line), {}),
        "rungs": {line["rung"]: line for line in told["rungs"] if "rung" in line},
        "factory": any(line.get("factory") for line in told["rungs"]),
        "film": [line for line in told["film"] if "verdict" in line],
    }


# ---- what to do


def jobs_of(options: argparse.Namespace) -> list[Job]:
    """Returns the envs that the command line asks for."""
    keys = options.families.split(",") if options.families else list(FAMILIES)
    unknown = [key for key in keys if key not in FAMILIES]
    if unknown:
        raise SystemExit(f"no family {', '.join(unknown)}; there are {', '.join(FAMILIES)}")
    if options.long:
        found = [Job(key, env, None, LONG_EPISODE, LONG_SECONDS) for key, env in LONG if key in keys]
    elif options.slice:
        found = [
            Job(key, env, min(SLICE_STEPS, env.steps or FAMILIES[key].steps), None, SLICE_SECONDS)
            for key in keys
            if importable(FAMILIES[key])
            for env in FAMILIES[key].envs
            if env.slice
        ]
    else:
        found = [
            Job(key, env, env.steps or FAMILIES[key].steps, None, FAMILIES[key].seconds)
            for key in keys
            for env in FAMILIES[key].envs
        ]
    return [job for job in found if options.only.lower() in job.env.name.lower()]


def importable(family: Family) -> bool:
    """Says whether this interpreter has what a family needs."""
    return all(importlib.util.find_spec(name.partition(".")[0]) for name in (*family.imports, *family.needs))


def run(job: Job, python: Path, place: Place) -> dict[str, Any]:
    """Tries an env, keeps its result, and says it in a line."""
    result = try_env(job, python, place)
    path = place.results / job.file
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(result, indent=1))
    partial.replace(path)
    print(zoo_report.line(result), flush=True)
    return result


def main() -> int:
    """Does what the command line says; exit 1 for a lie, a changed training or, in the slice, anything not exact."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--envs", type=Path, default=ROOT / ".zoo", help="for environments and results; default: .zoo")
    parser.add_argument("--families", default="", metavar="A,B", help=f"of {', '.join(FAMILIES)}")
    parser.add_argument("--only", default="", metavar="TEXT", help="envs whose name has TEXT in it")
    parser.add_argument("--again", action="store_true", help="envs that have a result, too")
    parser.add_argument("--jobs", type=int, default=1, help="envs at a time; default: 1")
    parser.add_argument("--keep", action="store_true", help="keep recordings and videos, under work/")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--slice", action="store_true", help="some envs that this interpreter can import")
    kind.add_argument("--long", action="store_true", help=f"episode {LONG_EPISODE:,} of long trainings")
    kind.add_argument("--report", action="store_true", help="only write the report")
    options = parser.parse_args()

    root = options.envs.resolve()
    place = Place(root, root / ("results-slice" if options.slice else "results"), options.keep)
    place.results.mkdir(parents=True, exist_ok=True)
    (root / ".gitignore").write_text("*\n")
    jobs = [] if options.report else jobs_of(options)
    if not (options.again or options.slice):
        jobs = [job for job in jobs if not (place.results / job.file).is_file()]
    pythons = {job.key: Path(sys.executable) if options.slice else place.python(job.family.venv) for job in jobs}
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    pool = ThreadPoolExecutor(options.jobs)
    try:
        tried = list(pool.map(lambda job: run(job, pythons[job.key], place), jobs))
    finally:  # after Ctrl-C or SIGTERM, too
        _stopping.set()
        pool.shutdown(wait=False, cancel_futures=True)
        for pid in tuple(_running):
            end(pid)
    results = tried if options.slice else [json.loads(path.read_text()) for path in place.results.glob("*.json")]
    rows = [zoo_report.row(result) for result in results] if options.slice else zoo_report.write(results, DOCS)
    print(f"\n{zoo_report.summary(rows)}")
    flawed = any(zoo_report.flaws(result) for result in results)
    wanting = options.slice and not all(zoo_report.perfect(result) for result in results)
    return int(flawed or wanting)


if __name__ == "__main__":
    raise SystemExit(main())
