"""The sanity check of each candidate and method, as tasks on the cluster: one cell of the
candidate, some images.
"""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from trainables.core.config import class_index
from trainables.core.layout import RunLayout
from trainables.core.ledger import Entry, read_entry
from trainables.core.records import DamagedRecord
from trainables.runtime.startup import configure_tensorflow
from trainables.runtime.waiting import results
from xai.methods.registry import Method, method_named
from xai.shards.export import failure_of
from xai.shards.summary import load_table

_IMAGES = 16
_MOST_PASSES = 100  # per image: methods that cost more would take hours
_SEED = 0


def randomise(
    layout: RunLayout,
    entries: Sequence[Entry],
    explanations: Sequence[tuple[Method, str]],
    gpus: bool,
) -> tuple[pd.DataFrame, list[str]]:
    """The sanity table: what it holds of these models already, and what it lacked; and what failed.

    One row per candidate, method, layer and stage; columns as in `summary`. Methods of many passes
    are left out.
    """
    import ray

    first = {entry.spec.candidate.id: entry for entry in reversed(entries)}
    known = pd.DataFrame()
    with suppress(DamagedRecord):  # then all of it is made again
        known = load_table(layout, "sanity")
    done = (
        set(zip(known["key"], known["method"], known["asked_layer"], strict=True))
        if len(known)
        else set()
    )
    # A worker gives a GPU's memory back only when it ends; without one it keeps its TensorFlow.
    task = ray.remote(num_gpus=int(gpus), num_cpus=1, max_calls=int(gpus))(_check)
    running = []
    for entry in first.values():
        for method, layer in explanations:
            if method.passes <= _MOST_PASSES and (entry.spec.key, method.name, layer) not in done:
                running.append(task.remote(str(layout.root), entry.spec.key, method.name, layer))
    found = [
        ([], failure_of(each)) if isinstance(each, Exception) else each
        for each in results(running, "checking a method")
    ]
    rows = [row for checked, _ in found for row in checked]
    keys = {entry.spec.key for entry in entries}
    table = pd.concat([known, pd.DataFrame(rows)], ignore_index=True)
    table = table[table["key"].isin(keys)].reset_index(drop=True) if len(table) else table
    return table, [failure for _, failure in found if failure]


def _check(run: str, key: str, name: str, layer: str) -> tuple[list[dict[str, Any]], str]:
    """Runs in a Ray worker: the rows of one candidate, method and layer, or why there are none."""
    configure_tensorflow(1)
    try:
        return _cascade(Path(run), key, name, layer), ""
    except (
        Exception
    ) as error:  # one check that fails must not stop the others; the caller reports it
        return [], failure_of(error)


def _cascade(run: Path, key: str, name: str, layer: str) -> list[dict[str, Any]]:
    from xai.judging.heat import evidence
    from xai.judging.sanity import cascade
    from xai.shards.explainer import Explainer
    from xai.shards.images import Images

    layout, method = RunLayout(run), method_named(name)
    entry = read_entry(layout.ledger / key)
    spec = entry.spec
    predictions = entry.predictions()
    predictions = predictions[predictions["split"] == "fold"].sort_values("image")
    chosen = predictions.iloc[
        np.linspace(0, len(predictions) - 1, min(_IMAGES, len(predictions))).astype(int)
    ]
    pixels, _ = Images(layout).pixels(list(chosen["image"]), spec.candidate.input_format)
    index = class_index(spec.classes)
    targets = np.array([[index[label]] for label in chosen["prediction"]], np.int32)
    classifier = Explainer(run).classifier(entry, layer)

    def explain(_model: Any, images: Any) -> Any:
        return evidence(method.explain(classifier, images, targets, _SEED)[:, 0], method.positive)

    placement = classifier.placement if method.layered else None
    found = cascade(classifier.model, explain, pixels, _SEED, placement)
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
