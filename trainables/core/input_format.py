"""How the pixels of an image become the square that a model is given; what a model does with them
from there on is its own.
"""

from typing import NamedTuple


class Box(NamedTuple):
    """Where an image lies in the square, in pixels."""

    top: int
    left: int
    height: int
    width: int

    @property
    def inside(self) -> tuple[slice, slice]:
        """Its rows and columns."""
        rows = slice(self.top, self.top + self.height)
        return rows, slice(self.left, self.left + self.width)


class InputFormat(NamedTuple):
    """`size`: edge of the square in pixels; `fit`, `pad_value`, `depth`: as in `Input`, the part of
    a training's settings.
    """

    size: int
    fit: str = "stretch"
    pad_value: int = 0
    depth: int = 8

    @property
    def dtype(self) -> str:
        return f"uint{self.depth}"

    @property
    def fill(self) -> int:
        """The value of pixels around the image."""
        return self.pad_value * (257 if self.depth == 16 else 1)

    @property
    def suffix(self) -> str:
        """What names end in that tell formats of one size apart; nothing by default."""
        pad = f"-pad{self.pad_value}" if self.fit == "pad" else ""
        return pad + ("-16bit" if self.depth == 16 else "")

    def __str__(self) -> str:
        return f"{self.size} px{self.suffix.replace('-', ', ')}"

    def box(self, height: int, width: int) -> Box:
        """Where an image of so many rows and columns lies: everywhere, or centred as large as it
        fits with its own proportions, edges rounded to pixels and no edge less than one.
        """
        if self.fit == "stretch":
            return Box(0, 0, self.size, self.size)
        longest = max(height, width)
        h, w = (max((2 * n * self.size + longest) // (2 * longest), 1) for n in (height, width))
        return Box((self.size - h) // 2, (self.size - w) // 2, h, w)
