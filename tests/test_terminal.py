"""Text to pictures: each character in its cell, in the colours that terminals give it."""

from __future__ import annotations

import numpy as np
import pytest
from gymnasium.utils import colorize
from hypothesis import given, settings
from hypothesis import strategies as st

from reenact.errors import VideoError
from reenact.terminal import Terminal, extent

PAPER = (24, 24, 24)
RED, GREEN, YELLOW, CRIMSON = (224, 72, 72), (92, 196, 92), (224, 192, 64), (220, 20, 60)


def colours(text: str) -> set[tuple[int, ...]]:
    """The colours of a text's picture."""
    picture = Terminal(*extent(text)).draw(text)
    return {tuple(pixel) for pixel in picture.reshape(-1, 3).tolist()}


def test_lines_and_columns_are_counted_as_they_are_seen() -> None:
    """Control sequences take no room, tabs go to the next eighth column, and the longest line counts."""
    assert extent("") == (0, 0)
    assert extent("ab\nabcd\n") == (2, 4)
    assert extent("ab\r\n\n\tc") == (3, 9)
    assert extent(colorize("abc", "red", highlight=True) + "\x1b[2K\x1b]0;title\x07") == (1, 3)


def test_every_character_stands_in_a_cell_of_its_own() -> None:
    """A grid of narrow and wide letters is as wide as its columns: the k-th cell changes with the k-th letter alone."""
    terminal = Terminal(1, 6)
    height, width = terminal.size
    cell = width // 7
    one, other = terminal.draw("iWi|Wi"), terminal.draw("iWiWWi")
    changed = np.flatnonzero((one != other).any(axis=(0, 2)))
    assert changed.min() >= cell // 2 + 3 * cell
    assert changed.max() < cell // 2 + 4 * cell
    assert one.shape == other.shape == (height, width, 3)


@pytest.mark.parametrize(
    ("text", "colour"),
    [
        (colorize("A", "red", highlight=True), RED),
        (colorize("A", "green", bold=True, highlight=True), GREEN),
        (colorize("A", "crimson", highlight=True), CRIMSON),
        ("\x1b[43mA\x1b[0m", YELLOW),
        ("\x1b[1;103mA", YELLOW),
        ("\x1b[48;2;1;2;3mA", (1, 2, 3)),
        ("\x1b[48;5;196mA", (255, 0, 0)),
        ("\x1b[48;5;255mA", (238, 238, 238)),
        ("\x1b[31;7mA", RED),
    ],
)
def test_highlights_have_their_colours(text: str, colour: tuple[int, int, int]) -> None:
    """The cell behind a letter is in the colour that the sequence names, and that of others is not."""
    assert colour in colours(text)
    assert colour not in colours("A")


def test_a_colour_ends_where_it_is_told_to() -> None:
    """After the reset, letters are as before; in between they are not."""
    terminal = Terminal(1, 3)
    plain, coloured = terminal.draw("###"), terminal.draw("#" + colorize("#", "red") + "#")
    changed = np.flatnonzero((plain != coloured).any(axis=(0, 2)))
    cell = terminal.size[1] // 4
    assert cell // 2 + cell <= changed.min() <= changed.max() < cell // 2 + 2 * cell


def test_a_highlight_in_the_letter_s_own_colour_can_be_read() -> None:
    """White on white gets black letters."""
    assert (0, 0, 0) in colours("\x1b[37;47mA")


@pytest.mark.parametrize(("within", "least"), [((640, 480), 300), ((64, 48), 20)])
def test_text_fills_what_there_is(within: tuple[int, int], least: int) -> None:
    """Its picture is no larger than the room that it has, and not much smaller."""
    height, width = Terminal(6, 11, within).size
    assert width <= within[0] + 11
    assert height <= within[1] + 6
    assert width >= least or height >= least


def test_too_much_text_is_refused() -> None:
    """More than a video can show is one line that says how much there is."""
    with pytest.raises(VideoError, match="300 lines"):
        extent("x\n" * 300)
    with pytest.raises(VideoError, match="900 characters"):
        extent("x" * 900)


@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(), max_size=60) | st.text("\x1b[]0123456789;m\n\t AB", max_size=60))
def test_any_text_can_be_drawn(text: str) -> None:
    """Whatever an env returns, its picture has the size that its extent says."""
    terminal = Terminal(*extent(text))
    assert terminal.draw(text).shape == (*terminal.size, 3)
