"""Each change to images against another implementation, and what augmentation draws."""

from collections.abc import Callable

import cv2
import numpy as np
import pytest
import tensorflow as tf
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageOps
from scipy import ndimage

from trainables.core.training_sections import STRENGTHS, Augmentation
from trainables.training import image_operations as ops
from trainables.training.augmentation import Augment, _one_of_all

Images = NDArray[np.float32]


def pictures(number: int = 1, size: int = 40, channels: int = 1) -> Images:
    """Smooth, with some noise, uneven in brightness."""
    rng = np.random.default_rng(3)
    rough = rng.uniform(0, 255, (number, size, size, channels))
    smooth = ndimage.gaussian_filter(rough, (0, 3, 3, 0))
    low, high = smooth.min(), smooth.max()
    whole = (smooth - low) / (high - low) * 180 + 20 + rng.normal(0, 2, rough.shape)
    return np.rint(whole.clip(0, 255)).astype(np.float32)


def numbers(value: float, count: int = 1) -> tf.Tensor:
    return tf.fill((count,), tf.constant(value, tf.float32))


def by_pillow(change: Callable[[Image.Image], Image.Image], image: Images) -> NDArray[np.float64]:
    grey = Image.fromarray(image[..., 0].astype(np.uint8))
    return np.asarray(change(grey), np.float64)


@pytest.mark.parametrize(
    ("ours", "pillows"),
    [
        (ops.equalize, ImageOps.equalize),
        (ops.auto_contrast, ImageOps.autocontrast),
        (lambda x: ops.solarize(x, numbers(100.0)), lambda x: ImageOps.solarize(x, 100)),
        (lambda x: ops.posterize(x, numbers(3.0)), lambda x: ImageOps.posterize(x, 3)),
        (
            lambda x: ops.blend(x, ops.sharpness_base(x), numbers(1.9)),
            lambda x: ImageEnhance.Sharpness(x).enhance(1.9),
        ),
        (lambda x: ops.contrast(x, numbers(0.3)), lambda x: ImageEnhance.Contrast(x).enhance(0.3)),
    ],
)
def test_what_randaugment_does_is_what_pillow_does(
    ours: Callable[[tf.Tensor], tf.Tensor], pillows: Callable[[Image.Image], Image.Image]
) -> None:
    (image,) = pictures(size=256)
    found = ours(tf.constant(image[None])).numpy()[0, ..., 0]
    assert np.abs(found - by_pillow(pillows, image)).max() <= 2.5  # Pillow rounds on its way


@pytest.mark.parametrize("size", [1024, 1001])
def test_local_equalization_is_what_opencv_does(size: int) -> None:
    images = pictures(2, size)
    found = ops.local_equalization(tf.constant(images)).numpy()
    clahe = cv2.createCLAHE(clipLimit=4.0, tileGridSize=(8, 8))
    for image, ours in zip(images, found, strict=True):
        theirs = clahe.apply(image[..., 0].astype(np.uint8)).astype(np.float64)
        assert np.abs(ours[..., 0] - theirs).mean() < 2  # which counts in whole pixels
        assert np.abs(ours[..., 0] - image[..., 0]).mean() > 10


@pytest.mark.parametrize("ways", [ops._counted, ops._multiplied])
def test_both_ways_to_count_levels_are_numpys(ways: Callable[[tf.Tensor], tf.Tensor]) -> None:
    levels = np.random.default_rng(0).integers(0, 256, (3, 999)).astype(np.int32)
    expected = [np.bincount(row, minlength=256) for row in levels]
    np.testing.assert_array_equal(ways(tf.constant(levels)), expected)


def test_blur_is_scipys_inside_and_keeps_a_blank_image() -> None:
    images = pictures(2, 48)
    found = ops.blur(tf.constant(images), tf.constant([0.0, 1.7])).numpy()
    np.testing.assert_allclose(found[0], images[0], atol=1e-4)
    theirs = ndimage.gaussian_filter(images[1, ..., 0], 1.7, truncate=8)
    np.testing.assert_allclose(found[1, 12:-12, 12:-12, 0], theirs[12:-12, 12:-12], atol=2e-3)
    blank = ops.blur(tf.fill((1, 16, 16, 1), 90.0), numbers(4.0)).numpy()
    np.testing.assert_allclose(blank, 90, rtol=1e-5)


@pytest.mark.parametrize("fill", ["constant", "reflect"])
def test_moves_are_scipys(fill: str) -> None:
    """About the centre, content to the right and down, turned counter-clockwise."""
    (image,) = pictures(size=41)
    turn, shear, shift = 0.3, (0.2, -0.1), (0.1, -0.2)
    moved = ops.matrices(numbers(turn), tuple(map(numbers, shear)), tuple(map(numbers, shift)))
    found = ops.affine(tf.constant(image[None]), moved, fill).numpy()[0, ..., 0]
    cosine, sine = np.cos(turn), np.sin(turn)
    # x to the right, y down
    matrix = np.array([[1, shear[0]], [shear[1], 1]]) @ [[cosine, sine], [-sine, cosine]]
    back = np.linalg.inv(matrix)[::-1, ::-1]  # SciPy has rows first
    centre, offset = np.full(2, 20.0), np.array(shift[::-1]) * 41
    mode = "grid-constant" if fill == "constant" else "reflect"
    theirs = ndimage.affine_transform(
        image[..., 0], back, centre - back @ (centre + offset), order=1, mode=mode
    )
    # How the last pixel fades into what lies outside differs.
    assert np.mean(np.abs(found - theirs) < 0.05) > 0.97


def drawn(images: Images, **asked: float) -> Images:
    """Two steps, traced as training traces them."""
    changes = Augmentation(**asked)
    augment = Augment(changes.structure)
    augment.set_numbers(changes)
    signature = [tf.TensorSpec((None, *images.shape[1:]), tf.float32)]
    step = tf.function(augment, signature, autograph=False)
    return np.stack([step(images).numpy() for _ in range(2)])


@pytest.mark.parametrize("name", STRENGTHS)
@pytest.mark.parametrize("channels", [1, 3])
def test_draws_differ_between_images_and_steps_and_stay_in_range(name: str, channels: int) -> None:
    same = np.repeat(pictures(1, 32, channels), 64, axis=0)
    found = drawn(same, **{name: 1.5 if name == "blur" else 0.4})
    assert found.shape[1:] == same.shape
    assert np.isfinite(found).all()
    assert found.min() >= 0
    assert found.max() <= 255.001
    distances = np.abs(found - same).mean(axis=(2, 3, 4))
    assert len(np.unique(distances[0].round(4))) > 8  # not one draw for all
    assert (found[0] != found[1]).any()


def test_strengths_are_what_they_are_called() -> None:
    grey = np.full((4000, 8, 8, 1), 100, np.float32)
    shifts = (drawn(grey, brightness=0.2)[0] - 100).mean(axis=(1, 2, 3)) / 255
    assert abs(shifts.mean()) < 0.01  # neither brighter nor darker on the whole
    assert shifts.min() == pytest.approx(-0.2, abs=0.002)
    assert shifts.max() == pytest.approx(0.2, abs=0.002)
    exponents = np.log(drawn(grey, gamma=1.0)[0][:, 0, 0, 0] / 255) / np.log(100 / 255)
    assert np.log(exponents).mean() == pytest.approx(0, abs=0.03)
    assert (exponents.min(), exponents.max()) == pytest.approx((0.5, 2), abs=0.01)
    noise = drawn(grey, noise=0.1)[0]
    assert noise.mean() == pytest.approx(100, abs=0.2)
    assert noise[:, :].std(axis=(1, 2, 3)).mean() == pytest.approx(0.05 * 255, rel=0.05)
    large = grey[:2000].repeat(4, 1).repeat(4, 2)
    erased = (drawn(large, erasing=0.3)[0] != 100).mean(axis=(1, 2, 3))
    assert (erased > 0).mean() == pytest.approx(0.3, abs=0.04)
    assert erased[erased > 0].mean() == pytest.approx(0.175, abs=0.02)
    wave = np.tile(np.where(np.arange(8) % 2, 140, 60).astype(np.float32), (4000, 8, 1))[..., None]
    factors = np.ptp(drawn(wave, contrast=0.5)[0], axis=(1, 2, 3)) / 80
    assert (factors.min(), factors.max()) == pytest.approx((0.5, 1.5), abs=0.01)
    assert factors.mean() == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("name", ["translation", "shear"])
def test_moves_are_as_large_as_stated_and_even(name: str) -> None:
    dot = np.zeros((2000, 33, 33, 1), np.float32)
    dot[:, 16 if name == "translation" else 8, 16] = 255  # 8 pixels above the centre
    found = drawn(dot, **{name: 0.3})[0, ..., 0]
    places = np.stack(np.meshgrid(np.arange(33), np.arange(33)), 0)
    weights = found / found.sum(axis=(1, 2), keepdims=True)
    x, y = np.einsum("bij,aij->ab", weights, places)
    largest = 0.3 * 33 if name == "translation" else 0.3 * 8
    assert np.abs(x - 16).max() == pytest.approx(largest, rel=0.03)
    assert (x - 16).mean() == pytest.approx(0, abs=0.3)
    if name == "translation":
        assert np.abs(y - 16).max() == pytest.approx(largest, rel=0.03)


def test_what_keras_moves_is_as_stated() -> None:
    dot = np.zeros((2000, 41, 41, 1), np.float32)
    dot[:, 20, 32] = 255  # 12 pixels to the right of the centre
    places = np.arange(41) - 20

    def moved(**asked: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        found = drawn(dot, **asked)[0, ..., 0].astype(np.float64)
        total = found.sum(axis=(1, 2))
        x, y = (found.sum(axis=axis) @ places / total for axis in (1, 2))
        return x, y

    assert np.mean(moved(flip=True)[0] < 0) == pytest.approx(0.5, abs=0.05)
    dot[:] = dot.transpose(0, 2, 1, 3)
    assert np.mean(moved(vertical_flip=True)[1] < 0) == pytest.approx(0.5, abs=0.05)
    dot[:] = dot.transpose(0, 2, 1, 3)
    x, y = moved(rotation=20.0)
    angles = np.degrees(np.arctan2(y, x))
    assert angles.mean() == pytest.approx(0, abs=1)
    assert np.abs(angles).max() == pytest.approx(20, abs=1)
    x, _ = moved(zoom=0.2)
    assert (12 / x.max(), 12 / x.min()) == pytest.approx((0.8, 1.2), abs=0.03)


@pytest.mark.parametrize("channels", [1, 3])
def test_randaugment_makes_every_change(channels: int) -> None:
    """Each draw does something else, at full strength; the first leaves the image alone."""
    count = 13 if channels == 1 else 14
    images = np.repeat(pictures(1, 32, channels), count, axis=0)
    which = (np.arange(count, dtype=np.float32) + 0.5) / count
    draws = tf.constant(np.stack([which, np.full(count, 0.9, np.float32)], axis=1))
    found = _one_of_all(tf.constant(images), draws, tf.constant(0.5), "constant").numpy()
    np.testing.assert_array_equal(found[0], images[0])
    for one in range(count):
        for other in range(one):
            assert np.abs(found[one] - found[other]).max() > 1, (one, other)
