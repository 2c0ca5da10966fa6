"""Small models whose right maps are known in closed form."""

from typing import Any

import numpy as np

from xai.methods.classifier import Classifier

SIZE = 28


def linear(weights: np.ndarray, offset: tuple[float, ...] = (0.0, 0.0)) -> Classifier:
    """Logit c is Σ weights[:, :, c] x + offset[c] over a grey image of `SIZE`; its feature map is
    the image itself.
    """
    import keras

    image = keras.Input((SIZE, SIZE, 1))
    x = keras.layers.Conv2D(1, 1, use_bias=False, name="same")(image)
    x = keras.layers.Flatten()(x)
    model = keras.Model(image, keras.layers.Dense(weights.shape[-1])(x), name="linear")
    model.set_weights([np.ones((1, 1, 1, 1)), weights.reshape(SIZE * SIZE, -1), np.array(offset)])
    return Classifier(model)


def square(rows: slice, columns: slice) -> np.ndarray:
    """(SIZE, SIZE, 2): class 1 adds up the pixels of a square, class 0 takes them off."""
    weights = np.zeros((SIZE, SIZE, 2), np.float32)
    weights[rows, columns] = (-0.01, 0.01)
    return weights


def pooled(channels: int = 4, n_classes: int = 3, size: int = 16, activation: str = "relu") -> Any:
    """Convolution, global average pooling, dropout, dense layer, softmax, with weights that change
    sign.
    """
    import keras

    rng = np.random.default_rng(1)
    image = keras.Input((size, size, 1), name="image")
    x = keras.layers.Rescaling(1 / 127.5, -1)(image)
    x = keras.layers.Conv2D(channels, 3, strides=2, activation=activation, name="features")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    x = keras.layers.Dropout(0.5)(x)
    x = keras.layers.Dense(n_classes, name="logits")(x)
    model = keras.Model(image, keras.layers.Softmax()(x), name="pooled")
    model.set_weights([rng.normal(size=weight.shape) for weight in model.get_weights()])
    return model


def images(count: int, size: int = SIZE, channels: int = 1, seed: int = 0) -> np.ndarray:
    """Noise: uint8 (count, size, size, channels)."""
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, channels), np.uint8)
