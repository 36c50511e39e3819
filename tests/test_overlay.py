"""What is drawn over and around frames."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from reenact import overlay


def noise(height: int, width: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """A frame of random pixels."""
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize("size", [(400, 600), (96, 96), (64, 64), (9, 300), (1, 1)])
def test_the_banner_is_a_red_strip_at_the_top(size: tuple[int, int]) -> None:
    """The copy has the frame's shape, red and white on top, the old pixels below; the frame is as it was."""
    frame = noise(*size)
    before = frame.copy()
    marked = overlay.banner(frame, "diverged: not what happened")
    changed = int((marked != frame).any(axis=(1, 2)).sum())
    assert np.array_equal(frame, before)
    assert marked.dtype == np.uint8
    assert marked.shape == frame.shape
    assert changed <= max(14, size[0] // 8)
    assert np.array_equal(marked[changed:], frame[changed:])
    strip = marked[:changed].astype(int)
    assert (strip[..., 0] > strip[..., 1] + 100).mean() > 0.5
    if min(size) > 20:
        assert (strip.min(axis=2) > 200).sum() > 20


@pytest.mark.parametrize("size", [(96, 128), (48, 64), (100, 64), (40, 300), (7, 5), (1080, 1920)])
def test_a_frame_that_is_made_to_fit_is_in_the_middle_of_black(size: tuple[int, int]) -> None:
    """It is as large as fits, its shape stays, and what is left is black; of its own size it is itself."""
    height, width = size
    frame = np.full((48, 64, 3), 200, np.uint8)
    fitted = overlay.fit(frame, width, height)
    assert fitted.shape == (height, width, 3)
    lit = fitted.any(axis=2)
    rows, columns = np.flatnonzero(lit.any(axis=1)), np.flatnonzero(lit.any(axis=0))
    scale = min(width / 64, height / 48)
    assert (len(rows), len(columns)) == (max(1, round(48 * scale)), max(1, round(64 * scale)))
    assert abs(int(rows[0]) - (height - 1 - int(rows[-1]))) <= 1
    assert abs(int(columns[0]) - (width - 1 - int(columns[-1]))) <= 1
    assert (overlay.fit(frame, 64, 48) is frame) is True


def test_whole_multiples_keep_pixels_sharp() -> None:
    """Twice as large, each pixel is a square of four."""
    frame = noise(8, 8)
    assert np.array_equal(overlay.fit(frame, 16, 16), frame.repeat(2, axis=0).repeat(2, axis=1))


FIELDS = [("episode", "1250"), ("step", "10482"), ("reward", "-0.033333"), ("return", "-1234.6")]


@pytest.mark.parametrize("width", [64, 84, 96, 160, 210, 400, 600, 1280, 1920])
def test_a_label_fits_from_tiny_frames_to_large_ones(width: int) -> None:
    """It is as high as it was said to be, every field leaves ink, and none reaches the right edge."""
    strip = overlay.label(width, FIELDS)
    assert strip.shape == (overlay.label_height(width), width, 3)
    assert 20 <= len(strip) <= 60
    for at in range(len(FIELDS)):
        fewer = overlay.label(width, [*FIELDS[:at], ("", ""), *FIELDS[at + 1 :]])
        assert (fewer != strip).sum() > 30
    assert not (strip[:, -1] > 100).any()


def test_a_curve_shows_what_is_behind_and_what_is_ahead() -> None:
    """High rewards are above low ones, the cursor parts bright from dim, and nothing that is not finite breaks it."""
    values = np.array([0.0] * 50 + [1.0] * 50)
    curve = overlay.Curve(values, 200)
    middle, end = curve.at(50).astype(int), curve.at(100).astype(int)
    assert middle.shape == (overlay.curve_height(200), 200, 3)
    blue = end[..., 2] > 200
    low, high = np.flatnonzero(blue[:, 40]).mean(), np.flatnonzero(blue[:, 160]).mean()
    assert high < low - 5
    assert (middle[:, :90, 2] > 200).any()
    assert not (middle[:, 110:, 2] > 200).any()
    for odd in ([np.nan, 1.0, np.inf, 2.0, -np.inf], [np.nan], [], [1e308, -1e308]):
        assert overlay.Curve(np.array(odd, np.float64), 64).at(1).shape == (overlay.curve_height(64), 64, 3)
