"""Episodes side by side: their shots -> the pages of one video."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np

from reenact.cutting import Cut, Dresser, terminal_for
from reenact.look import GUTTER_PX

if TYPE_CHECKING:
    from pathlib import Path

    from reenact.cutting import Drawn
    from reenact.look import Look
    from reenact.shots import Shot, Spool
    from reenact.video import VideoWriter

_GUTTER = (56, 56, 56)  # seen between white frames as between black ones


class Grid:
    """Rows and columns of scenes that begin together; one that has ended stays at its last frame.

    Args:
        folder: where the video grows.
        look: what it shows.
        title: the video's, as far as it is known.
    """

    def __init__(self, folder: Path, look: Look, title: str) -> None:
        self._look, self._cut = look, Cut(folder, look, title)
        self._spools: list[Spool] = []

    def add(self, spool: Spool) -> None:
        """Takes one more, for the next tile; one without any frame has none."""
        if len(spool):
            self._spools.append(spool)
        else:
            spool.close()

    def develop(self) -> VideoWriter | None:
        """Draws it, now that all are there; returns what holds the whole video now, or None: it has no frame."""
        if not self._spools:
            return None
        size = self._look.picture_size
        terminal = terminal_for(self._spools, size)
        if size is None:  # the largest that any of them has
            sizes = [spool.size for spool in self._spools if spool.size is not None]
            sizes += [terminal.size] if terminal is not None else []
            size = max(width for _, width in sizes), max(height for height, _ in sizes)
        tiles = [_Tile(Dresser(self._look, spool.scene, size, terminal)) for spool in self._spools]
        fps = self._spools[0].scene.render_fps
        for shots in itertools.zip_longest(*self._spools):
            for tile, shot in zip(tiles, shots, strict=True):
                tile.take(shot)
            self._cut.show(lambda: self._page(tiles), fps)
        self._cut.end_scene()
        return self._cut.writer

    def _page(self, tiles: list[_Tile]) -> Drawn:
        drawn = [tile.draw() for tile in tiles]
        height, width, _ = drawn[0][1].shape
        rows, columns = self._look.grid or (1, 1)
        down, across = height + GUTTER_PX, width + GUTTER_PX
        size = self._look.size or (across * columns - GUTTER_PX, down * rows - GUTTER_PX)
        page = np.zeros((size[1], size[0], 3), np.uint8)
        for row in range(1, rows):
            page[row * down - GUTTER_PX : row * down] = _GUTTER
        for column in range(1, columns):
            page[:, column * across - GUTTER_PX : column * across] = _GUTTER
        for at, (_, shown) in enumerate(drawn):
            top, left = at // columns * down, at % columns * across
            page[top : top + height, left : left + width] = shown
        return np.concatenate([picture for picture, _ in drawn]), page

    def close(self) -> None:
        """Throws away what has no name."""
        for spool in self._spools:
            spool.close()
        self._cut.close()


class _Tile:
    """What one scene shows now."""

    def __init__(self, dresser: Dresser) -> None:
        self._dresser = dresser
        self._shot: Shot | None = None
        self._drawn: Drawn | None = None

    def take(self, shot: Shot | None) -> None:
        """Goes on; without a shot it stays as it is."""
        if shot is not None:
            self._shot, self._drawn = shot, None

    def draw(self) -> Drawn:
        """Returns what it shows."""
        if self._drawn is None:
            assert self._shot is not None  # noqa: S101  # for mypy: no scene is without a shot
            self._drawn = self._dresser.draw(self._shot)
        return self._drawn
