"""The pixels and masks of a run's images: from the image store where there is one, else from the
files.
"""

from collections import OrderedDict
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainables.core.errors import DataError, UnreadableImage
from trainables.core.input_format import InputFormat
from trainables.core.layout import RunLayout, cache_folder
from trainables.core.limits import MEGAPIXELS
from trainables.data.manifest import Manifest
from trainables.data.store import Chunk, build_store, decode_in_processes, open_store
from trainables.pictures import looks
from trainables.pictures.decoders import ask
from trainables.pictures.depth import Pixels, Uint8, raw, to_uint8
from xai.judging.heat import mask_at

Bools = NDArray[np.bool_]

_MOST_MASK_BYTES = 2**28  # that are kept


class Images:
    """The images of a run by id."""

    def __init__(self, layout: RunLayout) -> None:
        self.manifest = Manifest.load(layout.manifest)
        self.mask_names = sorted(
            name for name in map(str, self.manifest.table.columns) if name.startswith("mask_")
        )
        # As the files are now, no longer than this object lives.
        self._masks: OrderedDict[Any, Bools] = OrderedDict()
        self._mask_bytes = 0
        self._stores: dict[InputFormat, Pixels | None] = {}
        #: Why images could not be had when they were asked for, by id.
        self.lost: dict[str, str] = {}

    @cached_property
    def _row_of(self) -> dict[str, int]:
        return {image: row for row, image in enumerate(self.manifest.usable["image"])}

    def pixels(self, images: Sequence[str], form: InputFormat) -> tuple[Pixels, dict[str, str]]:
        """The images as the models saw them, 0 to 255, uint8 or with fractions float32 (n, size,
        size, channels), and what is wrong with those left black.
        """
        rows = [self._row_of[image] for image in images]
        store = self._store(form)
        if store is not None:
            return raw(store[rows]), {}
        channels = self.manifest.channels
        pixels = np.zeros((len(rows), form.size, form.size, channels), form.dtype)
        errors = {}
        for position, (image, row) in enumerate(zip(images, rows, strict=True)):
            chunk = Chunk.of(self.manifest.usable.iloc[[row]], form, channels)
            try:
                (pixels[[position]],) = decode_in_processes([chunk])
            except DataError as error:
                errors[image] = str(error)
        return raw(pixels), errors

    def _store(self, form: InputFormat) -> Pixels | None:
        """The store of this node; None where it is gone and cannot be built again, because an image
        is damaged.
        """
        if form not in self._stores:
            root = cache_folder() / "stores"
            try:
                store = open_store(self.manifest, form, root) or build_store(
                    self.manifest, form, root
                )
                self._stores[form] = store.pixels
            except DataError:
                self._stores[form] = None
        return self._stores[form]

    def original(self, image: str) -> Uint8:
        """The image file, uint8 (H, W) or (H, W, 3); raises UnreadableImage where there is none, or
        it has changed.

        The reason is kept in `lost`, unless the image was no part of the run from the start.
        """
        if (reason := self._skipped.get(image)) is not None:
            raise UnreadableImage(reason)
        try:
            if (row := self._rows.get(image)) is None:
                raise UnreadableImage("no image of this run")
            megapixels = max(MEGAPIXELS, row["width"] * row["height"] / 1e6)
            return to_uint8(
                ask(looks.pixels, row["path"], megapixels, row["content_hash"]), row["bits"]
            )
        except UnreadableImage as error:
            self.lost[image] = error.reason
            raise

    def path(self, image: str) -> Path:
        return Path(self._rows[image]["path"])

    @cached_property
    def _rows(self) -> dict[str, dict[str, Any]]:
        rows = self.manifest.table[
            ["image", "path", "bits", "width", "height", "content_hash"]
        ].to_dict("records")
        return {row["image"]: {str(name): value for name, value in row.items()} for row in rows}

    @cached_property
    def _skipped(self) -> dict[str, str]:
        table = self.manifest.table
        skipped = table[table["state"] == "skipped"]
        return dict(zip(skipped["image"], skipped["reason"], strict=True))

    def masks(self, images: Sequence[str], form: InputFormat) -> dict[str, Bools]:
        """By name without 'mask_', (n, size, size); empty where an image has none, or none that can
        be read.
        """
        found = {}
        rows = self.manifest.usable.iloc[[self._row_of[image] for image in images]]
        shapes = list(zip(rows["height"], rows["width"], strict=True))
        for name in self.mask_names:
            masks = zip(rows[name], shapes, strict=True)
            found[name.removeprefix("mask_")] = np.stack([self._mask(*m, form) for m in masks])
        return found

    def _mask(self, path: str | None, image: tuple[int, int], form: InputFormat) -> Bools:
        """One mask; those asked for last are kept."""
        key = path, form, image if form.fit == "pad" else (form.size, form.size)
        if key not in self._masks:
            self._masks[key] = _mask(path, form, image)
            self._mask_bytes += self._masks[key].nbytes
            while self._mask_bytes > _MOST_MASK_BYTES and len(self._masks) > 1:
                self._mask_bytes -= self._masks.popitem(last=False)[1].nbytes
        self._masks.move_to_end(key)
        return self._masks[key]


def _mask(path: str | None, form: InputFormat, image: tuple[int, int]) -> Bools:
    if isinstance(path, str):
        try:
            pixels = ask(looks.pixels, path, MEGAPIXELS)
            return mask_at(pixels if pixels.ndim == 2 else pixels.max(axis=2), form, image)
        except UnreadableImage:
            pass
    return np.zeros((form.size, form.size), np.bool_)
