"""One's own logs replay without a flag, whatever of the env the training script defines; and never train again."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest

import reenact
from reenact import recipe, script, usercode
from reenact.errors import RecipeError, SelectionError

SOURCE = Path(reenact.__file__).resolve().parents[1]
ENV = """
import pathlib, sys
import gymnasium as gym
import numpy as np
import reenact
from gymnasium.envs.classic_control import CartPoleEnv

class Mine(CartPoleEnv):
    def __init__(self, function=None, **kwargs):
        super().__init__(**kwargs)
        self.function = function

    def step(self, action):
        observation, reward, *rest = super().step(action)
        return observation, reward if self.function is None else self.function(reward), *rest

class Half(gym.RewardWrapper):
    def reward(self, reward):
        return reward / 2

def third(reward):
    return reward / 3
"""
TRAIN = """
def train(env, run="run"):
    with pathlib.Path("trained").open("a") as file:
        file.write("x")
    recorder = reenact.Recorder(env, run=run)
    for seed in (1, None):
        recorder.reset(seed=seed)
        for _ in range(4):
            recorder.step(1)
    recorder.close()
"""
GUARD = '\nif __name__ == "__main__":\n    '
MAKE = "train(gym.make('Mine-v0', max_episode_steps=4))\n"
BY_STRING = "gym.register('Mine-v0', '__main__:Mine')\n"


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(usercode, "_loaded", {})
    monkeypatch.delitem(sys.modules, "__mp_main__", raising=False)
    monkeypatch.setitem(vars(sys.modules["__main__"]), "__getattr__", usercode._of_loaded)  # noqa: SLF001  # gone afterwards


def python(*arguments: object, folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs Python in a folder."""
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), "PYTHONWARNINGS": "error::UserWarning"}
    return subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def train(path: Path, text: str, *how: str) -> Path:
    """Writes a script, runs it in its folder, and returns the run's folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    done = python(*(how or [path.name]), folder=path.parent)
    assert done.returncode == 0, done.stderr
    return path.parent / "run"


def verify(run: Path) -> subprocess.CompletedProcess[str]:
    """Verifies a run by the command, in another process and another folder."""
    elsewhere = run.parent / "elsewhere"
    elsewhere.mkdir(exist_ok=True)
    return python("-c", "from reenact.cli import main; main()", "verify", run, folder=elsewhere)


def exact(run: Path, count: int = 2) -> None:
    """The command finds all episodes exact, without a word, and the training did not run again."""
    said = verify(run)
    assert (said.returncode, said.stderr) == (0, f"{count} of {count} episodes exact\n"), said.stderr
    assert (run.parent / "trained").read_text() == "x"
    assert not (run.parent / "elsewhere" / "trained").exists()


def refused(run: Path, *words: str) -> None:
    """The command gives one clear line, which holds for both episodes, and the training did not run again."""
    said = verify(run)
    first, other, total = said.stderr.splitlines()
    assert said.returncode == 1
    assert re.match(r"episode [01]: impossible \(", first), said.stderr
    assert all(word in first for word in words), said.stderr
    assert re.fullmatch(r"episode [01]: impossible, for the same reason as episode [01]", other), said.stderr
    assert total == "0 of 2 episodes exact"
    assert (run.parent / "trained").read_text() == "x"
    assert not (run.parent / "elsewhere" / "trained").exists()


# ---- what a script defines


@pytest.mark.parametrize(
    "text",
    [
        ENV + BY_STRING + TRAIN + GUARD + MAKE,
        ENV + TRAIN + GUARD + "gym.register('Mine-v0', Mine)\n    " + MAKE,
        ENV + TRAIN + GUARD + "gym.register('Mine-v0', '__main__:Mine', kwargs={'function': third})\n    " + MAKE,
        ENV + TRAIN + GUARD + "train(Half(gym.make('CartPole-v1', max_episode_steps=4)))\n",
        ENV
        + TRAIN
        + "def make(**kwargs):\n    return Half(Mine(**kwargs))\n"
        + GUARD
        + "gym.register('Mine-v0', make)\n    "
        + MAKE,
        ENV
        + TRAIN.replace("run=run", "run=run, factory=make")
        + "def make(render_mode=None):\n    return Half(Mine(function=lambda r: r, render_mode=render_mode))\n"
        + GUARD
        + "train(make())\n",
        ENV
        + TRAIN.replace("run=run", "run=run, factory='train.py:make'")
        + "def make(render_mode=None):\n    return Half(Mine(render_mode=render_mode))\n"
        + GUARD
        + "train(make())\n",
        ENV
        + BY_STRING
        + TRAIN.replace("run=run", "run=run, factory=make")
        + "ENV = gym.make('Mine-v0')\ndef make(render_mode=None):\n"
        + "    return Half(gym.make('Mine-v0', render_mode=render_mode))\n"
        + GUARD
        + "train(make())\n",
        ENV + BY_STRING + TRAIN + "if __name__ != '__main__':\n    pass\nelse:\n    " + MAKE,
        "import sys, argparse\nparser = argparse.ArgumentParser()\nparser.add_argument('--steps', default=4)\n"
        + "arguments = parser.parse_args()\n"
        + ENV
        + BY_STRING
        + TRAIN
        + GUARD
        + MAKE
        + "    sys.exit(0)\n",
    ],
    ids=["string", "class", "function", "wrapper", "inner", "factory", "file", "made", "else", "argparse"],
)
def test_what_the_script_defines_replays(tmp_path: Path, text: str) -> None:
    """Envs, entry points, wrappers, callables and factories of the script are found in another process."""
    exact(train(tmp_path / "train.py", text))


def test_a_script_in_another_folder_replays(tmp_path: Path) -> None:
    """`python folder/train.py`, with an env in a module and in a package without __init__.py beside it."""
    folder = tmp_path / "folder"
    (folder / "mine").mkdir(parents=True)
    (folder / "mine" / "env.py").write_text(ENV)
    (folder / "other.py").write_text("from mine.env import *\n")
    text = "import pathlib, reenact, gymnasium as gym\nfrom other import Mine, Half\n" + TRAIN
    text += "gym.register('Mine-v0', Mine)\n" + MAKE.replace("train(", "train(Half(").replace("=4)", "=4))")
    (folder / "train.py").write_text(text)  # no guard: none of it is needed
    done = python("folder/train.py", folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    exact(tmp_path / "run")


def test_a_module_of_a_package_replays(tmp_path: Path) -> None:
    """`python -m pkg.train`, whose own imports are relative."""
    package = tmp_path / "pkg"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "env.py").write_text(ENV)
    (package / "train.py").write_text(
        "from .env import *\nclass Own(Mine):\n    pass\n"
        + TRAIN
        + "gym.register('Mine-v0', '__main__:Own')\n"
        + GUARD
        + MAKE
    )
    done = python("-m", "pkg.train", folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    exact(tmp_path / "run")


def test_spawned_workers_replay(tmp_path: Path) -> None:
    """What workers record, where the script is called `__mp_main__`, replays in the script itself and elsewhere."""
    text = ENV.replace("import reenact", "import reenact, multiprocessing") + BY_STRING + TRAIN
    text += "class Noisy(Half):\n    def __init__(self, env):\n        super().__init__(env)\n"
    text += "        self.rng = np.random.default_rng()  # kept by its place, which names the class\n"
    text += "    def reward(self, reward):\n        return reward + self.rng.random()\n"
    text += "def work():\n    train(Noisy(gym.make('Mine-v0', max_episode_steps=4, function=third)))\n"
    text += GUARD + (
        "worker = multiprocessing.get_context('spawn').Process(target=work)\n"
        "    worker.start()\n    worker.join()\n"
        "    assert [result.verdict for result in reenact.verify('run')] == ['exact'] * 2\n"
    )
    exact(train(tmp_path / "train.py", text))


def test_the_same_script_replays_at_its_end(tmp_path: Path) -> None:
    """`reenact.replay` at the end of the script needs no guard: what it needs is running."""
    text = ENV + BY_STRING + TRAIN + MAKE + "result, = reenact.replay('run', [1], video_folder='videos')\n"
    text += "assert result.verdict == 'exact', result\n"
    (tmp_path / "train.py").write_text(text)
    done = python("-W", "ignore::UserWarning", "train.py", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "trained").read_text() == "x"
    assert (tmp_path / "videos" / "run-episode-1.mp4").is_file()


# ---- what would train again


def unguarded(path: Path, text: str, said: str | None) -> Path:
    """Trains by a script that a replay can't load; it says so when it is recorded, where that can be seen."""
    path.write_text(text)
    done = python("-W", "default::UserWarning", path.name, folder=path.parent)
    assert done.returncode == 0, done.stderr
    assert (said or "") in done.stderr
    assert ("can't be replayed as they are" in done.stderr) == (said is not None), done.stderr
    return path.parent / "run"


@pytest.mark.parametrize(
    "how",
    [
        MAKE,
        "def main():\n    " + MAKE + "main()\n",
        "def go():\n    " + MAKE + "go()\n",
        "class Trainer:\n    def __init__(self):\n        " + MAKE + "Trainer()\n",
        "try:\n    " + MAKE + "finally:\n    pass\n",
    ],
    ids=["plain", "main", "function", "class", "try"],
)
def test_an_unguarded_training_is_not_run_again(tmp_path: Path, how: str) -> None:
    """A script that would train when it is loaded is told at construction and at replay, with its line."""
    text = ENV + BY_STRING + TRAIN + how
    run = unguarded(tmp_path / "train.py", text, "starts its training when it is loaded (line ")
    refused(run, str(tmp_path / "train.py"), "(line ", "__main__", "--env")


def test_a_training_in_a_helper_is_noticed_when_it_begins(tmp_path: Path) -> None:
    """Where no call in the script shows it, the recorder that an imported helper makes stops it."""
    (tmp_path / "helper.py").write_text(
        "import pathlib, reenact\ndef go(env):\n    recorder = reenact.Recorder(env, run='run')\n"
        "    pathlib.Path('trained').open('a').write('x')\n"
        "    for _ in range(2):\n        recorder.reset()\n        recorder.step(1)\n    recorder.close()\n"
    )
    text = ENV + BY_STRING + "import helper\nhelper.go(gym.make('Mine-v0'))\n"
    refused(unguarded(tmp_path / "train.py", text, None), "train.py", "--env")


def test_a_class_under_the_guard_is_named_at_construction(tmp_path: Path) -> None:
    """A wrapper that the script defines only under its guard is named when recording begins."""
    text = ENV + TRAIN + GUARD + "class Own(Half):\n        pass\n    train(Own(gym.make('CartPole-v1')))\n"
    run = unguarded(tmp_path / "train.py", text, "defines Own only under its")
    refused(run, "defines no 'Own'", "--env")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda path: path.unlink(), ["is not there", "--env"]),
        (lambda path: path.write_text("def broken(:\n"), ["can't be read as Python", "line 1", "--env"]),
        (lambda path: path.write_text("import sys\nsys.exit('no')\n"), ["ends the program", "--env"]),
        (lambda path: path.write_text("import nowhere_at_all\n"), ["nowhere_at_all", "--env"]),
        (lambda path: path.write_text("class Other:\n    pass\n"), ["defines no 'Mine'", "--env"]),
        (
            lambda path: path.write_text(path.read_text() + MAKE),
            ["starts its training|would start its training", "--env"],
        ),
    ],
    ids=["gone", "syntax", "exit", "import", "name", "trains"],
)
def test_a_script_that_is_another_now_gets_one_line(tmp_path: Path, change: Any, words: list[str]) -> None:
    """A script that is gone, broken, ends the program or has lost a name is told in one line, here in this process."""
    run = train(tmp_path / "train.py", ENV + BY_STRING + TRAIN + GUARD + MAKE)
    script._warn_of_change.cache_clear()  # noqa: SLF001  # each test is a user of its own
    change(tmp_path / "train.py")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("warnings.warn", lambda *_, **__: None)
        results = reenact.verify(run)
    for result in results:
        assert result.verdict == "impossible"
        assert "\n" not in str(result.error)
        assert all(any(option in str(result.error) for option in word.split("|")) for word in words), result.error
    assert (tmp_path / "trained").read_text() == "x"


def test_a_script_that_has_changed_warns(tmp_path: Path) -> None:
    """A script that was edited since is loaded all the same, with one warning."""
    run = train(tmp_path / "train.py", ENV + BY_STRING + TRAIN + GUARD + MAKE)
    (tmp_path / "train.py").write_text(ENV + BY_STRING)
    with pytest.warns(UserWarning, match=r"train\.py has changed since the log was recorded") as caught:
        results = reenact.verify(run)
    assert len(caught) == 1
    assert [result.verdict for result in results] == ["exact", "exact"]


def test_a_script_broken_while_it_runs_is_no_obstacle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A script that was made unreadable since it was started is named, and the training goes on."""
    (tmp_path / "train.py").write_text("def broken(:\n")
    main = {"path": str(tmp_path / "train.py"), "module": None, "sha256": ""}
    monkeypatch.setattr(script, "describe", lambda: main)
    env = gym.make("CartPole-v1")
    monkeypatch.setattr(recipe, "class_name", lambda _: "__main__:Own")
    assert "can't be read as Python" in recipe.take(env)[1][-1]


# ---- code by name


def test_a_file_given_by_name_does_not_train(tmp_path: Path) -> None:
    """`--env train.py:make` of a script without a guard is refused, and so is a module that would train."""
    (tmp_path / "unguarded.py").write_text(ENV + TRAIN + "def make(**_): pass\n" + MAKE)
    for name in ("unguarded.py:make", "unguarded:make"):
        with pytest.raises(SelectionError, match=r"unguarded\.py \(line \d+\) would start its training"):
            usercode.load(name)
    assert not (tmp_path / "trained").exists()
    assert "unguarded" not in sys.modules


def test_a_file_runs_once(tmp_path: Path) -> None:
    """A file that is asked for again is not run again, until it changes."""
    (tmp_path / "mine.py").write_text(
        "import pathlib\nran = pathlib.Path('ran')\nran.write_text(ran.read_text() + 'x' if ran.exists() else 'x')\ndef make(): pass\n"
    )
    assert usercode.load("mine.py:make") is usercode.load(f"{tmp_path}/mine.py:make")
    assert (tmp_path / "ran").read_text() == "x"
    (tmp_path / "mine.py").write_text("def make(): pass\ndef other(): pass\n")
    assert usercode.load("mine.py:other").__name__ == "other"


@pytest.mark.parametrize(
    "name", ["", ":", "a:", ":a", "a", ".a:b", "a..b:c", "a:b..c", "a.:b", ".py:x", "a b:c", "sys:path"]
)
def test_what_names_no_code_is_refused(name: str) -> None:
    """A name in another form, or of nothing that can be called, is a SelectionError of one line."""
    with pytest.raises(SelectionError) as caught:
        usercode.load(name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("if __name__ == '__main__':\n    learn()\n", None),
        ("if '__main__' == __name__ and True:\n    learn()\n", None),
        ("if __name__ != '__main__':\n    pass\nelse:\n    learn()\n", None),
        ("if __name__ != '__main__':\n    learn()\n", 2),
        ("if __name__ == '__main__':\n    pass\nelse:\n    learn()\n", 4),
        ("def f():\n    env.reset()\n", None),
        ("def f():\n    g()\ndef g():\n    env.reset()\nf()\n", 4),
        ("try:\n    pass\nexcept E:\n    class A:\n        def reset(self):\n            super().reset()\n", None),
        (
            "class A:\n    def __init__(self):\n        self.reset()\n    def reset(self):\n        super().reset()\nA()\n",
            None,
        ),
        ("f = lambda: env.reset()\n", None),
        ("def f(x=env.reset()):\n    pass\n", 1),
        ("with a:\n    for x in y:\n        model.learn()\n", 3),
        ("TRAINERS = {'a': learn}\n", None),
        ("", None),
    ],
)
def test_the_line_that_would_train(tmp_path: Path, text: str, line: int | None) -> None:
    """What is guarded, and bodies of functions that nobody calls, do not run when a file is loaded."""
    (tmp_path / "x.py").write_text(text)
    assert usercode.training_line(tmp_path / "x.py") == line


# ---- factories


def test_a_factory_that_can_not_be_found_is_refused(tmp_path: Path) -> None:
    """A factory that a replay would not find is refused when the recorder is made, in one line."""
    (tmp_path / "mine.py").write_text("def make(render_mode=None): pass\n")
    for factory in ("mine.py:nope", "nowhere.py:make", "no_such_module:make", "make", lambda **_: None):
        with pytest.raises(RecipeError, match="factory") as caught:
            recipe.take(gym.make("CartPole-v1"), factory)
        assert "\n" not in str(caught.value)
    assert recipe.take(gym.make("CartPole-v1"), "mine.py:make")[0]["factory"] == f"{tmp_path / 'mine.py'}:make"


def test_a_factory_takes_the_place_of_what_can_not_be_followed(tmp_path: Path) -> None:
    """With a factory in a module beside the script nothing is said, even of an env that the script could not give."""
    (tmp_path / "my_envs.py").write_text(
        ENV + "def make(render_mode=None):\n    return Half(Mine(function=lambda r: r, render_mode=render_mode))\n"
    )
    text = (
        ENV + TRAIN.replace("run=run", "run=run, factory='my_envs:make'") + "train(Half(Mine(function=lambda r: r)))\n"
    )
    run = train(tmp_path / "train.py", text)
    exact(run)
    with pytest.MonkeyPatch.context() as patch:  # and it is logged
        patch.setattr(sys, "path", [*sys.path])
        (episode, *_) = reenact.open_run(run)
        assert json.loads(str(episode.attributes["recipe"]))["factory"] == "my_envs:make"
