"""Walking through a Keras model: operation by operation at inference, then back from the logits to
the feature map.

The map is recognised by what is done with it, not by a name: names differ between models, and a
nested model hides its own.
"""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from trainables.core.errors import ModelError, nearest
from trainables.models.head import is_graph
from trainables.runtime.keras_internals import run_through
from xai.methods.fields import Fields
from xai.methods.placement import Placement

#: Layers and operations that hand numbers on as they are, though maybe in another precision.
_UNCHANGED = (
    "Identity",
    "Cast",
    "Dropout",
    "SpatialDropout2D",
    "AlphaDropout",
    "GaussianDropout",
    "GaussianNoise",
)
#: What makes probabilities of logits.
_TO_PROBABILITIES = ("softmax", "log_softmax", "sigmoid", "log_sigmoid")
_OPERATIONS = ("Softmax", "LogSoftmax", "Sigmoid", "LogSigmoid")


class Call(NamedTuple):
    """One operation at work: its name ('model/layer' inside a nested model), what went in, what
    came out.
    """

    name: str
    operation: Any
    inputs: list[tf.Tensor]
    outputs: list[tf.Tensor]


class Place(NamedTuple):
    """Where the feature map comes out: which output of which call.

    `shape`: (h, w, k). `dense`: the layer that makes the logits of the map's mean, None if anything
    else happens on the way. `placement`: where the map's cells lie in the image.
    """

    call: int
    output: int
    layer: str
    shape: tuple[int, int, int]
    dense: Any
    placement: Placement


def check(model: Any) -> None:
    """Raise ModelError unless the model can be walked through, from images to one row of numbers
    each.
    """
    if not is_graph(model) or not model.built:
        raise ModelError(
            "only a functional or built Sequential model can be explained, got "
            f"{type(model).__name__}"
        )
    shapes = [
        [tuple(tensor.shape) for tensor in tensors] for tensors in (model.inputs, model.outputs)
    ]
    if [[len(shape) for shape in side] for side in shapes] != [[4], [2]] or None in shapes[0][0][
        1:
    ]:
        raise ModelError(
            f"{model.name} must have one input (images, size, size, channels) of a fixed size and "
            f"one output (images, classes), got {shapes[0]} and {shapes[1]}"
        )


def replay(
    visit: Callable[[Call], None], operation: Any, *arguments: Any, path: str = "", **keywords: Any
) -> Any:
    """Run an operation at inference, models inside models step by step, and show each step to
    `visit`.
    """
    if isinstance(operation, keras.Sequential):
        (x,) = arguments
        for layer in operation.layers:
            x = replay(visit, layer, x, path=_join(path, layer))
        return x
    if isinstance(operation, keras.Function):
        return run_through(
            operation,
            arguments[0],
            lambda inner: partial(replay, visit, inner, path=_join(path, inner)),
        )
    if "training" in inspect.signature(operation.call).parameters:
        keywords["training"] = False
    outputs = operation(*arguments, **keywords)
    visit(Call(path, operation, _tensors([arguments, keywords]), _tensors(outputs)))
    return outputs


def _join(path: str, operation: Any) -> str:
    return f"{path}/{operation.name}" if path else str(operation.name)


def _tensors(structure: Any) -> list[tf.Tensor]:
    return [x for x in tf.nest.flatten(structure) if tf.is_tensor(x)]


class Trail:
    """The calls of one run on `images`, and which of them made each tensor."""

    def __init__(self, images: tf.Tensor, calls: list[Call], model: str) -> None:
        self._images = images
        self._calls = calls
        self._model = model
        self._made: dict[int, int] = {}
        for index, call in enumerate(calls):
            given = {id(x) for x in call.inputs}
            # A layer that hands on its input, as dropout does at inference, made nothing.
            self._made |= {id(x): index for x in call.outputs if id(x) not in given}

    def maker(self, tensor: tf.Tensor) -> Call | None:
        """The call that made a tensor; None for the images themselves."""
        index = self._made.get(id(tensor))
        return None if index is None else self._calls[index]

    def before_softmax(self, result: tf.Tensor) -> tf.Tensor:
        """The logits under the model's output; raises ModelError where they are nowhere to be
        had.
        """
        call = self.maker(self._unchanged(result))
        if call is None or (function := _activation(call.operation)) not in _TO_PROBABILITIES:
            return result
        if not _stands_alone(call.operation):
            raise ModelError(
                f"layer {call.name!r} of {self._model} must return logits: put its {function} into "
                "a layer of its own"
            )
        # A softmax undoes the logarithm of another; what a sigmoid gives it is what it takes for
        # logits.
        below = self.maker(self._unchanged(call.inputs[0])) if function == "softmax" else None
        if (
            below is not None
            and _activation(below.operation) == "log_softmax"
            and _stands_alone(below.operation)
        ):
            return below.inputs[0]
        return call.inputs[0]

    def _unchanged(self, tensor: tf.Tensor) -> tf.Tensor:
        """The tensor that was handed on until it became this one."""
        while (call := self.maker(tensor)) is not None and _hands_on(call.operation):
            tensor = call.inputs[0]
        return tensor

    def locate(self, logits: tf.Tensor, layer: str | None) -> Place:
        """The feature map: what a layer makes, by its name or number of cells, or found from the
        logits backwards.

        Raises ModelError if there is none, or several with equal right.
        """
        features = self._ending(logits) if layer is None else self._named(layer, logits)
        index = self._made[id(features)]
        output = next(
            number for number, x in enumerate(self._calls[index].outputs) if x is features
        )
        fields = Fields(self._images)
        for call in self._calls:
            fields.add(call.operation, call.inputs, call.outputs)
        return Place(
            call=index,
            output=output,
            layer=self._calls[index].name,
            shape=tuple(features.shape[1:]),
            dense=self._dense(logits, features),
            placement=fields.placement(features),
        )

    def _ending(self, logits: tf.Tensor) -> tf.Tensor:
        """The one tensor with spatial axes and weights behind it from which the logits come, pooled
        ones first.
        """
        pooled, others = self._ends(logits)
        options = pooled or others
        if not options:
            raise ModelError(
                f"{self._model} has no feature map (h, w, channels) that leads to its logits"
            )
        if len(options) > 1:
            names = ", ".join(repr(self._calls[self._made[key]].name) for key in options)
            raise ModelError(
                f"{self._model} has {len(options)} feature maps, name the layer to explain: {names}"
            )
        return next(iter(options.values()))

    def _ends(self, logits: tf.Tensor) -> tuple[dict[int, tf.Tensor], dict[int, tf.Tensor]]:
        """The last spatial tensors on each way to the logits: inputs of global average pooling, and
        others.
        """
        pooled: dict[int, tf.Tensor] = {}
        others: dict[int, tf.Tensor] = {}
        ahead, seen = [logits], set()
        while ahead:
            tensor = ahead.pop()
            call = self.maker(tensor)
            if call is None or id(tensor) in seen:
                continue
            seen.add(id(tensor))
            if isinstance(call.operation, keras.layers.GlobalAveragePooling2D):
                pooled |= {id(x): x for x in call.inputs if self._is_learned(x)}
            elif tensor.shape.rank == 4 and tuple(tensor.shape[1:3]) != (1, 1):
                others |= {id(tensor): tensor} if self._is_learned(tensor) else {}
            else:
                ahead.extend(call.inputs)
        return pooled, others

    def _is_learned(self, tensor: tf.Tensor) -> bool:
        """Whether weights stand behind a tensor: the image and its normalisation are no
        features.
        """
        ahead, seen = [tensor], set()
        while ahead:
            tensor = ahead.pop()
            call = self.maker(tensor)
            if call is None or id(tensor) in seen:
                continue
            seen.add(id(tensor))
            if getattr(call.operation, "weights", None) and not isinstance(
                call.operation, keras.layers.Normalization
            ):
                return True
            ahead.extend(call.inputs)
        return False

    def _named(self, layer: str, logits: tf.Tensor) -> tf.Tensor:
        """The spatial output of a layer, of its last call if it is shared; a number asks for that
        many cells.
        """
        maps = {
            call.name: x
            for call in self._calls
            for x in call.outputs
            if x.shape.rank == 4 and self.maker(x)
        }
        if layer not in maps and layer.isdecimal():
            return self._fine(int(layer), logits)
        if layer not in maps:
            raise ModelError(
                f"{self._model} has no layer {layer!r} with an output (h, w, channels); "
                f"{nearest(layer, maps)}"
            )
        return maps[layer]

    def _fine(self, cells: int, logits: tf.Tensor) -> tf.Tensor:
        """The last features on the way to the logits that have at least so many cells along each
        edge.
        """
        ahead, seen = [logits], set[int]()
        while ahead:
            call = self.maker(tensor := ahead.pop())
            if call is not None and id(tensor) not in seen:
                seen.add(id(tensor))
                ahead.extend(call.inputs)
        features = [
            x for call in self._calls for x in call.outputs if id(x) in seen and x.shape.rank == 4
        ]
        fine = [x for x in features if min(x.shape[1:3]) >= cells and self._is_learned(x)]
        if not fine:
            most = max((min(x.shape[1:3]) for x in features if self._is_learned(x)), default=0)
            raise ModelError(
                f"{self._model} has no layer with {cells} cells along each edge: at most {most}"
            )
        return fine[-1]

    def _dense(self, logits: tf.Tensor, features: tf.Tensor) -> Any:
        """The last layer, if the head is global average pooling of these features, dropout or none,
        and this layer.

        Subclasses may do something else, activations do, and a quantised kernel is not the one that
        multiplies.
        """
        last = self.maker(self._unchanged(logits))
        if last is None or type(last.operation) is not keras.layers.Dense:
            return None
        if (
            last.operation.activation is not keras.activations.linear
            or last.operation.quantization_mode
        ):
            return None
        pool = self.maker(self._unchanged(last.inputs[0]))
        if pool is None or type(pool.operation) is not keras.layers.GlobalAveragePooling2D:
            return None
        plain = pool.inputs[0] is features and pool.operation.data_format == "channels_last"
        return last.operation if plain else None


def _activation(operation: Any) -> str:
    """The name of what an operation ends with, as keras.activations has it; empty where it has
    none.
    """
    name = type(operation).__name__
    if name in _OPERATIONS:
        return _TO_PROBABILITIES[_OPERATIONS.index(name)]
    return getattr(getattr(operation, "activation", None), "__name__", "")


def _stands_alone(operation: Any) -> bool:
    """Whether an operation is its activation and nothing else."""
    return isinstance(operation, keras.layers.Activation) or type(operation).__name__ in _OPERATIONS


def _hands_on(operation: Any) -> bool:
    linear = (
        isinstance(operation, keras.layers.Activation)
        and operation.activation is keras.activations.linear
    )
    return linear or type(operation).__name__ in _UNCHANGED
