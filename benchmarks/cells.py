"""What a cell costs when there is nothing to do: 200 cells of a model with six weights, one epoch
each.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

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
    """Seconds between the first and the last finished cell, per cell and worker; what the driver's
    memory grew by.
    """
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "noop.py").write_text(BUILDER)
        file = Path(folder) / "noop.yaml"
        file.write_text(EXPERIMENT.replace("SEEDS", ", ".join(map(str, range(count // 5)))))
        run = Path(folder) / "run"
        command = [sys.executable, "-m", "orchestrator", "run", str(file), "--run", str(run)]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as driver:
            samples = memory_samples(driver)
        ends = sorted(path.stat().st_mtime for path in run.glob("ledger/*/state.json"))
    # The first two cells come from the two workers' start.
    return {
        "cells": len(ends),
        "workers": 2,
        "seconds_per_cell": 2 * (ends[-1] - ends[1]) / (len(ends) - 2),
        "driver_mb": resident(samples, ends[count // 10], ends[-1]),
    }


def memory_samples(process: subprocess.Popen[bytes]) -> list[tuple[float, float]]:
    """Moments and resident MB of a process, twice a second until it ends."""
    samples = []
    while process.poll() is None:
        samples.append((time.time(), psutil.Process(process.pid).memory_info().rss / 1e6))
        time.sleep(0.5)
    return samples


def resident(samples: list[tuple[float, float]], *moments: float) -> list[float]:
    """Resident MB at the last sample before each moment."""
    return [[size for at, size in samples if at <= moment][-1] for moment in moments]
