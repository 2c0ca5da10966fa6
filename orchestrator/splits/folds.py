"""Test set, folds and validation parts: stratified by label, whole by group, made once for all
candidates.

Pure functions over tables. The result is a long table, one row per fold and image: `fold`, `image`,
`label`, `group`, `role`, where role is what the image is for in that fold: train, validation, fold
(scored once, at the end) or test (the same in every fold, never seen by any choice).
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from orchestrator.splits.exact_division import SECONDS, NoDivisionError, divide_exactly
from trainables.core.errors import FoldError
from trainables.core.values import digest

ROLES = ("train", "validation", "fold", "test")
_ATTEMPTS = 20  # orders that are tried greedily
T = TypeVar("T")


def make_folds(
    images: pd.DataFrame,
    k: int,
    test_set: float | Literal["given"],
    validation_fraction: float,
    seed: int,
    repeats: int = 1,
) -> pd.DataFrame:
    """Draw the test set, then k folds of the rest, then a validation part out of each training
    part; the latter two `repeats` times.

    `images`: columns image, label, group and, for `test_set="given"`, split. `test_set` is a
    fraction of all images or "given": the rows whose split is test. `validation_fraction` is a
    fraction of each fold's training part. Repeat r has the folds r·k to r·k + k − 1, and is the
    same however many follow. Raises FoldError where no division gives every class to every part.
    """
    images = images.sort_values("image", ignore_index=True)
    _check_sizes(images, k, test_set)
    given = _given_test(images) if test_set == "given" else None

    def first(exactly: bool) -> tuple[NDArray[np.bool_], list[pd.DataFrame]]:
        """A test set, and folds of what it leaves."""
        in_test = given
        if in_test is None:
            fractions = [1 - float(test_set), float(test_set)]
            in_test = _divide(images, fractions, [k * _pieces(k), 1], [seed, 0], exactly) == 1
        rest = images[~in_test].reset_index(drop=True)
        return in_test, _draw(rest, k, validation_fraction, seed, 0, exactly)

    try:
        in_test, parts = _in_either_way(first)
        rest = images[~in_test].reset_index(drop=True)
        for repeat in range(1, repeats):
            draw = partial(_draw, rest, k, validation_fraction, seed, repeat)
            parts += _in_either_way(draw)
    except NoDivisionError as error:
        raise _refusal(images, k, test_set, error.proved) from error
    test = images[in_test].assign(role="test")
    return _long([*parts, *(test.assign(fold=fold) for fold in range(k * repeats))])


def _in_either_way(draw: Callable[[bool], T]) -> T:
    """What is drawn greedily, or else exactly: a test set, or halves, that were drawn greedily may
    leave nothing that can be divided.
    """
    try:
        return draw(False)
    except NoDivisionError:
        return draw(True)


def _pieces(k: int) -> int:
    """Into how many parts with every class a fold must be divisible: of three folds or more, the
    training part holds two that are complete; a half that trains must be divided itself.
    """
    return 2 if k == 2 else 1


def _draw(
    rest: pd.DataFrame, k: int, validation_fraction: float, seed: int, repeat: int, exactly: bool
) -> list[pd.DataFrame]:
    """The folds of one repeat, in parts: all rows of `make_folds` but for the test set's; raises
    NoDivisionError.
    """
    stream = 1 + repeat * (k + 1)  # of numbers: the folds' own, then one for each validation part
    fold_of = _divide(rest, [1 / k] * k, [_pieces(k)] * k, [seed, stream], exactly)
    fractions = [1 - validation_fraction, validation_fraction]
    parts = []
    for fold in range(k):
        training = rest[fold_of != fold].reset_index(drop=True)
        in_validation = _divide(training, fractions, [1, 1], [seed, stream + 1 + fold]) == 1
        roles = [
            (training[~in_validation], "train"),
            (training[in_validation], "validation"),
            (rest[fold_of == fold], "fold"),
        ]
        parts += [part.assign(fold=repeat * k + fold, role=role) for part, role in roles]
    return parts


def _long(parts: Sequence[pd.DataFrame]) -> pd.DataFrame:
    table: pd.DataFrame = pd.concat(parts)[["fold", "image", "label", "group", "role"]]
    return table.sort_values(["fold", "image"], ignore_index=True)


def roles_digest(folds: pd.DataFrame, fold: int) -> str:
    """Digest of which image, with which label, plays which role in one fold."""
    part = folds[folds["fold"] == fold].sort_values("image")
    return digest(part[["image", "label", "role"]].to_numpy().tolist())


def _needed(k: int, test_set: float | Literal["given"]) -> int:
    """Into how many parts with every class the images must be divisible: the folds, halves of two,
    a drawn test set.
    """
    return (4 if k == 2 else k) + (test_set != "given")


def _check_sizes(images: pd.DataFrame, k: int, test_set: float | Literal["given"]) -> None:
    """Every class needs a group for each part; where no group holds several classes, that is
    enough.
    """
    counted = images if test_set != "given" else images[images["split"] != "test"]
    groups = (
        counted.groupby("label")["group"]
        .nunique()
        .reindex(images["label"].unique(), fill_value=0)
        .sort_index()
    )
    label, count = groups.idxmin(), int(groups.min())
    if count < (needed := _needed(k, test_set)):
        raise FoldError(
            f"{_asked(k, test_set)} need at least {needed} groups (patients, or single images) in "
            f"every class, class {str(label)!r} has {count} (folds.k): lower folds.k or add images "
            "of other patients"
        )


def _asked(k: int, test_set: float | Literal["given"]) -> str:
    beside = "and a drawn test set" if test_set != "given" else "beside the given test set"
    return f"{k} folds with validation parts {beside}"


def _refusal(
    images: pd.DataFrame, k: int, test_set: float | Literal["given"], proved: bool
) -> FoldError:
    counted = images if test_set != "given" else images[images["split"] != "test"]
    parts = f"division of the {counted['group'].nunique()} groups into {_needed(k, test_set)} parts"
    found = (
        f"no {parts} exists"
        if proved
        else f"no {parts} was found in {SECONDS} s, though one may exist"
    )
    return FoldError(
        f"{_asked(k, test_set)} need every class in each part, and {found}: too many groups hold "
        "several classes (folds.k): lower folds.k or add images of other patients"
    )


def _given_test(images: pd.DataFrame) -> NDArray[np.bool_]:
    in_test = (images["split"] == "test").to_numpy()
    if not in_test.any():
        raise FoldError(
            "folds.test_set is 'given', but no image has the split 'test': name the images' split "
            "or set a fraction"
        )
    straddling = sorted(set(images["group"][in_test]) & set(images["group"][~in_test]))
    if straddling:
        raise FoldError(
            f"{len(straddling)} group(s) lie both in the given test set and outside it, the first "
            f"is {straddling[0]!r} (folds.test_set: given): the same patient or the same pixels "
            "would be trained on and tested on; set folds.test_set to a fraction or correct the "
            "split"
        )
    missing = sorted(set(images["label"]) - set(images["label"][in_test]))
    if missing:
        raise FoldError(
            f"the given test set holds no image of class {missing[0]!r} (folds.test_set: given): "
            "add some"
        )
    return in_test


def _divide(
    images: pd.DataFrame,
    fractions: Sequence[float],
    pieces: Sequence[int],
    seed: Sequence[int],
    exactly: bool = False,
) -> NDArray[np.int64]:
    """The share of each image: whole groups, about these fractions of every class, and every class
    in every share.

    Drawn greedily, or where that finds nothing, and with `exactly` at once, such that share s can
    be divided further into `pieces[s]` parts with every class. Raises NoDivisionError.
    """
    groups, group_of = np.unique(images["group"].to_numpy(dtype=str), return_inverse=True)
    classes, class_of = np.unique(images["label"].to_numpy(dtype=str), return_inverse=True)
    counts = np.zeros((len(groups), len(classes)))
    np.add.at(counts, (group_of, class_of), 1)
    for attempt in range(0 if exactly else _ATTEMPTS):
        share_of_group = _assign(
            counts, np.asarray(fractions), np.random.default_rng([*seed, attempt])
        )
        held = np.zeros((len(fractions), len(classes)))
        np.add.at(held, share_of_group, counts)
        if held.all():
            return share_of_group[group_of]
    return divide_exactly(counts, fractions, pieces, np.random.default_rng([*seed, _ATTEMPTS]))[
        group_of
    ]


def _assign(
    counts: NDArray[np.float64], fractions: NDArray[np.float64], rng: np.random.Generator
) -> NDArray[np.int64]:
    """The part of each group. `counts`: images of each group (row) and class (column), shape (g,
    c).

    Greedy, large groups first, in random order among equals: a group goes to the part that has
    filled least of its share of the group's classes, rare classes counting more. Without groups the
    shares are exact to one image. (scikit-learn's StratifiedGroupKFold does the like, but only for
    equal parts, and takes minutes for 20,000 images.)
    """
    images, groups = counts.sum(axis=0), np.count_nonzero(counts, axis=0)
    # A part that is to hold every class wants at least one group of each, however small its
    # fraction.
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
