"""`rayfold init`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.common import say
from orchestrator.experiment.editor_schema import json_schema
from orchestrator.experiment.templates import text
from trainables.core.errors import ExperimentError
from trainables.core.files import write_text


def init(
    path: Annotated[Path, typer.Argument(help="File to write.")] = Path("experiment.yaml"),
) -> None:
    if path.exists():
        raise ExperimentError(
            f"{str(path)!r} exists already: choose another name, it is not overwritten"
        )
    schema = path.with_name("rayfold.schema.json")
    try:
        for_editors = f"# yaml-language-server: $schema={schema.name}\n"
        write_text(path, for_editors + text("experiment.yaml"))
        write_text(schema, json.dumps(json_schema(), indent=1) + "\n")
    except OSError as error:
        raise ExperimentError(f"cannot write {str(path)!r}: {error.strerror or error}") from error
    say(f"wrote {path} and {schema}; edit it, then: rayfold plan {path}")
