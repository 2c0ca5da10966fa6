"""The figure that compares all candidates of a run."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from orchestrator.report.facts import CandidateFacts, Facts
from orchestrator.report.style import COMPARED, METRIC_LABELS, ORANGE, wrapped
from xai.drawing.style import BLUE


def draw_comparison(facts: Facts) -> Figure:
    """Every candidate's folds, mean ± standard deviation and test ensemble, one panel per
    metric.
    """
    names = [_row_label(candidate) for candidate in facts.candidates]
    height = sum(max(0.17 * (name.count("\n") + 1) + 0.12, 0.4) for name in names)
    figure = Figure(figsize=(11, 2 * max(height, 0.8) + 1.8))
    panels = figure.subplots(2, 3, sharey=True)
    for axes, metric in zip(panels.flat, COMPARED, strict=True):
        handles = _panel(axes, facts, metric)
        axes.set_title(METRIC_LABELS[metric], loc="left")
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.tick_params(axis="y", length=0, labelsize=9)
        axes.hlines(
            np.arange(1, len(names)) - 0.5,
            0,
            1,
            transform=axes.get_yaxis_transform(),
            color="#E4E4E4",
            linewidth=1,
        )
        axes.grid(visible=False, axis="y")
        axes.margins(x=0.08)
    columns = len(handles) if len(handles) < 4 else 2
    figure.legend(handles=handles, loc="outside lower center", ncols=columns)
    return figure


def _row_label(candidate: CandidateFacts) -> str:
    return wrapped(candidate.name, 36) + ("" if candidate.complete else f"\n{candidate.progress}")


def _panel(axes: Any, facts: Facts, metric: str) -> list[Any]:
    """Draw one metric and return the legend's handles."""
    order = {identity: row for row, identity in enumerate(facts.names)}
    folds = facts.folds_summary[facts.folds_summary["state"] == "done"]
    models = facts.models_summary
    complete = models[f"{metric}_mean"].notna().to_numpy()
    rows = models["candidate"].map(order).to_numpy(dtype=float)
    one_seed = len(facts.seeds) == 1
    bars = axes.errorbar(
        models[f"{metric}_mean"],
        rows,
        xerr=models[f"{metric}_std"].fillna(0),
        fmt="|",
        color="black",
        markersize=13,
        markeredgewidth=2,
        capsize=3,
        label="mean ± standard deviation"
        if one_seed
        else "mean ± standard deviation over folds and seeds",
    )
    whole = folds["candidate"].isin(models.loc[complete, "candidate"]).to_numpy()
    dots = []
    cell = "fold" if one_seed else "fold and seed"
    for chosen, face, label in (
        (whole, BLUE, cell),
        (~whole, "none", f"{cell} of an incomplete candidate"),
    ):
        points = folds[chosen]
        at = points["candidate"].map(order).to_numpy(dtype=float) - 0.14
        edge = BLUE
        drawn = axes.scatter(
            points[metric],
            at,
            s=22,
            facecolor=face,
            edgecolor=edge,
            linewidth=1,
            alpha=0.75,
            label=label,
        )
        dots += [drawn] if chosen.any() else []
    tests = models[f"{metric}_test_ensemble"]
    diamonds = axes.scatter(
        tests,
        rows + 0.16,
        s=34,
        marker="D",
        color=ORANGE,
        zorder=3,
        label=f"ensemble of the {'folds' if one_seed else 'cells'}' models on the test set",
    )
    means = [bars] if complete.any() else []
    return [*dots, *means, *([diamonds] if tests.notna().any() else [])]
