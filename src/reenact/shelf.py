"""The folder that videos stand in, and its manifest: which of them are this user's own, and made from what.

The manifest is JSON, a line a video, appended before the video gets its name: a kill in between leaves a line whose
file is not there or is another one, which proves nothing. Any number of processes may append. Each line is signed:
a stranger's run may come with videos, and a manifest, of anything.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import json
import os
import stat
from typing import TYPE_CHECKING, Any

from reenact import signing
from reenact.errors import VideoError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

MANIFEST = "manifest.jsonl"
Entry = dict[str, Any]


class Shelf:
    """A folder of videos.

    Args:
        folder: where they are; it need not be there yet.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._entries: dict[str, list[Entry]] = {}
        self._read_to = (0, 0)  # inode, bytes

    def find(self, path: Path, source: Mapping[str, object], verdict: str) -> Entry | None:
        """Returns the entry of a video that is there, whole, with this verdict, and made by this user from this."""
        return next(
            (one for one in self._of(path) if one["key"] == key_of(source) and one["verdict"] == verdict),
            None,
        )

    def may_take(self, path: Path, source: Mapping[str, object]) -> bool:
        """Whether a video may be put there: nothing is, or an older one that it may replace."""
        return not os.path.lexists(path) or self.may_replace(path, source)

    def may_replace(self, path: Path, source: Mapping[str, object]) -> bool:
        """Whether there is an older video of the same run, made by this user."""
        return any(one["source"]["run"] == source["run"] for one in self._of(path))

    def was_made(self, path: Path) -> bool:
        """Whether this user has made a video under that name, whatever is there now."""
        self._refresh()
        return any(_is_mine(one) for one in self._entries.get(path.name, []))

    def enter(self, video: Path, path: Path, entry: Mapping[str, object]) -> None:
        """Appends a video that is about to be named.

        Args:
            video: the video, complete, under another name.
            path: the name that it will have.
            entry: what is to be said of it: `source`, `verdict`, and what else there is.

        Raises:
            VideoError: the manifest can't be written.
        """
        size, digest = _measure(video)
        said = {"name": path.name, "key": key_of(entry["source"]), "size": size, "sha256": digest, **entry}  # type: ignore[arg-type]  # a mapping, by this method's contract
        line = json.dumps({**said, "seal": signing.sign(_sealed(said))})
        manifest = path.parent / MANIFEST
        try:
            _append(manifest, line.encode() + b"\n")
        except OSError as error:
            raise VideoError(
                f"cannot write {manifest} ({error.strerror}); no video was kept: check disk space"
            ) from error

    def timed(self) -> list[Entry]:
        """Returns this user's entries that say how long they took."""
        self._refresh()
        mine = [one for found in self._entries.values() for one in found if _is_mine(one)]
        return [one for one in mine if one.get("seconds") and one.get("frames")]

    def _of(self, path: Path) -> list[Entry]:
        """Returns this user's entries of the very video that is there, the newest first."""
        self._refresh()
        named = self._entries.get(path.name, [])
        try:
            measured = _measure(path) if named else None
        except OSError:  # it is not there, or not any more
            return []
        same = [one for one in reversed(named) if (one.get("size"), one.get("sha256")) == measured]
        return [one for one in same if _is_mine(one)]

    def _refresh(self) -> None:
        """Reads the lines that have come since; one that is cut short, or no entry, is passed over."""
        try:
            with (self.folder / MANIFEST).open("rb") as file:
                inode, end = (told := os.fstat(file.fileno())).st_ino, told.st_size
                if inode != self._read_to[0] or end < self._read_to[1]:
                    self._entries, self._read_to = {}, (inode, 0)
                file.seek(self._read_to[1])
                read = file.read(end - self._read_to[1])
        except OSError:
            return
        whole = read[: read.rfind(b"\n") + 1]
        self._read_to = (inode, self._read_to[1] + len(whole))
        for line in whole.splitlines():
            try:
                entry = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(entry, dict) and isinstance(entry.get("name"), str):
                self._entries.setdefault(entry["name"], []).append(entry)


def key_of(source: Mapping[str, object]) -> str:
    """Returns the digest of what a video is made from: equal for one that need not be made again."""
    return hashlib.sha256(json.dumps(source, sort_keys=True).encode()).hexdigest()


def _is_mine(entry: Entry) -> bool:
    return signing.is_mine(
        _sealed({name: value for name, value in entry.items() if name != "seal"}), str(entry.get("seal"))
    )


def _sealed(entry: Mapping[str, object]) -> str:
    return json.dumps(entry, sort_keys=True)


def _append(manifest: Path, line: bytes) -> None:
    """Appends a line in one write, after one that a full disk has cut short in a new line."""
    handle = os.open(manifest, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        end = os.lseek(handle, 0, os.SEEK_END)
        if end:
            os.lseek(handle, end - 1, os.SEEK_SET)
            line = line if os.read(handle, 1) == b"\n" else b"\n" + line
        if os.write(handle, line) != len(line):
            raise OSError(28, "No space left on device")
    finally:
        os.close(handle)


def _measure(video: Path) -> tuple[int, str]:
    """Returns a video's size in bytes, and its SHA-256; of a folder of pictures, those of all of them by name.

    Raises:
        OSError: it is not there, or neither a file nor a folder: reading a pipe would wait for ever.
    """
    if video.is_dir():
        files = [(path.relative_to(video).as_posix(), path.stat()) for path in video.rglob("*") if path.is_file()]
    elif stat.S_ISREG((told := video.stat()).st_mode):
        files = [("", told)]
    else:
        raise OSError(errno.EINVAL, "neither a file nor a folder", str(video))
    found = sorted(
        (name, one.st_size, one.st_dev, one.st_ino, one.st_mtime_ns, one.st_ctime_ns) for name, one in files
    )  # fmt: skip
    return sum(one.st_size for _, one in files), _sha256(video, tuple(found))


@functools.lru_cache(maxsize=64)  # a film asks several times, and a video may be large
def _sha256(video: Path, files: tuple[tuple[str, int, int, int, int, int], ...]) -> str:
    """Returns the SHA-256 of a video whose files are as told: name, size, device, inode, mtime, ctime."""
    digests = []
    for name, *_ in files:
        with (video / name).open("rb") as file:
            digests.append(hashlib.file_digest(file, "sha256").hexdigest())
    if files and files[0][0] == "":
        return digests[0]
    pictures = [(name, size, digest) for (name, size, *_), digest in zip(files, digests, strict=True)]
    return hashlib.sha256(json.dumps(pictures).encode()).hexdigest()
