"""What recording costs: reenact.Recorder beside what people use today.

    python tools/bench_recording.py              ns a step, and the 10,000-episode training script
    python tools/bench_recording.py --quick      the same, small: to see that it runs, not to quote
    python tools/bench_recording.py --vector     microseconds a vector step, 8 and 64 lanes
    python tools/bench_recording.py --memory     growth of memory over 10 million steps (--memory 2: two)
    python tools/bench_recording.py --bytes      bytes on disk a step, 10,000 episodes of random CartPole
    python tools/bench_recording.py --sb3        frames a second of Stable-Baselines3's PPO (needs '.[libraries]')

All forms run in one process, taking turns, so that a busy machine slows each of them alike; figures are
medians over the repeats. "adds" is the median, over the repeats, of a form's time less that of the bare env
in the same turn. Reports are Markdown on stdout; what goes on meanwhile is told on stderr.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector import VectorEnv
from gymnasium.vector.utils import batch_space
from gymnasium.wrappers import RecordEpisodeStatistics, RecordVideo
from gymnasium.wrappers import vector as vector_wrappers

import reenact

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

AnyEnv = gym.Env[Any, Any]

VIDEO_EVERY = 250
POOL = 4096  # actions drawn beforehand, used round and round
EPISODE_STEPS = 200  # of the env that does nothing
SHORT_EPISODE_STEPS = 20  # random CartPole's, about: more episodes for the memory to show
SEED = 0


class Nothing(gym.Env[Any, Any]):
    """Does nothing at the least price, so that what is measured is the wrapper."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 30}  # noqa: RUF012 - as Gymnasium declares it

    def __init__(self, floats: int = 0, episode_steps: int = EPISODE_STEPS, render_mode: str | None = None) -> None:
        """Takes the number of floats in an action; 0 stands for a Discrete(2)."""
        self.render_mode = render_mode
        self.observation_space = spaces.Box(-1, 1, (4,), np.float32)
        self.action_space = spaces.Box(-1, 1, (floats,), np.float32) if floats else spaces.Discrete(2)
        self._observation = np.zeros(4, np.float32)
        self._frame = np.zeros((16, 16, 3), np.uint8)
        self._episode_steps = episode_steps
        self._steps = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Starts to count again."""
        super().reset(seed=seed, options=options)
        self._steps = 0
        return self._observation, {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:  # noqa: ARG002 - does nothing
        """Counts, and truncates when the episode is long enough."""
        self._steps += 1
        return self._observation, 1.0, False, self._steps >= self._episode_steps, {}

    def render(self) -> Any:
        """Returns a small black frame."""
        return self._frame


class NothingTogether(VectorEnv):
    """Lanes that do nothing: each ends after so many steps, and all at other times; reset in the next step."""

    def __init__(self, num_envs: int, episode_steps: int) -> None:
        self.num_envs, self._episode_steps = num_envs, episode_steps
        mode = getattr(gym.vector, "AutoresetMode", None)
        self.metadata = {} if mode is None else {"autoreset_mode": mode.NEXT_STEP}
        self.single_action_space, self.single_observation_space = spaces.Discrete(2), spaces.Box(-1, 1, (4,))
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self._observations = np.zeros((num_envs, 4), np.float32)
        self._rewards, self._never = np.ones(num_envs), np.zeros(num_envs, np.bool_)
        self._due = np.random.default_rng(SEED).integers(1, episode_steps + 1, num_envs)
        self._steps, self._next = 0, int(self._due.min())

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:  # noqa: ARG002 - does nothing
        """Does nothing."""
        return self._observations, {}

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:  # noqa: ARG002 - does nothing
        """Counts."""
        self._steps += 1
        if self._steps < self._next:
            return self._observations, self._rewards, self._never, self._never, {}
        ends = self._due <= self._steps
        self._due[ends] += self._episode_steps + 1
        self._next = int(self._due.min())
        return self._observations, self._rewards, ends, self._never, {}


class BareWrapper(gym.Wrapper[Any, Any, Any, Any]):
    """What any wrapper costs: the calls passed on."""


def every_250th(number: int) -> bool:
    """The trigger of RecordVideo."""
    return number % VIDEO_EVERY == 0


def bare(env: AnyEnv, _: Path) -> AnyEnv:
    """No wrapper."""
    return env


def bare_wrapper(env: AnyEnv, _: Path) -> AnyEnv:
    """A wrapper that passes everything on."""
    return BareWrapper(env)


def episode_statistics(env: AnyEnv, _: Path) -> AnyEnv:
    """What a training has anyway."""
    return RecordEpisodeStatistics(env)


def recorder(env: AnyEnv, folder: Path) -> AnyEnv:
    """This package."""
    return reenact.Recorder(env, run=folder / "run")


def durable(env: AnyEnv, folder: Path) -> AnyEnv:
    """This package, waiting for the disk at each commit."""
    return reenact.Recorder(env, run=folder / "run", durable=True)


def record_video(env: AnyEnv, folder: Path) -> AnyEnv:
    """What people do to see a training: film every 250th episode as it happens."""
    filmed = RecordVideo(env, str(folder / "videos"), episode_trigger=every_250th, disable_logger=True)
    return RecordEpisodeStatistics(filmed)


def minari_collector(env: AnyEnv, folder: Path) -> AnyEnv:
    """Minari's collector, which keeps observations too."""
    import minari  # noqa: PLC0415 - the other forms are measured without it as well

    os.environ["MINARI_DATASETS_PATH"] = str(folder)
    collector: AnyEnv = minari.DataCollector(env)
    return collector


@dataclass(frozen=True)
class Form:
    """One way to wrap an env."""

    name: str
    wrap: Callable[[AnyEnv, Path], AnyEnv]
    render_mode: str | None = None
    share: float = 1.0
    """How much of the steps it takes: a form that is 40 times as slow shows that in fewer."""


BARE = Form("bare", bare)
STATISTICS = Form("RecordEpisodeStatistics", episode_statistics)
RECORDER = Form("reenact.Recorder", recorder)
DURABLE = Form("reenact.Recorder, durable=True", durable)
VIDEO = Form("RecordEpisodeStatistics + RecordVideo", record_video, render_mode="rgb_array")
MINARI = Form("Minari DataCollector", minari_collector, share=0.02)
STEP_FORMS = (BARE, Form("bare wrapper", bare_wrapper), STATISTICS, RECORDER, DURABLE, VIDEO, MINARI)
SCRIPT_FORMS = (BARE, STATISTICS, RECORDER, DURABLE, VIDEO)


@dataclass(frozen=True)
class Case:
    """An env and what is fed to it."""

    name: str
    make: Callable[[str | None], AnyEnv]
    actions: Sequence[Any]
    steps: int


def make_nothing(floats: int = 0, episode_steps: int = EPISODE_STEPS) -> Callable[[str | None], AnyEnv]:
    """Returns a maker of the env that does nothing, with a spec and without Gymnasium's own wrappers."""
    env_id = "bench/Nothing-v0"
    if env_id not in gym.registry:
        gym.register(env_id, entry_point=f"{__name__}:Nothing", disable_env_checker=True, order_enforce=False)
    return lambda render_mode: gym.make(env_id, floats=floats, episode_steps=episode_steps, render_mode=render_mode)


def make_cartpole(render_mode: str | None) -> AnyEnv:
    """Makes CartPole as a training script does."""
    return gym.make("CartPole-v1", render_mode=render_mode)


def cases(steps: int) -> tuple[Case, ...]:
    """The envs of the step benchmark; CartPole, which does something, takes a fifth of the steps."""
    random = np.random.default_rng(SEED)
    ints: list[int] = random.integers(2, size=POOL).tolist()
    floats = list(random.uniform(-1, 1, (POOL, 6)).astype(np.float32))
    return (
        Case("does nothing, Discrete(2), Python ints", make_nothing(), ints, steps),
        Case("does nothing, Discrete(2), np.int64", make_nothing(), [np.int64(a) for a in ints], steps),
        Case("does nothing, Box(-1, 1, (6,), float32)", make_nothing(6), floats, steps),
        Case("CartPole-v1, random, Python ints", make_cartpole, ints, steps // 5),
    )


@contextmanager
def scratch() -> Iterator[Path]:
    """Gives a temporary folder; warnings are nothing to do with what is measured."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield Path(folder)


def drive(env: AnyEnv, actions: Sequence[Any], steps: int) -> float:
    """Takes steps, reset where an episode ends, and returns ns a step."""
    step, reset = env.step, env.reset
    stream = itertools.islice(itertools.cycle(actions), steps)
    reset()
    started = time.perf_counter_ns()
    for action in stream:
        _, _, terminated, truncated, _ = step(action)
        if terminated or truncated:
            reset()
    return (time.perf_counter_ns() - started) / steps


def step_time(case: Case, form: Form) -> float:
    """Returns ns a step of one form, in its stride: its files are open, its first commits are made."""
    with scratch() as folder:
        env = form.wrap(case.make(form.render_mode), folder)
        env.reset(seed=SEED)
        steps = max(1, int(case.steps * form.share))
        drive(env, case.actions, min(steps, 10_000))
        gc.collect()
        result = drive(env, case.actions, steps)
        env.close()
    return result


def script_time(form: Form, episodes: int) -> float:
    """Returns seconds of the whole training script, from the making of the env to its close."""
    with scratch() as folder:
        gc.collect()
        started = time.perf_counter()
        env = form.wrap(make_cartpole(form.render_mode), folder)
        random = np.random.default_rng(SEED)
        for episode in range(episodes):
            env.reset(seed=SEED if episode == 0 else None)
            ended = False
            while not ended:
                _, _, terminated, truncated, _ = env.step(int(random.integers(2)))
                ended = terminated or truncated
        env.close()
        return time.perf_counter() - started


def in_turns(
    forms: Sequence[Form], repeats: int, measure: Callable[[Form], float], unit: str
) -> dict[str, list[float]]:
    """Measures every form once, then all again; a form that lacks a package is left out."""
    times: dict[str, list[float]] = {form.name: [] for form in forms}
    for repeat in range(repeats):
        # Each turn starts with another form: what one leaves behind (heat, caches) meets each of the others.
        for form in (*forms[repeat % len(forms) :], *forms[: repeat % len(forms)]):
            if form.name not in times:
                continue
            try:
                times[form.name].append(measure(form))
            except ImportError as error:
                print(f"{form.name} left out: {error}", file=sys.stderr)
                del times[form.name]
                continue
            print(f"  {repeat + 1}/{repeats} {form.name}: {times[form.name][-1]:,.4g} {unit}", file=sys.stderr)
    return times


def adds(times: dict[str, list[float]], name: str) -> float:
    """Returns the median of a form's time less that of the bare env in the same turn."""
    return statistics.median(mine - plain for mine, plain in zip(times[name], times[BARE.name], strict=True))


def against(value: float, reference: float) -> str:
    """Returns the ratio, or a dash where the reference drowned in noise."""
    return f"{value / reference:.2f} ×" if reference > 0 else "–"


def report_steps(case: Case, repeats: int) -> None:
    """Prints the table of one env."""
    print(f"{case.name}", file=sys.stderr)
    times = in_turns(STEP_FORMS, repeats, lambda form: step_time(case, form), "ns")
    print(f"\n### {case.name}\n")
    minari_steps = int(case.steps * MINARI.share)
    print(f"{case.steps:,} steps, {repeats} repeats; Minari's collector {minari_steps:,} steps.\n")
    print("| form | ns a step | adds, ns | adds, against RecordEpisodeStatistics | whole, against bare |")
    print("|---|--:|--:|--:|--:|")
    reference, plain = adds(times, STATISTICS.name), statistics.median(times[BARE.name])
    for name, values in times.items():
        added, whole = adds(times, name), statistics.median(values)
        ratio = "–" if name == BARE.name else against(added, reference)
        print(f"| {name} | {whole:,.0f} | {added:,.0f} | {ratio} | {against(whole, plain)} |", flush=True)


def report_script(episodes: int, repeats: int) -> None:
    """Prints the table of the training script."""
    print("training script", file=sys.stderr)
    times = in_turns(SCRIPT_FORMS, repeats, lambda form: script_time(form, episodes), "s")
    print(f"\n### Training script: CartPole-v1, random, {episodes:,} episodes\n")
    print(f"From making the env to closing it; {repeats} repeats; videos of every {VIDEO_EVERY}th episode.\n")
    print("| form | seconds | against bare | against RecordVideo |")
    print("|---|--:|--:|--:|")
    plain, video = statistics.median(times[BARE.name]), statistics.median(times[VIDEO.name])
    for name, values in times.items():
        whole = statistics.median(values)
        print(f"| {name} | {whole:.2f} | {against(whole, plain)} | {against(whole, video)} |", flush=True)


def report_sb3(repeats: int, steps: int) -> None:
    """Prints the fps of PPO in SB3's vector envs; two trainings, one of them recorded, take turns, a rollout each.

    CPU time, of this process alone, tells more where others use the machine; workers' is not in it.
    """
    import torch  # noqa: PLC0415 - the other forms are measured without it as well
    from stable_baselines3 import PPO  # noqa: PLC0415
    from stable_baselines3.common.env_util import make_vec_env  # noqa: PLC0415
    from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv  # noqa: PLC0415

    torch.set_num_threads(1)
    print(f"\n### Stable-Baselines3: PPO on CartPole-v1, 4 envs, {repeats} turns of {steps:,} steps each\n")
    print("| vector env | fps without | fps with the recorder | ratio | of CPU time |")
    print("|---|--:|--:|--:|--:|")
    for vec_env in (DummyVecEnv, SubprocVecEnv):
        with scratch() as folder:
            models = []
            for wrapper in ({}, {"wrapper_class": reenact.recording(folder / "run")}):
                envs = make_vec_env("CartPole-v1", n_envs=4, seed=SEED, vec_env_cls=vec_env, **wrapper)
                models.append(PPO("MlpPolicy", envs, n_steps=steps // 4, seed=SEED, device="cpu"))
                models[-1].learn(steps)  # warm
            wall: tuple[list[float], list[float]] = ([], [])
            cpu: tuple[list[float], list[float]] = ([], [])
            for repeat in range(repeats):
                for form in (0, 1) if repeat % 2 else (1, 0):
                    gc.collect()
                    started = time.perf_counter(), time.process_time()
                    models[form].learn(steps, reset_num_timesteps=False)
                    wall[form].append(time.perf_counter() - started[0])
                    cpu[form].append(time.process_time() - started[1])
            for model in models:
                model.get_env().close()
        without, with_ = (steps / statistics.median(times) for times in wall)
        ratios = [statistics.median(bare / mine for bare, mine in zip(*times, strict=True)) for times in (wall, cpu)]
        print(f"| {vec_env.__name__} | {without:,.0f} | {with_:,.0f} | {ratios[0]:.3f} | {ratios[1]:.3f} |", flush=True)


def vector_step_time(lanes: int, episode_steps: int, form: Form, steps: int) -> float:
    """Returns microseconds a vector step of one form, in its stride."""
    actions = list(np.random.default_rng(SEED).integers(2, size=(64, lanes)))
    with scratch() as folder:
        envs: Any = NothingTogether(lanes, episode_steps)
        if form is STATISTICS:
            envs = vector_wrappers.RecordEpisodeStatistics(envs)
        elif form is not BARE:
            envs = reenact.VectorRecorder(envs, folder / "run")
        envs.reset()
        step, took = envs.step, 0
        for count in (min(steps, 2_000), steps):
            gc.collect()
            stream = itertools.islice(itertools.cycle(actions), count)
            started = time.perf_counter_ns()
            for action in stream:
                step(action)
            took = time.perf_counter_ns() - started
        envs.close()
    return took / steps / 1000


def report_vector(steps: int, repeats: int) -> None:
    """Prints the table of vector envs."""
    print("\n### A vector env that does nothing, Discrete(2), NEXT_STEP\n")
    print(f"Microseconds a vector step; {steps:,} of them, {repeats} repeats.\n")
    print("| lanes | steps an episode | RecordEpisodeStatistics adds | reenact.VectorRecorder adds | ratio |")
    print("|--:|--:|--:|--:|--:|")
    forms = (BARE, STATISTICS, Form("reenact.VectorRecorder", recorder))
    for lanes, episode_steps in itertools.product((8, 64), (EPISODE_STEPS, SHORT_EPISODE_STEPS)):

        def measure(form: Form, lanes: int = lanes, episode_steps: int = episode_steps) -> float:
            return vector_step_time(lanes, episode_steps, form, steps)

        times = in_turns(forms, repeats, measure, "µs")
        theirs, ours = adds(times, STATISTICS.name), adds(times, forms[2].name)
        print(f"| {lanes} | {episode_steps} | {theirs:.1f} | {ours:.1f} | {against(ours, theirs)} |", flush=True)


def resident_bytes() -> int:
    """Returns the memory that this process holds now (Linux)."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def grow(steps: int) -> None:
    """Prints start, end and peak of the resident memory, in bytes, over so many steps of the Recorder."""
    with scratch() as folder:
        env = recorder(make_nothing(episode_steps=SHORT_EPISODE_STEPS)(None), folder)
        actions: list[int] = np.random.default_rng(SEED).integers(2, size=POOL).tolist()
        env.reset(seed=SEED)
        drive(env, actions, 200_000)
        gc.collect()
        start = peak = resident_bytes()
        for _ in range(100):
            drive(env, actions, max(1, steps // 100))
            peak = max(peak, resident_bytes())
        gc.collect()
        print(start, resident_bytes(), peak)
        env.close()


def report_memory(millions: float) -> None:
    """Measures growth in a process of its own, where nothing else has left holes to fill."""
    steps = int(millions * 1_000_000)
    child = (sys.executable, str(Path(__file__).resolve()), "--memory-child", str(steps))
    done = subprocess.run(child, check=True, stdout=subprocess.PIPE, text=True)
    start, end, peak = (int(number) for number in done.stdout.split())
    print(f"\n### Memory over {millions:g} million steps, episodes of {SHORT_EPISODE_STEPS}\n")
    print("| after warm-up, MB | growth at the end, MB | growth at the peak, MB |")
    print("|--:|--:|--:|")
    print(f"| {start / 1e6:.1f} | {(end - start) / 1e6:.1f} | {(peak - start) / 1e6:.1f} |")


def report_bytes(episodes: int) -> None:
    """Prints what a closed run of random CartPole takes on disk."""
    with scratch() as folder:
        env = recorder(make_cartpole(None), folder)
        random = np.random.default_rng(SEED)
        steps = 0
        for episode in range(episodes):
            env.reset(seed=SEED if episode == 0 else None)
            ended = False
            while not ended:
                _, _, terminated, truncated, _ = env.step(int(random.integers(2)))
                ended = terminated or truncated
                steps += 1
        env.close()
        size = sum(path.stat().st_size for path in (folder / "run").rglob("*") if path.is_file())
    print(f"\n### On disk: CartPole-v1, random, {episodes:,} episodes, {steps:,} steps\n")
    print("| bytes | bytes a step | bytes an episode |")
    print("|--:|--:|--:|")
    print(f"| {size:,} | {size / steps:.2f} | {size / episodes:.0f} |")


def main() -> None:
    """Runs what the options ask for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a small run of everything asked for")
    parser.add_argument("--repeats", type=int, help="turns of each form (5, the script 3)")
    parser.add_argument("--steps", type=int, help="steps a turn on the env that does nothing (200,000)")
    parser.add_argument("--episodes", type=int, help="of the training script and of --bytes (10,000)")
    parser.add_argument("--memory", type=float, nargs="?", const=10.0, metavar="MILLIONS", help="growth of memory")
    parser.add_argument("--vector", action="store_true", help="vector envs")
    parser.add_argument("--bytes", action="store_true", help="bytes on disk a step")
    parser.add_argument("--sb3", action="store_true", help="frames a second of Stable-Baselines3's PPO")
    parser.add_argument("--memory-child", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()

    if options.memory_child is not None:
        grow(options.memory_child)
        return
    if options.sb3:
        report_sb3(options.repeats or (4 if options.quick else 100), options.steps or 512)
        return
    if options.vector:
        report_vector(
            options.steps or (2_000 if options.quick else 20_000), options.repeats or (2 if options.quick else 7)
        )
        return
    episodes = options.episodes or (300 if options.quick else 10_000)
    if options.memory is not None or options.bytes:
        if options.memory is not None:
            report_memory(min(options.memory, 0.5) if options.quick else options.memory)
        if options.bytes:
            report_bytes(episodes)
        return
    for case in cases(options.steps or (20_000 if options.quick else 200_000)):
        report_steps(case, options.repeats or (2 if options.quick else 5))
    report_script(episodes, options.repeats or (1 if options.quick else 3))


if __name__ == "__main__":
    main()
