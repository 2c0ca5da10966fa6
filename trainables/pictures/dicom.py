"""DICOM files in, the picture that a viewer would show out: 8-bit grey or RGB; needs the extra
`dicom`.

The answer has 8 bits, or 16 where those are asked for, whatever the file has, because the steps of
DICOM end in display values: what a detector's numbers mean stands in each file's own header. Left
as stored, files of 10, 12 and 16 bits in one dataset would differ in brightness for no reason but
their scanners, and would shift the depth that their 16-bit neighbours share.
"""

import io
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from trainables.core.errors import UnreadableImage
from trainables.core.limits import MEGAPIXELS, check_size
from trainables.pictures.depth import DEPTHS, Pixels
from trainables.pictures.dicom_header import read_dataset
from trainables.pictures.dicom_pixels import read_words, unused_low_bits

if TYPE_CHECKING:
    from pydicom import Dataset

_GREY = ("MONOCHROME1", "MONOCHROME2")
_NEEDED = (
    *("Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation"),
    *("BitsAllocated", "BitsStored", "PixelRepresentation"),
)
_COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
#: What DICOM defines beside them (PS3.3 C.7.6.3.1.2), and may be repeated: anything else may be a
#: name.
_OTHERS = ("PALETTE COLOR", "HSV", "ARGB", "CMYK", "YBR_PARTIAL_422", "YBR_PARTIAL_420", "XYB")
_WINDOWS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")

Floats = npt.NDArray[np.float64]
Uint8 = npt.NDArray[np.uint8]


def decode_dicom(
    content: bytes, max_megapixels: float = MEGAPIXELS
) -> tuple[Uint8, bool, Callable[[], Pixels] | None]:
    """The one picture of a DICOM file, (H, W) grey or (H, W, 3) RGB, its rows and columns as they
    are stored.

    Also whether its brightness was guessed: two such files cannot be compared by it. And, of grey,
    what gives the same picture in 16 bits.

    Grey goes through modality LUT or rescale, then VOI LUT, else the window, each the first of
    several, else the full range, and is inverted for MONOCHROME1 or a PresentationLUTShape of
    INVERSE, which say the same (PS3.3 C.11.1, C.11.2, C.7.6.3.1.2, C.11.6). Bits above and below
    those stored are ignored. The full range is that of BitsStored; files that say 16 mostly hold
    less, so of these it is the smallest of 8, 10, 12, 14, 16 bits that holds all pixels. A data set
    whose preamble or whole file header was cut off is read as what it looks like.

    Raises `UnreadableImage` for several frames, too many, no or float pixels, palettes, deep colour
    and compressions that the installed plug-ins of pydicom do not know, `DataError` without
    pydicom, and almost anything for damaged bytes.
    """
    dataset = read_dataset(io.BytesIO(content), max_megapixels)
    _refuse(dataset)
    check_size(int(dataset.Columns), int(dataset.Rows), max_megapixels)
    words = read_words(dataset)
    if dataset.PhotometricInterpretation not in _GREY:
        return np.asarray(words, np.uint8), False, None
    signed, bits, unused = (
        bool(dataset.PixelRepresentation),
        int(dataset.BitsStored),
        unused_low_bits(dataset),
    )
    # Each word stands for one value: what is computed is computed once for all of them.
    words = words.astype(words.dtype.newbyteorder("="), copy=False).view(f"u{words.itemsize}")
    values = _stored(np.arange(2 ** (8 * words.itemsize)), bits, unused, signed)
    guessed = bits == 16 and not (dataset.get("VOILUTSequence") or _first(dataset, "WindowWidth"))
    if bits == 16:
        stored = words.view(np.int16) if signed else words
        low, high = int(stored.min()), int(stored.max())
        bits = next(
            b for b in DEPTHS if _limits(b, signed)[0] <= low and high <= _limits(b, signed)[1]
        )
    low, high = _limits(bits, signed)
    # Far outside a window, the exponential of a sigmoid is infinite.
    with np.errstate(over="ignore"):
        shown = _shown(dataset, np.arange(low, high + 1))

    def in_levels(white: int, dtype: type[Any]) -> Pixels:
        levels = np.rint(white * shown).astype(dtype)
        return np.asarray(levels[(values - low).clip(0, high - low)][words])

    return in_levels(255, np.uint8), guessed, lambda: in_levels(65535, np.uint16)


def _refuse(dataset: "Dataset") -> None:
    if "FloatPixelData" in dataset or "DoubleFloatPixelData" in dataset:
        raise UnreadableImage("float pixels")
    if "PixelData" not in dataset:
        raise UnreadableImage("no pixels: truncated, or no image")
    for keyword in _NEEDED:
        if dataset.get(keyword) is None:
            raise UnreadableImage(f"no {keyword} in its header")
    stated = dataset.get("NumberOfFrames")
    frames = 1 if stated is None or stated == "" else int(stated)
    if frames != 1:
        raise UnreadableImage(f"{frames:,} frames")
    colours, bits = str(dataset.PhotometricInterpretation), int(dataset.BitsAllocated)
    if colours not in (*_GREY, *_COLOUR):
        raise UnreadableImage(
            f"photometric interpretation {colours if colours in _OTHERS else 'unknown to DICOM'}"
        )
    if "PresentationLUTSequence" in dataset:
        raise UnreadableImage("a presentation lookup table")
    _refuse_samples(dataset, colours, bits)


def _refuse_samples(dataset: "Dataset", colours: str, bits: int) -> None:
    samples = int(dataset.SamplesPerPixel)
    if samples != (1 if colours in _GREY else 3):
        raise UnreadableImage(f"{colours} pixels of {samples} sample{'s' if samples != 1 else ''}")
    if bits not in ((8, 16) if colours in _GREY else (8,)):
        raise UnreadableImage(f"{bits}-bit {colours} pixels")
    if colours in _COLOUR and dataset.get("PlanarConfiguration") not in (0, 1):
        raise UnreadableImage(f"{colours} pixels without a PlanarConfiguration that DICOM defines")
    used, high = int(dataset.BitsStored), unused_low_bits(dataset) + int(dataset.BitsStored) - 1
    if not 0 < used <= high + 1 <= bits or (colours in _COLOUR and used < bits):
        raise UnreadableImage(
            f"{colours} pixels of {used} bits in {bits}, the highest of which is number {high}"
        )
    if int(dataset.PixelRepresentation) not in ((0, 1) if colours in _GREY else (0,)):
        raise UnreadableImage(
            f"{colours} pixels whose PixelRepresentation is {int(dataset.PixelRepresentation)}"
        )


# --- from stored values to display values ---------------------------------------------------------


def _limits(bits: int, signed: bool) -> tuple[int, int]:
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)


def _stored(words: npt.NDArray[Any], bits: int, unused: int, signed: bool) -> npt.NDArray[np.int64]:
    """The values of the pixels out of the words that hold them, whose other bits may hold anything,
    as overlays.
    """
    values: npt.NDArray[np.int64] = (words.astype(np.int64) >> unused) & (2**bits - 1)
    if signed:
        values -= (values >> (bits - 1)) << bits
    return values


def _shown(dataset: "Dataset", stored: npt.NDArray[np.int64]) -> Floats:
    """What a viewer shows, 0 black to 1 white, for every stored value, given in ascending
    order.
    """
    values = stored.astype(np.float64)
    if dataset.get("ModalityLUTSequence"):
        values, top = _looked_up(values, dataset.ModalityLUTSequence[0])
        full = (0.0, top)
    else:
        slope, intercept = _first(dataset, "RescaleSlope"), _first(dataset, "RescaleIntercept")
        values = values * (1 if slope is None else slope) + (intercept or 0)
        full = (values.min(), values.max())
        # A slope of zero, or one that is lost beside the intercept.
        if not (full[1] - full[0] < np.inf and np.diff(values).all()):
            raise UnreadableImage(
                "RescaleSlope and RescaleIntercept give different pixels one value, or none"
            )
    if dataset.get("VOILUTSequence"):
        values, top = _looked_up(values, dataset.VOILUTSequence[0])
        share = values / top
    else:
        share = _windowed(dataset, values, full)
    share = share.clip(0, 1)
    if (
        dataset.PhotometricInterpretation == "MONOCHROME1"
        or dataset.get("PresentationLUTShape") == "INVERSE"
    ):
        share = 1 - share
    return share


def _windowed(dataset: "Dataset", values: Floats, full: tuple[float, float]) -> Floats:
    """Values of the window, or of the full range where there is none with a width, as shares of
    white.
    """
    centre, width = _first(dataset, "WindowCenter"), _first(dataset, "WindowWidth")
    function = str(dataset.get("VOILUTFunction") or "LINEAR")
    if centre is None or not width:
        return (values - full[0]) / (full[1] - full[0])
    if width < 0:
        raise UnreadableImage("WindowWidth is below zero")
    if function not in _WINDOWS:
        raise UnreadableImage("VOILUTFunction is none that DICOM defines")
    if function == "SIGMOID":
        share: Floats = 1 / (1 + np.exp(-4 * (values - centre) / width))
        return share
    if function == "LINEAR_EXACT":
        return (values - centre) / width + 0.5
    if width <= 1:  # the formula's limit: a threshold
        return (values > centre - 0.5).astype(np.float64)
    return (values - (centre - 0.5)) / (width - 1) + 0.5


def _first(dataset: "Dataset", keyword: str) -> float | None:
    """The first of the numbers of an element; None where there is none."""
    value = dataset.get(keyword)
    try:
        numbers = np.atleast_1d(
            np.array(value if value is not None and value != "" else [], np.float64)
        )
    except (TypeError, ValueError):
        raise UnreadableImage(f"{keyword} is no number") from None
    if numbers.size and not np.isfinite(numbers[0]):
        raise UnreadableImage(f"{keyword} is no finite number")
    return float(numbers[0]) if numbers.size else None


def _looked_up(values: Floats, item: "Dataset") -> tuple[Floats, float]:
    """Values through a lookup table, and the greatest value that it can give.

    pydicom's own lookup overflows for 8-bit tables of more than 256 entries and knows no modality
    tables of 12 bits.
    """
    entries, first, bits = (int(number) for number in item.LUTDescriptor)
    entries = entries % 2**16 or 2**16  # 0 stands for 65536, and a signed element wraps
    data = item.LUTData
    if isinstance(data, bytes):
        data = np.frombuffer(data, np.uint8 if len(data) < 2 * entries else np.dtype("<u2"))
    table = np.asarray(data, np.float64)
    if (
        not 1 < bits <= 16
        or not entries <= table.size <= entries + entries % 2
        or table.max() >= 2**bits
    ):
        raise UnreadableImage(
            f"a lookup table of {entries} entries of {bits} bits that holds {table.size} values"
        )
    table = table[:entries]
    return table[np.rint(values - first).clip(0, len(table) - 1).astype(np.int64)], 2.0**bits - 1
