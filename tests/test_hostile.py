"""Logs that a stranger made to do harm: each gets one clear line; none imports, runs or writes anything."""

from __future__ import annotations

import hmac
import importlib
import json
import os
import shutil
import subprocess
import sys
import warnings
import zlib
from pathlib import Path
from typing import Any

import gymnasium as gym
import h5py
import numpy as np
import pytest

import reenact
from reenact import jsontags, layout, recipe, rng, signing, snapshot, usercode
from reenact.errors import RecipeError, UntrustedError
from reenact.layout import StateKind
from reenact.rebuild import rebuild
from reenact.strangers import Permissions, refuse_names

SOURCE = Path(reenact.__file__).resolve().parents[1]
SPY = """
import sys
allowed = {"reenact", "gymnasium", "numpy", "pygame", "highway_env", "encodings", "ale_py"}
def spy(event, arguments):
    if event == "import" and spy.on:
        root = arguments[0].partition(".")[0]
        if root not in allowed | sys.stdlib_module_names or root in ("antigravity", "this", "turtledemo"):
            print("IMPORTED", arguments[0])
    elif event in ("os.system", "subprocess.Popen", "os.exec", "os.posix_spawn") and spy.on and arguments[0] != sys.executable:
        print("RAN", event, arguments[:1])
    elif event == "open" and spy.on and isinstance(arguments[0], str) and set(str(arguments[1])) & set("wax+"):
        if "reenact/.key" not in arguments[0]:  # our own, at first use
            print("WROTE", arguments[0])
import reenact, reenact.render, pickle, warnings
from reenact.cli import main
spy.on = True
sys.addaudithook(spy)
try:
    main()
finally:
    spy.on = False
"""


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two episodes of CartPole: one with a seed, one with an RNG state."""
    return record(tmp_path_factory.mktemp("recorded") / "cart")


@pytest.fixture
def run(recorded: Path, tmp_path: Path) -> Path:
    """A copy of them, to be damaged."""
    return Path(shutil.copytree(recorded, tmp_path / "runs" / "cart"))


def record(folder: Path, env: gym.Env[Any, Any] | None = None) -> Path:
    """Records two episodes of four steps."""
    recorder = reenact.Recorder(env or gym.make("CartPole-v1", max_episode_steps=4), run=folder)
    recorder.action_space.seed(0)
    for seed in (1, None):
        recorder.reset(seed=seed)
        for _ in range(4):
            recorder.step(recorder.action_space.sample())
    recorder.close()
    return folder


def forge(run: Path, *, signature: bytes | None = b"0" * 64, text: bytes | None = None, **changes: Any) -> Path:
    """Edits a closed segment's recipe as a stranger would."""
    with h5py.File(run / "segment-00000.h5", "r+", locking=False) as file:
        found = json.loads(file.attrs["recipe"])
        changed = text if text is not None else json.dumps({**found, **changes}).encode()
        for name, value in (("recipe", changed), ("signature", signature)):
            if value is not None:
                del file.attrs[name]
                file.attrs.create(name, value, dtype=h5py.string_dtype())
    return run


def add_state(run: Path, kind: int, data: bytes) -> Path:
    """Gives the last episode one more state, with every CRC right."""
    with h5py.File(run / "segment-00000.h5", "r+", locking=False) as file:
        heap, states, episodes = file["heap"], file["states"], file["episodes"]
        offset, row = len(heap), episodes[len(episodes) - 1]
        kept = states[int(row["first_state"]) : int(row["first_state"]) + int(row["n_states"])]
        kept = kept[kept["kind"] != kind]
        new = np.zeros(1, states.dtype)
        new[0]["kind"], new[0]["data"] = kind, (offset, len(data), zlib.crc32(data))
        heap.resize((offset + len(data),))
        heap[offset:] = np.frombuffer(data, np.uint8)
        new["crc"] = zlib.crc32(new[0].tobytes()[:-4])
        row["first_state"], row["n_states"] = len(states), len(kept) + 1
        states.resize((len(states) + len(kept) + 1,))
        states[-len(kept) - 1 :] = np.concatenate([kept, new])
        row["crc"] = zlib.crc32(row.tobytes()[:-4])
        episodes[len(episodes) - 1] = row
    return run


def spied(run: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Runs a command on a run in a process that prints what it imports, runs and writes."""
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    return subprocess.run(
        [sys.executable, "-c", SPY, *map(str, arguments or ("verify", run))],
        env=environment, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


def harmless(done: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    """A command said one line an episode, did nothing else, and ended with the code."""
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert all(word in done.stderr for word in words), done.stderr
    assert len(done.stderr.splitlines()) <= 4, done.stderr


def impossible(run: Path, *words: str, **options: Any) -> None:
    """The last episode is not replayed, and its result says why in one line."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = reenact.verify(run, **options)[-1]
    told = "; ".join(str(attempt.error) for attempt in result.tried) or str(result.error)
    assert result.verdict in ("impossible", "diverged") or any(attempt.error for attempt in result.tried), result
    assert all(word in told for word in words), told
    assert "\n" not in f"{result.error}{result.cause}"
    assert str(result.error).isprintable()


# ---- recipes


HOSTILE: dict[str, dict[str, Any]] = {
    "entry point": {"id": "Nowhere-v0", "entry_point": "os:system", "modules": ["antigravity"]},
    "found through": {"id": "Nowhere-v0", "entry_point": "gymnasium.envs.registration:importlib.import_module"},
    "main": {
        "id": "Nowhere-v0",
        "entry_point": "__main__:Env",
        "main": {"path": "SCRIPT", "module": None, "sha256": ""},
    },
    "worker's main": {"id": "Nowhere-v0", "entry_point": "__mp_main__:Env", "main": {"path": "SCRIPT", "module": "x"}},
    "wrapper": {"wrappers": [{"entry_point": "subprocess:Popen", "kwargs": {}}]},
    "wrapper in main": {"wrappers": [{"entry_point": "__main__:W", "kwargs": {}}], "main": {"path": "SCRIPT"}},
    "wrapper in a file": {"wrappers": [{"entry_point": "SCRIPT:W", "kwargs": {}}]},
    "file called gymnasium": {"wrappers": [{"entry_point": "gymnasium.py:W", "kwargs": {}}]},
    "factory": {"factory": "os:system"},
    "factory in a file": {"factory": "SCRIPT:make"},
    "factory in main": {"factory": "__main__:make", "main": {"path": "SCRIPT", "module": None, "sha256": ""}},
    "factory of gymnasium's": {"factory": "gymnasium.envs.registration:make"},
    "factory that is a wrapper": {"factory": "gymnasium.wrappers.common:TimeLimit"},
    "old gym 21": {"id": "GymV21Environment-v0", "kwargs": {"env_id": "antigravity:x"}},
    "old gym 26": {"id": "GymV26Environment-v0", "kwargs": {"env_id": "antigravity:x"}},
    "name in text": {"kwargs": {"config": {"vehicle": "os.system"}}},
    "name with blanks": {"kwargs": {"config": [" os.system\n"]}},
    "name in a tuple": {"kwargs": {"config": {"$tuple": ["subprocess:Popen"]}}},
    "name as a scalar": {"kwargs": {"config": json.loads(jsontags.dumps(np.str_("os.system")))}},
    "name in an array": {"kwargs": {"config": json.loads(jsontags.dumps(np.array(["antigravity.fly"])))}},
    "name as bytes": {"kwargs": {"config": json.loads(jsontags.dumps(b"os.system"))}},
    "callable": {"kwargs": {"config": {"$callable": "os:system"}}},
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_recipe_is_refused_before_any_import(
    run: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a stranger's recipe names, in whatever disguise, is not imported, loaded or called."""
    stranger = tmp_path / "theirs.py"
    stranger.write_text("open('ran', 'w')\nclass Env: pass\nclass W: pass\ndef make(**_): pass\n")
    (tmp_path / "gymnasium.py").write_text(stranger.read_text())
    monkeypatch.setattr(os, "system", pytest.fail)
    forge(run, text=None, **json.loads(json.dumps(HOSTILE[name]).replace("SCRIPT", str(stranger))))
    impossible(run, "not recorded by you", "--trust")
    assert not (tmp_path / "ran").exists()
    assert "antigravity" not in sys.modules


def test_a_hostile_log_costs_one_line_each(run: Path, tmp_path: Path) -> None:
    """The command prints a line an episode and ends with 1; nothing is imported, started or written."""
    (tmp_path / "theirs.py").write_text("open('ran', 'w')\n")
    main = {"path": str(tmp_path / "theirs.py"), "module": None, "sha256": ""}
    forge(
        run,
        id="A-v0\n\x1b[31m",
        entry_point="__main__:Env",
        modules=["antigravity\nx"],
        paths=[str(tmp_path)],
        main=main,
    )
    harmless(spied(run), 1, "not recorded by you", "0 of 2 episodes exact")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"kwargs": {"bogus": 1}},
        {"kwargs": {"sutton_barto_reward": {"$array": "AAAA", "dtype": "<i1", "shape": [3]}, "x": 1}},
        {"wrappers": [{"entry_point": "gymnasium.wrappers.common:TimeLimit", "kwargs": {"bogus": 1}}]},
        {"wrappers": [{"entry_point": "gymnasium.wrappers.common:TimeLimit", "kwargs": {"max_episode_steps": -1}}]},
        {"wrappers": [{"entry_point": "gymnasium.wrappers.transform_action:RescaleAction", "kwargs": {}}]},
        {"wrappers": [{"entry_point": "gymnasium.wrappers..common:TimeLimit", "kwargs": {}}]},
        {"wrappers": [{"entry_point": "gymnasium.wrappers.common\0:TimeLimit", "kwargs": {}}]},
        {"wrappers": [{"entry_point": "gymnasium.wrappers.common:__class__", "kwargs": {}}]},
        {"wrappers": [{"entry_point": "gymnasium.wrappers.common:TimeLimit.env", "kwargs": {}}]},
        {"wrappers": [{"entry_point": "gymnasium.core:Wrapper", "kwargs": {"env": 3}}]},
        {"wrappers": [{"entry_point": "gymnasium.wrappers.common:Autoreset", "kwargs": {}, "inner": True}]},
        {"kwargs": {"$callable": "numpy:add"}},
        {"main": [1, 2]},
        {"id": "CartPole-v999999999999"},
        {"id": "é" * 1000},
    ],
)  # fmt: skip
def test_arguments_that_fit_nothing_are_told_in_one_line(run: Path, changes: dict[str, Any]) -> None:
    """What a stranger's arguments make Gymnasium raise is no traceback, and nothing but a line."""
    forge(run, **changes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for result in reenact.verify(run):
            assert result.verdict == ("exact" if "main" in changes else "impossible")
            assert "\n" not in str(result.error)


@pytest.mark.parametrize(
    "text",
    [b"\xff\xfe", b"{}", b"[" * 60000, b"", b'{"id": "\\ud800"}', b'{"id": "\xff", "kwargs": {}, "wrappers": [], "modules": []}'],
    ids=["bytes", "empty object", "deep", "nothing", "surrogate", "id of bytes"],
)  # fmt: skip
def test_a_recipe_that_is_none_is_told_in_one_line(run: Path, text: bytes) -> None:
    """Text that no recorder wrote, and bytes that are no text, make the episodes impossible, or the segment damaged."""
    forge(run, text=text)
    try:
        results = reenact.verify(run)
    except reenact.DamagedError as error:
        assert "\n" not in str(error)  # noqa: PT017  # either outcome is right
    else:
        assert [result.verdict for result in results] == ["impossible", "impossible"]


@pytest.mark.parametrize("doubts", [{"a": 1}, 5, "abc", [5], ["two\nlines"], None])
def test_hostile_doubts_are_not_told(run: Path, doubts: Any) -> None:
    """What a stranger's recipe doubts is told only if it is one line of text."""
    forge(run, doubts=doubts, kwargs={"sutton_barto_reward": True})
    for result in reenact.verify(run):
        assert result.verdict == "diverged"
        assert "the recipe may not be right" not in str(result.cause)


@pytest.mark.parametrize("missing", ["entry_point", "factory", "doubts", "paths", "main"])
def test_parts_that_are_missing_do_no_harm(run: Path, missing: str) -> None:
    """A recipe without one of the parts that newer logs have is followed all the same."""
    with h5py.File(run / "segment-00000.h5", locking=False) as file:
        found = json.loads(file.attrs["recipe"])
    found.pop(missing, None)
    forge(run, text=json.dumps(found).encode())
    assert [result.verdict for result in reenact.verify(run)] == ["exact", "exact"]


def test_an_empty_key_is_made_anew(tmp_path: Path) -> None:
    """A key that a crash left empty signs nothing: a stranger could sign with it too."""
    key = tmp_path / "state" / "reenact" / "key"
    key.parent.mkdir(parents=True)
    key.touch()
    signing._key_in.cache_clear()  # noqa: SLF001  # another process, as it were
    assert not signing.is_mine("text", hmac.new(b"", b"text", "sha256").hexdigest())
    assert len(key.read_bytes()) == 32


# ---- permissions


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package that registers an env, and one beside it."""
    for name in ("theirpkg", "otherpkg"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "__init__.py").write_text(
            f"import gymnasium as gym\ngym.register('Theirs-{name}-v0', '{name}.env:Env', max_episode_steps=4)\n"
        )
        (folder / "env.py").write_text(
            "import gymnasium as gym\nfrom gymnasium.envs.classic_control import CartPoleEnv\n"
            "class Env(CartPoleEnv):\n    pass\nclass Half(gym.RewardWrapper):\n"
            "    def reward(self, reward):\n        return reward / 2\ndef function(x): return x\n"
        )
    monkeypatch.syspath_prepend(tmp_path)
    yield "theirpkg"  # type: ignore[misc]  # pytest's fixtures may
    for name in [name for name in sys.modules if name.partition(".")[0] in ("theirpkg", "otherpkg")]:
        del sys.modules[name]
    for name in [name for name in gym.registry if name.startswith("Theirs-")]:
        del gym.registry[name]


def theirs(**changes: Any) -> str:
    """A stranger's recipe."""
    raw = {"id": "Theirs-theirpkg-v0", "entry_point": "theirpkg.env:Env", "kwargs": {}, "modules": ["theirpkg"]}
    return json.dumps(raw | {"wrappers": [{"entry_point": "theirpkg.env:Half", "kwargs": {}}]} | changes)


def test_import_lets_in_one_package(package: str) -> None:
    """`--import PKG` lets a stranger's log have its env and its wrappers from there."""
    with pytest.raises(UntrustedError):
        rebuild(theirs(), mine=False, render_mode=None)
    assert package not in sys.modules
    env = rebuild(theirs(), mine=False, render_mode=None, permissions=Permissions(imports=(package,)))
    assert recipe.class_name(type(env)) == "theirpkg.env:Half"
    assert "otherpkg" not in sys.modules


@pytest.mark.parametrize(
    "changes",
    [
        {"factory": "theirpkg.env:Env"},
        {"wrappers": [{"entry_point": "theirpkg.env:function", "kwargs": {}}]},
        {"wrappers": [{"entry_point": "theirpkg.env:Env", "kwargs": {}}]},
        {"wrappers": [{"entry_point": "theirpkg.env:gym.Wrapper", "kwargs": {}}]},
        {"wrappers": [{"entry_point": "otherpkg.env:Half", "kwargs": {}}]},
        {"kwargs": {"x": {"$callable": "theirpkg.env:function"}}},
        {"kwargs": {"x": "theirpkg.env.function"}},
        {"id": "Theirs-otherpkg-v0", "modules": ["otherpkg"]},
        {"id": "Theirs-nowhere-v0", "entry_point": "theirpkg.env:Env"},
    ],
)
def test_import_lets_in_nothing_else(package: str, changes: dict[str, Any]) -> None:
    """No factory, function or other package comes with it, nor an env that it does not register."""
    with pytest.raises(UntrustedError):
        rebuild(theirs(**changes), mine=False, render_mode=None, permissions=Permissions(imports=(package,)))
    assert "otherpkg" not in sys.modules


def test_import_of_what_is_not_there_says_so() -> None:
    """A package that can't be imported is named, with the reason."""
    with pytest.raises(RecipeError, match="'no_such_package' can't be imported"):
        rebuild(theirs(), mine=False, render_mode=None, permissions=Permissions(imports=("no_such_package",)))


def test_trust_lists_what_it_runs(package: str) -> None:
    """`--trust` names all that it is about to run, then runs it."""
    text = theirs(
        wrappers=[{"entry_point": "otherpkg.env:Half", "kwargs": {}}],
        kwargs={"sutton_barto_reward": {"$callable": "otherpkg.env:function"}},
    )
    with pytest.warns(UserWarning, match="trusted, though not recorded by you") as caught:
        env = rebuild(text, mine=False, render_mode=None, permissions=Permissions(trust=True))
    for name in ("theirpkg.env:Env", "theirpkg", "otherpkg.env:Half", "otherpkg.env:function"):
        assert repr(name) in str(caught[0].message)
    assert recipe.class_name(type(env)) == "otherpkg.env:Half"
    assert package in sys.modules


def test_trust_names_the_script_and_the_factory(tmp_path: Path) -> None:
    """A trusted log's script is named by its path, and a factory alone where there is one."""
    path = tmp_path / "theirs.py"
    path.write_text("import gymnasium\ndef make(render_mode=None):\n    return gymnasium.make('CartPole-v1')\n")
    text = theirs(factory="__main__:make", main={"path": str(path), "module": None, "sha256": usercode.sha256(path)})
    with pytest.warns(UserWarning, match="trusted") as caught:
        rebuild(text, mine=False, render_mode=None, permissions=Permissions(trust=True)).close()
    assert str(caught[0].message).endswith(f"it runs '__main__:make', {str(path)!r}")


# ---- states


def nested(place: str, state: dict[str, Any] | None = None) -> bytes:
    """One generator's state at a place."""
    return rng.pack([[place, state or dict(np.random.PCG64(1).state)]])


BOMB = zlib.compress(bytes(1 << 26), 9)


def mine(family: bytes, packed: bytes) -> bytes:
    """A snapshot that this user's own signature lets through to the family's adapter."""
    return family + b"\0" + signing.sign(packed).encode() + packed


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        *((StateKind.NESTED, nested(place)) for place in (
            "|__class__._np_random", "|__dict__._np_random", "|spec.entry_point", "|__class__.__init__.__globals__.os", "",
            "|", "|.", "os:system|x", "gymnasium.wrappers.common:TimeLimit|__class__.step", "|action_space", "|nowhere.0.1",
            "|metadata.render_modes.0", "|" + "a." * 5000,
        )),
        (StateKind.NESTED, nested("|_np_random", {"bit_generator": "os"})),
        (StateKind.NESTED, nested("|_np_random", {"bit_generator": "MT19937", "state": {"key": np.zeros(9), "pos": 624}})),
        (StateKind.NESTED, nested("|_np_random", {"bit_generator": "MT19937", "state": {"key": np.zeros(624), "pos": 9999}})),
        *((StateKind.NESTED, data) for data in (b"", b"x", zlib.compress(b"7"), zlib.compress(b"[7]"), zlib.compress(b'[["a"]]'), zlib.compress(b"{}"), zlib.compress(b'[[1,2,3]]'), BOMB)),
        (StateKind.RNG_JSON, zlib.compress(b'{"bit_generator": 7}')), (StateKind.RNG_JSON, BOMB), (StateKind.RNG_JSON, b"\0"),
        (StateKind.RNG_JSON, zlib.compress(b"7")), (StateKind.PCG64, b"short"),
        (StateKind.SNAPSHOT, mine(b"globals", zlib.compress(b"7"))), (StateKind.SNAPSHOT, mine(b"globals", BOMB)),
        (StateKind.SNAPSHOT, mine(b"globals", zlib.compress(b'{"random": [3, [1], null], "numpy": {"bit_generator": "MT19937"}}'))),
        (StateKind.SNAPSHOT, mine(b"globals", zlib.compress(b'{"random": {"$tuple": [3, {"$tuple": [1]}, null]}, "numpy": {}}'))),
        (StateKind.SNAPSHOT, mine(b"ale", zlib.compress(bytes(14000)))), (StateKind.SNAPSHOT, mine(b"metaworld", zlib.compress(b"7"))),
        (StateKind.SNAPSHOT, mine(b"pickle", zlib.compress(b"cos\nsystem\n(S'x'\ntR."))), (StateKind.SNAPSHOT, b""),
        (StateKind.SNAPSHOT, b"\xff\n\x1b[31m\0x"), (StateKind.ENTROPY, b""), (StateKind.ENTROPY, b"\xff" * 5000),
    ],
    ids=lambda value: value.name if isinstance(value, StateKind) else "data",  # signatures differ from run to run
)  # fmt: skip
def test_a_hostile_state_is_told_in_one_line(run: Path, kind: StateKind, data: bytes) -> None:
    """A state that leads astray, does not fit, or would fill the memory changes nothing but its own episode's verdict."""
    add_state(forge(run), kind.value, data)
    before = np.random.get_state(legacy=False)  # noqa: NPY002  # the process's own
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        first, last = reenact.verify(run)
    assert first.verdict == "exact"
    assert "\n" not in f"{last.error}{last.cause}"
    assert f"{last.error}".isprintable()
    assert str(before) == str(np.random.get_state(legacy=False))  # noqa: NPY002  # as above
    assert gym.make("CartPole-v1").reset(seed=1)[1] == {}


# ---- what a log can put into a name, or a circle


@pytest.mark.parametrize(
    "prefix",
    ["../x", "a/b", "../", ".", "..", ".h", "", "/etc/x", "a\\b", "a\nb", "a\0b", "\x1b[2J", "\udcff", "a\u2028b"],
)
def test_a_name_that_leads_elsewhere_is_refused(run: Path, prefix: str) -> None:
    """A prefix of videos' names is a plain name: seen, in the folder, and in one line."""
    with pytest.raises(reenact.SelectionError, match="plain name") as caught:
        reenact.replay(run, [0], name_prefix=prefix)
    assert str(caught.value).isprintable()
    assert not (run / "videos").exists()


@pytest.mark.parametrize("name", ["../../escaped", ".hidden", "two\nlines"])
def test_a_packed_file_s_name_moves_no_video(run: Path, tmp_path: Path, name: str) -> None:
    """A stranger's packed file may call itself anything: videos are called so only where that is a plain name."""
    packed = reenact.pack(run, out=tmp_path / "in" / "a" / "pack.h5").path
    with h5py.File(packed, "r+", locking=False) as file:
        del file.attrs["name"]
        file.attrs.create("name", name, dtype=h5py.string_dtype())
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(reenact.VideoError, match="name_prefix"):
        reenact.replay(packed, 0)
    assert sorted(tmp_path.rglob("*")) == before
    assert reenact.replay(packed, 0, name_prefix="safe")[0].ok


def test_what_a_log_holds_moves_no_video(run: Path, tmp_path: Path) -> None:
    """Id, role and run of a stranger's log, full of paths, leave the video where it belongs, and write nothing else."""
    with h5py.File(run / "segment-00000.h5", "r+", locking=False) as file:
        for name in ("run", "env_id", "role"):
            del file.attrs[name]
            file.attrs.create(name, "../../../escaped\n", dtype=h5py.string_dtype())
        for at, row in enumerate(file["episodes"][:]):
            row["home"] = layout.home("../../../escaped\n", 0)
            row["crc"] = zlib.crc32(row.tobytes()[:-4])
            file["episodes"][at] = row
    (run / "run.json").unlink()
    forge(run)
    before = {path for path in tmp_path.rglob("*") if "state" not in path.parts}
    (result,) = reenact.replay(run, [0])
    assert result.verdict == "exact"
    new = {path for path in tmp_path.rglob("*") if "state" not in path.parts} - before
    assert new == {run / "videos", run / "videos" / "manifest.jsonl", run / "videos" / "cart-episode-0.mp4"}


@pytest.mark.parametrize("predecessors", [(0, 1), (1, 0), (5, -7), (1, 1), (2**62, -(2**62))])
def test_predecessors_in_a_circle_end(tmp_path: Path, predecessors: tuple[int, int]) -> None:
    """Segments that name each other, themselves or nothing as predecessors are read, and their chains end."""
    for _ in range(2):
        record(tmp_path / "run")
    for number, predecessor in enumerate(predecessors):
        with h5py.File(tmp_path / "run" / f"segment-0000{number}.h5", "r+", locking=False) as file:
            file.attrs["predecessor"] = predecessor
    run = reenact.open_run(tmp_path / "run")
    assert len(run) == 4
    assert {episode.lineage.resets for episode in run} <= {2, 4}
    for result in reenact.verify(run, origin="chain"):
        assert result.verdict in ("exact", "diverged", "impossible")


# ---- what only a signature keeps out


class Configured(gym.Env[Any, Any]):
    """Imports what its reset options name, as highway-env does."""

    observation_space = gym.spaces.Discrete(2)
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Imports."""
        super().reset(seed=seed)
        for name in (options or {}).values():
            importlib.import_module(str(name).rpartition(".")[0])
        return 0, {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:  # noqa: ARG002  # its API
        """Ends."""
        return 0, 1.0, True, False, {}


@pytest.mark.parametrize("named", ["hostile_module.X", "hostile_module.", "hostile_module.a-b", "/etc/passwd", "../x"])
def test_options_that_somebody_else_wrote_import_nothing(
    named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reset options are sealed one by one: ones put into a log that is otherwise mine are refused by name."""
    (tmp_path / "hostile_module.py").write_text("raise SystemExit('it ran')")
    monkeypatch.syspath_prepend(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        recorder = reenact.Recorder(Configured(), run=tmp_path / "run")
    recorder.reset(seed=1, options={"type": "json.X"})
    recorder.step(0)
    recorder.close()
    make: Any = lambda render_mode: Configured()  # noqa: ARG005, E731  # its API
    assert reenact.verify(tmp_path / "run", env=make)[0].verdict == "exact"  # my own options are mine
    with h5py.File(tmp_path / "run" / "segment-00000.h5", "r+", locking=False) as file:
        rows, heap = file["episodes"][:], file["heap"]
        details = json.loads(heap[int(rows[0]["details"]["offset"]) :][: int(rows[0]["details"]["length"])].tobytes())
        details["options"] = {"type": named}
        data = json.dumps(details).encode()
        rows[0]["details"] = (len(heap), len(data), zlib.crc32(data))
        heap.resize((len(heap) + len(data),))
        heap[-len(data) :] = np.frombuffer(data, np.uint8)
        rows[0]["crc"] = zlib.crc32(rows[0].tobytes()[:-4])
        file["episodes"][0] = rows[0]
    (result,) = reenact.verify(tmp_path / "run", env=make)
    assert result.verdict == "impossible"
    assert named in str(result.error)
    assert "--trust" in str(result.error)
    assert "hostile_module" not in sys.modules


@pytest.mark.parametrize(
    "text", ["evil_beside.", "evil_beside.a-b", " evil_beside:x ", "/proc/self/cwd/evil.cfg", "~/x", "..\\x"]
)
def test_text_that_names_code_or_files_is_refused(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever stands behind the dot: what comes before it is what an env would import."""
    (tmp_path / "evil_beside.py").write_text("raise SystemExit('it ran')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UntrustedError, match="--trust"):
        refuse_names({"config": [{"type": text}]})
    refuse_names({"map_name": "8x8", "version": 1.5, "text": "no name of anything", "file": "ant.xml"})


def test_an_emulator_state_of_a_stranger_is_not_parsed() -> None:
    """ALE's parser writes where the bytes say: only this user's own snapshots, or trusted ones, get to it."""
    ale_py = pytest.importorskip("ale_py")
    gym.register_envs(ale_py)
    env = gym.make("ALE/Pong-v5")
    family = snapshot.family_of(env)
    assert family is not None
    name, _, sealed = snapshot.capture(family, env).partition(b"\0")
    snapshot.restore(env, name + b"\0" + sealed, trust=False)
    forged = name + b"\0" + b"0" * 64 + sealed[64:]
    with pytest.raises(UntrustedError, match="not taken by you"):
        snapshot.restore(env, forged, trust=False)
    snapshot.restore(env, forged, trust=True)
    env.close()


def test_a_video_that_came_with_the_log_is_not_taken_for_one_s_own(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that says of itself that it is exact counts only with this user's seal; another's is left, and told."""
    (made,) = reenact.replay(run, [0])
    (again,) = reenact.replay(run, [0])
    assert (made.ok, again.ok, again.reused) == (True, True, True)
    monkeypatch.setenv("XDG_STATE_HOME", str(run.parent / "another-user"))
    (theirs,) = reenact.replay(run, [0])
    assert not theirs.reused
    assert "that you made" in str(theirs.error)
