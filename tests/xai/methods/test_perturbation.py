"""Hiding parts of an image: exact for a linear model, and at the right place."""

import numpy as np

from tests.xai.planted import SIZE, images, linear, square
from xai.methods.perturbation import (
    CELLS,
    _rise_masks,
    in_batches,
    masked_logits,
    occlusion,
    resized,
    rise,
)

WEIGHTS = np.random.default_rng(7).normal(size=(SIZE, SIZE, 2)).astype(np.float32)
BOTH = np.array([[0, 1], [1, 0]], np.int32)


def test_occlusion_of_a_linear_model_is_what_the_patch_held() -> None:
    pixels = images(2)
    maps = occlusion(linear(WEIGHTS, (5.0, -3.0)), pixels, BOTH)
    assert (maps.shape, maps.dtype) == ((2, 2, CELLS, CELLS), np.float32)
    grey = pixels[..., 0].astype(float)
    held = (grey - grey.mean(axis=(1, 2), keepdims=True))[..., None] * WEIGHTS
    # 28 pixels, 14 cells of 2: the patch of 4 about cell 5 is pixels 9 to 12, that of the corner is
    # cut to 3.
    np.testing.assert_allclose(maps[0, 1, 5, 6], held[0, 9:13, 11:15, 1].sum(), rtol=1e-3)
    np.testing.assert_allclose(maps[1, 0, 0, 13], held[1, :3, 25:, 1].sum(), rtol=1e-3)


def test_occlusion_does_with_cells_that_are_no_whole_pixels() -> None:
    maps = occlusion(linear(square(slice(4, 8), slice(20, 24))), bright(), np.array([[1]]), cells=5)
    # Cells of 5.6 pixels: those hiding rows 0 to 7 and 3 to 13, columns 14 to 24 and 20 to 27 hide
    # the square.
    whole = 16 * 0.01 * (250 - bright().mean())
    np.testing.assert_allclose(
        maps[0, 0], whole * np.outer([1, 1, 0, 0, 0], [0, 0, 0, 1, 1]), atol=1e-3 * whole
    )


def bright() -> np.ndarray:
    """One image, bright where `square(4:8, 20:24)` looks and in another place."""
    pixels = np.full((1, SIZE, SIZE, 1), 60, np.uint8)
    pixels[0, 4:8, 20:24] = pixels[0, 20:24, 4:8] = 250
    return pixels


def test_rise_finds_the_pixels_that_count() -> None:
    classifier = linear(square(slice(4, 8), slice(20, 24)), (100.0, 100.0))
    maps = rise(classifier, bright(), np.array([[1, 0]]), masks=600)
    assert (maps.shape, maps.dtype) == ((1, 2, SIZE, SIZE), np.float32)
    row, column = np.unravel_index(maps[0, 0].argmax(), (SIZE, SIZE))
    assert 3 <= row <= 8
    assert 19 <= column <= 24
    np.testing.assert_allclose(maps[0, 1], -maps[0, 0], atol=1e-4)
    # Far from the square, masks tell nothing: about 0, whatever the logit's offset.
    assert np.abs(maps[0, 0, 14:]).max() < 0.25 * maps[0, 0].max()


def test_rise_of_a_linear_model_is_the_masks_covariance_with_its_logit() -> None:
    pixels = images(1)
    maps = rise(linear(WEIGHTS), pixels, np.array([[1]]), seed=2, masks=50)
    masks = np.concatenate(list(_rise_masks(np.random.default_rng(2), 50, (SIZE, SIZE)))).astype(
        float
    )
    grey = pixels[0, ..., 0].astype(float)
    logits = (masks * (grey - grey.mean()) * WEIGHTS[..., 1]).sum(axis=(1, 2))
    expected = np.tensordot(logits - logits.mean(), masks, axes=1) / (50 * 0.5)
    np.testing.assert_allclose(maps[0, 0], expected, rtol=1e-2, atol=1e-3 * np.abs(expected).max())


def test_rise_masks_show_half_of_the_image_smoothly_and_everywhere() -> None:
    masks = np.concatenate(list(_rise_masks(np.random.default_rng(0), 400, (30, 41))))
    assert (masks.shape, masks.dtype) == ((400, 30, 41), np.float32)
    assert (masks.min(), masks.max()) == (0, 1)
    assert np.abs(masks.mean(axis=0) - 0.5).max() < 0.12
    # From 0 to 1 over a cell of 5 pixels.
    assert np.abs(np.diff(masks, axis=1)).max() <= 1 / 5 + 1e-6


def test_masked_logits_hide_behind_the_mean_colour() -> None:
    classifier, (image,) = linear(WEIGHTS), images(1)
    masks = np.stack([np.ones((SIZE, SIZE)), np.zeros((SIZE, SIZE)), np.full((SIZE, SIZE), 0.5)])
    mean = np.full_like(image, 0, np.float32) + image.mean()
    shown, hidden, half = masked_logits(classifier, image, in_batches(masks))
    np.testing.assert_allclose(shown, classifier.logits(image[None])[0], rtol=1e-4)
    np.testing.assert_allclose(hidden, classifier.logits(mean[None])[0], rtol=1e-4)
    np.testing.assert_allclose(half, (shown + hidden) / 2, rtol=1e-3)
    assert [len(batch) for batch in in_batches(np.zeros((70, 2, 2)))] == [32, 32, 6]
    np.testing.assert_array_equal(resized(np.ones((2, 3, 4)), (6, 9)), np.ones((2, 6, 9)))
