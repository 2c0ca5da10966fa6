"""From an experiment to its cells: manifest, folds, and one ledger entry per candidate × fold ×
seed.
"""

import os
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any, Literal

import pandas as pd

from orchestrator.execution.earlier_runs import check_earlier
from orchestrator.experiment.experiment_file import Experiment
from orchestrator.splits.folds import make_folds, roles_digest
from orchestrator.splits.leakage import leak_groups
from trainables.core.config import Candidate, CellSpec
from trainables.core.errors import DataError, ExperimentError
from trainables.core.files import write_json, write_text
from trainables.core.layout import RunLayout
from trainables.core.ledger import Entry
from trainables.core.spelling import count, quoted
from trainables.core.tables import write_csv, write_parquet
from trainables.core.values import digest
from trainables.data.manifest import SHOWN_IN_ERROR, Manifest, UnusableImages, build_manifest
from trainables.models import zoo


@dataclass(frozen=True)
class Prepared:
    """An experiment with its data looked at and divided: all that is known before anything
    trains.
    """

    experiment: Experiment
    layout: RunLayout
    manifest: Manifest
    folds: pd.DataFrame
    entries: list[Entry]

    def save(self) -> None:
        """Write experiment, manifest, folds and the specification of every cell into the run
        folder.
        """
        write_text(self.layout.experiment, self.experiment.to_yaml())
        self.manifest.save(self.layout.manifest)
        self.layout.unusable.unlink(missing_ok=True)
        write_parquet(self.layout.folds, self.folds)
        for entry in self.entries:
            entry.create()
        write_json(self.layout.cells, [entry.spec.key for entry in self.entries])


def prepare(experiment: Experiment, layout: RunLayout) -> Prepared:
    """Scan the images (again only where they changed), draw the folds, list the cells.

    Writes nothing, except a list of the images that cannot be used where they are many.
    """
    check_starts(experiment)
    previous = None
    with suppress(DataError):  # none yet, or damaged: then every image is looked at anew
        previous = Manifest.load(layout.manifest)
    forms = experiment.input_formats
    try:
        manifest = build_manifest(experiment.data, experiment.folder, previous, forms)
    except UnusableImages as error:
        if len(error.rows) <= SHOWN_IN_ERROR:
            raise
        write_csv(layout.unusable, error.rows)
        raise DataError(f"{error}; {str(layout.unusable)!r} lists them all") from error
    if previous is not None and (changed := _on_changes(previous, manifest)):
        manifest = replace(manifest, notes=(*manifest.notes, changed))
    check_earlier(experiment, layout, manifest.classes)
    images = manifest.usable
    kept_together = leak_groups(images)
    notes = [*manifest.notes, *_on_merged(images["group"], kept_together)]
    images = images.assign(group=kept_together)
    f = experiment.folds
    folds = make_folds(images, f.k, f.test_set, f.validation_fraction, f.seed, experiment.draws)
    manifest = replace(manifest, notes=(*notes, *_on_split(images, folds, f.test_set)))
    return Prepared(
        experiment, layout, manifest, folds, cell_entries(experiment, layout, manifest, folds)
    )


def check_files(experiment: Experiment, layout: RunLayout) -> None:
    """Raise where data, weights, builders or runs that the experiment names are not there; no image
    is looked at.
    """
    path = getattr(experiment.data, "path", None)
    if path is not None and not os.path.exists(path):  # noqa: PTH110
        raise DataError(f"data.path must exist, got {str(path)!r} (check the path)")
    check_starts(experiment)
    check_earlier(experiment, layout)


def check_starts(experiment: Experiment) -> None:
    """Raise where the weights or the builder of a candidate are not there, also of one that may be
    suggested only hours later.
    """
    for model, weights in sorted(experiment.starts):
        zoo.weights_digest(model, weights)
        zoo.builder_digest(model, experiment.folder)


def _on_changes(previous: Manifest, manifest: Manifest) -> str | None:
    """A note where the run folder was begun with other images, whose cells then do not count."""
    if previous.data_hash == manifest.data_hash:
        return None
    before, now = (
        each.usable.set_index("image")[["content_hash", "label"]] for each in (previous, manifest)
    )
    both = before.index.intersection(now.index)
    gone, new = before.index.difference(now.index), now.index.difference(before.index)
    changed = both[(before.loc[both] != now.loc[both]).any(axis=1)]
    parts = [
        f"{len(names):,} {what}"
        + (f" (the first is {quoted(str(names[0]))})" if len(names) else "")
        for what, names in (("gone", gone), ("new", new), ("changed", changed))
    ]
    return (
        f"the data are not those with which this run folder was begun, of {len(before):,} images "
        f"{', '.join(parts)}: finished cells stay in the ledger, but count again only when the "
        "data are as they were"
    )


def _on_merged(stated: pd.Series, kept_together: pd.Series) -> list[str]:
    """A note where groups share an image, and so are one."""
    merged = stated[stated != kept_together]
    if merged.empty:
        return []
    names = quoted(str(merged.iloc[0])), quoted(str(kept_together.loc[merged.index[0]]))
    return [
        f"{count(merged.nunique(), 'group')} of {stated.nunique():,} show an image that another "
        f"one shows, too, and count as one with it ({names[0]} as {names[1]} for instance): the "
        "images stay in one part, and the groups may be one patient"
    ]


def _on_split(
    images: pd.DataFrame, folds: pd.DataFrame, test_set: float | Literal["given"]
) -> list[str]:
    """A note where the images come with a division that is not kept."""
    given = images.loc[images["split"].notna(), "split"].value_counts()
    if given.empty or test_set == "given":
        return []
    stated = ", ".join(
        f"{given[part]:,} {part}" for part in ("train", "validation", "test") if part in given
    )
    if "test" not in given:
        return [f"the images' own split ({stated}) is not kept: every part is drawn anew"]
    published = set(images.loc[images["split"] == "test", "image"])
    drawn = set(folds.loc[folds["role"] == "test", "image"])
    return [
        f"the images' own split ({stated}) is not kept: folds.test_set {test_set:g} draws a test "
        f"set of {len(drawn):,} images anew, and {len(published - drawn):,} of the "
        f"{len(published):,} images of the published test set are trained on (folds.test_set: "
        "given keeps the published test set)"
    ]


def cell_entries(
    experiment: Experiment, layout: RunLayout, manifest: Manifest, folds: pd.DataFrame
) -> list[Entry]:
    """The ledger entries of all cells, candidate by candidate, then seed, then fold."""
    maker = CellMaker(experiment, layout, manifest, folds)
    entries = [entry for candidate in experiment.candidates for entry in maker.all_of(candidate)]
    _check_different(entries)
    return entries


class CellMaker:
    """Makes the ledger entries of candidates, on one division of one experiment's images."""

    def __init__(
        self, experiment: Experiment, layout: RunLayout, manifest: Manifest, folds: pd.DataFrame
    ) -> None:
        self._layout, self._seeds = layout, experiment.seeds
        self._count = experiment.folds.count
        drawn = range(experiment.folds.k * experiment.draws)
        self._roles = {fold: roles_digest(folds, fold) for fold in drawn}
        self._common: dict[str, Any] = {
            "classes": manifest.classes,
            "channels": manifest.channels,
            "data_hash": manifest.data_hash,
        }
        self._weights = cache(zoo.weights_digest)
        self._builder = cache(partial(zoo.builder_digest, import_path=experiment.folder))

    def all_of(self, candidate: Candidate) -> list[Entry]:
        """By seed, then by fold."""
        by_fold = [self.of_fold(candidate, fold) for fold in range(self._count)]
        return [entries[seed] for seed in range(len(self._seeds)) for entries in by_fold]

    def of_fold(self, candidate: Candidate, fold: int) -> list[Entry]:
        """One entry a seed."""
        spec: dict[str, Any] = {
            **self._common,
            "candidate": candidate,
            "fold": fold,
            "roles_hash": self._roles[fold],
            "weights_hash": self._weights(candidate.model, candidate.training.weights),
            "builder_hash": self._builder(candidate.model),
        }
        return [Entry(self._layout.ledger, CellSpec(**spec, seed=seed)) for seed in self._seeds]


def _check_different(entries: list[Entry]) -> None:
    """Candidates may differ in the path of weights only, with the same content behind both."""
    known: dict[str, Candidate] = {}
    for entry in entries:
        twin = known.setdefault(entry.spec.key, entry.spec.candidate)
        if twin is not entry.spec.candidate:
            raise ExperimentError(
                f"candidates {twin.name!r} and {entry.spec.candidate.name!r} would train "
                "identically, their weights files have the same content: remove one (candidates)"
            )


def folds_hash(folds: pd.DataFrame) -> str:
    """Digest of the whole division, for the provenance."""
    return digest([roles_digest(folds, fold) for fold in sorted(folds["fold"].unique())])
