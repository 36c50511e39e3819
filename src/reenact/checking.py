"""Before a training: does this env replay, by which origins, and what has to stand in the script for it?

A few random episodes are recorded in one process and replayed in another on each rung, drawn and not. Both
processes run this module as a program; what they find they write to a file, since some envs print.
"""

from __future__ import annotations

import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium as gym

from reenact import headless, jsontags, render, strangers, usercode, video
from reenact.errors import RecipeError, ReenactError, SelectionError
from reenact.recorder import Recorder
from reenact.run import Run

if TYPE_CHECKING:
    from collections.abc import Callable

    from reenact.episode import ReplayResult

RUNGS = ("snapshot", "seed", "entropy", "rng", "chain:snapshot", "chain:1", "chain:2", "chain:4", "chain:first")
_ALONE = RUNGS[:4]
TOGETHER = "together"
"""The name of the row for what a replay does unless told: one rung after another."""
_MOST_STEPS, _FEWEST_STEPS = 200, 10
_DRAWING_S = 20.0
"""What all drawing may take; episodes are cut so that it does."""
_LIMIT_S = 300.0
"""A process that takes longer is stopped: the env hangs."""


@dataclass(frozen=True, slots=True)
class Tally:
    """How the episodes fared on one rung.

    Attributes:
        rung: its name.
        rendered: whether every frame was drawn.
        exact: how many were exact.
        tried: how many have that origin.
        told: where the first one that was not exact diverged, or what kept it from starting; None.
        cause: why, where that is known; None.
    """

    rung: str
    rendered: bool
    exact: int
    tried: int
    told: str | None
    cause: str | None


@dataclass(frozen=True, slots=True)
class Check:
    """What was found.

    Attributes:
        env: the env's id, or the factory's name.
        episodes: recorded.
        steps: in them.
        tallies: rung by rung, undrawn and drawn; the last two are all rungs together.
        reseeded: the same of a recording with `reseed=True`, where the default one did not replay.
        cost_s: seconds of a "reset", a "seeded reset", a "step" and, where it can draw, a "render".
        notices: what the recorder warned of.
        advice: what to write in the script.
        replays: whether there is a way to record it so that all episodes replay.
    """

    env: str
    episodes: int
    steps: int
    tallies: tuple[Tally, ...]
    reseeded: tuple[Tally, ...]
    cost_s: dict[str, float]
    notices: tuple[str, ...]
    advice: tuple[str, ...]
    replays: bool

    def to_json(self) -> dict[str, object]:
        """Returns it as `--json` prints it."""
        return asdict(self)


@dataclass(slots=True)
class _Task:
    """What a child process is told; JSON in a file."""

    folder: str
    env_id: str | None
    kwargs: str
    factory: str | None
    episodes: int
    reseed: bool = False
    undrawn: str | None = None  # why no frame can be had of it
    found: dict[str, Any] = field(default_factory=dict)

    def make(self, render_mode: str | None) -> gym.Env[Any, Any]:
        if self.factory is not None:
            made: gym.Env[Any, Any] = usercode.factory(self.factory)(render_mode=render_mode)
            return made
        assert self.env_id is not None  # noqa: S101  # for mypy: `check` has seen to it
        strangers.register(self.env_id)
        kwargs: dict[str, Any] = jsontags.loads(self.kwargs)
        return gym.make(self.env_id, **(kwargs | ({"render_mode": render_mode} if render_mode else {})))


def check(
    env_id: str | None = None,
    *,
    kwargs: dict[str, Any] | None = None,
    env: str | None = None,
    episodes: int = 5,
    tell: Callable[[str], None] = lambda _: None,
) -> Check:
    """Records a few random episodes of an env, and replays them in another process on each rung.

    Args:
        env_id: of Gymnasium's registry; a package that reenact knows by its ids is imported for it.
        kwargs: for `gymnasium.make`.
        env: "module:factory" or "path/to/file.py:factory" instead: called with `render_mode`, it returns the env.
        episodes: how many to record, 2 or more.
        tell: told what is going on.

    Raises:
        SelectionError: neither an id nor a factory, or both, or too few episodes.
        RecipeError: the env can't be made, or one of the processes ended badly.
    """
    if (env_id is None) == (env is None):
        raise SelectionError("give an env's id, or --env module:factory: one of the two")
    if episodes < 2:  # noqa: PLR2004  # a seeded one, and one that is not
        raise SelectionError(f"episodes must be 2 or more, got {episodes}")
    with tempfile.TemporaryDirectory(prefix="reenact-check-") as scratch:
        task = _Task(f"{scratch}/run", env_id, jsontags.dumps(kwargs or {}), env, episodes)
        tell("recording …")
        recorded = _child("record", task)
        task.undrawn = recorded["undrawn"]
        tell("replaying …")
        tallies = _tallies(_child("replay", task))
        reseeded: tuple[Tally, ...] = ()
        if not _all_exact(tallies, rendered=False):
            tell("recording and replaying with reseed=True …")
            task.folder, task.reseed = f"{scratch}/reseeded", True
            _child("record", task)
            reseeded = _tallies(_child("replay", task))
    advice, replays = _advice(tallies, reseeded, task.undrawn)
    return Check(
        env=env_id or str(env),
        episodes=episodes,
        steps=recorded["steps"],
        tallies=tallies,
        reseeded=reseeded,
        cost_s=recorded["cost_s"],
        notices=tuple(recorded["notices"]),
        advice=advice,
        replays=replays,
    )


def _child(what: str, task: _Task) -> dict[str, Any]:
    """Runs a part of the check in a process of its own."""
    path = Path(task.folder).with_suffix(f".{what}.json")
    path.write_text(json.dumps(asdict(task)))
    try:
        ended = subprocess.run(  # noqa: S603  # our own interpreter, on our own code
            [sys.executable, "-m", "reenact.checking", what, str(path)],
            check=False,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_LIMIT_S,
        )
    except subprocess.TimeoutExpired as error:
        raise RecipeError(f"the env did not {what} in {_LIMIT_S:.0f} s: try fewer --episodes") from error
    found: dict[str, Any] = json.loads(path.read_text())["found"]
    if "refused" in found:
        raise RecipeError(found["refused"])
    if ended.returncode or not found:
        last = (ended.stderr.strip().splitlines() or [f"it ended with {ended.returncode}"])[-1]
        raise RecipeError(f"the env can't {what}: {last}")
    return found


def _tallies(found: dict[str, Any]) -> tuple[Tally, ...]:
    return tuple(Tally(**tally) for tally in found["tallies"])


def _all_exact(tallies: tuple[Tally, ...], *, rendered: bool) -> bool:
    mine = [one for one in tallies if one.rung == TOGETHER and one.rendered is rendered]
    return all(one.exact == one.tried for one in mine) and any(one.tried for one in mine)


def _advice(
    tallies: tuple[Tally, ...], reseeded: tuple[Tally, ...], undrawn: str | None
) -> tuple[tuple[str, ...], bool]:
    """Returns what to write in the script and to know of it, and whether all episodes replay then."""
    for mine, options in ((tallies, ""), (reseeded, ", reseed=True")):
        if not _all_exact(mine, rendered=False):
            continue
        notes = []
        alone = sum(one.exact for one in mine if one.rung in _ALONE and not one.rendered)
        if alone < sum(one.tried for one in mine if one.rung == TOGETHER and not one.rendered):
            notes.append("alone, in a fresh env, not all episodes are exact; chained from earlier ones all are")
        if undrawn is not None:
            notes.append(f"it can't be drawn: {undrawn}")
        elif not _all_exact(mine, rendered=True):
            notes.append(f"undrawn it replays; its videos would be marked as diverged: {_why(mine, rendered=True)}")
        return (f'env = reenact.Recorder(env, run="runs/…"{options})', *notes), True
    return (f"no way was found in which all episodes replay: {_why(tallies, rendered=False)}",), False


def _why(tallies: tuple[Tally, ...], *, rendered: bool) -> str:
    found = next(one for one in tallies if one.rung == TOGETHER and one.rendered is rendered)
    return "; ".join(filter(None, (found.told, found.cause)))


# ---- in the child processes


def _record(task: _Task) -> dict[str, Any]:
    drawing, task.undrawn = _drawing(task)
    cost = _costs(task) | drawing
    steps = _MOST_STEPS
    if "render" in cost:  # every step is drawn on each rung that applies, about four of them
        steps = int(min(_MOST_STEPS, max(_FEWEST_STEPS, _DRAWING_S / (4 * task.episodes * cost["render"]))))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        env = Recorder(task.make(None), run=task.folder, reseed=task.reseed, factory=task.factory)
        recorded = _episodes(env, [1, *[None] * (task.episodes - 2), 2], steps)["step"]
        env.close()
    said = [str(one.message).removeprefix("reenact: ") for one in caught if str(one.message).startswith("reenact: ")]
    return {"steps": len(recorded), "cost_s": cost, "notices": said, "undrawn": task.undrawn}


def _costs(task: _Task) -> dict[str, float]:
    with contextlib.closing(task.make(None)) as env:
        times = _episodes(env, [1, None, 2, None, 3, None], _FEWEST_STEPS)
    return {name: statistics.median(taken) for name, taken in times.items()}


def _drawing(task: _Task) -> tuple[dict[str, float], str | None]:
    """Returns what drawing a frame takes, or why there is none."""
    try:
        with contextlib.closing(task.make("rgb_array")) as env:
            env.reset(seed=0)
            frame: Any = env.render()
            video.check_frame(frame)
            if (frame == frame[0, 0]).all():
                return {}, f"every pixel of its first frame is {tuple(frame[0, 0].tolist())}"
            began = time.perf_counter()
            env.render()
            cost = time.perf_counter() - began
    except Exception as error:  # noqa: BLE001  # the env may raise anything
        return {}, headless.explain(error) or f"{type(error).__name__}: {error}".partition("\n")[0]
    return {"render": cost}, None


def _episodes(env: gym.Env[Any, Any], seeds: list[int | None], most_steps: int) -> dict[str, list[float]]:
    """Runs random episodes, one a seed; returns how long each reset and step took, in seconds."""
    times: dict[str, list[float]] = {"reset": [], "seeded reset": [], "step": []}
    env.action_space.seed(0)
    for seed in seeds:
        began = time.perf_counter()
        env.reset(seed=seed)
        times["reset" if seed is None else "seeded reset"].append(time.perf_counter() - began)
        for _ in range(most_steps):
            action = env.action_space.sample()
            began = time.perf_counter()
            _, _, terminated, truncated, _ = env.step(action)
            times["step"].append(time.perf_counter() - began)
            if terminated or truncated:
                break
    return times


def _replay(task: _Task) -> dict[str, Any]:
    found, run = [], Run(task.folder)
    for rung in (*RUNGS, None):
        for rendered in (False,) if task.undrawn else (False, True):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                results = render.verify(run, origin=rung, rendered=rendered)
            tried = [one for one in results if one.verdict != "impossible"]
            if not tried and rung is not None:
                continue
            bad = next((one for one in (tried or results) if not one.ok), None)
            told, cause = _where(bad) if bad is not None else (None, None)
            found.append(Tally(rung or TOGETHER, rendered, sum(one.ok for one in tried), len(tried), told, cause))
    return {"tallies": [asdict(one) for one in found]}


def _where(result: ReplayResult) -> tuple[str | None, str | None]:
    found = result.divergence
    if found is None:
        return result.error, None
    began = f"began after {found.since}" if found.since >= 0 else "began at the reset"
    return f"{found.field} at step {found.step}, {began}", result.cause


def _main(what: str, path: Path) -> None:
    task = _Task(**json.loads(path.read_text()))
    try:
        task.found = _record(task) if what == "record" else _replay(task)
    except (ReenactError, gym.error.Error) as error:
        task.found = {"refused": str(error)}
    path.write_text(json.dumps(asdict(task)))


if __name__ == "__main__":
    headless.choose()
    _main(sys.argv[1], Path(sys.argv[2]))
