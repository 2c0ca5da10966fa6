"""The same scene in files of 8, 10, 12, 14 and 16 bits is the same to a model, and dark images stay
dark.
"""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from trainables.core.data_config import FolderData
from trainables.core.input_format import InputFormat
from trainables.data.manifest import Manifest, build_manifest
from trainables.data.store import build_store
from trainables.pictures.depth import stretched_depth, to_uint8
from trainables.pictures.readers import read_picture

RANDOM = np.random.default_rng(3)
BRIGHT = RANDOM.integers(0, 256, (24, 24), dtype=np.uint8)
DARK = RANDOM.integers(0, 60, (24, 24), dtype=np.uint8)
#: How programs write 8-bit values into 16 bits.
WAYS: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {
    "shifted": lambda scene, bits: scene.astype(np.uint16) << (bits - 8),
    "rounded": lambda scene, bits: np.rint(scene * ((2**bits - 1) / 255)).astype(np.uint16),
    "cut off": lambda scene, bits: (scene / 255 * (2**bits - 1)).astype(np.uint16),
}


@pytest.mark.parametrize("scene", [BRIGHT, DARK], ids=["bright", "dark"])
@pytest.mark.parametrize("bits", [10, 12, 14, 16])
@pytest.mark.parametrize("way", WAYS)
def test_stretched_eight_bits_come_back_exactly(scene: np.ndarray, bits: int, way: str) -> None:
    stretched = WAYS[way](scene, bits)
    found = stretched_depth(stretched)
    assert found is not None
    np.testing.assert_array_equal(to_uint8(stretched, found), scene)


def test_the_noise_of_a_detector_is_not_taken_for_stretched_values() -> None:
    deep = RANDOM.integers(0, 4096, (300, 300)).astype(np.uint16)
    assert stretched_depth(deep) is None
    deep[:] = deep & 0xFF0  # all but one pixel
    deep[150, 7] += 3
    assert stretched_depth(deep) is None


def write(folder: Path, **files: np.ndarray) -> Manifest:
    for number, (name, pixels) in enumerate(files.items()):
        path = folder / "ab"[number % 2] / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    return build_manifest(
        FolderData(source="folder", path=str(folder)), Path("/"), None, [InputFormat(24)]
    )


def brightness(manifest: Manifest, root: Path) -> dict[str, float]:
    store = build_store(manifest, InputFormat(24), root)
    names = [Path(image).stem for image in manifest.usable["image"]]
    return dict(zip(names, store.pixels.reshape(len(names), -1).mean(axis=1), strict=True))


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_the_container_does_not_decide_the_brightness(tmp_path: Path, bits: int) -> None:
    """8-bit files beside 16-bit files of the same scenes, which hold as many bits as they like."""
    scenes = [RANDOM.integers(20, top, (24, 24), dtype=np.uint8) for top in (250, 90)]
    files = {f"plain{i}": scene for i, scene in enumerate(scenes)}
    files |= {f"deep{i}": WAYS["shifted"](scene[::-1], bits) for i, scene in enumerate(scenes)}
    shown = brightness(write(tmp_path / "data", **files), tmp_path)
    for i in range(2):
        assert shown[f"deep{i}"] == shown[f"plain{i}"]


def test_dark_images_of_a_detector_stay_dark_beside_bright_ones(tmp_path: Path) -> None:
    bright, dark = RANDOM.integers(0, 4096, (24, 24)), RANDOM.integers(0, 200, (24, 24))
    shown = brightness(
        write(tmp_path / "data", a=bright.astype(np.uint16), b=dark.astype(np.uint16)), tmp_path
    )
    assert shown["b"] < shown["a"] / 15
    manifest = write(tmp_path / "data")
    assert manifest.shared_bits == 12
    assert any("2 files of 16 bits do not say" in note for note in manifest.notes)


def test_a_brighter_image_that_comes_later_moves_its_neighbours(tmp_path: Path) -> None:
    files = {name: RANDOM.integers(0, 4096, (24, 24)).astype(np.uint16) for name in "ab"}
    before = write(tmp_path / "data", **files)
    files["c"] = RANDOM.integers(0, 65536, (24, 24)).astype(np.uint16)
    whole = write(tmp_path / "data", **files)
    data = FolderData(source="folder", path=str(tmp_path / "data"))
    after = build_manifest(data, Path("/"), before, [InputFormat(24)])
    assert after.table.equals(whole.table)
    assert (before.shared_bits, after.shared_bits) == (12, 16)
    assert after.data_hash != before.data_hash


def with_sbit(content: bytes, bits: int) -> bytes:
    import zlib

    chunk = b"sBIT" + bytes([bits])
    at = content.index(b"IDAT") - 4
    return content[:at] + b"\0\0\0\1" + chunk + zlib.crc32(chunk).to_bytes(4, "big") + content[at:]


def test_a_header_that_says_the_depth_is_believed(tmp_path: Path) -> None:
    dark = RANDOM.integers(0, 200, (24, 24)).astype(np.uint16)
    path = tmp_path / "a"
    for white, depth in ((511, 9), (4095, 12), (65535, 8)):
        path.write_bytes(b"P5 # comment\n24 24\n%d\n" % white + dark.astype(">u2").tobytes())
        assert read_picture(path).depth[0] == depth
    # No power of two: stretched to 16 bits.
    path.write_bytes(b"P5\n24 24\n1000\n" + dark.astype(">u2").tobytes())
    picture = read_picture(path)
    np.testing.assert_array_equal(picture.pixels, np.rint(dark * 65.535))
    assert picture.depth == (16, "header")
    Image.fromarray(dark).save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    path.write_bytes(with_sbit(content, 12))
    assert read_picture(path).depth == (12, "header")
    bright = dark * 256 + 7
    Image.fromarray(bright).save(tmp_path / "a.png")
    path.write_bytes(with_sbit((tmp_path / "a.png").read_bytes(), 12))
    assert read_picture(path).depth == (16, "header")


def test_deep_colour_is_one_of_them(tmp_path: Path) -> None:
    colour = RANDOM.integers(0, 256, (24, 24, 3), dtype=np.uint8)
    assert cv2.imwrite(str(tmp_path / "a.png"), colour[..., ::-1].astype(np.uint16) * 257)
    picture = read_picture(tmp_path / "a.png")
    np.testing.assert_array_equal(picture.at(InputFormat(24), 3, picture.depth[0]), colour)
