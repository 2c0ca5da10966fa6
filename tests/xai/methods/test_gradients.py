"""Maps from input gradients: exact for a linear model, complete for any."""

import numpy as np

from tests.xai.planted import SIZE, images, linear, pooled
from xai.methods.classifier import Classifier
from xai.methods.gradients import integrated_gradients, smoothgrad

WEIGHTS = np.random.default_rng(7).normal(size=(SIZE, SIZE, 2)).astype(np.float32)
BOTH = np.array([[0, 1], [1, 0]], np.int32)


def test_integrated_gradients_of_a_linear_model_are_weight_times_pixel() -> None:
    pixels = images(2)
    maps = integrated_gradients(linear(WEIGHTS), pixels, BOTH, steps=3)
    expected = np.einsum("bhw,hwc->bchw", pixels[..., 0].astype(float), WEIGHTS)
    expected[1] = expected[1, ::-1]
    np.testing.assert_allclose(maps, expected, rtol=1e-4, atol=1e-3)
    assert maps.dtype == np.float32


def test_integrated_gradients_are_complete() -> None:
    classifier, pixels = Classifier(pooled(activation="tanh")), images(2, 16)
    maps = integrated_gradients(classifier, pixels, BOTH)
    rise = classifier.logits(pixels) - classifier.logits(np.zeros_like(pixels))
    np.testing.assert_allclose(
        maps.sum(axis=(2, 3)), np.take_along_axis(rise, BOTH, axis=1), rtol=1e-3
    )
    rough = integrated_gradients(classifier, pixels, BOTH, steps=1)
    assert np.abs(rough.sum(axis=(2, 3)) - maps.sum(axis=(2, 3))).max() > 1e-2


def test_smoothgrad_of_a_linear_model_is_its_weights() -> None:
    maps = smoothgrad(linear(WEIGHTS), images(2), BOTH, samples=2)
    np.testing.assert_allclose(maps[0], np.moveaxis(WEIGHTS, -1, 0), rtol=1e-5)
    np.testing.assert_array_equal(maps[1, ::-1], maps[0])


def test_smoothgrad_averages_over_noise_of_the_images_range() -> None:
    classifier, pixels, one = Classifier(pooled()), images(1, 16), np.array([[0]], np.int32)
    maps = smoothgrad(classifier, pixels, one, seed=4, samples=3)
    noise = np.random.default_rng(4).standard_normal((3, 16, 16, 1), dtype=np.float32)
    noisy = pixels + 0.15 * np.ptp(pixels) * noise
    expected = classifier.input_gradients(noisy, np.zeros((3, 1), np.int32)).mean(axis=0)[0, ..., 0]
    np.testing.assert_allclose(maps[0, 0], expected, rtol=1e-3, atol=1e-5)
    # A flat image has no range, and no noise: its plain gradient.
    flat = np.full((1, 16, 16, 1), 90, np.uint8)
    plain = classifier.input_gradients(flat, one)[..., 0]
    np.testing.assert_allclose(smoothgrad(classifier, flat, one), plain, rtol=1e-4, atol=1e-7)
