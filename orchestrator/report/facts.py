"""What a report has to know of a run, asked of the run once.

Sentences, tables, warnings and figures are made of this record alone; none of them asks the run
again.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pandas as pd

from trainables.core.layout import RunLayout
from trainables.core.records import DamagedRecord
from xai.shards.summary import load_table

if TYPE_CHECKING:
    from orchestrator.results.run import Run


@dataclass(frozen=True)
class CandidateFacts:
    """One candidate. `settings`, `summary`: its rows of `Run.candidates` and `Run.models_summary`;
    the tables hold its rows of `Run`'s. `unit`: what one of its cells is called.
    """

    id: str
    name: str
    unit: str
    settings: Mapping[str, Any]
    summary: "pd.Series[Any]"
    cells: pd.DataFrame
    folds_summary: pd.DataFrame
    fold_predictions: pd.DataFrame
    epochs: pd.DataFrame

    @cached_property
    def done(self) -> pd.DataFrame:
        return self.cells[self.cells["state"] == "done"]

    @property
    def complete(self) -> bool:
        return len(self.done) == len(self.cells)

    @property
    def progress(self) -> str:
        """Such as "3 of 5 folds"."""
        return f"{len(self.done)} of {len(self.cells)} {self.unit}s"


@dataclass(frozen=True)
class ExplanationFacts:
    """Tables of heatmaps; empty where there is none. `damaged`: why, by the table's name."""

    summary: pd.DataFrame
    sanity: pd.DataFrame
    damaged: Mapping[str, str]


@dataclass(frozen=True)
class Facts:
    """A run as its report sees it. `images`: the manifest's table; `notes`: what the scan noted;
    `failures`, `provenance`, `experiment`: as `Run` has them.
    """

    name: str
    classes: tuple[str, ...]
    candidates: tuple[CandidateFacts, ...]
    cells: pd.DataFrame
    folds: pd.DataFrame
    folds_summary: pd.DataFrame
    models_summary: pd.DataFrame
    images: pd.DataFrame
    notes: tuple[str, ...]
    explanations: ExplanationFacts
    failures: tuple[Mapping[str, Any], ...]
    provenance: Mapping[str, Any]
    experiment: Mapping[str, Any]

    @cached_property
    def names(self) -> dict[str, str]:
        """Of the candidates, by id."""
        return {candidate.id: candidate.name for candidate in self.candidates}

    @cached_property
    def seeds(self) -> tuple[int, ...]:
        return tuple(sorted(map(int, self.cells["seed"].unique())))

    @property
    def n_folds(self) -> int:
        return int(self.folds["fold"].nunique())

    @cached_property
    def done(self) -> pd.DataFrame:
        """The rows of the done cells."""
        return self.cells[self.cells["state"] == "done"]

    @property
    def invocations(self) -> list[dict[str, Any]]:
        """The commands that worked on this run, the first one first."""
        return list(self.provenance.get("invocations", []))


def gather(run: "Run") -> Facts:
    """Ask `run` for all that its report needs; raises RunFolderError where it cannot be read."""
    # Reading predictions and epochs may show cells to be damaged: those tables come first.
    models, epochs, folds_summary = run.models_summary, run.epochs, run.folds_summary
    predictions, cells = run.predictions, run.cells
    of_folds = predictions[predictions["split"] == "fold"] if len(predictions) else predictions
    one_seed = cells["seed"].nunique() == 1
    candidates = []
    for settings in run.candidates.to_dict("records"):
        identity = str(settings["id"])
        candidates.append(
            CandidateFacts(
                id=identity,
                name=str(settings["name"]),
                unit="fold" if one_seed else "cell",
                settings={str(key): value for key, value in settings.items()},
                summary=_of(models, identity).iloc[0],
                cells=_of(cells, identity),
                folds_summary=_of(folds_summary, identity),
                fold_predictions=_of(of_folds, identity),
                epochs=_of(epochs, identity),
            )
        )
    return Facts(
        name=run.name,
        classes=run.classes,
        candidates=tuple(candidates),
        cells=cells,
        folds=run.folds,
        folds_summary=folds_summary,
        models_summary=models,
        images=run.manifest.table,
        notes=tuple(run.manifest.notes),
        explanations=_explanations(run.layout),
        failures=tuple(run.failures()),
        provenance=run.provenance,
        experiment=run.experiment,
    )


def of_cell(table: pd.DataFrame, cell: Any) -> pd.DataFrame:
    """The rows of one cell, a named tuple of a table of cells."""
    rows: pd.DataFrame = table[
        (table["candidate"] == cell.candidate)
        & (table["fold"] == cell.fold)
        & (table["seed"] == cell.seed)
    ]
    return rows


def _of(table: pd.DataFrame, candidate: str) -> pd.DataFrame:
    return table[table["candidate"] == candidate]


def _explanations(layout: RunLayout) -> ExplanationFacts:
    tables, damaged = {}, {}
    for name in ("summary", "sanity"):
        try:
            tables[name] = load_table(layout, name)
        except DamagedRecord as error:
            tables[name], damaged[name] = pd.DataFrame(), error.reason
    # Tables of older versions lack some columns.
    known = ("chance", "ceiling", "p_adjusted")
    lacking = {name: float("nan") for name in known if name not in tables["summary"]}
    return ExplanationFacts(tables["summary"].assign(**lacking), tables["sanity"], damaged)
