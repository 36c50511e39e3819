"""What every test stands on: MuJoCo draws without a screen, and the user's own signing key is left alone."""

from __future__ import annotations

import importlib.util
import os
import tempfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

os.environ.setdefault("MUJOCO_GL", "egl")
os.environ["XDG_STATE_HOME"] = tempfile.mkdtemp(prefix="reenact-state-")

# In CI a step of its own runs it, in an environment that has torch: too much for everyone who runs the tests.
collect_ignore = [] if importlib.util.find_spec("torch") else ["test_libraries.py"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Has the tests that take minutes begin first: at the end, one of two processes would wait for the other's."""
    items.sort(key=lambda item: item.path.name != "test_zoo.py")
