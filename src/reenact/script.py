"""The training script itself, as code that a replay needs: envs and wrappers are often defined in it."""

from __future__ import annotations

import functools
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reenact import usercode
from reenact.errors import RecipeError, SelectionError

if TYPE_CHECKING:
    from types import FrameType, ModuleType

NAMES = frozenset({"__main__", "__mp_main__"})
"""What the script's module is called: in the launch's top process; in workers that it spawned, and when loaded."""
_WAY_OUT = "replay with --env module:factory"


def describe() -> dict[str, str | None] | None:
    """Returns what a recipe keeps of the running script: its path, module and SHA-256; None where there is no file."""
    module = sys.modules["__main__"]
    file = getattr(module, "__file__", None)
    if file is None or not Path(file).is_file():
        return None
    path = Path(file).resolve()
    spec = getattr(module, "__spec__", None)
    name = spec.name if spec is not None and spec.name not in NAMES else None
    return {"path": str(path), "module": name, "sha256": _sha256(path)}


@functools.cache  # as it was when first asked for: it may be edited while it runs
def _sha256(path: Path) -> str:
    return usercode.sha256(path)


def obstacle(main: dict[str, str | None] | None, names: set[str]) -> str | None:
    """Returns why a replay won't find something in the script; None where it will.

    Args:
        main: as `describe` gives it.
        names: what is to be found in it.
    """
    if main is None:
        return "a notebook or a console, and replays only there: move it to a module of its own"
    path = Path(str(main["path"]))
    try:
        line = usercode.training_line(path)
        missing = sorted(names - usercode.defined_names(path))
    except SelectionError as error:  # edited since it was started
        return f"the training script, and {error}"
    if line is not None:
        return (
            f"the training script, and {path} starts its training when it is loaded (line {line}): put that under "
            f'if __name__ == "__main__":, move the env to a module of its own, or {_WAY_OUT}'
        )
    if missing:
        return (
            f"the training script, and {path} defines {', '.join(missing)} only under its "
            f'if __name__ == "__main__":, where no replay looks: move it above that, or {_WAY_OUT}'
        )
    return None


def would_come_here() -> bool:
    """Whether the running script, loaded by another process, would make the very call that it is in now."""
    main, here = sys.modules["__main__"], describe()
    frame: FrameType | None = sys._getframe()  # noqa: SLF001  # as `inspect` itself looks up the stack
    while frame is not None and not (frame.f_code.co_name == "<module>" and frame.f_globals is vars(main)):
        frame = frame.f_back
    if here is None or frame is None:
        return False
    try:
        return usercode.calls_when_loaded(Path(str(here["path"])), frame.f_lineno)
    except SelectionError:  # edited since it was started
        return True


def find(qualified: str, main: object) -> Any:
    """Returns what is defined in the training script under a name.

    Args:
        qualified: such as "MyEnv" or "MyEnv.make".
        main: as `describe` gave it when the log was recorded.

    Raises:
        RecipeError: the script is not there, would train, or has no such name.
    """
    module = _module(qualified, main)
    found: Any = module
    for part in qualified.split("."):
        if not hasattr(found, part):
            where = getattr(module, "__file__", "the script")
            raise RecipeError(f"{where} defines no {qualified!r} any more: {_WAY_OUT}")
        found = getattr(found, part)
    return found


def _module(qualified: str, main: object) -> ModuleType:
    running, here = sys.modules["__main__"], describe()
    if not isinstance(main, dict):  # recorded in a notebook or a console: only there is it to be found
        if here is None and hasattr(running, qualified.partition(".")[0]):
            return running
        raise RecipeError(f"{qualified} was defined in a notebook or a console, and is not there: {_WAY_OUT}")
    path = Path(str(main.get("path")))
    if not path.is_file():
        raise RecipeError(f"the training script {path}, which defines a part of the env, is not there: {_WAY_OUT}")
    ours = here is not None and here["path"] == str(path)
    if (_sha256(path) if ours else usercode.sha256(path)) != main.get("sha256"):
        _warn_of_change(path)
    if ours:
        return running
    try:
        return usercode.load_file(path, main.get("module"))
    except (SelectionError, ImportError) as error:
        raise RecipeError(f"a part of the env is defined in the training script: {error}; or {_WAY_OUT}") from error


@functools.cache  # once, not for each env that is made
def _warn_of_change(path: Path) -> None:
    warnings.warn(f"reenact: {path} has changed since the log was recorded", UserWarning, stacklevel=2)
