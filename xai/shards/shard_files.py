"""The files of heatmaps, and which of their rows can be believed: what these name becomes names of
files and keys.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import TypeAdapter, ValidationError

from trainables.core.files import replacing
from trainables.core.records import DamagedRecord, check_characters, check_regular
from trainables.core.values import Identity
from xai.methods.registry import METHODS

MAPS, SCORES = b"rayfold.digest", b"rayfold.scores"
TYPES = {
    **dict.fromkeys(
        ("image", "label", "group", "split", "candidate", "method", "class", "layer"), pa.string()
    ),
    **dict.fromkeys(("fold", "seed", "height", "width"), pa.int64()),
    **dict.fromkeys(("top", "left", "step_y", "step_x"), pa.float64()),
    "placed": pa.string(),
    "map": pa.list_(pa.float16()),
    **dict.fromkeys(("scale", "low", "high"), pa.float32()),
    **dict.fromkeys(("logit", "probability"), pa.float64()),
    **dict.fromkeys(("prediction", "model_hash", "error"), pa.string()),
}
COLUMNS = tuple(TYPES)

_MOST_VALUES = 500_000_000  # of one shard, those within lists counted
_SPLITS = ("fold", "test", "skipped")
_CANDIDATE = TypeAdapter(Identity)
#: What a row must say, and what it must say if it has a map.
_ALWAYS = ("image",)
_WITH_MAP = (
    "candidate",
    "method",
    "class",
    "layer",
    "fold",
    "seed",
    "height",
    "width",
    "probability",
)
_FINITE = ("scale", "low", "high", "probability")
#: Where cells may lie, in image edges.
_PLACES = {"top": (-1e3, 1e3), "left": (-1e3, 1e3), "step_y": (1e-6, 1e3), "step_x": (1e-6, 1e3)}
_NEEDED = (*_ALWAYS, *_WITH_MAP, "split", "error")
#: The columns by which `believable` judges, beside the map.
JUDGED = (*_NEEDED, *_FINITE[:-1], *_PLACES, "placed")


def write_shard(
    path: Path, rows: Sequence[dict[str, Any]], digest: str, scores_digest: str = ""
) -> None:
    """Write rows (any column may be missing, further ones are scores or curves) as one shard."""
    extra = {name: None for row in rows for name in row if name not in TYPES}
    fields = [pa.field(name, kind) for name, kind in TYPES.items()]
    for name in extra:
        nested = any(isinstance(row.get(name), np.ndarray) for row in rows)
        fields.append(pa.field(name, pa.list_(pa.float32()) if nested else pa.float64()))
    schema = pa.schema(fields, metadata={MAPS: digest.encode(), SCORES: scores_digest.encode()})
    columns = [pa.array([row.get(field.name) for row in rows], field.type) for field in fields]
    with replacing(path) as temporary:
        pq.write_table(pa.Table.from_arrays(columns, schema=schema), temporary)


def read_shard(path: Path) -> list[dict[str, Any]]:
    """The rows of a shard as they were written, without scores; raises DamagedRecord."""
    try:
        table = pq.read_table(path, columns=list(COLUMNS))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DamagedRecord(path, "it cannot be decoded") from error
    maps = table["map"].to_pandas()
    return [
        row | {"map": heat}
        for row, heat in zip(table.drop_columns("map").to_pylist(), maps, strict=True)
    ]


def shard_digest(path: Path, of: bytes = MAPS) -> str | None:
    """What a shard's maps or scores say they were made from; None where there is none that can be
    believed.
    """
    if not _is_whole(path):
        return None
    metadata = pq.read_schema(path).metadata or {}
    return metadata.get(of, b"").decode(errors="replace") or None


# --- what can be believed -------------------------------------------------------------------------


def shard_schema(path: Path) -> pa.Schema:
    """The schema of a shard; raises DamagedRecord unless it holds columns of these types, scores
    and curves only.
    """
    check_regular(path)
    try:
        file = pq.ParquetFile(path)
        schema: pa.Schema = file.schema_arrow
        groups = [file.metadata.row_group(n) for n in range(file.metadata.num_row_groups)]
        values = sum(
            group.column(n).num_values for group in groups for n in range(group.num_columns)
        )
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DamagedRecord(path, "it is no Parquet file") from error
    scores = (pa.float64(), pa.list_(pa.float32()), pa.null())
    for name, kind in zip(schema.names, schema.types, strict=True):
        known = (TYPES[name], pa.null()) if name in TYPES else scores
        if kind not in known or schema.names.count(name) > 1:
            raise DamagedRecord(path, f"the column {name[:80]!r} is none of a heatmap's")
    if lacking := [name for name in _NEEDED if name not in schema.names]:
        raise DamagedRecord(path, f"it lacks the column {lacking[0]!r}")
    if values > _MOST_VALUES:
        raise DamagedRecord(path, f"it says that it has {values:,} values")
    _check_texts(path, [name for name in schema.names if TYPES.get(name) == pa.string()])
    return schema


def _check_texts(path: Path, names: list[str]) -> None:
    """Raise DamagedRecord for text that repeats without end: as it is stored it is read, before it
    is spelled out.
    """
    try:
        with pq.ParquetFile(path, read_dictionary=names) as file:
            texts = file.read(columns=names)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DamagedRecord(path, "it cannot be decoded") from error
    for name in names:
        check_characters(path, name, texts[name])


def believable(table: pd.DataFrame) -> "pd.Series[bool]":
    """Which rows say what heatmaps can say, as far as the columns of the table tell."""
    right = pd.Series(data=True, index=table.index)
    drawn = table["error"].isna() if "error" in table else right
    for names, concerned in ((_ALWAYS, right), (_WITH_MAP, drawn)):
        for name in names:
            if name in table:
                right &= table[name].notna() | ~concerned
    for name, known in (("split", _SPLITS), ("method", tuple(METHODS))):
        if name in table:
            right &= table[name].isin(known) | table[name].isna()
    if "candidate" in table:
        right &= (
            table["candidate"]
            .map({name: _is_id(name) for name in table["candidate"].unique()})
            .astype(bool)
        )
    right &= ~drawn | _is_finite(table)
    if "map" in table:
        cells = table["map"].map(lambda heat: -1 if heat is None else len(heat)).to_numpy()
        stated = (table["height"] * table["width"]).fillna(-1).to_numpy(np.float64)
        right &= ~drawn | (
            (cells > 0)
            & (cells == stated)
            & (table["height"] > 0).fillna(value=False).to_numpy(bool)
        )
    return right


def _is_finite(table: pd.DataFrame) -> "pd.Series[bool]":
    """Which rows have numbers that can be drawn; maps of an earlier version do not say where their
    cells lie.
    """
    right = pd.Series(data=True, index=table.index)
    for name in _FINITE:
        if name in table:
            right &= np.isfinite(table[name].to_numpy(np.float64, na_value=np.nan))
    for name, (least, most) in _PLACES.items():
        if name in table and "placed" in table:
            right &= table[name].between(least, most) | (
                table[name].isna() & table["placed"].isna()
            )
    return right


def _is_whole(path: Path) -> bool:
    """Whether there is a shard whose every row says what heatmaps can say; its maps are not
    read.
    """
    try:
        there = shard_schema(path).names
        columns = [name for name in JUDGED if name in there]
        return bool(believable(pq.read_table(path, columns=columns).to_pandas()).all())
    except (FileNotFoundError, DamagedRecord, pa.ArrowException, OSError, ValueError):
        return False


def is_readable(path: Path) -> bool:
    """Whether all of a shard can be decoded."""
    try:
        pq.read_table(path)
    except (pa.ArrowException, OSError, ValueError):
        return False
    return True


def _is_id(name: object) -> bool:
    if not isinstance(name, str):
        return True
    try:
        _CANDIDATE.validate_python(name)
    except ValidationError:
        return False
    return True
