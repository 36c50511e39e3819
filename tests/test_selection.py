"""Selections, and where clips begin and end."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
from gymnasium.utils.save_video import capped_cubic_video_schedule
from hypothesis import given, settings
from hypothesis import strategies as st

from reenact.errors import EpisodeNotFoundError, SelectionError
from reenact.selection import ClipTrigger, callable_trigger, select

if TYPE_CHECKING:
    from collections.abc import Callable


class Fake:
    """A run of so many episodes, ten a segment."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def number_of(self, address: str) -> int:
        """As `Run.number_of`."""
        segment, index = map(int, address.split("."))
        if segment * 10 + index >= self.count:
            raise EpisodeNotFoundError(address)
        return segment * 10 + index


BOUND = st.one_of(st.none(), st.integers(-30, 30))


@settings(deadline=None)
@given(st.integers(0, 20), BOUND, BOUND, st.one_of(st.none(), st.integers(-5, 5).filter(bool)))
def test_ranges_are_pythons(count: int, start: int | None, stop: int | None, step: int | None) -> None:
    """A range names the episodes that the Python slice of the same numbers names."""
    text = ":".join(
        "" if part is None else str(part) for part in ((start, stop) if step is None else (start, stop, step))
    )
    assert select(Fake(count), text) == sorted(range(count)[slice(start, stop, step)])


@settings(deadline=None)
@given(st.integers(1, 20), st.lists(st.integers(-20, 19), max_size=6))
def test_numbers_are_pythons_indices(count: int, numbers: list[int]) -> None:
    """Numbers, negative from the end, name what they would name in a list, each once and in order."""
    valid = [number for number in numbers if -count <= number < count]
    expected = sorted({range(count)[number] for number in valid})
    assert select(Fake(count), valid) == expected == select(Fake(count), [np.int64(number) for number in valid])
    if valid:
        assert select(Fake(count), ", ".join(map(str, valid))) == expected
    if len(valid) < len(numbers):
        with pytest.raises(EpisodeNotFoundError, match=f"it has episodes 0 to {count - 1}"):
            select(Fake(count), numbers)


def test_picks_unite() -> None:
    """Numbers, ranges, addresses, every and a trigger unite, in episode order, each once."""
    assert select(Fake(30), "3,2.5,-1,10:14:2,3", every=20, trigger=lambda n: n == 7) == [
        0,
        3,
        7,
        10,
        12,
        20,
        25,
        29,
    ]
    assert select(Fake(5), "all") == select(Fake(5)) == [0, 1, 2, 3, 4]
    assert select(Fake(5), default=lambda n: n % 2 == 1) == [1, 3]
    assert select(Fake(5), 2) == [2]
    assert select(Fake(0), "all") == select(Fake(0), every=3) == []


@pytest.mark.parametrize(
    "text",
    ["", "x", "1,,2", "1-5", "1:2:0", "1:2:3:4", "1.2.3", "--1", "1e3", "9" * 5000, "1.", 1.5, [2.0], [None]],
)
def test_what_names_nothing_says_what_would(text: object) -> None:
    """A pick that can't be understood is refused in one line; nothing is rounded into a number."""
    with pytest.raises(SelectionError) as caught:
        select(Fake(9), text)  # type: ignore[arg-type]  # on purpose
    assert "\n" not in str(caught.value)


def test_a_pick_that_there_is_not_is_a_type_error() -> None:
    """A misspelt keyword is no selection of everything."""
    misspelt = {"wher": "return > 3"}
    with pytest.raises(TypeError, match="no selection 'wher': expected every, best"):
        select(Fake(5), **misspelt)


@pytest.mark.parametrize("every", [0, -1])
def test_every_must_be_positive(every: int) -> None:
    """`every` below 1 is refused."""
    with pytest.raises(SelectionError, match="1 or more"):
        select(Fake(9), every=every)


def test_the_named_trigger_is_gymnasiums() -> None:
    """capped-cubic picks what Gymnasium's own function does."""
    trigger = callable_trigger("capped-cubic")
    assert trigger is not None
    assert [trigger(number) for number in range(3000)] == [
        capped_cubic_video_schedule(number) for number in range(3000)
    ]
    assert callable_trigger("math:isqrt") is math.isqrt


class Upstream:
    """`RecordVideo`'s starts and stops (gymnasium 1.x, rendering.py), but clips of exactly `video_length` frames."""

    def __init__(
        self, step_trigger: Callable[[int], bool], episode_trigger: Callable[[int], bool], length: int
    ) -> None:
        self.step_trigger, self.episode_trigger = step_trigger, episode_trigger
        self.length = length or float("inf")
        self.step_id = self.episode_id = -1
        self.recording: str | None = None
        self.frames = 0
        self.clips: list[tuple[str, list[int]]] = []
        self.clock = -1

    def start(self, name: str) -> None:
        """Begins a clip, ending the old one."""
        self.recording, self.frames = name, 0
        self.clips.append((name, []))

    def capture(self) -> None:
        """Takes the frame, and stops when there are enough."""
        if self.recording:
            self.clips[-1][1].append(self.clock)
            self.frames += 1
            if self.frames >= self.length:
                self.recording = None

    def reset(self) -> None:
        """As upstream's reset."""
        self.clock += 1
        self.episode_id += 1
        if self.recording and self.length == float("inf"):
            self.recording = None
        if self.episode_trigger(self.episode_id):
            self.start(f"episode-{self.episode_id}")
        self.capture()

    def step(self) -> None:
        """As upstream's step."""
        self.clock += 1
        self.step_id += 1
        if self.step_trigger(self.step_id):
            self.start(f"step-{self.step_id}")
        self.capture()


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.integers(1, 6), min_size=1, max_size=8),
    st.sets(st.integers(0, 30), max_size=5),
    st.sets(st.integers(0, 8), max_size=3),
    st.integers(0, 7),
)
def test_clips_are_record_videos(lengths: list[int], steps: set[int], episodes: set[int], length: int) -> None:
    """Frame by frame, clips begin and end as `RecordVideo`'s, over any mix of step and episode triggers."""
    model = Upstream(steps.__contains__, episodes.__contains__, length)
    trigger = ClipTrigger(steps.__contains__, episodes.__contains__, length)
    clips: dict[str, list[int]] = {}
    clock = -1
    for number, count in enumerate(lengths):
        model.reset()
        clock += 1
        frames = [trigger.reset(number)]
        for _ in range(count):
            model.step()
            frames.append(trigger.step())
        for at, name in enumerate(frames):
            if name is not None:
                clips.setdefault(name, []).append(clock + at)
        clock += count
    assert clips == dict(model.clips)


def test_steps_after_an_end_count() -> None:
    """Steps between an end and the next reset move the step trigger on, and are not filmed."""
    trigger = ClipTrigger(lambda step: step == 5, None, 2)
    trigger.reset(0)
    trigger.step()
    trigger.skip(4)
    trigger.reset(None)
    assert [trigger.step(), trigger.step(), trigger.step()] == ["step-5", "step-5", None]
