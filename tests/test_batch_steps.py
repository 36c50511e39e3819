"""What a vector env did as one is given out with the checksums of all lanes compared, or not at all."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any
from zlib import crc32

import h5py
import numpy as np
import pytest

import reenact
from reenact import VectorRecorder
from vector_envs import ALL_MODES, DISABLED, TERMINATE, TRUNCATE, WIDTH, AutoresetMode, make

HERE = Path(__file__).resolve().parent

ACTIONS = {2: {0: TERMINATE}, 3: {1: TRUNCATE}, 6: {2: TERMINATE}, 8: {0: TERMINATE, 1: TERMINATE}, 10: {2: TRUNCATE}}
STEPS = 13


def record(folder: Path, mode: AutoresetMode) -> VectorRecorder:
    """Trains; lanes that are not reset by themselves rest for two steps; all that was done is committed."""
    envs = VectorRecorder(make("batch", mode), folder)
    envs.reset(seed=3)
    over: dict[int, int] = {}
    for step in range(STEPS):
        ends = ACTIONS.get(step, {})
        envs.step(np.array([ends.get(lane, 0) for lane in range(WIDTH)]))
        over |= dict.fromkeys(ends, step)
        rested = [lane for lane, end in over.items() if end == step - 2]
        if mode is DISABLED and rested:
            envs.reset(options={"reset_mask": np.isin(np.arange(WIDTH), rested)})
        if step % 5 == 4:
            envs.flush()
    envs.flush()
    return envs


def poke(path: Path, row: int) -> None:
    """Alters an action where it lies in the file: to another that the env would take."""
    with h5py.File(path, "r", swmr=True, locking=False) as file:
        column = file["steps/action/value"]
        offset = column.id.get_chunk_info(0).byte_offset + row * column.dtype.itemsize
    data = bytearray(path.read_bytes())
    data[offset] ^= 2
    path.write_bytes(data)


def moves(run: Path) -> tuple[dict[str, tuple[int, int]], dict[str, Any], dict[int, Any]]:
    """What is given out: from where to where each episode goes, its moves, and each lane's acts; None: a DamagedError."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        opened = reenact.open_run(run)
    spans: dict[str, tuple[int, int]] = {}
    data: dict[str, str | None] = {}
    acts: dict[int, list[str] | None] = {}
    reader = opened.tables[0].reader
    rows = {f"0.{row['index']}": row for row in reader.rows(0, reader.rows_seen)}
    rows |= {episode.address: row for episode, row in zip(opened.live, opened.tables[0].live, strict=True)}
    for episode in [*opened, *opened.live]:
        begin = int(rows[episode.address]["first_step"]) // WIDTH
        spans[episode.address] = (begin, begin + int(rows[episode.address]["n_actions"]))
        try:
            data[episode.address] = repr(episode.data().actions)
        except reenact.DamagedError:
            data[episode.address] = None
    for lane in range(WIDTH):
        lineage = opened.lineage(0, lane)
        try:
            acts[lane] = [repr(act) for act in lineage.acts(0, lineage.resets)]
        except reenact.DamagedError:
            acts[lane] = None
    reader.close()
    return spans, data, acts


@pytest.mark.parametrize("closed", [True, False])
@pytest.mark.parametrize("mode", ALL_MODES)
def test_an_altered_action_of_any_lane_is_not_given_out(mode: AutoresetMode, closed: bool, tmp_path: Path) -> None:
    """Of each row of the actions: every episode during which it was done is refused, what is given out is as it was."""
    envs = record(tmp_path / "run", mode)
    if closed:
        envs.close()
    else:
        shutil.copytree(tmp_path / "run", tmp_path / "live")
    sound = tmp_path / ("run" if closed else "live")
    spans, truth, acts = moves(sound)
    assert None not in truth.values()
    assert None not in acts.values()
    assert len({lane for lane in acts if acts[lane]}) == WIDTH
    unharmed = 0
    for row in range(STEPS * WIDTH):
        altered = tmp_path / f"altered-{row}"
        shutil.copytree(sound, altered)
        poke(altered / "segment-00000.h5", row)
        _, found, found_acts = moves(altered)
        for address, (begin, end) in spans.items():
            # another lane's episode may reach into it, and be damaged outside
            allowed = [None] if begin <= row // WIDTH < end else [None, truth[address]]
            assert found[address] in allowed, (row, address)
        unharmed += sum(one is not None for one in found.values())
        assert all(found_acts[lane] in (None, acts[lane]) for lane in acts), row
        assert None in [*found.values(), *found_acts.values()], row
        shutil.rmtree(altered)
    assert unharmed > STEPS * WIDTH
    if not closed:
        envs.close()


KILLED = """
import os, signal, sys
import numpy as np
import reenact
from vector_envs import DISABLED, make

envs = reenact.VectorRecorder(make("batch", DISABLED), sys.argv[1])
for seed in range(3):  # the second one's episodes have no step
    envs.reset(seed=seed)
    for _ in range(3 * (seed != 1)):
        envs.step(np.zeros(3, int))
envs.flush()
os.kill(os.getpid(), signal.SIGKILL)
"""


def killed(run: Path, script: str, *arguments: str) -> Path:
    """Has a process record into a run until it kills itself; returns its segment."""
    path = os.pathsep.join(map(str, (HERE, HERE.parent / "src")))
    done = subprocess.run(
        [sys.executable, "-c", script, run, *arguments], env={**os.environ, "PYTHONPATH": path}, check=False
    )
    assert done.returncode == -signal.SIGKILL
    return run / "segment-00000.h5"


def test_damaged_rows_at_the_end_move_no_address_of_what_ran(tmp_path: Path) -> None:
    """Of a killed vector env: where the rows of resets without a step are zeroed, what ran has the index it had."""
    segment = killed(tmp_path / "run", KILLED)
    sound = [episode.address for episode in reenact.open_run(tmp_path / "run") if episode.ended == "interrupted"]
    with h5py.File(segment, "r", swmr=True, locking=False) as file:
        rows = file["episodes"]
        assert rows["length"].tolist() == [3, 3, 3, 0, 0, 0]
        begin = rows.id.get_chunk_info(0).byte_offset + 3 * rows.dtype.itemsize
        end = begin + 3 * rows.dtype.itemsize
    data = bytearray(segment.read_bytes())
    data[begin:end] = bytes(end - begin)
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / segment.name).write_bytes(data)
    with pytest.warns(UserWarning, match="damaged"):
        found = reenact.open_run(tmp_path / "damaged")
    assert [episode.address for episode in found if episode.ended == "interrupted"] == sound


KILLED_AMID_ENDS = """
import os, signal, sys
import numpy as np
import reenact
from vector_envs import ALL_MODES, DISABLED, make

mode, random = ALL_MODES[int(sys.argv[2])], np.random.default_rng(int(sys.argv[3]))
envs = reenact.VectorRecorder(make("batch", mode, 6), sys.argv[1])
envs.reset(seed=0)
for step in range(int(random.integers(12, 24))):
    actions = random.choice(3, 6, p=[0.8, 0.1, 0.1])
    envs.step(actions)
    if mode is DISABLED and (actions != 0).any():
        envs.reset(options={"reset_mask": actions != 0})
    if step % 3 == 2:
        envs.flush()
envs.flush()
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("mode", range(len(ALL_MODES)))
@pytest.mark.parametrize("seed", ["1", "2", "3"])
def test_a_damaged_slot_moves_no_address_of_what_ran(mode: int, seed: str, tmp_path: Path) -> None:
    """Of a killed vector env: where either slot of `open` is damaged, each episode that is listed has the address it had."""
    segment = killed(tmp_path / "run", KILLED_AMID_ENDS, str(mode), seed)

    def addresses(run: Path) -> dict[tuple[int, float], str]:
        return {(one.lane, float(one.rewards[0])): one.address for one in reenact.open_run(run)}

    sound = addresses(tmp_path / "run")
    with h5py.File(segment, "r", swmr=True, locking=False) as file:
        sequences = file["open"]["sequence"].tolist()
        ended = int((file["episodes"]["ended"] != 0).sum())
        begin, size = file["open"].id.get_offset(), file["open"].dtype.itemsize
        episodes = file["episodes"]
        rows, row_size = len(episodes), episodes.dtype.itemsize
        counted = set(np.flatnonzero(episodes["ended"] != 0).tolist())
        table = episodes.id.get_chunk_info(0).byte_offset
    assert len(sound) > ended
    assert sorted(sound.values(), key=lambda one: int(one[2:])) == list(sound.values())
    whole = segment.read_bytes()

    def damaged(*places: int) -> dict[tuple[int, float], str]:
        data = bytearray(whole)
        for place in places:
            data[place] ^= 1
        folder = tmp_path / f"damaged-{places}"
        folder.mkdir()
        (folder / segment.name).write_bytes(data)
        with pytest.warns(UserWarning, match="damaged"):
            return addresses(folder)

    newest = sequences.index(max(sequences))
    slots = [begin + slot * size + 20 for slot in range(2)]
    assert damaged(slots[1 - newest]) == sound
    found = damaged(slots[newest])
    assert found.items() <= sound.items()
    assert len(found) >= ended
    for row in range(rows):  # one that ended may have ended after what the older slot says
        place = table + row * row_size + 8
        assert len(damaged(place)) == len(sound) - (row in counted)
        found = damaged(place, slots[newest])
        assert found.items() <= sound.items()
        assert len(found) >= ended - 1
        # where the last commit brought no steps, the older slot says the same
        assert len(found) in (ended - 1, len(sound) - 1) or row < rows - 1
    # as if the kill had come when the rows of the last commit were there, and nothing said of it: they are newer
    with h5py.File(segment, "r", swmr=True, locking=False) as file:
        places = [(file[name].id.get_offset(), file[name].dtype.itemsize) for name in ("open", "status")]
    data = bytearray(whole)
    for offset, each in places:
        data[offset + newest * each : offset + (newest + 1) * each] = bytes(each)
    data[table + (rows - 1) * row_size + 8] ^= 1
    (tmp_path / "between").mkdir()
    (tmp_path / "between" / segment.name).write_bytes(data)
    with pytest.warns(UserWarning, match="damaged"):
        assert addresses(tmp_path / "between").items() <= sound.items()


def test_an_index_that_no_writer_gives_is_damage(tmp_path: Path) -> None:
    """A forged last row that leaves no index for what ran is met with a warning, not with an OverflowError."""
    segment = killed(tmp_path / "run", KILLED_AMID_ENDS, "0", "1")
    data = bytearray(segment.read_bytes())
    with h5py.File(segment, "r", swmr=True, locking=False) as file:
        episodes = file["episodes"]
        row = episodes[-1].copy()
        begin = episodes.id.get_chunk_info(0).byte_offset + (len(episodes) - 1) * episodes.dtype.itemsize
    row["index"] = 2**32 - 1
    row["crc"] = crc32(row.tobytes()[:-4])
    data[begin : begin + len(row.tobytes())] = row.tobytes()
    (tmp_path / "forged").mkdir()
    (tmp_path / "forged" / segment.name).write_bytes(data)
    with pytest.warns(UserWarning, match="damaged"):
        found = reenact.open_run(tmp_path / "forged")
    assert set(found.ended.tolist()) <= {"terminated", "truncated"}
