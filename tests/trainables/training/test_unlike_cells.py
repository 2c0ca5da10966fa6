"""Cells of unlike candidates leave nothing behind in a worker: in any order, or resumed, a fresh
one's bits.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.trainables.training.test_worker import prepared_run, same_result, work
from trainables.core.ledger import Entry

MODULE = """
import keras
import numpy as np
import tensorflow as tf
from keras import layers

class Restless(layers.Layer):
    '''Draws from every generator there is, and counts in every way there is.'''
    def __init__(self, **others):
        super().__init__(**others)
        self.seeds = keras.random.SeedGenerator(7)
        self.mean = keras.metrics.Mean()
        self.plain = tf.Variable(0.0, trainable=False)
        self.drawn = tf.random.Generator.from_seed(3)
    def build(self, shape):
        self.count = self.add_weight(shape=(), initializer="zeros", trainable=False)
        self.scale = self.add_weight(shape=(), initializer=lambda s, dtype=None: np.random.rand(), trainable=False)
    def call(self, x, training=None):
        if training:
            self.count.assign_add(1.0)
            self.plain.assign_add(1.0)
            self.mean.update_state(self.count)
            noise = keras.random.normal(keras.ops.shape(x), seed=self.seeds) + keras.random.normal(keras.ops.shape(x))
            x = x + 0.1 * noise + 0.01 * self.drawn.normal(()) + 0.001 * self.mean.result()
        return x * (1 + 0.01 * self.scale + 0.001 * self.count + 0.001 * self.plain)

def nested(input_shape, n_classes, widths):
    '''The lower half of a nested backbone is frozen by its author.'''
    widths.append(widths.pop() + 1)
    keras.config.set_epsilon(1e-3)
    keras.config.set_floatx("float32")
    image = keras.Input(input_shape)
    x = layers.Conv2D(widths[0], 3, 2, name="low")(layers.Rescaling(1 / 255)(image))
    x = layers.BatchNormalization(momentum=0.5, name="low_norm")(x)
    x = layers.Dropout(0.2)(layers.ReLU()(x))
    x = layers.Conv2D(widths[1], 3, 2, activation="relu", name="high")(x)
    base = keras.Model(image, layers.BatchNormalization(momentum=0.5)(x), name="base")
    for name in ("low", "low_norm"):
        base.get_layer(name).trainable = False
    image = keras.Input(input_shape)
    x = layers.GlobalAveragePooling2D()(base(image))
    return keras.Model(image, layers.Dense(n_classes)(layers.Dropout(0.3)(x)))

def restless(input_shape, n_classes):
    keras.utils.clear_session()
    return keras.Sequential([
        keras.Input(input_shape), layers.Rescaling(1 / 255), layers.Conv2D(4, 3, 2), layers.BatchNormalization(),
        Restless(), layers.GlobalAveragePooling2D(), layers.Dense(n_classes, name="logits"),
    ])
"""

EXPERIMENT = """
name: unlike
data: {{source: folder, path: {path!r}}}
folds: {{k: 2}}
training: {{epochs: 3, learning_rate: {rate}, early_stopping: 2}}
candidates:
  - {{name: nested, model: 'unlike_models:nested', image_size: 32, arguments: {{widths: [[4, 8]]}}}}
  - {{name: frozen, model: 'unlike_models:nested', image_size: 32, arguments: {{widths: [[4, 8]]}}, frozen_epochs: 1}}
  - {{name: restless, model: 'unlike_models:restless', image_size: 32, optimizer: sgd, frozen_epochs: 2}}
  - {{name: tiny, model: TinyCNN, image_size: 32, frozen_epochs: 1, batch_norm_momentum: 0.5}}
"""
NAMES = ("nested", "frozen", "restless", "tiny")


@pytest.fixture(scope="module")
def python_path(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("unlike")
    (folder / "unlike_models.py").write_text(MODULE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder))
        patch.syspath_prepend(folder)
        yield folder


def entries(folder: Path, spots: Path) -> dict[tuple[str, int], Entry]:
    return prepared_run(folder, spots, text=EXPERIMENT)


@pytest.fixture(scope="module")
def fresh(python_path: Path, spots: Path) -> dict[str, Entry]:
    """A cell of each candidate, each the only one of its process."""
    found = entries(python_path / "fresh", spots)
    for name in NAMES:
        work([found[name, 0]])
    return {name: found[name, 0] for name in NAMES}


@pytest.mark.slow
def test_any_order_of_unlike_candidates_gives_the_bits_of_fresh_workers(
    python_path: Path, spots: Path, fresh: dict[str, Entry]
) -> None:
    # Each candidate runs before and after each other one, and each comes back to a session that
    # another has left.
    orders = [NAMES, NAMES[::-1]]
    for number, order in enumerate(orders):
        warm = entries(python_path / f"warm{number}", spots)
        work([*(warm[name, 1] for name in order), *(warm[name, 0] for name in order)])
        for name in NAMES:
            same_result(fresh[name], warm[name, 0])
    for name in NAMES:  # so that equality is not for want of differences
        assert len(set(fresh[name].epochs()["train_loss"])) == 3


@pytest.mark.slow
def test_a_suspended_cell_goes_on_after_an_unlike_one_in_a_new_process(
    python_path: Path, spots: Path, fresh: dict[str, Entry]
) -> None:
    parts = entries(python_path / "parts", spots)
    # With the whole model in training, and with the head alone.
    stops = {"frozen": 2, "restless": 1}
    for name, stop in stops.items():
        work([parts[name, 0]], stop=stop, expected=9, suspend=True)
        assert parts[name, 0].resume_path.exists()
    work([parts["nested", 1], *(parts[name, 0] for name in stops)])
    for name in stops:
        same_result(fresh[name], parts[name, 0])
        assert not np.isnan(parts[name, 0].predictions()["prob_Spot"]).any()
