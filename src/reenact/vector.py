"""The wrapper that logs every episode of a vector env."""

from __future__ import annotations

import math
import time
import weakref
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np

from reenact import batching, folder, recipe, usercode, vectorrecipe
from reenact.batch import Batch
from reenact.batching import DISABLED, NEXT_STEP, SAME_STEP, LaneForm, lanes_of
from reenact.batchlog import BatchLog
from reenact.batchorigin import origins_of
from reenact.codec import ActionCodec
from reenact.fingerprint import is_small
from reenact.layout import Ended
from reenact.notices import Notices
from reenact.pending import as_float
from reenact.process import this_launch
from reenact.recorder import header_of, logged_options
from reenact.statistics import BatchStatistics, Finished, Told

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from os import PathLike

    from reenact.layout import StateKind

    States = list[tuple[StateKind, bytes]]

_F8 = np.dtype(np.float64)
_ENDED = bytes([Ended.TRUNCATED, Ended.TERMINATED]).ljust(256)
"""How an episode ended, by whether it terminated: a table for `bytes.translate`."""


class VectorRecorder(Told, gym.vector.VectorWrapper):
    """Logs every episode of a vector env, and keeps `gymnasium.wrappers.vector.RecordEpisodeStatistics`'s statistics.

    A drop-in for it: the same entry in `info`, the same attributes. Three differences: an entry that is there
    already is left as it is (said once); a partial reset (`reset_mask`) begins the statistics of those lanes alone
    anew; and where the autoreset mode is DISABLED, steps of a lane after its end count in no statistics.

    Attributes:
        run: the run's folder.
        episode_count: how many episodes have finished, over all lanes.
        return_queue: returns of the last `buffer_length` finished episodes.
        length_queue: their lengths, in env steps.
        time_queue: how long they took, in seconds.
        episode_returns: each lane's sum of rewards so far, float64, shape (num_envs,).
        episode_lengths: its env steps so far, int, shape (num_envs,).
        episode_start_times: when its episode began, in seconds of `time.perf_counter`, float64, shape (num_envs,).
        prev_dones: whether its episode ended with the last step, bool, shape (num_envs,).
    """

    _statistics: BatchStatistics

    def __init__(
        self,
        env: gym.vector.VectorEnv[Any, Any, Any],
        run: str | PathLike[str] | None = None,
        *,
        buffer_length: int = 100,
        stats_key: str = "episode",
        info_keywords: Sequence[str] = (),
        role: str = "train",
        resume: bool = False,
        factory: str | recipe.EnvFactory | None = None,
        fingerprint_every: int = 32,
        flush_seconds: float = 5.0,
        durable: bool = False,
        mark: Callable[[dict[str, Any]], str | bool | None] | None = None,
    ) -> None:
        """Wraps a vector env; nothing is written before the first reset.

        Args:
            env: the vector env to record.
            run: the run's folder; None: `runs/<env id>-<date>-<time>`, one folder a launch.
            buffer_length: how many finished episodes the three queues hold.
            stats_key: the statistics' key in `info`.
            info_keywords: numbers to keep of each episode's last `info`, by name; NaN where missing.
            role: what the episodes are for, in your own words ("train", "eval").
            resume: whether to go on with a run that an earlier launch wrote.
            factory: your own way to make the env again, by name or as an importable callable, as `Recorder` takes it.
                Of a sync or async vector env it makes one sub-env; of any other, the whole vector env.
            fingerprint_every: env steps between two checksums of an observation; 0: first and last only.
            flush_seconds: at most so many seconds of training are lost if the process is killed.
            durable: whether each commit waits until the disk has it (fsync), for a loss of power.
            mark: as `Recorder` takes it; it is given the "lane", too.

        Raises:
            RunExistsError: an earlier launch wrote the run, and `resume` is False.
            RunError: the run's path is no folder.
            RecipeError: the factory can't be found.
            TypeError: it is no vector env.
            ValueError: an argument is out of its range.
        """
        try:
            super().__init__(env)
        except (AssertionError, TypeError) as error:  # the first is Gymnasium 1.0's
            raise TypeError(
                f"expected a gymnasium.vector.VectorEnv, got {type(env).__name__}: a single env goes into Recorder"
            ) from error
        if fingerprint_every < 0 or flush_seconds <= 0:
            raise ValueError(
                f"fingerprint_every must be 0 or more and flush_seconds above 0, "
                f"got {fingerprint_every}, {flush_seconds}"
            )
        self._stats_key, self._info_keywords, self._mark = stats_key, tuple(info_keywords), mark
        self._notices = Notices()
        self._width = env.num_envs
        self._mode = batching.autoreset_mode(env.metadata)
        self._statistics = BatchStatistics(self._width, buffer_length)
        self._resting: np.ndarray | None = None  # lanes that do no step of an episode, indices
        self._inert = recipe.inert.get()
        launch = this_launch()
        base = env.unwrapped
        env_id = base.spec.id if base.spec is not None else vectorrecipe.name_of(base)
        self.run = folder.default_run(env_id, launch) if run is None else Path(run)
        if usercode.loading.get():
            raise usercode.Unguarded
        taken, problems = vectorrecipe.take(env, factory)
        if not self._inert:
            folder.check_free(self.run, launch, resume=resume)
            for problem in problems:
                self._notices.say(f"episodes of this vector env can't be replayed as they are: {problem}")
        running = is_small(env.single_observation_space)
        self._log = BatchLog(
            self.run,
            launch,
            partial(
                _header,
                taken,
                env.single_action_space,
                env_id,
                role,
                running=running,
                width=self._width,
                autoreset=self._mode,
            ),
            Batch(
                ActionCodec(env.single_action_space),
                env.action_space,
                n_info=len(self._info_keywords),
                width=self._width,
            ),
            self._statistics,
            running_fingerprints=running,
            info_keywords=self._info_keywords,
            fingerprint_every=fingerprint_every,
            flush_seconds=flush_seconds,
            durable=durable,
            resume=resume,
            used_before=False,
        )
        self._tape = self._log.tape
        self._form = LaneForm(env.single_observation_space)
        self._origins = origins_of(env, self._notices.say)
        self._sees_autoresets = self._mode == NEXT_STEP and self._origins.in_reach
        weakref.finalize(self, self._log.close)

    # ---- steps

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Steps the vector env, and logs it."""
        if self._inert:
            return self.env.step(actions)
        tape, log, statistics, resting = self._tape, self._log, self._statistics, self._resting
        if type(actions) is np.ndarray and actions.dtype is tape.fast_dtype and actions.shape == tape.fast_shape:
            tape.actions.append(actions.tobytes())
        else:
            if isinstance(actions, Iterator):
                actions = list(actions)  # it can be gone through once
            log.block.take(actions)
        before = self._before_autoresets(resting) if resting is not None and self._sees_autoresets else {}
        try:
            observations, rewards, terminations, truncations, infos = result = self.env.step(actions)
        except BaseException:
            self._raised("step")
            raise
        rewards = np.asarray(rewards, _F8)
        tape.rewards.append(rewards.tobytes())
        observed = tape.observed
        if observed is not None:
            observed.append(np.asarray(observations).tobytes())
        statistics.step(rewards)
        dones = np.logical_or(terminations, truncations)
        if resting is not None:
            dones = self._rested(resting, dones, observations, before)
        statistics.dones = dones
        if np.count_nonzero(dones):  # a quarter of the price of any()
            self._ended(dones.nonzero()[0], terminations, observations, infos)
        elif self._mode != DISABLED:
            self._resting = None
        if len(tape.rewards) >= tape.due:
            log.tick(lambda: lanes_of(self.env.observation_space, observations))
        return result

    def _before_autoresets(self, resting: np.ndarray) -> dict[int, States]:
        """Takes the states of lanes that this step will reset."""
        return self._origins.before(resting.tolist(), [None] * self._width, self._log.steps)

    def _rested(self, resting: np.ndarray, dones: Any, observations: Any, before: dict[int, States]) -> Any:
        """Some lanes have done no step of an episode; returns which of the others' have ended."""
        statistics, log = self._statistics, self._log
        if self._mode == DISABLED:
            statistics.rest(resting)
            dones[resting] = False
            return dones
        statistics.begin(resting, time.perf_counter())
        log.began(resting, self._lanes(observations), rested=True)
        if before:
            for lane, states in before.items():
                log.add_states(lane, states)
            self._add_states(resting.tolist(), [None] * self._width)
        return dones

    def _lanes(self, observations: Any) -> Any:
        """Takes observations apart into those of lanes."""
        return observations if type(observations) is np.ndarray else lanes_of(self.env.observation_space, observations)

    def _ended(self, lanes: np.ndarray, terminations: Any, observations: Any, infos: Any) -> None:
        """Episodes have ended with this step."""
        statistics, log = self._statistics, self._log
        finished = statistics.end(lanes)
        self._tell(lanes, finished, infos)
        same_step = self._mode == SAME_STEP
        seen = self._lanes(observations)
        ended = np.asarray(terminations, np.bool_)[lanes].tobytes().translate(_ENDED)
        values = [self._values(infos, lane) for lane in lanes.tolist()] if self._info_keywords else ()
        last = partial(self._final, infos) if same_step else seen.__getitem__
        log.end(lanes, ended, finished, values, last, aside=same_step)
        if self._mark is not None:
            self._ask(self._mark, lanes, ended, finished, values or [()] * len(lanes))
        if same_step:
            log.began(lanes, seen, rested=False)
            statistics.begin(lanes, time.perf_counter())
        elif self._mode == DISABLED and self._resting is not None:
            self._resting = np.union1d(self._resting, lanes)
        else:
            self._resting = lanes

    def _tell(self, lanes: np.ndarray, finished: Finished, infos: Any) -> None:
        """Puts the statistics of the episodes that have ended into `infos`."""
        key = self._stats_key
        if not isinstance(infos, dict):
            self._notices.say("a wrapper below the recorder makes infos a list: the statistics are not in it")
        elif key in infos or f"_{key}" in infos:
            self._notices.say(
                f"infos[{key!r}] was already written by a wrapper below the recorder, and is left as it is; "
                "the recorder keeps these statistics too"
            )
        else:
            told = {"r": np.zeros(self._width), "l": np.zeros(self._width, int), "t": np.zeros(self._width)}
            told["r"][lanes], told["l"][lanes], told["t"][lanes] = finished.returns, finished.lengths, finished.times
            infos[key], infos[f"_{key}"] = told, self._statistics.dones

    def _values(self, infos: Any, lane: int) -> tuple[float, ...]:
        """Returns the info keywords' values of a lane whose episode has ended."""
        last = infos.get("final_info", infos) if isinstance(infos, dict) else {}
        found = []
        for name in self._info_keywords:
            there = isinstance(last, dict) and name in last and last.get(f"_{name}", {lane: True})[lane]
            found.append(as_float(last[name][lane]) if there else math.nan)
        return tuple(found)

    def _final(self, infos: Any, lane: int) -> Any:
        """Returns the last observation of an episode whose lane has been reset in the same step, if it was told."""
        found = infos.get("final_obs", infos.get("final_observation")) if isinstance(infos, dict) else None
        try:
            return None if found is None else self._form.of(found[lane])
        except Exception:  # noqa: BLE001  # a vector env of somebody's own may put anything there
            return None

    def _ask(
        self,
        mark: Callable[[dict[str, Any]], str | bool | None],
        lanes: np.ndarray,
        ended: bytes,
        finished: Finished,
        values: Sequence[tuple[float, ...]],
    ) -> None:
        """Asks the user which of the episodes that have ended are to be marked."""
        columns = lanes.tolist(), ended, finished.returns, finished.lengths, finished.times, values
        for lane, how, total, length, took, its in zip(*columns, strict=True):
            info = dict(zip(self._info_keywords, its, strict=True))
            label = mark({"r": total, "l": length, "t": took, "ended": Ended(how).name.lower(), "lane": lane, **info})
            if label:
                self._log.mark("marked" if label is True else str(label), lane)

    def _raised(self, where: str) -> None:
        self._log.raised()
        self._notices.say(
            f"the vector env raised in {where}: its running episodes are logged as interrupted, up to the last whole "
            "step; none goes on before the next reset"
        )

    # ---- resets

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Resets the vector env, or those of its lanes that `options["reset_mask"]` says, and logs it."""
        if self._inert:
            return self.env.reset(seed=seed, options=options)
        log, origins = self._log, self._origins
        mask = self._masked(options)  # now: vector envs take it out of the options
        lanes = list(range(self._width)) if mask is None else np.flatnonzero(mask).tolist()
        seeds = origins.seeds_of(seed)
        details = {} if options is None else self._options(options)
        log.prepare()
        states = origins.before(lanes, seeds, log.steps)
        given = origins.details(seed, lanes if mask is not None else None)
        log.begin(lanes, lambda lane: (origins.logged(seeds[lane], mask), {**details, **given}, states.get(lane, [])))
        try:
            observations, _ = result = self.env.reset(seed=seed, options=options)
        except BaseException:
            self._raised("reset")
            raise
        self._statistics.begin(lanes, time.perf_counter())
        self._statistics.dones = self._statistics.dones & ~np.isin(np.arange(self._width), lanes)
        log.started(lanes, lanes_of(self.env.observation_space, observations))
        self._add_states(lanes, seeds)
        if self._resting is not None:
            rest = np.setdiff1d(self._resting, lanes)
            self._resting = rest if len(rest) else None
        return result

    def _masked(self, options: dict[str, Any] | None) -> np.ndarray | None:
        """Returns which lanes a reset is of; None: all."""
        mask = options.get("reset_mask") if options is not None else None
        sound = isinstance(mask, np.ndarray) and mask.dtype == np.bool_ and mask.shape == (self._width,)
        return mask.copy() if sound and mask.any() else None  # type: ignore[union-attr]  # else the vector env says so

    def _options(self, options: dict[str, Any]) -> dict[str, Any]:
        rest = {name: value for name, value in options.items() if name != "reset_mask"}
        return logged_options(rest, self._notices.say)

    def _add_states(self, lanes: list[int], seeds: Sequence[int | None]) -> None:
        for lane, found in self._origins.after(lanes, seeds).items():
            self._log.add_states(lane, found)

    # ---- the rest

    def mark(self, label: str, lane: int) -> None:
        """Puts a label on the episode that runs in a lane, or on the one that has ended there and is not committed yet.

        Args:
            label: why, in your own words; a second one is added behind a comma.
            lane: which, 0 to num_envs - 1.

        Raises:
            ValueError: the label is empty, or there is no such lane.
        """
        if not label:
            raise ValueError("a mark needs some text: mark('why', lane)")
        if not 0 <= lane < self._width:
            raise ValueError(f"no lane {lane}: it has 0 to {self._width - 1}")
        if not self._inert and not self._log.mark(str(label), lane):
            self._notices.say(f"there is no episode to mark in lane {lane}: call mark() while it runs")

    def flush(self) -> None:
        """Commits all that has been recorded so far: from here on a kill can't lose it."""
        self._log.flush()

    def close(self, **kwargs: Any) -> None:
        """Ends the running episodes as interrupted, closes the log, then the vector env."""
        log = vars(self).get("_log")  # Gymnasium 1.0 closes what could not be made, too
        try:
            if log is not None:
                log.close()
        finally:
            super().close(**kwargs)

    def __reduce__(self) -> Any:
        """Refuses to be copied.

        Raises:
            TypeError: always.
        """
        raise TypeError(
            "a VectorRecorder can't be pickled, copied or sent to another process: what it records goes into one file, "
            "from one vector env; to copy that without its log, copy recorder.env"
        )

    @property
    def episode_returns(self) -> np.ndarray:
        """Each lane's sum of rewards so far."""
        return self._statistics.returns

    @property
    def episode_lengths(self) -> np.ndarray:
        """Each lane's env steps so far."""
        return self._statistics.lengths

    @property
    def episode_start_times(self) -> np.ndarray:
        """When each lane's episode began, in seconds of `time.perf_counter`."""
        return self._statistics.start_times

    @property
    def prev_dones(self) -> np.ndarray:
        """Whether each lane's episode ended with the last step."""
        return self._statistics.dones


def _header(
    taken: dict[str, Any], space: gym.Space[Any], env_id: str, role: str, *, running: bool, width: int, autoreset: str
) -> dict[str, str | int]:
    """Returns the attributes of a vector recorder's segments. No method, as `header_of` is none."""
    header = header_of(taken, space, env_id, role, running=running)
    return {**header, "batch_width": width, "autoreset": autoreset}
