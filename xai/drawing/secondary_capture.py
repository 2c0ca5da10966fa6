"""Overlays for the archive: a DICOM Secondary Capture Image that belongs to the study of the image
it explains.
"""

import hashlib
import io
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from trainables.core.errors import DataError
from trainables.core.files import open_regular, replacing, write_text
from trainables.core.limits import MEGAPIXELS
from trainables.core.quoting import printable
from trainables.pictures.dicom_header import import_pydicom, read_dataset
from xai.drawing.render import Bytes, Row, fold_of, method_title, shorten, sign_note

if TYPE_CHECKING:
    from pydicom import Dataset

_LONG_STRING = 64  # characters of a value of type LO
_SHORT_TEXT = 1024  # and of ST
_NEEDED = "a secondary capture needs a DICOM file as its source"

#: What must be in the file, though it may be empty there: patient, study, image (PS3.3 C.7.1.1,
#: C.7.2.1, C.7.6.1).
_REQUIRED = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex"),
    *("StudyDate", "StudyTime", "ReferringPhysicianName", "StudyID", "AccessionNumber"),
    *("InstanceNumber", "PatientOrientation"),
)
_IDENTITY = ("StudyInstanceUID", "SOPClassUID", "SOPInstanceUID")
#: What is copied where the source has it: whose identity and study it is, how far it was removed,
#: what was lost.
_OPTIONAL = (
    "IssuerOfPatientID",
    "PatientSpeciesDescription",
    "PatientSpeciesCodeSequence",
    "PatientBreedDescription",
    "PatientBreedCodeSequence",
    "BreedRegistrationSequence",
    "ResponsiblePerson",
    "ResponsiblePersonRole",
    "ResponsibleOrganization",
    "AnatomicalOrientationType",
    "BodyPartExamined",
    "Laterality",
    "ImageLaterality",
    *("PatientIdentityRemoved", "DeidentificationMethod", "DeidentificationMethodCodeSequence"),
    *("StudyDescription", "BurnedInAnnotation", "RecognizableVisualFeatures"),
    *("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod"),
)


def derivation(row: Row, scale: float, shared: bool) -> str:
    """What a picture's file must say of the map of a row drawn at `scale`: what it is, of which
    class, how reliable.
    """
    of = "shared by its set of images" if shared else "of this image alone, not to be compared"
    return printable(
        f"Not for diagnostic use. {method_title(row['method'])} heatmap for the class "
        f"{row['class']} (probability {row['probability']:.3f}) of the model {row['candidate']}, "
        f"fold {fold_of(row)}, seed {int(row['seed'])}, layer {row['layer']}, model hash "
        f"{row['model_hash']}, drawn over the image. Colours end at {scale:.4g}, a scale {of}. "
        f"{sign_note(row['method'])}"
    )


def capture_row(
    source: Path, overlay: Bytes, path: Path, run: str, row: Row, scale: float, shared: bool
) -> Path:
    """Write the overlay of a row of the heatmaps table, drawn at `scale`, as
    `write_secondary_capture` does.

    The series holds what the cell `row` belongs to shows by one method in one layer. Where the
    source lacks what a capture must name, a text file (.txt) in its place says so. Returns what was
    written.
    """
    cell = f"fold {fold_of(row)} seed {int(row['seed'])}"
    identity = [
        run,
        *(str(row[name]) for name in ("candidate", "method", "layer", "model_hash")),
        cell,
    ]
    title = f"{method_title(row['method'])} {row['candidate']} {cell}"
    try:
        return write_secondary_capture(
            source, overlay, path, identity, title, derivation(row, scale, shared)
        )
    except DataError as error:
        write_text(path.with_suffix(".txt"), f"{error}\n")
        return path.with_suffix(".txt")


def write_secondary_capture(
    source: Path, overlay: Bytes, path: Path, series: Sequence[str], title: str, description: str
) -> Path:
    """Write an overlay as a Secondary Capture Image (PS3.3 A.8.1) of the study of a DICOM file, and
    return `path`.

    `overlay` is uint8 (H, W, 3), RGB, stored without compression. `series` names what its series
    holds: the same names and study always give the same SeriesInstanceUID; the SOPInstanceUID
    follows from the series, the source and all that is in the picture and its description, so that
    no two contents share one. `title` becomes the series description, `description` how the picture
    was derived.

    Patient and study are copied from the source, and nothing else that could identify anyone; the
    picture adds no text, so what the source says of burned-in annotation holds for it. There is no
    time of creation: the same input gives the same file, byte for byte. Raises `DataError` where
    the source cannot be read or has no study, class or instance UID.
    """
    if overlay.ndim != 3 or overlay.shape[2] != 3 or overlay.dtype != "uint8":
        raise ValueError(f"an overlay must be uint8 (H, W, 3), got {overlay.dtype} {overlay.shape}")
    import_pydicom()
    try:
        with open_regular(source) as file:
            of = read_dataset(
                file, MEGAPIXELS, force=False, specific_tags=[*_IDENTITY, *_REQUIRED, *_OPTIONAL]
            )
        of.decode()  # text, whatever its character set was
        missing = [keyword for keyword in _IDENTITY if not of.get(keyword)]
    except DataError as error:
        raise DataError(f"{_NEEDED}, got {str(source)!r}: {error}") from None
    except (
        Exception
    ) as error:  # damaged bytes raise almost anything; its text may hold what the header says
        raise DataError(f"{_NEEDED}, got {str(source)!r}: {type(error).__name__}") from None
    if missing:
        raise DataError(
            f"a secondary capture must name the {missing[0]} of its source, which {str(source)!r} "
            "lacks"
        )
    try:
        content = _capture(of, overlay, series, title, description)
    except (TypeError, KeyError, AttributeError, ValueError, NotImplementedError) as error:
        raise DataError(
            f"{_NEEDED} whose patient and study can be copied, got {str(source)!r}: "
            f"{type(error).__name__}"
        ) from None
    with replacing(path) as temporary:
        temporary.write_bytes(content)
    return path


def _capture(
    of: "Dataset", overlay: Bytes, series: Sequence[str], title: str, description: str
) -> bytes:
    """The content of the file."""
    import pydicom

    capture = pydicom.Dataset()
    capture.SpecificCharacterSet = "ISO_IR 192"  # UTF-8: names of classes and patients alike
    _copy_identity(of, capture)
    _describe(of, capture, title, description)
    _set_pixels(capture, overlay)
    capture.SeriesInstanceUID = _uid("series", str(of.StudyInstanceUID), *series)
    pixels = hashlib.sha256(overlay.tobytes()).hexdigest()
    capture.SOPInstanceUID = _uid(
        "instance", capture.SeriesInstanceUID, str(of.SOPInstanceUID), description, pixels
    )
    capture.SOPClassUID = pydicom.uid.SecondaryCaptureImageStorage
    capture.file_meta = pydicom.dataset.FileMetaDataset()
    capture.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    with io.BytesIO() as content:
        capture.save_as(content, enforce_file_format=True)
        return content.getvalue()


def _copy_identity(of: "Dataset", capture: "Dataset") -> None:
    capture.StudyInstanceUID = of.StudyInstanceUID
    for keyword in _REQUIRED:
        setattr(capture, keyword, None)
    for keyword in (*_REQUIRED, *_OPTIONAL):
        if keyword in of:
            capture[keyword] = of[keyword]


def _describe(of: "Dataset", capture: "Dataset", title: str, description: str) -> None:
    from pydicom import Dataset
    from pydicom.sr.coding import Code

    capture.Modality = "OT"
    capture.SeriesNumber = None
    # A backslash would part two values.
    capture.SeriesDescription = shorten(title.replace("\\", "/"), _LONG_STRING)
    capture.ConversionType = "WSD"  # made by a workstation
    capture.Manufacturer = capture.SecondaryCaptureDeviceManufacturer = "rayfold"
    capture.ImageType = ["DERIVED", "SECONDARY", "OTHER"]
    capture.DerivationDescription = shorten(description, _SHORT_TEXT)
    capture.ImageComments = "Not for diagnostic use."
    purpose = Code("121322", "DCM", "Source image for image processing operation")
    coded = Dataset()
    coded.CodeValue, coded.CodingSchemeDesignator, coded.CodeMeaning = (
        purpose.value,
        "DCM",
        purpose.meaning,
    )
    reference = Dataset()
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = (
        of.SOPClassUID,
        of.SOPInstanceUID,
    )
    reference.PurposeOfReferenceCodeSequence = [coded]
    capture.SourceImageSequence = [reference]


def _set_pixels(capture: "Dataset", overlay: Bytes) -> None:
    capture.SamplesPerPixel, capture.PhotometricInterpretation, capture.PlanarConfiguration = (
        3,
        "RGB",
        0,
    )
    capture.Rows, capture.Columns = overlay.shape[:2]
    capture.BitsAllocated = capture.BitsStored = 8
    capture.HighBit, capture.PixelRepresentation = 7, 0
    pixels = overlay.tobytes()
    capture.PixelData = pixels + b"\0" * (len(pixels) % 2)


def _uid(*names: str) -> str:
    """A UID that follows from names alone: that of their UUID (PS3.5 B.2)."""
    return f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, chr(0).join(('rayfold', *names))).int}"
