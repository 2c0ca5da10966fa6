"""Every format that is promised is read to known pixels; everything else is refused with its
reason.
"""

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from trainables.core.input_format import InputFormat
from trainables.pictures.depth import to_uint8
from trainables.pictures.formats import FORMATS
from trainables.pictures.picture import content_hash, resize
from trainables.pictures.readers import UnreadableImage, read_image

RANDOM = np.random.default_rng(7)
GREY = RANDOM.integers(0, 256, (20, 30), dtype=np.uint8)
DEEP = RANDOM.integers(0, 4096, (20, 30)).astype(np.uint16)
RGB = RANDOM.integers(0, 256, (20, 30, 3), dtype=np.uint8)
DEEP_RGB = RANDOM.integers(0, 65536, (20, 30, 3)).astype(np.uint16)
RGBA = np.dstack([RGB, RANDOM.integers(0, 256, (20, 30), dtype=np.uint8)])


def written(path: Path, image: Image.Image | np.ndarray, **options: object) -> Path:
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(path, **options)
    return path


def over_black(rgba: np.ndarray) -> np.ndarray:
    return rgba[..., :3] * (rgba[..., 3:] / 255)


def assert_reads(path: Path, expected: np.ndarray) -> None:
    pixels = read_image(path)
    assert pixels.dtype == expected.dtype
    np.testing.assert_array_equal(pixels, expected)
    assert pixels.flags.c_contiguous


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tiff", ".TIF"])
@pytest.mark.parametrize("pixels", [GREY, RGB], ids=["grey", "rgb"])
def test_eight_bits_are_read_as_they_are(tmp_path: Path, suffix: str, pixels: np.ndarray) -> None:
    assert_reads(written(tmp_path / f"image{suffix}", pixels), pixels)


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate"])
def test_sixteen_bits_keep_their_values(tmp_path: Path, compression: str | None) -> None:
    assert_reads(written(tmp_path / "a.png", DEEP), DEEP)
    assert_reads(written(tmp_path / "a.tif", DEEP, compression=compression), DEEP)


def test_big_endian_and_32_bit_files_whose_values_fit(tmp_path: Path) -> None:
    assert_reads(written(tmp_path / "big.tif", DEEP.astype(">u2")), DEEP)
    assert_reads(written(tmp_path / "wide.tif", DEEP.astype(np.int32)), DEEP)


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_sixteen_bit_colour_is_not_cut_down(tmp_path: Path, suffix: str) -> None:
    assert cv2.imwrite(str(tmp_path / f"a{suffix}"), DEEP_RGB[..., ::-1])
    assert_reads(tmp_path / f"a{suffix}", DEEP_RGB)


def test_sixteen_bit_transparency_is_over_black(tmp_path: Path) -> None:
    alpha = RANDOM.integers(0, 65536, (20, 30, 1)).astype(np.uint16)
    assert cv2.imwrite(str(tmp_path / "a.png"), np.dstack([DEEP_RGB[..., ::-1], alpha]))
    assert_reads(tmp_path / "a.png", np.rint(DEEP_RGB * (alpha / 65535)).astype(np.uint16))


def test_jpeg_grey_and_colour(tmp_path: Path) -> None:
    smooth = np.tile(np.arange(0, 240, 8, dtype=np.uint8), (20, 1))
    grey = read_image(written(tmp_path / "a.jpg", smooth, quality=95))
    assert grey.shape == (20, 30)
    assert np.abs(grey.astype(int) - smooth).max() <= 4
    red = np.zeros((20, 30, 3), np.uint8) + np.uint8([200, 10, 10])
    assert np.abs(read_image(written(tmp_path / "a.jpeg", red)).astype(int) - red).max() <= 3


def test_equal_channels_are_grey(tmp_path: Path) -> None:
    assert_reads(written(tmp_path / "a.png", np.dstack([GREY] * 3)), GREY)
    assert_reads(written(tmp_path / "b.png", Image.fromarray(GREY).convert("P")), GREY)
    assert cv2.imwrite(str(tmp_path / "c.png"), np.dstack([DEEP] * 3))
    assert_reads(tmp_path / "c.png", DEEP)


def test_transparency_is_over_black(tmp_path: Path) -> None:
    for suffix in (".png", ".tif"):
        pixels = read_image(written(tmp_path / f"a{suffix}", RGBA))
        assert np.abs(pixels - over_black(RGBA)).max() <= 1
    grey_alpha = np.dstack([GREY, RGBA[..., 3]])
    pixels = read_image(written(tmp_path / "la.png", grey_alpha))
    assert pixels.shape == (20, 30)
    assert np.abs(pixels - GREY * (RGBA[..., 3] / 255)).max() <= 1


def test_palette_with_and_without_transparency(tmp_path: Path) -> None:
    palette = Image.fromarray((GREY % 3).astype(np.uint8)).convert("L")
    palette = Image.frombytes("P", palette.size, palette.tobytes())
    palette.putpalette([200, 0, 0, 0, 150, 0, 0, 0, 100])
    colours = np.uint8([[200, 0, 0], [0, 150, 0], [0, 0, 100]])
    assert_reads(written(tmp_path / "plain.png", palette), colours[GREY % 3])
    colours[1] = 0
    assert_reads(written(tmp_path / "clear.png", palette, transparency=1), colours[GREY % 3])


def test_bilevel_and_cmyk(tmp_path: Path) -> None:
    bits = GREY > 127
    for suffix in (".png", ".tif", ".bmp"):
        assert_reads(
            written(tmp_path / f"bits{suffix}", Image.fromarray(bits)),
            np.where(bits, 255, 0).astype(np.uint8),
        )
    cyan = Image.new("CMYK", (30, 20), (255, 0, 0, 0))
    assert read_image(written(tmp_path / "a.tif", cyan))[5, 5].tolist() == [0, 255, 255]
    assert (
        np.abs(
            read_image(written(tmp_path / "a.jpg", cyan))[5, 5].astype(int) - [0, 255, 255]
        ).max()
        <= 3
    )


@pytest.mark.parametrize(("orientation", "turn"), [(3, 2), (6, 3), (8, 1)])
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int, turn: int) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    halves = np.zeros((16, 32), np.uint8)
    halves[:8, :16] = 240
    for name in ("a.jpg", "a.png", "a.tif"):
        pixels = read_image(written(tmp_path / name, halves, exif=exif))
        upright = np.rot90(halves, turn)
        assert pixels.shape == upright.shape
        assert np.abs(pixels.astype(int) - upright).max() <= 30


def test_content_counts_and_not_the_suffix(tmp_path: Path) -> None:
    path = written(tmp_path / "a.png", GREY)
    assert_reads(path.rename(tmp_path / "a.jpg"), GREY)


@pytest.mark.parametrize(
    "name", ["with space.png", "quo'te\".png", "new\nline.png", "röntgen-胸部.png", "%s{}$x.png"]
)
def test_odd_names(tmp_path: Path, name: str) -> None:
    assert_reads(written(tmp_path / name, GREY), GREY)


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


PNG = saved(Image.fromarray(GREY), "PNG")
FLIPPED = bytearray(PNG)
FLIPPED[-20] ^= 1
SECOND = [Image.fromarray(GREY[::-1].copy())]
REFUSED = {
    "empty": (b"", "empty file"),
    "text": (b"this is no image\n", f"not a {FORMATS} image"),
    "float": (saved(Image.fromarray(DEEP.astype(np.float32)), "TIFF"), "32-bit float pixels"),
    "wide": (saved(Image.fromarray(DEEP.astype(np.int32) * 100), "TIFF"), "32-bit integer pixels"),
    "negative": (
        saved(Image.fromarray(DEEP.astype(np.int32) - 1000), "TIFF"),
        "32-bit integer pixels",
    ),
    "frames": (
        saved(Image.fromarray(GREY), "TIFF", save_all=True, append_images=SECOND * 2),
        "3 frames",
    ),
    "animated": (
        saved(Image.fromarray(GREY), "PNG", save_all=True, append_images=SECOND),
        "2 frames",
    ),
    "animated gif": (
        saved(Image.fromarray(GREY), "GIF", save_all=True, append_images=SECOND),
        "2 frames",
    ),
    "animated webp": (
        saved(Image.fromarray(GREY), "WEBP", save_all=True, append_images=SECOND),
        "2 frames",
    ),
    "inverted": (
        saved(Image.fromarray(DEEP), "TIFF", tiffinfo={262: 0}),
        "16-bit pixels whose zero is white",
    ),
    "damaged": (bytes(FLIPPED), "damaged: broken"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_a_short_reason(tmp_path: Path, case: str) -> None:
    content, reason = REFUSED[case]
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(UnreadableImage) as error:
        read_image(tmp_path / "a.png")
    assert error.value.reason.startswith(reason)
    assert str(error.value) == error.value.reason
    assert "\n" not in error.value.reason


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "TIFF", "GIF", "WEBP", "PPM", "JPEG2000"])
def test_half_a_file_is_never_half_an_image(tmp_path: Path, kind: str) -> None:
    content = saved(Image.fromarray(GREY), kind)
    for length in range(1, len(content) - 12, 7):
        (tmp_path / "a").write_bytes(content[:length])
        with pytest.raises(UnreadableImage, match=r"^(truncated|not a PNG|damaged)"):
            read_image(tmp_path / "a")
    (tmp_path / "a").write_bytes(content[: len(content) * 3 // 4])
    # The decoders of these two do not tell what is missing from what is wrong.
    with pytest.raises(
        UnreadableImage, match=r"^damaged" if kind in ("WEBP", "JPEG2000") else r"^truncated$"
    ):
        read_image(tmp_path / "a")


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(UnreadableImage, match=r"^missing file$"):
        read_image(tmp_path / "none.png")
    with pytest.raises(UnreadableImage, match=r"^not a regular file$"):
        read_image(tmp_path)


def test_content_hash_ignores_the_encoding_but_not_shape_and_depth(tmp_path: Path) -> None:
    one = read_image(written(tmp_path / "a.png", GREY))
    other = read_image(written(tmp_path / "b.tif", np.dstack([GREY] * 3)))
    assert content_hash(one) == content_hash(other)
    assert (
        len(
            {
                content_hash(p)
                for p in (GREY, GREY.reshape(30, 20), GREY.astype(np.uint16), GREY[::-1])
            }
        )
        == 4
    )
    assert content_hash(DEEP) == content_hash(DEEP.astype(">u2"))


def test_to_uint8_maps_the_declared_range() -> None:
    values = np.array([[0, 1, 2048, 4095, 4096, 65535]], np.uint16)
    assert to_uint8(values, 12).tolist() == [[0, 0, 128, 255, 255, 255]]
    # The eight most significant bits.
    assert to_uint8(values, 16).tolist() == [[0, 0, 8, 15, 16, 255]]
    assert to_uint8(GREY, 12) is GREY


def test_resize_shrinks_by_area_and_enlarges_linearly() -> None:
    checkers = (np.indices((64, 64)).sum(axis=0) % 2 * 200).astype(np.uint8)
    # Bilinear sampling alone would keep stripes.
    assert np.unique(resize(checkers, InputFormat(32), 1)).tolist() == [100]
    ramp = np.array([[0, 100], [0, 100]], np.uint8)
    assert resize(ramp, InputFormat(4), 1)[0, :, 0].tolist() == [0, 25, 75, 100]


def test_resize_gives_the_asked_channels() -> None:
    np.testing.assert_array_equal(
        resize(GREY[:20, :20], InputFormat(20), 3), np.repeat(GREY[:20, :20, None], 3, axis=2)
    )
    np.testing.assert_array_equal(resize(RGB[:20, :20], InputFormat(20), 3), RGB[:20, :20])
    assert resize(GREY, InputFormat(8), 1).shape == (8, 8, 1)
    with pytest.raises(ValueError, match="one channel"):
        resize(RGB, InputFormat(8), 1)
