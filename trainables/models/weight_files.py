"""Files of weights are believed no further than they are long: what they declare must be in them,
and in them alone.
"""

import io
import json
import math
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainables.core.errors import ModelError
from trainables.core.files import open_regular

if TYPE_CHECKING:
    import h5py  # type: ignore[import-untyped]

#: Bytes that a file may declare, for each byte that it has, and whatever it has: weights hardly
#: compress.
RATIO, FREE = 20, 64 * 2**20
_MOST_GROUPS = 100_000
_MOST_CONFIG, _MOST_LAYERS, _MOST_INPUTS = 64 * 2**20, 20_000, 2**28
#: Settings of Keras's layers that are the edge of an array of weights, and how small one is that
#: does no harm.
_OF_WEIGHTS, _SMALL = ("units", "filters", "kernel_size", "input_dim", "output_dim"), 4096


class DamagedWeights(ModelError):
    """A file of weights that cannot be opened, for a `reason`."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{str(path)!r} cannot be opened: {reason}")
        self.reason = reason


@contextmanager
def opened(path: Path) -> Iterator["h5py.File"]:
    """The HDF5 file that a `.keras` or `.h5` file is or holds, once nothing in it is endless.

    Raises DamagedWeights for anything else, in the block too, where damaged bytes raise almost
    anything.
    """
    import h5py

    try:
        with ExitStack() as stack:
            source: Any = stack.enter_context(open_regular(path))
            most = FREE + RATIO * source.seek(0, io.SEEK_END)
            if path.suffix == ".keras":
                source = _member(stack.enter_context(zipfile.ZipFile(source)), most)
            file = stack.enter_context(h5py.File(source, "r"))
            _check(file, most)
            yield file
    except DamagedWeights:
        raise
    except Exception as error:
        raise DamagedWeights(
            path, " ".join(str(error).split())[:200] or type(error).__name__
        ) from error


def check_weights(path: Path) -> None:
    """Raise DamagedWeights unless a `.keras` or `.h5` file can be opened and holds what it
    declares.

    Of a `.keras` file the layers too: Keras builds what they say before it looks at the weights.
    """
    with opened(path) as file:
        if path.suffix == ".keras":
            edges: set[int] = set()
            file.visititems(lambda _, item: edges.update(getattr(item, "shape", None) or ()))
            with zipfile.ZipFile(path) as archive:
                if archive.getinfo("config.json").file_size > _MOST_CONFIG:
                    raise ValueError(f"its description has more than {_MOST_CONFIG:,} bytes")
                _check_layers(json.loads(archive.read("config.json")), edges)


def _check_layers(config: Any, edges: set[int]) -> None:
    """Raise ValueError for more layers than a model has, and for one of Keras's whose weights are
    not in the file.

    `edges`: of all arrays. The units of a layer, its filters and the size of its kernels are among
    them.
    """
    waiting, layers = [config], 0
    while waiting:
        part = waiting.pop()
        if isinstance(part, list):
            waiting += part
        elif isinstance(part, dict):
            waiting += part.values()
            said = part.get("config")
            if not isinstance(said, dict) or part.get("module") != "keras.layers":
                continue
            layers += 1
            if layers > _MOST_LAYERS:
                raise ValueError(f"it has more than {_MOST_LAYERS:,} layers")
            if (
                math.prod(n for n in said.get("batch_shape") or () if isinstance(n, int))
                > _MOST_INPUTS
            ):
                raise ValueError(f"it takes images of more than {_MOST_INPUTS:,} numbers")
            numbers = [said.get(name) for name in _OF_WEIGHTS]
            for number in [*numbers, *(each for n in numbers if isinstance(n, list) for each in n)]:
                if isinstance(number, int) and number > _SMALL and number not in edges:
                    raise ValueError(f"a layer of {number:,} has no such weights in it")


def _member(archive: zipfile.ZipFile, most: int) -> Any:
    """The weights in a `.keras` file."""
    declared = sum(member.file_size for member in archive.infolist())
    if declared > most:
        raise ValueError(
            f"its parts have {declared:,} bytes when unpacked, more than such a file can hold"
        )
    info = archive.getinfo("model.weights.h5")
    # Of what is compressed, each step back would be paid by reading it all again.
    return (
        archive.open(info)
        if info.compress_type == zipfile.ZIP_STORED
        else io.BytesIO(archive.read(info))
    )


def _check(file: "h5py.File", most: int) -> None:
    """Raise ValueError for groups within themselves, links that lead elsewhere, and arrays larger
    than the file.
    """
    import h5py

    waiting, declared = [file], 0
    seen: set[int] = set()
    while waiting:
        group = waiting.pop()
        place = h5py.h5o.get_info(group.id).addr
        if place in seen or len(seen) > _MOST_GROUPS:
            raise ValueError(f"its groups are within each other, or more than {_MOST_GROUPS:,}")
        seen.add(place)
        for name in group:
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise ValueError("a link in it leads elsewhere")
            value = group[name]
            if isinstance(value, h5py.Group):
                waiting.append(value)
            elif isinstance(value, h5py.Dataset):
                if value.external or value.is_virtual:
                    raise ValueError("an array of it lies in another file")
                declared += value.nbytes
                if declared > most:
                    raise ValueError(
                        f"its arrays have {declared:,} bytes, more than such a file can hold"
                    )
