"""What a job's process and its workers say to one another, pickled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, slots=True)
class Setup:
    """What a worker takes over from the process that starts it; the first that it is told.

    Attributes:
        parent: that process's number.
        argv: its arguments.
        filters: its filters of warnings, the arguments of `warnings.filterwarnings`, each pickled for itself; the one
            that counts most comes last.
    """

    parent: int
    argv: tuple[str, ...]
    filters: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Call:
    """What a worker is to do."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a call came to."""

    value: Any
    error: BaseException | None
