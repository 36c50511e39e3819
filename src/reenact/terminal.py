"""Text to pictures, as a terminal shows it: for envs that draw in characters ("ansi").

Colours and bold are honoured, as `gymnasium.utils.colorize` gives them and terminals know them; other control
sequences are left out. Each character has a cell of its own: Pillow's own font is not monospaced.
"""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from reenact.errors import VideoError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from PIL.ImageFont import FreeTypeFont

    from reenact.overlay import Picture

Colour = tuple[int, int, int]

_SEQUENCE = re.compile(r"\x1b\[([0-9;:]*)m|\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
_INK, _PAPER = (220, 220, 220), (24, 24, 24)
_PALETTE = (
    (118, 118, 118),  # Gymnasium calls it gray; black could not be read
    (224, 72, 72),
    (92, 196, 92),
    (224, 192, 64),
    (88, 136, 255),
    (208, 104, 208),
    (72, 192, 208),
    (240, 240, 240),
    (220, 20, 60),  # Gymnasium's own: crimson
)
_INKS = {first + at: colour for first in (30, 90) for at, colour in enumerate(_PALETTE)}
_PAPERS = {first + at: colour for first in (40, 100) for at, colour in enumerate(_PALETTE)}
_RESET, _REVERSE, _FORWARD, _OWN_INK, _OWN_PAPER = 0, 7, 27, 39, 49
_EXTENDED_INK, _EXTENDED_PAPER, _BY_RGB, _BY_INDEX = 38, 48, 2, 5  # 38 and 48 alone are Gymnasium's crimson
_CUBE = (0, 95, 135, 175, 215, 255)
_256 = (
    *(_PALETTE[at % 8] for at in range(16)),
    *((red, green, blue) for red in _CUBE for green in _CUBE for blue in _CUBE),
    *((8 + 10 * at,) * 3 for at in range(24)),
)
_CONTRAST = 96  # below it, text on a highlight can't be read
_MOST = (200, 500)  # lines and columns
_FONT_PX = (6, 48)
_MONOSPACED = (
    "DejaVuSansMono.ttf", "LiberationMono-Regular.ttf", "NotoSansMono-Regular.ttf", "Menlo.ttc", "consola.ttf",
)  # fmt: skip


class Cell(NamedTuple):
    """A character and its colours."""

    character: str
    ink: Colour = _INK
    paper: Colour = _PAPER


def extent(text: str) -> tuple[int, int]:
    """Returns how many lines and columns a text has.

    Raises:
        VideoError: more than a video can show.
    """
    widths = [len(line) for line in _lines(text)]
    rows, columns = len(widths), max(widths, default=0)
    if rows > _MOST[0] or columns > _MOST[1]:
        raise VideoError(f"the env's text has {rows} lines of up to {columns} characters, expected at most {_MOST}")
    return rows, columns


class Terminal:
    """Draws texts of up to so many lines and columns, all at one size.

    Args:
        rows: lines.
        columns: of characters.
        within: the (width, height) to fill as far as it goes; None: about 480 pixels high.

    Attributes:
        size: (height, width) of its pictures.
    """

    def __init__(self, rows: int, columns: int, within: tuple[int, int] | None = None) -> None:
        self._rows, self._columns = max(1, rows), max(1, columns)
        width, height = within if within is not None else (1280, 480)
        # a cell is about 0.6 by 1.2 of its font; around it all there is a margin of half a cell
        fitting = min(width / (0.6 * (self._columns + 1)), height / (1.2 * (self._rows + 1)))
        self._font_px = min(_FONT_PX[1] if within is not None else 28, max(_FONT_PX[0], int(fitting)))
        self._cell = round(0.6 * self._font_px), round(1.2 * self._font_px)
        self.size = (self._rows + 1) * self._cell[1], (self._columns + 1) * self._cell[0]

    def draw(self, text: str) -> Picture:
        """Returns the text's picture."""
        width, height = self._cell
        picture = np.empty((*self.size, 3), np.uint8)
        picture[:] = _PAPER
        for row, line in enumerate(_lines(text)):
            for column, cell in enumerate(line):
                if cell.character != " " or cell.paper != _PAPER:
                    top, left = height // 2 + row * height, width // 2 + column * width
                    picture[top : top + height, left : left + width] = _glyph(cell, self._cell, self._font_px)
        return picture


def _lines(text: str) -> Iterator[list[Cell]]:
    """Yields the cells of each line."""
    line: list[Cell] = []
    style = _Style()
    at = 0
    text = text.replace("\r\n", "\n")
    while at < len(text):
        if sequence := _SEQUENCE.match(text, at):
            if sequence[1] is not None:
                style.take(sequence[1])
            at = sequence.end()
            continue
        character = text[at]
        at += 1
        if character == "\n":
            yield line
            line = []
        elif character == "\t":
            line += [style.cell(" ")] * (8 - len(line) % 8)
        elif character.isprintable():
            line.append(style.cell(character))
        else:
            line.append(style.cell(" "))
    if line:
        yield line


class _Style:
    """What the control sequences so far have set."""

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self._ink, self._paper, self._reversed = _INK, _PAPER, False

    def cell(self, character: str) -> Cell:
        ink, paper = (self._paper, self._ink) if self._reversed else (self._ink, self._paper)
        if paper != _PAPER and max(abs(a - b) for a, b in zip(ink, paper, strict=True)) < _CONTRAST:
            ink = (0, 0, 0)
        return Cell(character, ink, paper)

    def take(self, codes: str) -> None:
        """Takes in what stands in one control sequence; what is unknown has no effect."""
        numbers = [int(code[:4]) if code else _RESET for code in re.split("[;:]", codes)]
        while numbers:
            number = numbers.pop(0)
            if number == _RESET:
                self._reset()
            elif number in (_REVERSE, _FORWARD):
                self._reversed = number == _REVERSE
            elif number in (_EXTENDED_INK, _EXTENDED_PAPER) and numbers[:1] in ([_BY_RGB], [_BY_INDEX]):
                colour = _extended(numbers)
                self._ink, self._paper = (colour, self._paper) if number == _EXTENDED_INK else (self._ink, colour)
            elif number in _INKS or number == _OWN_INK:
                self._ink = _INKS.get(number, _INK)
            elif number in _PAPERS or number == _OWN_PAPER:
                self._paper = _PAPERS.get(number, _PAPER)


def _extended(numbers: list[int]) -> Colour:
    """Takes red, green and blue, or one colour of 256, from the numbers after 38 or 48."""
    if numbers.pop(0) == _BY_RGB:
        red, green, blue = ([min(255, one) for one in numbers[:3]] + [0, 0, 0])[:3]
        del numbers[:3]
        return red, green, blue
    return _256[min(255, numbers.pop(0))] if numbers else _INK


@functools.lru_cache(maxsize=4096)
def _glyph(cell: Cell, size: tuple[int, int], font_px: int) -> Picture:
    from PIL import Image, ImageDraw  # noqa: PLC0415 - training imports no Pillow

    picture = Image.new("RGB", size, cell.paper)
    middle = size[0] / 2, size[1] * 0.78
    ImageDraw.Draw(picture).text(middle, cell.character, fill=cell.ink, font=_font(font_px), anchor="ms")
    return np.asarray(picture)


@functools.lru_cache(maxsize=8)
def _font(font_px: int) -> FreeTypeFont:
    """Returns a monospaced font of this machine's; if it has none, Pillow's own."""
    from PIL import ImageFont  # noqa: PLC0415 - as above

    for name in _MONOSPACED:
        try:
            return ImageFont.truetype(name, font_px)
        except OSError:
            continue
    font: FreeTypeFont = ImageFont.load_default(font_px)  # type: ignore[assignment]  # all wheels have FreeType
    return font
