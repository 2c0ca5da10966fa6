"""What an ensemble is ranked by is the log-odds of its mean probability, where that rounds to 1
too.
"""

import numpy as np
import pandas as pd
import pytest

from orchestrator.results.ranking import ensemble_ranks, ranking


def members(logits: np.ndarray) -> pd.DataFrame:
    """Predictions of several models (m, n, 2) for the images 'a', 'b', …"""
    m, n, _ = logits.shape
    flat = logits.reshape(m * n, 2)
    p = 1 / (1 + np.exp(flat[:, 0] - flat[:, 1]))
    table = pd.DataFrame(
        {"image": [chr(97 + i) for _ in range(m) for i in range(n)], "prob_x": 1 - p, "prob_y": p}
    )
    return table.assign(logit_x=flat[:, 0], logit_y=flat[:, 1])


def test_it_is_the_log_odds_of_the_mean() -> None:
    table = members(np.random.default_rng(0).normal(size=(3, 4, 2)))
    mean = table.groupby("image")["prob_y"].mean()
    found = ensemble_ranks(table)
    assert list(found["log_odds_y"]) == pytest.approx(list(np.log(mean / (1 - mean))))
    assert list(ranking(found.assign(prob_x=0.0, prob_y=0.0))["y"]) == list(found["log_odds_y"])


def test_what_rounds_to_one_keeps_its_order() -> None:
    logits = np.zeros((2, 3, 2))
    logits[:, :, 1] = [[50, 60, 70], [80, 60, 90]]
    found = ensemble_ranks(members(logits))["log_odds_y"]
    # 1 − p of the mean is half the sum of e^-50 and e^-80, and so on
    assert list(found) == pytest.approx([50 + np.log(2), 60, 70 + np.log(2)])


def test_without_logits_the_probabilities_rank() -> None:
    table = members(np.zeros((1, 2, 2))).drop(columns=["logit_x", "logit_y"])
    assert list(ranking(table)["y"]) == [0.5, 0.5]
