"""The optimizers take the steps of Keras's own."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainables.training.optimizers import SGD, Adam


@pytest.mark.parametrize(
    ("optimizer_class", "reference"),
    [(Adam, keras.optimizers.Adam(3e-3)), (SGD, keras.optimizers.SGD(3e-3, momentum=0.9))],
)
def test_ten_steps_equal_keras(
    optimizer_class: type, reference: keras.optimizers.Optimizer
) -> None:
    rng = np.random.default_rng(0)
    shapes = [(3, 3, 2, 4), (4,), (), (5, 7)]
    ours = [keras.Variable(rng.normal(size=shape), dtype="float32") for shape in shapes]
    theirs = [keras.Variable(variable.numpy(), dtype="float32") for variable in ours]
    optimizer = optimizer_class(ours)
    optimizer.learning_rate.assign(3e-3)
    for _ in range(10):
        gradients = [
            tf.constant(rng.normal(size=shape) * 10.0 ** rng.integers(-6, 2), tf.float32)
            for shape in shapes
        ]
        tf.function(optimizer.apply)(gradients)
        reference.apply(gradients, theirs)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-5, atol=1e-7)


def test_a_reset_optimizer_starts_over() -> None:
    start = [np.array([1.0, 2.0], np.float32)]
    results = []
    variables = [keras.Variable(start[0])]
    optimizer = Adam(variables)
    optimizer.learning_rate.assign(0.1)
    for _ in range(2):
        variables[0].assign(start[0])
        optimizer.reset()
        for step in range(3):
            optimizer.apply([tf.constant([1.0, -2.0 * step])])
        results.append(variables[0].numpy().tobytes())
    assert results[0] == results[1]
