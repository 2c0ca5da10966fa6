"""A resume state is read back exactly, or not at all."""

import json
import math
import zipfile
from pathlib import Path

import numpy as np
import pytest

from trainables.training import checkpoint
from trainables.training.checkpoint import TrainingState

EPOCHS = [
    {"epoch": 1, "train_loss": 0.1 + 0.2, "validation_auc": math.nan},
    {"epoch": 2, "train_loss": 1e-300, "validation_auc": 1.0},
]


def example() -> TrainingState:
    rng = np.random.default_rng(0)
    # More than ten arrays, of different types and ranks: their order must survive.
    state = [rng.random((3, index)).astype(np.float32) for index in range(12)]
    state += [
        np.array(7, np.int64),
        np.array([1, 2**32 - 1], np.uint32),
        np.zeros((0, 4), np.float16),
    ]
    kept = {epoch: [rng.random(5), rng.random((2, 2))] for epoch in (2, 1)}
    return TrainingState(EPOCHS, 2, -math.inf, {"train": 1.5}, state, kept)


def assert_same(one: TrainingState, two: TrainingState) -> None:
    np.testing.assert_equal(one.epochs, two.epochs)  # NaN is NaN
    assert (one.best_epoch, one.best_value, one.seconds) == (
        two.best_epoch,
        two.best_value,
        two.seconds,
    )
    assert list(one.kept) == list(two.kept)
    pairs = [(one.state, two.state), *zip(one.kept.values(), two.kept.values(), strict=True)]
    for mine, theirs in pairs:
        assert [(a.dtype, a.shape, a.tobytes()) for a in mine] == [
            (a.dtype, a.shape, a.tobytes()) for a in theirs
        ]


def test_every_bit_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "resume.npz"
    checkpoint.save(path, example())
    loaded = checkpoint.load(path)
    assert loaded is not None
    assert_same(loaded, example())


def test_weights_without_an_epoch_are_of_the_best(tmp_path: Path) -> None:
    """So they were written before there could be several."""
    path = tmp_path / "resume.npz"
    facts = {"epochs": EPOCHS[1:], "best_epoch": 2, "best_value": 0.5, "seconds": {}}
    stated = json.dumps(facts | {"arrays": ["best_00000", "best_00001", "state_00000"]}).encode()
    one, two, three = (np.array([value]) for value in (1.0, 2.0, 3.0))
    arrays = {"state_00000": one, "best_00000": two, "best_00001": three}
    np.savez(path, facts=np.frombuffer(stated, np.uint8), **arrays)
    loaded = checkpoint.load(path)
    assert loaded is not None
    assert_same(loaded, TrainingState(EPOCHS[1:], 2, 0.5, {}, [one], {2: [two, three]}))


def test_a_new_state_replaces_the_old(tmp_path: Path) -> None:
    path = tmp_path / "resume.npz"
    checkpoint.save(path, example())
    checkpoint.save(path, TrainingState())
    loaded = checkpoint.load(path)
    assert loaded is not None
    assert_same(loaded, TrainingState())
    assert [p.name for p in tmp_path.iterdir()] == ["resume.npz"]


def test_none_where_there_is_none(tmp_path: Path) -> None:
    assert checkpoint.load(tmp_path / "resume.npz") is None


@pytest.mark.parametrize("length", [0, 1, 4, 100, 0.5, 0.9, -1])
def test_a_torn_file_is_no_state(tmp_path: Path, length: float) -> None:
    path = tmp_path / "resume.npz"
    checkpoint.save(path, example())
    content = path.read_bytes()
    cut = int(len(content) * length) if isinstance(length, float) else length
    path.write_bytes(content[:cut])
    assert checkpoint.load(path) is None


def test_a_flipped_bit_is_never_believed(tmp_path: Path) -> None:
    """Wherever it flips, the file is refused or the state is the true one (not every byte of a zip
    carries content).
    """
    path = tmp_path / "resume.npz"
    checkpoint.save(path, example())
    content = path.read_bytes()
    refused = 0
    rng = np.random.default_rng(1)
    for position in rng.choice(len(content), 1500, replace=False):
        damaged = bytearray(content)
        damaged[position] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        loaded = checkpoint.load(path)
        if loaded is None:
            refused += 1
        else:
            assert_same(loaded, example())
    assert refused > 700


@pytest.mark.parametrize("name", ["facts.npy", "best_00001.npy"])
def test_other_archives_are_no_state(tmp_path: Path, name: str) -> None:
    path = tmp_path / "resume.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(name, b"text")
    assert checkpoint.load(path) is None


def test_pickled_objects_are_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "resume.npz"
    facts = np.frombuffer(
        b'{"epochs": [], "best_epoch": null, "best_value": 0, "seconds": {}, "arrays": ["state_00000"]}',
        np.uint8,
    )
    np.savez(path, facts=facts, state_00000=np.array([1.0]))
    assert checkpoint.load(path) is not None
    np.savez(path, facts=facts, state_00000=np.array([Path("x")], dtype=object))
    assert checkpoint.load(path) is None


@pytest.mark.parametrize("lost", ["state_00003.npy", "best_00001.npy"])
def test_a_state_that_lacks_an_array_is_none(tmp_path: Path, lost: str) -> None:
    """As where damage to the archive's directory hides it."""
    path = tmp_path / "resume.npz"
    checkpoint.save(path, example())
    with zipfile.ZipFile(path) as whole, zipfile.ZipFile(tmp_path / "less.npz", "w") as less:
        for name in whole.namelist():
            if name != lost:
                less.writestr(name, whole.read(name))
    assert checkpoint.load(tmp_path / "less.npz") is None
