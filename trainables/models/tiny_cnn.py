"""TinyCNN, the zoo's smallest model: ours, and nobody's weights fit it."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras


def backbone(image_size: int) -> "keras.Model":
    """Four convolutions, 48 thousand weights: learns small structures from a hundred small images
    in a few epochs.
    """
    import keras
    from keras import layers

    inputs = x = keras.Input((image_size, image_size, 3))
    for index, (filters, kernel, strides) in enumerate(
        [(16, 5, 2), (32, 3, 1), (48, 3, 1), (64, 3, 1)], start=1
    ):
        if index in (2, 3):
            # Maxima, not strides: a small bright spot must reach the pooled features undiluted.
            x = layers.MaxPooling2D(name=f"max{index - 1}")(x)
        x = layers.Conv2D(filters, kernel, strides, "same", use_bias=False, name=f"conv{index}")(x)
        # Few steps per epoch: moving statistics must follow within tens of steps, not hundreds.
        x = layers.BatchNormalization(momentum=0.9, name=f"bn{index}")(x)
        x = layers.ReLU(name=f"relu{index}")(x)
    return keras.Model(inputs, x)
