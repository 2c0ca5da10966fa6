"""New images are read as those of training were, and nothing that goes wrong with one costs
another.
"""

import io
import json
import logging
import os
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from orchestrator.execution.cells import prepare
from orchestrator.experiment.experiment_file import parse_experiment
from orchestrator.results.predict import _probabilities, predict, write_predictions
from orchestrator.results.run import Run, load_run
from tests.conftest import Command
from trainables.core.errors import ModelError
from trainables.core.files import parts_digest
from trainables.core.layout import RunLayout

EXPERIMENT = """
name: cells
data: {{source: folder, path: {path!r}}}
folds: {{k: 2}}
training: {{epochs: 2, learning_rate: 3e-3, early_stopping: null}}
candidates:
  - {{name: ready, model: TinyCNN, image_size: 32}}
  - {{name: turned, model: TinyCNN, image_size: 32, test_time_augmentation: turns}}
  - {{name: later, model: TinyCNN, image_size: 16}}
"""
RANDOM = np.random.default_rng(1)
SCENE = RANDOM.integers(30, 200, (40, 40), dtype=np.uint8)
COLUMNS = ["prob_Clear", "prob_Spot"]


@pytest.fixture(scope="module")
def run(spots: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of 8-bit grey images with one candidate that is finished and one that is not."""
    from trainables.training.worker import Worker

    folder = tmp_path_factory.mktemp("run")
    prepared = prepare(
        parse_experiment(EXPERIMENT.format(path=str(spots)), "a.yaml", folder), RunLayout(folder)
    )
    prepared.save()
    worker = Worker(1e9)
    for entry in prepared.entries:
        if entry.spec.candidate.id != "later":
            cell = worker.open(folder, entry.spec.key, 0.0)
            while not cell.done:
                cell.advance()
    return load_run(folder)


def write(folder: Path, **images: np.ndarray) -> Path:
    for name, pixels in images.items():
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / f"{name}.png")
    return folder


def scored(run: Run, *sources: Path) -> pd.DataFrame:
    table = predict(run, list(sources), "ready")
    return table.assign(name=[Path(image).name for image in table["image"]]).set_index("name")


@pytest.mark.parametrize("candidate", ["ready", "turned"])
def test_images_of_training_get_what_the_ledger_says(run: Run, candidate: str) -> None:
    table = run.predictions[run.predictions["candidate"] == candidate]
    test = table[table["split"] == "test"].groupby("image")[COLUMNS]
    paths = run.manifest.usable.set_index("image")["path"]
    table = predict(run, [Path(paths[image]) for image in test.groups], candidate)
    np.testing.assert_allclose(table[COLUMNS], test.mean(), atol=1e-6)
    np.testing.assert_allclose(table[["std_Clear", "std_Spot"]], test.std(ddof=1), atol=1e-6)


def test_one_scene_in_every_depth_gets_one_answer(run: Run, tmp_path: Path) -> None:
    deep = SCENE.astype(np.uint16)
    folder = write(
        tmp_path,
        a=SCENE,
        b=deep,
        c=deep << 2,
        d=deep << 4,
        e=deep << 6,
        f=deep * 257,
        g=np.dstack([SCENE] * 3),
    )
    table = scored(run, folder)
    assert (table["state"] == "ok").all()
    np.testing.assert_allclose(table[COLUMNS] - table.loc["a.png", COLUMNS], 0, atol=1e-6)
    assert table["reason"].fillna("").map(bool).tolist() == [False, True, *[False] * 5]


def test_a_colour_image_is_turned_grey_and_says_so(run: Run, tmp_path: Path) -> None:
    red = np.zeros((40, 40, 3), np.uint8)
    red[..., 0] = SCENE
    grey = np.rint(0.299 * SCENE).astype(np.uint8)
    table = scored(run, write(tmp_path, red=red, grey=grey))
    assert table.loc["red.png", "state"] == "ok"
    assert "turned grey" in table.loc["red.png", "reason"]
    np.testing.assert_allclose(*table.loc[["red.png", "grey.png"], COLUMNS].to_numpy(), atol=1e-6)


def test_predict_lists_what_training_lists_and_every_bad_image_is_a_row(
    run: Run, tmp_path: Path
) -> None:
    folder = write(
        tmp_path / "odd",
        ok=SCENE,
        blank=SCENE * 0,
        mask=(SCENE > 100) * np.uint8(255),
        tiny=SCENE[:4],
    )
    write(folder / ".ipynb_checkpoints", hidden=SCENE)
    write(folder / "lung masks", ok=(SCENE > 90) * np.uint8(255))
    (folder / "._ok.png").write_bytes(b"\0\5\x16\7")
    (folder / "junk.png").write_bytes(b"junk")
    (folder / "scan.svg").write_text("<svg/>")
    (folder / "gone.png").symlink_to("nowhere")
    os.mkfifo(folder / "pipe.png")
    Image.fromarray(SCENE).save(folder / "number.5", format="WEBP", lossless=True)
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "more").symlink_to("../odd")
    table = scored(run, tmp_path / "links", Path("/dev/zero"), tmp_path / "no.png")
    reasons = table.loc[table["state"] == "skipped", "reason"]
    assert sorted(table.index[table["state"] == "ok"]) == ["number.5", "ok.png"]
    assert {name: reason.split(":")[0].split(",")[0] for name, reason in reasons.items()} == {
        "blank.png": "blank",
        "gone.png": "missing file",
        "junk.png": "not a PNG",
        "mask.png": "looks like a mask",
        "no.png": "missing file",
        "pipe.png": "not a regular file",
        "scan.svg": "a format that rayfold does not read",
        "tiny.png": "only 40x4 pixels",
        "zero": "not a regular file",
    }
    np.testing.assert_allclose(*table.loc[["number.5", "ok.png"], COLUMNS].to_numpy(), atol=1e-6)


def test_every_model_is_traced_once_and_says_nothing(
    run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("tensorflow"), "propagate", True)
    cells = run.cells[(run.cells["candidate"] == "ready") & (run.cells["state"] == "done")]
    model = run.model("ready", int(cells["fold"].iloc[0]), int(cells["seed"].iloc[0]))
    pixels = np.random.default_rng(0).integers(0, 256, (40, *model.input_shape[1:]), dtype=np.uint8)
    found = [_probabilities(model, pixels, "none") for _ in range(7)]
    assert not caplog.records
    np.testing.assert_allclose(found[-1], model.predict(pixels, verbose=0), atol=1e-7)


def test_probabilities_are_written_with_the_digits_that_they_have(run: Run, tmp_path: Path) -> None:
    table = scored(run, write(tmp_path / "new", a=SCENE))
    write_predictions(table, tmp_path / "out.csv")
    text = (tmp_path / "out.csv").read_text()
    assert max(len(number.replace("0.", "", 1)) for number in re.findall(r"0\.\d+", text)) <= 13
    np.testing.assert_allclose(
        pd.read_csv(tmp_path / "out.csv")[COLUMNS], table[COLUMNS], rtol=1e-8
    )


def test_a_candidate_that_is_not_finished_costs_the_others_nothing(
    command: Command, run: Run, tmp_path: Path
) -> None:
    out = tmp_path / "out.csv"
    asked = ("predict", run.layout.root, write(tmp_path / "new", a=SCENE), "--out", out)
    code, _, said = command(*asked)
    assert code == 1
    assert "later: left out, none of its cells is finished" in said
    assert pd.read_csv(out)["candidate"].tolist() == ["ready", "turned"]
    code, _, said = command(*asked, "--candidate", "later")
    assert code == 2
    assert said.startswith("rayfold: no candidate asked for has a finished cell")


def changed_model(path: Path, change: Callable[[dict[str, Any], h5py.File], None]) -> None:
    """Change what a `.keras` file says, weights or layers, and have its ledger entry know it so."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    config, weights = json.loads(parts["config.json"]), io.BytesIO(parts["model.weights.h5"])
    with h5py.File(weights, "r+") as file:
        change(config, file)
    parts |= {"config.json": json.dumps(config).encode(), "model.weights.h5": weights.getvalue()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    state = json.loads((path.parent / "state.json").read_text())
    state["digests"][path.name] = parts_digest(path)
    (path.parent / "state.json").write_text(json.dumps(state))


def of_class(config: dict[str, Any], name: str) -> dict[str, Any]:
    return next(
        layer["config"] for layer in config["config"]["layers"] if layer["class_name"] == name
    )


def no_numbers(_: dict[str, Any], weights: h5py.File) -> None:
    def spoil(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            item[...] = np.nan

    weights.visititems(spoil)


CHANGES: dict[str, Callable[[dict[str, Any], h5py.File], None]] = {
    "weights that are no numbers": no_numbers,
    "images of another size": lambda config, _: of_class(config, "InputLayer").update(
        batch_shape=[None, 64, 64, 1]
    ),
    "endless filters": lambda config, _: of_class(config, "Conv2D").update(filters=2_000_000),
    "endless layers": lambda config, _: config["config"].update(
        layers=config["config"]["layers"] * 2000
    ),
    "a layer and no model": lambda config, _: config.update(
        class_name="Dense", module="keras.layers", config={"units": 2}
    ),
}


@pytest.mark.parametrize("case", CHANGES)
def test_a_model_that_is_not_the_cell_s_is_left_out(run: Run, tmp_path: Path, case: str) -> None:
    layout = RunLayout(tmp_path / "run")
    shutil.copytree(run.layout.root, layout.root)
    image = write(tmp_path / "images", a=SCENE)
    path = load_run(layout.root).entry("ready", 0).model_path
    changed_model(path, CHANGES[case])
    said: list[str] = []
    table = predict(load_run(layout.root), [image], "ready", said.append)
    assert (table["models"] == 1).all()
    assert table[COLUMNS].notna().all(axis=None)
    assert [str(path) in line for line in said] == [True]
    assert "\n" not in said[0]


@pytest.mark.parametrize("damage", ["turned", "zeros", "text"])
def test_a_model_that_cannot_be_opened_costs_the_others_nothing(
    run: Run, tmp_path: Path, damage: str
) -> None:
    layout = RunLayout(tmp_path / "run")
    shutil.copytree(run.layout.root, layout.root)
    image = write(tmp_path / "images", a=SCENE)
    paths = [load_run(layout.root).entry("ready", fold).model_path for fold in (0, 1)]
    said: list[str] = []
    for lost, path in enumerate(paths, 1):
        whole = path.read_bytes()
        # By the latter the ledger knows the file.
        content, table_of_contents = (
            whole[:-600],
            whole[-600:],
        )
        changed = {
            "turned": content[::-1],
            "zeros": content[:600] + bytes(len(content) - 600),
            "text": b"x" * len(content),
        }
        path.write_bytes(changed[damage] + table_of_contents)
        if lost == 1:
            table = predict(load_run(layout.root), [image], "ready", said.append)
            assert (table["models"] == 1).all()
            assert len(said) == 1
            assert str(path) in said[0]
            assert table[COLUMNS].notna().all(axis=None)
    with pytest.raises(ModelError, match="cannot be opened") as error:
        predict(load_run(layout.root), [image], "ready")
    assert "\n" not in str(error.value)


def test_padded_deep_images_get_what_the_ledger_says_and_are_explained(tmp_path: Path) -> None:
    """12-bit images of other proportions, through training, `predict`, the user's model and maps."""
    from trainables.training.worker import Worker
    from xai.shards.explainer import Explainer
    from xai.shards.shard_plan import ExplainOptions, chosen_cells, shards

    for index, label in enumerate(("Clear", "Spot")):
        (tmp_path / "data" / label).mkdir(parents=True)
        for number in range(10):
            pixels = RANDOM.integers(0, 4096, (30, 45)).astype(np.uint16)
            pixels[5:15, 5:15] //= 1 + 3 * index
            Image.fromarray(pixels).save(tmp_path / "data" / label / f"{number}.png")
    text = EXPERIMENT.format(path=str(tmp_path / "data")).partition("candidates")[0] + (
        "candidates: [{name: ready, model: TinyCNN, image_size: 16, epochs: 1, input: "
        "{fit: pad, pad_value: 30, depth: 16, normalization: per_image}}]"
    )
    layout = RunLayout(tmp_path / "run")
    prepared = prepare(parse_experiment(text, "a.yaml", tmp_path), layout)
    prepared.save()
    worker = Worker(1e9)
    for entry in prepared.entries:
        cell = worker.open(layout.root, entry.spec.key, 0.0)
        while not cell.done:
            cell.advance()
    run = load_run(layout.root)
    test_images_of_training_get_what_the_ledger_says(run, "ready")
    # What the user's model says of pixels that are worked out here.
    first = run.predictions.iloc[0]
    path = run.manifest.usable.set_index("image")["path"][first["image"]]
    grey = np.asarray(Image.open(path)).astype(np.float32) * np.float32(255 / 4095)
    square = np.full((16, 16), 30, np.float32)
    square[2:13] = cv2.resize(grey, (16, 11), interpolation=cv2.INTER_AREA)
    said = run.model("ready", first["fold"])(square[None, ..., None]).numpy()[0]
    np.testing.assert_allclose(said, first[COLUMNS].astype(float), atol=1e-4)
    options = ExplainOptions(faithfulness=0)
    (entry, *_), explainer = chosen_cells(layout, options), Explainer(layout.root)
    assert explainer.make(next(shards([entry], options, run.manifest)))[1] == 0
    # 16 x 11 of the square's pixels are the image, from row 2 on.
    seen, row = explainer.classifier(entry, "auto").placement, run.heatmaps.rows().iloc[0]
    found = row[["top", "left", "step_y", "step_x"]].tolist()
    wanted = [(16 * seen.top - 2) / 11, seen.left, seen.step_y * 16 / 11, seen.step_x]
    np.testing.assert_allclose(found, wanted)
