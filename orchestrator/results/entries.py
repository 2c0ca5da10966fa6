"""The ledger entries of a run's cells, those too whose folders do not tell any more which cells
they are.
"""

from itertools import product
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


class LostEntry(Entry):
    """A cell whose folder does not tell which one it is; it counts as missing."""

    def __init__(self, folder: Path, spec: CellSpec, reason: str) -> None:
        self.spec, self.folder, self._reason = spec, folder, reason

    def state(self) -> CellState:
        return CellState(reason=self._reason)


def run_entries(layout: RunLayout, experiment: Experiment, manifest: Manifest) -> list[Entry]:
    """The entries of all cells that the experiment asks for, in the order of `cells.json`.

    Those that are lost are the cells that the others are not. Raises RunFolderError where that does
    not add up.
    """
    entries: dict[str, Entry] = {}
    lost: dict[str, RunFolderError] = {}
    keys = read_keys(layout)
    if len(keys) != len(experiment.candidates) * len(experiment.seeds) * experiment.folds.k:
        raise _other_cells(layout)
    for key, entry in read_entries(layout, keys).items():
        if isinstance(entry, RunFolderError):
            lost[key] = entry
        elif entry.spec.classes != manifest.classes:
            lost[key] = _other_classes(entry)
        else:
            entries[key] = entry
    if any(entry.spec.data_hash != manifest.data_hash for entry in entries.values()):
        raise DamagedRecord(layout.manifest, "its images or labels are not those of the cells")
    stated = {candidate.id: candidate.deciding() for candidate in experiment.candidates}
    for entry in entries.values():
        if entry.spec.candidate.deciding() != stated.get(entry.spec.candidate.id):
            raise DamagedRecord(layout.experiment, "its candidates are not those of the cells")
    known = {
        (entry.spec.candidate.id, entry.spec.seed, entry.spec.fold) for entry in entries.values()
    }
    asked = product(experiment.candidates, experiment.seeds, range(experiment.folds.k))
    left = [cell for cell in asked if (cell[0].id, *cell[1:]) not in known]
    if len(left) != len(lost):
        raise next(iter(lost.values()), _other_cells(layout))
    common = {
        "classes": manifest.classes,
        "channels": manifest.channels,
        "data_hash": "",
        "roles_hash": "",
    }
    for key, (candidate, seed, fold) in zip(lost, left, strict=True):
        spec = CellSpec(candidate=candidate, seed=seed, fold=fold, **common)
        entries[key] = LostEntry(layout.ledger / key, spec, str(lost[key]))
    return [entries[key] for key in keys]


def run_folds(layout: RunLayout, entries: list[Entry]) -> pd.DataFrame:
    """fold, image, label, group, role: one row per fold and image; raises DamagedRecord for others
    than the cells'.
    """
    folds = read_folds(layout)
    digests = {fold: roles_digest(folds, fold) for fold in folds["fold"].unique()}
    if any(entry.spec.roles_hash not in ("", digests.get(entry.spec.fold)) for entry in entries):
        raise DamagedRecord(layout.folds, "its images, labels or roles are not those of the cells")
    if set(digests) - {entry.spec.fold for entry in entries}:
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
