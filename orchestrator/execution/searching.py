"""The adapter between a search and its cells: what the search releases becomes ledger entries, and
what becomes of them goes back to the search as scores of its folds.
"""

import json
import math
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.execution.cell_source import Standing
from orchestrator.execution.cells import CellMaker, Prepared, folds_hash
from orchestrator.execution.earlier_runs import EarlierCells, describe, unwritten
from orchestrator.experiment.search_config import CHANGEABLE
from orchestrator.results.step_score import step_score
from orchestrator.search.halving import Trained, judged, metric_of
from orchestrator.search.journal import VERSION, Journal, check_folds
from orchestrator.search.samplers import Sampler
from orchestrator.search.search import Search
from orchestrator.search.standings import Release
from trainables.core.config import Candidate
from trainables.core.files import write_json
from trainables.core.ledger import Entry
from trainables.core.records import DamagedRecord
from trainables.core.values import digest
from trainables.training.decisions import Ladder, Rung, best_scores, is_over, merit
from trainables.training.metrics import LOWER_IS_BETTER

_SECONDS_BETWEEN_NOTES = 10.0  # of the time that was spent


class SearchedCells:
    """The cells of an experiment with a search, as `Search` releases them.

    Steps that the journal knows as finished, but whose cells the ledger has lost, are trained again
    before the search goes on: its decisions stand, and the tables need their predictions.
    """

    def __init__(self, prepared: Prepared) -> None:
        experiment = prepared.experiment
        assert experiment.search is not None
        self._experiment, self._layout = experiment, prepared.layout
        self._config, self._folds = experiment.search, prepared.folds
        self._maker = CellMaker(experiment, prepared.layout, prepared.manifest, prepared.folds)
        self._groups = prepared.folds.drop_duplicates("image").set_index("image")["group"]
        self._cells: dict[tuple[int, int], list[Entry]] = {}
        self._steps: dict[str, Release] = {}  # by the key of a cell
        self._left: dict[int, set[str]] = {}  # keys of a release that are not through
        self._early: dict[str, int] = {}  # candidates of cells that are trained, but not released
        self._ready: set[str] = set()  # those of them that are done
        self._in_vain: set[str] = set()  # cells that were lost before they were released
        self._spent, self._since, self._noted = self._read_spent(), time.monotonic(), 0.0
        folds, path = experiment.folds, prepared.layout.journal
        journal = Journal.open(path, journal_header(prepared))
        check_folds(path, journal.rows, folds.k * experiment.draws)
        for row in unwritten(prepared, journal.rows):
            journal.append([row])
        self._earlier = EarlierCells(experiment, prepared.folds)
        self._news = list(describe(journal.rows, experiment))
        sampler = None
        if experiment.spaces:
            sampler = Sampler(experiment.spaces, self._config.sampler, self._config.seed)
        self._search = Search(
            self._config,
            folds.count,
            [(each.id, _identity(each)) for each in experiment.candidates],
            sampler,
            journal,
            self._score,
            self._complete,
            len(experiment.seeds),
            folds.k * experiment.draws,
            self._trained if self._config.epoch_stopping == "asha" else None,
        )
        self._lost = self._lost_cells()
        self._again = {entry.spec.key for entry in self._lost}  # what of it is not through
        self._unfinished = list(self._search.outstanding)
        self._save_keys()

    # --- what the driver calls --------------------------------------------------------------------

    @property
    def entries(self) -> list[Entry]:
        """Those of all steps that were released and are wanted, by candidate, seed and fold."""
        entries = [
            (release.candidate, entry.spec.seed, release.fold, entry)
            for release in self._search.standings.releases
            if self._search.standings.counts(release)
            for entry in self._entries_of(release.candidate, release.fold)
        ]
        return [entry for *_, entry in sorted(entries, key=lambda each: each[:3])]

    @property
    def total(self) -> int:
        outcomes = self._search.standings.outcomes
        wanted = (len(outcomes) - outcomes.count("cancelled")) * len(self._experiment.seeds)
        early = [n for key, n in self._early.items() if key in self._ready or self._goes_on(n)]
        return wanted + len(early)

    @property
    def ended(self) -> bool:
        return self._search.ended is not None

    def more(self) -> list[Entry]:
        if self._lost:
            given, self._lost = self._lost, []
            return given
        if self._again:  # it comes first
            return []
        fresh: list[Entry] = []
        while (release := self._next_release()) is not None:
            entries = self._entries_of(release.candidate, release.fold)
            for entry in entries:
                entry.create()
                self._steps[entry.spec.key] = release
            left = [entry for entry in entries if not self._is_through(entry, release)]
            self._left[release.number] = {entry.spec.key for entry in left}
            if not left:
                self._search.finished(release)
            fresh += [entry for entry in left if entry.spec.key not in self._early]
            for entry in entries:
                self._early.pop(entry.spec.key, None)
            if fresh and not self._config.repeatable:
                break  # the next one may know more
        if fresh or self.ended:
            self._save_keys()
        return fresh

    def early(self, suits: Callable[[Entry], bool]) -> Entry | None:
        if self._again:
            return None
        for number, fold in self._search.likely():
            for entry in self._entries_of(number, fold):
                key = entry.spec.key
                if key in self._early or key in self._in_vain or not suits(entry):
                    continue
                if entry.state().state != "done" and not self._earlier.has(entry):
                    self._early[key] = number
                    entry.create()
                    return entry
        return None

    def forgone(self, entry: Entry) -> bool:
        return self._early.pop(entry.spec.key, None) is not None

    def through(self, entry: Entry, lost: str | None, gpu_seconds: float) -> None:
        self._note_spent(gpu_seconds)
        key = entry.spec.key
        if key in self._again:
            self._again.discard(key)
            return
        if key in self._early:
            if lost is None:
                self._ready.add(key)
            else:
                del self._early[key]
                self._in_vain.add(key)  # tried again once it is asked for
            return
        release = self._steps[key]
        left = self._left[release.number]
        left.discard(key)
        if lost is not None or not left:
            self._search.finished(release, lost)
            left.clear()

    def wanted(self, entry: Entry) -> bool:
        key = entry.spec.key
        if key in self._again:
            return True
        if key in self._early:
            return self._goes_on(self._early[key])
        release = self._steps[key]
        return key in self._left[release.number] and not self._search.cancelled(release)

    def ladder(self, entry: Entry) -> Ladder | None:
        key = entry.spec.key
        if key in self._again or key not in self._steps:  # in full
            return None
        if not (rungs := self._rungs_of(entry, self._steps[key])):
            return None
        return Ladder(metric=self._metric, rungs=rungs)

    @property
    def taken(self) -> int:
        return self._earlier.taken.total()

    def news(self) -> list[str]:
        refused = self._earlier.refused
        told = [*self._news, *(f"not taken, {line}" for line in refused)]
        self._news, self._earlier.refused = [], []
        return told

    def standing(self) -> Standing:
        raced = [each for each in self._search.candidates if each.runs]
        standings, to_come = self._search.standings, self._search.to_come()
        leader = standings.ahead
        seeds, most = len(self._experiment.seeds), self._config.hours
        sign = -1 if self._config.objective in LOWER_IS_BETTER else 1
        means = standings.table.outlook.means
        return Standing(
            leader="" if leader is None else self._candidate(leader).id,
            score=math.nan if leader is None else sign * float(means[leader]),
            living=sum(not each.out for each in raced),
            stopped=sum(each.stopped is not None for each in raced),
            finalists=len(standings.finalists) if standings.finals_hold else 0,
            lost=sum(each.lost is not None for each in raced),
            about=None if to_come.about is None else to_come.about * seeds,
            most=None if to_come.most is None else to_come.most * seeds,
            hours=None if most is None else max(most - self._spent["hours"], 0.0),
        )

    def _goes_on(self, number: int) -> bool:
        return not (self.ended or self._search.candidates[number].out)

    # --- candidates and cells ---------------------------------------------------------------------

    def _candidate(self, number: int) -> Candidate:
        standing = self._search.candidates[number]
        if standing.space is None:
            return self._experiment.candidates[number]
        return self._suggested(number)

    @cache  # noqa: B019 (lives as long as the run)
    def _suggested(self, number: int) -> Candidate:
        standing = self._search.candidates[number]
        assert standing.space is not None
        return self._experiment.suggested(standing.space, standing.values, number)

    def _complete(self, number: int, space: int, values: Mapping[str, Any]) -> tuple[str, str]:
        candidate = self._experiment.suggested(space, values, number)
        return candidate.id, _identity(candidate)

    def _entries_of(self, number: int, fold: int) -> list[Entry]:
        if (number, fold) not in self._cells:
            made = self._maker.of_fold(self._candidate(number), fold)
            self._cells[number, fold] = made
        return self._cells[number, fold]

    def _next_release(self) -> Release | None:
        """First those that were out when a search was interrupted."""
        while self._unfinished:
            release = self._unfinished.pop(0)
            if not self._search.cancelled(release):
                return release
        return self._search.take()

    def _lost_cells(self) -> list[Entry]:
        """Cells of finished steps that are not done (any more)."""
        standings = self._search.standings
        lost = [
            entry
            for each in self._search.candidates
            for fold, number in each.releases.items()
            if fold in each.finished and standings.counts(standings.releases[number])
            for entry in self._entries_of(each.number, fold)
            if not self._is_done(entry)
        ]
        for entry in lost:
            entry.create()
        return lost

    def _is_done(self, entry: Entry) -> bool:
        """Also where an earlier run has the cell, which then is in this ledger, too."""
        return entry.state().state == "done" or self._earlier.take(entry)

    def _save_keys(self) -> None:
        write_json(self._layout.cells, [entry.spec.key for entry in self.entries])

    # --- epochs -----------------------------------------------------------------------------------

    @property
    def _metric(self) -> str:
        return metric_of(self._config.objective)

    def _rungs_of(self, entry: Entry, release: Release) -> tuple[Rung, ...]:
        """What a cell of a step is held to."""
        place = self._experiment.seeds.index(entry.spec.seed)
        return release.rungs[place] if release.rungs else ()

    def _trained(self, candidate: int, fold: int) -> list[Trained]:
        return [self._epochs_of(entry) for entry in self._entries_of(candidate, fold)]

    def _epochs_of(self, entry: Entry) -> Trained:
        table, training = entry.epochs(), entry.spec.candidate.training
        scores = best_scores(self._metric, table[f"validation_{self._metric}"].tolist())
        monitored = table[f"validation_{training.monitor}"].tolist()
        over = is_over(training, [merit(training, value) for value in monitored])
        return Trained(training, scores, over)

    def _is_through(self, entry: Entry, release: Release) -> bool:
        """Whether a cell need not be trained (further) for a step."""
        if entry.state().state == "halted":
            with suppress(DamagedRecord):
                step, rungs = [self._epochs_of(entry)], [self._rungs_of(entry, release)]
                if judged(step, rungs)[1] is not None:
                    return True
        return self._is_done(entry)

    # --- scores -----------------------------------------------------------------------------------

    def _score(self, candidate: int, fold: int) -> tuple[float, NDArray[np.float32]]:
        """The objective of one step, and what it comes to with patients resampled."""
        entries = self._entries_of(candidate, fold)
        return step_score(entries, self._folds, self._groups, self._config.objective)

    # --- budgets of time --------------------------------------------------------------------------

    def _read_spent(self) -> dict[str, float]:
        spent = {"hours": 0.0, "gpu_hours": 0.0}
        with suppress(OSError, ValueError, AttributeError, TypeError):
            told = json.loads(self._layout.time_spent.read_text())
            spent |= {name: float(told[name]) for name in spent if name in told}
        return spent

    def _note_spent(self, gpu_seconds: float) -> None:
        now = time.monotonic()
        self._spent["hours"] += (now - self._since) / 3600
        self._spent["gpu_hours"] += gpu_seconds / 3600
        self._since = now
        if now - self._noted > _SECONDS_BETWEEN_NOTES:
            write_json(self._layout.time_spent, self._spent)
            self._noted = now
        over = {
            name: (most := getattr(self._config, name)) is not None and self._spent[name] >= most
            for name in self._spent
        }
        self._search.budget_spent(**over)


def journal_header(prepared: Prepared) -> dict[str, Any]:
    """What decides a search: a journal belongs to one of these only."""
    experiment = prepared.experiment
    assert experiment.search is not None
    k = experiment.folds.k
    first = prepared.folds[prepared.folds["fold"] < k]  # other repeats may be added
    return {
        "event": "begun",
        "version": VERSION,
        "search": experiment.search.model_dump(mode="json", exclude=set(CHANGEABLE)),
        "spaces": digest([space.model_dump(mode="json") for space in experiment.spaces]),
        "stated": digest([each.deciding() for each in experiment.candidates]),
        "data": digest([prepared.manifest.data_hash, folds_hash(first)]),
        "folds": k,
        "seeds": list(experiment.seeds),
    }


def _identity(candidate: Candidate) -> str:
    return digest(candidate.deciding())
