"""The commands: each parses, calls one function, prints.

What is for programs goes to stdout, everything for people to stderr. Exit codes: 0 all exact, 1 anything
not, 2 wrong use, 3 something is lost (pack, repair), 130 Ctrl-C, 143 SIGTERM. Rooms are imported inside the
commands, so that `--help` answers at once.
"""

from __future__ import annotations

import json
import math
import os
import signal
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from reenact.errors import ReenactError, RunNotFoundError

if TYPE_CHECKING:
    from collections.abc import Callable

    from click._termui_impl import ProgressBar

    from reenact.checking import Check
    from reenact.episode import ReplayResult
    from reenact.forecast import Forecast
    from reenact.run import Run

_EXACT, _NOT_EXACT, _WRONG_USE, _LOSSY, _SIGNALLED = 0, 1, 2, 3, 128
_HELP = {"help_option_names": ["-h", "--help"]}


class _EndedError(KeyboardInterrupt):
    """A signal asks the command to end, as a job scheduler's does: what a Ctrl-C cleans up is cleaned up."""


def _end(number: int, _frame: object) -> None:
    signal.signal(number, signal.SIG_IGN)  # a second one must not come between
    raise _EndedError(number)


class _Commands(click.Group):
    """Commands whose mistakes are told in one line."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        return _guarded(lambda: super(_Commands, self).main(*args, **{**kwargs, "standalone_mode": False}))


def _show_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: Any, **__: Any
) -> None:
    """Shows what reenact warns of in one line, and anybody else's warnings as Python does."""
    text = str(message)
    if text.startswith("reenact: "):
        click.echo(f"Warning: {text.removeprefix('reenact: ')}", err=True)
    else:
        click.echo(warnings.formatwarning(message, category, filename, lineno), nl=False, err=True)


def _guarded(call: Callable[[], Any]) -> Any:
    warnings.showwarning = _show_warning
    for name in ("SIGTERM", "SIGHUP") if threading.current_thread() is threading.main_thread() else ():
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:  # nohup has hang-ups ignored
            signal.signal(number, _end)
    if hasattr(os, "getuid"):
        # pygame asks for a Wayland screen even where it draws on none; libwayland would print an error each time
        os.environ.setdefault("XDG_RUNTIME_DIR", f"/run/user/{os.getuid()}")
    try:
        sys.exit(call() or _EXACT)
    except click.exceptions.Exit as end:
        sys.exit(end.exit_code)
    except (click.Abort, KeyboardInterrupt) as stop:
        click.echo("stopped", err=True)
        asked = stop.__cause__ if isinstance(stop, click.Abort) else stop
        sys.exit(_SIGNALLED + (asked.args[0] if isinstance(asked, _EndedError) else signal.SIGINT))
    except click.ClickException as mistake:
        if isinstance(mistake, click.exceptions.NoArgsIsHelpError):
            mistake.show()  # no mistake, but a question
        else:
            click.echo(f"Error: {mistake.format_message()}", err=True)
        sys.exit(_WRONG_USE)
    except ReenactError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(_WRONG_USE)
    except BrokenPipeError:
        sys.stderr.close()  # whoever read stdout has gone: nothing is wrong, and nothing can be said
        sys.exit(_NOT_EXACT)


_version = click.version_option(package_name="reenact", prog_name="reenact")


@click.group(cls=_Commands, context_settings=_HELP)
@_version
def reenact() -> None:
    """Logs every episode of a Gymnasium training run; turns any of them into a video afterwards."""


_RUN = click.argument("run", required=False, type=click.Path(path_type=Path))


def _selecting(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option("--marked", is_flag=True, help="Only those that were marked during the training."),
        click.option("--ended", metavar="HOW", help="Only terminated, truncated, interrupted or errored ones."),
        click.option("--where", metavar="TEXT", help='Only those for which it holds: "return > 200 and length < 50".'),
        click.option("--trigger", metavar="NAME", help="capped-cubic, or module:function of your own."),
        click.option("--last", metavar="N", type=click.IntRange(min=1), help="The last N that came to an end."),
        click.option("--percentile", metavar="LIST", help="By return: 10,50,90."),
        click.option("--median", is_flag=True, help="The one in the middle by return."),
        click.option("--worst", metavar="N", type=click.IntRange(min=1), help="The N lowest returns."),
        click.option("--best", metavar="N", type=click.IntRange(min=1), help="The N highest returns."),
        click.option("--every", metavar="N", type=click.IntRange(min=1), help="Episodes whose number N divides."),
        click.option("--episodes", metavar="LIST", help="0,250,-1 or 100:200:10 or 3.250 or all; they unite."),
    ):
        command = option(command)
    return command


def _reexecuting(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option("--json", "as_json", is_flag=True, help="One JSON object an episode, on stdout."),
        click.option("--tolerance", type=click.FloatRange(min=0), default=0.0, help="How far a reward may be off."),
        click.option("--trust", is_flag=True, help="Let a log that isn't yours import and run what it names."),
        click.option(
            "--import", "imports", metavar="PKG", multiple=True, help="Let it import this package; repeatable."
        ),
        click.option("--origin", metavar="NAME", help="Start by this alone: seed, rng, snapshot, chain, chain:N, …"),
        click.option("--env", metavar="CODE", help="module:factory or file.py:factory that makes the env."),
        click.option(
            "--jobs", metavar="N", type=click.IntRange(min=1), help="Processes at a time.  [default: the cores]"
        ),
    ):
        command = option(command)
    return command


def _json_object(_: click.Context, parameter: click.Parameter, text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    hint = parameter.opts[0]
    try:
        found = json.loads(text)
    except ValueError as error:
        raise click.BadParameter(f"expected a JSON object, found {text!r}: {error}", param_hint=hint) from error
    if not isinstance(found, dict):
        raise click.BadParameter(f"expected a JSON object, found {text!r}", param_hint=hint)
    return found


def _looking(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option("--draft", is_flag=True, help="MuJoCo without multisampling: faster, and other pixels."),
        click.option("--reel", is_flag=True, help="All of them one after another, in one video."),
        click.option("--grid", metavar="RxC", help="Side by side, in so many rows and columns: 2x2."),
        click.option("--hold", metavar="S", type=float, default=0.0, help="Seconds more of each episode's last frame."),
        click.option("--rewards", is_flag=True, help="The curve of the rewards below the frames."),
        click.option("--label", is_flag=True, help="Episode, step, reward and return below the frames."),
        click.option(
            "--render-kwargs",
            metavar="JSON",
            callback=_json_object,
            help='Arguments for the env, to draw otherwise: {"camera_name": "top"}.',
        ),
        click.option("--size", metavar="WxH", help="The video's size: 640x480."),
        click.option("--steps", metavar="A:B", help="Only these frames of each episode: 400:600, :100, -100:."),
        click.option("--speed", metavar="X", type=float, default=1.0, help="X times as fast."),
    ):
        command = option(command)
    return command


@reenact.command(context_settings=_HELP)  # a console script of its own, too
@_version
@_RUN
@_selecting
@click.option("--follow", is_flag=True, help="Wait for what is yet to come, until the training has ended.")
@click.option("--step-trigger", metavar="NAME", help="module:function; starts a clip after such env steps.")
@click.option("--video-length", metavar="FRAMES", type=click.IntRange(min=0), default=0, help="Frames a clip.")
@click.option(
    "--video-folder",
    type=click.Path(path_type=Path),
    help="Where videos go.  [default: RUN/videos; of a packed file, videos beside it]",
)
@click.option("--name-prefix", help="Of the videos' names.  [default: the run's name]")
@click.option("--fps", type=float, help="Frames a second.  [default: the env's render_fps, else 30]")
@_looking
@click.option("--overwrite", is_flag=True, help="Replace files that were made from something else.")
@click.option("--no-diverged", is_flag=True, help="Leave no marked video of a diverged replay.")
@click.option("--dry-run", is_flag=True, help="Make nothing; say what would be made, and how long that will take.")
@click.option("--format", default="mp4", help="mp4, webm, gif, or frames: a folder of PNGs.  [default: mp4]")
@click.option("--lossless", is_flag=True, help="Pixel-exact mp4 or WebM; larger, under a name of its own.")
@click.option("--quality", metavar="0-100", type=int, help="Of an mp4 or WebM; 100 is best.  [default: 55]")
@click.option("--preset", metavar="NAME", help="Of an mp4 or WebM: ultrafast … veryslow.  [default: veryfast]")
@_reexecuting
def replay(
    run: Path | None, as_json: bool, no_diverged: bool, follow: bool, jobs: int | None, **options: Any
) -> int:  # click's
    """Make videos of chosen episodes of RUN (the newest under runs/), each compared with the log.

    Without any choice, those that RecordVideo films: 0, 1, 8, 27, … 1000, 2000, …
    """
    from reenact import headless, render, workers

    headless.choose()
    options["jobs"] = jobs or workers.cores()
    with _Watcher(as_json=as_json) as watcher:
        # one that is followed may not be there yet
        found = run if run is not None and follow else _run(run)
        results = render.replay(found, diverged=not no_diverged, follow=follow, observer=watcher, **options)
    return _code(results)


@reenact.command()
@_RUN
@_selecting
@click.option("--rendered", is_flag=True, help="Draw every frame, and throw it away.")
@_reexecuting
def verify(run: Path | None, as_json: bool, jobs: int | None, **options: Any) -> int:  # click's
    """Re-execute and compare episodes of RUN without making videos; all of them unless told."""
    from reenact import headless, render, workers

    headless.choose()
    options["jobs"] = jobs or workers.cores()
    with _Watcher(as_json=as_json, only_failures=True) as watcher:
        results = render.verify(_run(run), observer=watcher, **options)
    exact = sum(result.ok for result in results)
    click.echo(f"{exact} of {len(results)} episodes exact", err=True)
    return _code(results)


@reenact.command()
@click.argument("folder", default="runs", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="One JSON object a run.")
def ls(folder: Path, as_json: bool) -> int:  # click's
    """List the runs under FOLDER (runs/), the newest last."""
    from reenact import listing

    found = listing.runs(folder)
    if not found:
        raise RunNotFoundError(f"no run lies under {folder}: record one, or try: reenact demo")
    _print(found, "json" if as_json else "table")
    return _EXACT


@reenact.command()
@_RUN
@_selecting
@click.option("--tail", metavar="N", type=click.IntRange(min=1), help="Only the last N.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object an episode.")
@click.option("--csv", "as_csv", is_flag=True, help="Comma-separated values.")
def show(run: Path | None, tail: int | None, as_json: bool, as_csv: bool, **options: Any) -> int:  # click's
    """Show the episodes of RUN (the newest under runs/) as a table."""
    from reenact import probe

    probe.begin()
    from reenact import listing

    if as_json and as_csv:
        raise click.UsageError("--json and --csv: give one of them")
    opened = _run(run)
    rows = listing.episodes(opened, tail=tail, **options)
    _print(rows, "json" if as_json else "csv" if as_csv else "table")
    if not rows and len(opened):
        click.echo("no episode is selected", err=True)
    for line in listing.notes(opened):
        click.echo(line, err=True)
    return _EXACT


@reenact.command()
@click.argument("env_id", required=False)
@click.option("--kwargs", metavar="JSON", callback=_json_object, help="Arguments for gymnasium.make.")
@click.option("--env", metavar="CODE", help="module:factory or file.py:factory that makes the env, instead of an id.")
@click.option(
    "--episodes", metavar="N", type=click.IntRange(min=2), default=5, help="How many to record.  [default: 5]"
)
@click.option("--json", "as_json", is_flag=True, help="All that was found, as one JSON object.")
def check(
    env_id: str | None, kwargs: dict[str, Any] | None, env: str | None, episodes: int, as_json: bool
) -> int:  # click's
    """Record a few random episodes of ENV_ID, and see whether they replay; before a training, in a minute."""
    from reenact import checking

    found = checking.check(
        env_id, kwargs=kwargs, env=env, episodes=episodes, tell=lambda line: click.echo(line, err=True)
    )
    if as_json:
        click.echo(json.dumps(found.to_json()))
    else:
        _print_check(found)
    return _EXACT if found.replays else _NOT_EXACT


def _print_check(found: Check) -> None:
    for title, tallies in (("origin", found.tallies), ("with reseed=True", found.reseeded)):
        rows: dict[str, dict[str, object]] = {}
        for one in tallies:
            row = rows.setdefault(one.rung, {title: one.rung, "undrawn": "-", "drawn": "-", "where it differs": ""})
            if one.tried:
                row["drawn" if one.rendered else "undrawn"] = f"{one.exact} of {one.tried}"
            row["where it differs"] = row["where it differs"] or one.told or ""
        if rows:
            _print(list(rows.values()), "table")
            click.echo()
    names = ("reset", "seeded reset", "step", "render")
    costs = [f"{name} {found.cost_s[name] * 1e6:,.0f} µs" for name in names if name in found.cost_s]
    click.echo(f"{found.env}: {found.episodes} episodes, {found.steps} steps; {', '.join(costs)}")
    for line in found.notices:
        click.echo(f"noticed: {line}")
    click.echo("write:" if found.replays else "result:")
    for line in found.advice:
        click.echo(f"    {line}")


@reenact.command()
@_RUN
@click.option("-o", "--out", metavar="FILE", type=click.Path(path_type=Path), help="[default: RUN.h5, beside RUN]")
@_selecting
@click.option("--overwrite", is_flag=True, help="Replace a file that is there.")
@click.option("--env", metavar="CODE", help="module:factory or file.py:factory that makes the env.")
@click.option("--import", "imports", metavar="PKG", multiple=True, help="Let a log that isn't yours import this.")
@click.option("--trust", is_flag=True, help="Let a log that isn't yours import and run what it names.")
@click.option("--json", "as_json", is_flag=True, help="What was packed, as one JSON object.")
def pack(run: Path | None, as_json: bool, **options: Any) -> int:  # click's
    """Pack RUN (the newest under runs/) into one compressed file that opens, replays and verifies like it.

    With chosen episodes, these are re-executed to find what they start from, and only that is packed with them.
    """
    from reenact import headless, packing

    headless.choose()
    found = packing.pack(_run(run), tell=_tell, **options)
    if as_json:
        click.echo(json.dumps(found.to_json()))
    else:
        some = f" of {found.episodes:,}" if found.kept < found.episodes else ""
        others = f" ({found.needed:,} for the chosen to start from)" if found.needed else ""
        sizes = f"{found.bytes_after / 1e6:,.3f} MB, from {found.bytes_before / 1e6:,.3f}"
        click.echo(f"{found.path}: {found.kept:,}{some} episodes{others}, {found.steps:,} steps, {sizes}")
    for line in found.notes:
        _tell(line)
    if found.lost:
        _tell(f"damaged, and so not in it: {len(found.lost)} episodes, {found.lost[0]} the first; see reenact repair")
    return _LOSSY if found.lost or found.unreadable else _EXACT


def _tell(line: str) -> None:
    click.echo(line, err=True)


@reenact.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--out", metavar="DIR", type=click.Path(path_type=Path), help="Write what is whole into this new folder.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a segment, with all that is lost.")
def repair(run: Path, out: Path | None, as_json: bool) -> int:  # click's
    """Check all of RUN against its checksums, and write a clean copy; RUN itself is never written to.

    Exit codes: 0 complete, 3 something is lost, 1 nothing can be read.
    """
    from reenact import repairing

    found = repairing.repair(run, out=out, tell=_tell)
    rows = [segment.to_json() for segment in found.segments]
    if not as_json:
        rows = [row | {"lost": len(segment.lost)} for row, segment in zip(rows, found.segments, strict=True)]
        rows = [{name: row[name] for name in ("segment", "state", "kept", "lost", "why")} for row in rows]
    _print(rows, "json" if as_json else "table")
    if found.out is not None:
        _tell(f"written: {found.out}")
    return _EXACT if found.complete else _LOSSY if found.readable else _NOT_EXACT


@reenact.command()
def demo() -> int:
    """Record 501 CartPole episodes, then make videos of 0, 250 and 500; under a minute."""
    from reenact import demo as room
    from reenact import headless

    headless.choose()
    results = room.demo(lambda line: click.echo(line, err=True))
    for result in results:
        click.echo(result.error or f"episode {result.episode}: {result.verdict}, {result.path}")
    return _code(results)


def main() -> None:
    """The console script `reenact`."""
    reenact.main()


def replay_main() -> None:
    """The console script `replay`: `reenact replay`."""
    _guarded(lambda: replay.main(prog_name="replay", standalone_mode=False))


def _run(path: Path | None) -> Run:
    from reenact.finding import find_runs
    from reenact.run import open_run

    if path is not None:
        return open_run(path)
    found = find_runs(Path("runs"))
    if not found:
        raise RunNotFoundError("no run lies under runs/: give a run's folder, or try: reenact demo")
    click.echo(f"run: {found[0]}", err=True)
    return open_run(found[0])


def _code(results: list[ReplayResult]) -> int:
    if not results:
        click.echo("no episode is selected", err=True)
        return _NOT_EXACT
    return _EXACT if all(result.ok or result.verdict == "planned" for result in results) else _NOT_EXACT


def _print(rows: list[dict[str, object]], form: str) -> None:
    if form == "json":
        for row in rows:
            click.echo(json.dumps(row))
        return
    if form == "csv":
        import csv

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


def _is_chain(result: ReplayResult) -> bool:
    return result.origin is not None and result.origin.startswith("chain")


class _Watcher:
    """Prints results as they come, and a bar over frames when stderr is a terminal."""

    def __init__(self, *, as_json: bool, only_failures: bool = False) -> None:
        self._as_json, self._only_failures = as_json, only_failures
        self._bar: ProgressBar[str] | None = None
        self._films = self._done = self._frames = self._total = 0
        self._began: float | None = None
        self._lines: TextIO = sys.stdout

    def __enter__(self) -> _Watcher:
        if self._as_json and sys.stdout is sys.__stdout__:
            # some envs print (PyBullet its greeting, from C): that must not get between the lines
            self._lines.flush()
            self._lines = os.fdopen(os.dup(1), "w")
            os.dup2(2, 1)
        return self

    def __exit__(self, *error: object) -> None:
        if self._lines is not sys.stdout:
            sys.stdout.flush()
            os.dup2(self._lines.fileno(), 1)
            self._lines.close()
        self._end_bar()

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
        if sys.stderr.isatty():
            click.echo("\r\033[K", nl=False, err=True)
        name = f"episode {result.episode if result.episode is not None else result.address}"
        name += f" and {len(result.episodes) - 1} more" if len(result.episodes) > 1 else ""
        what = f"{result.verdict}" + (f" by {result.origin}" if result.ok and _is_chain(result) else "")
        what += ", there already" if result.reused else ""
        what += f", {result.frames:,} frames" if result.verdict == "planned" else ""
        where = f" -> {result.path}" if result.path else ""
        why = "; ".join(filter(None, (result.error, result.cause)))
        click.echo(f"{name}: {what}{where}" + (f" ({why})" if why else ""), err=True)
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
