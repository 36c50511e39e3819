"""Which films are done together, and in what order: long ones first, and chained passes whole.

How an episode has to be started is not known before it was tried. So films are spread singly; as soon as a result says
that its episode needed a chain, those of its env instance whose chains would overlap stay together, in episode order:
one pass goes through them all. What was tried singly until then is at most a task for each worker.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from reenact.errors import DamagedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from reenact.episode import ReplayResult
    from reenact.films import Film
    from reenact.lineage import Lineage

_TASKS_EACH = 8
"""Of all that there is to do, a worker gets about so many tasks: the last of them keeps the others waiting little."""
Instance = tuple[str, int, int]
"""An env instance: its run, and its lineage's key there. Each lane of a vector env is one."""


def instance_of(film: Film) -> Instance:
    """Returns the env instance whose episode a film begins with."""
    episode = film.parts[0].episode
    return (episode.run.uuid, *episode.lineage.key)


def by_instance(films: Sequence[Film]) -> list[int]:
    """Returns the films' indices, one env instance after another: the chain that stands in one goes on."""
    found: dict[Instance, list[int]] = {}
    for index, film in enumerate(films):
        found.setdefault(instance_of(film), []).append(index)
    return [index for indices in found.values() for index in indices]


@dataclass(frozen=True, slots=True)
class Piece:
    """Films that one process does, one after another.

    Attributes:
        films: their indices.
        instance: the env instance that they are of.
        frames: how many they have in all.
        again: whether it is tried for the last time: the process that did it before has died.
    """

    films: tuple[int, ...]
    instance: Instance
    frames: int
    again: bool = False


class _Instance:
    """What is known of one env instance's films."""

    def __init__(self, lineage: Lineage) -> None:
        self.lineage = lineage
        self.rungs: set[str] = set()
        self.furthest = 0  # of the chains that began a number of resets earlier

    def learn(self, origin: str) -> bool:
        """Takes in that an episode was exact by this; returns whether more has to stay together."""
        where = origin.partition(":")[2]
        if where.isdigit():
            more = int(where) > self.furthest
            self.furthest = max(self.furthest, int(where))
            return more
        more = bool(where) and where not in self.rungs
        self.rungs |= {where} if where else set()
        return more

    def start(self, position: int) -> int:
        """Returns the first reset that an episode's chain may begin with."""
        if "first" in self.rungs:
            return 0
        starts = [position - self.furthest]
        try:
            starts += [
                found for name in self.rungs if (found := self.lineage.nearest(name, position)) is not None
            ]  # fmt: skip
        except DamagedError:
            return 0
        return max(0, min(starts))


class Plan:
    """What is left of a job.

    Args:
        films: all of them.
        at_once: how many tasks go on at a time.
        most_frames: in a task of several films.
    """

    def __init__(self, films: Sequence[Film], at_once: int, most_frames: int) -> None:
        self._frames = [film.frames for film in films]
        self._most = min(most_frames, sum(self._frames) // (at_once * _TASKS_EACH))
        self._instances: dict[Instance, _Instance] = {}
        self._of: list[Instance] = []
        self._at = [(film.parts[0].episode.position, film.parts[-1].episode.position) for film in films]
        waiting: dict[Instance, list[int]] = {}
        for index, film in enumerate(films):
            key = instance_of(film)
            if key not in self._instances:
                self._instances[key] = _Instance(film.parts[0].episode.lineage)
            self._of.append(key)
            waiting.setdefault(key, []).append(index)
        self._pieces = [piece for key, indices in waiting.items() for piece in self._cut(key, indices)]
        self._sort()

    def take(self) -> Piece | None:
        """Returns what to do next; None: nothing is left."""
        return self._pieces.pop() if self._pieces else None

    def give_back(self, films: Sequence[int]) -> None:
        """Takes films back that were taken and not done."""
        if films:
            self._pieces += self._cut(self._of[films[0]], films)
            self._sort()

    def learn(self, piece: Piece, index: int, result: ReplayResult) -> bool:
        """Takes in what became of a film of a piece; returns whether more of its env instance must stay together."""
        origin = str(result.origin)
        if result.verdict not in ("exact", "tolerated") or not origin.startswith("chain:"):
            return False
        if index != piece.films[0] and origin.partition(":")[2].isdigit():
            return False  # a pass that went on from the film before: where that began says nothing of this one
        if not self._instances[piece.instance].learn(origin):
            return False
        again = [other for other in self._pieces if other.instance == piece.instance]
        self._pieces = [other for other in self._pieces if other.instance != piece.instance]
        self._pieces += self._cut(piece.instance, [film for other in again for film in other.films])
        self._sort()
        return True

    def _cut(self, key: Instance, indices: Sequence[int]) -> list[Piece]:
        """Cuts films of one env instance into pieces: overlapping chains in one, and short ones by the dozen."""
        instance = self._instances[key]
        chained = bool(instance.rungs or instance.furthest)
        groups: list[list[int]] = []
        reached = size = 0
        for index in sorted(indices, key=lambda one: self._at[one]):
            first, last = self._at[index]
            overlaps = chained and bool(groups) and instance.start(first) <= reached
            if groups and (overlaps or size + self._frames[index] <= self._most):
                groups[-1].append(index)
                size += self._frames[index]
            else:
                groups.append([index])
                size = self._frames[index]
            reached = max(reached, last) if overlaps else last
        return [Piece(tuple(group), key, sum(self._frames[index] for index in group)) for group in groups]

    def _sort(self) -> None:
        self._pieces.sort(key=lambda piece: (piece.frames, [-index for index in piece.films]))
