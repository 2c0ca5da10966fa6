"""Test-time augmentation: the ways in which one image is looked at when it is scored."""

from typing import Any

from keras import ops


def views(images: Any, kind: str) -> list[Any]:
    """Images (n, s, s, c) as they are; with `flip` mirrored as well, with `turns` in all eight ways
    to turn and mirror a square.
    """
    found = [images]
    if kind != "none":
        found.append(ops.flip(images, axis=2))
    if kind == "turns":
        found += [ops.flip(each, axis=1) for each in found]
        found += [ops.transpose(each, (0, 2, 1, 3)) for each in found]
    return found
