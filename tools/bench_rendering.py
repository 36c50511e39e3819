"""What rendering a run costs: `reenact.replay` beside the bare env and `RecordVideo`.

    python tools/bench_rendering.py                      five envs, short episodes, frames read back
    python tools/bench_rendering.py --quick              the same, small: to see that it runs, not to quote
    python tools/bench_rendering.py --only CartPole      one of them
    … --only LunarLander --episodes 40 --ours            a larger job, in which the workers' start weighs less
    python tools/bench_rendering.py --memory             peak memory of 500 and of 5,000 frames
    python tools/bench_rendering.py --apart              what two cores do of the same work, with nothing passed on

The limit is the env stepped and drawn by the same actions, nothing compared and nothing encoded. All forms take turns
in one run, so that a busy machine slows each alike; ratios are medians over the turns. Wall time is what a user
waits for; CPU time a frame tells what there is to wait for where others compute on the same cores: with two, one job
can't be faster than half of the sum. What two jobs could reach, if frames came to an encoder by themselves and jobs
began and ended for nothing, is told by envs that draw beside encoders that read other frames from a file. Each frame
bears its number, which is read back from the decoded videos.
The report is Markdown on stdout.
"""

from __future__ import annotations

import argparse
import inspect
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import imageio_ffmpeg
import numpy as np

import reenact
from reenact.encoding import Encoding

if TYPE_CHECKING:
    from collections.abc import Callable

AnyEnv = gym.Env[Any, Any]
BITS, SIDE_PX = 14, 8
"""A frame's number: so many black or white squares of that side, seven in a row, at the top left."""
ROW = 7
_SETTLED_S = 2.5
"""Between a training and its videos: right after it, each worker has a child try files that the caller's has tried."""


class Numbered(gym.Wrapper[Any, Any, Any, Any], gym.utils.RecordConstructorArgs):
    """Episodes of any length, whatever the env does, whose frames bear their numbers.

    Args:
        env: what is reset, within an episode, whenever it ends.
        steps: an episode's.
    """

    def __init__(self, env: AnyEnv, steps: int) -> None:
        gym.utils.RecordConstructorArgs.__init__(self, steps=steps)
        gym.Wrapper.__init__(self, env)
        self._steps = steps
        self._at = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Starts to count again."""
        self._at = 0
        return self.env.reset(seed=seed, options=options)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Counts, and truncates when the episode is long enough."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        self._at += 1
        if terminated or truncated:
            observation, info = self.env.reset()
        return observation, reward, False, self._at >= self._steps, info

    def render(self) -> Any:
        """Draws, and stamps the number over it."""
        frame = np.array(self.env.render())
        bits = np.array([self._at >> bit & 1 for bit in range(BITS)], np.uint8).reshape(-1, ROW) * 255
        squares = bits.repeat(SIDE_PX, axis=0).repeat(SIDE_PX, axis=1)
        frame[: squares.shape[0], : squares.shape[1]] = squares[:, :, None]
        return frame


def number_of(frame: Any) -> int:
    """Returns the number that a decoded frame bears."""
    at = np.arange(BITS)
    lit = frame[at // ROW * SIDE_PX + SIDE_PX // 2, at % ROW * SIDE_PX + SIDE_PX // 2, 1] > 127  # noqa: PLR2004
    return int((lit * (1 << at)).sum())


@dataclass(frozen=True, slots=True)
class Case:
    """What is filmed.

    Attributes:
        name: what the table calls it.
        id: the env's.
        episodes: how many.
        steps: of each.
    """

    name: str
    id: str
    episodes: int
    steps: int

    @property
    def frames(self) -> int:
        """How many are drawn."""
        return self.episodes * (self.steps + 1)

    def make(self, render_mode: str | None) -> AnyEnv:
        """Makes the env."""
        if self.id.startswith("ALE/"):
            import ale_py  # noqa: PLC0415 - only where it is measured

            gym.register_envs(ale_py)
        return Numbered(gym.make(self.id, render_mode=render_mode), self.steps)


def cases(scale: float) -> list[Case]:
    """Returns all of them, their episodes as long as `scale` says."""
    return [
        Case("CartPole", "CartPole-v1", 4, int(1000 * scale)),
        Case("LunarLander", "LunarLander-v3", 4, int(1000 * scale)),
        Case("CarRacing", "CarRacing-v3", 2, int(200 * scale)),
        Case("Pong", "ALE/Pong-v5", 3, int(800 * scale)),
        Case("short CartPole", "CartPole-v1", int(100 * scale), 20),
        # the last: where MuJoCo is loaded, garbage is collected before each film, which short ones feel
        Case("HalfCheetah", "HalfCheetah-v5", 1, int(60 * scale)),
    ]


@dataclass(frozen=True, slots=True)
class Cost:
    """What a form took for a frame, in µs.

    Attributes:
        wall: of the clock.
        own: of CPU, in this process.
        others: of CPU, in the processes that it started.
    """

    wall: float
    own: float
    others: float


def cost(case: Case, form: Callable[[], object]) -> Cost:
    """Measures a form once."""

    def cpu(who: int) -> float:
        used = resource.getrusage(who)
        return used.ru_utime + used.ru_stime

    own, others, began = cpu(resource.RUSAGE_SELF), cpu(resource.RUSAGE_CHILDREN), time.perf_counter()
    form()
    each = 1e6 / case.frames
    return Cost(
        (time.perf_counter() - began) * each,
        (cpu(resource.RUSAGE_SELF) - own) * each,
        (cpu(resource.RUSAGE_CHILDREN) - others) * each,
    )


class Stage:
    """A case, recorded, and what can be done with it.

    Args:
        case: what is filmed.
        folder: for the run and the videos.
    """

    def __init__(self, case: Case, folder: Path) -> None:
        self.case, self.folder = case, folder
        env = reenact.Recorder(case.make(None), run=folder / "run")
        env.action_space.seed(0)
        for number in range(case.episodes):
            env.reset(seed=number)
            while not any(env.step(env.action_space.sample())[2:4]):
                pass
        env.close()
        time.sleep(_SETTLED_S)
        self.run = reenact.open_run(folder / "run")
        self.actions = [self.run[number].actions for number in range(case.episodes)]

    def drive(self, env: AnyEnv, *, draw: bool) -> None:
        """Steps through all episodes."""
        for number, actions in enumerate(self.actions):
            env.reset(seed=number)
            if draw:
                env.render()
            for action in actions:
                env.step(action)
                if draw:
                    env.render()
        env.close()

    def limit(self) -> None:
        """Draws each frame, and does nothing with it."""
        self.drive(self.case.make("rgb_array"), draw=True)

    def record_video(self) -> None:
        """Films each episode as Gymnasium does."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of videos that are there
            env = gym.wrappers.RecordVideo(
                self.case.make("rgb_array"), str(self.folder / "upstream"), episode_trigger=lambda _: True
            )
            self.drive(env, draw=False)

    def replay(self, **options: Any) -> None:
        """Films each episode as reenact does.

        Raises:
            RuntimeError: one of them is not exact.
        """
        shutil.rmtree(self.folder / "ours", ignore_errors=True)
        results = reenact.replay(self.run, "all", video_folder=self.folder / "ours", **options)
        if not all(result.ok for result in results):
            raise RuntimeError(next(result for result in results if not result.ok))

    def read_back(self, folder: str) -> tuple[int, int]:
        """Returns how many frames its videos have, and how many of those that were drawn are in none of them."""
        stored = missing = 0
        for path in sorted((self.folder / folder).glob("*.mp4")):
            numbers = decoded(path)
            stored += len(numbers)
            missing += len(set(range(self.case.steps + 1)) - set(numbers))
            if folder == "ours" and numbers != list(range(self.case.steps + 1)):
                raise RuntimeError(f"{path} shows {numbers}")
        return stored, missing


def decoded(path: Path) -> list[int]:
    """Returns the numbers that a video's frames bear, in their order."""
    reader = imageio_ffmpeg.read_frames(str(path), output_params=["-fps_mode", "passthrough"])
    width, height = next(reader)["size"]
    return [number_of(np.frombuffer(frame, np.uint8).reshape(height, width, 3)) for frame in reader]


def report(case: Case, repeats: int, *, upstream: bool) -> None:
    """Prints a case's row, with `RecordVideo`'s cells or without."""
    with tempfile.TemporaryDirectory(prefix="bench-rendering-") as name:
        stage = Stage(case, Path(name))
        forms: dict[str, Callable[[], None]] = {
            "limit": stage.limit,
            **({"upstream": stage.record_video} if upstream else {}),
            "one": stage.replay,
        }
        if "jobs" in inspect.signature(reenact.replay).parameters:
            forms["two"] = lambda: stage.replay(jobs=2)
        for form in forms.values():
            form()  # once unmeasured: imports, caches
        turns = []
        for repeat in range(repeats):
            turns.append({name: cost(case, form) for name, form in forms.items()})
            print(f"  {case.name} {repeat + 1}/{repeats}: {turns[-1]}", file=sys.stderr)
        stored, missing = stage.read_back("upstream")  # of no folder: none
        ours, none = stage.read_back("ours")

    def median(figure: Callable[[dict[str, Cost]], float]) -> float:
        return statistics.median(figure(turn) for turn in turns)

    def bound(turn: dict[str, Cost]) -> float:
        return 2 / (turn["limit"].own + turn["one"].others)  # frames a µs

    def of_upstream(figure: Callable[[Cost, Cost], float], form: str) -> str:
        return form.format(median(lambda turn: figure(turn["upstream"], turn["one"]))) if upstream else "–"

    one = median(lambda turn: turn["one"].own + turn["one"].others)
    cells = [
        f"{case.name}, {case.episodes} × {case.steps + 1:,}",
        f"{median(lambda turn: 1e6 / turn['limit'].wall):,.0f}",
        of_upstream(lambda theirs, _: 1e6 / theirs.wall, "{:,.0f}"),
        f"{median(lambda turn: 1e6 / turn['one'].wall):,.0f}",
        f"{median(lambda turn: turn['limit'].wall / turn['one'].wall):.2f}",
        of_upstream(lambda theirs, ours: theirs.wall / ours.wall, "{:.2f} ×"),
        f"{median(lambda turn: turn['limit'].own):,.0f}",
        f"{median(lambda turn: turn['one'].own):,.0f}",
        f"{median(lambda turn: turn['one'].others):,.0f}",
        f"{min(1.0, 2 * median(lambda turn: turn['limit'].own) / one):.2f}",
        of_upstream(lambda theirs, _: theirs.own + theirs.others, "{:,.0f}"),
        "–" if "two" not in forms else f"{median(lambda turn: 1 / turn['two'].wall / bound(turn)):.2f}",
        f"{ours:,}, {none} missing",
        f"{stored:,}, {missing:,} missing" if upstream else "–",
    ]
    print(f"| {' | '.join(cells)} |", flush=True)


HEAD = (
    "| env, episodes × frames | limit, f/s | RecordVideo, f/s | one job, f/s | of the limit | against RecordVideo "
    "| CPU µs a frame: limit | one job | its encoder | most of the limit that two cores allow | RecordVideo, all "
    "| two jobs, of what two cores allow | frames in the videos | RecordVideo's |\n" + "|---" + "|--:" * 13 + "|"
)


# ---- what two cores do


def apart(case: Case, pairs: int, frames: Path, size: tuple[int, int]) -> tuple[float, float]:
    """Returns the CPU time that a frame takes an env and an encoder, in µs, of so many of each at once.

    Args:
        case: what is drawn, in each env's own process.
        pairs: how many of each.
        frames: what each encoder reads.
        size: those frames' height and width.
    """
    codec, preset, parameters = Encoding().codec(*size)
    there = frames.stat().st_size // (size[0] * size[1] * 3)
    times = max(1, case.frames // there)
    source = ("-f", "rawvideo", "-s", f"{size[1]}x{size[0]}", "-pix_fmt", "rgb24", "-r", "30")
    encoder = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-loglevel", "error", *source, "-stream_loop", str(times - 1)]
    encoder += ["-i", str(frames), "-vcodec", codec, "-preset", preset, *parameters, "-threads", "1"]
    encoder += ["-f", "mp4", "/dev/null"]
    drawing = [sys.executable, str(Path(__file__).resolve()), "--child", "draw", case.id, str(case.frames)]
    envs = [subprocess.Popen(drawing, stdout=subprocess.PIPE) for _ in range(pairs)]
    encoders = [subprocess.Popen(encoder, stdin=subprocess.DEVNULL) for _ in range(pairs)]
    encoded = 0.0
    for process in encoders:
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        encoded += used.ru_utime + used.ru_stime
    drawn = sum(float(process.communicate()[0]) for process in envs)
    if any(process.returncode for process in (*envs, *encoders)):
        raise RuntimeError(f"{case.name}: an env or an encoder failed")
    return drawn / pairs, encoded * 1e6 / (pairs * there * times)


def draw(case: Case) -> float:
    """Returns the CPU time that a frame takes to step and draw, in µs."""
    env = case.make("rgb_array")
    env.action_space.seed(0)
    env.reset(seed=0)
    warm, began = case.frames // 20, 0.0
    for at in range(case.frames + warm):
        if at == warm:
            began = time.process_time()
        env.step(env.action_space.sample())
        env.render()
    return (time.process_time() - began) * 1e6 / case.frames


def report_apart(*, repeats: int, scale: float) -> None:
    """Prints what a frame takes with one of each, with two, and what is left of the speed."""
    print(
        "| env | CPU µs a frame: drawn | encoded | two of each: drawn | encoded | two cores, of what they would allow |"
    )
    print("|---" + "|--:" * 5 + "|")
    for case in cases(scale)[:2]:
        with tempfile.TemporaryDirectory(prefix="bench-rendering-") as name:
            env, path = case.make("rgb_array"), Path(name, "frames")
            env.reset(seed=0)
            with path.open("wb") as file:
                for _ in range(int(500 * scale)):
                    env.step(env.action_space.sample())
                    frame: Any = env.render()
                    file.write(frame.tobytes())
            env.close()
            turns = [[apart(case, pairs, path, frame.shape[:2]) for pairs in (1, 2)] for _ in range(repeats)]
        costs = [[statistics.median(turn[of][what] for turn in turns) for what in (0, 1)] for of in (0, 1)]
        share = statistics.median(sum(one) / sum(two) for one, two in turns)
        cells = [case.name, *(f"{cost:,.0f}" for of in costs for cost in of), f"{share:.2f}"]
        print(f"| {' | '.join(cells)} |", flush=True)


# ---- memory


def tree_bytes(pid: int) -> int:
    """Returns the memory that a process and those that it started hold now (Linux)."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
        children = [
            one for task in Path(f"/proc/{pid}/task").iterdir() for one in (task / "children").read_text().split()
        ]
    except (OSError, IndexError):  # it has ended
        return 0
    return pages * resource.getpagesize() + sum(tree_bytes(int(child)) for child in children)


def peak_bytes(case: Case, form: str) -> int:
    """Returns the most memory that a form takes in a process of its own, with all that it starts."""
    command = (sys.executable, str(Path(__file__).resolve()), "--child", form, case.id, str(case.steps))
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None  # noqa: S101  # for mypy
        assert process.stdout is not None  # noqa: S101
        process.stdout.readline()  # it has recorded
        process.stdin.write(b"\n")
        process.stdin.flush()
        ended, peak = threading.Event(), 0

        def wait() -> None:
            process.wait()
            ended.set()

        threading.Thread(target=wait, daemon=True).start()
        while not ended.wait(0.02):
            peak = max(peak, tree_bytes(process.pid))
        if process.returncode:
            raise RuntimeError(f"{form} of {case.name} ended with {process.returncode}")
    return peak


def child(form: str, env_id: str, steps: int) -> None:
    """Records one episode, says so, waits to be told, and does a form once; or draws, and says what a frame took."""
    if form == "draw":
        print(draw(Case(env_id, env_id, 1, steps)))
        return
    with tempfile.TemporaryDirectory(prefix="bench-rendering-") as name:
        stage = Stage(Case(env_id, env_id, 1, steps), Path(name))
        print(flush=True)
        sys.stdin.readline()
        {"limit": stage.limit, "one": stage.replay, "upstream": stage.record_video}[form]()


def report_memory(*, quick: bool) -> None:
    """Prints the peaks."""
    print("\n### Peak memory, MB, with ffmpeg's\n")
    print("| env, frames | limit | one job | beyond the limit | RecordVideo |")
    print("|---|--:|--:|--:|--:|")
    for name, env_id in (("CartPole", "CartPole-v1"), ("LunarLander", "LunarLander-v3")):
        for steps in (100, 200) if quick else (500, 5000):
            case = Case(name, env_id, 1, steps)
            limit, ours = (peak_bytes(case, form) / 1e6 for form in ("limit", "one"))
            upstream = f"{peak_bytes(case, 'upstream') / 1e6:,.0f}" if steps <= 500 else "not tried"  # noqa: PLR2004
            print(f"| {name}, {steps:,} | {limit:.0f} | {ours:.0f} | {ours - limit:.0f} | {upstream} |", flush=True)


def main() -> None:
    """Runs what the options ask for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a small run of everything asked for")
    parser.add_argument("--repeats", type=int, help="turns of each form (5)")
    parser.add_argument("--only", metavar="NAME", action="append", help="this env; may be repeated")
    parser.add_argument("--episodes", type=int, help="so many films of each env, in place of its own number")
    parser.add_argument("--ours", action="store_true", help="without RecordVideo, which takes most of the time")
    parser.add_argument("--memory", action="store_true", help="peak memory")
    parser.add_argument("--apart", action="store_true", help="envs and encoders that pass nothing on")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    # where it is set, workers compile an editable install's modules anew: a fifth of their start, which no user has
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    if options.child is not None:
        child(options.child[0], options.child[1], int(options.child[2]))
        return
    if options.memory:
        report_memory(quick=options.quick)
        return
    repeats, scale = options.repeats or (1 if options.quick else 5), 0.1 if options.quick else 1.0
    if options.apart:
        report_apart(repeats=repeats, scale=scale)
        return
    print(HEAD, flush=True)
    for case in cases(scale):
        if options.only is None or case.name in options.only:
            report(replace(case, episodes=options.episodes or case.episodes), repeats, upstream=not options.ours)


if __name__ == "__main__":
    main()
