"""What the means over all folds will be, and who will be best, against closed forms."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import ndtr

from orchestrator.search.outlook import best_probabilities, outlook, paired_noise

NAN = np.nan


def paired(scores: NDArray[np.float64], deviation: float) -> NDArray[np.float64]:
    """Resampled variances that all are what the deviation makes."""
    return np.where(np.isnan(scores), NAN, deviation**2)


def test_folds_are_as_hard_as_for_those_that_finished_them() -> None:
    rng = np.random.default_rng(0)
    folds = np.array([0.0, 0.1, -0.2])
    scores = 0.8 + folds + rng.normal(0, 0.05, (200, 1)) + rng.normal(0, 0.01, (200, 3))
    scores[50:, 1:] = NAN
    assert outlook(scores, paired(scores, 0.01)).folds == pytest.approx(0.8 + folds, abs=0.02)


def test_stopping_the_bad_ones_does_not_make_later_folds_look_hard() -> None:
    rng = np.random.default_rng(0)
    scores = 0.8 + rng.normal(0, 0.02, (400, 1)) + rng.normal(0, 0.02, (400, 5))
    scores[scores[:, 0] < np.quantile(scores[:, 0], 0.8), 1:] = NAN
    folds = outlook(scores, paired(scores, 0.02)).folds
    # by differences alone the later folds would be lower by half of what the first one was luck
    assert np.ptp(folds) < 0.008
    assert np.nanmean(scores[:, 1:] - scores[:, :1]) < -0.015


def test_a_missing_fold_goes_as_the_others_but_for_its_difficulty() -> None:
    scores = np.linspace(0.5, 0.9, 9)[:, None] + np.array([0, 0.1, 0.2])
    scores[4, 1:] = NAN
    means = outlook(scores, paired(scores, 0.001)).means
    assert means[4] == pytest.approx(0.8, abs=0.005)


def test_who_has_no_fold_has_no_outlook() -> None:
    assert np.isnan(outlook(np.array([[0.5, 0.6], [NAN, NAN]]), np.full((2, 2), NAN)).means[1])
    assert np.isnan(outlook(np.full((2, 2), NAN), np.full((2, 2), NAN)).means).all()


def test_noise_that_patients_share_is_not_the_candidates_own() -> None:
    rng = np.random.default_rng(0)
    shared, own = rng.normal(0, 1, 20_000), rng.normal(0, 0.1, (2, 20_000))
    first, second = (shared + own).astype(np.float32)
    assert paired_noise(first, second) == pytest.approx(0.01, rel=0.05)


def test_noise_agrees_with_what_is_seen_between_folds_however_little_is_resampled() -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(0, 1, (200, 1)) + rng.normal(0, 0.3, (200, 5))
    # training noise: patients alone would make a tenth of it
    assert outlook(scores, np.full(scores.shape, 0.009)).noise == pytest.approx(0.09, rel=0.1)


def test_candidates_keep_their_own_share_of_the_noise() -> None:
    scores = np.random.default_rng(0).normal(0.8, 0.02, (20, 5))
    resampled = np.repeat(np.where(np.arange(20) < 10, 1e-4, 1e-2)[:, None], 5, axis=1)
    noise = outlook(scores, resampled).noise
    assert noise[19] > 5 * noise[0]


@pytest.mark.parametrize("finished", [1, 2, 4])
def test_what_is_known_is_certain_and_the_rest_is_sampling_without_replacement(
    finished: int,
) -> None:
    rng = np.random.default_rng(0)
    k, sigma = 5, 0.01
    scores = rng.normal(0, 10, (300, 1)) + rng.normal(0, sigma, (300, k))  # any level may be
    scores[:100, finished:] = NAN
    found = outlook(scores, paired(scores, sigma))
    got = found.deviations[:100]
    assert got == pytest.approx(sigma * np.sqrt((k - finished) / (k * finished)), rel=0.1)
    assert found.deviations[100:] == pytest.approx(0)
    assert found.means[100:] == pytest.approx(scores[100:].mean(axis=1))


def test_levels_of_equal_candidates_are_drawn_together() -> None:
    scores = np.full((30, 5), NAN)
    scores[:, 0] = np.random.default_rng(0).normal(0.8, 0.02, 30)
    assert np.ptp(outlook(scores, paired(scores, 0.02)).means) < 0.5 * np.ptp(scores[:, 0])


# --- the best one ---------------------------------------------------------------------------------


def test_of_two_the_probability_is_that_of_their_difference() -> None:
    got = best_probabilities(np.array([0.80, 0.79]), np.array([0.01, 0.02]))
    assert got[0] == pytest.approx(ndtr(0.01 / np.hypot(0.01, 0.02)), abs=1e-3)
    assert got.sum() == pytest.approx(1)


def test_equal_ones_share_the_probability() -> None:
    assert best_probabilities(np.full(8, 0.8), np.full(8, 0.01)) == pytest.approx(1 / 8)
    assert best_probabilities(np.full(4, 0.8), np.zeros(4)) == pytest.approx(1 / 4)


def test_small_probabilities_are_right() -> None:
    rng = np.random.default_rng(0)
    means, deviations = rng.normal(0.8, 0.02, 40), rng.uniform(0.005, 0.02, 40)
    drawn = rng.normal(means, deviations, (400_000, 40)).argmax(axis=1)
    shares = np.bincount(drawn, minlength=40) / 400_000
    assert best_probabilities(means, deviations) == pytest.approx(shares, abs=1e-3)


def test_who_cannot_reach_the_best_has_none() -> None:
    got = best_probabilities(np.array([0.9, 0.8, 0.1]), np.array([0.0, 0.001, 0.001]))
    assert got == pytest.approx([1, 0, 0])
