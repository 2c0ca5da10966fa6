"""What the headers of TIFF, JPEG 2000 and PNM files say of their pixels and Pillow does not tell."""

import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from PIL import TiffImagePlugin

_BITS, _PHOTOMETRIC, _CHANNELS, _PLANES, _EXTRA, _FORMAT = 258, 262, 277, 284, 338, 339
_FORMATS = {1: "unsigned integers", 2: "signed integers", 3: "floats"}
_PHOTOMETRICS = {0: "zero is white", 3: "palette", 5: "CMYK", 6: "YCbCr", 8: "Lab"}
_NO_ALPHA, _PREMULTIPLIED = 0, 1

_CODESTREAM = b"\xff\x4f\xff\x51"
_ENUMERATED_COLOURS = re.compile(rb"colr\x01..(.{4})", re.DOTALL)
_SRGB = 16

_GAP = rb"(?:\s|#[^\n]*\n)"
_PNM = re.compile(rb"%b*P([1-6])\s%b*(\d+)\s%b*(\d+)\s" % (_GAP, _GAP, _GAP))
_PNM_WHITE = re.compile(rb"%b*(\d+)\s" % _GAP)
_PLAIN_PNM = re.compile(rb"\sP[1-6]\s")


@dataclass(frozen=True)
class Samples:
    """`bits`: of each channel; `signed`: whether they are below zero too; `rgb`: whether the first three are RGB;

    `planes`: whether each channel is stored on its own; `straight_alpha`: whether a fourth channel is transparency that
    the colours have not been multiplied with.
    """

    bits: tuple[int, ...]
    signed: bool
    rgb: bool
    planes: bool = False
    straight_alpha: bool = True

    @property
    def deep_colour(self) -> bool:
        return len(self.bits) > 1 and max(self.bits) > 8


def tiff_samples(tags: Mapping[int, Any]) -> Samples:
    """The samples of a TIFF file whose tags Pillow has read."""
    channels = int(tags.get(_CHANNELS, 1))
    bits = tuple(int(number) for number in _numbers(tags.get(_BITS, 1)))
    extra = _numbers(tags.get(_EXTRA, ()))
    return Samples(
        bits * channels if len(bits) == 1 else bits,
        _numbers(tags.get(_FORMAT, 1))[0] == 2,
        tags.get(_PHOTOMETRIC) == 2,
        tags.get(_PLANES, 1) == 2,
        not extra or extra[0] not in (_NO_ALPHA, _PREMULTIPLIED),
    )


def tiff_zero_is_white(tags: Mapping[int, Any]) -> bool:
    return bool(tags.get(_PHOTOMETRIC) == 0)


def tiff_kind(content: bytes) -> str:
    """The pixels of a TIFF file in words: '2 channels of 16-bit unsigned integers'."""
    tags = TiffImagePlugin.ImageFileDirectory_v2(content[: 16 if 43 in content[2:4] else 8])
    file = io.BytesIO(content)
    file.seek(tags.next)
    tags.load(file)
    samples = tiff_samples(tags)
    bits = samples.bits
    number = _FORMATS.get(_numbers(tags.get(_FORMAT, 1))[0], "values of no stated format")
    words = [f"{len(bits)} channel{'s' if len(bits) > 1 else ''} of {max(bits)}-bit {number}"]
    if content[:2] == b"MM":
        words.append("big-endian")
    if tags.get(_PHOTOMETRIC) in _PHOTOMETRICS:
        words.append(_PHOTOMETRICS[tags[_PHOTOMETRIC]])
    if samples.planes:
        words.append("in planes")
    return ", ".join(words)


def jpeg2000_samples(content: bytes) -> Samples:
    """The samples of a JPEG 2000 file, out of the SIZ marker (ISO 15444-1, A.5.1) and the box of its colours.

    Raises `ValueError` where there is no marker.
    """
    start = content.find(_CODESTREAM)
    channels = int.from_bytes(content[start + 40 : start + 42], "big")
    depths = content[start + 42 : start + 42 + 3 * channels : 3]
    if start < 0 or not depths:
        raise ValueError("no JPEG 2000 codestream")
    colours = _ENUMERATED_COLOURS.search(content, 0, start)
    return Samples(
        tuple((depth & 127) + 1 for depth in depths),
        any(depth & 128 for depth in depths),
        channels in (3, 4) and (colours is None or int.from_bytes(colours[1], "big") == _SRGB),
    )


def pnm_frames(content: bytes) -> int:
    """How many images a PNM file holds one after the other."""
    frames, position = 0, 0
    while header := _PNM.match(content, position):
        frames += 1
        kind, width, height = (int(number) for number in header.groups())
        if kind <= 3:  # numbers as text: where the next image begins, they end
            following = _PLAIN_PNM.search(content, header.end())
            if following is None:
                break
            position = following.start()
            continue
        position = header.end()
        row = (width + 7) // 8
        if kind > 4:
            white = _PNM_WHITE.match(content, position)
            if white is None:
                break
            position = white.end()
            row = width * (3 if kind == 6 else 1) * (2 if int(white[1]) > 255 else 1)
        position += row * height
    return frames


def _numbers(value: Any) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, tuple) else (value,)
