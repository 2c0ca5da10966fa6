"""Tables of a run as files: Parquet for programs, CSV for people; each is there as a whole or not
at all.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainables.core.files import replacing
from trainables.core.quoting import for_spreadsheet

if TYPE_CHECKING:
    import pandas as pd


def write_parquet(path: Path, table: "pd.DataFrame") -> None:
    with replacing(path) as temporary:
        table.to_parquet(temporary, index=False)


def write_csv(path: Path, table: "pd.DataFrame", **options: Any) -> None:
    """Every text and column name is written as `for_spreadsheet` has it; `options`: pandas's."""
    from pandas.api.types import is_numeric_dtype

    quoted = table.apply(
        lambda column: column if is_numeric_dtype(column) else column.map(for_spreadsheet)
    )
    with replacing(path) as temporary:
        quoted.rename(columns=for_spreadsheet).to_csv(temporary, index=False, **options)


def write_both(folder: Path, name: str, table: "pd.DataFrame") -> None:
    """`<name>.parquet` and `<name>.csv`."""
    write_parquet(folder / f"{name}.parquet", table)
    write_csv(folder / f"{name}.csv", table)
