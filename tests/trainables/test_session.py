"""The options of a session that are meant for GPUs: another precision, XLA. They are slow here, and must be right."""

import keras
import numpy as np
import pytest

from trainables.architecture import Architecture
from trainables.config import Augmentation
from trainables.session import Session

PLAIN = Architecture(
    model="TinyCNN",
    image_size=32,
    channels=1,
    n_classes=2,
    arguments={},
    weights="none",
    weights_hash=None,
    builder_hash=None,
    dropout=0.0,  # XLA draws from another generator
    batch_norm_momentum=None,
    optimizer="adam",
    augmentation=Augmentation(),
    precision="float32",
    xla=False,
)
RNG = np.random.default_rng(0)
LABELS = np.arange(16, dtype=np.int32) % 2
PIXELS = RNG.integers(0, 120, (16, 32, 32, 1)).astype(np.uint8)
PIXELS[LABELS == 1, 8:16, 8:16] += 100  # what there is to learn


def losses(session: Session, steps: int) -> list[float]:
    """The mean loss of each of some training steps from the session's first moment."""
    session.reset(0)
    session.set_learning_rate(3e-3)
    weights = np.ones(16, np.float32)
    return [float(session.train_step(PIXELS, LABELS, weights, False)[0]) / 16 for _ in range(steps)]


@pytest.fixture(scope="module")
def plain() -> Session:
    return Session(PLAIN, 0)


@pytest.mark.parametrize(("option", "tolerance"), [({"precision": "bfloat16"}, 0.05), ({"xla": True}, 1e-4)])
def test_it_learns_the_same_thing(plain: Session, option: dict[str, object], tolerance: float) -> None:
    session = Session(PLAIN.model_copy(update=option), 0)
    found = losses(session, 12)
    assert found[-1] < 0.5 * found[0]
    assert found[0] == pytest.approx(losses(plain, 1)[0], abs=tolerance)
    assert losses(session, 12) == found  # from the first moment again
    assert session.logits(PIXELS).dtype == np.float32


def test_bfloat16_keeps_weights_and_grey_levels_in_float32() -> None:
    session = Session(PLAIN.model_copy(update={"precision": "bfloat16"}), 0)
    assert {array.dtype for array in session.weights()} == {np.dtype(np.float32)}
    assert session.model.get_layer("conv1").compute_dtype == "bfloat16"
    assert session.model.get_layer("normalisation").compute_dtype == "float32"
    assert keras.config.dtype_policy().name == "float32"  # other sessions of the process are not touched


def test_a_saved_bfloat16_model_gives_its_session_s_probabilities(tmp_path: object) -> None:
    session = Session(PLAIN.model_copy(update={"precision": "bfloat16"}), 0)
    losses(session, 3)
    path = f"{tmp_path}/model.keras"
    session.probability_model().save(path)
    model = keras.saving.load_model(path, compile=False, safe_mode=True)
    expected = np.exp(session.logits(PIXELS).numpy())
    expected /= expected.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(model(PIXELS.astype(np.float32), training=False), expected, atol=1e-6)
