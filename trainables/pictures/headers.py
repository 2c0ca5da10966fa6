"""What the headers of image files say of their pixels and Pillow does not tell, or tells too
late.
"""

import io
import re
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from PIL import TiffImagePlugin

from trainables.core.errors import UnreadableImage
from trainables.core.limits import FRAMES

_BITS, _COMPRESSION, _PHOTOMETRIC, _CHANNELS, _PLANES, _EXTRA, _FORMAT = (
    258,
    259,
    262,
    277,
    284,
    338,
    339,
)
_HEIGHT, _STRIPS, _STRIP_ROWS, _STRIP_BYTES = 257, 273, 278, 279
_WIDTH, _TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_BYTES = 256, 322, 323, 324, 325
_FORMATS = {1: "unsigned integers", 2: "signed integers", 3: "floats"}
_PHOTOMETRICS = {0: "zero is white", 3: "palette", 5: "CMYK", 6: "YCbCr", 8: "Lab"}
_NO_ALPHA, _PREMULTIPLIED = 0, 1

_CODESTREAM = b"\xff\x4f\xff\x51"
_ENUMERATED_COLOURS = re.compile(rb"colr\x01..(.{4})", re.DOTALL)
_SRGB = 16

_GAP = rb"(?:\s|#[^\n]*\n)"
_PNM = re.compile(rb"%b*P([1-6])\s%b*(\d+)\s%b*(\d+)\s" % (_GAP, _GAP, _GAP))
_PNM_WHITE = re.compile(rb"%b*(\d+)\s" % _GAP)
_PNG_SAMPLES = {2: 3, 4: 2, 6: 4}  # by type of colour; one otherwise
#: First column and row of each pass of Adam7, and its steps across and down (PNG, 8.2).
_ADAM7 = (
    *((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4)),
    *((0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)),
)
_PART = 2**13  # bytes
_PLAIN_PNM = re.compile(rb"\sP[1-6]\s")


@dataclass(frozen=True)
class Samples:
    """`bits`: of each channel; `signed`: whether they are below zero too; `rgb`: whether the first
    three are RGB;

    `planes`: whether each channel is stored on its own; `straight_alpha`: whether a fourth channel
    is transparency that the colours have not been multiplied with.
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
    """The samples of a JPEG 2000 file, out of the SIZ marker (ISO 15444-1, A.5.1) and the box of
    its colours.

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


def refuse_other_strips(tags: Mapping[int, Any], samples: Samples) -> None:
    """Raise `UnreadableImage` where a TIFF file has other than the strips or tiles that its pixels
    need, or empty ones.

    Pillow leaves black what the missing should hold, and cuts off what is more.
    """
    width, height = int(tags.get(_WIDTH, 0)), int(tags.get(_HEIGHT, 0))
    planes = len(samples.bits) if samples.planes else 1
    if _TILES in tags:
        across, down = int(tags.get(_TILE_WIDTH, 0)), int(tags.get(_TILE_HEIGHT, 0))
        places, sizes = tags[_TILES], tags.get(_TILE_BYTES)
    else:
        across, down = width, min(height, int(tags.get(_STRIP_ROWS, height)))
        places, sizes = tags.get(_STRIPS, ()), tags.get(_STRIP_BYTES)
    if across < 1 or down < 1:
        raise UnreadableImage("damaged: strips or tiles without pixels")
    needed = -(-width // across) * -(-height // down) * planes
    found, lengths = _numbers(places), _numbers(sizes or ())
    if len(found) < needed or 0 in found or 0 in lengths:
        raise UnreadableImage("truncated: strips or tiles are missing")
    row = -(-width * sum(samples.bits) // 8)
    plain = tags.get(_COMPRESSION, 1) == 1 and _TILES not in tags
    if len(found) > needed or (plain and sum(lengths) >= (height + 1) * row):
        raise UnreadableImage(f"more pixels than {width}x{height}, which its header says")


def refuse_other_png_rows(content: bytes) -> None:
    """Raise `UnreadableImage` where the compressed pixels of a PNG file are fewer than its header
    says, or more rows.

    Pillow leaves black what is missing, and cuts off what is more, without a word.
    """
    width, height, depth, colours, _, _, interlaced = struct.unpack(">IIBBBBB", content[16:29])
    bits = depth * _PNG_SAMPLES.get(colours, 1)
    passes = _ADAM7 if interlaced else ((0, 0, 1, 1),)
    shapes = [
        (-(-(width - x) // across), -(-(height - y) // down)) for x, y, across, down in passes
    ]
    needed = sum(
        rows * (1 + -(-columns * bits // 8)) for columns, rows in shapes if columns > 0 and rows > 0
    )
    row = 1 + -(-width * bits // 8)
    inflate, found = zlib.decompressobj(), 0
    for data in _png_data(content):
        found += len(inflate.decompress(data))
        if found >= needed + row:
            break
    if found < needed:
        raise UnreadableImage("truncated")
    if found >= needed + row:
        raise UnreadableImage(f"more pixels than {width}x{height}, which its header says")


def _png_data(content: bytes) -> Iterator[bytes]:
    """The compressed pixels, in parts that inflate to a few megabytes at most."""
    position = 8
    while position + 8 <= len(content):
        start, length = position + 8, int.from_bytes(content[position : position + 4], "big")
        if content[position + 4 : start] == b"IDAT":
            end = min(start + length, len(content))
            yield from (content[at : min(at + _PART, end)] for at in range(start, end, _PART))
        position = start + length + 4


def webp_size(content: bytes) -> tuple[int, int]:
    """Width and height of a WebP file by its first chunk (RFC 9649); raises `ValueError` where
    there is none.
    """
    chunk, start = content[12:16], content[20:30]
    if len(start) == 10 and chunk == b"VP8X":
        return 1 + int.from_bytes(start[4:7], "little"), 1 + int.from_bytes(start[7:10], "little")
    if len(start) == 10 and chunk == b"VP8L":
        bits = int.from_bytes(start[1:5], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if len(start) == 10 and chunk == b"VP8 ":
        return int.from_bytes(start[6:8], "little") & 0x3FFF, int.from_bytes(
            start[8:10], "little"
        ) & 0x3FFF
    raise ValueError("no WebP image")


# --- frames ---------------------------------------------------------------------------------------


def count_frames(content: bytes, name: str) -> int:
    """How many images a TIFF, GIF or PNM file holds, up to `limits.FRAMES`; 0 for formats whose
    header says it.
    """
    find = {"TIFF": _tiff_frames, "GIF": _gif_frames, "PNM": _pnm_frames}.get(name)
    return sum(1 for _ in islice(find(content), FRAMES)) if find else 0


def _tiff_frames(content: bytes) -> Iterator[int]:
    """The places of a file's directories, none of which is read."""
    order = ">" if content[:2] == b"MM" else "<"
    big = 43 in content[2:4]
    size, count, entry, place = (8, "Q", 20, 8) if big else (4, "H", 12, 4)
    seen: set[int] = set()
    (position,) = struct.unpack_from(f"{order}{'Q' if big else 'I'}", content, place)
    while position and position not in seen:
        seen.add(position)
        yield position
        if position + 8 > len(content):
            return
        (entries,) = struct.unpack_from(f"{order}{count}", content, position)
        following = position + struct.calcsize(f"<{count}") + entry * entries
        if following + size > len(content):
            return
        (position,) = struct.unpack_from(f"{order}{'Q' if big else 'I'}", content, following)


def _gif_frames(content: bytes) -> Iterator[int]:
    """The places of a file's images, by its blocks (GIF89a, appendix A)."""
    position = 13 + _gif_colours(content[10:11])
    while position < len(content):
        kind = content[position]
        if kind == 0x2C:  # an image: its descriptor, colours, size of codes and data
            yield position
            position += 11 + _gif_colours(content[position + 9 : position + 10])
        elif kind == 0x21:  # an extension
            position += 2
        elif kind == 0x3B:
            return
        else:  # no block: Pillow looks on from the next byte, too
            position += 1
            continue
        while position < len(content) and content[position]:
            position += 1 + content[position]
        position += 1


def _gif_colours(flags: bytes) -> int:
    """Bytes of a table of colours."""
    return 3 << (flags[0] & 7) + 1 if flags and flags[0] & 0x80 else 0


def _pnm_frames(content: bytes) -> Iterator[int]:
    """The places of the images that lie one after the other."""
    position = 0
    while header := _PNM.match(content, position):
        yield position
        kind, width, height = (int(number) for number in header.groups())
        if kind <= 3:  # numbers as text: where the next image begins, they end
            following = _PLAIN_PNM.search(content, header.end())
            if following is None:
                return
            position = following.start()
            continue
        position = header.end()
        row = (width + 7) // 8
        if kind > 4:
            white = _PNM_WHITE.match(content, position)
            if white is None:
                return
            position = white.end()
            row = width * (3 if kind == 6 else 1) * (2 if int(white[1]) > 255 else 1)
        position += row * height


def _numbers(value: Any) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, tuple) else (value,)
