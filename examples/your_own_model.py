"""A model of your own: name it in the experiment file as `model: your_own_model:build`.

    candidates:
      - model: your_own_model:build
        image_size: 64
        arguments: {filters: [[8, 16]]}

The file lies beside the experiment file, or anywhere on the search path.
"""

import keras


def build(
    input_shape: tuple[int, int, int], n_classes: int, filters: tuple[int, ...] = (8, 16)
) -> keras.Model:
    """Raw pixels from 0 to 255, (N, height, width, channels) float32, to logits (N, n_classes).

    The model normalises by itself. Its last layer has no softmax: probabilities are made where they
    are needed, and losses and maps are computed from logits.
    """
    inputs = keras.Input(input_shape)
    x = keras.layers.Rescaling(1 / 127.5, offset=-1)(inputs)
    for count in filters:
        x = keras.layers.Conv2D(count, 3, padding="same", activation="relu")(x)
        x = keras.layers.MaxPooling2D()(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(n_classes)(x))
