"""The two rules of Bergman, Purucker & Hutter, "Don't Waste Your Time: Early Stopping
Cross-Validation", AutoML 2024, as baselines.

The incumbent is the candidate with the best mean among those that finished all folds; without one
nobody stops. A challenger stops when the mean of its folds so far is not above the incumbent's
mean (aggressive), or not above the incumbent's worst fold (forgiving). The folds need not be the
same, and nothing is said of chance. (In their code the worst fold of whoever finished last counts,
since an incumbent is replaced as soon as a mean is above its worst fold; here the paper's text
holds.)
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Rule = Literal["forgiving", "aggressive"]


def incumbent(scores: NDArray[np.float64], living: NDArray[np.bool_]) -> int | None:
    """The living candidate with the best mean over all folds; None: nobody has finished all."""
    through = np.flatnonzero(living & ~np.isnan(scores).any(axis=1))
    return int(through[np.argmax(scores[through].mean(axis=1))]) if len(through) else None


def line_to_beat(scores: NDArray[np.float64], best: int, rule: Rule) -> float:
    """What a challenger's mean must be above."""
    return float(scores[best].mean() if rule == "aggressive" else scores[best].min())


def stops(scores: NDArray[np.float64], best: int, rule: Rule) -> NDArray[np.bool_]:
    """(candidates,): whether each would stop, for scores of shape (candidates, k), NaN where a
    fold is not finished, and at least one fold each.
    """
    there = ~np.isnan(scores)
    means = np.where(there, scores, 0.0).sum(axis=1) / np.maximum(there.sum(axis=1), 1)
    below = means <= line_to_beat(scores, best, rule)
    return np.asarray(below & there.any(axis=1) & ~there.all(axis=1))
