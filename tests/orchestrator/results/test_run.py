"""Tables from a run folder that was written by hand, with numbers that are known."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from filelock import FileLock
from numpy.typing import NDArray

from orchestrator import load_run
from orchestrator.execution.cells import Prepared, cell_entries
from orchestrator.experiment.experiment_file import parse_experiment
from orchestrator.results.ranking import ensemble_predictions
from orchestrator.results.run import TABLES, Run
from orchestrator.splits.folds import make_folds
from tests.conftest import Command
from tests.trainables.core.test_ledger import write_model
from trainables.core.errors import RayfoldError, RunFolderError
from trainables.core.layout import RunLayout
from trainables.core.ledger import CellState, Entry, Seconds
from trainables.data.manifest import Manifest
from trainables.training.metrics import HEADLINE, metric_names, score

ILL, WELL = CLASSES = ("it's ill", "well")
EXPERIMENT = """
name: by-hand
data: {source: folder, path: images, classes: ["it's ill", well]}
folds: {k: 3}
training: {epochs: 4}
candidates:
- {name: Good one, model: TinyCNN, weights: start.keras}
- {name: poor, model: DenseNet121, batch_size: 3, augmentation: {flip: true}}
seeds: [0, 7]
"""
#: Probability of ILL for images that are ill and that are well, by seed and fold: each fold ranks
#: perfectly, together they don't.
LEVELS = {
    0: [(0.9, 0.6), (0.45, 0.1), (0.8, 0.2)],
    7: [(0.9, 0.6), (0.45, 0.1), (0.4, 0.2)],
}
IDENTITY = ["candidate", "fold", "seed"]


def manifest_by_hand(n: int = 64) -> Manifest:
    rows = [
        {
            "image": f"{number:03}.png",
            "path": f"/nowhere/{number:03}.png",
            "label": CLASSES[number % 2],
            "group": f"patient {number // 2}",
            "view": None,
            "split": "test" if number < 6 else None,
            "state": "ok",
            "reason": None,
            "content_hash": f"{number:064x}",
            **{
                "format": "PNG",
                "depth_from": "container",
                "stored_bits": 8,
                "bits": 8,
                "two_valued": 0,
            },
            **{
                "width": 8,
                "height": 8,
                "channels": 1,
                "max_value": 255,
                "size_bytes": 9,
                "mtime_ns": 1,
            },
        }
        for number in range(n)
    ]
    return Manifest(pd.DataFrame(rows), CLASSES)


def predictions_by_hand(folds: pd.DataFrame, entry: Entry) -> pd.DataFrame:
    """On its fold the levels above; on the test set right but for one image, another one for each
    of the six models.
    """
    spec = entry.spec
    own = folds[folds["fold"] == spec.fold]
    parts = []
    for split in ("fold", "test"):
        part = own[own["role"] == split].sort_values("image")
        ill = (part["label"] == ILL).to_numpy()
        if split == "fold":
            probability = np.where(ill, *LEVELS[spec.seed][spec.fold])
        else:
            right = np.full(len(part), 0.9)
            right[spec.fold + 3 * (spec.seed == 7)] = 0.4
            probability = np.where(ill, right, 1 - right)
        parts.append(predicted(part, split, probability))
    return pd.concat(parts, ignore_index=True)


def predicted(part: pd.DataFrame, split: str, probability: NDArray[np.float64]) -> pd.DataFrame:
    """The predictions of a part of a fold, of which each image is ill with this probability."""
    columns = {
        "image": part["image"].to_numpy(),
        "label": part["label"].to_numpy(),
        "group": part["group"].to_numpy(),
        "split": split,
        f"prob_{ILL}": probability,
        f"prob_{WELL}": 1 - probability,
        f"logit_{ILL}": np.log(probability),
        f"logit_{WELL}": np.log(1 - probability),
        "prediction": np.where(probability > 0.5, ILL, WELL),
    }
    return pd.DataFrame(columns)


def epochs_by_hand() -> pd.DataFrame:
    epochs = {
        "epoch": [1, 2],
        "train_loss": [0.9, 0.5],
        "train_accuracy": [0.5, 0.8],
        "validation_loss": [0.8, 0.6],
    }
    epochs |= {
        "validation_accuracy": [0.5, 0.7],
        "validation_auc": [0.6, 0.9],
        "learning_rate": 2e-4,
        "seconds": 1.5,
    }
    return pd.DataFrame(epochs)


def finish(
    entry: Entry,
    folds: pd.DataFrame,
    predictions: pd.DataFrame | None = None,
    epochs: pd.DataFrame | None = None,
) -> None:
    write_model(entry.model_path)
    if epochs is None:
        epochs = epochs_by_hand()
    state = CellState(
        attempts=1,
        epochs=len(epochs),
        best_epoch=int(epochs["epoch"].iloc[-1]),
        seconds=Seconds(start=1, build=2, train=3, score=4, checkpoint=5),
        peak_memory_mb=123.5,
        parameters=1000,
        host="node1",
        device="CPU",
    )
    if predictions is None:
        predictions = predictions_by_hand(folds, entry)
    entry.finish(state, epochs, predictions)


def run_by_hand(study: Path) -> Path:
    """Every cell of the first candidate done; of the second one failed, one missing, one
    interrupted.
    """
    (study / "start.keras").write_bytes(b"weights that are gone when the results are read")
    experiment = parse_experiment(EXPERIMENT, "by-hand.yaml", study)
    layout, manifest = RunLayout(study / "run"), manifest_by_hand()
    folds = make_folds(manifest.usable, 3, "given", 0.1, 0)
    prepared = Prepared(
        experiment, layout, manifest, folds, cell_entries(experiment, layout, manifest, folds)
    )
    prepared.save()
    (study / "start.keras").unlink()
    for entry in prepared.entries:
        cell = (entry.spec.candidate.id, entry.spec.fold, entry.spec.seed)
        if cell == ("poor", 1, 0):
            entry.write_state(
                CellState(
                    state="failed", reason="it broke", traceback="Traceback\n  here", attempts=2
                )
            )
        elif cell == ("poor", 2, 7):
            entry.write_state(CellState(state="running", epochs=3, attempts=1, host="node2"))
        elif cell != ("poor", 0, 7):
            finish(entry, folds)
    return layout.root


@pytest.fixture(scope="module")
def by_hand(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_by_hand(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def run(by_hand: Path) -> Run:
    return load_run(by_hand)


def row(table: pd.DataFrame, **identity: object) -> pd.Series:
    for column, value in identity.items():
        table = table[table[column] == value]
    assert len(table) == 1
    return table.iloc[0]


# --- schemas --------------------------------------------------------------------------------------


def test_schemas(run: Run) -> None:
    assert list(run.cells.columns) == [
        "candidate",
        "model",
        "fold",
        "seed",
        "state",
        "reason",
        "attempts",
        "epochs",
        "best_epoch",
        *(
            f"seconds_{phase}"
            for phase in ("start", "build", "train", "score", "checkpoint", "total")
        ),
        "peak_memory_mb",
        "host",
        "device",
        "threads",
        "taken_from",
        "key",
    ]
    assert list(run.epochs.columns) == [
        *IDENTITY,
        "epoch",
        "train_loss",
        "train_accuracy",
        "validation_loss",
        "validation_accuracy",
        "validation_auc",
        "learning_rate",
        "seconds",
    ]
    assert list(run.predictions.columns) == [
        "image",
        "label",
        "group",
        "split",
        *IDENTITY,
        "prob_it's ill",
        "prob_well",
        "logit_it's ill",
        "logit_well",
        "prediction",
    ]
    assert list(run.folds_summary.columns) == [
        "candidate",
        "model",
        "fold",
        "seed",
        "state",
        "n_train",
        "n_validation",
        "n_fold",
        *metric_names(CLASSES),
    ]
    assert list(run.models_summary.columns) == [
        "candidate",
        "model",
        "folds_done",
        "folds_missing",
        *(
            f"{metric}_{kind}"
            for metric in HEADLINE
            for kind in ("mean", "std", "oof", "test_mean", "test_ensemble")
        ),
    ]


def test_every_cell_is_a_row(run: Run) -> None:
    for table in (run.cells, run.folds_summary):
        assert len(table) == 12
        assert not table.duplicated(IDENTITY).any()
        assert set(table["candidate"]) == {"good-one", "poor"}
    assert run.cells["state"].value_counts().to_dict() == {"done": 9, "missing": 2, "failed": 1}


def test_cells_say_what_happened_and_what_it_cost(run: Run) -> None:
    done = row(run.cells, candidate="good-one", fold=0, seed=7)
    assert (done["state"], done["epochs"], done["best_epoch"], done["attempts"]) == (
        "done",
        2,
        2,
        1,
    )
    assert (done["seconds_train"], done["seconds_total"]) == (3, 15)
    assert (done["peak_memory_mb"], done["host"], done["device"]) == (123.5, "node1", "CPU")
    failed = row(run.cells, candidate="poor", fold=1, seed=0)
    assert (failed["state"], failed["reason"], failed["attempts"]) == ("failed", "it broke", 2)
    assert pd.isna(failed["best_epoch"])
    assert run.failures() == [
        {
            "candidate": "poor",
            "model": "DenseNet121",
            "fold": 1,
            "seed": 0,
            "reason": "it broke",
            "traceback": "Traceback\n  here",
        }
    ]


def test_candidates_carry_their_settings(run: Run) -> None:
    good, poor = (row(run.candidates, id=identity) for identity in ("good-one", "poor"))
    assert (good["name"], good["model"], good["image_size"], good["parameters"]) == (
        "Good one",
        "TinyCNN",
        64,
        1000,
    )
    assert (poor["batch_size"], poor["augmentation_flip"], poor["epochs"]) == (3, True, 4)


# --- numbers --------------------------------------------------------------------------------------


def auc(positive: list[float], negative: list[float]) -> float:
    """The share of pairs in the right order: the definition."""
    pairs = [(p > n) + 0.5 * (p == n) for p in positive for n in negative]
    return float(np.mean(pairs))


def test_a_fold_is_scored_on_itself_alone(run: Run) -> None:
    for fold, (ill, well) in enumerate(LEVELS[0]):
        found = row(run.folds_summary, candidate="good-one", fold=fold, seed=0)
        assert found["auc"] == 1
        assert found["accuracy"] == ((ill > 0.5) + (well < 0.5)) / 2
        assert found["brier"] == pytest.approx(((1 - ill) ** 2 + well**2) / 2)
        counts = run.folds.query("fold == @fold")["role"].value_counts()
        assert (found["n_train"], found["n_validation"], found["n_fold"]) == (
            counts["train"],
            counts["validation"],
            counts["fold"],
        )
        assert counts["test"] == 6


def test_mean_and_spread_are_over_cells_and_oof_is_pooled(run: Run) -> None:
    summary = row(run.models_summary, candidate="good-one")
    assert (summary["folds_done"], summary["folds_missing"]) == (6, 0)
    accuracies = [0.5, 0.5, 1.0, 0.5, 0.5, 0.5]
    assert summary["accuracy_mean"] == pytest.approx(np.mean(accuracies))
    assert summary["accuracy_std"] == pytest.approx(np.std(accuracies, ddof=1))
    assert summary["auc_mean"] == 1
    assert summary["auc_std"] == 0
    sizes = run.folds_summary.query("candidate == 'good-one' and seed == 0").set_index("fold")[
        "n_fold"
    ]
    # So that a mean over folds and a pooled accuracy are not the same number.
    assert sizes.nunique() > 1
    pooled = (sizes[0] / 2 + sizes[1] / 2 + sizes[2]) / sizes.sum()
    assert summary["accuracy_oof"] == pytest.approx((pooled + 0.5) / 2)
    areas = []
    for levels in LEVELS.values():
        positive = [ill for fold, (ill, _) in enumerate(levels) for _ in range(sizes[fold] // 2)]
        negative = [well for fold, (_, well) in enumerate(levels) for _ in range(sizes[fold] // 2)]
        areas.append(auc(positive, negative))
    assert areas[0] != areas[1]
    assert summary["auc_oof"] == pytest.approx(np.mean(areas))
    assert summary["auc_oof"] < 0.95


def test_the_ensemble_averages_probabilities(run: Run) -> None:
    summary = row(run.models_summary, candidate="good-one")
    assert summary["accuracy_test_mean"] == pytest.approx(5 / 6)  # every model errs once
    assert summary["accuracy_test_ensemble"] == 1  # but each on another image
    wrong = (5 * 0.1 + 0.6) / 6  # mean probability of the wrong class, the same for every image
    assert summary["brier_test_ensemble"] == pytest.approx(wrong**2)
    assert summary["brier_test_mean"] == pytest.approx((5 * 0.1**2 + 0.6**2) / 6)


def test_several_seeds_are_pooled_each_by_itself(run: Run) -> None:
    """The out-of-fold value is the mean over seeds of a pooled value, not the value of doubled
    images.
    """
    predictions = run.predictions.query("candidate == 'good-one' and split == 'fold'")
    per_seed = []
    for seed in (0, 7):
        part = predictions[predictions["seed"] == seed]
        assert part["image"].is_unique
        labels = part["label"].map({ILL: 0, WELL: 1}).to_numpy(dtype=np.int64)
        per_seed.append(
            score(labels, part[[f"prob_{name}" for name in CLASSES]].to_numpy(), CLASSES)["mcc"]
        )
    assert row(run.models_summary, candidate="good-one")["mcc_oof"] == pytest.approx(
        np.mean(per_seed)
    )


def test_nothing_is_averaged_over_what_is_missing(run: Run) -> None:
    summary = row(run.models_summary, candidate="poor")
    assert (summary["folds_done"], summary["folds_missing"]) == (3, 3)
    assert summary.drop(["candidate", "model", "folds_done", "folds_missing"]).isna().all()
    for fold, seed in ((1, 0), (0, 7), (2, 7)):
        assert (
            row(run.folds_summary, candidate="poor", fold=fold, seed=seed)[metric_names(CLASSES)]
            .isna()
            .all()
        )
    assert row(run.folds_summary, candidate="poor", fold=0, seed=0)["auc"] == 1


def test_predictions_hold_every_image_of_every_done_cell(run: Run) -> None:
    assert not run.predictions.duplicated([*IDENTITY, "image"]).any()
    for cell, part in run.predictions.groupby(IDENTITY):
        own = run.folds[run.folds["fold"] == cell[1]].set_index("image")
        assert set(part["image"]) == set(own.index[own["role"].isin(["fold", "test"])])
        assert (part["split"].to_numpy() == own.loc[part["image"], "role"].to_numpy()).all()
    done = set(map(tuple, run.cells.query("state == 'done'")[IDENTITY].to_numpy()))
    assert (
        set(map(tuple, run.predictions[IDENTITY].to_numpy()))
        == done
        == set(map(tuple, run.epochs[IDENTITY].to_numpy()))
    )


def test_groups_that_were_renamed_have_their_present_name(by_hand: Path, tmp_path: Path) -> None:
    """A name decides no result, so the cells stay done: their own tables still say what the group
    was called.
    """
    layout = copied(by_hand, tmp_path / "run")
    folds = pd.read_parquet(layout.folds)
    folds["group"] = "renamed " + folds["group"]
    folds.to_parquet(layout.folds)
    written = load_run(by_hand).predictions
    predictions = load_run(layout.root).predictions
    assert len(predictions) > 0
    assert list(predictions["group"]) == list("renamed " + written["group"])


def test_ensemble_of_one_is_the_model_itself() -> None:
    table = pd.DataFrame(
        {"image": ["b", "a"], "label": ["x", "y"], "prob_x": [0.25, 0.5], "prob_y": [0.75, 0.5]}
    )
    expected = table.sort_values("image", ignore_index=True)
    pd.testing.assert_frame_equal(ensemble_predictions(table), expected)
    twice = pd.concat([table, table.assign(prob_x=[0.75, 0.5], prob_y=[0.25, 0.5])])
    assert list(ensemble_predictions(twice)["prob_x"]) == [0.5, 0.5]


# --- on disk --------------------------------------------------------------------------------------


def test_csv_and_parquet_agree(run: Run) -> None:
    run.save_tables()
    for name in TABLES:
        table = getattr(run, name)
        parquet = pd.read_parquet(run.layout.results / f"{name}.parquet")
        csv = pd.read_csv(run.layout.results / f"{name}.csv")
        pd.testing.assert_frame_equal(parquet, table, check_exact=True)
        assert list(csv.columns) == list(parquet.columns)
        assert len(csv) == len(parquet)
        for column in csv.columns:
            if pd.api.types.is_numeric_dtype(parquet[column]):
                np.testing.assert_array_equal(
                    csv[column].to_numpy(float), parquet[column].to_numpy(float, na_value=np.nan)
                )
            else:
                assert list(csv[column].fillna("")) == list(parquet[column].fillna(""))
    assert {path.suffix for path in run.layout.results.iterdir()} == {".csv", ".parquet"}


def copied(run: Path, to: Path) -> RunLayout:
    shutil.copytree(run, to)
    return RunLayout(to)


def test_a_run_is_running_while_its_lock_is_held(
    command: Command, by_hand: Path, tmp_path: Path
) -> None:
    layout = copied(by_hand, tmp_path / "run")
    with FileLock(layout.lock):
        found = row(load_run(layout.root).cells, candidate="poor", fold=2, seed=7)
        assert (found["state"], found["reason"], found["epochs"]) == ("running", "", 3)
        said = command("status", layout.root)[1]
        assert "by-hand: 12 cells: " in said
        assert "1 running" in said
    found = row(load_run(layout.root).cells, candidate="poor", fold=2, seed=7)
    assert (found["state"], found["reason"]) == ("missing", "interrupted after epoch 3")
    with FileLock(layout.xai_lock):
        assert "; explaining\n" in command("status", layout.root)[1]
    assert "nobody is at work" in command("status", layout.root)[1]


def test_a_torn_entry_is_missing_everywhere(by_hand: Path, tmp_path: Path) -> None:
    layout = copied(by_hand, tmp_path / "run")
    key = row(load_run(layout.root).cells, candidate="good-one", fold=1, seed=7)["key"]
    path = layout.ledger / key / "predictions.parquet"
    path.write_bytes(path.read_bytes()[:-5])
    run = load_run(layout.root)
    found = row(run.cells, candidate="good-one", fold=1, seed=7)
    assert found["state"] == "missing"
    assert "predictions.parquet is damaged" in found["reason"]
    summary = row(run.models_summary, candidate="good-one")
    assert (summary["folds_done"], summary["folds_missing"]) == (5, 1)
    assert np.isnan(summary["auc_mean"])
    run.save_tables()


def test_a_run_in_which_nothing_is_done_has_tables_too(by_hand: Path, tmp_path: Path) -> None:
    layout = copied(by_hand, tmp_path / "run")
    for state in layout.ledger.glob("*/state.json"):
        state.unlink()
    run = load_run(layout.root)
    run.save_tables()
    assert set(run.cells["state"]) == {"missing"}
    assert run.predictions.empty
    assert run.epochs.empty
    assert list(run.models_summary["folds_missing"]) == [6, 6]
    assert run.models_summary["auc_oof"].isna().all()
    assert len(pd.read_csv(layout.results / "folds_summary.csv")) == 12


def test_the_tables_do_not_depend_on_the_order_of_the_ledger(
    by_hand: Path, tmp_path: Path, run: Run
) -> None:
    layout = copied(by_hand, tmp_path / "run")
    keys = json.loads(layout.cells.read_text("utf-8"))
    layout.cells.write_text(json.dumps(keys[::-1]), encoding="utf-8")
    pd.testing.assert_frame_equal(
        load_run(layout.root).models_summary, run.models_summary, check_exact=False
    )


def test_candidates_can_be_named_by_id_or_name(run: Run) -> None:
    assert run.candidate_id("Good one") == run.candidate_id("good-one") == "good-one"
    with pytest.raises(RunFolderError, match="the run has no candidate 'bad'; there are "):
        run.candidate_id("bad")


def test_only_done_cells_have_a_model(run: Run) -> None:
    assert run.entry("poor", 0).spec.seed == 0
    assert run.entry("poor", 0, 0).spec == run.entry("poor", 0).spec
    with pytest.raises(RunFolderError, match="poor fold 1 seed 0 is not done"):
        run.entry("poor", 1)
    with pytest.raises(RunFolderError, match="fold 9"):
        run.entry("poor", 9)


@pytest.mark.parametrize(
    "name", ["experiment.yaml", "manifest.parquet", "folds.parquet", "cells.json"]
)
def test_a_folder_without_its_parts_is_no_run(by_hand: Path, tmp_path: Path, name: str) -> None:
    layout = copied(by_hand, tmp_path / "run")
    (layout.root / name).unlink()
    with pytest.raises(RunFolderError, match=f"has no {name}"):
        load_run(layout.root)


def test_a_damaged_manifest_is_one_line(by_hand: Path, tmp_path: Path) -> None:
    layout = copied(by_hand, tmp_path / "run")
    layout.manifest.write_bytes(b"PAR1")
    with pytest.raises(RayfoldError, match=r"manifest.parquet.* again to re"):
        load_run(layout.root).save_tables()


@pytest.mark.parametrize("name", ["spec.json", "predictions.parquet", "state.json"])
def test_a_damaged_cell_is_missing_and_the_others_are_not(
    by_hand: Path, tmp_path: Path, name: str
) -> None:
    layout = copied(by_hand, tmp_path / "run")
    keys = json.loads(layout.cells.read_text("utf-8"))
    layout.cells.write_text(json.dumps(keys[::-1]), encoding="utf-8")
    (layout.ledger / keys[0] / name).write_bytes(b"PAR1")
    damaged = load_run(layout.root)
    damaged.save_tables()
    cell = row(damaged.cells, candidate="good-one", fold=0, seed=0)
    assert (cell["state"], cell["key"]) == ("missing", keys[0])
    assert name in cell["reason"]
    assert (damaged.cells["state"] == "done").sum() == 8
    assert list(damaged.models_summary["folds_missing"]) == [1, 3]


@pytest.mark.parametrize(
    ("fold", "reason"), [(0, "no prediction is called 'neither'"), (1, "are not those of its fold")]
)
def test_a_table_that_is_none_of_a_cell_s_makes_the_cell_missing(
    by_hand: Path, tmp_path: Path, fold: int, reason: str
) -> None:
    layout = copied(by_hand, tmp_path / "run")
    entry = load_run(layout.root).entry("good-one", 0)
    table = load_run(layout.root).entry("good-one", fold).predictions()
    entry.finish(
        entry.state(), entry.epochs(), table if fold else table.assign(prediction="neither")
    )
    damaged = load_run(layout.root)
    assert (damaged.cells["state"] == "done").sum() == 9
    damaged.save_tables()
    assert reason in row(damaged.cells, candidate="good-one", fold=0, seed=0)["reason"]
    assert set(damaged.epochs["fold"].groupby(damaged.epochs["candidate"]).size()) == {10, 6}


FOLDS = {
    "roles": lambda t: t.assign(role=t["role"].replace("train", "test")),
    "labels": lambda t: t.assign(label=WELL),
    "images": lambda t: t.assign(image="z"),
    "rows": lambda t: t.iloc[1:],
}


@pytest.mark.parametrize("case", FOLDS)
def test_folds_that_are_not_those_of_the_cells_are_one_line(
    by_hand: Path, tmp_path: Path, case: str
) -> None:
    layout = copied(by_hand, tmp_path / "run")
    FOLDS[case](pd.read_parquet(layout.folds)).to_parquet(layout.folds, index=False)
    with pytest.raises(RunFolderError, match="not those of the cells"):
        load_run(layout.root).save_tables()


def test_a_manifest_of_other_labels_is_one_line(by_hand: Path, tmp_path: Path) -> None:
    layout = copied(by_hand, tmp_path / "run")
    manifest = Manifest.load(layout.manifest)
    replace(manifest, table=manifest.table.assign(label=WELL)).save(layout.manifest)
    with pytest.raises(RunFolderError, match="not those of the cells"):
        load_run(layout.root).save_tables()


def test_an_experiment_that_is_not_that_of_the_cells_is_one_line(
    by_hand: Path, tmp_path: Path
) -> None:
    shutil.copytree(by_hand, tmp_path / "run")
    path = tmp_path / "run" / "experiment.yaml"
    text = path.read_text("utf-8")
    assert "epochs: 4" in text
    path.write_text(text.replace("epochs: 4", "epochs: 500"), encoding="utf-8")
    with pytest.raises(RunFolderError, match="its candidates are not those of the cells"):
        load_run(tmp_path / "run").models_summary  # noqa: B018


def test_a_patient_in_two_parts_is_one_line(by_hand: Path, tmp_path: Path) -> None:
    shutil.copytree(by_hand, tmp_path / "run")
    path = tmp_path / "run" / "folds.parquet"
    folds = pd.read_parquet(path)
    first = folds[folds["fold"] == 0].drop_duplicates("role").index
    folds.loc[first, "group"] = "one patient"
    folds.to_parquet(path)
    with pytest.raises(RunFolderError, match="a group stands in two parts of one fold"):
        load_run(tmp_path / "run").folds  # noqa: B018


def test_a_state_of_other_epochs_makes_the_cell_missing(by_hand: Path, tmp_path: Path) -> None:
    shutil.copytree(by_hand, tmp_path / "run")
    run = load_run(tmp_path / "run")
    epochs = len(run.epochs)
    entry = run.entry("good-one", 0)
    entry.update(epochs=300, best_epoch=2)
    changed = load_run(tmp_path / "run")
    assert len(changed.epochs) == epochs - 2
    assert "other epochs than epochs.parquet" in " ".join(changed.cells["reason"])
