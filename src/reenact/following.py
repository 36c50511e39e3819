"""A run that is followed while it is written: its episodes as they get their numbers, until nothing is live."""

from __future__ import annotations

from pathlib import Path
from time import monotonic, sleep
from typing import TYPE_CHECKING

from reenact import folder
from reenact.episode import ReplayResult
from reenact.errors import RunNotFoundError
from reenact.finding import find_runs
from reenact.run import Run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from os import PathLike

    from reenact.selection import Awaited

POLL_S = 1.0
"""Between two looks."""
_LOOKS, _LOOKS_AT_WORK = 2, 30
"""A training that closes one env before it makes the next leaves no segment live for a while: it has ended when so many
looks in a row say so, and more if its script still runs. Not until that ends: it may wait for who follows it."""


def opened(run: Run | str | PathLike[str], waiting: Callable[[str], None]) -> Run:
    """Returns the run, once its first segment is there.

    Args:
        run: a run, its folder, or one segment of it; there may be nothing yet.
        waiting: told what is waited for, if it is.

    Raises:
        RunNotFoundError: the path is a folder with other runs in it.
        DamagedError: nothing of it can be read.
    """
    if isinstance(run, Run):
        return run
    told = False
    while True:
        try:
            return Run(run)
        except RunNotFoundError as error:
            if find_runs(Path(run)):
                raise
            if not told:
                told = True
                waiting(f"{error}; waiting for a training to begin there")
        sleep(POLL_S)


def picked(run: Run, picks: Awaited, waiting: Callable[[str], None]) -> Iterator[list[int]]:
    """Yields the numbers of picked episodes, as they get these, until the training has ended; refreshes the run.

    Args:
        run: the run.
        picks: what to look for.
        waiting: told that it has to be waited, the first time.
    """
    seen = ended = 0
    told = False
    while True:
        looked = monotonic()
        run.refresh()
        fresh, seen = range(seen, len(run)), len(run)
        found = picks.among(run, fresh)
        if found:
            # one env instance after another: a chain that stands in one goes on
            lineages = [run[number].lineage.key for number in found]
            yield [number for _, number in sorted(zip(lineages, found, strict=True))]
        ended = 0 if run.is_live else ended + 1
        if ended >= (_LOOKS_AT_WORK if folder.others_at_work(run.folder) else _LOOKS):
            return
        if not told and run.is_live:
            told = True
            waiting(f"{len(run)} episodes of {run.path} so far; waiting for more, until the training ends")
        sleep(max(0.0, looked + POLL_S - monotonic()))


def missing(run: Run, picks: Awaited) -> list[ReplayResult]:
    """Returns what is to be said of picks that never came."""
    has = f"with episodes 0 to {len(run) - 1}" if len(run) else "without a finished episode"
    return [
        ReplayResult(
            episode=pick if isinstance(pick, int) else None,
            address=pick if isinstance(pick, str) else "",
            verdict="impossible",
            error=f"it never came: the training ended {has}",
        )
        for pick in picks.missing
    ]
