"""What a search takes from earlier runs: what their candidates were worth, and cells that are done.

Cells are not trained here but written, as in test_searching; the last tests run what they say.
"""

import json
import math
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from orchestrator.execution.cells import Prepared
from orchestrator.execution.earlier_runs import check_earlier
from orchestrator.execution.searching import SearchedCells
from orchestrator.report.write_up import write_reports
from orchestrator.results.run import load_run
from orchestrator.search.journal import read_rows
from tests.conftest import Command, rayfold
from tests.orchestrator.execution.test_experiment_run import assert_same_tables
from tests.orchestrator.execution.test_searching import prepared, tables, work
from tests.orchestrator.results.test_run import CLASSES
from trainables.core.errors import RunFolderError
from trainables.core.layout import RunLayout
from trainables.core.ledger import Entry
from trainables.core.records import read_provenance


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """A finished search of 20 candidates by chance: not to be changed."""
    made = prepared(tmp_path_factory.mktemp("first"), candidates=20, sampler="random")
    work(SearchedCells(made), made.folds)
    return made


@pytest.fixture
def copy(first: Prepared, tmp_path: Path) -> Path:
    """Its run folder once more."""
    return shutil.copytree(first.layout.root, tmp_path / "copy")


def rates(made: Prepared) -> list[float]:
    """The learning rates that were suggested, in order."""
    rows = read_rows(made.layout.journal)
    return [r["values"]["learning_rate"] for r in rows if r["event"] == "suggested" and r["values"]]


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


# --- what candidates were worth -------------------------------------------------------------------


def test_the_journal_begins_with_what_the_earlier_run_knew(first: Prepared, tmp_path: Path) -> None:
    made = prepared(tmp_path, earlier=[first.layout.root])
    SearchedCells(made)
    _, row, *_ = read_rows(made.layout.journal)
    assert (row["event"], row["run"]) == ("prior", str(first.layout.root))
    assert (row["same_data"], row["outside"]) == (True, 0)
    run = load_run(first.layout.root)
    known = pd.DataFrame(row["candidates"]).set_index("id")
    search = run.search.set_index("candidate")
    assert list(known.index) == list(search.index)
    assert [v["learning_rate"] for v in known["values"]] == list(search["learning_rate"])
    assert list(~known["estimated"]) == list(search["folds"] == 4)
    through = known.index[~known["estimated"]]
    means = run.models_summary.set_index("candidate").loc[through, "auc_mean"]
    np.testing.assert_allclose(known.loc[through, "value"], means, rtol=1e-12)
    # Of those with fewer folds what that search expects of them.
    np.testing.assert_allclose(known["value"], search["estimate"], rtol=1e-9)
    assert 5 < known["estimated"].sum() < 20


def test_by_another_objective_the_earlier_predictions_are_scored_again(
    first: Prepared, tmp_path: Path
) -> None:
    made = prepared(tmp_path, earlier=[first.layout.root], objective="log_loss")
    SearchedCells(made)
    known = pd.DataFrame(read_rows(made.layout.journal)[1]["candidates"]).set_index("id")
    through = known.index[~known["estimated"]]
    models = load_run(first.layout.root).models_summary.set_index("candidate")
    np.testing.assert_allclose(
        -known.loc[through, "value"], models.loc[through, "log_loss_mean"], rtol=1e-9
    )


@pytest.mark.parametrize("images", [200, 180])
def test_a_search_begins_where_the_earlier_run_found_what_is_good(
    first: Prepared, tmp_path: Path, images: int
) -> None:
    def suggested(name: str, earlier: list[Path]) -> list[float]:
        made = prepared(tmp_path / name, candidates=12, images=images, earlier=earlier)
        work(SearchedCells(made), made.folds)
        return rates(made)

    told, untold = suggested("told", [first.layout.root]), suggested("untold", [])
    farthest = [max(abs(math.log10(rate) + 3) for rate in each) for each in (told, untold)]
    assert farthest[0] < 2 < farthest[1]
    search = load_run(first.layout.root).search.set_index("state")
    assert told[0] == search.loc["leads", "learning_rate"]  # what was best there comes first
    row = read_rows(RunLayout(tmp_path / "told" / "run").journal)[1]
    assert row["same_data"] == (images == 200)


def test_candidates_outside_of_the_space_are_counted_and_not_told(
    first: Prepared, tmp_path: Path
) -> None:
    made = prepared(tmp_path, earlier=[first.layout.root], high="1.0e-3")
    source = SearchedCells(made)
    row = read_rows(made.layout.journal)[1]
    within = [rate <= 1e-3 for rate in [1e-5, *rates(first)]]
    assert 5 < row["outside"] == within.count(False) < 15
    assert len(row["candidates"]) == within.count(True)
    (line,) = source.news()
    assert f"{row['outside']} more lie in no space of this search" in line


def test_a_run_that_is_at_work_is_read_as_far_as_it_is(tmp_path: Path) -> None:
    other = prepared(tmp_path / "other", sampler="random")
    busy = SearchedCells(other)
    work(busy, other.folds, most=9)
    for entry in busy.more()[:1]:
        (entry.folder / "state.json").write_text('{"state": "running"}')
    with other.layout.journal.open("a") as journal:
        journal.write('{"event": "rele')
    made = prepared(tmp_path, earlier=[other.layout.root])
    work(SearchedCells(made), made.folds)
    row = read_rows(made.layout.journal)[1]
    assert 4 <= len(row["candidates"]) <= 9
    assert load_run(made.layout.root).search["folds"].max() == 4


# --- cells ----------------------------------------------------------------------------------------


def test_cells_that_another_run_has_done_are_not_trained_again(
    first: Prepared, tmp_path: Path
) -> None:
    before = contents(first.layout.root)
    made = prepared(tmp_path, candidates=20, sampler="random", earlier=[first.layout.root])
    source = SearchedCells(made)
    assert work(source, made.folds) == 0
    assert source.ended
    assert source.taken == source.total > 25
    (journal, own), (other_journal, others) = tables(made), tables(first)
    for one, other in zip(own, others, strict=True):
        pd.testing.assert_frame_equal(one, other, check_exact=True)
    assert journal.split(b"\n")[2:] == other_journal.split(b"\n")[1:]
    assert contents(first.layout.root) == before
    cells = load_run(made.layout.root).cells
    done = cells["state"] == "done"
    assert (cells.loc[done, "taken_from"] == str(first.layout.root)).all()
    assert (cells.loc[~done, "taken_from"] == "").all()
    write_reports(made.layout)
    text = " ".join(made.layout.report_text.read_text().split())
    assert f"Of them {source.total} cells had been trained by {first.layout.root} and taken" in text


def test_interrupted_and_without_the_other_run_it_is_the_same_search(
    copy: Path, tmp_path: Path
) -> None:
    undisturbed = prepared(tmp_path / "one", earlier=[copy])
    assert work(source := SearchedCells(undisturbed), undisturbed.folds) < source.total
    journal, frames = tables(undisturbed)
    rng = random.Random(1)
    made = prepared(tmp_path / "two", earlier=[copy])
    work(SearchedCells(made), made.folds, 2, rng, most=3)
    shutil.rmtree(copy)
    while not (source := SearchedCells(made)).ended:
        work(source, made.folds, 2, rng, most=rng.randrange(1, 7))
    again, others = tables(made)
    assert again == journal
    for one, other in zip(frames, others, strict=True):
        pd.testing.assert_frame_equal(one, other, check_exact=True)


def test_a_killed_writer_of_what_is_known_writes_the_rest(copy: Path, tmp_path: Path) -> None:
    second = shutil.copytree(copy, tmp_path / "second")
    made = prepared(tmp_path, earlier=[copy, second])
    SearchedCells(made)
    whole = made.layout.journal.read_bytes()
    lines = whole.split(b"\n")
    for kept in (lines[0] + b"\n", b"\n".join([*lines[:2], lines[2][:99]])):
        made.layout.journal.write_bytes(kept)
        SearchedCells(made)
        assert made.layout.journal.read_bytes() == whole


def entry_files(entry: Entry) -> list[str]:
    assert entry.state().state == "done"
    return [entry.predictions().to_csv(), entry.epochs().to_csv()]


def other_predictions(entry: Entry) -> None:
    table = entry.predictions()
    table.loc[table.index[:9], "group"] = "patient x"
    table.to_parquet(entry.folder / "predictions.parquet")


def link(entry: Entry) -> None:
    moved = entry.folder.parent / "model.keras"
    entry.model_path.rename(moved)
    entry.model_path.symlink_to(moved)


def of_other_images(entry: Entry) -> None:
    """Whole, as far as its digests say."""
    table = entry.predictions()
    table["image"] += "x"
    entry.finish(entry.state(), entry.epochs(), table)


def give_away(entry: Entry) -> None:
    os.lchown(entry.model_path, 4302, 4302)


@pytest.mark.parametrize(
    ("tamper", "said"),
    [
        (other_predictions, "predictions.parquet is damaged"),
        (lambda entry: entry.model_path.write_bytes(b"other weights"), "model.keras is damaged"),
        (lambda entry: (entry.folder / "epochs.parquet").unlink(), "epochs.parquet is gone"),
        (lambda entry: (entry.folder / "spec.json").write_text("{}"), "no readable spec.json"),
        (of_other_images, "are not those of its fold"),
        (link, "not a regular file"),
        pytest.param(
            give_away,
            "belongs to user 4302",
            marks=pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away"),
        ),
    ],
)
def test_an_entry_that_is_not_believed_is_trained(
    copy: Path, first: Prepared, tmp_path: Path, tamper: Callable[[Entry], None], said: str
) -> None:
    made = prepared(tmp_path, candidates=2, sampler="random", earlier=[copy])
    victim = made.entries[2]
    there = {entry.spec.key for entry in SearchedCells(first).entries}
    tamper(Entry(copy / "ledger", victim.spec))
    source = SearchedCells(made)
    work(source, made.folds)
    cells = load_run(made.layout.root).cells
    trained = cells.loc[cells["state"].eq("done") & cells["taken_from"].eq(""), "key"]
    assert set(trained) & there == {victim.spec.key}
    *_, line = source.news()
    assert said in line
    assert entry_files(victim) == entry_files(Entry(first.layout.ledger, victim.spec))


def test_where_files_cannot_have_two_names_they_are_copied(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise OSError("another disk")

    monkeypatch.setattr(os, "link", refused)
    made = prepared(tmp_path, candidates=2, sampler="random", earlier=[copy])
    work(SearchedCells(made), made.folds)
    shutil.rmtree(copy)
    for entry in made.entries:
        state = entry.state()
        assert (state.state, state.taken_from) == ("done", str(copy))


def test_what_another_run_trained_on_afterwards_changes_nothing_here(
    copy: Path, tmp_path: Path
) -> None:
    made = prepared(tmp_path, candidates=2, sampler="random", earlier=[copy])
    work(SearchedCells(made), made.folds)
    entry = made.entries[0]
    other = Entry(copy / "ledger", entry.spec)
    assert entry.model_path.stat().st_ino == other.model_path.stat().st_ino
    of_other_images(other)
    assert entry.state().state == "done"


# --- bad input ------------------------------------------------------------------------------------


def nothing(run: Path) -> None:
    shutil.rmtree(run)


def unfinished(run: Path) -> None:
    for state in run.glob("ledger/*/state.json"):
        state.unlink()


def foreign(run: Path) -> None:
    os.lchown(run, 4302, 4302)


def damaged(run: Path) -> None:
    (run / "cells.json").write_text("[1]")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (nothing, "must name run folders, got '.*copy', which has no cells.json"),
        (unfinished, "must name runs with finished cells, got '.*copy', which has none yet"),
        (damaged, "cells.json' is damaged"),
        pytest.param(
            foreign,
            "must name runs of your own, got '.*copy', where .* belongs to user 4302",
            marks=pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away"),
        ),
    ],
)
def test_a_run_that_nothing_can_be_taken_from(
    copy: Path, tmp_path: Path, change: Callable[[Path], None], said: str
) -> None:
    made = prepared(tmp_path, earlier=[copy])
    change(copy)
    with pytest.raises(RunFolderError, match=said) as raised:
        check_earlier(made.experiment, made.layout, CLASSES)
    assert "\n" not in str(raised.value)
    with pytest.raises(RunFolderError, match=said):
        SearchedCells(made)
    assert len(read_rows(made.layout.journal)) == 1  # where it can be mended, all begins anew


def test_other_classes_and_the_own_folder_are_told(copy: Path, tmp_path: Path) -> None:
    made = prepared(tmp_path, earlier=[copy])
    with pytest.raises(RunFolderError, match="which lacks 'healthy' and has 'well' beside: leave"):
        check_earlier(made.experiment, made.layout, ("it's ill", "healthy"))
    itself = prepared(tmp_path, earlier=[tmp_path / "elsewhere" / ".." / "run"])
    with pytest.raises(RunFolderError, match=r"must name other runs, got '.*run', where this one"):
        check_earlier(itself.experiment, itself.layout, CLASSES)


def test_a_search_goes_on_with_the_runs_that_it_began_with(copy: Path, tmp_path: Path) -> None:
    work(SearchedCells(made := prepared(tmp_path, earlier=[copy])), made.folds, most=2)
    with pytest.raises(RunFolderError, match=r"search\.from was \[\".*copy\"\] and is \[\]"):
        SearchedCells(prepared(tmp_path))


# --- the command line -----------------------------------------------------------------------------

GRID = """
name: again
data: {{source: folder, path: {path!r}}}
folds: {{k: 2}}
training: {{epochs: 40, learning_rate: 3e-3, early_stopping: null, augmentation: {{rotation: 10}}}}
candidates:
  - {{name: with dropout, model: TinyCNN, image_size: 32, dropout: 0.5}}
  - {{name: without, model: TinyCNN, image_size: 32, dropout: 0.0}}
{more}
search: {{racing: off, from: [{earlier}]}}
"""


def grid(folder: Path, data: Path, earlier: Path, more: str = "") -> Path:
    file = folder / "again.yaml"
    text = GRID.format(path=str(data), earlier=json.dumps(str(earlier)), more=more)
    file.write_text(text, encoding="utf-8")
    return file


def test_a_grid_whose_cells_are_all_there_trains_nothing(
    finished: Path, spots: Path, tmp_path: Path, command: Command
) -> None:
    file = grid(tmp_path, spots, finished)
    code, out, _ = command("plan", file, "--run", tmp_path / "run")
    assert code == 0
    assert "4 of the 4 cells to be trained above are there already" in out
    assert not (tmp_path / "run").exists()
    code, out, err = command("run", file, "--run", tmp_path / "run")
    assert code == 0, err
    assert "gave 4 cells of 4" in out
    assert "ray  " not in out
    assert_same_tables(finished, tmp_path / "run")
    assert read_provenance(tmp_path / "run" / "provenance.json").taken == {str(finished): 4}
    assert load_run(tmp_path / "run").model("with dropout", 0).count_params() > 0


def test_a_wrong_run_is_refused_before_anything_is_written(
    spots: Path, tmp_path: Path, command: Command
) -> None:
    file = grid(tmp_path, spots, tmp_path / "nowhere")
    for more in ([], ["--check"]):
        code, _, err = command("run", file, "--run", tmp_path / "run", *more)
        assert code == 2
        assert err.count("\n") == 1
        assert "search.from must name run folders" in err
        assert not (tmp_path / "run" / "experiment.yaml").exists()


@pytest.mark.slow
def test_what_another_run_lacks_is_trained(finished: Path, spots: Path, tmp_path: Path) -> None:
    more = "  - {name: third, model: TinyCNN, image_size: 32, dropout: 0.3}"
    done = rayfold("run", grid(tmp_path, spots, finished, more), "--run", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert "gave 4 cells of 6" in done.stdout
    assert "6 of 6 done" in done.stdout
    cells = load_run(tmp_path / "run").cells
    assert (cells["state"] == "done").all()
    assert set(cells.loc[cells["taken_from"] == "", "candidate"]) == {"third"}
