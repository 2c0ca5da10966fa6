"""Overlays: a native-resolution heatmap drawn over its image, on a scale that other images share.

A map is clipped at 0, divided by the scale, enlarged so that its cells lie at their places, looked
up in a colour map of 256 levels and blended with an opacity proportional to its value, so that weak
evidence looks weak and no evidence shows the bare image.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from trainables.core.files import replacing
from trainables.core.quoting import printable
from xai.judging.heat import evidence
from xai.methods.placement import Placement, enlarge
from xai.methods.registry import METHODS

if TYPE_CHECKING:
    import pandas as pd

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Row = Mapping[Any, Any]  # one row of the heatmaps table, by column
Colours = Literal["inferno", "jet"]

#: The opacity where the evidence reaches the scale.
OPACITY = 0.7
#: What a map's peak is among its positive values, and what the shared scale is among the peaks of a
#: set.
QUANTILE = 0.99

_COLOUR_MAPS = {"inferno": cv2.COLORMAP_INFERNO, "jet": cv2.COLORMAP_JET}
_JPEG_QUALITY = 90


# --- scales ---------------------------------------------------------------------------------------


def peak(heat: npt.ArrayLike) -> float:
    """The 0.99 quantile of a map's positive values, 0 where it has none: a maximum that a few
    pixels cannot decide.
    """
    positive = np.asarray(heat, np.float32).ravel()
    positive = positive[positive > 0]
    return float(np.quantile(positive, QUANTILE)) if positive.size else 0.0


def scale_of_peaks(peaks: Iterable[float]) -> float:
    """The 0.99 quantile of the peaks of a set of maps: beyond it, one map in a hundred saturates. 0
    for no maps.
    """
    values = np.fromiter(peaks, float)
    return float(np.quantile(values, QUANTILE)) if values.size else 0.0


def evidence_of(row: Row) -> Floats:
    """What is drawn of a row's map, and what scores judge, float32 (height, width), at least 0: see
    `heat.evidence`.
    """
    heat = np.asarray(row["map"], np.float32).reshape(int(row["height"]), int(row["width"]))
    return evidence(heat, only_positive(row["method"]))


def placement_of(row: Row) -> Placement:
    """Where the cells of a row's map lie; of a row that does not say so, they tile the image."""
    if not isinstance(row.get("placed"), str):
        return Placement.tiles(int(row["height"]), int(row["width"]))
    return Placement(*(row[name] for name in Placement._fields))


def only_positive(method: str) -> bool:
    """Whether a method's negative values are no evidence; of a method that is none of ours they are
    not.
    """
    return METHODS[method].positive if method in METHODS else True


def method_title(method: str) -> str:
    """How papers call a method; its own name where it is none of ours."""
    return METHODS[method].title if method in METHODS else printable(method)


def sign_note(method: str) -> str:
    """What a picture must say of negative values."""
    return (
        "Negative values are not drawn." if only_positive(method) else "Absolute values are drawn."
    )


def drawable(row: Row) -> bool:
    """Whether a row has a map to draw: no error, and finite throughout."""
    return not isinstance(row["error"], str) and bool(np.isfinite(evidence_of(row)).all())


def fold_of(row: Row) -> str:
    """The name of a row's fold; a column of numbers that also has gaps holds floats."""
    fold = row["fold"]
    return str(int(fold)) if isinstance(fold, float) and fold.is_integer() else printable(fold)


def scale_set(row: Row) -> tuple[str, str, str]:
    """What rows share a scale: candidate, method and layer, since others measure in other units."""
    return str(row["candidate"]), str(row["method"]), str(row["layer"])


@dataclass(frozen=True)
class Scales:
    """The scale of every map: shared by candidate, method and layer, or each map's own peak."""

    shared: Mapping[tuple[str, str, str], float]
    per_image: bool

    @classmethod
    def of(cls, rows: "pd.DataFrame", per_image: bool = False) -> "Scales":
        """The scales of a heatmaps table."""
        peaks: dict[tuple[str, str, str], list[float]] = {}
        for row in rows.to_dict("records"):
            if not per_image and drawable(row):
                peaks.setdefault(scale_set(row), []).append(peak(evidence_of(row)))
        return cls({key: scale_of_peaks(values) for key, values in peaks.items()}, per_image)

    def __getitem__(self, row: Row) -> float:
        return peak(evidence_of(row)) if self.per_image else self.shared[scale_set(row)]

    @property
    def caption(self) -> str:
        """What a picture must say of its scale."""
        if self.per_image:
            return "Each map on its own scale: do not compare images."
        return "One scale for all images of a candidate and method."


# --- overlays -------------------------------------------------------------------------------------


@lru_cache
def colour_table(colours: Colours = "inferno") -> Bytes:
    """The 256 colours of a map, RGB uint8 (256, 3): inferno is perceptually uniform, jet the
    classic.
    """
    table = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[:, None], _COLOUR_MAPS[colours])
    return np.ascontiguousarray(table[:, 0, ::-1])


@lru_cache
def _blend_tables(colours: Colours, opacity: float) -> tuple[Bytes, Bytes]:
    """By level of evidence: colour times opacity (256, 1, 3), and what is left of the image (256,
    1, 3).
    """
    alpha = opacity * np.linspace(0, 1, 256)[:, None]
    painted = np.rint(alpha * colour_table(colours)).astype(np.uint8)
    left = np.rint(255 * (1 - alpha)).astype(np.uint8).repeat(3, axis=1)
    return painted[:, None], left[:, None]


def rgb(image: Bytes) -> Bytes:
    """A picture as uint8 (H, W, 3), from (H, W), (H, W, 1) or (H, W, 3)."""
    return (
        image
        if image.shape[2:] == (3,)
        else np.asarray(cv2.cvtColor(image, cv2.COLOR_GRAY2RGB), np.uint8)
    )


def overlay(
    image: Bytes,
    heat: Floats,
    scale: float,
    colours: Colours = "inferno",
    opacity: float = OPACITY,
    placement: Placement | None = None,
) -> Bytes:
    """Draw a map over its image.

    `image` is uint8 (H, W) or (H, W, 3), RGB, at whatever resolution the overlay shall have; `heat`
    float32 (h, w), its cells at `placement`, else equal parts of the image. Evidence at `scale` or
    above gets the last colour at `opacity` (0..1), half of it the middle colour at half of that,
    none of it nothing. A `scale` of 0, of a set without evidence, draws nothing. Returns uint8 (H,
    W, 3). Raises ValueError for a map that is not finite.
    """
    if not np.isfinite(heat).all():
        raise ValueError("a map with NaN or infinite values cannot be drawn")
    if scale <= 0:
        return rgb(image)
    evidence = enlarge(
        np.maximum(heat, 0, dtype=np.float32), (image.shape[0], image.shape[1]), placement
    )
    level = cv2.convertScaleAbs(evidence, alpha=255 / scale)  # rounds, and saturates at 255
    painted, left = _blend_tables(colours, opacity)
    kept = cv2.multiply(rgb(image), cv2.applyColorMap(level, left), scale=1 / 255)
    return np.asarray(cv2.add(kept, cv2.applyColorMap(level, painted)), np.uint8)


def overlay_of(row: Row, image: Bytes, scale: float, colours: Colours = "inferno") -> Bytes:
    """Draw the evidence of a row of the heatmaps table over its image."""
    return overlay(image, evidence_of(row), scale, colours, placement=placement_of(row))


def encode(image: Bytes, suffix: str = ".png") -> bytes:
    """The bytes of a PNG or JPEG file (`suffix` .png, .jpg or .jpeg) of a picture, uint8 (H, W) or
    (H, W, 3) in RGB.
    """
    ordered = image if image.ndim == 2 else np.ascontiguousarray(rgb(image)[..., ::-1])
    settings = [] if suffix == ".png" else [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
    return bytes(cv2.imencode(suffix, ordered, settings)[1])


def write_image(path: Path, image: Bytes) -> Path:
    """Write a picture as PNG or JPEG, by the suffix of `path`, and return `path`."""
    content = encode(image, path.suffix.lower())
    with replacing(path, sync=False) as temporary:
        temporary.write_bytes(content)
    return path


# --- text and layout ------------------------------------------------------------------------------


def shorten(text: object, length: int) -> str:
    """`text`, printable, in at most `length` characters: an ellipsis takes the place of its
    middle.
    """
    shown = printable(text)
    if len(shown) <= length:
        return shown
    front = (length - 1) // 2
    return f"{shown[:front]}…{shown[len(shown) - (length - 1 - front) :]}"


@lru_cache
def _font(size: int, bold: bool, path: Path | None = None) -> ImageFont.FreeTypeFont:
    """A font file, by default DejaVu Sans, which is there on every machine."""
    from matplotlib import get_data_path

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(path or Path(get_data_path(), "fonts", "ttf", name)), size)


def text_block(lines: Sequence[str], width: int, size: int = 12, bold: bool = False) -> Bytes:
    """Lines of text, black on white, uint8 (H, width, 3); a line that is too wide loses its
    middle.
    """
    height = round(1.4 * size)
    picture = Image.new("RGB", (width, height * len(lines)), "white")
    draw = ImageDraw.Draw(picture)
    for number, line in enumerate(lines):
        text = legible(printable(line))
        pieces, length = _pieces(text, size, bold), min(len(text), 4 * width // size)
        while sum(font.getlength(piece) for font, piece in pieces) > width and length > 1:
            length -= 1
            pieces = _pieces(shorten(text, length), size, bold)
        left, baseline = 0.0, number * height + _font(size, bold).getmetrics()[0]
        for font, piece in pieces:
            draw.text((left, baseline), piece, fill="black", font=font, anchor="ls")
            left += font.getlength(piece)
    return np.asarray(picture)


def _pieces(text: str, size: int, bold: bool) -> list[tuple[ImageFont.FreeTypeFont, str]]:
    """The parts of a line, each with a font that has its characters."""
    from xai.drawing.fonts import runs

    return [(_font(size, bold, path), piece) for path, piece in runs(text)]


def legible(text: str) -> str:
    """See `fonts.legible`; matplotlib, which it needs, is slow to import."""
    from xai.drawing import fonts

    return fonts.legible(text)


def below(parts: Sequence[Bytes], gap: int = 4) -> Bytes:
    """Pictures one below the other, left-aligned on white."""
    return _joined(parts, 0, gap)


def beside(parts: Sequence[Bytes], gap: int = 4) -> Bytes:
    """Pictures in a row, aligned at the top, on white."""
    return _joined(parts, 1, gap)


def _joined(parts: Sequence[Bytes], axis: int, gap: int) -> Bytes:
    across = 1 - axis
    extent = max(part.shape[across] for part in parts)
    padded = []
    for number, part in enumerate(parts):
        margins = [(0, 0)] * 3
        margins[axis] = (gap if number else 0, 0)
        margins[across] = (0, extent - part.shape[across])
        padded.append(np.pad(part, margins, constant_values=255))
    return np.concatenate(padded, axis=axis)


def colour_ramp(
    width: int, height: int, colours: Colours = "inferno", opacity: float = OPACITY
) -> Bytes:
    """What evidence from 0 to the scale looks like over mid-grey, uint8 (height, width, 3)."""
    ramp = np.linspace(0, 1, width, dtype=np.float32)[None]
    return overlay(np.full((height, width), 128, np.uint8), ramp, 1.0, colours, opacity)


def colour_bar(
    end: str, width: int, colours: Colours = "inferno", opacity: float = OPACITY
) -> Bytes:
    """A colour ramp with its two ends, 0 and the scale, named `end`, uint8 (H, width, 3)."""
    ends = Image.new("RGB", (width, 17), "white")
    draw = ImageDraw.Draw(ends)
    draw.text((0, 0), "0", fill="black", font=_font(12, False))
    draw.text((width, 0), f"{end} or more", fill="black", font=_font(12, False), anchor="ra")
    return below([colour_ramp(width, 14, colours, opacity), np.asarray(ends)], gap=2)
