"""The same search twice on this machine: `python -m benchmarks.live_search [rounds]`.

TPE over learning rate, weight decay and dropout of TinyCNN on phantoms, 40 candidates × 5 folds,
by rayfold, whose folds race, and by Ray Tune with OptunaSearch and the folds looped inside the
trainable. Wall seconds from the start of the command, imports and all, until there is a candidate,
through all folds, that is at least as good as the best which the loop finds at all. Beside it, how
often rayfold's two workers built a model, of which there are two, with and without dropout.

Writes `live_search.json`.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.grid import timed, write_task
from orchestrator import load_run
from trainables.core.layout import RunLayout

CANDIDATES, FOLDS, EPOCHS, SIZE, BATCH, WORKERS = 40, 5, 3, 64, 16, 2
LOGUNIFORM = {"learning_rate": (1e-6, 1e-1), "weight_decay": (1e-5, 1e-1)}
BUILT = 0.5  # seconds: a warm worker takes far less
CHOICE = {"dropout": (0.0, 0.3)}

EXPERIMENT = """
name: live
data: {{source: phantom, images_per_class: 80, image_size: {size}, seed: {seed}}}
folds: {{k: {folds}}}
training: {{epochs: {epochs}, batch_size: {batch}, optimizer: adamw, early_stopping: null}}
search: {{candidates: {candidates}, sampler: tpe, seed: {seed}}}
candidates:
  - {{model: TinyCNN, image_size: {size}, {space}}}
resources: {{cpus_per_cell: 1}}
"""


def experiment(seed: int) -> str:
    space = {name: f"{{loguniform: [{a}, {b}]}}" for name, (a, b) in LOGUNIFORM.items()}
    space |= {name: f"{{choice: {list(values)}}}" for name, values in CHOICE.items()}
    return EXPERIMENT.format(
        **{"size": SIZE, "seed": seed, "folds": FOLDS, "epochs": EPOCHS, "batch": BATCH},
        candidates=CANDIDATES,
        space=", ".join(f"{name}: {text}" for name, text in space.items()),
    )


def looped(task: Path) -> list[tuple[float, float]]:
    """Seconds and mean AUC of the trials of the loop, in the order in which they ended."""
    command = [sys.executable, "-m", "benchmarks.looped_tune", str(task)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [(seconds, auc) for seconds, auc in json.loads(done.stdout.splitlines()[-1])]


def raced(run: Path, began: float) -> list[tuple[float, float]]:
    """Seconds and mean AUC of the candidates that went through all folds, in that order."""
    opened, layout = load_run(run), RunLayout(run)
    cells = opened.cells.merge(opened.folds_summary, on=["candidate", "fold", "seed"])
    found = []
    for _, mine in cells.groupby("candidate"):
        if (mine["state_x"] == "done").all():
            ends = [(layout.ledger / key / "state.json").stat().st_mtime for key in mine["key"]]
            found.append((max(ends) - began, float(mine["auc"].mean())))
    return sorted(found)


def until(trials: list[tuple[float, float]], target: float) -> float | None:
    """Seconds until a trial reaches the target."""
    return next((seconds for seconds, auc in trials if auc >= target), None)


def ratio(theirs: float | None, ours: float | None) -> float | None:
    return None if theirs is None or ours is None else theirs / ours


def compare(folder: Path, seed: int) -> dict[str, Any]:
    file, task, run = folder / "live.yaml", folder / "task.json", folder / f"run-{seed}"
    file.write_text(experiment(seed), "utf-8")
    timed("orchestrator", "plan", file)  # the images are there: neither pays for drawing them
    began = time.time()
    whole = timed("orchestrator", "run", file, "--run", run)
    ours = raced(run, began)
    write_task(run, task)
    told = json.loads(task.read_text("utf-8"))
    told |= {"size": SIZE, "epochs": EPOCHS, "batch": BATCH, "candidates": CANDIDATES}
    task.write_text(json.dumps(told | {"loguniform": LOGUNIFORM, "choice": CHOICE}), "utf-8")
    theirs = looped(task)
    target = max(auc for _, auc in theirs)
    reached = {"rayfold": until(ours, target), "looped": until(theirs, target)}
    cells = load_run(run).cells
    return {
        "seed": seed,
        "auc": {"rayfold": max(auc for _, auc in ours), "looped": target},
        "seconds_to_target": reached,
        "seconds": {"rayfold": whole, "looped": theirs[-1][0]},
        "ratio_to_target": ratio(reached["looped"], reached["rayfold"]),
        "ratio_to_end": ratio(theirs[-1][0], reached["rayfold"]),
        "ratio_of_whole": theirs[-1][0] / whole,
        "cells": int((cells["state"] == "done").sum()),
        "models_built": int((cells["seconds_build"] > BUILT).sum()),
        "models_to_build": WORKERS * len(CHOICE["dropout"]),
    }


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    with tempfile.TemporaryDirectory() as folder:
        found = [compare(Path(folder), seed) for seed in range(rounds)]
    medians = {
        name: statistics.median(row[name] or 0.0 for row in found)
        for name in ("ratio_to_target", "ratio_to_end", "ratio_of_whole")
    }
    results = {"rounds": found, "medians": medians}
    Path(__file__).with_name("live_search.json").write_text(json.dumps(results, indent=1) + "\n")
    json.dump(results, sys.stdout, indent=1)


if __name__ == "__main__":
    main()
