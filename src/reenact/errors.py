"""Every error that reenact raises of its own accord.

    ReenactError
    ├── RunError
    │   ├── RunNotFoundError     (FileNotFoundError)  no run at that path
    │   ├── RunExistsError       (FileExistsError)    an earlier launch wrote it
    │   └── DamagedError         (ValueError)         the bytes are not what was committed
    ├── EpisodeNotFoundError     (IndexError)         no episode of that number or address
    ├── SelectionError           (ValueError)         a selection that can't be read
    ├── RecipeError              (RuntimeError)       the env can't be rebuilt
    │   └── UntrustedError       (PermissionError)    … because a stranger's log would run code
    ├── ReplayError              (RuntimeError)       the episode can't be re-executed
    └── VideoError               (RuntimeError)       the frames can't become a video
        ├── RenderError                               the env's `render()` raised
        └── VideoExistsError     (FileExistsError)    another file has its name

Each says what was expected, what was found, and what to do, in one line. Errors that the user's
own env raises are never wrapped, but for what it raises when it is drawn: that is a RenderError's
`__cause__`, with its traceback.
"""


class ReenactError(Exception):
    """The root of the tree: catch this for anything that reenact itself refuses."""


class RunError(ReenactError):
    """Something about a run or one of its segments."""


class RunNotFoundError(RunError, FileNotFoundError):
    """There is no run at the given path."""


class RunExistsError(RunError, FileExistsError):
    """The run was written by an earlier launch, and `resume=True` was not given."""


class DamagedError(RunError, ValueError):
    """A segment, or a part of it, does not hold what was committed to it."""


class EpisodeNotFoundError(ReenactError, IndexError):
    """The run has no episode of that number or address."""


class SelectionError(ReenactError, ValueError):
    """A selection of episodes can't be understood."""


class RecipeError(ReenactError, RuntimeError):
    """The env can't be rebuilt from its recipe."""


class UntrustedError(RecipeError, PermissionError):
    """Rebuilding the env would import code that a stranger's log names."""


class ReplayError(ReenactError, RuntimeError):
    """The episode can't be re-executed."""


class VideoError(ReenactError, RuntimeError):
    """The frames can't become a video."""


class RenderError(VideoError):
    """The env's `render()` raised: `__cause__` is what."""


class VideoExistsError(VideoError, FileExistsError):
    """Another file already has the video's name."""
