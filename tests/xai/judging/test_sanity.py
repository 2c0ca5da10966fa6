"""Grad-CAM depends on what the model learned, guided backpropagation hardly, and an edge detector
not at all.
"""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from xai.judging.heat import Floats
from xai.judging.sanity import cascade, ssim


def by_edges(model: keras.Model, pixels: np.ndarray) -> Floats:
    """What Adebayo warns of: it looks sensible and knows no model."""
    return np.abs(np.gradient(pixels[..., 0].astype(np.float32), axis=1))


def chain(*layers: Any) -> keras.Model:
    return keras.Sequential([keras.Input((16, 16, 1)), *layers])


def convolution(name: str) -> keras.Layer:
    return keras.layers.Conv2D(4, 3, padding="same", activation="relu", name=name)


# --- verdicts -------------------------------------------------------------------------------------


def test_a_randomised_model_without_evidence_is_unlike() -> None:
    model, pixels = (
        chain(convolution("a"), keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(2)),
        None,
    )
    pixels = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 1), np.uint8)
    answers = iter([by_edges(model, pixels), *6 * [np.zeros((3, 16, 16), np.float32)]])
    found = cascade(model, lambda *_: next(answers), pixels, 0)
    assert (found.spearman == 0).all()


# --- what becomes random --------------------------------------------------------------------------


def weights_at_each_stage(model: keras.Model, seed: int = 0) -> list[dict[str, np.ndarray]]:
    """The weights at every call of `explain`, by path; the first are the model's own."""
    seen = []

    def explain(present: keras.Model, pixels: np.ndarray) -> Floats:
        seen.append({weight.path: weight.numpy() for weight in present.weights})
        return by_edges(present, pixels)

    cascade(
        model, explain, np.random.default_rng(0).integers(0, 256, (1, 16, 16, 1), np.uint8), seed
    )
    return seen


def changed(before: dict[str, np.ndarray], after: dict[str, np.ndarray]) -> set[str]:
    return {name.split("/")[-2] for name in before if not np.array_equal(before[name], after[name])}


def test_layers_become_random_from_the_head_down_through_nested_models(tmp_path: Path) -> None:
    inner = chain(convolution("a"), keras.layers.BatchNormalization(name="norm"), convolution("b"))
    model = chain(inner, keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(2, name="head"))
    model.set_weights([weight + 1 for weight in model.get_weights()])
    path = tmp_path / "it's a model.keras"
    model.save(path)
    for opened in (model, keras.models.load_model(path)):
        seen = weights_at_each_stage(opened)
        assert len(seen) == 1 + 3 * 3
        assert [changed(seen[0], at) for at in seen[1:4]] == [
            {"head"},
            {"head", "b"},
            {"head", "b", "norm", "a"},
        ]
        # The next draw starts from the learned weights.
        assert changed(seen[0], seen[4]) == {"head"}
        assert changed(seen[1], seen[4]) == {"head"}  # and draws others
        fresh = {
            name.rsplit("/", 2)[-2:][1]: weight
            for name, weight in seen[3].items()
            if "norm" in name
        }
        assert [fresh[name][0] for name in ("gamma", "beta", "moving_mean", "moving_variance")] == [
            1,
            0,
            0,
            1,
        ]


def test_deep_models_have_six_stages() -> None:
    layers = [convolution(f"c{index:02}") for index in range(23)]
    model = chain(
        *layers, keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(2, name="head")
    )
    found = cascade(
        model, by_edges, np.random.default_rng(0).integers(0, 256, (1, 16, 16, 1), np.uint8), 0
    )
    assert found.stages == ("head", "c18", "c13", "c08", "c04", "c00")


def test_same_seed_same_randomness() -> None:
    model = chain(
        convolution("a"), keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(2, name="head")
    )
    first, again, other = (weights_at_each_stage(model, seed)[-1] for seed in (1, 1, 2))
    assert changed(first, again) == set()
    assert changed(first, other) == {"a", "head"}


def test_weights_are_restored_when_explaining_fails() -> None:
    model = chain(convolution("a"), keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(2))
    before, calls = model.get_weights(), []

    def explain(_: keras.Model, pixels: np.ndarray) -> Floats:
        calls.append(1)
        if len(calls) == 3:
            raise MemoryError
        return by_edges(model, pixels)

    with pytest.raises(MemoryError):
        cascade(
            model, explain, np.random.default_rng(0).integers(0, 256, (1, 16, 16, 1), np.uint8), 0
        )
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))


# --- structural similarity ------------------------------------------------------------------------


def test_ssim_by_hand() -> None:
    noise = np.random.default_rng(0).random((2, 32, 32)).astype(np.float32)
    assert ssim(noise, noise) == pytest.approx(1)
    assert (ssim(noise, noise[::-1]) < 0.3).all()
    flat = np.ones((1, 32, 32), np.float32)
    assert ssim(0.2 * flat, 0.6 * flat) == pytest.approx((2 * 0.12 + 1e-4) / (0.04 + 0.36 + 1e-4))
    assert ssim(noise[:1], 1 - noise[:1]) < 0
