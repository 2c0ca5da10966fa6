"""Earlier runs that a search takes from: what their candidates were worth, and cells that are done.

Another run is only read, may be at work, and is believed as far as this one: entry by entry, as
the ledger says. What it knew is written into the journal of the search once; a cell is looked up
when it is to be trained. Neither needs the run to be there later.
"""

import math
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from orchestrator.experiment.experiment_file import Experiment
from orchestrator.experiment.suggestions import located
from orchestrator.results.entries import epochs_of, predictions_of
from orchestrator.results.step_score import step_score
from orchestrator.search.journal import Row
from orchestrator.search.needs import LEARNING
from orchestrator.search.racing import RaceTable, estimates
from orchestrator.splits.folds import roles_digest
from trainables.core.config import Candidate
from trainables.core.errors import RunFolderError
from trainables.core.layout import RunLayout
from trainables.core.ledger import Entry, read_entry
from trainables.core.records import DamagedRecord
from trainables.core.run_folder import read_entries, read_folds, read_keys
from trainables.core.spelling import count
from trainables.data.manifest import Manifest
from trainables.runtime.private_folder import foreign_owner

if TYPE_CHECKING:
    from orchestrator.execution.cells import Prepared


class EarlierRun:
    """The run folder at `path`, whose finished cells are looked at once.

    Raises RunFolderError where it is none, is damaged, or belongs to another user.
    """

    def __init__(self, path: str) -> None:
        self.path, self._layout = path, RunLayout(Path(path))
        for needed in (self._layout.cells, self._layout.folds):
            if not needed.is_file():
                raise RunFolderError(
                    f"search.from must name run folders, got {path!r}, which has no {needed.name}: "
                    "check the path"
                )
        for place in (self._layout.root, self._layout.root.resolve(), self._layout.ledger):
            if (owner := foreign_owner(place)) is not None:
                raise RunFolderError(
                    f"search.from must name runs of your own, got {path!r}, where {str(place)!r} "
                    f"belongs to user {owner}, who could change what is believed: copy it"
                )
        found = read_entries(self._layout, read_keys(self._layout)).values()
        self._entries = [entry for entry in found if isinstance(entry, Entry)]

    def check(self, classes: Sequence[str]) -> None:
        """Raise RunFolderError where it has other classes, or no finished cell."""
        for entry in self._entries[:1]:
            lacks, more = (
                ", ".join(map(repr, sorted(a.difference(b))))
                for a, b in (
                    (set(classes), entry.spec.classes),
                    (set(entry.spec.classes), classes),
                )
            )
            parts = [f"lacks {lacks}" if lacks else "", f"has {more} beside" if more else ""]
            if lacks or more:
                raise RunFolderError(
                    f"search.from must name runs of the same classes, got {self.path!r}, which "
                    f"{' and '.join(filter(None, parts))}: leave it out"
                )
        if not any(entry.state().state == "done" for entry in self._entries):
            raise RunFolderError(
                f"search.from must name runs with finished cells, got {self.path!r}, which has "
                "none yet: let it finish one, or leave it out"
            )

    def row(self, experiment: Experiment, manifest: Manifest, folds: pd.DataFrame) -> Row:
        """What its candidates were worth by the present objective, as a row of the journal.

        A candidate with some of its folds is told as every search tells it: the mean that is
        expected of the best one plus the mean difference to it on the folds of both.
        """
        known, outside = [], 0
        table = self._scores(experiment) if _learns(experiment) else RaceTable(1)
        for number, value in enumerate(estimates(table)):
            candidate = self._candidates[number]
            if math.isnan(value):  # none of its folds is finished
                continue
            if (place := located(experiment.spaces, candidate)) is None:
                outside += 1
                continue
            told = {"id": candidate.id, "space": place[0], "values": place[1]}
            estimated = not bool(table.through[number])
            known.append({**told, "value": float(value), "estimated": estimated})
        same = self._decided_by(manifest, folds)
        row = {"event": "prior", "run": self.path, "same_data": same}
        return {**row, "candidates": known, "outside": outside}

    @cached_property
    def _folds(self) -> pd.DataFrame:
        return read_folds(self._layout)

    @cached_property
    def _candidates(self) -> list[Candidate]:
        """Each once, in the order of its cells."""
        return list({e.spec.candidate.id: e.spec.candidate for e in self._entries}.values())

    def _scores(self, experiment: Experiment) -> RaceTable:
        """Of each candidate the folds whose cells are done, for all seeds."""
        assert experiment.search is not None
        seeds = len({entry.spec.seed for entry in self._entries})
        groups = self._folds.drop_duplicates("image").set_index("image")["group"]
        done: dict[tuple[str, int], list[Entry]] = {}
        for entry in self._entries:
            if entry.state().state == "done":
                step = entry.spec.candidate.id, entry.spec.fold
                done.setdefault(step, []).append(entry)
        table = RaceTable(int(self._folds["fold"].max()) + 1)
        numbers = {candidate.id: number for number, candidate in enumerate(self._candidates)}
        for (candidate, fold), entries in done.items():
            if len(entries) < seeds:
                continue
            try:
                score, _ = step_score(
                    entries, self._folds, groups, experiment.search.objective, draws=1
                )
            except DamagedRecord:  # it counts as not done
                continue
            if math.isfinite(score):  # a fold that lacks a class has none
                table.add(numbers[candidate], fold, score)
        return table

    def _decided_by(self, manifest: Manifest, folds: pd.DataFrame) -> bool:
        """Whether its scores are of these images, in these folds."""
        own = {fold: roles_digest(folds, fold) for fold in folds["fold"].unique()}
        theirs = {fold: roles_digest(self._folds, fold) for fold in self._folds["fold"].unique()}
        data = {entry.spec.data_hash for entry in self._entries}
        return data == {manifest.data_hash} and own == theirs


def check_earlier(
    experiment: Experiment, layout: RunLayout, classes: Sequence[str] | None = None
) -> None:
    """Raise RunFolderError where a search that is to begin cannot take from the runs that it
    names; one that goes on has all that it needs. `classes`: as soon as they are known.
    """
    for path in _named(experiment):
        if os.path.realpath(path) == os.path.realpath(layout.root):
            raise RunFolderError(
                f"search.from must name other runs, got {path!r}, where this one goes: leave it "
                "out, what it has done counts anyway"
            )
        if not layout.journal.exists():
            run = EarlierRun(path)
            if classes is not None:
                run.check(classes)


def unwritten(prepared: "Prepared", written: Sequence[Row]) -> Iterator[Row]:
    """What a journal with these rows lacks of what the named runs know, a row for each: they are
    its first rows, and read no more once there is another.
    """
    if any(row["event"] != "prior" for row in written):
        return
    for path in _named(prepared.experiment)[len(written) :]:
        run = EarlierRun(path)
        run.check(prepared.manifest.classes)
        yield run.row(prepared.experiment, prepared.manifest, prepared.folds)


def describe(rows: Sequence[Row], experiment: Experiment) -> Iterator[str]:
    """A line on what each earlier run gives."""
    for row in (row for row in rows if row["event"] == "prior"):
        known, outside = len(row["candidates"]), row["outside"]
        if not _learns(experiment):
            yield f"{row['run']!r} gives cells only: what is tried here does not depend on others"
            continue
        how = "" if row["same_data"] else ", by their order, since data or folds are others"
        left = f", {outside} more lie in no space of this search" if outside else ""
        yield f"{row['run']!r} tells of {count(known, 'candidate')}{how}{left}"


class EarlierCells:
    """Looks for cells in the ledgers of earlier runs. `folds`: the present ones.

    `taken`: how many each run gave; `refused`: a line for each that is not believed.
    """

    def __init__(self, experiment: Experiment, folds: pd.DataFrame) -> None:
        self._runs, self._folds = _named(experiment), folds
        self.taken: Counter[str] = Counter()
        self.refused: list[str] = []
        self._not: set[Path] = set()  # not believed, and not looked at again

    def take(self, entry: Entry) -> bool:
        """Have a cell's result from the first run that has it whole; whether one had."""
        for run, theirs in self._found(entry):
            entry.create()
            with self._doubting(theirs.folder):
                state = entry.take_over(theirs, run)
                if state.state == "done":
                    self.taken[run] += 1
                    return True
        return False

    def has(self, entry: Entry) -> bool:
        """Whether one of the runs has the cell whole."""
        return next(self._found(entry), None) is not None

    def _found(self, entry: Entry) -> Iterator[tuple[str, Entry]]:
        for run in self._runs:
            folder = RunLayout(Path(run)).ledger / entry.spec.key
            if folder in self._not or not os.path.lexists(folder / "state.json"):
                continue
            theirs = None
            with self._doubting(folder):
                theirs = self._whole(folder)
            if theirs is not None:
                yield run, theirs

    @contextmanager
    def _doubting(self, folder: Path) -> Iterator[None]:
        """What goes wrong with an entry is noted, and the cell is trained."""
        try:
            yield
        except (OSError, RunFolderError) as error:
            self._not.add(folder)
            self.refused.append(str(error))

    def _whole(self, folder: Path) -> Entry | None:
        """The entry of a done cell; None where it is not done."""
        entry = read_entry(folder)
        state = entry.state()
        if state.state == "missing" and state.reason:
            raise RunFolderError(f"{str(folder)!r}: {state.reason}")
        if state.state != "done":
            return None
        for place in (folder.parents[1], folder.parent, folder, *folder.iterdir()):
            if (owner := foreign_owner(place)) is not None:
                raise RunFolderError(f"{str(place)!r} belongs to user {owner}")
        predictions_of(entry, self._folds)
        epochs_of(entry, state)
        return entry


def _learns(experiment: Experiment) -> bool:
    """Whether what is tried depends on what is known of others."""
    search = experiment.search
    return bool(experiment.spaces) and search is not None and search.sampler in LEARNING


def _named(experiment: Experiment) -> tuple[str, ...]:
    return () if experiment.search is None else experiment.search.from_
