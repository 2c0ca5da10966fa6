"""What is read back from a run folder is believed only in the shape in which it was written.

A file must be a regular one, so that nothing waits for a pipe, and of a size that such a record can
have; JSON must fit its model and a table its schema, whose rows and text are bounded before
anything is decoded. Whatever is not so is a `DamagedRecord`, one line; a record that is not there
stays a FileNotFoundError.
"""

import json
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, TypeAdapter, ValidationError

from trainables.core.errors import RunFolderError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

T = TypeVar("T")

_MOST_TEXT = 64 * 2**20  # bytes of a file of text
_MOST_CELLS = 500_000_000  # rows × columns of a table
_ROWS_PER_BYTE = (
    64  # a column of equal values takes next to nothing, but no table has such columns only
)
_MOST_CHARACTERS = 2**30  # of one column

#: The address of a cell, and the folder of its entry.
Key = Annotated[str, Field(pattern=r"^[0-9A-Za-z_-]{1,64}$")]
Keys = TypeAdapter(list[Key])


class DamagedRecord(RunFolderError):
    """A file of a run folder is not what it was when it was written."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{str(path)!r} is damaged, {reason}: `rayfold run` makes it again")
        self.reason = reason


def check_regular(path: Path, most: int | None = None) -> int:
    """The size in bytes of what must be a file; DamagedRecord for anything else, FileNotFoundError
    for nothing.
    """
    try:
        status = path.stat()
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise DamagedRecord(path, _said(error)) from error
    if not stat.S_ISREG(status.st_mode):
        raise DamagedRecord(path, "it is no file")
    if most is not None and status.st_size > most:
        raise DamagedRecord(
            path, f"it has {status.st_size:,} bytes, more than the {most:,} that it may have"
        )
    return status.st_size


def read_text(path: Path, most: int = _MOST_TEXT) -> str:
    """UTF-8 text of at most `most` bytes; raises as `check_regular` does."""
    check_regular(path, most)
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise
    except OSError as error:
        raise DamagedRecord(path, _said(error)) from error
    except UnicodeDecodeError as error:
        raise DamagedRecord(path, "it is not UTF-8 text") from error


def read_json(path: Path, kind: TypeAdapter[T]) -> T:
    """JSON that fits `kind`; raises as `check_regular` does."""
    try:
        return kind.validate_json(read_text(path))
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False, include_context=False)[0]
        place = ".".join(map(str, problem["loc"])) or "as a whole"
        raise DamagedRecord(path, f"{place}: {problem['msg'][:200]}") from error


def _said(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or " ".join(str(error).split())[
        :200
    ]


# --- tables ---------------------------------------------------------------------------------------


def read_table(
    path: Path, schema: Mapping[str, str], may_be_empty: bool = False
) -> "tuple[pd.DataFrame, dict[bytes, bytes]]":
    """A Parquet table with the columns of `schema`, in its order, and the metadata of the file.

    `schema` says the kind of each column: text, whole, real or flag; text and flag may lack values
    where the kind ends in '?', real may always. A name that ends in '*' stands for all columns that
    begin so, a kind that begins with '~' for one that may be absent. Other columns are left out.
    `may_be_empty`: a table may have no column at all, where nothing was to be written. Raises as
    `check_regular` does.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    size = check_regular(path)
    try:
        there = pq.read_schema(path).names
        names = {} if may_be_empty and not there else _names(path, there, schema)
        texts = [name for name, kind in names.items() if kind.startswith("text")]
        with pq.ParquetFile(path, read_dictionary=texts) as file:
            _check_size(path, file.metadata.num_rows, len(names), size)
            table = file.read(columns=list(names))
        table.validate(full=True)  # text that is not UTF-8, places that lie outside
        table = pa.table(
            {name: _column(path, table[name], name, kind) for name, kind in names.items()}
        )
        return table.to_pandas(), dict(file.schema_arrow.metadata or {})
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError, MemoryError) as error:
        raise DamagedRecord(path, _said(error)) from error


def _names(path: Path, there: list[str], schema: Mapping[str, str]) -> dict[str, str]:
    """The columns to be read with their kinds."""
    names: dict[str, str] = {}
    for name, kind in schema.items():
        found = (
            [each for each in there if each.startswith(name[:-1])] if name.endswith("*") else [name]
        )
        if not name.endswith("*") and there.count(name) != 1:
            if kind.startswith("~") and name not in there:
                continue
            raise DamagedRecord(path, f"it needs one column {name!r}")
        names |= dict.fromkeys(found, kind.removeprefix("~"))
    return names


def _check_size(path: Path, rows: int, columns: int, size: int) -> None:
    if rows * columns > _MOST_CELLS or rows > 1000 + _ROWS_PER_BYTE * size:
        raise DamagedRecord(path, f"it says that it has {rows:,} rows, in {size:,} bytes")


def check_characters(path: Path, name: str, column: "pa.ChunkedArray") -> None:
    """Raise DamagedRecord where a column of dictionary-encoded text would be too long spelled
    out.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    if not pa.types.is_dictionary(column.type):
        return
    lengths = (
        pc.sum(pc.take(pc.binary_length(c.dictionary), c.indices)).as_py() for c in column.chunks
    )
    if sum(length or 0 for length in lengths) > _MOST_CHARACTERS:
        raise DamagedRecord(path, f"the column {name!r} has more text than a table may have")


def _column(path: Path, column: "pa.ChunkedArray", name: str, kind: str) -> "pa.ChunkedArray":
    """The column as it is to be used, once it is known to be of its kind and not endless."""
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        check_characters(path, name, column)
        column = column.cast(column.type.value_type)
    fits = {
        "text": lambda t: pa.types.is_string(t) or pa.types.is_large_string(t),
        "whole": pa.types.is_integer,
        "real": lambda t: pa.types.is_floating(t) or pa.types.is_integer(t),
        "flag": pa.types.is_boolean,
    }[kind.removesuffix("?")]
    if not fits(column.type) and not (kind.endswith("?") and pa.types.is_null(column.type)):
        raise DamagedRecord(
            path,
            f"the column {name!r} holds {column.type} where {kind.removesuffix('?')} is needed",
        )
    if column.null_count and not kind.endswith("?") and kind != "real":  # pandas writes NaN so
        raise DamagedRecord(path, f"the column {name!r} lacks values")
    return column


# --- provenance -----------------------------------------------------------------------------------


class _Open(BaseModel):
    """A record of which later versions may know more."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


def _is_text(value: Any) -> str:
    """Text that may be what the file system gave: names of files that are not UTF-8 are strings to
    Python only.
    """
    if not isinstance(value, str):
        raise ValueError("must be text")
    return value


_Text = Annotated[str, PlainValidator(_is_text)]
_Value = _Text | int | float | bool | None


class Invocation(_Open):
    """One command that worked on a run."""

    cluster: list[dict[str, _Value]] = []
    command_line: list[_Text] = []
    environment: dict[str, _Text] = {}
    experiment_folder: _Text = ""
    git_commit: str | None = None
    host: _Text = ""
    packages: dict[str, str] = {}
    platform: str = ""
    process: int | None = None
    python: str = ""
    started: str = ""
    user: _Text = ""
    working_directory: _Text = ""


class Provenance(_Open):
    """`provenance.json`; the fields in the order in which they are written and shown."""

    data_hash: str = ""
    experiment_hash: str = ""
    folds_hash: str = ""
    invocations: list[Invocation] = []
    seeds: dict[str, int | list[int]] = {}
    taken: dict[str, int] = {}


def read_provenance(path: Path) -> Provenance:
    """What is known of where a run comes from: nothing where the file is lost or damaged, results
    do without.
    """
    try:
        return Provenance.model_validate(json.loads(read_text(path)))
    except (FileNotFoundError, DamagedRecord, ValueError, RecursionError):
        return Provenance()
