"""Where images and labels come from: each source becomes one listing, a table of images that nobody has opened yet.

A listing has the columns image, path, label, group, view, split, mask_<name> and reason, one row per image, sorted by
image. `reason` says what is already wrong with a row (no label, no image format, ...), and is missing otherwise.
"""

import difflib
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd

from trainables.config import CovidQuExData, FolderData, PhantomData, TableData
from trainables.errors import DataError
from trainables.formats import IMAGE_SUFFIXES, unread_format
from trainables.image_table import read_image_table
from trainables.layout import cache_folder

Source = FolderData | TableData | CovidQuExData | PhantomData

#: What lies about in image folders without being one; hidden files (.DS_Store) are ignored as well.
_CLUTTER_SUFFIXES = frozenset({".txt", ".csv", ".json", ".md"})
_CLUTTER_NAMES = frozenset({"thumbs.db", "desktop.ini", "dicomdir"})

_QU_EX_TREES = {"lung": "Lung Segmentation Data", "infection": "Infection Segmentation Data"}
_QU_EX_SPLITS = {"Train": "train", "Val": "validation", "Test": "test"}
_QU_EX_MASKS = {
    "lung": {"mask_lungs": "lung masks"},
    "infection": {"mask_lungs": "lung masks", "mask_infection": "infection masks"},
}


def list_images(data: Source, base: Path) -> pd.DataFrame:
    """The listing of a source; a relative `data.path` starts at `base`. Raises `DataError` when there is none."""
    if isinstance(data, PhantomData):
        from trainables.phantom import write_phantoms

        table = write_phantoms(data, cache_folder() / "phantoms")
        return _listing(read_image_table(TableData(source="table", path=str(table)), table))
    path = _existing(data.path, base)
    if isinstance(data, FolderData):
        return _list_folder(data, path)
    if isinstance(data, CovidQuExData):
        return _list_covid_qu_ex(data, path)
    return _listing(read_image_table(data, path))


def _existing(text: str, base: Path) -> Path:
    # Unlike Path.expanduser, this leaves the name of an unknown user as it is.
    path = Path(os.path.normpath(base.absolute() / os.path.expanduser(text)))  # noqa: PTH111
    if not path.exists():
        siblings = os.listdir(path.parent) if path.parent.is_dir() else []  # noqa: PTH208
        alike = difflib.get_close_matches(path.name, siblings, n=1)
        remedy = f"did you mean {alike[0]!r}?" if alike else f"relative paths start at {str(base.absolute())!r}"
        raise DataError(f"data.path must exist, got {str(path)!r} ({remedy})")
    return path


# --- one folder per class ---------------------------------------------------------------------------------------------


def _list_folder(data: FolderData, root: Path) -> pd.DataFrame:
    if not root.is_dir():
        raise DataError(
            f"data.path must be a folder for source 'folder', got the file {str(root)!r} (for a CSV or Parquet table "
            "use source: table)"
        )
    group_of = _group_reader(data.group_from_name)
    rows = []
    for path in images_below(root):
        relative = path.relative_to(root)
        label, reason = relative.parts[0], unread_format(path)
        if len(relative.parts) == 1:
            if reason is not None:
                continue
            label, reason = "", "no label: it lies outside every class folder"
        group, mismatch = group_of(path.name)
        rows.append({"path": path, "image": relative.as_posix(), "label": label, "group": group})
        rows[-1]["reason"] = reason or mismatch
    if all(row["label"] == "" for row in rows):
        raise DataError(
            f"data.path must hold one sub-folder of images per class, found none in {str(root)!r} (images must be "
            f"{', '.join(sorted(IMAGE_SUFFIXES))} files below <class>/)"
        )
    return _listing(pd.DataFrame(rows, dtype=object))


def _group_reader(pattern: str | None) -> Callable[[str], tuple[str | None, str | None]]:
    """A function from a file name to (group or None, reason why there is none or None)."""
    if pattern is None:
        return lambda _name: (None, None)
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise DataError(f"data.group_from_name must be a regular expression, got {pattern!r}: {error}") from None
    if expression.groups != 1:
        raise DataError(
            f"data.group_from_name must have exactly one (group), got {expression.groups} in {pattern!r} "
            "(write the others as (?:...))"
        )

    def read(name: str) -> tuple[str | None, str | None]:
        match = expression.search(name)
        group = match.group(1) if match else None
        return (group, None) if group else (None, f"no group: its name does not match data.group_from_name {pattern!r}")

    return read


def images_below(folder: Path) -> Iterator[Path]:
    """Every file that is meant as an image or may be mistaken for one: no clutter, nothing hidden, no masks.

    Symbolic links are followed, except back to a folder that contains them.
    """
    waiting = [(folder, frozenset({_identity(folder)}))]
    while waiting:
        current, above = waiting.pop()
        for entry in _entries(current):
            if entry.name.startswith("."):
                continue
            path = current / entry.name
            if not (path.is_dir() if entry.is_symlink() else entry.is_dir()):
                if entry.name.lower() not in _CLUTTER_NAMES and path.suffix.lower() not in _CLUTTER_SUFFIXES:
                    yield path
            elif "mask" not in entry.name.lower():
                identity = _identity(path)
                if identity not in above:
                    waiting.append((path, above | {identity}))


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise DataError(
            f"data.path must be readable, got {error.strerror} for {str(folder)!r} (check its permissions)"
        ) from None


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


# --- COVID-QU-Ex ------------------------------------------------------------------------------------------------------


def _list_covid_qu_ex(data: CovidQuExData, path: Path) -> pd.DataFrame:
    """Images of {Train,Val,Test}/<class>/images with the masks of the same file name; the tree has no patients."""
    root = _qu_ex_root(data, path)
    rows = []
    for split in _QU_EX_SPLITS:
        for class_folder in sorted(folder for folder in (root / split).glob("*") if folder.is_dir()):
            masks = {
                column: {mask.name: mask for mask in (class_folder / name).glob("*")}
                for column, name in _QU_EX_MASKS[data.part].items()
            }
            images = class_folder / "images"
            for image in images_below(images) if images.is_dir() else ():
                row = {"path": image, "image": image.relative_to(root).as_posix(), "label": class_folder.name}
                row |= {"split": _QU_EX_SPLITS[split], "reason": unread_format(image)}
                rows.append(row | {column: files.get(image.name) for column, files in masks.items()})
    if not rows:
        raise DataError(f"data.path must hold {{Train,Val,Test}}/<class>/images, found no image in {str(root)!r}")
    return _listing(pd.DataFrame(rows, dtype=object))


def _qu_ex_root(data: CovidQuExData, path: Path) -> Path:
    name = _QU_EX_TREES[data.part]
    candidates = [path / name / name, path / name]
    if not any(tree in path.name for part, tree in _QU_EX_TREES.items() if part != data.part):
        candidates.append(path)
    for candidate in candidates:
        if any((candidate / split).is_dir() for split in _QU_EX_SPLITS):
            return candidate
    raise DataError(
        f"data.path must hold {name + '/{Train,Val,Test}'!r} for data.part {data.part}, found none in {str(path)!r} "
        "(give the folder into which COVID-QU-Ex was unzipped)"
    )


# --- what all sources share -------------------------------------------------------------------------------------------


def _listing(listing: pd.DataFrame) -> pd.DataFrame:
    """Collected rows in the order of their image ids, as strings, with every column that a listing must have."""
    for column in ("group", "view", "split", "reason"):
        if column not in listing:
            listing[column] = None
    for column in listing.columns:
        listing[column] = _storable(listing, column)
    unlabelled = listing["label"].isna() | (listing["label"].str.strip() == "")
    listing.loc[unlabelled, "label"] = ""
    listing.loc[unlabelled & listing["reason"].isna(), "reason"] = "empty label"
    listing["group"] = listing["group"].where(listing["group"].notna(), listing["image"])
    return listing.sort_values("image", ignore_index=True)


def _storable(listing: pd.DataFrame, column: str) -> pd.Series:
    """A column as strings that can be written as UTF-8; images whose names cannot are marked and kept."""
    texts = [None if pd.isna(value) else str(value) for value in listing[column]]
    escaped = [text and text.encode(errors="surrogateescape").decode(errors="backslashreplace") for text in texts]
    listing.loc[[text != safe for text, safe in zip(texts, escaped, strict=True)], "reason"] = "its name is not UTF-8"
    return pd.Series(escaped, listing.index, dtype="str")
