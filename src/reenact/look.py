"""What a video shows of its film: the options of `replay` that change its pixels, its timing or its file."""

from __future__ import annotations

import warnings
from dataclasses import asdict, dataclass
from typing import TypedDict

from reenact.encoding import Encoding

_NEAR_FPS = 0.01


class Looks(TypedDict, total=False):
    """How a video looks, as keywords of `replay`; `Look` says what each does."""

    fps: float | None
    format: str
    lossless: bool
    quality: int | None
    preset: str | None


@dataclass(frozen=True, slots=True)
class Look:
    """What a video shows, and how it is encoded; equal looks of one film make equal videos.

    Attributes:
        fps: frames a second; None: the env's `render_fps`, else 30.
        format: "mp4", "webm", "gif" (at the nearest rate that it can have), or "frames": a folder of PNGs.
        lossless: whether an mp4's or WebM's pixels are the frames' to the bit; frames' are, a GIF's never.
        quality: of an mp4 or WebM, 0 (the worst) to 100; None: 55, x264's own default.
        preset: of an mp4 or WebM, x264's name for how fast it is encoded; None: "veryfast",
            for an mp4 with what costs most left out.

    Raises:
        VideoError: a value that no video can have.
    """

    fps: float | None = None
    format: str = "mp4"
    lossless: bool = False
    quality: int | None = None
    preset: str | None = None

    def __post_init__(self) -> None:
        self._encoded(30.0)  # refuses what no video can have, before any work

    @property
    def ending(self) -> str:
        """How a video's name ends."""
        return self._encoded(30.0).ending

    def encoding(self, render_fps: float) -> Encoding:
        """Returns how the frames of an env of that rate are encoded; a rate that a GIF can't have is told."""
        encoding = self._encoded(render_fps)
        wanted = self.fps if self.fps is not None else render_fps
        if self.format == "gif" and abs(encoding.fps - wanted) >= _NEAR_FPS:
            said = f"reenact: a GIF can't have {wanted:g} frames a second: it has {encoding.fps:g}"
            warnings.warn(said, UserWarning, stacklevel=2)
        return encoding

    def _encoded(self, render_fps: float) -> Encoding:
        fps = self.fps if self.fps is not None else render_fps
        return Encoding(fps=fps, format=self.format, lossless=self.lossless, quality=self.quality, preset=self.preset)

    def to_json(self) -> dict[str, object]:
        """Returns it as it stands in what a video was made from."""
        return asdict(self)
