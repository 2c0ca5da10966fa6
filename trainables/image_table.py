"""A user's table of images, CSV or Parquet, as rows that rayfold understands."""

import os
import warnings
from pathlib import Path

import pandas as pd

from trainables.config import TableData
from trainables.errors import DataError, nearest

_COLUMNS = ("path", "label", "group", "view", "split")
_SPLITS = {"train": "train", "val": "validation", "validation": "validation", "test": "test"}


def read_image_table(data: TableData, path: Path) -> pd.DataFrame:
    """The rows of a table with the columns image, path, label, group, view, split, mask_<name> and reason.

    Raises `DataError` where columns are missing or unknown, and where rows have no path or repeat one.
    """
    source = _read_table(path)
    table = _rename(data, source, path)
    folder = path.parent
    paths = table["path"].map(lambda text: Path(os.path.normpath(folder / text)), na_action="ignore")
    unnamed = paths.isna()
    if unnamed.any():
        raise DataError(f"every row must have a path, got none in row {_row_number(unnamed)} of {str(path)!r}")
    repeated = paths.duplicated()
    if repeated.any():
        raise DataError(
            f"every image must be listed once, got {str(paths[repeated].iloc[0])!r} again in row "
            f"{_row_number(repeated)} of {str(path)!r} (remove the repeated rows)"
        )
    table["image"] = [_image_id(text, image, folder) for text, image in zip(table["path"], paths, strict=True)]
    table["path"] = paths
    table["split"] = _splits(table["split"], path)
    reasons = pd.Series(None, index=table.index, dtype=object)
    for column in [name for name in table.columns if name.startswith("mask_")]:
        table[column] = table[column].map(lambda text: Path(os.path.normpath(folder / text)), na_action="ignore")
        lacking = [isinstance(mask, Path) and not mask.is_file() for mask in table[column]]
        reasons[lacking] = f"{column}: missing file"
    table["reason"] = reasons
    return table


def _read_table(path: Path) -> pd.DataFrame:
    """Every cell as text, as it is written ('007' stays '007'); empty cells are missing."""
    suffix = path.suffix.lower()
    if not path.is_file() or suffix not in (".csv", ".parquet"):
        raise DataError(f"data.path must be a .csv or .parquet file for source 'table', got {str(path)!r}")
    try:
        if suffix == ".csv":
            # "NA" or "None" may well be a label, so only empty cells count as missing.
            with warnings.catch_warnings():
                warnings.simplefilter("error", pd.errors.ParserWarning)  # a row with more cells than there are columns
                table = pd.read_csv(path, dtype=str, keep_default_na=False, index_col=False, encoding="utf-8-sig")
        else:
            import pyarrow as pa
            import pyarrow.parquet as pq

            columns = pq.read_table(path)
            is_text = {
                field.name: not (pa.types.is_nested(field.type) or pa.types.is_binary(field.type))
                for field in columns.schema
            }
            table = pd.DataFrame(
                {name: columns[name].cast(pa.string()).to_pylist() for name, fits in is_text.items() if fits},
                dtype=object,
            )
    except (
        ValueError,
        OSError,
        pd.errors.ParserWarning,
    ) as error:  # pandas' and pyarrow's own parse errors are ValueErrors
        text = " ".join(str(error).split())
        raise DataError(f"data.path must be a readable {suffix} table, got {str(path)!r}: {text}") from None
    table = table.astype(object)
    return table.mask(table == "", None)


def _rename(data: TableData, source: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Our columns of the table; raises where a name is unknown on either side."""
    for ours, theirs in data.columns.items():
        if ours not in _COLUMNS and not ours.startswith("mask_"):
            options = (*_COLUMNS, "mask_<name>")
            raise DataError(f"data.columns must name columns of rayfold, got {ours!r} ({nearest(ours, options)})")
        if theirs not in source.columns:
            raise DataError(
                f"data.columns.{ours} must name a column of {str(path)!r}, got {theirs!r} "
                f"({nearest(theirs, source.columns)})"
            )
    for required in ("path", "label"):
        if required not in data.columns and required not in source.columns:
            raise DataError(
                f"the table {str(path)!r} must have a column {required!r} ({nearest(required, source.columns)} "
                f"data.columns.{required} can name it)"
            )
    masks = {name: name for name in source.columns if name.startswith("mask_")}
    names = {name: name for name in _COLUMNS} | masks | data.columns
    return pd.DataFrame({ours: source.get(theirs) for ours, theirs in names.items()}, index=source.index, dtype=object)


def _splits(values: pd.Series, path: Path) -> pd.Series:
    splits = values.map(lambda value: _SPLITS.get(value.strip().lower(), ""), na_action="ignore")
    unknown = splits == ""
    if unknown.any():
        raise DataError(
            f"split must be train, validation or test, got {values[unknown].iloc[0]!r} in row {_row_number(unknown)} "
            f"of {str(path)!r}"
        )
    return splits


def _row_number(rows: pd.Series) -> int:
    """Number of the first marked row, counted from 1 without the header."""
    return int(rows.to_numpy().argmax()) + 1


def _image_id(text: str, path: Path, folder: Path) -> str:
    if path.is_relative_to(folder):
        return path.relative_to(folder).as_posix()
    return path.as_posix() if Path(text).is_absolute() else os.path.normpath(text)
