"""What a run showed, in sentences and tables of text, before anybody lays it out.

A number that does not exist is "–"; a candidate that is not complete has no averages and says so.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd
import yaml

from orchestrator.report.cautions import warnings_of
from orchestrator.report.data_summary import Table, describe_data
from orchestrator.report.explanations import explanation_tables, explanation_warnings
from orchestrator.report.method import describe_method
from orchestrator.report.style import METRIC_LABELS
from trainables.training.metrics import PER_CLASS

if TYPE_CHECKING:
    from orchestrator.results.run import Run

_NONE = "–"
_IDENTITY = ("Index", "id", "name", "model", "image_size", "parameters")


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


@dataclass(frozen=True)
class Findings:
    name: str
    started: str
    verdict: tuple[str, ...]
    numbers: tuple[tuple[str, str], ...]
    warnings: tuple[str, ...]
    comparison: Table
    candidates: tuple[CandidatePart, ...]
    best: str | None
    explanations: tuple[Table, ...]
    data: tuple[Table, ...]
    method: tuple[str, ...]
    unfinished: Table
    tracebacks: tuple[tuple[str, str], ...]
    provenance: Table
    experiment: str


def gather(run: "Run") -> Findings:
    """Everything a report says about `run`, ready to be laid out."""
    best = _best(run)
    names = _names(run)
    unfinished = tuple(
        (
            names[str(c.candidate)],
            str(c.fold),
            str(c.seed),
            str(c.state),
            str(c.attempts),
            str(c.reason or _NONE),
        )
        for c in run.cells[run.cells["state"] != "done"].itertuples()
    )
    tracebacks = tuple(
        (
            f"{names[f['candidate']]}, fold {f['fold']}, seed {f['seed']}",
            str(f["traceback"] or f["reason"]),
        )
        for f in run.failures()
    )
    columns = ("Candidate", "Fold", "Seed", "State", "Attempts", "Reason")
    return Findings(
        name=run.name,
        started=next((str(i["started"]) for i in _invocations(run)), _NONE)
        .replace("T", " ")
        .replace("+00:00", " UTC"),
        verdict=tuple(_verdict(run, best)),
        numbers=tuple(_key_numbers(run, best)),
        warnings=(*warnings_of(run, names), *explanation_warnings(run, names)),
        comparison=_comparison(run, best),
        candidates=tuple(_candidate(run, candidate) for candidate in run.candidates.itertuples()),
        best=None if best is None else str(best["candidate"]),
        explanations=tuple(explanation_tables(run, names)),
        data=tuple(describe_data(run)),
        method=tuple(describe_method(run)),
        unfinished=Table("Cells that are not done", columns, unfinished, left=6),
        tracebacks=tracebacks,
        provenance=Table("Provenance", ("What", "Value"), tuple(_flat(run.provenance)), left=2),
        experiment=yaml.safe_dump(run.experiment, sort_keys=False, allow_unicode=True, width=100),
    )


def _names(run: "Run") -> dict[str, str]:
    return {
        str(key): str(name)
        for key, name in zip(run.candidates["id"], run.candidates["name"], strict=True)
    }


def _invocations(run: "Run") -> list[dict[str, Any]]:
    """The commands that worked on this run, the first one first."""
    return list(run.provenance.get("invocations", []))


def _complete(run: "Run") -> pd.DataFrame:
    models = run.models_summary
    return models[(models["folds_missing"] == 0) & models["auc_oof"].notna()]


def _best(run: "Run") -> "pd.Series[Any] | None":
    """The row of the complete candidate with the highest pooled out-of-fold AUC; the first of
    equals.
    """
    complete = _complete(run)
    return complete.iloc[int(complete["auc_oof"].to_numpy().argmax())] if len(complete) else None


def _verdict(run: "Run", best: "pd.Series[Any] | None") -> Iterator[str]:
    if best is None:
        yield "No candidate is complete, so none is called the best."
        return
    names, complete = _names(run), _complete(run)
    others = complete[complete["candidate"] != best["candidate"]].sort_values(
        "auc_oof", ascending=False, kind="stable"
    )
    name, score = names[best["candidate"]], _three(best["auc_oof"])
    unit = "fold" if _seeds(run) == 1 else "cell"
    spread = f"{unit} mean {_spread(best, 'auc')}"
    if len(others):
        second, gap = others.iloc[0], best["auc_oof"] - others.iloc[0]["auc_oof"]
        tied = [
            name,
            *(
                names[other]
                for other in others.loc[others["auc_oof"] == best["auc_oof"], "candidate"]
            ),
        ]
        compared = (
            f"Of {len(complete)} complete candidates, {' and '.join(tied)} "
            f"{'has' if gap else 'have'}"
        )
        yield (
            f"{compared} the highest pooled out-of-fold AUC: {score} "
            f"({'' if gap else f'{name}: '}{spread})."
        )
        if not gap:
            yield (
                "They tie: the one that is named first is the first in the experiment, and no "
                "better by this score."
            )
        elif gap < best["auc_std"]:
            yield (
                f"{names[second['candidate']]} is {_three(gap)} behind, less than the standard "
                f"deviation over {_units(run)}: do not read a ranking into this difference."
            )
        yield (
            "Choosing the best by a score makes that very score optimistic. On the test set, which "
            f"had no part in the choice, {_on_test(best)}."
        )
    else:
        yield (
            f"{name} reaches a pooled out-of-fold AUC of {score} ({spread}). On the test set "
            f"{_on_test(best)}."
        )
    if left := len(run.candidates) - len(complete):
        yield (
            f"{left} of {len(run.candidates)} candidates {'is' if left == 1 else 'are'} incomplete "
            "and not ranked."
        )


def _on_test(model: "pd.Series[Any]") -> str:
    """A single model is what fold scores speak of; the ensemble, which is better, is another
    thing.
    """
    single, ensemble = _three(model["auc_test_mean"]), _three(model["auc_test_ensemble"])
    return f"its single models reach an AUC of {single} on average, their ensemble {ensemble}"


def _key_numbers(run: "Run", best: "pd.Series[Any] | None") -> Iterator[tuple[str, str]]:
    images = run.folds.drop_duplicates("image")
    done = int((run.cells["state"] == "done").sum())
    if best is not None:
        yield "AUC, pooled out-of-fold", _three(best["auc_oof"])
        yield "AUC, test ensemble", _three(best["auc_test_ensemble"])
    yield "cells done", f"{done} of {len(run.cells)}"
    yield "candidates", str(len(run.candidates))
    yield "folds", str(run.folds["fold"].nunique())
    if _seeds(run) > 1:
        yield "seeds", str(_seeds(run))
    yield "images", f"{len(images):,}"
    yield "groups", f"{images['group'].nunique():,}"


def _comparison(run: "Run", best: "pd.Series[Any] | None") -> Table:
    rows = []
    for identity, name in _names(run).items():
        model = _model(run, identity)
        means = [
            _spread(model, metric)
            for metric in ("auc", "accuracy", "balanced_accuracy", "f1", "mcc")
        ]
        scores = [_three(model["auc_oof"]), _three(model["auc_test_ensemble"])]
        rows.append((name, _progress(run, identity), *scores, *means))
    metrics = ("AUC", "Accuracy", "Balanced accuracy", "F1", "MCC")
    columns = ("Candidate", "Done", "AUC, pooled OOF", "AUC, test ensemble", *metrics)
    marked = None if best is None else list(run.candidates["id"]).index(best["candidate"])
    return Table(
        f"Candidates (mean ± standard deviation over {_units(run)})",
        columns,
        tuple(rows),
        left=2,
        best=marked,
    )


def _seeds(run: "Run") -> int:
    return int(run.cells["seed"].nunique())


def _units(run: "Run") -> str:
    """What a candidate's mean and deviation are over; images count once per seed, so cells are not
    called folds.
    """
    folds, seeds = run.folds["fold"].nunique(), _seeds(run)
    return "the folds" if seeds == 1 else f"{folds * seeds} cells: {folds} folds × {seeds} seeds"


def _model(run: "Run", candidate: str) -> "pd.Series[Any]":
    return run.models_summary[run.models_summary["candidate"] == candidate].iloc[0]


def _progress(run: "Run", candidate: str) -> str:
    states = run.cells.loc[run.cells["candidate"] == candidate, "state"]
    unit = "folds" if _seeds(run) == 1 else "cells"
    return f"{int((states == 'done').sum())} of {len(states)} {unit}"


def _candidate(run: "Run", candidate: Any) -> CandidatePart:
    model = _model(run, candidate.id)
    kinds = ("oof", "test_mean", "test_ensemble")
    rows = [
        (label, _spread(model, metric), *(_three(model[f"{metric}_{kind}"]) for kind in kinds))
        for metric, label in METRIC_LABELS.items()
    ]
    columns = ("Metric", "Mean ± std", "Pooled out-of-fold", "Test, mean", "Test, ensemble")
    fields = candidate._asdict()
    parameters = (
        "" if pd.isna(candidate.parameters) else f", {int(candidate.parameters):,} parameters"
    )
    stated = {
        key: value for key, value in fields.items() if isinstance(value, list) or pd.notna(value)
    }
    settings = [f"{key} {_setting(value)}" for key, value in stated.items() if key not in _IDENTITY]
    return CandidatePart(
        id=str(candidate.id),
        name=str(candidate.name),
        progress=_progress(run, candidate.id),
        complete=bool(model["folds_missing"] == 0),
        settings="; ".join(
            [f"{candidate.model}, {candidate.image_size} px{parameters}", *settings]
        ),
        metrics=Table(
            f"All metrics (mean ± standard deviation over {_units(run)})", columns, tuple(rows)
        ),
        folds=_folds(run, candidate.id),
        per_class=_per_class(run, candidate.id, complete=bool(model["folds_missing"] == 0)),
    )


def _setting(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _folds(run: "Run", candidate: str) -> Table:
    keys = ["candidate", "fold", "seed"]
    table = run.folds_summary[run.folds_summary["candidate"] == candidate]
    table = table.merge(
        run.cells[[*keys, "epochs", "best_epoch", "seconds_total"]], on=keys, how="left"
    )
    rows = []
    for _, row in table.iterrows():
        done = row["state"] == "done"
        epoch = (
            f"{row['best_epoch']:.0f} of {row['epochs']:.0f}"
            if done and pd.notna(row["best_epoch"])
            else _NONE
        )
        minutes = f"{row['seconds_total'] / 60:.1f}" if done else _NONE
        scores = [_three(row[metric]) for metric in METRIC_LABELS]
        rows.append(
            (
                str(row["fold"]),
                str(row["seed"]),
                row["state"],
                f"{row['n_fold']:.0f}",
                *scores,
                epoch,
                minutes,
            )
        )
    columns = ("Fold", "Seed", "State", "Images", *METRIC_LABELS.values(), "Best epoch", "Minutes")
    return Table(
        "Each fold" if _seeds(run) == 1 else "Each fold and seed", columns, tuple(rows), left=3
    )


def _per_class(run: "Run", candidate: str, complete: bool) -> Table:
    """Mean ± standard deviation over the cells; nothing where one is missing."""
    table = run.folds_summary[run.folds_summary["candidate"] == candidate]
    rows = []
    for label in run.classes:
        columns = [table[f"{metric}_{label}"] for metric in PER_CLASS]
        means = [
            _pair(c.mean(skipna=False), c.std(skipna=False)) if complete else _NONE for c in columns
        ]
        rows.append((label, *means))
    title = f"Each class (mean ± standard deviation over {_units(run)})"
    return Table(title, ("Class", *(METRIC_LABELS[metric] for metric in PER_CLASS)), tuple(rows))


# --- words and numbers ----------------------------------------------------------------------------


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Rows of a nested mapping: dotted key, value."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        elif isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
            yield from _flat({f"{key}[{index}]": item for index, item in enumerate(value)}, prefix)
        elif isinstance(value, list):
            yield f"{prefix}{key}", ", ".join(map(str, value)) or _NONE
        else:
            yield f"{prefix}{key}", _NONE if value is None else str(value)


def _three(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else _NONE


def _pair(mean: float, std: float) -> str:
    """Mean ± standard deviation; a single fold has no deviation."""
    return (
        f"{_three(mean)} ± {_three(std)}"
        if math.isfinite(mean) and math.isfinite(std)
        else _three(mean)
    )


def _spread(model: "pd.Series[Any]", metric: str) -> str:
    return _pair(model[f"{metric}_mean"], model[f"{metric}_std"])
