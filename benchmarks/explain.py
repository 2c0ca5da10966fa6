"""Grad-CAM against the forward pass it is made from, beside what else there is; and a whole export
against it.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.grid import timed
from benchmarks.store import write_images
from trainables.runtime.startup import configure_tensorflow

MODEL, SIZE, BATCH, CLASSES = "EfficientNetB0", 224, 8, 3

EXPERIMENT = """
name: export
data: {{source: table, path: {path!r}}}
folds: {{k: 2, test_set: given}}
training: {{epochs: 1, batch_size: 16}}
candidates: [{{model: {model}, image_size: {size}}}]
resources: {{cpus_per_cell: 1}}
"""


def methods() -> dict[str, Any]:
    """Milliseconds per image of a batch, all classes, and multiples of the forward pass; one
    thread.
    """
    configure_tensorflow(1)
    import keras
    import tensorflow as tf

    from trainables.models import zoo
    from xai.methods.cam import class_maps
    from xai.methods.classifier import Classifier

    model = zoo.build(MODEL, SIZE, 1, CLASSES, "none", 0.2, {})
    classifier = Classifier(model)
    pixels = np.random.default_rng(0).integers(0, 256, (BATCH, SIZE, SIZE, 1)).astype(np.float32)
    both = keras.Model(model.inputs, [model.get_layer("pool").input, model.outputs[0]])

    def tape() -> Any:
        """As the tutorials write it."""
        maps = []
        for target in range(CLASSES):
            with tf.GradientTape() as watched:
                features, logits = both(pixels, training=False)
                chosen = logits[:, target]
            weights = tf.reduce_mean(watched.gradient(chosen, features), axis=(1, 2), keepdims=True)
            maps.append(tf.nn.relu(tf.reduce_sum(weights * features, axis=-1)).numpy())
        return maps

    ways: dict[str, Callable[[], Any]] = {
        "forward": lambda: classifier.logits(pixels),
        "rayfold": lambda: class_maps(classifier, pixels),
        "gradient tape": tape,
    }
    try:
        from tf_keras_vis.gradcam import Gradcam
    except ImportError:
        pass
    else:
        other = Gradcam(model, clone=False)
        scores = [lambda output, target=target: output[:, target] for target in range(CLASSES)]
        layer = classifier.layer
        ways["tf-keras-vis"] = lambda: [
            other(score, pixels, penultimate_layer=layer, expand_cam=False, normalize_cam=False)
            for score in scores
        ]
    best = dict.fromkeys(ways, float("inf"))
    for number in range(8):
        for name, way in ways.items():
            if number >= 3 and best[name] > 20 * best["forward"]:
                continue  # slow ones need no more rounds to be known as slow
            began = time.perf_counter()
            way()
            if number:  # the first round traces
                best[name] = min(best[name], time.perf_counter() - began)
    return {
        "ms_per_image": {name: 1e3 * seconds / BATCH for name, seconds in best.items()},
        "over_forward": {name: seconds / best["forward"] for name, seconds in best.items()},
    }


def export() -> dict[str, Any]:
    """Images per second of a steady export in one process, against the forward pass there; and the
    whole command.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_images(folder / "images")
        file, run = folder / "export.yaml", folder / "run"
        (folder / "table.csv").write_text(table(50, 500), "utf-8")
        file.write_text(
            EXPERIMENT.format(path=str(folder / "table.csv"), model=MODEL, size=SIZE), "utf-8"
        )
        timed("orchestrator", "run", file, "--run", run)
        command = [sys.executable, "-m", "benchmarks.explain", str(run)]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        forward, steady, images = map(float, text.split())
        whole = timed(
            "orchestrator", "explain", run, "--folds", "0", "--split", "test", "--faithfulness", "0"
        )
    return {
        "images": int(images),
        "forward_per_second": forward,
        "export_per_second": steady,
        "export_over_forward": steady / forward,
        "command_seconds": whole,
    }


def table(train: int, test: int) -> str:
    """So many images of each of the two classes."""
    rows = [
        f"images/{label}/{number:04}.png,{label},{'train' if number < train else 'test'}"
        for label in range(2)
        for number in range(train + test)
    ]
    return "\n".join(["path,label,split", *rows])


def steady(run: Path) -> tuple[float, float, int]:
    """Forward passes and exported images per second: store to maps to Parquet to JPEG overlays. One
    thread.
    """
    configure_tensorflow(1)
    from trainables.core.layout import RunLayout
    from trainables.data.manifest import Manifest
    from xai.drawing.pages import Style, draw_cell
    from xai.shards.explainer import Explainer
    from xai.shards.heatmaps import Heatmaps
    from xai.shards.shard_plan import ExplainOptions, chosen_cells, shards

    layout, options = RunLayout(run), ExplainOptions(folds=(0,), split="test", faithfulness=0)
    entries = chosen_cells(layout, options)
    explainer = Explainer(run)
    wanted = list(shards(entries, options, Manifest.load(layout.manifest)))
    explainer.make(wanted[-1])  # opens and traces the model, as an actor does once
    classifier = explainer.classifier(entries[0], "auto")
    pixels = np.random.default_rng(0).integers(
        0, 256, (32, *classifier.input_shape), dtype=np.uint8
    )
    classifier.logits(pixels)
    began = time.perf_counter()
    for _ in range(8):
        classifier.logits(pixels)
    forward = 8 * 32 / (time.perf_counter() - began)
    began = time.perf_counter()
    for shard in wanted:
        explainer.make(shard)
    identity = Heatmaps(layout).table.iloc[0][["candidate", "method", "layer"]].astype(str)
    images = draw_cell(str(run), tuple(identity), 0, 0, 1.0, Style().model_dump())
    return forward, images / (time.perf_counter() - began), images


if __name__ == "__main__":
    sys.stdout.write(" ".join(map(str, steady(Path(sys.argv[1])))))
