"""What is decided while a cell trains: the best epoch, when to stop or halt, when to save.

Pure functions of the settings and of plain numbers: no files, no clock, no TensorFlow. Epochs count
from 1.
"""

import math
from collections.abc import Sequence
from itertools import accumulate

from trainables.core.training_config import Training
from trainables.core.values import Frozen

_CHECKPOINT_SHARE = 0.02  # of the training time may go into writing resume states


def is_head_only(training: Training, epoch: int) -> bool:
    """Whether this epoch trains the head alone."""
    return epoch <= training.frozen_epochs


def merit(training: Training, monitored: float) -> float:
    """The monitored validation metric such that more is better; -inf where it is not finite, which
    no epoch can be the best with.
    """
    value = -monitored if training.monitor == "loss" else monitored
    return value if math.isfinite(value) else -math.inf


def best_epochs(training: Training, merits: Sequence[float]) -> list[int]:
    """The epochs whose weights are kept, the best first, of equals the earlier."""
    finite = [epoch for epoch, value in enumerate(merits, 1) if value > -math.inf]
    return sorted(finite, key=lambda epoch: -merits[epoch - 1])[: training.soup or 1]


def is_over(training: Training, merits: Sequence[float]) -> bool:
    """Whether training ends after epochs of these merits."""
    finished, best, improved = len(merits), -math.inf, 0
    for epoch, value in enumerate(merits, 1):
        if value > best + training.min_improvement:
            best, improved = value, epoch
    # Patience begins when the backbone is released: it must not end a phase that only prepares.
    waited = finished - max(improved, training.frozen_epochs)
    stalled = training.early_stopping is not None and waited >= training.early_stopping
    return finished >= training.epochs or (finished > 0 and stalled)


class Rung(Frozen):
    """What the best score of a cell's first epochs, `epoch` of them, must reach for it to go on;
    `known`: how many cells' curves say so.
    """

    epoch: int
    threshold: float
    known: int

    def why(self, score: float) -> str:
        """Why a cell with this score does not go on, in words."""
        return (
            f"its best validation score of {self.epoch} epochs is {score:.4g}, the upper third of "
            f"{self.known} curves of this fold had {self.threshold:.4g} by then"
        )


class Ladder(Frozen):
    """The rungs that a cell is held to, in order, and the validation metric that they are of."""

    metric: str
    rungs: tuple[Rung, ...]


def best_scores(metric: str, values: Sequence[float]) -> list[float]:
    """The best of a validation metric up to each epoch, more is better; -inf before a finite
    one.
    """
    scores = (-value if metric == "loss" else value for value in values)
    return list(accumulate((s if math.isfinite(s) else -math.inf for s in scores), max))


def missed(
    training: Training, rungs: Sequence[Rung], scores: Sequence[float], over: bool
) -> Rung | None:
    """The first rung that a cell fell short of; None while it may go on.

    `scores`: the best up to each epoch. `over`: whether training ended with the last of them, which
    then is no rung; nor are epochs of the head alone, after which nobody can be compared.
    """
    reached = len(scores) - over
    for rung in rungs:
        compared = training.frozen_epochs < rung.epoch <= reached
        if compared and scores[rung.epoch - 1] < rung.threshold:
            return rung
    return None


class CheckpointCadence:
    """When to save a resume state: as often as a small share of the time pays for.

    `cost`: seconds that one is thought to take, until one has been measured; `now`: seconds of any
    clock, the same in all calls.
    """

    def __init__(self, cost: float, now: float) -> None:
        self._cost, self._last = cost, now

    def is_due(self, now: float) -> bool:
        return now - self._last >= self._cost / _CHECKPOINT_SHARE

    def note_saved(self, began: float, ended: float) -> None:
        """One was written in the time between."""
        self._cost, self._last = ended - began, ended
