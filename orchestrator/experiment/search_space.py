"""Spaces: what of a candidate is searched, between which ends and on what condition, and what
follows from that. Knows neither files nor samplers.
"""

import copy
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Literal

from pydantic import Field

from trainables.core.training_config import Training
from trainables.core.values import Argument, Frozen, Real, Whole

Kind = Literal["uniform", "loguniform", "int", "choice"]
#: Digits of a number that a suggestion keeps: more are noise, and names are read by people.
DIGITS = 4
#: Ways in which conditions are looked through, of one space.
_MOST_WAYS = 20_000


class Parameter(Frozen):
    """One setting of a candidate that is searched."""

    name: str = Field(description="With its section, as `loss.gamma`.")
    kind: Kind
    low: Whole | Real | None = Field(None, description="Lower end, which can be had.")
    high: Whole | Real | None = Field(None, description="Upper end, which can be had.")
    step: Whole = Field(1, description="Of int: between neighbours.")
    choices: tuple[Argument, ...] = Field((), description="Of choice, no two alike.")
    when: dict[str, tuple[Argument, ...]] | None = Field(
        None,
        description=(
            "Other parameters, with the values of theirs at which this one counts; all must hold, "
            "and what does not count itself holds nothing. None: it always counts."
        ),
    )
    default: Argument = Field(None, description="Its value in the stated candidate.")

    @property
    def ends(self) -> tuple[float, float]:
        """Of a range; 0 and 0 for a choice."""
        return float(self.low or 0), float(self.high or 0)

    @property
    def options(self) -> Sequence[Any] | None:
        """All its values in order; None for a continuous range."""
        if self.kind == "choice":
            return self.choices
        if self.kind != "int" or self.low is None or self.high is None:
            return None
        return range(int(self.low), int(self.high) + 1, self.step)

    @property
    def probes(self) -> Sequence[Any]:
        """Values that are allowed where all are: every choice, or ends and something between."""
        if self.kind == "choice":
            return self.choices
        if (options := self.options) is not None:
            return list(dict.fromkeys([options[0], options[1], options[-1]]))
        return [self.low, self.middle, self.high]

    @property
    def middle(self) -> Any:
        """Half-way between the ends, of their logarithms for loguniform; the first choice."""
        if (options := self.options) is not None:
            return options[0] if self.kind == "choice" else options[len(options) // 2]
        low, high = self.ends
        return self.rounded((low * high) ** 0.5 if self.kind == "loguniform" else (low + high) / 2)

    def allows(self, value: Any) -> bool:
        """Whether it can have this value."""
        if self.kind == "choice":
            return value in self.choices
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        if (options := self.options) is not None:
            return isinstance(value, int) and value in options
        low, high = self.ends
        return low <= value <= high

    def counts(self, known: Mapping[str, Any]) -> bool:
        """Whether its conditions hold, given the values of the parameters before it."""
        conditions = (self.when or {}).items()
        return all(name in known and known[name] in values for name, values in conditions)

    def rounded(self, value: Any) -> Any:
        """The value as a candidate has it: numbers of a range with four digits, within its ends."""
        if self.kind not in ("uniform", "loguniform"):
            return value
        low, high = self.ends
        return min(max(float(f"{value:.{DIGITS}g}"), low), high)

    def written(self) -> dict[str, Any]:
        """As an experiment file states it, its default included."""
        ends = [self.low, self.high]
        content: dict[str, Any] = {self.kind: [*self.choices] if self.kind == "choice" else ends}
        if self.step != 1:
            content["step"] = self.step
        content["default"] = self.default
        if self.when:
            content["when"] = {name: [*values] for name, values in self.when.items()}
        # One by one: what is written twice must not become an alias in YAML.
        return {key: copy.deepcopy(value) for key, value in content.items()}


class Space(Frozen):
    """A candidate, some of whose settings are searched."""

    entry: dict[str, Any] = Field(
        description="The candidate as written without its parameters, no grid left."
    )
    parameters: tuple[Parameter, ...] = Field(
        min_length=1, description="Those that others' conditions look at come before these."
    )
    training: Training = Field(
        Training(), description="Where settings come from that the candidate does not state."
    )
    candidate: Whole = Field(0, description="Number of the stated candidate: all at its default.")

    @property
    def defaults(self) -> dict[str, Any]:
        """The values of the stated candidate, of the parameters that count there."""
        return self.completed({})

    def completed(self, chosen: Mapping[str, Any]) -> dict[str, Any]:
        """These values and the defaults of the others, of the parameters that then count."""
        values: dict[str, Any] = {}
        for parameter in self.parameters:
            if parameter.counts(values):
                values[parameter.name] = chosen.get(parameter.name, parameter.default)
        return values

    def stated(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The candidate as a file would state it with these values of its parameters."""
        return placed(self.entry, values)

    def reached(self, names: Collection[str]) -> Iterator[dict[str, Any]]:
        """Every combination of values that these parameters can have together, and those of the
        parameters that decide whether they count, the defaults first.

        Of a parameter that only decides, one value stands for all on which nothing depends; a
        continuous one that is named shows its ends. Raises ValueError where there are too many.
        """
        needed = {parameter.name for parameter in self._behind(names)}
        within = [parameter for parameter in self.parameters if parameter.name in needed]
        looked_at: dict[str, list[Any]] = {parameter.name: [] for parameter in within}
        for parameter in within:
            for name, values in (parameter.when or {}).items():
                looked_at[name] += values

        def options(parameter: Parameter) -> Iterator[Any]:
            yield parameter.default
            if parameter.name in names:
                every: Sequence[Any] = parameter.options or parameter.probes
                yield from (value for value in every if value != parameter.default)
                return
            seen = [parameter.default]
            for value in looked_at[parameter.name]:
                if value not in seen:
                    seen.append(value)
                    yield value
            others = (value for value in parameter.options or () if value not in seen)
            yield from islice(others, 1)

        ways = _combinations(within, options, {})
        for number, way in enumerate(ways):
            if number == _MOST_WAYS:
                raise ValueError(
                    f"spaces may come to {_MOST_WAYS:,} combinations of {', '.join(sorted(needed))}"
                )
            yield way

    def _behind(self, names: Collection[str]) -> list[Parameter]:
        """The parameters of these names, and all that decide whether they count."""
        by_name = {parameter.name: parameter for parameter in self.parameters}
        waiting = [by_name[name] for name in names if name in by_name]
        found: list[Parameter] = []
        while waiting:
            parameter = waiting.pop()
            if parameter not in found:
                found.append(parameter)
                waiting += [by_name[name] for name in parameter.when or {}]
        return found


def placed(entry: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """A candidate with values put where their dotted names say."""
    stated = copy.deepcopy(dict(entry))
    for name, value in values.items():
        key, _, inner = name.partition(".")
        if inner:
            stated.setdefault(key, {})[inner] = value
        else:
            stated[key] = value
    return stated


def _combinations(
    parameters: Sequence[Parameter],
    options: Callable[[Parameter], Iterator[Any]],
    known: dict[str, Any],
) -> Iterator[dict[str, Any]]:
    """The values of `options` in every combination, of the parameters that count in it."""
    if not parameters:
        yield known
        return
    first, *rest = parameters
    if not first.counts(known):
        yield from _combinations(rest, options, known)
        return
    for option in options(first):
        yield from _combinations(rest, options, {**known, first.name: option})
