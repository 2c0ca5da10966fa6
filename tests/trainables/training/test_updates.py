"""What happens to gradients on their way to new weights."""

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.trainables.training.test_session import PLAIN
from trainables.training.updates import Averages, Updates

RNG = np.random.default_rng(0)
START = RNG.normal(size=(4, 3)).astype(np.float32)
GRADIENTS = [tf.constant(RNG.normal(size=(4, 3)) * 10, tf.float32) for _ in range(20)]


def updates(variable: Any, averages: Averages | None = None, **changes: Any) -> Updates:
    made = Updates([variable], PLAIN.model_copy(update=changes), averages)
    made.optimizer.set_numbers({"learning_rate": 0.01})
    return made


def test_clipping_equals_keras() -> None:
    ours, theirs = keras.Variable(START), keras.Variable(START)
    made = updates(ours, clips=True)
    made.clip_norm.assign(2.0)
    reference = keras.optimizers.Adam(0.01, global_clipnorm=2.0)
    for gradient in GRADIENTS:
        made.apply([gradient], tf.constant(4))
        reference.apply([gradient], [theirs])
    np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-5, atol=1e-6)


def test_averages_equal_keras() -> None:
    ours, theirs = keras.Variable(START), keras.Variable(START)
    averages = Averages([ours])
    averages.decay.assign(0.9)
    made = updates(ours, averages)
    reference = keras.optimizers.Adam(0.01, use_ema=True, ema_momentum=0.9)
    for gradient in GRADIENTS:
        made.apply([gradient], tf.constant(4))
        reference.apply([gradient], [theirs])
    raw = ours.numpy()
    averages.swap()
    reference.finalize_variable_values([theirs])
    np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-5, atol=1e-6)
    averages.swap()
    assert np.array_equal(ours.numpy(), raw)


@pytest.mark.parametrize("sizes", [(4, 4, 4), (4, 4, 1)])
def test_gradients_of_several_batches_move_as_those_of_their_images_together(
    sizes: tuple[int, ...],
) -> None:
    alone, together = keras.Variable(START), keras.Variable(START)
    accumulated, plain = updates(alone, accumulates=True), updates(together)
    step = tf.function(accumulated.apply)
    for start in (0, 3, 6):
        for number, size in enumerate(sizes):
            before = alone.numpy()
            step([GRADIENTS[start + number]], tf.constant(size), tf.constant(number == 2))
            assert np.array_equal(alone.numpy(), before) is (number < 2)
        three = [size * GRADIENTS[start + number] for number, size in enumerate(sizes)]
        plain.apply([tf.add_n(three) / sum(sizes)], tf.constant(sum(sizes)))
        np.testing.assert_allclose(alone.numpy(), together.numpy(), rtol=1e-5, atol=1e-6)


def test_forgotten_sums_do_not_reach_the_next_cell() -> None:
    variable = keras.Variable(START)
    made = updates(variable, accumulates=True)
    made.apply([GRADIENTS[0]], tf.constant(4), tf.constant(False))
    made.reset()
    assert all(not np.any(each.numpy()) for each in made.variables)
