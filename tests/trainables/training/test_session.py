"""The options of a session that are meant for GPUs: another precision, XLA. They are slow here, and
must be right.
"""

import keras
import numpy as np
import pytest

from trainables.core.training_sections import Augmentation, ClassifierHead
from trainables.models import user_code
from trainables.models.architecture import Architecture
from trainables.training.session import Session

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


@pytest.mark.parametrize(
    ("option", "tolerance"), [({"precision": "bfloat16"}, 0.05), ({"xla": True}, 1e-4)]
)
def test_it_learns_the_same_thing(
    plain: Session, option: dict[str, object], tolerance: float
) -> None:
    session = Session(PLAIN.model_copy(update=option), 0)
    found = losses(session, 12)
    assert found[-1] < 0.5 * found[0]
    assert found[0] == pytest.approx(losses(plain, 1)[0], abs=tolerance)
    assert losses(session, 12) == found  # from the first moment again
    assert session.logits(PIXELS).dtype == np.float32


def test_eight_bit_images_train_alike_in_sixteen(plain: Session) -> None:
    wanted, logits = losses(plain, 3), plain.logits(PIXELS)
    deep = Session(PLAIN.model_copy(update={"depth": 16}), 0)
    deep.reset(0)
    deep.set_learning_rate(3e-3)
    pixels, weights = PIXELS * np.uint16(257), np.ones(16, np.float32)
    found = [float(deep.train_step(pixels, LABELS, weights, False)[0]) / 16 for _ in range(3)]
    assert found == wanted
    np.testing.assert_array_equal(deep.logits(pixels), logits)


@pytest.mark.parametrize(
    "option",
    [
        {"augmentation": Augmentation(rotation=10.0, rand_augment=1.0, equalization=1.0)},
        {"mix": "cutmix", "accumulates": True},
    ],
)
def test_what_xla_cannot_compile_stays_outside_of_it(option: dict[str, object]) -> None:
    found = [Session(PLAIN.model_copy(update={**option, "xla": xla}), 0) for xla in (False, True)]
    plain, compiled = (losses(session, 2) for session in found)
    assert compiled == pytest.approx(plain, abs=1e-3)


def test_bfloat16_keeps_weights_and_grey_levels_in_float32() -> None:
    session = Session(PLAIN.model_copy(update={"precision": "bfloat16"}), 0)
    assert {array.dtype for array in session.weights()} == {np.dtype(np.float32)}
    assert session.model.get_layer("conv1").compute_dtype == "bfloat16"
    assert session.model.get_layer("normalisation").compute_dtype == "float32"
    # Other sessions of the process are not touched.
    assert keras.config.dtype_policy().name == "float32"


def test_a_saved_bfloat16_model_gives_its_session_s_probabilities(tmp_path: object) -> None:
    session = Session(PLAIN.model_copy(update={"precision": "bfloat16"}), 0)
    losses(session, 3)
    path = f"{tmp_path}/model.keras"
    session.probability_model().save(path)
    model = keras.saving.load_model(path, compile=False, safe_mode=True)
    expected = np.exp(session.logits(PIXELS).numpy())
    expected /= expected.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(
        model(PIXELS.astype(np.float32), training=False), expected, atol=1e-6
    )


def test_views_are_all_ways_to_look_at_a_square(plain: Session) -> None:
    """Against NumPy's turns, whatever their order."""
    losses(plain, 3)
    for kind, turns in (("flip", 1), ("turns", 4)):
        session = Session(PLAIN.model_copy(update={"test_time_augmentation": kind}), 0)
        session.set_weights(plain.weights())
        ways = [np.rot90(PIXELS, number, (1, 2)) for number in range(turns)]
        ways += [way[:, :, ::-1] for way in ways]
        expected = np.mean([plain.logits(np.ascontiguousarray(way)) for way in ways], axis=0)
        np.testing.assert_allclose(session.logits(PIXELS), expected, atol=1e-5)
        assert np.abs(expected - plain.logits(PIXELS)).max() > 1e-3


# --- head-only epochs -----------------------------------------------------------------------------

HEADS = """
import keras
from keras import layers

def trunk(image):
    x = layers.Conv2D(4, 3, 2, name="low")(layers.Rescaling(1 / 255)(image))
    x = layers.BatchNormalization(name="low_norm")(x)
    x = layers.SpatialDropout2D(0.5)(x)
    return layers.Conv2D(4, 3, 2, activation="relu", name="high")(x)

def nested(input_shape, n_classes):
    image = keras.Input(input_shape)
    base = keras.Model(image, trunk(image), name="base")
    for name in ("low", "low_norm"):
        base.get_layer(name).trainable = False
    image = keras.Input(input_shape)
    return keras.Model(image, layers.Dense(n_classes, name="mine")(layers.GlobalAveragePooling2D()(base(image))))

def named(input_shape, n_classes):
    image = keras.Input(input_shape)
    x = layers.Dense(n_classes, name="mine")(layers.GlobalAveragePooling2D()(trunk(image)))
    return keras.Model(image, layers.Activation("linear", name="logits")(x))

def wrapped(input_shape, n_classes):
    return keras.Sequential([keras.Input(input_shape), named(input_shape, n_classes)])

def nested_head(input_shape, n_classes):
    image = keras.Input(input_shape)
    x = layers.GlobalAveragePooling2D()(trunk(image))
    head = keras.Sequential([keras.Input((4,)), layers.Dense(5, name="mine_too"), layers.Dense(n_classes, name="mine")])
    return keras.Model(image, head(x))

def with_dropout(input_shape, n_classes):
    image = keras.Input(input_shape)
    x = layers.Dropout(0.9, name="rests")(trunk(image))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 1, name="top")(x))
    return keras.Model(image, layers.Dense(n_classes, name="mine")(layers.Dropout(0.5)(x)))
"""


@pytest.fixture(scope="module", autouse=True)
def heads(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("heads")
    (folder / "head_models.py").write_text(HEADS)
    user_code.search_also(folder)


def moved(session: Session, head_only: bool) -> set[str]:
    """The layers whose weights change in two steps."""
    before = session.weights()
    for _ in range(2):
        session.train_step(PIXELS, LABELS, np.ones(16, np.float32), head_only)
    variables = zip(session.model.weights, before, strict=True)
    return {
        variable.path.split("/")[-2]
        for variable, value in variables
        if not np.array_equal(variable, value)
    }


@pytest.mark.parametrize("name", ["nested", "named", "wrapped", "nested_head"])
def test_head_only_steps_train_the_head_and_leave_the_rest_as_at_inference(name: str) -> None:
    session = Session(PLAIN.model_copy(update={"model": f"head_models:{name}"}), 0)
    flags = {layer.name: layer.trainable for layer in session.model._flatten_layers()}
    session.reset(0)
    session.set_learning_rate(0.0)
    weights = np.ones(16, np.float32)
    # Nothing random is left in the backbone, and its normalisation is the one of inference.
    same = {float(session.train_step(PIXELS, LABELS, weights, True)[0]) for _ in range(3)}
    logits = session.logits(PIXELS).numpy()
    expected = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(16), LABELS]
    assert list(same) == pytest.approx([expected.sum()], rel=1e-5)
    session.set_learning_rate(1e-2)
    assert moved(session, True) == ({"mine", "mine_too"} if name == "nested_head" else {"mine"})
    released = moved(session, False)
    assert {"mine", "high"} <= released
    # Its author has frozen them.
    assert ("low_norm" in released) == ("low" in released) == (name != "nested")
    assert {layer.name: layer.trainable for layer in session.model._flatten_layers()} == flags
    session.reset(0)
    again = {float(session.train_step(PIXELS, LABELS, weights, True)[0]) for _ in range(1)}
    assert again == same


@pytest.mark.parametrize(
    "change", [{"model": "head_models:with_dropout"}, {"dropout": 0.5}], ids=["builder", "zoo"]
)
def test_dropout_before_the_head_is_the_heads_and_other_dropout_rests(
    change: dict[str, object],
) -> None:
    session = Session(PLAIN.model_copy(update=change), 0)
    session.reset(0)
    session.set_learning_rate(0.0)
    weights = np.ones(16, np.float32)
    drawn = [float(session.train_step(PIXELS, LABELS, weights, True)[0]) for _ in range(64)]
    assert len(set(drawn)) > 32
    if "model" in change:  # of 0.9 the dropout at rest would leave a multiple of this
        logits = session.logits(PIXELS).numpy()
        expected = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(16), LABELS]
        assert np.mean(drawn) == pytest.approx(expected.sum(), rel=0.1)


@pytest.mark.parametrize(
    ("head", "learning"),
    [
        (ClassifierHead(pooling="gem"), {"gem", "logits"}),
        (ClassifierHead(pooling="attention", hidden=8), {"attention", "hidden", "logits"}),
    ],
    ids=["gem", "attention"],
)
def test_head_only_steps_train_every_part_of_a_head(
    head: ClassifierHead, learning: set[str]
) -> None:
    change = {"head": head, "backbone_dropout": 0.3, "precision": "bfloat16", "dropout": 0.3}
    session = Session(PLAIN.model_copy(update=change), 0)
    session.reset(0)
    session.set_learning_rate(1e-2)
    assert moved(session, True) == learning
    assert learning < moved(session, False)
    trained = session.state()
    assert all(np.isfinite(array).all() for array in trained if array.dtype == np.float32)
    session.reset(0)
    session.set_learning_rate(1e-2)
    for head_only in (True, False):
        moved(session, head_only)
    for again, before in zip(session.state(), trained, strict=True):
        np.testing.assert_array_equal(again, before)


def test_a_session_without_head_only_epochs_keeps_no_optimizer_for_them() -> None:
    both, one = (
        Session(PLAIN.model_copy(update={"frozen_phase": phase}), 0) for phase in (True, False)
    )
    assert len(both.state()) > len(one.state())
    assert both.fits(both.state())
    assert not one.fits(both.state())
