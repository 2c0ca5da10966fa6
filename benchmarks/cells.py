"""What a cell costs when there is nothing to do: 200 cells of a model with six weights, one epoch each."""

import tempfile
from pathlib import Path
from typing import Any

from benchmarks.grid import timed

EXPERIMENT = """
name: noop
data: {source: phantom, images_per_class: 16, images_per_patient: 1, image_size: 32}
folds: {k: 5}
training: {epochs: 1}
candidates: [{model: "noop:build", image_size: 8}]
seeds: [SEEDS]
resources: {cpus_per_cell: 1}
"""
BUILDER = """
import keras
def build(input_shape, n_classes):
    inputs = keras.Input(input_shape)
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 255)(inputs))
    return keras.Model(inputs, keras.layers.Dense(n_classes, name="logits")(x))
"""


def noop_cells(count: int = 200) -> dict[str, Any]:
    """Wall seconds between the first and the last finished cell, per cell and worker."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "noop.py").write_text(BUILDER)
        file = Path(folder) / "noop.yaml"
        file.write_text(EXPERIMENT.replace("SEEDS", ", ".join(map(str, range(count // 5)))))
        wall = timed("orchestrator", "run", file, "--run", Path(folder) / "run")
        ends = sorted(path.stat().st_mtime for path in (Path(folder) / "run").glob("ledger/*/state.json"))
    # The first two cells come from the two workers' start.
    return {
        "cells": len(ends),
        "wall": wall,
        "workers": 2,
        "seconds_per_cell": 2 * (ends[-1] - ends[1]) / (len(ends) - 2),
    }
