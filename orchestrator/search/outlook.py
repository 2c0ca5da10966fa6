"""How candidates will stand when all their folds are finished, and who will be best.

A fold's score is a candidate's level, plus the fold's effect, which all candidates share, plus
noise: patients and training. How much of the noise patients make is known of each step from its
resampled scores, paired with another candidate's on the same patients (the clustered bootstrap of
out-of-fold predictions, in the spirit of BBCD-CV: Tsamardinos et al. 2018, doi
10.1007/s10994-018-5714-4); one factor, pooled over all candidates, makes it agree with the noise
that is seen between folds, so that training counts too and few folds are enough. Levels come from
a normal distribution over the candidates: a lead by one lucky fold is believed for as much as the
candidates differ at all.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_ndtr

Floats = NDArray[np.float64]

_PRIOR_FACTOR, _PRIOR_WEIGHT = 1.5, 4.0  # of seen to resampled variance, in degrees of freedom
_OWN_WEIGHT = 1.0  # folds that the pooled variance counts for beside a candidate's own
_LEAST = 1e-12  # variance: scores that never differ are no certainty
_REACH, _GRID = 5.0, 257  # standard deviations; points of the integral


def fold_effects(scores: Floats) -> Floats:
    """(k,): how much higher candidates score on each fold than on fold 0, by those that finished
    both, centred on 0; 0 where nobody did. `scores`: (candidates, k), NaN is not finished.
    """
    there = ~np.isnan(scores)
    both = there & there[:, :1]
    differences = np.where(both, scores - scores[:, :1], 0.0).sum(axis=0)
    effects = differences / np.maximum(both.sum(axis=0), 1)
    known = both.any(axis=0)
    centre = effects[known].mean() if known.any() else 0.0
    return np.where(known, effects - centre, 0.0)


def expected(scores: Floats) -> Floats:
    """(candidates,): means over all k folds, where the folds that are missing go as the others did,
    but for the folds' effects; NaN without a fold.
    """
    there = ~np.isnan(scores)
    levels = np.where(there, scores - fold_effects(scores), 0.0).sum(axis=1)
    count = there.sum(axis=1)
    return np.where(count > 0, levels / np.maximum(count, 1), np.nan)


def paired_noise(draws: NDArray[np.float32], others: NDArray[np.float32]) -> float:
    """Variance of one score by resampling patients, without what it shares with another one: half
    of the variance of their paired difference.
    """
    return float(np.var(draws.astype(np.float64) - others) / 2)


def noise(scores: Floats, paired: Floats) -> Floats:
    """(candidates,): variance of a fold's score about level and fold effect.

    `paired`: (candidates, k) what `paired_noise` gave, NaN where it is not known. A candidate's
    own mean of it is drawn towards the mean of all, and scaled by the factor that makes all of
    them together agree with the residuals of `scores`.
    """
    there = ~np.isnan(scores)
    known = ~np.isnan(paired)
    count = known.sum(axis=1)
    pooled = max(float(paired[known].mean()) if known.any() else 0.0, _LEAST)
    residuals = np.where(there, scores - fold_effects(scores) - expected(scores)[:, None], 0.0)
    folds = int(there.any(axis=0).sum())
    freedom = max(int((there.sum(axis=1) - 1).clip(0).sum()) - (folds - 1), 0)
    seen = float((residuals**2).sum()) / pooled
    factor = (seen + _PRIOR_WEIGHT * _PRIOR_FACTOR) / (freedom + _PRIOR_WEIGHT)
    own = np.where(known, paired, 0.0).sum(axis=1) + _OWN_WEIGHT * pooled
    return np.asarray(np.maximum(factor * own / (count + _OWN_WEIGHT), _LEAST))


def outlook(scores: Floats, paired: Floats) -> tuple[Floats, Floats]:
    """Mean and standard deviation, (candidates,) each, of what the mean over all k folds will be;
    NaN without a finished fold.
    """
    k = scores.shape[1]
    count = (~np.isnan(scores)).sum(axis=1)
    levels, variance = expected(scores), noise(scores, paired)
    some = count > 0
    between = float(np.mean(variance[some] / count[some])) if some.any() else 0.0
    if some.sum() > 2:
        between = max(float(np.var(levels[some], ddof=1)) - between, 0.01 * between)
    centre = float(np.mean(levels[some])) if some.any() else np.nan
    precision = 1 / max(between, _LEAST) + count / variance
    drawn = (centre / max(between, _LEAST) + count * np.nan_to_num(levels) / variance) / precision
    missing = (k - count) / k
    means = (1 - missing) * np.nan_to_num(levels) + missing * drawn
    spread = missing**2 * (1 / precision + variance / np.maximum(k - count, 1))
    return np.where(some, means, np.nan), np.where(some, np.sqrt(spread), np.nan)


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
