"""The mean of the best epochs' weights: of those weights by hand, and the same after an
interruption.
"""

from pathlib import Path

import keras
import numpy as np

from tests.trainables.training.test_worker import prepared_run, same_result
from trainables.core.ledger import Entry
from trainables.training import checkpoint
from trainables.training.worker import Worker

TEXT = """
name: soup
data: {{source: folder, path: {path!r}}}
folds: {{k: 2}}
training: {{epochs: 5, early_stopping: null, learning_rate: 3e-3, ema: 0.9, {training}}}
candidates: [{{name: plain, model: TinyCNN, image_size: 32}}]
"""


def test_a_soup_is_the_mean_of_its_epochs(spots: Path, tmp_path: Path) -> None:
    whole, broken = (
        prepared_run(tmp_path / name, spots, training="soup: 3", text=TEXT)["plain", 0]
        for name in ("whole", "broken")
    )
    worker, weights = Worker(0), {}
    cell = worker.open(tmp_path / "whole", whole.spec.key, 0.0)
    while not cell.done:
        epoch = cell.advance()["epoch"]
        with cell._session.scoring():
            weights.setdefault(epoch, cell._session.weights())
    best = whole.epochs().sort_values("validation_loss", kind="stable")["epoch"][:3]
    assert whole.state().best_epoch == best.iloc[0]
    sums = [sum(map(np.float64, each)) for each in zip(*(weights[i] for i in best), strict=True)]
    for saved, total in zip(_saved(whole), sums, strict=True):
        np.testing.assert_allclose(saved, total / 3, rtol=1e-6, atol=1e-9)
        assert saved.dtype == np.float32
    for _ in range(4):
        cell = worker.open(tmp_path / "broken", broken.spec.key, 0.0)
        cell.advance()
        cell.suspend()
    state = checkpoint.load(broken.resume_path)
    assert state is not None
    assert len(state.kept) == 3
    while not cell.done:
        cell.advance()
    same_result(whole, broken)
    for one, other in zip(_saved(whole), _saved(broken), strict=True):
        assert np.array_equal(one, other)


def _saved(entry: Entry) -> list[np.ndarray]:
    model = keras.saving.load_model(entry.model_path, compile=False)
    return model.get_weights()  # type: ignore[no-any-return]
