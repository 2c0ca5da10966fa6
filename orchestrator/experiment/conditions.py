"""What `when` of a distribution may look at, and in which order parameters are decided by it."""

from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.experiment.candidates import CandidateFile, Choice, Where, setting
from orchestrator.experiment.distributions import domain
from orchestrator.experiment.messages import shown
from orchestrator.experiment.search_space import Parameter
from trainables.core.errors import ExperimentError, nearest
from trainables.core.quoting import printable
from trainables.core.training_config import SECTIONS, Training

#: Of each parameter the settings that it looks at, with the values at which it counts.
Conditions = Mapping[str, Mapping[str, tuple[Any, ...]]]


def check_conditions(
    name: str,
    when: Mapping[str, tuple[Any, ...]],
    parameters: Mapping[str, Parameter],
    points: Sequence[Choice],
    training: Training,
    where: Where,
) -> None:
    """Raise ExperimentError where a parameter looks at nothing, or for a value that can never be.

    `points`: the grid of the candidate; `training`: what it does not state.
    """
    fields = _fields(points)
    for other, wanted in when.items():
        at = f"{name}.when.{other}"
        if other in parameters:
            _check_wanted(at, wanted, parameters[other], where)
            continue
        if other not in fields:
            place = f"{where.place}.{at}"
            alike = [field for field in fields if field.startswith(f"{other}.")] or fields
            line = f"unknown setting {place}, {nearest(other, alike)} ({where.source}: {place})"
            raise ExperimentError(printable(line))
        possible = [setting(point.values, training, other) for point in points]
        for value in wanted:
            if value not in possible:
                seen = " or ".join(dict.fromkeys(shown(each) for each in possible))
                problem = (
                    f" must be {seen}, as {other} is, got {shown(value)}; make {other} a choice"
                )
                raise where.refused(at, problem)


def _check_wanted(at: str, wanted: Sequence[Any], parameter: Parameter, where: Where) -> None:
    """Raise where another parameter can never have the values at which this one counts."""
    if parameter.options is None:
        problem = (
            f" must look at a choice or an int, got {parameter.kind}, which meets no value "
            "exactly; look at another setting"
        )
        raise where.refused(at, problem)
    for value in wanted:
        if not parameter.allows(value):
            raise where.refused(at, f" must be {domain(parameter)}, got {shown(value)}")


def _fields(points: Sequence[Choice]) -> list[str]:
    """The dotted names of all settings that a condition may look at."""
    names = []
    for key in CandidateFile.model_fields:
        if key in SECTIONS:
            names += [f"{key}.{inner}" for inner in SECTIONS[key].model_fields]
        elif key == "arguments":
            stated = {inner for point in points for inner in point.values.get(key, {})}
            names += [f"{key}.{inner}" for inner in sorted(stated)]
        elif key != "name":
            names.append(key)
    return names


def ordered(conditions: Conditions, where: Where) -> list[str]:
    """The parameters in the order of the settings' documentation, what others look at before them;
    the order of the file does not count.
    """
    order: list[str] = []
    above: list[str] = []

    def visit(name: str) -> None:
        if name in above:
            circle = " → ".join([*above[above.index(name) :], name])
            problem = f".when must not lead back to itself, got {circle}; remove one of them"
            raise where.refused(name, problem)
        if name not in order:
            above.append(name)
            for other in sorted(conditions[name].keys() & conditions.keys(), key=_rank):
                visit(other)
            above.pop()
            order.append(name)

    for name in sorted(conditions, key=_rank):
        visit(name)
    return order


def _rank(name: str) -> tuple[int, int, str]:
    key, _, inner = name.partition(".")
    within = [*SECTIONS[key].model_fields] if key in SECTIONS else []
    place = within.index(inner) if inner in within else 0
    return [*CandidateFile.model_fields].index(key), place, inner
