"""Logs every episode of a Gymnasium training run, and turns any of them into a video afterwards.

Nothing is imported before it is used: recording loads no video room, and `reenact --help` loads none at all.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from reenact.checking import Check, Tally, check
    from reenact.episode import Attempt, Divergence, Origin, RaisedError, ReplayResult
    from reenact.errors import (
        DamagedError,
        EpisodeNotFoundError,
        RecipeError,
        ReenactError,
        RenderError,
        ReplayError,
        RunError,
        RunExistsError,
        RunNotFoundError,
        SelectionError,
        UntrustedError,
        VideoError,
        VideoExistsError,
    )
    from reenact.logged import Episode
    from reenact.members import Segment
    from reenact.opening import open_run
    from reenact.packing import PackResult, pack
    from reenact.placing import recording
    from reenact.recorder import Recorder
    from reenact.render import replay, verify
    from reenact.repairing import RepairResult, SegmentReport, repair
    from reenact.run import Run
    from reenact.vector import VectorRecorder

_HOMES = {
    "Check": "checking",
    "Tally": "checking",
    "check": "checking",
    "Attempt": "episode",
    "Divergence": "episode",
    "Origin": "episode",
    "RaisedError": "episode",
    "ReplayResult": "episode",
    "DamagedError": "errors",
    "EpisodeNotFoundError": "errors",
    "RecipeError": "errors",
    "ReenactError": "errors",
    "RenderError": "errors",
    "ReplayError": "errors",
    "RunError": "errors",
    "RunExistsError": "errors",
    "RunNotFoundError": "errors",
    "SelectionError": "errors",
    "UntrustedError": "errors",
    "VideoError": "errors",
    "VideoExistsError": "errors",
    "Recorder": "recorder",
    "VectorRecorder": "vector",
    "PackResult": "packing",
    "pack": "packing",
    "recording": "placing",
    "RepairResult": "repairing",
    "SegmentReport": "repairing",
    "repair": "repairing",
    "replay": "render",
    "verify": "render",
    "Episode": "logged",
    "Run": "run",
    "Segment": "members",
    "open_run": "opening",
}

__all__ = [  # noqa: RUF022  # what a user meets first comes first
    "Recorder",
    "VectorRecorder",
    "recording",
    "open_run",
    "replay",
    "verify",
    "check",
    "pack",
    "repair",
    "Run",
    "Segment",
    "Episode",
    "Origin",
    "RaisedError",
    "ReplayResult",
    "Divergence",
    "Attempt",
    "Check",
    "Tally",
    "PackResult",
    "RepairResult",
    "SegmentReport",
    "ReenactError",
    "RunError",
    "RunNotFoundError",
    "RunExistsError",
    "DamagedError",
    "EpisodeNotFoundError",
    "SelectionError",
    "RecipeError",
    "UntrustedError",
    "ReplayError",
    "VideoError",
    "RenderError",
    "VideoExistsError",
]


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'reenact' has no attribute {name!r}")
    found: object = getattr(importlib.import_module(f"reenact.{home}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted(__all__)
