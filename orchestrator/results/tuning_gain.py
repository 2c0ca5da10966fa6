"""What a search gained over the candidate as it was written."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from orchestrator.results.summaries import labels_and_logits
from orchestrator.search.resampling import resampled_scores

if TYPE_CHECKING:
    from orchestrator.results.run import Run

_DRAWS = 2000


@dataclass(frozen=True)
class Gain:
    """The leader's mean of the objective over the folds, the reference's, and their difference with
    its 95 % interval, all such that higher is better.
    """

    leader: str
    reference: str
    leader_mean: float
    reference_mean: float
    low: float
    high: float

    @property
    def difference(self) -> float:
        return self.leader_mean - self.reference_mean


def tuning_gain(run: "Run") -> Gain | None:
    """The search's leader against candidate 0, on the folds that both have, with patients resampled
    within each fold, the same ones for both (percentiles of 2,000 draws).

    Repeats have the same patients and narrow nothing: the interval is the mean of theirs. It says
    what these trained models show on other patients like these. What other training images or seeds
    would do is not in it, nor that the leader was chosen by this very score. None where one of the
    two is not complete, or nothing beat the reference.
    """
    if run.searched is None or run.searched.standings.ahead in (None, 0):
        return None
    reference, leader = (run.searched.ids[n] for n in (0, run.searched.standings.ahead))
    models = run.models_summary.set_index("candidate")
    if models.loc[[reference, leader], "folds_missing"].any():
        return None
    shared = min(run.searched.folds.get(n, run.searched.standings.k) for n in (leader, reference))
    pairs = [_resampled(run, name, shared) for name in (leader, reference)]
    (high, high_draws), (low, low_draws) = pairs
    ends = np.percentile(high_draws - low_draws, [2.5, 97.5], axis=1).mean(axis=1)
    return Gain(leader, reference, high, low, float(ends[0]), float(ends[1]))


def _resampled(run: "Run", candidate: str, folds: int) -> tuple[float, NDArray[np.float64]]:
    """A candidate's mean over its first folds, and of each repeat the same of each draw, (repeats,
    draws).
    """
    assert run.searched is not None
    experiment = run.searched.experiment
    search = experiment.search
    assert search is not None
    predictions = run.predictions
    own = predictions[(predictions["candidate"] == candidate) & (predictions["split"] == "fold")]
    scores, draws = [], []
    for fold, part in own[own["fold"] < folds].groupby("fold"):
        labels, logits, groups = labels_and_logits(part, run.classes)
        score, drawn = resampled_scores(
            labels, logits, groups, search.objective, run.classes, draws=_DRAWS, seed=int(str(fold))
        )
        scores.append(score)
        draws.append(drawn.astype(np.float64))
    of_repeats = np.reshape(draws, (-1, experiment.folds.k, _DRAWS))
    return float(np.mean(scores)), of_repeats.mean(axis=1)
