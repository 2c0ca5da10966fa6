"""Small models with known answers: trained on phantoms whose opacities, or corner markers, are
planted.
"""

from functools import cache
from typing import NamedTuple

import keras
import numpy as np

from trainables.core.config import Candidate, CellSpec
from trainables.core.training_config import Training
from trainables.models.architecture import Architecture
from trainables.sources.phantom import draw_phantom
from trainables.training.session import Session

SIZE = 96
_TEST_PATIENTS = 10_000


class Trained(NamedTuple):
    """A model that has learned phantoms, and 40 opacities of other patients: pixels and masks, (40,
    96, 96[, 1]).
    """

    model: keras.Model
    accuracy: float
    pixels: np.ndarray
    opacity: np.ndarray
    lungs: np.ndarray
    marker: np.ndarray


@cache
def trained(marked: bool) -> Trained:
    """Train TinyCNN on phantoms; where `marked`, every opacity carries a corner marker, which is
    easier to learn.
    """
    images, epochs = (80, 16) if marked else (240, 16)
    pixels = np.array(
        [draw_phantom(i % 2, i, 0, SIZE, 0, marked and i % 2 == 1).pixels for i in range(images)]
    )
    pixels, labels = pixels[..., None], np.arange(images, dtype=np.int32) % 2
    candidate = Candidate(
        id="tiny", name="Tiny", model="TinyCNN", image_size=SIZE, training=Training()
    )
    spec = CellSpec(
        candidate=candidate,
        fold=0,
        seed=0,
        classes=("Normal", "Opacity"),
        channels=1,
        data_hash="",
        roles_hash="",
    )
    session = Session(Architecture.of(spec), 0)
    session.set_learning_rate(1e-3)
    rng, weights = np.random.default_rng(0), np.ones(16, np.float32)
    for _ in range(epochs):
        for rows in rng.permutation(images).reshape(-1, 16):
            session.train_step(pixels[rows], labels[rows], weights, False)
    drawn = [draw_phantom(1, _TEST_PATIENTS + i, 0, SIZE, 0, marked) for i in range(40)]
    healthy = np.array(
        [draw_phantom(0, 2 * _TEST_PATIENTS + i, 0, SIZE, 0, False).pixels for i in range(40)]
    )
    ill = np.array([phantom.pixels for phantom in drawn])[..., None]
    masks = [
        np.array([getattr(one, name) > 0 for one in drawn])
        for name in ("opacity", "lungs", "marker")
    ]
    logits = [session.logits(part).numpy() for part in (ill, healthy[..., None])]
    right = np.concatenate([logits[0].argmax(1) == 1, logits[1].argmax(1) == 0])
    return Trained(session.probability_model(), float(right.mean()), ill, *masks)
