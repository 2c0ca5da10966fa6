"""Losses are Keras's, or their papers', and mixing does what it says on average."""

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.trainables.training.test_session import PLAIN
from trainables.training.losses import Losses, Mixing

RNG = np.random.default_rng(0)
LOGITS = (4 * RNG.normal(size=(20, 3))).astype(np.float32)
LABELS = RNG.integers(0, 3, 20)
TRUTH = tf.one_hot(LABELS, 3)
NUMBERS = {"gamma": 2.0, "tau": 1.0, "label_smoothing": 0.0}


def losses(priors: tuple[float, ...] = (1 / 3,) * 3, **stated: Any) -> np.ndarray:
    numbers = {name: stated.pop(name, value) for name, value in NUMBERS.items()}
    made = Losses(PLAIN.model_copy(update={"n_classes": 3, **stated}))
    made.set_numbers(numbers, priors)
    return made(TRUTH, tf.constant(LOGITS)).numpy()


def test_label_smoothing_equals_keras() -> None:
    reference = keras.losses.CategoricalCrossentropy(
        from_logits=True, label_smoothing=0.2, reduction=None
    )
    ours = losses(smooths=True, label_smoothing=0.2)
    np.testing.assert_allclose(ours, reference(TRUTH, LOGITS).numpy(), rtol=1e-5)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 3.0])
def test_focal_equals_keras(gamma: float) -> None:
    reference = keras.losses.CategoricalFocalCrossentropy(
        alpha=1.0, gamma=gamma, from_logits=True, reduction=None
    )
    ours = losses(loss="focal", gamma=gamma)
    np.testing.assert_allclose(ours, reference(TRUTH, LOGITS).numpy(), rtol=1e-4, atol=1e-5)


def test_focal_has_a_gradient_where_the_model_is_sure() -> None:
    made = Losses(PLAIN.model_copy(update={"loss": "focal"}))
    made.set_numbers({**NUMBERS, "gamma": 0.5}, [0.5, 0.5])
    logits = tf.Variable([[300.0, -300.0], [-300.0, 300.0]])
    with tf.GradientTape() as tape:
        loss = made(tf.constant([[1.0, 0.0], [1.0, 0.0]]), logits)
    assert np.isfinite(tape.gradient(loss, logits).numpy()).all()


def test_logit_adjustment_is_its_papers() -> None:
    priors = np.array([0.7, 0.2, 0.1])
    shifted = LOGITS.astype(np.float64) + 1.5 * np.log(priors)
    expected = np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(20), LABELS]
    ours = losses(tuple(priors), loss="logit_adjusted", tau=1.5)
    np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_labels_are_mixed_as_images_are(kind: str) -> None:
    """Images that are nothing but their label: what is mixed of one is mixed of the other."""
    mixing = Mixing(kind)
    mixing.alpha.assign(0.5)
    truth = tf.one_hot(np.arange(8) % 2, 2)
    images = tf.tile(truth[:, None, None, 1:], (1, 40, 40, 1))
    shares = []
    for _ in range(300):
        mixed, labels = mixing(images, truth)
        np.testing.assert_allclose(
            mixed.numpy().mean(axis=(1, 2, 3)), labels[:, 1].numpy(), atol=1e-5
        )
        np.testing.assert_allclose(labels.numpy().sum(axis=1), 1, rtol=1e-6)
        assert mixed.numpy().min() >= 0
        assert mixed.numpy().max() <= 1
        shares += [float(each) for each in labels[:, 1] if 0 < each < 1]
    assert np.mean(shares) == pytest.approx(0.5, abs=0.05)
    assert len(set(np.round(shares, 3))) > 100


def test_mixup_draws_its_share_from_beta() -> None:
    mixing = Mixing("mixup")
    mixing.alpha.assign(0.4)
    drawn = np.array([mixing._beta().numpy() for _ in range(3000)])
    assert drawn.mean() == pytest.approx(0.5, abs=0.02)
    assert drawn.var() == pytest.approx(1 / (4 * (2 * 0.4 + 1)), abs=0.01)
