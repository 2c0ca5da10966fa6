"""Does the map agree with what is known: masks, the anatomy, and the other folds' models?

Heat is evidence at the size of the image, float32 (b, s, s), not negative; masks are bool (b, s,
s). Every score is float64 (b,). Energy is the share of all heat that lies in a region. A uniform
map has the region's area as its energy, so the ratio of the two says more: above 1 is more than a
map gives that knows nothing.

A map without any evidence points nowhere: it misses, with 0 in the pointing game and IoU, but its
energy is NaN. A map that is not finite has NaN everywhere, as has an image with an empty mask.
"""

from itertools import combinations
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from xai.judging.heat import Bools, Floats, evidence, spearman, upsample
from xai.judging.reach import Enlarge, Reach

Scores = dict[str, NDArray[np.float64]]

#: How far beside the mask the maximum may lie, in image edges: the 15 pixels of Zhang 2016 on
#: photographs of 500.
TOLERANCE = 0.03
#: Share of the pixels, the hottest ones, that `iou_top` compares with the mask.
TOP = 0.2
#: Share of the maximum from which on a pixel counts for `iou_half`.
HALF = 0.5
#: Width of the frame that is the border, in image edges (36 % of the image).
BORDER = 0.1
#: Edge of the square that is a corner, in image edges (4 % of the image): room for a laterality
#: marker.
CORNER = 0.2
#: A uniform map's ratio.
UNIFORM = 1.0
#: How probable one false flag may be, among all of a report.
ERROR = 0.05
#: Endings of what a score on a mask is to be compared with: a map that knows nothing, and the best
#: one of its size.
LIMITS = ("_chance", "_ceiling")


def localisation(
    heat: Floats, masks: Bools, maps: Floats | None = None, enlarge: Enlarge = upsample
) -> Scores:
    """How well heat and mask agree, whatever the mask shows.

    `heat` is what `enlarge` made of the evidence `maps`, (b, h, w); without these it is the map
    itself. `energy` inside the mask (Wang 2020, arXiv:1910.01279) and `energy_ratio` to a uniform
    map. `pointing`: whether the hottest cell lies in the mask or within `TOLERANCE` of it (Zhang
    2016, arXiv:1608.00507), in part where only some of the pixels around its centre do; of several
    equal ones, the mean. `iou_top`, `iou_half`: intersection over union of the mask and the pixels
    that are among the hottest `TOP`, or reach `HALF` of the maximum; a pixel without heat is never
    among them.

    Every score comes with two others for the same image. `<score>_chance` is what a uniform map
    scores: the area of the mask, in `energy_ratio` 1, in `pointing` the share of all cells that
    would hit. `<score>_ceiling` is what no map of this size can exceed, since a coarse one reaches
    beside a small mask whatever it shows: of `energy`, `energy_ratio` and `pointing` the score of
    the best map there is, of the IoUs a bound (see `Reach`).
    """
    maps = heat if maps is None else maps
    reach = Reach.of(maps.shape[1:], heat.shape[1], enlarge)
    hits = reach.peaks(np.array([_near(mask) for mask in masks]))
    hottest = (maps == maps.max(axis=(1, 2), keepdims=True)) & (maps > 0)
    highest = heat.max(axis=(1, 2), keepdims=True)
    top = np.quantile(heat, 1 - TOP, axis=(1, 2), keepdims=True)
    energy, ratio = energy_in(heat, masks)
    best, share = reach.energy(masks), masks.mean(axis=(1, 2))
    # of each: the score, by chance, at best
    found = {
        "energy": (energy, share, best),
        "energy_ratio": (
            ratio,
            np.full(len(heat), UNIFORM),
            best / np.where(share > 0, share, np.nan),
        ),
        "pointing": (_mean_of(hits, hottest), hits.mean(axis=(1, 2)), hits.max(axis=(1, 2))),
        "iou_top": (_iou((heat >= top) & (heat > 0), masks), share, reach.iou_top(masks, TOP)),
        "iou_half": (
            _iou((heat >= HALF * highest) & (heat > 0), masks),
            share,
            reach.iou_half(masks, HALF),
        ),
    }
    unknown = ~np.isfinite(heat).all(axis=(1, 2)) | ~masks.any(axis=(1, 2))
    return {
        f"{name}{ending}": np.where(unknown, np.nan, values)
        for name, three in found.items()
        for ending, values in zip(("", *LIMITS), three, strict=True)
    }


def shortcuts(heat: Floats, lungs: Bools | None = None) -> Scores:
    """Energy where no disease of the lung is: `outside_lungs` (with masks of the lungs), `border`,
    and each corner.

    The corners are `corner_top_left` and so on: a marker lies in one of them, and the sum of all
    four would dilute it. Each region's energy also comes as `_ratio` to a uniform map's, which
    takes account of how much of the image the region is, and of maps too coarse to stay inside the
    lungs. Flags are raised on the ratios. What models find there: DeGrave 2021
    (doi:10.1038/s42256-021-00338-7).
    """
    size = heat.shape[1]
    edge, frame = round(CORNER * size), round(BORDER * size)
    inner, low, high = slice(frame, -frame), slice(edge), slice(size - edge, size)
    whole = _sum(heat)
    held = {"border": (whole - _sum(heat[:, inner, inner]), 1 - ((size - 2 * frame) / size) ** 2)}
    corners = {
        "top_left": (low, low),
        "top_right": (low, high),
        "bottom_left": (high, low),
        "bottom_right": (high, high),
    }
    for name, (rows, columns) in corners.items():
        held[f"corner_{name}"] = _sum(heat[:, rows, columns]), (edge / size) ** 2
    scores = {}
    if lungs is not None:
        outside = ~lungs & lungs.any(axis=(1, 2), keepdims=True)
        scores["outside_lungs"], scores["outside_lungs_ratio"] = energy_in(heat, outside)
    for name, (energy, area) in held.items():
        with np.errstate(invalid="ignore", divide="ignore"):
            scores[name] = energy / whole
            scores[f"{name}_ratio"] = scores[name] / area
    return scores


def exposure(energy: NDArray[np.float64], ratio: NDArray[np.float64]) -> NDArray[np.float64]:
    """How far above what chance can explain the energy in one region is, (n,): a mean above 0
    exposes the model.

    The contrast (r - 1) / (r + 1) of the ratio r to a uniform map is -1 without energy and 0 for
    the region's share of it. It says what the logarithm says, but of empty regions, too. The mean
    of r itself would lie above 1 for maps without any structure, since a blurred random map has its
    maximum at the border more often than inside. What is left of that is below a third of the
    contrast of a map that has all its energy in the region, which is taken off.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        area = np.nanmean(energy) / np.nanmean(ratio) if (energy > 0).any() else np.nan
    most = 0.0 if np.isnan(area) else (1 - area) / (1 + area)
    return np.asarray((ratio - UNIFORM) / (ratio + UNIFORM) - most / 3)


def flagged(p_adjusted: NDArray[np.float64]) -> Bools:
    """Whether a region where no disease is surely holds more energy than a uniform map would put
    there.

    `p_adjusted`: of the mean exposure of each region, class and model that was looked at, adjusted
    for how many they are (`holm`). NaN, where nothing could be tested, is not flagged.
    """
    return np.asarray(p_adjusted <= ERROR)


def energy_in(heat: Floats, regions: Bools) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The share of each map's heat that lies in its region, (b,), and its ratio to the region's
    share of the image.

    NaN where there is no heat or no region.
    """
    share = regions.mean(axis=(1, 2))
    with np.errstate(invalid="ignore", divide="ignore"):
        energy = _sum(np.where(regions, heat, np.float32(0))) / _sum(heat)
        return np.where(share > 0, energy, np.nan), energy / share


def _sum(heat: Floats) -> NDArray[np.float64]:
    """Of each image."""
    return np.asarray(heat.sum(axis=(1, 2), dtype=np.float64))


def _near(mask: Bools) -> Bools:
    """The mask and every pixel whose centre is within the tolerance of one of the mask's."""
    if not mask.any():
        return mask
    distance = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.asarray(distance <= TOLERANCE * len(mask))


def _mean_of(values: NDArray[np.float64], chosen: Bools) -> NDArray[np.float64]:
    """Mean of the chosen values of each image; 0 where none is."""
    return np.asarray((values * chosen).sum(axis=(1, 2)) / np.maximum(chosen.sum(axis=(1, 2)), 1))


def _iou(regions: Bools, masks: Bools) -> NDArray[np.float64]:
    both, either = (regions & masks).sum(axis=(1, 2)), (regions | masks).sum(axis=(1, 2))
    return np.asarray(both / np.maximum(either, 1))


# --- between folds --------------------------------------------------------------------------------


class FoldAgreement(NamedTuple):
    """Of the maps of several fold models: `mean` and `deviation` (n - 1), (b, h, w), and
    `spearman`, (b,).
    """

    mean: Floats
    deviation: Floats
    spearman: NDArray[np.float64]


def fold_agreement(maps: NDArray[np.floating[Any]], positive: bool) -> FoldAgreement:
    """Compare the signed maps (folds, b, h, w) that the models of one candidate give for the same
    images and class.

    The mean map is that of the ensemble that averages logits: exactly so where a map is linear in
    the logit, as CAMs are on a pooled linear head. `spearman` is the mean rank correlation of the
    evidence over all pairs of folds, pairs without contrast left out; NaN where none is left. Fewer
    than two folds have no deviation: NaN.
    """
    maps = np.asarray(maps, np.float32)
    folds = len(maps)
    nothing = np.full(maps.shape[1:], np.nan, np.float32)
    deviation = maps.std(axis=0, ddof=1) if folds > 1 else nothing
    heat = evidence(maps, positive)
    pairs = [spearman(heat[i], heat[j]) for i, j in combinations(range(folds), 2)]
    found = np.array(pairs).reshape(len(pairs), maps.shape[1])
    counted = np.isfinite(found).sum(axis=0)
    correlation = np.where(counted > 0, np.nansum(found, axis=0) / np.maximum(counted, 1), np.nan)
    return FoldAgreement(maps.mean(axis=0), deviation, correlation)
