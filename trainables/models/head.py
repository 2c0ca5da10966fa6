"""The classifier head of a model: what head-only epochs train, while all before it stays as it is
at inference.

Keras's guide to transfer learning asks for this: while a backbone is frozen, its batch
normalization, dropout and stochastic depth behave as at inference. Nothing of the model is changed
for it, least of all which layers the author of a builder has frozen.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

import keras
import tensorflow as tf

from trainables.models.zoo_head import HEAD_LAYERS
from trainables.runtime.keras_internals import (
    all_layers,
    calls_in,
    clear_losses,
    inner_graph,
    made_to_learn,
    maker,
    run_through,
)

_ZOO_NAMES = (*HEAD_LAYERS, "head_norm")


class Head:
    """The head of a model: by its names in the zoo, else the last layer that learns, inside nested
    models too.

    `variables`: what learns in it. Without any layer that learns there are none.
    """

    def __init__(self, model: keras.Model, of_zoo: bool) -> None:
        self._model = model
        self._opened: list[Any] = []  # the nested models that hold the head
        graph = inner_graph(model)
        if of_zoo:
            layers = [layer for layer in graph.layers if layer.name in _ZOO_NAMES]
        else:
            layers = _last_that_learns(graph)
            while layers and _holds_all(graph, layers[0]):
                self._opened += layers
                graph = inner_graph(layers[0])
                layers = _last_that_learns(graph)
        self.variables = [variable for layer in layers for variable in layer.trainable_variables]
        self._live = [
            *layers,
            *(before for layer in layers for before in _without_weights_before(graph, layer)),
        ]

    def forward(self, images: tf.Tensor) -> tf.Tensor:
        """The logits in a head-only step: the head as in training, all else as at inference."""
        clear_losses(self._model)
        (logits,) = tf.nest.flatten(self._step_into(self._model, images))
        return logits

    def _step_into(self, model: Any, images: Any) -> Any:
        return run_through(
            inner_graph(model), images, lambda operation: partial(self._run, operation)
        )

    def _run(self, operation: Any, *arguments: Any, **keywords: Any) -> Any:
        if _among(operation, self._opened):
            return self._step_into(operation, arguments[0])
        if isinstance(operation, keras.layers.Layer):
            # As a model that is called with `training` does, whatever its graph was built with:
            # there a default stands like a value that was asked for.
            keywords["training"] = _among(operation, self._live)
        return operation(*arguments, **keywords)


def is_graph(layer: Any) -> bool:
    """Whether a layer is a model that can be walked through: functional or Sequential."""
    return isinstance(layer, keras.Sequential) or (
        isinstance(layer, keras.Model) and isinstance(layer, keras.Function)
    )


def _last_that_learns(graph: Any) -> list[Any]:
    return [layer for layer in graph.layers if layer.trainable_variables][-1:]


def _holds_all(graph: Any, layer: Any) -> bool:
    """Whether a layer is a nested model beside which nothing was made to learn: the whole
    classifier, wrapped.
    """
    if not is_graph(layer):
        return False
    others = [part for other in graph.layers if other is not layer for part in all_layers(other)]
    return not any(made_to_learn(part) for part in others)


def _without_weights_before(graph: Any, layer: Any) -> Iterator[Any]:
    """What stands before the head in a single line, such as pooling and dropout, up to the next
    weights or branch.
    """
    calls = calls_in(graph, layer)
    while len(calls) == 1 and len(calls[0].input_tensors) == 1:
        made = maker(graph, calls[0].input_tensors[0])
        if made is None or made[0].is_input or getattr(made[0].operation, "weights", None):
            return
        calls = [made[0]]
        yield made[0].operation


def _among(one: Any, several: list[Any]) -> bool:
    return any(one is other for other in several)
