"""A division is found where there is one, and refused where there is none: against every division
there is.
"""

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from orchestrator.splits.exact_division import NoDivisionError, divide_exactly
from orchestrator.splits.folds import ROLES, make_folds
from trainables.core.errors import FoldError


def every_assignment(n_groups: int, n_parts: int) -> NDArray[np.int64]:
    """All ways to put groups into parts, (ways, groups)."""
    return np.indices((n_parts,) * n_groups).reshape(n_groups, -1).T


def held(
    counts: NDArray[np.float64], assignments: NDArray[np.int64], n_parts: int
) -> NDArray[np.float64]:
    """Images of each class by way and part, (ways, parts, classes)."""
    return np.stack([(assignments == part) @ counts for part in range(n_parts)], axis=1)


def small_counts(number: int, n_groups: int) -> NDArray[np.float64]:
    """A few groups of 2–3 classes, some with several of them, of very unequal sizes."""
    rng = np.random.default_rng(number)
    n_classes = int(rng.integers(2, 4))
    counts = rng.integers(1, 4, (n_groups, n_classes)) * rng.choice([1, 1, 9], (n_groups, 1))
    counts *= rng.random(counts.shape) < rng.choice([0.5, 0.7])
    counts[counts.sum(axis=1) == 0, 0] = 1
    return counts.astype(float)


def as_table(counts: NDArray[np.float64]) -> pd.DataFrame:
    rows = [
        (f"{group}-{label}-{image}", f"class {label}", f"patient {group}")
        for (group, label), size in np.ndenumerate(counts)
        for image in range(int(size))
    ]
    return pd.DataFrame(rows, columns=["image", "label", "group"]).assign(split=None)


@pytest.mark.parametrize(("k", "parts", "n_groups"), [(2, 5, 7), (3, 4, 7)])
def test_folds_are_refused_only_where_no_division_exists(k: int, parts: int, n_groups: int) -> None:
    assignments = every_assignment(n_groups, parts)
    outcomes = set()
    for number in range(30):
        counts = small_counts(number, n_groups)
        if not counts.any(axis=0).all():
            continue
        exists = bool((held(counts, assignments, parts) > 0).all(axis=(1, 2)).any())
        if not exists:
            with pytest.raises(FoldError, match=f"need at least|groups into {parts} parts exists"):
                make_folds(as_table(counts), k, 0.2, 0.2, number)
        else:
            divided = make_folds(as_table(counts), k, 0.2, 0.2, number)
            present = divided.groupby(["fold", "role", "label"]).size().unstack()
            assert present.notna().all(axis=None)
            assert len(present) == k * len(ROLES)
            assert (divided.groupby(["fold", "group"])["role"].nunique() == 1).all()
        outcomes.add(exists)
    assert outcomes == {False, True}


@pytest.mark.parametrize(
    ("fractions", "pieces"), [((0.8, 0.2), (1, 1)), ((1 / 3,) * 3, (1,) * 3), ((0.9, 0.1), (2, 1))]
)
def test_no_division_is_much_nearer_to_what_is_wanted(
    fractions: tuple[float, ...], pieces: tuple[int, ...]
) -> None:
    share_of_piece = np.repeat(np.arange(len(pieces)), pieces)
    assignments = every_assignment(7, sum(pieces))
    wanted = np.array(fractions)[:, None]
    for number in range(12):
        counts = small_counts(number, 7)
        measured = np.column_stack([counts, counts.sum(axis=1)])
        complete = (held(counts, assignments, sum(pieces)) > 0).all(axis=(1, 2))

        def distance(
            shares: NDArray[np.int64], measured: NDArray[np.float64] = measured
        ) -> NDArray[np.float64]:
            sizes = held(measured, shares, len(pieces)) / (wanted * measured.sum(axis=0))
            return np.asarray((wanted * (sizes - 1) ** 2).sum(axis=(1, 2)))

        if not complete.any():
            with pytest.raises(NoDivisionError) as refused:
                divide_exactly(counts, fractions, pieces, np.random.default_rng(0))
            assert refused.value.proved
            continue
        least = distance(share_of_piece[assignments[complete]]).min()
        found = divide_exactly(counts, fractions, pieces, np.random.default_rng(0))
        assert distance(found[None])[0] <= least + 0.02 * (1 + least)


@pytest.mark.parametrize(("patients", "k"), [(6, 3), (6, 5), (8, 5), (12, 5)])
def test_a_few_patients_with_most_of_the_images_do_not_forbid_folds(patients: int, k: int) -> None:
    """Groups of one class each, more than there are parts: a division always exists."""
    rng = np.random.default_rng(patients)
    for seed in range(6):
        sizes = np.minimum(100, (rng.pareto(1.0, (2, patients)) * 3).astype(int) + 1)
        counts = np.vstack(
            [np.column_stack([sizes[0], 0 * sizes[0]]), np.column_stack([0 * sizes[1], sizes[1]])]
        )
        divided = make_folds(as_table(counts.astype(float)), k, 0.1, 0.1, seed)
        assert divided.groupby(["fold", "role"])["label"].nunique().eq(2).all()


def test_the_seed_decides_among_equally_good_divisions() -> None:
    counts = np.array([[9.0, 0], [1, 0], [1, 0], [1, 0], *[[0, 2]] * 8])
    drawn = [
        divide_exactly(counts, [0.25] * 4, [1] * 4, np.random.default_rng(seed))
        for seed in (0, 0, 1, 2, 3)
    ]
    assert (drawn[0] == drawn[1]).all()
    assert len({tuple(each) for each in drawn}) > 2
    assert all((np.bincount(each[4:]) == 2).all() for each in drawn)


def test_thousands_of_unlike_groups_are_divided_in_seconds() -> None:
    rng = np.random.default_rng(0)
    counts = (rng.poisson(8, (4000, 6)) * (rng.random((4000, 6)) < 0.5)).astype(float)
    counts = counts[counts.sum(axis=1) > 0]
    assert len(np.unique(counts, axis=0)) > 3000
    share_of = divide_exactly(counts, [0.2] * 5, [1] * 5, rng)
    sizes = np.stack([counts[share_of == share].sum(axis=0) for share in range(5)]) / counts.sum(
        axis=0
    )
    assert np.abs(sizes - 0.2).max() < 0.02
