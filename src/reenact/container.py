"""What a video's frames are stored in: made whole from what was encoded, with title and comment, and counted.

ffmpeg takes metadata only at its start, and what a video is worth is known only at its end: hence a second run, which
copies an mp4 or WebM, and gives a GIF its colours.
"""

from __future__ import annotations

import json
import re
import shutil
from typing import TYPE_CHECKING, BinaryIO

from reenact import ffmpeg
from reenact.errors import VideoError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from reenact.encoding import Encoding

PROVENANCE = "provenance.json"
"""The file beside a folder's PNGs."""
PICTURES = "%06d.png"
_PICTURE = re.compile(r"\d{6,}\.png")
_GIF_HEADER_BYTES = 13
_GIF_BLOCK_BYTES = 255


def complete(
    encoded: Path,
    encoding: Encoding,
    *,
    title: str,
    comment: Mapping[str, object],
    frames: int,
    new: Callable[[str], Path],
) -> Path:
    """Makes a video whole.

    Args:
        encoded: what ffmpeg has made of the frames.
        encoding: how.
        title: the title in its metadata.
        comment: stored as JSON in the metadata: in an mp4 or WebM as its comment, in a GIF with the title in a
            comment extension, with frames in a file beside them.
        frames: how many there must be.
        new: makes an empty file with such an ending, for the result and for what is needed on the way.

    Returns:
        Where it is: as yet under no name.

    Raises:
        VideoError: ffmpeg failed, frames are missing, or the disk is full.
        TypeError: `comment` can't be expressed in JSON.
    """
    # ASCII without line breaks: survives every locale's command line and ffmpeg's metadata as it is.
    text = json.dumps(dict(comment))
    both = json.dumps({"title": title, "comment": dict(comment)})
    try:
        if encoding.format == "frames":
            made, found = encoded, sum(1 for _ in encoded.iterdir())
            (made / PROVENANCE).write_text(json.dumps({"title": title, "fps": encoding.fps, "comment": dict(comment)}))
        elif encoding.format == "gif":
            bare, made = new(".gif"), new(".gif")
            found = _colour(encoded, bare, encoding, new(".png"))
            with bare.open("rb") as source, made.open("wb") as target:
                _copy_gif(source, target, both.encode())
        else:
            made = new(f".{encoding.format}")
            found = _copy(encoded, made, encoding, title, text)
    except OSError as error:
        raise VideoError(f"cannot write the video ({error.strerror}); no video was kept: check disk space") from error
    if found != frames:
        raise VideoError(
            f"ffmpeg stored {found} frames, expected {frames}; no video was kept: try another fps or preset"
        )
    return made


def is_of_frames(path: Path) -> bool:
    """Whether a file is one that a folder of frames holds."""
    return path.name == PROVENANCE or _PICTURE.fullmatch(path.name) is not None


def _copy(encoded: Path, made: Path, encoding: Encoding, title: str, comment: str) -> int:
    """Copies an mp4 or WebM without decoding; returns the number of frames that went into the copy."""
    return _count(
        *("-y", *ffmpeg.source(encoded, encoding.carrier), "-map", "0:v:0", "-c", "copy"),
        *("-metadata", f"title={title}", "-metadata", f"comment={comment}"),
        *(("-movflags", "+faststart") if encoding.format == "mp4" else ()),
        *("-f", encoding.format, f"file:{made}"),
    )


def _colour(encoded: Path, made: Path, encoding: Encoding, palette: Path) -> int:
    """Makes a GIF in the 256 colours that do most for all of its frames, in two passes at constant memory.

    Returns:
        the number of frames that went into it: ffmpeg stores equal ones, too.
    """
    frames = ffmpeg.source(encoded, encoding.carrier)
    ffmpeg.output("-y", *frames, "-vf", "palettegen", "-update", "1", "-f", "image2", f"file:{palette}")
    timed = f"[0:v]settb=1/100,setpts=N*{encoding.delay_cs}[frames]"
    return _count(
        *("-y", *frames, "-f", "png_pipe", "-i", f"file:{palette}"),
        *("-lavfi", f"{timed};[frames][1:v]paletteuse=diff_mode=rectangle"),
        *("-fps_mode", "passthrough", "-enc_time_base", "1/100", "-f", "gif", f"file:{made}"),
    )


def _count(*arguments: str) -> int:
    """Runs ffmpeg, and returns how many frames it has stored."""
    said = ffmpeg.output("-progress", "pipe:1", *arguments)
    return int(re.findall(r"^frame=\s*(\d+)", said, re.MULTILINE)[-1])


def _copy_gif(source: BinaryIO, target: BinaryIO, comment: bytes) -> None:
    """Copies a GIF with a comment before its first frame, where readers look for one."""
    header = source.read(_GIF_HEADER_BYTES)
    has_colours, bits = header[10] & 0x80, header[10] & 0x07
    target.write(header + source.read(3 << bits + 1 if has_colours else 0))
    target.write(b"\x21\xfe")  # a comment extension: blocks, each after its length, and one of none
    for at in range(0, len(comment), _GIF_BLOCK_BYTES):
        block = comment[at : at + _GIF_BLOCK_BYTES]
        target.write(bytes([len(block)]) + block)
    target.write(b"\x00")
    shutil.copyfileobj(source, target)
