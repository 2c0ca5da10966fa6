"""A user's own model builders: found, digested, called, and held to the zoo's contract."""

import importlib
import importlib.machinery
import inspect
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trainables.errors import ModelError, nearest
from trainables.files import file_digest
from trainables.weights import one_line

if TYPE_CHECKING:
    import keras


def source_digest(model: str, import_path: Path | str | None) -> str:
    """SHA-256 in hex of the source file of the module behind 'package.module:builder'.

    The module is found as an import would find it, with `import_path` first on sys.path, but neither it nor its
    package is run. What the module imports in turn is not covered. Raises ModelError if there is no such source file.
    """
    name = model.partition(":")[0]
    with _first_on_path(import_path):
        spec = _find_module(name)
    if spec is None or not spec.origin or not Path(spec.origin).is_file():
        raise ModelError(
            f"no source file of module {name!r} was found (model: {model}); check import_path or install it"
        )
    return file_digest(Path(spec.origin))


@contextmanager
def _first_on_path(folder: Path | str | None) -> Iterator[None]:
    before = list(sys.path)
    if folder is not None:
        sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path[:] = before


def _find_module(name: str) -> importlib.machinery.ModuleSpec | None:
    """importlib.util.find_spec without its import of the parent packages."""
    spec, search, parts = None, None, name.split(".")
    for end in range(1, len(parts) + 1):
        full = ".".join(parts[:end])
        found = (finder.find_spec(full, search) for finder in sys.meta_path)
        spec = next((one for one in found if one is not None), None)
        if spec is None or (end < len(parts) and spec.submodule_search_locations is None):
            return None
        search = spec.submodule_search_locations
    return spec


def build(model: str, input_shape: tuple[int, int, int], n_classes: int, arguments: Mapping[str, Any]) -> "keras.Model":
    """Import a user's builder, call it, and hold the result to the contract.

    The builder is called as `builder(input_shape=(height, width, channels), n_classes=n, **arguments)` and returns a
    functional or Sequential Keras model from raw pixels in [0, 255] to logits (N, n). Raises ModelError otherwise.
    """
    builder = _import_builder(model)
    arguments = {"input_shape": input_shape, "n_classes": n_classes, **arguments}
    try:
        inspect.signature(builder).bind(**arguments)
    except TypeError as error:
        raise ModelError(
            f"{model} must accept input_shape, n_classes and the candidate's arguments: {error} (candidate: arguments)"
        ) from error
    built = builder(**arguments)
    _check_contract(model, built, input_shape, n_classes)
    return built


def _import_builder(model: str) -> Any:
    module_name, _, attribute = model.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ModelError(f"module {module_name!r} cannot be imported (model: {model}): {one_line(error)}") from error
    builder = getattr(module, attribute, None)
    if callable(builder):
        return builder
    public = {name: value for name, value in vars(module).items() if callable(value) and not name.startswith("_")}
    hint = f"; {nearest(attribute, public)}"
    raise ModelError(f"module {module_name!r} has no builder {attribute!r} (model: {model}){hint}")


def _check_contract(model: str, built: Any, input_shape: tuple[int, int, int], n_classes: int) -> None:
    import keras

    if not isinstance(built, keras.Model) or not built.built or not built.inputs:
        raise ModelError(
            f"{model} must return a functional or Sequential keras.Model with its input declared, "
            f"got {type(built).__name__}"
        )
    for what, tensors, wanted in (("input", built.inputs, input_shape), ("output", built.outputs, (n_classes,))):
        shapes = [tuple(tensor.shape) for tensor in tensors]
        if shapes != [(None, *wanted)]:
            got = ", ".join(map(str, shapes))
            raise ModelError(f"{model} must return a model with one {what} of shape {(None, *wanted)}, got {got}")
    images = np.random.default_rng(0).integers(0, 256, (4, *input_shape)).astype(np.float32)
    outputs = keras.ops.convert_to_numpy(built(images, training=False))
    if outputs.min() >= 0 and np.abs(outputs.sum(axis=1) - 1).max() < 1e-3:
        raise ModelError(f"{model} returns probabilities; return logits (drop the softmax)")
