"""Maps from what happens to a logit when parts of the image are hidden behind the image's own mean
colour.

Black would be no absence: in a radiograph it is air. Each mask (size, size) shows the image where
it is 1.
"""

from collections.abc import Iterable, Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

from xai.methods.classifier import Classifier, Floats, Pixels, Targets

BATCH = 32  # masked images per forward pass
CELLS = 14  # of occlusion's grid, along an edge
MASKS = 1000
MASK_CELLS = 7  # of RISE's coarse masks, along an edge
VISIBLE = 0.5  # share of those cells


def occlusion(
    classifier: Classifier,
    pixels: Pixels,
    targets: Targets,
    seed: int = 0,  # noqa: ARG001
    cells: int = CELLS,
) -> Floats:
    """Occlusion (Zeiler and Fergus 2014, arXiv:1311.2901, section 4.2), (b, t, cells, cells): y(x)
    − y(x, hidden).

    The hidden square is centred on a cell and two cells wide, cut off at the image's edge. `cells`
    ** 2 forward passes.
    """
    height, width = classifier.input_shape[:2]
    rows, columns = _spans(height, cells), _spans(width, cells)
    masks = np.ones((len(rows) * len(columns), height, width), np.uint8)
    for mask, (row, column) in zip(
        masks, ((row, column) for row in rows for column in columns), strict=True
    ):
        mask[row, column] = 0
    whole = np.take_along_axis(classifier.logits(pixels), targets, axis=1)
    maps = []
    for image, chosen, logits in zip(pixels, targets, whole, strict=True):
        hidden = masked_logits(classifier, image, in_batches(masks))[:, chosen]
        maps.append((logits - hidden).T.reshape(-1, len(rows), len(columns)))
    return np.stack(maps)


def _spans(size: int, cells: int) -> list[slice]:
    """The pixels hidden around each cell along an edge."""
    edges = [(size * (cell - 0.5) / cells, size * (cell + 1.5) / cells) for cell in range(cells)]
    return [slice(max(round(low), 0), min(round(high), size)) for low, high in edges]


def rise(
    classifier: Classifier, pixels: Pixels, targets: Targets, seed: int = 0, masks: int = MASKS
) -> Floats:
    """RISE (Petsiuk et al. 2018, arXiv:1806.07421, equation 6), (b, t, size, size): 1/(N p) Σᵢ (y(x
    ∘ Mᵢ) − ȳ) Mᵢ.

    N = `masks` forward passes, p the visible share. The mean logit ȳ is taken off: in expectation
    that moves a map by a constant, so that 0 means no evidence, and it removes most of the sampling
    noise. The same masks serve every image, so that a map does not depend on the batch it was made
    in.
    """
    size = classifier.input_shape[:2]
    products = np.zeros((*targets.shape, *size))
    sums, mask_sum = np.zeros(targets.shape), np.zeros(size)
    for batch in _rise_masks(np.random.default_rng(seed), masks, size):
        mask_sum += batch.sum(axis=0, dtype=np.float64)
        for index, (image, chosen) in enumerate(zip(pixels, targets, strict=True)):
            logits = masked_logits(classifier, image, [batch])[:, chosen]
            products[index] += np.tensordot(logits.T, batch, axes=1)
            sums[index] += logits.sum(axis=0, dtype=np.float64)
    maps = products - (sums / masks)[..., None, None] * mask_sum
    return (maps / (masks * VISIBLE)).astype(np.float32)


def _rise_masks(rng: np.random.Generator, count: int, size: tuple[int, int]) -> Iterator[Floats]:
    """Batches of coarse random grids, enlarged smoothly by one cell too much and shifted by less
    than a cell.
    """
    cell = tuple(-(-edge // MASK_CELLS) for edge in size)
    for start in range(0, count, BATCH):
        number = min(BATCH, count - start)
        grids = (rng.random((number, MASK_CELLS + 1, MASK_CELLS + 1)) < VISIBLE).astype(np.float32)
        enlarged = resized(grids, (cell[0] * (MASK_CELLS + 1), cell[1] * (MASK_CELLS + 1)))
        shifts = rng.integers(0, cell, (number, 2))
        yield np.stack(
            [
                mask[y : y + size[0], x : x + size[1]]
                for mask, (y, x) in zip(enlarged, shifts, strict=True)
            ]
        )


def masked_logits(
    classifier: Classifier, image: Pixels, masks: Iterable[NDArray[np.generic]]
) -> Floats:
    """The logits (m, n) of one image (size, size, channels) behind batches of masks (…, size,
    size), m in all.
    """
    seen = image.astype(np.float32)
    mean = seen.mean(axis=(0, 1))
    return np.concatenate(
        [
            classifier.logits(mean + batch.astype(np.float32)[..., None] * (seen - mean))
            for batch in masks
        ]
    )


def in_batches(masks: NDArray[np.generic]) -> Iterator[NDArray[np.generic]]:
    """The masks, `BATCH` at a time."""
    return (masks[start : start + BATCH] for start in range(0, len(masks), BATCH))


def resized(masks: NDArray[np.generic], size: tuple[int, int]) -> Floats:
    """Masks (m, h, w), enlarged bilinearly to (m, *size)."""
    return np.stack(
        [cv2.resize(mask, size[::-1], interpolation=cv2.INTER_LINEAR) for mask in masks]
    )
