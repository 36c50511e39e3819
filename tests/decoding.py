"""Videos made and decoded for tests: by ffmpeg and Pillow, never by reenact."""

import json
import re
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

import imageio_ffmpeg
import numpy as np
from PIL import Image

from reenact.encoding import Encoding
from reenact.video import VideoWriter

FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()
LOSSLESS = Encoding(lossless=True, preset="ultrafast")


def ffmpeg(*arguments: str | Path) -> subprocess.CompletedProcess[bytes]:
    """Runs ffmpeg to its end."""
    command = [FFMPEG, "-nostdin", "-hide_banner", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, check=False, stdin=subprocess.DEVNULL)


def decode(path: Path) -> np.ndarray:
    """Every frame that a file, or a folder of PNGs, holds, once each: (frames, height, width, 3)."""
    if path.is_dir():
        return np.stack([np.asarray(Image.open(png).convert("RGB")) for png in sorted(path.glob("*.png"))])
    width, height = stream_line(path)[1]
    run = ffmpeg("-i", path, "-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt", "rgb24", "-")
    return np.frombuffer(run.stdout, np.uint8).reshape(-1, height, width, 3)


def stream_line(path: Path) -> tuple[str, tuple[int, int]]:
    """What ffmpeg says of the video stream, and its width and height."""
    line = next(line for line in ffmpeg("-i", path).stderr.decode().splitlines() if "Video:" in line)
    size = re.search(r", (\d+)x(\d+)", line)
    assert size
    return line, (int(size[1]), int(size[2]))


def numbered(number: int, height: int = 32, width: int = 48) -> np.ndarray:
    """A frame that shows a number below 4096 as twelve black or white blocks, which lossy encoding keeps."""
    bits = np.array([number >> bit & 1 for bit in range(12)], np.uint8).reshape(3, 4) * 255
    rows, columns = np.arange(height) * 3 // height, np.arange(width) * 4 // width
    return np.repeat(bits[rows][:, columns, None], 3, axis=2)


def number_of(frame: np.ndarray) -> int:
    """The number that a frame shows."""
    height, width, _ = frame.shape
    bits = [frame[(2 * r + 1) * height // 6, (2 * c + 1) * width // 8, 1] > 127 for r in range(3) for c in range(4)]
    return sum(int(bit) << place for place, bit in enumerate(bits))


def noise(count: int, height: int = 32, width: int = 48) -> np.ndarray:
    """Frames that no codec can compress."""
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def write(
    path: Path,
    frames: Iterable[np.ndarray],
    encoding: Encoding = LOSSLESS,
    *,
    title: str = "",
    comment: Mapping[str, object] | None = None,
    overwrite: bool = False,
) -> Path:
    """Writes a whole video."""
    with VideoWriter(path.parent, encoding, title) as writer:
        for frame in frames:
            writer.write(frame)
        writer.finish(path, title=title, comment=comment or {}, overwrite=overwrite)
    return path


def files(folder: Path) -> list[str]:
    """All names in a folder, hidden ones too."""
    return sorted(entry.name for entry in folder.iterdir())


def comment_of(path: Path) -> object:
    """The comment that a video holds, as other programs read it."""
    if path.is_dir():
        return json.loads((path / "provenance.json").read_text())["comment"]
    if path.suffix == ".gif":
        with Image.open(path) as picture:
            return json.loads(picture.info["comment"])["comment"]
    return json.loads(_tag(path, "comment"))


def title_of(path: Path) -> str:
    """The title that a video has, as other programs read it."""
    if path.is_dir():
        return str(json.loads((path / "provenance.json").read_text())["title"])
    if path.suffix == ".gif":
        with Image.open(path) as picture:
            return str(json.loads(picture.info["comment"])["title"])
    return _tag(path, "title")


def _tag(path: Path, name: str) -> str:
    shown = ffmpeg("-i", path, "-f", "ffmetadata", "-").stdout.decode()
    text = re.search(rf"^{name}=((?:[^\\\n]|\\.)*)$", shown, re.MULTILINE | re.DOTALL | re.IGNORECASE)
    assert text
    return re.sub(r"\\(.)", r"\1", text[1], flags=re.DOTALL)
