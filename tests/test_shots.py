"""Shots that wait on disk come back as they were."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reenact.errors import VideoError
from reenact.shots import Scene, Shot, Spool

SCENE = Scene("7", 0, 100, np.zeros(100), 30.0)


def frame(seed: int, height: int = 6, width: int = 4) -> np.ndarray[Any, Any]:
    """A frame of random pixels."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


FRAMES = st.builds(frame, st.integers(0, 3), st.integers(1, 3), st.integers(1, 3)) | st.text(max_size=9)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(FRAMES, st.booleans()), max_size=8))
def test_shots_come_back_as_they_were(shots: list[tuple[Any, bool]]) -> None:
    """Frames to the bit, of whatever sizes, and texts, in order, as often as they are read."""
    with TemporaryDirectory() as folder:
        spool = Spool(Path(folder))
        spool.begin(SCENE)
        for at, (picture, marked) in enumerate(shots):
            spool.take(Shot(picture, at, marked))
        spool.end()
        for _ in range(2):
            back = list(spool)
            assert [(shot.at, shot.marked) for shot in back] == [(at, marked) for at, (_, marked) in enumerate(shots)]
            for shot, (picture, _) in zip(back, shots, strict=True):
                assert type(shot.frame) is type(picture)
                assert np.array_equal(shot.frame, picture)
        assert os.listdir(folder) == []  # noqa: PTH208  # no file has a name
        spool.close()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(FRAMES, max_size=4), max_size=4))
def test_scenes_come_back_one_by_one(scenes: list[list[Any]]) -> None:
    """One spool holds many scenes, empty ones too, and gives each back with its own shots."""
    with TemporaryDirectory() as folder:
        spool = Spool(Path(folder))
        for number, pictures in enumerate(scenes):
            spool.begin(Scene(str(number), 0, 100, np.zeros(100), 30.0))
            for at, picture in enumerate(pictures):
                spool.take(Shot(picture, at, marked=False))
            spool.end()
        back = [(scene.name, [shot.frame for shot in shots]) for scene, shots in spool.scenes()]
        assert [name for name, _ in back] == [str(number) for number in range(len(scenes))]
        for (_, found), pictures in zip(back, scenes, strict=True):
            assert len(found) == len(pictures)
            assert all(np.array_equal(one, other) for one, other in zip(found, pictures, strict=True))
        spool.close()


def test_a_frame_that_its_env_draws_over_is_kept(tmp_path: Path) -> None:
    """An env may hand out one array again and again: each shot is what it was at its time."""
    spool, canvas = Spool(tmp_path), np.zeros((2, 2, 3), np.uint8)
    spool.begin(SCENE)
    for at in range(4):
        canvas[:] = at * 60
        spool.take(Shot(canvas, at, marked=False))
    assert [int(np.asarray(shot.frame)[0, 0, 0]) for shot in spool] == [0, 60, 120, 180]
    spool.close()


def test_what_is_no_frame_is_refused(tmp_path: Path) -> None:
    """A spool takes what a video takes, and says the same of anything else."""
    spool = Spool(tmp_path)
    with pytest.raises(VideoError, match="expected a frame"):
        spool.take(Shot(np.zeros((4, 4)), 0, marked=False))
    spool.close()


def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the disk has no room for is an error of one line, when it is written or at the end."""
    full = Path("/dev/full")
    monkeypatch.setattr("tempfile.TemporaryFile", lambda **_: full.open("wb", buffering=1 << 20))
    spool = Spool(tmp_path)
    spool.begin(SCENE)
    spool.take(Shot(frame(1), 0, marked=False))
    with pytest.raises(VideoError, match="No space left"):
        spool.end()
    spool.close()


def test_a_folder_that_can_not_be_written_is_told(tmp_path: Path) -> None:
    """One line says which."""
    (tmp_path / "file").touch()
    with pytest.raises(VideoError, match="cannot write"):
        Spool(tmp_path / "file")
