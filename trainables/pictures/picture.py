"""A decoded image file, and the one way from its pixels to those that a model sees.

Training, prediction and explanation all go through `readers.read_picture` and `Picture.at`.
"""

import hashlib
import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import cv2
import numpy as np

from trainables.core.input_format import InputFormat
from trainables.pictures.depth import (
    DEPTHS,
    Pixels,
    smallest_depth,
    stretched_depth,
    to_uint8,
    to_uint16,
)

#: Smaller images show nothing; shorter edge, in pixels.
MIN_EDGE = 8

#: Where the depth of an image comes from: a file of 8 bits, the file's header, pixels that are
#: 8-bit values stretched to more, or, where a 16-bit file leaves it open, the brightest pixel of
#: all the images that leave it open. A DICOM file of 16 bits without a window is shown by the
#: brightest of its own pixels.
DepthSource = Literal["container", "header", "values", "shared", "pixels"]


@dataclass(frozen=True, eq=False)
class Picture:
    """`pixels`: uint8 or uint16, (H, W) where grey, else (H, W, 3) RGB; `format`: of the file;

    `stated_bits`: the depth that the file's header says, if any. `guessed`: a header that left it
    open was read as the file's own pixels suggest. `fine`: gives the same in 16 bits, where the
    file tells more than `pixels` hold.
    """

    pixels: Pixels
    format: str
    stated_bits: int | None = None
    guessed: bool = False
    fine: Callable[[], Pixels] | None = None

    @cached_property
    def depth(self) -> tuple[int, DepthSource]:
        """The bits of a pixel that mean something, as far as this file can tell, and what says
        so.
        """
        if self.pixels.dtype == np.uint8:
            return 8, "pixels" if self.guessed else "container"
        if self.stated_bits is not None:
            return self.stated_bits, "header"
        own = smallest_depth(self.max_value)
        stretched = stretched_depth(self.pixels) if own > 8 else None
        return (stretched, "values") if stretched else (own, "shared")

    def bits(self, shared: int | None) -> int:
        """The depth beside images of a run that share one; None where there are none, or where it
        is the file's own.
        """
        own, source = self.depth
        return max(own, shared or 0) if source == "shared" else own

    @property
    def max_value(self) -> int:
        return self._range[1]

    @cached_property
    def _range(self) -> tuple[int, int]:
        return int(self.pixels.min()), int(self.pixels.max())

    @property
    def channels(self) -> Literal[1, 3]:
        return 1 if self.pixels.ndim == 2 else 3

    def flaw(self, allow_two_valued: bool) -> str | None:
        """Why readable pixels cannot be a radiograph; a mask has two values, which hardly any
        exposed image has.
        """
        height, width = self.pixels.shape[:2]
        if min(height, width) < MIN_EDGE:
            return f"only {width}x{height} pixels, needs {MIN_EDGE}x{MIN_EDGE}"
        low, high = self._range
        if low == high:
            return f"blank: every pixel is {low}"
        if not allow_two_valued and self.is_two_valued:
            return (
                f"looks like a mask: only the values {low} and {high} (data.allow_two_valued: true "
                "if it is none)"
            )
        return None

    @cached_property
    def is_two_valued(self) -> bool:
        low, high = self._range
        return bool(((self.pixels == low) | (self.pixels == high)).all())

    def at(self, form: InputFormat, channels: int, bits: int) -> Pixels:
        """What a model sees: uint8 or uint16 (size, size, channels), `bits` being the depth of the
        pixels.

        Colour becomes grey where one channel is asked for: 0.299 R + 0.587 G + 0.114 B (ITU-R
        BT.601), rounded.
        """
        pixels = self._in_depth(form.depth, bits)
        if pixels.ndim == 3 and channels == 1:
            pixels = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), pixels.dtype)
        return resize(pixels, form, channels)

    def _in_depth(self, depth: int, bits: int) -> Pixels:
        """All pixels in 8 or 16 bits. Where somebody stretched 8-bit values, these are all that the
        file tells.
        """
        if depth == 8:
            return to_uint8(self.pixels, bits)
        if self.fine is not None:
            return self.fine()
        stretched = self.depth[1] == "values"
        return to_uint16(to_uint8(self.pixels, bits) if stretched else self.pixels, bits)

    def seen(self, forms: Collection[InputFormat]) -> dict[tuple[InputFormat, int], str | None]:
        """By input format and by every depth that the image may turn out to have, a digest of what
        a model sees.

        Equal for images that no model of that input can tell apart, however they are stored; None
        where the pixels are all the same, which is no likeness. An image that was enlarged by
        repeating pixels is what it was before: what a model sees of the two differs by how a resize
        rounds.
        """
        own, source = self.depth
        found: dict[tuple[InputFormat, int], str | None] = {}
        repetitions = {form: self._repetitions(form) for form in forms}
        for bits in [bits for bits in DEPTHS if bits >= own] if source == "shared" else [own]:
            in_depth = {depth: self._in_depth(depth, bits) for depth in {f.depth for f in forms}}
            for form in forms:
                pixels = _without(in_depth[form.depth], repetitions[form])
                found[form, bits] = _digest(resize(pixels, form, self.channels))
        return found

    def _repetitions(self, form: InputFormat) -> tuple[int, int]:
        """How often every row, and every column, stands beside itself, counting the first; alike
        where a model sees the proportions.
        """
        pixels = self.fine() if self.fine is not None and form.depth == 16 else self.pixels
        down, across = _repetition(pixels), _repetition(np.swapaxes(pixels, 0, 1))
        common = math.gcd(down, across)
        return (common, common) if form.fit == "pad" else (down, across)


def content_hash(pixels: Pixels) -> str:
    """SHA-256 of decoded pixels with their shape and dtype, in hex: equal however the pixels were
    encoded.
    """
    hasher = hashlib.sha256(f"{pixels.dtype.name} {pixels.shape}".encode())
    hasher.update(np.ascontiguousarray(pixels, dtype=pixels.dtype.newbyteorder("<")).data)
    return hasher.hexdigest()


def resize(pixels: Pixels, form: InputFormat, channels: int) -> Pixels:
    """Resize pixels of the format's depth, (H, W) or (H, W, 3), to (size, size, channels), filled
    up around the box that the image fits into.

    Pixel areas are averaged (cv2.INTER_AREA) when the result has fewer pixels than the source,
    which avoids aliasing, and interpolated bilinearly otherwise. Grey is repeated when `channels`
    is 3; RGB does not fit into 1 channel.
    """
    if pixels.ndim == 3 and channels == 1:
        raise ValueError("an RGB image does not fit into one channel")
    height, width = pixels.shape[:2]
    box = form.box(height, width)
    if (height, width) != (box.height, box.width):
        way = cv2.INTER_AREA if box.height * box.width < height * width else cv2.INTER_LINEAR
        resized = cv2.resize(pixels, (box.width, box.height), interpolation=way)
        pixels = np.asarray(resized, dtype=pixels.dtype)
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[..., np.newaxis], channels, axis=2)
    if (box.height, box.width) == (form.size, form.size):
        return pixels
    square = np.full((form.size, form.size, channels), form.fill, pixels.dtype)
    square[box.inside] = pixels
    return square


def _without(pixels: Pixels, repetitions: tuple[int, int]) -> Pixels:
    """The image from which every row and column was repeated so often."""
    return np.ascontiguousarray(pixels[:: repetitions[0], :: repetitions[1]])


def _repetition(pixels: Pixels) -> int:
    """How often every row stands below itself, counting the first."""
    if (pixels[0] != pixels[1:2]).any():
        return 1
    differs = (pixels[1:] != pixels[:-1]).reshape(len(pixels) - 1, -1).any(axis=1)
    return math.gcd(len(pixels), *(int(row) + 1 for row in np.flatnonzero(differs)))


def _digest(pixels: Pixels) -> str | None:
    if (pixels == pixels.flat[0]).all():
        return None
    return hashlib.sha256(np.ascontiguousarray(pixels).data).hexdigest()[:32]
