"""What decoder processes are asked about one file; imports nothing that is slow to start."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trainables.core.errors import UnreadableImage
from trainables.core.input_format import InputFormat
from trainables.pictures.depth import Pixels
from trainables.pictures.dicom_header import read_patient
from trainables.pictures.formats import is_dicom
from trainables.pictures.picture import Picture, content_hash
from trainables.pictures.readers import read_picture, read_usable

_LEVELS = 8  # a mask has no more values than this,
_AT_THE_ENDS = (
    0.95  # or this part of its pixels is nearly black or white: JPEG and resizing blur its edges
)


def facts(
    path: str, max_megapixels: float, allow_two_valued: bool, forms: Sequence[InputFormat]
) -> dict[str, Any]:
    """What a scan tells of an image, but for its file's size and time; raises as `read_usable`."""
    picture = read_usable(Path(path), max_megapixels, allow_two_valued)
    height, width = picture.pixels.shape[:2]
    return {
        "content_hash": content_hash(picture.pixels),
        "format": picture.format,
        "width": width,
        "height": height,
        "channels": picture.channels,
        "stored_bits": 8 * picture.pixels.itemsize,
        "bits": picture.depth[0],
        "depth_from": picture.depth[1],
        "max_value": picture.max_value,
        "two_valued": int(picture.is_two_valued),
        "seen": picture.seen(forms),
    }


def row_of_store(
    path: str, expected: str, megapixels: float, bits: int, form: InputFormat, channels: int
) -> Pixels:
    """An image whose content and size the scan has told, as an image store has it, (size, size,
    channels).

    Raises `UnreadableImage` where it is another one now.
    """
    return _same(path, megapixels, expected).at(form, channels, bits)


def seen(
    path: str,
    max_megapixels: float,
    allow_two_valued: bool,
    shared: int | None,
    channels: int,
    forms: Collection[InputFormat],
) -> tuple[str, dict[InputFormat, Pixels]]:
    """An image as the models of a run see it, by input format, and what was done to make it fit;
    raises as `read_usable`.
    """
    picture: Picture = read_usable(Path(path), max_megapixels, allow_two_valued)
    bits, notes = picture.bits(shared), []
    if picture.depth[1] == "shared" and bits != shared:
        notes.append(
            f"16-bit file that does not say its depth, taken for {bits} bits by its brightest pixel"
        )
    if picture.guessed:
        notes.append("16-bit DICOM file without a window, shown by its brightest pixel")
    if picture.channels > channels:
        notes.append("colour, turned grey as the training images are")
    return "; ".join(notes), {form: picture.at(form, channels, bits) for form in forms}


def patient(path: str) -> str | None:
    """As `read_patient`; None for what is no DICOM file."""
    return read_patient(Path(path)) if is_dicom(Path(path)) else None


def pixels(path: str, max_megapixels: float, expected: str | None = None) -> Pixels:
    """As `read_picture`; where a content is `expected`, raises `UnreadableImage` for any other,
    too.
    """
    if expected is None:
        return read_picture(Path(path), max_megapixels).pixels
    return _same(path, max_megapixels, expected).pixels


def _same(path: str, max_megapixels: float, expected: str) -> Picture:
    picture = read_picture(Path(path), max_megapixels, known=True)
    if content_hash(picture.pixels) != expected:
        raise UnreadableImage("other pixels than when the run looked at it")
    return picture


def like_a_mask(path: str) -> bool:
    """Whether an image has a few values, or two and what blurs the edges between them."""
    found = read_picture(Path(path)).pixels
    low, high = int(found.min()), int(found.max())
    margin = (high - low) // 16
    at_the_ends = (found <= low + margin) | (found >= high - margin)
    return bool(at_the_ends.mean() >= _AT_THE_ENDS) or len(np.unique(found)) <= _LEVELS
