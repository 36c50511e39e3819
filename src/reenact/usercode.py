"""The user's own code, named on the command line: "package.module:name" or "path/to/file.py:name"."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reenact.errors import SelectionError

if TYPE_CHECKING:
    from types import ModuleType


def load(name: str) -> Any:
    """Imports a callable; the current folder is importable.

    An error inside the user's module keeps its traceback.

    Raises:
        SelectionError: there is no such module, or no such callable in it.
    """
    module_name, _, attribute = name.rpartition(":")
    if not module_name or not attribute:
        raise SelectionError(f"{name!r} names no code: expected module:name or path/to/file.py:name")
    module = load_file(Path(module_name)) if module_name.endswith(".py") else _from_name(module_name)
    found = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            there = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
            raise SelectionError(f"{module_name} has no {attribute!r}; it has {', '.join(there[:10]) or 'nothing'}")
        found = getattr(found, part)
    if not callable(found):
        raise SelectionError(f"{name} is a {type(found).__name__}, expected something that can be called")
    return found


def _from_name(name: str) -> Any:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise SelectionError(f"there is no module {name!r} here or among the installed packages") from error
        raise


def load_file(path: Path) -> ModuleType:
    """Loads a Python file as a module, under another name than `__main__`; its folder is importable.

    Raises:
        SelectionError: there is no such file.
    """
    if not path.is_file():
        raise SelectionError(f"there is no file {path}")
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)  # as running the script would have it
    # not "__main__": what stands under that guard is the training, and must not run
    name = f"__reenact_{path.stem}__"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise SelectionError(f"{path} can't be loaded as Python")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
