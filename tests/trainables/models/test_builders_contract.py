"""A builder's model is refused before anything trains where it gives no logits or could not be
opened again.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.execution.experiment_run import _try_model
from tests.trainables.models.test_opening import PARTS as SCALE
from trainables.core.errors import ModelError
from trainables.core.training_sections import Augmentation
from trainables.models import builders, user_code
from trainables.models.architecture import Architecture

SHAPE = (16, 16, 1)

MODULE = """
import keras
from keras import layers, ops
from contract_parts import Scale, Packed

def trunk(shape):
    image = keras.Input(shape)
    x = layers.Conv2D(4, 3, activation="relu")(layers.Rescaling(1 / 255)(image))
    return image, layers.GlobalAveragePooling2D()(x)

def ends(make):
    def build(input_shape, n_classes):
        image, x = trunk(input_shape)
        return keras.Model(image, make(x, n_classes))
    return build

class Squash(layers.Layer):
    def __init__(self, units, **others):
        super().__init__(**others)
        self.units = units
        self.dense = layers.Dense(units)
    def call(self, x):
        return ops.sigmoid(self.dense(x))
    def get_config(self):
        return {**super().get_config(), "units": self.units}

class Forgetful(layers.Layer):
    def __init__(self, by=1.0, **others):
        super().__init__(**others)
        self.by = by
    def call(self, x):
        return x * self.by
    def get_config(self):
        return super().get_config()

class Unsavable(layers.Layer):
    def __init__(self, block, **others):
        super().__init__(**others)
        self.block = block
    def call(self, x):
        return x * 2.0

class Plain(keras.Model):
    def __init__(self, units):
        super().__init__()
        self.pool, self.dense = layers.GlobalAveragePooling2D(), layers.Dense(units)
    def call(self, x):
        return self.dense(self.pool(x))

@keras.saving.register_keras_serializable("mine")
class Registered(layers.Layer):
    def call(self, x):
        return x * 2.0

def swoosh(x):
    return x * ops.sigmoid(x)

def local(x, n):
    class Inner(layers.Layer):
        def call(self, x):
            return x * 2.0
    return layers.Dense(n)(Inner()(x))

def nested_sigmoid(x, n):
    inside = keras.Input(x.shape[1:])
    return keras.Model(inside, layers.Dense(n, activation="sigmoid")(inside))(x)

def sequential_relu(x, n):
    return layers.Dropout(0.1)(keras.Sequential([keras.Input(x.shape[1:]), layers.Dense(n), layers.ReLU()])(x))

def handed_through(x, n):
    inside = keras.Input((n,))
    return keras.Model(inside, layers.Dropout(0.1)(inside))(layers.Dense(n, activation="tanh")(x))

dense_sigmoid = ends(lambda x, n: layers.Dense(n, activation="sigmoid")(x))
dense_gelu = ends(lambda x, n: layers.Dense(n, activation=keras.activations.gelu)(x))
own_function = ends(lambda x, n: layers.Dense(n, activation=swoosh)(x))
activation_layer = ends(lambda x, n: layers.Activation("tanh")(layers.Dense(n)(x)))
leaky = ends(lambda x, n: layers.LeakyReLU()(layers.Dense(n)(x)))
operation = ends(lambda x, n: ops.softmax(layers.Dense(n)(x)))
operation_then_sum = ends(lambda x, n: 2.0 * ops.tanh(layers.Dense(n)(x)) + 1.0)
clipped = ends(lambda x, n: ops.maximum(layers.Dense(n)(x), 0.0))
mean_of_softmaxes = ends(lambda x, n: layers.Average()([layers.Dense(n, "softmax")(x), layers.Dense(n, "softmax")(x)]))
nested = ends(nested_sigmoid)
sequential = ends(sequential_relu)
through_nested = ends(handed_through)
wrapped = ends(lambda x, n: layers.SpectralNormalization(layers.Dense(n, activation="softmax"))(x))
squashed_inside = ends(lambda x, n: Squash(n)(x))
two_outputs = ends(lambda x, n: [layers.Dense(n)(x), layers.Dense(1)(x)])
dictionary = ends(lambda x, n: {"logits": layers.Dense(n)(x)})
python_lambda = ends(lambda x, n: layers.Dense(n)(layers.Lambda(lambda t: t * 2.0)(x)))
local_class = ends(local)
forgetful = ends(lambda x, n: layers.Dense(n)(Forgetful(3.0)(x)))
unsavable = ends(lambda x, n: layers.Dense(n)(Unsavable(object())(x)))

class Noisy(layers.Layer):
    def call(self, x):
        return x + keras.random.normal(ops.shape(x))

class Root(layers.Layer):
    def call(self, x):
        return ops.sqrt(x * 0.0)  # which has no slope at 0

def under(policy, make):
    def build(input_shape, n_classes):
        keras.config.set_dtype_policy(policy)
        return make(input_shape, n_classes)
    return build

def frozen(input_shape, n_classes):
    model = plain(input_shape, n_classes)
    model.trainable = False
    return model

def frozen_backbone(input_shape, n_classes):
    model = plain(input_shape, n_classes)
    for layer in model.layers[:-1]:
        layer.trainable = False
    return model

def nothing_to_learn(input_shape, n_classes):
    image = keras.Input(input_shape)
    return keras.Model(image, ops.stack([ops.mean(image, (1, 2, 3))] * n_classes, -1))

def named_input(input_shape, n_classes):
    image = keras.Input(input_shape, name="probabilities")
    return keras.Model(image, layers.Dense(n_classes, name="probabilities_")(layers.Flatten()(image)))

def subclassed(input_shape, n_classes):
    model = Plain(n_classes)
    model(ops.zeros((1, *input_shape)))
    return model

def unbuilt(input_shape, n_classes):
    return keras.Sequential([layers.Flatten(), layers.Dense(n_classes)])

plain = ends(lambda x, n: layers.Dense(n)(x))
zeros = ends(lambda x, n: layers.Dense(n, kernel_initializer="zeros")(x))
named_layer = ends(lambda x, n: layers.Dense(n, name="probabilities")(x))
bfloat16 = under("mixed_bfloat16", plain)
bfloat16_head = ends(lambda x, n: layers.Dense(n, dtype="mixed_bfloat16")(x))
float16 = under("mixed_float16", plain)
float16_head = ends(lambda x, n: layers.Dense(n, dtype="float16")(x))
float64_head = ends(lambda x, n: layers.Dense(n, dtype="float64")(x))
not_a_number = ends(lambda x, n: layers.Dense(n, kernel_initializer=keras.initializers.Constant(float("nan")))(x))
infinite = ends(lambda x, n: layers.Dense(n)(layers.Rescaling(1e30)(layers.Rescaling(1e30)(x))))
random = ends(lambda x, n: layers.Dense(n)(Noisy()(x)))
no_slope = ends(lambda x, n: layers.Dense(n)(Root()(layers.Dense(4)(x))))
linear = ends(lambda x, n: layers.Activation("linear", dtype="float32")(layers.Dense(n)(x)))
gated = ends(lambda x, n: layers.Dense(n)(x) * layers.Dense(n, activation="sigmoid")(x))
residual = ends(lambda x, n: layers.Dense(n)(x) + layers.Dense(n, activation="relu")(x))
normalised = ends(lambda x, n: layers.BatchNormalization()(layers.Dense(n)(x)))
temperature = ends(lambda x, n: layers.Dense(n)(x) / 2.0)
own_layer = ends(lambda x, n: layers.Dense(n)(Scale(3.0)(x)))
packed_layer = ends(lambda x, n: layers.Dense(n)(Packed()(x)))
registered = ends(lambda x, n: layers.Dense(n)(Registered()(x)))
own_activation = ends(lambda x, n: layers.Dense(n)(layers.Dense(4, activation=swoosh)(x)))

def fully_convolutional(input_shape, n_classes):
    image = keras.Input(input_shape)
    return keras.Model(image, layers.GlobalAveragePooling2D()(layers.Conv2D(n_classes, 3)(image)))
"""

PARTS = (
    SCALE
    + """\
class Packed(Scale):
    def __init__(self, by=2.0, **others):
        super().__init__(by, **others)
"""
)


@pytest.fixture(scope="module", autouse=True)
def mine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("contract")
    (folder / "contract_models.py").write_text(MODULE)
    (folder / "contract_parts.py").write_text(PARTS)
    user_code.search_also(folder)
    yield
    sys.path.remove(str(folder))
    user_code._folders.remove(str(folder))


def built(name: str) -> None:
    error = _try_model(architecture(f"contract_models:{name}").key, None)
    if error is not None:
        raise ModelError(error)


def architecture(model: str) -> Architecture:
    names = {
        "model": model, "image_size": SHAPE[0], "channels": SHAPE[2], "n_classes": 3, "arguments": {}, "dropout": 0.0,
        "weights": "none", "weights_hash": None, "builder_hash": None, "batch_norm_momentum": None, "optimizer": "adam",
        "augmentation": Augmentation(), "precision": "float32", "xla": False,
    }  # fmt: skip
    return Architecture(**names)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("dense_sigmoid", r"has passed through sigmoid; return logits \(drop the sigmoid\)"),
        ("dense_gelu", "through gelu"),
        ("own_function", "through swoosh"),
        ("activation_layer", "through tanh"),
        ("leaky", "through leakyrelu"),
        ("operation", r"returns probabilities; return logits \(drop the softmax\)"),
        ("operation_then_sum", "through tanh"),
        ("clipped", "through maximum"),
        ("mean_of_softmaxes", "returns probabilities"),
        ("nested", "through sigmoid"),
        ("sequential", "through relu"),
        ("through_nested", "through tanh"),
        ("wrapped", "returns probabilities"),
        ("squashed_inside", "from 0 to 1 whatever the weights of its last layer"),
        ("two_outputs", "one output of shape"),
        ("dictionary", "one output, got a dictionary"),
        (
            "subclassed",
            "must return a functional or Sequential keras.Model, got the subclassed model Plain",
        ),
        ("unbuilt", "begin it with keras.Input"),
        ("python_lambda", "cannot be saved and opened again.*Lambda"),
        ("local_class", "layer Inner, which is defined inside a function"),
        ("forgetful", "gives other outputs once it has been saved and opened again"),
        ("unsavable", "cannot be saved and opened again"),
        ("frozen", "in which nothing learns"),
        ("nothing_to_learn", "in which nothing learns"),
        ("float16", "layer 'rescaling.*' computes in float16"),
        ("float16_head", "layer 'dense.*' computes in float16"),
        ("float64_head", "weights 'dense.*/kernel' are float64"),
        ("not_a_number", "weights 'dense.*/kernel' hold NaN or infinite numbers"),
        ("infinite", "returns NaN or infinite numbers before training"),
        ("no_slope", "first training step gives NaN or infinite numbers"),
        ("random", "random at inference"),
    ],
)
def test_what_is_no_logit_or_cannot_be_opened_is_one_line(name: str, message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        built(name)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"contract_models:{name} ")


@pytest.mark.parametrize(
    "name",
    [
        "plain", "zeros", "linear", "gated", "residual", "normalised", "temperature", "own_layer", "packed_layer",
        "registered", "own_activation", "fully_convolutional", "frozen_backbone", "named_input", "named_layer",
        "bfloat16", "bfloat16_head",
    ],
)  # fmt: skip
def test_what_gives_logits_and_can_be_opened_is_taken(name: str) -> None:
    built(name)


@pytest.mark.parametrize(
    ("code", "line"),
    [
        ("import argparse\nargparse.ArgumentParser().add_argument('data') and exit(2)\n", 2),
        (
            "import argparse\np = argparse.ArgumentParser()\np.add_argument('--data', "
            "required=True)\np.parse_args()\n",
            4,
        ),
        ("import sys\nsys.exit()\n", 2),
        ("def build(input_shape, n_classes):\n    quit()\n", 2),
        ("def build(input_shape, n_classes):\n    raise SystemExit('done')\n", 2),
    ],
)
def test_code_that_would_end_the_process_is_one_line_wherever_it_is_run(
    code: str, line: int, tmp_path: Path
) -> None:
    name = f"ends_{tmp_path.name}".replace("-", "_")
    (tmp_path / f"{name}.py").write_text(code)
    user_code.search_also(tmp_path)
    with pytest.raises(
        ModelError, match=rf"{name}:build raised SystemExit at .*{name}.py line {line}: a module"
    ):
        builders.build(f"{name}:build", SHAPE, 3, {})


def test_an_interrupt_raised_by_a_builder_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "interrupts.py").write_text(
        "def build(input_shape, n_classes):\n    raise KeyboardInterrupt\n"
    )
    user_code.search_also(tmp_path)
    error = _try_model(architecture("interrupts:build").key, None)
    assert error is not None
    assert "interrupts:build raised KeyboardInterrupt at" in error


def test_a_module_sees_no_command_line_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [
        "import argparse",
        "p = argparse.ArgumentParser()",
        "p.add_argument('--width', type=int, default=4)",
    ]
    lines += [
        "ARGS = p.parse_args()",
        "def build(input_shape, n_classes):",
        "    raise ValueError(ARGS.width)",
    ]
    (tmp_path / "defaults.py").write_text("\n".join(lines))
    user_code.search_also(tmp_path)
    monkeypatch.setattr(sys, "argv", ["rayfold", "--node-ip=1", "run"])
    with pytest.raises(ValueError, match=r"^4$"):
        builders.build("defaults:build", SHAPE, 3, {})
    assert sys.argv == ["rayfold", "--node-ip=1", "run"]
