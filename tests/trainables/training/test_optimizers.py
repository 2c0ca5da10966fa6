"""The optimizers take the steps of Keras's own, and of their papers."""

from collections.abc import Callable
from functools import partial
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainables.training.optimizers import SGD, Adam, Lamb, Lion, Optimizer

RATE, STEPS = 3e-3, 20
SHAPES = [(3, 3, 2, 4), (4,), (), (5, 7)]

PAIRS: dict[str, tuple[Callable[..., Optimizer], dict[str, float], Any]] = {
    "adam": (Adam, {}, keras.optimizers.Adam(RATE)),
    "adam, numbers": (
        Adam,
        {"beta_1": 0.8, "beta_2": 0.95, "epsilon": 1e-3},
        keras.optimizers.Adam(RATE, beta_1=0.8, beta_2=0.95, epsilon=1e-3),
    ),
    "adamw": (
        partial(Adam, decays=True),
        {"weight_decay": 0.3},
        keras.optimizers.AdamW(RATE, weight_decay=0.3),
    ),
    "sgd": (SGD, {}, keras.optimizers.SGD(RATE, momentum=0.9)),
    "sgd, nesterov, decay": (
        partial(SGD, decays=True, nesterov=True),
        {"momentum": 0.7, "weight_decay": 0.3},
        keras.optimizers.SGD(RATE, momentum=0.7, nesterov=True, weight_decay=0.3),
    ),
    "lion": (Lion, {}, keras.optimizers.Lion(RATE)),
    "lion, decay": (
        partial(Lion, decays=True),
        {"beta_1": 0.8, "beta_2": 0.95, "weight_decay": 0.3},
        keras.optimizers.Lion(RATE, beta_1=0.8, beta_2=0.95, weight_decay=0.3),
    ),
    "lamb": (Lamb, {}, keras.optimizers.Lamb(RATE)),
}


def gradients(rng: np.random.Generator) -> list[tf.Tensor]:
    return [
        tf.constant(rng.normal(size=shape) * 10.0 ** rng.integers(-6, 2), tf.float32)
        for shape in SHAPES
    ]


@pytest.mark.parametrize("pair", PAIRS)
def test_twenty_steps_equal_keras(pair: str) -> None:
    create, numbers, reference = PAIRS[pair]
    rng = np.random.default_rng(0)
    ours = [keras.Variable(rng.normal(size=shape), dtype="float32") for shape in SHAPES]
    theirs = [keras.Variable(variable.numpy(), dtype="float32") for variable in ours]
    reference.exclude_from_weight_decay([each for each in theirs if len(each.shape) < 2])
    optimizer = create(ours)
    optimizer.set_numbers({"learning_rate": RATE, **numbers})
    step = tf.function(optimizer.apply)
    for _ in range(STEPS):
        now = gradients(rng)
        step(now)
        reference.apply(now, theirs)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("pair", PAIRS)
def test_shares_are_learning_rates_of_their_own(pair: str) -> None:
    """One optimizer of Keras for each variable, as groups of parameters have in PyTorch."""
    create, numbers, reference = PAIRS[pair]
    rng = np.random.default_rng(0)
    shares = [1.0, 0.5, 0.25, 0.0]
    ours = [keras.Variable(rng.normal(size=shape), dtype="float32") for shape in SHAPES]
    theirs = [keras.Variable(variable.numpy(), dtype="float32") for variable in ours]
    last = ours[-1].numpy()
    config = reference.get_config()
    each = [
        type(reference).from_config({**config, "learning_rate": RATE * share}) for share in shares
    ]
    for one, variable in zip(each, theirs, strict=True):
        one.exclude_from_weight_decay([variable] if len(variable.shape) < 2 else [])
    optimizer = create(ours, layered=True)
    optimizer.set_numbers({"learning_rate": RATE, **numbers})
    optimizer.shares.assign(shares)
    step = tf.function(optimizer.apply)
    for _ in range(STEPS):
        now = gradients(rng)
        step(now)
        for one, gradient, variable in zip(each, now, theirs, strict=True):
            one.apply([gradient], [variable])
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-5, atol=1e-7)
    assert np.array_equal(ours[-1].numpy(), last)


def test_lamb_with_weight_decay_is_its_papers() -> None:
    """You et al. (2020), algorithm 2: the decay is within what the norm scales."""
    rng = np.random.default_rng(1)
    variable = keras.Variable(rng.normal(size=(4, 3)), dtype="float32")
    optimizer = Lamb([variable], decays=True)
    optimizer.set_numbers({"learning_rate": RATE, "weight_decay": 0.3})
    x, m, v = variable.numpy().astype(np.float64), 0.0, 0.0
    for number in range(1, STEPS + 1):
        gradient = rng.normal(size=(4, 3))
        optimizer.apply([tf.constant(gradient, tf.float32)])
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        step = (m / (1 - 0.9**number)) / (np.sqrt(v / (1 - 0.999**number)) + 1e-7) + 0.3 * x
        x = x - RATE * np.linalg.norm(x) / np.linalg.norm(step) * step
    np.testing.assert_allclose(variable.numpy(), x, rtol=1e-5)


def test_a_reset_optimizer_starts_over() -> None:
    start = [np.array([1.0, 2.0], np.float32)]
    results = []
    variables = [keras.Variable(start[0])]
    optimizer = Adam(variables)
    optimizer.set_numbers({"learning_rate": 0.1})
    for _ in range(2):
        variables[0].assign(start[0])
        optimizer.reset()
        for step in range(3):
            optimizer.apply([tf.constant([1.0, -2.0 * step])])
        results.append(variables[0].numpy().tobytes())
    assert results[0] == results[1]
