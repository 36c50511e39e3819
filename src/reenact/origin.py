"""What an episode can be started again from: taken before each reset while recording, put back before a replay.

Taking changes nothing: no generator is drawn from, replaced or seeded. What would keep an episode from being
started again is noticed, and said once.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np

from reenact import hidden, rng, snapshot
from reenact.episode import Origin
from reenact.layout import StateKind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from reenact.snapshot import Family

Env = gym.Env[Any, Any]
SNAPSHOT_STEPS = 3000
"""Steps of a recorder between two snapshots, at least: one of ALE's, deflated, is as large as 800 steps. With one in
2,000, snapshots made a log of Breakout's full episodes 1.4 times as large as its steps (tools/zoo.py --long)."""
_LOOKS = 2
"""Resets before which an env is looked through for nested generators: some make them in their first."""
_RNG_KINDS = (StateKind.PCG64, StateKind.RNG_JSON)
_MOST_ENTROPY = 64  # bytes; NumPy draws 16
_SEED_BITS = 64
"""Bits that a seed may have which somebody chose; what NumPy draws from the operating system has more."""
_WATCHED_STEPS = 100
"""Steps of the first episode around which the global generators are looked at."""


class OriginTaker:
    """Takes what each reset of one env can be started again from.

    Args:
        env: the env, with the wrappers below the recorder.
        create: whether an env without a generator gets one before an unseeded reset, as it would itself.
        say: is told, once, of what keeps episodes from being started again.

    Attributes:
        watching: whether steps are still to be watched.
    """

    def __init__(self, env: Env, *, create: bool, say: Callable[[str], None]) -> None:
        self._env, self._base, self._create, self._say = env, env.unwrapped, create, say
        self._family: Family | None = snapshot.family_of(env)
        self._places: list[str] = []
        self._resets = 0
        self._ignores_seeds = False
        self._before_seeded: tuple[StateKind, bytes] | None = None
        self._snapshot_due = 0
        self._before: list[Any] = []
        self._increments: list[int | None] = []
        self._globals: dict[str, Any] | None = None
        self._steps_watched = 0
        self._noticed: list[tuple[StateKind, bytes]] = []
        self.watching = True

    def take(self, seed: int | None, steps: int) -> list[tuple[StateKind, bytes]]:
        """Takes the states before a reset.

        Args:
            seed: what the reset is given.
            steps: that the recorder has logged so far.
        """
        states: list[tuple[StateKind, bytes]] = []
        looks = self._resets < _LOOKS
        self._resets += 1
        if looks:
            self._places = hidden.generators(self._env, create=self._create)
            self._globals = snapshot.global_states()
        # Meta-World's goals are chosen by one made here, as at its first use, whatever the seed
        makes = seed is None or (looks and self._family is not None and not self._family.seed_suffices)
        own = hidden.own(self._base, create=self._create and makes)
        if (seed is None or self._ignores_seeds) and (found := rng.encode(own)) is not None:
            states.append(found)
        self._before = [own]
        if self._places:
            self._before += [hidden.get(self._env, place) for place in self._places]
            kept = [[place, rng.state_of(held)] for place, held in zip(self._places, self._before[1:], strict=True)]
            with contextlib.suppress(TypeError):  # a bit generator of somebody's own, whose state JSON can't carry
                states.append((StateKind.NESTED, rng.pack([one for one in kept if one[1] is not None])))
        if looks and seed is not None:
            self._before_seeded = rng.encode(own)
            self._increments = [_increment(held) for held in self._before]
        by_seed = seed is not None and (self._family is None or self._family.seed_suffices)
        if self._family is not None and not by_seed and steps >= self._snapshot_due:
            states.append((StateKind.SNAPSHOT, snapshot.capture(self._family, self._env)))
            self._snapshot_due = steps + SNAPSHOT_STEPS
        return states

    def returned(self, seed: int | None) -> list[tuple[StateKind, bytes]]:
        """The reset returned: notices what it did to the generators; returns what else it can be started from."""
        states: list[tuple[StateKind, bytes]] = []
        looks = self._resets <= _LOOKS
        if not looks and seed is not None:
            return states
        if looks:  # some are made in the first reset
            made = [place for place in hidden.generators(self._env, create=False) if place not in self._places]
            self._places += made
            self._before += [None] * len(made)
            self._increments += [None] * len(made)
        now = [hidden.own(self._base), *(hidden.get(self._env, place) for place in self._places)]
        if seed is None and (replaced := self._replaced(now)) is not None:
            entropy = rng.entropy_of(replaced)
            if entropy is not None:
                states.append((StateKind.ENTROPY, entropy.to_bytes(max(1, -(-entropy.bit_length() // 8)), "little")))
            else:
                self._say(
                    f"{type(self._base).__name__} replaces its random generator when it is reset without a seed, so "
                    "the state logged before such a reset does not restore it: seed the resets, or pass reseed=True"
                )
        if not looks:
            return states
        if self._globals is not None and not _same(self._globals, snapshot.global_states()):
            states += self._globals_noticed(by_seeding=seed is not None)
        elif seed is not None and not self._ignores_seeds and self._ignores(seed, now):
            self._ignores_seeds = True
            started = self._before_seeded or rng.when_made(now[0])
            if started is not None:
                states.append(started)
            self._say(
                f"{type(self._base).__name__} ignores the seed that reset is given: no generator of it was seeded; "
                "let its reset call super().reset(seed=seed), or seed it when it is made (seed=… among its arguments)"
            )
        return states

    def _replaced(self, now: list[Any]) -> Any:
        """Returns a generator that the reset put in another one's place, or made at its first use, or None."""
        for before, held in zip(self._before, now, strict=True):
            if held is None or held is before:
                continue
            if before is not None or (self._create and _from_entropy(held)):
                return held
        return None

    @contextlib.contextmanager
    def watch(self) -> Iterator[None]:
        """Notices draws from the global generators while a step is done."""
        before = snapshot.global_states()
        yield
        self._steps_watched += 1
        if not _same(before, snapshot.global_states()):
            self._noticed += self._globals_noticed(by_seeding=False)
            self.watching = False
        elif self._steps_watched >= _WATCHED_STEPS:
            self.watching = False

    def stop_watching(self) -> list[tuple[StateKind, bytes]]:
        """The first episode is over, or enough was seen; returns states from before its reset that are needed."""
        self.watching, self._globals = False, None
        noticed, self._noticed = self._noticed, []
        return noticed

    def _globals_noticed(self, *, by_seeding: bool) -> list[tuple[StateKind, bytes]]:
        if not by_seeding:  # it may have seeded them, and not drawn: the state is kept all the same
            self._say(
                f"{type(self._base).__name__} draws from the global random generators (random or numpy.random), so "
                "its episodes replay only if nobody else draws from these meanwhile: let it draw from self.np_random"
            )
        before = self._globals
        if self._family is not None or before is None:
            return []
        self._family = snapshot.GLOBALS
        return [(StateKind.SNAPSHOT, snapshot.kept(snapshot.GLOBALS, snapshot.packed_globals(before)))]

    def _ignores(self, seed: int, now: list[Any]) -> bool:
        """Whether a seeded reset left all generators unseeded."""
        if getattr(self._base, "_np_random_seed", None) == seed or all(held is None for held in now):
            return False
        return all(
            _unseeded(*each) for each in zip(self._before, self._increments, now, strict=True) if each[2] is not None
        )


def _unseeded(before: object, increment: int | None, now: object) -> bool:
    """Whether a generator is as it was but for draws, or was made from the operating system's entropy."""
    if now is before:
        return increment is not None and _increment(now) == increment
    return _from_entropy(now)


def _from_entropy(generator: object) -> bool:
    """Whether a generator was made from the operating system's entropy, not from a seed that somebody chose."""
    return (rng.entropy_of(generator) or 0).bit_length() > _SEED_BITS


def _increment(generator: object) -> int | None:
    """Returns what seeding changes in a PCG64 generator, and drawing doesn't; None for others."""
    state = rng.state_of(generator)
    found: int | None = state["state"].get("inc") if state and isinstance(state.get("state"), dict) else None
    return found


def _same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether the global generators' states are equal."""
    a, b = one["numpy"], other["numpy"]
    if one["random"] != other["random"] or a["bit_generator"] != b["bit_generator"] or a["has_gauss"] != b["has_gauss"]:
        return False
    return all(np.array_equal(words, b["state"][name]) for name, words in a["state"].items())


# ---- afterwards


def read(seed: int | None, states: Sequence[tuple[int, StateKind, bytes]]) -> tuple[Origin, ...]:
    """Returns what a reset can be started from, the best first; () if nothing was logged.

    Args:
        seed: what it was given.
        states: of the reset: step, kind, bytes.

    Raises:
        ValueError: a state is malformed.
    """
    if seed is None and len(states) == 1 and states[0][1] is StateKind.PCG64:  # nearly always; chains ask each time
        return (Origin("rng", rng=rng.decode(StateKind.PCG64, states[0][2])),)
    by_kind = {kind: data for step, kind, data in states if step == 0}
    own = next((rng.decode(kind, by_kind[kind]) for kind in _RNG_KINDS if kind in by_kind), None)
    nested: tuple[tuple[str, rng.State], ...] = ()
    if StateKind.NESTED in by_kind:
        try:
            nested = tuple((str(place), rng.checked(state)) for place, state in rng.unpack(by_kind[StateKind.NESTED]))
        except TypeError as error:
            raise ValueError(f"states of nested generators that are no pairs: {error}") from error
    found = []
    if StateKind.SNAPSHOT in by_kind:
        taken = by_kind[StateKind.SNAPSHOT]
        found.append(Origin("snapshot", seed=seed, rng=own, nested=nested, snapshot=taken))
    if seed is not None:
        found.append(Origin("seed", seed=seed, nested=nested))
    if StateKind.ENTROPY in by_kind:
        entropy = int.from_bytes(by_kind[StateKind.ENTROPY][:_MOST_ENTROPY], "little")
        found.append(Origin("entropy", seed=entropy, nested=nested))
    if own is not None or (nested and seed is None):  # beside a seed: the env ignores it, and is given it all the same
        found.append(Origin("rng", seed=seed, rng=own, nested=nested))
    return tuple(found)


def restore(env: Env, start: Origin, *, trust: bool) -> None:
    """Puts back what an origin holds, but for the seed, which the reset is given.

    Args:
        env: the env.
        start: the origin.
        trust: whether a snapshot that somebody else may have made goes to a simulator's own parser.

    Raises:
        UntrustedError: it would, and is not trusted.
        ValueError: a part of it has no place in this env.
    """
    if start.snapshot is not None:
        snapshot.restore(env, start.snapshot, trust=trust)
    for place, state in start.nested:
        held = hidden.get(env, place)
        changed = rng.put(held, state)
        if changed is not held and not hidden.put(env, place, changed):
            raise ValueError(f"the env has no generator at {place}, where the log has one's state")
    if start.rng is not None:
        rng.restore(env, start.rng)
