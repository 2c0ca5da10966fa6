"""What cells will cost, before and after some of them have been measured."""

from collections import Counter
from collections.abc import Mapping, Sequence

import pandas as pd

from orchestrator.execution.schedule import WaitingCell
from trainables.core.config import Candidate, CellSpec
from trainables.core.ledger import CellState, Entry
from trainables.models import zoo
from trainables.models.architecture import Architecture

#: Operations per second that convolutional networks reach in practice, an order of magnitude and no
#: more; finished cells correct it.
GPU_GIGAFLOPS, CPU_GIGAFLOPS = 4000.0, 20.0


def part_sizes(folds: pd.DataFrame) -> dict[int, Counter[str]]:
    """Number of images in each role of each fold."""
    sizes: dict[int, Counter[str]] = {}
    for fold, part in folds.groupby("fold"):
        sizes[int(str(fold))] = Counter(part["role"])
    return sizes


def cell_gigaflops(spec: CellSpec, sizes: Counter[str]) -> float:
    """10⁹ operations of a cell that runs all its epochs."""
    return candidate_gigaflops(spec.candidate, sizes)


def candidate_gigaflops(candidate: Candidate, sizes: Counter[str]) -> float:
    """The same of a cell of this candidate, on parts of these sizes: a training pass costs three
    forward passes.
    """
    epochs = candidate.training.epochs
    images = epochs * (3 * sizes["train"] + sizes["validation"]) + sizes["fold"] + sizes["test"]
    return images * zoo.forward_gigaflops(candidate.model, candidate.image_size)


def measured_gigaflops(
    entries: Sequence[Entry], states: Sequence[CellState], folds: pd.DataFrame
) -> float | None:
    """Estimated operations per second of the cells that are done; None where there are none.

    An early stop counts as if all epochs had run, so that the pace also holds what early stopping
    saves.
    """
    sizes = part_sizes(folds)
    done = [
        (e.spec, s.seconds.train + s.seconds.score)
        for e, s in zip(entries, states, strict=True)
        if s.state == "done"
    ]
    seconds = sum(taken for _, taken in done)
    return (
        sum(cell_gigaflops(spec, sizes[spec.fold]) for spec, _ in done) / seconds
        if seconds
        else None
    )


def waiting_cell(entry: Entry, sizes: Mapping[int, Counter[str]], gigaflops: float) -> WaitingCell:
    """An entry for the schedule, at an assumed pace of `gigaflops` per worker; `sizes`: of the
    parts of each fold.
    """
    spec = entry.spec
    work = cell_gigaflops(spec, sizes[spec.fold])
    return WaitingCell(spec.key, Architecture.of(spec).key, work / gigaflops)
