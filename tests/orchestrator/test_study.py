"""`rayfold study` as a user calls it, and the real optuna-dashboard on what it writes."""

import json
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from orchestrator.execution.searching import SearchedCells
from orchestrator.results.run import load_run
from tests.conftest import rayfold
from tests.orchestrator.execution.test_searching import prepared, work


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = prepared(tmp_path_factory.mktemp("searched"), candidates=6)
    work(SearchedCells(made), made.folds)
    return made.layout.root


@pytest.fixture(scope="module")
def study(searched: Path) -> Path:
    path = searched.parent / "study.db"
    done = rayfold("study", searched, "--storage", f"sqlite:///{path}")
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert done.stdout == f"wrote 6 trials into the study 'by-hand' in sqlite:///{path}\n"
    return path


def test_a_name_that_exists_is_refused_and_nothing_is_written(searched: Path, study: Path) -> None:
    again = rayfold("study", searched, "--storage", f"sqlite:///{study}")
    assert again.returncode == 2
    assert again.stderr.count("\n") == 1
    assert "there is a study 'by-hand'" in again.stderr
    with sqlite3.connect(study) as file:
        assert file.execute("select count(*) from trials").fetchone() == (6,)


def answer(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=10) as response:
        return json.load(response)


@pytest.mark.skipif(find_spec("optuna_dashboard") is None, reason="optuna-dashboard is missing")
def test_optuna_dashboard_opens_it(searched: Path, study: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    start = "import sys; from optuna_dashboard._cli import main; sys.exit(main())"
    command = [sys.executable, "-c", start, f"sqlite:///{study}", "--port", str(port)]
    process = subprocess.Popen([*command, "--host", "127.0.0.1"], stderr=subprocess.DEVNULL)
    try:
        base, until = f"http://127.0.0.1:{port}/api/studies", time.monotonic() + 120
        while True:
            try:
                (listed,) = answer(base)["study_summaries"]
                break
            except urllib.error.URLError:
                assert process.poll() is None
                assert time.monotonic() < until
                time.sleep(0.2)
        detail = answer(f"{base}/{listed['study_id']}")
    finally:
        process.terminate()
        process.wait()
    assert (listed["study_name"], listed["directions"]) == ("by-hand", ["maximize"])
    run = load_run(searched)
    assert len(detail["trials"]) == len(run.search)
    for trial, row in zip(detail["trials"], run.search.itertuples(), strict=True):
        told = {each["key"]: each["value"] for each in trial["user_attrs"]}
        assert told["candidate"] == row.candidate
        assert trial["state"] == ("Pruned" if row.state == "stopped" else "Complete")
        (parameter,) = trial["params"]
        assert parameter["param_internal_value"] == pytest.approx(row.learning_rate)
        assert float(trial["values"][0]) == pytest.approx(row.estimate)
