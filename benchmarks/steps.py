"""Pure steps of one model on random pixels in memory, one thread: `python -m benchmarks.steps MODEL
SIZE BATCH`. `recipe`: a training step with AdamW, clipping, an average of weights, RandAugment
and another learning rate at each step.
"""

import json
import sys
import time

import numpy as np

from trainables.core.training_config import Training
from trainables.core.training_sections import Augmentation
from trainables.models.architecture import Architecture
from trainables.runtime.startup import configure_tensorflow


def main() -> None:
    model, size, batch = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    configure_tensorflow(1)
    from trainables.training.session import Session

    architecture = Architecture(
        model=model,
        image_size=size,
        channels=1,
        n_classes=2,
        arguments={},
        weights="none",
        weights_hash=None,
        builder_hash=None,
        dropout=0.2,
        batch_norm_momentum=None,
        optimizer="adam",
        augmentation=Augmentation(),
        precision="float32",
        xla=False,
    )
    augmentation = Augmentation(rand_augment=0.3)
    training = Training(optimizer="adamw", clip_norm=1.0, ema=0.99, augmentation=augmentation)
    chosen = {
        **{"optimizer": "adamw", "decays": True, "clips": True, "averages": True},
        "augmentation": augmentation.structure,
    }
    session, recipe = (
        Session(architecture.model_copy(update=update), 0) for update in ({}, chosen)
    )
    recipe.set_numbers(training, [0.5, 0.5])
    for each in (session, recipe):
        each.reset(0)
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (2 * batch, size, size, 1), dtype=np.uint8)
    labels, weights = rng.integers(0, 2, batch).astype(np.int32), np.ones(batch, np.float32)

    def train() -> None:
        loss, _ = session.train_step(pixels[:batch], labels, weights, False)
        float(loss)

    def train_by_recipe() -> None:
        recipe.set_learning_rate(time.perf_counter() % 1e-4)
        loss, _ = recipe.train_step(pixels[:batch], labels, weights, False)
        float(loss)

    def score() -> None:
        session.logits(pixels).numpy()

    steps = {"train": train, "recipe": train_by_recipe, "score": score}
    seconds = dict.fromkeys(steps, 0.0)
    for turn in range(33):  # in turns, so that a busy moment is nobody's alone
        for name, step in steps.items():
            began = time.perf_counter()
            step()
            seconds[name] += (time.perf_counter() - began) / 30 if turn >= 3 else 0.0
    sys.stdout.write(json.dumps(seconds))


if __name__ == "__main__":
    main()
