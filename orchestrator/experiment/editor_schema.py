"""The experiment file as editors know it: its keys, values and descriptions as JSON Schema."""

from collections.abc import Mapping
from typing import Any

from orchestrator.experiment.candidates import CandidateFile
from orchestrator.experiment.distributions import KINDS, Distribution
from orchestrator.experiment.experiment_file import ExperimentFile
from trainables.core.training_config import SECTIONS


def json_schema() -> dict[str, Any]:
    """JSON Schema of the experiment file."""
    schema = ExperimentFile.model_json_schema()
    candidate = CandidateFile.model_json_schema(ref_template="#/$defs/{model}")
    distribution = Distribution.model_json_schema(ref_template="#/$defs/{model}")
    distribution["oneOf"] = [{"required": [kind]} for kind in KINDS]
    for part in (candidate, distribution):
        schema["$defs"].update(part.pop("$defs", {}))
    schema["$defs"]["Distribution"] = distribution
    properties = candidate["properties"]
    for name, section in SECTIONS.items():
        inner = section.model_json_schema()
        properties[name] = {**inner, "properties": _searched(inner["properties"])}
    arguments = properties["arguments"]
    properties["arguments"] = {
        **arguments,
        **_searched({"additionalProperties": arguments["additionalProperties"]}),
    }
    constant = {name: properties.pop(name) for name in ("name", "arguments", *SECTIONS)}
    candidate["properties"] = _searched(properties) | {
        name: _or(field, _listed(field)) for name, field in constant.items()
    }
    schema["properties"]["candidates"]["items"] = candidate
    schema["title"] = "rayfold experiment"
    return schema


def _searched(properties: Mapping[str, Any]) -> dict[str, Any]:
    """The same properties, each of which may also be a list of values or a distribution."""
    distribution = {"$ref": "#/$defs/Distribution"}
    return {name: _or(field, _listed(field), distribution) for name, field in properties.items()}


def _listed(field: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": field, "minItems": 1}


def _or(field: Mapping[str, Any], *others: Mapping[str, Any]) -> dict[str, Any]:
    return {"description": field.get("description", ""), "anyOf": [field, *others]}
