"""What a video shows of its film: the options of `replay` that change its pixels, its timing or its file."""

from __future__ import annotations

import hashlib
import json
import math
import numbers
import operator
import re
import warnings
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

import numpy as np

from reenact import overlay
from reenact.drawing import Camera
from reenact.encoding import Encoding
from reenact.errors import VideoError

if TYPE_CHECKING:
    from collections.abc import Mapping

Slice = tuple[int | None, int | None]
Pair = tuple[int, int]

_SMOOTH_FPS, _SMOOTH_GIF_FPS = 60, 50  # what screens show, and what a GIF can have; more would only be larger
_SPEED, _HOLD_S, _SIDE_PX, _TILES = (0.01, 1000), (0, 600), (16, 8192), (1, 16)
_MODES = ("rgb_array", "ansi")
_NOT_DRAWING = ("id", "max_episode_steps", "disable_env_checker")  # what `gymnasium.make` keeps for itself

_NEAR_FPS = 0.01
GUTTER_PX = 4
"""Between the tiles of a grid; even, so that tiles of even sides make pages of even ones."""


class Looks(TypedDict, total=False):
    """How a video looks, as keywords of `replay`; `Look` says what each does."""

    fps: float | None
    format: str
    lossless: bool
    quality: int | None
    preset: str | None
    speed: float
    steps: str | slice | Slice | None
    size: str | Pair | None
    render_kwargs: Mapping[str, Any] | None
    label: bool
    rewards: bool
    hold: float
    grid: str | Pair | None
    reel: bool
    draft: bool


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
        speed: how many times as fast as that. Where this comes to more than 60 frames a second, every second one is
            shown, or third …, and each episode's last.
        steps: the slice of each episode's frames that is drawn and shown; frame k is the one after k steps.
        size: the video's, (width, height), even.
        render_kwargs: arguments for the env, over those that it was recorded with; plain JSON data.
        label: whether episode, step, reward and return stand below.
        rewards: whether the curve of the rewards does.
        hold: how long each episode's last frame is shown, in seconds beyond its own time.
        grid: (rows, columns) of episodes side by side; None: a video each.
        reel: whether the episodes come one after another, in one video.
        draft: whether MuJoCo draws without multisampling: faster, with other pixels.

    Raises:
        VideoError: a value that no video can have.
    """

    fps: float | None = None
    format: str = "mp4"
    lossless: bool = False
    quality: int | None = None
    preset: str | None = None
    speed: float = 1.0
    steps: Slice | None = None
    size: Pair | None = None
    render_kwargs: Mapping[str, Any] = field(default_factory=dict)
    label: bool = False
    rewards: bool = False
    hold: float = 0.0
    grid: Pair | None = None
    reel: bool = False
    draft: bool = False

    def __post_init__(self) -> None:
        _within("speed", self.speed, *_SPEED)
        _within("hold", self.hold, *_HOLD_S)
        self._encoded(30.0)  # refuses what no video can have, before any work
        if self.size is not None:
            for side in self.size:
                _within("size", side, *_SIDE_PX)
            if self.size[0] % 2 or self.size[1] % 2:
                raise VideoError(f"size must be even, as video codecs want it, not {self.size[0]}x{self.size[1]}")
        if self.grid is not None:
            for count in self.grid:
                _within("grid", count, *_TILES)
        if self.grid is not None and self.reel:
            raise VideoError("grid shows episodes side by side, reel one after another: give one of them")
        if self.picture_size is not None and min(self.picture_size) < _SIDE_PX[0]:
            least, (width, height) = _SIDE_PX[0], self.size or (0, 0)
            raise VideoError(
                f"size {width}x{height} leaves less than {least}x{least} pixels for each picture, beside what stands "
                "around it: give a larger one"
            )

    @property
    def ending(self) -> str:
        """How a video's name ends."""
        return self._encoded(30.0).ending

    @property
    def composed(self) -> bool:
        """Whether several episodes are shown in one video."""
        return self.grid is not None or self.reel

    @property
    def labelled(self) -> bool:
        """Whether a label is drawn: of several episodes in one video, each has one."""
        return self.label or self.composed

    @property
    def tile_size(self) -> Pair | None:
        """The (width, height) that one episode has in the video, or None where that is the frames' to say."""
        if self.size is None:
            return None
        (width, height), (rows, columns) = self.size, self.grid or (1, 1)
        return (width - GUTTER_PX * (columns - 1)) // columns, (height - GUTTER_PX * (rows - 1)) // rows

    @property
    def picture_size(self) -> Pair | None:
        """The (width, height) that an episode's picture has, without what stands below it; or None, as above."""
        if self.tile_size is None:
            return None
        width, height = self.tile_size
        return width, height - self.below(width)

    def below(self, width: int) -> int:
        """Returns the height of what stands below a picture."""
        return self.labelled * overlay.label_height(width) + self.rewards * overlay.curve_height(width)

    @property
    def camera(self) -> Camera:
        """How envs are made to draw."""
        return Camera(self.render_kwargs, self.picture_size, self.draft)

    @property
    def suffix(self) -> str:
        """What a video's name has of it, "" for the plain look; those that differ in quality or preset share one."""
        parts = []
        if self.fps is not None:
            parts.append(f"fps{_plain(self.fps)}")
        if self.speed != 1:
            parts.append(f"speed{_plain(self.speed)}")
        if self.steps is not None:
            first, end = ("" if one is None else one for one in self.steps)
            parts.append(f"steps{first}to{end}")
        if self.size is not None:
            parts.append(f"{self.size[0]}x{self.size[1]}")
        if self.label and not self.composed:
            parts.append("label")
        if self.rewards:
            parts.append("rewards")
        if self.hold:
            parts.append(f"hold{_plain(self.hold)}")
        if self.draft:
            parts.append("draft")
        if self.render_kwargs:
            text = json.dumps(self.render_kwargs, sort_keys=True)
            parts.append(f"kwargs-{hashlib.sha256(text.encode()).hexdigest()[:8]}")
        return "".join(f"-{part}" for part in parts)

    def every(self, render_fps: float) -> int:
        """Returns k, where every k-th frame of an env of that rate is shown."""
        rate, most = self._rate(render_fps), _SMOOTH_GIF_FPS if self.format == "gif" else _SMOOTH_FPS
        return math.ceil(rate / most) if self.speed > 1 and rate > most else 1

    def encoding(self, render_fps: float) -> Encoding:
        """Returns how the frames of an env of that rate are encoded; a rate that a GIF can't have is told."""
        encoding, wanted = self._encoded(render_fps), self._rate(render_fps) / self.every(render_fps)
        if self.format == "gif" and abs(encoding.fps - wanted) >= _NEAR_FPS:
            said = f"reenact: a GIF can't have {wanted:g} frames a second: it has {encoding.fps:g}"
            warnings.warn(said, UserWarning, stacklevel=2)
        return encoding

    def _encoded(self, render_fps: float) -> Encoding:
        fps = self._rate(render_fps) / self.every(render_fps)
        return Encoding(fps=fps, format=self.format, lossless=self.lossless, quality=self.quality, preset=self.preset)

    def _rate(self, render_fps: float) -> float:
        return Encoding(self.fps if self.fps is not None else render_fps).fps * self.speed  # which refuses what is none

    def to_json(self) -> dict[str, object]:
        """Returns what of it is not plain, as it stands in what a video was made from."""
        plain = Look()
        given = {one.name: getattr(self, one.name) for one in fields(self)}
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in given.items()
            if value != getattr(plain, name)
        }


def of(**looks: Unpack[Looks]) -> Look:
    """Returns the look that is asked for.

    Raises:
        VideoError: a value that no video can have.
        TypeError: there is no such option.
    """
    given: dict[str, Any] = dict(looks)
    for name in ("fps", "speed", "hold"):
        if isinstance(given.get(name), numbers.Real):
            given[name] = float(given[name])  # NumPy's are not JSON's
    for name in ("lossless", "label", "rewards", "reel", "draft"):
        if name in given:
            given[name] = _bool(name, given[name])
    if _is_int(given.get("quality")):
        given["quality"] = operator.index(given["quality"])
    for name, read in (("steps", _slice), ("size", _pair), ("grid", _pair), ("render_kwargs", _kwargs)):
        if name in given:
            given[name] = read(name, given[name])
    return Look(**given)


def _slice(name: str, value: object) -> Slice | None:
    """Reads "400:600", ":600", "-100:", a slice or two numbers."""
    if value is None:
        return None
    parts: list[Any] = []
    if isinstance(value, str) and (found := re.fullmatch(r"\s*(-?\d{1,9})?\s*:\s*(-?\d{1,9})?\s*", value)):
        parts = [None if one is None else int(one) for one in found.groups()]
    elif isinstance(value, slice) and value.step in (None, 1):
        parts = [value.start, value.stop]
    elif isinstance(value, tuple | list):
        parts = list(value)
    if [one is None or _is_int(one) for one in parts] != [True, True]:
        raise VideoError(f'{name} must be a slice of steps such as "400:600", ":600" or "-100:", not {value!r}')
    first, end = (None if one is None else operator.index(one) for one in parts)
    if first is not None and end is not None and (first < 0) == (end < 0) and end <= first:
        raise VideoError(f"{name} {first}:{end} is empty in any episode: expected an end after the beginning")
    return first, end


def _pair(name: str, value: object) -> Pair | None:
    """Reads "640x480" or two numbers."""
    if value is None:
        return None
    if isinstance(value, str) and (found := re.fullmatch(r"\s*(\d{1,6})\s*[x×]\s*(\d{1,6})\s*", value)):
        return int(found[1]), int(found[2])
    if isinstance(value, tuple | list) and [_is_int(one) for one in value] == [True, True]:
        return int(value[0]), int(value[1])
    example = "640x480 (width x height)" if name == "size" else "2x2 (rows x columns)"
    raise VideoError(f"{name} must be such as {example}, not {value!r}")


def _bool(name: str, value: object) -> bool:
    if not isinstance(value, bool | np.bool_):
        raise VideoError(f"{name} must be True or False, not {value!r:.200}")
    return bool(value)


def _kwargs(name: str, value: object) -> dict[str, Any]:
    """Makes sure that arguments for an env are plain data, and such that only its frames may change."""
    if value is None:
        return {}
    try:
        text = json.dumps(value, allow_nan=False)
        plain: dict[str, Any] = json.loads(text)
    except (TypeError, ValueError, RecursionError) as error:
        raise VideoError(f"{name} must be plain JSON data, not {value!r:.200}: {error}") from error
    if not isinstance(plain, dict):
        raise VideoError(f'{name} must be an object such as {{"camera_name": "top"}}, not {value!r:.200}')
    for reserved in _NOT_DRAWING:
        if reserved in plain:
            raise VideoError(f"{name} can't change {reserved!r}: it says how the env draws, not which one it is")
    if plain.get("render_mode", _MODES[0]) not in _MODES:
        raise VideoError(f"{name}: render_mode must be {' or '.join(_MODES)}, not {plain['render_mode']!r}")
    return plain


def _is_int(value: object) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _within(name: str, value: object, least: float, most: float) -> None:
    number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not number or not least <= value <= most:  # type: ignore[operator]  # a number, as was just seen
        raise VideoError(f"{name} must be a number from {least} to {most}, not {value!r}")


def _plain(number: float) -> str:
    return str(int(number)) if number == int(number) else repr(float(number))
