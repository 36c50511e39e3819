"""What an env raises where there is nothing to draw with is told in one line, with the remedy."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import gymnasium as gym
import pytest

import reenact
from reenact import headless

if TYPE_CHECKING:
    from pathlib import Path


def raised(name: str, text: str) -> Exception:
    """An error of a package's own class."""
    module, _, cls = name.rpartition(".")
    made: Exception = type(cls, (Exception,), {"__module__": module or "builtins"})(text)
    return made


@pytest.mark.parametrize(
    ("error", "remedy"),
    [  # as raised by Gymnasium 1.4 with MuJoCo 3.3 and 4.0, pygame-ce 2.5 and pyglet 1.5, but for the last of each
        (raised("mujoco.FatalError", "an OpenGL platform library has not been loaded into this process"), "egl"),
        (raised("mujoco.FatalError", "gladLoadGL error"), "egl"),
        (ImportError("Cannot initialize a EGL device display. This likely means"), "egl"),
        (AttributeError("'NoneType' object has no attribute 'eglQueryString'"), "osmesa"),
        (AttributeError("'NoneType' object has no attribute 'OSMesaCreateContextAttribs'"), "osmesa"),
        (RuntimeError("invalid value for environment variable MUJOCO_GL: foo"), "egl"),
        (raised("OpenGL.raw.EGL._errors.EGLError", "EGL_NOT_INITIALIZED"), "egl"),
        (raised("glfw.GLFWError", "(65550) b'X11: The DISPLAY environment variable is missing'"), "egl"),
        (raised("pygame.error", "x11 not available"), "SDL_VIDEODRIVER=dummy"),
        (raised("pygame.error", "No available video device"), "SDL_VIDEODRIVER=dummy"),
        (raised("pyglet.canvas.xlib.NoSuchDisplayException", 'Cannot connect to "None"'), "PYGLET_HEADLESS=1"),
    ],
)
def test_each_kind_has_its_remedy(error: Exception, remedy: str) -> None:
    """One line, which holds what was raised and what to set."""
    told = headless.explain(error)
    assert told is not None
    assert remedy in told
    assert str(error)[:40] in told
    assert "\n" not in told


@pytest.mark.parametrize(
    "error",
    [
        AttributeError("'NoneType' object has no attribute 'blit'"),
        raised("pygame.error", "File is not a Windows BMP file"),
        ValueError("beagle legs"),
        raised("mujoco.FatalError", "mj_stackAlloc: out of memory"),
    ],
)
def test_other_errors_are_left_to_the_user(error: Exception) -> None:
    """An error that has another cause is not explained away."""
    assert headless.explain(error) is None


BARE = {name: value for name, value in os.environ.items() if name not in ("MUJOCO_GL", "DISPLAY", "WAYLAND_DISPLAY")}
REPLAY = "from reenact.cli import replay_main; replay_main()"


@pytest.fixture(scope="module")
def reacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a MuJoCo env."""
    pytest.importorskip("mujoco")
    run = tmp_path_factory.mktemp("reacher") / "run"
    env = reenact.Recorder(gym.make("Reacher-v5"), run=run)
    for seed in (3, None):
        env.reset(seed=seed)
        env.step(env.action_space.sample())
    env.close()
    return run


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_mujoco_draws_without_a_screen(reacher: Path, tmp_path: Path, jobs: str) -> None:
    """With nothing set, `replay` finds out what MuJoCo can draw with, in its own process and in workers."""
    command = [sys.executable, "-c", REPLAY, str(reacher), "--episodes", "all", "--jobs", jobs]
    command += ["--video-folder", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env=BARE, check=False, timeout=120)
    assert "episode 0: exact" in done.stderr
    assert done.returncode == 0


def test_a_call_leaves_the_environment_alone_and_fails_but_once(reacher: Path, tmp_path: Path) -> None:
    """`reenact.replay` sets nothing in the process that calls it, whose envs may want to show themselves.

    There each episode of each call says what to set: MuJoCo would abort the process at its second attempt. Workers draw.
    """
    code = (
        "import os, sys, reenact\nbefore, finders = dict(os.environ), list(sys.meta_path)\n"
        "for picked in ([1, 0], [0], [1]):\n"
        "    for result in reenact.replay(sys.argv[1], picked, video_folder=sys.argv[2]): print(result.error)\n"
        "for result in reenact.replay(sys.argv[1], 'all', video_folder=sys.argv[2], jobs=2): print(result.verdict)\n"
        "assert (dict(os.environ), sys.meta_path) == (before, finders)\n"
    )
    command = [sys.executable, "-c", code, str(reacher), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env=BARE, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    *failed, first, second = done.stdout.splitlines()
    assert ["set MUJOCO_GL=egl" in line for line in failed] == [True] * 4
    assert (first, second) == ("exact", "exact")


def test_where_mujoco_can_not_draw_it_is_told_what_to_install(reacher: Path, tmp_path: Path) -> None:
    """With neither EGL nor OSMesa, the result says which Debian packages there are, without a traceback."""
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['OpenGL'] = None\n")
    path = os.pathsep.join((str(tmp_path), os.environ.get("PYTHONPATH", "")))
    command = [sys.executable, "-c", REPLAY, str(reacher), "--episodes", "all", "--video-folder", str(tmp_path)]
    done = subprocess.run(
        command, capture_output=True, text=True, env={**BARE, "PYTHONPATH": path}, check=False, timeout=120
    )
    assert done.returncode == 1
    (line,) = (line for line in done.stderr.splitlines() if line.startswith("episode 0: "))
    assert "impossible" in line
    assert "libegl1" in line
    assert "libosmesa6" in line
    assert "Traceback" not in done.stderr.partition("Exception ignored")[0]


def test_what_was_chosen_by_hand_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that is set is left as it is, and where there is a screen nothing is set at all."""
    monkeypatch.delenv("PYGLET_HEADLESS", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setenv("SDL_VIDEODRIVER", "offscreen")
    monkeypatch.setenv("DISPLAY", ":0")
    headless.choose()
    assert "PYGLET_HEADLESS" not in os.environ
    monkeypatch.delenv("DISPLAY")
    monkeypatch.setenv("PYGLET_HEADLESS", "0")
    headless.choose()
    assert (os.environ["SDL_VIDEODRIVER"], os.environ["PYGLET_HEADLESS"]) == ("offscreen", "0")
