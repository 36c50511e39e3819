"""What other processes have to find to make an env: the user's own factory, by its name, and what a script defines."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import TYPE_CHECKING

from reenact import recipe, script, usercode
from reenact.errors import SelectionError

if TYPE_CHECKING:
    from reenact.logged import Episode
    from reenact.recipe import EnvFactory

_WAY_OUT = "give it as module:factory or path/to/file.py:factory, or use jobs=1"


def name_of(env: EnvFactory) -> str | EnvFactory:
    """Returns what other processes make the env by: a name where it is defined in the running script.

    Raises:
        SelectionError: no other process can find it.
    """
    name = str(getattr(env, "__qualname__", repr(env)))
    if getattr(env, "__module__", None) in script.NAMES:
        return _in_script(name)
    try:
        packed = pickle.dumps(env)
    except Exception as error:
        raise SelectionError(f"no other process can be given env={name} ({error}): {_WAY_OUT}") from error
    if any(main.encode() in packed for main in script.NAMES):
        raise SelectionError(
            f"env={name} holds what the running script defines, which no other process has: {_WAY_OUT}"
        )
    return env


def _in_script(name: str) -> str:
    main = script.describe()
    if main is None:
        raise SelectionError(
            f"env={name} is defined in a notebook or a console, which no other process has: {_WAY_OUT}"
        )
    path = Path(str(main["path"]))
    if not all(part.isidentifier() for part in name.split(".")):
        raise SelectionError(f"env={name} has no name in {path} that another process could find it by: {_WAY_OUT}")
    if script.would_come_here() or usercode.training_line(path) is not None:
        raise SelectionError(
            f"env={name} is defined in {path}, which would do all over again what it does when another process loads "
            f'it: put that under if __name__ == "__main__":, or {_WAY_OUT}'
        )
    if name.partition(".")[0] not in usercode.defined_names(path):
        raise SelectionError(
            f"{path} defines env={name} only under its guard, where no other process looks: {_WAY_OUT}"
        )
    return f"{path}:{name}"


def is_only_here(episode: Episode) -> bool:
    """Whether an episode's env is made of what the running script or session defines, and no other process can load.

    Such a script has no guard: loaded elsewhere, it would do all over again what it does here.
    """
    raw = recipe.read(str(episode.attributes.get("recipe", "{}")))
    if "main" not in raw or raw.get("factory") is not None:
        return False
    here = script.describe()
    if here is None or not isinstance(raw["main"], dict):
        return here is None and not isinstance(raw["main"], dict)
    if raw["main"].get("path") != here["path"]:
        return False
    return script.would_come_here() or script.obstacle(here, set()) is not None
