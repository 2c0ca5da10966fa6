"""What a cell decides while it trains, by plain numbers."""

import math

import pytest

from trainables.core.training_config import Training
from trainables.training import decisions
from trainables.training.decisions import CheckpointCadence


def merits(finished: int, best: int | None) -> list[float]:
    """Of some epochs, of which one is the best; None: none has a finite metric."""
    found = [-math.inf if best is None else 0.0] * finished
    if best is not None and finished:
        found[best - 1] = 1.0
    return found


@pytest.mark.parametrize(
    ("finished", "best", "over"),
    [
        (0, None, False),
        (2, None, False),
        (3, None, True),  # patience without any finite metric
        (3, 1, False),
        (4, 1, True),
        (9, 9, False),
        (10, 10, True),  # the last epoch
    ],
)
def test_training_ends_with_its_epochs_or_its_patience(
    finished: int, best: int | None, over: bool
) -> None:
    training = Training(epochs=10, early_stopping=3)
    assert decisions.is_over(training, merits(finished, best)) is over


def test_without_patience_only_the_epochs_end_training() -> None:
    training = Training(epochs=10, early_stopping=None)
    assert [decisions.is_over(training, merits(n, 1)) for n in (0, 9, 10)] == [False, False, True]


def test_patience_counts_from_the_release_of_the_backbone() -> None:
    training = Training(epochs=10, early_stopping=2, frozen_epochs=4)
    over = {finished for finished in range(11) if decisions.is_over(training, merits(finished, 1))}
    assert min(over) == 6
    assert not decisions.is_over(training, merits(6, 5))


def test_patience_wants_the_least_improvement_in_all() -> None:
    """Small steps add up: what counts is the gain since the last epoch that counted."""
    training = Training(epochs=99, early_stopping=3, min_improvement=0.1)
    assert decisions.is_over(training, [0.5, 0.55, 0.58, 0.59])
    assert not decisions.is_over(training, [0.5, 0.55, 0.58, 0.61])


def test_only_the_frozen_epochs_train_the_head_alone() -> None:
    training = Training(epochs=3, frozen_epochs=2)
    assert [decisions.is_head_only(training, epoch) for epoch in (1, 2, 3)] == [True, True, False]


def test_a_lower_loss_and_a_higher_auc_are_better() -> None:
    loss, auc = Training(monitor="loss"), Training(monitor="auc")
    assert decisions.merit(loss, 0.1) > decisions.merit(loss, 0.2)
    assert decisions.merit(auc, 0.2) > decisions.merit(auc, 0.1)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("monitor", ["loss", "auc"])
def test_no_epoch_is_the_best_without_a_finite_metric(monitor: str, value: float) -> None:
    training = Training.model_validate({"monitor": monitor})
    assert not decisions.merit(training, value) > -math.inf


def test_resume_states_take_a_fiftieth_of_the_time() -> None:
    cadence = CheckpointCadence(cost=2.0, now=1000.0)
    assert [cadence.is_due(now) for now in (1000.0, 1099.0, 1100.0)] == [False, False, True]
    cadence.note_saved(1100.0, 1104.0)  # it took longer than was thought
    assert [cadence.is_due(now) for now in (1104.0, 1303.0, 1304.0)] == [False, False, True]


@pytest.mark.parametrize(
    ("soup", "expected"), [(None, [4]), (2, [4, 1]), (3, [4, 1, 3]), (9, [4, 1, 3, 5])]
)
def test_the_best_epochs_are_finite_and_of_equals_the_earlier(
    soup: int | None, expected: list[int]
) -> None:
    merits = [0.5, -math.inf, 0.5, 0.7, 0.1]
    assert decisions.best_epochs(Training(soup=soup), merits) == expected
    assert decisions.best_epochs(Training(soup=soup), [-math.inf]) == []
