"""Which image formats rayfold reads, told by a file's first bytes; suffixes only say what is meant
as an image.
"""

import re
from pathlib import Path

from trainables.core.files import open_regular
from trainables.core.spelling import quoted

#: Suffixes of files that are taken for images in a folder, in lower case; others are looked into.
IMAGE_SUFFIXES = frozenset(
    {
        ".png",
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".bmp",
        ".dib",
        ".tif",
        ".tiff",
        ".gif",
        ".webp",
        ".pgm",
        ".ppm",
        ".pbm",
        ".pnm",
        ".jp2",
        ".j2k",
        ".j2c",
        ".jpx",
        ".jpf",
        ".jpc",
        ".dcm",
        ".dicom",
    }
)
_DICOM_SUFFIXES = (".dcm", ".dicom")

#: How files of each format begin; what is named first is tried first.
_BEGINNINGS = {
    "PNG": re.compile(rb"\x89PNG\r\n\x1a\n"),
    "JPEG": re.compile(rb"\xff\xd8\xff"),
    "BMP": re.compile(rb"BM.{4}\0{4}", re.DOTALL),
    "TIFF": re.compile(rb"II[*+]\0|MM\0[*+]"),
    "GIF": re.compile(rb"GIF8[79]a"),
    "WebP": re.compile(rb"RIFF.{4}WEBP", re.DOTALL),
    "PNM": re.compile(rb"P[1-6]\s(?:\s|#[^\n]*\n)*\d+\s"),
    "JPEG 2000": re.compile(rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51"),
}
# A DICOM data set whose preamble was cut off: its first element is one of group 0002 or 0008, with
# a value representation of two capitals or, where that is implicit, with a length of less than 64
# KiB.
_BARE_DICOM = re.compile(rb"[\x02\x08]\0.\0(?:[A-Z]{2}|..\0\0)", re.DOTALL)
#: Bytes at the beginning of a file that tell its format.
ENOUGH = 1024

#: The formats as people read them.
FORMATS = f"{', '.join(_BEGINNINGS)} or DICOM"


def format_of(content: bytes) -> str | None:
    """The format of a file by its first bytes, 132 or more; None for what rayfold does not read."""
    if has_dicom_preamble(content):
        return "DICOM"
    for name, beginning in _BEGINNINGS.items():
        if beginning.match(content):
            return name
    return "DICOM" if _BARE_DICOM.match(content) else None


def has_dicom_preamble(content: bytes) -> bool:
    """Whether the first bytes of a file, 132 or more, are those of a DICOM file (PS3.10, 7.1)."""
    return content[128:132] == b"DICM"


def is_dicom(path: Path) -> bool:
    """Whether a path is a regular file, readable, that begins as a DICOM file does, whatever its
    suffix.
    """
    return format_of(_beginning(path) or b"") == "DICOM"


def unread_format(path: Path) -> str | None:
    """Why a listed file is no image by its name and its first bytes: a short reason, or None where
    it may be one.

    Of what cannot be read, reading will say why.
    """
    suffix = path.suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        return None
    beginning = _beginning(path)
    if beginning is None or format_of(beginning):  # DICOM files are often named by a number alone
        return None
    return f"a format that rayfold does not read: {quoted(path.suffix)[1:-1] or 'no suffix'}"


def not_an_image(path: Path) -> str:
    """The reason for a file that begins like no format that is read."""
    return (
        "not a DICOM file" if path.suffix.lower() in _DICOM_SUFFIXES else f"not a {FORMATS} image"
    )


def _beginning(path: Path) -> bytes | None:
    """The first bytes of a file; None where it cannot be read, or is a device or pipe, which may
    never end.
    """
    try:
        with open_regular(path) as file:
            return file.read(ENOUGH)
    except OSError:
        return None
