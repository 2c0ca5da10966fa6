"""Every cell of a map lies where its receptive field's centre does, and is drawn there."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from tests.xai.planted import images
from trainables.models import zoo
from xai.drawing import render
from xai.judging.heat import evidence, upsample
from xai.methods import cam
from xai.methods.classifier import Classifier
from xai.methods.fields import Fields
from xai.methods.graph import replay
from xai.methods.placement import Placement, enlarge

Block = Callable[[Any], Any]


def placed(block: Block, height: int = 16, width: int = 16) -> Placement:
    """Where the cells of what a block makes of an image lie."""
    image = keras.Input((height, width, 3))
    pixels = tf.zeros((1, height, width, 3))
    fields = Fields(pixels)
    out = replay(
        lambda call: fields.add(call.operation, call.inputs, call.outputs),
        keras.Model(image, block(image)),
        pixels,
    )
    return fields.placement(out)


def strided(size: int, **more: Any) -> Any:
    return layers.Conv2D(2, size, strides=2, **more)


def squeezed(x: Any) -> Any:
    x = strided(3, padding="same")(x)
    weights = layers.Reshape((1, 1, 2))(layers.Dense(2)(layers.GlobalAveragePooling2D()(x)))
    kept = layers.Conv2D(2, 1)(layers.GlobalAveragePooling2D(keepdims=True)(x))
    return layers.Multiply()([kept, layers.Multiply()([weights, x])])


def patches(x: Any) -> Any:
    x = layers.Reshape((16, 2))(layers.Conv2D(2, 4, strides=4)(x))
    x = layers.Add()([x, layers.MultiHeadAttention(1, 2)(layers.LayerNormalization()(x), x)])
    return layers.Reshape((4, 4, 2))(x)


# What it is, what it does, and, worked out by hand in pixels, the first cell's centre and the step.
KNOWN: list[tuple[str, Block, float, float]] = [
    ("same, at an even size one more behind", strided(3, padding="same"), 1.5, 2),
    ("twice", lambda x: strided(3, padding="same")(strided(3, padding="same")(x)), 3.5, 4),
    (
        "padded behind, then valid",
        lambda x: strided(3)(layers.ZeroPadding2D(((0, 1), (0, 1)))(x)),
        1.5,
        2,
    ),
    ("padded on both sides, then valid", lambda x: strided(7)(layers.ZeroPadding2D(3)(x)), 0.5, 2),
    (
        "padded by an operation",
        lambda x: strided(7)(keras.ops.pad(x, [[0, 0], [3, 3], [3, 3], [0, 0]])),
        0.5,
        2,
    ),
    ("dilated", layers.Conv2D(2, 3, dilation_rate=2), 2.5, 1),
    (
        "depthwise and separable",
        lambda x: layers.SeparableConv2D(2, 3)(layers.DepthwiseConv2D(3)(x)),
        2.5,
        1,
    ),
    ("pooled", layers.MaxPooling2D(2), 1, 2),
    ("pooled by an operation", lambda x: keras.ops.average_pool(x, 3, 2, "same"), 1.5, 2),
    (
        "transposed",
        lambda x: layers.Conv2DTranspose(2, 3, 2, "same")(layers.AveragePooling2D(4)(x)),
        0,
        2,
    ),
    (
        "transposed, valid",
        lambda x: layers.Conv2DTranspose(2, 2, 2)(layers.AveragePooling2D(4)(x)),
        1,
        2,
    ),
    ("enlarged", lambda x: layers.UpSampling2D(2)(layers.AveragePooling2D(4)(x)), 1, 2),
    ("resized", layers.Resizing(8, 8), 1, 2),
    ("cropped", layers.Cropping2D(((2, 1), (2, 1))), 2.5, 1),
    ("cropped to the centre", layers.CenterCrop(11, 11), 2.5, 1),
    ("squeezed and excited", squeezed, 1.5, 2),
    (
        "branches that differ",
        lambda x: layers.Add()([strided(3, padding="same")(x), strided(2)(x)]),
        1.25,
        2,
    ),
    ("patches", patches, 2, 4),
    (
        "nested",
        keras.Sequential([layers.Rescaling(2), keras.Sequential([strided(3, padding="same")])]),
        1.5,
        2,
    ),
]


@pytest.mark.parametrize(
    ("block", "start", "step"), [pytest.param(*case[1:], id=case[0]) for case in KNOWN]
)
def test_places_are_those_worked_out_by_hand(block: Block, start: float, step: float) -> None:
    assert placed(block) == pytest.approx((start / 16, start / 16, step / 16, step / 16, "field"))


def test_edges_of_an_image_are_their_own() -> None:
    # An odd size leaves as much in front as behind.
    found = placed(strided(3, padding="same"), 15, 16)
    assert found == pytest.approx((0.5 / 15, 1.5 / 16, 2 / 15, 2 / 16, "field"))


@pytest.mark.parametrize(
    ("block", "start"),
    [
        pytest.param(
            lambda x: layers.Reshape((4, 4, 1))(layers.Dense(16)(layers.Flatten()(x))),
            2,
            id="flattened",
        ),
        pytest.param(
            lambda x: layers.Cropping2D(((2, 2), (2, 2)))(x)[:, ::3, ::3], 3.5, id="sliced"
        ),
    ],
)
def test_what_cannot_be_followed_is_a_guess_and_says_so(block: Block, start: float) -> None:
    found = placed(block)
    assert (found.top, found.placed) == (pytest.approx(start / 16), "guess")


SIZES = {
    "TinyCNN": 64,
    **dict.fromkeys(
        ("EfficientNetLite0", "EfficientNetB0", "EfficientNetV2B0", "MobileNetV3Small"), 160
    ),
    **dict.fromkeys(("ResNet50", "DenseNet121", "ConvNeXtTiny"), 160),
}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name == "TinyCNN" else pytest.mark.slow) for name in SIZES],
)
def test_places_are_the_centroids_of_input_gradients(name: str) -> None:
    """Of the cells in the middle: the image's edges cut off the others' fields."""
    size = SIZES[name]
    # Single draws of the initial weights lie off by as much as is allowed.
    keras.utils.set_random_seed(0)
    model = zoo.build(name, size, 1, 2, "none", 0.0, {})
    features = keras.Model(model.inputs, model.get_layer("pool").input)
    placement, cells = Classifier(model).placement, int(features.output.shape[1])
    pixels = tf.constant(images(8 if size < 100 else 2, size), tf.float32)
    signs = tf.constant(
        np.random.default_rng(0).choice([-1.0, 1.0], features.output.shape[-1]), tf.float32
    )
    beside = []
    for cell in range(cells // 2 - 1, cells - cells // 2 + 1):
        with tf.GradientTape() as tape:
            tape.watch(pixels)
            value = tf.reduce_sum(features(pixels, training=False)[:, cell, cell] * signs)
        energy = np.square(tape.gradient(value, pixels).numpy()).sum(axis=(0, 2, 3))
        energy = np.maximum(energy - np.quantile(energy, 0.5), 0)
        centroid = energy @ (np.arange(size) + 0.5) / energy.sum() / size
        beside.append((centroid - placement.top - cell * placement.step_y) / placement.step_y)
    assert abs(np.mean(beside)) < 0.25


@pytest.mark.parametrize(
    "placement", [(0.125, 0.125, 0.25, 0.25), (0.25, -0.02, 0.25, 0.3), (0.0, 0.3, 0.1, 0.05)]
)
def test_a_map_of_its_own_places_shows_every_pixels_place(
    placement: tuple[float, float, float, float],
) -> None:
    at = Placement(*placement)
    y, x = at.top + at.step_y * np.arange(4), at.left + at.step_x * np.arange(4)
    for maps, axis, size in ((y[:, None] + 0 * x, 0, 40), (0 * y[:, None] + x, 1, 24)):
        places = np.clip((np.arange(size) + 0.5) / size, (y, x)[axis][0], (y, x)[axis][-1])
        np.testing.assert_allclose(
            enlarge(maps, (40, 24), at).mean(axis=1 - axis), places, atol=1e-6
        )


def chain(kind: str, size: int = 128) -> Any:
    """A model whose map must be hottest where the image is brightest: every convolution takes a
    mean.
    """
    image = keras.Input((size, size, 1))
    x = image
    for _ in range(4):
        x = x if kind == "efficientnet" else layers.ZeroPadding2D(1)(x)
        x = layers.Conv2D(
            1,
            3,
            strides=2,
            padding="same" if kind == "efficientnet" else "valid",
            kernel_initializer=keras.initializers.Constant(1 / 9),
        )(x)
    head = layers.Dense(2, kernel_initializer=keras.initializers.Constant(1.0))
    return keras.Model(image, head(layers.GlobalAveragePooling2D()(x)))


@pytest.mark.parametrize("kind", ["efficientnet", "resnet"])
def test_a_planted_spot_is_where_the_map_is_hottest(kind: str) -> None:
    classifier = Classifier(chain(kind))
    for spot in ((40, 72), (63, 48), (85, 91)):
        pixels = np.zeros((1, 128, 128, 1), np.uint8)
        pixels[0, spot[0] - 3 : spot[0] + 3, spot[1] - 3 : spot[1] + 3] = 255
        heat = evidence(cam.class_maps(classifier, pixels)[0][0, 0], True)
        large = upsample(heat, 128, classifier.placement)
        weights = large / large.sum()
        found = [float(weights.sum(axis=axis) @ (np.arange(128) + 0.5)) for axis in (1, 0)]
        assert found == pytest.approx(spot, abs=3)
        drawn = render.overlay(
            pixels[0] * 0, heat, render.peak(heat), placement=classifier.placement
        )
        bright = drawn.astype(float).sum(axis=2)
        assert np.unravel_index(bright.argmax(), bright.shape) == pytest.approx(spot, abs=9)
