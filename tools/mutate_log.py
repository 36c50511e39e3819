"""How much a check sees: flips one thing at a time in real logs, and counts what verification catches.

    python tools/mutate_log.py                           2,000 mutations over all envs
    python tools/mutate_log.py --markdown                the same, as Markdown
    python tools/mutate_log.py --envs CartPole,Taxi      only envs whose names contain one of these
    python tools/mutate_log.py --fingerprint-every 1     logs that keep a checksum of every observation

Each mutation is one of

    action   another action in the place of one that was taken, or one bit of one of its floats
    seed     one bit of an episode's seed, or the number next to it
    rng      one bit of the RNG state that an unseeded episode starts from
    kwarg    one argument of the env in the recipe: a bit of a float, an int one off, the other bool or map
    hidden   one bit, state, card or random draw inside the env, right after the reset: the log stays as it is

All checksums and the signature are put right again, so that nothing but re-execution can see it.

What really happened is known without reenact: the episodes are noted down while they are recorded, and played
again with the mutation by a loop of this file. From the two follows whether anything differs at all (else the
mutation has no effect, even if a video would show it: a hole in the ice where nobody goes), and at which step a
check of rewards, endings and the kept checksums must see it. A verdict that says otherwise is a defect: it is
printed, and the exit code is 1. A miss is a verdict "exact" over a trajectory that differs: each is printed.
Latency is counted in env steps from the first difference.
"""

from __future__ import annotations

import argparse
import inspect
import itertools
import json
import os
import statistics
import struct
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from shutil import copyfile
from typing import TYPE_CHECKING, Any
from zlib import crc32

import gymnasium as gym
import h5py
import numpy as np
from gymnasium import spaces

import reenact
from reenact import layout
from reenact.signing import sign

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

AnyEnv = gym.Env[Any, Any]
Random = np.random.Generator

EPISODES = 16  # of each env; every other one is seeded
LANES = 3  # of a vector env: the lanes' first episodes are seeded
INTERRUPTED = (5, 10)  # of these, one unseeded and one seeded
CUT_STEPS = 60  # an interrupted one has at most so many steps
FLIPPED_BITS = 50  # of a float64's fraction: without the highest two, a value changes by an eighth at most
PROGRESS = 500  # mutations between two signs of life
ATTEMPTS = 30  # to find a mutation of one kind that was not made yet
PCG64 = struct.Struct("<16s16sBI")  # the log's form of its state: state, inc, has_uint32, uinteger
RNG_WORDS = {  # its bits; of the byte `has_uint32` only the lowest says anything
    "state": range(128),
    "inc": range(128, 256),
    "has_uint32": range(256, 257),
    "uinteger": range(264, 296),
}
DENSITIES = (32, 16, 8, 4, 1)
TILES = {"F": "H", "H": "F"}
MAPS = {"4x4": "8x8", "8x8": "4x4"}


# ---- what hides in an env

Hide = Callable[[Any, Random], str]
"""Changes one thing inside an env that was just reset, and says what."""


def flip_float(array: np.ndarray, random: Random) -> str:
    """Flips one bit of one float in place, its sign and exponent aside."""
    at = int(random.integers(array.size))
    word = array.reshape(-1).view(f"u{array.itemsize}")
    bit = int(random.integers(FLIPPED_BITS if array.itemsize == np.float64().itemsize else np.finfo(array.dtype).nmant))
    word[at] ^= word.dtype.type(1 << bit)
    return f"[{at}] bit {bit}"


def draw(base: Any, _: Random) -> str:
    """Draws once from the env's RNG."""
    base.np_random.random()
    return "one more draw from the RNG"


def in_state(base: Any, random: Random) -> str:
    """Flips a bit of a classic control env's state."""
    return f"state{flip_float(base.state, random)}"


def in_cell(base: Any, random: Random) -> str:
    """Moves a tabular env elsewhere."""
    before = int(base.s)
    base.s = int((before + random.integers(1, base.observation_space.n)) % base.observation_space.n)
    return f"s {before} -> {base.s}"


def in_hand(base: Any, random: Random) -> str:
    """Swaps a card of Blackjack's for another."""
    name = ("dealer", "player")[random.integers(2)]
    hand, at = getattr(base, name), int(random.integers(2))
    before = hand[at]
    hand[at] = int((before - 1 + random.integers(1, 10)) % 10 + 1)
    return f"{name}[{at}] {before} -> {hand[at]}"


def in_lander(base: Any, random: Random) -> str:
    """Flips a bit of a velocity of Box2D's, or shifts the wind."""
    if base.enable_wind and random.integers(2):
        base.wind_idx += 1
        return "wind_idx + 1"
    bodies = {"lander": base.lander, "legs[0]": base.legs[0], "legs[1]": base.legs[1]}
    name = list(bodies)[random.integers(len(bodies))]
    body = bodies[name]
    velocity = np.array([*body.linearVelocity, body.angularVelocity], np.float32)
    flipped = flip_float(velocity, random)
    body.linearVelocity, body.angularVelocity = velocity[:2].tolist(), float(velocity[2])
    return f"{name}.velocity{flipped}"


def in_mujoco(base: Any, random: Random) -> str:
    """Flips a bit of MuJoCo's positions, velocities, or of what its solver starts from."""
    name = ("qpos", "qvel", "qacc_warmstart")[random.integers(3)]
    return f"{name}{flip_float(getattr(base.data, name), random)}"


class Perturbed(gym.Wrapper[Any, Any, Any, Any]):
    """Changes something inside the env after each reset: the same each time, for the same seed."""

    def __init__(self, env: AnyEnv, hide: Hide, seed: int) -> None:
        super().__init__(env)
        self._hide, self._seed, self.said = hide, seed, ""

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        """Resets; the observation is the unchanged one."""
        result = self.env.reset(**kwargs)
        self.said = self._hide(self.unwrapped, np.random.default_rng(self._seed))
        return result


# ---- the envs


@dataclass(frozen=True)
class Variant:
    """An env to record.

    Attributes:
        name: in the report.
        env_id: its id.
        hide: changes its hidden state.
        kwargs: given to `gymnasium.make`, and mutated there.
        lanes: how many of it a sync vector env steps side by side; 0: it is recorded alone.
    """

    name: str
    env_id: str
    hide: Hide
    kwargs: dict[str, Any] = field(default_factory=dict)
    lanes: int = 0

    def make(self, render_mode: str | None = None, **changed: Any) -> AnyEnv:
        """Makes it, with some of its arguments changed."""
        return gym.make(self.env_id, render_mode=render_mode, disable_env_checker=True, **{**self.kwargs, **changed})


WIND = {"gravity": -10.0, "enable_wind": True, "wind_power": 15.0, "turbulence_power": 1.5}
HOPPER = {"frame_skip": 4, "healthy_reward": 1.0, "terminate_when_unhealthy": True, "reset_noise_scale": 5e-3}
SWIMMER = {"frame_skip": 4, "forward_reward_weight": 1.0, "ctrl_cost_weight": 1e-4, "reset_noise_scale": 0.1}
WEATHER = {"is_rainy": True, "fickle_passenger": True, "rainy_probability": 0.8, "fickle_probability": 0.3}
LAKE = {"is_slippery": True, "success_rate": 1 / 3}

VARIANTS = (
    Variant("CartPole", "CartPole-v1", in_state, {"sutton_barto_reward": False}),
    Variant("Acrobot", "Acrobot-v1", in_state, {"max_episode_steps": 500}),
    Variant("MountainCar", "MountainCar-v0", in_state, {"goal_velocity": 0, "max_episode_steps": 200}),
    Variant("MountainCarContinuous", "MountainCarContinuous-v0", in_state, {"goal_velocity": 0}),
    Variant("Pendulum", "Pendulum-v1", in_state, {"g": 10.0, "max_episode_steps": 200}),
    Variant("FrozenLake", "FrozenLake-v1", in_cell, {"desc": ["SFFF", "FHFH", "FFFH", "HFFG"], **LAKE}),
    Variant("FrozenLake 8x8", "FrozenLake-v1", in_cell, {"map_name": "8x8", **LAKE}),
    Variant("Taxi", "Taxi-v4", in_cell, {"is_rainy": False, "fickle_passenger": False}),
    Variant("Taxi in the rain", "Taxi-v4", in_cell, WEATHER),
    Variant("Blackjack", "Blackjack-v1", in_hand, {"natural": False, "sab": True}),
    Variant("CliffWalking", "CliffWalking-v1", in_cell, {"is_slippery": False, "max_episode_steps": 200}),
    Variant("CliffWalking slippery", "CliffWalking-v1", in_cell, {"is_slippery": True, "max_episode_steps": 200}),
    Variant("LunarLander in wind", "LunarLander-v3", in_lander, WIND),
    Variant("LunarLander continuous", "LunarLander-v3", in_lander, {"continuous": True, "gravity": -10.0}),
    Variant("Hopper", "Hopper-v5", in_mujoco, HOPPER),
    Variant("Swimmer", "Swimmer-v5", in_mujoco, SWIMMER),
    Variant("CartPole lanes", "CartPole-v1", in_state, lanes=LANES),
    Variant("Pendulum lanes", "Pendulum-v1", in_state, {"max_episode_steps": 40}, lanes=LANES),
    Variant("FrozenLake lanes", "FrozenLake-v1", in_cell, {"map_name": "8x8", **LAKE}, lanes=LANES),
)


# ---- what happens in an episode, without reenact


@dataclass(frozen=True)
class Script:
    """All that an episode follows from.

    Attributes:
        make: makes its env.
        seed: of its reset, or None …
        rng: … and then the state of the env's PCG64 before it, packed as the log has it.
        actions: one a step.
    """

    make: Callable[..., AnyEnv]
    seed: int | None
    rng: bytes | None
    actions: tuple[Any, ...]


@dataclass(frozen=True)
class Sight:
    """All that can be seen after a reset or a step; `raised` stands for all that follows."""

    observation: object = None
    reward: bytes = b""
    terminated: bool = False
    truncated: bool = False
    raised: str = ""

    @property
    def over(self) -> bool:
        """Whether nothing comes after it."""
        return self.terminated or self.truncated or bool(self.raised)

    def differs_in_log(self, other: Sight) -> bool:
        """Whether it differs in what a log has of every step."""
        return replace(self, observation=None) != replace(other, observation=None)


def plain(value: object) -> object:
    """Returns an observation as something that is equal only to its like, to the type and the bit."""
    if isinstance(value, tuple):
        return tuple(plain(item) for item in value)
    if isinstance(value, np.ndarray | np.generic):
        return type(value), value.dtype.str, value.shape, value.tobytes()
    return type(value), repr(value)


def seen(observation: object, reward: Any, terminated: bool, truncated: bool) -> Sight:
    """Returns what a step gave."""
    return Sight(plain(observation), struct.pack("<d", float(reward)), bool(terminated), bool(truncated))


def packed_rng(env: AnyEnv) -> bytes:
    """Returns the state of the env's RNG."""
    state = env.unwrapped.np_random.bit_generator.state
    words = (state["state"][name].to_bytes(16, "little") for name in ("state", "inc"))
    return PCG64.pack(*words, state["has_uint32"], state["uinteger"])


def begin(script: Script) -> tuple[AnyEnv, Sight]:
    """Makes the env and resets it as the script says."""
    env = script.make()
    if script.rng is not None:
        state, inc, has_uint32, uinteger = PCG64.unpack(script.rng)
        words = {"state": int.from_bytes(state, "little"), "inc": int.from_bytes(inc, "little")}
        env.unwrapped.np_random.bit_generator.state = {
            "bit_generator": "PCG64",
            "state": words,
            "has_uint32": has_uint32,
            "uinteger": uinteger,
        }
    return env, Sight(plain(env.reset(seed=script.seed)[0]))


def play(script: Script) -> list[Sight]:
    """Plays a script to its last action, or to the env's end if that comes first."""
    env, first = begin(script)
    sights = [first]
    for action in script.actions:
        try:
            sights.append(seen(*env.step(action)[:4]))
        except Exception as error:  # noqa: BLE001  # a mutated env may raise anything
            sights.append(Sight(raised=type(error).__name__))
        if sights[-1].over:
            break
    env.close()
    return sights


def differences(true: Sequence[Sight], mutated: Sequence[Sight]) -> list[int]:
    """Lists the steps at which anything differs; where one trajectory is over, all the rest does."""
    pairs = enumerate(itertools.zip_longest(true, mutated))
    return [step for step, (one, other) in pairs if one != other]


def shows_at(true: Sequence[Sight], mutated: Sequence[Sight], kept: Iterable[int], *, chained: bool) -> int | None:
    """Returns the step at which a check must see the difference, or None.

    Args:
        true: what happened.
        mutated: what the re-execution does.
        kept: the steps for which the log has a checksum.
        chained: whether a checksum is one of all observations up to there, not of one.
    """
    steps, astray = set(kept), False
    for step, (one, other) in enumerate(zip(true, mutated, strict=False)):
        differs = one.observation != other.observation
        astray = differs or (chained and astray)
        if one.differs_in_log(other) or (step in steps and astray):
            return step
    return None


# ---- recording


@dataclass(frozen=True)
class Take:
    """An episode as it was recorded.

    Attributes:
        number: in its log.
        script: what it followed from.
        sights: what could be seen while it was recorded.
        kept: the steps for which the log has a checksum.
        row: in the table, where resets without a step have rows, too.
    """

    number: int
    script: Script
    sights: list[Sight]
    kept: frozenset[int] = frozenset()
    row: int = -1

    @property
    def interrupted(self) -> bool:
        """Whether a reset came before its end."""
        return not self.sights[-1].over

    def __str__(self) -> str:
        start = "rng" if self.script.seed is None else f"seed {self.script.seed}"
        how = ", interrupted" if self.interrupted else ""
        return f"episode {self.number} ({start}, {len(self.script.actions)} steps{how})"


@dataclass(frozen=True)
class Recording:
    """An env's log, and what really happened in it."""

    variant: Variant
    path: Path
    space: spaces.Space[Any]
    takes: tuple[Take, ...]
    running: bool  # whether its checksums are of all observations up to theirs


def record(variant: Variant, folder: Path, every: int, random: Random) -> Recording:
    """Records episodes of a random policy."""
    if variant.lanes:
        space, takes = record_lanes(variant, folder, every, random)
    else:
        env = reenact.Recorder(variant.make(), run=folder, fingerprint_every=every)
        env.action_space.seed(int(random.integers(2**31)))
        space, takes = env.action_space, [record_episode(env, variant, number, random) for number in range(EPISODES)]
        env.close()
    (path,) = folder.glob("segment-*.h5")
    with h5py.File(path, "r") as file:
        rows = np.flatnonzero(file[layout.EPISODES]["ended"] != layout.Ended.NOTHING).tolist()
        kept = [kept_steps(file, rows[take.number]) for take in takes]
        running = file.attrs["fingerprints"] == b"running"
    complete = tuple(replace(take, kept=steps, row=rows[take.number]) for take, steps in zip(takes, kept, strict=True))
    return Recording(variant, path, space, complete, running)


def record_episode(env: AnyEnv, variant: Variant, number: int, random: Random) -> Take:
    """Takes random actions to the episode's end, or to where it is cut."""
    seed = None if number % 2 else int(random.integers(2**31))
    rng = packed_rng(env) if seed is None else None
    cut = int(random.integers(1, CUT_STEPS)) if number in INTERRUPTED else sys.maxsize
    sights = [Sight(plain(env.reset(seed=seed)[0]))]
    actions: list[Any] = []
    while len(actions) < cut and not sights[-1].over:
        actions.append(env.action_space.sample())
        sights.append(seen(*env.step(actions[-1])[:4]))
    return Take(number, Script(variant.make, seed, rng, tuple(actions)), sights)


def record_lanes(variant: Variant, folder: Path, every: int, random: Random) -> tuple[spaces.Space[Any], list[Take]]:
    """Takes random actions in a sync vector env; in its midst, and at the end, all lanes' episodes are cut."""
    sync = gym.vector.SyncVectorEnv([variant.make] * variant.lanes)
    envs = reenact.VectorRecorder(sync, run=folder, fingerprint_every=every)
    envs.action_space.seed(int(random.integers(2**31)))
    seed, lanes = int(random.integers(2**30)), range(variant.lanes)
    running = [Script(variant.make, seed + lane, None, ()) for lane in lanes]
    rewards: list[list[float]] = [[] for _ in lanes]
    finished: list[tuple[Script, list[float]]] = []
    over = np.zeros(variant.lanes, np.bool_)
    envs.reset(seed=seed)

    def cut(which: Iterable[int]) -> None:
        for lane in which:
            if running[lane].actions:
                finished.append((running[lane], rewards[lane]))
            running[lane], rewards[lane] = Script(variant.make, None, packed_rng(sync.envs[lane]), ()), []

    while len(finished) < EPISODES:
        if len(finished) == EPISODES // 2 and not over.any():
            cut(lanes)
            envs.reset()
        actions = envs.action_space.sample()
        _, given, terminations, truncations, _ = envs.step(actions)
        for lane in np.flatnonzero(~over):  # the others have been reset
            running[lane] = replace(running[lane], actions=(*running[lane].actions, actions[lane]))
            rewards[lane].append(float(given[lane]))
        over = (terminations | truncations) & ~over
        cut(np.flatnonzero(over).tolist())
    cut(lanes)
    envs.close()
    takes = [Take(number, script, play(script)) for number, (script, _) in enumerate(finished)]
    for take, (_, noted) in zip(takes, finished, strict=True):
        if [sight.reward for sight in take.sights[1:]] != [struct.pack("<d", reward) for reward in noted]:
            raise AssertionError(f"{variant.name}, {take}: a single env does other than the lane did")
    return envs.single_action_space, takes


def kept_steps(file: h5py.File, at: int) -> frozenset[int]:
    """Returns the steps for which a log has a checksum, of the episode of a row."""
    row = file[layout.EPISODES][at]
    first, count = int(row["first_fingerprint"]), int(row["n_fingerprints"])
    return frozenset(file[layout.FINGERPRINTS]["step"][first : first + count].tolist())


# ---- mutations


@dataclass(frozen=True)
class Mutation:
    """One thing flipped.

    Attributes:
        what: says which.
        script: what the episode now follows from.
        edit: does the same to its log; None for what no log has.
    """

    what: str
    script: Script
    edit: Callable[[h5py.File], None] | None


def sealed(row: np.void) -> np.void:
    """Sets a row's last field to the CRC-32 of all the bytes before it."""
    row["crc"] = crc32(row.tobytes()[:-4])
    return row


def flipped(data: bytes, bit: int) -> bytes:
    """Returns bytes with one bit flipped."""
    return (int.from_bytes(data, "little") ^ 1 << bit).to_bytes(len(data), "little")


def other_action(space: spaces.Space[Any], action: Any, random: Random) -> tuple[Any, str] | None:
    """Returns another action that the space has, and what it differs in."""
    if isinstance(space, spaces.Discrete):
        found = type(action)((action - space.start + random.integers(1, space.n)) % space.n + space.start)
        return found, f"{action} -> {found}"
    bit = int(random.integers(8 * action.nbytes))
    found = np.frombuffer(flipped(action.tobytes(), bit), action.dtype).reshape(action.shape)
    at, in_float = divmod(bit, 8 * action.itemsize)
    return (found, f"[{at}] bit {in_float}, {action[at]} -> {found[at]}") if space.contains(found) else None


def mutate_action(recording: Recording, take: Take, random: Random) -> Mutation | None:
    """Replaces one action."""
    at = int(random.integers(len(take.script.actions)))
    other = other_action(recording.space, take.script.actions[at], random)
    if other is None:
        return None
    action, text = other

    def edit(file: h5py.File) -> None:
        row = file[layout.EPISODES][take.row]
        first, count = int(row["first_step"]), int(row["n_actions"])
        column, apart = file[f"{layout.ACTION_GROUP}/value"], max(1, recording.variant.lanes)
        column[first + at * apart] = action
        # the action's is the first column
        row["column_crcs"][0] = crc32(column[first : first + count * apart : apart].tobytes())
        file[layout.EPISODES][take.row] = sealed(row)

    actions = (*take.script.actions[:at], action, *take.script.actions[at + 1 :])
    return Mutation(f"action {at + 1}: {text}", replace(take.script, actions=actions), edit)


def mutate_seed(_: Recording, take: Take, random: Random) -> Mutation | None:
    """Flips a bit of a seed, or takes the next one."""
    before = take.script.seed
    if before is None:
        return None
    seed = before + 1 if random.integers(8) == 0 else before ^ 1 << int(random.integers(31))

    def edit(file: h5py.File) -> None:
        row = file[layout.EPISODES][take.row]
        row["seed"] = seed
        file[layout.EPISODES][take.row] = sealed(row)

    return Mutation(f"seed {before} -> {seed}", replace(take.script, seed=seed), edit)


def mutate_rng(_: Recording, take: Take, random: Random) -> Mutation | None:
    """Flips a bit of an RNG state."""
    before = take.script.rng
    if before is None:
        return None
    word = str(random.choice(list(RNG_WORDS), p=(0.4, 0.4, 0.1, 0.1)))
    bits = RNG_WORDS[word]
    bit = int(random.choice(bits))
    after = flipped(before, bit)

    def edit(file: h5py.File) -> None:
        states, episode = file[layout.STATES], file[layout.EPISODES][take.row]
        first = int(episode["first_state"])
        kinds = states["kind"][first : first + int(episode["n_states"])].tolist()
        at = first + kinds.index(layout.StateKind.PCG64)
        row = states[at]
        offset, length = int(row["data"]["offset"]), int(row["data"]["length"])
        if file[layout.HEAP][offset : offset + length].tobytes() != before:
            raise AssertionError("the log has another RNG state than the env had")
        file[layout.HEAP][offset : offset + length] = np.frombuffer(after, np.uint8)
        row["data"]["crc"] = crc32(after)
        states[at] = sealed(row)

    return Mutation(f"rng {word} bit {bit - bits.start}", replace(take.script, rng=after), edit)


def other_value(value: Any, random: Random) -> Any:
    """Returns another value of an argument."""
    match value:
        case bool():
            return not value
        case int():
            return value + (1 if random.integers(2) else -1)
        case float():
            array = np.array([value])
            flip_float(array, random)
            return float(array[0])
        case str():
            return MAPS[value]
    row, at = int(random.integers(len(value))), int(random.integers(len(value[0])))
    tile = value[row][at]
    return [*value[:row], value[row][:at] + TILES.get(tile, tile) + value[row][at + 1 :], *value[row + 1 :]]


def mutate_kwarg(recording: Recording, take: Take, random: Random) -> Mutation | None:
    """Changes one of the env's arguments in the recipe, and signs it again."""
    kwargs = recording.variant.kwargs
    if not kwargs or recording.variant.lanes:  # a vector env's recipe holds more than its sub-envs'
        return None
    name = list(kwargs)[random.integers(len(kwargs))]
    value = other_value(kwargs[name], random)
    if value == kwargs[name]:
        return None

    def edit(file: h5py.File) -> None:
        recipe = json.loads(file.attrs["recipe"])
        if name == "max_episode_steps":
            (limit,) = (wrapper for wrapper in recipe["wrappers"] if wrapper["entry_point"].endswith(":TimeLimit"))
            limit["kwargs"][name] = value
        else:
            recipe["kwargs"][name] = value
        text = json.dumps(recipe, separators=(",", ":"))
        for attribute, new in (("recipe", text), ("signature", sign(text))):
            del file.attrs[attribute]  # of fixed length, as the writer makes them
            file.attrs.create(attribute, np.array(new.encode(), f"S{len(new.encode())}"))

    script = replace(take.script, make=partial(recording.variant.make, **{name: value}))
    return Mutation(f"{name} {kwargs[name]!r} -> {value!r}", script, edit)


def mutate_hidden(recording: Recording, take: Take, random: Random) -> Mutation | None:
    """Changes what the env keeps to itself."""
    hide = draw if random.integers(4) == 0 else recording.variant.hide
    seed = int(random.integers(2**31))

    def make(render_mode: str | None = None) -> AnyEnv:
        return Perturbed(recording.variant.make(render_mode), hide, seed)

    script = replace(take.script, make=make)
    env, _ = begin(script)  # only to hear what it will be
    what = env.said if isinstance(env, Perturbed) else ""
    env.close()
    return Mutation(what, script, None)


KINDS: dict[str, Callable[[Recording, Take, Random], Mutation | None]] = {
    "action": mutate_action,
    "seed": mutate_seed,
    "rng": mutate_rng,
    "kwarg": mutate_kwarg,
    "hidden": mutate_hidden,
}


def mutations(recordings: Sequence[Recording], random: Random) -> Iterator[tuple[Recording, Take, str, Mutation]]:
    """Yields mutations in turn over kinds and envs, none of them twice; ends when no more are found."""
    made: set[tuple[str, str, int, str]] = set()
    while True:
        found = len(made)
        for kind, recording in itertools.product(KINDS, recordings):
            for _ in range(ATTEMPTS):
                take = recording.takes[random.integers(len(recording.takes))]
                mutation = KINDS[kind](recording, take, random)
                key = (recording.variant.name, kind, take.number, mutation.what if mutation else "")
                if mutation is not None and key not in made:
                    made.add(key)
                    yield recording, take, kind, mutation
                    break
        if len(made) == found:
            return


# ---- verification


@dataclass(frozen=True)
class Outcome:
    """What became of a mutation.

    Attributes:
        name: the env's.
        kind: the mutation's.
        what: the mutation.
        take: the episode.
        differs: the steps at which the trajectories differ.
        caught: the step at which verification saw it, or None.
        expected: the step at which it must have.
        other_logs: the step at which it would have shown in a log with other checksums, by their name.
    """

    name: str
    kind: str
    what: str
    take: Take
    differs: list[int]
    caught: int | None
    expected: int | None
    other_logs: dict[str, int | None]

    @property
    def missed(self) -> bool:
        """Whether the trajectory differs, and the verdict is "exact"."""
        return bool(self.differs) and self.caught is None

    @property
    def defect(self) -> bool:
        """Whether verification did not do what it must."""
        return self.caught != self.expected

    @property
    def latency(self) -> int | None:
        """Env steps from the first difference to where it showed."""
        return self.caught - self.differs[0] if self.caught is not None and self.differs else None


def verified(path: Path, take: Take, make: Callable[..., AnyEnv] | None) -> int | None:
    """Verifies an episode of a log; returns the step at which it diverged, or None if it is exact.

    Only its own origin counts: chained from an earlier episode, one with a mutated start may be exact, and rightly.
    """
    options: dict[str, Any] = {}
    if "origin" in inspect.signature(reenact.verify).parameters:
        options["origin"] = "rng" if take.script.seed is None else "seed"
    (result,) = reenact.verify(path, [take.number], env=make, **options)
    if result.verdict == "exact":
        return None
    if result.divergence is None:  # a log that looks damaged, or a recipe that can't be followed: no check of steps
        raise AssertionError(f"{take} is {result.verdict}: {result.error}")
    return result.divergence.step


def kept_by_default(take: Take, every: int) -> set[int]:
    """Returns the steps whose checksums a log keeps: the first, every so many, and the last of a finished episode."""
    last = len(take.script.actions)
    return {*range(0, last + 1, every), *(() if take.interrupted else (last,))}


def try_out(recording: Recording, take: Take, kind: str, mutation: Mutation, scratch: Path) -> Outcome:
    """Makes a mutation in a copy of the log, and verifies it."""
    path = scratch / "segment-00000.h5"
    copyfile(recording.path, path)
    if mutation.edit is not None:
        with h5py.File(path, "r+") as file:
            mutation.edit(file)
    caught = verified(path, take, None if mutation.edit is not None else mutation.script.make)
    path.unlink()
    sights = play(mutation.script)
    shows = partial(shows_at, take.sights, sights)
    other_logs = {f"of one observation, every {n}": shows(kept_by_default(take, n), chained=False) for n in DENSITIES}
    chained = {*kept_by_default(take, 32), len(take.script.actions)}
    other_logs["of all since the last one, every 32"] = shows(chained, chained=True)
    return Outcome(
        recording.variant.name,
        kind,
        mutation.what,
        take,
        differences(take.sights, sights),
        caught,
        shows(take.kept, chained=recording.running),
        other_logs,
    )


def unmutated(recording: Recording) -> list[str]:
    """Says what is wrong with a log before anything is flipped: then nothing that follows would count."""
    return [
        f"{recording.variant.name}, {take}: does not replay as it is"
        for take in recording.takes
        if verified(recording.path, take, None) is not None or play(take.script) != take.sights
    ]


# ---- the report


@dataclass(frozen=True)
class Table:
    """Prints rows as text, or as Markdown."""

    markdown: bool

    def heading(self, text: str) -> None:
        """Prints a heading."""
        print(f"\n### {text}\n" if self.markdown else f"\n{text}\n")

    def rows(self, header: Sequence[str], rows: Sequence[Sequence[str]], texts: int) -> None:
        """Prints a table whose first columns are texts, the others numbers."""
        widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]

        def line(cells: Sequence[str]) -> str:
            padded = [
                cell.ljust(width) if at < texts else cell.rjust(width)
                for at, (cell, width) in enumerate(zip(cells, widths, strict=True))
            ]
            return f"| {' | '.join(padded)} |" if self.markdown else "  ".join(padded).rstrip()

        rule = ["-" * width if at < texts else "-" * (width - 1) + ":" for at, width in enumerate(widths)]
        for cells in (header, *([rule] if self.markdown else []), *rows):
            print(line(cells))


COUNTS = ("mutations", "no effect", "caught", "missed", "share caught", "median latency", "max latency")


def counted(outcomes: Sequence[Outcome]) -> list[str]:
    """Returns the numbers of one row."""
    effective = [outcome for outcome in outcomes if outcome.differs]
    caught = [outcome for outcome in effective if outcome.caught is not None]
    latencies = [outcome.latency for outcome in caught if outcome.latency is not None]
    share = f"{100 * len(caught) / len(effective):.1f} %" if effective else "–"
    return [
        *(str(len(part)) for part in (outcomes, [o for o in outcomes if not o.differs], caught)),
        str(sum(outcome.missed for outcome in outcomes)),
        share,
        *spread(latencies),
    ]


def spread(latencies: Sequence[int]) -> tuple[str, str]:
    """Returns median and maximum."""
    return (f"{statistics.median(latencies):g}", str(max(latencies))) if latencies else ("–", "–")


def report(outcomes: Sequence[Outcome], table: Table) -> None:
    """Prints what was caught, by env and kind and in all."""
    table.heading("By env and kind")
    names = dict.fromkeys(outcome.name for outcome in outcomes)
    groups = {
        (name, kind): [outcome for outcome in outcomes if (outcome.name, outcome.kind) == (name, kind)]
        for name, kind in itertools.product(names, KINDS)
    }
    rows = [[*key, *counted(group)] for key, group in groups.items() if group]
    table.rows(("env", "kind", *COUNTS), rows, texts=2)
    table.heading("In all")
    parts = {kind: [outcome for outcome in outcomes if outcome.kind == kind] for kind in KINDS}
    parts["in finished episodes"] = [outcome for outcome in outcomes if not outcome.take.interrupted]
    parts["in interrupted episodes"] = [outcome for outcome in outcomes if outcome.take.interrupted]
    parts["all"] = list(outcomes)
    table.rows(("", *COUNTS), [[name, *counted(part)] for name, part in parts.items() if part], texts=1)


def report_other_logs(outcomes: Sequence[Outcome], table: Table) -> None:
    """Prints what the same mutations would have met in logs with other checksums."""
    table.heading("The same mutations, had the log kept checksums otherwise")
    effective = [outcome for outcome in outcomes if outcome.differs]
    rows = []
    for name in outcomes[0].other_logs:
        shown = [(outcome.other_logs[name], outcome.differs[0], outcome.take) for outcome in effective]
        missed = Counter(take.interrupted for at, _, take in shown if at is None)
        latencies = [at - first for at, first, _ in shown if at is not None]
        rows.append([name, str(missed.total()), str(missed[True]), *spread(latencies)])
    header = ("a checksum", "missed", "of these in interrupted", "median latency", "max latency")
    table.rows(header, rows, texts=1)


def ranges(steps: Sequence[int]) -> str:
    """Returns "3–7, 12" for steps."""
    runs: list[list[int]] = []
    for step in steps:
        if runs and runs[-1][1] == step - 1:
            runs[-1][1] = step
        else:
            runs.append([step, step])
    return ", ".join(str(first) if first == last else f"{first}–{last}" for first, last in runs)


def miss_class(outcome: Outcome) -> str:
    """Says why a difference was not seen."""
    if outcome.defect:
        return f"DEFECT: it shows at step {outcome.expected}"
    tail = [step for step in outcome.differs if step > max(outcome.take.kept)]
    if len(tail) == len(outcome.differs):
        return "after the last checksum of an interrupted episode"
    return "between checksums, and back again" if not tail else "between checksums and after the last one"


def report_misses(outcomes: Sequence[Outcome], table: Table) -> None:
    """Prints each miss, and how many there are of a class."""
    missed = [outcome for outcome in outcomes if outcome.missed]
    table.heading(f"Misses: {len(missed)}")
    bullet = "- " if table.markdown else ""
    for outcome in missed:
        steps = f"observations differ at {ranges(outcome.differs)}; checksums at {ranges(sorted(outcome.take.kept))}"
        print(f"{bullet}{outcome.name}, {outcome.take}: {outcome.what}: {steps}: {miss_class(outcome)}")
    classes = Counter((outcome.name, miss_class(outcome)) for outcome in missed)
    if classes:
        print()
        rows = [[name, why, str(count)] for (name, why), count in classes.items()]
        table.rows(("env", "why", "misses"), rows, texts=2)


def report_defects(defects: Sequence[Outcome], table: Table) -> None:
    """Prints each verdict that is not what it must be."""
    table.heading(f"Verdicts other than they must be: {len(defects)}")
    for outcome in defects:
        says = f"diverged at {outcome.caught}, must be {outcome.expected} (None: exact)"
        print(f"{outcome.name}, {outcome.take}: {outcome.what}: {says}")


def run(options: argparse.Namespace, folder: Path) -> int:
    """Records, mutates, reports; returns the exit code."""
    wanted = [part.lower() for part in options.envs.split(",")]
    variants = [variant for variant in VARIANTS if any(part in variant.name.lower() for part in wanted)]
    recordings = []
    for at, variant in enumerate(variants):
        random = np.random.default_rng([options.seed, at])
        recordings.append(record(variant, folder / str(at), options.fingerprint_every, random))
    problems = [problem for recording in recordings for problem in unmutated(recording)]
    if problems or not recordings:
        print("\n".join(problems) or f"no env is called {options.envs!r}")
        return 1
    outcomes: list[Outcome] = []
    found = mutations(recordings, np.random.default_rng(options.seed))
    for one in itertools.islice(found, options.count):
        outcomes.append(try_out(*one, folder))
        if len(outcomes) % PROGRESS == 0:
            print(f"  {len(outcomes)} of {options.count}", file=sys.stderr)
    table = Table(options.markdown)
    print(f"{len(outcomes)} mutations over {len(recordings)} envs, fingerprint_every={options.fingerprint_every}")
    report(outcomes, table)
    report_other_logs(outcomes, table)
    report_misses(outcomes, table)
    defects = [outcome for outcome in outcomes if outcome.defect]
    report_defects(defects, table)
    return int(bool(defects))


def main() -> int:
    """Runs what the options ask for."""
    default = inspect.signature(reenact.Recorder).parameters["fingerprint_every"].default
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--count", type=int, default=2000, help="mutations (2000)")
    parser.add_argument("--seed", type=int, default=0, help="of policies and mutations (0)")
    parser.add_argument("--fingerprint-every", type=int, default=default, help=f"env steps ({default}, the recorder's)")
    parser.add_argument("--envs", default="", metavar="NAMES", help="only envs whose names contain one of these")
    parser.add_argument("--markdown", action="store_true", help="report as Markdown")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mutate-") as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        os.environ["XDG_STATE_HOME"] = folder  # the key that signs these logs is of no other use
        return run(options, Path(folder))


if __name__ == "__main__":
    raise SystemExit(main())
