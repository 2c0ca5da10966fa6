"""A model with its training step, built once and reset in place for every cell that has the same architecture.

Starting over in place costs milliseconds where building and tracing cost tens of seconds. A reset session gives
bit-identical results to a new one: weights, optimizer variables and random generator states are all set anew, and
`tf.random.set_seed`, which would throw the traced graphs away, is never called.
"""

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from trainables import normalization, zoo
from trainables.architecture import Architecture
from trainables.config import Augmentation
from trainables.optimizers import SGD, Adam

Arrays = list[NDArray[Any]]


class Session:
    """One architecture, ready to train: `reset(seed)`, then `train_step` and `logits` on batches."""

    def __init__(self, architecture: Architecture, seed: int) -> None:
        self._architecture = architecture
        self.model = self._build(seed)
        self._initial = {seed: self.model.get_weights()}
        self._augment = _augmentation_layers(architecture.augmentation)
        self._variables = list(self.model.trainable_variables)
        self._head = _head_layers(self.model)
        self._head_variables = [variable for layer in self._head for variable in layer.trainable_variables]
        create = {"adam": Adam, "sgd": SGD}[architecture.optimizer]
        # One optimizer per phase: what the head's has seen must not drive the backbone once it is released.
        self._optimizers = {False: create(self._variables), True: create(self._head_variables)}
        self._steps: dict[bool, Any] = {}
        shape = (None, architecture.image_size, architecture.image_size, architecture.channels)
        self._pixels_spec = tf.TensorSpec(shape, tf.uint8)
        self._logits = tf.function(
            self._forward, input_signature=[self._pixels_spec], autograph=False, jit_compile=architecture.xla
        )

    def reset(self, seed: int) -> None:
        """Back to the first moment of a cell with this seed."""
        if seed not in self._initial:
            self._initial = {seed: self._build(seed).get_weights()}
        self.model.set_weights(self._initial[seed])
        for optimizer in self._optimizers.values():
            optimizer.reset()
        for index, state in enumerate(self._random_states()):
            (value,) = np.random.SeedSequence([seed, index]).generate_state(1)
            state.assign(np.array([value, 0], dtype=np.uint32))

    def set_learning_rate(self, value: float) -> None:
        for optimizer in self._optimizers.values():
            optimizer.learning_rate.assign(value)

    def prepare(self, head_only: bool) -> None:
        """Trace the training step unless that has been done."""
        if head_only not in self._steps:
            self._steps[head_only] = self._trace_step(head_only)

    def train_step(self, pixels: Any, labels: Any, weights: Any, head_only: bool) -> tuple[tf.Tensor, tf.Tensor]:
        """One optimizer step; returns the sum of the images' losses and the number of right predictions."""
        self.prepare(head_only)
        loss, hits = self._steps[head_only](pixels, labels, weights)
        return loss, hits

    def logits(self, pixels: Any) -> tf.Tensor:
        """Inference: (b, size, size, channels) uint8 → (b, classes) float32."""
        return self._logits(pixels)

    def weights(self) -> Arrays:
        return self.model.get_weights()  # type: ignore[no-any-return]

    def set_weights(self, weights: Arrays) -> None:
        self.model.set_weights(weights)

    def state(self) -> Arrays:
        """All that training changes: weights, optimizer variables, random generator states."""
        return [np.asarray(variable) for variable in self._state_variables()]

    def fits(self, arrays: Sequence[NDArray[Any]]) -> bool:
        """Whether `state` could have given these arrays."""
        ours, theirs = ([(array.shape, array.dtype) for array in state] for state in (self.state(), arrays))
        return ours == theirs

    def set_state(self, arrays: Sequence[NDArray[Any]]) -> None:
        for variable, array in zip(self._state_variables(), arrays, strict=True):
            variable.assign(array)

    @property
    def state_bytes(self) -> int:
        """Size of `state` and the best weights together."""
        elements = [variable.shape.num_elements() for variable in (v.value for v in self.model.weights)]
        slots = [v.shape.num_elements() for optimizer in self._optimizers.values() for v in optimizer.variables]
        return int(4 * (2 * sum(elements) + sum(slots)))

    def probability_model(self) -> keras.Model:
        """The model with a softmax on top, sharing this session's weights: what users save and load."""
        probabilities = keras.layers.Softmax(name="probabilities", dtype="float32")(self.model.outputs[0])
        return keras.Model(self.model.inputs, probabilities)

    @property
    def parameters(self) -> int:
        return int(self.model.count_params())

    def _build(self, seed: int) -> keras.Model:
        a = self._architecture
        with python_seed(seed), _dtype_policy(a.precision):
            model = zoo.build(a.model, a.image_size, a.channels, a.n_classes, a.weights, a.dropout, a.arguments)
        if a.batch_norm_momentum is not None:
            for layer in normalization.batch_normalizations(model):
                layer.momentum = a.batch_norm_momentum
        return model

    def _state_variables(self) -> list[Any]:
        slots = [variable for optimizer in self._optimizers.values() for variable in optimizer.variables]
        return [*self.model.weights, *slots, *self._random_states()]

    def _random_states(self) -> list[Any]:
        """The states of Keras's seed generators: variables of the model that are not weights."""
        weights = {id(variable) for variable in self.model.weights}
        layers = [self.model, *self._augment]
        return [v for layer in layers for v in layer.variables if id(v) not in weights]

    def _forward(self, pixels: tf.Tensor) -> tf.Tensor:
        return self.model(tf.cast(pixels, tf.float32), training=False)

    def _trace_step(self, head_only: bool) -> Any:
        """The training step as a graph; with `head_only` the backbone also keeps its normalisation statistics."""
        frozen = [layer for layer in self.model.layers if layer not in self._head and layer.trainable]
        frozen = frozen if head_only else []
        variables = self._head_variables if head_only else self._variables
        optimizer = self._optimizers[head_only]

        def step(pixels: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            images = tf.cast(pixels, tf.float32)
            for layer in self._augment:
                images = layer(images, training=True)
            with tf.GradientTape() as tape:
                logits = self.model(images, training=True)
                truth = tf.one_hot(labels, self._architecture.n_classes)
                losses = tf.nn.softmax_cross_entropy_with_logits(truth, logits)
                objective = tf.reduce_mean(losses * weights) + sum(self.model.losses)
            gradients = tape.gradient(objective, variables, unconnected_gradients=tf.UnconnectedGradients.ZERO)
            optimizer.apply(gradients)
            hits = tf.reduce_sum(tf.cast(tf.argmax(logits, 1, tf.int32) == labels, tf.int32))
            return tf.reduce_sum(losses), hits

        signature = [self._pixels_spec, tf.TensorSpec((None,), tf.int32), tf.TensorSpec((None,), tf.float32)]
        for layer in frozen:
            layer.trainable = False
        try:
            with normalization.fused(self.model):
                traced = tf.function(step, autograph=False, jit_compile=self._architecture.xla)
                return traced.get_concrete_function(*signature)
        finally:
            for layer in frozen:
                layer.trainable = True


@contextmanager
def python_seed(seed: int) -> Iterator[None]:
    """Keras draws the seeds of initializers and dropout from Python's generator: fix it for the time of a build."""
    before = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(before)


@contextmanager
def _dtype_policy(precision: str) -> Iterator[None]:
    """What Keras layers that are built inside compute in; bfloat16 needs no loss scaling, unlike float16."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float32" if precision == "float32" else f"mixed_{precision}")
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def _augmentation_layers(augmentation: Augmentation) -> list[keras.layers.Layer]:
    """What lies outside the turned or shrunken image is black, as it is outside a radiograph."""
    layers: list[keras.layers.Layer] = []
    if augmentation.flip:
        layers.append(keras.layers.RandomFlip("horizontal", seed=0))
    if augmentation.rotation:
        layers.append(keras.layers.RandomRotation(augmentation.rotation / 360, fill_mode="constant", seed=0))
    if augmentation.zoom:
        layers.append(keras.layers.RandomZoom(augmentation.zoom, fill_mode="constant", seed=0))
    return layers


def _head_layers(model: keras.Model) -> list[keras.layers.Layer]:
    """The classifier head: by its name in the zoo, else the last layer that learns."""
    named = [layer for layer in model.layers if layer.name in ("logits", "head_norm")]
    return named or [layer for layer in model.layers if layer.trainable_variables][-1:]
