"""From the image store to the model: batches of raw pixels, read straight from the
memory-mapped file.
"""

from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray


class Batches:
    """The batches of one part of a cell, as a tf.data pipeline that can be iterated once per epoch.

    `pixels`: the store, (n, size, size, channels) uint8 or uint16. `rows`: which of its rows belong
    to the part. `labels`: class index of each of those rows, (m,) int32. Iterating yields (pixels
    (b, size, size, channels), labels int32 (b,), weights float32 (b,)); the last batch may be
    smaller.
    """

    def __init__(
        self,
        pixels: NDArray[Any],
        rows: NDArray[np.int64],
        labels: NDArray[np.int32],
        batch_size: int,
    ) -> None:
        self._pixels = pixels
        self._rows = rows
        self.labels = labels
        self._weights = np.ones(len(rows), np.float32)
        self._strata: list[list[NDArray[np.int64]]] | None = None
        self.batch_size = batch_size
        self._order = np.arange(len(rows))
        self.steps = -(-len(rows) // batch_size)
        # One pipeline serves all epochs: only the order, which lives outside the graph, changes.
        self._dataset = (
            tf.data.Dataset.range(self.steps).map(self._read, deterministic=True).prefetch(2)
        )

    def __len__(self) -> int:
        """Number of images."""
        return len(self._rows)

    def weigh(self, weights: NDArray[np.float32]) -> None:
        """Give each row a weight, (m,) float32; without, all are 1."""
        self._weights = weights

    def balance(self, groups: NDArray[np.object_] | None) -> None:
        """From now on an epoch, of as many images as before, shows every class equally often; with
        `groups`, (m,), every group of a class as well, up to one.
        """
        self._strata = []
        for label in np.unique(self.labels):
            places = np.flatnonzero(self.labels == label)
            inner = [places]
            if groups is not None:
                named = groups[places]
                inner = [places[named == name] for name in np.unique(named)]
            self._strata.append(inner)

    def shuffle(self, seed: int, epoch: int) -> None:
        """Choose the order of an epoch; it depends on seed and epoch alone, so that a resumed cell
        sees the same.
        """
        rng = np.random.default_rng([seed, epoch])
        if self._strata is None:
            self._order = rng.permutation(len(self._rows))
            return
        shares = _shares(len(self._rows), len(self._strata), rng)
        chosen = [
            _repeated(places, number, rng)
            for stratum, share in zip(self._strata, shares, strict=True)
            for places, number in zip(stratum, _shares(share, len(stratum), rng), strict=True)
        ]
        self._order = rng.permutation(np.concatenate(chosen))

    def __iter__(self) -> Any:
        return iter(self._dataset)

    def _read(self, step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        pixels, labels, weights = tf.numpy_function(
            self._take, [step], (tf.as_dtype(self._pixels.dtype), tf.int32, tf.float32)
        )
        pixels.set_shape((None, *self._pixels.shape[1:]))
        labels.set_shape((None,))
        weights.set_shape((None,))
        return pixels, labels, weights

    def _take(self, step: int) -> tuple[NDArray[Any], NDArray[np.int32], NDArray[np.float32]]:
        chosen = self._order[step * self.batch_size : (step + 1) * self.batch_size]
        return self._pixels[self._rows[chosen]], self.labels[chosen], self._weights[chosen]


def _shares(total: int, parts: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """`total` in equal whole parts; which of them get one more is drawn."""
    shares = np.full(parts, total // parts)
    shares[rng.permutation(parts)[: total % parts]] += 1
    return shares


def _repeated(
    places: NDArray[np.int64], number: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """So many of the places, none again before all were there."""
    rounds = -(-number // len(places))
    drawn = [rng.permutation(places) for _ in range(rounds)]
    return np.concatenate([*drawn, places[:0]])[:number]
