"""The race of a search as a page draws it: rows of cells, each with what it shows and why."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.colors import Normalize, to_hex
from numpy.typing import NDArray

from orchestrator.report.facts import SearchFacts
from orchestrator.report.tables import three

_MOST_ROWS = 500
_MOST_NAMED = 60  # candidates; of more the rows are too low for names
_LONGEST = 60  # characters of a name
_STOPS = 9  # colours of the legend

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class RaceCell:
    """One fold of a candidate. `kind`: done, stopped (not needed any more) or waiting; `told`: what
    is known of it, in a sentence; `fill`: its colour, where it is done.
    """

    x: int
    kind: str
    told: str
    fill: str = ""


@dataclass(frozen=True)
class RaceRow:
    """One candidate; `label` is empty where rows are too low for one."""

    y: int
    label: str
    leads: bool
    cells: tuple[RaceCell, ...]


@dataclass(frozen=True)
class RaceView:
    """A drawing of `width` × `height` pixels. `columns`: left edges of the folds; `colours`: of the
    scores from `low` to `high`, each at its place in per cent; `left_out`: how many candidates have
    no row.
    """

    width: int
    height: int
    column: int
    row: int
    columns: tuple[tuple[int, str], ...]
    rows: tuple[RaceRow, ...]
    colours: tuple[tuple[int, str], ...]
    low: str
    high: str
    label: str
    about: str
    left_out: int


def race_view(search: SearchFacts) -> RaceView:
    """The candidates that a search trained, the best first."""
    table = search.table.head(_MOST_ROWS)
    n, k = len(table), search.searched.standings.k
    named = n <= _MOST_NAMED
    column, row, top = max(12, min(36, 360 // k)), 18 if named else 5, 20
    there = search.scores[np.isfinite(search.scores)]
    low, high = np.percentile(there, [5, 100]) if len(there) else (0.0, 1.0)
    norm = Normalize(low, max(high, low + 1e-6))
    reasons = _reasons(search.decisions)
    return RaceView(
        width=k * column + (8 + 7 * (_LONGEST + 12) if named else 4),
        height=top + n * row + 2,
        column=column,
        row=row,
        columns=tuple((fold * column, str(fold)) for fold in range(k)),
        rows=tuple(
            RaceRow(
                top + place * row,
                _short(each["name"]) if named else "",
                each["state"] == "leads",
                tuple(_cells(each, search.scores[place], column, norm, reasons)),
            )
            for place, each in enumerate(table.to_dict("records"))
        ),
        colours=tuple(
            (round(100 * at), to_hex(colormaps["viridis"](at))) for at in np.linspace(0, 1, _STOPS)
        ),
        low=three(float(low)),
        high=three(float(high)),
        label=search.label,
        about=(
            f"The race: {n} candidates in rows, the best first, and {k} folds in columns, coloured "
            "by score. All candidates and decisions are in the tables below."
        ),
        left_out=len(search.table) - n,
    )


def _cells(
    each: Mapping[Any, Any], scores: Floats, column: int, norm: Normalize, why: dict[str, str]
) -> Iterator[RaceCell]:
    """Of one row of the table of candidates."""
    out = each["state"] in ("stopped", "lost")
    for fold, score in enumerate(scores):
        at = f"{each['name']}, fold {fold}"
        if np.isfinite(score):
            fill = to_hex(colormaps["viridis"](norm(score)))
            yield RaceCell(fold * column, "done", f"{at}: {three(float(score))}", fill)
        elif out:
            reason = why.get(str(each["candidate"]), "")
            yield RaceCell(fold * column, "stopped", f"{at}: {each['state']}, {reason}")
        else:
            yield RaceCell(fold * column, "waiting", f"{at}: not finished")


def _reasons(decisions: pd.DataFrame) -> dict[str, str]:
    """Why candidates went no further, by id: the last word counts."""
    ended = decisions[~decisions["decision"].isin(["refused", "known"])]
    return {str(row.candidate): str(row.reason) for row in ended.itertuples()}


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"
