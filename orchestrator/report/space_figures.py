"""Pictures of what a search varied: parallel coordinates, and which parameters matter."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator
from numpy.typing import NDArray

from orchestrator.experiment.search_space import Parameter
from orchestrator.report.facts import SearchFacts
from orchestrator.report.style import wrapped
from xai.drawing.style import BLUE, GREY

if TYPE_CHECKING:
    from orchestrator.results.study import Importance

_MOST_AXES = 12
_MOST_NAMES = 8  # choices of an axis that are named
_NO_EFFECT = -0.14  # height of what a parameter without effect has
_JITTER = 0.045  # of a choice: else lines through it lie on each other

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class _Axis:
    """A vertical axis. `places`: heights of the candidates, 0 to 1, NaN without effect; `ticks`:
    heights and what is written there.
    """

    name: str
    places: Floats
    ticks: Sequence[tuple[float, str]] = field(default_factory=list)


def draw_parallel(search: SearchFacts) -> Figure | None:
    """One line per candidate through its values, coloured by its expected mean; dotted through the
    lowest line where a parameter has no effect in it. None where nothing varies.
    """
    table = search.table[search.table["estimate"].notna()]
    parameters = [p for p in search.parameters if table[p.name].notna().any()][: _MOST_AXES - 1]
    if not parameters or table.empty:
        return None
    table = table.sort_values("estimate", kind="stable")  # the best lie on top
    values = table["estimate"].to_numpy()
    norm = Normalize(float(np.percentile(values, 5)), max(values.max(), values.min() + 1e-6))
    axes_of = [_axis(parameter, table[parameter.name]) for parameter in parameters]
    axes_of.append(_objective(f"{search.label}, expected mean", values, norm))
    figure = Figure(figsize=(1.6 + 1.45 * len(axes_of), 4.4))
    axes = figure.subplots()
    heights = np.column_stack([axis.places for axis in axes_of])
    whole = (table["folds"] == search.searched.standings.k).to_numpy()
    thin = min(1.0, max(60 / len(table), 0.25))  # of many, single ones cannot be told apart
    for line, value, complete in zip(heights, values, whole, strict=True):
        colour = colormaps["viridis"](norm(value), alpha=1.0 if complete else thin)
        _draw_line(axes, line, colour, 1.8 if complete else 0.7)
    for x, axis in enumerate(axes_of):
        _draw_axis(axes, x, axis)
    last = len(axes_of) - 1
    gradient = np.linspace(0, 1, 64)[:, None]
    axes.imshow(
        gradient, extent=(last + 0.02, last + 0.09, 0, 1), origin="lower", cmap="viridis", zorder=3
    )
    gaps = bool(np.isnan(heights).any())
    axes.set(xlim=(-0.45, last + 0.6), ylim=(-0.2 if gaps else -0.05, 1.05), aspect="auto")
    axes.set_xticks(range(last + 1), [wrapped(axis.name, 20, 3) for axis in axes_of])
    axes.set_yticks([])
    axes.tick_params(length=0)
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    legend = [
        Line2D([], [], color="black", linewidth=1.8, label="all folds"),
        Line2D([], [], color="black", linewidth=0.7, label="stopped earlier"),
    ]
    if gaps:
        legend.append(Line2D([], [], color="black", linestyle=":", label="has no effect"))
    figure.legend(handles=legend, loc="outside lower center", ncols=len(legend))
    return figure


def draw_importance(found: "Importance") -> Figure:
    """Each parameter's share, the largest on top."""
    names = list(found.shares)[::-1]
    shares = [found.shares[name] for name in names]
    figure = Figure(figsize=(6.4, 1.3 + 0.34 * len(names)))
    axes = figure.subplots()
    axes.barh(range(len(names)), shares, color=BLUE, height=0.62)
    for place, share in enumerate(shares):
        axes.text(share + 0.01, place, f"{share:.0%}", va="center", fontsize=9)
    axes.set_yticks(range(len(names)), [wrapped(name, 30, 1) for name in names])
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.set(xlim=(0, min(max(shares) + 0.1, 1.1)), xlabel=_source(found))
    return figure


def _source(found: "Importance") -> str:
    return f"Share by {found.method}, {found.candidates} candidates, {found.estimated} estimated"


def _draw_line(axes: Any, heights: Floats, colour: Any, width: float) -> None:
    """Solid between values, dotted to and from where there is none."""
    missing = np.isnan(heights)
    at = np.where(missing, _NO_EFFECT, heights)
    for x in range(len(at) - 1):
        dotted = missing[x] or missing[x + 1]
        axes.plot(
            [x, x + 1],
            at[x : x + 2],
            color=colour,
            linestyle=":" if dotted else "-",
            linewidth=width,
            solid_capstyle="round",
        )


def _draw_axis(axes: Any, x: int, axis: _Axis) -> None:
    axes.plot([x, x], [0, 1], color=GREY, linewidth=1.2, zorder=2.5)
    ticks = list(axis.ticks)
    if np.isnan(axis.places).any():
        axes.plot([x, x], [_NO_EFFECT, 0], color=GREY, linewidth=0.8, linestyle=":", zorder=2.5)
        ticks.append((_NO_EFFECT, "no effect"))
    for height, text in ticks:
        axes.plot([x - 0.03, x], [height, height], color=GREY, linewidth=1, zorder=2.5)
        axes.text(
            x - 0.05,
            height,
            text,
            ha="right",
            va="center",
            fontsize=7.5,
            zorder=4,
            bbox={"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.6},
        )


def _axis(parameter: Parameter, values: "pd.Series[Any]") -> _Axis:
    if parameter.kind == "choice":
        return _of_choices(parameter, values)
    low, high = parameter.ends
    known = values.astype(float)
    low, high = min(low, known.min()), max(high, known.max())  # what is written may lie outside
    logarithmic = parameter.kind == "loguniform"
    locator = (
        LogLocator(numticks=6) if logarithmic else MaxNLocator(4, integer=parameter.kind == "int")
    )
    marks = [mark for mark in locator.tick_values(low, high) if low <= mark <= high]
    if len(marks) < 2:  # within one decade
        marks = [low, high]
    scale = np.log if logarithmic else np.asarray
    bottom, top = float(scale(low)), float(scale(high))

    def place(value: Any) -> Any:
        return (scale(value) - bottom) / (top - bottom or 1.0)

    return _Axis(
        parameter.name,
        np.asarray(place(known.to_numpy())),
        [(float(place(mark)), f"{mark:g}") for mark in marks],
    )


def _of_choices(parameter: Parameter, values: "pd.Series[Any]") -> _Axis:
    order = [str(choice) for choice in parameter.choices]
    order += sorted(set(map(str, values.dropna())) - set(order))
    step = 1 / max(len(order) - 1, 1)
    jitter = _JITTER * np.sin(2.4 * np.arange(len(values)))  # of each candidate, the same each time
    places = [
        np.nan if missing else (order.index(str(value)) * step if len(order) > 1 else 0.5)
        for value, missing in zip(values, values.isna(), strict=True)
    ]
    every = -(-len(order) // _MOST_NAMES)
    ticks = [
        (number * step if len(order) > 1 else 0.5, wrapped(name, 14, 1))
        for number, name in enumerate(order)
        if number % every == 0
    ]
    return _Axis(parameter.name, np.clip(places + jitter, 0, 1), ticks)


def _objective(name: str, values: Floats, norm: Normalize) -> _Axis:
    """What lies below the colours' lower end lies at it."""
    low, high = float(norm.vmin or 0.0), float(norm.vmax or 0.0)
    span = high - low or 1.0
    marks = [mark for mark in MaxNLocator(5).tick_values(low, high) if low <= mark <= high]
    places = np.clip((values - low) / span, 0, 1)
    return _Axis(name, places, [((mark - low) / span, f"{mark:.4g}") for mark in marks])
