"""How sure a fold's score is: the same fold with its patients drawn again and again, as plain
arrays.

The clustered bootstrap: groups are drawn with replacement, and an image counts as often as its
group was drawn. Draws with equal labels, groups and seed draw the same groups, so differences
between candidates are of the same patients.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainables.training.metrics import log_odds

Floats = NDArray[np.float64]
Labels = NDArray[np.integer[Any]]

LOSSES = frozenset({"brier", "log_loss"})  # lower is better
_ELEMENTS = 4_000_000  # draws × images that are weighed at once
_ROUNDS = 20  # of drawing again what lacks a class


def resampled_scores(
    labels: Labels,
    logits: NDArray[np.floating[Any]],
    groups: Sequence[Any] | NDArray[Any],
    objective: str,
    classes: Sequence[str],
    draws: int = 400,
    seed: int = 0,
) -> tuple[float, NDArray[np.float32]]:
    """The score of a fold and of as many resampled ones, (draws,); higher is better, losses come
    negated.

    `labels`: class indices (n,). `logits`: (seeds, n, classes); scores are means over seeds.
    `groups`: (n,). `objective`: a headline metric, whose value on all images is that of
    `metrics.score`. Every draw has all classes that the fold has; NaN where the fold defines no
    score, as the AUC of a class that it lacks, or where logits are not finite.
    """
    labels = np.asarray(labels)
    if len(labels) == 0 or not np.isfinite(logits).all():
        return float("nan"), np.full(draws, np.nan, np.float32)
    group = np.unique(np.asarray(groups), return_inverse=True)[1].astype(np.int64)
    counts = _drawn(labels.astype(np.int64).tobytes(), group.tobytes(), draws, seed)
    whole = np.ones((1, counts.shape[1]), np.int64)
    measures = [_measure(objective, labels, each, len(classes)) for each in logits]
    parts = []
    step = max(1, _ELEMENTS // len(labels))
    for some in (whole, *(counts[at : at + step] for at in range(0, draws, step))):
        weights = some[:, group].astype(np.float64)
        parts.append(np.mean([measure(weights) for measure in measures], axis=0))
    (score,), *resampled = parts
    sign = -1.0 if objective in LOSSES else 1.0
    return sign * float(score), (sign * np.concatenate(resampled)).astype(np.float32)


# --- groups ---------------------------------------------------------------------------------------


@lru_cache(maxsize=64)
def _drawn(labels: bytes, group: bytes, draws: int, seed: int) -> NDArray[np.int64]:
    """How often each group is drawn, (draws, groups): as many as there are, so that every class is
    there. A fold whose classes hang on too few groups for that keeps itself as it is.

    `labels`, `group`: int64 of every image, as bytes, so that a fold's draws are made once.
    """
    label, place = np.frombuffer(labels, np.int64), np.frombuffer(group, np.int64)
    number = int(place.max()) + 1
    holds = np.zeros((number, int(label.max()) + 1), np.int64)  # groups × classes
    np.add.at(holds, (place, label), 1)
    present = holds.sum(axis=0) > 0
    rng = np.random.default_rng(seed)
    found = np.ones((draws, number), np.int64)
    missing = np.arange(draws)
    for _ in range(_ROUNDS):
        found[missing] = rng.multinomial(number, np.full(number, 1 / number), len(missing))
        missing = missing[~((found[missing] @ holds)[:, present] > 0).all(axis=1)]
        if len(missing) == 0:
            break
    found[missing] = 1
    return found


# --- weighted metrics -----------------------------------------------------------------------------


def _measure(
    objective: str, labels: Labels, logits: NDArray[np.floating[Any]], n_classes: int
) -> Callable[[Floats], Floats]:
    """From weights of the images, (m, n), to the metric under each row of them, (m,)."""
    logits = logits.astype(np.float64)
    truth = np.eye(n_classes)[labels]
    if objective == "log_loss":
        own = log_odds(logits)[np.arange(len(labels)), labels]
        return lambda weights: _average(weights, np.logaddexp(0, -own))
    if objective in ("auc", "average_precision"):
        ranked = _auc if objective == "auc" else _average_precision
        sides = [_Side(truth[:, c], odds) for c, odds in enumerate(log_odds(logits).T)]
        if objective == "auc" and n_classes == 2:
            sides = sides[:1]  # the other is its mirror image
        return lambda weights: np.mean([ranked(*side.sums(weights)) for side in sides], axis=0)
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities = shifted / shifted.sum(axis=1, keepdims=True)
    if objective == "brier":
        distances = np.sum((probabilities - truth) ** 2, axis=1) / 2
        return lambda weights: _average(weights, distances)
    places = labels * n_classes + probabilities.argmax(axis=1)
    cells = np.eye(n_classes**2)[places]
    of_confusion = _OF_CONFUSION[objective]
    return lambda weights: of_confusion((weights @ cells).reshape(-1, n_classes, n_classes))


def _average(weights: Floats, values: Floats) -> Floats:
    return np.asarray(weights @ values / weights.sum(axis=1))


class _Side:
    """One class against the rest, in falling order of what ranks it; equals stand together."""

    def __init__(self, truth: Floats, ranks: Floats) -> None:
        self._order = np.argsort(-ranks, kind="stable")
        ordered = ranks[self._order]
        self._truth = truth[self._order]
        self._starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])

    def sums(self, weights: Floats) -> tuple[Floats, Floats]:
        """Weight of the class and of the rest at each rank, (m, ranks)."""
        ordered = weights[:, self._order]
        positive = ordered * self._truth
        negative = ordered - positive
        if len(self._starts) == len(self._order):
            return positive, negative
        return (
            np.add.reduceat(positive, self._starts, axis=1),
            np.add.reduceat(negative, self._starts, axis=1),
        )


def _auc(positive: Floats, negative: Floats) -> Floats:
    """The share of pairs of the class and the rest in right order, equals counting half."""
    above = np.cumsum(positive, axis=1) - positive / 2
    with np.errstate(invalid="ignore"):
        return np.asarray(
            (above * negative).sum(axis=1) / (positive.sum(axis=1) * negative.sum(axis=1))
        )


def _average_precision(positive: Floats, negative: Floats) -> Floats:
    hits = np.cumsum(positive, axis=1)
    found = np.cumsum(positive + negative, axis=1)
    total = hits[:, -1]
    both = (total > 0) & (total < found[:, -1])
    with np.errstate(invalid="ignore"):
        precision = np.where(found > 0, hits / found, 0.0)
        return np.where(both, (precision * positive).sum(axis=1) / total, np.nan)


def _per_class(confusion: Floats) -> tuple[Floats, Floats, Floats]:
    """Hits, truth and predictions of each class, (m, c); rows of `confusion` are the truth."""
    return np.diagonal(confusion, axis1=1, axis2=2), confusion.sum(axis=2), confusion.sum(axis=1)


def _accuracy(confusion: Floats) -> Floats:
    hits, of_class, _ = _per_class(confusion)
    return np.asarray(hits.sum(axis=1) / of_class.sum(axis=1))


def _recall(confusion: Floats) -> Floats:
    hits, of_class, _ = _per_class(confusion)
    with np.errstate(invalid="ignore"):
        return np.asarray((hits / of_class).mean(axis=1))


def _precision(confusion: Floats) -> Floats:
    hits, of_class, as_class = _per_class(confusion)
    with np.errstate(invalid="ignore"):
        values = np.where((as_class == 0) & (of_class > 0), 0.0, hits / as_class)
    return np.asarray(values.mean(axis=1))


def _f1(confusion: Floats) -> Floats:
    hits, of_class, as_class = _per_class(confusion)
    with np.errstate(invalid="ignore"):
        values = np.where(of_class > 0, 2 * hits / (of_class + as_class), np.nan)
    return np.asarray(values.mean(axis=1))


def _specificity(confusion: Floats) -> Floats:
    hits, of_class, as_class = _per_class(confusion)
    total = of_class.sum(axis=1, keepdims=True)
    with np.errstate(invalid="ignore"):
        values = (total - of_class - as_class + hits) / (total - of_class)
    return np.asarray(values.mean(axis=1))


def _mcc(confusion: Floats) -> Floats:
    """Gorodkin's correlation; 0 where all predictions, or all labels, are the same."""
    hits, of_class, as_class = _per_class(confusion)
    total = of_class.sum(axis=1)
    covariance = hits.sum(axis=1) * total - (of_class * as_class).sum(axis=1)
    spread = (total**2 - (of_class**2).sum(axis=1)) * (total**2 - (as_class**2).sum(axis=1))
    with np.errstate(invalid="ignore"):
        return np.where(spread > 0, covariance / np.sqrt(spread), 0.0)


_OF_CONFUSION: dict[str, Callable[[Floats], Floats]] = {
    "accuracy": _accuracy,
    "precision": _precision,
    "recall": _recall,
    "f1": _f1,
    "specificity": _specificity,
    "balanced_accuracy": _recall,
    "mcc": _mcc,
}
