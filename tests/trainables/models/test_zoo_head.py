"""Heads and regularisers of the zoo against their papers' formulas and Keras's own; plain Keras opens
what they make.
"""

import random
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.trainables.models.test_zoo import build, call, noise, weight_bytes
from trainables.core.training_sections import ClassifierHead
from trainables.models import lite0
from trainables.models.zoo_head import _generalised_mean, add_head, drop_branch, drop_rates

POOLINGS = ("average", "max", "gem", "attention")


def with_head(pooling: str, hidden: int | None = None, name: str = "TinyCNN", **others: Any) -> Any:
    """The weights of its head are no longer those that it begins with."""
    model = build(name, head=ClassifierHead(pooling=pooling, hidden=hidden), **others)
    rng = np.random.default_rng(5)
    for layer in model.layers:
        if layer.name in ("attention", "hidden", "logits"):
            layer.set_weights([rng.normal(0, 0.5, w.shape) for w in layer.get_weights()])
        if layer.name == "gem":
            layer.set_weights([np.array([2.5])])
    return model


def pooled(model: Any, a: np.ndarray, pooling: str) -> np.ndarray:
    """The papers' formulas, on feature maps (b, h, w, c)."""
    a = a.astype(np.float64)
    if pooling == "average":
        return a.mean(axis=(1, 2))
    if pooling == "max":
        return a.max(axis=(1, 2))
    if pooling == "gem":
        return (np.maximum(a, 1e-6) ** 2.5).mean(axis=(1, 2)) ** (1 / 2.5)
    scores = np.exp(a @ model.get_layer("attention").get_weights()[0])
    return (scores / scores.sum(axis=(1, 2), keepdims=True) * a).sum(axis=(1, 2))


@pytest.mark.parametrize("hidden", [None, 7])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_head_is_its_formula_and_plain_keras_opens_it(
    pooling: str, hidden: int | None, tmp_path: Path
) -> None:
    model, images = with_head(pooling, hidden), noise(1, n=3)
    features = call(keras.Model(model.inputs, model.get_layer("relu4").output), images)
    x = pooled(model, features, pooling)
    if hidden is not None:
        kernel, bias = model.get_layer("hidden").get_weights()
        x = np.maximum(x @ kernel + bias, 0)
    kernel, bias = model.get_layer("logits").get_weights()
    logits = call(model, images)
    np.testing.assert_allclose(logits, x @ kernel + bias, rtol=1e-4, atol=1e-5)
    model.save(tmp_path / "model.keras")
    opened = keras.models.load_model(tmp_path / "model.keras", safe_mode=True)
    np.testing.assert_array_equal(call(opened, images), logits)
    for layer in model.layers:
        assert type(layer) is getattr(keras.layers, type(layer).__name__)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["MobileNetV3Small", "ConvNeXtTiny"])
def test_the_head_of_a_backbone_with_operations_and_a_norm(name: str, tmp_path: Path) -> None:
    for pooling in ("gem", "attention"):
        model, images = with_head(pooling, 5, name), noise(1)
        names = [layer.name for layer in model.layers]
        assert names[-3:] == ["hidden", "dropout", "logits"]
        model.save(tmp_path / "model.keras")
        opened = keras.models.load_model(tmp_path / "model.keras", safe_mode=True)
        np.testing.assert_array_equal(call(opened, images), call(model, images))


@pytest.mark.parametrize("pooling", ["gem", "attention"])
def test_one_place_is_pooled_to_itself(pooling: str) -> None:
    features = keras.Input((1, 1, 4))
    logits = add_head(features, None, ClassifierHead(pooling=pooling), (0.0, 0.0), 4)
    model = keras.Model(features, logits)
    model.get_layer("logits").set_weights([np.eye(4, dtype=np.float32), np.zeros(4)])
    maps = np.random.default_rng(0).uniform(0.1, 2, (3, 1, 1, 4)).astype(np.float32)
    np.testing.assert_allclose(model(maps), maps[:, 0, 0], rtol=1e-5)


def test_gem_begins_at_3_and_attention_as_the_mean() -> None:
    gem, attention = (
        build("TinyCNN", head=ClassifierHead(pooling=kind)) for kind in ("gem", "attention")
    )
    assert gem.get_layer("gem").get_weights() == [np.array([3.0], np.float32)]
    images = noise(1)
    features = call(keras.Model(attention.inputs, attention.get_layer("relu4").output), images)
    ours = call(keras.Model(attention.inputs, attention.get_layer("pool").output), images)
    np.testing.assert_allclose(ours, features.mean(axis=(1, 2)), rtol=1e-5)


@pytest.mark.parametrize("exponent", [-2.0, 1.0, 3.0, 60.0])
def test_gem_and_its_gradients_are_finite_whatever_it_is_given(exponent: float) -> None:
    places = keras.Input((9, 2))
    model = keras.Model(places, _generalised_mean(places))
    model.get_layer("gem").set_weights([np.array([exponent])])
    rng = np.random.default_rng(0)
    for x in (np.zeros((1, 9, 2)), -np.ones((1, 9, 2)), rng.exponential(1e4, (1, 9, 2))):
        given = tf.constant(x, tf.float32)
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(given)
            result = model(given)
        kept = max(exponent, 1.0)
        expected = np.mean(np.maximum(x, 1e-6) ** np.longdouble(kept), axis=1) ** (1 / kept)
        np.testing.assert_allclose(result, expected.astype(float), rtol=1e-4)
        for source in (given, model.trainable_variables[0].value):
            assert np.isfinite(tape.gradient(result, source)).all()


def test_backbone_dropout_is_of_whole_channels() -> None:
    random.seed(0)
    model = build("TinyCNN", backbone_dropout=0.5)
    layer = model.get_layer("backbone_dropout")
    assert layer.input is model.get_layer("relu4").output
    dropped = np.asarray(layer(np.ones((4, 8, 8, 64), np.float32), training=True))
    assert (dropped == dropped[:, :1, :1]).all()
    assert set(dropped.ravel()) == {0.0, 2.0}
    assert 0.3 < (dropped == 0).mean() < 0.7


# --- stochastic depth -----------------------------------------------------------------------------


def rates(model: Any) -> list[float]:
    return [
        layer.rate
        for layer in model.layers
        if isinstance(layer, keras.layers.Dropout) and layer.noise_shape
    ]


def test_the_last_block_of_lite0_is_dropped_most() -> None:
    scaled = drop_rates(lite0.backbone(32), 0.4)
    blocks = {int(name[5:].split("_")[0]): rate for name, rate in scaled.items()}
    assert sorted(blocks) == [2, 4, 6, 7, 9, 10, 12, 13, 14]  # those that keep their size
    assert list(blocks.values()) == pytest.approx([0.4 * block / 16 for block in blocks])


def test_a_dropped_branch_leaves_its_shortcut() -> None:
    image = keras.Input((2, 2, 3))
    sums = keras.layers.Add(name="sum")
    model = keras.Model(image, sums([image, keras.layers.Conv2D(3, 1, name="branch")(image)]))
    assert drop_rates(model, None) == {}
    x = np.ones((64, 2, 2, 3), np.float32)
    branch = np.asarray(model.get_layer("branch")(x))
    dropped = keras.Model(image, drop_branch(sums, list(sums.input), 0.5))
    rest = np.asarray(dropped(x, training=True)) - x
    np.testing.assert_array_equal(call(dropped, x), call(model, x))
    gone = [not image.any() for image in rest]
    assert 16 < sum(gone) < 48
    for image, whole, without in zip(rest, branch, gone, strict=True):
        np.testing.assert_allclose(image, 0 * whole if without else 2 * whole, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["EfficientNetB0", "EfficientNetLite0"])
def test_stochastic_depth_of_efficientnets_is_kerass(name: str) -> None:
    from keras.src.applications.efficientnet import EfficientNet

    theirs = EfficientNet(1, 1, 64, drop_connect_rate=0.4, weights=None, include_top=False, name="")
    assert rates(build(name, stochastic_depth=0.4)) == pytest.approx(rates(theirs))
    models = []
    for rate in (None, 0.2):
        random.seed(0)
        models.append(build(name, stochastic_depth=rate))
    assert rates(models[0]) == rates(models[1])
    assert weight_bytes(models[0]) == weight_bytes(models[1])


@pytest.mark.slow
def test_stochastic_depth_of_convnext_is_kerass() -> None:
    from keras.src.applications.convnext import MODEL_CONFIGS, ConvNeXt

    theirs = ConvNeXt(
        **MODEL_CONFIGS["tiny"],
        drop_path_rate=0.3,
        weights=None,
        include_top=False,
        input_shape=(64, 64, 3),
    )
    expected = [getattr(layer, "drop_path_rate", None) for layer in theirs.layers]
    found = rates(build("ConvNeXtTiny", stochastic_depth=0.3))
    assert found == pytest.approx([0.0, *(rate for rate in expected if rate is not None)])


@pytest.mark.slow
@pytest.mark.parametrize(("name", "branches"), [("ResNet50", 16), ("MobileNetV3Small", 6)])
def test_a_backbone_without_drops_gets_them_and_is_the_same_at_inference(
    name: str, branches: int
) -> None:
    plain, model = build(name), build(name, stochastic_depth=0.5)
    assert rates(model) == pytest.approx(np.linspace(0, 0.5, branches))
    for layer in plain.layers:
        model.get_layer(layer.name).set_weights(layer.get_weights())
    images = noise(1)
    np.testing.assert_array_equal(call(model, images), call(plain, images))
    drawn = [np.asarray(model(images, training=True)) for _ in range(2)]
    assert not np.array_equal(*drawn)


# --- weights from models with another head --------------------------------------------------------


def test_weights_of_a_model_with_another_head(tmp_path: Path) -> None:
    earlier = with_head("attention", 7)
    earlier.save(tmp_path / "earlier.keras")
    model = build(
        "TinyCNN",
        weights=tmp_path / "earlier.keras",
        n_classes=5,
        head=ClassifierHead(pooling="gem", hidden=7),
    )
    for layer in model.layers:
        if layer.weights and layer.name not in ("gem", "logits"):
            for ours, theirs in zip(
                layer.get_weights(), earlier.get_layer(layer.name).get_weights(), strict=True
            ):
                np.testing.assert_array_equal(ours, theirs)
    assert model.get_layer("gem").get_weights() == [np.array([3.0], np.float32)]
