"""The public surface is deliberate: these names, and no others."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys

import reenact

NAMES = [
    "Attempt",
    "Check",
    "DamagedError",
    "Divergence",
    "Episode",
    "EpisodeNotFoundError",
    "Origin",
    "PackResult",
    "RaisedError",
    "RecipeError",
    "Recorder",
    "ReenactError",
    "RenderError",
    "RepairResult",
    "ReplayError",
    "ReplayResult",
    "Run",
    "RunError",
    "RunExistsError",
    "RunNotFoundError",
    "Segment",
    "SegmentReport",
    "SelectionError",
    "Tally",
    "UntrustedError",
    "VectorRecorder",
    "VideoError",
    "VideoExistsError",
    "check",
    "open_run",
    "pack",
    "recording",
    "repair",
    "replay",
    "verify",
]


def test_the_names_are_pinned() -> None:
    """`__all__` and `dir` list these names, and each can be had."""
    assert sorted(reenact.__all__) == NAMES == dir(reenact)
    assert all(getattr(reenact, name).__name__ == name for name in NAMES)


def test_no_module_bears_a_public_name() -> None:
    """`reenact.replay` is the function, in whatever order modules are imported."""
    modules = {module.name for module in pkgutil.iter_modules(reenact.__path__)}
    assert not modules & set(NAMES)
    for module in sorted(modules - {"__main__"}):
        importlib.import_module(f"reenact.{module}")
    assert all(callable(getattr(reenact, name)) for name in NAMES)


def test_errors_are_also_the_built_ins_they_resemble() -> None:
    """Every error is a ReenactError, and those that resemble a built-in are one."""
    errors = [getattr(reenact, name) for name in NAMES if name.endswith("Error") and name != "RaisedError"]
    assert all(issubclass(error, reenact.ReenactError) for error in errors)
    assert issubclass(reenact.RunNotFoundError, FileNotFoundError)
    assert issubclass(reenact.RunExistsError, FileExistsError)
    assert issubclass(reenact.EpisodeNotFoundError, IndexError)
    assert issubclass(reenact.SelectionError, ValueError)
    assert issubclass(reenact.UntrustedError, PermissionError)


def test_an_unknown_name_is_an_attribute_error() -> None:
    """A name that isn't there is missed as on any module."""
    assert not hasattr(reenact, "nope")


def test_recording_loads_no_video_room() -> None:
    """`import reenact`, opening runs, listing and recording load neither moviepy nor click."""
    code = "import sys, reenact, reenact.listing; reenact.Recorder, reenact.open_run; print([m for m in ('moviepy', 'click') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
