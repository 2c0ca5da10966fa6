"""`rayfold explain` on a real run: every map once, the right one, whatever happens on the way."""

import json
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import psutil
import pytest

from orchestrator import load_run
from orchestrator.execution.cells import prepare
from orchestrator.experiment.experiment_file import read_experiment
from tests.conftest import ROOT, command_line, rayfold
from trainables.core.files import whole_files
from trainables.core.layout import RunLayout
from trainables.data.manifest import Manifest
from trainables.models import user_code
from trainables.models.known_code import builders, remember
from trainables.training.worker import Worker
from xai.methods.registry import METHODS
from xai.shards.explainer import Explainer
from xai.shards.heatmaps import SCORES, read_shard, shard_digest, write_shard
from xai.shards.shard_plan import ExplainOptions, chosen_cells, missing, shards

EXPERIMENT = """
name: explained
data: {source: phantom, images_per_class: 40, image_size: 64}
folds: {k: 2, test_set: 0.2}
training: {epochs: 12, learning_rate: 1.0e-3, batch_norm_momentum: 0.9}
candidates: [{name: tiny CNN, model: TinyCNN, image_size: 64}]
"""


def train(file: Path, run: Path) -> None:
    """What `rayfold run` trains, without Ray."""
    prepared = prepare(read_experiment(file), RunLayout(run))
    prepared.save()
    provenance = {"invocations": [{"experiment_folder": str(file.parent)}]}
    prepared.layout.provenance.write_text(json.dumps(provenance))
    user_code.search_also(file.parent)
    worker = Worker(1e9)
    for entry in prepared.entries:
        cell = worker.open(run, entry.spec.key, 0.0)
        while not cell.done:
            cell.advance()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose cells are finished: not to be changed."""
    folder = tmp_path_factory.mktemp("explained")
    (folder / "study.yaml").write_text(EXPERIMENT)
    train(folder / "study.yaml", folder / "run")
    return folder / "run"


@pytest.fixture(scope="module")
def explained(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("copy") / "a 'run' with spaces"
    shutil.copytree(trained, run)
    done = rayfold(run, "--faithfulness", "4", module="xai", alone=True)
    assert done.returncode == 0, done.stderr
    return run


def maps_of(run: Path) -> pd.DataFrame:
    return load_run(run).heatmaps.rows()


def test_every_image_of_every_cell_has_one_map_per_class(explained: Path) -> None:
    run = load_run(explained)
    table = run.heatmaps.table
    assert not table.duplicated(
        ["image", "candidate", "fold", "seed", "method", "class", "layer"]
    ).any()
    wanted = run.predictions[["image", "fold", "split"]].merge(
        pd.DataFrame({"class": run.classes}), how="cross"
    )
    found = table[["image", "fold", "split", "class"]].astype({"fold": int})
    pd.testing.assert_frame_equal(
        found.sort_values(list(found)).reset_index(drop=True),
        wanted.sort_values(list(wanted)).reset_index(drop=True),
        check_dtype=False,
    )
    assert table["error"].isna().all()


def test_maps_are_those_of_the_closed_form(explained: Path) -> None:
    """Opened by hand: the last map's channels, weighed by the dense layer."""
    import keras

    run = load_run(explained)
    model = run.model("tiny-cnn", fold=1)
    rows = run.heatmaps.rows(fold=1, split="test")
    table = run.manifest.usable.set_index("image")
    for row in rows.iloc[:6].to_dict("records"):
        pixels = cv2.imread(table.loc[row["image"], "path"], cv2.IMREAD_GRAYSCALE)
        features = keras.Model(model.inputs, model.get_layer("pool").input)(
            pixels[None, ..., None].astype(np.float32)
        )
        kernel = model.get_layer("logits").get_weights()[0][:, run.classes.index(row["class"])]
        expected = np.einsum("hwk,k->hw", np.asarray(features)[0], kernel) / np.prod(
            features.shape[1:3]
        )
        np.testing.assert_allclose(row["map"], expected.ravel(), atol=2e-3 * np.abs(expected).max())


def test_predictions_stand_beside_the_maps(explained: Path) -> None:
    run = load_run(explained)
    one = run.heatmaps.table.iloc[5]
    own = run.predictions[
        (run.predictions["image"] == one["image"]) & (run.predictions["fold"] == one["fold"])
    ].iloc[0]
    assert one["probability"] == own[f"prob_{one['class']}"]
    assert one["prediction"] == own["prediction"]
    assert one["label"] == own["label"]


def test_scores_pictures_and_report_come_of_it(explained: Path) -> None:
    summary = pd.read_csv(explained / "xai" / "tables" / "summary.csv").set_index("score")
    assert summary.at["opacity_energy_ratio", "low"] > 1
    # The images that were asked for: two cells, two splits.
    assert summary.at["deletion", "maps"] == 2 * (4 + 4)
    assert pd.read_csv(explained / "xai" / "tables" / "sanity.csv")["passed"].all()
    for name in ("Normal", "Opacity"):
        assert (explained / "figures" / "tiny-cnn" / f"gradcam_{name}.png").stat().st_size > 10_000
    assert len(list((explained / "xai" / "overlays").rglob("*.jpg"))) == len(
        load_run(explained).predictions
    )
    assert 'href="xai/gallery.html"' in (explained / "report.html").read_text("utf-8")
    assert "Where the evidence lies" in (explained / "final_report.txt").read_text("utf-8")


def explain_here(run: Path, faithfulness: int, **others: Any) -> int:
    """What `rayfold explain` makes, without Ray; how many shards there were to make."""
    layout, options = RunLayout(run), ExplainOptions(faithfulness=faithfulness, **others)
    work = missing(
        layout, list(shards(chosen_cells(layout, options), options, Manifest.load(layout.manifest)))
    )
    explainer = Explainer(run)
    for shard in work:
        explainer.make(shard)
    return len(work)


def test_again_makes_only_what_is_missing(explained: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(explained, run)
    before = maps_of(run)
    shards = sorted(run.glob("xai/heatmaps/*/*/*/*.parquet"))
    times = {path: path.stat().st_mtime_ns for path in shards}
    shards[1].unlink()
    shards[2].write_bytes(shards[2].read_bytes()[:-9])
    assert explain_here(run, 4) == 2
    pd.testing.assert_frame_equal(maps_of(run), before)
    assert [path for path in shards if path.stat().st_mtime_ns != times[path]] == shards[1:3]


def marked(run: Path) -> list[Path]:
    """All shards, with an 8 in place of the first value of each map, so that a map that is made
    again is told.
    """
    files = sorted(run.glob("xai/heatmaps/*/*/*/*.parquet"))
    for path in files:
        rows = [row | {"map": np.append(np.float16(8), row["map"][1:])} for row in read_shard(path)]
        write_shard(path, rows, shard_digest(path) or "", shard_digest(path, SCORES) or "")
    return files


def test_how_many_maps_are_judged_decides_no_map(explained: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(explained, run)
    marked(run)
    assert explain_here(run, 4) == 0
    assert explain_here(run, 2) == 4  # two cells, two splits
    found = maps_of(run)
    assert all(
        heat[0] == pytest.approx(8 * scale)
        for heat, scale in zip(found["map"], found["scale"], strict=True)
    )
    assert found["deletion"].notna().sum() == 2 * (2 + 2)
    assert found["opacity_pointing"].notna().any()


def test_scores_are_the_same_of_new_maps_and_of_stored_ones(
    explained: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(explained, run)
    explain_here(run, 0)
    assert "deletion" not in load_run(run).heatmaps.scores
    explain_here(run, 4)
    pd.testing.assert_frame_equal(maps_of(run), maps_of(explained), rtol=1e-4, atol=1e-5)


def test_a_mask_that_was_changed_is_judged_anew(explained: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(explained, run)
    scored = maps_of(run).set_index("image")
    marked(run)  # which leaves the scores out
    table = load_run(run).manifest.usable
    victim = table[table["label"] == "Opacity"].iloc[0]
    path = Path(victim["mask_opacity"])
    content, before = path.read_bytes(), maps_of(run).set_index("image").loc[victim["image"]]
    cv2.imwrite(str(path), np.full((64, 64), 255, np.uint8))
    try:
        remade = explain_here(run, 4)
    finally:
        path.write_bytes(content)
    assert 0 < remade < 4
    after = maps_of(run).set_index("image").loc[victim["image"]]
    assert (after["opacity_energy"].dropna() == 1).all()
    assert (scored.loc[victim["image"], "opacity_energy"].dropna() < 1).all()
    assert after["map"].map(list).tolist() == before["map"].map(list).tolist()


def test_the_python_of_the_readme_works_as_it_stands(
    explained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its names are those of the demo, of which this run is a small one."""
    blocks = re.findall(
        r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), flags=re.DOTALL
    )
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "demo").symlink_to(explained, target_is_directory=True)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for block in blocks:
        exec(block, names)
    assert len(blocks) == 2
    assert names["maps"].shape == (len(names["table"]), 8, 8)
    assert set(names["table"]["class"]) == {"Opacity"}
    with np.load(tmp_path / "maps.npz") as saved:
        assert len(saved["maps"]) == 2 * len(load_run(explained).predictions)


def test_a_damaged_image_is_a_row_and_stops_nothing(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The image store is gone, so the files are read again, and one of them is not what it was."""
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    opened = load_run(run)
    victim = opened.predictions.loc[opened.predictions["split"] == "test", "image"].iloc[0]
    path = Path(opened.manifest.usable.set_index("image").loc[victim, "path"])
    content = path.read_bytes()
    monkeypatch.setenv("RAYFOLD_CACHE", str(tmp_path / "empty cache"))
    path.write_bytes(content[:200])
    try:
        assert explain_here(run, 0, folds=(0,), split="test") == 1
    finally:
        path.write_bytes(content)
    found = load_run(run).heatmaps.table
    lost = found[found["error"].notna()]
    assert list(lost["image"]) == [victim]
    assert "truncated" in lost["error"].iloc[0]
    assert found["image"].nunique() == (opened.predictions["split"] == "test").sum() / 2


FLAT = """
import keras

def flat(input_shape, n_classes):
    layers = keras.layers
    chain = [layers.Rescaling(1 / 255), layers.Flatten(), layers.Dense(n_classes)]
    return keras.Sequential([keras.Input(input_shape), *chain])
"""


@pytest.mark.slow
def test_a_model_without_a_map_is_explained_by_methods_of_the_image_and_stops_no_other(
    tmp_path: Path,
) -> None:
    (tmp_path / "flat_model.py").write_text(FLAT)
    lines = (
        EXPERIMENT.replace("epochs: 12", "epochs: 1")
        .replace("class: 40", "class: 10")
        .replace(
            "candidates: [", 'candidates: [{name: flat, model: "flat_model:flat", image_size: 64}, '
        )
    )
    (tmp_path / "study.yaml").write_text(lines)
    run, some = (
        tmp_path / "run",
        ("--folds", "0", "--split", "test", "--faithfulness", "0", "--no-overlays"),
    )
    train(tmp_path / "study.yaml", run)
    for spec in builders(entry.spec for entry in chosen_cells(RunLayout(run), ExplainOptions())):
        remember(spec)
    done = rayfold("explain", run, *some, "--candidates", "flat", alone=True)
    assert done.returncode == 1, done.stderr
    assert "has no feature map" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("nothing is explained in")
    done = rayfold("explain", run, *some, "--methods", "gradcam,occlusion", alone=True)
    assert done.returncode == 1, done.stderr
    table, heatmaps = (
        pd.read_csv(run / "xai" / "tables" / "summary.csv"),
        load_run(run).heatmaps.table,
    )
    found = set(heatmaps[["candidate", "method", "placed"]].itertuples(index=False, name=None))
    names = {
        name: next(c for c in heatmaps["candidate"].unique() if c.startswith(name))
        for name in ("flat", "tiny")
    }
    assert found == {
        (names["flat"], "occlusion", "tiles"),
        (names["tiny"], "occlusion", "tiles"),
        (names["tiny"], "gradcam", "field"),
    }
    assert set(table[["candidate", "method"]].itertuples(index=False, name=None)) == {
        row[:2] for row in found
    }


@pytest.mark.slow
def test_killed_in_the_middle_it_goes_on_with_no_map_twice_and_none_missing(
    trained: Path, explained: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    line = command_line("explain", run, "--faithfulness", "4")
    driver = subprocess.Popen(**line, stdout=subprocess.DEVNULL)
    for _ in range(1200):
        if whole_files(run, "xai/heatmaps/*/*/*/*.parquet"):
            break
        assert driver.poll() is None
        time.sleep(0.1)
    victims = psutil.Process(driver.pid).children(recursive=True)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    for victim in victims:
        if victim.is_running():
            victim.kill()
    keys = json.loads((run / "cells.json").read_text())
    assert 1 <= len(whole_files(run, "xai/heatmaps/*/*/*/*.parquet")) < 2 * len(keys)
    explain_here(run, 4)
    pd.testing.assert_frame_equal(maps_of(run), maps_of(explained))


@pytest.mark.slow
def test_every_method_goes_through(trained: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    own = [name for name in METHODS if name not in ("lime", "shap")]
    done = rayfold("explain", run, "--methods", ",".join(own), "--folds", "0", "--split", "test", "--faithfulness", "0",
                   timeout=600, alone=True)  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    table = load_run(run).heatmaps.table
    assert set(table["method"]) == set(own)
    assert table["error"].isna().all()
    assert (run / "xai" / "figures" / "grid_0.pdf").exists()
