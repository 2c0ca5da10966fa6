"""What the sampler of a search is told: what earlier runs knew, its own suggestions, and what
became of them.
"""

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from orchestrator.search import racing
from orchestrator.search.needs import Suggests
from orchestrator.search.standings import Row, Standing, Standings

_MOVED = 0.02  # of the estimates' deviation: less is not worth telling the sampler


def estimates(standings: Standings) -> NDArray[np.float64]:
    """(candidates,): the expected mean of each, NaN where there is none: `racing.estimates`, and of
    those that were halted in their first fold the leader's mean plus what they were behind it at
    the same epoch of the same fold, the lowest of all where that is not known.
    """
    values = racing.estimates(standings.table)
    leader = standings.leader
    if leader is None or not standings.halted:
        return values
    values, lowest = values.copy(), float(np.nanmin(values))
    ahead: dict[tuple[int, int, int], float | None] = {}  # what the leader had there
    for number in (n for n in standings.halted if not standings.candidates[n].finished):
        row = standings.halted[number]
        place = standings.releases[row["release"]].fold, row["seed"], row["epoch"]
        if place not in ahead:
            ahead[place] = standings.best_after(leader, *place)
        own, other = row["score"], ahead[place]
        if own is None or other is None or other == -math.inf:
            values[number] = lowest
        else:  # an early lead is no reason to expect a better mean
            values[number] = values[leader] + min(own - other, 0.0)
    return values


class Telling:
    """Passes the rows of a journal on to a sampler, as far as they concern it."""

    def __init__(self, sampler: Suggests, standings: Standings) -> None:
        self._sampler, self._standings = sampler, standings
        self._twins: dict[int, list[int]] = {}  # who equals a candidate

    def apply(self, row: Row) -> None:
        """Tell the sampler of a row that the standings hold already."""
        if row["event"] == "suggested" and row["space"] is not None:
            self._sampler.recall(row["candidate"], row["space"], row["values"])
            if row["refused"] is not None:
                self._sampler.told(row["candidate"], None, row["space"], row["values"])
            elif row["same_as"] is not None:
                self._twins.setdefault(row["same_as"], []).append(row["candidate"])
                value = float(self._standings.told(row["candidate"])[row["same_as"]])
                lost = self._standings.candidates[row["same_as"]].lost is not None
                if lost or not math.isnan(value):
                    self._tell(row["same_as"], None if lost else value)
        elif row["event"] == "prior":
            earlier = [(each["space"], each["values"], each["value"]) for each in row["candidates"]]
            self._sampler.knows(earlier, row["same_data"])
        elif row["event"] == "told":
            self._tell(row["candidate"], row["value"])

    def news(self) -> Iterator[Row]:
        """Rows on what is known of every candidate by now, where that moved."""
        standings = self._standings
        for number in sorted(standings.untold):
            yield {"event": "told", "candidate": number, "value": None, "estimated": False}
        values = estimates(standings)
        told = standings.told(len(values))
        known = values[~np.isnan(values)]
        least = _MOVED * float(known.std()) if len(known) else 0.0
        moved = ~np.isnan(values) & ~(np.abs(told - values) <= least)  # also where nothing was told
        for number in map(int, np.flatnonzero(moved)):
            if standings.candidates[number].lost is None:
                yield {
                    "event": "told",
                    "candidate": number,
                    "value": float(values[number]),
                    "estimated": not standings.is_through(number),
                }

    def _tell(self, number: int, value: float | None) -> None:
        everyone: list[Standing] = self._standings.candidates
        for each in (everyone[n] for n in (number, *self._twins.get(number, ()))):
            self._sampler.told(each.number, value, each.space, each.values)
