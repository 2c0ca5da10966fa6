"""Every model sees the pixel range its weights were trained for, whatever the weights, and survives
saving.
"""

import hashlib
import random
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trainables.core.errors import ModelError
from trainables.models import zoo
from trainables.models.weights import lite0_file

FAST = [
    "TinyCNN",
    "EfficientNetB0",
    "EfficientNetV2B0",
    "EfficientNetLite0",
    "ConvNeXtTiny",
    "ResNet50",
    "MobileNetV3Small",
]
# One of every family: its other sizes are built by the same lines.
TRIED = [
    *FAST,
    *(pytest.param(name, marks=pytest.mark.slow) for name in ("EfficientNetV2S", "DenseNet121")),
]
EDGE = 64


def build(
    name: str, channels: int = 1, n_classes: int = 3, weights: str | Path = "none", **others: Any
) -> Any:
    arguments = {"image_size": EDGE, "dropout": 0.2, "arguments": {}, **others}
    return zoo.build(
        name, channels=channels, n_classes=n_classes, weights=str(weights), **arguments
    )


def call(model: Any, images: np.ndarray) -> np.ndarray:
    return np.asarray(model(images.astype(np.float32), training=False))


def noise(channels: int, edge: int = EDGE, n: int = 2) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (n, edge, edge, channels)).astype(np.float32)


def weight_bytes(model: Any) -> list[bytes]:
    return [np.asarray(variable).tobytes() for variable in model.variables]


# --- the guard: what the first convolution sees ---------------------------------------------------


def published(name: str, rgb: tuple[float, float, float]) -> list[float]:
    """The preprocessing that each family's authors publish, one pixel, written out."""
    red, green, blue = rgb
    if name.startswith(("EfficientNetB", "EfficientNetV2B", "ConvNeXt", "DenseNet")):
        return [
            (red / 255 - 0.485) / 0.229,
            (green / 255 - 0.456) / 0.224,
            (blue / 255 - 0.406) / 0.225,
        ]
    if name.startswith("EfficientNetV2"):
        return [value / 128 - 1 for value in rgb]
    if name == "EfficientNetLite0":
        return [(value - 127) / 128 for value in rgb]
    if name == "ResNet50":
        return [blue - 103.939, green - 116.779, red - 123.68]
    assert name.startswith("MobileNetV3") or name == "TinyCNN"
    return [value / 127.5 - 1 for value in rgb]


def first_convolution_sees(model: Any, pixel: tuple[float, ...]) -> np.ndarray:
    import keras

    convolution = next(layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D))
    seen = keras.Model(model.inputs[0], convolution.input)
    image = np.broadcast_to(np.array(pixel, np.float32), (1, *model.input_shape[1:]))
    centre = model.input_shape[1] // 2
    return call(seen, image)[0, centre, centre]


def assert_guarded(name: str, model: Any) -> None:
    colours = [(0, 0, 0), (255, 255, 255), (128, 128, 128), (255, 0, 0), (10, 120, 250)]
    for rgb in colours if model.input_shape[-1] == 3 else colours[:3]:
        seen = first_convolution_sees(model, rgb[: model.input_shape[-1]])
        np.testing.assert_allclose(seen, published(name, rgb), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", TRIED)
def test_model(name: str, tmp_path: Path) -> None:
    """The guard, the layers others rely on, grey against colour, and a saved file that loads
    anywhere.
    """
    import keras

    grey, colour = build(name, 1), build(name, 3)
    assert_guarded(name, grey)
    assert_guarded(name, colour)

    assert grey.input_shape == (None, EDGE, EDGE, 1)
    assert grey.output_shape == (None, 3)
    assert isinstance(grey.get_layer("pool"), keras.layers.GlobalAveragePooling2D)
    assert grey.get_layer("dropout").rate == 0.2
    assert grey.layers[-1].name == "logits"
    assert ("head_norm" in [layer.name for layer in grey.layers]) == name.startswith("ConvNeXt")
    assert all(
        type(layer) is getattr(keras.layers, type(layer).__name__) for layer in grey.layers
    ), "flat and built in"

    images = noise(1)
    logits = call(grey, images)
    assert np.ptp(logits) > 0
    grey.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras", safe_mode=True)
    np.testing.assert_array_equal(call(loaded, images), logits)

    colour.set_weights(grey.get_weights())
    np.testing.assert_array_equal(call(colour, np.repeat(images, 3, axis=-1)), logits)


# --- foreign weights keep the normalisation right -------------------------------------------------


def as_published(application: Any, path: Path) -> Any:
    """A backbone with weights worth noticing, saved as Keras publishes them: Normalization holds
    std as variance.
    """
    import keras

    rng = np.random.default_rng(0)
    donor = application(include_top=False, weights=None, input_shape=(EDGE, EDGE, 3))
    donor.set_weights([rng.normal(0.1, 0.05, weight.shape) ** 2 for weight in donor.get_weights()])
    for layer in donor.layers:
        if isinstance(layer, keras.layers.Normalization) and layer.weights:
            layer.set_weights(
                [np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225]), np.array(0)]
            )
    donor.save(path)
    return donor


def test_published_weights_do_not_bring_their_normalisation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """EfficientNetB0's file relies on a second Rescaling; ours is right from the path and as
    imagenet.
    """
    import keras

    name, path = "EfficientNetB0", tmp_path / "efficientnetb0_notop.h5"
    donor = as_published(keras.applications.EfficientNetB0, path)
    monkeypatch.setattr(
        "keras.src.applications.efficientnet.file_utils.get_file", lambda *_, **__: str(path)
    )
    reference = keras.applications.EfficientNetB0(
        include_top=False, weights="imagenet", input_shape=(EDGE, EDGE, 3)
    )
    images = noise(3)
    features = call(reference, images)
    assert np.ptp(features) > 0
    for weights in (path, "imagenet"):
        model = build(name, 3, weights=weights)
        assert_guarded(name, model)
        np.testing.assert_array_equal(
            model.get_layer("stem_conv").kernel, donor.get_layer("stem_conv").kernel
        )
        ours = keras.Model(model.inputs[0], model.get_layer("pool").input)
        np.testing.assert_allclose(
            call(ours, images), features, rtol=1e-4, atol=1e-4 * np.abs(features).max()
        )


@pytest.mark.parametrize("name", ["MobileNetV3Small", "ResNet50"])
def test_a_legacy_file_gives_the_features_of_keras(name: str, tmp_path: Path) -> None:
    import keras

    application = getattr(keras.applications, name)
    donor = as_published(application, tmp_path / "notop.h5")
    images = noise(3)
    prepared = images.copy()
    if name == "ResNet50":
        prepared = keras.applications.resnet50.preprocess_input(prepared)
    features = call(donor, prepared).mean(axis=(1, 2))
    assert np.ptp(features) > 0
    model = build(name, 3, weights=tmp_path / "notop.h5")
    ours = call(keras.Model(model.inputs[0], model.get_layer("pool").output), images)
    np.testing.assert_allclose(ours, features, rtol=1e-4, atol=1e-4 * np.abs(features).max())


def test_convnext_equals_the_original_with_its_top(tmp_path: Path) -> None:
    """Keras' headless ConvNeXt normalises before the pooling; ours afterwards, with the same
    weights, as published.
    """
    import keras

    donor = as_published(keras.applications.ConvNeXtTiny, tmp_path / "notop.h5")
    original = keras.applications.ConvNeXtTiny(
        weights=None, classes=3, classifier_activation=None, input_shape=(EDGE, EDGE, 3)
    )
    model = build("ConvNeXtTiny", 3, weights=tmp_path / "notop.h5")
    original.set_weights([*donor.get_weights(), *model.get_layer("logits").get_weights()])
    images = noise(3)
    np.testing.assert_allclose(call(model, images), call(original, images), rtol=1e-4, atol=1e-4)


def test_imagenet_offline_fails_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import keras  # noqa: F401  # its import takes seconds, which are not the download's

    def unreachable(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unreachable)
    monkeypatch.setattr("keras.src.utils.file_utils.config.keras_home", lambda: str(tmp_path))
    start = time.monotonic()
    with pytest.raises(ModelError) as caught:
        build("EfficientNetB0", weights="imagenet")
    assert time.monotonic() - start < 20
    message = str(caught.value)
    assert "\n" not in message
    for part in (
        "EfficientNetB0",
        "efficientnetb0_notop.h5",
        "offline",
        "~/.keras/models",
        "training.weights",
    ):
        assert part in message
    assert socket.getdefaulttimeout() is None


# --- weights from earlier models ------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".keras", ".weights.h5"])
def test_weights_of_an_earlier_model(tmp_path: Path, suffix: str) -> None:
    import keras

    random.seed(7)
    earlier = build("TinyCNN")
    path = tmp_path / f'it\'s an "earlier"\nmodel ü{suffix}'
    if suffix == ".keras":
        keras.Model(earlier.inputs[0], keras.layers.Softmax()(earlier.outputs[0])).save(path)
    else:
        earlier.save_weights(path)
    images = noise(1)
    np.testing.assert_array_equal(
        call(build("TinyCNN", weights=path), images), call(earlier, images)
    )

    other = build("TinyCNN", 3, n_classes=5, weights=path)
    assert other.output_shape == (None, 5)
    for layer in earlier.layers:
        if layer.weights and layer.name != "logits":
            for got, expected in zip(
                other.get_layer(layer.name).get_weights(), layer.get_weights(), strict=True
            ):
                np.testing.assert_array_equal(got, expected)

    with pytest.raises(
        ModelError, match=r"matches 0 of the \d+ backbone layers of MobileNetV3Small"
    ) as caught:
        build("MobileNetV3Small", weights=path)
    assert "\n" not in str(caught.value)


def test_unusable_weights_are_named(tmp_path: Path) -> None:
    (tmp_path / "text.h5").write_text("not HDF5")
    (tmp_path / "text.pth").write_text("")
    build("TinyCNN").save(tmp_path / "tiny.h5")
    for weights, message in [
        ("imagnet", "must be none, imagenet or an existing"),
        (tmp_path / "missing.keras", "must be none, imagenet or an existing"),
        (tmp_path / "text.pth", "must be none, imagenet or an existing"),
        (tmp_path / "text.h5", "does not fit"),
        (tmp_path / "tiny.h5", "does not fit"),
        ("imagenet", "TinyCNN has no ImageNet weights"),
    ]:
        with pytest.raises(ModelError, match=message) as caught:
            build("TinyCNN", weights=weights)
        assert "\n" not in str(caught.value)


# --- chance ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["TinyCNN", "EfficientNetB0"])
def test_pythons_seed_decides_all_initial_state(name: str) -> None:
    models = []
    for seed in (0, 0, 1):
        random.seed(seed)
        models.append(build(name))
    first, again, other = (weight_bytes(model) for model in models)
    assert first == again
    assert first != other
    assert len(first) > len(models[0].weights), "seed generators are among the variables"


def test_names_do_not_depend_on_what_was_built_before() -> None:
    names = [[layer.name for layer in build("MobileNetV3Small").layers] for _ in range(2)]
    assert names[0] == names[1]


def test_tiny_cnn_learns_spots_from_a_hundred_images() -> None:
    import keras
    from sklearn.metrics import roc_auc_score

    def spots(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(seed)
        labels = np.arange(n) % 2
        y, x = np.mgrid[:EDGE, :EDGE]
        images = rng.normal(100, 15, (n, EDGE, EDGE)) + rng.uniform(-20, 20, (n, 1, 1))
        for image, label in zip(images, labels, strict=True):
            centre = rng.uniform(15, EDGE - 15, 2)
            image += (
                label * 50 * np.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / (2 * 4.5**2))
            )
        return images.clip(0, 255)[..., None].astype(np.float32), labels

    keras.utils.set_random_seed(0)
    model = build("TinyCNN", n_classes=2)
    model.compile(
        keras.optimizers.Adam(3e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    images, labels = spots(100, 0)
    model.fit(images, labels, batch_size=16, epochs=15, verbose=0)
    images, labels = spots(200, 1)
    logits = call(model, images)
    assert roc_auc_score(labels, logits[:, 1] - logits[:, 0]) > 0.9


# --- each image by itself -------------------------------------------------------------------------


def test_each_image_is_standardised_inside_the_saved_model(tmp_path: Path) -> None:
    import keras

    from xai.methods.classifier import Classifier

    model = build("TinyCNN", 3, per_image=True)
    images = noise(3, n=4) * np.array([1, 0.1, 0.01, 0]).reshape(4, 1, 1, 1) + 40
    seen = call(keras.Model(model.inputs[0], model.get_layer("conv1").input), images)
    mean, std = (getattr(images[:3], of)((1, 2, 3), keepdims=True) for of in ("mean", "std"))
    wanted = (64 * (images[:3] - mean) / std + 127.5) / 127.5 - 1
    np.testing.assert_allclose(seen[:3], wanted, atol=5e-3)
    np.testing.assert_allclose(seen[3], 0, atol=1e-4)  # without contrast: grey
    model.save(tmp_path / "model.keras")
    opened = keras.saving.load_model(tmp_path / "model.keras", compile=False, safe_mode=True)
    np.testing.assert_array_equal(call(opened, images), call(model, images))
    np.testing.assert_allclose(call(opened, images / 3 + 9)[0], call(model, images)[0], atol=1e-4)
    # What explains it finds the same map at the same place.
    explained, plain = Classifier(opened), Classifier(build("TinyCNN", 3))
    assert explained.analytic
    assert (explained.layer, explained.placement) == (plain.layer, plain.placement)
    gradients = explained.input_gradients(images, np.zeros((4, 1), np.int32))
    assert np.isfinite(gradients).all()
    # Brightness and contrast are no evidence.
    np.testing.assert_allclose(gradients[0].sum(), 0, atol=1e-4)


# --- names, sizes, digests ------------------------------------------------------------------------


def test_names_and_sizes() -> None:
    assert zoo.default_image_size("EfficientNetB7") == 600
    assert zoo.default_image_size("TinyCNN") == 64
    assert zoo.default_image_size("mine.models:build") is None
    for name in [*zoo.MODELS, "models:build", "my_package.models:Net"]:
        zoo.check_model_name(name)
    for wrong, nearest in [
        ("efficientnet-b0", "'EfficientNetB0'"),
        ("Resnet 50", "'ResNet50'"),
        ("EfficientNetV2B9", "'EfficientNetV2B"),
    ]:
        with pytest.raises(ModelError, match=f"did you mean {nearest}"):
            zoo.check_model_name(wrong)
    for wrong in ("models:", ":build", "my-models:build", "models:a.b", "models..x:build"):
        with pytest.raises(ModelError, match=r"package\.module:builder"):
            zoo.check_model_name(wrong)


def test_the_names_need_no_tensorflow() -> None:
    code = (
        "import sys, trainables.models.zoo as z; assert z.MODELS; print({'tensorflow', 'keras', "
        "'ray'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_bad_requests() -> None:
    with pytest.raises(
        ModelError, match="image_size of EfficientNetB0 must be at least 32, got 31"
    ):
        build("EfficientNetB0", image_size=31)
    with pytest.raises(ModelError, match="TinyCNN takes no arguments, got depth"):
        build("TinyCNN", arguments={"depth": 3})
    with pytest.raises(ModelError, match="did you mean 'TinyCNN'"):
        build("TinyCN")
    build("TinyCNN", image_size=16)


def test_weights_digest(tmp_path: Path) -> None:
    path = tmp_path / "a.weights.h5"
    path.write_bytes(b"content")
    assert zoo.weights_digest("TinyCNN", str(path)) == hashlib.sha256(b"content").hexdigest()[:16]
    assert zoo.weights_digest("TinyCNN", "none") is None
    assert zoo.weights_digest("ResNet50", "imagenet") is None
    with pytest.raises(ModelError, match="existing"):
        zoo.weights_digest("TinyCNN", str(tmp_path / "missing.keras"))


def test_weights_digest_of_lite0() -> None:
    expected = hashlib.sha256(lite0_file().read_bytes()).hexdigest()[:16]
    assert zoo.weights_digest("EfficientNetLite0", "imagenet") == expected


# --- a user's builder -----------------------------------------------------------------------------

BUILDERS = """
import keras
from keras import layers

def build(input_shape, n_classes, width=4):
    return keras.Sequential(
        [keras.Input(input_shape), layers.Conv2D(width, 3), layers.GlobalAveragePooling2D(), layers.Dense(n_classes)]
    )

def softmax(input_shape, n_classes):
    model = build(input_shape, n_classes)
    model.add(layers.Softmax())
    return model

def too_many(input_shape, n_classes):
    return build(input_shape, n_classes + 1)

def always_colour(input_shape, n_classes):
    return build((*input_shape[:2], 3), n_classes)

def nothing(input_shape, n_classes):
    return None

def broken(input_shape, n_classes):
    raise TypeError("a bug of the builder")
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of a user's, importable as my_zoo."""
    package = tmp_path / "my_zoo"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "models.py").write_text(BUILDERS)
    (package / "needy.py").write_text("import a_module_that_is_not_there")
    monkeypatch.syspath_prepend(tmp_path)
    yield package / "models.py"
    for name in [name for name in sys.modules if name.split(".")[0] == "my_zoo"]:
        del sys.modules[name]


def test_builder(mine: Path, tmp_path: Path) -> None:
    model = build("my_zoo.models:build", arguments={"width": 6})
    assert model.output_shape == (None, 3)
    assert model.layers[0].filters == 6
    for name in ("mine.weights.h5", "mine.keras"):
        path = tmp_path / name
        model.save(path) if path.suffix == ".keras" else model.save_weights(path)
        again = build("my_zoo.models:build", arguments={"width": 6}, weights=path)
        np.testing.assert_array_equal(call(again, noise(1)), call(model, noise(1)))
        with pytest.raises(ModelError, match="does not fit"):
            build("my_zoo.models:build", weights=path)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("my_zoo.models:softmax", r"returns probabilities; return logits \(drop the softmax\)"),
        ("my_zoo.models:too_many", r"one output of shape \(None, 3\), got \(None, 4\)"),
        (
            "my_zoo.models:always_colour",
            r"one input of shape \(None, 64, 64, 1\), got \(None, 64, 64, 3\)",
        ),
        (
            "my_zoo.models:nothing",
            "must return a functional or Sequential keras.Model, got NoneType",
        ),
        ("my_zoo.models:biuld", r"no builder 'biuld' .* did you mean 'build'"),
        ("my_zoo.modells:build", "module 'my_zoo.modells' cannot be imported"),
        ("my_zoo.needy:build", "cannot be imported .*No module named 'a_module_that_is_not_there'"),
    ],
)
def test_builders_that_break_the_contract(mine: Path, model: str, message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        build(model)
    assert "\n" not in str(caught.value)


def test_builder_arguments_and_bugs(mine: Path) -> None:
    with pytest.raises(
        ModelError, match=r"unexpected keyword argument 'depth' \(candidate: arguments\)"
    ):
        build("my_zoo.models:build", arguments={"depth": 2})
    with pytest.raises(TypeError, match="a bug of the builder"):
        build("my_zoo.models:broken")
    with pytest.raises(ModelError, match="has no ImageNet weights"):
        build("my_zoo.models:build", weights="imagenet")


def test_builder_digest_runs_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "a user's folder"
    module = folder / "unrun_zoo" / "models.py"
    module.parent.mkdir(parents=True)
    (module.parent / "__init__.py").write_text("raise RuntimeError('imported')")
    module.write_text("raise RuntimeError('imported')")
    before = list(sys.path)
    expected = zoo.builder_digest("unrun_zoo.models:build", folder)
    module.write_text("VERSION = 2")
    assert zoo.builder_digest("unrun_zoo.models:build", folder) != expected
    assert sys.path == before
    assert zoo.builder_digest("ResNet50", None) is None
    for missing in ("unrun_zoo.other:build", "unrun_zoo.models.deeper:build", "unrun_zoo_2:build"):
        with pytest.raises(ModelError, match="no source file of module"):
            zoo.builder_digest(missing, folder)
    with pytest.raises(ModelError, match="no source file of module"):
        zoo.builder_digest("unrun_zoo.models:build", None)
