"""From a method's map to what can be judged: evidence, at the size of the image, beside masks at
the same size.
"""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from trainables.core.input_format import InputFormat
from xai.methods.placement import Placement, enlarge

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]


def evidence(maps: NDArray[np.floating[Any]], positive: bool) -> Floats:
    """How much each place speaks for the class: non-negative float32 of the same shape as the
    signed `maps`.

    Where only positive values are evidence, as in Grad-CAM (Selvaraju 2017, arXiv:1610.02391, eq.
    2, whose ReLU drops what speaks for other classes), negative ones become 0. Otherwise the sign
    does not tell for from against: a gradient's says whether a pixel should be brighter or darker,
    so its absolute value counts (Smilkov 2017, arXiv:1706.03825).
    """
    maps = np.asarray(maps, np.float32)
    return np.asarray(np.maximum(maps, 0) if positive else np.abs(maps))


def scaled(evidence: Floats) -> Floats:
    """Each map of evidence (b, h, w) divided by its own maximum; one without evidence stays 0."""
    highest = evidence.max(axis=(1, 2), keepdims=True)
    return np.asarray(evidence / np.where(highest > 0, highest, 1), np.float32)


def upsample(
    maps: NDArray[np.floating[Any]], size: int, placement: Placement | None = None
) -> Floats:
    """Resize maps (..., h, w) to (..., size, size) float32, bilinearly, each value at its cell's
    place: see `enlarge`.

    Without `placement` a map covers the whole image in h x w equal cells.
    """
    return enlarge(maps, (size, size), placement)


def mask_at(mask: NDArray[Any], form: InputFormat, image: tuple[int, int] | None = None) -> Bools:
    """A mask (H, W), anything but 0 being inside, as the image store has its image: (size, size)
    bool.

    It is resized into the box of the `image`, of so many rows and columns, by default its own; a
    pixel is inside where at least half of it is covered.
    """
    inside = (np.asarray(mask) != 0).astype(np.float32)
    box = form.box(*(image or mask.shape))
    way = cv2.INTER_AREA if box.height * box.width < inside.size else cv2.INTER_LINEAR
    square = np.zeros((form.size, form.size), np.bool_)
    square[box.inside] = cv2.resize(inside, (box.width, box.height), interpolation=way) >= 0.5
    return square


def spearman(
    first: NDArray[np.floating[Any]], second: NDArray[np.floating[Any]]
) -> NDArray[np.float64]:
    """Rank correlation between maps (..., h, w), ties at their mean rank: (...) from -1 to 1.

    NaN where a map is the same everywhere or is not finite.
    """
    ranks = [
        np.asarray(rankdata(_flat(maps), axis=-1, nan_policy="propagate"))
        for maps in (first, second)
    ]
    x, y = (rank - rank.mean(axis=-1, keepdims=True) for rank in ranks)
    with np.errstate(invalid="ignore"):  # 0/0, where a map is the same everywhere
        return np.asarray(
            (x * y).sum(axis=-1) / np.sqrt((x * x).sum(axis=-1) * (y * y).sum(axis=-1))
        )


def _flat(maps: NDArray[Any]) -> NDArray[Any]:
    maps = np.where(np.isfinite(maps), maps, np.nan)
    return maps.reshape(*maps.shape[:-2], -1)
