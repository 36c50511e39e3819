"""A slice of tools/fuzz_segments.py: damaged runs, each read by a user's process, and what the tool itself must see."""

from __future__ import annotations

import copy
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).resolve().parents[1] / "tools"))
import fuzz_reader  # type: ignore[import-not-found]
import fuzz_segments  # type: ignore[import-not-found]
from fuzz_seeds import recorded  # type: ignore[import-not-found]

CASES = ("cart", "dict-killed", "odd", "two", "batch")


def test_a_slice_of_the_fuzzing(tmp_path: Path) -> None:
    """100 mutants: none crashes, hangs, ends in a traceback, takes the memory, or gives out a wrong episode as good."""
    outcomes = fuzz_segments.Fuzz(tmp_path, CASES, seed=4, limit=60.0, probe=2.0, commands=0.1).run(100, jobs=2)
    bad = [outcome for outcome in outcomes if outcome.verdict in fuzz_reader.BAD]
    assert not bad, bad
    counts = Counter(outcome.verdict for outcome in outcomes)
    assert all(counts[verdict] for verdict in ("fine", "partial", "refused")), counts
    assert len({outcome.kind for outcome in outcomes}) > 20


@pytest.fixture(name="truth", scope="module")
def _truth(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with recorded(tmp_path_factory.mktemp("seeds"), ("odd",)) as runs:
        return fuzz_reader.content(runs["odd"])


def _lie(found: Any) -> None:
    found["episodes"]["0.1"]["actions"] = found["episodes"]["0.0"]["actions"] + " "


def _another(found: Any) -> None:
    found["episodes"]["0.1"]["ended"] = "'truncated'"


def _moved(found: Any) -> None:
    found["episodes"]["0.9"] = found["episodes"]["0.2"]


def _missing(found: Any) -> None:
    del found["episodes"]["0.1"], found["numbers"]["0.1"]


def _swapped(found: Any) -> None:
    numbers = found["numbers"]
    numbers["0.0"], numbers["0.1"] = numbers["0.1"], numbers["0.0"]


def _trailing(found: Any) -> None:
    found["done"]["0"][0] += "1"


def _acted(found: Any) -> None:
    found["acts"]["0"][1] += " "


def _closed(found: Any) -> None:
    found["segments"]["0"]["role"] = "eval"


@pytest.mark.parametrize("lie", [_lie, _another, _moved, _missing, _swapped, _trailing, _acted, _closed])
def test_the_tool_sees_a_lie(truth: Any, lie: Any) -> None:
    """Content that is not the truth, where nothing is said, is WRONG; the truth itself is fine."""
    assert fuzz_reader.compare(truth, copy.deepcopy(truth)) == ("fine", "")
    found = copy.deepcopy(truth)
    lie(found)
    assert fuzz_reader.compare(truth, found)[0] == "WRONG"


def test_what_is_left_out_and_said_is_partial(truth: Any) -> None:
    """An episode that is missing, with a warning, and one that raises are no lies."""
    found = copy.deepcopy(truth)
    _missing(found)
    found["said"] = ["1 damaged episode left out"]
    assert fuzz_reader.compare(truth, found) == ("partial", "")
    found = copy.deepcopy(truth)
    found["episodes"]["0.1"]["rewards"] = "! damaged"
    assert fuzz_reader.compare(truth, found) == ("partial", "")


_ENDS = {
    "CRASH": "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
    "HANG": "import time; time.sleep(60)",
    "TRACEBACK": "raise KeyError('x')",
    "MEMORY": "bytearray(b'x' * (1 << 30))",
}


@pytest.mark.parametrize("verdict", _ENDS)
def test_the_tool_sees_how_a_child_ends(verdict: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal, a hang, a traceback and a gigabyte are told apart."""
    reader = tmp_path / "reader.py"
    reader.write_text(
        f"import sys; sys.path[:0] = [{str(Path(fuzz_reader.__file__).parent)!r}]\n"
        f"import fuzz_reader\n"
        f"def content(path):\n    exec({_ENDS[verdict]!r})\n    return fuzz_reader_content(path)\n"
        f"fuzz_reader_content, fuzz_reader.content = fuzz_reader.content, content\n"
        f"raise SystemExit(fuzz_reader.work())\n"
    )
    monkeypatch.setattr(fuzz_segments, "READER", reader)
    with recorded(tmp_path / "seeds", ("odd",)) as runs:
        worker = fuzz_segments.Worker(tmp_path / "scratch", limit=5.0 if verdict == "HANG" else 60.0, probe=2.0)
        found = worker.use(runs["odd"], None, commands=False)
        worker.close()
    assert found["verdict"] == verdict, found
