"""Runs and episodes as rows of plain values, for tables, CSV and JSON."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Unpack

import numpy as np

from reenact import layout
from reenact.episode import finite
from reenact.errors import DamagedError
from reenact.finding import last_written
from reenact.packed import read_pack
from reenact.reader import is_file
from reenact.run import Run
from reenact.selection import Episodes, Picks, Trigger, callable_trigger, select

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_MOST_LIVE = 8
"""Running episodes that are told one by one: a vector env has as many as lanes."""


def runs(folder: Path) -> list[dict[str, object]]:
    """Lists the runs at or below a folder, packed ones among them, the one last written last."""
    found: list[dict[str, object]] = []
    latest = last_written(folder) | {path: path.lstat().st_mtime for path in _packed(folder)}
    for path in sorted(latest, key=lambda path: (latest[path], path)):
        files = [path] if path.is_file() else path.glob("*.h5")
        size = round(sum(file.lstat().st_size for file in files) / 1e6, 3)
        try:
            run = Run(path)
        except DamagedError as error:
            row = dict.fromkeys(("env", "episodes", "steps", "mean return"))
            found.append({"run": str(path), **row, "MB": size, "state": f"unreadable: {error}"})
            continue
        segments = run.segments
        states = {segment.state for segment in segments}
        state = next(state for state in ("live", "killed", "closed") if state in states)
        mean = float(run.returns.mean()) if len(run) else float("nan")
        found.append(
            {
                "run": str(path),
                "env": ",".join(sorted({segment.env_id for segment in segments})),
                "episodes": len(run),
                "steps": int(run.lengths.sum()),
                "mean return": finite(round(mean, 3)),
                "MB": size,
                "state": state,
            }
        )
    return found


def _packed(folder: Path) -> Iterator[Path]:
    """Yields the packed files at or below a folder; other HDF5 files that lie there are none of reenact's business."""
    for path in folder.rglob("*.h5") if folder.is_dir() else ():
        if layout.segment_number(path.name) is None and is_file(path):
            with contextlib.suppress(DamagedError):
                if read_pack(path) is not None:
                    yield path


def episodes(
    run: Run,
    episodes: Episodes = None,
    *,
    trigger: str | Trigger | None = None,
    tail: int | None = None,
    **picks: Unpack[Picks],
) -> list[dict[str, object]]:
    """Lists episodes of a run, from its table alone; `picks` select, as everywhere."""
    numbers = select(run, episodes, trigger=callable_trigger(trigger), **picks)
    numbers = numbers[-tail:] if tail else numbers
    columns = {
        "length": run.lengths,
        "return": run.returns,
        "elapsed": run.elapsed,
        "ended": run.ended,
        "started": run.started.astype("datetime64[ms]"),
        "segment": run.segment_numbers,
        "index": run.segment_indices,
        "lane": run.lanes,
    }
    seeds, labels = run.seeds, run.labels
    any_label, any_lane = bool((labels != "").any()), bool((columns["lane"] >= 0).any())
    info = {name: run.info(name) for name in run.info_keywords}
    found = []
    for number in numbers:
        row: dict[str, object] = {
            "episode": number,
            "address": f"{columns['segment'][number]}.{columns['index'][number]}",
            "ended": str(columns["ended"][number]),
            "length": int(columns["length"][number]),
            "return": finite(float(columns["return"][number])),
            "seed": None if np.ma.getmaskarray(seeds)[number] else int(seeds[number]),
            "elapsed": float(columns["elapsed"][number]),
            "started": f"{columns['started'][number]}Z",
        }
        if any_lane:
            row["lane"] = int(columns["lane"][number])
        if any_label:
            row["label"] = labels[number]
        row |= {name: finite(float(values[number])) for name, values in info.items()}
        found.append(row)
    return found


def notes(run: Run) -> list[str]:
    """Says what the table can't: how much there is in all, what still runs, which segments were killed."""
    segments = len(run.segments)
    lines = [
        f"{len(run)} episodes, {int(run.lengths.sum())} steps, "
        f"in {segments} segment{'s' * (segments != 1)} of {run.path}"
    ]
    lines += [
        f"live: segment {e.segment}{f' lane {e.lane}' if e.lane >= 0 else ''} is {e.length} steps into an episode, "
        f"return {e.return_:g} so far"
        for e in run.live[:_MOST_LIVE]
    ]
    if len(run.live) > _MOST_LIVE:
        lines.append(f"live: {len(run.live) - _MOST_LIVE} more episodes")
    kept = int(run.kept.sum())
    if kept < len(run):
        why = run.pack.selection if run.pack is not None and run.pack.selection else "what was whole"
        lines.append(f"the steps of {kept} of them are here: {run.path} was made with {why}")
    killed = [str(segment.number) for segment in run.segments if segment.state == "killed"]
    if killed:
        lines.append(f"killed: segment {', '.join(killed)}; what was committed is above")
    return lines
