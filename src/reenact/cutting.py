"""Shots -> one video: what is kept of them, what is drawn around them, how long the last one stays."""

from __future__ import annotations

import contextlib
import functools
from typing import TYPE_CHECKING

import numpy as np

from reenact import overlay
from reenact.shots import Spool
from reenact.terminal import Terminal
from reenact.video import VideoWriter, check_frame

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from reenact.look import Look
    from reenact.overlay import Picture
    from reenact.shots import Scene, Shot

BANNER = "DIVERGED: not what happened"
Drawn = tuple["Picture", "Picture"]
"""A frame as it was rendered, and what is shown of it."""


class Dresser:
    """Draws a scene's shots as a look says.

    Args:
        look: what is drawn around them.
        scene: the scene.
        size: the (width, height) that their pictures are made to fit; None: their own.
        terminal: draws texts; None: there are none.
    """

    def __init__(self, look: Look, scene: Scene, size: tuple[int, int] | None, terminal: Terminal | None) -> None:
        self._look, self._scene, self._size, self._terminal = look, scene, size, terminal
        self._returns = np.concatenate([[0.0], np.cumsum(scene.rewards)])
        self._curve: overlay.Curve | None = None

    def draw(self, shot: Shot) -> Drawn:
        """Returns a shot's picture, and what is shown of it.

        Raises:
            VideoError: it is no frame.
        """
        picture = self._picture(shot)
        shown = overlay.banner(picture, BANNER) if shot.marked else picture
        below = self._below(shot, picture.shape[1])
        return picture, np.concatenate([shown, *below]) if below else shown

    def _picture(self, shot: Shot) -> Picture:
        if isinstance(shot.frame, str) and self._terminal is not None:
            frame: Picture = self._terminal.draw(shot.frame)
        else:
            check_frame(shot.frame)
            frame = shot.frame  # type: ignore[assignment]  # as was just seen
        return frame if self._size is None else overlay.fit(frame, *self._size)

    def _below(self, shot: Shot, width: int) -> list[Picture]:
        strips = []
        scene = self._scene
        if self._look.labelled:
            reward = f"{scene.rewards[shot.at - 1]:.5g}" if shot.at else "-"
            fields = [("step", str(shot.at)), ("reward", reward), ("return", f"{self._returns[shot.at]:.5g}")]
            strips.append(overlay.label(width, [("episode", scene.name), *fields]))
        if self._look.rewards:
            began = max(0, scene.first - 1)  # the step that led to the first frame; none leads to the reset's
            if self._curve is None:
                self._curve = overlay.Curve(scene.rewards[began : scene.end - 1], width)
            strips.append(self._curve.at(shot.at - began))
        return strips


class Cut:
    """What is shown of a row of pictures, encoded; whatever has no name at the end is thrown away.

    Args:
        folder: where the video grows.
        look: how fast it is, and how it is encoded.
        title: the video's, as far as it is known.

    Attributes:
        writer: encodes it, from the first picture on.
    """

    def __init__(self, folder: Path, look: Look, title: str) -> None:
        self._folder, self._look, self._title = folder, look, title
        self.writer: VideoWriter | None = None
        self._every = self._count = 0
        self._waiting: Callable[[], Drawn] | None = None
        self._last: Drawn | None = None

    def show(self, draw: Callable[[], Drawn], render_fps: float) -> None:
        """Takes the next picture of a scene, and draws it if it is shown."""
        if self.writer is None:
            self._every = self._look.every(render_fps)
            self.writer = VideoWriter(self._folder, self._look.encoding(render_fps), self._title)
        if self._count % self._every:
            self._waiting = draw
        else:
            self._write(draw())
        self._count += 1

    def end_scene(self) -> None:
        """Shows the scene's last picture, if it is not shown yet, for as long as it is to stay."""
        if self._waiting is not None:
            self._write(self._waiting())
        if self._last is not None and self.writer is not None:
            for _ in range(round(self._look.hold * self.writer.encoding.fps)):
                self.writer.write(self._last[0], over=self._last[1])
        self._count, self._last = 0, None

    def _write(self, drawn: Drawn) -> None:
        assert self.writer is not None  # noqa: S101  # for mypy: `show` made it
        frame, shown = drawn
        self.writer.write(frame, over=None if shown is frame else shown)
        self._waiting, self._last = None, drawn

    def close(self) -> None:
        """Throws it away, unless it has its name."""
        if self.writer is not None:
            self.writer.abandon()


class Cutter:
    """One scene after another, as they come; a sink.

    A text waits until it is known how much room all of them need, and so does all that comes after it.

    Args:
        folder: where the video grows.
        look: what it shows.
        title: the video's, as far as it is known.
    """

    def __init__(self, folder: Path, look: Look, title: str) -> None:
        self._folder, self._look, self._cut = folder, look, Cut(folder, look, title)
        self._scene: Scene | None = None
        self._dresser: Dresser | None = None
        self._size = look.picture_size
        self._waiting: Spool | None = None

    def begin(self, scene: Scene) -> None:
        """Its shots follow."""
        self._scene, self._dresser = scene, Dresser(self._look, scene, self._size, None)
        if self._waiting is not None:
            self._waiting.begin(scene)

    def take(self, shot: Shot) -> None:
        """One more.

        Raises:
            VideoError: it is no frame, or it can't be encoded.
        """
        scene, dresser = self._scene, self._dresser
        assert scene is not None is not dresser  # noqa: S101  # for mypy: `begin` comes first
        if self._waiting is None and isinstance(shot.frame, str):
            self._waiting = Spool(self._folder)
            self._waiting.begin(scene)
        if self._waiting is not None:
            self._waiting.take(shot)
        else:
            self._cut.show(functools.partial(dresser.draw, shot), scene.render_fps)

    def end(self) -> None:
        """They were all."""
        if self._waiting is not None:
            self._waiting.end()
        else:
            self._cut.end_scene()

    def add(self, spool: Spool) -> None:
        """Takes a scene whose shots have waited; all are made to fit into the size of the first picture."""
        if self._size is None and spool.size is not None:
            self._size = spool.size[1], spool.size[0]
        with contextlib.closing(spool):
            self.begin(spool.scene)
            for shot in spool:
                self.take(shot)
            self.end()

    def develop(self) -> VideoWriter | None:
        """Draws what has waited; returns what holds the whole video now, or None: it has no frame."""
        if self._waiting is not None:
            terminal = terminal_for([self._waiting], self._size)
            size = self._size
            if size is None and terminal is not None:
                size = terminal.size[1], terminal.size[0]
            for scene, shots in self._waiting.scenes():
                dresser = Dresser(self._look, scene, size, terminal)
                for shot in shots:
                    self._cut.show(functools.partial(dresser.draw, shot), scene.render_fps)
                self._cut.end_scene()
        return self._cut.writer

    def close(self) -> None:
        """Throws away what has no name."""
        if self._waiting is not None:
            self._waiting.close()
        self._cut.close()


def terminal_for(spools: list[Spool], within: tuple[int, int] | None) -> Terminal | None:
    """Returns what draws the texts of all of them at one size; None: there are none.

    Args:
        spools: what holds them.
        within: the (width, height) of the pictures around them; None: the texts say how large they are.
    """
    extents = [spool.extent for spool in spools if spool.extent is not None]
    if not extents:
        return None
    return Terminal(max(rows for rows, _ in extents), max(columns for _, columns in extents), within)
