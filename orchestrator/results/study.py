"""A search as an Optuna study: for tools that read one, and to ask which parameters matter."""

import json
import math
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.importance import FanovaImportanceEvaluator, PedAnovaImportanceEvaluator
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from orchestrator.experiment.search_space import Parameter
from orchestrator.results.searched import Searched
from orchestrator.search.standings import Standing
from trainables.core.errors import RunFolderError
from trainables.training.metrics import LOWER_IS_BETTER

LEAST = 30  # candidates: with fewer the order of importances is mostly chance
_MOST_FORESTS = 300  # candidates: fANOVA takes a second for 30, and longer than in proportion
_TOP = 0.25  # of the candidates, which PED-ANOVA compares with all
_SPACE = "space"  # which of several, as a parameter
#: What storages raise for an address that they cannot use; RuntimeError for one of another Optuna.
_STORAGE_ERRORS = (
    optuna.exceptions.OptunaError,
    SQLAlchemyError,
    ImportError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)


# --- writing --------------------------------------------------------------------------------------


def write_study(searched: Searched, storage: str, name: str) -> int:
    """Write a new study into an Optuna storage, all candidates as trials; returns how many.

    A study that was not written to its end is removed again. Raises RunFolderError where there is
    one of this name, and where the storage cannot be used.
    """
    with _quiet():
        try:
            study = optuna.create_study(
                storage=storage, study_name=name, direction=_direction(searched)
            )
        except optuna.exceptions.DuplicatedStudyError as error:
            raise RunFolderError(
                f"there is a study {name!r} in {storage!r} already: choose another name with "
                "--name, or delete it with `optuna delete-study`"
            ) from error
        except _STORAGE_ERRORS as error:
            raise _unusable(storage, error) from error
        written = False
        try:
            study.set_user_attr("objective", _objective(searched))
            found = list(trials(searched))
            study.add_trials(found)
            written = True
        except _STORAGE_ERRORS as error:
            raise _unusable(storage, error) from error
        finally:
            if not written:
                optuna.delete_study(study_name=name, storage=storage)
    return len(found)


def trials(searched: Searched) -> Iterator[FrozenTrial]:
    """One trial per candidate that cells were spent on, in order.

    COMPLETE with the mean over its folds, a finalist's over those of all repeats; PRUNED where it
    was stopped, or the search ended before its last fold, with its expected mean; FAIL where a cell
    is lost; RUNNING while it may go on. Intermediate values are the running means after so many
    folds of the race. Losses are not negated, their studies minimise.
    """
    sign = _sign(searched)
    naming = _Naming(searched)
    table = {row["number"]: row for row in searched.table.to_dict("records")}
    scores = searched.standings.table.scores
    for each in searched.standings.candidates:
        if not each.runs:
            continue
        folds = sorted(each.finished, key=each.releases.__getitem__)
        raced = [fold for fold in folds if fold < searched.standings.k]
        known = [sign * float(scores[each.number, fold]) for fold in raced]
        state, reason = _state(searched, each)
        value = sign * float(table[each.number]["estimate"])
        valued = state in (TrialState.COMPLETE, TrialState.PRUNED) and math.isfinite(value)
        means = {n: math.fsum(known[:n]) / n for n in range(1, len(known) + 1)}
        yield optuna.create_trial(
            state=state,
            value=value if valued else None,
            **naming.of(each),
            intermediate_values=means,
            user_attrs={
                "candidate": searched.ids[each.number],
                "name": str(table[each.number]["name"]),
                "folds": folds,
                "scores": known,
                "value": "all folds" if state == TrialState.COMPLETE else "estimated",
                "reason": reason,
            },
        )


def _state(searched: Searched, each: Standing) -> tuple[TrialState, str]:
    """How Optuna calls it, and why it is no more."""
    standings = searched.standings
    if each.lost is not None:
        return TrialState.FAIL, each.lost
    if each.stopped is not None:
        return TrialState.PRUNED, str(each.stopped["reason"])
    if standings.is_through(each.number):
        return TrialState.COMPLETE, ""
    if standings.ended is not None:
        return TrialState.PRUNED, f"the search ended: {standings.ended}"
    return TrialState.RUNNING, ""


def _objective(searched: Searched) -> str:
    assert searched.experiment.search is not None
    return searched.experiment.search.objective


def _sign(searched: Searched) -> int:
    return -1 if _objective(searched) in LOWER_IS_BETTER else 1


def _direction(searched: Searched) -> Literal["maximize", "minimize"]:
    return "maximize" if _sign(searched) > 0 else "minimize"


def _unusable(storage: str, error: Exception) -> RunFolderError:
    said = " ".join(str(getattr(error, "orig", None) or error).split())[:300]
    return RunFolderError(
        f"cannot use the storage {storage!r}: {said.rstrip('.')}; write it as sqlite:///study.db"
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Optuna logs a line for each study and trial, and warns of what is experimental."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        optuna.logging.set_verbosity(before)


# --- parameters -----------------------------------------------------------------------------------


class _Naming:
    """Parameters as a study has them: those of several spaces share a name where they are alike."""

    def __init__(self, searched: Searched) -> None:
        self._spaces = searched.experiment.spaces
        self._names = [searched.ids[space.candidate] for space in self._spaces]
        alike: dict[str, list[BaseDistribution]] = {}
        for parameter in (p for space in self._spaces for p in space.parameters):
            known = alike.setdefault(parameter.name, [])
            if (distribution := _distribution(parameter)) not in known:
                known.append(distribution)
        self._differ = {name for name, known in alike.items() if len(known) > 1}

    def of(self, each: Standing) -> dict[str, Any]:
        """`params` and `distributions` of a candidate; none of one without a space."""
        number, values = self._point(each)
        params: dict[str, Any] = {}
        distributions: dict[str, BaseDistribution] = {}
        if number is None:
            return {"params": params, "distributions": distributions}
        if len(self._spaces) > 1:
            params[_SPACE] = self._names[number]
            distributions[_SPACE] = CategoricalDistribution(tuple(self._names))
        for parameter in self._spaces[number].parameters:
            if parameter.name in values:
                differs = parameter.name in self._differ
                name = f"{self._names[number]}.{parameter.name}" if differs else parameter.name
                params[name] = _value(parameter, values[parameter.name])
                distributions[name] = _distribution(parameter)
        return {"params": params, "distributions": distributions}

    def _point(self, each: Standing) -> tuple[int | None, Mapping[str, Any]]:
        """Its space and its values there."""
        if each.space is not None:
            return each.space, each.values
        for number, space in enumerate(self._spaces):
            if space.candidate == each.number:
                return number, space.defaults
        return None, {}


def _distribution(parameter: Parameter) -> BaseDistribution:
    if parameter.kind == "choice":
        return CategoricalDistribution(_choices(parameter))
    if (options := parameter.options) is not None:
        return IntDistribution(options[0], options[-1], step=parameter.step)
    low, high = parameter.ends
    return FloatDistribution(low, high, log=parameter.kind == "loguniform")


def _value(parameter: Parameter, value: Any) -> Any:
    if parameter.kind != "choice":
        return parameter.rounded(value)
    written = [json.dumps(choice) for choice in parameter.choices]  # tells 1 from true
    return _choices(parameter)[written.index(json.dumps(value))]


def _choices(parameter: Parameter) -> tuple[Any, ...]:
    """As Optuna takes them: in JSON where some are lists, or are equal as 1 and true are."""
    choices = parameter.choices
    plain = all(each is None or isinstance(each, bool | int | float | str) for each in choices)
    if plain and len(set(choices)) == len(choices):
        return choices
    return tuple(json.dumps(choice) for choice in choices)


# --- importance -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Importance:
    """Shares of the parameters in what the expected means differ by, the largest first; they add up
    to 1. `candidates`: that they come from; `estimated`: of these, those without all folds;
    `left_out`: parameters that count in too few candidates.
    """

    method: str
    shares: Mapping[str, float]
    candidates: int
    estimated: int
    left_out: tuple[str, ...]


def importance(searched: Searched) -> Importance | str:
    """Which parameters matter; a sentence where too little is known.

    fANOVA (Hutter, Hoos & Leyton-Brown 2014), by Optuna; where a parameter counts on condition of
    another one, or candidates are very many, PED-ANOVA (Watanabe et al. 2023), which takes both.
    """
    expected = searched.table.set_index("candidate")["estimate"]
    known = [
        (trial, float(value))
        for trial in trials(searched)
        if trial.params and math.isfinite(value := expected[trial.user_attrs["candidate"]])
    ]
    if len(known) < LEAST:
        return (
            f"Importance is not shown: {len(known)} candidates have a value, and with fewer than "
            f"{LEAST} the order of the parameters is mostly chance."
        )
    counts = Counter(name for trial, _ in known for name in trial.params)
    names = [name for name, count in counts.items() if count >= LEAST]
    if len(names) < 2:
        return "Importance is not shown: it compares parameters, and fewer than two vary enough."
    everywhere = all(counts[name] == len(known) for name in names)
    forest = everywhere and len(known) <= _MOST_FORESTS
    evaluator = (
        FanovaImportanceEvaluator(seed=0)
        if forest
        else PedAnovaImportanceEvaluator(target_quantile=_TOP)
    )
    with _quiet():
        study = optuna.create_study(direction="maximize")
        for trial, value in known:
            kept = [name for name in names if name in trial.params]
            study.add_trial(
                optuna.create_trial(
                    value=value,
                    params={name: trial.params[name] for name in kept},
                    distributions={name: trial.distributions[name] for name in kept},
                )
            )
        shares = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return Importance(
        "fANOVA" if forest else f"PED-ANOVA of the best {_TOP:.0%}",
        {name: float(share) for name, share in sorted(shares.items(), key=lambda item: -item[1])},
        len(known),
        sum(trial.state != TrialState.COMPLETE for trial, _ in known),
        tuple(name for name in counts if name not in names),
    )
