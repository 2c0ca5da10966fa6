"""What the report says of heatmaps: scores beside what they are to be compared with, flags with
their evidence.
"""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from orchestrator.report.explanations import explanation_tables, explanation_warnings
from orchestrator.report.facts import gather
from orchestrator.report.findings import find
from orchestrator.report.page import write_report
from tests.orchestrator.report.test_figures import StandInRun, make_run
from xai.shards.summary import load_table, save_table


def scored(score: str, mean: float, **more: Any) -> dict[str, Any]:
    names = {
        "candidate": "c0",
        "method": "gradcam",
        "layer": "top",
        "height": 3,
        "width": 3,
        "class": "",
    }
    numbers = {"low": mean, "high": mean, "chance": None, "ceiling": None, "maps": 9, "groups": 9}
    return (
        names
        | numbers
        | {"score": score, "mean": mean, "p": None, "p_adjusted": None, "flagged": False}
        | more
    )


@pytest.fixture
def run(tmp_path: Path) -> StandInRun:
    run = make_run(tmp_path, names=("Model",), skill=(1.0,))
    rows = [
        scored("opacity_energy_ratio", 1.5, chance=1.0, ceiling=4.0),
        scored("opacity_pointing", 0.1, chance=0.06, ceiling=0.12),
        scored("border_ratio", 0.8, p=0.9, p_adjusted=1.0),
        scored(
            "corner_top_left_ratio",
            4.0,
            low=3.0,
            high=5.0,
            p=1e-5,
            p_adjusted=4e-5,
            flagged=True,
            **{"class": "B"},
        ),
        scored("corner_top_right_ratio", 0.5, p=0.7, p_adjusted=1.0),
    ]
    save_table(run.layout, "summary", pd.DataFrame(rows))
    return run


def test_scores_on_masks_stand_beside_chance_and_the_best_possible(run: StandInRun) -> None:
    on_masks, elsewhere, _ = explanation_tables(gather(run))
    assert on_masks.rows == (
        (
            "Model",
            "Grad-CAM",
            "top, 3×3",
            "opacity",
            "1.50×",
            "1.00×",
            "4.00×",
            "9",
            "0.10",
            "0.06",
            "0.12",
            "9",
        ),
    )
    assert "1 of 3 regions and classes are flagged" in elsewhere.title
    assert elsewhere.rows == (("Model", "Grad-CAM", "top, 3×3", "0.80×", "4.00×"),)


def test_a_flag_says_how_sure_it_is_and_of_how_many(run: StandInRun) -> None:
    (said,) = explanation_warnings(gather(run))
    assert (
        "4.0 times the evidence of a uniform map in the top left corner for what Model calls B"
        in said
    )
    assert (
        "95 % interval 3.0 to 5.0; p < 0.001 after correction for all 3 regions and classes" in said
    )


def test_both_reports_tell_it(run: StandInRun) -> None:
    write_report(run.layout, find(gather(run)), [])
    text = run.layout.report_text.read_text("utf-8")
    for said in (text, run.layout.report_html.read_text("utf-8")):
        assert "no map with this number of cells can have more" in " ".join(said.split())
        assert "4.00×" in said
    assert max(map(len, text.splitlines())) <= 100


def test_a_table_of_an_older_version_has_no_limits(run: StandInRun) -> None:
    old = load_table(run.layout, "summary").drop(columns=["chance", "ceiling", "p", "p_adjusted"])
    save_table(run.layout, "summary", old.assign(flagged=False))
    on_masks, *_ = explanation_tables(gather(run))
    assert on_masks.rows[0][4:] == ("1.50×", "–", "–", "9", "0.10", "–", "–", "9")
    assert not list(explanation_warnings(gather(run)))


def test_a_candidate_that_came_later_is_said_to_be_unexplained(run: StandInRun) -> None:
    more = make_run(run.layout.root, names=("Model", "Newcomer"), skill=(1.0, 1.0))
    said = list(explanation_warnings(gather(more)))
    assert (
        "Not explained yet, and so in no table of explanations: Newcomer. Run `rayfold explain` "
        "again." in said
    )
