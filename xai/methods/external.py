"""LIME and SHAP, computed by their authors' libraries (extra `xai`), as maps of the same form as
the other methods'.
"""

import contextlib
import importlib
import io
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainables.core.errors import ModelError
from xai.methods.classifier import Classifier, Floats, Pixels, Targets
from xai.methods.perturbation import BATCH

LIME_SAMPLES = 1000
SHAP_EVALUATIONS = 500


def lime(
    classifier: Classifier,
    pixels: Pixels,
    targets: Targets,
    seed: int = 0,
    samples: int = LIME_SAMPLES,
) -> Floats:
    """LIME (Ribeiro et al. 2016, arXiv:1602.04938, equation 1), (b, t, size, size): each
    superpixel's weight.

    The weights of a ridge regression of the logit on which superpixels (quickshift) are shown, over
    `samples` forward passes, near ones counting more. The others show the image's mean colour, not
    their own, as the library would have it: an opacity filled with its own mean is still an
    opacity. Raises ModelError without the library.
    """
    library = _library("lime.lime_image", "LIME")
    wrappers = _library("lime.wrappers.scikit_image", "LIME")
    height, width, channels = classifier.input_shape
    if channels not in (1, 3):
        raise ModelError(
            f"LIME needs images of 1 or 3 channels, {classifier.model.name} takes {channels}"
        )

    def logits(images: NDArray[Any]) -> Floats:
        return classifier.logits((images[..., :channels] * 255).astype(np.float32))

    # The library's own settings, but with a kernel that grows with the image: 4 pixels at 224.
    quickshift = wrappers.SegmentationAlgorithm(
        "quickshift", kernel_size=max(1, width / 56), max_dist=200, ratio=0.2, random_seed=seed
    )
    maps = np.empty((*targets.shape, height, width), np.float32)
    for image, chosen, result in zip(pixels, targets, maps, strict=True):
        # The segmentation wants colours from 0 to 1.
        colours = np.broadcast_to(image.astype(np.float64) / 255, (height, width, 3))
        explainer = library.LimeImageExplainer(random_state=seed)
        with contextlib.redirect_stderr(io.StringIO()):  # its progress bar cannot be turned off
            found = explainer.explain_instance(
                colours,
                logits,
                set(chosen),
                top_labels=None,
                hide_color=colours.mean(axis=(0, 1)),
                num_samples=samples,
                batch_size=BATCH,
                segmentation_fn=quickshift,
            )
        for index, target in enumerate(chosen):
            weights = np.zeros(found.segments.max() + 1, np.float32)
            for segment, weight in found.local_exp[target]:
                weights[segment] = weight
            result[index] = weights[found.segments]
    return maps


def shap(
    classifier: Classifier,
    pixels: Pixels,
    targets: Targets,
    seed: int = 0,
    evaluations: int = SHAP_EVALUATIONS,
) -> Floats:
    """SHAP (Lundberg and Lee 2017, arXiv:1705.07874, equation 8), (b, t, size, size): Owen values,
    channels summed.

    The image is halved again and again, what is hidden shows the image's mean colour; about
    `evaluations` forward passes go to the parts that matter. A map sums to y(x) − y(mean colour).
    Raises ModelError without the library.
    """
    library = _library("shap", "SHAP")

    def logits(images: NDArray[Any]) -> Floats:
        return classifier.logits(images.astype(np.float32))

    maps = []
    for image, chosen in zip(pixels.astype(np.float32), targets, strict=True):
        mean = np.broadcast_to(image.mean(axis=(0, 1)), image.shape)
        explainer = library.PartitionExplainer(logits, library.maskers.Image(mean.copy()))
        with _numpy_seed(seed):
            found = explainer(image[None], max_evals=evaluations, batch_size=BATCH, silent=True)
        values = np.asarray(found.values[0], np.float32).sum(axis=2)
        maps.append(np.moveaxis(values, -1, 0)[chosen])
    return np.stack(maps)


@contextlib.contextmanager
def _numpy_seed(seed: int) -> Iterator[None]:
    """SHAP breaks ties by NumPy's global generator: fix it for the time of a call."""
    before = np.random.get_state()
    np.random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(before)


def _library(module: str, title: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        distribution = module.partition(".")[0]
        raise ModelError(
            f"{title} needs a library that is not installed ({error}): pip install {distribution}"
        ) from error
