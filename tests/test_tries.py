"""What one process has had tried, another one that is handed the run need not have tried again; all else it must."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import time
from pathlib import Path

import pytest

import reenact
from reenact import tries
from test_render import record

SOURCE = Path(reenact.__file__).resolve().parents[1]
ELSEWHERE = """
import pickle, sys
from reenact import probe
tried, really = [], probe.try_all
probe.try_all = lambda paths: tried.extend(paths) or really(paths)
try:
    run = pickle.loads(sys.stdin.buffer.read())
    print(len(tried), len(run), run[0].rewards.sum())
except Exception as error:
    print(len(tried), type(error).__name__)
"""


def elsewhere(packed: bytes) -> list[str]:
    """Opens a pickled run in a fresh process; returns how many files it had tried, and what it has read."""
    path = os.pathsep.join((str(SOURCE), str(Path(__file__).parent)))
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE], input=packed, env={**os.environ, "PYTHONPATH": path}, capture_output=True,
        check=True, timeout=60,
    )  # fmt: skip
    return done.stdout.decode().split()


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run of two segments, whose files count as settled at once."""
    monkeypatch.setattr(tries, "_SETTLED_NS", 0)
    record(tmp_path / "run", 1)
    record(tmp_path / "run", 1)
    time.sleep(0.05)  # beyond the clock's tick that files are stamped with
    return tmp_path / "run"


@pytest.mark.parametrize("packed", [False, True])
def test_what_was_tried_is_not_tried_again(run: Path, packed: bool) -> None:
    """A run's folder, and a packed file, are read by another process without another try."""
    if packed:
        run = reenact.pack(run).path
        time.sleep(0.05)
    opened = reenact.open_run(run)
    tried, count, rewards = elsewhere(pickle.dumps(opened))
    assert (int(tried), int(count), float(rewards)) == (0, 2, float(opened[0].rewards.sum()))


@pytest.mark.parametrize("how", ["rewritten", "replaced", "longer", "one more", "damaged"])
def test_what_has_changed_since_is_tried_again(run: Path, how: str) -> None:
    """Other bytes of the same length and time, another file, a longer one, one more beside it: all are tried there."""
    handed = pickle.dumps(reenact.open_run(run))
    segment = run / "segment-00000.h5"
    before, content = segment.stat(), segment.read_bytes()
    if how == "rewritten":
        segment.write_bytes(content)
        os.utime(segment, ns=(before.st_atime_ns, before.st_mtime_ns))
    elif how == "replaced":
        (run / "new").write_bytes(content)
        os.utime(run / "new", ns=(before.st_atime_ns, before.st_mtime_ns))
        (run / "new").replace(segment)
    elif how == "longer":
        with segment.open("ab") as file:
            file.write(b"x")
    elif how == "one more":
        record(run, 1)
    else:
        segment.write_bytes(content[:600] + b"\xff" * 200 + content[800:])
        os.utime(segment, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert int(elsewhere(handed)[0]) >= 2


def test_what_has_just_been_written_is_tried_again(tmp_path: Path) -> None:
    """A change in the same tick of the clock would not show: a file's last one must lie back two seconds."""
    opened = reenact.open_run(record(tmp_path / "run", 1))
    assert elsewhere(pickle.dumps(opened))[0] == "1"


def test_what_could_not_be_opened_is_vouched_for_by_nobody(run: Path) -> None:
    """Beside a damaged segment all are tried there, as here."""
    segment = run / "segment-00000.h5"
    segment.write_bytes(segment.read_bytes()[:3000])
    time.sleep(0.05)
    with pytest.warns(UserWarning, match="read without this segment"):
        opened = reenact.open_run(run)
    assert int(elsewhere(pickle.dumps(opened))[0]) == 2
