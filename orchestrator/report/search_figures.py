"""Pictures of a search: the race over the folds, the leader over time, and scores by parameter."""

import numpy as np
import pandas as pd
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import FuncFormatter, NullFormatter

from orchestrator.report.facts import SearchFacts
from orchestrator.report.style import ORANGE, wrapped
from xai.drawing.style import BLUE, GREY

_MOST_NAMED = 60  # candidates; of more the rows are too low for names
_MOST_SLICES = 12


def draw_race(search: SearchFacts) -> Figure:
    """Candidates × folds, the best first, coloured by score; hatched where a candidate was stopped,
    empty where a fold is still to come.
    """
    table = search.table
    scores = search.scores
    n, k = scores.shape
    named = n <= _MOST_NAMED
    figure = Figure(figsize=(5.2 + 0.55 * k, 1.5 + (0.24 if named else 0.06) * n))
    axes = figure.subplots()
    low, high = np.nanpercentile(scores, [5, 100]) if np.isfinite(scores).any() else (0, 1)
    norm = Normalize(low, max(high, low + 1e-6))
    image = axes.imshow(scores, cmap="viridis", norm=norm, aspect="auto", interpolation="nearest")
    for row, state in enumerate(table["state"]):
        for fold in np.flatnonzero(np.isnan(scores[row])):
            if state in ("stopped", "lost"):
                axes.add_patch(
                    Rectangle(
                        (fold - 0.5, row - 0.5),
                        1,
                        1,
                        facecolor="white",
                        edgecolor="#B0B0B0",
                        hatch="////",
                        linewidth=0,
                    )
                )
    axes.set_xticks(range(k), [str(fold) for fold in range(k)])
    axes.set_yticks(range(n) if named else [], list(_labels(table)) if named else [])
    axes.tick_params(length=0, labelsize=8)
    axes.grid(visible=False)
    axes.set(xlabel="Fold", xlim=(-0.5, k - 0.5), ylim=(n - 0.5, -0.5))
    if not named:
        axes.set_ylabel(f"{n} candidates, the best first")
    figure.colorbar(image, ax=axes, label=search.label, shrink=min(1.0, 12 / max(n, 1) + 0.2))
    figure.legend(
        handles=[Patch(facecolor="white", edgecolor="#B0B0B0", hatch="////", label="not needed")],
        loc="outside lower center",
    )
    return figure


def draw_incumbent(search: SearchFacts) -> Figure:
    """Each finished fold in the order in which the search looked at it, and the expected mean of
    whoever led.
    """
    times = search.history
    figure = Figure(figsize=(7.8, 3.6))
    axes = figure.subplots()
    axes.scatter(
        times["step"],
        times["score"],
        s=14,
        color=GREY,
        alpha=0.6,
        linewidth=0,
        label="a fold of a candidate",
    )
    axes.step(
        times["step"],
        times["leader_estimate"],
        where="post",
        color=BLUE,
        linewidth=2,
        label="expected mean of the leader",
    )
    changes = times[times["leader"].ne(times["leader"].shift())]
    axes.scatter(
        changes["step"],
        changes["leader_estimate"],
        color=ORANGE,
        zorder=3,
        s=28,
        label="another one takes the lead",
    )
    low = np.nanpercentile(times["score"], 10)
    top = np.nanmax(times["score"])
    axes.set_ylim(low - 0.1 * (top - low) - 1e-6, top + 0.05 * (top - low) + 1e-6)
    axes.set(xlabel="Finished folds of candidates", ylabel=search.label)
    figure.legend(loc="outside lower center", ncols=3)
    return figure


def draw_slices(search: SearchFacts) -> Figure | None:
    """The expected mean of each candidate by each parameter; None where nothing varies."""
    names = [
        parameter for parameter in search.parameters if search.table[parameter.name].notna().any()
    ]
    names = names[:_MOST_SLICES]
    if not names:
        return None
    columns = min(len(names), 4)
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(2.7 * columns + 0.6, 2.5 * rows + 0.7))
    panels = figure.subplots(rows, columns, sharey=True, squeeze=False)
    whole = search.table["folds"] >= search.searched.standings.k
    for axes, parameter in zip(panels.flat, names, strict=False):
        values = search.table[parameter.name]
        if parameter.kind == "choice":
            order = [str(choice) for choice in parameter.choices]
            order += sorted(set(map(str, values.dropna())) - set(order))
            places = values.dropna().map(lambda value, order=order: order.index(str(value)))
            axes.set_xticks(range(len(order)), [wrapped(name, 12, 2) for name in order])
            axes.set_xlim(-0.6, len(order) - 0.4)
        else:
            places = values.dropna().astype(float)
        if parameter.kind == "loguniform":
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.xaxis.set_minor_formatter(NullFormatter())
        for chosen, face, label in (
            (whole, BLUE, "all folds"),
            (~whole, "none", "stopped earlier"),
        ):
            at = places[chosen.reindex(places.index)]
            axes.scatter(
                at,
                search.table.loc[at.index, "estimate"],
                s=20,
                facecolor=face,
                edgecolor=BLUE,
                linewidth=0.9,
                alpha=0.8,
                label=label,
            )
        axes.set_xlabel(wrapped(parameter.name, 26, 2))
    for axes in list(panels.flat)[len(names) :]:
        axes.set_visible(False)
    for axes in panels[:, 0]:
        axes.set_ylabel(f"{search.label},\nexpected mean")
    low, high = search.table["estimate"].quantile([0.1, 1.0])
    panels[0, 0].set_ylim(low - 0.15 * (high - low) - 1e-6, high + 0.1 * (high - low) + 1e-6)
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2)
    return figure


def _labels(table: pd.DataFrame) -> list[str]:
    """A candidate's name, and where it leads a mark."""
    return [
        f"{wrapped(name, 52, 1)}{' ◂' if state == 'leads' else ''}"
        for name, state in zip(table["name"], table["state"], strict=True)
    ]
