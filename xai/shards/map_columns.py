"""A map as columns of a row, and the maps of rows as one array."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from xai.methods.placement import Placement

Floats = NDArray[np.float32]


def pack(heat: Floats, placement: Placement | None = None) -> dict[str, Any]:
    """The columns that hold a map (h, w) and where its cells lie, by default as parts of the image.

    The scale keeps values of any size within what float16 can hold.
    """
    scale = float(np.abs(heat).max()) or 1.0
    height, width = heat.shape
    stored = (heat / scale).astype(np.float16).ravel()
    shape = {"height": height, "width": width, "map": stored, "scale": scale}
    placed = (placement or Placement.tiles(height, width))._asdict()
    return {**shape, **placed, "low": float(heat.min()), "high": float(heat.max())}


def unpacked(row: Mapping[str, Any]) -> Floats:
    """The map (h, w) that a row's columns hold."""
    return np.asarray(row["map"], np.float32).reshape(row["height"], row["width"]) * np.float32(
        row["scale"]
    )


def stacked(rows: pd.DataFrame) -> tuple[pd.DataFrame, Floats]:
    """The rows that have a map, without it, and their maps (n, h, w); ValueError where sizes
    differ.
    """
    rows = rows[rows["map"].notna()].reset_index(drop=True)
    shapes = sorted(set(zip(rows["height"], rows["width"], strict=True))) or [(0, 0)]
    if len(shapes) > 1:
        sizes = " and ".join(f"{height}×{width}" for height, width in shapes)
        raise ValueError(f"maps of {sizes} do not fit into one array: add {choices(rows)}")
    maps = np.array(rows["map"].tolist(), np.float32).reshape(len(rows), *map(int, shapes[0]))
    return rows.drop(columns=["map", "scale"]), maps


def choices(rows: pd.DataFrame) -> str:
    """The filters that would leave one candidate, method and layer, with the values that they can
    have.
    """
    found = {name: sorted(rows[name].unique()) for name in ("candidate", "method", "layer")}
    return " and ".join(
        f"{name}= one of {', '.join(map(repr, values))}"
        for name, values in found.items()
        if len(values) > 1
    )
