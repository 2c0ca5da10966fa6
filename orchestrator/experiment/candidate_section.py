"""The candidates section of an experiment file: from what is written, grids and spaces among it, to
the stated candidates and what may be searched.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from orchestrator.experiment.candidates import Where, combinations, resolve, unfold
from orchestrator.experiment.messages import shown
from orchestrator.experiment.search_space import Space
from orchestrator.experiment.space_reading import read_spaces, take_out
from trainables.core.config import Candidate
from trainables.core.errors import ExperimentError
from trainables.core.quoting import printable
from trainables.core.training_config import Training
from trainables.core.values import digest

#: Of one experiment, once its grids are unfolded.
MOST_CANDIDATES = 1000
#: How the ids of suggested candidates look.
_SUGGESTED = re.compile(r"s\d{4,}")


def resolve_candidates(
    section: Sequence[Mapping[str, Any]],
    training: Training,
    folder: Path,
    source: str,
    searched: bool = False,
) -> tuple[tuple[Candidate, ...], tuple[Space, ...]]:
    """Unfold and complete the candidates section; `training` holds what a candidate does not state
    itself.

    Returns the stated candidates, a space's default in its place, and the spaces. Relative paths
    start at `folder`; `source` names the file in errors; `searched`: whether the file states a
    search. Raises ExperimentError.
    """
    candidates: list[Candidate] = []
    spaces: list[Space] = []
    for index, raw in enumerate(section):
        where = Where(source, place := f"candidates[{index}]", folder)
        fixed, distributions = take_out(raw, where)
        if distributions and not searched:
            name, content = next(iter(distributions.items()))
            raise ExperimentError(
                printable(
                    f"{place}.{name} is to be searched, and there is no search, got "
                    f"{shown(content)} ({source}: {place}.{name}); add search: {{candidates: 40}}, "
                    "or write a value"
                )
            )
        try:
            if (number := len(candidates) + combinations(fixed)) > MOST_CANDIDATES:
                raise ExperimentError(
                    f"an experiment may have {MOST_CANDIDATES:,} candidates, got {number:,} as "
                    f"grids are unfolded ({source}: {place}); make several experiments of it"
                )
            choices = list(unfold(fixed))
        except ValueError as error:
            raise ExperimentError(printable(f"{place}.{error} ({source}: {place})")) from error
        if not distributions:
            candidates += [resolve(choice, training, where) for choice in choices]
            continue
        for candidate, space in read_spaces(choices, distributions, training, where):
            if space is not None:
                spaces.append(space.model_copy(update={"candidate": len(candidates)}))
            candidates.append(candidate)
    _check_unique(candidates, {space.candidate for space in spaces}, source)
    return tuple(candidates), tuple(spaces)


def _check_unique(candidates: list[Candidate], searched: set[int], source: str) -> None:
    """Raise where two candidates are one, or are filed as one; `searched`: the numbers of those
    that are the defaults of spaces.
    """
    contents: dict[str, int] = {}
    ids: dict[str, Candidate] = {}
    for number, candidate in enumerate(candidates):
        if searched and _SUGGESTED.fullmatch(candidate.id):
            raise ExperimentError(
                f"candidates must not be called as the search calls its own, got "
                f"{candidate.name!r} ({source}: candidates); choose another name"
            )
        content = digest(candidate.deciding())
        first = contents.setdefault(content, number)
        if first != number:
            other = ", or give a space another default" if searched & {first, number} else ""
            raise ExperimentError(
                f"candidates {candidates[first].name!r} and {candidate.name!r} are the same, they "
                f"would train identically: remove one{other} ({source}: candidates)"
            )
        namesake = ids.setdefault(candidate.id, candidate)
        if namesake is not candidate:
            raise ExperimentError(
                f"candidates {namesake.name!r} and {candidate.name!r} would both be filed as "
                f"{candidate.id!r}: give each a name of its own ({source}: candidates)"
            )
