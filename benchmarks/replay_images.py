"""CNNs on images, for the recording of `record_replay.py`: rayfold's TinyCNN at 32 pixels.

The parts of a cell are driven directly, its session and its steps, without a run folder, validation
or early stopping: a thousand cells in half an hour of one core.
"""

import csv
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.record_replay import CANDIDATES, Fit
from trainables.core.training_config import Training
from trainables.core.training_sections import Augmentation
from trainables.models.architecture import Architecture
from trainables.sources.phantom import draw_phantom

SIZE = 32
XRAYS = Path(os.environ.get("REPLAY_XRAYS", "chest-xrays"))

#: Pixels (n, SIZE, SIZE, 1) uint8, labels (n,), groups (n,).
Images = tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64]]


# --- data -----------------------------------------------------------------------------------------


def phantoms() -> Images:
    """300 phantoms of 150 patients, with noise, since without they are told apart too well."""
    keys = [
        (label, 2 * (image // 2) + label, image % 2) for label in (0, 1) for image in range(150)
    ]
    pixels = np.stack([draw_phantom(*key, SIZE, 0, False).pixels for key in keys])[..., None]
    noise = np.random.default_rng(0).normal(0, 25, pixels.shape)
    labels, patients, _ = np.array(keys).T
    return np.clip(pixels + noise, 0, 255).astype(np.uint8), labels, patients


def xrays() -> Images:
    """Chest X-rays below $REPLAY_XRAYS: normal ones against pneumonia, with their patients.

    `manifest.csv` there has the columns file, label, patient. Those recorded are 360 of NIH
    ChestX-ray14, from the NIH Clinical Center (Wang et al., CVPR 2017).
    """
    with (XRAYS / "manifest.csv").open(encoding="utf-8", newline="") as table:
        rows = [row for row in csv.DictReader(table) if row["label"] in ("Normal", "Pneumonia")]
    pixels = [
        cv2.resize(
            cv2.imread(str(XRAYS / row["file"]), cv2.IMREAD_GRAYSCALE),
            (SIZE, SIZE),
            interpolation=cv2.INTER_AREA,
        )
        for row in rows
    ]
    labels = np.array([row["label"] == "Pneumonia" for row in rows], np.int64)
    patients = np.unique([row["patient"] for row in rows], return_inverse=True)[1]
    return np.stack(pixels)[..., None], labels, patients


DATA: dict[str, Callable[[], Images]] = {"phantoms": phantoms}
if (XRAYS / "manifest.csv").exists():
    DATA["chest X-rays"] = xrays


# --- candidates -----------------------------------------------------------------------------------


def _training(rng: np.random.Generator) -> Training:
    def log(low: float, high: float) -> float:
        return float(f"{np.exp(rng.uniform(np.log(low), np.log(high))):.3g}")

    return Training(
        epochs=round(log(1, 6)),
        batch_size=int(rng.choice([16, 32, 64])),
        optimizer=rng.choice(["adam", "sgd"]),
        learning_rate=log(3e-5, 3e-1),
        dropout=float(rng.choice([0.0, 0.5])),
        augmentation=Augmentation(**(_MOVES if rng.random() < 0.5 else {})),
    )


_MOVES: dict[str, Any] = {"translation": 0.1, "brightness": 0.1, "contrast": 0.2}


def _name(training: Training) -> str:
    moved = "augmented" if training.augmentation.translation else "plain"
    return (
        f"TinyCNN {training.optimizer} learning_rate={training.learning_rate:g} "
        f"batch_size={training.batch_size} epochs={training.epochs} dropout={training.dropout:g} "
        f"{moved}"
    )


@cache
def _session(optimizer: Any, dropout: float, augmentation: Augmentation) -> Any:
    from trainables.training.session import Session

    architecture = Architecture(
        model="TinyCNN",
        image_size=SIZE,
        channels=1,
        n_classes=2,
        arguments={},
        weights="none",
        weights_hash=None,
        builder_hash=None,
        dropout=dropout,
        batch_norm_momentum=None,
        optimizer=optimizer,
        augmentation=augmentation.structure,
        precision="float32",
        xla=False,
        frozen_phase=False,
    )
    return Session(architecture, 0)


def _fit_of(training: Training, pixels: NDArray[np.uint8], labels: NDArray[np.int64]) -> Fit:
    def fit(train: NDArray[np.int64], held_out: NDArray[np.int64]) -> NDArray[np.float64]:
        session = _session(training.optimizer, training.dropout, training.augmentation)
        session.reset(0)
        session.set_numbers(training, np.bincount(labels[train]) / len(train))
        session.set_learning_rate(training.learning_rate)
        for epoch in range(training.epochs):
            order = np.random.default_rng(epoch).permutation(train)
            for start in range(0, len(order), training.batch_size):
                rows = order[start : start + training.batch_size]
                weights = np.ones(len(rows), np.float32)
                session.train_step(pixels[rows], labels[rows].astype(np.int32), weights, False)
        logits = np.asarray(session.logits(pixels[held_out]), np.float64)
        return np.asarray(logits[:, 1] - logits[:, 0])

    return fit


def fits(data: str) -> tuple[list[tuple[str, Fit]], NDArray[np.int64], NDArray[np.int64]]:
    """The candidates of a data set, its labels (n,) and its groups (n,)."""
    from trainables.runtime.startup import configure_tensorflow

    configure_tensorflow(1)
    pixels, labels, groups = DATA[data]()
    rng = np.random.default_rng(0)
    trainings = [Training(epochs=4), *(_training(rng) for _ in range(CANDIDATES - 1))]
    return [(_name(each), _fit_of(each, pixels, labels)) for each in trainings], labels, groups
