"""Which episodes: numbers, ranges, addresses and triggers, from what a user types to a list of episodes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from operator import index
from typing import Protocol

from gymnasium.utils.save_video import capped_cubic_video_schedule

from reenact.errors import EpisodeNotFoundError, SelectionError

Trigger = Callable[[int], bool]
Episodes = str | int | Iterable[int | str] | None

_RANGE = re.compile(r"(-?\d{1,18})?:(-?\d{1,18})?(?::(-?\d{1,18}))?")
_ADDRESS = re.compile(r"\d{1,18}\.\d{1,18}")
_NUMBER = re.compile(r"-?\d{1,18}")
_EXPECTED = "numbers, ranges such as 100:200:10, addresses such as 3.250, or all"


class Numbered(Protocol):
    """What a selection asks of a run."""

    def __len__(self) -> int:
        """The number of episodes."""

    def number_of(self, address: str) -> int:
        """The number of the episode of that address."""


def select(
    run: Numbered,
    episodes: Episodes = None,
    *,
    every: int | None = None,
    trigger: Trigger | None = None,
    default: Trigger | None = None,
) -> list[int]:
    """Returns the numbers of the episodes that any of the picks names, in order, each once.

    Args:
        run: what to select from.
        episodes: "0,250,-1", "100:200:10", "3.250", "all"; or numbers and addresses.
        every: those whose number it divides.
        trigger: those for whose number it is true.
        default: a trigger for when nothing is given; None: all.

    Raises:
        SelectionError: a pick can't be understood.
        EpisodeNotFoundError: a picked episode is not there.
    """
    count = len(run)
    if episodes is None and every is None and trigger is None:
        return [number for number in range(count) if default is None or default(number)]
    picked: set[int] = set()
    if episodes is not None:
        for pick in _parts(episodes):
            picked.update(_resolve(run, pick, count))
    if every is not None:
        if every < 1:
            raise SelectionError(f"every must be 1 or more, got {every}")
        picked.update(range(0, count, every))
    if trigger is not None:
        picked.update(number for number in range(count) if trigger(number))
    return sorted(picked)


def named_trigger(name: str) -> Trigger | None:
    """Returns the trigger that Gymnasium has under a name, or None."""
    return {"capped-cubic": capped_cubic_video_schedule}.get(name)


def _parts(episodes: Episodes) -> Sequence[int | str]:
    if isinstance(episodes, str):
        return [part.strip() for part in episodes.split(",")]
    if isinstance(episodes, Iterable):
        return list(episodes)
    return [] if episodes is None else [episodes]


def _resolve(run: Numbered, pick: int | str, count: int) -> Iterable[int]:
    if isinstance(pick, str) and pick == "all":
        return range(count)
    if isinstance(pick, str) and (match := _RANGE.fullmatch(pick)):
        start, stop, step = (int(part) if part else None for part in match.groups())
        if step == 0:
            raise SelectionError(f"the range {pick!r} has step 0")
        return range(*slice(start, stop, step).indices(count))
    if isinstance(pick, str) and _ADDRESS.fullmatch(pick):
        return [run.number_of(pick)]
    if isinstance(pick, str) and not _NUMBER.fullmatch(pick):
        raise SelectionError(f"{pick!r} names no episode: expected {_EXPECTED}")
    try:
        number = int(pick) if isinstance(pick, str) else index(pick)
    except (TypeError, ValueError) as error:
        raise SelectionError(f"{pick!r} names no episode: expected {_EXPECTED}") from error
    if not -count <= number < count:
        has = f"it has episodes 0 to {count - 1}" if count else "it has no finished episode yet"
        raise EpisodeNotFoundError(f"no episode {number}: {has}")
    return [number % count]


class ClipTrigger:
    """Where `RecordVideo` would start and stop filming one env instance, frame by frame.

    Feed it each reset and each step in order; it tells whether that frame belongs to a clip, and to which.

    Args:
        step_trigger: asked with the number of each env step of the instance, from 0.
        episode_trigger: asked with the number of each episode.
        video_length: frames a clip; 0: to the next reset.
    """

    def __init__(self, step_trigger: Trigger | None, episode_trigger: Trigger | None, video_length: int) -> None:
        self._step_trigger, self._episode_trigger, self._length = step_trigger, episode_trigger, video_length
        self._step = -1
        self.clip: str | None = None
        self._frames = 0

    def reset(self, number: int | None) -> str | None:
        """Takes in a reset (of that episode number); returns the name of the clip that its frame is in."""
        if self._length == 0:
            self.clip = None
        if self._episode_trigger is not None and number is not None and self._episode_trigger(number):
            self._start(f"episode-{number}")
        return self._frame()

    def step(self) -> str | None:
        """Takes in a step; returns the name of the clip that its frame is in."""
        self._step += 1
        if self._step_trigger is not None and self._step_trigger(self._step):
            self._start(f"step-{self._step}")
        return self._frame()

    def skip(self, steps: int) -> None:
        """Takes in steps after an end and before the next reset: they count, and are not filmed."""
        self._step += steps

    def _start(self, name: str) -> None:
        self.clip, self._frames = name, 0

    def _frame(self) -> str | None:
        if self.clip is not None and self._length and self._frames >= self._length:
            self.clip = None
        self._frames += 1
        return self.clip
