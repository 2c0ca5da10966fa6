"""Whatever is wrong is said in one line that names the rule, the value, the place and the remedy;
exit code 2.

Most cases go through the command line inside this process, which is the same code without a start
of Python.
"""

import copy
import csv
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from orchestrator.execution.cells import prepare
from orchestrator.experiment.experiment_file import read_experiment
from tests.conftest import ROOT, Command, rayfold, write_images
from trainables.core.layout import RunLayout
from trainables.core.ledger import CellState
from trainables.sources import image_files


def assert_one_line(result: tuple[int, str, str], *words: str) -> None:
    code, out, err = result
    assert code == 2, err or out
    assert err.startswith("rayfold: ")
    assert err.endswith("\n")
    assert err[:-1].isprintable(), repr(err)  # one line, and nothing that a terminal obeys
    assert out == ""
    for word in words:
        assert word in err


def experiment_file(
    folder: Path, change: Callable[[Any], object] | None = None, data: Path | None = None
) -> Path:
    """A valid experiment on `data`, after `change` has worked on it."""
    content: dict[str, Any] = {
        "name": "study",
        "data": {"source": "folder", "path": str(data)},
        "folds": {"k": 3},
        "training": {"epochs": 2},
        "candidates": [{"model": "TinyCNN", "image_size": 32}],
    }
    if change is not None:
        change(content)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "study.yaml"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def put(place: str, value: Any) -> Callable[[Any], None]:
    """Set `place`, e.g. training.epochs or candidates.0.model."""

    def change(content: Any) -> None:
        *parents, last = [int(key) if key.isdigit() else key for key in place.split(".")]
        for key in parents:
            content = content[key] if isinstance(key, int) else content.setdefault(key, {})
        content[last] = value

    return change


def drop(key: str) -> Callable[[Any], None]:
    return lambda content: content.pop(key)


def test_the_experiment_that_the_cases_spoil_is_good(
    command: Command, tmp_path: Path, spots: Path
) -> None:
    code, out, err = command("plan", experiment_file(tmp_path, data=spots))
    assert (code, err) == (0, "")
    assert "48 images" in out
    assert "3 = 1 candidates × 3 folds × 1 seeds; 0 already done" in out


# --- the experiment file --------------------------------------------------------------------------

KEYS = {
    "top level": (put("training_", {}), "unknown key training_", "did you mean 'training'?"),
    "instead of a needed one": (
        lambda c: c.update(candidate=c.pop("candidates")),
        "unknown key candidate,",
        "did you mean 'candidates'?",
    ),
    "data": (put("data.clases", ["a", "b"]), "unknown key data.clases", "did you mean 'classes'?"),
    "folds": (put("folds.validation", 0.1), "folds.validation", "'validation_fraction'"),
    "training": (put("training.learningrate", 1), "training.learningrate", "'learning_rate'"),
    "augmentation": (
        put("training.augmentation.Flip", True),
        "training.augmentation.Flip",
        "'flip'",
    ),
    "resources": (put("resources.cpus", 1), "resources.cpus", "'cpus_per_cell'"),
    "candidate": (put("candidates.0.epoch", 1), "candidates[0].epoch", "'epochs'"),
    "hostile": (put("a\nb\x1b[31m", 1), "unknown key a\\nb\\x1b[31m"),
}
TYPES = {
    "text for a number": (
        put("training.epochs", "ten"),
        "training.epochs must be a whole number",
        "'ten'",
    ),
    "number as text": (
        put("training.epochs", "3"),
        "training.epochs must be a whole number",
        "got '3'",
    ),
    "truth for a number": (
        put("training.epochs", True),
        "training.epochs must be a whole number",
        "True",
    ),
    "fraction for a count": (
        put("training.batch_size", 1.5),
        "training.batch_size must be a whole number",
        "1.5",
    ),
    "list for a section": (put("folds", [1]), "folds must be a mapping", "[1]"),
    "nothing for a section": (put("training", None), "training must be a mapping", "None"),
    "text for a list": (put("data.classes", "Normal"), "data.classes must be a list", "'Normal'"),
    "mapping for a list": (put("candidates", {"model": "TinyCNN"}), "candidates must be a list"),
    "text for a candidate": (
        put("candidates.0", "TinyCNN"),
        "candidates[0] must be a mapping",
        "'TinyCNN'",
    ),
    "number for a name": (put("name", 7), "name must be text", "got 7"),
    "number for a class": (put("data.classes", ["a", 1]), "data.classes[1] must be text", "got 1"),
    "text for a switch": (
        put("training.augmentation.flip", "maybe"),
        "augmentation.flip must be true or false",
    ),
    "list in a list": (
        put("candidates.0.epochs", [[1]]),
        "candidates[0].epochs must be a whole number",
        "[1]",
    ),
    "mapping as argument": (
        lambda c: c["candidates"][0].update(model="m:b", arguments={"width": {"deep": 1}}),
        "candidates[0].arguments.width must be",
    ),
}
VALUES = {
    "no name": (drop("name"), "name is missing"),
    "no data": (drop("data"), "data is missing"),
    "no candidates": (drop("candidates"), "candidates is missing"),
    "no source": (lambda c: c["data"].pop("source"), "data.source is missing"),
    "unknown source": (
        put("data.source", "foldr"),
        "data.source must be one of 'folder', 'table'",
        "got 'foldr'",
    ),
    "no path": (lambda c: c["data"].pop("path"), "data.path is missing"),
    "empty candidates": (put("candidates", []), "candidates must have at least 1 entry"),
    "a name that is a path": (put("name", "../study"), "name must match", "'../study'"),
    "a name with a newline": (
        put("candidates.0.name", "a\nb"),
        "candidates[0].name must match",
        "'a\\nb'",
    ),
    "unknown model": (
        put("candidates.0.model", "EfficientNetB9"),
        "did you mean 'EfficientNetB",
        "candidates[0].model",
    ),
    "a builder without a size": (
        put("candidates", [{"model": "my.models:build"}]),
        "candidates[0].image_size is missing",
    ),
    "too small for the model": (
        put("candidates.0.image_size", 8),
        "at least 16 for TinyCNN",
        "got 8",
    ),
    "arguments for a zoo model": (
        put("candidates.0.arguments", {"width": 2}),
        "TinyCNN takes none",
        "remove them",
    ),
    "one fold": (put("folds.k", 1), "folds.k must be at least 2, got 1 (study.yaml: folds.k)"),
    "test set of everything": (
        put("folds.test_set", 1.0),
        "folds.test_set must be",
        "0.05 to 0.5",
        "got 1.0",
    ),
    "negative test set": (put("folds.test_set", -0.1), "folds.test_set must be", "got -0.1"),
    "validation of everything": (
        put("folds.validation_fraction", 0.9),
        "must be at most 0.5, got 0.9",
    ),
    "negative epochs": (put("training.epochs", -3), "training.epochs must be at least 1, got -3"),
    "no learning": (
        put("training.learning_rate", 0),
        "training.learning_rate must be above 0.0, got 0",
    ),
    "all dropped": (put("training.dropout", 1), "training.dropout must be below 1.0, got 1"),
    "optimizer": (
        put("training.optimizer", "adamax"),
        "training.optimizer must be 'adam', 'adamw', 'sgd', 'lion' or 'lamb'",
        "'adamax'",
    ),
    "seeds twice": (put("seeds", [1, 2, 1]), "seeds must all be different", "[1, 2, 1]"),
    "no seeds": (put("seeds", []), "seeds must have at least 1 entry"),
    "negative seed": (put("seeds", [0, -1]), "seeds[1] must be at least 0, got -1"),
    "huge seed": (put("seeds", [2**40]), "seeds[0] must be below 4294967296"),
    "one class asked for": (
        put("data.classes", ["a"]),
        "data.classes must name at least 2",
        "['a']",
    ),
    "a class twice": (
        put("data.classes", ["a", "a"]),
        "data.classes must name at least 2 different",
    ),
    "empty grid": (
        put("candidates.0.learning_rate", []),
        "candidates[0].learning_rate must list at least one value",
    ),
    "empty inner grid": (
        put("candidates.0.augmentation", {"flip": []}),
        "candidates[0].augmentation.flip must list",
    ),
    "the same candidate twice": (
        put(
            "candidates",
            [
                {"model": "TinyCNN", "name": "a"},
                {"model": "TinyCNN", "image_size": 64, "name": "b"},
            ],
        ),
        "candidates 'a' and 'b' are the same, they would train identically: remove one",
    ),
    "the same value twice in a grid": (put("candidates.0.epochs", [2, 2]), "are the same"),
    "the same name twice": (
        put(
            "candidates",
            [{"model": "TinyCNN", "name": "A b"}, {"model": "DenseNet121", "name": "a-b"}],
        ),
        "'A b' and 'a-b'",
        "name of its own",
    ),
    "part of many GPUs": (
        put("resources.gpus_per_cell", 1.5),
        "resources.gpus_per_cell must be auto",
        "got 1.5",
    ),
    "several GPUs": (put("resources.gpus_per_cell", 2), "a cell uses one GPU at most", "got 2"),
    "negative GPUs": (
        put("resources.gpus_per_cell", -1),
        "resources.gpus_per_cell must be auto",
        "got -1",
    ),
    "no CPU": (
        put("resources.cpus_per_cell", 0),
        "resources.cpus_per_cell must be auto or at least 1, got 0",
    ),
    "a broken character": (put("candidates.0.name", "\ud800"), "without broken characters"),
}


@pytest.mark.parametrize("case", [*KEYS, *TYPES, *VALUES])
def test_a_wrong_setting(command: Command, tmp_path: Path, spots: Path, case: str) -> None:
    change, *words = {**KEYS, **TYPES, **VALUES}[case]
    assert_one_line(command("plan", experiment_file(tmp_path, change, spots)), *words, "study.yaml")


CONTENTS: dict[str, tuple[bytes, tuple[str, ...]]] = {
    "empty": (b"", ("must be a mapping", "got None", "rayfold init")),
    "only comments": (b"# nothing\n", ("must be a mapping",)),
    "a list": (b"- name: a\n", ("must be a mapping",)),
    "no YAML": (b"name: [a\ndata: {", ("not valid YAML", "line 2")),
    "tabs": (b"name: a\ndata:\n\tsource: folder\n", ("not valid YAML", "line 3", "'\\t'")),
    "Latin-1": ("name: caf\xe9".encode("latin-1"), ("cannot read", "not UTF-8")),
    "UTF-16": ("name: a".encode("utf-16"), ("cannot read", "not UTF-8")),
    "an image": (b"\x89PNG\r\n\x1a\n\x00\xff", ("cannot read", "not UTF-8")),
    "a key twice": (b"name: a\nname: b\n", ("not valid YAML", "'name' stands twice", "line 2")),
    "code": (
        b"name: !!python/object/apply:os.getcwd []\n",
        ("not valid YAML", "could not determine"),
    ),
    "NaN": (
        b"name: a\ndata: {source: folder, path: x}\ntraining: {learning_rate: .nan}\ncandidates: [{model: TinyCNN}]",
        ("training.learning_rate must be a finite number", "nan"),
    ),
}


@pytest.mark.parametrize("case", CONTENTS)
@pytest.mark.parametrize("verb", ["plan", "run"])
def test_a_file_that_is_no_experiment(
    command: Command, tmp_path: Path, verb: str, case: str
) -> None:
    content, words = CONTENTS[case]
    (tmp_path / "study.yaml").write_bytes(content)
    assert_one_line(command(verb, tmp_path / "study.yaml"), *words, "study.yaml")


@pytest.mark.parametrize("verb", ["plan", "run"])
def test_a_file_that_cannot_be_read(command: Command, tmp_path: Path, verb: str) -> None:
    assert_one_line(
        command(verb, tmp_path / "none.yaml"), "cannot read", "none.yaml", "No such file"
    )
    assert_one_line(command(verb, tmp_path), "cannot read", "Is a directory")
    (tmp_path / "file").touch()
    assert_one_line(command(verb, tmp_path / "file" / "x.yaml"), "cannot read", "Not a directory")
    assert_one_line(command(verb, tmp_path / "a\nb.yaml"), "cannot read", "a\\nb.yaml")


# --- data -----------------------------------------------------------------------------------------


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return write_images(tmp_path / "images", per_class=8, size=24)


def spoil_none(images: Path) -> None:
    shutil.rmtree(images)


def spoil_no_class(images: Path) -> None:
    shutil.rmtree(images)
    images.mkdir()


def spoil_flat(images: Path) -> None:
    for path in images.glob("*/*.png"):
        path.rename(images / f"{path.parent.name}-{path.name}")


def spoil_one_class(images: Path) -> None:
    shutil.rmtree(images / "Spot")


def spoil_empty_class(images: Path) -> None:
    for path in (images / "Spot").iterdir():
        path.unlink()


def spoil_few(images: Path) -> None:
    for path in sorted((images / "Spot").iterdir())[3:]:
        path.unlink()


def spoil_zero_bytes(images: Path) -> None:
    (images / "Spot" / "000.png").write_bytes(b"")


def spoil_truncated(images: Path) -> None:
    path = images / "Spot" / "001.png"
    path.write_bytes(path.read_bytes()[:-40])


def spoil_text(images: Path) -> None:
    (images / "Spot" / "002.png").write_text("I am an image, really", encoding="utf-8")


def spoil_suffix(images: Path) -> None:
    (images / "Spot" / "scan.nii").write_bytes(b"x" * 200)


def spoil_masks(images: Path) -> None:
    mask = np.zeros((24, 24), np.uint8)
    mask[5:9, 5:9] = 255
    Image.fromarray(mask).save(images / "Clear" / "003.png")


def spoil_blank(images: Path) -> None:
    Image.fromarray(np.full((24, 24), 7, np.uint8)).save(images / "Clear" / "003.png")


def spoil_tiny(images: Path) -> None:
    Image.fromarray(np.arange(9, dtype=np.uint8).reshape(3, 3)).save(images / "Clear" / "003.png")


def spoil_both_labels(images: Path) -> None:
    shutil.copy(images / "Clear" / "004.png", images / "Spot" / "copy.png")


def spoil_link(images: Path) -> None:
    (images / "Spot" / "gone.png").symlink_to(images / "nowhere.png")


def spoil_folder_named_like_an_image(images: Path) -> None:
    os.mkfifo(images / "Spot" / "pipe.png")


def spoil_name(images: Path) -> None:
    (images / "Spot" / "a\nb \x1b[31m'x\".png").write_bytes(b"")


def spoil_bytes(images: Path) -> None:
    (images / "Spot" / "000.png").rename(images / "Spot" / os.fsdecode(b"caf\xe9.png"))


DATA: dict[str, tuple[Callable[[Path], None], tuple[str, ...]]] = {
    "missing folder": (spoil_none, ("data.path must exist", "/images")),
    "empty folder": (spoil_no_class, ("one sub-folder of images per class",)),
    "no class folders": (spoil_flat, ("one sub-folder of images per class",)),
    "one class only": (spoil_one_class, ("at least 2 classes", "'Clear'")),
    "an empty class": (spoil_empty_class, ("at least 2 classes", "'Clear'")),
    "too few groups": (
        spoil_few,
        ("3 folds", "at least 4 groups", "class 'Spot' has 3", "folds.k"),
    ),
    "zero bytes": (spoil_zero_bytes, ("Spot/000.png", "empty file", "data.on_error: skip")),
    "truncated": (spoil_truncated, ("Spot/001.png", "truncated", "1 of 16")),
    "text": (spoil_text, ("Spot/002.png", "not a PNG, JPEG, BMP, TIFF")),
    "another format": (
        spoil_suffix,
        ("Spot/scan.nii", "a format that rayfold does not read: .nii"),
    ),
    "a mask": (spoil_masks, ("Clear/003.png", "looks like a mask")),
    "blank": (spoil_blank, ("Clear/003.png", "blank: every pixel is 7")),
    "tiny": (spoil_tiny, ("Clear/003.png", "only 3x3 pixels, needs 8x8")),
    "two labels for the same pixels": (spoil_both_labels, ("mislabelled", "'Clear'", "'Spot'")),
    "a broken link": (spoil_link, ("Spot/gone.png", "missing file")),
    "a pipe": (spoil_folder_named_like_an_image, ("Spot/pipe.png", "not a regular file")),
    "a hostile name": (spoil_name, ("a\\nb \\x1b[31m", "empty file")),
    "a name that is not UTF-8": (spoil_bytes, ("caf", "not UTF-8")),
}


@pytest.mark.parametrize("case", DATA)
def test_images_that_cannot_be_used(
    command: Command, tmp_path: Path, images: Path, case: str
) -> None:
    spoil, words = DATA[case]
    spoil(images)
    assert_one_line(command("plan", experiment_file(tmp_path, data=images)), *words)


def test_all_bad_images_are_named_at_once(command: Command, tmp_path: Path, images: Path) -> None:
    for spoil in (spoil_zero_bytes, spoil_truncated, spoil_text, spoil_masks):
        spoil(images)
    words = ("000.png", "001.png", "002.png", "003.png", "4 of 16")
    assert_one_line(command("plan", experiment_file(tmp_path, data=images)), *words)


def test_bad_images_too_many_for_a_line_are_listed_in_a_file(
    command: Command, tmp_path: Path, images: Path
) -> None:
    for number in range(11):
        (images / "Spot" / f"+{number}.png").touch()
    run = tmp_path / "run"
    said = command("plan", experiment_file(tmp_path, data=images), "--run", run)
    assert_one_line(said, "11 of 27", "and 1 more", "unusable_images.csv' lists them all")
    with (run / "unusable_images.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["path", "reason"]
    assert [Path(path).name for path, _ in rows[1:]] == sorted(
        f"+{number}.png" for number in range(11)
    )


def test_a_folder_that_cannot_be_meant_is_not_gone_through(
    command: Command, tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert_one_line(
        command("plan", experiment_file(tmp_path, data=Path("/"))), "a folder of their own, got '/'"
    )
    monkeypatch.setattr(image_files, "FOLDER_ENTRIES", 10)
    said = command("plan", experiment_file(tmp_path, data=images))
    assert_one_line(said, "at most 10 files and folders", str(images))


def test_skipped_images_are_shown_and_no_error(
    command: Command, tmp_path: Path, images: Path
) -> None:
    spoil_zero_bytes(images)
    code, out, err = command(
        "plan", experiment_file(tmp_path, put("data.on_error", "skip"), images)
    )
    assert (code, err) == (0, "")
    assert "15 images" in out
    assert "skipped 'Spot/000.png': empty file" in out


TABLES: dict[str, tuple[str, dict[str, Any], tuple[str, ...]]] = {
    "no label": ("path,lable\na.png,x\n", {}, ("'label'", "lable")),
    "no path": ("file,label\na.png,x\n", {}, ("'path'",)),
    "unknown column": (
        "path,label\na.png,x\n",
        {"columns": {"group": "pateint"}},
        ("data.columns.group", "'pateint'"),
    ),
    "column of ours": (
        "path,label\na.png,x\n",
        {"columns": {"grop": "path"}},
        ("'grop'", "'group'"),
    ),
    "an image twice": ("path,label\na.png,x\n./a.png,y\n", {}, ("listed once", "row 2")),
    "a split of its own": (
        "path,label,split\na.png,x,dev\n",
        {},
        ("split must be", "'dev'", "row 1"),
    ),
    "no file": ("path,label\na.png,x\nb.png,y\n", {}, ("missing file", "a.png", "b.png")),
    "no rows": ("path,label\n", {}, ("at least 2 classes",)),
    "nothing": ("", {}, ("table.csv",)),
}


@pytest.mark.parametrize("case", TABLES)
def test_tables_that_cannot_be_used(command: Command, tmp_path: Path, case: str) -> None:
    text, more, words = TABLES[case]
    (tmp_path / "table.csv").write_text(text, encoding="utf-8")
    data = {"source": "table", "path": "table.csv", **more}
    assert_one_line(command("plan", experiment_file(tmp_path, put("data", data))), *words)


def test_a_parquet_table_that_is_none(command: Command, tmp_path: Path) -> None:
    (tmp_path / "table.parquet").write_bytes(b"PAR1 no")
    data = {"source": "table", "path": "table.parquet"}
    assert_one_line(
        command("plan", experiment_file(tmp_path, put("data", data))), "table.parquet", "readable"
    )


def test_a_given_test_set_that_shares_a_patient(
    command: Command, tmp_path: Path, images: Path
) -> None:
    paths = sorted(images.glob("*/*.png"))
    table = pd.DataFrame({"path": map(str, paths), "label": [p.parent.name for p in paths]})
    table["group"] = [f"patient {number // 2}" for number in range(len(paths))]
    table["split"] = ["test" if number in (0, 8) else "train" for number in range(len(paths))]
    table.to_csv(tmp_path / "table.csv", index=False)

    def change(content: Any) -> None:
        content["data"] = {"source": "table", "path": "table.csv"}
        content["folds"] = {"k": 3, "test_set": "given"}

    words = ("2 group(s) lie both", "'patient 0'", "folds.test_set")
    assert_one_line(command("plan", experiment_file(tmp_path, change)), *words)


def test_other_settings_of_the_data(command: Command, tmp_path: Path, images: Path) -> None:
    for place, value, *words in (
        ("data.classes", ["Clear", "Spott"], "data.classes", "'Spott'", "'Spot'"),
        ("data.group_from_name", "(", "regular expression", "'('"),
        ("data.group_from_name", "^(x)", "data.group_from_name", "no group", "Clear/000.png"),
        ("data.path", "~nosuchuser/images", "data.path must exist", "~nosuchuser"),
        ("data.path", "images\0", "data.path must exist", "images\\x00"),
        ("data.path", "study.yaml", "must be a folder", "source: table"),
    ):
        assert_one_line(
            command("plan", experiment_file(tmp_path, put(place, value), images)), *words
        )
    qu_ex = {"source": "covid_qu_ex", "path": str(images)}
    words = ["Lung Segmentation Data", "{Train,Val,Test}", str(images)]
    assert_one_line(command("plan", experiment_file(tmp_path, put("data", qu_ex))), *words)


def test_too_few_groups_though_many_images(command: Command, tmp_path: Path, images: Path) -> None:
    """Eight images of one class, but of four patients: not enough for three folds, a test set and
    validation.
    """
    path = experiment_file(tmp_path, put("data.group_from_name", r"^..(.)\.png"), images)
    code, _, err = command("plan", path)
    assert code == 0, err
    for image in images.glob("Spot/*.png"):
        image.rename(image.with_name(f"{int(image.stem) % 3:03}{image.stem}.png"))
    path = experiment_file(tmp_path, put("data.group_from_name", r"^(?:..)(.)"), images)
    assert_one_line(command("plan", path), "class 'Spot' has 3", "groups")


# --- weights and builders -------------------------------------------------------------------------


def test_weights_and_builders_that_are_not_there(
    command: Command, tmp_path: Path, images: Path
) -> None:
    (tmp_path / "weights.txt").touch()
    builder = {"model": "nomodule.models:build", "image_size": 32}
    for change, *words in (
        (
            put("candidates.0.weights", "imagnet"),
            "training.weights must be none, imagenet or",
            "imagnet",
        ),
        (put("candidates.0.weights", "weights.txt"), "weights.txt", ".keras"),
        (put("candidates.0.weights", "imagenet"), "TinyCNN has no ImageNet weights"),
        (put("candidates", [builder]), "no source file of module 'nomodule.models'"),
    ):
        assert_one_line(command("plan", experiment_file(tmp_path, change, images)), *words)


# --- run folders ----------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["status", "report"])
def test_folders_that_are_no_run(command: Command, tmp_path: Path, verb: str) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path, tmp_path / "none", tmp_path / "file", tmp_path / "a\nb"):
        assert_one_line(command(verb, folder), "is not a run folder", "rayfold run")


def test_predicting_and_explaining_without_a_run(
    command: Command, tmp_path: Path, images: Path
) -> None:
    assert_one_line(command("predict", tmp_path, images), "is not a run folder")
    assert_one_line(command("explain", tmp_path), "is not a run folder")


def test_the_names_of_the_methods_need_no_run(command: Command) -> None:
    code, out, err = command("explain", "--methods", "list")
    assert (code, err) == (0, "")
    assert "gradcam" in out
    assert_one_line(command("explain"), "explain needs a run folder")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--methods", "gradcm"], "did you mean 'gradcam'"),
        (["--candidates", "tinycnn-image_size-23"], "did you mean 'tinycnn-image_size-32'"),
        (["--folds", "7"], "no fold 7"),
        (["--folds", "one"], "whole numbers"),
        (["--methods", ""], "--methods must name something, got ''"),
        (["--layers", " , "], "--layers must name something"),
        (["--candidates", ","], "--candidates must name something"),
        (["--folds", ""], "--folds must name something"),
        (["--methods", "gradcam@nolayer"], "no model asked for has a layer 'nolayer' (--layers); "),
        (["--layers", "inner/con"], "did you mean 'inner/conv'?"),
        (["--methods", "layercam@1000"], "a layer with 1000 cells along each edge"),
        (
            ["--methods", "gradcam,absent"],
            "ABSENT needs a library that is not installed: pip install not-there",
        ),
    ],
)
def test_what_cannot_be_explained_is_told_before_anything_starts(
    command: Command,
    computed: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    words: str,
) -> None:
    from xai.methods import registry

    absent = registry.Method("absent", "ABSENT", "nowhere:none", passes=1, library="not-there")
    monkeypatch.setattr(registry, "METHODS", {**registry.METHODS, "absent": absent})
    monkeypatch.setattr("xai.explain.connect", None)  # whoever would start Ray fails
    assert_one_line(command("explain", computed[1], *arguments), words)


@pytest.mark.parametrize("address", ["http://127.0.0.1:8265", "localhost", "ray://head:10001"])
@pytest.mark.parametrize("verb", ["run", "explain"])
def test_an_address_that_cannot_be_one(
    command: Command,
    computed: tuple[Path, Path],
    verb: str,
    address: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    assert_one_line(
        command(verb, computed[verb == "explain"]), "RAY_ADDRESS or --address", repr(address)
    )


def test_init_overwrites_nothing(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    assert command("init", path)[0] == 0
    path.write_text("mine", encoding="utf-8")
    assert_one_line(command("init", path), "exists already", "mine.yaml")
    assert path.read_text("utf-8") == "mine"
    assert_one_line(command("init", tmp_path / "mine.yaml" / "below.yaml"), "cannot write")


_INNER = {
    "class_name": "Functional",
    "config": {"name": "inner", "layers": [{"config": {"name": "conv"}}]},
}
# As far as it is read.
MODEL = {"config": {"name": "whole", "layers": [{"config": {"name": "image"}}, _INNER]}}


@pytest.fixture
def computed(tmp_path: Path, images: Path) -> tuple[Path, Path]:
    """An experiment file, and a run folder in which all its cells are done."""
    path = experiment_file(tmp_path, data=images)
    prepared = prepare(read_experiment(path), RunLayout(tmp_path / "run"))
    prepared.save()
    for entry in prepared.entries:
        with ZipFile(entry.model_path, "w") as file:
            file.writestr("config.json", json.dumps(MODEL))
        entry.finish(
            CellState(epochs=1), pd.DataFrame({"epoch": [1]}), pd.DataFrame({"image": ["a"]})
        )
    return path, tmp_path / "run"


def content_of(folder: Path) -> dict[str, str]:
    files = [
        path
        for path in folder.rglob("*")
        if path.is_file() and path.name not in ("run.log", "run.lock")
    ]
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


@pytest.mark.parametrize("verb", ["plan", "run"])
def test_nothing_that_was_computed_is_lost(
    command: Command, computed: tuple[Path, Path], images: Path, verb: str
) -> None:
    path, run = computed
    before = content_of(run)
    assert len(before) > 3 * 4
    good = json.loads(path.read_text("utf-8"))
    for change in (
        put("training.epochs", "many"),
        put("folds.k", 9),
        put("data.path", "/nowhere/at/all"),
        put("candidates.0.model", "TinyCN"),
        put("candidates.0.weights", "none.keras"),
    ):
        content = copy.deepcopy(good)
        change(content)
        path.write_text(json.dumps(content), encoding="utf-8")
        assert_one_line(command(verb, path, "--run", run))
        assert content_of(run) == before
    path.write_text("[", encoding="utf-8")
    assert_one_line(command(verb, path, "--run", run))
    path.write_text(json.dumps(good), encoding="utf-8")
    spoil_truncated(images)
    assert_one_line(command(verb, path, "--run", run))
    assert content_of(run) == before


def test_images_that_went_since_are_told(
    command: Command, computed: tuple[Path, Path], images: Path
) -> None:
    path, run = computed
    (images / "Spot" / "003.png").unlink()
    code, out, _ = command("plan", path, "--run", run)
    assert code == 0
    assert "0 already done" in out
    (note,) = [line for line in out.splitlines() if "with which this run folder was begun" in line]
    assert "of 16 images 1 gone (the first is 'Spot/003.png'), 0 new, 0 changed" in note


def test_plan_writes_nothing(command: Command, computed: tuple[Path, Path]) -> None:
    path, run = computed
    before = content_of(run)
    code, out, _ = command("plan", path, "--run", run)
    assert code == 0
    assert "3 already done" in out
    assert content_of(run) == before
    assert command("plan", path, "--run", run.with_name("new"))[0] == 0
    assert not run.with_name("new").exists()


def test_a_run_folder_that_cannot_be_made(command: Command, tmp_path: Path, images: Path) -> None:
    (tmp_path / "file").touch()
    path = experiment_file(tmp_path, data=images)
    words = ("cannot write into the run folder", "Not a directory", "--run")
    assert_one_line(command("run", path, "--run", tmp_path / "file" / "run"), *words)
    assert_one_line(
        command("run", path, "--run", tmp_path / "file"),
        "cannot write into the run folder",
        "--run",
    )


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "rayfold-test", str(folder)]
    if (
        os.geteuid() != 0
        or shutil.which("mount") is None
        or subprocess.run(mount, capture_output=True).returncode
    ):
        pytest.skip("mounting a small disk needs root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk(command: Command, tmp_path: Path, images: Path) -> None:
    path = experiment_file(tmp_path, data=images)
    with small_disk(tmp_path / "disk", "16k") as disk:
        (disk / "rubbish").write_bytes(b"x" * 4096)
        words = ("run folder", "No space left on device", str(disk / "run"))
        assert_one_line(command("run", path, "--run", disk / "run"), *words)
        assert not list((disk / "run").glob(".*")), "half-written files stay behind"


def test_a_torn_manifest_is_made_again(command: Command, computed: tuple[Path, Path]) -> None:
    path, run = computed
    manifest = RunLayout(run).manifest
    manifest.write_bytes(manifest.read_bytes()[:100])
    code, out, err = command("plan", path, "--run", run)
    assert code == 0, err
    assert "3 already done" in out


# --- what looks bad and is not --------------------------------------------------------------------


def test_the_plan_says_what_was_not_taken_as_it_is_written(
    command: Command, tmp_path: Path
) -> None:
    images = write_images(tmp_path / "images", per_class=8, size=24, classes=("a", "b"))
    (images / "a" / "Thumbs.db").touch()
    _, out, _ = command("plan", experiment_file(tmp_path, data=images), "--run", tmp_path / "run")
    notes = [line for line in out.splitlines() if line.startswith("note        ")]
    assert [note.split()[1] for note in notes] == ["clutter", "every"]


@pytest.mark.parametrize(
    "name", ['it\'s "x" [red] $HOME', "new\nline", "übung 模型", "-dash", " blank ", "%s {0} \\n"]
)
def test_odd_paths_work(command: Command, tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    images = write_images(folder / name, per_class=8, size=24, classes=(f"a {name}", f"b {name}"))
    path = experiment_file(folder, data=Path(os.path.relpath(images, folder)))
    code, out, err = command("plan", path, "--run", folder / "run")
    assert (code, err) == (0, "")
    assert "16 images" in out
    assert all(line.isprintable() for line in out.splitlines())
    lines = [line for line in out.splitlines() if not line.startswith("note ")]
    # Experiment, data, classes, folds, cells, candidate, resources.
    assert len(lines) == 2 + 2 + 3 + 2 + 2


@pytest.mark.parametrize("name", ['it\'s "x" [red]', "new\nline", "übung 模型", "\x1b[31mred"])
def test_odd_paths_stay_on_one_line_when_wrong(command: Command, tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    missing = name.encode("unicode_escape").decode() if not name.isprintable() else ""
    assert_one_line(command("plan", folder / "study.yaml"), "cannot read", missing)
    assert_one_line(
        command("plan", experiment_file(folder, data=folder / "none")),
        "data.path must exist",
        missing,
    )
    images = write_images(folder / name, per_class=8, size=24)
    (images / "Spot" / f"{name}.png").write_bytes(b"")
    assert_one_line(command("plan", experiment_file(folder, data=images)), "empty file", missing)


# --- through a real command line ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["nothing"], "'nothing'"),
        (["plan"], "plan --help"),
        (["explain", "x", "--edge", "1000000000"], "'--edge'"),
    ],
)
def test_a_command_that_there_is_not(arguments: list[str], word: str) -> None:
    done = rayfold(*arguments)
    assert_one_line((done.returncode, done.stdout, done.stderr), word)


def test_a_real_command_ends_with_2(tmp_path: Path, spots: Path) -> None:
    path = experiment_file(tmp_path, put("training.epocs", 3), spots)
    done = rayfold("plan", path)
    assert_one_line(
        (done.returncode, done.stdout, done.stderr), "training.epocs", "did you mean 'epochs'?"
    )


def test_a_real_command_survives_a_terminal_that_knows_no_unicode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    monkeypatch.setenv("LC_ALL", "C")
    done = rayfold("plan", tmp_path / "模型\n.yaml")
    assert_one_line((done.returncode, done.stdout, done.stderr), "cannot read")


def test_a_python_whose_path_has_a_space_is_refused_at_once(tmp_path: Path) -> None:
    """Ray would start its workers from the part before the space, again and again."""
    folder = tmp_path / "my environment"
    folder.mkdir()
    (folder / "python").symlink_to(sys.executable)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    command = [folder / "python", "-m", "orchestrator", "demo", "--run", tmp_path / "run"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "Python must lie in a path without spaces" in done.stderr
    assert done.stderr.count("\n") == 1
