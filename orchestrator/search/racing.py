"""The race: which candidates need no further fold, as pure functions over the table of finished
steps.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from orchestrator.search import published
from orchestrator.search.outlook import Outlook, best_probabilities, outlook

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
T = TypeVar("T")


@dataclass(frozen=True)
class Verdict:
    """Whether a candidate stops, against whom, and the probability that it would end up best;
    None where the rule knows none.
    """

    stop: bool
    candidate: int
    against: int
    probability: float | None
    reason: str


class RaceTable:
    """Finished steps, candidates × k folds: scores, higher is better, and their paired noise."""

    def __init__(self, k: int) -> None:
        self.k = k
        self._scores, self._noise = np.full((64, k), np.nan), np.full((64, k), np.nan)
        self._out = np.zeros(64, bool)
        self._size = 0
        self._known: dict[Any, Any] = {}  # what follows from the table, until it changes

    @property
    def scores(self) -> Floats:
        """(candidates, k), NaN is not finished; a view."""
        return self._scores[: self._size]

    @property
    def noise(self) -> Floats:
        """(candidates, k): what `paired_noise` gave, NaN where it is not known; a view."""
        return self._noise[: self._size]

    @property
    def out(self) -> Flags:
        """(candidates,): dropped, stopped or lost; a view."""
        return self._out[: self._size]

    @property
    def living(self) -> Flags:
        """(candidates,): has a finished step and was not dropped."""
        return self._once(_living)

    @property
    def raced(self) -> Flags:
        """(candidates,): living, or stopped by a verdict on the outcomes that there are now."""
        return self._once(_raced)

    @property
    def through(self) -> Flags:
        """(candidates,): all folds are finished."""
        return self._once(_through)

    @property
    def outlook(self) -> Outlook:
        """What is to be expected of the final means."""
        return self._once(_outlook)

    def add(self, candidate: int, fold: int, score: float, noise: float | None = None) -> None:
        """Note a finished step, and its `paired_noise` where another candidate had the fold."""
        self._grow(candidate)
        self._scores[candidate, fold] = score
        self._noise[candidate, fold] = np.nan if noise is None else noise

    def drop(self, candidate: int) -> None:
        """Take a candidate out of the race; its scores still say how hard the folds are."""
        held = self._known.get(_outlook)
        self._grow(candidate)
        self._out[candidate] = True
        if held is not None and len(held.means) == self._size:
            self._known[_outlook] = held

    def stop(self, candidate: int) -> None:
        """Drop a candidate by a verdict; for other verdicts on the same outcomes it still raced."""
        raced = self.raced
        self.drop(candidate)
        self._known[_raced] = raced

    @property
    def leader(self) -> int | None:
        """The living candidate with the highest expected final mean."""
        return self._once(_leader)

    def rival(self, candidate: int, fold: int) -> int | None:
        """Whom a step is paired with: the best living one that has finished the fold."""
        there = self.living & ~np.isnan(self.scores[:, fold])
        there[candidate : candidate + 1] = False
        others = np.flatnonzero(there)
        return int(others[np.argmax(self.outlook.means[others])]) if len(others) else None

    def _once(self, find: Callable[["RaceTable"], T]) -> T:
        if find not in self._known:
            self._known[find] = find(self)
        found: T = self._known[find]
        return found

    def _grow(self, candidate: int) -> None:
        self._known = {}
        while candidate >= len(self._out):
            self._scores, self._noise = (
                np.vstack([held, np.full_like(held, np.nan)])
                for held in (self._scores, self._noise)
            )
            self._out = np.concatenate([self._out, np.zeros_like(self._out)])
        self._size = max(self._size, candidate + 1)


def _living(table: RaceTable) -> Flags:
    return np.asarray(~table.out & ~np.isnan(table.scores).all(axis=1))


def _raced(table: RaceTable) -> Flags:
    return table.living


def _through(table: RaceTable) -> Flags:
    return np.asarray(~np.isnan(table.scores).any(axis=1))


def _outlook(table: RaceTable) -> Outlook:
    return outlook(table.scores, table.noise)


def _leader(table: RaceTable) -> int | None:
    living = np.flatnonzero(table.living)
    return int(living[np.argmax(table.outlook.means[living])]) if len(living) else None


def estimate(table: RaceTable, candidate: int) -> float:
    """What the sampler is told of a candidate: its mean where it is through; else the incumbent's
    expected mean plus the mean difference to it on the folds that both have finished.
    """
    return float(estimates(table)[candidate])


def estimates(table: RaceTable) -> Floats:
    """(candidates,): `estimate` of each; NaN without a finished fold."""
    scores, values, leader = table.scores, table.outlook.means, table.leader
    if leader is None:
        return values
    shared = ~np.isnan(scores) & ~np.isnan(scores[leader])
    differences = np.where(shared, scores - scores[leader], 0.0).sum(axis=1)
    paired = values[leader] + differences / np.maximum(shared.sum(axis=1), 1)
    return np.where(shared.any(axis=1) & ~table.through, paired, values)


def verdicts(table: RaceTable, rule: str, bound: float) -> list[Verdict]:
    """Of those that stop, in order: never the leader, nor who is through."""
    return _judged(table, rule, bound, None)


def verdict(table: RaceTable, candidate: int, rule: str, bound: float) -> Verdict | None:
    """Of one candidate; None where the rule has none: it leads, is through or is out, or nobody is
    there to be compared with.
    """
    return next(iter(_judged(table, rule, bound, candidate)), None)


def _judged(table: RaceTable, rule: str, bound: float, only: int | None) -> list[Verdict]:
    best = table.leader if rule == "paired" else published.incumbent(table.scores, table.living)
    rivals = table.living & ~table.through
    if rule == "off" or best is None:
        return []
    rivals[best] = False
    if not rivals.any():
        return []
    judge = _paired if rule == "paired" else _published
    stops, probability, said = judge(table, best, rule, bound)
    chosen = np.flatnonzero(rivals & stops) if only is None else [only] if rivals[only] else []
    found = []
    for c in map(int, chosen):
        p = None if probability is None else float(probability[c])
        found.append(Verdict(bool(stops[c]), c, best, p, said(c)))
    return found


#: Who stops, the probabilities to end up best where the rule knows them, and the reason of each.
Judged = tuple[Flags, Floats | None, Callable[[int], str]]


def _paired(table: RaceTable, leader: int, _: str, bound: float) -> Judged:
    """Stops who is less than `bound` times as likely to end up best as the leader.

    The probabilities of all that a search stopped add up to the one with which it lost the best.
    """
    means, deviations = table.outlook.means, table.outlook.deviations
    raced = np.flatnonzero(table.raced)
    probability = np.zeros(len(means))
    probability[raced] = best_probabilities(means[raced], deviations[raced])
    of_leader = probability[leader]
    return (
        np.asarray(probability < bound * of_leader),
        probability,
        lambda c: (
            f"ends best of {len(raced)} with probability {probability[c]:.2g}, candidate {leader} "
            f"with {of_leader:.2g}"
        ),
    )


def _published(table: RaceTable, best: int, rule: Any, _: float) -> Judged:
    stops = published.stops(table.scores, best, rule)
    line = published.line_to_beat(table.scores, best, rule)
    what = "mean" if rule == "aggressive" else "worst fold"
    return (
        stops,
        None,
        lambda c: (
            f"the mean so far is {'not ' if stops[c] else ''}above {line:.4g}, the {what} of "
            f"candidate {best}"
        ),
    )
