"""The one place that knows private names of Keras.

Each function says why no public name does, and what it does where the private one is gone: the same
by a longer way, or a little less, never an error. The tests of this file fail as soon as a name is
gone, before any user meets it.
"""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any


def save_quickly() -> None:
    """Have Keras remember which attributes of a layer it does not save.

    Keras stores this set under one name and looks for it under another, so saving a model makes it
    for every layer. Where the name is gone saving is slower.
    """
    with suppress(ImportError, AttributeError):
        from keras.src.saving import saving_lib

        saving_lib.get_attr_skipset = functools.cache(saving_lib.get_attr_skipset)


@contextmanager
def global_seeds(generator: Any) -> Iterator[None]:
    """Make `generator` what Keras draws from where a layer names no seed.

    The public ways to set this reseed TensorFlow too, which throws traced graphs away. Where the
    names are gone such layers draw from a generator of Keras's own, and no longer repeat.
    """
    try:
        from keras.src.backend.common.global_state import (
            get_global_attribute,
            set_global_attribute,
        )
    except ImportError:
        yield
        return
    before = get_global_attribute("global_seed_generator")
    set_global_attribute("global_seed_generator", generator)
    try:
        yield
    finally:
        set_global_attribute("global_seed_generator", before)


# --- what a layer holds ---------------------------------------------------------------------------


def all_layers(layer: Any) -> list[Any]:
    """A layer and all inside it, at any depth; `layers` stops at what is no model.

    Where the name is gone: what its attributes hold, in another order.
    """
    if flatten := _private(layer, "_flatten_layers"):
        return list(flatten())
    import keras

    found: dict[int, Any] = {}
    ahead = [layer]
    while ahead:
        part = ahead.pop()
        if isinstance(part, keras.Layer) and id(part) not in found:
            found[id(part)] = part
            ahead += vars(part).values()
        elif isinstance(part, dict):
            ahead += part.values()
        elif isinstance(part, list | tuple):
            ahead += part
    return list(found.values())


def seed_generators(layer: Any) -> list[Any]:
    """The seed generators of a layer itself; `variables` has their states, but not marked as such.

    Where the name is gone: those that are attributes.
    """
    if (generators := _private(layer, "_seed_generators")) is not None:
        return list(generators)
    import keras

    return [each for each in vars(layer).values() if isinstance(each, keras.random.SeedGenerator)]


def made_to_learn(layer: Any) -> bool:
    """Whether a layer itself was given weights that learn, frozen since or not; a frozen one shows
    none to the public.

    Where the name is gone, all weights of a frozen layer count.
    """
    if (variables := _private(layer, "_trainable_variables")) is not None:
        return bool(variables)
    return bool(layer.trainable_variables if layer.trainable else layer.weights)


def clear_losses(model: Any) -> None:
    """Forget the losses of the last call, as a call of the model would.

    Where the name is gone, each layer that is called still forgets its own.
    """
    if clear := _private(model, "_clear_losses"):
        clear()


# --- the graph of a model -------------------------------------------------------------------------


def inner_graph(model: Any) -> Any:
    """The graph of operations of a functional or built Sequential model.

    Where the name is gone, a new graph of the same layers.
    """
    import keras

    if not isinstance(model, keras.Sequential):
        return model
    return _private(model, "_functional") or keras.Model(model.inputs, model.outputs)


def run_through(graph: Any, inputs: Any, step: Callable[[Any], Callable[..., Any]]) -> Any:
    """The output of a graph for `inputs`, each operation run as `step(operation)(*arguments)`.

    Public ways rebuild the graph. Where the name is gone that is done: once through
    `clone_model` to see the calls, then through what was seen, with the inputs in place of symbols.
    """
    if run := _private(graph, "_run_through_graph"):
        return run(inputs, step)
    import keras

    seen: list[tuple[Any, Any, Any]] = []

    def note(operation: Any, *arguments: Any, **keywords: Any) -> Any:
        outputs = operation(*arguments, **keywords)
        seen.append((operation, (arguments, keywords), outputs))
        return outputs

    flat = keras.tree.flatten
    copy = keras.models.clone_model(graph, clone_function=lambda same: same, call_function=note)
    values = {id(x): value for x, value in zip(copy.inputs, flat(inputs), strict=True)}

    def known(structure: Any) -> Any:
        return keras.tree.map_structure(lambda x: values.get(id(x), x), structure)

    for operation, given, outputs in seen:
        arguments, keywords = known(given)
        made = step(operation)(*arguments, **keywords)
        values |= {id(x): each for x, each in zip(flat(outputs), flat(made), strict=True)}
    return known(keras.tree.pack_sequence_as(graph.output, copy.outputs))


def maker(graph: Any, tensor: Any) -> tuple[Any, int] | None:
    """The call that made a symbolic tensor of a graph, and which of its outputs it is.

    A call has `operation`, `input_tensors` and `is_input`; the public has no calls.
    Where the names are gone: what is public of first calls, and None where that is not enough.
    """
    history = _private(tensor, "_keras_history")
    if history and (calls := _private(history[0], "_inbound_nodes")):
        return calls[history[1]], history[2]
    import keras

    for operation in graph.operations:
        for position, output in enumerate(keras.tree.flatten(operation.output)):
            if output is tensor:
                return _FirstCall(operation), position
    return None


def calls_in(graph: Any, operation: Any) -> list[Any]:
    """The calls of an operation that belong to a graph, as `maker` gives them.

    Where the names are gone: the first of all.
    """
    calls = _private(operation, "_inbound_nodes")
    by_depth = _private(graph, "_nodes_by_depth")
    if calls is None or by_depth is None:
        return [_FirstCall(operation)]
    nodes = [node for nodes in by_depth.values() for node in nodes]
    return [call for call in calls if any(call is node for node in nodes)]


class _FirstCall:
    """What Keras's public names tell of the first call of an operation."""

    def __init__(self, operation: Any) -> None:
        import keras

        self.operation = operation
        self.is_input = isinstance(operation, keras.layers.InputLayer)
        self.input_tensors = [] if self.is_input else keras.tree.flatten(operation.input)


def _private(owner: Any, name: str) -> Any:
    """None where Keras has no such name (any more)."""
    return getattr(owner, name, None)
