"""Asynchronous successive halving within the epochs of cells (Li et al. 2020, arXiv 1810.05934, its
stopping variant): what the validation score of a step must be after some epochs for it to go on.
Pure functions over curves of one fold and seed, which are compared at the same epoch only.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, takewhile
from typing import Any

from orchestrator.experiment.search_config import FIRST_RUNG
from trainables.core.training_config import Training
from trainables.training.decisions import Rung, missed

_ETA = 3
_FEWEST = 3  # curves that a threshold is taken from

_METRICS = {"accuracy": "accuracy", "brier": "loss", "log_loss": "loss"}


def _epoch(rung: int) -> int:
    return int(FIRST_RUNG * _ETA**rung)


def metric_of(objective: str) -> str:
    """The validation metric, known of every epoch, that is of an objective's kind."""
    return _METRICS.get(objective, "auc")  # of the others none is blind to a rare class


@dataclass(frozen=True)
class Trained:
    """How far one cell of a step came: the best score up to each epoch, higher is better, -inf
    before a finite one; and whether training is over.
    """

    training: Training
    scores: Sequence[float]
    over: bool


@dataclass(frozen=True)
class Curve:
    """The best scores at the rungs that a cell went beyond; the last one of a cell whose training
    is over is its best of all, which holds for whatever epochs it did not need.
    """

    bests: tuple[float, ...]
    over: bool

    def after(self, epoch: int) -> float | None:
        """At the rung of an epoch; None where the cell did not come so far."""
        for number, best in enumerate(self.bests):
            if _epoch(number) == epoch:
                return best
        return self.bests[-1] if self.over and self.bests else None

    def row(self) -> dict[str, Any]:
        """As a journal holds it: null is -inf."""
        bests = [best if math.isfinite(best) else None for best in self.bests]
        return {"bests": bests, "over": self.over}

    @classmethod
    def read(cls, row: Mapping[str, Any]) -> "Curve":
        """From a journal."""
        return cls(tuple(-math.inf if b is None else b for b in row["bests"]), row["over"])


def thresholds(curves: Iterable[Curve]) -> tuple[Rung, ...]:
    """What a cell of the same fold and seed is held to: at every rung that any of these reached,
    to be in the upper third, itself among them.
    """
    known = [curve for curve in curves if curve.bests]
    found = []
    for number in range(max((len(curve.bests) for curve in known), default=0)):
        known = [curve for curve in known if curve.over or number < len(curve.bests)]
        scores = sorted(
            (curve.bests[min(number, len(curve.bests) - 1)] for curve in known), reverse=True
        )
        if len(scores) >= _FEWEST and math.isfinite(threshold := scores[len(scores) // _ETA]):
            found.append(Rung(epoch=_epoch(number), threshold=threshold, known=len(scores)))
    return tuple(found)


@dataclass(frozen=True)
class Halt:
    """The cell of a step, by the place of its seed, that fell short of a rung, and its score."""

    seed: int
    rung: Rung
    score: float

    def row(self, release: int, curves: Sequence[Curve]) -> dict[str, Any]:
        """What a journal says of it."""
        return {
            "event": "halted",
            "release": release,
            "seed": self.seed,
            **self.rung.model_dump(),
            "score": self.score if math.isfinite(self.score) else None,
            "curves": [curve.row() for curve in curves],
            "reason": self.rung.why(self.score),
        }


def judged(
    step: Sequence[Trained], rungs: Sequence[Sequence[Rung]]
) -> tuple[list[Curve], Halt | None]:
    """The curves of a step's cells, by seed, and which of them halts it, None: it is finished.

    `rungs`: by seed, none where it is not held to any. What a halted cell did beyond its rung,
    as when its score was known before it was asked for, does not count.
    """
    curves: list[Curve] = []
    halt = None
    for seed, cell in enumerate(step):
        rung = missed(cell.training, rungs[seed] if rungs else (), cell.scores, cell.over)
        if rung is None:
            curves.append(_curve(cell.scores, cell.over))
            continue
        curves.append(_curve(cell.scores[: rung.epoch], over=False))
        halt = halt or Halt(seed, rung, cell.scores[rung.epoch - 1])
    return curves, halt


def _curve(scores: Sequence[float], over: bool) -> Curve:
    """Of a cell that is over: up to the rung that its last epoch is, or would have come before."""
    gone_beyond = len(scores) - over
    bests = [scores[epoch - 1] for epoch in takewhile(gone_beyond.__ge__, map(_epoch, count()))]
    if over and scores:
        bests.append(scores[-1])
    return Curve(tuple(bests), over)
