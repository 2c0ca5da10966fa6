"""Confidence intervals and tests of mean scores, with whole groups as the unit of chance."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import ttest_1samp

RESAMPLES = 1000
LEVEL = 0.95


class Interval(NamedTuple):
    """A mean with its 95 % interval, each of the shape of one image's score, and how many images
    and groups it has.
    """

    mean: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    images: int
    groups: int


def interval(values: NDArray[Any], groups: NDArray[Any], seed: int) -> Interval:
    """The mean of `values` over images with its percentile bootstrap interval over groups (Efron
    1979).

    `values`: (n, ...), a score or a curve per image; images with a NaN are left out and not
    counted. `groups`: (n,), whatever names the patient. Images of one patient are alike, so whole
    groups are drawn with replacement, 1,000 times, and every image of a drawn group counts: the
    mean of a resample is the sum of its images over their number. With fewer than two groups
    nothing can be said of chance: `low` and `high` are NaN.
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


def p_above_zero(values: NDArray[Any], groups: NDArray[Any]) -> float:
    """How probable so high a mean is where none is above 0: the one-sided p of a t-test on the
    means of the groups.

    `values`: (n,), a score per image, NaN being left out. NaN for fewer than two groups. Never
    below 2⁻ᵍ, what g groups of one sign are worth by themselves: few groups that agree by chance
    have no spread for t to go by.
    """
    values = np.asarray(values, np.float64)
    usable = np.isfinite(values)
    _, member = np.unique(np.asarray(groups)[usable], return_inverse=True)
    counts = np.bincount(member)
    if len(counts) < 2:
        return np.nan
    means = np.bincount(member, values[usable]) / counts
    if np.ptp(means) == 0:  # t is 0/0 or infinite
        return float(0.5 ** len(means)) if means[0] > 0 else 1.0
    return max(float(ttest_1samp(means, 0, alternative="greater").pvalue), 0.5 ** len(means))


def holm(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """p-values (n,) adjusted for their number (Holm 1979): below 0.05, any false one has a chance
    of at most 5 %.

    NaN is no test: it stays, and is not counted.
    """
    adjusted = np.array(p, np.float64)
    tested = np.flatnonzero(~np.isnan(adjusted))
    order = tested[np.argsort(adjusted[tested], kind="stable")]
    steps = adjusted[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return adjusted
