"""The study's three models train real steps, survive an interruption, and predict the same once
reloaded.
"""

from pathlib import Path

import keras
import numpy as np
import pytest

from tests.conftest import write_images
from tests.trainables.training.test_worker import prepared_run, work
from trainables.core.input_format import InputFormat
from trainables.core.ledger import Entry
from trainables.pictures.picture import resize
from trainables.pictures.readers import read_image

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

EXPERIMENT = """
name: big
data: {{source: folder, path: {path!r}}}
folds: {{k: 2, test_set: 0.2, validation_fraction: 0.2}}
training: {{epochs: {epochs}, batch_size: {batch}, learning_rate: 1.0e-3}}
candidates:
  - {{name: plain, model: {model}, image_size: {size}}}
"""


def train(folder: Path, data: Path, model: str, size: int, batch: int, epochs: int) -> Entry:
    text = (
        EXPERIMENT.replace("{size}", str(size))
        .replace("{batch}", str(batch))
        .replace("{epochs}", str(epochs))
    )
    entry = prepared_run(folder, data, model, text=text)["plain", 0]
    if epochs > 1:
        work([entry], stop=1, expected=9, suspend=True)
        assert entry.resume_path.exists()
    work([entry])
    assert entry.state().state == "done", entry.state()
    assert entry.state().epochs == epochs
    return entry


def predicts_the_same_when_reloaded(entry: Entry, data: Path, size: int) -> None:
    predictions = entry.predictions()
    images = np.stack(
        [resize(read_image(data / image), InputFormat(size), 1) for image in predictions["image"]]
    )
    model = keras.saving.load_model(entry.model_path, compile=False, safe_mode=True)
    reloaded = model.predict(images.astype("float32"), batch_size=2, verbose=0)
    assert np.allclose(reloaded, predictions[["prob_Clear", "prob_Spot"]], atol=1e-5)


@pytest.mark.parametrize("model", ["EfficientNetB0", "EfficientNetV2B0"])
def test_trains_resumes_and_reloads_at_a_small_size(tmp_path: Path, model: str) -> None:
    data = write_images(tmp_path / "data", per_class=12)
    entry = train(tmp_path / "run", data, model, size=64, batch=4, epochs=2)
    predicts_the_same_when_reloaded(entry, data, 64)


def test_b7_trains_at_its_own_size(tmp_path: Path) -> None:
    data = write_images(tmp_path / "data", per_class=5, size=64)
    entry = train(tmp_path / "run", data, "EfficientNetB7", size=600, batch=2, epochs=1)
    predicts_the_same_when_reloaded(entry, data, 600)
