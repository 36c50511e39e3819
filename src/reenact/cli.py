"""The commands: each parses, calls one function, prints.

What is for programs goes to stdout, everything for people to stderr. Rooms are imported inside the commands, so that
`--help` answers at once.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from reenact import printing
from reenact.console import EXACT, LOSSY, NOT_EXACT, Commands, guarded
from reenact.errors import RunNotFoundError
from reenact.options import RUN, json_object, looking, reexecuting, selecting

if TYPE_CHECKING:
    from reenact.episode import ReplayResult
    from reenact.run import Run

_HELP = {"help_option_names": ["-h", "--help"]}
_version = click.version_option(package_name="reenact", prog_name="reenact")


@click.group(cls=Commands, context_settings=_HELP)
@_version
def reenact() -> None:
    """Logs every episode of a Gymnasium training run; turns any of them into a video afterwards."""


@reenact.command(context_settings=_HELP)  # a console script of its own, too
@_version
@RUN
@selecting
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
@looking
@click.option("--overwrite", is_flag=True, help="Replace files that were made from something else.")
@click.option("--no-diverged", is_flag=True, help="Leave no marked video of a diverged replay.")
@click.option("--dry-run", is_flag=True, help="Make nothing; say what would be made, and how long that will take.")
@click.option("--format", default="mp4", help="mp4, webm, gif, or frames: a folder of PNGs.  [default: mp4]")
@click.option("--lossless", is_flag=True, help="Pixel-exact mp4 or WebM; larger, under a name of its own.")
@click.option("--quality", metavar="0-100", type=int, help="Of an mp4 or WebM; 100 is best.  [default: 55]")
@click.option("--preset", metavar="NAME", help="Of an mp4 or WebM: ultrafast … veryslow.  [default: veryfast]")
@reexecuting
def replay(
    run: Path | None, as_json: bool, no_diverged: bool, follow: bool, jobs: int | None, **options: Any
) -> int:  # click's
    """Make videos of chosen episodes of RUN (the newest under runs/), each compared with the log.

    Without any choice, those that RecordVideo films: 0, 1, 8, 27, … 1000, 2000, …
    """
    _begin_to_open()
    from reenact import headless, render, workers

    headless.choose()
    options["jobs"] = jobs or workers.cores()
    with printing.Watcher(as_json=as_json) as watcher:
        # one that is followed may not be there yet
        found = run if run is not None and follow else _run(run)
        results = render.replay(found, diverged=not no_diverged, follow=follow, observer=watcher, **options)
    return _code(results)


@reenact.command()
@RUN
@selecting
@click.option("--rendered", is_flag=True, help="Draw every frame, and throw it away.")
@reexecuting
def verify(run: Path | None, as_json: bool, jobs: int | None, **options: Any) -> int:  # click's
    """Re-execute and compare episodes of RUN without making videos; all of them unless told."""
    _begin_to_open()
    from reenact import headless, render, workers

    headless.choose()
    options["jobs"] = jobs or workers.cores()
    with printing.Watcher(as_json=as_json, only_failures=True) as watcher:
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
    printing.table(found, "json" if as_json else "table")
    return EXACT


@reenact.command()
@RUN
@selecting
@click.option("--tail", metavar="N", type=click.IntRange(min=1), help="Only the last N.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object an episode.")
@click.option("--csv", "as_csv", is_flag=True, help="Comma-separated values.")
def show(run: Path | None, tail: int | None, as_json: bool, as_csv: bool, **options: Any) -> int:  # click's
    """Show the episodes of RUN (the newest under runs/) as a table."""
    _begin_to_open()
    from reenact import listing

    if as_json and as_csv:
        raise click.UsageError("--json and --csv: give one of them")
    opened = _run(run)
    rows = listing.episodes(opened, tail=tail, **options)
    printing.table(rows, "json" if as_json else "csv" if as_csv else "table")
    if not rows and len(opened):
        click.echo("no episode is selected", err=True)
    for line in listing.notes(opened):
        click.echo(line, err=True)
    return EXACT


@reenact.command()
@click.argument("env_id", required=False)
@click.option("--kwargs", metavar="JSON", callback=json_object, help="Arguments for gymnasium.make.")
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
        printing.check(found)
    return EXACT if found.replays else NOT_EXACT


@reenact.command()
@RUN
@click.option("-o", "--out", metavar="FILE", type=click.Path(path_type=Path), help="[default: RUN.h5, beside RUN]")
@selecting
@click.option("--overwrite", is_flag=True, help="Replace a file that is there.")
@click.option("--env", metavar="CODE", help="module:factory or file.py:factory that makes the env.")
@click.option("--import", "imports", metavar="PKG", multiple=True, help="Let a log that isn't yours import this.")
@click.option("--trust", is_flag=True, help="Let a log that isn't yours import and run what it names.")
@click.option("--json", "as_json", is_flag=True, help="What was packed, as one JSON object.")
def pack(run: Path | None, as_json: bool, **options: Any) -> int:  # click's
    """Pack RUN (the newest under runs/) into one compressed file that opens, replays and verifies like it.

    With chosen episodes, these are re-executed to find what they start from, and only that is packed with them.
    """
    _begin_to_open()
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
    return LOSSY if found.lost or found.unreadable else EXACT


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
    printing.table(rows, "json" if as_json else "table")
    if found.out is not None:
        _tell(f"written: {found.out}")
    return EXACT if found.complete else LOSSY if found.readable else NOT_EXACT


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
    guarded(lambda: replay.main(prog_name="replay", standalone_mode=False))


def _begin_to_open() -> None:
    """Has what tries files first get ready, while the rooms that a command needs are imported."""
    from reenact import probe

    probe.begin()


def _run(path: Path | None) -> Run:
    from reenact.finding import find_runs
    from reenact.opening import open_run

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
        return NOT_EXACT
    return EXACT if all(result.ok or result.verdict == "planned" for result in results) else NOT_EXACT
