"""A user's table of images, delimited text or Parquet, as rows that rayfold understands."""

import os
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from trainables.core.data_config import TableData
from trainables.core.errors import DataError, nearest
from trainables.core.limits import TABLE_BYTES, TABLE_CELLS, TABLE_ROWS
from trainables.core.spelling import listed, tidy
from trainables.pictures.formats import IMAGE_SUFFIXES
from trainables.sources import delimited
from trainables.sources.image_paths import PathReader

WORKBOOKS = (".xlsx", ".xlsm", ".xls", ".ods")
_COLUMNS = ("path", "label", "group", "view", "split")
#: What others call our columns.
_SYNONYMS = (
    dict.fromkeys(
        ("patient", "patient_id", "patientid", "pid", "subject", "subject_id", "person", "case"),
        "group",
    )
    | dict.fromkeys(
        ("file", "filename", "file_name", "filepath", "image", "image_path", "img", "name"), "path"
    )
    | dict.fromkeys(("class", "target", "diagnosis", "finding", "category", "y"), "label")
    | dict.fromkeys(("projection", "position", "view_position"), "view")
    | dict.fromkeys(("part", "set", "subset", "partition", "fold"), "split")
    | {"mask": "mask_<name>"}
)
_FEW = 8  # columns that an error lists
_SPLITS = {"train": "train", "val": "validation", "validation": "validation", "test": "test"}


def read_image_table(data: TableData, path: Path) -> tuple[pd.DataFrame, list[str]]:
    """The rows of a table with the columns image, path, label, group, view, split, mask_<name> and
    reason, and notes.

    Raises `DataError` where columns are missing or unknown, and where rows have no path or repeat
    one.
    """
    source, notes = _read_table(data, path)
    table, renamed = _rename(data, source, path)
    unnamed = table["path"].isna()
    if unnamed.any():
        raise DataError(
            f"every row must have a path, got none in row {_row_number(unnamed)} of {str(path)!r}"
        )
    folder = path.parent
    reader = PathReader(folder)
    files = [reader.read(text) for text in table["path"]]
    paths = pd.Series([file for file, _ in files], table.index, dtype=object)
    repeated = paths.duplicated()
    if repeated.any():
        raise _listed_twice(table["label"], paths, _row_number(repeated), path)
    table["image"] = [
        _image_id(text, image, str(folder))
        for text, image in zip(table["path"], paths, strict=True)
    ]
    table["path"] = paths
    table["split"] = _splits(table["split"], path)
    reasons = pd.Series([reason for _, reason in files], table.index, dtype=object)
    for column in [name for name in table.columns if name.startswith("mask_")]:
        masks = table[column].map(reader.read, na_action="ignore")
        table[column] = masks.map(lambda mask: mask[0], na_action="ignore")
        lacking = masks[[isinstance(mask, tuple) and not _is_file(mask[0]) for mask in masks]]
        flaws = lacking.map(lambda mask, column=column: f"{column}: {mask[1] or 'missing file'}")
        reasons = reasons.fillna(flaws)
    table["reason"] = reasons
    return table, [*notes, *renamed, *reader.notes()]


def _listed_twice(labels: pd.Series, paths: pd.Series, row: int, path: Path) -> DataError:
    """What to say of the image in this row, which an earlier row lists too."""
    image = str(paths[row])
    first = int(paths.index[paths == paths[row]][0])
    if labels[first] != labels[row]:
        return DataError(
            f"every image must be listed once, got {image!r} with label {labels[first]!r} in row "
            f"{first} and with {labels[row]!r} in row {row} of {str(path)!r} (find out which is "
            "right, and remove the other row)"
        )
    return DataError(
        f"every image must be listed once, got {image!r} again in row {row} of {str(path)!r} "
        "(remove the repeated rows)"
    )


# --- reading --------------------------------------------------------------------------------------


def _read_table(data: TableData, path: Path) -> tuple[pd.DataFrame, list[str]]:
    """Every cell as text, as it is written ('007' stays '007'); empty cells are missing. Rows keep
    their numbers.
    """
    suffix = path.suffix.lower()
    if suffix in WORKBOOKS:
        raise DataError(
            "data.path must be a table of text or a .parquet file for source 'table', got "
            f"{str(path)!r} (save the workbook as CSV UTF-8)"
        )
    if not _is_file(path) or suffix not in (*delimited.SUFFIXES, ".parquet"):
        raise DataError(
            f"data.path must be a {', '.join(reversed(delimited.SUFFIXES))} or .parquet file for "
            f"source 'table', got {str(path)!r}"
        )
    if (size := path.stat().st_size) > TABLE_BYTES:
        raise DataError(
            f"data.path must be a table of at most {TABLE_BYTES / 1e6:,.0f} MB, got "
            f"{size / 1e6:,.0f} MB in {str(path)!r}"
        )
    if suffix == ".parquet":
        return _read_parquet(path), []
    # "NA" or "None" may well be a label, so only empty cells count as missing.
    text = delimited.read_delimited(path, lambda columns: _holds_needed(data, columns))
    table = pd.DataFrame(text.rows, text.numbers, text.columns, dtype=object)
    return table.map(_stated), text.notes


def _is_file(path: str | Path) -> bool:
    return os.path.isfile(path)  # noqa: PTH113  # unlike Path.is_file, false for names that no file can have


def _read_parquet(path: Path) -> pd.DataFrame:
    try:
        # Texts stay references to those that occur until they have been counted: a small file may
        # repeat one for ever.
        texts = [field.name for field in pq.read_schema(path) if _is_text(field.type)]
        with pq.ParquetFile(path, read_dictionary=texts) as file:
            about, names = file.metadata, file.schema_arrow.names
            _check_bytes(
                sum(about.row_group(part).total_byte_size for part in range(about.num_row_groups))
            )
            if about.num_rows > TABLE_ROWS or about.num_rows * len(names) > TABLE_CELLS:
                raise ValueError(
                    f"{about.num_rows:,} rows of {len(names):,} columns are more than rayfold reads"
                )
            if twice := sorted({name for name in names if names.count(name) > 1}):
                raise ValueError(
                    f"every column must have a name of its own, got {listed(twice)} twice"
                )
            columns = file.read()
        _check_bytes(sum(map(_text_bytes, columns.columns)))
        is_text = {
            field.name: not (pa.types.is_nested(field.type) or pa.types.is_binary(field.type))
            for field in columns.schema
        }
        cells = {name: _texts(columns[name]) for name, fits in is_text.items() if fits}
    except (ValueError, OSError, KeyError, pa.ArrowException) as error:
        text = " ".join(str(error).split())
        raise DataError(
            f"data.path must be a readable .parquet table, got {str(path)!r}: {text}"
        ) from None
    return pd.DataFrame(cells, range(1, columns.num_rows + 1), dtype=object).map(_stated)


def _is_text(kind: Any) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _check_bytes(size: int) -> None:
    if size > TABLE_BYTES:
        raise ValueError(f"it comes to {size / 1e6:,.0f} MB, more than {TABLE_BYTES / 1e6:,.0f}")


def _text_bytes(column: Any) -> int:
    """What the texts of a column come to once every row has its own."""
    if not (pa.types.is_dictionary(column.type) and _is_text(column.type.value_type)):
        return 0
    lengths = (
        pc.sum(pc.binary_length(chunk.dictionary).take(chunk.indices)).as_py()
        for chunk in column.chunks
    )
    return sum(length or 0 for length in lengths)


def _texts(column: Any) -> list[str | None]:
    """A column as text; a number that is none (NaN) is missing, and no class or patient called
    'nan'.
    """
    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column.cast(pa.float64())), None, column)
    return column.cast(pa.string()).to_pylist()  # type: ignore[no-any-return]


def _stated(cell: object) -> object:
    return cell if isinstance(cell, str) and cell.strip() else None


# --- columns --------------------------------------------------------------------------------------


def _holds_needed(data: TableData, columns: list[str]) -> bool:
    """Whether these columns are those of the table, so that its separator has been found."""
    folded = set(map(_folded, columns))
    return all(_folded(data.columns.get(name, name)) in folded for name in ("path", "label"))


def _rename(data: TableData, source: pd.DataFrame, path: Path) -> tuple[pd.DataFrame, list[str]]:
    """Our columns of the table, and a note; raises where a name is unknown on either side, or
    stands twice.
    """
    found: dict[str, str] = {}
    for ours, theirs in data.columns.items():
        if ours not in _COLUMNS and not ours.startswith("mask_"):
            options = (*_COLUMNS, "mask_<name>")
            meant = _SYNONYMS.get(_folded(ours).replace(" ", "_").replace("-", "_"))
            remedy = f"did you mean {meant!r}?" if meant else nearest(ours, options)
            raise DataError(f"data.columns must name columns of rayfold, got {ours!r} ({remedy})")
        column = _column(theirs, source, path, chosen=True)
        if column is None:
            raise DataError(
                f"data.columns.{ours} must name a column of {str(path)!r}, got {theirs!r} "
                f"({nearest(theirs, _shown_columns(source))})"
            )
        found[ours] = column
    masks = [name for name in map(_folded, source.columns) if name.startswith("mask_")]
    for ours in (*_COLUMNS, *dict.fromkeys(masks)):
        if ours not in found and (column := _column(ours, source, path)) is not None:
            found[ours] = column
    for required in ("path", "label"):
        if required not in found:
            raise DataError(
                f"the table {str(path)!r} must have a column {required!r} "
                f"({_lacking(required, source)})"
            )
    names = dict.fromkeys(_COLUMNS) | found
    columns = {ours: None if theirs is None else source[theirs] for ours, theirs in names.items()}
    otherwise = [
        theirs for ours, theirs in found.items() if theirs not in (ours, data.columns.get(ours))
    ]
    notes = [
        f"columns of the table are found in spite of other capitals or blanks: {listed(otherwise)}"
    ]
    return pd.DataFrame(columns, index=source.index, dtype=object), notes if otherwise else []


def _column(name: str, source: pd.DataFrame, path: Path, chosen: bool = False) -> str | None:
    """The one column of this name, as it is written in the table, else the one that differs in
    capitals and blanks.

    Where both are there and differ in what they hold, the exact name counts only where the user has
    `chosen` it.
    """
    alike = [column for column in source.columns if _folded(column) == _folded(name)]
    if len(alike) > len(set(alike)):
        raise DataError(
            f"every column must have a name of its own, got {listed(alike)} in {str(path)!r} "
            "(rename one)"
        )
    same = [column for column in alike if column == name]
    if (
        same
        and not chosen
        and any(not source[name].equals(source[other]) for other in alike if other != name)
    ):
        same = []
    same = same or alike
    if len(same) > 1:
        raise DataError(
            f"every column must have a name of its own, got {listed(same)} in {str(path)!r} "
            "(rename one, or choose by data.columns)"
        )
    return same[0] if same else None


def _folded(column: str) -> str:
    return tidy(column).casefold()


def _lacking(required: str, source: pd.DataFrame) -> str:
    """Why a needed column may not be there, and what to do."""
    if source.columns.empty:
        return "it has no column of text, numbers or dates"
    first = str(source.columns[0]).strip()
    if first.startswith(("#", "%", "//")):
        return (
            "its first line is a comment: the names of the columns must come first, remove what "
            "stands before them"
        )
    if any(map(_looks_like_a_path, source.columns)):
        return (
            f"its first line, {listed(map(str, source.columns))}, looks like an image and not like "
            "names of columns: write those above it, path,label,…"
        )
    names = _shown_columns(source)[:_FEW]
    more = (
        f" and {len(source.columns) - len(names):,} more"
        if len(source.columns) > len(names)
        else ""
    )
    return f"there are {', '.join(map(repr, names))}{more}; data.columns.{required} can name it"


def _looks_like_a_path(column: str) -> bool:
    text = tidy(str(column)).lower()
    return Path(text).suffix in IMAGE_SUFFIXES or text.startswith(
        ("/", "./", "../", "~/", "file://")
    )


def _shown_columns(source: pd.DataFrame) -> list[str]:
    """The columns as an error lists them: a file that is no table may have thousands."""
    return [str(column)[:40] for column in source.columns[:20]]


def _splits(values: pd.Series, path: Path) -> pd.Series:
    splits = values.map(lambda value: _SPLITS.get(_folded(value), ""), na_action="ignore")
    unknown = splits == ""
    if unknown.any():
        raise DataError(
            f"split must be train, validation or test, got {values[unknown].iloc[0]!r} in row "
            f"{_row_number(unknown)} of {str(path)!r}"
        )
    return splits


def _row_number(rows: pd.Series) -> int:
    """Number of the first marked row, counted from 1 without the header."""
    return int(rows.index[rows][0])


def _image_id(text: str, path: str, folder: str) -> str:
    below = folder if folder.endswith("/") else f"{folder}/"
    if path.startswith(below):
        return path.removeprefix(below)
    return path if os.path.isabs(text) else os.path.normpath(text)  # noqa: PTH117
