"""A map that is the mask scores 1, one that knows nothing its area, and a shortcut is exposed."""

import cv2
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from trainables.sources.phantom import draw_phantom
from xai.judging.agreement import (
    LIMITS,
    energy_in,
    exposure,
    flagged,
    fold_agreement,
    localisation,
    shortcuts,
)
from xai.judging.heat import evidence, upsample
from xai.judging.intervals import holm, p_above_zero

UNIFORM = np.ones((1, 100, 100), np.float32)


def square(top: int, left: int, edge: int, size: int = 100) -> np.ndarray:
    """A square mask in an image of its own."""
    mask = np.zeros((1, size, size), np.bool_)
    mask[0, top : top + edge, left : left + edge] = True
    return mask


# --- masks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["opacity", "lungs"])
def test_a_phantoms_mask_as_its_own_map_is_perfect(name: str) -> None:
    masks = np.array(
        [getattr(draw_phantom(1, patient, 0, 64, 0, False), name) > 0 for patient in range(4)]
    )
    found = localisation(masks.astype(np.float32), masks)
    for score in ("energy", "pointing", "iou_top", "iou_half"):
        assert found[score].tolist() == [1, 1, 1, 1]
    assert found["energy_ratio"] == pytest.approx(1 / masks.mean(axis=(1, 2)))


def test_a_uniform_map_scores_the_area() -> None:
    mask = square(30, 30, 40)
    found = localisation(UNIFORM, mask)
    for score in ("energy", "iou_top", "iou_half"):
        assert found[score] == pytest.approx(0.16)
    assert found["energy_ratio"] == pytest.approx(1)
    # And the tolerance around it.
    assert found["pointing"] == pytest.approx(0.16 + 4 * 0.40 * 0.03, abs=0.002)


def test_the_maximum_may_lie_a_little_beside_the_mask() -> None:
    mask = square(30, 30, 40)
    for column, hit in [(69, 1), (72, 1), (73, 0)]:
        heat = np.zeros((1, 100, 100), np.float32)
        heat[0, 50, column] = 1
        assert localisation(heat, mask)["pointing"] == hit
    heat[0, 50, 50] = 1  # a second, equal maximum
    assert localisation(heat, mask)["pointing"] == 0.5


def test_energy_and_overlap_by_hand() -> None:
    mask, heat = square(0, 0, 50), np.zeros((1, 100, 100), np.float32)
    heat[0, :50, 40:60] = 1  # 10 of 20 columns inside
    heat[0, :50, 60:70] = 0.4
    found = localisation(heat, mask)
    assert found["energy"] == pytest.approx(500 / 1200)
    assert found["iou_half"] == pytest.approx(500 / (2500 + 500))
    assert found["iou_top"] == pytest.approx(500 / (2500 + 1000))


def test_the_hottest_fifth_is_a_fifth() -> None:
    heat = np.arange(10000, dtype=np.float32).reshape(1, 100, 100)
    assert localisation(heat, heat >= 8000)["iou_top"] == 1
    assert localisation(heat, heat >= 5000)["iou_half"] == pytest.approx(1, abs=1e-3)


def test_a_map_without_evidence_points_nowhere() -> None:
    found = localisation(0 * UNIFORM, square(30, 30, 40))
    assert [found[score].item() for score in ("pointing", "iou_top", "iou_half")] == [0, 0, 0]
    assert np.isnan([found["energy"], found["energy_ratio"]]).all()


def test_what_cannot_be_judged_is_nan() -> None:
    heat, masks = np.repeat(UNIFORM, 3, axis=0), np.repeat(square(30, 30, 40), 3, axis=0)
    heat[0, 5, 5], masks[1] = np.nan, False
    for values in localisation(heat, masks).values():
        assert np.isnan(values).tolist() == [True, True, False]


# --- what a map of its size can reach -------------------------------------------------------------


def judged(maps: np.ndarray, mask: np.ndarray) -> dict[str, np.ndarray]:
    """The scores of maps (n, h, w) on one mask (1, s, s)."""
    return localisation(upsample(maps, mask.shape[1]), np.repeat(mask, len(maps), axis=0), maps)


def single(cells: int) -> np.ndarray:
    """Every map with one hot cell."""
    return np.eye(cells * cells, dtype=np.float32).reshape(-1, cells, cells)


@pytest.mark.parametrize("cells", [1, 2, 3, 5, 12])
@pytest.mark.parametrize("kind", ["small", "large", "scattered", "edge"])
def test_no_map_exceeds_its_ceiling(cells: int, kind: str) -> None:
    rng = np.random.default_rng(cells)
    mask = {
        "small": square(7, 10, 4, 24),
        "large": ~square(3, 3, 9, 24),
        "scattered": rng.random((1, 24, 24)) < 0.05,
        "edge": square(0, 12, 3, 24),
    }[kind]
    dense = rng.random((400, cells, cells))
    sparse = dense * (rng.random(dense.shape) < 0.15)
    ideal = cv2.resize(mask[0].astype(np.float32), (cells, cells), interpolation=cv2.INTER_AREA)[
        None
    ]
    tried = np.concatenate(
        [dense, dense**8, sparse, np.round(2 * dense), single(cells), ideal]
    ).astype(np.float32)
    found = judged(tried[tried.any(axis=(1, 2))], mask)
    for score in ("energy", "energy_ratio", "pointing", "iou_top", "iou_half"):
        assert (found[score] <= found[f"{score}_ceiling"] + 1e-6).all()
        assert (found[f"{score}_ceiling"] >= found[f"{score}_chance"] - 1e-6).all()


@pytest.mark.parametrize("cells", [1, 3, 12])
def test_the_best_map_reaches_the_ceiling_and_a_uniform_one_is_chance(cells: int) -> None:
    mask = square(7, 10, 4, 24)
    found, uniform = (
        judged(single(cells), mask),
        judged(np.ones((1, cells, cells), np.float32), mask),
    )
    for score in ("energy", "energy_ratio", "pointing"):
        assert found[score].max() == pytest.approx(found[f"{score}_ceiling"][0])
    assert found["pointing"].mean() == pytest.approx(found["pointing_chance"][0])
    for score in ("energy", "energy_ratio", "pointing", "iou_top", "iou_half"):
        assert uniform[score] == pytest.approx(uniform[f"{score}_chance"])


def test_coarse_maps_cannot_point_at_small_opacities_and_fine_ones_can() -> None:
    masks = np.array(
        [draw_phantom(1, patient, 0, 96, 0, False).opacity > 0 for patient in range(12)]
    )
    ceilings = {}
    for cells in (3, 12, 96):
        maps = np.ones((len(masks), cells, cells), np.float32)
        found = localisation(upsample(maps, 96), masks, maps)
        ceilings[cells] = {
            name: found[f"{name}_ceiling"].mean() for name in ("pointing", "energy", "iou_half")
        }
    assert ceilings[3]["pointing"] < 0.5
    assert ceilings[12]["pointing"] > 0.9
    assert ceilings[3]["energy"] < ceilings[12]["energy"] < 1
    assert ceilings[3]["iou_half"] < 0.7
    assert list(ceilings[96].values()) == [1, 1, 1]


def test_limits_are_unknown_where_scores_are() -> None:
    found = localisation(0 * UNIFORM, np.zeros_like(square(0, 0, 1)))
    assert all(np.isnan(found[f"pointing{ending}"]).all() for ending in LIMITS)


# --- shortcuts ------------------------------------------------------------------------------------


def test_a_uniform_map_is_the_measure_of_shortcuts() -> None:
    lungs = square(20, 20, 50)
    found = shortcuts(UNIFORM, lungs)
    areas = {
        "outside_lungs": 0.75,
        "border": 0.36,
        "corner_top_left": 0.04,
        "corner_bottom_right": 0.04,
    }
    for name, size in areas.items():
        assert found[name] == pytest.approx(size)
    ratios = [values for name, values in found.items() if name.endswith("_ratio")]
    assert len(ratios) == 6
    assert ratios == pytest.approx(np.ones((6, 1)))
    assert set(shortcuts(UNIFORM)) == {
        name for name in found if not name.startswith("outside_lungs")
    }


@pytest.mark.parametrize(
    ("corner", "row", "column"),
    [("top_left", 2, 2), ("top_right", 2, 97), ("bottom_left", 97, 2), ("bottom_right", 97, 97)],
)
def test_each_corner_is_told_from_the_others(corner: str, row: int, column: int) -> None:
    heat = np.zeros((1, 100, 100), np.float32)
    heat[0, row, column] = 2
    found = shortcuts(heat)
    assert {name for name, value in found.items() if value > 0} == {
        f"corner_{corner}", f"corner_{corner}_ratio", "border", "border_ratio"
    }  # fmt: skip
    assert found[f"corner_{corner}_ratio"] == pytest.approx(25)


def test_exposure_is_above_0_where_the_region_has_much_and_unknown_where_nothing_is_known() -> None:
    lungs = square(20, 20, 50)
    inside = lungs.astype(np.float32)
    for heat, exposed in ((1 - inside, True), (UNIFORM, False), (inside, False)):
        found = shortcuts(heat, lungs)
        assert (exposure(found["outside_lungs"], found["outside_lungs_ratio"]) > 0) == exposed
    found = shortcuts(0 * UNIFORM, lungs)
    assert np.isnan(exposure(found["outside_lungs"], found["outside_lungs_ratio"]))
    assert np.isnan(shortcuts(UNIFORM, np.zeros_like(lungs))["outside_lungs"])
    assert flagged(np.array([0.01, 0.05, 0.06, np.nan])).tolist() == [True, True, False, False]


def structureless(kind: str, count: int, cells: int, rng: np.random.Generator) -> np.ndarray:
    """Maps that prefer no place: independent cells, evenly or widely spread, or a field cut out of
    a larger one.
    """
    if kind == "skewed":
        return rng.lognormal(0, 2, (count, cells, cells)).astype(np.float32)
    margin = 4 if kind == "smooth" else 0
    edge = cells + 2 * margin
    maps = rng.normal(size=(count, edge, edge)).astype(np.float32)
    if kind == "smooth":
        maps = gaussian_filter(maps, (0, 1, 1))[:, margin : edge - margin, margin : edge - margin]
    return maps


@pytest.mark.parametrize(
    ("kind", "cells", "groups", "images"),
    [
        ("noise", 3, 8, 1),
        ("noise", 12, 60, 1),
        ("smooth", 3, 15, 3),
        ("smooth", 7, 60, 1),
        ("skewed", 3, 15, 1),
    ],
)
def test_maps_without_structure_are_seldom_flagged(
    kind: str, cells: int, groups: int, images: int
) -> None:
    """Of 40 reports of three classes each, no more have a false flag than 5 % would give once in a
    thousand times.
    """
    rng, reports, classes = np.random.default_rng(7), 40, 3
    maps = structureless(kind, reports * classes * groups * images, cells, rng)
    if images > 1:  # of one group alike
        maps = maps + 2 * np.repeat(maps[::images], images, axis=0)
    found = shortcuts(upsample(evidence(maps, True), 24))
    names = np.repeat(np.arange(groups), images)
    p = []
    for name in [name for name in found if f"{name}_ratio" in found]:
        energy, ratio = (found[each].reshape(-1, len(names)) for each in (name, f"{name}_ratio"))
        p.append(
            [
                p_above_zero(exposure(*of_class), names)
                for of_class in zip(energy, ratio, strict=True)
            ]
        )
    by_report = (
        np.array(p).reshape(len(p), reports, classes).transpose(1, 0, 2).reshape(reports, -1)
    )
    assert sum(flagged(holm(each)).any() for each in by_report) <= 7


def test_energy_shares_add_up() -> None:
    heat = np.random.default_rng(0).random((5, 40, 40)).astype(np.float32)
    regions = heat > 0.7
    inside, ratio = energy_in(heat, regions)
    assert inside + energy_in(heat, ~regions)[0] == pytest.approx(1)
    assert ratio == pytest.approx(inside / regions.mean(axis=(1, 2)))


# --- folds ----------------------------------------------------------------------------------------


def test_folds_that_agree_and_folds_that_do_not() -> None:
    rng = np.random.default_rng(0)
    maps = rng.random((4, 7, 7)).astype(np.float32)
    same = fold_agreement(np.stack([maps, 2 * maps, 3 * maps]), True)
    assert same.spearman == pytest.approx(1)
    assert same.mean == pytest.approx(2 * maps)
    assert same.deviation == pytest.approx(maps)  # of 1, 2, 3
    assert fold_agreement(np.stack([maps, 1 - maps]), True).spearman == pytest.approx(-1)
    unrelated = fold_agreement(rng.random((5, 200, 7, 7)), True)
    assert unrelated.spearman.mean() == pytest.approx(0, abs=0.02)


def test_folds_are_compared_by_their_evidence() -> None:
    first = np.random.default_rng(0).normal(size=(1, 7, 7)).astype(np.float32)
    assert fold_agreement(np.stack([first, -first]), False).spearman == pytest.approx(1)
    assert fold_agreement(np.stack([first, -first]), True).spearman < -0.5


def test_a_fold_without_contrast_is_left_out() -> None:
    maps = np.random.default_rng(0).random((1, 7, 7)).astype(np.float32)
    assert fold_agreement(np.stack([maps, 0 * maps, maps]), True).spearman == pytest.approx(1)
    assert np.isnan(fold_agreement(np.stack([maps, 0 * maps]), True).spearman)
    alone = fold_agreement(maps[None], True)
    assert np.isnan(alone.spearman).all()
    assert np.isnan(alone.deviation).all()
    assert np.array_equal(alone.mean, maps)
