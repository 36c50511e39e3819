"""Errors which say that there is no screen and no OpenGL to draw with, and what to do about them."""

from __future__ import annotations

import re

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
