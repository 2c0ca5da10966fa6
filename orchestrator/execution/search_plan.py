"""What a search may come to, before it has begun: cells at least and at most, and their time."""

from collections.abc import Iterator, Sequence
from contextlib import suppress

from orchestrator.execution.cells import Prepared
from orchestrator.execution.costs import (
    CPU_GIGAFLOPS,
    GPU_GIGAFLOPS,
    candidate_gigaflops,
    measured_gigaflops,
    part_sizes,
)
from orchestrator.experiment.experiment_file import MOST_CELLS, Experiment
from orchestrator.experiment.search_config import grid_points
from trainables.core.config import Candidate
from trainables.core.errors import ExperimentError
from trainables.core.ledger import CellState

_COSTLY = ("model", "image_size", "epochs")  # what the time of a cell depends on most


def budget_line(experiment: Experiment) -> str:
    """How many cells the search may ask for, beside those of the stated candidates."""
    seeds, count = len(experiment.seeds), _most_candidates(experiment)
    least, most = cell_range(experiment)
    if most is None:
        return "as many cells as its budget lasts, the stated candidates' among them"
    of = (
        ""
        if count is None
        else f" of {count:,} candidates × {experiment.folds.words} × {seeds} seeds"
    )
    racing = f"; {least:,} if racing stops all others after one fold" if least < most else ""
    return f"at most {most:,} cells{of}{racing}"


def estimate_line(prepared: Prepared, states: Sequence[CellState]) -> str:
    """The time of the whole search, from its cheapest to its dearest course."""
    experiment = prepared.experiment
    assert experiment.search is not None
    sizes = part_sizes(prepared.folds)
    costs = [candidate_gigaflops(each, sizes[0]) for each in _reached(experiment)]
    least, most = cell_range(experiment)
    measured = measured_gigaflops(prepared.entries, states, prepared.folds)
    paces = (
        [("device-hours, at the pace of the cells that are done", measured)]
        if measured
        else [
            ("GPU-hours", GPU_GIGAFLOPS),
            ("CPU-core-hours, if no cell stops early", CPU_GIGAFLOPS),
        ]
    )
    told = ", or ".join(
        _range(least * min(costs) / pace, None if most is None else most * max(costs) / pace, unit)
        for unit, pace in paces
    )
    hours = experiment.search.hours
    return f"roughly {told}" + ("" if hours is None else f"; search.hours ends it after {hours:g}")


def cell_range(experiment: Experiment) -> tuple[int, int | None]:
    """Cells of a whole search: at least, where everyone but the reference stops after its first
    fold, and at most; None where no budget of cells or candidates says, then with the stated ones'.
    """
    search, k = experiment.search, experiment.folds.count
    assert search is not None
    seeds, count = len(experiment.seeds), _most_candidates(experiment)
    if count is None:  # it goes on until the cells are spent, if they are told
        return search.cells or len(experiment.candidates) * k * seeds, search.cells
    every = count * k * seeds
    least = every if search.racing == "off" else (k + count - 1) * seeds
    most = every if search.cells is None else min(every, search.cells)
    return min(least, most), most


def _most_candidates(experiment: Experiment) -> int | None:
    """Stated ones and suggestions; None where only other budgets say."""
    search, stated = experiment.search, len(experiment.candidates)
    assert search is not None
    if not experiment.spaces:
        return stated
    points = None
    if search.sampler == "grid" and (points := grid_points(experiment.spaces, MOST_CELLS)):
        points += stated - len(experiment.spaces)  # defaults are among its points
    return min((n for n in (search.candidates, points) if n is not None), default=None)


def _reached(experiment: Experiment) -> Iterator[Candidate]:
    """Candidates of every cost that the search may come to, as far as ends of ranges show it."""
    yield from experiment.candidates
    for number, space in enumerate(experiment.spaces):
        for way in space.reached(_COSTLY):
            with suppress(ExperimentError):  # settings that contradict each other are refused
                yield experiment.suggested(number, space.completed(way), 0)


def _range(low: float, high: float | None, unit: str) -> str:
    """Of seconds, in hours."""
    shown = [f"{seconds / 3600:.2g}" for seconds in (low, high) if seconds is not None]
    if high is None:
        return f"at least {shown[0]} {unit}"
    return f"{' to '.join(dict.fromkeys(shown))} {unit}"
