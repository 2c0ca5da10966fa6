"""What augmentation does to images: each a function of a batch and of numbers for each image.

`images`: (b, s, s, c) float32, 0 to 255, as are results; numbers of images are (b,) float32.
Keras's own layers are used where they are right (`augmentation.py`): its shear is about a corner,
its equalisation takes a batch for one image, its blur has one width for a batch, and its erasing
strikes half as often as it is asked to.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

#: Tiles along each edge, and how far above even a tile's histogram may rise: OpenCV's defaults, but
#: for the limit, which is 40 there and hardly one at all.
_TILES, _CLIP = 8, 4.0


def affine(images: tf.Tensor, forward: tf.Tensor, fill: str) -> tf.Tensor:
    """Move the content of images by matrices (b, 2, 3) in shares of the edge, about the centre.

    Bilinear; `fill` is what lies outside: `constant`, black, or `reflect`.
    """
    size = float(images.shape[1])
    inverse = tf.linalg.inv(forward[:, :, :2])  # the operation asks where a pixel comes from
    centre = (size - 1) / 2
    shift = tf.linalg.matvec(inverse, forward[:, :, 2]) * size
    offset = centre - centre * tf.reduce_sum(inverse, axis=2) - shift
    zeros = tf.zeros_like(offset)
    rows = tf.concat([inverse, offset[:, :, None]], axis=2)
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=tf.concat([tf.reshape(rows, (-1, 6)), zeros], axis=1),
        output_shape=images.shape[1:3],
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode=fill.upper(),
    )


def matrices(turn: tf.Tensor, shear: Sequence[Any], shift: Sequence[Any]) -> tf.Tensor:
    """(b, 2, 3) for `affine`: turned by radians, counter-clockwise, then sheared by tangents and
    shifted by shares of the edge, right and down.
    """
    cosine, sine = tf.cos(turn), tf.sin(turn)
    one = tf.ones_like(cosine)
    turned = _matrix([[cosine, sine], [-sine, cosine]])
    sheared = _matrix([[one, one * shear[0]], [one * shear[1], one]])
    shifts = tf.stack([one * shift[0], one * shift[1]], axis=-1)
    return tf.concat([tf.matmul(sheared, turned), shifts[..., None]], axis=-1)


def _matrix(rows: list[list[tf.Tensor]]) -> tf.Tensor:
    return tf.stack([tf.stack(row, axis=-1) for row in rows], axis=-2)


def blend(images: tf.Tensor, other: tf.Tensor, share: tf.Tensor) -> tf.Tensor:
    """`share` of the images and the rest of another; shares above 1 lead away from the other."""
    share = _of_images(share)
    return bounded(share * images + (1 - share) * other)


def contrast(images: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Distance from each image's mean, multiplied."""
    return blend(images, tf.reduce_mean(images, (1, 2, 3), keepdims=True), factor)


def brightness(images: tf.Tensor, shift: tf.Tensor) -> tf.Tensor:
    """`shift`: in shares of white."""
    return bounded(images + 255 * _of_images(shift))


def gamma(images: tf.Tensor, exponent: tf.Tensor) -> tf.Tensor:
    return 255 * tf.pow(images / 255, _of_images(exponent))


def noise(images: tf.Tensor, deviation: tf.Tensor, seed: Any) -> tf.Tensor:
    """Gaussian, of a standard deviation in shares of white."""
    drawn = tf.random.stateless_normal(tf.shape(images), seed)
    return bounded(images + 255 * _of_images(deviation) * drawn)


def blur(images: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
    """Gaussian, of a standard deviation in pixels; at the edges only what lies inside counts.

    As two products with matrices, since a convolution has one kernel for a batch.
    """
    places = tf.range(tf.cast(tf.shape(images)[1], tf.float32))
    distances = tf.square(places[:, None] - places)
    widths = tf.maximum(width, 1e-3)[:, None, None]
    weights = tf.exp(-distances / (2 * tf.square(widths)))
    weights /= tf.reduce_sum(weights, axis=2, keepdims=True)
    rows = tf.einsum("bij,bjwc->biwc", weights, images)
    return tf.einsum("bij,bhjc->bhic", weights, rows)


def erase(images: tf.Tensor, chosen: tf.Tensor, draws: tf.Tensor, seed: Any) -> tf.Tensor:
    """A rectangle of noise in the `chosen` images, (b,) bool: Zhong 2017 (arXiv:1708.04896), with
    areas of 2 to 33 % and aspects of 0.3 to 1 / 0.3.

    `draws`: (b, 4) in [0, 1), for area, aspect and place.
    """
    edge = tf.cast(tf.shape(images)[1], tf.float32)
    area, aspect = 0.02 + 0.31 * draws[:, 0], tf.exp((2 * draws[:, 1] - 1) * -tf.math.log(0.3))
    # An edge longer than the image would lose area: the aspect gives way.
    high = tf.minimum(tf.sqrt(area * aspect), 1.0)
    wide = tf.minimum(area / high, 1.0)
    places = (tf.range(edge) + 0.5) / edge
    inside = []
    for length, draw in ((high, draws[:, 2]), (wide, draws[:, 3])):
        begin = draw * (1 - length)
        inside.append((places >= begin[:, None]) & (places < (begin + length)[:, None]))
    box = inside[0][:, :, None, None] & inside[1][:, None, :, None]
    drawn = tf.random.stateless_uniform(tf.shape(images), seed, maxval=255.0)
    return tf.where(box & chosen[:, None, None, None], drawn, images)


def solarize(images: tf.Tensor, threshold: tf.Tensor) -> tf.Tensor:
    """Invert what is at least as bright as the threshold, 0 to 255."""
    return tf.where(images >= _of_images(threshold), 255 - images, images)


def posterize(images: tf.Tensor, bits: tf.Tensor) -> tf.Tensor:
    """Keep the most significant bits of 8."""
    step = _of_images(tf.pow(2.0, 8 - bits))
    return tf.floor(images / step) * step


def auto_contrast(images: tf.Tensor) -> tf.Tensor:
    """Darkest to black and brightest to white, by channel; blank ones stay."""
    low = tf.reduce_min(images, (1, 2), keepdims=True)
    span = tf.reduce_max(images, (1, 2), keepdims=True) - low
    return tf.where(span > 0, tf.math.divide_no_nan((images - low) * 255, span), images)


def sharpness_base(images: tf.Tensor) -> tf.Tensor:
    """Images smoothed as Pillow does to sharpen by: 3 x 3 with a centre of 5, edges as they are."""
    rows = images[:, :-2] + images[:, 1:-1] + images[:, 2:]
    inner = rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]
    inner = (inner + 4 * images[:, 1:-1, 1:-1]) / 13
    inside = np.zeros((1, images.shape[1], images.shape[2], 1), np.bool_)
    inside[:, 1:-1, 1:-1] = True
    return tf.where(inside, tf.pad(inner, ((0, 0), (1, 1), (1, 1), (0, 0))), images)


def equalize(images: tf.Tensor) -> tf.Tensor:
    """Histogram equalisation of whole images, by channel, as Pillow does it but without its
    rounding; blank ones stay.
    """
    flat = _planes(images)
    counts, levels = _histograms(flat), _levels(flat)
    brightest = tf.gather(counts, tf.reduce_max(levels, axis=1), batch_dims=1)[:, None]
    others = tf.cast(tf.shape(flat)[1], tf.float32) - brightest
    table = tf.math.divide_no_nan(255 * tf.cumsum(counts, axis=1, exclusive=True), others)
    equal = tf.where(others > 0, tf.gather(table, levels, batch_dims=1), flat)
    return _unplaned(equal, images)


def local_equalization(images: tf.Tensor) -> tf.Tensor:
    """Contrast-limited adaptive equalisation, by channel: Pizer 1987
    (doi:10.1016/S0734-189X(87)80186-X), on 8 x 8 tiles of at most 4 times an even histogram, with
    tables interpolated between the tiles' centres.
    """
    size = images.shape[1]
    edge = -(-size // _TILES)
    missing = edge * _TILES - size
    padded = tf.pad(images, ((0, 0), (0, missing), (0, missing), (0, 0)), "REFLECT")
    batch, channels = tf.shape(images)[0], images.shape[-1]
    tiles = tf.reshape(padded, (batch, _TILES, edge, _TILES, edge, channels))
    tiles = tf.reshape(tf.transpose(tiles, (0, 5, 1, 3, 2, 4)), (-1, edge * edge))
    counts = _histograms(tiles)
    limit = max(1.0, _CLIP * edge * edge / 256)
    clipped = tf.minimum(counts, limit)
    excess = tf.reduce_sum(counts - clipped, axis=1, keepdims=True)
    tables = tf.cumsum(clipped + excess / 256, axis=1) * (255 / edge**2)
    tables = tf.reshape(tables, (batch * channels, _TILES * _TILES * 256))
    return _unplaned(_interpolated(tables, _planes(images), size, edge), images)


def _interpolated(tables: tf.Tensor, flat: tf.Tensor, size: int, edge: int) -> tf.Tensor:
    """Each pixel's value by the tables, (n, tiles * tiles * 256), of the four tiles around it."""
    place = (tf.range(size, dtype=tf.float32) + 0.5) / edge - 0.5
    low = tf.floor(place)
    part, low = place - low, tf.cast(low, tf.int32)
    ends = [tf.clip_by_value(low + step, 0, _TILES - 1) for step in (0, 1)]
    weights = [1 - part, part]
    levels, result = _levels(flat), tf.zeros_like(flat)
    for row, of_row in zip(ends, weights, strict=True):
        for column, of_column in zip(ends, weights, strict=True):
            tile = tf.reshape(row[:, None] * _TILES + column[None, :], (1, -1))
            share = tf.reshape(of_row[:, None] * of_column[None, :], (1, -1))
            result += share * tf.gather(tables, tile * 256 + levels, batch_dims=1)
    return result


def _planes(images: tf.Tensor) -> tf.Tensor:
    """(b * c, s * s)."""
    return tf.reshape(tf.transpose(images, (0, 3, 1, 2)), (-1, images.shape[1] * images.shape[2]))


def _unplaned(flat: tf.Tensor, images: tf.Tensor) -> tf.Tensor:
    _, height, width, channels = images.shape
    return tf.transpose(tf.reshape(flat, (-1, channels, height, width)), (0, 2, 3, 1))


def _histograms(flat: tf.Tensor) -> tf.Tensor:
    """Of each row, (n, 256) float32."""
    levels = _levels(flat)
    return _multiplied(levels) if tf.config.list_logical_devices("GPU") else _counted(levels)


def _counted(levels: tf.Tensor) -> tf.Tensor:
    counts = tf.math.bincount(levels, minlength=256, maxlength=256, axis=-1)
    return tf.cast(tf.ensure_shape(counts, (None, 256)), tf.float32)


def _multiplied(levels: tf.Tensor) -> tf.Tensor:
    """The same as a product of matrices: on GPUs, counting has no deterministic form."""
    sixteens, ones = (tf.one_hot(part, 16) for part in (levels // 16, levels % 16))
    return tf.reshape(tf.matmul(sixteens, ones, transpose_a=True), (-1, 256))


def _levels(flat: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.clip_by_value(tf.round(flat), 0.0, 255.0), tf.int32)


def bounded(images: tf.Tensor) -> tf.Tensor:
    return tf.clip_by_value(images, 0.0, 255.0)


def _of_images(numbers: tf.Tensor) -> tf.Tensor:
    return numbers[:, None, None, None]
