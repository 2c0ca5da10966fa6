"""What the names of folders and files say about a folder of images, where images may be taken for
what they are not.

Nothing is left out here: each function gives notes, one line for each kind of thing, from the paths
below the root.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import PurePosixPath

from trainables.core.spelling import count, listed

_PARTS = {"train": "train", "training": "train", "test": "test", "testing": "test"} | dict.fromkeys(
    ("val", "valid", "validation", "dev", "eval"), "validation"
)
_PART = re.compile(rf"({'|'.join(_PARTS)})([ _-]?(set|data|images))?", re.IGNORECASE)
_PART_AND_NAME = re.compile(rf"({'|'.join(_PARTS)})([ _.-]*)(.+)", re.IGNORECASE)
_NAME_AND_PART = re.compile(rf"(.+?)([ _.-]*)({'|'.join(_PARTS)})", re.IGNORECASE)
#: Words by which people call what belongs to an image and is none.
_COMPANION = (
    r"(soft|binary|lung|lesion|infection|left|right)?[ _-]?"
    r"(masks?|seg|segs|segm|segmentations?|segmented|seg[ _-]?maps?|"
    r"ground[ _-]?truths?|gts?|annotations?|annotated|overlays?|contours?|outlines?|rois?|"
    r"heat[ _-]?maps?|saliency|probmaps?|labels?|bbox(es)?|attention)"
    r"([ _-]?(images?|maps?|png|files?))?"
)
_COMPANION_FOLDER = re.compile(_COMPANION, re.IGNORECASE)
_COMPANION_END = re.compile(rf"(.+?)[ _.-]+{_COMPANION}[ _-]?\d*", re.IGNORECASE)
_IMAGES = re.compile(r"(images?|imgs?|originals?|raw|cxr|x-?rays?|scans?)", re.IGNORECASE)
_OUTER = re.compile(
    r"(k?-?fold|site|hospital|cent(er|re)|clinic|institution|cv|split|part|batch|device|scanner|vendor|cohort|dataset|"
    r"source|country|city|year|run|seed)s?[ _-]*\w{0,3}",
    re.IGNORECASE,
)
_NUMBERED = re.compile(r"\D*\d+\D*")
_GRADED = re.compile(
    r"(grade|class|stage|level|type|label|category|bi-?rads|kl|score)s?[ _-]*\d+", re.IGNORECASE
)
_ALIKE = 0.8  # the part of a folder's names that repeats those beside it
_FEW_FOLDERS = 5
_MANY_IMAGES = 10  # of one patient, more than a study usually has
_REMEDY = (
    "where they are masks or the like, move them out of data.path, or name the images by a table"
)


def part_name(folder: str) -> str | None:
    """train, validation or test for a folder that is called so, as people call them: 'val',
    'Test_Set', ...
    """
    match = _PART.fullmatch(folder.strip())
    return _PARTS[match[1].lower()] if match else None


def notes_on_folders(images: Iterable[str], depth: int, patients_are_read: bool) -> list[str]:
    """Notes on images, as paths below the root whose part `depth` - 1 is the class.

    `patients_are_read` where sub-folders may be patients by data.group_from_name.
    """
    files = [PurePosixPath(image) for image in images]
    classes: dict[str, list[PurePosixPath]] = defaultdict(list)
    for file in files:
        classes[file.parts[depth - 1]].append(PurePosixPath(*file.parts[depth:]))
    notes = _parts_in_classes(classes)
    return [
        *_parts_in_names(classes),
        *(notes or _same_folders(classes, patients_are_read)),
        *_companions(files, classes, depth),
    ]


# --- parts and sites ------------------------------------------------------------------------------


def _parts_in_names(classes: Iterable[str]) -> list[str]:
    """Classes that are called Train_Normal and Test_Normal."""
    parts: dict[str, dict[str, str]] = defaultdict(dict)  # rest of the name → part → class
    for name in classes:
        first, last = _PART_AND_NAME.fullmatch(name), _NAME_AND_PART.fullmatch(name)
        # Without a joint only a capital or a digit begins a new word: 'trained' is no part.
        if first and (first[2] or not first[3][0].islower()):
            parts[first[3].casefold()][_PARTS[first[1].lower()]] = name
        elif last and (last[2] or last[3][0].isupper()):
            parts[last[1].casefold()][_PARTS[last[3].lower()]] = name
    split = [name for found in parts.values() if len(found) > 1 for name in found.values()]
    if not split:
        return []
    return [
        f"classes are called like parts of a division of one class: {listed(sorted(split))} (each "
        "is a class of its own here; where they are parts, sort them into <split>/<class>/ and set "
        "data.layout: split/class)"
    ]


def _parts_in_classes(classes: dict[str, list[PurePosixPath]]) -> list[str]:
    """Classes that hold train, val and test."""
    folders: Counter[str] = Counter()
    for files in classes.values():
        inside = Counter(
            file.parts[0] for file in files if len(file.parts) > 1 and part_name(file.parts[0])
        )
        if len({part_name(name) for name in inside}) > 1:
            folders.update(inside)
    if not folders:
        return []
    return [
        f"{count(folders.total(), 'image')} in parts of a division below the classes are pooled, "
        f"and the parts do not count: {listed(sorted(folders))} (to keep them, turn the folders "
        "into <split>/<class>/ and set data.layout: split/class, or give a table with a column "
        "split)"
    ]


def _same_folders(classes: dict[str, list[PurePosixPath]], patients_are_read: bool) -> list[str]:
    """Sites or folds that hold the classes, and were taken for them."""
    inside = [
        Counter(file.parts[0] for file in files if len(file.parts) > 1)
        for files in classes.values()
    ]
    if len(inside) < 2:
        return []
    # What is called like masks gets a word of its own.
    common = sorted(
        name
        for name in set.intersection(*map(set, inside))
        if not _COMPANION_FOLDER.fullmatch(name)
    )
    outer = sum(_OUTER.fullmatch(name) is not None for name in classes) > 1
    if len(common) < 2 or not (outer or _are_no_patients(common, inside, patients_are_read)):
        return []
    again = " hold files of the same names and" if _repeats(common, classes) else ""
    return [
        f"all {len(inside)} classes ({listed(sorted(classes))}) hold the same sub-folders, "
        f"which{again} are pooled: {listed(common)} (where those are the classes, and the folders "
        "above them sites or folds, set data.path to one of them, or give a table with path, label "
        "and group; where one of them holds no images, move it out of data.path)"
    ]


def _are_no_patients(
    common: list[str], inside: list[Counter[str]], patients_are_read: bool
) -> bool:
    """Patients and studies are numbered, are many, hold few images, and are seldom the same ones in
    every class.
    """
    if not all(map(_NUMBERED.fullmatch, common)) or all(map(_GRADED.fullmatch, common)):
        return True
    few = len(common) <= _FEW_FOLDERS and all(set(found) == set(common) for found in inside)
    return (
        not patients_are_read
        and few
        and min(found[name] for found in inside for name in common) >= _MANY_IMAGES
    )


def _repeats(folders: list[str], classes: dict[str, list[PurePosixPath]]) -> bool:
    """Whether in every class these sub-folders hold files of the same names."""
    for files in classes.values():
        names = [{file.stem for file in files if file.parts[0] == folder} for folder in folders]
        if len(set.intersection(*names)) < _ALIKE * max(map(len, names)):
            return False
    return True


# --- companions of images -------------------------------------------------------------------------


def _companions(
    files: list[PurePosixPath], classes: dict[str, list[PurePosixPath]], depth: int
) -> list[str]:
    stems: dict[PurePosixPath, set[str]] = defaultdict(set)
    for file in files:
        stems[file.parent].add(file.stem)
    taken = Counter(file.parent for file in files)
    called, repeating = _companion_classes(classes), _repeating_classes(classes)
    named = {
        folder for folder in taken if any(map(_COMPANION_FOLDER.fullmatch, folder.parts[depth:]))
    }
    named |= {folder for folder in taken if folder.parts[depth - 1] in called}
    repeated = {
        folder
        for folder in taken
        if len(folder.parts) > depth and _repeats_above(folder, stems, depth)
    }
    repeated |= {folder for folder in taken if folder.parts[depth - 1] in repeating}
    repeated |= _repeating_siblings(stems, depth)
    notes = []
    if named:
        notes.append(
            f"{count(sum(taken[folder] for folder in named), 'image')} in folders that are called "
            "like masks or other companions are taken as images: "
            f"{listed(sorted(map(str, named)))} ({_REMEDY})"
        )
    if others := repeated - named:
        notes.append(
            f"{count(sum(taken[folder] for folder in others), 'image')} in folders whose file "
            "names repeat those of the images beside them are taken as images: "
            f"{listed(sorted(map(str, others)))} ({_REMEDY})"
        )
    ends = [str(file) for file in files if _base(file.stem) in stems[file.parent] - {file.stem}]
    if ends:
        notes.append(
            f"{count(len(ends), 'image')} beside images of the same name without that end are "
            f"taken as images: {listed(sorted(ends))} ({_REMEDY})"
        )
    return notes


def _base(stem: str) -> str:
    """The name of the image to which a file belongs that is called 12_mask."""
    match = _COMPANION_END.fullmatch(stem)
    return match[1] if match else stem


def _alike(some: set[str], others: set[str]) -> bool:
    shared = sum(stem in others or _base(stem) in others for stem in some)
    return shared >= max(2, _ALIKE * len(some))


def _repeats_above(folder: PurePosixPath, stems: dict[PurePosixPath, set[str]], depth: int) -> bool:
    if len(stems[folder]) < 2:
        return False
    above = [parent for parent in folder.parents if len(parent.parts) >= depth and parent in stems]
    return any(_alike(stems[folder], stems[parent]) for parent in above)


def _repeating_siblings(stems: dict[PurePosixPath, set[str]], depth: int) -> set[PurePosixPath]:
    """Of two folders side by side with the same names, such as images and pictures, all but the one
    called images.

    Patients' folders, too, hold files of the same names; but they are numbered, or are many.
    """
    below: dict[PurePosixPath, list[PurePosixPath]] = defaultdict(list)
    for folder in stems:
        if len(folder.parts) > depth:
            below[folder.parent].append(folder)
    found: set[PurePosixPath] = set()
    for folders in below.values():
        images = [folder for folder in folders if _IMAGES.fullmatch(folder.name)]
        if len(images) == 1 and len(folders) <= _FEW_FOLDERS:
            found |= {
                folder
                for folder in folders
                if folder not in images and _alike(stems[folder], stems[images[0]])
            }
    return found


def _companion_classes(classes: Iterable[str]) -> set[str]:
    """Classes that are called after companions; 'mask' alone may be a class, but not beside
    'images'.
    """
    names = set(classes)
    beside_images = any(map(_IMAGES.fullmatch, names))
    called = {name for name in names if _COMPANION_FOLDER.fullmatch(name)}
    return {
        name
        for name in called
        if beside_images or not re.search(r"mask|label", name, re.IGNORECASE)
    }


def _repeating_classes(classes: dict[str, list[PurePosixPath]]) -> set[str]:
    """Classes that repeat the names of several others, which do not share them, or hold folders
    called like them.

    Classes that number their images alike repeat each other all.
    """
    owners: dict[str, set[str]] = defaultdict(set)
    for name, files in classes.items():
        for file in files:
            owners[file.stem].add(name)
    found = set()
    for name, files in classes.items():
        if (
            len({file.parts[0] for file in files if len(file.parts) > 1} & (set(classes) - {name}))
            > 1
        ):
            found.add(name)
            continue
        stems = {file.stem for file in files}
        bases = stems | set(map(_base, stems))
        repeated = [others for base in bases if (others := owners.get(base, set()) - {name})]
        if len(repeated) < max(2, _ALIKE * len(stems)):
            continue
        if len(set.union(*repeated)) > 1 and sum(
            len(others) == 1 for others in repeated
        ) >= _ALIKE * len(repeated):
            found.add(name)
    return found
