"""A recorder for each sub-env of a vector env: what vector envs take, and send to their workers."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from multiprocessing.context import get_spawning_popen
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reenact import folder, process, recipe
from reenact.recorder import Recorder

if TYPE_CHECKING:
    from collections.abc import Callable
    from os import PathLike

    import gymnasium as gym

    AnyEnv = gym.Env[Any, Any]
    AnyWrapper = gym.Wrapper[Any, Any, Any, Any]


def recording(
    run: str | PathLike[str] | None = None, *, then: Callable[..., AnyWrapper] | None = None, **options: Any
) -> Callable[..., AnyWrapper]:
    """Returns a wrapper for the envs of a vector env, that records them all into one run, a segment each.

    It is for what takes a wrapper as a callable: `gymnasium.make_vec(…, wrappers=[reenact.recording("runs/x")])`,
    Stable-Baselines3's `make_vec_env(…, wrapper_class=…)`, or your own functions that make an env. It can be sent to
    workers, however they are started, and says there which launch they belong to.

    Args:
        run: the run's folder, from where you are now; None: `runs/<env id>-<date>-<time>`.
        then: what to wrap around the recorder, such as Stable-Baselines3's `AtariWrapper`; it is handed the keyword
            arguments that come with the env (`wrapper_kwargs`).
        options: as `Recorder` takes them.

    Raises:
        TypeError: `Recorder` takes no such option, or `then` can't be called.
    """
    known = inspect.signature(Recorder).parameters
    unknown = [name for name in options if name not in known or name == "env"]
    if unknown:
        raise TypeError(
            f"recording() takes run, then and the options of Recorder, got {', '.join(map(repr, unknown))}: "
            f"expected some of {', '.join(name for name in known if name not in ('env', 'run'))}"
        )
    if then is not None and not callable(then):
        raise TypeError(f"then must be a wrapper, to be put around the recorder, got {then!r}")
    fixed = None if run is None else Path(run).absolute()
    return _Recording(fixed, then, options, Path("runs").absolute(), process.this_launch().started_at())


@dataclass(frozen=True)
class _Recording:
    """Puts a recorder around an env.

    Attributes:
        run: the run's folder; None: one in `root`.
        then: what is put around the recorder.
        options: the recorder's.
        root: where runs without a name go.
        started: when the launch began, in seconds since 1970.
    """

    run: Path | None
    then: Callable[..., AnyWrapper] | None
    options: dict[str, Any] = field(hash=False)
    root: Path = field(repr=False)
    started: float = field(repr=False)

    def __call__(self, env: AnyEnv, **wrapper_kwargs: Any) -> AnyWrapper:
        if wrapper_kwargs and self.then is None:
            raise TypeError(
                f"recording() was called with {', '.join(wrapper_kwargs)} beside the env: give the recorder's options "
                "to recording(), and what takes those by then="
            )
        run = self.run
        if run is None:
            run = folder.default_run(recipe.env_id(env), process.this_launch(), self.root, self.started)
        recorder = Recorder(env, run, **self.options)
        return recorder if self.then is None else self.then(recorder, **wrapper_kwargs)

    def __reduce__(self) -> Any:
        """Takes along the launch as it is when a worker is started: in a notebook, the cell that starts it.

        Raises:
            RunExistsError: the worker that is being started could not record; from there, the message would come late.
            RunError: as above.
        """
        launch = process.this_launch()
        if self.run is not None and get_spawning_popen() is not None and not recipe.inert.get():
            folder.check_free(self.run, launch, resume=bool(self.options.get("resume")))
        return _unpacked, (launch, self.run, self.then, self.options, self.root, self.started)


def _unpacked(launch: process.Launch, *fields: Any) -> _Recording:
    process.belong_to(launch)
    return _Recording(*fields)
