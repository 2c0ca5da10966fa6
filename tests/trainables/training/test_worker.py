"""A cell's result depends on what the cell is, not on where, when or after what it ran."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from orchestrator.execution.cells import prepare
from orchestrator.experiment.experiment_file import parse_experiment
from tests.conftest import ROOT
from trainables.core.layout import RunLayout
from trainables.core.ledger import Entry
from trainables.training import checkpoint

# One worker process: trains the cells `keys` in order; `stop` kills it after that many epochs of
# the last cell.
WORKER = """
import json, os, sys
from pathlib import Path
run, keys, stop, budget, suspend = json.loads(sys.argv[1])
from trainables.runtime.startup import configure_tensorflow
configure_tensorflow(1)
from trainables.training.worker import Worker
worker = Worker(budget)
for key in keys:
    cell = worker.open(Path(run), key, 0.0)
    while not cell.done:
        row = cell.advance()
        if key == keys[-1] and row["epoch"] == stop:
            if suspend:
                cell.suspend()
            os._exit(9)
    print(len(worker._sessions))
"""

EXPERIMENT = """
name: cells
data: {{source: folder, path: {path!r}}}
folds: {{k: 2}}
training:
  epochs: 6
  learning_rate: {rate}
  early_stopping: 3
  dropout: 0.3
  class_weights: balanced
  augmentation: {{flip: true, rotation: 10, zoom: 0.1}}
  {training}
candidates:
  - {{name: plain, model: {model}, image_size: 32}}
  - {{name: slower, model: {model}, image_size: 32, learning_rate: 1e-3}}
"""


def prepared_run(
    folder: Path,
    data: Path,
    model: str = "TinyCNN",
    training: str = "",
    rate: float = 3e-3,
    text: str = EXPERIMENT,
) -> dict[tuple[str, int], Entry]:
    """A run folder that is ready for workers: its ledger entries by candidate and fold."""
    text = text.format(path=str(data), model=model, training=training, rate=rate)
    prepared = prepare(parse_experiment(text, "test.yaml", folder), RunLayout(folder))
    prepared.save()
    return {(entry.spec.candidate.id, entry.spec.fold): entry for entry in prepared.entries}


def work(
    folder: Path,
    entries: list[Entry],
    stop: int = 0,
    expected: int = 0,
    budget: float = 1e9,
    suspend: bool = False,
) -> list[int]:
    """Train cells one after another in one new process; how many compiled models it kept after
    each.

    `suspend`: let the stopped cell save its state first, as a worker does that is told to stop.
    """
    arguments = json.dumps(
        [str(folder), [entry.spec.key for entry in entries], stop, budget, suspend]
    )
    done = subprocess.run(
        [sys.executable, "-c", WORKER, arguments],
        cwd=ROOT,
        env=dict(os.environ),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == expected, done.stderr
    return [int(line) for line in done.stdout.split()]


def same_result(a: Entry, b: Entry) -> None:
    assert a.state().state == b.state().state == "done"
    pd.testing.assert_frame_equal(a.predictions(), b.predictions(), check_exact=True)
    pd.testing.assert_frame_equal(
        a.epochs().drop(columns="seconds"), b.epochs().drop(columns="seconds"), check_exact=True
    )


Cells = tuple[Path, dict[tuple[str, int], Entry]]


@pytest.fixture(scope="module")
def undisturbed(spots: Path, tmp_path_factory: pytest.TempPathFactory) -> Cells:
    """Two cells of TinyCNN, each the only one of its process: not to be changed."""
    folder = tmp_path_factory.mktemp("undisturbed")
    entries = prepared_run(folder, spots)
    for fold in (0, 1):
        work(folder, [entries["plain", fold]])
    return folder, entries


@pytest.fixture(scope="module")
def killed(spots: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose worker was killed after two epochs of its first cell: not to be changed."""
    folder = tmp_path_factory.mktemp("killed")
    work(folder, [prepared_run(folder, spots)["plain", 0]], stop=2, expected=9)
    return folder


@pytest.fixture
def interrupted(killed: Path, undisturbed: Cells, tmp_path: Path) -> Entry:
    """The killed cell, in a run of this test's own."""
    shutil.copytree(killed, tmp_path / "run")
    return Entry(RunLayout(tmp_path / "run").ledger, undisturbed[1]["plain", 0].spec)


def test_a_warm_worker_gives_the_bits_of_a_fresh_one(
    undisturbed: Cells, spots: Path, tmp_path: Path
) -> None:
    warm = prepared_run(tmp_path, spots)
    work(tmp_path, [warm["slower", 0], warm["plain", 0], warm["plain", 1]])
    same_result(undisturbed[1]["plain", 1], warm["plain", 1])
    assert not warm["plain", 1].resume_path.exists()
    # The cells before it were different ones, so equality is not for want of randomness.
    assert not np.array_equal(
        warm["plain", 0].epochs()["train_loss"], warm["plain", 1].epochs()["train_loss"]
    )
    assert not np.array_equal(
        warm["plain", 0].epochs()["train_loss"], warm["slower", 0].epochs()["train_loss"]
    )


def test_a_worker_keeps_sessions_within_its_budget(spots: Path, tmp_path: Path) -> None:
    kept = {}
    for name, budget in (("roomy", 1e9), ("narrow", 0.0)):
        text = EXPERIMENT.replace("learning_rate: 1e-3", "dropout: 0.1")  # another graph
        entries = prepared_run(tmp_path / name, spots, text=text)
        cells = [entries["plain", 0], entries["slower", 0], entries["plain", 1]]
        kept[name] = work(tmp_path / name, cells, budget=budget), cells[-1]
    assert kept["roomy"][0] == [1, 2, 2]
    assert kept["narrow"][0] == [1, 1, 1]
    same_result(kept["roomy"][1], kept["narrow"][1])  # built again, or reset: the same


def test_an_interrupted_cell_gives_the_bits_of_an_undisturbed_one(
    undisturbed: Cells, interrupted: Entry, tmp_path: Path
) -> None:
    assert interrupted.state().state == "running"
    assert interrupted.resume_path.exists()
    work(tmp_path / "run", [interrupted])
    same_result(undisturbed[1]["plain", 0], interrupted)
    assert interrupted.state().attempts == 2


@pytest.mark.slow
def test_a_cell_interrupted_while_its_head_trains_gives_the_same_bits_too(
    spots: Path, tmp_path: Path
) -> None:
    whole = prepared_run(tmp_path / "a", spots, training="frozen_epochs: 2")["plain", 0]
    resumed = prepared_run(tmp_path / "b", spots, training="frozen_epochs: 2")["plain", 0]
    work(tmp_path / "a", [whole])
    work(tmp_path / "b", [resumed], stop=2, expected=9)
    work(tmp_path / "b", [resumed])
    same_result(whole, resumed)


def cut(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def shorten_one_array(path: Path) -> None:
    """Whole, but not this session's: so looks the state of a version whose optimizer keeps other
    variables.
    """
    saved = checkpoint.load(path)
    assert saved is not None
    saved.state[-3] = saved.state[-3].ravel()[:-1]
    checkpoint.save(path, saved)


@pytest.mark.parametrize("spoil", [cut, shorten_one_array])
def test_a_resume_state_that_cannot_be_used_starts_the_cell_over(
    undisturbed: Cells, interrupted: Entry, tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    spoil(interrupted.resume_path)
    work(tmp_path / "run", [interrupted])
    same_result(undisturbed[1]["plain", 0], interrupted)


def test_the_entry_of_a_cell_is_complete(undisturbed: Cells) -> None:
    folder, entries = undisturbed
    entry = entries["plain", 0]
    state, predictions = entry.state(), entry.predictions()
    roles = pd.read_parquet(RunLayout(folder).folds).query("fold == 0").set_index("image")["role"]
    assert set(predictions["image"]) == set(roles[roles.isin(["fold", "test"])].index)
    assert (predictions["split"].to_numpy() == roles[predictions["image"]].to_numpy()).all()
    assert predictions["image"].is_unique
    assert np.allclose(predictions[["prob_Clear", "prob_Spot"]].sum(axis=1), 1)
    exponent = np.exp(predictions[["logit_Clear", "logit_Spot"]].to_numpy())
    assert np.allclose(
        exponent / exponent.sum(axis=1, keepdims=True), predictions[["prob_Clear", "prob_Spot"]]
    )
    assert state.epochs == len(entry.epochs())
    assert state.best_epoch == entry.epochs()["validation_loss"].idxmin() + 1
    assert state.epochs == min(6, state.best_epoch + 3)
    assert state.seconds.build > 0
    assert state.seconds.train > 0
    assert state.peak_memory_mb is not None
    assert (RunLayout(folder).tensorboard / "plain" / "fold_0_seed_0").is_dir()


def test_a_failure_is_an_entry_with_its_traceback(spots: Path, tmp_path: Path) -> None:
    entry = prepared_run(tmp_path, spots, training="optimizer: sgd", rate=1e6)["plain", 0]
    work(tmp_path, [entry], expected=1)
    state = entry.state()
    assert state.state == "failed"
    assert "diverged" in state.reason
    assert "Traceback" in state.traceback


def test_patience_begins_when_the_backbone_is_released(spots: Path, tmp_path: Path) -> None:
    text = EXPERIMENT.replace("early_stopping: 3", "early_stopping: 1")
    entry = prepared_run(tmp_path, spots, training="frozen_epochs: 4", rate=1e-9, text=text)[
        "plain", 0
    ]
    work(tmp_path, [entry])
    epochs, state = entry.epochs(), entry.state()
    assert state.best_epoch is not None
    assert len(epochs) == min(6, max(state.best_epoch, 4) + 1)
    # Nothing improves while so small a step trains the head alone.
    assert epochs["validation_loss"][:4].nunique() == 1
