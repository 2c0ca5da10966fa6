"""Every metric against numbers worked out by hand, and against scikit-learn where it has the same
definition.
"""

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn import metrics as sk

from trainables.training.metrics import HEADLINE, PER_CLASS, log_odds, metric_names, score


def probabilities(*of_second: float) -> NDArray[np.float64]:
    """Two classes, from the probability of the second."""
    second = np.array(of_second)
    return np.column_stack([1 - second, second])


def random_case(seed: int, n: int, classes: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes), rng.integers(0, classes, n - classes)])
    raw = rng.random((n, classes)) + np.eye(classes)[labels] * 0.3
    return labels, raw / raw.sum(axis=1, keepdims=True)


def test_two_classes_by_hand() -> None:
    # truth:      0    0    0    0    1    1    1     predicted positive above 1/2
    p = probabilities(0.1, 0.2, 0.6, 0.3, 0.9, 0.4, 0.8)
    found = score(np.array([0, 0, 0, 0, 1, 1, 1]), p, ("neg", "pos"))
    # hits: 3 of 4 negatives, 2 of 3 positives; 4 predicted negative, 3 positive
    assert found["accuracy"] == pytest.approx(5 / 7)
    assert [found["recall_neg"], found["specificity_pos"]] == pytest.approx([3 / 4] * 2)
    assert [found["recall_pos"], found["specificity_neg"]] == pytest.approx([2 / 3] * 2)
    assert found["precision_neg"] == pytest.approx(3 / 4)
    assert found["precision_pos"] == pytest.approx(2 / 3)
    assert found["f1_neg"] == pytest.approx(3 / 4)
    assert found["f1_pos"] == pytest.approx(2 / 3)
    assert found["f1"] == pytest.approx((3 / 4 + 2 / 3) / 2)
    assert [found["balanced_accuracy"], found["recall"], found["specificity"]] == pytest.approx(
        [17 / 24] * 3
    )
    # MCC = (TP·TN − FP·FN) / √((TP+FP)(TP+FN)(TN+FP)(TN+FN)) = (2·3 − 1·1) / √(3·3·4·4)
    assert found["mcc"] == pytest.approx(5 / 12)
    # 12 pairs of a positive and a negative; only the positive at 0.4 ranks below one negative (0.6)
    assert [found["auc"], found["auc_pos"], found["auc_neg"]] == pytest.approx([11 / 12] * 3)
    # positives found at ranks 1, 2 and 4: (1/1 + 2/2 + 3/4) / 3; negatives at 1, 2, 3 and 5: (1 + 1
    # + 1 + 4/5) / 4
    assert found["average_precision_pos"] == pytest.approx(11 / 12)
    assert found["average_precision_neg"] == pytest.approx(19 / 20)
    squares = 0.1**2 + 0.2**2 + 0.6**2 + 0.3**2 + 0.1**2 + 0.6**2 + 0.2**2
    assert found["brier"] == pytest.approx(squares / 7)
    logs = math.log(0.9 * 0.8 * 0.4 * 0.7 * 0.9 * 0.4 * 0.8)
    assert found["log_loss"] == pytest.approx(-logs / 7)


def test_three_classes_by_hand() -> None:
    # Confusion matrix: a → a a b, b → b b, c → a.  One-hot probabilities, so that the ranking is
    # the prediction.
    labels, predicted = np.array([0, 0, 0, 1, 1, 2]), np.array([0, 0, 1, 1, 1, 0])
    found = score(labels, np.eye(3)[predicted], ("a", "b", "c"))
    assert [found[f"recall_{c}"] for c in "abc"] == pytest.approx([2 / 3, 1, 0])
    assert [found[f"precision_{c}"] for c in "abc"] == pytest.approx([2 / 3, 2 / 3, 0])
    assert [found[f"specificity_{c}"] for c in "abc"] == pytest.approx([2 / 3, 3 / 4, 1])
    assert [found[f"f1_{c}"] for c in "abc"] == pytest.approx([2 / 3, 4 / 5, 0])
    assert found["f1"] == pytest.approx((2 / 3 + 4 / 5) / 3)
    assert found["accuracy"] == pytest.approx(4 / 6)
    # Two images wholly wrong, each at the greatest distance.
    assert found["brier"] == pytest.approx(2 / 6)


@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("seed", range(4))
def test_agrees_with_scikit_learn(seed: int, classes: int) -> None:
    labels, p = random_case(seed, 60, classes)
    predicted, truth = p.argmax(axis=1), np.eye(classes)[labels]
    found = score(labels, p, tuple(f"c{i}" for i in range(classes)))
    expected = {
        "accuracy": sk.accuracy_score(labels, predicted),
        "precision": sk.precision_score(labels, predicted, average="macro", zero_division=0),
        "recall": sk.recall_score(labels, predicted, average="macro"),
        "f1": sk.f1_score(labels, predicted, average="macro"),
        "auc": sk.roc_auc_score(truth, p, average="macro"),
        "balanced_accuracy": sk.balanced_accuracy_score(labels, predicted),
        "mcc": sk.matthews_corrcoef(labels, predicted),
        "average_precision": sk.average_precision_score(truth, p, average="macro"),
        "log_loss": sk.log_loss(labels, p),
        "brier": np.mean([sk.brier_score_loss(truth[:, c], p[:, c]) for c in range(classes)])
        * classes
        / 2,
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected)
    for c in range(classes):
        complement = sk.recall_score(labels != c, predicted != c)
        assert found[f"specificity_c{c}"] == pytest.approx(complement)


def test_all_names_in_their_order() -> None:
    labels, p = random_case(0, 20, 3)
    classes = ("a b", "ü", "c\n")
    assert list(score(labels, p, classes)) == metric_names(classes)
    assert metric_names(classes)[: len(HEADLINE)] == list(HEADLINE)
    assert (
        len(metric_names(classes))
        == len(HEADLINE) + 3 * len(PER_CLASS)
        == len(set(metric_names(classes)))
    )


def test_a_perfect_classifier() -> None:
    labels = np.array([0, 1, 2, 0, 1, 2])
    found = score(labels, np.eye(3)[labels], ("a", "b", "c"))
    for name, value in found.items():
        assert value == pytest.approx(0 if name in ("brier", "log_loss") else 1), name


def test_an_inverted_classifier() -> None:
    labels = np.array([0, 0, 1, 1])
    found = score(labels, np.eye(2)[1 - labels], ("a", "b"))
    for name in (
        "accuracy",
        "precision",
        "recall",
        "f1",
        "auc",
        "specificity",
        "balanced_accuracy",
    ):
        assert found[name] == 0, name
    assert found["mcc"] == pytest.approx(-1)
    assert found["brier"] == pytest.approx(1)
    assert found["log_loss"] == pytest.approx(-math.log(1e-15))
    assert math.isfinite(found["log_loss"])


@pytest.mark.parametrize("classes", [2, 3, 6])
def test_brier_lies_between_0_and_1(classes: int) -> None:
    labels, p = random_case(1, 50, classes)
    assert 0 < score(labels, p, tuple(map(str, range(classes))))["brier"] < 1
    uniform = score(labels, np.full((50, classes), 1 / classes), tuple(map(str, range(classes))))
    assert uniform["brier"] == pytest.approx((1 - 1 / classes) / 2)
    assert uniform["auc"] == pytest.approx(0.5)


def test_a_class_that_is_never_predicted_has_precision_0() -> None:
    found = score(np.array([0, 0, 1]), probabilities(0.1, 0.2, 0.3), ("a", "b"))
    assert found["precision_b"] == found["recall_b"] == found["f1_b"] == 0
    assert found["precision"] == pytest.approx(1 / 3)
    assert found["mcc"] == 0
    assert found["auc"] == 1  # the ranking is perfect nevertheless


def test_an_absent_class_is_nan_and_not_a_number_that_looks_fine() -> None:
    labels, p = np.array([0, 0, 1]), np.eye(3)[[0, 0, 1]]
    found = score(labels, p, ("a", "b", "absent"))
    for metric in ("recall", "precision", "f1", "auc", "average_precision"):
        assert math.isnan(found[f"{metric}_absent"]), metric
        assert math.isnan(found[metric]), metric
        assert found[f"{metric}_a"] == 1
    assert math.isnan(found["balanced_accuracy"])
    assert found["specificity_absent"] == 1
    assert found["accuracy"] == 1
    wrong = score(labels, np.eye(3)[[0, 2, 1]], ("a", "b", "absent"))
    assert wrong["precision_absent"] == 0  # predicted once, never right: that is known
    assert wrong["specificity_absent"] == pytest.approx(2 / 3)


def test_one_class_alone_has_no_specificity_and_no_auc() -> None:
    found = score(np.array([0, 0]), probabilities(0.1, 0.7), ("a", "b"))
    assert math.isnan(found["specificity_a"])
    assert math.isnan(found["auc_a"])
    assert found["recall_a"] == 0.5


def test_without_images_or_with_a_diverged_model_nothing_is_known() -> None:
    empty = score(np.array([], dtype=np.int64), np.empty((0, 2)), ("a", "b"))
    diverged = score(np.array([0, 1]), np.array([[0.5, 0.5], [np.nan, np.nan]]), ("a", "b"))
    for found in (empty, diverged):
        assert list(found) == metric_names(("a", "b"))
        assert all(math.isnan(value) for value in found.values())


@pytest.mark.filterwarnings("error")
def test_undefined_numbers_come_without_warnings() -> None:
    score(np.array([0, 0]), probabilities(0.1, 0.7), ("a", "b"))
    score(np.array([0, 1, 0]), np.eye(3)[[0, 1, 1]], ("a", "b", "c"))


def test_results_are_plain_floats() -> None:
    labels, p = random_case(2, 20, 3)
    assert {
        type(value)
        for value in score(labels.astype(np.int32), p.astype(np.float32), ("a", "b", "c")).values()
    } == {float}


def test_saturated_probabilities_rank_by_their_logits() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 200)
    logits = np.column_stack([np.zeros(400), 60 + 8 * rng.normal(size=400) + 4 * labels])
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    found = score(labels, p, ("a", "b"), log_odds(logits))
    expected = sk.roc_auc_score(labels, logits[:, 1])
    assert [found["auc"], found["auc_a"], found["auc_b"]] == pytest.approx(
        [expected] * 3, abs=1e-12
    )
    assert score(labels, p, ("a", "b"))["auc_b"] < expected - 0.01  # all of them round to 1


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_log_odds_are_those_of_the_probabilities(classes: int) -> None:
    logits = np.random.default_rng(classes).normal(size=(20, classes))
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(log_odds(logits), np.log(p / (1 - p)), rtol=1e-9)


def test_log_loss_and_ties_are_exact_where_probabilities_saturate() -> None:
    logits = np.array([[0.0, 400.0], [30.0, 0.0], [7.0, 7.0]])
    labels = np.array([0, 0, 1])
    saturated = np.array([[0.0, 1.0], [1.0, 1e-13], [0.5, 0.5]])
    found = score(labels, saturated, ("a", "b"), log_odds(logits))
    assert found["log_loss"] == pytest.approx((400 + math.log(2)) / 3)
    shifted = log_odds(np.array([[0.1, 0.7, 0.3]]) + np.array([[0.0], [100.0], [0.1]]))
    assert len(np.unique(shifted, axis=0)) == 1
