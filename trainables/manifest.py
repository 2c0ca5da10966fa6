"""The manifest: one row per listed image, with what it shows, where it lies, and whether it can be used.

Every listed image is decoded once, so that whatever is wrong with the data is known, all of it, before anything trains.
"""

import hashlib
import json
import os
import stat
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import pandas as pd

from trainables.config import PhantomData, digest
from trainables.errors import DataError, nearest
from trainables.files import replacing
from trainables.readers import Pixels, UnreadableImage, content_hash, read_image
from trainables.sources import Source, list_images
from trainables.spelling import alike, count, listed, tidy

#: Smaller images show nothing; shorter edge, in pixels.
MIN_EDGE = 8

_TEXT = ("image", "path", "label", "group", "view", "split", "state", "reason", "content_hash")
_NUMBERS = ("width", "height", "channels", "bits", "max_value", "size_bytes", "mtime_ns")
_FORMAT_VERSION = 1
_NOT_DRAWN = "not drawn: images_per_class"
_SHOWN_IN_ERROR = 10


class UnusableImages(DataError):
    """Listed images that cannot be used; `rows` is the table of all of them with the columns path and reason."""

    def __init__(self, message: str, rows: pd.DataFrame) -> None:
        super().__init__(message)
        self.rows = rows


@dataclass(frozen=True, eq=False)
class Manifest:
    """The images of an experiment.

    `table` has one row per listed image, sorted by `image`, with the columns

    - image: unique id, the POSIX path below the data's root, the same on every machine; path: absolute
    - label; group: what must never straddle a split; view; split: train, validation, test or missing
    - mask_<name>: absolute path or missing, any number of such columns
    - state: ok, skipped (unusable, see reason) or unused (left out of the subset); reason
    - content_hash: SHA-256 of the decoded pixels; width, height: pixels; channels: 1 or 3; bits: 8 or 16 per pixel and
      channel; max_value: the brightest pixel; size_bytes and mtime_ns of the file; 0 where it could not be read.

    `classes` are the labels in the order of the probability columns. `notes` say, in one line each, what was left out,
    merged or read as it was meant rather than as it was written.
    """

    table: pd.DataFrame
    classes: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def usable(self) -> pd.DataFrame:
        """The rows in state ok, numbered from 0: their order is the row order of every image store."""
        return self.table[self.table["state"] == "ok"].reset_index(drop=True)

    @cached_property
    def data_hash(self) -> str:
        """16 hex digits over (image, label, content) of the usable rows, wherever the data lies."""
        return digest(self.usable.sort_values("image")[["image", "label", "content_hash"]].to_numpy().tolist())

    @cached_property
    def channels(self) -> Literal[1, 3]:
        """1 where every usable image is grey, else 3."""
        return 1 if (self.usable["channels"] == 1).all() else 3

    @cached_property
    def bit_depth(self) -> int:
        """8 where every usable image has 8 bits, else the smallest of 10, 12, 14, 16 that holds the brightest pixel.

        Radiographs of 12 bits are usually stored in files of 16, and would come out black if the file's range counted.
        """
        usable = self.usable
        deep = usable.loc[usable["bits"] == 16, "max_value"]
        return 8 if deep.empty else next(depth for depth in (10, 12, 14, 16) if deep.max() < 2**depth)

    def save(self, path: Path) -> None:
        """Write the table as Parquet, with classes and notes in the metadata of its schema."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        table = pa.Table.from_pandas(self.table, preserve_index=False)
        about = json.dumps({"format": _FORMAT_VERSION, "classes": self.classes, "notes": self.notes})
        table = table.replace_schema_metadata({**(table.schema.metadata or {}), b"rayfold.manifest": about.encode()})
        with replacing(path) as temporary:
            pq.write_table(table, temporary)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote; raises `DataError` for anything else."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            table = pq.read_table(path)
            about = json.loads((table.schema.metadata or {})[b"rayfold.manifest"])
        except (pa.ArrowInvalid, KeyError, FileNotFoundError):
            about = {}
        if about.get("format") != _FORMAT_VERSION:
            raise DataError(
                f"a manifest must be a file that rayfold wrote, got {str(path)!r} (run again to rebuild it)"
            )
        return cls(_typed(table.to_pandas()), tuple(about["classes"]), tuple(about.get("notes", ())))


def build_manifest(data: Source, base: Path, previous: Manifest | None = None) -> Manifest:
    """List, decode and judge every image of `data`, then draw the subset that `images_per_class` asks for.

    A relative `data.path` starts at `base`. Images whose path, size and time have not changed since `previous` are not
    decoded again. Raises `DataError` where the data cannot be listed or a class has no usable image, and
    `UnusableImages`, naming all of them, where some cannot be used and `data.on_error` is fail.
    """
    listing, notes = list_images(data, base)
    classes = _classes(data.classes, listing, notes)
    table = _scan(listing[listing["label"].isin([*classes, ""])], previous)
    _mark_mislabelled(table)
    bad = table["reason"].notna()
    if data.on_error == "fail" and bad.any():
        raise _unusable(table.loc[bad, ["path", "reason"]], len(table))
    table["state"] = np.where(bad, "skipped", "ok")
    if data.images_per_class is not None and not isinstance(data, PhantomData):
        for label in classes:
            _draw(table, label, data.images_per_class, data.seed)
    for label in classes:
        _require_usable(table, label)
    return Manifest(_typed(table), classes, tuple(notes))


def _classes(wanted: tuple[str, ...] | None, listing: pd.DataFrame, notes: list[str]) -> tuple[str, ...]:
    """The classes, with a note on what `wanted` leaves out; raises where names are wrong, too few or too much alike."""
    images = listing["label"][listing["label"] != ""].value_counts()
    found = sorted(images.index)
    classes = tuple(found) if wanted is None else tuple(map(tidy, wanted))
    for same in alike(found):
        if wanted is None or 0 < sum(name in classes for name in same) < len(same):
            raise DataError(
                f"classes must differ in more than capitals, blanks, dashes or look-alikes, got {listed(same)} "
                "(write them alike; where they are different classes, name all of them in data.classes)"
            )
    if others := [name for name in found if name not in classes]:
        notes.append(
            f"{count(int(images[others].sum()), 'image')} of classes that data.classes does not name are left out: "
            f"{listed(others)}"
        )
    for label in classes:
        if label not in found:
            raise DataError(f"data.classes must name classes that have images, got {label!r} ({nearest(label, found)})")
        if classes.count(label) > 1:
            raise DataError(f"data.classes must name each class once, got {label!r} twice (remove one)")
    if len(classes) < 2:
        names = f" ({classes[0]!r})" if classes else ""
        raise DataError(
            f"a comparison needs at least 2 classes, found {len(classes)}{names} "
            "(check data.path and data.classes, or add images of another class)"
        )
    return classes


# --- scanning ---------------------------------------------------------------------------------------------------------


def _scan(listing: pd.DataFrame, previous: Manifest | None) -> pd.DataFrame:
    """The listing with what its files hold; rows that are already bad are not opened."""
    known: dict[tuple[Any, ...], Any] = {}
    if previous is not None:
        rows = previous.table[previous.table["state"] != "skipped"].to_dict("records")
        known = {(row["image"], row["path"], row["size_bytes"], row["mtime_ns"]): row for row in rows}

    def scan(image: str, path: str, reason: object) -> Mapping[str, Any]:
        return {} if isinstance(reason, str) else _scan_file(image, Path(path), known)

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        scans = list(threads.map(scan, listing["image"], listing["path"], listing["reason"]))
    columns = ("content_hash", *_NUMBERS)
    found = pd.DataFrame([[scan.get(column) for column in columns] for scan in scans], listing.index, columns)
    found[list(_NUMBERS)] = found[list(_NUMBERS)].fillna(0)
    reasons = pd.Series([scan.get("flaw") for scan in scans], listing.index, dtype=object)
    return listing.assign(reason=listing["reason"].astype(object).fillna(reasons), **found).reset_index(drop=True)


def _scan_file(image: str, path: Path, known: Mapping[tuple[Any, ...], Any]) -> Mapping[str, Any]:
    """What one file holds, with its `flaw` where it cannot be used."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return {"flaw": "missing file"}
    except OSError as error:
        return {"flaw": f"cannot be read: {error.strerror}"}
    if not stat.S_ISREG(status.st_mode):
        return {"flaw": "not a regular file"}
    scan: dict[str, Any] = {"size_bytes": status.st_size, "mtime_ns": status.st_mtime_ns}
    same: Mapping[str, Any] | None = known.get((image, str(path), status.st_size, status.st_mtime_ns))
    if same is not None:
        return same
    try:
        pixels = read_image(path)
    except UnreadableImage as error:
        return scan | {"flaw": error.reason}
    height, width = pixels.shape[:2]
    return scan | {
        "content_hash": content_hash(pixels),
        "width": width,
        "height": height,
        "channels": 1 if pixels.ndim == 2 else 3,
        "bits": 8 * pixels.itemsize,
        "max_value": int(pixels.max()),
        "flaw": _flaw(pixels),
    }


def _flaw(pixels: Pixels) -> str | None:
    """Why readable pixels cannot be a radiograph; a mask has two values, which no exposed image has."""
    height, width = pixels.shape[:2]
    if min(height, width) < MIN_EDGE:
        return f"only {width}x{height} pixels, needs {MIN_EDGE}x{MIN_EDGE}"
    low, high = pixels.min(), pixels.max()
    if low == high:
        return f"blank: every pixel is {low}"
    if ((pixels == low) | (pixels == high)).all():
        return f"looks like a mask: only the values {low} and {high}"
    return None


def _mark_mislabelled(table: pd.DataFrame) -> None:
    """Give a reason to every image whose pixels also occur under another label."""
    good = table[table["reason"].isna()]
    labels = good.groupby("content_hash")["label"].transform("nunique")
    for _, same in good[labels > 1].groupby("content_hash"):
        for index, label in same["label"].items():
            other = same[same["label"] != label].iloc[0]
            table.loc[index, "reason"] = (
                f"mislabelled: same pixels as {other['image']!r}, which is {other['label']!r}, not {label!r}"
            )


def _unusable(bad: pd.DataFrame, total: int) -> UnusableImages:
    shown = [f"{path!r}: {reason}" for path, reason in bad.head(_SHOWN_IN_ERROR).itertuples(index=False)]
    if len(bad) > _SHOWN_IN_ERROR:
        shown.append(f"and {len(bad) - _SHOWN_IN_ERROR} more")
    message = (
        f"every listed image must be usable, got {len(bad)} of {total} that are not: {'; '.join(shown)} "
        "(fix them, or set data.on_error: skip to leave them out)"
    )
    return UnusableImages(message, bad.reset_index(drop=True))


# --- subset -----------------------------------------------------------------------------------------------------------


def _draw(table: pd.DataFrame, label: str, count: int, seed: int) -> None:
    """Mark as unused what a seeded draw of whole groups leaves over, so that at most `count` images of a class stay.

    Groups come in random order and those that would overshoot are passed over. The draw depends on the seed and on the
    groups of this class alone.
    """
    candidates = table[(table["state"] == "ok") & (table["label"] == label)]
    sizes = candidates.groupby("group").size().sort_index()
    class_key = int.from_bytes(hashlib.sha256(label.encode()).digest()[:8], "little")
    left, drawn = count, []
    for position in np.random.default_rng([seed, class_key]).permutation(len(sizes)):
        if sizes.iloc[position] <= left:
            left -= int(sizes.iloc[position])
            drawn.append(sizes.index[position])
    unused = candidates.index[~candidates["group"].isin(drawn)]
    table.loc[unused, ["state", "reason"]] = ["unused", _NOT_DRAWN]


def _require_usable(table: pd.DataFrame, label: str) -> None:
    rows = table[table["label"] == label]
    if (rows["state"] == "ok").any():
        return
    if (rows["state"] == "unused").any():
        raise DataError(
            f"data.images_per_class must hold at least one whole group, but every group of class {label!r} has more "
            "images than that (raise it)"
        )
    first = rows.iloc[0]
    raise DataError(
        f"every class must have usable images, but all {len(rows)} of class {label!r} were skipped, the first "
        f"{first['path']!r}: {first['reason']} (fix them, or leave the class out of data.classes)"
    )


def _typed(table: pd.DataFrame) -> pd.DataFrame:
    """The table with its columns in their order and types: str (missing allowed) and int64."""
    masks = sorted(column for column in table.columns if column.startswith("mask_"))
    text = [*_TEXT[:6], *masks, *_TEXT[6:]]
    types = dict.fromkeys(text, "str") | dict.fromkeys(_NUMBERS, "int64")
    return table[[*text, *_NUMBERS]].astype(types)
