"""Which scores a heatmap gets, and what their columns are called.

outside_lungs, border, corners, …_ratio                   where no disease of the lung is (agreement.shortcuts)
<mask>_energy, _energy_ratio, _pointing, _iou_top, …      against each mask of the manifest (agreement.localisation),
                                                          each with …_chance and …_ceiling
deletion, insertion, drop, increase, …_random, …          what the model says (faithfulness), with …_curve
"""

from typing import Any

from numpy.typing import NDArray

from xai import agreement
from xai.faithfulness import Predict, faithfulness
from xai.heat import Bools, Floats, evidence, upsample

Columns = dict[str, NDArray[Any]]


def agreement_scores(maps: Floats, positive: bool, masks: dict[str, Bools], size: int) -> Columns:
    """Scores (n,) of maps (n, h, w) against the anatomy and every mask, (n, size, size)."""
    maps = evidence(maps, positive)
    heat = upsample(maps, size)
    found: Columns = dict(agreement.shortcuts(heat, masks.get("lungs")))
    for name, mask in masks.items():
        found |= {f"{name}_{score}": values for score, values in agreement.localisation(heat, mask, maps).items()}
    return found


def faithfulness_scores(
    predict: Predict, images: NDArray[Any], maps: Floats, positive: bool, targets: NDArray[Any], seed: int
) -> Columns:
    """Scores (n,) and curves (n, steps + 1) of one map per image."""
    judged = faithfulness(predict, images, maps, positive, targets, seed)
    return dict(judged.scores) | {f"{name}_curve": values for name, values in judged.curves.items()}
