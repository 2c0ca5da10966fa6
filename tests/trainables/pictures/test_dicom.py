"""DICOM files come out as a viewer shows them, or with the reason why not."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.dicoms import lookup, write_dicom
from trainables.core.data_config import FolderData
from trainables.core.errors import DataError
from trainables.core.input_format import InputFormat
from trainables.data.manifest import build_manifest
from trainables.data.store import build_store
from trainables.pictures import decoders
from trainables.pictures.formats import is_dicom
from trainables.pictures.picture import resize
from trainables.pictures.readers import UnreadableImage, read_image

pytest.importorskip("pydicom")

RANDOM = np.random.default_rng(11)
GREY = RANDOM.integers(0, 256, (20, 30), dtype=np.uint8)
DEEP = RANDOM.integers(0, 4096, (20, 30)).astype(np.uint16)
RGB = RANDOM.integers(0, 256, (20, 30, 3), dtype=np.uint8)
SMOOTH = np.tile(np.arange(0, 240, 8, dtype=np.uint8), (20, 1))


def shown(folder: Path, stored: np.ndarray, **elements: object) -> np.ndarray:
    pixels = read_image(write_dicom(folder / "a.dcm", stored, **elements))
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    return pixels


def row(folder: Path, values: list[int], **elements: object) -> list[int]:
    """What 12-bit values are shown as."""
    dtype = np.int16 if min(values) < 0 else np.uint16
    return shown(folder, np.array([values], dtype), **{"BitsStored": 12, **elements})[0].tolist()


def test_eight_bits_are_shown_as_they_are(tmp_path: Path) -> None:
    np.testing.assert_array_equal(shown(tmp_path, GREY), GREY)


def test_colour(tmp_path: Path) -> None:
    np.testing.assert_array_equal(shown(tmp_path, RGB), RGB)
    assert shown(tmp_path, np.dstack([GREY] * 3)).shape == GREY.shape
    # Luma without chroma is grey.
    full = np.zeros((20, 30, 3), np.uint8) + np.uint8([150, 128, 128])
    assert np.unique(shown(tmp_path, full, PhotometricInterpretation="YBR_FULL")).tolist() == [150]


@pytest.mark.parametrize("bits", [10, 12, 14])
def test_the_full_range_is_that_of_the_bits_stored(tmp_path: Path, bits: int) -> None:
    top = 2**bits - 1
    assert row(tmp_path, [0, top // 2, top], BitsStored=bits) == [0, 127, 255]


@pytest.mark.parametrize(
    ("top", "expected"), [(255, 255), (1023, 255), (2047, 127), (4095, 255), (65535, 255)]
)
def test_sixteen_bits_are_as_many_as_the_pixels_need(
    tmp_path: Path, top: int, expected: int
) -> None:
    assert row(tmp_path, [0, top], BitsStored=16) == [0, expected]


def test_signed_values(tmp_path: Path) -> None:
    assert row(tmp_path, [-2048, 0, 2047]) == [0, 128, 255]
    assert row(tmp_path, [-2048, 0, 2047], BitsStored=16) == [0, 128, 255]
    assert row(tmp_path, [-100, 0, 300], WindowCenter=0.5, WindowWidth=201) == [0, 128, 255]


@pytest.mark.parametrize(
    "elements",
    [
        {},
        {"WindowCenter": 2048, "WindowWidth": 4096},
        {"WindowCenter": 2048, "WindowWidth": 1000},
        {"RescaleSlope": 2, "RescaleIntercept": -4095, "WindowCenter": 0.5, "WindowWidth": 3001},
        {"WindowCenter": 2047.5, "WindowWidth": 900, "VOILUTFunction": "SIGMOID"},
    ],
)
def test_monochrome_1_and_2_give_the_same_picture(
    tmp_path: Path, elements: dict[str, object]
) -> None:
    dark = shown(tmp_path, DEEP, BitsStored=12, **elements)
    light = shown(
        tmp_path, 4095 - DEEP, BitsStored=12, PhotometricInterpretation="MONOCHROME1", **elements
    )
    assert dark.max() - dark.min() > 200
    # Windows of whole numbers lie half a step off the middle of the range.
    assert np.abs(dark.astype(int) - light).max() <= (1 if elements else 0)


def test_window(tmp_path: Path) -> None:
    """PS3.3 C.11.2.1.2.1: black up to centre - 0.5 - (width - 1) / 2, white beyond centre - 0.5 +
    (width - 1) / 2.
    """
    window = {"WindowCenter": 1000, "WindowWidth": 256}
    assert row(tmp_path, [0, 872, 873, 999, 1126, 1127, 4095], **window) == [
        0,
        0,
        1,
        127,
        254,
        255,
        255,
    ]
    exact = window | {"VOILUTFunction": "LINEAR_EXACT"}
    assert row(tmp_path, [872, 1000, 1128], **exact) == [0, 128, 255]
    sigmoid = {"WindowCenter": 1000, "WindowWidth": 400, "VOILUTFunction": "SIGMOID"}
    assert row(tmp_path, [900, 1000, 1100], **sigmoid) == [69, 128, 186]
    assert row(tmp_path, [999, 1000], WindowCenter=1000, WindowWidth=1) == [0, 255]


def test_of_several_windows_the_first_and_none_without_a_width(tmp_path: Path) -> None:
    several = {"WindowCenter": [1000, 3000], "WindowWidth": [256, 4096]}
    assert row(tmp_path, [872, 1127, 4095], **several) == [0, 255, 255]
    assert row(tmp_path, [0, 4095], WindowCenter=0, WindowWidth=0) == [0, 255]
    assert row(tmp_path, [0, 4095], WindowCenter="", WindowWidth="") == [0, 255]


def test_rescale_comes_before_the_window(tmp_path: Path) -> None:
    rescale = {"RescaleSlope": 0.5, "RescaleIntercept": -100}
    # Alone, it keeps the full range.
    assert row(tmp_path, [0, 2048, 4095], **rescale) == [
        0,
        128,
        255,
    ]
    window = {"WindowCenter": 28, "WindowWidth": 256}  # -100 to 155: stored 0 to 510
    assert row(tmp_path, [0, 510, 4095], **rescale, **window) == [0, 255, 255]
    assert row(tmp_path, [0, 4095], RescaleSlope=-1, RescaleIntercept=4095) == [255, 0]


def test_lookup_tables(tmp_path: Path) -> None:
    inverse = list(range(4095, -1, -1))
    assert row(tmp_path, [0, 2048, 4095], VOILUTSequence=lookup(inverse, 0, 12)) == [255, 127, 0]
    assert row(tmp_path, [0, 2048, 4095], VOILUTSequence=lookup(inverse, 0, 12, "OW")) == [
        255,
        127,
        0,
    ]
    assert row(tmp_path, [0, 2048, 4095], ModalityLUTSequence=lookup(inverse, 0, 12)) == [
        255,
        127,
        0,
    ]
    assert row(tmp_path, [5, 6, 7, 8, 9], VOILUTSequence=lookup([0, 100, 255], 6, 8)) == [
        0,
        0,
        100,
        255,
        255,
    ]
    assert row(tmp_path, [-9, -8, -7, 0], VOILUTSequence=lookup([10, 200], -8, 8)) == [
        10,
        10,
        200,
        200,
    ]
    long = [number // 16 for number in range(4096)]  # more entries than an 8-bit value counts
    assert row(tmp_path, [0, 2048, 4095], VOILUTSequence=lookup(long, 0, 8)) == [0, 128, 255]


def test_a_lookup_table_is_preferred_to_a_window(tmp_path: Path) -> None:
    both = {"VOILUTSequence": lookup([0, 100, 255], 6, 8), "WindowCenter": 1000, "WindowWidth": 256}
    assert row(tmp_path, [6, 7, 8], **both) == [0, 100, 255]


@pytest.mark.parametrize("kind", [np.uint16, np.int16])
@pytest.mark.parametrize("unused", [0, 2, 4])
@pytest.mark.parametrize("syntax", [None, "1.2.840.10008.1.2.5"])
def test_bits_around_those_of_the_pixels_are_ignored(
    tmp_path: Path, kind: type, unused: int, syntax: str | None
) -> None:
    """The pixels' bits may lie anywhere in their word, between overlays."""
    values = DEEP.astype(int) - (2048 if kind is np.int16 else 0)
    around = RANDOM.integers(0, 2**16, DEEP.shape) & ~(4095 << unused)
    words = ((values & 4095) << unused | around).astype(np.uint16).view(kind)
    elements = {"BitsStored": 12, "HighBit": 11 + unused, "syntax": syntax}
    np.testing.assert_array_equal(
        shown(tmp_path, words, **elements), shown(tmp_path, values.astype(kind), BitsStored=12)
    )


def test_compressed_pixels_of_shifted_bits_are_refused(tmp_path: Path) -> None:
    """Whether a codec was given the words or the pixels is written nowhere; run lengths are always
    of words.
    """
    from pydicom import dcmread
    from pydicom.encaps import encapsulate

    image = dcmread(write_dicom(tmp_path / "a.dcm", DEEP, BitsStored=12, HighBit=15))
    image.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.90"
    image.PixelData = encapsulate([b"\0" * 100])
    image.save_as(tmp_path / "b.dcm")
    with pytest.raises(
        UnreadableImage, match=r"^compressed pixels of 12 bits, the highest of which is number 15$"
    ):
        read_image(tmp_path / "b.dcm")


def test_presentation_inverse_means_that_white_is_low(tmp_path: Path) -> None:
    assert row(tmp_path, [0, 1024, 4095], PresentationLUTShape="IDENTITY") == [0, 64, 255]
    assert row(tmp_path, [0, 1024, 4095], PresentationLUTShape="INVERSE") == [255, 191, 0]
    both = {"PresentationLUTShape": "INVERSE", "PhotometricInterpretation": "MONOCHROME1"}
    assert row(tmp_path, [0, 1024, 4095], **both) == [255, 191, 0]


def test_lossless_compression(tmp_path: Path) -> None:
    from pydicom.uid import RLELossless

    plain = shown(tmp_path, DEEP, BitsStored=12)
    np.testing.assert_array_equal(shown(tmp_path, DEEP, BitsStored=12, syntax=RLELossless), plain)


@pytest.mark.parametrize(
    "name", ["a.dcm", "A.DICOM", "IM0001", "1.2.840.5", "a.png", "röntgen '胸部'\n.dcm"]
)
def test_content_counts_and_not_the_name(tmp_path: Path, name: str) -> None:
    path = write_dicom(tmp_path / name, GREY)
    assert is_dicom(path)
    np.testing.assert_array_equal(read_image(path), GREY)


def test_a_png_under_the_name_of_a_dicom_file(tmp_path: Path) -> None:
    from PIL import Image

    Image.fromarray(GREY).save(tmp_path / "a.png")
    path = (tmp_path / "a.png").rename(tmp_path / "a.dcm")
    assert not is_dicom(path)
    np.testing.assert_array_equal(read_image(path), GREY)


FRAMES = np.stack([GREY] * 3).reshape(60, 30)
REFUSED: dict[str, tuple[np.ndarray, dict[str, object], str]] = {
    "frames": (FRAMES, {"NumberOfFrames": 3, "Rows": 20}, "3 frames"),
    "no pixels": (GREY, {"PixelData": None}, "no pixels: truncated, or no image"),
    "palette": (
        GREY,
        {"PhotometricInterpretation": "PALETTE COLOR"},
        "photometric interpretation PALETTE COLOR",
    ),
    "deep colour": (RGB.astype(np.uint16), {}, "16-bit RGB pixels"),
    "wide": (DEEP.astype(np.uint32), {}, "32-bit MONOCHROME2 pixels"),
    "high bit": (
        DEEP,
        {"BitsStored": 12, "HighBit": 9},
        "MONOCHROME2 pixels of 12 bits in 16, the highest of which is number 9",
    ),
    "dark colour": (
        RGB,
        {"BitsStored": 7, "HighBit": 6},
        "RGB pixels of 7 bits in 8, the highest of which is number 6",
    ),
    "presentation table": (
        GREY,
        {"PresentationLUTSequence": lookup([0, 255], 0, 8)},
        "a presentation lookup table",
    ),
    "too few": (GREY, {"Rows": 40}, "truncated"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_a_short_reason(tmp_path: Path, case: str) -> None:
    stored, elements, reason = REFUSED[case]
    path = write_dicom(tmp_path / "a.dcm", stored, **elements)
    with pytest.raises(UnreadableImage) as error:
        read_image(path)
    assert error.value.reason == reason


def test_a_compression_that_needs_a_plug_in_is_named(tmp_path: Path) -> None:
    """High-throughput JPEG 2000 and MPEG: pydicom decodes the first through a plug-in only, the
    other not at all.
    """
    from pydicom import dcmread
    from pydicom.encaps import encapsulate

    for syntax, name in (
        ("1.2.840.10008.1.2.4.201", "High-Throughput JPEG 2000"),
        ("1.2.840.10008.1.2.4.100", "MPEG"),
    ):
        image = dcmread(write_dicom(tmp_path / "a.dcm", GREY))
        image.file_meta.TransferSyntaxUID = syntax
        image.PixelData = encapsulate([b"\0" * 100])
        image.save_as(tmp_path / "b.dcm")
        with pytest.raises(
            UnreadableImage, match=f"^pixels compressed as {name}.*without a plug-in$"
        ):
            read_image(tmp_path / "b.dcm")


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("syntax", [None, "1.2.840.10008.1.2.5"])
def test_half_a_file_is_never_half_an_image(tmp_path: Path, syntax: str | None) -> None:
    content = write_dicom(tmp_path / "a.dcm", SMOOTH, syntax).read_bytes()
    for length in range(1, len(content) - 12, 7):
        (tmp_path / "a.dcm").write_bytes(content[:length])
        with pytest.raises(
            UnreadableImage, match=r"^(truncated|not a DICOM file|damaged|no pixels)"
        ):
            read_image(tmp_path / "a.dcm")


def test_without_the_library_the_remedy_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for label in ("ill", "well"):
        write_dicom(tmp_path / label / "a.dcm", GREY)
    monkeypatch.setitem(sys.modules, "pydicom", None)
    (tmp_path / ".path").mkdir()  # decoder processes lack it, too
    (tmp_path / ".path" / "pydicom.py").write_text(
        "raise ImportError('no pydicom')", encoding="utf-8"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / ".path"))
    monkeypatch.setattr(decoders, "_idle", [])
    data = FolderData(source="folder", path=str(tmp_path), on_error="skip")
    with pytest.raises(DataError, match=r"pip install pydicom$") as error:
        build_manifest(data, tmp_path)
    # It is no fault of the image, which is not to be skipped.
    assert not isinstance(error.value, UnreadableImage)
    assert "\n" not in str(error.value)


def test_the_library_is_imported_only_for_dicom_files() -> None:
    code = "import sys, trainables.pictures.readers; sys.exit('pydicom' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_folder_becomes_a_manifest_and_an_image_store(tmp_path: Path) -> None:
    """Scanners that count in 10, 12 and 16 bits, black or white zeros, names without suffix: one
    range.
    """
    base = tmp_path / "data"
    tens, tops = (
        RANDOM.integers(0, 1024, (40, 40)).astype(np.uint16),
        RANDOM.integers(0, 65536, (40, 40)),
    )
    write_dicom(base / "ill" / "a.dcm", tens, BitsStored=10)
    write_dicom(
        base / "ill" / "IM0002", DEEP, BitsStored=12, PhotometricInterpretation="MONOCHROME1"
    )
    write_dicom(base / "well" / "1.2.3", tops.astype(np.uint16), BitsStored=16)
    write_dicom(base / "well" / "b.DCM", GREY)
    write_dicom(base / "well" / "frames.dcm", FRAMES, NumberOfFrames=3, Rows=20)
    write_dicom(base / "well" / "DICOMDIR", GREY, PixelData=None)
    (base / "well" / "README").write_text("no image " * 40)
    manifest = build_manifest(FolderData(source="folder", path=str(base), on_error="skip"), base)
    assert manifest.usable["image"].tolist() == [
        "ill/IM0002",
        "ill/a.dcm",
        "well/1.2.3",
        "well/b.DCM",
    ]
    bad = (
        manifest.table[manifest.table["state"] == "skipped"].set_index("image")["reason"].to_dict()
    )
    assert bad == {
        "well/frames.dcm": "3 frames",
        "well/README": "a format that rayfold does not read: no suffix",
    }
    assert (manifest.usable["bits"] == 8).all()
    assert manifest.channels == 1
    assert manifest.usable["max_value"].min() > 250
    store = build_store(manifest, InputFormat(32), tmp_path / "stores")
    np.testing.assert_array_equal(
        store.pixels[1], resize(np.rint(tens * (255 / 1023)).astype(np.uint8), InputFormat(32), 1)
    )


def patients(folder: Path, **options: object) -> tuple[list[str], tuple[str, ...]]:
    manifest = build_manifest(FolderData(source="folder", path=str(folder), **options), folder)
    return manifest.table["group"].tolist(), manifest.notes


def test_the_patient_in_the_header_is_the_group_and_stays_unknown(tmp_path: Path) -> None:
    people = [
        ("Doe^1", "A"),
        ("Doe^1", "A"),
        ("Doe^1", "B"),
        ("Roe^2", None),
        ("", None),
        (" Roe^2 ", None),
    ]
    for number, (name, issuer) in enumerate(people):
        elements = {"PatientID": name} | ({"IssuerOfPatientID": issuer} if issuer else {})
        suffix = ".dcm" if number % 2 else ""
        write_dicom(
            tmp_path / "data" / ("ill", "well")[number // 3] / f"{number}{suffix}",
            GREY + number,
            **elements,
        )
    groups, notes = patients(tmp_path / "data")
    assert groups[0] == groups[1] != groups[2]
    assert groups[3] == groups[5] not in groups[:3]
    assert groups[4] == "well/4"
    assert "5 DICOM files without a group are grouped by the PatientID" in notes[0]
    assert "1 of 6 images have no group" in notes[1]
    assert not any("oe" in text for text in (*groups, *notes))
    assert groups[3] == "patient-ed2e69a4d7dd5f58"  # the same on every machine
    assert patients(tmp_path / "data", group_from_name=r"(\d)")[0] == list("012345")


def test_one_patient_id_for_all_tells_no_patients_apart(tmp_path: Path) -> None:
    for number in range(4):
        write_dicom(
            tmp_path / ("ill", "well")[number // 2] / f"{number}.dcm",
            GREY + number,
            PatientID="ANON",
        )
    groups, notes = patients(tmp_path)
    assert len(set(groups)) == 4
    assert "one and the same PatientID" in notes[0]
    assert "every image is its own group" in notes[1]
