"""Workers and what they say: whatever happens to one, each call comes to an end, and that is its own."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

import reenact

SOURCE = Path(reenact.__file__).resolve().parents[1]
PATH = os.pathsep.join((str(SOURCE), str(Path(__file__).parent)))


def output_of(code: str, **environment: str) -> list[str]:
    """What a program of its own prints, a word each."""
    ended = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": PATH, **environment},
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.split("\n")[:-1]


@pytest.mark.parametrize(
    "elsewhere",
    [
        "signal.signal(signal.SIGCHLD, signal.SIG_IGN)",
        "os.waitid = lambda *_: os.waitpid(-1, 0) and raise_()",
    ],
)
def test_a_death_is_heard_of_where_children_are_reaped_elsewhere(elsewhere: str) -> None:
    """Where SIGCHLD is ignored, or something else has waited for the worker, its call fails, and the next is done."""
    said = output_of(
        "import os, signal\n"
        "from reenact.workers import Workers\n"
        "def raise_(): raise ChildProcessError\n"
        f"{elsewhere}\n"
        "with Workers(1, print) as workers:\n"
        "    calls = [workers.submit(os.getpid), workers.submit(os._exit, 3), workers.submit(os.getpid)]\n"
        "    assert calls[0].result(60) != os.getpid()\n"
        "    print(type(calls[1].exception(60)).__name__, calls[1].exception())\n"
        "    assert calls[2].result(60) != calls[0].result()\n"
    )
    assert said == [
        "WorkerDiedError it ended, and how was told to something else that waits for this process's children"
    ]


def test_a_worker_that_can_not_be_told_how_to_begin_fails_its_call() -> None:
    """Where something in `sys.argv` can't be passed on, each call fails with that; nobody waits, and none is left."""
    said = output_of(
        "import os, sys\n"
        "from reenact.workers import Workers\n"
        "sys.argv.append(lambda: 0)\n"
        "with Workers(2, print) as workers:\n"
        "    calls = [workers.submit(os.getpid) for _ in range(3)]\n"
        "    print(*('pickle' in str(call.exception(60)) for call in calls))\n"
        "print(*open('/proc/self/task/%d/children' % os.getpid()).read().split())\n"
    )
    assert said == ["True True True", ""]


def test_a_worker_does_what_waits_for_its_end(tmp_path: Path) -> None:
    """At its end its threads have ended, what `atexit` has is called, and what was printed has come."""
    code = (
        "import atexit, pathlib, sys, threading, time\n"
        "def later():\n"
        "    time.sleep(0.3)\n"
        "    pathlib.Path(folder, 'thread').touch()\n"
        "threading.Thread(target=later).start()\n"
        "atexit.register(pathlib.Path(folder, 'atexit').touch)\n"
        "sys.stdout = open(folder + '/printed', 'w')\n"
        "print('half a line', end='')\n"
    )
    said = output_of(
        "import os\n"
        "from reenact.workers import Workers\n"
        "with Workers(1, print) as workers:\n"
        f"    workers.submit(exec, {code!r}, {{'folder': {str(tmp_path)!r}}}).result(60)\n"
        f"print(*sorted(os.listdir({str(tmp_path)!r})))\n"
    )
    assert said == ["atexit printed thread"]
    assert (tmp_path / "printed").read_text() == "half a line"


def test_a_warning_in_the_middle_of_a_word_comes_after_it() -> None:
    """Where writing a word gives a warning, in the same thread, both are said, one whole after the other."""
    said = output_of(
        "import io, pickle, threading, warnings\n"
        "from reenact.worker import _Voice, _take_over\n"
        "from reenact.orders import Setup\n"
        "class Pipe(io.BytesIO):\n"
        "    def write(self, part):\n"
        "        half = len(part) // 2\n"
        "        super().write(part[:half])\n"
        "        warnings.warn('as a collected object gives one', UserWarning)\n"
        "        return half + super().write(part[half:])\n"
        "    def flush(self):\n"
        "        warnings.warn('another', UserWarning)\n"
        "pipe = Pipe()\n"
        "voice = _Voice(pipe)\n"
        "_take_over(Setup(1, (), ()), voice)\n"
        "speaking = threading.Thread(target=voice.say, args=(1,), daemon=True)\n"
        "speaking.start()\n"
        "speaking.join(10)\n"
        "assert not speaking.is_alive()\n"
        "pipe.seek(0)\n"
        "for _ in range(3):\n"
        "    word = pickle.loads(pickle.load(pipe))\n"
        "    print(getattr(word, 'text', word))\n"
    )
    assert said == ["1", "as a collected object gives one", "another"]


def test_no_call_is_given_the_answer_of_another(tmp_path: Path) -> None:
    """Where something that is said of a call can't be read here, that call fails, and the next has its own answer."""
    (tmp_path / "there.py").write_text(
        "import os\n"
        "from reenact.work import listening\n"
        "class Word:\n"
        "    def __reduce__(self): return int, ('no number',)\n"
        "def talk(): listening.get()(Word()); return 'an answer'\n"
    )
    said = output_of(
        "import os, sys\n"
        f"sys.path.insert(0, {str(tmp_path)!r})\n"
        "import there\n"
        "from reenact.workers import Workers\n"
        "with Workers(1, print) as workers:\n"
        "    calls = [workers.submit(there.talk), workers.submit(divmod, 7, 2), workers.submit(divmod, 9, 2)]\n"
        "    print(type(calls[0].exception(60)).__name__)\n"
        "    print(*(call.result(60) for call in calls[1:]))\n"
    )
    assert said == ["ValueError", "(3, 1) (4, 1)"]


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="that C library has no such settings")
@pytest.mark.parametrize(("own", "kept"), [("", True), ("glibc.malloc.trim_threshold=0", False)])
def test_a_worker_keeps_what_is_freed(tmp_path: Path, own: str, *, kept: bool) -> None:
    """What a frame frees is not given back to the system, to be asked for at the next, unless the user says so."""
    (tmp_path / "there.py").write_text(
        "import resource\n"
        "import numpy as np\n"
        "def draw(frames):\n"
        "    for _ in range(frames): [np.ones(720_000, np.uint8) for _ in range(3)]\n"
        "    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
    )
    said = output_of(
        "import sys\n"
        f"sys.path.insert(0, {str(tmp_path)!r})\n"
        "import there\n"
        "from reenact.workers import Workers\n"
        "with Workers(1, print) as workers:\n"
        "    before, after = [workers.submit(there.draw, frames).result(60) for frames in (20, 100)]\n"
        "    print(after - before)\n",
        GLIBC_TUNABLES=own,
    )
    assert (int(said[0]) < 1000) is kept  # of 53,000 pages drawn into
