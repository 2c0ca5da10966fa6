"""From a space and values of its parameters to candidates, and what all of them come to."""

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
