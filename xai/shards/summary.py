"""What the heatmaps of a run showed, with confidence intervals: tables below `xai/tables/`.

summary: candidate, method, layer, height, width (of its maps), class, score, mean, low, high (95 %,
         groups resampled), chance, ceiling (means of what a uniform and the best map of this size
         score on the same images, for scores on masks), maps, groups, p, p_adjusted, flagged (for
         shortcuts)
folds:   candidate, method, layer, image, group, class, cells, spearman: agreement between fold
         models on test images
sanity:  candidate, method, layer, stage, lowest_random_layer, similarity, ssim, passed, model_hash,
         key
"""

from typing import Any

import numpy as np
import pandas as pd

from trainables.core.layout import RunLayout
from trainables.core.records import read_table
from trainables.core.tables import write_both
from xai.judging.agreement import LIMITS, exposure, flagged
from xai.judging.intervals import holm, interval, p_above_zero
from xai.shards.heatmaps import Heatmaps

_SET = ["candidate", "method", "layer"]
_SHORTCUTS = ("outside_lungs", "border", "corner")
_NAMES = dict.fromkeys((*_SET, "class"), "text")
_SCHEMAS = {
    "summary": _NAMES
    | {"height": "whole", "width": "whole", "score": "text"}
    | dict.fromkeys(("mean", "low", "high"), "real")
    | dict.fromkeys(("chance", "ceiling", "p", "p_adjusted"), "~real")
    | {"maps": "whole", "groups": "whole", "flagged": "flag"},
    "folds": _NAMES | {"image": "text", "group": "text", "cells": "whole", "spearman": "real"},
    "sanity": dict.fromkeys((*_SET, "lowest_random_layer", "asked_layer", "key"), "text?")
    | {"stage": "whole", "similarity": "real", "ssim": "real", "passed": "flag"},
}
TABLES = tuple(_SCHEMAS)


def summarise(heatmaps: Heatmaps) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The tables summary and folds.

    Shortcuts are read from the map of the predicted class, which drove the decision, one class at a
    time, since a marker that comes with one disease says nothing of the others; agreement with
    masks from the map of the label, whose evidence the mask shows; faithfulness from the maps that
    were put to the model. `class` is empty for all together.

    `p` is of a region's mean exposure, groups being the unit; `p_adjusted` takes account of all
    that are in the table, every region, class, candidate, method and layer, so that 5 % bounds the
    chance of any false flag in it.
    """
    table = heatmaps.table
    table = table[table["error"].isna()]
    folds = _folds(heatmaps)
    scores = [score for score in heatmaps.scores if not score.endswith(LIMITS)]
    rows = []
    for names, of_set in table.groupby(_SET, sort=True):
        size = {name: int(of_set[name].iloc[0]) for name in ("height", "width")}
        identity: dict[str, Any] = dict(zip(_SET, names, strict=True)) | size
        for score in scores:
            values = of_set[_judged(of_set, score) & of_set[score].notna()]
            parts = values.groupby("class") if score.startswith(_SHORTCUTS) else [("", values)]
            for name, part in parts:
                if len(part):
                    rows.append(identity | {"class": name} | _of_score(score, part))
        agreed = folds[(folds[_SET] == list(names)).all(axis=1)] if len(folds) else folds
        if len(agreed):
            agreed = agreed.rename(columns={"spearman": "fold_spearman"})
            rows.append(identity | {"class": ""} | _of_score("fold_spearman", agreed))
    summary = pd.DataFrame(rows)
    if len(summary):
        summary["p_adjusted"] = holm(summary["p"].to_numpy(float))
        summary["flagged"] = flagged(summary["p_adjusted"].to_numpy())
    return summary, folds


def _judged(rows: pd.DataFrame, score: str) -> "pd.Series[bool]":
    driven = score.startswith(_SHORTCUTS) or score.startswith(
        ("deletion", "insertion", "drop", "increase")
    )
    return rows["class"] == rows["prediction" if driven else "label"]


def _of_score(score: str, rows: pd.DataFrame) -> dict[str, Any]:
    values, groups = rows[score].to_numpy(float), rows["group"].to_numpy(str)
    found = interval(values, groups, seed=0)
    p = np.nan
    if score.startswith(_SHORTCUTS) and score.endswith("_ratio"):
        p = p_above_zero(
            exposure(rows[score.removesuffix("_ratio")].to_numpy(float), values), groups
        )
    limits = [
        float(rows[name].mean()) if (name := f"{score}{end}") in rows else np.nan for end in LIMITS
    ]
    return {
        "score": score,
        "mean": float(found.mean),
        "low": float(found.low),
        "high": float(found.high),
        "chance": limits[0],
        "ceiling": limits[1],
        "maps": found.images,
        "groups": found.groups,
        "p": p,
    }


def _folds(heatmaps: Heatmaps) -> pd.DataFrame:
    """How alike the maps of a candidate's fold models are on each test image, for the class of its
    label.
    """
    parts = [pd.DataFrame(columns=[*_SET, "image", "group", "class", "cells", "spearman"])]
    for names in heatmaps.table[_SET].dropna().drop_duplicates().itertuples(index=False):
        try:
            found = heatmaps.ensemble(**dict(zip(_SET, map(str, names), strict=True)))
        except ValueError:  # no maps of test images, or of several sizes: they cannot be compared
            continue
        own = found.table[
            (found.table["class"] == found.table["label"]) & (found.table["cells"] > 1)
        ]
        parts.append(own[parts[0].columns])
    return pd.concat([part for part in parts if len(part)] or parts, ignore_index=True)


def save_table(layout: RunLayout, name: str, table: pd.DataFrame) -> None:
    """Write one of `TABLES` as Parquet and CSV."""
    write_both(layout.xai_tables, name, table)


def load_table(layout: RunLayout, name: str) -> pd.DataFrame:
    """One of `TABLES`; empty where there is none. Raises DamagedRecord for what is no such
    table.
    """
    path = layout.xai_tables / f"{name}.parquet"
    try:
        return read_table(path, _SCHEMAS[name], may_be_empty=True)[0]
    except FileNotFoundError:
        return pd.DataFrame()
