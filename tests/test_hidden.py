"""Looking through an env: what is found where, and what a place of a log can lead to."""

from __future__ import annotations

import math
import types
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import odd_envs as odd
from reenact import hidden


class Rich(odd.Odd):
    """Holds generators in many places, and much that is none."""

    def __init__(self) -> None:
        super().__init__()
        shared = np.random.default_rng()
        self.helper = odd.Helper(shared)
        self.again = {"same": shared}
        self.deep: dict[str, Any] = {"a": [{"b": 3}, (odd.Helper(),)], "x.y": np.random.default_rng()}
        self.long = [np.random.default_rng() for _ in range(65)]
        self.inner = odd.Odd()
        self.module, self.kind, self.call = math, odd.Odd, np.random.default_rng().random
        self.me, self.proxy = self, Proxy()
        self.numpy = np.random


class Proxy:
    """Answers whatever attribute it is asked for, or raises."""

    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        """Raises what no `getattr` with a default swallows."""
        raise RuntimeError(name)


def test_generators_are_found_wherever_an_env_holds_them() -> None:
    """In attributes, dicts, lists, tuples, objects and nested envs; a shared one once, the nearest place first."""
    env = gym.wrappers.TimeLimit(odd.Noisy(Rich()), 5)
    assert hidden.generators(env, create=True) == [
        "odd_envs:Noisy|_rng", "|helper.rng", "|inner._np_random", "|deep.a.1.0.rng"
    ]  # fmt: skip


def test_nested_envs_get_a_generator_only_where_asked() -> None:
    """Without `create` an env that has no generator is left so, nested or not."""
    env = odd.InNested()
    assert hidden.generators(env, create=False) == []
    assert vars(env.inner).get("_np_random") is None
    assert hidden.own(env) is None
    assert hidden.generators(env, create=True) == ["|inner._np_random"]
    assert vars(env).get("_np_random") is None


def test_every_place_leads_back() -> None:
    """What was found at a place is what is got there, and another generator can be put there."""
    env = odd.Noisy(odd.Noisy(Rich()))
    found = hidden.find(env, create=True)
    assert len(found) == 5
    for place, value in found.items():
        assert hidden.get(env, place) is value
        other = np.random.default_rng()
        assert hidden.put(env, place, other)
        assert hidden.get(env, place) is other


def test_mujoco_data_is_found() -> None:
    """The data of a MuJoCo env lies at its place."""
    pytest.importorskip("mujoco")
    env = gym.make("Reacher-v5")
    assert hidden.find(env)["|data"] is env.unwrapped.data
    env.close()


def test_looking_is_bounded() -> None:
    """An env that holds a hundred thousand objects is looked through in part."""
    env = odd.Odd()
    env.tree = [[[odd.Helper() for _ in range(50)] for _ in range(50)] for _ in range(40)]
    assert len(hidden.find(env)) < 2000


HOSTILE = [
    "|module.pi", "|module.sin", "|kind.reset", "|kind.metadata", "|numpy.mtrand._rand", "|numpy.random", "|call", "|step",
    "|reset", "|me.step", "|me.me.reset", "|__class__", "|__dict__", "|helper.__class__", "|helper.__init__", "|deep", "|long.3",
    "|deep.a", "|deep.a.0", "|deep.new", "|inner", "|inner.step", "|inner.value", "|helper.rng.bit_generator", "|proxy.x",
    "|spec.id", "odd_envs:Noisy|env", "odd_envs:Noisy|scale", "nowhere:X|rng", "|", "", "|.", "|..", "|helper.", "|deep.a.-1",
    "|deep.a.9", "|deep.a.²", "|call.__self__", "|call.__self__.bit_generator", "|module.__dict__.pi",
]  # fmt: skip


@pytest.mark.parametrize("place", HOSTILE)
def test_a_place_leads_to_nothing_but_generators(place: str) -> None:
    """Whatever a log names, nothing but a generator is replaced: no method, no class, no module's content."""
    env = odd.Noisy(Rich())
    before = everything(env)
    assert not hidden.put(env, place, np.random.default_rng())
    assert everything(env) == before


@given(
    st.lists(st.sampled_from([*"|.:#", *vars(Rich()), *dir(odd.Odd), "0", "rng", "odd_envs:Noisy", "mtrand", "_rand"]))
)
def test_any_place_leads_nowhere_or_to_what_is_there(parts: list[str]) -> None:
    """No place raises; none gives a module's content, a class or a function's, or changes these."""
    env = odd.Noisy(Rich())
    place = "".join(parts)
    found = hidden.get(env, place)
    assert not isinstance(found, types.MethodType)
    held = dict(vars(odd.Odd)), dict(vars(math)), np.random.mtrand.__dict__["_rand"]
    hidden.put(env, place, np.random.default_rng())
    assert (dict(vars(odd.Odd)), dict(vars(math)), np.random.mtrand.__dict__["_rand"]) == held


def everything(env: gym.Env[Any, Any]) -> list[Any]:
    """What an env and its layers hold, and the classes and modules that it refers to."""
    layers = [dict(vars(layer)) for _, layer in hidden.layers(env)]
    base = env.unwrapped
    return [*layers, dict(base.deep), dict(vars(base.helper)), dict(vars(math)), dict(vars(odd.Odd)), dict(vars(base.inner)),
            dict(vars(np.random)), list(base.deep["a"])]  # fmt: skip
