"""What is whole of a damaged run and what is lost; and a clean copy. The run itself is only ever read."""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections import Counter
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from reenact import copying, layout
from reenact.archive import Archive
from reenact.errors import EpisodeNotFoundError, RunError, RunExistsError
from reenact.inspection import inspect
from reenact.run import Run

if TYPE_CHECKING:
    from collections.abc import Callable

    from reenact.inspection import Findings
    from reenact.table import Table

_LONGEST_WHY = 3  # reasons that a row tells; all of them stand in `lost`

State = Literal["complete", "lossy", "unreadable", "foreign"]


@dataclass(frozen=True, slots=True)
class SegmentReport:
    """What there is of one segment.

    Attributes:
        segment: its number; None where that can't be told.
        path: the file, and the group in a packed one.
        state: "complete"; "lossy"; "unreadable"; "foreign": of another run.
        kept: episodes that are whole.
        lost: (address, number, why) of those that are not; no number where even their row is lost.
        left: episodes that were left out when the file was packed.
        why: what is wrong, in one line; "" where nothing is.
    """

    segment: int | None
    path: Path
    state: State
    kept: int = 0
    lost: tuple[tuple[str, int | None, str], ...] = ()
    left: int = 0
    why: str = ""

    def to_json(self) -> dict[str, object]:
        """Returns it as `--json` prints it."""
        return {
            "segment": self.segment,
            "path": str(self.path),
            "state": self.state,
            "kept": self.kept,
            "lost": [{"address": address, "episode": number, "why": why} for address, number, why in self.lost],
            "left": self.left,
            "why": self.why,
        }


@dataclass(frozen=True, slots=True)
class RepairResult:
    """What there is of a run.

    Attributes:
        segments: a report each, by number.
        out: the folder with the clean copy, or None.
    """

    segments: tuple[SegmentReport, ...]
    out: Path | None = None

    @property
    def complete(self) -> bool:
        """Whether nothing is lost."""
        return all(segment.state == "complete" for segment in self.segments)

    @property
    def readable(self) -> bool:
        """Whether there is anything to keep."""
        return any(segment.state in ("complete", "lossy") for segment in self.segments)


def repair(
    run: str | PathLike[str],
    *,
    out: str | PathLike[str] | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> RepairResult:
    """Checks all of a run, and writes what is whole of it into a new folder.

    Rows, addresses and numbers stay what they are: what is lost keeps its place.

    Args:
        run: a run's folder, one segment, or a packed file.
        out: a new or empty folder for the copy; None: none is written.
        tell: is told, in a line each, what is being done that may take a while.

    Raises:
        RunNotFoundError: there is no run.
        RunExistsError: something lies in `out`.
        RunError: the run is still being written, or the copy can't be.
    """
    target = Path(out) if out is not None else None
    if target is not None and target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise RunExistsError(f"{target} is there already and not empty: --out takes a new folder")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the report says it all
        opened = Run(run, readable=False)
    tell(f"checking {opened.path}")
    findings = {table.number: inspect(table) for table in opened.tables}
    reports = _reports(opened, findings)
    result = RepairResult(tuple(reports))
    if target is None or not result.readable:
        return result
    live = [str(table.number) for table in opened.tables if table.alive]
    if live:
        raise RunError(f"{opened.path} is still being written (segment {', '.join(live)}): nothing to repair yet")
    _write(opened, findings, target, tell)
    return RepairResult(tuple(reports), target)


def _reports(run: Run, findings: dict[int, Findings]) -> list[SegmentReport]:
    reports = [_report(run, table, findings[table.number]) for table in run.tables]
    reports += [
        SegmentReport(_number(path), path, "unreadable", why=why.removeprefix(f"{path}: ").removeprefix(f"{path} "))
        for path, why in run.unreadable.items()
    ]
    reports += [
        SegmentReport(_number(path), path, "foreign", why=why.removeprefix(f"{path} is "))
        for path, why in run.foreign.items()
    ]
    return sorted(reports, key=lambda report: (report.segment is None, report.segment or 0, str(report.path)))


def _number(path: Path) -> int | None:
    digits = path.stem.rpartition("-")[2]
    return int(digits) if digits.isdigit() else None


def _report(run: Run, table: Table, found: Findings) -> SegmentReport:
    lost, resets = [], 0
    for fault in found.faults:
        if fault.index is None:
            resets += 1
            continue
        address = f"{table.number}.{fault.index}"
        try:
            number = run[address].number if fault.listed else None
        except EpisodeNotFoundError:
            number = None
        lost.append((address, number, fault.why))
    counts = Counter(why for _, _, why in lost)
    told = [why if len(counts) == 1 else f"{count} × {why}" for why, count in counts.most_common(_LONGEST_WHY)]
    if len(counts) > _LONGEST_WHY:
        told.append("…")
    if resets:
        told.append(f"{resets} reset{'s' * (resets != 1)} without a step lost")
    if found.rests:
        told.append(f"steps after {found.rests} end{'s' * (found.rests != 1)} damaged, which no chain goes through")
    if found.left:
        told.append(f"{found.left} episodes left out when it was packed")
    return SegmentReport(
        segment=table.number,
        path=table.reader.path / table.reader.group,
        state="lossy" if found.faults or found.rests else "complete",
        kept=found.kept,
        lost=tuple(lost),
        left=found.left,
        why="; ".join(told),
    )


def _write(run: Run, findings: dict[int, Findings], target: Path, tell: Callable[[str], None]) -> None:
    partial = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        partial.mkdir(parents=True)
    except OSError as error:
        raise RunError(f"can't write {target}: {error.strerror}: give another folder with --out") from error
    try:
        tell(f"writing {target}")
        for table in run.tables:
            path = partial / layout.SEGMENT_NAME.format(table.number)
            with Archive(path, target / path.name) as archive:
                copy = copying.copy(table, findings[table.number].codes, archive)
                archive.close()
            copy.check(path)
        (partial / layout.RUN_FILE).write_text(_run_file(run))
        _check(run, partial)
        if target.exists():
            target.rmdir()  # empty, or this fails
        partial.rename(target)
    except OSError as error:
        if isinstance(error, RunError):
            raise
        raise RunError(f"can't write {target}: {error.strerror}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _run_file(run: Run) -> str:
    """Returns the run's own file, or one that says as much as is known: a launch that goes on must say resume=True."""
    try:
        text = (run.folder / layout.RUN_FILE).read_text()
        if run.path.is_dir() and json.loads(text)["run"] == run.uuid:
            return text
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return json.dumps({"format": "reenact-run", "version": layout.VERSION, "run": run.uuid, "launch": {}})


def _check(run: Run, folder: Path) -> None:
    """Makes sure that each number stands for the same episode as before."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        copy = Run(folder)
    if not copy.same_episodes(run):
        raise RunError(f"{folder}: the episodes read back are not those of {run.path}")
