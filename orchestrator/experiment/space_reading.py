"""From distributions in a candidate to its space.

What can be known before anything runs is refused here: ends that a setting does not allow, values
that go with nothing, conditions that never hold.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from orchestrator.experiment.candidates import (
    CandidateFile,
    Choice,
    Contradiction,
    Where,
    absolute_weights,
    check_fields,
    complete,
    readable_name,
    resolve,
    setting,
    slug,
)
from orchestrator.experiment.conditions import Conditions, check_conditions, ordered
from orchestrator.experiment.distributions import (
    KINDS,
    domain,
    is_distribution,
    lists_distribution,
    read_distribution,
)
from orchestrator.experiment.messages import shown
from orchestrator.experiment.search_space import Parameter, Space, placed
from trainables.core.config import Candidate
from trainables.core.errors import ExperimentError
from trainables.core.training_config import SECTIONS, Training

#: Of one candidate.
_MOST_PARAMETERS = 100
_MOST_PROBED = 5_000  # values of its parameters, over its grid
_MOST_TRIED = 200  # other values, before a value is said to go with none


# --- what is written ------------------------------------------------------------------------------


def take_out(
    raw: Mapping[str, Any], where: Where
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """A candidate as written without its distributions, and these by their dotted names.

    Raises ExperimentError where a distribution stands in a list, for a whole section or for a name.
    """
    fixed: dict[str, Any] = {}
    found: dict[str, dict[str, Any]] = {}
    for key, value in raw.items():
        if key in SECTIONS or key == "arguments":
            rest = _take_out_inner(key, value, found, where)
            if rest != {} or value == {}:
                fixed[key] = rest
        elif key in CandidateFile.model_fields and is_distribution(value):
            if key == "name":
                raise where.refused(key, f" must be a constant, got {shown(value)}; write text")
            found[key] = value
        else:
            _refuse_lists(value, key, where)
            fixed[key] = value
    if len(found) > _MOST_PARAMETERS:
        problem = f"{where.place} may have {_MOST_PARAMETERS} distributions, got {len(found):,}"
        raise ExperimentError(f"{problem} ({where.source}: {where.place}); make some constant")
    return fixed, found


def _take_out_inner(key: str, section: Any, found: dict[str, dict[str, Any]], where: Where) -> Any:
    """The same for a section; what is found is added to `found`."""
    if isinstance(section, list):
        for each in section:
            if isinstance(each, dict):
                _refuse_lists(list(each.values()), key, where)
        return section
    if not isinstance(section, dict):
        return section
    if key != "arguments" and section.keys() & KINDS:
        problem = (
            f" must be a section, of whose settings each may be a distribution, got "
            f"{shown(section)}; write {key}: {{kind: {{choice: [...]}}}}, or several candidates"
        )
        raise where.refused(key, problem)
    fixed = {}
    for inner, value in section.items():
        known = key == "arguments" or inner in SECTIONS[key].model_fields
        if known and is_distribution(value):
            found[f"{key}.{inner}"] = value
        else:
            _refuse_lists(value, f"{key}.{inner}", where)
            fixed[inner] = value
    return fixed


def _refuse_lists(value: Any, name: str, where: Where) -> None:
    if lists_distribution(value):
        problem = (
            f" must not list distributions, got {shown(value)}; write a candidate for each of them"
        )
        raise where.refused(name, problem)


@dataclass(frozen=True)
class _Written:
    """The distributions of a candidate: parameters without conditions, in the order in which they
    are decided, what their `when` says, and which state their default. `training`: what the
    candidate does not state.
    """

    parameters: dict[str, Parameter]
    conditions: Conditions
    stated: frozenset[str]
    training: Training
    where: Where


def read_spaces(
    choices: Sequence[Choice],
    found: Mapping[str, dict[str, Any]],
    training: Training,
    where: Where,
) -> list[tuple[Candidate, Space | None]]:
    """For each point of a candidate's grid the stated candidate and its space; None where no
    parameter counts.

    `found`: the distributions as written; `training`: what the candidate does not state. Raises
    ExperimentError.
    """
    points = [_prepared(choice, where) for choice in choices]
    written = _read_distributions(found, training, where)
    for name, when in written.conditions.items():
        check_conditions(name, when, written.parameters, points, written.training, where)
    probes = len(points) * sum(len(parameter.probes) for parameter in written.parameters.values())
    if probes > _MOST_PROBED:
        problem = f"{where.place} may have {_MOST_PROBED:,} values to try, got {probes:,}"
        raise ExperimentError(f"{problem} ({where.source}: {where.place}); list fewer choices")
    read = [_read_point(point, written) for point in points]
    spaces = [space for _, space in read if space is not None]
    counting = {parameter.name for space in spaces for parameter in space.parameters}
    for name in found.keys() - counting:
        problem = ".when never holds, since its conditions exclude each other; remove one"
        raise where.refused(name, problem)
    return read


def _prepared(choice: Choice, where: Where) -> Choice:
    """A point of a grid whose settings keep their rules, with its paths absolute."""
    check_fields({"model": "TinyCNN", **choice.values}, where)
    if "weights" not in choice.values:
        return choice
    weights = absolute_weights(choice.values["weights"], where)
    return Choice({**choice.values, "weights": weights}, choice.varied)


def _read_distributions(
    found: Mapping[str, dict[str, Any]], training: Training, where: Where
) -> _Written:
    parameters: dict[str, Parameter] = {}
    conditions: dict[str, dict[str, tuple[Any, ...]]] = {}
    for name, content in found.items():
        parameter, when = read_distribution(content, name, where.source, where.place)
        for value in parameter.probes:
            # By itself, whatever the model: what goes together is asked once there are defaults.
            check_fields(placed({"model": "TinyCNN"}, {name: value}), where)
        parameters[name], conditions[name] = _with_paths(parameter, when, where)
    base = training.model_copy(update={"weights": absolute_weights(training.weights, where)})
    in_order = {name: parameters[name] for name in ordered(conditions, where)}
    stated = frozenset(name for name, content in found.items() if "default" in content)
    return _Written(in_order, conditions, stated, base, where)


def _with_paths(
    parameter: Parameter, when: dict[str, tuple[Any, ...]], where: Where
) -> tuple[Parameter, dict[str, tuple[Any, ...]]]:
    """The same with every path of weights absolute."""

    def whole(value: Any) -> Any:
        return absolute_weights(value, where) if isinstance(value, str) else value

    if "weights" in when:
        when = {**when, "weights": tuple(whole(value) for value in when["weights"])}
    if parameter.name == "weights":
        choices = tuple(whole(value) for value in parameter.choices)
        changed = {"choices": choices, "default": whole(parameter.default)}
        parameter = parameter.model_copy(update=changed)
    return parameter, when


# --- one point of the grid ------------------------------------------------------------------------


def _read_point(point: Choice, written: _Written) -> tuple[Candidate, Space | None]:
    """The stated candidate at a point of the grid, and the space around it."""
    known: dict[str, Parameter] = {}
    chosen: dict[str, Any] = {}
    for name, parameter in written.parameters.items():
        when = written.conditions[name]
        constant = {
            other: wanted for other, wanted in when.items() if other not in written.parameters
        }
        holds = all(
            setting(point.values, written.training, other) in wanted
            for other, wanted in constant.items()
        )
        if not holds or any(other not in known for other in when.keys() - constant.keys()):
            continue
        searched = {other: wanted for other, wanted in when.items() if other not in constant}
        parameter = parameter.model_copy(update={"when": searched or None})
        counts = parameter.counts(chosen)
        values = placed(point.values, chosen)
        default = _default(parameter, values, counts, written)
        known[name] = parameter.model_copy(update={"default": default})
        if counts:
            chosen[name] = default
    if not known:
        return resolve(point, written.training, replace(written.where, folder=None)), None
    space = Space(entry=point.values, parameters=tuple(known.values()), training=written.training)
    return _checked(space, point, written)


def _default(parameter: Parameter, values: dict[str, Any], counts: bool, written: _Written) -> Any:
    """What a parameter is in the stated candidate, given those before it; `counts`: whether it
    counts there.
    """
    name = parameter.name
    if name in written.stated:
        return parameter.default
    if name == "model" or name.startswith("arguments."):
        return parameter.middle
    holds = setting(values, written.training, name)
    if parameter.kind == "int" and isinstance(holds, float) and holds.is_integer():
        holds = int(holds)
    if parameter.allows(holds):
        return holds
    if counts and holds is not None and parameter.kind != "choice":
        problem = (
            f" must include {shown(holds)}, which holds where nothing is stated, or have a "
            f"default, got {domain(parameter)}; add default: {parameter.middle}"
        )
        raise written.where.refused(name, problem)
    return parameter.middle


def _checked(space: Space, point: Choice, written: _Written) -> tuple[Candidate, Space | None]:
    """The stated candidate and the space without parameters that never count, once every value is
    known to go with something.
    """
    where = replace(written.where, folder=None)
    try:
        ways = {
            parameter.name: next(
                (way for way in space.reached([parameter.name]) if parameter.name in way), None
            )
            for parameter in space.parameters
        }
    except ValueError as error:
        line = f"{where.place}: {error}; look at fewer settings ({where.source}: {where.place})"
        raise ExperimentError(line) from error
    alive = tuple(parameter for parameter in space.parameters if ways[parameter.name] is not None)
    values = space.stated(space.defaults)
    check_fields(values, where)
    name = readable_name(Choice(values, point.varied))
    try:
        candidate = complete(values, space.training, where, (slug(name), name))
    except Contradiction as error:
        problem = f"{where.place} at its defaults: {error.problem}{_remedy(space)}"
        raise ExperimentError(f"{problem} ({where.source}: {where.place})") from error
    entry = {**point.values, "name": name}
    space = space.model_copy(update={"entry": entry, "parameters": alive})
    for parameter in alive:
        for value in parameter.probes:
            _check_value(
                space, {**(ways[parameter.name] or {}), parameter.name: value}, parameter, where
            )
    return candidate, space


def _check_value(
    space: Space, chosen: Mapping[str, Any], parameter: Parameter, where: Where
) -> None:
    """Raise where a value of a parameter goes neither with the others' defaults nor with any single
    other value of one of them.
    """
    problem = _problem(space, chosen, where)
    if problem is None:
        return
    name, value = parameter.name, chosen[parameter.name]
    others = (
        {**chosen, other.name: option}
        for other in space.parameters
        for option in other.probes
        if other.name != name
    )
    for trial in islice(others, _MOST_TRIED):
        if name in space.completed(trial) and _problem(space, trial, where) is None:
            return
    problem = f" must not be {shown(value)} with what else is stated: {problem}{_remedy(space)}"
    raise where.refused(name, problem)


def _remedy(space: Space) -> str:
    """What else helps against a contradiction."""
    several = len(space.parameters) > 1
    return ", or say by `when` where a distribution counts" if several else ""


def _problem(space: Space, chosen: Mapping[str, Any], where: Where) -> str | None:
    """What contradicts what in a candidate, the others at their defaults."""
    try:
        complete(space.stated(space.completed(chosen)), space.training, where, ("s", "s"))
    except Contradiction as error:
        return error.problem
    return None
