"""What a recorder warns of: each thing once."""

from __future__ import annotations

import warnings


class Notices:
    """The warnings of one recorder."""

    def __init__(self) -> None:
        self._said: set[str] = set()

    def say(self, text: str) -> None:
        """Warns, unless that has been said."""
        if text not in self._said:
            self._said.add(text)
            warnings.warn(f"reenact: {text}", UserWarning, stacklevel=4)
