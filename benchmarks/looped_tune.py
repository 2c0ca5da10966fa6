"""Baseline of the live search: Ray Tune with OptunaSearch, the folds looped inside the trainable.

As such searches are written today: a trial builds, fits and scores one model per fold and reports
the mean. One CPU per trial, as many trials at once as there are cores; all other settings are
Tune's own. Run as `python -m benchmarks.looped_tune TASK.json`; prints seconds since the start and
mean AUC of each trial that ended, as JSON.
"""

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.search.optuna import OptunaSearch

BEGAN = time.time()


def trial(config: dict[str, Any]) -> None:
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    import numpy as np

    scores = [fold_score(config, fold) for fold in config["task"]["folds"]]
    tune.report({"auc": float(np.mean(scores)), "ended": time.time()})


def fold_score(config: dict[str, Any], fold: dict[str, list[int]]) -> float:
    import keras
    from sklearn.metrics import roc_auc_score

    from benchmarks.sequential import dataset
    from trainables.models.tiny_cnn import backbone

    task = config["task"]
    base = backbone(task["size"])
    x = keras.layers.Rescaling(1 / 127.5, -1)(inputs := keras.Input(base.input.shape[1:]))
    x = keras.layers.GlobalAveragePooling2D()(base(x))
    x = keras.layers.Dropout(config["dropout"])(x)
    network = keras.Model(inputs, keras.layers.Dense(2, activation="softmax")(x))
    optimizer = keras.optimizers.AdamW(config["learning_rate"], weight_decay=config["weight_decay"])
    network.compile(optimizer, "categorical_crossentropy", metrics=["accuracy"])
    network.fit(
        dataset(task, fold["train"], training=True),
        validation_data=dataset(task, fold["validation"], training=False),
        epochs=task["epochs"],
        callbacks=[keras.callbacks.EarlyStopping(patience=99, restore_best_weights=True)],
        verbose=0,
    )
    found = network.predict(dataset(task, fold["fold"], training=False), verbose=0)
    return float(roc_auc_score([task["labels"][row] for row in fold["fold"]], found[:, 1]))


def main() -> None:
    task = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    space = {name: tune.loguniform(*ends) for name, ends in task["loguniform"].items()}
    space |= {name: tune.choice(values) for name, values in task["choice"].items()}
    ray.init(address="local", log_to_driver=False)  # never somebody else's cluster
    with tempfile.TemporaryDirectory() as storage:
        tuner = tune.Tuner(
            tune.with_resources(trial, {"cpu": 1}),
            param_space={**space, "task": task},
            tune_config=tune.TuneConfig(
                search_alg=OptunaSearch(metric="auc", mode="max", seed=0),
                num_samples=task["candidates"],
            ),
            run_config=tune.RunConfig(storage_path=storage, verbose=0),
        )
        results = tuner.fit()
    assert not results.errors, results.errors
    trials = [(each.metrics["ended"] - BEGAN, each.metrics["auc"]) for each in results]
    sys.stdout.write(json.dumps(sorted(trials)) + "\n")


if __name__ == "__main__":
    main()
