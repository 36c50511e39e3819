"""Conditions over the episode table, and picks by rank: against Python's own evaluation, row by row."""

from __future__ import annotations

import contextlib
import math
import statistics
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import reenact
from reenact.errors import SelectionError
from reenact.selection import select
from reenact.where import where

if TYPE_CHECKING:
    from pathlib import Path

ROWS: list[dict[str, Any]] = [
    {"return": 10.0, "length": 5, "seed": 3, "ended": "terminated", "label": "", "win": 1.0},
    {"return": -2.5, "length": 50, "seed": None, "ended": "truncated", "label": "odd", "win": 0.0},
    {"return": math.nan, "length": 5, "seed": None, "ended": "errored", "label": "", "win": math.nan},
    {"return": 10.0, "length": 7, "seed": -1, "ended": "interrupted", "label": "é", "win": 1.0},
    {"return": 300.0, "length": 200, "seed": 2**40, "ended": "truncated", "label": "", "win": 0.5},
]


class Listed:
    """A run whose table is a list of rows."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def number_of(self, address: str) -> int:
        """Its episodes are all of one segment."""
        return int(address.partition(".")[2])

    def table(self) -> dict[str, np.ndarray]:
        """As `Run.table`."""
        seeds = [row["seed"] for row in self.rows]
        found: dict[str, np.ndarray] = {"episode": np.arange(len(self.rows))}
        for name in ("return", "win"):
            found[name] = np.array([row[name] for row in self.rows], float)
        found["length"] = np.array([row["length"] for row in self.rows], int)
        found["seed"] = np.ma.masked_array([seed or 0 for seed in seeds], [seed is None for seed in seeds])
        for name in ("ended", "label"):
            found[name] = np.array([row[name] for row in self.rows], object)
        found["start"] = np.datetime64("2026-01-31T12:00:00", "ns") + np.arange(len(self.rows)) * np.timedelta64(1, "m")
        return found


TABLE = Listed(ROWS).table()


def chosen(text: str) -> list[int]:
    """The rows that a condition holds for."""
    return np.flatnonzero(where(text, TABLE)).tolist()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("return > 200 and length < 500", [4]),
        ("return == 10", [0, 3]),
        ("not return == 10", [1, 2, 4]),
        ("return != 10", [1, 4]),  # NaN is neither equal nor different
        ("-3 < return < 11", [0, 1, 3]),
        ("5 <= length <= 7 and (win == 1 or ended == 'errored')", [0, 2, 3]),
        ("seed == None", [1, 2]),
        ("None != seed", [0, 3, 4]),
        ("return == None", [2]),
        ("seed < 0", [3]),
        ("seed > 99999999999999999999999", []),
        ("seed < 99999999999999999999999", [0, 3, 4]),
        ('ended == "terminated" or ended == "truncated"', [0, 1, 4]),
        ("label != ''", [1, 3]),
        ("label == 'return'", []),  # the word in text is no column
        ("label == 'é'", [3]),
        ("win == True", [0, 3]),
        ("length == seed", []),
        ("return >= length", [0, 3, 4]),
        ('start >= "2026-01-31 12:02"', [2, 3, 4]),
        ('"2026-01-31T12:01Z" == start', [1]),
        ('"2026-01-31T13:01+01:00" == start', [1]),
        ('start < "2026-01-31 07:01:30.5-0500"', [0, 1]),
        ("episode == 2", [2]),
        ("  return\n> 200", [4]),
    ],
)
def test_conditions(text: str, expected: list[int]) -> None:
    """A condition holds for the rows that a reader would say."""
    if "\n" in text:
        text = f"({text})"
    assert chosen(text) == expected


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "can't be read"),
        ("return >", "can't be read"),
        ("retrun > 3", "'retrun' is no column: expected one of episode, return"),
        ("return", "return is no condition"),
        ("return > 1 + 1", r"1 \+ 1 is no value"),
        ("length == 'long'", "a number can't be compared with text"),
        ("ended > 3", "text can't be compared with a number"),
        ("seed > None", "expected == or !="),
        ("start > 'soon'", "'soon' is no time"),
        ("start > 'NaT'", "'NaT' is no time"),
        ("start > ''", "'' is no time"),
        ("start > '2026-01-31T25:00+01:00'", "is no time"),
        ("ended == 'terminted'", "'terminted': expected terminated, truncated, interrupted, errored"),
        ("length > 3 and 'killed' != ended", "'killed': expected terminated"),
        ("length in (1, 2)", "expected one of =="),
        ("-label == 'x'", "a sign stands before a number alone"),
        ("__import__('os').system('true') == 0", "is no value"),
        ("(lambda: 1)() == 1", "is no value"),
        ("[length][0] == 1", "is no value"),
        ("length.real == 1", "is no value"),
        ("f'{length}' == '1'", "is no value"),
        ("length == 1j", "is no value"),
        ("length = 1", "can't be read"),
        ("length == 1; length == 2", "can't be read"),
        ("(" * 900 + "length == 1" + ")" * 900, "can't be read"),
        ("not " * 480 + "length == 1", None),
        ("length == 1" + " and length == 1" * 200, "characters, expected 2000 at most"),
        ("length == 1 \x00", "can't be read"),
        ("1" * 1900 + " == length", None),
    ],
)
def test_what_is_no_condition_is_refused_in_one_line(text: str, told: str | None) -> None:
    """Whatever else is typed is refused in one line that says what was expected; None: it may be understood."""
    with contextlib.nullcontext() if told is None else pytest.raises(SelectionError, match=told) as refused:
        where(text, TABLE)
    if refused is not None:
        assert "\n" not in str(refused.value)


@settings(deadline=None)
@given(st.text(max_size=40))
def test_any_text_is_a_condition_or_refused(text: str) -> None:
    """No text does anything but select or raise SelectionError."""
    try:
        found = where(text, TABLE)
    except SelectionError:
        return
    assert found.dtype == bool
    assert found.shape == (len(ROWS),)


NUMBER = st.one_of(st.integers(-5, 300), st.floats(-5, 300, allow_nan=False))
SIDE = st.one_of(st.sampled_from(["return", "length", "win"]), NUMBER)
COMPARISON = st.builds(
    lambda first, rest: f"{first!s} " + " ".join(f"{op} {side!s}" for op, side in rest),
    SIDE,
    st.lists(st.tuples(st.sampled_from(["<", "<=", ">", ">="]), SIDE), min_size=1, max_size=3),
)
CONDITION = st.recursive(
    COMPARISON,
    lambda part: st.one_of(
        st.builds("({} and {})".format, part, part),
        st.builds("({} or {})".format, part, part),
        st.builds("(not ({}))".format, part),
    ),
    max_leaves=6,
)


@settings(deadline=None)
@given(CONDITION)
def test_conditions_are_pythons(text: str) -> None:
    """Over numbers, a condition holds where Python itself says so."""
    code = text.replace("return", "return_")
    expected = [
        number
        for number, row in enumerate(ROWS)
        if eval(code, {"return_": row["return"], "length": row["length"], "win": row["win"]})  # noqa: S307  # of the test's own making
    ]
    assert chosen(text) == expected


# ---- picks by rank


def rows(returns: list[float], ended: list[str] | None = None) -> Listed:
    """A run of these returns."""
    endings = ended or ["terminated"] * len(returns)
    return Listed(
        [
            {"return": value, "length": 1, "seed": None, "ended": how, "label": "", "win": 0.0}
            for value, how in zip(returns, endings, strict=True)
        ]
    )


@settings(deadline=None)
@given(st.lists(st.integers(-3, 3).map(float), min_size=1, max_size=12), st.integers(1, 5), st.floats(0, 100))
def test_ranks(returns: list[float], count: int, share: float) -> None:
    """Best, worst, median and percentile are the nearest ranks; of equal returns the lower number comes first."""
    run = rows(returns)
    numbers = range(len(returns))
    assert select(run, best=count) == sorted(sorted(numbers, key=lambda n: (-returns[n], n))[:count])
    rising = sorted(numbers, key=lambda n: (returns[n], n))
    assert select(run, worst=count) == sorted(rising[:count])
    (median,) = select(run, median=True)
    assert returns[median] == statistics.median_low(returns)
    (found,) = select(run, percentile=share)
    assert found == rising[max(0, math.ceil(Fraction(str(share)) * len(returns) / 100) - 1)]
    assert select(run, last=count) == list(numbers)[-count:]
    assert select(run, best=1, worst=1, median=True) == sorted({*select(run, best=1), *select(run, worst=1), median})


def test_percentages_are_those_that_are_written() -> None:
    """Of a thousand episodes, each tenth of a per cent is one: no float's last digit makes it the next."""
    run = rows([float(rank) for rank in range(1000)])
    for rank in range(1, 1001):
        assert select(run, percentile=rank / 10) == select(run, percentile=f"{rank / 10}") == [rank - 1]


def test_filters_narrow_first_and_picks_unite() -> None:
    """Filters leave what the picks pick from; filters alone select all that they leave."""
    run = rows([5, 4, 3, 2, 1, 0], ["terminated", "interrupted", "truncated", "terminated", "errored", "terminated"])
    assert select(run, where="return <= 4", best=1) == [2]
    assert select(run, where="return <= 4", best=1, ended="interrupted,errored") == [1]
    assert select(run, "0,5", where="return <= 4", worst=1) == [5]
    assert select(run, ended="errored") == [4]
    assert select(run, every=2, where="episode > 0") == [2, 4]
    assert select(run, last=2) == [3, 5]
    assert select(run, percentile="0,100") == [0, 5]
    assert select(run, where="return > 100") == []
    assert select(run, where="return > 100", best=3) == []
    assert select(run, marked=True) == []


@pytest.mark.parametrize(
    ("picks", "told"),
    [
        ({"best": 0}, "best must be a whole number of 1 or more, got 0"),
        ({"last": -1}, "last must be a whole number of 1 or more"),
        ({"best": "3"}, "best must be a whole number of 1 or more, got '3'"),
        ({"worst": 2.5}, "got 2.5"),
        ({"every": True}, "every must be a whole number"),
        ({"last": np.bool_(1)}, "last must be a whole number"),
        ({"median": "no"}, "median must be True or False, got 'no'"),
        ({"marked": 1}, "marked must be True or False, got 1"),
        ({"where": 3}, "where must be text, got 3"),
        ({"ended": ["errored"]}, r"ended must be text, got \['errored'\]"),
        ({"percentile": "10,x"}, "percentile: expected numbers such as 10,50,90"),
        ({"percentile": [101]}, "from 0 to 100"),
        ({"ended": "won"}, "'won': expected terminated, truncated, interrupted, errored"),
    ],
)
def test_picks_that_make_no_sense(picks: Any, told: str) -> None:
    """A pick that can't be understood says what was expected."""
    with pytest.raises(SelectionError, match=told):
        select(rows([1.0, 2.0]), **picks)


def test_ranks_say_so_when_nothing_came_to_an_end() -> None:
    """Where all were interrupted, the likely cause is named, and how to rank those all the same."""
    run = rows([1.0, 2.0], ["interrupted"] * 2)
    with pytest.raises(SelectionError, match=r"2 interrupted: is a TimeLimit missing\?\); ended='interrupted'"):
        select(run, best=1)
    assert select(run, best=1, ended="interrupted") == [1]
    with pytest.raises(SelectionError, match=r"\(1 errored, 1 interrupted\)"):
        select(rows([1.0, 2.0], ["interrupted", "errored"]), median=True)
    assert select(rows([math.nan, 1.0, math.nan]), best=3) == [1]
    assert select(rows([]), best=1) == []


# ---- marks


def test_marks(tmp_path: Path) -> None:
    """mark() labels the running episode, or the one that has just ended; a callable sees what it came to."""
    seen: list[dict[str, Any]] = []

    def mark(statistics_: dict[str, Any]) -> str | bool | None:
        seen.append(statistics_)
        return (None, True, "long", None, "")[len(seen) - 1]

    env = reenact.Recorder(gym.make("CartPole-v1"), tmp_path / "run", mark=mark, flush_seconds=1e-6)
    with pytest.warns(UserWarning, match="no episode to mark"):
        env.mark("too early")
    with pytest.raises(ValueError, match="needs some text"):
        env.mark("")
    infos = []
    for number in range(5):
        env.reset(seed=number)
        if number == 3:
            env.mark("début")
        over = False
        while not over:
            *_, terminated, truncated, info = env.step(0)
            over = terminated or truncated
        infos.append(info["episode"])
        if number in (2, 3):
            env.mark("again")
    env.reset()
    env.step(0)
    env.mark("cut short")
    env.close()
    assert [{name: one[name] for name in "rlt"} for one in seen] == infos
    assert {one["ended"] for one in seen} == {"terminated"}
    run = reenact.open_run(tmp_path / "run")
    assert run.labels.tolist() == ["", "marked", "long, again", "début, again", "", "cut short"]
    assert [episode.label for episode in run] == run.labels.tolist()
    assert select(run, marked=True) == [1, 2, 3, 5]
    assert select(run, where="label == 'marked' or label == 'long, again'", best=1) in ([1], [2])
    assert {result.verdict for result in reenact.verify(run, marked=True)} == {"exact"}


def test_columns_of_a_run(tmp_path: Path) -> None:
    """Each column that a condition may name is there for a real run, also roles, lanes and info values."""
    for role in ("train", "eval"):
        env = reenact.Recorder(gym.make("CartPole-v1"), tmp_path / "run", role=role, info_keywords=("score",))
        env.reset(seed=1)
        while not any(env.step(0)[2:4]):
            pass
        env.close()
    run = reenact.open_run(tmp_path / "run")
    assert set(run.table()) == {
        *("episode", "return", "length", "elapsed", "seed", "ended"),
        *("segment", "lane", "role", "label", "start", "score"),
    }
    assert select(run, where="role == 'eval' and lane == -1 and score == None and seed == 1 and elapsed >= 0") == [1]
    assert select(run, where="start > '2001-01-01' and segment == 0") == [0]
