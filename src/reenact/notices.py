"""What a recorder warns of: each thing once, at the line of the user's that led to it."""

from __future__ import annotations

import sys
import warnings

_OURS = frozenset({"reenact", "gymnasium", "stable_baselines3", "contextlib"})


class Notices:
    """The warnings of one recorder."""

    def __init__(self) -> None:
        self._said: set[str] = set()

    def say(self, text: str) -> None:
        """Warns, unless that has been said."""
        if text in self._said:
            return
        self._said.add(text)
        level, frame = 2, sys._getframe(1)  # noqa: SLF001  # as `warnings` itself finds its way up
        while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in _OURS:
            level, frame = level + 1, frame.f_back
        warnings.warn(f"reenact: {text}", UserWarning, stacklevel=level)
