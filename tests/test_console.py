"""What becomes of a command whose output can't be written, and of what an env raises that looks like it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

import reenact
from test_cli import REENACT, environment, record

if TYPE_CHECKING:
    from pathlib import Path

COMMANDS = [
    ["--version"],
    ["replay", "--help"],
    ["ls"],
    ["ls", "--json"],
    ["show"],
    ["show", "--csv"],
    ["show", "--json"],
    ["repair", "RUN"],
    ["pack", "--overwrite", "--json"],
    ["verify", "--json", "--jobs", "1"],
    ["verify", "--json", "--jobs", "2"],
    ["replay", "--json", "--episodes", "0", "--jobs", "1"],
    ["replay", "--json", "--jobs", "2"],
]
SIGNS = ("Error", "Traceback", "Exception", "Errno")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run in runs/cart, whose episodes 0 and 1 have videos."""
    found = tmp_path_factory.mktemp("console")
    run = record(found / "runs" / "cart")
    assert all(result.ok for result in reenact.replay(run))
    return found


def ended(folder: Path, arguments: list[str], stdout: int) -> tuple[int, str]:
    """Runs a command whose standard output goes there; returns its exit code, and what it said on stderr."""
    command = [sys.executable, "-c", REENACT, *(argument.replace("RUN", "runs/cart") for argument in arguments)]
    done = subprocess.run(
        command,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        cwd=folder,
        env=environment(),
        timeout=60,
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_a_reader_that_has_gone_is_no_error(folder: Path, arguments: list[str]) -> None:
    """Into a pipe that nobody reads, a command ends as one that SIGPIPE ends, and says nothing of it."""
    ours, theirs = os.pipe()
    os.close(ours)
    try:
        code, said = ended(folder, arguments, theirs)
    finally:
        os.close(theirs)
    assert code == 128 + signal.SIGPIPE
    assert [line for line in said.splitlines() if any(sign in line for sign in SIGNS)] == []


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_a_full_disk_is_one_line(folder: Path, arguments: list[str]) -> None:
    """What can't be written is told in one line, with exit code 1."""
    with open("/dev/full", "wb") as full:  # noqa: PTH123  # a device
        code, said = ended(folder, arguments, full.fileno())
    assert [line for line in said.splitlines() if any(sign in line for sign in SIGNS)] == [
        "Error: standard output can't be written: No space left on device"
    ]
    assert code == 1


@pytest.mark.parametrize(("arguments", "code"), [("show", 1), ("verify --json --jobs 1", 1), ("verify --jobs 2", 0)])
def test_a_closed_output_fails_what_writes_to_it(folder: Path, arguments: str, code: int) -> None:
    """With `>&-` a command that has something for programs says so; no file is taken for standard output."""
    command = f"exec {sys.executable} -c '{REENACT}' {arguments} >&-"
    done = subprocess.run(
        ["/bin/sh", "-c", command], capture_output=True, text=True, check=False, cwd=folder, env=environment()
    )
    assert done.returncode == code
    assert "Traceback" not in done.stderr
    assert ("standard output can't be written: Bad file descriptor" in done.stderr) == bool(code)


def test_without_standard_error_the_work_is_done(folder: Path, tmp_path: Path) -> None:
    """With `2>&-` nothing is said to people, and the video is made."""
    command = f"exec {sys.executable} -c '{REENACT}' replay --episodes 0 --video-folder {tmp_path} 2>&-"
    done = subprocess.run(["/bin/sh", "-c", command], capture_output=True, check=False, cwd=folder, env=environment())
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert (tmp_path / "cart-episode-0.mp4").is_file()


@pytest.mark.parametrize(
    "error", ["ZeroDivisionError('mine')", "BrokenPipeError(32, 'mine')", "EOFError('mine')", "OSError(28, 'mine')"]
)
@pytest.mark.parametrize("jobs", ["1", "2"])
def test_an_env_s_own_error_is_not_the_command_s(folder: Path, tmp_path: Path, error: str, jobs: str) -> None:
    """What the user's own code raises while it makes the env is shown whole; a pipe of its own is no reader's."""
    (tmp_path / "mine.py").write_text(f"def make(render_mode=None):\n    raise {error}\n")
    command = [sys.executable, "-c", REENACT, "verify", "--env", str(tmp_path / "mine.py:make"), "--jobs", jobs]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder, env=environment())
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "mine.py" in done.stderr
    assert error.partition("(")[0] in done.stderr


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_an_env_that_exits_does_not_make_all_exact(folder: Path, tmp_path: Path, jobs: str) -> None:
    """Its exit code is not the command's: 0 would say that every episode was exact."""
    (tmp_path / "mine.py").write_text("import sys\ndef make(render_mode=None):\n    sys.exit(0)\n")
    command = [sys.executable, "-c", REENACT, "verify", "--env", str(tmp_path / "mine.py:make"), "--jobs", jobs]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder, env=environment())
    assert done.returncode == 1
    assert "Error: the env ended the program (sys.exit(0)): not all was done" in done.stderr
