"""What a report says of one candidate: its settings, and its scores overall, by fold and by
class.
"""

from dataclasses import dataclass
from typing import Any

import pandas as pd

from orchestrator.report.facts import CandidateFacts, Facts
from orchestrator.report.style import METRIC_LABELS
from orchestrator.report.tables import NONE, Table, plus_minus, three
from trainables.training.metrics import PER_CLASS

_IDENTITY = ("id", "name", "model", "image_size", "parameters")
_CELL = ["candidate", "fold", "seed"]


@dataclass(frozen=True)
class CandidatePart:
    id: str
    name: str
    progress: str
    complete: bool
    settings: str
    metrics: Table
    folds: Table
    per_class: Table


def describe_candidate(facts: Facts, candidate: CandidateFacts) -> CandidatePart:
    kinds = ("oof", "test_mean", "test_ensemble")
    rows = []
    for metric, label in METRIC_LABELS.items():
        scores = [three(candidate.summary[f"{metric}_{kind}"]) for kind in kinds]
        rows.append((label, spread(candidate.summary, metric), *scores))
    columns = ("Metric", "Mean ± std", "Pooled out-of-fold", "Test, mean", "Test, ensemble")
    title = f"All metrics (mean ± standard deviation over {units(facts)})"
    return CandidatePart(
        id=candidate.id,
        name=candidate.name,
        progress=candidate.progress,
        complete=candidate.complete,
        settings=_settings(candidate),
        metrics=Table(title, columns, tuple(rows)),
        folds=_folds(candidate),
        per_class=_per_class(facts, candidate),
    )


def units(facts: Facts) -> str:
    """What a candidate's mean and deviation are over; images count once per repeat and seed, so
    cells are not called folds.
    """
    numbers = {"folds": facts.k, "repeats": facts.repeats, "seeds": len(facts.seeds)}
    product = " × ".join(f"{n} {unit}" for unit, n in numbers.items() if n > 1)
    if len(facts.seeds) > 1:
        return f"{facts.n_folds * len(facts.seeds)} cells: {product}"
    return product if facts.repeats > 1 else "the folds"


def spread(summary: "pd.Series[Any]", metric: str) -> str:
    """A metric's mean ± standard deviation over a candidate's cells."""
    return plus_minus(summary[f"{metric}_mean"], summary[f"{metric}_std"])


def _settings(candidate: CandidateFacts) -> str:
    settings = candidate.settings
    parameters = settings["parameters"]
    counted = "" if pd.isna(parameters) else f", {int(parameters):,} parameters"
    stated = [f"{settings['model']}, {settings['image_size']} px{counted}"]
    left_out = {*_IDENTITY, "dropout"} if ":" in settings["model"] else _IDENTITY  # its own
    for key, value in settings.items():
        if key not in left_out and (isinstance(value, list) or pd.notna(value)):
            stated.append(f"{key} {value:g}" if isinstance(value, float) else f"{key} {value}")
    return "; ".join(stated)


def _folds(candidate: CandidateFacts) -> Table:
    costs = candidate.cells[[*_CELL, "epochs", "best_epoch", "seconds_total"]]
    rows = []
    for _, row in candidate.folds_summary.merge(costs, on=_CELL, how="left").iterrows():
        epoch = minutes = NONE
        if row["state"] == "done":
            minutes = f"{row['seconds_total'] / 60:.1f}"
            if pd.notna(row["best_epoch"]):
                epoch = f"{row['best_epoch']:.0f} of {row['epochs']:.0f}"
        cell = (str(row["fold"]), str(row["seed"]), row["state"], f"{row['n_fold']:.0f}")
        scores = [three(row[metric]) for metric in METRIC_LABELS]
        rows.append((*cell, *scores, epoch, minutes))
    columns = ("Fold", "Seed", "State", "Images", *METRIC_LABELS.values(), "Best epoch", "Minutes")
    title = "Each fold" if candidate.unit == "fold" else "Each fold and seed"
    return Table(title, columns, tuple(rows), left=3)


def _per_class(facts: Facts, candidate: CandidateFacts) -> Table:
    """Mean ± standard deviation over the cells; nothing where one is missing."""
    rows = []
    for label in facts.classes:
        scores = [candidate.folds_summary[f"{metric}_{label}"] for metric in PER_CLASS]
        rows.append((label, *(_over_cells(each, candidate.complete) for each in scores)))
    title = f"Each class (mean ± standard deviation over {units(facts)})"
    return Table(title, ("Class", *(METRIC_LABELS[metric] for metric in PER_CLASS)), tuple(rows))


def _over_cells(scores: "pd.Series[Any]", complete: bool) -> str:
    if not complete:
        return NONE
    return plus_minus(scores.mean(skipna=False), scores.std(skipna=False))
