"""What a search did, from its journal: which candidates it suggested, how far each of them came,
and why it went no further.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd

from orchestrator.experiment.experiment_file import Experiment
from orchestrator.experiment.suggestions import settings_of
from orchestrator.search.journal import check_folds, read_rows
from orchestrator.search.spending import Spending, ToCome
from orchestrator.search.standings import Row, Standing, Standings
from orchestrator.search.telling import estimates
from trainables.core.config import Candidate
from trainables.core.layout import RunLayout
from trainables.core.ledger import CellState

DECISION_COLUMNS = [
    "candidate",
    "decision",
    "after_folds",
    "folds",
    "against",
    "probability",
    "epoch",
    "score",
    "threshold",
    "curves",
    "rule",
    "reason",
]

_MOST_LOOKS = 400  # at the leader, of a history


@dataclass(frozen=True)
class Risk:
    """How many candidates `paired` stopped, and the sum of the probabilities, each as it was then,
    that they would have ended up best: what the search risked, where candidates are not all alike.
    """

    stopped: int
    probability: float


@dataclass(frozen=True)
class Searched:
    """A search as far as it came. `experiment`: with all candidates that were trained; `ids`: of
    each candidate of the journal, by its number, that of the candidate that was trained for it.
    """

    experiment: Experiment
    standings: Standings
    rows: tuple[Row, ...]
    ids: dict[int, str]

    @property
    def folds(self) -> dict[str, int]:
        """How many folds each finalist has, by its id; others have those of the race."""
        standings = self.standings
        return {self.ids[number]: standings.final_folds for number in standings.finalists}

    @property
    def leader(self) -> str | None:
        """The id of whom the search would choose now."""
        number = self.standings.ahead
        return None if number is None else self.ids[number]

    @property
    def unasked(self) -> dict[tuple[str, int], CellState]:
        """The steps that were not asked for, by candidate and fold, and how they stand."""
        states = {}
        for each in self.standings.candidates:
            if not each.runs:
                continue
            state = CellState()
            if each.stopped is not None:
                state = CellState(state="stopped", reason=str(each.stopped["reason"]))
            elif each.lost is not None:
                state = CellState(state="stopped", reason=f"another fold is lost: {each.lost}")
            elif self.standings.ended is not None:
                state = CellState(
                    state="stopped", reason=f"the search ended: {self.standings.ended}"
                )
            for fold in range(self.folds.get(self.ids[each.number], self.standings.k)):
                release = each.releases.get(fold)
                if release is None or self.standings.outcomes[release] == "cancelled":
                    states[self.ids[each.number], fold] = state
        return states

    @property
    def halted(self) -> dict[tuple[str, int], str]:
        """The steps that were halted within their epochs, by candidate and fold, and why."""
        releases = self.standings.releases
        return {
            (self.ids[number], releases[row["release"]].fold): str(row["reason"])
            for number, row in self.standings.halted.items()
        }

    @property
    def through(self) -> tuple[str, ...]:
        """The candidates with all folds; the leader where there are none yet."""
        standings = self.standings
        numbers = [
            each.number for each in standings.candidates if standings.is_through(each.number)
        ]
        if not numbers and standings.leader is not None:
            numbers = [standings.leader]
        return tuple(self.ids[number] for number in numbers)

    @property
    def to_come(self) -> ToCome:
        """The steps that it may still ask for; `patience` and budgets of time are not looked at."""
        experiment = self.experiment
        assert experiment.search is not None
        samples, seeds = bool(experiment.spaces), len(experiment.seeds)
        spending = Spending(experiment.search, self.standings, seeds, samples)
        return spending.to_come(experiment.folds.k * experiment.draws)

    @property
    def risk(self) -> Risk:
        """What stopping candidates early risked in all."""
        stated = [
            row["probability"]
            for row in self.rows
            if row["event"] == "stopped" and row["probability"] is not None
        ]
        return Risk(len(stated), math.fsum(stated))

    @property
    def decisions(self) -> pd.DataFrame:
        """One row for each candidate that was stopped, halted, lost, refused or known already, or
        became a finalist, in order.
        """
        whole, real = ("after_folds", "epoch", "curves"), ("probability", "score", "threshold")
        return pd.DataFrame(list(self._decisions()), columns=DECISION_COLUMNS).astype(
            dict.fromkeys(whole, "Int64") | dict.fromkeys(real, "float64")
        )

    def _decisions(self) -> Iterator[dict[str, Any]]:
        for row in self.rows:
            if row["event"] == "stopped":
                against = None if row["against"] is None else self.ids[row["against"]]
                yield {
                    "candidate": self.ids[row["candidate"]],
                    "decision": "stopped",
                    "after_folds": len(row["folds"]),
                    "folds": " ".join(map(str, row["folds"])),
                    "against": against,
                    "probability": row["probability"],
                    "rule": row["rule"],
                    "reason": row["reason"],
                }
            elif row["event"] == "halted":
                release = self.standings.releases[row["release"]]
                yield {
                    "candidate": self.ids[release.candidate],
                    "decision": "halted",
                    "after_folds": 0,
                    "folds": str(release.fold),
                    "epoch": row["epoch"],
                    "score": row["score"],
                    "threshold": row["threshold"],
                    "curves": row["known"],
                    "rule": "asha",
                    "reason": row["reason"],
                }
            elif row["event"] == "finished" and row["score"] is None:
                release = self.standings.releases[row["release"]]
                yield {
                    "candidate": self.ids[release.candidate],
                    "decision": "lost",
                    "folds": str(release.fold),
                    "reason": row["reason"],
                }
            elif row["event"] == "finalists":
                yield from (
                    {
                        "candidate": self.ids[number],
                        "decision": "finalist",
                        "after_folds": self.standings.k,
                        "folds": " ".join(map(str, range(self.standings.k, row["folds"]))),
                        "reason": row["reason"],
                    }
                    for number in row["candidates"]
                )
            elif row["event"] == "suggested" and (row["refused"] or row["same_as"] is not None):
                decision = "refused" if row["refused"] else "known"
                same = None if row["same_as"] is None else self.ids[row["same_as"]]
                yield {
                    "candidate": row["id"],
                    "decision": decision,
                    "against": same,
                    "reason": row["refused"] or f"the same as {same}",
                }

    @property
    def table(self) -> pd.DataFrame:
        """One row per candidate that was trained: number, candidate, name, state (leads, finalist,
        living, stopped, lost, complete), folds (finished), estimate (expected mean of the objective
        over all folds, higher is better; a finalist's mean over its own, once it has them), then
        its parameters, NaN where one has no effect.
        """
        values = estimates(self.standings).copy()
        for number in self.standings.finalists:
            if (mean := self.standings.final_mean(number)) is not None:
                values[number] = mean
        named = {candidate.id: candidate for candidate in self.experiment.candidates}
        rows = []
        for each in self.standings.candidates:
            if not each.runs:
                continue
            candidate = named[self.ids[each.number]]
            rows.append(
                {
                    "number": each.number,
                    "candidate": candidate.id,
                    "name": candidate.name,
                    "state": self._state(each),
                    "folds": len(each.finished),
                    "estimate": values[each.number] if each.number < len(values) else None,
                    **self._parameters(each, candidate),
                }
            )
        return pd.DataFrame(rows).astype({"estimate": "float64"})

    @property
    def history(self) -> pd.DataFrame:
        """One row per step of the race that the search has looked at, in order: step (counted from
        1), candidate, fold, score, then who led after it and what mean was expected of it.

        Of more than 400 steps who led is looked up after every second, third, … one: each look
        takes as long as there are candidates.
        """
        standings = Standings(self.standings.k)
        rows: list[dict[str, Any]] = []
        finished = sum(row["event"] == "finished" for row in self.rows)
        every, leader = -(-finished // _MOST_LOOKS), dict[str, Any]()
        for row in self.rows:
            standings.apply(row)
            if row["event"] != "finished" or row["score"] is None:
                continue
            release = standings.releases[row["release"]]
            if release.fold >= standings.k:
                continue
            if len(rows) % every == 0 and (number := standings.leader) is not None:
                estimate = estimates(standings)[number]
                leader = {"leader": self.ids[number], "leader_estimate": estimate}
            rows.append(
                {
                    "step": len(rows) + 1,
                    "candidate": self.ids[release.candidate],
                    "fold": release.fold,
                    "score": row["score"],
                    **leader,
                }
            )
        columns = ["step", "candidate", "fold", "score", "leader", "leader_estimate"]
        return pd.DataFrame(rows, columns=columns)

    def _state(self, each: Standing) -> str:
        if each.lost is not None:
            return "lost"
        if each.stopped is not None:
            return "stopped"
        if each.number == self.standings.ahead:
            return "leads"
        if each.number in self.standings.finalists:
            return "finalist"
        return "complete" if self.standings.is_through(each.number) else "living"

    def _parameters(self, each: Standing, candidate: Candidate) -> dict[str, Any]:
        """The values of everything that the search varies, as the candidate has them."""
        settings = settings_of(candidate)
        found = {}
        for space in self.experiment.spaces:
            for parameter in space.parameters:
                inactive = each.space is not None and parameter.name not in each.values
                found[parameter.name] = None if inactive else settings.get(parameter.name)
        return found


def read_search(layout: RunLayout, experiment: Experiment) -> Searched | None:
    """The search of a run folder; None where the experiment has none, or it has not begun.

    Raises RunFolderError, ExperimentError where its journal is damaged or of other spaces.
    """
    if experiment.search is None or not (rows := read_rows(layout.journal)):
        return None
    check_folds(layout.journal, rows, experiment.folds.k * experiment.draws)
    standings = Standings(experiment.folds.count)
    for row in rows:
        standings.apply(row)
    candidates, ids = list(experiment.candidates), {}
    for each in standings.candidates:
        if each.space is None:
            ids[each.number] = experiment.candidates[each.number].id
        elif each.runs:
            made = experiment.suggested(each.space, each.values, each.number)
            ids[each.number] = made.id
            candidates.append(made)
        elif each.same_as is not None:
            ids[each.number] = ids[each.same_as]
    widened = experiment.model_copy(update={"candidates": tuple(candidates)})
    return Searched(widened, standings, tuple(rows), ids)
