"""What runs inside a family's virtual environment: one training, or one replay, of one env.

    python zoo_worker.py MODE PLAN.json

`bare` trains; `record` trains with a `reenact.Recorder`; `live` trains in an env that draws each frame; `rungs`
re-executes what was recorded, from one origin at a time and then as the ladder chooses; `film` makes videos
of it and decodes them. What comes out goes to MODE.jsonl beside the plan, a line at once as it is known.

All that a training draws from the operating system's entropy is fixed, so that two trainings of an env that
draws its seeds there are alike too. Replays are not fixed.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import json
import random
import re
import subprocess
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import h5py
import imageio_ffmpeg
import numpy as np
from numpy.random import bit_generator

import reenact
from zoo_envs import RUNGS
from zoo_trace import Diary, Trace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SNAPSHOT_KIND = 4
"""What stands in the column `kind` of `states` for a snapshot."""


def make(plan: dict[str, Any], *, render: bool) -> Any:
    """Makes the env of a plan, with its wrappers."""
    for module in plan["imports"]:
        importlib.import_module(module)
    kwargs = dict(plan["kwargs"])
    limit = gym.spec(plan["id"]).max_episode_steps
    if plan["steps"] is not None and (limit is None or limit > plan["steps"]):
        kwargs["max_episode_steps"] = plan["steps"]
    if render:
        kwargs["render_mode"] = "rgb_array"  # panda-gym refuses render_mode=None, if it is given
    env: Any = gym.make(plan["id"], **kwargs)
    for path, arguments in plan["wrappers"]:
        module, _, name = path.partition(":")
        env = getattr(importlib.import_module(module), name)(env, **arguments)
    return env


def train(env: Any, diary: Diary, trace: Trace, resets: list[int | None]) -> None:
    """Plays one random episode a reset."""
    for seed in resets:
        mark = len(trace.parts)
        diary.began(mark, *env.reset(seed=seed))
        over = False
        while not over:
            result = env.step(env.action_space.sample())
            diary.stepped(result)
            over = bool(result[2] or result[3])
        diary.ended()


def train_long(env: Any, diary: Diary, trace: Trace, seed: int, last: int) -> None:
    """Plays random episodes up to the `last`-th, under an `Autoreset`."""
    env = gym.wrappers.Autoreset(env)
    diary.began(0, *env.reset(seed=seed))
    for number in range(last + 1):
        over = False
        while not over:
            result = env.step(env.action_space.sample())
            diary.stepped(result)
            over = bool(result[2] or result[3])
        diary.ended()
        if number < last:
            mark = len(trace.parts)
            observation, *_, info = env.step(env.action_space.sample())  # resets; the action is dropped
            diary.began(mark, observation, info)


def fix_entropy() -> None:
    """Makes the operating system's entropy, as NumPy asks for it, the same in every process."""
    source = random.Random(3)  # noqa: S311  # fixed is what it is for
    bit_generator.randbits = source.getrandbits  # type: ignore[attr-defined]  # what SeedSequence() calls
    random.seed(1)
    np.random.seed(2)  # noqa: NPY002  # the global one


def training(mode: str, plan: dict[str, Any], trace: Trace, tell: Callable[..., None]) -> None:
    """Trains: bare, recorded or drawn live."""
    fix_entropy()
    resets, folder = plan["resets"], Path(plan["folder"])
    if mode == "live" and plan["reseed"]:
        resets = recorded_seeds(folder / "run")
    env = make(plan, render=mode == "live")
    if mode == "record":
        env = reenact.Recorder(env, run=folder / "run", reseed=plan["reseed"])
    env.action_space.seed(5)
    diary = Diary(trace, env, render=mode == "live", only=plan["episode"])
    if plan["episode"] is None:
        train(env, diary, trace, resets)
    else:
        train_long(env, diary, trace, resets[0], plan["episode"])
    env.close()
    for episode in diary.episodes:
        tell(**episode)
    if mode == "record":
        tell(storage=storage(folder / "run"))


def recorded_seeds(run: Path) -> list[int | None]:
    """Returns the seeds that the recorder gave."""
    with h5py.File(next(run.glob("segment-*.h5")), "r") as file:
        return [int(seed) for seed in file["episodes"]["seed"]]


def storage(run: Path) -> dict[str, Any]:
    """Returns how many bytes of a run are steps, how many are snapshots, and what versions recorded it."""
    found: dict[str, Any] = {"file": 0, "steps": 0, "step_bytes": 0, "snapshots": 0, "snapshot_bytes": 0}
    for path in run.glob("segment-*.h5"):
        found["file"] += path.stat().st_size
        with h5py.File(path, "r") as file:
            found["versions"] = json.loads(file.attrs["versions"])
            found["steps"] += file["steps/reward"].size
            columns = [file[f"steps/{name}"] for name in json.loads(file.attrs["columns"])]
            found["step_bytes"] += sum(column.size * column.dtype.itemsize for column in columns)
            states = file["states"][:]
            snapshots = states[states["kind"] == SNAPSHOT_KIND]
            found["snapshots"] += len(snapshots)
            found["snapshot_bytes"] += int(snapshots["data"]["length"].sum())
    return found


def told(result: Any, recorded: dict[int, dict[str, Any]], trace: Trace) -> dict[str, Any]:
    """Returns a replay's result, and whether what it says of itself is so."""
    seen = set(trace.since(0))
    parts = recorded.get(result.episode, {}).get("parts", [])
    divergence = result.divergence
    return {
        "episode": result.episode,
        "verdict": result.verdict,
        "origin": result.origin,
        "error": result.error,
        "cause": getattr(result, "cause", None),
        "path": result.path,
        "frames": result.frames,
        "length": result.length,
        "divergence": None if divergence is None else [divergence.field, divergence.step],
        "went_the_same_way": bool(parts) and seen.issuperset(parts),
    }


def stand_in(plan: dict[str, Any]) -> Callable[..., Any] | None:
    """Returns a factory where the recipe can't be followed, else None: as a user would, told to."""
    first = selection(plan) or [0]
    (result,) = reenact.verify(Path(plan["folder"]) / "run", first)
    if result.verdict != "impossible" or "--env" not in (result.error or ""):
        return None
    return lambda render_mode=None: make(plan, render=render_mode is not None)


def rungs(plan: dict[str, Any], trace: Trace, tell: Callable[..., None]) -> None:
    """Re-executes without drawing: from one origin at a time, then as the ladder chooses."""
    folder, episodes = Path(plan["folder"]), selection(plan)
    recorded = diary_of(folder / "record.jsonl", plan)
    factory = stand_in(plan)
    tell(factory=factory is not None)
    for rung in ("ladder", *RUNGS):
        kwargs: dict[str, Any] = {"env": factory} if rung == "ladder" else {"env": factory, "origin": rung}
        if rung != "ladder" and "origin" not in inspect.signature(reenact.verify).parameters:
            tell(rung=rung, untried="this version of reenact has no origin=")
            continue
        trace.parts.clear()
        try:
            results = reenact.verify(folder / "run", episodes, **kwargs)
        except Exception as error:  # noqa: BLE001  # one rung's failure must not hide the others
            tell(rung=rung, failed=f"{type(error).__name__}: {error}")
            continue
        tell(rung=rung, results=[told(result, recorded, trace) for result in results])


def film(plan: dict[str, Any], trace: Trace, tell: Callable[..., None]) -> None:
    """Makes lossless videos, and compares each of their frames with what live rendering showed."""
    folder = Path(plan["folder"])
    recorded, live = (diary_of(folder / f"{name}.jsonl", plan) for name in ("record", "live"))
    videos = folder / "videos"
    results = reenact.replay(
        folder / "run", selection(plan) or "all", env=stand_in(plan), lossless=True, video_folder=videos
    )
    for result in results:
        line = told(result, recorded, trace)
        shown = live.get(result.episode or 0, {})
        if result.path is not None:
            line["plain"] = not result.path.endswith("-diverged.mp4")
            line["decoded"] = 0
            comparable = shown.get("parts") == recorded[result.episode or 0]["parts"] and bool(shown.get("frames"))
            expected = shown.get("frames", []) if comparable else None
            line["comparable"], line["same"], line["different"] = comparable, 0, []
            for at, frame in enumerate(decode(Path(result.path))):
                line["decoded"] += 1
                if expected is not None:
                    same = at < len(expected) and hashlib.sha256(frame).hexdigest() == expected[at]
                    line["same"] += same
                    line["different"] += [] if same else [at]
            line["different"] = line["different"][:20]
        tell(**line)


def selection(plan: dict[str, Any]) -> list[int] | None:
    """Returns the episodes to replay; None: all."""
    return None if plan["episode"] is None else [plan["episode"]]


def diary_of(path: Path, plan: dict[str, Any]) -> dict[int, dict[str, Any]]:
    """Reads what a training saw, by episode."""
    if not path.is_file():
        return {}
    entries = [line for line in map(json.loads, path.read_text().splitlines()) if "digest" in line]
    return dict(enumerate(entries, plan["episode"] or 0))


def decode(path: Path) -> Iterator[bytes]:
    """Yields every frame that a video holds, once each, as RGB bytes."""
    ffmpeg = imageio_ffmpeg.get_ffmpeg_exe()
    told_ = subprocess.run([ffmpeg, "-i", path], capture_output=True, check=False).stderr.decode()
    size = re.search(r"Video:.* (\d+)x(\d+)", told_)
    if size is None:
        raise ValueError(f"{path} is no video: {told_}")
    command = [ffmpeg, "-i", path, "-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    with process:
        stream = process.stdout
        while stream is not None and (frame := stream.read(int(size[1]) * int(size[2]) * 3)):
            yield frame


def main() -> None:
    """Does what the command line says."""
    mode, path = sys.argv[1], Path(sys.argv[2])
    plan = json.loads(path.read_text())
    warnings.simplefilter("ignore")
    gym.logger.min_level = gym.logger.ERROR
    trace = Trace()
    with path.with_name(f"{mode}.jsonl").open("w") as file:

        def tell(**line: Any) -> None:
            file.write(json.dumps(line) + "\n")
            file.flush()

        if mode == "rungs":
            rungs(plan, trace, tell)
        elif mode == "film":
            film(plan, trace, tell)
        else:
            training(mode, plan, trace, tell)
        tell(done=True)


if __name__ == "__main__":
    main()
