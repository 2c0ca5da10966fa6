"""The report of a run, from a stand-in whose answers are planted."""

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from orchestrator.report.cautions import warnings_of
from orchestrator.report.facts import gather
from orchestrator.report.figures import draw_figures
from orchestrator.report.findings import find
from orchestrator.report.page import write_report
from tests.orchestrator.report.test_figures import StandInRun, make_run

EVIL = "<script>alert(1)</script>"


class Page(HTMLParser):
    """The tags, attribute values and visible words of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.pieces: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.pieces.append(data)

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.pieces).split())


def write(run: StandInRun, with_figures: bool = False) -> tuple[str, Page]:
    facts = gather(run)
    drawings = draw_figures(run.layout, facts) if with_figures else []
    write_report(run.layout, find(facts), drawings)
    return run.layout.report_text.read_text("utf-8"), Page(
        run.layout.report_html.read_text("utf-8")
    )


def words(text: str) -> str:
    return " ".join(text.split())


def test_the_verdict_names_the_best_candidate_and_its_caveat(tmp_path: Path) -> None:
    text, page = write(make_run(tmp_path, names=("guess", "perfect"), skill=(0.0, 50.0)))
    for said in (words(text), page.words):
        assert (
            "perfect has the highest pooled out-of-fold AUC: 1.000 (fold mean 1.000 ± 0.000)."
            in said
        )
        assert "Choosing the best by a score makes that very score optimistic" in said
        assert "Started: 2024-05-01" in said or "started 2024-05-01" in said


def test_a_lead_within_the_spread_of_the_folds_is_no_ranking(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    run.models_summary["auc_oof"], run.models_summary["auc_std"] = [0.912, 0.908], 0.02
    assert "guessing model is 0.004 behind, less than the standard deviation" in words(
        write(run)[0]
    )
    run.models_summary["auc_std"] = 0.001
    assert "behind" not in write(run)[0]


def test_a_tie_has_no_winner(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    run.models_summary["auc_oof"], run.models_summary["auc_std"] = [1.0, 1.0], 0.0
    text = words(write(run)[0])
    assert "perfect model and guessing model have the highest pooled out-of-fold AUC: 1.000" in text
    assert "They tie" in text


def test_an_argument_of_a_builder_may_be_a_list(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    run.candidates["argument_filters"] = [[8, 16], None]
    text, page = write(run)
    for said in (words(text), page.words):
        assert said.count("argument_filters [8, 16]") == 1


def test_a_candidate_with_a_failed_cell_has_no_averages_and_is_not_compared(tmp_path: Path) -> None:
    run = make_run(tmp_path, skill=(50.0, 60.0), broken={(1, 2): "failed"})
    text, page = write(run)
    row = next(line for line in text.splitlines() if line.startswith("guessing model  "))
    assert row.split() == ["guessing", "model", "2", "of", "3", "folds", *"–" * 5]
    for said in (words(text), page.words):
        assert "perfect model reaches a pooled out-of-fold AUC of 1.000" in said
        assert "1 of 2 candidates is incomplete and not ranked." in said
        assert "1 of 6 cells failed; their candidates have no averages." in said
        assert "the <loss> became NaN" in said
    assert 'File "<model>", line 1' in page.words


def test_every_number_of_the_tables_is_in_both_reports(tmp_path: Path) -> None:
    run = make_run(tmp_path, skill=(1.0, 0.3))
    text, page = write(run)
    for _, model in run.models_summary.iterrows():
        spread = f"{model['auc_mean']:.3f} ± {model['auc_std']:.3f}"
        pattern = rf"AUC {re.escape(spread)} {model['auc_oof']:.3f} {model['auc_test_mean']:.3f} "
        assert re.search(pattern + f"{model['auc_test_ensemble']:.3f}", words(text))
        assert spread in page.words
    for value in run.folds_summary[["auc", "mcc", "f1"]].to_numpy().ravel():
        assert f"{value:.3f}" in text
        assert f"{value:.3f}" in page.words


def test_images_are_counted_by_class_state_and_role(tmp_path: Path) -> None:
    text, page = write(make_run(tmp_path))
    for said in (words(text), page.words):
        assert "Normal 41 1 0 40 20 Opacity 41 0 1 40 20 All 82 1 1 80 20" in said
        assert "not an image: <b>0 bytes</b> broken.png 1" in said
        assert "96 × 128 1 80" in said
        assert "1 listed image was unusable and skipped" in said
        assert "The test set holds 8 images of Normal" in said


def test_the_text_has_100_columns(tmp_path: Path) -> None:
    names = ("model " + "with a very long name " * 8, "x" * 150)
    run = make_run(tmp_path, names=names, seeds=(1, 123456789), classes=("a", "b" * 60, "c"))
    run.provenance["invocations"][0]["command_line"] = ["rayfold", "/" + "long path/" * 30]
    text, _ = write(run)
    assert max(map(len, text.splitlines())) == 100
    assert "x" * 150 in text.replace("\n", "")


def test_hostile_text_is_inert_everywhere(tmp_path: Path) -> None:
    run = make_run(
        tmp_path,
        classes=(EVIL, '"><img src=x onerror=alert(1)>'),
        names=(EVIL, "b\x1b[31m\nforged: line"),
        n_folds=2,
    )
    run.name = EVIL
    run.cells.loc[0, ["state", "reason"]] = ["failed", EVIL]
    run.traceback = f"Traceback\n{EVIL}</pre>"
    run.manifest.table["reason"] = EVIL
    run.manifest.table["view"] = EVIL
    run.provenance["invocations"][0]["host"] = EVIL
    run.experiment["name"] = EVIL
    run.layout.results.mkdir(parents=True)
    (run.layout.results / "a&b '\"#?.csv").touch()
    text, page = write(run, with_figures=True)
    assert not {"script", "b", "link", "iframe", "object"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert EVIL in page.words
    assert "\nforged" not in text
    assert "\x1b" not in text
    assert ("href", "results/a%26b%20%27%22%23%3F.csv") in page.attributes


def test_the_page_needs_nothing_from_outside(tmp_path: Path) -> None:
    run = make_run(tmp_path, names=("model",), skill=(1.0,), n_folds=2)
    facts = gather(run)
    figures = draw_figures(run.layout, facts)
    write_report(run.layout, find(facts), figures)
    html = run.layout.report_html.read_text("utf-8")
    page = Page(html)
    sources = [value or "" for name, value in page.attributes if name in ("src", "href")]
    assert sum(source.startswith("data:image/png;base64,iVBOR") for source in sources) == len(
        figures
    )
    assert not re.search(r"https?://|url\((?!#)|@import", html)
    assert "default-src 'none'" in html


def test_the_same_run_gives_the_same_bytes(tmp_path: Path) -> None:
    pages = []
    for folder in ("a", "b"):
        run = make_run(tmp_path / folder, names=("model",), skill=(1.0,), n_folds=2)
        write(run, with_figures=True)
        pages.append((run.layout.report_html.read_bytes(), run.layout.report_text.read_bytes()))
    assert pages[0] == pages[1]


@pytest.mark.parametrize("state", ["failed", "missing", "running"])
def test_a_run_without_a_done_cell_still_has_a_report(tmp_path: Path, state: str) -> None:
    run = make_run(tmp_path, broken={(c, f): state for c in (0, 1) for f in range(3)})
    text, page = write(run, with_figures=True)
    for said in (words(text), page.words):
        assert "No candidate is complete, so none is called the best." in said
        assert "0 of 3 folds" in said
        assert not re.search(r"\bnan\b", said)
    assert "img" not in page.tags


def test_three_classes_several_seeds_and_one_candidate(tmp_path: Path) -> None:
    run = make_run(
        tmp_path, classes=("a", "b", "c"), names=("only",), skill=(1.0,), seeds=(4, 7), n_folds=2
    )
    text, page = write(run, with_figures=True)
    for said in (words(text), page.words):
        assert "only reaches a pooled out-of-fold AUC of" in said
        assert "4 of 4 cells" in said
        assert "once per fold and seed (seeds 4, 7)" in said
        assert "mean ± standard deviation over 4 cells: 2 folds × 2 seeds" in said
        assert (
            "the fold predictions of one seed scored as one set, averaged over the 2 seeds" in said
        )
        assert "over the folds)" not in said
    assert "Fold 1 seed 7 confusion matrix" in page.words


def test_changed_packages_and_devices_are_warned_of(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    first = run.provenance["invocations"][0]
    run.provenance["invocations"].append(
        first | {"packages": first["packages"] | {"keras": "3.16.0"}}
    )
    run.cells["device"] = np.where(run.cells["fold"] == 0, "CPU", "NVIDIA A100")
    text = words(write(run)[0])
    assert "continued with another version of keras: 3.15.1, 3.16.0." in text
    assert "another version of numpy" not in text
    assert "different devices, whose last digits may differ: CPU, NVIDIA A100." in text


def test_notes_on_the_data_are_warnings(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    run.manifest.notes = ("clutter is left out: 'Thumbs.db' (2)",)
    text, page = write(run)
    for said in (words(text), page.words):
        assert "Clutter is left out: 'Thumbs.db' (2)." in said


def test_cells_with_different_numbers_of_threads_are_named(tmp_path: Path) -> None:
    run = make_run(tmp_path, names=("A",), skill=(1.0,), n_folds=4, broken={(0, 2): "failed"})
    run.cells["device"] = ["CPU", "CPU", "CPU", "GPU"]
    run.cells["threads"] = [1, 2, 4, 8]
    (warning,) = [each for each in warnings_of(gather(run)) if "numbers of threads" in each]
    assert "1 (A fold 0 seed 0); 2 (A fold 1 seed 0)." in warning
    run.cells["threads"] = [1, 1, 4, 8]
    assert not any("numbers of threads" in each for each in warnings_of(gather(run)))
