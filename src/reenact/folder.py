"""Who may write into a run's folder: the launch that made it, and later ones that said `resume=True`.

`run.json` names the run (a UUID that all its segments bear) and the launch that made it; it comes into
being whole, or not at all, and never changes. A launch that joins the run later leaves a file of its own.
"""

from __future__ import annotations

import json
import os
import time
import uuid
import warnings
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from reenact import layout
from reenact.errors import RunError, RunExistsError
from reenact.naming import give_name
from reenact.process import Launch, this_launch

if TYPE_CHECKING:
    from collections.abc import Iterator

_MOUNTS = Path("/proc/self/mountinfo")
_NETWORK = ("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p")
_LOCAL_FUSE = ("fuse.fuse-overlayfs",)  # what lies under a container's root


def default_run(env_id: str, launch: Launch, root: Path = Path("runs"), started: float | None = None) -> Path:
    """Returns `runs/<env id>-<date>-<time>`, the same for every process of a launch.

    Args:
        env_id: of the env that is recorded.
        launch: that records.
        root: the folder of runs.
        started: when the launch began, in seconds since 1970, where that is known.
    """
    began = launch.started_at() if started is None else started
    stamp = datetime.fromtimestamp(began).astimezone().strftime("%Y%m%d-%H%M%S")
    name = f"{env_id.replace('/', '-').replace(':', '-')}-{stamp}"
    folder, tries = root / name, 1
    while not _is_ours(folder, launch):
        tries += 1
        folder = root / f"{name}-{tries}"
    return folder


def check_free(run: Path, launch: Launch, *, resume: bool) -> None:
    """Looks, without making anything, whether this launch may write into the folder.

    Raises:
        RunExistsError: an earlier launch wrote it, and `resume` is not given.
        RunError: it is no folder.
    """
    if run.exists() and not run.is_dir():
        raise RunError(f"{run} is a file; a run is a folder: give another path as run=")
    if resume or _is_ours(run, launch):
        return
    segments = sorted(run.glob(layout.SEGMENT_GLOB))
    size = sum(path.stat().st_size for path in segments) / 1e6
    latest = max((path.stat().st_mtime for path in segments), default=run.stat().st_mtime)
    when = datetime.fromtimestamp(latest).astimezone().strftime("%Y-%m-%d %H:%M")
    again = any(launch.in_process_of(other) for other in _launches(run))
    raise RunExistsError(
        f"{run} already holds a run of an earlier {'start of a cell in this session' if again else 'launch'} "
        f"({len(segments)} segment{'s' * (len(segments) != 1)}, "
        f"{size:.1f} MB, last written {when}): give another run=, or resume=True to go on with it"
    )


def join(run: Path, launch: Launch, *, resume: bool) -> str:
    """Makes the folder, or joins it, and returns the run's UUID.

    Raises:
        RunExistsError: an earlier launch wrote it, and `resume` is not given.
        RunError: it can't be made or written to.
    """
    check_free(run, launch, resume=resume)
    try:
        run.mkdir(parents=True, exist_ok=True)
        mine = {
            "format": "reenact-run",
            "version": layout.VERSION,
            "run": str(uuid.uuid4()),
            "launch": asdict(launch),
        }
        found = _create(run / layout.RUN_FILE, mine)
        if found["run"] == mine["run"]:
            _warn_of_network(run)
        if found["launch"] != asdict(launch):
            check_free(run, launch, resume=resume)
            _create(run / layout.LAUNCH_FILE.format(launch.id), {"launch": asdict(launch)})
        return str(found["run"])
    except RunError:
        raise
    except (OSError, KeyError, TypeError, ValueError) as error:
        why = getattr(error, "strerror", None) or error  # the file that it names is one of ours that never came to be
        raise RunError(f"can't record into {run}: {why}: give another run=") from error


def others_at_work(run: Path) -> bool:
    """Whether a training script that records into a folder still runs on this machine; notebooks don't count.

    Nor does the caller's own launch.
    """
    mine = this_launch()
    return any(
        launch.host == mine.host and not launch.execution and not launch.in_process_of(mine) and launch.is_alive(0)
        for launch in _launches(run)
    )


def _is_ours(run: Path, launch: Launch) -> bool:
    """Whether the folder is new, empty of runs, or this launch's; another cell of a notebook may join it, too."""
    has_segments = run.is_dir() and any(run.glob(layout.SEGMENT_GLOB))
    if not (run / layout.RUN_FILE).exists():
        # in this order: another process of the launch may make the folder at any moment
        return not has_segments and (not run.exists() or run.is_dir())
    launches = list(_launches(run))
    if launch in launches:
        return True
    if not has_segments:  # killed before it recorded anything
        return not any(other.is_alive(run.stat().st_mtime_ns) for other in launches)
    mine = [other for other in launches if launch.in_process_of(other)]
    return bool(mine) and all(launch.is_other_cell_than(other) for other in mine)


def _launches(run: Path) -> Iterator[Launch]:
    """Yields those that have recorded into a folder, as far as their files can be read."""
    for path in (run / layout.RUN_FILE, *run.glob(layout.LAUNCH_FILE.format("*"))):
        try:
            yield Launch(**json.loads(path.read_text())["launch"])
        except (OSError, ValueError, KeyError, TypeError):
            continue


def _warn_of_network(run: Path) -> None:
    kind = network(run, _MOUNTS.read_text() if _MOUNTS.exists() else "")
    if kind is not None:
        warnings.warn(
            f"reenact: {run} lies on a network file system ({kind}): what is recorded is safe there, but reading it "
            "while the training runs may fail or come late; record to a local disk, and move the run when it is closed",
            UserWarning,
            stacklevel=2,
        )


def network(path: Path, mounts: str) -> str | None:
    """Returns the type of the network file system that a path lies on, or None.

    Args:
        path: an existing one.
        mounts: what `/proc/self/mountinfo` says.
    """
    best, kind, path = -1, "", path.resolve()
    for line in mounts.splitlines():
        fields, _, rest = line.partition(" - ")
        point = Path(fields.split()[4].encode().decode("unicode_escape"))  # a blank is \040
        if path.is_relative_to(point) and len(point.parts) >= best:
            best, kind = len(point.parts), rest.split()[0]
    far = kind in _NETWORK or (kind.startswith("fuse.") and kind not in _LOCAL_FUSE)
    return kind if far else None


def _create(path: Path, content: dict[str, object]) -> dict[str, object]:
    """Makes a JSON file with one process's content, all of it at once, and returns what is there now."""
    if not path.exists():
        partial = path.with_name(f".{path.name}.{os.getpid()}.{time.monotonic_ns()}.part")
        partial.write_text(json.dumps(content))
        try:
            give_name(partial, path)
        except FileExistsError:
            pass  # another process of this launch was first
        finally:
            partial.unlink(missing_ok=True)
    found: dict[str, object] = json.loads(path.read_text())
    return found
