"""What every test stands on: MuJoCo draws without a screen, and the user's own signing key is left alone."""

from __future__ import annotations

import os
import tempfile

os.environ.setdefault("MUJOCO_GL", "egl")
os.environ["XDG_STATE_HOME"] = tempfile.mkdtemp(prefix="reenact-state-")
