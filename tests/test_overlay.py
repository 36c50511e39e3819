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
