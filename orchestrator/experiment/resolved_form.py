"""Candidates and spaces as the resolved experiment file states them."""

from typing import Any

from orchestrator.experiment.candidates import as_grid
from orchestrator.experiment.search_space import Space, placed
from trainables.core.config import Candidate
from trainables.core.training_config import Training


def written_candidate(candidate: Candidate, base: Training | None) -> dict[str, Any]:
    """A candidate without distributions; `base`: the training section of the resolved file, where
    it has one.
    """
    training = candidate.training.used()
    if base is not None:
        stated = candidate.training.model_dump(mode="json")
        training = _changes(stated, base.model_dump(mode="json"))
    return {
        **candidate.model_dump(mode="json", exclude={"id", "training"}),
        "arguments": as_grid(candidate.arguments),
        **training,
    }


def _changes(stated: dict[str, Any], base: dict[str, Any]) -> dict[str, Any]:
    """The settings that are not those of `base`; of a section that is of another kind, all."""
    of_another_kind = any(stated.get(key) != base.get(key) for key in ("kind", "fit"))
    return {
        name: _changes(value, base[name]) if isinstance(value, dict) else value
        for name, value in stated.items()
        if of_another_kind or value != base[name]
    }


def written_space(space: Space) -> dict[str, Any]:
    """A candidate with its distributions; dollar signs in paths of conditions are doubled."""
    entry = dict(space.entry)
    if "arguments" in entry:
        entry["arguments"] = as_grid(entry["arguments"])
    distributions = {parameter.name: parameter.written() for parameter in space.parameters}
    for content in distributions.values():
        if "weights" in content.get("when", {}):
            content["when"]["weights"] = literally(content["when"]["weights"])
    return placed(entry, distributions)


def literally(value: Any) -> Any:
    """A path, a list of paths or a distribution of paths, so that their dollar signs stand for
    themselves.
    """
    if isinstance(value, str):
        return value.replace("$", "$$")
    if isinstance(value, list):
        return [literally(each) for each in value]
    if isinstance(value, dict):
        paths = value.keys() & {"choice", "default"}
        return {key: literally(each) if key in paths else each for key, each in value.items()}
    return value
