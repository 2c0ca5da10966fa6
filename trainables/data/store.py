"""The image store: the pixels of a manifest in one input format, decoded once and memory-mapped by
every process of a node.

A store is a folder that holds `pixels.npy`, then `complete.json` with its shape and SHA-256,
written last. Its name is the address of its content, so that runs share it; one that does not match
what it says is rebuilt, never trusted.
"""

import hashlib
import io
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd

from trainables.core.errors import DataError, UnreadableImage
from trainables.core.files import file_digest, replacing, write_json
from trainables.core.input_format import InputFormat
from trainables.core.records import DamagedRecord, check_regular, read_text
from trainables.core.values import digest
from trainables.data.manifest import Manifest
from trainables.pictures import looks
from trainables.pictures.decoders import each
from trainables.pictures.depth import Pixels
from trainables.runtime.private_folder import foreign_owner
from trainables.runtime.waiting import locked

#: Raise when the same manifest would give other pixels than before.
STORE_VERSION = 2

_IMAGES_PER_CHUNK = 32
_BYTES_PER_CHUNK = 64 * 2**20

#: Pixel files whose SHA-256 this process has seen to be right: (path, inode, size in bytes, mtime
#: in ns).
_verified: set[tuple[str, int, int, int]] = set()


@dataclass(frozen=True, eq=False)
class ImageStore:
    """`pixels`: read-only uint8 or uint16 (n, size, size, channels), rows as in `Manifest.usable`;
    `folder`: where they lie.
    """

    pixels: np.memmap[Any, np.dtype[Any]]
    folder: Path


@dataclass(frozen=True)
class Chunk:
    """Some consecutive images of a store, and all that it takes to decode them anywhere."""

    paths: tuple[str, ...]
    content_hashes: tuple[str, ...]
    bits: tuple[int, ...]
    megapixels: tuple[float, ...]
    form: InputFormat
    channels: int

    @classmethod
    def of(cls, images: pd.DataFrame, form: InputFormat, channels: int) -> Self:
        """Some rows of a manifest in one input format."""
        megapixels = images["width"] * images["height"] / 1e6
        return cls(
            tuple(images["path"]),
            tuple(images["content_hash"]),
            tuple(images["bits"].tolist()),
            tuple(megapixels.tolist()),
            form,
            channels,
        )

    def rows(self) -> list[tuple[str, str, float, int, InputFormat, int]]:
        """For each image, the arguments of `looks.row_of_store`."""
        columns = zip(self.paths, self.content_hashes, self.megapixels, self.bits, strict=True)
        return [(*image, self.form, self.channels) for image in columns]


def store_folder(manifest: Manifest, form: InputFormat, root: Path) -> Path:
    """Where the store of a manifest in one input format lies below `root`."""
    order = digest([STORE_VERSION, manifest.usable["image"].tolist()])
    shape = f"{form.size}x{form.size}x{manifest.channels}"
    return root / f"{manifest.data_hash}-{shape}{form.suffix}-{order}"


def open_store(manifest: Manifest, form: InputFormat, root: Path) -> ImageStore | None:
    """The store, or None where it is absent, torn or stale.

    The size is checked every time, the SHA-256 of the pixels once per process and file. Raises
    `DataError` where another user made it: its pixels need not be those of the images.
    """
    folder = store_folder(manifest, form, root)
    for path in (root, folder, folder / "complete.json", folder / "pixels.npy"):
        if (owner := foreign_owner(path)) is not None:
            raise DataError(
                f"image stores must be one's own, got {str(path)!r} of user {owner} (set "
                "RAYFOLD_CACHE to a folder of your own)"
            )
    shape = (len(manifest.usable), form.size, form.size, manifest.channels)
    try:
        complete = json.loads(read_text(folder / "complete.json"))
        check_regular(folder / "pixels.npy")
        pixels = np.load(folder / "pixels.npy", mmap_mode="r", allow_pickle=False)
        said = tuple(complete["shape"]), complete["sha256"]
    except (
        FileNotFoundError,
        DamagedRecord,
        ValueError,
        KeyError,
        TypeError,
        EOFError,
        RecursionError,
    ):
        return None
    if said[0] != shape or pixels.shape != shape or pixels.dtype != form.dtype:
        return None
    if not _is_verified(folder / "pixels.npy", said[1]):
        return None
    return ImageStore(pixels, folder)


def decode_chunk(chunk: Chunk) -> Pixels:
    """The images of a chunk, (n, size, size, channels); raises `DataError` where one is not
    what it was.

    They are decoded in this process: a scan has decoded them before, and told how many pixels they
    have.
    """
    pixels = []
    for row in chunk.rows():
        try:
            pixels.append(looks.row_of_store(*row))
        except UnreadableImage as error:
            raise _changed(row[0], error) from None
    return np.stack(pixels)


def decode_in_processes(chunks: Sequence[Chunk]) -> Iterator[Pixels]:
    """Decode chunks on every core of this machine, in order, as `decode_chunk` does."""
    rows = [row for chunk in chunks for row in chunk.rows()]
    decoded = zip(rows, each(looks.row_of_store, rows), strict=True)
    for chunk in chunks:
        pixels = []
        for row, image in islice(decoded, len(chunk.paths)):
            if isinstance(image, UnreadableImage):
                raise _changed(row[0], image)
            pixels.append(image)
        yield np.stack(pixels)


def _changed(path: str, error: UnreadableImage) -> DataError:
    return DataError(
        f"images must not change while they are used, got {error.reason} in {path!r} (run again to "
        "scan them anew)"
    )


def build_store(
    manifest: Manifest,
    form: InputFormat,
    root: Path,
    decode_all: Callable[[Sequence[Chunk]], Iterable[Pixels]] = decode_in_processes,
) -> ImageStore:
    """Open the store, and build it first where there is none to trust.

    `decode_all` turns chunks into their arrays (n, size, size, channels), in order, each as
    `decode_chunk` does. Of several processes that ask at once, one builds and the others wait. A
    process that has mapped a replaced file keeps what it has. Raises `DataError` where an image is
    no longer the one of the manifest or the disk is too small.
    """
    folder = store_folder(manifest, form, root)
    try:
        store = open_store(manifest, form, root)
        if store is not None:
            return store
        folder.mkdir(parents=True, exist_ok=True)
        with locked(
            root / f"{folder.name}.lock", "decoding the same images", lambda: _written(folder)
        ):
            store = open_store(manifest, form, root)
            if store is None:
                _write(manifest, form, folder, decode_all)
                store = open_store(manifest, form, root)
    except OSError as error:
        raise DataError(
            f"image stores need a folder that can be written, got {error.strerror} for "
            f"{str(folder)!r} (free some space, or set RAYFOLD_CACHE to another folder)"
        ) from error
    if store is None:
        raise RuntimeError(f"the image store that was just written cannot be opened: {folder}")
    return store


def _written(folder: Path) -> int:
    """Bytes that whoever writes a store has written so far."""
    with suppress(OSError):
        return sum(path.stat().st_size for path in folder.glob(".pixels.*"))
    return 0


def _chunks(manifest: Manifest, form: InputFormat) -> list[Chunk]:
    usable, channels = manifest.usable, manifest.channels
    image = form.size**2 * channels * form.depth // 8  # bytes
    step = max(1, min(_IMAGES_PER_CHUNK, _BYTES_PER_CHUNK // image))
    return [
        Chunk.of(usable.iloc[i : i + step], form, channels) for i in range(0, len(usable), step)
    ]


def _write(
    manifest: Manifest,
    form: InputFormat,
    folder: Path,
    decode_all: Callable[[Sequence[Chunk]], Iterable[Pixels]],
) -> None:
    shape = (len(manifest.usable), form.size, form.size, manifest.channels)
    # Whoever holds the lock is the only writer: other temporary files are what killed writers left
    # behind.
    for leftover in folder.glob(".pixels.*"):
        leftover.unlink()
    needed, free = (
        int(np.prod(shape, dtype=np.int64)) * form.depth // 8,
        shutil.disk_usage(folder).free,
    )
    if needed > free:
        raise DataError(
            f"an image store needs room on its disk, got {free / 1e9:.1f} GB free of "
            f"{needed / 1e9:.1f} GB needed in {str(folder)!r} (free some space, or set "
            "RAYFOLD_CACHE to another folder)"
        )
    header, dtype = io.BytesIO(), np.dtype(form.dtype)
    np.lib.format.write_array_header_1_0(
        header, {"descr": dtype.str, "fortran_order": False, "shape": shape}
    )
    hasher, rows = hashlib.sha256(header.getvalue()), 0
    with replacing(folder / "pixels.npy") as temporary, temporary.open("wb") as file:
        file.write(header.getvalue())
        for pixels in decode_all(_chunks(manifest, form)):
            if pixels.shape[1:] != shape[1:] or pixels.dtype != dtype:
                raise ValueError(
                    f"decoded chunks must be {dtype} (n, {shape[1:]}), got {pixels.dtype} "
                    f"{pixels.shape}"
                )
            content = np.ascontiguousarray(pixels).data
            hasher.update(content)
            file.write(content)
            rows += len(pixels)
        if rows != shape[0]:
            raise ValueError(f"decoded chunks must hold {shape[0]} images, got {rows}")
    write_json(folder / "complete.json", {"shape": shape, "sha256": hasher.hexdigest()})
    # What was hashed on its way to the disk is not read back.
    _verified.add(_identity(folder / "pixels.npy"))


def _is_verified(path: Path, sha256: str) -> bool:
    identity = _identity(path)
    if identity in _verified:
        return True
    if file_digest(path) != sha256:
        return False
    _verified.add(identity)
    return True


def _identity(path: Path) -> tuple[str, int, int, int]:
    status = path.stat()
    return str(path), status.st_ino, status.st_size, status.st_mtime_ns
