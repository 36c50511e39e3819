"""Recipes: what survives being written down, and what a log may make a replay import."""

import importlib
import importlib.metadata
import json
import re
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import h5py
import numpy as np
import pytest
from gymnasium.wrappers import (
    FlattenObservation,
    NormalizeReward,
    RecordEpisodeStatistics,
    RescaleAction,
    ReshapeObservation,
    TimeLimit,
    TransformReward,
)

import reenact
from reenact import jsontags, recipe, signing
from reenact.errors import RecipeError, UntrustedError
from reenact.rebuild import rebuild


class Keeper(gym.Env[np.ndarray, np.ndarray]):
    """Keeps its arguments."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012  # as Gymnasium has it
    observation_space = gym.spaces.Box(-1, 1, (2,))
    action_space = gym.spaces.Box(-1, 1, (2,))

    def __init__(self, render_mode: str | None = None, **kwargs: Any) -> None:
        self.render_mode, self.kwargs = render_mode, kwargs

    def reset(
        self,
        *,
        seed: int | None = None,
        options: dict[str, Any] | None = None,  # noqa: ARG002  # Gymnasium's
    ) -> tuple[Any, dict[str, Any]]:
        """Starts."""
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Goes on."""
        return np.zeros(2, np.float32), float(np.sum(action)), True, False, {}

    def render(self) -> np.ndarray:
        """Draws."""
        return np.eye(32, dtype=np.uint8)[..., None].repeat(3, 2) * 255


class Shift(gym.ActionWrapper[Any, Any, Any], gym.utils.RecordConstructorArgs):
    """Adds to actions, and records its arguments."""

    def __init__(self, env: gym.Env[Any, Any], by: np.ndarray) -> None:
        gym.utils.RecordConstructorArgs.__init__(self, by=by)
        super().__init__(env)
        self.by = by

    def action(self, action: Any) -> Any:
        """Adds."""
        return action + self.by


class Silent(gym.Wrapper[Any, Any, Any, Any]):
    """Doesn't record its arguments, and keeps none of them."""

    def __init__(self, env: gym.Env[Any, Any], factor: float = 1.0) -> None:
        super().__init__(env)
        self.doubled = 2 * factor


def twice(reward: Any) -> Any:
    """Doubles."""
    return 2 * reward


gym.register("Keeper-v0", f"{__name__}:Keeper")


@pytest.fixture(autouse=True)
def _own_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture
def imported(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names that recipes have had imported since."""
    names: list[str] = []
    import_module = importlib.import_module

    def spy(name: str, package: str | None = None) -> Any:
        names.append(name)
        return import_module(name, package)

    monkeypatch.setattr(importlib, "import_module", spy)
    return names


def through_json(env: gym.Env[Any, Any], *, mine: bool = True) -> gym.Env[Any, Any]:
    """Writes an env down, and makes it again."""
    taken, problems = recipe.take(env)
    assert not problems
    return rebuild(jsontags.dumps(taken), mine=mine, render_mode=None)


def record(folder: Path, env: gym.Env[Any, Any] | None = None) -> Path:
    """Records five steps."""
    recorder = reenact.Recorder(env or gym.make("CartPole-v1", max_episode_steps=5), run=folder)
    recorder.reset(seed=1)
    for _ in range(5):
        if any(recorder.step(recorder.action_space.sample())[2:4]):
            recorder.reset()
    recorder.close()
    return folder


def forge(run: Path, signature: str | None = "0" * 64, **changes: Any) -> None:
    """Edits a closed segment's recipe as a stranger might; with signature None it keeps the old one."""
    with h5py.File(run / "segment-00000.h5", "r+", locking=False) as file:
        found = json.loads(file.attrs["recipe"])
        file.attrs["recipe"] = json.dumps({**found, **changes})
        if signature is not None:
            file.attrs["signature"] = signature


# ---- what survives


def test_arguments_survive_in_value_and_type() -> None:
    """Tuples, arrays, NumPy scalars, dtypes, non-finite floats and functions come back as they were."""
    kwargs: dict[str, Any] = {
        "size": (32, (1, 2)),
        "table": np.arange(6, dtype=np.float32).reshape(2, 3),
        "gain": np.float32(0.1),
        "count": np.int64(7),
        "dtype": np.dtype("uint8"),
        "limit": float("inf"),
        "names": ["a", None, True, -0.0],
        "keyed": {1: "one", "$two": 2},
        "function": twice,
    }
    found: Any = through_json(gym.make("Keeper-v0", **kwargs)).unwrapped
    assert found.kwargs.keys() == kwargs.keys()
    for name, value in kwargs.items():
        assert type(found.kwargs[name]) is type(value), name
    assert np.array_equal(found.kwargs.pop("table"), kwargs.pop("table"))
    assert found.kwargs == kwargs
    assert str(found.kwargs["names"][3]) == "-0.0"


def test_arguments_survive_in_a_log(tmp_path: Path) -> None:
    """A tuple in a wrapper's arguments, and in the env's, stands in the segment tagged once, and replays."""
    env = gym.make("Keeper-v0", size=(2, 3), table=np.arange(3))
    run = record(tmp_path / "run", ReshapeObservation(env, (1, 2)))
    with h5py.File(run / "segment-00000.h5", locking=False) as file:
        found = json.loads(file.attrs["recipe"])
    assert found["kwargs"]["size"] == {"$tuple": [2, 3]}
    assert found["wrappers"][-1]["kwargs"] == {"shape": {"$tuple": [1, 2]}}
    assert [result.verdict for result in reenact.verify(run)] == ["exact"] * 5


def test_wrappers_come_back_in_their_order_with_their_arguments() -> None:
    """What changes a transition is rebuilt from the inside out, its own wrappers included."""
    env: gym.Env[Any, Any] = Shift(gym.make("Keeper-v0"), by=np.array([0.5, 0.25]))
    env = TimeLimit(FlattenObservation(RescaleAction(env, np.float32(-2), np.float32(2))), 7)
    found: Any = through_json(env)
    assert [type(wrapper).__name__ for wrapper in recipe.wrappers_of(found)] == [  # bare structure
        "TimeLimit", "FlattenObservation", "RescaleAction", "Shift"
    ]  # fmt: skip
    assert np.array_equal(found.env.env.env.by, [0.5, 0.25])


def test_wrappers_that_change_nothing_are_left_out(tmp_path: Path) -> None:
    """Statistics, videos, checks, recorders and the render mode are no part of a recipe."""
    env = gym.make("CartPole-v1", render_mode="rgb_array")
    env = RecordEpisodeStatistics(reenact.Recorder(env, run=tmp_path / "inner"))
    taken, problems = recipe.take(env)
    assert not problems
    assert [wrapper["entry_point"] for wrapper in taken["wrappers"]] == ["gymnasium.wrappers.common:TimeLimit"]
    assert "render_mode" not in jsontags.dumps(taken)


def test_a_default_time_limit_and_a_changed_one_are_both_kept() -> None:
    """The step limit is rebuilt from the wrapper that was there, not from the registry."""
    for steps in (None, 3):
        env = gym.make("CartPole-v1", max_episode_steps=steps)
        found: Any = through_json(env)
        assert found.get_wrapper_attr("_max_episode_steps") == (steps or 500)


def test_numpy_s_functions_survive_even_for_a_stranger() -> None:
    """A ufunc or a scalar type among the arguments needs no import, and so is no matter of trust."""
    env = TransformReward(gym.make("CartPole-v1"), np.abs)
    found: Any = through_json(env, mine=False)
    assert found.func is np.abs


class Skip(gym.Wrapper[Any, Any, Any, Any]):
    """Keeps its argument under its name, as Stable-Baselines' do, but records none."""

    def __init__(self, env: gym.Env[Any, Any], skip: int = 4, *, hidden: tuple[int, ...] = ()) -> None:
        super().__init__(env)
        self._skip, self.hidden = skip, hidden

    def step(self, action: Any) -> Any:
        """Gives what it keeps as the reward."""
        observation, _, *rest = self.env.step(action)
        return observation, float(self._skip), *rest


class Clip(TransformReward[Any, Any]):
    """Gives its base a lambda, which is recorded as its own argument."""

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env, lambda reward: float(reward) / 2)


class Longer(TimeLimit):
    """Records only what its base takes, and needs more."""

    def __init__(self, env: gym.Env[Any, Any], max_episode_steps: int, more: int) -> None:
        super().__init__(env, max_episode_steps + more)
        self.max_episode_steps, self.more = max_episode_steps, more


def test_a_wrapper_is_made_again_from_its_attributes() -> None:
    """Arguments that a wrapper keeps under their names are read from there; that they are guessed is a doubt."""
    env = Skip(Clip(gym.make("CartPole-v1")), 3, hidden=(1, 2))
    found: Any = through_json(env)
    assert (found._skip, found.hidden, type(found.env)) == (3, (1, 2), Clip)  # noqa: SLF001  # bare structure
    taken, _ = recipe.take(env)
    assert taken["doubts"] == ["Skip does not record its arguments; they were read from its attributes"]
    found = through_json(Longer(gym.make("CartPole-v1"), 5, 2))
    assert (found.max_episode_steps, found.more) == (5, 2)


def test_a_wrong_guess_shows_as_the_cause(tmp_path: Path) -> None:
    """Where an attribute is not what the constructor was given, the replay diverges, and names that cause."""
    env = Skip(gym.make("CartPole-v1", max_episode_steps=5), 3)
    run = tmp_path / "run"
    recorder = reenact.Recorder(env, run=run)
    env._skip = 7  # noqa: SLF001  # as a wrapper that changes it later
    recorder.reset(seed=1)
    while not any(recorder.step(0)[2:4]):
        pass
    recorder.close()
    (result,) = reenact.verify(run)
    assert result.verdict == "diverged"
    assert (
        result.cause
        == "the recipe may not be right: Skip does not record its arguments; they were read from its attributes"
    )


def wrapped_keeper(**kwargs: Any) -> gym.Env[Any, Any]:
    """An entry point that wraps the env itself, as Meta-World's do."""
    return Silent(Shift(Keeper(**kwargs), by=np.array([0.5, 0.25])), factor=3.0)


gym.register("WrappedByLambda-v0", lambda render_mode=None: wrapped_keeper(render_mode=render_mode))
gym.register("WrappedByName-v0", f"{__name__}:wrapped_keeper")


@pytest.mark.parametrize("env_id", ["WrappedByLambda-v0", "WrappedByName-v0"])
@pytest.mark.parametrize("checked", [True, False])
def test_wrappers_of_the_entry_point_replay_without_a_word(tmp_path: Path, env_id: str, checked: bool) -> None:
    """Wrappers that the registered entry point puts around the env, a lambda in a module too, are neither told nor doubled."""
    env = gym.make(env_id, disable_env_checker=not checked)
    run = record(tmp_path / "run", TransformReward(env, twice))
    assert [result.verdict for result in reenact.verify(run)] == ["exact"] * 5


@pytest.mark.parametrize("package", ["numpy", "gymnasium", "mujoco"])
def test_another_version_is_told_before_any_work(tmp_path: Path, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A version that differs from the recorded one is warned of once, with both, before an env is made."""
    run = record(tmp_path / "run", gym.make("CartPole-v1", max_episode_steps=1))
    with h5py.File(run / "segment-00000.h5", "r+", locking=False) as file:
        file.attrs["versions"] = json.dumps({**json.loads(file.attrs["versions"]), package: "0.0.1"})
    try:
        now = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        now = "not installed"
    with pytest.warns(UserWarning, match=rf"recorded with {package} 0\.0\.1, now {re.escape(now)}") as caught:
        results = reenact.verify(run)
    assert (len(caught), len(results)) == (1, 5)
    monkeypatch.setattr(gym, "make", pytest.fail)
    with pytest.raises(UserWarning, match="replays may differ"):  # warnings are errors here
        reenact.verify(run)


# ---- said at construction


@pytest.mark.parametrize(
    ("wrap", "said"),
    [
        (lambda env: TransformReward(env, lambda reward: reward), "TransformReward"),
        (Silent, "Silent"),
        (NormalizeReward, "NormalizeReward"),
    ],
)
def test_what_can_not_be_rebuilt_is_named_at_construction(tmp_path: Path, wrap: Any, said: str) -> None:
    """A lambda, lost arguments, and state that outlives a reset are named, with the way out."""
    with pytest.warns(UserWarning, match=rf"{said}.*--env"):
        reenact.Recorder(wrap(gym.make("CartPole-v1")), run=tmp_path / "run").close()


def test_a_wrapper_with_a_named_function_is_replayed(tmp_path: Path) -> None:
    """A function that can be imported is no obstacle in one's own log."""
    run = record(tmp_path / "run", TransformReward(gym.make("CartPole-v1", max_episode_steps=5), twice))
    assert [result.verdict for result in reenact.verify(run)] == ["exact"]


def test_an_env_made_by_hand_is_named_at_construction(tmp_path: Path) -> None:
    """An env that gymnasium.make didn't make has no recipe, and the recorder says so before training."""
    with pytest.warns(UserWarning, match=r"Keeper was made without gymnasium.make.*--env"):
        reenact.Recorder(Keeper(), run=tmp_path / "run").close()


# ---- whose log it is


def test_one_s_own_log_imports_what_it_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A signed recipe imports the module that registers its env, from the folder where it was."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "my_own_envs.py").write_text(
        "import gymnasium as gym\nfrom gymnasium.envs.classic_control import CartPoleEnv\n"
        "class Mine(CartPoleEnv):\n    pass\n"
        "gym.register('Mine-v0', 'my_own_envs:Mine', max_episode_steps=5)\n"
    )
    monkeypatch.syspath_prepend(folder)
    importlib.import_module("my_own_envs")
    run = record(tmp_path / "run", gym.make("Mine-v0"))
    del gym.registry["Mine-v0"], sys.modules["my_own_envs"]
    sys.path.remove(str(folder))
    try:
        (result,) = reenact.verify(run)
        assert (result.verdict, result.error) == ("exact", None)
        del gym.registry["Mine-v0"], sys.modules["my_own_envs"]
        forge(run)
        (result,) = reenact.verify(run)
        assert (result.verdict, "my_own_envs" in sys.modules) == ("impossible", False)
    finally:
        sys.modules.pop("my_own_envs", None)
        gym.registry.pop("Mine-v0", None)


@pytest.mark.parametrize("signature", ["", "0" * 64, "ü", None])
def test_a_forged_signature_is_a_stranger_s(tmp_path: Path, imported: list[str], signature: str | None) -> None:
    """With a false, an empty or an outdated signature a log of one's own is treated as a stranger's."""
    run = record(tmp_path / "run")
    forge(run, signature, id="Nowhere-v0", entry_point="os:system", modules=["antigravity"])
    (result,) = reenact.verify(run)
    assert result.verdict == "impossible"
    assert "not recorded by you" in str(result.error)
    assert not {"antigravity", "os"} & set(imported)


def test_another_user_s_key_is_a_stranger_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log signed with another key is not one's own."""
    text = json.dumps({"id": "CartPole-v1"})
    signature = signing.sign(text)
    assert signing.is_mine(text, signature)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "other"))
    assert not signing.is_mine(text, signature)


def test_the_key_is_the_user_s_alone(tmp_path: Path) -> None:
    """Nobody else may read the key, and signing again uses the same one."""
    signature = signing.sign("text")
    key = tmp_path / "state" / "reenact" / "key"
    assert key.stat().st_mode & 0o077 == 0
    assert signing.sign("text") == signature


CARTPOLE: dict[str, Any] = {
    "id": "CartPole-v1",
    "entry_point": None,
    "kwargs": {},
    "modules": [],
    "wrappers": [],
}


@pytest.mark.parametrize(
    "name",
    [
        "os:system",
        "subprocess:Popen",
        "builtins:eval",
        "gymnasium.envs.registration:importlib.import_module",
        "gymnasium.envs.registration:load_env_creator",
        "gymnasium.utils.env_checker:check_env",
        "gymnasium.wrappers.common:np.load",
        "gymnasium.__main__:main",
        "gymnasium_robotics_evil:Wrapper",
        "test_recipe:Shift",
        ":system",
        "gymnasium.wrappers",
        "",
    ],
)
def test_a_stranger_s_wrapper_is_refused_before_any_import(imported: list[str], name: str) -> None:
    """What is no Gymnasium wrapper of a package in the table is not imported, called, or made."""
    raw = {**CARTPOLE, "wrappers": [{"entry_point": name, "kwargs": {}}]}
    with pytest.raises(RecipeError):
        rebuild(json.dumps(raw), mine=False, render_mode=None)
    assert all(module.partition(".")[0] == "gymnasium" for module in imported)
    assert "gymnasium.__main__" not in imported


@pytest.mark.parametrize(
    "name",
    ["os:system", "subprocess:Popen", "gymnasium.envs.registration:importlib.import_module", "math:sqrt"],
)
def test_a_stranger_s_callable_argument_is_refused_before_any_import(imported: list[str], name: str) -> None:
    """A callable in a stranger's arguments is refused too, wherever it is nested."""
    kwargs = {"func": {"$tuple": [{"$callable": name}]}}
    for raw in (
        {**CARTPOLE, "kwargs": kwargs},
        {**CARTPOLE, "wrappers": [{"entry_point": "gymnasium.wrappers:TransformReward", "kwargs": kwargs}]},
        {
            **CARTPOLE,
            "wrappers": [{"entry_point": "gymnasium.wrappers.transform_reward:TransformReward", "kwargs": kwargs}],
        },
    ):
        with pytest.raises(UntrustedError):
            rebuild(json.dumps(raw), mine=False, render_mode=None)
    assert not {"os", "subprocess", "math"} & set(imported)


@pytest.mark.parametrize("env_id", ["os:system", "antigravity:Env-v0", "Nowhere-v0", "MiniGrid-../x", ""])
def test_a_stranger_s_env_comes_from_the_registry_alone(imported: list[str], env_id: str) -> None:
    """An id with a module in it, or one that nobody registered, imports nothing that it names."""
    raw = {**CARTPOLE, "id": env_id, "entry_point": "os:system", "modules": ["antigravity"]}
    with pytest.raises(RecipeError):
        rebuild(json.dumps(raw), mine=False, render_mode=None)
    assert not {"os", "antigravity"} & set(imported)
    assert "antigravity" not in sys.modules


def test_a_stranger_s_log_of_a_known_env_is_replayed(tmp_path: Path) -> None:
    """Distrust is no refusal: what stays within the registry and Gymnasium's wrappers works."""
    run = record(tmp_path / "run", FlattenObservation(gym.make("CartPole-v1", max_episode_steps=5)))
    forge(run)
    assert [result.verdict for result in reenact.verify(run)] == ["exact"]


def test_a_stranger_s_log_writes_nothing(tmp_path: Path) -> None:
    """A RecordVideo that a stranger put into a recipe is left out: it would write where it likes."""
    target = tmp_path / "anywhere"
    wrapper = {
        "entry_point": "gymnasium.wrappers.rendering:RecordVideo",
        "kwargs": {"video_folder": str(target)},
    }
    rebuild(json.dumps({**CARTPOLE, "wrappers": [wrapper]}), mine=False, render_mode="rgb_array").close()
    assert not target.exists()


def test_the_user_s_factory_stands_in_for_a_stranger_s_recipe(tmp_path: Path) -> None:
    """With --env nothing of the recipe is followed."""
    run = record(tmp_path / "run")
    forge(run, id="Nowhere-v0", entry_point="os:system")
    (result,) = reenact.verify(run, env=lambda **_: gym.make("CartPole-v1", max_episode_steps=5))
    assert result.verdict == "exact"


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "{}", "null", '{"id": 3, "wrappers": []}',
        '{"id": "CartPole-v1", "wrappers": 5, "kwargs": {}}',
        json.dumps({**CARTPOLE, "wrappers": [5]}),
        json.dumps({**CARTPOLE, "wrappers": [{}]}),
        json.dumps({**CARTPOLE, "wrappers": [{"entry_point": 4, "kwargs": {}}]}),
        json.dumps({**CARTPOLE, "kwargs": [1]}),
        json.dumps({**CARTPOLE, "kwargs": {"x": {"$array": "!", "dtype": "O", "shape": [1]}}}),
        json.dumps({**CARTPOLE, "kwargs": {"render_mode": "human"}}),
        json.dumps({**CARTPOLE, "kwargs": {"id": "os:system"}}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("mine", [True, False])
def test_a_damaged_recipe_is_told_in_one_line(text: str, mine: bool) -> None:  # pytest gives it
    """A recipe that can't be followed raises RecipeError, whatever is wrong with it."""
    with pytest.raises(RecipeError) as caught:
        rebuild(text, mine=mine, render_mode="rgb_array")
    assert "\n" not in str(caught.value)


def test_versions_name_what_an_episode_may_depend_on() -> None:
    """Python, the platform, Gymnasium and NumPy are always among the versions."""
    taken, _ = recipe.take(gym.make("CartPole-v1"))
    assert {"python", "platform", "gymnasium", "numpy"} <= recipe.versions(taken).keys()
