"""CMA-ES (Hansen & Ostermeier, 2001) over a past that is told anew each time; it begins where
earlier runs found good candidates, as Nomura et al. (2021, arXiv 2012.06932) have it.
"""

from collections.abc import Sequence
from typing import Any

import cmaes
import numpy as np
from numpy.typing import NDArray

from orchestrator.experiment.search_space import Parameter, Space

_SIGMA = 1 / 6  # of the first distribution, as a share of a range
_GOOD = 10  # one in so many of an earlier run's candidates is good

#: Values, and what they are worth, higher being better.
Past = Sequence[tuple[dict[str, Any], float]]


class Evolution:
    """Suggests values of a space of numbers, whose ranges become [0, 1].

    A generation is as many candidates as its population has, in their order, whoever suggested
    them: what waited for late values may stem from the generation before. Where a distribution has
    shrunk to nothing the next one starts over, from a random point.
    """

    def __init__(self, space: Space, seed: int) -> None:
        self._parameters = space.parameters
        self._first = self._place(space.defaults)
        self._seed = seed

    def ask(self, seed: int, past: Past, earlier: Past = ()) -> dict[str, Any]:
        """Values from the distribution after this past; the first one is that of the best of
        `earlier`, where there are any.
        """
        optimizer, told = self._begun(earlier), 0
        size, starts = optimizer.population_size, 0
        while told + size <= len(past):
            generation = past[told : told + size]
            optimizer.tell([(self._place(values), -worth) for values, worth in generation])
            told += size
            if optimizer.should_stop():
                starts += 1
                optimizer = self._optimizer(
                    np.random.default_rng([self._seed, starts]).random(len(self._first))
                )
        optimizer.reseed_rng(seed)
        return {p.name: _at(p, x) for p, x in zip(self._parameters, optimizer.ask(), strict=True)}

    def _begun(self, earlier: Past) -> cmaes.CMA:
        if not earlier:
            return self._optimizer(self._first)
        places = [(self._place(values), -worth) for values, worth in earlier]
        best = sorted(places, key=lambda each: each[1])[: max(1, len(places) // _GOOD)]
        mean, sigma, covariance = cmaes.get_warm_start_mgd(best, gamma=1)
        bounds = np.tile([0.0, 1.0], (len(mean), 1))
        return cmaes.CMA(mean, sigma, bounds, seed=0, cov=covariance)

    def _optimizer(self, mean: NDArray[np.float64]) -> cmaes.CMA:
        bounds = np.tile([0.0, 1.0], (len(mean), 1))
        return cmaes.CMA(mean, _SIGMA, bounds, seed=0)

    def _place(self, values: dict[str, Any]) -> NDArray[np.float64]:
        return np.array([_share(p, values[p.name]) for p in self._parameters])


def _ends(parameter: Parameter) -> tuple[float, float]:
    """Of the line on which a parameter is moved: of int half a step beyond, so that its ends are as
    probable as others.
    """
    if (options := parameter.options) is not None:
        half = parameter.step / 2
        return options[0] - half, options[-1] + half
    low, high = parameter.ends
    return (np.log(low), np.log(high)) if parameter.kind == "loguniform" else (low, high)


def _share(parameter: Parameter, value: float) -> float:
    """Where in its range a value lies, 0 to 1."""
    low, high = _ends(parameter)
    return float(
        ((np.log(value) if parameter.kind == "loguniform" else value) - low) / (high - low)
    )


def _at(parameter: Parameter, share: float) -> float:
    low, high = _ends(parameter)
    value = low + float(share) * (high - low)
    if (options := parameter.options) is not None:
        return int(options[min(max(int((value - low) / parameter.step), 0), len(options) - 1)])
    value = float(np.exp(value)) if parameter.kind == "loguniform" else value
    first, last = parameter.ends
    return min(max(value, first), last)
