"""The head of a zoo model, as an experiment states it."""

from typing import Literal

from pydantic import Field

from trainables.core.values import Frozen, Whole


class ClassifierHead(Frozen):
    """What stands between the last feature maps of a zoo model and its logits."""

    pooling: Literal["average", "max", "gem", "attention"] = Field(
        "average",
        description=(
            "gem: a generalised mean, whose exponent is learned from 3 on, 1 being the average; "
            "attention: a mean weighed by a learned softmax over places, at first the average."
        ),
    )
    hidden: Whole | None = Field(
        None,
        ge=1,
        le=65_536,
        description=(
            "Units of a dense layer with ReLU between pooling and dropout; null: no such layer."
        ),
    )
