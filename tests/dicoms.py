"""DICOM files for tests, made in the test."""

from pathlib import Path
from typing import Any

import numpy as np


def write_dicom(path: Path, stored: np.ndarray, syntax: str | None = None, **elements: Any) -> Path:
    """A radiograph of stored values uint8, uint16 or int16 (H, W), or uint8 (H, W, 3); None leaves
    an element out.
    """
    from pydicom import Dataset
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian

    image = Dataset()
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.SOPClassUID, image.SOPInstanceUID = DigitalXRayImageStorageForPresentation, "2.25.3"
    image.StudyInstanceUID, image.SeriesInstanceUID = "2.25.1", "2.25.2"
    image.Rows, image.Columns = stored.shape[:2]
    image.SamplesPerPixel, image.PhotometricInterpretation = (
        (3, "RGB") if stored.ndim == 3 else (1, "MONOCHROME2")
    )
    if stored.ndim == 3:
        image.PlanarConfiguration = 0
    image.BitsAllocated = 8 * stored.itemsize
    image.BitsStored = elements.pop("BitsStored", image.BitsAllocated)
    image.HighBit, image.PixelRepresentation = image.BitsStored - 1, int(stored.dtype.kind == "i")
    image.PixelData = stored.tobytes()
    for keyword, value in elements.items():
        if value is None:
            delattr(image, keyword)
        else:
            setattr(image, keyword, value)
    if syntax:
        image.compress(syntax, generate_instance_uid=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save_as(path, enforce_file_format="SOPInstanceUID" in image)
    return path


def lookup(table: list[int], first: int, bits: int, representation: str = "US") -> Any:
    """One item of a modality or VOI LUT sequence."""
    from pydicom import DataElement, Dataset

    item = Dataset()
    item.add(DataElement("LUTDescriptor", "SS" if first < 0 else "US", [len(table), first, bits]))
    words: Any = np.array(table, "<u2").tobytes() if representation == "OW" else table
    item.add(DataElement("LUTData", representation, words))
    return [item]
