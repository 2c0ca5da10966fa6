"""A sheet of what augmentation makes of real images, before anything trains."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from orchestrator.report.style import STYLE, wrapped
from trainables.core.config import Candidate
from trainables.core.training_config import Training
from trainables.core.training_sections import Augmentation
from trainables.data.manifest import Manifest
from trainables.data.store import Chunk, decode_chunk
from trainables.pictures.depth import raw

_DRAWS = 7  # pictures of each image, beside itself
_CLASSES = 3  # an image of each of the first
_RECIPES = 12  # candidates that differ in it

Float32 = NDArray[np.float32]


def write_augmentation_sheet(
    path: Path, candidates: Sequence[Candidate], manifest: Manifest, folds: pd.DataFrame
) -> tuple[int, int]:
    """Draw training images of fold 0 as training changes them, a block of rows for each recipe.

    Returns how many are drawn, and of how many; without any, nothing is written. Raises DataError
    where an image has changed since it was scanned.
    """
    recipes: dict[str, Candidate] = {}
    for candidate in candidates:
        if _changes(candidate.training):
            t = candidate.training
            key = f"{candidate.input_format} {t.augmentation!r} {t.mix!r}"
            recipes.setdefault(key, candidate)
    shown = list(recipes.values())[:_RECIPES]
    if shown:
        images = _examples(manifest, folds)
        _draw(path, [(each, _pictures(each, images, manifest.channels)) for each in shown], images)
    return len(shown), len(recipes)


def _changes(training: Training) -> bool:
    return training.mix.kind != "none" or training.augmentation != Augmentation()


def _examples(manifest: Manifest, folds: pd.DataFrame) -> pd.DataFrame:
    """The first training image of each class, but of many classes."""
    train = folds[(folds["fold"] == 0) & (folds["role"] == "train")]["image"]
    images = manifest.usable[manifest.usable["image"].isin(train)]
    return images.groupby("label", sort=False).head(1).head(_CLASSES)


def _pictures(candidate: Candidate, images: pd.DataFrame, channels: int) -> list[Float32]:
    """Each image as it is, then as it is drawn: 1 + draws arrays (n, s, s, c), 0 to 255."""
    import tensorflow as tf

    from trainables.training.augmentation import Augment
    from trainables.training.losses import Mixing

    training, number = candidate.training, len(images)
    pixels = raw(decode_chunk(Chunk.of(images, candidate.input_format, channels)))
    pixels = pixels.astype(np.float32)
    augment = Augment(training.augmentation.structure)
    augment.set_numbers(training.augmentation)
    mixing = Mixing(training.mix.kind) if training.mix.kind != "none" else None
    if mixing is not None:
        mixing.alpha.assign(training.mix.strength)
    found = [pixels]
    for _ in range(_DRAWS):
        drawn = augment(tf.constant(pixels))
        if mixing is not None:
            drawn, _ = mixing(drawn, tf.eye(number))
        found.append(drawn.numpy())
    return found


def _draw(path: Path, blocks: list[tuple[Candidate, list[Float32]]], images: pd.DataFrame) -> None:
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    rows, columns = len(images), 1 + _DRAWS
    with rc_context(STYLE):
        figure = Figure(figsize=(1.5 * columns, (1.5 * rows + 0.4) * len(blocks)))
        parts: Any = figure.subfigures(len(blocks), 1, hspace=0.02, squeeze=False)
        for part, (candidate, pictures) in zip(parts[:, 0], blocks, strict=True):
            part.suptitle(wrapped(f"{candidate.name}, {candidate.input_format}", 110, 1))
            axes: Any = part.subplots(rows, columns, squeeze=False)
            for row, label in enumerate(images["label"]):
                axes[row, 0].set_ylabel(wrapped(label, 16, 2))
                for column, drawn in enumerate(pictures):
                    axis = axes[row, column]
                    image = drawn[row].clip(0, 255).astype(np.uint8)
                    grey = {"cmap": "gray", "vmin": 0, "vmax": 255}
                    axis.imshow(image.squeeze(-1) if image.shape[-1] == 1 else image, **grey)
                    axis.set(xticks=[], yticks=[])
            axes[0, 0].set_title("as it is")
        figure.savefig(path, dpi=110)
