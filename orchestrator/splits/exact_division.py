"""A division that exists is found: groups × parts as an integer programme, for where drawing at
random gives up.

`folds.py` draws greedily, which is fast and nearly always enough. It may still strand the last
groups of a rare class, above all where a few patients hold most of the images. Then HiGHS (Huangfu
and Hall 2018, in scipy) searches all divisions: it finds one whose shares are as near to the wanted
ones as whole groups allow, or proves that there is none.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array

#: The distance from the wanted sizes may be larger than the least one by this part of all images.
GAP = 0.005
#: Where the search ends, by count so that every machine ends at the same place, and by time where
#: counting is slow.
_NODES, SECONDS = 100, 120
_MOST_KINDS = 1_000  # of groups, beyond which those with nearly equal counts are taken for equal
# Where the squared relative size of a share is met by a tangent: closely around 1, the wanted size.
_TANGENTS = (
    *np.arange(0, 0.8, 0.1),
    *np.arange(0.8, 1.2, 0.04),
    *np.arange(1.2, 2, 0.1),
    2.0,
    2.5,
    3.0,
    4.0,
    6.0,
    10.0,
    20.0,
    50.0,
)


class NoDivisionError(Exception):
    """There is none (`proved`), or none was found before the search ended."""

    def __init__(self, proved: bool) -> None:
        self.proved = proved
        super().__init__("no division exists" if proved else "no division was found")


def divide_exactly(
    counts: NDArray[np.float64],
    fractions: Sequence[float],
    pieces: Sequence[int],
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    """The share of each group, such that share s can be divided further into `pieces[s]` parts that
    hold every class.

    `counts`: images of each group (row) and class (column), shape (g, c); `fractions` of all images
    wanted per share, shape (s,). Of all such divisions one with the least chi-square distance from
    the wanted images per class and in total, Σ (h − w)² / w, to `GAP`; the squares are replaced by
    tangents, which makes the problem linear. Groups of one kind are one variable, so many groups
    cost little more than few; which of them goes where, and which of equal shares is which, is
    drawn from `rng`. Raises NoDivisionError.
    """
    kind_of = _kinds(counts, rng)
    numbers = np.bincount(kind_of)
    kinds = np.zeros((len(numbers), counts.shape[1]))
    np.add.at(kinds, kind_of, counts)
    held = _solve(kinds / numbers[:, None], numbers, np.asarray(fractions), np.asarray(pieces))
    names = _shuffle_equals(fractions, pieces, rng)
    share_of = np.empty(len(counts), dtype=np.int64)
    for kind, of_shares in enumerate(held):
        members = rng.permutation(np.flatnonzero(kind_of == kind))
        share_of[members] = np.repeat(names, of_shares)
    return share_of


def _kinds(counts: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.int64]:
    """The kind of each group, numbered in random order: equal counts, or where these are too many
    alike ones.

    Alike groups hold the same classes and about as many images, so that which divisions exist is
    still exact.
    """
    kinds, kind_of = np.unique(counts, axis=0, return_inverse=True)
    if len(kinds) > _MOST_KINDS:
        alike = np.column_stack([counts > 0, np.rint(np.log2(counts.sum(axis=1)))])
        kinds, kind_of = np.unique(alike, axis=0, return_inverse=True)
    return rng.permutation(len(kinds))[kind_of.ravel()]


def _shuffle_equals(
    fractions: Sequence[float], pieces: Sequence[int], rng: np.random.Generator
) -> NDArray[np.int64]:
    """A permutation of the shares that only swaps shares of which the same is wanted."""
    wanted = np.array([fractions, pieces]).T
    names = np.arange(len(wanted))
    for each in np.unique(wanted, axis=0):
        equal = np.flatnonzero((wanted == each).all(axis=1))
        names[equal] = rng.permutation(equal)
    return names


def _solve(
    kinds: NDArray[np.float64],
    numbers: NDArray[np.int64],
    fractions: NDArray[np.float64],
    pieces: NDArray[np.int64],
) -> NDArray[np.int64]:
    """How many groups of each kind (row) each share (column) gets."""
    from scipy.optimize import Bounds, LinearConstraint, milp  # slow to import and seldom needed

    of_piece = np.repeat(np.arange(len(pieces)), pieces)  # the share of each piece
    n_kinds, n_pieces, n_shares = len(kinds), len(of_piece), len(pieces)
    # What is measured of a share: its images of each class and its images in all.
    measured = np.column_stack([kinds, kinds.sum(axis=1)])
    wanted = fractions[:, None] * (numbers @ measured)
    # The variables in this order: groups by kind and piece; images and their squares, both relative
    # to the wanted.
    groups = np.arange(n_kinds * n_pieces).reshape(n_kinds, n_pieces)
    images = groups.size + np.arange(wanted.size).reshape(wanted.shape)
    squares = images + wanted.size
    n_variables = groups.size + 2 * wanted.size
    cost, upper = np.zeros(n_variables), np.full(n_variables, np.inf)
    cost[squares.ravel()] = np.repeat(fractions, wanted.shape[1])
    upper[: groups.size] = np.repeat(numbers, n_pieces)

    rows = _Rows()
    for kind in range(n_kinds):  # every group is in one piece
        rows.add(groups[kind], 1.0, numbers[kind], numbers[kind])
    for piece in range(n_pieces):  # every piece holds every class
        for of_class in (kinds > 0).T:
            rows.add(groups[of_class, piece], 1.0, 1, np.inf)
    for share in range(n_shares):
        own = groups[:, of_piece == share]
        for column, values in enumerate(measured.T):
            size = np.append(np.repeat(values / wanted[share, column], own.shape[1]), -1.0)
            rows.add(np.append(own.ravel(), images[share, column]), size, 0, 0)
            for at in _TANGENTS:
                rows.add(
                    np.array([squares[share, column], images[share, column]]),
                    [1.0, -2 * at],
                    -at * at,
                    np.inf,
                )
    found = milp(
        cost,
        integrality=np.arange(n_variables) < groups.size,
        bounds=Bounds(0, upper),
        constraints=LinearConstraint(*rows.matrix_and_bounds(n_variables)),
        options={"node_limit": _NODES, "time_limit": SECONDS, "mip_rel_gap": GAP},
    )
    if found.x is None:
        raise NoDivisionError(proved=found.status == 2)
    by_piece = np.rint(found.x[: groups.size]).astype(np.int64).reshape(groups.shape)
    return np.add.reduceat(by_piece, np.flatnonzero(np.diff(of_piece, prepend=-1)), axis=1)


class _Rows:
    """The rows of a sparse constraint, collected one by one."""

    def __init__(self) -> None:
        self._columns: list[NDArray[np.int64]] = []
        self._values: list[NDArray[np.float64]] = []
        self._bounds: list[tuple[float, float]] = []

    def add(
        self,
        columns: NDArray[np.int64],
        values: float | Sequence[float] | NDArray[np.float64],
        low: float,
        high: float,
    ) -> None:
        """low ≤ Σ value × variable ≤ high."""
        self._columns.append(columns)
        self._values.append(np.broadcast_to(np.asarray(values, dtype=float), columns.shape))
        self._bounds.append((low, high))

    def matrix_and_bounds(
        self, n_variables: int
    ) -> tuple[csr_array, NDArray[np.float64], NDArray[np.float64]]:
        row_of = np.repeat(
            np.arange(len(self._columns)), [len(columns) for columns in self._columns]
        )
        entries = (np.concatenate(self._values), (row_of, np.concatenate(self._columns)))
        low, high = np.array(self._bounds).T
        return coo_array(entries, shape=(len(self._columns), n_variables)).tocsr(), low, high
