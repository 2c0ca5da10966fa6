"""What a search can still afford, and why it ends: budgets held against its standings."""

from dataclasses import dataclass

from orchestrator.experiment import search_config
from orchestrator.search.standings import Standings

_IN_VAIN = 100  # suggestions in a row that cost no cells: the space holds no more


@dataclass(frozen=True)
class ToCome:
    """Steps that may still be handed out: about, as far as candidates did until now, and at most;
    None where no budget says.
    """

    about: float | None
    most: int | None


class Spending:
    """The budgets of a search. `seeds`: cells of a step; `samples`: whether it suggests at all."""

    def __init__(
        self, config: search_config.Search, standings: Standings, seeds: int, samples: bool
    ) -> None:
        self._config, self._standings = config, standings
        self._seeds, self._samples = seeds, samples
        self.closing: str | None = None  # why only the best are carried on

    def time_is_up(self, hours: bool, gpu_hours: bool) -> None:
        """Only the leader and the reference get what they lack."""
        if hours or gpu_hours:
            self.closing = "the hours are spent" if hours else "the GPU-hours are spent"

    def affords(self, number: int) -> bool:
        """Whether the cells suffice to finish a candidate, or to go on with it for a step and then
        to finish the leader; and for the reference in any case.
        """
        standings = self._standings
        steps = self._steps_left()
        if steps is None:
            return True
        lacks = len(standings.lacks(number))
        if number == 0:
            return lacks <= steps
        steps -= len(standings.lacks(0))
        # 0: done above
        of_leader = len(standings.lacks(standings.leader)) if standings.leader else 0
        if steps <= standings.k and any(r.candidate not in (0, number) for r in standings.open):
            return False  # enough for one candidate: who leads should be known
        if number == standings.leader or of_leader > steps:  # too late for that leader
            of_leader = 0
        return max(lacks, 1 + of_leader) <= steps

    def may_suggest(self) -> bool:
        """Whether one more candidate may be suggested."""
        config, standings = self._config, self._standings
        if not self._samples or standings.exhausted or standings.in_vain >= _IN_VAIN:
            return False
        if config.candidates is not None and standings.count >= config.candidates:
            return False
        return self._has_room()

    def may_begin(self) -> bool:
        """Whether a candidate that was, or may be, suggested may begin."""
        return self._has_room() and bool(self._standings.ready or self.may_suggest())

    def _has_room(self) -> bool:
        if self.closing is not None or self._lost_patience():
            return False
        steps = self._steps_left()
        return steps is None or steps >= len(self._standings.lacks(0)) + self._standings.k

    def why_it_ends(self) -> str:
        """Why nothing more is handed out, in words."""
        config, standings = self._config, self._standings
        if self.closing is not None:
            return self.closing
        if any(each.releases or each.space is None for each in standings.wanting):
            return "the cells are spent"
        if standings.in_vain >= _IN_VAIN or standings.exhausted:
            return "the space is exhausted"
        if self._lost_patience():
            return f"no new leader among {config.patience} candidates"
        if not self._samples or (standings.count == config.candidates and not standings.ready):
            return "every candidate is stopped or through"
        return "the cells are spent"

    def to_come(self, final_folds: int = 0) -> "ToCome":
        """What may still be handed out if everything goes on as it does; `final_folds`: of a
        finalist in all.
        """
        config, standings = self._config, self._standings
        if standings.ended is not None:
            return ToCome(0.0, 0)
        k, left, finals = standings.k, self._steps_left(), self._finals_to_come(final_folds)
        if config.candidates is None and self.may_suggest():  # until another budget is spent
            return ToCome(None, None) if left is None else ToCome(left + finals, left + finals)
        new = (config.candidates or 0) - standings.count if self.may_suggest() else 0
        wanting = standings.wanting
        if self.closing is not None:
            wanting = [c for c in wanting if c.number in (0, standings.leader)]
        elif not self.may_begin():
            wanting = [c for c in wanting if c.releases or c.space is None]
        further = self._further()
        about, most = new * further[0], new * k
        for each in wanting:
            lacks = len(standings.lacks(each.number))
            most += lacks
            about += lacks if each.number in (0, standings.leader) else further[k - lacks]
        if left is not None:
            about, most = min(about, left), min(most, left)
        return ToCome(about + finals, most + finals)

    def _further(self) -> list[float]:
        """By the number of folds that a candidate was given: how many more those got, on average,
        that had as many and are out or have all; all the others where there are none.
        """
        standings = self._standings
        k = standings.k
        given = [
            min(len(each.releases), k)
            for each in standings.candidates
            if each.runs and (each.out or not standings.lacks(each.number))
        ]
        further = []
        for had in range(k + 1):
            more = [number - had for number in given if number >= had]
            further.append(sum(more) / len(more) if more else float(k - had))
        return further

    def _finals_to_come(self, final_folds: int) -> int:
        standings, config = self._standings, self._config.finalists
        if config is None:
            return 0
        if not standings.finals_hold:
            return config.top * max(final_folds - standings.k, 0)
        finalists = (standings.candidates[number] for number in standings.finalists)
        folds = range(standings.k, standings.final_folds)
        return sum(
            fold not in each.releases for each in finalists if not each.out for fold in folds
        )

    def _lost_patience(self) -> bool:
        patience, standings = self._config.patience, self._standings
        return bool(patience) and standings.raced - standings.led_since >= (patience or 0)

    def _steps_left(self) -> int | None:
        if self._config.cells is None:
            return None
        return self._config.cells // self._seeds - self._standings.race_steps
