"""What a run showed, in sentences and tables of text, before anybody lays it out.

A number that does not exist is "–"; a candidate that is not complete has no averages and says so.
"""

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
import yaml

from orchestrator.report.candidate_part import CandidatePart, describe_candidate, spread, units
from orchestrator.report.cautions import warnings_of
from orchestrator.report.data_summary import describe_data
from orchestrator.report.explanations import explanation_tables, explanation_warnings
from orchestrator.report.facts import Facts
from orchestrator.report.method import describe_method
from orchestrator.report.race_view import RaceView, race_view
from orchestrator.report.search_part import (
    describe_search,
    search_tables,
    search_verdict,
    search_warnings,
)
from orchestrator.report.tables import NONE, Table, three


@dataclass(frozen=True)
class Findings:
    name: str
    started: str
    verdict: tuple[str, ...]
    numbers: tuple[tuple[str, str], ...]
    warnings: tuple[str, ...]
    comparison: Table
    search: tuple[str, ...]
    race: RaceView | None
    search_tables: tuple[Table, ...]
    candidates: tuple[CandidatePart, ...]
    best: str | None
    explanations: tuple[Table, ...]
    data: tuple[Table, ...]
    method: tuple[str, ...]
    unfinished: Table
    tracebacks: tuple[tuple[str, str], ...]
    provenance: Table
    experiment: str


def find(facts: Facts) -> Findings:
    """Everything a report says, ready to be laid out."""
    best = _best(facts)
    started = next((str(each["started"]) for each in facts.invocations if "started" in each), NONE)
    return Findings(
        name=facts.name,
        started=started.replace("T", " ").replace("+00:00", " UTC"),
        verdict=tuple(_verdict(facts, best) if facts.search is None else search_verdict(facts)),
        numbers=tuple(_key_numbers(facts, best)),
        warnings=(*search_warnings(facts), *warnings_of(facts), *explanation_warnings(facts)),
        comparison=_comparison(facts, best),
        search=tuple(describe_search(facts)),
        race=None if facts.search is None else race_view(facts.search),
        search_tables=tuple(search_tables(facts)),
        candidates=tuple(describe_candidate(facts, each) for each in facts.candidates),
        best=None if best is None else str(best["candidate"]),
        explanations=tuple(explanation_tables(facts)),
        data=tuple(describe_data(facts)),
        method=tuple(describe_method(facts)),
        unfinished=_unfinished(facts),
        tracebacks=tuple(_tracebacks(facts)),
        provenance=Table("Provenance", ("What", "Value"), tuple(_flat(facts.provenance)), left=2),
        experiment=yaml.safe_dump(facts.experiment, sort_keys=False, allow_unicode=True, width=100),
    )


def _unfinished(facts: Facts) -> Table:
    rows = []
    for cell in facts.cells[~facts.cells["state"].isin(["done", "stopped"])].itertuples():
        told = (cell.fold, cell.seed, cell.state, cell.attempts, cell.reason or NONE)
        rows.append((facts.names[str(cell.candidate)], *map(str, told)))
    columns = ("Candidate", "Fold", "Seed", "State", "Attempts", "Reason")
    return Table("Cells that are not done", columns, tuple(rows), left=6)


def _tracebacks(facts: Facts) -> Iterator[tuple[str, str]]:
    """The name of each failed cell, with what it raised."""
    for cell in facts.failures:
        name = f"{facts.names[cell['candidate']]}, fold {cell['fold']}, seed {cell['seed']}"
        yield name, str(cell["traceback"] or cell["reason"])


def _complete(facts: Facts) -> pd.DataFrame:
    models = facts.models_summary
    return models[(models["folds_missing"] == 0) & models["auc_oof"].notna()]


def _best(facts: Facts) -> "pd.Series[Any] | None":
    """The row of the complete candidate with the highest pooled out-of-fold AUC, the first of
    equals; of a search, of its leader, since the search chose by another score.
    """
    complete = _complete(facts)
    if facts.search is not None:
        leader = complete[complete["candidate"] == facts.search.leader]
        return leader.iloc[0] if len(leader) else None
    return complete.iloc[int(complete["auc_oof"].to_numpy().argmax())] if len(complete) else None


def _verdict(facts: Facts, best: "pd.Series[Any] | None") -> Iterator[str]:
    if best is None:
        yield "No candidate is complete, so none is called the best."
        return
    names, complete = facts.names, _complete(facts)
    others = complete[complete["candidate"] != best["candidate"]].sort_values(
        "auc_oof", ascending=False, kind="stable"
    )
    name, score = names[best["candidate"]], three(best["auc_oof"])
    unit = "fold" if len(facts.seeds) == 1 else "cell"
    mean = f"{unit} mean {spread(best, 'auc')}"
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
            f"({'' if gap else f'{name}: '}{mean})."
        )
        if not gap:
            yield (
                "They tie: the one that is named first is the first in the experiment, and no "
                "better by this score."
            )
        elif gap < best["auc_std"]:
            seconds = others.loc[others["auc_oof"] == second["auc_oof"], "candidate"]
            yield (
                f"{' and '.join(names[each] for each in seconds)} "
                f"{'is' if len(seconds) == 1 else 'are'} {three(gap)} behind, less than the "
                f"standard deviation over {units(facts)}: do not read a ranking into this "
                "difference."
            )
        yield (
            "Choosing the best by a score makes that very score optimistic. On the test set, which "
            f"had no part in the choice, {_on_test(best)}."
        )
    else:
        yield (
            f"{name} reaches a pooled out-of-fold AUC of {score} ({mean}). On the test set "
            f"{_on_test(best)}."
        )
    if left := len(facts.candidates) - len(complete):
        yield (
            f"{left} of {len(facts.candidates)} candidates {'is' if left == 1 else 'are'} "
            "incomplete and not ranked."
        )


def _on_test(model: "pd.Series[Any]") -> str:
    """A single model is what fold scores speak of; the ensemble, which is better, is another
    thing.
    """
    single, ensemble = three(model["auc_test_mean"]), three(model["auc_test_ensemble"])
    return f"its single models reach an AUC of {single} on average, their ensemble {ensemble}"


def _key_numbers(facts: Facts, best: "pd.Series[Any] | None") -> Iterator[tuple[str, str]]:
    images = facts.folds.drop_duplicates("image")
    if best is not None:
        yield "AUC, pooled out-of-fold", three(best["auc_oof"])
        yield "AUC, test ensemble", three(best["auc_test_ensemble"])
    if facts.search is None:
        yield "cells done", f"{len(facts.done)} of {len(facts.cells)}"
        yield "candidates", str(len(facts.candidates))
    else:
        cells = facts.search.cells
        yield "cells done", str(int((cells["state"] == "done").sum()))
        yield "candidates", f"{len(facts.search.table):,}"
    yield "folds", str(facts.k) if facts.repeats == 1 else f"{facts.k} × {facts.repeats} repeats"
    if len(facts.seeds) > 1:
        yield "seeds", str(len(facts.seeds))
    yield "images", f"{len(images):,}"
    yield "groups", f"{images['group'].nunique():,}"


def _comparison(facts: Facts, best: "pd.Series[Any] | None") -> Table:
    rows = []
    for candidate in facts.candidates:
        model = candidate.summary
        means = [
            spread(model, metric)
            for metric in ("auc", "accuracy", "balanced_accuracy", "f1", "mcc")
        ]
        scores = [three(model["auc_oof"]), three(model["auc_test_ensemble"])]
        rows.append((candidate.name, candidate.progress, *scores, *means))
    metrics = ("AUC", "Accuracy", "Balanced accuracy", "F1", "MCC")
    return Table(
        f"Candidates (mean ± standard deviation over {units(facts)})",
        ("Candidate", "Done", "AUC, pooled OOF", "AUC, test ensemble", *metrics),
        tuple(rows),
        left=2,
        best=None if best is None else list(facts.names).index(best["candidate"]),
    )


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Rows of a nested mapping: dotted key, value."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        elif isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
            yield from _flat({f"{key}[{index}]": item for index, item in enumerate(value)}, prefix)
        elif isinstance(value, list):
            words = list(map(str, value))
            said = shlex.join(words) if key == "command_line" else ", ".join(words)
            yield f"{prefix}{key}", said or NONE
        else:
            yield f"{prefix}{key}", NONE if value is None else str(value)
