"""Optimizers by TensorFlow's fused kernels where there are some, one operation per variable.

Keras's optimizers update each of a network's 200 variables by a dozen small operations, which cost
more to trace than the network's own forward pass and read the variables a dozen times. The
arithmetic, and the defaults, are Keras's, but for LAMB's weight decay, which is its paper's.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import tensorflow as tf


class Optimizer:
    """What all share: numbers that are variables, so that they can change without a new trace, and
    slots of the shape of each variable.

    `layered`: each variable has a share of the learning rate, in `shares`; with 0 it stays as it
    is, while what is kept of its gradients goes on. Weight decay is decoupled (Loshchilov and
    Hutter 2019, arXiv:1711.05101) and leaves what has fewer than two dimensions alone, biases and
    normalisation for instance.
    """

    #: Numbers beside the learning rate, with their defaults.
    defaults: ClassVar[Mapping[str, float]] = {}

    def __init__(
        self, variables: Sequence[Any], *, decays: bool = False, layered: bool = False
    ) -> None:
        self._targets = [variable.value for variable in variables]
        self._decayed = [decays and len(target.shape) > 1 for target in self._targets]
        numbers = {"learning_rate": 0.0, "weight_decay": 0.0, **self.defaults}
        self._numbers = {
            name: tf.Variable(value, trainable=False, dtype=tf.float32)
            for name, value in numbers.items()
        }
        self.variables: list[tf.Variable] = []
        self.shares = tf.Variable(tf.ones(len(self._targets)), trainable=False) if layered else None

    def set_numbers(self, numbers: Mapping[str, float | None]) -> None:
        """Change some of the numbers; None: the default. Those of other optimizers are ignored."""
        for name in self._numbers.keys() & numbers.keys():
            value = numbers[name]
            self._numbers[name].assign(self.defaults[name] if value is None else value)

    def reset(self) -> None:
        """Forget all steps; the numbers stay."""
        for variable in self.variables:
            variable.assign(tf.zeros_like(variable))

    def apply(self, gradients: Sequence[tf.Tensor]) -> None:
        """One step, to be traced; `gradients` in the order of the variables."""
        rate, shrinkages = self._number("learning_rate"), []
        if any(self._decayed):
            shrinkages = self._for_each(rate * self._number("weight_decay"))
        rates = self._for_each(rate)
        self._begin_step()
        for index, gradient in enumerate(gradients):
            if self._decayed[index]:
                self._targets[index].assign_sub(self._targets[index] * shrinkages[index])
            self._move(index, gradient, rates[index])

    def _for_each(self, number: tf.Tensor) -> list[tf.Tensor]:
        """A rate for each variable: of all of them the same, or the share of each."""
        if self.shares is None:
            return [number] * len(self._targets)
        return tf.unstack(number * self.shares)  # type: ignore[no-any-return]

    def _begin_step(self) -> None:
        """What is computed once for all variables."""

    def _move(self, index: int, gradient: tf.Tensor, rate: tf.Tensor) -> None:
        raise NotImplementedError

    def _number(self, name: str) -> tf.Tensor:
        return tf.identity(self._numbers[name])

    def _slots(self) -> list[tf.Variable]:
        slots = [tf.Variable(tf.zeros(target.shape), trainable=False) for target in self._targets]
        self.variables += slots
        return slots


class Adam(Optimizer):
    """Kingma and Ba (2015, arXiv:1412.6980), algorithm 1 in the form at the end of section 2; with
    weight decay AdamW.
    """

    defaults: ClassVar[Mapping[str, float]] = {"beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-7}

    def __init__(self, variables: Sequence[Any], **options: bool) -> None:
        super().__init__(variables, **options)
        self._means, self._squares = self._slots(), self._slots()
        self._steps = tf.Variable(0.0, trainable=False)
        self.variables.append(self._steps)

    def _begin_step(self) -> None:
        steps = self._steps.assign_add(1.0)
        beta_1, beta_2 = self._number("beta_1"), self._number("beta_2")
        self._shared = {
            "beta1_power": tf.pow(beta_1, steps),
            "beta2_power": tf.pow(beta_2, steps),
            "beta1": beta_1,
            "beta2": beta_2,
            "epsilon": self._number("epsilon"),
        }

    def _move(self, index: int, gradient: tf.Tensor, rate: tf.Tensor) -> None:
        tf.raw_ops.ResourceApplyAdam(
            var=self._targets[index].handle,
            m=self._means[index].handle,
            v=self._squares[index].handle,
            grad=gradient,
            lr=rate,
            use_locking=True,
            **self._shared,
        )


class Lamb(Adam):
    """You et al. (2020, arXiv:1904.00962), algorithm 2 without a bound on the norm: Adam's step,
    and weight decay, scaled for each variable by its norm, for large batches.
    """

    def apply(self, gradients: Sequence[tf.Tensor]) -> None:
        self._begin_step()
        rates, decay = self._for_each(self._number("learning_rate")), self._number("weight_decay")
        shared = self._shared
        for index, gradient in enumerate(gradients):
            target, mean, square = (
                slots[index] for slots in (self._targets, self._means, self._squares)
            )
            mean.assign(shared["beta1"] * mean + (1 - shared["beta1"]) * gradient)
            square.assign(shared["beta2"] * square + (1 - shared["beta2"]) * tf.square(gradient))
            corrected = tf.sqrt(square / (1 - shared["beta2_power"])) + shared["epsilon"]
            step = mean / (1 - shared["beta1_power"]) / corrected
            if self._decayed[index]:
                step += decay * target
            sizes = tf.norm(target), tf.norm(step)
            both = (sizes[0] > 0) & (sizes[1] > 0)
            trust = tf.where(both, tf.math.divide_no_nan(*sizes), 1.0)
            target.assign_sub(rates[index] * trust * step)


class Lion(Optimizer):
    """Chen et al. (2023, arXiv:2302.06675), algorithm 2: the sign of a mean of gradients."""

    defaults: ClassVar[Mapping[str, float]] = {"beta_1": 0.9, "beta_2": 0.99}

    def __init__(self, variables: Sequence[Any], **options: bool) -> None:
        super().__init__(variables, **options)
        self._means = self._slots()

    def _begin_step(self) -> None:
        self._betas = self._number("beta_1"), self._number("beta_2")

    def _move(self, index: int, gradient: tf.Tensor, rate: tf.Tensor) -> None:
        mean, (beta_1, beta_2) = self._means[index], self._betas
        self._targets[index].assign_sub(rate * tf.sign(beta_1 * mean + (1 - beta_1) * gradient))
        mean.assign(beta_2 * mean + (1 - beta_2) * gradient)


class SGD(Optimizer):
    """Stochastic gradient descent with momentum, or with Nesterov's."""

    defaults: ClassVar[Mapping[str, float]] = {"momentum": 0.9}

    def __init__(
        self, variables: Sequence[Any], *, nesterov: bool = False, **options: bool
    ) -> None:
        super().__init__(variables, **options)
        self._nesterov = nesterov
        self._velocities = self._slots()

    def _begin_step(self) -> None:
        self._momentum = self._number("momentum")

    def _move(self, index: int, gradient: tf.Tensor, rate: tf.Tensor) -> None:
        tf.raw_ops.ResourceApplyKerasMomentum(
            var=self._targets[index].handle,
            accum=self._velocities[index].handle,
            lr=rate,
            grad=gradient,
            momentum=self._momentum,
            use_locking=True,
            use_nesterov=self._nesterov,
        )
