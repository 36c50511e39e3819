"""What is drawn over and around frames. Pixels of theirs are covered by the banner alone."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL.ImageFont import FreeTypeFont

Picture = np.ndarray[Any, np.dtype[np.uint8]]
"""uint8 of shape (height, width, 3), RGB."""

_BANNER_BACKGROUND = (176, 0, 0)
_BANNER_FONT_PX = (9, 32)  # below 9 the letters run into each other
_LABEL_FONT_PX = (9, 28)
_INK, _FAINT, _PAPER, _CURSOR = (236, 236, 236), (150, 150, 150), (24, 24, 24), (255, 196, 0)
_CURVE, _CURVE_AHEAD = (92, 180, 255), (52, 84, 112)
_FIELD_EM = 8.5  # what "return -12345.6" takes, and a gap


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
    from PIL import Image, ImageDraw  # noqa: PLC0415 - training imports no Pillow

    smallest, largest = _BANNER_FONT_PX
    for font_px in range(min(largest, max(smallest, height // 16)), smallest - 1, -1):
        font = _font(font_px)
        if font.getlength(text) <= width - font_px:
            break
    strip_px = min(height, round(font_px * 1.5))
    strip = Image.new("RGB", (width, strip_px), _BANNER_BACKGROUND)
    left = max(2, round(width - font.getlength(text)) // 2)
    ImageDraw.Draw(strip).text((left, strip_px / 2), text, fill="white", font=font, anchor="lm")
    return np.asarray(strip)


def fit(frame: Picture, width: int, height: int) -> Picture:
    """Returns a frame in the middle of a black one of that size, as large as fits; itself if it has that size."""
    own_height, own_width, _ = frame.shape
    if (own_width, own_height) == (width, height):
        return frame
    from PIL import Image  # noqa: PLC0415 - as above

    scale = min(width / own_width, height / own_height)
    inner = max(1, round(own_width * scale)), max(1, round(own_height * scale))
    whole = scale == int(scale)  # then pixels stay sharp squares
    how = Image.Resampling.NEAREST if whole else Image.Resampling.BICUBIC
    picture = np.zeros((height, width, 3), np.uint8)
    left, top = (width - inner[0]) // 2, (height - inner[1]) // 2
    picture[top : top + inner[1], left : left + inner[0]] = np.asarray(Image.fromarray(frame).resize(inner, how))
    return picture


# ---- the label


def label_height(width: int) -> int:
    """Returns the height of a label of that width."""
    font_px, columns = _label_layout(width)
    return -(-4 // columns) * _line_height(font_px) + _line_height(font_px) // 3


def label(width: int, fields: Sequence[tuple[str, str]]) -> Picture:
    """Returns a strip of up to four named values, such as ("step", "12"), in as few lines as they fit in."""
    font_px, columns = _label_layout(width)
    line, column = _line_height(font_px), width // columns
    strip = _paper(label_height(width), width)
    for at, (name, value) in enumerate(fields):
        text = _text(f"{name} {value}", font_px, _INK)
        if text.shape[1] > column:
            text = _text(value, font_px, _INK)
        text = text[:, :column]
        top, left = line // 6 + at // columns * line, at % columns * column
        strip[top : top + line, left : left + text.shape[1]] = text
    return strip


def _label_layout(width: int) -> tuple[int, int]:
    """Returns the font's size and how many columns a label of that width has."""
    smallest, largest = _LABEL_FONT_PX
    font_px = min(largest, max(smallest, width // 36))
    return font_px, next((columns for columns in (4, 2) if width / columns >= font_px * _FIELD_EM), 1)


def _line_height(font_px: int) -> int:
    return round(font_px * 1.4)


@functools.lru_cache(maxsize=256)
def _text(text: str, font_px: int, colour: tuple[int, int, int]) -> Picture:
    """Returns a line of text, a little indented."""
    from PIL import Image, ImageDraw  # noqa: PLC0415 - as above

    font, indent, line = _font(font_px), font_px // 3, _line_height(font_px)
    strip = Image.new("RGB", (indent + round(font.getlength(text)) + 1, line), _PAPER)
    ImageDraw.Draw(strip).text((indent, line / 2), text, fill=colour, font=font, anchor="lm")
    return np.asarray(strip)


@functools.lru_cache(maxsize=32)
def _font(font_px: int) -> FreeTypeFont:
    from PIL import ImageFont  # noqa: PLC0415 - as above

    font: Any = ImageFont.load_default(font_px)
    return font  # type: ignore[no-any-return]  # Pillow's wheels all have FreeType


def _paper(height: int, width: int) -> Picture:
    return np.full((height, width, 3), _PAPER, np.uint8)


# ---- the rewards


def curve_height(width: int) -> int:
    """Returns the height of a curve of that width."""
    return min(120, max(24, width // 8))


class Curve:
    """A strip with a curve, and a cursor on it.

    Args:
        values: what is drawn, one a step; what is not finite leaves a gap.
        width: the strip's, in pixels.
    """

    def __init__(self, values: np.ndarray, width: int) -> None:
        self._steps, self._width = max(1, len(values)), width
        self._behind, self._ahead = (_plot(values, width, colour) for colour in (_CURVE, _CURVE_AHEAD))

    def at(self, step: int) -> Picture:
        """Returns the strip with its cursor at a step; 0 is before the first."""
        place = round((self._width - 1) * min(1.0, step / self._steps))
        thickness = max(1, self._width // 400)
        strip = self._ahead.copy()
        strip[:, :place] = self._behind[:, :place]
        strip[:, max(0, place - thickness // 2) :][:, :thickness] = _CURSOR
        return strip


def _plot(values: np.ndarray, width: int, colour: tuple[int, int, int]) -> Picture:
    from PIL import Image, ImageDraw  # noqa: PLC0415 - as above

    height, steps = curve_height(width), max(1, len(values))
    finite = values[np.isfinite(values)]
    lowest, highest = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 0.0)
    strip = Image.new("RGB", (width, height), _PAPER)
    draw, margin = ImageDraw.Draw(strip), max(2, height // 10)
    told = f"reward {lowest:.6g} to {highest:.6g}" if lowest != highest else f"reward {lowest:.6g}"
    font_px = max(9, height // 6)
    top = margin
    if _font(font_px).getlength(told) < width * 0.9 and height >= 3 * font_px:
        draw.text((font_px // 3, 1), told, fill=_FAINT, font=_font(font_px))
        top = _line_height(font_px)

    def down(value: float) -> float:
        spread = highest / 2 - lowest / 2  # of halves: the whole may be beyond what floats can hold
        share = (value / 2 - lowest / 2) / spread if spread else 0.5
        return height - 1 - margin - share * (height - 1 - margin - top)

    if lowest <= 0 <= highest and len(finite):
        draw.line([(0, down(0.0)), (width, down(0.0))], fill=(64, 64, 64))
    line: list[tuple[float, float]] = []
    for at, value in enumerate([*values.tolist(), float("nan")]):
        if math.isfinite(value):
            # a step's reward came between its two frames
            line += [((width - 1) * at / steps, down(value)), ((width - 1) * (at + 1) / steps, down(value))]
        elif line:
            draw.line(line, fill=colour, width=max(1, height // 40))
            line = []
    return np.asarray(strip)
