"""A cell's result depends on what the cell is, not on where, when or after what it ran."""

import json
import os
import shutil
import subprocess
import sys
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
from trainables.training.decisions import Ladder, Rung

# One worker process: trains `cells`, each a run folder and a key, in order, held to `ladder`; `stop`
# kills it after that many epochs of the last one.
WORKER = """
import json, os, sys
from pathlib import Path
cells, stop, budget, suspend, ladder = json.loads(sys.argv[1])
from trainables.runtime.startup import configure_tensorflow
configure_tensorflow(1)
from trainables.training.decisions import Ladder
from trainables.training.worker import Worker
worker = Worker(budget)
ladder = Ladder(**ladder) if ladder else None
for number, (run, key) in enumerate(cells, 1):
    cell = worker.open(Path(run), key, 0.0, ladder)
    while not cell.done:
        row = cell.advance()
        if number == len(cells) and row["epoch"] == stop:
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
  - {{name: other, model: {model}, image_size: 32, dropout: 0.1}}
"""

EXTREMES = """
candidates:
  - {{name: hardly, model: TinyCNN, image_size: 32, learning_rate: 1e-9, frozen_epochs: 4, early_stopping: 1}}
  - {{name: diverges, model: TinyCNN, image_size: 32, learning_rate: 1e6, optimizer: sgd}}
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


def run_of(entry: Entry) -> Path:
    """The run folder that a cell lies in."""
    return entry.folder.parents[1]


def work(
    entries: list[Entry],
    stop: int = 0,
    expected: int = 0,
    budget: float = 1e9,
    suspend: bool = False,
    ladder: Ladder | None = None,
) -> list[int]:
    """Train cells, of any runs, one after another in one new process; how many compiled models it
    kept after each.

    `suspend`: let the stopped cell save its state first, as a worker does that is told to stop.
    """
    cells = [(str(run_of(entry)), entry.spec.key) for entry in entries]
    arguments = json.dumps([cells, stop, budget, suspend, ladder and ladder.model_dump()])
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


Cells = dict[tuple[str, int], Entry]


@pytest.fixture(scope="module")
def undisturbed(spots: Path, tmp_path_factory: pytest.TempPathFactory) -> Cells:
    """Two cells of one candidate, the second fold's the first of its process: not to be changed."""
    entries = prepared_run(tmp_path_factory.mktemp("undisturbed"), spots)
    work([entries["plain", 1], entries["plain", 0]])
    return entries


def test_a_warm_worker_gives_the_bits_of_a_fresh_one(
    undisturbed: Cells, spots: Path, tmp_path: Path
) -> None:
    warm = prepared_run(tmp_path, spots)
    assert work([warm["other", 0], warm["slower", 0], warm["plain", 1]]) == [1, 2, 2]
    same_result(undisturbed["plain", 1], warm["plain", 1])
    assert not warm["plain", 1].resume_path.exists()
    # Others are different, so equality is not for want of randomness.
    plain = undisturbed["plain", 0].epochs()["train_loss"]
    for entry in (warm["plain", 1], warm["slower", 0]):
        assert not np.array_equal(plain, entry.epochs()["train_loss"])


def test_a_halted_cell_is_not_done_and_goes_on_when_it_is_asked_for_in_full(
    undisturbed: Cells, spots: Path, tmp_path: Path
) -> None:
    whole = undisturbed["plain", 1].epochs()
    best = whole["validation_auc"][:3].max()
    high, low = (Rung(epoch=3, threshold=best + more, known=4) for more in (1e-6, 0.0))
    beyond = Rung(epoch=len(whole), threshold=2.0, known=3)  # the last epoch is no rung
    entries = prepared_run(tmp_path, spots)
    work([entries["plain", 1], entries["plain", 0]], ladder=Ladder(metric="auc", rungs=(high,)))
    halted = entries["plain", 1]
    state = halted.state()
    assert (state.state, state.epochs, halted.model_path.exists()) == ("halted", 3, False)
    assert state.reason == high.why(best)
    pd.testing.assert_frame_equal(
        halted.epochs().drop(columns="seconds"), whole[:3].drop(columns="seconds")
    )
    # Held to the same, it stays where it is; to less, it goes on, as if nothing had been.
    work([halted], ladder=Ladder(metric="auc", rungs=(high,)))
    assert (halted.state().state, halted.state().epochs) == ("halted", 3)
    work([halted], ladder=Ladder(metric="auc", rungs=(low, beyond)))
    same_result(undisturbed["plain", 1], halted)
    assert not halted.resume_path.exists()


def test_a_worker_without_a_budget_keeps_one_session_and_builds_the_same_again(
    undisturbed: Cells, spots: Path, tmp_path: Path
) -> None:
    narrow = prepared_run(tmp_path, spots)
    cells = [narrow["plain", 0], narrow["other", 0], narrow["plain", 1]]
    assert work(cells, budget=0) == [1, 1, 1]
    same_result(undisturbed["plain", 1], narrow["plain", 1])


# --- interrupted ----------------------------------------------------------------------------------


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


SPOILED = {"cut": cut, "one array too short": shorten_one_array}


@pytest.fixture(scope="module")
def continued(spots: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Entry]:
    """Cells whose worker was killed after two epochs and that another one finished, the first of
    them as it was left and the others with a spoiled resume state.
    """
    folder = tmp_path_factory.mktemp("killed")
    killed = prepared_run(folder / "whole", spots)["plain", 0]
    work([killed], stop=2, expected=9)
    assert killed.state().state == "running"
    assert killed.resume_path.exists()
    entries = {"whole": killed}
    for name, spoil in SPOILED.items():
        shutil.copytree(folder / "whole", folder / name)
        entries[name] = Entry(RunLayout(folder / name).ledger, killed.spec)
        spoil(entries[name].resume_path)
    work([*entries.values()])
    return entries


def test_an_interrupted_cell_gives_the_bits_of_an_undisturbed_one(
    undisturbed: Cells, continued: dict[str, Entry]
) -> None:
    same_result(undisturbed["plain", 0], continued["whole"])
    assert continued["whole"].state().attempts == 2


@pytest.mark.parametrize("how", SPOILED)
def test_a_resume_state_that_cannot_be_used_starts_the_cell_over(
    undisturbed: Cells, continued: dict[str, Entry], how: str
) -> None:
    same_result(undisturbed["plain", 0], continued[how])


@pytest.mark.slow
def test_a_cell_interrupted_while_its_head_trains_gives_the_same_bits_too(
    spots: Path, tmp_path: Path
) -> None:
    whole, resumed = (
        prepared_run(tmp_path / name, spots, training="frozen_epochs: 2")["plain", 0]
        for name in ("whole", "resumed")
    )
    work([resumed], stop=2, expected=9)
    work([resumed, whole])
    same_result(whole, resumed)


def test_the_entry_of_a_cell_is_complete(undisturbed: Cells) -> None:
    entry = undisturbed["plain", 0]
    layout = RunLayout(run_of(entry))
    state, predictions = entry.state(), entry.predictions()
    roles = pd.read_parquet(layout.folds).query("fold == 0").set_index("image")["role"]
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
    assert (layout.tensorboard / "plain" / "fold_0_seed_0").is_dir()


@pytest.fixture(scope="module")
def extremes(spots: Path, tmp_path_factory: pytest.TempPathFactory) -> Cells:
    """A cell that hardly learns and one that diverges."""
    text = EXPERIMENT.partition("candidates:")[0] + EXTREMES
    entries = prepared_run(tmp_path_factory.mktemp("extremes"), spots, text=text)
    work([entries["hardly", 0], entries["diverges", 0]], expected=1)
    return entries


def test_a_failure_is_an_entry_with_its_traceback(extremes: Cells) -> None:
    state = extremes["diverges", 0].state()
    assert state.state == "failed"
    assert "diverged" in state.reason
    assert "Traceback" in state.traceback


def test_patience_begins_when_the_backbone_is_released(extremes: Cells) -> None:
    entry = extremes["hardly", 0]
    epochs, state = entry.epochs(), entry.state()
    assert state.best_epoch is not None
    assert len(epochs) == min(6, max(state.best_epoch, 4) + 1)
    # Nothing improves while so small a step trains the head alone.
    assert epochs["validation_loss"][:4].nunique() == 1
