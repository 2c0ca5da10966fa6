"""Makes shards: opens a cell's model, explains its images, judges the maps, writes rows. Knows
TensorFlow, but not Ray.

Models of one architecture take turns in one set of traced graphs: for the next cell only the
weights are loaded.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tensorflow as tf
from numpy.typing import NDArray

from trainables.core.config import class_index
from trainables.core.layout import RunLayout
from trainables.core.ledger import Entry, read_entry
from trainables.core.records import DamagedRecord
from trainables.data.cell_images import softmax
from trainables.models.architecture import Architecture
from trainables.models.opening import open_model
from xai.judging.scores import agreement_scores, faithfulness_scores
from xai.methods.classifier import Classifier
from xai.methods.placement import Placement
from xai.methods.registry import method_named
from xai.shards.heatmaps import read_shard, shard_digest, write_shard
from xai.shards.images import Images
from xai.shards.map_columns import pack
from xai.shards.map_rows import ClassMap, MapRow, Source
from xai.shards.shard_plan import AUTO, Shard

_SEED = 0


class Explainer:
    """Explains the cells of one run, one shard after another."""

    def __init__(self, run: Path) -> None:
        self._layout = RunLayout(run)
        self._images = Images(self._layout)
        self._classifiers: dict[tuple[str, str], Classifier] = {}
        self._weights_of: dict[tuple[str, str], str] = {}

    def make(self, shard: Shard) -> tuple[int, int]:
        """Write one shard; how many maps it has, and how many images without one. Maps that are
        there are kept.
        """
        entry = read_entry(self._layout.ledger / shard.key)
        path = self._layout.heatmaps / shard.name
        kept = _kept(path, shard)
        rows: list[MapRow] = []
        predictions = entry.predictions()
        predictions = (
            predictions[predictions["split"] == shard.split]
            .set_index("image")
            .loc[list(shard.images)]
        )
        batch = 2 * entry.spec.candidate.training.batch_size
        start = 0
        while start < len(predictions):
            try:
                rows += self._rows(entry, shard, predictions.iloc[start : start + batch], kept)
                start += batch
            except tf.errors.ResourceExhaustedError:
                if batch == 1:
                    raise
                batch //= 2
        columns = [row.columns() for row in rows]
        write_shard(path, columns, shard.digest, shard.scores_digest)
        lost = sum(row.map is None for row in rows)
        return len(rows) - lost, lost

    def classifier(self, entry: Entry, layer: str) -> Classifier:
        """The cell's model with the weights that it has on disk."""
        place = Architecture.of(entry.spec).key, layer
        if place not in self._classifiers:
            model = open_model(self._layout, entry)
            self._classifiers = {
                place: Classifier(model, None if layer in (AUTO, "input") else layer)
            }
        elif self._weights_of.get(place) != entry.spec.key:
            self._classifiers[place].model.load_weights(entry.model_path)
        self._weights_of = {place: entry.spec.key}
        return self._classifiers[place]

    def _rows(
        self, entry: Entry, shard: Shard, predictions: pd.DataFrame, kept: dict[str, list[MapRow]]
    ) -> list[MapRow]:
        """The rows of one batch with their scores, and with the maps that were kept, if any
        were.
        """
        names = list(predictions.index)
        pixels, errors = self._images.pixels(names, entry.spec.candidate.input_format)
        if kept:
            rows = [row for name in names for row in kept[name]]
        else:
            rows = list(self._explain(entry, shard, predictions, pixels, errors))
        self._judge(rows, dict(zip(names, pixels, strict=True)), entry, shard)
        return rows

    def _explain(
        self,
        entry: Entry,
        shard: Shard,
        predictions: pd.DataFrame,
        pixels: NDArray[Any],
        errors: dict[str, str],
    ) -> Iterator[MapRow]:
        """Maps of every class for methods of a layer, else of the predicted class and the label."""
        spec, method = entry.spec, method_named(shard.method)
        classifier = self.classifier(entry, shard.layer)
        index = class_index(spec.classes)
        predicted = np.array([index[name] for name in predictions["prediction"]], np.int32)
        labels = np.array([index[name] for name in predictions["label"]], np.int32)
        targets = np.stack([predicted, labels], axis=1)
        if method.layered:
            targets = np.tile(np.arange(len(spec.classes), dtype=np.int32), (len(pixels), 1))
        maps = method.explain(classifier, pixels, targets, _SEED)
        source = Source(
            spec.candidate.id,
            spec.fold,
            spec.seed,
            shard.split,
            method.name,
            classifier.layer if method.layered else "input",
            shard.model_hash,
        )
        placement = classifier.placement if method.layered else None
        for position, image in enumerate(map(str, predictions.index)):
            facts = predictions.iloc[position]
            known = source, image, facts["label"], facts["group"], facts["prediction"]
            if image in errors:
                yield MapRow(*known, error=errors[image])
                continue
            for target, heat in _once(targets[position], maps[position]):
                if not np.isfinite(heat).all():
                    yield MapRow(*known, error="the map is not finite")
                    continue
                name = spec.classes[target]
                said = float(facts[f"logit_{name}"]), float(facts[f"prob_{name}"])
                yield MapRow(*known, map=ClassMap(name, *said, pack(heat, placement)))

    def _judge(
        self,
        rows: Sequence[MapRow],
        pixels: dict[str, NDArray[Any]],
        entry: Entry,
        shard: Shard,
    ) -> None:
        """Add scores: agreement to the maps of the predicted class and of the label, faithfulness
        to some of them.

        Maps are judged as they are stored, so that it does not matter whether they have just been
        made.
        """
        spec, method = entry.spec, method_named(shard.method)
        mapped = [(row, row.map) for row in rows if row.map is not None]
        seen = [
            each for each in mapped if each[1].class_name in (each[0].prediction, each[0].label)
        ]
        form = spec.candidate.input_format
        if seen:
            masks = self._images.masks([row.image for row, _ in seen], form)
            heats, placement = _stacked(seen)
            _spread(seen, agreement_scores(heats, method.positive, masks, form.size, placement))
        judged = [
            (row, found)
            for row, found in mapped
            if found.class_name == row.prediction and row.image in shard.judged
        ]
        if judged:
            classifier = self.classifier(entry, shard.layer)
            chosen = np.stack([pixels[row.image] for row, _ in judged])
            index = class_index(spec.classes)
            classes = np.array([index[found.class_name] for _, found in judged])
            heats, placement = _stacked(judged)

            def predict(images: NDArray[Any]) -> NDArray[Any]:
                return softmax(classifier.logits(images))

            _spread(
                judged,
                faithfulness_scores(
                    predict, chosen, heats, method.positive, classes, _SEED, placement
                ),
            )


def _kept(path: Path, shard: Shard) -> dict[str, list[MapRow]]:
    """The rows of each image in a shard whose maps are right; nothing where there is no such
    shard.
    """
    kept: dict[str, list[MapRow]] = {}
    if shard_digest(path) == shard.digest:
        with suppress(DamagedRecord):
            for row in map(MapRow.read, read_shard(path)):
                kept.setdefault(row.image, []).append(row)
    return kept if set(kept) == set(shard.images) else {}


def _once(
    targets: NDArray[np.int32], maps: NDArray[np.float32]
) -> list[tuple[int, NDArray[np.float32]]]:
    """Each class with its map, no class twice."""
    return list({int(target): heat for target, heat in zip(targets, maps, strict=True)}.items())


def _stacked(rows: Sequence[tuple[MapRow, ClassMap]]) -> tuple[NDArray[np.float32], Placement]:
    """The maps (n, h, w), and where their cells lie, which is the same for all of one method and
    layer.
    """
    return np.stack([found.heat for _, found in rows]), rows[0][1].placement


def _spread(rows: Sequence[tuple[MapRow, ClassMap]], columns: dict[str, NDArray[Any]]) -> None:
    for name, values in columns.items():
        for (row, _), value in zip(rows, values, strict=True):
            row.scores[name] = value if np.ndim(value) else float(value)
