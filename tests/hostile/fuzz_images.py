"""Kinds of hostile input for `fuzz.py`: folders in which a few whole images stand beside many
damaged ones.
"""

import io
import random
import struct
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from tests.dicoms import lookup, write_dicom
from trainables.core.data_config import FolderData
from trainables.core.input_format import InputFormat
from trainables.data.manifest import build_manifest
from trainables.data.store import build_store

DAMAGED = 60  # files of a folder
SIZE = 32
Task = list[str] | Callable[[], object]
Sample = tuple[str, bytes]  # suffix and content

EXPERIMENT = """\
name: fuzz
data: {source: folder, path: data, on_error: skip}
folds: {k: 2, validation_fraction: 0.34}
training: {epochs: 1}
candidates: [{name: tiny, model: TinyCNN, image_size: 32}]
"""
EXTREMES = (
    0,
    1,
    2,
    7,
    2**7,
    2**8 - 1,
    2**15,
    2**16 - 1,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**63,
    2**64 - 1,
)
SYNTAXES = (
    *("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"),
    "1.2.840.10008.1.2.4.50",
    "1.2.840.10008.1.2.4.57",
    "1.2.840.10008.1.2.4.80",
    "1.2.840.10008.1.2.4.90",
    *("1.2.840.10008.1.2.5", "1.2.840.10008.1.2.8.1", "1.2.3"),
)
NUMBERS = (
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "SamplesPerPixel"),
    "Rows",
    "Columns",
)
TEXTS = (
    "RescaleSlope",
    "RescaleIntercept",
    "WindowCenter",
    "WindowWidth",
    "NumberOfFrames",
    "VOILUTFunction",
)
COLOURS = (
    "MONOCHROME1",
    "RGB",
    "YBR_FULL",
    "YBR_FULL_422",
    "YBR_ICT",
    "PALETTE COLOR",
    "HSV",
    "",
    "Doe^Jane",
)


def picture(rng: np.random.Generator, bits: int = 8, channels: int = 1) -> Any:
    """Pixels that are no other picture's, (40, 50) or (40, 50, 3)."""
    shape = (40, 50) if channels == 1 else (40, 50, channels)
    return rng.integers(1, 2**bits, shape).astype(np.uint8 if bits == 8 else np.uint16)


# --- whole files ----------------------------------------------------------------------------------


@cache
def whole_images() -> tuple[Sample, ...]:
    rng = np.random.default_rng(0)
    grey, rgb, deep = picture(rng), picture(rng, channels=3), picture(rng, 12)
    palette = Image.fromarray(rgb).quantize(16)
    found: list[Sample] = []
    for kind, image, options in (
        ("png", Image.fromarray(grey), {"dpi": (300, 300), "icc_profile": b"x" * 200}),
        ("png", Image.fromarray(np.dstack([rgb, grey])), {}),
        ("png", palette, {"transparency": 3}),
        ("jpeg", Image.fromarray(grey), {"exif": _turned()}),
        ("jpeg", Image.fromarray(rgb), {"progressive": True}),
        ("jpeg", Image.fromarray(rgb).convert("CMYK"), {}),
        ("tiff", Image.fromarray(grey), {}),
        ("tiff", Image.fromarray(rgb), {"compression": "tiff_lzw"}),
        ("tiff", Image.fromarray(grey), {"compression": "jpeg"}),
        ("tiff", Image.fromarray(deep), {"compression": "tiff_adobe_deflate", "big_tiff": True}),
        ("tiff", Image.fromarray(grey > 99), {"compression": "group4"}),
        ("bmp", Image.fromarray(rgb), {}),
        ("bmp", palette, {}),
        ("gif", palette, {"transparency": 1}),
        ("webp", Image.fromarray(rgb), {"exif": _turned()}),
        ("webp", Image.fromarray(np.dstack([rgb, grey])), {"lossless": True}),
        ("ppm", Image.fromarray(rgb), {}),
        ("ppm", Image.fromarray(deep.astype(np.int32)), {}),
        ("jpeg2000", Image.fromarray(grey), {}),
    ):
        buffer = io.BytesIO()
        image.save(buffer, kind, **options)
        found.append((f".{kind.replace('jpeg2000', 'jp2')}", buffer.getvalue()))
    for suffix, pixels in ((".png", deep), (".tiff", picture(rng, 16, 3))):
        found.append((suffix, cv2.imencode(suffix, pixels)[1].tobytes()))
    found.append((".pgm", b"P2 # text\n4 2 9\n" + b" ".join(str(n).encode() for n in range(8))))
    return tuple(found)


def _turned() -> Image.Exif:
    exif = Image.Exif()
    exif[274] = 6
    return exif


def dicom_file(rng: random.Random, folder: Path, stored: Any, **elements: Any) -> bytes:
    """A DICOM file of one of the transfer syntaxes that can be written."""
    import pydicom

    syntax = rng.choice((None, None, None, "1.2.840.10008.1.2.5"))
    path = write_dicom(folder / "whole.dcm", stored, syntax, PatientName="Doe^Jane", **elements)
    data = pydicom.dcmread(path)
    if syntax is None and rng.random() < 0.5:
        data.file_meta.TransferSyntaxUID = rng.choice(SYNTAXES[:3])
        if data.file_meta.TransferSyntaxUID.is_implicit_VR:
            data = _implicit(data, path)
    elif syntax is None and stored.dtype == np.uint8 and rng.random() < 0.5:
        buffer = io.BytesIO()
        Image.fromarray(stored).save(buffer, "jpeg")
        data.PixelData = pydicom.encaps.encapsulate([buffer.getvalue()])
        data["PixelData"].is_undefined_length = True
        data.file_meta.TransferSyntaxUID = SYNTAXES[4]
    data.save_as(path)
    content = path.read_bytes()
    path.unlink()
    return content[128 + 4 :] if rng.random() < 0.1 else content  # some lack their preamble


def _implicit(data: Any, path: Path) -> Any:
    import pydicom

    data.save_as(path, implicit_vr=True, little_endian=True)
    return pydicom.dcmread(path)


# --- damage ---------------------------------------------------------------------------------------


def damaged(rng: random.Random, content: bytes) -> bytes:
    """Some bits flipped, bytes cut off, numbers at their extremes, parts left out, doubled or from
    elsewhere.
    """
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 3, 8))):
        # Most that matters stands at the beginning or at the end.
        span = rng.choice((32, 256, len(changed), len(changed)))
        at = rng.randrange(max(1, min(span, len(changed))))
        part = changed[at : at + rng.choice((1, 2, 4, 16, 512))]
        how = rng.randrange(6)
        if how == 0 and changed:
            changed[at % len(changed)] ^= 1 << rng.randrange(8)
        elif how == 1:
            size = rng.choice((1, 2, 4, 8))
            value = rng.choice(EXTREMES) % 2 ** (8 * size)
            changed[at : at + size] = value.to_bytes(size, rng.choice(("little", "big")))
        elif how == 2 and rng.random() < 0.5:
            del changed[at:]
        else:
            changed[at : at + len(part)] = rng.choice(
                (b"", part * 2, rng.randbytes(len(part)), bytes(len(part)))
            )
    return bytes(changed)


def damaged_png(rng: random.Random, content: bytes) -> bytes:
    """A PNG file whose chunks are changed, and their checksums with them."""
    chunks, at = [], 8
    while at + 8 <= len(content):
        length = int.from_bytes(content[at : at + 4], "big")
        chunks.append((content[at + 4 : at + 8], content[at + 8 : at + 8 + length]))
        at += 12 + length
    i = rng.randrange(len(chunks))
    kind, data = chunks[i]
    how = rng.randrange(5)
    if how == 0:
        chunks[0] = (b"IHDR", damaged(rng, chunks[0][1]))
    elif how == 1:
        chunks[i] = (
            rng.choice((b"IDAT", b"tRNS", b"PLTE", b"iCCP", b"zTXt", b"acTL", b"fdAT", b"sBIT")),
            data,
        )
    elif how == 2:
        chunks[i] = (kind, damaged(rng, data))
    elif how == 3:
        chunks.insert(rng.randrange(len(chunks)), (kind, data))
    else:
        del chunks[i]
    lie = rng.choice(EXTREMES[:11]) if rng.random() < 0.1 else None
    parts = [content[:8]]
    for n, (kind, data) in enumerate(chunks):
        length = lie if lie is not None and n == i else len(data)
        parts.append(
            struct.pack(">I", length) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )
    return b"".join(parts)


def damaged_tiff(rng: random.Random, content: bytes) -> bytes:
    """A TIFF file whose directory has other tags, types, counts or values."""
    changed = bytearray(content)
    if content[:4] != b"II*\0":
        return damaged(rng, content)
    (at,) = struct.unpack_from("<I", content, 4)
    (entries,) = struct.unpack_from("<H", content, at)
    for _ in range(rng.choice((1, 1, 2))):
        # the last is where the next directory lies
        entry = at + 2 + 12 * rng.randrange(entries + 1)
        size, offset = rng.choice(((2, 0), (2, 2), (4, 4), (4, 8), (2, 8)))
        value = rng.choice((*EXTREMES, rng.randrange(20), at, len(content)))
        changed[entry + offset : entry + offset + size] = (value % 2 ** (8 * size)).to_bytes(
            size, "little"
        )
    return bytes(changed)


def odd_elements(rng: random.Random) -> dict[str, Any]:
    """Elements of a DICOM file that may contradict its pixels, or each other."""
    found: dict[str, Any] = {}
    for _ in range(rng.choice((1, 1, 2, 3))):
        how = rng.randrange(5)
        if how == 0:
            found[rng.choice(NUMBERS)] = rng.choice(
                (0, 1, 2, 3, 7, 8, 12, 15, 16, 17, 32, 39, 41, 2**15, 2**16 - 1)
            )
        elif how == 1:
            found[rng.choice(TEXTS)] = rng.choice(
                ("0", "-1", "1e308", "-1e-300", "", "4", "1\\2", "LINEAR")
            )
        elif how == 2:
            found["PhotometricInterpretation"] = rng.choice(COLOURS)
        elif how == 3:
            table = [rng.randrange(2**16) for _ in range(rng.choice((1, 2, 256)))]
            item = lookup(
                table, rng.choice((0, -5, 2**15)), rng.choice((0, 8, 16)), rng.choice(("US", "OW"))
            )
            found[rng.choice(("VOILUTSequence", "ModalityLUTSequence"))] = item
        else:
            found["PlanarConfiguration"] = rng.choice((0, 1, 2))
    return found


def damaged_dicom(rng: random.Random, content: bytes) -> bytes:
    """A DICOM file with another transfer syntax, value representation or nesting, or damaged like
    any file.
    """
    how = rng.randrange(4)
    if how == 0:
        syntax = next(
            (uid for uid in sorted(SYNTAXES, key=len, reverse=True) if uid.encode() in content),
            SYNTAXES[0],
        )
        other = rng.choice(SYNTAXES)[: len(syntax)].ljust(len(syntax), "\0")
        return content.replace(syntax.encode(), other.encode(), 1)
    tags = [
        at
        for at in range(132, len(content) - 8)
        if content[at + 4 : at + 6] in (b"US", b"CS", b"DS", b"UI", b"OW")
    ]
    if how == 1 and tags:
        at = rng.choice(tags)
        representation = rng.choice(
            (b"SQ", b"UN", b"XX", b"OB", b"AT", b"\0\0", b"LO", b"DS", b"FD", b"UT")
        )
        return content[: at + 4] + representation + content[at + 6 :]
    if how == 2 and tags:
        begin = b"\x08\0\x40\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\0\xe0\xff\xff\xff\xff"
        at = rng.choice(tags)
        return content[:at] + begin * rng.choice((1, 100, 5000)) + content[at:]
    return damaged(rng, content)


# --- kinds ----------------------------------------------------------------------------------------


def images(rng: random.Random, folder: Path) -> Task:
    """Image files of all formats but DICOM."""
    for n in range(DAMAGED):
        suffix, content = rng.choice(whole_images())
        spoil = (
            {".png": damaged_png, ".tiff": damaged_tiff}.get(suffix, damaged)
            if rng.random() < 0.5
            else damaged
        )
        _put(folder, n, suffix, spoil(rng, content))
    return _task(rng, folder)


def dicoms(rng: random.Random, folder: Path) -> Task:
    """DICOM files."""
    pixels = np.random.default_rng(rng.randrange(2**32))
    for n in range(DAMAGED):
        stored = rng.choice(
            (picture(pixels), picture(pixels, 12), picture(pixels, 12).astype(np.int16))
        )
        stored = picture(pixels, channels=3) if rng.random() < 0.2 else stored
        odd = rng.random() < 0.6
        try:
            content = dicom_file(rng, folder, stored, **(odd_elements(rng) if odd else {}))
        except Exception:  # what pydicom does not write
            content = dicom_file(rng, folder, picture(pixels))
        _put(
            folder,
            n,
            ".dcm",
            content if odd and rng.random() < 0.7 else damaged_dicom(rng, content),
        )
    return _task(rng, folder)


def _put(folder: Path, n: int, suffix: str, content: bytes) -> None:
    path = folder / "data" / "ab"[n % 2] / f"odd{n}{suffix}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _task(rng: random.Random, folder: Path) -> Task:
    """To plan over the folder, or to scan it and to decode what is usable, where its whole images
    must be.
    """
    whole = np.random.default_rng(rng.randrange(2**32))
    for n in range(8):
        Image.fromarray(picture(whole)).save(folder / "data" / "ab"[n % 2] / f"whole{n}.png")
    (folder / "e.yaml").write_text(EXPERIMENT, "utf-8")
    return ["plan", "e.yaml"] if rng.random() < 0.3 else _scan


def _scan() -> None:
    manifest = build_manifest(
        FolderData(source="folder", path="data", on_error="skip"),
        Path.cwd(),
        forms=[InputFormat(SIZE)],
    )
    table = manifest.table
    whole = table[table["image"].str.contains("whole")]
    assert (whole["state"] == "ok").all(), whole[["image", "reason"]].to_string()
    assert not table["reason"].fillna("").str.contains("Doe").any()
    assert table["reason"].fillna("").map(str.isprintable).all()
    build_store(manifest, InputFormat(SIZE), Path.cwd() / "stores")


KINDS = {"images": images, "dicoms": dicoms}
