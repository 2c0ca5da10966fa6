"""Files of weights are believed no further than they are long: what they declare must be in them, and in them alone."""

import io
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainables.errors import ModelError
from trainables.files import open_regular

if TYPE_CHECKING:
    import h5py  # type: ignore[import-untyped]

#: Bytes that a file may declare, for each byte that it has, and whatever it has: weights hardly compress.
RATIO, FREE = 20, 64 * 2**20
_MOST_GROUPS = 100_000


class DamagedWeights(ModelError):
    """A file of weights that cannot be opened, for a `reason`."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{str(path)!r} cannot be opened: {reason}")
        self.reason = reason


@contextmanager
def opened(path: Path) -> Iterator["h5py.File"]:
    """The HDF5 file that a `.keras` or `.h5` file is or holds, once nothing in it is endless.

    Raises DamagedWeights for anything else, in the block too, where damaged bytes raise almost anything.
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
        raise DamagedWeights(path, " ".join(str(error).split())[:200] or type(error).__name__) from error


def check_weights(path: Path) -> None:
    """Raise DamagedWeights unless a `.keras` or `.h5` file can be opened and holds what it declares."""
    with opened(path):
        pass


def _member(archive: zipfile.ZipFile, most: int) -> Any:
    """The weights in a `.keras` file."""
    declared = sum(member.file_size for member in archive.infolist())
    if declared > most:
        raise ValueError(f"its parts have {declared:,} bytes when unpacked, more than such a file can hold")
    info = archive.getinfo("model.weights.h5")
    # Of what is compressed, each step back would be paid by reading it all again.
    return archive.open(info) if info.compress_type == zipfile.ZIP_STORED else io.BytesIO(archive.read(info))


def _check(file: "h5py.File", most: int) -> None:
    """Raise ValueError for groups within themselves, links that lead elsewhere, and arrays larger than the file."""
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
                    raise ValueError(f"its arrays have {declared:,} bytes, more than such a file can hold")
