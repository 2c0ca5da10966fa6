"""What follows the race: the best candidates get the folds of further repeats, all of them, and who
is best over all repeats wins.
"""

from collections.abc import Iterator

import numpy as np

from orchestrator.experiment.search_config import Finalists
from orchestrator.search.standings import Row, Standings
from trainables.core.spelling import count


class Finals:
    """`folds`: of a finalist in all, those of the race among them; without `config` nobody is
    one.
    """

    def __init__(self, config: Finalists | None, standings: Standings, folds: int) -> None:
        self._config, self._standings, self._folds = config, standings, folds

    def begun(self) -> Row | None:
        """The row that says who is a finalist, once nothing is left to be raced; None where that is
        said already, or nobody is through all folds.
        """
        standings = self._standings
        if self._config is None or not (chosen := self._chosen(self._config.top)):
            return None
        if standings.finals_hold and (standings.finalists, standings.final_folds) == (
            chosen,
            self._folds,
        ):
            return None
        through = int((standings.table.living & standings.table.through).sum())
        of_race = count(standings.k, "fold")
        return {
            "event": "finalists",
            "candidates": list(chosen),
            "folds": self._folds,
            "reason": f"the best {len(chosen)} of {through} through all {of_race}, by their mean",
        }

    def steps(self) -> Iterator[tuple[int, int]]:
        """Candidate and fold of what finalists lack, fold by fold."""
        standings = self._standings
        if not standings.finals_hold:
            return
        for fold in range(standings.k, standings.final_folds):
            for number in standings.finalists:
                each = standings.candidates[number]
                if not each.out and fold not in each.releases:
                    yield number, fold

    def _chosen(self, top: int) -> tuple[int, ...]:
        """The best living candidates with all folds of the race, the best first."""
        table = self._standings.table
        through = np.flatnonzero(table.living & table.through)
        order = np.argsort(-table.scores[through].mean(axis=1), kind="stable")
        return tuple(int(number) for number in through[order[:top]])
