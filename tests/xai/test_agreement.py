"""A map that is the mask scores 1, one that knows nothing its area, and a shortcut is exposed."""

import numpy as np
import pytest

from tests.xai.trained import SIZE, trained
from trainables.phantom import draw_phantom
from xai.agreement import energy_in, flagged, fold_agreement, localisation, shortcuts
from xai.classifier import Classifier
from xai.heat import evidence, upsample
from xai.intervals import interval
from xai.methods import method_named

UNIFORM = np.ones((1, 100, 100), np.float32)


def square(top: int, left: int, edge: int, size: int = 100) -> np.ndarray:
    """A square mask in an image of its own."""
    mask = np.zeros((1, size, size), np.bool_)
    mask[0, top : top + edge, left : left + edge] = True
    return mask


# --- masks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["opacity", "lungs"])
def test_a_phantoms_mask_as_its_own_map_is_perfect(name: str) -> None:
    masks = np.array([getattr(draw_phantom(1, patient, 0, 64, 0, False), name) > 0 for patient in range(4)])
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
    assert found["pointing"] == pytest.approx(0.16 + 4 * 0.40 * 0.03, abs=0.002)  # and the tolerance around it


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


# --- shortcuts --------------------------------------------------------------------------------------------------------


def test_a_uniform_map_is_the_measure_of_shortcuts() -> None:
    lungs = square(20, 20, 50)
    found = shortcuts(UNIFORM, lungs)
    areas = {"outside_lungs": 0.75, "border": 0.36, "corner_top_left": 0.04, "corner_bottom_right": 0.04}
    for name, size in areas.items():
        assert found[name] == pytest.approx(size)
    ratios = [values for name, values in found.items() if name.endswith("_ratio")]
    assert len(ratios) == 6
    assert ratios == pytest.approx(np.ones((6, 1)))
    assert set(shortcuts(UNIFORM)) == {name for name in found if not name.startswith("outside_lungs")}


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


def test_flags_are_raised_above_a_uniform_map_and_never_for_the_unknown() -> None:
    assert flagged(np.array([0.5, 1.0, 1.1, np.nan])).tolist() == [False, False, True, False]
    lungs = square(20, 20, 50)
    lungs_only, nothing = lungs.astype(np.float32), 0 * UNIFORM
    assert not flagged(shortcuts(lungs_only, lungs)["outside_lungs_ratio"])
    assert flagged(shortcuts(1 - lungs_only, lungs)["outside_lungs_ratio"])
    assert not flagged(shortcuts(nothing, lungs)["outside_lungs_ratio"])
    assert np.isnan(shortcuts(UNIFORM, np.zeros_like(lungs))["outside_lungs"])


def test_energy_shares_add_up() -> None:
    heat = np.random.default_rng(0).random((5, 40, 40)).astype(np.float32)
    regions = heat > 0.7
    inside, ratio = energy_in(heat, regions)
    assert inside + energy_in(heat, ~regions)[0] == pytest.approx(1)
    assert ratio == pytest.approx(inside / regions.mean(axis=(1, 2)))


# --- folds ------------------------------------------------------------------------------------------------------------


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


# --- the proof --------------------------------------------------------------------------------------------------------


def heat_of(marked: bool) -> np.ndarray:
    pixels = trained(marked).pixels
    maps = method_named("gradcam").explain(
        Classifier(trained(marked).model), pixels, np.ones((len(pixels), 1), np.int32)
    )
    return upsample(evidence(maps[:, 0], True), SIZE)


def exposed(heat: np.ndarray, lungs: np.ndarray) -> set[str]:
    """The regions in which a model has more energy than chance, by the interval of its mean ratio."""
    ratios = {name: values for name, values in shortcuts(heat, lungs).items() if name.endswith("_ratio")}
    return {name for name, values in ratios.items() if flagged(interval(values, np.arange(len(heat)), 0).low)}


def test_an_honest_model_points_at_the_opacity() -> None:
    assert trained(False).accuracy > 0.9
    heat = heat_of(False)
    found = localisation(heat, trained(False).opacity)
    assert found["pointing"].mean() >= 0.8
    assert found["energy_ratio"].mean() > 3
    assert exposed(heat, trained(False).lungs) == set()


def test_a_model_that_learned_a_corner_marker_is_exposed() -> None:
    assert trained(True).accuracy > 0.9
    heat = heat_of(True)
    assert "corner_top_right_ratio" in exposed(heat, trained(True).lungs)
    assert flagged(shortcuts(heat)["corner_top_right_ratio"]).mean() > 0.9
    assert localisation(heat, trained(True).opacity)["pointing"].mean() < 0.3
