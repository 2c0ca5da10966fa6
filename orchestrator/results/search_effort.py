"""What a search took, and what it saved against full cross-validation of the same candidates."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from trainables.core.errors import RunFolderError
from trainables.core.ledger import CellState, read_entry

if TYPE_CHECKING:
    from orchestrator.results.run import Run

_MEASURED = ["epochs", "seconds_total"]


@dataclass(frozen=True)
class Work:
    """A number of cells, their epochs, and the hours of devices that they take."""

    cells: int
    epochs: float
    hours: float


@dataclass(frozen=True)
class Effort:
    """What became of a search's cells.

    `run`: done, of the folds of the race; `taken`: the same, but trained by earlier runs;
    `further`: done, of finalists' further repeats; `broken_off`: begun, but halted, cancelled,
    failed, interrupted or trained ahead in vain; `saved`: what the cells that were not needed would
    have taken beyond that, an estimate. `unit`: what the hours are called.
    """

    run: Work
    taken: Work
    further: Work
    broken_off: Work
    saved: Work
    unit: str

    @property
    def full(self) -> Work:
        """Every fold of the race for the same candidates, as far as cells are run or not needed: an
        estimate.
        """
        parts = (self.run, self.taken, self.broken_off, self.saved)
        return Work(
            self.run.cells + self.taken.cells + self.saved.cells,
            sum(part.epochs for part in parts),
            sum(part.hours for part in parts),
        )


def search_effort(run: "Run") -> Effort:
    """The accounts of a run with a search."""
    assert run.searched is not None
    # Seconds depend on it most.
    sizes = {c.id: f"{c.model} {c.image_size}" for c in run.searched.experiment.candidates}
    cells = run.cells.assign(architecture=run.cells["candidate"].map(sizes))
    vain = [(state.epochs, state.seconds.total) for state in _uncounted(run)]
    return account(cells, run.searched.standings.k, vain)


@dataclass(frozen=True)
class ToGo:
    """What a search may still ask for, about and at most, in cells and in hours of devices; None
    where no budget says. `at_work`: cells that run now.
    """

    cells_about: float | None
    cells_most: int | None
    hours_about: float | None
    hours_most: float | None
    at_work: int


def search_to_go(run: "Run") -> ToGo | None:
    """What is left of a search if its candidates go on as they did, cells taking what those that
    are done took; None where it has ended.
    """
    assert run.searched is not None
    standings, to_come = run.searched.standings, run.searched.to_come
    if standings.ended is not None:
        return None
    cells = run.cells
    seeds, handed_out = cells["seed"].nunique(), len(standings.open)
    about, most = (
        None if steps is None else (steps + handed_out) * seeds
        for steps in (to_come.about, to_come.most)
    )
    hours = float(cells.loc[cells["state"] == "done", "seconds_total"].mean()) / 3600

    def taking(number: float | None) -> float | None:
        return None if number is None or math.isnan(hours) else number * hours

    at_work = int((cells["state"] == "running").sum())
    whole = None if most is None else int(most)
    return ToGo(about, whole, taking(about), taking(most), at_work)


def account(cells: pd.DataFrame, k: int, uncounted: Sequence[tuple[int, float]] = ()) -> Effort:
    """Accounts of a table of cells with `architecture`, the race having k folds, and of others,
    whose epochs and seconds came to nothing.

    A cell that was not needed is taken for the mean of its candidate's done cells, or, where there
    is none, of those of its architecture, or of all.
    """
    done, raced = cells["state"] == "done", cells["fold"] < k
    taken = cells["taken_from"] != ""
    begun = cells.loc[~done & (cells["state"] != "running"), _MEASURED]
    vain = pd.DataFrame(uncounted, columns=_MEASURED)
    broken_off = _work(pd.concat([part[(part > 0).any(axis=1)] for part in (begun, vain)]))
    expected = _work(_expected(cells[done], cells[raced & (cells["state"] == "stopped")]))
    devices = cells.loc[done & cells["device"].ne(""), "device"]
    return Effort(
        _work(cells[done & raced & ~taken]),
        _work(cells[done & raced & taken]),
        _work(cells[done & ~raced & ~taken]),
        broken_off,
        Work(
            expected.cells,
            max(expected.epochs - broken_off.epochs, 0.0),
            max(expected.hours - broken_off.hours, 0.0),
        ),
        "GPU-hours" if len(devices) and not devices.eq("CPU").any() else "device-hours",
    )


def _expected(done: pd.DataFrame, wanted: pd.DataFrame) -> pd.DataFrame:
    """Epochs and seconds of cells that were never done; 0 where nothing is done at all."""
    found = pd.DataFrame(float("nan"), index=wanted.index, columns=_MEASURED)
    for column in ("candidate", "architecture"):
        means = done.groupby(column)[_MEASURED].mean()
        found = found.fillna(means.reindex(wanted[column]).set_index(wanted.index))
    return found.fillna(done[_MEASURED].mean()).fillna(0.0)


def _uncounted(run: "Run") -> Iterator[CellState]:
    """Cells of the search's candidates in the ledger that are no part of its results: cancelled, or
    trained ahead and not asked for.
    """
    assert run.searched is not None
    counted = {entry.folder.name for entry in run.entries}
    stated = {
        candidate.id: candidate.deciding() for candidate in run.searched.experiment.candidates
    }
    for folder in run.layout.ledger.iterdir() if run.layout.ledger.is_dir() else ():
        if folder.name in counted:
            continue
        try:
            entry = read_entry(folder)
        except RunFolderError:
            continue
        candidate = entry.spec.candidate
        if candidate.deciding() == stated.get(candidate.id):
            yield entry.state()


def _work(cells: pd.DataFrame) -> Work:
    return Work(
        len(cells), float(cells["epochs"].sum()), float(cells["seconds_total"].sum()) / 3600
    )
