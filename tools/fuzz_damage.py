"""What can happen to a segment, or to a run's folder: the kinds of damage of tools/fuzz_segments.py."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

if TYPE_CHECKING:
    from pathlib import Path
    from random import Random

PAGE = 4096


def lookup3(data: bytes) -> int:
    """Jenkins' lookup3, HDF5's checksum of metadata."""
    mask = 0xFFFFFFFF

    def rot(value: int, by: int) -> int:
        return (value << by | value >> (32 - by)) & mask

    a = b = c = (0xDEADBEEF + len(data)) & mask
    at = 0
    while len(data) - at > 12:  # noqa: PLR2004  # its block
        a = (a + int.from_bytes(data[at : at + 4], "little")) & mask
        b = (b + int.from_bytes(data[at + 4 : at + 8], "little")) & mask
        c = (c + int.from_bytes(data[at + 8 : at + 12], "little")) & mask
        a = ((a - c) & mask) ^ rot(c, 4)
        c = (c + b) & mask
        b = ((b - a) & mask) ^ rot(a, 6)
        a = (a + c) & mask
        c = ((c - b) & mask) ^ rot(b, 8)
        b = (b + a) & mask
        a = ((a - c) & mask) ^ rot(c, 16)
        c = (c + b) & mask
        b = ((b - a) & mask) ^ rot(a, 19)
        a = (a + c) & mask
        c = ((c - b) & mask) ^ rot(b, 4)
        b = (b + a) & mask
        at += 12
    rest = data[at:].ljust(12, b"\0")
    a = (a + int.from_bytes(rest[:4], "little")) & mask
    b = (b + int.from_bytes(rest[4:8], "little")) & mask
    c = (c + int.from_bytes(rest[8:12], "little")) & mask
    c = ((c ^ b) - rot(b, 14)) & mask
    a = ((a ^ c) - rot(c, 11)) & mask
    b = ((b ^ a) - rot(a, 25)) & mask
    c = ((c ^ b) - rot(b, 16)) & mask
    a = ((a ^ c) - rot(c, 4)) & mask
    b = ((b ^ a) - rot(a, 14)) & mask
    return ((c ^ b) - rot(b, 24)) & mask


SIGNATURES = {
    b"OHDR": "headers", b"OCHK": "headers", b"EAHD": "indexes", b"EAIB": "indexes", b"EASB": "indexes",
    b"EADB": "indexes",
    b"FAHD": "indexes", b"FADB": "indexes", b"FRHP": "attributes", b"FHDB": "attributes", b"FHIB": "attributes",
    b"BTHD": "attributes", b"BTLF": "attributes", b"BTIN": "attributes",
}  # fmt: skip
TABLES = {
    "episodes": ("episodes",), "slots": ("status", "open"), "heap": ("heap",), "steps": ("steps",),
    "side": ("fingerprints", "kinds", "states"),
}  # fmt: skip
Spans = list[tuple[int, int]]


@dataclass
class Map:
    """Where things lie in a segment.

    Attributes:
        spans: [start, end) of each part, by what it is.
        sums: the same of blocks of metadata; the last four bytes are their checksum.
        used: offsets of the bytes that are not zero.
    """

    spans: dict[str, Spans] = field(default_factory=dict)
    sums: dict[str, Spans] = field(default_factory=dict)
    used: list[int] = field(default_factory=list)


def mapped(path: Path) -> Map:
    """Finds where things lie in a sound segment."""
    data = path.read_bytes()
    found = Map({"superblock": [(0, 48)]}, {"superblock": [(0, 48)]})
    found.used = [at for at, byte in enumerate(data) if byte]
    raw: Spans = []
    with h5py.File(path, "r", swmr=True, locking=False) as file:
        datasets: list[h5py.Dataset] = []
        file.visititems(lambda _, item: datasets.append(item) if isinstance(item, h5py.Dataset) else None)
        for dataset in datasets:
            table = next(kind for kind, names in TABLES.items() if dataset.name.split("/")[1] in names)
            for offset, size, filled in _pieces(dataset):
                raw.append((offset, offset + size))
                if filled:
                    found.spans.setdefault(table, []).append((offset, offset + filled))
    for signature, kind in SIGNATURES.items():
        at = data.find(signature)
        while at >= 0:
            if not any(start <= at < end for start, end in raw):
                end_of_block = _end_of_block(data, at)
                if end_of_block:
                    found.sums.setdefault(kind, []).append((at, end_of_block))
                found.spans.setdefault(kind, []).append((at, end_of_block or at + 64))
            at = data.find(signature, at + 4)
    return found


def _pieces(dataset: h5py.Dataset) -> list[tuple[int, int, int]]:
    """Lists where a dataset's bytes lie: offset, size, bytes that rows fill."""
    width = dataset.dtype.itemsize * int(np.prod(dataset.shape[1:], dtype=int))
    if not dataset.chunks:
        return [(dataset.id.get_offset(), dataset.shape[0] * width, dataset.shape[0] * width)]
    found = []
    for at in range(dataset.id.get_num_chunks()):
        chunk = dataset.id.get_chunk_info(at)
        rows = max(0, min(dataset.chunks[0], dataset.shape[0] - chunk.chunk_offset[0]))
        found.append((chunk.byte_offset, chunk.size, rows * width))
    return found


def _end_of_block(data: bytes, at: int, limit: int = 1400) -> int | None:
    """Finds where a block of metadata ends: where its checksum is right."""
    sizes = [size for size in range(16, limit) if any(data[at + size - 4 : at + size])]
    known = {
        b"FRHP": [146], b"BTHD": [38], b"BTLF": [512], b"FHDB": [512, 1024, 2048, 4096, 8192], b"EAHD": [72],
    }.get(data[at : at + 4])  # fmt: skip
    for size in known or sizes:
        block = data[at : at + size]
        if len(block) == size and lookup3(block[:-4]) == int.from_bytes(block[-4:], "little"):
            return at + size
    return None


@dataclass
class Seed:
    """A recorded run.

    Attributes:
        case: its name.
        folder: where it lies.
        truth: the file with what it gives out.
        maps: of its segments, by name.
    """

    case: str
    folder: Path
    truth: Path
    maps: dict[str, Map]


def _offsets(spans: Spans, random: Random, count: int) -> list[int]:
    chosen = random.choices(spans, [end - start for start, end in spans], k=count)
    return [random.randrange(start, end) for start, end in chosen]


def _few(random: Random) -> int:
    return random.choice((1, 1, 1, 1, 2, 3, 8, 64))


def _mostly(random: Random) -> bool:
    return bool(random.randrange(3))


def flip_anywhere(data: bytearray, places: Map, random: Random) -> str:
    """Flips bits of bytes that are not zero, of any, or both."""
    count = _few(random)
    offsets = [random.choice(places.used) if _mostly(random) else random.randrange(len(data)) for _ in range(count)]
    return _flip(data, offsets, random)


def _flip(data: bytearray, offsets: list[int], random: Random) -> str:
    bits = [(at, random.randrange(8)) for at in offsets]
    for at, bit in bits:
        data[at] ^= 1 << bit
    return "bits " + " ".join(f"{at}:{bit}" for at, bit in bits[:8])


def flip_in(kind: str) -> Any:
    """Makes damage that flips bits of one part."""

    def change(data: bytearray, places: Map, random: Random) -> str | None:
        spans = places.spans.get(kind)
        return _flip(data, _offsets(spans, random, _few(random)), random) if spans else None

    return change


def forge_in(kind: str) -> Any:
    """Makes damage to one block of metadata, whose checksum is put right again."""

    def change(data: bytearray, places: Map, random: Random) -> str | None:
        spans = places.sums.get(kind)
        if not spans:
            return None
        start, end = random.choice(spans)
        offsets = [random.randrange(start + 4, end - 4) for _ in range(random.choice((1, 1, 1, 2, 5)))]
        if _mostly(random):
            said = _flip(data, offsets, random)
        else:
            for at in offsets:
                data[at] = random.choice((0, 0xFF, 1, random.randrange(256)))
            said = f"bytes {offsets} of {bytes(data[start : start + 4])!r}"
        data[end - 4 : end] = lookup3(bytes(data[start : end - 4])).to_bytes(4, "little")
        return said

    return change


def fill(data: bytearray, places: Map, random: Random) -> str:
    """Overwrites a run of bytes."""
    start = random.choice(places.used) if _mostly(random) else random.randrange(len(data))
    length = min(len(data) - start, int(2 ** random.uniform(0, 12)))
    how = random.choice(("zeros", "ones", "noise"))
    data[start : start + length] = {
        "zeros": bytes(length), "ones": b"\xff" * length, "noise": random.randbytes(length),
    }[how]  # fmt: skip
    return f"{how} [{start}, {start + length})"


def zero_page(data: bytearray, places: Map, random: Random) -> str:
    """Zeroes pages of 4 kB."""
    pages = sorted({at // PAGE for at in places.used})
    chosen = random.sample(pages, min(len(pages), random.choice((1, 1, 1, 2, 5))))
    for page in chosen:
        length = len(data[page * PAGE : (page + 1) * PAGE])
        data[page * PAGE : page * PAGE + length] = bytes(length)
    return f"pages {chosen}"


def zero_rows(data: bytearray, places: Map, random: Random) -> str | None:
    """Zeroes a part of the episodes table."""
    spans = places.spans.get("episodes")
    if not spans:
        return None
    start, end = random.choice(spans)
    first, last = sorted(random.randrange(start, end + 1) for _ in range(2))
    data[first:last] = bytes(last - first)
    return f"[{first}, {last})"


def truncate(data: bytearray, places: Map, random: Random) -> str:
    """Cuts the end off."""
    size = random.choice(places.used) if _mostly(random) else random.randrange(len(data))
    del data[size:]
    return f"to {size}"


def extend(data: bytearray, _: Map, random: Random) -> str:
    """Appends garbage."""
    data += random.randbytes(random.randrange(1, 20000))
    return f"to {len(data)}"


def magic(data: bytearray, _: Map, random: Random) -> str:
    """Spoils the first bytes."""
    data[: random.randrange(1, 13)] = random.choice(
        (b"PK\x03\x04", b"\x89HDG\r\n\x1a\n", b"SQLite format 3\0", bytes(8))
    )
    return ""


def shifted(data: bytearray, _: Map, random: Random) -> str:
    """Puts bytes in, or takes some out, in the middle."""
    at, count = random.randrange(len(data)), random.randrange(1, 600)
    if _mostly(random):
        del data[at : at + count]
        return f"{count} out at {at}"
    data[at:at] = random.randbytes(count)
    return f"{count} in at {at}"


IN_PLACE: dict[str, tuple[Any, int]] = {  # a kind of damage, and how often
    "flipped bits": (flip_anywhere, 14),
    **{f"bits of {kind}": (flip_in(kind), 5) for kind in ("superblock", "headers", "indexes", "attributes", "slots")},
    **{f"bits of {kind}": (flip_in(kind), 6) for kind in ("episodes", "steps", "heap", "side")},
    "forged superblock": (forge_in("superblock"), 4),
    "forged headers": (forge_in("headers"), 10),
    "forged indexes": (forge_in("indexes"), 7),
    "forged attributes": (forge_in("attributes"), 7),
    "filled": (fill, 10),
    "zeroed pages": (zero_page, 8),
    "zeroed rows": (zero_rows, 5),
    "truncated": (truncate, 8),
    "extended": (extend, 2),
    "wrong magic": (magic, 2),
    "shifted": (shifted, 3),
}


def splice(run: Path, others: list[Path], random: Random) -> str:
    """Joins the first part of one segment and the rest of another."""
    path, other = _one(run, random), random.choice(others)
    mine, its = path.read_bytes(), other.read_bytes()
    at = random.randrange(min(len(mine), len(its))) if _mostly(random) else min(len(mine), len(its)) // 2
    path.write_bytes(mine[:at] + its[at:])
    return f"with {other.parent.parent.name} at {at}"


def swap(run: Path, _: list[Path], random: Random) -> str | None:
    """Swaps the names of two segments."""
    paths = sorted(run.glob("segment-*.h5"))
    if len(paths) < 2:  # noqa: PLR2004  # two to swap
        return None
    first, second = random.sample(paths, 2)
    spare = run / "spare"
    first.rename(spare)
    second.rename(first)
    spare.rename(second)
    return f"{first.name} and {second.name}"


def rename(run: Path, _: list[Path], random: Random) -> str:
    """Gives a segment another number."""
    path = max(run.glob("segment-*.h5"))
    path.rename(run / f"segment-{random.choice((3, 7, 123456)):05d}.h5")
    return path.name


def replace(run: Path, others: list[Path], random: Random) -> str:
    """Puts another run's segment in the place of one."""
    other = random.choice(others)
    _one(run, random).write_bytes(other.read_bytes())
    return f"by {other.parent.parent.name}"


def add_foreign(run: Path, others: list[Path], random: Random) -> str:
    """Adds another run's segment."""
    other = random.choice(others)
    (run / "segment-00007.h5").write_bytes(other.read_bytes())
    return f"of {other.parent.parent.name}"


def duplicate(run: Path, _: list[Path], random: Random) -> str:
    """Copies a segment to another name that looks like a segment's."""
    path = _one(run, random)
    number = int(path.stem.rpartition("-")[2])
    name = random.choice((
        f"segment-{number}.h5", f"segment-{number:06d}.h5", "segment-copy.h5", f"segment-{number:05d} (1).h5",
        f"segment-{number + 5:05d}.h5", "segment-.h5", "segment--1.h5", f"segment-0000{chr(0x0661)}.h5",
    ))  # fmt: skip
    how = random.choice(("copy", "link", "symlink"))
    if how == "copy":
        shutil.copy(path, run / name)
    else:
        (os.link if how == "link" else os.symlink)(path, run / name)
    return f"{how} {name}"


def add_thing(run: Path, _: list[Path], random: Random) -> str:
    """Adds what is no segment under the name of one."""
    path = run / "segment-00007.h5"
    what = random.choice(
        (
            "folder",
            "fifo",
            "dangling symlink",
            "symlink to itself",
            "device",
            "empty",
            "text",
            "foreign",
            "socket",
            "no.h5",
        )
    )
    match what:
        case "folder":
            path.mkdir()
        case "fifo":
            os.mkfifo(path)
        case "dangling symlink":
            path.symlink_to(run / "nowhere")
        case "symlink to itself":
            path.symlink_to(path)
        case "device":
            path.symlink_to("/dev/zero")
        case "empty":
            path.touch()
        case "text":
            path.write_text("step,reward\n1,2\n" * 9)
        case "foreign":
            with h5py.File(path, "w") as file:
                file["episodes"] = np.zeros(3)
                file.attrs["note"] = "variable-length text"
        case "socket":
            os.mknod(path, 0o140644)
        case _:
            (run / "other.h5").symlink_to(run / "nowhere")
    return what


def replace_by_thing(run: Path, others: list[Path], random: Random) -> str:
    """Puts what is no segment in the place of one."""
    path = _one(run, random)
    said = add_thing(run, others, random)
    if not os.path.lexists(run / "segment-00007.h5"):
        return "nothing"
    path.unlink()
    (run / "segment-00007.h5").rename(path)
    return said


def beside(run: Path, _: list[Path], random: Random) -> str:
    """Damages what lies beside the segments."""
    path = run / "run.json"
    what = random.choice(("gone", "empty", "noise", "list", "other", "folder"))
    if path.exists():
        path.unlink()
    match what:
        case "empty":
            path.touch()
        case "noise":
            path.write_bytes(random.randbytes(99))
        case "list":
            path.write_text("[1]")
        case "other":
            path.write_text('{"run": 7, "launch": null}')
        case "folder":
            path.mkdir()
    return what


def unreadable(run: Path, _: list[Path], random: Random) -> str:
    """Takes the right to read away: from a segment, or the folder."""
    path = random.choice((_one(run, random), run))
    path.chmod(0)
    return path.name


def vanishing(run: Path, _: list[Path], random: Random) -> str:
    """Takes a segment away."""
    path = _one(run, random)
    path.unlink()
    return path.name


def _one(run: Path, random: Random) -> Path:
    return random.choice(sorted(run.glob("segment-*.h5")))


IN_FOLDER: dict[str, tuple[Any, int]] = {
    "spliced": (splice, 5),
    "swapped names": (swap, 3),
    "renamed": (rename, 2),
    "another run's": (replace, 2),
    "foreign segment": (add_foreign, 3),
    "duplicate": (duplicate, 6),
    "no segment": (add_thing, 4),
    "in its place": (replace_by_thing, 3),
    "run.json": (beside, 2),
    "unreadable": (unreadable, 2),
    "gone": (vanishing, 1),
}
WEIGHTS = {
    **{kind: weight for kind, (_, weight) in IN_PLACE.items()},
    **{kind: w for kind, (_, w) in IN_FOLDER.items()},
}


def mutate(kind: str, seed: Seed, run: Path, others: list[Path], random: Random) -> str | None:
    """Makes a damaged copy of a run; returns what was done, or None where this run can't have that damage."""
    shutil.copytree(seed.folder, run)
    if kind in IN_FOLDER:
        said: str | None = IN_FOLDER[kind][0](run, others, random)
        return said
    path = _one(run, random)
    data = bytearray(path.read_bytes())
    said = IN_PLACE[kind][0](data, seed.maps[path.name], random)
    if said is not None:
        path.write_bytes(data)
    return said
