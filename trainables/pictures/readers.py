"""Image files in, pictures out: every format of `formats.py` becomes grey or RGB pixels, or a short
reason why not.
"""

import io
import logging
import os
import re
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import cv2
import numpy as np
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    ImageOps,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from trainables.core.errors import DataError, UnreadableImage
from trainables.core.files import NOT_REGULAR, open_regular
from trainables.core.limits import FRAMES, MEGAPIXELS, check_bytes, check_size
from trainables.pictures.depth import Pixels
from trainables.pictures.formats import ENOUGH, format_of, not_an_image
from trainables.pictures.headers import (
    Samples,
    count_frames,
    jpeg2000_samples,
    refuse_other_png_rows,
    refuse_other_strips,
    tiff_kind,
    tiff_samples,
    tiff_zero_is_white,
    webp_size,
)
from trainables.pictures.picture import Picture

# An image is judged by its reason; what libraries print of it says no file and no more. Each switch
# holds for the process and is thrown once: neither library can be silenced for one call while other
# threads decode.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
warnings.filterwarnings("ignore", module=r"(PIL|pydicom)\.")
logging.getLogger("pydicom").propagate = False

# Each format is opened by its own class: `Image.open` would apply Pillow's limit of pixels and
# print its warnings, and would call a JPEG with an embedded preview an MPO of several frames.
_OPENERS: dict[str, Any] = {
    "PNG": PngImagePlugin.PngImageFile,
    "JPEG": JpegImagePlugin.JpegImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
    "GIF": GifImagePlugin.GifImageFile,
    "WebP": WebPImagePlugin.WebPImageFile,
    "PNM": PpmImagePlugin.PpmImageFile,
    "JPEG 2000": Jpeg2KImagePlugin.Jpeg2KImageFile,
}
_EXIF_ORIENTATION = 274
_DEEP_PNM = re.compile(
    rb"P[2356]\s(?:\s|#[^\n]*\n)*\d+\s(?:\s|#[^\n]*\n)*\d+\s(?:\s|#[^\n]*\n)*(\d+)\s"
)
_CUT_SHORT = ("truncated", "incomplete", "not enough", "less than expected", "buffer is not large")
# The last is how Pillow looks for more planes than it knows.
_UNKNOWN_TO_PILLOW = ("unknown pixel mode", "unknown raw mode", "string index out of range")
_WITH_ALPHA = frozenset({"LA", "La", "PA", "RGBA", "RGBa"})


def read_picture(path: Path, max_megapixels: float = MEGAPIXELS, known: bool = False) -> Picture:
    """Read one image file, whatever its suffix, upright.

    Its pixels are uint8 or uint16, (H, W) when it is grey, also when it is stored as RGB with three
    equal channels, else (H, W, 3) in the order RGB. Transparency is composited over black. 16-bit
    pixels keep their values, except in DICOM files, which are shown as `dicom.decode_dicom` says.
    `known`: the caller compares the pixels with those of a file that was found to be whole, so that
    what pixels do not show need not be looked for again. Raises `UnreadableImage` for what is
    missing, empty, truncated, damaged, changed meanwhile, no image, no regular file, of several
    frames, of more than `max_megapixels` million pixels or far more bytes than these need, or of
    pixels that are floats or wider than 16 bits, `DataError` for a DICOM file without the library
    that reads it.
    """
    try:
        with open_regular(path) as file:
            content, name = _content(file, path, max_megapixels)
    except (FileNotFoundError, NotADirectoryError):
        raise UnreadableImage("missing file") from None
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise UnreadableImage(
            reason if reason == NOT_REGULAR else f"cannot be read: {reason}"
        ) from None
    try:
        pixels, bits, guessed, fine = _decode(content, name, max_megapixels, known)
    except DataError:
        raise
    # damaged bytes make Pillow raise almost anything: OSError, SyntaxError, KeyError, ...
    except Exception as error:
        raise UnreadableImage(_reason(error, content, name)) from error
    if pixels.ndim == 3 and (pixels[..., :1] == pixels[..., 1:]).all():
        pixels = pixels[..., 0]
    return Picture(np.ascontiguousarray(pixels), name, bits, guessed, fine)


def _content(file: BinaryIO, path: Path, max_megapixels: float) -> tuple[bytes, str]:
    """All of a file, and its format, which its first bytes must tell before the rest is read."""
    before = os.fstat(file.fileno())
    start = file.read(ENOUGH)
    if not start:
        raise UnreadableImage("empty file")
    name = format_of(start)
    if name is None:
        raise UnreadableImage(not_an_image(path))
    check_bytes(before.st_size, max_megapixels)
    file.seek(0)
    content = file.read(before.st_size + 1)
    after = os.fstat(file.fileno())
    if len(content) != before.st_size or after.st_mtime_ns != before.st_mtime_ns:
        raise UnreadableImage("changed while it was read")
    return content, name


def read_usable(path: Path, max_megapixels: float, allow_two_valued: bool) -> Picture:
    """A picture that can be trained on and predicted; raises as `read_picture`, also for flaws of
    its pixels.
    """
    picture = read_picture(path, max_megapixels)
    flaw = picture.flaw(allow_two_valued)
    if flaw is not None:
        raise UnreadableImage(flaw)
    return picture


def read_image(path: Path) -> Pixels:
    """The pixels of one image file, as `read_picture`."""
    return read_picture(path).pixels


def _decode(
    content: bytes, name: str, max_megapixels: float, known: bool
) -> tuple[Pixels, int | None, bool, Callable[[], Pixels] | None]:
    """The pixels, the depth that the header says where they have 16 bits, whether it was guessed
    before, and what gives finer pixels.
    """
    if name == "DICOM":
        from trainables.pictures.dicom import decode_dicom

        shown, guessed, fine = decode_dicom(content, max_megapixels)
        return shown, None, guessed, fine
    if name == "WebP":  # whose decoder takes memory as it is opened
        check_size(*webp_size(content), max_megapixels)
    with _OPENERS[name](io.BytesIO(content)) as image:
        check_size(image.size[0], image.size[1], max_megapixels)
        frames = count_frames(content, name) or getattr(image, "n_frames", 1)
        if frames > 1:
            raise UnreadableImage(
                f"{frames} frames" if frames < FRAMES else f"{FRAMES:,} frames or more"
            )
        if name == "PNM" and (deep := _DEEP_PNM.match(content)) and int(deep[1]) > 255:
            return *_decode_deep_pnm(content, int(deep[1])), False, None
        samples = _samples(image, content, name)
        pixels = _pixels(image, content, name, samples)
        if name == "PNG" and not known:
            _refuse_damaged_png(content)
        stated = _stated_bits(content, name, pixels, samples) if pixels.dtype == np.uint16 else None
        return pixels, stated, False, None


def _samples(image: ImageFile.ImageFile, content: bytes, name: str) -> Samples:
    """What the header says of the samples; refuses those that no decoder here gets right."""
    if name == "TIFF":
        samples = tiff_samples(image.tag_v2)  # type: ignore[attr-defined]
        refuse_other_strips(image.tag_v2, samples)  # type: ignore[attr-defined]
    elif name == "JPEG 2000":
        samples = jpeg2000_samples(content)
        if samples.signed:
            raise UnreadableImage(f"signed {max(samples.bits)}-bit pixels")
        if max(samples.bits) > (16 if len(set(samples.bits)) == 1 else 8):
            raise UnreadableImage(f"pixels of {', '.join(str(bits) for bits in samples.bits)} bits")
    else:
        deep = not image.mode.startswith("I") and any(";16" in str(tile[3]) for tile in image.tile)
        return Samples((16 if deep else 8,) * 3, signed=False, rgb=True)
    if samples.deep_colour and samples.planes:
        raise UnreadableImage("16-bit colour stored in planes")
    if samples.deep_colour and not samples.rgb:
        raise UnreadableImage("16-bit pixels that are neither grey nor RGB")
    return samples


def _pixels(image: ImageFile.ImageFile, content: bytes, name: str, samples: Samples) -> Pixels:
    orientation = image.getexif().get(_EXIF_ORIENTATION, 1)
    white_is_zero = name == "TIFF" and tiff_zero_is_white(image.tag_v2)  # type: ignore[attr-defined]
    image.load()
    if samples.deep_colour:
        return _decode_deep_colour(content, orientation, samples.straight_alpha)
    if white_is_zero and image.mode.startswith("I"):
        raise UnreadableImage("16-bit pixels whose zero is white")
    pixels = _to_array(ImageOps.exif_transpose(image), samples)
    if samples.signed and max(samples.bits) == 8 and pixels.max() > 127:
        raise UnreadableImage("signed 8-bit pixels with negative values")
    return pixels


def _refuse_damaged_png(content: bytes) -> None:
    """Raise for what Pillow's load() passes over: other rows than the header says, and the
    checksums of the pixels.
    """
    with _OPENERS["PNG"](io.BytesIO(content)) as image:
        image.verify()
    refuse_other_png_rows(content)


def _to_array(image: Image.Image, samples: Samples) -> Pixels:
    mode = image.mode
    if mode.startswith("I;16"):
        deep = np.asarray(image).astype(np.uint16)
        clear = image.info.get("transparency")  # the one grey of a PNG file that is transparent
        return deep if clear is None else np.where(deep == clear, np.uint16(0), deep)
    if mode == "I":
        wide = np.asarray(image)
        if wide.min() < 0 or wide.max() > np.iinfo(np.uint16).max:
            narrow = samples.signed and max(samples.bits) == 16
            raise UnreadableImage(
                "signed 16-bit pixels with negative values" if narrow else "32-bit integer pixels"
            )
        return wide.astype(np.uint16)
    if mode == "F":
        raise UnreadableImage("32-bit float pixels")
    if mode in _WITH_ALPHA or "transparency" in image.info:
        # Pillow knows no other way from there
        image = image.convert("LA") if mode == "La" else image
        black = Image.new("RGBA", image.size, (0, 0, 0, 255))
        image = Image.alpha_composite(black, image.convert("RGBA")).convert("RGB")
    elif mode == "1":
        image = image.convert("L")
    elif mode not in ("L", "RGB"):
        image = image.convert("RGB")
    return np.asarray(image)


def _decode_deep_colour(content: bytes, orientation: int, straight_alpha: bool) -> Pixels:
    """16-bit colour, which Pillow would cut down to 8 bits: (H, W, 3) uint16, alpha composited over
    black.
    """
    if orientation != 1:
        raise UnreadableImage("16-bit colour pixels with an orientation tag")
    pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise UnreadableImage("16-bit colour that OpenCV does not decode")
    if pixels.dtype != np.uint16 or pixels.ndim != 3 or pixels.shape[2] not in (3, 4):
        raise UnreadableImage("16-bit pixels that are neither grey nor RGB")
    rgb: Pixels = pixels[..., 2::-1]  # OpenCV's order is BGR
    if pixels.shape[2] == 4 and straight_alpha:
        rgb = np.rint(rgb * (pixels[..., 3:] / np.iinfo(np.uint16).max)).astype(np.uint16)
    return rgb


def _decode_deep_pnm(content: bytes, white: int) -> tuple[Pixels, int | None]:
    """16-bit PGM and PPM, whose header says what is white; Pillow would cut colour down and stretch
    grey slowly.
    """
    pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.dtype != np.uint16:
        raise UnreadableImage("truncated")
    if pixels.ndim == 3:
        pixels = pixels[..., ::-1]
    if white == 65535:  # what is written for lack of anything better
        return pixels, None
    if white & (white + 1) == 0:  # 511, 1023, ...
        return pixels, white.bit_length()
    return np.rint(pixels * (65535 / white)).clip(0, 65535).astype(np.uint16), 16


def _stated_bits(content: bytes, name: str, pixels: Pixels, samples: Samples) -> int | None:
    """The depth of 16-bit pixels that the header of a file says; one that says 16 says no more than
    its container.
    """
    bits = samples.bits[0]
    if name == "JPEG 2000":
        # Pillow, which decodes grey, moves fewer to the top of 16; OpenCV leaves them as they are.
        return (bits if samples.deep_colour else 16) if bits < 16 else None
    if name == "TIFF":
        return bits if 8 < bits < 16 else None
    chunk = content.find(b"sBIT", 0, content.find(b"IDAT")) if name == "PNG" else -1
    bits = max(8, content[chunk + 4]) if chunk > 0 else 16
    if bits >= 16:
        return None
    # PNG wants samples of fewer bits stretched to all 16; some writers leave them as they are.
    return bits if pixels.max() < 2**bits else 16


def _reason(error: Exception, content: bytes, name: str) -> str:
    """Why a file could not be decoded, in our words: what libraries say may hold what the file
    says.
    """
    if isinstance(error, MemoryError):
        return "needs more memory to decode than an image of its size"
    text = str(error).lower()
    if name == "TIFF" and any(words in text for words in _UNKNOWN_TO_PILLOW):
        with suppress(Exception):  # what else is wrong with it comes first
            return f"pixels of a kind that rayfold does not read: {tiff_kind(content)}"
    if isinstance(error, EOFError) or any(word in text for word in _CUT_SHORT):
        return "truncated"
    return f"damaged: {'broken data' if 'broken' in text else type(error).__name__}"
