"""The upper part of a model, which learns while all before it stays as it is at inference: in
head-only epochs the classifier head, in others all from a layer on.

Keras's guide to transfer learning asks for this: while a backbone is frozen, its batch
normalization, dropout and stochastic depth behave as at inference. Nothing of the model is changed
for it, least of all which layers the author of a builder has frozen.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import keras
import tensorflow as tf

from trainables.core.errors import ModelError, nearest
from trainables.models.blocks import HEAD, blocks
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


class Part:
    """A part of a model that learns. `variables`: what learns in it; `live`: its layers; `opened`:
    the nested models that hold some of them.
    """

    def __init__(
        self, model: keras.Model, variables: list[Any], live: list[Any], opened: list[Any]
    ) -> None:
        self.variables = variables
        self._model, self._live, self._opened = model, live, opened

    def forward(self, images: tf.Tensor) -> tf.Tensor:
        """The logits in a training step: this part as in training, all else as at inference."""
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


class Head(Part):
    """The head of a model: by its names in the zoo, else the last layer that learns, inside nested
    models too. Without any layer that learns there are no variables.
    """

    def __init__(self, model: keras.Model, of_zoo: bool) -> None:
        opened: list[Any] = []
        graph = inner_graph(model)
        if of_zoo:
            layers = [layer for layer in graph.layers if layer.name in _ZOO_NAMES]
        else:
            layers = _last_that_learns(graph)
            while layers and _holds_all(graph, layers[0]):
                opened += layers
                graph = inner_graph(layers[0])
                layers = _last_that_learns(graph)
        variables = [variable for layer in layers for variable in layer.trainable_variables]
        before = [each for layer in layers for each in _without_weights_before(graph, layer)]
        super().__init__(model, variables, [*layers, *before], opened)

    def blocks(self, variables: Sequence[Any], of_zoo: bool) -> list[str]:
        """The block of each variable that learns; of the head's own: HEAD."""
        names = {
            id(variable): layer.name
            for layer in _leaves(inner_graph(self._model))
            for variable in layer.trainable_variables
        }
        names |= {id(variable): HEAD for variable in self.variables}
        # What belongs to no layer, but to a nested model itself, has only a path.
        return blocks([names.get(id(each), each.path) for each in variables], of_zoo)


class Upper(Part):
    """All from the first layer on whose name begins with `start`, inside nested models too; the
    head in any case.

    Raises ModelError where no layer is called so, or nothing learns from there on.
    """

    def __init__(self, model: keras.Model, start: str, head: Head, of_zoo: bool) -> None:
        opened, live = _from(inner_graph(model), start) or ([], [])
        learns = {id(variable) for layer in live for variable in layer.trainable_variables}
        variables = [each for each in model.trainable_variables if id(each) in learns]
        if not variables:
            known = dict.fromkeys(head.blocks(model.trainable_variables, of_zoo))
            known.pop(HEAD, None)
            remedy = f"there are {', '.join(known)}" if of_zoo else nearest(start, known)
            raise ModelError(
                "frozen_until must begin the name of a layer that leaves something to learn, got "
                f"{start!r}; {remedy} (candidate: frozen_until)"
            )
        super().__init__(model, variables, [*live, *head._live], opened)


def is_graph(layer: Any) -> bool:
    """Whether a layer is a model that can be walked through: functional or Sequential."""
    return isinstance(layer, keras.Sequential) or (
        isinstance(layer, keras.Model) and isinstance(layer, keras.Function)
    )


def _leaves(graph: Any) -> Iterator[Any]:
    """The layers of a graph and of the models in it."""
    for layer in graph.layers:
        yield from _leaves(inner_graph(layer)) if is_graph(layer) else [layer]


def _from(graph: Any, start: str) -> tuple[list[Any], list[Any]] | None:
    """The nested models that hold the first layer of such a name, and all layers from there
    on.
    """
    for index, layer in enumerate(graph.layers):
        if layer.name.startswith(start):
            return [], list(graph.layers[index:])
        if is_graph(layer) and (found := _from(inner_graph(layer), start)):
            opened, live = found
            return [layer, *opened], [*live, *graph.layers[index + 1 :]]
    return None


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
