"""From the candidates of an experiment file, grids among them, to complete candidates with names
and ids.
"""

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

#: Of one experiment, once its grids are unfolded.
MOST_CANDIDATES = 1000
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


@dataclass(frozen=True)
class Choice:
    """One point of a candidate's grid: its values, and the keys that the grid varies."""

    values: dict[str, Any]
    varied: frozenset[tuple[str, ...]]


def resolve_candidates(
    section: Sequence[Mapping[str, Any]], training: Training, folder: Path, source: str
) -> tuple[Candidate, ...]:
    """Unfold and complete the candidates section; `training` holds what a candidate does not state
    itself.

    Relative paths start at `folder`; `source` names the file in errors. Raises ExperimentError.
    """
    candidates: list[Candidate] = []
    for index, raw in enumerate(section):
        place = f"candidates[{index}]"
        try:
            if (number := len(candidates) + combinations(raw)) > MOST_CANDIDATES:
                raise ExperimentError(
                    f"an experiment may have {MOST_CANDIDATES:,} candidates, got {number:,} as "
                    f"grids are unfolded ({source}: {place}); make several experiments of it"
                )
            choices = list(unfold(raw))
        except ValueError as error:
            raise ExperimentError(printable(f"{place}.{error} ({source}: {place})")) from error
        candidates += [_resolve(choice, training, folder, source, place) for choice in choices]
    _check_unique(candidates, source)
    return tuple(candidates)


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


def _resolve(
    choice: Choice, training: Training, folder: Path, source: str, place: str
) -> Candidate:
    values = choice.values
    try:
        # Names what is wrong by the place where the user wrote it.
        CandidateFile.model_validate(values)
    except ValidationError as error:
        raise ExperimentError(explain(error, CandidateFile, source, place)) from error
    entry = CandidateEntry.model_validate({k: v for k, v in values.items() if k in _ENTRY_FIELDS})
    stated = {k: v for k, v in values.items() if k not in _ENTRY_FIELDS}
    for section in SECTIONS.keys() & stated.keys():
        stated[section] = _over(getattr(training, section), stated[section])
    resolved = Training.model_validate({**training.model_dump(), **stated})
    if resolved.weights not in ("none", "imagenet"):
        resolved = resolved.model_copy(
            update={"weights": absolute(resolved.weights, folder, source)}
        )
    if problem := contradiction(resolved):
        raise ExperimentError(printable(f"{place}: {problem} ({source}: {place})"))
    size = _image_size(entry, source, place)
    if problem := zoo.contradiction(entry.model, resolved):
        raise ExperimentError(printable(f"{place}: {problem} ({source}: {place})"))
    name = _readable_name(choice)
    return Candidate(
        id=_slug(name),
        name=name,
        model=entry.model,
        image_size=size,
        arguments=entry.arguments,
        training=resolved,
    )


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
        raise ExperimentError(
            f"{place}.image_size is missing: a builder has no size of its own ({source}: {place})"
        )
    if known and size < known.smallest:
        raise ExperimentError(
            f"{place}.image_size must be at least {known.smallest} for {entry.model}, got {size} "
            f"({source}: {place}.image_size)"
        )
    if known and entry.arguments:
        raise ExperimentError(
            printable(
                f"{place}.arguments are for builders of your own, {entry.model} takes none, got "
                f"{shown(entry.arguments)} ({source}: {place}.arguments); remove them"
            )
        )
    return size


def _readable_name(choice: Choice) -> str:
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
                shown = Path(each).name if key == "weights" else each
                settings.append(f"{_shown_key(key, name)}={shown}")
    if stated is not None and ("model",) in choice.varied:
        settings.insert(0, choice.values["model"])
    name = printable(" ".join([stated or choice.values["model"], *settings]))
    return (
        name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 10]}… {digest(name, 8)}"
    )


def _shown_key(key: str, inner: str | None) -> str:
    """What a value is called in a name."""
    if inner is None or inner == "kind":
        return key
    return inner if key in ("augmentation", "arguments") else f"{key}.{inner}"


def _slug(name: str) -> str:
    """The name as a file name; where that loses letters or is too long, a digest tells it from
    others.
    """
    slug = re.sub(r"[^a-z0-9._]+", "-", name.lower()).strip("-.")
    lossy = "[[" in name or is_file_name(slug)  # where a list ends in a list
    slug = slug.replace(".", "_") if is_file_name(slug) else slug
    if name.isascii() and slug and len(slug) <= _LONGEST_ID and not lossy:
        return slug
    return f"{slug[: _LONGEST_ID - 9] or 'candidate'}-{digest(name, 8)}"


def _check_unique(candidates: list[Candidate], source: str) -> None:
    contents: dict[str, Candidate] = {}
    ids: dict[str, Candidate] = {}
    for candidate in candidates:
        content = digest(candidate.deciding())
        twin = contents.setdefault(content, candidate)
        if twin is not candidate:
            raise ExperimentError(
                f"candidates {twin.name!r} and {candidate.name!r} are the same, they would train "
                f"identically: remove one ({source}: candidates)"
            )
        namesake = ids.setdefault(candidate.id, candidate)
        if namesake is not candidate:
            raise ExperimentError(
                f"candidates {namesake.name!r} and {candidate.name!r} would both be filed as "
                f"{candidate.id!r}: give each a name of its own ({source}: candidates)"
            )


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
