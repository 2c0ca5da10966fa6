"""Tables of text, and how numbers are written in them."""

import math
from dataclasses import dataclass, replace

NONE = "–"  # a number that does not exist


@dataclass(frozen=True)
class Table:
    """Cells as they are shown; the first `left` columns hold text, the others numbers; `best` is a
    row to mark.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    left: int = 1
    best: int | None = None

    def without(self, *columns: str) -> "Table":
        keep = [index for index, column in enumerate(self.columns) if column not in columns]
        rows = tuple(tuple(row[index] for index in keep) for row in self.rows)
        return replace(self, columns=tuple(self.columns[index] for index in keep), rows=rows)


def three(value: float) -> str:
    """Three decimals."""
    return f"{value:.3f}" if math.isfinite(value) else NONE


def plus_minus(mean: float, std: float) -> str:
    """Mean ± standard deviation; a single fold has no deviation."""
    finite = math.isfinite(mean) and math.isfinite(std)
    return f"{three(mean)} ± {three(std)}" if finite else three(mean)
