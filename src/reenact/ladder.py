"""The ways to start an episode again, tried one after another until one is exact.

First its own origins, alone in a fresh env: `snapshot`, `seed`, `entropy`, `rng` (see `Ladder._own`). Then chains:
re-execution of what came before it, from the last reset with a snapshot (`chain:snapshot`) or a seed (`chain:seed`),
from 1, 2, 4, 8 … resets earlier (`chain:4`), and at last from the first that the env instance had (`chain:first`).
What worked for one episode is tried before what failed for it, and a chain that stands on the way to the next goes on.
"""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, Self

from reenact import headless, snapshot
from reenact.chain import Pass, set_camera
from reenact.episode import Attempt, EpisodeData
from reenact.errors import ReplayError, SelectionError
from reenact.reexecute import Reexecution

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from reenact.episode import Divergence
    from reenact.lineage import Lineage
    from reenact.stage import Stage

_PICTURES = {"flappy_bird_gymnasium": "chain:first", "gym_pusht": "chain:1", "metaworld": "chain:1"}
"""Packages whose frames show what came before the reset, and the rung that brings it back: the ground goes on
scrolling, the last action stays drawn (evidence: determinism, Frames), and the goal's mark starts at the height that
the object had last, 8 µm off. Tried first where frames are wanted."""
_GENERATORS_ALONE = ("entropy", "rng")
_MOST_LANES = 64
"""Lanes of a vector env whose chains go on beside one another, each in an env of its own: at least 2."""
_FORCED = re.compile(r"seed|rng|entropy|snapshot|chain(:([1-9]\d{0,8}|first|seed|snapshot))?")
EXPECTED = "seed, entropy, rng, snapshot, chain, chain:first, chain:seed, chain:snapshot or chain:N"


@dataclass(frozen=True, slots=True)
class Rung:
    """One way to start an episode.

    Attributes:
        name: as results have it and `--origin` takes it.
        start: the reset that a chain begins with; None: the episode alone.
    """

    name: str
    start: int | None = None


class Player(Protocol):
    """What the ladder asks of an episode."""

    @property
    def position(self) -> int:
        """Which reset of its lineage it is."""

    @property
    def lineage(self) -> Lineage:
        """What its env instance did."""

    @property
    def stage(self) -> Stage:
        """How its env is rebuilt."""

    def data(self) -> EpisodeData:
        """All that a re-execution needs."""


class Ladder:
    """The rungs of one lineage's episodes, and the env that its chains go on in.

    Args:
        stage: how the env is made.
        lineage: what the env instance did.
        forced: the only rung to try ("chain": any chain), or None.
        tolerance: how far a reward may be off.
        tell: told how far a chain is: resets done, resets in all.
        aside: the caller's global generators.

    Attributes:
        aside: as given.
        went_on_drawn: whether the last chain went on in an env that had drawn frames of other episodes.
        known_cause: why an episode of it diverged, if that holds for all of them.
    """

    def __init__(
        self,
        stage: Stage,
        lineage: Lineage,
        *,
        forced: str | None,
        tolerance: float,
        tell: Callable[[int, int], None],
        aside: snapshot.Aside,
    ) -> None:
        self.aside = aside
        self.stage, self._lineage, self._forced, self._tolerance, self._tell = stage, lineage, forced, tolerance, tell
        self._pass: Pass | None = None
        self.known_cause: str | None = None
        self._for_pictures = _PICTURES.get(stage.package)
        self._chain_that_worked: str | None = None
        self._let_down: set[str] = set()
        self._hopeless = False
        self.went_on_drawn = False

    def close(self) -> None:
        """Closes the env that chains went on in."""
        if self._pass is not None:
            self._pass.close()
            self._pass = None

    def climb(self, player: Player, *, render: bool) -> Climb:
        """Returns the rungs of an episode, for frames or without."""
        data = player.data()
        own = self._own(player.position, data)
        rungs = self._rungs(player.position, own, render=render)
        return Climb(self, data, player.position, rungs, own)

    def _own(self, position: int, data: EpisodeData) -> list[str]:
        """Returns the origins by which an episode can be started alone.

        An env that has snapshots has more to it than its generators. Where not all observations are in the checksums,
        an episode that was begun without may have the same ones, and the same rewards, and other frames in between:
        so did one in fourteen of Pong's first 40 steps.

        Raises:
            ReplayError: the only one to be tried is such a one.
        """
        names: list[str] = [one.name for one in data.origins]
        if data.running or self._lineage.nearest("snapshot", position + 1) is None:
            return names
        if self._forced in _GENERATORS_ALONE and self._forced in names:
            raise ReplayError(f"{self._forced} leaves out what the env's snapshots hold: give chain:snapshot, or none")
        return [name for name in names if name not in _GENERATORS_ALONE]

    def reaches_back_to(self, name: str, player: Player) -> int:
        """Returns the first reset that a replay goes through where the rung of that name is exact, drawn or not."""
        own = self._own(player.position, player.data())
        rungs = [self._rung(one, player.position, own) for one in (name, self._for_pictures) if one is not None]
        return min(
            (rung.start for rung in rungs if rung is not None and rung.start is not None), default=player.position
        )

    def _rungs(self, position: int, own: list[str], *, render: bool) -> Iterator[Rung]:
        """Yields each rung that the episode has, once."""
        given: set[str | int] = set()
        for name in self._names(position, own, render=render):
            rung = self._rung(name, position, own)
            if rung is None:
                continue
            same = rung.name if rung.start is None else rung.start
            if same not in given:
                given.add(same)
                yield rung

    def _names(self, position: int, own: list[str], *, render: bool) -> Iterator[str]:
        """Yields names of rungs, in the order to try them; some several times, some that the episode has not.

        Own origins of kinds that have not failed, then the chain that worked last, then all others, the shortest first.
        """
        if self._forced not in (None, "chain"):
            yield self._forced
            return
        alone = own if self._forced is None else []
        if render and self._for_pictures:
            yield self._for_pictures
        else:
            yield from (name for name in alone if name not in self._let_down)
        if self._chain_that_worked is not None:
            yield self._chain_that_worked
        yield from alone
        yield "chain:snapshot"
        if not self._hopeless:  # else no chain was exact for the last one
            distances = [(1 << power, f"chain:{1 << power}") for power in range(32) if 1 << power < position]
            seeded = self._lineage.nearest("seed", position)
            if seeded is not None:
                distances.append((position - seeded, "chain:seed"))
            yield from (name for _, name in sorted(distances, key=lambda one: (one[0], one[1] != "chain:seed")))
        yield "chain:first"

    def _rung(self, name: str, position: int, own: list[str]) -> Rung | None:
        """Returns the rung of a name, or None where the episode has none."""
        if name in own:
            return Rung(name)
        where = name.partition(":")[2]
        if where == "first":
            start: int | None = 0
        elif where.isdigit():
            asked = max(0, position - int(where))
            start = self._lineage.start_at(asked)
            name = name if start in (asked, None) else f"chain:{position - start}"
        else:
            start = self._lineage.nearest(where, position) if where else None
        if start is None:
            return None
        if start or where == "snapshot" or self._forced == name:
            return Rung(name, start)
        # the first reset alone is the same thing, unless it has no origin: then it is a reset as it was called
        return Rung("chain:first", 0) if position or not own or self._forced else None

    @contextlib.contextmanager
    def on(
        self,
        climb: Climb,
        *,
        render: bool,
        shown: range | None = None,
        trace: list[tuple[int, float]] | None = None,
    ) -> Iterator[Reexecution]:
        """Puts an episode on its stage by the rung that its climb has come to.

        Args:
            climb: the episode's.
            render: whether to draw.
            shown: the frames that are wanted of it; None: all.
            trace: takes the fingerprint of every observation, and the reward before it.

        Raises:
            ReplayError: it can't be started so.
            RecipeError: its env can't be rebuilt.
            DamagedError: its log is damaged.
        """
        rung, data = climb.rung, climb.data
        climb.stood = rung.name
        told: dict[str, Any] = {"tolerance": self._tolerance, "trust": self.stage.trust, "shown": shown, "trace": trace}
        if rung.start is None:
            start = next(one for one in data.origins if one.name == rung.name)
            with self.stage.open(render=render) as env:
                if render and climb.position:
                    set_camera(env, self._lineage, trust=self.stage.trust)
                yield Reexecution(env, data, start, render=render, **told)
            return
        going = self._reach(rung.start, climb.position, render=render)
        if going.start != rung.start:
            climb.stood = f"chain:{climb.position - going.start}" if going.start else "chain:first"
        start_here = going.origin_of(data.origins)
        run = Reexecution(going.env, data, start_here, render=render, **told)
        try:
            yield run
        finally:
            if run.finished:
                going.went_on(drawn=render)
            else:
                self.close()

    def _reach(self, start: int, position: int, *, render: bool) -> Pass:
        """Returns an env that has gone from `start`, or from further back, to the reset at `position`."""
        held = self._pass
        stands = held is not None and held.render == render and held.start <= start <= held.position <= position
        if held is not None and stands and (held.start == start or self._forced in (None, "chain")):
            going, self.went_on_drawn = held, held.drawn
        else:
            self.close()
            self.went_on_drawn = False
            going = self._pass = Pass(self.stage, self._lineage, start, render=render)
        try:
            going.advance(position, self._tell)
        except BaseException:
            self.close()
            raise
        return going

    def note(self, climb: Climb, *, exact: bool) -> None:
        """Keeps what worked, and what did not."""
        self._let_down |= {attempt.origin for attempt in climb.tried}
        self._hopeless = not exact
        if exact and climb.rung.start is not None:
            self._chain_that_worked = climb.rung.name


class Ladders:
    """The ladders of a job, one a lineage.

    Args:
        prepare: puts into a stage what the job knows of how envs are made.
        forced: the only rung to try, or None.
        tolerance: how far a reward may be off.
        tell: told how far a chain is: resets done, resets in all.

    Attributes:
        forced: as given.
        tolerance: as given.

    Raises:
        SelectionError: there is no such rung.
    """

    def __init__(
        self,
        prepare: Callable[[Stage], Stage],
        *,
        forced: str | None,
        tolerance: float,
        tell: Callable[[int, int], None],
    ) -> None:
        if forced is not None and not _FORCED.fullmatch(forced):
            raise SelectionError(f"no origin {forced!r}: expected {EXPECTED}")
        self._prepare, self.forced, self.tolerance, self._tell = prepare, forced, tolerance, tell
        self._ladders: dict[tuple[int, int], Ladder] = {}
        self._open: dict[tuple[int, int], Ladder] = {}  # whose envs may be open; the one used last stands last
        self._stack = contextlib.ExitStack()

    def of(self, player: Player) -> Ladder:
        """Returns the ladder of an episode's lineage. Those used before are left: their envs are closed.

        Lanes of one vector env take turns: of these, the ones used last may stay open.
        """
        lineage = player.lineage
        key = lineage.key
        if key not in self._ladders:
            self._ladders[key] = Ladder(
                self._prepare(player.stage),
                lineage,
                forced=self.forced,
                tolerance=self.tolerance,
                tell=self._tell,
                aside=self._aside,
            )
        self._open.pop(key, None)
        beside = [other for other in self._open if other[0] == key[0]][-(_MOST_LANES - 1) :]
        for other in self._open.keys() - set(beside):
            self._open.pop(other).close()
        self._open[key] = self._ladders[key]
        return self._ladders[key]

    def __enter__(self) -> Self:
        self._stack.enter_context(headless.quiet())
        self._aside = snapshot.Aside()
        self._stack.callback(self._aside.put_back)
        return self

    def __exit__(self, *error: object) -> None:
        """Closes all envs, and puts the caller's global generators back."""
        with self._stack:
            for ladder in self._open.values():
                ladder.close()


class Climb:
    """One episode on its way up the ladder.

    Attributes:
        data: the episode.
        position: which reset of its lineage it is.
        rung: the one to try now.
        tried: the rungs that were not exact, in order.
        exhausted: whether there is no other; `rung` is the one that went furthest then.
        stood: what the rung tried last came to: a chain may have gone on from further back.
    """

    def __init__(
        self, ladder: Ladder, data: EpisodeData, position: int, rungs: Iterator[Rung], own: Sequence[str]
    ) -> None:
        self.data, self.position, self._rungs = data, position, rungs
        self._ladder = ladder
        self.tried: tuple[Attempt, ...] = ()
        self.exhausted = False
        self._failed: list[Rung] = []
        first = next(rungs, None)
        if first is None:
            raise ReplayError(f"it has no such origin to start from; it has {', '.join(own) or 'none of its own'}")
        self.rung, self.stood = first, first.name

    def failed(self, divergence: Divergence | None, error: str | None = None) -> bool:
        """Takes in that the rung was not exact; returns whether there is another one to try."""
        if self.rung.start is not None and self._ladder.went_on_drawn:
            self._ladder.went_on_drawn = False
            return True  # the same one again, in an env that has drawn nothing
        self.tried += (Attempt(self.stood, divergence, error),)
        self._failed.append(self.rung)
        following = next(self._rungs, None)
        if following is not None:
            self.rung = following
            return True
        self.exhausted = True
        self.rung = self._failed[self.tried.index(self.best)]
        self._ladder.note(self, exact=False)
        return False

    def succeeded(self) -> None:
        """Takes in that the rung was exact."""
        self._ladder.note(self, exact=True)

    @property
    def best(self) -> Attempt:
        """The attempt that went furthest, once there is no other rung; one alone rather than a chain."""

        def worth(at: int) -> tuple[int, bool, int]:
            divergence = self.tried[at].divergence
            reached = divergence.step if divergence is not None else -1
            return reached, self._failed[at].start is None, at  # a state says more than a seed, which may be ignored

        return self.tried[max(range(len(self.tried)), key=worth)]
