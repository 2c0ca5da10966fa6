"""The feature map is found in every kind of model, and its gradients are those of a plain
GradientTape.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from keras.layers import Dense

from tests.xai.planted import images, pooled
from trainables.core.errors import ModelError
from trainables.core.training_sections import ClassifierHead
from trainables.models import zoo
from xai.methods import cam
from xai.methods.classifier import Classifier
from xai.methods.registry import METHODS

FAST = ("TinyCNN", "EfficientNetLite0")
OTHER_FAMILIES = (
    "EfficientNetV2S",
    "ConvNeXtTiny",
    "DenseNet121",
    "ResNet50",
    "MobileNetV3Small",
)
ZOO = [*FAST, *(pytest.param(name, marks=pytest.mark.slow) for name in OTHER_FAMILIES)]
WEIGHTS = {
    "gradcam": cam.gradcam_weights,
    "gradcam++": cam.gradcam_pp_weights,
    "hirescam": cam.hirescam_weights,
    "layercam": cam.layercam_weights,
}
N = 3


# --- the reference --------------------------------------------------------------------------------


def tape(
    features: Callable[[Any], Any], head: Callable[[Any], Any], pixels: np.ndarray
) -> tuple[Any, ...]:
    """A (b, h, w, k), its gradients for every class (b, n, h, w, k), and the logits, the plain
    way.
    """
    import tensorflow as tf

    with tf.GradientTape(persistent=True) as record:
        maps = features(tf.cast(pixels, tf.float32))
        record.watch(maps)
        logits = head(maps)
        sums = [tf.reduce_sum(logits[:, target]) for target in range(logits.shape[1])]
    gradients = np.stack([record.gradient(total, maps) for total in sums], axis=1)
    return np.asarray(maps, np.float64), gradients.astype(np.float64), np.asarray(logits)


def published(method: str, a: np.ndarray, g: np.ndarray) -> np.ndarray:
    """The papers' equations, term by term."""
    a = a[:, None]
    if method == "gradcam":
        return (g.mean(axis=(2, 3), keepdims=True) * a).sum(axis=-1)
    if method == "hirescam":
        return (g * a).sum(axis=-1)
    if method == "layercam":
        return (np.maximum(g, 0) * a).sum(axis=-1)
    below = 2 * g**2 + g**3 * a.sum(axis=(2, 3), keepdims=True)
    alpha = g**2 / np.where(below == 0, 1, below)
    return ((alpha * np.maximum(g, 0)).sum(axis=(2, 3), keepdims=True) * a).sum(axis=-1)


def assert_same(maps: np.ndarray, expected: np.ndarray) -> None:
    assert maps.dtype == np.float32
    assert maps.shape == expected.shape
    assert np.abs(expected).max() > 0
    assert np.abs(maps - expected).max() <= 1e-4 * np.abs(expected).max()


def assert_equals_tape(
    classifier: Classifier, features: Any, head: Any, pixels: np.ndarray
) -> None:
    """All maps of all classes, and of some."""
    a, g, logits = tape(features, head, pixels)
    targets = np.tile(np.arange(classifier.n_classes), (len(pixels), 1))
    assert_same(classifier.features_and_logits(pixels)[0], a)
    for method, weigh in WEIGHTS.items():
        maps, seen = classifier.cam(weigh, pixels)
        assert_same(maps, published(method, a, g))
        np.testing.assert_allclose(seen, logits, atol=1e-4 * np.abs(logits).max())
        some, _ = classifier.cam(weigh, pixels, targets[:, :0:-1])
        np.testing.assert_allclose(some, maps[:, :0:-1], atol=1e-5 * np.abs(maps).max())


def split(model: Any, features: Any, logits: Any) -> tuple[Any, Any]:
    """A functional model, cut at its feature map."""
    import keras

    return keras.Model(model.inputs[0], features), keras.Model(features, logits)


def zoo_model(name: str) -> Any:
    """With a softmax, as a finished cell keeps it."""
    import keras

    built = zoo.build(name, 64, 1, N, weights="none", dropout=0.2, arguments={})
    return keras.Model(built.inputs, keras.layers.Softmax(name="probabilities")(built.outputs[0]))


# --- every kind of model --------------------------------------------------------------------------


@pytest.mark.parametrize("name", ZOO)
def test_zoo_models(name: str, tmp_path: Path) -> None:
    model, pixels = zoo_model(name), images(2, 64)
    features, head = split(model, model.get_layer("pool").input, model.get_layer("logits").output)
    a, g, logits = tape(features, head, pixels)
    opened = [Classifier(model)]
    if name in FAST:  # opening it again takes as long as building it, and the big ones take minutes
        model.save(tmp_path / "model.keras")
        opened.append(Classifier.load(tmp_path / "model.keras"))
    for classifier in opened:
        assert classifier.analytic == (not name.startswith("ConvNeXt"))
        assert (classifier.input_shape, classifier.n_classes) == ((64, 64, 1), N)
        maps, seen = cam.class_maps(classifier, pixels)
        assert_same(maps, published("gradcam", a, g))
        np.testing.assert_allclose(seen, logits, atol=1e-4 * np.abs(logits).max())


@pytest.mark.parametrize("hidden", [None, 6])
@pytest.mark.parametrize("pooling", ["average", "max", "gem", "attention"])
def test_every_head_of_the_zoo(pooling: str, hidden: int | None) -> None:
    head = ClassifierHead(pooling=pooling, hidden=hidden)
    others = {"head": head, "backbone_dropout": 0.2}
    model = zoo.build("TinyCNN", 64, 1, N, "none", 0.2, {}, **others)
    if pooling == "attention":
        draw = np.random.default_rng(1).normal(size=(64, 1))
        model.get_layer("attention").set_weights([draw])
    classifier = Classifier(model)
    assert (classifier.layer, classifier.map_shape) == ("relu4", (8, 8, 64))
    assert classifier.analytic == (pooling == "average" and hidden is None)
    features = model.get_layer("relu4").output
    assert_equals_tape(classifier, *split(model, features, model.output), images(2, 64))


def test_the_layer_of_the_zoo_is_the_one_before_pooling() -> None:
    classifier = Classifier(zoo_model("TinyCNN"))
    assert (classifier.layer, classifier.map_shape) == ("relu4", (8, 8, 64))


@pytest.mark.parametrize("pooling", [None, "avg"])
def test_a_backbone_called_as_one_layer(pooling: str | None, tmp_path: Path) -> None:
    import keras

    base = keras.applications.MobileNet(
        include_top=False, weights=None, input_shape=(64, 64, 3), pooling=pooling
    )
    base.name = "backbone"
    image = keras.Input((64, 64, 1))
    x = keras.layers.Concatenate()([image, image, image])
    x = base(x, training=False)
    x = x if pooling else keras.layers.GlobalAveragePooling2D()(x)
    dense = keras.layers.Dense(N)
    model = keras.Model(image, dense(keras.layers.Dropout(0.3)(x)))
    last = base.layers[-2 if pooling else -1]
    before = keras.Model(base.inputs, last.output)

    def features(pixels: Any) -> Any:
        return before(keras.ops.concatenate([pixels] * 3, axis=-1))

    def head(maps: Any) -> Any:
        return dense(keras.ops.mean(maps, axis=(1, 2)))

    model.save(tmp_path / "it's nested.keras")
    for classifier in (Classifier(model), Classifier.load(tmp_path / "it's nested.keras")):
        assert (classifier.layer, classifier.analytic) == (f"backbone/{last.name}", True)
        assert_equals_tape(classifier, features, head, images(2, 64))


def test_sequential_and_what_it_nests() -> None:
    import keras
    from keras import layers

    steps = [layers.Conv2D(8, 3, strides=2, activation="relu"), layers.BatchNormalization()]
    inner = keras.Sequential(steps, name="inner")
    stem = keras.Sequential([layers.Rescaling(1 / 255), inner], name="stem")
    head = [layers.GlobalAveragePooling2D(), layers.Dropout(0.2), layers.Dense(N)]
    model = keras.Sequential([keras.Input((32, 32, 3)), stem, *head, layers.Softmax()])
    classifier = Classifier(model)
    assert classifier.layer == f"stem/inner/{inner.layers[-1].name}"
    assert classifier.analytic
    assert_equals_tape(classifier, stem, lambda maps: head[2](head[0](maps)), images(3, 32, 3))


def test_a_hidden_layer_in_the_head_needs_a_gradient() -> None:
    import keras
    from keras import layers

    image = keras.Input((32, 32, 1))
    x = features = layers.Conv2D(8, 3, activation="swish")(layers.Rescaling(1 / 255)(image))
    x = layers.Dense(16, activation="tanh")(layers.GlobalAveragePooling2D()(x))
    model = keras.Model(image, layers.Activation("softmax")(layers.Dense(N, name="logits")(x)))
    classifier = Classifier(model)
    assert not classifier.analytic
    assert_equals_tape(
        classifier, *split(model, features, model.get_layer("logits").output), images(3, 32)
    )


def test_a_flat_head_and_hirescams_promise() -> None:
    import keras
    from keras import layers

    convolution, dense = (
        layers.Conv2D(4, 3, strides=4, activation="relu"),
        layers.Dense(N, name="logits"),
    )
    model = keras.Sequential([keras.Input((32, 32, 1)), convolution, layers.Flatten(), dense])
    classifier = Classifier(model)
    assert (classifier.layer, classifier.analytic) == (convolution.name, False)
    pixels = images(2, 32)
    assert_equals_tape(
        classifier, convolution, lambda maps: dense(keras.ops.reshape(maps, (2, -1))), pixels
    )
    # Where the head is linear the map's cells add up to the logit, less the bias, which is 0 here.
    maps, logits = classifier.cam(cam.hirescam_weights, pixels)
    np.testing.assert_allclose(maps.sum(axis=(2, 3)), logits, rtol=1e-4, atol=1e-4)


def test_the_map_is_found_whatever_follows_it() -> None:
    import keras
    from keras import layers

    image = keras.Input((32, 32, 3))
    last = layers.Conv2D(4, 3, strides=2, activation="relu", name="last")(image)
    mean, maximum = layers.GlobalAveragePooling2D()(last), layers.GlobalMaxPooling2D()(last)
    kept = layers.GlobalAveragePooling2D(keepdims=True)(last)
    logits = {
        "maximum": layers.Dense(N)(maximum),
        "mean by an operation": layers.Dense(N)(keras.ops.mean(last, axis=(1, 2))),
        "softmax by an operation": keras.ops.softmax(layers.Dense(N)(mean)),
        "mean and maximum": layers.Dense(N)(layers.Concatenate()([mean, maximum])),
        "a 1x1 convolution of the mean": layers.Flatten()(layers.Conv2D(N, 1)(kept)),
        "a convolution over all": layers.Flatten()(layers.Conv2D(N, 15)(last)),
    }
    for name, output in logits.items():
        classifier = Classifier(keras.Model(image, output))
        assert (classifier.layer, classifier.map_shape) == ("last", (15, 15, 4)), name
        assert classifier.analytic == (name == "softmax by an operation")


def test_an_early_layer_with_a_way_around_it() -> None:
    import keras
    from keras import layers

    image = keras.Input((32, 32, 1))
    early = layers.Conv2D(4, 3, padding="same", activation="relu", name="early")(image)
    x = layers.Conv2D(4, 3, padding="same", activation="tanh", name="inside")(
        layers.Dropout(0.1, name="off")(early)
    )
    x = layers.Add(name="sum")([early, x])
    x = layers.Dense(N)(layers.GlobalAveragePooling2D()(x))
    model = keras.Model(image, x)
    classifier = Classifier(model, layer="early")
    assert (classifier.layer, classifier.analytic, classifier.map_shape) == (
        "early",
        False,
        (32, 32, 4),
    )
    pixels = images(2, 32)
    assert_equals_tape(classifier, *split(model, early, x), pixels)
    assert_same(
        Classifier(model, "off").cam(cam.gradcam_weights, pixels)[0],
        cam.class_maps(classifier, pixels)[0],
    )
    assert Classifier(model, layer="sum").analytic
    with pytest.raises(ModelError, match=r"no layer 'erly'.*did you mean 'early'"):
        Classifier(model, layer="erly")


class Cosine(Dense):
    """A dense layer's heir that does something else with its kernel."""

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        import keras

        return keras.ops.tanh(keras.ops.matmul(inputs, self.kernel)) + self.bias


def ended(*head: Any) -> tuple[Any, Any]:
    """A model that ends in a pooled head, and the head."""
    import keras
    from keras import layers

    image = keras.Input((16, 16, 1))
    x = layers.Conv2D(4, 3, activation="relu", name="map")(layers.Rescaling(1 / 255)(image))
    features = x
    for layer in (layers.GlobalAveragePooling2D(), *head):
        x = layer(x)
    model = keras.Model(image, x)
    rng = np.random.default_rng(2)
    model.set_weights([2 * rng.normal(size=weight.shape) for weight in model.get_weights()])
    return model, features


def heads() -> dict[str, tuple[list[Any], int, bool]]:
    """Layers of a head, how many of them make the logits, and whether these are linear."""
    import keras
    from keras import layers

    ops, cast = keras.ops, layers.Activation("linear", dtype="float32")
    return {
        "sigmoid": ([Dense(N, activation="sigmoid"), layers.Softmax()], 1, False),
        "tanh": ([Dense(N, activation="tanh"), layers.Softmax()], 1, False),
        "relu without a softmax": ([Dense(N, activation="relu")], 1, False),
        "an activation that is a layer": (
            [Dense(N, activation=layers.LeakyReLU()), layers.Softmax()],
            1,
            False,
        ),
        "sigmoids that a softmax takes for logits": (
            [Dense(N), layers.Activation("sigmoid"), layers.Softmax()],
            2,
            False,
        ),
        "sigmoids of their own": ([Dense(N), ops.sigmoid], 1, True),
        "a linear activation": ([Dense(N), layers.Activation("linear"), layers.Softmax()], 1, True),
        "probabilities handed on": ([Dense(N), layers.Softmax(), layers.Identity(), cast], 1, True),
        "log softmax": ([Dense(N), ops.log_softmax], 1, True),
        "log softmax under a softmax": (
            [Dense(N), layers.Activation("log_softmax"), layers.Softmax()],
            1,
            True,
        ),
        "a temperature": ([Dense(N), layers.Rescaling(0.5), layers.Softmax()], 2, False),
        "an heir of the dense layer": ([Cosine(N), layers.Softmax()], 1, False),
        "normalised": ([layers.LayerNormalization(), Dense(N), layers.Softmax()], 2, False),
    }


@pytest.mark.parametrize("name", heads())
def test_the_closed_form_is_used_under_a_linear_head_only(name: str) -> None:
    import keras

    head, count, linear = heads()[name]
    model, features = ended(*head)
    x = keras.layers.GlobalAveragePooling2D()(features)
    for layer in head[:count]:
        x = layer(x)
    classifier = Classifier(model)
    assert classifier.analytic == linear
    assert_equals_tape(classifier, *split(model, features, x), images(2, 16))


def test_probabilities_whose_logits_are_hidden_are_refused() -> None:
    from keras import layers

    for layer in (
        Dense(N, activation="softmax"),
        Dense(N, activation=layers.Softmax()),
        Dense(N, activation="sigmoid"),
    ):
        model, _ = ended(layer)
        with pytest.raises(ModelError, match="logits"):
            Classifier(model)
    model, _ = ended(Dense(N), layers.Reshape((N, 1)), layers.Softmax(axis=1), layers.Flatten())
    with pytest.raises(ModelError, match="returns probabilities"):
        Classifier(model)


def test_half_precision_gives_full_precision_maps() -> None:
    import keras

    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = pooled()
    finally:
        keras.config.set_dtype_policy("float32")
    maps, logits = cam.class_maps(Classifier(model), images(2, 16))
    assert maps.dtype == logits.dtype == np.float32
    whole, _ = cam.class_maps(Classifier(pooled()), images(2, 16))
    assert np.abs(maps - whole).max() < 0.05 * np.abs(whole).max()


# --- what it promises -----------------------------------------------------------------------------


def test_logits_are_the_models_and_bytes_do_as_well_as_floats() -> None:
    import keras

    model = pooled()
    classifier, pixels = Classifier(model), images(5, 16)
    expected = np.asarray(
        keras.Model(model.inputs[0], model.get_layer("logits").output)(pixels.astype(np.float32))
    )
    np.testing.assert_array_equal(
        classifier.logits(pixels), classifier.logits(pixels.astype(np.float32))
    )
    np.testing.assert_allclose(classifier.logits(pixels), expected, rtol=1e-5)


def test_new_weights_are_seen_at_once_and_the_users_model_is_left_alone() -> None:
    model, pixels = pooled(), images(2, 16)
    before = model.get_config()
    classifier = Classifier(model)
    maps, _ = cam.class_maps(classifier, pixels)
    assert model.get_config() == before
    model.get_layer("logits").set_weights(
        [-weight for weight in model.get_layer("logits").get_weights()]
    )
    np.testing.assert_array_equal(cam.class_maps(classifier, pixels)[0], -maps)


def test_a_cam_never_differentiates_the_backbone() -> None:
    import keras

    linear, model = Classifier(pooled()), pooled()
    x = keras.layers.LayerNormalization()(model.get_layer("features").output)
    other = Classifier(
        keras.Model(model.inputs, keras.layers.Dense(2)(keras.layers.Flatten()(x))), "features"
    )
    for classifier in (linear, other):
        cam.class_maps(classifier, images(1, 16))
    assert (linear.analytic, other.analytic) == (True, False)
    assert linear._through_head.experimental_get_tracing_count() == 0
    graph = other._through_head.get_concrete_function().graph.as_graph_def()
    operations = [node.op for node in graph.node] + [
        node.op for f in graph.library.function for node in f.node_def
    ]
    assert "Conv2D" in operations
    assert not [operation for operation in operations if operation.startswith("Conv2DBackprop")]


def test_input_gradients_equal_the_tapes() -> None:
    import tensorflow as tf

    model, pixels = pooled(activation="swish"), images(2, 16)
    targets = np.array([[2, 0], [1, 1]], np.int32)
    gradients = Classifier(model).input_gradients(pixels, targets)
    _, expected, _ = tape(tf.identity, lambda x: tf.math.log(model(x)), pixels)
    # log softmax is the logit less what all classes share
    difference = gradients[0, 0] - gradients[0, 1]
    np.testing.assert_allclose(
        difference, expected[0, 2] - expected[0, 0], atol=1e-4 * np.abs(expected).max()
    )
    np.testing.assert_array_equal(gradients[1, 0], gradients[1, 1])


# --- what it refuses ------------------------------------------------------------------------------


def functional(*chain: Any) -> Any:
    import keras

    return keras.Sequential([keras.Input((16, 16, 1), name="image"), *chain], name="odd")


def test_models_that_cannot_be_explained_say_why_in_one_line() -> None:
    import keras
    from keras import layers

    refused = {
        "softmax into a layer of its own": functional(
            layers.Conv2D(2, 3), layers.Flatten(), layers.Dense(2, activation="softmax")
        ),
        "fixed size": keras.Sequential(
            [keras.Input((None, None, 1)), layers.Conv2D(2, 3), layers.GlobalMaxPool2D()]
        ),
        "one output": functional(layers.Conv2D(2, 3)),
        "functional or built Sequential": keras.Sequential([layers.Conv2D(2, 3), layers.Flatten()]),
    }
    for message, model in refused.items():
        with pytest.raises(ModelError, match=message) as caught:
            Classifier(model)
        assert "\n" not in str(caught.value)


def test_a_model_without_a_map_of_its_own_opens_and_only_what_needs_the_map_refuses() -> None:
    import keras
    from keras import layers

    image = keras.Input((16, 16, 1))
    left, right = (layers.Conv2D(2, 3, name=name)(image) for name in ("left", "right"))
    both = layers.Concatenate()([layers.GlobalAveragePooling2D()(side) for side in (left, right)])
    branched = keras.Model(image, layers.Dense(2)(both))
    flat = functional(layers.Rescaling(1 / 255), layers.Flatten(), layers.Dense(2))
    pixels, targets = images(2, 16), np.array([[0], [1]], np.int32)
    for message, model in {"no feature map": flat, "2 feature maps.*'left'": branched}.items():
        classifier = Classifier(model)
        np.testing.assert_allclose(
            classifier.logits(pixels), model(pixels.astype(np.float32)), rtol=1e-4
        )
        assert np.abs(classifier.input_gradients(pixels, targets)).max() > 0
        for method in METHODS.values():
            if method.layered:
                with pytest.raises(ModelError, match=message):
                    method.explain(classifier, pixels, targets)
    assert Classifier(branched, layer="left").layer == "left"
    with pytest.raises(ModelError, match="no layer 'middle'"):
        Classifier(flat, layer="middle")


def test_targets_and_pixels_are_held_to_their_shapes() -> None:
    classifier, pixels = Classifier(pooled()), images(2, 16)
    for targets, message in (
        ([[0], [3]], "0 to 2, got 0 to 3"),
        ([0, 1], "got \\(2,\\)"),
        ([[0]], "2 images"),
    ):
        with pytest.raises(ModelError, match=message):
            classifier.cam(cam.gradcam_weights, pixels, np.array(targets))
    with pytest.raises(ModelError, match=r"\(16, 16, 1\), got \(8, 8, 1\)"):
        classifier.logits(images(2, 8))


def test_files_that_are_no_models_say_so(tmp_path: Path) -> None:
    import keras

    (tmp_path / "broken.keras").write_bytes(b"no archive")
    functional(keras.layers.Lambda(lambda x: x), keras.layers.Flatten()).save(
        tmp_path / "code.keras"
    )
    for name in ("missing.keras", "broken.keras", "code.keras"):
        with pytest.raises(ModelError, match=name) as caught:
            Classifier.load(tmp_path / name)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("cells", "layer", "edge"), [("2", "last", 4), ("4", "last", 4), ("5", "middle", 8)]
)
def test_a_number_asks_for_the_last_layer_of_so_many_cells(
    cells: str, layer: str, edge: int
) -> None:
    import keras

    model = keras.Sequential(
        [
            keras.Input((16, 16, 1)),
            keras.layers.Conv2D(2, 3, strides=2, padding="same", name="first"),
            keras.layers.ReLU(name="middle"),
            keras.layers.Conv2D(2, 3, strides=2, padding="same", name="last"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(2),
        ]
    )
    found = Classifier(model, cells)
    assert (found.layer, found.map_shape[:2]) == (layer, (edge, edge))
    with pytest.raises(ModelError, match="no layer with 9 cells along each edge: at most 8"):
        Classifier(model, "9")
