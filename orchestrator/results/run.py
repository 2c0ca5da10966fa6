"""What a run showed, as pandas tables: `run = load_run(path)`.

Everything is derived from the ledger, so it can be read while cells still run. Nothing that is
missing is averaged over: where a cell of a candidate is not done, the candidate's means are NaN and
`folds_missing` says how many.
"""

from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from orchestrator.experiment.experiment_file import read_experiment
from orchestrator.results.entries import (
    epochs_of,
    interrupted,
    not_needed,
    predictions_of,
    run_entries,
    run_folds,
)
from orchestrator.results.searched import read_search
from orchestrator.results.settings import settings_table
from orchestrator.results.summaries import score_images, summarise_candidate
from trainables.core.errors import RunFolderError
from trainables.core.layout import RunLayout
from trainables.core.ledger import CellState, Entry
from trainables.core.records import DamagedRecord, read_provenance
from trainables.core.run_folder import candidate_id, present_groups
from trainables.core.tables import write_both
from trainables.data.manifest import Manifest
from trainables.models.known_code import check_known
from trainables.runtime.startup import keras_settings
from trainables.runtime.waiting import held
from trainables.training.metrics import HEADLINE, metric_names
from xai.shards.heatmaps import Heatmaps

_CELL = ["candidate", "fold", "seed"]
TABLES = ("cells", "epochs", "predictions", "folds_summary", "models_summary")


def load_run(path: str | Path) -> "Run":
    """Open a run folder; nothing is computed yet, and the run may still be at work.

    Tables, models and heatmaps are each read when they are first asked for. Raises RunFolderError
    where there is no run, or it is not whole.
    """
    layout = RunLayout(Path(path).absolute())
    for needed in (layout.experiment, layout.manifest, layout.folds, layout.cells):
        if not needed.exists():
            what, remedy = (
                (f"the run folder {str(path)!r} is not whole", "run the experiment again")
                if layout.ledger.is_dir()
                else (f"{str(path)!r} is not a run folder", "start with `rayfold run`")
            )
            raise RunFolderError(f"{what}: it has no {needed.name}; {remedy}")
    return Run(layout)


class Run:
    """The results of one run; every table is computed when it is first asked for. Load again to see
    newer cells.
    """

    def __init__(self, layout: RunLayout) -> None:
        self.layout = layout
        self._experiment = read_experiment(layout.experiment)
        self.searched = read_search(layout, self._experiment)
        if self.searched is not None:
            self._experiment = self.searched.experiment
        self.name = self._experiment.name

    @cached_property
    def experiment(self) -> dict[str, Any]:
        """The resolved experiment as plain data."""
        return self._experiment.model_dump(mode="json")

    @cached_property
    def provenance(self) -> dict[str, Any]:
        """Where the results come from, as far as that is known: results can be read without it."""
        return read_provenance(self.layout.provenance).model_dump(exclude_unset=True)

    @cached_property
    def manifest(self) -> Manifest:
        return Manifest.load(self.layout.manifest)

    @cached_property
    def folds(self) -> pd.DataFrame:
        """fold, image, label, group, role: one row per fold and image."""
        drawn = self._experiment.folds.k * self._experiment.draws
        return run_folds(self.layout, self.entries, drawn)

    @property
    def classes(self) -> tuple[str, ...]:
        return self.manifest.classes

    @cached_property
    def entries(self) -> list[Entry]:
        """The ledger entries of all cells that the experiment asks for."""
        searched = self.searched
        known = () if searched is None else (searched.unasked, searched.folds)
        return run_entries(self.layout, self._experiment, self.manifest, *known)

    @cached_property
    def _states(self) -> list[CellState]:
        states = [entry.state() for entry in self.entries]
        if not held(self.layout.lock):
            states = [interrupted(state) for state in states]
        halted = self.searched.halted if self.searched is not None else {}
        return [
            not_needed(state, halted.get((entry.spec.candidate.id, entry.spec.fold)))
            for entry, state in zip(self.entries, states, strict=True)
        ]

    @cached_property
    def _places(self) -> dict[Entry, int]:
        """Where each entry stands among all."""
        return {entry: place for place, entry in enumerate(self.entries)}

    @cached_property
    def _done(self) -> list[Entry]:
        return [
            entry
            for entry, state in zip(self.entries, self._states, strict=True)
            if state.state == "done"
        ]

    @cached_property
    def candidates(self) -> pd.DataFrame:
        """One row per candidate: id, name, model, image_size, parameters, then its training
        settings, of the less usual ones those that any candidate states.
        """
        parameters = {
            e.spec.candidate.id: s.parameters
            for e, s in zip(self.entries, self._states, strict=True)
            if s.parameters
        }
        return settings_table(self._experiment.candidates, parameters)

    @cached_property
    def cells(self) -> pd.DataFrame:
        """How every cell stands and what it cost."""
        rows = []
        for entry, state in zip(self.entries, self._states, strict=True):
            hidden = {
                "cell",
                "seconds",
                "versions",
                "digests",
                "traceback",
                "updated",
                "parameters",
            }
            hidden |= {"out_of_memory", "worker_failed"}
            facts = state.model_dump(exclude=hidden)
            reason = {
                key: facts.pop(key)
                for key in ("state", "reason", "attempts", "epochs", "best_epoch")
            }
            seconds = {
                f"seconds_{phase}": value for phase, value in state.seconds.model_dump().items()
            }
            rows.append(
                {
                    **_identity(entry),
                    **reason,
                    **seconds,
                    "seconds_total": state.seconds.total,
                    **facts,
                    "key": entry.folder.name,
                }
            )
        table = pd.DataFrame(rows)
        return table.astype(
            {"best_epoch": "Int64", "threads": "Int64", "peak_memory_mb": "float64"}
        )

    def failures(self) -> list[dict[str, Any]]:
        """The cells that failed: candidate, fold, seed, reason, traceback."""
        return [
            {**_identity(entry), "reason": state.reason, "traceback": state.traceback}
            for entry, state in zip(self.entries, self._states, strict=True)
            if state.state == "failed"
        ]

    @cached_property
    def epochs(self) -> pd.DataFrame:
        """One row per epoch of every done cell."""
        return self._collect(lambda entry: epochs_of(entry, self._states[self._places[entry]]))

    @cached_property
    def predictions(self) -> pd.DataFrame:
        """One row per done cell and image of its fold (split `fold`) and of the test set (split
        `test`).

        An image of the folds occurs once per candidate, repeat (folds r·k to r·k + k − 1) and seed.
        """
        folds = self.folds
        table = self._collect(lambda entry: predictions_of(entry, folds))
        if table.empty:
            scores = [f"{kind}_{name}" for kind in ("prob", "logit") for name in self.classes]
            columns = ["image", "label", "group", "split", *_CELL, *scores, "prediction"]
            return pd.DataFrame(columns=columns)
        table["group"] = table["image"].map(present_groups(self.layout))
        leading = ["image", "label", "group", "split", *_CELL]
        return table[[*leading, *(column for column in table.columns if column not in leading)]]

    def _collect(self, read: Any) -> pd.DataFrame:
        parts = []
        for entry in self._done:
            try:
                table = read(entry)
            except DamagedRecord as error:
                self._lose(entry, error)
                continue
            identity = {key: value for key, value in _identity(entry).items() if key in _CELL}
            parts.append(pd.concat([pd.DataFrame(identity, index=table.index), table], axis=1))
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=_CELL)

    def _lose(self, entry: Entry, error: DamagedRecord) -> None:
        """Count a cell as missing whose tables are not what a cell's are; whatever knew it as done
        is made anew.
        """
        self._states[self._places[entry]] = CellState(reason=str(error))
        for name in (
            "_done",
            "candidates",
            "cells",
            "epochs",
            "predictions",
            "folds_summary",
            "models_summary",
        ):
            self.__dict__.pop(name, None)

    @cached_property
    def folds_summary(self) -> pd.DataFrame:
        """Every cell with the sizes of its parts and the metrics of its fold; NaN where the cell is
        not done.
        """
        sizes = self.folds.groupby(["fold", "role"]).size().unstack(fill_value=0)
        scores = self._scores("fold")
        rows = []
        for entry, state in zip(self.entries, self._states, strict=True):
            size = sizes.loc[entry.spec.fold].to_dict() if entry.spec.fold in sizes.index else {}
            counts = {
                f"n_{role}": int(size.get(role, 0)) for role in ("train", "validation", "fold")
            }
            rows.append(
                {
                    **_identity(entry),
                    "state": state.state,
                    **counts,
                    **scores.get(entry.spec.key, {}),
                }
            )
        table = pd.DataFrame(rows)
        leading = [column for column in table.columns if column not in metric_names(self.classes)]
        return table.reindex(columns=[*leading, *metric_names(self.classes)])

    def _scores(self, split: str) -> dict[str, dict[str, float]]:
        """Metrics of each done cell on one split, by ledger key."""
        scores = {}
        groups = dict(tuple(self.predictions.groupby(_CELL))) if self._done else {}
        for entry in self._done:
            spec = entry.spec
            part = groups[(spec.candidate.id, spec.fold, spec.seed)]
            part = part[part["split"] == split]
            scores[spec.key] = score_images(part, self.classes)
        return scores

    @cached_property
    def models_summary(self) -> pd.DataFrame:
        """One row per candidate.

        For each headline metric: `_mean` and `_std` (n−1) over its cells, which are folds × seeds;
        `_oof` of the pooled out-of-fold predictions (with several repeats or seeds: each one's by
        itself, then the mean); `_test_mean` over the cells' models on the test set;
        `_test_ensemble` of these models' averaged probabilities.
        """
        test_scores = self._scores("test")
        by_candidate = dict(tuple(self.predictions.groupby("candidate"))) if self._done else {}
        rows = []
        for candidate in self._experiment.candidates:
            cells = self.folds_summary[self.folds_summary["candidate"] == candidate.id]
            done = int((cells["state"] == "done").sum())
            row: dict[str, Any] = {
                "candidate": candidate.id,
                "model": candidate.model,
                "folds_done": done,
                "folds_missing": len(cells) - done,
            }
            if done == len(cells):
                keys = [
                    entry.spec.key
                    for entry in self._done
                    if entry.spec.candidate.id == candidate.id
                ]
                tests = [test_scores[key] for key in keys]
                own, k = by_candidate[candidate.id], self._experiment.folds.k
                row |= summarise_candidate(cells, tests, own, self.classes, k)
            rows.append(row)
        columns = [
            f"{metric}_{kind}"
            for metric in HEADLINE
            for kind in ("mean", "std", "oof", "test_mean", "test_ensemble")
        ]
        return pd.DataFrame(rows).reindex(
            columns=["candidate", "model", "folds_done", "folds_missing", *columns]
        )

    @property
    def search(self) -> pd.DataFrame:
        """One row per candidate of a search; empty where there was none. See `Searched.table`."""
        return pd.DataFrame() if self.searched is None else self.searched.table

    @property
    def decisions(self) -> pd.DataFrame:
        """What a search decided, in order; empty where there was none. See `Searched.decisions`."""
        return pd.DataFrame() if self.searched is None else self.searched.decisions

    def candidate_id(self, candidate: str) -> str:
        """The id of a candidate that is named by its id or its name."""
        return candidate_id(candidate, self._experiment.candidates)

    def model(self, candidate: str, fold: int, seed: int | None = None) -> Any:
        """The Keras model of a done cell.

        Keras is imported on TensorFlow for it; its other settings in this process stay as they are.

        Args:
            candidate: Id or name.
            fold: Counted from 0.
            seed: Default: the experiment's first.

        Returns:
            A model from raw pixels 0–255, float32 (n, size, size, channels), to class
            probabilities (n, classes), in the order of `classes`.

        Raises:
            RunFolderError: No such candidate, or its cell is not done.
            ModelError: The file is damaged, or the code of the user's that it needs is gone, or
                was never run by this user.
        """
        entry = self.entry(candidate, fold, seed)
        with keras_settings():
            from trainables.models.opening import open_model

            check_known(entry.spec, self.layout.root)
            return open_model(self.layout, entry)

    def entry(self, candidate: str, fold: int, seed: int | None = None) -> Entry:
        """The ledger entry of a done cell.

        Args:
            candidate: Id or name.
            fold: Counted from 0.
            seed: Default: the experiment's first.

        Raises:
            RunFolderError: No such candidate, or its cell is not done.
        """
        identity, seed = (
            self.candidate_id(candidate),
            self._experiment.seeds[0] if seed is None else seed,
        )
        for entry in self._done:
            if (entry.spec.candidate.id, entry.spec.fold, entry.spec.seed) == (
                identity,
                fold,
                seed,
            ):
                return entry
        raise RunFolderError(f"the cell {identity} fold {fold} seed {seed} is not done in this run")

    @cached_property
    def heatmaps(self) -> Heatmaps:
        """The maps that `rayfold explain` has made; raises RunFolderError where there are none."""
        return Heatmaps(self.layout)

    def save_tables(self) -> None:
        """Write all tables into `results/` as Parquet and CSV."""
        # Cells come last: others may lose some.
        tables = {name: getattr(self, name) for name in reversed(TABLES)}
        if self.searched is not None:
            tables |= {"search": self.search, "decisions": self.decisions}
        for name, table in tables.items():
            write_both(self.layout.results, name, table)


def _identity(entry: Entry) -> dict[str, Any]:
    spec = entry.spec
    return {
        "candidate": spec.candidate.id,
        "model": spec.candidate.model,
        "fold": spec.fold,
        "seed": spec.seed,
    }
