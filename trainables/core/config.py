"""What an experiment may say about its data and about the training of one cell.

Frozen pydantic models: they refuse unknown keys, carry units in their descriptions, and their JSON
form is what the ledger hashes. This module knows neither Ray nor TensorFlow.
"""

import hashlib
import json
from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from typing_extensions import TypeAliasType

#: Raise when the same specification would give other numbers than before: old ledger entries are
#: then recomputed.
RESULT_VERSION = 2

#: Numbers as they are written: neither true nor '3' is one.
Whole = Annotated[int, Field(strict=True)]
Real = Annotated[float, Field(strict=True)]


def _no_file(name: str) -> str:
    if is_file_name(name):
        raise ValueError("must not end like the name of a file")
    return name


def is_file_name(name: str) -> bool:
    """Whether a name ends as the files do that rayfold writes beside folders of candidates, in
    capitals or not.
    """
    return name.lower().endswith((".png", ".pdf"))


#: What numpy accepts as a seed everywhere.
Seed = Annotated[int, Field(strict=True, ge=0, lt=2**32)]
#: What people read on one line of a terminal.
Line = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f-\x9f]+$")]
#: What becomes a folder or a part of a file's name; not called like a file that lies beside such
#: folders.
Identity = Annotated[
    str,
    Field(pattern=r"^[A-Za-z0-9_]([A-Za-z0-9._-]*[A-Za-z0-9_-])?$", max_length=100),
    AfterValidator(_no_file),
]
Scalar = bool | int | float | str | None
#: What a builder can be given.
Argument = TypeAliasType("Argument", "Scalar | list[Argument]")


class Frozen(BaseModel):
    """A frozen model that refuses unknown keys and numbers that are not finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def digest(value: Any, length: int = 16) -> str:
    """The first `length` hex digits of the SHA-256 of a JSON-able value in canonical form."""
    canonical = json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    )
    return hashlib.sha256(canonical.encode()).hexdigest()[:length]


# --- data -----------------------------------------------------------------------------------------


class _Data(Frozen):
    classes: tuple[str, ...] | None = Field(
        None,
        description=(
            "The labels to compare, in the order of the probability columns; default: all found, "
            "sorted."
        ),
    )
    images_per_class: Whole | None = Field(
        None,
        ge=1,
        le=10**9,
        description=(
            "Draw at most this many images of each class, whole groups, seeded; default: all."
        ),
    )
    on_error: Literal["fail", "skip"] = Field(
        "fail",
        description=(
            "What an unusable image does: end the run before training, or become a skipped row."
        ),
    )
    seed: Seed = Field(0, description="Seed of the subset draw.")
    max_megapixels: Real = Field(
        180.0,
        gt=0,
        description=(
            "Images of more million pixels are unusable: a bound on memory, before decoding."
        ),
    )
    allow_two_valued: bool = Field(
        False,
        description=(
            "Images of two grey values only are meant; without it they are unusable, since masks "
            "are so."
        ),
    )


class FolderData(_Data):
    """One folder per class."""

    source: Literal["folder"]
    path: str = Field(description="Folder that holds one sub-folder of images per class.")
    layout: Literal["class", "split/class"] = Field(
        "class",
        description=(
            "What lies below path: <class>/…, or {train,val,test}/<class>/…, which also says the "
            "split."
        ),
    )
    group_from_name: str | None = Field(
        None,
        description=(
            "Regular expression with one group that reads the patient out of the file name or, "
            "where that does not match, out of the path below the class folder: '^(\\d+)_', "
            "'patient(\\d+)/'; default: the PatientID of a DICOM file, hashed, else every image is "
            "its own group."
        ),
    )


class TableData(_Data):
    """A CSV or Parquet table of images."""

    source: Literal["table"]
    path: str = Field(
        description=(
            "Table of text (.csv, .tsv, .tab, .txt) or Parquet file with the columns path, label "
            "and optionally group, view, split, mask_<name>; relative image paths start at the "
            "table's own folder."
        )
    )
    columns: dict[str, str] = Field(
        default_factory=dict,
        description="Where the table has other names, e.g. {path: file, group: patient}.",
    )


class CovidQuExData(_Data):
    """The COVID-QU-Ex tree as it unzips."""

    source: Literal["covid_qu_ex"]
    path: str = Field(
        description="Folder that holds 'Lung Segmentation Data' or 'Infection Segmentation Data'."
    )
    part: Literal["lung", "infection"] = Field(
        "lung", description="Which of the two segmentation trees to read."
    )


class PhantomData(_Data):
    """Procedural chest radiographs with planted opacities, so that answers are known."""

    source: Literal["phantom"]
    classes: tuple[str, ...] = Field(
        ("Normal", "Opacity"), max_length=100, description="The first class is healthy."
    )
    images_per_class: Whole = Field(60, ge=1, le=100_000, description="Images drawn per class.")
    images_per_patient: Whole = Field(
        2, ge=1, le=100_000, description="Images that share one anatomy, and so one group."
    )
    image_size: Whole = Field(
        96, ge=32, le=2048, description="Edge of the square images, in pixels."
    )
    shortcut: Real = Field(
        0.0,
        ge=0,
        le=1,
        description="Probability that an image of a diseased class carries a bright corner marker.",
    )


DataConfig = Annotated[
    FolderData | TableData | CovidQuExData | PhantomData, Field(discriminator="source")
]


# --- training of one cell -------------------------------------------------------------------------


class Augmentation(Frozen):
    """Random changes to training images; all off by default."""

    flip: bool = Field(False, description="Mirror left and right with probability 1/2.")
    rotation: Real = Field(
        0.0, ge=0, le=180, description="Rotate by up to this many degrees either way."
    )
    zoom: Real = Field(0.0, ge=0, lt=1, description="Zoom in or out by up to this fraction.")


class Training(Frozen):
    """How one cell is trained. Early stopping and the best weights look at the validation part
    only.
    """

    epochs: Whole = Field(
        30, ge=1, le=1_000_000, description="Passes over the training part, at most."
    )
    batch_size: Whole = Field(16, ge=1, le=65_536, description="Images per step.")
    optimizer: Literal["adam", "sgd"] = Field("adam", description="Adam, or SGD with momentum 0.9.")
    learning_rate: Real = Field(2e-4, gt=0, description="Step size of the optimizer.")
    monitor: Literal["loss", "accuracy", "auc"] = Field(
        "loss", description="Validation metric that chooses the best epoch."
    )
    early_stopping: Whole | None = Field(
        5,
        ge=1,
        le=1_000_000,
        description="Stop after this many epochs without a better validation metric; null: never.",
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
    class_weights: Literal["none", "balanced"] = Field(
        "none",
        description=(
            "balanced: weight images by the inverse frequency of their class in the training part."
        ),
    )
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

    def deciding(self) -> dict[str, Any]:
        """What of it can change a result: candidates that are alike in this train identically.

        Names do not count, nor does a setting that the others leave without effect.
        """
        content = self.model_dump(mode="json", exclude={"id", "name"})
        training, t = content["training"], self.training
        training["frozen_epochs"] = frozen = min(t.frozen_epochs, t.epochs)
        if not 0 < frozen < t.epochs or t.fine_tune_learning_rate == t.learning_rate:
            training["fine_tune_learning_rate"] = None
        if t.early_stopping is not None and t.early_stopping >= t.epochs - frozen:
            training["early_stopping"] = None
        if ":" in self.model:
            training["dropout"] = None  # a builder has its own
        return content


def class_index(classes: Iterable[str]) -> dict[str, int]:
    """The number by which models know each class."""
    return {name: number for number, name in enumerate(classes)}


class CellSpec(Frozen):
    """Everything that decides the result of one cell."""

    candidate: Candidate
    fold: Whole = Field(ge=0, lt=100)
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
