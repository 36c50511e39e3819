"""What to film: whole episodes, slices, reels, grids, or the clips that `RecordVideo` would have cut.

A film is what one video shows: frames of one episode, or of several: in a row for a clip or a reel, side by side for
a grid.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from reenact.selection import ClipTrigger, Trigger

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from reenact.logged import Episode
    from reenact.look import Look, Slice
    from reenact.run import Run

_FEW = 6  # episodes whose numbers a video's name holds


@dataclass(frozen=True, slots=True)
class Part:
    """Frames [first, end) of an episode; frame 0 is the reset's."""

    episode: Episode
    first: int
    end: int

    @property
    def frames(self) -> int:
        """How many these are."""
        return self.end - self.first


@dataclass(frozen=True, slots=True)
class Film:
    """What one video shows.

    Attributes:
        name: how the video's begins.
        parts: what is shown, in order.
        code: what the user's own code that makes its envs is known by; None: there is none.
    """

    name: str
    parts: tuple[Part, ...]
    code: str | None = None

    @property
    def frames(self) -> int:
        """How many it has."""
        return sum(part.frames for part in self.parts)


def whole(episode: Episode, prefix: str, steps: Slice | None = None) -> Film:
    """Returns the film of one episode, from its reset to its end, or of a slice of its frames."""
    return Film(f"{prefix}-episode-{episode.number}", (_part(episode, steps),))


def together(episodes: Sequence[Episode], prefix: str, look: Look) -> Iterator[Film]:
    """Yields the films that show several episodes each: a reel of them all, or the pages of a grid.

    Episodes of which the look shows no frame are in none of them: each is a film of its own, after these.
    """
    parts = [_part(episode, look.steps) for episode in episodes]
    shown = [part for part in parts if part.frames]
    if look.grid is None:
        kind, most = "reel", len(shown)
    else:
        rows, columns = look.grid
        kind, most = f"grid-{rows}x{columns}", rows * columns
    for at in range(0, len(shown), most or 1):
        page = tuple(shown[at : at + most])
        yield Film(f"{prefix}-{kind}-{_names([part.episode for part in page])}", page)
    yield from (whole(part.episode, prefix, look.steps) for part in parts if not part.frames)


def _part(episode: Episode, steps: Slice | None) -> Part:
    frames = range(episode.length + 1)
    shown = frames if steps is None else frames[slice(*steps)]
    return Part(episode, shown.start, max(shown.start, shown.stop))


def _names(episodes: Sequence[Episode]) -> str:
    """Names several episodes: the numbers of a few; of many the first, the last, and what tells them from others."""
    if len(episodes) <= _FEW:
        return "-".join(str(episode.number) for episode in episodes)
    digest = hashlib.sha256(" ".join(episode.address for episode in episodes).encode()).hexdigest()
    return f"{episodes[0].number}-to-{episodes[-1].number}-{digest[:8]}"


def clips(run: Run, step_trigger: Trigger | None, numbers: set[int], video_length: int, prefix: str) -> Iterator[Film]:
    """Finds the clips that `RecordVideo` would have filmed, one env instance after another.

    Args:
        run: where to look.
        step_trigger: starts a clip after the n-th env step of an env instance.
        numbers: the episodes at whose resets a clip starts.
        video_length: frames a clip; 0: to the next reset.
        prefix: of their names.
    """
    segments = run.segments
    states = {segment.number: segment.state for segment in segments}
    for segment in segments:
        chain = run.lineage(segment.number).segments
        if chain[0] != segment.number:
            continue
        camera = ClipTrigger(step_trigger, numbers.__contains__ if numbers else None, video_length)
        tail = f"-{segment.number}" if len(segments) > 1 else ""
        # the last clip of an env that still runs may be short of frames that are yet to come
        wanted = video_length if states[chain[-1]] == "live" else 0
        for name, parts in _takes(_history(run, chain), camera, wanted):
            ending = tail if name.startswith("step") else _of_episode(parts, video_length)
            yield Film(f"{prefix}-{name}{ending}", tuple(parts))


def _of_episode(parts: Sequence[Part], video_length: int) -> str:
    """Ends the name of a clip that begins with an episode: the plain name is for all of that one's frames."""
    if video_length:
        return f"-{video_length}frames"
    # to the next reset, or to the next clip, which another trigger may begin in its middle
    return "" if parts[0].frames > parts[0].episode.length else f"-{parts[0].frames}frames"


def _history(run: Run, chain: list[int]) -> Iterator[tuple[Episode, int]]:
    """Yields all that an env instance did, across the segments that took over from one another."""
    for segment in chain:
        yield from run.timeline(segment)


def _takes(
    history: Iterator[tuple[Episode, int]], camera: ClipTrigger, wanted: int
) -> Iterator[tuple[str, list[Part]]]:
    """Yields each clip's name and parts; the last one only if it has as many frames as are wanted."""
    name: str | None = None
    parts: list[Part] = []
    for episode, trailing in history:
        first = 0
        for frame in range(episode.length + 1):
            # a trigger may start a new clip under the very frame that another one would have had
            clip = camera.reset(episode.number) if frame == 0 else camera.step()
            if clip != name:
                if name is not None and frame > first:
                    parts.append(Part(episode, first, frame))
                if name is not None and parts:
                    yield name, parts
                name, parts, first = clip, [], frame
        if name is not None:
            parts.append(Part(episode, first, episode.length + 1))
        camera.skip(trailing)
    if name is not None and sum(part.frames for part in parts) >= wanted:
        yield name, parts
