"""The vocabulary of format version 1: every name, dtype and number that stands in a segment, once.

A segment is one HDF5 file. All integers are little-endian. Row ranges are half-open: [first, first + count).

    /steps/action/<leaf>  one column a leaf of the action space, one row a step
    /steps/reward         float64
    /steps/duration       float32, seconds since the previous step or reset returned (only if asked for)
    /fingerprints         sparse checksums of observations
    /kinds                in what Python and NumPy types the actions were given, run-length encoded
    /states               RNG states and snapshots that an episode can be started from
    /heap                 uint8: the JSON and state bytes that heap references point into
    /episodes             one row a reset: the episode that followed it
    /open                 the episode still running, of a batch those, in two alternating slots
    /status               who writes, and until when, in two alternating slots
    /kept                 uint8, one a row of /episodes: a Kept; only where not all episodes' steps are there

In the segment of a vector env `batch_width` rows of steps lie together: those of one vector step, lane after lane. An
episode's rows are `first_step`, `first_step + batch_width`, …; a row that belongs to no episode is of a lane that
rested: an autoreset's (`autoreset` is "next_step"), whose reward is NaN, or one stepped after its end.

Each row of steps is under a CRC: an episode's under its `column_crcs`, those that an env, or a lane, rested under the
`rest_crcs` of the reset that follows, or, as long as there is none, of the row in `open`, whose `used` is 0 then.

A packed file is one HDF5 file, too: a group a segment, with a segment's attributes and datasets. What was left out
of it, or was damaged before, is a hole: the rows of the other datasets keep their places, and holes read as zeros.
"""

from __future__ import annotations

import enum
from typing import Any
from zlib import crc32

import numpy as np

FORMAT = "reenact-segment"
PACK_FORMAT = "reenact-pack"
VERSION = 1

STEP_CHUNK = 4096  # rows; 4k to 16k measured best for size and speed (evidence: storage, Layout)
EPISODE_CHUNK = 256
HEAP_CHUNK = 65536  # bytes
SIDE_CHUNK = 1024  # rows of fingerprints, kinds and states
BLOCK_STEPS = 4096  # a commit is due after so many steps

SEGMENT_NAME = "segment-{:05d}.h5"
SEGMENT_GLOB = "segment-*.h5"
SEGMENT_GROUP = "segment-{:05d}"
CLAIM_NAME = "segment-{:05d}.claim"
CLAIM_GLOB = "segment-*.claim"
RUN_FILE = "run.json"
LAUNCH_FILE = "launch-{}.json"

ACTION_GROUP = "steps/action"
REWARD = "steps/reward"
DURATION = "steps/duration"
FINGERPRINTS = "fingerprints"
KINDS = "kinds"
STATES = "states"
HEAP = "heap"
EPISODES = "episodes"
OPEN = "open"
STATUS = "status"
KEPT = "kept"


class Ended(enum.IntEnum):
    """How an episode ended, as the episodes table keeps it."""

    NOTHING = 0  # a reset without a step: kept for chaining, no episode
    TERMINATED = 1
    TRUNCATED = 2
    INTERRUPTED = 3  # a reset, a close or a Ctrl-C came first
    ERRORED = 4  # the env raised


class StateKind(enum.IntEnum):
    """How to read the bytes of a row in `states`."""

    UNKNOWN = 0  # never written: what a reader makes of a kind that a later version added
    PCG64 = 1  # np.random.Generator(PCG64): state, inc (16 bytes each), has_uint32 (1), uinteger (4)
    RNG_JSON = 2  # any other bit generator or RandomState: zlib over tagged JSON
    NESTED = 3  # further RNGs that the env holds: zlib over tagged JSON, [[place, state], ...]
    SNAPSHOT = 4  # the simulator's own state: a family's name, a zero byte, zlib over its bytes
    ENTROPY = 5  # the seed that the env drew for itself in an unseeded reset, found afterwards: little-endian


class Kept(enum.IntEnum):
    """What a copy holds of an episode beside its row, label and details."""

    LEFT = 0  # nothing: it was not asked for
    PICKED = 1  # everything; without `kept`, all episodes are
    NEEDED = 2  # everything, since a picked one can't be started again without it
    LOST = 3  # nothing: it was damaged when the copy was made


NO_SEED = -(2**63)
"""In the column `seed`: the reset had none, or one beyond int64 (then it stands in `details`)."""

REF = np.dtype([("offset", "<u8"), ("length", "<u4"), ("crc", "<u4")])
"""A heap reference: bytes [offset, offset + length) and their CRC-32; length 0 means nothing."""

FINGERPRINT_ROW = np.dtype([("step", "<u4"), ("checksum", "<u4")])
"""`step` counts within the episode: 0 is the observation that reset returned."""

KIND_ROW = np.dtype([("step", "<u8"), ("kind", REF), ("crc", "<u4")])
"""From row `step` of the steps on, actions are of the kind whose JSON the heap holds."""

STATE_ROW = np.dtype(
    [
        ("episode", "<u8"),  # row in `episodes`; of a vector env's any: each row there says which are its states
        ("step", "<u4"),  # the env steps done in that episode when it was taken; 0: before its reset
        ("kind", "<u1"),  # StateKind
        ("data", REF),
        ("crc", "<u4"),
    ]
)

STATUS_ROW = np.dtype(
    [
        ("sequence", "<u8"),  # the slot with the higher number is the later one
        ("host", "S64"),
        ("pid", "<i8"),
        ("boot", "S40"),
        ("started", "<i8"),  # the process's start, in clock ticks since boot (Linux), else 0
        ("heartbeat", "<i8"),  # ns since 1970: the last commit
        ("closed", "<u1"),
        ("crc", "<u4"),
    ]
)


def segment_number(name: str) -> int | None:
    """Returns the number in a segment's file name; None for a name that no segment is given."""
    digits = name.removeprefix("segment-").removesuffix(".h5")
    number = int(digits) if digits.isdecimal() and digits.isascii() else -1
    return number if name == SEGMENT_NAME.format(number) else None


def seal(row: Any) -> None:
    """Sets a row's last field, `crc`, to the CRC-32 of all the bytes before it."""
    row["crc"] = crc32(row.tobytes()[:-4])


def opaque(rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Returns a view of rows without their fields: NumPy copies these forty times as fast."""
    return rows.view(f"V{rows.dtype.itemsize}")


def seal_rows(rows: np.ndarray[Any, Any]) -> None:
    """Seals rows that lie one after another, at a tenth of the price of one by one."""
    size = rows.dtype.itemsize
    bodies = rows.view(np.dtype({"names": ["body"], "formats": [f"V{size - 4}"], "itemsize": size}))["body"]
    rows["crc"] = list(map(crc32, bodies.tolist()))


def home(run: str, segment: int) -> int:
    """Returns what all rows of a segment bear: pages of another segment, in its file, must not pass for its own."""
    return crc32(f"{run} {segment}".encode())


def episode_row(
    n_columns: int, info_keywords: tuple[str, ...], *, indexed: bool = True, rests: bool = True
) -> np.dtype[Any]:
    """Returns the dtype of a row in `episodes`.

    Args:
        n_columns: how many columns of `steps` there are: the CRCs' number, in the order that `columns`
            in the header lists them; the episode's fingerprints follow as one more.
        info_keywords: names of the values taken from the last info.
        indexed: whether rows hold their `home` and `index`: the first segments of version 1 did not.
        rests: whether rows hold `rest_crcs`, of the steps' rows between the end of the env's or lane's episode before,
            or the segment's beginning, and `first_step`: the first segments of version 1 did not.
    """
    fields: list[tuple[Any, ...]] = [
        ("first_step", "<u8"),  # row in `steps`
        ("length", "<u4"),  # env steps that returned
        ("n_actions", "<u4"),  # rows in `steps`: length, and one more where a step raised
        ("seed", "<i8"),
        ("ended", "<u1"),  # Ended
        ("return", "<f8"),
        ("elapsed", "<f8"),  # seconds from reset's return to the end
        ("end_time", "<i8"),  # ns since 1970, never less than the row before
        ("lane", "<i4"),  # sub-env of a vector env; -1: none
        ("label", REF),
        ("details", REF),  # tagged JSON: options, error, seed beyond int64
        ("first_fingerprint", "<u8"),
        ("n_fingerprints", "<u4"),
        ("kind", "<u8"),  # row in `kinds` in force at the first step
        ("first_state", "<u8"),
        ("n_states", "<u1"),
    ]
    if indexed:
        fields.append(("home", "<u4"))  # as `home` gives it
        # Episodes before it in the segment; in `open` of a vector env that and its lane, whichever lanes run: neither a
        # damaged row nor a damaged slot must move an address. (The first segments counted the lanes that ran.)
        fields.append(("index", "<u4"))
    if info_keywords:
        fields.append(("info", "<f8", (len(info_keywords),)))
    fields.append(("column_crcs", "<u4", (n_columns + 1,)))
    if rests:
        fields.append(("rest_crcs", "<u4", (n_columns,)))
    fields.append(("crc", "<u4"))
    return np.dtype(fields)


def open_row(row: np.dtype[Any], width: int = 1) -> np.dtype[Any]:
    """Returns the dtype of a slot in `open`: of a batch, there is a row a lane.

    While no episode runs `used` is 0, and the row is that of a reset which might come now: in `first_step` and
    `rest_crcs` it says what has been done since the last end.
    """
    if width == 1:
        return np.dtype([("sequence", "<u8"), ("used", "<u1"), ("row", row), ("crc", "<u4")])
    return np.dtype([("sequence", "<u8"), ("used", "<u1", (width,)), ("row", row, (width,)), ("crc", "<u4")])
