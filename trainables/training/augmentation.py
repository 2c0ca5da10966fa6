"""Random changes to training images, in the step and on its device. Each image has draws of its
own.
"""

import math
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from trainables.core.training_sections import Augmentation
from trainables.training import image_operations as ops

_LAYERS = {"flip", "vertical_flip", "rotation", "zoom"}  # by Keras
_FILL = {"black": "constant", "reflect": "reflect"}


class Augment:
    """The changes that `Augmentation` asks for, in this order: flips, rotation, zoom, translation
    and shear, RandAugment, then contrast, brightness, gamma, equalisation, blur, noise, erasing.

    Strengths are variables but for those of Keras's layers; which changes there are is structure.
    """

    def __init__(self, augmentation: Augmentation) -> None:
        self._fill = _FILL[augmentation.fill]
        self.layers = _keras_layers(augmentation, self._fill)
        asked = augmentation.model_dump(exclude={*_LAYERS, "fill"})
        self._numbers = {
            name: tf.Variable(0.0, trainable=False) for name, value in asked.items() if value
        }
        self.generator = keras.random.SeedGenerator(0) if self._numbers else None

    def set_numbers(self, augmentation: Augmentation) -> None:
        for name, variable in self._numbers.items():
            variable.assign(getattr(augmentation, name))

    def __call__(self, images: tf.Tensor) -> tf.Tensor:
        """Images (b, s, s, c) float32, 0 to 255; to be traced."""
        for layer in self.layers:
            images = layer(images, training=True)
        if self._numbers.keys() & {"translation", "shear"}:
            images = self._moved(images)
        changes: dict[str, Callable[[Any], tf.Tensor]] = {
            "rand_augment": lambda most: self._rand_augment(images, most),
            "contrast": lambda most: ops.contrast(images, 1 + most * self._either_way(images)),
            "brightness": lambda most: ops.brightness(images, most * self._either_way(images)),
            "gamma": lambda most: ops.gamma(
                images, tf.exp(tf.math.log1p(most) * self._either_way(images))
            ),
            "equalization": lambda most: ops.blend(
                ops.local_equalization(images), images, most * self._draw(images)
            ),
            "blur": lambda most: ops.blur(images, most * self._draw(images)),
            "noise": lambda most: ops.noise(images, most * self._draw(images), self._seed()),
            "erasing": lambda share: ops.erase(
                images, self._draw(images) < share, self._draw(images, 4), self._seed()
            ),
        }
        for name, change in changes.items():
            if name in self._numbers:
                images = change(self._numbers[name])
        return images

    def _moved(self, images: tf.Tensor) -> tf.Tensor:
        most = [self._numbers.get(name, tf.constant(0.0)) for name in ("shear", "translation")]
        shear, shift = (each * self._either_way(images, 2) for each in most)
        along = tf.unstack(shear, axis=1), tf.unstack(shift, axis=1)
        return ops.affine(images, ops.matrices(tf.zeros_like(shear[:, 0]), *along), self._fill)

    def _rand_augment(self, images: tf.Tensor, strength: Any) -> tf.Tensor:
        """Cubuk 2020 (arXiv:1909.13719): two changes of one strength for each image, out of
        fourteen, or without colour thirteen.
        """
        for _ in range(2):
            images = _one_of_all(images, self._draw(images, 2), strength, self._fill)
        return images

    def _either_way(self, images: tf.Tensor, number: int | None = None) -> tf.Tensor:
        """Uniform in [-1, 1) for each image."""
        return 2 * self._draw(images, number) - 1

    def _draw(self, images: tf.Tensor, number: int | None = None) -> tf.Tensor:
        """Uniform in [0, 1) for each image: (b,), or (b, number)."""
        batch = tf.shape(images)[:1]
        shape = batch if number is None else tf.concat([batch, [number]], 0)
        drawn = tf.random.stateless_uniform(shape, self._seed())
        return tf.ensure_shape(drawn, (None,) if number is None else (None, number))

    def _seed(self) -> Any:
        assert self.generator is not None
        return tf.cast(self.generator.next(), tf.int32)


#: The changes of RandAugment, by number.
_IDENTITY, _TURN, _SHEAR_X, _SHEAR_Y, _SHIFT_X, _SHIFT_Y, _CONTRAST, _BRIGHTNESS = range(8)
_SHARPNESS, _POSTERIZE, _SOLARIZE, _AUTO_CONTRAST, _EQUALIZE, _COLOUR = range(8, 14)


def _one_of_all(images: tf.Tensor, draws: tf.Tensor, strength: Any, fill: str) -> tf.Tensor:
    """One change for each image, `draws` (b, 2) choosing which and which way; at strength
    1 each as strong as the paper has it.
    """
    number = _COLOUR + 1 if images.shape[-1] == 3 else _COLOUR
    which = tf.cast(draws[:, 0] * number, tf.int32)
    signed = tf.where(draws[:, 1] < 0.5, -strength, strength)

    def of(change: int, value: Any) -> tf.Tensor:
        """The value for images that are changed so, 0 for others."""
        return tf.where(which == change, value, tf.zeros_like(signed))

    def on(change: int, changed: tf.Tensor) -> tf.Tensor:
        return tf.where((which == change)[:, None, None, None], changed, images)

    moved = ops.matrices(
        of(_TURN, signed * math.radians(30)),
        (of(_SHEAR_X, signed * 0.3), of(_SHEAR_Y, signed * 0.3)),
        (of(_SHIFT_X, signed * 0.45), of(_SHIFT_Y, signed * 0.45)),
    )
    images = ops.affine(images, moved, fill)
    blends = {
        _CONTRAST: tf.reduce_mean(images, (1, 2, 3), keepdims=True),
        _BRIGHTNESS: tf.constant(0.0),
        _SHARPNESS: ops.sharpness_base(images),
    }
    if images.shape[-1] == 3:
        blends[_COLOUR] = tf.image.rgb_to_grayscale(images)
    base, share = images, tf.zeros_like(signed)
    for change, other in blends.items():
        base = tf.where((which == change)[:, None, None, None], other, base)
        share += of(change, signed * 0.9)
    images = ops.blend(images, base, 1 + share)
    full = tf.ones_like(signed) * strength
    images = on(_POSTERIZE, ops.posterize(images, 8 - tf.round(4 * full)))
    images = on(_SOLARIZE, ops.solarize(images, 255 * (1 - full)))
    images = on(_AUTO_CONTRAST, ops.auto_contrast(images))
    return on(_EQUALIZE, ops.equalize(images))


def _keras_layers(augmentation: Augmentation, fill: str) -> list[keras.layers.Layer]:
    layers: list[keras.layers.Layer] = []
    if augmentation.flip:
        layers.append(keras.layers.RandomFlip("horizontal", seed=0))
    if augmentation.rotation:
        layers.append(
            keras.layers.RandomRotation(augmentation.rotation / 360, fill_mode=fill, seed=0)
        )
    if augmentation.zoom:
        layers.append(keras.layers.RandomZoom(augmentation.zoom, fill_mode=fill, seed=0))
    if augmentation.vertical_flip:
        layers.append(keras.layers.RandomFlip("vertical", seed=0))
    return layers
