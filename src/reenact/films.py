"""What to film: whole episodes, or the clips that `RecordVideo` would have cut, as frames of episodes.

A film is what one video shows: frames of one episode, or of several in a row for a clip.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from reenact.selection import ClipTrigger, Trigger

if TYPE_CHECKING:
    from reenact.logged import Episode
    from reenact.run import Run


@dataclass(frozen=True, slots=True)
class Part:
    """Frames [first, end) of an episode; frame 0 is the reset's."""

    episode: Episode
    first: int
    end: int


@dataclass(frozen=True, slots=True)
class Film:
    """What one video shows."""

    name: str
    parts: tuple[Part, ...]


def whole(episode: Episode, prefix: str) -> Film:
    """Returns the film of one episode, from its reset to its end."""
    name = f"{prefix}-episode-{episode.number}"
    return Film(name, (Part(episode, 0, episode.length + 1),))


def clips(
    run: Run, step_trigger: Trigger | None, numbers: set[int], video_length: int, prefix: str
) -> Iterator[Film]:
    """Finds the clips that `RecordVideo` would have filmed, one env instance after another.

    Args:
        run: where to look.
        step_trigger: starts a clip after the n-th env step of an env instance.
        numbers: the episodes at whose resets a clip starts.
        video_length: frames a clip; 0: to the next reset.
        prefix: of their names.
    """
    segments = run.segments
    follows = {
        segment.predecessor: segment.number
        for segment in segments
        if segment.predecessor >= 0 and not segment.gap
    }
    suffix = len(segments) > 1
    for segment in segments:
        if segment.predecessor >= 0 and not segment.gap:
            continue
        camera = ClipTrigger(step_trigger, numbers.__contains__ if numbers else None, video_length)
        name: str | None = None
        parts: list[Part] = []
        at: int | None = segment.number
        while at is not None:
            for episode, trailing in run.timeline(at):
                first = 0
                for frame in range(episode.length + 1):
                    # a trigger may start a new clip under the very frame that another one would have had
                    clip = camera.reset(episode.number) if frame == 0 else camera.step()
                    if clip != name:
                        if name is not None:
                            yield from _cut(
                                prefix, name, parts, episode, (first, frame), suffix, segment.number
                            )
                        name, parts, first = clip, [], frame
                if name is not None:
                    parts.append(Part(episode, first, episode.length + 1))
                camera.skip(trailing)
            at = follows.get(at)
        if name is not None:
            yield _clip_film(prefix, name, parts, suffix, segment.number)


def _cut(
    prefix: str,
    name: str,
    parts: list[Part],
    episode: Episode,
    frames: tuple[int, int],
    suffix: bool,
    segment: int,
) -> Iterator[Film]:
    if frames[1] > frames[0]:
        parts = [*parts, Part(episode, *frames)]
    if parts:
        yield _clip_film(prefix, name, parts, suffix, segment)


def _clip_film(prefix: str, name: str, parts: list[Part], suffix: bool, segment: int) -> Film:
    tail = f"-{segment}" if suffix and name.startswith("step") else ""
    return Film(f"{prefix}-{name}{tail}", tuple(parts))
