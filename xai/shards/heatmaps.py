"""Heatmaps as data: Parquet shards below `xai/heatmaps/`, one row per image, cell, method, layer
and class.

    image, label, group, split      as in the predictions; split is fold, test, or skipped for an
                                    unusable image
    candidate, fold, seed           the cell
    method, class, layer            what was explained, and where; layer is 'input' for methods
                                    that have no layer
    height, width                   of the map, in cells
    top, left, step_y, step_x       cell (i, j) is centred at (top + i step_y, left + j step_x), in
                                    image edges from the top left corner; may lie outside the image
                                    (in a shard, edges of the square that the model saw, padding
                                    included; `Heatmaps` gives those of the image)
    placed                          how that is known: field, it is the centre of the cell's
                                    receptive field; tiles, cells are equal parts of the image;
                                    guess, an operation could not be followed
    map, scale                      list of float16, row-major, times `scale` (float32): the signed,
                                    unnormalised map
    low, high                       its extremes
    logit, probability, prediction  of the class, and the predicted class
    model_hash                      first 16 hex digits of the SHA-256 of model.keras
    error                           why there is no map, or null
    <score>…                        see `judging/scores.py`

A shard is complete or not there. It holds two digests, of what its maps and of what its scores were
made from, so a stale one is told: maps that are right are kept when only scores have to be made
again.
"""

from collections.abc import Iterable
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from trainables.core.errors import RunFolderError, nearest
from trainables.core.files import replacing, whole_files
from trainables.core.input_format import InputFormat
from trainables.core.layout import RunLayout
from trainables.core.ledger import read_entry
from trainables.core.records import DamagedRecord
from trainables.core.run_folder import present_groups, read_keys
from trainables.data.manifest import Manifest
from xai.methods.placement import GUESS
from xai.methods.registry import METHODS
from xai.shards.map_columns import Floats, choices, stacked
from xai.shards.shard_files import COLUMNS, JUDGED, TYPES, believable, is_readable, shard_schema
from xai.shards.shard_files import MAPS as MAPS
from xai.shards.shard_files import SCORES as SCORES
from xai.shards.shard_files import read_shard as read_shard
from xai.shards.shard_files import shard_digest as shard_digest
from xai.shards.shard_files import write_shard as write_shard

_MOST_NAMED = 30  # values in a message
_ORDER = ["candidate", "method", "layer", "fold", "seed", "split", "image", "class"]


def _renamed(written: pd.Series, keys: pd.Series, present: dict[str, str]) -> pd.Series:
    """What is called by its present name where there is one, else as it was written."""
    pairs = zip(keys, written, strict=True)
    return pd.Series([present.get(key, name) for key, name in pairs], written.index, written.dtype)


class Ensemble(NamedTuple):
    """Of fold models: `table`, one row per image and class with `cells` and `spearman`, the mean
    rank correlation of their evidence; `mean` and `deviation` (n - 1) of their signed maps, float32
    (n, h, w).
    """

    table: pd.DataFrame
    mean: Floats
    deviation: Floats


class Heatmaps:
    """The heatmaps of a run: `table` without the maps, `rows` and `arrays` with them, `save_npz`
    for elsewhere.

    Filters name columns and a value or several: `rows(method="gradcam", candidate=["a", "b"])`;
    ValueError for a value that no row has. Raises RunFolderError where the run has none. Shows the
    maps that were there when it was made: load again to see newer ones.
    """

    def __init__(self, layout: RunLayout) -> None:
        keys = set(read_keys(layout))
        # A shard of a cell that the experiment no longer asks for stays on disk, and is no part of
        # the results.
        files = whole_files(layout.heatmaps, "*/*/*/*.parquet")
        files = [path for path in files if path.parent.name in keys] + whole_files(
            layout.heatmaps, "skipped.parquet"
        )
        if not files:
            raise RunFolderError(
                f"{str(layout.root)!r} has no heatmaps: make them with `rayfold explain`"
            )
        # What a candidate or a group is called may have changed since a shard was made.
        self._group_of = {str(image): str(group) for image, group in present_groups(layout).items()}
        self._candidate_of: dict[str, str] = {}
        self._padded: dict[str, InputFormat] = {}
        for key in {path.parent.name for path in files} & keys:
            with suppress(RunFolderError):  # without spec.json what was written must do
                candidate = read_entry(layout.ledger / key).spec.candidate
                self._candidate_of[key] = candidate.id
                if candidate.input_format.fit == "pad":
                    self._padded[candidate.id] = candidate.input_format
        self._layout = layout
        #: One line for each shard that cannot be believed, and is no part of the results.
        self.left_out: list[str] = []
        schemas: dict[str, pa.Schema] = {}
        for path in sorted(files):
            try:
                schemas[str(path)] = shard_schema(path).remove_metadata()
            except DamagedRecord as error:
                self._leave_out(path, error.reason)
        schema = pa.unify_schemas([pa.schema(list(TYPES.items())), *schemas.values()])
        self._dataset = ds.dataset(list(schemas), schema=schema, format="parquet")
        self._scores = [name for name in schema.names if name not in TYPES]

    def _leave_out(self, path: str | Path, reason: str) -> None:
        line = (
            f"{str(path)!r} is left out, {reason}: remove it, and `rayfold explain` makes it again"
        )
        self.left_out += [line] if line not in self.left_out else []

    @property
    def columns(self) -> list[str]:
        """Names of all columns, curves too."""
        return list(self._dataset.schema.names)

    @property
    def scores(self) -> list[str]:
        """Names of the numeric columns that judge a map."""
        return [name for name in self._scores if not name.endswith("_curve")]

    @property
    def table(self) -> pd.DataFrame:
        """Every row with all columns but the maps and curves; read once."""
        return self._without_maps.copy(deep=False)

    @cached_property
    def _without_maps(self) -> pd.DataFrame:
        columns = [name for name in COLUMNS if name not in ("map", "scale")]
        return self._read({}, [*columns, *self.scores])

    @property
    def guessed(self) -> list[str]:
        """Layers of which it could not be worked out where their cells lie in the image."""
        return sorted(self._read({"placed": GUESS}, _ORDER)["layer"].unique())

    def rows(self, **filters: Any) -> pd.DataFrame:
        """The rows that match, with their maps.

        Args:
            filters: A value or several for any of `columns`.

        Returns:
            A table with `map`: float32, row-major, or None where there is an error.

        Raises:
            ValueError: There is no such column, or no row has such a value.
        """
        found = self._read(filters, None)
        self._check_occurring(filters, found)
        return found

    def arrays(self, **filters: Any) -> tuple[pd.DataFrame, Floats]:
        """The maps that match, as one array.

        Args:
            filters: As those of `rows`.

        Returns:
            The rows that have a map, without it, and their maps, float32 (n, h, w).

        Raises:
            ValueError: As by `rows`, or the maps differ in size; it says by what to filter.
        """
        return stacked(self.rows(**filters))

    def ensemble(self, **filters: Any) -> "Ensemble":
        """The maps of all fold models together, for each test image and class that every one of
        them explains.

        Args:
            filters: As those of `rows`; they must leave one candidate, method and layer.

        Returns:
            What the models agree on, and by how much they differ.

        Raises:
            ValueError: As by `rows`, or several candidates, methods or layers are left.
        """
        from xai.judging.agreement import fold_agreement

        found = self._read(dict(**filters, split="test"), None)
        self._check_occurring(filters, found)
        table, maps = stacked(found)
        sets = table[["candidate", "method", "layer"]].drop_duplicates()
        if len(sets) > 1:
            raise ValueError(
                f"an ensemble is of one candidate, method and layer, got {len(sets)}: add "
                f"{choices(sets)}"
            )
        table["cell"] = table.groupby(["fold", "seed"]).ngroup()
        cells = table["cell"].nunique()
        shared = table[table.groupby(["image", "class"])["cell"].transform("size") == cells]
        order = shared.sort_values(["cell", "image", "class"]).index.to_numpy()
        first = table.loc[order[: len(order) // max(cells, 1)]].drop(
            columns=["cell", "fold", "seed", "low", "high"]
        )
        if not len(first):
            return Ensemble(first.assign(cells=cells, spearman=np.nan), maps, maps)
        together = maps[order].reshape(cells, len(first), *maps.shape[1:])
        agreed = fold_agreement(together, METHODS[str(sets["method"].iloc[0])].positive)
        facts = first.reset_index(drop=True).assign(cells=cells, spearman=agreed.spearman)
        return Ensemble(facts, agreed.mean, agreed.deviation)

    def curves(self, **filters: Any) -> pd.DataFrame:
        """The rows that match and were put to the model: image, group and the columns that end in
        _curve.
        """
        names = [name for name in self._scores if name.endswith("_curve")]
        table = self._read(filters, [*_ORDER, "group", *names])
        self._check_occurring(filters, table)
        table = table[table[names].notna().all(axis=1)]
        steps = table[names].map(len)
        return table[steps.eq(steps.stack().median()).all(axis=1)].reset_index(drop=True)

    def save_npz(self, path: Path | str, **filters: Any) -> None:
        """Write the maps that match for programs that know no Parquet.

        Args:
            path: The file: `maps`, float32 (n, h, w), and one array per identifying column.
            filters: As those of `rows`.

        Raises:
            ValueError: As by `arrays`.
        """
        rows, maps = self.arrays(**filters)
        names = [name for name in COLUMNS if name in rows]
        columns: dict[str, Any] = {
            name: rows[name].fillna("").astype(str).to_numpy(dtype=np.str_)
            if TYPES[name] == pa.string()
            else rows[name].to_numpy()
            for name in names
        }
        with replacing(Path(path)) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, maps=maps, **columns)

    def _check_occurring(self, filters: dict[str, Any], found: pd.DataFrame) -> None:
        """Raise ValueError for a value of a filter that no row has; those that occur, but not
        together, are right.
        """
        for name, value in filters.items():
            lacking = {one for one in _values(value) if pd.notna(one)} - (
                set(found[name]) if name in found else set()
            )
            if lacking:
                there = sorted(
                    self._read({}, list(dict.fromkeys([*_ORDER, name])))[name].dropna().unique()
                )
                for one in sorted(lacking.difference(there), key=str):
                    remedy = nearest(str(one), map(str, there))
                    if len(there) > _MOST_NAMED and not remedy.startswith("did you mean"):
                        remedy = f"there are {len(there)} others"
                    raise ValueError(f"no heatmap has the {name} {one!r}; {remedy}")

    def _in_groups(self, groups: list[str]) -> ds.Expression:
        """Which rows are of these groups; images that are in no fold have the group that was
        written.
        """
        images = pa.array(
            [image for image, group in self._group_of.items() if group in groups], pa.string()
        )
        unknown = ~ds.field("image").isin(pa.array(list(self._group_of), pa.string()))
        return ds.field("image").isin(images) | (unknown & ds.field("group").isin(groups))

    def _dataset_of(self, candidates: list[str] | None) -> ds.Dataset:
        """The shards that can hold rows of these candidates; None: all."""
        if candidates is None:
            return self._dataset
        files = [
            path
            for path in self._dataset.files
            if self._candidate_of.get(_key(path)) in (None, *candidates)
        ]
        return ds.dataset(files, schema=self._dataset.schema, format="parquet")

    def _table_of(
        self, candidates: list[str] | None, names: list[str], condition: Any
    ) -> pd.DataFrame:
        """These columns of the shards that can be decoded."""
        try:
            found = self._dataset_of(candidates).to_table(columns=names, filter=condition)
        except (pa.ArrowException, OSError):
            damaged = [path for path in self._dataset.files if not is_readable(Path(path))]
            for path in damaged:
                self._leave_out(path, "it is damaged")
            files = [path for path in self._dataset.files if path not in damaged]
            self._dataset = ds.dataset(files, schema=self._dataset.schema, format="parquet")
            found = self._dataset_of(candidates).to_table(columns=names, filter=condition)
        table: pd.DataFrame = found.to_pandas()
        return table

    @cached_property
    def _shape_of(self) -> dict[str, tuple[int, int]]:
        """Rows and columns of each image."""
        images = Manifest.load(self._layout.manifest).usable
        shapes = zip(images["height"], images["width"], strict=True)
        return dict(zip(images["image"], shapes, strict=True))

    def _place(self, table: pd.DataFrame) -> None:
        """From edges of the square that a model saw to those of the image in it, where it was
        padded.
        """
        for candidate, form in self._padded.items():
            rows = (table["candidate"] == candidate) & table["image"].isin(self._shape_of)
            images = table.loc[rows, "image"]
            boxes = {image: form.box(*self._shape_of[image]) for image in images.unique()}
            box = np.array([boxes[image] for image in images]).reshape(-1, 4)
            starts = table.loc[rows, ["top", "left"]].to_numpy(float)
            table.loc[rows, ["top", "left"]] = (starts * form.size - box[:, :2]) / box[:, 2:]
            steps = table.loc[rows, ["step_y", "step_x"]].to_numpy(float)
            table.loc[rows, ["step_y", "step_x"]] = steps * form.size / box[:, 2:]

    def _read(self, filters: dict[str, Any], columns: list[str] | None) -> pd.DataFrame:
        condition, candidates = None, None
        for name, value in filters.items():
            if name not in self._dataset.schema.names:
                raise ValueError(
                    f"heatmaps have no column {name!r}; there are "
                    f"{', '.join(self._dataset.schema.names)}"
                )
            wanted = _values(value)
            term = ds.field(name).isin(wanted) if wanted else pc.scalar(value=False)
            if name == "group":
                term = self._in_groups(wanted)
            elif name == "candidate":
                candidates = wanted
                continue
            condition = term if condition is None else condition & term
        names = self._dataset.schema.names if columns is None else columns
        # One answer, whatever is asked for.
        asked = [
            *names,
            *(name for name in JUDGED if name not in names),
        ]
        table = self._table_of(candidates, [*asked, "__filename"], condition)
        files = table.pop("__filename")
        table["candidate"] = _renamed(table["candidate"], files.map(_key), self._candidate_of)
        right = believable(table)
        for path in files[~right].unique():
            self._leave_out(path, "some of its rows are of no heatmap of this run")
        table = table[right].reset_index(drop=True)
        if "group" in table:
            table["group"] = _renamed(table["group"], table["image"], self._group_of)
        if candidates is not None:
            table = table[table["candidate"].isin(candidates)].reset_index(drop=True)
        self._place(table)
        if columns is None:
            pairs = zip(table["map"], table["scale"], strict=True)
            maps = [
                None if m is None else np.asarray(m, np.float32) * np.float32(s) for m, s in pairs
            ]
            table["map"] = pd.Series(maps, dtype=object)
        whole = [name for name in ("fold", "seed", "height", "width") if name in table]
        table = table.astype(dict.fromkeys(whole, "Int64"))
        # A layer that was asked for by its name, too, is one layer.
        return (
            table.sort_values(_ORDER, kind="stable").drop_duplicates(_ORDER).reset_index(drop=True)
        )


def _key(path: str) -> str:
    """The cell whose shard this is."""
    return Path(path).parent.name


def _values(value: Any) -> list[Any]:
    """What a filter lists: a value or several."""
    return [value] if isinstance(value, str) or not isinstance(value, Iterable) else list(value)
