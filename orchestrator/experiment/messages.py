"""What is wrong with an experiment file, in one line: the rule, the value, where it stands, the
remedy.
"""

from collections.abc import Collection
from types import NoneType
from typing import Any, get_args, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from orchestrator.experiment import yaml_text
from trainables.core.errors import nearest
from trainables.core.quoting import printable
from trainables.core.values import Frozen

_RULES = {
    "greater_than_equal": "must be at least {ge}",
    "greater_than": "must be above {gt}",
    "less_than_equal": "must be at most {le}",
    "less_than": "must be below {lt}",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "string_type": "must be text",
    "string_unicode": "must be text without broken characters",
    "string_too_short": "must have at least {min_length} character",
    "string_too_long": "must have at most {max_length} characters",
    "string_pattern_mismatch": "must match {pattern}",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "dict_type": "must be a mapping",
    "model_type": "must be a mapping",
    "model_attributes_type": "must be a mapping",
    "invalid_key": "must be text: write the key in quotes",
    "literal_error": "must be {expected}",
    "too_short": "must have at least {min_length} entry",
}
_SHOWN = 80  # characters of a value


def explain(
    error: ValidationError, model: type[Frozen], source: str, place: str = "", text: str = ""
) -> str:
    """The first problem of a validation error; `source` names the file, `place` what `model` stands
    for in it.

    `text` is the file itself, where `model` stands for the whole of it: values are then shown as
    they are written. A key that does not exist comes before one that is missing: it usually is the
    same one, misspelt.
    """
    problems: list[Any] = error.errors(include_url=False)
    problem = next((p for p in problems if p["type"] == "extra_forbidden"), problems[0])
    path, parent = _walk(model, problem["loc"])
    where = _dotted(path, place)
    if problem["type"].startswith("union_tag"):
        path = [*path, "source"]
        where = _dotted(path, place)
    if problem["type"] == "extra_forbidden":
        what = f"unknown key {where}, {nearest(str(path[-1]), _fields(parent))}"
    elif problem["type"] == "missing":
        what = f"{where} is missing"
    elif problem["type"] == "union_tag_not_found":
        what = f"{where} is missing: it says where the images come from"
    elif problem["type"] == "union_tag_invalid":
        what = (
            f"{where} must be one of {problem['ctx']['expected_tags']}, got "
            f"{shown(problem['input']['source'])}"
        )
    else:
        # A union reports one problem for each of its branches, all at the same place.
        rules = [_rule(p) for p in problems if _walk(model, p["loc"])[0] == path]
        what = f"{where} {_either(rules)}{_as_written(problem, text, path)}"
    return printable(f"{what} ({source}: {where})")


def misplaced(content: Any, keys: Collection[str], source: str) -> str | None:
    """What is wrong where a distribution stands and only a constant may; None where none does.

    `content`: a whole experiment file that is not valid; `keys`: those of distributions.
    """
    waiting = [([key], value) for key, value in content.items() if key != "candidates"]
    for path, value in waiting:
        if isinstance(value, dict):
            if value.keys() <= set(keys) and any(isinstance(each, list) for each in value.values()):
                where = _dotted(path, "")
                return printable(
                    f"{where} must be a constant, got {shown(value)} ({source}: {where}); only "
                    "settings of candidates can be searched"
                )
            waiting += [([*path, key], inner) for key, inner in value.items()]
        elif isinstance(value, list):
            waiting += [([*path, number], inner) for number, inner in enumerate(value)]
    return None


def _as_written(problem: Any, text: str, path: list[Any]) -> str:
    """The value that breaks a rule; where text is wanted, as it is written in the file, with the
    remedy.
    """
    value, written = problem["input"], yaml_text.written(text, path)
    if problem["type"] == "string_type" and (written or isinstance(value, bool | int | float)):
        value = written or shown(value)
        return f": write it in quotes, {value!r}, got {value}"
    return f", got {shown(value)}"


def shown(value: Any) -> str:
    """A value as it is quoted in an error."""
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _rule(problem: Any) -> str:
    rule = _RULES.get(problem["type"])
    if rule is None:
        return str(problem["msg"]).removeprefix("Value error, ").lower()
    return rule.format(**problem.get("ctx", {}))


def _either(rules: list[str]) -> str:
    first, *others = dict.fromkeys(rules)
    return " or ".join([first, *(rule.removeprefix("must be ") for rule in others)])


def _walk(model: type[Frozen], location: tuple[Any, ...]) -> tuple[list[Any], Any]:
    """The keys and indices of a pydantic location without the names of union branches, and what
    holds the last.
    """
    path: list[Any] = []
    current: Any = model
    parent: Any = model
    for part in location:
        if hasattr(current, "model_fields"):
            path.append(part)
            parent = current
            field = _fields(current).get(part)
            current = _stated(field.annotation) if field is not None else None
        elif isinstance(part, int) or _is_mapping(current):
            if part != "[key]":
                path.append(part)
            current = (get_args(current) or (None,))[-1]
        else:
            current = _branch(current, part)
    return path, parent


def _fields(model: type[Frozen]) -> dict[Any, FieldInfo]:
    """By what a file calls them."""
    return {field.alias or name: field for name, field in model.model_fields.items()}


def _stated(annotation: Any) -> Any:
    """What a field holds where it is not null."""
    choices = [each for each in get_args(annotation) if each is not NoneType]
    optional = len(get_args(annotation)) == 2 and len(choices) == 1
    return choices[0] if optional else annotation


def _is_mapping(annotation: Any) -> bool:
    return get_origin(annotation) is dict


def _branch(union: Any, tag: Any) -> Any:
    """The model of a union whose `source` is `tag`."""
    for choice in get_args(union):
        fields = getattr(choice, "model_fields", {})
        if "source" in fields and get_args(fields["source"].annotation) == (tag,):
            return choice
    return None


def _dotted(path: list[Any], place: str) -> str:
    parts = [place] if place else []
    for part in path:
        if isinstance(part, int) and parts:
            parts[-1] += f"[{part}]"
        else:
            parts.append(str(part))
    return printable(".".join(parts))
