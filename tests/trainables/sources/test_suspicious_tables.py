"""Tables whose groups, columns or paths may mean something else than they say."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trainables.core.data_config import FolderData, TableData
from trainables.core.errors import DataError
from trainables.data.manifest import Manifest, build_manifest
from trainables.sources.listing import list_images


def notes(folder: Path, groups: list[str]) -> tuple[list[str], list[str]]:
    """Groups of listed images, and the notes on them; none of the images exists."""
    rows = [f'{number:03}.png,{"ab"[number % 2]},"{group}"' for number, group in enumerate(groups)]
    (folder / "t.csv").write_text("\n".join(["path,label,group", *rows]) + "\n", encoding="utf-8")
    listing, found = list_images(TableData(source="table", path="t.csv"), folder)
    return listing["group"].tolist(), found


def build(folder: Path, content: str, name: str = "t.csv", **options: object) -> Manifest:
    for number in range(4):
        pixels = np.random.default_rng(number).integers(0, 256, (12, 12), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    if content:
        (folder / name).write_text(content, encoding="utf-8")
    return build_manifest(TableData(source="table", path=name, **options), folder)


def refusal(call: Callable[[], object]) -> str:
    with pytest.raises(DataError) as error:
        call()
    assert str(error.value).isprintable()
    return str(error.value)


@pytest.mark.parametrize(
    "unknown",
    [
        "nan",
        "NaN",
        "NA",
        "n/a",
        "N/A",
        "#N/A",
        "<NA>",
        "none",
        "NULL",
        "unknown",
        "Unknown patient",
        "-",
        "?",
        "--",
        "not available",
        "Anonymous",
        "anonymized",
        "missing",
    ],
)
def test_groups_that_mean_unknown_stay_together_and_get_a_word(
    tmp_path: Path, unknown: str
) -> None:
    groups, found = notes(tmp_path, [*(f"p{number // 2}" for number in range(20)), *[unknown] * 3])
    assert groups[-3:] == [unknown] * 3
    (note,) = found
    assert f"{unknown!r} (3 images)" in note


@pytest.mark.parametrize("number", ["0", "-1", "000", "999", "0.0"])
def test_numbers_that_stand_for_unknown_get_a_word_where_they_are_unlike_others(
    tmp_path: Path, number: str
) -> None:
    patients = [f"{patient // 2 + 1}" for patient in range(20)]
    assert notes(tmp_path, [*patients, number, number])[1] == []
    (note,) = notes(tmp_path, [*patients, *[number] * 20])[1]
    assert f"{number!r} (20 images)" in note


@pytest.mark.parametrize(
    "patients",
    [["Anna", "Anna", "Noneman", "Noneman"], ["p0", "p0", "p1", "p1"], ["1", "1", "0", "0"]],
)
def test_patients_need_no_word(tmp_path: Path, patients: list[str]) -> None:
    assert notes(tmp_path, patients)[1] == []


def test_one_group_that_holds_most_images_gets_a_word(tmp_path: Path) -> None:
    (note,) = notes(tmp_path, [*(f"p{number // 2}" for number in range(20)), *["IM"] * 11])[1]
    assert "'IM' (11 images)" in note
    assert "of 31 images" in note


def test_whole_numbers_are_the_same_with_and_without_their_point(tmp_path: Path) -> None:
    groups, found = notes(tmp_path, ["0", "0.0", "12", "12.0", "12.00", "012", "1.5", "15"])
    assert groups == ["0", "0", "12", "12", "12", "012", "1.5", "15"]
    assert "'0', '0.0', '12'" in found[0]
    rows = "\n".join(
        f"{number}.png,{label}" for number, label in enumerate(("0", "1", "0.0", "1.0"))
    )
    assert "got '0', '0.0'" in refusal(lambda: build(tmp_path, f"path,label\n{rows}\n"))


def test_a_class_with_fewer_images_than_asked_for_gets_a_word(tmp_path: Path) -> None:
    rows = "path,label\n0.png,a\n1.png,a\n2.png,a\n3.png,b\n"
    (note,) = [
        note
        for note in build(tmp_path, rows, images_per_class=2).notes
        if "images_per_class" in note
    ]
    assert "asks for 2, but 'b' has 1: " in note


@pytest.mark.parametrize(
    ("content", "options", "words"),
    [
        ("path,label,Label\n0.png,a,b\n1.png,b,a\n", {}, ["'label', 'Label'"]),
        ("path,label\n0.png,a\n1.png,b\n0.png,b\n", {}, ["label 'a' in row 1", "'b' in row 3"]),
        (
            "path,label\n0.png,a\n",
            {"columns": {"patient": "pid"}},
            ["'patient'", "did you mean 'group'?"],
        ),
        ("path,label\n0.png,a\n", {"columns": {"Patient ID": "pid"}}, ["did you mean 'group'?"]),
        (
            "Patient,Finding\n1,a\n",
            {},
            ["there are 'Patient', 'Finding'; data.columns.path can name it"],
        ),
        ("0.png,a\n1.png,b\n", {}, ["looks like an image and not like names of columns"]),
        ("# made today\npath,label\n0.png,a\n", {}, ["its first line is a comment"]),
    ],
)
def test_what_a_table_lacks_or_says_twice_is_named(
    tmp_path: Path, content: str, options: dict[str, object], words: list[str]
) -> None:
    message = refusal(lambda: build(tmp_path, content, **options))
    assert all(word in message for word in words), message


def test_a_column_that_is_there_twice_may_be_chosen_or_be_the_same(tmp_path: Path) -> None:
    rows = "0.png,a,b\n1.png,b,a\n"
    chosen = build(tmp_path, f"path,label,Label\n{rows}", columns={"label": "label"})
    assert chosen.table["label"].tolist() == ["a", "b"]
    assert build(tmp_path, "path,label,Label\n0.png,a,a\n1.png,b,b\n").classes == ("a", "b")


def test_a_missing_workbook_is_not_taken_for_another_kind_of_table(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").touch()
    assert "labels.csv" not in refusal(lambda: build(tmp_path, "", name="labels.xlsx"))
    (tmp_path / "label.xlsx").touch()
    assert "did you mean 'label.xlsx'?" in refusal(lambda: build(tmp_path, "", name="labels.xlsx"))
    assert "did you mean 'labels.csv'?" in refusal(
        lambda: build_manifest(FolderData(source="folder", path="labels.cvs"), tmp_path)
    )
