"""What a run would do, before it does anything."""

import json
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from typing import Any

import pandas as pd

from orchestrator.execution.cells import Prepared
from orchestrator.execution.costs import (
    CPU_GIGAFLOPS,
    GPU_GIGAFLOPS,
    cell_gigaflops,
    measured_gigaflops,
    part_sizes,
)
from orchestrator.execution.search_plan import budget_line, estimate_line
from orchestrator.experiment.experiment_file import Experiment
from orchestrator.experiment.search_config import BUDGETS
from orchestrator.search.journal import read_rows
from orchestrator.splits.folds import ROLES
from trainables.core.ledger import CellState
from trainables.core.quoting import printable
from trainables.core.training_config import Training
from trainables.models.user_code import watched_files

_SHOWN = 10  # images of one reason, and reasons


def plan_lines(prepared: Prepared) -> list[str]:
    """What `rayfold plan` prints: data, folds, cells and resources."""
    experiment, table = prepared.experiment, prepared.manifest.table
    images = prepared.manifest.usable
    lines = [f"experiment  {experiment.name} ({experiment.hash})"]
    lines.append(
        f"data        {len(images)} images, {prepared.manifest.channels} channel(s), "
        f"{prepared.folds['group'].nunique()} groups"
    )
    for name in prepared.manifest.classes:
        lines.append(f"            {int((images['label'] == name).sum()):6} {printable(name)}")
    skipped = table[table["state"] == "skipped"]
    lines += _skipped(skipped)
    lines += [f"note        {printable(note)}" for note in prepared.manifest.notes]
    for fold, sizes in part_sizes(prepared.folds).items():
        parts = ", ".join(f"{sizes[role]} {role}" for role in ROLES)
        lines.append(f"fold {fold}      {parts}")
    found = [entry.state() for entry in prepared.entries]
    states = Counter(state.state for state in found)
    lines.append(
        f"cells       {len(prepared.entries)} = {len(experiment.candidates)} candidates × "
        f"{experiment.folds.words} × {len(experiment.seeds)} seeds; {states['done']} already done"
    )
    for candidate in experiment.candidates:
        t = candidate.training
        lines.append(
            f"            {candidate.name}: {candidate.image_size} px, up to {t.epochs} epochs, "
            f"batch {t.batch_size}, {t.optimizer} {t.learning_rate:g}, weights {t.weights}"
            f"{_recipe(t)}"
        )
    lines += _search(experiment)
    lines += _earlier(prepared, found)
    lines += _watched(prepared)
    whole = estimate_line if experiment.search is not None else _estimate
    lines.append(f"estimate    {whole(prepared, found)}")
    r = experiment.resources
    lines.append(
        f"resources   GPUs per cell {r.gpus_per_cell}, CPUs per cell {r.cpus_per_cell}, "
        f"{r.retries} retries"
    )
    return lines


def _search(experiment: Experiment) -> Iterator[str]:
    """What is searched, and until when."""
    search = experiment.search
    if search is None:
        return
    budgets = search.model_dump(include=set(BUDGETS), exclude_none=True)
    until = ", ".join(f"{name} {value:g}" for name, value in budgets.items()) or "all are through"
    racing = search.racing + (f", bound {search.bound:g}" if search.racing == "paired" else "")
    yield f"search      {search.sampler} for {search.objective} until {until}; racing {racing}"
    if (finalists := search.finalists) is not None:
        further = finalists.repeats - experiment.folds.repeats
        cells = finalists.top * further * experiment.folds.k * len(experiment.seeds)
        yield (
            f"            the best {finalists.top} get {further} further repeats: up to {cells} "
            "cells beside the budgets"
        )
    for number, space in enumerate(experiment.spaces):
        for parameter in space.parameters:
            written = {k: v for k, v in parameter.written().items() if k != "default"}
            yield f"            space {number}: {parameter.name} {_shown(written)}"
    yield f"            {budget_line(experiment)}"


def _earlier(prepared: Prepared, states: list[CellState]) -> Iterator[str]:
    """What other runs give."""
    search = prepared.experiment.search
    if search is None or not search.from_:
        return
    # Only a search has a use for it, and it takes a while to load.
    from orchestrator.execution.earlier_runs import EarlierCells, describe, unwritten

    rows = read_rows(prepared.layout.journal)[1:]
    for line in describe([*rows, *unwritten(prepared, rows)], prepared.experiment):
        yield f"from        {line}"
    cells = EarlierCells(prepared.experiment, prepared.folds)
    lacking = [e for e, s in zip(prepared.entries, states, strict=True) if s.state != "done"]
    there = sum(map(cells.has, lacking))
    yield f"            {there} of the {len(lacking)} cells to be trained above are there already"


def _recipe(training: Training) -> str:
    """All other settings that are not at their defaults."""
    told = {"epochs", "batch_size", "optimizer", "learning_rate", "weights"}
    stated = training.model_dump(exclude=told, exclude_defaults=True)
    shown = [f"{name} {_shown(value)}" for name, value in stated.items()]
    return "".join(f", {each}" for each in shown)


def _shown(value: Any) -> str:
    """A section as an experiment file may have it."""
    if not isinstance(value, dict):
        return str(value)
    inner = ", ".join(f"{name}: {json.dumps(each)}" for name, each in value.items())
    return "{" + inner.replace('"', "") + "}"


def _skipped(images: pd.DataFrame) -> Iterator[str]:
    """A line for each image, but of many with one reason, or many reasons, the number and the
    first.
    """
    reasons = images.groupby("reason", sort=False)["image"]
    for reason, names in islice(reasons, _SHOWN):
        for name in names.iloc[:_SHOWN]:
            yield f"            skipped {name!r}: {printable(str(reason))}"
        if len(names) > _SHOWN:
            yield f"            skipped {len(names) - _SHOWN:,} more: {printable(str(reason))}"
    if (others := len(reasons) - _SHOWN) > 0:
        yield (
            f"            skipped for {others:,} other reasons: all are in the manifest.parquet of "
            "a run"
        )


def _watched(prepared: Prepared) -> list[str]:
    """The user's own files: an edit of one, but for comments and layout, makes the cells of its
    candidates new.
    """
    experiment = prepared.experiment
    lines = []
    models = {c.model.partition(":")[0]: c.model for c in experiment.candidates if ":" in c.model}
    for module, model in models.items():
        files = watched_files(model, experiment.folder).values()
        lines.append(printable(f"code        {module} is watched in {', '.join(map(str, files))}"))
    return lines


def _estimate(prepared: Prepared, states: list[CellState]) -> str:
    """Device-hours of what is not done yet."""
    missing = [
        entry
        for entry, state in zip(prepared.entries, states, strict=True)
        if state.state != "done"
    ]
    sizes = part_sizes(prepared.folds)
    work = sum(cell_gigaflops(entry.spec, sizes[entry.spec.fold]) for entry in missing)
    measured = measured_gigaflops(prepared.entries, states, prepared.folds)
    if measured:
        return (
            f"{work / measured / 3600:.2g} device-hours to go, at the pace of the cells that are "
            "done"
        )
    gpu, cpu = work / GPU_GIGAFLOPS / 3600, work / CPU_GIGAFLOPS / 3600
    return f"roughly {gpu:.2g} GPU-hours, or {cpu:.2g} CPU-core-hours, if no cell stops early"
