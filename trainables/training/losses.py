"""The loss of each image from its logits, in float32, and how images are mixed.

`truth`: (b, c), rows sum to 1; a mixed or smoothed label is a distribution.
"""

from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from trainables.models.architecture import Architecture


class Losses:
    """What is minimised. Its numbers are variables; which terms there are is structure."""

    def __init__(self, architecture: Architecture) -> None:
        self._classes = architecture.n_classes
        self._kind = architecture.loss
        self._smooths = architecture.smooths
        names = ("gamma", "tau", "label_smoothing")
        self._numbers = {name: tf.Variable(0.0, trainable=False) for name in names}
        self._log_priors = tf.Variable(tf.zeros(self._classes), trainable=False)

    def set_numbers(self, numbers: Mapping[str, float], priors: Any) -> None:
        """`priors`: share of each class in the training part, (c,)."""
        for name, variable in self._numbers.items():
            variable.assign(numbers[name])
        self._log_priors.assign(tf.math.log(tf.constant(priors, tf.float32)))

    def __call__(self, truth: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        """(b,); to be traced."""
        if self._smooths:  # Szegedy 2016, arXiv:1512.00567, section 7
            smoothing = tf.identity(self._numbers["label_smoothing"])
            truth = truth * (1 - smoothing) + smoothing / self._classes
        if self._kind == "logit_adjusted":  # Menon 2021, arXiv:2007.07314, equation 10
            logits = logits + self._numbers["tau"] * self._log_priors
        if self._kind == "focal":  # Lin 2017, arXiv:1708.02002, for any number of classes
            log_p = tf.nn.log_softmax(logits)
            # Never 0, where the power has no gradient.
            wrong = tf.maximum(-tf.math.expm1(log_p), 1e-7)
            weights = tf.pow(wrong, self._numbers["gamma"])
            return tf.reduce_sum(-truth * weights * log_p, axis=1)
        return tf.nn.softmax_cross_entropy_with_logits(truth, logits)


class Mixing:
    """Mixup (Zhang 2018, arXiv:1710.09412) or CutMix (Yun 2019, arXiv:1905.04899): each image with
    another one of its batch, in a share that is drawn once for the batch from Beta(alpha, alpha).
    """

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self.alpha = tf.Variable(1.0, trainable=False)
        self.generator = keras.random.SeedGenerator(0)

    def __call__(self, images: tf.Tensor, truth: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Images (b, s, s, c) and labels (b, c); to be traced."""
        partners = tf.random.experimental.stateless_shuffle(
            tf.range(tf.shape(images)[0]), self._seed()
        )
        share = self._beta()
        if self._kind == "cutmix":
            kept, share = self._box(tf.shape(images)[1], share)
            images = tf.where(kept, images, tf.gather(images, partners))
        else:
            images = share * images + (1 - share) * tf.gather(images, partners)
        return images, share * truth + (1 - share) * tf.gather(truth, partners)

    def _beta(self) -> tf.Tensor:
        drawn = [tf.random.stateless_gamma((), self._seed(), self.alpha) for _ in range(2)]
        # Both can be 0 where alpha is small: then the image is left alone.
        total = drawn[0] + drawn[1]
        return tf.where(total > 0, tf.math.divide_no_nan(drawn[0], total), 1.0)

    def _box(self, size: tf.Tensor, share: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Which pixels an image keeps, (1, s, s, 1), and their share: all outside of a square
        around a random place, cut off at the edges.
        """
        edge = tf.cast(size, tf.float32)
        half = tf.sqrt(1 - share) * edge / 2
        centre = tf.random.stateless_uniform((2,), self._seed()) * edge
        places = tf.range(edge) + 0.5
        inside = [tf.abs(places - centre[axis]) < half for axis in (0, 1)]
        cut = inside[0][:, None] & inside[1][None, :]
        kept = ~cut[None, :, :, None]
        return kept, tf.reduce_mean(tf.cast(kept, tf.float32))

    def _seed(self) -> Any:
        return tf.cast(self.generator.next(), tf.int32)
