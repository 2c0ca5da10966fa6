import time

import numpy as np
import pytest
from scipy.special import softmax

from orchestrator.search import resampling
from orchestrator.search.resampling import LOSSES, resampled_scores
from trainables.training.metrics import HEADLINE, log_odds, score


def fold(n=120, classes=3, seeds=2, patients=50, ties=False, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    logits = rng.normal(0, 1, (seeds, n, classes)) + 1.5 * np.eye(classes)[labels]
    return labels, np.round(logits, 0) if ties else logits, rng.integers(0, patients, n)


def whole(labels, logits, classes, objective):
    names = tuple(f"c{i}" for i in range(classes))
    return np.mean(
        [score(labels, softmax(each, axis=1), names, log_odds(each))[objective] for each in logits]
    )


@pytest.mark.parametrize("objective", HEADLINE)
@pytest.mark.parametrize(("classes", "ties"), [(2, False), (3, True)])
def test_the_score_is_the_one_of_the_tables_and_draws_are_of_images_as_often_as_their_group(
    objective, classes, ties
):
    labels, logits, groups = fold(classes=classes, ties=ties)
    if ties:
        logits[..., 2] -= 9  # a class that is never predicted
    value, draws = resampled_scores(labels, logits, groups, objective, "abc"[:classes], 3, seed=5)
    sign = -1 if objective in LOSSES else 1
    assert value == pytest.approx(sign * whole(labels, logits, classes, objective), abs=1e-12)
    assert draws.shape == (3,)
    assert draws.dtype == np.float32
    # The same draws, as a loop over images would make them.
    names, place = np.unique(groups, return_inverse=True)
    counts = np.random.default_rng(5).multinomial(
        len(names), np.full(len(names), 1 / len(names)), 3
    )
    for drawn, of_groups in zip(draws, counts, strict=True):
        rows = np.repeat(np.arange(len(labels)), of_groups[place])
        again = whole(labels[rows], logits[:, rows], classes, objective)
        assert drawn == pytest.approx(sign * again, abs=1e-6)


def test_differences_of_candidates_are_of_the_same_patients():
    labels, logits, groups = fold(n=300, classes=2, patients=300)
    better = logits + 0.3 * np.eye(2)[labels]
    (a, of_a), (b, of_b) = (
        resampled_scores(labels, each, groups, "auc", "ab", 400, 1) for each in (logits, better)
    )
    assert b > a
    assert (of_b - of_a).std() < 0.5 * np.hypot(of_a.std(), of_b.std())


def test_the_spread_is_that_of_patients_and_not_of_their_images():
    labels, logits, _ = fold(n=100, classes=2, seeds=1)
    eightfold = [np.repeat(each, 8, axis=-1 if each.ndim == 1 else 1) for each in (labels, logits)]
    patients = np.repeat(np.arange(100), 8)
    _, once = resampled_scores(labels, logits, np.arange(100), "accuracy", "ab", 400, 2)
    _, clustered = resampled_scores(*eightfold, patients, "accuracy", "ab", 400, 2)
    _, taken_apart = resampled_scores(*eightfold, np.arange(800), "accuracy", "ab", 400, 2)
    assert clustered.std() == pytest.approx(once.std(), rel=1e-5)
    assert taken_apart.std() < 0.5 * once.std()


def test_every_draw_has_the_classes_of_the_fold_and_a_class_that_it_lacks_has_no_score():
    labels = np.array([0] * 12 + [1] * 2)
    logits = np.random.default_rng(0).normal(size=(1, 14, 2))
    _, draws = resampled_scores(labels, logits, np.arange(14), "auc", "ab", 400, 3)
    assert np.isfinite(draws).all()
    _, one_patient_each = resampled_scores(labels, logits, labels, "auc", "ab", 400, 3)
    assert np.isfinite(one_patient_each).all()
    value, draws = resampled_scores(
        labels, np.pad(logits, ((0, 0), (0, 0), (0, 1))), np.arange(14), "auc", "abc", 10, 3
    )
    assert np.isnan(value)
    assert np.isnan(draws).all()


def test_what_diverged_has_no_score():
    labels, logits, groups = fold(classes=2)
    logits[0, 3, 1] = np.nan
    value, draws = resampled_scores(labels, logits, groups, "accuracy", "ab", 10, 0)
    assert np.isnan(value)
    assert np.isnan(draws).all()


def test_many_images_are_weighed_in_parts_and_give_the_same(monkeypatch):
    labels, logits, groups = fold(n=50, classes=2)
    _, at_once = resampled_scores(labels, logits, groups, "auc", "ab", 70, 0)
    monkeypatch.setattr(resampling, "_ELEMENTS", 1000)
    _, in_parts = resampled_scores(labels, logits, groups, "auc", "ab", 70, 0)
    assert (at_once == in_parts).all()


def test_a_fold_takes_milliseconds():
    labels, logits, groups = fold(n=400, classes=2, seeds=1)
    resampled_scores(labels, logits, groups, "auc", "ab")
    began = time.process_time()
    for _ in range(10):
        resampled_scores(labels, logits, groups, "auc", "ab")
    assert time.process_time() - began < 10 * 0.1  # a tenth of it on an idle machine
