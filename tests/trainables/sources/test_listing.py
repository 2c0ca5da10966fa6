"""Folders of strangers: every name may be a class, and nothing is left out or taken in by a name
without a word.
"""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trainables.core.data_config import FolderData
from trainables.core.errors import DataError
from trainables.data.manifest import Manifest, build_manifest
from trainables.sources.image_files import images_below


def draw(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(
        np.random.default_rng([seed, *path.name.encode()]).integers(0, 256, (12, 12), np.uint8)
    ).save(path)
    return path


def draw_mask(path: Path, blurred: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = np.pad(np.full((30, 30), 255, np.uint8), 20)
    if blurred:
        mask[20] = 128
    Image.fromarray(mask).save(path)


def draw_class(folder: Path, seed: int, number: int = 3) -> None:
    for index in range(number):
        draw(folder / f"{index}.png", seed + index)


def listed(root: Path, **options: object) -> Manifest:
    return build_manifest(FolderData(source="folder", path=str(root), **options), Path("/"))


def refusal(root: Path, **options: object) -> str:
    with pytest.raises(DataError) as error:
        listed(root, **options)
    assert str(error.value).isprintable()
    return str(error.value)


def notes_on(manifest: Manifest, word: str) -> list[str]:
    return [note for note in manifest.notes if word in note]


# --- classes and masks ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "names", [("with_mask", "without_mask"), ("mask", "visor"), ("MASKS", "unmasked", "none")]
)
def test_a_class_may_be_called_after_masks(tmp_path: Path, names: tuple[str, ...]) -> None:
    for index, name in enumerate(names):
        draw_class(tmp_path / name, 10 * index)
    manifest = listed(tmp_path)
    assert manifest.classes == tuple(sorted(names))
    assert len(manifest.usable) == 3 * len(names)
    assert not notes_on(manifest, "masks")


def test_images_cut_out_by_their_masks_are_images(tmp_path: Path) -> None:
    for index, name in enumerate(("a", "b")):
        draw_class(tmp_path / name / "masked_lungs", 10 * index)
    assert len(listed(tmp_path).usable) == 6


@pytest.mark.parametrize(
    ("images", "masks", "suffix"),
    [
        ("{}/images", "{}/masks", ".png"),
        ("{}", "{}/Lung Masks", ".png"),
        ("{}", "masks", ".png"),
        ("{}", "masks/{}", ".png"),
        ("{}/images", "{}/masks", ".jpg"),
        ("with_mask_{}", "with_mask_{}/masks", ".png"),
    ],
)
def test_masks_are_no_images_and_no_class(
    tmp_path: Path, images: str, masks: str, suffix: str
) -> None:
    for index, name in enumerate(("a", "b")):
        draw_class(tmp_path / images.format(name), 10 * index)
        for number in range(3):
            draw_mask(tmp_path / masks.format(name) / f"{number}{suffix}", blurred=number == 1)
    manifest = listed(tmp_path)
    assert len(manifest.table) == 6
    assert len(manifest.classes) == 2
    (note,) = notes_on(manifest, "folders of masks")
    assert note.startswith(("6 files", "3 files"))
    assert "mask_<name>" in note


def test_folders_without_images_get_a_word(tmp_path: Path) -> None:
    draw_class(tmp_path / "a", 0)
    draw_class(tmp_path / "b", 10)
    (tmp_path / "empty").mkdir()
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").touch()
    manifest = listed(tmp_path)
    assert manifest.classes == ("a", "b")
    assert notes_on(manifest, "'empty', 'texts'")
    assert notes_on(manifest, "'.txt' (1)")


def test_classes_that_are_not_named_get_a_word(tmp_path: Path) -> None:
    for index, name in enumerate("abc"):
        draw_class(tmp_path / name, 10 * index)
    assert notes_on(
        listed(tmp_path, classes=("a", "b")), "3 images of classes that data.classes does not name"
    )


CLUTTER = (
    "{}/@eaDir/0.png/SYNOPHOTO_THUMB_M.jpg",
    "#recycle/old.png",
    "lost+found/x.png",
    "$RECYCLE.BIN/y.png",
    "System Volume Information/y.png",
    "__MACOSX/{}/._0.png",
    "@Recycle/z.png",
    "#snapshot/z.png",
    "{}/Thumbs.db",
    "{}/0.xmp",
    "{}/0.png:Zone.Identifier",
)


@pytest.mark.parametrize("clutter", CLUTTER)
def test_what_storage_and_file_managers_leave_is_clutter(tmp_path: Path, clutter: str) -> None:
    for index, name in enumerate(("a", "b")):
        draw_class(tmp_path / name, 10 * index)
        path = tmp_path / clutter.format(name)
        draw(path) if path.suffix in (".png", ".jpg") else path.touch()
    manifest = listed(tmp_path)
    assert (manifest.classes, len(manifest.table)) == (("a", "b"), 6)
    assert notes_on(manifest, "clutter is left out")


def test_usual_hidden_files_need_no_word_and_others_get_one(tmp_path: Path) -> None:
    for index, name in enumerate(("a", "b")):
        draw_class(tmp_path / name, 10 * index)
        for usual in (
            ".DS_Store",
            "._0.png",
            ".ipynb_checkpoints/0-checkpoint.png",
            ".git/x",
            ".Trash-1000/x.png",
        ):
            (tmp_path / name / usual).parent.mkdir(exist_ok=True)
            (tmp_path / name / usual).touch()
    assert not notes_on(listed(tmp_path), "hidden")
    draw(tmp_path / "a" / ".mine.png")
    assert notes_on(listed(tmp_path), "'a/.mine.png'")


def test_images_below_is_what_training_lists(tmp_path: Path) -> None:
    elsewhere = draw(tmp_path / "elsewhere" / "e.png").parent
    root = tmp_path / "root"
    draw(root / "0.png")
    draw(root / ".ipynb_checkpoints" / "0.png")
    draw_mask(root / "masks" / "0.png")
    (root / "x.nii").touch()
    (root / "links").symlink_to(elsewhere)
    found = images_below(root)
    assert found.files == [
        (root / "0.png", None),
        (root / "links" / "e.png", None),
        (root / "x.nii", "a format that rayfold does not read: .nii"),
    ]


# --- parts of a division --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "parts",
    [
        ("train", "val", "test"),
        ("Training", "Testing"),
        ("train", "valid"),
        ("dev", "eval"),
        ("Test_Set", "train"),
    ],
)
def test_parts_of_a_division_are_no_classes(tmp_path: Path, parts: tuple[str, ...]) -> None:
    for index, part in enumerate(parts):
        for shift, name in enumerate(("NORMAL", "PNEUMONIA")):
            draw_class(tmp_path / "data" / part / name, 100 * index + 10 * shift)
    message = refusal(tmp_path / "data")
    assert all(repr(part) in message for part in parts)
    assert "data.layout: split/class" in message
    message = refusal(tmp_path)
    assert f"set data.path to {str(tmp_path / 'data')!r} and data.layout: split/class" in message
    assert len(listed(tmp_path / "data", classes=parts).classes) == len(parts)
    manifest = listed(tmp_path / "data", layout="split/class")
    assert manifest.classes == ("NORMAL", "PNEUMONIA")
    assert len(manifest.usable) == 6 * len(parts)
    assert notes_on(manifest, "parts by their folders")


def test_the_layout_with_splits_fills_them_and_names_what_is_left_out(tmp_path: Path) -> None:
    for index, part in enumerate(("train", "Validation", "test", "unlabelled")):
        draw_class(tmp_path / part / "a", 100 * index)
        draw_class(tmp_path / part / "b", 100 * index + 50)
    draw(tmp_path / "train" / "stray.png")
    manifest = listed(tmp_path, layout="split/class", on_error="skip")
    table = manifest.table.set_index("image")
    assert table.loc["train/stray.png", "reason"] == "no label: it lies outside every class folder"
    assert table["split"].value_counts().to_dict() == {"train": 7, "validation": 6, "test": 6}
    assert notes_on(
        manifest, "6 images in folders that are called neither train, validation nor test"
    )


# --- names of classes -----------------------------------------------------------------------------


@pytest.mark.parametrize("other", ["a class ", "a class\u00a0", "\ufeffa class"])
def test_blanks_at_the_ends_of_a_class_do_not_count(tmp_path: Path, other: str) -> None:
    for index, name in enumerate(("a class", other, "b")):
        draw_class(tmp_path / name, 10 * index)
    manifest = listed(tmp_path, classes=("a class ", "b"))
    assert manifest.classes == ("a class", "b")
    assert (manifest.table["label"] == "a class").sum() == 6
    assert notes_on(manifest, "label of 3 images has blanks")


def test_the_unicode_form_of_a_class_does_not_count(tmp_path: Path) -> None:
    for index, name in enumerate(("Lungenentzu\u0308ndung", "Lungenentz\u00fcndung", "b")):
        draw_class(tmp_path / name, 10 * index)
    assert listed(tmp_path).classes == ("Lungenentzündung", "b")


@pytest.mark.parametrize(
    "other",
    [
        "covid-19",
        "COVID\u201319",
        "COVID_19",
        "COVID 19",
        "CO\u200bVID-19",
        "\uff23OVID-19",
        "\u0421OVID-19",
    ],
)
def test_classes_that_look_alike_are_refused_unless_all_are_named(
    tmp_path: Path, other: str
) -> None:
    for index, name in enumerate(("COVID-19", other, "none")):
        draw_class(tmp_path / name, 10 * index)
    message = refusal(tmp_path)
    assert repr("COVID-19") in message
    assert repr(other) in message
    assert "differ in more than capitals" in refusal(tmp_path, classes=("COVID-19", "none"))
    assert len(listed(tmp_path, classes=("COVID-19", other)).usable) == 6


def test_numbers_are_names(tmp_path: Path) -> None:
    for index, name in enumerate(("007", "7", "1", "1+", "1-")):
        draw_class(tmp_path / name, 10 * index)
    assert len(listed(tmp_path).classes) == 5


# --- groups ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "pattern", [r"patient(\d+)/", r"patient(\d+)", r"^patient(\d+)", r"/?patient(\d+)/study\d/"]
)
def test_the_patient_may_stand_in_a_folder(tmp_path: Path, pattern: str) -> None:
    for label, patients in (("a", range(3)), ("b", range(3, 6))):
        for patient in patients:
            for view in range(2):
                draw(
                    tmp_path / label / f"patient{patient:03}" / "study1" / f"view{view}.png",
                    10 * patient,
                )
    manifest = listed(tmp_path, group_from_name=pattern)
    assert manifest.table["group"].tolist() == [
        f"{patient:03}" for patient in range(6) for _ in range(2)
    ]
    assert manifest.notes == ()


def test_the_file_name_comes_first_and_mixing_gets_a_word(tmp_path: Path) -> None:
    draw(tmp_path / "a" / "p1" / "p2_x.png", 1)
    draw(tmp_path / "b" / "p3" / "x.png", 2)
    draw(tmp_path / "b" / "p3" / "y.png", 3)
    manifest = listed(tmp_path, group_from_name=r"p(\d)")
    assert manifest.table["group"].tolist() == ["2", "3", "3"]
    assert notes_on(manifest, "matches the names of 1 file")


def test_groups_that_look_alike_are_one(tmp_path: Path) -> None:
    for index, name in enumerate(("a/P 1_0.png", "a/p-1_1.png", "b/7_2.png", "b/007_3.png")):
        draw(tmp_path / name, index)
    manifest = listed(tmp_path, group_from_name=r"^(.+)_")
    assert manifest.table["group"].tolist() == ["P 1", "P 1", "007", "7"]
    assert notes_on(manifest, "'P 1', 'p-1'")


def test_a_run_without_groups_says_so_once(tmp_path: Path) -> None:
    for index, name in enumerate(("a", "b")):
        draw_class(tmp_path / name, 10 * index)
    assert len(notes_on(listed(tmp_path), "every image is its own group")) == 1


def test_notes_are_kept_on_one_printable_line_each(tmp_path: Path) -> None:
    for index, name in enumerate(("a", "b")):
        draw_class(tmp_path / "data" / name, 10 * index)
    for number in range(50):
        draw(tmp_path / "data" / "a" / f".odd\n{'x' * 200}{number}.png")
    manifest = listed(tmp_path / "data")
    assert all(note.isprintable() and len(note) < 400 for note in manifest.notes)
    manifest.save(tmp_path / "m.parquet")
    assert Manifest.load(tmp_path / "m.parquet").notes == manifest.notes
