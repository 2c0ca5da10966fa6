"""The parts of a training's settings that stand in sections of their own."""

from typing import Literal

from pydantic import Field

from trainables.core.values import Frozen, Real, Whole


class Augmentation(Frozen):
    """Random changes to training images; all off by default."""

    flip: bool = Field(False, description="Mirror left and right with probability 1/2.")
    rotation: Real = Field(
        0.0, ge=0, le=180, description="Rotate by up to this many degrees either way."
    )
    zoom: Real = Field(0.0, ge=0, lt=1, description="Zoom in or out by up to this fraction.")
    vertical_flip: bool = Field(
        False, description="Turn upside down with probability 1/2, where there is no above."
    )
    translation: Real = Field(
        0.0, ge=0, lt=1, description="Shift by up to this share of the edge, each way."
    )
    shear: Real = Field(
        0.0,
        ge=0,
        le=1,
        description="Shear along both axes by up to this tangent, about the centre.",
    )
    fill: Literal["black", "reflect"] = Field(
        "black",
        description="What lies outside of a moved image: black, as outside a radiograph, or it, "
        "reflected.",
    )
    brightness: Real = Field(
        0.0, ge=0, le=1, description="Brighten or darken by up to this share of white."
    )
    contrast: Real = Field(
        0.0, ge=0, lt=1, description="Distance from an image's mean, more or less by this fraction."
    )
    gamma: Real = Field(
        0.0, ge=0, le=9, description="Gamma between 1/(1+g) and 1+g, evenly on a logarithmic scale."
    )
    noise: Real = Field(
        0.0,
        ge=0,
        le=1,
        description="Gaussian noise of a standard deviation of up to this share of white.",
    )
    blur: Real = Field(
        0.0,
        ge=0,
        le=50,
        description="Gaussian blur of a standard deviation of up to this many pixels.",
    )
    equalization: Real = Field(
        0.0,
        ge=0,
        le=1,
        description="Up to this share of a contrast-limited local equalisation (CLAHE) mixed in.",
    )
    erasing: Real = Field(
        0.0,
        ge=0,
        le=1,
        description="Probability that a rectangle of 2 to 33 % of an image becomes noise.",
    )
    rand_augment: Real = Field(
        0.0,
        ge=0,
        le=1,
        description="RandAugment: two random changes of this strength for each image; 1: turns of "
        "30 degrees and all else as strong; the usual 9 of 30 is 0.3.",
    )

    @property
    def structure(self) -> "Augmentation":
        """Which changes there are: strengths that are variables become 1."""
        return self.model_copy(update={name: 1.0 for name in STRENGTHS if getattr(self, name)})


#: Strengths that can change from cell to cell in one traced step.
STRENGTHS = (
    *("translation", "shear", "brightness", "contrast", "gamma", "noise", "blur"),
    *("equalization", "erasing", "rand_augment"),
)


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
