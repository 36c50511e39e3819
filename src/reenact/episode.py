"""The records that all rooms exchange. They hold data; they open no file and step no env."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

if TYPE_CHECKING:
    import numpy as np

Verdict = Literal["exact", "tolerated", "diverged", "impossible", "planned"]
"""`planned`: a dry run's, of what would be made.
`tolerated`: no reward was further off than the tolerance given; `exact` is never claimed under one."""
OriginName = Literal["snapshot", "seed", "entropy", "rng"]
EndedName = Literal["terminated", "truncated", "interrupted", "errored"]
ENDINGS: tuple[EndedName, ...] = get_args(EndedName)


@dataclass(frozen=True, slots=True)
class Origin:
    """What an episode can be started again from.

    Attributes:
        name: "snapshot", "seed", "entropy" or "rng".
        seed: what `reset(seed=...)` was given or, for "entropy", would have had to be; or None.
        rng: the state of the env's own generator before the reset, or None.
        nested: the states of further generators that the env holds: where it does, and the state.
        snapshot: the simulator's own state, for "snapshot".
    """

    name: OriginName
    seed: int | None = None
    rng: dict[str, Any] | None = None
    nested: tuple[tuple[str, dict[str, Any]], ...] = ()
    snapshot: bytes | None = None


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
class ResetOptions:
    """What `reset(options=...)` was given, from a log.

    Attributes:
        value: the options.
        seal: their signature; "" where there is none.
    """

    value: dict[str, Any]
    seal: str


@dataclass(frozen=True, slots=True)
class Unloggable:
    """What stands for reset options that JSON can't carry.

    Attributes:
        why: the reason.
    """

    why: str


@dataclass(frozen=True, slots=True)
class BatchReset:
    """A reset of some of a vector env's lanes.

    Attributes:
        lanes: which.
        seed: what it was given.
        options: as above, without the mask.
    """

    lanes: tuple[int, ...]
    seed: int | None
    options: ResetOptions | Unloggable | None


@dataclass(frozen=True, slots=True)
class Move:
    """What a vector env that is re-executed as a whole does next.

    Attributes:
        action: of the whole batch; None: no step.
        resets: of some lanes, before that.
    """

    action: Any
    resets: tuple[BatchReset, ...]


@dataclass(frozen=True, slots=True)
class EpisodeData:
    """All that re-executing an episode needs.

    Attributes:
        origins: what it can be started from, the best first.
        options: what `reset(options=...)` was given; Unloggable where the log could not keep it.
        actions: one a step, in the types they were given; the one that raised is the last. Of a vector env that is
            re-executed as a whole: its moves.
        rewards: float64, shape (length,).
        length: env steps that returned.
        ended: how it ended; "nothing" for a reset without a step.
        return_: the sum of its rewards, as logged.
        fingerprints: checksum of the observation by step (0: the reset's).
        running: whether they are running ones, over all observations up to there.
        error: what the env raised, or None.
    """

    origins: tuple[Origin, ...]
    options: ResetOptions | Unloggable | None
    actions: list[Any]
    rewards: np.ndarray
    length: int
    ended: EndedName | Literal["nothing"]
    return_: float
    fingerprints: dict[int, int]
    running: bool
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

    def to_json(self) -> dict[str, object]:
        """Returns it as `--json` prints it; NaN and infinities are strings."""
        return {
            "step": self.step,
            "since": self.since,
            "field": self.field,
            "expected": finite(self.expected),
            "got": finite(self.got),
        }


@dataclass(frozen=True, slots=True)
class Attempt:
    """One way to start an episode that was not exact.

    Attributes:
        origin: the rung's name.
        divergence: the first difference, or None where it could not be started so.
        error: why it could not be started so, or None.
    """

    origin: str
    divergence: Divergence | None
    error: str | None = None

    def to_json(self) -> dict[str, object]:
        """Returns it as `--json` prints it."""
        divergence = None if self.divergence is None else self.divergence.to_json()
        return {"origin": self.origin, "divergence": divergence, "error": self.error}


@dataclass(frozen=True, slots=True)
class ReplayResult:
    """What became of one requested episode, or of one clip.

    Attributes:
        episode: its number in the run (a clip's: its first episode's); None for one that has none.
        address: "segment.index", its name for ever; "" for a number that never came.
        verdict: "exact", "tolerated", "diverged" or "impossible"; of a dry run's, "planned".
        origin: what it was started from: "snapshot", "seed", "entropy" or "rng" for the episode alone in a fresh env,
            "chain:N", "chain:first" and the like where earlier ones had to come before it; None: nothing.
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
        cause: why a replay diverged, where that is known, in one line; else None.
        tried: the ways to start it that were not exact, in the order in which they were tried.
        differs: for a replay that diverged, what is not as it was when it was recorded: (then, now).
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
    cause: str | None = None
    tried: tuple[Attempt, ...] = ()
    differs: dict[str, tuple[str, str]] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether what was asked for was done, and is what happened."""
        return self.verdict == "exact" and self.error is None

    def to_json(self) -> dict[str, object]:
        """Returns it as `--json` prints it; NaN and infinities are strings."""
        differs = {name: list(both) for name, both in self.differs.items()}
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
            "divergence": None if self.divergence is None else self.divergence.to_json(),
            "error": self.error,
            **({"cause": self.cause} if self.cause else {}),
            **({"tried": [attempt.to_json() for attempt in self.tried]} if self.tried else {}),
            **({"differs": differs} if differs else {}),
            **({"tolerance": self.tolerance} if self.tolerance else {}),
            **({"episodes": list(self.episodes)} if len(self.episodes) > 1 else {}),
        }


def finite(value: object) -> object:
    """Returns a value as JSON can carry it: NaN and infinities as "nan", "inf" and "-inf"."""
    return repr(value) if isinstance(value, float) and not math.isfinite(value) else value
