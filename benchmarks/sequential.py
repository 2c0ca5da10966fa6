"""Baseline (a): one process, one model after another, as a study's script is usually written.

For each model and fold: a new Keras model, compiled, fitted from files that tf.data decodes in
every epoch, scored. Run as `python -m benchmarks.sequential TASK.json`; prints the seconds spent.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any


def dataset(task: dict[str, Any], rows: list[int], training: bool) -> Any:
    import tensorflow as tf

    def load(path: Any, label: Any) -> tuple[Any, Any]:
        image = tf.io.decode_png(tf.io.read_file(path), channels=3)
        return tf.image.resize(image, (task["size"], task["size"])), tf.one_hot(label, 2)

    paths = [task["paths"][row] for row in rows]
    labels = [task["labels"][row] for row in rows]
    data = tf.data.Dataset.from_tensor_slices((paths, labels))
    if training:
        data = data.shuffle(len(rows), seed=0)
    return (
        data.map(load, num_parallel_calls=tf.data.AUTOTUNE)
        .batch(task["batch"])
        .prefetch(tf.data.AUTOTUNE)
    )


def compiled(model: str, size: int) -> Any:
    import keras

    backbone = getattr(keras.applications, model)(
        include_top=False, weights=None, input_shape=(size, size, 3)
    )
    x = keras.layers.GlobalAveragePooling2D()(backbone.output)
    outputs = keras.layers.Dense(2, activation="softmax")(keras.layers.Dropout(0.2)(x))
    result = keras.Model(backbone.input, outputs)
    result.compile(keras.optimizers.Adam(2e-4), "categorical_crossentropy", metrics=["accuracy"])
    return result


def train_and_score(task: dict[str, Any], model: str, fold: dict[str, list[int]]) -> Any:
    """One fold of one model; the class probabilities of fold and test set."""
    network = compiled(model, task["size"])
    network.fit(
        dataset(task, fold["train"], training=True),
        validation_data=dataset(task, fold["validation"], training=False),
        epochs=task["epochs"],
        verbose=0,
    )
    return network.predict(dataset(task, [*fold["fold"], *fold["test"]], training=False), verbose=0)


def main() -> None:
    task = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    began = time.perf_counter()
    for model in task["models"]:
        for fold in task["folds"]:
            train_and_score(task, model, fold)
    sys.stdout.write(f"{time.perf_counter() - began}\n")


if __name__ == "__main__":
    main()
