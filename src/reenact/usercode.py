"""The user's own code, named on the command line or in a log: "package.module:name" or "path/to/file.py:name".

A file is loaded as multiprocessing's spawn loads a script: as `__mp_main__`, so that what stands under
`if __name__ == "__main__":` does not run. What would train when it is loaded is refused: it would train again.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import importlib
import importlib.util
import inspect
import multiprocessing
import runpy
import sys
import sysconfig
from contextvars import ContextVar
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from reenact.errors import SelectionError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_TRAINS = frozenset({"Recorder", "VectorRecorder", "recording", "reset", "step", "learn", "train", "main"})
"""Calls that make a module a program, where they are not under its guard."""
_RUN_NAME = "__mp_main__"
_LONG = 20

loading: ContextVar[bool] = ContextVar("reenact_loading", default=False)
"""Set while code is loaded: a recorder that is made meanwhile shows that its training is not guarded."""


class Unguarded(BaseException):
    """Raised by a recorder that a module makes while it is loaded; no module catches it by accident."""


def load(name: str) -> Any:
    """Imports a callable; the current folder is importable.

    An error inside the user's module keeps its traceback.

    Raises:
        SelectionError: there is no such module, or no such callable in it, or loading it would train.
    """
    module_name, _, attribute = name.rpartition(":")
    if not all([*attribute.split("."), *(module_name.split(".") if not module_name.endswith(".py") else [])]):
        raise SelectionError(f"{name!r} names no code: expected module:name or path/to/file.py:name")
    module = load_file(Path(module_name)) if module_name.endswith(".py") else _from_here(module_name)
    found = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            there = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
            raise SelectionError(f"{module_name} has no {attribute!r}; it has {', '.join(there[:10]) or 'nothing'}")
        found = getattr(found, part)
    if not callable(found):
        raise SelectionError(f"{name} is a {type(found).__name__}, expected something that can be called")
    return found


def factory(env: str | Callable[..., Any]) -> Callable[..., Any]:
    """Returns the user's own way to make an env, given by name or as it is.

    Raises:
        SelectionError: there is no such code, or it can't be called as it will be.
    """
    found: Callable[..., Any] = load(env) if isinstance(env, str) else env
    why = unfit(found, ("render_mode",))
    if why is not None:
        name = env if isinstance(env, str) else getattr(env, "__qualname__", repr(env))
        raise SelectionError(f"{name} can't make the env: expected a callable that takes render_mode=…, found {why}")
    return found


def unfit(function: object, names: Iterable[str]) -> str | None:
    """Says why something can't be called with these keywords and no more; None: it can, or only a call can tell."""
    if not callable(function):
        return f"a {type(function).__name__}"
    try:
        signature = inspect.signature(function, follow_wrapped=False)  # a wrapper may take what it does not pass on
    except (TypeError, ValueError):  # of C, without one
        return None
    try:
        signature.bind(**dict.fromkeys(names))
    except TypeError as error:
        return f"{getattr(function, '__name__', type(function).__name__)}{_shown(signature)}: {error}"
    return None


def _shown(signature: inspect.Signature) -> str:
    """Returns a signature without annotations and long defaults, which make lines of it."""
    plain = [
        one.replace(annotation=one.empty, default=one.empty if len(repr(one.default)) > _LONG else one.default)
        for one in signature.parameters.values()
    ]
    return f"({', '.join(map(str, plain))})"


def _from_here(name: str) -> Any:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise SelectionError(f"there is no module {name!r} here or among the installed packages") from error
        raise


def import_module(name: str) -> ModuleType:
    """Imports a module by name.

    Raises:
        ImportError: there is none, or it imports what isn't there.
        SelectionError: importing it would train, or end the program.
    """
    if name in sys.modules:
        return sys.modules[name]
    source = source_of(name)
    # what is installed was made to be imported, whatever its calls are named
    with _guarded(None if source is None or is_installed(source) else source, name):
        return importlib.import_module(name)


_INSTALLED = ("stdlib", "platstdlib", "purelib", "platlib")
"""Of `sysconfig`'s paths: "data" is the prefix, below which one's own folders may lie."""


def is_installed(path: Path) -> bool:
    """Whether a file belongs to Python or an installed package, and is not the user's own."""
    installed = {Path(sysconfig.get_paths()[name]).resolve() for name in _INSTALLED}
    return bool(installed & set(path.resolve().parents))


def source_of(module: str) -> Path | None:
    """Returns the file of Python that a module's name, or a file's path, leads to; None where it leads to none."""
    if module.endswith(".py"):
        return Path(module)
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return None
    origin = spec.origin if spec is not None else None
    return Path(origin) if origin is not None and origin.endswith(".py") else None


_loaded: dict[tuple[Path, str], ModuleType | str] = {}
"""Files by path and SHA-256, or why they were refused: each runs once, though each env made anew asks for it."""


def load_file(path: Path, module: str | None = None) -> ModuleType:
    """Loads a Python file as a module; its folder is importable.

    Args:
        path: the file.
        module: the name that it was run under (`python -m`): its own imports may be relative to it.

    Raises:
        SelectionError: there is no such file, or loading it would train, or end the program.
    """
    if not path.is_file():
        raise SelectionError(f"there is no file {path}")
    path = path.resolve()
    key = path, sha256(path)
    if key not in _loaded:
        try:
            _loaded[key] = _run(path, module)
        except SelectionError as error:
            _loaded[key] = str(error)
    found = _loaded[key]
    if isinstance(found, str):
        raise SelectionError(found)
    return found


def sha256(path: Path) -> str:
    """Returns the SHA-256 of a file, in hexadecimal digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _run(path: Path, module: str | None) -> ModuleType:
    folder = str(path.parents[module.count(".") if module is not None else 0])
    if folder not in sys.path:
        sys.path.insert(0, folder)  # as running it would have it
    vars(sys.modules["__main__"]).setdefault("__getattr__", _of_loaded)
    arguments, sys.argv = sys.argv, [str(path)]
    try:
        with _guarded(path, str(path)):
            if module is not None:
                if (source_of(module) or path).resolve() != path:
                    raise SelectionError(f"{path} is not what is found here as {module}")
                content = runpy.run_module(module, run_name=_RUN_NAME, alter_sys=True)
            else:
                content = runpy.run_path(str(path), run_name=_RUN_NAME)
    finally:
        sys.argv = arguments
    found = ModuleType(_RUN_NAME)
    found.__dict__.update(content)
    if multiprocessing.parent_process() is None:  # in a spawned worker its own script is called so
        sys.modules[_RUN_NAME] = found  # where its classes say that they are defined
    return found


def _of_loaded(name: str) -> Any:
    """Looks for what `__main__` lacks in the file loaded last: it may have registered envs as "__main__:MyEnv"."""
    found = sys.modules.get(_RUN_NAME)
    if found is None or found is sys.modules["__main__"] or name.startswith("__"):
        raise AttributeError(f"module '__main__' has no attribute {name!r}")
    return getattr(found, name)


@contextlib.contextmanager
def _guarded(source: Path | None, name: str) -> Iterator[None]:
    """Refuses code that would train, or end the program, while it is loaded."""
    if source is not None and (line := training_line(source)) is not None:
        raise SelectionError(_refusal(f"{source} (line {line})"))
    token = loading.set(True)
    try:
        yield
    except Unguarded as error:
        raise SelectionError(_refusal(name)) from error
    except SystemExit as error:
        raise SelectionError(f"{name} ends the program when it is loaded (sys.exit)") from error
    finally:
        loading.reset(token)


def _refusal(where: str) -> str:
    return (
        f"{where} would start its training when it is loaded: put that under "
        'if __name__ == "__main__":, or move what is needed of it to a module of its own'
    )


# ---- what loading it would run


def training_line(path: Path) -> int | None:
    """Returns the line at which loading a file would start its training; None where nothing is seen that does.

    Raises:
        SelectionError: it is no Python.
    """
    tree = _parsed(path)
    bodies: dict[str, list[ast.AST]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            bodies.setdefault(node.name, []).extend(node.body)
        elif isinstance(node, ast.ClassDef):
            makers = [part for part in node.body if isinstance(part, ast.FunctionDef) and part.name == "__init__"]
            bodies.setdefault(node.name, []).extend(part for maker in makers for part in maker.body)
    lines: list[int] = []
    waiting: list[ast.AST] = [tree]
    while waiting:
        for node in _executed([waiting.pop()]):
            if isinstance(node, ast.Call):
                name, its_own = _called(node.func)
                if name in _TRAINS and not its_own:
                    lines.append(node.lineno)
                waiting += bodies.pop(name, [])
    return min(lines, default=None)


def defined_names(path: Path) -> set[str]:
    """Returns the names that a file's module has once it is loaded.

    Raises:
        SelectionError: it is no Python.
    """
    names: set[str] = set()
    for node in _executed([_parsed(path)]):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.alias):
            names.add((node.asname or node.name).partition(".")[0])
    return names


def calls_when_loaded(path: Path, line: int) -> bool:
    """Whether loading a file makes a call that stands on a line of it, or goes over it.

    Raises:
        SelectionError: it is no Python.
    """
    calls = (node for node in _executed([_parsed(path)]) if isinstance(node, ast.Call))
    return any(node.lineno <= line <= (node.end_lineno or node.lineno) for node in calls)


def _parsed(path: Path) -> ast.Module:
    try:
        return ast.parse(path.read_bytes())
    except (SyntaxError, ValueError) as error:  # the latter for a null byte, before Python 3.12
        raise SelectionError(f"{path} can't be read as Python: {error}") from error


def _called(function: ast.expr) -> tuple[str, bool]:
    """Returns the name of what is called, and whether it belongs to `self`, as what an env's `__init__` calls."""
    name = getattr(function, "attr", "")
    while isinstance(function, ast.Attribute | ast.Call | ast.Subscript):
        function = function.func if isinstance(function, ast.Call) else function.value
    root = function.id if isinstance(function, ast.Name) else ""
    return name or root, root in ("self", "super")


def _executed(nodes: Iterable[ast.AST]) -> Iterator[ast.AST]:
    """Yields what runs when a module is loaded: neither what is guarded nor the bodies of functions."""
    waiting = list(nodes)
    while waiting:
        node = waiting.pop()
        yield node
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            waiting += [*node.decorator_list, *node.args.defaults, *filter(None, node.args.kw_defaults)]
        elif isinstance(node, ast.If):
            waiting += _branches(node)
        elif not isinstance(node, ast.Lambda):
            waiting += ast.iter_child_nodes(node)


def _branches(node: ast.If) -> list[ast.AST]:
    tests = node.test.values if isinstance(node.test, ast.BoolOp) and isinstance(node.test.op, ast.And) else [node.test]
    for test in tests:
        match test:
            case ast.Compare(ast.Name("__name__"), [ast.Eq()], [ast.Constant("__main__")]):
                return list(node.orelse)
            case ast.Compare(ast.Constant("__main__"), [ast.Eq()], [ast.Name("__name__")]):
                return list(node.orelse)
            case ast.Compare(ast.Name("__name__"), [ast.NotEq()], [ast.Constant("__main__")]):
                return list(node.body)
    return [node.test, *node.body, *node.orelse]
