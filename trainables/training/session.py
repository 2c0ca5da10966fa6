"""A model with its training step, built once and reset in place for every cell that has the same
architecture.

Starting over in place costs milliseconds where building and tracing cost tens of seconds. A reset
session gives bit-identical results to a new one: weights, optimizer variables, random generator
states and whatever else the model's layers count are all set anew, layers are never changed, and
`tf.random.set_seed`, which would throw the traced graphs away, is never called.
"""

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from trainables.core.errors import ModelError
from trainables.core.training_config import Training
from trainables.models import user_code, zoo
from trainables.models.architecture import Architecture
from trainables.models.blocks import distances
from trainables.models.head import Head, Upper
from trainables.models.opening import with_softmax
from trainables.models.views import views
from trainables.runtime.keras_internals import all_layers, global_seeds, seed_generators
from trainables.training import normalization, schedules
from trainables.training.augmentation import Augment
from trainables.training.losses import Losses, Mixing
from trainables.training.updates import Averages, Updates

Arrays = list[NDArray[Any]]


class Session:
    """One architecture, ready to train: `reset(seed)`, then `train_step` and `logits` on
    batches.
    """

    def __init__(self, architecture: Architecture, seed: int) -> None:
        self._architecture = architecture
        self.model = self._build(seed)
        self._initial = {seed: _values(_steady_variables(self.model))}
        self._augment = Augment(architecture.augmentation)
        # Layers that draw without a generator of their own use Keras's global one: each session has
        # its own for them.
        self._generator = keras.random.SeedGenerator(0)
        of_zoo = architecture.model in zoo.MODELS
        self._head = Head(self.model, of_zoo)
        self._upper: Upper | None = None
        if architecture.frozen_until is not None:
            self._upper = Upper(self.model, architecture.frozen_until, self._head, of_zoo)
        self._losses = Losses(architecture)
        self._mixing = Mixing(architecture.mix) if architecture.mix != "none" else None
        released = self._upper.variables if self._upper else self.model.trainable_variables
        self._targets = {False: list(released)}
        self._distances = distances(self._head.blocks(released, of_zoo))
        if architecture.frozen_phase:
            self._targets[True] = self._head.variables
        self._averages = Averages(self.model.weights) if architecture.averages else None
        # One optimizer per phase: what the head's has seen must not drive the backbone once it is
        # released.
        self._updates = {
            head_only: Updates(variables, architecture, self._averages)
            for head_only, variables in self._targets.items()
        }
        self._steps: dict[bool, Any] = {}
        shape = (None, architecture.image_size, architecture.image_size, architecture.channels)
        self._pixels_spec = tf.TensorSpec(shape, f"uint{architecture.depth}")
        self._logits = tf.function(
            self._forward,
            input_signature=[self._pixels_spec],
            autograph=False,
            jit_compile=architecture.xla,
        )

    def reset(self, seed: int) -> None:
        """Back to the first moment of a cell with this seed."""
        if seed not in self._initial:
            self._initial = {seed: _values(_steady_variables(self._build(seed)))}
        for variable, value in zip(_steady_variables(self.model), self._initial[seed], strict=True):
            variable.assign(value)
        for kept in self._kept:
            kept.reset()
        for index, state in enumerate(self._random_states()):
            (value,) = np.random.SeedSequence([seed, index]).generate_state(1)
            state.assign(np.array([value, 0], dtype=np.uint32))

    def set_numbers(self, training: Training, priors: Any) -> None:
        """Settings that are numbers, which hold from the next step on; the learning rate is set by
        itself. `priors`: share of each class in the training part, (c,).
        """
        self._losses.set_numbers(training.loss.numbers, priors)
        self._augment.set_numbers(training.augmentation)
        if self._mixing is not None:
            self._mixing.alpha.assign(training.mix.strength)
        numbers = training.model_dump() | {"weight_decay": training.decay}
        for updates in self._updates.values():
            updates.optimizer.set_numbers(numbers)
            updates.clip_norm.assign(training.clip_norm or 0.0)
        if self._averages is not None:
            self._averages.decay.assign(training.ema)

    def set_learning_rate(self, value: float) -> None:
        for updates in self._updates.values():
            updates.optimizer.set_numbers({"learning_rate": value})

    def set_epoch(self, training: Training, epoch: int) -> None:
        """Blocks' shares of the learning rate, which hold from the next step on."""
        if (shares := self._updates[False].optimizer.shares) is not None:
            shares.assign(
                [schedules.block_share(training, epoch, each) for each in self._distances]
            )

    def prepare(self, head_only: bool) -> None:
        """Trace the training step unless that has been done."""
        if head_only not in self._steps:
            self._steps[head_only] = self._trace_step(head_only)

    def train_step(
        self, pixels: Any, labels: Any, weights: Any, head_only: bool, update: bool = True
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Learn from one batch; returns the sum of the images' losses and the number of right
        predictions.

        `update`: whether the optimizer steps now, where a step has several batches.
        """
        self.prepare(head_only)
        last = [tf.constant(update)] if self._architecture.accumulates else []
        loss, hits = self._steps[head_only](pixels, labels, weights, *last)
        return loss, hits

    @contextmanager
    def scoring(self) -> Iterator[None]:
        """Within it the model has the weights that are validated, kept and scored: the averages,
        where there are some.
        """
        if self._averages is not None:
            self._averages.swap()
        try:
            yield
        finally:
            if self._averages is not None:
                self._averages.swap()

    def logits(self, pixels: Any) -> tf.Tensor:
        """Inference: (b, size, size, channels), uint8 or of depth 16 uint16 → (b, classes)
        float32.
        """
        with global_seeds(self._generator):  # the first call traces
            return self._logits(pixels)

    def weights(self) -> Arrays:
        return self.model.get_weights()  # type: ignore[no-any-return]

    def set_weights(self, weights: Arrays) -> None:
        self.model.set_weights(weights)

    def state(self) -> Arrays:
        """All that training changes: weights, what layers count, optimizer variables, random
        generator states.
        """
        return _values(self._state_variables())

    def fits(self, arrays: Sequence[NDArray[Any]]) -> bool:
        """Whether `state` could have given these arrays."""
        ours, theirs = (
            [(array.shape, array.dtype) for array in state] for state in (self.state(), arrays)
        )
        return ours == theirs

    def set_state(self, arrays: Sequence[NDArray[Any]]) -> None:
        for variable, array in zip(self._state_variables(), arrays, strict=True):
            variable.assign(array)

    def state_bytes(self, kept: int = 1) -> int:
        """Size of `state` and of the weights that are kept of so many epochs together."""
        elements = [
            variable.shape.num_elements() for variable in (v.value for v in self.model.weights)
        ]
        slots = [v.shape.num_elements() for kept in self._kept for v in kept.variables]
        return int(4 * ((1 + kept) * sum(elements) + sum(slots)))

    def probability_model(self) -> keras.Model:
        """The model with a softmax on top, sharing this session's weights: what users save and
        load.
        """
        return with_softmax(self.model)

    def noise(self, number: int) -> NDArray[Any]:
        """Random pixels as `train_step` takes them, the same every time."""
        shape, dtype = (number, *self._pixels_spec.shape[1:]), self._pixels_spec.dtype
        return np.random.default_rng(0).integers(0, dtype.max + 1, shape, dtype.as_numpy_dtype)

    @property
    def parameters(self) -> int:
        return int(self.model.count_params())

    def _build(self, seed: int) -> keras.Model:
        a = self._architecture
        if (
            a.builder_hash is not None
            and zoo.builder_digest(a.model, user_code.folder_of(a.model)) != a.builder_hash
        ):
            raise ModelError(f"the code of {a.model} has changed since the run began: run it again")
        with (
            python_seed(seed),
            _keras_settings(a.precision),
            global_seeds(keras.random.SeedGenerator(seed)),
        ):
            model = zoo.build(
                a.model,
                a.image_size,
                a.channels,
                a.n_classes,
                a.weights,
                a.dropout,
                a.arguments,
                head=a.head,
                backbone_dropout=a.backbone_dropout,
                stochastic_depth=a.stochastic_depth,
                per_image=a.normalization == "per_image",
            )
        if a.batch_norm_momentum is not None:
            for layer in normalization.batch_normalizations(model):
                layer.momentum = a.batch_norm_momentum
        return model

    @property
    def _kept(self) -> list[Updates | Averages]:
        """What holds variables from step to step."""
        averages = [] if self._averages is None else [self._averages]
        return [*self._updates.values(), *averages]

    def _state_variables(self) -> list[Any]:
        slots = [variable for kept in self._kept for variable in kept.variables]
        return [*_steady_variables(self.model), *slots, *self._random_states()]

    def _random_states(self) -> list[Any]:
        """The states of Keras's seed generators."""
        layers = [self.model, *self._augment.layers]
        seeds = {id(state) for layer in layers for state in _seed_states(layer)}
        return [
            *(v for layer in layers for v in layer.variables if id(v) in seeds),
            self._generator.state,
            *(
                each.generator.state
                for each in (self._mixing, self._augment)
                if each is not None and each.generator is not None
            ),
        ]

    def _forward(self, pixels: tf.Tensor) -> tf.Tensor:
        images = self._raw(pixels)
        logits = [
            tf.cast(self.model(view, training=False), tf.float32)
            for view in views(images, self._architecture.test_time_augmentation)
        ]
        return logits[0] if len(logits) == 1 else tf.add_n(logits) / len(logits)

    def _raw(self, pixels: tf.Tensor) -> tf.Tensor:
        """What the model is given, 0 to 255 float32: of uint16 with fractions, as `depth.raw`."""
        images = tf.cast(pixels, tf.float32)
        return images / 257 if self._architecture.depth == 16 else images

    def _trace_step(self, head_only: bool) -> Any:
        """The training step as a graph; with `head_only` the backbone runs as at inference and
        keeps all it has, and so does in any step what is frozen throughout.
        """
        variables, updates = self._targets[head_only], self._updates[head_only]
        part = self._head if head_only else self._upper
        forward = part.forward if part else partial(self.model, training=True)

        def learn(
            images: tf.Tensor, truth: tf.Tensor, weights: tf.Tensor, *update: tf.Tensor
        ) -> tuple[tf.Tensor, tf.Tensor]:
            with tf.GradientTape() as tape:
                logits = tf.cast(forward(images), tf.float32)  # a builder's may come in bfloat16
                losses = self._losses(truth, logits)
                objective = tf.reduce_mean(losses * weights) + sum(self.model.losses)
            gradients = tape.gradient(
                objective, variables, unconnected_gradients=tf.UnconnectedGradients.ZERO
            )
            updates.apply(gradients, tf.shape(weights)[0], *update)
            return tf.reduce_sum(losses), tf.argmax(logits, 1, tf.int32)

        if self._architecture.xla:  # which has none of the operations that move or shuffle images
            learn = tf.function(learn, autograph=False, jit_compile=True)

        def step(
            pixels: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor, *update: tf.Tensor
        ) -> tuple[tf.Tensor, tf.Tensor]:
            images = self._augment(self._raw(pixels))
            truth = tf.one_hot(labels, self._architecture.n_classes)
            if self._mixing is not None:
                images, truth = self._mixing(images, truth)
            loss, predictions = learn(images, truth, weights, *update)
            return loss, tf.reduce_sum(tf.cast(predictions == labels, tf.int32))

        signature = [
            self._pixels_spec,
            tf.TensorSpec((None,), tf.int32),
            tf.TensorSpec((None,), tf.float32),
            *([tf.TensorSpec((), tf.bool)] if self._architecture.accumulates else []),
        ]
        with normalization.fused(self.model), global_seeds(self._generator):
            traced = tf.function(step, autograph=False)
            return traced.get_concrete_function(*signature)


def _values(variables: Sequence[Any]) -> Arrays:
    return [np.asarray(variable) for variable in variables]


def _seed_states(layer: keras.layers.Layer) -> list[Any]:
    return [generator.state for part in all_layers(layer) for generator in seed_generators(part)]


def _steady_variables(model: keras.Model) -> list[Any]:
    """What a model starts a cell with: its weights, then whatever its layers count or measure; no
    random states.
    """
    found = [*model.weights, *model.variables]
    for layer in all_layers(model):
        found += layer.metrics_variables
        # Variables of TensorFlow's own are unknown to Keras.
        own = [
            value.state if isinstance(value, tf.random.Generator) else value
            for value in vars(layer).values()
        ]
        found += [value for value in own if isinstance(value, tf.Variable)]
    seeds = {id(state) for state in _seed_states(model)}
    return list(
        {id(variable): variable for variable in found if id(variable) not in seeds}.values()
    )


@contextmanager
def python_seed(seed: int) -> Iterator[None]:
    """Keras draws the seeds of initializers and dropout from Python's generator: fix it for the
    time of a build.

    NumPy's global generator, which some builders draw from, is fixed as well.
    """
    before, of_numpy = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed)
    try:
        yield
    finally:
        random.setstate(before)
        np.random.set_state(of_numpy)


@contextmanager
def _keras_settings(precision: str) -> Iterator[None]:
    """What layers that are built inside compute in; whatever a builder sets of Keras ends with the
    block.

    bfloat16 needs no loss scaling, unlike float16.
    """
    config = keras.config
    policy, floatx, epsilon = config.dtype_policy(), config.floatx(), config.epsilon()
    data_format = config.image_data_format()
    config.set_dtype_policy("float32" if precision == "float32" else f"mixed_{precision}")
    try:
        yield
    finally:
        config.set_floatx(floatx)
        config.set_epsilon(epsilon)
        config.set_image_data_format(data_format)
        config.set_dtype_policy(policy)
