"""The command line as a whole: its list of commands, its version, what programs read."""

import json
from importlib.metadata import version
from pathlib import Path

import pytest
import typer

from orchestrator.cli import entry
from orchestrator.results.run import load_run
from tests.conftest import Command, rayfold
from tests.orchestrator.results.test_run import run_by_hand


def test_it_says_its_version() -> None:
    done = rayfold("--version")
    assert (done.returncode, done.stdout) == (0, f"rayfold {version('rayfold')}\n")


def test_every_command_that_is_listed_has_its_module_and_its_help() -> None:
    listed = rayfold("--help").stdout
    for name, command in entry._COMMANDS.items():
        assert f" {name} " in listed
        loaded = entry._loaded(name)
        assert loaded.name == name
        assert loaded.help == command.help


@pytest.mark.parametrize("name", ["plan", "explain", "status"])
def test_the_help_of_a_command_is_that_of_its_module(name: str) -> None:
    done = rayfold(name, "--help")
    assert done.returncode == 0
    assert f"rayfold {name} " in done.stdout or f"orchestrator {name} " in done.stdout
    assert "--help" in done.stdout


def test_a_program_reads_the_status(command: Command, tmp_path: Path) -> None:
    folder = run_by_hand(tmp_path)
    code, printed, error = command("status", "--json", folder)
    assert code == 0, error
    said = json.loads(printed)
    run = load_run(folder)
    assert said["name"] == run.name
    assert said["at_work"] == []
    assert said["images"] == run.folds["image"].nunique()
    assert [cell["key"] for cell in said["cells"]] == list(run.cells["key"])
    assert {cell["state"] for cell in said["cells"]} == set(run.cells["state"])
    assert (
        None in {cell["best_epoch"] for cell in said["cells"]}
        or run.cells["best_epoch"].notna().all()
    )


def test_completion_can_be_installed() -> None:
    assert typer.main.get_command(entry.app).params[0].name == "version"
    assert "--install-completion" in rayfold("--help").stdout
