"""A cell is done only when all of it is there; what a crash tore is told and computed again."""

import ast
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.conftest import ROOT
from trainables.core.config import Candidate, CellSpec
from trainables.core.errors import RunFolderError
from trainables.core.ledger import CellState, Entry, Seconds, Stopwatch, read_entry
from trainables.core.training_config import Training, unused
from trainables.core.training_sections import STRENGTHS, Augmentation
from trainables.core.values import digest

SPEC = CellSpec(
    candidate=Candidate(
        id="small", name="Small", model="TinyCNN", image_size=32, training=Training()
    ),
    fold=1,
    seed=2,
    classes=("a", "b"),
    channels=1,
    data_hash="d",
    roles_hash="r",
)
FILES = ("epochs.parquet", "predictions.parquet", "model.keras")


def write_model(path: Path, weights: bytes = b"a model") -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model.weights.h5", weights)


def finished(folder: Path, spec: CellSpec = SPEC) -> Entry:
    entry = Entry(folder, spec)
    entry.create()
    write_model(entry.model_path)
    entry.resume_path.write_bytes(b"where to go on")
    numbers = (
        "train_accuracy",
        "validation_loss",
        "validation_accuracy",
        "validation_auc",
        "learning_rate",
        "seconds",
    )
    epochs = pd.DataFrame(
        {"epoch": [1, 2], "train_loss": [0.7, np.nan], **dict.fromkeys(numbers, 0.5)}
    )
    facts = {
        "label": ["a", "b"],
        "group": ["g", "h"],
        "split": "fold",
        "prob_a": [0.1 + 0.2, 1e-300],
        "prob_b": [0.7, 1.0],
    }
    predictions = pd.DataFrame(
        {"image": ["ü\n'x'.png", "b.png"], **facts, "prediction": ["b", "b"]}
    )
    entry.finish(CellState(attempts=1, epochs=2, best_epoch=1), epochs, predictions)
    return entry


def changed(**fields: Any) -> CellSpec:
    return SPEC.model_copy(update=fields)


def with_candidate(**fields: Any) -> CellSpec:
    return changed(candidate=SPEC.candidate.model_copy(update=fields))


# --- done, and not done ---------------------------------------------------------------------------


def test_a_finished_cell_reads_back_exactly(tmp_path: Path) -> None:
    finished(tmp_path)
    entry = read_entry(tmp_path / SPEC.key)
    assert entry.spec == SPEC
    state = entry.state()
    assert (state.state, state.attempts, state.epochs, state.best_epoch, state.reason) == (
        "done",
        1,
        2,
        1,
        "",
    )
    assert list(entry.predictions()["prob_a"]) == [0.1 + 0.2, 1e-300]
    assert list(entry.predictions()["image"]) == ["ü\n'x'.png", "b.png"]
    assert np.isnan(entry.epochs()["train_loss"][1])
    assert not entry.resume_path.exists()
    assert state.updated.endswith("+00:00")
    assert sorted(p.name for p in entry.folder.iterdir()) == sorted(
        [*FILES, "spec.json", "state.json"]
    )


def test_nothing_but_the_state_makes_it_done(tmp_path: Path) -> None:
    entry = finished(tmp_path)
    (entry.folder / "state.json").unlink()
    assert entry.state() == CellState(state="missing")


def test_an_entry_that_was_only_created_is_missing(tmp_path: Path) -> None:
    entry = Entry(tmp_path, SPEC)
    assert entry.state().state == "missing"
    entry.create()
    assert entry.state().state == "missing"


def test_the_state_is_written_last(tmp_path: Path) -> None:
    """Without a model in place nothing can be finished, and nothing looks finished."""
    entry = Entry(tmp_path, SPEC)
    entry.create()
    with pytest.raises(FileNotFoundError):
        entry.finish(CellState(), pd.DataFrame({"epoch": [1]}), pd.DataFrame({"image": ["a"]}))
    assert entry.state().state == "missing"


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        *((name, damage) for name in FILES for damage in ("delete", "truncate", "empty", "append")),
        *((name, "flip") for name in FILES[:2]),  # of models only the size is looked at
    ],
)
def test_a_torn_file_makes_the_cell_missing_and_says_so(
    tmp_path: Path, name: str, damage: str
) -> None:
    entry = finished(tmp_path)
    path = entry.folder / name
    content = path.read_bytes()
    if damage == "delete":
        path.unlink()
    elif damage == "flip":
        path.write_bytes(content[:40] + bytes([content[40] ^ 1]) + content[41:])
    else:
        path.write_bytes({"truncate": content[:-1], "empty": b"", "append": content + b"x"}[damage])
    state = entry.state()
    assert state.state == "missing"
    assert name in state.reason
    assert state.attempts == 1  # what was tried stays known


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b'{"state": "done"',
        b"null",
        b"[]",
        b'"done"',
        b'{"state": "finished"}',
        b'{"unknown": 1}',
        b"\xff\xfe",
    ],
)
def test_a_damaged_state_is_no_state(tmp_path: Path, content: bytes) -> None:
    entry = finished(tmp_path)
    (entry.folder / "state.json").write_bytes(content)
    state = entry.state()
    assert state.state == "missing"
    assert "state.json is damaged" in state.reason


def test_done_without_digests_is_not_believed(tmp_path: Path) -> None:
    entry = finished(tmp_path)
    (entry.folder / "state.json").write_text('{"state": "done"}', encoding="utf-8")
    assert entry.state().state == "missing"


def test_what_was_missing_can_be_finished_again(tmp_path: Path) -> None:
    entry = finished(tmp_path)
    (entry.folder / "predictions.parquet").write_bytes(b"torn")
    again = finished(tmp_path)
    assert again.state().state == "done"
    assert len(again.predictions()) == 2


def test_a_failure_keeps_what_is_known(tmp_path: Path) -> None:
    entry = Entry(tmp_path, SPEC)
    entry.create()
    entry.write_state(
        CellState(state="running", attempts=2, epochs=4, host="node7", peak_memory_mb=12.5)
    )
    state = entry.update(state="failed", reason="it broke", traceback="Traceback\n  …")
    assert state == entry.state()
    assert (state.state, state.attempts, state.epochs, state.host, state.reason) == (
        "failed",
        2,
        4,
        "node7",
        "it broke",
    )


def test_finishing_clears_an_earlier_failure(tmp_path: Path) -> None:
    entry = Entry(tmp_path, SPEC)
    entry.create()
    write_model(entry.model_path, b"m")
    failed = CellState(state="failed", reason="it broke", traceback="Traceback")
    entry.finish(failed, pd.DataFrame({"epoch": [1]}), pd.DataFrame({"image": ["a"]}))
    assert (entry.state().state, entry.state().reason, entry.state().traceback) == ("done", "", "")


def test_update_refuses_what_is_no_field(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="extra"):
        Entry(tmp_path, SPEC).update(sate="failed")


# --- the specification ----------------------------------------------------------------------------


def test_a_renamed_candidate_keeps_its_cells_under_the_new_name(tmp_path: Path) -> None:
    finished(tmp_path)
    renamed = with_candidate(id="tiny", name="Tiny")
    entry = Entry(tmp_path, renamed)
    entry.create()
    assert entry.state().state == "done"
    assert read_entry(tmp_path / SPEC.key).spec.candidate.name == "Tiny"


def test_creating_again_changes_no_byte(tmp_path: Path) -> None:
    entry = finished(tmp_path)
    before = (entry.folder / "spec.json").stat()
    entry.create()
    after = (entry.folder / "spec.json").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


@pytest.mark.parametrize("content", [None, b"", b"{}", b"\xff", b"[1"])
def test_a_damaged_specification_is_an_error_and_can_be_restored(
    tmp_path: Path, content: bytes | None
) -> None:
    entry = finished(tmp_path)
    path = entry.folder / "spec.json"
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(RunFolderError, match=r"spec\.json: run the experiment again"):
        read_entry(entry.folder)
    entry.create()
    assert read_entry(entry.folder).state().state == "done"


# --- the key --------------------------------------------------------------------------------------


def test_what_a_candidate_is_called_does_not_matter() -> None:
    assert with_candidate(id="other", name="Other").key == SPEC.key


OTHER_CELL = {
    "fold": 0,
    "seed": 0,
    "classes": ("b", "a"),
    "channels": 3,
    "data_hash": "e",
    "roles_hash": "s",
    "weights_hash": "w",
    "builder_hash": "b",
    "version": SPEC.version + 1,
}
OTHER_CANDIDATE = {"model": "ResNet50", "image_size": 33, "arguments": {"width": 1}}
#: Another value than the default for each setting that came later.
OTHER_LATER = {
    "momentum": 0.5,
    "nesterov": True,
    "beta_1": 0.8,
    "beta_2": 0.9,
    "epsilon": 1e-3,
    "weight_decay": 0.1,
    "clip_norm": 1.0,
    "effective_batch": 32,
    "ema": 0.9,
    "schedule": {
        "kind": "cosine",
        "warmup_epochs": 1.5,
        "final": 0.1,
        "factor": None,
        "patience": None,
    },
    "min_improvement": 0.1,
    "sampling": "class",
    "loss": {"kind": "focal", "gamma": 1.0, "tau": None, "label_smoothing": 0.1},
    "mix": {"kind": "mixup", "alpha": 0.5},
    "test_time_augmentation": "flip",
    "frozen_until": "block5",
    "thaw_every": 2,
    "layer_decay": 0.8,
    "soup": 3,
    "head": {"pooling": "gem", "hidden": 8},
    "backbone_dropout": 0.1,
    "stochastic_depth": 0.1,
    "input": {"fit": "pad", "pad_value": 9, "normalization": "per_image", "depth": 16},
}
OTHER_TRAINING = {
    "epochs": 31,
    "batch_size": 17,
    "optimizer": "sgd",
    "learning_rate": 3e-4,
    **OTHER_LATER,
    "monitor": "auc",
    "early_stopping": None,
    "weights": "imagenet",
    "frozen_epochs": 1,
    "fine_tune_learning_rate": 1e-5,
    "dropout": 0.3,
    "batch_norm_momentum": 0.9,
    "class_weights": "balanced",
    "precision": "bfloat16",
    "xla": True,
}
OTHER_AUGMENTATION = {
    **{"flip": True, "rotation": 1.0, "zoom": 0.1, "vertical_flip": True, "fill": "reflect"},
    **dict.fromkeys(STRENGTHS, 0.5),
}


@pytest.mark.parametrize("field", [name for name in CellSpec.model_fields if name != "candidate"])
def test_every_other_field_of_a_cell_does(field: str) -> None:
    assert changed(**{field: OTHER_CELL[field]}).key != SPEC.key


@pytest.mark.parametrize(
    "field", [name for name in Candidate.model_fields if name not in ("id", "name", "training")]
)
def test_every_other_field_of_a_candidate_does(field: str) -> None:
    assert with_candidate(**{field: OTHER_CANDIDATE[field]}).key != SPEC.key


@pytest.mark.parametrize(
    "field", [name for name in Training.model_fields if name != "augmentation"]
)
def test_every_training_field_does(field: str) -> None:
    base = {"frozen_epochs": 2}  # without a frozen phase fine_tune_learning_rate decides nothing
    other = with_candidate(training=Training(**{**base, field: OTHER_TRAINING[field]}))
    assert other.key != with_candidate(training=Training(**base)).key


@pytest.mark.parametrize("field", Augmentation.model_fields)
def test_every_augmentation_does(field: str) -> None:
    base = {"rotation": 2.0}  # without something that moves an image, fill decides nothing
    key, other = (
        with_candidate(training=Training(augmentation=Augmentation(**values))).key
        for values in (base, {**base, field: OTHER_AUGMENTATION[field]})
    )
    assert key != other


def test_a_cell_that_uses_no_later_setting_keeps_its_key() -> None:
    """What was trained before a setting existed need not be trained again."""
    assert (SPEC.version, SPEC.key) == (3, "1e6c267cb6629086")


def test_cells_with_head_only_epochs_are_computed_anew() -> None:
    head_only = with_candidate(training=Training(frozen_epochs=2))
    assert head_only.key != head_only.model_copy(update={"version": 2}).key
    assert SPEC.key == SPEC.model_copy(update={"version": 2}).key


def test_the_key_survives_being_written_down() -> None:
    assert len(SPEC.key) == 16
    assert SPEC.key == CellSpec.model_validate_json(SPEC.model_dump_json()).key
    content = SPEC.model_dump(mode="json")
    shuffled = CellSpec.model_validate(dict(reversed(content.items())))
    assert shuffled.key == SPEC.key


# --- what lies about ------------------------------------------------------------------------------


def test_phases_add_up() -> None:
    watch = Stopwatch(Seconds(train=10, build=1))
    with watch("train"):
        pass
    with watch("score"):
        pass
    assert 10 < watch.seconds.train < 11
    assert watch.seconds.score > 0
    assert watch.seconds.build == 1
    assert watch.seconds.total == pytest.approx(sum(watch.seconds.model_dump().values()))
    assert watch.seconds.plus(start=2).start == 2


def test_a_phase_that_fails_counts_too() -> None:
    watch = Stopwatch()

    def fails() -> None:
        with watch("train"):
            raise KeyError

    with pytest.raises(KeyError):
        fails()
    assert watch.seconds.train > 0


def test_every_file_of_an_entry_is_plain(tmp_path: Path) -> None:
    entry = finished(tmp_path)
    json.loads((entry.folder / "state.json").read_text("utf-8"))
    json.loads((entry.folder / "spec.json").read_text("utf-8"))
    for name in ("epochs.parquet", "predictions.parquet"):
        assert (entry.folder / name).read_bytes()[:4] == b"PAR1"


def test_nothing_is_pickled() -> None:
    """One module may read pickles, through an unpickler that builds tensors and nothing else."""
    allowed = {"trainables/models/weights.py"}
    for path in [*(ROOT / "orchestrator").rglob("*.py"), *(ROOT / "trainables").rglob("*.py")]:
        tree = ast.parse(path.read_text("utf-8"))
        imported = {
            alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.Import)
            for alias in node.names
        }
        imported |= {
            str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)
        }
        names = {name.split(".")[0] for name in imported}
        called = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        if str(path.relative_to(ROOT)) in allowed:
            used = {
                node.attr
                for node in ast.walk(tree)
                if isinstance(node, ast.Attribute)
                and isinstance(node.value, ast.Name)
                and node.value.id == "pickle"
            }
            assert used <= {"Unpickler", "UnpicklingError"}
            assert "find_class" in {
                node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)
            }
        else:
            assert not names & {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}, (
                path
            )
        assert not called & {"to_pickle", "read_pickle"}, path
        for node in ast.walk(tree):
            if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
                assert isinstance(node.value, ast.Constant), path
                assert node.value.value is False, path


# --- what decides nothing -------------------------------------------------------------------------


def key_of(model: str = "TinyCNN", **training: Any) -> str:
    candidate = Candidate(
        id="c", name="C", model=model, image_size=32, training=Training(epochs=6, **training)
    )
    return changed(candidate=candidate).key


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"fine_tune_learning_rate": 0.1}, {}),
        ({"fine_tune_learning_rate": 0.1, "frozen_epochs": 6}, {"frozen_epochs": 6}),
        ({"fine_tune_learning_rate": 2e-4, "frozen_epochs": 2}, {"frozen_epochs": 2}),
        ({"frozen_epochs": 9}, {"frozen_epochs": 6}),
        ({"early_stopping": 6}, {"early_stopping": None}),
        ({"early_stopping": 4, "frozen_epochs": 2}, {"early_stopping": None, "frozen_epochs": 2}),
        ({"weights": "/here/a.weights.h5"}, {"weights": "/there/b.weights.h5"}),
        ({"model": "m:b", "dropout": 0.5}, {"model": "m:b"}),
    ],
)
def test_what_decides_nothing_does_not_count(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert key_of(**one) == key_of(**other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"fine_tune_learning_rate": 0.1, "frozen_epochs": 2}, {"frozen_epochs": 2}),
        ({"frozen_epochs": 5}, {"frozen_epochs": 6}),
        ({"early_stopping": 5}, {"early_stopping": None}),
        ({"early_stopping": 3, "frozen_epochs": 2}, {"early_stopping": None, "frozen_epochs": 2}),
        ({"weights": "a.weights.h5"}, {"weights": "a.h5"}),
        ({"weights": "a.keras"}, {"weights": "none"}),
        ({"dropout": 0.5}, {}),
    ],
)
def test_what_decides_counts(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert key_of(**one) != key_of(**other)


def test_entries_of_the_version_before_are_found_where_they_lie(tmp_path: Path) -> None:
    old = changed(
        version=1,
        candidate=SPEC.candidate.model_copy(update={"training": Training(early_stopping=99)}),
    )
    content = old.model_dump(mode="json")
    del content["candidate"]["id"], content["candidate"]["name"]
    # there were no later settings then
    training = old.candidate.training.model_dump(
        mode="json", exclude=unused([old.candidate.training])
    )
    content["candidate"]["training"] = training
    assert finished(tmp_path, old).folder.name == digest(content)
    assert read_entry(tmp_path / old.key).state().state == "done"
