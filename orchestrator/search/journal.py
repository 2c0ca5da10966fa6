"""The journal of a search: what was suggested, handed out, learned and decided, as JSON lines.

It is the search's only memory. Rows are appended in batches, each with one write, and are on disk
before anybody acts on them; what a killed writer left of a line is cut off at the next opening.
Anything else that was not written so is told in one line, and nothing of it is believed.
"""

import json
import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from orchestrator.experiment.folds_config import MOST_REPEATS
from orchestrator.experiment.search_config import CHANGEABLE
from trainables.core.errors import RunFolderError
from trainables.core.files import open_regular

VERSION = 2
Row = dict[str, Any]

#: What the header has digests of, in words.
_DIGESTS = {
    "spaces": "its spaces",
    "stated": "its candidates as written",
    "data": "its images, labels or folds",
}
_MOST_BYTES = 512 * 2**20
_Number = Annotated[int, Field(ge=0, lt=2**40)]
_Real = Annotated[float, Field(allow_inf_nan=False)]

# --- rows -----------------------------------------------------------------------------------------


class _Row(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")


class _Begun(_Row):
    event: Literal["begun"]
    version: _Number
    search: dict[str, Any]
    spaces: str
    stated: str
    data: str
    folds: _Number
    seeds: list[int]


class _Earlier(_Row):
    id: str
    space: _Number
    values: dict[str, Any]
    value: _Real
    estimated: bool  # it had finished some folds only


class _Prior(_Row):
    event: Literal["prior"]
    run: str
    same_data: bool  # and folds: its values are comparable with those of this search
    candidates: list[_Earlier]
    outside: _Number  # candidates that lie in no space of this search


class _Suggested(_Row):
    event: Literal["suggested"]
    candidate: _Number
    space: _Number | None  # None: it is stated
    id: str
    values: dict[str, Any]
    refused: str | None
    same_as: _Number | None


class _Rung(_Row):
    epoch: _Number
    threshold: _Real
    known: _Number


class _Curve(_Row):
    bests: Annotated[list[_Real | None], Field(max_length=24)]  # of them 3**24 epochs
    over: bool


class _Released(_Row):
    event: Literal["released"]
    release: _Number
    candidate: _Number
    fold: _Number
    rungs: list[list[_Rung]]  # by seed, which its cells are held to; none: trained in full


class _Finished(_Row):
    event: Literal["finished"]
    release: _Number
    score: _Real | None  # None: lost for good
    noise: _Real | None  # paired with another candidate's, None where there is none
    curves: list[_Curve]  # by seed, none where epochs are not raced
    reason: str | None


class _Halted(_Row):
    event: Literal["halted"]
    release: _Number
    seed: _Number  # its place among all
    epoch: _Number
    score: _Real | None  # None: no epoch had any
    threshold: _Real
    known: _Number  # curves that the threshold comes from
    curves: Annotated[list[_Curve], Field(min_length=1)]
    reason: str


class _Stopped(_Row):
    event: Literal["stopped"]
    candidate: _Number
    folds: list[_Number]
    against: _Number | None
    probability: _Real | None
    reason: str
    rule: str


class _Cancelled(_Row):
    event: Literal["cancelled"]
    release: _Number


class _Told(_Row):
    event: Literal["told"]
    candidate: _Number
    value: _Real | None
    estimated: bool


class _Finalists(_Row):
    event: Literal["finalists"]
    candidates: Annotated[list[_Number], Field(min_length=1)]
    folds: _Number  # of each in all
    reason: str


class _Exhausted(_Row):
    event: Literal["exhausted"]


class _Ended(_Row):
    event: Literal["ended"]
    reason: str


_ROW: TypeAdapter[Any] = TypeAdapter(
    Annotated[
        _Begun
        | _Prior
        | _Suggested
        | _Released
        | _Finished
        | _Halted
        | _Stopped
        | _Cancelled
        | _Told
        | _Finalists
        | _Exhausted
        | _Ended,
        Field(discriminator="event"),
    ]
)


# --- reading --------------------------------------------------------------------------------------


def read_rows(path: Path) -> list[Row]:
    """All whole rows of a journal, the header first; none where there is no journal.

    Raises RunFolderError for what was not written as a journal. May be called while it is written.
    """
    return _read(path)[0]


def _read(path: Path) -> tuple[list[Row], int, int]:
    """The rows, the bytes that they take, and the bytes that there are."""
    try:
        with open_regular(path) as file:
            data = file.read(_MOST_BYTES + 1)
    except FileNotFoundError:
        return [], 0, 0
    except OSError as error:
        _damaged(path, error.strerror or str(error))
    if len(data) > _MOST_BYTES:
        _damaged(path, f"it has more than the {_MOST_BYTES:,} bytes that it may have")
    whole = data.rfind(b"\n") + 1
    rows = [_parsed(path, at, line) for at, line in enumerate(data[:whole].split(b"\n")[:-1], 1)]
    _check_order(path, rows)
    return rows, whole, len(data)


def _parsed(path: Path, line: int, text: bytes) -> Row:
    try:
        row = json.loads(text, parse_constant=_no_number)
        if line == 1 and isinstance(row, dict) and row.get("version", VERSION) != VERSION:
            _damaged(path, f"it is of version {row['version']!r:.20}, this rayfold's is {VERSION}")
        _ROW.validate_python(row)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False, include_context=False)[0]
        place = ".".join(map(str, problem["loc"][1:])) or "as a whole"
        _damaged(path, f"line {line}, {place}: {problem['msg'][:200]}")
    except (ValueError, RecursionError):
        _damaged(path, f"line {line} is no row")
    return row  # type: ignore[no-any-return]


def _no_number(_: str) -> NoReturn:
    raise ValueError


def _check_order(path: Path, rows: Sequence[Row]) -> None:
    """Raise where a row speaks of what is not there yet."""
    candidates = releases = folds = seeds = 0
    for line, row in enumerate(rows, 1):
        event = row["event"]
        if (event == "begun") != (line == 1):
            _damaged(path, f"line {line} is {event!r}, where `begun` comes first and once")
        if event == "begun":
            folds, seeds = row["folds"], len(row["seeds"])
        elif not _fits(row, candidates, releases, folds, seeds):
            _damaged(path, f"line {line} speaks of what was not suggested or handed out before")
        candidates += event == "suggested"
        releases += event == "released"


def _fits(row: Row, candidates: int, releases: int, folds: int, seeds: int) -> bool:
    """Whether a row speaks of what is there, after so many candidates and releases."""
    event = row["event"]
    if event == "prior":
        return candidates == 0  # what is known from the start
    if event == "suggested":
        return int(row["candidate"]) == candidates >= (row["same_as"] or 0)
    if event == "finalists":
        return candidates > int(max(row["candidates"]))
    if row.get("candidate", -1) >= candidates or (row.get("against") or 0) >= max(candidates, 1):
        return False
    if event == "released":
        fits = int(row["release"]) == releases and int(row["fold"]) < folds * MOST_REPEATS
        return fits and len(row["rungs"]) in (0, seeds)
    fits = int(row.get("release", -1)) < releases and int(row.get("seed", 0)) < seeds
    return fits and len(row.get("curves", ())) in (0, seeds)


def check_folds(path: Path, rows: Sequence[Row], drawn: int) -> None:
    """Raise RunFolderError where a journal is of more folds than are drawn (any more)."""
    there = max((row["fold"] + 1 for row in rows if row["event"] == "released"), default=0)
    asked = max((row["folds"] for row in rows if row["event"] == "finalists"), default=0)
    if max(there, asked) > drawn:
        raise RunFolderError(
            f"a search goes on as it began, but has steps of {max(there, asked)} folds, and "
            f"{drawn} are drawn (journal {str(path)!r}): raise folds.repeats or "
            "search.finalists.repeats to what it was, or give --run another folder"
        )


def _damaged(path: Path, reason: str) -> NoReturn:
    raise RunFolderError(
        f"the journal of the search {str(path)!r} cannot be used, {reason}: put it back as it was, "
        "or give --run another folder"
    )


# --- writing --------------------------------------------------------------------------------------


class Journal:
    """The journal of one search, opened to go on; `rows`: all that it holds, the header left
    out.
    """

    def __init__(self, path: Path, rows: list[Row], size: int) -> None:
        self.rows = rows
        self._path, self._size = path, size

    @classmethod
    def open(cls, path: Path, header: Mapping[str, Any]) -> "Journal":
        """The journal at `path`, which begins with `header`, a row `begun`, if it is new.

        Raises RunFolderError where it is another search's, but for budgets, which may be changed,
        and where it is damaged.
        """
        rows, whole, there = _read(path)
        journal = cls(path, rows, whole)
        if whole < there:
            journal._cut()
        if not rows:
            journal.append([dict(header)])
        elif differing := _difference(rows[0], header):
            raise RunFolderError(
                f"a search goes on as it began, but {differing} (journal {str(path)!r}); state it "
                "so again, or give --run another folder"
            )
        del journal.rows[:1]
        return journal

    def append(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Keep rows, which are on disk once this returns; RunFolderError where they cannot be."""
        new = [dict(row) for row in rows]
        data = "".join(f"{json.dumps(row, allow_nan=False)}\n" for row in new).encode()
        try:
            self._write(data)
        except OSError as error:
            raise RunFolderError(
                f"the journal of the search {str(self._path)!r} must be writable, got "
                f"{error.strerror or error}: make room or mend it, and run again"
            ) from error
        self.rows += new

    def _write(self, data: bytes) -> None:
        new = self._size == 0
        if new:
            self._path.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
        file = os.open(self._path, flags, 0o666)
        try:
            if not stat.S_ISREG(os.fstat(file).st_mode):
                raise OSError(f"{str(self._path)!r} is no file")
            try:
                written = os.write(file, data)
                if written < len(data):
                    raise OSError("the disk is full")
                os.fsync(file)
            except OSError:
                os.ftruncate(file, self._size)  # half a row must not stand before the next
                raise
        finally:
            os.close(file)
        if new:
            _sync_folder(self._path.parent)
        self._size += len(data)

    def _cut(self) -> None:
        """Take away what a killed writer left of a line."""
        try:
            os.truncate(self._path, self._size)
        except OSError as error:
            _damaged(self._path, error.strerror or str(error))


def _sync_folder(folder: Path) -> None:
    """A new name in it is on disk, too."""
    file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _difference(began: Mapping[str, Any], asked: Mapping[str, Any]) -> str | None:
    """What of a header is not as it was, in words."""
    asked = json.loads(json.dumps(asked))  # as it would be read
    pairs = {
        **{name: (began[name], asked.get(name)) for name in ("folds", "seeds", *_DIGESTS)},
        **{
            f"search.{name}": (began["search"].get(name), asked["search"].get(name))
            for name in {**began["search"], **asked["search"]}
            if name not in CHANGEABLE
        },
    }
    for name, (before, now) in pairs.items():
        if before != now:
            if name in _DIGESTS:
                return f"{_DIGESTS[name]} have changed"
            return f"{name} was {json.dumps(before)} and is {json.dumps(now)}"
    return None
