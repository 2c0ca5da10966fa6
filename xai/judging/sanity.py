"""Does a method explain the model at all? Maps must change when what the model has learned is
thrown away.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from xai.judging.heat import Floats, scaled, spearman, upsample
from xai.methods.placement import Placement

if TYPE_CHECKING:
    import keras

#: (model, pixels (b, s, s, c)) → evidence (b, h, w), not negative
Explain = Callable[["keras.Model", NDArray[Any]], Floats]

STAGES = 6
DRAWS = 3
#: How alike the maps of a model with random weights may be to the model's own.
ALIKE = 0.5


@dataclass(frozen=True)
class Cascade:
    """How alike maps are to the model's own while its layers become random from the head down.

    `stages`: name of the lowest random layer of each stage; the first is the head alone, the last
    leaves nothing learned. `spearman`, `ssim`: (draws, stages, images).
    """

    stages: tuple[str, ...]
    spearman: NDArray[np.float64]
    ssim: NDArray[np.float64]

    @property
    def similarity(self) -> NDArray[np.float64]:
        """Mean rank correlation at each stage, over draws and the images whose own map has any
        contrast: (stages,).
        """
        known = self.spearman[:, :, np.isfinite(self.spearman).all(axis=(0, 1))]
        return known.mean(axis=(0, 2)) if known.size else np.full(len(self.stages), np.nan)

    @property
    def passed(self) -> bool:
        """Whether the maps depend on what was learned, by `similarity` s.

        Two things are asked. With nothing learned, the maps are new: s < 0.5 at the last stage. And
        they do not wait for the lowest layers: once the upper half of the stages is random, s has
        come at least half of the way down from 1 to its last value. Guided backpropagation fails
        the second, since the lower layers draw its edges.
        """
        s = self.similarity
        half, last = s[max(1, len(s) // 2) - 1], s[-1]
        return bool(last < ALIKE and half < (1 + max(last, 0)) / 2)


def cascade(
    model: "keras.Model",
    explain: Explain,
    pixels: NDArray[Any],
    seed: int,
    placement: Placement | None = None,
) -> Cascade:
    """Cascading model randomisation (Adebayo 2018, arXiv:1810.03292, section 3.1).

    The layers of `model` that have weights are re-initialised as they were before training,
    cumulatively, in at most `STAGES` stages: first the head, then the rest in about equal parts,
    each convolution together with what follows it, such as its batch normalisation. This is done
    `DRAWS` times with other random weights, since a single random head may by chance resemble the
    trained one or its negative. `explain` is called once for the model itself and draws x stages
    times with the same object, whose weights have changed in place; they are restored at the end.

    Similarity to the model's own maps is the rank correlation at native resolution, and SSIM at the
    size of the image, cells at `placement`, with both maps scaled to a maximum of 1. SSIM is for
    the eye: large dark areas make any two sparse maps alike. A map of a randomised model without
    contrast correlates with nothing: 0. An own map without contrast makes NaN.
    """
    # Keras draws the seeds of initializers from Python's generator.
    from trainables.training.session import (
        python_seed,
    )

    size = pixels.shape[1]
    stages = _stages(_layers(model))
    learned = model.get_weights()
    own = explain(model, pixels)
    drawn = scaled(upsample(own, size, placement))
    correlations, alike = [], []
    try:
        for draw in range(DRAWS):
            with python_seed(int(np.random.SeedSequence([seed, draw]).generate_state(1)[0])):
                for stage in stages:
                    for layer in stage:
                        _reinitialise(layer)
                    maps = explain(model, pixels)
                    correlations.append(_correlation(own, maps))
                    alike.append(ssim(drawn, scaled(upsample(maps, size, placement))))
            model.set_weights(learned)
    finally:
        model.set_weights(learned)
    shape = (DRAWS, len(stages), len(pixels))
    names = tuple(stage[-1].name for stage in stages)
    return Cascade(names, np.reshape(correlations, shape), np.reshape(alike, shape))


def ssim(first: Floats, second: Floats) -> NDArray[np.float64]:
    """Structural similarity of maps (b, s, s) from 0 to 1, averaged over the image: (b,).

    Wang 2004 (doi:10.1109/TIP.2003.819861), eq. 13, with Gaussian windows of 1.5 pixels, K1 = 0.01,
    K2 = 0.03.
    """
    x, y = np.asarray(first, np.float64), np.asarray(second, np.float64)
    mean_x, mean_y = _window(x), _window(y)
    spread = _window(x * x) - mean_x**2 + _window(y * y) - mean_y**2
    shared = _window(x * y) - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    alike = (
        (2 * mean_x * mean_y + c1)
        * (2 * shared + c2)
        / ((mean_x**2 + mean_y**2 + c1) * (spread + c2))
    )
    return np.asarray(alike.mean(axis=(1, 2)))


def _window(maps: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.array([cv2.GaussianBlur(values, (11, 11), 1.5) for values in maps])


def _correlation(own: Floats, maps: Floats) -> NDArray[np.float64]:
    """Rank correlation; NaN where the model's own map has no contrast, 0 where only the other has
    none.
    """
    contrast = np.isfinite(spearman(own, own))
    return np.where(contrast, np.nan_to_num(spearman(own, maps), nan=0.0), np.nan)


# --- layers ---------------------------------------------------------------------------------------


def _layers(model: "keras.Model") -> list[Any]:
    """Every layer that learned its weights, from the output to the input, through nested models,
    once.
    """
    import keras

    found: dict[int, Any] = {}

    def visit(layer: Any) -> None:
        if isinstance(layer, keras.Model):
            for inner in reversed(layer.layers):
                visit(inner)
        elif layer.weights and not isinstance(layer, keras.layers.Normalization):
            found.setdefault(id(layer), layer)

    visit(model)
    return list(found.values())


def _stages(layers: list[Any]) -> list[list[Any]]:
    """The head, then the other layers in at most `STAGES` - 1 parts of about equally many
    kernels.
    """
    groups: list[list[Any]] = [[]]
    for layer in layers:
        groups[-1].append(layer)
        if any(len(weight.shape) > 1 for weight in layer.weights):
            groups.append([])
    if not groups[-1]:
        groups.pop()
    parts = np.array_split(np.arange(1, len(groups)), min(STAGES - 1, max(1, len(groups) - 1)))
    chosen = [range(1), *parts]
    return [[layer for index in part for layer in groups[index]] for part in chosen if len(part)]


def _reinitialise(layer: Any) -> None:
    """Give a layer the weights of a new one of the same configuration."""
    fresh = type(layer).from_config(layer.get_config())
    fresh.build_from_config(layer.get_build_config())
    layer.set_weights(fresh.get_weights())
