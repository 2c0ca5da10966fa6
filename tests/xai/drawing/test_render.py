"""Overlays whose colours can be worked out by hand."""

import io
import os
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trainables.core.quoting import printable
from xai.drawing import render

BLACK = np.zeros((8, 8), np.uint8)
GREY = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5


def flat(value: float) -> render.Floats:
    return np.full((2, 2), value, np.float32)


@pytest.mark.parametrize("colours", ["inferno", "jet"])
@pytest.mark.parametrize("share", [1.0, 0.6, 0.2])
def test_colour_and_opacity_follow_the_share_of_the_scale(
    colours: render.Colours, share: float
) -> None:
    level = round(255 * share)
    colour = render.colour_table(colours)[level].astype(float)
    alpha = 0.5 * level / 255
    for image in (BLACK, BLACK + 200):
        drawn = render.overlay(image, flat(7 * share), scale=7, colours=colours, opacity=0.5)
        assert drawn.shape == (8, 8, 3)
        assert drawn.dtype == np.uint8
        np.testing.assert_allclose(
            drawn, np.broadcast_to(alpha * colour + (1 - alpha) * image[0, 0], (8, 8, 3)), atol=1.5
        )


def test_evidence_beyond_the_scale_is_the_last_colour() -> None:
    np.testing.assert_array_equal(
        render.overlay(BLACK, flat(900), 3), render.overlay(BLACK, flat(3), 3)
    )


@pytest.mark.parametrize("heat", [flat(0), flat(-5)])
def test_no_evidence_shows_the_bare_image(heat: render.Floats) -> None:
    np.testing.assert_array_equal(render.overlay(GREY, heat, 1.0), render.rgb(GREY))


def test_a_set_without_evidence_draws_nothing() -> None:
    assert render.scale_of_peaks(map(render.peak, [flat(-1), flat(0)])) == 0
    np.testing.assert_array_equal(render.overlay(GREY, flat(1), 0.0), render.rgb(GREY))


def test_a_map_is_stretched_over_the_image_bilinearly_from_cell_centres() -> None:
    drawn = render.overlay(
        np.zeros((2, 4), np.uint8), np.array([[0, 1]], np.float32), 1.0, opacity=1
    )
    expected = [render.colour_table()[round(255 * part)] * part for part in (0, 0.25, 0.75, 1)]
    np.testing.assert_allclose(drawn[0], expected, atol=1.5)


def test_grey_and_colour_images_of_equal_pixels_look_the_same() -> None:
    heat = np.random.default_rng(0).normal(size=(3, 3)).astype(np.float32)
    expected = render.overlay(GREY, heat, 1.0)
    np.testing.assert_array_equal(render.overlay(GREY[..., None], heat, 1.0), expected)
    np.testing.assert_array_equal(render.overlay(np.dstack([GREY] * 3), heat, 1.0), expected)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_map_that_is_not_finite_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="NaN or infinite"):
        render.overlay(BLACK, flat(value), 1.0)


def test_the_default_colours_get_lighter_with_the_evidence_and_jet_does_not() -> None:
    light = {
        name: render.colour_table(name) @ [0.2126, 0.7152, 0.0722] for name in ("inferno", "jet")
    }
    assert (np.diff(light["inferno"]) > -1).all()
    assert not (np.diff(light["jet"]) > -1).all()


# --- scales ---------------------------------------------------------------------------------------


def test_a_few_hot_pixels_do_not_decide_the_peak_and_a_lone_spot_is_one() -> None:
    noisy = np.ones((100, 100), np.float32)
    noisy[0, :50] = 1000
    assert render.peak(noisy) == 1
    spot = np.zeros((100, 100), np.float32)
    spot[3, 3] = 8
    assert render.peak(spot) == 8


def test_a_few_odd_maps_do_not_decide_the_scale_of_a_set() -> None:
    maps = [flat(1 + number / 1000) for number in range(995)] + [
        np.full((9, 4), 1e6, np.float32)
    ] * 5
    assert 1.9 < render.scale_of_peaks(map(render.peak, maps)) < 2
    assert render.scale_of_peaks(map(render.peak, reversed(maps))) == render.scale_of_peaks(
        map(render.peak, maps)
    )


# --- files ----------------------------------------------------------------------------------------


def test_files_hold_the_colours_in_the_right_order() -> None:
    picture = np.zeros((16, 16, 3), np.uint8)
    picture[..., 0] = 200
    decoded = np.asarray(Image.open(io.BytesIO(render.encode(picture))))
    np.testing.assert_array_equal(decoded, picture)
    lossy = np.asarray(Image.open(io.BytesIO(render.encode(picture, ".jpg"))))
    np.testing.assert_allclose(lossy.astype(int), picture, atol=6)


@pytest.mark.parametrize(
    "name", ["a b 'c' \"d\".png", "neue\nZeile ümläut 胸.jpg", os.fsdecode(b"broken \xff.PNG")]
)
def test_files_may_have_any_name(name: str, tmp_path: Path) -> None:
    path = render.write_image(tmp_path / "new folder" / name, GREY)
    assert np.asarray(Image.open(path)).shape == GREY.shape
    assert os.listdir(path.parent) == [name]  # noqa: PTH208 - no temporary file stays


# --- words ----------------------------------------------------------------------------------------


def test_text_is_made_harmless_and_short() -> None:
    assert printable("a\nb\u202ec\udcff") == r"a\nb\u202ec\udcff"
    assert render.shorten("a/very/long/path/to/image.png", 15) == "a/very/…age.png"
    assert render.shorten("short", 15) == "short"


def test_a_line_that_is_too_wide_keeps_its_ends() -> None:
    block = render.text_block(["", "W" * 3000], 200)
    assert block.shape == (34, 200, 3)
    assert block[:17].min() == 255
    assert block[17:, 180:].min() < 128  # the end is there


def test_what_is_joined_is_complete_and_aligned_on_white() -> None:
    wide, tall = np.zeros((2, 5, 3), np.uint8), np.full((4, 3, 3), 9, np.uint8)
    column = render.below([wide, tall], gap=1)
    assert column.shape == (7, 5, 3)
    np.testing.assert_array_equal(column[3:, :3], tall)
    assert (column[2] == 255).all()
    assert (column[3:, 3:] == 255).all()
    assert render.beside([wide, tall], gap=2).shape == (4, 10, 3)


def test_overlays_are_fast() -> None:
    image, heat = (
        np.zeros((224, 224), np.uint8),
        np.random.default_rng(0).random((7, 7), np.float32),
    )
    render.overlay(image, heat, 1.0)
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        for _ in range(50):
            render.overlay(image, heat, 1.0)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 50 / 500
