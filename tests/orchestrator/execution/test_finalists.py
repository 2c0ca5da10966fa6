"""Finalists of a search over cells: their folds of further repeats are released, trained and told
of, and those of others are not missed.
"""

from pathlib import Path

import pytest

from orchestrator.execution.cells import Prepared, cell_entries
from orchestrator.execution.plan import plan_lines
from orchestrator.execution.searching import SearchedCells
from orchestrator.experiment.experiment_file import parse_experiment
from orchestrator.report.write_up import write_reports
from orchestrator.results.run import load_run
from orchestrator.results.tuning_gain import tuning_gain
from orchestrator.splits.folds import make_folds
from tests.orchestrator.execution.test_searching import train, work, worked_in_any_way
from tests.orchestrator.results.test_run import manifest_by_hand
from trainables.core.errors import RunFolderError
from trainables.core.layout import RunLayout

EXPERIMENT = """
name: finals
data: {{source: folder, path: images, classes: ["it's ill", well]}}
folds: {{k: 3, repeats: {repeats}}}
training: {{epochs: 4, learning_rate: 1.0e-5}}
search: {{candidates: {candidates}, lag: 3, finalists: {{top: {top}, repeats: {of_finalists}}}}}
candidates:
- {{name: written, model: TinyCNN, learning_rate: {{loguniform: [1.0e-6, 1.0]}}}}
"""


def prepared(
    folder: Path, candidates: int = 8, top: int = 2, of_finalists: int = 3, repeats: int = 1
) -> Prepared:
    text = EXPERIMENT.format(
        candidates=candidates, top=top, of_finalists=of_finalists, repeats=repeats
    )
    experiment = parse_experiment(text, "finals.yaml", folder)
    layout, manifest = RunLayout(folder / "run"), manifest_by_hand(120)
    folds = make_folds(manifest.usable, 3, "given", 0.1, 0, experiment.draws)
    entries = cell_entries(experiment, layout, manifest, folds)
    made = Prepared(experiment, layout, manifest, folds, entries)
    made.save()
    return made


def test_finalists_have_more_folds_and_others_miss_none(tmp_path: Path) -> None:
    made = prepared(tmp_path)
    assert "            the best 2 get 2 further repeats: up to 12 cells beside the budgets" in (
        plan_lines(made)
    )
    work(SearchedCells(made), made.folds)
    run = load_run(made.layout.root)
    assert set(run.folds["fold"]) == set(range(9))
    finalists = run.decisions[run.decisions["decision"] == "finalist"]
    assert len(finalists) == 2
    assert finalists["folds"].eq("3 4 5 6 7 8").all()
    cells = run.cells.groupby("candidate")
    asked = cells.size()
    assert asked[finalists["candidate"]].eq(9).all()
    assert asked.drop(finalists["candidate"]).eq(3).all()
    assert run.cells["state"].isin(["done", "stopped"]).all()
    search = run.search.set_index("candidate")
    (leader,) = search.index[search["state"] == "leads"]
    assert leader in set(finalists["candidate"])
    assert search["state"].eq("finalist").sum() == 1
    models = run.models_summary.set_index("candidate")
    means = models.loc[finalists["candidate"], "auc_mean"]
    assert leader == means.idxmax()
    assert search.loc[leader, "estimate"] == pytest.approx(means.max(), abs=1e-9)
    # Who was through the race and is no finalist keeps its numbers.
    others = list(search.index[search["folds"] == 3])
    assert "written" in others
    assert models.loc[others, "auc_mean"].notna().all()
    assert run.searched is not None
    gain = tuning_gain(run)
    assert gain is not None
    of_race = run.folds_summary[run.folds_summary["fold"] < 3].groupby("candidate")["auc"].mean()
    assert gain.leader_mean == pytest.approx(of_race[leader], abs=1e-9)
    write_reports(made.layout)
    text = " ".join(made.layout.report_text.read_text().split())
    assert "They got the folds of 3 repeats, 3 folds each" in text
    assert "12 cells of finalists' further repeats not counted" in text


def test_a_search_with_finalists_is_the_same_however_it_is_worked(tmp_path: Path) -> None:
    worked_in_any_way(prepared, tmp_path)


def test_what_is_raised_trains_what_is_missing_and_what_is_lowered_is_refused(
    tmp_path: Path,
) -> None:
    made = prepared(tmp_path, of_finalists=2)
    work(SearchedCells(made), made.folds)
    done = {e.spec.key for e in SearchedCells(made).entries}
    made = prepared(tmp_path, of_finalists=3)
    assert work(SearchedCells(made), made.folds) == 6  # 2 finalists × 3 folds
    assert (load_run(made.layout.root).cells["state"] == "done").sum() == len(done) + 6
    made = prepared(tmp_path, repeats=2)
    source = SearchedCells(made)
    trained = work(source, made.folds)
    assert source.ended
    run = load_run(made.layout.root)
    assert trained >= 3  # what those who are through lack of the race, now of 6 folds
    assert run.search.set_index("candidate").loc["written", "folds"] == 6
    assert done <= {path.name for path in made.layout.ledger.iterdir()}
    made = prepared(tmp_path, of_finalists=2)
    with pytest.raises(RunFolderError, match="has steps of 9 folds, and 6 are drawn"):
        SearchedCells(made)
    with pytest.raises(RunFolderError, match="has steps of 9 folds, and 6 are drawn"):
        load_run(made.layout.root)


def test_of_a_finalist_whose_cell_is_lost_another_one_takes_the_place(tmp_path: Path) -> None:
    made = prepared(tmp_path)
    source = SearchedCells(made)
    waiting, victim = source.more(), None
    while waiting:
        entry = waiting.pop(0)
        if not source.wanted(entry):
            waiting += source.more()
            continue
        victim = victim or (entry.spec.candidate.id if entry.spec.fold == 4 else None)
        if entry.spec.candidate.id == victim:
            entry.fail(RuntimeError("it broke"), attempts=1)
            source.through(entry, "it broke", 0.0)
        else:
            train(entry, made.folds)
            source.through(entry, None, 0.0)
        waiting += source.more()
    assert source.ended
    run = load_run(made.layout.root)
    search = run.search.set_index("candidate")
    assert search.loc[victim, "state"] == "lost"
    (leader,) = search.index[search["state"] == "leads"]
    assert leader != victim
    assert (run.cells[run.cells["candidate"] == leader]["state"] == "done").sum() == 9
    assert run.decisions["decision"].eq("finalist").sum() == 4
