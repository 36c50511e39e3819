"""Damaged, hostile and foreign files: one clear error, or the damaged part left out; never a wrong episode."""

from __future__ import annotations

import gzip
import io
import json
import shutil
import subprocess
import sys
import threading
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zlib import crc32

import gymnasium as gym
import h5py
import numpy as np
import pytest

import reenact
from reenact import probe
from reenact import slots as slots_module

if TYPE_CHECKING:
    from collections.abc import Callable


def _fixed(data: bytes) -> bytes:
    """A segment with its text attributes at fixed length, so that no child has to try each damaged one first."""
    buffer = io.BytesIO(data)
    with h5py.File(buffer, "r+", libver=("v110", "v110")) as file:
        for name, value in list(file.attrs.items()):
            if isinstance(value, str):
                del file.attrs[name]
                file.attrs.create(name, np.array(value.encode(), f"S{max(1, len(value.encode()))}"))
    return buffer.getvalue()


GOLDEN = _fixed(gzip.decompress((Path(__file__).parent / "data" / "format-1" / "segment-00000.h5.gz").read_bytes()))
_SWMR_FLAGS = 0b101


@pytest.fixture(name="segment")
def _segment(tmp_path: Path) -> Path:
    path = tmp_path / "segment-00000.h5"
    path.write_bytes(GOLDEN)
    return path


def digest(path: Path) -> list[str]:
    """All that a run gives out of each of its episodes, by address."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run = reenact.open_run(path)
    found = []
    for number in range(len(run)):
        try:
            episode = run[number]
            found.append(f"{episode.address} {episode.data()!r} {episode.info} {episode.label} {episode.end_time}")
        except reenact.ReenactError as error:
            found.append(f"ReenactError {error}")
    return found


def edit(path: Path, change: Callable[[h5py.File], object]) -> None:
    """Changes a segment by bare h5py."""
    with h5py.File(path, "r+", libver=("v110", "v110"), locking=False) as file:
        change(file)


def refused(path: Path, match: str = ".") -> None:
    """Opening it raises one ReenactError of one line."""
    with pytest.raises(reenact.DamagedError, match=match) as caught:
        reenact.open_run(path)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, ValueError)


def sealed(row: np.void) -> np.void:
    """Gives a row its right CRC, as a forger would."""
    row["crc"] = crc32(row.tobytes()[:-4])
    return row


@pytest.mark.parametrize("content", [b"", b"x", b"step,reward\n1,2\n" * 99, b"\x89HDF\r\n\x1a\n", GOLDEN[:2000]])
def test_what_is_no_hdf5_is_refused(segment: Path, content: bytes) -> None:
    """An empty file, a text file and the mere beginning of a segment are refused in one line."""
    segment.write_bytes(content)
    refused(segment)


def test_a_foreign_hdf5_file_is_refused(segment: Path) -> None:
    """An HDF5 file that isn't ours says so."""
    segment.unlink()
    with h5py.File(segment, "w") as file:
        file["episodes"] = np.zeros(3)
    refused(segment, "not a segment that reenact wrote")


def test_another_segment_of_the_run_is_still_read(segment: Path) -> None:
    """In a run's folder an unreadable segment is left out with a warning that names it."""
    (segment.parent / "segment-00001.h5").write_bytes(b"nothing")
    with pytest.warns(UserWarning, match=r"segment-00001\.h5.*without this segment"):
        run = reenact.open_run(segment.parent)
    assert len(run) == 3


_SWEEP = """
import sys, pathlib, warnings, random
from reenact import probe
sys.path.insert(0, sys.argv[1])
import test_damaged as t, reenact
path, how, seed = pathlib.Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
random.seed(seed)
probe.PROBE_S = 3.0
path.write_bytes(t.GOLDEN)
good = set(t.digest(path))
used = [at for at, byte in enumerate(t.GOLDEN) if byte]
counts = {"same": 0, "refused": 0, "partly": 0}
for _ in range(int(sys.argv[5])):
    data = bytearray(t.GOLDEN)
    at = random.choice(used)
    if how == "flip":
        data[at] ^= 1 << random.randrange(8)
    elif how == "cut":
        del data[at:]
    else:
        at -= at % 512
        data[at:at + 512] = bytes(len(data[at:at + 512]))
    path.unlink(); path.write_bytes(data)
    try:
        found = t.digest(path)
    except reenact.ReenactError:
        counts["refused"] += 1
        continue
    for text in found:
        assert text in good or text.startswith("ReenactError"), (how, at, text)
    counts["same" if set(found) == good else "partly"] += 1
print(counts)
"""


@pytest.mark.parametrize(("how", "count"), [("flip", 30), ("cut", 15), ("zero", 25)])
def test_random_damage_gives_no_wrong_episode(tmp_path: Path, how: str, count: int) -> None:
    """Flipped bits, cuts and zeroed pages anywhere in a closed segment: what is given out is what was recorded."""
    done = subprocess.run(
        [sys.executable, "-c", _SWEEP, str(Path(__file__).parent), str(tmp_path / "segment-00000.h5"), how, "1", str(count)],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, (done.returncode, done.stderr[-2000:])
    counts = eval(done.stdout)  # noqa: S307  # our own child's dict
    assert counts["refused"] + counts["partly"] > 0  # the check can fail


@pytest.mark.parametrize("at", [60, 200, 500, 900])
def test_damage_to_an_unclosed_segment_ends_in_time(segment: Path, at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Damaged metadata under a writer's mark, where HDF5 itself may hang, is refused within the probe's limit."""
    monkeypatch.setattr(probe, "PROBE_S", 2.0)
    data = bytearray(_marked(GOLDEN))
    used = [offset for offset in range(48, len(data)) if data[offset]]
    data[used[at % len(used)]] ^= 0x10
    segment.write_bytes(data)
    good = set(digest_of(GOLDEN, segment.parent / "good"))
    try:
        found = digest(segment)
    except reenact.ReenactError as error:
        assert "\n" not in str(error)  # noqa: PT017  # either outcome is right
    else:
        assert all(text in good or text.startswith("ReenactError") for text in found)


def digest_of(data: bytes, folder: Path) -> list[str]:
    """The digest of a segment's bytes."""
    folder.mkdir()
    (folder / "segment-00000.h5").write_bytes(data)
    return digest(folder / "segment-00000.h5")


def _marked(data: bytes) -> bytes:
    """A closed segment as if its writer had been killed: with the writer's mark, and the checksum over it."""
    marked = bytearray(data)
    assert marked[8] == 3
    marked[11] |= _SWMR_FLAGS
    marked[44:48] = _lookup3(bytes(marked[:44])).to_bytes(4, "little")
    return bytes(marked)


def _lookup3(data: bytes) -> int:
    """Jenkins' lookup3, HDF5's checksum of metadata."""
    mask = 0xFFFFFFFF

    def rot(value: int, by: int) -> int:
        return (value << by | value >> (32 - by)) & mask

    a = b = c = (0xDEADBEEF + len(data)) & mask
    while len(data) > 12:
        a, b, c = (
            (a + int.from_bytes(data[0:4], "little")) & mask,
            (b + int.from_bytes(data[4:8], "little")) & mask,
            (c + int.from_bytes(data[8:12], "little")) & mask,
        )
        a = (a - c & mask) ^ rot(c, 4)
        c = c + b & mask  # as it is written everywhere
        b = (b - a & mask) ^ rot(a, 6)
        a = a + c & mask
        c = (c - b & mask) ^ rot(b, 8)
        b = b + a & mask
        a = (a - c & mask) ^ rot(c, 16)
        c = c + b & mask
        b = (b - a & mask) ^ rot(a, 19)
        a = a + c & mask
        c = (c - b & mask) ^ rot(b, 4)
        b = b + a & mask
        data = data[12:]
    data = data.ljust(12, b"\0")
    a = a + int.from_bytes(data[0:4], "little") & mask
    b = b + int.from_bytes(data[4:8], "little") & mask
    c = c + int.from_bytes(data[8:12], "little") & mask
    for x, by in ((0, 14), (1, 11), (2, 25), (0, 16), (1, 4), (2, 14), (0, 24)):
        if x == 0:
            c = (c ^ b) - rot(b, by) & mask
        elif x == 1:
            a = (a ^ c) - rot(c, by) & mask
        else:
            b = (b ^ a) - rot(a, by) & mask
    return c


def test_a_segment_with_the_writers_mark_is_read(segment: Path) -> None:
    """The mark alone, as a kill just before the close leaves it, costs nothing."""
    expected = digest(segment)
    segment.write_bytes(_marked(GOLDEN))
    with pytest.raises(OSError, match="already open"):
        h5py.File(segment, "r")
    assert digest(segment) == expected


def test_a_probe_that_hangs_is_given_up(segment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A child that doesn't come back within the limit means a damaged segment."""
    segment.write_bytes(_marked(GOLDEN))
    monkeypatch.setattr(probe, "PROBE_S", 0.3)
    monkeypatch.setattr(probe, "_idle", [])
    monkeypatch.setattr(probe, "_PROBE", 'import time; print("0", flush=True); time.sleep(60)')
    refused(segment, "did not open it in")


def test_an_idle_probe_is_not_asked_when_it_is_about_to_end(segment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends itself after half a minute: in the middle of a file, that would be taken for damage."""
    monkeypatch.setattr(probe, "_idle", [])
    assert probe.try_all([segment]) == {segment: ""}
    first = probe._idle[0]  # noqa: SLF001  # which child it is
    assert probe.try_all([segment]) == {segment: ""}
    assert probe._idle == [first]  # noqa: SLF001
    monkeypatch.setattr(probe, "_IDLE_S", 0.0)
    assert probe.try_all([segment]) == {segment: ""}
    assert first not in probe._idle  # noqa: SLF001
    assert not first.usable
    probe._end()  # noqa: SLF001


def test_a_probe_begun_early_tries_the_first_file(segment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command starts it before its imports; a file is tried by that one, and no second one is started."""
    monkeypatch.setattr(probe, "_idle", [])
    probe.begin()
    (begun,) = probe._idle  # noqa: SLF001  # which child it is
    monkeypatch.setattr(probe, "_Child", None)
    assert probe.try_all([segment]) == {segment: ""}
    assert probe._idle == [begun]  # noqa: SLF001
    probe._end()  # noqa: SLF001


def test_a_probe_is_begun_once_and_not_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who opens run after run has one child that waits, and a fresh one in its place once it is about to end."""
    monkeypatch.setattr(probe, "_idle", [])
    probe.begin()
    probe.begin()
    (begun,) = probe._idle  # noqa: SLF001  # which child it is
    monkeypatch.setattr(probe, "_IDLE_S", 0.0)
    probe.begin()
    (other,) = probe._idle  # noqa: SLF001
    assert other is not begun
    assert not begun.usable
    probe._end()  # noqa: SLF001


_EARLY = """
import sys
import reenact
from reenact import probe
found = []
probe.begin, begin = lambda: (found.append(sorted({"h5py", "numpy", "reenact.run"} & set(sys.modules))), begin()), probe.begin
run = reenact.open_run(sys.argv[1])
print(found, len(run))
"""


def test_the_probe_starts_before_the_rooms_that_read_are_imported(segment: Path) -> None:
    """The child's start and this process's imports take as long as each other, and go on at the same time."""
    done = subprocess.run([sys.executable, "-c", _EARLY, segment], capture_output=True, text=True, check=True)
    found, episodes = done.stdout.rsplit(maxsplit=1)
    assert found == "[[]]"
    assert int(episodes) > 0


def test_a_probe_begun_early_where_none_can_be(segment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What keeps it from being started is told when the first file is opened, in one line."""
    monkeypatch.setattr(probe, "_idle", [])
    monkeypatch.setattr(sys, "executable", "")
    probe.begin()
    refused(segment, "Python interpreter")


@pytest.mark.parametrize(("name", "value"), [("executable", ""), ("executable", None), ("frozen", True)])
def test_without_an_interpreter(name: str, value: object, segment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A frozen program would start itself, which would start itself; an embedded one has nothing to start."""
    monkeypatch.setattr(probe, "_idle", [])
    monkeypatch.setattr(sys, name, value, raising=False)
    refused(segment, "Python interpreter")


def test_an_import_path_that_is_no_text(segment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python passes over what is no text in sys.path, and so does the probe."""
    monkeypatch.setattr(probe, "_idle", [])
    monkeypatch.setattr(sys, "path", [*sys.path, segment.parent])
    assert probe.try_all([segment]) == {segment: ""}
    probe._end()  # noqa: SLF001


def test_a_damaged_row_moves_no_address(segment: Path) -> None:
    """An episode whose row is damaged is left out with a warning; those behind it keep their addresses."""

    def change(file: h5py.File) -> None:
        row = file["episodes"][1]
        row["return"] = 9
        file["episodes"][1] = row

    expected = digest(segment)
    edit(segment, change)
    with pytest.warns(UserWarning, match="1 damaged episode"):
        run = reenact.open_run(segment)
    assert [episode.address for episode in run] == ["0.0", "0.2"]
    assert digest(segment)[0] == expected[0]
    with pytest.raises(reenact.EpisodeNotFoundError):
        run["0.1"]


@pytest.mark.parametrize("name", ["steps/reward", "steps/action/move", "steps/action/force"])
def test_a_changed_step_damages_its_episode_alone(segment: Path, name: str) -> None:
    """One changed value makes its own episode a DamagedError, and leaves the others readable."""

    def change(file: h5py.File) -> None:
        file[name][4] = 0.125 if name != "steps/action/move" else 3

    edit(segment, change)
    run = reenact.open_run(segment)
    assert run[0].data().length == run[2].data().length + 3
    with pytest.raises(reenact.DamagedError, match="are damaged"):
        run[1].data()


@pytest.mark.parametrize(
    ("field", "value", "match"),
    [
        ("first_step", 2**63, "beyond"), ("n_actions", 2**32 - 1, "beyond"), ("first_step", 10**6, "beyond"),
        ("n_fingerprints", 2**32 - 1, "beyond"), ("first_fingerprint", 2**64 - 1, "beyond"), ("first_state", 99, "beyond"),
        ("details", (2**40, 5, 0), "beyond"), ("details", (0, 2**32 - 1, 0), "heap"), ("details", (0, 5, 0), "damaged"),
        ("kind", 2**50, "missing"),
    ],
)  # fmt: skip
def test_forged_references_are_out_of_bounds(segment: Path, field: str, value: Any, match: str) -> None:
    """A row with a right CRC that points anywhere but into its segment raises a DamagedError, and takes no memory."""

    def change(file: h5py.File) -> None:
        row = file["episodes"][1]
        row[field] = value
        file["episodes"][1] = sealed(row)

    edit(segment, change)
    with pytest.raises(reenact.DamagedError, match=match):
        reenact.open_run(segment)[1].data()


def _replace(name: str, make: Callable[[h5py.File, np.ndarray], object]) -> Callable[[h5py.File], object]:
    def change(file: h5py.File) -> None:
        rows = file[name][:]
        del file[name]
        make(file, rows)

    return change


def _external(file: h5py.File, rows: np.ndarray) -> None:
    file.create_dataset("steps/reward", rows.shape, rows.dtype, external=[("/etc/passwd", 0, 8 * len(rows))])


def _virtual(file: h5py.File, rows: np.ndarray) -> None:
    layout = h5py.VirtualLayout(rows.shape, rows.dtype)
    layout[:] = h5py.VirtualSource("/tmp/other.h5", "reward", rows.shape)  # noqa: S108  # never opened
    file.create_virtual_dataset("steps/reward", layout)


def _external_link(file: h5py.File, _: np.ndarray) -> None:
    file["steps/reward"] = h5py.ExternalLink("/tmp/other.h5", "/reward")  # noqa: S108  # never opened


def _soft_link(file: h5py.File, rows: np.ndarray) -> None:
    file["hidden"] = rows
    file["steps/reward"] = h5py.SoftLink("/hidden")


def _group(file: h5py.File, _: np.ndarray) -> None:
    file.create_group("steps/reward")


def _text(file: h5py.File, rows: np.ndarray) -> None:
    file.create_dataset("steps/reward", rows.shape, h5py.string_dtype())


def _filtered(file: h5py.File, rows: np.ndarray) -> None:
    file.create_dataset("steps/reward", data=rows, compression="lzf", chunks=(4,))


def _scalar(file: h5py.File, _: np.ndarray) -> None:
    file["steps/reward"] = 1.0


def _absurd(file: h5py.File, rows: np.ndarray) -> None:
    file.create_dataset("steps/reward", (2**50,), rows.dtype, chunks=(4096,), maxshape=(None,))


def _gone(_: h5py.File, __: np.ndarray) -> None:
    pass


@pytest.mark.parametrize(
    "make",
    [_external, _virtual, _external_link, _soft_link, _group, _text, _filtered, _scalar, _absurd, _gone],
)
def test_only_plain_datasets_are_read(segment: Path, make: Callable[[h5py.File, np.ndarray], object]) -> None:
    """Links, external and virtual storage, foreign filters, other types and absurd sizes are refused on opening."""
    edit(segment, _replace("steps/reward", make))
    refused(segment, "reward")


def test_a_table_of_absurd_length_is_refused(segment: Path) -> None:
    """An episodes table that claims more rows than the file can hold is refused at once."""
    edit(segment, lambda file: file["episodes"].resize((2**40,)))
    refused(segment, "can't hold")


def test_a_link_in_the_place_of_a_group_is_refused(segment: Path) -> None:
    """A link to another file in the place of `steps` is not followed."""

    def change(file: h5py.File) -> None:
        file.move("steps", "hidden")
        file["steps"] = h5py.SoftLink("/hidden")

    edit(segment, change)
    refused(segment, "link")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("columns", "["), ("columns", "[]"), ("columns", '["reward"]'), ("columns", '[["x"]]'), ("columns", "7"),
        ("columns", json.dumps(["action/../../etc", "reward"])), ("info_keywords", "{}"), ("info_keywords", '["a","b"]'),
        ("action_space", "nope"), ("action_space", '{"$callable":"os:system"}'), ("action_space", '{"$space":"Discrete","kwargs":{"n":2}}'),
        ("action_space", '{"$space":"Box","kwargs":{"low":0,"high":1,"shape":[99999999999]}}'), ("action_space", "[" * 100000),
        ("action_space", "7"), ("version", "one"), ("format", "other"),
    ],
)  # fmt: skip
def test_forged_attributes_are_refused(segment: Path, name: str, value: str) -> None:
    """Attributes that don't go with the datasets are refused in one line."""

    def change(file: h5py.File) -> None:
        file.attrs.create(name, np.array(value[:60000].encode()))

    edit(segment, change)
    refused(segment)


def test_a_missing_attribute_is_refused(segment: Path) -> None:
    """A segment without its columns' names is refused."""
    edit(segment, lambda file: file.attrs.__delitem__("columns"))
    refused(segment)


@pytest.mark.parametrize("mark", [False, True])
def test_a_half_written_slot_leaves_the_one_before(segment: Path, mark: bool) -> None:
    """Where the later status is torn the earlier one stands; only the writer's mark says that it was not closed."""

    def change(file: h5py.File) -> None:
        slots = file["status"][:]
        later = int(slots["sequence"].argmax())
        slots[later]["heartbeat"] += 1
        file["status"][:] = slots

    edit(segment, change)
    if mark:
        segment.write_bytes(_marked(segment.read_bytes()))
    run = reenact.open_run(segment)
    assert run.segments[0].state == ("killed" if mark else "closed")
    assert len(run) == 3


@pytest.mark.parametrize("mended", [False, True])
@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize(("slots", "live"), [((0,), 1), ((1,), 1), ((0, 1), 0)])
def test_a_running_episode_whose_slots_are_damaged_is_missed(
    slots: tuple[int, ...], live: int, zeros: bool, mended: bool, tmp_path: Path
) -> None:
    """While a segment is written, a slot may be half written, but not for long: then it is damaged, and that is said."""
    env = reenact.Recorder(gym.make("CartPole-v1"), tmp_path / "run")
    env.reset(seed=1)
    for _ in range(3):
        env.step(0)
        env.flush()
    copy = tmp_path / "copy"
    shutil.copytree(tmp_path / "run", copy)  # the writer lives, and does not mend this one
    env.close()
    path = copy / "segment-00000.h5"
    with h5py.File(path, "r", swmr=True, locking=False) as file:
        offset, size = file["open"].id.get_offset(), file["open"].dtype.itemsize
    whole = path.read_bytes()
    newest = max((0, 1), key=lambda slot: whole[offset + slot * size])  # by its sequence
    data = bytearray(whole)
    for slot in slots:
        at = offset + slot * size
        data[at : at + size] = bytes(size) if zeros else [data[at] ^ 1, *data[at + 1 : at + size]]
    path.write_bytes(data)
    writer = threading.Timer(0.1, path.write_bytes, [whole]) if mended else None
    reads = slots_module.Slots.lost_open

    def while_it_is_written(self: slots_module.Slots, *, alive: bool) -> bool:
        if writer is not None:
            writer.start()
        return reads(self, alive=alive)

    with warnings.catch_warnings(record=True) as said, pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("always")
        patch.setattr(slots_module.Slots, "lost_open", while_it_is_written)
        patch.setattr(slots_module, "_WRITE_S", 20.0 if mended else 0.05)
        run = reenact.open_run(copy)
    assert run.segments[0].state == "live"
    assert len(run.live) == live
    # of zeros, the older one says nothing that the newer one does not
    lost = not mended and (not zeros or newest in slots)
    assert ["1 damaged episode of" in str(warning.message) for warning in said] == [True] * lost


def test_a_killed_segment_without_a_status_claims_no_last_episode(segment: Path) -> None:
    """Where nothing tells who writes, the episode that ran is not called interrupted: it may run still."""
    edit(segment, lambda file: file["status"].__setitem__(slice(None), np.zeros(2, file["status"].dtype)))
    segment.write_bytes(_marked(segment.read_bytes()))
    with pytest.warns(UserWarning, match="1 damaged episode"):
        run = reenact.open_run(segment)
    assert (len(run), run.live, run.segments[0].state) == (3, [], "killed")


@pytest.mark.parametrize("name", ["segment-0.h5", "segment-00000 (1).h5", "segment-copy.h5", "segment-00001.h5"])
def test_a_copy_in_the_folder_is_left_out(segment: Path, name: str) -> None:
    """A second file of one segment, by whatever name, adds no episode, and opening ends."""
    (segment.parent / name).write_bytes(GOLDEN)
    with pytest.warns(UserWarning, match="without this segment"):
        run = reenact.open_run(segment.parent)
    assert [episode.address for episode in run] == ["0.0", "0.1", "0.2"]
