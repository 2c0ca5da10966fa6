"""A folder per class, or per part of a division and class, as a listing."""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from trainables.core.data_config import FolderData
from trainables.core.errors import DataError
from trainables.core.spelling import count, listed
from trainables.core.spelling import pattern as shown
from trainables.pictures.formats import IMAGE_SUFFIXES
from trainables.sources.folder_names import notes_on_folders, part_name
from trainables.sources.group_patterns import check_pattern, groups_in
from trainables.sources.image_files import Found, images_below

#: How the reason begins for an image whose group cannot be read.
NO_GROUP = "no group: its name does not match data.group_from_name"


def list_folder(data: FolderData, root: Path) -> tuple[pd.DataFrame, list[str]]:
    """The rows of a folder with the columns path, image, label, group, split and reason, and notes.

    Raises `DataError` where the folder holds no classes, or what it holds are plainly no classes.
    """
    if not root.is_dir():
        raise DataError(
            f"data.path must be a folder for source 'folder', got the file {str(root)!r} (for a "
            "CSV or Parquet table use source: table)"
        )
    found = images_below(root)
    depth = 2 if data.layout == "split/class" else 1
    if depth == 1:
        _refuse_parts(data, root, found)
    rows, left_out = _rows(data, root, found, depth)
    if all(row["label"] == "" for row in rows):
        raise DataError(
            f"data.path must hold one sub-folder of images per class, found none in {str(root)!r} "
            f"(images must be {', '.join(sorted(IMAGE_SUFFIXES))} files below "
            f"{'<split>/' if depth == 2 else ''}<class>/)"
        )
    notes = [*found.notes, *left_out, *_empty_folders(root, found, rows, depth)]
    notes += notes_on_folders(
        [row["image"] for row in rows if row["label"]], depth, data.group_from_name is not None
    )
    if depth == 2:
        splits = Counter(row["split"] for row in rows)
        parts = ", ".join(
            f"{splits[name]:,} {name}" for name in ("train", "validation", "test") if splits[name]
        )
        notes.append(f"parts by their folders: {parts}")
    return pd.DataFrame(rows, dtype=object), notes


def _rows(
    data: FolderData, root: Path, found: Found, depth: int
) -> tuple[list[dict[str, Any]], list[str]]:
    relatives = [path.relative_to(root) for path, _ in found.files]
    group_of = _GroupReader(
        data.group_from_name, [(each.name, _below_class(each, depth)) for each in relatives]
    )
    rows: list[dict[str, Any]] = []
    outside: Counter[str] = Counter()
    stray: Counter[str] = Counter()
    for (path, reason), relative in zip(found.files, relatives, strict=True):
        parts = relative.parts
        split = part_name(parts[0]) if depth == 2 and len(parts) > 1 else None
        if len(parts) <= depth:
            if reason is not None:
                outside[path.suffix.lower() or path.name] += 1
                continue
            label, reason = "", "no label: it lies outside every class folder"
        elif depth == 2 and split is None:
            stray[parts[0]] += 1
            continue
        else:
            label = parts[depth - 1]
        group, mismatch = group_of(path.name, _below_class(relative, depth))
        row = {
            "path": path,
            "image": relative.as_posix(),
            "label": label,
            "group": group,
            "split": split,
        }
        rows.append(row | {"reason": reason or mismatch})
    notes = group_of.notes()
    if outside:
        notes.append(
            "files outside every class folder that are no images are left out: "
            f"{listed(sorted(outside))}"
        )
    if stray:
        notes.append(
            f"{count(stray.total(), 'image')} in folders that are called neither train, validation "
            f"nor test are left out: {listed(sorted(stray))}"
        )
    return rows, notes


def _below_class(relative: Path, depth: int) -> str:
    return "/".join(relative.parts[depth:])


# --- groups ---------------------------------------------------------------------------------------


class _GroupReader:
    """Reads the group of an image out of its file name, else out of its path below the class
    folder.
    """

    def __init__(self, pattern: str | None, files: Sequence[tuple[str, str]]) -> None:
        """files: the name and the path of every image that may be asked for."""
        self._shown = shown(pattern or "")
        self._search = _searcher(pattern, files) if pattern is not None else None
        self._in_names = self._in_paths = 0

    def __call__(self, name: str, path: str) -> tuple[str | None, str | None]:
        """(group or None, reason why there is none or None)."""
        if self._search is None:
            return None, None
        if group := self._search(name):
            self._in_names += 1
        elif group := self._search(path):
            self._in_paths += 1
        if group:
            return group, None
        return None, f"{NO_GROUP} {self._shown}"

    def notes(self) -> list[str]:
        if not (self._in_names and self._in_paths):
            return []
        return [
            f"data.group_from_name {self._shown} matches the names of "
            f"{count(self._in_names, 'file')}, and only the paths below the class folder of "
            f"{self._in_paths:,} more: check that both mean the patient"
        ]


def _searcher(pattern: str, files: Sequence[tuple[str, str]]) -> Callable[[str], str | None]:
    """What the pattern reads in each name, and in the paths of the files in whose names it reads
    nothing.
    """
    check_pattern(pattern)
    names = sorted({name for name, _ in files})
    found = dict(zip(names, groups_in(pattern, names), strict=True))
    paths = sorted({path for name, path in files if not found[name]} - set(names))
    return (found | dict(zip(paths, groups_in(pattern, paths), strict=True))).get


# --- folders that are no classes ------------------------------------------------------------------


def _refuse_parts(data: FolderData, root: Path, found: Found) -> None:
    """Refuse train, val and test as classes, and a folder that is one too high."""
    inside: dict[str, set[str]] = {}
    for path, reason in found.files:
        parts = path.relative_to(root).parts
        if reason is None and len(parts) > 1:
            inside.setdefault(parts[0], set()).update(parts[1:2] if len(parts) > 2 else ())
    named = [name for name in inside if part_name(name) and name not in (data.classes or ())]
    common = set.intersection(*(inside[name] for name in named)) if len(named) > 1 else set()
    if common:
        raise DataError(
            f"data.path must hold one sub-folder of images per class, got {listed(sorted(named))}, "
            f"each with {listed(sorted(common))} in it (if these are parts of a division with the "
            "classes below them, set data.layout: split/class; if they are classes, name them in "
            "data.classes)"
        )
    if len(inside) == 1:
        ((name, below),) = inside.items()
        if len(below) > 1:
            layout = " and data.layout: split/class" if all(map(part_name, below)) else ""
            raise DataError(
                f"a comparison needs at least 2 classes, found 1 ({name!r}), which holds "
                f"{listed(sorted(below))} (if "
                f"{'they are parts of a division' if layout else 'those are the classes'}, set "
                f"data.path to {str(root / name)!r}{layout})"
            )


def _empty_folders(root: Path, found: Found, rows: list[dict[str, Any]], depth: int) -> list[str]:
    filled = {tuple(row["image"].split("/")[:depth]) for row in rows}
    masks = {folder.relative_to(root).parts[:depth] for folder in found.masks}
    folders = {folder.relative_to(root).parts for folder in found.folders}
    empty = sorted("/".join(parts) for parts in folders - filled - masks if len(parts) == depth)
    return [f"folders that hold no images are no classes: {listed(empty)}"] if empty else []
