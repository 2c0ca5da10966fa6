"""Secondary captures belong to the study of their source, say what they are, and hold the very
overlay.
"""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tests.dicoms import write_dicom
from trainables.core.data_config import FolderData
from trainables.core.errors import DataError
from trainables.core.layout import RunLayout
from trainables.data.manifest import build_manifest
from trainables.pictures.readers import read_image
from xai.drawing.pages import Style, draw_cell, overlay_name
from xai.drawing.secondary_capture import capture_row, derivation, write_secondary_capture
from xai.shards.heatmaps import write_shard
from xai.shards.map_columns import pack

pydicom = pytest.importorskip("pydicom")

RANDOM = np.random.default_rng(3)
GREY = RANDOM.integers(0, 256, (20, 30), dtype=np.uint8)
OVERLAY = RANDOM.integers(0, 256, (21, 33, 3), dtype=np.uint8)  # an odd number of bytes
STUDY = {
    "PatientName": "Doe^Jane",
    "PatientID": "4711",
    "PatientBirthDate": "19500102",
    "PatientSex": "F",
    "StudyDate": "20200304",
    "StudyTime": "101112",
    "AccessionNumber": "A1",
    "StudyID": "S1",
    "ReferringPhysicianName": "Roe^Richard",
    "InstanceNumber": 7,
    "PatientOrientation": ["L", "F"],
}
ROW = {
    "candidate": "tiny",
    "method": "gradcam",
    "layer": "relu",
    "class": "Opacity",
    "fold": 2,
    "seed": 0,
}
ROW |= {"probability": 0.91, "model_hash": "0123456789abcdef"}

#: Elements that may not be empty in a Secondary Capture of colours, and those that may (PS3.3
#: A.8.1, types 1 and 2).
TYPE_1 = [
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "Modality",
    "ConversionType",
    "SOPClassUID",
    "SOPInstanceUID",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "PlanarConfiguration",
    "Rows",
    "Columns",
    "PixelData",
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"),
]
TYPE_2 = [*STUDY, "SeriesNumber", "Manufacturer"]


def source(folder: Path, **elements: Any) -> Path:
    return write_dicom(folder / "source.dcm", GREY, **{**STUDY, **elements})


def written(folder: Path, of: Path, overlay: np.ndarray = OVERLAY, **changes: Any) -> Any:
    arguments = {
        "series": ["run", "tiny", "gradcam"],
        "title": "Grad-CAM tiny",
        "description": "Not for diagnosis.",
    }
    path = write_secondary_capture(
        of, overlay, folder / "out" / "capture.dcm", **{**arguments, **changes}
    )
    return pydicom.dcmread(path)


def test_it_has_all_that_its_class_requires(tmp_path: Path) -> None:
    capture = written(tmp_path, source(tmp_path))
    assert [
        keyword for keyword in TYPE_1 if not hasattr(capture, keyword) or capture[keyword].is_empty
    ] == []
    assert [keyword for keyword in TYPE_2 if keyword not in capture] == []
    assert (
        capture.SOPClassUID
        == capture.file_meta.MediaStorageSOPClassUID
        == "1.2.840.10008.5.1.4.1.1.7"
    )
    assert capture.SOPInstanceUID == capture.file_meta.MediaStorageSOPInstanceUID
    assert capture.SOPInstanceUID.is_valid
    assert capture.SeriesInstanceUID.is_valid
    assert len(capture.PixelData) == 21 * 33 * 3 + 1
    assert capture.ImageType[:2] == ["DERIVED", "SECONDARY"]


def test_pixels_come_back(tmp_path: Path) -> None:
    capture = written(tmp_path, source(tmp_path))
    np.testing.assert_array_equal(capture.pixel_array, OVERLAY)
    np.testing.assert_array_equal(read_image(tmp_path / "out" / "capture.dcm"), OVERLAY)
    with pytest.raises(ValueError, match="uint8"):
        written(tmp_path, source(tmp_path), GREY)


def test_it_belongs_to_the_study_and_names_its_source(tmp_path: Path) -> None:
    image = pydicom.dcmread(
        source(tmp_path, StationName="secret", InstitutionName="secret", PatientAddress="secret")
    )
    capture = written(tmp_path, tmp_path / "source.dcm")
    for keyword in ("StudyInstanceUID", *STUDY):
        assert capture[keyword].value == image[keyword].value, keyword
    assert capture.SeriesInstanceUID != image.SeriesInstanceUID
    (reference,) = capture.SourceImageSequence
    assert reference.ReferencedSOPInstanceUID == image.SOPInstanceUID
    assert reference.ReferencedSOPClassUID == image.SOPClassUID
    assert reference.PurposeOfReferenceCodeSequence[0].CodeValue == "121322"
    assert "secret" not in str(capture)


def test_what_the_source_does_not_know_is_empty_and_not_invented(tmp_path: Path) -> None:
    capture = written(tmp_path, write_dicom(tmp_path / "bare.dcm", GREY))
    assert all(capture[keyword].is_empty for keyword in STUDY)
    assert "BurnedInAnnotation" not in capture
    assert "PatientIdentityRemoved" not in capture


def test_flags_of_the_source_hold(tmp_path: Path) -> None:
    flags = {
        "BurnedInAnnotation": "YES",
        "LossyImageCompression": "01",
        "LossyImageCompressionRatio": 12,
    }
    flags |= {"PatientIdentityRemoved": "YES", "DeidentificationMethod": "Basic profile"}
    capture = written(tmp_path, source(tmp_path, **flags))
    assert {keyword: capture[keyword].value for keyword in flags} == flags


def test_uids_follow_from_what_they_name(tmp_path: Path) -> None:
    of = source(tmp_path)
    first = written(tmp_path, of)
    content = (tmp_path / "out" / "capture.dcm").read_bytes()
    written(tmp_path, of)
    assert (tmp_path / "out" / "capture.dcm").read_bytes() == content
    others = [
        written(tmp_path, of, 255 - OVERLAY),
        written(tmp_path, of, description="Another."),
        written(tmp_path, source(tmp_path, SOPInstanceUID="2.25.99")),
    ]
    assert {other.SeriesInstanceUID for other in others} == {first.SeriesInstanceUID}
    strange = [
        written(tmp_path, of, series=["other run", "tiny", "gradcam"]),
        written(tmp_path, of, series=["run", "tinygradcam"]),
        written(tmp_path, source(tmp_path, StudyInstanceUID="2.25.98")),
    ]
    assert len({first.SeriesInstanceUID, *(other.SeriesInstanceUID for other in strange)}) == 4
    assert (
        len({first.SOPInstanceUID, *(other.SOPInstanceUID for other in (*others, *strange))}) == 7
    )


@pytest.mark.parametrize(
    ("charset", "name"),
    [("ISO_IR 100", "Müller^Jürgen"), (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎")],
)
def test_names_survive_whatever_the_character_set(
    tmp_path: Path, charset: object, name: str
) -> None:
    of = source(tmp_path, SpecificCharacterSet=charset, PatientName=name)
    capture = written(
        tmp_path, of, title="Grad-CAM\\胸部 " + 90 * "x", description="Klasse 胸部 " + 2000 * "x"
    )
    assert str(capture.PatientName) == name
    assert capture.SeriesDescription.startswith("Grad-CAM/胸部 x")
    assert len(capture.SeriesDescription) == 64
    assert capture.DerivationDescription.startswith("Klasse 胸部 x")
    assert len(capture.DerivationDescription) == 1024


def test_sources_that_cannot_be_named_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.dcm").write_text("no image")
    for of, reason in (
        (
            write_dicom(tmp_path / "a.dcm", GREY, StudyInstanceUID=None),
            "must name the StudyInstanceUID",
        ),
        (tmp_path / "text.dcm", "needs a DICOM file"),
        (tmp_path / "none.dcm", "needs a DICOM file"),
    ):
        with pytest.raises(DataError, match=reason) as error:
            written(tmp_path, of)
        assert "\n" not in str(error.value)
    path = capture_row(tmp_path / "a.dcm", OVERLAY, tmp_path / "b.dcm", "run", ROW, 1.0, True)
    assert path == tmp_path / "b.txt"
    assert "StudyInstanceUID" in path.read_text()
    assert not (tmp_path / "b.dcm").exists()


def test_the_derivation_says_what_is_shown() -> None:
    text = derivation(ROW, 0.01234, True)
    for part in (
        "Not for diagnostic use",
        "Grad-CAM",
        "Opacity",
        "0.910",
        "tiny",
        "fold 2",
        "0.01234",
        "shared",
    ):
        assert part in text
    assert "this image alone" in derivation(ROW, 0.01234, False)


def test_overlays_of_dicom_images_are_written_as_captures_too(tmp_path: Path) -> None:
    """A run of one DICOM and one PNG image per class, as `rayfold explain` draws it."""
    data = tmp_path / "data"
    for number, label in enumerate(("ill", "well")):
        write_dicom(
            data / label / "a.dcm",
            GREY + np.uint8(number),
            **STUDY,
            SOPInstanceUID=f"2.25.{number}",
        )
        assert cv2.imwrite(str(data / label / "b.png"), GREY[::-1] + np.uint8(number))
    manifest = build_manifest(FolderData(source="folder", path=str(data)), data)
    layout = RunLayout(tmp_path / "run")
    layout.root.mkdir()
    manifest.save(layout.manifest)
    layout.cells.write_text(json.dumps(["cell"]))
    heat = RANDOM.random((5, 5)).astype(np.float32)
    rows = [
        {
            **ROW,
            **pack(heat),
            "image": image,
            "label": label,
            "class": label,
            "prediction": label,
            "split": "fold",
        }
        for image, label in zip(manifest.usable["image"], manifest.usable["label"], strict=True)
    ]
    write_shard(layout.heatmaps / "gradcam" / "relu" / "cell" / "0.parquet", rows, "digest")
    style = Style(edge=16).model_dump()
    assert draw_cell(str(layout.root), ("tiny", "gradcam", "relu"), 2, 0, 1.0, style) == 4
    found = {path.name for path in layout.overlays.rglob("*.*") if path.is_file()}
    assert found == {overlay_name(row["image"], ".jpg") for row in rows} | {
        overlay_name(f"{label}/a.dcm", ".dcm") for label in ("ill", "well")
    }
    captures = [pydicom.dcmread(path) for path in sorted(layout.overlays.rglob("*.dcm"))]
    assert {capture.SourceImageSequence[0].ReferencedSOPInstanceUID for capture in captures} == {
        "2.25.0",
        "2.25.1",
    }
    assert len({capture.SeriesInstanceUID for capture in captures}) == 1
    for path, capture in zip(sorted(layout.overlays.rglob("*.dcm")), captures, strict=True):
        assert "0.910" in capture.DerivationDescription
        jpeg = read_image(path.with_suffix(".jpg"))
        assert np.abs(jpeg.astype(int) - capture.pixel_array).mean() < 12
