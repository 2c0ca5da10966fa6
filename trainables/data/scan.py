"""What the listed files hold: each is decoded once, on every core, or taken over from an earlier
scan.
"""

import os
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import pandas as pd

from trainables.core.errors import UnreadableImage
from trainables.core.input_format import InputFormat
from trainables.pictures import looks
from trainables.pictures.decoders import each
from trainables.pictures.depth import smallest_depth
from trainables.sources.listing import Source

#: The columns that a scan adds to a listing, besides the digests `seen_<size>`.
TEXT_FACTS = ("content_hash", "format", "depth_from")
NUMBER_FACTS = (
    *("width", "height", "channels", "stored_bits", "bits", "max_value", "two_valued"),
    *("size_bytes", "mtime_ns"),
)

Facts = dict[str, Any]
_NOTHING: Facts = {}  # one for all that are bad already, who may be millions


def scan_images(
    listing: pd.DataFrame, data: Source, forms: Sequence[InputFormat], previous: pd.DataFrame | None
) -> pd.DataFrame:
    """The listing with what its files hold; rows that are already bad are not opened.

    `forms`: those of the image stores that the pixels will be put into. Images whose path, size and
    time have not changed since the table `previous` are not decoded again.
    """
    known = {} if previous is None else _known(previous, data, forms)
    rows = list(zip(listing["image"], listing["path"], listing["reason"], strict=True))
    facts = [_before_a_look(row, known) for row in rows]
    _look(
        [i for i, found in enumerate(facts) if found is not _NOTHING and "seen" not in found],
        rows,
        facts,
        data,
        forms,
    )
    shared = shared_depth(facts)
    # Taken over from a scan in which the images that share their depth shared another one.
    late = [
        i for i, found in enumerate(facts) if _shares(found) and not _is_seen(found, forms, shared)
    ]
    _look(late, rows, facts, data, forms)
    return _table(listing, facts, forms, shared)


def shared_depth(images: Sequence[Mapping[str, Any]]) -> int:
    """The smallest depth that holds the brightest pixel of all the images whose files leave their
    depth open.
    """
    return smallest_depth(
        max((int(image["max_value"]) for image in images if _shares(image)), default=0)
    )


def seen_columns(forms: Sequence[InputFormat]) -> list[str]:
    return [f"seen_{form.size}{form.suffix}" for form in forms]


def _shares(image: Mapping[str, Any]) -> bool:
    return image.get("depth_from") == "shared"


def _is_seen(found: Facts, forms: Sequence[InputFormat], bits: int) -> bool:
    return all((form, bits) in found["seen"] for form in forms)


def _known(
    previous: pd.DataFrame, data: Source, forms: Sequence[InputFormat]
) -> dict[Hashable, Facts]:
    """What an earlier scan found, by file, where it tells all that is asked now."""
    if not set(seen_columns(forms)) <= set(previous.columns):
        return {}
    usable = (previous["state"] != "skipped") & (
        previous["width"] * previous["height"] <= data.max_megapixels * 1e6
    )
    if not data.allow_two_valued:
        usable &= previous["two_valued"] == 0
    known: dict[Hashable, Facts] = {}
    for row in previous[usable].to_dict("records"):
        found: Facts = {str(column): row[column] for column in (*TEXT_FACTS, *NUMBER_FACTS)}
        found["seen"] = {
            (form, row["bits"]): row[column]
            for form, column in zip(forms, seen_columns(forms), strict=True)
        }
        known[row["image"], row["path"], row["size_bytes"], row["mtime_ns"]] = found
    return known


def _before_a_look(row: tuple[str, str, object], known: Mapping[Hashable, Facts]) -> Facts:
    """Of an image that is bad already, nothing; else what an earlier scan has found, or its file's
    size and time.
    """
    image, path, reason = row
    if isinstance(reason, str):
        return _NOTHING
    try:
        status = os.stat(path)  # noqa: PTH116
    except (OSError, ValueError):
        return {}  # reading it will say why
    same = known.get((image, path, status.st_size, status.st_mtime_ns))
    return same or {"size_bytes": status.st_size, "mtime_ns": status.st_mtime_ns}


def _look(
    positions: Sequence[int],
    rows: Sequence[tuple[str, str, object]],
    facts: list[Facts],
    data: Source,
    forms: Sequence[InputFormat],
) -> None:
    """Put in what the files at some positions hold, or the `flaw` for which they cannot be used."""
    asked = [(rows[i][1], data.max_megapixels, data.allow_two_valued, forms) for i in positions]
    for i, found in zip(positions, each(looks.facts, asked), strict=True):
        times = {name: facts[i][name] for name in ("size_bytes", "mtime_ns") if name in facts[i]}
        facts[i] = times | ({"flaw": found.reason} if isinstance(found, UnreadableImage) else found)


def _table(
    listing: pd.DataFrame, facts: Sequence[Facts], forms: Sequence[InputFormat], shared: int
) -> pd.DataFrame:
    for found in facts:
        if _shares(found):
            found["bits"] = shared
        for form, column in zip(forms, seen_columns(forms), strict=True):
            found[column] = found.get("seen", {}).get((form, found.get("bits")))
    columns: dict[str, Any] = {
        name: [found.get(name) for found in facts] for name in (*TEXT_FACTS, *seen_columns(forms))
    }
    columns |= {name: [found.get(name, 0) for found in facts] for name in NUMBER_FACTS}
    reasons = pd.Series([found.get("flaw") for found in facts], listing.index, dtype=object)
    reasons = listing["reason"].astype(object).fillna(reasons)
    return listing.assign(reason=reasons, **columns).reset_index(drop=True)
