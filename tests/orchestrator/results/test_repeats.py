"""Repeated folds: what a larger number of them asks for, and tables that count every image once in
each repeat.
"""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from orchestrator import load_run
from orchestrator.execution.cell_source import FixedCells
from orchestrator.execution.cells import Prepared, cell_entries
from orchestrator.execution.plan import plan_lines
from orchestrator.experiment.experiment_file import parse_experiment
from orchestrator.report.write_up import write_reports
from orchestrator.splits.folds import make_folds
from tests.orchestrator.results.test_run import ILL, finish, manifest_by_hand, predicted
from trainables.core.layout import RunLayout
from trainables.core.ledger import Entry
from trainables.training.metrics import score

EXPERIMENT = """
name: repeated
data: {{source: folder, path: images, classes: ["it's ill", well]}}
folds: {{k: 3{repeats}}}
training: {{epochs: 4}}
candidates: [{{name: only, model: TinyCNN}}]
seeds: [0, 7]
"""


def prepared(folder: Path, repeats: int) -> Prepared:
    stated = "" if repeats == 1 else f", repeats: {repeats}"
    experiment = parse_experiment(EXPERIMENT.format(repeats=stated), "repeated.yaml", folder)
    layout, manifest = RunLayout(folder / "run"), manifest_by_hand()
    folds = make_folds(manifest.usable, 3, "given", 0.1, 0, repeats)
    entries = cell_entries(experiment, layout, manifest, folds)
    made = Prepared(experiment, layout, manifest, folds, entries)
    made.save()
    return made


def train(entry: Entry, folds: pd.DataFrame) -> None:
    """As if: chance that differs from cell to cell."""
    rng = np.random.default_rng([entry.spec.fold, entry.spec.seed])
    own = folds[folds["fold"] == entry.spec.fold]
    parts = []
    for split in ("fold", "test"):
        part = own[own["role"] == split].sort_values("image")
        odds = np.where(part["label"] == ILL, 1.0, 0.0) + rng.normal(size=len(part))
        parts.append(predicted(part, split, 1 / (1 + np.exp(-odds))))
    finish(entry, folds, pd.concat(parts, ignore_index=True))


def test_more_repeats_ask_for_what_is_missing_alone(tmp_path: Path) -> None:
    keys: list[list[str]] = []
    for repeats in (1, 2, 3):
        made = prepared(tmp_path, repeats)
        keys.append([entry.spec.key for entry in made.entries])
        wanted = FixedCells(made.entries).more()
        assert sorted((e.spec.fold, e.spec.seed) for e in wanted) == [
            (fold, seed) for fold in range(3 * (repeats - 1), 3 * repeats) for seed in (0, 7)
        ]
        for entry in wanted:
            train(entry, made.folds)
        assert (load_run(made.layout.root).cells["state"] == "done").all()
    assert all(set(fewer) < set(more) for fewer, more in pairwise(keys))
    # Without repeats there is no word of them: runs of before have this file and these addresses.
    (tmp_path / "plain").mkdir()
    assert "repeats:" not in prepared(tmp_path / "plain", 1).layout.experiment.read_text()


def test_pooled_predictions_are_of_one_repeat_and_one_seed(tmp_path: Path) -> None:
    made = prepared(tmp_path, 2)
    for entry in made.entries:
        train(entry, made.folds)
    run = load_run(made.layout.root)
    own = run.predictions[run.predictions["split"] == "fold"]
    assert (own.groupby("image").size() == 4).all()  # 2 repeats × 2 seeds
    by_hand = []
    for seed in (0, 7):
        for folds in ((0, 1, 2), (3, 4, 5)):
            pool = own[own["fold"].isin(folds) & (own["seed"] == seed)]
            assert pool["image"].is_unique
            labels = np.where(pool["label"] == ILL, 0, 1)
            odds = pool["logit_it's ill"] - pool["logit_well"]
            by_hand.append(
                score(
                    labels,
                    pool[["prob_it's ill", "prob_well"]].to_numpy(),
                    run.classes,
                    np.stack([odds, -odds], axis=1),
                )["auc"]
            )
    (row,) = run.models_summary.to_dict("records")
    assert row["auc_oof"] == pytest.approx(np.mean(by_hand), abs=1e-12)
    assert row["auc_mean"] == pytest.approx(run.folds_summary["auc"].mean(), abs=1e-12)
    assert row["folds_done"] == 12
    assert run.folds_summary["auc"].nunique() > 6


def test_it_is_told_how_often_the_images_were_divided(tmp_path: Path) -> None:
    made = prepared(tmp_path, 2)
    for entry in made.entries:
        train(entry, made.folds)
    assert any("1 candidates × 3 folds × 2 repeats × 2 seeds" in e for e in plan_lines(made))
    write_reports(made.layout)
    text = " ".join(made.layout.report_text.read_text().split())
    assert "divided into 3 folds, stratified by class, with no group in two parts, 2 times" in text
    assert "12 cells: 3 folds × 2 repeats × 2 seeds" in text
    assert "of one repeat and one seed scored as one set, averaged over the 2 repeats" in text
