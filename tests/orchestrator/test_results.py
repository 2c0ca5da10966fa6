"""Tables from a run folder that was written by hand, with numbers that are known."""

import json
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from filelock import FileLock

from orchestrator import load_run
from orchestrator.cells import Prepared, cell_entries
from orchestrator.experiment import parse_experiment
from orchestrator.folds import make_folds
from orchestrator.results import TABLES, Run, ensemble_predictions
from tests.conftest import rayfold
from trainables.errors import RunFolderError
from trainables.layout import RunLayout
from trainables.ledger import CellState, Entry, Seconds
from trainables.manifest import Manifest
from trainables.metrics import HEADLINE, metric_names, score

CLASSES = ("it's ill", "well")
EXPERIMENT = """
name: by-hand
data: {source: folder, path: /nowhere, classes: ["it's ill", well]}
folds: {k: 3}
training: {epochs: 4}
candidates:
- {name: Good one, model: TinyCNN, weights: /nowhere/any.keras}
- {name: poor, model: DenseNet121, batch_size: 3, augmentation: {flip: true}}
seeds: [0, 7]
"""


def manifest_by_hand(n: int = 60) -> Manifest:
    rows = [
        {
            "image": f"{number:03}.png",
            "path": f"/nowhere/{number:03}.png",
            "label": CLASSES[number % 2],
            "group": f"patient {number // 2}",
            "view": None,
            "split": None,
            "state": "ok",
            "reason": None,
            "content_hash": f"{number:064x}",
            **{"width": 8, "height": 8, "channels": 1, "bits": 8, "max_value": 255, "size_bytes": 9, "mtime_ns": 1},
        }
        for number in range(n)
    ]
    return Manifest(pd.DataFrame(rows), CLASSES)


def predictions_of(run: Prepared, entry: Entry, errors: int, shift: float = 0.0) -> pd.DataFrame:
    """Confident predictions of which the first `errors` of each class and split are wrong."""
    own = run.folds[run.folds["fold"] == entry.spec.fold]
    own = own[own["role"].isin(["fold", "test"])].sort_values(["role", "image"])
    rank = own.groupby(["role", "label"]).cumcount()
    ill = np.where((own["label"] == CLASSES[0]) ^ (rank < errors), 0.8, 0.3) + shift
    return pd.DataFrame(
        {
            "image": own["image"].to_numpy(),
            "label": own["label"].to_numpy(),
            "group": own["group"].to_numpy(),
            "split": own["role"].to_numpy(),
            f"prob_{CLASSES[0]}": ill,
            f"prob_{CLASSES[1]}": 1 - ill,
            f"logit_{CLASSES[0]}": np.log(ill),
            f"logit_{CLASSES[1]}": np.log(1 - ill),
            "prediction": np.where(ill > 0.5, *CLASSES),
        }
    )


def prepare_by_hand(folder: Path) -> Prepared:
    experiment = parse_experiment(EXPERIMENT, "by-hand.yaml", folder)
    manifest, layout = manifest_by_hand(), RunLayout(folder)
    folds = make_folds(manifest.usable, 3, 0.1, 0.1, 0)
    weights = experiment.candidates[0].training.weights
    Path(weights).name  # noqa: B018, the file need not exist once the cells are listed
    entries = [entry for entry in _entries(experiment, layout, manifest, folds)]
    prepared = Prepared(experiment, layout, manifest, folds, entries)
    prepared.save()
    return prepared
