"""Pixels of every kind that files can hold come out right, or are refused for a reason that is
true.
"""

import io
import struct
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from trainables.pictures.readers import UnreadableImage, read_image, read_picture

RANDOM = np.random.default_rng(5)
COLOUR = RANDOM.integers(0, 65536, (64, 64, 3)).astype(np.uint16)
COLOUR[:8] = 65535
ALPHA = RANDOM.integers(0, 65536, (64, 64, 1)).astype(np.uint16)
OVER_BLACK = np.rint(COLOUR * (ALPHA / 65535)).astype(np.uint16)
GREY = RANDOM.integers(0, 256, (20, 30)).astype(np.uint8)
LOSSLESS = [cv2.IMWRITE_JPEG2000_COMPRESSION_X1000, 1000]


def read(folder: Path, content: bytes) -> np.ndarray:
    (folder / "a").write_bytes(content)
    return read_image(folder / "a")


def reason(folder: Path, content: bytes) -> str:
    with pytest.raises(UnreadableImage) as error:
        read(folder, content)
    return error.value.reason


# --- JPEG 2000 ------------------------------------------------------------------------------------


def jpeg2000(pixels: np.ndarray, bits: int = 16, sign: int = 0) -> bytes:
    """A lossless file of 16-bit values; of fewer bits it is the same stream, whose values are meant
    from another zero.

    `pixels`: uint16, (H, W), RGB or RGBA.
    """
    stored = (pixels.astype(int) + 2**15 - 2 ** (bits - 1)).astype(np.uint16)
    channels = 1 if stored.ndim == 2 else stored.shape[2]
    order = {1: [0], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[channels]
    encoded = cv2.imencode(
        ".jp2", stored.reshape(*stored.shape[:2], channels)[..., order].copy(), LOSSLESS
    )[1]
    content = bytearray(encoded.tobytes())
    size = content.find(b"\xff\x4f\xff\x51")
    for channel in range(channels):
        content[size + 42 + 3 * channel] = bits - 1 | sign
    content[content.find(b"ihdr") + 14] = bits - 1 | sign
    return bytes(content)


def test_deep_jpeg_2000_keeps_its_values_and_white_is_white(tmp_path: Path) -> None:
    np.testing.assert_array_equal(read(tmp_path, jpeg2000(COLOUR)), COLOUR)
    np.testing.assert_array_equal(read(tmp_path, jpeg2000(np.dstack([COLOUR, ALPHA]))), OVER_BLACK)
    np.testing.assert_array_equal(read(tmp_path, jpeg2000(COLOUR[..., 0])), COLOUR[..., 0])


@pytest.mark.parametrize("bits", [10, 12])
def test_the_header_of_jpeg_2000_says_the_depth_of_colour(tmp_path: Path, bits: int) -> None:
    few = COLOUR >> (16 - bits)
    (tmp_path / "a").write_bytes(jpeg2000(few, bits))
    picture = read_picture(tmp_path / "a")
    np.testing.assert_array_equal(picture.pixels, few)
    assert picture.depth == (bits, "header")


def test_signed_jpeg_2000_is_refused(tmp_path: Path) -> None:
    assert reason(tmp_path, jpeg2000(COLOUR[..., 0], sign=128)) == "signed 16-bit pixels"
    assert reason(tmp_path, jpeg2000(COLOUR, sign=128)) == "signed 16-bit pixels"


# --- TIFF -----------------------------------------------------------------------------------------


def tiff(pixels: np.ndarray, photometric: int | None = None, planes: int = 1, **tags: int) -> bytes:
    """An uncompressed TIFF file, in the pixels' byte order; (H, W) or (H, W, C), stored in planes
    where `planes` is 2.

    `tags`: `format`, `extra` in place of those of the pixels' type and of none.
    """
    height, width, channels = (*pixels.shape, 1)[:3]
    order = ">" if pixels.dtype.byteorder == ">" else "<"
    stored = np.moveaxis(pixels.reshape(height, width, channels), -1, 0) if planes == 2 else pixels
    data = stored.tobytes()
    parts = channels if planes == 2 else 1
    sample_format = tags.get("format", {"u": 1, "i": 2, "f": 3}[pixels.dtype.kind])
    fields: list[tuple[int, list[int]]] = [
        (256, [width]),
        (257, [height]),
        (258, [8 * pixels.itemsize] * channels),
        (259, [1]),
        (262, [(1 if channels < 3 else 2) if photometric is None else photometric]),
        (273, [8 + part * len(data) // parts for part in range(parts)]),
        (277, [channels]),
        (278, [height]),
        (279, [len(data) // parts] * parts),
        (284, [planes]),
        *([(338, [tags["extra"]])] if "extra" in tags else []),
        (339, [sample_format] * channels),
    ]
    entries, long, end = b"", b"", 8 + len(data)
    for tag, values in fields:
        packed = struct.pack(f"{order}{len(values)}I", *values)
        if len(values) > 1:
            long, packed = long + packed, struct.pack(f"{order}I", end + len(long))
        entries += struct.pack(f"{order}HHI", tag, 4, len(values)) + packed
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", end + len(long))
    return head + data + long + struct.pack(f"{order}H", len(fields)) + entries + bytes(4)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("kind", ["u1", "i1", "u2", "i2", "f2", "u4", "i4", "f4", "u8", "i8", "f8"])
def test_every_sample_format_of_tiff_is_read_right_or_refused(
    tmp_path: Path, kind: str, channels: int, order: str
) -> None:
    values = RANDOM.integers(0, 256, (20, 30, channels))
    if channels == 1:
        values = values[..., 0]
    extra = {"extra": 0} if channels in (2, 4, 5) else {}
    for low in (0, 200):  # below zero where the type allows it
        pixels = (values.astype(np.int64) - (low if kind[0] != "u" else 0)).astype(f"{order}{kind}")
        for planes in (1, 2):
            content = tiff(pixels, planes=planes, **extra)
            (tmp_path / "a").write_bytes(content)
            try:
                found = read_image(tmp_path / "a")
            except UnreadableImage as error:
                refused = error.reason
                found = None
            if found is None:
                assert not refused.startswith("damaged")
                assert kind not in ("u1", "u2") or planes == 2 or channels in (2, 5)
            else:
                shown = (
                    pixels[..., :3] if channels > 2 else pixels.reshape(20, 30, channels)[..., 0]
                )
                np.testing.assert_array_equal(found, shown)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (tiff(COLOUR, planes=2), "16-bit colour stored in planes"),
        (tiff(np.int16([[-1, 5]] * 9)), "signed 16-bit pixels with negative values"),
        (tiff(np.int8([[-1, 5]] * 9)), "signed 8-bit pixels with negative values"),
        (tiff(np.int32([[-1, 5]] * 9)), "32-bit integer pixels"),
        (tiff(COLOUR[..., :2], extra=2), "2 channels of 16-bit unsigned integers"),
        (tiff(GREY.astype(np.float16)), "1 channel of 16-bit floats"),
        (tiff(GREY.astype(np.float64)), "1 channel of 64-bit floats"),
        (tiff(COLOUR.astype(np.float32)), "3 channels of 32-bit floats"),
        (tiff(np.dstack([GREY] * 5)), "5 channels of 8-bit unsigned integers"),
        (tiff(GREY.astype(">u4")), "1 channel of 32-bit unsigned integers, big-endian"),
        (
            tiff(GREY.astype(">u2"), 0),
            "1 channel of 16-bit unsigned integers, big-endian, zero is white",
        ),
        (tiff(np.dstack([COLOUR, ALPHA]), 5), "16-bit pixels that are neither grey nor RGB"),
    ],
)
def test_the_reason_says_what_the_pixels_are(tmp_path: Path, content: bytes, says: str) -> None:
    unknown = "pixels of a kind that rayfold does not read: "
    assert reason(tmp_path, content).removeprefix(unknown) == says
    assert reason(tmp_path, content).startswith(unknown) == ("channel" in says)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(
    ("extra", "expected"),
    [(0, COLOUR), (1, COLOUR), (2, OVER_BLACK)],
    ids=["none", "premultiplied", "straight"],
)
def test_the_fourth_channel_of_deep_tiff_is_what_its_tag_says(
    tmp_path: Path, extra: int, expected: np.ndarray, order: str
) -> None:
    content = tiff(np.dstack([COLOUR, ALPHA]).astype(f"{order}u2"), extra=extra)
    np.testing.assert_array_equal(read(tmp_path, content), expected)


@pytest.mark.parametrize("channels", [2, 4])
def test_premultiplied_alpha_of_eight_bits_is_not_multiplied_again(
    tmp_path: Path, channels: int
) -> None:
    half = np.dstack([*[GREY // 2] * (channels - 1), np.full_like(GREY, 128)])
    found = read(tmp_path, tiff(half, extra=1)).astype(int)
    assert np.abs(found - GREY // 2).max() <= 1


# --- PNG and PNM ----------------------------------------------------------------------------------


def test_the_transparent_grey_of_a_deep_png_is_black(tmp_path: Path) -> None:
    grey = COLOUR[..., 0]
    buffer = io.BytesIO()
    Image.fromarray(grey).save(buffer, "PNG", transparency=int(grey[20, 20]))
    np.testing.assert_array_equal(
        read(tmp_path, buffer.getvalue()), np.where(grey == grey[20, 20], 0, grey)
    )


PNM = {
    "bits": b"P4\n9 9\n" + bytes(range(18)),
    "grey": b"P5 9 9\n# P5 3 3 \n255\n" + GREY.tobytes()[:81],
    "deep": b"P5\n9 9\n4095\n" + b"P5" * 81,
    "colour": b"P6\n9 9\n255\n" + GREY.tobytes()[:243],
    "text": b"P2\n9 9\n255\n" + b"17 4 1 " * 27 + b"\n",
}


@pytest.mark.parametrize("first", PNM)
def test_a_second_pnm_image_is_not_dropped_silently(tmp_path: Path, first: str) -> None:
    assert read(tmp_path, PNM[first]).shape[:2] == (9, 9)
    assert read(tmp_path, PNM[first] + b"\n").shape[:2] == (9, 9)
    assert reason(tmp_path, PNM[first] * 2) == "2 frames"
    assert reason(tmp_path, PNM[first] + PNM["deep"] + PNM["grey"]) == "3 frames"


# --- what libraries print -------------------------------------------------------------------------


def test_libraries_print_nothing_about_images_that_are_judged(tmp_path: Path) -> None:
    pytest.importorskip("pydicom")
    from tests.dicoms import write_dicom

    long = write_dicom(tmp_path / "long.dcm", GREY, Rows=19)
    (tmp_path / "cut.pgm").write_bytes(PNM["deep"][:-40])
    exif = Image.Exif()
    exif[274] = 1
    Image.fromarray(GREY).save(tmp_path / "exif.jpg", exif=exif)
    broken = (tmp_path / "exif.jpg").read_bytes().replace(b"\0\x01\x01\x12", b"\0\x09\x01\x12")
    (tmp_path / "exif.jpg").write_bytes(broken)
    code = f"""
import logging
from pathlib import Path
logging.basicConfig()
from trainables.pictures.readers import UnreadableImage, read_image
for path in {[str(long), str(tmp_path / "cut.pgm"), str(tmp_path / "exif.jpg")]!r}:
    try:
        read_image(Path(path))
    except UnreadableImage as error:
        print(error.reason)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stderr, done.stdout) == (
        "",
        "600 bytes of pixels, but 570 by the header, 30x19\ntruncated\n",
    )
