"""What AUC and average precision rank images by: log-odds, which stay apart where probabilities
round to 0 or 1.
"""

import numpy as np
import pandas as pd

from trainables.training.metrics import log_odds, log_probabilities


def ranking(predictions: pd.DataFrame) -> pd.DataFrame:
    """The log-odds of each class, one column per class, one row per row of predictions.

    From the columns `log_odds_<class>` that `ensemble_ranks` gives, else from `logit_<class>`;
    without either the probabilities themselves.
    """
    classes = _classes(predictions)
    for kind in ("log_odds_", "logit_", "prob_"):
        columns = [f"{kind}{name}" for name in classes]
        if set(columns) <= set(predictions.columns):
            values = predictions[columns].to_numpy(dtype=np.float64)
            break
    return pd.DataFrame(
        log_odds(values) if kind == "logit_" else values, columns=classes, index=predictions.index
    )


def ensemble_ranks(predictions: pd.DataFrame) -> pd.DataFrame:
    """One row per image, in their order: `log_odds_<class>` of the mean probability over its
    predictions.
    """
    classes = _classes(predictions)
    columns = [f"logit_{name}" for name in classes]
    if not set(columns) <= set(predictions.columns):
        return pd.DataFrame(index=pd.Index(sorted(predictions["image"].unique()), name="image"))
    of, against = (
        _log_sum(pd.DataFrame(logs, index=predictions["image"].array))
        for logs in log_probabilities(predictions[columns].to_numpy(dtype=np.float64))
    )
    odds = of - against  # both lack the same log of how many they are
    return odds.set_axis([f"log_odds_{name}" for name in classes], axis=1).rename_axis("image")


def ensemble_predictions(predictions: pd.DataFrame) -> pd.DataFrame:
    """One row per image: label, the mean of the probabilities over all models that predicted it,
    and its log-odds.
    """
    probabilities = [column for column in predictions.columns if column.startswith("prob_")]
    means = predictions.groupby("image").agg(
        {"label": "first", **dict.fromkeys(probabilities, "mean")}
    )
    return means.join(ensemble_ranks(predictions)).reset_index()


def _log_sum(logs: pd.DataFrame) -> pd.DataFrame:
    """log Σ exp over the rows of each image."""
    most = logs.groupby(level=0).max()
    total = pd.DataFrame(np.exp(logs - most.loc[logs.index])).groupby(level=0).sum()
    return most + pd.DataFrame(np.log(total))


def _classes(predictions: pd.DataFrame) -> list[str]:
    return [
        column.removeprefix("prob_") for column in predictions.columns if column.startswith("prob_")
    ]
