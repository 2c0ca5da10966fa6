"""Pure steps of one model on random pixels in memory, one thread: `python -m benchmarks.steps MODEL
SIZE BATCH`.
"""

import json
import sys
import time

import numpy as np

from trainables.core.training_config import Augmentation
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
    session = Session(architecture, 0)
    session.reset(0)
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (2 * batch, size, size, 1), dtype=np.uint8)
    labels, weights = rng.integers(0, 2, batch).astype(np.int32), np.ones(batch, np.float32)

    def train() -> None:
        loss, _ = session.train_step(pixels[:batch], labels, weights, False)
        float(loss)

    def score() -> None:
        session.logits(pixels).numpy()

    seconds = {}
    for name, step in (("train", train), ("score", score)):
        for _ in range(3):
            step()
        began = time.perf_counter()
        for _ in range(30):
            step()
        seconds[name] = (time.perf_counter() - began) / 30
    sys.stdout.write(json.dumps(seconds))


if __name__ == "__main__":
    main()
