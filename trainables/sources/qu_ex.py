"""COVID-QU-Ex as it unzips, as a listing: {Train,Val,Test}/<class>/images with the masks of the
same file name.
"""

from pathlib import Path

import pandas as pd

from trainables.core.data_config import CovidQuExData
from trainables.core.errors import DataError
from trainables.sources.image_files import images_below

_TREES = {"lung": "Lung Segmentation Data", "infection": "Infection Segmentation Data"}
_SPLITS = {"Train": "train", "Val": "validation", "Test": "test"}
_MASKS = {
    "lung": {"mask_lungs": "lung masks"},
    "infection": {"mask_lungs": "lung masks", "mask_infection": "infection masks"},
}


def list_covid_qu_ex(data: CovidQuExData, path: Path) -> tuple[pd.DataFrame, list[str]]:
    """The rows of one of the two trees, and notes; there are no patients. Raises `DataError` where
    it is not found.
    """
    root = _root(data, path)
    rows = []
    notes: list[str] = []
    for split in _SPLITS:
        for class_folder in sorted(
            folder for folder in (root / split).glob("*") if folder.is_dir()
        ):
            masks = {
                column: {mask.name: mask for mask in (class_folder / name).glob("*")}
                for column, name in _MASKS[data.part].items()
            }
            images = class_folder / "images"
            if not images.is_dir():
                notes.append(f"{split}/{class_folder.name} has no folder 'images' and is left out")
                continue
            found = images_below(images)
            for note in found.notes:
                notes.append(f"{split}/{class_folder.name}: {note}")
            for image, reason in found.files:
                row = {
                    "path": image,
                    "image": image.relative_to(root).as_posix(),
                    "label": class_folder.name,
                }
                row |= {"split": _SPLITS[split], "reason": reason}
                rows.append(
                    row | {column: files.get(image.name) for column, files in masks.items()}
                )
    if not rows:
        raise DataError(
            "data.path must hold {Train,Val,Test}/<class>/images, found no image in "
            f"{str(root)!r}"
        )
    return pd.DataFrame(rows, dtype=object), notes


def _root(data: CovidQuExData, path: Path) -> Path:
    name = _TREES[data.part]
    candidates = [path / name / name, path / name]
    if not any(tree in path.name for part, tree in _TREES.items() if part != data.part):
        candidates.append(path)
    for candidate in candidates:
        if any((candidate / split).is_dir() for split in _SPLITS):
            return candidate
    raise DataError(
        f"data.path must hold {name + '/{Train,Val,Test}'!r} for data.part {data.part}, found none "
        f"in {str(path)!r} (give the folder into which COVID-QU-Ex was unzipped)"
    )
