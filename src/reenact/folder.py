"""Who may write into a run's folder: the launch that made it, and later ones that said `resume=True`.

`run.json` names the run (a UUID that all its segments bear) and the launch that made it; it comes into
being whole, or not at all, and never changes. A launch that resumes the run leaves a file of its own.
"""

from __future__ import annotations

import json
import os
import time
import uuid
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from reenact import layout
from reenact.errors import RunError, RunExistsError

if TYPE_CHECKING:
    from reenact.process import Process


def default_run(env_id: str, launch: Process) -> Path:
    """Returns `runs/<env id>-<date>-<time>`, the same for every process of a launch."""
    stamp = datetime.fromtimestamp(launch.started_at()).astimezone().strftime("%Y%m%d-%H%M%S")
    name = f"{env_id.replace('/', '-').replace(':', '-')}-{stamp}"
    folder, tries = Path("runs") / name, 1
    while not _is_ours(folder, launch):
        tries += 1
        folder = Path("runs") / f"{name}-{tries}"
    return folder


def check_free(run: Path, launch: Process, *, resume: bool) -> None:
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
    raise RunExistsError(
        f"{run} already holds a run of an earlier launch "
        f"({len(segments)} segment{'s' * (len(segments) != 1)}, "
        f"{size:.1f} MB, last written {when}): give another run=, or resume=True to go on with it"
    )


def join(run: Path, launch: Process, *, resume: bool) -> str:
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
        if found["launch"] != asdict(launch):
            check_free(run, launch, resume=resume)
            _create(run / layout.LAUNCH_FILE.format(launch.id), {"launch": asdict(launch)})
        return str(found["run"])
    except RunError:
        raise
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise RunError(f"can't record into {run}: {error}: give another run=") from error


def _is_ours(run: Path, launch: Process) -> bool:
    """Whether the folder is new, empty of runs, or has been joined by this launch."""
    if not (run / layout.RUN_FILE).exists():
        return not any(run.glob(layout.SEGMENT_GLOB)) if run.is_dir() else not run.exists()
    if (run / layout.LAUNCH_FILE.format(launch.id)).exists():
        return True
    try:
        return bool(json.loads((run / layout.RUN_FILE).read_text())["launch"] == asdict(launch))
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _create(path: Path, content: dict[str, object]) -> dict[str, object]:
    """Makes a JSON file with one process's content, all of it at once, and returns what is there now."""
    if not path.exists():
        partial = path.with_name(f".{path.name}.{os.getpid()}.{time.monotonic_ns()}.part")
        partial.write_text(json.dumps(content))
        try:
            os.link(partial, path)
        except FileExistsError:
            pass  # another process of this launch was first
        except OSError:  # a file system without hard links
            if not path.exists():
                partial.rename(path)
        finally:
            partial.unlink(missing_ok=True)
    found: dict[str, object] = json.loads(path.read_text())
    return found
