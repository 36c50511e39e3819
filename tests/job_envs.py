"""Envs for jobs of several processes: each says in which it works, and some end theirs."""

from __future__ import annotations

import os
import signal
import sys
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium as gym

import odd_envs
import reenact
from test_render import Meter

if TYPE_CHECKING:
    import numpy as np

FATAL = 7
HERE = Path(os.environ.get("JOB_FOLDER", "."))


class Told(Meter):
    """Leaves a file named after the process that draws it."""

    def render(self) -> np.ndarray:
        """Draws."""
        (HERE / f"drawn-{os.getpid()}").touch()
        return super().render()


class Deadly(Meter):
    """Ends its process at the third step of an episode with one seed, as often as it may."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """Starts."""
        self.fatal = seed == FATAL
        return super().reset(seed=seed, options=options)

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Goes on, or not."""
        if self.time == 2 and self.fatal and len(list(HERE.glob("death-*"))) < int(os.environ.get("DEATHS", "0")):
            (HERE / f"death-{os.getpid()}").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().step(action)


class Slow(Told):
    """Takes its time to draw."""

    def render(self) -> np.ndarray:
        """Draws."""
        time.sleep(0.1)
        return super().render()


class Talkative(Meter):
    """Prints, and warns, of each episode."""

    def reset(self, **options: Any) -> Any:
        """Starts."""
        print("hello from an env")  # noqa: T201  # as some do
        os.write(1, b"hello from C\n")
        warnings.warn("an env warns", UserWarning, stacklevel=1)
        return super().reset(**options)


class Broken(Meter):
    """Raises an error of its own class when it is made to draw."""

    class BrokenError(Exception):
        """Can't be pickled."""

        def __init__(self, one: int, two: int) -> None:
            super().__init__(f"{one} and {two}")

    def __init__(self, render_mode: str | None = None) -> None:
        if render_mode is not None:
            raise self.BrokenError(1, 2)
        super().__init__(render_mode)


class Counted(odd_envs.Carries):
    """Begins with all that was done before; notes each reset, in whatever process."""

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__(render_mode, memory=None)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """Starts."""
        with (HERE / "resets").open("ab") as file:
            file.write(b".")
        return super().reset(seed=seed, options=options)


def spoilt(render_mode: str | None = None) -> gym.Env[Any, Any]:
    """Makes none."""
    del render_mode
    raise ZeroDivisionError("mine")


def leaves(render_mode: str | None = None) -> gym.Env[Any, Any]:
    """Makes none, and notes that it was asked to."""
    del render_mode
    with (HERE / "asked").open("ab") as file:
        file.write(b".")
    sys.exit(7)


for cls in (Told, Deadly, Slow, Talkative, Broken, Counted):
    gym.register(f"Job{cls.__name__}-v0", f"{__name__}:{cls.__name__}")


def record(env_id: str, run: Path, episodes: int, **kwargs: Any) -> Path:
    """Records episodes, with seeds of their own from 5 on."""
    recorder = reenact.Recorder(gym.make(env_id, **kwargs), run=run)
    for episode in range(episodes):
        recorder.reset(seed=5 + episode)
        over, step = False, 0
        while not over:
            _, _, terminated, truncated, _ = recorder.step((episode + step) % 2)
            over, step = terminated or truncated, step + 1
    recorder.close()
    return run
