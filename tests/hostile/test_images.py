"""Image files made to do harm cost little and end as one image's reason."""

import io
import os
import socket
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.dicoms import lookup, write_dicom
from trainables.core.data_config import TableData
from trainables.core.errors import DataError, UnreadableImage
from trainables.pictures import decoders, looks
from trainables.sources.image_table import read_image_table

GREY = np.random.default_rng(3).integers(1, 256, (40, 50), dtype=np.uint8)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(rows: int, width: int = 50, height: int = 40, extra: bytes = b"") -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    pixels = b"".join(b"\0" + row.tobytes() for row in GREY[:rows])
    return (
        b"\x89PNG\r\n\x1a\n"
        + header
        + extra
        + chunk(b"IDAT", zlib.compress(pixels))
        + chunk(b"IEND", b"")
    )


def saved(kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(GREY).save(buffer, kind, **options)
    return buffer.getvalue()


def directories(number: int) -> bytes:
    """A TIFF file of nothing but directories."""
    size = 2 + 12 + 4
    entry = struct.pack("<HHII", 256, 4, 1, 20)
    parts = (
        struct.pack("<H", 1) + entry + struct.pack("<I", 8 + size * (n + 1)) for n in range(number)
    )
    return b"II*\0\x08\0\0\0" + b"".join(parts)


def strips(number: int) -> bytes:
    """A TIFF file that lacks strips: only `number` of its five are listed."""
    values = [
        (256, 50),
        (257, 40),
        (258, 8),
        (259, 1),
        (262, 1),
        (273, None),
        (277, 1),
        (278, 8),
        (279, None),
    ]
    table, end = b"", 8 + 2 + 12 * len(values) + 4
    pixels = end + 8 * number
    for tag, value in values:
        at = end if tag == 273 else end + 4 * number
        table += (
            struct.pack("<HHII", tag, 4, number, at)
            if value is None
            else struct.pack("<HHII", tag, 4, 1, value)
        )
    places = struct.pack(f"<{number}I", *(pixels + 400 * n for n in range(number)))
    lengths = struct.pack(f"<{number}I", *[400] * number)
    return (
        b"II*\0\x08\0\0\0"
        + struct.pack("<H", len(values))
        + table
        + bytes(4)
        + places
        + lengths
        + GREY.tobytes()
    )


def refused(path: Path) -> str:
    with pytest.raises(UnreadableImage) as error:
        decoders.ask(looks.facts, str(path), 180.0, False, (32,))
    return error.value.reason


FILES = {
    "more rows": (lambda: png(40, height=30), "more pixels than 50x30"),
    "more strips": (lambda: strips(7), "more pixels than 50x40"),
    "rows": (lambda: png(20), "truncated"),
    "one row": (lambda: png(39), "truncated"),
    "wide": (lambda: png(40, 2**31 - 1, 2**31 - 1), "4611686014132.4 million pixels"),
    "no width": (lambda: png(40, 0), "damaged"),
    "frames of TIFF": (lambda: directories(50_000), "damaged"),
    "strips": (lambda: strips(3), "truncated: strips or tiles are missing"),
    "frames of GIF": (lambda: saved("GIF")[:-1] + b"\x2c" + bytes(9) + b"\x02\0", "2 frames"),
    "text": (
        lambda: png(40, extra=chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(10**8)))),
        "damaged",
    ),
    "canvas of WebP": (
        lambda: (
            b"RIFF"
            + struct.pack("<I", 22)
            + b"WEBPVP8X"
            + struct.pack("<I", 10)
            + bytes(4)
            + b"\xff" * 6
        ),
        "281474976.7 million pixels",
    ),
    "zeros": (lambda: bytes(5000), "not a PNG"),
}


@pytest.mark.parametrize("case", FILES)
def test_files_that_lie_are_refused(tmp_path: Path, case: str) -> None:
    content, reason = FILES[case]
    (tmp_path / "a.png").write_bytes(content())
    assert refused(tmp_path / "a.png").startswith(reason)


@pytest.mark.parametrize(
    ("start", "reason"), [(b"", "not a PNG"), (png(40)[:40], "4,000 MB, more than an image")]
)
def test_a_sparse_file_is_judged_before_it_is_read(
    tmp_path: Path, start: bytes, reason: str
) -> None:
    with (tmp_path / "a.png").open("wb") as file:
        file.write(start)
        file.truncate(4 * 10**9)
    assert refused(tmp_path / "a.png").startswith(reason)


@pytest.fixture
def odd(tmp_path: Path) -> Iterator[dict[str, Path]]:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "link.png").symlink_to(tmp_path / "nowhere")
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    with socket.socket(socket.AF_UNIX) as end:
        end.bind(str(tmp_path / "socket.png"))
        yield {
            name: tmp_path / f"{name}.png" for name in ("pipe", "folder", "link", "loop", "socket")
        }


def test_what_is_no_file_is_refused_at_once(odd: dict[str, Path]) -> None:
    reasons = {name: refused(path) for name, path in odd.items()}
    no_file = "not a regular file"
    assert (
        reasons["pipe"]
        == reasons["folder"]
        == reasons["socket"]
        == refused(Path("/dev/zero"))
        == no_file
    )
    assert (
        reasons["link"] == refused(odd["pipe"] / "a.png") == refused(Path("a\0b")) == "missing file"
    )
    assert reasons["loop"].startswith("cannot be read: Too many levels")
    assert refused(Path("/" + "a" * 300)).startswith("cannot be read: File name too long")


# --- the process that decodes ---------------------------------------------------------------------


def test_death_time_and_memory_are_one_image_s_flaw() -> None:
    def only(function: object, *arguments: object) -> object:
        return next(iter(decoders.each(function, [arguments])))  # type: ignore[arg-type]

    assert "dies of it (SIGABRT)" in str(only(os.abort))
    assert "takes far longer" in str(only(eval, "sum(1 for _ in iter(int, 1))"))
    assert isinstance(next(decoders.each(looks.patient, [("nowhere",)])), type(None))


# --- DICOM ----------------------------------------------------------------------------------------

DEEP = np.random.default_rng(4).integers(0, 4096, (20, 30)).astype(np.uint16)
NAME = "Doe^Jane"
LIES: dict[str, tuple[dict[str, object], str]] = {
    "fewer rows": ({"Rows": 19}, "1,200 bytes of pixels, but 1,140 by the header, 30x19"),
    "fewer columns": ({"Columns": 29}, "1,200 bytes of pixels"),
    "more rows": ({"Rows": 21}, "truncated"),
    "no rows": ({"Rows": 0}, "damaged: 30x0 pixels"),
    "no element": ({"BitsStored": 12, "SamplesPerPixel": None}, "no SamplesPerPixel in its header"),
    "colour of one sample": ({"PhotometricInterpretation": "RGB"}, "RGB pixels of 1 sample"),
    "grey of three": ({"SamplesPerPixel": 3}, "MONOCHROME2 pixels of 3 samples"),
    "a name": ({"PhotometricInterpretation": NAME}, "photometric interpretation unknown to DICOM"),
    "representation": (
        {"PixelRepresentation": 2},
        "MONOCHROME2 pixels whose PixelRepresentation is 2",
    ),
    "slope": ({"RescaleSlope": 0, "RescaleIntercept": 0}, "RescaleSlope and RescaleIntercept give"),
    "lost slope": (
        {"RescaleSlope": 1, "RescaleIntercept": "1e30"},
        "RescaleSlope and RescaleIntercept give",
    ),
    "faint slope": (
        {"RescaleSlope": "1e-13", "RescaleIntercept": 9999},
        "RescaleSlope and RescaleIntercept give",
    ),
    "no frame": ({"NumberOfFrames": 0}, "0 frames"),
    "below": ({"WindowCenter": 9, "WindowWidth": -9}, "WindowWidth is below zero"),
    "function": (
        {"WindowCenter": 9, "WindowWidth": 9, "VOILUTFunction": NAME},
        "VOILUTFunction is none that DICOM",
    ),
    "short table": (
        {"VOILUTSequence": lookup([0, 1], 0, 99)},
        "a lookup table of 2 entries of 99 bits",
    ),
}


@pytest.mark.parametrize("case", LIES)
def test_headers_that_contradict_the_pixels_are_refused(tmp_path: Path, case: str) -> None:
    pytest.importorskip("pydicom")
    elements, reason = LIES[case]
    path = write_dicom(tmp_path / "a.dcm", DEEP, PatientName=NAME, **elements)
    found = refused(path)
    assert found.startswith(reason)
    assert "Doe" not in found


COLOURS: dict[str, tuple[dict[str, object], str]] = {
    "no planes": ({"PlanarConfiguration": None}, "RGB pixels without a PlanarConfiguration"),
    "third planes": ({"PlanarConfiguration": 2}, "RGB pixels without a PlanarConfiguration"),
    "wavelets": (
        {"PhotometricInterpretation": "YBR_ICT"},
        "YBR_ICT pixels in Explicit VR Little Endian",
    ),
}


@pytest.mark.parametrize("case", COLOURS)
def test_colours_that_the_file_cannot_hold_are_refused(tmp_path: Path, case: str) -> None:
    pytest.importorskip("pydicom")
    elements, reason = COLOURS[case]
    assert refused(write_dicom(tmp_path / "a.dcm", np.dstack([GREY] * 3), **elements)).startswith(
        reason
    )


@pytest.mark.parametrize("value", ["NaN", "inf", "-inf", NAME])
@pytest.mark.parametrize(
    "keyword", ["RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth"]
)
def test_numbers_that_are_none_are_refused(tmp_path: Path, keyword: str, value: str) -> None:
    pytest.importorskip("pydicom")
    path = write_dicom(
        tmp_path / "a.dcm", DEEP, **{"WindowCenter": 9, "WindowWidth": 9, keyword: "12345678"}
    )
    path.write_bytes(path.read_bytes().replace(b"12345678", value.ljust(8).encode()))
    found = refused(path)
    assert keyword in found or found.startswith("damaged: ")
    assert "Doe" not in found


def test_deflated_and_run_length_bombs_are_refused(tmp_path: Path) -> None:
    pydicom = pytest.importorskip("pydicom")
    image = pydicom.dcmread(write_dicom(tmp_path / "a.dcm", DEEP))
    image.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1.99"
    image.save_as(tmp_path / "b.dcm")
    content = (tmp_path / "b.dcm").read_bytes()
    start = content.index(b"1.2.840.10008.1.2.1.99")  # the end of the header is near
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    bomb = b"".join(packer.compress(bytes(10**7)) for _ in range(160)) + packer.flush()
    length = struct.unpack_from("<I", content, 140)[0]
    assert 144 + length > start
    (tmp_path / "b.dcm").write_bytes(content[: 144 + length] + bomb)
    # Which of the two bounds is met first depends on how fast the machine is.
    assert refused(tmp_path / "b.dcm").startswith(("inflates to more than", "takes far longer"))
    image = pydicom.dcmread(write_dicom(tmp_path / "c.dcm", GREY, "1.2.840.10008.1.2.5"))
    image.PixelData = pydicom.encaps.encapsulate(
        [struct.pack("<16I", 1, 64, *[0] * 14) + b"\x81\x07" * 10**6]
    )
    image.save_as(tmp_path / "c.dcm")
    assert refused(tmp_path / "c.dcm").startswith("more pixels than 50x40")


# --- tables ---------------------------------------------------------------------------------------


def test_numbers_that_are_none_are_no_class(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(
        pa.table({"path": ["a.png", "b.png"], "label": [1.0, float("nan")]}), tmp_path / "t.parquet"
    )
    data = TableData(source="table", path="t.parquet")
    assert read_image_table(data, tmp_path / "t.parquet")[0]["label"].isna().tolist() == [
        False,
        True,
    ]


def test_a_column_that_stands_twice_is_refused(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    (tmp_path / "t.csv").write_text("path,label,label\na.png,x,y\n", encoding="utf-8")
    columns = [pa.array(["a.png"]), pa.array(["x"]), pa.array(["y"])]
    pq.write_table(
        pa.Table.from_arrays(columns, ["path", "label", "label"]), tmp_path / "t.parquet"
    )
    for name in ("t.csv", "t.parquet"):
        with pytest.raises(DataError, match="a name of its own"):
            read_image_table(TableData(source="table", path=name), tmp_path / name)


@pytest.mark.parametrize("name", ["a\0b.png", "c" * 300 + ".png", "t.csv/d.png", "e/" * 3000])
def test_names_that_no_file_can_have_are_missing_files(tmp_path: Path, name: str) -> None:
    # The beginning is looked at for zero bytes.
    filler = "".join(f"{n}.png,x,\n" for n in range(1000))
    (tmp_path / "t.csv").write_text(
        f"path,label,mask_a\n{filler}{name},x,{name}\n", encoding="utf-8"
    )
    table, _ = read_image_table(TableData(source="table", path="t.csv"), tmp_path / "t.csv")
    assert "missing file" in table["reason"].iloc[-1]
