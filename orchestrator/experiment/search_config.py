"""How candidates are searched: what draws them, what they are judged by, and when it ends."""

from collections.abc import Iterator, Sequence
from itertools import chain, islice
from typing import Literal

from pydantic import ConfigDict, Field

from orchestrator.experiment.folds_config import MOST_REPEATS, Folds
from orchestrator.experiment.search_space import Space
from trainables.core.values import Frozen, Real, Seed, Whole

FIRST_RUNG = 3  # epochs before any cell is halted; then thrice as many, and so on
BUDGETS = ("candidates", "cells", "hours", "gpu_hours", "patience")
#: What of a search may be changed while it goes on.
CHANGEABLE = frozenset({*BUDGETS, "finalists"})


class Finalists(Frozen):
    """Who gets the folds of more repeats once the race has ended; beside all budgets."""

    top: Whole = Field(ge=1, le=1_000, description="How many: the best that have all folds.")
    repeats: Whole = Field(
        ge=2, le=MOST_REPEATS, description="Repeats of theirs in all, more than folds.repeats."
    )


class Search(Frozen):
    """Which candidates are tried, and which get more folds. The budget that is reached first ends
    it.
    """

    model_config = ConfigDict(serialize_by_alias=True)

    sampler: Literal["grid", "random", "tpe", "gp", "cmaes"] = Field(
        "tpe",
        description=(
            "What draws candidates. grid: every combination; random; tpe: by densities of the good "
            "and the others; gp: by a Gaussian process, needs torch; cmaes: by an evolution of "
            "normal distributions. The last two take one space without `when`, cmaes only numbers."
        ),
    )
    candidates: Whole | None = Field(
        None, ge=1, le=1_000_000, description="Most candidates, the stated ones among them."
    )
    cells: Whole | None = Field(
        None, ge=1, le=10_000_000, description="Most cells, candidates × folds × seeds."
    )
    hours: Real | None = Field(None, gt=0, description="Most hours by the clock, over all runs.")
    gpu_hours: Real | None = Field(
        None, gt=0, description="Most hours of GPUs, parts of one counted as such."
    )
    patience: Whole | None = Field(
        None, ge=1, description="Most suggested candidates in a row that do not take the lead."
    )
    objective: Literal[
        "accuracy",
        "f1",
        "auc",
        "balanced_accuracy",
        "mcc",
        "average_precision",
        "brier",
        "log_loss",
    ] = Field("auc", description="Metric of the folds by which candidates are judged.")
    seed: Seed = Field(0, description="Seed of the sampler, and of resampling patients.")
    racing: Literal["off", "paired", "forgiving", "aggressive"] = Field(
        "paired",
        description=(
            "When a candidate gets no more folds. off: never; paired: when it is improbable that "
            "it ends up best, by patients resampled on the folds that it shares with others; "
            "forgiving, aggressive: when its mean is not above the best candidate's worst fold, "
            "or its mean."
        ),
    )
    bound: Real = Field(
        0.05,
        gt=0,
        lt=0.5,
        description=(
            "Of paired: a candidate stops when it is less than this many times as likely as the "
            "leader to end up best."
        ),
    )
    epoch_stopping: Literal["off", "asha"] = Field(
        "off",
        description=(
            "When a candidate's first fold ends within its epochs. off: never; asha: when, after "
            "3, 9, 27, … epochs, its best validation score is not in the upper third of those that "
            "the same fold had by then (asynchronous successive halving)."
        ),
    )
    repeatable: bool = Field(
        True, description="The same search on one worker or many, and after interruptions."
    )
    lag: Whole = Field(
        8,
        ge=1,
        le=1_000_000,
        description=(
            "Of repeatable: how many steps, candidate × fold, lie between what a decision may look "
            "at and what it decides; fewer than workers leave some idle."
        ),
    )
    from_: tuple[str, ...] = Field(
        (),
        alias="from",
        description=(
            "Run folders of earlier runs, of these data or others: tpe, gp and cmaes begin with "
            "what their candidates were worth, and cells that they have done are not trained again."
        ),
    )
    finalists: Finalists | None = Field(
        None,
        description=(
            "The best candidates get the folds of more repeats, such as {top: 3, repeats: 3}, and "
            "the best of them by all these folds wins; default: none."
        ),
    )


def problems(
    search: Search,
    stated: int,
    spaces: Sequence[Space],
    folds: Folds,
    seeds: int,
    most_cells: int,
    epochs: int,
) -> Iterator[tuple[bool, str]]:
    """Whether something is wrong with a search of so many stated candidates and these spaces, and
    what, in one line with the remedy.

    `seeds`: how many; `most_cells`: of an experiment; `epochs`: most of a stated one.
    """
    k = folds.count
    yield (
        stated < 2 and not spaces,
        "search must have something to choose from, got one candidate and nothing to vary; state "
        "more candidates or a distribution such as learning_rate: {loguniform: [1.0e-5, 1.0e-2]}, "
        "or remove search",
    )
    budgets = [name for name in BUDGETS if getattr(search, name) is not None]
    yield (
        bool(spaces) and search.sampler != "grid" and not budgets,
        f"search must have a budget, one of {', '.join(BUDGETS)}, got none; add candidates: 40",
    )
    least = stated + bool(spaces)
    yield (
        search.candidates is not None and search.candidates < least,
        f"search.candidates must be at least {least}, since it counts the {stated} that are "
        f"stated, got {search.candidates}",
    )
    yield (
        search.cells is not None and search.cells < k * seeds,
        f"search.cells must be at least {k * seeds}, folds × seeds of one candidate, got "
        f"{search.cells}",
    )
    yield from _of_finalists(search, stated, spaces, folds, seeds, most_cells)
    epochs = max([epochs, *_varied_epochs(spaces)])
    yield (
        search.epoch_stopping == "asha" and epochs <= FIRST_RUNG,
        f"search.epoch_stopping: asha first looks after {FIRST_RUNG} epochs, and no candidate has "
        f"more, got training.epochs {epochs}; raise it, or remove epoch_stopping",
    )
    yield from _of_sampler(search, spaces)
    if search.sampler == "grid" and spaces and not budgets:
        yield (
            grid_points(spaces, most_cells // (k * seeds)) is None,
            f"search.sampler: grid comes to more than {most_cells:,} cells; add a budget such as "
            "candidates: 40, or list fewer choices",
        )


def _of_finalists(
    search: Search, stated: int, spaces: Sequence[Space], folds: Folds, seeds: int, most_cells: int
) -> Iterator[tuple[bool, str]]:
    """What finalists cannot be."""
    finalists = search.finalists
    if finalists is None:
        return
    top, repeats = finalists.top, finalists.repeats
    yield (
        repeats <= folds.repeats,
        f"search.finalists.repeats must be above folds.repeats, {folds.repeats}, since it counts "
        f"them, got {repeats}",
    )
    most = search.candidates if spaces else stated
    yield (
        most is not None and top > most,
        f"search.finalists.top must be at most {most}, the candidates that there are, got {top}",
    )
    cells = top * folds.k * repeats * seeds
    yield (
        cells > most_cells,
        f"search.finalists may come to {most_cells:,} cells, top × folds × repeats × seeds, got "
        f"{cells:,}; lower top or repeats",
    )


def _of_sampler(search: Search, spaces: Sequence[Space]) -> Iterator[tuple[bool, str]]:
    """What a sampler cannot draw."""
    kind = f"search.sampler: {search.sampler}"
    parameters = [parameter for space in spaces for parameter in space.parameters]
    continuous = [each.name for each in parameters if each.options is None]
    conditional = [each.name for each in parameters if each.when]
    choices = [each.name for each in parameters if each.kind == "choice"]
    if search.sampler == "grid":
        yield (
            bool(continuous),
            f"{kind} must have values to list, got a range of {''.join(continuous[:1])}; use int "
            "or choice for it, or another sampler",
        )
    if search.sampler in ("gp", "cmaes"):
        yield (
            len(spaces) > 1,
            f"{kind} must have one space, got {len(spaces)}, as grids are unfolded; use tpe or "
            "random",
        )
        yield (
            bool(conditional),
            f"{kind} takes no conditions, got `when` of {''.join(conditional[:1])}; use tpe or "
            "random",
        )
    if search.sampler == "cmaes":
        yield (
            bool(choices),
            f"{kind} takes numbers only, got choice for {''.join(choices[:1])}; use tpe or random",
        )
        yield (
            bool(spaces) and len(parameters) < 2,
            f"{kind} must have at least 2 ranges, got {len(parameters)}; use tpe or random",
        )


def _varied_epochs(spaces: Sequence[Space]) -> Iterator[int]:
    """The most of each space that varies them."""
    for space in spaces:
        for parameter in space.parameters:
            if parameter.name == "epochs":
                yield max(parameter.options or ())


def grid_points(spaces: Sequence[Space], most: int) -> int | None:
    """How many candidates a grid has; None where there are more than `most`."""
    names = ([parameter.name for parameter in space.parameters] for space in spaces)
    points = chain.from_iterable(map(Space.reached, spaces, names))
    try:
        number = sum(1 for _ in islice(points, most + 1))
    except ValueError:
        return None
    return number if number <= most else None
