"""What is to be explained, cut into shards, and which of them are missing. Knows neither Ray nor
TensorFlow.
"""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal
from zipfile import ZipFile

from pydantic import Field

from trainables.core.errors import ModelError, RunFolderError, nearest
from trainables.core.files import file_digest
from trainables.core.layout import RunLayout
from trainables.core.ledger import Entry
from trainables.core.records import DamagedRecord
from trainables.core.run_folder import candidate_id, read_entries, read_keys
from trainables.core.values import Frozen, Whole, digest
from trainables.data.manifest import Manifest
from xai.methods.registry import Method, method_named
from xai.shards.heatmaps import SCORES, shard_digest

#: Raise when the same shard would hold other maps than before.
VERSION = 2
#: Raise when the same maps would get other scores than before.
SCORES_VERSION = 1

IMAGES_PER_SHARD = 256
_MOST_BYTES = 2**26  # of a model's configuration
#: The layer that leads into the pooling, wherever it is.
AUTO = "auto"
Say = Callable[[str], None]
_SPLITS = {"test": ("test",), "oof": ("fold",), "all": ("fold", "test")}


class ExplainOptions(Frozen):
    """What to explain of a run."""

    candidates: tuple[str, ...] = Field((), description="Ids or names; none: all.")
    folds: tuple[int, ...] = Field((), description="None: all.")
    split: Literal["test", "oof", "all"] = Field(
        "all", description="Test set, out-of-fold images, or both."
    )
    methods: tuple[str, ...] = Field(
        ("gradcam",), description="Names, or name@layer for a layer of its own."
    )
    layers: tuple[str, ...] = Field(
        (AUTO,), description="For methods of a layer: names, cells along an edge, or auto."
    )
    faithfulness: Whole = Field(
        32, ge=0, description="Images of a cell, split and method whose maps the model judges."
    )

    @property
    def explanations(self) -> list[tuple[Method, str]]:
        """Every method with every layer that it is asked for; ModelError for one that does not
        exist.
        """
        found = []
        for text in self.methods:
            name, _, own = text.partition("@")
            method = method_named(name)
            layers = ("input",) if not method.layered else (own,) if own else self.layers
            found += [(method, layer) for layer in layers]
        return list(dict.fromkeys(found))


class Shard(Frozen):
    """Some images of one cell, one method and one layer: one file."""

    key: str = Field(description="Address of the cell in the ledger.")
    method: str
    layer: str
    split: Literal["fold", "test"]
    number: int
    images: tuple[str, ...]
    judged: tuple[str, ...] = Field(
        description="Those of the images whose maps are put to the model."
    )
    masks: str = Field(description="Digest of what the masks of the images show.")
    model_hash: str

    @property
    def digest(self) -> str:
        """Of what decides the maps."""
        return digest([VERSION, self.model_dump(mode="json", exclude={"judged", "masks"})])

    @property
    def scores_digest(self) -> str:
        """Of what decides the scores: the maps, and whatever judges them."""
        return digest([SCORES_VERSION, self.digest, self.judged, self.masks])

    @property
    def name(self) -> str:
        """Path below the folder of heatmaps."""
        layer = self.layer if self.layer == AUTO else digest(self.layer)
        return f"{self.method}/{layer}/{self.key}/{self.split}-{self.number:05}.parquet"


def chosen_cells(
    layout: RunLayout, options: ExplainOptions, say: Say = lambda _: None
) -> list[Entry]:
    """The done cells that the options name, in the order of the experiment; RunFolderError where
    there is none.

    `say` gets a line for each cell that is damaged.
    """
    if not os.path.lexists(layout.cells):
        raise RunFolderError(
            f"{str(layout.root)!r} is not a run folder: it has no {layout.cells.name}"
        )
    entries = list(_readable(layout, say))
    known = [entry.spec.candidate for entry in entries]
    candidates = {candidate_id(asked, known, "--candidates") for asked in options.candidates}
    folds = {entry.spec.fold for entry in entries}
    for fold in options.folds:
        if fold not in folds:
            raise RunFolderError(
                f"the run has no fold {fold} (--folds); there are {min(folds)} to {max(folds)}"
            )
    chosen = [
        entry
        for entry in entries
        if (not candidates or entry.spec.candidate.id in candidates)
        and (not options.folds or entry.spec.fold in options.folds)
    ]
    done = [entry for entry in chosen if entry.state().state == "done"]
    if not done:
        raise RunFolderError(
            f"none of the {len(chosen)} cells asked for is done in {str(layout.root)!r}: train "
            "first"
        )
    return done


def _readable(layout: RunLayout, say: Say) -> Iterator[Entry]:
    entries = read_entries(layout, read_keys(layout))
    lost = [error for error in entries.values() if isinstance(error, RunFolderError)]
    for entry in entries.values():
        if isinstance(entry, RunFolderError):
            say(f"lost    {entry}")
        else:
            yield entry
    if lost and len(lost) == len(entries):
        raise lost[0]


def check_explanations(entries: Sequence[Entry], options: ExplainOptions) -> None:
    """Raise ModelError, before anything starts, where a library is missing or no model asked for
    has a layer.

    Whether a layer that is there has a map, only the open model can tell.
    """
    for method, _ in options.explanations:
        method.check_library()
    layers = {layer for method, layer in options.explanations if method.layered and layer != AUTO}
    if not layers:
        return
    first = {entry.spec.candidate.id: entry for entry in reversed(entries)}.values()
    names = {name for entry in first for name in _layer_names(entry.model_path)}
    largest = max(entry.spec.candidate.image_size for entry in first)
    for layer in sorted(layers - names):
        if not layer.isdecimal():
            raise ModelError(
                f"no model asked for has a layer {layer!r} (--layers); "
                f"{nearest(layer, sorted(names))}"
            )
        if int(layer) > largest:
            raise ModelError(
                f"no model asked for has a layer with {layer} cells along each edge (--layers): "
                f"their images have {largest} pixels"
            )


def _layer_names(path: Path) -> set[str]:
    """The names of a model's layers as its file states them, 'model/layer' inside a nested
    model.
    """

    def below(config: Any, prefix: str) -> Iterator[str]:
        for layer in config.get("layers", ()):
            name = f"{prefix}{layer['config']['name']}"
            yield from [name, *below(layer["config"], f"{name}/")]

    try:
        with ZipFile(path) as file:
            if file.getinfo("config.json").file_size > _MOST_BYTES:
                raise ValueError("it is no configuration")
            return set(below(json.loads(file.read("config.json"))["config"], ""))
    except Exception as error:  # damaged bytes raise almost anything
        raise RunFolderError(
            f"{str(path)!r} is damaged or missing: `rayfold run` makes it again"
        ) from error


def shards(
    entries: Sequence[Entry], options: ExplainOptions, manifest: Manifest, say: Say = lambda _: None
) -> Iterator[Shard]:
    """Every shard that the options ask for. Its name depends on no option but method and layer, so
    none overlap.

    A cell whose predictions are damaged has none, and `say` gets a line.
    """
    masks = _mask_digests(manifest)
    for entry in entries:
        try:
            predictions = entry.predictions()
            if not set(predictions["image"]) <= set(masks):
                raise DamagedRecord(
                    entry.folder / "predictions.parquet", "it has images that the manifest has not"
                )
        except DamagedRecord as error:
            say(f"lost    {error}")
            continue
        model_hash = file_digest(entry.model_path)[:16]
        for split in _SPLITS[options.split]:
            images = sorted(predictions.loc[predictions["split"] == split, "image"])
            judged = set(
                sorted(images, key=lambda image: digest([image, entry.spec.seed]))[
                    : options.faithfulness
                ]
            )
            for method, layer in options.explanations:
                for number in range(-(-len(images) // IMAGES_PER_SHARD)):
                    part = images[number * IMAGES_PER_SHARD : (number + 1) * IMAGES_PER_SHARD]
                    yield Shard(
                        key=entry.spec.key,
                        method=method.name,
                        layer=layer,
                        split=split,
                        number=number,
                        images=tuple(part),
                        judged=tuple(image for image in part if image in judged),
                        masks=digest([masks[image] for image in part]),
                        model_hash=model_hash,
                    )


def missing(layout: RunLayout, wanted: Sequence[Shard]) -> list[Shard]:
    """Those that are not on disk, or whose maps or scores were made from something else."""
    return [
        shard
        for shard in wanted
        if shard_digest(layout.heatmaps / shard.name, SCORES) != shard.scores_digest
    ]


def pieces(wanted: Sequence[Shard], at_least: int) -> list[list[Shard]]:
    """Shards of one cell together, so that its model is opened once, but `at_least` so many pieces
    if possible.
    """
    by_cell: dict[str, list[Shard]] = {}
    for shard in wanted:
        by_cell.setdefault(shard.key, []).append(shard)
    parts = -(-at_least // max(len(by_cell), 1))
    found = []
    for together in by_cell.values():
        size = -(-len(together) // parts)
        found += [together[start : start + size] for start in range(0, len(together), size)]
    return found


def _mask_digests(manifest: Manifest) -> dict[str, list[str]]:
    """Of each usable image, the content of its mask files; many at a time, since they may be on a
    network.
    """
    table = manifest.usable.set_index("image")
    masks = table[[name for name in map(str, table.columns) if name.startswith("mask_")]]
    with ThreadPoolExecutor(16) as pool:
        columns = [pool.map(_content, masks[name]) for name in masks]
        return {
            image: list(contents) for image, *contents in zip(masks.index, *columns, strict=True)
        }


def _content(path: str | None) -> str:
    try:
        return file_digest(Path(path)) if isinstance(path, str) else ""
    except OSError:
        return ""
