"""What maps of one size can score on a mask at best: three by three cells cannot point at every
opacity.

Maps are enlarged linearly, rows and columns apart, so that what they can reach follows from the
weights of their cells in every pixel, and no map has to be tried. Masks are bool (b, s, s).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from xai.judging.heat import Bools, Floats

#: (maps (n, h, w), size of the image) → maps at the size of the image (n, size, size)
Enlarge = Callable[[NDArray[Any], int], Floats]
_ROUNDING = 1e-5  # of weights


class Reach(NamedTuple):
    """The weight of cell (i, j) of a map (h, w) in pixel (y, x): `rows`[y, i] `columns`[x, j], (s,
    h) and (s, w).
    """

    rows: Floats
    columns: Floats

    @classmethod
    def of(cls, shape: tuple[int, int], size: int, enlarge: Enlarge) -> "Reach":
        """Of the cells of maps of this shape in images of `size`, as `enlarge` spreads them."""
        height, width = shape
        rows = enlarge(np.eye(height, dtype=np.float32)[:, :, None], size)[:, :, 0]
        columns = enlarge(np.eye(width, dtype=np.float32)[:, None, :], size)[:, 0, :]
        return cls(rows.T, columns.T)

    def peaks(self, regions: Bools) -> NDArray[np.float64]:
        """The share of each cell's place that lies in the region, (b, h, w).

        A cell's place is where it weighs most: the pixel at its centre or those around it, and for
        a cell at the border all from there outwards.
        """
        rows, columns = (weights >= weights.max(axis=0) - _ROUNDING for weights in self)
        return _within(rows, columns, regions) / _within(rows, columns, np.ones_like(regions[:1]))

    def energy(self, masks: Bools) -> NDArray[np.float64]:
        """The most energy that any map has inside its mask, (b,).

        The energy of a map is an average of its cells' own, by what they hold, so the best has all
        of it in one cell.
        """
        inside, whole = _within(*self, masks), _within(*self, np.ones_like(masks[:1]))
        return np.asarray(
            np.divide(inside, whole, where=whole > 0, out=np.zeros_like(inside)).max(axis=(1, 2))
        )

    def iou_top(self, masks: Bools, top: float) -> NDArray[np.float64]:
        """A bound, (b,), on the IoU of mask M and hottest pixels R.

        R is at least a share `top` of all pixels or, where fewer have any heat, whatever a cell
        reaches: |R ∩ M| / |R ∪ M| ≤ |M| / max(|M|, |R|).
        """
        reached = np.outer(*((weights > 0).sum(axis=0) for weights in self))
        pixels = masks[0].size
        smallest = min(top * (pixels - 1), reached[reached > 0].min())
        inside = masks.sum(axis=(1, 2))
        return np.asarray(inside / np.maximum(inside, smallest))

    def iou_half(self, masks: Bools, half: float) -> NDArray[np.float64]:
        """A bound, (b,), on the IoU of mask M and the pixels R of at least `half` the maximum.

        R has all pixels B in which the hottest cell weighs `half` or more, so |R ∩ M| / |R ∪ M| ≤
        |M| / |B ∪ M|, and the cell for which this is largest gives the bound.
        """
        inside = masks.sum(axis=(1, 2), dtype=np.float64)[:, None]
        best = np.zeros(len(masks))
        for weights in self.rows.T:
            reached = weights > 0
            hot = weights[reached, None, None] * self.columns >= half  # (y, x, j)
            beside = hot.sum(axis=(0, 1)) - np.tensordot(
                masks[:, reached].astype(np.float32), hot, 2
            )
            best = np.maximum(best, (inside / np.maximum(inside + beside, 1)).max(axis=1))
        return best


def _within(rows: NDArray[Any], columns: NDArray[Any], regions: Bools) -> NDArray[np.float64]:
    """The sum of each cell's weights over the pixels of the region: (b, h, w)."""
    return np.asarray(rows.T.astype(np.float64) @ regions @ columns.astype(np.float64))
