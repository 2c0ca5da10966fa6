"""What a search can still afford, and why it ends: budgets held against its standings."""

from dataclasses import dataclass

from orchestrator.experiment import search_config
from orchestrator.search.standings import Standings

_IN_VAIN = 100  # suggestions in a row that cost no cells: the space holds no more


@dataclass(frozen=True)
class Ahead:
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

    def ahead(self) -> "Ahead":
        """What may still be handed out if everything goes on as it does."""
        config, standings = self._config, self._standings
        if standings.ended is not None:
            return Ahead(0.0, 0)
        wanting = standings.wanting
        if self.closing is not None:
            wanting = [c for c in wanting if c.number in (0, standings.leader)]
        elif not self.may_begin():
            wanting = [c for c in wanting if c.releases or c.space is None]
        k, left = standings.k, self._steps_left()
        endless = config.candidates is None and self.may_suggest()
        new = (config.candidates or 0) - standings.count if self.may_suggest() else 0
        lengths = [
            len(c.releases)
            for c in standings.candidates
            if c.runs and (c.out or len(c.releases) == k)
        ]

        def further(had: int) -> float:
            """Steps more that those had which had at least so many; all where none is known."""
            those = [length - had for length in lengths if length >= had]
            return sum(those) / len(those) if those else float(k - had)

        expected = [further(had) for had in range(k + 1)]
        about = max(new, 0) * expected[0]
        for c in wanting:
            to_the_end = c.number in (0, standings.leader)
            had = len(c.releases)
            about += k - had if to_the_end else expected[had]
        most = sum(k - len(c.releases) for c in wanting) + max(new, 0) * k
        if endless:
            return Ahead(None if left is None else float(left), left)
        return Ahead(about, most) if left is None else Ahead(min(about, left), min(most, left))

    def _lost_patience(self) -> bool:
        patience, standings = self._config.patience, self._standings
        return bool(patience) and standings.raced - standings.led_since >= (patience or 0)

    def _steps_left(self) -> int | None:
        if self._config.cells is None:
            return None
        return self._config.cells // self._seeds - len(self._standings.releases)
