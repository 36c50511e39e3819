"""How an env is rebuilt: taken when recording begins, and signed.

A recipe is JSON (`jsontags`): the env's id and kwargs without `render_mode`, the wrappers below the
recorder from the inside out, the modules to import and the folders of those that aren't installed. It is
signed with a key that each user has, so that one's own logs are told from a stranger's. `rebuild` follows it.
"""

from __future__ import annotations

import copy
import functools
import inspect
import json
import platform
import sys
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from importlib import metadata
from pathlib import Path
from typing import Any

import gymnasium as gym

from reenact import jsontags, script, usercode
from reenact.errors import RecipeError, SelectionError

Env = gym.Env[Any, Any]
EnvFactory = Callable[..., Env]
"""Takes `render_mode` by keyword and returns the env as it stood under the recorder."""

_MONITOR = "stable_baselines3.common.monitor:Monitor"
WITHOUT_EFFECT = frozenset(
    {
        "gymnasium.wrappers.common:PassiveEnvChecker",
        "gymnasium.wrappers.common:OrderEnforcing",
        "gymnasium.wrappers.common:RecordEpisodeStatistics",
        "gymnasium.wrappers.rendering:RecordVideo",
        "gymnasium.wrappers.rendering:RenderCollection",
        "gymnasium.wrappers.rendering:HumanRendering",
        "minari.data_collector.data_collector:DataCollector",
        "stable_baselines3.common.atari_wrappers:AtariWrapper",  # only puts others into each other
        _MONITOR,
        "reenact.recorder:Recorder",
        "reenact.recorder:_Watched",
    }
)
"""Wrappers that change no transition; a replay leaves them out."""

_OUTLIVES_RESETS = frozenset(
    {
        "gymnasium.wrappers.stateful_observation:NormalizeObservation",
        "gymnasium.wrappers.stateful_reward:NormalizeReward",
    }
)
_OF_MAKE = frozenset({"gymnasium.wrappers.common:PassiveEnvChecker", "gymnasium.wrappers.common:OrderEnforcing"})
STAND_IN = "replay with --env module:factory"
_STAND_IN = 'pass factory="my_envs:make" to the recorder, or replay with --env module:factory'
_WAY_OUT = f"record below it, {_STAND_IN}"

inert: ContextVar[bool] = ContextVar("reenact_inert", default=False)
"""Set while a replay builds an env: a recorder in the user's factory must not record it."""


def take(env: Env, factory: str | EnvFactory | None = None) -> tuple[dict[str, Any], list[str]]:
    """Writes down how an env is rebuilt.

    Args:
        env: as it stands under the recorder.
        factory: the user's own way to make it, by name or as an importable callable; it takes the rest's place.

    Returns:
        The recipe, to be written with `jsontags.dumps`, and a line for each thing in it that a replay
        won't be able to follow. Recipes with such lines are logged all the same: `--env` can stand in.

    Raises:
        RecipeError: the factory can't be found under its name.
    """
    problems: list[str] = []
    base = env.unwrapped
    recipe: dict[str, Any] = {"id": None, "entry_point": None, "kwargs": {}, "modules": [], "wrappers": []}
    recipe |= {"factory": _factory_name(factory), "doubts": []}
    _take_env(base, recipe, problems)
    _take_wrappers(env, recipe, problems)
    if factory is not None:  # the only thing that a replay follows
        problems = []
    needed = named(recipe)
    in_script = {name.partition(".")[0] for module, name in needed if module in script.NAMES}
    if in_script:
        recipe["main"] = script.describe()
        obstacle = script.obstacle(recipe["main"], in_script - {""})
        if obstacle is not None:
            problems.append(f"a part of it is defined in {obstacle}")
    packages = {module.partition(".")[0] for module, _ in needed if not module.endswith(".py")}
    recipe["paths"] = sorted({folder for name in packages if (folder := _own_folder(name)) is not None})
    return recipe, problems


def _take_env(base: Env, recipe: dict[str, Any], problems: list[str]) -> None:
    spec = base.spec
    recipe["modules"] = [_module_of(type(base)).partition(".")[0]]
    if spec is None:
        problems.append(f"{class_name(type(base))} was made without gymnasium.make: {_STAND_IN}")
        return
    recipe["id"] = spec.id
    recipe["kwargs"] = _arguments(f"{spec.id}", spec.kwargs, problems, leave_out=("render_mode",))
    name = spec.entry_point if isinstance(spec.entry_point, str) else jsontags.callable_name(spec.entry_point)
    if name is None and _module_of(spec.entry_point).partition(".")[0] in script.NAMES:
        problems.append(f"its entry point {spec.entry_point!r} can't be imported: {_STAND_IN}")
    elif name is None:  # a function within the package that registers the id: importing that is enough
        recipe["modules"].append(_module_of(spec.entry_point).partition(".")[0])
    recipe["entry_point"] = None if name is None else name.replace("__mp_main__:", "__main__:")


def _take_wrappers(env: Env, recipe: dict[str, Any], problems: list[str]) -> None:
    wrappers = [(class_name(type(wrapper)), wrapper) for wrapper in reversed(list(wrappers_of(env)))]
    # what `gymnasium.make` adds stands around what the entry point itself has made
    inner = next((at for at, (name, _) in enumerate(wrappers) if name in _OF_MAKE), 0)
    for at, (name, wrapper) in enumerate(wrappers):
        if name in WITHOUT_EFFECT:
            continue
        if name.endswith(":Autoreset"):
            problems.append(f"Autoreset hides its resets from a recorder above it: {_WAY_OUT}")
        if name in _OUTLIVES_RESETS:
            problems.append(
                f"{type(wrapper).__name__} keeps state across resets: its episodes replay only chained from the "
                f"first; {_WAY_OUT}"
            )
        if at < inner:
            recipe["wrappers"].append({"entry_point": name, "kwargs": {}, "inner": True})
            continue
        saved = _saved(wrapper)
        entry: dict[str, Any] = {"entry_point": name, "kwargs": None}
        if saved is not None:
            entry["kwargs"] = _arguments(type(wrapper).__name__, saved, problems, leave_out=("env",))
        else:
            entry["kwargs"] = _inferred(wrapper, recipe["doubts"])
            if entry["kwargs"] is None:
                problems.append(f"{type(wrapper).__name__} doesn't record its arguments: {_WAY_OUT}")
        if "<locals>" in name:
            problems.append(f"{type(wrapper).__name__} is defined inside a function: {_WAY_OUT}")
        recipe["wrappers"].append(entry)


def _saved(wrapper: gym.Wrapper[Any, Any, Any, Any]) -> dict[str, Any] | None:
    """Returns the arguments that a wrapper recorded; None where there are none, or they are its base class's."""
    saved = getattr(wrapper, "_saved_kwargs", None)
    if not isinstance(saved, dict):
        return None
    _, _, *others = inspect.signature(type(wrapper).__init__).parameters.values()
    named = {one.name for one in others if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)}
    needed = {one.name for one in others if one.name in named and one.default is one.empty}
    open_ended = any(one.kind is one.VAR_KEYWORD for one in others)
    return saved if needed <= saved.keys() and (open_ended or saved.keys() <= named | {"env"}) else None


def _inferred(wrapper: gym.Wrapper[Any, Any, Any, Any], doubts: list[str]) -> dict[str, Any] | None:
    """Returns the arguments of a wrapper that does not record them; None where they can't be told.

    Nothing but the env, or attributes called as the constructor's parameters are: what is wrong about these will
    show, since a replay is compared with the log.
    """
    try:
        _, _, *others = inspect.signature(type(wrapper).__init__).parameters.values()
    except ValueError:  # fewer than two, or no signature
        return None
    found: dict[str, Any] = {}
    for parameter in others:
        attribute = next((name for name in (parameter.name, f"_{parameter.name}") if name in vars(wrapper)), None)
        if attribute is None or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            return None
        found[parameter.name] = vars(wrapper)[attribute]
    if found:
        doubts.append(f"{type(wrapper).__name__} does not record its arguments; they were read from its attributes")
    return _arguments(type(wrapper).__name__, found, [], leave_out=())


def _factory_name(factory: str | EnvFactory | None) -> str | None:
    """Returns the name under which a replay will find the user's factory.

    Raises:
        RecipeError: there is none.
    """
    if factory is None:
        return None
    if callable(factory):
        name = jsontags.callable_name(factory)
        if name is None:
            raise RecipeError(f'factory {factory!r} can\'t be imported by name: give one like "my_envs:make"')
        return name.replace("__mp_main__:", "__main__:")
    module, _, attribute = factory.rpartition(":")
    main, source = script.describe(), usercode.source_of(module)
    if main is not None and source is not None and str(source.resolve()) == main["path"]:
        module = "__main__"  # it is running: loaded again, it would train again
    elif module.endswith(".py"):
        module = str(Path(module).resolve())
    try:
        usercode.load(f"{module}:{attribute}")
    except SelectionError as error:
        raise RecipeError(f"factory {factory!r} can't be found: {error}") from error
    return f"{module}:{attribute}"


def versions(recipe: dict[str, Any]) -> dict[str, str]:
    """Returns the versions that an episode may depend on: of Python, Gymnasium, the env's package."""
    found = {"python": platform.python_version(), "platform": _platform()}
    packages = {"reenact", "gymnasium", "numpy", *(module.partition(".")[0] for module in recipe["modules"])}
    packages |= {name for name in _SIMULATORS if name in sys.modules}
    for name in sorted(packages):
        for distribution in (name, *_OTHER_NAMES.get(name, ())):
            version = _version(distribution)
            if version is not None:
                found[distribution] = version
                break
    return found


def changed(recorded: dict[str, str]) -> dict[str, tuple[str, str]]:
    """Returns which of the versions that an episode was recorded with are others here: then, now."""
    here: dict[str, str] = {"python": platform.python_version(), "platform": _platform()}
    found = {}
    for name, then in recorded.items():
        now = here.get(name) or _version(name) or "not installed"
        if now != then:
            found[name] = (then, now)
    return found


def read(text: str) -> dict[str, Any]:
    """Returns a recipe as it was written, its doubts fit to be shown; {} where it is none."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(found, dict):
        return {}
    doubts = found.get("doubts")
    told = (
        [doubt for doubt in doubts if isinstance(doubt, str) and doubt.isprintable()]
        if isinstance(doubts, list)
        else []
    )
    return {**found, "doubts": told}


@functools.cache
def _platform() -> str:
    """Returns what `platform.platform()` does on Linux; that starts a program, in the middle of a training."""
    here, libc = platform.uname(), "".join(platform.libc_ver())
    return f"{here.system}-{here.release}-{here.machine}" + (f"-with-{libc}" if libc else "")


_SIMULATORS = ("mujoco", "dm_control", "Box2D", "ale_py", "pygame", "pybullet")
_OTHER_NAMES = {"pygame": ("pygame-ce",), "Box2D": ("box2d-py",), "retro": ("stable-retro",)}
"""Distributions not called after their package. To ask all that are installed takes 70 ms, at a run's first reset."""


@functools.cache
def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except (metadata.PackageNotFoundError, ValueError):  # a log may name anything
        return None


def wrappers_of(env: Env) -> Iterator[gym.Wrapper[Any, Any, Any, Any]]:
    """Yields an env's wrappers, the outermost first."""
    while isinstance(env, gym.Wrapper):
        yield env
        env = env.env


def env_id(env: Env) -> str:
    """Returns the id that an env was made by, or its class's name."""
    return env.spec.id if env.spec is not None else type(env.unwrapped).__name__


def is_monitored(env: Env) -> bool:
    """Whether Stable-Baselines3's Monitor stands below: it writes what SB3 counts of each episode into its info."""
    return any(class_name(type(wrapper)) == _MONITOR for wrapper in wrappers_of(env))


_ENDS_LIVES, _CLIPS = ("EpisodicLifeEnv",), ("ClipRewardEnv", "ClipReward")
"""Names of wrappers; libraries bring copies of their own."""


def games_cut(env: Env) -> str | None:
    """Returns what wrappers below the recorder make of an env's games: lives for episodes, clipped rewards; or None."""
    told = []
    for wrapper in reversed(list(wrappers_of(env))):
        name = type(wrapper).__name__
        if name in _ENDS_LIVES:
            told.append(f"{name} ends an episode with each life")
        elif name in _CLIPS:
            told.append(f"{name} clips the rewards")
    return " and ".join(told) or None


def class_name(found: type) -> str:
    """Returns "module:qualified.name" of a class."""
    return f"{_module_of(found)}:{found.__qualname__}"


def _module_of(found: object) -> str:
    """Returns the module that something was defined in; the script's is `__main__` in its workers too."""
    module = str(getattr(found, "__module__", ""))
    return "__main__" if module in script.NAMES else module


def named(recipe: dict[str, Any]) -> set[tuple[str, str]]:
    """Returns what a replay of the recipe will import: module and qualified name, "" for the module alone."""
    if recipe["factory"]:
        module, _, name = recipe["factory"].rpartition(":")
        return {(module, name)}
    names = [*recipe["modules"], recipe["entry_point"] or ""]
    names += [wrapper["entry_point"] for wrapper in recipe["wrappers"] if not wrapper.get("inner")]
    parts = [json.loads(jsontags.dumps([recipe["kwargs"], *(wrapper["kwargs"] for wrapper in recipe["wrappers"])]))]
    while parts:
        part = parts.pop()
        if isinstance(part, dict):
            parts += part.values()
            names += [part["$callable"]] if isinstance(part.get("$callable"), str) else []
        elif isinstance(part, list):
            parts += part
    return {(module, name) for module, _, name in (name.partition(":") for name in names)}


def _own_folder(package: str) -> str | None:
    """Returns the folder that the user's own module was imported from; None for an installed one."""
    module = sys.modules.get(package)
    inside = [*getattr(module, "__path__", [])]  # of a package, which need have no __init__.py
    file = inside[0] if inside else getattr(module, "__file__", None)
    if file is None or package in script.NAMES:
        return None
    return None if usercode.is_installed(Path(file)) else str(Path(file).resolve().parent)


def _arguments(
    owner: str, kwargs: dict[str, Any], problems: list[str], leave_out: tuple[str, ...]
) -> dict[str, Any] | None:
    kept: dict[str, Any] = {}
    for key, value in kwargs.items():
        if key in leave_out:
            continue
        try:
            jsontags.dumps(value)
        except TypeError as error:
            problems.append(f"{owner}'s argument {key}={value!r:.60} can't be kept ({error}): {_WAY_OUT}")
            return None
        kept[key] = copy.deepcopy(value)  # as it is now: the log's header is written later
    return kept
