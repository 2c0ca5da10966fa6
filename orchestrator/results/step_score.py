"""The score of a step, a candidate's fold with all its seeds, as searches compare it."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from orchestrator.results.entries import predictions_of
from orchestrator.results.summaries import labels_and_logits
from orchestrator.search.resampling import resampled_scores
from trainables.core.ledger import Entry


def step_score(
    entries: Sequence[Entry],
    folds: pd.DataFrame,
    groups: "pd.Series[str]",
    objective: str,
    draws: int = 400,
) -> tuple[float, NDArray[np.float32]]:
    """Of the done cells of a step, one a seed: see `resampled_scores`, whose draws are the same for
    every candidate of a fold.

    `groups`: of each image, the index. Raises DamagedRecord.
    """
    spec = entries[0].spec
    table = pd.concat([predictions_of(e, folds).assign(seed=e.spec.seed) for e in entries])
    table = table[table["split"] == "fold"]
    labels, logits, grouped = labels_and_logits(
        table.assign(group=table["image"].map(groups)), spec.classes
    )
    return resampled_scores(labels, logits, grouped, objective, spec.classes, draws, seed=spec.fold)
