"""What shapes the graphs of a cell: cells of one architecture can share a compiled model.

Knows no TensorFlow, so that the driver can plan by it.
"""

from pydantic import Field

from trainables.core.config import CellSpec
from trainables.core.training_sections import Augmentation, ClassifierHead
from trainables.core.values import Argument, Frozen


class Architecture(Frozen):
    """Everything that shapes the graphs of a session; scalars such as the learning rate do not."""

    model: str
    image_size: int
    channels: int
    n_classes: int
    arguments: dict[str, Argument]
    weights: str
    weights_hash: str | None
    builder_hash: str | None
    dropout: float
    batch_norm_momentum: float | None
    optimizer: str
    nesterov: bool = False
    decays: bool = Field(False, description="Whether the optimizer takes weight decay.")
    clips: bool = Field(False, description="Whether gradients have a largest norm.")
    accumulates: bool = Field(False, description="Whether an optimizer's step has several batches.")
    averages: bool = Field(False, description="Whether a moving average of weights is kept.")
    layered: bool = Field(False, description="Whether blocks learn at rates of their own.")
    frozen_until: str | None = None
    loss: str = "cross_entropy"
    smooths: bool = Field(False, description="Whether labels are smoothed.")
    mix: str = "none"
    head: ClassifierHead = ClassifierHead()
    backbone_dropout: float = 0.0
    stochastic_depth: float | None = None
    normalization: str = "none"
    depth: int = Field(8, description="Bits of a pixel as it comes to the device.")
    augmentation: Augmentation
    test_time_augmentation: str = "none"
    precision: str
    xla: bool
    frozen_phase: bool = Field(
        True, description="Whether there are head-only epochs, which keep an optimizer."
    )

    @classmethod
    def of(cls, spec: CellSpec) -> "Architecture":
        candidate, training = spec.candidate, spec.candidate.training
        return cls(
            model=candidate.model,
            image_size=candidate.image_size,
            channels=spec.channels,
            n_classes=len(spec.classes),
            arguments=candidate.arguments,
            weights=training.weights,
            weights_hash=spec.weights_hash,
            builder_hash=spec.builder_hash,
            dropout=training.dropout,
            batch_norm_momentum=training.batch_norm_momentum,
            optimizer=training.optimizer,
            nesterov=training.nesterov,
            decays=training.decay > 0,
            clips=training.clip_norm is not None,
            accumulates=(training.effective_batch or 0) > training.batch_size,
            averages=training.ema is not None,
            layered=training.layer_decay < 1 or training.thaw_every is not None,
            frozen_until=training.frozen_until,
            loss=training.loss.kind,
            smooths=training.loss.label_smoothing > 0,
            mix=training.mix.kind,
            augmentation=training.augmentation.structure,
            test_time_augmentation=training.test_time_augmentation,
            head=training.head,
            backbone_dropout=training.backbone_dropout,
            stochastic_depth=training.stochastic_depth,
            normalization=training.input.normalization,
            depth=training.input.depth,
            precision=training.precision,
            xla=training.xla,
            frozen_phase=training.frozen_epochs > 0,
        )

    @property
    def key(self) -> str:
        return self.model_dump_json()
