"""What a video shows of its film: the options of `replay` that change its pixels, its timing or its file."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TypedDict

from reenact.encoding import Encoding


class Looks(TypedDict, total=False):
    """How a video looks, as keywords of `replay`; `Look` says what each does."""

    fps: float | None
    lossless: bool


@dataclass(frozen=True, slots=True)
class Look:
    """What a video shows, and how it is encoded; equal looks of one film make equal videos.

    Attributes:
        fps: frames a second; None: the env's `render_fps`, else 30.
        lossless: whether the video's pixels are the frames' to the bit (not for browsers).

    Raises:
        VideoError: a value that no video can have.
    """

    fps: float | None = None
    lossless: bool = False

    def __post_init__(self) -> None:
        self.encoding(30.0)  # refuses what no video can have, before any work

    def encoding(self, render_fps: float) -> Encoding:
        """Returns how the frames of an env of that rate are encoded."""
        return Encoding(fps=self.fps if self.fps is not None else render_fps, lossless=self.lossless)

    def to_json(self) -> dict[str, object]:
        """Returns it as it stands in what a video was made from."""
        return asdict(self)
