"""What is done together, and in what order, for logs of any shape; without any env."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reenact.episode import ReplayResult
from reenact.films import Film, Part
from reenact.plan import Plan


@dataclass
class Line:
    """A lineage whose resets have seeds at some positions."""

    key: tuple[int, int]
    seeded: tuple[int, ...] = ()

    def nearest(self, name: str, before: int) -> int | None:
        """The last one before a position."""
        return max((at for at in self.seeded if at < before and name == "seed"), default=None)


def film(position: int, frames: int, lineage: Line | None = None) -> Film:
    """The film of an episode."""
    episode: Any = SimpleNamespace(position=position, lineage=lineage or Line((0, -1)), run=SimpleNamespace(uuid="run"))
    return Film(f"{position}", (Part(episode, 0, frames),))


def result(origin: str, verdict: Any = "exact") -> ReplayResult:
    """What became of one."""
    return ReplayResult(0, "0.0", verdict, origin=origin)


def taken(plan: Plan) -> list[tuple[int, ...]]:
    """All that is left, in the order in which it would be done."""
    found = []
    while (piece := plan.take()) is not None:
        found.append(piece.films)
    return found


@settings(max_examples=200, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 3000), max_size=40),
    at_once=st.integers(1, 8),
    origins=st.lists(st.sampled_from(["seed", "chain:1", "chain:7", "chain:seed", "chain:first"]), max_size=5),
)
def test_each_film_is_done_once(lengths: list[int], at_once: int, origins: list[str]) -> None:
    """Whatever is learnt on the way, each film is handed out once, each piece in episode order."""
    lines = [Line((0, 0), (0, 9, 20)), Line((0, 1))]
    films = [film(at // 2, frames, lines[at % 2]) for at, frames in enumerate(lengths)]
    plan = Plan(films, at_once, 600)
    found: list[int] = []
    while (piece := plan.take()) is not None:
        assert list(piece.films) == sorted(piece.films)
        assert len({films[at].parts[0].episode.lineage.key for at in piece.films}) == 1
        found += piece.films
        if origins:
            plan.learn(piece, piece.films[0], result(origins.pop()))
    assert sorted(found) == list(range(len(films)))


def test_long_ones_come_first() -> None:
    """Before anything is known, long films are handed out before short ones, and these by the dozen."""
    films = [film(at, frames) for at, frames in enumerate([10, 900, 20, 5000, *[5] * 200])]
    order = taken(Plan(films, 2, 600))
    assert order[:2] == [(3,), (1,)]
    assert max(len(piece) for piece in order) > 50


def test_two_processes_share_two_films() -> None:
    """Short as they are, two films are two tasks where two processes wait."""
    assert sorted(taken(Plan([film(0, 5), film(1, 5)], 2, 600))) == [(0,), (1,)]


@pytest.mark.parametrize(
    ("origin", "together"),
    [
        ("seed", [(1,), (2,), (3,), (4,), (5,)]),
        ("chain:1", [(1,), (2, 3), (4,), (5,)]),
        ("chain:12", [(1, 2, 3), (4,), (5,)]),
        ("chain:seed", [(1,), (2, 3), (4, 5)]),
        ("chain:first", [(1, 2, 3, 4, 5)]),
    ],
)
def test_overlapping_chains_stay_together(origin: str, together: list[tuple[int, ...]]) -> None:
    """Once a film was exact by a chain, those left whose chains would go over the same resets are one task."""
    line = Line((0, -1), (0, 8, 30))
    films = [film(at, 1000, line) for at in (2, 5, 15, 16, 40, 60)]
    plan = Plan(films, 2, 600)
    pieces = [plan.take() for _ in films]
    began = next(piece for piece in pieces if piece is not None and piece.films == (0,))
    plan.give_back([1, 2, 3, 4, 5])
    assert plan.learn(began, 0, result(origin)) == (origin != "seed")
    assert sorted(taken(plan)) == together
    assert not plan.learn(began, 0, result(origin))


def test_a_vector_env_s_lanes_are_planned_apart() -> None:
    """Where lanes of one segment need their whole history, each lane is a task, with positions of its own."""
    lines = [Line((0, lane), (lane,)) for lane in range(3)]
    films = [film(at, 1000, line) for line in lines for at in (5, 6, 7)]
    for origin in ("chain:first", "chain:seed"):
        plan = Plan(films, 2, 600)
        pieces = [piece for _ in films if (piece := plan.take()) is not None]
        for lane in range(3):
            began = next(piece for piece in pieces if piece.films == (3 * lane,))
            assert plan.learn(began, 3 * lane, result(origin))
            plan.give_back([3 * lane + 1, 3 * lane + 2])
        assert sorted(taken(plan)) == [(1, 2), (4, 5), (7, 8)]


def test_a_diverged_film_teaches_nothing() -> None:
    """An episode that no chain was exact for does not keep the others together."""
    plan = Plan([film(at, 1000) for at in range(4)], 2, 600)
    piece = plan.take()
    assert piece is not None
    assert not plan.learn(piece, piece.films[0], result("chain:first", "diverged"))
