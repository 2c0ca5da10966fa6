"""What a report shows of a search: its race cell by cell, its lines through all parameters, and
sentences whose numbers are known.
"""

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest

from orchestrator.execution.searching import SearchedCells
from orchestrator.report import race_view as module
from orchestrator.report.facts import Facts, SearchFacts, gather
from orchestrator.report.findings import find
from orchestrator.report.page import write_report
from orchestrator.report.race_view import race_view
from orchestrator.report.space_figures import draw_importance, draw_parallel
from orchestrator.results.run import load_run
from orchestrator.results.search_effort import Effort, Work
from orchestrator.results.searched import Searched
from orchestrator.results.study import Importance
from tests.orchestrator.execution.test_searching import prepared, work
from tests.orchestrator.results.searches import search_by_hand


def facts_of(searched: Searched, name: str = "") -> SearchFacts:
    """What pictures ask for; `name`: that of all suggested candidates."""
    table = searched.table.sort_values("estimate", ascending=False, kind="stable")
    if name:
        table["name"] = name
    nothing = Work(0, 0, 0)
    settings = searched.experiment.search
    assert settings is not None
    return SearchFacts(
        searched=searched,
        settings=settings,
        table=table.reset_index(drop=True),
        decisions=searched.decisions,
        cells=table,
        history=searched.history,
        effort=Effort(nothing, nothing, nothing, nothing, nothing, "device-hours"),
        importance="",
        gain=None,
        reference="written",
        label="AUC",
    )


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Searched:
    return search_by_hand(tmp_path_factory.mktemp("search"), lost="s0004")


# --- the race -------------------------------------------------------------------------------------


def test_each_cell_says_its_score_or_why_it_was_not_needed(searched: Searched) -> None:
    view = race_view(facts_of(searched))
    table = searched.table.set_index("name")
    assert len(view.rows) == len(table) == 40
    shown = {row.cells[0].told.rpartition(", fold")[0]: row.cells for row in view.rows}
    why = searched.decisions.set_index("candidate")["reason"]
    scores = searched.standings.table.scores
    for name, row in table.iterrows():
        cells = shown[str(name)]
        done = [cell for cell in cells if cell.kind == "done"]
        assert len(done) == row["folds"]
        for fold, cell in enumerate(cells):
            if cell.kind == "done":
                assert cell.told.endswith(f"fold {fold}: {scores[row['number'], fold]:.3f}")
            else:
                assert cell.kind == "stopped"
                assert why[row["candidate"]] in cell.told
    fills = {cell.told: cell.fill for row in view.rows for cell in row.cells if cell.fill}
    best = max(fills, key=lambda told: float(told.rpartition(": ")[2]))
    assert fills[best] == view.colours[-1][1]


def test_what_may_still_come_is_not_called_unneeded(tmp_path: Path) -> None:
    facts = facts_of(search_by_hand(tmp_path, most=14))
    rows = race_view(facts).rows
    for state, row in zip(facts.table["state"], rows, strict=True):
        kinds = {cell.kind for cell in row.cells} - {"done"}
        assert kinds == {"stopped" if state == "stopped" else "waiting"}
    assert {"stopped", "living", "leads"} == set(facts.table["state"])


def test_many_rows_are_low_and_of_more_the_best_are_shown(
    searched: Searched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MOST_NAMED", 10)
    monkeypatch.setattr(module, "_MOST_ROWS", 30)
    view = race_view(facts_of(searched))
    assert (len(view.rows), view.left_out) == (30, 10)
    assert {row.label for row in view.rows} == {""}
    assert view.height < 200


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> tuple[Facts, str]:
    """Facts, and the page of them, of a search whose candidates have a name that is none of ours."""
    made = prepared(tmp_path_factory.mktemp("run"), candidates=8)
    work(SearchedCells(made), made.folds)
    facts = gather(load_run(made.layout.root))
    assert facts.search is not None
    facts.search.table["name"] = "<b onclick=x>&amp;\"'"
    write_report(made.layout, find(facts), [])
    return facts, made.layout.report_html.read_text()


def test_the_page_draws_it_as_markup_that_nobody_else_wrote(page: tuple[Facts, str]) -> None:
    _, text = page
    (drawn,) = re.findall(
        r"<svg width=\"\d+\" height=\"\d+\" viewBox=\"[\d ]+\" role=\"img\".*?</svg>", text, re.S
    )
    svg = ElementTree.fromstring(drawn)
    titles = [each.text or "" for each in svg.iter("title")]
    assert len(titles) == 8 * 4
    assert all(title.startswith("<b onclick=x>&amp;\"'") for title in titles)
    assert any("ends best of" in title for title in titles)
    assert svg.get("aria-label", "").startswith("The race: 8 candidates")
    assert not list(svg.iter("b"))


# --- sentences ------------------------------------------------------------------------------------


def test_the_gain_stands_once_and_the_risk_is_summed(page: tuple[Facts, str]) -> None:
    facts, text = page
    assert facts.search is not None
    gain = facts.search.gain
    assert gain is not None
    assert text.count(f"{gain.difference:+.3f} [") == 1
    decisions = facts.search.decisions
    summed = decisions["probability"].sum()
    stopped = int((decisions["decision"] == "stopped").sum())
    said = f"The probabilities of the {stopped} stopped candidates to end up best of those that"
    assert f"{said} there were then add up to {summed:.2g}:" in text


# --- pictures of the space ------------------------------------------------------------------------


def test_lines_go_through_all_values_and_dotted_past_those_without_effect(
    searched: Searched,
) -> None:
    facts = facts_of(searched)
    figure = draw_parallel(facts)
    assert figure is not None
    (axes,) = figure.axes
    names = [label.get_text().replace("\n", " ") for label in axes.get_xticklabels()]
    assert names == [*(p.name for p in facts.parameters), "AUC, expected mean"]
    valued = facts.table[facts.table["estimate"].notna()]
    lines = [line for line in axes.lines if np.ptp(line.get_xdata()) == 1]
    assert len(lines) == len(valued) * len(facts.parameters)
    at = names.index("learning_rate")
    heights = {round(float(line.get_ydata()[0]), 6) for line in lines if line.get_xdata()[0] == at}
    wanted = (np.log10(valued["learning_rate"].astype(float)) + 5) / 4
    assert heights == {round(float(height), 6) for height in wanted}
    dotted = sum(line.get_linestyle() == ":" for line in lines)
    assert dotted >= valued["momentum"].isna().sum() > 0
    texts = {text.get_text() for text in axes.texts}
    assert {"adam", "sgd", "no effect", "0.001"} <= texts


def test_one_parameter_and_two_candidates_are_enough(tmp_path: Path) -> None:
    text = """
search: {candidates: 2}
candidates:
- {name: written, model: TinyCNN, dropout: {uniform: [0.0, 0.5]}}
"""
    figure = draw_parallel(facts_of(search_by_hand(tmp_path, text)))
    assert figure is not None
    assert "no effect" not in {text.get_text() for text in figure.axes[0].texts}


def test_importance_is_drawn_with_its_source() -> None:
    figure = draw_importance(Importance("fANOVA", {"a": 0.7, "b": 0.3}, 40, 31, ()))
    (axes,) = figure.axes
    assert [patch.get_width() for patch in axes.patches] == [0.3, 0.7]
    assert axes.get_xlabel() == "Share by fANOVA, 40 candidates, 31 estimated"
