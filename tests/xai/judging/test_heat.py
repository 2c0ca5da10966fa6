"""Maps lie where their cells are, and evidence is what speaks for the class."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from trainables.core.input_format import InputFormat
from trainables.sources.phantom import draw_phantom
from xai.judging.heat import evidence, mask_at, scaled, spearman, upsample


def test_evidence_drops_or_turns_what_is_negative() -> None:
    maps = np.array([[[-2.0, 0.0, 3.0]]], np.float16)
    assert evidence(maps, True).tolist() == [[[0, 0, 3]]]
    assert evidence(maps, False).tolist() == [[[2, 0, 3]]]
    assert evidence(maps, True).dtype == np.float32
    assert np.isnan(evidence(np.array([np.nan]), True))


def test_upsampling_keeps_a_value_at_the_centre_of_its_cell() -> None:
    assert upsample(np.array([[0.0, 1.0]]), 4)[0].tolist() == [0, 0.25, 0.75, 1]
    for row, column in [(1, 3), (3, 3), (5, 2)]:
        cell = np.zeros((7, 7), np.float32)
        cell[row, column] = 1
        heat = upsample(cell, 224)
        pixels = np.arange(224) + 0.5
        centre = [float(heat.sum(axis=axis) @ pixels / heat.sum()) for axis in (1, 0)]
        assert centre == pytest.approx([(row + 0.5) * 32, (column + 0.5) * 32], abs=1e-3)


def test_upsampling_takes_any_leading_axes_and_leaves_full_size_alone() -> None:
    maps = np.random.default_rng(0).normal(size=(2, 3, 5, 5)).astype(np.float32)
    assert upsample(maps, 20).shape == (2, 3, 20, 20)
    assert np.array_equal(upsample(maps, 20)[1, 2], upsample(maps[1, 2], 20))
    assert np.array_equal(upsample(maps, 5), maps)
    assert upsample(maps[:0], 20).shape == (0, 3, 20, 20)


def test_scaled_to_its_own_maximum() -> None:
    maps = np.array([[[0, 4.0]], [[0, 0]]], np.float32)
    assert scaled(maps).tolist() == [[[0, 1]], [[0, 0]]]


def test_masks_are_squeezed_as_the_images_are() -> None:
    mask = np.zeros((40, 80), np.uint8)
    mask[10:20, 40:60] = 255
    small = mask_at(mask, InputFormat(8))
    assert small.dtype == np.bool_
    assert np.argwhere(small).tolist() == [[2, 4], [2, 5], [3, 4], [3, 5]]
    drawn = draw_phantom(1, 3, 0, 192, 0, False).lungs
    assert np.array_equal(mask_at(drawn, InputFormat(192)), drawn > 0)
    assert mask_at(drawn, InputFormat(64)).mean() == pytest.approx((drawn > 0).mean(), abs=0.01)
    assert mask_at(drawn, InputFormat(300)).mean() == pytest.approx((drawn > 0).mean(), abs=0.01)


def test_rank_correlation_is_scipys_with_ties() -> None:
    rng = np.random.default_rng(0)
    first, second = np.maximum(rng.normal(size=(2, 6, 7, 7)), 0)
    expected = [spearmanr(a, b, axis=None).statistic for a, b in zip(first, second, strict=True)]
    assert spearman(first, second) == pytest.approx(expected)
    assert spearman(first, first**3) == pytest.approx(1)


def test_rank_correlation_without_contrast_is_unknown() -> None:
    maps = np.random.default_rng(0).random((3, 4, 4))
    other = maps.copy()
    other[0], other[1, 2, 2] = 5, np.inf
    assert np.isnan(spearman(maps, other)).tolist() == [True, True, False]
