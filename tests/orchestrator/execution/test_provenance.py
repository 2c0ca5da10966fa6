"""A run says where it comes from, and keeps saying it when it is continued."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.execution.cells import Prepared, prepare
from orchestrator.execution.provenance import write_provenance
from orchestrator.experiment.experiment_file import parse_experiment
from trainables.core.layout import RunLayout
from trainables.runtime.startup import NUMERIC_VARIABLES

EXPERIMENT = """
name: study
data: {{source: folder, path: {path!r}, seed: 5}}
folds: {{k: 3, seed: 6}}
candidates: [{{model: TinyCNN}}]
seeds: [7, 8]
"""
CLUSTER = [{"host": "node1", "cpus": 4.0, "gpus": 1.0}]


@pytest.fixture
def prepared(tmp_path: Path, spots: Path) -> Prepared:
    folder = tmp_path / "study 'x'"
    folder.mkdir()
    experiment = parse_experiment(EXPERIMENT.format(path=str(spots)), "study.yaml", folder)
    return prepare(experiment, RunLayout(tmp_path / "run"))


def written(prepared: Prepared) -> dict[str, object]:
    write_provenance(prepared, CLUSTER)
    return dict(json.loads(prepared.layout.provenance.read_text("utf-8")))


def git(folder: Path, *arguments: str) -> str:
    identity = {
        "GIT_AUTHOR_NAME": "a",
        "GIT_AUTHOR_EMAIL": "a@b",
        "GIT_COMMITTER_NAME": "a",
        "GIT_COMMITTER_EMAIL": "a@b",
    }
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments],
        env=os.environ | identity,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def test_what_was_computed(prepared: Prepared) -> None:
    found = written(prepared)
    assert found["experiment_hash"] == prepared.experiment.hash
    assert found["data_hash"] == prepared.manifest.data_hash
    assert found["seeds"] == {"cells": [7, 8], "folds": 6, "data": 5}


def test_by_what_where_and_how(prepared: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    odd = os.fsdecode(b"caf\xe9 'x'\n.yaml")
    monkeypatch.setattr(sys, "argv", ["rayfold", "run", odd])
    (invocation,) = written(prepared)["invocations"]
    assert invocation["command_line"] == ["rayfold", "run", odd]
    assert invocation["working_directory"] == str(Path.cwd())
    assert invocation["cluster"] == CLUSTER
    assert invocation["python"] == ".".join(map(str, sys.version_info[:3]))
    assert {"rayfold", "tensorflow", "keras", "ray", "numpy"} <= set(invocation["packages"])
    assert invocation["host"]
    assert invocation["user"]
    assert invocation["started"].endswith("+00:00")


def test_under_which_settings(prepared: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NUMERIC_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
    (invocation,) = written(prepared)["invocations"]
    assert invocation["environment"] == {"TF_ENABLE_ONEDNN_OPTS": "0"}


def test_an_invocation_adds_to_the_earlier_ones(prepared: Prepared) -> None:
    first = written(prepared)
    second = written(prepared)
    assert len(second["invocations"]) == 2
    assert second["invocations"][0] == first["invocations"][0]


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b"{}", b'{"invocations": ', b"\xff"])
def test_a_damaged_file_is_no_obstacle(prepared: Prepared, content: bytes) -> None:
    prepared.layout.provenance.parent.mkdir(parents=True)
    prepared.layout.provenance.write_bytes(content)
    assert len(written(prepared)["invocations"]) == 1


def test_a_user_without_a_name_has_a_number(
    prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 987654)
    (invocation,) = written(prepared)["invocations"]
    assert invocation["user"] == "987654"


def test_the_commit_of_the_experiment(prepared: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = prepared.experiment.folder
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(folder.parent))
    commits = [written(prepared)["invocations"][-1]["git_commit"]]
    git(folder, "init", "-q")
    commits.append(written(prepared)["invocations"][-1]["git_commit"])  # no commit yet
    (folder / "study.yaml").write_text("one", encoding="utf-8")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "first")
    git(folder, "tag", "-am", "a tag is no commit", "v1")
    commits.append(written(prepared)["invocations"][-1]["git_commit"])
    (folder / "study.yaml").write_text("two", encoding="utf-8")
    commits.append(written(prepared)["invocations"][-1]["git_commit"])
    head = git(folder, "rev-parse", "HEAD")
    assert commits == [None, None, head, f"{head}-dirty"]


def test_without_git_there_is_no_commit(
    prepared: Prepared, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert written(prepared)["invocations"][-1]["git_commit"] is None
