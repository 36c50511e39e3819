"""A Dask cluster of two local workers runs jobs as they are, one of them killed in the middle, too."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any

import distributed
import pytest

import reenact
from job_envs import record
from reenact import dispatch
from test_jobs import gone, mixed
from test_render import LENGTH, decode, files

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.filterwarnings("ignore")  # what Dask warns of is Dask's


@pytest.fixture(scope="module")
def _state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The key that signs is the workers' too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        patch.setenv("JOB_FOLDER", str(tmp_path_factory.mktemp("drawn")))
        yield


@pytest.fixture(scope="module")
def client(_state: None) -> Iterator[Any]:
    """Two worker processes of one thread each, without a web page."""
    options = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "dashboard_address": None}
    with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster) as found:
        yield found


def test_a_cluster_s_results_are_those_of_local_jobs(tmp_path: Path, client: Any) -> None:
    """Exact, diverged and damaged episodes come out as with two local processes, frame for frame."""
    run = mixed(tmp_path / "run")
    local = reenact.replay(run, "all", video_folder=tmp_path / "local", lossless=True, jobs=2)
    found = reenact.replay(run, "all", video_folder=tmp_path / "there", lossless=True, executor=client.get_executor())
    assert files(tmp_path / "local") == files(tmp_path / "there")
    for one, other in zip(local, found, strict=True):
        assert {**one.to_json(), "path": None} == {**other.to_json(), "path": None}
        assert one.path is None or (decode(one.path) == decode(other.path)).all()


def test_a_worker_that_is_killed_changes_nothing(tmp_path: Path, client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed when the first videos are there, a worker's tasks are done again, and the results are those of local jobs."""
    run = record("JobSlow-v0", tmp_path / "run", 8)
    killed: list[int] = []

    class Kills:
        """An observer that kills a worker at the first result."""

        def planned(self, frames: int, films: int) -> None: ...
        def advanced(self, frames: int) -> None: ...
        def chained(self, done: int, total: int) -> None: ...

        def finished(self, _: reenact.ReplayResult) -> None:
            if not killed:
                killed.append(next(iter(client.run(os.getpid).values())))
                os.kill(killed[0], signal.SIGKILL)

    local = reenact.replay(run, "all", video_folder=tmp_path / "local", jobs=2)
    options: dict[str, Any] = {"video_folder": tmp_path / "there", "executor": client.get_executor()}
    found = reenact.replay(run, "all", observer=Kills(), **options)
    assert gone(killed)
    assert [{**one.to_json(), "path": None} for one in found] == [{**one.to_json(), "path": None} for one in local]
    assert not any(result.reused for result in found)
    assert all(len(decode(result.path)) == LENGTH + 1 for result in found)
    monkeypatch.setattr(dispatch, "_AT_ONCE", 1)
    assert all(result.reused for result in reenact.replay(run, "all", **options))
    assert [name for name in files(tmp_path / "there") if not name.startswith(".")] == files(tmp_path / "local")
