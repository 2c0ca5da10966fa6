"""Test set, folds and validation parts: stratified by label, whole by group, made once for all candidates.

Pure functions over tables. The result is a long table, one row per fold and image: `fold`, `image`, `label`, `group`,
`role`, where role is what the image is for in that fold: train, validation, fold (scored once, at the end) or test
(the same in every fold, never seen by any choice).
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from trainables.config import digest
from trainables.errors import FoldError

ROLES = ("train", "validation", "fold", "test")
_ATTEMPTS = 20  # orders tried before a request counts as impossible


def make_folds(
    images: pd.DataFrame, k: int, test_set: float | Literal["given"], validation_fraction: float, seed: int
) -> pd.DataFrame:
    """Draw the test set, then k folds of the rest, then a validation part out of each training part.

    `images`: columns image, label, group and, for `test_set="given"`, split. `test_set` is a fraction of all images
    or "given": the rows whose split is test. `validation_fraction` is a fraction of each fold's training part.
    Raises FoldError where a class has too few groups to appear in every part.
    """
    images = images.sort_values("image", ignore_index=True)
    _check_sizes(images, k, test_set)
    if test_set == "given":
        in_test = _given_test(images)
    else:
        in_test = _divide(images, [1 - test_set, test_set], [seed, 0], "a test set") == 1
    test, rest = images[in_test], images[~in_test].reset_index(drop=True)
    fold_of = _divide(rest, [1 / k] * k, [seed, 1], f"{k} folds")
    parts = []
    for fold in range(k):
        training = rest[fold_of != fold].reset_index(drop=True)
        fractions = [1 - validation_fraction, validation_fraction]
        in_validation = _divide(training, fractions, [seed, 2 + fold], f"fold {fold}'s validation part") == 1
        roles = [
            (training[~in_validation], "train"),
            (training[in_validation], "validation"),
            (rest[fold_of == fold], "fold"),
            (test, "test"),
        ]
        parts += [part.assign(fold=fold, role=role) for part, role in roles]
    table: pd.DataFrame = pd.concat(parts)[["fold", "image", "label", "group", "role"]]
    return table.sort_values(["fold", "image"], ignore_index=True)


def roles_digest(folds: pd.DataFrame, fold: int) -> str:
    """Digest of which image, with which label, plays which role in one fold."""
    part = folds[folds["fold"] == fold].sort_values("image")
    return digest(part[["image", "label", "role"]].to_numpy().tolist())


def _check_sizes(images: pd.DataFrame, k: int, test_set: float | Literal["given"]) -> None:
    """Every class needs a group for a drawn test set, one for each fold, and two in every training part."""
    drawn = test_set != "given"
    needed = max(k, 4 if k == 2 else 3)
    asked = f"{k} folds with validation parts{' and a drawn test set' if drawn else ' beside the given test set'}"
    counted = images if drawn else images[images["split"] != "test"]
    groups = counted.groupby("label")["group"].nunique().reindex(images["label"].unique(), fill_value=0).sort_index()
    label, count = groups.idxmin(), int(groups.min())
    if count < needed + drawn:
        raise FoldError(
            f"{asked} need at least {needed + drawn} groups (patients, or single images) in every class, class "
            f"{str(label)!r} has {count} (folds.k): lower folds.k or add images of other patients"
        )


def _given_test(images: pd.DataFrame) -> NDArray[np.bool_]:
    in_test = (images["split"] == "test").to_numpy()
    if not in_test.any():
        raise FoldError(
            "folds.test_set is 'given', but no image has the split 'test': name the images' split or set a fraction"
        )
    straddling = sorted(set(images["group"][in_test]) & set(images["group"][~in_test]))
    if straddling:
        raise FoldError(
            f"{len(straddling)} group(s) lie both in the given test set and outside it, the first is "
            f"{straddling[0]!r} (folds.test_set: given): the same patient or the same pixels would be trained on and "
            f"tested on; set folds.test_set to a fraction or correct the split"
        )
    missing = sorted(set(images["label"]) - set(images["label"][in_test]))
    if missing:
        raise FoldError(f"the given test set holds no image of class {missing[0]!r} (folds.test_set: given): add some")
    return in_test


def _divide(images: pd.DataFrame, fractions: Sequence[float], seed: Sequence[int], purpose: str) -> NDArray[np.int64]:
    """The part of each image: whole groups, about these fractions of every class, and every class in every part."""
    groups, group_of = np.unique(images["group"].to_numpy(dtype=str), return_inverse=True)
    classes, class_of = np.unique(images["label"].to_numpy(dtype=str), return_inverse=True)
    counts = np.zeros((len(groups), len(classes)))
    np.add.at(counts, (group_of, class_of), 1)
    for attempt in range(_ATTEMPTS):
        part_of_group = _assign(counts, np.asarray(fractions), np.random.default_rng([*seed, attempt]))
        held = np.zeros((len(fractions), len(classes)))
        np.add.at(held, part_of_group, counts)
        if held.all():
            return part_of_group[group_of]
    rarest = np.count_nonzero(counts, axis=0).argmin()
    raise FoldError(
        f"{purpose} with every class in each part cannot be drawn from {len(groups)} groups, of which "
        f"{np.count_nonzero(counts[:, rarest])} hold class {str(classes[rarest])!r} (folds): lower folds.k, or add "
        "images of other patients"
    )


def _assign(counts: NDArray[np.float64], fractions: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.int64]:
    """The part of each group. `counts`: images of each group (row) and class (column), shape (g, c).

    Greedy, large groups first, in random order among equals: a group goes to the part that has filled least of its
    share of the group's classes, rare classes counting more. Without groups the shares are exact to one image.
    (scikit-learn's StratifiedGroupKFold does the like, but only for equal parts, and takes minutes for 20,000 images.)
    """
    images, groups = counts.sum(axis=0), np.count_nonzero(counts, axis=0)
    # A part that is to hold every class wants at least one group of each, however small its fraction.
    wanted = np.maximum(fractions[:, None] * images, images / groups)
    held = np.zeros_like(wanted)
    order = rng.permutation(len(counts))
    order = order[np.argsort(-counts.sum(axis=1)[order], kind="stable")]
    preferred = rng.permutation(len(fractions))  # decides ties
    part_of = np.empty(len(counts), dtype=np.int64)
    for group in order:
        # Rounded, so that equal fillings are ties in spite of floating point.
        filled = np.round(((held + counts[group] / 2) / wanted) @ counts[group], 12)
        total = held.sum(axis=1) / fractions
        part = preferred[np.lexsort((total[preferred], filled[preferred]))[0]]
        part_of[group] = part
        held[part] += counts[group]
    return part_of
