"""The same grid three ways: a sequential Keras script, a plain Tune script, rayfold; and where
rayfold's time goes.
"""

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from orchestrator import load_run

MODELS, SIZE, FOLDS, EPOCHS, BATCH = ["EfficientNetB0", "EfficientNetV2B0"], 64, 5, 2, 16

EXPERIMENT = """
name: grid
data: {data}
folds: {{k: {folds}}}
training: {{epochs: {epochs}, batch_size: {batch}, learning_rate: 2.0e-4, early_stopping: null}}
candidates:
  - model: [{models}]
    image_size: {size}
resources: {{cpus_per_cell: 1}}
"""
CXR = Path(__file__).parents[2] / "shared" / "data" / "cxr"


def data_section() -> str:
    """Real chest X-rays where they lie beside the checkout, phantoms of the same number and size
    elsewhere.
    """
    if CXR.is_dir():
        columns = "columns: {path: file, group: patient}, classes: [Normal, Pneumonia]"
        return f"{{source: table, path: {CXR / 'manifest.csv'}, {columns}}}"
    return "{source: phantom, images_per_class: 180, image_size: 256}"


def timed(*command: str | Path) -> float:
    """Wall seconds of a command, from outside, imports and all."""
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", *map(str, command)], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(f"{command} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return time.perf_counter() - began


def write_task(run: Path, file: Path) -> None:
    """The images and parts of a prepared run folder, for the baselines."""
    from trainables.data.manifest import Manifest

    images = Manifest.load(run / "manifest.parquet").usable
    folds = pd.read_parquet(run / "folds.parquet")
    row_of = {image: row for row, image in enumerate(images["image"])}
    classes = sorted(set(images["label"]))
    parts = [
        {
            str(role): [row_of[image] for image in part["image"]]
            for role, part in fold.groupby("role")
        }
        for _, fold in folds.groupby("fold")
    ]
    task = {
        "paths": list(images["path"]),
        "labels": [classes.index(label) for label in images["label"]],
        "folds": parts,
        "models": MODELS,
        "size": SIZE,
        "epochs": EPOCHS,
        "batch": BATCH,
    }
    file.write_text(json.dumps(task), "utf-8")


def compare(folder: Path, rounds: int) -> dict[str, Any]:
    """Interleaved rounds of all three; seconds of each, ratios, and the breakdown of rayfold's last
    run.
    """
    experiment, task = folder / "grid.yaml", folder / "task.json"
    experiment.write_text(
        EXPERIMENT.format(
            data=data_section(),
            folds=FOLDS,
            epochs=EPOCHS,
            batch=BATCH,
            models=", ".join(MODELS),
            size=SIZE,
        ),
        "utf-8",
    )
    seconds: dict[str, list[float]] = {"rayfold": [], "sequential": [], "plain_tune": []}
    for number in range(rounds):
        run = folder / f"run-{number}"
        seconds["rayfold"].append(timed("orchestrator", "run", experiment, "--run", run))
        if number == 0:
            write_task(run, task)
        seconds["sequential"].append(timed("benchmarks.sequential", task))
        seconds["plain_tune"].append(timed("benchmarks.plain_tune", task))
    medians = {name: statistics.median(each) for name, each in seconds.items()}
    return {
        "work": (
            f"{len(MODELS)} models × {FOLDS} folds × {EPOCHS} epochs at {SIZE} px, batch {BATCH}"
        ),
        "seconds": seconds,
        "sequential_over_rayfold": medians["sequential"] / medians["rayfold"],
        "plain_tune_over_rayfold": medians["plain_tune"] / medians["rayfold"],
        "breakdown": breakdown(folder / f"run-{rounds - 1}", seconds["rayfold"][-1]),
    }


def breakdown(run: Path, wall: float) -> dict[str, Any]:
    """rayfold's wall time against the lower bound: pure steps ÷ workers, the steps measured on as
    many processes.
    """
    opened = load_run(run)
    cells = opened.cells
    workers = 2
    sizes = opened.folds.groupby(["fold", "role"]).size().unstack(fill_value=0)
    pure = {model: pure_seconds(model, workers) for model in MODELS}
    bound = {
        key: cell_bound(pure[cell.model], sizes.loc[cell.fold].to_dict())
        for key, cell in _rows(cells)
    }
    warm = {
        key for key, cell in _rows(cells) if cell.seconds_start == 0 and cell.seconds_build < 1.0
    }
    phases = ["start", "build", "train", "score", "checkpoint"]
    totals = {phase: float(cells[f"seconds_{phase}"].sum()) / workers for phase in phases}
    spent = sum(cell.seconds_total for key, cell in _rows(cells) if key in warm)
    return {
        "wall": wall,
        "lower_bound": sum(bound.values()) / workers,
        "per_worker": {**totals, "else": wall - sum(totals.values())},
        "step_seconds": pure,
        "warm_cells": len(warm),
        "steady_state_share_of_bound": sum(bound[key] for key in warm) / spent if warm else None,
        "warm_overhead_per_cell": {
            model: float(
                np.median(
                    [
                        _overhead(cell)
                        for key, cell in _rows(cells)
                        if key in warm and cell.model == model
                    ]
                )
            )
            for model in MODELS
        },
    }


def _rows(cells: pd.DataFrame) -> list[tuple[str, Any]]:
    return [(str(cell.key), cell) for cell in cells.itertuples()]


def _overhead(cell: Any) -> float:
    """What a cell cost besides training and scoring."""
    return float(cell.seconds_total - cell.seconds_train - cell.seconds_score)


def pure_seconds(model: str, workers: int) -> dict[str, float]:
    """Seconds of one training step and of scoring one batch, on `workers` processes at once: the
    slowest of them.
    """
    command = [sys.executable, "-m", "benchmarks.steps", model, str(SIZE), str(BATCH)]
    running = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        for _ in range(workers)
    ]
    found = [json.loads(process.communicate()[0]) for process in running]
    return {name: statistics.mean(each[name] for each in found) for name in found[0]}


def cell_bound(pure: dict[str, float], sizes: dict[str, int]) -> float:
    train = -(-sizes["train"] // BATCH) * pure["train"]
    validate = -(-sizes["validation"] // (2 * BATCH)) * pure["score"]
    score = -(-(sizes["fold"] + sizes["test"]) // (2 * BATCH)) * pure["score"]
    return EPOCHS * (train + validate) + score
