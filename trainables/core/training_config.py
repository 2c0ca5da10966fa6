"""How one cell is trained: every setting, with its rule and default."""

from collections.abc import Iterable, Sequence
from typing import Any, Literal

from pydantic import Field

from trainables.core.training_sections import (
    Augmentation,
    ClassifierHead,
    Input,
    Loss,
    Mix,
    RateSchedule,
)
from trainables.core.values import Frozen, Line, Real, Whole

_ADAMW_DECAY = 0.01


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
    learning_rate: Real = Field(2e-4, gt=0, le=1e6, description="Step size of the optimizer.")
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
        None,
        gt=0,
        le=1e6,
        description="Of adam, adamw and lamb: in the denominator; default: 1e-7.",
    )
    weight_decay: Real | None = Field(
        None,
        ge=0,
        le=1e6,
        description=(
            "Share of the weights, times the learning rate, that each step takes away; biases and "
            "normalisation keep theirs. Default: 0.01 for adamw, 0 for others."
        ),
    )
    clip_norm: Real | None = Field(
        None, gt=0, le=1e6, description="Largest norm of all gradients together; null: no limit."
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
        le=1e6,
        description="Learning rate once the backbone is released; default: learning_rate.",
    )
    frozen_until: Line | None = Field(
        None, description="How a layer's name begins: what is before it stays as at inference."
    )
    thaw_every: Whole | None = Field(
        None,
        ge=1,
        description=(
            "Epochs after which one more block learns, after frozen_epochs. The others keep their "
            "weights; their batch normalisation and dropout work as in training."
        ),
    )
    layer_decay: Real = Field(
        1.0,
        gt=0,
        le=1,
        description=(
            "Learning rate of a block by that of the next, the head's being whole. Blocks are "
            "told by layers' names (stem, block1, conv2), else each of a builder's layers is one."
        ),
    )
    soup: Whole | None = Field(
        None,
        ge=2,
        le=100,
        description=(
            "Of so many best epochs by `monitor` the mean of all weights is saved and scored, and "
            "as many are kept to resume; of all epochs where training ends before. Tables name the "
            "best; null: its weights."
        ),
    )
    dropout: Real = Field(0.2, ge=0, lt=1, description="Dropout rate before the classifier head.")
    head: ClassifierHead = ClassifierHead()
    backbone_dropout: Real = Field(
        0.0, ge=0, lt=1, description="Of whole channels of the last feature maps, before pooling."
    )
    stochastic_depth: Real | None = Field(
        None,
        ge=0,
        lt=1,
        description=(
            "How often the last residual branch is left out, those before it linearly less; null: "
            "the model's own, 0.2 for EfficientNets and 0 for others. In EfficientNets block i of "
            "n, counted from 0, has i / n of the rate, as published."
        ),
    )
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
    test_time_augmentation: Literal["none", "flip", "turns"] = Field(
        "none",
        description=(
            "Logits are averaged over an image and its mirror image, or over all 8 turns by 90 "
            "degrees and mirrorings, wherever images are scored: validation, fold, test, "
            "`rayfold predict`. Explanations see the image alone."
        ),
    )
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


#: The settings that are sections, with their classes.
SECTIONS: dict[str, type[Frozen]] = {
    name: field.annotation
    for name, field in Training.model_fields.items()
    if isinstance(field.annotation, type) and issubclass(field.annotation, Frozen)
}
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
    "test_time_augmentation",
    "frozen_until",
    "thaw_every",
    "layer_decay",
    "soup",
    "head",
    "backbone_dropout",
    "stochastic_depth",
    "input",
)
_LATER_CHANGES = {*Augmentation.model_fields} - {"flip", "rotation", "zoom"}


def unused(trainings: Iterable[Training]) -> dict[str, Any]:
    """The later settings that all of these leave at their defaults, as pydantic's `exclude`."""
    trainings = list(trainings)
    found: dict[str, Any] = dict.fromkeys(_at_defaults(trainings, _DEFAULT, LATER), True)
    changes = [each.augmentation for each in trainings]
    found["augmentation"] = _at_defaults(changes, _DEFAULT.augmentation, _LATER_CHANGES)
    return found


def _at_defaults(stated: Sequence[Frozen], default: Frozen, names: Iterable[str]) -> set[str]:
    return {
        name
        for name in names
        if all(getattr(each, name) == getattr(default, name) for each in stated)
    }
