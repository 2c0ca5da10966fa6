"""Images that may be taken for what they are not get a word; folders that are as they should be get
none.
"""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trainables.core.data_config import FolderData
from trainables.sources.listing import list_images


def notes(root: Path, *names: str, **options: object) -> list[str]:
    """Notes on images of these names below `root`; '{}' stands for 0 to 3, a set of braces for each
    of its words.
    """
    for name in names:
        for number in range(4):
            path = root / name.format(number)
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng([number, *name.encode()]).integers(
                0, 256, (12, 12), np.uint8
            )
            Image.fromarray(pixels).save(path)
    _, found = list_images(FolderData(source="folder", path=str(root), **options), root)
    return [note for note in found if "every image is its own group" not in note]


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (
            ("a/{}.png", "a/segmentation/{}.png", "b/x{}.png"),
            ("4 images in folders that are called like masks",),
        ),
        (
            ("a/{}.png", "a/whatever/{}.png", "b/x{}.png"),
            ("4 images", "repeat those", "'a/whatever'"),
        ),
        (("a/{}.png", "a/deep/er/{}_soft.png", "a/deep/x/{}.png", "b/x{}.png"), ("'a/deep/x'",)),
        (("a/images/{}.png", "a/pictures/{}.png", "b/images/x{}.png"), ("'a/pictures'",)),
        (
            ("a/images/{}.png", "a/labels/{}.png", "b/images/x{}.png", "b/labels/x{}.png"),
            ("8 images", "'a/labels'"),
        ),
        (("a/images/{}.png", "a/Lung Masks/{}.png", "b/y{}.png"), ("'a/Lung Masks'",)),
        (
            ("a/{}.png", "b/x{}.png", "extra/{}.png", "extra/x{}.png"),
            ("8 images", "repeat those", "'extra'"),
        ),
        (
            ("a/{}.png", "b/x{}.png", "extra/a/{}.png", "extra/b/x{}.png"),
            ("8 images", "'extra/a', 'extra/b'"),
        ),
        (("a/{}.png", "b/x{}.png", "groundtruth/{}.png"), ("called like masks", "'groundtruth'")),
        (("images/{}.png", "masks/{}.png"), ("called like masks", "'masks'")),
        (
            ("a/c ({}).png", "a/c ({})_mask.png", "b/x{}.png"),
            ("4 images beside images", "'a/c (0)_mask.png'"),
        ),
    ],
)
def test_companions_that_are_taken_as_images_get_a_word(
    tmp_path: Path, names: tuple[str, ...], words: tuple[str, ...]
) -> None:
    (note,) = [
        note
        for note in notes(tmp_path, *names)
        if "data.path, or name the images by a table" in note
    ]
    assert all(word in note for word in words), note


@pytest.mark.parametrize(
    "names",
    [
        ("a/{}.png", "b/{}.png"),
        ("a/{}.png", "b/{}.png", "c/{}.png"),
        ("a/x{}.png", "b/y{}.png", "c/{}.png"),
        ("a/p1/view{}.png", "a/p2/view{}.png", "b/p3/view{}.png", "b/p4/view{}.png"),
        ("a/p{}/view1.png", "a/p{}/view2.png", "b/p{}/view1.png"),
        (
            "a/p{}/study1/view1.png",
            "a/p{}/study2/view1.png",
            "b/q{}/study1/view1.png",
            "b/q{}/study2/view1.png",
        ),
        ("a/{}/1.png", "b/{}/1.png"),
        ("a/Smith/{}.png", "a/Jones/{}.png", "b/Miller/{}.png"),
        ("mask/{}.png", "visor/{}.png"),
        ("a/images/{}.png", "b/images/{}.png"),
        ("trained/{}.png", "tested/x{}.png"),
    ],
)
def test_patients_studies_and_classes_that_number_alike_need_no_word(
    tmp_path: Path, names: tuple[str, ...]
) -> None:
    assert notes(tmp_path, *names) == []


@pytest.mark.parametrize(
    ("outer", "inner"),
    [
        (("Berlin", "Paris"), ("normal", "pneumonia")),
        (("fold1", "fold2", "fold3"), ("0", "1")),
        (("site_a", "site_b"), ("n1", "n2")),
        (("Berlin", "Paris"), ("grade0", "grade1", "grade2")),
    ],
)
def test_sites_and_folds_above_the_classes_get_a_word(
    tmp_path: Path, outer: tuple[str, ...], inner: tuple[str, ...]
) -> None:
    (note,) = notes(
        tmp_path,
        *(f"{above}/{below}/{above}{below}_{{}}.png" for above in outer for below in inner),
    )
    assert f"all {len(outer)} classes" in note
    assert all(repr(name) in note for name in (*outer, *inner))


@pytest.mark.parametrize("parts", [("train", "test"), ("Training", "val"), ("dev", "Test_Set")])
def test_parts_below_the_classes_get_a_word(tmp_path: Path, parts: tuple[str, str]) -> None:
    (note,) = notes(
        tmp_path, *(f"{label}/{part}/{part}{{}}.png" for label in "ab" for part in parts)
    )
    assert "16 images in parts of a division below the classes are pooled" in note
    assert all(repr(part) in note for part in parts)
    assert "data.layout: split/class" in note


@pytest.mark.parametrize(
    "names", [("Train_Normal", "Test_Normal"), ("normal-train", "normal-val"), ("TrainA", "TestA")]
)
def test_classes_that_are_called_after_parts_get_a_word(
    tmp_path: Path, names: tuple[str, str]
) -> None:
    (note,) = notes(tmp_path, *(f"{name}/{name}{{}}.png" for name in names), "other/o{}.png")
    assert note.startswith("classes are called like parts")
    assert all(repr(name) in note for name in names)


def test_an_unmatched_pattern_is_said_once_as_it_is_written(tmp_path: Path) -> None:
    from trainables.core.errors import DataError
    from trainables.data.manifest import build_manifest

    notes(tmp_path, "a/x{}.png", "b/y{}.png")
    with pytest.raises(DataError) as error:
        build_manifest(
            FolderData(source="folder", path=str(tmp_path), group_from_name=r"^(\d+)_"), tmp_path
        )
    assert str(error.value).count(r"data.group_from_name '^(\d+)_'") == 1
    assert "got 8 of 8" in str(error.value)
    assert "8 with no group" in str(error.value)
