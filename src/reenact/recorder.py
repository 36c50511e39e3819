"""The wrapper that logs every episode of a training run."""

from __future__ import annotations

import json
import math
import time
import weakref
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsFloat

import gymnasium as gym
import numpy as np

from reenact import folder, jsontags, lanes, recipe, signing, usercode
from reenact.codec import ActionCodec
from reenact.fingerprint import frozen, is_small
from reenact.layout import Ended
from reenact.log import EpisodeLog
from reenact.notices import Notices
from reenact.origin import OriginTaker
from reenact.pending import as_float
from reenact.process import this_launch
from reenact.statistics import EpisodeStatistics, Told

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from os import PathLike

    from reenact.layout import StateKind

this_launch()  # now: the script's workers may record before it does, and must not take its starter's launch


class Recorder(Told, gym.Wrapper[Any, Any, Any, Any], gym.utils.RecordConstructorArgs):
    """Logs every episode, and keeps the statistics of `gymnasium.wrappers.RecordEpisodeStatistics`.

    A drop-in for it: the same entry in `info`, the same attributes. Two differences: an entry that a
    statistics wrapper below has already written is left as it is (said once) instead of failing an
    assertion; and steps after an end and before the next reset count in no statistics.

    Attributes:
        run: the run's folder.
        return_queue: returns of the last `buffer_length` finished episodes.
        length_queue: their lengths, in env steps.
        time_queue: how long they took, in seconds.
        episode_count: how many have finished.
        episode_returns: the running episode's sum of rewards so far.
        episode_lengths: its env steps so far.
        episode_start_time: when it began, in seconds of `time.perf_counter`.
    """

    def __init__(
        self,
        env: gym.Env[Any, Any],
        run: str | PathLike[str] | None = None,
        *,
        buffer_length: int = 100,
        stats_key: str = "episode",
        info_keywords: Sequence[str] = (),
        role: str = "train",
        lane: int | None = None,
        resume: bool = False,
        reseed: bool | str = False,
        factory: str | recipe.EnvFactory | None = None,
        fingerprint_every: int = 32,
        step_durations: bool = False,
        flush_seconds: float = 5.0,
        durable: bool = False,
        mark: Callable[[dict[str, Any]], str | bool | None] | None = None,
    ) -> None:
        """Wraps an env; nothing is written before the first reset.

        Args:
            env: the env to record, wrapped or not.
            run: the run's folder; None: `runs/<env id>-<date>-<time>`, one folder a launch.
            buffer_length: how many finished episodes the three queues hold.
            stats_key: the statistics' key in `info`.
            info_keywords: numbers to keep of each episode's last `info`, by name; NaN where missing.
            role: what the episodes are for, in your own words ("train", "eval").
            lane: the number of this env among those of a vector env, from 0; None: as the worker's name or the order
                in which they are made tells it; -1: it has none.
            resume: whether to go on with a run that an earlier launch wrote.
            reseed: True: every unseeded reset gets a seed of its own, logged; "never": not even an env
                that has no RNG yet gets one before its first unseeded reset.
            factory: your own way to make the env again, for one whose recipe can't be followed: "my_envs:make",
                "path/to/file.py:make" or an importable callable. It takes `render_mode` by keyword and returns the
                env as it stands under the recorder; its name is logged.
            fingerprint_every: env steps between two checksums of the observation; 0: first and last only.
            step_durations: whether to log how long each step took, the agent's part included.
            flush_seconds: at most so many seconds of training are lost if the process is killed.
            durable: whether each commit waits until the disk has it (fsync), for a loss of power.
            mark: is called with the statistics of each episode that has finished: "r" (return), "l" (length, env
                steps), "t" (seconds), "ended" ("terminated" or "truncated") and the info keywords; the text that it
                returns (True: "marked") becomes the episode's label, to be found by `--marked`.

        Raises:
            RunExistsError: an earlier launch wrote the run, and `resume` is False.
            RunError: the run's path is no folder.
            RecipeError: the factory can't be found.
            ValueError: an argument is out of its range.
        """
        gym.utils.RecordConstructorArgs.__init__(
            self, run=None if run is None else str(run), buffer_length=buffer_length, stats_key=stats_key
        )
        gym.Wrapper.__init__(self, env)
        if fingerprint_every < 0 or flush_seconds <= 0:
            raise ValueError(
                f"fingerprint_every must be 0 or more and flush_seconds above 0, "
                f"got {fingerprint_every}, {flush_seconds}"
            )
        if reseed not in (True, False, "never"):
            raise ValueError(f"reseed must be True, False or 'never', got {reseed!r}")
        if lane is not None and not lanes.NO_LANE <= lane < 2**31:
            raise ValueError(f"lane must be a number from 0, or -1 for none, got {lane!r}")
        self._stats_key, self._info_keywords, self._mark = stats_key, tuple(info_keywords), mark
        self._reseed = reseed
        self._seeds: np.random.SeedSequence | None = None
        self._statistics = EpisodeStatistics(buffer_length)
        self._notices = Notices()
        self.episode_start_time: float = -1
        self._inert = recipe.inert.get()
        launch = this_launch()
        env_id = recipe.env_id(env)
        self.run = folder.default_run(env_id, launch) if run is None else Path(run)
        if usercode.loading.get():
            raise usercode.Unguarded
        taken, problems = recipe.take(env) if self._inert else recipe.take(env, factory)
        if not self._inert:
            folder.check_free(self.run, launch, resume=resume)
            for problem in problems if not lanes.announced() else ():
                self._notices.say(f"episodes of this env can't be replayed as they are: {problem}")
        self._entries_below = stats_key == "episode" and recipe.is_monitored(env)
        self._place = lanes.Place(self.run, role) if lane is None and not self._inert else None
        running = is_small(env.observation_space)
        self._log = EpisodeLog(
            self.run,
            launch,
            partial(header_of, taken, env.action_space, env_id, role, running=running),
            ActionCodec(env.action_space),
            info_keywords=self._info_keywords,
            fingerprint_every=fingerprint_every,
            running_fingerprints=running,
            durations=step_durations,
            flush_seconds=flush_seconds,
            durable=durable,
            resume=resume,
            used_before=bool(getattr(env, "has_reset", False)),
        )
        self._log.block.lane = lanes.NO_LANE if lane is None else int(lane)
        self._tape = self._log.tape
        self._games_cut = recipe.games_cut(env)
        self._origins = OriginTaker(env, create=reseed != "never", say=self._notices.say)
        if not self._inert:
            self.env = _Watched(env, self._origins, self._stop_watching)
        weakref.finalize(self, self._log.close)

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """Steps the env, and logs it."""
        tape = self._tape
        # Only one fixed type takes the short way: immutable numbers are kept as they are, arrays as bytes.
        kind = tape.fast_type
        if type(action) is not kind:
            if self._inert:
                return self.env.step(action)
            self._log.block.take(action)
        elif kind is not np.ndarray:
            tape.actions.append(action)
        elif action.dtype is tape.fast_dtype and action.shape == tape.fast_shape:  # type: ignore[attr-defined]  # an array
            tape.actions.append(action.tobytes())  # type: ignore[attr-defined]  # as above
        else:
            self._log.block.take(action)
        try:
            observation, reward, terminated, truncated, info = result = self.env.step(action)
        except BaseException as error:
            self._log.raised(error, "step")
            raise
        observed = tape.observed
        if observed is not None:
            observed.append(observation.tobytes() if type(observation) is np.ndarray else frozen(observation))
        rewards = tape.rewards
        rewards.append(reward if type(reward) is tape.reward_type else self._log.tally.number(reward))
        if terminated or truncated:
            self._end(observation, Ended.TERMINATED if terminated else Ended.TRUNCATED, info)
        elif len(rewards) == tape.due:
            self._log.tick(observation)
        return result

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Resets the env, and logs what the next episode can be started again from."""
        if self._inert:
            return self.env.reset(seed=seed, options=options)
        log = self._log
        if self._place is not None:
            log.block.lane, self._place = self._place.lane(), None
        details: dict[str, Any] = {}
        if options is not None:
            details |= logged_options(options, self._notices.say)
        if seed is None and self._reseed is True:
            seed = self._next_seed()
        elif seed is not None:
            self._seeds = None if self._reseed is not True else np.random.SeedSequence(abs(int(seed)))
        if isinstance(self.env, _Watched) and log.steps:  # the first episode is over
            self._stop_watching()
        log.begin(seed, details, self._safely(self._origins.take, seed, log.steps))
        self._tell_of_cut_games()
        try:
            observation, _ = result = self.env.reset(seed=seed, options=options)
        except BaseException as error:
            log.raised(error, "reset")
            raise
        log.started(observation)
        self.episode_start_time = time.perf_counter()
        log.tally.started_at = self.episode_start_time
        log.add_states(self._safely(self._origins.returned, seed))
        return result

    def _end(self, observation: Any, ended: Ended, info: dict[str, Any]) -> None:
        log = self._log
        if not log.tally.running:
            log.tick(observation)  # a step after the end
            return
        elapsed = round(time.perf_counter() - self.episode_start_time, 6)
        values = (
            tuple(as_float(info.get(name, math.nan)) for name in self._info_keywords) if self._info_keywords else ()
        )
        log.end(ended, elapsed, values, observation)
        self._statistics.add(log.tally.total, log.tally.length, elapsed)
        if self._entries_below:
            pass  # SB3 counts them: one more, of a life that the wrappers between end, would change its figures
        elif self._stats_key in info:
            self._notices.say(
                f"info[{self._stats_key!r}] was already written by a wrapper below the recorder, "
                "and is left as it is; "
                "the recorder keeps these statistics too"
            )
        else:
            info[self._stats_key] = {"r": log.tally.total, "l": log.tally.length, "t": elapsed}
        if self._mark is not None:
            kept = dict(zip(self._info_keywords, values, strict=True))
            label = self._mark(
                {"r": log.tally.total, "l": log.tally.length, "t": elapsed, "ended": ended.name.lower(), **kept}
            )
            if label:
                log.mark("marked" if label is True else str(label))
        self.episode_start_time = time.perf_counter()

    def _safely(self, take: Callable[..., list[tuple[StateKind, bytes]]], *given: Any) -> list[tuple[StateKind, bytes]]:
        """Takes states; whatever the env's own objects do when they are looked at, the training goes on."""
        try:
            return take(*given)
        except Exception as error:  # noqa: BLE001  # a proxy may raise anything when it is looked at
            what = f"{type(error).__name__}: {error}"
            self._notices.say(f"the state of {type(self.unwrapped).__name__} can't be taken ({what}): seed the resets")
            return []

    def _tell_of_cut_games(self) -> None:
        """Says what is recorded in a game's place: once a run, where its first segment begins."""
        cut, self._games_cut = self._games_cut, None
        if cut is not None and self._log.segment == 0:
            self._notices.say(
                f"below the recorder, {cut}: that is what is recorded, and no whole games with their scores; for "
                'these, put the recorder below such wrappers: reenact.recording("runs/x", then=AtariWrapper)'
            )

    def _stop_watching(self) -> None:
        """The first episode is over, or enough of it was seen."""
        self._log.add_states(self._origins.stop_watching())
        if isinstance(self.env, _Watched):
            self.env = self.env.env

    def mark(self, label: str) -> None:
        """Puts a label on the running episode, or on the one that has just ended, to be found by `--marked`.

        One that has ended can be marked until it is committed: at the next reset at the latest, by `flush()`, or
        beside another recorder that commits in the same thread. `Recorder(mark=…)` always comes in time.

        Args:
            label: why, in your own words; a second one is added behind a comma.

        Raises:
            ValueError: it is empty.
        """
        if not label:
            raise ValueError("a mark needs some text: mark('why')")
        if not self._inert and not self._log.mark(str(label)):
            self._notices.say(
                "there is no episode to mark: call mark() while it runs or right after its last step, before any reset"
            )

    def flush(self) -> None:
        """Commits all that has been recorded so far: from here on a kill can't lose it."""
        self._log.flush()

    def close(self) -> None:
        """Ends the running episode as interrupted, closes the log, then the env."""
        if self._place is not None:
            self._place.leave()
        try:
            self._log.close()
        finally:
            super().close()

    def __reduce__(self) -> Any:
        """Refuses to be copied.

        Raises:
            TypeError: always.
        """
        raise TypeError(
            "a Recorder can't be pickled, copied or sent to another process: what it records goes into one file, from "
            "one env. Hand over reenact.recording(run), which wraps an env where it is made, as vector envs take it; "
            "to copy the env without its log, copy recorder.env"
        )

    @property
    def episode_returns(self) -> Any:
        """The sum of rewards since the last reset."""
        return self._log.tally.total

    @property
    def episode_lengths(self) -> int:
        """The env steps since the last reset."""
        return self._log.tally.length

    def _next_seed(self) -> int:
        """Child k of the sequence that the caller's last seed began, as a 31-bit seed."""
        if self._seeds is None:
            self._seeds = np.random.SeedSequence()
        return int(self._seeds.spawn(1)[0].generate_state(1, np.uint32)[0] >> 1)


class _Watched(gym.Wrapper[Any, Any, Any, Any]):
    """Stands between a recorder and its env while the first steps are watched, at no cost to any later one.

    An attribute of the recorder's own in `step`'s place would do the same, and slow all its steps for ever: CPython
    keeps the attributes of an object whose layout has changed in a slower place.
    """

    def __init__(self, env: gym.Env[Any, Any], origins: OriginTaker, stop: Callable[[], None]) -> None:
        super().__init__(env)
        self._origins = origins
        self._stop = weakref.WeakMethod(stop)  # a cycle would keep a recorder that is dropped from being closed at once

    def __reduce__(self) -> Any:
        """Is copied as the env that it wraps: a copy is not recorded."""
        return _itself, (self.env,)

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """Steps the env, and looks at the global generators before and after."""
        with self._origins.watch():
            result = self.env.step(action)
        stop = self._stop()
        if not self._origins.watching and stop is not None:
            stop()
        return result


def _itself(env: gym.Env[Any, Any]) -> gym.Env[Any, Any]:
    return env


def logged_options(options: dict[str, Any], say: Callable[[str], None]) -> dict[str, Any]:
    """Returns what the log keeps of reset options, as tagged JSON: a copy, out of the caller's reach."""
    try:
        text = jsontags.dumps(options)
        return {"options": json.loads(text), "seal": signing.sign(text)}
    except (TypeError, ValueError, RecursionError) as error:
        say(f"reset options that JSON can't carry are not logged ({error}): their episodes can't be replayed")
        return {"unloggable": str(error)}


def header_of(
    recipe_: dict[str, Any], action_space: gym.Space[Any], env_id: str, role: str, *, running: bool
) -> dict[str, str | int]:
    """Returns the attributes of a recorder's segments.

    It is no method: what the log keeps of its recorder would keep the recorder from being collected.
    """
    text = jsontags.dumps(recipe_)
    try:
        space = jsontags.dumps(action_space)
    except TypeError:  # a space of the user's own: a replay takes the rebuilt env's
        space = "null"
    return {
        "recipe": text,
        "signature": signing.sign(text),
        "versions": json.dumps(recipe.versions(recipe_)),
        "env_id": env_id,
        "action_space": space,
        "role": role,
        "fingerprints": "running" if running else "single",
        "batch_width": 1,
    }
