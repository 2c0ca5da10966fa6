"""Keras's private names are there; without them the same comes out, by a longer way."""

import sys
from functools import partial
from types import ModuleType
from typing import Any

import keras
import numpy as np
import pytest

from trainables.models import zoo
from trainables.models.contract import check
from trainables.models.head import Head
from trainables.runtime import keras_internals
from trainables.runtime.keras_internals import (
    all_layers,
    clear_losses,
    global_seeds,
    inner_graph,
    made_to_learn,
    maker,
    run_through,
    save_quickly,
    seed_generators,
)

IMAGES = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3)).astype("float32")


@keras.saving.register_keras_serializable("tests")
class Twice(keras.layers.Layer):  # type: ignore[misc]
    """A layer that holds others without being a model."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.parts = [keras.layers.Dropout(0.5, seed=1), keras.layers.Conv2D(4, 1)]

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        return self.parts[1](self.parts[0](inputs, training=training))


@pytest.fixture
def model() -> keras.Model:
    """A Sequential model within a functional one, operations that are no layers, a layer called
    twice, dropout before the head.
    """
    inner = keras.Sequential(
        [keras.Input((16, 16, 3)), keras.layers.Conv2D(4, 3, name="first"), Twice()], name="inner"
    )
    inputs = keras.Input((16, 16, 3))
    x = keras.layers.GlobalAveragePooling2D()(keras.ops.add(inner(inputs / 255), 2.0))
    shared = keras.layers.Dense(4, name="shared")
    x = keras.layers.Dropout(0.5, seed=2, name="before")(shared(shared(x)))
    return keras.Model(inputs, keras.layers.Dense(2, name="logits")(x))


def without(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Keras without these names, for us alone: it needs most of them itself."""
    monkeypatch.setattr(
        keras_internals,
        "_private",
        lambda owner, name: None if name in names else getattr(owner, name, None),
    )


def test_the_private_names_are_there(model: keras.Model) -> None:
    from keras.src.backend.common.global_state import get_global_attribute
    from keras.src.saving import saving_lib

    assert saving_lib.get_attr_skipset("Layer")
    inner = model.get_layer("inner")
    for owner, names in (
        (model, ("_flatten_layers", "_clear_losses", "_run_through_graph", "_nodes")),
        (inner, ("_functional",)),
        (model.layers[-1], ("_seed_generators", "_trainable_variables", "_inbound_nodes")),
        (model.outputs[0], ("_keras_history",)),
    ):
        for name in names:
            assert keras_internals._private(owner, name) is not None, name
    call, position = maker(model, model.outputs[0]) or (None, 0)
    assert (call.operation, call.is_input, position) == (model.layers[-1], False, 0)
    assert (len(call.input_tensors), len(call.parent_nodes)) == (1, 1)
    keras.random.uniform((1,))
    assert get_global_attribute("global_seed_generator")


def test_saving_works_without_the_set(monkeypatch: pytest.MonkeyPatch) -> None:
    from keras.src import saving
    from keras.src.saving import saving_lib

    monkeypatch.delattr(saving_lib, "get_attr_skipset")
    save_quickly()
    monkeypatch.delattr(saving, "saving_lib")
    monkeypatch.setitem(sys.modules, "keras.src.saving.saving_lib", None)
    save_quickly()


def test_global_seeds_are_what_keras_draws_from() -> None:
    def draw() -> list[float]:
        with global_seeds(keras.random.SeedGenerator(7)):
            return np.asarray(keras.random.uniform((3,))).tolist()

    assert draw() == draw()


@pytest.mark.parametrize("gone", [None, ModuleType("global_state")])
def test_without_global_seeds_layers_draw_all_the_same(
    monkeypatch: pytest.MonkeyPatch, gone: ModuleType | None
) -> None:
    monkeypatch.setitem(sys.modules, "keras.src.backend.common.global_state", gone)
    with global_seeds(keras.random.SeedGenerator(7)):
        assert np.asarray(keras.random.uniform((3,))).shape == (3,)


def test_layers_and_generators_are_found_without_the_names(
    monkeypatch: pytest.MonkeyPatch, model: keras.Model
) -> None:
    def found() -> tuple[set[int], set[int]]:
        layers = all_layers(model)
        assert len({id(layer) for layer in layers}) == len(layers)
        return {id(x) for x in layers}, {id(g) for x in layers for g in seed_generators(x)}

    before = found()
    assert len(before[1]) == 2
    without(monkeypatch, "_flatten_layers", "_seed_generators")
    layers, generators = found()
    # A Sequential model holds its graph, which Keras does not count as a layer of it.
    assert before[0] <= layers
    assert generators == before[1]


def test_what_was_made_to_learn_is_told_without_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    frozen, plain = keras.layers.Dense(1, trainable=False), keras.layers.Normalization()
    for layer in (frozen, plain):
        layer.build((None, 3))
    assert (made_to_learn(frozen), made_to_learn(plain)) == (True, False)
    without(monkeypatch, "_trainable_variables")
    assert (made_to_learn(frozen), made_to_learn(plain)) == (True, False)


GRAPH = ("_functional", "_run_through_graph", "_keras_history", "_inbound_nodes", "_nodes")


@pytest.mark.parametrize("gone", [*[(name,) for name in GRAPH], (*GRAPH, "_clear_losses")])
def test_a_graph_is_run_the_same_without_the_names(
    monkeypatch: pytest.MonkeyPatch, model: keras.Model, gone: tuple[str, ...]
) -> None:
    expected = np.asarray(model(IMAGES, training=False))
    without(monkeypatch, *gone)
    names: list[str] = []

    def step(operation: Any, *arguments: Any, **keywords: Any) -> Any:
        names.append(operation.name)
        if isinstance(operation, keras.Sequential):
            return run_through(inner_graph(operation), arguments[0], lambda o: partial(step, o))
        if isinstance(operation, keras.Layer):
            keywords["training"] = False
        return operation(*arguments, **keywords)

    for _ in range(2):
        names.clear()
        output = run_through(inner_graph(model), IMAGES, lambda o: partial(step, o))
        np.testing.assert_array_equal(np.asarray(output), expected)
        assert names.count("shared") == 2
        assert {"inner", "first", "logits"} <= set(names)
        assert any(name.startswith("add") for name in names)


@pytest.mark.parametrize("name", ["TinyCNN", "ResNet50"])
def test_the_head_and_the_contract_hold_without_the_names(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    built = zoo.build(name, 32, 3, 2, "none", 0.2, {})
    images = np.zeros((1, 32, 32, 3), "float32")

    def found() -> tuple[list[str], list[str], np.ndarray]:
        head = Head(built, of_zoo=True)
        live = [layer.name for layer in head._live]
        return [v.path for v in head.variables], live, np.asarray(head.forward(images)).shape

    before = found()
    without(monkeypatch, *GRAPH, "_clear_losses", "_flatten_layers", "_trainable_variables")
    assert found() == before
    check(name, built, (32, 32, 3), 2)
    clear_losses(built)


def test_a_softmax_is_seen_without_the_names(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = keras.Input((16, 16, 3))
    x = keras.layers.Dense(2, activation="softmax")(keras.layers.Flatten()(inputs))
    model = keras.Model(inputs, x)
    without(monkeypatch, *GRAPH)
    with pytest.raises(Exception, match="returns probabilities; return logits"):
        check("theirs", model, (16, 16, 3), 2)


def test_no_call_is_made_up(monkeypatch: pytest.MonkeyPatch, model: keras.Model) -> None:
    without(monkeypatch, *GRAPH)
    assert maker(model, keras.Input((3,))) is None
