"""What the scores say of trained models whose answer is known: an honest one and one that learned a
corner marker.

One file, so that each of the two is trained once.
"""

import random
from collections.abc import Callable

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.special import softmax

from tests.xai.judging.test_sanity import by_edges
from tests.xai.trained import SIZE, trained
from xai.judging.agreement import exposure, flagged, localisation, shortcuts
from xai.judging.faithfulness import faithfulness
from xai.judging.heat import Floats, evidence, upsample
from xai.judging.intervals import holm, interval, p_above_zero
from xai.judging.sanity import Explain, cascade
from xai.methods.classifier import Classifier
from xai.methods.registry import method_named

# --- agreement ------------------------------------------------------------------------------------


def heat_of(marked: bool) -> np.ndarray:
    pixels = trained(marked).pixels
    maps = method_named("gradcam").explain(
        Classifier(trained(marked).model), pixels, np.ones((len(pixels), 1), np.int32)
    )
    return upsample(evidence(maps[:, 0], True), SIZE)


def exposed(heat: np.ndarray, lungs: np.ndarray) -> set[str]:
    """The regions in which a model has surely more energy than chance, of fewer patients than the
    demo has.
    """
    found = shortcuts(heat, lungs)
    regions = [name for name in found if f"{name}_ratio" in found]
    patients = np.arange(len(heat)) // 2
    p = [p_above_zero(exposure(found[name], found[f"{name}_ratio"]), patients) for name in regions]
    return {name for name, flag in zip(regions, flagged(holm(np.array(p))), strict=True) if flag}


def test_an_honest_model_points_at_the_opacity() -> None:
    assert trained(False).accuracy > 0.9
    heat = heat_of(False)
    found = localisation(heat, trained(False).opacity)
    assert found["pointing"].mean() >= 0.8
    assert found["energy_ratio"].mean() > 3
    assert exposed(heat, trained(False).lungs) == set()


def test_a_model_that_learned_a_corner_marker_is_exposed() -> None:
    assert trained(True).accuracy > 0.9
    heat = heat_of(True)
    assert "corner_top_right" in exposed(heat, trained(True).lungs)
    assert (shortcuts(heat)["corner_top_right_ratio"] > 1).mean() > 0.9
    assert localisation(heat, trained(True).opacity)["pointing"].mean() < 0.3


# --- faithfulness ---------------------------------------------------------------------------------


def test_a_trained_models_map_beats_random_ones_of_its_smoothness() -> None:
    classifier, pixels = Classifier(trained(False).model), trained(False).pixels
    targets = np.ones((len(pixels), 1), np.int32)
    maps = method_named("gradcam").explain(classifier, pixels, targets)[:, 0]
    assert maps.shape == (len(pixels), SIZE // 8, SIZE // 8)
    found = faithfulness(
        lambda x: softmax(classifier.logits(x), axis=1), pixels, maps, True, targets[:, 0], 0
    )
    for better, worse in (
        ("deletion", "deletion_blurred_random"),
        ("insertion_blurred_random", "insertion"),
    ):
        assert (
            interval(found.scores[better] - found.scores[worse], np.arange(len(pixels)), 0).high < 0
        )


# --- sanity ---------------------------------------------------------------------------------------


def by_gradcam(model: keras.Model) -> Explain:
    classifier, method = Classifier(model), method_named("gradcam")

    def explain(_: keras.Model, pixels: np.ndarray) -> Floats:
        maps = method.explain(classifier, pixels, np.ones((len(pixels), 1), np.int32))
        return evidence(maps[:, 0], method.positive)

    return explain


@tf.custom_gradient
def guided_relu(x: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
    """A ReLU that lets back only what is positive (Springenberg 2015, arXiv:1412.6806)."""
    return tf.nn.relu(x), lambda gradient: tf.where(x > 0, tf.nn.relu(gradient), 0.0)


def by_guided_backpropagation(model: keras.Model) -> Explain:
    def guide(layer: keras.Layer) -> keras.Layer:
        if isinstance(layer, keras.layers.ReLU):
            return keras.layers.Activation(guided_relu, name=layer.name)
        return type(layer).from_config(layer.get_config())

    guided = keras.models.clone_model(model, clone_function=guide)
    logits = keras.Model(guided.inputs, guided.get_layer("logits").output)

    def explain(present: keras.Model, pixels: np.ndarray) -> Floats:
        guided.set_weights(present.get_weights())
        x = tf.convert_to_tensor(pixels, tf.float32)
        with tf.GradientTape() as tape:
            tape.watch(x)
            target = logits([x], training=False)[:, 1]
        return evidence(tape.gradient(target, x).numpy().max(axis=-1), True)

    return explain


def test_gradcam_passes() -> None:
    model = trained(False).model
    before, state = model.get_weights(), random.getstate()
    found = cascade(model, by_gradcam(model), trained(False).pixels[:16], 0)
    assert found.stages == ("logits", "conv4", "conv3", "conv2", "conv1")
    assert found.spearman.shape == found.ssim.shape == (3, 5, 16)
    assert found.passed
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))
    assert random.getstate() == state


def test_guided_backpropagation_fails() -> None:
    model = trained(False).model
    found = cascade(model, by_guided_backpropagation(model), trained(False).pixels[:16], 0)
    assert found.similarity[1] > 0.6  # head and last convolution are random, and it hardly shows
    assert not found.passed


def test_what_ignores_the_model_fails() -> None:
    model, pixels = trained(False).model, trained(False).pixels[:4]
    edges = cascade(model, by_edges, pixels, 0)
    assert edges.similarity == pytest.approx(1)
    assert edges.ssim == pytest.approx(1)
    assert not edges.passed
    flat = cascade(model, lambda _, x: np.ones((len(x), 5, 5), np.float32), pixels, 0)
    assert np.isnan(flat.similarity).all()
    assert not flat.passed
