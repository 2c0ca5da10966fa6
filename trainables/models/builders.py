"""A user's own model builders: imported, called, and held to the zoo's contract."""

import copy
import inspect
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainables.core.errors import ModelError, nearest
from trainables.models import user_code
from trainables.models.weights import one_line

if TYPE_CHECKING:
    import keras


def build(
    model: str, input_shape: tuple[int, int, int], n_classes: int, arguments: Mapping[str, Any]
) -> "keras.Model":
    """Import a user's builder, call it, and hold the result to the contract.

    The builder is called as `builder(input_shape=(height, width, channels), n_classes=n,
    **arguments)` and returns a functional or Sequential Keras model from raw pixels in [0, 255] to
    logits (N, n). Raises ModelError otherwise.
    """
    from trainables.models import contract

    with guarded(model):
        builder = _import_builder(model)
    # A copy: what a builder does to a list must not reach the next cell.
    arguments = {
        "input_shape": input_shape,
        "n_classes": n_classes,
        **copy.deepcopy(dict(arguments)),
    }
    try:
        inspect.signature(builder).bind(**arguments)
    except TypeError as error:
        raise ModelError(
            f"{model} must accept input_shape, n_classes and the candidate's arguments: {error} "
            "(candidate: arguments)"
        ) from error
    with guarded(model):
        built: keras.Model = builder(**arguments)
    contract.check(model, built, input_shape, n_classes)
    return built


def _import_builder(model: str) -> Any:
    module = user_code.import_named(model)
    attribute = model.partition(":")[2]
    builder = getattr(module, attribute, None)
    if callable(builder):
        return builder
    public = {
        name: value
        for name, value in vars(module).items()
        if callable(value) and not name.startswith("_")
    }
    hint = f"; {nearest(attribute, public)}"
    raise ModelError(
        f"module {module.__name__!r} has no builder {attribute!r} (model: {model}){hint}"
    )


@contextmanager
def guarded(model: str) -> Iterator[None]:
    """Run a user's code: it sees a command line without arguments, and ModelError tells where it
    would end the process.

    What it would read otherwise is the command line of a Ray worker, or ours.
    """
    arguments = sys.argv
    sys.argv = arguments[:1]
    try:
        yield
    except SystemExit as error:
        raise ModelError(where_it_broke(model, error)) from error
    finally:
        sys.argv = arguments


def where_it_broke(model: str, error: BaseException) -> str:
    """One line about an error that a builder raised: what it was, and the last line of the user's
    own behind it.
    """
    files = set(user_code.watched_files(model, user_code.folder_of(model)).values())
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename) in files
    ]
    place = f" at {frames[-1].filename} line {frames[-1].lineno}" if frames else ""
    what = one_line(error) or "without a message"
    if isinstance(error, SystemExit):
        what = "a module or builder must neither end the process nor read the command line"
    return f"{model} raised {type(error).__name__}{place}: {what}; mend it"
