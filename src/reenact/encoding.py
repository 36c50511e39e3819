"""How frames become a video: what a user chooses, and what ffmpeg is told."""

from __future__ import annotations

import math
import numbers
from dataclasses import dataclass

from reenact.errors import VideoError

_MIN_FPS = 0.01


@dataclass(frozen=True)
class Encoding:
    """How frames become a video.

    Attributes:
        fps: Frames per second, at least 0.01. MoviePy passes on two decimals, so it is rounded to hundredths
            here: 30000/1001 becomes 29.97.
        lossless: Every pixel exactly as rendered (RGB H.264), 2 to 28 times the size, not for browsers.
            Otherwise yuv420p, which plays everywhere; odd sides get a black row or column more.
        preset: x264's name for its balance of speed and size.

    Raises:
        VideoError: ``fps`` is no number, not finite, or below 0.01.
    """

    fps: float = 30.0
    lossless: bool = False
    preset: str = "veryfast"

    def __post_init__(self) -> None:
        fps: object = self.fps
        if not isinstance(fps, numbers.Real) or not math.isfinite(fps) or fps < _MIN_FPS:
            raise VideoError(f"fps must be a finite number of at least {_MIN_FPS}, not {fps!r}: give 30, say")
        object.__setattr__(self, "fps", round(float(self.fps), 2))

    def codec(self, height: int, width: int) -> tuple[str, list[str]]:
        """Returns MoviePy's name of the codec, and ffmpeg's parameters for frames of a size."""
        if self.lossless:
            return "libx264rgb", ["-crf", "0"]
        # Not "libx264": for that, MoviePy sets a pixel format of its own after ours.
        params = ["-pix_fmt", "yuv420p"]
        if height % 2 or width % 2:
            params += ["-vf", "pad=ceil(iw/2)*2:ceil(ih/2)*2"]
        return "h264", params
