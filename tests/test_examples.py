"""Every example runs, on a small real run of the example's own model and data."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from orchestrator.execution.cells import prepare
from orchestrator.execution.provenance import write_provenance
from orchestrator.experiment.experiment_file import read_experiment
from tests.conftest import ROOT
from trainables.core.layout import RunLayout
from trainables.data.manifest import Manifest
from trainables.models.known_code import remember
from xai.shards.explainer import Explainer
from xai.shards.shard_plan import ExplainOptions, chosen_cells, shards

EXAMPLES = ROOT / "examples"
EXPERIMENT = """
name: examples
data: {source: table, path: images.csv}
folds: {k: 2, test_set: 0.2}
training: {epochs: 1, batch_size: 8}
candidates:
  - {name: tiny, model: TinyCNN, image_size: 32}
  - {name: mine, model: "your_own_model:build", image_size: 32, arguments: {filters: [[4, 8]]}}
"""


def example(name: str, *arguments: str | Path) -> str:
    """What a script of examples/ prints."""
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def study(spots: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study with scans of 22 patients, one of them without a diagnosis, and the table made of
    them.
    """
    folder = tmp_path_factory.mktemp("study")
    (folder / "scans").mkdir()
    diagnoses = ["patient,diagnosis"]
    for label in ("Clear", "Spot"):
        for number, image in enumerate(sorted((spots / label).glob("*.png"))):
            patient = f"{label[0]}{number // 2:02}"
            shutil.copy(image, folder / "scans" / f"{patient}_{number}.png")
            if number % 2 == 0 and patient != "C11":
                diagnoses.append(f"{patient},{label}")
    (folder / "diagnoses.csv").write_text("\n".join(diagnoses) + "\n")
    said = example(
        "your_own_data.py", folder / "scans", folder / "diagnoses.csv", folder / "images.csv"
    )
    assert said == f"wrote 46 images to {folder / 'images.csv'}; 2 without a diagnosis\n"
    return folder


@pytest.fixture(scope="module")
def run(study: Path) -> Path:
    """A finished and explained run of it, made in this process, which is faster than by Ray."""
    from trainables.models.user_code import search_also
    from trainables.training.worker import Worker

    shutil.copy(EXAMPLES / "your_own_model.py", study)
    (study / "experiment.yaml").write_text(EXPERIMENT)
    layout = RunLayout(study / "run")
    prepared = prepare(read_experiment(study / "experiment.yaml"), layout)
    prepared.save()
    write_provenance(prepared, [])
    search_also(study)  # as the workers of a run do
    worker = Worker(1e9)
    for entry in prepared.entries:
        remember(entry.spec)  # as `rayfold run` does
        cell = worker.open(layout.root, entry.spec.key, 0.0)
        while not cell.done:
            cell.advance()
    return layout.root


def test_a_run_is_analysed(run: Path, study: Path) -> None:
    said = example("analyse_a_run.py", run, study / "scans" / "C11_22.png")
    assert "tiny: AUC " in said
    assert "mine: AUC " in said
    assert "\\begin{tabular}" in said
    assert said.count("C11_22.png") == 2  # by either ensemble


def test_a_model_of_ones_own_has_the_filters_that_were_asked_for(run: Path) -> None:
    from rayfold import load_run

    model = load_run(run).model("mine", fold=0)
    assert [layer.filters for layer in model.layers if hasattr(layer, "filters")] == [4, 8]


def test_maps_are_arrays(run: Path, tmp_path: Path) -> None:
    layout, options = RunLayout(run), ExplainOptions(split="test", faithfulness=0)
    entries = chosen_cells(layout, options)
    explainer = Explainer(run)
    for shard in shards(entries, options, Manifest.load(layout.manifest)):
        explainer.make(shard)
    said = example("maps_as_arrays.py", run, "mine", tmp_path / "maps.npz")
    assert "hottest at row" in said
    assert "agreement of the folds" in said
    saved = np.load(tmp_path / "maps.npz")
    assert saved["maps"].dtype == np.float32
    assert set(saved["fold"]) == {0, 1}
    assert len(saved["maps"]) == len(saved["image"])
