"""The sanity check of each candidate and method, as tasks on the cluster: one cell of the candidate, some images."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from trainables.layout import RunLayout
from trainables.ledger import Entry, read_entry
from trainables.startup import configure_tensorflow
from xai.methods import Method, method_named
from xai.summary import load_table

_IMAGES = 16
_MOST_PASSES = 100  # per image: methods that cost more would take hours
_SEED = 0


def randomise(
    layout: RunLayout,
    entries: Sequence[Entry],
    explanations: Sequence[tuple[Method, str]],
    gpus: bool,
    import_path: Path,
) -> pd.DataFrame:
    """The sanity table: what it holds of these models already, and what it lacked. Methods of many passes are left out.

    One row per candidate, method, layer and stage; columns as in `summary`.
    """
    import ray

    first = {entry.spec.candidate.id: entry for entry in reversed(entries)}
    known = load_table(layout, "sanity")
    done = set(zip(known["key"], known["method"], known["asked_layer"], strict=True)) if len(known) else set()
    task = ray.remote(num_gpus=1 if gpus else 0, num_cpus=1, max_calls=1)(_check)
    running = []
    for entry in first.values():
        for method, layer in explanations:
            if method.passes <= _MOST_PASSES and (entry.spec.key, method.name, layer) not in done:
                running.append(task.remote(str(layout.root), entry.spec.key, method.name, layer, str(import_path)))
    rows = [row for found in ray.get(running) for row in found]
    keys = {entry.spec.key for entry in entries}
    table = pd.concat([known, pd.DataFrame(rows)], ignore_index=True)
    return table[table["key"].isin(keys)].reset_index(drop=True) if len(table) else table


def _check(run: str, key: str, name: str, layer: str, import_path: str) -> list[dict[str, Any]]:
    """Runs in a Ray worker."""
    sys.path.insert(0, import_path)
    configure_tensorflow(1)
    from xai.explainer import Explainer
    from xai.heat import evidence
    from xai.images import Images
    from xai.sanity import cascade

    layout, method = RunLayout(Path(run)), method_named(name)
    entry = read_entry(layout.ledger / key)
    spec = entry.spec
    predictions = entry.predictions()
    predictions = predictions[predictions["split"] == "fold"].sort_values("image")
    chosen = predictions.iloc[np.linspace(0, len(predictions) - 1, min(_IMAGES, len(predictions))).astype(int)]
    pixels, _ = Images(layout).pixels(list(chosen["image"]), spec.candidate.image_size)
    index = {label: number for number, label in enumerate(spec.classes)}
    targets = np.array([[index[label]] for label in chosen["prediction"]], np.int32)
    classifier = Explainer(Path(run)).classifier(entry, layer)

    def explain(_model: Any, images: Any) -> Any:
        return evidence(method.explain(classifier, images, targets, _SEED)[:, 0], method.positive)

    found = cascade(classifier.model, explain, pixels, _SEED)
    return [
        {
            "candidate": spec.candidate.id,
            "method": name,
            "layer": classifier.layer if method.layered else "input",
            "stage": number,
            "lowest_random_layer": lowest,
            "similarity": float(found.similarity[number]),
            "ssim": float(np.nanmean(found.ssim[:, number])),
            "passed": found.passed,
            "asked_layer": layer,
            "key": key,
        }
        for number, lowest in enumerate(found.stages)
    ]
