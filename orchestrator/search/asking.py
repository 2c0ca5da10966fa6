"""Optuna's samplers, asked through a study in memory that is made for one suggestion; the one file
of this street that knows Optuna.
"""

import json
import warnings
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, TrialState

from orchestrator.experiment.search_space import Parameter, Space

#: A space and values of those of its parameters that count.
Point = tuple[int, dict[str, Any]]
#: Number of a candidate, where it lies, and its value; None: not known yet.
Known = tuple[int, Point, float | None]

_STARTUP = 10  # values that are known before densities or processes are fitted, random until then
_WHEN = datetime(2000, 1, 1)


class _Past(FrozenTrial):
    """A trial that is made for one study, which need not copy it: for hundreds that is slow."""

    def __deepcopy__(self, memo: dict[int, Any]) -> "_Past":
        return self


class Studies:
    """Asks Optuna's samplers for points of these spaces.

    Which of several spaces is a parameter too, "space"; those of each are named "<space>.<name>".
    """

    def __init__(self, spaces: Sequence[Space]) -> None:
        self._spaces = spaces
        self._several = len(spaces) > 1
        self._of_space = CategoricalDistribution(tuple(range(len(spaces))))
        self._written: dict[int, tuple[dict[str, Any], dict[str, BaseDistribution]]] = {}
        optuna.logging.set_verbosity(optuna.logging.ERROR)  # else a line for each study

    def ask(self, kind: str, seed: int, past: Iterable[Known]) -> Point:
        """The point that a sampler of this kind and seed suggests after this past."""
        study = optuna.create_study(direction="maximize", sampler=_sampler(kind, seed))
        for known in past:
            study.add_trial(self._trial(known))
        trial = study.ask()
        space = 0
        if self._several:
            space = _place(trial, "space", self._of_space)
        values: dict[str, Any] = {}
        for parameter in self._spaces[space].parameters:
            if parameter.counts(values):
                values[parameter.name] = _drawn(trial, self._name(space, parameter), parameter)
        return space, values

    def _name(self, space: int, parameter: Parameter) -> str:
        return f"{space}.{parameter.name}" if self._several else parameter.name

    def _trial(self, known: Known) -> FrozenTrial:
        number, point, value = known
        if number not in self._written:
            self._written[number] = self._parameters(point)
        params, distributions = self._written[number]
        return _Past(
            number=number,
            trial_id=number,
            state=TrialState.RUNNING if value is None else TrialState.COMPLETE,
            value=value,
            datetime_start=_WHEN,
            datetime_complete=None if value is None else _WHEN,
            params=params,
            distributions=distributions,
            user_attrs={},
            system_attrs={},
            intermediate_values={},
        )

    def _parameters(self, point: Point) -> tuple[dict[str, Any], dict[str, BaseDistribution]]:
        """A point as Optuna holds it."""
        space, values = point
        params: dict[str, Any] = {"space": space} if self._several else {}
        distributions: dict[str, BaseDistribution] = {"space": self._of_space} if params else {}
        for parameter in self._spaces[space].parameters:
            if parameter.name in values:
                name, value = self._name(space, parameter), values[parameter.name]
                params[name] = _index(parameter, value) if parameter.kind == "choice" else value
                distributions[name] = _distribution(parameter)
        return params, distributions


def _sampler(kind: str, seed: int) -> optuna.samplers.BaseSampler:
    if kind == "random":
        return optuna.samplers.RandomSampler(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if kind == "gp":
            return optuna.samplers.GPSampler(seed=seed, n_startup_trials=_STARTUP)
        return optuna.samplers.TPESampler(
            seed=seed,
            n_startup_trials=_STARTUP,
            multivariate=True,
            group=True,
            constant_liar=True,
        )


def _distribution(parameter: Parameter) -> BaseDistribution:
    """A choice is drawn by its place: Optuna takes neither lists nor 1 beside true."""
    if parameter.kind == "choice":
        return CategoricalDistribution(tuple(range(len(parameter.choices))))
    if (options := parameter.options) is not None:
        return IntDistribution(options[0], options[-1], step=parameter.step)
    low, high = parameter.ends
    return FloatDistribution(low, high, log=parameter.kind == "loguniform")


def _index(parameter: Parameter, value: Any) -> int:
    written = json.dumps(value)  # tells 1 from true, and a list is a tuple that was read back
    return next(i for i, choice in enumerate(parameter.choices) if json.dumps(choice) == written)


def _drawn(trial: optuna.Trial, name: str, parameter: Parameter) -> Any:
    match _distribution(parameter):
        case CategoricalDistribution() as places:
            return parameter.choices[_place(trial, name, places)]
        case IntDistribution(low=low, high=high, step=step):
            return trial.suggest_int(name, low, high, step=step)
        case FloatDistribution(low=lower, high=upper, log=log):
            return trial.suggest_float(name, lower, upper, log=log)
    raise AssertionError(parameter.kind)


def _place(trial: optuna.Trial, name: str, places: CategoricalDistribution) -> int:
    return int(str(trial.suggest_categorical(name, places.choices)))
