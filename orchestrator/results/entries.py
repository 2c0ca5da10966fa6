"""The ledger entries of a run's cells, those too whose folders do not tell any more which cells
they are.
"""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from orchestrator.experiment.experiment_file import Experiment
from orchestrator.splits.folds import roles_digest
from trainables.core.config import CellSpec
from trainables.core.errors import RunFolderError
from trainables.core.layout import RunLayout
from trainables.core.ledger import CellState, Entry
from trainables.core.records import DamagedRecord
from trainables.core.run_folder import read_entries, read_folds, read_keys
from trainables.data.manifest import Manifest


class NoEntry(Entry):
    """A cell without a readable folder: one that does not tell which it is, which counts as
    missing, or one that a search did not ask for.
    """

    def __init__(self, folder: Path, spec: CellSpec, state: CellState) -> None:
        self.spec, self.folder, self._state = spec, folder, state

    def state(self) -> CellState:
        return self._state


def run_entries(
    layout: RunLayout,
    experiment: Experiment,
    manifest: Manifest,
    unasked: Mapping[tuple[str, int], CellState] | None = None,
    folds: Mapping[str, int] | None = None,
) -> list[Entry]:
    """The entries of all cells of the experiment's candidates, by candidate, seed and fold.

    Those that are lost are the cells that the others are not. `unasked`: steps, by candidate and
    fold, that a search has not asked for, and how they stand. `folds`: of candidates that have more
    than others. Raises RunFolderError where that does not add up.
    """
    unasked, folds = unasked or {}, folds or {}
    places = [
        (candidate, seed, fold)
        for candidate in experiment.candidates
        for seed in experiment.seeds
        for fold in range(folds.get(candidate.id, experiment.folds.count))
    ]
    known, lost = _read_cells(layout, experiment, manifest, len(places))
    common = {
        "classes": manifest.classes,
        "channels": manifest.channels,
        "data_hash": "",
        "roles_hash": "",
    }
    entries: list[Entry] = []
    for candidate, seed, fold in places:
        entry, state = known.pop((candidate.id, seed, fold), None), CellState()
        never = unasked.get((candidate.id, fold))
        if entry is not None and never is None:
            entries.append(entry)
            continue
        folder = Path()
        if never is not None:
            state = never
        elif lost:
            key = next(iter(lost))
            folder, state = layout.ledger / key, CellState(reason=str(lost.pop(key)))
        spec = CellSpec(candidate=candidate, seed=seed, fold=fold, **common)
        entries.append(NoEntry(folder, spec, state))
    if lost or known:
        raise next(iter(lost.values()), _other_cells(layout))
    return entries


def _read_cells(
    layout: RunLayout, experiment: Experiment, manifest: Manifest, most: int
) -> tuple[dict[tuple[str, int, int], Entry], dict[str, RunFolderError]]:
    """By candidate, seed and fold the entries that can be read; by key why the others cannot."""
    keys = read_keys(layout)
    # A search asks for a part of them.
    if len(keys) > most or (len(keys) < most and experiment.search is None):
        raise _other_cells(layout)
    entries: dict[tuple[str, int, int], Entry] = {}
    lost: dict[str, RunFolderError] = {}
    stated = {candidate.id: candidate.deciding() for candidate in experiment.candidates}
    for key, entry in read_entries(layout, keys).items():
        if isinstance(entry, RunFolderError):
            lost[key] = entry
            continue
        spec = entry.spec
        if spec.classes != manifest.classes:
            lost[key] = _other_classes(entry)
            continue
        if spec.data_hash != manifest.data_hash:
            raise DamagedRecord(layout.manifest, "its images or labels are not those of the cells")
        if spec.candidate.deciding() != stated.get(spec.candidate.id):
            raise DamagedRecord(layout.experiment, "its candidates are not those of the cells")
        entries[spec.candidate.id, spec.seed, spec.fold] = entry
    if len(entries) + len(lost) < len(keys):
        raise next(iter(lost.values()), _other_cells(layout))
    return entries, lost


def run_folds(layout: RunLayout, entries: list[Entry], drawn: int) -> pd.DataFrame:
    """fold, image, label, group, role: one row per fold, of so many, and image; raises
    DamagedRecord for others than the cells'.
    """
    folds = read_folds(layout)
    digests = {fold: roles_digest(folds, fold) for fold in folds["fold"].unique()}
    if any(entry.spec.roles_hash not in ("", digests.get(entry.spec.fold)) for entry in entries):
        raise DamagedRecord(layout.folds, "its images, labels or roles are not those of the cells")
    if max(digests) >= drawn:
        raise DamagedRecord(layout.folds, "it has folds that no cell has")
    if (folds.groupby(["fold", "group"])["role"].nunique() > 1).any():
        raise DamagedRecord(layout.folds, "a group stands in two parts of one fold")
    return folds


def predictions_of(entry: Entry, folds: pd.DataFrame) -> pd.DataFrame:
    """The predictions of a done cell; raises DamagedRecord where they are of other images than
    those of its fold.
    """
    table = entry.predictions()
    part = folds[(folds["fold"] == entry.spec.fold) & folds["role"].isin(["fold", "test"])]
    asked = zip(part["image"], part["label"], part["role"], strict=True)
    if set(asked) != set(zip(table["image"], table["label"], table["split"], strict=True)):
        raise DamagedRecord(
            entry.folder / "predictions.parquet", "its images or labels are not those of its fold"
        )
    return table


def epochs_of(entry: Entry, state: CellState) -> pd.DataFrame:
    """The epochs of a done cell; raises DamagedRecord where its state says others."""
    table = entry.epochs()
    if len(table) != state.epochs or state.best_epoch not in table["epoch"].to_numpy():
        raise DamagedRecord(entry.folder / "state.json", "it has other epochs than epochs.parquet")
    return table


def interrupted(state: CellState) -> CellState:
    """What a cell that counts as running is when nobody runs it."""
    if state.state != "running":
        return state
    return state.model_copy(
        update={"state": "missing", "reason": f"interrupted after epoch {state.epochs}"}
    )


def not_needed(state: CellState, reason: str | None) -> CellState:
    """Of a cell that was halted, what others see; `reason`: why the search halted its step, None
    where it did not. It says so, too, where the cell was trained in full before that was known.
    """
    if reason is None and state.state != "halted":
        return state
    return state.model_copy(update={"state": "stopped", "reason": reason or state.reason})


def _other_classes(entry: Entry) -> RunFolderError:
    return RunFolderError(
        f"the ledger entry {str(entry.folder)!r} is of other classes than the manifest: run the "
        "experiment again to restore it"
    )


def _other_cells(layout: RunLayout) -> RunFolderError:
    return RunFolderError(
        f"{str(layout.cells)!r} lists other cells than the experiment asks for: run the experiment "
        "again to restore it"
    )
