"""The manifest: one row per listed image, with what it shows, where it lies, and whether it can be
used.

Every listed image is decoded once, so that whatever is wrong with the data is known, all of it,
before anything trains.
"""

import hashlib
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, Self

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field, ValidationError

from trainables.core.data_config import PhantomData
from trainables.core.errors import DataError, nearest
from trainables.core.files import replacing
from trainables.core.input_format import InputFormat
from trainables.core.records import DamagedRecord, read_table
from trainables.core.spelling import alike, count, listed, quoted, tidy
from trainables.core.values import Frozen, digest
from trainables.data.scan import NUMBER_FACTS, TEXT_FACTS, scan_images, seen_columns
from trainables.pictures.contrasts import contrasts, depth_notes
from trainables.sources.folder_source import NO_GROUP
from trainables.sources.listing import Source, list_images

_TEXT = ("image", "path", "label", "group", "view", "split")
_FORMAT_VERSION = 2
_NOT_DRAWN = "not drawn: images_per_class"
#: Unusable images that an error names; a longer list goes into a file.
SHOWN_IN_ERROR = 10


class _About(Frozen):
    """What the metadata of a manifest's schema say."""

    format: Literal[2]  # as `_FORMAT_VERSION`
    classes: tuple[str, ...] = Field(min_length=2)
    notes: tuple[str, ...]


_SCHEMA = (
    dict.fromkeys(("image", "path"), "text")
    | dict.fromkeys(("label", "group", "view", "split", "mask_*"), "text?")
    | {"state": "text", "reason": "text?"}
    | dict.fromkeys(TEXT_FACTS, "text?")
    | dict.fromkeys(NUMBER_FACTS, "whole")
    | {"seen_*": "text?"}
)


class UnusableImages(DataError):
    """Listed images that cannot be used; `rows` is the table of all of them with the columns path
    and reason.
    """

    def __init__(self, message: str, rows: pd.DataFrame) -> None:
        super().__init__(message)
        self.rows = rows


@dataclass(frozen=True, eq=False)
class Manifest:
    """The images of an experiment.

    `table` has one row per listed image, sorted by `image`, with the columns

    - image: unique id, the POSIX path below the data's root, the same on every machine; path:
      absolute
    - label; group: what must never straddle a split; view; split: train, validation, test or
      missing
    - mask_<name>: absolute path or missing, any number of such columns
    - state: ok, skipped (unusable, see reason) or unused (left out of the subset); reason
    - content_hash: SHA-256 of the decoded pixels; format: of the file; width, height: pixels;
      channels: 1 or 3; stored_bits: 8 or 16 per pixel and channel; bits: how many of them mean
      something; depth_from: what says so (`picture.DepthSource`); max_value: the brightest pixel;
      two_valued: 1 where there are two values only; size_bytes and mtime_ns of the file; missing
      or 0 where an image cannot be used
    - seen_<size>: digest of the pixels in an image store of that size, missing where all of them
      are the same; of other input formats than the default, seen_<size>-pad<value>-16bit.

    `classes` are the labels in the order of the probability columns. `notes` say, in one line each,
    what was left out, merged or read as it was meant rather than as it was written, and how the
    files of the classes differ.
    """

    table: pd.DataFrame
    classes: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def usable(self) -> pd.DataFrame:
        """The rows in state ok, numbered from 0: their order is the row order of every image
        store.
        """
        return self.table[self.table["state"] == "ok"].reset_index(drop=True)

    @cached_property
    def data_hash(self) -> str:
        """16 hex digits over (image, label, content, depth) of the usable rows, wherever the data
        lies.
        """
        return digest(
            self.usable.sort_values("image")[["image", "label", "content_hash", "bits"]]
            .to_numpy()
            .tolist()
        )

    @cached_property
    def channels(self) -> Literal[1, 3]:
        """1 where every usable image is grey, else 3."""
        return 1 if (self.usable["channels"] == 1).all() else 3

    @cached_property
    def shared_bits(self) -> int | None:
        """The depth that the 16-bit images share which do not say it themselves; None where there
        are none.
        """
        bits = self.table.loc[
            (self.table["state"] != "skipped") & (self.table["depth_from"] == "shared"), "bits"
        ]
        return None if bits.empty else int(bits.iloc[0])

    def save(self, path: Path) -> None:
        """Write the table as Parquet, with classes and notes in the metadata of its schema."""
        table = pa.Table.from_pandas(self.table, preserve_index=False)
        about = json.dumps(
            {"format": _FORMAT_VERSION, "classes": self.classes, "notes": self.notes}
        )
        table = table.replace_schema_metadata(
            {**(table.schema.metadata or {}), b"rayfold.manifest": about.encode()}
        )
        with replacing(path) as temporary:
            pq.write_table(table, temporary)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote.

        Args:
            path: A `manifest.parquet`.

        Raises:
            DataError: It is no manifest, is damaged, or of another version.
        """
        try:
            table, metadata = read_table(path, _SCHEMA)
            about = _About.model_validate_json(metadata.get(b"rayfold.manifest", b""))
        except (FileNotFoundError, DamagedRecord, ValidationError) as error:
            raise DataError(
                f"a manifest must be a file that rayfold wrote, got {str(path)!r} (run again to "
                "rebuild it)"
            ) from error
        return cls(_typed(table), about.classes, about.notes)


def build_manifest(
    data: Source,
    base: Path,
    previous: Manifest | None = None,
    forms: Collection[InputFormat] = (),
) -> Manifest:
    """List, decode and judge every image of `data`, then draw the subset that `images_per_class`
    asks for.

    A relative `data.path` starts at `base`. `forms` are those in which models will see the images,
    and in which they are compared. Images whose path, size and time have not changed since
    `previous` are not decoded again. Raises `DataError` where the data cannot be listed or a class
    has no usable image, and `UnusableImages`, naming all of them, where some cannot be used and
    `data.on_error` is fail.
    """
    listing, notes = list_images(data, base)
    classes = _classes(data.classes, listing, notes)
    forms = sorted(set(forms))
    listing = listing[listing["label"].isin([*classes, ""])]
    table = scan_images(listing, data, forms, previous.table if previous is not None else None)
    _mark_mislabelled(table, forms)
    bad = table["reason"].notna()
    if data.on_error == "fail" and bad.any():
        raise _unusable(table.loc[bad, ["path", "reason"]], len(table))
    table["state"] = np.where(bad, "skipped", "ok")
    if data.images_per_class is not None and not isinstance(data, PhantomData):
        notes += _on_draw(table, classes, data.images_per_class)
        for label in classes:
            _draw(table, label, data.images_per_class, data.seed)
    for label in classes:
        _require_usable(table, label)
    table = _typed(table)
    usable = table[table["state"] == "ok"]
    return Manifest(table, classes, (*notes, *contrasts(usable), *depth_notes(usable)))


def _classes(
    wanted: tuple[str, ...] | None, listing: pd.DataFrame, notes: list[str]
) -> tuple[str, ...]:
    """The classes, with a note on what `wanted` leaves out; raises where names are wrong, too few
    or too much alike.
    """
    images = listing["label"][listing["label"] != ""].value_counts()
    found = sorted(images.index)
    classes = tuple(found) if wanted is None else tuple(map(tidy, wanted))
    for same in alike(found):
        if wanted is None or 0 < sum(name in classes for name in same) < len(same):
            raise DataError(
                "classes must differ in more than capitals, blanks, dashes or look-alikes, got "
                f"{listed(same)} (write them alike; where they are different classes, name all of "
                "them in data.classes)"
            )
    if others := [name for name in found if name not in classes]:
        notes.append(
            f"{count(int(images[others].sum()), 'image')} of classes that data.classes does not "
            f"name are left out: {listed(others)}"
        )
    for label in classes:
        if label not in found:
            raise DataError(
                f"data.classes must name classes that have images, got {label!r} "
                f"({nearest(label, found)})"
            )
        if classes.count(label) > 1:
            raise DataError(
                f"data.classes must name each class once, got {label!r} twice (remove one)"
            )
    if len(classes) < 2:
        names = f" ({classes[0]!r})" if classes else ""
        raise DataError(
            f"a comparison needs at least 2 classes, found {len(classes)}{names} "
            "(check data.path and data.classes, or add images of another class)"
        )
    return classes


# --- bad images -----------------------------------------------------------------------------------


def _mark_mislabelled(table: pd.DataFrame, forms: Sequence[InputFormat]) -> None:
    """Give a reason to every image whose pixels, in the file or as a model sees them, occur under
    another label too.
    """
    places = {"content_hash": "same pixels as"} | {
        column: f"same pixels at {form} as"
        for form, column in zip(forms, seen_columns(forms), strict=True)
    }
    good = table[table["reason"].isna()]
    for column, likeness in places.items():
        labels = good.groupby(column)["label"].transform("nunique")
        for _, same in good[labels > 1].groupby(column):
            told = table["reason"].reindex(same.index).notna()
            for index, label in same.loc[~told, "label"].items():
                other = same[same["label"] != label].iloc[0]
                table.loc[index, "reason"] = (
                    f"mislabelled: {likeness} {other['image']!r}, which is {other['label']!r}, not "
                    f"{label!r}"
                )


def _unusable(bad: pd.DataFrame, total: int) -> UnusableImages:
    shown: list[str] = []
    told = 0
    for reason in bad["reason"].unique().tolist():
        if len(shown) == SHOWN_IN_ERROR:
            break
        paths = bad.loc[bad["reason"] == reason, "path"].tolist()
        # One pattern, and nothing of any image beside its name.
        if len(paths) > 1 and reason.startswith(NO_GROUP):
            some = ", ".join(map(repr, paths[:3]))
            shown.append(f"{len(paths):,} with {reason}, for example {some}")
            told += len(paths)
        else:
            single = paths[: SHOWN_IN_ERROR - len(shown)]
            shown += [f"{path!r}: {reason}" for path in single]
            told += len(single)
    if told < len(bad):
        shown.append(f"and {len(bad) - told} more")
    message = (
        f"every listed image must be usable, got {len(bad)} of {total} that are not: "
        f"{'; '.join(shown)} (fix them, or set data.on_error: skip to leave them out)"
    )
    return UnusableImages(message, bad.reset_index(drop=True))


# --- subset ---------------------------------------------------------------------------------------


def _draw(table: pd.DataFrame, label: str, count: int, seed: int) -> None:
    """Mark as unused what a seeded draw of whole groups leaves over, so that at most `count` images
    of a class stay.

    Groups come in random order and those that would overshoot are passed over. The draw depends on
    the seed and on the groups of this class alone.
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


def _on_draw(table: pd.DataFrame, classes: Sequence[str], wanted: int) -> list[str]:
    """A note where classes have fewer images than `images_per_class` asks for."""
    images = (
        table.loc[table["state"] == "ok", "label"]
        .value_counts()
        .reindex(list(classes), fill_value=0)
    )
    fewer = [
        f"{quoted(label)} has {int(images[label]):,}" for label in classes if images[label] < wanted
    ]
    if not fewer:
        return []
    more = f" and {len(fewer) - 3:,} more classes have fewer" if len(fewer) > 3 else ""
    return [
        f"data.images_per_class asks for {wanted:,}, but {', '.join(fewer[:3])}{more}: all of "
        "those are taken"
    ]


def _require_usable(table: pd.DataFrame, label: str) -> None:
    rows = table[table["label"] == label]
    if (rows["state"] == "ok").any():
        return
    if (rows["state"] == "unused").any():
        raise DataError(
            "data.images_per_class must hold at least one whole group, but every group of class "
            f"{label!r} has more images than that (raise it)"
        )
    first = rows.iloc[0]
    raise DataError(
        f"every class must have usable images, but all {len(rows)} of class {label!r} were "
        f"skipped, the first {first['path']!r}: {first['reason']} (fix them, or leave the class "
        "out of data.classes)"
    )


def _typed(table: pd.DataFrame) -> pd.DataFrame:
    """The table with its columns in their order and types: str (missing allowed) and int64."""
    masks = sorted(column for column in table.columns if column.startswith("mask_"))
    seen = [column for column in table.columns if column.startswith("seen_")]
    text = [*_TEXT, *masks, "state", "reason", *TEXT_FACTS]
    types = dict.fromkeys([*text, *seen], "str") | dict.fromkeys(NUMBER_FACTS, "int64")
    return table[[*text, *NUMBER_FACTS, *seen]].astype(types)
