"""A search over a table of known scores: workers that take as long as they are told to."""

import heapq
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.experiment.search_config import Finalists
from orchestrator.search.halving import Trained
from orchestrator.search.search import Search
from trainables.core.training_config import Training


@dataclass(frozen=True)
class Settings:
    candidates: int | None = None
    cells: int | None = None
    patience: int | None = None
    racing: str = "paired"
    bound: float = 0.05
    repeatable: bool = True
    lag: int = 16
    finalists: Finalists | None = None
    epochs: int = 0  # of a cell where steps may be halted within their epochs


@dataclass
class Rows:
    """A journal in memory, which may break off after so many rows."""

    rows: list[Mapping[str, Any]] = field(default_factory=list)

    def append(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self.rows.extend(rows)

    def of(self, event: str) -> list[Mapping[str, Any]]:
        return [row for row in self.rows if row["event"] == event]


class Drawn:
    """A sampler whose suggestions depend on the number and on all that it was told so far."""

    def __init__(self, most: int, spread: int, foresees: int) -> None:
        self.most, self.spread, self.foresees = most, spread, foresees
        self.values: dict[int, float | None] = {}
        self.asked: list[int] = []
        self.told_of: dict[int, list[float | None]] = {}

    def suggest(self, number: int) -> tuple[int, dict[str, Any]] | None:
        if number >= self.most:
            return None
        self.asked.append(number)
        known = sorted(self.values.items())
        seed = [number, *(int(1e6 * (v or 0)) % 2**31 for _, v in known)]
        return 0, {"x": int(np.random.default_rng(seed).integers(self.spread))}

    def recall(self, number: int, space: int, values: dict[str, Any]) -> None:
        self.values.setdefault(number, None)

    def told(
        self, number: int, value: float | None, space: int | None, values: dict[str, Any]
    ) -> None:
        self.values[number] = value
        self.told_of.setdefault(number, []).append(value)


def scores_of(truth: NDArray[np.float64], k: int, noise: float, seed: int) -> NDArray[np.float64]:
    """(candidates, k): true means, fold effects as large as the noise, noise of the rest."""
    rng = np.random.default_rng(seed)
    folds = rng.normal(0, noise, (1, k))
    return np.asarray(truth[:, None] + folds + rng.normal(0, noise, (len(truth), k)))


def draws_of(scores: NDArray[np.float64], noise: float, draws: int = 100) -> NDArray[np.float32]:
    """(candidates, k, draws): what resampled patients give, of the noise's deviation."""
    rng = np.random.default_rng(0)
    return (scores[..., None] + rng.normal(0, noise, (*scores.shape, draws))).astype(np.float32)


class Bench:
    """Searches over a table of scores: of number x for a suggestion x, of number 0 for the stated
    candidate.
    """

    def __init__(self, scores: NDArray[np.float64], noise: float, settings: Settings) -> None:
        self.scores, self.draws, self.settings = scores, draws_of(scores, noise), settings
        self.lost: dict[tuple[int, int], str] = {}
        self.most, self.foresees = len(scores), 0
        self.k = scores.shape[1]  # of the race; there may be more for finalists

    def open(self, journal: Rows, repeats: bool = False) -> Search:
        """`repeats`: suggestions may be alike; else every one is a candidate of its own."""
        self.sampler = Drawn(self.most, len(self.scores), self.foresees)

        def row(number: int) -> int:
            values = search.candidates[number].values
            return int(values.get("x", 0)) if repeats else number

        def complete(number: int, space: int, values: Mapping[str, Any]) -> tuple[str, Any]:
            return f"s{number:04d}", values["x"] if repeats else number

        search = Search(
            self.settings,
            self.k,
            [("stated", "stated")],
            self.sampler,
            journal,
            lambda c, f: (float(self.scores[row(c), f]), self.draws[row(c), f]),
            complete,
            final_folds=self.scores.shape[1],
            trains=(lambda c, f: [self.trained(row(c), f)]) if self.settings.epochs else None,
        )
        return search

    def trained(self, row: int, fold: int) -> Trained:
        """A curve that comes near its score, the later the slower it learns."""
        rng = np.random.default_rng([row, fold])
        epochs = np.arange(1, self.settings.epochs + 1)
        slow = np.exp(-epochs / rng.uniform(1, 4))
        values = self.scores[row, fold] - 0.3 * slow + rng.normal(0, 0.01, len(epochs))
        return Trained(Training(), [*np.maximum.accumulate(values)], over=True)

    def run(
        self,
        journal: Rows,
        workers: int,
        seed: int,
        until: Callable[[int], bool] = lambda _: False,
        repeats: bool = False,
    ) -> Search:
        """Workers with random durations, until the search has ended or `until(steps)`."""
        rng = np.random.default_rng(seed)
        search = self.open(journal, repeats)
        running: list[tuple[float, int, Any]] = []
        waiting = search.outstanding
        now, steps = 0.0, 0
        while not until(steps):
            while len(running) < workers:
                step = waiting.pop(0) if waiting else search.take()
                if step is None:
                    break
                heapq.heappush(running, (now + rng.lognormal(0, 1), step.number, step))
            if not running:
                break
            now, _, step = heapq.heappop(running)
            search.finished(step, self.lost.get((step.candidate, step.fold)))
            steps += 1
        return search
