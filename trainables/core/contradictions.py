"""What settings of a training cannot be meant together."""

from collections.abc import Iterator
from itertools import chain

from trainables.core.training_config import Training
from trainables.core.training_sections import PLATEAU_PATIENCE

#: Whether settings contradict each other, and the remedy.
_Found = Iterator[tuple[bool, str]]


def contradiction(training: Training) -> str | None:
    """What settings cannot be meant together, with the remedy; None where all can."""
    asked = (_of_optimizer, _of_labels, _of_images, _of_layers, _of_schedule)
    found = chain.from_iterable(each(training) for each in asked)
    return next((text for wrong, text in found if wrong), None)


def _of_optimizer(t: Training) -> _Found:
    kind = t.optimizer
    yield (
        (t.nesterov or t.momentum is not None) and kind != "sgd",
        f"momentum and nesterov are for sgd, got optimizer {kind}; remove them or choose sgd",
    )
    yield t.nesterov and t.momentum == 0, "nesterov needs a momentum above 0; remove one of them"
    yield (
        kind == "sgd" and (t.beta_1, t.beta_2) != (None, None),
        "beta_1 and beta_2 are not for sgd; remove them or choose adamw",
    )
    yield (
        kind in ("sgd", "lion") and t.epsilon is not None,
        f"epsilon is not for {kind}; remove it or choose adamw",
    )
    yield (
        kind == "adam" and bool(t.weight_decay),
        "adam takes no weight_decay; choose adamw or remove it",
    )
    yield (
        t.effective_batch is not None and t.effective_batch % t.batch_size > 0,
        f"effective_batch must be a multiple of batch_size, got {t.effective_batch} with batches "
        f"of {t.batch_size}; choose {-(-(t.effective_batch or 1) // t.batch_size) * t.batch_size}",
    )


def _of_labels(t: Training) -> _Found:
    yield (
        t.sampling != "none" and t.class_weights != "none",
        "sampling and class_weights both answer imbalance; remove one of them",
    )
    yield (
        t.mix.kind != "none" and t.class_weights != "none",
        f"{t.mix.kind} mixes labels, and class_weights are for single ones; choose sampling: class",
    )
    yield (
        t.mix.kind == "none" and t.mix.alpha is not None,
        "mix.alpha is for mixup and cutmix; state mix.kind or remove it",
    )
    yield (
        t.loss.gamma is not None and t.loss.kind != "focal",
        f"loss.gamma is for focal, got {t.loss.kind}; remove it",
    )
    yield (
        t.loss.tau is not None and t.loss.kind != "logit_adjusted",
        f"loss.tau is for logit_adjusted, got {t.loss.kind}; remove it",
    )
    yield (
        t.loss.kind == "logit_adjusted" and (t.sampling, t.class_weights) != ("none", "none"),
        "logit_adjusted, sampling and class_weights all answer imbalance; keep one of them",
    )


def _of_images(t: Training) -> _Found:
    moves = ("rotation", "zoom", "translation", "shear", "rand_augment")
    yield (
        t.augmentation.fill != "black" and not any(getattr(t.augmentation, m) for m in moves),
        "augmentation.fill is for what moves an image; state a rotation, zoom, translation, shear "
        "or rand_augment, or remove it",
    )
    yield (
        t.input.pad_value != 0 and t.input.fit != "pad",
        f"input.pad_value is for pad, got fit {t.input.fit}; choose input.fit: pad or remove it",
    )


def _of_layers(t: Training) -> _Found:
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


def _of_schedule(t: Training) -> _Found:
    schedule = t.schedule
    left = t.epochs - t.frozen_epochs if t.frozen_epochs < t.epochs else t.epochs
    yield (
        schedule.warmup_epochs >= left,
        f"schedule.warmup_epochs must be below the epochs that it is for, got "
        f"{schedule.warmup_epochs:g} of {left}; warm up for less or train for longer",
    )
    yield (
        schedule.kind == "one_cycle" and schedule.warmup_epochs > 0,
        "one_cycle has a warm-up of its own; remove schedule.warmup_epochs",
    )
    yield (
        schedule.final is not None and schedule.kind not in ("cosine", "exponential"),
        f"schedule.final is for cosine and exponential, got {schedule.kind}; remove it",
    )
    yield (
        schedule.kind == "exponential" and schedule.final == 0,
        "schedule.final must be above 0 for exponential; choose 0.01",
    )
    yield (
        (schedule.factor, schedule.patience) != (None, None) and schedule.kind != "plateau",
        f"schedule.factor and schedule.patience are for plateau, got {schedule.kind}; remove them",
    )
    patience = schedule.patience or PLATEAU_PATIENCE
    yield (
        schedule.kind == "plateau" and patience >= left,
        f"plateau never acts within the epochs that it is for: it waits {patience} of {left}; "
        "lower schedule.patience or train for longer",
    )
    yield (
        schedule.kind == "plateau"
        and t.early_stopping is not None
        and patience >= t.early_stopping,
        f"plateau never acts if training stops first: it waits {patience} epochs, early_stopping "
        f"{t.early_stopping}; lower schedule.patience or raise early_stopping",
    )
