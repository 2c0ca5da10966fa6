"""What an experiment asks for against what its data or its run folder says, in one line each."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from orchestrator import cli
from orchestrator.execution.cells import prepare
from orchestrator.experiment import yaml_text
from orchestrator.experiment.experiment_file import parse_experiment
from trainables.core.errors import ExperimentError
from trainables.core.layout import RunLayout

TEXT = """
name: study
data: {{source: {source}, path: '{path}'{more}}}
folds: {{k: 2, test_set: {test_set}}}
candidates: [{{model: TinyCNN, image_size: 32}}]
"""


def draw(root: Path) -> pd.DataFrame:
    rows = []
    for part, images in (("train", 12), ("test", 4)):
        for label in "ab":
            for number in range(images):
                path = root / part / label / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                pixels = np.random.default_rng([images, ord(label), number]).integers(
                    0, 256, (12, 12), np.uint8
                )
                Image.fromarray(pixels).save(path)
                rows.append({"path": str(path), "label": label, "split": part})
    return pd.DataFrame(rows)


@pytest.mark.parametrize("source", ["folder", "table"])
def test_a_split_that_is_not_kept_is_said_with_numbers(tmp_path: Path, source: str) -> None:
    table = draw(tmp_path / "data")
    table.to_csv(tmp_path / "t.csv", index=False)
    path, more = ("data", ", layout: split/class") if source == "folder" else ("t.csv", "")

    def notes(test_set: str) -> tuple[list[str], pd.DataFrame]:
        text = TEXT.format(source=source, path=path, more=more, test_set=test_set)
        prepared = prepare(
            parse_experiment(text, "study.yaml", tmp_path), RunLayout(tmp_path / "run")
        )
        return [note for note in prepared.manifest.notes if "own split" in note], prepared.folds

    (note,), folds = notes("0.25")
    drawn = folds[(folds["fold"] == 0) & (folds["role"] == "test")]["image"]
    trained = 8 - int(drawn.str.contains("test/").sum())
    assert "(24 train, 8 test) is not kept" in note
    assert f"draws a test set of {len(drawn)} images anew" in note
    assert f"{trained} of the 8 images of the published test set are trained on" in note
    assert "folds.test_set: given keeps the published test set" in note
    assert notes("given")[0] == []


@pytest.mark.parametrize("path", ["", "  "])
def test_an_empty_path_is_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(ExperimentError, match=r"data\.path must name a folder or a table"):
        parse_experiment(
            TEXT.format(source="folder", path=path, more="", test_set=0.1), "study.yaml", tmp_path
        )


@pytest.mark.parametrize(
    "value",
    [
        "!!set {a, b}",
        "!!omap [a: 1]",
        "!!pairs [a: 1]",
        "!!binary YQ==",
        "!!timestamp 2001-01-01",
        "!!null x",
        "!!bool yes",
        "!!int 1.5",
        "!own x",
        "!!python/object:os.system x",
    ],
)
def test_tags_that_give_odd_values_are_refused_in_one_line(value: str) -> None:
    with pytest.raises(ValueError, match="tag") as error:
        yaml_text.load(f"a: {value}")
    assert str(error.value).isprintable()


def test_tags_that_fit_are_read() -> None:
    text = "[!!str 5, !!int '5', !!float 5, !!bool true, !!null '', !!seq [1], !!map {a: 1}]"
    assert yaml_text.load(text) == ["5", 5, 5.0, True, None, [1], {"a": 1}]


@pytest.mark.parametrize(
    "arguments",
    [
        ("plan", "study.yaml", "--run", "file"),
        ("run", "study.yaml", "--run", "file"),
        ("run", "study.yaml", "--run", "file/below"),
        ("plan", "study.yaml", "--run", "x" * 300),
        ("demo", "--run", "file"),
        ("status", "file"),
        ("report", "file/below"),
        ("predict", "file", "data"),
        ("explain", "file"),
    ],
)
def test_a_file_in_the_place_of_a_run_folder_is_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
) -> None:
    draw(tmp_path / "data")
    (tmp_path / "file").touch()
    text = TEXT.format(source="folder", path="data", more=", layout: split/class", test_set=0.25)
    (tmp_path / "study.yaml").write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["rayfold", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    _, err = capsys.readouterr()
    assert ended.value.code == 2
    assert err.startswith("rayfold: ")
    assert err[:-1].isprintable()
