"""Learning rates are those of Keras's schedules, or of the papers, and follow from the place in
training alone.
"""

import keras
import pytest

from trainables.core.training_config import Training
from trainables.core.training_sections import RateSchedule
from trainables.training.schedules import block_share, learning_rate

STEPS = 4  # of an epoch


def rates(training: Training, merits: list[float] | None = None) -> list[float]:
    """The rate of every step."""
    merits = merits or [0.0] * training.epochs
    return [
        learning_rate(training, epoch, step, STEPS, merits[: epoch - 1])
        for epoch in range(1, training.epochs + 1)
        for step in range(STEPS)
    ]


def training(kind: str, **schedule: object) -> Training:
    values = {"kind": kind, **schedule}
    return Training(epochs=5, learning_rate=0.5, schedule=RateSchedule.model_validate(values))


def test_a_constant_rate_is_the_stated_one() -> None:
    assert rates(training("constant")) == [0.5] * 20


@pytest.mark.parametrize("final", [0.0, 0.1])
def test_cosine_equals_keras(final: float) -> None:
    theirs = keras.optimizers.schedules.CosineDecay(0.5, 20, alpha=final)
    ours = rates(training("cosine", final=final))
    assert ours == pytest.approx([float(theirs(step)) for step in range(20)], abs=1e-7)


def test_cosine_after_a_warm_up_equals_keras() -> None:
    theirs = keras.optimizers.schedules.CosineDecay(0.0, 14, warmup_target=0.5, warmup_steps=6)
    ours = rates(training("cosine", warmup_epochs=1.5))
    assert ours == pytest.approx([float(theirs(step)) for step in range(20)], abs=1e-7)


def test_exponential_equals_keras() -> None:
    theirs = keras.optimizers.schedules.ExponentialDecay(0.5, 20, 0.2)
    ours = rates(training("exponential", final=0.2))
    assert ours == pytest.approx([float(theirs(step)) for step in range(20)], abs=1e-7)


def test_one_cycle_rises_to_the_peak_and_ends_far_below_its_start() -> None:
    """Values of torch.optim.lr_scheduler.OneCycleLR(max_lr=0.5, total_steps=20)."""
    found = rates(training("one_cycle"))
    assert found[0] == pytest.approx(0.02)
    assert found[5] == pytest.approx(0.5)
    assert max(found) == found[5]
    assert found[2] == pytest.approx(0.02 + 0.48 * (1 - 0.30901699) / 2, rel=1e-6)
    assert found[12] == pytest.approx((0.5 + 2e-6) / 2, rel=1e-6)
    assert found[-1] == pytest.approx(2e-6)


def test_plateau_lowers_as_keras_does() -> None:
    losses = [1.0, 0.9, 0.9, 0.95, 0.9, 0.89, 0.91, 0.92, 0.93, 0.94, 0.95, 0.96]
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.5), "mse")
    callback = keras.callbacks.ReduceLROnPlateau("loss", factor=0.3, patience=2, min_delta=0)
    callback.set_model(model)
    callback.on_train_begin()
    theirs = []
    for epoch, loss in enumerate(losses):
        theirs.append(float(model.optimizer.learning_rate))
        callback.on_epoch_end(epoch, {"loss": loss})
    plan = training("plateau", factor=0.3, patience=2).model_copy(update={"epochs": len(losses)})
    ours = rates(plan, [-loss for loss in losses])[::STEPS]
    assert ours == pytest.approx(theirs, rel=1e-6)
    assert len(set(theirs)) > 3


@pytest.mark.parametrize(
    ("frozen", "fine", "expected"),
    [
        (0, None, [0.5, 0.5, 0.5]),
        (0, 0.25, [0.5, 0.5, 0.5]),  # nothing is released where nothing was frozen
        (2, None, [0.5, 0.5, 0.5]),
        (2, 0.25, [0.5, 0.5, 0.25]),
        (3, 0.25, [0.5, 0.5, 0.5]),
    ],
)
def test_the_learning_rate_changes_when_the_backbone_is_released(
    frozen: int, fine: float | None, expected: list[float]
) -> None:
    plan = Training(epochs=3, learning_rate=0.5, frozen_epochs=frozen, fine_tune_learning_rate=fine)
    assert rates(plan)[::STEPS] == expected


def test_a_schedule_begins_with_the_release_of_the_backbone() -> None:
    plan = training("cosine").model_copy(update={"frozen_epochs": 2})
    assert rates(plan)[:8] == [0.5] * 8
    alone = training("cosine").model_copy(update={"epochs": 3})
    assert rates(plan)[8:] == rates(alone)


def test_where_all_epochs_are_frozen_the_schedule_runs_over_them() -> None:
    plan = training("cosine").model_copy(update={"frozen_epochs": 5})
    assert rates(plan) == rates(training("cosine"))


def test_blocks_are_released_from_the_head_back() -> None:
    plan = Training(frozen_epochs=1, thaw_every=2, layer_decay=0.5)
    shares = [[block_share(plan, epoch, d) for d in range(4)] for epoch in (2, 3, 4, 6)]
    assert shares == [[1, 0.5, 0, 0], [1, 0.5, 0, 0], [1, 0.5, 0.25, 0], [1, 0.5, 0.25, 0.125]]
    assert [block_share(Training(), 1, d) for d in range(3)] == [1, 1, 1]
