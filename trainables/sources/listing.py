"""Where images and labels come from: each source becomes one listing, a table of images that nobody
has opened yet.

A listing has the columns image, path, label, group, view, split, mask_<name> and reason, one row
per image, sorted by image. `reason` says what is already wrong with a row (no label, no image
format, ...), and is missing otherwise.
"""

import difflib
import os
from pathlib import Path

import pandas as pd

from trainables.core.data_config import CovidQuExData, FolderData, PhantomData, TableData
from trainables.core.errors import DataError
from trainables.core.layout import cache_folder
from trainables.core.spelling import count, listed, tidy
from trainables.sources.folder_source import list_folder
from trainables.sources.groups import merge_groups, notes_on_groups, take_patients
from trainables.sources.image_table import WORKBOOKS, read_image_table
from trainables.sources.qu_ex import list_covid_qu_ex

Source = FolderData | TableData | CovidQuExData | PhantomData


def list_images(data: Source, base: Path) -> tuple[pd.DataFrame, list[str]]:
    """The listing of a source, and notes: one line each on what was left out, merged or read as
    meant.

    A relative `data.path` starts at `base`. Raises `DataError` when there is no listing.
    """
    if isinstance(data, PhantomData):
        from trainables.sources.phantom import write_phantoms

        table = write_phantoms(data, cache_folder() / "phantoms")
        return _listing(*read_image_table(TableData(source="table", path=str(table)), table))
    path = _existing(data.path, base)
    if isinstance(data, FolderData):
        listing, notes = _listing(*list_folder(data, path))
    elif isinstance(data, CovidQuExData):
        listing, notes = _listing(*list_covid_qu_ex(data, path))
    else:
        listing, notes = _listing(*read_image_table(data, path))
    return listing, [*notes, *notes_on_groups(listing, data.source)]


def _existing(text: str, base: Path) -> Path:
    # Unlike Path.expanduser, this leaves the name of an unknown user as it is.
    path = Path(os.path.normpath(base.absolute() / os.path.expanduser(text)))  # noqa: PTH111
    if not os.path.exists(path):  # noqa: PTH110  # false for names that no file can have
        readable = os.path.isdir(path.parent) and os.access(path.parent, os.R_OK)  # noqa: PTH112
        siblings = os.listdir(path.parent) if readable else []  # noqa: PTH208
        of_its_kind = [
            name for name in siblings if Path(name).suffix.lower() == path.suffix.lower()
        ]
        alike = difflib.get_close_matches(path.name, of_its_kind, n=1)
        if not alike and path.suffix.lower() not in WORKBOOKS:
            alike = difflib.get_close_matches(path.name, siblings, n=1)
        remedy = (
            f"did you mean {alike[0]!r}?"
            if alike
            else f"relative paths start at {str(base.absolute())!r}"
        )
        raise DataError(f"data.path must exist, got {str(path)!r} ({remedy})")
    return path


# --- what all sources share -----------------------------------------------------------------------


def _listing(listing: pd.DataFrame, notes: list[str]) -> tuple[pd.DataFrame, list[str]]:
    """Collected rows in the order of their image ids, as tidy strings, with every column that a
    listing must have.
    """
    for column in ("group", "view", "split", "reason"):
        if column not in listing:
            listing[column] = None
    for column in listing.columns:
        listing[column] = _storable(listing, column)
    notes = [*notes, *_tidied(listing, "label"), *_tidied(listing, "group"), *merge_groups(listing)]
    unlabelled = listing["label"].isna()
    listing.loc[unlabelled, "label"] = ""
    listing.loc[unlabelled & listing["reason"].isna(), "reason"] = "empty label"
    notes += take_patients(listing)
    listing["group"] = listing["group"].where(listing["group"].notna(), listing["image"])
    return listing.sort_values("image", ignore_index=True), notes


def _storable(listing: pd.DataFrame, column: str) -> pd.Series:
    """A column as strings that can be written as UTF-8; images whose names cannot are marked and
    kept.
    """
    texts = [None if pd.isna(value) else str(value) for value in listing[column]]
    escaped = [
        text and text.encode(errors="surrogateescape").decode(errors="backslashreplace")
        for text in texts
    ]
    listing.loc[[text != safe for text, safe in zip(texts, escaped, strict=True)], "reason"] = (
        "its name is not UTF-8"
    )
    return pd.Series(escaped, listing.index, dtype="str")


def _tidied(listing: pd.DataFrame, column: str) -> list[str]:
    """Tidy the names in a column, in place; blank ones are missing."""
    names = listing[column].dropna()
    tidied = {name: tidy(name) for name in names.unique()}
    untidy = sorted(name for name, better in tidied.items() if better not in (name, ""))
    listing[column] = (
        listing[column].map(lambda name: tidied[name] or None, na_action="ignore").astype("str")
    )
    if not untidy:
        return []
    number = int(names.isin(untidy).sum())
    return [
        f"the {column} of {count(number, 'image')} has blanks at an end or another Unicode form, "
        f"which do not count: {listed(untidy)}"
    ]
