"""What the rows of a journal come to: candidates, releases and the race's table. The only way in
which a search's memory changes is a row, so that a reopened search is where it was.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.search.halving import Curve
from orchestrator.search.racing import RaceTable
from trainables.training.decisions import Rung

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Release:
    """A step that was handed out: the number of the release, a candidate and a fold, and the rungs
    that its cells are held to, by seed, none where they are trained in full.
    """

    number: int
    candidate: int
    fold: int
    rungs: tuple[tuple[Rung, ...], ...] = ()


@dataclass
class Standing:
    """What is known of one candidate."""

    number: int
    space: int | None  # None: a stated one
    id: str
    values: dict[str, Any]
    refused: str | None = None
    same_as: int | None = None
    releases: dict[int, int] = field(default_factory=dict)  # fold: release
    finished: set[int] = field(default_factory=set)
    stopped: Row | None = None  # the row that stopped or halted it
    lost: str | None = None  # why a step of it will never have a score
    open: int = 0  # releases without an outcome

    @property
    def runs(self) -> bool:
        """Whether it is a candidate of its own that cells are spent on."""
        return self.refused is None and self.same_as is None

    @property
    def out(self) -> bool:
        """Whether no further step of it is wanted."""
        return not self.runs or self.stopped is not None or self.lost is not None


class Standings:
    """Candidates and releases after the rows that were applied; k folds."""

    def __init__(self, k: int, patient: bool = False) -> None:
        self.k = k
        self._patient = patient  # whether anybody asks for how long the lead has not changed
        self.candidates: list[Standing] = []
        self.releases: list[Release] = []
        self.outcomes: list[str | None] = []  # of each: finished, halted, lost, cancelled
        self.table = RaceTable(k)
        # of each fold, by candidate
        self.curves: defaultdict[int, dict[int, list[Curve]]] = defaultdict(dict)
        self.halted: dict[int, Row] = {}  # by candidate, what halted it
        self.ended: str | None = None
        self.exhausted = False  # the sampler has no other suggestion
        self.raced = 0  # suggested candidates with a score
        self.led_since = 0  # how many of them there were when the lead changed
        self.count = 0  # candidates of their own
        self.in_vain = 0  # suggestions in a row that cost no cells
        self.scored = 0  # candidates with a score
        self.promoted = 0  # releases beyond a candidate's first
        self.race_steps = 0  # releases of the race's folds
        self.finalists: tuple[int, ...] = ()  # who got, or get, the folds of further repeats
        self.final_folds = k  # of a finalist in all
        self.finals_hold = False  # whether nothing was raced since they were chosen
        self._finals: dict[int, dict[int, float]] = {}  # scores of further folds, by candidate
        self._leader: int | None = None
        self._seen = 0
        self.untold: set[int] = set()  # lost, which the sampler does not know yet
        self._at_sampler = np.full(64, np.nan)
        self._leaving: set[int] = set()  # out, with releases that may be without an outcome
        self._new: dict[int, Standing] = {}  # nothing of theirs was handed out yet
        self._wanting: dict[int, Standing] = {}  # neither out nor handed out in full

    def apply(self, row: Row) -> None:
        """Take in one row of the journal."""
        event = getattr(self, f"_{row['event']}", None)
        if event is not None:
            event(row)

    def _suggested(self, row: Row) -> None:
        names = ("space", "id", "values", "refused", "same_as")
        standing = Standing(row["candidate"], **{name: row[name] for name in names})
        self.candidates.append(standing)
        self.in_vain = 0 if standing.runs else self.in_vain + 1
        if standing.runs:
            self.count += 1
            self._new[standing.number] = self._wanting[standing.number] = standing

    def _released(self, row: Row) -> None:
        rungs = tuple(tuple(Rung(**rung) for rung in of_seed) for of_seed in row["rungs"])
        release = Release(row["release"], row["candidate"], row["fold"], rungs)
        self.releases.append(release)
        self.ended = None  # a larger budget may have carried it on
        self.outcomes.append(None)
        standing = self.candidates[release.candidate]
        standing.open += 1
        if release.fold < self.k:
            self.race_steps += 1
            self.promoted += bool(standing.releases)
            self.finals_hold = False
        standing.releases[release.fold] = release.number
        self._new.pop(standing.number, None)
        if len(standing.releases) >= self.k and not self.lacks(standing.number):
            self._wanting.pop(standing.number, None)

    def _finished(self, row: Row) -> None:
        release = self.releases[row["release"]]
        standing = self.candidates[release.candidate]
        standing.open -= 1
        if row["score"] is None:
            self.outcomes[release.number] = "lost"
            standing.lost = row["reason"]
            self.untold.add(release.candidate)
            self.table.drop(release.candidate)
            self._leave(release.candidate)
        else:
            self.outcomes[release.number] = "finished"
            self._count(standing)
            standing.finished.add(release.fold)
            if release.fold < self.k:
                self.table.add(release.candidate, release.fold, row["score"], row["noise"])
            else:
                self._finals.setdefault(release.candidate, {})[release.fold] = row["score"]
        self._keep_curves(release, row)
        if self._patient and self.leader != self._leader:
            self._leader, self.led_since = self.leader, self.raced

    def _halted(self, row: Row) -> None:
        release = self.releases[row["release"]]
        standing = self.candidates[release.candidate]
        standing.open -= 1
        self.outcomes[release.number] = "halted"
        self._count(standing)
        standing.stopped = self.halted[release.candidate] = row
        self.table.drop(release.candidate)
        self._leave(release.candidate)
        self._keep_curves(release, row)

    def _count(self, standing: Standing) -> None:
        """A candidate that is known to be worth something, or not much."""
        if not standing.finished:
            self.scored += 1
            self.raced += standing.space is not None

    def _keep_curves(self, release: Release, row: Row) -> None:
        if row["curves"]:
            self.curves[release.fold][release.candidate] = [*map(Curve.read, row["curves"])]

    def _cancelled(self, row: Row) -> None:
        self.outcomes[row["release"]] = "cancelled"
        self.candidates[self.releases[row["release"]].candidate].open -= 1

    def _stopped(self, row: Row) -> None:
        self.candidates[row["candidate"]].stopped = row
        self.table.stop(row["candidate"])
        self._leave(row["candidate"])

    def _leave(self, number: int) -> None:
        self._wanting.pop(number, None)
        self._leaving.add(number)

    def _told(self, row: Row) -> None:
        if row["value"] is None:
            self.untold.discard(row["candidate"])
            return
        while row["candidate"] >= len(self._at_sampler):
            self._at_sampler = np.concatenate(
                [self._at_sampler, np.full_like(self._at_sampler, np.nan)]
            )
        self._at_sampler[row["candidate"]] = row["value"]

    def _exhausted(self, _: Row) -> None:
        self.exhausted = True

    def _finalists(self, row: Row) -> None:
        self.finalists, self.final_folds = tuple(row["candidates"]), row["folds"]
        self.finals_hold, self.ended = True, None

    def _ended(self, row: Row) -> None:
        self.ended = row["reason"]

    # --- what follows from it ---------------------------------------------------------------------

    @property
    def leader(self) -> int | None:
        """The living candidate that is expected to end up best."""
        return self.table.leader

    def best_after(self, candidate: int, fold: int, seed: int, epoch: int) -> float | None:
        """The best score of a cell's curve at the rung of an epoch, by the place of its seed; None
        where it is not known.
        """
        curves = self.curves[fold].get(candidate)
        return curves[seed].after(epoch) if curves else None

    @property
    def ahead(self) -> int | None:
        """Whom the search would choose now: the finalist with the best mean over all its folds, the
        better one in the race of equals; the leader before all finalists have theirs.
        """
        final = [number for number in self.finalists if not self.candidates[number].out]
        means = [self.final_mean(number) for number in final]
        known = [mean for mean in means if mean is not None]
        if not self.finals_hold or not known or len(known) < len(means):
            return self.leader
        return final[int(np.argmax(known))]

    def counts(self, release: Release) -> bool:
        """Whether a step belongs to the results: of the race, or of a present finalist's further
        repeats.
        """
        raced = release.fold < self.k or release.candidate in self.finalists
        return raced and self.outcomes[release.number] != "cancelled"

    def final_mean(self, number: int) -> float | None:
        """A finalist's mean over its folds of all repeats; None while some are not finished."""
        scores = self._finals.get(number, {})
        further = [scores.get(fold) for fold in range(self.k, self.final_folds)]
        known = [score for score in further if score is not None]
        if not known or len(known) < len(further) or not self.is_through(number):
            return None
        return float(np.mean([*self.table.scores[number], *known]))

    @property
    def seen(self) -> int:
        """How many releases from the first on have an outcome without a gap."""
        while self._seen < len(self.outcomes) and self.outcomes[self._seen] is not None:
            self._seen += 1
        return self._seen

    @property
    def open(self) -> list[Release]:
        """Releases without an outcome, in order."""
        rest = range(self.seen, len(self.releases))
        return [self.releases[n] for n in rest if self.outcomes[n] is None]

    def unwanted(self) -> list[Release]:
        """Releases without an outcome of candidates that are out, in order."""
        self._leaving = {number for number in self._leaving if self.candidates[number].open}
        numbers = (n for c in self._leaving for n in self.candidates[c].releases.values())
        return [self.releases[n] for n in sorted(numbers) if self.outcomes[n] is None]

    @property
    def new(self) -> int | None:
        """The first stated candidate of which nothing was handed out yet."""
        return next((n for n, each in self._new.items() if each.space is None), None)

    @property
    def ready(self) -> list[int]:
        """Suggested candidates of which nothing was handed out yet, in order."""
        return [n for n, each in self._new.items() if each.space is not None]

    def told(self, count: int) -> NDArray[np.float64]:
        """(count,): what the sampler holds for the values of the first candidates, NaN: nothing."""
        told = np.full(count, np.nan)
        told[: len(self._at_sampler)] = self._at_sampler[:count]
        return told

    @property
    def wanting(self) -> list[Standing]:
        """Candidates that are not out and whose folds were not all handed out, in no order."""
        return list(self._wanting.values())

    def lacks(self, number: int | None) -> list[int]:
        """Folds of a candidate that were not handed out yet; none of one that is out."""
        if number is None or self.candidates[number].out:
            return []
        return [f for f in range(self.k) if f not in self.candidates[number].releases]

    def is_through(self, number: int) -> bool:
        """Whether all folds of the race are finished for a candidate."""
        finished = self.candidates[number].finished
        return len(finished) >= self.k and all(fold in finished for fold in range(self.k))
