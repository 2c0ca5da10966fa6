"""Rows of a shard while they are made: an image of a cell, with its map for one class or the reason
why it has none.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xai.methods.placement import Placement
from xai.shards.map_columns import Floats, pack, unpacked

_IMAGE = ("image", "label", "group", "prediction")
_STORED = tuple(pack(np.zeros((1, 1), np.float32)))


@dataclass(frozen=True)
class Source:
    """What all rows of one shard have in common; `layer` is "input" for maps of pixels."""

    candidate: str
    fold: int
    seed: int
    split: str
    method: str
    layer: str
    model_hash: str


@dataclass(frozen=True)
class ClassMap:
    """A map for one class and what the model said of that class; `stored`: `pack`'s columns."""

    class_name: str
    logit: float
    probability: float
    stored: Mapping[str, Any]

    @property
    def heat(self) -> Floats:
        """The map as it is stored, (h, w)."""
        return unpacked(self.stored)

    @property
    def placement(self) -> Placement:
        return Placement(*(self.stored[name] for name in Placement._fields))


@dataclass(frozen=True)
class MapRow:
    """Either `map` or `error` is None. `scores`: further columns, numbers or curves."""

    source: Source
    image: str
    label: str
    group: str
    prediction: str
    map: ClassMap | None = None
    error: str | None = None
    scores: dict[str, float | NDArray[Any]] = field(default_factory=dict)

    @classmethod
    def read(cls, columns: Mapping[str, Any]) -> "MapRow":
        """A row as `read_shard` gives it."""
        source = Source(**{each.name: columns[each.name] for each in fields(Source)})
        image = {name: columns[name] for name in _IMAGE}
        if columns["error"] is not None:
            return cls(source, **image, error=columns["error"])
        stored = {name: columns[name] for name in _STORED}
        of_class = columns["class"], columns["logit"], columns["probability"]
        return cls(source, **image, map=ClassMap(*of_class, stored))

    def columns(self) -> dict[str, Any]:
        """As `write_shard` takes it."""
        row = vars(self.source) | {name: getattr(self, name) for name in _IMAGE}
        if self.map is None:
            return {**row, "error": self.error}
        of_class = {"class": self.map.class_name, "logit": self.map.logit}
        of_class["probability"] = self.map.probability
        return {**row, **of_class, **self.map.stored, **self.scores}
