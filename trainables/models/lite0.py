"""EfficientNet-Lite0 in Keras layers, and its ImageNet weights from a PyTorch state dict.

Lite0 is EfficientNet-B0 (Tan and Le, arXiv:1905.11946, table 1) without squeeze-and-excitation and
with ReLU6 in place of swish, so that it quantises well (github.com/tensorflow/tpu,
models/official/efficientnet/lite). Keras lacks it.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from trainables.core.errors import ModelError

if TYPE_CHECKING:
    import keras

#: Stages of inverted residual blocks: (blocks, kernel edge, stride of the first block, expansion,
#: output channels).
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
STEM_CHANNELS, TOP_CHANNELS = 32, 1280
#: Residual branches are dropped with a probability that grows linearly from 0 to this (stochastic
#: depth, 1603.09382).
DROP_RATE = 0.2


def backbone(image_size: int) -> "keras.Model":
    """Lite0 up to its last feature map: (N, size, size, 3) in about [-1, 1] to (N, ⌈size/32⌉,
    ⌈size/32⌉, 1280).
    """
    import keras

    inputs = keras.Input((image_size, image_size, 3))
    x = _convolution(inputs, "stem", STEM_CHANNELS, 3, stride=2)
    total = sum(stage[0] for stage in STAGES)
    index = 0
    for blocks, kernel, first_stride, expansion, channels in STAGES:
        for position in range(blocks):
            stride = first_stride if position == 0 else 1
            x = _block(
                x, f"block{index}", kernel, stride, expansion, channels, DROP_RATE * index / total
            )
            index += 1
    return keras.Model(inputs, _convolution(x, "top", TOP_CHANNELS, 1))


def _block(
    x: Any, name: str, kernel: int, stride: int, expansion: int, channels: int, drop: float
) -> Any:
    """An inverted residual block (MobileNetV2, arXiv:1801.04381): expand, depthwise, project,
    add.
    """
    from keras import layers

    before = x
    if expansion > 1:
        x = _convolution(x, f"{name}_expand", x.shape[-1] * expansion, 1)
    x = layers.DepthwiseConv2D(
        kernel,
        strides=stride,
        padding="same",
        use_bias=False,
        depthwise_initializer=_initializer(),
        name=f"{name}_depthwise_conv",
    )(x)
    x = layers.BatchNormalization(name=f"{name}_depthwise_bn")(x)
    x = layers.ReLU(6.0, name=f"{name}_depthwise_relu")(x)
    x = _convolution(x, f"{name}_project", channels, 1, activate=False)
    if stride > 1 or before.shape[-1] != channels:
        return x
    x = layers.Dropout(drop, noise_shape=(None, 1, 1, 1), name=f"{name}_drop")(x)
    return layers.Add(name=f"{name}_add")([before, x])


def _convolution(
    x: Any, name: str, channels: int, kernel: int, stride: int = 1, activate: bool = True
) -> Any:
    """Convolution without bias, batch normalisation and, unless told otherwise, ReLU6."""
    from keras import layers

    x = layers.Conv2D(
        channels,
        kernel,
        strides=stride,
        padding="same",
        use_bias=False,
        kernel_initializer=_initializer(),
        name=f"{name}_conv",
    )(x)
    x = layers.BatchNormalization(name=f"{name}_bn")(x)
    return layers.ReLU(6.0, name=f"{name}_relu")(x) if activate else x


def _initializer() -> Any:
    import keras

    return keras.initializers.VarianceScaling(2.0, mode="fan_out", distribution="truncated_normal")


# --- ImageNet weights -----------------------------------------------------------------------------

_MODULES = {
    "stem_conv": "_conv_stem",
    "stem_bn": "_bn0",
    "top_conv": "_conv_head",
    "top_bn": "_bn1",
    "expand_conv": "_expand_conv",
    "expand_bn": "_bn0",
    "depthwise_conv": "_depthwise_conv",
    "depthwise_bn": "_bn1",
    "project_conv": "_project_conv",
    "project_bn": "_bn2",
}
# Gamma, beta, mean, variance.
_BATCH_NORMALISATION = (
    "weight",
    "bias",
    "running_mean",
    "running_var",
)


def load_state(model: "keras.Model", state: Mapping[str, np.ndarray]) -> None:
    """Copy a PyTorch state dict into `backbone`'s layers; its classifier `_fc` and its batch
    counters stay behind.

    Raises ModelError unless every other tensor finds exactly one place of its own shape.
    """
    left = {
        name
        for name in state
        if not name.startswith("_fc.") and not name.endswith(".num_batches_tracked")
    }
    for layer in model.layers:
        if not layer.weights:
            continue
        names = _tensor_names(layer.name)
        missing = [name for name in names if name not in left]
        if missing:
            raise ModelError(f"the state dict of EfficientNetLite0 lacks {missing[0]}")
        arrays = [
            _to_keras(state[name], depthwise=layer.name.endswith("depthwise_conv"))
            for name in names
        ]
        for name, array, weight in zip(names, arrays, layer.weights, strict=True):
            if array.shape != tuple(weight.shape):
                raise ModelError(
                    f"{name} of the state dict has shape {array.shape}, wanted "
                    f"{tuple(weight.shape)}"
                )
        layer.set_weights(arrays)
        left -= set(names)
    if left:
        raise ModelError(
            f"the state dict of EfficientNetLite0 holds {len(left)} tensors too many, first "
            f"{min(left)}"
        )


def _tensor_names(layer: str) -> list[str]:
    """The tensors behind a Keras layer: 'block3_expand_bn' to ['_blocks.3._bn0.weight', …]."""
    prefix = ""
    if layer.startswith("block"):
        number, layer = layer.removeprefix("block").split("_", 1)
        prefix = f"_blocks.{number}."
    parts = _BATCH_NORMALISATION if layer.endswith("_bn") else ("weight",)
    return [f"{prefix}{_MODULES[layer]}.{part}" for part in parts]


def _to_keras(array: np.ndarray, depthwise: bool) -> np.ndarray:
    """PyTorch keeps kernels as (out, in, height, width); Keras as (height, width, in, out),
    depthwise (…, in, 1).
    """
    if array.ndim < 4:
        return array
    return array.transpose((2, 3, 0, 1) if depthwise else (2, 3, 1, 0))
