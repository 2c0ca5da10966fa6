"""Where the cells of a map lie in the image, and how a map is enlarged so that they lie there.

A cell's place is the centre of its receptive field. Along an edge, places are equally spaced:
strides set the step, kernels and paddings the first one. With TensorFlow's 'same' padding, which is
asymmetric wherever a stride does not fit, they are not the centres of the tiles that the image
could be cut into, but up to half a cell beside them.
"""

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

#: How places are known: by the arithmetic of receptive fields; because the map's cells are parts of
#: the image; not at all, since an operation on the way could not be followed, so that its output is
#: taken to tile what its input covers.
FIELD, TILES, GUESS = "field", "tiles", "guess"


class Axis(NamedTuple):
    """Cells along an edge of the image, cell i centred at `start` + i `step`, in pixels; pixel 0 is
    centred at 0.5.
    """

    start: float
    step: float
    cells: int

    @classmethod
    def tiling(cls, extent: float, cells: int) -> "Axis":
        """Equal tiles of an edge of `extent` pixels."""
        return cls(extent / cells / 2, extent / cells, cells)

    def window(self, cells: int, size: int, stride: int, before: int, dilation: int = 1) -> "Axis":
        """After a convolution or pooling with `before` cells of padding in front."""
        middle = (size - 1) * dilation / 2 - before
        return Axis(self.start + self.step * middle, self.step * stride, cells)

    def transposed(
        self, cells: int, size: int, stride: int, before: int, dilation: int = 1
    ) -> "Axis":
        """After the transpose of `window` of the same numbers."""
        middle = (size - 1) * dilation / 2 - before
        return Axis(self.start - self.step * middle / stride, self.step / stride, cells)

    def shifted(self, cells: int, by: int) -> "Axis":
        """After `by` cells in front were cut off; padded, where negative."""
        return Axis(self.start + self.step * by, self.step, cells)

    def resampled(self, cells: int) -> "Axis":
        """Other cells that cover the same extent."""
        factor = self.cells / cells
        return Axis(self.start + self.step * (factor - 1) / 2, self.step * factor, cells)


def same_padding(cells: int, size: int, stride: int, dilation: int = 1) -> int:
    """How many cells TensorFlow's 'same' puts in front of `cells`; where the total is odd, one more
    goes behind.
    """
    made = -(-cells // stride)
    return max((made - 1) * stride + (size - 1) * dilation + 1 - cells, 0) // 2


class Placement(NamedTuple):
    """Cell (i, j) of a map is centred at (`top` + i `step_y`, `left` + j `step_x`), in image edges
    from the top left.

    `placed`: 'field', 'tiles' or 'guess', how this is known.
    """

    top: float
    left: float
    step_y: float
    step_x: float
    placed: str = TILES

    @classmethod
    def tiles(cls, height: int, width: int) -> "Placement":
        """Of a map whose cells are equal parts of the image."""
        return cls.of(Axis.tiling(1, height), Axis.tiling(1, width), (1, 1), TILES)

    @classmethod
    def of(cls, y: Axis, x: Axis, size: tuple[int, int], placed: str) -> "Placement":
        """From axes in pixels of an image of `size`, height and width."""
        return cls(y.start / size[0], x.start / size[1], y.step / size[0], x.step / size[1], placed)

    def resampled(self, before: tuple[int, int], after: tuple[int, int]) -> "Placement":
        """Of the map whose cells, `after` (h, w) in number, cover what `before` (h, w) of these
        do.
        """
        y = Axis(self.top, self.step_y, before[0]).resampled(after[0])
        x = Axis(self.left, self.step_x, before[1]).resampled(after[1])
        return Placement.of(y, x, (1, 1), self.placed)


def enlarge(
    maps: NDArray[np.generic], size: tuple[int, int], placement: Placement | None = None
) -> Floats:
    """Maps (..., h, w) over an image of `size` (H, W) pixels, bilinearly: float32 (..., H, W).

    A value belongs to the place of its cell; beyond the outermost places the values there go on.
    Without `placement` the cells are equal parts of the image.
    """
    values: Floats = np.asarray(maps, np.float32)
    height, width = values.shape[-2:]
    if placement is None or placement[:4] == Placement.tiles(height, width)[:4]:
        flat = values.reshape(-1, height, width)
        resized = [cv2.resize(one, size[::-1], interpolation=cv2.INTER_LINEAR) for one in flat]
        return np.array(resized, np.float32).reshape(*values.shape[:-2], *size)
    down = _shares(size[0], height, placement.top, placement.step_y)
    across = _shares(size[1], width, placement.left, placement.step_x)
    return np.asarray(down @ values @ across.T, np.float32)


def _shares(pixels: int, cells: int, start: float, step: float) -> Floats:
    """What each cell along an edge gives to each pixel: (pixels, cells), bilinear."""
    place = np.clip(((np.arange(pixels) + 0.5) / pixels - start) / step, 0, cells - 1)
    return np.asarray(np.maximum(1 - np.abs(place[:, None] - np.arange(cells)), 0), np.float32)
