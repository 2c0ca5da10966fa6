"""A training step with fused batch normalization does what Keras's own layers do."""

from collections import Counter
from collections.abc import Callable

import keras
import numpy as np
import pytest
import tensorflow as tf
from numpy.typing import NDArray

from tests.trainables.training.test_session import PLAIN
from trainables.models import zoo
from trainables.training import normalization
from trainables.training.session import Session

RNG = np.random.default_rng(0)
# Few images, so that n / (n - 1) would show.
IMAGES = RNG.normal(3.0, 2.0, (6, 8, 8, 5)).astype(np.float32)
WEIGHT = RNG.normal(size=(6, 8, 8, 5)).astype(np.float32)


def layer(**options: object) -> keras.layers.BatchNormalization:
    built = keras.layers.BatchNormalization(**options)
    built.build((None, 8, 8, 5))
    for number, variable in enumerate(built.variables):
        variable.assign(np.random.default_rng(number).uniform(0.5, 1.5, variable.shape))
    return built


def nested() -> keras.Model:
    inner = keras.Sequential(
        [keras.Input((8, 8, 5)), layer(), keras.layers.ReLU(), layer(momentum=0.9)]
    )
    return keras.Sequential([keras.Input((8, 8, 5)), inner, layer()])


MODELS: dict[str, Callable[[], keras.Model]] = {
    "one layer": lambda: keras.Sequential(
        [keras.Input((8, 8, 5)), layer(momentum=0.7, epsilon=0.1)]
    ),
    "without scale": lambda: keras.Sequential([keras.Input((8, 8, 5)), layer(scale=False)]),
    "without center": lambda: keras.Sequential([keras.Input((8, 8, 5)), layer(center=False)]),
    "frozen": lambda: keras.Sequential([keras.Input((8, 8, 5)), layer(trainable=False), layer()]),
    "inside another model": nested,
    "bfloat16": lambda: keras.Sequential([keras.Input((8, 8, 5)), layer(dtype="mixed_bfloat16")]),
}


def step(
    model: keras.Model, images: NDArray[np.float32]
) -> tuple[list[NDArray[np.float32]], Counter[str]]:
    """Outputs, gradients by images and weights, and all variables after a call in training mode;
    the operations.
    """

    def call(x: tf.Tensor) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(x)
            outputs = tf.cast(model(x, training=True), tf.float32)
            objective = tf.reduce_sum(outputs * WEIGHT[: len(images)])
        return [outputs, *tape.gradient(objective, [x, *model.trainable_variables])]

    traced = tf.function(call, autograph=False).get_concrete_function(
        tf.TensorSpec((None, 8, 8, 5))
    )
    found = [np.asarray(each) for each in traced(tf.constant(images))]
    kinds = Counter(operation.type for operation in traced.graph.get_operations())
    return [*found, *(np.asarray(variable) for variable in model.variables)], kinds


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("images", [1, 6])
def test_the_same_outputs_gradients_and_statistics_as_keras(name: str, images: int) -> None:
    keras_s, kinds = step(MODELS[name](), IMAGES[:images])
    assert not kinds["FusedBatchNormV3"]
    model = MODELS[name]()
    with normalization.fused(model):
        ours, kinds = step(model, IMAGES[:images])
    layers = normalization.batch_normalizations(model)
    assert kinds["FusedBatchNormV3"] == sum(each.trainable for each in layers) > 0
    tolerance = 0.02 if name == "bfloat16" else 1e-4  # sums that cancel
    for a, b in zip(keras_s, ours, strict=True):
        assert np.abs(a - b).max() <= tolerance * max(1.0, float(np.abs(a).max()))


def test_inference_and_vectors_go_keras_s_way() -> None:
    model = keras.Sequential([keras.Input((5,)), keras.layers.BatchNormalization()])
    images = keras.Sequential([keras.Input((8, 8, 5)), layer()])
    vectors = tf.constant(IMAGES[:, 0, 0])
    before = np.asarray(model(vectors, training=True)), np.asarray(images(IMAGES, training=False))
    with normalization.fused(model), normalization.fused(images):
        after = (
            np.asarray(model(vectors, training=True)),
            np.asarray(images(IMAGES, training=False)),
        )
    for a, b in zip(before, after, strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_layers_are_keras_s_own_again_afterwards() -> None:
    model = nested()
    with pytest.raises(RuntimeError, match="inside"), normalization.fused(model):
        raise RuntimeError("inside")
    assert all("call" not in vars(each) for each in normalization.batch_normalizations(model))
    _, kinds = step(model, IMAGES)
    assert not kinds["FusedBatchNormV3"]


def test_a_session_s_step_is_fused_and_its_model_loads_without_us() -> None:
    session = Session(PLAIN.model_copy(update={"model": "EfficientNetLite0"}), 0)
    session.prepare(False)
    kinds = Counter(operation.type for operation in session._steps[False].graph.get_operations())
    layers = normalization.batch_normalizations(session.model)
    assert kinds["FusedBatchNormV3"] == len(layers) > 40
    assert {type(each).__module__.split(".")[0] for each in layers} == {"keras"}


def test_momentum_reaches_the_layers_of_a_backbone_inside_the_model(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def build(*_: object, **__: object) -> keras.Model:
        return keras.Sequential(
            [keras.Input((32, 32, 1)), nested_backbone(), keras.layers.Dense(2, name="logits")]
        )

    monkeypatch.setattr(zoo, "build", build)
    session = Session(PLAIN.model_copy(update={"batch_norm_momentum": 0.5}), 0)
    assert [each.momentum for each in normalization.batch_normalizations(session.model)] == [0.5]


def nested_backbone() -> keras.Model:
    conv = keras.layers.Conv2D(4, 3)
    pool = keras.layers.GlobalAveragePooling2D()
    return keras.Sequential(
        [keras.Input((32, 32, 1)), conv, keras.layers.BatchNormalization(), pool]
    )
