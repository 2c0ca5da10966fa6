"""Where results come from: code, packages, seeds, data, machine and command line, kept with the
run.
"""

import getpass
import json
import os
import platform
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from orchestrator.execution.cells import Prepared, folds_hash
from trainables.core.files import write_json
from trainables.core.records import DamagedRecord, read_text
from trainables.runtime.startup import NUMERIC_VARIABLES

_PACKAGES = (
    *("rayfold", "ray", "tensorflow", "keras", "numpy", "pandas", "scikit-learn", "scipy"),
    *("pyarrow", "pillow", "opencv-python-headless", "matplotlib", "pydantic"),
)


def write_provenance(prepared: Prepared, cluster: list[dict[str, Any]]) -> None:
    """Add this invocation to the run's `provenance.json`; `cluster`: the nodes with their
    resources.
    """
    path = prepared.layout.provenance
    earlier: list[Any] = []
    with suppress(
        FileNotFoundError, DamagedRecord, ValueError, KeyError, TypeError, RecursionError
    ):
        earlier = list(json.loads(read_text(path))["invocations"])
    experiment = prepared.experiment
    write_json(
        path,
        {
            "experiment_hash": experiment.hash,
            "data_hash": prepared.manifest.data_hash,
            "folds_hash": folds_hash(prepared.folds),
            "seeds": {
                "cells": list(experiment.seeds),
                "folds": experiment.folds.seed,
                "data": experiment.data.seed,
            },
            "invocations": [*earlier, _invocation(experiment.folder, cluster)],
        },
    )


def note_taken(prepared: Prepared, taken: Mapping[str, int]) -> None:
    """Write down how many cells come from which other runs; nothing where none do."""
    path = prepared.layout.provenance
    if not taken:
        return
    if not path.exists():  # there was nothing to train
        write_provenance(prepared, [])
    with suppress(FileNotFoundError, DamagedRecord, ValueError, RecursionError, TypeError):
        write_json(path, {**json.loads(read_text(path)), "taken": dict(taken)})


def _invocation(folder: Path, cluster: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command_line": sys.argv,
        "working_directory": str(Path.cwd()),
        "experiment_folder": str(folder),
        "user": _user(),
        "host": socket.gethostname(),
        "process": os.getpid(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: found for name in _PACKAGES if (found := _version(name))},
        "environment": {name: os.environ[name] for name in NUMERIC_VARIABLES if name in os.environ},
        "git_commit": _git_commit(folder),
        "cluster": cluster,
    }


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user id without a name, as in many containers
        return str(os.getuid())


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git_commit(folder: Path) -> str | None:
    """The commit of the experiment file's folder, with '-dirty' where files differ from it; None
    outside git.
    """
    try:
        command = [
            "git",
            "-C",
            str(folder),
            "describe",
            "--always",
            "--abbrev=40",
            "--dirty",
            "--exclude=*",
        ]
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() or None
