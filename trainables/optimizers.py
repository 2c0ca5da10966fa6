"""Adam and SGD over all variables as one vector.

A network of 200 variables gives Keras's optimizers 200 small updates of a dozen operations each, which cost more to
trace than the network's own forward pass. The arithmetic per element, and the defaults, are those of Keras.
"""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf


class FlatOptimizer:
    """What both share: a learning rate, slots as long as all variables together, and one update for all of them."""

    def __init__(self, variables: Sequence[Any]) -> None:
        self._targets = [variable.value for variable in variables]
        self._sizes = [target.shape.num_elements() for target in self._targets]
        self.learning_rate = tf.Variable(0.0, trainable=False)
        self.variables: list[tf.Variable] = []

    def _slot(self) -> tf.Variable:
        slot = tf.Variable(tf.zeros(sum(self._sizes)), trainable=False)
        self.variables.append(slot)
        return slot

    def reset(self) -> None:
        """Forget all steps; the learning rate stays."""
        for variable in self.variables:
            variable.assign(tf.zeros_like(variable))

    def apply(self, gradients: Sequence[tf.Tensor]) -> None:
        """One step, to be traced; `gradients` in the order of the variables."""
        step = self._step(tf.concat([_reshaped(gradient, [-1]) for gradient in gradients], 0))
        for target, part in zip(self._targets, tf.split(step, self._sizes), strict=True):
            target.assign_sub(_reshaped(part, target.shape))

    def _step(self, gradient: tf.Tensor) -> tf.Tensor:
        """What is to be subtracted."""
        raise NotImplementedError


def _reshaped(values: tf.Tensor, shape: Sequence[int]) -> tf.Tensor:
    """Two operations less to trace for each of the many vectors."""
    return values if len(shape) == len(values.shape) == 1 else tf.reshape(values, shape)


class Adam(FlatOptimizer):
    """Kingma and Ba (2015, arXiv:1412.6980), algorithm 1 in the form at the end of section 2."""

    def __init__(self, variables: Sequence[Any], beta_1: float = 0.9, beta_2: float = 0.999, epsilon: float = 1e-7):
        super().__init__(variables)
        self._beta_1, self._beta_2, self._epsilon = beta_1, beta_2, epsilon
        self._mean, self._square = self._slot(), self._slot()
        self._steps = tf.Variable(0.0, trainable=False)
        self.variables.append(self._steps)

    def _step(self, gradient: tf.Tensor) -> tf.Tensor:
        steps = self._steps.assign_add(1.0)
        rate = self.learning_rate * tf.sqrt(1 - tf.pow(self._beta_2, steps)) / (1 - tf.pow(self._beta_1, steps))
        mean = self._mean.assign_add((gradient - self._mean) * (1 - self._beta_1))
        square = self._square.assign_add((tf.square(gradient) - self._square) * (1 - self._beta_2))
        return mean * rate / (tf.sqrt(square) + self._epsilon)


class SGD(FlatOptimizer):
    """Stochastic gradient descent with momentum 0.9."""

    def __init__(self, variables: Sequence[Any], momentum: float = 0.9) -> None:
        super().__init__(variables)
        self._momentum = momentum
        self._velocity = self._slot()

    def _step(self, gradient: tf.Tensor) -> tf.Tensor:
        return self._velocity.assign(self._momentum * self._velocity + self.learning_rate * gradient)
