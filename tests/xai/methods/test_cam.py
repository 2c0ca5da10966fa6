"""Each class activation map against an answer that is known without a gradient."""

import numpy as np

from tests.xai.planted import images, pooled
from xai.methods import cam
from xai.methods.classifier import Classifier


def test_gradcam_of_a_pooled_linear_head_adds_up_to_the_logit() -> None:
    model, pixels = pooled(), images(3, 16)
    classifier = Classifier(model)
    maps, logits = cam.class_maps(classifier, pixels)
    kernel, bias = model.get_layer("logits").get_weights()
    features, _ = classifier.features_and_logits(pixels)
    by_hand = np.einsum("bhwk,kc->bchw", features, kernel) / (features.shape[1] * features.shape[2])
    np.testing.assert_allclose(maps, by_hand, atol=1e-5 * np.abs(by_hand).max())
    np.testing.assert_allclose(maps.sum(axis=(2, 3)) + bias, logits, rtol=1e-4, atol=1e-4)
    assert maps.min() < 0  # signed: the ReLU is the reader's


def test_gradcam_pp_and_layercam_of_one_channel() -> None:
    model, pixels = pooled(channels=1), images(2, 16)
    model.get_layer("logits").set_weights([np.array([[3.0, -2.0, 0.0]]), np.zeros(3)])
    classifier, every = Classifier(model), np.tile(np.arange(3), (2, 1))
    features = classifier.features_and_logits(pixels)[0][..., 0]
    area, total = features[0].size, features.sum(axis=(1, 2), keepdims=True)
    plus = cam.gradcam_pp(classifier, pixels, every)
    # G = 3/area everywhere: area times ReLU(G) / (2 + G ΣA), and nothing for a weight that is not
    # positive.
    np.testing.assert_allclose(plus[:, 0], 3 / (2 + 3 / area * total) * features, rtol=1e-5)
    assert not plus[:, 1:].any()
    layer = cam.layercam(classifier, pixels, every)
    np.testing.assert_allclose(layer[:, 0], 3 / area * features, rtol=1e-5)
    assert not layer[:, 1:].any()
    np.testing.assert_allclose(
        cam.hirescam(classifier, pixels, every)[:, 1], -2 / area * features, rtol=1e-5
    )


def test_scorecam_follows_the_channel_that_raises_the_score() -> None:
    model = pooled(channels=2, n_classes=2, activation="linear")
    # Channel 0 is the centre of each field, channel 1 its negative; class 1 wants bright pixels.
    kernel = np.zeros((3, 3, 1, 2))
    kernel[1, 1, 0] = (1, -1)
    model.get_layer("features").set_weights([kernel, np.zeros(2)])
    model.get_layer("logits").set_weights([np.array([[-200.0, 200.0], [0, 0]]), np.zeros(2)])
    pixels = np.full((1, 16, 16, 1), 40, np.uint8)
    pixels[0, 2:8, 3:9] = 240
    classifier = Classifier(model)
    maps = cam.scorecam(classifier, pixels, np.array([[1, 0]]))
    features = classifier.features_and_logits(pixels)[0][0]
    np.testing.assert_allclose(maps[0, 0], features[..., 0], atol=1e-3)
    np.testing.assert_allclose(maps[0, 1], features[..., 1], atol=1e-3)


def test_scorecam_of_equal_scores_is_the_mean_channel() -> None:
    model = pooled(channels=5)
    model.get_layer("logits").set_weights([np.zeros((5, 3)), np.arange(3)])
    classifier, pixels = Classifier(model), images(2, 16)
    maps = cam.scorecam(classifier, pixels, np.array([[1], [2]]))
    np.testing.assert_allclose(
        maps[:, 0], classifier.features_and_logits(pixels)[0].mean(axis=-1), rtol=1e-5
    )


class Planted:
    """A classifier whose features are given."""

    def __init__(self, features: np.ndarray) -> None:
        self.features = features.astype(np.float32)

    def features_and_logits(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.features, np.zeros((len(pixels), 2), np.float32)


def test_eigencam_of_features_of_rank_one_is_their_pattern() -> None:
    rng = np.random.default_rng(0)
    pattern, direction = rng.random((2, 3, 4)), rng.normal(size=(2, 20))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    features = pattern[..., None] * direction[:, None, None]
    # Fewer and more cells than channels.
    for given in (
        features,
        np.repeat(np.repeat(features, 4, axis=1), 4, axis=2),
    ):
        maps = cam.eigencam(Planted(given), images(2), np.array([[0, 1], [1, 0]]))  # type: ignore[arg-type]
        assert (maps.shape, maps.dtype) == ((2, 2, *given.shape[1:3]), np.float32)
        np.testing.assert_allclose(
            maps[:, 0], (given * direction[:, None, None]).sum(axis=-1), atol=1e-5
        )
        np.testing.assert_array_equal(maps[:, 0], maps[:, 1])


def test_eigencam_is_the_first_singular_vector() -> None:
    features = np.random.default_rng(3).random((1, 5, 6, 40))
    maps = cam.eigencam(Planted(features), images(1), np.array([[0]]))  # type: ignore[arg-type]
    _, _, right = np.linalg.svd(features.reshape(30, 40))
    np.testing.assert_allclose(maps.ravel(), np.abs(features.reshape(30, 40) @ right[0]), rtol=1e-5)
