"""The records that all rooms exchange. They hold data; they open no file and step no env."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np

Verdict = Literal["exact", "tolerated", "diverged", "impossible"]
"""`tolerated`: no reward was further off than the tolerance given; `exact` is never claimed under one."""
OriginName = Literal["seed", "rng"]
EndedName = Literal["terminated", "truncated", "interrupted", "errored"]


@dataclass(frozen=True, slots=True)
class Origin:
    """What an episode can be started again from.

    Attributes:
        name: "seed" or "rng".
        seed: what `reset(seed=...)` was given, for "seed".
        rng: the bit generator's state before the reset, for "rng".
    """

    name: OriginName
    seed: int | None = None
    rng: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class RaisedError:
    """What the env raised.

    Attributes:
        type: the qualified name of the exception's class, such as "builtins.ValueError".
        text: its message.
        where: "step" or "reset".
    """

    type: str
    text: str
    where: Literal["step", "reset"] = "step"


@dataclass(frozen=True, slots=True)
class EpisodeData:
    """All that re-executing an episode needs.

    Attributes:
        origins: what it can be started from, the best first.
        options: what `reset(options=...)` was given.
        actions: one a step, in the types they were given; the one that raised is the last.
        rewards: float64, shape (length,).
        length: env steps that returned.
        ended: how it ended; "nothing" for a reset without a step.
        return_: the sum of its rewards, as logged.
        fingerprints: checksum of the observation by step (0: the reset's).
        error: what the env raised, or None.
    """

    origins: tuple[Origin, ...]
    options: dict[str, Any] | None
    actions: list[Any]
    rewards: np.ndarray
    length: int
    ended: EndedName | Literal["nothing"]
    return_: float
    fingerprints: dict[int, int]
    error: RaisedError | None


@dataclass(frozen=True, slots=True)
class Divergence:
    """The first difference between an episode as logged and as re-executed.

    Attributes:
        step: the env step at which it showed (0: the reset; k: after the k-th action).
        since: the last step whose observation was known to agree; the difference began after it. -1: none was.
        field: "observation", "reward", "terminated", "truncated", "length", "return" or "error".
        expected: what the log says.
        got: what the re-execution gave.
    """

    step: int
    since: int
    field: str
    expected: object
    got: object


@dataclass(frozen=True, slots=True)
class ReplayResult:
    """What became of one requested episode, or of one clip.

    Attributes:
        episode: its number in the run (a clip's: its first episode's); None for one that has none.
        address: "segment.index", its name for ever.
        verdict: "exact", "tolerated", "diverged" or "impossible".
        origin: what it was started from, or None.
        path: the video, or None where none was made.
        frames: frames in the video (verified without one: 0).
        length: env steps as logged (a clip's: of all the episodes it touches).
        return_: the return as logged (a clip's: the sum).
        seed: its seed, or None.
        divergence: the first difference, or None.
        error: why there is no exact video, in one line, or None.
        tolerance: what rewards were compared with.
        reused: whether the video was there already, made from the same episode with the same options.
        episodes: the addresses of all the episodes that a clip touches.
    """

    episode: int | None
    address: str
    verdict: Verdict
    origin: str | None = None
    path: str | None = None
    frames: int = 0
    length: int = 0
    return_: float = 0.0
    seed: int | None = None
    divergence: Divergence | None = None
    error: str | None = None
    tolerance: float = 0.0
    reused: bool = False
    episodes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether what was asked for was done, and is what happened."""
        return self.verdict == "exact" and self.error is None

    def to_json(self) -> dict[str, object]:
        """Returns it as `--json` prints it; NaN and infinities are strings."""
        divergence = None if self.divergence is None else {
            "step": self.divergence.step,
            "since": self.divergence.since,
            "field": self.divergence.field,
            "expected": finite(self.divergence.expected),
            "got": finite(self.divergence.got),
        }  # fmt: skip
        return {
            "episode": self.episode,
            "address": self.address,
            "verdict": self.verdict,
            "origin": self.origin,
            "path": self.path,
            "frames": self.frames,
            "length": self.length,
            "return": finite(self.return_),
            "seed": self.seed,
            "divergence": divergence,
            "error": self.error,
            **({"tolerance": self.tolerance} if self.tolerance else {}),
            **({"episodes": list(self.episodes)} if len(self.episodes) > 1 else {}),
        }


def finite(value: object) -> object:
    """Returns a value as JSON can carry it: NaN and infinities as "nan", "inf" and "-inf"."""
    return repr(value) if isinstance(value, float) and not math.isfinite(value) else value
