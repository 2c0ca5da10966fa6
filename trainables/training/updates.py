"""From the gradients of a batch to new weights: averaged over batches, clipped, one step of the
optimizer.
"""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from trainables.models.architecture import Architecture
from trainables.training.optimizers import SGD, Adam, Lamb, Lion, Optimizer


class Averages:
    """An exponential moving average of weights (Polyak and Juditsky 1992): of all that a model has,
    so that batch normalisation's statistics belong to the averaged weights. It starts with the
    weights after the first step, as Keras's does.
    """

    def __init__(self, weights: Sequence[Any]) -> None:
        self._weights = [each for each in weights if each.dtype == "float32"]
        self._averages = [
            tf.Variable(tf.zeros(each.shape), trainable=False) for each in self._weights
        ]
        self._steps = tf.Variable(0.0, trainable=False)
        self.decay = tf.Variable(0.0, trainable=False)
        self.variables = [*self._averages, self._steps]

    def reset(self) -> None:
        self._steps.assign(0.0)
        for average in self._averages:
            average.assign(tf.zeros_like(average))

    def update(self) -> None:
        """After a step; to be traced."""
        decay = tf.where(self._steps > 0, self.decay, 0.0)
        for average, weight in zip(self._averages, self._weights, strict=True):
            average.assign(decay * average + (1 - decay) * weight)
        self._steps.assign_add(1.0)

    def swap(self) -> None:
        """Exchange the weights for their averages; once more brings both back."""
        for average, weight in zip(self._averages, self._weights, strict=True):
            value = tf.identity(weight)
            weight.assign(average)
            average.assign(value)


class Updates:
    """What one phase of training does with gradients, and with the averages of weights, if any are
    kept. `variables`: what it keeps from step to step.
    """

    def __init__(
        self, targets: Sequence[Any], architecture: Architecture, averages: Averages | None
    ) -> None:
        self.optimizer = _optimizer(targets, architecture)
        self.clip_norm = tf.Variable(0.0, trainable=False)
        self._clips = architecture.clips
        self._averages = averages
        self._sums: list[tf.Variable] = []
        if architecture.accumulates:
            self._sums = [tf.Variable(tf.zeros(each.shape), trainable=False) for each in targets]
            self._images = tf.Variable(0.0, trainable=False)

    @property
    def variables(self) -> list[tf.Variable]:
        return [*self.optimizer.variables, *self._summed]

    @property
    def _summed(self) -> list[tf.Variable]:
        return [*self._sums, self._images] if self._sums else []

    def reset(self) -> None:
        """Forget all steps; numbers stay."""
        self.optimizer.reset()
        self._forget_sums()

    def apply(self, gradients: Sequence[tf.Tensor], images: tf.Tensor, update: Any = True) -> None:
        """To be traced. `gradients`: of the mean over this batch's images; `update`: whether the
        optimizer steps now, or more batches come first, where it can wait.
        """
        if not self._sums:
            self._step(gradients)
            return
        number = tf.cast(images, tf.float32)
        for total, gradient in zip(self._sums, gradients, strict=True):
            total.assign_add(gradient * number)
        self._images.assign_add(number)
        tf.cond(update, self._step_by_sums, lambda: tf.constant(0))

    def _step_by_sums(self) -> tf.Tensor:
        self._step([total / self._images for total in self._sums])
        self._forget_sums()
        return tf.constant(0)

    def _step(self, gradients: Sequence[tf.Tensor]) -> None:
        if self._clips:
            gradients, _ = tf.clip_by_global_norm(gradients, self.clip_norm)
        self.optimizer.apply(gradients)
        if self._averages is not None:
            self._averages.update()

    def _forget_sums(self) -> None:
        for variable in self._summed:
            variable.assign(tf.zeros_like(variable))


def _optimizer(targets: Sequence[Any], architecture: Architecture) -> Optimizer:
    options = {"decays": architecture.decays, "layered": architecture.layered}
    if architecture.optimizer == "sgd":
        return SGD(targets, nesterov=architecture.nesterov, **options)
    kinds = {"adam": Adam, "adamw": Adam, "lion": Lion, "lamb": Lamb}
    return kinds[architecture.optimizer](targets, **options)
