"""Recipes, drawn at random so that each value of an option is in one: warm or cold, resumed or not,
each gives one result to the bit. More than CI has time for with `RAYFOLD_RECIPES=30`.
"""

import json
import os
import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.trainables.training.test_worker import prepared_run, same_result, work
from trainables.core.contradictions import contradiction
from trainables.core.ledger import Entry
from trainables.core.training_config import Training

pytestmark = pytest.mark.slow
NUMBER = int(os.environ.get("RAYFOLD_RECIPES", "6"))

EXPERIMENT = """
name: recipes
data: {{source: folder, path: {path!r}}}
folds: {{k: 2}}
training: {{epochs: 3, early_stopping: null, learning_rate: 3e-3, dropout: 0.3, batch_size: 8}}
candidates:
{candidates}
"""
OPTIONS: dict[str, Sequence[Any]] = {
    "optimizer": ("adam", "adamw", "sgd", "lion", "lamb"),
    "momentum": (None, None, 0.5),
    "nesterov": (False, True),
    "beta_1": (None, 0.8),
    "epsilon": (None, 1e-3),
    "weight_decay": (None, 0.1),
    "clip_norm": (None, 0.5, 2.0),
    "effective_batch": (None, 16, 32),
    "ema": (None, 0.9, 0.99),
    "frozen_epochs": (0, 1),
    "frozen_until": (None, None, "conv2"),
    "thaw_every": (None, 1),
    "layer_decay": (1.0, 0.5),
    "soup": (None, 2),
    "schedule": (
        {"kind": "constant", "warmup_epochs": 0.5},
        {"kind": "cosine", "warmup_epochs": 1.5, "final": 0.1},
        {"kind": "one_cycle"},
        {"kind": "exponential"},
        {"kind": "plateau", "patience": 1, "factor": 0.1},
    ),
    "sampling": ("none", "class", "class_and_group"),
    "class_weights": ("none", "balanced", "effective_number"),
    "loss": (
        {},
        {"label_smoothing": 0.1},
        {"kind": "focal", "gamma": 1.5},
        {"kind": "logit_adjusted"},
    ),
    "mix": ({}, {"kind": "mixup"}, {"kind": "cutmix"}),
    "augmentation": (
        {},
        {"flip": True, "rotation": 10.0},
        {"vertical_flip": True, "translation": 0.1, "shear": 0.1, "erasing": 0.5, "noise": 0.1},
        {"brightness": 0.1, "contrast": 0.2, "gamma": 0.5, "blur": 1.0, "equalization": 1.0},
        {"rand_augment": 0.3, "fill": "reflect"},
        {"rand_augment": 0.6, "flip": True},
    ),
    "test_time_augmentation": ("none", "none", "flip", "turns"),
    "head": ({}, {"hidden": 8}, {"pooling": "gem"}, {"pooling": "attention", "hidden": 8}),
    "backbone_dropout": (0.0, 0.3),
    "input": (
        {},
        {"fit": "pad", "normalization": "per_image"},
        {"depth": 16},
    ),
}

# Trains one epoch of each cell and saves it, as a worker does that is told to stop, and then a
# whole cell of the same recipe with the session that is left.
BEGIN = """
import json, sys
from pathlib import Path
begun, warm, keys = json.loads(sys.argv[1])
from trainables.runtime.startup import configure_tensorflow
configure_tensorflow(1)
from trainables.training.worker import Worker
worker = Worker(0)
for key in keys:
    cell = worker.open(Path(begun), key, 0.0)
    cell.advance()
    cell.suspend()
    left = [*worker._sessions.values()]
    cell = worker.open(Path(warm), key, 0.0)
    while not cell.done:
        cell.advance()
    assert [*worker._sessions.values()] == left
"""


def values(recipe: dict[str, Any]) -> set[str]:
    """What a recipe chooses, option by option."""
    return {f"{name}: {value}" for name, value in recipe.items()}


def recipes(number: int) -> list[dict[str, Any]]:
    """Each of them is the one of many draws that adds most that none before it has; with this seed
    six of them have everything.
    """
    rng, found, seen = random.Random(35), [], set()
    while len(found) < number:
        drawn = [{name: rng.choice(of) for name, of in OPTIONS.items()} for _ in range(2000)]
        best = max(filter(fits, drawn), key=lambda recipe: len(values(recipe) - seen))
        found.append(best)
        seen |= values(best)
    return found


def fits(recipe: dict[str, Any]) -> bool:
    whole = {"epochs": 3, "batch_size": 8, "early_stopping": None, **recipe}
    return contradiction(Training.model_validate(whole)) is None


def cells(folder: Path, spots: Path) -> list[Entry]:
    lines = [
        f"  - {json.dumps({'name': f'r{index}', 'model': 'TinyCNN', 'image_size': 32, **recipe})}"
        for index, recipe in enumerate(recipes(NUMBER))
    ]
    text = EXPERIMENT.format(path=str(spots), candidates="\n".join(lines))
    entries = prepared_run(folder, spots, text=text.replace("{", "{{").replace("}", "}}"))
    return [entries[f"r{index}", 0] for index in range(NUMBER)]


@pytest.mark.timeout(3000)
def test_a_recipe_has_one_result(spots: Path, tmp_path: Path) -> None:
    warm, cold, resumed = (cells(tmp_path / name, spots) for name in ("warm", "cold", "resumed"))
    keys = [entry.spec.key for entry in warm]
    arguments = json.dumps([str(tmp_path / "resumed"), str(tmp_path / "warm"), keys])
    command = [sys.executable, "-c", BEGIN, arguments]
    begun = subprocess.run(
        command, cwd=ROOT, env=dict(os.environ), capture_output=True, text=True, check=False
    )
    assert begun.returncode == 0, begun.stderr
    assert all(entry.resume_path.exists() for entry in resumed)
    work(cold[::-1], budget=0)
    work(resumed)
    for one, other, third in zip(warm, cold, resumed, strict=True):
        same_result(one, other)
        same_result(one, third)
    rates = [tuple(entry.epochs()["learning_rate"]) for entry in warm]
    assert len(set(rates)) > 3
