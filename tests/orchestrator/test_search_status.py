"""What `rayfold status` and `rayfold plan` say of a search."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from orchestrator.cli.entry import app
from orchestrator.execution.cells import Prepared
from orchestrator.execution.plan import plan_lines
from orchestrator.execution.search_plan import cell_range
from orchestrator.execution.searching import SearchedCells
from orchestrator.experiment.experiment_file import parse_experiment
from orchestrator.results.run import load_run
from tests.orchestrator.execution.test_searching import prepared, work


@pytest.fixture(scope="module")
def halfway(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """A search of 10 candidates × 4 folds after 12 cells; each cell took 15 s."""
    made = prepared(tmp_path_factory.mktemp("search"))
    work(SearchedCells(made), made.folds, most=12)
    return made


def test_status_says_who_leads_what_it_took_and_what_is_left(halfway: Prepared) -> None:
    root = halfway.layout.root
    lines = CliRunner().invoke(app, ["status", str(root)]).stdout.splitlines()
    run = load_run(root)
    (leader,) = run.search.loc[run.search["state"] == "leads", "candidate"]
    first = next(line for line in lines if line.startswith("leads"))
    assert first.startswith(f"leads    {leader}: 0.")
    assert lines.index(first) == 2
    done = run.cells[run.cells["state"] == "done"]
    took = f"run      {len(done)} cells, {done['epochs'].sum()} epochs"
    assert any(line.startswith(took) for line in lines)
    saved = (run.cells["state"] == "stopped").sum()
    assert any(line.startswith(f"saved    {saved} cells") for line in lines)
    assert any(line.startswith("to go    about ") and "at most" in line for line in lines)
    assert max(map(len, lines)) <= 100
    assert not any(line.startswith("missing") for line in lines)  # nobody misses what may come


def test_programs_read_the_same(halfway: Prepared) -> None:
    root = halfway.layout.root
    told = json.loads(CliRunner().invoke(app, ["status", "--json", str(root)]).stdout)["race"]
    run = load_run(root)
    assert run.searched is not None
    leads = run.search[run.search["state"] == "leads"]
    assert (told["leader"], told["ended"]) == (leads["candidate"].item(), None)
    assert told["expected"] == pytest.approx(leads["estimate"].item())
    assert told["candidates"] == run.search["state"].value_counts().to_dict()
    assert told["effort"]["run"]["cells"] == (run.cells["state"] == "done").sum()
    assert told["risk"]["stopped"] == told["candidates"]["stopped"]
    left = told["to_go"]
    assert 0 < left["cells_about"] <= left["cells_most"] < 40
    hours = run.cells.loc[run.cells["state"] == "done", "seconds_total"].mean() / 3600
    assert left["hours_most"] == pytest.approx(left["cells_most"] * hours)


def test_an_ended_search_has_nothing_to_go(tmp_path: Path) -> None:
    made = prepared(tmp_path, candidates=3)
    work(SearchedCells(made), made.folds)
    root = str(made.layout.root)
    assert "to go" not in CliRunner().invoke(app, ["status", root]).stdout
    told = json.loads(CliRunner().invoke(app, ["status", "--json", root]).stdout)["race"]
    assert told["to_go"] is None
    assert told["ended"]


# --- plan -----------------------------------------------------------------------------------------


def test_plan_estimates_the_whole_search(halfway: Prepared) -> None:
    lines = plan_lines(halfway)
    said = "at most 40 cells of 10 candidates × 4 folds × 1 seeds; 13 if racing stops all others"
    assert any(said in line for line in lines)
    (estimate,) = (line for line in lines if line.startswith("estimate"))
    assert " to " in estimate


@pytest.mark.parametrize(
    ("search", "candidate", "cells"),
    [
        ("candidates: 20", "optimizer: {choice: [adam, sgd]}", (24, 100)),
        ("{candidates: 20, racing: 'off'}", "optimizer: {choice: [adam, sgd]}", (100, 100)),
        ("{candidates: 20, cells: 60}", "optimizer: {choice: [adam, sgd]}", (24, 60)),
        ("cells: 60", "optimizer: {choice: [adam, sgd]}", (60, 60)),
        ("hours: 2", "optimizer: {choice: [adam, sgd]}", (5, None)),
        ("sampler: grid", "{optimizer: {choice: [adam, sgd]}, batch_size: {choice: [8, 16, 32]}}", (10, 30)),
        ("racing: paired", "optimizer: [adam, sgd]", (6, 10)),
    ],
)  # fmt: skip
def test_the_number_of_cells_follows_from_the_budgets(
    search: str, candidate: str, cells: tuple[int, int | None]
) -> None:
    def braced(text: str) -> str:
        return text if text.startswith("{") else f"{{{text}}}"

    text = f"""
name: planned
data: {{source: folder, path: images}}
folds: {{k: 5}}
search: {braced(search)}
candidates:
- {braced(candidate).replace("{", "{model: TinyCNN, ", 1)}
"""
    experiment = parse_experiment(text, "planned.yaml", Path("/"))
    assert cell_range(experiment) == cells
