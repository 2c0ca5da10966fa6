"""Confidence intervals of mean scores, with whole groups as the unit of chance."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 1000
LEVEL = 0.95


class Interval(NamedTuple):
    """A mean with its 95 % interval, each of the shape of one image's score, and how many images and groups it has."""

    mean: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    images: int
    groups: int


def interval(values: NDArray[Any], groups: NDArray[Any], seed: int) -> Interval:
    """The mean of `values` over images with its percentile bootstrap interval over groups (Efron 1979).

    `values`: (n, ...), a score or a curve per image; images with a NaN are left out and not counted. `groups`: (n,),
    whatever names the patient. Images of one patient are alike, so whole groups are drawn with replacement, 1,000
    times, and every image of a drawn group counts: the mean of a resample is the sum of its images over their number.
    With fewer than two groups nothing can be said of chance: `low` and `high` are NaN.
    """
    values = np.asarray(values, np.float64)
    usable = np.isfinite(values.reshape(len(values), -1)).all(axis=1)
    values, groups = values[usable], np.asarray(groups)[usable]
    names, member = np.unique(groups, return_inverse=True)
    none = np.full(values.shape[1:], np.nan)
    if len(names) == 0:
        return Interval(none, none, none, 0, 0)
    mean = values.mean(axis=0)
    if len(names) == 1:
        return Interval(mean, none, none, len(values), 1)
    sums = np.zeros((len(names), *values.shape[1:]))
    np.add.at(sums, member, values)
    counts = np.bincount(member)
    rng = np.random.default_rng(seed)
    means = []
    for _ in range(RESAMPLES):
        drawn = np.bincount(rng.integers(len(names), size=len(names)), minlength=len(names))
        means.append(np.tensordot(drawn, sums, axes=1) / (drawn @ counts))
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return Interval(mean, low, high, len(values), len(names))
