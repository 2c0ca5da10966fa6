"""The experiment file: YAML in, one frozen `Experiment` out, or one line that says what is wrong.

A candidate may override any training field; a list of values makes a grid. `Experiment.to_yaml` writes the resolved
form, which is again an experiment file. This module knows neither Ray nor TensorFlow.
"""

import difflib
import itertools
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, TypeAdapter, ValidationError, create_model

from trainables import zoo
from trainables.config import Candidate, DataConfig, Frozen, Scalar, Training, digest
from trainables.errors import ExperimentError, ModelError


class Folds(Frozen):
    """How the images are divided."""

    k: int = Field(5, ge=2, le=100, description="Number of outer folds.")
    test_set: float | Literal["given"] = Field(
        0.1, description="Fraction of all images that is held out first, or 'given': the images whose split is test."
    )
    validation_fraction: float = Field(
        0.1, ge=0.05, le=0.5, description="Fraction of each fold's training part kept for early stopping."
    )
    seed: int = Field(0, ge=0, description="Seed of the draw.")


class Resources(Frozen):
    """What one cell gets, and how often it may be tried."""

    gpus_per_cell: float | Literal["auto"] = Field(
        "auto", description="GPUs of one cell, fractions share one; auto: one where the cluster has any, else none."
    )
    cpus_per_cell: int | Literal["auto"] = Field(
        "auto", description="CPU cores of one cell; auto: one, or with GPUs an equal share per GPU."
    )
    retries: int = Field(1, ge=0, description="How often a cell that failed is tried again in the same run.")


class CandidateEntry(Frozen):
    """A candidate as the file states it; training fields that are absent come from the training section."""

    model: str = Field(description="A name of the model zoo, or 'package.module:builder'.")
    name: str | None = Field(None, min_length=1, max_length=120, description="What people read.")
    image_size: int | None = Field(
        None, ge=8, le=4096, description="Edge of the input in pixels; default: the model's."
    )
    arguments: dict[str, Scalar] = Field(default_factory=dict, description="Keyword arguments of a builder.")


CandidateFile = create_model(
    "CandidateFile",
    __base__=CandidateEntry,
    **{name: (field.annotation, field) for name, field in Training.model_fields.items()},  # type: ignore[call-overload]
)
_ENTRY_FIELDS = tuple(CandidateEntry.model_fields)


class ExperimentFile(Frozen):
    """Everything but the candidates, which are a grid until it is unfolded."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=80, description="Also the run folder's name.")
    data: DataConfig
    folds: Folds = Folds()
    training: Training = Training()
    candidates: list[dict[str, Any]] = Field(min_length=1)
    seeds: tuple[int, ...] = Field((0,), min_length=1, description="Every candidate and fold is trained once per seed.")
    resources: Resources = Resources()


class Experiment(Frozen):
    """A resolved experiment: every candidate complete, every path absolute."""

    name: str
    data: DataConfig
    folds: Folds
    candidates: tuple[Candidate, ...]
    seeds: tuple[int, ...]
    resources: Resources
    folder: Path = Field(description="Where relative paths and the user's own model builders are looked for.")

    @property
    def hash(self) -> str:
        return digest(self.model_dump(mode="json", exclude={"folder", "resources"}))

    def to_yaml(self) -> str:
        """The resolved form as an experiment file that gives this experiment again."""
        content = self.model_dump(mode="json", exclude={"candidates", "folder"})
        content["candidates"] = [
            {
                **candidate.model_dump(mode="json", exclude={"id", "training"}),
                **candidate.training.model_dump(mode="json"),
            }
            for candidate in self.candidates
        ]
        return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=100)


def read_experiment(path: Path) -> Experiment:
    """Read and resolve an experiment file; raises ExperimentError with one line."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ExperimentError(f"cannot read the experiment file {str(path)!r}: {_reason(error)}") from error
    return parse_experiment(text, path.name, path.absolute().parent)


def parse_experiment(text: str, source: str, folder: Path) -> Experiment:
    """Resolve the text of an experiment file; `source` names it in errors, relative paths start at `folder`."""
    try:
        content = yaml.load(text, Loader=_UniqueKeyLoader)  # a SafeLoader
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ExperimentError(f"not valid YAML: {problem} ({source}{line})") from error
    if not isinstance(content, dict):
        raise ExperimentError(f"an experiment file is a mapping with name, data and candidates ({source})")
    try:
        file = ExperimentFile.model_validate(content)
        _check_ranges(file)
    except ValidationError as error:
        raise ExperimentError(explain(error, ExperimentFile, source)) from error
    except ValueError as error:
        raise ExperimentError(f"{error} ({source})") from error
    candidates = []
    for index, raw in enumerate(file.candidates):
        for values in unfold(raw):
            candidates.append(_resolve(values, file.training, folder, source, index))
    _check_unique(candidates, source)
    data = file.data
    if (stated := getattr(data, "path", None)) is not None:
        data = data.model_copy(update={"path": str(folder / Path(stated).expanduser())})
    return Experiment(
        name=file.name,
        data=data,
        folds=file.folds,
        candidates=tuple(candidates),
        seeds=file.seeds,
        resources=file.resources,
        folder=folder,
    )


def unfold(raw: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The grid of one candidate: every combination of the listed values, in the order in which they are written."""
    places: list[tuple[tuple[str, ...], list[Any]]] = []
    for key, value in raw.items():
        if isinstance(value, list):
            places.append(((key,), value))
        elif isinstance(value, dict):
            places += [((key, inner), choice) for inner, choice in value.items() if isinstance(choice, list)]
    for combination in itertools.product(*(choices for _, choices in places)):
        values = {key: dict(value) if isinstance(value, dict) else value for key, value in raw.items()}
        for (place, _), choice in zip(places, combination, strict=True):
            target = values
            for key in place[:-1]:
                target = target[key]
            target[place[-1]] = choice
        yield values


def _resolve(values: dict[str, Any], training: Training, folder: Path, source: str, index: int) -> Candidate:
    place = f"candidates[{index}]"
    try:
        merged = {**training.model_dump(), **{k: v for k, v in values.items() if k not in _ENTRY_FIELDS}}
        if isinstance(own := values.get("augmentation"), dict):
            merged["augmentation"] = {**training.augmentation.model_dump(), **own}
        CandidateFile.model_validate(values)  # names unknown keys by the place where the user wrote them
        entry = CandidateEntry.model_validate({k: v for k, v in values.items() if k in _ENTRY_FIELDS})
        resolved = Training.model_validate(merged)
    except ValidationError as error:
        raise ExperimentError(explain(error, CandidateFile, source, place)) from error
    try:
        zoo.check_model_name(entry.model)
    except ModelError as error:
        raise ExperimentError(f"{error} ({source}: {place}.model)") from error
    size = entry.image_size or zoo.default_image_size(entry.model)
    if size is None:
        raise ExperimentError(f"{place}.image_size is missing: a builder has no size of its own ({source}: {place})")
    if resolved.weights not in ("none", "imagenet"):
        weights = folder / Path(resolved.weights).expanduser()
        if not weights.is_file():
            raise ExperimentError(
                f"weights must be none, imagenet or an existing file, got {resolved.weights!r} ({source}: {place}.weights)"
            )
        resolved = resolved.model_copy(update={"weights": str(weights)})
    name = entry.name or _readable_name(values)
    return Candidate(
        id=_slug(name), name=name, model=entry.model, image_size=size, arguments=entry.arguments, training=resolved
    )


def _readable_name(values: Mapping[str, Any]) -> str:
    """The model and what the file says about this candidate alone."""
    stated = []
    for key, value in values.items():
        if key in ("model", "name"):
            continue
        if isinstance(value, dict):
            stated += [f"{inner}={choice}" for inner, choice in value.items()]
        else:
            stated.append(f"{key}={Path(value).name if key == 'weights' else value}")
    return " ".join([str(values["model"]), *stated])


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9._]+", "-", name.lower()).strip("-.") or "candidate"


def _check_unique(candidates: list[Candidate], source: str) -> None:
    identity, count = Counter(candidate.id for candidate in candidates).most_common(1)[0]
    if count > 1:
        raise ExperimentError(
            f"{count} candidates are called {identity!r}: give each a name of its own ({source}: candidates)"
        )
    seen: dict[str, str] = {}
    for candidate in candidates:
        content = digest(candidate.model_dump(mode="json", exclude={"id", "name"}))
        if content in seen:
            raise ExperimentError(
                f"candidates {seen[content]!r} and {candidate.name!r} are the same: remove one ({source}: candidates)"
            )
        seen[content] = candidate.name


def _check_ranges(file: ExperimentFile) -> None:
    """Rules that a type cannot state."""
    test_set, resources = file.folds.test_set, file.resources
    if test_set != "given" and not 0.05 <= test_set <= 0.5:
        raise ValueError(f"folds.test_set must be 'given' or a fraction from 0.05 to 0.5, got {test_set}")
    if len(set(file.seeds)) < len(file.seeds) or min(file.seeds) < 0:
        raise ValueError(f"seeds must be different whole numbers from 0 on, got {list(file.seeds)}")
    if resources.gpus_per_cell != "auto" and not (
        0 <= resources.gpus_per_cell <= 1 or resources.gpus_per_cell % 1 == 0
    ):
        raise ValueError(
            f"resources.gpus_per_cell must be auto, a fraction up to 1 or a whole number, got {resources.gpus_per_cell}"
        )
    if resources.gpus_per_cell != "auto" and resources.gpus_per_cell < 0:
        raise ValueError(f"resources.gpus_per_cell must be at least 0, got {resources.gpus_per_cell}")
    if resources.cpus_per_cell != "auto" and resources.cpus_per_cell < 1:
        raise ValueError(f"resources.cpus_per_cell must be auto or at least 1, got {resources.cpus_per_cell}")
    classes = file.data.classes
    if classes is not None and (len(classes) < 2 or len(set(classes)) < len(classes)):
        raise ValueError(f"data.classes must name at least 2 different classes, got {list(classes)}")


# --- errors in one line ---------------------------------------------------------------------------------------------

_RULES = {
    "greater_than_equal": "must be at least {ge}",
    "greater_than": "must be above {gt}",
    "less_than_equal": "must be at most {le}",
    "less_than": "must be below {lt}",
    "int_parsing": "must be a whole number",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "finite_number": "must be finite",
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "string_type": "must be text",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "dict_type": "must be a mapping",
    "model_type": "must be a mapping of settings",
    "model_attributes_type": "must be a mapping of settings",
    "literal_error": "must be one of {expected}",
    "union_tag_invalid": "must be one of {expected_tags}",
    "too_short": "must have at least {min_length} entry",
    "string_pattern_mismatch": "must match {pattern}",
}


def explain(error: ValidationError, model: type[Frozen], source: str, place: str = "") -> str:
    """The first problem of a validation error in one line: rule, value, place, remedy."""
    problems = error.errors(include_url=False)
    # A union reports each of its branches; the deepest and plainest is the most useful.
    problem = problems[0]
    location = [part for part in problem["loc"] if part not in _TAGS]
    where = _dotted(location, place)
    kind, value = problem["type"], problem.get("input")
    if kind == "missing":
        text = f"{where} is missing"
    elif kind == "extra_forbidden":
        close = difflib.get_close_matches(
            str(location[-1]), _known_keys(model, location[:-1], problem["loc"]), n=1, cutoff=0.5
        )
        text = f"unknown key {where}" + (f", did you mean {close[0]!r}?" if close else "")
    elif kind == "union_tag_not_found":
        text = f"{_dotted([*location, 'source'], place)} is missing"
    else:
        rule = _RULES.get(kind)
        said = rule.format(**problem.get("ctx", {})) if rule else problem["msg"].lower().removeprefix("value error, ")
        others = {
            _RULES.get(p["type"], "").format(**p.get("ctx", {}))
            for p in problems
            if p["loc"][: len(location)] == tuple(location)
        }
        said = " or ".join([said, *sorted(o.removeprefix("must be ") for o in others - {said} if o)])
        text = f"{where} {said}, got {value!r}"
    return f"{text} ({source}: {where})".replace("\n", "\\n")


_TAGS = frozenset(
    {"folder", "table", "covid_qu_ex", "phantom", "int", "float", "str", "bool", "literal['auto']", "literal['given']"}
)


def _dotted(location: list[Any], place: str) -> str:
    parts = [place] if place else []
    for part in location:
        if isinstance(part, int) and parts:
            parts[-1] += f"[{part}]"
        else:
            parts.append(str(part))
    return ".".join(parts).replace("\n", "\\n")


def _known_keys(model: type[Frozen], location: list[Any], raw_location: tuple[Any, ...]) -> list[str]:
    """The valid keys beside an unknown one."""
    current: Any = model
    for part in location:
        current = current.model_fields[part].annotation if hasattr(current, "model_fields") else None
    if hasattr(current, "model_fields"):
        return list(current.model_fields)
    adapter = TypeAdapter(DataConfig).json_schema()
    for definition in adapter["$defs"].values():
        if definition["properties"].get("source", {}).get("const") in raw_location:
            return list(definition["properties"])
    return []


def _reason(error: Exception) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else "it is not UTF-8 text"


class _UniqueKeyLoader(yaml.SafeLoader):
    """SafeLoader that refuses a key that stands twice, where YAML's own would silently take the last."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for position, key in enumerate(keys):
            if key in keys[:position]:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} stands twice", node.value[position][0].start_mark
                )
        return super().construct_mapping(node, deep)


def json_schema() -> dict[str, Any]:
    """JSON Schema of the experiment file, for editors."""
    schema = ExperimentFile.model_json_schema()
    candidate = CandidateFile.model_json_schema(ref_template="#/$defs/{model}")
    schema["$defs"].update(candidate.pop("$defs", {}))
    for name, field in candidate["properties"].items():
        if name not in ("model", "name", "augmentation", "arguments"):
            described = {"description": field.pop("description", "")}
            candidate["properties"][name] = {**described, "anyOf": [field, {"type": "array", "items": field}]}
    schema["properties"]["candidates"]["items"] = candidate
    schema["title"] = "rayfold experiment"
    return schema
