"""What holds for every method: names, shapes, targets, determinism, independence of the batch."""

import importlib.util
import subprocess
import sys

import numpy as np
import pytest

from tests.xai.planted import SIZE, images, linear, pooled, square
from trainables.core.errors import ModelError
from xai.methods.classifier import Classifier
from xai.methods.registry import METHODS, method_named

OWN = [name for name in METHODS if name not in ("lime", "shap")]
LIBRARIES = ["lime", "shap"]
TARGETS = np.array([[0, 2], [2, 2]], np.int32)


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return Classifier(pooled())


def test_names_and_titles_need_no_tensorflow() -> None:
    code = (
        "import sys, xai.methods.registry as m; print(m.METHODS['gradcam'].title, {'tensorflow', "
        "'keras'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "Grad-CAM set()"
    assert all(method.name == name for name, method in METHODS.items())
    assert {name for name in METHODS if not METHODS[name].positive} == {"smoothgrad"}


def test_an_unknown_method_names_the_nearest() -> None:
    assert method_named("gradcam++").title == "Grad-CAM++"
    with pytest.raises(ModelError, match=r"got 'gradcm'; did you mean 'gradcam'\?"):
        method_named("gradcm")
    with pytest.raises(ModelError) as caught:
        method_named("zzzzzz")
    assert [str(caught.value).count(name) for name in ("smoothgrad", "occlusion")] == [1, 1]


@pytest.mark.parametrize("name", OWN)
def test_maps_do_not_change_with_the_call_or_the_company(name: str, classifier: Classifier) -> None:
    pixels, method = images(2, 16), METHODS[name]
    maps = method.explain(classifier, pixels, TARGETS, seed=3)
    size = (
        classifier.map_shape[:2]
        if method.layered
        else (14, 14)
        if name == "occlusion"
        else (16, 16)
    )
    assert (maps.shape, maps.dtype) == ((2, 2, *size), np.float32)
    assert np.ptp(maps[0, 0]) > 0
    np.testing.assert_array_equal(method.explain(classifier, pixels, TARGETS, seed=3), maps)
    np.testing.assert_array_equal(maps[1, 0], maps[1, 1])  # the same class twice
    tolerance = 1e-4 * np.abs(maps).max()
    alone = method.explain(classifier, pixels[1:], TARGETS[1:, :1], seed=3)
    np.testing.assert_allclose(alone, maps[1:, :1], atol=tolerance)
    as_floats = method.explain(classifier, pixels.astype(np.float32), TARGETS, seed=3)
    np.testing.assert_allclose(as_floats, maps, atol=tolerance)


@pytest.mark.parametrize("name", ["smoothgrad", "rise"])
def test_the_seed_counts_where_there_is_chance(name: str, classifier: Classifier) -> None:
    one, two = (
        METHODS[name].explain(classifier, images(1, 16), TARGETS[:1], seed) for seed in (1, 2)
    )
    assert np.abs(one - two).max() > 0


@pytest.mark.parametrize("name", LIBRARIES)
def test_a_missing_library_is_named_with_its_remedy(name: str, classifier: Classifier) -> None:
    if importlib.util.find_spec(name):
        pytest.skip(f"{name} is installed")
    with pytest.raises(ModelError, match=f"pip install {name}$") as caught:
        METHODS[name].explain(classifier, images(2, 16), TARGETS)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", LIBRARIES)
def test_libraries_find_the_square_that_counts(name: str) -> None:
    pytest.importorskip(name)
    classifier = linear(square(slice(4, 12), slice(16, 24)))
    pixels = np.full((1, SIZE, SIZE, 1), 30, np.uint8)
    pixels[0, 4:12, 16:24] = 220
    maps = METHODS[name].explain(classifier, pixels, np.array([[1, 0]]), seed=1)
    assert (maps.shape, maps.dtype) == ((1, 2, SIZE, SIZE), np.float32)
    inside, outside = maps[0, 0, 4:12, 16:24], np.delete(maps[0, 0], np.s_[4:12], axis=0)
    assert inside.mean() > 10 * np.abs(outside).mean()
    np.testing.assert_allclose(maps[0, 1], -maps[0, 0], atol=1e-3 * np.abs(maps).max())
    np.testing.assert_array_equal(
        METHODS[name].explain(classifier, pixels, np.array([[1, 0]]), seed=1), maps
    )
    if name == "shap":  # completeness
        hidden = np.full_like(pixels, 0, np.float32) + pixels.mean()
        gained = classifier.logits(pixels) - classifier.logits(hidden)
        np.testing.assert_allclose(maps[0, 0].sum(), gained[0, 1], rtol=1e-3)
