"""Where images and labels come from: each source becomes one listing, a table of images that nobody has opened yet.

A listing has the columns image, path, label, group, view, split, mask_<name> and reason, one row per image, sorted by
image. `reason` says what is already wrong with a row (no label, no image format, ...), and is missing otherwise.
"""

import difflib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd

from trainables.config import CovidQuExData, FolderData, PhantomData, TableData
from trainables.dicom_header import read_patient
from trainables.errors import DataError
from trainables.folder_source import list_folder
from trainables.formats import IMAGE_SUFFIXES, is_dicom
from trainables.image_table import read_image_table
from trainables.layout import cache_folder
from trainables.qu_ex import list_covid_qu_ex
from trainables.spelling import alike, count, listed, tidy

Source = FolderData | TableData | CovidQuExData | PhantomData

#: Files that nobody opens to see whether they are DICOM, by their suffix.
_PICTURES = IMAGE_SUFFIXES - {".dcm", ".dicom"}
_NAME_GROUPS = {
    "folder": "data.group_from_name reads the patient out of names and folders",
    "table": "give the table a column group, or name its column of patients in data.columns.group",
    "covid_qu_ex": "the tree does not tell its patients",
}


def list_images(data: Source, base: Path) -> tuple[pd.DataFrame, list[str]]:
    """The listing of a source, and notes: one line each on what was left out, merged or read as meant.

    A relative `data.path` starts at `base`. Raises `DataError` when there is no listing.
    """
    if isinstance(data, PhantomData):
        from trainables.phantom import write_phantoms

        table = write_phantoms(data, cache_folder() / "phantoms")
        return _listing(*read_image_table(TableData(source="table", path=str(table)), table))
    path = _existing(data.path, base)
    if isinstance(data, FolderData):
        listing, notes = _listing(*list_folder(data, path))
    elif isinstance(data, CovidQuExData):
        listing, notes = _listing(*list_covid_qu_ex(data, path))
    else:
        listing, notes = _listing(*read_image_table(data, path))
    return listing, [*notes, *_on_groups(listing, data.source)]


def _existing(text: str, base: Path) -> Path:
    # Unlike Path.expanduser, this leaves the name of an unknown user as it is.
    path = Path(os.path.normpath(base.absolute() / os.path.expanduser(text)))  # noqa: PTH111
    if not path.exists():
        siblings = os.listdir(path.parent) if path.parent.is_dir() else []  # noqa: PTH208
        alike = difflib.get_close_matches(path.name, siblings, n=1)
        remedy = f"did you mean {alike[0]!r}?" if alike else f"relative paths start at {str(base.absolute())!r}"
        raise DataError(f"data.path must exist, got {str(path)!r} ({remedy})")
    return path


# --- what all sources share -------------------------------------------------------------------------------------------


def _listing(listing: pd.DataFrame, notes: list[str]) -> tuple[pd.DataFrame, list[str]]:
    """Collected rows in the order of their image ids, as tidy strings, with every column that a listing must have."""
    for column in ("group", "view", "split", "reason"):
        if column not in listing:
            listing[column] = None
    for column in listing.columns:
        listing[column] = _storable(listing, column)
    notes = [*notes, *_tidied(listing, "label"), *_tidied(listing, "group"), *_merge_groups(listing)]
    unlabelled = listing["label"].isna()
    listing.loc[unlabelled, "label"] = ""
    listing.loc[unlabelled & listing["reason"].isna(), "reason"] = "empty label"
    notes += _take_patients(listing)
    listing["group"] = listing["group"].where(listing["group"].notna(), listing["image"])
    return listing.sort_values("image", ignore_index=True), notes


def _storable(listing: pd.DataFrame, column: str) -> pd.Series:
    """A column as strings that can be written as UTF-8; images whose names cannot are marked and kept."""
    texts = [None if pd.isna(value) else str(value) for value in listing[column]]
    escaped = [text and text.encode(errors="surrogateescape").decode(errors="backslashreplace") for text in texts]
    listing.loc[[text != safe for text, safe in zip(texts, escaped, strict=True)], "reason"] = "its name is not UTF-8"
    return pd.Series(escaped, listing.index, dtype="str")


def _tidied(listing: pd.DataFrame, column: str) -> list[str]:
    """Tidy the names in a column, in place; blank ones are missing."""
    names = listing[column].dropna()
    tidied = {name: tidy(name) for name in names.unique()}
    untidy = sorted(name for name, better in tidied.items() if better not in (name, ""))
    listing[column] = listing[column].map(lambda name: tidied[name] or None, na_action="ignore").astype("str")
    if not untidy:
        return []
    number = int(names.isin(untidy).sum())
    return [
        f"the {column} of {count(number, 'image')} has blanks at an end or another Unicode form, which do not count: "
        f"{listed(untidy)}"
    ]


# --- groups -----------------------------------------------------------------------------------------------------------


def _merge_groups(listing: pd.DataFrame) -> list[str]:
    """Give groups that look alike one name, in place: images that are kept together needlessly leak nothing."""
    same = alike(listing["group"].dropna().unique())
    first = {name: names[0] for names in same for name in names}
    if not first:
        return []
    listing["group"] = listing["group"].map(lambda name: first.get(name, name), na_action="ignore").astype("str")
    return [
        f"groups that differ in capitals, blanks or look-alike letters only are one ({len(same):,}): "
        f"{listed(name for names in same for name in names)}"
    ]


def _take_patients(listing: pd.DataFrame) -> list[str]:
    """Group DICOM files that have no group by their patients, in place."""
    missing = listing.index[listing["group"].isna() & listing["reason"].isna()]
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        found = list(threads.map(_patient, map(Path, listing.loc[missing, "path"])))
    patients = pd.Series(found, missing, dtype="str").dropna()
    if patients.empty:
        return []
    if len(patients) > 1 and patients.nunique() == 1:
        return [f"all {len(patients):,} DICOM files have one and the same PatientID, which is no group therefore"]
    listing.loc[patients.index, "group"] = patients
    return [
        f"{count(len(patients), 'DICOM file')} without a group {'is' if len(patients) == 1 else 'are'} grouped by the "
        f"PatientID in the header, as a digest: {count(patients.nunique(), 'patient')}"
    ]


def _patient(path: Path) -> str | None:
    return None if path.suffix.lower() in _PICTURES or not is_dicom(path) else read_patient(path)


def _on_groups(listing: pd.DataFrame, source: str) -> list[str]:
    own = listing["group"] == listing["image"]
    if own.all():
        return [
            f"every image is its own group, so images of one patient may lie in training and test ("
            f"{_NAME_GROUPS[source]})"
        ]
    if listing["group"].is_unique:
        return ["no two images share a group: check that it names the patient and not the image"]
    if own.any():
        return [f"{int(own.sum()):,} of {len(listing):,} images have no group and are their own"]
    return []
