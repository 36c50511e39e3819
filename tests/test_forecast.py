"""Dry runs: what would be made, what is there, and how long it will take."""

from __future__ import annotations

import tempfile
from typing import TYPE_CHECKING, Any, ClassVar

import gymnasium as gym
import pytest

import odd_envs as odd
import reenact
from reenact import cli
from reenact.errors import SelectionError
from reenact.video import VideoWriter
from test_cli import say  # noqa: F401  # a fixture
from test_render import LENGTH, Meter, files, record

if TYPE_CHECKING:
    from pathlib import Path

    from reenact.forecast import Forecast
    from test_cli import Said


@pytest.fixture(autouse=True)
def _own_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


class Heard:
    """Keeps what a dry run has found."""

    forecast: Forecast

    def finished(self, result: reenact.ReplayResult) -> None:
        """One more."""

    def foreseen(self, forecast: Forecast) -> None:
        """All of it."""
        self.forecast = forecast


def foresee(run: Path, *episodes: int, **options: Any) -> tuple[list[reenact.ReplayResult], Forecast]:
    """A dry run's results, and its forecast."""
    heard = Heard()
    results = reenact.replay(run, episodes or "all", dry_run=True, observer=heard, **options)
    return results, heard.forecast


def test_a_dry_run_makes_nothing(tmp_path: Path) -> None:
    """It leaves no folder, and says of each video where it would be and how many frames it would have."""
    run = record(tmp_path / "run", 3)
    results, found = foresee(run)
    assert not (run / "videos").exists()
    assert [(one.verdict, one.frames, one.ok) for one in results] == [("planned", LENGTH + 1, False)] * 3
    assert [one.path for one in results] == [str(run / "videos" / f"run-episode-{number}.mp4") for number in range(3)]
    assert (found.films, found.frames, found.there) == (3, 3 * (LENGTH + 1), 0)
    assert found.seconds is not None
    assert "attempt" in found.basis


def test_without_a_temporary_folder_no_time_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing temporary can be made, a dry run says so, and so does each video of the job; none raises."""
    run = record(tmp_path / "run", 2)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    results, found = foresee(run)
    assert [result.verdict for result in results] == ["planned", "planned"]
    assert found.seconds is None
    assert "no temporary folder can be made (No such file or directory)" in found.basis
    made = reenact.replay(run, "all")
    assert [result.verdict for result in made] == ["impossible", "impossible"]
    assert "no temporary file can be made (No such file or directory)" in str(made[0].error)
    assert files(run / "videos") == []


def test_what_is_there_and_what_is_in_the_way_are_told(tmp_path: Path) -> None:
    """A video that need not be made again is exact, a file of another's impossible, one with other options planned."""
    run = record(tmp_path / "run", 4)
    reenact.replay(run, [0, 1])
    reenact.replay(run, 1, quality=30)
    (run / "videos" / "run-episode-2.mp4").write_bytes(b"holiday")
    before = files(run / "videos")
    results, found = foresee(run)
    assert [result.verdict for result in results] == ["exact", "planned", "impossible", "planned"]
    assert (results[0].reused, found.films, found.there) == (True, 2, 1)
    assert "--overwrite" in str(results[2].error)
    assert files(run / "videos") == before
    assert "video" in found.basis
    assert foresee(run, 0)[1].seconds == 0


def test_where_no_time_can_be_told_it_says_why(tmp_path: Path) -> None:
    """An episode that starts from earlier ones, or can't be drawn, is planned all the same."""
    odd.record(odd.make(odd.Scrolls), tmp_path / "run", odd.unseeded(3), live=False)
    _, found = foresee(tmp_path / "run", 2, origin="chain:first")
    assert (found.seconds, found.films) == (None, 1)
    assert "earlier" in found.basis


def needy(render_mode: str | None = None) -> gym.Env[Any, Any]:
    """Makes none: what it draws with is not there."""
    del render_mode
    raise gym.error.DependencyNotInstalled("pip install foo")


def test_a_package_that_is_missing_is_told_as_when_it_is_made(tmp_path: Path) -> None:
    """The reason why no time can be told is, to the letter, why the film is impossible."""
    run = record(tmp_path / "run", 1)
    _, found = foresee(run, env=needy)
    (made,) = reenact.replay(run, "all", env=needy)
    assert made.verdict == "impossible"
    assert (found.seconds, found.basis) == (None, made.error)
    assert "pip install foo" in found.basis


class Text(Meter):
    """Draws text alone."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["ansi"], "render_fps": 10}

    def render(self) -> Any:
        """Draws."""
        return f"step {self.time}\n" * 3


@pytest.mark.parametrize(
    "options",
    [
        {"env": Text},
        {"env": Text, "grid": "1x2"},
        {"speed": 4.0, "label": True, "rewards": True, "hold": 60.0},
        {"grid": "2x2"},
        {"reel": True, "size": "320x240"},
        {"steps": "3:8"},
    ],
)
def test_what_is_attempted_is_what_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    """Of texts, labels, slices, grids and reels alike, an attempt draws and encodes all that is made of them."""
    run = record(tmp_path / "run", 4)
    drawn: list[tuple[int, ...]] = []
    write = VideoWriter.write

    def noted(self: VideoWriter, frame: Any, *, over: Any = None) -> None:
        drawn.append((frame if over is None else over).shape)
        write(self, frame, over=over)

    monkeypatch.setattr(VideoWriter, "write", noted)
    _, found = foresee(run, 0, 1, **options)
    assert found.seconds is not None
    assert "attempt" in found.basis
    foreseen, drawn[:] = list(drawn), []
    assert not (run / "videos").exists()
    reenact.replay(run, [0, 1], **options)
    assert foreseen
    assert set(foreseen) == set(drawn)


def test_what_is_followed_can_not_be_foreseen(tmp_path: Path) -> None:
    """Both at once are refused."""
    with pytest.raises(SelectionError, match="dry_run"):
        reenact.replay(record(tmp_path / "run", 1), follow=True, dry_run=True)


def test_the_command_says_it(tmp_path: Path, say: Any) -> None:  # noqa: F811  # the fixture
    """`replay --dry-run` names what it would make, sums it up, and ends with 0."""
    run = record(tmp_path / "run", 2)
    reenact.replay(run, 0)
    said: Said = say(run, "--episodes", "all", "--dry-run", entry=cli.replay_main)
    assert said.code == 0
    first, second, sum_ = said.err.splitlines()
    assert "there already" in first
    assert f"planned, {LENGTH + 1} frames" in second
    assert sum_.startswith(f"1 to make, {LENGTH + 1} frames, and 1 there already: about 0:00:0")
    assert files(run / "videos") == ["run-episode-0.mp4"]
