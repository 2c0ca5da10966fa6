"""A picture of a run as it is handed on: where it lies, what it shows, how large it is."""

from dataclasses import dataclass
from pathlib import Path

from trainables.core.files import open_regular

_PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
_MOST_BYTES = 16 * 2**20  # of a picture


@dataclass(frozen=True)
class Drawing:
    """A PNG file. `candidate`: its id; "" for all of them. `row`: drawings of one row stand beside
    each other. `width`, `height`: in pixels.
    """

    path: Path
    candidate: str
    row: str
    caption: str
    width: int
    height: int


def drawing_on_disk(path: Path, candidate: str) -> Drawing | None:
    """A picture that `rayfold explain` has drawn earlier; None where the file is no PNG that the
    report can hold.
    """
    try:
        with open_regular(path) as file:
            header = file.read(24)
            if header[:16] != _PNG or file.seek(0, 2) >= _MOST_BYTES:
                return None
    except OSError:
        return None
    width, height = (int.from_bytes(header[start : start + 4]) for start in (16, 20))
    caption = path.stem.replace("_", " ")
    return Drawing(path, candidate, path.stem, caption[0].upper() + caption[1:], width, height)
