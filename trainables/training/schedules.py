"""The learning rate of every step: pure functions of the settings, of the place in training and of
what epochs have shown, so that a resumed cell goes on as it would have.

Steps are those of the optimizer. Epochs count from 1, steps of an epoch from 0.
"""

import math
from collections.abc import Sequence

from trainables.core.training_config import Training
from trainables.core.training_sections import PLATEAU_PATIENCE, RateSchedule

# Of one-cycle (Smith and Topin 2018, arXiv:1708.07120), with PyTorch's defaults.
_CYCLE_UP, _CYCLE_START, _CYCLE_END = 0.3, 1 / 25, 1 / 25 / 1e4


def learning_rate(
    training: Training, epoch: int, step: int, steps: int, merits: Sequence[float]
) -> float:
    """Of one step. `steps`: of each epoch; `merits`: of the epochs before this one, more is
    better.
    """
    frozen = training.frozen_epochs if training.frozen_epochs < training.epochs else 0
    peak = training.learning_rate
    if epoch <= frozen:
        return peak
    if frozen and training.fine_tune_learning_rate is not None:
        peak = training.fine_tune_learning_rate
    done, total = (epoch - frozen - 1) * steps + step, (training.epochs - frozen) * steps
    schedule = training.schedule
    warmup = round(schedule.warmup_epochs * steps)
    if done < warmup:
        return peak * done / warmup
    return peak * _share(training, done - warmup, total - warmup, merits[frozen:])


def block_share(training: Training, epoch: int, distance: int) -> float:
    """Of the learning rate, for a block so many blocks before the head: decaying with the distance
    (BEiT, arXiv:2106.08254), and 0 until it is released (ULMFiT, arXiv:1801.06146).
    """
    if training.thaw_every is not None:
        released = 1 + (epoch - training.frozen_epochs - 1) // training.thaw_every
        if distance > released:
            return 0.0
    return math.pow(training.layer_decay, distance)


def _share(training: Training, done: int, total: int, merits: Sequence[float]) -> float:
    """Of the peak, once it is reached, after `done` of `total` steps."""
    schedule = training.schedule
    if schedule.kind == "cosine":
        return _wave(1.0, schedule.final or 0.0, done / total)
    if schedule.kind == "exponential":
        final = 0.01 if schedule.final is None else schedule.final
        return math.pow(final, done / total)
    if schedule.kind == "one_cycle":
        top, end = _CYCLE_UP * total - 1, total - 1
        if done <= top:
            return _wave(_CYCLE_START, 1.0, done / top if top > 0 else 1.0)
        return _wave(1.0, _CYCLE_END, (done - top) / (end - top))
    if schedule.kind == "plateau":
        plateaus = _plateaus(schedule, merits, training.min_improvement)
        return math.pow(schedule.factor or 0.5, plateaus)
    return 1.0


def _wave(start: float, end: float, part: float) -> float:
    """Half a cosine wave from `start` to `end` (Loshchilov and Hutter 2017, arXiv:1608.03983)."""
    return end + (start - end) * (1 + math.cos(math.pi * part)) / 2


def _plateaus(schedule: RateSchedule, merits: Sequence[float], least: float) -> int:
    """How often `patience` epochs in a row brought no better merit, as Keras's ReduceLROnPlateau
    counts.
    """
    best, waited, found = -math.inf, 0, 0
    for merit in merits:
        if merit > best + least:
            best, waited = merit, 0
        else:
            waited += 1
            if waited >= (schedule.patience or PLATEAU_PATIENCE):
                found, waited = found + 1, 0
    return found
