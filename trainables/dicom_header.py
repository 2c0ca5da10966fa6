"""Who a DICOM file shows, out of its header alone, as a pseudonym."""

import hashlib
from pathlib import Path

from trainables.dicom import import_pydicom

_TAGS = ["PatientID", "IssuerOfPatientID"]


def read_patient(path: Path) -> str | None:
    """A digest of PatientID and its issuer, 'patient-' and 16 hex digits, the same on every machine; else None.

    The identity itself is written nowhere. Whoever holds a list of possible PatientIDs can find out which of them is
    meant, so this is a pseudonym and no anonymisation. Raises `DataError` without pydicom.
    """
    pydicom = import_pydicom()
    try:
        header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=_TAGS, force=True)
        patient = str(header.get("PatientID") or "").strip()
        issuer = str(header.get("IssuerOfPatientID") or "").strip()
    except Exception:  # damaged bytes raise almost anything; decoding the file will say what is wrong
        return None
    if not patient:
        return None
    return f"patient-{hashlib.sha256(f'rayfold {issuer} {patient}'.encode()).hexdigest()[:16]}"
