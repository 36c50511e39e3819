"""Opens the folder as it was after each write, as after a kill at that moment, and compares it with what was recorded.

`examine` has other processes do it (`python crash_opening.py …`), so that a state that hangs or crashes HDF5 is
a finding and not the end. A state is right if opening it raises nothing and warns of nothing unreadable, if
all that was committed by then is there with the right actions, rewards, seeds, options and endings, and if
nothing is there that had not happened yet. The episode that ran is there as interrupted, at least up to its last commit.
"""

from __future__ import annotations

import argparse
import functools
import gc
import json
import math
import os
import selectors
import signal
import subprocess
import sys
import time
import warnings
from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

import bare
import reenact
from crash_journal import ROOT, Folder, Kind, Operation, read
from crash_writers import action_of, ended_of, length_of, options_of, reward_of, seed_of
from reenact import probe

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

STALL_S = 20.0
"""A state that is not opened after so long hangs. Thousands take a few ms each."""
START_S = 120.0
"""So long may a process take until its first word, on a busy machine."""
_LOOK_S = 0.5
_FEW, _SAMPLE = 40, 12


@dataclass
class Past:
    """An episode as it was: where in the journal it began, where each of its steps was about to be done."""

    key: int
    began: int
    steps: list[int] = field(default_factory=list)


@dataclass
class Witnessed:
    """All that one recorder in one process did, and when it was committed."""

    kind: str
    episodes: list[Past] = field(default_factory=list)
    commits: list[tuple[int, int, int]] = field(default_factory=list)
    """Place in the journal, episodes begun by then, steps of the last one."""
    excused: set[int] = field(default_factory=set)
    """Episodes that met a full disk."""

    def committed(self, place: int) -> tuple[int, int]:
        """Returns how many episodes, and how many steps of the last one, can't be lost any more at a place."""
        at = bisect_right(self.commits, place, key=lambda commit: commit[0]) - 1
        return self.commits[at][1:] if at >= 0 else (0, 0)


def witnessed(operations: Sequence[Operation]) -> dict[tuple[str, int], Witnessed]:
    """Reads the marks: by role and process."""
    found: dict[tuple[str, int], Witnessed] = {}
    for place, operation in enumerate(operations):
        if operation.kind is not Kind.MARK:
            continue
        role, _, what = operation.data.decode().partition(": ")
        mine = found.setdefault((role, operation.pid), Witnessed(role.partition("-")[0]))
        if what.startswith("reset"):
            mine.episodes.append(Past(int(what.split()[1]), place))
        elif what == "step" and mine.episodes:
            mine.episodes[-1].steps.append(place)
        elif what == "committed":
            last = len(mine.episodes[-1].steps) if mine.episodes else 0
            mine.commits.append((place, len(mine.episodes), last))
        elif what == "disk full":
            done = mine.commits[-1][1] if mine.commits else 0
            mine.excused.update(range(done, len(mine.episodes)))
    return found


def same(found: Any, expected: Any) -> bool:
    """Whether two actions are the same, to the bit and to the type."""
    if isinstance(expected, dict):
        return isinstance(found, dict) and all(same(found[name], value) for name, value in expected.items())
    if isinstance(expected, np.ndarray):
        return isinstance(found, np.ndarray) and found.dtype == expected.dtype and bool((found == expected).all())
    return type(found) is type(expected) and bool(found == expected)


def flaws(folder: Path, truth: dict[tuple[str, int], Witnessed], place: int, seed: int) -> tuple[list[str], list[str]]:
    """Opens a run as it was at a place in the journal; returns what is wrong, and what it warned of."""
    owed = any(past.committed(place)[0] for past in truth.values())
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            run = reenact.open_run(folder)
        except reenact.RunNotFoundError as error:
            return [f"lost: {error}"] if owed else [], []
        except Exception as error:  # noqa: BLE001  # whatever it is, it is what is looked for
            return [f"unreadable: {type(error).__name__}: {error}"], []
        try:
            found = list(_compare(run, truth, place, np.random.default_rng((seed, place))))
        except Exception as error:  # noqa: BLE001  # as above
            found = [f"unreadable: {type(error).__name__}: {error}"]
        finally:
            for table in run.tables:  # HDF5 must let go of it, or it keeps what it saw
                table.reader.close()
    texts = [str(warning.message) for warning in said]
    found += [f"unreadable: {text}" for text in texts if "without this segment" in text]
    return found, texts


def _compare(
    run: reenact.Run,
    truth: dict[tuple[str, int], Witnessed],
    place: int,
    rng: np.random.Generator,
) -> Iterator[str]:
    owners: dict[int, tuple[str, int]] = {}
    for segment, table in zip(run.segments, run.tables, strict=True):
        owners[segment.number] = (segment.role, table.status.writer.pid)
        if owners[segment.number] not in truth:
            yield f"wrong: segment {segment.number} is of {owners[segment.number]}, who recorded nothing"
            return
    if run.live:
        yield "wrong: a dead writer's episode is listed as running"
    mine: dict[tuple[str, int], list[int]] = {who: [] for who in truth}
    numbers = range(len(run))
    for number in sorted(numbers, key=lambda n: (run.segment_numbers[n], run.segment_indices[n])):
        mine[owners[int(run.segment_numbers[number])]].append(number)
    for who, past in truth.items():
        seen: dict[int, tuple[int, int]] = {}
        yield from _compare_one(run, mine[who], past, place, seen)
        yield from _missing(past, place, seen)
        chosen = list(seen.values())
        if len(chosen) > _FEW:
            drawn = rng.choice(len(chosen), _SAMPLE, replace=False)
            chosen = [*chosen[-_SAMPLE // 2 :], *(chosen[index] for index in drawn)]
        for number, length in chosen:
            yield from _compare_data(run[number], past.kind, number, length)


def _compare_one(
    run: reenact.Run, numbers: list[int], past: Witnessed, place: int, seen: dict[int, tuple[int, int]]
) -> Iterator[str]:
    """Compares what is listed of one recorder; `seen` becomes each one's number and length by its place in the past."""
    lengths, returns, ended = run.lengths, run.returns, run.ended
    # where rows are damaged, nobody can tell by the order which one without a seed it is
    few, at = len(numbers) <= _FEW or any(table.damaged for table in run.tables), 0
    for number in numbers:
        key = _key(run, number, past.episodes[at:], few=few)
        while at < len(past.episodes) and past.episodes[at].key != key:
            at += 1
        if at == len(past.episodes) or past.episodes[at].began > place:
            yield f"wrong: episode {number} of key {key} never was, not here, or not yet"
            return
        length = int(lengths[number])
        if length > bisect_right(past.episodes[at].steps, place):
            yield f"wrong: episode {number} (key {key}) has {length} steps, which were not all done yet"
        if returns[number] != sum_of(key, length):
            yield f"wrong: episode {number} (key {key}) has the return {returns[number]}"
        if ended[number] != (ended_of(key) if length == length_of(key) else "interrupted"):
            yield f"wrong: episode {number} (key {key}) ended as {ended[number]} after {length} steps"
        seen[at] = (number, length)
        at += 1


def _key(run: reenact.Run, number: int, past: list[Past], *, few: bool) -> int:
    seed = run.seeds[number]
    if seed is not np.ma.masked:
        return int(seed)
    if few:
        return int((run[number].options or {}).get("key", -1))
    # the next without a seed: of a wrong one, return and length would not fit
    return next((episode.key for episode in past if seed_of(episode.key) is None), -1)


def _missing(past: Witnessed, place: int, seen: dict[int, tuple[int, int]]) -> Iterator[str]:
    count, steps = past.committed(place)
    for index, episode in enumerate(past.episodes[:count]):
        least = steps if index == count - 1 else len(episode.steps)
        if least and index not in past.excused and (index not in seen or seen[index][1] < least):
            have = f"has {seen[index][1]} steps" if index in seen else "is not there"
            yield f"lost: the episode of key {episode.key}, committed with {least} steps, {have}"


def _compare_data(episode: reenact.Episode, kind: str, number: int, length: int) -> Iterator[str]:
    data = episode.data()
    options = options_of(key := episode.seed if episode.seed is not None else (episode.options or {})["key"])
    if episode.options != options or episode.seed != seed_of(key):
        yield f"wrong: episode {number} (key {key}) has another reset"
    expected = [action_of(kind, key, step) for step in range(length)]
    if len(data.actions) != length or not all(map(same, data.actions, expected)):
        yield f"wrong: episode {number} (key {key}) has other actions"
    if data.rewards.tolist() != [reward_of(key, step) for step in range(length)]:
        yield f"wrong: episode {number} (key {key}) has other rewards"
    if 0 not in data.fingerprints or (length not in data.fingerprints):
        yield f"wrong: episode {number} (key {key}) has fingerprints of {sorted(data.fingerprints)} alone"


@functools.cache
def sum_of(key: int, length: int) -> float:
    """Returns the sum of an episode's first rewards, step by step."""
    total = 0.0
    for step in range(length):
        total += reward_of(key, step)
    return total


def moments(operations: Sequence[Operation], *, torn: bool) -> Iterator[tuple[int, int | None]]:
    """Yields the moments at which the folder is another one: an operation, and how many of its bytes are written."""
    for place, operation in enumerate(operations):
        if operation.changes:
            for count in operation.pages() if torn else ():
                yield place, count
            yield place, None


def _until(operations: Sequence[Operation]) -> list[int]:
    """Lists, for each operation, the last place of the journal at which the folder is still what it left."""
    until, last = [0] * len(operations), len(operations) - 1
    for place in range(len(operations) - 1, -1, -1):
        until[place] = last
        if operations[place].changes:
            last = place - 1
    return until


def serve(options: argparse.Namespace) -> None:
    """Opens moments [first, end) of the chosen ones; writes a line before and a line after each."""
    operations = read(options.journal, options.folder)
    truth, until = witnessed(operations), _until(operations)
    tries: Any = probe._try  # noqa: SLF001  # the child that tries a file first: most moments do without, this process may die
    draw = np.random.default_rng(options.seed).random(options.end) < 1 / options.every
    folder, done, opened = Folder(), -1, 0
    try:
        for number, (place, count) in enumerate(moments(operations, torn=True)):
            if number >= options.end:
                break
            while done < place - (count is not None):
                done += 1
                folder.apply(operations[done])
            if count is not None:
                folder.apply(operations[place], count)
            if number < options.first or not draw[number]:
                continue
            _say(number)
            public = bool(options.public) and opened % options.public == 0
            opened += 1
            setattr(probe, "_try", tries if public else _trusting)  # noqa: B010  # mypy
            # in the middle of a write, what comes after it has not happened
            moment = until[place] if count is None else place - 1
            found, said = flaws(folder.path / options.run, truth, moment, options.seed)
            if public:
                found += _barely(folder.path / options.run)
            if _held():
                gc.collect()  # an exception's frames; what HDF5 holds, it does not read again
            assert not _held(), "HDF5 still holds a file"
            _say(number, found, said, public)
    finally:
        folder.close()


def serve_power(options: argparse.Namespace) -> None:
    """Opens the run after losses of power [first, end), each at a random moment; writes the lines that `serve` does."""
    from crash_power import state  # noqa: PLC0415  # it needs this module

    operations = read(options.journal, options.folder)
    truth = witnessed(operations)
    setattr(probe, "_try", _trusting)  # noqa: B010  # mypy
    for number in range(options.first, options.end):
        rng = np.random.default_rng((options.seed, number))
        place, folder = int(rng.integers(len(operations))), Folder()
        try:
            state(operations, place, rng, folder.path)
            _say(number)
            found, said = flaws(folder.path / options.run, truth, place, options.seed)
            gc.collect()
            assert not _held(), "HDF5 still holds a file"
            _say(number, found, said, False)
        finally:
            folder.close()


def _trusting(paths: Sequence[Path]) -> dict[Path, str]:
    """Tries nothing first."""
    return dict.fromkeys(paths, "")


def _say(*what: Any) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def _barely(run: Path) -> list[str]:
    """Reads a run's segments without the package's reader; returns what is wrong with them."""
    try:
        bare.segments(run)
    except (AssertionError, OSError, RuntimeError, ValueError, KeyError) as error:
        return [f"wrong for bare h5py: {type(error).__name__}: {error}"]
    return []


def _held() -> int:
    return int(h5py.h5f.get_obj_count(h5py.h5f.OBJ_ALL, h5py.h5f.OBJ_FILE | h5py.h5f.OBJ_DATASET))


@dataclass
class Outcome:
    """What opening a scenario's moments brought.

    Attributes:
        moments: how many there are.
        opened: how many were opened.
        public: how many of them by the public call, with the child that tries a file first.
        flaws: what was wrong, by moment.
        warned: what was warned of, how often.
    """

    moments: int
    opened: int = 0
    public: int = 0
    flaws: dict[int, list[str]] = field(default_factory=dict)
    warned: Counter[str] = field(default_factory=Counter)

    def count(self, what: str) -> int:
        """Returns how many moments have a flaw of that name."""
        return sum(any(flaw.startswith(what) for flaw in found) for found in self.flaws.values())


def examine(
    journal: Path,
    folder: Path,
    run: str,
    *,
    only: range | None = None,
    every: int = 1,
    public: int = 0,
    workers: int = 2,
    seed: int = 0,
    python: str = sys.executable,
    power: bool = False,
) -> Outcome:
    """Opens a run at its moments, in other processes.

    Args:
        journal: what `record` wrote.
        folder: what it watched.
        run: the run in it.
        only: these moments; None: all.
        every: only one moment of so many, drawn by the seed.
        public: of the opened ones, one of so many by the public call, and by bare h5py; 0: none.
        workers: how many processes.
        seed: of what is drawn: which moments, and of many episodes those that are read.
        python: of these processes.
        power: at losses of power instead, as many as `only` says; see crash_power.
    """
    total = sum(1 for _ in moments(read(journal, folder), torn=True))
    outcome = Outcome(total)
    chosen = only if only is not None else range(total)
    share = max(1, math.ceil(len(chosen) / workers))
    command = [python, str(Path(__file__)), str(journal), str(folder), run, f"--every={every}"]
    command += [f"--public={public}", f"--seed={seed}", *(["--power"] if power else [])]
    ranges = [(first, min(first + share, chosen.stop)) for first in range(chosen.start, chosen.stop, share)]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests")])}
    with selectors.DefaultSelector() as waiting:
        for bounds in ranges:
            _Child(command, bounds, environ, waiting)
        while waiting.get_map():
            ready = {key.data for key, _ in waiting.select(_LOOK_S)}
            for child in [key.data for key in waiting.get_map().values()]:
                if child not in ready and not child.stalled:
                    continue
                ended = child.take(outcome) if child in ready else child.stop()
                if ended is None:
                    continue
                if child.begun is None:
                    raise RuntimeError(f"the process that opens moments {ended}")
                outcome.opened += 1
                outcome.flaws[child.begun] = [ended]
                _Child(command, (child.begun + 1, child.bounds[1]), environ, waiting)
    return outcome


class _Child:
    """A process that opens moments.

    Attributes:
        bounds: of the moments.
        begun: the moment that it is about to open.
    """

    def __init__(
        self, command: list[str], bounds: tuple[int, int], environ: dict[str, str], waiting: selectors.BaseSelector
    ) -> None:
        self.bounds = bounds
        self.begun: int | None = None
        self._heard, self._patience = time.monotonic(), START_S
        self._waiting, self._rest = waiting, b""
        self._process = subprocess.Popen(  # this very file
            [*command, f"--first={bounds[0]}", f"--end={bounds[1]}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environ,
        )
        assert self._process.stdout is not None
        self._output = self._process.stdout
        waiting.register(self._output, selectors.EVENT_READ, self)

    def take(self, outcome: Outcome) -> str | None:
        """Takes in what it says; returns how it ended, if not as it should."""
        data = os.read(self._output.fileno(), 1 << 16)
        self._heard, self._patience = time.monotonic(), STALL_S
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self.begun, *rest = json.loads(line)
            if rest:
                found, said, public = rest
                outcome.opened += 1
                outcome.public += bool(public)
                outcome.warned.update(said)
                if found:
                    outcome.flaws[self.begun] = found
                self.begun = None
        if data:
            return None
        code = self._end()
        return None if code == 0 else f"crash: it ended with {code}"

    @property
    def stalled(self) -> bool:
        """Whether it has said nothing for too long."""
        return time.monotonic() - self._heard > self._patience

    def stop(self) -> str:
        """Ends it, since it says nothing any more."""
        self._process.kill()
        self._end()
        return f"hang: it was not opened in {STALL_S:.0f} s"

    def _end(self) -> int:
        self._waiting.unregister(self._output)
        self._output.close()
        return self._process.wait()


def main(arguments: Iterable[str] | None = None) -> None:
    """Reads what `examine` asks for, and serves it."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("journal", "folder"):
        parser.add_argument(name, type=Path)
    parser.add_argument("run")
    for name in ("first", "end", "every", "public", "seed"):
        parser.add_argument(f"--{name}", type=int, default=0)
    parser.add_argument("--power", action="store_true")
    options = parser.parse_args(None if arguments is None else list(arguments))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    (serve_power if options.power else serve)(options)


if __name__ == "__main__":
    main()
