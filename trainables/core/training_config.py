"""How one cell is trained: every setting, with its rule and default, and what cannot be meant
together.
"""

from collections.abc import Iterable, Iterator
from typing import Any, Literal

from pydantic import Field

from trainables.core.values import Frozen, Real, Whole


class Augmentation(Frozen):
    """Random changes to training images; all off by default."""

    flip: bool = Field(False, description="Mirror left and right with probability 1/2.")
    rotation: Real = Field(
        0.0, ge=0, le=180, description="Rotate by up to this many degrees either way."
    )
    zoom: Real = Field(0.0, ge=0, lt=1, description="Zoom in or out by up to this fraction.")


class Input(Frozen):
    """How an image file becomes what a model is given: a square of pixels from 0 to 255."""

    fit: Literal["stretch", "pad"] = Field(
        "stretch",
        description=(
            "stretch: to the square, whatever the proportions; pad: proportions are kept, the "
            "image is centred and the rest is filled with `pad_value`."
        ),
    )
    pad_value: Whole = Field(
        0, ge=0, le=255, description="Of pad: grey value around the image; 0 is black."
    )
    normalization: Literal["none", "per_image"] = Field(
        "none",
        description=(
            "per_image: each image is shifted and scaled to a mean of 127.5 and a standard "
            "deviation of 64, over all pixels and channels, padding included; inside the model."
        ),
    )
    depth: Literal[8, 16] = Field(
        8,
        description=(
            "Bits of a pixel on the way to the model, which gets fractions of grey values from 16; "
            "image stores take twice the room."
        ),
    )


PLATEAU_PATIENCE = 3
_ADAMW_DECAY = 0.01


class RateSchedule(Frozen):
    """How the learning rate runs from step to step; `learning_rate` is its peak. In head-only
    epochs it stays constant, and the schedule begins with the release of the backbone.
    """

    kind: Literal["constant", "cosine", "one_cycle", "exponential", "plateau"] = Field(
        "constant",
        description=(
            "cosine: down to `final` along half a wave; exponential: by the same factor each step; "
            "one_cycle: up from 1/25 in the first 30 %, then down to 1/250,000 of that; plateau: "
            "by `factor` after `patience` epochs without a better validation metric."
        ),
    )
    warmup_epochs: Real = Field(
        0.0,
        ge=0,
        description="First epochs, or parts of one, in which the rate rises linearly from 0.",
    )
    final: Real | None = Field(
        None,
        ge=0,
        lt=1,
        description=(
            "Share of the learning rate that is left at the end; default: 0 for cosine, 0.01 for "
            "exponential."
        ),
    )
    factor: Real | None = Field(
        None, gt=0, lt=1, description="Of plateau: what the rate is multiplied by; default: 0.5."
    )
    patience: Whole | None = Field(
        None, ge=1, description="Of plateau: epochs to wait before each time; default: 3."
    )


class Loss(Frozen):
    """What training minimises. Validation loss is the log loss in any case."""

    kind: Literal["cross_entropy", "focal", "logit_adjusted"] = Field(
        "cross_entropy",
        description=(
            "focal: images that are right count less, by (1 - p)^gamma; logit_adjusted: logits "
            "are shifted by tau times the log of each class's share, against imbalance."
        ),
    )
    gamma: Real | None = Field(None, ge=0, le=10, description="Of focal; default: 2.")
    tau: Real | None = Field(None, gt=0, le=10, description="Of logit_adjusted; default: 1.")
    label_smoothing: Real = Field(
        0.0, ge=0, lt=1, description="Share of each label that is spread over all classes."
    )

    @property
    def numbers(self) -> dict[str, float]:
        """What holds, defaults put in."""
        return {
            "gamma": 2.0 if self.gamma is None else self.gamma,
            "tau": 1.0 if self.tau is None else self.tau,
            "label_smoothing": self.label_smoothing,
        }


class Mix(Frozen):
    """Training images that are mixed of two, labels with them."""

    kind: Literal["none", "mixup", "cutmix"] = Field(
        "none", description="mixup: sums of two images; cutmix: a square of another image."
    )
    alpha: Real | None = Field(
        None,
        gt=0,
        le=100,
        description="Of the share's Beta(alpha, alpha); default: 0.2 for mixup, 1 for cutmix.",
    )

    @property
    def strength(self) -> float:
        """The alpha that holds."""
        return (0.2 if self.kind == "mixup" else 1.0) if self.alpha is None else self.alpha


class Training(Frozen):
    """How one cell is trained. Early stopping and the best weights look at the validation part
    only.
    """

    epochs: Whole = Field(
        30, ge=1, le=1_000_000, description="Passes over the training part, at most."
    )
    batch_size: Whole = Field(16, ge=1, le=65_536, description="Images per step.")
    optimizer: Literal["adam", "adamw", "sgd", "lion", "lamb"] = Field(
        "adam",
        description=(
            "adam; adamw: with decoupled weight decay; sgd: with momentum; lion: signs of averaged "
            "gradients; lamb: for large batches."
        ),
    )
    learning_rate: Real = Field(2e-4, gt=0, description="Step size of the optimizer.")
    momentum: Real | None = Field(None, ge=0, lt=1, description="Of sgd; default: 0.9.")
    nesterov: bool = Field(False, description="Of sgd: Nesterov's momentum.")
    beta_1: Real | None = Field(
        None, ge=0, lt=1, description="Decay of the mean of gradients; default: 0.9."
    )
    beta_2: Real | None = Field(
        None,
        ge=0,
        lt=1,
        description="Decay of the mean of squares, for lion of the mean; default: 0.999, 0.99.",
    )
    epsilon: Real | None = Field(
        None, gt=0, description="Of adam, adamw and lamb: in the denominator; default: 1e-7."
    )
    weight_decay: Real | None = Field(
        None,
        ge=0,
        description=(
            "Share of the weights, times the learning rate, that each step takes away; biases and "
            "normalisation keep theirs. Default: 0.01 for adamw, 0 for others."
        ),
    )
    clip_norm: Real | None = Field(
        None, gt=0, description="Largest norm of all gradients together; null: no limit."
    )
    effective_batch: Whole | None = Field(
        None,
        ge=1,
        le=65_536,
        description=(
            "Images per step of the optimizer, a multiple of batch_size: gradients of several "
            "batches are averaged, where one would not fit into memory. Batch normalisation sees "
            "each batch. Default: batch_size."
        ),
    )
    ema: Real | None = Field(
        None,
        gt=0,
        lt=1,
        description=(
            "Decay per step of a moving average of all weights, which then is what is validated, "
            "chosen, saved and scored; null: the weights themselves."
        ),
    )
    schedule: RateSchedule = RateSchedule()
    monitor: Literal["loss", "accuracy", "auc"] = Field(
        "loss", description="Validation metric that chooses the best epoch."
    )
    early_stopping: Whole | None = Field(
        5,
        ge=1,
        le=1_000_000,
        description="Stop after this many epochs without a better validation metric; null: never.",
    )
    min_improvement: Real = Field(
        0.0,
        ge=0,
        description=(
            "How much better a validation metric must be to count for early_stopping and plateau; "
            "the best epoch is the best in any case."
        ),
    )
    weights: str = Field(
        "none",
        description="Initial weights: none, imagenet, or the path of a .keras or .weights.h5 file.",
    )
    frozen_epochs: Whole = Field(
        0,
        ge=0,
        le=1_000_000,
        description=(
            "First epochs, in which only the classifier head is trained and all before it stays as "
            "at inference; early_stopping counts from their end."
        ),
    )
    fine_tune_learning_rate: Real | None = Field(
        None,
        gt=0,
        description="Learning rate once the backbone is released; default: learning_rate.",
    )
    dropout: Real = Field(0.2, ge=0, lt=1, description="Dropout rate before the classifier head.")
    batch_norm_momentum: Real | None = Field(
        None,
        gt=0,
        lt=1,
        description=(
            "Momentum of batch normalisation's moving statistics; default: the model's own, 0.99 "
            "in Keras, which needs hundreds of steps to settle; with few steps per epoch choose "
            "0.9."
        ),
    )
    class_weights: Literal["none", "balanced", "effective_number"] = Field(
        "none",
        description=(
            "balanced: weight images by the inverse frequency of their class in the training part; "
            "effective_number: by the inverse of (1 - b^n) / (1 - b), b = 0.999, n images, which "
            "is milder."
        ),
    )
    sampling: Literal["none", "class", "class_and_group"] = Field(
        "none",
        description=(
            "class: an epoch shows each class equally often, instead of class_weights; "
            "class_and_group: and within it each group."
        ),
    )
    input: Input = Input()
    loss: Loss = Loss()
    mix: Mix = Mix()
    augmentation: Augmentation = Augmentation()
    precision: Literal["float32", "bfloat16"] = Field(
        "float32",
        description=(
            "bfloat16: Keras's mixed_bfloat16, weights stay float32; for GPUs that have it (Ampere "
            "and later)."
        ),
    )
    xla: bool = Field(
        False, description="Compile the steps with XLA: minutes at first, then faster on GPUs."
    )

    def used(self) -> dict[str, Any]:
        """As JSON, without later settings that are at their defaults: cells trained like this
        before there was any such setting.
        """
        return self.model_dump(mode="json", exclude=unused([self]))

    @property
    def decay(self) -> float:
        """The weight decay that holds: the stated one, else the optimizer's."""
        default = _ADAMW_DECAY if self.optimizer == "adamw" else 0.0
        return default if self.weight_decay is None else self.weight_decay


def contradiction(training: Training) -> str | None:
    """What settings cannot be meant together, with the remedy; None where all can."""
    return next((text for found, text in _contradictions(training) if found), None)


def _contradictions(t: Training) -> Iterator[tuple[bool, str]]:
    kind, schedule = t.optimizer, t.schedule
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
    yield (
        t.input.pad_value != 0 and t.input.fit != "pad",
        f"input.pad_value is for pad, got fit {t.input.fit}; choose input.fit: pad or remove it",
    )
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
        schedule.kind == "plateau"
        and t.early_stopping is not None
        and patience >= t.early_stopping,
        f"plateau never acts if training stops first: it waits {patience} epochs, early_stopping "
        f"{t.early_stopping}; lower schedule.patience or raise early_stopping",
    )


_DEFAULT = Training()
#: Settings that came after results had been kept without them.
LATER = (
    "momentum",
    "nesterov",
    "beta_1",
    "beta_2",
    "epsilon",
    "weight_decay",
    "clip_norm",
    "effective_batch",
    "ema",
    "schedule",
    "min_improvement",
    "sampling",
    "loss",
    "mix",
    "input",
)


def unused(trainings: Iterable[Training]) -> set[str]:
    """The later settings that all of these leave at their defaults."""
    trainings = list(trainings)
    return {
        name
        for name in LATER
        if all(getattr(each, name) == getattr(_DEFAULT, name) for each in trainings)
    }
