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


def test_a_replay_without_a_screen_says_what_to_set(tmp_path: Path) -> None:
    """With MuJoCo and no MUJOCO_GL, `replay` says so in one line, without a traceback."""
    pytest.importorskip("mujoco")
    env = reenact.Recorder(gym.make("Reacher-v5"), run=tmp_path / "run")
    env.reset(seed=3)
    env.step(env.action_space.sample())
    env.close()
    bare = {
        name: value for name, value in os.environ.items() if name not in ("MUJOCO_GL", "DISPLAY", "WAYLAND_DISPLAY")
    }
    command = [
        sys.executable,
        "-c",
        "from reenact.cli import replay_main; replay_main()",
        str(tmp_path / "run"),
        "--episodes",
        "all",
    ]
    done = subprocess.run(command, capture_output=True, text=True, env=bare, check=False, timeout=120)
    assert done.returncode == 1
    (line,) = (line for line in done.stderr.splitlines() if line.startswith("episode 0: "))
    assert "impossible" in line
    assert "MUJOCO_GL=egl" in line
    assert "Traceback" not in done.stderr.partition("Exception ignored")[0]
