"""What learns of a model and how fast, against gradients and optimizers of Keras."""

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.trainables.training.test_session import LABELS, PIXELS, PLAIN, heads, moved
from trainables.core.errors import ModelError
from trainables.core.training_config import Training
from trainables.training.session import Session

__all__ = ["heads"]  # a fixture
WEIGHTS = np.ones(16, np.float32)
RATE = 1e-2
BACKBONE = {"conv1", "bn1", "conv2", "bn2", "conv3", "bn3", "conv4", "bn4"}


def session(training: Training, **changes: Any) -> Session:
    made = Session(PLAIN.model_copy(update={"optimizer": training.optimizer, **changes}), 0)
    made.reset(0)
    made.set_numbers(training, [0.5, 0.5])
    made.set_learning_rate(RATE)
    return made


def steps_of_keras(model: keras.Model, number: int) -> None:
    """Steps with what of the model is trainable, as Keras's guide to transfer learning takes
    them.
    """
    optimizer = keras.optimizers.Adam(RATE)
    truth = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    for _ in range(number):
        with tf.GradientTape() as tape:
            loss = truth(LABELS, model(PIXELS.astype(np.float32), training=True))
        optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)


def test_what_is_frozen_is_frozen_as_in_keras() -> None:
    ours = session(Training(), frozen_until="conv3")
    theirs = keras.models.clone_model(ours.model)
    theirs.set_weights(ours.weights())
    start = ours.weights()
    for layer in theirs.layers[: theirs.layers.index(theirs.get_layer("conv3"))]:
        layer.trainable = False
    steps_of_keras(theirs, 3)
    for _ in range(3):
        ours.train_step(PIXELS, LABELS, WEIGHTS, False)
    for variable, mine, before in zip(theirs.weights, ours.weights(), start, strict=True):
        np.testing.assert_allclose(mine, variable.numpy(), rtol=2e-3, atol=1e-5)
        frozen = variable.path.split("/")[0] in ("conv1", "bn1", "conv2", "bn2")
        assert np.array_equal(mine, before) is frozen  # moving statistics, too


@pytest.mark.parametrize("name", ["nested", "named", "wrapped"])
def test_a_builders_layers_freeze_by_name_in_nested_models_too(name: str) -> None:
    ours = session(Training(), model=f"head_models:{name}", frozen_until="high")
    assert moved(ours, False) == {"high", "mine"}
    ours.set_learning_rate(0.0)
    # Dropout before it rests.
    assert len({float(ours.train_step(PIXELS, LABELS, WEIGHTS, False)[0]) for _ in range(3)}) == 1


@pytest.mark.parametrize(
    ("model", "start", "said"),
    [
        (
            "TinyCNN",
            "block5",
            "got 'block5'; there are conv1, conv2, conv3, conv4 ",
        ),
        ("head_models:named", "hihg", "got 'hihg'; did you mean 'high'"),
        ("head_models:named", "logits", "leaves something to learn, got 'logits'"),
    ],
)
def test_a_name_that_no_layer_has_is_one_line(model: str, start: str, said: str) -> None:
    with pytest.raises(ModelError, match=said):
        session(Training(), model=model, frozen_until=start)


def test_dropout_of_the_head_is_live_where_all_before_it_is_frozen() -> None:
    ours = session(Training(), dropout=0.5, frozen_until="logits")
    assert moved(ours, False) == {"logits"}
    ours.set_learning_rate(0.0)
    assert len({float(ours.train_step(PIXELS, LABELS, WEIGHTS, False)[0]) for _ in range(3)}) == 3


def test_a_block_moves_by_its_share() -> None:
    training = Training(optimizer="sgd", momentum=0.0, layer_decay=0.5)
    changes = []
    for layered in (False, True):
        ours = session(training, layered=layered)
        ours.set_epoch(training, 1)
        before = ours.weights()
        ours.train_step(PIXELS, LABELS, WEIGHTS, False)
        changes.append([b - a for a, b in zip(before, ours.weights(), strict=True)])
    # Four convolutions, each with its normalisation, and the head.
    distance = {
        "conv1": 4,
        "bn1": 4,
        "conv2": 3,
        "bn2": 3,
        "conv3": 2,
        "bn3": 2,
        "conv4": 1,
        "bn4": 1,
    }
    for variable, whole, part in zip(ours.model.weights, *changes, strict=True):
        layer, name = variable.path.split("/")
        share = 1.0 if name.startswith("moving") else 0.5 ** distance.get(layer, 0)
        np.testing.assert_allclose(part, share * whole, rtol=1e-2, atol=1e-6)
        assert np.any(whole)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_blocks_are_released_one_after_another(optimizer: str) -> None:
    training = Training(
        optimizer=optimizer, weight_decay=0.1, frozen_epochs=2, thaw_every=2, layer_decay=0.5
    )
    ours = session(training, layered=True, decays=True)
    learnt = []
    for epoch in (3, 4, 5, 7, 9):
        ours.set_epoch(training, epoch)
        before = {v.path: v.numpy() for v in ours.model.trainable_variables}
        for _ in range(2):
            ours.train_step(PIXELS, LABELS, WEIGHTS, False)
        now = {v.path: v.numpy() for v in ours.model.trainable_variables}
        still = {path.split("/")[0] for path in now if np.array_equal(now[path], before[path])}
        learnt.append(BACKBONE - still)
    expected = [{"conv4", "bn4"}, {"conv4", "bn4"}, {"conv3", "bn3", "conv4", "bn4"}]
    assert learnt == [*expected, BACKBONE - {"conv1", "bn1"}, BACKBONE]
