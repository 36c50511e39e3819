"""Which sub-env of a vector env a recorder stands in, as far as that can be told from inside: its lane.

A worker's name tells it. In one process, the envs of a vector env are made one after another before any of them is
reset; the one that AsyncVectorEnv makes first to look at, and never resets, has another process to itself.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import threading
import weakref
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

NO_LANE = -1
_OF_GYMNASIUM = re.compile(r"Worker<\w+>-(\d+)")  # AsyncVectorEnv's, from 0
_OF_PYTHON = re.compile(r"\w*Process-(?:\d+:)*(\d+)")  # as multiprocessing names what has no name, from 1


class Place:
    """A recorder's place among those that are made beside it for the same run and role.

    Beside it are those that the same thread makes before the first of them is reset and that are still there then.
    """

    def __init__(self, run: Path, role: str) -> None:
        key = os.getpid(), threading.get_ident(), str(run.absolute()), role
        found = _beside.get(key)
        if found is None or found.settled:
            found = _beside[key] = _Beside()
        found.places.append(weakref.ref(self))
        self._beside, self._lane = found, NO_LANE

    def leave(self) -> None:
        """It is closed: if no reset came before, it was none of a vector env's."""
        if not self._beside.settled:
            self._beside.places = [place for place in self._beside.places if place() is not self]

    def lane(self) -> int:
        """Returns its lane; -1: it has none. The first call settles those of all that were made beside it."""
        if not self._beside.settled:
            self._beside.settled = True
            there = [place for reference in self._beside.places if (place := reference()) is not None]
            for number, place in enumerate(there):
                place._lane = _told(number if len(there) > 1 else NO_LANE)  # noqa: SLF001  # its own class's
        return self._lane


class _Beside:
    def __init__(self) -> None:
        self.places: list[weakref.ref[Place]] = []
        self.settled = False


_beside: dict[tuple[int, int, str, str], _Beside] = {}


def _told(order: int) -> int:
    """Returns the lane: AsyncVectorEnv's workers are named by it; a process's number counts if nothing else does."""
    name = multiprocessing.current_process().name
    named = _OF_GYMNASIUM.fullmatch(name)
    if named:
        return int(named[1])
    numbered = _OF_PYTHON.fullmatch(name)
    return int(numbered[1]) - 1 if numbered and order == NO_LANE else order


def announced() -> bool:
    """Whether this process is AsyncVectorEnv's worker: what is to be said of its env was said of the one looked at."""
    return _OF_GYMNASIUM.fullmatch(multiprocessing.current_process().name) is not None
