"""What a report says of a search: what it took and saved, what it gained, and who went how far."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from orchestrator.experiment.search_space import Parameter
from orchestrator.report.candidate_part import spread
from orchestrator.report.facts import Facts, SearchFacts
from orchestrator.report.style import METRIC_LABELS
from orchestrator.report.tables import NONE, Table, three
from trainables.core.spelling import count

_EDGE = 0.05  # of a range: what lies nearer to its end lies at it
_SAMPLERS = {
    "grid": "Every combination",
    "random": "Random draws",
    "tpe": "Optuna's TPE sampler",
    "gp": "Optuna's Gaussian process sampler",
    "cmaes": "Optuna's CMA-ES sampler",
}


def describe_search(facts: Facts) -> Iterator[str]:
    """In sentences: what was searched, how, at what cost, and with what gain."""
    search = facts.search
    if search is None:
        return
    yield from _how(search)
    yield from _finals(facts, search)
    yield from _risk(search)
    yield from _cost(search)
    yield from _no_gain(facts, search)
    yield from _importance(search)


def search_verdict(facts: Facts) -> Iterator[str]:
    """Who leads, by what score, what tuning gained, and what the test set says."""
    search = facts.search
    assert search is not None
    leader = next((each for each in facts.candidates if each.id == search.leader), None)
    tried, stopped = len(search.table), int((search.table["state"] == "stopped").sum())
    if leader is None or not leader.complete:
        so_far = f"; so far {leader.name} is expected to be the best" if leader else ""
        yield f"The search has not come to a candidate with all of its folds{so_far}."
        return
    metric = search.settings.objective
    unit = "folds" if len(facts.seeds) == 1 else "cells"
    yield (
        f"Of {tried} candidates, {stopped} of them stopped early, {leader.name} has the best mean "
        f"{METRIC_LABELS[metric]} over its {unit}: {spread(leader.summary, metric)}."
    )
    if (gain := search.gain) is not None:
        yield (
            f"That is {gain.difference:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}] against the "
            "candidate as it was written (95 % interval, patients resampled within folds)."
        )
    single, ensemble = (
        leader.summary[f"{metric}_{kind}"] for kind in ("test_mean", "test_ensemble")
    )
    yield (
        f"The best of {tried} by a score has that very score too high. On the test set, which had "
        f"no part in the choice, its single models reach {three(single)} on average, their "
        f"ensemble {three(ensemble)}."
    )


def search_warnings(facts: Facts) -> Iterator[str]:
    """Where a search should be widened, or has not come to its end."""
    search = facts.search
    if search is None:
        return
    if search.searched.standings.ended is None:
        yield "The search has not ended: another candidate may yet take the lead."
    leader = search.table[search.table["state"] == "leads"]
    if leader.empty or leader["number"].item() == 0:
        return
    for parameter in search.parameters:
        value = leader[parameter.name].item()
        if (end := _end(parameter, value)) is not None:
            yield (
                f"{parameter.name} {value:g} of the leading candidate lies at the {end} end of its "
                f"range, {parameter.low:g} to {parameter.high:g}: the best value may lie outside."
            )


def search_tables(facts: Facts) -> Iterator[Table]:
    """All candidates in the order of the race, what was decided, and what it took."""
    search = facts.search
    if search is None:
        return
    names = [parameter.name for parameter in search.parameters]
    rows = []
    for row in search.table.to_dict("records"):
        asked = search.searched.folds.get(row["candidate"], facts.n_folds)
        folds = f"{row['folds']} of {asked}"
        values = [_value(row[name]) for name in names]
        rows.append((row["candidate"], row["state"], folds, three(row["estimate"]), *values))
    estimate = f"{search.label}, expected mean"
    columns = ("Candidate", "State", "Folds", estimate, *names)
    yield Table("All candidates of the search, the best first", columns, tuple(rows), left=2)
    told = [
        (
            str(row.candidate),
            str(row.decision),
            _folds(row.folds),
            _text(row.against),
            _probability(float(str(row.probability))),
            _text(row.reason),
        )
        for row in search.decisions.itertuples()
    ]
    columns = ("Candidate", "Decision", "After folds", "Against", "P(best)", "Reason")
    if told:
        yield Table("Decisions, in order", columns, tuple(told), left=6)
    yield _effort_table(search)


def _how(search: SearchFacts) -> Iterator[str]:
    settings, standings = search.settings, search.searched.standings
    suggested = sum(each.space is not None and each.runs for each in standings.candidates)
    stated = sum(each.space is None for each in standings.candidates)
    yield (
        f"{_SAMPLERS[settings.sampler]} suggested {count(suggested, 'candidate')} beside "
        f"{stated} as written, for the highest mean of {search.label} over the folds."
        if suggested
        else f"{count(stated, 'candidate')} raced for the highest mean of {search.label} over the "
        "folds."
    )
    for row in search.searched.rows:
        if row["event"] == "prior" and row["candidates"]:
            yield (
                f"From the start the sampler knew {count(len(row['candidates']), 'candidate')} of "
                f"{row['run']}"
                + ("." if row["same_data"] else ", by their order, since data or folds are others.")
            )
    if settings.racing != "off":
        stopped = int((search.decisions["decision"] == "stopped").sum())
        bound = (
            f": those less than {settings.bound:g} times as likely to end up best as the leader"
            if settings.racing == "paired"
            else ""
        )
        yield (
            f"Racing ({settings.racing}) stopped {stopped} of them before their last fold{bound}. "
            "A stopped candidate has no averages; its expected mean takes the other folds from how "
            "hard they were for others."
        )


def _finals(facts: Facts, search: SearchFacts) -> Iterator[str]:
    """Who went on to further repeats, and why."""
    searched, config = search.searched, search.settings.finalists
    standings = searched.standings
    if config is None or not standings.finalists:
        return
    names = ", ".join(searched.ids[number] for number in standings.finalists)
    chosen = next(r["reason"] for r in reversed(searched.rows) if r["event"] == "finalists")
    yield (
        f"Finalists: {names}, {chosen}. They got the folds of {config.repeats} repeats, "
        f"{facts.k} folds each, and the best of them by the mean over all of these wins; the mean "
        "and deviation of others are over the folds of the race alone."
    )


def _risk(search: SearchFacts) -> Iterator[str]:
    """What stopping risked in all, by what the race itself held for probable."""
    risk = search.searched.risk
    if not risk.stopped:
        return
    bound = (
        "the chance that the best one was among them is at most that"
        if risk.probability < 1
        else "which says nothing about the chance that the best one was among them"
    )
    yield (
        f"The probabilities of the {count(risk.stopped, 'stopped candidate')} to end up best of "
        f"those that there were then add up to {risk.probability:.2g}: {bound}."
    )


def _cost(search: SearchFacts) -> Iterator[str]:
    effort = search.effort
    done = search.cells[search.cells["state"] == "done"]
    halted = int(((search.cells["state"] == "stopped") & (search.cells["epochs"] > 0)).sum())
    of_halted = f", the first epochs of {halted:,} more" if halted else ""
    trained = [effort.run, effort.further, effort.broken_off]
    every, further = effort.full.cells, effort.further.cells
    saved = (effort.saved.cells - halted) / every if every else 0.0
    yield (
        f"It took {len(done):,} cells{of_halted}, {sum(w.epochs for w in trained):,.0f} epochs and "
        f"{sum(w.hours for w in trained):.2g} {effort.unit}; every fold of the same candidates "
        f"would have been {every:,} cells: {saved:.0%} saved"
        + (f", {further:,} cells of finalists' further repeats not counted." if further else ".")
    )
    for run, number in done["taken_from"].value_counts().items():
        if run:
            yield f"Of them {count(number, 'cell')} had been trained by {run!s} and taken."


def _effort_table(search: SearchFacts) -> Table:
    effort = search.effort
    rows = {
        "Run, and part of the results": effort.run,
        "Taken from earlier runs": effort.taken,
        "Broken off, failed or trained in vain": effort.broken_off,
        "Saved (estimated)": effort.saved,
        "Full cross-validation of the same (estimated)": effort.full,
        "Finalists' further repeats": effort.further,
    }
    return Table(
        "What the search took; cells that were not needed are taken for the mean of those of their "
        "candidate or architecture",
        ("", "Cells", "Epochs", effort.unit[0].upper() + effort.unit[1:]),
        tuple(
            (what, f"{work.cells:,}", f"{work.epochs:,.0f}", f"{work.hours:.3g}")
            for what, work in rows.items()
            if work.cells
        ),
    )


def _importance(search: SearchFacts) -> Iterator[str]:
    found = search.importance
    if isinstance(found, str):
        if search.parameters:
            yield found
        return
    shares = ", ".join(f"{name} {share:.0%}" for name, share in found.shares.items())
    few = (
        f" Left out, since they count in too few candidates: {', '.join(found.left_out)}."
        if found.left_out
        else ""
    )
    yield (
        f"Importance by {found.method}, from {found.candidates} candidates, {found.estimated} of "
        f"them with estimated means: {shares}.{few}"
    )


def _no_gain(facts: Facts, search: SearchFacts) -> Iterator[str]:
    if search.searched.standings.ahead == 0:
        reference = facts.names.get(search.reference, search.reference)
        yield f"No candidate is expected to be better than {reference}, the one as written."


def _end(parameter: Parameter, value: Any) -> str | None:
    """At which end of its range a value lies; None where it lies within, or there is no range."""
    if parameter.kind == "choice" or not isinstance(value, int | float) or pd.isna(value):
        return None
    (low, high), at = parameter.ends, float(value)
    if parameter.kind == "loguniform":
        low, high, at = np.log([low, high, at])
    place = (at - low) / (high - low)
    return "lower" if place <= _EDGE else "upper" if place >= 1 - _EDGE else None


def _value(value: Any) -> str:
    if value is None or (isinstance(value, float) and pd.isna(value)):
        return NONE
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _text(value: Any) -> str:
    return NONE if value is None or pd.isna(value) else str(value)


def _folds(value: Any) -> str:
    return NONE if pd.isna(value) else str(value).replace(" ", ", ")


def _probability(value: float) -> str:
    return NONE if pd.isna(value) else "< 0.001" if value < 0.001 else three(value)
