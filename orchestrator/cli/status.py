"""`rayfold status`."""

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.common import RunFolder, say

if TYPE_CHECKING:
    import pandas as pd

    from orchestrator.results.run import Run


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
        for line in _race(opened.search):
            say(line)
        cells = cells[~cells["state"].isin(["done", "stopped"])]
    for row in cells.itertuples():
        best = "" if str(row.best_epoch) == "<NA>" else f", best {row.best_epoch}"
        cell = f"{row.candidate} fold {row.fold} seed {row.seed}"
        say(f"{row.state:8} {cell}: epoch {row.epochs}{best} {row.reason}".rstrip())
    # And what is wrong with the folds, where something is.
    say(f"images   {opened.folds['image'].nunique():,}")


_SHOWN = 10  # candidates of a search


def _race(search: "pd.DataFrame") -> Iterator[str]:
    """How a search stands: its candidates by state, then the best of them."""
    states = search["state"].value_counts()
    yield f"search   {len(search)} candidates: " + ", ".join(
        f"{count} {state}" for state, count in states.items()
    )
    best = search[~search["state"].isin(["lost"])].sort_values("estimate", ascending=False)
    for row in best.head(_SHOWN).itertuples():
        yield f"{row.state:8} {row.name}: expected mean {row.estimate:.4f} after {row.folds} folds"
    if len(best) > _SHOWN:
        yield f"         {len(best) - _SHOWN} more: results/search.csv has them all"


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


def _search_facts(run: "Run") -> dict[str, object]:
    """Candidates and decisions of a search, as in the tables."""
    return {
        "search": json.loads(run.search.to_json(orient="records")),
        "decisions": json.loads(run.decisions.to_json(orient="records")),
    }
