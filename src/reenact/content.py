"""What the user's own code that makes an env is known by: equal for the same code alone.

A package is known by all of its files of Python, a module or a script by its own; what is installed by its name alone.
Nothing is imported for it.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.machinery
import importlib.util
import json
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from reenact import recipe, script, usercode
from reenact.process import this_process
from reenact.signing import is_mine

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from reenact.films import Film
    from reenact.recipe import EnvFactory
    from reenact.stage import Stage


def of_factory(env: str | EnvFactory | None, job: str, *, here: bool) -> str | None:
    """Returns what a user's own way to make the env is known by.

    What no name leads back to (a lambda, a function of the running script or in another one, a bound method), or no
    file, is only this job's: the next may mean something else by it.

    Args:
        env: as it was given; None: the recipe is followed.
        job: tells the job from any other.
        here: whether this process makes the envs, by what it has loaded.
    """
    if env is None:
        return None
    if not isinstance(env, str):
        module, name = getattr(env, "__module__", None), getattr(env, "__qualname__", None)
        if module is None or name is None or module in script.NAMES or _found(module, name) is not env:
            return f"{name or type(env).__qualname__} of job {job}"
        env = f"{module}:{name}"
    known = _known(env.rpartition(":")[0], (), here=here)
    return f"{env} of job {job}" if known is None else f"{env} {known}".rstrip()


def of_recipe(stage: Stage, job: str, *, here: bool) -> str | None:
    """Returns what the user's own code that a recipe names is known by; None: it names none.

    Args:
        stage: holds the recipe.
        job: as above.
        here: as above.
    """
    raw = recipe.read(stage.recipe)
    try:
        named = {module for module, _ in recipe.named(raw)}
        paths, main = [str(path) for path in raw.get("paths", [])], raw.get("main")
        mine = is_mine(stage.recipe, stage.signature)
    except (KeyError, TypeError, AttributeError, ValueError):
        return None  # it is damaged, and can't be followed either
    found = {}
    for name in sorted(named - {""}):
        module = str(main.get("path")) if name in script.NAMES and isinstance(main, dict) else name
        if module.endswith(".py") and not mine:
            return f"{module} of job {job}"  # a stranger's may name any file
        found[module] = _known(module, paths if mine else (), here=here)
    unknown = [module for module, known in found.items() if known is None]
    if unknown:
        return f"{', '.join(unknown)} of job {job}"
    return ", ".join(f"{module} {known}" for module, known in found.items() if known) or None


class Known:
    """What the user's own code that makes a job's envs is known by: as it was when the job first came upon it.

    Args:
        job: tells the job from any other.
        here: whether this process makes the envs.
    """

    def __init__(self, job: str, *, here: bool) -> None:
        self._job, self._here = job, here
        self._told: dict[str, str | None] = {}  # by recipe

    def films(self, wanted: Iterable[Film]) -> list[Film]:
        """Returns the films with it."""
        return [replace(film, code=self._of(film)) for film in wanted]

    def _of(self, film: Film) -> str | None:
        stages = {stage.recipe: stage for stage in (part.episode.stage for part in film.parts)}
        for text in stages.keys() - self._told.keys():
            self._told[text] = of_recipe(stages[text], self._job, here=self._here)
        return "; ".join(sorted({told for text in stages if (told := self._told[text]) is not None})) or None


def _known(module: str, paths: Sequence[str], *, here: bool) -> str | None:
    """Returns what a module, or a file's path, is known by; "" for what is installed, None where it can't be told.

    Args:
        module: its name, or the path of a file of Python.
        paths: where it may lie, beside where modules are looked for anyway.
        here: as above.
    """
    if module.endswith(".py"):
        path = Path(module).resolve()
        running = (script.describe() or {}).get("path") == str(path)
        files, loaded = {path.name: path} if path.is_file() else None, running
    else:
        module = module.partition(".")[0]
        files, loaded = _files(module, paths), here and module in sys.modules
    try:
        if files is None or (loaded and any(path.stat().st_ctime_ns > _began_ns() for path in files.values())):
            return None
        contents = [(name, usercode.sha256(path)) for name, path in sorted(files.items())]
    except OSError:  # one has gone meanwhile, or may not be read
        return None
    return f"sha256:{hashlib.sha256(json.dumps(contents).encode()).hexdigest()}" if files else ""


@functools.cache
def _began_ns() -> int:
    """Returns when this process began, ns since 1970: what was written to a file later may not be what it has loaded.

    To the clock tick, and then one more: nothing is loaded in a process's first hundredth of a second, which is
    about what lies between writing a file and starting a program.
    """
    ticks = this_process().started
    if not ticks or not hasattr(time, "CLOCK_BOOTTIME"):
        return time.time_ns()  # the system doesn't tell
    ago_s = time.clock_gettime(time.CLOCK_BOOTTIME) - (ticks + 1) / os.sysconf("SC_CLK_TCK")
    return time.time_ns() - int(ago_s * 1e9)


def _files(package: str, paths: Sequence[str]) -> dict[str, Path] | None:
    """Returns the files that a module or package has, by name; {} for an installed one, None where it is not found."""
    spec = None
    with contextlib.suppress(ImportError, ValueError):  # the latter: it is there, and nobody knows from where
        spec = importlib.util.find_spec(package) or importlib.machinery.PathFinder.find_spec(package, list(paths))
    if spec is None:
        return None
    if spec.origin in ("built-in", "frozen"):
        return {}
    folders = [Path(folder) for folder in spec.submodule_search_locations or ()]
    roots = folders or [Path(str(spec.origin))]
    if all(usercode.is_installed(root) for root in roots):
        return {}
    if not folders:
        return {roots[0].name: roots[0]} if roots[0].is_file() else None
    return {str(path.relative_to(folder)): path for folder in folders for path in _python_in(folder)}


def _python_in(folder: Path) -> Iterator[Path]:
    """Yields the files of Python in a package's folder, but for hidden ones, and for whole environments."""
    for where, inner, names in os.walk(folder):
        inner[:] = [
            name for name in inner if not name.startswith(".") and not (Path(where) / name / "pyvenv.cfg").exists()
        ]
        yield from (path for name in names if name.endswith(".py") and (path := Path(where) / name).is_file())


def _found(module: str, name: str) -> object:
    found: object = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return found
