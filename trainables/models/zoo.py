"""The model zoo: classifiers by name, and a user's own builders, all from raw pixels to logits.

Every zoo model is a flat functional Keras model of built-in layers only:

image (N, size, size, 1 or 3) float32, 0 to 255 → normalisation, on demand of each image first →
backbone → pool → dropout → logits (N, classes); `zoo_head.py` has the head and its variants

The architectures come from keras.applications, whose models carry their normalisation inside,
outside, or inside with an error that ImageNet weights mend. Here whatever a backbone carries is
dropped and one layer of ours is put in front, so that each model normalises exactly once, whichever
weights it has. Names and sizes are known without TensorFlow.
"""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainables.core.errors import ModelError, nearest
from trainables.core.files import file_digest
from trainables.core.training_config import Training, unused
from trainables.core.training_sections import ClassifierHead
from trainables.models import builders, lite0, tiny_cnn, user_code
from trainables.models.weights import (
    copy_by_name,
    download,
    is_keras3,
    lite0_file,
    load_whole,
    read_state_dict,
)
from trainables.models.zoo_head import add_head, drop_branch, drop_rates

if TYPE_CHECKING:
    import keras

# --- what there is --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Normalisation:
    """pixel * scale + offset, by channel or for all; `bgr` reverses the channels first."""

    scale: float | tuple[float, ...]
    offset: float | tuple[float, ...]
    bgr: bool = False


# Of ImageNet's training images, in [0, 1], RGB.
_MEAN, _STD = (
    (0.485, 0.456, 0.406),
    (0.229, 0.224, 0.225),
)
#: (pixel / 255 - mean) / std
_STANDARDISED = Normalisation(
    tuple(1 / (255 * std) for std in _STD),
    tuple(-mean / std for mean, std in zip(_MEAN, _STD, strict=True)),
)
#: pixel / 127.5 - 1
_SYMMETRIC = Normalisation(1 / 127.5, -1.0)
#: pixel / 128 - 1
_SYMMETRIC_128 = Normalisation(1 / 128, -1.0)
#: (pixel - 127) / 128
_LITE = Normalisation(1 / 128, -127 / 128)
#: Caffe's BGR minus the mean pixel
_CAFFE = Normalisation(1.0, (-103.939, -116.779, -123.68), bgr=True)


@dataclass(frozen=True)
class ZooModel:
    """An entry of the zoo.

    `image_size`: edge of the native input in pixels. `gigaflops`: 10⁹ floating-point operations of
    one forward pass at that size, counted as two per multiply-add, after the papers of the models.
    `smallest`: least possible input. `residual`: whether it has residual branches.
    """

    image_size: int
    gigaflops: float
    normalisation: Normalisation
    smallest: int = 32
    residual: bool = True


MODELS: Mapping[str, ZooModel] = {
    "TinyCNN": ZooModel(64, 0.01, _SYMMETRIC, smallest=16, residual=False),
    "EfficientNetB0": ZooModel(224, 0.78, _STANDARDISED),
    "EfficientNetB1": ZooModel(240, 1.4, _STANDARDISED),
    "EfficientNetB2": ZooModel(260, 2.0, _STANDARDISED),
    "EfficientNetB3": ZooModel(300, 3.6, _STANDARDISED),
    "EfficientNetB4": ZooModel(380, 8.4, _STANDARDISED),
    "EfficientNetB5": ZooModel(456, 19.8, _STANDARDISED),
    "EfficientNetB6": ZooModel(528, 38.0, _STANDARDISED),
    "EfficientNetB7": ZooModel(600, 74.0, _STANDARDISED),
    "EfficientNetV2B0": ZooModel(224, 1.4, _STANDARDISED),
    "EfficientNetV2B1": ZooModel(240, 2.4, _STANDARDISED),
    "EfficientNetV2B2": ZooModel(260, 3.4, _STANDARDISED),
    "EfficientNetV2B3": ZooModel(300, 6.0, _STANDARDISED),
    "EfficientNetV2S": ZooModel(384, 16.8, _SYMMETRIC_128),
    "EfficientNetV2M": ZooModel(480, 48.0, _SYMMETRIC_128),
    "EfficientNetV2L": ZooModel(480, 106.0, _SYMMETRIC_128),
    "EfficientNetLite0": ZooModel(224, 0.8, _LITE),
    "ConvNeXtTiny": ZooModel(224, 9.0, _STANDARDISED),
    "ConvNeXtSmall": ZooModel(224, 17.4, _STANDARDISED),
    "ConvNeXtBase": ZooModel(224, 30.8, _STANDARDISED),
    "DenseNet121": ZooModel(224, 5.7, _STANDARDISED, residual=False),
    "ResNet50": ZooModel(224, 8.2, _CAFFE),
    "MobileNetV3Small": ZooModel(224, 0.12, _SYMMETRIC),
    "MobileNetV3Large": ZooModel(224, 0.44, _SYMMETRIC),
}


def default_image_size(model: str) -> int | None:
    """Edge of the square input in pixels that a zoo model was designed for; None for a user's
    builder.
    """
    return MODELS[model].image_size if model in MODELS else None


def forward_gigaflops(model: str, image_size: int) -> float:
    """Estimated 10⁹ operations of one image's forward pass; a user's builder counts as a ResNet50
    until measured.
    """
    entry = MODELS.get(model, MODELS["ResNet50"])
    return entry.gigaflops * (image_size / entry.image_size) ** 2


def check_model_name(model: str) -> None:
    """Raise ModelError unless `model` is in the zoo or has the form 'package.module:builder'."""
    if model in MODELS:
        return
    module, colon, builder = model.partition(":")
    if colon and all(part.isidentifier() for part in [*module.split("."), builder]):
        return
    raise ModelError(
        f"model must be a name of the zoo or 'package.module:builder', got {model!r}; "
        f"{nearest(model, MODELS)}"
    )


#: Settings of training that shape models of the zoo.
_OF_THE_ZOO = ("head", "backbone_dropout", "stochastic_depth")


def contradiction(model: str, training: Training) -> str | None:
    """What a model cannot be given, with the remedy; None where it takes all."""
    later = unused([training])
    stated = [name for name in _OF_THE_ZOO if name not in later]
    if training.input.normalization != "none":
        stated.append("input.normalization")
    if model not in MODELS and stated:
        return (
            f"only models of the zoo take {', '.join(stated)}, {model} is built as its builder "
            "builds it; state this with candidates that take it"
        )
    if training.stochastic_depth is not None and not MODELS[model].residual:
        return f"stochastic_depth is for residual branches, {model} has none; remove it"
    return None


# --- digests: what the ledger must know beyond names ----------------------------------------------


def weights_digest(model: str, weights: str) -> str | None:
    """First 16 hex digits of the SHA-256 of the weights file; None where Keras pins it ('imagenet')
    or there is none.

    Raises ModelError if the file is missing, of an unknown kind, or not to be had for this model.
    """
    path = _weights_file(model, weights)
    return file_digest(path)[:16] if path else None


def builder_digest(model: str, import_path: Path | str | None) -> str | None:
    """Digest of the source files that decide what a user's builder does; None for a zoo model.

    Raises ModelError if the builder's module is not found; see `user_code.source_digest`.
    """
    if model in MODELS:
        return None
    check_model_name(model)
    return user_code.source_digest(model, import_path)


# --- building -------------------------------------------------------------------------------------

_AVERAGE = ClassifierHead()


def build(
    model: str,
    image_size: int,
    channels: int,
    n_classes: int,
    weights: str,
    dropout: float,
    arguments: Mapping[str, Any],
    head: ClassifierHead = _AVERAGE,
    backbone_dropout: float = 0.0,
    stochastic_depth: float | None = None,
    per_image: bool = False,
) -> "keras.Model":
    """Build a classifier from raw pixels (N, image_size, image_size, channels) in [0, 255] to
    logits (N, n_classes).

    `weights` is 'none', 'imagenet' or the path of a `.keras`, `.weights.h5` or legacy Keras `.h5`
    file. A zoo model ends in the layers pool, dropout, (ConvNeXt: head_norm,) logits, or as `head`
    has it; what learns in its head takes part in a `.keras` or `.weights.h5` file where names and
    shapes agree. `backbone_dropout`: rate, for whole channels of the last feature maps.
    `stochastic_depth`: rate of the last residual branch, None for the model's own. A user's
    builder is called as `builder(input_shape=(image_size, image_size, channels),
    n_classes=n_classes, **arguments)`, has its own head and dropout, and its weights file must fit
    it entirely. `per_image`: a zoo model first brings each image to one mean and spread, see
    `_standardise`; a builder's does that by itself.

    Initial weights and the states of random layers follow from Python's `random.seed` alone.
    Raises ModelError for whatever the user can mend.
    """
    path = _weights_file(model, weights)
    if model not in MODELS:
        built = builders.build(model, (image_size, image_size, channels), n_classes, arguments)
        if path:
            load_whole(built, path)
        return built
    if arguments:
        raise ModelError(
            f"{model} takes no arguments, got {', '.join(arguments)} (candidate: arguments); "
            "remove them"
        )
    entry = MODELS[model]
    if image_size < entry.smallest:
        raise ModelError(
            f"image_size of {model} must be at least {entry.smallest}, got {image_size} "
            "(candidate: image_size)"
        )
    source = _source(model, image_size, weights, path)
    rates = drop_rates(source, stochastic_depth)
    end = partial(add_head, head=head, rates=(backbone_dropout, dropout), n_classes=n_classes)
    built = _assemble(model, source, (image_size, image_size, channels), rates, end, per_image)
    if path and is_keras3(path):
        copy_by_name(built, path)
    return built


def _source(model: str, image_size: int, weights: str, path: Path | None) -> "keras.Model":
    """The backbone as it comes, with the weights that fit it as it comes."""
    import keras

    if model == "TinyCNN":
        source = tiny_cnn.backbone(image_size)
    elif model == "EfficientNetLite0":
        source = lite0.backbone(image_size)
        if weights == "imagenet":
            lite0.load_state(source, read_state_dict(lite0_file()))
    else:
        create = getattr(keras.applications, model)
        shape = (image_size, image_size, 3)
        if weights == "imagenet":
            with download(model):
                source = create(include_top=False, weights="imagenet", input_shape=shape)
        else:
            source = create(include_top=False, weights=None, input_shape=shape)
    if path and not is_keras3(path) and weights != "imagenet":
        load_whole(source, path)
    return source


def _assemble(
    model: str,
    source: "keras.Model",
    shape: tuple[int, int, int],
    rates: Mapping[str, float],
    end: Callable[[Any, Any], Any],
    per_image: bool,
) -> "keras.Model":
    """Copy a backbone, weights included, into one flat graph between our normalisation and our
    head.

    `rates`: of stochastic depth, by `drop_rates`. `end`: from the feature maps and the layer that
    belongs behind their pooling, None where there is none, to the logits.
    """
    import keras
    from keras import layers

    inputs = keras.Input(shape, name="image")
    raw = _standardise(inputs) if per_image else inputs
    normalised = _normalise(raw, MODELS[model].normalisation)
    # ConvNeXt ends in a LayerNormalization that belongs behind the pooling (Liu et al. 2022,
    # arXiv:2201.03545).
    last = source.layers[-1] if isinstance(source.layers[-1], layers.LayerNormalization) else None
    copies: dict[Any, Any] = {}
    names: dict[str, int] = {}

    def call(operation: Any, x: Any, *others: Any, **keywords: Any) -> Any:
        x = normalised if x is inputs else x
        if operation is last or isinstance(operation, layers.Rescaling | layers.Normalization):
            return x
        if operation.name in rates:
            return drop_branch(operation, x, rates[operation.name])
        if isinstance(operation, keras.Sequential):
            for layer in operation.layers:
                x = call(layer, x)
            return x
        if operation not in copies:
            copies[operation] = _copy(operation, names)
        return copies[operation](x, *others, **keywords)

    features = keras.models.clone_model(
        source, input_tensors=inputs, clone_function=lambda operation: operation, call_function=call
    ).outputs[0]
    if last is not None:
        copies[last] = layers.LayerNormalization(epsilon=last.epsilon, name="head_norm")
    result = keras.Model(inputs, end(features, copies.get(last)), name=model)
    for original, copy in copies.items():
        if isinstance(copy, keras.Layer) and copy.weights:
            copy.set_weights(original.get_weights())
    return result


def _standardise(x: Any) -> Any:
    """Each image with a mean of 127.5 and a standard deviation of 64 over all its pixels and
    channels, so that two deviations either way fill 0 to 255; one without contrast is grey.
    """
    from keras import layers

    # In float32, as below. The epsilon is a variance: a thirtieth of a grey level.
    x = layers.LayerNormalization(
        axis=[1, 2, 3], epsilon=1e-3, center=False, scale=False, dtype="float32", name="per_image"
    )(x)
    return layers.Rescaling(64.0, 127.5, dtype="float32", name="grey_range")(x)


def _normalise(x: Any, normalisation: Normalisation) -> Any:
    """Grey to RGB, and raw pixels to what the first convolution was trained on."""
    import keras
    from keras import layers

    if x.shape[-1] == 1:
        x = layers.Concatenate(name="grey_to_rgb")([x, x, x])
    if normalisation.bgr:
        x = keras.ops.flip(x, axis=-1)
    scale, offset = (
        list(value) if isinstance(value, tuple) else value
        for value in (normalisation.scale, normalisation.offset)
    )
    # In float32 also where the backbone computes in less: 0 to 255 must not lose grey levels on the
    # way in.
    return layers.Rescaling(scale, offset, dtype="float32", name="normalisation")(x)


def _copy(operation: Any, names: dict[str, int]) -> Any:
    """A new layer or operation of the same configuration, named the same in every process.

    Keras numbers unnamed layers by what the process has built before; here the count starts with
    the model.
    """
    from keras import layers

    kind = type(operation).__name__
    # A class of keras.applications: files that name it load with difficulty.
    if kind == "LayerScale":
        return layers.EinsumDense(
            "bhwc,c->bhwc", (None, None, operation.projection_dim), name=operation.name
        )
    config = operation.get_config()
    base = re.sub(r"_\d+$", "", operation.name)
    if base.replace("_", "") == kind.lower():
        names[base] = names.get(base, 0) + 1
        config["name"] = f"{base}_{names[base]}"
    return type(operation).from_config(config)


# --- weights --------------------------------------------------------------------------------------


def _weights_file(model: str, weights: str) -> Path | None:
    """The local file that `weights` stands for, if it stands for one."""
    check_model_name(model)
    if weights == "none":
        return None
    if weights == "imagenet":
        if model == "EfficientNetLite0":
            return lite0_file()
        if model not in MODELS or model == "TinyCNN":
            raise ModelError(
                f"{model} has no ImageNet weights (training.weights: imagenet); use none or a path"
            )
        return None
    path = Path(weights)
    # Unlike Path.is_file, os.path.isfile is false for names that no file can have.
    if path.suffix not in (".keras", ".h5") or not os.path.isfile(path):  # noqa: PTH113
        raise ModelError(
            "training.weights must be none, imagenet or an existing .keras, .weights.h5 or .h5 "
            f"file, got {weights!r}"
        )
    return path
