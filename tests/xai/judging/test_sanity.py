"""Grad-CAM depends on what the model learned, guided backpropagation hardly, and an edge detector
not at all.
"""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.xai.trained import trained
from xai.judging.heat import Floats, evidence
from xai.judging.sanity import Explain, cascade, ssim
from xai.methods.classifier import Classifier
from xai.methods.registry import method_named


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


def by_edges(model: keras.Model, pixels: np.ndarray) -> Floats:
    """What Adebayo warns of: it looks sensible and knows no model."""
    return np.abs(np.gradient(pixels[..., 0].astype(np.float32), axis=1))


def chain(*layers: Any) -> keras.Model:
    return keras.Sequential([keras.Input((16, 16, 1)), *layers])


def convolution(name: str) -> keras.Layer:
    return keras.layers.Conv2D(4, 3, padding="same", activation="relu", name=name)


# --- verdicts -------------------------------------------------------------------------------------


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


def test_a_randomised_model_without_evidence_is_unlike() -> None:
    model, pixels = (
        chain(convolution("a"), keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(2)),
        None,
    )
    pixels = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 1), np.uint8)
    answers = iter([by_edges(model, pixels), *6 * [np.zeros((3, 16, 16), np.float32)]])
    found = cascade(model, lambda *_: next(answers), pixels, 0)
    assert (found.spearman == 0).all()


# --- what becomes random --------------------------------------------------------------------------


def weights_at_each_stage(model: keras.Model, seed: int = 0) -> list[dict[str, np.ndarray]]:
    """The weights at every call of `explain`, by path; the first are the model's own."""
    seen = []

    def explain(present: keras.Model, pixels: np.ndarray) -> Floats:
        seen.append({weight.path: weight.numpy() for weight in present.weights})
        return by_edges(present, pixels)

    cascade(
        model, explain, np.random.default_rng(0).integers(0, 256, (1, 16, 16, 1), np.uint8), seed
    )
    return seen


def changed(before: dict[str, np.ndarray], after: dict[str, np.ndarray]) -> set[str]:
    return {name.split("/")[-2] for name in before if not np.array_equal(before[name], after[name])}


def test_layers_become_random_from_the_head_down_through_nested_models(tmp_path: Path) -> None:
    inner = chain(convolution("a"), keras.layers.BatchNormalization(name="norm"), convolution("b"))
    model = chain(inner, keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(2, name="head"))
    model.set_weights([weight + 1 for weight in model.get_weights()])
    path = tmp_path / "it's a model.keras"
    model.save(path)
    for opened in (model, keras.models.load_model(path)):
        seen = weights_at_each_stage(opened)
        assert len(seen) == 1 + 3 * 3
        assert [changed(seen[0], at) for at in seen[1:4]] == [
            {"head"},
            {"head", "b"},
            {"head", "b", "norm", "a"},
        ]
        # The next draw starts from the learned weights.
        assert changed(seen[0], seen[4]) == {"head"}
        assert changed(seen[1], seen[4]) == {"head"}  # and draws others
        fresh = {
            name.rsplit("/", 2)[-2:][1]: weight
            for name, weight in seen[3].items()
            if "norm" in name
        }
        assert [fresh[name][0] for name in ("gamma", "beta", "moving_mean", "moving_variance")] == [
            1,
            0,
            0,
            1,
        ]


def test_deep_models_have_six_stages() -> None:
    layers = [convolution(f"c{index:02}") for index in range(23)]
    model = chain(
        *layers, keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(2, name="head")
    )
    found = cascade(
        model, by_edges, np.random.default_rng(0).integers(0, 256, (1, 16, 16, 1), np.uint8), 0
    )
    assert found.stages == ("head", "c18", "c13", "c08", "c04", "c00")


def test_same_seed_same_randomness() -> None:
    model = chain(
        convolution("a"), keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(2, name="head")
    )
    first, again, other = (weights_at_each_stage(model, seed)[-1] for seed in (1, 1, 2))
    assert changed(first, again) == set()
    assert changed(first, other) == {"a", "head"}


def test_weights_are_restored_when_explaining_fails() -> None:
    model = chain(convolution("a"), keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(2))
    before, calls = model.get_weights(), []

    def explain(_: keras.Model, pixels: np.ndarray) -> Floats:
        calls.append(1)
        if len(calls) == 3:
            raise MemoryError
        return by_edges(model, pixels)

    with pytest.raises(MemoryError):
        cascade(
            model, explain, np.random.default_rng(0).integers(0, 256, (1, 16, 16, 1), np.uint8), 0
        )
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))


# --- structural similarity ------------------------------------------------------------------------


def test_ssim_by_hand() -> None:
    noise = np.random.default_rng(0).random((2, 32, 32)).astype(np.float32)
    assert ssim(noise, noise) == pytest.approx(1)
    assert (ssim(noise, noise[::-1]) < 0.3).all()
    flat = np.ones((1, 32, 32), np.float32)
    assert ssim(0.2 * flat, 0.6 * flat) == pytest.approx((2 * 0.12 + 1e-4) / (0.04 + 0.36 + 1e-4))
    assert ssim(noise[:1], 1 - noise[:1]) < 0
