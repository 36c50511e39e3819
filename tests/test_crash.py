"""Kills lose nothing that was committed: every write of a writer is recorded, and the run opened as it was after each.

A kill lets no system call be half done but a long write, which the kernel may stop between two pages: these halves are
opened, too. tools/crash_test.py opens all moments; here it is a share of them, drawn with a fixed seed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

import crash_opening
import reenact
from crash_journal import ROOT, Folder, Kind, Operation, compiled, contents, read, record
from crash_opening import Outcome, examine, moments, witnessed
from crash_power import examine_power

WRITERS = Path(__file__).with_name("crash_writers.py")


@dataclass
class Recorded:
    """A scenario, recorded."""

    journal: Path
    folder: Path
    operations: list[Operation]

    def examine(self, *, every: int = 1, public: int = 0) -> Outcome:
        """Opens its moments."""
        return examine(self.journal, self.folder, "run", every=every, public=public)


@pytest.fixture(name="shim", scope="module")
def _shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(tmp_path_factory.mktemp("shim"))


def recorded(shim: Path, tmp_path: Path, scenario: str, *arguments: int) -> Recorded:
    """Runs a scenario, and sees to it that nothing which it wrote is missing in the journal."""
    folder, journal = tmp_path.resolve() / "watched", tmp_path / "journal"
    folder.mkdir()
    command = [sys.executable, str(WRITERS), scenario, str(folder / "run"), *map(str, arguments)]
    done = record(command, folder, library=shim, journal=journal)
    assert done.returncode == 0, done.stderr
    operations = read(journal, folder)
    again = Folder()
    try:
        for operation in operations:
            again.apply(operation)
        assert contents(again.path) == contents(folder)
    finally:
        again.close()
    return Recorded(journal, folder, operations)


def expect(outcome: Outcome, *, opened: int, public: int) -> None:
    """Fails unless so many moments were opened at least, and all of them were right."""
    assert outcome.flaws == {}
    assert outcome.warned == {}
    assert outcome.opened >= opened
    assert outcome.public >= public


@pytest.mark.parametrize(
    ("scenario", "every", "opened"),
    [
        ("plain", 3, 100),
        ("composite", 6, 80),
        ("widening", 3, 100),
        ("busy", 30, 80),
        ("fork", 4, 80),
        ("long", 60, 40),
    ],
)
def test_every_moment_of_a_recording(scenario: str, every: int, opened: int, shim: Path, tmp_path: Path) -> None:
    """As it was after any write, from the run's making to its close or kill, a run has all that was committed, right."""
    found = recorded(shim, tmp_path, scenario)
    assert any(past.commits for past in witnessed(found.operations).values())
    expect(found.examine(every=every, public=20), opened=opened, public=4)


@pytest.mark.parametrize(("writes", "last"), [(1, 5000), (12, 0), (27, 100)])
def test_every_moment_of_a_full_disk(writes: int, last: int, shim: Path, tmp_path: Path) -> None:
    """The same on a disk that gets full in the middle of a commit, or of a write, and has room again later."""
    found = recorded(shim, tmp_path, "full", writes, last)
    assert any(operation.kind is Kind.FAILED for operation in found.operations)
    assert len([name for name in contents(found.folder) if name.endswith(".h5")]) == 2
    expect(found.examine(every=4, public=20), opened=40, public=2)


def test_every_moment_of_processes_and_threads(shim: Path, tmp_path: Path) -> None:
    """The same where two processes and two threads make their segments in one run at once."""
    found = recorded(shim, tmp_path, "workers")
    assert len({operation.pid for operation in found.operations}) >= 3
    assert len(witnessed(found.operations)) == 4
    expect(found.examine(every=16, public=20), opened=50, public=2)


def test_losses_of_power(shim: Path, tmp_path: Path) -> None:
    """With durable=True a loss of power loses nothing committed, whichever pages it keeps of what was not synced."""
    found = recorded(shim, tmp_path, "durable")
    assert sum(operation.kind is Kind.SYNCED for operation in found.operations) > 10
    outcome = examine_power(found.journal, found.folder, "run", count=100, seed=1)
    assert outcome.flaws == {}
    assert outcome.opened == 100


def test_a_killed_process_that_nobody_has_waited_for(tmp_path: Path) -> None:
    """It counts as dead, as orphans do in a container whose first process hears of none: its episode is interrupted."""
    code = "import crash_writers, pathlib, sys, os; env = crash_writers.Witness(pathlib.Path(sys.argv[1]), 'number', 'x'); "
    code += "env.whole(1); env.reset(2); env.step(); env.flush(); os._exit(1)"
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests")])}
    with subprocess.Popen([sys.executable, "-W", "ignore", "-c", code, tmp_path / "run"], env=environ) as training:
        stat = Path(f"/proc/{training.pid}/stat")
        while stat.read_text().rpartition(")")[2].split()[0] != "Z":
            time.sleep(0.01)
        run = reenact.open_run(tmp_path / "run")
        assert run.live == []
        assert run.ended.tolist() == ["terminated", "interrupted"]


def test_a_careless_writer_is_found_out(shim: Path, tmp_path: Path) -> None:
    """Without the barrier between steps and rows, some moments lose or garble what was committed."""
    found = recorded(shim, tmp_path, "careless").examine()
    assert found.opened == found.moments
    assert 0 < len(found.flaws) < found.moments
    assert found.count("lost") or found.count("wrong")


def test_a_moment_that_hangs_or_crashes_is_found_out(
    shim: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Damaged metadata, which makes HDF5 wait for ever, is a finding; the moments after it are opened none the less."""
    found = recorded(shim, tmp_path, "plain")
    writes = [place for place, done in enumerate(found.operations) if done.kind is Kind.WRITTEN]
    header = next(place for place in writes if found.operations[place].data.startswith(b"OHDR") and place > writes[-60])
    data = found.journal.read_bytes()
    was = found.operations[header].data
    # the same bytes may have been written before, to the same place: this one is the last of them
    at = data.rindex(was)
    found.journal.write_bytes(data[: at + 20] + bytes([data[at + 20] ^ 0xFF]) + data[at + 21 :])
    monkeypatch.setattr(crash_opening, "STALL_S", 4.0)
    broken = read(found.journal, found.folder)
    cut = [done for done in broken if done.data == was[:20] + bytes([was[20] ^ 0xFF]) + was[21:]]
    assert len(cut) == 1
    numbers = [number for number, (place, _) in enumerate(moments(broken, torn=True)) if broken[place] is cut[0]]
    outcome = examine(found.journal, found.folder, "run", only=range(numbers[0] - 2, numbers[0] + 1))
    assert outcome.opened == 3
    assert set(outcome.flaws) == {numbers[0]}
    assert outcome.flaws[numbers[0]][0].startswith(("hang", "crash", "unreadable"))
