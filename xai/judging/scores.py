"""Which scores a heatmap gets, and what their columns are called.

outside_lungs, border, corners, …_ratio           where no disease of the lung is
                                                  (agreement.shortcuts)
<mask>_energy, _energy_ratio, _pointing,          against each mask of the manifest, each with
_iou_top, …                                       …_chance and …_ceiling (agreement.localisation)
deletion, insertion, drop, increase, …_random, …  what the model says (faithfulness), with …_curve
"""

from functools import partial
from typing import Any

from numpy.typing import NDArray

from xai.judging import agreement
from xai.judging.faithfulness import Predict, faithfulness
from xai.judging.heat import Bools, Floats, evidence, upsample
from xai.methods.placement import Placement

Columns = dict[str, NDArray[Any]]


def agreement_scores(
    maps: Floats,
    positive: bool,
    masks: dict[str, Bools],
    size: int,
    placement: Placement | None = None,
) -> Columns:
    """Scores (n,) of maps (n, h, w), cells at `placement`, against the anatomy and every mask, (n,
    size, size).
    """
    enlarge = partial(upsample, placement=placement)
    maps = evidence(maps, positive)
    heat = enlarge(maps, size)
    found: Columns = dict(agreement.shortcuts(heat, masks.get("lungs")))
    for name, mask in masks.items():
        scores = agreement.localisation(heat, mask, maps, enlarge)
        found |= {f"{name}_{score}": values for score, values in scores.items()}
    return found


def faithfulness_scores(
    predict: Predict,
    images: NDArray[Any],
    maps: Floats,
    positive: bool,
    targets: NDArray[Any],
    seed: int,
    placement: Placement | None = None,
) -> Columns:
    """Scores (n,) and curves (n, steps + 1) of one map per image."""
    judged = faithfulness(predict, images, maps, positive, targets, seed, placement=placement)
    return dict(judged.scores) | {f"{name}_curve": values for name, values in judged.curves.items()}
