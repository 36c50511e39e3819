"""The training script itself, as code that a replay needs: envs and wrappers are often defined in it.

It is loaded as multiprocessing's spawn would load it, under another name than `__main__`. A script whose
training stands outside of an `if __name__ == "__main__":` is not loaded: that would train again.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import sys
import warnings
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reenact import usercode
from reenact.errors import RecipeError, SelectionError

if TYPE_CHECKING:
    from types import ModuleType

NAMES = frozenset({"__main__", "__mp_main__"})
"""What the script's module is called in the launch's top process, and in workers that it spawned."""
_TRAINS = frozenset({"Recorder", "VectorRecorder", "recording", "reset", "step", "learn"})
"""Calls that only a training makes."""

loading: ContextVar[bool] = ContextVar("reenact_loading", default=False)
"""Set while a script is loaded: a recorder that is made meanwhile shows that its training is not guarded."""


class Unguarded(BaseException):
    """Raised by a recorder that a script makes while it is loaded; no script catches it by accident."""


def describe() -> dict[str, str | None] | None:
    """Returns what a recipe keeps of the running script: its path, module and SHA-256; None where there is no file."""
    module = _main()
    file = getattr(module, "__file__", None)
    if file is None or not Path(file).is_file():
        return None
    path = Path(file).resolve()
    spec = getattr(module, "__spec__", None)
    name = spec.name if spec is not None and spec.name not in NAMES else None
    return {"path": str(path), "module": name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def training_line(path: Path) -> int | None:
    """Returns the line at which importing a script would start its training; None where nothing does.

    Raises:
        SyntaxError: it is no Python.
    """
    return _first_call(ast.parse(path.read_bytes()))


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
            raise RecipeError(
                f"{getattr(module, '__file__', 'the script')} defines no {qualified!r} any more: {_WAY_OUT}"
            )
        found = getattr(found, part)
    return found


_WAY_OUT = "replay with --env module:factory"
_loaded: dict[Path, ModuleType] = {}


def _main() -> ModuleType | None:
    return sys.modules.get("__mp_main__") or sys.modules.get("__main__")


def _module(qualified: str, main: object) -> ModuleType:
    running = _main()
    here = describe()
    if not isinstance(main, dict):  # recorded in a notebook or a console: only there is it to be found
        if running is not None and here is None and hasattr(running, qualified.partition(".")[0]):
            return running
        raise RecipeError(f"{qualified} was defined in a notebook or a console, and is not there: {_WAY_OUT}")
    path = Path(str(main.get("path")))
    if running is not None and here is not None and here["path"] == str(path):
        return running
    if path not in _loaded:
        _loaded[path] = _load(path, main)
    return _loaded[path]


def _load(path: Path, main: dict[str, Any]) -> ModuleType:
    if not path.is_file():
        raise RecipeError(f"the training script {path}, which defines a part of the env, is not there: {_WAY_OUT}")
    try:
        line = training_line(path)
    except SyntaxError as error:
        raise RecipeError(f"the training script {path} can't be read: {error}") from error
    if line is not None:
        raise RecipeError(unguarded(path, line))
    if hashlib.sha256(path.read_bytes()).hexdigest() != main.get("sha256"):
        warnings.warn(f"reenact: {path} has changed since the log was recorded", UserWarning, stacklevel=2)
    token, arguments = loading.set(True), sys.argv
    sys.argv = [str(path)]
    try:
        if main.get("module"):
            return importlib.import_module(str(main["module"]))
        return usercode.load_file(path)
    except Unguarded as error:
        raise RecipeError(unguarded(path, None)) from error
    except SystemExit as error:
        raise RecipeError(f"{path} ends the program when it is loaded (sys.exit): {_WAY_OUT}") from error
    except (ModuleNotFoundError, SelectionError) as error:
        raise RecipeError(f"the training script {path} can't be loaded: {error}") from error
    finally:
        loading.reset(token)
        sys.argv = arguments


def unguarded(path: Path, line: int | None) -> str:
    """Says that a script is not loaded, since that would start its training."""
    at = f" (line {line})" if line is not None else ""
    return (
        f"{path} defines a part of the env and starts its training when it is loaded{at}: put the training under "
        f'`if __name__ == "__main__":`, move the env to a module of its own, or {_WAY_OUT}'
    )


def _first_call(tree: ast.Module) -> int | None:
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    waiting: list[ast.AST] = [node for node in tree.body if not isinstance(node, _DEFINITIONS)]
    visited: set[str] = set()
    lines = []
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and _is_guard(node.test):
            waiting += node.orelse
            continue
        if isinstance(node, ast.Call):
            name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            if name in _TRAINS:
                lines.append(node.lineno)
            elif isinstance(node.func, ast.Name) and name in functions and name not in visited:
                visited.add(name)
                waiting += functions[name].body
        waiting += ast.iter_child_nodes(node)
    return min(lines, default=None)


_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom)


def _is_guard(test: ast.expr) -> bool:
    if not isinstance(test, ast.Compare) or len(test.comparators) != 1:
        return False
    sides = (test.left, test.comparators[0])
    names = any(isinstance(side, ast.Name) and side.id == "__name__" for side in sides)
    return names and any(isinstance(side, ast.Constant) and side.value == "__main__" for side in sides)
