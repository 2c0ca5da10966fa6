"""Does the model need the places that the map shows? Scores that ask the model itself.

Every score is also given for two maps that know nothing of the model, since only the difference to
them means anything:

* random: the map's own values, shuffled over the pixels;
* blurred_random: a random map of the same values and the same smoothness. Removing smooth patches
  hurts a model less (or more) than removing scattered pixels whatever they show, so a blurry map
  beats scattered noise without being right (Song 2023, arXiv:2304.13836); this one is as blurry
  and still not right.
"""

import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from xai.judging.heat import Floats, scaled, upsample
from xai.methods.placement import Placement

#: float32 pixels (b, s, s, c) from 0 to 255 → class probabilities (b, n)
Predict = Callable[[Floats], NDArray[np.floating[Any]]]

STEPS = 16
#: Width of the Gaussian that insertion starts from, in image edges: Petsiuk's 5 pixels of 224.
BLUR = 5 / 224

_MAPS = ("", "_random", "_blurred_random")


class Faithfulness(NamedTuple):
    """Per image: `scores`, name → (b,), and `curves`, name → (b, steps + 1), the probability at
    each step.

    Curves are deletion and insertion; scores are these (their areas), drop and increase; each with
    and without the endings _random and _blurred_random. All float32, NaN where the map is not
    finite.
    """

    scores: dict[str, Floats]
    curves: dict[str, Floats]


def faithfulness(
    predict: Predict,
    images: NDArray[Any],
    maps: Floats,
    positive: bool,
    targets: NDArray[np.integer[Any]],
    seed: int,
    steps: int = STEPS,
    placement: Placement | None = None,
) -> Faithfulness:
    """Deletion, insertion, average drop and increase in confidence of one map per image, and of two
    random ones.

    `images`: (b, s, s, c) uint8 or float32, 0 to 255. `maps`: signed, (b, h, w), at their native
    resolution, cells at `placement`; `positive` as in `heat.evidence`. `targets`: (b,) the class
    that each map explains. `predict` gets batches of b images, 6 * steps times.

    Deletion (Petsiuk 2018, arXiv:1806.07421) blackens the hottest pixels, a 1/steps part at a time;
    insertion puts the hottest pixels back into the blurred image. The area under each is the mean
    probability over the part of pixels changed (trapezoids): low deletion and high insertion are
    good. What speaks against the class comes last, pixels of equal heat in random order. Average
    drop and increase (Chattopadhay 2018, arXiv:1710.11063), with Y the probability of the image and
    O that of the image times its evidence, scaled to a maximum of 1: drop = max(0, Y - O) / Y,
    increase = 1 where O > Y; low drop and high increase are good.

    No filling is neutral, and the ends of the curves show what the model takes it for. Black, which
    is air on a radiograph, hides an opacity; grey, the usual choice for photographs, looks like
    one.

    What is random follows from `seed` and the pixels of the image alone: not from the batch it
    comes in, and the same for every method and class.
    """
    images = np.asarray(images, np.float32)
    finite = np.asarray(np.isfinite(maps).all(axis=(1, 2)))
    maps = np.where(finite[:, None, None], maps if positive else np.abs(maps), 0).astype(np.float32)
    keys = [(seed, zlib.crc32(image.tobytes())) for image in images]
    rows = np.arange(len(images))

    def probability(pixels: Floats) -> Floats:
        return np.asarray(predict(pixels)[rows, targets], np.float32)

    black, blurry = np.zeros_like(images), blurred(images)
    whole, nothing, start = probability(images), probability(black), probability(blurry)
    scores: dict[str, Floats] = {}
    curves: dict[str, Floats] = {}
    for ending, heat in zip(_MAPS, _heats(maps, images.shape[1], keys, placement), strict=True):
        ranks = _ranks(heat, keys)
        deletion = _curve(probability, images, black, ranks, whole, nothing, steps)
        insertion = _curve(probability, blurry, images, ranks, start, whole, steps)
        curves |= {f"deletion{ending}": deletion, f"insertion{ending}": insertion}
        shown = scaled(np.maximum(heat, 0))
        drop, increase = _change(whole, probability(shown[..., None] * images))
        areas = {f"deletion{ending}": area(deletion), f"insertion{ending}": area(insertion)}
        scores |= areas | {f"drop{ending}": drop, f"increase{ending}": increase}
    for values in (*scores.values(), *curves.values()):
        values[~finite] = np.nan
    return Faithfulness(scores, curves)


def blurred(images: Floats) -> Floats:
    """What insertion starts from: every image (b, s, s, c) behind a Gaussian of `BLUR` edges,
    float32.
    """
    images = np.asarray(images, np.float32)
    sigma = BLUR * images.shape[1]
    soft = [
        cv2.GaussianBlur(image, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE) for image in images
    ]
    return np.array(soft, np.float32).reshape(images.shape)


def area(curves: Floats) -> Floats:
    """Area under curves (b, steps + 1) over the interval 0 to 1, by trapezoids: (b,)."""
    return np.asarray((curves[:, 1:] + curves[:, :-1]).mean(axis=1) / 2, np.float32)


def surrogate(values: Floats, rng: np.random.Generator) -> Floats:
    """A random map (h, w) with the values and the smoothness of another one.

    Noise is given the power spectrum of the map, mirrored so that it has no jump at its edges,
    which fixes the autocorrelation, and then the map's values by rank (amplitude-adjusted surrogate
    data, Theiler 1992).
    """
    height, width = values.shape
    mirrored = np.pad(values - values.mean(), ((0, height), (0, width)), "symmetric")
    noise = np.fft.fft2(rng.standard_normal(mirrored.shape))
    field = np.fft.ifft2(np.abs(np.fft.fft2(mirrored)) * noise / np.abs(noise)).real[
        :height, :width
    ]
    result = np.empty(values.size, np.float32)
    result[np.argsort(field, axis=None, kind="stable")] = np.sort(values, axis=None)
    return result.reshape(values.shape)


# --- how ------------------------------------------------------------------------------------------


def _heats(
    maps: Floats, size: int, keys: list[tuple[int, int]], placement: Placement | None
) -> tuple[Floats, Floats, Floats]:
    """The maps, their shuffled pixels and their surrogates, at the size of the image, in the order
    of `_MAPS`.
    """
    heat = upsample(maps, size, placement)
    flat = heat.reshape(len(heat), size * size)
    shuffled = [
        np.random.default_rng([1, *key]).permutation(row)
        for key, row in zip(keys, flat, strict=True)
    ]
    smooth = [
        surrogate(one, np.random.default_rng([2, *key]))
        for key, one in zip(keys, maps, strict=True)
    ]
    return (
        heat,
        np.array(shuffled, np.float32).reshape(heat.shape),
        upsample(np.array(smooth), size, placement),
    )


def _ranks(heat: Floats, keys: list[tuple[int, int]]) -> NDArray[np.intp]:
    """The place of every pixel in the order of falling heat, (b, s, s); equals in random order."""
    ranks = np.empty((len(heat), heat[0].size), np.intp)
    for row, values, key in zip(ranks, heat.reshape(ranks.shape), keys, strict=True):
        mixed = np.random.default_rng([3, *key]).permutation(values.size)
        row[mixed[np.argsort(-values[mixed], kind="stable")]] = np.arange(values.size)
    return ranks.reshape(heat.shape)


def _curve(
    probability: Callable[[Floats], Floats],
    start: Floats,
    end: Floats,
    ranks: NDArray[np.intp],
    at_start: Floats,
    at_end: Floats,
    steps: int,
) -> Floats:
    """Probabilities (b, steps + 1) while the pixels of `start` become those of `end`, in the order
    of their ranks.
    """
    pixels = ranks[0].size
    curve = [at_start]
    for step in range(1, steps):
        changed = ranks < round(step * pixels / steps)
        curve.append(probability(np.where(changed[..., None], end, start)))
    return np.stack([*curve, at_end], axis=1)


def _change(before: Floats, after: Floats) -> tuple[Floats, Floats]:
    """Relative drop from one probability to another, and whether it rose, as 0 or 1; NaN stays
    NaN.
    """
    drop = np.maximum(before - after, 0) / np.maximum(before, np.finfo(np.float32).tiny)
    increase = np.where(np.isnan(before - after), np.nan, after > before)
    return drop.astype(np.float32), increase.astype(np.float32)
