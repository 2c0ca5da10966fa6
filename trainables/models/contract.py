"""What a user's builder must return: a graph of layers from raw pixels to logits that can be saved
and opened again.
"""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import keras
import numpy as np

from trainables.core.errors import ModelError
from trainables.models.head import is_graph
from trainables.models.opening import load, with_softmax
from trainables.models.weights import one_line
from trainables.runtime.keras_internals import all_layers, inner_graph, maker

_PASSED_ON = {"linear", "deserialize", "get", "serialize"}
#: Layers and operations that bend or bound what they are given, by the name of their class in lower
#: case.
_ACTIVATIONS = {
    name.replace("_", "").lower() for name in dir(keras.activations) if name not in _PASSED_ON
}
_ACTIVATIONS |= {"leakyrelu", "prelu", "softmax"}
_BENDING = {
    *("abs", "absolute", "arctan", "clip", "exp", "expm1", "log", "log1p", "maximum", "minimum"),
    *("normalize", "power", "reciprocal", "sign", "sqrt", "square", "unitnormalization"),
}
_LARGE = 100.0  # weights of the last layer under which a logit must leave [-1, 1] on both sides


def check(model: str, built: Any, input_shape: tuple[int, int, int], n_classes: int) -> None:
    """Raise ModelError, naming the builder `model`, unless it has built what the zoo builds."""
    if not isinstance(built, keras.Model) or not is_graph(built):
        kind = (
            f"the subclassed model {type(built).__name__}"
            if isinstance(built, keras.Model)
            else type(built).__name__
        )
        raise ModelError(f"{model} must return a functional or Sequential keras.Model, got {kind}")
    if not built.built or not built.inputs:
        raise ModelError(
            f"{model} must return a keras.Model with its input declared, got a Sequential without: "
            "begin it with keras.Input(input_shape)"
        )
    for what, tensors, wanted in (
        ("input", built.inputs, input_shape),
        ("output", built.outputs, (n_classes,)),
    ):
        shapes = [tuple(tensor.shape) for tensor in tensors]
        if shapes != [(None, *wanted)]:
            got = ", ".join(map(str, shapes))
            raise ModelError(
                f"{model} must return a model with one {what} of shape {(None, *wanted)}, got {got}"
            )
    if isinstance(built.compute_output_shape((None, *input_shape)), dict):
        raise ModelError(
            f"{model} must return a model with one output, got a dictionary: return its only entry"
        )
    activation = _activation_behind(built.outputs[0], inner_graph(built), (), [])
    if activation:
        what = (
            "probabilities" if activation == "softmax" else f"what has passed through {activation}"
        )
        raise ModelError(f"{model} returns {what}; return logits (drop the {activation})")


def check_before_training(model: str, built: Any) -> None:
    """Raise ModelError unless a model that passed `check` can learn, gives logits in numbers and
    survives saving.
    """
    _check_weights(model, built)
    images = (
        np.random.default_rng(0)
        .integers(0, 256, (4, *built.inputs[0].shape[1:]))
        .astype(np.float32)
    )
    _check_outputs(model, built, images)
    _check_numbers(model, built, images)
    local = sorted(
        {type(x).__name__ for x in all_layers(built) if "<locals>" in type(x).__qualname__}
    )
    if local:
        raise ModelError(
            f"{model} uses the layer {local[0]}, which is defined inside a function and so cannot "
            "be opened again: define it at the top of its module"
        )
    probabilities = with_softmax(built)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        try:
            probabilities.save(path)
            saved, opened = _numbers(probabilities, images), _numbers(load(path, model), images)
        except Exception as error:  # Keras lets through whatever a layer's own code raises
            reason = one_line(error.__cause__ if isinstance(error.__cause__, Exception) else error)
            raise ModelError(
                f"{model} builds a model that cannot be saved and opened again, as every cell must "
                f"be: {reason}; give layers of your own a get_config, and put them in the place of "
                "Lambda"
            ) from error
    if not np.allclose(saved, opened, rtol=1e-3, atol=1e-5, equal_nan=True):
        raise ModelError(
            f"{model} builds a model that gives other outputs once it has been saved and opened "
            "again: let layers of your own keep all their settings in get_config and all their "
            "numbers in weights"
        )


# --- what can learn -------------------------------------------------------------------------------


def _check_weights(model: str, built: Any) -> None:
    if not built.trainable_variables:
        raise ModelError(
            f"{model} builds a model in which nothing learns: leave some of its weights trainable"
        )
    for layer in all_layers(built):
        if layer.compute_dtype == "float16" and not (
            is_graph(layer) or isinstance(layer, keras.layers.InputLayer)
        ):
            raise ModelError(
                f"{model} builds a model whose layer {layer.name!r} computes in float16, in which "
                "small gradients vanish: use float32 or mixed_bfloat16 (as training.precision: "
                "bfloat16 does)"
            )
    for variable in built.weights:
        if variable.trainable and variable.dtype != "float32":
            raise ModelError(
                f"{model} builds a model whose weights {variable.path!r} are {variable.dtype}: let "
                "all that learn be float32, as they are under the policies float32 and "
                "mixed_bfloat16"
            )
        if (
            keras.backend.is_float_dtype(variable.dtype)
            and not np.isfinite(np.asarray(variable)).all()
        ):
            raise ModelError(
                f"{model} builds a model whose weights {variable.path!r} hold NaN or infinite "
                "numbers before training: mend their initializer"
            )


def _check_outputs(model: str, built: Any, images: np.ndarray) -> None:
    outputs, again = _numbers(built, images), _numbers(built, images)
    if not np.isfinite(outputs).all():
        raise ModelError(
            f"{model} builds a model that returns NaN or infinite numbers before training: mind "
            "that its input are pixels from 0 to 255"
        )
    if not np.allclose(outputs, again, rtol=1e-3, atol=1e-5):
        raise ModelError(
            f"{model} builds a model that is random at inference, two calls with the same images "
            "differ: let its layers draw only where they are called with training=True"
        )


# --- logits ---------------------------------------------------------------------------------------


def _activation_behind(
    tensor: Any, graph: Any, outside: tuple[tuple[Any, Any], ...], last: list[Any]
) -> str | None:
    """The activation that a tensor of a graph has passed through since its last weights; `outside`:
    the calls of the models around it, each with the graph that it is in.

    A sum or product is free where one of its parts is. Layers with weights that are reached are
    appended to `last`.
    """
    if (found := maker(graph, tensor)) is None:
        return None
    node, position = found
    operation = node.operation
    if node.is_input:
        if not outside:
            return None
        (call, around), further = outside[-1], outside[:-1]
        place = next(number for number, each in enumerate(graph.inputs) if each is tensor)
        return _activation_behind(call.input_tensors[place], around, further, last)
    if is_graph(operation):
        inner = inner_graph(operation)
        return _activation_behind(inner.outputs[position], inner, (*outside, (node, graph)), last)
    if getattr(operation, "weights", None):
        last.append(operation)
    if activation := _own_activation(operation, len(node.input_tensors)):
        return activation
    if getattr(operation, "weights", None):
        return None
    behind = [_activation_behind(each, graph, outside, last) for each in node.input_tensors]
    joined = type(operation).__name__ in ("Concatenate", "Stack")
    return next(filter(None, behind), None) if joined or all(behind) else None


def _own_activation(operation: Any, inputs: int) -> str | None:
    while isinstance(operation, keras.layers.Wrapper):
        operation = operation.layer
    kind = type(operation).__name__.lower()
    if kind in _ACTIVATIONS or (kind in _BENDING and inputs == 1):
        return kind
    activation = getattr(operation, "activation", None)
    of_keras = type(operation).__module__.startswith("keras.") or isinstance(
        operation, keras.layers.Dense | keras.layers.Conv2D | keras.layers.Activation
    )
    if not of_keras or not callable(activation) or activation is keras.activations.linear:
        return None
    return str(getattr(activation, "__name__", None) or type(activation).__name__)


def _check_numbers(model: str, built: Any, images: np.ndarray) -> None:
    """Whatever the weights of its last layer are, an activation keeps to its range; logits do
    not.
    """
    last: list[Any] = []
    _activation_behind(built.outputs[0], inner_graph(built), (), last)
    variables = list({id(v): v for layer in last for v in layer.trainable_variables}.values())
    before = [np.asarray(variable) for variable in variables]
    rng = np.random.default_rng(0)
    outputs = []
    try:
        for _ in range(3):
            for variable in variables:
                variable.assign(rng.normal(0, _LARGE, variable.shape))
            outputs.append(_numbers(built, images))
    finally:
        for variable, value in zip(variables, before, strict=True):
            variable.assign(value)
    lowest, highest = np.min(outputs), np.max(outputs)
    if variables and np.isfinite(outputs).all() and not lowest < -1 < 1 < highest:
        raise ModelError(
            f"{model} returns numbers from {lowest:.3g} to {highest:.3g} whatever the weights of "
            "its last layer: it ends in an activation; return logits"
        )


def _numbers(model: Any, images: np.ndarray) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(model(images, training=False)), np.float64)
