"""What a video's frames are stored in: made whole from what was encoded, with title and comment, and counted.

ffmpeg takes metadata only at its start, and what a video is worth is known only at its end. So an mp4 is made with room
for its comment; a WebM, and an mp4 without such room, is copied by a second run, and a GIF is given its colours by it.
"""

from __future__ import annotations

import json
import mmap
import re
import shutil
import uuid
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
_SPECIAL, _ESCAPED = re.compile(r"[=;#\\\n]"), r"\\\g<0>"  # in a file that ffmpeg reads metadata from
_ROOM_BYTES = 2048  # twice what is usually said of a video
_GIF_HEADER_BYTES = 13
_GIF_BLOCK_BYTES = 255


class Room:
    """Room for a comment in an mp4, which ffmpeg makes: the second run would take longer than a short video's frames.

    Args:
        title: the video's.
    """

    def __init__(self, title: str) -> None:
        self._title = title
        self._mark = uuid.uuid4().hex.ljust(_ROOM_BYTES)

    @property
    def parameters(self) -> list[str]:
        """What ffmpeg is told."""
        metadata = ("-metadata", f"title={self._title}", "-metadata", f"comment={self._mark}")
        return ["-movflags", "+faststart", *metadata]

    def fill(self, encoded: Path, title: str, comment: str) -> bool:
        """Puts the comment, followed by spaces, into the room.

        Returns:
            Whether the video is as it should be now; otherwise nothing was changed.

        Raises:
            OSError: the file can't be written.
        """
        if title != self._title or len(comment) > len(self._mark):
            return False
        with encoded.open("r+b") as file:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as whole:
                at = whole.find(self._mark.encode())  # soon: with +faststart all metadata stands before the frames
            if at < 0:
                return False
            file.seek(at)
            file.write(comment.ljust(len(self._mark)).encode("ascii"))
        return True


def complete(
    encoded: Path,
    encoding: Encoding,
    *,
    title: str,
    comment: Mapping[str, object],
    frames: int,
    room: Room | None,
    new: Callable[[str], Path],
) -> Path:
    """Makes a video whole.

    Args:
        encoded: what ffmpeg has made of the frames.
        encoding: how.
        title: the title in its metadata.
        comment: stored as JSON in the metadata: in an mp4 or WebM as its comment, in a GIF with the title in a
            comment extension, with frames in a file beside them.
        frames: how many there are in it, and must be in the whole one.
        room: what it has for the comment.
        new: makes an empty file with such an ending, for the result and for what is needed on the way.

    Returns:
        Where it is: as yet under no name.

    Raises:
        VideoError: ffmpeg failed, frames are missing, or the disk is full.
        TypeError: `comment` can't be expressed in JSON.
    """
    # ASCII without line breaks: the same in every locale, and as long in bytes as in characters.
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
        elif room is not None and room.fill(encoded, title, text):
            made, found = encoded, frames
        else:
            made, metadata = new(f".{encoding.format}"), new(".txt")
            metadata.write_text(f";FFMETADATA1\ncomment={_SPECIAL.sub(_ESCAPED, text)}\n", encoding="ascii")
            found = _copy(encoded, made, encoding, title, metadata)
    except OSError as error:
        raise VideoError(f"cannot write the video ({error.strerror}); no video was kept: check disk space") from error
    check_count(found, frames)
    return made


def check_count(found: int, frames: int) -> None:
    """Refuses a video that does not hold each frame once.

    Raises:
        VideoError: it doesn't.
    """
    if found != frames:
        raise VideoError(
            f"ffmpeg stored {found} frames, expected {frames}; no video was kept: try another fps or preset"
        )


def is_of_frames(path: Path) -> bool:
    """Whether a file is one that a folder of frames holds."""
    return path.name == PROVENANCE or _PICTURE.fullmatch(path.name) is not None


def _copy(encoded: Path, made: Path, encoding: Encoding, title: str, metadata: Path) -> int:
    """Copies an mp4 or WebM without decoding; returns the number of frames that went into the copy.

    The comment comes in a file: that of a reel of some thousand episodes is longer than an argument can be.
    """
    return _count(
        *("-y", *ffmpeg.source(encoded, encoding.carrier), "-f", "ffmetadata", "-i", f"file:{metadata}"),
        *("-map", "0:v:0", "-c", "copy", "-map_metadata", "1", "-metadata", f"title={title}"),
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
        *("-enc_time_base", "1/100", "-f", "gif", f"file:{made}"),
    )


def _count(*arguments: str) -> int:
    """Runs ffmpeg, and returns how many frames it has stored."""
    return ffmpeg.stored_frames(ffmpeg.output("-progress", "pipe:1", *arguments))


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
