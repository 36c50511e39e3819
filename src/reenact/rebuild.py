"""How a recipe is followed when a replay begins.

One's own log (its signature holds) imports what its recipe names. A stranger's imports nothing: its env comes
from the local registry or from a package in `strangers.TABLE`, its wrappers from Gymnasium or these.
"""

from __future__ import annotations

import json
import re
import sys
import warnings
from typing import TYPE_CHECKING, Any

import gymnasium as gym
from gymnasium.envs.registration import EnvSpec

from reenact import jsontags, script, usercode
from reenact.errors import RecipeError, ReenactError, SelectionError, UntrustedError
from reenact.recipe import STAND_IN, WITHOUT_EFFECT, Env, class_name, wrappers_of
from reenact.strangers import NONE, TRUSTED, Permissions, refuse_names, register, untrusted

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_RESERVED = frozenset({"id", "render_mode", "max_episode_steps", "disable_env_checker"})
"""What `gymnasium.make` takes for itself: no recipe has these among the env's kwargs."""

_MOST_LANES = 1 << 16
_CALLABLE = re.compile(r'"\$callable": "([^"]*)"')
_NAME = re.compile(r"\w+(\.\w+)*:\w+(\.\w+)*")


def rebuild(
    text: str,
    *,
    mine: bool,
    render_mode: str | None,
    permissions: Permissions = NONE,
    kwargs: Mapping[str, Any] | None = None,
) -> Env:
    """Makes the env that a recipe describes, as it stood under the recorder.

    Args:
        text: the recipe, as JSON.
        mine: whether its signature holds; if not, only Gymnasium and the packages in `strangers.TABLE` are imported.
        render_mode: "rgb_array" ("ansi" is taken where the env has that alone), "ansi", or None not to render.
        permissions: what else a stranger's recipe may have imported.
        kwargs: the caller's own arguments for the env, over the recipe's; dicts in them are merged, too.

    Raises:
        UntrustedError: it would import what a stranger's log may not.
        RecipeError: it can't be followed, or the env has no such render mode.
    """
    raw = _checked(text)
    recipe = _opened(raw, mine=mine, permissions=permissions)
    if permissions.trust and not mine:
        warnings.warn(f"reenact: trusted, though not recorded by you: it runs {_code_of(raw)}", stacklevel=2)
    if raw.get("factory") is not None:
        made: Env = recipe.factory()(render_mode=render_mode, **(kwargs or {}))
        return made
    try:
        return recipe.make(render_mode, kwargs or {})
    except (ReenactError, gym.error.DependencyNotInstalled):
        raise
    except Exception as error:
        if mine or kwargs:
            raise  # the user's own code, or arguments
        what = f"{type(error).__name__}: {error}"
        raise RecipeError(
            f"{raw['id']!r} can't be made as this log, not recorded by you, says: {what!r:.200}"
        ) from error


def refusal(text: str, kwargs: Mapping[str, Any], *, mine: bool, permissions: Permissions = NONE) -> str | None:
    """Says why what a recipe describes can't be made with more arguments, as far as that can be told without doing so.

    Args:
        text: the recipe, as JSON.
        kwargs: the caller's own arguments for the env, over the recipe's.
        mine: as `rebuild` takes it.
        permissions: the same.

    Raises:
        UntrustedError: as `rebuild` does.
        RecipeError: the same.
    """
    raw = _checked(text)
    recipe = _opened(raw, mine=mine, permissions=permissions)
    if raw.get("factory") is not None:
        return usercode.unfit(recipe.factory(), ["render_mode", *kwargs])
    if isinstance(raw.get("vector"), int):
        return None  # Gymnasium makes it in its own way
    spec = recipe.spec()
    # with a render mode or without: Gymnasium makes up for a class that takes none
    forms = [{**raw["kwargs"], **kwargs}, {**raw["kwargs"], **kwargs, "render_mode": None}]
    told = [usercode.unfit(_creator(spec), form) for form in forms]
    return told[0] if all(told) else None


def _opened(raw: dict[str, Any], *, mine: bool, permissions: Permissions) -> _Recipe:
    if mine:  # from where they were, after all that is importable anyway
        sys.path += [path for path in raw.get("paths", []) if path not in sys.path]
    return _Recipe(raw, mine=mine, permissions=permissions)


class _Recipe:
    """A recipe's parts, turned into objects as far as its reader lets it."""

    def __init__(self, raw: dict[str, Any], *, mine: bool, permissions: Permissions) -> None:
        self._raw, self._free = raw, mine or permissions.trust
        self._imports = permissions.imports
        self._importable = TRUSTED | {name.partition(".")[0] for name in permissions.imports}

    def factory(self) -> Callable[..., Any]:
        """Imports the factory that stands in for all the rest; a stranger's can't be one."""
        name = str(self._raw["factory"])
        if not self._free:
            raise UntrustedError(untrusted(f"the factory {name!r}"))
        found: Callable[..., Any] = self.load(name)
        why = usercode.unfit(found, ("render_mode",))
        if why is not None:
            raise RecipeError(
                f"{name!r} can't make the env: expected a callable that takes render_mode=…, found {why}; {STAND_IN}"
            )
        return found

    def make(self, render_mode: str | None, given: Mapping[str, Any]) -> Env:
        """Makes the env with the wrappers that the recipe has, and what arguments are given besides."""
        if isinstance(self._raw.get("vector"), int):
            batch: Env = self._make_batch(render_mode, given)
            return batch
        spec = self.spec()
        bare = EnvSpec(spec.id, entry_point=spec.entry_point, order_enforce=False, disable_env_checker=True)
        kwargs = _merged(self.arguments(self._raw["kwargs"]), given)
        modes = _render_modes(spec)
        if render_mode == "rgb_array" and text_alone(modes):
            render_mode = "ansi"
        if render_mode is not None and modes is not None and render_mode not in modes:
            raise RecipeError(
                f"{spec.id} has no render_mode {render_mode!r}, only {', '.join(map(str, modes)) or 'none'}"
            )
        env = gym.make(bare, render_mode=render_mode, **kwargs) if render_mode else gym.make(bare, **kwargs)
        try:
            return self.wrapped(env)
        except BaseException:
            env.close()
            raise

    def _make_batch(self, render_mode: str | None, given: Mapping[str, Any]) -> Any:
        """Makes a vector env that has no single ones in it."""
        raw = self._raw
        env_id, entry_point = str(raw["id"]), raw.get("entry_point")
        if self._free and isinstance(entry_point, str) and entry_point.startswith("__main__:"):
            spec = EnvSpec(env_id, vector_entry_point=self.load(entry_point))
        else:
            spec = self.spec()
        if spec.vector_entry_point is None and self._free and isinstance(entry_point, str):
            spec = EnvSpec(env_id, vector_entry_point=entry_point)
        kwargs = _merged(self.arguments(raw["kwargs"]), given)
        if raw.get("max_episode_steps") is not None:
            kwargs["max_episode_steps"] = int(raw["max_episode_steps"])
        if render_mode is not None:
            kwargs["render_mode"] = render_mode
        try:
            made: Any = gym.make_vec(spec, raw["vector"], "vector_entry_point", **kwargs)
        except TypeError as error:
            if render_mode is None or "render_mode" not in str(error):
                raise
            why = f"the vector env {env_id!r} takes no render_mode: its episodes can be verified, not filmed"
            raise RecipeError(why) from error
        return made

    def wrapped(self, env: Env) -> Env:
        """Puts the wrappers around an env that stand in the recipe; those that its entry point made are there."""
        made = [class_name(type(wrapper)) for wrapper in reversed(list(wrappers_of(env)))]
        made = [name for name in made if name not in WITHOUT_EFFECT]
        inner = [wrapper["entry_point"] for wrapper in self._raw["wrappers"] if wrapper.get("inner")]
        outer = [wrapper for wrapper in self._raw["wrappers"] if not wrapper.get("inner")]
        if not inner and made == [wrapper["entry_point"] for wrapper in outer[: len(made)]]:
            outer = outer[len(made) :]  # recorded without the wrapper of Gymnasium's that tells them apart
        elif inner != made:
            raise RecipeError(
                f"{self._raw['id']!r} is made here with the wrappers {', '.join(made) or 'none'}, "
                f"where the log has {', '.join(inner) or 'none'}: {STAND_IN}"
            )
        for wrapper in outer:
            if wrapper["entry_point"] in WITHOUT_EFFECT:
                continue  # no recipe of ours has them, and a stranger's RecordVideo would write files
            maker: Any = self.load(wrapper["entry_point"])
            if not (isinstance(maker, type) and issubclass(maker, gym.Wrapper)):
                raise RecipeError(f"{wrapper['entry_point']!r} is no gymnasium.Wrapper: {STAND_IN}")
            env = maker(env, **self.arguments(wrapper["kwargs"]))
        return env

    def spec(self) -> EnvSpec:
        """Finds the env's registration, importing what may be imported for it."""
        raw = self._raw
        env_id, entry_point = str(raw["id"]), raw.get("entry_point")
        if self._free and isinstance(entry_point, str) and entry_point.startswith("__main__:"):
            return EnvSpec(env_id, entry_point=self.load(entry_point))
        if not self._free and env_id.startswith("GymV2"):  # makes any env of the old gym, by a name of its own
            raise UntrustedError(untrusted(f"an env of the old gym by way of {env_id!r}"))
        missing = [] if env_id in gym.registry else self._register(env_id)
        if env_id in gym.registry:
            return gym.registry[env_id]
        if self._free and isinstance(entry_point, str):
            return EnvSpec(env_id, entry_point=entry_point)
        if self._free or missing:
            why = f": {'; '.join(missing)}" if missing else f", nor by {', '.join(raw['modules'])}"
            raise RecipeError(f"no env {env_id!r} is registered here{why}: {STAND_IN}")
        wanted = sorted({*raw["modules"], *([entry_point.partition(":")[0]] if entry_point else [])})
        raise UntrustedError(untrusted(f"{', '.join(map(repr, wanted))} for the env {env_id!r}, not registered here"))

    def _register(self, env_id: str) -> list[str]:
        named = [str(module) for module in self._raw["modules"] if module not in script.NAMES] if self._free else []
        return register(env_id, (*self._imports, *named))

    def load(self, name: str) -> Any:
        """Imports what a recipe names, as "module:qualified.name" or "path/to/file.py:name"."""
        module, _, qualified = name.rpartition(":")
        if not (module.endswith(".py") and qualified) and not _NAME.fullmatch(name):
            raise RecipeError(f"the log's recipe names {name!r}, expected module:name: {STAND_IN}")
        # a package's __main__ is a program: importing it runs it
        known = module.partition(".")[0] in self._importable and not module.endswith(".py")
        if not self._free and (not known or "__main__" in module):
            raise UntrustedError(untrusted(repr(name)))
        if module in script.NAMES:
            return script.find(qualified, self._raw.get("main"))
        if module.endswith(".py"):
            try:
                return usercode.load(name)
            except SelectionError as error:
                raise RecipeError(f"{error}: {STAND_IN}") from error
        try:
            found: Any = usercode.import_module(module)
            for part in qualified.split("."):
                found = getattr(found, part)
        except (ImportError, AttributeError, SelectionError) as error:
            raise RecipeError(f"{name!r} can't be imported here ({error}): {STAND_IN}") from error
        if not self._free and getattr(found, "__module__", None) != module:
            raise UntrustedError(f"this log was not recorded by you, and {name!r} is not what it says: {STAND_IN}")
        if not self._free and not (isinstance(found, type) and issubclass(found, gym.Wrapper)):
            raise UntrustedError(f"this log was not recorded by you, and {name!r} is no wrapper: {STAND_IN}")
        return found

    def arguments(self, value: object) -> dict[str, Any]:
        """Reads the arguments of an env or a wrapper."""
        try:
            found = jsontags.loads(json.dumps(value), self.load)
        except ValueError as error:
            raise RecipeError(f"the log's recipe has arguments that can't be read: {error}") from error
        if not isinstance(found, dict):
            raise RecipeError("the log's recipe has arguments that are no dict")
        if not self._free:
            refuse_names(found)
        return found


def _merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Puts arguments over others; where both have a dict, their items."""
    merged = {**under, **over}
    for name in under.keys() & over.keys():
        if isinstance(under[name], dict) and isinstance(over[name], dict):
            merged[name] = _merged(under[name], over[name])
    return merged


def _code_of(raw: dict[str, Any]) -> str:
    """Names the code that following a recipe runs."""
    if raw.get("factory") is not None:
        names = [raw["factory"]]
    else:
        names = [raw.get("entry_point") or raw["id"], *raw["modules"]]
        names += [wrapper["entry_point"] for wrapper in raw["wrappers"]]
        names += _CALLABLE.findall(json.dumps([raw["kwargs"], raw["wrappers"]]))
    if isinstance(raw.get("main"), dict) and any(name.partition(":")[0] in script.NAMES for name in names):
        names.append(str(raw["main"].get("path")))
    return ", ".join(repr(name) for name in dict.fromkeys(names))


def _checked(text: str) -> dict[str, Any]:
    """Reads a recipe, and makes sure of its form."""
    try:
        raw = json.loads(text)
        sound = (
            (raw["id"] is None or isinstance(raw["id"], str))
            and isinstance(raw["kwargs"], dict | None)
            and all(isinstance(wrapper["entry_point"], str) for wrapper in raw["wrappers"])
            and all(isinstance(wrapper["kwargs"], dict | None) for wrapper in raw["wrappers"])
            and all(isinstance(name, str) for name in [*raw["modules"], *raw.get("paths", [])])
            and all(isinstance(raw.get(part), str | None) for part in ("entry_point", "factory"))
            and not _RESERVED.intersection(raw["kwargs"] or {})
            and (raw.get("vector") in (None, "lanes") or 1 <= int(raw["vector"]) <= _MOST_LANES)
            and isinstance(raw.get("max_episode_steps"), int | None)
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise RecipeError(f"the log's recipe is damaged ({error}): {STAND_IN}") from error
    if not sound:
        raise RecipeError(f"the log's recipe is damaged (a part is of another kind): {STAND_IN}")
    if raw.get("factory") is not None:
        made: dict[str, Any] = raw
        return made
    if raw["id"] is None:
        raise RecipeError(f"the env was made without gymnasium.make: {STAND_IN}")
    if raw["kwargs"] is None:
        raise RecipeError(f"the arguments of {raw['id']!r} could not be kept: {STAND_IN}")
    for wrapper in raw["wrappers"]:
        if wrapper["kwargs"] is None:
            raise RecipeError(f"{wrapper['entry_point']!r} did not record its arguments: {STAND_IN}")
    found: dict[str, Any] = raw
    return found


def text_alone(modes: Sequence[str] | None) -> bool:
    """Whether an env with these render modes draws text, and no pictures."""
    return modes is not None and "ansi" in modes and "rgb_array" not in modes


def _creator(spec: EnvSpec) -> Callable[..., Any]:
    try:
        creator: Callable[..., Any] = (
            spec.entry_point
            if callable(spec.entry_point)
            else gym.envs.registration.load_env_creator(str(spec.entry_point))
        )
    except (ImportError, AttributeError, ValueError) as error:
        raise RecipeError(f"{spec.id} can't be imported here: {error}") from error
    return creator


def _render_modes(spec: EnvSpec) -> list[str] | None:
    found = getattr(_creator(spec), "metadata", None)
    return list(found.get("render_modes", [])) if isinstance(found, dict) else None
