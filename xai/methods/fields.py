"""The receptive fields of a model's tensors, by what its operations do: where the cells of each lie
in the image.

Operations that keep height and width keep places: activations, normalisation, channels, attention.
Where branches meet, those of the result's height and width count, and places that differ are
averaged; a squeezed branch of 1 × 1, which only weighs channels, does not. Tokens remember the map
that they were made from. Any other operation is taken to make cells that tile what its input
covers, and behind one without rows and columns they tile the image: a guess.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from xai.methods.placement import FIELD, GUESS, Axis, Placement, same_padding


class _Step(NamedTuple):
    """An operation along one edge: number of the edge, cells of its input, how many its result
    has.
    """

    operation: Any
    kernel: tuple[int, int] | None
    edge: int
    before: Axis
    cells: int


_Rule = Callable[[_Step], Axis]


class Field(NamedTuple):
    """Where the cells of a tensor lie, and whether every operation on the way was followed."""

    y: Axis
    x: Axis
    followed: bool = True

    @property
    def shape(self) -> tuple[int, int]:
        """Cells along each edge."""
        return self.y.cells, self.x.cells

    def placement(self, size: tuple[int, int]) -> Placement:
        """In edges of an image of `size`, height and width."""
        return Placement.of(self.y, self.x, size, FIELD if self.followed else GUESS)


class Fields:
    """The fields of the tensors of one run; every operation must be shown once, in order."""

    def __init__(self, images: tf.Tensor) -> None:
        height, width = (int(n) for n in images.shape[1:3])
        self._image = Field(Axis.tiling(height, height), Axis.tiling(width, width))
        self._known = {id(images): self._image}

    def placement(self, features: tf.Tensor) -> Placement:
        """Of a map (b, h, w, k)."""
        return self._known[id(features)].placement(self._image.shape)

    def add(
        self, operation: Any, inputs: Sequence[tf.Tensor], outputs: Sequence[tf.Tensor]
    ) -> None:
        """Work out the fields of what an operation made."""
        given = [self._known[id(x)] for x in inputs if id(x) in self._known]
        for output in outputs:
            rank = output.shape.rank
            if id(output) in self._known or rank is None or rank < 3:
                continue  # handed on as it was, or without rows and columns
            if rank == 4 and None not in output.shape[1:3]:
                shape = int(output.shape[1]), int(output.shape[2])
                self._known[id(output)] = self._mapped(
                    operation, given, shape, _kernel(operation, inputs)
                )
            elif given:
                self._known[id(output)] = _merged(
                    [field for field in given if field.shape == given[0].shape]
                )

    def _mapped(
        self,
        operation: Any,
        given: Sequence[Field],
        shape: tuple[int, int],
        kernel: tuple[int, int] | None,
    ) -> Field:
        if not given:
            height, width = self._image.shape
            return Field(
                Axis.tiling(height, shape[0]), Axis.tiling(width, shape[1]), followed=False
            )
        if (rule := _rule(operation, kernel)) is not None:
            y = rule(_Step(operation, kernel, 0, given[0].y, shape[0]))
            x = rule(_Step(operation, kernel, 1, given[0].x, shape[1]))
            return Field(y, x, given[0].followed)
        if alike := [field for field in given if field.shape == shape]:
            return _merged(alike)
        widest = max(given, key=lambda field: field.y.cells * field.x.cells)
        return Field(widest.y.resampled(shape[0]), widest.x.resampled(shape[1]), followed=False)


def _merged(fields: Sequence[Field]) -> Field:
    """One for all: their mean, each different one counted once."""
    y, x = (
        list(dict.fromkeys(axes))
        for axes in zip(*((field.y, field.x) for field in fields), strict=True)
    )
    return Field(_mean(y), _mean(x), all(field.followed for field in fields))


def _mean(axes: Sequence[Axis]) -> Axis:
    count = len(axes)
    return Axis(
        sum(axis.start for axis in axes) / count,
        sum(axis.step for axis in axes) / count,
        axes[0].cells,
    )


# --- operations -----------------------------------------------------------------------------------


def _rule(operation: Any, kernel: tuple[int, int] | None) -> _Rule | None:
    """What an operation does to places; None where that is not known."""
    rule = next(
        (_RULES[kind.__name__] for kind in type(operation).__mro__ if kind.__name__ in _RULES), None
    )
    unsized = rule in (_window, _transposed) and kernel is None
    turned = getattr(operation, "data_format", None) == "channels_first"
    fitted = any(getattr(operation, f"{way}_to_aspect_ratio", False) for way in ("crop", "pad"))
    return None if unsized or turned or fitted else rule


def _kernel(operation: Any, inputs: Sequence[tf.Tensor]) -> tuple[int, int] | None:
    """Rows and columns of an operation's window: a setting, or the shape of what it is given beside
    the map.
    """
    for name in ("kernel_size", "pool_size", "size"):
        if (size := getattr(operation, name, None)) is not None:
            return _pair(size)
    given = tuple(inputs[1].shape) if len(inputs) > 1 else ()
    return given[:2] if len(given) == 4 and None not in given else None


def _pair(value: Any) -> tuple[int, int]:
    first, second = (value, value) if isinstance(value, int) else value
    return int(first), int(second)


def _numbers(step: _Step, padded: int) -> dict[str, int]:
    """Of the window along an edge of `padded` cells, as `Axis.window` takes them."""
    assert step.kernel is not None
    operation, size = step.operation, step.kernel[step.edge]
    stride = _pair(step.kernel if operation.strides is None else operation.strides)[step.edge]
    dilation = _pair(getattr(operation, "dilation_rate", 1))[step.edge]
    before = same_padding(padded, size, stride, dilation) if operation.padding == "same" else 0
    return {
        "cells": step.cells,
        "size": size,
        "stride": stride,
        "before": before,
        "dilation": dilation,
    }


def _window(step: _Step) -> Axis:
    return step.before.window(**_numbers(step, step.before.cells))


def _transposed(step: _Step) -> Axis:
    return step.before.transposed(**_numbers(step, step.cells))


def _padded(step: _Step) -> Axis:
    return step.before.shifted(step.cells, -step.operation.padding[step.edge][0])


def _padded_all_over(step: _Step) -> Axis:
    """By the operation, which pads every axis of its tensor, or all alike."""
    widths = step.operation.pad_width
    return step.before.shifted(step.cells, -widths[step.edge + 1 if len(widths) > 1 else 0][0])


def _cropped(step: _Step) -> Axis:
    return step.before.shifted(step.cells, step.operation.cropping[step.edge][0])


def _cropped_to_the_centre(step: _Step) -> Axis:
    spare = step.before.cells - step.cells
    return (
        step.before.shifted(step.cells, spare // 2)
        if spare >= 0
        else step.before.resampled(step.cells)
    )


def _resampled(step: _Step) -> Axis:
    return step.before.resampled(step.cells)


_RULES: Mapping[str, _Rule] = {
    **dict.fromkeys(
        ("Conv2D", "DepthwiseConv2D", "SeparableConv2D", "MaxPooling2D", "AveragePooling2D"),
        _window,
    ),
    **dict.fromkeys(
        ("Conv", "DepthwiseConv", "SeparableConv", "MaxPool", "AveragePool", "ExtractPatches"),
        _window,
    ),
    **dict.fromkeys(("Conv2DTranspose", "ConvTranspose"), _transposed),
    "ZeroPadding2D": _padded,
    "Pad": _padded_all_over,
    "Cropping2D": _cropped,
    "CenterCrop": _cropped_to_the_centre,
    **dict.fromkeys(("UpSampling2D", "Resizing", "Resize"), _resampled),
    **dict.fromkeys(("AdaptiveAveragePooling2D", "AdaptiveMaxPooling2D"), _resampled),
    **dict.fromkeys(("AdaptiveAveragePool", "AdaptiveMaxPool"), _resampled),
}
