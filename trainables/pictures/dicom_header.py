"""DICOM headers: read without what inflates them to gigabytes, and who a file shows, as a
pseudonym.
"""

import hashlib
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from trainables.core.errors import DataError, UnreadableImage
from trainables.core.files import open_regular
from trainables.core.limits import MEGAPIXELS, most_bytes

if TYPE_CHECKING:
    from pydicom import Dataset

_TAGS = ["PatientID", "IssuerOfPatientID"]
_BLOCK = 2**16  # bytes


def import_pydicom() -> Any:
    """pydicom; raises `DataError` where it is not installed."""
    try:
        import pydicom
        import pydicom.pixels
    except ImportError as error:
        raise DataError(
            f"DICOM files need a library that is not installed ({error}): pip install pydicom"
        ) from None
    return pydicom


def read_dataset(file: BinaryIO, max_megapixels: float, **options: Any) -> "Dataset":
    """pydicom's `dcmread` with its options, of a file that may lack its preamble.

    Raises `UnreadableImage` where the data set would inflate to more than its pixels can need, and
    almost anything for damaged bytes.
    """
    pydicom = import_pydicom()
    most = most_bytes(max_megapixels)
    if _inflates_beyond(file, most):
        raise UnreadableImage(
            f"inflates to more than {most / 1e6:,.0f} MB, all that its pixels can need"
        )
    file.seek(0)
    return pydicom.dcmread(file, **{"force": True, **options})


def _inflates_beyond(file: BinaryIO, most: int) -> bool:
    """Whether a data set is deflated, and holds more bytes than `most`."""
    from pydicom.filereader import read_preamble
    from pydicom.uid import DeflatedExplicitVRLittleEndian

    file.seek(0)
    read_preamble(file, force=True)
    if _file_meta(file).get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
        return False
    inflate, found = zlib.decompressobj(-zlib.MAX_WBITS), 0
    while found <= most and (data := inflate.unconsumed_tail or file.read(_BLOCK)):
        found += len(inflate.decompress(data, 16 * _BLOCK))
    return found > most


def _file_meta(file: BinaryIO) -> Any:
    """The file meta information, group 2; leaves the file where the data set begins."""
    from pydicom.filereader import read_dataset

    start = file.tell()
    for implicit in (False, True):  # explicit by the standard, implicit in some files
        file.seek(start)
        meta = read_dataset(file, implicit, True, stop_when=lambda tag, *_: tag.group != 2)
        try:
            next(iter(meta), None)
        except NotImplementedError:  # no kind of value is called so
            continue
        break
    return meta


def read_patient(path: Path) -> str | None:
    """A digest of PatientID and its issuer, 'patient-' and 16 hex digits, the same on every
    machine; else None.

    The identity itself is written nowhere. Whoever holds a list of possible PatientIDs can find out
    which of them is meant, so this is a pseudonym and no anonymisation. Raises `DataError` without
    pydicom.
    """
    import_pydicom()
    try:
        with open_regular(path) as file:
            header = read_dataset(file, MEGAPIXELS, stop_before_pixels=True, specific_tags=_TAGS)
        patient = str(header.get("PatientID") or "").strip()
        issuer = str(header.get("IssuerOfPatientID") or "").strip()
    except Exception:
        # Damaged bytes raise almost anything; decoding the file will say what is wrong.
        return None
    if not patient:
        return None
    return f"patient-{hashlib.sha256(f'rayfold {issuer} {patient}'.encode()).hexdigest()[:16]}"
