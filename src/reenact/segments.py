"""The segments that one recorder fills, one after another: made, committed to, given up, closed."""

from __future__ import annotations

import json
import math
import os
import re
import threading
import time
import warnings
import weakref
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np

from reenact import folder, layout
from reenact.codec import ActionCodec, DoesNotFit, Leaf
from reenact.errors import RunError
from reenact.process import close_at_exit, this_process
from reenact.writer import SegmentWriter

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from reenact.block import Block
    from reenact.process import Launch

RETRY_S = 5.0
"""After an error of the disk, a new segment is tried at a reset, so many seconds later at the earliest."""
TICK_SHARE = 0.02
"""The share of `flush_seconds` that may pass between two looks at the clock."""
_MAX_WIDENINGS = 8
"""In one commit: values that no one dtype holds (2**60 beside 0.5) would widen a column without end."""


class Options(TypedDict):
    """What a user may ask of any log; as `SegmentLog` explains it."""

    fingerprint_every: int
    flush_seconds: float
    durable: bool
    resume: bool
    used_before: bool


class SegmentLog:
    """What a recorder has not committed yet, and the segments that it commits to.

    Args:
        run: the run's folder.
        launch: that records; in a notebook of the cell that made the recorder, whichever resets it.
        header: makes the segments' attributes, when the first one is made.
        block: takes what is recorded.
        info_keywords: names of the info values kept.
        fingerprint_every: env steps between fingerprints; 0: only the first and the last.
        durations: whether step durations are kept.
        flush_seconds: a commit is due after so many.
        durable: whether a commit waits for the disk.
        resume: whether the run of an earlier launch may be continued.
        used_before: whether the env had been reset before it was recorded.
    """

    def __init__(
        self,
        run: Path,
        launch: Launch,
        header: Callable[[], dict[str, str | int]],
        block: Block,
        *,
        info_keywords: tuple[str, ...],
        fingerprint_every: int,
        durations: bool,
        flush_seconds: float,
        durable: bool,
        resume: bool,
        used_before: bool,
    ) -> None:
        self.run, self._launch, self._make_header = run, launch, header
        self._info_keywords, self._every, self._durations = info_keywords, fingerprint_every, durations
        self._flush_seconds, self._durable = flush_seconds, durable
        self._resume, self._used_before = resume, used_before
        self.block, self.tape = block, block.tape
        self._writer: SegmentWriter | None = None
        self._outgrown: list[SegmentWriter] = []  # whose episodes the next commit takes over
        self._predecessor, self._gap = -1, False
        self._attributes: dict[str, str | int] = {}
        self._closed = False
        self._pid = os.getpid()
        self._thread = 0  # that steps the env, as last seen
        self._deadline = math.inf
        self._last_end_time = 0
        self._steps_before = 0  # of the tape's rewards
        self._suspended_until = 0.0
        self._suspension_said = False
        self._lost_from = 0  # the first step that no segment has, since the last one was given up
        self._last_tick = (0, 0.0)  # step, time
        self._interval = 1

    # ---- what runs: said by those who know it

    def _bring_up(self, rewards: np.ndarray | None = None) -> None:
        """Brings what is known of the running episodes up to the last step; all rewards are given if they are at hand.

        Afterwards the tape may be emptied.
        """
        raise NotImplementedError

    def _note_running(self, now: int) -> None:
        """Notes of the running episodes what a kill would leave of them, interrupted `now`, in ns since 1970."""
        raise NotImplementedError

    def _emptied(self) -> None:
        """The tape, which `_bring_up` had been called for, is empty."""
        raise NotImplementedError

    def _forget(self) -> None:
        """What runs is not recorded any more."""
        raise NotImplementedError

    @property
    def _between(self) -> bool:
        """Whether no step or reset is being done."""
        raise NotImplementedError

    def _look(self, step: int) -> float:
        """Looks at the clock, and settles how many steps later that is done again; returns the time.

        An env that turns slow is looked at more often, or `flush_seconds` could pass many times over.

        Args:
            step: that has just been done, counted from whenever `_last_tick` does.
        """
        now = time.perf_counter()
        last_step, last_time = self._last_tick
        look_every = self._flush_seconds * TICK_SHARE
        self._interval = int(look_every * (step - last_step) / (now - last_time + 1e-9)) or 1
        self._last_tick = step, now
        return now

    # ---- segments

    def prepare(self) -> None:
        """A reset is about to be called.

        Raises:
            RunError: the first segment can't be made.
        """
        if self._pid != os.getpid():
            self._leave_parent()
        self._thread = threading.get_ident()
        if self._writer is None and not self._closed and time.monotonic() >= self._suspended_until:
            self._start_segment()

    def _start_segment(self) -> None:
        """Makes the first segment, or the next one after an error.

        Raises:
            RunError: the first one can't be made; later ones are tried again.
        """
        first = self._predecessor < 0 and not self._gap
        try:
            run_id = folder.join(self.run, self._launch, resume=self._resume)
            if not self._attributes:
                self._attributes = self._make_header()
            self._open_segment(run_id, self.block.codec)
        except Exception as error:  # h5py raises OSError, RuntimeError, ValueError and KeyError alike for a full disk
            if not first:
                self._suspend(error)
            elif isinstance(error, RunError):
                raise
            else:
                raise RunError(f"can't record into {self.run}: {_reason(error)}: give another run=") from error
        else:
            if self._suspension_said:
                self._suspension_said = False
                assert self._writer is not None  # noqa: S101  # for mypy: it was just made
                warnings.warn(
                    f"reenact: logging into {self.run} goes on at {time.strftime('%H:%M:%S')} in segment "
                    f"{self._writer.number}; {self.steps - self._lost_from} steps before are in no log",
                    RuntimeWarning,
                    stacklevel=4,
                )

    def _open_segment(self, run_id: str, codec: ActionCodec) -> None:
        columns = [leaf.path.replace("/", ".") for leaf in codec.leaves]
        header: dict[str, str | int] = {
            "format": layout.FORMAT,
            "version": layout.VERSION,
            "run": run_id,
            "launch": self._launch.id,
            "created": time.time_ns(),
            "predecessor": self._predecessor,
            "gap": int(self._gap),
            "used_before": int(self._used_before),
            "columns": json.dumps(
                [*(f"action/{name}" for name in columns), "reward", *(["duration"] * self._durations)]
            ),
            "info_keywords": json.dumps(self._info_keywords),
            "fingerprint_every": self._every,
            **self._attributes,
        }
        self._writer = SegmentWriter(
            self.run,
            header,
            [_described(leaf) for leaf in codec.leaves],
            info_keywords=self._info_keywords,
            durations=self._durations,
            durable=self._durable,
            process=this_process(),
            width=self.block.width,
        )
        self._run_id = run_id
        self._predecessor, self._gap = self._writer.number, False
        self.block.begin_segment()
        self._deadline = time.perf_counter() + self._flush_seconds
        _writing[id(self)] = self
        close_at_exit(self)

    def flush(self) -> None:
        """Commits what there is, now."""
        if self._pid == os.getpid():
            self.commit()

    def close(self) -> None:
        """Commits, and closes the segment; more calls do nothing."""
        if self._closed or self._pid != os.getpid():
            return
        self._commit_alone(closing=True)
        self._closed = True
        if self._writer is not None:
            try:
                self._writer.close()
            except Exception as error:  # noqa: BLE001  # HDF5 wants to write once more, and the disk is full
                self._suspend(error)
            self._writer = None

    def commit(self) -> None:
        """Writes the block, and those of recorders that are idle."""
        self._commit_alone()
        for reference in _writing.valuerefs():  # a copy: other threads begin segments, too
            log = reference()
            if log is not None and log is not self:
                log.commit_if_idle()

    def _commit_alone(self, *, closing: bool = False) -> None:
        """Writes the block. An error of the disk ends the segment, is told once, and training goes on."""
        if self._pid != os.getpid():
            self._leave_parent()
        if self._writer is None:
            self._drop()
            return
        self.block.align(len(self.tape.rewards))
        try:
            for _ in range(_MAX_WIDENINGS):
                try:
                    self._commit(self._writer, closing=closing)
                except DoesNotFit as misfit:
                    self._widen(self._writer, misfit)
                else:
                    self._retire()
                    break
            else:
                self._suspend(ValueError("no type of column holds all the actions exactly"))
        except Exception as error:  # noqa: BLE001  # as in _start_segment
            self._suspend(error)
        except BaseException as error:  # Ctrl-C with half a block written: it must not be written twice
            self._suspend(error)
            raise

    def commit_if_idle(self) -> None:
        """Commits what is due where nobody steps the env, such as an idle evaluation's: readers wait for its word.

        Only in the thread that stepped it last: another one may be in the middle of a step. So may this one, of an
        env that holds the caller's: then an action is there without its reward, or a reset has not returned.
        """
        if self._between and self._thread == threading.get_ident() and time.perf_counter() >= self._deadline:
            self._commit_alone()

    def _retire(self) -> None:
        """Closes the segments whose episodes the one that was just committed to has taken over."""
        while self._outgrown:
            writer = self._outgrown.pop()
            none = np.zeros(0, writer.row_dtype)
            writer.commit_rows(none, none, np.zeros(0, np.bool_), closed=True)
            writer.close()

    def _suspend(self, error: BaseException) -> None:
        """Gives the segment up. What was committed stays; a new segment is tried at a later reset."""
        for writer in (self._writer, *self._outgrown):
            if writer is not None:
                writer.abandon()
        self._writer, self._outgrown, self._deadline = None, [], math.inf
        if not self._gap:
            self._lost_from = self._steps_before
        self._gap = True
        self._drop()
        if not isinstance(error, Exception):
            return
        self._suspended_until = time.monotonic() + RETRY_S
        if not self._suspension_said:
            self._suspension_said = True
            stays = "" if isinstance(error, FileNotFoundError) else "what was committed stays readable, "
            warnings.warn(
                f"reenact: logging into {self.run} stopped at {time.strftime('%H:%M:%S')}: {_reason(error)}; "
                f"training goes on without a log, {stays}and a new segment is tried at the next resets",
                RuntimeWarning,
                stacklevel=2,
            )

    def _now_ns(self) -> int:
        """Returns ns since 1970, held above all that has been told before: readers' numbers rest on it."""
        committed = self._writer.committed_ns if self._writer is not None else 0
        return max(self._last_end_time, committed, time.time_ns())

    @property
    def steps(self) -> int:
        """Steps logged so far, over all segments, dropped ones too."""
        return self._steps_before + self.block.count

    def _drop(self) -> None:
        """Lets go of what can't be written, so that a training without a disk doesn't fill the memory."""
        self._bring_up()
        self._steps_before += self.block.count
        self.block.start_anew()
        self._emptied()

    def _leave_parent(self) -> None:
        """In a forked child: what was recorded is the parent's; this process starts a segment of its own."""
        self._pid = os.getpid()
        self._writer, self._outgrown = None, []
        self._used_before, self._predecessor, self._gap = True, -1, False
        self._forget()
        self._drop()
        self._closed = False

    def _commit(self, writer: SegmentWriter, *, closing: bool) -> None:
        block, count = self.block, self.block.count
        actions, rewards = block.encode(), block.rewards()
        self._bring_up(rewards)
        self._note_running(self._now_ns())
        block.write(writer, actions, rewards, closing=closing)
        self._emptied()
        self._steps_before += count
        self._deadline = time.perf_counter() + self._flush_seconds

    def _widen(self, writer: SegmentWriter, misfit: DoesNotFit) -> None:
        """Goes on in a new segment whose column holds the value, taking the uncommitted episodes along.

        The old one is closed when the new one has committed them: at every moment one of the two has what
        was committed of the running episode.
        """
        codec = self.block.wider(misfit)
        self._open_segment(self._run_id, codec)
        self._outgrown.append(writer)
        assert self._writer is not None  # noqa: S101  # for mypy: it was just made
        self.block.move(writer, self._writer, codec)


_writing: weakref.WeakValueDictionary[int, SegmentLog] = weakref.WeakValueDictionary()
"""The logs of this process that have had a segment, by id."""


def _reason(error: BaseException) -> str:
    """Returns what an error of the disk comes down to; HDF5 says it in the middle of a paragraph."""
    text = str(error)
    found = re.search(r"error message = '([^']+)'", text)
    return found[1] if found else text.strip().partition("\n")[0]


def _described(leaf: Leaf) -> tuple[str, np.dtype[Any], tuple[int, ...]]:
    return leaf.path, leaf.dtype, leaf.shape
