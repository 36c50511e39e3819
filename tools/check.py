"""The one gate: format, lint, types, imports, tests. People and CI run the same.

    python tools/check.py           everything; exit 1 if anything failed
    python tools/check.py --fast    all but pytest
    python tools/check.py --fix     formats, and fixes what ruff can fix, before checking

Every step runs, whatever an earlier one said. pytest comes last and writes straight to the terminal, so its
own summary ends the output.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STRICT = ("src", "tools", "examples")
FOLDERS = (*STRICT, "tests")

RUFF = ("-m", "ruff")
MYPY = ("-m", "mypy", "--no-error-summary")
# `-m` runs nothing of import-linter and succeeds; this is what its console script calls.
LOOSE = (  # tests hand in what the annotations forbid, and look into what is typed loosely
    "--check-untyped-defs",
    *(f"--disable-error-code={code}" for code in ("arg-type", "attr-defined", "call-overload", "misc", "union-attr")),
)
IMPORTS = ("-c", "from importlinter.cli import lint_imports_command as main; main()", "--no-cache")
PYTEST = ("-m", "pytest", "-n", "2", "--dist", "worksteal", "--cov", "--cov-report=term-missing:skip-covered")


def present(folders: tuple[str, ...]) -> tuple[str, ...]:
    """Returns those of the folders that exist."""
    return tuple(folder for folder in folders if (ROOT / folder).is_dir())


def environment() -> dict[str, str]:
    """Returns this process's environment with `src` importable, so that this tree is checked and no other."""
    path = os.pathsep.join(filter(None, (str(ROOT / "src"), os.environ.get("PYTHONPATH"))))
    return {**os.environ, "PYTHONPATH": path}


def passes(name: str, *arguments: str) -> bool:
    """Runs this Python with the arguments; prints a line with its time, and its output only if it failed."""
    started = time.perf_counter()
    done = subprocess.run(
        (sys.executable, *arguments),
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    ok = done.returncode == 0
    print(f"{'ok    ' if ok else 'FAILED'}  {name:<14} {time.perf_counter() - started:6.1f} s", flush=True)
    if not ok:
        print(done.stdout.rstrip(), flush=True)
    return ok


def main() -> int:
    """Runs the steps in order and returns the exit code: 0 if all passed, else 1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--fast", action="store_true", help="leave pytest out")
    parser.add_argument("--fix", action="store_true", help="format and fix before checking")
    options = parser.parse_args()

    every, strict, tests = present(FOLDERS), present(STRICT), present(("tests",))
    if options.fix:
        # Fixes first: what they leave still wants formatting. What can't be fixed fails below.
        subprocess.run((sys.executable, *RUFF, "check", "--fix", "--quiet", *every), cwd=ROOT, check=False)
        subprocess.run((sys.executable, *RUFF, "format", "--quiet", *every), cwd=ROOT, check=False)

    results = {
        "ruff format": passes("ruff format", *RUFF, "format", "--check", *every),
        "ruff check": passes("ruff check", *RUFF, "check", *every),
        "mypy --strict": passes("mypy --strict", *MYPY, "--strict", *strict),
        "mypy tests": not tests or passes("mypy tests", *MYPY, *LOOSE, *tests),
        "lint-imports": passes("lint-imports", *IMPORTS),
    }
    failed = [name for name, ok in results.items() if not ok]
    print(f"failed before the tests: {', '.join(failed)}" if failed else "all passed so far", flush=True)
    if options.fast:
        return int(bool(failed))

    pytest = subprocess.run((sys.executable, *PYTEST), cwd=ROOT, env=environment(), check=False)
    return int(bool(failed) or pytest.returncode != 0)


if __name__ == "__main__":
    raise SystemExit(main())
