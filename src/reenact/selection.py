"""Which episodes: by number, range, address, trigger, return, ending or condition, from what a user types to a list."""

from __future__ import annotations

import contextlib
import math
import numbers
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from operator import index
from typing import Any, Protocol, TypedDict, Unpack

import numpy as np

from reenact import usercode
from reenact.episode import ENDINGS
from reenact.errors import EpisodeNotFoundError, SelectionError
from reenact.where import where

Array = np.ndarray[Any, Any]
Trigger = Callable[[int], bool]
Episodes = str | int | Iterable[int | str] | None

_RANGE = re.compile(r"(-?\d{1,18})?:(-?\d{1,18})?(?::(-?\d{1,18}))?")
_ADDRESS = re.compile(r"\d{1,18}\.\d{1,18}")
_NUMBER = re.compile(r"-?\d{1,18}")
_NO_END = 10**18
_EXPECTED = "numbers, ranges such as 100:200:10, addresses such as 3.250, or all"
_NO_END_YET = "{!r} counts from the end, which a run that is followed does not have yet: give numbers from 0 on"


class Numbered(Protocol):
    """What a selection asks of a run."""

    def __len__(self) -> int:
        """The number of episodes."""

    def number_of(self, address: str) -> int:
        """The number of the episode of that address."""

    def table(self) -> Mapping[str, Array]:
        """The columns that a condition may name, one entry an episode."""


class Picks(TypedDict, total=False):
    """What else selects episodes, as keywords of every call that takes `episodes`.

    `where`, `ended` and `marked` narrow first; the others pick from what remains, and unite. `best`, `worst`,
    `median`, `percentile` and `last` take episodes that terminated or were truncated, unless `ended` is given; of
    equal returns the lower number comes first.
    """

    every: int | None
    """Those whose number it divides."""
    best: int | None
    """So many of the highest returns."""
    worst: int | None
    """So many of the lowest."""
    median: bool
    """The one in the middle by return (of two, the lower)."""
    percentile: str | float | Iterable[float] | None
    """The nearest rank by return: "10,50,90", or numbers from 0 to 100."""
    last: int | None
    """So many with the highest numbers."""
    where: str | None
    """A condition over the episode table, such as "return > 200 and length < 50"."""
    ended: str | None
    """Those that ended so: terminated, truncated, interrupted, errored; several with commas between."""
    marked: bool
    """Those that were marked during the training."""


_RANKED = ("best", "worst", "median", "percentile", "last")
_FINISHED = ("terminated", "truncated")


def select(
    run: Numbered,
    episodes: Episodes = None,
    *,
    trigger: Trigger | None = None,
    default: Trigger | None = None,
    **picks: Unpack[Picks],
) -> list[int]:
    """Returns the numbers of the episodes that the filters leave and any of the picks names, in order, each once.

    Args:
        run: what to select from.
        episodes: "0,250,-1", "100:200:10", "3.250", "all"; or numbers and addresses.
        trigger: those for whose number it is true.
        default: a trigger for when nothing at all is given; None: all.
        picks: what else selects, or filters.

    Raises:
        SelectionError: a pick can't be understood, or no episode is of the kind that it ranks.
        EpisodeNotFoundError: a picked episode is not there.
    """
    count, given = len(run), given_of(picks)
    remain = _filter(run, picks, 0)
    every = picks.get("every")
    ranked = [name for name in _RANKED if name in given]
    if episodes is None and every is None and trigger is None and not ranked:
        if remain is not None:
            return np.flatnonzero(remain).tolist()
        return list(range(count) if default is None else filter(default, range(count)))
    picked: set[int] = set()
    if episodes is not None:
        for pick in _parts(episodes):
            picked.update(_resolve(run, pick, count))
    if every is not None:
        picked.update(range(0, count, at_least_one("every", every)))
    if trigger is not None:
        picked.update(number for number in range(count) if trigger(number))
    if remain is not None:
        picked = {number for number in picked if remain[number]}
    if ranked:
        picked.update(_rank(run, remain, picks, ranked[0]))
    return sorted(picked)


def given_of(picks: Picks) -> set[str]:
    """Returns the names of the picks that are given; 0 is.

    Raises:
        SelectionError: one that is text, or True or False, is anything else.
        TypeError: there is no such pick.
    """
    for name in picks.keys() - Picks.__annotations__.keys():
        raise TypeError(f"no selection {name!r}: expected {', '.join(Picks.__annotations__)}")
    for name in ("median", "marked"):
        if not isinstance(picks.get(name, False), bool):
            raise SelectionError(f"{name} must be True or False, got {picks.get(name)!r}")
    for name in ("where", "ended"):
        if not isinstance(picks.get(name), str | None):
            raise SelectionError(f"{name} must be text, got {picks.get(name)!r}")
    return {name for name, value in picks.items() if value is not None and value is not False}


def _filter(run: Numbered, picks: Picks, first: int) -> Array | None:
    """Returns which episodes the filters leave, from a number on, bool; None: there is no filter."""
    condition, ended, marked = picks.get("where"), picks.get("ended"), picks.get("marked", False)
    if condition is None and ended is None and not marked:
        return None
    table = {name: column[first:] for name, column in run.table().items()}
    keep = np.ones(len(run) - first, np.bool_)
    if condition is not None:
        keep &= where(condition, table)
    if ended is not None:
        names = [name.strip() for name in ended.split(",")]
        for name in names:
            if name not in ENDINGS:
                raise SelectionError(f"ended: {name!r}: expected {', '.join(ENDINGS)}")
        keep &= np.isin(table["ended"], names)
    if marked:
        keep &= table["label"] != ""
    return keep


def _rank(run: Numbered, remain: Array | None, picks: Picks, first: str) -> Iterator[int]:
    """Yields what is picked by rank, among the episodes that came to an end of their own."""
    table = run.table()
    eligible = np.ones(len(run), np.bool_) if remain is None else remain
    if picks.get("ended") is None:
        ended = table["ended"]
        finished = np.isin(ended, _FINISHED)
        if eligible.any() and not (eligible & finished).any():
            raise SelectionError(_none_finished(first, ended[eligible].astype(str)))
        eligible = eligible & finished
    numbers = np.flatnonzero(eligible)
    if (last := picks.get("last")) is not None:
        yield from numbers[-at_least_one("last", last) :].tolist()
    returns = table["return"][numbers]
    there = ~np.isnan(returns)
    numbers, returns = numbers[there], returns[there]
    # stable: of equal returns the lower number comes first
    if (best := picks.get("best")) is not None:
        yield from numbers[np.argsort(-returns, kind="stable")[: at_least_one("best", best)]].tolist()
    rising = numbers[np.argsort(returns, kind="stable")]
    if (worst := picks.get("worst")) is not None:
        yield from rising[: at_least_one("worst", worst)].tolist()
    shares = [*([Fraction(50)] if picks.get("median") else []), *_percentiles(picks.get("percentile"))]
    if len(rising):
        yield from (int(rising[max(0, math.ceil(share * len(rising) / 100) - 1)]) for share in shares)


def _none_finished(name: str, ended: Array) -> str:
    kinds = ", ".join(f"{(ended == kind).sum()} {kind}" for kind in sorted(set(ended)))
    hint = ": is a TimeLimit missing?" if set(ended) == {"interrupted"} else ""
    return (
        f"{name}: no episode terminated or was truncated ({kinds}{hint}); "
        f"ended={','.join(sorted(set(ended)))!r} takes those"
    )


def _percentiles(given: str | float | Iterable[float] | None) -> list[Fraction]:
    parts = given.split(",") if isinstance(given, str) else given if isinstance(given, Iterable) else [given]
    try:
        # as it is written: a rank just above a whole number by a float's last digit is the next episode's
        found = [Fraction(str(float(part))) for part in parts if part is not None]
    except (TypeError, ValueError) as error:
        raise SelectionError(f"percentile: expected numbers such as 10,50,90, got {given!r}") from error
    if not all(0 <= share <= 100 for share in found):  # noqa: PLR2004  # per cent
        raise SelectionError(f"percentile: expected numbers from 0 to 100, got {given!r}")
    return found


def at_least_one(name: str, count: object) -> int:
    """Returns a count that is given by that name.

    Raises:
        SelectionError: it is no whole number of 1 or more.
    """
    if isinstance(count, bool) or not isinstance(count, numbers.Integral) or count < 1:
        raise SelectionError(f"{name} must be a whole number of 1 or more, got {count!r}")
    return int(count)


class Awaited:
    """Picks among the episodes of a run that is still written, each asked about once, when it gets its number.

    Args:
        episodes: as `select` takes them, but for what counts from the end.
        trigger: as there.
        default: as there.
        picks: as there, but for ranks.

    Raises:
        SelectionError: a pick can't be understood, or needs to know all that there will be.
    """

    def __init__(
        self,
        episodes: Episodes = None,
        *,
        trigger: Trigger | None = None,
        default: Trigger | None = None,
        **picks: Unpack[Picks],
    ) -> None:
        given = given_of(picks)
        for name in _RANKED:
            if name in given:
                raise SelectionError(f"{name} is known at the end only: leave follow out, or replay when it has come")
        if episodes is None and trigger is None and not given:
            trigger = default
        every = picks.get("every")
        self._picks, self._trigger = picks, trigger
        self._ranges = [] if every is None else [range(0, _NO_END, at_least_one("every", every))]
        self._numbers: set[int] = set()
        self._addresses: set[str] = set()
        for pick in _parts(episodes):
            self._add(pick)
        if episodes is None and trigger is None and every is None:
            self._ranges.append(range(_NO_END))

    def _add(self, pick: int | str) -> None:
        if isinstance(pick, str) and _ADDRESS.fullmatch(pick):
            self._addresses.add(".".join(str(int(part)) for part in pick.split(".")))
        elif isinstance(pick, str) and "-" in pick and _RANGE.fullmatch(pick):
            raise SelectionError(_NO_END_YET.format(pick))
        elif (found := _range(pick, _NO_END)) is not None:
            self._ranges.append(found)
        elif (number := _number(pick)) < 0:
            raise SelectionError(_NO_END_YET.format(pick))
        else:
            self._numbers.add(number)

    def among(self, run: Numbered, fresh: range) -> list[int]:
        """Returns those of the fresh numbers, which are the run's last, that are picked, in order."""
        if not fresh:
            return []
        found = {number for number in self._numbers if number in fresh}
        self._numbers -= found
        for address in sorted(self._addresses):
            with contextlib.suppress(EpisodeNotFoundError):
                found.add(run.number_of(address))
                self._addresses.discard(address)
        for one in self._ranges:
            found.update(number for number in fresh if number in one)
        if self._trigger is not None:
            found.update(number for number in fresh if self._trigger(number))
        remain = _filter(run, self._picks, fresh.start)
        return sorted(found if remain is None else {number for number in found if remain[number - fresh.start]})

    @property
    def missing(self) -> list[int | str]:
        """The numbers and addresses that have been asked for by name, and have not come."""
        return [*sorted(self._numbers), *sorted(self._addresses)]


def capped_cubic(number: int) -> bool:
    """Returns whether `RecordVideo` would film the episode of that number by default.

    As Gymnasium's own, which lies beside an import of MoviePy: that loads any `.env`, which may choose an ffmpeg.
    """
    return round(number ** (1.0 / 3)) ** 3 == number if number < _CAP else number % _CAP == 0


_CAP = 1000


def callable_trigger(trigger: str | Trigger | None) -> Trigger | None:
    """Returns what a trigger's name stands for: "capped-cubic" for Gymnasium's, else the user's own code."""
    if trigger is None or callable(trigger):
        return trigger
    found: Trigger = capped_cubic if trigger == "capped-cubic" else usercode.load(trigger)
    return found


def _parts(episodes: Episodes) -> Sequence[int | str]:
    if isinstance(episodes, str):
        return [part.strip() for part in episodes.split(",")]
    if isinstance(episodes, Iterable):
        return list(episodes)
    return [] if episodes is None else [episodes]


def _resolve(run: Numbered, pick: int | str, count: int) -> Iterable[int]:
    if isinstance(pick, str) and _ADDRESS.fullmatch(pick):
        return [run.number_of(pick)]
    if (found := _range(pick, count)) is not None:
        return found
    number = _number(pick)
    if not -count <= number < count:
        has = f"it has episodes 0 to {count - 1}" if count else "it has no finished episode yet"
        raise EpisodeNotFoundError(f"no episode {number}: {has}")
    return [number % count]


def _range(pick: int | str, count: int) -> range | None:
    """Returns the numbers that "all" or a range names, of so many; None for another pick."""
    if not isinstance(pick, str):
        return None
    if pick == "all":
        return range(count)
    match = _RANGE.fullmatch(pick)
    if match is None:
        return None
    start, stop, step = (int(part) if part else None for part in match.groups())
    if step == 0:
        raise SelectionError(f"the range {pick!r} has step 0")
    return range(*slice(start, stop, step).indices(count))


def _number(pick: int | str) -> int:
    if isinstance(pick, str) and not _NUMBER.fullmatch(pick):
        raise SelectionError(f"{pick!r} names no episode: expected {_EXPECTED}")
    try:
        return int(pick) if isinstance(pick, str) else index(pick)
    except (TypeError, ValueError) as error:
        raise SelectionError(f"{pick!r} names no episode: expected {_EXPECTED}") from error


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
