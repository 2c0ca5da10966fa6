"""Test set, folds and validation parts: stratified by label, whole by group, made once for all candidates.

Pure functions over tables. The result is a long table, one row per fold and image: `fold`, `image`, `label`, `group`,
`role`, where role is what the image is for in that fold: train, validation, fold (scored once, at the end) or test
(the same in every fold, never seen by any choice).
"""

from fractions import Fraction
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from trainables.config import digest
from trainables.errors import FoldError

ROLES = ("train", "validation", "fold", "test")
_ATTEMPTS = 20  # shuffles tried before a request counts as impossible


def make_folds(
    images: pd.DataFrame, k: int, test_set: float | Literal["given"], validation_fraction: float, seed: int
) -> pd.DataFrame:
    """Draw the test set, then k folds of the rest, then a validation part out of each training part.

    `images`: columns image, label, group and, for `test_set="given"`, split. `test_set` is a fraction of all images
    or "given": the rows whose split is test. `validation_fraction` is a fraction of each fold's training part.
    Raises FoldError where a class has too few groups to appear in every part.
    """
    images = images.sort_values("image", ignore_index=True)
    _check_sizes(images, k, drawn_test=test_set != "given")
    if test_set == "given":
        in_test = _given_test(images)
    else:
        in_test = _draw(images, Fraction(test_set).limit_denominator(20), seed, "a test set")
    rest = images[~in_test].reset_index(drop=True)
    fold_of = _partition(rest, k, seed, f"{k} folds")
    test = images[in_test]
    parts = []
    for fold in range(k):
        training = rest[fold_of != fold].reset_index(drop=True)
        in_validation = _draw(
            training,
            Fraction(validation_fraction).limit_denominator(20),
            seed + 1 + fold,
            f"fold {fold}'s validation part",
        )
        roles = [
            (training[~in_validation], "train"),
            (training[in_validation], "validation"),
            (rest[fold_of == fold], "fold"),
            (test, "test"),
        ]
        parts += [part.assign(fold=fold, role=role) for part, role in roles]
    table = pd.concat(parts)[["fold", "image", "label", "group", "role"]]
    return table.sort_values(["fold", "image"], ignore_index=True)


def roles_digest(folds: pd.DataFrame, fold: int) -> str:
    """Digest of which image, with which label, plays which role in one fold."""
    part = folds[folds["fold"] == fold].sort_values("image")
    return digest(part[["image", "label", "role"]].to_numpy().tolist())


def _check_sizes(images: pd.DataFrame, k: int, drawn_test: bool) -> None:
    """Every class needs a group for the test set, one for each fold, and two in every training part."""
    needed = max(k, 3) + drawn_test
    groups = images.groupby("label")["group"].nunique()
    label, count = groups.idxmin(), int(groups.min())
    if count < needed:
        raise FoldError(
            f"{k} folds{' and a test set' if drawn_test else ''} need at least {needed} groups in every class, "
            f"class {str(label)!r} has {count} (folds.k): lower folds.k or add images of other patients"
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


def _draw(images: pd.DataFrame, fraction: Fraction, seed: int, purpose: str) -> NDArray[np.bool_]:
    """A stratified part of about `fraction` of the images, in whole groups, with every class on both sides."""
    parts, take = fraction.denominator, fraction.numerator
    for attempt in range(_ATTEMPTS):
        part_of = _split(images, parts, seed + 1000 * attempt, purpose)
        drawn = (part_of - attempt) % parts < take
        if _has_all(images, drawn) and _has_all(images, ~drawn):
            return drawn
    raise FoldError(f"{purpose} of {float(fraction):.0%} with every class in it cannot be drawn: {_remedy(images)}")


def _partition(images: pd.DataFrame, parts: int, seed: int, purpose: str) -> NDArray[np.int64]:
    """The part of each image, such that every class is in every part."""
    for attempt in range(_ATTEMPTS):
        part_of = _split(images, parts, seed + 1000 * attempt, purpose)
        if all(_has_all(images, part_of == part) for part in range(parts)):
            return part_of
    raise FoldError(f"{purpose} with every class in each cannot be drawn: {_remedy(images)}")


def _split(images: pd.DataFrame, parts: int, seed: int, purpose: str) -> NDArray[np.int64]:
    labels, groups = images["label"].to_numpy(), images["group"].to_numpy()
    # StratifiedKFold is exactly balanced, which the grouped one, being greedy, is not.
    grouped = len(set(groups)) < len(groups)
    splitter = (StratifiedGroupKFold if grouped else StratifiedKFold)(n_splits=parts, shuffle=True, random_state=seed)
    part_of = np.empty(len(images), dtype=np.int64)
    try:
        for part, (_, members) in enumerate(splitter.split(labels, labels, groups if grouped else None)):
            part_of[members] = part
    except ValueError as error:
        raise FoldError(f"{purpose} cannot be drawn: {_remedy(images)}") from error
    return part_of


def _has_all(images: pd.DataFrame, part: NDArray[np.bool_]) -> bool:
    return images["label"][part].nunique() == images["label"].nunique()


def _remedy(images: pd.DataFrame) -> str:
    groups = images.groupby("label")["group"].nunique()
    return (
        f"class {str(groups.idxmin())!r} has only {int(groups.min())} groups left (folds): lower folds.k, raise the "
        f"fraction, or add images of other patients"
    )
