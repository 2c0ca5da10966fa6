"""A search over cells: what it releases becomes ledger entries, and its tables say what happened.

Cells are not trained here but written as a model of their candidate would predict, so that many
searches can be had; the last tests train, on real Ray.
"""

import json
import math
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from orchestrator.execution.cells import Prepared, cell_entries
from orchestrator.execution.searching import SearchedCells
from orchestrator.experiment.experiment_file import parse_experiment
from orchestrator.report.write_up import write_reports
from orchestrator.results.predict import finished_cells
from orchestrator.results.run import load_run
from orchestrator.splits.folds import make_folds
from tests.conftest import ROOT, rayfold
from tests.orchestrator.results.test_run import (
    ILL,
    epochs_by_hand,
    finish,
    manifest_by_hand,
    predicted,
)
from trainables.core.errors import RunFolderError
from trainables.core.layout import RunLayout
from trainables.core.ledger import CellState, Entry
from trainables.training import decisions
from trainables.training.decisions import Ladder

EXPERIMENT = """
name: by-hand
data: {{source: folder, path: images, classes: ["it's ill", well]}}
folds: {{k: 4}}
training: {{epochs: 12, learning_rate: 1.0e-5}}
search:
  {{candidates: {candidates}, sampler: {sampler}, lag: {lag}, repeatable: {repeatable}, epoch_stopping: {epochs}, from: {earlier}, objective: {objective}}}
candidates:
- {{name: written, model: TinyCNN, learning_rate: {{loguniform: [1.0e-6, {high}]}}}}
seeds: {seeds}
"""


def prepared(
    folder: Path,
    candidates: int = 10,
    sampler: str = "tpe",
    lag: int = 3,
    repeatable: bool = True,
    seeds: str = "[0]",
    images: int = 200,
    epochs: str = "off",
    earlier: Sequence[Path] = (),
    objective: str = "auc",
    high: str = "1.0",
) -> Prepared:
    text = EXPERIMENT.format(
        candidates=candidates,
        sampler=sampler,
        lag=lag,
        repeatable=str(repeatable).lower(),
        seeds=seeds,
        epochs=epochs,
        objective=objective,
        high=high,
        earlier=json.dumps([str(run) for run in earlier]),
    )
    experiment = parse_experiment(text, "by-hand.yaml", folder)
    layout, manifest = RunLayout(folder / "run"), manifest_by_hand(images)
    folds = make_folds(manifest.usable, 4, "given", 0.1, 0)
    entries = cell_entries(experiment, layout, manifest, folds)
    made = Prepared(experiment, layout, manifest, folds, entries)
    made.save()
    return made


def train(entry: Entry, folds: pd.DataFrame, ladder: Ladder | None = None) -> None:
    """As if: the nearer its learning rate is to 1e-3, the better a candidate tells the classes, and
    the sooner.
    """
    spec = entry.spec
    skill = 2.5 - abs(math.log10(spec.candidate.training.learning_rate) + 3)
    rng = np.random.default_rng([spec.fold, spec.seed, int(skill * 1e6) % 2**32])
    parts, epochs = [], pd.concat([epochs_by_hand()] * 6, ignore_index=True)
    epochs["epoch"] = epochs.index + 1
    noise = np.random.default_rng([spec.fold, spec.seed]).normal(0, 0.01, 12)
    auc = 0.6 + 0.3 * (1 - np.exp(-epochs["epoch"] * (skill + 2) / 9)) + noise
    epochs["validation_auc"], epochs["validation_loss"] = auc, 1 / epochs["epoch"]
    if ladder is not None:
        scores = decisions.best_scores(ladder.metric, auc.tolist())
        rung = decisions.missed(spec.candidate.training, ladder.rungs, scores, over=True)
        if rung is not None:
            state = CellState(attempts=1, epochs=rung.epoch, best_epoch=rung.epoch)
            entry.halt(state, epochs[: rung.epoch], rung.why(scores[rung.epoch - 1]))
            return
    for split in ("fold", "test"):
        part = folds[(folds["fold"] == spec.fold) & (folds["role"] == split)].sort_values("image")
        ill = (part["label"] == ILL).to_numpy()
        odds = np.where(ill, skill, 0.0) / 2 + rng.normal(size=len(part))
        probability = 1 / (1 + np.exp(-odds))
        parts.append(predicted(part, split, probability))
    finish(entry, folds, pd.concat(parts, ignore_index=True), epochs)


def work(
    source: SearchedCells,
    folds: pd.DataFrame,
    workers: int = 2,
    rng: random.Random | None = None,
    most: int = 10**6,
    fails: str = "",
) -> int:
    """Train what the search releases, on as many workers, whose cells end in any order; `most`:
    cells until it is interrupted; `fails`: the id of a candidate whose cells are lost. How many
    cells were trained.
    """
    rng = rng or random.Random(0)
    waiting, running, trained = source.more(), list[Entry](), 0
    while waiting or running:
        while waiting and len(running) < workers:
            if source.wanted(entry := waiting.pop(0)):
                running.append(entry)
        while not waiting and len(running) < workers and (idle := source.early(lambda _: True)):
            running.append(idle)
        if not running:
            waiting = source.more()
            continue
        entry = running.pop(rng.randrange(len(running)))
        if not source.wanted(entry):
            continue
        if entry.spec.candidate.id == fails:
            entry.fail(RuntimeError("it broke"), attempts=1)
            source.through(entry, "it broke", 0.0)
        else:
            train(entry, folds, source.ladder(entry))
            trained += 1
            source.through(entry, None, 0.0)
        if trained == most:
            return trained
        waiting += source.more()
    return trained


# --- tables ---------------------------------------------------------------------------------------


def test_a_search_ends_and_its_tables_say_what_happened(tmp_path: Path) -> None:
    made = prepared(tmp_path)
    source = SearchedCells(made)
    trained = work(source, made.folds)
    assert source.ended
    run = load_run(made.layout.root)
    states = run.cells["state"].value_counts()
    # A cell that was at work when its candidate was stopped counts as never asked for.
    assert states["done"] == len(source.entries) <= trained
    assert states["stopped"] == 40 - states["done"] > 8
    assert run.cells.groupby("candidate").size().eq(4).all()
    search = run.search.set_index("candidate")
    assert len(search) == 10
    assert search.loc["written", "folds"] == 4  # the reference is never stopped
    (leader,) = search.index[search["state"] == "leads"]
    assert run.searched is not None
    assert {"written", leader} <= set(run.searched.through) == set(finished_cells(run, None))
    assert set(run.searched.through) == set(search.index[search["folds"] == 4])
    assert search.loc[leader, "folds"] == 4
    assert abs(math.log10(search.loc[leader, "learning_rate"]) + 3) < 1
    models = run.models_summary.set_index("candidate")
    assert models.loc[leader, "auc_mean"] == pytest.approx(search.loc[leader, "estimate"], abs=1e-9)
    stopped = run.decisions[run.decisions["decision"] == "stopped"].set_index("candidate")
    assert set(stopped.index) == set(search.index[search["state"] == "stopped"])
    assert (stopped["probability"] < 0.05).all()
    assert models.loc[stopped.index, "auc_mean"].isna().all()
    reasons = run.cells[run.cells["state"] == "stopped"].groupby("candidate")["reason"].first()
    assert reasons.to_dict() == stopped["reason"].to_dict()


def test_a_report_tells_of_a_search(tmp_path: Path) -> None:
    made = prepared(tmp_path)
    work(SearchedCells(made), made.folds)
    write_reports(made.layout)
    text = " ".join(made.layout.report_text.read_text().split())
    run = load_run(made.layout.root)
    (leader,) = run.search.loc[run.search["state"] == "leads", "name"]
    assert f"stopped early, {leader} has the best mean AUC over its folds" in text
    assert "against the candidate as it was written" in text
    saved = 1 - run.cells["state"].eq("done").sum() / 40
    assert f"would have been 40 cells: {saved:.0%}" in text
    assert {"search.csv", "decisions.parquet"} <= {p.name for p in made.layout.results.iterdir()}
    assert {"race.png", "incumbent.png", "slices.png"} <= {
        path.name for path in made.layout.figures.iterdir()
    }


def test_a_candidate_with_a_lost_cell_is_out_and_says_why(tmp_path: Path) -> None:
    made = prepared(tmp_path)
    work(SearchedCells(made), made.folds, fails="s0003")
    run = load_run(made.layout.root)
    lost = run.decisions[run.decisions["decision"] == "lost"]
    assert lost[["candidate", "reason"]].to_numpy().tolist() == [["s0003", "it broke"]]
    cells = run.cells[run.cells["candidate"] == "s0003"]
    assert sorted(cells["state"]) == ["failed", "stopped", "stopped", "stopped"]
    assert np.isnan(run.models_summary.set_index("candidate").loc["s0003", "auc_mean"])
    write_reports(made.layout)
    assert "it broke" in made.layout.report_text.read_text()


def test_a_cell_that_is_lost_on_an_idle_slot_waits_until_it_is_asked_for(tmp_path: Path) -> None:
    made = prepared(tmp_path, sampler="random")
    source = SearchedCells(made)
    asked = source.more()
    lost = source.early(lambda _: True)
    assert lost is not None
    lost.fail(RuntimeError("it broke"), attempts=1)
    source.through(lost, "it broke", 0.0)
    other = source.early(lambda _: True)
    assert other is not None
    assert other.spec.key != lost.spec.key
    given = list[str]()
    while lost.spec.key not in given:
        train(entry := asked.pop(0), made.folds)
        source.through(entry, None, 0.0)
        asked += (more := source.more())
        given += [each.spec.key for each in more]


def test_a_step_has_all_seeds(tmp_path: Path) -> None:
    made = prepared(tmp_path, candidates=4, seeds="[0, 7]")
    work(SearchedCells(made), made.folds, workers=3)
    cells = load_run(made.layout.root).cells
    done = cells[cells["state"] == "done"]
    assert (done.groupby(["candidate", "fold"])["seed"].nunique() == 2).all()


# --- interruptions --------------------------------------------------------------------------------


def tables(made: Prepared) -> tuple[bytes, list[pd.DataFrame]]:
    """The journal, and all tables that are results."""
    run = load_run(made.layout.root)
    frames = [run.predictions, run.folds_summary, run.models_summary, run.search, run.decisions]
    return made.layout.journal.read_bytes(), frames


def worked_in_any_way(
    prepare: Callable[[Path], Prepared], folder: Path, workers: int = 8, most: int = 6
) -> list[pd.DataFrame]:
    """The tables of a search that one worker did undisturbed, after holding its journal and them
    against those of up to so many workers, interrupted after at most so many cells.
    """
    undisturbed = prepare(folder / "one")
    work(SearchedCells(undisturbed), undisturbed.folds, workers=1)
    journal, frames = tables(undisturbed)
    for number in range(2):
        rng = random.Random(number)
        made = prepare(folder / f"interrupted {number}")
        while not (source := SearchedCells(made)).ended:
            at_once, until = rng.randrange(1, workers + 1), rng.randrange(1, most + 1)
            work(source, made.folds, at_once, rng, most=until)
        again, others = tables(made)
        assert again == journal
        for one, other in zip(frames, others, strict=True):
            pd.testing.assert_frame_equal(one, other, check_exact=True)
    return frames


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_a_repeatable_search_is_the_same_however_it_is_worked(tmp_path: Path, sampler: str) -> None:
    worked_in_any_way(lambda folder: prepared(folder, sampler=sampler), tmp_path)


def test_interrupted_otherwise_nothing_is_suggested_twice(tmp_path: Path) -> None:
    rng = random.Random(0)
    made = prepared(tmp_path, sampler="random", repeatable=False)
    trained = 0
    while not (source := SearchedCells(made)).ended:
        trained += work(source, made.folds, 3, rng, most=rng.randrange(1, 5))
    run = load_run(made.layout.root)
    assert not run.search["learning_rate"].duplicated().any()
    assert trained >= (run.cells["state"] == "done").sum()


def test_what_the_ledger_lost_is_trained_again_before_the_search_goes_on(tmp_path: Path) -> None:
    made = prepared(tmp_path)
    work(SearchedCells(made), made.folds, most=6)
    journal, _ = tables(made)
    source = SearchedCells(made)
    victim = next(entry for entry in source.entries if entry.state().state == "done")
    (victim.folder / "predictions.parquet").unlink()
    source = SearchedCells(made)
    (given,) = source.more()
    assert given.spec.key == victim.spec.key
    assert source.more() == []
    train(given, made.folds)
    source.through(given, None, 0.0)
    work(source, made.folds)
    assert source.ended
    assert made.layout.journal.read_bytes().startswith(journal)


def test_a_journal_of_another_search_is_refused(tmp_path: Path) -> None:
    made = prepared(tmp_path)
    work(SearchedCells(made), made.folds, most=3)
    with pytest.raises(RunFolderError, match="a search goes on as it began"):
        SearchedCells(prepared(tmp_path, sampler="random"))
    with pytest.raises(RunFolderError, match="a search goes on as it began"):
        SearchedCells(prepared(tmp_path, images=180))


# --- halted within epochs -------------------------------------------------------------------------


@pytest.mark.parametrize(("sampler", "seeds"), [("random", "[0]"), ("tpe", "[0, 7]")])
def test_what_is_halted_is_the_same_however_it_is_worked(
    tmp_path: Path, sampler: str, seeds: str
) -> None:
    """With more workers some first folds of the random ones are trained in full before anybody asks
    for them.
    """

    def prepare(folder: Path) -> Prepared:
        return prepared(folder, 16, sampler, seeds=seeds, epochs="asha")

    frames = worked_in_any_way(prepare, tmp_path, workers=16, most=8)
    assert frames[-1]["decision"].eq("halted").sum() > 2


def test_tables_say_what_was_halted_and_what_it_took(tmp_path: Path) -> None:
    made = prepared(tmp_path, 16, epochs="asha")
    source = SearchedCells(made)
    work(source, made.folds, workers=1)
    run = load_run(made.layout.root)
    halted = run.decisions[run.decisions["decision"] == "halted"].set_index("candidate")
    assert set(halted["epoch"]) <= {3, 9}
    assert (halted["score"] < halted["threshold"]).all()
    assert (halted["curves"] >= 3).all()
    first = run.cells[run.cells["fold"] == 0].set_index("candidate").loc[halted.index]
    assert (first["state"] == "stopped").all()
    assert (first["epochs"] == halted["epoch"]).all()
    assert (first["reason"] == halted["reason"]).all()
    search = run.search.set_index("candidate")
    (leads,) = search.loc[search["state"] == "leads", "estimate"]
    assert (search.loc[halted.index, "state"] == "stopped").all()
    assert (search.loc[halted.index, "estimate"] <= leads).all()
    assert "written" not in halted.index
    assert set(halted.index).isdisjoint(run.predictions["candidate"])
    assert run.models_summary.set_index("candidate").loc[halted.index, "auc_mean"].isna().all()
    write_reports(made.layout)
    assert "curves of this fold" in made.layout.report_text.read_text()


def test_a_cell_that_was_halted_by_other_curves_goes_on_where_it_stood(tmp_path: Path) -> None:
    made = prepared(tmp_path, 16, epochs="asha")
    work(SearchedCells(made), made.folds, workers=1)
    victim = next(entry for entry in SearchedCells(made).entries if entry.state().state == "halted")
    made.layout.journal.unlink()
    asked = prepared(tmp_path, 16, epochs="off")
    source = SearchedCells(asked)
    given, ladders = [], []
    while not source.ended:
        for entry in source.more():
            given.append(entry.spec.key)
            ladders.append(source.ladder(entry))
            train(entry, asked.folds)
            source.through(entry, None, 0.0)
    assert victim.spec.key in given
    assert ladders == [None] * len(given)
    assert load_run(asked.layout.root).cells["state"].isin(["done", "stopped"]).all()


# --- on Ray ---------------------------------------------------------------------------------------

ON_RAY = """
name: searched
data: {{source: folder, path: {path!r}}}
folds: {{k: 3}}
training: {{epochs: 5, learning_rate: 1.0e-6}}
search: {{candidates: 12, lag: 3, objective: log_loss, epoch_stopping: asha}}
candidates:
- {{name: written, model: TinyCNN, image_size: 32, learning_rate: {{loguniform: [1.0e-6, 1.0e-2]}}}}
"""
OUTCOME = re.compile('"(?:finished|halted)"')


@pytest.mark.slow
def test_a_search_that_is_killed_and_goes_on_is_the_undisturbed_one(
    spots: Path, tmp_path: Path
) -> None:
    file = tmp_path / "searched.yaml"
    file.write_text(ON_RAY.format(path=str(spots)))
    done = rayfold("run", file, "--run", tmp_path / "one")
    assert done.returncode == 0, done.stderr
    one = RunLayout(tmp_path / "one")
    for finished in (2, 6, 9):
        command = [sys.executable, "-m", "orchestrator", "run", file, "--run", tmp_path / "two"]
        process = subprocess.Popen(command, cwd=ROOT, start_new_session=True)
        journal = RunLayout(tmp_path / "two").journal
        while not journal.exists() or len(OUTCOME.findall(journal.read_text())) < finished:
            assert process.poll() is None
            time.sleep(0.2)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        time.sleep(3)
    done = rayfold("run", file, "--run", tmp_path / "two")
    assert done.returncode == 0, done.stderr
    two = RunLayout(tmp_path / "two")
    assert one.journal.read_bytes() == two.journal.read_bytes()
    for name in ("predictions", "folds_summary", "models_summary", "search", "decisions"):
        tables = [pd.read_parquet(layout.results / f"{name}.parquet") for layout in (one, two)]
        pd.testing.assert_frame_equal(*tables, check_exact=True)
    assert {"stopped", "halted"} <= set(load_run(one.root).decisions["decision"])
