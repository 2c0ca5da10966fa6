"""Candidates and cells: what decides a result. Its JSON form is what the ledger hashes."""

from collections.abc import Iterable
from typing import Any, Literal

from pydantic import Field, model_validator

from trainables.core.contradictions import contradiction
from trainables.core.input_format import InputFormat
from trainables.core.training_config import Training
from trainables.core.values import Argument, Frozen, Identity, Seed, Whole, digest

#: Raise when the same specification would give other numbers than before: old ledger entries are
#: then recomputed.
RESULT_VERSION = 3
_BEFORE_HEADS = 2  # 3 moved cells with head-only epochs alone: the others keep their address


class Candidate(Frozen):
    """A model with one set of hyperparameters."""

    id: Identity = Field(description="Stable, unique, safe as a file name.")
    name: str = Field(description="What people read.")
    model: str = Field(description="A name of the model zoo, or 'package.module:builder'.")
    image_size: Whole = Field(ge=8, le=4096, description="Edge of the square input, in pixels.")
    arguments: dict[str, Argument] = Field(
        default_factory=dict, description="Keyword arguments of a builder."
    )
    training: Training

    @model_validator(mode="after")
    def _consistent(self) -> "Candidate":
        if problem := contradiction(self.training):
            raise ValueError(problem)
        return self

    @property
    def input_format(self) -> InputFormat:
        """The pixels that its models are given."""
        stated = self.training.input
        return InputFormat(self.image_size, stated.fit, stated.pad_value, stated.depth)

    def deciding(self) -> dict[str, Any]:
        """What of it can change a result: candidates that are alike in this train identically.

        Names do not count, nor does a setting that the others leave without effect.
        """
        content = self.model_dump(mode="json", exclude={"id", "name", "training"})
        t = self.training
        content["training"] = training = t.used()
        training["frozen_epochs"] = frozen = min(t.frozen_epochs, t.epochs)
        if not 0 < frozen < t.epochs or t.fine_tune_learning_rate == t.learning_rate:
            training["fine_tune_learning_rate"] = None
        if t.early_stopping is not None and t.early_stopping >= t.epochs - frozen:
            training["early_stopping"] = None
        if ":" in self.model:
            training["dropout"] = None  # a builder has its own
        if t.effective_batch == t.batch_size:
            del training["effective_batch"]
        return content


def class_index(classes: Iterable[str]) -> dict[str, int]:
    """The number by which models know each class."""
    return {name: number for number, name in enumerate(classes)}


class CellSpec(Frozen):
    """Everything that decides the result of one cell."""

    candidate: Candidate
    fold: Whole = Field(ge=0, lt=10_000)
    seed: Seed
    classes: tuple[str, ...]
    channels: Literal[1, 3]
    data_hash: str
    roles_hash: str = Field(description="Digest of which image plays which role in this fold.")
    weights_hash: str | None = Field(
        None, description="Digest of the weights file, where there is one."
    )
    builder_hash: str | None = Field(
        None, description="Digest of the user's builder module, where there is one."
    )
    version: int = RESULT_VERSION

    @property
    def key(self) -> str:
        """Address in the ledger: what a candidate is called does not matter, what it is does."""
        content = self.model_dump(mode="json")
        del content["candidate"]["id"], content["candidate"]["name"]
        content["candidate"]["training"] = self.candidate.training.used()
        if self.version == RESULT_VERSION and not self.candidate.training.frozen_epochs:
            content["version"] = _BEFORE_HEADS
        if self.version > 1:
            content["candidate"] = self.candidate.deciding()
            training = content["candidate"]["training"]
            # Their content counts, and how they are read.
            if training["weights"] not in (
                "none",
                "imagenet",
            ):
                training["weights"] = next(
                    end
                    for end in (".keras", ".weights.h5", "")
                    if training["weights"].endswith(end)
                )
        return digest(content)
