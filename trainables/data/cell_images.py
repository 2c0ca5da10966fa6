"""The images of one cell by role, and the predictions for those that are scored."""

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from trainables.core.config import CellSpec, class_index
from trainables.core.input_format import InputFormat
from trainables.core.layout import RunLayout, cache_folder
from trainables.data.batches import Batches
from trainables.data.manifest import Manifest
from trainables.data.store import ImageStore, build_store, open_store

_EFFECTIVE = 0.999  # Cui's beta


class CellImages:
    """The images of one cell by role."""

    def __init__(self, layout: RunLayout, spec: CellSpec) -> None:
        manifest, folds = _tables(
            layout.manifest,
            layout.manifest.stat().st_mtime_ns,
            layout.folds,
            layout.folds.stat().st_mtime_ns,
        )
        self._classes = spec.classes
        self._images = manifest.usable
        roles = folds[folds["fold"] == spec.fold].set_index("image")
        self._role = roles["role"].reindex(self._images["image"]).to_numpy()
        self._group = roles["group"].reindex(self._images["image"]).to_numpy()
        index = class_index(spec.classes)
        self._labels = np.array([index[label] for label in self._images["label"]], dtype=np.int32)
        self._pixels = _store(manifest, spec.candidate.input_format).pixels
        training = spec.candidate.training
        self._batch_size = training.batch_size
        self.train = self._batches("train", training.batch_size)
        if training.class_weights != "none":
            self.train.weigh(self._class_weights(training.class_weights))
        if training.sampling != "none":
            groups = self._group[self._rows("train")]
            self.train.balance(groups if training.sampling == "class_and_group" else None)
        self.validation = self._batches("validation", 2 * training.batch_size)

    def _rows(self, role: str) -> NDArray[np.int64]:
        return np.flatnonzero(self._role == role)

    def _batches(self, role: str, batch_size: int) -> Batches:
        rows = self._rows(role)
        return Batches(self._pixels, rows, self._labels[rows], batch_size)

    @property
    def priors(self) -> NDArray[np.float64]:
        """The share of each class in the training part, (c,)."""
        labels = self._labels[self._rows("train")]
        counts = np.bincount(labels, minlength=len(self._classes))
        return np.asarray(counts / len(labels), np.float64)

    def _class_weights(self, kind: str) -> NDArray[np.float32]:
        """Weight of each training image, of mean 1: with `balanced` every class weighs the same;
        with `effective_number` it weighs by Cui 2019 (arXiv:1901.05555), equation 3.
        """
        labels = self._labels[self._rows("train")]
        counts = np.bincount(labels, minlength=len(self._classes))
        if kind == "balanced":
            return (len(labels) / (len(self._classes) * counts[labels])).astype(np.float32)
        weights = 1 / (1 - np.power(_EFFECTIVE, counts[labels]))
        return np.asarray(weights / weights.mean(), np.float32)

    def predictions(self, logits_of: Any) -> pd.DataFrame:
        """One row per image of the fold, then of the test set."""
        tables = []
        for role in ("fold", "test"):
            rows = self._rows(role)
            if len(rows) == 0:
                continue
            logits = logits_of(self._batches(role, 2 * self._batch_size)).astype(np.float64)
            probabilities = softmax(logits)
            columns: dict[str, Any] = {
                "image": self._images["image"].to_numpy()[rows],
                "label": self._images["label"].to_numpy()[rows],
                "group": self._group[rows],
                "split": role,
            }
            columns |= {f"prob_{name}": probabilities[:, i] for i, name in enumerate(self._classes)}
            columns |= {f"logit_{name}": logits[:, i] for i, name in enumerate(self._classes)}
            columns["prediction"] = np.array(self._classes, dtype=object)[
                probabilities.argmax(axis=1)
            ]
            tables.append(pd.DataFrame(columns))
        return pd.concat(tables, ignore_index=True)


@lru_cache(maxsize=2)
def _tables(
    manifest: Path, _manifest_time: int, folds: Path, _folds_time: int
) -> tuple[Manifest, pd.DataFrame]:
    return Manifest.load(manifest), pd.read_parquet(folds)


def _store(manifest: Manifest, form: InputFormat) -> ImageStore:
    """The image store of this node: the driver built it on its own, other nodes build theirs
    once.
    """
    root = cache_folder() / "stores"
    return open_store(manifest, form, root) or build_store(manifest, form, root)


def softmax(logits: NDArray[Any]) -> NDArray[np.float64]:
    """Row-wise, in double precision."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True))
