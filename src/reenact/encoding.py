"""How frames become a video: what a user chooses, and what ffmpeg is told."""

from __future__ import annotations

import numbers
from dataclasses import dataclass

from reenact.errors import VideoError

FORMATS = ("mp4", "webm", "gif", "frames")
PRESETS = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow")
"""x264's names for its balances of speed and size, the fastest first; VP9's speeds 8 to 0 go by them, too."""

_MIN_FPS, _MAX_FPS = 0.01, 1000.0  # no screen shows more, and ffmpeg's clocks lose count far above
_DEFAULT_PRESET = "veryfast"
_DEFAULT_QUALITY = 55  # x264's own default, crf 23
_WORST_CRF = {"mp4": 51, "webm": 63}
# B frames, weighted prediction and a finer search for motion do little for what simulators draw: of CartPole, Pong,
# LunarLander, CarRacing and HalfCheetah, a frame takes 8 to 29 % less CPU without them, and -8 to +24 % bytes.
_LEFT_OUT = ("-bf", "0", "-weightp", "0", "-subq", "0", "-motion-est", "dia")
# From RGB to half the colours, a sixth of an encoder's time: of even sides, each colour is the mean of its four pixels,
# in BT.601. Without "full_chroma_inp" swscale halves them in plain C, at twice the CPU; zimg takes 2.5 times as much,
# for colours further from the frames' (LunarLander 49.0 dB; zimg 47.4, fast_bilinear 45.8).
_HALVE = "scale=flags=area+full_chroma_inp:out_color_matrix=bt601,format=yuv420p,setparams=colorspace=bt470bg"
_SHORTEST_SIDE = 4  # of two rows or columns, swscale takes the second one's colours alone
_SLOWEST_REALTIME = 5  # libvpx's speeds from here on are meant for its realtime mode
_SHORTEST_DELAY_CS = 2  # browsers play a GIF whose frames last 1/100 s at a tenth of its speed


@dataclass(frozen=True)
class Encoding:
    """How frames become a video.

    Attributes:
        fps: Frames per second, 0.01 to 1000. MoviePy passes on two decimals, so it is rounded to hundredths
            here: 30000/1001 becomes 29.97. A GIF's frames last whole hundredths of a second, two at least: its
            rate is the nearest such one.
        format: "mp4" (H.264), "webm" (VP9), "gif", or "frames": a folder of PNGs.
        lossless: Every pixel of an mp4 or WebM exactly as rendered, in RGB, at 2 to 28 times the size; browsers
            don't play such an mp4. Otherwise yuv420p, which plays everywhere; an mp4's odd sides get a black row
            or column more, those below four up to three. Frames are always lossless, a GIF with its 256 colours
            never is.
        quality: Of an mp4 or WebM: 0, the worst, to 100, the best that its codec can do; its crf goes evenly
            from 51 (VP9: 63) to 0. None: 55.
        preset: Of an mp4 or WebM: one of `PRESETS`. None: "veryfast", for an mp4 with what costs most left out.

    Raises:
        VideoError: a value that no video can have, or two that don't go together.
    """

    fps: float = 30.0
    format: str = "mp4"
    lossless: bool = False
    quality: int | None = None
    preset: str | None = None

    def __post_init__(self) -> None:
        fps: object = self.fps
        if not isinstance(fps, numbers.Real) or not _MIN_FPS <= float(fps) <= _MAX_FPS:
            raise VideoError(f"fps must be a number from {_MIN_FPS} to {_MAX_FPS:g}, not {fps!r}: give 30, say")
        if self.format not in FORMATS:
            raise VideoError(f"format must be one of {', '.join(FORMATS)}, got {self.format!r}")
        if self.preset is not None and self.preset not in PRESETS:
            raise VideoError(f"preset must be one of {', '.join(PRESETS)}, got {self.preset!r}")
        self._check_quality()
        if self.lossless and self.format == "gif":
            raise VideoError("a GIF has 256 colours and can't be lossless: choose the format mp4, webm or frames")
        if self.lossless and self.format == "frames":
            raise VideoError("frames are lossless in any case: leave lossless out")
        for name, value in (("quality", self.quality), ("preset", self.preset)):
            if value is not None and self.format not in _WORST_CRF:
                raise VideoError(f"{name} is for mp4 and webm: leave it out with format {self.format}")
        object.__setattr__(self, "fps", round(100 / self.delay_cs if self.format == "gif" else float(self.fps), 2))

    def _check_quality(self) -> None:
        quality: object = self.quality
        if quality is None:
            return
        whole = isinstance(quality, numbers.Integral) and not isinstance(quality, bool)
        if not whole or not 0 <= quality <= 100:  # type: ignore[operator]  # noqa: PLR2004 - a percentage
            raise VideoError(f"quality must be a whole number from 0, the worst, to 100, got {quality!r}")
        if self.lossless:
            raise VideoError("a lossless video has no quality to choose: leave one of quality and lossless out")

    @property
    def ending(self) -> str:
        """How the video's name ends: a lossless one never takes the plain one's."""
        return f"{'-lossless' if self.lossless else ''}.{self.format}"

    @property
    def carrier(self) -> str:
        """What ffmpeg makes of the frames while they come: "mp4", "webm" or "frames"; the rest is done at the end."""
        return "mp4" if self.format == "gif" else self.format

    @property
    def delay_cs(self) -> int:
        """How long a frame of a GIF lasts, in hundredths of a second."""
        return max(_SHORTEST_DELAY_CS, round(100 / self.fps))

    def codec(self, height: int, width: int) -> tuple[str, str, list[str]]:
        """Returns MoviePy's name of the codec, its preset, and ffmpeg's parameters for frames of a size.

        A GIF's colours are chosen once all frames are known: until then these are kept without loss.
        """
        preset = self.preset or _DEFAULT_PRESET
        if self.format == "frames":
            return "png", preset, ["-start_number", "0"]
        if self.format == "gif":
            return "libx264rgb", "ultrafast", ["-crf", "0"]
        if self.format == "webm":
            speed = len(PRESETS) - 1 - PRESETS.index(preset)
            params = ["-deadline", "realtime" if speed >= _SLOWEST_REALTIME else "good", "-cpu-used", str(speed)]
            kind = ["-lossless", "1", "-pix_fmt", "gbrp"] if self.lossless else [*self._crf(), "-vf", _HALVE]
            return "libvpx-vp9", preset, [*params, "-b:v", "0", *kind]
        if self.lossless:
            return "libx264rgb", preset, ["-crf", "0"]
        # Not "libx264": for that, MoviePy sets a pixel format of its own after ours.
        sides = [max(_SHORTEST_SIDE, side + side % 2) for side in (width, height)]
        pad = f"pad={sides[0]}:{sides[1]}," if sides != [width, height] else ""
        return "h264", preset, [*self._crf(), *(_LEFT_OUT if self.preset is None else ()), "-vf", pad + _HALVE]

    def _crf(self) -> list[str]:
        quality = _DEFAULT_QUALITY if self.quality is None else self.quality
        return ["-crf", str(round(_WORST_CRF[self.format] * (100 - quality) / 100))]
