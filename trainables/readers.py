"""Image files in, plain pixel arrays out: PNG, JPEG, BMP, TIFF, DICOM become grey or RGB, or a short reason why not."""

import hashlib
import io
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from trainables.errors import DataError

#: Suffixes of files that are taken for images in a folder, in lower case.
IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".dcm", ".dicom"})

_FORMATS = ("PNG", "JPEG", "BMP", "TIFF")
_EXIF_ORIENTATION = 274
_TIFF_PHOTOMETRIC = 262
_CUT_SHORT = ("truncated", "incomplete", "not enough", "less than expected")  # in the messages of damaged files
_WITH_ALPHA = frozenset({"LA", "La", "PA", "RGBA", "RGBa"})

Pixels = npt.NDArray[Any]


class UnreadableImage(DataError):
    """A file that is no image rayfold can use; the message is a short reason without the path."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def read_image(path: Path) -> Pixels:
    """Read one image file, whatever its suffix, upright.

    Returns uint8 or uint16 of shape (H, W) when it is grey, also when it is stored as RGB with three equal channels,
    else (H, W, 3) in the order RGB. Transparency is composited over black. 16-bit pixels keep their values, except in
    DICOM files, which are shown as `dicom.decode_dicom` says.
    Raises `UnreadableImage` for what is missing, empty, truncated, damaged, no image, of several frames, or of pixels
    that are floats or wider than 16 bits, `DataError` for a DICOM file without the library that reads it.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise UnreadableImage("missing file") from None
    except OSError as error:
        raise UnreadableImage(f"cannot be read: {error.strerror}") from None
    if not content:
        raise UnreadableImage("empty file")
    try:
        pixels = _decode(content)
    except DataError:
        raise
    except UnidentifiedImageError:
        kinds = "DICOM file" if path.suffix.lower() in (".dcm", ".dicom") else "PNG, JPEG, BMP or TIFF image"
        raise UnreadableImage(f"not a {kinds}") from None
    except Exception as error:  # damaged bytes make Pillow raise almost anything: OSError, SyntaxError, KeyError, ...
        raise UnreadableImage(_reason(error)) from error
    if pixels.ndim == 3 and (pixels[..., :1] == pixels[..., 1:]).all():
        pixels = pixels[..., 0]
    return np.ascontiguousarray(pixels)


def is_dicom(path: Path) -> bool:
    """Whether a path is a regular file, readable, that begins as a DICOM file does, whatever its suffix."""
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            return has_dicom_prefix(file.read(132))
    except OSError:
        return False


def has_dicom_prefix(content: bytes) -> bool:
    """Whether the first bytes of a file, 132 or more, are those of a DICOM file (PS3.10, 7.1)."""
    return content[128:132] == b"DICM"


def content_hash(pixels: Pixels) -> str:
    """SHA-256 of decoded pixels with their shape and dtype, in hex: equal however the pixels were encoded."""
    hasher = hashlib.sha256(f"{pixels.dtype.name} {pixels.shape}".encode())
    hasher.update(np.ascontiguousarray(pixels, dtype=pixels.dtype.newbyteorder("<")).data)
    return hasher.hexdigest()


def to_uint8(pixels: Pixels, bit_depth: int) -> npt.NDArray[np.uint8]:
    """Map uint16 values 0..2^bit_depth-1 to 0..255, rounded, with brighter values clipped; uint8 passes unchanged."""
    return pixels if pixels.dtype == np.uint8 else _eight_bit_table(bit_depth)[pixels]


def resize(pixels: npt.NDArray[np.uint8], size: int, channels: int) -> npt.NDArray[np.uint8]:
    """Resize uint8 pixels (H, W) or (H, W, 3) to (size, size, channels), not keeping the aspect ratio.

    Pixel areas are averaged (cv2.INTER_AREA) when the result has fewer pixels than the source, which avoids aliasing,
    and interpolated bilinearly otherwise. Grey is repeated when `channels` is 3; RGB does not fit into 1 channel.
    """
    if pixels.ndim == 3 and channels == 1:
        raise ValueError("an RGB image does not fit into a one-channel store")
    height, width = pixels.shape[:2]
    if (height, width) != (size, size):
        shrinking = size * size < height * width
        resized = cv2.resize(pixels, (size, size), interpolation=cv2.INTER_AREA if shrinking else cv2.INTER_LINEAR)
        pixels = np.asarray(resized, dtype=np.uint8)
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[..., np.newaxis], channels, axis=2)
    return pixels


@cache
def _eight_bit_table(bit_depth: int) -> npt.NDArray[np.uint8]:
    top = 2**bit_depth - 1
    table: npt.NDArray[np.uint8] = np.rint(np.minimum(np.arange(2**16), top) * (255 / top)).astype(np.uint8)
    return table


def _decode(content: bytes) -> Pixels:
    if has_dicom_prefix(content):
        from trainables.dicom import decode_dicom

        return decode_dicom(content)
    with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
        # A JPEG with an embedded preview calls itself MPO and has "frames"; the first one is the photograph.
        frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
        if frames > 1:
            raise UnreadableImage(f"{frames} frames")
        deep_colour = not image.mode.startswith("I") and any(";16" in str(tile.args) for tile in image.tile)
        white_is_zero = image.format == "TIFF" and image.getexif().get(_TIFF_PHOTOMETRIC) == 0
        orientation = image.getexif().get(_EXIF_ORIENTATION, 1)
        image.load()
        if image.format == "PNG":
            # load() ignores the checksums of the pixel chunks; verify() reads them.
            with Image.open(io.BytesIO(content), formats=_FORMATS) as again:
                again.verify()
        if deep_colour:
            return _decode_deep_colour(content, orientation)
        if white_is_zero and image.mode.startswith("I"):
            raise UnreadableImage("16-bit pixels whose zero is white")
        return _to_array(ImageOps.exif_transpose(image))


def _to_array(image: Image.Image) -> Pixels:
    mode = image.mode
    if mode.startswith("I;16"):
        return np.asarray(image).astype(np.uint16)
    if mode == "I":
        wide = np.asarray(image)
        if wide.min() < 0 or wide.max() > np.iinfo(np.uint16).max:
            raise UnreadableImage("32-bit integer pixels")
        return wide.astype(np.uint16)
    if mode == "F":
        raise UnreadableImage("32-bit float pixels")
    if mode in _WITH_ALPHA or "transparency" in image.info:
        black = Image.new("RGBA", image.size, (0, 0, 0, 255))
        image = Image.alpha_composite(black, image.convert("RGBA")).convert("RGB")
    elif mode == "1":
        image = image.convert("L")
    elif mode not in ("L", "RGB"):
        image = image.convert("RGB")
    return np.asarray(image)


def _decode_deep_colour(content: bytes, orientation: int) -> Pixels:
    """16-bit colour, which Pillow would cut down to 8 bits: (H, W, 3) uint16, alpha composited over black."""
    if orientation != 1:
        raise UnreadableImage("16-bit colour pixels with an orientation tag")
    pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.dtype != np.uint16 or pixels.ndim != 3 or pixels.shape[2] not in (3, 4):
        raise UnreadableImage("16-bit pixels that are neither grey nor RGB")
    rgb: Pixels = pixels[..., 2::-1]  # OpenCV's order is BGR
    if pixels.shape[2] == 4:
        rgb = np.rint(rgb * (pixels[..., 3:] / np.iinfo(np.uint16).max)).astype(np.uint16)
    return rgb


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    if isinstance(error, EOFError) or any(word in text.lower() for word in _CUT_SHORT):
        return "truncated"
    return f"damaged: {text or type(error).__name__}"
