"""What settings of a training cannot be meant together: whether that is so, and the remedy."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trainables.core.training_config import Training


def of_layers(t: "Training") -> Iterator[tuple[bool, str]]:
    """About what learns, how fast, and which weights are kept."""
    yield (
        t.frozen_epochs >= t.epochs
        and (t.frozen_until, t.thaw_every, t.layer_decay) != (None, None, 1),
        "frozen_until, thaw_every and layer_decay are for epochs after frozen_epochs, got "
        f"{t.frozen_epochs} of {t.epochs}; train for longer or remove them",
    )
    yield (
        t.thaw_every is not None and t.frozen_epochs == 0,
        "thaw_every goes on from head-only epochs; state frozen_epochs or remove it",
    )
    yield (
        t.soup is not None and t.soup > t.epochs,
        f"soup must be at most epochs, got {t.soup} of {t.epochs}; choose less or train for longer",
    )
