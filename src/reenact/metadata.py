"""What a video holds besides its picture: the comment that it was given, and how many frames it has."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from reenact import ffmpeg

if TYPE_CHECKING:
    from pathlib import Path


def read_comment(path: Path) -> dict[str, object] | None:
    """Returns the JSON object that `VideoWriter.finish` stored, or None.

    None where ``path`` is missing, no mp4, without a comment, or has one that is no JSON object.

    Raises:
        VideoError: ffmpeg can't be started.
    """
    done = ffmpeg.run(*ffmpeg.source(path), "-f", "ffmetadata", "-")
    if done.returncode:
        return None
    # A backslash escapes =, ;, #, itself and line breaks, so that a title can't pose as a comment.
    for line in re.findall(r"(?:[^\\\n]|\\.)+", done.stdout, re.DOTALL):
        if line.startswith("comment="):
            try:
                comment = json.loads(re.sub(r"\\(.)", r"\1", line.removeprefix("comment="), flags=re.DOTALL))
            except (ValueError, RecursionError):
                return None
            return comment if isinstance(comment, dict) else None
    return None


def count_frames(path: Path) -> int:
    """Returns the number of frames stored in an mp4, by reading it through, without decoding.

    Raises:
        VideoError: ``path`` can't be read as a video, or ffmpeg can't be started.
    """
    counting = ("-map", "0:v:0", "-c", "copy", "-progress", "pipe:1", "-f", "null", "-")
    said = ffmpeg.output(*ffmpeg.source(path), *counting)
    return int(re.findall(r"^frame=\s*(\d+)", said, re.MULTILINE)[-1])
