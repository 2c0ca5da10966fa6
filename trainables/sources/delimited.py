"""Delimited text as spreadsheets write it: whatever separator and encoding, every cell as it is
written.
"""

import codecs
import csv
import io
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from trainables.core.errors import DataError
from trainables.core.spelling import quoted

SUFFIXES = (".csv", ".tsv", ".tab", ".txt")
_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_HINT = re.compile(r"sep=([,;\t|])\s*", re.IGNORECASE)  # Excel's own first line
_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16, whose mark is the beginning of this one
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
# What Windows writes in western Europe; every byte is a letter of latin-1.
_WESTERN = (
    "cp1252",
    "latin-1",
)
_WORKBOOKS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")
_BLOCK = 2**20  # bytes
_LONGEST_HEADER = 2**16  # characters
_ODD_WORD = re.compile(r"[^\s,;|\"']*[^\x00-\x7f][^\s,;|\"']*")


@dataclass(frozen=True)
class Delimited:
    """A table of text.

    `rows` hold as many cells as there are `columns`, '' where nothing stands; `numbers` count them
    from 1 as they stand in the file, without the header; `notes` say what had to be assumed.
    """

    columns: list[str]
    rows: list[list[str]]
    numbers: list[int]
    notes: list[str] = field(default_factory=list)


def read_delimited(path: Path, wanted: Callable[[list[str]], bool]) -> Delimited:
    """Read a table of text under the separator with which the names of its columns make `wanted`
    true.

    Where none does, the one that gives most columns is taken. Rows without any text are passed
    over. Raises `DataError` for what is no such table.
    """
    encoding = _encoding(path)
    try:
        with path.open(encoding=encoding, newline="") as file:
            dialect = _dialect(file, wanted)
        with path.open(encoding=encoding, newline="") as file:
            table = _read(file, dialect)
    except (csv.Error, ValueError) as error:
        raise _unreadable(path, str(error)) from None
    if encoding in _WESTERN:
        table.notes.append(
            f"the table is not UTF-8 and was read as {encoding}, for example "
            f"{_odd_word(path, encoding)} (if that is wrong, save the table as CSV UTF-8)"
        )
    if encoding.startswith(("utf-16", "utf-32")):
        table.notes.append(f"the table was read as {encoding.upper()}")
    if dialect.separator != {".tsv": "\t", ".tab": "\t"}.get(path.suffix.lower(), ","):
        table.notes.append(f"the table's columns are separated by {_SEPARATORS[dialect.separator]}")
    if dialect.quote != '"':
        table.notes.append(f"the table's cells are quoted by {dialect.quote}")
    return table


def _unreadable(path: Path, reason: str) -> DataError:
    return DataError(
        f"data.path must be a readable {path.suffix.lower()} table, got {str(path)!r}: {reason}"
    )


# --- encoding -------------------------------------------------------------------------------------


def _encoding(path: Path) -> str:
    """The encoding in which the whole file can be read; the file is read block by block."""
    try:
        with path.open("rb") as file:
            start = file.read(4096)
            if start.startswith(_WORKBOOKS):
                raise _unreadable(
                    path, "it is a workbook of a spreadsheet program; save it there as CSV UTF-8"
                )
            for mark, encoding in _MARKS.items():
                if start.startswith(mark):
                    return encoding
            if b"\0" in start:
                # Text of two bytes a letter, without a mark: every other byte is zero.
                odd, even = start[1::2].count(0) / len(start), start[::2].count(0) / len(start)
                if max(odd, even) < 0.25 or min(odd, even) > 0.05:
                    raise _unreadable(path, "it holds zero bytes, so it is no text")
                return "utf-16-le" if odd > even else "utf-16-be"
        return next(encoding for encoding in ("utf-8", *_WESTERN) if _decodes(path, encoding))
    except OSError as error:
        raise _unreadable(path, error.strerror or str(error)) from None


def _decodes(path: Path, encoding: str) -> bool:
    decoder = codecs.getincrementaldecoder(encoding)()
    try:
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                decoder.decode(block)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True


def _odd_word(path: Path, encoding: str) -> str:
    """The first word of the file that other encodings would show otherwise."""
    with path.open(encoding=encoding) as file:
        return next(quoted(match[0]) for line in file if (match := _ODD_WORD.search(line)))


# --- separator, header, rows ----------------------------------------------------------------------


@dataclass(frozen=True)
class _Dialect:
    separator: str
    quote: str
    blanks: bool = False  # blanks after separators do not belong to the cells
    hinted: bool = False  # the first line is no header but says 'sep=;'

    def rows(self, lines: Iterable[str]) -> Iterator[list[str]]:
        lines = iter(lines)
        if self.hinted:
            next(lines)
        return csv.reader(
            lines,
            delimiter=self.separator,
            quotechar=self.quote,
            skipinitialspace=self.blanks,
            strict=True,
        )


def _dialect(file: TextIO, wanted: Callable[[list[str]], bool]) -> _Dialect:
    start = file.read(_LONGEST_HEADER)
    hint = _HINT.fullmatch(next(io.StringIO(start, newline=""), ""))
    found = []
    for quote in ('"', "'"):
        for separator in hint[1] if hint else _SEPARATORS:
            dialect = _Dialect(separator, quote, hinted=hint is not None)
            columns = _header(dialect, start)
            # Blanks are skipped only where the header has them too, so that elsewhere a cell keeps
            # its own.
            blanks = any(column.startswith(" ") for column in columns[1:])
            found.append(
                (
                    wanted(columns),
                    len(columns),
                    _Dialect(separator, quote, blanks, hint is not None),
                )
            )
    return max(found, key=lambda choice: choice[:2])[2]


def _header(dialect: _Dialect, start: str) -> list[str]:
    try:
        return next(filter(any, dialect.rows(io.StringIO(start, newline=""))), [])
    except csv.Error:
        return []


def _read(file: TextIO, dialect: _Dialect) -> Delimited:
    rows = dialect.rows(file)
    columns = next(filter(any, rows), [])
    while columns and not columns[-1].strip():  # a separator at the end of every line
        columns.pop()
    if not columns:
        raise ValueError("it is empty")
    kept, numbers = [], []
    for number, cells in enumerate(rows, start=1):
        if not any(map(str.strip, cells)):
            continue
        if any(map(str.strip, cells[len(columns) :])):
            if columns[0].lstrip().startswith("#"):
                raise ValueError(
                    "its first line is a comment: the names of the columns must come first, remove "
                    "what stands before"
                )
            raise ValueError(
                f"row {number} has {len(cells)} cells, but there are {len(columns)} columns (put "
                "text that holds the separator in quotes)"
            )
        kept.append([*cells[: len(columns)], *[""] * (len(columns) - len(cells))])
        numbers.append(number)
    return Delimited(columns, kept, numbers)
