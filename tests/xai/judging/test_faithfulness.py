"""Deletion, insertion, drop and increase against models whose answer can be written down."""

import numpy as np
import pytest

from xai.judging.faithfulness import area, blurred, faithfulness, surrogate
from xai.judging.heat import upsample

EDGE, LEVEL = 16, 200
#: A quarter of the pixels, no two of them neighbours: blurring changes each.
PLANTED = np.zeros((EDGE, EDGE), np.bool_)
PLANTED[::2, ::2] = True
TARGET = np.zeros(1, np.int32)


def images(count: int = 1) -> np.ndarray:
    """Dark images with bright planted pixels; a little of everything else, so that no two are the
    same.
    """
    pixels = np.random.default_rng(0).integers(0, 9, (count, EDGE, EDGE, 1), np.uint8)
    pixels[:, PLANTED] = LEVEL
    return pixels


def planted_left(pixels: np.ndarray) -> np.ndarray:
    """A model that returns the share of planted pixels which are as they were: (b, 1)."""
    return (np.abs(pixels[:, PLANTED] - LEVEL) < 0.5).mean(axis=(1, 2))[:, None]


def as_map(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float32)[None]


# --- closed forms ---------------------------------------------------------------------------------


def test_a_perfect_map_has_the_areas_of_the_closed_form() -> None:
    found = faithfulness(planted_left, images(), as_map(PLANTED), True, TARGET, 0)
    assert found.curves["deletion"][0].tolist() == [1, 0.75, 0.5, 0.25] + 13 * [0]
    assert found.curves["insertion"][0].tolist() == [0, 0.25, 0.5, 0.75] + 13 * [1]
    assert found.scores["deletion"] == 1 / 8
    assert found.scores["insertion"] == 7 / 8


def test_the_opposite_map_is_the_worst() -> None:
    # Without evidence, and with evidence against.
    for opposite in (
        as_map(~PLANTED),
        -as_map(PLANTED),
    ):
        found = faithfulness(planted_left, images(), opposite, True, TARGET, 0)
        assert found.scores["deletion"] == 7 / 8
        assert found.scores["insertion"] == 1 / 8


def test_random_maps_lie_on_the_diagonal() -> None:
    count = 30
    maps = np.repeat(as_map(PLANTED), count, axis=0)
    found = faithfulness(planted_left, images(count), maps, True, np.zeros(count, np.int32), 0)
    diagonal = np.linspace(1, 0, 17)
    assert found.curves["deletion_random"].mean(axis=0) == pytest.approx(diagonal, abs=0.04)
    assert found.curves["insertion_random"].mean(axis=0) == pytest.approx(diagonal[::-1], abs=0.04)
    assert (found.scores["deletion"] < found.scores["deletion_random"] - 0.3).all()


def test_a_uniform_map_knows_no_more_than_chance() -> None:
    rows = np.zeros_like(PLANTED)
    rows[:4] = True  # what an order by position would find first

    def model(pixels: np.ndarray) -> np.ndarray:
        return pixels[:, rows].mean(axis=(1, 2))[:, None]

    uniform = np.ones((20, 4, 4), np.float32)
    pixels = np.where(rows[..., None], 100, np.arange(20, dtype=np.float32)[:, None, None, None])
    found = faithfulness(model, pixels, uniform, True, np.zeros(20, np.int32), 0)
    assert found.scores["deletion"].mean() == pytest.approx(50, abs=3)


def test_drop_and_increase_follow_their_definition() -> None:
    heat = np.full((EDGE, EDGE), 1.0)
    heat[:, : EDGE // 2] = 4  # scaled: 0.25 and 1, on average 0.625
    pixels = np.full((1, EDGE, EDGE, 1), 100, np.uint8)

    def bright(values: np.ndarray) -> np.ndarray:
        return values.mean(axis=(1, 2)) / 200

    found = faithfulness(bright, pixels, as_map(heat), True, TARGET, 0)
    assert found.scores["drop"] == pytest.approx(1 - 0.625)
    assert found.scores["increase"] == 0
    assert found.scores["drop_random"] == pytest.approx(1 - 0.625)  # the same values elsewhere
    found = faithfulness(lambda values: 1 - bright(values), pixels, as_map(heat), True, TARGET, 0)
    assert (found.scores["drop"], found.scores["increase"]) == (0, 1)


def test_the_probability_is_that_of_the_explained_class() -> None:
    def model(pixels: np.ndarray) -> np.ndarray:
        left = planted_left(pixels)
        return np.concatenate([left, 1 - left], axis=1)

    maps = np.repeat(as_map(PLANTED), 2, axis=0)
    found = faithfulness(model, images(2), maps, True, np.array([0, 1], np.int32), 0)
    assert found.scores["deletion"].tolist() == [1 / 8, 7 / 8]


def test_area_of_a_straight_line() -> None:
    assert area(np.linspace(1, 0, 9, dtype=np.float32)[None]) == 0.5


def test_blurring_keeps_brightness_and_shape() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    soft = blurred(pixels)
    assert soft.shape == pixels.shape
    assert soft.mean(axis=(1, 2)) == pytest.approx(pixels.mean(axis=(1, 2)), abs=3)
    assert (soft.std(axis=(1, 2)) < 0.8 * pixels.std(axis=(1, 2))).all()
    flat = np.full((1, 32, 32, 1), 77, np.float32)
    assert blurred(flat) == pytest.approx(flat)


# --- what is random -------------------------------------------------------------------------------


def neighbours(maps: np.ndarray) -> float:
    """Correlation of horizontal neighbours."""
    return float(np.corrcoef(maps[..., 1:].ravel(), maps[..., :-1].ravel())[0, 1])


def test_a_surrogate_has_the_values_and_the_smoothness_but_not_the_place() -> None:
    rng = np.random.default_rng(0)
    smooth = upsample(rng.normal(size=(30, 6, 6)), 24)
    found = np.array([surrogate(one, rng) for one in smooth])
    assert np.array_equal(np.sort(found.reshape(30, -1)), np.sort(smooth.reshape(30, -1)))
    assert neighbours(found) == pytest.approx(neighbours(smooth), abs=0.05)
    shuffled = rng.permuted(smooth.reshape(30, -1), axis=1).reshape(smooth.shape)
    assert abs(neighbours(shuffled)) < 0.05  # what the smoothness is worth
    assert abs(np.corrcoef(found.ravel(), smooth.ravel())[0, 1]) < 0.1
    constant = np.full((7, 7), 2, np.float32)
    assert np.array_equal(surrogate(constant, rng), constant)


def test_chance_depends_on_seed_and_image_and_not_on_the_batch() -> None:
    pixels, maps = images(6), np.random.default_rng(1).random((6, EDGE, EDGE)).astype(np.float32)
    targets = np.zeros(6, np.int32)
    whole = faithfulness(planted_left, pixels, maps, True, targets, 5)
    part = faithfulness(
        planted_left, pixels[2:4].astype(np.float32), maps[2:4], True, targets[2:4], 5
    )
    for name, values in whole.scores.items():
        assert np.array_equal(values[2:4], part.scores[name])
    other = faithfulness(planted_left, pixels, maps, True, targets, 6)
    assert np.array_equal(whole.scores["deletion"], other.scores["deletion"])
    for name in ("deletion_random", "deletion_blurred_random"):
        assert len(np.unique(whole.scores[name])) > 3
        assert not np.array_equal(whole.scores[name], other.scores[name])


def test_the_cost_is_known() -> None:
    sizes = []

    def model(pixels: np.ndarray) -> np.ndarray:
        assert pixels.dtype == np.float32
        sizes.append(len(pixels))
        return planted_left(pixels)

    found = faithfulness(
        model, images(3), np.repeat(as_map(PLANTED), 3, 0), True, np.zeros(3, np.int32), 0, steps=8
    )
    assert sizes == 6 * 8 * [3]
    assert found.curves["insertion_blurred_random"].shape == (3, 9)


def test_a_map_that_is_not_finite_has_no_scores() -> None:
    maps = np.repeat(as_map(PLANTED), 2, axis=0)
    maps[0, 3, 3] = np.nan
    found = faithfulness(planted_left, images(2), maps, True, np.zeros(2, np.int32), 0)
    for values in (*found.scores.values(), *found.curves.values()):
        assert np.isnan(values[0]).all()
        assert np.isfinite(values[1]).all()
