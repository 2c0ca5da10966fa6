"""Whether a model that a user's builder returned can be trained: one step on noise, which changes
nothing.
"""

import numpy as np

from trainables.core.errors import ModelError
from trainables.training.session import Session


def check_step(model: str, session: Session, head_only: bool) -> None:
    """Raise ModelError unless a training step on noise, with a learning rate of 0, leaves nothing
    but finite weights.

    Whatever the step itself raises is passed on.
    """
    pixels = session.noise(4)
    session.set_learning_rate(0.0)
    loss, _ = session.train_step(pixels, np.zeros(4, np.int32), np.ones(4, np.float32), head_only)
    # A gradient that is no number leaves none, even times 0.
    if not np.isfinite(loss) or not all(
        np.isfinite(weights).all() for weights in session.weights()
    ):
        raise ModelError(
            f"{model} builds a model whose first training step gives NaN or infinite numbers: look "
            "for divisions, roots and logarithms of 0 in its layers and losses"
        )
