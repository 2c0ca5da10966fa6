"""The search as a machine without clock and without Ray: which step may be handed out next.

Everything decided is a row of the journal before it is acted on, and memory changes by rows only.
Every choice follows from the memory, so that a search opened on the journal goes on where it was,
even where the last batch of rows was torn apart.

With `repeatable`, release r looks at the outcomes of the releases 0..r-lag, in their order, and at
no others, however long they took; without, at all that is finished, in order of arrival.
"""

import math
from collections.abc import Hashable, Iterator, Sequence
from itertools import zip_longest

import numpy as np

from orchestrator.experiment import search_config
from orchestrator.search import halving, published, racing
from orchestrator.search.finals import Finals
from orchestrator.search.halving import Curve
from orchestrator.search.needs import Complete, Keeps, Scores, Suggests, Trains
from orchestrator.search.outlook import paired_noise
from orchestrator.search.spending import Spending, ToCome
from orchestrator.search.standings import Release, Row, Standing, Standings
from orchestrator.search.telling import Telling
from trainables.core.errors import ExperimentError
from trainables.training.decisions import Rung

_PER_PROMOTION = 4  # candidates that are new for one that is given its next fold


class Search:
    """Suggests candidates, hands out their steps and stops them.

    `stated`: id and key of each stated candidate, whose keys are comparable with those of
    `complete(number, space, values)`. `scores(candidate, fold)`: of a finished step, asked for it
    and for the one that it is paired with. `seeds`: cells of a step. `final_folds`: of a finalist
    in all. `trains(candidate, fold)`: how far its cells came, where steps may be halted within
    their epochs.
    """

    def __init__(
        self,
        config: search_config.Search,
        k: int,
        stated: Sequence[tuple[str, Hashable]],
        sampler: Suggests | None,
        journal: Keeps,
        scores: Scores,
        complete: Complete | None = None,
        seeds: int = 1,
        final_folds: int = 0,
        trains: Trains | None = None,
    ) -> None:
        self.config = config
        self._sampler, self._journal, self._scores = sampler, journal, scores
        self._complete, self._seeds, self._trains = complete, seeds, trains
        self._arrived: dict[int, str | None] = {}  # release: reason of a loss
        self._keys: dict[Hashable, int] = {}
        self._rows: list[Row] = []  # applied, not yet in the journal
        self._undecided = True
        self.standings = Standings(k, bool(config.patience))
        self._spending = Spending(config, self.standings, seeds, sampler is not None)
        self._final_folds = final_folds
        self._finals = Finals(config.finalists, self.standings, final_folds)
        self._telling = None if sampler is None else Telling(sampler, self.standings)
        self._foreseen = 0 if sampler is None else sampler.foresees
        for row in journal.rows:
            self._apply(row)
        self._was_over = self.standings.ended
        for number, (name, key) in enumerate(stated):
            self._keys.setdefault(key, number)
            if number >= len(self.standings.candidates):
                self._note(
                    {"event": "suggested", "candidate": number, "space": None, "id": name}
                    | {"values": {}, "refused": None, "same_as": None}
                )
        for standing in self.standings.candidates[len(stated) :]:
            if standing.runs and standing.space is not None and complete is not None:
                key = complete(standing.number, standing.space, standing.values)[1]
                self._keys[key] = standing.number
        self._flush()

    # --- what the executor calls ------------------------------------------------------------------

    @property
    def ended(self) -> str | None:
        """Why the search is over; None while it is not."""
        return self.standings.ended

    @property
    def candidates(self) -> list[Standing]:
        """All candidates in order of their numbers, refused and repeated suggestions too."""
        return self.standings.candidates

    @property
    def leader(self) -> int | None:
        """The living candidate that is expected to end up best."""
        return self.standings.leader

    @property
    def winner(self) -> int | None:
        """The living candidate with the best mean over all folds; None before one has them."""
        table = self.standings.table
        return published.incumbent(table.scores, table.living)

    @property
    def outstanding(self) -> list[Release]:
        """Steps that were handed out and not told of since: after opening, to be run (again)."""
        return [r for r in self.standings.open if r.number not in self._arrived]

    def take(self) -> Release | None:
        """The next step that may be handed out now; None: wait for an outcome, or it has ended."""
        if self._was_over is not None:
            return self._go_on()
        release = None
        while release is None and self.ended is None and self._look():
            self._decide()
            release = self._choose()
            if release is None and not self._look_further():
                break
        self._flush()
        return release

    def _go_on(self) -> Release | None:
        """The first step after an end that a journal holds: a larger budget may give one."""
        over, self._was_over, self.standings.ended = self._was_over, None, None
        release = self._choose()
        if release is None and self._begin_finals():  # as more repeats do
            release = self._choose()
        if release is None:
            self.standings.ended = over
        self._flush()
        return release

    def likely(self) -> Iterator[tuple[int, int]]:
        """Candidate and fold of steps that were not handed out, but may well be: worth training on
        slots that would idle. In order: suggestions that lie ready, what the best and the reference
        lack, then everyone's next fold.
        """
        if self.ended is not None:
            return
        standings = self.standings
        if self._spending.may_begin():
            yield from ((number, 0) for number in standings.ready)
        numbers = [n for n in self._best_first(rested_first=False) if self._spending.affords(n)]
        sure = [n for n in numbers if n in (standings.leader, 0)]
        yield from ((n, fold) for n in sure for fold in standings.lacks(n))
        lacked = ([(n, fold) for fold in standings.lacks(n)] for n in numbers if n not in sure)
        for steps in zip_longest(*lacked):
            yield from (step for step in steps if step is not None)
        yield from self._finals.steps()

    def to_come(self) -> ToCome:
        """The steps that may still be handed out."""
        return self._spending.to_come(self._final_folds)

    def finished(self, release: Release, reason: str | None = None) -> None:
        """All cells of a step are in the ledger; or it is lost for good, for a reason."""
        if self.standings.outcomes[release.number] is None:
            self._arrived[release.number] = reason

    def cancelled(self, release: Release) -> bool:
        """Whether a step is no longer wanted: not to be started, or to end at its next epoch."""
        return self.standings.outcomes[release.number] == "cancelled"

    def budget_spent(self, hours: bool, gpu_hours: bool) -> None:
        """Time is up: only the leader and the reference get what they lack."""
        self._spending.time_is_up(hours, gpu_hours)

    # --- rows -------------------------------------------------------------------------------------

    def _note(self, row: Row) -> None:
        self._rows.append(row)
        self._apply(row)

    def _apply(self, row: Row) -> None:
        self.standings.apply(row)
        if self._telling is not None:
            self._telling.apply(row)

    def _flush(self) -> None:
        if self._rows:
            self._journal.append(self._rows)
            self._rows = []

    # --- outcomes ---------------------------------------------------------------------------------

    def _look(self) -> bool:
        """Take in the outcomes that the next release looks at; False: one of them is not there."""
        standings = self.standings
        if not self.config.repeatable:
            for number in list(self._arrived):
                self._take_in(number)
            return True
        while standings.seen <= len(standings.releases) - self.config.lag:
            if standings.seen not in self._arrived:
                return False
            self._take_in(standings.seen)
            self._decide()
        return True

    def _look_further(self) -> bool:
        """Nothing may be handed out: take in one more outcome; False: it is not there."""
        standings = self.standings
        if not standings.open:
            if self._begin_finals():
                return True
            self._note({"event": "ended", "reason": self._spending.why_it_ends()})
            return False
        if not self.config.repeatable or standings.seen not in self._arrived:
            return False
        self._take_in(standings.seen)
        return True

    def _take_in(self, number: int) -> None:
        reason = self._arrived.pop(number)
        if self.standings.outcomes[number] is not None:
            return
        release = self.standings.releases[number]
        curves: list[Curve] = []
        if reason is None and self._trains is not None:
            step = self._trains(release.candidate, release.fold)
            curves, halt = halving.judged(step, release.rungs)
            if halt is not None:
                self._note(halt.row(number, curves))
                self._undecided = True
                return
        score = noise = None
        if reason is None:
            score, draws = self._scores(release.candidate, release.fold)
            rival = None
            raced = release.fold < self.standings.k
            if self.config.racing == "paired" and raced:  # nobody else asks how noisy a step is
                rival = self.standings.table.rival(release.candidate, release.fold)
            if rival is not None:
                noise = paired_noise(draws, self._scores(rival, release.fold)[1])
            if not math.isfinite(score):
                score, noise, reason = None, None, "its fold has no score"
        self._note(
            {"event": "finished", "release": number, "score": score, "noise": noise}
            | {"curves": [curve.row() for curve in curves], "reason": reason}
        )
        self._undecided = True

    # --- decisions --------------------------------------------------------------------------------

    def _decide(self) -> None:
        """Stop who is to be stopped, and cancel what is no longer wanted."""
        if not self._undecided:
            return
        rule, table = self.config.racing, self.standings.table
        for each in racing.verdicts(table, rule, self.config.bound):
            if each.candidate != 0:
                folds = sorted(self.candidates[each.candidate].finished)
                self._note(
                    {"event": "stopped", "candidate": each.candidate, "folds": folds}
                    | {"against": each.against, "probability": each.probability}
                    | {"reason": each.reason, "rule": rule}
                )
        for release in self.standings.unwanted():
            self._note({"event": "cancelled", "release": release.number})
        self._undecided = False

    # --- the next step ----------------------------------------------------------------------------

    def _choose(self) -> Release | None:
        """Write down and return the next step; None: there is none before another outcome."""
        while len(self.standings.ready) < self._foreseen and self._spending.may_suggest():
            self._suggest()
        while (step := self._step()) is None:
            if not self._spending.may_begin():
                step = next(self._finals.steps(), None)
                break
            if ready := self.standings.ready:
                step = (ready[0], 0)
                break
            self._suggest()
        if step is None:
            return None
        number = len(self.standings.releases)
        rungs = [[rung.model_dump() for rung in each] for each in self._rungs(*step)]
        self._note(
            {"event": "released", "release": number, "candidate": step[0], "fold": step[1]}
            | {"rungs": rungs}
        )
        return self.standings.releases[number]

    def _begin_finals(self) -> bool:
        """Write down who gets more repeats; False: nobody, or that is known."""
        row = self._finals.begun()
        if row is not None:
            self._note(row)
        return row is not None

    def _step(self) -> tuple[int, int] | None:
        """The most useful step of the candidates that there are; None: a new one goes ahead."""
        standings = self.standings
        new = standings.new if self._spending.closing is None else None
        if new is not None and self._spending.affords(new):
            return new, 0
        ahead = self._spending.may_begin()
        if ahead and self.config.racing == "paired" and not self._promotion_due():
            return None
        rested = self._best_first(ahead or self.config.racing != "off")
        for number in rested:
            if ahead and self.config.racing != "off" and self.candidates[number].open:
                break
            if self._spending.affords(number):
                return number, standings.lacks(number)[0]
        return None

    def _rungs(self, candidate: int, fold: int) -> list[tuple[Rung, ...]]:
        """What the cells of a step are held to, by seed; none where it is trained in full.

        Later folds are had by few, that are good: of these the upper third is no fair demand, and
        whole folds know more of a candidate than some epochs.
        """
        first = not self.candidates[candidate].releases
        if self._trains is None or candidate == 0 or not first:
            return []
        known = self.standings.curves[fold].values()
        found = [halving.thresholds(each[seed] for each in known) for seed in range(self._seeds)]
        return found if any(found) else []

    def _promotion_due(self) -> bool:
        """Whether enough candidates are new since the last one that was given its next fold."""
        return (self.standings.promoted + 1) * _PER_PROMOTION <= self.standings.scored

    def _best_first(self, rested_first: bool) -> list[int]:
        """Candidates that lack folds, in the order in which they are given them."""
        standings = self.standings
        lacking = [c for c in standings.wanting if c.releases]
        if self._spending.closing is not None:
            lacking = [c for c in lacking if c.number in (0, standings.leader)]
        by_value = self.config.racing == "paired"
        values = standings.table.outlook.means if by_value else np.zeros(0)

        def place(c: Standing) -> tuple[bool, float, int]:
            value = -values[c.number] if by_value and c.finished else 0.0
            return rested_first and c.open > 0, value, c.number

        return [c.number for c in sorted(lacking, key=place)]

    def _suggest(self) -> None:
        """Write down one more candidate, or that the sampler has no other."""
        assert self._sampler is not None
        assert self._complete is not None
        assert self._telling is not None
        for row in self._telling.news():
            self._note(row)
        number = len(self.candidates)
        suggestion = self._sampler.suggest(number)
        if suggestion is None:
            self._note({"event": "exhausted"})
            return
        space, values = suggestion
        name, refused, same_as = f"s{number:04d}", None, None
        try:
            name, key = self._complete(number, space, values)
            same_as = self._keys.get(key)
            self._keys.setdefault(key, number)
        except ExperimentError as error:
            refused = str(error)
        self._note(
            {"event": "suggested", "candidate": number, "space": space, "id": name}
            | {"values": values, "refused": refused, "same_as": same_as}
        )
