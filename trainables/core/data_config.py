"""What an experiment may say about its data: where images come from, and which of them count."""

from typing import Annotated, Literal

from pydantic import Field

from trainables.core.values import Frozen, Real, Seed, Whole


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
