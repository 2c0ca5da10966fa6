"""Which files below a folder are meant as images: no clutter, nothing hidden, no masks, and a word
about all that.
"""

import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from trainables.core.errors import DataError, UnreadableImage
from trainables.core.limits import FOLDER_ENTRIES, VISITS
from trainables.core.spelling import count, listed, quoted
from trainables.pictures import looks
from trainables.pictures.decoders import each
from trainables.pictures.formats import unread_format

#: What file managers, network storage and cameras leave beside images, in lower case.
_CLUTTER_FOLDERS = re.compile(
    r"@(eadir|recycle|recently-snapshot|sharebin|tmp|__thumb)|[#~](recycle|snapshot)|lost\+found|"
    r"lost\.dir|found\.\d{3}|\$recycle\.bin|recycle[rd]|system volume information|"
    r"network trash folder|temporary items|__macosx|__pycache__",
    re.IGNORECASE,
)
_CLUTTER_FILES = re.compile(
    r"thumbs\.db|ehthumbs(_vista)?\.db|desktop\.ini|picasa\.ini|zbthumbnail\.info|dicomdir|icon\r|.*:zone\.identifier",
    # the last is what Windows notes about a download, as a file of its own on other systems
    re.IGNORECASE,
)
_CLUTTER_SUFFIXES = frozenset({".xmp", ".aae", ".thm", ".lnk", ".url", ".part", ".crdownload"})
_NO_IMAGES = frozenset({".txt", ".csv", ".json", ".md"})
#: Hidden names that need no word.
_USUAL_HIDDEN = re.compile(
    r"\.(_.*|ds_store|git.*|ipynb_checkpoints|trash.*|thumb.*|@__thumb|cache|snapshot|spotlight-.*|fseventsd|apple.*|"
    r"apdisk|localized|directory|nomedia|picasa.*|documentrevisions-.*|temporaryitems|nfs.*)",
    re.IGNORECASE,
)
_SAMPLE = 5  # images by which a folder of masks is known


@dataclass
class Found:
    """What lies below a folder.

    `files` are sorted, each with the reason why it is no image by its name, or None; `folders` are
    those looked into; `masks` are those left out as masks; `notes` say in one line each what was
    left out.
    """

    files: list[tuple[Path, str | None]] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)
    masks: frozenset[Path] = frozenset()
    notes: list[str] = field(default_factory=list)


def images_below(root: Path) -> Found:
    """Every file below `root` that is meant as an image or may be mistaken for one, nested and
    linked folders included.

    Raises `DataError` where a folder cannot be read, and for the root of a file system.
    """
    if root.resolve() == Path(root.resolve().anchor):
        raise DataError(
            f"images must lie in a folder of their own, got {str(root)!r} (name that folder)"
        )
    walk = _Walk(root)
    paths = sorted(walk.files())
    masks = _mask_folders(root, paths)
    kept = [path for path in paths if _mask_folder(root, path) not in masks]
    notes = walk.notes()
    if masks:
        folders = listed(folder.relative_to(root).as_posix() for folder in sorted(masks))
        notes.append(
            f"{count(len(paths) - len(kept), 'file')} in folders of masks are left out, no images: "
            f"{folders} (masks are named by columns mask_<name> of a table; rename a folder to "
            "take what it holds as images)"
        )
    return Found([(path, unread_format(path)) for path in kept], sorted(walk.folders), masks, notes)


def files_below(root: Path) -> Iterator[Path]:
    """Every file below `root` but hidden ones and clutter. Raises `DataError` where a folder cannot
    be read.
    """
    return _Walk(root).files()


# --- walking --------------------------------------------------------------------------------------


class _Walk:
    """One way through the folders below `root`, which counts what it passes over.

    Symbolic links are followed, except back to a folder that contains them. Raises `DataError` for
    more than can be meant.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folders: list[Path] = []
        self._clutter: Counter[str] = Counter()
        self._no_images: Counter[str] = Counter()
        self._hidden: list[str] = []
        self._loops: list[str] = []

    def files(self) -> Iterator[Path]:
        waiting = [(self.root, frozenset({_identity(self.root)}))]
        visits: Counter[tuple[int, int]] = Counter()
        entries = 0
        while waiting:
            current, above = waiting.pop()
            self.folders.append(current)
            inside = _entries(current)
            entries += len(inside)
            if entries > FOLDER_ENTRIES:
                raise DataError(
                    f"a folder of images may hold at most {FOLDER_ENTRIES:,} files and folders, "
                    f"got more below {str(self.root)!r} (name the folder that holds only the "
                    "images)"
                )
            for entry in inside:
                path = current / entry.name
                is_folder = path.is_dir() if entry.is_symlink() else entry.is_dir()
                if self._is_left_out(path, is_folder):
                    continue
                if not is_folder:
                    yield path
                elif (identity := _identity(path)) not in above and visits[identity] < VISITS:
                    visits[identity] += 1
                    waiting.append((path, above | {identity}))
                else:
                    self._loops.append(path.relative_to(self.root).as_posix())

    def _is_left_out(self, path: Path, is_folder: bool) -> bool:
        name, suffix = path.name, path.suffix.lower()
        if name.startswith("."):
            if not _USUAL_HIDDEN.fullmatch(name):
                self._hidden.append(path.relative_to(self.root).as_posix())
            return True
        if (_CLUTTER_FOLDERS if is_folder else _CLUTTER_FILES).fullmatch(name):
            clutter = name[name.find(":") :] if ":" in name else name
        else:
            clutter = suffix if suffix in _CLUTTER_SUFFIXES and not is_folder else ""
        if clutter:
            self._clutter[clutter] += 1
        elif not is_folder and suffix in _NO_IMAGES:
            self._no_images[suffix] += 1
        else:
            return False
        return True

    def notes(self) -> list[str]:
        notes = []
        if self._clutter:
            notes.append(f"clutter is left out: {_tally(self._clutter)}")
        if self._no_images:
            notes.append(f"files that are no images are left out: {_tally(self._no_images)}")
        if self._hidden:
            notes.append(
                f"hidden files and folders are left out ({len(self._hidden):,}): "
                f"{listed(sorted(self._hidden))}"
            )
        if self._loops:
            notes.append(
                "links back to a folder above them, or to one that many lead to, are not followed: "
                f"{listed(sorted(self._loops))}"
            )
        return notes


def _tally(names: Counter[str]) -> str:
    most = names.most_common(8)
    more = f" and {len(names) - len(most)} more kinds" if len(names) > len(most) else ""
    return ", ".join(f"{quoted(name)} ({number:,})" for name, number in most) + more


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise DataError(
            f"data.path must be readable, got {error.strerror} for {str(folder)!r} (check its "
            "permissions)"
        ) from None


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


# --- masks ----------------------------------------------------------------------------------------


def _mask_folder(root: Path, path: Path) -> Path | None:
    """The innermost folder above a file that is called after masks."""
    for folder in path.parents:
        if folder == root:
            return None
        if "mask" in folder.name.lower():
            return folder
    return None


def _mask_folders(root: Path, paths: list[Path]) -> frozenset[Path]:
    """The folders that are called after masks, hold masks, and lie beside images that are none.

    A name alone says little: 'with_mask' may be a class, and 'masked_lungs' the images themselves,
    cut out.
    """
    by_folder: dict[Path, list[Path]] = {}
    others = []
    for path in paths:
        folder = _mask_folder(root, path)
        if folder is None:
            others.append(path)
        else:
            by_folder.setdefault(folder, []).append(path)
    # Folders of one name in one class are judged together, or thousands of patients' folders would
    # all be opened.
    kinds: dict[tuple[str, str], list[Path]] = {}
    for folder in by_folder:
        kinds.setdefault((folder.relative_to(root).parts[0], folder.name), []).append(folder)
    masks: set[Path] = set()
    for folders in kinds.values():
        files = [path for folder in folders for path in by_folder[folder]]
        if _hold_masks(files):
            masks.update(folders)
        else:
            others += files
    return frozenset(masks) if masks and others and not _hold_masks(others) else frozenset()


def _hold_masks(paths: list[Path]) -> bool:
    """Whether a few of these files, from all over the list, are masks, all that can be read of
    them.
    """
    step = max(1, len(paths) // _SAMPLE)
    few = [(str(path),) for path in paths[step // 2 :: step][:_SAMPLE]]
    verdicts = [
        verdict
        for verdict in each(looks.like_a_mask, few)
        if not isinstance(verdict, UnreadableImage)
    ]
    return bool(verdicts) and all(verdicts)
