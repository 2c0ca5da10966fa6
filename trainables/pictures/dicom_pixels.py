"""The words of a DICOM file's pixels, once what the header says of them and what the file holds
agree.
"""

import io
import struct
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from trainables.core.errors import UnreadableImage
from trainables.core.limits import FRAMES
from trainables.pictures.headers import jpeg2000_samples

if TYPE_CHECKING:
    from pydicom import Dataset

_JPEG, _JPEG_2000 = b"\xff\xd8\xff", b"\xff\x4f\xff\x51"
#: Markers of JPEG that begin a frame: SOF0 to SOF15 but DHT, JPG and DAC (ITU-T T.81, B.1.1.3), and
#: SOF55 of JPEG-LS.
_JPEG_FRAMES = frozenset({*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC})


def read_words(dataset: "Dataset") -> npt.NDArray[Any]:
    """The one frame of a data set as pydicom decodes it, (H, W), or (H, W, 3) RGB; unused bits as
    they are stored.

    Raises `UnreadableImage` where the pixels are compressed in a way that no installed plug-in
    knows, are more or fewer than the header says, or say otherwise of themselves.
    """
    import pydicom
    from pydicom.uid import RLELossless

    if "TransferSyntaxUID" not in dataset.file_meta:
        dataset.file_meta.TransferSyntaxUID = _plain_syntax(dataset)
    syntax = dataset.file_meta.TransferSyntaxUID
    _refuse_compression(dataset, syntax)
    _refuse_colours(dataset, syntax)
    if syntax.is_encapsulated:
        frame = _one_frame(dataset, syntax == RLELossless)
        if syntax == RLELossless:
            _decode_runs(dataset, frame)
        else:
            _refuse_other_shape(dataset, frame)
    else:
        _refuse_other_length(dataset)
    words: npt.NDArray[Any] = pydicom.pixels.pixel_array(
        dataset, index=0, correct_unused_bits=False
    )
    if words.shape[:2] != (int(dataset.Rows), int(dataset.Columns)):
        raise UnreadableImage(
            f"{words.shape[1]}x{words.shape[0]} pixels, but {_said(dataset)} by the header"
        )
    return words


def unused_low_bits(dataset: "Dataset") -> int:
    """How many bits of each stored word lie below those of the pixel (PS3.5, 8.1.1)."""
    bits = int(dataset.BitsStored)
    return int(dataset.get("HighBit", bits - 1)) + 1 - bits


def _said(dataset: "Dataset") -> str:
    return f"{int(dataset.Columns)}x{int(dataset.Rows)}"


# --- compression ----------------------------------------------------------------------------------


def _refuse_compression(dataset: "Dataset", syntax: Any) -> None:
    from pydicom.pixels.decoders.base import get_decoder
    from pydicom.uid import UID_dictionary

    if syntax not in UID_dictionary:
        raise UnreadableImage("pixels compressed in a way that DICOM does not define")
    try:
        known = not syntax.is_compressed or get_decoder(syntax).is_available
    except NotImplementedError:
        known = False
    if known and unused_low_bits(dataset) and syntax.is_encapsulated and "RLE" not in syntax.name:
        raise UnreadableImage(
            f"compressed pixels of {dataset.BitsStored} bits, the highest of which is number "
            f"{dataset.HighBit}"
        )
    if not known:
        raise UnreadableImage(
            f"pixels compressed as {syntax.name}, which pydicom cannot decode without a plug-in"
        )


def _refuse_colours(dataset: "Dataset", syntax: Any) -> None:
    """Colours that this compression cannot hold (PS3.5, 8.2), or that pydicom would show as if they
    were RGB.
    """
    from pydicom.uid import JPEG2000TransferSyntaxes, RLELossless

    colours = str(dataset.PhotometricInterpretation)
    halved_in_planes = syntax == RLELossless or (
        not syntax.is_encapsulated and dataset.get("PlanarConfiguration") == 1
    )
    if (colours in ("YBR_ICT", "YBR_RCT") and syntax not in JPEG2000TransferSyntaxes) or (
        colours == "YBR_FULL_422" and halved_in_planes
    ):
        raise UnreadableImage(f"{colours} pixels in {syntax.name}, which cannot hold them so")


def _plain_syntax(dataset: "Dataset") -> str:
    """The uncompressed transfer syntax in which a data set without file header was found to be
    written.
    """
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    if dataset["PixelData"].is_undefined_length:
        raise UnreadableImage(
            "no DICOM header (preamble) that says how its pixels are compressed: save it with one"
        )
    implicit, little = dataset.original_encoding
    if implicit:
        return str(ImplicitVRLittleEndian)
    return str(ExplicitVRLittleEndian if little else ExplicitVRBigEndian)


# --- what the header says and the pixels contradict -----------------------------------------------


def _refuse_other_length(dataset: "Dataset") -> None:
    """Pixels without compression: Rows x Columns x samples, and a byte at most that makes their
    number even.
    """
    needed = (
        int(dataset.Rows)
        * int(dataset.Columns)
        * int(dataset.SamplesPerPixel)
        * int(dataset.BitsAllocated)
        // 8
    )
    if dataset.PhotometricInterpretation == "YBR_FULL_422":
        needed = needed * 2 // 3  # two pixels share their colour
    found = len(dataset.PixelData)
    if found < needed:
        raise UnreadableImage("truncated")
    if found > needed + needed % 2:
        raise UnreadableImage(
            f"{found:,} bytes of pixels, but {needed:,} by the header, {_said(dataset)}"
        )


def _one_frame(dataset: "Dataset", runs: bool) -> bytes:
    """The compressed bytes of a file's one frame, which may lie in several fragments unless these
    are `runs`.
    """
    from pydicom.encaps import generate_fragments, parse_basic_offsets

    data = io.BytesIO(dataset.PixelData)
    offsets = parse_basic_offsets(data)
    fragments = []
    for fragment in generate_fragments(data):
        fragments.append(fragment)
        if len(fragments) > FRAMES:
            raise UnreadableImage(f"pixels in more than {FRAMES:,} fragments")
    begun = sum(runs or fragment.startswith((_JPEG, _JPEG_2000)) for fragment in fragments)
    if max(begun, len(offsets)) > 1:
        raise UnreadableImage(f"{max(begun, len(offsets))} frames, but one by the header")
    return b"".join(fragments)


def _refuse_other_shape(dataset: "Dataset", frame: bytes) -> None:
    shape = _codestream(frame)
    if shape is None:
        return
    width, height, samples, bits = shape
    if (width, height) != (int(dataset.Columns), int(dataset.Rows)):
        raise UnreadableImage(f"{width}x{height} pixels, but {_said(dataset)} by the header")
    if samples != int(dataset.SamplesPerPixel):
        raise UnreadableImage(
            f"pixels of {samples} samples, but {int(dataset.SamplesPerPixel)} by the header"
        )
    if bits > int(dataset.BitsStored):
        raise UnreadableImage(f"pixels of {bits} bits, but {int(dataset.BitsStored)} by the header")


def _codestream(frame: bytes) -> tuple[int, int, int, int] | None:
    """Width, height, samples and bits of compressed pixels by what they say themselves, where that
    can be read.
    """
    if frame.startswith(_JPEG_2000):
        right, bottom, left, top = struct.unpack(">4I", frame[8:24])
        bits = jpeg2000_samples(frame).bits
        return right - left, bottom - top, len(bits), max(bits)
    position = 2
    while frame.startswith(_JPEG) and position + 10 <= len(frame) and frame[position] == 0xFF:
        marker = frame[position + 1]
        if marker in _JPEG_FRAMES:
            bits, height, width, samples = struct.unpack(
                ">BHHB", frame[position + 4 : position + 10]
            )
            return width, height, samples, bits
        # Fill bytes and markers without a segment are two bytes long, or one.
        alone = marker == 0x01 or 0xD0 <= marker <= 0xD8
        position += (
            1
            if marker == 0xFF
            else 2
            if alone
            else 2 + int.from_bytes(frame[position + 2 : position + 4], "big")
        )
    return None


def _decode_runs(dataset: "Dataset", frame: bytes) -> None:
    """Put the pixels of run lengths (PS3.5 G) into a data set as if they had never been compressed,
    in planes.

    pydicom's own decoder takes whatever the runs give, and cuts off what the header does not say.
    """
    from pydicom.uid import ExplicitVRLittleEndian

    number, *starts = struct.unpack("<16I", frame[:64])
    bytes_each, needed = int(dataset.BitsAllocated) // 8, int(dataset.Rows) * int(dataset.Columns)
    if number != bytes_each * int(dataset.SamplesPerPixel):
        raise UnreadableImage(f"damaged: {number:,} segments of run lengths")
    decoded = bytearray(number * needed)
    for segment, (start, end) in enumerate(pairwise([*starts[:number], len(frame)])):
        sample, byte = divmod(segment, bytes_each)  # of each sample, the highest byte comes first
        first = sample * bytes_each * needed + bytes_each - 1 - byte
        found = _run_lengths(frame, start, end, needed)
        if len(found) < needed:
            raise UnreadableImage("truncated")
        if len(found) > needed + 1:  # one more makes their number even
            raise UnreadableImage(f"more pixels than {_said(dataset)}, which the header says")
        decoded[first : first + bytes_each * needed : bytes_each] = found[:needed]
    dataset.PixelData = bytes(decoded) + bytes(len(decoded) % 2)
    dataset["PixelData"].is_undefined_length = False
    if int(dataset.SamplesPerPixel) > 1:
        dataset.PlanarConfiguration = 1
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian


def _run_lengths(frame: bytes, position: int, end: int, needed: int) -> bytearray:
    """What a segment of run lengths decodes to, until it is clear that this is too much."""
    found = bytearray()
    while position < end and len(found) <= needed + 1:
        head = frame[position]
        if head < 128:
            found += frame[position + 1 : min(position + 2 + head, end)]
            position += 2 + head
        elif head > 128:
            found += frame[position + 1 : position + 2] * (257 - head)
            position += 2
        else:
            position += 1
    return found
