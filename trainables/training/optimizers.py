"""Adam and SGD by TensorFlow's fused kernels, one operation per variable.

Keras's optimizers update each of a network's 200 variables by a dozen small operations, which cost
more to trace than the network's own forward pass and read the variables a dozen times. The
arithmetic, and the defaults, are Keras's.
"""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf


class Optimizer:
    """What both share: a learning rate, and slots of the shape of each variable."""

    def __init__(self, variables: Sequence[Any]) -> None:
        self._targets = [variable.value for variable in variables]
        self.learning_rate = tf.Variable(0.0, trainable=False)
        self.variables: list[tf.Variable] = []

    def _slots(self) -> list[tf.Variable]:
        slots = [tf.Variable(tf.zeros(target.shape), trainable=False) for target in self._targets]
        self.variables += slots
        return slots

    def reset(self) -> None:
        """Forget all steps; the learning rate stays."""
        for variable in self.variables:
            variable.assign(tf.zeros_like(variable))

    def apply(self, gradients: Sequence[tf.Tensor]) -> None:
        """One step, to be traced; `gradients` in the order of the variables."""
        raise NotImplementedError


class Adam(Optimizer):
    """Kingma and Ba (2015, arXiv:1412.6980), algorithm 1 in the form at the end of section 2."""

    def __init__(
        self,
        variables: Sequence[Any],
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
    ):
        super().__init__(variables)
        self._beta_1, self._beta_2, self._epsilon = beta_1, beta_2, epsilon
        self._means, self._squares = self._slots(), self._slots()
        self._steps = tf.Variable(0.0, trainable=False)
        self.variables.append(self._steps)

    def apply(self, gradients: Sequence[tf.Tensor]) -> None:
        steps = self._steps.assign_add(1.0)
        shared = {
            "beta1_power": tf.pow(self._beta_1, steps),
            "beta2_power": tf.pow(self._beta_2, steps),
            "lr": tf.identity(self.learning_rate),
            "beta1": tf.constant(self._beta_1),
            "beta2": tf.constant(self._beta_2),
            "epsilon": tf.constant(self._epsilon),
        }
        for target, mean, square, gradient in zip(
            self._targets, self._means, self._squares, gradients, strict=True
        ):
            tf.raw_ops.ResourceApplyAdam(
                var=target.handle,
                m=mean.handle,
                v=square.handle,
                grad=gradient,
                use_locking=True,
                **shared,
            )


class SGD(Optimizer):
    """Stochastic gradient descent with momentum 0.9."""

    def __init__(self, variables: Sequence[Any], momentum: float = 0.9) -> None:
        super().__init__(variables)
        self._momentum = momentum
        self._velocities = self._slots()

    def apply(self, gradients: Sequence[tf.Tensor]) -> None:
        shared = {"lr": tf.identity(self.learning_rate), "momentum": tf.constant(self._momentum)}
        for target, velocity, gradient in zip(
            self._targets, self._velocities, gradients, strict=True
        ):
            tf.raw_ops.ResourceApplyKerasMomentum(
                var=target.handle, accum=velocity.handle, grad=gradient, use_locking=True, **shared
            )
