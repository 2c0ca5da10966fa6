"""The models of finished cells as users get them: with a softmax on top, opened again in Keras's
safe mode.
"""

import sys
from inspect import isfunction
from pathlib import Path
from typing import Any

import keras

from trainables.core.errors import ModelError
from trainables.core.layout import RunLayout
from trainables.core.ledger import Entry
from trainables.models import builders, user_code
from trainables.models.weight_files import check_weights
from trainables.models.weights import one_line
from trainables.runtime.keras_internals import inner_graph


def with_softmax(model: keras.Model) -> keras.Model:
    """A model from raw pixels to logits, with a softmax `probabilities` on top that shares its
    weights.

    Where a builder has called something else so, the name of the softmax ends in as many
    underscores as make it unique.
    """
    name, taken = "probabilities", {operation.name for operation in inner_graph(model).operations}
    while name in taken:
        name += "_"
    probabilities = keras.layers.Softmax(name=name, dtype="float32")(model.outputs[0])
    # One input alone, not a list of one: else Keras warns whoever calls it with an array.
    return keras.Model(model.inputs[0], probabilities)


def open_model(layout: RunLayout, entry: Entry) -> keras.Model:
    """The model of a done cell: raw pixels 0 to 255 in, class probabilities out.

    No code is run for a model of the zoo. For a builder's, its module is imported: from the
    experiment's folder, else from the current one, and only where it says what it said when the
    cell was trained. Who asks for it has asked `known_code` before. Raises ModelError.
    """
    spec = entry.spec
    if ":" in spec.candidate.model:
        user_code.search_also(user_code.folder_that_trained(layout, spec))
    try:
        model = load(entry.model_path, spec.candidate.model)
        size, channels = spec.candidate.image_size, spec.channels
        _check_shapes(model, (size, size, channels), len(spec.classes))
        return model
    except Exception as error:  # damaged bytes raise almost anything
        raise ModelError(
            f"{str(entry.model_path)!r} cannot be opened as a Keras model (candidate "
            f"{spec.candidate.name!r}): {one_line(error)}"
        ) from error


def _check_shapes(model: Any, image: tuple[int, int, int], n_classes: int) -> None:
    if not isinstance(model, keras.Model):
        raise TypeError(f"it holds a {type(model).__name__} and no model")
    for what, shape, wanted in (
        ("takes", model.input_shape, (None, *image)),
        ("gives", model.output_shape, (None, n_classes)),
    ):
        if len(shape) != len(wanted) or any(
            a not in (None, b) for a, b in zip(shape, wanted, strict=True)
        ):
            raise TypeError(f"it {what} {shape}, where the cell has {wanted}")


def load(path: Path, model: str) -> keras.Model:
    """Open a `.keras` file; `model` is the candidate's: a builder's module is imported for its
    layers.
    """
    check_weights(path)
    objects = _own_objects(model) if ":" in model else None
    return keras.saving.load_model(path, custom_objects=objects, compile=False, safe_mode=True)


def _own_objects(model: str) -> dict[str, Any]:
    """Every class and function in a builder's modules by its name, as files name them; the
    builder's own come last.
    """
    with builders.guarded(model):
        user_code.import_named(model)
    names = user_code.watched_files(model, user_code.folder_of(model))
    modules = [sys.modules[name] for name in reversed(names) if name in sys.modules]
    values = [value for module in modules for value in vars(module).values()]
    classes = {value.__name__: value for value in values if isinstance(value, type)}
    # A function that is called like one of Keras's must not take its place.
    functions = {
        f.__name__: f
        for f in values
        if isfunction(f) and not hasattr(keras.activations, f.__name__)
    }
    return functions | classes
