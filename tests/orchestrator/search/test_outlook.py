"""What the means over all folds will be, and who will be best, against closed forms."""

import numpy as np
import pytest
from scipy.special import ndtr

from orchestrator.search.outlook import (
    best_probabilities,
    expected,
    fold_effects,
    noise,
    outlook,
    paired_noise,
)

NAN = np.nan


def test_fold_effects_are_those_of_candidates_that_have_both_folds() -> None:
    scores = np.array([[0.5, 0.7, NAN], [0.6, 0.8, NAN], [0.9, NAN, NAN]])
    assert fold_effects(scores) == pytest.approx([-0.1, 0.1, 0.0])


def test_a_missing_fold_goes_as_the_others_but_for_its_effect() -> None:
    scores = np.array([[0.5, 0.7, 0.9], [0.6, NAN, NAN], [NAN, NAN, NAN]])
    assert expected(scores)[:2] == pytest.approx([0.7, 0.8])
    assert np.isnan(expected(scores)[2])


def test_noise_that_patients_share_is_not_the_candidates_own() -> None:
    rng = np.random.default_rng(0)
    shared, own = rng.normal(0, 1, 20_000), rng.normal(0, 0.1, (2, 20_000))
    first, second = (shared + own).astype(np.float32)
    assert paired_noise(first, second) == pytest.approx(0.01, rel=0.05)


def test_noise_agrees_with_what_is_seen_between_folds_however_little_is_resampled() -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(0, 1, (200, 1)) + rng.normal(0, 0.3, (200, 5))
    # training noise: patients alone would make a tenth of it
    assert noise(scores, np.full(scores.shape, 0.009)) == pytest.approx(0.09, rel=0.1)


def test_candidates_keep_their_own_share_of_the_noise() -> None:
    scores = np.zeros((2, 5))
    quiet, loud = noise(scores, np.array([[0.001] * 5, [0.1] * 5]))
    assert loud > 5 * quiet


@pytest.mark.parametrize("finished", [1, 2, 4])
def test_what_is_known_is_certain_and_the_rest_is_sampling_without_replacement(
    finished: int,
) -> None:
    rng = np.random.default_rng(0)
    k, sigma = 5, 0.01
    scores = np.repeat(rng.normal(0, 100, (50, 1)), k, axis=1)  # levels: anything may be
    scores += rng.normal(0, sigma, scores.shape)
    scores[:, finished:] = NAN
    means, deviations = outlook(scores, np.where(np.isnan(scores), NAN, sigma**2 / 1.5))
    assert means == pytest.approx(expected(scores), abs=1e-4)
    assert deviations == pytest.approx(
        sigma * np.sqrt((k - finished) / (k * finished)), rel=0.02 if finished == 1 else 0.3
    )


def test_a_candidate_that_is_through_has_no_deviation() -> None:
    means, deviations = outlook(np.array([[0.5, 0.7], [0.6, NAN]]), np.full((2, 2), 0.01))
    assert means[0] == pytest.approx(0.6)
    assert deviations[0] == 0
    assert deviations[1] > 0


def test_levels_of_equal_candidates_are_drawn_together() -> None:
    scores = np.full((30, 5), NAN)
    scores[:, 0] = np.random.default_rng(0).normal(0.8, 0.02, 30)
    means, _ = outlook(scores, np.where(np.isnan(scores), NAN, 0.02**2 / 1.5))
    assert np.ptp(means) < 0.5 * np.ptp(scores[:, 0])


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
