"""Distributions as a candidate states them in the place of a value: what they look like, and what
they cannot mean.
"""

import difflib
import json
import math
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, get_args

from pydantic import BeforeValidator, Field, ValidationError

from orchestrator.experiment.messages import explain, shown
from orchestrator.experiment.search_space import DIGITS, Kind, Parameter
from trainables.core.errors import ExperimentError
from trainables.core.quoting import printable
from trainables.core.values import Argument, Frozen, Real, Whole

KINDS: tuple[Kind, ...] = get_args(Kind)
#: Of one parameter; what has more is a range.
MOST_CHOICES = 200
_MOST_WHOLE = 2**53  # what a float holds exactly


def _pair(value: Any) -> Any:
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise ValueError("must be [low, high]")
    return value


class Distribution(Frozen):
    """What stands for a value that is searched: one of uniform, loguniform, int and choice."""

    uniform: Annotated[tuple[Real, Real], BeforeValidator(_pair)] | None = Field(
        None, description="[low, high]: any number between, evenly."
    )
    loguniform: Annotated[tuple[Real, Real], BeforeValidator(_pair)] | None = Field(
        None, description="[low, high]: any number between, its logarithm evenly."
    )
    choice: list[Argument] | None = Field(None, description="One of the listed values.")
    step: Whole = Field(1, ge=1, description="Of int: what lies between neighbours.")
    default: Argument = Field(
        None,
        description=(
            "Value in the candidate that is run in any case, as the reference; default: what the "
            "training section or the model says, else the first choice or the middle."
        ),
    )
    when: dict[str, Argument] | None = Field(
        None,
        description=(
            "Other settings of the candidate, each with the value or values at which this one "
            "counts: {optimizer: sgd}. Elsewhere it is absent."
        ),
    )
    # The last: below it, `int` is this field.
    int: Annotated[tuple[Whole, Whole], BeforeValidator(_pair)] | None = Field(
        None, description="[low, high]: whole numbers, from low on in steps of `step`."
    )

    @property
    def kinds(self) -> list[Kind]:
        """What it states, which should be one."""
        return [kind for kind in KINDS if getattr(self, kind) is not None]


def is_distribution(value: Any) -> bool:
    """Whether a mapping in the place of a value means a distribution, misspelt perhaps."""
    if not isinstance(value, dict):
        return False
    names = [*Distribution.model_fields]
    keys = [key for key in value if isinstance(key, str)]
    return any(difflib.get_close_matches(key.casefold(), names, n=1, cutoff=0.6) for key in keys)


def lists_distribution(value: Any) -> bool:
    """Whether one stands in a list, or in a list in it."""
    return isinstance(value, list) and any(
        lists_distribution(each) or (isinstance(each, dict) and bool(each.keys() & KINDS))
        for each in value
    )


def read_distribution(
    content: Mapping[str, Any], name: str, source: str, place: str
) -> tuple[Parameter, dict[str, tuple[Any, ...]]]:
    """The parameter that a candidate's setting is to be, and the settings that its `when` names.

    The parameter has its default only where one is stated, and no conditions yet. `place` is the
    candidate's. Raises ExperimentError.
    """
    where = f"{place}.{name}"
    try:
        stated = Distribution.model_validate(content)
    except ValidationError as error:
        raise ExperimentError(explain(error, Distribution, source, where)) from error
    problem = next((text for wrong, text in _problems(stated) if wrong), None)
    if problem is None:
        (kind,) = stated.kinds
        low, high = (None, None) if kind == "choice" else getattr(stated, kind)
        parameter = Parameter(
            name=name,
            kind=kind,
            low=low,
            high=high,
            step=stated.step,
            choices=tuple(stated.choice or ()),
            default=stated.default,
        )
        if "default" in stated.model_fields_set and not parameter.allows(stated.default):
            problem = f".default must be {domain(parameter)}, got {shown(stated.default)}"
    if problem is not None:
        raise ExperimentError(printable(f"{where}{problem} ({source}: {where})"))
    conditions = {
        other: tuple(wanted) if isinstance(wanted, list) else (wanted,)
        for other, wanted in (stated.when or {}).items()
    }
    return parameter, conditions


def domain(parameter: Parameter) -> str:
    """What values a parameter can have, in words."""
    if parameter.kind == "choice":
        return f"one of {shown(list(parameter.choices))}"
    steps = f" by steps of {parameter.step}" if parameter.step != 1 else ""
    number = "a whole number" if parameter.kind == "int" else "a number"
    return f"{number} from {parameter.low} to {parameter.high}{steps}"


def _problems(stated: Distribution) -> Iterator[tuple[bool, str]]:
    """Whether something is wrong, and what, as it goes on from the place."""
    kinds = stated.kinds
    yield (
        not kinds,
        f" must state a distribution, one of {', '.join(KINDS)}, got only "
        f"{' and '.join(sorted(stated.model_fields_set)) or 'nothing'}",
    )
    yield len(kinds) > 1, f" must be one distribution, got {' and '.join(kinds)}; remove one"
    kind = kinds[0]
    yield (
        kind != "int" and "step" in stated.model_fields_set,
        f".step is for int, got {kind}; remove it",
    )
    yield (
        stated.when is not None and not stated.when,
        ".when must name a setting and its value, as {optimizer: sgd}, got {}; or remove it",
    )
    empty = [name for name, wanted in (stated.when or {}).items() if wanted == []]
    yield bool(empty), f".when.{''.join(empty[:1])} must list at least one value, got []"
    if stated.choice is not None:
        yield from _of_choices(stated.choice)
    else:
        low, high = getattr(stated, kind)
        yield from _of_ends(kind, low, high, stated.step)


def _of_choices(choices: list[Any]) -> Iterator[tuple[bool, str]]:
    yield not choices, ".choice must list at least one value, got []"
    yield (
        len(choices) > MOST_CHOICES,
        f".choice may list {MOST_CHOICES} values, got {len(choices):,}; state a range",
    )
    known = choices[:MOST_CHOICES]
    twin = next((value for number, value in enumerate(known) if value in known[:number]), None)
    twice = len(known) > sum(known.index(value) == number for number, value in enumerate(known))
    yield twice, f".choice must list different values, got {shown(twin)} twice; remove one"


def _of_ends(kind: str, low: float, high: float, step: int) -> Iterator[tuple[bool, str]]:
    ends = json.dumps([low, high])
    yield (
        low > high,
        f".{kind} must be [low, high], got {ends}; write [{high}, {low}]",
    )
    yield low == high, f".{kind} must have low below high, got {ends}; write the value {low} alone"
    yield (
        kind == "loguniform" and low <= 0,
        f".loguniform must begin above 0, since it has logarithms, got {ends}; raise low, or use "
        "uniform",
    )
    if kind == "int":
        yield (
            max(abs(low), abs(high)) > _MOST_WHOLE,
            f".int must lie within {-_MOST_WHOLE} and {_MOST_WHOLE}, got {shown([low, high])}",
        )
        yield (
            (high - low) % step > 0,
            f".int must come to high by steps from low, got {ends} by {step}; write "
            f"[{low}, {high - (high - low) % step}]"
            if high - low >= step
            else f".step must be at most {high - low} for {ends}, got {step}",
        )
    else:
        yield (
            not math.isfinite(high - low),
            f".{kind} is too wide, got {ends}; bring its ends closer",
        )
        yield (
            f"{low:.{DIGITS}g}" == f"{high:.{DIGITS}g}",
            f".{kind} must have ends that differ in {DIGITS} digits, got {ends}; widen it",
        )
