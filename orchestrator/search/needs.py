"""What a search needs of others: a sampler, a journal, and who completes and scores candidates."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from orchestrator.search.halving import Trained
from orchestrator.search.standings import Row

#: Samplers whose suggestions depend on what they are told.
LEARNING = ("tpe", "gp", "cmaes")


class Suggests(Protocol):
    """What the search needs of a sampler."""

    @property
    def foresees(self) -> int:
        """How many suggestions it may make before they are wanted, since it learns nothing."""

    def suggest(self, number: int) -> tuple[int, dict[str, Any]] | None:
        """Space and raw values of a candidate; None where there is no other."""

    def recall(self, number: int, space: int, values: dict[str, Any]) -> None:
        """A suggestion that the journal holds."""

    def told(
        self, number: int, value: float | None, space: int | None, values: dict[str, Any]
    ) -> None:
        """A candidate's present value, higher is better, None: it has none; the last counts."""

    def knows(self, earlier: Sequence[tuple[int, dict[str, Any], float]], same_data: bool) -> None:
        """Space, values and worth of an earlier run's candidates, before anything is suggested;
        `same_data`: what they are worth can be compared with what is told of others.
        """


class Keeps(Protocol):
    """What the search needs of a journal."""

    @property
    def rows(self) -> Sequence[Row]:
        """All rows, in order."""

    def append(self, rows: Sequence[Row]) -> None:
        """Keep rows for good before returning."""


#: Score, higher is better, and the same with patients resampled, float32 of shape (draws,), of a
#: candidate's fold; the draws of a fold resample the same patients for every candidate.
Scores = Callable[[int, int], tuple[float, NDArray[np.float32]]]
#: How far the cells of a candidate's fold came, by seed.
Trains = Callable[[int, int], Sequence[Trained]]
#: Id of a suggestion and what is equal only for equal candidates; ExperimentError: refused.
Complete = Callable[[int, int, Mapping[str, Any]], tuple[str, Hashable]]
