"""Runs the tests on the versions that are promised, each row in a fresh environment with this tree installed.

    python tools/check_versions.py                 all rows, and a table at the end
    python tools/check_versions.py oldest          the row of that name: .ci/run's, whose last lines are pytest's
    python tools/check_versions.py --list          the rows, and which of them this machine has a Python for

The tests that draw Box2D's and MuJoCo's envs are left out: their wheels are younger than the oldest versions.
`tools/check.py` runs these, with the newest of everything.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from shutil import which

ROOT = Path(__file__).resolve().parents[1]
FLOORS = ROOT / "tools" / "floors.txt"
TESTING = ("hypothesis", "pytest", "pytest-xdist")
LEFT_OUT = ("tests/test_round_trip.py", "tests/test_zoo.py", "tests/test_executors.py")
NOTHING_RAN = 5
"""What pytest exits with where it found no test."""


@dataclass(frozen=True, slots=True)
class Row:
    """One set of versions.

    Attributes:
        name: what it is called here.
        python: such as "3.11".
        gymnasium: what pip is asked for behind the name; "": the newest.
        floors: whether all the others are the lowest that pyproject.toml admits.
    """

    name: str
    python: str
    gymnasium: str = ""
    floors: bool = False


ROWS = (
    Row("oldest", "3.11", "==1.0.0", floors=True),
    Row("gymnasium-1.0", "3.11", "==1.0.0"),
    Row("gymnasium-1.1", "3.11", "==1.1.1"),
    Row("gymnasium-1.2", "3.11", "==1.2.*"),
    Row("newest", "3.11"),
    Row("python-3.12", "3.12"),
    Row("python-3.13", "3.13"),
    Row("python-3.14", "3.14"),
)


def interpreter(version: str) -> Path | None:
    """Returns a Python of that version: this one, one on the path, or one of pyenv's; None where there is none."""
    if version == f"{sys.version_info.major}.{sys.version_info.minor}":
        return Path(sys.executable)
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    on_path = which(f"python{version}")
    found = [*pyenv.glob(f"versions/{version}.*/bin/python"), *([Path(on_path)] if on_path is not None else [])]
    for candidate in found:
        # pyenv's shims are there for versions that are not
        told = subprocess.run([candidate, "-c", "import venv"], capture_output=True, check=False)
        if told.returncode == 0:
            return candidate
    return None


def run(row: Row, python: Path, folder: Path) -> int:
    """Makes the row's environment in a folder, and runs the tests in it; returns pytest's exit code."""
    subprocess.run([python, "-m", "venv", folder], check=True)
    inside = str(folder / "bin" / "python")
    constraints = ("-c", str(FLOORS)) if row.floors else ()
    wanted = f"gymnasium[classic-control,toy-text]{row.gymnasium}"
    subprocess.run([inside, "-m", "pip", "install", "--quiet", *constraints, str(ROOT), wanted, *TESTING], check=True)
    ignored = [f"--ignore={path}" for path in LEFT_OUT]
    tests = [inside, "-m", "pytest", "-n", "2", "--dist", "worksteal", *ignored]
    return subprocess.run(tests, cwd=ROOT, check=False).returncode


def main() -> int:
    """Runs the rows that were asked for; returns 0 if the tests passed in all of them, else 1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", help="names of rows; none: all that this machine has a Python for")
    parser.add_argument("--list", action="store_true", help="list the rows, and run nothing")
    options = parser.parse_args()
    named = {row.name: row for row in ROWS}
    unknown = sorted(set(options.rows) - named.keys())
    if unknown:
        parser.error(f"no row {', '.join(unknown)}: expected {', '.join(named)}")
    pythons = {row.name: interpreter(row.python) for row in ROWS}
    if options.list:
        for row in ROWS:
            print(f"{row.name:<14} Python {row.python}  {pythons[row.name] or 'not here'}")
        return 0
    lacking = [name for name in options.rows if pythons[name] is None]
    if lacking:
        parser.error(f"there is no Python here for {', '.join(lacking)}")
    table = []
    for row in [named[name] for name in options.rows] or ROWS:
        python = pythons[row.name]
        if python is None:
            table.append((row, "no such Python here", 0.0))
            continue
        began = time.perf_counter()
        with tempfile.TemporaryDirectory(prefix="reenact-versions-") as folder:
            code = run(row, python, Path(folder))
        told = {0: "passed", NOTHING_RAN: "no test ran"}.get(code, "FAILED")
        table.append((row, told, time.perf_counter() - began))
    if len(table) > 1:
        for row, told, seconds in table:
            print(f"{row.name:<14} {told:<20} {seconds:5.0f} s")
    return int(any(told not in ("passed", "no such Python here") for _, told, _ in table))


if __name__ == "__main__":
    raise SystemExit(main())
