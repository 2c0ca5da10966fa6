"""Scores of class probabilities, each by its standard definition.

Averages over classes are macro averages (every class counts the same), for two classes too; what a
part cannot define, such as the AUC of a class that it does not hold, is NaN and makes the macro
average NaN.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp
from sklearn import metrics as sk

#: The metrics in the order of the tables; higher is better except for those below.
HEADLINE = (
    "accuracy",
    "precision",
    "recall",
    "f1",
    "auc",
    "specificity",
    "balanced_accuracy",
    "mcc",
    "average_precision",
    "brier",
    "log_loss",
)
LOWER_IS_BETTER = ("brier", "log_loss")
#: The metrics that are also given per class, as `<metric>_<class>`.
PER_CLASS = ("precision", "recall", "f1", "specificity", "auc", "average_precision")


def metric_names(classes: tuple[str, ...]) -> list[str]:
    """All metric columns for these classes: the headline ones, then the per-class ones."""
    return [*HEADLINE, *(f"{metric}_{name}" for metric in PER_CLASS for name in classes)]


def log_probabilities(
    logits: NDArray[np.floating[Any]],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """log p and log (1 − p) of every class from logits (n, c), exact where p rounds to 0 or 1."""
    logits = logits.astype(np.float64)
    total = logsumexp(logits, axis=1, keepdims=True)
    others = [logsumexp(np.delete(logits, c, axis=1), axis=1) for c in range(logits.shape[1])]
    return logits - total, np.stack(others, axis=1) - total


def log_odds(logits: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """log p / (1 − p) of every class from logits (n, c): ranks as probabilities do, without their
    ties at 0 and 1.
    """
    of, against = log_probabilities(logits)
    return np.round(of - against, 12)  # equal odds must not differ by rounding


def score(
    labels: NDArray[np.integer[Any]],
    probabilities: NDArray[np.floating[Any]],
    classes: tuple[str, ...],
    odds: NDArray[np.floating[Any]] | None = None,
) -> dict[str, float]:
    """Every metric of `metric_names(classes)` for one set of images.

    `labels`: class indices, shape (n,). `probabilities`: shape (n, c), rows sum to 1. `odds`: their
    log-odds, exact where probabilities round to 0 or 1, shape (n, c): they order the images for
    `auc` and `average_precision` and give the `log_loss`; without them the probabilities do, taken
    for at least 1e-15.

    The prediction is the most probable class. `auc` is one-versus-rest ROC AUC, `average_precision`
    the step-wise area under the precision-recall curve, `mcc` the multi-class correlation of
    Gorodkin (2004), `brier` the mean squared distance of the probability vector to the truth,
    halved, so that it lies in [0, 1] and equals Brier's score for two classes. Precision of a class
    that is never predicted is 0, and so is `mcc` where all predictions are the same. Without
    images, or with probabilities that are not finite, as a model that diverged gives them,
    everything is NaN.
    """
    n_classes = len(classes)
    if len(labels) == 0 or not np.isfinite(probabilities).all():
        return dict.fromkeys(metric_names(classes), float("nan"))
    ranks = probabilities if odds is None else odds
    predicted = probabilities.argmax(axis=1)
    truth = np.eye(n_classes)[labels]
    confusion = sk.confusion_matrix(labels, predicted, labels=range(n_classes)).astype(float)
    per_class = _per_class(confusion)
    for metric, measure in (
        ("auc", sk.roc_auc_score),
        ("average_precision", sk.average_precision_score),
    ):
        per_class[metric] = np.array(
            [_ranked(measure, truth[:, c], ranks[:, c]) for c in range(n_classes)]
        )
    own = np.arange(len(labels)), labels
    losses = (
        -np.log(np.clip(probabilities[own], 1e-15, 1.0))
        if odds is None
        else np.logaddexp(0, -odds[own])
    )
    scores: dict[str, float] = {
        "accuracy": float(np.mean(predicted == labels)),
        **{metric: float(np.mean(per_class[metric])) for metric in PER_CLASS},
        "balanced_accuracy": float(np.mean(per_class["recall"])),
        "mcc": float(sk.matthews_corrcoef(labels, predicted)),
        "brier": float(np.mean(np.sum((probabilities - truth) ** 2, axis=1)) / 2),
        "log_loss": float(np.mean(losses)),
    }
    ordered = {metric: scores[metric] for metric in HEADLINE}
    for metric in PER_CLASS:
        ordered |= {
            f"{metric}_{name}": float(value)
            for name, value in zip(classes, per_class[metric], strict=True)
        }
    return ordered


def _per_class(confusion: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Precision, recall, F1 and specificity of each class; rows of `confusion` are the truth,
    columns predictions.
    """
    hits = np.diag(confusion)
    of_class, as_class, total = confusion.sum(axis=1), confusion.sum(axis=0), confusion.sum()
    with np.errstate(invalid="ignore"):  # 0/0, where a class is absent
        return {
            "precision": np.where((as_class == 0) & (of_class > 0), 0.0, hits / as_class),
            "recall": hits / of_class,
            "f1": np.where(of_class > 0, 2 * hits / (of_class + as_class), np.nan),
            "specificity": (total - of_class - as_class + hits) / (total - of_class),
        }


def _ranked(
    measure: Callable[..., Any], truth: NDArray[np.float64], ranks: NDArray[np.floating[Any]]
) -> float:
    """A ranking metric of one class against the rest; NaN where only one of the two is present."""
    return float(measure(truth, ranks)) if 0 < truth.sum() < len(truth) else float("nan")
