"""`rayfold status`."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.common import RunFolder, say

if TYPE_CHECKING:
    from orchestrator.results.run import Run
    from orchestrator.results.search_effort import ToGo, Work


def status(
    run: RunFolder,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object, for programs.")] = False,
) -> None:
    # Slow to import, and of no use to whoever asks for help.
    from orchestrator.results.run import load_run

    opened = load_run(run)
    if as_json:
        typer.echo(json.dumps(_facts(opened)))
        return
    cells = opened.cells
    counts = ", ".join(f"{count} {state}" for state, count in cells["state"].value_counts().items())
    at_work = " and ".join(_at_work(opened))
    say(f"{opened.name}: {len(cells)} cells: {counts}; {at_work or 'nobody is at work'}")
    if opened.searched is not None:
        for line in _race(opened):
            say(line)
        begun = (cells["state"] != "missing") | (cells["epochs"] > 0)
        cells = cells[begun & ~cells["state"].isin(["done", "stopped"])]
    for row in cells.itertuples():
        best = "" if str(row.best_epoch) == "<NA>" else f", best {row.best_epoch}"
        cell = f"{row.candidate} fold {row.fold} seed {row.seed}"
        say(f"{row.state:8} {cell}: epoch {row.epochs}{best} {row.reason}".rstrip())
    # And what is wrong with the folds, where something is.
    say(f"images   {opened.folds['image'].nunique():,}")


_SHOWN = 10  # candidates of a search
_WIDTH = 100  # columns


def _race(run: "Run") -> Iterator[str]:
    """How a search stands: its candidates by state, the best of them, its cost, what is to come."""
    from orchestrator.results.search_effort import search_effort, search_to_go

    search = run.search
    states = search["state"].value_counts()
    yield f"search   {len(search)} candidates: " + ", ".join(
        f"{count} {state}" for state, count in states.items()
    )
    best = search[search["state"] != "lost"].sort_values("estimate", ascending=False)
    best = best.sort_values("state", key=lambda state: state != "leads", kind="stable")
    for row in best.head(_SHOWN).itertuples():
        expected = "" if row.folds == 0 else f"{row.estimate:.4f} expected, "
        line = f"{row.state:8} {row.candidate}: {expected}{row.folds} folds done"
        yield _fitting(line if str(row.name) == str(row.candidate) else f"{line}, {row.name}")
    if len(best) > _SHOWN:
        yield f"         {len(best) - _SHOWN} more: results/search.csv has them all"
    effort = search_effort(run)
    for word, work, told in (
        ("run", effort.run, ""),
        ("taken", effort.taken, " by earlier runs"),
        ("further", effort.further, " of finalists"),
        ("in vain", effort.broken_off, ", begun and broken off"),
    ):
        if work.cells or word == "run":
            yield f"{word:8} {_work(work, effort.unit)}{told}"
    if effort.saved.cells:
        share = effort.saved.cells / effort.full.cells
        yield f"saved    {_work(effort.saved, effort.unit)} (estimated), {share:.0%} of all cells"
    if (to_go := search_to_go(run)) is not None:
        yield f"to go    {_to_go(to_go, effort.unit)}"


def _at_work(run: "Run") -> list[str]:
    from trainables.runtime.waiting import held

    locks = {"running": run.layout.lock, "explaining": run.layout.xai_lock}
    return [work for work, lock in locks.items() if held(lock)]


def _facts(run: "Run") -> dict[str, object]:
    """The same as plain data; cells as in the table `cells`, null where nothing is known."""
    return {
        "name": run.name,
        "at_work": _at_work(run),
        "images": int(run.folds["image"].nunique()),
        "cells": json.loads(run.cells.to_json(orient="records")),
        **({} if run.searched is None else _search_facts(run)),
    }


def _fitting(line: str) -> str:
    return line if len(line) <= _WIDTH else f"{line[: _WIDTH - 2]} …"


def _work(work: "Work", unit: str) -> str:
    return f"{work.cells:,} cells, {work.epochs:,.0f} epochs, {work.hours:.2g} {unit}"


def _to_go(left: "ToGo", unit: str) -> str:
    """In cells; in minutes where any are at work, else in hours of devices."""
    if left.cells_about is None:
        return "as long as its budget lasts"
    most = "" if left.cells_most is None else f", at most {left.cells_most:,}"
    cells = f"about {left.cells_about:,.0f} cells{most}"
    if left.hours_about is None:
        return cells
    if not left.at_work:
        return f"{cells}: about {left.hours_about:.2g} {unit}"
    minutes = [
        f"{word} {hours * 60 / left.at_work:,.0f} min"
        for word, hours in (("about", left.hours_about), ("at most", left.hours_most))
        if hours is not None
    ]
    return f"{cells}: {', '.join(minutes)} with {left.at_work} at work"


def _search_facts(run: "Run") -> dict[str, object]:
    """Candidates and decisions of a search, as in the tables; null where nothing is known."""
    from orchestrator.results.search_effort import search_effort, search_to_go

    searched, to_go = run.searched, search_to_go(run)
    assert searched is not None
    leads = run.search[run.search["state"] == "leads"]
    states = run.search["state"].value_counts()
    return {
        "race": {
            "leader": None if leads.empty else str(leads["candidate"].item()),
            "expected": None if leads.empty else float(leads["estimate"].item()),
            "candidates": {str(state): int(count) for state, count in states.items()},
            "ended": searched.standings.ended,
            "risk": asdict(searched.risk),
            "effort": asdict(search_effort(run)),
            "to_go": None if to_go is None else asdict(to_go),
        },
        "search": json.loads(run.search.to_json(orient="records")),
        "decisions": json.loads(run.decisions.to_json(orient="records")),
    }
