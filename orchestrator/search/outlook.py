"""How candidates will stand when all their folds are finished, and who will be best.

A fold's score is the fold's effect, which all candidates share, plus the candidate's level, plus
noise: patients and training. Levels are drawn from one normal distribution, so that a lead by one
lucky fold is believed for as much as candidates differ at all, and so that candidates that were
stopped for what their first folds showed do not make later folds look hard (a mixed model by
maximum likelihood; what is missing is missing at random). How noisy one candidate is against
another is known from resampled scores, paired on the same patients (the clustered bootstrap of
out-of-fold predictions, in the spirit of BBCD-CV: Tsamardinos et al. 2018, doi
10.1007/s10994-018-5714-4); one factor, pooled over all candidates, makes it agree with what is
seen between folds, so that training counts too and few folds are enough.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_ndtr

Floats = NDArray[np.float64]

_PRIOR_FACTOR, _PRIOR_WEIGHT = 1.5, 4.0  # of seen to resampled variance, in degrees of freedom
_OWN_WEIGHT = 1.0  # folds that the pooled variance counts for beside a candidate's own
_LEAST = 1e-12  # variance: scores that never differ are no certainty
_ROUNDS, _SETTLED = 12, 0.005  # of expectation maximisation; its last relative change
_REACH, _GRID = 4.0, 129  # standard deviations; points of the integral


def paired_noise(draws: NDArray[np.float32], others: NDArray[np.float32]) -> float | None:
    """Variance of one score by resampling patients, without what it shares with another one: half
    of the variance of their paired difference; None where a draw has no score.
    """
    variance = float(np.var(draws.astype(np.float64) - others) / 2)
    return variance if np.isfinite(variance) else None


@dataclass(frozen=True)
class Outlook:
    """What is to be expected of the mean over all k folds: (candidates,) each, NaN without a
    finished fold; and what it comes from.
    """

    means: Floats
    deviations: Floats  # 0 where all folds are finished
    folds: Floats  # (k,): what a candidate of average level scores on each fold
    noise: Floats  # (candidates,): variance of a fold's score about fold and level


def outlook(scores: Floats, paired: Floats) -> Outlook:
    """Finished folds as they are, the others as fold and level say.

    `scores`: (candidates, k), NaN is not finished. `paired`: (candidates, k), what `paired_noise`
    gave, NaN where it is not known.
    """
    k = scores.shape[1]
    there = ~np.isnan(scores)
    count = there.sum(axis=1)
    some = count > 0
    if not some.any():
        nothing = np.full(len(scores), np.nan)
        return Outlook(nothing, nothing, np.full(k, np.nan), nothing)
    levels, doubt, folds, noise = _fit(scores[some], _shares(scores[some], paired[some]))
    missing = (k - count[some]) / k
    ahead = np.where(there[some], scores[some], folds + levels[:, None])
    spread = missing**2 * (doubt + noise / np.maximum(k - count[some], 1))
    means, deviations, noises = (np.full(len(scores), np.nan) for _ in range(3))
    means[some], deviations[some], noises[some] = ahead.mean(axis=1), np.sqrt(spread), noise
    return Outlook(means, deviations, folds, noises)


def _shares(scores: Floats, paired: Floats) -> Floats:
    """(candidates,): each one's paired noise, its mean drawn towards the mean of all; where nothing
    is known of it all that differs on a fold may be noise.
    """
    known = ~np.isnan(paired)
    fold = scores[:, (~np.isnan(scores)).sum(axis=0).argmax()]
    pooled = float(paired[known].mean()) if known.any() else float(np.nanvar(fold))
    own = np.where(known, paired, 0.0).sum(axis=1) + _OWN_WEIGHT * pooled
    return np.asarray(np.maximum(own / (known.sum(axis=1) + _OWN_WEIGHT), _LEAST))


def _fit(scores: Floats, shares: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """Levels and their variances, folds, and noise: folds by generalised least squares, the two
    variances by expectation maximisation.

    `shares`: noise but for the common factor. Every candidate has a fold. A fold that nobody has
    finished is as hard as the others are on average.
    """
    there = ~np.isnan(scores)
    known: NDArray[np.bool_] = np.asarray(there.any(axis=0))
    count = there.sum(axis=1)
    inside = there[:, known].astype(np.float64)
    origin = float(np.nanmean(scores))
    apart = np.where(there, scores - origin, 0.0)[:, known]
    sums, squares = apart.sum(axis=1), (apart**2).sum(axis=1)
    factor, between = _start(apart, inside, shares)
    measured = max(int(count.sum() - known.sum()), 0) + _PRIOR_WEIGHT  # folds are fitted, too
    for _ in range(_ROUNDS):
        noise = factor * shares
        drawn = between / (noise + count * between)  # of a sum of residuals: the level
        precision = inside.T / noise
        system = np.diag(precision.sum(axis=1)) - (precision * drawn) @ inside
        folds = np.linalg.solve(
            system, (precision * apart.T).sum(axis=1) - precision @ (drawn * sums)
        )
        rest = sums - inside @ folds
        levels, doubt = drawn * rest, drawn * noise
        left = squares - 2 * (apart @ folds) + inside @ folds**2 - 2 * levels * rest
        seen = float(((left + count * (levels**2 + doubt)) / shares).sum())
        before = factor, between
        factor = (max(seen, 0.0) + _PRIOR_WEIGHT * _PRIOR_FACTOR) / measured
        between = max(float((levels**2 + doubt).mean()), _LEAST)
        if max(abs(factor / before[0] - 1), abs(between / before[1] - 1)) < _SETTLED:
            break
    all_folds = np.full(len(known), origin + folds.mean())
    all_folds[known] = origin + folds
    return levels, doubt, all_folds, factor * shares


def _start(apart: Floats, inside: Floats, shares: Floats) -> tuple[float, float]:
    """Factor of the noise within candidates and variance between them, by moments, against the fold
    that most have finished: nobody was chosen for it.
    """
    fold = int(inside.sum(axis=0).argmax())
    ones = inside[:, fold] > 0
    others = inside[ones] * (np.arange(inside.shape[1]) != fold)
    number = others.sum(axis=0)
    steps = others * (apart[ones] - apart[ones, fold, None])
    steps = others * (steps - steps.sum(axis=0) / np.maximum(number, 1))
    within = float(((steps**2).sum(axis=1) / (2 * shares[ones])).sum())
    freedom = float((number - 1).clip(0).sum())
    factor = (within + _PRIOR_WEIGHT * _PRIOR_FACTOR) / (freedom + _PRIOR_WEIGHT)
    chance = factor * float(np.mean(shares[ones]))
    between = float(np.var(apart[ones, fold], ddof=1)) - chance if ones.sum() > 1 else 0.0
    return factor, max(between, 0.01 * chance, _LEAST)


def best_probabilities(means: Floats, deviations: Floats) -> Floats:
    """(candidates,): probability that each of independent normals is the largest; equal ones share
    it.

    ∫ Π_{j≠i} Φ_j dΦ_i over a grid where the largest can lie; who cannot reach it has 0.
    """
    deviations = np.maximum(deviations, 1e-9)
    low = float((means - _REACH * deviations).max())
    high = float((means + _REACH * deviations).max())
    probabilities = np.zeros(len(means))
    near = np.flatnonzero(means + (_REACH + 1) * deviations >= low)
    grid = np.linspace(low, high, _GRID)[:, None]
    logs = log_ndtr((grid - means[near]) / deviations[near])
    others = np.exp(logs.sum(axis=1, keepdims=True) - logs)
    steps = np.diff(np.exp(logs), axis=0)
    probabilities[near] = (steps * (others[1:] + others[:-1]) / 2).sum(axis=0)
    return np.asarray(probabilities / probabilities.sum())
