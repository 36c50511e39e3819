"""Drawing without a screen: what is chosen for it, and errors which say that it can't be done, with what to do.

Only a process that is reenact's own is set up so: a worker, or that of a command. A caller's stays as it is.
"""

from __future__ import annotations

import contextlib
import importlib.abc
import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

from reenact.errors import VideoError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

_GL = "set MUJOCO_GL=egl (Debian: libegl1 libgl1-mesa-dri) or MUJOCO_GL=osmesa (libosmesa6)"
_SIGNS = (
    # MuJoCo's GLFW without a screen, its EGL without a driver; PyOpenGL without the library, as an AttributeError
    (
        re.compile(
            r"OpenGL platform library|OpenGL backend|OpenGL version|\bMUJOCO_GL\b|\bgladLoadGL|\bGLFW|"
            r"\bEGL\b|\begl[A-Z]\w+|OSMesa|\bglGetError\b|^OpenGL\.|^glfw\."
        ),
        _GL,
    ),
    (re.compile(r"^pygame\.error: .*(video device|not available|video system)"), "set SDL_VIDEODRIVER=dummy"),
    (re.compile(r"^pyglet\..*(NoSuchDisplay|NoSuchConfig)"), "set PYGLET_HEADLESS=1"),
)


def explain(error: BaseException) -> str | None:
    """Returns what to do about an error that means that nothing can be drawn here, in one line; of any other None."""
    kind = type(error)
    text = f"{kind.__module__}.{kind.__qualname__}: {error}".removeprefix("builtins.")
    for sign, remedy in _SIGNS:
        if sign.search(text):
            return f"there is no screen, or no OpenGL, to draw with: {remedy} ({' '.join(text.split())[:160]})"
    return None


_failed: list[str] = []
"""What was said when MuJoCo first failed to draw in this process."""


def mujoco_failed(told: str) -> None:
    """Notes that MuJoCo can't draw in this process."""
    _failed.append(told)


def require_mujoco() -> None:
    """Refuses to have MuJoCo draw where it has failed to: at a second attempt it aborts the whole process.

    Raises:
        VideoError: it has failed in this process.
    """
    if _failed:
        raise VideoError(_failed[0])


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Has libwayland and ALSA say nothing meanwhile: pygame asks for a Wayland screen and for a sound card, unused.

    Outside of a session (a container, `sudo`, cron) they would print errors each time. A variable that is set stays.
    """
    wanted = {"SDL_AUDIODRIVER": "dummy"}
    if hasattr(os, "getuid"):
        wanted["XDG_RUNTIME_DIR"] = f"/run/user/{os.getuid()}"
    unset = {name: value for name, value in wanted.items() if name not in os.environ}
    os.environ.update(unset)
    try:
        yield
    finally:
        for name in unset:
            os.environ.pop(name, None)


def choose() -> None:
    """Has envs draw without a screen in this process, as far as there is none and nothing was chosen by hand."""
    if any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY")) or sys.platform != "linux":
        return
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    os.environ.setdefault("PYGLET_HEADLESS", "1")
    waits = any(isinstance(finder, _BeforeMuJoCo) for finder in sys.meta_path)
    if "MUJOCO_GL" not in os.environ and "mujoco" not in sys.modules and not waits:
        sys.meta_path.insert(0, _BeforeMuJoCo())


class _BeforeMuJoCo(importlib.abc.MetaPathFinder):
    """Finds out what MuJoCo can draw with when it is first imported: then it must be chosen, and costs a second."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:  # noqa: ARG002  # as the import system calls it
        """Finds nothing: the module is left to those that come after."""
        if name == "mujoco":
            sys.meta_path.remove(self)
            if "MUJOCO_GL" not in os.environ and (found := _mujoco_gl()) is not None:
                os.environ["MUJOCO_GL"] = found
        return None


_TRY = """
import mujoco
context = mujoco.GLContext(64, 64)
context.make_current()
model = mujoco.MjModel.from_xml_string("<mujoco/>")
mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100.value)
print("drawn")
"""
_TRY_S = 60.0


def _mujoco_gl() -> str | None:
    """Returns the first of MuJoCo's ways to draw without a screen that works here, each tried by a child process.

    In this one a failed attempt could not be undone.
    """
    for name in ("egl", "osmesa"):
        try:
            tried = subprocess.run(  # noqa: S603  # our own interpreter, on our own code
                [sys.executable, "-P", "-c", f"import sys\nsys.path[:] = {sys.path!r}{_TRY}"],
                env={**os.environ, "MUJOCO_GL": name},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                check=False,
                timeout=_TRY_S,
            )
        except (OSError, subprocess.TimeoutExpired):
            continue
        if tried.stdout.split()[-1:] == [b"drawn"]:  # it may crash when it ends
            return name
    return None
