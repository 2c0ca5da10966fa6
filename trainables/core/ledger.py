"""The ledger: the finished and running cells of a run on disk, addressed by what decides their
result.

One folder per cell, `ledger/<key>/`:

    spec.json            what the cell is (CellSpec)
    state.json           how it stands (CellState); a cell is done only by this file, written last
    epochs.parquet       one row per finished epoch, once the cell is done or halted
    predictions.parquet  one row per image of the fold and of the test set
    model.keras          best weights, a Keras model that returns probabilities
    resume.npz           where to go on after an interruption; gone once the cell is done

Files are moved into place whole, and `state.json` records the digests of the tables, so an entry
that a crash or a full disk tore is told from a finished one and computed again. Nothing is pickled.
"""

import os
import time
import traceback
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal
from zipfile import BadZipFile

import numpy as np
import pandas as pd
from pydantic import BeforeValidator, Field, TypeAdapter

from trainables.core.config import CellSpec, class_index
from trainables.core.errors import RayfoldError, RunFolderError
from trainables.core.files import (
    file_digest,
    link_or_copy,
    parts_digest,
    replacing,
    write_json,
    write_text,
)
from trainables.core.records import (
    DamagedRecord,
    check_regular,
    read_json,
    read_table,
    read_text,
)
from trainables.core.tables import write_parquet
from trainables.core.values import Frozen

#: `halted`: it ended within its epochs, since it was behind others; what asks for it in full goes
#: on. `stopped`: a search decided that it is not needed; never found on disk.
State = Literal["missing", "running", "failed", "done", "halted", "stopped"]
_TABLES = ("epochs.parquet", "predictions.parquet")
_MOST_BYTES = 2**31  # of a table: what is larger is not even hashed
_EPOCHS = {"epoch": "whole"} | dict.fromkeys(
    (
        "train_loss",
        "train_accuracy",
        "validation_loss",
        "validation_accuracy",
        "validation_auc",
        "learning_rate",
    ),
    "real",
)
_EPOCHS["seconds"] = "real"
_SPEC = TypeAdapter(CellSpec)


class Seconds(Frozen):
    """Where a cell's wall time went; sums over all attempts that led to the result."""

    start: float = 0.0
    build: float = 0.0
    train: float = 0.0
    score: float = 0.0
    checkpoint: float = 0.0

    def plus(self, **more: float) -> "Seconds":
        return Seconds(
            **{phase: value + more.get(phase, 0.0) for phase, value in self.model_dump().items()}
        )

    @property
    def total(self) -> float:
        return self.start + self.build + self.train + self.score + self.checkpoint


Count = Annotated[int, Field(ge=0, lt=2**31)]


_MOST_REASON, _MOST_TRACEBACK = 500, 100_000  # characters
_LARGEST = 3.5e38  # what float32 holds


def _at_most(characters: int) -> BeforeValidator:
    """Cuts a text, which somebody else may have written."""
    return BeforeValidator(lambda text: text[:characters] if isinstance(text, str) else text)


class CellState(Frozen):
    """How one cell stands."""

    state: State = "missing"
    cell: str = Field("", description="The address of the cell that it is of.")
    reason: Annotated[str, _at_most(_MOST_REASON)] = Field(
        "", description="Why it failed or was halted: one line."
    )
    traceback: Annotated[str, _at_most(_MOST_TRACEBACK)] = ""
    out_of_memory: bool = Field(
        False, description="Whether it failed because its device had no memory left."
    )
    worker_failed: bool = Field(
        False, description="Whether it failed because its worker could not start."
    )
    attempts: Count = 0
    epochs: Count = 0
    best_epoch: Count | None = Field(None, description="Counted from 1.")
    seconds: Seconds = Seconds()
    peak_memory_mb: float | None = Field(
        None, description="Largest resident memory of the worker during the cell."
    )
    parameters: int | None = Field(None, ge=0, lt=2**53, description="Weights of the model.")
    host: str = ""
    device: str = ""
    threads: Count | None = Field(
        None, description="Threads that TensorFlow had for one operation."
    )
    versions: dict[str, str] = Field(default_factory=dict, description="Packages that computed it.")
    taken_from: str = Field(
        "", description="The run that trained it, where another one's result was taken over."
    )
    updated: str = ""
    digests: dict[str, str] = Field(
        default_factory=dict, description="SHA-256 of the tables and of the model's checksums."
    )


_STATE = TypeAdapter(CellState)


class Entry:
    """One cell's folder in the ledger."""

    def __init__(self, ledger: Path, spec: CellSpec) -> None:
        self.spec = spec
        self.folder = ledger / spec.key

    @property
    def model_path(self) -> Path:
        return self.folder / "model.keras"

    @property
    def resume_path(self) -> Path:
        return self.folder / "resume.npz"

    def create(self) -> None:
        """Write down what the cell is; id and name of the candidate are no part of the key, so they
        may be new.
        """
        path, text = self.folder / "spec.json", self.spec.model_dump_json(indent=1)
        try:
            known = read_text(path)
        except (FileNotFoundError, DamagedRecord):
            known = ""
        if known != text:
            write_text(path, text)

    def state(self) -> CellState:
        """How the cell stands; a torn entry reads as missing, with the reason."""
        try:
            state = read_json(self.folder / "state.json", _STATE)
        except FileNotFoundError:
            return CellState()
        except DamagedRecord as error:
            return CellState(
                reason=f"state.json is damaged ({error.reason[:200]}); the cell is computed again"
            )
        if state.cell not in ("", self.spec.key):
            return CellState(reason="state.json is of another cell; the cell is computed again")
        if state.state == "stopped":
            return CellState(reason="state.json tells of no cell; the cell is computed again")
        if state.state in ("done", "halted") and (damaged := self._damaged(state)):
            how = "damaged" if os.path.lexists(self.folder / damaged) else "gone"
            return CellState(
                reason=f"{damaged} is {how}; the cell is computed again", attempts=state.attempts
            )
        return state

    def _damaged(self, state: CellState) -> str | None:
        """The name of a file of a done or halted cell that is not what it was when the cell
        ended.
        """
        there = (*_TABLES, self.model_path.name) if state.state == "done" else _TABLES[:1]
        for name in there:
            path = self.folder / name
            try:
                size = check_regular(path, _MOST_BYTES if name in _TABLES else None)
                known = state.digests.get(name, "")
                # An older ledger knows the size of a model only.
                by_size = known.isdigit() and name not in _TABLES
                right = known == (str(size) if by_size else self._digest(path))
            except (FileNotFoundError, DamagedRecord, PermissionError, BadZipFile):
                right = False
            if not right:
                return name
        return None

    def _digest(self, path: Path) -> str:
        """SHA-256 of a table; of a model that of its parts' checksums, since models are large."""
        return file_digest(path) if path.name in _TABLES else parts_digest(path)

    def write_state(self, state: CellState) -> None:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        write_json(
            self.folder / "state.json",
            state.model_copy(update={"cell": self.spec.key, "updated": now}).model_dump(
                mode="json"
            ),
        )

    def update(self, **changes: object) -> CellState:
        """Change some fields of the state on disk and return the new state."""
        state = CellState.model_validate(self.state().model_dump() | changes)
        self.write_state(state)
        return state

    def fail(self, error: Exception, doing: str = "", **facts: object) -> None:
        """Note that the cell failed, `doing` what, and why; `facts` are further fields of the
        state.
        """
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        if not isinstance(error, RayfoldError):
            reason = f"{type(error).__name__}: {reason}"
        text = "".join(traceback.format_exception(error))
        self.update(**{"state": "failed", "reason": doing + reason, "traceback": text, **facts})

    def finish(self, state: CellState, epochs: pd.DataFrame, predictions: pd.DataFrame) -> None:
        """Write the tables, then declare the cell done. The model must be in place already."""
        for name, table in zip(_TABLES, (epochs, predictions), strict=True):
            write_parquet(self.folder / name, table)
        digests = {
            name: self._digest(self.folder / name) for name in (*_TABLES, self.model_path.name)
        }
        self.write_state(
            state.model_copy(
                update={"state": "done", "reason": "", "traceback": "", "digests": digests}
            )
        )
        self.resume_path.unlink(missing_ok=True)

    def halt(self, state: CellState, epochs: pd.DataFrame, reason: str) -> None:
        """Write the epochs that there are, then declare the cell halted; it may go on."""
        (name, _) = _TABLES
        write_parquet(self.folder / name, epochs)
        digests = {name: self._digest(self.folder / name)}
        facts = {"state": "halted", "reason": reason, "traceback": "", "digests": digests}
        self.write_state(state.model_copy(update=facts))

    def take_over(self, other: "Entry", run: str) -> CellState:
        """Have what another run's ledger has of the same cell, which stays as it is; how this entry
        stands then. `run`: what is written down of where it comes from.

        The state comes last, as in `finish`, with the digests that the files have there: what is
        not so here counts as damaged. Raises OSError for what cannot be read, or is no file.
        """
        state = other.state()
        for name in (*_TABLES, self.model_path.name):
            with replacing(self.folder / name) as temporary:
                link_or_copy(other.folder / name, temporary)
        self.write_state(state.model_copy(update={"taken_from": run}))
        self.resume_path.unlink(missing_ok=True)
        return self.state()

    def epochs(self) -> pd.DataFrame:
        """One row per epoch; raises DamagedRecord where the table is of another kind."""
        path = self.folder / "epochs.parquet"
        table = read_kept(path, _EPOCHS)
        numbers = table.select_dtypes("number").to_numpy(float)
        if (np.abs(numbers[np.isfinite(numbers)]) > _LARGEST).any():
            raise DamagedRecord(path, "it has numbers that no training gives")
        return table

    def predictions(self) -> pd.DataFrame:
        """One row per image of the fold and of the test set; raises DamagedRecord for a table that
        is not of them.
        """
        path, classes = self.folder / "predictions.parquet", self.spec.classes
        schema = dict.fromkeys(("image", "label", "group", "split"), "text")
        schema |= {f"prob_{name}": "real" for name in classes} | {
            f"logit_{name}": "~real" for name in classes
        }
        table = read_kept(path, schema | {"prediction": "text"})
        for column, known in (
            ("label", classes),
            ("prediction", classes),
            ("split", ("fold", "test")),
        ):
            if strange := sorted(set(table[column]) - set(known)):
                raise DamagedRecord(path, f"no {column} is called {strange[0][:80]!r}")
        if not len(table) or table.duplicated(["image", "split"]).any():
            raise DamagedRecord(path, "it has no images, or one twice")
        _check_scores(path, table, classes)
        return table


def _check_scores(path: Path, table: pd.DataFrame, classes: Sequence[str]) -> None:
    """Raise DamagedRecord unless the classes' probabilities, logits and the predictions of the rows
    go together.
    """
    probabilities = table[[f"prob_{name}" for name in classes]].to_numpy(float)
    logits = table[[name for name in table.columns if name.startswith("logit_")]].to_numpy(float)
    predicted = table["prediction"].map(class_index(classes)).to_numpy()
    near = 1e-2  # bfloat16 has no more
    right = (probabilities >= -near) & (probabilities <= 1 + near)  # false for NaN as well
    if not (right.all() and (np.abs(probabilities.sum(axis=1) - 1) <= near).all()):
        raise DamagedRecord(path, "its probabilities are none")
    if logits.shape[1] not in (0, len(classes)) or not (np.abs(logits) < 1e38).all():
        raise DamagedRecord(path, "its logits are none")
    if logits.shape[1]:
        shares = np.exp(logits - logits.max(axis=1, keepdims=True))
        if (np.abs(shares / shares.sum(axis=1, keepdims=True) - probabilities) > near).any():
            raise DamagedRecord(path, "its probabilities are not those of its logits")
    if (probabilities[np.arange(len(table)), predicted] < probabilities.max(axis=1) - near).any():
        raise DamagedRecord(path, "it predicts other classes than the most probable ones")


def read_kept(path: Path, schema: Mapping[str, str]) -> pd.DataFrame:
    """A table that must be there; raises DamagedRecord where it is gone or not of its schema."""
    try:
        return read_table(path, schema)[0]
    except FileNotFoundError as error:
        raise DamagedRecord(path, "it is gone") from error


def read_entry(folder: Path) -> Entry:
    """The entry that lies in `ledger/<key>`; raises RunFolderError when there is none or its
    spec.json is damaged.
    """
    try:
        spec = read_json(folder / "spec.json", _SPEC)
        if spec.key != folder.name:
            raise DamagedRecord(folder / "spec.json", "it is of another cell")
    except (FileNotFoundError, DamagedRecord) as error:
        raise RunFolderError(
            f"the ledger entry {str(folder)!r} has no readable spec.json: run the experiment again "
            "to restore it"
        ) from error
    return Entry(folder.parent, spec)


class Stopwatch:
    """Adds up wall seconds by phase: `with watch("train"): …`."""

    def __init__(self, seconds: Seconds | None = None) -> None:
        self._seconds = (seconds or Seconds()).model_dump()
        self._phase = ""
        self._began = 0.0

    def __call__(self, phase: str) -> "Stopwatch":
        self._phase = phase
        return self

    def __enter__(self) -> None:
        self._began = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self._seconds[self._phase] += time.perf_counter() - self._began

    @property
    def seconds(self) -> Seconds:
        return Seconds(**self._seconds)
