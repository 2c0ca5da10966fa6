"""What predictions come to, as pure functions over tables."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from orchestrator.results.ranking import ensemble_predictions, ranking
from trainables.core.config import class_index
from trainables.training.metrics import HEADLINE, score


def score_images(predictions: pd.DataFrame, classes: tuple[str, ...]) -> dict[str, float]:
    """Every metric of `metric_names(classes)` for predictions of one model, or of an ensemble."""
    index = class_index(classes)
    labels = np.array([index[label] for label in predictions["label"]], dtype=np.int64)
    probabilities = predictions[[f"prob_{name}" for name in classes]].to_numpy()
    odds = ranking(predictions)[list(classes)].to_numpy()
    return score(labels, probabilities, classes, odds)


def labels_and_logits(
    predictions: pd.DataFrame, classes: tuple[str, ...]
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[Any]]:
    """Of predictions of the same images by one or several seeds: labels (n,), logits (seeds, n, c)
    and groups (n,), by image.
    """
    index = class_index(classes)
    ordered = predictions.sort_values(["seed", "image"])
    seeds = ordered["seed"].nunique()
    first = ordered.iloc[: len(ordered) // seeds]
    columns = [f"logit_{name}" for name in classes]
    logits = ordered[columns].to_numpy(dtype=np.float64).reshape(seeds, -1, len(classes))
    labels = np.array([index[label] for label in first["label"]], dtype=np.int64)
    return labels, logits, first["group"].to_numpy()


def pools(predictions: pd.DataFrame, k: int) -> list[pd.DataFrame]:
    """Out-of-fold predictions such that each image occurs once in each part: by repeat, of k folds
    each, and seed.
    """
    return [part for _, part in predictions.groupby([predictions["fold"] // k, "seed"])]


def summarise_candidate(
    cells: pd.DataFrame,
    tests: Sequence[dict[str, float]],
    predictions: pd.DataFrame,
    classes: tuple[str, ...],
    k: int,
) -> dict[str, float]:
    """The columns of `models_summary` for a candidate whose cells are all done.

    `cells`: its rows of `folds_summary`. `tests`: the metrics of each of its models on the test
    set. `predictions`: all of its own. `k`: folds of a repeat.
    """
    pooled = predictions[predictions["split"] == "fold"]
    of_pools = [score_images(part, classes) for part in pools(pooled, k)]
    oof = pd.DataFrame(of_pools).mean(skipna=False)
    on_test = ensemble_predictions(predictions[predictions["split"] == "test"])
    ensemble = score_images(on_test, classes)
    test = pd.DataFrame(tests)
    row = {}
    for metric in HEADLINE:
        row[f"{metric}_mean"] = cells[metric].mean(skipna=False)
        row[f"{metric}_std"] = cells[metric].std(ddof=1, skipna=False)
        row[f"{metric}_oof"] = oof[metric]
        row[f"{metric}_test_mean"] = test[metric].mean(skipna=False)
        row[f"{metric}_test_ensemble"] = ensemble[metric]
    return row
