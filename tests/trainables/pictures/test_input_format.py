"""What a model is given of an image: where the image lies in the square, and how many levels reach
it.
"""

from pathlib import Path

import numpy as np
import pytest

from tests.dicoms import write_dicom
from trainables.core.input_format import InputFormat
from trainables.pictures.depth import raw
from trainables.pictures.picture import Picture
from trainables.pictures.readers import read_picture
from xai.judging.heat import mask_at

RNG = np.random.default_rng(4)


def shares(before: int, after: int) -> np.ndarray:
    """What each pixel of an edge of `before` gives to each of `after`: overlaps where it shrinks,
    else lines between centres.
    """
    if after < before:
        edges = np.arange(after + 1) * before / after
        overlap = np.minimum(edges[1:, None], np.arange(1, before + 1)) - np.maximum(
            edges[:-1, None], np.arange(before)
        )
        return np.maximum(overlap, 0) * after / before
    centres = (np.arange(after) + 0.5) * before / after - 0.5
    return np.array([np.interp(centres, np.arange(before), unit) for unit in np.eye(before)]).T


@pytest.mark.parametrize(
    ("shape", "box"),  # height and width; top, left, height, width in a square of 16
    [
        ((32, 64), (4, 0, 8, 16)),
        ((64, 32), (0, 4, 16, 8)),
        ((37, 21), (0, 3, 16, 9)),  # 21 · 16 / 37 = 9.08
        ((45, 71), (3, 0, 10, 16)),  # 45 · 16 / 71 = 10.14
        ((8, 10), (1, 0, 13, 16)),  # 8 · 16 / 10 = 12.8
        ((900, 9), (0, 7, 16, 1)),  # 9 · 16 / 900 = 0.16
        ((50, 50), (0, 0, 16, 16)),
    ],
)
@pytest.mark.parametrize("depth", [8, 16])
def test_a_padded_image_lies_where_its_proportions_say(
    shape: tuple[int, int], box: tuple[int, int, int, int], depth: int
) -> None:
    pixels = RNG.integers(0, 256, shape).astype(np.uint8)
    seen = raw(Picture(pixels, "PNG").at(InputFormat(16, "pad", 77, depth), 1, 8))
    top, left, height, width = box
    wanted = np.full((16, 16), 77.0)
    wanted[top : top + height, left : left + width] = (
        shares(shape[0], height) @ pixels @ shares(shape[1], width).T
    )
    assert seen.shape == (16, 16, 1)
    outside = np.ones((16, 16), np.bool_)
    outside[top : top + height, left : left + width] = False
    assert (seen[outside] == 77).all()
    np.testing.assert_allclose(seen[..., 0], wanted, atol=0.7 if depth == 8 else 0.01)


@pytest.mark.parametrize("shape", [(40, 90), (90, 41), (50, 50)])
@pytest.mark.parametrize("fit", ["stretch", "pad"])
def test_a_mask_lies_on_what_it_shows(shape: tuple[int, int], fit: str) -> None:
    form, mask = InputFormat(32, fit), np.zeros(shape, np.uint8)
    mask[5:30, 9:27] = 255
    seen = Picture(mask, "PNG").at(form, 1, 8)[..., 0]
    np.testing.assert_array_equal(mask_at(mask, form, shape), seen >= 128)
    other = mask.repeat(3, axis=0).repeat(2, axis=1)  # a file of other proportions
    assert (mask_at(other, form, shape) != (seen >= 128)).mean() < 0.01


def test_twelve_bits_reach_the_model() -> None:
    ramp = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    found = {
        depth: raw(Picture(ramp, "PNG", 12).at(InputFormat(64, depth=depth), 1, 12))[..., 0]
        for depth in (8, 16)
    }
    assert len(np.unique(found[8])) == 256
    assert len(np.unique(found[16])) == 4096
    np.testing.assert_allclose(found[16], ramp * (255 / 4095), atol=1 / 257)


def test_eight_bits_are_the_same_in_sixteen() -> None:
    grey, form = RNG.integers(0, 256, (20, 20)).astype(np.uint8), InputFormat(20, depth=16)
    deep = grey.astype(np.uint16)
    for pixels in (grey, deep * 257, deep << 4, np.rint(deep * (4095 / 255)).astype(np.uint16)):
        picture = Picture(pixels, "PNG")
        np.testing.assert_array_equal(raw(picture.at(form, 1, picture.depth[0]))[..., 0], grey)


def test_a_dicom_window_keeps_its_levels(tmp_path: Path) -> None:
    stored = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    window = {
        "WindowCenter": 2000.5,
        "WindowWidth": 1001,
        "PhotometricInterpretation": "MONOCHROME1",
    }
    picture = read_picture(write_dicom(tmp_path / "a.dcm", stored, BitsStored=12, **window))
    seen = raw(picture.at(InputFormat(64, depth=16), 1, 8))[..., 0]
    # PS3.3 C.11.2.1.2: ((x - (c - 0.5)) / (w - 1) + 0.5), turned round
    wanted = 255 * (1 - ((stored.astype(float) - 2000) / 1000 + 0.5).clip(0, 1))
    np.testing.assert_allclose(seen, wanted, atol=1 / 257)
    np.testing.assert_array_equal(picture.pixels, np.rint(wanted))
    assert len(np.unique(seen)) == 1001


def test_likeness_is_in_what_the_model_is_given() -> None:
    def alike(one: np.ndarray, other: np.ndarray, form: InputFormat) -> bool:
        digests = [Picture(pixels, "PNG").seen([form])[form, 8] for pixels in (one, other)]
        return digests[0] == digests[1]

    image = RNG.integers(0, 256, (16, 32)).astype(np.uint8)
    boxed = np.pad(image, ((8, 8), (0, 0)))
    twice, tall = image.repeat(2, 0).repeat(2, 1), image.repeat(2, 0)
    assert alike(image, boxed, InputFormat(32, "pad"))
    assert not alike(image, boxed, InputFormat(32, "pad", 9))
    assert not alike(image, boxed, InputFormat(32))
    for form in (InputFormat(24), InputFormat(24, "pad"), InputFormat(24, "pad", depth=16)):
        assert alike(image, twice, form)
        assert alike(image, tall, form) == (form.fit == "stretch")
    # Rows that differ below the eighth bit are no repetition.
    deep = [
        Picture(tall, "DICOM", fine=lambda odd=odd: tall * np.uint16(257) + odd)
        for odd in (np.uint16(0), np.arange(32, dtype=np.uint16)[:, None] % 2)
    ]
    form = InputFormat(32, depth=16)
    assert deep[0].seen([form]) != deep[1].seen([form])
