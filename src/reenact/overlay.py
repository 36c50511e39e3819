"""What is drawn over and around frames. Pixels of theirs are covered by the banner alone."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

Picture = np.ndarray[Any, np.dtype[np.uint8]]
"""uint8 of shape (height, width, 3), RGB."""

_BANNER_BACKGROUND = (176, 0, 0)
_BANNER_FONT_PX = (9, 32)  # below 9 the letters run into each other


def banner(frame: Picture, text: str) -> Picture:
    """Returns a copy of a frame with white text on a red strip over its top.

    Args:
        frame: the copy has the same size.
        text: one line, as large as fits; on a frame too narrow for it, its end is cut.
    """
    height, width, _ = frame.shape
    strip = _banner_strip(height, width, text)
    marked = frame.copy()
    marked[: len(strip)] = strip
    return marked


@functools.lru_cache(maxsize=8)
def _banner_strip(height: int, width: int, text: str) -> Picture:
    from PIL import Image, ImageDraw, ImageFont  # noqa: PLC0415 - training imports no Pillow

    smallest, largest = _BANNER_FONT_PX
    for font_px in range(min(largest, max(smallest, height // 16)), smallest - 1, -1):
        font = ImageFont.load_default(font_px)
        if font.getlength(text) <= width - font_px:
            break
    strip_px = min(height, round(font_px * 1.5))
    strip = Image.new("RGB", (width, strip_px), _BANNER_BACKGROUND)
    left = max(2, round(width - font.getlength(text)) // 2)
    ImageDraw.Draw(strip).text((left, strip_px / 2), text, fill="white", font=font, anchor="lm")
    return np.asarray(strip)
