"""From a space and values of its parameters to candidates and back, and what all come to."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from orchestrator.experiment.candidates import (
    Contradiction,
    Where,
    check_fields,
    complete,
    joined,
    setting,
    shown_setting,
)
from orchestrator.experiment.distributions import domain
from orchestrator.experiment.messages import shown
from orchestrator.experiment.search_space import Space
from trainables.core.config import Candidate
from trainables.core.errors import ExperimentError
from trainables.core.input_format import InputFormat


def suggestion(space: Space, values: Mapping[str, Any], number: int) -> Candidate:
    """The candidate of a space with these values of its parameters.

    Those that do not count are ignored; numbers of ranges are rounded. Raises ExperimentError where
    one is missing or outside of its range, and where they contradict each other.
    """
    identity = f"s{number:04d}"
    where = Where("search", identity)
    chosen: dict[str, Any] = {}
    for parameter in space.parameters:
        if not parameter.counts(chosen):
            continue
        value = values.get(parameter.name)
        if parameter.name not in values or not parameter.allows(value):
            problem = f" must be {domain(parameter)}, got {shown(value)}; suggest another"
            raise where.refused(parameter.name, problem)
        chosen[parameter.name] = parameter.rounded(value)
    stated = space.stated(chosen)
    parts = [stated["model"], f"#{number}"]
    for name, value in chosen.items():
        key, _, inner = name.partition(".")
        if key != "model":
            parts.append(shown_setting(key, inner or None, value))
    check_fields(stated, where)
    try:
        return complete(stated, space.training, where, (identity, joined(parts)))
    except Contradiction as error:
        raise ExperimentError(error.problem) from error


def settings_of(candidate: Candidate) -> dict[str, Any]:
    """All settings of a candidate by their dotted names, as spaces call them."""
    return _flat(candidate.model_dump(mode="json", exclude={"id", "name"}))


def located(spaces: Sequence[Space], candidate: Candidate) -> tuple[int, dict[str, Any]] | None:
    """Where in these spaces a candidate of another experiment lies, space and values: in the one
    whose other settings are the most like its own.

    None: in no space are all parameters that count set by it, to values within their ranges.
    """
    settings, own = settings_of(candidate), _flat(candidate.deciding())
    found: list[tuple[int, int, dict[str, Any]]] = []
    for number, space in enumerate(spaces):
        values: dict[str, Any] | None = _values(space, settings)
        if values is None:
            continue
        try:
            other = _flat(suggestion(space, values, 0).deciding())
        except ExperimentError:  # with the other settings of the space they contradict each other
            continue
        names = (own.keys() | other.keys()) - values.keys()
        unlike = sum(own.get(name) != other.get(name) for name in names)
        found.append((unlike, number, values))
    if not found:
        return None
    _, number, values = min(found, key=lambda each: each[:2])
    return number, values


def _values(space: Space, settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """What settings say of the parameters that count; None where they do not say all, or say what a
    parameter does not allow.
    """
    values: dict[str, Any] = {}
    for parameter in space.parameters:
        if not parameter.counts(values):
            continue
        value = settings.get(parameter.name)
        if not parameter.allows(value):
            return None
        if parameter.kind == "choice":  # as the space writes it: 0 is 0.0, but not false
            flags = isinstance(value, bool)
            alike = [each for each in parameter.choices if isinstance(each, bool) == flags]
            if value not in alike:
                return None
            value = alike[alike.index(value)]
        values[parameter.name] = value
    return values


def _flat(content: dict[str, Any]) -> dict[str, Any]:
    """By dotted names; what `training` holds stands beside the rest."""
    content |= content.pop("training")
    flat: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, dict):
            flat |= {f"{key}.{inner}": each for inner, each in value.items()}
        else:
            flat[key] = value
    return flat


def reached(space: Space, names: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    """What these settings can be together in the candidates of a space, in their order."""
    for way in space.reached(names):
        values = space.stated(way)
        yield tuple(setting(values, space.training, name) for name in names)


def input_formats(space: Space) -> Iterator[InputFormat]:
    """The different input formats of a space's candidates."""
    seen = set()
    # The model, since sizes that are not stated are its own.
    for way in reached(
        space, ("model", "image_size", "input.fit", "input.pad_value", "input.depth")
    ):
        form = InputFormat(*way[1:])
        if form not in seen and form.size is not None:
            seen.add(form)
            yield form
