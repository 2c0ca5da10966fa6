"""The race: which candidates need no further fold, as pure functions over the table of finished
steps.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from orchestrator.search import published

Floats = NDArray[np.float64]
Draws = NDArray[np.float32]


@dataclass(frozen=True)
class Verdict:
    """Whether a candidate stops, against whom, and the probability that it would end up best."""

    stop: bool
    candidate: int
    against: int | None
    probability: float | None
    reason: str


class RaceTable:
    """Scores of finished steps, higher is better, candidates × k folds; NaN is not finished."""

    def __init__(self, k: int) -> None:
        self.k = k
        self._scores = np.full((64, k), np.nan)
        self._living = np.zeros(64, bool)
        self._draws: dict[tuple[int, int], Draws | Callable[[], Draws]] = {}
        self._size = 0
        self._known: dict[str, Any] = {}  # what follows from the scores, until they change

    @property
    def scores(self) -> Floats:
        """(candidates, k), a view."""
        return self._scores[: self._size]

    @property
    def living(self) -> NDArray[np.bool_]:
        """(candidates,): has a finished step and was not dropped."""
        return self._once(
            "living", lambda: self._living[: self._size] & ~np.isnan(self.scores).all(axis=1)
        )

    @property
    def expected(self) -> Floats:
        """(candidates,) `expected` of the scores."""
        return self._once("expected", lambda: expected(self.scores))

    def add(
        self, candidate: int, fold: int, score: float, draws: Draws | Callable[[], Draws]
    ) -> None:
        """Note a finished step; `draws`: its score with patients resampled, or what gives it."""
        self._grow(candidate)
        self._scores[candidate, fold] = score
        if self._living[candidate]:
            self._draws[candidate, fold] = draws

    def drop(self, candidate: int) -> None:
        """Take a candidate out of the race; its scores still say how hard the folds are."""
        self._grow(candidate)
        self._living[candidate] = False
        for fold in range(self.k):
            self._draws.pop((candidate, fold), None)

    def draws(self, candidate: int, fold: int) -> Draws:
        """The resampled scores of a finished step of a living candidate."""
        held = self._draws[candidate, fold]
        if callable(held):
            held = self._draws[candidate, fold] = held()
        return held

    def leader(self) -> int | None:
        """The living candidate with the highest expected final mean."""
        living = np.flatnonzero(self.living)
        return int(living[np.argmax(self.expected[living])]) if len(living) else None

    def _once(self, name: str, find: Callable[[], Any]) -> Any:
        if name not in self._known:
            self._known[name] = find()
        return self._known[name]

    def _grow(self, candidate: int) -> None:
        self._known = {}
        while candidate >= len(self._scores):
            self._scores = np.vstack([self._scores, np.full_like(self._scores, np.nan)])
            self._living = np.concatenate([self._living, np.zeros_like(self._living)])
        self._living[self._size : candidate + 1] = True
        self._size = max(self._size, candidate + 1)


def fold_effects(scores: Floats) -> Floats:
    """(k,) how much easier each fold is than fold 0 for the candidates that know both, centred on
    0 over the known folds; the mean of those where nobody knows both.
    """
    there = ~np.isnan(scores)
    both = there & there[:, :1]
    differences = np.where(both, scores - scores[:, :1], 0.0).sum(axis=0)
    effects = differences / np.maximum(both.sum(axis=0), 1)
    known = both.any(axis=0)
    centre = effects[known].mean() if known.any() else 0.0
    return np.where(known, effects - centre, 0.0)


def expected(scores: Floats) -> Floats:
    """(candidates,) final means over all k folds that are to be expected: finished folds as they
    are, the others as the candidate did so far, with the folds' effects. NaN without a fold.
    """
    there = ~np.isnan(scores)
    effects = fold_effects(scores)
    count = there.sum(axis=1)
    levels = np.where(there, scores - effects, 0.0).sum(axis=1)
    return np.where(count > 0, levels / np.maximum(count, 1), np.nan)


def estimate(table: RaceTable, candidate: int) -> float:
    """What the sampler is told of a candidate: its mean where it is through; else the incumbent's
    expected mean plus the mean difference to it on the folds that both have finished.
    """
    return float(estimates(table)[candidate])


def estimates(table: RaceTable) -> Floats:
    """(candidates,) `estimate` of each; NaN without a finished fold."""
    scores, values, leader = table.scores, table.expected, table.leader()
    if leader is None:
        return values
    shared = ~np.isnan(scores) & ~np.isnan(scores[leader])
    differences = np.where(shared, scores - scores[leader], 0.0).sum(axis=1)
    paired = values[leader] + differences / np.maximum(shared.sum(axis=1), 1)
    through = ~np.isnan(scores).any(axis=1)
    return np.where(shared.any(axis=1) & ~through, paired, values)


def verdicts(table: RaceTable, rule: str, bound: float) -> list[Verdict]:
    """Of each living candidate that is not through, in their order; the leader never stops."""
    leader = table.leader()
    if rule == "off" or leader is None:
        return []
    through = ~np.isnan(table.scores).any(axis=1)
    rivals = [int(c) for c in np.flatnonzero(table.living & ~through) if c != leader]
    if rule == "paired":
        return _paired(table, rivals, leader, bound)
    return _published(table, rivals, rule)


def verdict(table: RaceTable, candidate: int, rule: str, bound: float) -> Verdict:
    """Whether one candidate stops."""
    for each in verdicts(table, rule, bound):
        if each.candidate == candidate:
            return each
    return Verdict(False, candidate, table.leader(), None, "it leads, is through or is out")


def _published(table: RaceTable, rivals: list[int], rule: Any) -> list[Verdict]:
    best = published.incumbent(table.scores, table.living)
    if best is None:
        return []
    stops = published.stops(table.scores, best, rule)
    line = published.line_to_beat(table.scores, best, rule)
    reason = f"the mean so far is not above {line:.4f} of candidate {best}"
    return [
        Verdict(bool(stops[c]), c, best, None, reason if stops[c] else "the mean is above")
        for c in rivals
        if c != best
    ]


def _paired(table: RaceTable, rivals: list[int], leader: int, bound: float) -> list[Verdict]:
    scores, k = table.scores, table.k
    count = (~np.isnan(scores)).sum(axis=1)
    means = table.expected
    variance = _noise(scores)
    spread = np.sqrt(variance * (k - count) / (k * np.maximum(count, 1)))
    found = []
    for c in rivals:
        deviation = float(np.hypot(spread[c], spread[leader]))
        p = float(ndtr((means[c] - means[leader]) / max(deviation, 1e-12)))
        reason = f"ends best with probability {p:.3f}"
        found.append(Verdict(p < bound, c, leader, p, reason))
    return found


def _noise(scores: Floats) -> float:
    """Variance of what neither candidate nor fold explains, with a prior of 0.02² that weighs 4."""
    there = ~np.isnan(scores)
    residuals = scores - fold_effects(scores) - expected(scores)[:, None]
    freedom = float((there.sum(axis=1) - 1).clip(0).sum() - (scores.shape[1] - 1))
    squares = float(np.nansum(residuals**2))
    return (squares + 4 * 0.02**2) / (max(freedom, 0.0) + 4)
