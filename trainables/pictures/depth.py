"""How many bits of a 16-bit pixel mean something, and the eight or all of them that models see.

Files of 16 bits mostly hold fewer: 8 bits as scikit-image and MATLAB write them, 10 to 14 from
detectors. Few say so. What decides is set out in docs/decisions/10-depth.md.
"""

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

#: The depths of detectors and files, in bits.
DEPTHS = (8, 10, 12, 14, 16)

Uint8 = npt.NDArray[np.uint8]
Pixels = npt.NDArray[Any]


def smallest_depth(top: int) -> int:
    """The smallest of the depths that holds the value `top`."""
    return next(bits for bits in DEPTHS if top < 2**bits)


def stretched_depth(pixels: Pixels) -> int | None:
    """The depth to which somebody stretched 8-bit values: 10, 12, 14, 16, or None where these are
    no such values.

    uint16 pixels count as stretched when all of them are multiples of 2^(bits-8), or all of them a
    * (2^bits-1)/255 of a whole a, rounded or cut off. `to_uint8` then gives back the 8-bit image
    exactly.
    """
    flat = pixels.reshape(-1)
    few = flat[:: flat.size // 4096 + 1]  # enough to tell nearly all that are not
    for bits in reversed(DEPTHS[1:]):
        for values in _stretched(bits):
            if values[few].all() and values[flat].all():
                return int(bits)
    return None


def to_uint8(pixels: Pixels, bits: int) -> Uint8:
    """The eight most significant bits of uint16 pixels of `bits` bits, brighter ones clipped; uint8
    stays unchanged.
    """
    if pixels.dtype == np.uint8:
        return pixels
    return np.asarray(np.minimum(pixels, np.uint16(2**bits - 1)) >> np.uint16(bits - 8), np.uint8)


def to_uint16(pixels: Pixels, bits: int) -> Pixels:
    """uint16 pixels of `bits` bits stretched to 0 to 65535, brighter ones clipped; uint8 as well,
    257 to a grey value.
    """
    top = np.uint32(255 if pixels.dtype == np.uint8 else 2**bits - 1)
    values = np.minimum(pixels, top).astype(np.uint32)
    return np.asarray((values * np.uint32(65535) + top // 2) // top, np.uint16)


def raw(pixels: Pixels) -> Pixels:
    """What a model is given of an input format's pixels, 0 to 255: uint8 as it is, uint16 as
    float32 with fractions.
    """
    return pixels if pixels.dtype == np.uint8 else pixels.astype(np.float32) / np.float32(257)


@cache
def _stretched(bits: int) -> list[npt.NDArray[np.bool_]]:
    """For each way to stretch 0..255 to `bits` bits, which of the values 0..65535 can come out."""
    values, top = np.arange(256), 2**bits - 1
    ways = (values << (bits - 8), np.rint(values * top / 255), values * top // 255)
    found = np.zeros((len(ways), 2**16), np.bool_)
    for row, way in zip(found, ways, strict=True):
        row[way.astype(np.int64)] = True
    return list(found)
