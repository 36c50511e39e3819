"""A run's episodes as columns: NumPy arrays with one entry an episode, in the order of their numbers."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from reenact import layout
from reenact.layout import Kept
from reenact.logged import ENDED_NAMES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from reenact.numbering import Numbering

Array = np.ndarray[Any, Any]


class Columns:
    """The columns of a run."""

    _numbering: Numbering

    def _ordered(self, name: str) -> Array:
        return self._numbering.column(name)

    @property
    def returns(self) -> Array:
        """float64."""
        return self._ordered("return")

    @property
    def lengths(self) -> Array:
        """Env steps, int64."""
        return self._ordered("length").astype(np.int64)

    @property
    def elapsed(self) -> Array:
        """Seconds, float64."""
        return self._ordered("elapsed")

    @property
    def seeds(self) -> np.ma.MaskedArray[Any, Any]:
        """int64, masked where reset had none (or one beyond int64: see `Episode.seed`)."""
        seeds = self._ordered("seed")
        return np.ma.masked_array(seeds, mask=seeds == layout.NO_SEED)

    @property
    def ended(self) -> Array:
        """Text: terminated, truncated, interrupted or errored."""
        return self._ended(str)

    def _ended(self, dtype: type) -> Array:
        names: Array = np.array([ENDED_NAMES[value] for value in sorted(ENDED_NAMES)], dtype)
        found: Array = names[np.minimum(self._ordered("ended"), len(names) - 1)]
        return found

    @property
    def started(self) -> Array:
        """When reset returned, datetime64[ns], UTC."""
        ns = self._ordered("end_time") - np.rint(self.elapsed * 1e9).astype(np.int64)
        return ns.astype("datetime64[ns]")

    @property
    def first_steps(self) -> Array:
        """Env steps in the run before each episode, int64."""
        lengths = self.lengths
        return np.cumsum(lengths) - lengths

    @property
    def segment_numbers(self) -> Array:
        """The segment that holds each, int64."""
        return self._numbering.segments

    @property
    def segment_indices(self) -> Array:
        """Each one's index in its segment, int64."""
        return self._ordered("index")

    @property
    def lanes(self) -> Array:
        """The sub-env of a vector env that each is of, int64; -1: none."""
        return self._ordered("lane").astype(np.int64)

    @property
    def labels(self) -> Array:
        """What each was marked with, text; "" where it was not."""
        return self._numbering.labels

    @property
    def roles(self) -> Array:
        """What each is for, text: its segment's role."""
        named = [str(table.reader.attributes.get("role", "")) for table in self._numbering.tables]
        return self._numbering.by_segment(np.array(named, object))

    def table(self) -> Mapping[str, Array]:
        """Returns the columns that `where` conditions name, one entry an episode, each made when it is asked for."""
        return _Lazy(
            {
                "episode": lambda: np.arange(len(self)),
                "return": lambda: self.returns,
                "length": lambda: self.lengths,
                "elapsed": lambda: self.elapsed,
                "seed": lambda: self.seeds,
                "ended": lambda: self._ended(object),
                "segment": lambda: self.segment_numbers,
                "lane": lambda: self.lanes,
                "role": lambda: self.roles,
                "label": lambda: self.labels,
                "start": lambda: self.started,
                **{name: partial(self.info, name) for name in self.info_keywords},
            }
        )

    @property
    def segment_rows(self) -> Array:
        """Each one's row in its segment's table, int64; -1: it ran when the writer was killed, and has none."""
        return self._ordered("row")

    @property
    def kept(self) -> Array:
        """Whether each one's steps are there, bool: all are, but in a file packed with fewer, or repaired."""
        codes = self._numbering.kept
        found: Array = (codes == Kept.PICKED) | (codes == Kept.NEEDED)
        return found

    def usual(self, trigger: Callable[[int], bool] | None) -> Callable[[int], bool] | None:
        """Returns which episodes are meant where none is named: those that a file was packed for, else as given."""
        codes = self._numbering.kept
        if not np.isin(codes, (Kept.LEFT, Kept.NEEDED)).any():
            return trigger
        meant = set(np.flatnonzero(np.isin(codes, (Kept.PICKED, Kept.LOST))).tolist())
        return meant.__contains__

    @property
    def info_keywords(self) -> tuple[str, ...]:
        """The names that `info` knows; `run.is_success` is short for `run.info("is_success")`."""
        return self._numbering.info_keywords

    def info(self, name: str) -> Array:
        """Returns the value of an info keyword for each episode, float64; NaN where there is none.

        Raises:
            KeyError: it was not recorded.
        """
        return self._numbering.info(name)

    def __getattr__(self, name: str) -> Array:
        numbering = self.__dict__.get("_numbering")
        keywords = () if numbering is None else numbering.info_keywords
        if name in keywords:
            return self.info(name)
        raise AttributeError(f"a run has no {name!r}; its info keywords are {sorted(keywords) or 'none'}")

    def __len__(self) -> int:
        return len(self._numbering.order)


class _Lazy(Mapping[str, Array]):
    """Columns by name: few of those of a long run are asked for."""

    def __init__(self, makers: dict[str, Callable[[], Array]]) -> None:
        self._makers = makers

    def __getitem__(self, name: str) -> Array:
        return self._makers[name]()

    def __iter__(self) -> Iterator[str]:
        return iter(self._makers)

    def __len__(self) -> int:
        return len(self._makers)
