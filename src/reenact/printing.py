"""What is found -> lines: for programs on stdout, for people on stderr."""

from __future__ import annotations

import csv
import json
import math
import sys
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, TextIO

import click

from reenact.console import Stream

if TYPE_CHECKING:
    from click._termui_impl import ProgressBar

    from reenact.checking import Check
    from reenact.episode import ReplayResult
    from reenact.forecast import Forecast

_MOST_TOLD = 12


def table(rows: list[dict[str, object]], form: str) -> None:
    """Prints rows of equal keys: as a "table", "csv", or "json", an object a line."""
    if form == "json":
        for row in rows:
            click.echo(json.dumps(row))
        return
    if form == "csv":
        if rows:
            writer = csv.DictWriter(sys.stdout, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        return
    if not rows:
        return
    text = [list(rows[0])] + [["" if cell is None else str(cell) for cell in row.values()] for row in rows]
    widths = [max(map(len, column)) for column in zip(*text, strict=True)]
    for line in text:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def check(found: Check) -> None:
    """Prints what a check has found."""
    for title, tallies in (("origin", found.tallies), ("with reseed=True", found.reseeded)):
        rows: dict[str, dict[str, object]] = {}
        for one in tallies:
            row = rows.setdefault(one.rung, {title: one.rung, "undrawn": "-", "drawn": "-", "where it differs": ""})
            if one.tried:
                row["drawn" if one.rendered else "undrawn"] = f"{one.exact} of {one.tried}"
            row["where it differs"] = row["where it differs"] or one.told or ""
        if rows:
            table(list(rows.values()), "table")
            click.echo()
    names = ("reset", "seeded reset", "step", "render")
    costs = [f"{name} {found.cost_s[name] * 1e6:,.0f} µs" for name in names if name in found.cost_s]
    click.echo(f"{found.env}: {found.episodes} episodes, {found.steps} steps; {', '.join(costs)}")
    for line in found.notices:
        click.echo(f"noticed: {line}")
    click.echo("write:" if found.replays else "result:")
    for line in found.advice:
        click.echo(f"    {line}")


def _is_chain(result: ReplayResult) -> bool:
    return result.origin is not None and result.origin.startswith("chain")


class Watcher:
    """Prints results as they come, and a bar over frames when stderr is a terminal.

    Args:
        as_json: whether each is an object on stdout, too.
        only_failures: whether nothing is said of those that are exact, and the same reason once only.
    """

    def __init__(self, *, as_json: bool, only_failures: bool = False) -> None:
        self._as_json, self._only_failures = as_json, only_failures
        self._bar: ProgressBar[str] | None = None
        self._films = self._done = self._frames = self._total = 0
        self._began: float | None = None
        self._lines: TextIO = sys.stdout
        self._stack = ExitStack()
        self._alike: dict[str, list[str]] = {}  # by what was said of the first one, all of their names

    def __enter__(self) -> Watcher:
        if self._as_json and isinstance(sys.stdout, Stream):
            # some envs print (PyBullet its greeting, from C): that must not get between the lines
            self._lines = self._stack.enter_context(sys.stdout.alone())
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()
        self._end_bar()
        for said, (first, *others) in self._alike.items():
            if others:
                what = said.partition(" (")[0]
                click.echo(f"{_listed(others)}: {what}, for the same reason as episode {first}", err=True)

    def _end_bar(self) -> None:
        if self._bar is not None:
            self._bar.render_finish()
            self._bar = None

    def planned(self, frames: int, films: int) -> None:
        self._end_bar()
        self._films, self._done, self._frames, self._total, self._began = films, 0, 0, frames, None
        if sys.stderr.isatty() and frames:
            self._bar = click.progressbar(
                length=frames,
                label="frames",
                file=sys.stderr,
                show_eta=False,  # its own counts the time until the first frame, and remembers it
                show_pos=True,
                item_show_func=lambda said: said,
            )
            self._bar.render_progress()

    def waiting(self, what: str) -> None:
        self._end_bar()
        click.echo(what, err=True)

    def advanced(self, frames: int) -> None:
        if self._began is None:
            self._began, self._total = time.monotonic(), self._total - frames
        else:
            self._frames += frames
        if self._bar is not None:
            rate = self._frames / max(time.monotonic() - self._began, 1e-3)
            left = f", {rate:,.0f} frames/s, {_duration((self._total - self._frames) / rate)} left" if rate else ""
            self._bar.update(frames, f"{self._done} of {self._films} done{left}")

    def chained(self, done: int, total: int) -> None:
        if sys.stderr.isatty():
            click.echo(f"\r\033[Kre-executing what came before: {done} of {total} resets", nl=False, err=True)

    def raised(self, trace: str) -> None:
        if sys.stderr.isatty():
            click.echo("\r\033[K", nl=False, err=True)
        click.echo(trace, nl=False, err=True)

    def finished(self, result: ReplayResult) -> None:
        self._done += 1
        if self._as_json:
            print(json.dumps(result.to_json()), file=self._lines, flush=True)
        if result.ok and self._only_failures:
            return
        name = str(result.episode if result.episode is not None else result.address)
        what = f"{result.verdict}" + (f" by {result.origin}" if result.ok and _is_chain(result) else "")
        what += ", there already" if result.reused else ""
        what += f", {result.frames:,} frames" if result.verdict == "planned" else ""
        where = f" -> {result.path}" if result.path else ""
        why = "; ".join(filter(None, (result.error, result.cause)))
        said = f"{what}{where}" + (f" ({why})" if why else "")
        if self._only_failures:
            alike = self._alike.setdefault(said, [])
            alike.append(name)
            if len(alike) > 1:
                return
        name += f" and {len(result.episodes) - 1} more" if len(result.episodes) > 1 else ""
        if sys.stderr.isatty():
            click.echo("\r\033[K", nl=False, err=True)
        click.echo(f"episode {name}: {said}", err=True)
        if self._bar is not None:
            self._bar.render_progress()

    def foreseen(self, forecast: Forecast) -> None:
        if not forecast.films:
            click.echo(f"nothing to make; {forecast.there:,} there already", err=True)
            return
        how_long = "no time can be told" if forecast.seconds is None else f"about {_duration(forecast.seconds)}"
        told = f"{forecast.films:,} to make, {forecast.frames:,} frames, and {forecast.there:,} there already"
        click.echo(f"{told}: {how_long} ({forecast.basis})", err=True)


def _duration(seconds: float) -> str:
    minutes, left = divmod(math.ceil(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{left:02}"


def _listed(names: list[str]) -> str:
    """Names episodes, in order: neighbours by the first and the last of them, and of very many the first ones."""
    numbers = sorted(int(name) for name in names if name.isdigit())
    spans: list[list[int]] = []
    for number in numbers:
        if spans and number == spans[-1][-1] + 1:
            spans[-1][1:] = [number]
        else:
            spans.append([number])
    told = ["-".join(map(str, span)) for span in spans] + [name for name in names if not name.isdigit()]
    more = f" and others, {len(names):,} in all" if len(told) > _MOST_TOLD else ""
    return f"episode{'s' * (len(names) > 1)} {', '.join(told[:_MOST_TOLD])}{more}"
