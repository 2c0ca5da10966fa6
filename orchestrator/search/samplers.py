"""Samplers: which values of a search's spaces the next candidate has.

A suggestion follows from the spaces, the sampler's kind and seed, its own number and what was
recalled and told before, and from nothing else: the same calls give the same answers, in another
process too.
"""

import json
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.util import find_spec
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from orchestrator.experiment.search_space import Space
from orchestrator.search.needs import LEARNING
from trainables.core.errors import ExperimentError

if TYPE_CHECKING:
    from orchestrator.search.asking import Known, Point

Kind = Literal["grid", "random", "tpe", "gp", "cmaes"]

_NEEDED = {"gp": "torch", "cmaes": "cmaes"}  # packages
#: How many candidates a sampler is shown, the best and the latest: its time grows with them.
_SHOWN = {"tpe": (100, 400), "gp": (50, 50)}
_GENERATIONS = 600  # candidates that cmaes is shown, the latest
_FORESEEN = 16  # suggestions of a sampler that learns nothing, which idle slots may begin with
_REDRAWN = 20  # random points that are tried in place of one that is known


class Sampler:
    """Suggests candidates, higher values being better; raises ExperimentError where a package is
    missing.

    The spaces' stated candidates, all at their defaults, are known from the start.
    """

    def __init__(self, spaces: Sequence[Space], kind: Kind, seed: int) -> None:
        package = _NEEDED.get(kind)
        if package and find_spec(package) is None:
            raise ExperimentError(
                f"search.sampler: {kind} needs a package that is not installed: pip install "
                f"{package}, or use tpe"
            )
        self._spaces, self._kind, self._seed = spaces, kind, seed
        self._points: dict[int, Point] = {}  # by number of the candidate
        self._values: dict[int, float | None] = {}  # None: failed
        self._earlier = 0  # candidates of earlier runs, whose numbers are -1, -2, …
        self._first: list[Point] = []  # the best of each run
        self._origins: dict[int, int] = {}  # of those of other data: the same for the same run
        self._keys: set[str] = set()
        self._stated = {space.candidate for space in spaces}
        for number, space in enumerate(spaces):
            self.recall(space.candidate, number, space.defaults)
        self._grid = _Grid(spaces)
        if kind == "cmaes":
            from orchestrator.search.evolution import Evolution

            self._evolution = Evolution(spaces[0], seed)
        if kind != "grid":
            from orchestrator.search.asking import Studies

            self._studies = Studies(spaces)

    @property
    def foresees(self) -> int:
        """How many suggestions may be made before they are wanted: none where later ones see more.

        Enough that 16 slots need not wait for decisions (`benchmarks/search_costs.py`).
        """
        return 0 if self._kind in LEARNING else _FORESEEN

    def recall(self, number: int, space: int, values: Mapping[str, Any]) -> None:
        """A candidate that was suggested: pending until something is told of it."""
        self._points[number] = (space, dict(values))
        self._keys.add(self._key(self._points[number]))

    def told(
        self,
        number: int,
        value: float | None,
        space: int | None = None,
        values: Mapping[str, Any] | None = None,
    ) -> None:
        """What a candidate is worth, of which the last counts; None: it failed, which is as bad as
        the worst.

        Of one that is not known `space` and `values` say where it lies; without them it is left
        out, as a stated candidate that belongs to no space.
        """
        if number not in self._points:
            if space is None or values is None:
                return
            self.recall(number, space, values)
        self._values[number] = value if value is not None and math.isfinite(value) else None

    def knows(
        self, earlier: Sequence[tuple[int, Mapping[str, Any], float]], same_data: bool
    ) -> None:
        """Space, values and worth of the candidates of an earlier run, before the first suggestion;
        a grid and random draws do not look at them. The best of each run is suggested first.

        What scores come to on other data says nothing here, only their order does: where there is
        such a run, everybody is worth its place among those of its data, from 0, the worst, to 1.
        """
        if self._kind not in LEARNING:
            return
        origin = self._earlier + 1
        if earlier:
            space, values, _ = max(earlier, key=lambda each: each[2])
            self._first.append((space, dict(values)))
        for space, values, value in earlier:
            self._earlier += 1
            number = -self._earlier
            self._points[number], self._values[number] = (space, dict(values)), value
            if not same_data:
                self._origins[number] = origin

    def suggest(self, number: int) -> "Point | None":
        """Space and values of the candidate of this number, to be recalled once it counts; None:
        the grid has no other.
        """
        if self._kind == "grid":
            known = sum(each < number for each in self._points.keys() - self._stated)
            return self._grid.point(known)
        for point in self._first:
            if self._key(point) not in self._keys:
                return point
        point = self._drawn(self._stream(number))
        for attempt in range(_REDRAWN):
            if self._key(point) not in self._keys:
                break
            point = self._studies.ask("random", self._stream(number, attempt), [])
        return point

    def _drawn(self, seed: int) -> "Point":
        if self._kind == "random":
            return self._studies.ask("random", seed, [])
        if self._kind == "cmaes":
            known = [(self._points[n][1], worth) for n, worth in self._worths().items()]
            earlier, past = known[: self._earlier], known[self._earlier :]
            return 0, self._evolution.ask(seed, past[-_GENERATIONS:], earlier)
        return self._studies.ask(self._kind, seed, self._shown(*_SHOWN[self._kind]))

    def _shown(self, best: int, latest: int) -> "list[Known]":
        """The best and latest candidates with a value and all that are pending, by number; of what
        was suggested since it was the best of a run that run's value is there.
        """
        values = self._worths()
        by_value = sorted(values, key=lambda number: -values[number])
        waiting = {n for n, point in self._points.items() if point not in self._first}
        chosen = {*by_value[:best], *list(values)[-latest:], *waiting - values.keys()}
        return [(number, self._points[number], values.get(number)) for number in sorted(chosen)]

    def _worths(self) -> dict[int, float]:
        """What each candidate that has a value or failed is worth, in order of their numbers."""
        comparable = (v for n, v in self._values.items() if n not in self._origins)
        worst = min((v for v in comparable if v is not None), default=0.0)
        worths = {n: worst if v is None else v for n, v in sorted(self._values.items())}
        if not self._origins:
            return worths
        alike: dict[int, list[int]] = {}
        for number in worths:
            alike.setdefault(self._origins.get(number, 0), []).append(number)
        for numbers in alike.values():
            worths |= zip(numbers, _places([worths[n] for n in numbers]), strict=True)
        return worths

    def _key(self, point: "Point") -> str:
        """Equal for points that make equal candidates."""
        space, values = point
        parameters = self._spaces[space].parameters
        return json.dumps(
            [space, [(n, p.rounded(values[n])) for p in parameters if (n := p.name) in values]]
        )

    def _stream(self, number: int, *attempt: int) -> int:
        """A seed of its own for each suggestion."""
        return int(np.random.SeedSequence([self._seed, number, *attempt]).generate_state(1)[0])


def _places(values: Sequence[float]) -> list[float]:
    """The share of the values that lie below each, half of its equals and of itself counted."""
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    shares = (np.cumsum(counts) - counts / 2) / len(values)
    return [float(share) for share in shares[which]]


class _Grid:
    """Every combination of one space after the other, but for the stated ones."""

    def __init__(self, spaces: Sequence[Space]) -> None:
        self._rest = (
            (number, values)
            for number, space in enumerate(spaces)
            for values in islice(space.reached([p.name for p in space.parameters]), 1, None)
        )
        self._known: list[Point] = []

    def point(self, index: int) -> "Point | None":
        """None: there are fewer."""
        with suppress(ValueError):  # there are more than a space is looked through for
            self._known += islice(self._rest, max(0, index + 1 - len(self._known)))
        return self._known[index] if index < len(self._known) else None
