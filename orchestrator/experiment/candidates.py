"""One candidate of an experiment file: its grid, its complete settings, its name and id."""

import itertools
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, create_model

from orchestrator.experiment.messages import explain, shown
from trainables.core.config import Candidate
from trainables.core.contradictions import contradiction
from trainables.core.errors import ExperimentError, ModelError
from trainables.core.files import expand
from trainables.core.quoting import printable
from trainables.core.training_config import SECTIONS, Training
from trainables.core.values import Argument, Frozen, Line, Whole, digest, is_file_name
from trainables.models import zoo

_LONGEST_NAME = 200  # characters, as `Line` allows
#: Numbers of sections that belong to one kind or another.
_OF_A_KIND = frozenset({"final", "factor", "patience", "gamma", "tau", "alpha", "pad_value"})
_LONGEST_ID = 80  # characters: ids become file names


class CandidateEntry(Frozen):
    """A candidate as the file states it; training fields that are absent come from the training
    section.
    """

    model: str = Field(description="A name of the model zoo, or 'package.module:builder'.")
    name: Line | None = Field(
        None, description="What people read; default: the model and what is stated here."
    )
    image_size: Whole | None = Field(
        None, ge=8, le=4096, description="Edge of the input in pixels; default: the model's."
    )
    arguments: dict[str, Argument] = Field(
        default_factory=dict,
        description=(
            "Keyword arguments of a builder. A list is a grid; [[8, 16]] is one value, the list "
            "[8, 16]."
        ),
    )


CandidateFile = create_model(
    "CandidateFile",
    __base__=CandidateEntry,
    **{name: (field.annotation, field) for name, field in Training.model_fields.items()},  # type: ignore[call-overload]
)
_ENTRY_FIELDS = tuple(CandidateEntry.model_fields)


class Contradiction(ExperimentError):
    """Settings of a candidate that are right, each by itself, and cannot be meant together;
    `problem` says it without the place.
    """

    def __init__(self, line: str, problem: str) -> None:
        super().__init__(printable(line))
        self.problem = printable(problem)


@dataclass(frozen=True)
class Where:
    """Where a candidate stands, for errors: the file and the place in it. Relative paths start at
    `folder`; without one all are absolute.
    """

    source: str
    place: str
    folder: Path | None = None

    def refused(self, name: str, problem: str) -> ExperimentError:
        """The error for what is wrong with a setting; `problem` goes on from its name."""
        at = f"{self.place}.{name}"
        return ExperimentError(printable(f"{at}{problem} ({self.source}: {at})"))


@dataclass(frozen=True)
class Choice:
    """One point of a candidate's grid: its values, and the keys that the grid varies."""

    values: dict[str, Any]
    varied: frozenset[tuple[str, ...]]


def unfold(raw: Mapping[str, Any]) -> Iterator[Choice]:
    """The grid of one candidate: every combination of the listed values, in the order in which they
    are written.
    """
    places = _listed(raw)
    for place, choices in places:
        if not choices:
            raise ValueError(f"{'.'.join(place)} must list at least one value, got []")
    varied = frozenset(place for place, choices in places if len(choices) > 1)
    for combination in itertools.product(*(choices for _, choices in places)):
        values = {
            key: dict(value) if isinstance(value, dict) else value for key, value in raw.items()
        }
        for (place, _), choice in zip(places, combination, strict=True):
            target = values
            for key in place[:-1]:
                target = target[key]
            target[place[-1]] = choice
        yield Choice(values, varied)


def combinations(raw: Mapping[str, Any]) -> int:
    """How many candidates `unfold` would give."""
    return math.prod(len(choices) for _, choices in _listed(raw))


def _listed(raw: Mapping[str, Any]) -> list[tuple[tuple[str, ...], list[Any]]]:
    """The places of a candidate where a list stands, and the lists."""
    places: list[tuple[tuple[str, ...], list[Any]]] = []
    for key, value in raw.items():
        if isinstance(value, list):
            places.append(((key,), value))
        elif isinstance(value, dict):
            places += [
                ((key, inner), choices)
                for inner, choices in value.items()
                if isinstance(choices, list)
            ]
    return places


def as_grid(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """A builder's arguments as a file states them: a list is one value of a grid, and so stands in
    a list.
    """
    return {
        name: [value] if isinstance(value, list) else value for name, value in arguments.items()
    }


def resolve(choice: Choice, training: Training, where: Where) -> Candidate:
    """The complete candidate of one point of a grid; `training` holds what it does not state.

    Raises ExperimentError.
    """
    check_fields(choice.values, where)
    name = readable_name(choice)
    return complete(choice.values, training, where, (slug(name), name))


def check_fields(values: Mapping[str, Any], where: Where) -> None:
    """Raise ExperimentError for a setting that breaks its own rule, with the place where the user
    wrote it.
    """
    try:
        CandidateFile.model_validate(values)
    except ValidationError as error:
        line = explain(error, CandidateFile, where.source, where.place)
        raise ExperimentError(line) from error


def complete(
    values: Mapping[str, Any], training: Training, where: Where, names: tuple[str, str]
) -> Candidate:
    """The candidate of settings that `check_fields` took; `names`: its id and its name.

    Raises ExperimentError, a Contradiction for what does not go together.
    """
    source, place = where.source, where.place
    entry = CandidateEntry.model_validate({k: v for k, v in values.items() if k in _ENTRY_FIELDS})
    stated = {k: v for k, v in values.items() if k not in _ENTRY_FIELDS}
    for section in SECTIONS.keys() & stated.keys():
        stated[section] = _over(getattr(training, section), stated[section])
    resolved = Training.model_validate({**training.model_dump(), **stated})
    weights = absolute_weights(resolved.weights, where)
    resolved = resolved.model_copy(update={"weights": weights})
    if problem := contradiction(resolved):
        raise Contradiction(f"{place}: {problem} ({source}: {place})", problem)
    size = _image_size(entry, source, place)
    if problem := zoo.contradiction(entry.model, resolved):
        raise Contradiction(f"{place}: {problem} ({source}: {place})", problem)
    identity, name = names
    return Candidate(
        id=identity,
        name=name,
        model=entry.model,
        image_size=size,
        arguments=entry.arguments,
        training=resolved,
    )


def setting(values: Mapping[str, Any], training: Training, name: str) -> Any:
    """What holds for a setting, by its dotted name: what the candidate states, the training section
    or the model says; None for an argument that is not stated.
    """
    key, _, inner = name.partition(".")
    if key == "arguments":
        return values.get(key, {}).get(inner)
    if key in SECTIONS:
        section = _over(getattr(training, key), values.get(key, {}))
        return getattr(SECTIONS[key].model_validate(section), inner)
    if key == "image_size" and values.get(key) is None:
        return zoo.default_image_size(values.get("model", ""))
    return values[key] if key in values else getattr(training, key, None)


def _over(section: Frozen, stated: dict[str, Any]) -> dict[str, Any]:
    """What a candidate states of a section, over what all have; another kind of schedule, loss,
    mix or fit leaves the numbers behind that belong to the kind before.
    """
    common = section.model_dump()
    choice = next((name for name in ("kind", "fit") if name in common), None)
    if choice in stated and stated[choice] != common[choice]:
        left = {*_OF_A_KIND, "warmup_epochs"} if stated[choice] == "one_cycle" else _OF_A_KIND
        common = {name: value for name, value in common.items() if name not in left}
    return {**common, **stated}


def _image_size(entry: CandidateEntry, source: str, place: str) -> int:
    """The input size of a candidate, once its model is known to exist and to take it."""
    try:
        zoo.check_model_name(entry.model)
    except ModelError as error:
        raise ExperimentError(printable(f"{error} ({source}: {place}.model)")) from error
    known = zoo.MODELS.get(entry.model)
    size = entry.image_size or zoo.default_image_size(entry.model)
    if size is None:
        problem = "image_size is missing: a builder has no size of its own"
        raise Contradiction(f"{place}.{problem} ({source}: {place})", problem)
    if known and size < known.smallest:
        problem = f"image_size must be at least {known.smallest} for {entry.model}, got {size}"
        raise Contradiction(f"{place}.{problem} ({source}: {place}.image_size)", problem)
    if known and entry.arguments:
        problem = (
            f"arguments are for builders of your own, {entry.model} takes none, got "
            f"{shown(entry.arguments)}"
        )
        line = f"{place}.{problem} ({source}: {place}.arguments); remove them"
        raise Contradiction(line, f"{problem}; remove them")
    return size


def readable_name(choice: Choice) -> str:
    """The stated name and what the grid varies; without one, the model and what the file says about
    this candidate.
    """
    stated = choice.values.get("name")
    settings = []
    for key, value in choice.values.items():
        if key in ("model", "name"):
            continue
        inner = value.items() if isinstance(value, dict) and value else [(None, value)]
        for name, each in inner:
            varied = bool(choice.varied & {(key,), (key, name)})
            if stated is None or varied:
                settings.append(shown_setting(key, name, each))
    if stated is not None and ("model",) in choice.varied:
        settings.insert(0, choice.values["model"])
    return joined([stated or choice.values["model"], *settings])


def joined(parts: Sequence[str]) -> str:
    """The parts of a name in one line that is not too long; a digest stands for what is cut."""
    name = printable(" ".join(parts))
    return (
        name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 10]}… {digest(name, 8)}"
    )


def shown_setting(key: str, inner: str | None, value: Any) -> str:
    """A setting in a name, by its key and the one within a section."""
    text = Path(value).name if key == "weights" else value
    if inner is None or inner == "kind":
        return f"{key}={text}"
    return f"{inner if key in ('augmentation', 'arguments') else f'{key}.{inner}'}={text}"


def slug(name: str) -> str:
    """The name as a file name; where that loses letters or is too long, a digest tells it from
    others.
    """
    plain = re.sub(r"[^a-z0-9._]+", "-", name.lower()).strip("-.")
    lossy = "[[" in name or is_file_name(plain)  # where a list ends in a list
    plain = plain.replace(".", "_") if is_file_name(plain) else plain
    if name.isascii() and plain and len(plain) <= _LONGEST_ID and not lossy:
        return plain
    return f"{plain[: _LONGEST_ID - 9] or 'candidate'}-{digest(name, 8)}"


def absolute(stated: str, folder: Path, source: str) -> str:
    """A path of the file as an absolute one, with its variables put in unless a file is called so
    literally.
    """
    try:
        path = str(folder / stated)
        if not os.path.lexists(path):
            path = str(folder / expand(stated))
        path.encode()
    except KeyError as error:
        raise ExperimentError(
            f"environment variables in paths must be set, ${error.args[0]} in "
            f"{printable(repr(stated))} is not ({source}); set it, or write $$ for a dollar sign"
        ) from None
    except UnicodeEncodeError:
        raise ExperimentError(
            f"paths must be UTF-8, got {printable(repr(path))} ({source}); rename the folder"
        ) from None
    return path


def absolute_weights(stated: str, where: Where) -> str:
    """`weights` with its path absolute, where it is one."""
    if where.folder is None or stated in ("none", "imagenet"):
        return stated
    return absolute(stated, where.folder, where.source)
