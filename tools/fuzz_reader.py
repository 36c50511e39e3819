"""What users do with a run, done in a child of its own for each damaged copy, and a verdict on what it gives out.

python tools/fuzz_reader.py          the worker of tools/fuzz_segments.py: forks a child for each line of stdin
"""

from __future__ import annotations

import contextlib
import faulthandler
import hashlib
import importlib
import io
import json
import os
import pkgutil
import resource
import signal
import sys
import time
import traceback
import warnings
from dataclasses import replace
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np

import reenact
import reenact.recorder
from reenact import probe
from reenact.cli import main as command

sys.path.append(str(Path(__file__).resolve().parent.parent / "tests"))
importlib.import_module("odd_envs")  # registers its envs
importlib.import_module("vector_envs").register()
for room in pkgutil.iter_modules(reenact.__path__, "reenact."):  # a child loads nothing: it may not be allowed to
    importlib.import_module(room.name)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

GOOD = ("fine", "partial", "refused", "differs")
BAD = ("WRONG", "TRACEBACK", "CRASH", "HANG", "MEMORY")
MAX_ADDRESS_SPACE = 16 << 30
PAGE = 4096
NOBODY = 65534
Json = dict[str, Any]


def content(path: Path) -> Json:
    """Reads all that a run gives out, by address; what raises a ReenactError stands there as "! " and its text."""
    started = time.perf_counter()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        run = reenact.open_run(path)
        opened = time.perf_counter() - started
        run.refresh()
        found = _content(run)
    return found | {"said": [str(one.message) for one in said], "opened": opened}


ARRAYS = ("returns", "lengths", "elapsed", "ended", "started", "segment_numbers", "segment_indices")
SEGMENT = ("env_id", "role", "state", "episodes", "steps", "predecessor", "gap")


def _content(run: reenact.Run) -> Json:
    arrays = {name: getattr(run, name) for name in ARRAYS}
    arrays |= {f"info {name}": run.info(name) for name in run.info_keywords}
    arrays["seeds"] = np.ma.getdata(run.seeds)
    numbers, episodes = {}, {}
    for number in range(len(run)):
        address = f"{run.segment_numbers[number]}.{run.segment_indices[number]}"
        numbers[address] = number
        episodes[address] = {f"[{name}]": repr(column[number]) for name, column in arrays.items()}
        episodes[address] |= _episode(partial(run.__getitem__, number))
    segments = run.segments
    instances = list(_instances(run))
    return {
        "numbers": numbers,
        "episodes": episodes,
        "live": {f"{one.address} {one.lane}": _episode(partial(_same, one)) for one in run.live},
        "segments": {str(one.number): {name: str(getattr(one, name)) for name in SEGMENT} for one in segments},
        "done": {name: _told(partial(_done, run, segment)) for name, segment, lane in instances if lane < 0},
        "acts": {name: _told(partial(_acts, run, segment, lane)) for name, segment, lane in instances},
        "states": {name: _told(partial(_states, run, segment, lane)) for name, segment, lane in instances},
        "uuid": run.uuid,
    }


def _same(one: Any) -> Any:
    return one


def _plain(value: object) -> str:
    if isinstance(value, np.ndarray) and value.size > PAGE:
        return f"{value.dtype} {value.shape} {hashlib.sha256(value.tobytes()).hexdigest()}"
    return repr(value)


def _told(read: Callable[[], Any]) -> Any:
    """Returns what a call returns, or its ReenactError's text."""
    try:
        return read()
    except reenact.ReenactError as error:
        if "\n" in str(error):
            raise RuntimeError("an error of more than one line") from error
        return f"! {error}"


FIELDS = (
    "address", "lane", "length", "return_", "elapsed", "end_time", "ended", "seed", "options", "error", "label", "info",
    "actions", "rewards", "durations", "origins",
)  # fmt: skip


def _episode(get: Callable[[], Any]) -> Json:
    one = _told(get)
    if isinstance(one, str):
        return dict.fromkeys((*FIELDS, "data"), one)
    found = {name: _told(partial(_read, one, name)) for name in FIELDS}
    return found | {"data": _told(lambda: _plain(replace(one.data(), origins=())))}


def _read(one: Any, name: str) -> str:
    return _plain(getattr(one, name))


def _done(run: Any, segment: int) -> list[str]:
    return [f"{one.address} {one.ended} {one.seed} {one.length} {trail}" for one, trail in run.timeline(segment)]


def _instances(run: Any) -> Iterator[tuple[str, int, int]]:
    """Yields what has a history of its own: each segment, of a vector env each lane of it (-1: it has none)."""
    for table in run.tables:
        header = table.reader.header
        for lane in range(header.width) if header.autoreset else (-1,):
            yield f"{table.number} lane {lane}" if lane >= 0 else str(table.number), table.number, lane


def _acts(run: Any, segment: int, lane: int) -> list[str]:
    lineage = run.lineage(segment, lane)
    return [repr(act._replace(states=[])) for act in lineage.acts(0, lineage.resets)]


def _states(run: Any, segment: int, lane: int) -> list[list[str]]:
    lineage = run.lineage(segment, lane)
    return [[repr(state) for state in act.states] for act in lineage.acts(0, lineage.resets)]


def commands(path: Path, truth: Json | None) -> list[str]:
    """Runs the commands; returns what is wrong with what they say."""
    wrong: list[str] = []
    calls = [["ls", str(path.parent)], ["show", "--csv", str(path)], ["verify", "--json", str(path)]]
    for call in calls:
        code, out, err = _command(call)
        if code not in (0, 1, 2) or "Traceback" in err or "HDF5-DIAG" in err or "ignored in" in err:
            wrong.append(f"TRACEBACK reenact {call[0]} ended with {code}: {end_of(err)}")
        elif call[0] == "verify" and truth is not None:
            for line in out.splitlines():
                told = json.loads(line)
                known = truth["episodes"].get(told["address"])
                same = known and (str(told["length"]), repr(told["return"])) == (known["length"], known["return_"])
                same = same or (known and known["ended"] == "'interrupted'" and told["length"] <= int(known["length"]))
                if told["verdict"] == "exact" and not same:
                    wrong.append(f"WRONG verify says exact of {line}")
    return wrong


def end_of(text: str) -> str:
    """Returns what matters of a traceback: the last places of reenact's own, and the error."""
    lines = [line.strip() for line in text.splitlines() if line.strip(" ^~")]
    places = [line for line in lines if line.startswith("File ") and "/reenact/" in line]
    return " | ".join((*places[-3:], *lines[-2:]))[-700:]


def _command(arguments: list[str]) -> tuple[object, str, str]:
    out, err, before = io.StringIO(), io.StringIO(), sys.argv
    sys.argv = ["reenact", *arguments]
    code: object = 0
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), warnings.catch_warnings():
            warnings.simplefilter("default")
            command()
    except SystemExit as end:
        code = end.code
    except BaseException:  # noqa: BLE001  # a user would see it
        return "an exception", out.getvalue(), traceback.format_exc()
    finally:
        sys.argv = before
    return code, out.getvalue(), err.getvalue()


# ---- a verdict


def compare(truth: Json, found: Json) -> tuple[str, str]:
    """Holds what a damaged run gave out against the truth; returns the verdict, and what was wrong."""
    held = _Held(truth, found)
    held.episodes()
    held.numbers()
    held.timelines()
    held.states()
    held.segments()
    held.live()
    if found["uuid"] != truth["uuid"]:
        held.wrong.append(f"it is run {found['uuid']} instead of {truth['uuid']}")
    if held.wrong:
        return "WRONG", "; ".join(held.wrong[:4])
    return ("partial", "") if held.less or held.said else ("fine", "")


class _Held:
    """What was found, and the truth.

    Attributes:
        said: whether a warning says that something is left out.
        states_told: whether a warning says that a state is damaged that an episode starts from.
        less: whether anything is.
        earlier: addresses of unfinished episodes that are as an earlier commit had them.
        wrong: what is as it must not be.
    """

    def __init__(self, truth: Json, found: Json) -> None:
        self.truth, self.found = truth, found
        told = " ".join(found["said"])
        self.said = any(words in told for words in ("left out", "without", "damaged"))
        self.states_told = "starts from is damaged" in told
        self.less = False
        self.earlier: set[str] = set()
        self.wrong: list[str] = []

    def silent(self, what: str) -> None:
        """Something is missing."""
        self.less = True
        if not self.said:
            self.wrong.append(f"{what}, and nothing is said")

    def episodes(self) -> None:
        """Every field of every episode."""
        for address, fields in self.found["episodes"].items():
            known = self.truth["episodes"].get(address)
            if known is None:
                self.wrong.append(f"no episode {address}: {fields['ended']}, {fields['length']} steps")
            else:
                self._fields(address, known, fields)
        if set(self.truth["episodes"]) - set(self.found["episodes"]):
            self.silent("episodes are missing")

    def _fields(self, address: str, known: Json, fields: Json) -> None:
        if known == fields:
            return
        if known["ended"] == "'interrupted'" and any(_earlier(one, fields) for one in self._likely(known, fields)):
            # killed: the slot before the damaged one stands, as it does when a kill tears one
            self.less = True
            self.earlier.add(address)
            return
        for name, value in fields.items():
            # fewer origins, and told so: what they start is compared with the log like all else
            if value.startswith("! ") or (name == "origins" and self.states_told):
                self.less = True
            elif value != known.get(name):
                self.wrong.append(f"{address} {name}: {_short(value)} instead of {_short(known.get(name))}")

    def _likely(self, known: Json, fields: Json) -> Iterator[Json]:
        """Yields which unfinished episodes it may be: the slot before may have had fewer lanes' before it."""
        yield known
        for one in self.truth["episodes"].values() if self.said else ():
            if one["ended"] == "'interrupted'" and one["lane"] == fields["lane"]:
                yield {**one, "address": fields["address"]}

    def numbers(self) -> None:
        """Numbers move only where something is left out and said to be; their order never changes."""
        mine, its = self.found["numbers"], self.truth["numbers"]
        if not set(mine) <= set(its):
            return  # told of above
        if sorted(mine, key=lambda address: its[address]) != sorted(mine, key=lambda address: mine[address]):
            self.wrong.append("the order of the episodes is another")
        if not self.said and mine != {address: number for address, number in its.items() if address in mine}:
            self.wrong.append("numbers have moved, and nothing is said")

    def timelines(self) -> None:
        """All that the env instances did."""
        for name in ("done", "acts"):
            for segment, items in self.found[name].items():
                known = self.truth[name].get(segment)
                if isinstance(items, str):
                    self.less = True
                elif name == "acts" and known and self.said and items == known[len(known) - len(items) :]:
                    self.less = True  # the segments before it can't be read: its lineage begins with it
                elif known is None or self._differing(items, known):
                    differ = self._differing(items, known or [])
                    self.wrong.append(f"{name} of segment {segment} differ: {_short((differ or items)[0])}")
                elif len(items) < len(known):
                    self.silent(f"{name} of segment {segment} end early")

    def states(self) -> None:
        """What is known of the generators before each reset: less of it, where it is damaged, and nothing else."""
        for segment, found in self.found["states"].items():
            known = self.truth["states"].get(segment, [])
            if isinstance(found, str) or found == known:
                continue
            self.less = True
            # as above: the lineage may begin later than it did
            begins = [known, known[len(known) - len(found) :]] if self.said else [known]
            fits = [
                all(set(some) <= set(its) for some, its in zip(found, from_there, strict=False))
                for from_there in begins
            ]
            if not any(fits):
                self.wrong.append(f"states of segment {segment} are others")

    def _differing(self, items: list[str], known: list[str]) -> list[tuple[str, str]]:
        pairs = [(a, b) for a, b in zip_longest(items, known[: len(items)]) if a != b]
        return [(a, b) for a, b in pairs if a.partition(" ")[0] not in self.earlier]

    def segments(self) -> None:
        """What is told of the segments."""
        for segment, fields in self.found["segments"].items():
            known = self.truth["segments"].get(segment, {})
            for name in [name for name, value in fields.items() if value != known.get(name)]:
                self.less = True
                if (
                    not ((self.said or self.earlier) and name in ("state", "episodes", "steps"))
                    or fields[name] == "closed"
                ):
                    self.wrong.append(f"segment {segment} {name}: {fields[name]} instead of {known.get(name)}")
        self.less |= bool(set(self.truth["segments"]) - set(self.found["segments"]))

    def live(self) -> None:
        """The episodes that still run."""
        for address, fields in self.found["live"].items():
            known = self.truth["live"].get(address)
            if known is None:
                self.wrong.append(f"no live episode {address}")
            elif known != fields and _earlier(known, fields):
                self.less = True
            else:
                self._fields(f"live {address}", known, fields)
        if set(self.truth["live"]) - set(self.found["live"]):
            self.silent("a live episode is missing")


def _short(value: object) -> str:
    return str(value)[:90]


def _earlier(known: Json, found: Json) -> bool:
    """Whether what is told of an unfinished episode is what an earlier commit had of it."""
    same = all(
        found[name] == known[name] or found[name].startswith("! ") for name in ("address", "seed", "options", "origins")
    )
    lists = [(known[name].rstrip(")]"), found[name].rstrip(")]")) for name in ("actions", "rewards")]
    shorter = all(
        mine.startswith(its.partition(", dtype")[0].rstrip("]")) or its.startswith("! ") for mine, its in lists
    )
    return same and shorter and int(found["length"]) <= int(known["length"])


# ---- a child a mutant


def work() -> int:
    """The worker: forks a child for each line of stdin; in the child, returns its exit code."""
    gym.make("CartPole-v1").reset()  # with what that loads
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        task = json.loads(line)
        sys.stdout.flush()
        started = time.perf_counter()
        child = os.fork()
        if not child:
            return _child(task)
        status, usage, late = _wait(child, task["limit"])
        result = {
            "signal": os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0,
            "code": os.WEXITSTATUS(status) if os.WIFEXITED(status) else -1,
            "rss": usage.ru_maxrss,
            "cpu": round(usage.ru_utime + usage.ru_stime, 3),
            "late": late,
            "seconds": round(time.perf_counter() - started, 2),
        }
        print(json.dumps(result), flush=True)
    return 0


def _wait(child: int, limit: float) -> tuple[int, Any, bool]:
    end, late = time.monotonic() + limit, False
    pause = 0.005
    while True:
        pid, status, usage = os.wait4(child, os.WNOHANG)
        if pid:
            return status, usage, late
        if not late and time.monotonic() > end:
            late = True
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)
        time.sleep(pause)
        pause = min(0.05, pause * 1.2)


def _child(task: Json) -> int:
    os.setpgid(0, 0)
    scratch = Path(task["scratch"])
    for descriptor, name in ((1, "out"), (2, "err")):
        opened = os.open(scratch / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(opened, descriptor)
        os.close(opened)
    faulthandler.enable()
    resource.setrlimit(resource.RLIMIT_AS, (MAX_ADDRESS_SPACE, MAX_ADDRESS_SPACE))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    probe.PROBE_S = task["probe"]
    result = _used(Path(task["run"]), json.loads(Path(task["truth"]).read_text()) if task["truth"] else None, task)
    (scratch / "result").write_text(json.dumps(result))
    return 0


def _used(path: Path, truth: Json | None, task: Json) -> Json:
    if task["nobody"] and not os.geteuid():
        os.seteuid(NOBODY)  # root may read anything
    result: Json = {"verdict": "fine", "what": "", "opened": 0.0}
    try:
        found = content(path)
    except reenact.ReenactError as error:
        said = str(error)
        result |= {"verdict": "refused" if "\n" not in said else "TRACEBACK", "what": said}
    else:
        found["said"] += ["without a segment that is gone"] * task["gone"]
        result |= {"opened": found["opened"], **({"content": found} if truth is None else {})}
        if truth is not None:
            result["verdict"], result["what"] = compare(truth, found)
    wrong = commands(path, truth) if task["commands"] else []
    if result["verdict"] in GOOD and wrong:
        result["verdict"], _, result["what"] = wrong[0].partition(" ")
    os.seteuid(os.getuid())
    return result


if __name__ == "__main__":
    raise SystemExit(work())
