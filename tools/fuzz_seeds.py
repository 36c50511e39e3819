"""The runs that tools/fuzz_segments.py damages: closed, killed, alive, widened, of two segments, of vector envs.

python tools/fuzz_seeds.py CASE FOLDER       records one, in this process
"""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import subprocess
import sys
import warnings
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zlib import crc32

import gymnasium as gym
import h5py
import numpy as np

import reenact
from make_golden import Counter

sys.path.append(str(Path(__file__).resolve().parent.parent / "tests"))
odd_envs = importlib.import_module("odd_envs")
vector_envs = importlib.import_module("vector_envs")

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CASES = (
    "cart", "cart-killed", "cart-live", "taxi", "dict", "dict-killed", "odd", "odd-killed", "widened", "long",
    "two", "two-killed", "sync", "sync-killed", "sync-live", "same", "same-killed", "batch", "batch-killed",
    "batch-live", "rest", "rest-killed", "rest-live",
)  # fmt: skip
VECTORS = {"sync": ("sync", "NextStep"), "same": ("sync", "SameStep"), "batch": ("batch", "NextStep"),
           "rest": ("batch", "Disabled")}  # fmt: skip
"""Of a vector env: whether its lanes are single envs or a batch, and how they are reset."""


def record(case: str, folder: Path, ready: int) -> None:
    """Records a run in this process; a killed one ends it, a live one waits for the end of stdin.

    Args:
        case: its name.
        folder: the run's.
        ready: a descriptor, closed once a live one has recorded what it will.
    """
    warnings.simplefilter("ignore")
    name, _, end = case.partition("-")
    recorders = _RECORD[name](folder)
    if end:
        for recorder in recorders:
            recorder.flush()
            recorder.step(_LAST.get(name, 1))
            recorder.flush()
        if end == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        os.close(ready)
        sys.stdin.read()
    for recorder in recorders:
        recorder.close()


def record_all(folder: Path, cases: list[str]) -> None:
    """Records each case in a forked child; says so, and waits for the end of stdin, as live ones do."""
    for case in cases:
        ready, its = os.pipe()
        child = os.fork()
        if not child:
            os.close(ready)
            record(case, folder / case / "run", its)
            return
        os.close(its)
        os.read(ready, 1)  # it closed its end, or has ended
        os.close(ready)
        if not case.endswith("-live"):
            os.waitpid(child, 0)
    print("recorded", flush=True)
    sys.stdin.read()


def _play(recorder: Any, resets: list[tuple[int | None, int]], **reset: Any) -> None:
    """Plays episodes: the seed of each, and its most steps; 0: a reset alone."""
    for seed, steps in resets:
        recorder.reset(seed=seed, **reset)
        for _ in range(steps):
            if any(recorder.step(recorder.action_space.sample())[2:4]):
                break


def _recorder(env: Any, folder: Path, **kwargs: Any) -> Any:
    recorder = reenact.Recorder(env, run=folder, **kwargs)
    recorder.action_space.seed(3)
    return recorder


def _record_cart(folder: Path) -> list[Any]:
    recorder = _recorder(gym.make("CartPole-v1", max_episode_steps=12), folder, fingerprint_every=4)
    _play(recorder, [(7, 99), (None, 99), (None, 0), (None, 5)])
    _play(recorder, [(9, 99), (None, 99)], options={"low": -0.02, "high": 0.02})
    recorder.step(1)  # after the end
    recorder.step(0)
    recorder.flush()
    _play(recorder, [(None, 99), (2**70, 0), (None, 4)])
    return [recorder]


def _record_taxi(folder: Path) -> list[Any]:
    env = gym.make("Taxi-v4" if "Taxi-v4" in gym.registry else "Taxi-v3", max_episode_steps=9)
    recorder = _recorder(env, folder, role="eval", info_keywords=("prob", "missing"))
    _play(recorder, [(1, 99), (None, 99), (None, 0), (None, 99), (5, 6)])
    return [recorder]


def _record_dict(folder: Path) -> list[Any]:
    recorder = _recorder(Counter(), folder, info_keywords=("score",), step_durations=True)
    for episode in range(5):
        recorder.reset(seed=episode if episode % 2 else None, options={"level": (episode, 2.5)})
        for at in range(4):
            word = "stop" if (episode, at) == (2, 3) else "ab"[: at % 3]
            move: Any = (np.int64(1), 2, 3.0, True)[(at + episode) % 4]
            with contextlib.suppress(RuntimeError):
                recorder.step({"force": np.array([0.5, -0.0], np.float32), "move": move, "word": word})
    recorder.reset()
    recorder.step({"force": [0.5, 1], "move": 4, "word": ""})
    return [recorder]


def _record_odd(folder: Path) -> list[Any]:
    recorder = _recorder(odd_envs.make(odd_envs.GlobalStep), folder)
    for seed, steps in ((3, 5), (None, 5), (None, 0), (None, 2), (None, 5)):
        recorder.reset(seed=seed)
        for at in range(steps):
            recorder.step(at % 2)
    for action in (1, 0):
        recorder.step(action)  # after the end
    recorder.reset()
    recorder.step(1)
    with contextlib.suppress(LookupError):
        recorder.step(2)
    recorder.flush()
    recorder.reset()
    recorder.step(1)
    return [recorder]


def _record_widened(folder: Path) -> list[Any]:
    recorder = _recorder(gym.wrappers.TimeLimit(Counter(), 9), folder)
    for move in (1, 2, 4, 300, 3):
        recorder.reset()
        for _ in range(3):
            recorder.step({"force": np.zeros(2, np.float32), "move": move, "word": "go"})
        recorder.flush()
    return [recorder]


def _record_long(folder: Path) -> list[Any]:
    recorder = _recorder(gym.make("CartPole-v1", max_episode_steps=20), folder)
    _play(recorder, [(at if at % 3 else None, 99 if at % 9 else 0) for at in range(300)])
    return [recorder]


def _record_two(folder: Path) -> list[Any]:
    recorders = [_recorder(gym.make("CartPole-v1", max_episode_steps=8), folder) for _ in range(2)]
    for at in range(4):
        for recorder in recorders:
            _play(recorder, [(at if at % 2 else None, 99), (None, 0)])
        recorders[0].flush()
    for recorder in recorders:
        _play(recorder, [(None, 3)])
    return recorders


def _record_vector(name: str, folder: Path) -> list[Any]:
    """Trains: episodes of several lengths, resets of all and of some, one before a step, steps of lanes that rest."""
    kind, mode = VECTORS[name]
    mode = vector_envs.AutoresetMode(mode)
    recorder = reenact.VectorRecorder(vector_envs.make(kind, mode), folder, fingerprint_every=4)
    random = np.random.default_rng(5)
    recorder.reset(seed=7)
    over = np.zeros(vector_envs.WIDTH, bool)
    for step in range(30):
        if step in (12, 20):
            recorder.reset(options={"more": step})
        if step == 20:  # noqa: PLR2004  # another one at once: the first one's episodes have no step
            recorder.reset(seed=9)
        if over.any() and step % 3 == 0:
            recorder.reset(options={"reset_mask": over})
            over = np.zeros(vector_envs.WIDTH, bool)
        *_, terminations, truncations, _ = recorder.step(random.choice([0, 0, 0, 0, 1, 2], vector_envs.WIDTH))
        if mode is vector_envs.DISABLED:
            over |= terminations | truncations
        if step % 11 == 7:  # noqa: PLR2004  # now and then
            recorder.flush()
    for _ in range(2 if name == "batch" else 0):  # both slots know the same episodes: a live reader waits for neither
        recorder.step(np.zeros(vector_envs.WIDTH, int))
    return [recorder]


_LAST = {
    "dict": {"force": [0, 1], "move": 1, "word": ""},
    **{name: np.zeros(vector_envs.WIDTH, int) for name in VECTORS},
}
_RECORD: dict[str, Callable[[Path], list[Any]]] = {
    **{name: partial(_record_vector, name) for name in VECTORS},
    "cart": _record_cart, "taxi": _record_taxi, "dict": _record_dict, "odd": _record_odd, "long": _record_long,
    "widened": _record_widened, "two": _record_two,
}  # fmt: skip


@contextlib.contextmanager
def recorded(folder: Path, cases: tuple[str, ...] = CASES) -> Iterator[dict[str, Path]]:
    """Records the cases, each by a process of its own; those of live ones live until the end."""
    with subprocess.Popen(
        [sys.executable, __file__, str(folder), *cases], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None  # noqa: S101  # for mypy: they are pipes
        assert process.stdin is not None  # noqa: S101
        try:
            found = {case: folder / case / "run" for case in cases}
            if process.stdout.readline().strip() != "recorded":
                raise RuntimeError("the runs were not recorded")
            if "cart" in found:
                label(found["cart"] / "segment-00000.h5", 1, b"a label")
            yield found
        finally:
            process.stdin.close()


def label(path: Path, row: int, text: bytes) -> None:
    """Gives an episode of a closed segment a label."""
    with h5py.File(path, "r+", libver=("v110", "v110"), locking=False) as file:
        heap, rows = file["heap"], file["episodes"]
        offset = len(heap)
        heap.resize((offset + len(text),))
        heap[offset:] = np.frombuffer(text, np.uint8)
        one = rows[row]
        one["label"] = (offset, len(text), crc32(text))
        one["crc"] = crc32(one.tobytes()[:-4])
        rows[row] = one


if __name__ == "__main__":
    record_all(Path(sys.argv[1]), sys.argv[2:])
