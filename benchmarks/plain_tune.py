"""Baseline (b): an idiomatic Ray Tune script: a function trainable, `model.fit`, a grid over models
and folds.

The data is decoded as in the sequential script. One CPU per trial, as many trials at once as there
are cores; all other settings are Tune's own. Run as `python -m benchmarks.plain_tune TASK.json`;
prints the seconds spent.
"""

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import ray
from ray import tune


def trial(config: dict[str, Any]) -> None:
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    import numpy as np

    from benchmarks.sequential import train_and_score

    task, fold = config["task"], config["task"]["folds"][config["fold"]]
    probabilities = train_and_score(task, config["model"], fold)
    labels = [task["labels"][row] for row in [*fold["fold"], *fold["test"]]]
    tune.report({"accuracy": float(np.mean(probabilities.argmax(axis=1) == labels))})


def main() -> None:
    task = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    began = time.perf_counter()
    space = {
        "model": tune.grid_search(task["models"]),
        "fold": tune.grid_search(list(range(len(task["folds"])))),
        "task": task,
    }
    ray.init(address="local", log_to_driver=False)  # never somebody else's cluster
    with tempfile.TemporaryDirectory() as storage:
        tuner = tune.Tuner(
            tune.with_resources(trial, {"cpu": 1}),
            param_space=space,
            run_config=tune.RunConfig(storage_path=storage, verbose=0),
        )
        results = tuner.fit()
    assert not results.errors, results.errors
    sys.stdout.write(f"{time.perf_counter() - began}\n")


if __name__ == "__main__":
    main()
