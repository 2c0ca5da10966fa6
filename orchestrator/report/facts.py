"""What a report has to know of a run, asked of the run once.

Sentences, tables, warnings and figures are made of this record alone; none of them asks the run
again.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from orchestrator.report.style import METRIC_LABELS
from trainables.core.layout import RunLayout
from trainables.core.records import DamagedRecord
from trainables.training.metrics import LOWER_IS_BETTER
from xai.shards.summary import load_table

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from orchestrator.experiment.search_config import Search
    from orchestrator.experiment.search_space import Parameter
    from orchestrator.results.run import Run
    from orchestrator.results.search_effort import Effort
    from orchestrator.results.searched import Searched
    from orchestrator.results.study import Importance
    from orchestrator.results.tuning_gain import Gain


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
class SearchFacts:
    """A search. `table`: `Run.search`, the best first; `cells`: of all its candidates; `gain`: of
    its leader over candidate 0, the `reference`; `label`: what people call the objective, turned so
    that higher is better.
    """

    searched: "Searched"
    settings: "Search"
    table: pd.DataFrame
    decisions: pd.DataFrame
    cells: pd.DataFrame
    history: pd.DataFrame
    effort: "Effort"
    importance: "Importance | str"
    gain: "Gain | None"
    reference: str
    label: str

    @property
    def leader(self) -> str | None:
        """The id of the candidate that is expected to be the best."""
        return self.searched.leader

    @cached_property
    def scores(self) -> "NDArray[np.float64]":
        """(candidates of `table`, folds), NaN is not finished."""
        known = self.searched.standings.table.scores
        scores = np.full((len(self.table), known.shape[1]), np.nan)
        there = (self.table["number"] < len(known)).to_numpy()
        scores[there] = known[self.table["number"][there]]
        return scores

    @cached_property
    def parameters(self) -> "tuple[Parameter, ...]":
        """What is searched, each name once."""
        spaces = self.searched.experiment.spaces
        return tuple({p.name: p for space in spaces for p in space.parameters}.values())


@dataclass(frozen=True)
class Facts:
    """A run as its report sees it. `images`: the manifest's table; `notes`: what the scan noted;
    `failures`, `provenance`, `experiment`: as `Run` has them. Of a search, candidates and tables
    hold those that went through all folds, lead, or have lost a cell; `search` knows all.
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
    search: SearchFacts | None = None

    @cached_property
    def names(self) -> dict[str, str]:
        """Of the candidates, by id."""
        return {candidate.id: candidate.name for candidate in self.candidates}

    @cached_property
    def seeds(self) -> tuple[int, ...]:
        return tuple(sorted(map(int, self.cells["seed"].unique())))

    @property
    def k(self) -> int:
        """Folds of a repeat."""
        return int(self.experiment["folds"]["k"])

    @property
    def repeats(self) -> int:
        """How often every candidate goes through all images."""
        return int(self.experiment["folds"].get("repeats", 1))

    @property
    def n_folds(self) -> int:
        """Of every candidate."""
        return self.k * self.repeats

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
    search, known = None, run.candidates
    if run.searched is not None:
        search = _search(run, run.searched)
        shown = _shown(search, models)
        known, models, epochs, folds_summary, predictions, cells = (
            table[table[column].isin(shown)]
            for table, column in (
                (known, "id"),
                *((t, "candidate") for t in (models, epochs, folds_summary, predictions, cells)),
            )
        )
    of_folds = predictions[predictions["split"] == "fold"] if len(predictions) else predictions
    one_seed = cells["seed"].nunique() == 1
    candidates = []
    for settings in known.to_dict("records"):
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
        search=search,
    )


def _search(run: "Run", searched: "Searched") -> SearchFacts:
    from orchestrator.results.search_effort import search_effort
    from orchestrator.results.study import importance
    from orchestrator.results.tuning_gain import tuning_gain

    settings = searched.experiment.search
    assert settings is not None
    negated = "−" if settings.objective in LOWER_IS_BETTER else ""
    table = run.search.sort_values("estimate", ascending=False, kind="stable")
    leads = table["state"].eq("leads")
    return SearchFacts(
        searched,
        settings,
        pd.concat([table[leads], table[~leads]], ignore_index=True),
        run.decisions,
        run.cells,
        searched.history,
        search_effort(run),
        importance(searched),
        tuning_gain(run),
        searched.ids[0],
        negated + METRIC_LABELS[settings.objective],
    )


def _shown(search: SearchFacts, models: pd.DataFrame) -> set[str]:
    """The candidates of a search that a report goes into."""
    failed = search.cells.loc[search.cells["state"] == "failed", "candidate"]
    through = models.loc[models["folds_missing"] == 0, "candidate"]
    return {*through, *failed, *filter(None, [search.leader])}


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
